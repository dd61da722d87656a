//! Receipts: outcomes of publications by each way of asking, and sums that add up.

mod support;

use serde_json::{Value, json};

use support::peers::{EventStream, Http, WebSocket, connect};
use support::umbel_v1::{BINARY, Peer, offset, text};
use support::{Server, wait_until};

/// The figures that have to be there: matched, written, queued, dropped.
fn figures(receipt: &Value) -> [u64; 4] {
    let fields = receipt
        .as_object()
        .unwrap_or_else(|| panic!("no receipt: {receipt}"));
    assert_eq!(fields.len(), 6, "{receipt}");
    let number = |name: &str| {
        receipt[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {receipt}"))
    };
    let figures = ["matched", "written", "queued", "dropped"].map(number);
    assert_eq!(
        figures[0],
        figures[1] + figures[2] + figures[3],
        "{receipt}"
    );
    match figures[1] {
        0 => assert!(
            receipt["first_write_us"].is_null() && receipt["last_write_us"].is_null(),
            "{receipt}"
        ),
        _ => assert!(
            number("first_write_us") <= number("last_write_us"),
            "{receipt}"
        ),
    }
    figures
}

fn request(topic: &str, lines: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /pub/{topic} HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
    )
}

fn json_of(response: &support::Response) -> Value {
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_str(response.text()).expect("JSON")
}

#[test]
fn receipt_by_every_publish_path() {
    for arguments in [["--inline-shards", "true"], ["--inline-shards", "false"]] {
        let server = Server::start(&arguments);
        let address = server.address();
        // Subscribers of every kind, over both reactors.
        let mut raw: Vec<_> = (0..6).map(|_| WebSocket::open(address, "/ws/t")).collect();
        let mut streams: Vec<_> = (0..4)
            .map(|_| EventStream::open(address, "/sse/t"))
            .collect();
        let mut many: Vec<_> = (0..4).map(|_| Peer::open(address)).collect();
        for peer in &mut many {
            peer.subscribe("t");
            peer.subscribe_pattern("*");
            peer.subscribe_pattern("**");
        }
        let all = [6 + 4 + 4 * 3, 6 + 4 + 4 * 3, 0, 0];
        let answer = json_of(&server.request(&request("t", "Umbel-Receipt: true\r\n", "x")));
        assert_eq!(figures(&answer["receipt"]), all);
        assert_eq!(answer["offset"], 1);
        for lines in ["", "Umbel-Receipt: false\r\n"] {
            let answer = json_of(&server.request(&request("t", lines, "x")));
            assert!(answer.get("receipt").is_none(), "{answer}");
        }
        let body = "{\"topic\":\"t\",\"data\":\"x\",\"receipt\":true}\n{\"topic\":\"t\",\"data\":\"x\"}\n\
                    {\"topic\":\"nobody/here\",\"data\":\"x\",\"receipt\":true}\n";
        let answer = Http::connect(address).publish_lines(body);
        let text = String::from_utf8(answer.body).expect("text");
        let lines: Vec<Value> = text
            .lines()
            .map(|it| serde_json::from_str(it).expect("JSON"))
            .collect();
        assert_eq!(figures(&lines[0]["receipt"]), all);
        assert!(lines[1].get("receipt").is_none());
        // Only `**` matches two segments.
        assert_eq!(figures(&lines[2]["receipt"]), [4, 4, 0, 0]);
        for subprotocol in [support::umbel_v1::JSON, BINARY] {
            let mut publisher = Peer::open_at(address, "/ws", subprotocol);
            let command =
                json!({"type": "publish", "id": 7, "topic": "t", "data": "x", "receipt": true});
            let answer = publisher.ask(&command);
            assert_eq!(
                (&answer["type"], &answer["id"]),
                (&json!("published"), &json!(7))
            );
            assert_eq!(figures(&answer["receipt"]), all);
        }
        let mut publisher = Peer::open_at(address, "/ws", BINARY);
        publisher.send_binary(b"\x03\x05\x00\x00\x00\x09\x01tx");
        let answer = publisher.next();
        assert_eq!(answer["id"], 9);
        assert_eq!(figures(&answer["receipt"]), all);
        raw.iter_mut().for_each(|it| assert_eq!(it.text(), "x"));
        streams.iter_mut().for_each(|it| assert_eq!(it.data(), "x"));
    }
}

