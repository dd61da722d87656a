//! A million connections in memory, each subscribed to a topic: what one costs, and how long anything pauses for it.
//!
//! It measures the connection objects, their slab, the tables of topics of a reactor and of the hub, and the sweep of
//! deadlines, over a transport of four bytes, which is what a socket costs in user space. In three shapes: all on one
//! topic, on 10,000 topics, and each on its own.
//!
//! What decides is repeatable: resident bytes each, and the largest piece of memory that one step asked for, which it
//! must fill or copy. Times are shown beside them; on a busy machine their maxima are those of the scheduler. What the
//! kernel keeps for a socket is not in it.
//!
//! ```sh
//! cargo bench --bench million [-- SHAPE]
//! ```
//!
//! The exit code is 1 if a connection with its subscription takes more than 320 bytes, a topic of its own included.
#![allow(unsafe_code, reason = "an allocator cannot be written without it")]

#[path = "../tests/support/node.rs"]
mod node;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{self, IoSlice};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use node::{Node, upgrade};
use umbel::ConnectionId;
use umbel::config::Limits;
use umbel::internals::net::byte_stream::ByteStream;

/// What a connection with its subscription may take, with what the tables of the reactor and of the shard hold of a topic
/// of its own.
const BYTES_EACH_MAX: f64 = 320.0;

const CONNECTIONS: usize = 1_000_000;

/// Connections accepted in a tick, and closed in a tick.
const PER_TICK: usize = 256;

/// A ping interval is cut into as many sweeps.
const SWEEPS: u64 = 60;

/// Names, and over how many topics the connections are spread.
const SHAPES: &[(&str, usize)] = &[
    ("one_topic", 1),
    ("10000_topics", 10_000),
    ("a_topic_each", CONNECTIONS),
];

/// Counts what is allocated, and how much at once.
struct Counting;

thread_local! {
    static LIVE_BYTES: Cell<usize> = const { Cell::new(0) };
    static LARGEST_BYTES: Cell<usize> = const { Cell::new(0) };
}

fn count(freed: usize, taken: usize) {
    LIVE_BYTES.with(|live| live.set(live.get().wrapping_sub(freed).wrapping_add(taken)));
    LARGEST_BYTES.with(|largest| largest.set(largest.get().max(taken)));
}

// SAFETY: every call is handed to the system's allocator as it came; counting touches thread-local numbers that need
// neither an allocation nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), size);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// What the next read of whichever transport gives; `None` is the end of the peer's side.
    static ARRIVING: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// A transport of the size of a file descriptor.
