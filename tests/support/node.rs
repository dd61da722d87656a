//! A node in memory: one reactor's connections and one shard of the hub, without sockets, threads or a clock.
//!
//! It runs the same code as the server from the read to the write, over transports that a test or a bench makes. Topics
//! spread over shards in the same way in each run.

#![allow(dead_code, reason = "each test or bench that includes it uses a part")]

use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use umbel::config::Hosts;
use umbel::config::{Config, Limits};
use umbel::handler::{Echo, Hooks};
use umbel::internals::auth::Authority;
use umbel::internals::auth::policy::AccessPolicy;
use umbel::internals::connection::Settings;
use umbel::internals::hub::{Command, Kind, Origin, Publication, ReactorId};
use umbel::internals::mailbox::{Inbox, mailbox};
use umbel::internals::metrics::Metrics;
use umbel::internals::net::byte_stream::ByteStream;
use umbel::internals::net::driver::{Driver, Readiness, Waited};
use umbel::internals::net::listener::Accepted;
use umbel::internals::reactor::{Context, Reactor};
use umbel::internals::shared::brought::CommandQueues;
use umbel::internals::shared::{LifecycleCell, OwnEndpoint, Shared};
use umbel::internals::topic::Topic;
use umbel::internals::worker::{Outlet, QueueLimits, Shards};
use umbel::{ConnectionId, Origins};

/// Gives what is put into it, and takes everything.
#[derive(Default)]
pub struct Sink {
    /// Bytes to be read.
    pub input: Vec<u8>,
    /// Bytes of `input` that were read.
    pub read: usize,
    /// The peer's side ends behind `input`.
    pub is_ended: bool,
    /// Bytes that were written to it.
    pub written: usize,
}

impl Sink {
    /// Replaces what is to be read.
    pub fn refill(&mut self, input: &[u8]) {
        self.input.clear();
        self.input.extend_from_slice(input);
        self.read = 0;
    }
}

