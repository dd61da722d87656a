//! Rates of connections, messages, bytes and publishes; connections of a subject, and their age.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::peers::{Http, Incoming, WebSocket, connect};
use crate::support::umbel_v1::Peer;
use crate::support::{PATIENCE, Server, wait_until};

fn refused(server: &Server, limit: &str) -> f64 {
    server.metric(&format!("umbel_refused_total{{limit=\"{limit}\"}}"))
}

#[test]
fn messages_over_the_rate_come_later() {
    const COUNT: usize = 40;
    let server = Server::start(&[
        "--messages-per-connection-per-second",
        "50",
        "--messages-per-connection-burst",
        "10",
        "--reactors",
        "1",
    ]);
    let mut quick = WebSocket::open(server.address(), "/ws/quick");
    let mut socket = WebSocket::open(server.address(), "/ws/a");
    let started = Instant::now();
    for number in 0..COUNT {
        socket.send_text(&number.to_string());
    }
    quick.send_text("not held up");
    assert_eq!(quick.text(), "not held up");
    assert!(
        started.elapsed() < Duration::from_millis(400),
        "beside one that is"
    );
    for number in 0..COUNT {
        assert_eq!(socket.text(), number.to_string());
    }
    let took = started.elapsed();
    // 30 of them at 50 a second.
    assert!((550..2000).contains(&took.as_millis()), "{took:?}");
    assert!(refused(&server, "messages_per_connection_per_second") > 0.0);
    let limit = server.metric("umbel_limit{name=\"messages_per_connection_per_second\"}");
    assert_eq!(limit, 50.0);
}

#[test]
fn end_of_whoever_sends_too_fast_for_too_long() {
    let server = Server::start(&[
        "--messages-per-connection-per-second",
        "20",
        "--messages-per-connection-burst",
        "1",
        "--rate-patience-ms",
        "300",
    ]);
    let mut socket = WebSocket::open(server.address(), "/ws/a");
    for _ in 0..200 {
        socket.send_text("x");
    }
    let (texts, end) = socket.texts();
    assert_eq!(end, Incoming::Close(1008, "rate".to_owned()));
    assert!((3..40).contains(&texts.len()), "{}", texts.len());
    drop(socket);
    wait_until("it is counted", || {
        server.metric("umbel_closed_total{reason=\"rate\"}") == 1.0
    });
}

#[test]
fn bytes_over_the_rate_come_later() {
    let server = Server::start(&["--bytes-per-connection-per-second", "100kB"]);
    let mut socket = WebSocket::open(server.address(), "/ws/a");
    let (started, text) = (Instant::now(), "x".repeat(160_000));
    socket.send_text(&text);
    socket.send_text(&text);
    assert_eq!(socket.text(), text);
    assert_eq!(socket.text(), text);
    let took = started.elapsed();
    // What is over the burst and the last read, at 100,000 a second.
    assert!((700..6000).contains(&took.as_millis()), "{took:?}");
    assert!(refused(&server, "bytes_per_connection_per_second") > 0.0);
}

