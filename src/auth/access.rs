//! Questions about rights, and the trait for programs that answer them.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::counts::AuthResult;
use super::credential::{Shown, shown};
use super::identity;
use super::program::Identity;
use super::verdict::Verdict;
use crate::http::kept::HeadView;
use crate::http::query::Query;
use crate::http::refusal::{Refusal, RefusalHeaders};

/// Something that a request asks to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// See what is published to this topic.
    Subscribe(&'a str),
    /// See what is published to the topics that match this pattern, whichever they are.
    SubscribePattern(&'a str),
    /// Open a connection for many topics. Each subscription and each publication on it is asked about in turn, with the
    /// same request, which is kept for that: see `authorizer_head_bytes_total_max` in [`Limits`](crate::config::Limits).
    Connect,
    /// See who is present on this topic. An [`Authorizer`] is asked to [subscribe](Action::Subscribe) instead.
    Presence(&'a str),
    /// Read what was published to this topic: the history, or the last publications of it before a subscription begins. An
    /// [`Authorizer`] is asked to [subscribe](Action::Subscribe) instead.
    History(&'a str),
    /// Publish to this topic. Asked for each line of `POST /pub`, and once, at its opening, for a WebSocket connection
    /// that subscribes.
    Publish(&'a str),
    /// Publish to topics that the body names. Asked before the body is read; each of its lines is asked about in turn.
    PublishMany,
    /// Connect to the own endpoint at this path.
    Open(&'a str),
    /// See the server's figures, its topics and its console.
    Observe,
    /// Use the control API for this topic, or for all topics of this pattern. None: for what concerns no topic, or all.
    Manage(Option<&'a str>),
}

/// A request as an [`Authorizer`] sees it.
#[derive(Clone, Copy)]
pub struct AccessRequest<'a> {
    head: HeadView<'a>,
    action: Action<'a>,
    peer: Option<IpAddr>,
    tls: bool,
    identity: Option<&'a Arc<identity::Identity>>,
}

impl<'a> AccessRequest<'a> {
    pub(crate) fn new(
        head: HeadView<'a>,
        action: Action<'a>,
        (peer, tls): (Option<IpAddr>, bool),
        identity: Option<&'a Arc<identity::Identity>>,
    ) -> AccessRequest<'a> {
        AccessRequest {
            head,
            action,
            peer,
            tls,
            identity,
        }
    }

    /// Identity from an earlier verdict.
    ///
    /// Of this request, or of the connection that it opened. [Anonymous](Identity::anonymous): none has.
    pub fn identity(&self) -> Identity {
        Identity::of(self.identity)
    }

    /// Address of the client: of the socket's peer, or as a proxy tells it that the listener trusts. None for a unix socket, and once
    /// the peer is gone.
    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Whether the client has come by TLS: to this server, or as a proxy tells it that the listener trusts.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The action that the request asks for.
    pub fn action(&self) -> Action<'a> {
        self.action
    }

    /// The path, as it was sent: percent escapes are not decoded.
    pub fn path(&self) -> &'a str {
        let target = self.head.target;
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// The first value of a parameter of the query, decoded. None also where it cannot be decoded.
    pub fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        let (_, query) = self.head.target.split_once('?')?;
        Query(query).get(name).ok().flatten()
    }

    /// The first value of a header, its name in any case. None also where the value is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.head.header(name)
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        self.head.cookie(name)
    }

    /// The token that the request shows: by `Authorization: Bearer`, by a subprotocol that begins with `umbel.token.`, or
    /// by the query parameter `token` or `access_token`. None also where there are two that differ.
    pub fn token(&self) -> Option<Cow<'a, str>> {
        match shown(self.head, None) {
            Ok(Shown::Token(token, _)) => Some(token),
            Ok(Shown::Nothing) | Err(_) => None,
        }
    }
}

/// Fault of a credential that was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenFault {
    /// Its end is over.
    Expired,
    /// Its begin is to come.
    NotYetValid,
    /// It was good, and was taken back. The peer is told that it is not valid.
    Revoked,
    /// `Authorization` is of another scheme than `Bearer`.
    Scheme,
    /// It stands in a URL, and may not.
    InUrl,
    /// Anything else. Whoever guesses learns nothing of it.
    Invalid,
}

