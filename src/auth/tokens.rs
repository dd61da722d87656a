//! The tokens of the configuration, and what each allows.

use std::collections::HashMap;

use super::access::{Action, Denied, Shown, shown};
use super::identity::{Identity, Source, TokenDigest};
use crate::config::{Access, Rights, Token, TokenValue};
use crate::http::kept::HeadView;
use crate::topic::Pattern;

/// Rights to publish, subscribe and observe.
#[derive(Clone, Debug)]
pub struct TokenRights {
    publish: Allowed,
    subscribe: Allowed,
    observe: Allowed,
    /// Tokens with rights of their own.
    named: HashMap<TokenDigest, Token>,
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
        source: &Source<'_>,
        what: &str,
        own: impl Fn(TokenDigest) -> &'static str,
    ) -> Result<(), Denied> {
        match (self, source) {
            (Allowed::Anyone, _) => Ok(()),
            (Allowed::Nobody, _) => Err(Denied::Forbidden(
                format!("{what} is closed to everybody here").into(),
            )),
            (Allowed::Token(wanted), Source::Token(shown)) if wanted == *shown => Ok(()),
            (Allowed::Token(_), Source::Anonymous) => Err(Denied::Unauthenticated(
                format!("{what} needs a token: send it as Authorization: Bearer, or as ?token=")
                    .into(),
            )),
            (Allowed::Token(_), Source::OtherScheme) => Err(Denied::Unauthenticated(
                format!(
                    "{what} needs a token, and the Authorization header, which counts before ?token=, is not Bearer and a \
                     token"
                )
                .into(),
            )),
            (Allowed::Token(_), Source::Token(shown)) => Err(Denied::Unauthenticated(
                format!("this token is for {}, and {what} has another", own(*shown)).into(),
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

fn with_digest(token: &Token) -> (TokenDigest, Token) {
    let digest = match &token.value {
        TokenValue::Secret(secret) => TokenDigest::of(secret.expose()),
        TokenValue::Sha256(digest) => TokenDigest::from(*digest),
    };
    let mut token = token.clone();
    token.value = TokenValue::Sha256(*digest.as_bytes());
    (digest, token)
}

/// Whether a token with rights of its own allows an action. `is_for_anyone`: everybody may do it.
fn judge(token: &Token, action: Action<'_>, is_for_anyone: bool) -> Result<(), Denied> {
    let matches = |patterns: &[Pattern], topic| patterns.iter().any(|it| it.matches_name(topic));
    let (is_allowed, is_denied) = match action {
        Action::Publish(topic) => (
            matches(&token.publish, topic),
            matches(&token.deny_publish, topic),
        ),
        Action::Subscribe(topic) => (
            matches(&token.subscribe, topic),
            matches(&token.deny_subscribe, topic),
        ),
        Action::SubscribePattern(pattern) => match Pattern::parse(pattern) {
            Ok(wanted) => (
                token.subscribe.iter().any(|it| it.covers(&wanted)),
                token.deny_subscribe.iter().any(|it| it.meets(&wanted)),
            ),
            Err(_) => (false, true),
        },
        Action::PublishMany => (!token.publish.is_empty(), false),
        Action::Open(_) => (!token.subscribe.is_empty(), false),
        Action::Connect => (
            !token.subscribe.is_empty() || !token.publish.is_empty(),
            false,
        ),
        Action::Observe => (token.observe, false),
    };
    match (is_denied, is_allowed || is_for_anyone) {
        (false, true) => Ok(()),
        (true, _) => Err(Denied::Forbidden(
            format!(
                "a deny of the token {} closes it, or a part of it",
                token.name
            )
            .into(),
        )),
        (false, false) => Err(Denied::Forbidden(
            format!("the token {} does not allow it", token.name).into(),
        )),
    }
}

impl TokenRights {
    /// Rights of the configuration.
    pub fn new(rights: &Rights) -> TokenRights {
        TokenRights {
            publish: (&rights.publish).into(),
            subscribe: (&rights.subscribe).into(),
            observe: (&rights.observe).into(),
            named: rights.tokens.iter().map(with_digest).collect(),
        }
    }

    fn tokens(&self) -> impl Iterator<Item = TokenDigest> {
        let all = [self.publish, self.subscribe, self.observe];
        all.into_iter().filter_map(Allowed::token)
    }

    /// Who sent the request. Where no token is wanted, nobody looks for one.
    ///
    /// # Errors
    /// It shows a token that is none of the server's, where there are tokens with rights of their own.
    pub(super) fn authenticate(&self, head: HeadView<'_>) -> Result<Identity<'static>, Denied> {
        if self.tokens().next().is_none() && self.named.is_empty() {
            return Ok(Identity::ANONYMOUS);
        }
        let shown = match shown(head) {
            Shown::Nothing => return Ok(Identity::ANONYMOUS),
            Shown::OtherScheme => return Ok(Identity::new(Source::OtherScheme)),
            Shown::Token(token) => token,
        };
        let digest = TokenDigest::of(&shown);
        match self.has(digest) {
            true => Ok(Identity::new(Source::Token(digest))),
            false if self.named.is_empty() => Ok(Identity::UNKNOWN),
            false => Err(Denied::Unauthenticated("this token is not valid".into())),
        }
    }

    /// Whether one of them is this token.
    pub(super) fn has(&self, digest: TokenDigest) -> bool {
        self.named.contains_key(&digest) || self.tokens().any(|token| token == digest)
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

    pub(super) fn authorize(&self, source: &Source<'_>, action: Action<'_>) -> Result<(), Denied> {
        let named = match source {
            Source::Token(digest) => self.named.get(digest),
            _ => None,
        };
        match (named, self.authorize_by_settings(source, action)) {
            // A token with rights of its own may also what anyone may, unless that is denied to it.
            (Some(token), by_settings) => judge(token, action, by_settings.is_ok()),
            (None, Err(Denied::Forbidden(_))) if !self.named.is_empty() => {
                Err(Denied::Unauthenticated(NEEDS_TOKEN.into()))
            }
            (None, by_settings) => by_settings,
        }
    }

    fn authorize_by_settings(&self, source: &Source<'_>, action: Action<'_>) -> Result<(), Denied> {
        let (allowed, what) = match action {
            Action::Publish(_) | Action::PublishMany => (self.publish, "publishing"),
            Action::Subscribe(_) | Action::SubscribePattern(_) => (self.subscribe, "subscribing"),
            // Who may publish, or subscribe, has something to connect for.
            Action::Connect => {
                let own = |shown| self.own_of(shown);
                let denied = match self.subscribe.authorize(source, "subscribing", own) {
                    Ok(()) => return Ok(()),
                    Err(denied) => denied,
                };
                let publishes = self.publish.authorize(source, "publishing", own);
                return publishes.map_err(|_| denied);
            }
            Action::Open(_) => (self.subscribe, "this endpoint"),
            Action::Observe => (self.observe, "this page"),
        };
        allowed.authorize(source, what, |shown| self.own_of(shown))
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
        let rights = TokenRights::new(&Rights {
            publish: access,
            subscribe: Access::Nobody,
            observe: Access::Anyone,
            origins: Origins::Any,
            hosts: Hosts::Any,
            tokens: Vec::new(),
        });
        let identity = rights.authenticate(head(request).view())?;
        rights.authorize(identity.source(), Action::Publish("a"))
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
        let rights = TokenRights::new(&Rights {
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
                .authenticate(head(&request).view())
                .expect("nobody is refused");
            let may = actions.map(|action| rights.authorize(identity.source(), action).is_ok());
            assert_eq!(may, allowed, "{shown}");
        }
    }

    #[test]
    fn token_of_another_kind_is_named() {
        let with = |publish: &str, subscribe: &str, observe: &str| {
            TokenRights::new(&Rights {
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
                    .authenticate(head(request).view())
                    .expect("nobody is refused");
                assert_eq!(
                    rights.authorize(identity.source(), action),
                    Err(Denied::Unauthenticated(reason.into()))
                );
            }
        }
    }
}
