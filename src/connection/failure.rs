//! Failures of the stream that a connection's bytes travel over.

use std::error::Error;
use std::{fmt, io};

use super::CloseReason;

/// A failure of what a stream travels in, as TLS: not of the socket.
#[derive(Debug)]
pub struct ProtocolFailure {
    /// Number of the alert that ended it, of either side.
    pub alert: u8,
    /// Cause of it.
    pub words: String,
}

impl fmt::Display for ProtocolFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Error for ProtocolFailure {}

impl From<ProtocolFailure> for io::Error {
    fn from(failure: ProtocolFailure) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, failure)
    }
}

/// A key of TLS that is used up. It has sealed half of what it may, and cannot be changed; the stream still carries what a good
/// end takes.
#[derive(Debug)]
pub struct KeyUsedUp;

impl fmt::Display for KeyUsedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key of TLS has sealed half of what it may")
    }
}

impl Error for KeyUsedUp {}

impl From<KeyUsedUp> for io::Error {
    fn from(used_up: KeyUsedUp) -> io::Error {
        io::Error::other(used_up)
    }
}

/// The end of a connection by an error of its stream.
pub fn close_reason(error: &io::Error) -> CloseReason {
    match error.get_ref() {
        Some(inner) if inner.is::<KeyUsedUp>() => CloseReason::TlsKey,
        Some(inner) => match inner.downcast_ref() {
            Some(ProtocolFailure { alert, .. }) => CloseReason::Tls(*alert),
            None => CloseReason::Transport,
        },
        None => CloseReason::Transport,
    }
}
