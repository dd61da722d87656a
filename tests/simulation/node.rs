//! A node: the real reactors, connections, shards and mailboxes, over the simulated network.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::Receiver;
use umbel::access::{AccessRequest, Authorizer, Identity, Verdict};
use umbel::config::{Hosts, Limits, Origins};
use umbel::handler::{CloseReason, ConnectionId, Echo, Handler, Hooks, Message, Peer, Request};
use umbel::internals::auth::Authority;
use umbel::internals::auth::deny::Entry;
use umbel::internals::connection::{Connection, Inflation, Label, Settings};
use umbel::internals::hub::{Command, Effect, Kind, Origin, Publication, ReactorId};
use umbel::internals::mailbox::{Inbox, Mailbox, mailbox};
use umbel::internals::metrics::Metrics;
use umbel::internals::net::driver::Driver;
use umbel::internals::reactor::{Context, Reactor, WAIT_MS_BUSY};
use umbel::internals::shared::brought::CommandQueues;
use umbel::internals::shared::jobs::{Job, Task};
use umbel::internals::shared::live::Live;
use umbel::internals::shared::{Lifecycle, LifecycleCell, OwnEndpoint, Shared};
use umbel::internals::topic::Topic;
use umbel::internals::worker::{Outlet, QueueLimits, Shards};

use super::cover::Cover;
use super::driver::SimulatedDriver;
use super::network::Link;
use super::plan::Plan;
use super::random::Random;
use super::records::Records;
use super::topics::TOPICS;

/// Everybody may do everything.
pub struct Anyone;

impl Authorizer for Anyone {
    fn authorize(&self, _: &AccessRequest<'_>) -> Verdict {
        Verdict::Allow(Identity::anonymous())
    }
}

/// An echo that counts how often it was opened and closed.
#[derive(Default)]
pub struct CountedEcho {
    pub opened: AtomicU64,
    pub closed: AtomicU64,
}

