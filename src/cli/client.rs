//! The client's side of a WebSocket connection on a blocking socket: RFC 6455, sections 4.1 and 5.
//!
//! [`connect`] gives a [`Reader`] and a [`Writer`], which may live on two threads. The reader looks up every
//! [`TICK`], so that a signal or a timer is seen by whoever calls it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use umbel::internals::http::escape::escape;
use umbel::internals::http::response::is_header;
use umbel::internals::protocol::deflate::{Inflater, Offer};
use umbel::internals::protocol::{
    ClientError, ClientRequest, CloseCode, CloseFrame, Decoder, MessageLimits, Opcode,
    RESPONSE_HEAD_BYTES_MAX, Received, Role, encode_frame,
};

use super::ending::{Ending, Refusal, SILENCE_MAX};
use super::stream::{RESPONSE_TIMEOUT, Stream};
use super::url::Url;

/// Time for the TCP connection to be made, for each address of the host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which the server must take a byte of what is sent.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait of a read.
pub const TICK: Duration = Duration::from_millis(200);
/// Time without a byte after which the server is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(25);
/// The read buffer.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// What is taken of a message: as much as any server of ours can be told to send. Memory follows what has arrived.
const LIMITS: MessageLimits = MessageLimits {
    message_bytes_max: 1 << 30,
    fragments_max: 1 << 24,
};

/// Connects to a URL's host. The first address that answers counts; TLS is spoken if the URL says so.
///
/// # Errors
/// Does not name the URL.
pub fn connect_stream(url: &Url) -> Result<Stream, Refusal> {
    Stream::over(connect_tcp(url)?, url)
}

fn connect_tcp(url: &Url) -> Result<TcpStream, Refusal> {
    let addresses = (&*url.host, url.port).to_socket_addrs().map_err(|error| {
        let what = error.to_string();
        let what = what.rsplit(": ").next().unwrap_or_default();
        Refusal::for_now(match what.contains("not known") {
            true => "this host is not known; is it spelled right?".to_owned(),
            false => format!("this host could not be looked up: {what}"),
        })
    })?;
    let mut failure = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => failure = Some(error),
        }
    }
    Err(match failure {
        Some(error) if error.kind() == ErrorKind::ConnectionRefused => Refusal::for_now(format!(
            "nothing listens there ({error}); is the server running?"
        )),
        Some(error) => error.into(),
        None => Refusal::for_now("the host has no address"),
    })
}

/// The value of `Authorization` for a token.
pub fn authorization(token: &str) -> Result<String, Refusal> {
    let value = format!("Bearer {token}");
    if token.is_empty() || !token.is_ascii() || !is_header("Authorization", &value) {
        return Err(Refusal::for_good(
            "token: it is empty or holds what a header cannot hold",
        ));
    }
    Ok(value)
}

/// Wishes of a handshake, besides the URL.
#[derive(Clone, Default)]
pub struct Wishes {
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
    /// Compression.
    pub offer: Option<Offer>,
    /// The subprotocol, without which the connection is of no use.
    pub subprotocol: Option<&'static str>,
}

/// An open connection.
pub struct Opened {
    /// The way in.
    pub reader: Reader,
    /// The way out.
    pub writer: Writer,
    /// Position of the topic, if the server names it.
    pub position: Option<String>,
    /// Whether the missed publications follow, if the server says it.
    pub recovered: Option<bool>,
}

/// Opens a WebSocket connection.
///
/// # Errors
/// Names the URL, and says what the server or the system said.
pub fn connect(url: &Url, wishes: &Wishes) -> Result<Opened, Refusal> {
    open(url, wishes).map_err(|refusal| refusal.at(url))
}

fn open(url: &Url, wishes: &Wishes) -> Result<Opened, Refusal> {
    let authorization = wishes.token.as_deref().map(authorization).transpose()?;
    let headers: Vec<_> = authorization
        .iter()
        .map(|value| ("Authorization", &**value))
        .collect();
    let mut stream = connect_stream(url)?;
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let mut request = ClientRequest::new(nonce);
    if let Some(offer) = wishes.offer {
        request.offer_deflate(offer);
    }
    let mut out = Vec::new();
    let subprotocols = wishes.subprotocol.as_slice();
    request.encode(
        &mut out,
        &url.authority(),
        &url.target,
        subprotocols,
        &headers,
    );
    stream.write_all(&out)?;
    let writer = Writer {
        stream: stream.try_clone()?,
        out: Vec::new(),
    };
    read_response(stream, &request, wishes, writer)
}

