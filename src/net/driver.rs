//! What a reactor has of the world outside: events, new connections and the time.

use std::io;
use std::sync::Arc;

use super::byte_stream::ByteStream;
use super::listener::Accepted;
use crate::connection::Settings;
use crate::handler::ConnectionId;
use crate::hub::Effect;

/// Events that a driver gives after one wait, at most.
pub const EVENTS_MAX: usize = 1024;

/// What can be done with a connection's transport. It is an edge: it does not come again for what is left undone.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    /// The connection.
    pub id: ConnectionId,
    /// It can be read, be it to its end or to its error.
    pub readable: bool,
    /// It can be written, or has failed.
    pub writable: bool,
    /// The end of the peer's side, or an error, stands behind the bytes.
    pub ended: bool,
}

impl Readiness {
    /// That of a connection that may go on in both directions.
    pub fn again(id: ConnectionId) -> Readiness {
        Readiness {
            id,
            readable: true,
            writable: true,
            ended: false,
        }
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug)]
pub struct Waited {
    /// The time now, in milliseconds. It never goes back, and the time of a suspension may be left out.
    pub now_ms: u64,
    /// The time now as [`Driver::now_us`] has it.
    pub now_us: u64,
    /// The events are all that there were. If not, bytes may have come that put a deadline off, and no event tells yet.
    pub is_caught_up: bool,
}

/// The world outside of one reactor. Nothing but [`wait`](Driver::wait) blocks.
pub trait Driver {
    /// What connections travel over.
    type Transport: ByteStream;

    /// Waits for events, for `wait_ms` at most. It ends early when the reactor is woken, and may end early without a
    /// cause. `u64::MAX` is no bound.
    ///
    /// # Errors
    /// When waiting has failed so often that the reactor has to give up.
    fn wait(&mut self, wait_ms: u64) -> io::Result<Waited>;

    /// The events of the last wait, those of connections: [`EVENTS_MAX`] at most, in the order in which they came.
    fn events(&mut self) -> impl Iterator<Item = Readiness>;

    /// Connections that may come in one tick, if each listener may bring so many.
    fn accepts_max(&self, each_max: usize) -> usize {
        each_max
    }

    /// One step towards the next connection. `load`: what this reactor holds.
    fn accept(&mut self, load: usize, now_ms: u64) -> Accepted<Self::Transport>;

    /// From here on there are events for this transport, and for what has come to it before.
    ///
    /// # Errors
    /// As of `setsockopt(2)` and `epoll_ctl(2)`.
    fn register(&mut self, transport: &mut Self::Transport, id: ConnectionId) -> io::Result<()>;

    /// New connections get these settings.
    fn take_settings(&mut self, _: &Arc<Settings>) {}

    /// A transport is about to be closed: no more events for it.
    fn release(&mut self, transport: &mut Self::Transport);

    /// When to accept again, while there may be something to accept that no event announces. In milliseconds; what is
    /// past means at once.
    fn next_accept_ms(&self) -> Option<u64>;

    /// Accepts no more but by the listeners of these numbers; who waits elsewhere is turned away.
    fn stop_accepting(&mut self, keeps: &dyn Fn(u8) -> bool);

    /// Tells the other reactors what this one holds.
    fn set_load(&mut self, load: usize);

    /// What all reactors hold.
    fn total(&self) -> usize;

    /// Microseconds since the process's clock began, all of them: for measuring, and for the age of publications.
    fn now_us(&self) -> u64;

    /// Milliseconds since 1970, as the machine's clock says: for what is held against dates from outside. It may go back.
    fn wall_ms(&self) -> u64;

    /// Sees each effect of the hub's before it is carried out. For the simulation, which checks where publications stand.
    fn observe(&mut self, effect: &Effect) {
        let _ = effect;
    }
}
