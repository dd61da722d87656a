//! The tokens of the configuration, and what each allows.

use std::collections::HashMap;
use std::sync::Arc;

use super::access::{Action, Denied, Shown, shown};
use super::caller::Caller;
use super::identity::{Identity, IdentityParts, Source, TokenDigest};
use super::rights::{Decision, DenyLists, Part, Rights, RightsLists, decide};
use crate::config::{self, Access, Token, TokenValue};
use crate::http::kept::HeadView;
use crate::topic::Pattern;

/// Rights to publish, subscribe and observe.
#[derive(Clone, Debug)]
pub struct TokenRights {
    publish: Allowed,
    subscribe: Allowed,
    observe: Allowed,
    /// Tokens with rights of their own.
    named: HashMap<TokenDigest, Arc<Identity>>,
    /// Tokens of the settings, which have these rights alone.
    of_settings: HashMap<TokenDigest, Arc<Identity>>,
}

/// Who may do something: [`Access`] without the tokens themselves.
#[derive(Clone, Copy, Debug)]
enum Allowed {
    Anyone,
    Nobody,
    Token(TokenDigest),
}

impl From<&Access> for Allowed {
    fn from(access: &Access) -> Allowed {
        match access {
            Access::Anyone => Allowed::Anyone,
            Access::Nobody => Allowed::Nobody,
            Access::Token(token) => Allowed::Token(TokenDigest::of(token.expose())),
        }
    }
}

impl Allowed {
    fn token(self) -> Option<TokenDigest> {
        match self {
            Allowed::Token(digest) => Some(digest),
            Allowed::Anyone | Allowed::Nobody => None,
        }
    }

    /// `what` is said of what is asked for, `own` of what a token is for that is known.
    fn authorize(
        self,
        caller: &Caller<'_>,
        what: &str,
        own: impl Fn(TokenDigest) -> &'static str,
    ) -> Result<(), Denied> {
        let shown = caller.identity().and_then(|it| it.credential());
        match (self, caller) {
            (Allowed::Anyone, _) => Ok(()),
            (Allowed::Nobody, _) => Err(Denied::Forbidden(
                format!("{what} is closed to everybody here").into(),
            )),
            (Allowed::Token(wanted), _) if Some(wanted) == shown => Ok(()),
            (Allowed::Token(_), Caller::Anonymous) => Err(Denied::Unauthenticated(
                format!("{what} needs a token: send it as Authorization: Bearer, or as ?token=")
                    .into(),
            )),
            (Allowed::Token(_), Caller::OtherScheme) => Err(Denied::Unauthenticated(
                format!(
                    "{what} needs a token, and the Authorization header, which counts before ?token=, is not Bearer and a \
                     token"
                )
                .into(),
            )),
            (Allowed::Token(_), Caller::Known(_)) => Err(Denied::Unauthenticated(
                match shown {
                    Some(shown) => format!("this token is for {}, and {what} has another", own(shown)),
                    None => format!("this token does not allow {what}"),
                }
                .into(),
            )),
            (Allowed::Token(_), _) => Err(Denied::Unauthenticated(
                format!("the token for {what} is wrong").into(),
            )),
        }
    }
}

/// Answer to somebody without a token, or with one for something else.
const NEEDS_TOKEN: &str =
    "this needs a token that allows it: send it as Authorization: Bearer, or as ?token=";

/// A token of the configuration, and the identity of whoever shows it.
fn with_digest(token: &Token) -> (TokenDigest, Arc<Identity>) {
    let digest = match &token.value {
        TokenValue::Secret(secret) => TokenDigest::of(secret.expose()),
        TokenValue::Sha256(digest) => TokenDigest::from(*digest),
    };
    let texts = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect();
    let lists = RightsLists {
        subscribe: texts(&token.subscribe),
        publish: texts(&token.publish),
        observe: token.observe,
        deny: DenyLists {
            subscribe: texts(&token.deny_subscribe),
            publish: texts(&token.deny_publish),
            ..DenyLists::default()
        },
        ..RightsLists::default()
    };
    (digest, identity_of(&token.name, digest, &lists))
}

