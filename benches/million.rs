//! A million connections in memory, each subscribed to a topic: what one costs, and how long anything pauses for it.
//!
//! It measures the connection objects, their slab, the tables of topics of a reactor and of the hub, and the sweep of
//! deadlines, over a transport of four bytes, which is what a socket costs in user space. In three shapes: all on one
//! topic, on 10,000 topics, and each on its own. In two more all are on one topic and have identities: all that of one
//! static token, or each a subject of its own, by a JSON web token, with equal rights.
//!
//! What decides is repeatable: resident bytes each, and the largest piece of memory that one step asked for, which it
//! must fill or copy. Times are shown beside them; on a busy machine their maxima are those of the scheduler. What the
//! kernel keeps for a socket is not in it.
//!
//! ```sh
//! cargo bench --bench million [-- SHAPE]
//! ```
//!
//! The exit code is 1 if a connection with its subscription takes more than 320 bytes, a topic of its own included; or, of
//! all shapes, if one takes more than 24 bytes more with the token, or 264 with a subject of its own.
//! `MILLION=20000` makes so many connections instead.
#![allow(unsafe_code, reason = "an allocator cannot be written without it")]

#[path = "../tests/support/node.rs"]
mod node;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{self, IoSlice};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use node::{Node, upgrade};
use sha2::{Digest, Sha256};
use umbel::ConnectionId;
use umbel::config::{Access, Config, Jwt, JwtKeys, Limits, Origins, RequiredClaim, Token};
use umbel::internals::auth::Authority;
use umbel::internals::auth::policy::AccessPolicy;
use umbel::internals::connection::Settings;
use umbel::internals::net::byte_stream::ByteStream;
use umbel::internals::signature::algorithm::Algorithm;

/// What a connection with its subscription may take, with what the tables of the reactor and of the shard hold of a topic
/// of its own.
const BYTES_EACH_MAX: f64 = 320.0;

/// Connections, if no other number is asked for.
const CONNECTIONS: usize = 1_000_000;

/// Token of the shape where all have one.
const TOKEN: &str = "umbel-test-token-0123456789abcdef";

/// Secret of the issuer of the shape where each has another.
const SECRET: &str = "umbel-test-secret-0123456789abcdef";

/// Connections accepted in a tick, and closed in a tick.
const PER_TICK: usize = 256;

/// A ping interval is cut into as many sweeps.
const SWEEPS: u64 = 60;

/// Shape of the connections.
struct Shape {
    name: &'static str,
    /// Topics that they are spread over. 0: one each.
    topics: usize,
    who: Who,
    /// Bytes that each may take more than one of the first shape.
    more_max: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Anybody,
    OneToken,
    SubjectEach,
}

const fn shape(name: &'static str, topics: usize, who: Who, more_max: Option<f64>) -> Shape {
    Shape {
        name,
        topics,
        who,
        more_max,
    }
}

const SHAPES: &[Shape] = &[
    shape("one_topic", 1, Who::Anybody, None),
    shape("10000_topics", 10_000, Who::Anybody, None),
    shape("a_topic_each", 0, Who::Anybody, None),
    shape("one_token", 1, Who::OneToken, Some(24.0)),
    shape("a_subject_each", 1, Who::SubjectEach, Some(264.0)),
];

fn connections() -> usize {
    let count = std::env::var("MILLION");
    count.map_or(CONNECTIONS, |count| count.parse().expect("a number"))
}

/// Authority that knows the callers of a shape.
fn authority(who: Who) -> Authority {
    let mut config = Config::default();
    config.origins = Some(Origins::Any);
    match who {
        Who::Anybody => config.subscribe = Some(Access::Anyone),
        Who::OneToken => {
            let digest: String = Sha256::digest(TOKEN)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let row = format!("feed sha256={digest} subscribe=**");
            config.tokens = vec![Token::parse(&row).expect("a token")];
        }
        Who::SubjectEach => {
            let mut jwt = Jwt::new("app");
            jwt.algorithms = vec![Algorithm::Hs256];
            jwt.keys = Some(JwtKeys::secret(SECRET));
            // The end of an identity is a timer, which is measured nowhere here.
            jwt.require = vec![RequiredClaim::Subject];
            config.jwts = vec![jwt];
        }
    }
    let rights = config.rights().expect("it stands");
    Authority::Policy(AccessPolicy::new(&rights, Arc::default()))
}

