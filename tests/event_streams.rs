//! Event streams where something is in the way: refused for a while, ended by a shutdown, line ends of a text.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::catch_up::{Block, next_block};
use support::peers::{Http, WebSocket};
use support::wire::{End, upgrade_request};
use support::{Response, Server, Wire, wait_until};

/// What a browser sends with the request of an `EventSource`, of another origin and of the page's own.
const PAGES: [&str; 2] = [
    "Origin: http://localhost:3000\r\n",
    "Sec-Fetch-Mode: cors\r\n",
];

fn get(server: &Server, target: &str, lines: &str) -> (Response, Wire) {
    let mut wire = server.connect();
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").as_bytes());
    let response = wire.read_response();
    (response, wire)
}

/// Checks that what follows the head is one refusal that `EventSource` survives; gives the wait.
fn retry(wire: &mut Wire, reason: &str) -> u64 {
    let (bytes, end) = wire.read_to_end();
    assert_eq!(end, End::Eof);
    let text = String::from_utf8(bytes).expect("a stream is text");
    let (retry, event) = text.split_once("\n\n").expect("two blocks");
    let (kind, data) = event.split_once('\n').expect("two lines");
    assert_eq!(kind, "event: unavailable", "{text}");
    let data = data.strip_prefix("data: ").expect("data").trim_end();
    let data: Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(data["status"], 503, "{text}");
    assert!(
        data["reason"]
            .as_str()
            .is_some_and(|told| told.starts_with(reason)),
        "{text}"
    );
    let retry = retry.strip_prefix("retry: ").expect("a wait");
    retry.parse().expect("a number")
}

fn unavailable(server: &Server) -> f64 {
    let name = "umbel_refused_total{reason=\"unavailable\"}";
    server.metrics().get(name).copied().unwrap_or_default()
}

#[test]
fn page_refused_for_now_comes_back() {
    let server = Server::start(&["--topics-max", "1", "--reactors", "1"]);
    let (_, _stream) = get(&server, "/sse/a", "");
    let before = unavailable(&server);
    let mut waits = Vec::new();
    for lines in PAGES.repeat(4) {
        let (response, mut wire) = get(&server, "/sse/b?x=1", lines);
        assert_eq!(response.status, 200, "{lines}");
        assert_eq!(response.header("content-type"), Some("text/event-stream"));
        assert_eq!(response.header("umbel-topic"), Some("b?x=1"));
        let readable = response.header("access-control-allow-origin");
        assert_eq!(readable.is_some(), lines.starts_with("Origin"));
        waits.push(retry(&mut wire, "as many topics"));
    }
    assert!(
        waits.iter().all(|wait| (5000..15000).contains(wait)),
        "{waits:?}"
    );
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 4, "they do not come back together: {waits:?}");
    // Everybody else gets the status, which health checks and proxies need.
    for (target, lines) in [
        ("/sse/b", ""),
        ("/sse/b", "Accept: text/event-stream\r\n"),
        ("/sse/b", "Sec-Fetch-Site: none\r\n"),
    ] {
        let (response, _) = get(&server, target, lines);
        assert_eq!(response.status, 503, "{lines}");
        assert!(response.header("retry-after").is_some());
    }
    let handshake = server.request(&upgrade_request("/ws/b", PAGES[0]));
    assert_eq!(handshake.status, 503);
    wait_until("all are counted as refused", || {
        unavailable(&server) - before == 12.0
    });
}

/// What no wait heals is a status, which ends an `EventSource` for good.
#[test]
fn final_refusal_stays_a_status() {
    let server = Server::start(&["--subscribe-token", "0123456789abcdef"]);
    for lines in PAGES {
        for (target, status) in [("/sse/a", 401), ("/sse/", 404), ("/sse/a//b", 400)] {
            assert_eq!(get(&server, target, lines).0.status, status, "{target}");
        }
    }
    let (response, _) = get(&server, "/sse/a", "Origin: http://example.com\r\n");
    assert_eq!(response.status, 403);
}

#[test]
fn connection_over_cap_refused_by_what_it_asks() {
    let server = Server::start(&["--connections-max", "2"]);
    let address = server.address();
    let sockets: Vec<_> = (0..2).map(|_| WebSocket::open(address, "/ws/a")).collect();
    for lines in PAGES {
        let (response, mut wire) = get(&server, "/sse/a", lines);
        assert_eq!(response.status, 200, "{lines}");
        let wait = retry(&mut wire, "as many connections");
        assert!((5000..15000).contains(&wait), "{wait}");
    }
    let foreign = "Origin: http://example.com\r\n";
    for (target, lines) in [
        ("/sse/a", ""),
        ("/sse/a", foreign),
        ("/topics", PAGES[0]),
        ("/ws/a", ""),
    ] {
        let (response, mut wire) = get(&server, target, lines);
        assert_eq!(response.status, 503, "{target} {lines}");
        assert_eq!(response.header("connection"), Some("close"));
        assert_eq!(wire.read_to_end().1, End::Eof);
    }
    // A script that speaks umbel.v1 reads it in a Close.
    let mut wire = server.connect();
    let lines = format!("{}Sec-WebSocket-Protocol: umbel.v1\r\n", PAGES[0]);
    wire.send(upgrade_request("/ws", &lines).as_bytes());
    assert_eq!(wire.read_response().status, 101);
    assert_eq!(wire.read_frame().close_code(), Some(1013));
    drop(sockets);
    wait_until("there is room again", || {
        get(&server, "/topics", "").0.status == 200
    });
}

