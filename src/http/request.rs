//! The head of a request: request line and header lines (RFC 9112 sections 3, 5 and 6), over httparse.

use std::mem::MaybeUninit;

use super::field::{FieldLines, is_token_byte, list_members};
use super::host::is_authority;
use super::refusal::{ALLOW_ANY, Refusal};

pub use super::body::BodyLength;
pub use super::scanner::HeadScanner;

/// The most header lines that any limit can allow.
pub const HEADERS_MAX: usize = 256;

/// What a request may cost before anything of it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of request line and header lines, their line ends and the empty line included.
    pub head_bytes_max: usize,
    /// Header lines; more than [`HEADERS_MAX`] counts as that.
    pub headers_max: usize,
    /// Bytes of the target in the request line.
    pub target_bytes_max: usize,
    /// Bytes of a body, chunk framing not counted.
    pub body_bytes_max: u64,
}

impl Limits {
    /// The header lines that are let through.
    pub(super) const fn headers_allowed(&self) -> usize {
        if self.headers_max < HEADERS_MAX {
            self.headers_max
        } else {
            HEADERS_MAX
        }
    }
}

/// A method. Methods are case-sensitive (RFC 9110 section 9.1): `get` is [`Method::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method<'a> {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
    /// TRACE.
    Trace,
    /// PATCH.
    Patch,
    /// Any other token.
    Other(&'a str),
}

impl<'a> Method<'a> {
    fn from_token(token: &'a str) -> Method<'a> {
        match token {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            "TRACE" => Method::Trace,
            "PATCH" => Method::Patch,
            other => Method::Other(other),
        }
    }

    /// The method as it is written.
    #[must_use]
    pub const fn as_str(&self) -> &'a str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Patch => "PATCH",
            Method::Other(token) => token,
        }
    }
}

