//! The hot paths allocate nothing: not for a delivery, compressed or not, not for a message on an own endpoint, not for a
//! ping. A publish allocates its publication, however many subscribers there are.
//!
//! The reactor's connections run in this process over transports that swallow what is written, under an allocator
//! that counts.
#![allow(unsafe_code, reason = "an allocator cannot be written without it")]

#[path = "support/node.rs"]
mod node;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use node::{Node, upgrade};
use umbel::config::{Deflate, Limits};
use umbel::internals::connection::{NEVER_MS, Settings};
use umbel::internals::hub::Effect;
use umbel::internals::protocol::{Opcode, encode_frame};

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

#[test]
fn delivery_without_allocation() {
    let cost = |subscribers: usize| {
        let mut node: Node = Node::new(&Limits::default());
        let ids: Vec<_> = (0..subscribers).map(|_| node.connect("/ws/news")).collect();
        node.tick();
        // The lists that are used again reach their size.
        (0..10).for_each(|_| node.publish("news", b"warm up"));
        let before = node.written(ids[0]);
        let count = allocations(|| {
            (0..100).for_each(|_| node.publish("news", b"a message of some length"));
        });
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

/// Each message costs its frame in each form that somebody takes, made once.
#[test]
fn compressed_delivery_without_allocation() {
    let offers = [
        "permessage-deflate",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_max_window_bits=10",
    ];
    let ticks: Vec<String> = (100..220)
        .map(|turn| format!("turn {turn}, ").repeat(30))
        .collect();
    let cost = |offers: &[&str], subscribers: usize, in_a_tick: usize| {
        let settings = Settings::new(&Limits::default()).with_deflate(Deflate::Text, false);
        let mut node: Node = Node::with_settings(settings);
        let mut ids = Vec::new();
        for number in 0..subscribers {
            let mut request = upgrade("/ws/news");
            request.truncate(request.len() - 2);
            let offer = offers[number % offers.len()];
            request.extend(format!("Sec-WebSocket-Extensions: {offer}\r\n\r\n").into_bytes());
            ids.push(node.accept(request));
        }
        node.tick();
        let mut publish = |ticks: &[String]| {
            for some in ticks.chunks(in_a_tick) {
                some.iter()
                    .for_each(|tick| node.submit("news", tick.as_bytes()));
                node.tick();
            }
        };
        // The compressors are made, the cohort begins, and the lists that are used again reach their size.
        publish(&ticks[..20]);
        let count = allocations(|| publish(&ticks[20..]));
        let deflated = node.metrics.sum(|reactor| &reactor.deflated_deliveries);
        let by_cohort = node.metrics.sum(|reactor| &reactor.cohort_deliveries);
        assert_eq!(deflated + by_cohort, (120 * subscribers) as u64);
        assert!(by_cohort > 0 || !offers.contains(&"permessage-deflate"));
        count
    };
    let only = offers.each_ref().map(std::slice::from_ref);
    for offers in [&offers[..], only[0], only[1], only[2]] {
        for in_a_tick in [1, 5] {
            let (few, many) = (cost(offers, 10, in_a_tick), cost(offers, 1000, in_a_tick));
            assert_eq!(few, many, "{offers:?}, {in_a_tick} in a tick");
            let forms = offers.len() as u64;
            assert!(few <= 100 * (6 + 4 * forms), "{} a publish", few / 100);
        }
    }
}

#[test]
fn handler_message_without_allocation() {
    for len in [0, 20, 1000, 100_000] {
        let mut node: Node = Node::new(&Limits::default());
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
fn publish_allocates_publication_only() {
    let mut node: Node = Node::new(&Limits::default());
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
fn ping_without_allocation() {
    let mut node: Node = Node::new(&Limits::default());
    for _ in 0..1000 {
        node.connect("/ws/news");
    }
    node.tick();
    let mut now_ms = 0;
    let mut due = |node: &mut Node| {
        now_ms = node.connections.next_deadline_ms().max(now_ms);
        assert_ne!(now_ms, NEVER_MS);
        while node.connections.next_deadline_ms() <= now_ms {
            node.connections.sweep(now_ms, now_ms);
        }
    };
    (0..10).for_each(|_| due(&mut node));
    let count = allocations(|| (0..100).for_each(|_| due(&mut node)));
    assert_eq!(count, 0);
}

#[test]
fn effect_size() {
    assert!(size_of::<Effect>() <= 48, "{}", size_of::<Effect>());
}
