//! Joins and leaves of one connection on a topic with many readers.

use std::io::{ErrorKind, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::attack::{Flood, Notice, is_long, notice, notice_since, reactors};
use crate::support::peers::connect;
use crate::support::process::{cpu_ticks, rss_bytes};
use crate::support::umbel_v1::{JSON, Peer};
use crate::support::{Server, wait_until};

/// Bytes that the server may grow by.
const GROWTH_BYTES_MAX: u64 = 32 << 20;

/// Members of a topic.
fn members(server: &Server, count: usize, receive_buffer_bytes: usize) -> Vec<Peer> {
    let subscribe = json!({"type": "subscribe", "id": 1, "topic": "room"});
    let peers: Vec<_> = (0..count)
        .map(|_| {
            let stream = connect(server.address(), receive_buffer_bytes);
            let mut peer = Peer::open_on(stream, "/ws", JSON);
            peer.send(&subscribe);
            peer.socket
                .stream()
                .set_nonblocking(true)
                .expect("settable");
            peer
        })
        .collect();
    let mut asker = Peer::open(server.address());
    wait_until("all are members", || {
        let present = asker.ask(&json!({"type": "presence", "id": 1, "topic": "room"}));
        present["total"].as_u64() == Some(count as u64)
    });
    peers
}

/// Reads all that comes to these, until it is told to stop.
fn read_all(peers: &[Peer], stop: &AtomicBool) {
    let mut chunk = vec![0; 64 << 10];
    while !stop.load(Ordering::SeqCst) {
        for peer in peers {
            match peer.socket.stream().read(&mut chunk) {
                Ok(count) => assert!(count > 0, "a reader was cut off"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
        // A client that looks after its socket 20 times a second.
        thread::sleep(Duration::from_millis(50));
    }
}

/// What others notice while one connection sends these in turn, 40 a second; and the part of a core that the server takes.
fn paced(server: &Server, messages: &[Value; 2]) -> (Notice, f64) {
    let mut sender = Peer::open(server.address());
    let stop = AtomicBool::new(false);
    let (begun, before) = (Instant::now(), cpu_ticks(server.pid()));
    let noticed = thread::scope(|scope| {
        scope.spawn(|| {
            for message in messages.iter().cycle() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                sender.send(message);
                // 40 messages a second.
                thread::sleep(Duration::from_millis(25));
            }
        });
        let noticed = notice(server);
        stop.store(true, Ordering::SeqCst);
        noticed
    });
    let ticks = cpu_ticks(server.pid()) - before;
    (
        noticed,
        ticks as f64 / 100.0 / begun.elapsed().as_secs_f64(),
    )
}

fn start() -> Server {
    rlimit::increase_nofile_limit(12_000).expect("descriptors for the peers");
    Server::start(&[
        "--topic-rule",
        "room presence=on",
        "--reactors",
        &reactors(1),
        "--log-level",
        "info",
    ])
}

/// Forty joins and leaves a second cost about what the publications would that the same writes carry, or less.
#[test]
fn readers_of_joins_and_leaves() {
    let count = if is_long() { 5000 } else { 500 };
    let server = start();
    let peers = members(&server, count, 0);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| read_all(&peers, &stop));
        let publish = json!({"type": "publish", "topic": "room", "data": "x".repeat(60)});
        let (bare, bare_cores) = paced(&server, &[publish.clone(), publish]);
        let (noticed, cores) = paced(
            &server,
            &["subscribe", "unsubscribe"].map(|it| json!({"type": it, "topic": "room"})),
        );
        stop.store(true, Ordering::SeqCst);
        eprintln!(
            "hostile: presence, {count} readers: {noticed:?}, {cores:.2} cores; as many publications: {bare:?}, {bare_cores:.2} cores"
        );
        assert!(
            cores <= bare_cores * 2.0 + 0.1,
            "{cores} beside {bare_cores}"
        );
        assert!(noticed.grown_bytes <= GROWTH_BYTES_MAX, "{noticed:?}");
    });
}

/// Members that do not read, and joins and leaves as fast as one connection can send them.
#[test]
fn readers_that_have_stopped() {
    let count = if is_long() { 3000 } else { 300 };
    let server = start();
    let _peers = members(&server, count, 4096);
    let base_bytes = rss_bytes(server.pid());
    let pair = ["subscribe", "unsubscribe"].map(|it| json!({"type": it, "topic": "room"}));
    let commands: Vec<_> = pair.iter().cycle().take(400).cloned().collect();
    let flood = Flood::start(server.address(), &Value::Array(commands).to_string(), true);
    let noticed = notice_since(&server, base_bytes);
    flood.stop();
    eprintln!("hostile: presence, {count} readers that have stopped: {noticed:?}");
    assert!(noticed.grown_bytes <= GROWTH_BYTES_MAX, "{noticed:?}");
}
