//! The driver of a server: mio's poll, the listeners, and the clock.
//!
//! It ends each wait after a second, so that a wake which got lost costs no more than that.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use log::Level;
use mio::event::Event;
use mio::{Events, Interest, Poll, Token, Waker};

use super::clock::{Clock, ProcessClock};
use super::driver::{Driver, EVENTS_MAX, Readiness, Waited};
use super::listener::{Accepted, Listeners};
use super::ring::Ring;
use super::tcp;
use super::transport::Transport;
use crate::connection::Settings;
use crate::handler::ConnectionId;
use crate::hub::ReactorId;
use crate::metrics::ReactorMetrics;
use crate::shared::Shared;
use crate::sync::Wake;
#[cfg(feature = "tls")]
use crate::tls::{context::TlsContext, table};

/// The longest wait: what a wake that got lost costs at most.
const WAIT_MS_MAX: u64 = 1000;

/// Waits that may fail in a row before the reactor gives up.
const POLL_ERRORS_MAX: u32 = 100;

/// The wait after a poll that failed.
const POLL_RETRY_MS: u64 = 5;

const WAKE: Token = Token(usize::MAX);
/// The tokens of listening sockets stand below it.
const LISTEN: usize = WAKE.0;

// A token holds a slab index and its generation.
const _: () = assert!(usize::BITS >= 64, "Umbel needs a 64-bit machine");

/// The poll instance of a reactor, and what wakes it.
pub struct Selector {
    poll: Poll,
    waker: Arc<Waker>,
}

impl Selector {
    /// A new one.
    ///
    /// # Errors
    /// As of `epoll_create1(2)` and `eventfd(2)`.
    pub fn new() -> io::Result<Selector> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        Ok(Selector { poll, waker })
    }

    /// What wakes the reactor, for its mailbox.
    pub fn wake(&self) -> Box<Wake> {
        let waker = Arc::clone(&self.waker);
        Box::new(move || waker.wake().is_ok())
    }
}

/// Sockets and the clock.
pub struct MioDriver {
    poll: Poll,
    events: Events,
    listeners: Listeners,
    /// The tokens of its sockets are this one and those above, but for the last.
    first_listening: usize,
    clock: Clock,
    reactor: ReactorId,
    settings: Arc<Settings>,
    metrics: Arc<ReactorMetrics>,
    poll_errors: u32,
    wants_ring: bool,
    /// None where no listener speaks TLS.
    #[cfg(feature = "tls")]
    tls: Option<Arc<TlsContext>>,
    #[cfg(feature = "tls")]
    waker: Arc<Waker>,
}

impl MioDriver {
    /// The driver of reactor `id`.
    pub fn new(
        selector: Selector,
        listeners: Listeners,
        id: ReactorId,
        shared: &Shared,
        clock: ProcessClock,
    ) -> MioDriver {
        MioDriver {
            poll: selector.poll,
            events: Events::with_capacity(EVENTS_MAX),
            first_listening: LISTEN - listeners.len(),
            listeners: listeners.paced(shared),
            clock: Clock::new(clock),
            reactor: id,
            settings: Arc::clone(&shared.settings),
            metrics: Arc::clone(shared.metrics.reactor(usize::from(id.0))),
            poll_errors: 0,
            wants_ring: false,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            waker: selector.waker,
        }
    }

    /// Speaks TLS on the listeners that are to speak it.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Arc<TlsContext>>) -> MioDriver {
        self.tls = tls;
        self
    }

    /// Sends through io_uring where the kernel allows it, if `wants_ring` says so.
    #[must_use]
    pub fn with_ring(mut self, wants_ring: bool) -> MioDriver {
        self.wants_ring = wants_ring;
        self
    }

    /// Begins to accept, and opens the ring that sends go through, if there is one. To be called by the thread that waits.
    ///
    /// # Errors
    /// When a listener cannot be registered.
    pub fn start(&mut self) -> io::Result<Option<Ring>> {
        let ring = match self.wants_ring {
            true => open_ring(self.reactor),
            false => None,
        };
        #[cfg(feature = "tls")]
        if let Some(context) = &self.tls {
            let waker = Arc::clone(&self.waker);
            let wake = Arc::new(move || waker.wake().is_ok());
            let budget = self.settings.limits.read_budget_bytes;
            table::begin(Arc::clone(context), budget, wake);
        }
        self.listeners.register(self.poll.registry(), LISTEN)?;
        Ok(ring)
    }

    /// How long it may wait: not at all while connections over TLS are to be looked at.
    fn begin_wait(&mut self, wait_ms: u64) -> u64 {
        self.listeners.begin_tick();
        #[cfg(feature = "tls")]
        if self.tls.is_some() && table::begin_tick() {
            return 0;
        }
        wait_ms.min(WAIT_MS_MAX)
    }

    /// Connections over TLS that are to be looked at, though no event tells.
    fn take_again(&mut self) -> Vec<ConnectionId> {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return table::take_again();
        }
        Vec::new()
    }

    /// Counts a wait that failed, and gives its error back once there are too many in a row.
    fn handle_poll_error(&mut self, error: io::Error) -> io::Result<()> {
        self.metrics.poll_errors.add(1);
        self.poll_errors += 1;
        if self.poll_errors >= POLL_ERRORS_MAX {
            return Err(error);
        }
        // The next wait may fail as fast, and must not spin.
        std::thread::sleep(Duration::from_millis(POLL_RETRY_MS));
        Ok(())
    }
}

