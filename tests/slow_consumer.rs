//! Readers that are slow or have stopped: each is cut at its cap and told so, costs no more than the cap in the server
//! and the kernel, and nobody else notices.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::peers::{Http, Incoming, WebSocket, connect};
use support::process::{open_descriptors, rss_bytes};
use support::{PATIENCE, Server, frames, wait_until};

/// The receive buffer of a reader that is to back up soon. The kernel doubles it.
const SMALL_RECEIVE_BUFFER: usize = 4096;

/// Bytes that a stopped reader may hold in the kernel, on the server's side with the default limits. Measured: 46 to 57
/// KiB, for loopback gathers up to 64 KiB in one buffer, whatever SO_SNDBUF says.
const KERNEL_BYTES_MAX: u64 = 128 * 1024;

fn numbered(number: usize, bytes: usize) -> String {
    let mut text = format!("{number} ");
    text.extend(std::iter::repeat_n('x', bytes - text.len()));
    text
}

fn number_of(text: &str) -> usize {
    let number = text.split(' ').next().expect("a number");
    number.parse().expect("a number")
}

/// A subscriber that reads, and must get this many numbered texts without a gap.
struct HealthyReader {
    thread: JoinHandle<()>,
    count: Arc<AtomicUsize>,
}

impl HealthyReader {
    fn start(server: &Server, target: &str, count_max: usize) -> HealthyReader {
        let mut socket = WebSocket::open(server.address(), target);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let thread = thread::spawn(move || {
            for expected in 0..count_max {
                assert_eq!(number_of(&socket.text()), expected);
                counted.store(expected + 1, Ordering::SeqCst);
            }
        });
        HealthyReader { thread, count }
    }

    /// Waits until it has so many. A publisher that runs ahead of it would make it a slow reader too.
    fn wait_for(&self, count: usize) {
        wait_until("the reader catches up", || {
            self.thread.is_finished() || self.count.load(Ordering::SeqCst) >= count
        });
    }

    fn join(self) {
        self.thread.join().expect("nothing is lost");
    }
}

/// Publishes numbered texts, none before all readers have had the one before.
fn publish_numbered(http: &mut Http, topic: &str, count: usize, readers: &[HealthyReader]) {
    for number in 0..count {
        http.publish(topic, numbered(number, 16_000).as_bytes());
        readers
            .iter()
            .for_each(|reader| reader.wait_for(number + 1));
    }
}

#[test]
fn stopped_reader_closed_at_cap() {
    const COUNT: usize = 60;
    let server = Server::start(&[
        "--outbox-bytes-max",
        "262144",
        "--publication-bytes-max",
        "65536",
        "--close-timeout-ms",
        "10000",
    ]);
    let address = server.address();
    let mut stopped = WebSocket::open_on(connect(address, SMALL_RECEIVE_BUFFER), "/ws/hot");
    let readers: Vec<_> = (0..3)
        .map(|_| HealthyReader::start(&server, "/ws/hot", COUNT))
        .collect();
    let mut http = Http::connect(address);
    publish_numbered(&mut http, "hot", COUNT, &readers);
    readers.into_iter().for_each(HealthyReader::join);
    let (texts, end) = stopped.texts();
    let numbers: Vec<_> = texts.iter().map(|text| number_of(text)).collect();
    assert_eq!(numbers, (0..texts.len()).collect::<Vec<_>>(), "no gap");
    assert!(texts.len() < COUNT, "it was cut");
    let Incoming::Close(1013, reason) = end else {
        panic!("{end:?}");
    };
    assert!(reason.contains("slow consumer"), "{reason}");
    stopped.answer_close(1013);
    wait_until("it is counted", || {
        server.metric("umbel_closed_total{reason=\"slow_consumer_bytes\"}") == 1.0
    });
    let metrics = server.metrics();
    assert_eq!(metrics["umbel_slow_consumers_total"], 1.0);
    assert_eq!(metrics["umbel_outbox_bytes"], 0.0);
}

