//! Peers of the server over plain blocking sockets: a WebSocket peer, an event stream's reader and an HTTP connection
//! that is kept alive. They show what is on the wire and forgive nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{PATIENCE, frames};

/// A connection. `receive_buffer_bytes`: SO_RCVBUF, which decides how much a peer that does not read still takes; 0
/// leaves it to the system.
pub fn connect(address: SocketAddr, receive_buffer_bytes: usize) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    if receive_buffer_bytes > 0 {
        socket
            .set_recv_buffer_size(receive_buffer_bytes)
            .expect("settable");
    }
    socket.connect(&address.into()).expect("a connection");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("settable");
    stream.set_write_timeout(Some(PATIENCE)).expect("settable");
    stream.set_nodelay(true).expect("settable");
    stream
}

/// A connection that comes from this address of this machine.
pub fn connect_from(from: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = SocketAddr::from((from, 0));
    socket
        .bind(&from.into())
        .expect("an address of this machine");
    socket.connect(&address.into()).expect("a connection");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("settable");
    stream.set_nodelay(true).expect("settable");
    stream
}

/// Ends a connection with a reset, which leaves no TIME_WAIT behind.
pub fn reset(stream: &TcpStream) {
    let linger = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    linger.expect("settable");
}

/// Bytes that have come and have not been looked at.
struct Inbound {
    stream: TcpStream,
    bytes: Vec<u8>,
    start: usize,
}

