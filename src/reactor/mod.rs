//! The reactors: each its own event loop, connections and topics.
//!
//! One tick, in [`Reactor::tick`]:
//!
//! 1. wait for events, no longer than until the next deadline
//! 2. read and decode what has come, a budget of bytes for each connection; who has more stands in the ready list
//! 3. accept new connections, a budget of them
//! 4. take the mail, as much as the mailbox held at the beginning
//! 5. write: who came and went, and the publications of each topic, in one piece to each of its subscribers
//! 6. answer receipts; try again what the hub did not take; look after deadlines; in a shutdown, close some connections
//! 7. end memberships of what was closed, a budget of them, and free what has none left
//!
//! What the tick has of the world outside is a [`Driver`]: to wait, to accept, to let go of a socket, and the time. That of
//! a server is [`MioDriver`], the only user of mio's poll and of the clock. The simulation brings
//! another, so the tick that it runs is this one.
//!
//! Events are edges: they do not come again for bytes that were left. Whoever leaves some must be in the ready list, or
//! under a [`Hold`](crate::connection::Hold) whose end puts it there.

pub mod connections;
mod counts;
mod echo;
mod effects;
mod following;
mod greeting;
mod leaving;
mod outbound;
mod refusing;
mod sealed;
mod settling;
mod slot;
mod slots;

use std::io;

use crate::hub::ReactorId;
use crate::mailbox::Inbox;
use crate::metrics::load::Load;
use crate::net::byte_stream::ByteStream;
use crate::net::driver::{Driver, EVENTS_MAX};
use crate::net::listener::Accepted;
use crate::net::mio_driver::MioDriver;
use crate::rate::Limit;
use crate::rate::gate::TurnedAway;
use crate::requests::limits;
use crate::shared::{Lifecycle, Shared, keeps_probes};
use crate::upkeep::drain::Progress;
use crate::upkeep::{drain, jobs, paces, renewals, terms};
use connections::Connections;

/// The wait while there is a shutdown to pace, or the hub to be asked again.
pub const WAIT_MS_BUSY: u64 = 5;

/// The wait while connections are closed at a pace, of a server that is out of service.
const WAIT_MS_PACED: u64 = 50;

/// Waits that may be interrupted, or give as many events as they can, before deadlines count all the same; one more for
/// every [`EVENTS_MAX`] connections.
const WAITS_BEHIND: usize = 8;

/// What is the same for all reactors of a server.
#[derive(Clone)]
pub struct Context {
    /// What they share.
    pub shared: Shared,
    /// How many there are.
    pub reactors: usize,
    /// The whole process's cap on connections.
    pub connections_max: usize,
}

/// One event loop.
pub struct Reactor<D: Driver> {
    /// The world outside.
    pub driver: D,
    /// The connections.
    pub connections: Connections<D::Transport>,
    /// The mail from the hub.
    pub inbox: Inbox,
    now_ms: u64,
    /// When the date of answers is to be read off the machine's clock again.
    next_date_us: u64,
    connections_max: usize,
    /// What it has worked.
    load: Load,
    /// Waits in a row that may have left events behind.
    waits_behind: usize,
    /// End of the time for whoever probes.
    pre_stop_until_ms: Option<u64>,
    drain_until_ms: Option<u64>,
    /// Subscribers that all reactors close in a second, for the server is out of service.
    closes_per_second: u32,
    /// In a drain: what was published before it has come to the mailboxes.
    hub_is_drained: bool,
}

impl Reactor<MioDriver> {
    /// Takes up what belongs to the calling thread, which is to [`run`](Reactor::run) it. From here on it accepts
    /// connections.
    ///
    /// # Errors
    /// When a listener cannot be registered.
    pub fn start(&mut self) -> io::Result<()> {
        self.connections.ring = self.driver.start()?;
        Ok(())
    }
}

impl<D: Driver> Reactor<D> {
    /// Reactor `id`, without connections.
    pub fn new(driver: D, inbox: Inbox, id: ReactorId, context: Context) -> Reactor<D> {
        let mut connections = Connections::new(id, context.reactors, context.shared);
        connections.application.connections_max = context.connections_max;
        Reactor {
            driver,
            connections,
            inbox,
            now_ms: 0,
            next_date_us: 0,
            connections_max: context.connections_max,
            load: Load::default(),
            waits_behind: 0,
            pre_stop_until_ms: None,
            drain_until_ms: None,
            closes_per_second: 0,
            hub_is_drained: false,
        }
    }

