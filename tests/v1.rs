//! The dialect `umbel.v1` over the wire: every command with its answer, every error code, batches, limits and rights.
//! What is quoted here is what `src/dialect/umbel_v1/v1.md` promises.

mod support;

use serde_json::{Value, json};

use support::frames::{self, CLOSE, CONTINUATION, FIN, TEXT};
use support::peers::{Http, Incoming, WebSocket, connect};
use support::umbel_v1::{BINARY, JSON, Peer, binary_publish, epoch, offer, offset, text};
use support::{Server, wait_until};

/// Both subprotocols: all but publications is the same on them.
const SUBPROTOCOLS: [&str; 2] = [JSON, BINARY];

fn open(server: &Server, subprotocol: &str) -> Peer {
    Peer::open_at(server.address(), "/ws", subprotocol)
}

#[test]
fn answer_for_each_command() {
    let server = Server::start(&["--topic-rule", "** presence=on"]);
    for subprotocol in SUBPROTOCOLS {
        let mut peer = open(&server, subprotocol);
        let answer = peer.ask(&json!({"type": "subscribe", "id": 0, "topic": subprotocol}));
        let position = text(&answer["position"]);
        let expected = json!({"type": "subscribed", "id": 0, "topic": subprotocol,
            "position": position});
        assert_eq!(answer, expected);
        assert_eq!(offset(&position), 0);
        peer.send(&json!({"type": "subscribe", "id": 4294967295u32, "pattern": "p/*"}));
        peer.expect(&json!({"type": "subscribed", "id": 4294967295u32, "pattern": "p/*"}));
        let who = peer.ask(&json!({"type": "presence", "id": 5, "topic": subprotocol}));
        let connection = text(&who["members"][0]["connection"]);
        let expected = json!({"type": "presence", "id": 5, "topic": subprotocol, "total": 1,
            "members": [{"connection": connection}]});
        assert_eq!(who, expected);
        peer.send(&json!({"type": "unsubscribe", "id": 2, "topic": subprotocol}));
        peer.expect(&json!({"type": "unsubscribed", "id": 2, "topic": subprotocol}));
        peer.send(&json!({"type": "unsubscribe", "id": 3, "pattern": "p/*"}));
        peer.expect(&json!({"type": "unsubscribed", "id": 3, "pattern": "p/*"}));
        let answer = peer.ask(&json!({"type": "publish", "id": 4, "topic": "t", "data": "x"}));
        let position = text(&answer["position"]);
        let expected = json!({"type": "published", "id": 4, "position": position});
        assert_eq!(answer, expected);
        assert_eq!(offset(&position), 1);
        peer.send(&json!({"type": "ping", "id": 6}));
        peer.expect(&json!({"type": "pong", "id": 6}));
    }
}