/// HMAC of RFC 2104 with SHA-256. The key has at most 64 bytes.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let pad = |mask: u8| -> Vec<u8> {
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        block.iter().map(|byte| byte ^ mask).collect()
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text);
    let outer = Sha256::new().chain_update(pad(0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}

/// The opening request of a connection.
fn request(shape: &Shape, number: usize) -> Vec<u8> {
    let topic = match shape.topics {
        0 => number,
        topics => number % topics,
    };
    let token = match shape.who {
        Who::Anybody => return upgrade(&format!("/ws/user/{topic}")),
        Who::OneToken => TOKEN.to_owned(),
        Who::SubjectEach => {
            let claims =
                format!("{{\"sub\":\"user-{number}\",\"umbel\":{{\"subscribe\":[\"user/*\"]}}}}");
            let parts = [r#"{"alg":"HS256"}"#, &claims];
            let text = parts
                .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part))
                .join(".");
            let mac = hmac(SECRET.as_bytes(), text.as_bytes());
            format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac))
        }
    };
    let mut bytes = upgrade(&format!("/ws/user/{topic}"));
    bytes.truncate(bytes.len() - 2);
    bytes.extend_from_slice(format!("Authorization: Bearer {token}\r\n\r\n").as_bytes());
    bytes
}

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
        let shape = SHAPES.iter().find(|shape| shape.name == name);
        return run(shape.expect("the name of a shape"));
    }
    // Each in a process of its own, so that none finds memory that another one left.
    let program = std::env::current_exe().expect("a path");
    let (mut code, mut first) = (ExitCode::SUCCESS, None);
    for shape in SHAPES {
        let output = Command::new(&program).arg(shape.name).output();
        let output = output.expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        print!("{text}{}", String::from_utf8_lossy(&output.stderr));
        let said = text.lines().find_map(|line| {
            let rest = line.trim().strip_prefix("resident bytes each ")?;
            rest.split(' ').next()?.parse::<f64>().ok()
        });
        let each = said.unwrap_or(f64::MAX);
        let more = each - *first.get_or_insert(each);
        let mut is_bad = !output.status.success();
        if let Some(more_max) = shape.more_max {
            println!("  {more:.1} bytes more than without (at most {more_max})\n");
            is_bad |= more > more_max;
        }
        if is_bad {
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn run(shape: &Shape) -> ExitCode {
    let (name, connections) = (shape.name, connections());
    let topics = match shape.topics {
        0 => connections,
        topics => topics,
    };
    let limits = Limits::default();
    let mut node: Node<Descriptor> = match shape.who {
        Who::Anybody => Node::new(&limits),
        who => Node::with_authority(Settings::new(&limits), authority(who)),
    };
    let mut ids = vec![connect(&mut node, shape); connections];
    node.tick();
    let mut pauses = Pauses::new(connections);
    let mut ticks = Pauses::new(connections / PER_TICK + 1);
    let before = (resident_bytes(), live_bytes());
    take_largest_bytes();

    for (number, id) in ids.iter_mut().enumerate().skip(1) {
        ARRIVING.set(Some(request(shape, number)));
        *id = pauses.time(|| accept(&mut node, number));
        if number % PER_TICK == 0 {
            ticks.time(|| node.tick());
        }
    }
    node.tick();
    assert_eq!(node.shards.counts().topics, topics);

    let resident_each = (resident_bytes() - before.0) as f64 / connections as f64;
    let live_each = (live_bytes() - before.1) as f64 / connections as f64;
    println!("{name}: {connections} connections, {topics} topics");
    println!(
        "  resident bytes each {resident_each:.1} (at most {BYTES_EACH_MAX}), allocated {live_each:.1}"
    );
    show_largest("while they came");
    pauses.report("accept, handshake, subscribe");
    ticks.report("the end of a tick");

    sweep(&mut node, &limits, &mut pauses);
    leave(&mut node, &ids, before.0);
    println!();
    let is_over = shape.who == Who::Anybody && resident_each > BYTES_EACH_MAX;
    ExitCode::from(u8::from(is_over))
}

fn show_largest(when: &str) {
    println!(
        "  largest piece of memory asked for  {} KiB {when}",
        take_largest_bytes() / 1024
    );
}

fn connect(node: &mut Node<Descriptor>, shape: &Shape) -> ConnectionId {
    ARRIVING.set(Some(request(shape, 0)));
    accept(node, 0)
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
    let mut pauses = Pauses::new(ids.len() / PER_TICK + 1);
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
        let resident = resident_bytes().saturating_sub(resident_before) / ids.len();
        println!("  resident bytes once {who} have left  {resident} for each that there was");
        show_largest("meanwhile");
    }
    assert!(node.connections.is_empty());
}
