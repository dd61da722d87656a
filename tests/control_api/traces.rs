//! Traces, of a server in its own process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::client::Api;
use crate::file::Folder;
use crate::support::peers::{Http, Incoming, WebSocket, connect};
use crate::support::umbel_v1::{JSON, Peer};
use crate::support::{PATIENCE, Server, wait_until};

const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const OPERATOR: &str = "operator-token-of-the-test";
const VIEWER: &str = "viewer-token-of-the-test";
const HOST: &str = "host-token-of-the-test";
const ANNA: &str = "annas-token-of-the-test";

fn start() -> (Folder, Server) {
    let folder = Folder::with(
        "umbel.toml",
        &format!(
            "origins = [\"any\"]\npublish = \"anyone\"\nsubscribe = \"anyone\"\n\
             [[token]]\nname = \"operator\"\nvalue = \"{OPERATOR}\"\nmanage = [\"**\"]\nobserve = true\n\
             [[token]]\nname = \"viewer\"\nvalue = \"{VIEWER}\"\nobserve = true\n\
             [[token]]\nname = \"host\"\nvalue = \"{HOST}\"\nmanage = [\"rooms/**\"]\n\
             [[token]]\nname = \"anna\"\nvalue = \"{ANNA}\"\nsubject = \"anna\"\nsubscribe = [\"**\"]\npublish = [\"**\"]\n"
        ),
    );
    let server = Server::start(&["--config", &folder.path("umbel.toml")]);
    (folder, server)
}

/// A trace that goes on.
struct Trace {
    status: u16,
    lines: BufReader<TcpStream>,
}

impl Trace {
    /// Asks for a trace, and reads the head of the answer.
    fn ask(address: SocketAddr, token: &str, query: &str) -> Trace {
        let mut stream = connect(address, 0);
        let request = format!(
            "GET /api/v1/trace?{query} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut lines = BufReader::new(stream);
        let (mut head, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            lines.read_line(&mut line).expect("a head");
            head.push_str(&line);
        }
        let status = head[9..12].parse().expect("a status");
        assert_eq!(
            status == 200,
            head.contains("application/x-ndjson"),
            "{head}"
        );
        Trace { status, lines }
    }

    /// One that has begun.
    fn begin(address: SocketAddr, token: &str, query: &str) -> Trace {
        let mut trace = Trace::ask(address, token, query);
        assert_eq!(trace.status, 200, "{query}");
        let started = trace.next();
        assert_eq!(started["event"], "started", "{started}");
        assert!(
            started["at_ms"].is_u64() && started["until_ms"].is_u64(),
            "{started}"
        );
        trace
    }

    /// The next event.
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line in time");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// The next event of this name, and those before it.
    fn until(&mut self, event: &str) -> (Vec<Value>, Value) {
        let mut before = Vec::new();
        loop {
            let line = self.next();
            if line["event"] == event {
                return (before, line);
            }
            assert_ne!(line["event"], "ended", "{event} after {before:?}");
            before.push(line);
        }
    }

    fn is_at_end(&mut self) -> bool {
        self.lines.read(&mut [0]).is_ok_and(|len| len == 0)
    }
}

/// Opens a raw connection, shown a token, that takes one topic.
fn open(address: SocketAddr, token: &str, topic: &str) -> WebSocket {
    let lines = match token {
        "" => String::new(),
        token => format!("Authorization: Bearer {token}\r\n"),
    };
    let (head, socket) = WebSocket::offer_on(connect(address, 0), &format!("/ws/{topic}"), &lines);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    socket
}

fn id_of(api: &mut Api, query: &str) -> String {
    let rows = api.connections(query);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0]["connection"].as_str().expect("a name").to_owned()
}

#[test]
fn connection_by_commands_frames_and_end() {
    let (_folder, server) = start();
    let address = server.address();
    let mut peer = Peer::open_on(connect(address, 0), "/ws", JSON);
    let mut api = Api::of(address, OPERATOR);
    let id = id_of(&mut api, "&dialect=umbel.v1");
    let mut trace = Trace::begin(address, OPERATOR, &format!("connection={id}"));
    peer.subscribe("rooms/1");
    let (before, command) = trace.until("subscribe");
    assert_eq!(
        (&command["connection"], &command["topic"]),
        (&json!(id), &json!("rooms/1"))
    );
    assert_eq!(before[0]["event"], "message", "{before:?}");
    assert_eq!(before[0]["kind"], "text");
    assert!(before[0]["bytes"].as_u64() > Some(20), "{before:?}");
    let (_, reply) = trace.until("frame");
    assert_eq!(reply["opcode"], "text", "{reply}");
    assert_eq!(
        server.publish("rooms/1", "text/plain", b"hello").status,
        200
    );
    let (_, delivery) = trace.until("delivery");
    assert_eq!(
        (&delivery["topic"], &delivery["bytes"]),
        (&json!("rooms/1"), &json!(5))
    );
    assert!(
        delivery["position"].is_string() && delivery["data"].is_null(),
        "{delivery}"
    );
    peer.publication();
    peer.publish("rooms/2", "ours");
    let (_, publish) = trace.until("publish");
    assert_eq!(
        (&publish["topic"], &publish["bytes"]),
        (&json!("rooms/2"), &json!(4))
    );
    drop(peer);
    let (_, closed) = trace.until("closed");
    assert_eq!(
        (&closed["by"], &closed["reason"]),
        (&json!("peer"), &json!("peer_gone"))
    );
    let (_, ended) = trace.until("ended");
    assert_eq!(ended["reason"], "closed");
    assert!(trace.is_at_end());
    let mut trace = Trace::begin(address, OPERATOR, &format!("connection={id}"));
    let (_, ended) = trace.until("ended");
    assert_eq!(ended["reason"], "not_found");
}

