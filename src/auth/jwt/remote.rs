//! Keys that are fetched from elsewhere: the place where a fetcher puts them and tokens find them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use crate::auth::access::Denied;
use crate::auth::verdict::{Decision, Pending};
use crate::config::Jwt;
use crate::signature::keys::KeySet;

/// Keys of an issuer that come from outside, at any time.
///
/// The fetcher [puts](RemoteKeys::put) each set that it gets, and [takes the keys away](RemoteKeys::expire) once they are
/// too old. It fetches again when told that a `kid` is [not known yet](super::error::JwtError::KeyNotKnownYet), and decides by
/// [`fetched`](RemoteKeys::fetched) for how long.
#[derive(Default)]
pub struct RemoteKeys {
    state: RwLock<State>,
    /// Whether a token came whose key the set has not.
    is_wanted: AtomicBool,
    has_fetcher: AtomicBool,
    fetching: Mutex<Fetching>,
    /// Wakes the fetcher.
    waker: Mutex<Option<Waker>>,
}

/// Tokens that wait for a fetch.
const WAITING_MAX: usize = 65_536;

/// Time that a token waits for a fetch, in milliseconds. One that may begin only later is not waited for.
pub const WAIT_MS: u64 = 2000;

/// Names of keys that the last fetch has not brought, and that are remembered.
const MISSING_MAX: usize = 1000;

/// Time for which they are, in milliseconds.
const MISSING_MS: u64 = 10_000;

/// The fetch that runs, and who waits for it.
#[derive(Default)]
struct Fetching {
    is_running: bool,
    /// First moment of another, in milliseconds of the Unix epoch.
    next_ms: u64,
    /// Those who wait, and the keys that they wait for.
    waiting: Vec<(Pending, Option<Box<str>>)>,
    /// Keys that the last good fetch has not brought, and until when nobody asks for them again.
    missing: HashMap<Box<str>, u64>,
    /// A fetch has ended, well or not.
    has_ended: bool,
}

impl Fetching {
    fn is_missing(&self, kid: &str, now_ms: u64) -> bool {
        self.missing
            .get(kid)
            .is_some_and(|until_ms| now_ms < *until_ms)
    }
}

/// Wakes a fetcher, whatever it is.
pub type Waker = Box<dyn Fn() + Send + Sync>;

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKeys")
            .field("set", &self.set())
            .finish_non_exhaustive()
    }
}

impl Drop for RemoteKeys {
    /// The fetcher finds that nobody has the keys any more.
    fn drop(&mut self) {
        self.wake();
    }
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

    /// The keys, for the first fetcher that asks. None: there is one.
    #[must_use]
    pub fn without_fetcher(self: Arc<RemoteKeys>) -> Option<Arc<RemoteKeys>> {
        let has_fetcher = self.has_fetcher.swap(true, Ordering::Relaxed);
        (!has_fetcher).then_some(self)
    }

    /// Sets the call that wakes the fetcher. A fetch is wanted, or the keys go.
    pub fn wake_by(&self, waker: Waker) {
        let mut place = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Some(waker);
    }

