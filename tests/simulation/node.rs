//! A node: the real connections, shards and mailboxes, and reactors that do in [`SimulatedReactor::tick`] what
//! `Reactor::tick` does, with the simulated network in place of mio.
//!
//! A reactor sleeps until an event, a wake or the moment that it chose itself. The real one wakes up each second
//! whatever happens; this one does not, so that a wake which is missing is found.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::Receiver;
use umbel::access::{AccessRequest, Authorizer, Denied};
use umbel::config::{Limits, Origins};
use umbel::handler::{CloseReason, ConnectionId, Echo, Handler, Message, Peer};
use umbel::internals::application::{Lifecycle, LifecycleCell, OwnEndpoint, Shared};
use umbel::internals::auth::Authority;
use umbel::internals::connection::{Inflation, Label, NEVER_MS, Settings};
use umbel::internals::hub::{Command, Effect, ReactorId};
use umbel::internals::metrics::Metrics;
use umbel::internals::reactor::connections::Connections;
use umbel::internals::reactor::mailbox::{Inbox, Mailbox, mailbox};
use umbel::internals::worker::{Outlet, QueueLimits, Shards};

use super::cover::Cover;
use super::network::{Link, Socket};
use super::random::Random;
use super::records::Records;
use super::topics::placed;

/// The wait while there is a shutdown to pace, or the hub to be asked again: as in the real reactor.
const WAIT_MS_BUSY: u64 = 5;

/// Ticks that may leave events behind before deadlines count all the same: as in the real reactor.
const WAITS_BEHIND: usize = 8;

/// Everybody may do everything.
struct Anyone;

impl Authorizer for Anyone {
    fn authorize(&self, _: &AccessRequest<'_>) -> Result<(), Denied> {
        Ok(())
    }
}

/// An echo that counts how often it was opened and closed.
#[derive(Default)]
pub struct CountedEcho {
    pub opened: AtomicU64,
    pub closed: AtomicU64,
}

impl Handler for CountedEcho {
    fn open(&self, _: &mut Peer<'_>) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    fn message(&self, peer: &mut Peer<'_>, message: Message<'_>) {
        Echo.message(peer, message);
    }

    fn close(&self, _: ConnectionId, _: CloseReason) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Hands the calls to the echo that the simulation looks at too.
struct Forward(Arc<CountedEcho>);

impl Handler for Forward {
    fn open(&self, peer: &mut Peer<'_>) {
        self.0.open(peer);
    }

    fn message(&self, peer: &mut Peer<'_>, message: Message<'_>) {
        self.0.message(peer, message);
    }

    fn close(&self, connection: ConnectionId, reason: CloseReason) {
        self.0.close(connection, reason);
    }
}

pub struct SimulatedReactor {
    pub connections: Connections<Socket>,
    inbox: Inbox,
    woken: Arc<AtomicBool>,
    /// Links that wait to be accepted.
    backlog: VecDeque<usize>,
    /// Links with edges that were not reported yet.
    events: VecDeque<usize>,
    /// Links and their connections.
    pub open: Vec<(usize, ConnectionId)>,
    sleeps_until_ms: u64,
    /// Ticks in a row that left events behind.
    waits_behind: usize,
    drain_until_ms: Option<u64>,
    hub_is_drained: bool,
}

/// What a tick needs of the world.
pub struct Surroundings<'a> {
    pub now_ms: u64,
    pub links: &'a [Rc<RefCell<Link>>],
    pub random: &'a mut Random,
    pub cover: &'a mut Cover,
    pub records: &'a mut Records,
}

pub struct Node {
    pub shared: Shared,
    /// None: it has ended.
    pub reactors: Vec<Option<SimulatedReactor>>,
    /// Those that have. They read on what comes, so that it is seen that nothing is left of them in the hub.
    ended: Vec<SimulatedReactor>,
    mailboxes: Vec<Arc<Mailbox>>,
    work: Receiver<usize>,
    pub echo: Arc<CountedEcho>,
}

