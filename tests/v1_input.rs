//! Bad and odd input on connections that speak `umbel.v1` and `umbel.v1.bin`: JSON, binary messages, fragments and
//! compressed messages, and amounts of everything. A subscriber and a publisher beside it must not notice.

mod support;

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::canary::beside;
use support::frames::{self, CONTINUATION, FIN, TEXT};
use support::peers::{Http, Incoming, WebSocket, connect};
use support::process::rss_bytes;
use support::umbel_v1::{BINARY, JSON, Peer, binary_publish, offer, offset, text};
use support::{PATIENCE, Pieces, Random, Server, wait_until};

const RSV1: u8 = 0x40;

/// Messages that are not what they should be, with the code of the answer.
fn bad_messages() -> Vec<(String, &'static str)> {
    let deep = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
    let data = |data: &str| format!("{{\"type\":\"publish\",\"topic\":\"t\",\"data\":{data}}}");
    let mut messages = vec![
        (deep("[", "]"), "invalid_command"),
        ("[".repeat(100_000), "invalid_json"),
        (deep("{\"a\":", "}").replace(":}", ":1}"), "invalid_command"),
        (data(&deep("[", "]")), "invalid_command"),
        (data("1e999"), "invalid_command"),
        (data("-1e999"), "invalid_command"),
        (data("\"\\ud800\""), "invalid_command"),
        (data("01"), "invalid_json"),
        (data("NaN"), "invalid_json"),
        (data("\"\n\""), "invalid_json"),
        (data("1,\"data\":2"), "invalid_command"),
        (data("1,\"\\ud800\":2"), "invalid_command"),
        (data("1,\"\\ux\":2"), "invalid_json"),
        (data("1,\"base64\":\"AA==\""), "invalid_command"),
        (
            "{\"type\":\"publish\",\"topic\":\"t\",\"base64\":\"A\"}".to_owned(),
            "invalid_command",
        ),
        (
            "{\"type\":\"publish\",\"topic\":\"t\"}".to_owned(),
            "invalid_command",
        ),
        (
            "{\"type\":\"publish\",\"data\":\"x\"}".to_owned(),
            "invalid_command",
        ),
        (
            "{\"type\":\"subscribe\",\"topic\":\"t\",\"pattern\":\"t\"}".to_owned(),
            "invalid_command",
        ),
    ];
    messages.extend(wrong_types());
    messages
}

/// Commands with a field of a wrong type, or out of its range.
fn wrong_types() -> Vec<(String, &'static str)> {
    let mut messages = Vec::new();
    for (field, values) in [
        ("type", &["1", "null", "[]", "{}", "\"\"", "\"Ping\""][..]),
        (
            "id",
            &[
                "-1",
                "1.0",
                "1e3",
                "4294967296",
                "\"1\"",
                "null",
                "[1]",
                "1e999",
            ][..],
        ),
        ("topic", &["1", "null", "[\"a\"]", "{\"a\":1}"][..]),
        ("pattern", &["1", "true"][..]),
        ("since", &["1", "{}"][..]),
        ("last", &["-1", "\"1\"", "4294967296", "1.5"][..]),
        ("key", &["1", "\"\"", "\"a\\nb\""][..]),
        ("receipt", &["1", "\"true\"", "null"][..]),
    ] {
        for value in values {
            let mut fields: HashMap<&str, &str> = match field {
                "key" | "receipt" => {
                    [("type", "\"publish\""), ("topic", "\"t\""), ("data", "1")].into()
                }
                "pattern" => [("type", "\"subscribe\"")].into(),
                _ => [("type", "\"subscribe\""), ("topic", "\"t\"")].into(),
            };
            fields.insert(field, value);
            let fields = fields
                .iter()
                .map(|(name, value)| format!("\"{name}\":{value}"));
            let message = format!("{{{}}}", fields.collect::<Vec<_>>().join(","));
            messages.push((message, "invalid_command"));
        }
    }
    messages
}