#[test]
fn receipt_without_subscribers() {
    let server = Server::start(&["--topic-rule", "h/** history=3"]);
    for topic in ["nobody", "h/only/history"] {
        for expected in 1..=3 {
            let answer = json_of(&server.request(&request(topic, "Umbel-Receipt: true\r\n", "x")));
            assert_eq!(figures(&answer["receipt"]), [0; 4]);
            let kept = topic.starts_with("h/");
            assert_eq!(answer["offset"], if kept { expected } else { 1 });
        }
    }
    // It is in the history when it is answered.
    let answer = Peer::open(server.address()).ask(&json!({"type": "subscribe", "id": 1,
        "topic": "h/only/history", "last": 3}));
    assert_eq!(offset(&text(&answer["position"])), 3);
}

/// Readers that stopped have their publications waiting for them, and the receipt says so; those who are cut for it
/// are counted as dropped. Nothing waits for them.
#[test]
fn receipt_counts_queued_then_dropped() {
    const STALLED: u64 = 5;
    const READING: u64 = 3;
    let server = Server::start(&[
        "--outbox-bytes-max",
        "200000",
        "--publication-bytes-max",
        "100000",
        "--close-timeout-ms",
        "500",
        "--send-buffer-bytes",
        "16384",
        "--io-uring",
        "false",
    ]);
    let address = server.address();
    let stalled: Vec<_> = (0..STALLED)
        .map(|_| WebSocket::open_on(connect(address, 4096), "/ws/t"))
        .collect();
    let reading: Vec<_> = (0..READING)
        .map(|_| {
            let mut socket = WebSocket::open(address, "/ws/t");
            std::thread::spawn(move || socket.texts().0.len())
        })
        .collect();
    let body = "x".repeat(20_000);
    let (mut queued, mut dropped) = (0, 0);
    let mut left = STALLED + READING;
    let mut count = 0;
    while dropped < STALLED {
        let answer = json_of(&server.request(&request("t", "Umbel-Receipt: true\r\n", &body)));
        let [matched, written, waits, gone] = figures(&answer["receipt"]);
        assert_eq!(matched, left, "{answer}");
        assert!(written + waits >= READING, "{answer}");
        left -= gone;
        queued += waits;
        dropped += gone;
        count += 1;
        assert!(count < 1000, "{answer}");
    }
    assert!(
        queued >= STALLED,
        "they were queued for before they were cut: {queued}"
    );
    assert_eq!(dropped, STALLED);
    wait_until("they are counted", || {
        server.metric("umbel_slow_consumers_total") == STALLED as f64
    });
    drop(stalled);
    // Who reads has everything before its Close.
    server.signal("TERM");
    for reader in reading {
        assert_eq!(reader.join().expect("it read"), count);
    }
}

