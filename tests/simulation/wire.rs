//! What peers write and how they read it back: frames, responses and events, as simple as can be and independent of
//! the code under test.

/// The key of RFC 6455 section 1.3, and the accept value that it must bring.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// `lines` are further header lines.
pub fn upgrade_request(path: &str, lines: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: sim\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{lines}\r\n"
    )
    .into_bytes()
}

/// A masked frame; `first` is its first byte as it stands.
pub fn frame(out: &mut Vec<u8>, first: u8, payload: &[u8], key: [u8; 4]) {
    out.push(first);
    if payload.len() < 126 {
        out.push(0x80 | payload.len() as u8);
    } else {
        out.push(0x80 | 126);
        out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    out.extend_from_slice(&key);
    for (index, byte) in payload.iter().enumerate() {
        out.push(byte ^ key[index % 4]);
    }
}

#[derive(Debug)]
pub struct Frame {
    pub opcode: u8,
    pub is_compressed: bool,
    pub payload: Vec<u8>,
}

/// Takes a whole frame off the front. A node sends them unmasked, unfragmented, and with no other reserved bit than that
/// of a compressed message.
pub fn take_frame(bytes: &mut Vec<u8>) -> Option<Frame> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let is_compressed = first & 0xf0 == 0xc0 && matches!(first & 15, 1 | 2);
    assert!(
        is_compressed || first & 0xf0 == 0x80,
        "FIN alone: {first:#x}"
    );
    assert!(
        matches!(first & 15, 1 | 2 | 8 | 9 | 10),
        "an opcode of a whole message: {first:#x}"
    );
    let (start, len) = match second {
        0..=125 => (2, usize::from(second)),
        126 => {
            let len = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
            assert!(len > 125, "a length in its shortest form");
            (4, usize::from(len))
        }
        _ => panic!("nothing here is masked or that long: {second:#x}"),
    };
    if bytes.len() < start + len {
        return None;
    }
    let payload = bytes[start..start + len].to_vec();
    bytes.drain(..start + len);
    Some(Frame {
        opcode: first & 15,
        is_compressed,
        payload,
    })
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    pub fn closes(&self) -> bool {
        self.head.contains("Connection: close")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Takes a whole response off the front; of a stream or an upgrade, its head.
pub fn take_response(bytes: &mut Vec<u8>) -> Option<Response> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is ASCII");
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest[..3].parse().ok())
        .unwrap_or_else(|| panic!("not a response: {head:?}"));
    if status == 101 {
        assert!(head.contains(&format!("Sec-WebSocket-Accept: {ACCEPT}\r\n")));
    }
    let len = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |len| len.parse().expect("a length"));
    if bytes.len() < end + len {
        return None;
    }
    let body = String::from_utf8(bytes[end..end + len].to_vec()).expect("text");
    bytes.drain(..end + len);
    Some(Response { status, head, body })
}

#[derive(Debug)]
pub struct Event {
    pub id: Option<String>,
    pub name: Option<String>,
    pub data: Option<String>,
}

/// Takes a whole block off the front: an event, an id alone, or a comment, which has nothing.
pub fn take_event(bytes: &mut Vec<u8>) -> Option<Event> {
    let end = bytes.windows(2).position(|two| two == b"\n\n")? + 2;
    let text = String::from_utf8(bytes.drain(..end).collect()).expect("an event is text");
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.map(str::to_owned)
    };
    Some(Event {
        id: field("id: "),
        name: field("event: "),
        data: field("data: "),
    })
}
