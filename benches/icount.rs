//! One hot path, run a given number of times, for callgrind to count: see `scripts/icount`.
//!
//! It measures user-space instructions of what the server does for one delivery, one message, one ping, one connection,
//! because these can be compared between runs where times cannot: two runs of the same program differ by less than a
//! thousandth. The kernel's own work is not in it. Noise: other versions of rustc, of the C library or of a processor's
//! vector units give other counts.
//!
//! There are two kinds of scenario. Those whose name begins with `tick_` run the reactor's own tick over real sockets: the
//! wait for events, the mail, the deadlines, the system calls up to their door, and what the peer's end needs to write
//! and read. The others call the reactor's connections over a transport in memory, a few dozen instructions that take the
//! kernel's place, so what is left is decoding, the hub and encoding alone.
//!
//! ```sh
//! cargo bench --bench icount -- SCENARIO ROUNDS
//! ```
//!
//! Without arguments it lists its scenarios, each with its usual rounds and what one round counts for. What is spent
//! besides the rounds cancels out in the difference between a run of some and a run of twice as many.

#[path = "../tests/support/node.rs"]
mod node;
#[path = "../tests/support/socket_node.rs"]
mod socket_node;

use std::hint::black_box;

use node::{Node, upgrade};
use socket_node::SocketNode;
use umbel::ConnectionId;
use umbel::config::Limits;
use umbel::internals::protocol::{Opcode, encode_frame};

/// The subscribers of a topic, and the connections of a sweep.
const MANY: usize = 1000;

/// Publications, or messages, that come together.
const BATCH: usize = 16;

