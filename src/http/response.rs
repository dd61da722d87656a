//! Responses, written to bytes (RFC 9112 sections 4 and 6). All have their length in the head; none is chunked.
//!
//! Nothing here has a clock: `Date` is among the headers that the caller gives, if it has one.

use super::field::is_token;
use super::field::is_value_byte;
use super::refusal::Refusal;

/// The interim response that asks for the body (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// One response.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The status code.
    pub status: u16,
    /// The value of `Content-Type`; None if there is no body to speak of.
    pub content_type: Option<&'a str>,
    /// Further header lines. Those about framing (`Content-Length`, `Transfer-Encoding`, `Connection`) are written
    /// from the other fields, and are not to be among them.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
    /// Whether another request may follow; if not, the response says so.
    pub keep_alive: bool,
    /// Whether this answers HEAD: the length of the body is told, the body is not sent.
    pub head_only: bool,
}

impl Response<'_> {
    /// Writes the response behind what is in `out`.
    ///
    /// A header whose name is no token, or whose value could end the line, is left out: a bug of the caller's, which
    /// debug builds stop at.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_status_line(out, self.status);
        if let Some(content_type) = self.content_type {
            encode_header(out, "Content-Type", content_type);
        }
        let has_body = !matches!(self.status, 100..=199 | 204 | 304);
        if has_body {
            encode_header(out, "Content-Length", &self.body.len().to_string());
        }
        for (name, value) in self.headers {
            encode_header(out, name, value);
        }
        // A sender of `Upgrade` names it in `Connection` (RFC 9110 section 7.8).
        let upgrades = self
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        match (self.keep_alive, upgrades) {
            (true, false) => {}
            (true, true) => encode_header(out, "Connection", "upgrade"),
            (false, false) => encode_header(out, "Connection", "close"),
            (false, true) => encode_header(out, "Connection", "close, upgrade"),
        }
        out.extend_from_slice(b"\r\n");
        if has_body && !self.head_only {
            out.extend_from_slice(self.body);
        }
    }
}

/// Writes a refusal: its reason as a line of plain text. `keep_alive` counts only if the refusal leaves it open.
pub fn encode_refusal(out: &mut Vec<u8>, refusal: &Refusal, keep_alive: bool, head_only: bool) {
    encode_refusal_with(out, refusal, &[], keep_alive, head_only);
}

/// As [`encode_refusal`], with further header lines.
pub fn encode_refusal_with(
    out: &mut Vec<u8>,
    refusal: &Refusal,
    headers: &[(&str, &str)],
    keep_alive: bool,
    head_only: bool,
) {
    let mut all = Vec::with_capacity(1 + refusal.headers.len() + headers.len());
    all.push(("X-Content-Type-Options", "nosniff"));
    all.extend_from_slice(refusal.headers);
    all.extend_from_slice(headers);
    let body = format!("{}\n", refusal.reason);
    let response = Response {
        status: refusal.status,
        content_type: Some("text/plain; charset=utf-8"),
        headers: &all,
        body: body.as_bytes(),
        keep_alive: keep_alive && !refusal.close,
        head_only,
    };
    response.encode(out);
}

/// Writes `HTTP/1.1 200 OK` and its line end.
pub(crate) fn encode_status_line(out: &mut Vec<u8>, status: u16) {
    debug_assert!((100..=999).contains(&status), "a status has three digits");
    out.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", reason_phrase(status)).as_bytes());
}

/// Writes one header line, or nothing if it would not be one.
pub(crate) fn encode_header(out: &mut Vec<u8>, name: &str, value: &str) {
    let is_well_formed = is_header(name, value);
    debug_assert!(is_well_formed, "a header of ours is malformed");
    if is_well_formed {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

/// Head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerHead {
    /// The status code.
    pub status: u16,
    /// Bytes of the head, the empty line included.
    pub len: usize,
    /// `Content-Length`. None: the body has none, or has another end.
    pub body_bytes: Option<usize>,
}

/// The head of the server's own answer that bytes begin with. None: they do not.
#[must_use]
pub fn answer_head(bytes: &[u8]) -> Option<AnswerHead> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let length = lines.find_map(|line| line.strip_prefix("Content-Length: "));
    Some(AnswerHead {
        status: std::str::from_utf8(status).ok()?.parse().ok()?,
        len: end + 4,
        body_bytes: length.and_then(|length| length.parse().ok()),
    })
}