#[test]
fn request_that_comes_too_fast_for_too_long() {
    let server = Server::start(&[
        "--bytes-per-connection-per-second",
        "20kB",
        "--rate-patience-ms",
        "200",
    ]);
    let mut http = Http::connect(server.address());
    http.send(b"POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n");
    http.send(&vec![b'x'; 200_000]);
    let answer = http.answer().expect("an answer");
    assert_eq!(answer.status, 429, "{}", answer.head);
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn publishes_of_one_identity() {
    let server = Server::start(&["--publishes-per-identity-per-second", "4"]);
    let address = server.address();
    let mut peer = Peer::open(address);
    let commands = (1..=6).map(|id| json!({"type":"publish","id":id,"topic":"a","data":"x"}));
    peer.send(&Value::Array(commands.collect()));
    let (mut published, mut refusals) = (0, 0);
    while published + refusals < 6 {
        let answer = peer.next();
        match answer["type"].as_str() {
            Some("published") => published += 1,
            Some("error") => {
                assert_eq!(answer["code"], "rate_limited");
                let retry_ms = answer["retry_ms"].as_u64().expect("a time");
                assert!((1..=500).contains(&retry_ms), "{answer}");
                refusals += 1;
            }
            _ => panic!("{answer}"),
        }
    }
    assert_eq!((published, refusals), (4, 2));
    // By HTTP it is the same identity: an address, for nobody has shown a credential.
    let answer = Http::connect(address)
        .try_publish("a", b"x")
        .expect("an answer");
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(refused(&server, "publishes_per_identity_per_second") >= 3.0);
    // One of one topic has no answer to read, and is read from more slowly.
    let mut socket = WebSocket::open(address, "/ws/b");
    let started = Instant::now();
    for _ in 0..6 {
        socket.send_text("x");
    }
    (0..6).for_each(|_| assert_eq!(socket.text(), "x"));
    assert!(
        started.elapsed() > Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn old_connections_come_back() {
    let server = Server::start(&["--connection-age-max-ms", "500"]);
    let started = Instant::now();
    let mut socket = WebSocket::open(server.address(), "/ws/a");
    let mut stream = connect(server.address(), 0);
    stream
        .write_all(b"GET /sse/a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("sent");
    match socket.next() {
        Incoming::Close(1012, words) => assert!(words.ends_with("retry=1"), "{words}"),
        other => panic!("{other:?}"),
    }
    assert!((350..2000).contains(&started.elapsed().as_millis()));
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it ends");
    assert!(text.contains("retry:"), "{text}");
    wait_until("both are counted", || {
        refused(&server, "connection_age_max_ms") == 2.0
    });
}

/// Address and surface of each listener, as the log tells them.
pub(super) fn address_of(server: &Server, surface: &str) -> SocketAddr {
    let log = server.log();
    let told = log.lines().find_map(|line| {
        let (_, rest) = line.split_once(": http://")?;
        let (address, of) = rest.split_once(", surface ")?;
        (of.split(' ').next() == Some(surface)).then(|| address.parse().expect("an address"))
    });
    told.expect("it is told")
}

#[test]
fn accepting_pauses_beside_a_listener_of_operators() {
    let server = Server::start(&[
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "127.0.0.1:0#admin",
        "--handshakes-per-second",
        "5",
        "--publish",
        "anyone",
        "--subscribe",
        "anyone",
        "--observe",
        "anyone",
        "--origin",
        "any",
    ]);
    let (public, admin) = (address_of(&server, "public"), address_of(&server, "admin"));
    let started = Instant::now();
    let mut peers: Vec<_> = (0..10).map(|_| Http::connect(public)).collect();
    for peer in &mut peers {
        peer.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    for _ in 0..10 {
        assert_eq!(Http::connect(admin).get("/health").status, 200);
    }
    assert!(
        started.elapsed() < Duration::from_millis(700),
        "operators do not wait"
    );
    for peer in &mut peers {
        assert_eq!(peer.answer().expect("an answer").status, 200);
    }
    let took = started.elapsed();
    // 5 of them at 5 a second.
    assert!(
        took > Duration::from_millis(800) && took < PATIENCE,
        "{took:?}"
    );
    let text = Http::connect(admin).get("/metrics").body;
    let text = String::from_utf8(text).expect("UTF-8");
    assert!(text.contains("umbel_refused_total{limit=\"handshakes_per_second\"} "));
    assert!(!text.contains("umbel_refused_total{limit=\"handshakes_per_second\"} 0\n"));
}

#[test]
fn rate_of_all_connections_without_operators() {
    let server = Server::start(&["--handshakes-per-second", "5"]);
    let mut refusals = 0;
    for _ in 0..12 {
        let answer = Http::connect(server.address()).get("/topics");
        match answer.status {
            200 => {}
            503 => {
                let seconds = answer.header("retry-after").and_then(|it| it.parse().ok());
                assert!((1..=10).contains(&seconds.unwrap_or(0)), "{}", answer.head);
                refusals += 1;
            }
            status => panic!("{status}"),
        }
    }
    assert!((5..=7).contains(&refusals), "{refusals}");
    assert_eq!(Http::connect(server.address()).get("/health").status, 200);
}