#[test]
fn raw_connection_with_payloads() {
    let (_folder, server) = start();
    let address = server.address();
    let mut socket = open(address, "", "news");
    let mut api = Api::of(address, OPERATOR);
    let id = id_of(&mut api, "&dialect=raw");
    let query = format!("connection={id}&payloads=true");
    let mut trace = Trace::begin(address, OPERATOR, &query);
    socket.send_text("ours");
    let (_, message) = trace.until("message");
    assert_eq!(
        (&message["topic"], &message["data"], &message["bytes"]),
        (&json!("news"), &json!("ours"), &json!(4))
    );
    let (_, delivery) = trace.until("delivery");
    assert_eq!(delivery["data"], "ours");
    socket.send(9, b"hi");
    let (_, pong) = trace.until("frame");
    assert_eq!(
        (&pong["opcode"], &pong["bytes"]),
        (&json!("pong"), &json!(2))
    );
    api.post(
        "/disconnect",
        &json!({"connection": id, "reason": "enough"}),
    );
    let (before, closed) = trace.until("closed");
    assert_eq!(
        (&closed["by"], &closed["code"]),
        (&json!("server"), &json!(4403))
    );
    assert!(
        before.iter().any(|it| it["opcode"] == "close"),
        "{before:?}"
    );
}

#[test]
fn topics_by_pattern() {
    let (_folder, server) = start();
    let address = server.address();
    let mut trace = Trace::begin(address, VIEWER, "topic=rooms%2F*");
    let mut hosts = Trace::begin(address, HOST, "topic=rooms%2F**&payloads=true");
    let mut socket = open(address, "", "rooms/1");
    let (_, opened) = trace.until("opened");
    assert_eq!(
        (&opened["topic"], &opened["dialect"]),
        (&json!("rooms/1"), &json!("raw"))
    );
    for topic in ["other", "rooms/1/2", "rooms/1"] {
        assert_eq!(server.publish(topic, "text/plain", b"hello").status, 200);
    }
    let (before, publish) = trace.until("publish");
    assert!(before.is_empty(), "{before:?}");
    assert_eq!(
        (&publish["topic"], &publish["bytes"]),
        (&json!("rooms/1"), &json!(5))
    );
    assert_eq!(socket.text(), "hello");
    let (_, delivered) = trace.until("delivered");
    assert_eq!(
        (&delivered["topic"], &delivered["subscribers"]),
        (&json!("rooms/1"), &json!(1))
    );
    assert!(delivered["data"].is_null(), "{delivered}");
    let (before, delivered) = hosts.until("delivered");
    assert_eq!(delivered["data"], "hello");
    let published: Vec<_> = before
        .iter()
        .filter(|it| it["event"] == "publish")
        .collect();
    assert_eq!(published.len(), 2, "{before:?}");
    let mut peer = Peer::open_on(connect(address, 0), "/ws", JSON);
    peer.subscribe_pattern("other/**");
    peer.subscribe_pattern("rooms/**");
    let (_, subscribe) = trace.until("subscribe");
    assert_eq!(subscribe["pattern"], "rooms/**", "{subscribe}");
    socket.send(8, &1000u16.to_be_bytes());
    let (_, closed) = trace.until("closed");
    assert_eq!(
        (&closed["topic"], &closed["by"]),
        (&json!("rooms/1"), &json!("peer"))
    );
}

#[test]
fn subject_on_all_its_connections() {
    let (_folder, server) = start();
    let address = server.address();
    let mut first = open(address, ANNA, "news");
    let _stranger = open(address, "", "news");
    let mut trace = Trace::begin(address, OPERATOR, "subject=anna");
    // Which connections there are is looked up behind the beginning.
    let mut seen = Value::Null;
    wait_until("the first connection is followed", || {
        first.send_text("one");
        trace
            .lines
            .get_ref()
            .set_read_timeout(Some(std::time::Duration::from_millis(50)))
            .expect("set");
        let mut line = String::new();
        let read = trace.lines.read_line(&mut line);
        seen = serde_json::from_str(&line).unwrap_or_default();
        read.is_ok()
    });
    trace
        .lines
        .get_ref()
        .set_read_timeout(Some(PATIENCE))
        .expect("set");
    assert_eq!(seen["event"], "message");
    let second = open(address, ANNA, "news");
    let (before, opened) = trace.until("opened");
    assert_ne!(opened["connection"], seen["connection"], "{before:?}");
    drop(second);
    let (_, closed) = trace.until("closed");
    assert_eq!(closed["connection"], opened["connection"]);
}

