//! The access log, and lines about what peers do.

use std::net::TcpStream;

use serde_json::Value;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::CloseFrame;

use crate::support::peers::Http;
use crate::support::{PATIENCE, Server, wait_until};

fn lines(server: &Server, event: &str) -> Vec<Value> {
    let log = server.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| line["event"] == event)
        .collect()
}

fn start(flags: &[&str]) -> Server {
    let always = ["--log-format", "json", "--log-level", "info"];
    Server::start(&[&always, flags].concat())
}

/// Opens a WebSocket, sends two messages, and closes it with 4000.
fn converse(server: &Server, target: &str) {
    let address = server.address();
    let mut request = format!("ws://{address}{target}")
        .into_client_request()
        .expect("a request");
    let agent = "agent \u{22}one\u{22}".parse().expect("a value");
    request.headers_mut().insert("user-agent", agent);
    let origin = format!("http://{address}").parse().expect("a value");
    request.headers_mut().insert("origin", origin);
    let stream = TcpStream::connect(address).expect("it listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("it can be set");
    let (mut websocket, _) = tungstenite::client(request, stream).expect("it agrees");
    for text in ["one", "two"] {
        websocket.send(text.into()).expect("it is sent");
        websocket.read().expect("it comes back");
    }
    let frame = CloseFrame {
        code: 4000.into(),
        reason: "".into(),
    };
    websocket.close(Some(frame)).expect("it can be sent");
    while websocket.read().is_ok() {}
}

#[test]
fn opened_and_closed_of_the_sample() {
    let server = start(&["--access-log", "all", "--access-log-sample", "1"]);
    assert_eq!(server.publish("news", "text/plain", b"a").status, 200);
    converse(&server, "/ws/news?token=hidden&echo=1");
    wait_until("the end is logged", || !lines(&server, "closed").is_empty());
    assert_eq!(
        lines(&server, "closed").len(),
        1,
        "a request alone opens nothing"
    );
    let (opened, closed) = (&lines(&server, "opened")[0], &lines(&server, "closed")[0]);
    for line in [opened, closed] {
        assert_eq!(line["level"], "info");
        assert_eq!(line["path"], "/ws/news?token=...&echo=1");
        assert_eq!(line["user_agent"], "agent \"one\"");
        assert_eq!(line["dialect"], "raw");
        assert_eq!(line["connection"], opened["connection"]);
        let peer = line["peer"].as_str().expect("it has an address");
        assert!(peer.starts_with("127.0.0.1:"), "{line}");
        assert!(line["origin"].is_string() && line["listener"].is_string());
    }
    assert_eq!(
        (&closed["reason"], &closed["by"]),
        (&"peer".into(), &"peer".into())
    );
    for (name, value) in [
        ("code", 4000),
        ("messages", 2),
        ("publications", 2),
        ("subscriptions", 1),
    ] {
        assert_eq!(closed[name], value, "{closed}");
    }
    for name in ["duration_ms", "received_bytes", "sent_bytes"] {
        assert!(closed[name].is_number(), "{name} in {closed}");
    }
    assert!(!server.log().contains("hidden"));
}

#[test]
fn faults_alone_where_errors_are_wanted() {
    let server = start(&["--access-log", "errors"]);
    converse(&server, "/ws/news");
    let mut websocket = server.websocket("/ws/news");
    let text = b"\x81\x01a";
    std::io::Write::write_all(websocket.get_mut(), text).expect("it is taken");
    while websocket.read().is_ok() {}
    wait_until("the fault is logged", || {
        !lines(&server, "closed").is_empty()
    });
    let closed = lines(&server, "closed");
    assert_eq!(closed.len(), 1, "{closed:?}");
    assert_eq!(
        (&closed[0]["reason"], &closed[0]["by"]),
        (&"protocol".into(), &"server".into())
    );
    assert!(closed[0]["duration_ms"].is_number() && closed[0]["path"].is_null());
    assert!(lines(&server, "opened").is_empty());
}

#[test]
fn refused_are_ten_a_second_and_a_count() {
    let token = "0123456789abcdef0123";
    let server = start(&["--publish-token", token, "--subscribe", "anyone"]);
    let request = "GET /nothing?info=hidden HTTP/1.1\r\nHost: localhost\r\n\
                   Authorization: Bearer wrong-and-hidden\r\n\r\n";
    for _ in 0..50 {
        assert_eq!(server.request(request).status, 401);
    }
    wait_until("the rest is counted", || {
        lines(&server, "refused")
            .iter()
            .any(|line| line["left_out"].is_number())
    });
    let lines = lines(&server, "refused");
    let first = &lines[0];
    for (name, value) in [
        ("method", "GET"),
        ("path", "/nothing?info=..."),
        ("check", "unauthorized"),
    ] {
        assert_eq!(first[name], value, "{first}");
    }
    assert_eq!(first["status"], 401);
    assert_eq!(first["token"].as_str().map(str::len), Some(8), "{first}");
    let told = lines.iter().filter(|line| line["status"] == 401).count() as u64;
    let left_out: u64 = lines
        .iter()
        .filter_map(|line| line["left_out"].as_u64())
        .sum();
    assert!(
        (10..=40).contains(&told) && told + left_out <= 50,
        "{lines:?}"
    );
    assert!(!server.log().contains("hidden"));
}

#[test]
fn requests_at_debug_with_status_and_size() {
    let server = Server::start(&["--log-format", "json"]);
    assert_eq!(server.publish("news", "text/plain", b"a").status, 200);
    let mut http = Http::connect(server.address());
    let head = |method: &str, target: &str| {
        format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\n\r\n",
            server.address()
        )
    };
    // Both at once, and then a HEAD, whose answer has a length and no body.
    let two = head("GET", "/health") + &head("GET", "/nothing?token=hidden");
    http.send(two.as_bytes());
    assert_eq!(http.answer().map(|it| it.status), Some(200));
    assert_eq!(http.answer().map(|it| it.status), Some(404));
    http.send((head("HEAD", "/health") + &head("GET", "/ready")).as_bytes());
    converse(&server, "/ws/news");
    wait_until("all are logged", || lines(&server, "request").len() >= 6);
    let mut told: Vec<_> = lines(&server, "request")
        .iter()
        .map(|line| {
            assert!(
                line["duration_us"].is_u64() && line["connection"].is_string(),
                "{line}"
            );
            assert_eq!(line["level"], "debug");
            let word = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            let status = line["status"].as_u64().unwrap_or_default();
            let has_bytes = line["bytes"].as_u64().is_some_and(|bytes| bytes > 0);
            (word("method"), word("path"), status, has_bytes)
        })
        .collect();
    told.sort();
    let row = |method: &str, path: &str, status, has_bytes| {
        (method.to_owned(), path.to_owned(), status, has_bytes)
    };
    let expected = [
        row("GET", "/health", 200, true),
        row("GET", "/nothing?token=...", 404, true),
        row("GET", "/ready", 200, true),
        row("GET", "/ws/news", 101, false),
        row("HEAD", "/health", 200, false),
        row("POST", "/pub/news", 200, true),
    ];
    assert_eq!(told, expected);
}

/// Where one listener shows everything, no line but the last tells of it.
#[test]
fn ready_with_address() {
    let server = start(&[]);
    wait_until("it says so", || !lines(&server, "ready").is_empty());
    let ready = &lines(&server, "ready")[0];
    let address = server.address().to_string();
    assert_eq!(ready["listener"], address.as_str());
    assert_eq!(ready["address"], format!("http://{address}"));
    assert_eq!(
        (&ready["tls"], ready["version"].is_string()),
        (&false.into(), true)
    );
}