    fn wake(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wake) = &*waker {
            wake();
        }
    }

    /// Asks for a fetch. A token came whose key, of this name, the set has not. One that was looked for in vain a moment ago
    /// asks for none.
    pub fn want(&self, kid: &str, now_ms: u64) {
        if !self.fetching().is_missing(kid, now_ms) {
            self.want_any();
        }
    }

    fn want_any(&self) {
        if !self.is_wanted.swap(true, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Waits for a fetch that may bring the key of this name. It is asked for. None: none runs and none may begin in time,
    /// the key was looked for in vain a moment ago, or too many wait.
    pub fn wait(&self, kid: Option<&str>, now_ms: u64) -> Option<Pending> {
        let pending = Pending::new();
        {
            let mut fetching = self.fetching();
            let comes = fetching.is_running || now_ms.saturating_add(WAIT_MS) > fetching.next_ms;
            let is_missing = kid.is_some_and(|kid| fetching.is_missing(kid, now_ms));
            if !comes || is_missing || fetching.waiting.len() >= WAITING_MAX {
                return None;
            }
            let waiting = (pending.clone(), kid.map(Box::from));
            fetching.waiting.push(waiting);
        }
        self.want_any();
        Some(pending)
    }

    fn fetching(&self) -> MutexGuard<'_, Fetching> {
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a fetch has ended, well or not.
    #[must_use]
    pub fn has_ended_fetch(&self) -> bool {
        self.fetching().has_ended
    }

    /// A fetch begins. Another may begin from then on, in milliseconds of the Unix epoch.
    pub fn begin_fetch(&self, next_ms: u64) {
        let mut fetching = self.fetching();
        (fetching.is_running, fetching.next_ms) = (true, next_ms);
    }

    /// The fetch has ended. Those who wait go on; without keys they are refused for now. What it has not brought is remembered.
    pub fn end_fetch(&self, is_done: bool, now_ms: u64) {
        let set = self.set();
        let waiting = {
            let mut fetching = self.fetching();
            (fetching.is_running, fetching.has_ended) = (false, true);
            let waiting = std::mem::take(&mut fetching.waiting);
            if is_done {
                fetching.missing.clear();
                let names = waiting.iter().filter_map(|(_, kid)| kid.as_ref());
                let names = names.filter(|kid| set.as_ref().is_some_and(|set| !set.has_kid(kid)));
                let until_ms = now_ms.saturating_add(MISSING_MS);
                for kid in names {
                    if fetching.missing.len() < MISSING_MAX {
                        fetching.missing.insert(kid.clone(), until_ms);
                    }
                }
            }
            waiting
        };
        for (pending, _) in waiting {
            pending.decide(match is_done {
                true => Decision::Again,
                false => Decision::Access(Err(Denied::unavailable(
                    "the keys of the token's issuer are not there; try again",
                ))),
            });
        }
    }

    /// Whether a fetch is wanted.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Whether a fetch was wanted, which it is no more.
    pub fn take_wanted(&self) -> bool {
        self.is_wanted.swap(false, Ordering::Relaxed)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::algorithm::Algorithm;
    use crate::signature::jwk::read_key_set;

    fn keys() -> RemoteKeys {
        let keys = RemoteKeys::default();
        let text = br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let read = read_key_set(text, &[Algorithm::EdDsa]).expect("a set");
        keys.put(Arc::new(KeySet::new(1, read.keys)));
        keys
    }

    #[test]
    fn missing_keys_are_remembered_until_the_next_fetch() {
        let keys = keys();
        let waits = |kid, now_ms| keys.wait(Some(kid), now_ms).is_some();
        keys.begin_fetch(1000);
        let pending = keys.wait(Some("b"), 0).expect("one runs");
        assert!(waits("a", 0));
        keys.end_fetch(true, 50);
        assert!(!pending.is_wanted(), "it is answered");
        // It neither waits nor asks; others do.
        keys.take_wanted();
        assert!(!waits("b", 10_049));
        keys.want("b", 10_049);
        assert!(!keys.is_wanted());
        assert!(waits("c", 10_049) && keys.take_wanted());
        assert!(waits("b", 10_050), "for ten seconds");
        // A fetch that fails has looked for nothing.
        keys.begin_fetch(20_000);
        keys.end_fetch(false, 11_000);
        assert!(waits("b", 18_001));
        keys.begin_fetch(30_000);
        keys.end_fetch(true, 19_000);
        assert!(!waits("b", 28_999));
        keys.begin_fetch(40_000);
        assert!(!waits("b", 28_999), "until that has ended");
        keys.end_fetch(true, 28_999);
        assert!(waits("b", 38_500));
    }

    #[test]
    fn fetch_that_may_begin_too_late_is_not_waited_for() {
        let keys = keys();
        keys.begin_fetch(10_000);
        keys.end_fetch(true, 100);
        keys.take_wanted();
        assert!(keys.wait(Some("b"), 8000).is_none());
        keys.want("b", 8000);
        assert!(keys.is_wanted(), "it is asked for all the same");
        assert!(keys.wait(Some("b"), 8001).is_some());
    }

    #[test]
    fn memory_of_missing_keys_is_bounded() {
        let keys = keys();
        keys.begin_fetch(0);
        for number in 0..1200 {
            keys.wait(Some(&format!("k{number}")), 0).expect("room");
        }
        keys.end_fetch(true, 0);
        assert_eq!(keys.fetching().missing.len(), MISSING_MAX);
    }
}