/// Publications by each way of publishing, as subscribers get them by JSON and by binary message.
#[test]
fn payloads_unchanged() {
    let server = Server::start(&[]);
    let mut publisher = open(&server, BINARY);
    let mut subscribers = SUBPROTOCOLS.map(|subprotocol| open(&server, subprotocol));
    for peer in &mut subscribers {
        peer.subscribe("t");
        peer.subscribe_pattern("**");
    }
    let publish = |fields: Value| {
        let mut command = json!({"type": "publish", "topic": "t"});
        let object = command.as_object_mut().expect("an object");
        object.extend(fields.as_object().expect("an object").clone());
        frames::text(&command.to_string())
    };
    let binary = |payload: &[u8], key| {
        let message = binary_publish(None, "t", key, payload);
        frames::masked(FIN | frames::BINARY, &message)
    };
    let by_text = frames::text(r#"{"type":"publish","topic":"t","data": { "price" : 3.10 } }"#);
    let cases: Vec<(Vec<u8>, &[u8], Option<&str>)> = vec![
        (
            publish(json!({"data": "a\n\u{1f33c}\u{0}"})),
            "a\n\u{1f33c}\u{0}".as_bytes(),
            None,
        ),
        (publish(json!({"data": ""})), b"", None),
        (by_text, b"{ \"price\" : 3.10 }", None),
        (publish(json!({"data": null})), b"null", None),
        (publish(json!({"base64": "/wA="})), b"\xff\0", None),
        (
            publish(json!({"data": "x", "key": "EUR\"USD"})),
            b"x",
            Some("EUR\"USD"),
        ),
        (
            binary("caf\u{e9}".as_bytes(), Some("k")),
            "caf\u{e9}".as_bytes(),
            Some("k"),
        ),
        (binary(b"\xfe", None), b"\xfe", None),
        (binary(b"", None), b"", None),
    ];
    for (frame, payload, key) in cases {
        publisher.send_bytes(&frame);
        for (subprotocol, peer) in SUBPROTOCOLS.iter().zip(&mut subscribers) {
            let mut got = [peer.next(), peer.next()];
            got.sort_by_key(|message| message.get("pattern").is_some());
            let mut expected = json!({"type": "publication", "topic": "t",
                "position": got[0]["position"]});
            let is_json = payload.starts_with(b"{") || payload == b"null";
            if is_json && *subprotocol == JSON {
                expected["content_type"] = "application/json".into();
            }
            if let Some(key) = key {
                expected["key"] = key.into();
            }
            match (std::str::from_utf8(payload), *subprotocol) {
                (Ok(text), _) => expected["data"] = text.into(),
                (Err(_), BINARY) => expected["bytes"] = payload.into(),
                (Err(_), _) => expected["base64"] = base64(payload).into(),
            }
            assert_eq!(got[0], expected, "{subprotocol}");
            expected["pattern"] = "**".into();
            assert_eq!(got[1], expected, "{subprotocol}");
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

#[test]
fn own_publications_and_overlapping_subscriptions() {
    let server = Server::start(&[]);
    let mut peer = open(&server, JSON);
    let first = peer.subscribe("t");
    peer.subscribe_pattern("t");
    peer.subscribe_pattern("*");
    peer.send(&json!({"type": "publish", "id": 9, "topic": "t", "data": "own"}));
    let position = format!("{}:1", epoch(&first));
    let mut kinds: Vec<String> = (0..4)
        .map(|_| {
            let message = peer.next();
            assert_eq!(message["position"], position.as_str(), "{message}");
            format!("{}{}", message["type"], message["pattern"])
        })
        .collect();
    kinds.sort();
    let expected = [
        "\"publication\"\"*\"",
        "\"publication\"\"t\"",
        "\"publication\"null",
        "\"published\"null",
    ];
    assert_eq!(kinds, expected);
    // The query of a topic has one form.
    peer.subscribe("q?a=1&b=2");
    peer.send(&json!({"type": "publish", "topic": "q?b=2&a=1", "data": "x"}));
    assert_eq!(peer.next()["topic"], "q?a=1&b=2");
}

#[test]
fn command_without_id() {
    let server = Server::start(&["--topic-rule", "there presence=on"]);
    for subprotocol in SUBPROTOCOLS {
        let mut peer = open(&server, subprotocol);
        peer.send(&json!([
            {"type": "subscribe", "topic": "t"},
            {"type": "subscribe", "pattern": "p/**"},
            {"type": "ping"},
            {"type": "presence", "topic": "there"},
            {"type": "publish", "topic": "other", "data": "x"},
            {"type": "publish", "topic": "other", "data": "x", "receipt": true},
            {"type": "unsubscribe", "pattern": "p/**"},
        ]));
        peer.expect_nothing_before_pong();
        let errors = [
            (
                json!({"type": "subscribe", "topic": "t"}),
                "already_subscribed",
            ),
            (
                json!({"type": "unsubscribe", "topic": "u"}),
                "not_subscribed",
            ),
            (json!({"type": "presence", "topic": "u"}), "unsupported"),
            (json!({"type": "ping", "topic": "u"}), "invalid_command"),
        ];
        for (command, code) in errors {
            assert_eq!(peer.error(&command), code);
        }
        // The subscription stands all the same.
        Http::connect(server.address()).publish("t", b"heard");
        assert_eq!(peer.publication().1, "heard");
    }
}

#[test]
fn batch_order_and_failures() {
    let server = Server::start(&[]);
    for subprotocol in SUBPROTOCOLS {
        let mut peer = open(&server, subprotocol);
        peer.send(&json!([
            {"type": "ping", "id": 1},
            {"type": "unsubscribe", "id": 2, "topic": "t"},
            17,
            {"type": "ping", "id": 3, "more": 1},
            {"type": "subscribe", "id": "4", "topic": "t"},
            {"type": "ping", "id": 5},
        ]));
        let answers: Vec<_> = (0..6).map(|_| peer.next()).collect();
        let shown = answers
            .iter()
            .map(|it| json!([it["id"], it["type"], it["code"]]));
        let expected = json!([
            [1, "pong", null],
            [2, "error", "not_subscribed"],
            [null, "error", "invalid_command"],
            [3, "error", "invalid_command"],
            [null, "error", "invalid_command"],
            [5, "pong", null],
        ]);
        assert_eq!(Value::Array(shown.collect()), expected);
        peer.send(&json!([]));
        peer.expect_nothing_before_pong();
        // Subscribing and publishing in one batch: a position before, everything after it.
        let publishes = (0..50).map(|it| json!({"type": "publish", "topic": "b", "data": it}));
        let mut batch = vec![json!({"type": "subscribe", "id": 1, "topic": "b"})];
        batch.extend(publishes);
        peer.send(&Value::Array(batch));
        let subscribed = peer.next();
        assert_eq!(subscribed["type"], "subscribed");
        let start = text(&subscribed["position"]);
        for number in 0..50 {
            let (position, data) = peer.publication();
            assert_eq!(data, number.to_string());
            assert_eq!(
                position,
                format!("{}:{}", epoch(&start), offset(&start) + 1 + number)
            );
        }
        peer.ask(&json!({"type": "unsubscribe", "id": 1, "topic": "b"}));
    }
}

/// A subscription may end and begin again before the hub has answered anything.
#[test]
fn subscribe_and_unsubscribe_in_one_batch() {
    for flags in [["--inline-shards", "true"], ["--inline-shards", "false"]] {
        let server = Server::start(&flags);
        let mut peer = open(&server, JSON);
        let on = |id: u32, what: &str| json!({"type": "subscribe", "id": id, what: "a"});
        let off = |id: u32, what: &str| json!({"type": "unsubscribe", "id": id, what: "a"});
        for what in ["topic", "pattern"] {
            peer.send(&json!([
                on(1, what),
                off(2, what),
                on(3, what),
                off(4, what),
                on(5, what)
            ]));
            let mut last = String::new();
            while last != "subscribed5" {
                let answer = peer.next();
                last = format!("{}{}", text(&answer["type"]), answer["id"]);
            }
            Http::connect(server.address()).publish("a", b"once");
            assert_eq!(peer.publication().1, "once");
            peer.expect_nothing_before_pong();
            peer.send(&json!([off(6, what), on(7, what), off(8, what)]));
            while last != "unsubscribed8" {
                let answer = peer.next();
                last = format!("{}{}", text(&answer["type"]), answer["id"]);
            }
            Http::connect(server.address()).publish("a", b"nobody");
            peer.expect_nothing_before_pong();
        }
        drop(peer);
        let gone = |name: &str| server.metric(name) == 0.0;
        wait_until("nothing is left", || {
            gone("umbel_topics") && gone("umbel_patterns")
        });
    }
}

/// Subscribe command for `name` by `field`.
fn subscribe(field: &str, name: &str) -> Value {
    json!({"type": "subscribe", "id": 1, field: name})
}

#[test]
fn malformed_commands() {
    let server = Server::start(&["--commands-per-message-max", "3"]);
    let long = "x".repeat(256);
    for subprotocol in SUBPROTOCOLS {
        let mut peer = open(&server, subprotocol);
        for message in [
            "",
            " ",
            "hello",
            "{",
            "[",
            "{\"type\":\"ping\"}}",
            "[1,]",
            "\u{feff}{}",
        ] {
            assert_eq!(peer.error_of_text(message), "invalid_json", "{message:?}");
        }
        for message in ["{}", "1", "\"ping\"", "null", "true"] {
            assert_eq!(
                peer.error_of_text(message),
                "invalid_command",
                "{message:?}"
            );
        }
        assert_eq!(peer.error_of_text("[1,2,3,4]"), "too_big");
        for topic in ["", &*long, "a\nb", "a\u{0}", "?x=1"] {
            let command = subscribe("topic", topic);
            assert_eq!(peer.error(&command), "invalid_topic", "{topic:?}");
        }
        for pattern in ["", &*long, "a*b", "**/a", "***", "a\n", "*/*/*/*/*"] {
            let command = subscribe("pattern", pattern);
            assert_eq!(peer.error(&command), "invalid_pattern", "{pattern:?}");
        }
        for since in [
            "",
            "x",
            "00000000000000a1",
            "00000000000000a1:",
            "0000000000000a1:1",
            "00000000000000a1:-1",
            "00000000000000a1:+1",
            "00000000000000a1:18446744073709551616",
            " 00000000000000a1:1",
            "00000000000000g1:1",
        ] {
            let mut command = subscribe("topic", "t");
            command["since"] = since.into();
            assert_eq!(peer.error(&command), "invalid_position", "{since:?}");
        }
        peer.expect_nothing_before_pong();
    }
}

/// Together with those above and below these are all codes that there are.
#[test]
fn impossible_commands() {
    let server = Server::start(&[
        "--reactors",
        "1",
        "--inline-shards",
        "false",
        "--subscriptions-max",
        "2",
        "--topics-max",
        "2",
        "--receipts-max",
        "1",
        "--publication-bytes-max",
        "100",
        "--topic-rule",
        "t presence=on",
    ]);
    for subprotocol in SUBPROTOCOLS {
        let mut peer = open(&server, subprotocol);
        let long = "x".repeat(101);
        let publish = json!({"type": "publish", "id": 1, "topic": "t", "data": long});
        assert_eq!(peer.error(&publish), "too_big");
        let unsubscribe = json!({"type": "unsubscribe", "id": 1, "topic": "t"});
        assert_eq!(peer.error(&unsubscribe), "not_subscribed");
        peer.subscribe("t");
        assert_eq!(peer.error(&subscribe("topic", "t")), "already_subscribed");
        peer.subscribe("t2");
        for field in ["topic", "pattern"] {
            assert_eq!(
                peer.error(&subscribe(field, "t3")),
                "too_many_subscriptions"
            );
        }
        let mut other = open(&server, subprotocol);
        assert_eq!(other.error(&subscribe("topic", "t3")), "too_many_topics");
        let presence = json!({"type": "presence", "id": 1, "topic": "t2"});
        assert_eq!(other.error(&presence), "unsupported");
        let publish =
            json!({"type": "publish", "id": 1, "topic": "u", "data": "", "receipt": true});
        other.send(&json!([publish, publish]));
        let mut answers = [other.next(), other.next()];
        answers.sort_by_key(|answer| answer["code"].is_null());
        assert_eq!(answers[0]["code"], "unavailable");
        assert_eq!(answers[1]["type"], "published");
        drop((peer, other));
        wait_until("the topics are gone", || {
            server.metric("umbel_topics") == 0.0
        });
    }
    let mut peer = open(&server, JSON);
    peer.send_binary(&binary_publish(Some(7), "t", None, b"x"));
    let answer = peer.next();
    assert_eq!(
        json!([answer["id"], answer["code"]]),
        json!([null, "unsupported"])
    );
}

#[test]
fn subprotocols() {
    let server = Server::start(&["--subprotocol", "chat"]);
    let status = |lines: &str| {
        let (head, _) = WebSocket::offer_on(connect(server.address(), 0), "/ws", lines);
        head.get(9..12).unwrap_or_default().to_owned()
    };
    for lines in [
        String::new(),
        offer("umbel.v2"),
        offer("UMBEL.V1"),
        offer("chat"),
        offer("umbel.v1x"),
    ] {
        assert_eq!(status(&lines), "400", "{lines}");
    }
    for (lines, agreed) in [
        (offer("chat, umbel.v1"), JSON),
        (offer("umbel.v1.bin, umbel.v1"), BINARY),
        (offer("umbel.v1,umbel.v1.bin"), JSON),
        (offer("x") + &offer(BINARY), BINARY),
    ] {
        let (head, _) = WebSocket::offer_on(connect(server.address(), 0), "/ws", &lines);
        let line = format!("\r\nSec-WebSocket-Protocol: {agreed}\r\n");
        assert!(
            head.starts_with("HTTP/1.1 101 ") && head.contains(&line),
            "{head}"
        );
    }
}

/// The codes of the page, as far as a peer can bring them about.
#[test]
fn close_codes() {
    let flags = ["--message-bytes-max", "2000", "--message-timeout-ms", "300"];
    let mut server = Server::start(&flags);
    let too_long = [frames::head(FIN | TEXT, 0x80, 2001), frames::MASK.to_vec()].concat();
    let invalid_utf8 = frames::masked(FIN | TEXT, b"{\"type\":\"\xff\"}");
    for (bytes, code) in [
        (frames::close(1000, "done"), 1000),
        (frames::masked(FIN | CLOSE, b""), 1005),
        (frames::unmasked(FIN | TEXT, b"{}"), 1002),
        (frames::masked(FIN | CONTINUATION, b"{}"), 1002),
        (invalid_utf8, 1007),
        (too_long, 1009),
        (frames::masked(TEXT, b"{\"type\":"), 1008),
    ] {
        for subprotocol in SUBPROTOCOLS {
            let mut peer = open(&server, subprotocol);
            peer.subscribe("t");
            peer.send_bytes(&bytes);
            let close = peer.socket.next();
            let is_right = matches!(close, Incoming::Close(found, _) if found == code);
            assert!(is_right, "{close:?} instead of {code}");
        }
    }
    let mut peers = SUBPROTOCOLS.map(|subprotocol| open(&server, subprotocol));
    peers.iter_mut().for_each(|peer| drop(peer.subscribe("t")));
    server.signal("TERM");
    for peer in peers {
        let mut socket = peer.socket;
        let close = socket.next();
        let is_right = matches!(close, Incoming::Close(1001 | 1012, _));
        assert!(is_right, "{close:?}");
        socket.answer_close(1001);
    }
    assert!(server.wait_for_exit(support::PATIENCE).success());
}

/// Answers to commands before a fault may come before the Close, never after it (RFC 6455 section 5.5.1).
#[test]
fn nothing_after_close() {
    for inline in ["true", "false"] {
        let server = Server::start(&[
            "--topic-rule",
            "room presence=on",
            "--message-timeout-ms",
            "200",
            "--close-timeout-ms",
            "1000",
            "--inline-shards",
            inline,
        ]);
        let commands = [
            json!({"type": "subscribe", "id": 1, "topic": "room"}),
            json!({"type": "subscribe", "id": 1, "pattern": "p/*"}),
            json!({"type": "presence", "id": 1, "topic": "room"}),
            json!({"type": "publish", "id": 1, "topic": "there", "data": "x"}),
            json!({"type": "publish", "id": 1, "topic": "there", "data": "x", "receipt": true}),
        ];
        for (command, subprotocol) in commands
            .iter()
            .flat_map(|it| SUBPROTOCOLS.map(|sub| (it, sub)))
        {
            let mut peer = open(&server, subprotocol);
            peer.subscribe("there");
            let fault = frames::unmasked(FIN | TEXT, b"{}");
            peer.send_bytes(&[frames::text(&command.to_string()), fault].concat());
            while !matches!(peer.socket.next(), Incoming::Close(1002, _)) {}
            assert_eq!(
                peer.socket.next(),
                Incoming::End,
                "inline {inline}: {command}"
            );
        }
        // The server waits for an answer to its Close while others come and go, and publish.
        let mut peer = open(&server, JSON);
        peer.subscribe("room");
        peer.subscribe_pattern("*");
        peer.send_bytes(&frames::masked(TEXT, b"never finished"));
        let close = peer.socket.next();
        assert!(matches!(close, Incoming::Close(1008, _)), "{close:?}");
        for _ in 0..3 {
            open(&server, JSON).subscribe("room");
            Http::connect(server.address()).publish("room", b"x");
        }
        assert_eq!(peer.socket.next(), Incoming::End);
    }
}

#[test]
fn pings_only() {
    let server = Server::start(&[
        // Less than this test takes, and enough for a handshake over TLS on a busy machine.
        "--handshake-timeout-ms",
        "1000",
        "--ping-interval-ms",
        "200",
        "--pong-timeout-ms",
        "200",
        "--message-timeout-ms",
        "200",
        "--keep-alive-timeout-ms",
        "200",
    ]);
    let mut peer = open(&server, JSON);
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(1200);
    let mut id = 0u32;
    while std::time::Instant::now() < deadline {
        peer.socket.send(frames::PING, b"there?");
        peer.send(&json!({"type": "ping", "id": id}));
        let mut left = 2;
        while left > 0 {
            match peer.socket.next() {
                Incoming::Pong(payload) => assert_eq!(payload, b"there?"),
                Incoming::Text(pong) => {
                    assert_eq!(pong, format!("{{\"type\":\"pong\",\"id\":{id}}}"));
                }
                Incoming::Ping(_) => continue,
                other => panic!("{other:?}"),
            }
            left -= 1;
        }
        id += 1;
        // A peer of 50 commands a second.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(id > 3);
    peer.subscribe("still here");
}
