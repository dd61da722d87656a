//! One order for each topic, the same for every subscriber, whoever publishes and by whatever way; and no silent gap.

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread;

use support::Server;
use support::peers::{EventStream, Http, Incoming, WebSocket, connect};

const WEBSOCKET_PUBLISHERS: usize = 3;
const HTTP_PUBLISHERS: usize = 3;
const MESSAGES: usize = 200;
const ALL_MESSAGES: usize = (WEBSOCKET_PUBLISHERS + HTTP_PUBLISHERS) * MESSAGES;

/// Publishes over a WebSocket that subscribes too, and gives what came back.
fn publish_by_websocket(mut socket: WebSocket, name: usize) -> Vec<String> {
    for number in 0..MESSAGES {
        socket.send_text(&format!("ws{name}:{number}"));
    }
    (0..ALL_MESSAGES).map(|_| socket.text()).collect()
}

/// Publishes over HTTP, and gives the messages with the offsets that they were given.
fn publish_by_http(address: SocketAddr, name: usize) -> Vec<(String, u64)> {
    let mut http = Http::connect(address);
    let messages = (0..MESSAGES).map(|number| format!("http{name}:{number}"));
    let publish = |message: String| {
        let offset = http.publish("orders", message.as_bytes());
        (message, offset)
    };
    messages.map(publish).collect()
}

fn check_one_order(arguments: &[&str]) {
    let server = Server::start(arguments);
    let address = server.address();
    let open = || WebSocket::open(address, "/ws/orders");
    let mut readers = Vec::new();
    for _ in 0..6 {
        let mut socket = open();
        readers.push(thread::spawn(move || {
            (0..ALL_MESSAGES).map(|_| socket.text()).collect()
        }));
    }
    for _ in 0..3 {
        let mut stream = EventStream::open(address, "/sse/orders");
        readers.push(thread::spawn(move || {
            (0..ALL_MESSAGES).map(|_| stream.data()).collect()
        }));
    }
    // All subscribe before anybody publishes.
    let sockets: Vec<_> = (0..WEBSOCKET_PUBLISHERS).map(|_| open()).collect();
    for (name, socket) in sockets.into_iter().enumerate() {
        readers.push(thread::spawn(move || publish_by_websocket(socket, name)));
    }
    let publishers: Vec<_> = (0..HTTP_PUBLISHERS)
        .map(|name| thread::spawn(move || publish_by_http(address, name)))
        .collect();
    let positions = publishers
        .into_iter()
        .flat_map(|thread| thread.join().expect("published"));
    let positions: Vec<(String, u64)> = positions.collect();
    let mut orders = readers
        .into_iter()
        .map(|thread| thread.join().expect("read"));
    let order: Vec<String> = orders.next().expect("a reader");
    for other in orders {
        assert_eq!(other, order);
    }
    check_publishers_own_order(&order);
    for (message, offset) in positions {
        assert_eq!(order[offset as usize - 1], message);
    }
}

/// Every publisher's messages are all there, in the order in which it sent them.
fn check_publishers_own_order(order: &[String]) {
    let mut next: HashMap<&str, usize> = HashMap::new();
    for message in order {
        let (publisher, number) = message.split_once(':').expect("publisher:number");
        let expected = next.entry(publisher).or_default();
        assert_eq!(number.parse(), Ok(*expected), "{publisher}");
        *expected += 1;
    }
    assert_eq!(next.len(), WEBSOCKET_PUBLISHERS + HTTP_PUBLISHERS);
    assert!(next.values().all(|&count| count == MESSAGES), "{next:?}");
}

#[test]
fn one_order_with_two_reactors_and_inline_shards() {
    check_one_order(&["--reactors", "2", "--inline-shards", "true"]);
}

#[test]
fn one_order_with_two_reactors_and_workers() {
    check_one_order(&[
        "--reactors",
        "2",
        "--inline-shards",
        "false",
        "--workers",
        "2",
    ]);
}

#[test]
fn one_order_with_four_reactors_and_inline_shards() {
    check_one_order(&["--reactors", "4", "--inline-shards", "true"]);
}

#[test]
fn one_order_without_io_uring() {
    check_one_order(&["--reactors", "2", "--io-uring", "false"]);
}

#[test]
fn one_order_with_four_reactors_and_workers() {
    check_one_order(&[
        "--reactors",
        "4",
        "--inline-shards",
        "false",
        "--workers",
        "2",
    ]);
}

#[test]
fn query_parameters_sorted() {
    let server = Server::start(&["--reactors", "2"]);
    let address = server.address();
    let mut subscriber = WebSocket::open(address, "/ws/tokens?chain_id=100000&side=buy&token=t");
    let mut other = WebSocket::open(address, "/ws/tokens?chain_id=1&side=buy");
    let mut stream = EventStream::open(address, "/sse/tokens?side=buy&chain_id=100000");
    let mut http = Http::connect(address);
    http.publish("tokens?side=buy&chain_id=1", b"one");
    http.publish("tokens?side=buy&chain_id=100000", b"hundred thousand");
    assert_eq!(subscriber.text(), "hundred thousand");
    assert_eq!(stream.data(), "hundred thousand");
    assert_eq!(other.text(), "one");
}

