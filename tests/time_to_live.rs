//! Messages with a time to live: in no history and recovered by nobody once it is over, and what a slow reader gets.

mod support;

use serde_json::json;

use support::peers::{Block, EventStream, Http, WebSocket, connect};
use support::umbel_v1::{BINARY, JSON, Peer};
use support::{Server, wait_until};

fn publish(http: &mut Http, topic: &str, text: &str, ttl_ms: Option<u64>) {
    let ttl = ttl_ms.map_or(String::new(), |ttl_ms| {
        format!("Umbel-Ttl-Ms: {ttl_ms}\r\n")
    });
    let head = format!(
        "POST /pub/{topic} HTTP/1.1\r\nHost: localhost\r\n{ttl}Content-Length: {}\r\n\r\n",
        text.len()
    );
    http.send(&[head.as_bytes(), text.as_bytes()].concat());
    assert_eq!(http.answer().expect("an answer").status, 200);
}

/// Waits until what was published before with 20 ms to live is over. The server has a rule by which `clock` keeps.
fn wait_until_over(server: &Server, http: &mut Http) {
    publish(http, "clock", "tick", Some(20));
    wait_until("they are over", || {
        let page = server.request("GET /history/clock HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(page.status, 200, "{page:?}");
        page.text().contains("\"publications\":[]")
    });
}

#[test]
fn recovery_leaves_out_what_is_over_and_says_so() {
    let server = Server::start(&["--topic-rule", "** history=100"]);
    let mut http = Http::connect(server.address());
    let mut subscriber = Peer::open(server.address());
    let since = subscriber.subscribe("a");
    for (text, ttl_ms) in [
        ("1", None),
        ("2", Some(20)),
        ("3", Some(20)),
        ("4", Some(60_000)),
        ("5", Some(20)),
    ] {
        publish(&mut http, "a", text, ttl_ms);
        assert_eq!(subscriber.publication().1, text, "live as any other");
    }
    wait_until_over(&server, &mut http);
    let at = |offset: u64| since.replace(":0", &format!(":{offset}"));
    for subprotocol in [JSON, BINARY] {
        let mut late = Peer::open_at(server.address(), "/ws", subprotocol);
        let answer = late.subscribe_since("a", &since);
        assert_eq!(answer["recovered"], true, "{answer}");
        assert_eq!(late.publication(), (at(1), "1".to_owned()));
        late.expect(&json!({"type": "gap", "topic": "a", "from": at(2), "to": at(3)}));
        assert_eq!(late.publication(), (at(4), "4".to_owned()));
        late.expect(&json!({"type": "gap", "topic": "a", "from": at(5), "to": at(5)}));
        late.expect_nothing_before_pong();
    }
    let mut last = Peer::open(server.address());
    last.ask(&json!({"type": "subscribe", "id": 1, "topic": "a", "last": 3}));
    assert_eq!(last.publication(), (at(4), "4".to_owned()));
    let mut events = EventStream::open(server.address(), &format!("/sse/a?since={since}"));
    let event = |text: &str| Block::Event("message".to_owned(), text.to_owned());
    assert_eq!((events.next(), events.next()), (event("1"), event("4")));
    let mut raw = WebSocket::open(server.address(), "/ws/a?last=2");
    assert_eq!(raw.text(), "4");
    publish(&mut http, "a", "6", None);
    assert_eq!((events.next(), raw.text()), (event("6"), "6".to_owned()));
    wait_until("its memory goes", || {
        server.metric("umbel_history_publications") <= 3.0
    });
}

#[test]
fn slow_reader_gets_gap_for_what_is_over() {
    const COUNT: u64 = 60;
    let server = Server::start(&[
        "--topic-rule",
        "clock history=100",
        "--topic-rule",
        "dropping slow_consumer=drop-oldest",
        "--topic-rule",
        "latest slow_consumer=latest",
        "--topic-rule",
        "closing slow_consumer=close",
        "--outbox-bytes-max",
        "16777216",
    ]);
    let mut http = Http::connect(server.address());
    let big = "x".repeat(64 * 1024);
    for (topic, goes) in [("dropping", true), ("latest", true), ("closing", false)] {
        let mut slow = Peer::open_on(connect(server.address(), 4096), "/ws", JSON);
        slow.subscribe(topic);
        // It reads nothing meanwhile: most of these wait.
        for number in 0..COUNT {
            let ttl_ms = (number % 2 == 1).then_some(20);
            let key = format!("Umbel-Key: {number}\r\n");
            let ttl = ttl_ms.map_or(String::new(), |it: u64| format!("Umbel-Ttl-Ms: {it}\r\n"));
            let head = format!(
                "POST /pub/{topic} HTTP/1.1\r\nHost: localhost\r\n{key}{ttl}Content-Length: {}\r\n\r\n",
                big.len()
            );
            http.send(&[head.as_bytes(), big.as_bytes()].concat());
            assert_eq!(http.answer().expect("an answer").status, 200);
        }
        wait_until_over(&server, &mut http);
        let (mut came, mut told, mut next) = (0, 0, 1);
        while came + told < COUNT && next <= COUNT {
            let message = slow.next();
            let offset = |name: &str| {
                let position = message[name].as_str().expect("a position");
                support::umbel_v1::offset(position)
            };
            match message["type"].as_str() {
                Some("publication") => {
                    let leaps = topic == "latest";
                    assert!(offset("position") == next || leaps, "{topic}");
                    told += offset("position") - next;
                    next = offset("position") + 1;
                    came += 1;
                }
                Some("gap") => {
                    assert_eq!((topic, offset("from")), ("dropping", next));
                    told += offset("to") + 1 - next;
                    next = offset("to") + 1;
                }
                _ => panic!("{message}"),
            }
            if topic == "latest" && next == COUNT {
                // The last one is over, and no marker says so.
                break;
            }
        }
        assert_eq!(told > 10, goes, "{topic}: {came} came, {told} did not");
    }
}

#[test]
fn times_to_live_that_are_none() {
    let server = Server::start(&[]);
    let mut peer = Peer::open(server.address());
    for ttl_ms in [
        json!(0),
        json!(31_536_000_001u64),
        json!(-1),
        json!(1.5),
        json!("1"),
        json!(null),
    ] {
        let command =
            json!({"type": "publish", "id": 1, "topic": "a", "data": "x", "ttl_ms": ttl_ms});
        assert_eq!(peer.error(&command), "invalid_command", "{ttl_ms}");
    }
    for (header, status) in [("1", 200), ("0", 400), ("1s", 400), ("+1", 400), ("", 400)] {
        let request = format!(
            "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nUmbel-Ttl-Ms: {header}\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(server.request(&request).status, status, "{header}");
    }
}
