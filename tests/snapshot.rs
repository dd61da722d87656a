//! Topics that keep the newest of each key: whoever subscribes gets these first, then what is live, without a hole.

mod support;

use std::thread;

use serde_json::{Value, json};

use support::peers::{Block, EventStream, Http, WebSocket};
use support::umbel_v1::{BINARY, JSON, Peer, offset};
use support::{Server, wait_until};

const RULE: &str = "** history=100 slow_consumer=latest keep=latest";

/// Publishes a text of a key; without a text, the key is deleted.
fn publish(peer: &mut Peer, topic: &str, key: &str, text: Option<&str>) {
    let mut command = json!({"type": "publish", "id": 1, "topic": topic, "key": key});
    command["data"] = text.unwrap_or_default().into();
    if text.is_none() {
        command["tombstone"] = true.into();
    }
    assert_eq!(peer.ask(&command)["type"], "published");
}

/// Keys and texts of so many publications.
fn heard(peer: &mut Peer, count: usize) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let next = || peer.next();
    let all = std::iter::repeat_with(next).take(count);
    all.map(|it| (text(&it["key"]), text(&it["data"])))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, text): &(&str, &str)| ((*key).to_owned(), (*text).to_owned());
    expected.iter().map(owned).collect()
}

#[test]
fn newest_of_each_key_before_what_is_live() {
    let server = Server::start(&["--topic-rule", RULE]);
    let mut publisher = Peer::open(server.address());
    for (key, text) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")] {
        publish(&mut publisher, "prices", key, Some(text));
    }
    publish(&mut publisher, "prices", "b", None);
    let subscribe = json!({"type": "subscribe", "id": 1, "topic": "prices"});
    let mut readers: Vec<_> = [JSON, BINARY]
        .into_iter()
        .map(|subprotocol| {
            let mut reader = Peer::open_at(server.address(), "/ws", subprotocol);
            let answer = reader.ask(&subscribe);
            assert_eq!(answer["snapshot"], true, "{answer}");
            assert!(
                answer["position"]
                    .as_str()
                    .is_some_and(|it| it.ends_with(":5"))
            );
            assert_eq!(heard(&mut reader, 2), pairs(&[("a", "3"), ("c", "4")]));
            reader
        })
        .collect();
    let mut events = EventStream::open(server.address(), "/sse/prices");
    let mut raw = WebSocket::open(server.address(), "/ws/prices");
    let event = |text: &str| Block::Event("message".to_owned(), text.to_owned());
    assert_eq!((events.next(), events.next()), (event("3"), event("4")));
    assert_eq!((raw.text(), raw.text()), ("3".to_owned(), "4".to_owned()));
    publish(&mut publisher, "prices", "b", Some("6"));
    assert_eq!((events.next(), raw.text()), (event("6"), "6".to_owned()));
    for reader in &mut readers {
        assert_eq!(heard(reader, 1), pairs(&[("b", "6")]));
    }
    // A tombstone is a publication that says so, to those who are there.
    publish(&mut publisher, "prices", "a", None);
    for reader in &mut readers {
        assert_eq!(reader.next()["tombstone"], true);
    }
}

#[test]
fn recovery_gives_what_is_newest_since_or_all_of_it() {
    let server = Server::start(&["--topic-rule", RULE]);
    let mut publisher = Peer::open(server.address());
    publish(&mut publisher, "a", "k", Some("1"));
    let mut first = Peer::open(server.address());
    let position = first.subscribe("a");
    for (key, text) in [
        ("k", Some("2")),
        ("l", Some("3")),
        ("k", Some("4")),
        ("l", None),
    ] {
        publish(&mut publisher, "a", key, text);
    }
    let mut late = Peer::open(server.address());
    let answer = late.subscribe_since("a", &position);
    assert_eq!(
        (&answer["recovered"], &answer["snapshot"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(heard(&mut late, 2), pairs(&[("k", "4"), ("l", "")]));
    // From another epoch nothing can be recovered, and so the newest of each key come.
    let mut lost = Peer::open(server.address());
    let answer = lost.subscribe_since("a", "00000000000000a1:1");
    assert_eq!(
        (&answer["recovered"], &answer["snapshot"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(heard(&mut lost, 1), pairs(&[("k", "4")]));
    lost.expect_nothing_before_pong();
}

#[test]
fn more_keys_than_the_rule_keeps() {
    let rule = "** history=3 slow_consumer=latest keep=latest";
    let server = Server::start(&["--topic-rule", rule]);
    let mut publisher = Peer::open(server.address());
    for key in ["a", "b", "c", "d"] {
        publish(&mut publisher, "t", key, Some(key));
    }
    let mut reader = Peer::open(server.address());
    let answer = reader.ask(&json!({"type": "subscribe", "id": 1, "topic": "t"}));
    assert_eq!(answer["snapshot"], false, "one is missing");
    let expected = pairs(&[("b", "b"), ("c", "c"), ("d", "d")]);
    assert_eq!(heard(&mut reader, 3), expected);
}

fn position_of(message: &Value) -> u64 {
    offset(message["position"].as_str().expect("a position"))
}

/// Subscribers come while every key changes: each gets a whole state, and in the end the newest.
#[test]
fn no_hole_between_snapshot_and_live() {
    const KEYS: usize = 20;
    const ROUNDS: usize = 300;
    let server = Server::start(&["--topic-rule", RULE, "--reactors", "2", "--workers", "1"]);
    let address = server.address();
    let publisher = thread::spawn(move || {
        let mut http = Http::connect(address);
        for number in 0..KEYS * ROUNDS {
            let key = number % KEYS;
            let lines = format!(r#"{{"topic":"t","key":"{key}","data":"{number}"}}"#);
            assert_eq!(http.publish_lines(&lines).status, 200);
        }
    });
    wait_until("it publishes", || {
        server.metric("umbel_publications_total") > 100.0
    });
    let readers: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(move || {
                let mut reader = Peer::open(address);
                let answer = reader.ask(&json!({"type": "subscribe", "id": 1, "topic": "t"}));
                assert_eq!(answer["snapshot"], true);
                let told = position_of(&answer);
                let mut newest = vec![None; KEYS];
                let mut last = None;
                while last != Some(KEYS * ROUNDS - 1) {
                    let message = reader.next();
                    let text = message["data"].as_str().expect("a text");
                    let number: usize = text.parse().expect("a number");
                    assert!(
                        last.is_none_or(|last| number > last),
                        "{number} behind {last:?}"
                    );
                    let is_live = position_of(&message) > told;
                    assert!(
                        !is_live || newest.iter().all(Option::is_some),
                        "a key is missing"
                    );
                    newest[number % KEYS] = Some(number);
                    last = Some(number);
                }
                let first = KEYS * (ROUNDS - 1);
                let expected: Vec<_> = (first..first + KEYS).map(Some).collect();
                assert_eq!(newest, expected, "the newest of each key");
            })
        })
        .collect();
    for thread in readers.into_iter().chain([publisher]) {
        thread.join().expect("no hole");
    }
}
