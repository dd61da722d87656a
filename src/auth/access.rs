//! Who may do what: the rights of the configuration, or the embedding program's own [`Authorizer`].

use std::borrow::Cow;
use std::fmt;
use std::hint::black_box;

use crate::config::{Access, Rights};
use crate::http::query::Query;
use crate::http::request::Head;

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// See what is published to this topic.
    Subscribe(&'a str),
    /// See what is published to the topics that match this pattern, whichever they are.
    SubscribePattern(&'a str),
    /// Open a connection for many topics. Each subscription and each publication on it is asked about in turn, with the
    /// same request.
    Connect,
    /// Publish to this topic. Asked for each line of `POST /pub`, and once, at its opening, for a WebSocket connection
    /// that subscribes.
    Publish(&'a str),
    /// Publish to topics that the body names. Asked before the body is read; each of its lines is asked about in turn.
    PublishMany,
    /// Connect to the own endpoint at this path.
    Open(&'a str),
    /// See the server's figures, its topics and its console.
    Observe,
}

/// A request as an [`Authorizer`] sees it.
#[derive(Clone, Copy)]
pub struct AccessRequest<'a> {
    head: Head<'a>,
    action: Action<'a>,
}

impl<'a> AccessRequest<'a> {
    pub(crate) fn new(head: Head<'a>, action: Action<'a>) -> AccessRequest<'a> {
        AccessRequest { head, action }
    }

    /// What it wants to do.
    pub fn action(&self) -> Action<'a> {
        self.action
    }

    /// The first value of a header, its name in any case. None also where the value is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.head.header(name)
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        let pairs = self.head.headers("cookie").flat_map(|line| line.split(';'));
        let mut found = pairs
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(key, _)| *key == name);
        found.next().map(|(_, value)| value)
    }

    /// The token that the request shows: `Authorization: Bearer`, or else the query parameter `token` or
    /// `access_token`.
    pub fn token(&self) -> Option<Cow<'a, str>> {
        if let Some(value) = self.header("authorization") {
            let (scheme, token) = value.split_once(' ')?;
            return scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(Cow::Borrowed(token.trim()));
        }
        let (_, query) = self.head.target.split_once('?')?;
        let parameter = |name| Query(query).get(name).ok().flatten();
        parameter("token").or_else(|| parameter("access_token"))
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

/// Why a request may not do what it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denied {
    /// It did not say who it is, or not convincingly: 401. The text is sent to the peer.
    Unauthenticated(Cow<'static, str>),
    /// It may not, whoever it is: 403. The text is sent to the peer.
    Forbidden(Cow<'static, str>),
}

/// Decides who may do what. It is asked on the reactors' threads, so it must answer at once, from memory.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether the request may do what it wants.
    ///
    /// # Errors
    /// Why it may not.
    fn authorize(&self, request: &AccessRequest<'_>) -> Result<(), Denied>;
}

impl Rights {
    /// Who may publish, or subscribe, has something to connect for.
    fn connect(&self, request: &AccessRequest<'_>) -> Result<(), Denied> {
        let wants = |action| {
            self.authorize(&AccessRequest {
                head: request.head,
                action,
            })
        };
        wants(Action::Subscribe(""))
            .or_else(|denied| wants(Action::PublishMany).map_err(|_| denied))
    }
}

impl Authorizer for Rights {
    fn authorize(&self, request: &AccessRequest<'_>) -> Result<(), Denied> {
        let (access, what) = match request.action() {
            Action::Publish(_) | Action::PublishMany => (&self.publish, "publishing"),
            Action::Subscribe(_) | Action::SubscribePattern(_) => (&self.subscribe, "subscribing"),
            Action::Connect => return self.connect(request),
            Action::Open(_) => (&self.subscribe, "this endpoint"),
            Action::Observe => (&self.observe, "this page"),
        };
        match access {
            Access::Anyone => Ok(()),
            Access::Nobody => Err(Denied::Forbidden(
                format!("{what} is closed to everybody here").into(),
            )),
            Access::Token(expected) => match request.token() {
                Some(shown) if equal_in_constant_time(shown.as_bytes(), expected.as_bytes()) => {
                    Ok(())
                }
                Some(_) => Err(Denied::Unauthenticated(
                    format!("the token for {what} is wrong").into(),
                )),
                None => {
                    let reason = format!(
                        "{what} needs a token: send it as Authorization: Bearer, or as ?token="
                    );
                    Err(Denied::Unauthenticated(reason.into()))
                }
            },
        }
    }
}

/// Compares without telling by its duration where the first difference lies. Only the length of `shown`, which its
/// sender knows, decides how long it takes.
fn equal_in_constant_time(shown: &[u8], expected: &[u8]) -> bool {
    let mut difference = shown.len() ^ expected.len();
    for (index, byte) in shown.iter().enumerate() {
        let other = expected
            .get(index % expected.len().max(1))
            .copied()
            .unwrap_or(0);
        difference = black_box(difference | usize::from(byte ^ other));
    }
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origins;
    use crate::http::request::RequestLimits;

    fn authorize(request: &str, access: Access, action: Action<'_>) -> Result<(), Denied> {
        let limits = RequestLimits {
            head_bytes_max: 4096,
            headers_max: 20,
            target_bytes_max: 1000,
            body_bytes_max: 0,
        };
        let head = Head::parse(request.as_bytes(), &limits).expect("a valid head");
        let rights = Rights {
            publish: access,
            subscribe: Access::Nobody,
            observe: Access::Anyone,
            origins: Origins::Any,
        };
        rights.authorize(&AccessRequest::new(head, action))
    }

    fn token() -> Access {
        Access::Token("abc".into())
    }

    #[test]
    fn a_token_comes_in_a_header_or_in_the_query() {
        for request in [
            "POST /pub/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abc\r\n\r\n",
            "POST /pub/a HTTP/1.1\r\nHost: x\r\nauthorization: bearer  abc\r\n\r\n",
            "POST /pub/a?token=abc HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /pub/a?x=1&access_token=%61bc HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            assert_eq!(
                authorize(request, token(), Action::Publish("a")),
                Ok(()),
                "{request}"
            );
        }
    }

    #[test]
    fn a_wrong_or_missing_token_is_unauthenticated() {
        for request in [
            "POST /pub/a HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /pub/a HTTP/1.1\r\nHost: x\r\nAuthorization: Basic abc\r\n\r\n",
            "POST /pub/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abd\r\n\r\n",
            "POST /pub/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer\r\n\r\n",
            "POST /pub/a?token=abcabc HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /pub/a?token= HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            let outcome = authorize(request, token(), Action::Publish("a"));
            assert!(
                matches!(outcome, Err(Denied::Unauthenticated(_))),
                "{request}: {outcome:?}"
            );
        }
    }

    #[test]
    fn nobody_is_forbidden() {
        let request = "GET /ws/a?token=abc HTTP/1.1\r\nHost: x\r\n\r\n";
        let outcome = authorize(request, token(), Action::Subscribe("a"));
        assert!(matches!(outcome, Err(Denied::Forbidden(_))));
    }
}
