//! Canaries beside a misbehaving peer: a subscriber and a publisher that must not notice, and measures of the process
//! before and after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::process::{cpu_ticks, open_descriptors, rss_bytes};
use super::{Server, Wire, frames, wait_within};

/// Memory of a debug build's allocator and threads on top of any limit.
pub const MEMORY_SLACK_BYTES: u64 = 8 << 20;

/// Within this time all descriptors are back.
const DESCRIPTORS_BACK: Duration = Duration::from_secs(5);
/// Within this time the CPU is idle.
const CPU_IDLE: Duration = Duration::from_secs(2);
/// Time that the CPU is watched before it is called idle.
const IDLE_WINDOW: Duration = Duration::from_millis(300);
/// Interval of the publisher.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(5);

/// Runs `action`, which must have let go of its connections when it returns, and checks that
/// - a subscriber beside it got all that a publisher beside it sent, in order,
/// - the same process goes on, and no thread of it panicked,
/// - its memory grew by at most `memory_cap_bytes` and the slack of a debug build,
/// - its descriptors are back at their baseline within 5 s, and its CPU is idle within 2 s.
pub fn beside<T>(server: &Server, memory_cap_bytes: u64, action: impl FnOnce() -> T) -> T {
    let pid = server.pid();
    let descriptors = open_descriptors(pid);
    let canary = Canary::start(server);
    let memory = rss_bytes(pid);
    let outcome = action();
    let ended = Instant::now();
    canary.finish();
    let grown = rss_bytes(pid).saturating_sub(memory);
    assert!(
        grown <= memory_cap_bytes + MEMORY_SLACK_BYTES,
        "the memory grew by {grown} bytes"
    );
    wait_within(
        DESCRIPTORS_BACK.saturating_sub(ended.elapsed()),
        "all descriptors are back",
        || open_descriptors(pid) <= descriptors,
    );
    wait_for_idle_cpu(pid);
    assert!(server.runs(), "the process ended");
    assert!(!server.log().contains("panicked"), "a thread panicked");
    outcome
}

/// Waits until the process uses no more than 1 tick of 10 ms in a window, which ends within 2 s.
pub fn wait_for_idle_cpu(pid: u32) {
    let deadline = Instant::now() + CPU_IDLE;
    loop {
        let before = cpu_ticks(pid);
        thread::sleep(IDLE_WINDOW);
        let used = cpu_ticks(pid) - before;
        if used <= 1 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "the CPU is not idle: {used} ticks in {IDLE_WINDOW:?}"
        );
    }
}

/// A WebSocket subscriber and an HTTP publisher of one topic, each on a thread of its own.
pub struct Canary {
    stop: Arc<AtomicBool>,
    publisher: thread::JoinHandle<u64>,
    subscriber: thread::JoinHandle<u64>,
}

impl Canary {
    /// Starts both, and waits until they are connected.
    pub fn start(server: &Server) -> Canary {
        let mut subscriber = server.connect();
        subscriber.upgrade("/ws/canary");
        let publisher = server.connect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Canary {
            stop,
            publisher: thread::spawn(move || publish_until(publisher, &stopped)),
            subscriber: thread::spawn(move || count_in_order(subscriber)),
        }
    }

    /// Stops publishing, and checks that every publication came.
    pub fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        let published = self.publisher.join().expect("the publisher is served");
        let received = self.subscriber.join().expect("the subscriber is served");
        assert_eq!(received, published, "publications were lost");
        assert!(published > 1, "the canary sang");
    }
}

/// Publishes the numbers from 0 up by HTTP on one connection, each once the one before was answered, and then `end`.
fn publish_until(mut wire: Wire, stop: &AtomicBool) -> u64 {
    let publish = |wire: &mut Wire, text: &str| {
        let length = text.len();
        let request = format!(
            "POST /pub/canary HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{text}"
        );
        wire.send(request.as_bytes());
        let response = wire.read_response();
        assert_eq!(response.status, 200, "the canary's publisher: {response:?}");
    };
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) || count < 2 {
        publish(&mut wire, &count.to_string());
        count += 1;
        thread::sleep(PUBLISH_INTERVAL);
    }
    publish(&mut wire, "end");
    count
}

/// Reads the numbers from 0 up until `end`; answers pings.
fn count_in_order(mut wire: Wire) -> u64 {
    let mut count = 0;
    loop {
        let frame = wire.read_frame();
        if frame.first == frames::FIN | frames::PING {
            wire.send(&frames::masked(frames::FIN | frames::PONG, &frame.payload));
            continue;
        }
        match std::str::from_utf8(&frame.payload) {
            Ok("end") => return count,
            Ok(number) => assert_eq!(number, count.to_string(), "a gap"),
            Err(_) => panic!("not what the canary published: {frame:?}"),
        }
        count += 1;
    }
}