impl Handler for CountedEcho {
    fn open(&self, _: &mut Peer<'_>, _: &Request<'_>) {
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
    fn open(&self, peer: &mut Peer<'_>, request: &Request<'_>) {
        self.0.open(peer, request);
    }

    fn message(&self, peer: &mut Peer<'_>, message: Message<'_>) {
        self.0.message(peer, message);
    }

    fn close(&self, connection: ConnectionId, reason: CloseReason) {
        self.0.close(connection, reason);
    }
}

/// A mailbox that counts how often it was full.
struct CountedMailbox {
    mailbox: Arc<Mailbox>,
    full: Arc<AtomicU64>,
}

impl Outlet for CountedMailbox {
    fn offer(&self, effect: Effect, from: Option<ReactorId>) -> Result<(), Effect> {
        self.mailbox.offer(effect, from).inspect_err(|_| {
            self.full.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn wake(&self) {
        self.mailbox.wake();
    }
}

pub type SimulatedReactor = Reactor<SimulatedDriver>;

/// What a tick needs of the world.
pub struct Surroundings<'a> {
    pub now_ms: u64,
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
    /// How often a mailbox was full.
    full: Arc<AtomicU64>,
    work: Receiver<usize>,
    pub echo: Arc<CountedEcho>,
}

impl Node {
    /// The node that takes this turn, from 1.
    pub fn new(plan: &Plan, run: u64, now_ms: u64) -> Node {
        let (limits, reactors, shards) = (&plan.limits, plan.reactors, plan.shards);
        let echo = Arc::new(CountedEcho::default());
        let (mut mailboxes, mut parts) = (Vec::new(), Vec::new());
        for number in 0..reactors {
            let woken = Arc::new(AtomicBool::new(false));
            let wake = plan.wakes.wake(&woken);
            let id = ReactorId(number as u16);
            let (messages_max, bytes_max) = (limits.mailbox_messages_max, limits.mailbox_bytes_max);
            let (outside, inbox) = mailbox(id, messages_max, bytes_max, wake);
            mailboxes.push(outside);
            parts.push((inbox, woken));
        }
        let settings = plan.settings.clone();
        let full = Arc::new(AtomicU64::new(0));
        let outlets = mailboxes.iter().map(|mailbox| {
            let (mailbox, full) = (Arc::clone(mailbox), Arc::clone(&full));
            Box::new(CountedMailbox { mailbox, full }) as Box<dyn Outlet>
        });
        let epochs: Vec<u64> = (0..shards)
            .map(|shard| run << 48 | (shard as u64 + 1) << 32)
            .collect();
        let queue = QueueLimits {
            commands_max: limits.commands_max,
            bytes_max: limits.command_bytes_max,
        };
        let mut shard_settings = settings.shard_settings();
        // A node that begins later knows nothing of what came before.
        shard_settings.keys.since_us = now_ms * 1000;
        let (shards, work) = Shards::new(
            &epochs,
            outlets.collect(),
            queue,
            &shard_settings,
            plan.inline,
        );
        let metrics = Arc::new(Metrics::new(reactors, &settings.dialects.labels()));
        let shared = Shared {
            settings: Arc::new(settings),
            shards: Arc::new(shards.repeatable()),
            authority: Arc::clone(&plan.authority),
            origins: Arc::new(Origins::Any),
            hosts: Arc::new(Hosts::Any),
            subprotocols: Arc::new([]),
            routes: Arc::new([OwnEndpoint::handler("/echo", Forward(Arc::clone(&echo)))]),
            inside: Arc::default(),
            hook: None,
            hooks: Hooks::default(),
            listeners: Arc::new([]),
            metrics,
            commands: Arc::new(CommandQueues::new(reactors, limits)),
            lifecycle: Arc::new(LifecycleCell::default()),
            live: Arc::default(),
            callers: Arc::default(),
            control: Arc::default(),
        };
        Node {
            reactors: reactors_of(&shared, parts),
            ended: Vec::new(),
            shared,
            mailboxes,
            full,
            work,
            echo,
        }
    }

    /// A peer connects. False: nobody listens.
    pub fn connect(&mut self, reactor: usize, index: usize, link: Rc<RefCell<Link>>) -> bool {
        match &mut self.reactors[reactor] {
            Some(reactor) => reactor.driver.connect(index, link),
            None => false,
        }
    }

    /// Something happened to a link that epoll would report.
    pub fn queue_event(&mut self, reactor: usize, index: usize, link: &mut Link) {
        if let Some(reactor) = &mut self.reactors[reactor] {
            reactor.driver.queue_event(index, link);
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
            reactor.driver.stop_accepting(&|_| false);
        }
        self.reactors.clear();
        for link in links {
            link.borrow_mut().disturbed = true;
        }
    }

    /// The links whose connections take publications.
    pub fn subscribers(&self) -> impl Iterator<Item = usize> {
        self.peers_that(|connection| connection.takes_deliveries())
    }

    /// Peers whose connections are about to end.
    pub fn closing(&self) -> impl Iterator<Item = usize> {
        self.peers_that(|connection| connection.is_closing())
    }

    fn peers_that(
        &self,
        is_one: impl Fn(&Connection) -> bool + Copy,
    ) -> impl Iterator<Item = usize> {
        let reactors = self.reactors.iter().flatten();
        reactors.flat_map(move |reactor| {
            let is_one = move |id: ConnectionId| {
                let connection = reactor.connections.connection(id);
                connection.is_some_and(is_one)
            };
            let open = reactor.driver.open.iter();
            open.filter(move |open| is_one(open.id))
                .map(|open| open.index)
        })
    }

    /// Publishes a text as a thread of the embedder does. False: the hub has no room.
    pub fn publish(&self, topic: usize, payload: &[u8]) -> bool {
        let command = Command::Publish {
            topic: Topic::from_text(TOPICS[topic]).expect("a topic"),
            publication: Arc::new(Publication::new(Kind::Text, payload, 0)),
            origin: Origin::Detached,
        };
        self.shared.shards.submit(command, None).is_ok()
    }

    /// Whether a reactor may not run, and so cannot do what it has to.
    pub fn is_stalled(&self, now_ms: u64) -> bool {
        let mut reactors = self.reactors.iter().flatten();
        reactors.any(|reactor| reactor.driver.is_stalled(now_ms))
    }

    pub fn shut_down(&self) {
        self.shared.lifecycle.advance(Lifecycle::Draining);
        self.mailboxes.iter().for_each(|mailbox| mailbox.wake());
    }

    /// Gives the node other settings. False: the last ones have not reached everybody.
    pub fn reload(&self, settings: Arc<Settings>, authority: Arc<Authority>) -> bool {
        let shared = &self.shared;
        let live = Live {
            settings,
            authority,
            origins: Arc::clone(&shared.origins),
            hosts: Arc::clone(&shared.hosts),
            subprotocols: Arc::clone(&shared.subprotocols),
            listeners: Arc::clone(&shared.listeners),
        };
        let is_taken = shared.live.store(live, self.reactors.len());
        if is_taken {
            self.mailboxes.iter().for_each(|mailbox| mailbox.wake());
        }
        is_taken
    }

    /// Denies somebody, as the control API does; gives the number of the entry.
    pub fn deny(&self, entry: Entry, wall_ms: u64) -> u64 {
        let list = &self.shared.control.deny;
        let id = list.change_for_open(|list| list.add(entry, usize::MAX, wall_ms));
        self.shared.send_job(Job::new(Task::Revoke, |_| {}));
        id.expect("there is room")
    }

    /// Takes an entry off the deny list.
    pub fn forgive(&self, id: u64) {
        let taken_off = self.shared.control.deny.change(|list| list.take_off(id));
        assert_eq!(taken_off, Ok(()), "it was there");
    }

    /// Whether a reload has yet to reach some reactors.
    pub fn is_awaited(&self) -> bool {
        self.shared.live.is_awaited()
    }

    /// Whether a reload has yet to reach some topics.
    pub fn is_reloading(&self) -> bool {
        self.shared.live.is_busy()
    }

    /// A reactor that keeps a slot for its memberships.
    pub fn leaving_reactor(&self) -> Option<usize> {
        let keeps = |reactor: &Option<Reactor<SimulatedDriver>>| {
            let reactor = reactor.as_ref();
            reactor.is_some_and(|reactor| reactor.connections.has_leaving())
        };
        self.reactors.iter().position(keeps)
    }

    /// One tick of one reactor.
    pub fn tick(&mut self, index: usize, around: &mut Surroundings<'_>) {
        let Some(reactor) = &mut self.reactors[index] else {
            return;
        };
        let limits = &self.shared.settings.limits;
        reactor.driver.wake_up(around.now_ms, around.random);
        let is_running = reactor.tick().expect("a simulated wait does not fail");
        reactor.driver.note_places(around.records);
        reactor.driver.sleep(reactor.wait_ms());
        check_caps(reactor, limits);
        let has_ready = reactor.connections.has_ready();
        around.cover.add("turn carried over", u64::from(has_ready));
        let has_leaving = reactor.connections.has_leaving();
        around
            .cover
            .add("slot kept for memberships", u64::from(has_leaving));
        let over_cap = std::mem::take(&mut reactor.driver.over_cap);
        around.cover.add("refused admission", over_cap);
        let full = self.full.swap(0, Ordering::Relaxed);
        around.cover.add("full mailbox", full);
        if !is_running {
            assert!(
                reactor.connections.is_empty(),
                "a drain ends because everybody is gone, and not because its time is up"
            );
            self.ended.extend(self.reactors[index].take());
        }
        self.read_on();
    }

    /// Those that have ended take what comes, so that it is seen that nothing is left of them in the hub.
    fn read_on(&mut self) {
        for reactor in &mut self.ended {
            loop {
                reactor.driver.sleep(reactor.wait_ms());
                reactor.tick().expect("a simulated wait does not fail");
                if reactor.inbox.is_empty() {
                    break;
                }
            }
        }
    }

    /// Nothing is runnable: then nothing may wait in a queue either, for nobody would look at it.
    pub fn check_rest(&self, now_ms: u64) {
        assert_eq!(self.shared.shards.queued(), 0, "commands are forgotten");
        for reactor in self.reactors.iter().flatten() {
            assert_eq!(reactor.inbox.len(), 0, "mail is forgotten");
            assert!(
                !reactor.driver.forgets_links(now_ms),
                "nobody accepts links that wait"
            );
            assert!(!reactor.connections.has_reports(), "a receipt is forgotten");
            // Topics without subscribers are told to the hub in the tick after, which comes by itself.
            assert!(
                !reactor.connections.has_backpressure()
                    || reactor.driver.wakes_ms() <= now_ms + WAIT_MS_BUSY,
                "there is room in the hub, and nobody was told"
            );
            for open in &reactor.driver.open {
                let (index, link) = (open.index, open.link.borrow());
                let connection = reactor.connections.connection(open.id);
                let connection = connection.expect("it is open");
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
        let counts = self.shared.shards.counts();
        assert_eq!(counts.topics, 0, "topics are left");
        assert_eq!(counts.idempotency_bytes, 0, "idempotency keys are left");
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

/// A reactor for each mailbox and for what says that it was woken.
fn reactors_of(
    shared: &Shared,
    parts: Vec<(Inbox, Arc<AtomicBool>)>,
) -> Vec<Option<SimulatedReactor>> {
    let context = Context {
        shared: shared.clone(),
        reactors: parts.len(),
        connections_max: shared.settings.limits.connections_max,
    };
    let loads: Rc<[Cell<usize>]> = parts.iter().map(|_| Cell::new(0)).collect();
    let reactor = |(number, (inbox, woken))| {
        let loads = Rc::clone(&loads);
        let driver = SimulatedDriver::new(woken, loads, number, context.connections_max);
        let id = ReactorId(number as u16);
        let mut reactor = Reactor::new(driver, inbox, id, context.clone());
        reactor.driver.sleep(reactor.wait_ms());
        Some(reactor)
    };
    parts.into_iter().enumerate().map(reactor).collect()
}

/// Holds what is kept for each connection, and for all, against the limits.
fn check_caps(reactor: &SimulatedReactor, limits: &Limits) {
    // Vectors grow by doubling. What was read and could not be dealt with is at most one read.
    let largest = limits
        .head_bytes_max
        .max(limits.body_bytes_max)
        .max(limits.message_bytes_max);
    let inbound_max = 2 * largest + limits.read_buffer_bytes + 1024;
    // An empty outbox takes what one turn produced, which is bounded by the outbox's limit and one more answer.
    let page_bytes = umbel::internals::console::asset("/").map_or(0, |asset| asset.body.len());
    let outbox_max = limits.outbox_bytes_max + page_bytes.max(limits.message_bytes_max) + 1024;
    for open in &reactor.driver.open {
        let connection = reactor.connections.connection(open.id);
        let connection = connection.expect("it is open");
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
    assert!(reactor.inbox.len() <= limits.mailbox_messages_max);
}
