//! `POST` with keep-alive on a blocking socket, retried on 503, and `GET`: RFC 9112, RFC 9110 section 10.2.3.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use umbel::internals::http::body::{BodyDecoder, BodyLength};

use super::client::{TICK, connect_stream, is_tick, refusal};
use super::ending::{Refusal, Return};
use super::stream::RESPONSE_TIMEOUT;
use super::stream::Stream;
use super::url::Url;

/// Bytes of a response, head and body.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// Header lines of a response.
pub const HEADERS_MAX: usize = 100;
/// The longest wait that a `Retry-After` is granted; also what a date in it counts as.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// The wait after a 503 without `Retry-After`.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// A resource to post to, over one connection while it lasts.
pub struct Poster {
    url: Url,
    /// The request's head up to the length of the body.
    head: String,
    retries_max: u32,
    stream: Option<Stream>,
}

/// A whole response.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The whole body.
    pub body: Vec<u8>,
    retry_after: Option<Duration>,
    keep_alive: bool,
}

impl Poster {
    /// Connects with the first [`post`](Poster::post), which sends these header lines.
    pub fn new(url: &Url, headers: &[(&str, &str)], retries_max: u32) -> Poster {
        let mut head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: umbel/{}\r\n",
            url.target,
            url.authority(),
            env!("CARGO_PKG_VERSION")
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        Poster {
            url: url.clone(),
            head,
            retries_max,
            stream: None,
        }
    }

    /// Posts one body and gives the body of the answer. `key`: its idempotency key, with which it is also sent again when
    /// nothing answers.
    ///
    /// # Errors
    /// When the server answers with anything but 2xx, or not at all; where it is sent again, only after as many retries as
    /// are allowed.
    pub fn post(&mut self, body: &[u8], key: Option<&str>) -> Result<Vec<u8>, Box<dyn Error>> {
        let mut retries = 0;
        let first_sent = Instant::now();
        loop {
            let lines = key.map_or(String::new(), |key| key_lines(key, retries, first_sent));
            let may_retry = key.is_some() && retries < self.retries_max;
            let response = match self.post_once(body, &lines) {
                Err(error) if may_retry && is_for_now(&*error, retries) => {
                    retries += 1;
                    thread::sleep(RETRY_AFTER_DEFAULT);
                    continue;
                }
                answer => answer.map_err(|error| format!("{}: {error}", self.url))?,
            };
            match response.status {
                200..=299 => return Ok(response.body),
                503 if retries < self.retries_max => {
                    retries += 1;
                    thread::sleep(response.retry_after.unwrap_or(RETRY_AFTER_DEFAULT));
                }
                status => {
                    let refusal = refusal(status, &response.body);
                    return Err(match retries {
                        0 => format!("{}: {refusal}", self.url),
                        _ => format!("{}: {refusal} (after {retries} retries)", self.url),
                    }
                    .into());
                }
            }
        }
    }

    /// Posts one body and gives the answer, whatever its status. `lines`: headers of this request alone, each with its end.
    ///
    /// # Errors
    /// When there is none.
    pub fn post_once(&mut self, body: &[u8], lines: &str) -> Result<Response, Box<dyn Error>> {
        let mut stream = match self.stream.take().filter(Stream::is_alive) {
            Some(stream) => stream,
            None => connect_stream(&self.url)?,
        };
        stream.set_read_timeout(TICK)?;
        let (head, len) = (&self.head, body.len());
        let head = format!("{head}{lines}Content-Length: {len}\r\n\r\n");
        let sent = stream
            .write_all(&[head.as_bytes(), body].concat())
            .map_err(Lost);
        // A server that refuses a body by its length may answer and hang up before it has all.
        let response = match (read_response(&mut stream), sent) {
            (Ok(response), _) => response,
            (Err(error), Ok(())) => return Err(error),
            (Err(_), Err(error)) => return Err(error.into()),
        };
        if response.keep_alive {
            self.stream = Some(stream);
        }
        Ok(response)
    }
}

