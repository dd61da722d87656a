//! Subscribers of a node in memory that inflate what they get as a browser does, each in the context that it has kept
//! from its first message on, and check every message byte for byte.
//!
//! A script of bytes says what happens: subscribers of every kind join, leave, stop reading in the middle of a frame and go
//! on; publications that compress well, badly or not at all come one by one or several in a tick; time passes. So a
//! random test and a fuzzer run the same. The file is included where it is needed, next to the
//! node's and the recorder's.

#![allow(dead_code, reason = "each test or target that includes it uses a part")]

use umbel::ConnectionId;
use umbel::config::{Deflate, Limits};
use umbel::internals::connection::Settings;
use umbel::internals::hub::Kind;
use umbel::internals::protocol::deflate::Inflater;
use umbel::internals::protocol::{Header, Opcode};

use super::node::Node;
use super::recorder::Recorder;

/// Longer than a script takes, some centuries.
const LONG_MS: u64 = 1 << 40;

/// Topics in a script; more than cohorts, so that some give way to others.
const TOPICS: [&str; 3] = ["a", "b", "c"];
const COHORTS_MAX: usize = 2;

const SUBSCRIBERS_MAX: usize = 24;

/// Offers of a subscriber: nothing, those of browsers, and those of few others.
const OFFERS: [Option<&str>; 5] = [
    None,
    Some("permessage-deflate"),
    Some("permessage-deflate; client_max_window_bits"),
    Some("permessage-deflate; server_no_context_takeover"),
    Some("permessage-deflate; server_max_window_bits=10"),
];

/// A subscriber, as it sees itself.
struct Subscriber {
    id: ConnectionId,
    topic: usize,
    inflater: Inflater,
    /// Bytes of a frame that has not come whole.
    unread: Vec<u8>,
    /// The answer to the handshake has come.
    is_open: bool,
    /// A Close frame has come.
    is_closed: bool,
    /// Publications of the topic that it has got, or that came before it.
    received: usize,
}

/// Outcome of a script.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Messages that were checked.
    pub messages: usize,
    /// Of these, compressed ones.
    pub compressed: usize,
    /// Deliveries in the frames of a cohort.
    pub by_cohort: u64,
    /// Subscribers that were closed because they did not read.
    pub slow: usize,
}

/// The node, and all who subscribe to it.
pub struct Audience {
    node: Node<Recorder>,
    subscribers: Vec<Subscriber>,
    logs: [Vec<(Kind, Vec<u8>)>; TOPICS.len()],
    outcome: Outcome,
}

impl Audience {
    /// A node without subscribers. `setting` chooses what it compresses, and how often a cohort has a reset point.
    pub fn new(setting: u8) -> Audience {
        let mut limits = Limits::default();
        limits.deflate_cohorts_max = COHORTS_MAX;
        limits.deflate_bytes_min = 64;
        limits.deflate_bytes_max = 20_000;
        limits.deflate_reset_interval_ms =
            [10, 1000, 5000, 3_600_000][usize::from(setting / 2 % 4)];
        limits.outbox_bytes_max = 40_000;
        limits.publication_bytes_max = 40_000;
        limits.read_buffer_bytes = 4096;
        // Time passes for the cohorts alone: nobody here answers pings, or is ended for not having read for long.
        limits.ping_interval_ms = LONG_MS;
        limits.close_timeout_ms = LONG_MS;
        limits.outbox_age_max_ms = LONG_MS;
        let deflate = [Deflate::Text, Deflate::All][usize::from(setting % 2)];
        let settings = Settings::new(&limits).with_deflate(deflate, false);
        Audience {
            node: Node::with_settings(settings),
            subscribers: Vec::new(),
            logs: Default::default(),
            outcome: Outcome::default(),
        }
    }

    /// Runs a script to its end, and checks that everybody has got everything.
    pub fn run(mut self, script: &[u8]) -> Outcome {
        let mut script = script.iter().copied();
        while let Some(op) = script.next() {
            let argument = script.next().unwrap_or(0);
            self.step(op, argument);
        }
        for index in 0..self.subscribers.len() {
            self.unblock(index);
        }
        self.node.tick();
        self.check_all();
        for subscriber in &self.subscribers {
            let log = &self.logs[subscriber.topic];
            assert!(subscriber.is_closed || subscriber.received == log.len());
            assert!(subscriber.unread.is_empty());
        }
        self.outcome.by_cohort = self.node.metrics.sum(|reactor| &reactor.cohort_deliveries);
        self.outcome
    }

    fn step(&mut self, op: u8, argument: u8) {
        let chosen = match self.subscribers.len() {
            0 => 0,
            count => usize::from(argument) % count,
        };
        match op % 16 {
            0..=2 => self.join(argument),
            3 if !self.subscribers.is_empty() => self.leave(chosen),
            4 if !self.subscribers.is_empty() => {
                let id = self.subscribers[chosen].id;
                if let Some(peer) = self.node.connections.transport_mut(id) {
                    peer.room = usize::from(op) * 8;
                }
            }
            5 if !self.subscribers.is_empty() => self.unblock(chosen),
            6 => self.node.now_ms += u64::from(argument) * 40,
            _ => self.publish(op, argument),
        }
        self.node.tick();
        self.check_all();
    }

