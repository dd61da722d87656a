//! The queue of one subscription: bounded, and never a wait for the hub.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::caught;
use crate::hub::{Joined, Position, Publication};

/// Treatment of a full queue: the program takes publications more slowly than they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// The oldest are dropped, and a [`Gap`](Delivery::Gap) says how many.
    #[default]
    Gap,
    /// The subscription ends, behind what is queued, with [`SubscriptionEnd::SlowConsumer`].
    End,
}

/// Something that a subscription gets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Delivery {
    /// The first one: the subscription has begun.
    Began {
        /// Position of the topic: all that was published after it comes, behind what was missed. A pattern has none.
        position: Option<Position>,
        /// Whether what was missed since the position that was asked for comes completely. None: none was asked for.
        recovered: Option<bool>,
    },
    /// A publication.
    Publication(ReceivedPublication),
    /// Publications that came before the next one are missing, for the queue was full.
    Gap {
        /// How many.
        missed: u64,
    },
}

/// A publication as a subscription inside the process gets it. It shares the memory of all others; clones are cheap.
#[derive(Clone)]
pub struct ReceivedPublication(Arc<Publication>);

impl From<Arc<Publication>> for ReceivedPublication {
    fn from(publication: Arc<Publication>) -> ReceivedPublication {
        ReceivedPublication(publication)
    }
}

impl ReceivedPublication {
    pub(crate) fn publication(&self) -> &Publication {
        &self.0
    }
}

impl fmt::Debug for ReceivedPublication {
    /// Without the payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedPublication")
            .field("topic", &self.0.topic())
            .field("position", &self.0.position())
            .field("bytes", &self.0.payload().len())
            .finish_non_exhaustive()
    }
}

/// Reason of a subscription's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriptionEnd {
    /// Its queue was full, under [`WhenFull::End`].
    SlowConsumer,
    /// The server has ended.
    Closed,
}

impl fmt::Display for SubscriptionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SubscriptionEnd::SlowConsumer => "publications came faster than they were taken",
            SubscriptionEnd::Closed => "the server has ended",
        })
    }
}

impl std::error::Error for SubscriptionEnd {}

/// Limits of a queue, and what is done when they are reached.
#[derive(Clone, Copy, Debug)]
pub struct QueueRules {
    /// Publications that wait.
    pub publications_max: usize,
    /// Their bytes.
    pub bytes_max: usize,
    /// Treatment of more.
    pub when_full: WhenFull,
}

/// Publications of one subscription on their way to the program.
pub struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    rules: QueueRules,
}

#[derive(Debug, Default)]
struct State {
    began: Option<(Option<Position>, Option<bool>)>,
    /// Missing before the first publication that waits.
    missed: u64,
    publications: VecDeque<Arc<Publication>>,
    bytes: usize,
    end: Option<SubscriptionEnd>,
    waker: Option<Waker>,
}

impl State {
    fn take(&mut self) -> Option<Result<Delivery, SubscriptionEnd>> {
        if let Some((position, recovered)) = self.began.take() {
            return Some(Ok(Delivery::Began {
                position,
                recovered,
            }));
        }
        if self.missed > 0 {
            let missed = std::mem::take(&mut self.missed);
            return Some(Ok(Delivery::Gap { missed }));
        }
        if let Some(publication) = self.publications.pop_front() {
            self.bytes -= publication.frame().len();
            let received = ReceivedPublication(publication);
            return Some(Ok(Delivery::Publication(received)));
        }
        self.end.map(Err)
    }
}