/// Headers of a publish with an idempotency key.
fn key_lines(key: &str, retries: u32, first_sent: Instant) -> String {
    let line = format!("Idempotency-Key: {key}\r\n");
    match retries {
        0 => line,
        // Rounded up: it was not sent before that.
        _ => format!(
            "{line}Umbel-First-Sent-Ms: {}\r\n",
            first_sent.elapsed().as_millis() + 1
        ),
    }
}

/// Whether the next try may be answered: the connection was lost, or there is none again yet.
fn is_for_now(error: &(dyn Error + 'static), retries: u32) -> bool {
    let refusal = error.downcast_ref::<Refusal>();
    let is_away = refusal.is_some_and(|it| !matches!(it.comes_back, Return::Never));
    error.is::<Lost>() || (retries > 0 && is_away)
}

/// Head of a GET over a connection of its own.
pub fn get_head(url: &Url, authorization: Option<&str>) -> String {
    let authorization =
        authorization.map_or(String::new(), |value| format!("Authorization: {value}\r\n"));
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: umbel/{}\r\nConnection: close\r\n{authorization}\r\n",
        url.target,
        url.authority(),
        env!("CARGO_PKG_VERSION")
    )
}

/// Gets a resource over a connection of its own.
///
/// # Errors
/// When the server answers with anything but 2xx.
pub fn get(url: &Url, authorization: Option<&str>) -> Result<Vec<u8>, Box<dyn Error>> {
    let head = get_head(url, authorization);
    let response = connect_stream(url)
        .map_err(Into::into)
        .and_then(|mut stream| {
            stream.set_read_timeout(TICK)?;
            stream.write_all(head.as_bytes())?;
            read_response(&mut stream)
        })
        .map_err(|error: Box<dyn Error>| format!("{url}: {error}"))?;
    match response.status {
        200..=299 => Ok(response.body),
        status => Err(format!("{url}: {}", refusal(status, &response.body)).into()),
    }
}

/// The connection ended before the answer.
#[derive(Debug)]
struct Lost(io::Error);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = &self.0;
        write!(
            f,
            "the connection was lost ({error}); whether the message was published is not known"
        )
    }
}

impl Error for Lost {}

fn read_response(stream: &mut Stream) -> Result<Response, Box<dyn Error>> {
    let deadline = Instant::now() + RESPONSE_TIMEOUT;
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let is_end = match stream.read(&mut piece) {
            Ok(len) => {
                bytes.extend_from_slice(&piece[..len]);
                len == 0
            }
            Err(error) if is_tick(&error) => false,
            Err(error) => return Err(Lost(error).into()),
        };
        if let Some(response) = parse_response(&bytes, is_end)? {
            return Ok(response);
        }
        if is_end {
            return Err(Lost(ErrorKind::UnexpectedEof.into()).into());
        }
        if bytes.len() > RESPONSE_BYTES_MAX {
            return Err(format!("the answer is longer than {RESPONSE_BYTES_MAX} bytes").into());
        }
        if Instant::now() > deadline {
            return Err(Lost(ErrorKind::TimedOut.into()).into());
        }
    }
}

/// Reads a response off `bytes`, all that has arrived. `None`: more is needed. `is_end`: nothing more comes.
pub fn parse_response(mut bytes: &[u8], is_end: bool) -> Result<Option<Response>, Box<dyn Error>> {
    loop {
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut storage);
        let parsed = head
            .parse(bytes)
            .map_err(|error| format!("the answer is not HTTP/1.1: {error}"))?;
        let httparse::Status::Complete(head_len) = parsed else {
            return Ok(None);
        };
        bytes = &bytes[head_len..];
        let status = head.code.unwrap_or(0);
        if (100..=199).contains(&status) {
            continue;
        }
        let Some(body) = parse_body(&head, bytes, is_end)? else {
            return Ok(None);
        };
        let is_closing = value(&head, "connection")
            .is_some_and(|value| value.to_ascii_lowercase().contains("close"));
        return Ok(Some(Response {
            status,
            body: body.bytes,
            retry_after: value(&head, "retry-after").map(parse_retry_after),
            keep_alive: body.has_clean_end && !is_closing && head.version == Some(1),
        }));
    }
}