#[test]
fn page_refused_during_drain_comes_back() {
    let server = Server::start(&["--reactors", "1", "--log-level", "info"]);
    let address = server.address();
    // They are closed one after the other, so the last connections live on for a while.
    let sockets: Vec<_> = (0..1500)
        .map(|_| WebSocket::open(address, "/ws/a"))
        .collect();
    let mut health = Http::connect(address);
    let mut wires: Vec<Wire> = (0..2).map(|_| server.connect()).collect();
    for wire in &mut wires {
        wire.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(wire.read_response().status, 200);
    }
    assert_eq!(health.get("/ready").status, 200);
    server.signal("TERM");
    wait_until("it is not ready any more", || {
        health.get("/ready").status == 503
    });
    for (wire, (lines, status)) in wires.iter_mut().zip([(PAGES[1], 200), ("", 503)]) {
        wire.send(format!("GET /sse/a HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").as_bytes());
        assert_eq!(wire.read_response().status, status);
        if status == 200 {
            retry(wire, "the server is shutting down");
        }
    }
    drop(sockets);
}

#[test]
fn shutdown_says_when_to_come_back() {
    let mut server = Server::start(&["--topic-rule", "h history=5"]);
    let mut wires: Vec<Wire> = ["/sse/a", "/sse/h", "/sse/a?b=1", "/sse/c"]
        .map(|target| get(&server, target, "").1)
        .into();
    server.publish("h", "text/plain", b"last");
    server.signal("TERM");
    let mut waits = Vec::new();
    for (number, wire) in wires.iter_mut().enumerate() {
        let (bytes, end) = wire.read_to_end();
        assert_eq!(end, End::Eof);
        let text = String::from_utf8(bytes).expect("a stream is text");
        let (before, retry) = text.rsplit_once("retry: ").expect("a wait");
        assert!(before.is_empty() || before.ends_with("\n\n"), "{text}");
        assert_eq!(before.contains("data: last\n\n"), number == 1, "{text}");
        let wait: u64 = retry
            .strip_suffix("\n\n")
            .expect("a block")
            .parse()
            .expect("a number");
        // Few come back within a second.
        assert!(wait <= 1000, "{text}");
        waits.push(wait);
    }
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 1, "they do not come back together: {waits:?}");
    assert!(server.wait_for_exit(Duration::from_secs(20)).success());
}

/// The format has one line end. Who needs the bytes as they are publishes them as binary.
#[test]
fn line_ends_arrive_as_lf() {
    let server = Server::start(&[]);
    let (_, mut stream) = get(&server, "/sse/a", "");
    let mut socket = server.connect();
    socket.upgrade("/ws/a");
    for (text, shown) in [
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("a\n\rb", "a\n\nb"),
        ("a\r\r\nb\r", "a\n\nb\n"),
        ("\r\n", "\n"),
        ("a\nb\n", "a\nb\n"),
        ("\u{85}\u{2028}\u{b}", "\u{85}\u{2028}\u{b}"),
    ] {
        server.publish("a", "text/plain", text.as_bytes());
        let block = next_block(&mut stream);
        assert_eq!(
            (block.event.as_deref(), block.data.as_deref()),
            (None, Some(shown)),
            "{text:?}"
        );
        assert_eq!(socket.read_frame().payload, text.as_bytes(), "{text:?}");
    }
    server.publish("a", "application/octet-stream", b"a\r\nb\r");
    let Block { event, data, .. } = next_block(&mut stream);
    assert_eq!(
        (event.as_deref(), data.as_deref()),
        (Some("binary"), Some("YQ0KYg0="))
    );
}

/// Who was cut off before there was anything to see loses nothing of what comes then.
#[test]
fn cut_off_before_first_publication_recovers() {
    let server = Server::start(&["--topic-rule", "h/** history=5"]);
    let (response, stream) = get(&server, "/sse/h/a", "");
    let position = response
        .header("umbel-position")
        .expect("a position")
        .to_owned();
    assert!(position.ends_with(":0"), "{position}");
    drop(stream);
    wait_until("nobody is there", || server.metric("umbel_topics") == 0.0);
    let listed = server.request("GET /topics/h/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(listed.status, 404, "nothing is to be seen of it");
    let line = format!("Last-Event-ID: {position}\r\n");
    for number in 0..6 {
        let (response, mut stream) = get(&server, "/sse/h/a", &line);
        assert_eq!(response.header("umbel-recovered"), Some("true"), "{number}");
        for expected in 1..=number {
            let data = next_block(&mut stream).data;
            assert_eq!(data, Some(format!("{expected}")));
        }
        server.publish("h/a", "text/plain", format!("{}", number + 1).as_bytes());
    }
    let (response, _) = get(&server, "/sse/h/a", &line);
    assert_eq!(
        response.header("umbel-recovered"),
        Some("false"),
        "six are too many"
    );
}