/// Reads the response, and keeps the frames that came with it.
fn read_response(
    mut stream: Stream,
    request: &ClientRequest,
    wishes: &Wishes,
    writer: Writer,
) -> Result<Opened, Refusal> {
    stream.set_read_timeout(TICK)?;
    let deadline = Instant::now() + RESPONSE_TIMEOUT;
    let mut buffer = vec![0; READ_BUFFER_BYTES.max(2 * RESPONSE_HEAD_BYTES_MAX)];
    let mut filled = 0;
    loop {
        filled += read_some(&mut stream, &mut buffer[filled..], filled > 0, deadline)?;
        match request.parse_response(&buffer[..filled]) {
            Ok(None) => {}
            Ok(Some((response, head_len))) => {
                if response.subprotocol != wishes.subprotocol {
                    let wanted = wishes.subprotocol.unwrap_or_default();
                    return Err(Refusal::for_good(format!(
                        "the server does not speak {wanted}"
                    )));
                }
                let mut decoder = Decoder::new(Role::Client);
                let inflater = response.deflate.map(|agreement| {
                    decoder.accept_compressed();
                    Inflater::new(agreement.server_takeover)
                });
                let head = String::from_utf8_lossy(&buffer[..head_len]).into_owned();
                buffer.copy_within(head_len..filled, 0);
                let reader = Reader {
                    stream,
                    decoder,
                    inflater,
                    inflated: Vec::new(),
                    buffer,
                    pending: filled - head_len,
                    heard: Instant::now(),
                };
                return Ok(Opened {
                    reader,
                    writer,
                    position: header_of(&head, "Umbel-Position").map(str::to_owned),
                    recovered: header_of(&head, "Umbel-Recovered").map(|value| value == "true"),
                });
            }
            Err(ClientError::Refused { status, body }) => {
                return Err(Refusal::of_status(status, refusal(status, body.as_bytes())));
            }
            Err(error) => return Err(Refusal::for_good(error.to_string())),
        }
    }
}