fn identity_of(name: &str, digest: TokenDigest, lists: &RightsLists) -> Arc<Identity> {
    let rights = Rights::from_lists(lists);
    debug_assert!(rights.is_ok(), "the configuration was checked");
    let identity = Identity::new(IdentityParts {
        // Where there are none, nothing is allowed.
        rights: rights.unwrap_or_else(|_| Rights::none()),
        credential: Some(digest),
        ..IdentityParts::of(Source::Token(name.into()))
    });
    identity.expect("a name alone makes an identity")
}

/// Whether rights of an identity's own allow an action. `is_for_anyone`: everybody may do it.
fn judge(
    identity: &Identity,
    rights: &Rights,
    action: Action<'_>,
    is_for_anyone: bool,
) -> Result<(), Denied> {
    let parts = std::iter::once(Part { owner: (), rights });
    let name = identity.source().name();
    match decide(&parts, action, identity) {
        Decision::Allowed(..) => Ok(()),
        Decision::Denied(..) => Err(Denied::Forbidden(
            format!("a deny of the token {name} closes it, or a part of it").into(),
        )),
        Decision::NotAllowed if is_for_anyone => Ok(()),
        Decision::NotAllowed => Err(Denied::Forbidden(
            format!("the token {name} does not allow it").into(),
        )),
    }
}

impl TokenRights {
    /// Rights of the configuration.
    pub fn new(rights: &config::Rights) -> TokenRights {
        let settings = [
            ("publish", &rights.publish),
            ("subscribe", &rights.subscribe),
            ("observe", &rights.observe),
        ];
        let mut of_settings = HashMap::new();
        for (name, access) in settings {
            if let Some(digest) = Allowed::from(access).token() {
                let lists = RightsLists::default();
                of_settings
                    .entry(digest)
                    .or_insert_with(|| identity_of(name, digest, &lists));
            }
        }
        TokenRights {
            of_settings,
            publish: (&rights.publish).into(),
            subscribe: (&rights.subscribe).into(),
            observe: (&rights.observe).into(),
            named: rights.tokens.iter().map(with_digest).collect(),
        }
    }

