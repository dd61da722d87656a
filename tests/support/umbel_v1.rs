//! A peer that speaks `umbel.v1` or `umbel.v1.bin`, and reads every message strictly: unknown shapes fail the test.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::frames;
use super::peers::{Incoming, WebSocket, connect};

/// The subprotocol with publications in JSON.
pub const JSON: &str = "umbel.v1";
/// The subprotocol with publications in binary messages.
pub const BINARY: &str = "umbel.v1.bin";

/// A connection with many subscriptions.
pub struct Peer {
    pub socket: WebSocket,
}

/// The header line that offers a subprotocol.
pub fn offer(subprotocol: &str) -> String {
    format!("Sec-WebSocket-Protocol: {subprotocol}\r\n")
}

impl Peer {
    /// Connects, and speaks `umbel.v1`.
    pub fn open(address: SocketAddr) -> Peer {
        Peer::open_at(address, "/ws", JSON)
    }

    /// Opens a connection at a target with a query, with a subprotocol of choice.
    pub fn open_at(address: SocketAddr, target: &str, subprotocol: &str) -> Peer {
        Peer::open_on(connect(address, 0), target, subprotocol)
    }

    /// Opens umbel.v1 over an existing connection.
    pub fn open_on(stream: TcpStream, target: &str, subprotocol: &str) -> Peer {
        let (head, socket) = WebSocket::offer_on(stream, target, &offer(subprotocol));
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let agreed = format!("\r\nSec-WebSocket-Protocol: {subprotocol}\r\n");
        assert!(head.contains(&agreed), "{head}");
        Peer { socket }
    }

    /// Takes the welcome of a connection whose handshake showed a credential.
    pub fn welcomed(mut self) -> Peer {
        let welcome = self.next();
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        self
    }

    /// Sends a command, or an array of them.
    pub fn send(&mut self, commands: &Value) {
        self.socket.send_text(&commands.to_string());
    }

