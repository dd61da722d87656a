//! Identities and their rights. Bytes in, a verdict out: no clock, no socket.
//!
//! [`Authority::authenticate`] is asked once for each request. Who goes on after it, as a connection does, keeps an
//! [`IdentityHandle`](table::IdentityHandle) of four bytes into the table of its reactor, [`Identities`](table::Identities).
//! [`Authority::authorize`] is asked about each action from then on, and looks at nothing but the identity.
//!
//! A source of identities is a variant of [`Source`] and a file here, which reads its credential and says what it allows.
//! All of a request that is not answered yet still stands where it was read, so a source that first has to ask elsewhere
//! makes the request wait as the hub does, by [`Awaited`](crate::connection::Awaited), and a subscription as one that waits
//! for its topic's position.

pub mod access;
pub mod embedder;
pub mod identity;
pub mod table;
pub mod tokens;

use std::sync::Arc;

use crate::http::refusal::Refusal;
use crate::http::request::Head;
use access::{Action, Authorizer, Denied};
use embedder::{Embedder, Judged};
use identity::{Identity, Source};
use tokens::TokenRights;

/// Authority that decides for a server.
pub enum Authority {
    /// The configuration, by its tokens.
    Tokens(TokenRights),
    /// The embedding program, by whatever a request shows.
    Embedder(Embedder),
}

impl Authority {
    /// That of the embedding program. `kept_bytes_max`: bytes of the requests that are kept for it together.
    pub fn of_embedder(authorizer: Arc<dyn Authorizer>, kept_bytes_max: usize) -> Authority {
        Authority::Embedder(Embedder::new(authorizer, kept_bytes_max))
    }

