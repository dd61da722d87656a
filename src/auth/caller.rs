//! Callers: who a request is from, as far as it is known.

use std::sync::Arc;

use super::embedder::Judged;
use super::identity::Identity;

/// Sender of a request, or opener of a connection.
///
/// It borrows the request only where the embedding program judges by that.
#[derive(Debug)]
pub enum Caller<'a> {
    /// Nobody: there was no credential.
    Anonymous,
    /// Nobody: what stood for it is gone. It may nothing.
    Unknown,
    /// Somebody by a credential that was checked.
    Known(Arc<Identity>),
    /// Whoever the embedding program takes it for, which is asked about each action with the request.
    Embedder(Judged<'a>),
}

// Each connection with an identity of its own has one.
const _: () = assert!(size_of::<Caller<'static>>() <= 16);

impl Caller<'_> {
    /// Its identity: of its credential, or from the program.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        match self {
            Caller::Known(identity) => Some(identity),
            Caller::Embedder(judged) => judged.identity(),
            _ => None,
        }
    }

    /// Its subject, if it has one.
    pub fn subject(&self) -> Option<&str> {
        self.identity()?.subject()
    }
}
