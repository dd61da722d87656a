//! The opening handshake, the client's side: RFC 6455, section 4.1.

use super::deflate::{Agreement, Offer, WrongAnswer};
use super::handshake::{EXTENSIONS, KEY_BYTES, VERSION, accept_key, encode_line};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// The longest response head that a client takes.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 16 * 1024;

/// How much of the body of a refusal is kept.
const REFUSAL_BODY_BYTES_MAX: usize = 1024;

/// Header lines of a response; more is an error.
const RESPONSE_HEADERS_MAX: usize = 100;

/// One opening handshake, from the request to the response.
#[derive(Clone, Debug)]
pub struct ClientRequest {
    key: [u8; KEY_BYTES],
    subprotocols: Vec<String>,
    deflate: Option<Offer>,
}

/// A response that opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'b> {
    /// The subprotocol that the server chose, one of those offered.
    pub subprotocol: Option<&'b str>,
    /// Compression that the server agreed to.
    pub deflate: Option<Agreement>,
}

/// Reason that a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The response is not HTTP/1.1, or says twice what may be said once.
    Malformed,
    /// The head of the response is over [`RESPONSE_HEAD_BYTES_MAX`] or has over 100 header lines.
    HeadTooLarge,
    /// The server answered with another status than 101.
    Refused {
        /// The status code.
        status: u16,
        /// The body, its first KiB, as text.
        body: String,
    },
    /// `Upgrade: websocket` or `Connection: Upgrade` is missing from a response with status 101.
    NotUpgraded,
    /// `Sec-WebSocket-Accept` is missing or does not belong to the key.
    WrongAccept,
    /// The server chose a subprotocol that was not offered.
    UnofferedSubprotocol,
    /// The server chose an extension that was not offered, or not in the way it was.
    UnofferedExtension,
}

impl ClientRequest {
    /// A handshake with this nonce, which has to be random (section 4.1, item 7).
    pub fn new(nonce: [u8; 16]) -> ClientRequest {
        let mut key = [0; KEY_BYTES];
        let len = STANDARD.encode_slice(nonce, &mut key);
        debug_assert_eq!(len, Ok(KEY_BYTES));
        ClientRequest {
            key,
            subprotocols: Vec::new(),
            deflate: None,
        }
    }

    /// Offers compression. To be called before [`encode`](ClientRequest::encode).
    pub fn offer_deflate(&mut self, offer: Offer) {
        self.deflate = Some(offer);
    }

    /// Appends the request and remembers its offers. `headers` are further header lines. `target` is the path and the
    /// query, percent-encoded.
    pub fn encode(
        &mut self,
        out: &mut Vec<u8>,
        host: &str,
        target: &str,
        subprotocols: &[&str],
        headers: &[(&str, &str)],
    ) {
        debug_assert!(target.bytes().all(|byte| byte.is_ascii_graphic()));
        for part in ["GET ", target, " HTTP/1.1\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        encode_line(out, "Host", host);
        encode_line(out, "Upgrade", "websocket");
        encode_line(out, "Connection", "Upgrade");
        encode_line(out, "Sec-WebSocket-Version", VERSION);
        encode_line(out, "Sec-WebSocket-Key", self.key());
        if !subprotocols.is_empty() {
            encode_line(out, "Sec-WebSocket-Protocol", &subprotocols.join(", "));
        }
        if let Some(offer) = &self.deflate {
            encode_line(out, EXTENSIONS, &offer.encode());
        }
        for (name, value) in headers {
            encode_line(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
        self.subprotocols = subprotocols.iter().map(|name| (*name).to_owned()).collect();
    }

    /// Reads the response off the front of `bytes`, and its length. Frames may follow it. `None`: more bytes are
    /// needed. Interim responses (RFC 9110, section 15.2) are passed over.
    ///
    /// # Errors
    ///
    /// Everything but an agreement to what was asked for fails the handshake.
    pub fn parse_response<'b>(
        &self,
        bytes: &'b [u8],
    ) -> Result<Option<(Response<'b>, usize)>, ClientError> {
        let mut start = 0;
        loop {
            let mut storage = [httparse::EMPTY_HEADER; RESPONSE_HEADERS_MAX];
            let mut head = httparse::Response::new(&mut storage);
            let head_bytes = &bytes[start..bytes.len().min(RESPONSE_HEAD_BYTES_MAX)];
            let end = match head.parse(head_bytes) {
                Ok(httparse::Status::Complete(len)) => start + len,
                Ok(httparse::Status::Partial) if bytes.len() < RESPONSE_HEAD_BYTES_MAX => {
                    return Ok(None);
                }
                Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                    return Err(ClientError::HeadTooLarge);
                }
                Err(_) => return Err(ClientError::Malformed),
            };
            match head.code {
                Some(101) => {
                    let response = self.check(head.version, head.headers)?;
                    return Ok(Some((response, end)));
                }
                Some(100..=199) => start = end,
                Some(status) => return refused(status, head.headers, &bytes[end..]),
                None => return Err(ClientError::Malformed),
            }
        }
    }

    fn key(&self) -> &str {
        std::str::from_utf8(&self.key).expect("base64 is ASCII")
    }

    /// Section 4.1, the checks of a response with status 101.
    fn check<'b>(
        &self,
        version: Option<u8>,
        headers: &[httparse::Header<'b>],
    ) -> Result<Response<'b>, ClientError> {
        if version != Some(1) {
            return Err(ClientError::Malformed);
        }
        if !has_token(headers, "upgrade", "websocket")
            || !has_token(headers, "connection", "upgrade")
        {
            return Err(ClientError::NotUpgraded);
        }
        if single(headers, "sec-websocket-accept")? != Some(&accept_key(self.key())[..]) {
            return Err(ClientError::WrongAccept);
        }
        let mut extensions = values(headers, EXTENSIONS);
        let deflate = match &self.deflate {
            Some(offer) => offer.check_answer(extensions),
            None if extensions.any(|value| !value.is_empty()) => Err(WrongAnswer),
            None => Ok(None),
        };
        let deflate = deflate.map_err(|WrongAnswer| ClientError::UnofferedExtension)?;
        let subprotocol = single(headers, "sec-websocket-protocol")?
            .map(|value| self.offered(value).ok_or(ClientError::UnofferedSubprotocol))
            .transpose()?;
        Ok(Response {
            subprotocol,
            deflate,
        })
    }

