//! Keys that are fetched from elsewhere: the place where a fetcher puts them and tokens find them.

use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use crate::config::Jwt;
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

/// Keys in use, with the issuers whose they are: a reload that leaves an issuer alone keeps its keys.
static IN_USE: Mutex<Vec<(Jwt, Weak<RemoteKeys>)>> = Mutex::new(Vec::new());

impl RemoteKeys {
    /// Keys of this issuer: those that are in use already, or a new place without keys.
    #[must_use]
    pub fn of(jwt: &Jwt) -> Arc<RemoteKeys> {
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.retain(|(_, keys)| keys.strong_count() > 0);
        let known = in_use.iter().find(|(other, _)| {
            other.name == jwt.name && other.keys == jwt.keys && other.algorithms == jwt.algorithms
        });
        if let Some(keys) = known.and_then(|(_, keys)| keys.upgrade()) {
            return keys;
        }
        let keys = Arc::new(RemoteKeys::default());
        in_use.push((jwt.clone(), Arc::downgrade(&keys)));
        keys
    }

    /// Keys in use that are to be fetched, with their issuers.
    #[must_use]
    pub fn in_use() -> Vec<(Jwt, Weak<RemoteKeys>)> {
        let in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.clone()
    }

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