/// Reads a part of an answer. It is empty when a [`TICK`] has passed.
///
/// # Errors
/// When the deadline is over, or the server has hung up; `has_begun` says whether there was something before.
pub fn read_some(
    stream: &mut Stream,
    buffer: &mut [u8],
    has_begun: bool,
    deadline: Instant,
) -> Result<usize, Refusal> {
    if Instant::now() > deadline {
        let seconds = RESPONSE_TIMEOUT.as_secs();
        return Err(Refusal::for_now(format!("no answer within {seconds} s")));
    }
    match stream.read(buffer) {
        Ok(0) if has_begun => Err(Refusal::for_now(
            "the server hung up in the middle of its answer",
        )),
        Ok(0) => Err(Refusal::for_now("the server hung up without an answer")),
        Ok(len) => Ok(len),
        Err(error) if is_tick(&error) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// The value of a header line.
pub fn header_of<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
    Some(value.trim())
}

/// An answer that is not the one hoped for, in words: the first line of its body too, unless that is a web page.
pub fn refusal(status: u16, body: &[u8]) -> String {
    let phrase = umbel::internals::http::response::reason_phrase(status);
    let body = body.trim_ascii();
    let reason = body.split(|&byte| byte == b'\n').next().unwrap_or_default();
    match reason.first() {
        None | Some(b'<') => format!("the server answered {status} {phrase}"),
        Some(_) => format!(
            "the server answered {status} {phrase}: {}",
            escape(reason.trim_ascii())
        ),
    }
}

/// Whether a read ended only to look up.
pub fn is_tick(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// The way in.
pub struct Reader {
    stream: Stream,
    decoder: Decoder,
    /// What was agreed to be compressed is inflated by it.
    inflater: Option<Inflater>,
    /// The message that it made last.
    inflated: Vec<u8>,
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that came with the response.
    pending: usize,
    heard: Instant,
}

impl Reader {
    /// Waits a [`TICK`] for bytes, and hands whole messages to `handle`.
    ///
    /// # Errors
    /// How the connection ended, for the peer's close frame too.
    pub fn read(&mut self, mut handle: impl FnMut(Received<'_>)) -> Result<(), Ending> {
        let filled = match std::mem::take(&mut self.pending) {
            0 => match self.stream.read(&mut self.buffer) {
                Ok(0) => return Err(Ending::Gone),
                Ok(filled) => filled,
                Err(error) if is_tick(&error) => return Ok(()),
                Err(error) => return Err(Ending::Failed(error)),
            },
            pending => pending,
        };
        self.heard = Instant::now();
        let mut input = &mut self.buffer[..filled];
        loop {
            match self.decoder.decode(&LIMITS, &mut input) {
                Ok(Some(Received::Close(frame))) => {
                    let code = frame.map_or(CloseCode::NO_STATUS, |frame| frame.code);
                    let reason = frame.map_or("", |frame| frame.reason);
                    return Err(Ending::Closed(code, reason.to_owned()));
                }
                Ok(Some(Received::Compressed(opcode, payload))) => {
                    let inflater = self.inflater.as_mut().expect("it was agreed to");
                    let bytes_max = LIMITS.message_bytes_max;
                    match inflater.inflate(opcode, payload, bytes_max, &mut self.inflated) {
                        Ok(received) => handle(received),
                        Err(error) => return Err(Ending::Protocol(error)),
                    }
                }
                Ok(Some(received)) => handle(received),
                Ok(None) => return Ok(()),
                Err(error) => return Err(Ending::Protocol(error)),
            }
        }
    }

    /// Time since the last byte.
    fn silence(&self) -> Duration {
        self.heard.elapsed()
    }
}

/// Whether a silent server is still there.
#[derive(Default)]
pub struct Liveness {
    is_pinged: bool,
}

impl Liveness {
    /// Whether to ping now.
    ///
    /// # Errors
    /// When the server has been silent for too long.
    pub fn poll_ping(&mut self, reader: &Reader) -> Result<bool, Ending> {
        let silence = reader.silence();
        if silence >= SILENCE_MAX {
            return Err(Ending::Silent);
        }
        let is_due = silence >= PING_INTERVAL;
        Ok(is_due && !std::mem::replace(&mut self.is_pinged, is_due))
    }
}

/// The way out. What is sent is masked, each frame with a key of its own (section 5.3).
pub struct Writer {
    stream: Stream,
    out: Vec<u8>,
}

impl Writer {
    /// Queues a frame for the next [`flush`](Writer::flush), and gives how many bytes are queued.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn queue(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<usize> {
        let mut key = [0; 4];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        encode_frame(&mut self.out, opcode, payload, Some(key));
        Ok(self.out.len())
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// When the connection is gone, or the server takes nothing for a minute.
    pub fn flush(&mut self) -> io::Result<()> {
        let sent = self.stream.write_all(&self.out);
        self.out.clear();
        sent
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// As [`queue`](Writer::queue) and [`flush`](Writer::flush).
    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        self.queue(opcode, payload)?;
        self.flush()
    }

    /// Sends a close frame. Nothing may be sent after it.
    ///
    /// # Errors
    /// As [`send`](Writer::send).
    pub fn close(&mut self, code: CloseCode, reason: &str) -> io::Result<()> {
        let mut payload = Vec::new();
        CloseFrame::encode(&mut payload, Some(CloseFrame { code, reason }));
        self.send(Opcode::Close, &payload)
    }

    /// Answers the way that the server ended the connection, and ends it. Errors are of no interest any more.
    pub fn finish(&mut self, ending: &Ending) {
        let _ = match ending {
            Ending::Closed(code, _) => self.close(*code, ""),
            Ending::Protocol(error) => self.close(error.close_code(), error.reason()),
            _ => Ok(()),
        };
        self.stream.shutdown_write();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (Writer, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let writer = Writer {
            stream: Stream::Plain(stream),
            out: Vec::new(),
        };
        (writer, listener.accept().unwrap().0)
    }

    /// curl CVE-2025-10148 used one mask for a whole connection (RFC 6455, section 10.3).
    #[test]
    fn every_frame_has_a_fresh_mask() {
        const FRAMES: usize = 10_000;
        let (mut writer, _peer) = pair();
        for _ in 0..FRAMES {
            writer.queue(Opcode::Text, b"").unwrap();
        }
        let keys: Vec<&[u8]> = writer.out.chunks(6).map(|frame| &frame[2..]).collect();
        let distinct: HashSet<&[u8]> = keys.iter().copied().collect();
        // Of 10,000 keys about 0.01 pairs meet by chance.
        assert!(distinct.len() >= FRAMES - 2, "{}", distinct.len());
        // Each of the 256 values of a byte is as likely as the others: chi-squared, 255 degrees of freedom.
        for place in 0..4 {
            let mut counts = [0_u32; 256];
            for key in &keys {
                counts[usize::from(key[place])] += 1;
            }
            let expected = FRAMES as f64 / 256.0;
            let squares = counts.map(|count| (f64::from(count) - expected).powi(2) / expected);
            let chi_squared: f64 = squares.iter().sum();
            // Eight standard deviations from the mean.
            assert!(
                (255.0 - 180.0..255.0 + 180.0).contains(&chi_squared),
                "{chi_squared}"
            );
        }
    }

    #[test]
    fn a_close_frame_is_masked_and_ends_what_is_sent() {
        let (mut writer, mut peer) = pair();
        writer.finish(&Ending::Closed(CloseCode::GOING_AWAY, "bye".to_owned()));
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes[..2], [0x88, 0x82]);
        let unmasked = [bytes[6] ^ bytes[2], bytes[7] ^ bytes[3]];
        assert_eq!(u16::from_be_bytes(unmasked), 1001);
    }

    #[test]
    fn refusal_first_line() {
        assert_eq!(
            refusal(403, b"no\n"),
            "the server answered 403 Forbidden: no"
        );
        for body in [&b""[..], b"<!doctype html>"] {
            assert_eq!(refusal(200, body), "the server answered 200 OK");
        }
    }

    #[test]
    fn tokens_stay_inside_their_header() {
        assert_eq!(authorization("t").unwrap(), "Bearer t");
        for token in ["", "a\r\nb: c", "\u{e9}"] {
            authorization(token).unwrap_err();
        }
    }
}