/// Bytes that the kernel holds for the server's end of a connection: queued for sending, and set aside for that.
fn kernel_bytes(server: &Server, peer: &WebSocket) -> u64 {
    let peer = peer.stream().local_addr().expect("connected").port();
    let filter = format!("sport = :{} and dport = :{peer}", server.address().port());
    let output = Command::new("ss").args(["-tmnH", &filter]).output();
    let output = String::from_utf8(output.expect("ss of iproute2").stdout).expect("UTF-8");
    let (_, fields) = output.split_once("skmem:(").expect("one socket");
    let field = |letter: char| -> u64 {
        let mut found = fields
            .split([',', ')'])
            .map(|field| field.trim_start_matches(letter));
        found
            .find_map(|number| number.parse().ok())
            .expect("a number")
    };
    field('w') + field('f')
}

#[test]
fn stopped_reader_kernel_memory() {
    let server = Server::start(&[]);
    let stopped = WebSocket::open(server.address(), "/ws/kernel");
    let mut http = Http::connect(server.address());
    for number in 0..100 {
        http.publish("kernel", numbered(number, 16 * 1024).as_bytes());
    }
    wait_until("the reader has backed up", || {
        server.metric("umbel_outbox_bytes") > 1_000_000.0
    });
    let bytes = kernel_bytes(&server, &stopped);
    eprintln!("a stopped reader holds {bytes} bytes in the kernel");
    assert!((4096..=KERNEL_BYTES_MAX).contains(&bytes), "{bytes}");
}

#[test]
fn trickling_reader_cut_by_age() {
    const COUNT: usize = 12;
    let server = Server::start(&["--outbox-age-max-ms", "1000", "--close-timeout-ms", "500"]);
    let slow = WebSocket::open_on(connect(server.address(), SMALL_RECEIVE_BUFFER), "/ws/age");
    let reader = HealthyReader::start(&server, "/ws/age", COUNT);
    let mut http = Http::connect(server.address());
    for number in 0..COUNT {
        http.publish("age", numbered(number, 16 * 1024).as_bytes());
    }
    let started = Instant::now();
    let mut bytes_read = 0;
    wait_until("it is cut", || {
        bytes_read += slow.stream().read(&mut [0]).expect("bytes wait");
        server.metric("umbel_closed_total{reason=\"slow_consumer_age\"}") == 1.0
    });
    assert!(started.elapsed() > Duration::from_millis(900));
    assert!(bytes_read > 1, "it did read");
    assert_eq!(server.metric("umbel_slow_consumers_total"), 1.0);
    reader.join();
}

/// Its end is up to the reader, and may be long in coming.
#[test]
fn counted_when_told() {
    let flags = [
        "--close-timeout-ms",
        "60000",
        "--outbox-bytes-max",
        "262144",
    ];
    let limits = ["--publication-bytes-max", "65536"];
    for age in [&["--outbox-age-max-ms", "500"][..], &[]] {
        let server = Server::start(&[&flags[..], &limits, age].concat());
        let stopped = [(); 3].map(|()| {
            WebSocket::open_on(connect(server.address(), SMALL_RECEIVE_BUFFER), "/ws/hot")
        });
        let mut http = Http::connect(server.address());
        let count = if age.is_empty() { 60 } else { 12 };
        for number in 0..count {
            http.publish("hot", numbered(number, 16_000).as_bytes());
        }
        wait_until("they are counted", || {
            server.metric("umbel_slow_consumers_total") == 3.0
        });
        let closed = |server: &Server| {
            ["slow_consumer_age", "slow_consumer_bytes"]
                .map(|reason| server.metric(&format!("umbel_closed_total{{reason=\"{reason}\"}}")))
                .iter()
                .sum::<f64>()
        };
        assert_eq!(closed(&server), 0.0, "they are still there");
        drop(stopped);
        wait_until("they are gone", || closed(&server) == 3.0);
        assert_eq!(
            server.metric("umbel_slow_consumers_total"),
            3.0,
            "once each"
        );
    }
}

