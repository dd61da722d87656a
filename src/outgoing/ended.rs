//! Ends of connections that the application is told of: a bounded queue, sent in batches by a thread of its own.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::auth::hook::Ended;
use crate::auth::identity::Identity;
use crate::config::HookEvent;

/// Ends of one request.
const BATCH_MAX: usize = 256;

/// Bytes of metas of one request, beyond which none is added.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// Ends that wait to be told.
pub(super) struct EndedQueue {
    state: Mutex<State>,
    ends_max: usize,
    is_over: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Ended>,
    /// A thread sends them.
    is_sending: bool,
    is_over: bool,
}

impl EndedQueue {
    /// An empty one. At most so many wait.
    pub fn new(ends_max: usize) -> EndedQueue {
        EndedQueue {
            state: Mutex::default(),
            ends_max,
            is_over: Condvar::new(),
        }
    }

    /// Adds one.
    ///
    /// # Errors
    /// As many wait as may.
    pub fn push(&self, ended: Ended) -> Result<(), ()> {
        let mut state = self.lock();
        if state.waiting.len() >= self.ends_max || state.is_over {
            return Err(());
        }
        state.waiting.push_back(ended);
        Ok(())
    }

    /// Whether a thread is to begin to send. True once, until it has [stopped](EndedQueue::take).
    pub fn begin(&self) -> bool {
        let mut state = self.lock();
        !state.waiting.is_empty() && !std::mem::replace(&mut state.is_sending, true)
    }

    /// The thread could not be started.
    pub fn stop(&self) {
        self.lock().is_sending = false;
    }

    /// Takes some, the first to end first. None: there is no more to send, and the thread has stopped.
    pub fn take(&self) -> Option<Vec<Ended>> {
        let mut state = self.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let Some(ended) = state.waiting.pop_front() else {
                break;
            };
            let meta = ended.identity.as_ref().and_then(|it| it.meta());
            bytes += meta.map_or(0, str::len);
            batch.push(ended);
        }
        state.is_sending = !batch.is_empty();
        (!batch.is_empty()).then_some(batch)
    }

    /// Puts ends back that could not be told. They come before later ones. Gives how many have no room any more.
    pub fn put_back(&self, batch: Vec<Ended>) -> usize {
        let mut state = self.lock();
        let room = self.ends_max.saturating_sub(state.waiting.len());
        let lost = batch.len().saturating_sub(room);
        for ended in batch.into_iter().skip(lost).rev() {
            state.waiting.push_front(ended);
        }
        lost
    }

    /// Waits, unless the server has ended. True: it has.
    pub fn wait(&self, time: Duration) -> bool {
        let waited = self
            .is_over
            .wait_timeout_while(self.lock(), time, |state| !state.is_over);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_over
    }

    /// The server has ended.
    pub fn end(&self) {
        self.lock().is_over = true;
        self.is_over.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that tells of ends, as its JSON has it.
#[derive(Serialize)]
pub(super) struct Told<'e> {
    version: u8,
    event: &'static str,
    id: String,
    node: &'e str,
    connections: Vec<EndedMembers<'e>>,
}

#[derive(Serialize)]
struct EndedMembers<'e> {
    connection: &'e str,
    peer: Option<IpAddr>,
    subject: Option<&'e str>,
    meta: Option<Box<RawValue>>,
    code: u16,
    reason: &'static str,
    at_ms: u64,
}

impl<'e> Told<'e> {
    /// The request of this name.
    pub fn new(id: String, node: &'e str, batch: &'e [Ended]) -> Told<'e> {
        let connections = batch.iter().map(|ended| {
            let identity = ended.identity.as_deref();
            let meta = identity.and_then(Identity::meta);
            EndedMembers {
                connection: &ended.connection,
                peer: ended.peer,
                subject: identity.and_then(Identity::subject),
                meta: meta.and_then(|meta| RawValue::from_string(meta.to_owned()).ok()),
                code: ended.code,
                reason: ended.reason,
                at_ms: ended.at_ms,
            }
        });
        Told {
            version: 1,
            event: HookEvent::Disconnected.name(),
            id,
            node,
            connections: connections.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(number: u64) -> Ended {
        Ended {
            connection: format!("0-{number}-0"),
            identity: None,
            peer: None,
            code: 1006,
            reason: "peer_gone",
            at_ms: number,
        }
    }

    fn numbers(batch: &[Ended]) -> Vec<u64> {
        batch.iter().map(|it| it.at_ms).collect()
    }

    #[test]
    fn ends_go_out_in_order_and_the_oldest_find_no_room() {
        let queue = EndedQueue::new(3);
        assert!(!queue.begin(), "there is nothing to send");
        for number in 0..4 {
            assert_eq!(queue.push(ended(number)).is_ok(), number < 3);
        }
        assert!(queue.begin() && !queue.begin());
        let batch = queue.take().expect("three");
        assert_eq!(numbers(&batch), [0, 1, 2]);
        queue.push(ended(4)).expect("room");
        assert_eq!(queue.put_back(batch), 1);
        assert_eq!(numbers(&queue.take().expect("three")), [1, 2, 4]);
        assert!(queue.take().is_none());
        queue.push(ended(5)).expect("room");
        assert!(queue.begin(), "the thread had stopped");
    }

    #[test]
    fn batches_are_bounded() {
        let queue = EndedQueue::new(1000);
        (0..600).for_each(|number| queue.push(ended(number)).expect("room"));
        let lengths = std::iter::from_fn(|| queue.take().map(|it| it.len()));
        assert_eq!(lengths.collect::<Vec<_>>(), [256, 256, 88]);
    }
}