impl Node {
    pub fn new(settings: Settings, reactors: usize, shards: usize, inline: bool, run: u64) -> Node {
        let limits = &settings.limits.clone();
        let echo = Arc::new(CountedEcho::default());
        let (mut mailboxes, mut parts) = (Vec::new(), Vec::new());
        for number in 0..reactors {
            let woken = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&woken);
            let wake = Box::new(move || {
                flag.store(true, Ordering::SeqCst);
                true
            });
            let id = ReactorId(number as u16);
            let (messages_max, bytes_max) = (limits.mailbox_messages_max, limits.mailbox_bytes_max);
            let (outside, inbox) = mailbox(id, messages_max, bytes_max, wake);
            mailboxes.push(outside);
            parts.push((inbox, woken));
        }
        let outlets = mailboxes
            .iter()
            .map(|mailbox| Box::new(Arc::clone(mailbox)) as Box<dyn Outlet>)
            .collect();
        let epochs: Vec<u64> = (0..shards)
            .map(|shard| run << 48 | (shard as u64 + 1) << 32)
            .collect();
        let queue = QueueLimits {
            commands_max: limits.commands_max,
            bytes_max: limits.command_bytes_max,
        };
        let (shards, work) =
            Shards::new(&epochs, outlets, queue, &settings.shard_settings(), inline);
        let shared = Shared {
            settings: Arc::new(settings),
            shards: Arc::new(shards.repeatable()),
            authority: Arc::new(Authority::of_embedder(Arc::new(Anyone), usize::MAX)),
            origins: Arc::new(Origins::Any),
            subprotocols: Arc::new([]),
            routes: Arc::new([OwnEndpoint {
                path: "/echo".into(),
                handler: Arc::new(Forward(Arc::clone(&echo))),
            }]),
            metrics: Arc::new(Metrics::new(reactors)),
            lifecycle: Arc::new(LifecycleCell::default()),
        };
        let simulated = parts
            .into_iter()
            .enumerate()
            .map(|(number, (inbox, woken))| {
                let id = ReactorId(number as u16);
                Some(SimulatedReactor {
                    connections: Connections::new(id, reactors, shared.clone()),
                    inbox,
                    woken,
                    backlog: VecDeque::new(),
                    events: VecDeque::new(),
                    open: Vec::new(),
                    sleeps_until_ms: 0,
                    waits_behind: 0,
                    drain_until_ms: None,
                    hub_is_drained: false,
                })
            });
        Node {
            reactors: simulated.collect(),
            ended: Vec::new(),
            shared,
            mailboxes,
            work,
            echo,
        }
    }

    /// A peer connects. False: nobody listens.
    pub fn connect(&mut self, reactor: usize, link: usize) -> bool {
        match &mut self.reactors[reactor] {
            Some(reactor) if self.shared.lifecycle.get() == Lifecycle::Ready => {
                reactor.backlog.push_back(link);
                true
            }
            _ => false,
        }
    }

    /// Something happened to a link that epoll would report.
    pub fn queue_event(&mut self, reactor: usize, index: usize, link: &mut Link) {
        if let Some(reactor) = &mut self.reactors[reactor]
            && !link.is_queued
        {
            link.is_queued = true;
            reactor.events.push_back(index);
        }
    }

    pub fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    /// Plays a worker for one shard.
    pub fn work(&mut self) {
        if let Ok(index) = self.work.try_recv() {
            self.shared.shards.run_scheduled(index);
        }
        self.read_on();
    }

    /// The process dies: sockets end, and whoever was not accepted yet is reset.
    pub fn die(&mut self, links: &[Rc<RefCell<Link>>]) {
        for reactor in self.reactors.iter_mut().flatten() {
            for index in reactor.backlog.drain(..) {
                links[index].borrow_mut().break_off();
            }
        }
        self.reactors.clear();
        for link in links {
            link.borrow_mut().disturbed = true;
        }
    }

    /// The links whose connections take publications.
    pub fn subscribers(&self) -> impl Iterator<Item = usize> {
        let reactors = self.reactors.iter().flatten();
        reactors.flat_map(|reactor| {
            let takes = |id: ConnectionId| {
                let connection = reactor.connections.connection(id);
                connection.is_some_and(|connection| connection.takes_deliveries())
            };
            let open = reactor.open.iter();
            open.filter(move |(_, id)| takes(*id))
                .map(|(link, _)| *link)
        })
    }

    pub fn shut_down(&self) {
        self.shared.lifecycle.advance(Lifecycle::Draining);
        self.mailboxes.iter().for_each(|mailbox| mailbox.wake());
    }

    /// One tick of one reactor.
    pub fn tick(&mut self, index: usize, around: &mut Surroundings<'_>) {
        let held: usize = self
            .reactors
            .iter()
            .flatten()
            .map(|reactor| reactor.connections.len())
            .sum();
        let Some(reactor) = &mut self.reactors[index] else {
            return;
        };
        let limits = &self.shared.settings.limits;
        if reactor.tick(around, limits, held) {
            assert!(
                reactor.connections.is_empty(),
                "a drain ends because everybody is gone, and not because its time is up"
            );
            reactor.check_caps(limits);
            self.ended.extend(self.reactors[index].take());
        }
        self.read_on();
    }

    fn read_on(&mut self) {
        for reactor in &mut self.ended {
            while let Some(effect) = reactor.inbox.take() {
                reactor.connections.handle_effect(effect, 0);
                if reactor.inbox.take_starved() {
                    reactor.connections.resume_shards();
                }
            }
            reactor.connections.deliver(0, || 0);
            reactor.connections.retry_commands();
            reactor.connections.finish_tick(|_| ());
        }
    }

    /// Nothing is runnable: then nothing may wait in a queue either, for nobody would look at it.
    pub fn check_rest(&self, now_ms: u64, links: &[Rc<RefCell<Link>>]) {
        assert_eq!(self.shared.shards.queued(), 0, "commands are forgotten");
        for reactor in self.reactors.iter().flatten() {
            assert_eq!(reactor.inbox.len(), 0, "mail is forgotten");
            assert!(!reactor.connections.has_reports(), "a receipt is forgotten");
            // Topics without subscribers are told to the hub in the tick after, which comes by itself.
            assert!(
                !reactor.connections.has_backpressure()
                    || reactor.sleeps_until_ms <= now_ms + WAIT_MS_BUSY,
                "there is room in the hub, and nobody was told"
            );
            for (index, id) in &reactor.open {
                let connection = reactor.connections.connection(*id).expect("it is open");
                let link = links[*index].borrow();
                assert!(
                    connection.outbox.is_empty() || link.wants_room,
                    "no edge will tell that the outbox of link {index} can be written"
                );
                assert!(
                    connection.is_held() || !connection.has_unread() && !link.has_unread(),
                    "no edge will tell that link {index} can be read"
                );
            }
        }
    }

    /// After the last reactor has ended: nothing is left of anything.
    pub fn check_end(&mut self) {
        let shards = Arc::clone(&self.shared.shards);
        for shard in 0..shards.shard_count() {
            // Histories outlive everybody, until they are too old.
            let now_us = u64::MAX;
            let expired = shards.submit(Command::Expire { shard, now_us }, None);
            expired.expect("the hub is idle");
        }
        self.read_on();
        while self.has_work() {
            self.work();
        }
        let metrics = &self.shared.metrics;
        assert_eq!(self.shared.shards.queued(), 0);
        assert_eq!(self.shared.shards.counts().topics, 0, "topics are left");
        assert_eq!(metrics.connection_count(), 0);
        assert_eq!(metrics.sum(|reactor| &reactor.topics), 0);
        assert_eq!(metrics.sum(|reactor| &reactor.outbox_bytes), 0);
        assert_eq!(metrics.sum(|reactor| &reactor.inbound_bytes), 0);
        let (opened, closed) = (&self.echo.opened, &self.echo.closed);
        assert_eq!(
            opened.load(Ordering::Relaxed),
            closed.load(Ordering::Relaxed)
        );
    }
}

