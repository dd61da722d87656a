//! More connections than there may be, or than there are descriptors for; and topics without number.

#[path = "admission/addresses.rs"]
mod addresses;
#[path = "admission/memory.rs"]
mod memory;
#[path = "admission/rates.rs"]
mod rates;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use support::canary::wait_for_idle_cpu;
use support::peers::{Http, Incoming, WebSocket, connect, reset};
use support::process::{open_descriptors, rss_bytes};
use support::{Server, wait_until};

const CONNECTIONS_MAX: usize = 10;

#[test]
fn connections_over_cap_get_503() {
    let server = Server::start(&["--connections-max", "10"]);
    let address = server.address();
    let mut sockets: Vec<_> = (0..CONNECTIONS_MAX)
        .map(|_| WebSocket::open(address, "/ws/a"))
        .collect();
    // Whether it has asked for something yet or not.
    for request in ["", "GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut http = Http::connect(address);
        http.send(request.as_bytes());
        let answer = http.answer().expect("an answer");
        assert_eq!(answer.status, 503);
        let retry_after = answer.header("retry-after").expect("a hint");
        assert!(retry_after.parse::<u32>().is_ok(), "{retry_after}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(answer.body.starts_with(b"as many connections"));
        assert!(http.is_at_end());
    }
    let health = Http::connect(address).get("/health");
    assert_eq!(
        (health.status, health.header("connection")),
        (200, Some("close"))
    );
    sockets[0].send_text("still here");
    for socket in &mut sockets {
        assert_eq!(socket.text(), "still here");
    }
    sockets.truncate(CONNECTIONS_MAX - 2);
    wait_until("there is room again", || {
        WebSocket::try_open_on(connect(address, 0), "/ws/a").0 == 101
    });
    wait_until("the refused are counted", || {
        let answer = Http::connect(address).get("/metrics");
        let text = String::from_utf8(answer.body).expect("UTF-8");
        answer.status == 200 && text.contains("umbel_refused_total{reason=\"unavailable\"} ")
    });
}

/// Those that are told that they are too many, and stay, take no place of operators.
#[test]
fn operators_come_in_beside_a_rush_over_cap() {
    let server = Server::start(&[
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "127.0.0.1:0#admin",
        "--connections-max",
        "10",
        "--close-timeout-ms",
        "60000",
        "--publish",
        "anyone",
        "--subscribe",
        "anyone",
        "--observe",
        "anyone",
        "--origin",
        "any",
    ]);
    let address = |surface| rates::address_of(&server, surface);
    let (public, admin) = (address("public"), address("admin"));
    let _full: Vec<_> = (0..CONNECTIONS_MAX)
        .map(|_| WebSocket::open(public, "/ws/a"))
        .collect();
    let mut rush: Vec<_> = (0..200).map(|_| connect(public, 0)).collect();
    let is_told = |stream: &mut TcpStream| {
        let mut begin = [0; 12];
        let request = b"GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let answer = stream
            .write_all(request)
            .and_then(|()| stream.read_exact(&mut begin));
        answer.is_ok() && begin.ends_with(b"503")
    };
    let told = rush.iter_mut().map(is_told).filter(|it| *it).count();
    assert!(told > 100, "{told} were told, and are still there");
    let mut operators: Vec<_> = (0..12).map(|_| Http::connect(admin)).collect();
    for operator in &mut operators {
        assert_eq!(operator.get("/metrics").status, 200);
    }
}

#[test]
fn rush_over_cap_leaves_others_alone() {
    const RUSH: usize = 400;
    let server = Server::start(&["--connections-max", "10", "--log-level", "info"]);
    let address = server.address();
    let descriptors = open_descriptors(server.pid());
    let mut inside: Vec<_> = (0..CONNECTIONS_MAX)
        .map(|_| WebSocket::open(address, "/ws/a"))
        .collect();
    let rush: Vec<_> = (0..RUSH).map(|_| connect(address, 0)).collect();
    inside[0].send_text("unharmed");
    for socket in &mut inside {
        assert_eq!(socket.text(), "unharmed");
    }
    for stream in rush {
        // Told so, or closed without a word: never left waiting.
        if let Some(answer) = Http::new(stream).answer() {
            assert_eq!(answer.status, 503);
        }
    }
    drop(inside);
    wait_until("the descriptors are back", || {
        open_descriptors(server.pid()) <= descriptors
    });
    assert_eq!(Http::connect(address).get("/ready").status, 200);
}

#[test]
fn body_over_memory_budget() {
    let server = Server::start(&["--reactors", "1", "--inbound-bytes-total-max", "1048576"]);
    let address = server.address();
    let mut subscriber = WebSocket::open(address, "/ws/a");
    let mut http = Http::connect(address);
    http.send(b"POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n");
    http.send(&vec![b' '; 3_000_000]);
    let answer = http.answer().expect("an answer");
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with(b"the server's memory budget"));
    assert!(http.is_at_end());
    drop(http);
    Http::connect(address).publish("a", b"unharmed");
    assert_eq!(subscriber.text(), "unharmed");
    wait_until("it is counted", || {
        let metrics = server.metrics();
        metrics["umbel_closed_total{reason=\"over_budget\"}"] == 1.0
            && metrics["umbel_inbound_bytes"] < 1000.0
    });
}

