//! The seam of dialects: a toy that is in no folder of the project's speaks over a table that a test made, and has what
//! real ones want.

#[path = "support/frames.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod frames;
#[path = "support/node.rs"]
mod node;
#[path = "support/recorder.rs"]
mod recorder;
#[path = "support/toy.rs"]
mod toy;

use frames::{BINARY, CLOSE, FIN, Frame, TEXT, masked};
use node::{Node, upgrade};
use recorder::Recorder;
use toy::Fields;
use umbel::config::{Limits, Surface};
use umbel::internals::connection::Settings;
use umbel::internals::dialect::Dialects;
use umbel::internals::route::surface::{is_for_observers, shows};
use umbel::internals::route::{Route, check_own_path};
use umbel::internals::topic::TopicRules;
use umbel::internals::upkeep::drain;
use umbel::internals::worker::HubCounts;
use umbel::{ConnectionId, TopicRule};

const PING_INTERVAL_MS: u64 = 700;
const PING_TIMEOUT_MS: u64 = 90;

/// A node that speaks the toy besides the dialects of the project.
struct World(Node<Recorder>);

impl World {
    fn new(limits: &Limits) -> World {
        let pings = toy::pings(PING_INTERVAL_MS, PING_TIMEOUT_MS);
        let dialects = Dialects::default()
            .with(toy::row(pings))
            .with(toy::offered_row(pings));
        let rules = [
            "kept history=100",
            "ticks slow_consumer=drop-oldest",
            "quotes slow_consumer=latest",
            "room presence=on",
        ];
        let rules = rules.map(|rule| TopicRule::parse(rule).expect("a rule"));
        let settings = Settings::new(limits)
            .with_topic_rules(TopicRules::new(rules.into()))
            .with_dialects(dialects);
        World(Node::with_settings(settings))
    }

    fn peer(&mut self, id: ConnectionId) -> &mut Recorder {
        self.0.transport(id)
    }

    fn say(&mut self, id: ConnectionId, first: u8, message: &[u8]) {
        let frame = masked(first, message);
        self.peer(id).input.extend(frame);
        self.0.handle_readable(id, false);
        self.0.tick();
    }

    /// Says a message of the toy's, and gives what is said then.
    fn ask(&mut self, id: ConnectionId, message: &str) -> Vec<String> {
        self.say(id, FIN | TEXT, message.as_bytes());
        self.hear_texts(id)
    }

    fn hear(&mut self, id: ConnectionId) -> Vec<Frame> {
        let written = &mut self.peer(id).written;
        std::iter::from_fn(|| Frame::take(written)).collect()
    }

    fn hear_texts(&mut self, id: ConnectionId) -> Vec<String> {
        let frames = self.hear(id).into_iter();
        frames
            .map(|frame| {
                assert_eq!(frame.first, FIN | TEXT, "{frame:?}");
                String::from_utf8(frame.payload).expect("text")
            })
            .collect()
    }

    /// Opens a connection; what was said behind the answer's head is left to be heard.
    fn open(&mut self, path: &str, lines: &str) -> ConnectionId {
        let (id, head) = self.ask_to_open(path, lines);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        id
    }

    /// Asks for an upgrade, and gives the answer's head.
    fn ask_to_open(&mut self, path: &str, lines: &str) -> (ConnectionId, String) {
        let request = String::from_utf8(upgrade(path)).expect("text");
        let request = request.replace("\r\n\r\n", &format!("\r\n{lines}\r\n"));
        let recorder = Recorder::new(request.into_bytes());
        let id = self.0.insert(recorder);
        self.0.handle_readable(id, false);
        self.0.tick();
        let written = &mut self.peer(id).written;
        let end = written.windows(4).position(|it| it == b"\r\n\r\n");
        let head: Vec<u8> = written.drain(..end.expect("a head") + 4).collect();
        (id, String::from_utf8(head).expect("text"))
    }

    /// A connection of the toy's, greeted.
    fn connect(&mut self) -> ConnectionId {
        let id = self.open("/toy/app", "");
        let greeting = self.hear_texts(id);
        assert_eq!(greeting, [format!("hello\tconnection={id}")]);
        id
    }

    fn wait(&mut self, ms: u64) {
        self.0.now_ms += ms;
        self.0.sweep();
        self.0.tick();
    }
}

fn close_codes(frames: &[Frame]) -> Vec<Option<u16>> {
    let closes = frames.iter().filter(|frame| frame.first == FIN | CLOSE);
    closes.map(Frame::close_code).collect()
}

#[test]
fn greeting_and_metric_label() {
    let mut world = World::new(&Limits::default());
    world.connect();
    world.0.tick();
    let text = world.0.metrics.encode(HubCounts::default());
    let row = "umbel_connections{state=\"open\",dialect=\"toy\"} 1\n";
    assert!(text.contains(row), "{text}");
}