const KEY: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A scenario: it sets up what it needs and then runs so many rounds.
struct Scenario {
    name: &'static str,
    /// As many as give a steady figure.
    rounds: usize,
    /// What is counted in one round: deliveries, messages, connections.
    units: usize,
    run: fn(usize),
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "delivery",
        rounds: 100,
        units: MANY,
        run: deliver_one,
    },
    Scenario {
        name: "delivery_in_batch_of_16",
        rounds: 50,
        units: MANY * BATCH,
        run: deliver_batch,
    },
    Scenario {
        name: "echo_20_bytes",
        rounds: 5000,
        units: 1,
        run: |rounds| echo(rounds, 20, 1),
    },
    Scenario {
        name: "echo_512_bytes",
        rounds: 5000,
        units: 1,
        run: |rounds| echo(rounds, 512, 1),
    },
    Scenario {
        name: "echo_16_pipelined",
        rounds: 1000,
        units: BATCH,
        run: |rounds| echo(rounds, 20, BATCH),
    },
    Scenario {
        name: "publish_websocket",
        rounds: 5000,
        units: 1,
        run: publish_websocket,
    },
    Scenario {
        name: "publish_http",
        rounds: 2000,
        units: 1,
        run: publish_http,
    },
    Scenario {
        name: "ping_and_pong",
        rounds: 20,
        units: MANY,
        run: ping,
    },
    Scenario {
        name: "connection_opened_and_closed",
        rounds: 10,
        units: BATCH * BATCH,
        run: open_and_close,
    },
    Scenario {
        name: "tick_delivery",
        rounds: 20,
        units: MANY,
        run: |rounds| tick_delivery(rounds, &upgrade("/ws/news"), ""),
    },
    Scenario {
        name: "tick_v1_delivery",
        rounds: 20,
        units: MANY,
        run: |rounds| {
            let subscribe = r#"{"type":"subscribe","id":1,"topic":"news"}"#;
            tick_delivery(rounds, &v1_upgrade(), subscribe);
        },
    },
    Scenario {
        name: "tick_pattern_delivery",
        rounds: 20,
        units: MANY,
        run: |rounds| {
            let subscribe = r#"{"type":"subscribe","id":1,"pattern":"*"}"#;
            tick_delivery(rounds, &v1_upgrade(), subscribe);
        },
    },
    Scenario {
        name: "tick_sse_delivery",
        rounds: 20,
        units: MANY,
        run: |rounds| tick_delivery(rounds, b"GET /sse/news HTTP/1.1\r\nHost: x\r\n\r\n", ""),
    },
    Scenario {
        name: "tick_v1_publish",
        rounds: 500,
        units: 1,
        run: tick_v1_publish,
    },
    Scenario {
        name: "tick_echo",
        rounds: 1000,
        units: 1,
        run: tick_echo,
    },
    Scenario {
        name: "tick_opened_and_closed",
        rounds: 5,
        units: BATCH * BATCH,
        run: tick_open_and_close,
    },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` adds an argument of its own.
    let words: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|word| *word != "--bench")
        .collect();
    let [name, rounds] = words[..] else {
        for scenario in SCENARIOS {
            println!("{} {} {}", scenario.name, scenario.rounds, scenario.units);
        }
        return;
    };
    let scenario = SCENARIOS
        .iter()
        .find(|scenario| scenario.name == name)
        .expect("the name of a scenario");
    let rounds = rounds.parse().expect("a number of rounds");
    (scenario.run)(rounds);
}

fn new_node() -> Node {
    Node::new(&Limits::default())
}

fn masked(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame(&mut frame, opcode, payload, Some(KEY));
    frame
}

fn with_subscribers() -> (Node, Vec<ConnectionId>) {
    let mut node = new_node();
    let ids = (0..MANY).map(|_| node.connect("/ws/news")).collect();
    node.tick();
    (node, ids)
}

/// One publication of 24 bytes to each of many subscribers.
fn deliver_one(rounds: usize) {
    let (mut node, ids) = with_subscribers();
    let before = node.written(ids[0]);
    for _ in 0..rounds {
        node.publish("news", black_box(b"a message of some length"));
    }
    assert_eq!(node.written(ids[MANY - 1]) - before, rounds * (2 + 24));
}

/// Publications that come in one tick.
fn deliver_batch(rounds: usize) {
    let (mut node, ids) = with_subscribers();
    let before = node.written(ids[0]);
    for _ in 0..rounds {
        for _ in 0..BATCH {
            node.submit("news", black_box(b"a message of some length"));
        }
        node.tick();
    }
    let written = node.written(ids[MANY - 1]) - before;
    assert_eq!(written, rounds * BATCH * (2 + 24));
}

/// `count` texts of `len` bytes in one read, each sent back.
fn echo(rounds: usize, len: usize, count: usize) {
    let mut node = new_node();
    let id = node.connect("/echo");
    let frames = masked(Opcode::Text, &vec![b'x'; len]).repeat(count);
    let before = node.written(id);
    for _ in 0..rounds {
        node.send(id, black_box(&frames));
    }
    assert!(node.written(id) - before >= rounds * count * len);
}

/// A text of 20 bytes from one of two subscribers to both.
fn publish_websocket(rounds: usize) {
    let mut node = new_node();
    let publisher = node.connect("/ws/news");
    let subscriber = node.connect("/ws/news");
    let frame = masked(Opcode::Text, &[b'x'; 20]);
    let before = node.written(subscriber);
    for _ in 0..rounds {
        node.send(publisher, black_box(&frame));
    }
    assert_eq!(node.written(subscriber) - before, rounds * (2 + 20));
}

/// `POST /pub/news` with 20 bytes on a connection that stays, to one subscriber.
fn publish_http(rounds: usize) {
    let mut node = new_node();
    let subscriber = node.connect("/ws/news");
    let request =
        b"POST /pub/news HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n01234567890123456789";
    let publisher = node.accept(request.to_vec());
    node.tick();
    let before = node.written(subscriber);
    for _ in 0..rounds {
        node.send(publisher, black_box(request));
    }
    assert_eq!(node.written(subscriber) - before, rounds * (2 + 20));
}

/// An interval in which each connection is pinged and answers.
fn ping(rounds: usize) {
    let (mut node, ids) = with_subscribers();
    let interval_ms = Limits::default().ping_interval_ms;
    let pong = masked(Opcode::Pong, b"");
    let before = node.written(ids[0]);
    for _ in 0..rounds {
        node.now_ms += interval_ms;
        node.sweep();
        for &id in &ids {
            node.receive(id, black_box(&pong));
        }
        node.tick();
    }
    assert_eq!(node.written(ids[0]) - before, rounds * 2);
}

/// Connections that open, subscribe to a topic that others hold, and leave.
fn open_and_close(rounds: usize) {
    let (mut node, _) = with_subscribers();
    let request = upgrade("/ws/news");
    for _ in 0..rounds {
        let ids: Vec<_> = (0..BATCH * BATCH)
            .map(|_| node.accept(black_box(&request).clone()))
            .collect();
        node.tick();
        for id in ids {
            node.transport(id).is_ended = true;
            node.handle_readable(id, true);
        }
        node.tick();
        assert_eq!(node.connections.len(), MANY);
    }
}

/// A node over sockets, on which nobody is pinged however slowly it runs.
fn new_socket_node() -> SocketNode {
    let mut limits = Limits::default();
    limits.ping_interval_ms = 3_600_000;
    SocketNode::new(&limits)
}

/// The request of an upgrade to `umbel.v1`.
fn v1_upgrade() -> Vec<u8> {
    let mut request = upgrade("/ws");
    request.truncate(request.len() - 2);
    request.extend_from_slice(b"Sec-WebSocket-Protocol: umbel.v1\r\n\r\n");
    request
}

/// One publication of 24 bytes to each of many subscribers, who begin with `request`, and with `command` if there is one.
/// The peers do not read between: a read at the other end of a socket pair is an event at this one, as it is not with TCP.
fn tick_delivery(rounds: usize, request: &[u8], command: &str) {
    let mut node = new_socket_node();
    let mut peers = node.open(MANY, request);
    for peer in &mut peers {
        if !command.is_empty() {
            node.send(peer, &masked(Opcode::Text, command.as_bytes()));
        }
        assert!(node.received(peer).len() > 100, "a head, and an answer");
    }
    // What the reads gave rise to.
    node.publish("news", b"the first");
    let payload = b"a message of some length";
    for _ in 0..rounds {
        node.publish("news", black_box(payload));
    }
    let received = node.received(&mut peers[MANY - 1]);
    assert!(received.len() > rounds * payload.len(), "each came");
}

/// An `umbel.v1` connection publishes a text of 20 bytes to a topic that another subscribes to, and is answered.
fn tick_v1_publish(rounds: usize) {
    let mut node = new_socket_node();
    let [mut subscriber, mut publisher] =
        <[_; 2]>::try_from(node.open(2, &v1_upgrade())).expect("2");
    let subscribe = br#"{"type":"subscribe","id":1,"topic":"news"}"#;
    node.send(&mut subscriber, &masked(Opcode::Text, subscribe));
    for peer in [&mut subscriber, &mut publisher] {
        assert!(node.received(peer).len() > 100, "a head, and an answer");
    }
    let publish = br#"{"type":"publish","id":2,"topic":"news","data":"01234567890123456789"}"#;
    let frame = masked(Opcode::Text, publish);
    for _ in 0..rounds {
        node.send(&mut publisher, black_box(&frame));
        assert!(
            node.received(&mut subscriber).len() > 20 && node.received(&mut publisher).len() > 20
        );
    }
}

/// A text of 20 bytes, sent back.
fn tick_echo(rounds: usize) {
    let mut node = new_socket_node();
    let mut peers = node.open(1, &upgrade("/echo"));
    assert!(node.received(&mut peers[0]).len() > 100, "a head");
    let frame = masked(Opcode::Text, &[b'x'; 20]);
    for _ in 0..rounds {
        node.send(&mut peers[0], black_box(&frame));
        assert_eq!(node.received(&mut peers[0]).len(), 2 + 20);
    }
}

/// Connections that are handed over, upgraded, subscribe to a topic that others hold, and leave.
fn tick_open_and_close(rounds: usize) {
    let mut node = new_socket_node();
    let request = upgrade("/ws/news");
    let holders = node.open(MANY, &request);
    for _ in 0..rounds {
        let mut peers = node.open(BATCH * BATCH, black_box(&request));
        assert_eq!(node.len(), MANY + BATCH * BATCH);
        assert!(node.received(&mut peers[0]).len() > 100, "a head");
        drop(peers);
        node.tick();
        assert_eq!(node.len(), MANY);
    }
    drop(holders);
}
