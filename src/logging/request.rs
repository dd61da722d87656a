//! Words of requests.

use log::Level;

use super::without_secrets;
use crate::http::request::Head;

/// Requests of one turn that are told of.
pub const REQUESTS_MAX: usize = 256;

/// Bytes of a header that are kept.
const HEADER_BYTES_MAX: usize = 200;

/// Words of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestWords {
    /// Its method.
    pub method: Box<str>,
    /// Its target, without secrets.
    pub path: Box<str>,
    /// `Origin`.
    pub origin: Option<Box<str>>,
    /// `User-Agent`, the beginning of it.
    pub user_agent: Option<Box<str>>,
}

impl RequestWords {
    /// Those of this request.
    pub fn of(head: &Head<'_>) -> RequestWords {
        RequestWords {
            method: beginning(head.method.as_str()),
            path: without_secrets(head.target).into(),
            origin: head.known.origin.text().map(beginning),
            user_agent: head.header("user-agent").map(beginning),
        }
    }
}

/// Words of a request that is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedWords {
    /// Its method.
    pub method: Box<str>,
    /// Its target, without secrets.
    pub path: Box<str>,
    /// Subject of whoever sent it.
    pub subject: Option<Box<str>>,
    /// Beginning of the digest of the token that it shows.
    pub token: Option<String>,
}

impl RefusedWords {
    /// Those of a request.
    pub fn of(head: &Head<'_>, subject: Option<&str>, token: Option<String>) -> RefusedWords {
        RefusedWords {
            method: beginning(head.method.as_str()),
            path: without_secrets(head.target).into(),
            subject: subject.map(Box::from),
            token,
        }
    }
}

/// Words of the requests of a turn, where the log wants them.
#[derive(Debug, Default)]
pub struct Noted {
    /// Whether it does.
    pub is_wanted: bool,
    /// Words of the newest: of one alone, unless the log tells of each.
    pub requests: Vec<RequestWords>,
    /// Words of a request that is being refused.
    pub refused: Option<Box<RefusedWords>>,
}

impl Noted {
    /// Notes the words of a request.
    pub fn note(&mut self, head: &Head<'_>) {
        if !tells_requests() || self.requests.len() >= REQUESTS_MAX {
            self.requests.pop();
        }
        self.requests.push(RequestWords::of(head));
    }
}

/// Whether the log tells of each request.
pub fn tells_requests() -> bool {
    log::log_enabled!(target: "umbel::events", Level::Debug)
}

fn beginning(text: &str) -> Box<str> {
    let mut end = text.len().min(HEADER_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}