impl Queue {
    /// An empty one.
    pub fn new(rules: QueueRules) -> Queue {
        Queue {
            state: Mutex::default(),
            ready: Condvar::new(),
            rules,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets whoever waits know that there is something, without the lock.
    fn tell(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.ready.notify_one();
        if let Some(waker) = waker {
            // It is the program's executor's.
            caught::call("a waker", || waker.wake());
        }
    }

    /// The subscription by a pattern has begun.
    pub fn begin(&self) {
        let mut state = self.lock();
        state.began = Some((None, None));
        self.tell(state);
    }

    /// The subscription to a topic has begun, as the hub says.
    pub fn begin_with(&self, joined: Joined) {
        let mut state = self.lock();
        state.began = Some((Some(joined.position), joined.recovered));
        for publication in joined.publications {
            self.put(&mut state, publication);
        }
        self.tell(state);
    }

    /// Puts a publication into it. False: it is full, and ends.
    pub fn push(&self, publication: Arc<Publication>) -> bool {
        let mut state = self.lock();
        let is_taken = self.put(&mut state, publication);
        self.tell(state);
        is_taken
    }

    fn put(&self, state: &mut State, publication: Arc<Publication>) -> bool {
        if state.end.is_some() {
            return false;
        }
        let bytes = publication.frame().len();
        let QueueRules {
            publications_max,
            bytes_max,
            when_full,
        } = self.rules;
        // One always fits, whatever its size.
        while !state.publications.is_empty()
            && (state.publications.len() >= publications_max || state.bytes + bytes > bytes_max)
        {
            if when_full == WhenFull::End {
                state.end = Some(SubscriptionEnd::SlowConsumer);
                return false;
            }
            if let Some(oldest) = state.publications.pop_front() {
                state.bytes -= oldest.frame().len();
                state.missed += 1;
            }
        }
        state.bytes += bytes;
        state.publications.push_back(publication);
        true
    }

    /// Ends it, behind what waits. The first reason stands.
    pub fn end(&self, reason: SubscriptionEnd) {
        let mut state = self.lock();
        state.end.get_or_insert(reason);
        self.tell(state);
    }

    /// The next one, if it is there.
    pub fn try_next(&self) -> Option<Result<Delivery, SubscriptionEnd>> {
        self.lock().take()
    }

    /// The next one, for which it waits at most so long.
    pub fn next_timeout(&self, timeout: Duration) -> Option<Result<Delivery, SubscriptionEnd>> {
        // None: there is no such moment, so it waits without an end.
        let until = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        loop {
            if let Some(next) = state.take() {
                return Some(next);
            }
            let left = until.map_or(Duration::MAX, |until| {
                until.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return None;
            }
            let waited = self.ready.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The next one, or the waker is called once it is there.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Result<Delivery, SubscriptionEnd>> {
        let mut state = self.lock();
        match state.take() {
            Some(next) => Poll::Ready(next),
            None => {
                let waker = context.waker();
                if !state
                    .waker
                    .as_ref()
                    .is_some_and(|known| known.will_wake(waker))
                {
                    state.waker = Some(waker.clone());
                }
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Queue")
            .field("publications", &state.publications.len())
            .field("bytes", &state.bytes)
            .field("end", &state.end)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Kind;

    fn queue(publications_max: usize, bytes_max: usize, when_full: WhenFull) -> Queue {
        Queue::new(QueueRules {
            publications_max,
            bytes_max,
            when_full,
        })
    }

    fn publication(text: &str) -> Arc<Publication> {
        Arc::new(Publication::new(Kind::Text, text.as_bytes(), 0))
    }

    /// All that is there, in words.
    fn drain(queue: &Queue) -> Vec<String> {
        let next = || queue.try_next();
        std::iter::from_fn(next)
            .take(20)
            .map(|next| match next {
                Ok(Delivery::Publication(it)) => String::from_utf8_lossy(it.0.payload()).into(),
                Ok(Delivery::Gap { missed }) => format!("gap {missed}"),
                Ok(Delivery::Began { .. }) => "began".to_owned(),
                Err(end) => format!("{end:?}"),
            })
            .collect()
    }

    #[test]
    fn oldest_make_room_and_are_counted() {
        let queue = queue(3, 1000, WhenFull::Gap);
        queue.begin();
        for number in 0..5 {
            assert!(queue.push(publication(&number.to_string())));
        }
        assert_eq!(drain(&queue), ["began", "gap 2", "2", "3", "4"]);
        assert!(queue.push(publication("5")));
        assert_eq!(drain(&queue), ["5"]);
    }

    #[test]
    fn bytes_are_bounded_but_for_a_single_one() {
        let queue = queue(100, 50, WhenFull::Gap);
        for text in ["a", "b", &"x".repeat(100)] {
            assert!(queue.push(publication(text)));
        }
        assert_eq!(drain(&queue), ["gap 2", &"x".repeat(100)]);
    }

    #[test]
    fn full_one_ends_behind_what_waits() {
        let queue = queue(2, 1000, WhenFull::End);
        let taken = ["a", "b", "c", "d"].map(|text| queue.push(publication(text)));
        assert_eq!(taken, [true, true, false, false]);
        queue.end(SubscriptionEnd::Closed);
        let all = drain(&queue);
        assert_eq!(all[..3], ["a", "b", "SlowConsumer"]);
    }

    #[test]
    fn wakers_are_called_once_there_is_something() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let count = Arc::new(Count(Default::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let queue = queue(2, 1000, WhenFull::Gap);
        assert!(queue.poll_next(&mut context).is_pending());
        assert!(queue.poll_next(&mut context).is_pending());
        queue.push(publication("a"));
        queue.push(publication("b"));
        assert_eq!(count.0.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert!(queue.poll_next(&mut context).is_ready());
        assert!(queue.next_timeout(Duration::ZERO).is_some());
        assert!(queue.next_timeout(Duration::from_millis(1)).is_none());
    }
}