    /// The next message. A publication in a binary message is shown as the JSON that it would otherwise be.
    pub fn next(&mut self) -> Value {
        match self.socket.next() {
            Incoming::Text(text) => {
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
            }
            Incoming::Binary(bytes) => publication(&bytes),
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// The code that the server closes the connection with, next.
    pub fn close_code(&mut self) -> u16 {
        match self.socket.next() {
            Incoming::Close(code, _) => code,
            other => panic!("{other:?} instead of a close"),
        }
    }

    /// Checks that the next message is this one.
    pub fn expect(&mut self, expected: &Value) {
        assert_eq!(self.next(), *expected);
    }

    /// Sends a command and takes the next message for its answer.
    pub fn ask(&mut self, command: &Value) -> Value {
        self.send(command);
        self.next()
    }

    /// Checks that nothing has come, now or for commands that are still being carried out.
    pub fn expect_nothing_before_pong(&mut self) {
        self.send(&json!({"type": "ping", "id": 4_000_000_000u32}));
        self.expect(&json!({"type": "pong", "id": 4_000_000_000u32}));
    }

    /// Sends a command that fails; gives the code.
    pub fn error(&mut self, command: &Value) -> String {
        let answer = self.ask(command);
        assert_eq!(answer["type"], "error", "{command}: {answer}");
        assert_eq!(answer["id"], command["id"], "{command}: {answer}");
        assert!(answer["reason"].as_str().is_some_and(|it| !it.is_empty()));
        text(&answer["code"])
    }

    /// Sends a text that fails as a whole; gives the code.
    pub fn error_of_text(&mut self, message: &str) -> String {
        self.socket.send_text(message);
        let answer = self.next();
        assert_eq!(answer["type"], "error", "{answer}");
        assert_eq!(answer["id"], Value::Null, "{answer}");
        text(&answer["code"])
    }

    /// Subscribes from now on; gives the position.
    pub fn subscribe(&mut self, topic: &str) -> String {
        let answer = self.ask(&json!({"type": "subscribe", "id": 1, "topic": topic}));
        assert_eq!(answer["type"], "subscribed", "{answer}");
        text(&answer["position"])
    }

    /// Subscribes after a position; gives the answer.
    pub fn subscribe_since(&mut self, topic: &str, since: &str) -> Value {
        let command = json!({"type": "subscribe", "id": 1, "topic": topic, "since": since});
        let answer = self.ask(&command);
        assert_eq!(answer["type"], "subscribed", "{answer}");
        answer
    }

    /// Subscribes by a pattern.
    pub fn subscribe_pattern(&mut self, pattern: &str) {
        self.send(&json!({"type": "subscribe", "id": 1, "pattern": pattern}));
        self.expect(&json!({"type": "subscribed", "id": 1, "pattern": pattern}));
    }

    /// Publishes, on a connection that subscribes to nothing; gives the position.
    pub fn publish(&mut self, topic: &str, data: &str) -> String {
        let command = json!({"type": "publish", "id": 2, "topic": topic, "data": data});
        let answer = self.ask(&command);
        assert_eq!(answer["type"], "published", "{answer}");
        text(&answer["position"])
    }

    /// The next message, which must be a publication; gives its position and data.
    pub fn publication(&mut self) -> (String, String) {
        let message = self.next();
        assert_eq!(message["type"], "publication", "{message}");
        (text(&message["position"]), text(&message["data"]))
    }

    /// Sends raw bytes.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.stream().write_all(bytes).expect("sent");
    }

    /// Sends a binary message.
    pub fn send_binary(&mut self, payload: &[u8]) {
        self.socket.send(frames::BINARY, payload);
    }
}

/// The text of a JSON string.
pub fn text(value: &Value) -> String {
    let text = value.as_str();
    text.unwrap_or_else(|| panic!("not a string: {value}"))
        .to_owned()
}

/// The offset of a position, whose form is checked.
pub fn offset(position: &str) -> u64 {
    let (epoch, offset) = position.split_once(':').expect("epoch:offset");
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    assert!(epoch.len() == 16 && epoch.bytes().all(is_hex), "{position}");
    offset.parse().expect("an offset")
}

/// The epoch of a position.
pub fn epoch(position: &str) -> &str {
    position.split_once(':').expect("epoch:offset").0
}

/// A publish as a binary message.
pub fn binary_publish(id: Option<u32>, topic: &str, key: Option<&str>, payload: &[u8]) -> Vec<u8> {
    let is_text = std::str::from_utf8(payload).is_ok();
    let flags = u8::from(id.is_some()) | if key.is_some() { 2 } else { 0 };
    let mut message = vec![if is_text { 3 } else { 4 }, flags];
    message.extend(id.iter().flat_map(|id| id.to_be_bytes()));
    for name in [Some(topic), key].into_iter().flatten() {
        message.push(name.len() as u8);
        message.extend_from_slice(name.as_bytes());
    }
    message.extend_from_slice(payload);
    message
}

/// A length of two bytes, and that many bytes; gives these and what is behind them.
fn take_long(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_first_chunk().expect("a length");
    rest.split_at(usize::from(u16::from_be_bytes(*length)))
}

/// The fields of a binary message, as JSON has them.
fn add_fields(value: &mut Value, mut fields: &[u8]) {
    while let Some((what, rest)) = fields.split_first() {
        let (bytes, tail) = take_long(rest);
        fields = tail;
        let text = || String::from_utf8(bytes.to_vec()).expect("UTF-8");
        match what {
            1 => value["event"] = text().into(),
            2 => value["message_id"] = text().into(),
            3 => value["content_type"] = text().into(),
            4 => value["publisher"] = text().into(),
            5 => {
                let (length, rest) = bytes.split_first().expect("a length");
                let (name, tag) = rest.split_at(usize::from(*length));
                let name = std::str::from_utf8(name).expect("UTF-8");
                value["tags"][name] = std::str::from_utf8(tag).expect("UTF-8").into();
            }
            6 => value["time"] = u64::from_be_bytes(bytes.try_into().expect("8 bytes")).into(),
            8 => value["tombstone"] = true.into(),
            other => panic!("a field of type {other}"),
        }
    }
}

/// A publication in a binary message as JSON; one that is binary has an array of bytes as `bytes`.
fn publication(message: &[u8]) -> Value {
    let mut rest = message;
    let mut take = |count: usize| {
        let (taken, tail) = rest.split_at(count);
        rest = tail;
        taken.to_vec()
    };
    let head = take(2);
    let number = |bytes: Vec<u8>| {
        bytes
            .iter()
            .fold(0, |sum: u64, &it| sum << 8 | u64::from(it))
    };
    let (epoch, offset) = (number(take(8)), number(take(8)));
    let mut name = || {
        let length = take(1)[0];
        String::from_utf8(take(usize::from(length))).expect("a name is UTF-8")
    };
    let mut value = json!({"type": "publication", "topic": name()});
    value["position"] = format!("{epoch:016x}:{offset}").into();
    assert_eq!(head[1] & !7, 0, "a flag that is not known");
    if head[1] & 1 != 0 {
        value["pattern"] = name().into();
    }
    if head[1] & 2 != 0 {
        value["key"] = name().into();
    }
    if head[1] & 4 != 0 {
        let (bytes, tail) = take_long(rest);
        rest = tail;
        add_fields(&mut value, bytes);
    }
    match head[0] {
        1 => value["data"] = std::str::from_utf8(rest).expect("text is UTF-8").into(),
        2 => value["bytes"] = rest.into(),
        other => panic!("type {other}"),
    }
    value
}
