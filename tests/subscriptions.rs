//! Subscriptions of `umbel.v1` and raw ones on a node in memory, where the hub is full, answers come late, and connections
//! end meanwhile.

#[path = "support/frames.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod frames;
#[path = "support/node.rs"]
mod node;
#[path = "support/recorder.rs"]
mod recorder;

use frames::{CLOSE, FIN, Frame, MASK, TEXT};
use node::{Node, upgrade};
use recorder::Recorder;
use serde_json::Value;
use umbel::ConnectionId;
use umbel::TopicRule;
use umbel::config::Limits;
use umbel::internals::connection::{KeyUsedUp, Settings};
use umbel::internals::hub::ReactorId;
use umbel::internals::hub::{
    Command, Effect, Kind, LocalTopic, Member, Origin, PresenceChange, Publication,
};
use umbel::internals::topic::Topic;
use umbel::internals::topic::TopicRules;

/// A node whose connections are spoken to in frames.
struct World(Node<Recorder>);

impl World {
    fn new() -> World {
        World::with_limits(&Limits::default())
    }

    fn with_limits(limits: &Limits) -> World {
        let rules = ["rooms/* presence=on", "kept/* history=1000"];
        let rules = rules.map(|rule| TopicRule::parse(rule).expect("a rule"));
        let rules = TopicRules::new(rules.into());
        World(Node::with_settings(
            Settings::new(limits).with_topic_rules(rules),
        ))
    }

    /// Hands bytes to a connection, without running the rest of the tick.
    fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        let transport = self.0.transport(id);
        transport.input.extend_from_slice(bytes);
        self.0.handle_readable(id, false);
    }

    fn open(&mut self, request: &[u8]) -> ConnectionId {
        let recorder = Recorder::new(Vec::new());
        let id = self.0.insert(recorder);
        self.receive(id, request);
        id
    }

    /// A connection of many topics.
    fn connect(&mut self) -> ConnectionId {
        let request = String::from_utf8(upgrade("/ws")).expect("text");
        let line = "\r\nSec-WebSocket-Protocol: umbel.v1\r\n\r\n";
        let id = self.open(request.replace("\r\n\r\n", line).as_bytes());
        assert!(self.response(id).starts_with("HTTP/1.1 101 "));
        id
    }

    /// A response's head, if one has come.
    fn response(&mut self, id: ConnectionId) -> String {
        let written = &mut self.0.transport(id).written;
        let end = written.windows(4).position(|it| it == b"\r\n\r\n");
        let head = end.map_or(Vec::new(), |end| written.drain(..end + 4).collect());
        String::from_utf8(head).expect("a head is text")
    }

    fn say(&mut self, id: ConnectionId, text: &str) {
        self.receive(id, &masked(text));
    }

    fn hear(&mut self, id: ConnectionId) -> Vec<Frame> {
        let written = &mut self.0.transport(id).written;
        std::iter::from_fn(|| Frame::take(written)).collect()
    }

    /// The messages that have come, as JSON.
    fn hear_json(&mut self, id: ConnectionId) -> Vec<Value> {
        let frames = self.hear(id);
        frames
            .iter()
            .map(|frame| serde_json::from_slice(&frame.payload).expect("JSON"))
            .collect()
    }

    /// The types of the messages that have come.
    fn hear_types(&mut self, id: ConnectionId) -> Vec<String> {
        let messages = self.hear_json(id);
        messages.iter().map(|it| type_of(it).to_owned()).collect()
    }

    fn tick(&mut self) {
        self.0.tick();
    }

    /// Fills the mailbox and the queues of all shards.
    fn fill_hub(&mut self) {
        let topics: Vec<String> = (0..8).map(|number| format!("filler/{number}")).collect();
        for topic in &topics {
            let path = format!("/ws/{topic}");
            self.open(&upgrade(&path));
        }
        for topic in &topics {
            while self.submit(topic, "x").is_ok() {}
        }
    }

    /// Takes the mail, so that the hub can go on.
    fn take_mail(&mut self) {
        let now_ms = self.0.now_ms;
        while let Some(effect) = self.0.inbox.take() {
            self.0.connections.handle_effect(effect, now_ms);
        }
        self.0.connections.deliver(now_ms, || 0);
    }

    /// Runs ticks until the hub has got over [`fill_hub`](World::fill_hub).
    fn catch_up(&mut self) {
        for _ in 0..64 {
            // There is no worker here: whoever brings a command runs its shard.
            for shard in 0..self.0.shards.shard_count() {
                let _ = self
                    .0
                    .shards
                    .submit(Command::Expire { shard, now_us: 0 }, None);
            }
            self.tick();
        }
    }

    fn submit(&mut self, topic: &str, text: &str) -> Result<(), Command> {
        let command = Command::Publish {
            topic: Topic::from_text(topic).expect("a topic"),
            publication: Publication::new(Kind::Text, text.as_bytes(), 0).into(),
            origin: Origin::Detached,
        };
        self.0.shards.submit(command, Some(ReactorId(0)))
    }

    /// Number of members of a topic, as the connection is told.
    fn present(&mut self, id: ConnectionId, topic: &str) -> u64 {
        self.hear(id);
        self.say(
            id,
            &format!(r#"{{"type":"presence","id":99,"topic":"{topic}"}}"#),
        );
        self.tick();
        let heard = self.hear_json(id);
        let answer = heard.iter().find(|it| type_of(it) == "presence");
        answer.unwrap_or_else(|| panic!("{heard:?}"))["total"]
            .as_u64()
            .expect("a number")
    }
}