    /// The value as text, if it is one of the offers.
    fn offered<'b>(&self, value: &'b [u8]) -> Option<&'b str> {
        let value = std::str::from_utf8(value).ok()?;
        self.subprotocols
            .iter()
            .any(|offer| offer == value)
            .then_some(value)
    }
}

/// The refusal, once as much of its body is there as is kept of it.
fn refused<'b>(
    status: u16,
    headers: &[httparse::Header<'_>],
    body: &[u8],
) -> Result<Option<(Response<'b>, usize)>, ClientError> {
    let announced: Option<usize> = single(headers, "content-length")?
        .and_then(|value| std::str::from_utf8(value).ok())
        .and_then(|value| value.parse().ok());
    let wanted = announced
        .map_or(body.len(), |len| len)
        .min(REFUSAL_BODY_BYTES_MAX);
    if body.len() < wanted {
        return Ok(None);
    }
    let body = String::from_utf8_lossy(&body[..wanted]).into_owned();
    Err(ClientError::Refused { status, body })
}

fn values<'b, 'h>(
    headers: &'h [httparse::Header<'b>],
    name: &'h str,
) -> impl Iterator<Item = &'b [u8]> + use<'b, 'h> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value.trim_ascii())
}

fn single<'b>(
    headers: &[httparse::Header<'b>],
    name: &str,
) -> Result<Option<&'b [u8]>, ClientError> {
    let mut values = values(headers, name);
    let first = values.next();
    if values.next().is_some() {
        return Err(ClientError::Malformed);
    }
    Ok(first)
}

fn has_token(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|member| member.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClientError::Malformed => "the response is not well-formed HTTP/1.1",
            ClientError::HeadTooLarge => "the head of the response is too large",
            ClientError::Refused { status, body } => {
                return write!(
                    f,
                    "the server answered {status}: {}",
                    body.trim_end().escape_debug()
                );
            }
            ClientError::NotUpgraded => "the server switched to another protocol",
            ClientError::WrongAccept => "the server's Sec-WebSocket-Accept is wrong",
            ClientError::UnofferedSubprotocol => "the server chose a subprotocol not offered",
            ClientError::UnofferedExtension => {
                "the server chose an extension that was not offered, or not so"
            }
        })
    }
}

impl std::error::Error for ClientError {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    fn request(subprotocols: &[&str]) -> (ClientRequest, String) {
        let mut request = ClientRequest::new(*b"the sample nonce");
        let mut out = Vec::new();
        let headers = [("Origin", "http://a")];
        request.encode(&mut out, "a:80", "/ws/x?y=1", subprotocols, &headers);
        (request, String::from_utf8(out).unwrap())
    }

    fn parse(response: &str) -> Result<Option<(Response<'_>, usize)>, ClientError> {
        request(&["one", "two"])
            .0
            .parse_response(response.as_bytes())
    }

