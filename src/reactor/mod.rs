//! The reactors: each its own event loop, connections and topics. The only users of mio, and of the clock.
//!
//! One tick, in `Reactor::tick`:
//!
//! 1. wait for events, no longer than until the next deadline
//! 2. read and decode what has come, a budget of bytes for each connection; who has more stands in the ready list
//! 3. accept new connections, a budget of them
//! 4. take the mail, as much as the mailbox held at the beginning
//! 5. write: who came and went, and the publications of each topic, in one piece to each of its subscribers
//! 6. try again what the hub did not take; look after deadlines; in a shutdown, close some connections
//! 7. free what was closed
//!
//! Events are edges: they do not come again for bytes that were left. Whoever leaves some must be in the ready list, or
//! under a [`Hold`](crate::connection::Hold) whose end puts it there.

pub mod clock;
pub mod connections;
mod counts;
mod drain;
mod effects;
pub mod mailbox;
mod outbound;
pub mod sweep;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use crate::application::{Lifecycle, Shared};
use crate::net::listener::{Accepted, Listener, REFUSED_MAX};
use crate::net::ring::Ring;
use crate::net::socket;
use clock::Clock;
use connections::Connections;
use mailbox::Inbox;

use crate::handler::ConnectionId;
use crate::hub::ReactorId;

/// Events taken in one wait.
pub const EVENTS_MAX: usize = 1024;

/// The longest wait: what a wake that got lost costs at most.
const WAIT_MS_MAX: u64 = 1000;

/// The wait while there is a shutdown to pace, or the hub to be asked again.
const WAIT_MS_BUSY: u64 = 5;

/// Waits that may fail in a row before the reactor gives up.
const POLL_ERRORS_MAX: u32 = 100;

// A token holds a slab index and its generation.
const _: () = assert!(usize::BITS >= 64, "Umbel needs a 64-bit machine");

/// Waits that may be interrupted, or give as many events as they can, before deadlines count all the same; one more for
/// every [`EVENTS_MAX`] connections.
const WAITS_BEHIND: usize = 8;

const WAKE: Token = Token(usize::MAX);
const LISTEN: Token = Token(usize::MAX - 1);

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
    pub fn wake(&self) -> Box<mailbox::Wake> {
        let waker = Arc::clone(&self.waker);
        Box::new(move || waker.wake().is_ok())
    }
}

/// What is the same for all reactors of a server.
#[derive(Clone)]
pub struct Context {
    /// What they share.
    pub shared: Shared,
    /// When the process's clock began.
    pub started: Instant,
    /// The whole process's cap on connections.
    pub connections_max: usize,
    /// Whether to send through io_uring where the kernel allows it.
    pub io_uring: bool,
}

/// One event loop.
pub struct Reactor {
    selector: Selector,
    connections: Connections<TcpStream>,
    inbox: Inbox,
    listener: Listener,
    clock: Clock,
    now_ms: u64,
    connections_max: usize,
    poll_errors: u32,
    /// Waits in a row that may have left events behind.
    waits_behind: usize,
    wants_ring: bool,
    drain_until_ms: Option<u64>,
    /// In a drain: what was published before it has come to the mailboxes.
    hub_is_drained: bool,
}

impl Reactor {
    /// A reactor that has yet to [`start`](Reactor::start): number `id` of `reactors`.
    pub fn new(
        selector: Selector,
        inbox: Inbox,
        listener: Listener,
        id: ReactorId,
        reactors: usize,
        context: Context,
    ) -> Reactor {
        Reactor {
            selector,
            connections: Connections::new(id, reactors, context.shared),
            inbox,
            listener,
            clock: Clock::new(context.started),
            now_ms: 0,
            connections_max: context.connections_max,
            poll_errors: 0,
            waits_behind: 0,
            wants_ring: context.io_uring,
            drain_until_ms: None,
            hub_is_drained: false,
        }
    }

