//! Identities and their rights. Bytes in, a verdict out: no clock, no socket.
//!
//! [`Authority::authenticate`] is asked once for each request. Who goes on after it, as a connection does, keeps an
//! [`IdentityHandle`](table::IdentityHandle) of four bytes into the table of its reactor, [`Identities`](table::Identities).
//! [`Authority::authorize`] is asked about each action from then on, and looks at nothing but the identity.
//!
//! A source of identities is a variant of [`Source`](identity::Source) and a file here, which reads its credential and makes
//! an [`Identity`] of it, with the [`Rights`](rights::Rights) that it brings.
//! All of a request that is not answered yet still stands where it was read, so a source that first has to ask elsewhere
//! makes the request wait as the hub does, by [`Awaited`](crate::connection::Awaited), and a subscription as one that waits
//! for its topic's position.

pub mod access;
pub mod caller;
pub mod counts;
pub mod credential;
pub mod deny;
pub mod dialect_tokens;
pub mod embedder;
pub mod failures;
pub mod grant;
pub mod hook;
pub mod identity;
pub mod jwt;
mod lives;
pub mod owner;
pub mod policy;
pub mod program;
pub mod rights;
pub mod shares;
#[cfg(feature = "jwt")]
pub mod signed_url;
pub mod table;
mod tokens;
pub mod topic_signature;
pub mod verdict;
pub mod waiting;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use crate::http::refusal::Refusal;
use crate::http::request::Head;
use access::{Action, Authorizer, Denied};
use caller::Caller;
use counts::AuthCounts;
use credential::RequestFacts;
use embedder::{Embedder, Judged, JudgedNow};
use identity::{Identity, Source, UrlKeyMark};
use policy::AccessPolicy;
use rights::Decision;
use topic_signature::TopicSignature;
use verdict::{Pending, Verdict};

/// Authority that decides for a server.
pub enum Authority {
    /// The configuration, by its tokens and grants.
    Policy(AccessPolicy),
    /// The embedding program, by whatever a request shows.
    Embedder(Embedder),
}

impl Authority {
    /// That of the embedding program. `kept_bytes_max`: bytes of the requests that are kept for it together.
    pub fn of_embedder(authorizer: Arc<dyn Authorizer>, kept_bytes_max: usize) -> Authority {
        Authority::Embedder(Embedder::new(authorizer, kept_bytes_max))
    }

