//! A refused request: status, sentence for people, and label for a counter.
//!
//! The statuses are those of RFC 9110 section 15 and RFC 6585. A reason never repeats what the peer sent.

use std::borrow::Cow;
use std::fmt;

/// Header lines that a refusal brings along: names and values.
pub type RefusalHeaders = &'static [(&'static str, &'static str)];

/// `Allow` for resources that need an upgrade or a stream.
pub const ALLOW_GET: RefusalHeaders = &[("Allow", "GET")];
/// `Allow` for plain documents.
pub const ALLOW_GET_HEAD: RefusalHeaders = &[("Allow", "GET, HEAD")];
/// `Allow` for publishing.
pub const ALLOW_POST: RefusalHeaders = &[("Allow", "POST")];
/// `Allow` where the method is refused whatever the resource is.
pub const ALLOW_ANY: RefusalHeaders = &[("Allow", "GET, HEAD, POST")];

/// Bytes of the reason in a Close frame (RFC 6455 section 5.5.1).
const CLOSE_WORDS_BYTES_MAX: usize = 123;

macro_rules! retry_after {
    ($($seconds:literal)*) => {
        &[$(($seconds, &[("Retry-After", stringify!($seconds))])),*]
    };
}

/// `Retry-After` by seconds, in their order.
const RETRY_AFTER: &[(u32, RefusalHeaders)] = retry_after![
    1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44
    45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 120 180 240 300 600 900 1800 3600
];

/// An answer other than the one that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status code, 400 to 599.
    pub status: u16,
    /// One sentence for people. It has no full stop and repeats nothing that the peer sent.
    pub reason: Cow<'static, str>,
    /// The metric label: one of [`Refusal::LABELS`].
    pub label: &'static str,
    /// Header lines that belong to the status, such as `Allow` to 405.
    pub headers: RefusalHeaders,
    /// Whether the connection closes: where the next request starts is unknown.
    pub close: bool,
}