fn type_of(message: &Value) -> &str {
    message["type"].as_str().expect("a type")
}

/// A whole text message of a client's.
fn masked(text: &str) -> Vec<u8> {
    let mut bytes = vec![FIN | TEXT, 0xff];
    bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
    if text.len() < 126 {
        bytes = vec![FIN | TEXT, 0x80 | text.len() as u8];
    } else if text.len() < 65_536 {
        bytes = vec![FIN | TEXT, 0xfe];
        bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(
        text.bytes()
            .zip(MASK.iter().cycle())
            .map(|(it, key)| it ^ key),
    );
    bytes
}

#[test]
fn no_gap_when_join_is_deferred() {
    let mut world = World::new();
    let many = world.connect();
    world.fill_hub();
    world.say(many, r#"{"type":"subscribe","id":1,"topic":"t"}"#);
    let raw = world.open(&upgrade("/ws/t"));
    let head = world.response(raw);
    world.take_mail();
    let published = world.submit("t", "after the handshake");
    published.expect("there is room again");
    world.catch_up();
    if head.starts_with("HTTP/1.1 101 ") {
        assert_eq!(world.hear(raw), [Frame::text("after the handshake")]);
    } else {
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    }
    assert_eq!(world.hear_types(many), ["subscribed"]);
    let raw = world.open(&upgrade("/ws/t"));
    assert!(world.response(raw).starts_with("HTTP/1.1 101 "));
    world.0.publish("t", b"more");
    assert_eq!(world.hear(raw), [Frame::text("more")]);
    assert_eq!(world.hear_types(many), ["publication"]);
}

#[test]
fn resubscribe_before_answer_stays_present() {
    let mut world = World::new();
    let (watcher, other) = (world.connect(), world.connect());
    world.say(watcher, r#"{"type":"subscribe","id":1,"topic":"rooms/1"}"#);
    world.tick();
    world.say(
        other,
        r#"[{"type":"subscribe","id":1,"topic":"rooms/1"},{"type":"unsubscribe","id":2,"topic":"rooms/1"},
            {"type":"subscribe","id":3,"topic":"rooms/1"}]"#,
    );
    world.tick();
    world.tick();
    assert_eq!(world.hear_types(other), ["unsubscribed", "subscribed"]);
    assert_eq!(world.hear_types(watcher), ["subscribed", "join"]);
    assert_eq!(world.present(watcher, "rooms/1"), 2);
    world.say(other, r#"{"type":"unsubscribe","id":4,"topic":"rooms/1"}"#);
    world.tick();
    assert_eq!(world.present(watcher, "rooms/1"), 1);
}

#[test]
fn resubscribe_with_full_hub_stays_present() {
    let mut world = World::new();
    let (watcher, other) = (world.connect(), world.connect());
    for id in [watcher, other] {
        world.say(id, r#"{"type":"subscribe","id":1,"topic":"rooms/1"}"#);
    }
    world.tick();
    world.fill_hub();
    world.say(other, r#"{"type":"unsubscribe","id":2,"topic":"rooms/1"}"#);
    world.take_mail();
    world.say(other, r#"{"type":"subscribe","id":3,"topic":"rooms/1"}"#);
    world.catch_up();
    let heard = world.hear_types(other);
    assert!(heard.ends_with(&["subscribed".to_owned()]), "{heard:?}");
    assert_eq!(world.present(watcher, "rooms/1"), 2);
}

#[test]
fn refused_resubscribe_leaves_nobody_present() {
    let mut limits = Limits::default();
    limits.commands_max = 1;
    let mut world = World::with_limits(&limits);
    let (watcher, other, waiting) = (world.connect(), world.connect(), world.connect());
    world.say(watcher, r#"{"type":"subscribe","id":1,"topic":"rooms/1"}"#);
    world.tick();
    world.say(other, r#"{"type":"subscribe","id":1,"topic":"rooms/1"}"#);
    world.fill_hub();
    // The only command that may wait for the hub, so the next connection that has one is closed.
    let publish = r#"{"type":"publish","id":1,"topic":"t","data":"x"}"#;
    world.say(waiting, publish);
    world.say(other, r#"{"type":"unsubscribe","id":2,"topic":"rooms/1"}"#);
    world.say(other, r#"{"type":"subscribe","id":3,"topic":"rooms/1"}"#);
    let heard = world.hear(other);
    let last = heard.last().map(|frame| frame.first);
    assert_eq!(last, Some(FIN | CLOSE), "{heard:?}");
    world.catch_up();
    assert_eq!(world.present(watcher, "rooms/1"), 1);
}

/// Has the server send a Close: a message is begun and not finished.
fn time_out(world: &mut World, ids: &[ConnectionId]) {
    for &id in ids {
        world.receive(id, &[FIN | TEXT, 0x85]);
    }
    world.0.now_ms += u64::from(Limits::default().message_timeout_ms as u32) + 1;
    world.0.sweep();
}

#[test]
fn nothing_follows_close_frame() {
    let mut world = World::new();
    let (ending, other) = (world.connect(), world.connect());
    world.say(ending, r#"{"type":"subscribe","id":1,"topic":"rooms/1"}"#);
    world.tick();
    world.say(ending, r#"{"type":"subscribe","id":2,"pattern":"x/*"}"#);
    world.hear(ending);
    time_out(&mut world, &[ending]);
    world.say(other, r#"{"type":"subscribe","id":1,"topic":"rooms/1"}"#);
    world.tick();
    world.tick();
    let heard = world.hear(ending);
    let firsts: Vec<u8> = heard.iter().map(|frame| frame.first).collect();
    assert_eq!(firsts, [FIN | CLOSE], "{heard:?}");
}

#[test]
fn reused_topic_place_leaks_no_joins() {
    let mut world = World::new();
    let id = world.connect();
    world.say(id, r#"{"type":"subscribe","id":1,"topic":"t"}"#);
    world.tick();
    world.hear(id);
    let change = PresenceChange {
        topic: Topic::from_text("rooms/1").expect("a topic"),
        member: Member {
            reactor: ReactorId(0),
            connection: 7,
            info: None,
            identity: None,
        },
        is_join: false,
        members: 1,
    };
    let local = LocalTopic {
        index: 0,
        generation: 999,
    };
    let effect = Effect::PresenceChanged {
        reactor: ReactorId(0),
        local,
        change: change.into(),
    };
    world.0.connections.handle_effect(effect, 0);
    world.tick();
    assert!(world.hear(id).is_empty());
}

#[test]
fn deferred_presence_queries_released() {
    let mut limits = Limits::default();
    limits.commands_per_message_max = 4;
    let mut world = World::with_limits(&limits);
    let id = world.connect();
    world.fill_hub();
    for number in 0..5 {
        let question = format!(r#"{{"type":"presence","id":{number},"topic":"rooms/1"}}"#);
        world.say(id, &question);
    }
    world.catch_up();
    assert_eq!(world.present(id, "rooms/1"), 0);
}

#[test]
fn recovery_into_full_outbox() {
    let mut limits = Limits::default();
    limits.outbox_bytes_max = 100_000;
    // Whatever little of the room is left, the answer or the frames do not close the connection.
    for free in (1000..4000).step_by(23) {
        let mut world = World::with_limits(&limits);
        for _ in 0..9 {
            world.0.publish("kept/1", &[b'x'; 100]);
        }
        let id = world.connect();
        world.say(id, r#"{"type":"subscribe","id":1,"topic":"big"}"#);
        world.tick();
        world.hear(id);
        world.0.transport(id).room = 0;
        world.0.publish("big", &vec![b'x'; 100_000 - free]);
        world.say(
            id,
            r#"{"type":"subscribe","id":2,"topic":"kept/1","last":9}"#,
        );
        world.tick();
        let connection = world.0.connections.connection(id).expect("there");
        assert!(!connection.is_closing(), "{free}");
    }
}

/// Peers of a stream whose key is used up are told to come back, and what was published before comes.
#[test]
fn key_used_up_closes_with_service_restart() {
    let mut world = World::with_limits(&Limits::default());
    let raw = world.open(&upgrade("/ws/news"));
    assert!(world.response(raw).starts_with("HTTP/1.1 101 "));
    let many = world.connect();
    let stream = world.open(b"GET /sse/news HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(world.response(stream).starts_with("HTTP/1.1 200 "));
    world.tick();
    for id in [raw, many, stream] {
        world.0.publish("news", b"before");
        world.0.transport(id).error = Some(KeyUsedUp.into());
        world.0.handle_readable(id, false);
        world.tick();
        let connection = world.0.connections.connection(id).expect("there");
        assert!(connection.is_closing());
        if id == stream {
            let written = String::from_utf8_lossy(&world.0.transport(id).written).into_owned();
            assert!(written.contains("retry:"), "{written}");
            continue;
        }
        let frames = world.hear(id);
        let end = frames.last().expect("a Close");
        assert_eq!(end.close_code(), Some(1012));
        assert_eq!(frames.len(), if id == raw { 2 } else { 1 });
    }
}
