//! Accepting: for each listening socket a budget a tick, a pause when descriptors run out, and a share for every reactor.

use std::io;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use mio::{Interest, Registry, Token};

use super::acceptor::Acceptor;
use super::balance::{Balance, Incoming};
use super::transport::Transport;
use crate::config::Limits;
use crate::connection::Settings;
use crate::hub::ReactorId;
use crate::metrics::ReactorMetrics;
use crate::rate::Limit;
use crate::rate::bucket::Rate;
use crate::shared::Shared;

/// Time between two log lines about accept failing, for each socket.
const LOG_INTERVAL_MS: u64 = 10_000;

/// What came of one step of accepting.
pub enum Accepted<T> {
    /// A connection for this reactor, and the number of the listener that it came by.
    Connection(T, u8),
    /// A connection that another reactor has now, or that failed; more may wait.
    Elsewhere,
    /// No more for now.
    Nothing,
}

/// One socket of a listener, on one reactor.
#[derive(Debug)]
struct ListeningSocket {
    acceptor: Acceptor,
    /// Which of the reactor's it is.
    number: usize,
    /// The number of its listener.
    listener: u8,
    /// Connections may wait: the budget was used up, or accepting paused.
    pending: bool,
    /// What is left of this tick's budget.
    budget: usize,
    paused_until_ms: u64,
    next_log_ms: u64,
}

/// A reactor's way to new connections.
pub struct Listeners {
    /// None on a reactor that only takes what others hand over, and once nothing more is accepted.
    sockets: Vec<ListeningSocket>,
    /// Whose turn it is, so that one socket with many that wait does not keep another waiting.
    next: usize,
    handed: Receiver<Incoming>,
    balance: Arc<Balance>,
    reactor: ReactorId,
    budget: usize,
    accept_pause_ms: u64,
    turnstile: Option<Turnstile>,
}

/// The rate at which connections are taken by all listeners but those for operators, where operators have one.
struct Turnstile {
    shared: Shared,
    rate: Option<Rate>,
    is_dry_run: bool,
}

impl Turnstile {
    /// Microseconds until a connection may be taken by this listener.
    fn wait_us(&self, listener: u8, now_us: u64) -> u64 {
        match self.rate {
            Some(rate) if !self.shared.is_of_operators(listener) => {
                self.shared.callers.gate.handshakes.wait_us(rate, now_us)
            }
            _ => 0,
        }
    }

    /// Counts that accepting pauses, or would in a dry run. True: it does.
    fn pauses(&self, now_us: u64) -> bool {
        let refusals = &self.shared.metrics.refusals;
        refusals.note(Limit::Handshakes, None, now_us / 1000, self.is_dry_run);
        !self.is_dry_run
    }

    /// Counts a connection that was taken by this listener.
    fn count(&self, listener: u8, now_us: u64) {
        if let Some(rate) = self.rate.filter(|_| !self.shared.is_of_operators(listener)) {
            self.shared.callers.gate.handshakes.charge(rate, now_us);
        }
    }
}

impl Listeners {
    /// Accepts from these sockets, each with the number of its listener, and takes what is handed over.
    pub fn new(
        sockets: Vec<(Acceptor, u8)>,
        handed: Receiver<Incoming>,
        balance: Arc<Balance>,
        reactor: ReactorId,
        limits: &Limits,
    ) -> Listeners {
        let sockets = sockets
            .into_iter()
            .enumerate()
            .map(|(number, (acceptor, listener))| ListeningSocket {
                acceptor,
                number,
                listener,
                pending: true,
                budget: limits.accepts_per_tick_max,
                paused_until_ms: 0,
                next_log_ms: 0,
            })
            .collect();
        Listeners {
            sockets,
            next: 0,
            handed,
            balance,
            reactor,
            budget: limits.accepts_per_tick_max,
            accept_pause_ms: limits.accept_pause_ms,
            turnstile: None,
        }
    }

    /// Pauses where connections come faster than the settings allow, so that they wait in the backlog.
    #[must_use]
    pub fn paced(mut self, shared: &Shared) -> Listeners {
        if shared.has_listener_of_operators() {
            self.turnstile = Some(Turnstile {
                shared: shared.clone(),
                rate: shared.settings.handshakes,
                is_dry_run: shared.settings.addresses.is_dry_run,
            });
        }
        self
    }

    /// Goes on by these limits.
    pub fn take_limits(&mut self, limits: &Limits) {
        self.budget = limits.accepts_per_tick_max;
        self.accept_pause_ms = limits.accept_pause_ms;
    }

