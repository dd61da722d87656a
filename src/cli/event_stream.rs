//! Event streams as a client reads them: WHATWG HTML section 9.2, on a blocking socket.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use umbel::internals::http::body::{BodyDecoder, BodyLength};
use umbel::internals::http::escape::escape;
use umbel::internals::http::response::is_header;

use super::client::{TICK, authorization, connect_stream, is_tick, read_some, refusal};
use super::ending::{Ending, Refusal};
use super::http_client::{HEADERS_MAX, parse_response, value};
use super::stream::{RESPONSE_TIMEOUT, Stream};
use super::url::Url;

/// Bytes of a head, and of a refusal.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The read buffer.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of one event.
const EVENT_BYTES_MAX: usize = 1 << 30;
/// Time without a byte after which the system asks whether the server is still there: the format has no ping.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its type, `message` if it has none.
    pub name: String,
    /// Last id of the stream so far, for `Last-Event-ID`.
    pub id: Option<String>,
    /// Its lines, with LF between them.
    pub data: String,
    /// A field of Umbel's says that the data is base64.
    pub is_base64: bool,
}

/// Reads events off bytes that come in pieces.
#[derive(Default)]
struct Parser {
    line: Vec<u8>,
    /// The last byte was a CR, whose LF is no line of its own.
    is_behind_cr: bool,
    /// The first line has been seen, which may begin with a byte order mark.
    has_begun: bool,
    name: String,
    id: Option<String>,
    data: String,
    is_base64: bool,
    /// What the stream wants to be waited for before it is opened again.
    retry: Option<Duration>,
}

impl Parser {
    /// Takes a piece; None once an event is longer than [`EVENT_BYTES_MAX`].
    fn feed(&mut self, bytes: &[u8], take: &mut dyn FnMut(Event)) -> Option<()> {
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\r' | b'\n')) {
            let end = piece
                .last()
                .copied()
                .filter(|byte| matches!(byte, b'\r' | b'\n'));
            let is_rest_of_end = self.is_behind_cr && piece == b"\n";
            self.is_behind_cr = end == Some(b'\r');
            if is_rest_of_end {
                continue;
            }
            self.line
                .extend_from_slice(&piece[..piece.len() - end.map_or(0, |_| 1)]);
            if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                return None;
            }
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                self.take_line(&String::from_utf8_lossy(&line), take);
                self.line = line;
                self.line.clear();
            }
        }
        Some(())
    }

    fn take_line(&mut self, line: &str, take: &mut dyn FnMut(Event)) {
        let has_begun = std::mem::replace(&mut self.has_begun, true);
        let line = match has_begun {
            true => line,
            false => line.trim_start_matches('\u{feff}'),
        };
        if line.is_empty() {
            return self.dispatch(take);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "event" => value.clone_into(&mut self.name),
            "umbel-base64" => self.is_base64 = value == "1",
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" => self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry),
            // A comment, or a field that this version of the format does not have.
            _ => {}
        }
    }

    fn dispatch(&mut self, take: &mut dyn FnMut(Event)) {
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        let is_base64 = std::mem::take(&mut self.is_base64);
        if data.pop().is_some() {
            take(Event {
                name: if name.is_empty() {
                    "message".to_owned()
                } else {
                    name
                },
                id: self.id.clone(),
                data,
                is_base64,
            });
        }
    }
}

/// An open event stream.
pub struct EventStream {
    stream: Stream,
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that came with the head.
    pending: usize,
    /// Of a body in chunks.
    chunks: Option<BodyDecoder>,
    parser: Parser,
}

impl EventStream {
    /// Asks for the events at a URL: after the one that `last_id` names, if it names one.
    ///
    /// # Errors
    /// Names the URL, and says what the server or the system said.
    pub fn open(
        url: &Url,
        token: Option<&str>,
        last_id: Option<&str>,
    ) -> Result<EventStream, Refusal> {
        request(url, token, last_id).map_err(|refusal| refusal.at(url))
    }

    /// Waits a [`TICK`] for bytes, and hands on whole events.
    ///
    /// # Errors
    /// How the stream ended.
    pub fn read(&mut self, take: &mut dyn FnMut(Event)) -> Result<(), Ending> {
        let filled = match std::mem::take(&mut self.pending) {
            0 => match self.stream.read(&mut self.buffer) {
                Ok(0) => return Err(Ending::StreamEnded),
                Ok(filled) => filled,
                Err(error) if is_tick(&error) => return Ok(()),
                Err(error) => return Err(Ending::Failed(error)),
            },
            pending => pending,
        };
        let too_long = || Ending::Malformed(format!("an event is over {EVENT_BYTES_MAX} bytes"));
        let mut input = &self.buffer[..filled];
        let Some(chunks) = &mut self.chunks else {
            return self.parser.feed(input, take).ok_or_else(too_long);
        };
        while let Some(piece) = chunks
            .decode(&mut input)
            .map_err(|refusal| Ending::Malformed(refusal.reason.to_string()))?
        {
            self.parser.feed(piece, take).ok_or_else(too_long)?;
        }
        match chunks.is_done() {
            true => Err(Ending::StreamEnded),
            false => Ok(()),
        }
    }