#[test]
fn malformed_json() {
    let server = Server::start(&[]);
    let messages = bad_messages();
    beside(&server, 16 << 20, || {
        for subprotocol in [JSON, BINARY] {
            let mut peer = Peer::open_at(server.address(), "/ws", subprotocol);
            peer.subscribe("watched");
            for (message, code) in &messages {
                let shown = &message[..message.len().min(100)];
                assert_eq!(peer.error_of_text(message), *code, "{shown}");
                // In a batch it stands between others, which are carried out unless it is no JSON at all.
                peer.send_bytes(&frames::text(&format!(
                    "[{{\"type\":\"ping\",\"id\":1}},{message},{{\"type\":\"ping\",\"id\":2}}]"
                )));
                let answers = match *code {
                    "invalid_json" => vec![peer.next()],
                    _ => vec![peer.next(), peer.next(), peer.next()],
                };
                let shown_answers = answers
                    .iter()
                    .map(|it| text(&it["type"]))
                    .collect::<Vec<_>>();
                match *code {
                    "invalid_json" => assert_eq!(shown_answers, ["error"], "{shown}"),
                    _ => assert_eq!(shown_answers, ["pong", "error", "pong"], "{shown}"),
                }
            }
            peer.expect_nothing_before_pong();
        }
    });
}

/// Malformed JSON cut up by the network.
#[test]
fn malformed_json_in_fragments() {
    let server = Server::start(&[]);
    let messages = bad_messages();
    let short = messages.iter().filter(|(message, _)| message.len() < 1000);
    let cases: Vec<_> = short.collect();
    for pieces in Pieces::ALL {
        let mut wire = server.connect();
        wire.send(support::wire::upgrade_request("/ws", &offer(JSON)).as_bytes());
        assert_eq!(wire.read_response().status, 101);
        for (message, code) in &cases {
            assert!(wire.offer(&frames::text(message), pieces));
            let frame = wire.read_frame();
            let answer: Value = serde_json::from_slice(&frame.payload).expect("JSON");
            assert_eq!(answer["code"], *code, "{message}");
        }
    }
}

/// The header of a message of this length.
fn too_long(length: u64) -> Vec<u8> {
    [
        frames::head(FIN | TEXT, 0x80, length),
        frames::MASK.to_vec(),
    ]
    .concat()
}

#[test]
fn memory_of_16_mib_messages_released() {
    let server = Server::start(&[]);
    let size = 16 << 20;
    let padded = |text: &str| text.to_owned() + &" ".repeat(size - text.len());
    let messages = [
        (padded("{\"type\":\"ping\",\"id\":1}"), "pong"),
        (
            format!("{{\"type\":\"{}\"}}", "p".repeat(size - 11)),
            "invalid_command",
        ),
        (format!("[{}1]", "1,".repeat(size / 2 - 2)), "too_big"),
        ("[".repeat(size), "invalid_json"),
        (
            format!(
                "{{\"type\":\"publish\",\"topic\":\"t\",\"data\":\"{}\"}}",
                "x".repeat(size - 100)
            ),
            "too_big",
        ),
        (
            format!(
                "{{\"type\":\"publish\",\"topic\":\"{}\",\"data\":1}}",
                "x".repeat(size - 100)
            ),
            "invalid_topic",
        ),
    ];
    let send = |messages: &[(String, &str)]| {
        let mut peer = Peer::open(server.address());
        for (message, outcome) in messages {
            peer.send_bytes(&frames::text(message));
            let answer = peer.next();
            let got = answer.get("code").unwrap_or(&answer["type"]);
            assert_eq!(got, outcome);
            assert!(
                answer.to_string().len() < 1000,
                "a long message makes no long answer"
            );
        }
        peer.send_bytes(&too_long(size as u64 + 1));
        assert!(matches!(peer.socket.next(), Incoming::Close(1009, _)));
    };
    // What the allocator keeps for the next time does not count as growth.
    send(&messages[..1]);
    // A buffer that grows is there twice for a moment, and freed memory goes back to the system when the allocator likes. It
    // is less than what all of the messages take, so none may stay.
    beside(&server, 64 << 20, || send(&messages));
}

