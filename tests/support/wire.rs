//! One TCP connection: bytes out, whole or in pieces; responses, frames and the end of the stream in.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::frames::Frame;
use super::{PATIENCE, Random};

/// Ways to cut bytes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// In one write.
    Whole,
    /// Each byte in a write of its own.
    Bytes,
    /// Into pieces of 1 to 40 bytes, the same for the same seed.
    Random(u64),
}

impl Pieces {
    /// The three ways.
    pub const ALL: [Pieces; 3] = [Pieces::Whole, Pieces::Bytes, Pieces::Random(0x5eed)];
}

/// End of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a FIN, in order.
    Eof,
    /// With a RST.
    Reset,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header lines: names in lower case, values as they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The one value of a header, its name in lower case; two lines of that name fail the test.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} comes twice in {self:?}");
        value
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }
}

/// A TCP connection to the server.
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Wire {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_nodelay(true).expect("an option can be set");
        Wire {
            stream,
            received: Vec::new(),
        }
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Bytes that were read and not yet taken.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Sends bytes in one write, which must succeed.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends bytes in pieces to a server that may have had enough at any of them: false if it ended the connection.
    pub fn offer(&mut self, bytes: &[u8], pieces: Pieces) -> bool {
        let mut random = Random::new(match pieces {
            Pieces::Random(seed) => seed,
            Pieces::Whole | Pieces::Bytes => 0,
        });
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = match pieces {
                Pieces::Whole => rest.len(),
                Pieces::Bytes => 1,
                Pieces::Random(_) => 1 + random.below(rest.len().min(40)),
            };
            let (piece, tail) = rest.split_at(length);
            if self.stream.write_all(piece).is_err() {
                return false;
            }
            rest = tail;
        }
        true
    }

    /// Ends this side of the stream.
    pub fn end(&mut self) {
        // The other side may have reset the connection already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads once more, by the deadline.
    ///
    /// # Errors
    /// What the socket says; `TimedOut` if nothing came in time.
    fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut buffer = [0; 16 << 10];
        let count = match self.stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            outcome => outcome?,
        };
        self.received.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    /// Reads until `take` finds what it wants in what has come.
    fn read_until<T>(&mut self, what: &str, mut take: impl FnMut(&mut Vec<u8>) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = take(&mut self.received) {
                return found;
            }
            match self.fill(deadline) {
                Ok(1..) => {}
                Ok(0) => panic!("the stream ended before {what}: {}", self.shown()),
                Err(error) => panic!("{error} before {what}: {}", self.shown()),
            }
        }
    }

    fn shown(&self) -> String {
        self.received
            .escape_ascii()
            .take(2000)
            .map(char::from)
            .collect()
    }

    /// Reads a response. One without Content-Length has no body.
    pub fn read_response(&mut self) -> Response {
        self.read_response_to("")
    }

    /// Reads the response to a request; one to HEAD has no body whatever its head says.
    pub fn read_response_to(&mut self, request: &str) -> Response {
        let head_only = request.starts_with("HEAD ");
        self.read_until("a response", |bytes| take_response(bytes, head_only))
    }

    /// Reads a frame.
    pub fn read_frame(&mut self) -> Frame {
        self.read_until("a frame", Frame::take)
    }

    /// Reads until these bytes have come, and takes all up to their end.
    pub fn read_through(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut searched = 0;
        self.read_until("certain bytes", |received| {
            let found = received[searched..]
                .windows(bytes.len())
                .position(|window| window == bytes);
            match found {
                Some(at) => Some(received.drain(..searched + at + bytes.len()).collect()),
                None => {
                    searched = (received.len() + 1).saturating_sub(bytes.len());
                    None
                }
            }
        })
    }

    /// Reads to the end of the stream: what came before it, and how it ended.
    pub fn read_to_end(&mut self) -> (Vec<u8>, End) {
        self.read_to_end_within(PATIENCE)
    }

    /// As [`Wire::read_to_end`], with a time of its own.
    pub fn read_to_end_within(&mut self, within: Duration) -> (Vec<u8>, End) {
        let deadline = Instant::now() + within;
        let end = loop {
            match self.fill(deadline) {
                Ok(0) => break End::Eof,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    panic!("no end of the stream within {within:?}: {}", self.shown())
                }
                Err(_) => break End::Reset,
            }
        };
        (std::mem::take(&mut self.received), end)
    }

    /// Checks that nothing comes, and no end, for this long.
    pub fn expect_silence(&mut self, time: Duration) {
        let outcome = self.fill(Instant::now() + time);
        let silent = matches!(&outcome, Err(error) if error.kind() == io::ErrorKind::TimedOut);
        assert!(silent, "{outcome:?}: {}", self.shown());
    }

    /// Opens a WebSocket at this target.
    pub fn upgrade(&mut self, target: &str) -> Response {
        self.send(upgrade_request(target, "").as_bytes());
        let response = self.read_response();
        assert_eq!(response.status, 101, "{response:?}");
        response
    }
}

/// A whole handshake to a target, with further header lines, each with its line end.
pub fn upgrade_request(target: &str, lines: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n"
    )
}

fn take_response(bytes: &mut Vec<u8>, head_only: bool) -> Option<Response> {
    let head_length = 4 + bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..head_length - 4]).expect("the head is text");
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.split(' ').next()?.parse().ok());
    let status = status.unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
    let headers: Vec<(String, String)> = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").expect("a line is `name: value`");
            (name.to_ascii_lowercase(), value.to_owned())
        })
        .collect();
    let mut response = Response {
        status,
        headers,
        body: Vec::new(),
    };
    let length: usize = match response.header("content-length") {
        Some(length) if !head_only => length.parse().expect("a length is a number"),
        _ => 0,
    };
    response.body = bytes.get(head_length..head_length + length)?.to_vec();
    bytes.drain(..head_length + length);
    Some(response)
}