    /// Asks for an event when there is something to accept: for each socket by its own token, those below `above`, the
    /// first by the one just below.
    ///
    /// # Errors
    /// As of `epoll_ctl(2)`.
    pub fn register(&mut self, registry: &Registry, above: usize) -> io::Result<()> {
        for socket in &mut self.sockets {
            let token = Token(above - 1 - socket.number);
            registry.register(&mut socket.acceptor, token, Interest::READABLE)?;
        }
        Ok(())
    }

    /// Whether connections are taken at a rate.
    pub fn are_paced(&self) -> bool {
        let turnstile = self.turnstile.as_ref();
        turnstile.is_some_and(|turnstile| turnstile.rate.is_some())
    }

    /// Goes on by the rate of these settings.
    pub fn take_rate(&mut self, settings: &Settings) {
        if let Some(turnstile) = &mut self.turnstile {
            turnstile.rate = settings.handshakes;
            turnstile.is_dry_run = settings.addresses.is_dry_run;
        }
    }

    /// An event of a socket: which of them, in the order of their tokens.
    pub fn handle_ready(&mut self, number: usize) {
        let mut sockets = self.sockets.iter_mut();
        if let Some(socket) = sockets.find(|socket| socket.number == number) {
            socket.pending = true;
        }
    }

    /// A tick begins: each socket has its whole budget.
    pub fn begin_tick(&mut self) {
        for socket in &mut self.sockets {
            socket.budget = self.budget;
        }
    }

    /// Accepts no more but by these listeners: closes the other sockets, which tells their peers.
    pub fn close(&mut self, keeps: &dyn Fn(u8) -> bool) {
        self.sockets.retain(|socket| keeps(socket.listener));
    }

