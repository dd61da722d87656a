//! The hot paths allocate nothing: not for a delivery, not for a message on an own endpoint, not for a ping. A publish
//! allocates its publication, however many subscribers there are.
//!
//! The reactor's connections run in this process over transports that swallow what is written, under an allocator
//! that counts.
#![allow(unsafe_code, reason = "an allocator cannot be written without it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::sync::Arc;

use umbel::config::{Config, Limits};
use umbel::connection::{NEVER_MS, Settings};
use umbel::handler::Echo;
use umbel::http::topic::Topic;
use umbel::hub::{Command, Effect, Kind, Origin, Publication, ReactorId};
use umbel::metrics::Metrics;
use umbel::protocol::{Opcode, encode_frame};
use umbel::reactor::connections::Connections;
use umbel::reactor::mailbox::{Inbox, mailbox};
use umbel::reactor::transport::Transport;
use umbel::reactor::{Route, Shared, StageCell};
use umbel::worker::{Outlet, QueueLimits, Shards};
use umbel::{ConnectionId, Origins};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system's allocator as it came; counting touches a thread-local number that
// needs neither an allocation nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

/// Gives what a test puts into it, and takes everything.
#[derive(Default)]
struct Sink {
    input: Vec<u8>,
    read: usize,
    written: usize,
}

impl Transport for Sink {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.input[self.read..];
        if rest.is_empty() {
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
        Ok(pieces.iter().map(|piece| piece.len()).sum())
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Node {
    connections: Connections<Sink>,
    inbox: Inbox,
    shards: Arc<Shards>,
}

impl Node {
    fn new() -> Node {
        let limits = Limits::default();
        let (outlet, inbox) = mailbox(ReactorId(0), 1024, 1 << 20, Box::new(|| true));
        let queue = QueueLimits {
            commands_max: 1024,
            bytes_max: 1 << 20,
        };
        let outlets: Vec<Box<dyn Outlet>> = vec![Box::new(outlet)];
        let (shards, _work) = Shards::new(&[1, 1 << 32], outlets, queue, true);
        let shards = Arc::new(shards);
        let shared = Shared {
            settings: Arc::new(Settings::new(&limits)),
            shards: Arc::clone(&shards),
            authorizer: Arc::new(Config::default().rights().expect("the defaults stand")),
            origins: Arc::new(Origins::Any),
            subprotocols: Arc::new([]),
            routes: Arc::new([Route {
                path: "/echo".into(),
                handler: Arc::new(Echo),
            }]),
            metrics: Arc::new(Metrics::new(1)),
            stage: Arc::new(StageCell::default()),
        };
        let connections = Connections::new(ReactorId(0), 1, shared);
        Node {
            connections,
            inbox,
            shards,
        }
    }

    fn connect(&mut self, path: &str) -> ConnectionId {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let sink = Sink {
            input: request.into_bytes(),
            ..Sink::default()
        };
        let id = self.connections.insert(sink, 0);
        self.connections.handle_readable(id, false, 0);
        id
    }

    /// The rest of a tick, as the reactor runs it.
    fn finish_tick(&mut self) {
        while let Some(effect) = self.inbox.take() {
            self.connections.handle_effect(effect, 0);
        }
        self.connections.deliver(0, || 0);
        self.connections.retry_commands();
        self.connections.finish_tick(|_| {});
    }

    fn publish(&mut self, payload: &[u8]) {
        let topic = Topic::from_text("news").expect("a topic");
        let publication = Arc::new(Publication::new(Kind::Text, payload, 0));
        let command = Command::Publish {
            topic,
            publication,
            origin: Origin::Detached,
        };
        self.shards
            .submit(command, Some(ReactorId(0)))
            .expect("room");
        self.finish_tick();
    }

    fn send(&mut self, id: ConnectionId, frames: &[u8]) {
        let transport = self.connections.transport_mut(id).expect("connected");
        transport.input.clear();
        transport.input.extend_from_slice(frames);
        transport.read = 0;
        self.connections.handle_readable(id, false, 0);
        self.finish_tick();
    }

    fn written(&mut self, id: ConnectionId) -> usize {
        self.connections
            .transport_mut(id)
            .expect("connected")
            .written
    }
}

#[test]
fn a_delivery_allocates_nothing() {
    let cost = |subscribers: usize| {
        let mut node = Node::new();
        let ids: Vec<_> = (0..subscribers).map(|_| node.connect("/ws/news")).collect();
        node.finish_tick();
        // The lists that are used again reach their size.
        (0..10).for_each(|_| node.publish(b"warm up"));
        let before = node.written(ids[0]);
        let count =
            allocations(|| (0..100).for_each(|_| node.publish(b"a message of some length")));
        assert_eq!(
            node.written(ids[0]) - before,
            100 * (24 + 2),
            "everything was delivered"
        );
        count
    };
    let (few, many) = (cost(10), cost(1000));
    assert_eq!(
        few, many,
        "the cost of a publish must not depend on its subscribers"
    );
    // The topic's name, twice for its canonical form, the publication, its frame.
    assert!(few <= 100 * 6, "a publish allocates {} times", few / 100);
}

#[test]
fn a_message_on_an_own_endpoint_allocates_nothing() {
    for len in [0, 20, 1000, 100_000] {
        let mut node = Node::new();
        let id = node.connect("/echo");
        let mut frames = Vec::new();
        for _ in 0..2 {
            encode_frame(
                &mut frames,
                Opcode::Text,
                &vec![b'x'; len],
                Some([1, 2, 3, 4]),
            );
        }
        (0..10).for_each(|_| node.send(id, &frames));
        let before = node.written(id);
        let count = allocations(|| (0..100).for_each(|_| node.send(id, &frames)));
        assert!(
            node.written(id) - before >= 200 * len,
            "everything was echoed"
        );
        assert_eq!(count, 0, "{len} bytes");
    }
}

#[test]
fn a_published_message_allocates_its_publication() {
    let mut node = Node::new();
    let id = node.connect("/ws/news");
    let mut frame = Vec::new();
    encode_frame(&mut frame, Opcode::Text, b"hello", Some([1, 2, 3, 4]));
    (0..10).for_each(|_| node.send(id, &frame));
    let count = allocations(|| (0..100).for_each(|_| node.send(id, &frame)));
    assert_eq!(
        count, 200,
        "the publication and its frame, and nothing else"
    );
}

#[test]
fn a_ping_allocates_nothing() {
    let mut node = Node::new();
    for _ in 0..1000 {
        node.connect("/ws/news");
    }
    node.finish_tick();
    let mut now_ms = 0;
    let mut due = |node: &mut Node| {
        now_ms = node.connections.next_deadline_ms().max(now_ms);
        assert_ne!(now_ms, NEVER_MS);
        while node.connections.next_deadline_ms() <= now_ms {
            node.connections.sweep(now_ms);
        }
    };
    (0..10).for_each(|_| due(&mut node));
    let count = allocations(|| (0..100).for_each(|_| due(&mut node)));
    assert_eq!(count, 0);
}

#[test]
fn an_effect_is_small() {
    assert!(size_of::<Effect>() <= 48, "{}", size_of::<Effect>());
}