    /// Runs until the server is shut down.
    ///
    /// # Errors
    /// When waiting for events fails again and again.
    pub fn run(mut self) -> io::Result<()> {
        let outcome = loop {
            match self.tick() {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // Those that the drain time was too short for end too, and their endpoints hear of it.
        drain::finish_all(&mut self.connections, self.now_ms);
        self.connections
            .finish_tick(|transport| self.driver.release(transport));
        self.connections.leave_some(usize::MAX);
        // Nobody waits for the mail any more: neither a receipt nor a shard that found the mailbox full.
        drop(self.inbox);
        self.connections.resume_shards();
        outcome
    }

    /// One tick; false when the reactor is done.
    ///
    /// # Errors
    /// When waiting for events has failed again and again.
    pub fn tick(&mut self) -> io::Result<bool> {
        let waited_from_ms = self.now_ms;
        let waited = self.driver.wait(self.wait_ms())?;
        self.now_ms = waited.now_ms;
        // From here on a new effect, or a socket that is handed over, wakes again.
        self.inbox.begin();
        let started_us = waited.now_us;
        self.connections.begin_tick();
        self.connections.set_now_us(started_us);
        if started_us >= self.next_date_us {
            self.next_date_us = started_us + 1_000_000;
            let worked_us = self.connections.metrics.tick.sum_us();
            let load = self.load.note(started_us, worked_us);
            self.connections.metrics.load.set(load);
            let (wall_ms, date) = (self.driver.wall_ms(), &self.connections.settings.date);
            date.set(wall_ms / 1000);
            limits::write_lines(&self.connections.application, self.now_ms);
            terms::set_wall_ms(&mut self.connections.application, wall_ms);
        }
        if self.connections.poll_reload(self.now_ms) {
            self.connections_max = self.connections.settings.limits.connections_max;
            self.connections.application.connections_max = self.connections_max;
            self.driver.take_settings(&self.connections.settings);
        }
        self.connections.poll_asking(self.now_ms);
        renewals::poll(&mut self.connections, self.now_ms);
        self.connections.poll_traces(self.now_ms);
        self.connections.poll_ready(self.now_ms);
        for readiness in self.driver.events() {
            self.connections.handle_readiness(readiness, self.now_ms);
        }
        self.accept();
        let lifecycle = self.begin_drain();
        let had_mail = self.take_mail();
        self.connections
            .deliver(self.now_ms, || self.driver.now_us());
        self.connections.poll_brought(self.now_ms);
        jobs::poll(&mut self.connections, self.now_ms);
        self.connections.poll_writable(self.now_ms);
        self.connections.poll_receipts(self.now_ms);
        self.connections.retry_commands();
        self.sweep(waited_from_ms, waited.is_caught_up);
        let done = self.poll_drain_end(lifecycle);
        self.connections
            .finish_tick(|transport| self.driver.release(transport));
        self.driver.set_load(self.connections.len());
        let metrics = &self.connections.metrics;
        let mailbox_depth = if had_mail { self.inbox.len() } else { 0 };
        metrics.mailbox_depth.set(mailbox_depth as u64);
        metrics.tick.record_us(self.driver.now_us() - started_us);
        Ok(!done)
    }

    /// How long the next tick may wait, in milliseconds: until something has to be done that no event and no wake tells.
    /// [`NEVER_MS`](crate::connection::NEVER_MS), less what has passed, where there is no such thing.
    pub fn wait_ms(&self) -> u64 {
        if self.connections.has_ready() || self.connections.has_reports() || !self.inbox.is_empty()
        {
            return 0;
        }
        let mut until_ms = self.connections.next_deadline_ms();
        until_ms = until_ms.min(terms::next_ms(&self.connections.application, self.now_ms));
        if let Some(next_accept_ms) = self.driver.next_accept_ms() {
            until_ms = until_ms.min(next_accept_ms);
        }
        if let Some(pre_stop_until_ms) = self.pre_stop_until_ms {
            until_ms = until_ms.min(pre_stop_until_ms);
        }
        let mut wait_ms = until_ms.saturating_sub(self.now_ms);
        if self.closes_per_second > 0 {
            wait_ms = wait_ms.min(WAIT_MS_PACED);
        }
        if self.connections.has_backpressure() || self.drain_until_ms.is_some() {
            wait_ms = wait_ms.min(WAIT_MS_BUSY);
        }
        wait_ms
    }

    fn accept(&mut self) {
        let each_max = self.connections.settings.limits.accepts_per_tick_max;
        for _ in 0..self.driver.accepts_max(each_max) {
            match self.driver.accept(self.connections.len(), self.now_ms) {
                Accepted::Connection(transport, listener) => self.admit(transport, listener),
                Accepted::Elsewhere => {}
                Accepted::Nothing => return,
            }
            self.driver.set_load(self.connections.len());
        }
    }

    fn admit(&mut self, mut transport: D::Transport, listener: u8) {
        let over = self.limit_over(&transport, listener);
        let is_dropped = |over: &TurnedAway| {
            over.is_flood || over.limit.is_of_address() && transport.has_handshake()
        };
        if let Some(limit) = over.filter(is_dropped).map(|over| over.limit) {
            let address = limits::ip_of(&|| transport.peer_address());
            return limits::note_refused(&self.connections.application, limit, address);
        }
        let id = self.connections.next_id();
        if let Err(error) = self.driver.register(&mut transport, id) {
            log::debug!("a fresh socket could not be prepared: {error}");
            limits::leave(&mut self.connections.application, id.index);
            return self.connections.metrics.accept_errors.add(1);
        }
        if log::log_enabled!(log::Level::Debug) {
            let (peer, listener) = (
                transport.peer(),
                self.connections.application.shared.listener_name(listener),
            );
            log::debug!(connection:% = id, peer:% = peer, listener; "accepted");
        }
        self.connections
            .insert_from(transport, listener, self.now_ms);
        let over = over.map(|over| over.limit);
        // In a drain it comes too late, which is told in the same way.
        let is_late = self.drain_until_ms.is_some();
        if let Some(limit) = over.or(is_late.then_some(Limit::Connections)) {
            self.connections.turn_away(id, limit, self.now_ms);
        }
    }

    /// The limit that a connection which was just accepted is over.
    fn limit_over(&mut self, transport: &D::Transport, listener: u8) -> Option<TurnedAway> {
        let totals = (self.driver.total(), self.connections_max);
        if let Some(over) = limits::crowd(&self.connections.application, listener, totals) {
            return Some(over);
        }
        let (index, application) = (
            self.connections.next_id().index,
            &mut self.connections.application,
        );
        limits::enter(application, (index, listener), &|| transport.peer_address()).err()
    }

    /// Takes as much mail as there is at its beginning; false if there is none.
    fn take_mail(&mut self) -> bool {
        let waiting = self.inbox.len();
        for _ in 0..waiting {
            let Some(effect) = self.inbox.take() else {
                break;
            };
            self.driver.observe(&effect);
            self.connections.handle_effect(effect, self.now_ms);
        }
        if self.inbox.take_starved() {
            self.connections.resume_shards();
        }
        // What has come since is of the next tick.
        waiting > 0
    }

    /// Looks after deadlines that had come when this tick's wait began: bytes that put them off had come by then too, and
    /// have been read. Not so where the wait gave as many events as it could, or was interrupted and gave none, as after a
    /// suspension. Once there were enough of such waits for every connection to have had its turn, deadlines count all
    /// the same.
    fn sweep(&mut self, waited_from_ms: u64, is_caught_up: bool) {
        let waits_max = self.connections.len() / EVENTS_MAX + WAITS_BEHIND;
        if is_caught_up || self.waits_behind >= waits_max {
            self.waits_behind = 0;
            self.connections.sweep(waited_from_ms, self.now_ms);
            paces::sweep(&mut self.connections, self.now_ms);
            terms::sweep(&mut self.connections, self.now_ms);
        } else {
            self.waits_behind += 1;
        }
    }

    /// The stage of the server, as far as it concerns the connections. It is looked at before the mail is taken,
    /// and a drain concerns them only once the hub is done: so what was published before the drain is in this tick's
    /// mail, or was in an earlier one.
    fn begin_drain(&mut self) -> Lifecycle {
        let (mut lifecycle, absent) = self.connections.application.shared.lifecycle.read();
        if lifecycle == Lifecycle::PreStop {
            lifecycle = self.end_pre_stop();
        }
        let rate = absent.unwrap_or(0);
        if rate != self.closes_per_second {
            self.closes_per_second = rate;
            self.connections.upkeep.absence = None;
        }
        if lifecycle != Lifecycle::Draining {
            return lifecycle;
        }
        self.pre_stop_until_ms = None;
        let timeout_ms = self.connections.settings.limits.drain_timeout_ms;
        if self.drain_until_ms.is_none() {
            self.drain_until_ms = Some(self.now_ms + timeout_ms);
            let listeners = &self.connections.application.shared.listeners;
            self.driver.stop_accepting(&keeps_probes(listeners));
        }
        let until_ms = self.drain_until_ms.unwrap_or(self.now_ms);
        // Who publishes without end does not keep the drain from beginning.
        self.hub_is_drained |=
            self.connections.hub_is_idle() || self.now_ms + timeout_ms * 3 / 4 >= until_ms;
        match self.hub_is_drained {
            true => Lifecycle::Draining,
            false => Lifecycle::Ready,
        }
    }

    /// Goes on to the drain once whoever probes has had its time.
    fn end_pre_stop(&mut self) -> Lifecycle {
        let wait_ms = self.connections.settings.limits.pre_stop_ms;
        let until_ms = *self.pre_stop_until_ms.get_or_insert(self.now_ms + wait_ms);
        if self.now_ms < until_ms {
            return Lifecycle::PreStop;
        }
        let lifecycle = &self.connections.application.shared.lifecycle;
        lifecycle.advance(Lifecycle::Draining);
        lifecycle.get()
    }

    /// Does what the stage of the server asks for; true when nothing is left to do.
    fn poll_drain_end(&mut self, lifecycle: Lifecycle) -> bool {
        match lifecycle {
            Lifecycle::Ready | Lifecycle::PreStop => {
                if self.closes_per_second > 0 {
                    let (rate, now_ms) = (self.closes_per_second, self.now_ms);
                    drain::poll_absent(&mut self.connections, rate, now_ms);
                }
                false
            }
            Lifecycle::Stopping => true,
            Lifecycle::Draining => {
                let until_ms = self.drain_until_ms.unwrap_or(self.now_ms);
                let progress = drain::poll(&mut self.connections, self.now_ms);
                if progress == Progress::Ending {
                    self.driver.stop_accepting(&|_| false);
                }
                progress == Progress::Done || self.now_ms >= until_ms
            }
        }
    }
}
