//! The head of a request: request line and header lines (RFC 9112 sections 3, 5 and 6), over httparse.

use std::mem::MaybeUninit;
use std::net::IpAddr;

use super::field::{FieldLines, list_members, values};
use super::forwarded::{self, Forwarded, ForwardedHeader};
use super::framing::body_length;
use super::kept::HeadView;
use super::known::Known;
use super::refusal::Refusal;
use super::target::{check_host, origin_form};

pub use super::body::BodyLength;
pub use super::field::is_token;
pub use super::request_limits::{HEADERS_MAX, RequestLimits};
pub use super::scanner::{HeadScanner, PROXY_HEADER};
pub use super::start_line::{Method, Version};

/// The head of one request. It borrows the bytes that it was parsed from.
///
/// There is no table of all headers: those that are asked for again and again are sorted out once, the rest of the lines
/// is walked by whoever asks. So a head needs neither heap nor a kilobyte of stack for each connection.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: Method<'a>,
    /// The target, still percent-encoded, in origin-form (`/path?query`), or `*`. Of an absolute-form target this is
    /// what follows the authority; it is `?query` if that has no path, which means `/`.
    pub target: &'a str,
    /// The version.
    pub version: Version,
    /// The headers that are asked for again and again.
    pub known: Known<'a>,
    lines: FieldLines<'a>,
    body: BodyLength,
    body_bytes_max: u64,
}

impl<'a> Head<'a> {
    /// Parses a head. `bytes` are exactly one, as [`HeadScanner`] found it. Nothing is allocated.
    ///
    /// # Errors
    ///
    /// All that the scanner refuses; further 400 for lines that are not `name: value`, for a `Host` that is missing,
    /// repeated or malformed, for an absolute-form target whose authority is not `Host`, and for every ambiguity
    /// about the end of the body; 405 for CONNECT; 501 for transfer codings other than chunked; 505 for other versions.
    pub fn parse(bytes: &'a [u8], limits: &RequestLimits) -> Result<Head<'a>, Refusal> {
        // The scanner is stricter than httparse about line ends. That is not left to the caller's good faith.
        if HeadScanner::new().scan(bytes, limits)? != Some(bytes.len()) {
            return Err(Refusal::bad_framing("the request's head is not whole"));
        }
        let mut storage = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let outcome =
            request.parse_with_uninit_headers(bytes, &mut storage[..limits.headers_allowed()]);
        match outcome {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(Refusal::bad_framing("the request's head is not whole")),
            Err(httparse::Error::Version) => return Head::parse_later_minor(bytes, limits),
            Err(error) => return Err(refuse(error, bytes)),
        }
        let (Some(method), Some(target), Some(minor)) =
            (request.method, request.path, request.version)
        else {
            return Err(Refusal::bad_framing("the request line is not whole"));
        };
        let version = if minor == 0 {
            Version::Http10
        } else {
            Version::Http11
        };
        let lines = FieldLines::new(field_lines(bytes));
        debug_assert!(
            lines.eq(request
                .headers
                .iter()
                .map(|header| (header.name, header.value)))
        );
        let known = Known::sort(request.headers);
        Head::check((method, target, version), known, lines, limits)
    }

    /// A head of a minor version after 1.1, which is served as 1.1 (RFC 9110 section 2.5).
    fn parse_later_minor(bytes: &'a [u8], limits: &RequestLimits) -> Result<Head<'a>, Refusal> {
        let (method, target) = later_minor(bytes).ok_or_else(|| refuse_version(bytes))?;
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let lines = field_lines(bytes);
        // The empty line that ends the head belongs to what is parsed here, and not to the lines.
        let from = bytes.len() - lines.len() - 2;
        match httparse::parse_headers(&bytes[from..], &mut storage[..limits.headers_allowed()]) {
            Ok(httparse::Status::Complete((_, headers))) => {
                let line = (method, target, Version::Http11);
                let known = Known::sort(headers);
                Head::check(line, known, FieldLines::new(lines), limits)
            }
            Ok(httparse::Status::Partial) => {
                Err(Refusal::bad_framing("the request's head is not whole"))
            }
            Err(error) => Err(refuse(error, bytes)),
        }
    }

    /// Checks what the parts of a head say.
    fn check(
        (method, target, version): (&'a str, &'a str, Version),
        known: Known<'a>,
        lines: FieldLines<'a>,
        limits: &RequestLimits,
    ) -> Result<Head<'a>, Refusal> {
        let host = check_host(known.host, version)?;
        let method = Method::from_token(method);
        let target = origin_form(method, target, host)?;
        let body = match known.is_framed {
            true => body_length(lines, version)?,
            false => BodyLength::None,
        };
        Ok(Head {
            method,
            target,
            version,
            known,
            lines,
            body,
            body_bytes_max: limits.body_bytes_max,
        })
    }

    /// The first value of a header, without the blanks around it; `name` in any case. None also if the value is not
    /// UTF-8: such values are opaque bytes, which only [`all`](Head::all) gives.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.values(name)
            .next()
            .and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of all lines with this name, in their order. Values that are not UTF-8 are left out.
    pub fn headers<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.values(name)
            .filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// Word of proxies about the client, by this header. `trusts` says which addresses are proxies;
    /// that the peer is one has to be known.
    #[must_use]
    pub fn forwarded(
        &self,
        header: ForwardedHeader,
        trusts: impl Fn(IpAddr) -> bool,
    ) -> Forwarded<'a> {
        match self.known.is_forwarded {
            true => forwarded::read(self.lines, header, trusts),
            false => Forwarded::default(),
        }
    }