#[test]
fn refusal_after_the_upgrade() {
    let mut world = World::new(&Limits::default());
    let id = world.open(toy::UNKNOWN_APP, "");
    let frames = world.hear(id);
    assert_eq!(frames[0], Frame::text("denied"));
    assert_eq!(close_codes(&frames), [Some(toy::NO_SUCH_APP)]);
    assert_eq!(frames.len(), 2);
    // What it says besides its Close is nobody's.
    assert!(world.ask(id, "ping\tid=1").is_empty());
}

/// What a script that offers no subprotocol sees of a refusal is the Close of what is spoken at the path.
#[test]
fn refused_handshake_at_own_path() {
    let mut world = World::new(&Limits::default());
    let target = format!("/toy/app?info={}", "x".repeat(2000));
    let (id, head) = world.ask_to_open(&target, "Origin: http://localhost\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(!head.contains("Sec-WebSocket-Protocol"), "{head}");
    assert_eq!(close_codes(&world.hear(id)), [Some(toy::NOT_TAKEN)]);
    // Who is no script sees the status.
    let (_, head) = world.ask_to_open(&target, "");
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let lines = format!("Sec-WebSocket-Protocol: {}\r\n", toy::OFFERED.0);
    let (id, _) = world.ask_to_open(
        &format!("{}?info={}", toy::OFFERED.1, "x".repeat(2000)),
        &format!("{lines}Origin: http://localhost\r\n"),
    );
    assert_eq!(close_codes(&world.hear(id)), [Some(toy::NOT_TAKEN)]);
}

#[test]
fn path_of_offered_dialect_for_who_is_astray() {
    let mut world = World::new(&Limits::default());
    for (offer, place) in [
        ("toy.v2", "toy.v2 is at /toy2"),
        ("umbel.v1", "umbel.v1 is at /ws"),
        ("other, umbel.v1.bin", "umbel.v1.bin is at /ws"),
    ] {
        let lines = format!("Sec-WebSocket-Protocol: {offer}\r\n");
        let (id, head) = world.ask_to_open("/health", &lines);
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        let body = std::mem::take(&mut world.peer(id).written);
        let body = String::from_utf8(body).expect("text");
        assert!(body.contains(place), "{body}");
    }
}

/// A listener for operators shows what the console speaks, and no dialect besides.
#[test]
fn surfaces_of_a_dialect_at_an_own_path() {
    let pings = toy::pings(PING_INTERVAL_MS, PING_TIMEOUT_MS);
    let dialects = Dialects::default().with(toy::row(pings));
    let route = Route::parse("/toy/app", &dialects).expect("a route");
    let shown = [Surface::All, Surface::Public, Surface::Admin].map(|it| shows(it, &route));
    assert_eq!(shown, [true, true, false]);
    assert!(!is_for_observers(Surface::Admin, &route));
    for (path, words) in [
        ("/toy/own", "all of /toy/ is WebSockets of a dialect"),
        ("/sse/own", "all of /sse/ is event streams of topics"),
        ("/ws/own", "all of /ws/ is WebSockets of topics"),
    ] {
        let refused = check_own_path(path, 100, &dialects).expect_err(path);
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn commands_of_one_message_are_answered_in_one() {
    let mut world = World::new(&Limits::default());
    let id = world.connect();
    let replies = world.ask(id, "ping\tid=7\nbogus\tid=8\nping\tid=9");
    assert_eq!(replies, ["pong\tid=7\nerror\tid=8\tcode=101\npong\tid=9"]);
    assert!(world.ask(id, "pong").is_empty());
}

#[test]
fn positions_in_own_text_and_replay_in_the_reply() {
    let mut world = World::new(&Limits::default());
    let id = world.connect();
    for text in ["one", "two\t%"] {
        let text = text.replace('%', "%25").replace('\t', "%09");
        let replies = world.ask(id, &format!("publish\tid=1\ttopic=kept\ttext={text}"));
        assert!(replies[0].starts_with("published\tid=1\tposition="));
    }
    let replies = world.ask(id, "subscribe\tid=2\ttopic=kept\tlast=5");
    let [reply] = &replies[..] else {
        panic!("one message: {replies:?}");
    };
    let lines: Vec<_> = reply.split('\n').map(Fields::parse).collect();
    let words: Vec<_> = lines.iter().map(|line| line.word).collect();
    assert_eq!(words, ["subscribed", "msg", "msg"]);
    assert_eq!(lines[2].get("text").as_deref(), Some("two\t%"));
    let first = lines[1].get("position").expect("a position");
    assert!(toy::parse_position(&first).is_some_and(|it| it.offset == 1));
    world.ask(id, "unsubscribe\tid=3\ttopic=kept");
    let replies = world.ask(id, &format!("subscribe\tid=4\ttopic=kept\tsince={first}"));
    let lines: Vec<_> = replies[0].split('\n').map(Fields::parse).collect();
    assert_eq!(lines[0].get("recovered").as_deref(), Some("true"));
    assert_eq!((lines.len(), lines[1].word), (2, "msg"));
    let replies = world.ask(id, "subscribe\tid=5\ttopic=kept\tsince=1:1");
    assert_eq!(replies, ["error\tid=5\tcode=104"]);
}

#[test]
fn publication_in_the_words_of_each_dialect() {
    let mut world = World::new(&Limits::default());
    let (toy, raw) = (world.connect(), world.open("/ws/room", ""));
    let other = world.open("/ws", "Sec-WebSocket-Protocol: umbel.v1\r\n");
    world.ask(
        toy,
        "subscribe\tid=1\ttopic=room\nsubscribe\tid=2\tpattern=*",
    );
    let command = br#"{"type":"subscribe","topic":"room"}"#;
    world.say(other, FIN | TEXT, command);
    let joins = world.hear_texts(toy);
    let join = format!("join\ttopic=room\tconnection={other}");
    assert!(joins.contains(&join), "{joins:?}");
    world.hear(raw);
    world.0.publish("room", b"hi");
    assert_eq!(world.hear_texts(raw), ["hi"]);
    let heard = world.hear_texts(toy);
    let words = [
        "msg\ttopic=room\tposition=",
        "msg\ttopic=room\tpattern=*\tposition=",
    ];
    assert!(
        heard
            .iter()
            .zip(words)
            .all(|(it, begin)| it.starts_with(begin)),
        "{heard:?}"
    );
    assert_eq!(heard.len(), 2);
    let heard = world.hear_texts(other);
    assert!(
        heard[0].starts_with(r#"{"type":"publication","topic":"room","#),
        "{heard:?}"
    );
}

#[test]
fn pings_by_messages_at_own_times() {
    let mut world = World::new(&Limits::default());
    let id = world.connect();
    world.wait(PING_INTERVAL_MS);
    assert_eq!(world.hear_texts(id), ["ping"]);
    world.wait(PING_TIMEOUT_MS - 1);
    assert!(world.ask(id, "pong").is_empty());
    world.wait(PING_INTERVAL_MS);
    assert_eq!(world.hear_texts(id), ["ping"]);
    world.wait(PING_TIMEOUT_MS);
    assert_eq!(close_codes(&world.hear(id)), [Some(toy::NO_PONG)]);
}

#[test]
fn own_close_codes() {
    let mut world = World::new(&Limits::default());
    let id = world.connect();
    world.say(id, FIN | BINARY, b"\0");
    assert_eq!(close_codes(&world.hear(id)), [Some(toy::TEXT_ONLY)]);
    let id = world.connect();
    let mut now_ms = world.0.now_ms;
    while close_codes(&world.hear(id)) != [Some(toy::COME_BACK)] {
        now_ms += 1;
        assert!(now_ms < 60_000, "the drain closes everybody");
        drain::poll(&mut world.0.connections, now_ms);
    }
}

/// Where others are told of a gap, or see none, a dialect that cannot show one closes.
#[test]
fn closed_where_a_gap_cannot_be_shown() {
    let mut limits = Limits::default();
    limits.outbox_bytes_max = 4096;
    for (topic, is_told) in [("ticks", true), ("quotes", false)] {
        let mut world = World::new(&limits);
        let toy = world.connect();
        let other = world.open("/ws", "Sec-WebSocket-Protocol: umbel.v1\r\n");
        world.ask(toy, &format!("subscribe\tid=1\ttopic={topic}"));
        let command = format!(r#"{{"type":"subscribe","topic":"{topic}"}}"#);
        world.say(other, FIN | TEXT, command.as_bytes());
        for id in [toy, other] {
            world.hear(id);
            world.peer(id).room = 0;
        }
        for number in 0..100 {
            let key = format!("{}", number % 3);
            let text = "x".repeat(200);
            let command =
                format!(r#"{{"type":"publish","topic":"{topic}","key":"{key}","data":"{text}"}}"#);
            let publisher = world.open("/ws", "Sec-WebSocket-Protocol: umbel.v1\r\n");
            world.say(publisher, FIN | TEXT, command.as_bytes());
        }
        for id in [toy, other] {
            world.peer(id).room = usize::MAX;
            world.0.handle_writable(id);
        }
        assert_eq!(close_codes(&world.hear(toy)), [Some(toy::TOO_SLOW)]);
        let heard = world.hear_texts(other);
        let is_gap = heard[0].starts_with(r#"{"type":"gap","#);
        assert_eq!(is_gap, is_told, "{heard:?}");
    }
}