    /// Value for `Last-Event-ID`.
    pub fn last_id(&self) -> Option<&str> {
        self.parser.id.as_deref().filter(|id| !id.is_empty())
    }

    /// Wait before the next request, as the server wants it.
    pub fn retry(&self) -> Option<Duration> {
        self.parser.retry
    }
}

fn request(url: &Url, token: Option<&str>, last_id: Option<&str>) -> Result<EventStream, Refusal> {
    let mut request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: umbel/{}\r\nAccept: text/event-stream\r\nCache-Control: no-store\r\n",
        url.target,
        url.authority(),
        env!("CARGO_PKG_VERSION")
    );
    if let Some(token) = token {
        request.push_str(&format!("Authorization: {}\r\n", authorization(token)?));
    }
    // An id that a header cannot hold came from a server that cannot take it back.
    if let Some(id) = last_id.filter(|id| is_header("Last-Event-ID", id)) {
        request.push_str(&format!("Last-Event-ID: {id}\r\n"));
    }
    request.push_str("\r\n");
    let mut stream = connect_stream(url)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 2);
    SockRef::from(stream.socket()).set_tcp_keepalive(&keepalive)?;
    stream.set_read_timeout(TICK)?;
    stream.write_all(request.as_bytes())?;
    read_head(stream)
}

fn read_head(mut stream: Stream) -> Result<EventStream, Refusal> {
    let deadline = Instant::now() + RESPONSE_TIMEOUT;
    let mut buffer = vec![0; HEAD_BYTES_MAX.max(READ_BUFFER_BYTES)];
    let mut filled = 0;
    loop {
        filled += read_some(&mut stream, &mut buffer[filled..], filled > 0, deadline)?;
        let malformed = |error| Refusal::for_good(format!("the answer is not HTTP/1.1: {error}"));
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut storage);
        let parsed = head.parse(&buffer[..filled]).map_err(malformed)?;
        let httparse::Status::Complete(head_len) = parsed else {
            if filled == buffer.len() {
                return Err(Refusal::for_good("the head of the answer is too long"));
            }
            continue;
        };
        if head.code != Some(200) {
            let is_end = filled == buffer.len();
            let answer = parse_response(&buffer[..filled], is_end)
                .map_err(|error| Refusal::for_good(error.to_string()))?;
            if let Some(answer) = answer {
                let text = refusal(answer.status, &answer.body);
                return Err(Refusal::of_status(answer.status, text));
            }
            continue;
        }
        let content_type = value(&head, "content-type").unwrap_or("nothing");
        if !content_type.starts_with("text/event-stream") {
            return Err(Refusal::for_good(format!(
                "the answer is no event stream, but {}",
                escape(content_type)
            )));
        }
        let chunks = value(&head, "transfer-encoding")
            .map(|_| BodyDecoder::new(BodyLength::Chunked, u64::MAX));
        buffer.copy_within(head_len..filled, 0);
        return Ok(EventStream {
            stream,
            buffer,
            pending: filled - head_len,
            chunks,
            parser: Parser::default(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of a text in pieces of this length: type, id and data.
    fn events(text: &str, len: usize) -> Vec<(String, Option<String>, String)> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for piece in text.as_bytes().chunks(len) {
            let mut take = |event: Event| events.push((event.name, event.id, event.data));
            parser.feed(piece, &mut take).expect("it is short");
        }
        events
    }

    #[test]
    fn events_in_pieces_of_any_length() {
        let text = "\u{feff}data: one\n\nid: 5\nevent: binary\ndata:AP9B\r\n\r\n: a comment\rdata\rdata: \u{e9} \r\r\
                    id: 6\n\ndata: last\n\ndata: no end";
        for len in 1..text.len() {
            let events = events(text, len);
            let shown: Vec<_> = events
                .iter()
                .map(|(name, id, data)| (&**name, id.as_deref(), &**data))
                .collect();
            let expected = [
                ("message", None, "one"),
                ("binary", Some("5"), "AP9B"),
                ("message", Some("5"), "\n\u{e9} "),
                ("message", Some("6"), "last"),
            ];
            assert_eq!(shown, expected, "{len}");
        }
    }

    #[test]
    fn retry_is_in_milliseconds() {
        let mut parser = Parser::default();
        parser.feed(b"retry: 1500\nretry: x\n\n", &mut |_| {});
        assert_eq!(parser.retry, Some(Duration::from_millis(1500)));
    }
}
