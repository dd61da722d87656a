//! Verdicts, and those that come later.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::access::Denied;
use super::identity;
use super::program::Identity;
use crate::hub::Kind;

/// Answer of an [`Authorizer`](super::access::Authorizer). A `Result<(), Denied>` converts into it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// It may, and this is who it is.
    Allow(Identity),
    /// It may not.
    Deny(Denied),
    /// It is decided later, from whatever thread has the other half of this [`Pending`].
    Later(Pending),
}

impl From<Result<(), Denied>> for Verdict {
    fn from(outcome: Result<(), Denied>) -> Verdict {
        match outcome {
            Ok(()) => Verdict::Allow(Identity::anonymous()),
            Err(denied) => Verdict::Deny(denied),
        }
    }
}

/// A verdict that comes later.
///
/// Its clones are the same one. The authorizer gives one back in [`Verdict::Later`] and keeps another, for a thread that asks
/// a database or another server, which [answers](Pending::answer) it. Until then nothing is read from the connection. The first
/// answer counts. When all that were kept are dropped without an answer, or `handshake_timeout_ms` has passed, the request is
/// denied with 503, as it is where over [`asks_max`](crate::config::Limits::asks_max) wait.
///
/// ```
/// use std::thread;
/// use umbel::{AccessRequest, Authorizer, Denied, Identity, Pending, Server, Verdict};
///
/// /// Asks elsewhere, which takes its time.
/// struct Slow;
///
/// impl Authorizer for Slow {
///     fn authorize(&self, request: &AccessRequest<'_>) -> Verdict {
///         let Some(user) = request.cookie("user").map(str::to_owned) else {
///             return Verdict::Deny(Denied::Unauthenticated("log in first".into()));
///         };
///         let pending = Pending::new();
///         let kept = pending.clone();
///         // A program would hand it to the threads that it has.
///         thread::spawn(move || {
///             kept.answer(match user.as_str() {
///                 "anna" => Verdict::Allow(Identity::anonymous()),
///                 _ => Verdict::Deny(Denied::Forbidden("you are not on the list".into())),
///             });
///         });
///         Verdict::Later(pending)
///     }
/// }
///
/// let builder = Server::builder().authorizer(Slow);
/// ```
#[derive(Clone)]
pub struct Pending(Arc<Answerer>);

impl Pending {
    /// One without an answer.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a new one is a question, not a value"
    )]
    pub fn new() -> Pending {
        Pending(Arc::new(Answerer(Arc::default())))
    }

    /// Answers it: with a `Result<(), Denied>`, or with a verdict that says who it is. Of several answers the first counts. One
    /// that is [later](Verdict::Later) again denies it with 503.
    pub fn answer(&self, verdict: impl Into<Verdict>) {
        self.decide(match verdict.into() {
            Verdict::Allow(identity) => match identity.into_known() {
                None => Decision::Access(Ok(())),
                identity => Decision::Caller(Ok(identity)),
            },
            Verdict::Deny(denied) => Decision::Access(Err(denied)),
            Verdict::Later(_) => Decision::Access(Err(Denied::unavailable(
                "whoever decides whether this is allowed did not; try again",
            ))),
        });
    }

    #[doc(hidden)]
    pub fn decide(&self, decision: Decision) {
        self.0.0.settle(decision);
    }

    /// Whether somebody waits for it, or may yet.
    #[doc(hidden)]
    pub fn is_wanted(&self) -> bool {
        let state = self.0.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(&*state, State::Open | State::Waited(_))
    }

    /// The side of who waits. Does not count as one that is kept.
    #[doc(hidden)]
    pub fn waiting(self) -> Waiting {
        Waiting(Arc::clone(&self.0.0))
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// Decision of somebody else's.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Whether it may do something.
    Access(Result<(), Denied>),
    /// It may subscribe, on these terms.
    Subscription(Terms),
    /// Who sent the request. None: nobody in particular.
    Caller(Result<Option<Arc<identity::Identity>>, Denied>),
    /// What is to become of a publication.
    Publication(Result<Edit, Denied>),
    /// It may be found out here by now.
    Again,
}

impl Decision {
    /// The outcome, if it is about access.
    pub fn access(&self) -> Option<Result<(), Denied>> {
        match self {
            Decision::Access(outcome) => Some(outcome.clone()),
            Decision::Subscription(_) | Decision::Caller(Ok(_)) => Some(Ok(())),
            _ => None,
        }
    }
}

/// Terms of a subscription that somebody else allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Its end, in milliseconds of the Unix epoch. Whoever allowed it is asked again then. None: never.
    pub expires_at_ms: Option<u64>,
    /// JSON that other members see of it. None: that of its identity.
    pub info: Option<Arc<str>>,
}