struct Descriptor(#[expect(dead_code, reason = "it is there for its size")] u32);

impl ByteStream for Descriptor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        ARRIVING.with_borrow_mut(|arriving| match arriving {
            None => Ok(0),
            Some(bytes) if bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            Some(bytes) => {
                buffer[..bytes.len()].copy_from_slice(bytes);
                Ok(std::mem::take(bytes).len())
            }
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(pieces.iter().map(|piece| piece.len()).sum())
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How long each step of a kind took.
struct Pauses {
    took_ns: Vec<u32>,
}

impl Pauses {
    /// Room for `steps`, which is resident already.
    fn new(steps: usize) -> Pauses {
        let mut took_ns = vec![1; steps];
        took_ns.clear();
        Pauses { took_ns }
    }

    fn time<R>(&mut self, step: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let result = step();
        let took_ns = u32::try_from(started.elapsed().as_nanos()).unwrap_or(u32::MAX);
        self.took_ns.push(took_ns);
        result
    }

    fn report(&mut self, what: &str) {
        self.took_ns.sort_unstable();
        let at = |share: f64| {
            let place = ((self.took_ns.len() as f64 * share) as usize).min(self.took_ns.len() - 1);
            Duration::from_nanos(u64::from(self.took_ns[place]))
        };
        println!(
            "  {what:<34} p50 {:>10.1?}   p99.9 {:>10.1?}   longest {:>10.1?}   ({} steps)",
            at(0.5),
            at(0.999),
            at(1.0),
            self.took_ns.len()
        );
        self.took_ns.clear();
    }
}

fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    kib.expect("a resident set") * 1024
}

fn live_bytes() -> usize {
    LIVE_BYTES.with(Cell::get)
}

/// The largest piece of memory asked for since the last call.
fn take_largest_bytes() -> usize {
    LARGEST_BYTES.with(|largest| largest.replace(0))
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    if let [name] = &wanted[..] {
        let shape = SHAPES.iter().find(|shape| shape.0 == name);
        let (name, topics) = shape.expect("the name of a shape");
        return run(name, *topics);
    }
    // Each in a process of its own, so that none finds memory that another one left.
    let program = std::env::current_exe().expect("a path");
    let mut code = ExitCode::SUCCESS;
    for (name, _) in SHAPES {
        let status = Command::new(&program).arg(name).status().expect("it runs");
        if !status.success() {
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn run(name: &str, topics: usize) -> ExitCode {
    let limits = Limits::default();
    let mut node: Node<Descriptor> = Node::new(&limits);
    let mut ids = vec![connect(&mut node, 0); CONNECTIONS];
    node.tick();
    let mut pauses = Pauses::new(CONNECTIONS);
    let mut ticks = Pauses::new(CONNECTIONS / PER_TICK + 1);
    let before = (resident_bytes(), live_bytes());
    take_largest_bytes();

    for (number, id) in ids.iter_mut().enumerate().skip(1) {
        ARRIVING.set(Some(upgrade(&format!("/ws/user/{}", number % topics))));
        *id = pauses.time(|| accept(&mut node, number));
        if number % PER_TICK == 0 {
            ticks.time(|| node.tick());
        }
    }
    node.tick();
    assert_eq!(node.shards.counts().topics, topics);

    let resident_each = (resident_bytes() - before.0) as f64 / CONNECTIONS as f64;
    let live_each = (live_bytes() - before.1) as f64 / CONNECTIONS as f64;
    println!("{name}: {CONNECTIONS} connections, {topics} topics");
    println!(
        "  resident bytes each {resident_each:.1} (at most {BYTES_EACH_MAX}), allocated {live_each:.1}"
    );
    show_largest("while they came");
    pauses.report("accept, handshake, subscribe");
    ticks.report("the end of a tick");

    sweep(&mut node, &limits, &mut pauses);
    leave(&mut node, &ids, before.0);
    println!();
    ExitCode::from(u8::from(resident_each > BYTES_EACH_MAX))
}

fn show_largest(when: &str) {
    println!(
        "  largest piece of memory asked for  {} KiB {when}",
        take_largest_bytes() / 1024
    );
}

fn connect(node: &mut Node<Descriptor>, number: usize) -> ConnectionId {
    ARRIVING.set(Some(upgrade(&format!("/ws/user/{number}"))));
    accept(node, number)
}

fn accept(node: &mut Node<Descriptor>, number: usize) -> ConnectionId {
    let id = node.insert(Descriptor(number as u32));
    node.handle_readable(id, false);
    id
}

/// Sweeps while nothing is due, and then through the time in which everybody is pinged once.
fn sweep(node: &mut Node<Descriptor>, limits: &Limits, pauses: &mut Pauses) {
    let now_ms = node.now_ms;
    (0..1000).for_each(|_| pauses.time(|| node.connections.sweep(now_ms, now_ms)));
    pauses.report("a sweep with nothing due");
    let step_ms = limits.ping_interval_ms / SWEEPS;
    for _ in 0..SWEEPS {
        node.now_ms += step_ms;
        let now_ms = node.now_ms;
        while node.connections.next_deadline_ms() <= now_ms {
            pauses.time(|| node.connections.sweep(now_ms, now_ms));
        }
    }
    pauses.report("a sweep while all are pinged");
}

/// Half of the connections leave, every other one; then the others.
fn leave(node: &mut Node<Descriptor>, ids: &[ConnectionId], resident_before: usize) {
    let mut pauses = Pauses::new(CONNECTIONS / PER_TICK + 1);
    ARRIVING.set(None);
    for (first, who) in [(0, "half"), (1, "all")] {
        let leaving: Vec<ConnectionId> = ids.iter().copied().skip(first).step_by(2).collect();
        for some in leaving.chunks(PER_TICK) {
            pauses.time(|| {
                for &id in some {
                    node.handle_readable(id, true);
                }
                node.tick();
            });
        }
        pauses.report(&format!("a tick in which {PER_TICK} of {who} leave"));
        let resident = resident_bytes().saturating_sub(resident_before) / CONNECTIONS;
        println!("  resident bytes once {who} have left  {resident} for each that there was");
        show_largest("meanwhile");
    }
    assert!(node.connections.is_empty());
}