    /// Caller of a request. Where no token is wanted, nobody looks for one.
    ///
    /// # Errors
    /// It shows a token that is none of the server's, where there are tokens with rights of their own.
    pub(super) fn authenticate(
        &self,
        head: HeadView<'_>,
        now_ms: u64,
    ) -> Result<Caller<'static>, Denied> {
        if self.of_settings.is_empty() && self.named.is_empty() {
            return Ok(Caller::Anonymous);
        }
        let shown = match shown(head) {
            Shown::Nothing => return Ok(Caller::Anonymous),
            Shown::OtherScheme => return Ok(Caller::OtherScheme),
            Shown::Token(token) => token,
        };
        match self.identify(&shown, now_ms) {
            Ok(identity) => Ok(Caller::Known(identity)),
            Err(_) if self.named.is_empty() => Ok(Caller::Unknown),
            Err(denied) => Err(denied),
        }
    }

    /// Identity of a token.
    ///
    /// # Errors
    /// It is none of these, or is over.
    pub(super) fn identify(&self, token: &str, now_ms: u64) -> Result<Arc<Identity>, Denied> {
        let digest = TokenDigest::of(token);
        let identity = self
            .find(digest)
            .ok_or(Denied::Unauthenticated("this token is not valid".into()))?;
        match identity.expires_at_ms() {
            Some(end_ms) if end_ms <= now_ms => {
                Err(Denied::Unauthenticated("the token has expired".into()))
            }
            _ => Ok(Arc::clone(identity)),
        }
    }

    fn find(&self, digest: TokenDigest) -> Option<&Arc<Identity>> {
        let named = self.named.get(&digest);
        named.or_else(|| self.of_settings.get(&digest))
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.of_settings.is_empty()
    }

    /// Whether one of them is this token.
    pub(super) fn has(&self, digest: TokenDigest) -> bool {
        self.find(digest).is_some()
    }

    /// What a token is for, of these.
    fn own_of(&self, shown: TokenDigest) -> &'static str {
        let is = |allowed: Allowed| allowed.token() == Some(shown);
        match (is(self.publish), is(self.subscribe), is(self.observe)) {
            (true, true, _) => "publishing and subscribing",
            (true, false, true) => "publishing and observing",
            (false, true, true) => "subscribing and observing",
            (true, false, false) => "publishing",
            (false, true, false) => "subscribing",
            (false, false, _) => "observing",
        }
    }

    pub(super) fn authorize(&self, caller: &Caller<'_>, action: Action<'_>) -> Result<(), Denied> {
        // What a static token may is what the newest configuration says.
        let own = caller.identity().and_then(|identity| {
            let newest = match identity.credential() {
                Some(digest) => self.named.get(&digest)?,
                None => identity,
            };
            Some((identity, newest.rights()))
        });
        match (own, self.authorize_by_settings(caller, action)) {
            // A token with rights of its own may also what anyone may, unless that is denied to it.
            (Some((identity, rights)), by_settings) => {
                judge(identity, rights, action, by_settings.is_ok())
            }
            (None, Err(Denied::Forbidden(_))) if !self.named.is_empty() => {
                Err(Denied::Unauthenticated(NEEDS_TOKEN.into()))
            }
            (None, by_settings) => by_settings,
        }
    }

    fn authorize_by_settings(&self, caller: &Caller<'_>, action: Action<'_>) -> Result<(), Denied> {
        let (allowed, what) = match action {
            Action::Publish(_) | Action::PublishMany => (self.publish, "publishing"),
            Action::Subscribe(_)
            | Action::SubscribePattern(_)
            | Action::Presence(_)
            | Action::History(_) => (self.subscribe, "subscribing"),
            // Who may publish, or subscribe, has something to connect for.
            Action::Connect => {
                let own = |shown| self.own_of(shown);
                let denied = match self.subscribe.authorize(caller, "subscribing", own) {
                    Ok(()) => return Ok(()),
                    Err(denied) => denied,
                };
                let publishes = self.publish.authorize(caller, "publishing", own);
                return publishes.map_err(|_| denied);
            }
            Action::Open(_) => (self.subscribe, "this endpoint"),
            Action::Observe => (self.observe, "this page"),
            Action::Manage(_) => {
                return Err(Denied::Forbidden(
                    "this needs a token that may manage: `umbel token new` makes one".into(),
                ));
            }
        };
        allowed.authorize(caller, what, |shown| self.own_of(shown))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::head;
    use super::*;
    use crate::config::{Hosts, Origins};

    fn token() -> Access {
        Access::Token("abc".into())
    }

    /// Whether a request may publish where these may.
    fn publish(request: &str, access: Access) -> Result<(), Denied> {
        let rights = TokenRights::new(&config::Rights {
            publish: access,
            subscribe: Access::Nobody,
            observe: Access::Anyone,
            origins: Origins::Any,
            hosts: Hosts::Any,
            tokens: Vec::new(),
        });
        let identity = rights.authenticate(head(request).view(), 0)?;
        rights.authorize(&identity, Action::Publish("a"))
    }

    #[test]
    fn token_in_header_or_query() {
        for request in [
            "POST /pub/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abc\r\n\r\n",
            "POST /pub/a HTTP/1.1\r\nHost: x\r\nauthorization: bearer  abc\r\n\r\n",
            "POST /pub/a?token=abc HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /pub/a?x=1&access_token=%61bc HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            assert_eq!(publish(request, token()), Ok(()), "{request}");
        }
    }

    #[test]
    fn wrong_or_missing_token_is_unauthenticated() {
        let missing = "publishing needs a token: send it as Authorization: Bearer, or as ?token=";
        let other = "publishing needs a token, and the Authorization header, which counts before ?token=, is not Bearer \
                     and a token";
        let wrong = "the token for publishing is wrong";
        for (target, line, reason) in [
            ("/pub/a", "", missing),
            ("/pub/a", "Authorization: Basic abc\r\n", other),
            ("/pub/a?token=abc", "Authorization: Basic abc\r\n", other),
            ("/pub/a", "Authorization: Bearer abd\r\n", wrong),
            ("/pub/a", "Authorization: Bearer\r\n", other),
            ("/pub/a?token=abcabc", "", wrong),
            ("/pub/a?token=", "", wrong),
            ("/pub/a?token=abc", "Authorization: Bearer abd\r\n", wrong),
        ] {
            let request = format!("POST {target} HTTP/1.1\r\nHost: x\r\n{line}\r\n");
            assert_eq!(
                publish(&request, token()),
                Err(Denied::Unauthenticated(reason.into())),
                "{request}"
            );
            assert_eq!(publish(&request, Access::Anyone), Ok(()), "{request}");
        }
    }

    #[test]
    fn nobody_is_forbidden() {
        let request = "POST /pub/a?token=abc HTTP/1.1\r\nHost: x\r\n\r\n";
        let outcome = publish(request, Access::Nobody);
        assert!(matches!(outcome, Err(Denied::Forbidden(_))));
    }

    /// Each token allows what its setting is about, and who has any of both has something to connect for.
    #[test]
    fn token_allows_its_own_setting() {
        let rights = TokenRights::new(&config::Rights {
            publish: Access::Token("pub".into()),
            subscribe: Access::Token("sub".into()),
            observe: Access::Token("pub".into()),
            origins: Origins::Any,
            hosts: Hosts::Any,
            tokens: Vec::new(),
        });
        let actions = [
            Action::Publish("a"),
            Action::PublishMany,
            Action::Observe,
            Action::Subscribe("a"),
            Action::SubscribePattern("*"),
            Action::Open("/echo"),
            Action::Connect,
        ];
        for (shown, allowed) in [
            ("pub", [true, true, true, false, false, false, true]),
            ("sub", [false, false, false, true, true, true, true]),
            ("none", [false; 7]),
        ] {
            let request = format!("GET /?token={shown} HTTP/1.1\r\nHost: x\r\n\r\n");
            let identity = rights
                .authenticate(head(&request).view(), 0)
                .expect("nobody is refused");
            let may = actions.map(|action| rights.authorize(&identity, action).is_ok());
            assert_eq!(may, allowed, "{shown}");
        }
    }

    #[test]
    fn token_of_another_kind_is_named() {
        let with = |publish: &str, subscribe: &str, observe: &str| {
            TokenRights::new(&config::Rights {
                publish: Access::Token(publish.into()),
                subscribe: Access::Token(subscribe.into()),
                observe: Access::Token(observe.into()),
                origins: Origins::Any,
                hosts: Hosts::Any,
                tokens: Vec::new(),
            })
        };
        for (rights, action, reason) in [
            (
                with("x", "s", "o"),
                Action::Subscribe("a"),
                "this token is for publishing, and subscribing has another",
            ),
            (
                with("p", "x", "o"),
                Action::PublishMany,
                "this token is for subscribing, and publishing has another",
            ),
            (
                with("p", "s", "x"),
                Action::Publish("a"),
                "this token is for observing, and publishing has another",
            ),
            (
                with("x", "x", "o"),
                Action::Observe,
                "this token is for publishing and subscribing, and this page has another",
            ),
            (
                with("x", "s", "x"),
                Action::Open("/echo"),
                "this token is for publishing and observing, and this endpoint has another",
            ),
            (
                with("p", "s", "x"),
                Action::Connect,
                "this token is for observing, and subscribing has another",
            ),
        ] {
            for request in [
                "GET /?token=x HTTP/1.1\r\nHost: x\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n",
            ] {
                let identity = rights
                    .authenticate(head(request).view(), 0)
                    .expect("nobody is refused");
                assert_eq!(
                    rights.authorize(&identity, action),
                    Err(Denied::Unauthenticated(reason.into()))
                );
            }
        }
    }
}