    /// Caller of a request.
    ///
    /// # Errors
    /// It shows a credential that is wrong, whatever it asks for. Where the configuration has no credential, nobody looks
    /// for one.
    pub fn authenticate<'a>(
        &self,
        head: &Head<'a>,
        request: &RequestFacts<'_>,
    ) -> Result<Caller<'a>, Denied> {
        let head = head.view();
        Ok(match self {
            Authority::Policy(policy) => policy.authenticate(head, request)?,
            Authority::Embedder(_) => Caller::Embedder(Judged::Now(Box::new(JudgedNow {
                head,
                peer: None,
                tls: false,
                said: OnceLock::new(),
            }))),
        })
    }

    /// Caller by a client certificate. None: the embedding program judges, and knows none.
    ///
    /// # Errors
    /// It has ended since it was verified.
    pub fn of_certificate(
        &self,
        identity: Arc<Identity>,
        now_ms: u64,
    ) -> Result<Option<Caller<'static>>, Denied> {
        let Authority::Policy(policy) = self else {
            return Ok(None);
        };
        let of_source = policy.counts().of_source("certificate");
        if identity.expires_at_ms().is_some_and(|end| now_ms >= end) {
            let fault = access::TokenFault::Expired;
            of_source.add(fault.result());
            return Err(Denied::Invalid(fault));
        }
        of_source.add(counts::AuthResult::Ok);
        Ok(Some(Caller::Known(identity)))
    }

    /// The token that a request shows, in whatever place it counts. None: it shows none, or it is refused for how it does.
    pub fn shown_token<'a>(
        &self,
        head: &Head<'a>,
        request: &RequestFacts<'_>,
    ) -> Option<Cow<'a, str>> {
        match self {
            Authority::Policy(policy) => policy.shown_token(head.view(), request),
            Authority::Embedder(_) => None,
        }
    }

    /// Whether a cookie can be a credential here.
    pub fn takes_cookies(&self) -> bool {
        match self {
            Authority::Policy(policy) => policy.takes_cookies(),
            Authority::Embedder(_) => false,
        }
    }

    /// Identity of a bearer token. For one that was shown anywhere but in a head, as in the first message of a connection.
    ///
    /// # Errors
    /// It is none of this server's, or not valid now. An embedding program's authorizer knows no tokens.
    pub fn identify(&self, token: &str, now_ms: u64) -> Result<Arc<Identity>, Denied> {
        match self {
            Authority::Policy(policy) => policy.identify(token, now_ms),
            Authority::Embedder(_) => Err(Denied::Invalid(access::TokenFault::Invalid)),
        }
    }

    /// Identity of a signature for a topic. A command shows it.
    ///
    /// # Errors
    /// It is none of this server's keys' for this topic, is over, or is for another subject.
    pub fn identify_signed(
        &self,
        caller: &Caller<'_>,
        topic: &str,
        signature: &TopicSignature,
        now_ms: u64,
    ) -> Result<Arc<Identity>, Denied> {
        match self {
            Authority::Policy(policy) => policy.identify_signed(caller, topic, signature, now_ms),
            Authority::Embedder(_) => Err(Denied::Invalid(access::TokenFault::Invalid)),
        }
    }

    /// Whether what a key of URLs signed is taken still.
    pub fn has_url_key(&self, key: UrlKeyMark) -> bool {
        match self {
            Authority::Policy(policy) => policy.has_url_key(key),
            Authority::Embedder(_) => false,
        }
    }

    /// Whether a token needs no verification: it is static, or was verified before.
    pub fn is_known_token(&self, token: &str, now_ms: u64) -> bool {
        match self {
            Authority::Policy(policy) => policy.is_known_token(token, now_ms),
            Authority::Embedder(_) => true,
        }
    }

    /// Whether no token is wanted here, and nobody looks for one.
    pub fn takes_no_tokens(&self) -> bool {
        match self {
            Authority::Policy(policy) => !policy.has_sources(),
            Authority::Embedder(_) => false,
        }
    }

    /// Names of the claims that grants and templates ask for.
    pub fn wanted_claims(&self) -> &[Box<str>] {
        match self {
            Authority::Policy(policy) => policy.wanted_claims(),
            Authority::Embedder(_) => &[],
        }
    }

    /// Counts of what became of credentials.
    pub fn counts(&self) -> Arc<AuthCounts> {
        match self {
            Authority::Policy(policy) => policy.counts(),
            Authority::Embedder(_) => Arc::default(),
        }
    }

    /// Whether somebody may do something, where nobody can wait for the verdict.
    ///
    /// # Errors
    /// Why not. A caller of another kind than this server has may do nothing. A verdict that comes later is too late.
    pub fn authorize(&self, caller: &Caller<'_>, action: Action<'_>) -> Result<(), Denied> {
        let outcome = self.judge(caller, action);
        if let (Authority::Policy(policy), Err(denied)) = (self, &outcome) {
            policy.count_refusal(caller, denied);
        }
        outcome
    }

    /// Whether somebody may do something. For questions that nobody is told the answer of: no refusal is counted.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, caller: &Caller<'_>, action: Action<'_>) -> Result<(), Denied> {
        match self.verdict(caller, action) {
            Verdict::Allow(_) => Ok(()),
            Verdict::Deny(denied) => Err(denied),
            Verdict::Later(_) => Err(Denied::unavailable(
                "whether this is allowed is decided elsewhere, and cannot be waited for here",
            )),
        }
    }

    /// Whether somebody may do something, be it said later. No refusal is counted.
    pub fn verdict(&self, caller: &Caller<'_>, action: Action<'_>) -> Verdict {
        match (self, caller) {
            (Authority::Policy(policy), caller) => policy.authorize(caller, action).into(),
            (Authority::Embedder(embedder), Caller::Embedder(judged)) => {
                match embedder.authorize(judged, action) {
                    Verdict::Allow(identity) => judged.settle(identity, action).into(),
                    verdict => verdict,
                }
            }
            (Authority::Embedder(_), Caller::Known(identity)) if has_said_rights(identity) => {
                embedder::judge_by_rights(identity, action).into()
            }
            (Authority::Embedder(_), _) => Verdict::Deny(Denied::Forbidden(
                "nothing of the request is left that the authorizer could judge by".into(),
            )),
        }
    }

    /// Token of a request that is the hook's to judge. One without a credential is the hook's too, and has None within; so is
    /// one whose token is none of the configuration's. None: the request is not the hook's.
    ///
    /// # Errors
    /// Its credentials cannot be read.
    pub fn token_for_hook(
        &self,
        head: &Head<'_>,
        cookie_counts: bool,
    ) -> Result<Option<Option<String>>, Denied> {
        match self {
            Authority::Policy(policy) => policy.token_for_hook(head.view(), cookie_counts),
            Authority::Embedder(_) => Ok(None),
        }
    }

    /// Wait for the keys of the token that a request shows. None: it can be judged, or no keys come soon.
    pub fn wait_for_keys_of(&self, head: &Head<'_>, request: &RequestFacts<'_>) -> Option<Pending> {
        match self {
            Authority::Policy(policy) => policy.wait_for_keys_of(head.view(), request),
            Authority::Embedder(_) => None,
        }
    }

    /// Wait for the keys of a token. None: it can be judged, or no keys come soon.
    pub fn wait_for_keys(&self, token: &str, now_ms: u64) -> Option<Pending> {
        match self {
            Authority::Policy(policy) => policy.wait_for_keys(token, now_ms),
            Authority::Embedder(_) => None,
        }
    }

    /// Whether a token is none of the configuration's. The hook may know it.
    pub fn is_for_hook(&self, token: &str) -> bool {
        match self {
            Authority::Policy(policy) => policy.is_for_hook(token),
            Authority::Embedder(_) => false,
        }
    }

    /// Whether something is denied to somebody, whatever else allows it.
    pub fn is_closed(&self, caller: &Caller<'_>, action: Action<'_>) -> bool {
        match self {
            Authority::Policy(policy) => !matches!(
                policy.decide(caller, action),
                Ok(Decision::Allowed(..) | Decision::NotAllowed)
            ),
            Authority::Embedder(_) => true,
        }
    }

    /// Whether a right to read follows the subscription. The embedding program is asked about each.
    pub fn follows_subscription(&self, caller: &Caller<'_>, action: Action<'_>) -> bool {
        match self {
            Authority::Policy(policy) => policy.follows_subscription(caller, action),
            Authority::Embedder(_) => false,
        }
    }

    /// End of all credentials that are denied now. In milliseconds of the Unix epoch; None: there is none.
    pub fn denial_end_ms(&self, denial: &deny::Denial, now_ms: u64) -> Option<u64> {
        match self {
            Authority::Policy(policy) => policy.lives().end_ms(denial, now_ms),
            Authority::Embedder(_) => None,
        }
    }

    /// Whether verdicts may come later.
    pub fn may_take_time(&self) -> bool {
        matches!(self, Authority::Embedder(_))
    }

    /// Whether a caller that was kept or noted can be judged by. The embedding program's code can be asked only where the
    /// request is kept; elsewhere, what it said then stands.
    pub fn can_judge(&self, caller: &Caller<'_>) -> bool {
        match self {
            Authority::Policy(_) => true,
            Authority::Embedder(_) => match caller {
                Caller::Embedder(_) => true,
                Caller::Known(identity) => has_said_rights(identity),
                Caller::Anonymous | Caller::Unknown => false,
            },
        }
    }

    /// The caller as kept beyond its request, by its handle.
    pub fn note(&self, caller: &Caller<'_>) -> Caller<'static> {
        match (caller, caller.identity()) {
            (_, Some(identity)) => Caller::Known(Arc::clone(identity)),
            (Caller::Unknown, _) => Caller::Unknown,
            (_, None) => Caller::Anonymous,
        }
    }

    /// The caller to ask about actions after its request.
    ///
    /// # Errors
    /// 503 where no more may be kept for that.
    pub fn keep(&self, caller: &Caller<'_>) -> Result<Caller<'static>, Refusal> {
        match (self, caller) {
            (Authority::Embedder(embedder), Caller::Embedder(Judged::Now(now))) => {
                if let Some(identity) = caller.identity().filter(|it| has_said_rights(it)) {
                    return Ok(Caller::Known(Arc::clone(identity)));
                }
                let head = embedder.keep(now)?;
                Ok(Caller::Embedder(Judged::Kept(Box::new(head))))
            }
            _ => Ok(self.note(caller)),
        }
    }

    /// Whether an older caller would be found out again under these settings. What it may do is what these say.
    pub fn still_knows(&self, caller: &Caller<'_>) -> bool {
        match (self, caller) {
            (Authority::Policy(policy), Caller::Known(identity)) => {
                policy.newest(identity).is_some()
            }
            (Authority::Policy(_), Caller::Embedder(_)) => false,
            (Authority::Embedder(_), Caller::Known(identity)) => {
                *identity.source() == Source::Program
            }
            (_, Caller::Unknown) => false,
            (_, Caller::Anonymous) | (Authority::Embedder(_), Caller::Embedder(_)) => true,
        }
    }

    /// Words about who may do something, for people: what allows or denies it.
    pub fn explain(&self, caller: &Caller<'_>, action: Action<'_>) -> (bool, String) {
        let decision = match self {
            Authority::Policy(policy) => policy.decide(caller, action),
            Authority::Embedder(_) => {
                return match self.judge(caller, action) {
                    Ok(()) => (true, "the program".to_owned()),
                    Err(_) => (false, "the program".to_owned()),
                };
            }
        };
        match decision {
            Ok(decision) => words_of(&decision),
            Err(Denied::Invalid(fault)) => (false, fault.description().to_owned()),
            Err(_) => (false, "the credential cannot be read".to_owned()),
        }
    }

    /// Words about a subject whose credential is not known. Grants that ask for a source are not made.
    pub fn explain_subject(&self, identity: &Arc<Identity>, action: Action<'_>) -> (bool, String) {
        match self {
            Authority::Policy(policy) => words_of(&policy.decide_by(identity, action)),
            Authority::Embedder(_) => self.explain(&Caller::Known(Arc::clone(identity)), action),
        }
    }
}

/// Words about what decides.
fn words_of(decision: &Decision<'_, owner::Owner<'_>>) -> (bool, String) {
    match decision {
        Decision::Allowed(owner, pattern) => (true, format!("{pattern} of {owner}")),
        Decision::Denied(owner, pattern) => (false, format!("deny {pattern} of {owner}")),
        Decision::NotAllowed => (false, "nothing allows it".to_owned()),
    }
}

/// Whether the embedding program has said what an identity may.
fn has_said_rights(identity: &Identity) -> bool {
    *identity.source() == Source::Program && !identity.rights().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Access, Hosts, Origins, QueryToken, Rights};
    use crate::http::request::RequestLimits;
    use access::AccessRequest;

    /// The head of a request.
    pub(super) fn head<'r>(request: &'r (impl AsRef<[u8]> + ?Sized)) -> Head<'r> {
        let limits = RequestLimits {
            head_bytes_max: 4096,
            headers_max: 20,
            target_bytes_max: 1000,
            body_bytes_max: 0,
        };
        Head::parse(request.as_ref(), &limits).expect("a valid head")
    }

    fn publishers(token: &str) -> Authority {
        Authority::Policy(AccessPolicy::new(
            &Rights {
                publish: Access::Token(token.into()),
                subscribe: Access::Anyone,
                observe: Access::Nobody,
                origins: Origins::Any,
                hosts: Hosts::Any,
                tokens: Vec::new(),
                grants: Vec::new(),
                jwts: Vec::new(),
                query_token: QueryToken::Allow,
                cookie: None,
                url_keys: Vec::new(),
                signed_url_age_max_ms: 0,
            },
            Arc::default(),
        ))
    }

    /// Lets through who says so.
    struct Honest;

    impl Authorizer for Honest {
        fn authorize(&self, request: &AccessRequest<'_>) -> Verdict {
            match request.header("x-may") {
                Some("yes") => Verdict::Allow(program::Identity::anonymous()),
                _ => Verdict::Deny(Denied::Forbidden("no".into())),
            }
        }
    }

    fn embedder(kept_bytes_max: usize) -> Authority {
        Authority::of_embedder(Arc::new(Honest), kept_bytes_max)
    }

    fn kept_bytes(authority: &Authority) -> usize {
        match authority {
            Authority::Embedder(embedder) => embedder.kept_bytes(),
            Authority::Policy(_) => 0,
        }
    }

    const WITH_TOKEN: &str = "GET /ws?token=old HTTP/1.1\r\nHost: x\r\n\r\n";
    const HONEST: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nX-May: yes\r\n\r\n";

    #[test]
    fn reload_judges_an_identity_by_its_token() {
        let (old, rotated) = (publishers("old"), publishers("new"));
        let identity = old
            .authenticate(&head(WITH_TOKEN), &RequestFacts::at(0))
            .expect("it is shown");
        let kept = old.keep(&identity).expect("nothing is counted");
        let publish = Action::Publish("a");
        assert!(old.still_knows(&kept) && old.authorize(&kept, publish).is_ok());
        // Its token is gone, so what it may do is what anyone may.
        assert!(!rotated.still_knows(&kept));
        let denied = rotated.authorize(&kept, publish);
        assert_eq!(denied, Err(Denied::Invalid(access::TokenFault::Revoked)));
        assert!(rotated.authorize(&kept, Action::Subscribe("a")).is_ok());
        // The same token for something else is the same identity with another right.
        let observers = Authority::Policy(AccessPolicy::new(
            &Rights {
                publish: Access::Nobody,
                subscribe: Access::Nobody,
                observe: Access::Token("old".into()),
                origins: Origins::Any,
                hosts: Hosts::Any,
                tokens: Vec::new(),
                grants: Vec::new(),
                jwts: Vec::new(),
                query_token: QueryToken::Allow,
                cookie: None,
                url_keys: Vec::new(),
                signed_url_age_max_ms: 0,
            },
            Arc::default(),
        ));
        assert!(observers.still_knows(&kept));
        assert!(observers.authorize(&kept, Action::Observe).is_ok());
        assert!(observers.authorize(&kept, publish).is_err());
        assert!(rotated.still_knows(&Caller::Anonymous));
    }

    #[test]
    fn other_source_may_do_nothing() {
        let authority = embedder(1000);
        let request = head(WITH_TOKEN);
        let token = publishers("old").authenticate(&request, &RequestFacts::at(0));
        for identity in [Caller::Anonymous, Caller::Unknown, token.expect("shown")] {
            let denied = authority.authorize(&identity, Action::Observe);
            assert!(matches!(denied, Err(Denied::Forbidden(_))));
        }
        let honest = head(HONEST);
        let honest = authority
            .authenticate(&honest, &RequestFacts::at(0))
            .expect("nobody is refused");
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
            let identity = authority
                .authenticate(&request, &RequestFacts::at(0))
                .expect("nobody is refused");
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
        let identity = authority
            .authenticate(&request, &RequestFacts::at(0))
            .expect("nobody is refused");
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