/// What the hub hands out says where each publish stands.
fn note_places(effect: &Effect, records: &mut Records) {
    let mut note = |publication| {
        if let Some((number, place)) = placed(publication) {
            records.place_at(number, place);
        }
    };
    match effect {
        Effect::Deliver { publication, .. } => note(publication),
        Effect::Joined { joined, .. } => joined.publications.iter().for_each(|it| note(it)),
        _ => {}
    }
}

impl SimulatedReactor {
    /// Whether it is awake.
    pub fn is_runnable(&self, now_ms: u64) -> bool {
        self.woken.load(Ordering::SeqCst)
            || !self.events.is_empty()
            || !self.backlog.is_empty()
            || now_ms >= self.sleeps_until_ms
    }

    pub fn sleeps_until_ms(&self) -> u64 {
        self.sleeps_until_ms
    }

    /// As `Reactor::tick`; true when it is done.
    fn tick(&mut self, around: &mut Surroundings<'_>, limits: &Limits, held: usize) -> bool {
        let now_ms = around.now_ms;
        self.woken.store(false, Ordering::SeqCst);
        let events = self.take_events(around);
        let is_caught_up = self.events.is_empty();
        self.connections.set_now_us(now_ms * 1000);
        self.connections.poll_ready(now_ms);
        for (id, readiness) in events {
            if readiness.writable || readiness.error {
                self.connections.handle_writable(id, now_ms);
            }
            if readiness.readable || readiness.read_closed || readiness.error {
                let ended = readiness.read_closed || readiness.error;
                self.connections.handle_readable(id, ended, now_ms);
            }
        }
        self.accept(around, limits, held);
        let is_draining = self.begin_drain(around, limits);
        self.take_mail(around);
        self.connections.deliver(now_ms, || now_ms * 1000);
        self.connections.poll_receipts(now_ms);
        self.connections.retry_commands();
        if is_caught_up || self.waits_behind >= WAITS_BEHIND {
            self.waits_behind = 0;
            self.connections.sweep(now_ms);
        } else {
            self.waits_behind += 1;
        }
        let until_ms = self.drain_until_ms.unwrap_or(now_ms);
        let done = is_draining && (self.connections.poll_drain(now_ms) || now_ms >= until_ms);
        self.connections.finish_tick(|_| ());
        self.open
            .retain(|(link, _)| !around.links[*link].borrow().node_closed);
        self.check_caps(limits);
        let has_ready = self.connections.has_ready();
        around.cover.add("turn carried over", u64::from(has_ready));
        self.sleeps_until_ms = now_ms + self.wait_ms(now_ms);
        done
    }

