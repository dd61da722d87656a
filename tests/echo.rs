//! Subscriptions without an echo: nothing of what their own connection publishes.

mod support;

use serde_json::{Value, json};

use support::frames::{self, Frame};
use support::umbel_v1::{BINARY, JSON, Peer, text};
use support::{Server, Wire};

/// What a peer gets up to a publication `end`, which comes so many times.
fn data(peer: &mut Peer, mut ends: usize) -> Vec<String> {
    let mut data = Vec::new();
    while ends > 0 {
        let message = peer.next();
        assert_eq!(message["type"], "publication", "{message}");
        match text(&message["data"]) {
            end if end == "end" => ends -= 1,
            other => data.push(other),
        }
    }
    data
}

/// Publishes, and waits until the publication has its place.
fn publish(peer: &mut Peer, topic: &str, payload: &str, seen: &mut Vec<String>) {
    peer.send(&json!({"type": "publish", "id": 5, "topic": topic, "data": payload}));
    loop {
        let message = peer.next();
        match message["type"].as_str() {
            Some("publication") => seen.push(text(&message["data"])),
            Some("published") => return,
            _ => panic!("{message}"),
        }
    }
}

fn subscribe(peer: &mut Peer, fields: &Value) -> Value {
    let mut command = json!({"type": "subscribe", "id": 1});
    let object = command.as_object_mut().expect("an object");
    object.extend(fields.as_object().expect("an object").clone());
    peer.ask(&command)
}

#[test]
fn own_publications_do_not_come_by_topic_or_pattern() {
    let server = Server::start(&[]);
    for subprotocol in [JSON, BINARY] {
        let mut peer = Peer::open_at(server.address(), "/ws", subprotocol);
        let mut other = Peer::open_at(server.address(), "/ws", subprotocol);
        for fields in [
            json!({"topic": "a/b", "echo": false}),
            json!({"pattern": "a/*", "echo": false}),
        ] {
            let answer = subscribe(&mut peer, &fields);
            assert_eq!(
                (&answer["type"], &answer["echo"]),
                (&json!("subscribed"), &json!(false))
            );
        }
        for fields in [
            json!({"topic": "a/b", "echo": true}),
            json!({"pattern": "a/*"}),
        ] {
            let answer = subscribe(&mut other, &fields);
            assert_eq!(
                (&answer["type"], &answer["echo"]),
                (&json!("subscribed"), &Value::Null)
            );
        }
        let (mut seen, mut rest) = (Vec::new(), Vec::new());
        publish(&mut peer, "a/b", "1", &mut seen);
        publish(&mut other, "a/b", "2", &mut rest);
        publish(&mut peer, "a/b", "3", &mut seen);
        publish(&mut other, "a/b", "5", &mut rest);
        server.publish("a/b", "text/plain", b"end");
        seen.extend(data(&mut peer, 2));
        rest.extend(data(&mut other, 2));
        // Of several in one batch the pattern's come behind the topic's.
        seen.sort();
        rest.sort();
        assert_eq!(seen, ["2", "2", "5", "5"]);
        let own: Vec<_> = rest
            .iter()
            .filter(|it| !["2", "5"].contains(&&***it))
            .collect();
        assert_eq!(own, ["1", "1", "3", "3"]);
        // Again with an echo.
        let command = json!({"type": "unsubscribe", "id": 2, "topic": "a/b"});
        assert_eq!(peer.ask(&command)["type"], "unsubscribed");
        subscribe(&mut peer, &json!({"topic": "a/b"}));
        peer.send(&json!({"type": "publish", "topic": "a/b", "data": "own"}));
        let own = peer.next();
        assert_eq!(
            (&own["type"], &own["data"]),
            (&json!("publication"), &json!("own"))
        );
    }
}

#[test]
fn no_echo_in_batches_and_receipts() {
    let server = Server::start(&["--deflate", "all", "--deflate-bytes-min", "0"]);
    let mut peer = Peer::open_at(server.address(), "/ws", JSON);
    let mut others = [(); 3].map(|()| Peer::open_at(server.address(), "/ws", JSON));
    subscribe(&mut peer, &json!({"topic": "t", "echo": false}));
    for other in &mut others {
        subscribe(other, &json!({"topic": "t"}));
    }
    let command =
        |number: usize| json!({"type": "publish", "topic": "t", "data": number.to_string()});
    peer.send(&Value::Array((0..50).map(command).collect()));
    let answer =
        peer.ask(&json!({"type": "publish", "id": 7, "topic": "t", "data": "50", "receipt": true}));
    assert_eq!(answer["receipt"]["matched"], 3, "{answer}");
    let expected: Vec<_> = (0..51).map(|it| it.to_string()).collect();
    for other in &mut others {
        for number in &expected {
            assert_eq!(other.next()["data"], **number);
        }
    }
    server.publish("t", "text/plain", b"end");
    assert!(data(&mut peer, 1).is_empty());
}

/// An earlier connection's publications come with recovery: the echo concerns one connection alone.
#[test]
fn recovery_has_publications_of_earlier_connections() {
    let server = Server::start(&["--topic-rule", "t history=10"]);
    let mut first = Peer::open_at(server.address(), "/ws", JSON);
    let start = text(&subscribe(&mut first, &json!({"topic": "t", "echo": false}))["position"]);
    let mut seen = Vec::new();
    publish(&mut first, "t", "mine", &mut seen);
    assert!(seen.is_empty(), "{seen:?}");
    drop(first);
    let mut second = Peer::open_at(server.address(), "/ws", JSON);
    let answer = subscribe(
        &mut second,
        &json!({"topic": "t", "echo": false, "since": start}),
    );
    assert_eq!(
        (&answer["recovered"], &answer["echo"]),
        (&json!(true), &json!(false))
    );
    server.publish("t", "text/plain", b"end");
    assert_eq!(data(&mut second, 1), ["mine"]);
}

fn open(server: &Server, target: &str) -> Wire {
    let mut wire = server.connect();
    wire.upgrade(target);
    wire
}

#[test]
fn raw_topics_take_a_parameter() {
    let server = Server::start(&[]);
    let mut silent = open(&server, "/ws/t?umbel_echo=false");
    let mut other = open(&server, "/ws/t?umbel_echo=true");
    silent.send(&frames::text("own"));
    assert_eq!(other.read_frame(), Frame::text("own"));
    other.send(&frames::text("another's"));
    assert_eq!(other.read_frame(), Frame::text("another's"));
    assert_eq!(silent.read_frame(), Frame::text("another's"));
}

#[test]
fn streams_and_wrong_values_are_refused() {
    let server = Server::start(&[]);
    let get =
        |target: &str| server.request(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let stream = get("/sse/t?umbel_echo=false");
    assert_eq!(stream.status, 400);
    assert!(stream.text().contains("event stream"), "{stream:?}");
    let mut peer = Peer::open_at(server.address(), "/ws", JSON);
    for command in [
        json!({"type": "subscribe", "id": 1, "topic": "t", "echo": 0}),
        json!({"type": "unsubscribe", "id": 1, "topic": "t", "echo": false}),
    ] {
        assert_eq!(peer.error(&command), "invalid_command", "{command}");
    }
}