impl Inbound {
    fn new(stream: TcpStream) -> Inbound {
        Inbound {
            stream,
            bytes: Vec::new(),
            start: 0,
        }
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Reads some more; false at the end of the stream, an orderly one or not.
    fn fill(&mut self) -> bool {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.bytes.extend_from_slice(&chunk[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came in {PATIENCE:?}: {error}"),
        }
    }

    /// The bytes up to and with the delimiter. None: the stream ended before it.
    fn take_until(&mut self, delimiter: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self
                .rest()
                .windows(delimiter.len())
                .position(|window| window == delimiter);
            if let Some(position) = found {
                return self.take(position + delimiter.len());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.rest().len() < count {
            if !self.fill() {
                return None;
            }
        }
        let taken = self.rest()[..count].to_vec();
        self.start += count;
        Some(taken)
    }
}

/// Something that a WebSocket peer is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Code (1005 if there was none) and reason.
    Close(u16, String),
    /// The stream has ended.
    End,
}

/// A WebSocket peer. It answers nothing by itself.
pub struct WebSocket {
    inbound: Inbound,
}

impl WebSocket {
    /// Connects and completes the opening handshake.
    pub fn open(address: SocketAddr, target: &str) -> WebSocket {
        WebSocket::open_on(connect(address, 0), target)
    }

    /// Opens a WebSocket over an existing connection.
    pub fn open_on(stream: TcpStream, target: &str) -> WebSocket {
        let (status, socket) = WebSocket::try_open_on(stream, target);
        assert_eq!(status, 101, "{target}");
        socket
    }

    /// Asks for a WebSocket and returns the status of the answer; 0 for none.
    pub fn try_open_on(stream: TcpStream, target: &str) -> (u16, WebSocket) {
        let (head, socket) = WebSocket::offer_on(stream, target, "");
        let status = head.get(9..12).unwrap_or("0");
        (status.parse().expect("a status"), socket)
    }

    /// Asks with further header lines, each with its line end; returns the whole head of the answer.
    pub fn offer_on(mut stream: TcpStream, target: &str, lines: &str) -> (String, WebSocket) {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
        );
        let _ = stream.write_all(request.as_bytes());
        let mut inbound = Inbound::new(stream);
        let head = inbound.take_until(b"\r\n\r\n").unwrap_or_default();
        let head = String::from_utf8(head).expect("the head is UTF-8");
        (head, WebSocket { inbound })
    }

    /// A second hand on a connection that is open, such as one that writes while the other reads.
    pub fn of(stream: TcpStream) -> WebSocket {
        let inbound = Inbound::new(stream);
        WebSocket { inbound }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.inbound.stream
    }

    /// The next whole frame. The server never fragments what it sends.
    pub fn next(&mut self) -> Incoming {
        let Some(head) = self.inbound.take(2) else {
            return Incoming::End;
        };
        assert_eq!(head[0] & 0x70, 0, "no extension was agreed on");
        assert_eq!(head[0] & 0x80, 0x80, "a fragment");
        assert_eq!(head[1] & 0x80, 0, "a server's frame is not masked");
        let extended = match head[1] {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(extended) = self.inbound.take(extended) else {
            return Incoming::End;
        };
        let len = match extended.len() {
            0 => usize::from(head[1]),
            _ => extended
                .iter()
                .fold(0, |len, &byte| len << 8 | usize::from(byte)),
        };
        let Some(payload) = self.inbound.take(len) else {
            return Incoming::End;
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("valid UTF-8");
        match head[0] & 0x0f {
            1 => Incoming::Text(text(&payload)),
            2 => Incoming::Binary(payload),
            8 if payload.is_empty() => Incoming::Close(1005, String::new()),
            8 => Incoming::Close(
                u16::from_be_bytes([payload[0], payload[1]]),
                text(&payload[2..]),
            ),
            9 => Incoming::Ping(payload),
            10 => Incoming::Pong(payload),
            opcode => panic!("opcode {opcode}"),
        }
    }

    /// The next frame, which must be a text.
    pub fn text(&mut self) -> String {
        match self.next() {
            Incoming::Text(text) => text,
            other => panic!("{other:?} instead of a text"),
        }
    }

    /// All texts until something else comes, and what that is. Pings are passed over.
    pub fn texts(&mut self) -> (Vec<String>, Incoming) {
        let mut texts = Vec::new();
        loop {
            match self.next() {
                Incoming::Text(text) => texts.push(text),
                Incoming::Ping(_) => {}
                other => return (texts, other),
            }
        }
    }

    pub fn send(&mut self, opcode: u8, payload: &[u8]) {
        let frame = frames::masked(frames::FIN | opcode, payload);
        self.inbound.stream.write_all(&frame).expect("sent");
    }

    pub fn send_text(&mut self, text: &str) {
        self.send(1, text.as_bytes());
    }

    /// Answers the server's Close frame and reads to the end of the stream.
    pub fn answer_close(mut self, code: u16) {
        let _ = self.inbound.stream.write_all(&frames::masked(
            frames::FIN | frames::CLOSE,
            &code.to_be_bytes(),
        ));
        while self.inbound.fill() {}
    }
}

/// A reader of an event stream.
pub struct EventStream {
    inbound: Inbound,
}

/// One block of an event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// Event type (`message` if none was given) and data.
    Event(String, String),
    Comment,
    End,
}

impl EventStream {
    pub fn open(address: SocketAddr, target: &str) -> EventStream {
        let mut stream = connect(address, 0);
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut inbound = Inbound::new(stream);
        let head = inbound.take_until(b"\r\n\r\n").expect("a head");
        assert!(
            head.starts_with(b"HTTP/1.1 200 "),
            "{}",
            head.escape_ascii()
        );
        EventStream { inbound }
    }

    pub fn next(&mut self) -> Block {
        let Some(block) = self.inbound.take_until(b"\n\n") else {
            return Block::End;
        };
        let block = String::from_utf8(block).expect("valid UTF-8");
        let (mut kind, mut data, mut is_event) = ("message".to_owned(), String::new(), false);
        for line in block.lines() {
            if let Some(value) = line.strip_prefix("event: ") {
                kind = value.to_owned();
            } else if let Some(value) = line.strip_prefix("data:") {
                if is_event {
                    data.push('\n');
                }
                data.push_str(value.strip_prefix(' ').unwrap_or(value));
                is_event = true;
            }
        }
        match is_event {
            true => Block::Event(kind, data),
            false => Block::Comment,
        }
    }

    /// The data of the next event. Comments are passed over.
    pub fn data(&mut self) -> String {
        loop {
            match self.next() {
                Block::Event(_, data) => return data,
                Block::Comment => {}
                Block::End => panic!("the stream ended"),
            }
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value)
    }

    /// The offset in the answer to a publish.
    pub fn offset(&self) -> u64 {
        let json: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        json["offset"].as_u64().expect("an offset")
    }
}

/// An HTTP connection, kept alive.
pub struct Http {
    inbound: Inbound,
}

impl Http {
    pub fn connect(address: SocketAddr) -> Http {
        Http::new(connect(address, 0))
    }

    pub fn new(stream: TcpStream) -> Http {
        Http {
            inbound: Inbound::new(stream),
        }
    }

    /// Address of the other end.
    pub fn peer(&self) -> SocketAddr {
        self.inbound.stream.peer_addr().expect("connected")
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.inbound.stream.write_all(bytes).expect("sent");
    }

    /// The next answer. None: the stream ended before it.
    pub fn answer(&mut self) -> Option<Answer> {
        let head = String::from_utf8(self.inbound.take_until(b"\r\n\r\n")?).expect("UTF-8");
        let mut answer = Answer {
            status: head[9..12].parse().expect("a status"),
            head,
            body: Vec::new(),
        };
        let length = answer.header("content-length").expect("a length");
        answer.body = self.inbound.take(length.parse().expect("a number"))?;
        Some(answer)
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        self.answer().expect("an answer")
    }

    /// Publishes, with whatever answer comes. None: the stream ended.
    pub fn try_publish(&mut self, topic: &str, body: &[u8]) -> Option<Answer> {
        let len = body.len();
        let head = format!(
            "POST /pub/{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n"
        );
        let request = [head.as_bytes(), body].concat();
        self.inbound.stream.write_all(&request).ok()?;
        self.answer()
    }

    /// Publishes, which must succeed; gives the offset.
    pub fn publish(&mut self, topic: &str, body: &[u8]) -> u64 {
        let answer = self.try_publish(topic, body).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body.escape_ascii());
        answer.offset()
    }

    /// Publishes many messages, one on each line.
    pub fn publish_lines(&mut self, lines: &str) -> Answer {
        let len = lines.len();
        let head = "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length:";
        self.send(format!("{head} {len}\r\n\r\n{lines}").as_bytes());
        self.answer().expect("an answer")
    }

    /// Ends our side of the stream.
    pub fn shut_down_write(&mut self) {
        self.inbound
            .stream
            .shutdown(Shutdown::Write)
            .expect("connected");
    }

    /// Whether the stream ends without another byte.
    pub fn is_at_end(&mut self) -> bool {
        self.inbound.rest().is_empty() && !self.inbound.fill()
    }
}