impl TokenFault {
    /// Words for the peer.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            TokenFault::Expired => "the token has expired",
            TokenFault::NotYetValid => "the token is not valid yet",
            TokenFault::Scheme => {
                "the Authorization header is not Bearer and a token, and no other credential counts beside it"
            }
            TokenFault::InUrl => {
                "this token may not stand in a URL: send it in a header or the first frame, or set query_token"
            }
            TokenFault::Revoked | TokenFault::Invalid => "the token is not valid",
        }
    }

    /// Result that it counts as.
    pub(crate) fn result(self) -> AuthResult {
        match self {
            TokenFault::Expired => AuthResult::Expired,
            TokenFault::Revoked => AuthResult::Revoked,
            TokenFault::NotYetValid
            | TokenFault::Scheme
            | TokenFault::InUrl
            | TokenFault::Invalid => AuthResult::Invalid,
        }
    }

    /// `WWW-Authenticate` of its refusal (RFC 6750 section 3.1).
    fn challenge(self) -> RefusalHeaders {
        match self {
            TokenFault::Expired => &[(
                "WWW-Authenticate",
                "Bearer error=\"invalid_token\", error_description=\"the token has expired\"",
            )],
            TokenFault::NotYetValid => &[(
                "WWW-Authenticate",
                "Bearer error=\"invalid_token\", error_description=\"the token is not valid yet\"",
            )],
            TokenFault::Revoked | TokenFault::Scheme | TokenFault::InUrl | TokenFault::Invalid => {
                &[(
                    "WWW-Authenticate",
                    "Bearer error=\"invalid_token\", error_description=\"the token is not valid\"",
                )]
            }
        }
    }
}

impl fmt::Debug for AccessRequest<'_> {
    /// Without the headers, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessRequest")
            .field("action", &self.action)
            .finish_non_exhaustive()
    }
}

/// Refusal of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denied {
    /// It showed no credential where one is needed: 401. The text is sent to the peer.
    Unauthenticated(Cow<'static, str>),
    /// It showed a credential that is wrong, whatever it is asked for: 401.
    Invalid(TokenFault),
    /// It may not, whoever it is: 403. The text is sent to the peer.
    Forbidden(Cow<'static, str>),
    /// Its credential is good and does not allow it: 403. The text is sent to the peer.
    InsufficientScope(Cow<'static, str>),
    /// Its credentials cannot be read, or there are two: 400. The text is sent to the peer.
    Malformed(Cow<'static, str>),
    /// It cannot be decided now, and may be later: 503. The text is sent to the peer.
    Unavailable(Cow<'static, str>),
    /// It cannot be decided: 500, and Close 1011 on an open WebSocket. A panic of the authorizer has this outcome.
    Failed,
    /// It cannot be decided for a while: 503 with `Retry-After`.
    UnavailableFor {
        /// The text is sent to the peer.
        reason: Cow<'static, str>,
        /// Time after which it may ask again, in seconds. Over a minute it is rounded up to minutes.
        retry_after_s: u32,
    },
    /// It asks too often, or has too much already: 429 with `Retry-After`.
    TooMany {
        /// The text is sent to the peer.
        reason: Cow<'static, str>,
        /// Time after which it may ask again, in seconds. Over a minute it is rounded up to minutes.
        retry_after_s: u32,
    },
}

impl Denied {
    /// It cannot be decided now, and may be in a second.
    pub(crate) fn unavailable(reason: &'static str) -> Denied {
        Denied::Unavailable(reason.into())
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Refusal {
        match denied {
            Denied::Unauthenticated(reason) => Refusal::unauthorized(reason),
            Denied::Invalid(fault) => {
                let mut refusal = Refusal::unauthorized(fault.description());
                refusal.headers = fault.challenge();
                refusal
            }
            Denied::Forbidden(reason) => Refusal::forbidden(reason),
            Denied::InsufficientScope(reason) => {
                let mut refusal = Refusal::forbidden(reason);
                refusal.headers = &[("WWW-Authenticate", "Bearer error=\"insufficient_scope\"")];
                refusal
            }
            Denied::Malformed(reason) => Refusal::bad_request(reason),
            Denied::Unavailable(reason) => Refusal::unavailable(reason),
            Denied::Failed => Refusal::internal("it cannot be decided whether this is allowed"),
            Denied::UnavailableFor {
                reason,
                retry_after_s,
            } => Refusal::unavailable(reason).retry_after(retry_after_s),
            Denied::TooMany {
                reason,
                retry_after_s,
            } => Refusal::too_many_requests(reason).retry_after(retry_after_s),
        }
    }
}

/// Decides who may do what. It is asked on the reactors' threads, so it must answer at once: from memory, or that the verdict
/// comes [later](Verdict::Later). A panic is caught, and counts as [`Denied::Failed`].
pub trait Authorizer: Send + Sync + 'static {
    /// Whether the request may do what it wants.
    fn authorize(&self, request: &AccessRequest<'_>) -> Verdict;
}

impl<A: Authorizer + ?Sized> Authorizer for Arc<A> {
    fn authorize(&self, request: &AccessRequest<'_>) -> Verdict {
        (**self).authorize(request)
    }
}
