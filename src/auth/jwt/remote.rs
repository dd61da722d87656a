//! Keys that are fetched from elsewhere: the place where a fetcher puts them and tokens find them.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

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

/// The fetch that runs, and who waits for it.
#[derive(Default)]
struct Fetching {
    is_running: bool,
    /// First moment of another, in milliseconds of the Unix epoch.
    next_ms: u64,
    waiting: Vec<Pending>,
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

    /// Asks for a fetch. A token came whose key the set has not.
    pub fn want(&self) {
        if !self.is_wanted.swap(true, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Waits for a fetch, which is asked for. None: none runs and none may begin yet, or too many wait.
    pub fn wait(&self, now_ms: u64) -> Option<Pending> {
        let pending = Pending::new();
        {
            let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
            let comes = fetching.is_running || now_ms >= fetching.next_ms;
            if !comes || fetching.waiting.len() >= WAITING_MAX {
                return None;
            }
            fetching.waiting.push(pending.clone());
        }
        self.want();
        Some(pending)
    }

    /// A fetch begins. Another may begin from then on, in milliseconds of the Unix epoch.
    pub fn begin_fetch(&self, next_ms: u64) {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        (fetching.is_running, fetching.next_ms) = (true, next_ms);
    }

    /// The fetch has ended. Those who wait go on; without keys they are refused for now.
    pub fn end_fetch(&self, is_done: bool) {
        let waiting = {
            let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
            fetching.is_running = false;
            std::mem::take(&mut fetching.waiting)
        };
        for pending in waiting {
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