/// The version of HTTP that the request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// The head of one request, all of it borrowed from the bytes it was parsed from.
///
/// There is no table of headers: the lines have been checked, and are walked again by whoever asks. A head is a few
/// hundred bytes, is asked about ten times, and so needs neither heap nor a kilobyte of stack for each connection.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: Method<'a>,
    /// The target, still percent-encoded, in origin-form (`/path?query`), or `*`. Of an absolute-form target this is
    /// what follows the authority.
    pub target: &'a str,
    /// The version.
    pub version: Version,
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
    pub fn parse(bytes: &'a [u8], limits: &Limits) -> Result<Head<'a>, Refusal> {
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

        let host = check_host(lines, version)?;
        let method = Method::from_token(method);
        let target = origin_form(method, target, host)?;
        let body = body_length(lines, version)?;
        Ok(Head {
            method,
            target,
            version,
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

    /// How many lines have this name, whatever their values are.
    #[must_use]
    pub fn header_count(&self, name: &str) -> usize {
        self.values(name).count()
    }

    /// All header lines in their order: names as they were sent, values without the blanks around them.
    pub fn all(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.lines
    }

    /// Whether a token is a member of a header's comma list, with all lines of that name as one list. Name and token
    /// in any case.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(list_members)
            .any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// How the end of the body is known.
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
        if self.version == Version::Http10 {
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

    fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        values(self.lines, name)
    }
}

fn values<'a, 'n>(
    lines: FieldLines<'a>,
    name: &'n str,
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    lines
        .filter(move |(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
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

/// 505 for a version of HTTP that is none of ours, 400 for what is no version (RFC 9112 section 2.3).
fn refuse_version(head: &[u8]) -> Refusal {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or(head);
    match line.rsplit(|&byte| byte == b' ').next() {
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Refusal::version_not_supported("this server speaks HTTP/1.1 and HTTP/1.0")
        }
        _ => Refusal::bad_framing("the request line does not end in `HTTP/1.1`"),
    }
}

/// RFC 9112 section 3.2: one `Host` and a well-formed one, or none in HTTP/1.0.
fn check_host(lines: FieldLines<'_>, version: Version) -> Result<Option<&str>, Refusal> {
    let mut hosts = values(lines, "host");
    let Some(host) = hosts.next() else {
        return match version {
            Version::Http10 => Ok(None),
            Version::Http11 => Err(Refusal::bad_request("the Host header is missing").closing()),
        };
    };
    if hosts.next().is_some() {
        return Err(Refusal::bad_framing("there is more than one Host header"));
    }
    match std::str::from_utf8(host) {
        Ok(host) if is_authority(host) => Ok(Some(host)),
        _ => Err(
            Refusal::bad_request("the Host header is not a host with an optional port").closing(),
        ),
    }
}

/// The path and query of a target (RFC 9112 section 3.2).
///
/// Absolute-form names the authority a second time. RFC 9112 lets it win over `Host`; here the two have to be equal,
/// so that there is never a choice to be made, nor one to be exploited.
fn origin_form<'a>(
    method: Method<'a>,
    target: &'a str,
    host: Option<&str>,
) -> Result<&'a str, Refusal> {
    let malformed = |reason: &'static str| Err(Refusal::bad_request(reason).closing());
    if method == Method::Other("CONNECT") {
        return Err(Refusal::method_not_allowed("this server is not a proxy", ALLOW_ANY).closing());
    }
    if target.contains('#') {
        return malformed(
            "the target holds a fragment, which is never sent; `#` is written as %23",
        );
    }
    if target.starts_with('/') || (target == "*" && method == Method::Options) {
        return Ok(target);
    }
    let Some((scheme, rest)) = target.split_once("://") else {
        return malformed("the target is neither a path nor a URL");
    };
    if !["http", "https", "ws", "wss"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return malformed("the target is a URL of a scheme other than http");
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if !is_authority(authority) || host.is_some_and(|host| !host.eq_ignore_ascii_case(authority)) {
        return malformed("the target's authority and the Host header are not the same");
    }
    match path {
        "" => Ok("/"),
        _ if path.starts_with('/') => Ok(path),
        _ => malformed("the target is a URL with a query but without a path"),
    }
}

/// How the end of the body is known (RFC 9112 section 6.3). Whatever leaves room for two answers is refused.
fn body_length(lines: FieldLines<'_>, version: Version) -> Result<BodyLength, Refusal> {
    let mut lengths = values(lines, "content-length");
    let mut codings = values(lines, "transfer-encoding").peekable();
    let length = lengths.next();
    if codings.peek().is_some() {
        if length.is_some() {
            return Err(Refusal::bad_framing(
                "there are both Content-Length and Transfer-Encoding",
            ));
        }
        if version == Version::Http10 {
            return Err(Refusal::bad_framing("HTTP/1.0 has no Transfer-Encoding"));
        }
        return chunked(codings.flat_map(list_members)).map(|()| BodyLength::Chunked);
    }
    if lengths.next().is_some() {
        return Err(Refusal::bad_framing(
            "there is more than one Content-Length",
        ));
    }
    match length {
        None => Ok(BodyLength::None),
        Some(digits) => parse_length(digits)
            .map(BodyLength::Length)
            .ok_or_else(|| Refusal::bad_framing("the Content-Length is not one decimal number")),
    }
}

/// RFC 9112 section 6.1: `chunked` has to come last, and once; a coding before it is one that we do not have.
fn chunked<'a>(codings: impl Iterator<Item = &'a [u8]>) -> Result<(), Refusal> {
    let (mut count, mut chunked_count, mut last_is_chunked) = (0u32, 0u32, false);
    for coding in codings {
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        count += 1;
        chunked_count += u32::from(last_is_chunked);
    }
    match (count, chunked_count) {
        (1, 1) => Ok(()),
        (_, 1) if last_is_chunked => Err(Refusal::not_implemented(
            "the only transfer coding that is known is chunked",
        )),
        _ => Err(Refusal::bad_framing(
            "the last transfer coding is not one single `chunked`",
        )),
    }
}

/// `1*DIGIT` that fits 64 bits, and nothing else: no sign, no blank, no list.
fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |length, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether a text is a token (RFC 9110 section 5.6.2), as methods, names and subprotocols are.
#[must_use]
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}