/// Whether a name and a value make exactly one header line.
#[must_use]
pub fn is_header(name: &str, value: &str) -> bool {
    is_token(name) && value.bytes().all(is_value_byte)
}

/// The words beside a status code; empty for one that is not among ours.
#[must_use]
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Response<'_> = Response {
        status: 200,
        content_type: Some("application/json"),
        headers: &[("Cache-Control", "no-store")],
        body: b"{}",
        keep_alive: true,
        head_only: false,
    };

    fn encode(response: &Response<'_>) -> String {
        let mut out = b">".to_vec();
        response.encode(&mut out);
        String::from_utf8(out).expect("the test's responses are text")
    }

    #[test]
    fn head_of_an_answer() {
        let read = |text: &str| answer_head(text.as_bytes());
        let head = read(&encode(&OK)[1..]).expect("a head");
        assert_eq!((head.status, head.body_bytes), (200, Some(2)));
        assert_eq!(head.len, encode(&OK).len() - 3);
        let head = read("HTTP/1.1 101 Switching Protocols\r\n\r\n\u{1}\u{1}a").expect("a head");
        assert_eq!((head.status, head.len, head.body_bytes), (101, 36, None));
        for text in ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\n", "data: a\n\n"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn whole_responses() {
        let head = ">HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nCache-Control: no-store\r\n";
        assert_eq!(encode(&OK), format!("{head}\r\n{{}}"));
        assert_eq!(
            encode(&Response {
                head_only: true,
                ..OK
            }),
            format!("{head}\r\n")
        );
        assert_eq!(
            encode(&Response {
                keep_alive: false,
                ..OK
            }),
            format!("{head}Connection: close\r\n\r\n{{}}")
        );
    }

    #[test]
    fn some_statuses_have_no_body() {
        for status in [101, 204, 304] {
            let response = Response {
                status,
                content_type: None,
                headers: &[],
                ..OK
            };
            let expected = format!(">HTTP/1.1 {status} {}\r\n\r\n", reason_phrase(status));
            assert_eq!(encode(&response), expected);
        }
        let empty = Response {
            content_type: None,
            headers: &[],
            body: b"",
            ..OK
        };
        assert_eq!(
            encode(&empty),
            ">HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn refusals_are_plain_text() {
        let mut out = Vec::new();
        encode_refusal(
            &mut out,
            &Refusal::upgrade_required("version 13, please"),
            true,
            false,
        );
        let expected = "HTTP/1.1 426 Upgrade Required\r\nContent-Type: text/plain; charset=utf-8\r\n\
            Content-Length: 19\r\nX-Content-Type-Options: nosniff\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nConnection: upgrade\r\n\r\nversion 13, please\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);

        out.clear();
        encode_refusal_with(
            &mut out,
            &Refusal::bad_framing("no"),
            &[("Vary", "Origin")],
            true,
            true,
        );
        let expected = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
            Content-Length: 3\r\nX-Content-Type-Options: nosniff\r\nVary: Origin\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn headers_cannot_be_split() {
        assert!(is_header("X-A", "b \u{e9}\t"));
        for (name, value) in [
            ("", "a"),
            ("a b", "c"),
            ("a:", "c"),
            ("a\r\n", "c"),
            ("a", "b\r\nc: d"),
            ("a", "b\nc"),
            ("a", "\0"),
        ] {
            assert!(!is_header(name, value), "{name:?} {value:?}");
        }
    }

    #[test]
    fn every_refusal_has_a_phrase() {
        for status in [
            400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 417, 426, 429, 431, 500, 501, 503,
            505,
        ] {
            assert!(!reason_phrase(status).is_empty(), "{status}");
        }
        assert_eq!(reason_phrase(299), "");
    }
}
