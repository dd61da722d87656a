//! Cost of joins and leaves: one write to each member, however many changes there were in a tick.
//!
//! The reactor's connections run in this process over transports that count what is written to them.

#[path = "support/node.rs"]
mod node;

use std::io::{self, IoSlice};

use node::{Node, upgrade};
use serde_json::Value;
use umbel::ConnectionId;
use umbel::config::Limits;
use umbel::internals::connection::Settings;
use umbel::internals::net::byte_stream::ByteStream;
use umbel::internals::protocol::{Opcode, encode_frame};
use umbel::internals::topic::{TopicRule, TopicRules};

/// Keeps what is written to it, and counts the writes.
#[derive(Default)]
struct Counted {
    input: Vec<u8>,
    written: Vec<u8>,
    writes: usize,
}

impl ByteStream for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.input.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.input[..count]);
        self.input.drain(..count);
        Ok(count)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.writes += 1;
        pieces
            .iter()
            .for_each(|it| self.written.extend_from_slice(it));
        Ok(pieces.iter().map(|it| it.len()).sum())
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A room on a node.
struct Room(Node<Counted>);

impl Room {
    fn new() -> Room {
        let rule = TopicRule::parse("room presence=on").expect("a rule");
        let rules = TopicRules::new(vec![rule]);
        // As many come in one tick as a test has.
        let mut limits = Limits::default();
        limits.subscription_steps_per_tick_max = 1000;
        let settings = Settings::new(&limits).with_topic_rules(rules);
        Room(Node::with_settings(settings))
    }

    fn open(&mut self) -> ConnectionId {
        let request = String::from_utf8(upgrade("/ws")).expect("text");
        let input = request.replacen("\r\n", "\r\nSec-WebSocket-Protocol: umbel.v1\r\n", 1);
        let transport = Counted {
            input: input.into_bytes(),
            ..Counted::default()
        };
        let id = self.0.connections.insert(transport, 0);
        self.0.connections.handle_readable(id, false, 0);
        id
    }

    /// Commands come from a connection; what they cause waits for the end of the tick.
    fn receive(&mut self, id: ConnectionId, commands: &str) {
        let mut frame = Vec::new();
        encode_frame(&mut frame, Opcode::Text, commands.as_bytes(), Some([1; 4]));
        self.transport(id).input.extend(frame);
        self.0.connections.handle_readable(id, false, 0);
    }

    fn transport(&mut self, id: ConnectionId) -> &mut Counted {
        self.0.connections.transport_mut(id).expect("connected")
    }

    fn tick(&mut self) {
        self.0.tick();
    }

    /// So many connections that are in the room, and have read what they were told by then.
    fn members(&mut self, count: usize) -> Vec<ConnectionId> {
        let ids: Vec<_> = (0..count).map(|_| self.open()).collect();
        for &id in &ids {
            self.receive(id, ON);
        }
        self.tick();
        ids.iter().for_each(|&id| drop(self.take(id)));
        ids
    }

    /// The messages that were written to a connection since the last look, and in how many writes.
    fn take(&mut self, id: ConnectionId) -> (Vec<Value>, usize) {
        let transport = self.transport(id);
        let writes = std::mem::take(&mut transport.writes);
        let bytes = std::mem::take(&mut transport.written);
        let mut rest = match bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            Some(end) => &bytes[end + 4..],
            None => &bytes[..],
        };
        let mut messages = Vec::new();
        while let [_, length, tail @ ..] = rest {
            let (length, tail) = match (*length, tail) {
                (126, [high, low, tail @ ..]) => {
                    (usize::from(u16::from_be_bytes([*high, *low])), tail)
                }
                (length, tail) => (usize::from(length), tail),
            };
            let (payload, behind) = tail.split_at(length);
            messages.push(serde_json::from_slice(payload).expect("JSON"));
            rest = behind;
        }
        (messages, writes)
    }
}

const ON: &str = r#"{"type":"subscribe","topic":"room"}"#;
const OFF: &str = r#"{"type":"unsubscribe","topic":"room"}"#;
const ASK: &str = r#"{"type":"presence","id":7,"topic":"room"}"#;

/// Changes that a member is told of: `+` for a join, `-` for a leave.
fn told(messages: &[Value]) -> Vec<String> {
    let told = messages.iter().filter_map(|it| {
        let sign = match it["type"].as_str()? {
            "join" => '+',
            "leave" => '-',
            _ => return None,
        };
        Some(format!("{sign}{}", it["connection"].as_str()?))
    });
    told.collect()
}

#[test]
fn changes_of_one_tick_in_one_write() {
    let mut room = Room::new();
    let members = room.members(50);
    let coming: Vec<_> = (0..20).map(|_| room.open()).collect();
    for &id in &coming {
        room.take(id);
        room.receive(id, ON);
    }
    room.tick();
    let expected: Vec<_> = coming.iter().map(|id| format!("+{id}")).collect();
    for &id in &members {
        let (messages, writes) = room.take(id);
        assert_eq!((told(&messages), writes), (expected.clone(), 1));
    }
    // Whoever comes is told of those who come behind it, and not of itself or of those before.
    for (index, &id) in coming.iter().enumerate() {
        let (messages, writes) = room.take(id);
        assert_eq!(told(&messages), expected[index + 1..]);
        assert!(writes <= 1, "{writes}");
    }
}

#[test]
fn join_and_leave_in_one_tick_untold() {
    let mut room = Room::new();
    let watcher = room.members(1)[0];
    let id = room.members(1)[0];
    room.take(watcher);
    room.receive(id, &format!("[{OFF},{ON}]"));
    room.tick();
    room.receive(id, &format!("[{OFF},{ON},{OFF}]"));
    room.tick();
    room.tick();
    room.receive(id, ON);
    room.tick();
    room.tick();
    let (messages, _) = room.take(watcher);
    let told = told(&messages);
    let expected = ["-", "+"].map(|sign| format!("{sign}{id}"));
    assert_eq!(told, expected);
}

/// A member that asks for the list has been told of all that it holds, and is told of nothing twice.
#[test]
fn members_after_pending_changes() {
    let mut room = Room::new();
    let members = room.members(3);
    let (before, behind) = (room.open(), room.open());
    room.receive(before, ON);
    room.receive(members[0], ASK);
    room.receive(behind, ON);
    room.tick();
    let (messages, _) = room.take(members[0]);
    let kinds: Vec<_> = messages.iter().map(|it| it["type"].as_str()).collect();
    assert_eq!(kinds, [Some("join"), Some("presence"), Some("join")]);
    assert_eq!(messages[1]["total"], 4);
    assert_eq!(
        told(&messages),
        [format!("+{before}"), format!("+{behind}")]
    );
    assert_eq!(told(&room.take(members[1]).0).len(), 2);
}

/// Changes that wait for the end of the tick are bounded, so that they cost a stalled member no more than its cap.
#[test]
fn many_changes_in_parts() {
    let mut room = Room::new();
    let watcher = room.members(1)[0];
    for _ in 0..500 {
        let id = room.open();
        room.receive(id, ON);
    }
    room.tick();
    let (messages, writes) = room.take(watcher);
    assert_eq!(told(&messages).len(), 500);
    let bytes = messages
        .iter()
        .map(|it| it.to_string().len())
        .sum::<usize>();
    assert!((2..=bytes / 8192).contains(&writes), "{writes} of {bytes}");
}