    /// Identity of a request's sender.
    ///
    /// # Errors
    /// It shows a credential that is wrong whatever it is asked for: a token that is none of the server's, where there are
    /// tokens with rights of their own. Where there are none, what anyone may, may be done with a wrong one too.
    pub fn authenticate<'a>(&self, head: &Head<'a>) -> Result<Identity<'a>, Denied> {
        let head = head.view();
        Ok(match self {
            Authority::Tokens(tokens) => tokens.authenticate(head)?,
            Authority::Embedder(_) => Identity::new(Source::Embedder(Judged::Now(head))),
        })
    }

    /// Whether somebody may do something.
    ///
    /// # Errors
    /// Why not. An identity of a source that this server does not have may do nothing.
    pub fn authorize(&self, identity: &Identity<'_>, action: Action<'_>) -> Result<(), Denied> {
        match (self, identity.source()) {
            (Authority::Tokens(tokens), source) => tokens.authorize(source, action),
            (Authority::Embedder(embedder), Source::Embedder(judged)) => {
                embedder.authorize(judged, action)
            }
            (Authority::Embedder(_), _) => Err(Denied::Forbidden(
                "nothing of the request is left that the authorizer could judge by".into(),
            )),
        }
    }

    /// Whether an identity that was kept or noted can be judged by. The embedding program's code can be asked only where the
    /// request is kept; elsewhere, what it said then stands.
    pub fn can_judge(&self, identity: &Identity<'_>) -> bool {
        match self {
            Authority::Tokens(_) => true,
            Authority::Embedder(_) => matches!(identity.source(), Source::Embedder(_)),
        }
    }

    /// The identity as kept beyond its request, by its handle.
    pub fn note(&self, identity: &Identity<'_>) -> Identity<'static> {
        match identity.source() {
            Source::Anonymous | Source::Embedder(_) => Identity::ANONYMOUS,
            Source::Unknown | Source::OtherScheme => Identity::UNKNOWN,
            Source::Token(digest) => Identity::new(Source::Token(*digest)),
        }
    }

    /// The identity to ask about actions after its request.
    ///
    /// # Errors
    /// 503 where no more may be kept for that.
    pub fn keep(&self, identity: &Identity<'_>) -> Result<Identity<'static>, Refusal> {
        match (self, identity.source()) {
            (Authority::Embedder(embedder), Source::Embedder(Judged::Now(head))) => {
                let head = embedder.keep(head)?;
                Ok(Identity::new(Source::Embedder(Judged::Kept(Box::new(
                    head,
                )))))
            }
            _ => Ok(self.note(identity)),
        }
    }

    /// Whether an older identity would be found out again under these settings. What it may do is what these say.
    pub fn still_knows(&self, identity: &Identity<'_>) -> bool {
        match (self, identity.source()) {
            (Authority::Tokens(tokens), Source::Token(digest)) => tokens.has(*digest),
            (Authority::Tokens(_), Source::Embedder(_)) => false,
            (Authority::Embedder(_), Source::Token(_) | Source::Unknown | Source::OtherScheme) => {
                false
            }
            (_, Source::Anonymous)
            | (Authority::Tokens(_), Source::Unknown | Source::OtherScheme)
            | (Authority::Embedder(_), Source::Embedder(_)) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Access, Hosts, Origins, Rights};
    use crate::http::request::RequestLimits;
    use access::AccessRequest;

    /// The head of a request.
    pub(super) fn head(request: &str) -> Head<'_> {
        let limits = RequestLimits {
            head_bytes_max: 4096,
            headers_max: 20,
            target_bytes_max: 1000,
            body_bytes_max: 0,
        };
        Head::parse(request.as_bytes(), &limits).expect("a valid head")
    }

    fn publishers(token: &str) -> Authority {
        Authority::Tokens(TokenRights::new(&Rights {
            publish: Access::Token(token.into()),
            subscribe: Access::Anyone,
            observe: Access::Nobody,
            origins: Origins::Any,
            hosts: Hosts::Any,
            tokens: Vec::new(),
        }))
    }

    /// Lets through who says so.
    struct Honest;

    impl Authorizer for Honest {
        fn authorize(&self, request: &AccessRequest<'_>) -> Result<(), Denied> {
            match request.header("x-may") {
                Some("yes") => Ok(()),
                _ => Err(Denied::Forbidden("no".into())),
            }
        }
    }

    fn embedder(kept_bytes_max: usize) -> Authority {
        Authority::of_embedder(Arc::new(Honest), kept_bytes_max)
    }

    fn kept_bytes(authority: &Authority) -> usize {
        match authority {
            Authority::Embedder(embedder) => embedder.kept_bytes(),
            Authority::Tokens(_) => 0,
        }
    }

    const WITH_TOKEN: &str = "GET /ws?token=old HTTP/1.1\r\nHost: x\r\n\r\n";
    const HONEST: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nX-May: yes\r\n\r\n";

    #[test]
    fn reload_judges_an_identity_by_its_token() {
        let (old, rotated) = (publishers("old"), publishers("new"));
        let identity = old.authenticate(&head(WITH_TOKEN)).expect("it is shown");
        let kept = old.keep(&identity).expect("nothing is counted");
        let publish = Action::Publish("a");
        assert!(old.still_knows(&kept) && old.authorize(&kept, publish).is_ok());
        // Its token is gone, so what it may do is what anyone may.
        assert!(!rotated.still_knows(&kept));
        let denied = rotated.authorize(&kept, publish);
        assert!(matches!(denied, Err(Denied::Unauthenticated(_))));
        assert!(rotated.authorize(&kept, Action::Subscribe("a")).is_ok());
        // The same token for something else is the same identity with another right.
        let observers = Authority::Tokens(TokenRights::new(&Rights {
            publish: Access::Nobody,
            subscribe: Access::Nobody,
            observe: Access::Token("old".into()),
            origins: Origins::Any,
            hosts: Hosts::Any,
            tokens: Vec::new(),
        }));
        assert!(observers.still_knows(&kept));
        assert!(observers.authorize(&kept, Action::Observe).is_ok());
        assert!(observers.authorize(&kept, publish).is_err());
        for anonymous in [Identity::ANONYMOUS, Identity::UNKNOWN] {
            assert!(rotated.still_knows(&anonymous));
        }
    }

    #[test]
    fn other_source_may_do_nothing() {
        let authority = embedder(1000);
        let request = head(WITH_TOKEN);
        let token = publishers("old").authenticate(&request);
        for identity in [
            Identity::ANONYMOUS,
            Identity::UNKNOWN,
            token.expect("shown"),
        ] {
            let denied = authority.authorize(&identity, Action::Observe);
            assert!(matches!(denied, Err(Denied::Forbidden(_))));
        }
        let honest = head(HONEST);
        let honest = authority.authenticate(&honest).expect("nobody is refused");
        let tokens = publishers("old");
        assert!(tokens.authorize(&honest, Action::Publish("a")).is_err());
        assert!(!tokens.still_knows(&honest));
    }

    #[test]
    fn embedder_judges_by_the_head_then_and_later() {
        let authority = embedder(1000);
        for (request, may) in [(HONEST, true), (WITH_TOKEN, false)] {
            let request = request.to_owned();
            let request = head(&request);
            let identity = authority.authenticate(&request).expect("nobody is refused");
            let kept = authority.keep(&identity).expect("there is room");
            for identity in [&identity, &kept] {
                let outcome = authority.authorize(identity, Action::Subscribe("a"));
                assert_eq!(outcome.is_ok(), may, "{identity:?}");
            }
            assert!(authority.still_knows(&kept));
            // What is only noted keeps nothing, and may do nothing.
            let noted = authority.note(&identity);
            assert!(authority.authorize(&noted, Action::Observe).is_err());
        }
    }

    #[test]
    fn kept_heads_are_bounded_and_given_back() {
        let request = head(HONEST);
        let bytes = request.view().bytes();
        let authority = embedder(2 * bytes + 1);
        let identity = authority.authenticate(&request).expect("nobody is refused");
        let first = authority.keep(&identity).expect("room for two");
        let second = authority.keep(&identity).expect("room for two");
        assert_eq!(kept_bytes(&authority), 2 * bytes);
        let refusal = authority.keep(&identity).expect_err("there is no room");
        assert_eq!(refusal.status, 503);
        let names_the_limit = refusal.reason.contains("authorizer_head_bytes_total_max");
        assert!(names_the_limit, "{refusal}");
        drop(first);
        let third = authority.keep(&identity).expect("there is room again");
        drop((second, third));
        assert_eq!(kept_bytes(&authority), 0);
    }
}