#[test]
fn four_at_a_time_and_by_right() {
    let (_folder, server) = start();
    let address = server.address();
    let mut api = Api::of(address, OPERATOR);
    for (token, query, status) in [
        (OPERATOR, "", 400),
        (OPERATOR, "topic=a&subject=b", 400),
        (OPERATOR, "connection=x", 400),
        (OPERATOR, "topic=a%2F%2Fb", 400),
        (OPERATOR, "topic=a&duration_ms=1", 400),
        (OPERATOR, "topic=a&duration_ms=600001", 400),
        (OPERATOR, "topic=a&payloads=perhaps", 400),
        (VIEWER, "topic=a&payloads=true", 403),
        (VIEWER, "connection=0-0-0", 403),
        (VIEWER, "subject=anna", 403),
        (HOST, "topic=other", 403),
        (HOST, "topic=**&payloads=true", 403),
        (HOST, "subject=anna", 403),
        (ANNA, "topic=news", 403),
    ] {
        let trace = Trace::ask(address, token, query);
        assert_eq!(trace.status, status, "{query}");
    }
    let mut traces: Vec<_> = (0..4)
        .map(|_| Trace::begin(address, VIEWER, "topic=news"))
        .collect();
    let (status, code) = api.error("GET", "/trace?topic=news", None);
    assert_eq!((status, &*code), (503, "unavailable"));
    // Whoever hangs up makes room.
    traces.pop();
    wait_until("there is room", || {
        Trace::ask(address, VIEWER, "topic=news&duration_ms=60000").status == 200
    });
    let log = server.log();
    assert!(log.contains("GET /api/v1/trace"), "{log}");
}

#[test]
fn control_frames_both_ways() {
    let (_folder, server) = start();
    let address = server.address();
    let mut peer = open(address, "", "rooms/1");
    let id = id_of(&mut Api::of(address, OPERATOR), "&dialect=raw");
    let mut trace = Trace::begin(address, OPERATOR, &format!("connection={id}"));
    peer.send(PING, b"beat");
    peer.send(PONG, b"");
    peer.send(CLOSE, &[0x0f, 0xa0, b'x']);
    for (event, opcode, bytes) in [
        ("control", "ping", 4),
        ("control", "pong", 0),
        ("control", "close", 3),
    ] {
        let (_, told) = trace.until(event);
        assert_eq!(
            (&told["opcode"], &told["bytes"]),
            (&json!(opcode), &json!(bytes)),
            "{told}"
        );
    }
    let (before, _) = trace.until("closed");
    let frames: Vec<_> = before.iter().map(|line| &line["opcode"]).collect();
    assert!(frames.contains(&&json!("close")), "{before:?}");
}

#[test]
fn trace_ends_after_its_time() {
    let (_folder, server) = start();
    let address = server.address();
    let mut trace = Trace::begin(address, VIEWER, "topic=news&duration_ms=300");
    let (_, ended) = trace.until("ended");
    assert_eq!(ended["reason"], "time");
    assert!(trace.is_at_end());
    let mut http = Http::connect(address);
    http.send(
        format!("HEAD /api/v1/trace?topic=a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {VIEWER}\r\n\r\n")
            .as_bytes(),
    );
    // Of a HEAD no trace is left: four fit at once.
    wait_until("all have room", || {
        let traces: Vec<_> = (0..4)
            .map(|_| Trace::ask(address, VIEWER, "topic=news"))
            .collect();
        traces.iter().all(|trace| trace.status == 200)
    });
}

#[test]
fn events_beyond_a_thousand_a_second_are_counted() {
    let (_folder, server) = start();
    let address = server.address();
    let mut socket = open(address, "", "news");
    let mut trace = Trace::begin(address, VIEWER, "topic=news");
    for _ in 0..3000 {
        socket.send_text("x");
    }
    let mut told = 0;
    let mut dropped = 0;
    // Each message is an event, and so is its delivery.
    while told + dropped < 6000 {
        let line = trace.next();
        match line["event"].as_str() {
            Some("dropped") => dropped += line["events"].as_u64().expect("a number"),
            Some("message" | "delivered") => told += 1,
            _ => panic!("{line}"),
        }
    }
    // The line that says it has begun is one of the thousand.
    assert!(dropped > 0 && told >= 999, "{told} {dropped}");
    assert!(matches!(socket.next(), Incoming::Text(_)));
}

#[test]
fn shutdown_is_told() {
    let (_folder, mut server) = start();
    let mut trace = Trace::begin(server.address(), VIEWER, "topic=news");
    server.signal("TERM");
    let (_, ended) = trace.until("ended");
    assert_eq!(ended["reason"], "shutdown");
    assert!(trace.is_at_end());
    server.wait_for_exit(PATIENCE);
}
