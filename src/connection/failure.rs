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

/// The end of a connection whose stream has failed.
pub fn close_reason(error: &io::Error) -> CloseReason {
    let failure = error.get_ref().and_then(|it| it.downcast_ref());
    match failure {
        Some(ProtocolFailure { alert, .. }) => CloseReason::Tls(*alert),
        None => CloseReason::Transport,
    }
}
