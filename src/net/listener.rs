//! Accepting: a budget for each tick, a pause when descriptors run out, and a share for every reactor.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use mio::net::{TcpListener, TcpStream};

use crate::config::Limits;
use crate::hub::ReactorId;
use crate::metrics::ReactorMetrics;

/// Connections over the cap that are still told so; more are closed without a word.
pub const REFUSED_MAX: usize = 128;

/// Time between two log lines about accept failing.
const LOG_INTERVAL_MS: u64 = 10_000;

/// A reactor hands a fresh socket over when it holds so many more than the least loaded, and a 64th.
const IMBALANCE_MIN: usize = 8;

/// Wakes a reactor out of its wait for events.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// How many connections each reactor holds, and the way to hand one over.
pub struct Balance {
    loads: Box<[AtomicUsize]>,
    handover: Box<[Sender<TcpStream>]>,
    wakes: Box<[Wake]>,
}

impl Balance {
    /// For the reactors that these belong to, reactor 0 first.
    pub fn new(handover: Vec<Sender<TcpStream>>, wakes: Vec<Wake>) -> Balance {
        Balance {
            loads: wakes.iter().map(|_| AtomicUsize::new(0)).collect(),
            handover: handover.into(),
            wakes: wakes.into(),
        }
    }

    /// Tells what a reactor holds.
    pub fn set_load(&self, reactor: ReactorId, load: usize) {
        self.loads[usize::from(reactor.0)].store(load, Ordering::Relaxed);
    }

    /// What all reactors hold.
    pub fn total(&self) -> usize {
        self.loads
            .iter()
            .map(|load| load.load(Ordering::Relaxed))
            .sum()
    }

    /// Hands a socket to the least loaded reactor if this one holds clearly more; gives it back if not.
    fn hand_over(&self, reactor: ReactorId, load: usize, stream: TcpStream) -> Option<TcpStream> {
        let loads = self
            .loads
            .iter()
            .map(|load| load.load(Ordering::Relaxed))
            .enumerate();
        let Some((least, least_load)) = loads.min_by_key(|&(_, load)| load) else {
            return Some(stream);
        };
        if least == usize::from(reactor.0) || load < least_load + IMBALANCE_MIN + least_load / 64 {
            return Some(stream);
        }
        match self.handover[least].try_send(stream) {
            Ok(()) => {
                // Counted at once, so that a burst does not all go to the same reactor.
                self.loads[least].fetch_add(1, Ordering::Relaxed);
                (self.wakes[least])();
                None
            }
            Err(TrySendError::Full(stream) | TrySendError::Disconnected(stream)) => Some(stream),
        }
    }
}

/// What came of one step of accepting.
pub enum Accepted<T> {
    /// A connection for this reactor.
    Connection(T),
    /// A connection that another reactor has now, or that failed; more may wait.
    Elsewhere,
    /// No more for now.
    Nothing,
}

/// A reactor's way to new connections.
pub struct Listener {
    /// None on a reactor that only takes what others hand over, and once nothing more is accepted.
    socket: Option<TcpListener>,
    handed: Receiver<TcpStream>,
    balance: Arc<Balance>,
    reactor: ReactorId,
    /// Connections may wait: the budget was used up, or accepting paused.
    pending: bool,
    accept_pause_ms: u64,
    paused_until_ms: u64,
    next_log_ms: u64,
}

impl Listener {
    /// Accepts from `socket` and takes what is handed over.
    pub fn new(
        socket: Option<TcpListener>,
        handed: Receiver<TcpStream>,
        balance: Arc<Balance>,
        reactor: ReactorId,
        limits: &Limits,
    ) -> Listener {
        Listener {
            pending: socket.is_some(),
            socket,
            handed,
            balance,
            reactor,
            accept_pause_ms: limits.accept_pause_ms,
            paused_until_ms: 0,
            next_log_ms: 0,
        }
    }

    /// The socket, to be registered.
    pub fn socket_mut(&mut self) -> Option<&mut TcpListener> {
        self.socket.as_mut()
    }

    /// The socket can be accepted from.
    pub fn handle_ready(&mut self) {
        self.pending = true;
    }

    /// Accepts no more: closes the socket, which tells its peers.
    pub fn close(&mut self) {
        self.socket = None;
        self.pending = false;
    }

    /// When to try again, while there is something to try.
    pub fn next_try_ms(&self) -> Option<u64> {
        if !self.handed.is_empty() {
            return Some(0);
        }
        self.pending.then_some(self.paused_until_ms)
    }

    /// How many connections all reactors hold.
    pub fn total(&self) -> usize {
        self.balance.total()
    }

    /// Tells the others what this reactor holds.
    pub fn set_load(&self, load: usize) {
        self.balance.set_load(self.reactor, load);
    }

    /// One step towards the next connection, of those handed over or of those that wait. `load`: what this reactor
    /// holds.
    pub fn accept(
        &mut self,
        load: usize,
        now_ms: u64,
        metrics: &ReactorMetrics,
    ) -> Accepted<TcpStream> {
        if let Ok(stream) = self.handed.try_recv() {
            return Accepted::Connection(stream);
        }
        let Some(socket) = self
            .socket
            .as_ref()
            .filter(|_| self.pending && now_ms >= self.paused_until_ms)
        else {
            return Accepted::Nothing;
        };
        match socket.accept() {
            Ok((stream, _)) => match self.balance.hand_over(self.reactor, load, stream) {
                Some(stream) => Accepted::Connection(stream),
                None => Accepted::Elsewhere,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.pending = false;
                Accepted::Nothing
            }
            Err(error) => {
                metrics.accept_errors.add(1);
                self.handle_error(&error, now_ms);
                Accepted::Elsewhere
            }
        }
    }

    /// A connection that was reset before it was accepted is passed over; when something has run out, or the cause is
    /// not known, accepting pauses, for the next try would fail too.
    fn handle_error(&mut self, error: &io::Error, now_ms: u64) {
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
        ) {
            return;
        }
        self.paused_until_ms = now_ms + self.accept_pause_ms;
        if now_ms >= self.next_log_ms {
            self.next_log_ms = now_ms + LOG_INTERVAL_MS;
            let advice = match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => {
                    "; descriptors have run out: raise the limit (`umbel check` shows it) or lower --connections-max"
                }
                _ => "",
            };
            log::warn!(
                "accepting pauses for {} ms: {error}{advice}",
                self.accept_pause_ms
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    fn listener(handed: Receiver<TcpStream>) -> Listener {
        let balance = Arc::new(Balance::new(Vec::new(), Vec::new()));
        Listener::new(None, handed, balance, ReactorId(0), &Limits::default())
    }

    #[test]
    fn a_reactor_without_a_socket_waits_for_what_is_handed_over() {
        let (sender, handed) = bounded(2);
        let listener = listener(handed);
        assert_eq!(listener.next_try_ms(), None, "there is nothing to try");
        let local = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = local.local_addr().expect("bound");
        let stream = TcpStream::connect(address).expect("a connection that begins");
        sender.send(stream).expect("room");
        assert_eq!(listener.next_try_ms(), Some(0), "no event will announce it");
    }
}