    #[test]
    fn encodes_the_request() {
        assert_eq!(
            request(&["one", "two"]).1,
            "GET /ws/x?y=1 HTTP/1.1\r\nHost: a:80\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: one, two\r\nOrigin: http://a\r\n\r\n"
        );
    }

    #[test]
    fn a_good_response_and_every_front_of_it() {
        let response = format!("{GOOD}Sec-WebSocket-Protocol: two\r\n\r\n");
        let subprotocol = Some("two");
        let with_frame = format!("{response}\u{1}\u{2}");
        let deflate = None;
        let expected = Response {
            subprotocol,
            deflate,
        };
        let expected = Ok(Some((expected, response.len())));
        assert_eq!(parse(&with_frame), expected);
        for end in 0..response.len() {
            assert_eq!(parse(&response[..end]), Ok(None));
        }
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let response = format!("{interim}{GOOD}\r\n");
        let expected = Response {
            subprotocol: None,
            deflate,
        };
        assert_eq!(parse(&response), Ok(Some((expected, response.len()))));
    }

    #[test]
    fn what_was_not_asked_for_fails() {
        let with = |line: &str| parse(&format!("{GOOD}{line}\r\n\r\n")).unwrap_err();
        let extension = "Sec-WebSocket-Extensions: permessage-deflate";
        assert_eq!(with(extension), ClientError::UnofferedExtension);
        let subprotocol = "Sec-WebSocket-Protocol: three";
        assert_eq!(with(subprotocol), ClientError::UnofferedSubprotocol);
        let list = "Sec-WebSocket-Protocol: one, two";
        assert_eq!(with(list), ClientError::UnofferedSubprotocol);
        let repeated = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert_eq!(with(repeated), ClientError::Malformed);
        let changed = |from, to| parse(&(GOOD.replace(from, to) + "\r\n")).unwrap_err();
        assert_eq!(changed("s3pP", "S3pP"), ClientError::WrongAccept);
        assert_eq!(changed("WebSocket\r", "h2c\r"), ClientError::NotUpgraded);
        assert_eq!(changed("Upgrade\r", "close\r"), ClientError::NotUpgraded);
        assert_eq!(changed("HTTP/1.1", "HTTP/1.0"), ClientError::Malformed);
        assert_eq!(changed("HTTP/1.1", "SPDY"), ClientError::Malformed);
    }

    #[test]
    fn compression_is_offered_and_the_answer_checked() {
        let mut request = ClientRequest::new(*b"the sample nonce");
        request.offer_deflate(Offer::default());
        let mut out = Vec::new();
        request.encode(&mut out, "a", "/", &[], &[]);
        let line = "\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
        assert!(String::from_utf8(out).unwrap().contains(line));
        let answer = |value: &str| {
            let response = format!("{GOOD}sec-websocket-extensions: {value}\r\n\r\n");
            let (response, _) = request.parse_response(response.as_bytes())?.unwrap();
            Ok(response
                .deflate
                .map(|agreement| agreement.client_window_bits))
        };
        assert_eq!(answer("permessage-deflate"), Ok(Some(15)));
        let smaller = "permessage-deflate; client_max_window_bits=10";
        assert_eq!(answer(smaller), Ok(Some(10)));
        assert_eq!(answer(""), Ok(None));
        let error = Err(ClientError::UnofferedExtension);
        assert_eq!(answer("permessage-deflate; x"), error);
        assert_eq!(answer("other"), error);
    }

    #[test]
    fn a_refusal_brings_its_text() {
        let head = "HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\n";
        assert_eq!(parse(head), Ok(None));
        let body = "origin".to_owned();
        let status = 403;
        assert_eq!(
            parse(&format!("{head}originHTTP")),
            Err(ClientError::Refused { status, body })
        );
        let endless = format!(
            "HTTP/1.1 500 x\r\nContent-Length: 9999\r\n\r\n{}",
            "x".repeat(2000)
        );
        let Err(ClientError::Refused { status: 500, body }) = parse(&endless) else {
            panic!("a refusal was expected");
        };
        assert_eq!(body.len(), REFUSAL_BODY_BYTES_MAX);
    }

    #[test]
    fn a_head_without_end_is_cut() {
        let endless = format!("{GOOD}x: {}", "y".repeat(RESPONSE_HEAD_BYTES_MAX));
        assert_eq!(parse(&endless), Err(ClientError::HeadTooLarge));
        let endless = GOOD.to_owned() + &"x: y\r\n".repeat(RESPONSE_HEADERS_MAX);
        assert_eq!(parse(&endless), Err(ClientError::HeadTooLarge));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(2000);
        assert_eq!(parse(&interim), Err(ClientError::HeadTooLarge));
    }
}