#[test]
fn receipts_max() {
    const RECEIPTS: usize = 300;
    let server = Server::start(&[
        "--receipts-max",
        "10",
        "--reactors",
        "2",
        "--inline-shards",
        "false",
    ]);
    let mut subscribers: Vec<_> = (0..4)
        .map(|_| WebSocket::open(server.address(), "/ws/t"))
        .collect();
    let mut peer = Peer::open(server.address());
    let commands = (0..RECEIPTS)
        .map(|id| json!({"type": "publish", "id": id, "topic": "t", "data": "x", "receipt": true}));
    peer.send(&Value::Array(commands.collect()));
    let (mut published, mut unavailable) = (Vec::new(), 0);
    for _ in 0..RECEIPTS {
        let answer = peer.next();
        match answer["type"].as_str() {
            Some("published") => {
                assert_eq!(figures(&answer["receipt"])[0], 4);
                published.push(answer["id"].as_u64().expect("an id"));
            }
            _ => {
                assert_eq!(answer["code"], "unavailable", "{answer}");
                unavailable += 1;
            }
        }
    }
    assert!(
        published.len() >= 10 && unavailable > 0,
        "{} {unavailable}",
        published.len()
    );
    // What was refused was not published.
    for subscriber in &mut subscribers {
        published
            .iter()
            .for_each(|_| assert_eq!(subscriber.text(), "x"));
    }
    // All of them are free again, by HTTP as well, whose lines are refused one by one.
    let line = "{\"topic\":\"t\",\"data\":\"x\",\"receipt\":true}\n";
    for _ in 0..3 {
        let answer = Http::connect(server.address()).publish_lines(&line.repeat(10));
        let text = String::from_utf8(answer.body).expect("text");
        assert_eq!(text.matches("\"receipt\"").count(), 10, "{text}");
        let answer = Http::connect(server.address()).publish_lines(&line.repeat(30));
        let text = String::from_utf8(answer.body).expect("text");
        let refused = text
            .lines()
            .filter(|it| it.contains("\"status\":503"))
            .count();
        assert_eq!(text.lines().count(), 30);
        assert!(refused > 0 && refused <= 20, "{text}");
    }
}

/// A line for whose receipt there is no room is refused alone: those behind it are published, in their order.
#[test]
fn line_without_receipt_refused_alone() {
    let server = Server::start(&["--receipts-max", "1"]);
    let mut subscriber = WebSocket::open(server.address(), "/ws/t");
    let line = |data: &str, receipt: bool| {
        json!({"topic": "t", "data": data, "receipt": receipt}).to_string() + "\n"
    };
    let body = [
        line("first", true),
        line("refused", true),
        line("second", false),
        line("refused too", true),
        line("third", false),
    ];
    let answer = Http::connect(server.address()).publish_lines(&body.concat());
    let text = String::from_utf8(answer.body).expect("text");
    let answers: Vec<Value> = text
        .lines()
        .map(|it| serde_json::from_str(it).expect("JSON"))
        .collect();
    assert_eq!(figures(&answers[0]["receipt"]), [1, 1, 0, 0]);
    for refused in [&answers[1], &answers[3]] {
        assert_eq!(refused["status"], 503, "{text}");
    }
    for (published, offset) in [(&answers[2], 2), (&answers[4], 3)] {
        assert_eq!(published["offset"], offset, "{text}");
    }
    for data in ["first", "second", "third"] {
        assert_eq!(subscriber.text(), data);
    }
}

/// Publishers that leave before their receipts come give them back.
#[test]
fn receipts_freed_with_publisher() {
    let server = Server::start(&["--receipts-max", "5", "--inline-shards", "false"]);
    let mut subscriber = Peer::open(server.address());
    subscriber.subscribe_pattern("**");
    for number in 0..100 {
        let mut peer = Peer::open(server.address());
        let command = json!({"type": "publish", "id": 1, "topic": format!("t/{number}"), "data": "x", "receipt": true});
        peer.send(&command);
        support::peers::reset(peer.socket.stream());
    }
    let mut free = 0;
    wait_until("five are free on each of the reactors", || {
        let mut peers = [Peer::open(server.address()), Peer::open(server.address())];
        free = 0;
        for peer in &mut peers {
            let commands = (0..5).map(|id| json!({"type": "publish", "id": id, "topic": "t", "data": "x", "receipt": true}));
            peer.send(&Value::Array(commands.collect()));
            free += (0..5)
                .filter(|_| peer.next()["type"] == "published")
                .count();
        }
        free == 10
    });
}