/// Connects 200 times to a server that has run out of descriptors, and checks that it waits calmly for better times.
/// `metrics`: a connection that it has.
fn check_without_descriptors(server: &Server, metrics: &mut Http) {
    const CONNECTS: usize = 200;
    let address = server.address();
    let mut accept_errors = || -> f64 {
        let text = String::from_utf8(metrics.get("/metrics").body).expect("UTF-8");
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("umbel_accept_errors_total "));
        line.expect("a counter").parse().expect("a number")
    };
    let peers: Vec<TcpStream> = (0..CONNECTS).map(|_| connect(address, 0)).collect();
    wait_until("accepting fails", || accept_errors() > 0.0);
    let (errors, since) = (accept_errors(), Instant::now());
    wait_until("it tries again", || accept_errors() >= errors + 4.0);
    wait_for_idle_cpu(server.pid());
    let errors_per_s = (accept_errors() - errors) / since.elapsed().as_secs_f64();
    assert!(
        errors_per_s < 100.0,
        "{errors_per_s} failed accepts a second"
    );
    let lines = server.whole_log().matches("accepting pauses").count();
    assert!((1..=2).contains(&lines), "{lines} lines for 2 reactors");
    peers.iter().for_each(reset);
    let freed = Instant::now();
    drop(peers);
    wait_until("there is room again", || {
        Http::connect(address)
            .try_publish("a", b"x")
            .is_some_and(|answer| answer.status == 200)
    });
    let took = freed.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?} to recover");
}

#[test]
fn accept_pause_without_descriptors() {
    let server = Server::start(&["--log-level", "info"]);
    let mut metrics = Http::connect(server.address());
    assert_eq!(metrics.get("/ready").status, 200);
    let mut subscriber = WebSocket::open(server.address(), "/ws/a");
    let pid = server.pid().to_string();
    let lowered = Command::new("prlimit")
        .args(["--pid", &pid, "--nofile=64:64"])
        .status();
    assert!(lowered.expect("prlimit of util-linux").success());
    check_without_descriptors(&server, &mut metrics);
    assert_eq!(subscriber.next(), Incoming::Text("x".to_owned()));
}

/// A server that is started with so few keeps most of them for itself, and says so.
#[test]
fn start_with_few_descriptors() {
    let server = Server::start_with_descriptors(64, &["--log-level", "info"]);
    assert!(server.log().contains("at most 1 connections"));
    let mut metrics = Http::connect(server.address());
    assert_eq!(metrics.get("/ready").status, 200);
    let peers: Vec<_> = (0..200).map(|_| connect(server.address(), 0)).collect();
    wait_for_idle_cpu(server.pid());
    assert_eq!(metrics.get("/ready").status, 200);
    peers.iter().for_each(reset);
    drop((peers, metrics));
    wait_until("there is room again", || {
        let mut http = Http::connect(server.address());
        http.try_publish("a", b"x")
            .is_some_and(|answer| answer.status == 200)
    });
}

#[test]
fn topics_released() {
    const BATCHES: usize = 10;
    const TOPICS: usize = 2000;
    const MEMORY_SLACK_BYTES: u64 = 4 << 20;
    rlimit::increase_nofile_limit(u64::MAX).expect("a limit");
    let server = Server::start(&["--log-level", "info"]);
    let address = server.address();
    let mut after_first = 0;
    for batch in 0..BATCHES {
        let sockets: Vec<_> = (0..TOPICS)
            .map(|number| WebSocket::open(address, &format!("/ws/topic-{batch}-{number}")))
            .collect();
        wait_until("all are counted", || {
            server.metric("umbel_topics") == TOPICS as f64
        });
        for socket in &sockets {
            reset(socket.stream());
        }
        drop(sockets);
        wait_until("no topic is left", || server.metric("umbel_topics") == 0.0);
        if batch == 0 {
            after_first = rss_bytes(server.pid());
        }
    }
    let grown = rss_bytes(server.pid()).saturating_sub(after_first);
    eprintln!("{after_first} bytes after one batch, {grown} more after {BATCHES}");
    assert!(
        grown < MEMORY_SLACK_BYTES,
        "{grown} bytes after {BATCHES} times as many topics"
    );
    // A topic that was there before is as good as new.
    let mut subscriber = WebSocket::open(address, "/ws/topic-0-0");
    assert_eq!(Http::connect(address).publish("topic-0-0", b"again"), 1);
    assert_eq!(subscriber.text(), "again");
}