/// A whole body.
struct Body {
    bytes: Vec<u8>,
    /// Whether its end was known by itself, and nothing came behind it.
    has_clean_end: bool,
}

/// Reads the body that follows a head. `None`: more is needed.
fn parse_body(
    head: &httparse::Response<'_, '_>,
    mut bytes: &[u8],
    is_end: bool,
) -> Result<Option<Body>, Box<dyn Error>> {
    let length = match (
        value(head, "transfer-encoding"),
        value(head, "content-length"),
    ) {
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => BodyLength::Chunked,
        (None, Some(length)) => BodyLength::Length(length.parse()?),
        _ if matches!(head.code, Some(204 | 304)) => BodyLength::None,
        _ => {
            return Ok(is_end.then(|| Body {
                bytes: bytes.to_vec(),
                has_clean_end: false,
            }));
        }
    };
    let mut decoder = BodyDecoder::new(length, RESPONSE_BYTES_MAX as u64);
    let mut body = Vec::new();
    while let Some(piece) = decoder
        .decode(&mut bytes)
        .map_err(|refusal| format!("the answer is malformed: {}", refusal.reason))?
    {
        body.extend_from_slice(piece);
    }
    let body = Body {
        bytes: body,
        has_clean_end: bytes.is_empty(),
    };
    Ok(decoder.is_done().then_some(body))
}

/// The value of a header line.
pub fn value<'a>(head: &'a httparse::Response<'_, '_>, name: &str) -> Option<&'a str> {
    let mut lines = head.headers.iter();
    let line = lines.find(|line| line.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(line.value).ok().map(str::trim)
}

fn parse_retry_after(value: &str) -> Duration {
    let seconds: Option<u64> = value.parse().ok();
    seconds.map_or(RETRY_AFTER_MAX, |seconds| {
        Duration::from_secs(seconds).min(RETRY_AFTER_MAX)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &str, is_end: bool) -> Option<Response> {
        parse_response(text.as_bytes(), is_end).unwrap()
    }

    #[test]
    fn responses_by_length_and_in_chunks() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        ] {
            let response = parse(text, false).unwrap();
            assert_eq!((response.status, &*response.body), (200, &b"{}"[..]));
            assert!(response.keep_alive);
            for end in 0..text.len() {
                assert_eq!(parse(&text[..end], false), None, "{text:?}");
            }
        }
        let closing = "HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n";
        assert!(!parse(closing, false).unwrap().keep_alive);
    }

    #[test]
    fn a_response_without_a_length_ends_with_the_connection() {
        let text = "HTTP/1.1 502 Bad Gateway\r\n\r\nno";
        assert_eq!(parse(text, false), None);
        let response = parse(text, true).unwrap();
        assert_eq!((&*response.body, response.keep_alive), (&b"no"[..], false));
    }

    #[test]
    fn retry_after_is_bounded() {
        assert_eq!(parse_retry_after("2"), Duration::from_secs(2));
        assert_eq!(parse_retry_after("99999999999"), RETRY_AFTER_MAX);
        assert_eq!(
            parse_retry_after("Fri, 31 Dec 1999 23:59:59 GMT"),
            RETRY_AFTER_MAX
        );
    }

    #[test]
    fn answers_that_are_no_http_are_errors() {
        assert!(parse_response(b"\x00\x01", false).is_err());
        assert!(parse_response(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", false).is_err());
        let long = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            RESPONSE_BYTES_MAX + 1
        );
        assert!(parse_response(long.as_bytes(), false).is_err());
    }
}