/// Change of a publication that may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// It is published as it is.
    None,
    /// It is published with this payload instead.
    Replace {
        /// Text or binary.
        kind: Kind,
        /// The payload is a JSON value.
        is_json: bool,
        /// The payload.
        payload: Box<[u8]>,
    },
    /// It is acknowledged, and not published.
    Skip,
}

/// Denies when the last clone goes.
struct Answerer(Arc<Cell>);

impl Drop for Answerer {
    fn drop(&mut self) {
        self.0.settle(Decision::Access(Err(Denied::unavailable(
            "whoever decides whether this is allowed did not; try again",
        ))));
    }
}

/// Called once, with no lock held, when there is a decision.
pub type OnDecision = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Cell(Mutex<State>);

#[derive(Default)]
enum State {
    /// Nobody waits yet.
    #[default]
    Open,
    Waited(OnDecision),
    Decided(Decision),
    /// The decision was taken, or nobody wants it any more.
    Done,
}

impl Cell {
    fn settle(&self, decision: Decision) {
        let on_decision = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *state {
                State::Decided(_) | State::Done => return,
                State::Open | State::Waited(_) => {}
            }
            match std::mem::replace(&mut *state, State::Decided(decision)) {
                State::Waited(on_decision) => on_decision,
                _ => return,
            }
        };
        on_decision();
    }
}

/// The waiting side of a [`Pending`].
pub struct Waiting(Arc<Cell>);

impl Waiting {
    /// The decision, if there is one already. Else `on_decision` is called when there is.
    pub fn wait(&self, on_decision: OnDecision) -> Option<Decision> {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Done) {
            State::Decided(decision) => Some(decision),
            State::Done => None,
            State::Open | State::Waited(_) => {
                *state = State::Waited(on_decision);
                None
            }
        }
    }

    /// The decision, once.
    pub fn take(&self) -> Option<Decision> {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Done) {
            State::Decided(decision) => Some(decision),
            waits => {
                *state = waits;
                None
            }
        }
    }
}

impl Drop for Waiting {
    /// Nobody waits any more, so nobody is to be told.
    fn drop(&mut self) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *state, State::Done);
        drop(state);
        drop(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn counted(told: &Arc<AtomicUsize>) -> OnDecision {
        let told = Arc::clone(told);
        Box::new(move || {
            told.fetch_add(1, Ordering::SeqCst);
        })
    }

    fn access(decision: Option<Decision>) -> Option<Result<(), Denied>> {
        match decision? {
            Decision::Access(outcome) => Some(outcome),
            other => panic!("{other:?} is about no access"),
        }
    }

    #[test]
    fn first_answer_counts_and_is_told_once() {
        let told = Arc::default();
        let pending = Pending::new();
        let waiting = pending.clone().waiting();
        assert!(waiting.wait(counted(&told)).is_none());
        assert!(waiting.take().is_none());
        pending.answer(Ok(()));
        pending.answer(Err(Denied::Failed));
        assert_eq!(told.load(Ordering::SeqCst), 1);
        assert_eq!(access(waiting.take()), Some(Ok(())));
        assert!(waiting.take().is_none());
        drop(pending);
        assert_eq!(told.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn answer_before_anybody_waits() {
        let (told, pending) = (Arc::default(), Pending::new());
        pending.answer(Err(Denied::Failed));
        let outcome = pending.waiting().wait(counted(&told));
        assert_eq!(access(outcome), Some(Err(Denied::Failed)));
        assert_eq!(told.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn dropped_without_an_answer_is_unavailable() {
        let (told, pending) = (Arc::default(), Pending::new());
        let (kept, other) = (pending.clone(), pending.clone());
        let waiting = pending.waiting();
        assert!(waiting.wait(counted(&told)).is_none());
        drop(kept);
        assert_eq!(told.load(Ordering::SeqCst), 0, "another is kept");
        drop(other);
        assert_eq!(told.load(Ordering::SeqCst), 1);
        let outcome = access(waiting.take()).expect("a decision");
        assert!(matches!(outcome, Err(Denied::Unavailable(_))));
    }

    #[test]
    fn nobody_is_told_who_waits_no_more() {
        let (told, pending) = (Arc::default(), Pending::new());
        let waiting = pending.clone().waiting();
        assert!(waiting.wait(counted(&told)).is_none());
        drop(waiting);
        assert_eq!(Arc::strong_count(&told), 1, "the callback is gone");
        pending.answer(Ok(()));
        assert_eq!(told.load(Ordering::SeqCst), 0);
    }
}
