//! The embedding program's [`Authorizer`], and heads kept for it.
//!
//! It reads headers whenever it is asked, so for a connection of many topics, and for a `POST /pub` until its lines are
//! read, the head is kept: here only, and only so many bytes of all of them.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::access::{AccessRequest, Action, Authorizer, Denied};
use super::identity;
use super::owner::Owner;
use super::program::Identity;
use super::rights::{Decision, Part, decide};
use super::verdict::Verdict;
use crate::caught;
use crate::http::kept::{HeadView, KeptHead};
use crate::http::refusal::Refusal;

/// Whether the rights of an identity allow an action. Whether it may open an endpoint of the program, the program has said.
///
/// # Errors
/// They do not.
pub(super) fn judge_by_rights(
    identity: &identity::Identity,
    action: Action<'_>,
) -> Result<(), Denied> {
    if matches!(action, Action::Open(_)) {
        return Ok(());
    }
    let part = Part {
        owner: Owner::Own(identity.source()),
        rights: identity.rights(),
        denies_only: false,
    };
    match decide(&std::iter::once(part), action, identity) {
        Decision::Allowed(..) => Ok(()),
        Decision::Denied(..) | Decision::NotAllowed => Err(Denied::InsufficientScope(
            "the application does not allow it".into(),
        )),
    }
}

/// Adapter that asks the embedding program.
pub struct Embedder {
    authorizer: Arc<dyn Authorizer>,
    /// Bytes of the heads that are kept, of all reactors.
    kept_bytes: Arc<AtomicUsize>,
    kept_bytes_max: usize,
}

/// Head by which the embedding program judges.
#[derive(Debug)]
pub enum Judged<'a> {
    /// The request that is being dealt with. Boxed, for a caller stands in a table beside many that are no embedder's.
    Now(Box<JudgedNow<'a>>),
    /// The request that opened the connection, or whose body is being read.
    Kept(Box<CountedHead>),
}

/// A request that is being dealt with.
#[derive(Debug)]
pub struct JudgedNow<'a> {
    /// Its head.
    pub head: HeadView<'a>,
    /// Address of its sender. None: it has none, or is gone.
    pub peer: Option<IpAddr>,
    /// Whether it has come by TLS.
    pub tls: bool,
    /// Identity from the program, once it came.
    pub said: OnceLock<Arc<identity::Identity>>,
}

impl Judged<'_> {
    /// Identity from the program.
    pub fn identity(&self) -> Option<&Arc<identity::Identity>> {
        match self {
            Judged::Now(now) => now.said.get(),
            Judged::Kept(counted) => counted.said.as_ref(),
        }
    }

    /// Takes the program's word for who it is. That of a connection stays as it was said at its opening.
    ///
    /// # Errors
    /// The rights that the program gave do not allow the action.
    pub fn settle(&self, identity: Identity, action: Action<'_>) -> Result<(), Denied> {
        let Some(identity) = identity.into_known() else {
            return Ok(());
        };
        let settled = match self {
            Judged::Now(now) => now.said.get_or_init(|| identity),
            Judged::Kept(_) => &identity,
        };
        match settled.rights().is_none() {
            true => Ok(()),
            false => judge_by_rights(settled, action),
        }
    }

    /// Notes the address of the sender. `tls`: it has come by TLS.
    pub fn set_peer(&mut self, peer: Option<IpAddr>, tls: bool) {
        if let Judged::Now(now) = self {
            (now.peer, now.tls) = (peer, tls);
        }
    }
}

/// A kept head, counted until it is dropped.
pub struct CountedHead {
    peer: Option<IpAddr>,
    tls: bool,
    said: Option<Arc<identity::Identity>>,
    head: KeptHead,
    bytes: usize,
    kept_bytes: Arc<AtomicUsize>,
}

impl Drop for CountedHead {
    fn drop(&mut self) {
        self.kept_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for CountedHead {
    /// Without the headers, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountedHead")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Embedder {
    /// Asks this one. `kept_bytes_max`: bytes of all heads that are kept together.
    pub fn new(authorizer: Arc<dyn Authorizer>, kept_bytes_max: usize) -> Embedder {
        Embedder {
            authorizer,
            kept_bytes: Arc::default(),
            kept_bytes_max,
        }
    }

    /// Bytes of the heads that are kept.
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes.load(Ordering::Relaxed)
    }

    /// Whether the request may do this.
    pub(super) fn authorize(&self, judged: &Judged<'_>, action: Action<'_>) -> Verdict {
        let (head, client) = match judged {
            Judged::Now(now) => (now.head, (now.peer, now.tls)),
            Judged::Kept(counted) => (counted.head.view(), (counted.peer, counted.tls)),
        };
        let action = match action {
            Action::Presence(topic) | Action::History(topic) => Action::Subscribe(topic),
            action => action,
        };
        let request = AccessRequest::new(head, action, client, judged.identity());
        caught::call("the authorizer", || self.authorizer.authorize(&request))
            .unwrap_or(Verdict::Deny(Denied::Failed))
    }

    /// Keeps the head of a request, so that it can be judged by later.
    ///
    /// # Errors
    /// 503 where as many bytes are kept as may be.
    pub(super) fn keep(&self, now: &JudgedNow<'_>) -> Result<CountedHead, Refusal> {
        let head = &now.head;
        let bytes = head.bytes();
        let counted = |kept: usize| {
            let kept = kept.checked_add(bytes)?;
            (kept <= self.kept_bytes_max).then_some(kept)
        };
        let order = Ordering::Relaxed;
        if self.kept_bytes.fetch_update(order, order, counted).is_err() {
            return Err(Refusal::unavailable(
                "as many bytes of requests are kept for the authorizer as authorizer_head_bytes_total_max allows",
            ));
        }
        Ok(CountedHead {
            peer: now.peer,
            tls: now.tls,
            said: now.said.get().cloned(),
            head: head.keep(),
            bytes,
            kept_bytes: Arc::clone(&self.kept_bytes),
        })
    }
}