impl Driver for MioDriver {
    type Transport = Transport;

    fn wait(&mut self, wait_ms: u64) -> io::Result<Waited> {
        let wait_ms = self.begin_wait(wait_ms);
        let timeout = Duration::from_millis(wait_ms);
        let outcome = self.poll.poll(&mut self.events, Some(timeout));
        let (now_ms, now_us) = self.clock.tick(wait_ms);
        let is_whole = match outcome {
            Ok(()) => {
                self.poll_errors = 0;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
            Err(error) => {
                self.handle_poll_error(error)?;
                false
            }
        };
        Ok(Waited {
            now_ms,
            now_us,
            is_caught_up: is_whole && self.events.iter().count() < EVENTS_MAX,
        })
    }

    fn events(&mut self) -> impl Iterator<Item = Readiness> {
        let again = self.take_again().into_iter().map(Readiness::again);
        let MioDriver {
            events,
            listeners,
            first_listening,
            reactor,
            ..
        } = self;
        let announced = events.iter().filter_map(|event| match event.token() {
            WAKE => None,
            Token(bits) if bits >= *first_listening => {
                listeners.handle_ready(LISTEN - 1 - bits);
                None
            }
            Token(bits) => Some(readiness(event, *reactor, bits)),
        });
        again.chain(announced)
    }

    fn accepts_max(&self, each_max: usize) -> usize {
        // Those that are handed over may be as many as those of a socket.
        each_max * (self.listeners.len() + 1)
    }

    fn accept(&mut self, load: usize, now_ms: u64) -> Accepted<Transport> {
        // The clock is asked only where somebody wants to know.
        let now_us = match self.listeners.are_paced() {
            true => self.clock.now_us(),
            false => 0,
        };
        self.listeners.accept(load, (now_ms, now_us), &self.metrics)
    }

    fn register(&mut self, transport: &mut Transport, id: ConnectionId) -> io::Result<()> {
        match transport {
            Transport::Tcp(stream) => tcp::prepare(stream, &self.settings.limits)?,
            #[cfg(feature = "tls")]
            Transport::Tls { place, stream } => {
                tcp::prepare(stream, &self.settings.limits)?;
                place.enter(id)?;
            }
            #[cfg(unix)]
            Transport::Unix(_) => {}
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(id.to_bits() as usize);
        self.poll.registry().register(transport, token, interest)
    }

    fn take_settings(&mut self, settings: &Arc<Settings>) {
        self.settings = Arc::clone(settings);
        self.listeners.take_limits(&settings.limits);
        self.listeners.take_rate(settings);
        #[cfg(feature = "tls")]
        table::set_budget(settings.limits.read_budget_bytes);
    }

    fn release(&mut self, transport: &mut Transport) {
        // It fails only for one that was never registered; closing the descriptor ends the registration too.
        let _ = self.poll.registry().deregister(transport);
    }

    fn next_accept_ms(&self) -> Option<u64> {
        self.listeners.next_try_ms()
    }

    fn stop_accepting(&mut self, keeps: &dyn Fn(u8) -> bool) {
        self.listeners.close(keeps);
    }

    fn set_load(&mut self, load: usize) {
        self.listeners.set_load(load);
    }

    fn total(&self) -> usize {
        self.listeners.total()
    }

    fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    fn wall_ms(&self) -> u64 {
        // A clock before 1970 was never set.
        SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |elapsed| elapsed.as_millis() as u64)
    }
}

fn readiness(event: &Event, reactor: ReactorId, bits: usize) -> Readiness {
    let ended = event.is_read_closed() || event.is_error();
    Readiness {
        id: ConnectionId::from_bits(reactor.0, bits as u64),
        readable: event.is_readable() || ended,
        writable: event.is_writable() || event.is_error(),
        ended,
    }
}

fn open_ring(id: ReactorId) -> Option<Ring> {
    let failed = |error| {
        // One line is enough for all of them.
        let level = if id.0 == 0 { Level::Info } else { Level::Debug };
        log::log!(
            level,
            "sends are made one by one, for there is no io_uring: {error}"
        );
    };
    Ring::open().map_err(failed).ok()
}