    /// How many sockets there are.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether there are none, and nothing is accepted but what is handed over.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// When to try again, while there is something to try.
    pub fn next_try_ms(&self) -> Option<u64> {
        if !self.handed.is_empty() {
            return Some(0);
        }
        let pending = self.sockets.iter().filter(|socket| socket.pending);
        pending.map(|socket| socket.paused_until_ms).min()
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
        (now_ms, now_us): (u64, u64),
        metrics: &ReactorMetrics,
    ) -> Accepted<Transport> {
        if let Ok(Incoming {
            transport,
            listener,
        }) = self.handed.try_recv()
        {
            return Accepted::Connection(transport, listener);
        }
        let pause_ms = self.accept_pause_ms;
        while let Some(at) = self.next_socket(now_ms) {
            let socket = &mut self.sockets[at];
            if let Some(turnstile) = &self.turnstile
                && let wait_us @ 1.. = turnstile.wait_us(socket.listener, now_us)
                && turnstile.pauses(now_us)
            {
                socket.paused_until_ms = now_ms + wait_us.div_ceil(1000);
                continue;
            }
            match socket.acceptor.accept() {
                Ok(transport) => {
                    if let Some(turnstile) = &self.turnstile {
                        turnstile.count(socket.listener, now_us);
                    }
                    let incoming = Incoming {
                        transport,
                        listener: socket.listener,
                    };
                    return match self.balance.hand_over(self.reactor, load, incoming) {
                        Some(kept) => Accepted::Connection(kept.transport, kept.listener),
                        None => Accepted::Elsewhere,
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.pending = false,
                Err(error) => {
                    metrics.accept_errors.add(1);
                    socket.handle_error(&error, now_ms, pause_ms);
                    return Accepted::Elsewhere;
                }
            }
        }
        Accepted::Nothing
    }

    /// The next socket that may have a connection for us, and whose budget is not used up.
    fn next_socket(&mut self, now_ms: u64) -> Option<usize> {
        let count = self.sockets.len();
        let at = (self.next..self.next + count)
            .map(|turn| turn % count)
            .find(|&at| {
                let socket = &self.sockets[at];
                socket.pending && socket.budget > 0 && now_ms >= socket.paused_until_ms
            })?;
        self.next = (at + 1) % count;
        self.sockets[at].budget -= 1;
        Some(at)
    }
}

impl ListeningSocket {
    /// A connection that was reset before it was accepted is passed over; when something has run out, or the cause is
    /// not known, accepting from this socket pauses, for the next try would fail too.
    fn handle_error(&mut self, error: &io::Error, now_ms: u64, pause_ms: u64) {
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
        ) {
            return;
        }
        self.paused_until_ms = now_ms + pause_ms;
        if now_ms >= self.next_log_ms {
            self.next_log_ms = now_ms + LOG_INTERVAL_MS;
            let advice = match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => {
                    "; descriptors have run out: raise the limit (`umbel check` shows it) or lower --connections-max"
                }
                _ => "",
            };
            log::warn!("accepting pauses for {pause_ms} ms: {error}{advice}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as StdStream;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::metrics::Metrics;
    use crate::net::tcp;

    fn balance(reactors: usize) -> (Arc<Balance>, Vec<Receiver<Incoming>>) {
        let wakes = (0..reactors).map(|_| Box::new(|| ()) as _).collect();
        let (handover, handed) = (0..reactors).map(|_| bounded(8)).unzip();
        (Arc::new(Balance::new(handover, wakes)), handed)
    }

    fn listeners(sockets: Vec<(Acceptor, u8)>, limits: &Limits) -> (Listeners, Arc<Balance>) {
        let (balance, mut handed) = balance(2);
        let handed = handed.swap_remove(0);
        let it = Listeners::new(sockets, handed, Arc::clone(&balance), ReactorId(0), limits);
        (it, balance)
    }

    /// A socket with some connections that wait.
    fn waiting(count: usize, listener: u8) -> ((Acceptor, u8), Vec<StdStream>) {
        let any = "127.0.0.1:0".parse().expect("an address");
        let bound = tcp::listen(any, 1, false, false, &Limits::default()).expect("a listener");
        let (address, mut sockets) = bound;
        let socket = sockets.pop().expect("one");
        let connect = |_| StdStream::connect(address).expect("a connection");
        let peers = (0..count).map(connect).collect();
        ((Acceptor::Tcp(socket), listener), peers)
    }

    #[test]
    fn a_reactor_without_a_socket_waits_for_what_is_handed_over() {
        let limits = Limits::default();
        let (balance, handed) = balance(2);
        let mut sockets = handed.into_iter().zip([0, 1]).map(|(handed, number)| {
            let id = ReactorId(number);
            Listeners::new(Vec::new(), handed, Arc::clone(&balance), id, &limits)
        });
        let (_, mut second) = (sockets.next(), sockets.next().expect("two"));
        assert_eq!(second.next_try_ms(), None, "there is nothing to try");
        let ((acceptor, _), _peers) = waiting(1, 0);
        let incoming = Incoming {
            transport: acceptor.accept().expect("one waits"),
            listener: 7,
        };
        balance.set_load(ReactorId(0), 100);
        assert!(balance.hand_over(ReactorId(0), 100, incoming).is_none());
        assert_eq!(second.next_try_ms(), Some(0), "no event will announce it");
        let metrics = Metrics::new(2, &[]);
        let accepted = second.accept(0, (0, 0), metrics.reactor(1));
        assert!(matches!(accepted, Accepted::Connection(_, 7)));
    }

    #[test]
    fn each_socket_has_its_turn_and_its_budget() {
        let limits = Limits {
            accepts_per_tick_max: 3,
            ..Limits::default()
        };
        let (busy, _busy_peers) = waiting(8, 0);
        let (quiet, _quiet_peers) = waiting(2, 1);
        let (mut listeners, _balance) = listeners(vec![busy, quiet], &limits);
        let metrics = Metrics::new(2, &[]);
        let tick = |listeners: &mut Listeners| {
            listeners.begin_tick();
            let mut accepted = Vec::new();
            while let Accepted::Connection(_, listener) =
                listeners.accept(0, (0, 0), metrics.reactor(0))
            {
                accepted.push(listener);
            }
            accepted
        };
        assert_eq!(tick(&mut listeners), [0, 1, 0, 1, 0]);
        assert_eq!(listeners.next_try_ms(), Some(0), "more wait");
        assert_eq!(tick(&mut listeners), [0, 0, 0]);
        assert_eq!(tick(&mut listeners), [0, 0]);
        assert_eq!(listeners.next_try_ms(), None);
    }

    #[test]
    fn one_socket_pauses_and_the_other_does_not() {
        let limits = Limits::default();
        let (first, _first_peers) = waiting(1, 0);
        let (second, _second_peers) = waiting(1, 1);
        let (mut listeners, _balance) = listeners(vec![first, second], &limits);
        let out_of_descriptors = io::Error::from_raw_os_error(libc::EMFILE);
        listeners.sockets[0].handle_error(&out_of_descriptors, 1000, limits.accept_pause_ms);
        let metrics = Metrics::new(2, &[]);
        let mut accept = |now_ms| listeners.accept(0, (now_ms, 0), metrics.reactor(0));
        assert!(matches!(accept(1000), Accepted::Connection(_, 1)));
        assert!(matches!(accept(1000), Accepted::Nothing));
        let after_ms = 1000 + limits.accept_pause_ms;
        assert!(matches!(accept(after_ms), Accepted::Connection(_, 0)));
    }
}