#[test]
fn close_reason_after_cut_by_age() {
    let server = Server::start(&["--outbox-age-max-ms", "500", "--close-timeout-ms", "10000"]);
    let mut slow = WebSocket::open_on(connect(server.address(), SMALL_RECEIVE_BUFFER), "/ws/age");
    let mut http = Http::connect(server.address());
    for number in 0..12 {
        http.publish("age", numbered(number, 16 * 1024).as_bytes());
    }
    assert!(
        server.metric("umbel_outbox_bytes") > 50_000.0,
        "it backed up"
    );
    wait_until("what was not begun is dropped", || {
        server.metric("umbel_outbox_bytes") < 50_000.0
    });
    let (texts, end) = slow.texts();
    assert!(!texts.is_empty());
    assert!(
        matches!(&end, Incoming::Close(1013, reason) if reason.contains("slow consumer")),
        "{end:?}"
    );
}

/// Sends pings and never reads, until the server cuts the connection.
fn check_ping_flood(target: &str) {
    const OUTBOX_BYTES_MAX: f64 = 512.0 * 1024.0;
    let server = Server::start(&["--outbox-age-max-ms", "1000", "--close-timeout-ms", "300"]);
    let memory = rss_bytes(server.pid());
    let socket = WebSocket::open_on(connect(server.address(), SMALL_RECEIVE_BUFFER), target);
    let mut stream = socket.stream().try_clone().expect("a clone");
    let flood = frames::masked(frames::FIN | frames::PING, &[b'p'; 125]).repeat(500);
    let flooder = thread::spawn(move || {
        let started = Instant::now();
        let mut bytes = 0;
        while let Ok(count) = stream.write(&flood) {
            bytes += count;
            assert!(started.elapsed() < PATIENCE, "it is not cut");
        }
        bytes
    });
    let mut outbox_bytes_max: f64 = 0.0;
    wait_until("it is cut", || {
        let metrics = server.metrics();
        outbox_bytes_max = outbox_bytes_max.max(metrics["umbel_outbox_bytes"]);
        metrics["umbel_closed_total{reason=\"slow_consumer_age\"}"] == 1.0
    });
    let bytes = flooder.join().expect("it was cut");
    assert!(bytes > 100_000, "a flood: {bytes}");
    assert!(outbox_bytes_max <= OUTBOX_BYTES_MAX, "{outbox_bytes_max}");
    let grown = rss_bytes(server.pid()).saturating_sub(memory);
    assert!(grown < 16 << 20, "the memory grew by {grown} bytes");
}

#[test]
fn ping_flood_of_stopped_subscriber() {
    check_ping_flood("/ws/pings");
}

#[test]
fn ping_flood_of_stopped_handler_peer() {
    check_ping_flood("/echo");
}

/// The most memory that the process ever had resident.
fn rss_bytes_peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.expect("a peak").trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().expect("a number") * 1024
}

#[test]
fn two_hundred_stopped_readers() {
    const STOPPED: usize = 200;
    const COUNT: usize = 40;
    const OUTBOX_BYTES_MAX: usize = 65_536;
    let server = Server::start(&[
        "--outbox-bytes-max",
        "65536",
        "--publication-bytes-max",
        "16384",
        "--close-timeout-ms",
        "500",
        "--log-level",
        "info",
    ]);
    let address = server.address();
    let (memory, descriptors) = (rss_bytes(server.pid()), open_descriptors(server.pid()));
    let stopped: Vec<_> = (0..STOPPED)
        .map(|_| WebSocket::open_on(connect(address, SMALL_RECEIVE_BUFFER), "/ws/hot"))
        .collect();
    let readers: Vec<_> = (0..2)
        .map(|_| HealthyReader::start(&server, "/ws/hot", COUNT))
        .collect();
    let mut http = Http::connect(address);
    publish_numbered(&mut http, "hot", COUNT, &readers);
    let memory_max = rss_bytes_peak(server.pid());
    readers.into_iter().for_each(HealthyReader::join);
    wait_until("all are cut", || {
        server.metric("umbel_closed_total{reason=\"slow_consumer_bytes\"}") == STOPPED as f64
    });
    assert_eq!(server.metric("umbel_outbox_bytes"), 0.0);
    let grown = memory_max.saturating_sub(memory);
    let cap = (STOPPED * OUTBOX_BYTES_MAX) as u64;
    assert!(grown < cap, "{STOPPED} stopped readers took {grown} bytes");
    drop((stopped, http));
    wait_until("the descriptors are back", || {
        open_descriptors(server.pid()) <= descriptors
    });
}