    /// View of the part that can be kept.
    #[must_use]
    pub const fn view(&self) -> HeadView<'a> {
        HeadView::new(self.target, self.lines)
    }

    /// All header lines in their order: names as they were sent, values without the blanks around them.
    pub fn all(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.lines
    }

    /// Whether a token is a member of a header's comma list. All lines of that name are one list. Name and token in any
    /// case.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(list_members)
            .any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Framing of the body.
    ///
    /// # Errors
    ///
    /// 413 if `Content-Length` alone says that the body is over its limit.
    pub fn body(&self) -> Result<BodyLength, Refusal> {
        match self.body {
            BodyLength::Length(length) if length > self.body_bytes_max => {
                Err(Refusal::body_too_large(format!(
                    "the body is longer than {} bytes",
                    self.body_bytes_max
                )))
            }
            body => Ok(body),
        }
    }

    /// Whether the connection stays open behind this request (RFC 9112 section 9.3).
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        if !self.known.connection.is_there() {
            return self.version == Version::Http11;
        }
        !self.has_token("connection", "close")
            && (self.version == Version::Http11 || self.has_token("connection", "keep-alive"))
    }

    /// Whether the peer waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1). Never of a
    /// request without a body, or of HTTP/1.0, whose `Expect` means nothing.
    ///
    /// # Errors
    ///
    /// 417 for any other expectation.
    pub fn expects_continue(&self) -> Result<bool, Refusal> {
        if self.version == Version::Http10 || !self.known.expect.is_there() {
            return Ok(false);
        }
        let mut expected = false;
        for member in self.values("expect").flat_map(list_members) {
            if !member.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::expectation_failed(
                    "the only expectation that is known is 100-continue",
                ));
            }
            expected = true;
        }
        Ok(expected && !matches!(self.body, BodyLength::None | BodyLength::Length(0)))
    }

    /// Values of all lines with this name, as bytes, in order.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        values(self.lines, name)
    }
}

/// The part of a whole head between the request line and the empty line.
fn field_lines(head: &[u8]) -> &[u8] {
    let first = if head.starts_with(b"\r\n") { 2 } else { 0 };
    let line_end = head[first..]
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(head.len(), |at| first + at + 1);
    head.get(line_end..head.len().saturating_sub(2))
        .unwrap_or(&[])
}

/// Turns httparse's reason into ours.
fn refuse(error: httparse::Error, head: &[u8]) -> Refusal {
    match error {
        httparse::Error::HeaderName => Refusal::bad_framing("a header line is not `name: value`"),
        httparse::Error::HeaderValue => {
            Refusal::bad_framing("a header's value holds a character that it may not")
        }
        httparse::Error::Version => refuse_version(head),
        httparse::Error::TooManyHeaders => {
            Refusal::head_too_large("the request has too many header lines")
        }
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => {
            Refusal::bad_framing("the request line is not `method target HTTP/1.1`")
        }
    }
}

/// The request line of a head, without its line end.
fn request_line(head: &[u8]) -> &[u8] {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    head.split(|&byte| byte == b'\r').next().unwrap_or(head)
}

/// Method and target of a request line that ends in `HTTP/1.2` to `HTTP/1.9`.
fn later_minor(head: &[u8]) -> Option<(&str, &str)> {
    let mut words = std::str::from_utf8(request_line(head)).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_later = matches!(
        version.as_bytes(),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9']
    );
    (is_later && words.next().is_none()).then_some((method, target))
}

/// 505 for a version of HTTP that is none of ours, 400 for what is no version (RFC 9112 section 2.3).
fn refuse_version(head: &[u8]) -> Refusal {
    let line = request_line(head);
    if line.starts_with(b"PROXY ") {
        return Refusal::bad_framing(PROXY_HEADER);
    }
    let mut words = line.split(|&byte| byte == b' ');
    match (words.nth(2), words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Refusal::version_not_supported("this server speaks HTTP/1.1 and HTTP/1.0")
        }
        _ => Refusal::bad_framing("the request line does not end in `HTTP/1.1`"),
    }
}

#[cfg(test)]
mod tests;
