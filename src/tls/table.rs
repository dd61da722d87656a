//! The TLS connections of a reactor: a table of its thread, by the index of their slots.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::connection::TlsConnection;
use super::context::TlsContext;
use super::kept_keys::KeptKeys;
use super::threads::{Desk, Done};
use crate::handler::ConnectionId;
use crate::metrics::tls::{HandshakeKind, HandshakeResult, HandshakeVersion};
use crate::sync::Wake;

/// Bytes that are received at once.
const SCRATCH_BYTES: usize = 65_536;

thread_local! {
    static TABLE: RefCell<Table> = const { RefCell::new(Table { states: Vec::new(), turn: None }) };
}

struct Table {
    states: Vec<Option<TlsConnection>>,
    /// None until the reactor begins.
    turn: Option<Turn>,
}

/// What the connections of a reactor share.
pub(super) struct Turn {
    pub context: Arc<TlsContext>,
    pub scratch: Vec<u8>,
    /// Records on their way out.
    pub sealed: Vec<u8>,
    /// Keys ready to seal by.
    pub kept_keys: KeptKeys,
    /// Time at which the reactor began.
    pub began: Instant,
    /// Number of the tick.
    pub tick: u32,
    /// Hellos that may be answered in this tick.
    pub hellos_left: usize,
    /// Bytes on the wire that a connection may bring in a tick.
    pub budget: usize,
    /// The way to the threads that answer hellos. None: they are answered here.
    pub desk: Option<Desk>,
    /// Connections whose hellos wait for room there.
    pub queued: VecDeque<ConnectionId>,
    /// Connections that are to be looked at in the next tick, though no event will tell.
    again: Vec<ConnectionId>,
}

impl Turn {
    pub fn new(context: Arc<TlsContext>, budget: usize, wake: Arc<Wake>) -> Turn {
        let threads = context.threads.clone();
        Turn {
            desk: threads.map(|threads| Desk::new(threads, wake)),
            queued: VecDeque::new(),
            hellos_left: context.per_tick_max,
            kept_keys: KeptKeys::new(context.kept_keys, Arc::clone(&context.counts)),
            sealed: Vec::new(),
            began: Instant::now(),
            context,
            scratch: vec![0; SCRATCH_BYTES],
            tick: 0,
            budget,
            again: Vec::new(),
        }
    }

    /// Has a connection looked at in the next tick.
    pub fn call_again(&mut self, id: ConnectionId) {
        self.again.push(id);
    }

    /// How many hellos more can be given to threads.
    fn room(&self) -> usize {
        self.desk.as_ref().map_or(0, Desk::room)
    }

    /// Those that are to be looked at now.
    pub fn take_again(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.again)
    }

    pub fn begin_tick(&mut self) {
        self.tick = self.tick.wrapping_add(1);
        self.hellos_left = self.context.per_tick_max;
    }
}

/// The thread that calls is that of a reactor with TLS. `budget`: bytes that a connection may bring in a tick. `wake` ends the
/// reactor's wait.
pub fn begin(context: Arc<TlsContext>, budget: usize, wake: Arc<Wake>) {
    TABLE.with_borrow_mut(|table| table.turn = Some(Turn::new(context, budget, wake)));
}

/// Connections may bring so many bytes in a tick from here on.
pub fn set_budget(bytes: usize) {
    TABLE.with_borrow_mut(|table| {
        if let Some(turn) = &mut table.turn {
            turn.budget = bytes;
        }
    });
}

/// A tick begins. True: there are connections to be looked at, so it must not wait.
pub fn begin_tick() -> bool {
    TABLE.with_borrow_mut(|table| {
        table.turn.as_mut().is_some_and(|turn| {
            turn.begin_tick();
            !turn.again.is_empty() || (!turn.queued.is_empty() && turn.room() > 0)
        })
    })
}

/// Connections that can be read or written, though no event tells.
pub fn take_again() -> Vec<ConnectionId> {
    TABLE.with_borrow_mut(|table| {
        let Table { states, turn } = table;
        let Some(turn) = turn else {
            return Vec::new();
        };
        while let Some(Done { id, answered }) = turn.desk.as_mut().and_then(Desk::take) {
            let state = states.get_mut(id.index as usize).and_then(Option::as_mut);
            if let Some(TlsConnection::Begun(state)) = state
                && state.is(id)
            {
                state.take_answered(answered);
                turn.call_again(id);
            }
        }
        let called = turn.room().min(turn.queued.len());
        turn.again.extend(turn.queued.drain(..called));
        turn.take_again()
    })
}

/// Begins TLS for a connection of this listener.
///
/// # Errors
/// There are as many handshakes as there may be.
pub(super) fn enter(id: ConnectionId, listener: u8) -> io::Result<()> {
    TABLE.with_borrow_mut(|table| {
        let no_tls = || io::Error::other("this thread speaks no TLS");
        let turn = table.turn.as_ref().ok_or_else(no_tls)?;
        let Some(pending) = turn.context.begin_handshake() else {
            turn.context.counts.add_handshake(
                HandshakeVersion::Unknown,
                HandshakeKind::Unknown,
                HandshakeResult::Refused,
            );
            return Err(io::Error::other(
                "tls_handshakes_pending_max handshakes are under way",
            ));
        };
        let index = id.index as usize;
        if index >= table.states.len() {
            table.states.resize_with(index + 1, || None);
        }
        table.states[index] = Some(TlsConnection::new(id, listener, pending));
        Ok(())
    })
}

/// A connection is gone.
pub(super) fn leave(index: usize) {
    // The thread may be ending, and the table gone before.
    let _ = TABLE.try_with(|table| {
        let mut table = table.borrow_mut();
        let Table { states, turn } = &mut *table;
        let state = states.get_mut(index).and_then(Option::take);
        if let (Some(state), Some(turn)) = (state, turn) {
            state.finish(turn);
        }
        while states.last().is_some_and(Option::is_none) {
            states.pop();
        }
        if states.len() < states.capacity() / 4 {
            states.shrink_to(2 * states.len());
        }
    });
}

/// Does something with the state of a connection. None: it has none.
pub(super) fn with<R>(
    index: Option<usize>,
    act: impl FnOnce(&mut TlsConnection, &mut Turn) -> R,
) -> Option<R> {
    TABLE.with_borrow_mut(|table| {
        let state = table.states.get_mut(index?)?.as_mut()?;
        Some(act(state, table.turn.as_mut()?))
    })
}
