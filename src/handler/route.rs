//! Plain HTTP routes: a program's answers to requests that open no WebSocket.

use std::borrow::Cow;

use super::Request;

/// An HTTP route of your own: code that answers requests to a path.
///
/// It runs on the thread of the reactor that owns the request's connection. A call that waits makes all connections of that
/// reactor wait. A panic is answered with 500, logged and counted.
///
/// Functions are routes:
///
/// ```
/// use umbel::{Request, Response, Server};
///
/// fn hello(request: &Request<'_>) -> Response {
///     match (request.method(), request.parameter("name")) {
///         ("GET", Some(name)) => Response::text(200, format!("hello, {name}\n")),
///         ("GET", None) => Response::text(400, "who are you?\n"),
///         _ => Response::text(405, "GET only\n").header("Allow", "GET"),
///     }
/// }
///
/// let builder = Server::builder().route("/hello", hello);
/// ```
pub trait Route: Send + Sync + 'static {
    /// The answer to a request, of whatever method.
    fn respond(&self, request: &Request<'_>) -> Response;
}

impl<F: Fn(&Request<'_>) -> Response + Send + Sync + 'static> Route for F {
    fn respond(&self, request: &Request<'_>) -> Response {
        self(request)
    }
}

/// An answer of a [`Route`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Cow<'static, [u8]>,
}

/// Headers that the server sets by itself.
const OWN_HEADERS: [&str; 6] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "transfer-encoding",
    "upgrade",
];

impl Response {
    /// An answer of this status, `Content-Type` and body. A status that is none of 200 to 599 is sent as 500.
    pub fn new(
        status: u16,
        content_type: &'static str,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Response {
        Response {
            status,
            content_type,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// Plain text in UTF-8.
    pub fn text(status: u16, text: impl Into<String>) -> Response {
        Response::new(
            status,
            "text/plain; charset=utf-8",
            text.into().into_bytes(),
        )
    }

    /// Adds a header. Those about the connection and the body are the server's: one of them, a name that is no token, or a
    /// value with control characters makes the answer a 500.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }

    /// Why it cannot be sent.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_own = |name: &str| OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name));
        if !(200..=599).contains(&self.status) {
            return Some("its status is none of 200 to 599");
        }
        let is_bad = |value: &str| value.chars().any(char::is_control);
        for (name, value) in &self.headers {
            if name.is_empty() || !name.bytes().all(is_token) || is_bad(value) {
                return Some("a header of it cannot stand in an answer");
            } else if is_own(name) {
                return Some("a header of it is one that the server sets by itself");
            }
        }
        is_bad(self.content_type).then_some("its content type cannot stand in an answer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_that_cannot_be_sent() {
        let good = Response::text(200, "hi").header("Set-Cookie", "a=b; Path=/");
        assert_eq!(good.fault(), None);
        for bad in [
            Response::text(101, ""),
            Response::text(600, ""),
            Response::text(200, "").header("a b", "x"),
            Response::text(200, "").header("", "x"),
            Response::text(200, "").header("X-A", "x\r\nX-B: y"),
            Response::text(200, "").header("content-LENGTH", "5"),
            Response::text(200, "").header("Connection", "close"),
            Response::new(200, "text/plain\r\n", Vec::new()),
        ] {
            assert!(bad.fault().is_some(), "{bad:?}");
        }
    }
}