impl Refusal {
    /// Every label there is.
    pub const LABELS: &'static [&'static str] = &[
        "bad_request",
        "bad_framing",
        "bad_topic",
        "unauthorized",
        "forbidden",
        "not_found",
        "method_not_allowed",
        "timeout",
        "conflict",
        "body_too_large",
        "target_too_long",
        "unsupported_media_type",
        "expectation_failed",
        "misdirected",
        "unprocessable",
        "upgrade_required",
        "too_many_requests",
        "head_too_large",
        "internal",
        "not_implemented",
        "unavailable",
        "version_not_supported",
    ];

    /// Code of it in the control API's answers.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.status {
            400 => "invalid_request",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            409 | 422 => "conflict",
            413 => "too_large",
            429 => "rate_limited",
            500 => "internal",
            503 => "unavailable",
            _ => self.label,
        }
    }

    /// It as a JSON object, as the control API answers.
    #[must_use]
    pub fn encode_json(&self) -> Vec<u8> {
        let reason = serde_json::Value::from(&*self.reason);
        let code = self.code();
        format!("{{\"error\":{{\"code\":\"{code}\",\"reason\":{reason}}}}}\n").into_bytes()
    }

    /// Its header lines, to be kept.
    #[must_use]
    pub fn header_lines(&self) -> Vec<(&'static str, String)> {
        let lines = self.headers.iter();
        lines
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect()
    }

    /// One for the count and the log alone. What was answered is not it, but has this status.
    #[must_use]
    pub fn of_status(status: u16, reason: impl Into<Cow<'static, str>>) -> Refusal {
        let label = match status {
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            405 => "method_not_allowed",
            409 => "conflict",
            413 => "body_too_large",
            415 => "unsupported_media_type",
            422 => "unprocessable",
            429 => "too_many_requests",
            500 => "internal",
            503 => "unavailable",
            _ => "bad_request",
        };
        Refusal::new(status, label, reason.into())
    }

    const fn new(status: u16, label: &'static str, reason: Cow<'static, str>) -> Refusal {
        Refusal {
            status,
            reason,
            label,
            headers: &[],
            close: false,
        }
    }

    /// 400: the request says something that it may not say, but its end is known.
    pub fn bad_request(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(400, "bad_request", reason.into())
    }

    /// 400: where this request ends cannot be trusted. The connection closes.
    pub fn bad_framing(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(400, "bad_framing", reason.into()).closing()
    }

    /// 400: the topic in the target, or in a message, is not one.
    pub fn bad_topic(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(400, "bad_topic", reason.into())
    }

    /// 401: no credentials, or wrong ones.
    pub fn unauthorized(reason: impl Into<Cow<'static, str>>) -> Refusal {
        let mut refusal = Refusal::new(401, "unauthorized", reason.into());
        refusal.headers = &[("WWW-Authenticate", "Bearer realm=\"umbel\"")];
        refusal
    }

    /// 403: the origin or the policy forbids it.
    pub fn forbidden(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(403, "forbidden", reason.into())
    }

    /// 404: nothing is there.
    pub fn not_found(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(404, "not_found", reason.into())
    }

    /// 405: the resource has other methods; `headers` names them, as [`ALLOW_GET`] does.
    pub fn method_not_allowed(
        reason: impl Into<Cow<'static, str>>,
        headers: RefusalHeaders,
    ) -> Refusal {
        debug_assert!(headers.iter().any(|(name, _)| *name == "Allow"));
        let mut refusal = Refusal::new(405, "method_not_allowed", reason.into());
        refusal.headers = headers;
        refusal
    }

    /// 408: the request did not arrive in time. The connection closes.
    pub fn timeout(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(408, "timeout", reason.into()).closing()
    }

    /// 409: the state of the resource does not allow it now.
    pub fn conflict(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(409, "conflict", reason.into())
    }

    /// 413: the body is over its limit, and will not be read. The connection closes.
    pub fn body_too_large(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(413, "body_too_large", reason.into()).closing()
    }

    /// 414: the target, or the topic in it, is over its limit.
    pub fn target_too_long(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(414, "target_too_long", reason.into())
    }

    /// 415: the body is of a type that the resource does not take.
    pub fn unsupported_media_type(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(415, "unsupported_media_type", reason.into())
    }

    /// 415: the body is compressed; `Accept-Encoding` says which codings are taken (RFC 9110 section 15.5.16).
    pub fn unsupported_content_encoding(reason: impl Into<Cow<'static, str>>) -> Refusal {
        let mut refusal = Refusal::unsupported_media_type(reason);
        refusal.headers = &[("Accept-Encoding", "identity")];
        refusal
    }

    /// 417: an `Expect` that is not `100-continue`. The connection closes, since the body may or may not follow.
    pub fn expectation_failed(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(417, "expectation_failed", reason.into()).closing()
    }

    /// 421: the host is none of this server's (RFC 9110 section 15.5.20).
    pub fn misdirected(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(421, "misdirected", reason.into())
    }

    /// 422: what the request says contradicts an earlier one (RFC 9110 section 15.5.21).
    pub fn unprocessable(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(422, "unprocessable", reason.into())
    }

    /// 426: a WebSocket version other than 13, or no upgrade where one is needed (RFC 6455 section 4.4).
    pub fn upgrade_required(reason: impl Into<Cow<'static, str>>) -> Refusal {
        let mut refusal = Refusal::new(426, "upgrade_required", reason.into());
        refusal.headers = &[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
        refusal
    }

    /// 429: more than this peer may ask for.
    pub fn too_many_requests(reason: impl Into<Cow<'static, str>>) -> Refusal {
        let mut refusal = Refusal::new(429, "too_many_requests", reason.into());
        refusal.headers = &[("Retry-After", "1")];
        refusal
    }

    /// 431: the head is over its limit in bytes or in lines. The connection closes.
    pub fn head_too_large(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(431, "head_too_large", reason.into()).closing()
    }

    /// 500: our own fault.
    pub fn internal(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(500, "internal", reason.into())
    }

    /// 501: a method or a transfer coding that this server does not know. The connection closes.
    pub fn not_implemented(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(501, "not_implemented", reason.into()).closing()
    }

    /// 503: full, starting or draining; the same request may be served a second later.
    pub fn unavailable(reason: impl Into<Cow<'static, str>>) -> Refusal {
        let mut refusal = Refusal::new(503, "unavailable", reason.into());
        refusal.headers = &[("Retry-After", "1")];
        refusal
    }

    /// 505: not HTTP/1.0 and not HTTP/1.1. The connection closes.
    pub fn version_not_supported(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(505, "version_not_supported", reason.into()).closing()
    }

    /// This refusal, with `Retry-After` in place of its other headers: rounded up, to minutes where it is over one, and at most an
    /// hour.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Refusal {
        let headers = RETRY_AFTER.iter().find(|(each, _)| *each >= seconds);
        self.headers = headers.or(RETRY_AFTER.last()).map_or(&[], |it| it.1);
        self
    }

    /// Words for a Close: the reason, and when the same may be asked for again, as in `retry=5`.
    #[must_use]
    pub fn close_words(&self) -> Cow<'static, str> {
        let mut headers = self.headers.iter();
        match headers.find(|(name, _)| *name == "Retry-After") {
            Some((_, seconds)) => {
                let hint = format!("; retry={seconds}");
                let room = self.reason.len().min(CLOSE_WORDS_BYTES_MAX - hint.len());
                let mut cuts = (0..=room).rev();
                let cut = cuts.find(|at| self.reason.is_char_boundary(*at));
                format!("{}{hint}", &self.reason[..cut.unwrap_or(0)]).into()
            }
            None => self.reason.clone(),
        }
    }

    /// Whether the same request may be served a little later.
    #[must_use]
    pub const fn is_for_now(&self) -> bool {
        matches!(self.status, 429 | 503)
    }

    /// This refusal, after which the connection closes.
    #[must_use]
    pub const fn closing(mut self) -> Refusal {
        self.close = true;
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.reason)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_stands_behind_the_words_of_a_close() {
        let refusal = Refusal::unavailable("full").retry_after(7);
        assert_eq!(refusal.close_words(), "full; retry=7");
        let refusal = Refusal::unavailable("ä".repeat(100)).retry_after(120);
        let words = refusal.close_words();
        assert!(words.len() <= CLOSE_WORDS_BYTES_MAX && words.ends_with("ä; retry=120"));
        assert_eq!(Refusal::forbidden("no").close_words(), "no");
    }

    #[test]
    fn retry_after_is_rounded_up() {
        for (seconds, written) in [
            (0, "1"),
            (1, "1"),
            (7, "7"),
            (60, "60"),
            (61, "120"),
            (4000, "3600"),
        ] {
            let refusal = Refusal::unavailable("full").retry_after(seconds);
            assert_eq!(refusal.headers, [("Retry-After", written)], "{seconds}");
        }
        assert!(RETRY_AFTER.is_sorted_by_key(|(seconds, _)| *seconds));
    }

    #[test]
    fn labels_are_from_the_closed_set() {
        let reason = "x";
        let all = [
            Refusal::bad_request(reason),
            Refusal::bad_framing(reason),
            Refusal::bad_topic(reason),
            Refusal::unauthorized(reason),
            Refusal::forbidden(reason),
            Refusal::not_found(reason),
            Refusal::method_not_allowed(reason, ALLOW_GET),
            Refusal::timeout(reason),
            Refusal::conflict(reason),
            Refusal::body_too_large(reason),
            Refusal::target_too_long(reason),
            Refusal::unsupported_media_type(reason),
            Refusal::expectation_failed(reason),
            Refusal::misdirected(reason),
            Refusal::unprocessable(reason),
            Refusal::upgrade_required(reason),
            Refusal::too_many_requests(reason),
            Refusal::head_too_large(reason),
            Refusal::internal(reason),
            Refusal::not_implemented(reason),
            Refusal::unavailable(reason),
            Refusal::version_not_supported(reason),
        ];
        let labels: Vec<&str> = all.iter().map(|refusal| refusal.label).collect();
        assert_eq!(labels, Refusal::LABELS);
        for refusal in &all {
            assert!((400..600).contains(&refusal.status));
            assert!(
                refusal
                    .label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            );
        }
    }

    #[test]
    fn displays_status_and_reason() {
        assert_eq!(
            Refusal::not_found("no such path").to_string(),
            "404 no such path"
        );
    }

    #[test]
    fn what_cannot_be_framed_closes() {
        assert!(Refusal::bad_framing("x").close);
        assert!(Refusal::body_too_large("x").close);
        assert!(!Refusal::bad_topic("x").close);
        assert!(Refusal::bad_request("x").closing().close);
    }
}