    fn join(&mut self, argument: u8) {
        if self.subscribers.len() >= SUBSCRIBERS_MAX {
            return;
        }
        let topic = usize::from(argument) % TOPICS.len();
        let offer = OFFERS[usize::from(argument) / TOPICS.len() % OFFERS.len()];
        let mut request =
            String::from_utf8(super::node::upgrade(&format!("/ws/{}", TOPICS[topic])))
                .expect("a request is text");
        if let Some(offer) = offer {
            request.truncate(request.len() - 2);
            request += &format!("Sec-WebSocket-Extensions: {offer}\r\n\r\n");
        }
        let peer = Recorder::new(request.into_bytes());
        let id = self.node.insert(peer);
        self.node.handle_readable(id, false);
        self.subscribers.push(Subscriber {
            id,
            topic,
            inflater: Inflater::new(true),
            unread: Vec::new(),
            is_open: false,
            is_closed: false,
            received: self.logs[topic].len(),
        });
    }

    fn leave(&mut self, index: usize) {
        let subscriber = self.subscribers.swap_remove(index);
        if let Some(peer) = self.node.connections.transport_mut(subscriber.id) {
            peer.is_ended = true;
        }
        self.node.handle_readable(subscriber.id, true);
    }

    fn unblock(&mut self, index: usize) {
        let id = self.subscribers[index].id;
        if let Some(peer) = self.node.connections.transport_mut(id) {
            peer.room = usize::MAX;
        }
        self.node.handle_writable(id);
    }

    /// Publishes up to four messages in one tick.
    fn publish(&mut self, op: u8, argument: u8) {
        let topic = usize::from(op / 16) % TOPICS.len();
        for number in 0..=(argument >> 6) {
            let turn = self.logs[topic].len();
            let (kind, payload) = message(argument.wrapping_add(number), turn);
            self.node.submit_kind(TOPICS[topic], kind, &payload);
            self.logs[topic].push((kind, payload));
        }
    }

    fn check_all(&mut self) {
        for subscriber in &mut self.subscribers {
            let peer = self.node.connections.transport_mut(subscriber.id);
            let written = peer.map(|peer| std::mem::take(&mut peer.written));
            let log = &self.logs[subscriber.topic];
            let written = written.unwrap_or_default();
            subscriber.unread.extend_from_slice(&written);
            subscriber.check(log, &mut self.outcome);
        }
    }
}

impl Subscriber {
    /// Reads the frames that are whole.
    fn check(&mut self, log: &[(Kind, Vec<u8>)], outcome: &mut Outcome) {
        let unread = std::mem::take(&mut self.unread);
        let mut bytes = &unread[..];
        if !self.is_open && !bytes.is_empty() {
            let head = bytes.windows(4).position(|four| four == b"\r\n\r\n");
            bytes = &bytes[head.expect("a whole head") + 4..];
            self.is_open = true;
        }
        while let Some((header, header_len)) = Header::parse(bytes).expect("a good header") {
            let Some((frame, rest)) =
                bytes.split_at_checked(header_len + header.payload_len as usize)
            else {
                break;
            };
            bytes = rest;
            if header.opcode == Opcode::Close {
                self.is_closed = true;
                outcome.slow += 1;
                continue;
            }
            let payload = &frame[header_len..];
            let mut inflated = Vec::new();
            let message = if header.rsv1 {
                outcome.compressed += 1;
                let outcome =
                    self.inflater
                        .inflate(Opcode::Binary, payload, 1 << 20, &mut inflated);
                outcome.expect("it inflates in the context that was kept");
                &inflated[..]
            } else {
                payload
            };
            let (kind, expected) = &log[self.received];
            assert_eq!(header.opcode == Opcode::Text, *kind == Kind::Text);
            assert!(message == &expected[..], "message {}", self.received);
            self.received += 1;
            outcome.messages += 1;
        }
        self.unread = bytes.to_vec();
    }
}

/// A message of a kind that `argument` says, different each turn.
fn message(argument: u8, turn: usize) -> (Kind, Vec<u8>) {
    let mut state = turn as u64 * 0x9e37_79b9 + u64::from(argument) + 1;
    let mut noise = |len: usize| -> Vec<u8> {
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Text, of which a quarter can be saved at most.
            32 + (state % 95) as u8
        };
        (0..len).map(next).collect()
    };
    match argument % 16 {
        0 => (Kind::Text, b"short".to_vec()),
        1 => (Kind::Binary, noise(500)),
        2 => (
            Kind::Text,
            (0..100).map(|n| 28 + (n + argument % 100) % 100).collect(),
        ),
        3 => (Kind::Text, noise(70)),
        4 => (Kind::Text, noise(9000)),
        6 if argument < 96 => (Kind::Text, Vec::new()),
        6 => (Kind::Text, vec![b'x'; 20_001]),
        7 => (Kind::Binary, noise(300).repeat(4)),
        5 => (Kind::Text, noise(1000).repeat(20)),
        _ => {
            let tick = format!(
                r#"{{"topic":"tick","turn":{turn},"bid":"{}.{:02}","ask":"{}.{:02}","note":"what does not change"}}"#,
                64_000 + turn % 700,
                turn * 7 % 100,
                64_001 + turn % 700,
                turn * 13 % 100,
            );
            (Kind::Text, tick.into_bytes())
        }
    }
}
