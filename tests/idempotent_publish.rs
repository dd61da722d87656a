//! Publishes with an idempotency key: carried out once, and answered with the first position.

mod support;

use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};

use support::peers::reset;
use support::umbel_v1::{BINARY, JSON, Peer, text};
use support::{Response, Server};

fn post(server: &Server, target: &str, headers: &str, body: &str) -> Response {
    let request = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    server.request(&request)
}

fn publish(server: &Server, topic: &str, key: &str, body: &str) -> Response {
    let header = format!("Idempotency-Key: {key}\r\n");
    post(server, &format!("/pub/{topic}"), &header, body)
}

fn json_of(response: &Response) -> Value {
    serde_json::from_str(response.text()).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

fn open(server: &Server, subprotocol: &str) -> Peer {
    Peer::open_at(server.address(), "/ws", subprotocol)
}

/// The payloads that a subscriber of `t` got up to here.
fn payloads(server: &Server, peer: &mut Peer) -> Vec<String> {
    server.publish("t", "text/plain", b"end");
    let mut payloads = Vec::new();
    loop {
        let message = peer.next();
        assert_eq!(message["type"], "publication", "{message}");
        match text(&message["data"]) {
            end if end == "end" => return payloads,
            payload => payloads.push(payload),
        }
    }
}

#[test]
fn request_again_is_a_replay() {
    let server = Server::start(&[]);
    let mut subscriber = open(&server, JSON);
    subscriber.subscribe("t");
    let first = publish(&server, "t", "k", "x");
    assert_eq!(
        (first.status, first.header("idempotency-replayed")),
        (200, None)
    );
    let first = json_of(&first);
    assert_eq!(first["duplicate"], Value::Null);
    let again = publish(&server, "t", "k", "x");
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let again = json_of(&again);
    let expected = json!({"epoch": first["epoch"], "offset": first["offset"], "duplicate": true});
    assert_eq!(again, expected);
    // With a receipt there is nothing to report.
    let headers = "Idempotency-Key: k\r\nUmbel-Receipt: true\r\n";
    assert_eq!(json_of(&post(&server, "/pub/t", headers, "x")), expected);
    let other = publish(&server, "t", "k", "y");
    assert_eq!(other.status, 422, "{other:?}");
    assert!(other.text().contains("idempotency key"), "{other:?}");
    for (topic, key) in [("u", "k"), ("t", "l")] {
        let fresh = json_of(&publish(&server, topic, key, "y"));
        assert_eq!(fresh["duplicate"], Value::Null);
    }
    assert_eq!(payloads(&server, &mut subscriber), ["x", "y"]);
    let page = server.request("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for row in [
        "umbel_publish_replays_total 2",
        "umbel_idempotency_refusals_total 1",
        "umbel_publications_total 4",
    ] {
        assert!(page.text().contains(row), "{row}: {}", page.text());
    }
}

#[test]
fn first_publish_with_key_and_receipt_has_its_receipt() {
    let server = Server::start(&["--receipts-max", "1"]);
    let headers = "Idempotency-Key: k\r\nUmbel-Receipt: true\r\n";
    let first = json_of(&post(&server, "/pub/t", headers, "x"));
    assert_eq!(first["receipt"]["matched"], 0, "{first}");
    // Those that get none give their place back.
    for _ in 0..3 {
        let again = json_of(&post(&server, "/pub/t", headers, "x"));
        assert_eq!(again["duplicate"], true, "{again}");
    }
}

#[test]
fn lines_have_the_key_with_their_number() {
    let server = Server::start(&[]);
    let mut subscriber = open(&server, JSON);
    subscriber.subscribe("t");
    let header = "Idempotency-Key: k\r\n";
    let lines = |payloads: &[&str]| {
        let line = |payload| format!("{{\"topic\":\"t\",\"data\":\"{payload}\"}}\n");
        payloads.iter().map(line).collect::<String>()
    };
    let answers = |response: &Response| -> Vec<Value> {
        let lines = response.text().lines();
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let first = post(&server, "/pub", header, &lines(&["a", "a"]));
    assert_eq!(first.header("idempotency-replayed"), None);
    // The same lines, and one that did not arrive the first time.
    let longer = post(&server, "/pub", header, &lines(&["a", "a", "b"]));
    assert_eq!(longer.header("idempotency-replayed"), None);
    let (first, longer) = (answers(&first), answers(&longer));
    for (line, again) in first.iter().zip(&longer) {
        assert_eq!(
            (&line["offset"], &again["duplicate"]),
            (&again["offset"], &json!(true))
        );
    }
    assert_eq!(longer[2]["duplicate"], Value::Null);
    let again = post(&server, "/pub", header, &lines(&["a", "a", "b"]));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let mixed = post(&server, "/pub", header, &lines(&["a", "c", "b"]));
    assert_eq!(
        (mixed.status, answers(&mixed)[1]["status"].clone()),
        (200, json!(422))
    );
    let none = post(&server, "/pub", header, &lines(&["b", "c"]));
    assert_eq!(none.status, 422, "{none:?}");
    assert_eq!(payloads(&server, &mut subscriber), ["a", "a", "b"]);
}

#[test]
fn command_again_is_a_duplicate() {
    let server = Server::start(&[]);
    let mut subscriber = open(&server, JSON);
    subscriber.subscribe("t");
    let command = json!({"type": "publish", "id": 1, "topic": "t", "data": "x",
        "idempotency_key": "k"});
    let mut first = open(&server, JSON);
    let position = text(&first.ask(&command)["position"]);
    drop(first);
    let mut again = open(&server, BINARY);
    let expected = json!({"type": "published", "id": 1, "position": position, "duplicate": true});
    assert_eq!(again.ask(&command), expected);
    // In the compact form: type, flags, id, topic, key, never before.
    let mut message = vec![3, 1 | 8, 0, 0, 0, 1, 1, b't', 1, b'k'];
    message.extend([0xff; 4]);
    message.push(b'x');
    again.send_binary(&message);
    again.expect(&expected);
    let mut other = command.clone();
    other["data"] = "y".into();
    assert_eq!(again.error(&other), "idempotency_key_reused");
    assert_eq!(payloads(&server, &mut subscriber), ["x"]);
}

/// The server reads what was sent before the reset, but can ask for the peer's address no more.
#[test]
fn publish_before_a_reset_is_carried_out_once() {
    let server = Server::start(&[]);
    let mut subscriber = open(&server, JSON);
    subscriber.subscribe("t");
    let command = json!({"type": "publish", "id": 1, "topic": "t", "data": "x",
        "idempotency_key": "k"});
    let request = "POST /pub/t HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: l\r\n\
                   Content-Length: 1\r\n\r\ny";
    let stream = TcpStream::connect(server.address()).expect("a connection");
    reset(&stream);
    let mut first = Peer::open_on(stream, "/ws", JSON);
    let mut poster = TcpStream::connect(server.address()).expect("a connection");
    reset(&poster);
    server.signal("STOP");
    first.send(&command);
    drop(first);
    poster
        .write_all(request.as_bytes())
        .expect("room in the socket");
    drop(poster);
    server.signal("CONT");
    let mut again = open(&server, JSON);
    assert_eq!(again.ask(&command)["type"], "published");
    assert_eq!(publish(&server, "t", "l", "y").status, 200);
    let mut payloads = payloads(&server, &mut subscriber);
    payloads.sort();
    assert_eq!(payloads, ["x", "y"]);
}

#[test]
fn keys_are_those_of_a_publisher() {
    let one = "0123456789abcdef-one";
    let server = Server::start(&["--publish-token", one, "--query-token", "allow"]);
    let with = |token: &str, key: &str| {
        let headers = format!("Authorization: Bearer {token}\r\nIdempotency-Key: {key}\r\n");
        post(&server, "/pub/t", &headers, "x")
    };
    assert_eq!(json_of(&with(one, "k"))["duplicate"], Value::Null);
    assert_eq!(json_of(&with(one, "k"))["duplicate"], true);
    // By umbel.v1 too: whoever shows the same credential is the same publisher.
    let mut peer = Peer::open_at(server.address(), &format!("/ws?token={one}"), JSON).welcomed();
    let command = json!({"type": "publish", "id": 1, "topic": "t", "data": "x",
        "idempotency_key": "k"});
    assert_eq!(peer.ask(&command)["duplicate"], true);
}

#[test]
fn full_table_refuses_publishes_with_keys_only() {
    let server = Server::start(&["--idempotency-bytes-total-max", "300"]);
    assert_eq!(publish(&server, "t", "1", "x").status, 200);
    let full = (2..10)
        .map(|key| publish(&server, "t", &key.to_string(), "x"))
        .find(|response| response.status != 200);
    let full = full.expect("there is no room for ten");
    assert_eq!((full.status, full.header("retry-after")), (503, Some("1")));
    assert_eq!(json_of(&publish(&server, "t", "1", "x"))["duplicate"], true);
    assert_eq!(post(&server, "/pub/t", "", "x").status, 200);
    let mut peer = open(&server, JSON);
    let command = json!({"type": "publish", "id": 1, "topic": "t", "data": "x",
        "idempotency_key": "another"});
    assert_eq!(peer.error(&command), "unavailable");
}

/// A publish that is sent again, and that the server may have forgotten or never known, is not carried out.
#[test]
fn resent_publish_of_unknown_age_is_refused() {
    let server = Server::start(&[]);
    let mut peer = open(&server, JSON);
    let resent = |key: &str, first_sent_ms: u32| {
        json!({"type": "publish", "id": 1, "topic": "t", "data": "x",
            "idempotency_key": key, "first_sent_ms": first_sent_ms})
    };
    assert_eq!(peer.ask(&resent("new", 0))["type"], "published");
    // It was sent before the server began.
    assert_eq!(peer.error(&resent("older", 50_000)), "fate_unknown");
    // It is forgotten by now.
    assert_eq!(peer.error(&resent("oldest", 3_600_000)), "fate_unknown");
    // What is known is answered all the same.
    assert_eq!(peer.ask(&resent("new", 3_600_000))["duplicate"], true);
}

#[test]
fn request_sent_again_of_unknown_age_is_refused() {
    let server = Server::start(&["--topic-rule", "t history=10"]);
    let resent = |target: &str, key: &str, first_sent_ms: &str| {
        let headers = format!("Idempotency-Key: {key}\r\nUmbel-First-Sent-Ms: {first_sent_ms}\r\n");
        let body = r#"{"topic":"t","data":"x"}"#;
        let response = post(&server, target, &headers, body);
        let answer: Value = serde_json::from_str(response.text()).unwrap_or_default();
        (response.status, answer)
    };
    for (target, refused) in [("/pub/t", 409), ("/pub", 422)] {
        let (status, answer) = resent(target, target, "0");
        assert_eq!((status, &answer["duplicate"]), (200, &Value::Null));
        for unknown in ["50000", "3600000", "4294967295"] {
            let (status, answer) = resent(target, unknown, unknown);
            assert_eq!(status, refused, "{target} {unknown}");
            let line = if target == "/pub" {
                json!(409)
            } else {
                Value::Null
            };
            assert_eq!(answer["status"], line, "{answer}");
        }
        // What is known is answered all the same.
        let (status, answer) = resent(target, target, "3600000");
        assert_eq!((status, &answer["duplicate"]), (200, &json!(true)));
    }
    let page = server.request("GET /history/t HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let publications = json_of(&page)["publications"].take();
    assert_eq!(
        publications.as_array().map(Vec::len),
        Some(2),
        "{publications}"
    );
}

#[test]
fn wrong_keys_are_refused() {
    let server = Server::start(&[]);
    for headers in [
        "Idempotency-Key: \r\n".to_owned(),
        format!("Idempotency-Key: {}\r\n", "k".repeat(256)),
        "Idempotency-Key: a\r\nIdempotency-Key: b\r\n".to_owned(),
        "Umbel-First-Sent-Ms: 1\r\n".to_owned(),
        "Idempotency-Key: a\r\nUmbel-First-Sent-Ms: 4294967296\r\n".to_owned(),
        "Idempotency-Key: a\r\nUmbel-First-Sent-Ms: +1\r\n".to_owned(),
        "Idempotency-Key: a\r\nUmbel-First-Sent-Ms: \r\n".to_owned(),
        "Idempotency-Key: a\r\nUmbel-First-Sent-Ms: 1\r\nUmbel-First-Sent-Ms: 1\r\n".to_owned(),
    ] {
        for target in ["/pub/t", "/pub"] {
            let response = post(&server, target, &headers, "x");
            assert_eq!(response.status, 400, "{response:?}");
        }
    }
    let mut peer = open(&server, JSON);
    for fields in [
        json!({"id": 1, "idempotency_key": ""}),
        json!({"id": 1, "idempotency_key": 3}),
        json!({"id": 1, "idempotency_key": "k".repeat(256)}),
        json!({"id": 1, "first_sent_ms": 3}),
        json!({"id": 1, "idempotency_key": "k", "first_sent_ms": -1}),
        json!({"idempotency_key": "k"}),
    ] {
        let mut command = json!({"type": "publish", "topic": "t", "data": "x"});
        let object = command.as_object_mut().expect("an object");
        object.extend(fields.as_object().expect("an object").clone());
        assert_eq!(peer.error(&command), "invalid_command", "{command}");
    }
}