    /// Takes up what belongs to the calling thread, which is to [`run`](Reactor::run) it. From here on it accepts
    /// connections.
    ///
    /// # Errors
    /// When the listener cannot be registered.
    pub fn start(&mut self) -> io::Result<()> {
        if self.wants_ring {
            self.connections.ring = open_ring(self.connections.reactor());
        }
        match self.listener.socket_mut() {
            Some(socket) => {
                let registry = self.selector.poll.registry();
                registry.register(socket, LISTEN, Interest::READABLE)
            }
            None => Ok(()),
        }
    }

    /// Runs until the server is shut down.
    ///
    /// # Errors
    /// When waiting for events fails again and again.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let outcome = loop {
            match self.tick(&mut events) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // Those that the drain time was too short for end too, and their endpoints hear of it.
        self.connections.finish_all(self.now_ms);
        let registry = self.selector.poll.registry();
        self.connections
            .finish_tick(|stream| release(registry, stream));
        // Nobody waits for the mail any more: neither a receipt nor a shard that found the mailbox full.
        drop(self.inbox);
        self.connections.resume_shards();
        outcome
    }

    /// One tick; false when the reactor is done. [`run`](Reactor::run) is for servers, this for measuring. `events` has
    /// room for [`EVENTS_MAX`] of them. With nothing to do it waits, for a second at most.
    ///
    /// # Errors
    /// When waiting for events has failed again and again.
    pub fn tick(&mut self, events: &mut Events) -> io::Result<bool> {
        let waited_from_ms = self.now_ms;
        let is_caught_up = self.wait(events)? && events.iter().count() < EVENTS_MAX;
        // From here on a new effect, or a socket that is handed over, wakes again.
        self.inbox.begin();
        let started_us = self.clock.now_us();
        self.connections.set_now_us(started_us);
        self.connections.poll_ready(self.now_ms);
        for event in events.iter() {
            self.handle_event(event);
        }
        self.accept();
        let lifecycle = self.begin_drain();
        self.take_mail();
        self.connections
            .deliver(self.now_ms, || self.clock.now_us());
        self.connections.poll_receipts(self.now_ms);
        self.connections.retry_commands();
        self.sweep(waited_from_ms, is_caught_up);
        let done = self.poll_drain_end(lifecycle);
        let registry = self.selector.poll.registry();
        self.connections
            .finish_tick(|stream| release(registry, stream));
        self.listener.set_load(self.connections.len());
        self.connections
            .metrics
            .mailbox_depth
            .set(self.inbox.len() as u64);
        self.connections
            .metrics
            .tick
            .record_us(self.clock.now_us() - started_us);
        Ok(!done)
    }

    /// Waits for events; false if it was cut short before it could see which there are.
    fn wait(&mut self, events: &mut Events) -> io::Result<bool> {
        let wait_ms = self.wait_ms();
        let outcome = self
            .selector
            .poll
            .poll(events, Some(Duration::from_millis(wait_ms)));
        self.now_ms = self.clock.tick(wait_ms);
        match outcome {
            Ok(()) => {
                self.poll_errors = 0;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => {
                self.connections.metrics.poll_errors.add(1);
                self.poll_errors += 1;
                if self.poll_errors >= POLL_ERRORS_MAX {
                    return Err(error);
                }
                // The next wait may fail as fast, and must not spin.
                std::thread::sleep(Duration::from_millis(WAIT_MS_BUSY));
                Ok(false)
            }
        }
    }

    fn wait_ms(&self) -> u64 {
        if self.connections.has_ready() || self.connections.has_reports() || !self.inbox.is_empty()
        {
            return 0;
        }
        let mut wait_ms = self
            .connections
            .next_deadline_ms()
            .saturating_sub(self.now_ms)
            .min(WAIT_MS_MAX);
        if let Some(next_try_ms) = self.listener.next_try_ms() {
            wait_ms = wait_ms.min(next_try_ms.saturating_sub(self.now_ms));
        }
        if self.connections.has_backpressure() || self.drain_until_ms.is_some() {
            wait_ms = wait_ms.min(WAIT_MS_BUSY);
        }
        wait_ms
    }

    fn handle_event(&mut self, event: &Event) {
        match event.token() {
            WAKE => {}
            LISTEN => self.listener.handle_ready(),
            Token(bits) => {
                let id = ConnectionId::from_bits(self.connections.reactor().0, bits as u64);
                if event.is_writable() || event.is_error() {
                    self.connections.handle_writable(id, self.now_ms);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    let ended = event.is_read_closed() || event.is_error();
                    self.connections.handle_readable(id, ended, self.now_ms);
                }
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..self.connections.settings.limits.accepts_per_tick_max {
            let (load, metrics) = (self.connections.len(), &self.connections.metrics);
            match self.listener.accept(load, self.now_ms, metrics) {
                Accepted::Connection(stream) => self.admit(stream),
                Accepted::Elsewhere => {}
                Accepted::Nothing => return,
            }
            self.listener.set_load(self.connections.len());
        }
    }

    fn admit(&mut self, mut stream: TcpStream) {
        let over = self.listener.total() >= self.connections_max;
        if over && self.listener.total() >= self.connections_max + REFUSED_MAX {
            return self.connections.metrics.accept_errors.add(1);
        }
        let token = Token(self.connections.next_id().to_bits() as usize);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered =
            socket::prepare(&stream, &self.connections.settings.limits).and_then(|()| {
                self.selector
                    .poll
                    .registry()
                    .register(&mut stream, token, interest)
            });
        if let Err(error) = registered {
            log::debug!("a fresh socket could not be prepared: {error}");
            return self.connections.metrics.accept_errors.add(1);
        }
        let id = self.connections.insert(stream, self.now_ms);
        if over {
            self.connections.refuse_admission(id, self.now_ms);
        }
    }

    fn take_mail(&mut self) {
        for _ in 0..self.inbox.len() {
            let Some(effect) = self.inbox.take() else {
                break;
            };
            self.connections.handle_effect(effect, self.now_ms);
        }
        if self.inbox.take_starved() {
            self.connections.resume_shards();
        }
    }

    /// Looks after deadlines that had come when this tick's wait began: bytes that put them off had come by then too, and
    /// have been read. Not so where the wait gave as many events as it could, or was interrupted and gave none, as after a
    /// suspension. Once there were enough of such waits for every connection to have had its turn, deadlines count all
    /// the same.
    fn sweep(&mut self, waited_from_ms: u64, is_caught_up: bool) {
        let waits_max = self.connections.len() / EVENTS_MAX + WAITS_BEHIND;
        if is_caught_up || self.waits_behind >= waits_max {
            self.waits_behind = 0;
            self.connections.sweep(waited_from_ms);
        } else {
            self.waits_behind += 1;
        }
    }

    /// The state of the server, as far as it concerns the connections. It is looked at before the mail is taken,
    /// and a drain concerns them only once the hub is done: so what was published before the drain is in this tick's
    /// mail, or was in an earlier one.
    fn begin_drain(&mut self) -> Lifecycle {
        let lifecycle = self.connections.lifecycle();
        if lifecycle != Lifecycle::Draining {
            return lifecycle;
        }
        self.listener.close();
        let timeout_ms = self.connections.settings.limits.drain_timeout_ms;
        let until_ms = *self.drain_until_ms.get_or_insert(self.now_ms + timeout_ms);
        // Who publishes without end does not keep the drain from beginning.
        self.hub_is_drained |=
            self.connections.hub_is_idle() || self.now_ms + timeout_ms * 3 / 4 >= until_ms;
        match self.hub_is_drained {
            true => Lifecycle::Draining,
            false => Lifecycle::Ready,
        }
    }

    /// Does what the state of the server asks for; true when nothing is left to do.
    fn poll_drain_end(&mut self, lifecycle: Lifecycle) -> bool {
        match lifecycle {
            Lifecycle::Ready => false,
            Lifecycle::Stopping => true,
            Lifecycle::Draining => {
                let until_ms = self.drain_until_ms.unwrap_or(self.now_ms);
                self.connections.poll_drain(self.now_ms) || self.now_ms >= until_ms
            }
        }
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

fn release(registry: &Registry, stream: &mut TcpStream) {
    // It fails only for a stream that was never registered; closing the descriptor ends the registration too.
    let _ = registry.deregister(stream);
}