#[test]
fn malformed_binary_messages() {
    let server = Server::start(&["--publication-bytes-max", "1000"]);
    let whole = binary_publish(Some(77), "topic", Some("key"), "caf\u{e9}".as_bytes());
    let text_at = whole.len() - 5;
    beside(&server, 1 << 20, || {
        let mut peer = Peer::open_at(server.address(), "/ws", BINARY);
        peer.subscribe("topic");
        let mut check = |message: &[u8], id: Option<u32>, code: &str| {
            peer.send_binary(message);
            let answer = peer.next();
            let shown = json!([answer["type"], answer["id"], answer["code"]]);
            assert_eq!(
                shown,
                json!(["error", id, code]),
                "{}",
                message.escape_ascii()
            );
        };
        for length in 0..text_at {
            let id = (length >= 6).then_some(77);
            check(&whole[..length], id, "invalid_command");
        }
        // Half a letter.
        check(&whole[..whole.len() - 1], Some(77), "invalid_command");
        let changed = |at: usize, byte: u8| {
            let mut message = whole.clone();
            message[at] = byte;
            message
        };
        for kind in (0..=255).filter(|kind| !matches!(kind, 3 | 4)) {
            check(&changed(0, kind), None, "invalid_command");
        }
        for bit in 5..8 {
            check(&changed(1, 1 << bit), None, "invalid_command");
        }
        // Lengths that leave nothing for what follows, or nothing of the name.
        check(&changed(6, 255), Some(77), "invalid_command");
        check(&changed(6, 0), Some(77), "invalid_topic");
        check(&changed(7, 0xff), Some(77), "invalid_topic");
        check(&changed(7, b'\n'), Some(77), "invalid_topic");
        check(&changed(12, 255), Some(77), "invalid_command");
        check(&changed(12, 0), Some(77), "invalid_command");
        check(&changed(13, 0xff), Some(77), "invalid_command");
        check(&changed(13, 0), Some(77), "invalid_command");
        let big = binary_publish(Some(7), "topic", None, &[0xff; 1001]);
        check(&big, Some(7), "too_big");
        // Whatever it is, it is answered or published, and the connection stays.
        let mut random = Random::new(7);
        for _ in 0..2000 {
            let mut message = whole.clone();
            let at = random.below(message.len());
            message[at] = random.next() as u8;
            message.truncate(1 + random.below(message.len()));
            peer.send_binary(&message);
        }
        peer.send(&json!({"type": "ping", "id": 1}));
        while peer.next()["type"] != "pong" {}
        // What was published without a fault is told of before or after the pong; what follows has an id of its own.
        peer.send_binary(&binary_publish(Some(78), "topic", None, b"last"));
        let (mut is_published, mut has_come) = (false, false);
        while !(is_published && has_come) {
            let message = peer.next();
            is_published |= message["id"] == 78;
            has_come |= message["data"] == "last";
        }
    });
}

/// The bytes of a message in one block that is not compressed (RFC 1951 section 3.2.4), and the empty one's beginning
/// that a message of RFC 7692 ends with.
fn stored(payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    let mut block = vec![0];
    block.extend_from_slice(&length.to_le_bytes());
    block.extend_from_slice(&(!length).to_le_bytes());
    block.extend_from_slice(payload);
    block.push(0);
    block
}

fn open_deflating(server: &Server, subprotocol: &str) -> Peer {
    let lines = offer(subprotocol) + "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let (head, socket) = WebSocket::offer_on(connect(server.address(), 0), "/ws", &lines);
    assert!(head.contains("permessage-deflate"), "{head}");
    Peer { socket }
}

#[test]
fn commands_fragmented_and_compressed() {
    let server = Server::start(&[]);
    let publish = |data: usize| {
        format!("{{\"type\":\"publish\",\"id\":{data},\"topic\":\"t\",\"data\":{data}}}")
    };
    for subprotocol in [JSON, BINARY] {
        let mut peer = open_deflating(&server, subprotocol);
        let mut number = 0;
        for is_compressed in [false, true] {
            for fragments in [1, 2, 3, 40] {
                number += 1;
                let (opcode, payload) = match subprotocol {
                    JSON => (TEXT, publish(number).into_bytes()),
                    _ => {
                        let data = number.to_string();
                        let id = Some(number as u32);
                        (
                            frames::BINARY,
                            binary_publish(id, "t", None, data.as_bytes()),
                        )
                    }
                };
                let (first, payload) = match is_compressed {
                    true => (opcode | RSV1, stored(&payload)),
                    false => (opcode, payload),
                };
                let size = payload.len().div_ceil(fragments);
                let pieces: Vec<_> = payload.chunks(size).collect();
                for (index, piece) in pieces.iter().enumerate() {
                    let opcode = if index == 0 { first } else { CONTINUATION };
                    let fin = if index + 1 == pieces.len() { FIN } else { 0 };
                    peer.send_bytes(&frames::masked(fin | opcode, piece));
                    if fin == 0 {
                        // Control frames may stand between fragments.
                        peer.socket.send(frames::PING, b"between");
                        assert_eq!(peer.socket.next(), Incoming::Pong(b"between".to_vec()));
                    }
                }
                let answer = peer.next();
                assert_eq!(answer["type"], "published", "{answer}");
                assert_eq!(answer["id"], number);
            }
        }
    }
}