    /// Whether the drain concerns the connections: only once the hub is done.
    fn begin_drain(&mut self, around: &mut Surroundings<'_>, limits: &Limits) -> bool {
        if self.connections.lifecycle() != Lifecycle::Draining {
            return false;
        }
        for index in self.backlog.drain(..) {
            around.links[index].borrow_mut().break_off();
        }
        let timeout_ms = limits.drain_timeout_ms;
        let until_ms = *self
            .drain_until_ms
            .get_or_insert(around.now_ms + timeout_ms);
        self.hub_is_drained |=
            self.connections.hub_is_idle() || around.now_ms + timeout_ms * 3 / 4 >= until_ms;
        self.hub_is_drained
    }

    fn wait_ms(&self, now_ms: u64) -> u64 {
        let has_more = self.connections.has_ready() || self.connections.has_reports();
        if has_more || !self.inbox.is_empty() {
            return 0;
        }
        let wait_ms = self.connections.next_deadline_ms().saturating_sub(now_ms);
        let is_short = self.connections.has_backpressure() || self.drain_until_ms.is_some();
        wait_ms
            .min(if is_short { WAIT_MS_BUSY } else { wait_ms })
            .min(NEVER_MS - now_ms)
    }

    /// Some of the edges, in the order in which they came, with what holds at this moment.
    fn take_events(
        &mut self,
        around: &mut Surroundings<'_>,
    ) -> Vec<(ConnectionId, super::network::Readiness)> {
        let count = match around.random.chance(70) {
            true => self.events.len(),
            false => around.random.below(self.events.len() + 1),
        };
        let mut events = Vec::new();
        for index in self.events.drain(..count) {
            let mut link = around.links[index].borrow_mut();
            link.is_queued = false;
            let id = self.open.iter().find(|(open, _)| *open == index);
            if let Some((_, id)) = id {
                events.push((*id, link.readiness()));
            }
        }
        events
    }

    fn accept(&mut self, around: &mut Surroundings<'_>, limits: &Limits, held: usize) {
        for _ in 0..limits.accepts_per_tick_max {
            let Some(index) = self.backlog.pop_front() else {
                return;
            };
            let socket = Socket(Rc::clone(&around.links[index]));
            let id = self.connections.insert(socket, around.now_ms);
            self.open.push((index, id));
            // A fresh registration reports what is ready already.
            around.links[index].borrow_mut().is_queued = true;
            self.events.push_back(index);
            if held >= limits.connections_max {
                around.cover.add("refused admission", 1);
                self.connections.refuse_admission(id, around.now_ms);
            }
        }
    }

    fn take_mail(&mut self, around: &mut Surroundings<'_>) {
        self.inbox.begin();
        for _ in 0..self.inbox.len() {
            let Some(effect) = self.inbox.take() else {
                break;
            };
            note_places(&effect, around.records);
            self.connections.handle_effect(effect, around.now_ms);
        }
        if self.inbox.take_starved() {
            around.cover.add("full mailbox", 1);
            self.connections.resume_shards();
        }
    }

    /// Holds what is kept for each connection, and for all, against the limits.
    fn check_caps(&self, limits: &Limits) {
        // Vectors grow by doubling. What was read and could not be dealt with is at most one read.
        let largest = limits
            .head_bytes_max
            .max(limits.body_bytes_max)
            .max(limits.message_bytes_max);
        let inbound_max = 2 * largest + limits.read_buffer_bytes + 1024;
        // An empty outbox takes what one turn produced, which is bounded by the outbox's limit and one more answer.
        let page_bytes = umbel::internals::console::asset("/").map_or(0, |asset| asset.body.len());
        let outbox_max = limits.outbox_bytes_max + page_bytes.max(limits.message_bytes_max) + 1024;
        for (_, id) in &self.open {
            let connection = self.connections.connection(*id).expect("it is open");
            let (inbound, outbox) = (connection.inbound_bytes(), connection.outbox.bytes());
            // Whose answer waits for the hub may have agreed to one already.
            let may_keep_context = match connection.deflate() {
                Some(agreement) => agreement.client_takeover,
                None => connection.label() == Label::Http,
            };
            let context = if may_keep_context {
                Inflation::CONTEXT_BYTES
            } else {
                0
            };
            assert!(
                inbound <= inbound_max + context,
                "{inbound} bytes came in and wait"
            );
            assert!(outbox <= outbox_max, "{outbox} bytes wait to be written");
        }
        assert!(self.inbox.len() <= limits.mailbox_messages_max);
    }
}
