//! Questions about rights, and the trait for programs that answer them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::http::kept::HeadView;
use crate::http::query::Query;
use crate::http::refusal::Refusal;

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
    /// Use the control API for this topic. None: for what concerns no topic, or all.
    Manage(Option<&'a str>),
}

/// A request as an [`Authorizer`] sees it.
#[derive(Clone, Copy)]
pub struct AccessRequest<'a> {
    head: HeadView<'a>,
    action: Action<'a>,
}

impl<'a> AccessRequest<'a> {
    pub(crate) fn new(head: HeadView<'a>, action: Action<'a>) -> AccessRequest<'a> {
        AccessRequest { head, action }
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

    /// The token that the request shows: `Authorization: Bearer`, or else the query parameter `token` or
    /// `access_token`.
    pub fn token(&self) -> Option<Cow<'a, str>> {
        match shown(self.head) {
            Shown::Token(token) => Some(token),
            Shown::Nothing | Shown::OtherScheme => None,
        }
    }
}

/// Credential that a request shows.
pub(super) enum Shown<'a> {
    /// None.
    Nothing,
    /// A token.
    Token(Cow<'a, str>),
    /// An `Authorization` that is not `Bearer` and a token, as browsers send it for a proxy's password.
    OtherScheme,
}

/// What a request shows: in the header if there is one, whatever the query says.
pub(super) fn shown(head: HeadView<'_>) -> Shown<'_> {
    if let Some(value) = head.header("authorization") {
        return match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Shown::Token(Cow::Borrowed(token.trim()))
            }
            _ => Shown::OtherScheme,
        };
    }
    let Some((_, query)) = head.target.split_once('?') else {
        return Shown::Nothing;
    };
    let parameter = |name| Query(query).get(name).ok().flatten();
    parameter("token")
        .or_else(|| parameter("access_token"))
        .map_or(Shown::Nothing, Shown::Token)
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
    /// It did not say who it is, or not convincingly: 401. The text is sent to the peer.
    Unauthenticated(Cow<'static, str>),
    /// It may not, whoever it is: 403. The text is sent to the peer.
    Forbidden(Cow<'static, str>),
    /// It cannot be decided: 500, and Close 1011 on an open WebSocket. A panic of the authorizer has this outcome.
    Failed,
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Refusal {
        match denied {
            Denied::Unauthenticated(reason) => Refusal::unauthorized(reason),
            Denied::Forbidden(reason) => Refusal::forbidden(reason),
            Denied::Failed => Refusal::internal("it cannot be decided whether this is allowed"),
        }
    }
}

/// Decides who may do what. It is asked on the reactors' threads, so it must answer at once, from memory. A panic is caught,
/// and counts as [`Denied::Failed`].
pub trait Authorizer: Send + Sync + 'static {
    /// Whether the request may do what it wants.
    ///
    /// # Errors
    /// Why it may not.
    fn authorize(&self, request: &AccessRequest<'_>) -> Result<(), Denied>;
}

impl<A: Authorizer + ?Sized> Authorizer for Arc<A> {
    fn authorize(&self, request: &AccessRequest<'_>) -> Result<(), Denied> {
        (**self).authorize(request)
    }
}