#[test]
fn publish_lines_in_order() {
    let server = Server::start(&["--reactors", "2"]);
    let mut subscriber = WebSocket::open(server.address(), "/ws/lines");
    let lines = |count: usize| (0..count).map(|number| format!("line {number}"));
    let body: String = lines(500)
        .map(|line| format!("{{\"topic\":\"lines\",\"data\":\"{line}\"}}\n"))
        .collect();
    let mut http = Http::connect(server.address());
    let answer = http.publish_lines(&body);
    assert_eq!(answer.status, 200);
    let offsets: Vec<_> = answer.body.split(|&byte| byte == b'\n').collect();
    assert_eq!(offsets.len(), 501);
    for line in lines(500) {
        assert_eq!(subscriber.text(), line);
    }
}

#[test]
fn large_publications() {
    let server = Server::start(&["--reactors", "2"]);
    let address = server.address();
    let mut subscribers: Vec<_> = (0..4)
        .map(|_| WebSocket::open(address, "/ws/large"))
        .collect();
    let mut http = Http::connect(address);
    for round in 0..2u8 {
        // 0xff is no UTF-8, so the publication is binary.
        let mut publication = vec![0xff; 1 << 20];
        publication[usize::from(round)] = round;
        http.publish("large", &publication);
        for subscriber in &mut subscribers {
            assert!(subscriber.next() == Incoming::Binary(publication.clone()));
        }
    }
}

#[test]
fn flood_has_no_silent_gap() {
    let server = Server::start(&[
        "--reactors",
        "2",
        "--outbox-bytes-max",
        "65536",
        "--publication-bytes-max",
        "16384",
    ]);
    let address = server.address();
    const FLOOD: usize = 1000;
    let padding = "x".repeat(4000);
    let readers: Vec<_> = (0..8)
        .map(|number| {
            let stream = connect(address, if number < 4 { 4096 } else { 0 });
            let mut socket = WebSocket::open_on(stream, "/ws/flood");
            thread::spawn(move || {
                let mut seen = 0;
                loop {
                    match socket.next() {
                        Incoming::Text(text) => {
                            let number = text.split(' ').next().expect("a number");
                            assert_eq!(number.parse(), Ok(seen), "a gap");
                            seen += 1;
                            if seen == FLOOD {
                                return None;
                            }
                        }
                        Incoming::Close(code, _) => return Some(code),
                        other => panic!("{other:?} after {seen}"),
                    }
                }
            })
        })
        .collect();
    // Many lines of one request are as fast as a flood gets.
    let mut publisher = Http::connect(address);
    for hundred in 0..FLOOD / 100 {
        let lines = (hundred * 100..hundred * 100 + 100)
            .map(|number| format!("{{\"topic\":\"flood\",\"data\":\"{number} {padding}\"}}\n"));
        let answer = publisher.publish_lines(&lines.collect::<String>());
        assert_eq!(answer.status, 200);
    }
    let codes: Vec<_> = readers
        .into_iter()
        .map(|thread| thread.join().expect("no gap"))
        .collect();
    for code in &codes {
        assert!(matches!(code, None | Some(1013)), "{codes:?}");
    }
    let cut = codes.iter().flatten().count() as f64;
    assert!(server.metric("umbel_slow_consumers_total") >= cut);
}

/// A subscriber whose handshake is answered misses nothing that is published from then on, on whichever reactors the
/// two connections are. Subscribers of the same topic come and go meanwhile, so that the topic dies and is born again
/// at any moment.
fn check_nothing_is_missed(arguments: &[&str]) {
    const ROUNDS: usize = 300;
    let server = Server::start(arguments);
    let address = server.address();
    let mut publishers: Vec<_> = (0..8).map(|_| Http::connect(address)).collect();
    for round in 0..ROUNDS {
        let publisher = &mut publishers[round % 8];
        let target = format!("/ws/born{}", round % 3);
        let mut subscriber = WebSocket::open(address, &target);
        publisher.publish(&target[4..], format!("{round}").as_bytes());
        assert_eq!(subscriber.text(), format!("{round}"));
        if round % 2 == 0 {
            let mut second = WebSocket::open(address, &target);
            drop(subscriber);
            publisher.publish(&target[4..], b"second");
            assert_eq!(second.text(), "second");
        }
        if round % 5 == 0 {
            let mut stream = EventStream::open(address, &format!("/sse/s{round}"));
            publisher.publish(&format!("s{round}"), b"event");
            assert_eq!(stream.data(), "event");
        }
    }
}

#[test]
fn no_gap_after_handshake_with_inline_shards() {
    check_nothing_is_missed(&["--reactors", "4", "--inline-shards", "true"]);
}

#[test]
fn no_gap_after_handshake_with_workers() {
    check_nothing_is_missed(&[
        "--reactors",
        "4",
        "--inline-shards",
        "false",
        "--workers",
        "2",
    ]);
}
