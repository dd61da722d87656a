//! Ends of connections, and whether to come back.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

use umbel::internals::http::escape::escape;
use umbel::internals::protocol::{CloseCode, ProtocolError};

/// Time without a byte after which a WebSocket counts as lost: a ping had some of it for its pong.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);

/// End of a connection.
#[derive(Debug)]
pub enum Ending {
    /// By a close frame; 1005 where it gave no code.
    Closed(CloseCode, String),
    /// Without one.
    Gone,
    /// An event stream has come to its end.
    StreamEnded,
    /// The system says that it failed.
    Failed(io::Error),
    /// The server broke the protocol.
    Protocol(ProtocolError),
    /// What the server sent is not what was asked for.
    Malformed(String),
    /// The server refused what was asked of it on a connection that stands: the reason, and whether to ask again.
    Refused(String, bool),
    /// Nothing came, not even a pong.
    Silent,
}

/// Whether to connect again after an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// Never, as the same would happen again.
    Never,
    /// After so many seconds at least.
    Soon(u64),
    /// Later rather than sooner, and after so many seconds at least.
    Later(u64),
}

impl Ending {
    /// Whether it is a normal close: 1000, or no code at all.
    pub fn is_normal(&self) -> bool {
        matches!(
            self,
            Ending::Closed(CloseCode::NORMAL | CloseCode::NO_STATUS, _)
        )
    }

    /// Reaction of a client, by the table of `umbel.v1`.
    pub fn comes_back(&self) -> Return {
        match self {
            Ending::Closed(code, reason) => {
                let seconds = retry_of(reason);
                match code.get() {
                    1001 | 1012 => Return::Soon(seconds),
                    1011 | 1013 | 1014 => Return::Later(seconds),
                    _ => Return::Never,
                }
            }
            Ending::Gone | Ending::StreamEnded | Ending::Failed(_) | Ending::Silent => {
                Return::Soon(0)
            }
            Ending::Refused(_, true) => Return::Later(0),
            Ending::Protocol(_) | Ending::Malformed(_) | Ending::Refused(_, false) => Return::Never,
        }
    }
}

/// The seconds of `retry=N` in the reason of a close, rounded up.
fn retry_of(reason: &str) -> u64 {
    let after = reason.split_once("retry=").map_or("", |(_, after)| after);
    let end = after
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(after.len());
    let seconds: f64 = after[..end].trim_end_matches('.').parse().unwrap_or(0.0);
    seconds.ceil() as u64
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Closed(CloseCode::NO_STATUS, _) => {
                f.write_str("the server closed the connection and gave no code (1005)")
            }
            Ending::Closed(code, reason) if reason.is_empty() => {
                write!(f, "the server closed the connection with {code}")
            }
            Ending::Closed(code, reason) => {
                let reason = escape(reason);
                write!(f, "the server closed the connection with {code}: {reason}")
            }
            Ending::Gone => f.write_str("the connection ended without a close frame (1006)"),
            Ending::StreamEnded => f.write_str("the event stream has ended"),
            Ending::Failed(error) => write!(f, "the connection failed: {error} (1006)"),
            Ending::Protocol(error) => {
                let code = error.close_code();
                write!(f, "the server broke the protocol: {error} ({code})")
            }
            Ending::Malformed(what) | Ending::Refused(what, _) => f.write_str(what),
            Ending::Silent => write!(
                f,
                "the server was silent for {} s, and answered no ping (1006)",
                SILENCE_MAX.as_secs()
            ),
        }
    }
}

impl Error for Ending {}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Ending {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Ending::Failed(io::Error::new(
                ErrorKind::TimedOut,
                "the server takes nothing any more",
            )),
            _ => Ending::Failed(error),
        }
    }
}

/// Reason that a connection could not be opened.
#[derive(Debug)]
pub struct Refusal {
    /// In words, with the URL.
    pub text: String,
    /// Whether it may be possible later.
    pub comes_back: Return,
}

impl Refusal {
    /// A refusal that would repeat.
    pub fn for_good(text: impl Into<String>) -> Refusal {
        Refusal {
            text: text.into(),
            comes_back: Return::Never,
        }
    }

    /// The network or the server may be back later.
    pub fn for_now(text: impl Into<String>) -> Refusal {
        Refusal {
            text: text.into(),
            comes_back: Return::Soon(0),
        }
    }

    /// By the status of an answer, in words.
    pub fn of_status(status: u16, text: impl Into<String>) -> Refusal {
        Refusal {
            text: text.into(),
            comes_back: match status {
                408 | 425 | 429 | 500 | 502..=504 => Return::Later(0),
                _ => Return::Never,
            },
        }
    }

    /// With the URL before it.
    #[must_use]
    pub fn at(mut self, url: &impl fmt::Display) -> Refusal {
        self.text = format!("{url}: {}", self.text);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Refusal {}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal::for_now(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u16, reason: &str) -> Ending {
        Ending::Closed(CloseCode::new(code), reason.to_owned())
    }

    #[test]
    fn ending_text_escaped() {
        let ending = closed(4000, "\x1b[2J");
        assert!(ending.to_string().ends_with(r"with 4000: \x1b[2J"));
        assert!(!ending.is_normal());
    }

    #[test]
    fn return_by_code_and_status() {
        for (ending, comes_back) in [
            (closed(1001, ""), Return::Soon(0)),
            (closed(1012, "shutting down; retry=7"), Return::Soon(7)),
            (closed(1001, "shutting down; retry=0.250"), Return::Soon(1)),
            (closed(1013, "retry=30, slow"), Return::Later(30)),
            (closed(1011, "retry=x"), Return::Later(0)),
            (closed(1008, ""), Return::Never),
            (closed(1009, ""), Return::Never),
            (closed(4001, ""), Return::Never),
            (Ending::Gone, Return::Soon(0)),
            (Ending::Silent, Return::Soon(0)),
            (Ending::Refused(String::new(), false), Return::Never),
        ] {
            assert_eq!(ending.comes_back(), comes_back, "{ending}");
        }
        for (status, comes_back) in [
            (401, Return::Never),
            (404, Return::Never),
            (429, Return::Later(0)),
            (503, Return::Later(0)),
        ] {
            assert_eq!(Refusal::of_status(status, "").comes_back, comes_back);
        }
    }
}