#[test]
fn long_publications_compressed() {
    use umbel::internals::protocol::Opcode;
    use umbel::internals::protocol::deflate::Inflater;
    let server = Server::start(&[]);
    let long = "what compresses well ".repeat(200);
    for subprotocol in [JSON, BINARY] {
        let mut plain = Peer::open_at(server.address(), "/ws", subprotocol);
        let lines = offer(subprotocol) + "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        let mut wire = server.connect();
        wire.send(support::wire::upgrade_request("/ws", &lines).as_bytes());
        assert_eq!(wire.read_response().status, 101);
        wire.send(&frames::text(r#"{"type":"subscribe","topic":"t"}"#));
        wire.send(&frames::text(
            r#"{"type":"subscribe","id":1,"pattern":"*"}"#,
        ));
        wire.read_frame();
        plain
            .socket
            .send_text(r#"{"type":"subscribe","topic":"t"}"#);
        plain.subscribe_pattern("*");
        let mut inflater = Inflater::new(true);
        let mut compressed = 0;
        for _ in 0..20 {
            Http::connect(server.address()).publish("t", long.as_bytes());
            for _ in 0..2 {
                let expected = match plain.socket.next() {
                    Incoming::Text(text) => text.into_bytes(),
                    Incoming::Binary(bytes) => bytes,
                    other => panic!("{other:?}"),
                };
                let frame = wire.read_frame();
                let mut inflated = Vec::new();
                match frame.first & RSV1 {
                    0 => inflated = frame.payload,
                    _ => {
                        compressed += 1;
                        let outcome = inflater.inflate(
                            Opcode::Binary,
                            &frame.payload,
                            1 << 20,
                            &mut inflated,
                        );
                        outcome.expect("it inflates");
                    }
                }
                assert!(inflated == expected);
            }
        }
        assert!(compressed >= 20, "{compressed}");
    }
}

#[test]
fn ten_thousand_commands_at_once() {
    let server = Server::start(&[]);
    beside(&server, 16 << 20, || {
        let peer = Peer::open(server.address());
        let mut writer = Peer {
            socket: WebSocket::of(peer.socket.stream().try_clone().expect("a clone")),
        };
        let mut peer = peer;
        let writing = thread::spawn(move || {
            let mut bytes = Vec::new();
            for id in 0..10_000 {
                let command = match id % 5 {
                    0 => json!({"type": "subscribe", "id": id, "topic": format!("t{}", id % 100)}),
                    1 => json!({"type": "ping", "id": id}),
                    2 => json!({"type": "publish", "id": id, "topic": "nobody", "data": id}),
                    3 => {
                        json!({"type": "unsubscribe", "id": id, "topic": format!("t{}", (id - 3) % 100)})
                    }
                    _ => json!({"type": "nonsense", "id": id}),
                };
                bytes.extend_from_slice(&frames::text(&command.to_string()));
            }
            writer.send_bytes(&bytes);
        });
        let mut last: HashMap<String, i64> = HashMap::new();
        let (mut count, mut offset_before) = (0, 0);
        while count < 8000 || last["error"] != 9999 {
            let answer = peer.next();
            let kind = text(&answer["type"]);
            let id = answer["id"].as_i64().expect("an id");
            // A subscription that ended before the hub spoke has no answer of its own but its end.
            let before = last.insert(kind.clone(), id).unwrap_or(-1);
            assert!(id > before, "{kind}: {id} after {before}");
            if kind == "published" {
                let position = text(&answer["position"]);
                // Nobody keeps this topic, so each publication is the first of its epoch.
                assert_eq!(offset(&position), 1);
                offset_before += 1;
            }
            count += usize::from(kind != "subscribed");
        }
        assert_eq!((count, offset_before), (8000, 2000));
        writing.join().expect("all is sent");
    });
}

/// More is published than the hub takes: publishers are held back, and nothing is lost or swapped.
#[test]
fn full_hub_holds_publishers() {
    const BATCHES: usize = 60;
    const OF_EACH: usize = 50;
    let server = Server::start(&[
        "--reactors",
        "2",
        "--inline-shards",
        "false",
        "--workers",
        "1",
        "--commands-max",
        "128",
        "--mailbox-messages-max",
        "16",
    ]);
    let mut subscriber = Peer::open(server.address());
    subscriber.subscribe("t");
    let publishers: Vec<_> = (0..2usize)
        .map(|name| {
            let mut peer = Peer::open(server.address());
            let mut writer = Peer {
                socket: WebSocket::of(peer.socket.stream().try_clone().expect("a clone")),
            };
            let writing = thread::spawn(move || {
                for batch in 0..BATCHES {
                    let publishes = (0..OF_EACH).map(|index| {
                        let number = batch * OF_EACH + index;
                        json!({"type": "publish", "id": number, "topic": "t",
                            "data": format!("{name}:{number}")})
                    });
                    writer.send(&Value::Array(publishes.collect()));
                }
            });
            thread::spawn(move || {
                for number in 0..BATCHES * OF_EACH {
                    let answer = peer.next();
                    assert_eq!(answer["type"], "published", "{answer}");
                    assert_eq!(answer["id"], number);
                }
                writing.join().expect("all is sent");
            })
        })
        .collect();
    let mut next = [0usize; 2];
    for expected in 1..=(2 * BATCHES * OF_EACH) as u64 {
        let (position, data) = subscriber.publication();
        assert_eq!(offset(&position), expected);
        let (name, number) = data.split_once(':').expect("name:number");
        let name: usize = name.parse().expect("a number");
        assert_eq!(number.parse(), Ok(next[name]), "publisher {name}");
        next[name] += 1;
    }
    publishers
        .into_iter()
        .for_each(|thread| thread.join().expect("all are answered"));
    assert!(
        server.metric("umbel_publish_holds_total") > 0.0,
        "the hub was never full"
    );
}

/// As many subscriptions to topics that nobody knows as can be made and ended in some seconds: nothing stays.
#[test]
fn subscriptions_released() {
    const TIME: Duration = Duration::from_secs(6);
    const BATCH: usize = 500;
    let server = Server::start(&["--topic-rule", "kept/** presence=on"]);
    let pid = server.pid();
    let mut peers: Vec<_> = (0..4).map(|_| Peer::open(server.address())).collect();
    let mut number = 0usize;
    let mut round = |peers: &mut [Peer]| {
        for peer in peers.iter_mut() {
            let name = |index: usize| {
                format!(
                    "{}{}",
                    if index.is_multiple_of(4) { "kept/" } else { "" },
                    number + index
                )
            };
            let command =
                |kind: &str, index: usize| json!({"type": kind, "id": index, "topic": name(index)});
            let batch = |kind: &str| (0..BATCH).map(|it| command(kind, it)).collect::<Vec<_>>();
            peer.send(&Value::Array(batch("subscribe")));
            (0..BATCH).for_each(|_| assert_eq!(peer.next()["type"], "subscribed"));
            peer.send(&Value::Array(batch("unsubscribe")));
            (0..BATCH).for_each(|_| assert_eq!(peer.next()["type"], "unsubscribed"));
            number += BATCH;
        }
    };
    // Memory that is used again does not count as growth.
    (0..3).for_each(|_| round(&mut peers));
    let before = rss_bytes(pid);
    let deadline = Instant::now() + TIME;
    while Instant::now() < deadline {
        round(&mut peers);
    }
    eprintln!("{number} topics");
    wait_until("no topic is left", || server.metric("umbel_topics") == 0.0);
    let grown = rss_bytes(pid).saturating_sub(before);
    assert!(grown < 4 << 20, "{number} topics left {grown} bytes");
    peers.iter_mut().for_each(Peer::expect_nothing_before_pong);
}

/// The table's hash is keyed anew in each process, so that colliding topics cannot be chosen. What can be tested from
/// outside: topics that collide under weak hashes cost what others cost.
#[test]
fn hash_collisions() {
    const TOPICS: usize = 4096;
    let server = Server::start(&["--subscriptions-max", "20000", "--reactors", "1"]);
    // `Aa` and `BB` have one sum under the hash of 31 and its like, and so has every word of them.
    let colliding = |index: usize| -> String {
        let bits = (0..14).map(|bit| if index >> bit & 1 == 0 { "Aa" } else { "BB" });
        bits.collect()
    };
    let plain = |index: usize| format!("{index:028}");
    let time = |name: &dyn Fn(usize) -> String| {
        let mut peer = Peer::open(server.address());
        let started = Instant::now();
        for start in (0..TOPICS).step_by(512) {
            let batch = (start..start + 512)
                .map(|it| json!({"type": "subscribe", "id": it, "topic": name(it)}));
            peer.send(&Value::Array(batch.collect()));
            (0..512).for_each(|_| assert_eq!(peer.next()["type"], "subscribed"));
        }
        let took = started.elapsed();
        drop(peer);
        wait_until("no topic is left", || server.metric("umbel_topics") == 0.0);
        took
    };
    time(&plain);
    let (plain, colliding) = (time(&plain), time(&colliding));
    assert!(
        colliding < plain * 4 + Duration::from_millis(200),
        "{colliding:?} against {plain:?}"
    );
    assert!(colliding < PATIENCE);
}
