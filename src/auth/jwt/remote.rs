//! Keys that are fetched from elsewhere: the place where a fetcher puts them and tokens find them.

use std::sync::{Arc, PoisonError, RwLock};

use crate::signature::keys::KeySet;

/// Keys of an issuer that come from outside, at any time.
///
/// The fetcher [puts](RemoteKeys::put) each set that it gets, and [takes the keys away](RemoteKeys::expire) once they are
/// too old. It fetches again when told that a `kid` is [not known yet](super::error::JwtError::KeyNotKnownYet), and decides by
/// [`fetched`](RemoteKeys::fetched) for how long.
#[derive(Debug, Default)]
pub struct RemoteKeys {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    set: Option<Arc<KeySet>>,
    /// Fetches that have ended well.
    fetched: u64,
}

impl RemoteKeys {
    /// Replaces the keys. A set of the same generation counts as fetched, and drops no verified tokens.
    pub fn put(&self, set: Arc<KeySet>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.set = Some(set);
        state.fetched += 1;
    }

    /// Takes the keys away: they are too old to judge by.
    pub fn expire(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.set = None;
    }

    /// The keys that there are. None: there are none to judge by.
    #[must_use]
    pub fn set(&self) -> Option<Arc<KeySet>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.set.clone()
    }

    /// Number of fetches that have ended well. A token that came before the last of them is decided by its set.
    #[must_use]
    pub fn fetched(&self) -> u64 {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.fetched
    }
}