impl ByteStream for Sink {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.input[self.read..];
        if rest.is_empty() && !self.is_ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written += bytes.len();
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = pieces.iter().map(|piece| piece.len()).sum();
        self.written += count;
        Ok(count)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The request of an upgrade at `path`.
pub fn upgrade(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// Parts that a single reactor needs besides its event loop: two shards that it runs itself, and `/echo` besides the
/// topics.
pub fn shared(settings: Settings, outlet: Box<dyn Outlet>) -> Shared {
    shared_by(settings, vec![outlet])
}

/// Parts that as many reactors share as there are outlets.
pub fn shared_by(settings: Settings, outlets: Vec<Box<dyn Outlet>>) -> Shared {
    let reactors = outlets.len();
    let queue = QueueLimits {
        commands_max: 1024,
        bytes_max: 1 << 20,
    };
    let (shards, _work) = Shards::new(
        &[1, 1 << 32],
        outlets,
        queue,
        &settings.shard_settings(),
        true,
    );
    let metrics = Arc::new(Metrics::new(reactors, &settings.dialects.labels()));
    let commands = Arc::new(CommandQueues::new(reactors, &settings.limits));
    Shared {
        settings: Arc::new(settings),
        shards: Arc::new(shards.repeatable()),
        authority: Arc::new(Authority::Policy(AccessPolicy::new(
            &Config::default().rights().expect("the defaults stand"),
            Arc::default(),
        ))),
        origins: Arc::new(Origins::Any),
        hosts: Arc::new(Hosts::Any),
        subprotocols: Arc::new([]),
        routes: Arc::new([OwnEndpoint::handler("/echo", Echo)]),
        inside: Arc::default(),
        hook: None,
        hooks: Hooks::default(),
        listeners: Arc::new([]),
        metrics,
        commands,
        lifecycle: Arc::new(LifecycleCell::default()),
        live: Arc::default(),
        callers: Arc::default(),
        control: Arc::default(),
    }
}

/// The world outside of a reactor without one: whoever holds the node accepts and reads, in between the ticks. A wait is
/// over at once, and the time is what it was last set to.
pub struct Stepper<T> {
    now_ms: u64,
    /// The process's clock goes on; else it stands.
    has_clock: bool,
    transports: PhantomData<T>,
}

impl<T: ByteStream> Driver for Stepper<T> {
    type Transport = T;

    fn wait(&mut self, _: u64) -> io::Result<Waited> {
        Ok(Waited {
            now_ms: self.now_ms,
            now_us: self.now_us(),
            is_caught_up: true,
        })
    }

    fn events(&mut self) -> impl Iterator<Item = Readiness> {
        std::iter::empty()
    }

    fn accept(&mut self, _: usize, _: u64) -> Accepted<T> {
        Accepted::Nothing
    }

    fn register(&mut self, _: &mut T, _: ConnectionId) -> io::Result<()> {
        Ok(())
    }

    fn release(&mut self, _: &mut T) {}

    fn next_accept_ms(&self) -> Option<u64> {
        None
    }

    fn stop_accepting(&mut self, _: &dyn Fn(u8) -> bool) {}

    fn set_load(&mut self, _: usize) {}

    fn total(&self) -> usize {
        0
    }

    fn now_us(&self) -> u64 {
        match self.has_clock {
            true => self.now_ms * 1000,
            false => 0,
        }
    }

    fn wall_ms(&self) -> u64 {
        self.now_ms
    }
}

/// The node. It is its reactor, and more.
pub struct Node<T: ByteStream = Sink> {
    reactor: Reactor<Stepper<T>>,
    /// The hub.
    pub shards: Arc<Shards>,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    /// The moment of whatever is done next.
    pub now_ms: u64,
}

impl<T: ByteStream> Deref for Node<T> {
    type Target = Reactor<Stepper<T>>;

    fn deref(&self) -> &Reactor<Stepper<T>> {
        &self.reactor
    }
}

impl<T: ByteStream> DerefMut for Node<T> {
    fn deref_mut(&mut self) -> &mut Reactor<Stepper<T>> {
        &mut self.reactor
    }
}

impl<T: ByteStream> Node<T> {
    /// A node without connections, with `/echo` besides the topics.
    pub fn new(limits: &Limits) -> Node<T> {
        Node::with_settings(Settings::new(limits))
    }

    /// A node with settings that limits alone do not make.
    pub fn with_settings(settings: Settings) -> Node<T> {
        let mut one = Node::several(settings, 1);
        one.pop().expect("it is one")
    }

    /// A node whose callers this authority judges, and whose clock is that of its deadlines.
    pub fn with_authority(settings: Settings, authority: Authority) -> Node<T> {
        let outlet = mailbox(ReactorId(0), 1024, 1 << 20, Box::new(|| true));
        let mut shared = shared(settings, Box::new(outlet.0));
        shared.authority = Arc::new(authority);
        let mut node = Node::of(&shared, 1, 0, outlet.1);
        node.reactor.driver.has_clock = true;
        node
    }

    fn of(shared: &Shared, reactors: usize, number: u16, inbox: Inbox) -> Node<T> {
        let context = Context {
            shared: shared.clone(),
            reactors,
            connections_max: usize::MAX,
        };
        let driver = Stepper {
            now_ms: 0,
            has_clock: false,
            transports: PhantomData,
        };
        Node {
            reactor: Reactor::new(driver, inbox, ReactorId(number), context),
            shards: Arc::clone(&shared.shards),
            metrics: Arc::clone(&shared.metrics),
            now_ms: 0,
        }
    }

    /// The reactors of one server, without connections.
    pub fn several(settings: Settings, reactors: u16) -> Vec<Node<T>> {
        let mailboxes = (0..reactors)
            .map(|number| mailbox(ReactorId(number), 1024, 1 << 20, Box::new(|| true)));
        let (outlets, inboxes): (Vec<_>, Vec<_>) = mailboxes.unzip();
        let outlets = outlets.into_iter().map(|outlet| Box::new(outlet) as _);
        let shared = shared_by(settings, outlets.collect());
        let node = |(number, inbox)| Node::of(&shared, usize::from(reactors), number, inbox);
        (0..).zip(inboxes).map(node).collect()
    }

    /// Ticks of its reactor until the mailbox is empty.
    pub fn tick(&mut self) {
        self.reactor.driver.now_ms = self.now_ms;
        loop {
            let is_running = self.reactor.tick().expect("this wait does not fail");
            assert!(is_running, "nobody shuts it down");
            if self.reactor.inbox.is_empty() {
                return;
            }
        }
    }

    /// Hands a text to the hub.
    pub fn submit(&mut self, topic: &str, payload: &[u8]) {
        self.submit_kind(topic, Kind::Text, payload);
    }

    /// Hands a message of either kind to the hub.
    pub fn submit_kind(&mut self, topic: &str, kind: Kind, payload: &[u8]) {
        let topic = Topic::from_text(topic).expect("a topic");
        let publication = Arc::new(Publication::new(kind, payload, 0));
        let command = Command::Publish {
            topic,
            publication,
            origin: Origin::Detached,
        };
        self.shards
            .submit(command, Some(ReactorId(0)))
            .expect("room");
    }

    /// Publishes a text, and runs the tick that delivers it.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.submit(topic, payload);
        self.tick();
    }

    /// Looks after every deadline that has come by now.
    pub fn sweep(&mut self) {
        let now_ms = self.now_ms;
        while self.connections.next_deadline_ms() <= now_ms {
            self.connections.sweep(now_ms, now_ms);
        }
    }

    /// Takes in a connection.
    pub fn insert(&mut self, transport: T) -> ConnectionId {
        let now_ms = self.now_ms;
        self.connections.insert(transport, now_ms)
    }

    /// A connection can be read; `ended`: to its end.
    pub fn handle_readable(&mut self, id: ConnectionId, ended: bool) {
        let now_ms = self.now_ms;
        self.connections.handle_readable(id, ended, now_ms);
    }

    /// A connection can be written.
    pub fn handle_writable(&mut self, id: ConnectionId) {
        let now_ms = self.now_ms;
        self.connections.handle_writable(id, now_ms);
    }

    /// A connection's transport.
    pub fn transport(&mut self, id: ConnectionId) -> &mut T {
        self.connections.transport_mut(id).expect("connected")
    }
}

impl Node<Sink> {
    /// Accepts a connection, whose first bytes are `input`.
    pub fn accept(&mut self, input: Vec<u8>) -> ConnectionId {
        let id = self.insert(Sink {
            input,
            ..Sink::default()
        });
        self.handle_readable(id, false);
        id
    }

    /// Opens a WebSocket connection at `path`.
    pub fn connect(&mut self, path: &str) -> ConnectionId {
        self.accept(upgrade(path))
    }

    /// Bytes come from a connection's peer, in one read.
    pub fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.transport(id).refill(bytes);
        self.reactor
            .connections
            .handle_readable(id, false, self.now_ms);
    }

    /// Bytes come from a connection's peer, in one read, and their tick is run.
    pub fn send(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.receive(id, bytes);
        self.tick();
    }

    /// Bytes that were written to a connection.
    pub fn written(&mut self, id: ConnectionId) -> usize {
        self.transport(id).written
    }
}
