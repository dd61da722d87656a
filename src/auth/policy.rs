//! The policy of the configuration: its tokens, its grants, and the order in which credentials are looked at.

mod elsewhere;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::access::{Action, Denied, TokenFault};
use super::caller::Caller;
use super::counts::{AuthCounts, AuthResult, SourceCounts};
use super::credential::{Place, RequestFacts, Shown, shown};
use super::grant::Grant;
use super::identity::{Identity, Nobody, Source, TokenDigest, UrlKeyMark};
#[cfg(feature = "jwt")]
use super::jwt::source::SignedTokens;
use super::lives::Lives;
use super::owner::Owner;
use super::rights::{Decision, Part, Rights, RightsLists, decide};
#[cfg(feature = "jwt")]
use super::signed_url::UrlKeys;
use super::tokens::{of_settings, of_token};
use super::topic_signature::TopicSignature;
use crate::config::{self, Access, QueryToken};
use crate::http::kept::HeadView;
use crate::topic::template::VariableName;

/// Rights of the configuration, and those who show its tokens.
#[derive(Clone)]
pub struct AccessPolicy {
    /// Whoever shows the token with this digest.
    tokens: HashMap<TokenDigest, Arc<Identity>>,
    /// Rights of everybody, by settings that are `anyone`.
    everybody: Rights,
    grants: Vec<Grant>,
    /// Tokens that may stand in a URL.
    query_token: QueryToken,
    /// Name of the cookie that holds a token.
    cookie: Option<Box<str>>,
    /// Claims that grants and their patterns ask for.
    wanted_claims: Box<[Box<str>]>,
    /// Kinds of actions that anybody may do on any topic, whatever grants say.
    open: Kinds,
    /// Kinds of actions that somebody may be allowed who shows a credential.
    allowed_to_somebody: Kinds,
    /// Tokens of the issuers of the configuration.
    #[cfg(feature = "jwt")]
    signed: Option<Arc<SignedTokens>>,
    /// Keys of signed URLs, if there are any, and their counts.
    #[cfg(feature = "jwt")]
    url_keys: Option<(Arc<UrlKeys>, Arc<SourceCounts>)>,
    lives: Lives,
    counts: Arc<AuthCounts>,
    of_tokens: Arc<SourceCounts>,
    of_anonymous: Arc<SourceCounts>,
}

/// Whether the log has said what a token in a URL means. Once is enough.
static IS_URL_WARNED: AtomicBool = AtomicBool::new(false);

/// Life of a token that may stand in a URL where only short ones may, in milliseconds.
const QUERY_LIFE_MAX_MS: u64 = 5 * 60 * 1000;

/// Kinds of actions.
#[derive(Clone, Copy, Debug, Default)]
struct Kinds {
    publish: bool,
    subscribe: bool,
    observe: bool,
    manage: bool,
}

impl Kinds {
    fn add(&mut self, lists: &RightsLists) {
        let is_said =
            |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
        self.publish |= !lists.publish.is_empty();
        self.subscribe |=
            !lists.subscribe.is_empty() || is_said(&lists.presence) || is_said(&lists.history);
        self.observe |= lists.observe;
        self.manage |= !lists.manage.is_empty();
    }

    fn has(self, action: Action<'_>) -> bool {
        match action {
            Action::Publish(_) | Action::PublishMany => self.publish,
            Action::Subscribe(_)
            | Action::SubscribePattern(_)
            | Action::Presence(_)
            | Action::History(_)
            | Action::Open(_) => self.subscribe,
            Action::Connect => self.subscribe || self.publish,
            Action::Observe => self.observe,
            Action::Manage(_) => self.manage,
        }
    }
}

/// The words for an action in a refusal.
fn words_of(action: Action<'_>) -> &'static str {
    match action {
        Action::Publish(_) | Action::PublishMany => "publishing",
        Action::Subscribe(_) | Action::SubscribePattern(_) | Action::Connect => "subscribing",
        Action::Presence(_) => "asking for members",
        Action::History(_) => "reading the history",
        Action::Open(_) => "this endpoint",
        Action::Observe => "this page",
        Action::Manage(_) => "managing",
    }
}

impl AccessPolicy {
    /// Policy of these rights, which were checked. `counts` outlive it.
    pub fn new(rights: &config::Rights, counts: Arc<AuthCounts>) -> AccessPolicy {
        let mut everybody = RightsLists::default();
        let all = |access: &Access| match access {
            Access::Anyone => vec!["**".to_owned()],
            _ => Vec::new(),
        };
        everybody.publish = all(&rights.publish);
        everybody.subscribe = all(&rights.subscribe);
        everybody.observe = rights.observe == Access::Anyone;
        let of_settings = of_settings(rights);
        let mut allowed_to_somebody = Kinds::default();
        let tokens = of_settings.iter().chain(&rights.tokens);
        for token in tokens.clone() {
            allowed_to_somebody.add(&token.rights);
        }
        let tokens: HashMap<_, _> = tokens.map(of_token).collect();
        for grant in rights.grants.iter().filter(|grant| !grant.when.anonymous) {
            allowed_to_somebody.add(&grant.rights);
        }
        let grants: Vec<Grant> = rights.grants.iter().map(Grant::new).collect();
        let wanted_claims = wanted_claims(&grants);
        allowed_to_somebody.publish |= !rights.url_keys.is_empty();
        allowed_to_somebody.subscribe |= !rights.url_keys.is_empty();
        for jwt in &rights.jwts {
            // Which of them a token gives, it says itself.
            allowed_to_somebody.publish = true;
            allowed_to_somebody.subscribe = true;
            allowed_to_somebody.observe |= jwt.may_manage;
            allowed_to_somebody.manage |= jwt.may_manage;
        }
        let mut open = Kinds::default();
        if grants.is_empty() {
            open.add(&everybody);
        }
        AccessPolicy {
            open,
            #[cfg(feature = "jwt")]
            url_keys: (!rights.url_keys.is_empty()).then(|| {
                let keys = UrlKeys::new(&rights.url_keys, rights.signed_url_age_max_ms);
                (Arc::new(keys), counts.of_source(Source::SIGNED_URL))
            }),
            #[cfg(feature = "jwt")]
            signed: SignedTokens::new(&rights.jwts, &wanted_claims, &counts).map(Arc::new),
            everybody: Rights::from_lists(&everybody).unwrap_or_else(|_| Rights::none()),
            wanted_claims,
            query_token: rights.query_token,
            cookie: rights.cookie.as_deref().map(Into::into),
            allowed_to_somebody,
            of_tokens: counts.of_source("token"),
            of_anonymous: counts.of_source("anonymous"),
            tokens,
            grants,
            lives: Lives::of(rights),
            counts,
        }
    }

    /// This policy beside a hook, which may allow anything to somebody.
    #[must_use]
    pub fn beside_hook(mut self) -> AccessPolicy {
        self.allowed_to_somebody = Kinds {
            publish: true,
            subscribe: true,
            observe: true,
            manage: true,
        };
        self
    }

    /// Longest lives of its credentials.
    pub(super) fn lives(&self) -> &Lives {
        &self.lives
    }

    /// Counts of what became of credentials.
    pub fn counts(&self) -> Arc<AuthCounts> {
        Arc::clone(&self.counts)
    }

    /// Names of the claims that grants and their patterns ask for.
    pub fn wanted_claims(&self) -> &[Box<str>] {
        &self.wanted_claims
    }

    /// Whether anybody can show a credential. Where nobody can, nobody looks for one.
    pub(super) fn has_sources(&self) -> bool {
        #[cfg(feature = "jwt")]
        if self.signed.is_some() || self.url_keys.is_some() {
            return true;
        }
        !self.tokens.is_empty()
    }

    /// Whether tokens of this issuer are taken.
    pub(super) fn has_issuer(&self, name: &str) -> bool {
        #[cfg(feature = "jwt")]
        if let Some(signed) = &self.signed {
            return signed.has_issuer(name);
        }
        let _ = name;
        false
    }

    /// Whether what this key signs is taken.
    pub(super) fn has_url_key(&self, key: UrlKeyMark) -> bool {
        #[cfg(feature = "jwt")]
        if let Some((keys, _)) = &self.url_keys {
            return keys.has(key);
        }
        let _ = key;
        false
    }

    /// Tokens of the issuers of the configuration. None: there is no issuer.
    #[cfg(feature = "jwt")]
    pub fn signed(&self) -> Option<&Arc<SignedTokens>> {
        self.signed.as_ref()
    }

    fn shown<'a>(
        &self,
        head: HeadView<'a>,
        request: &RequestFacts<'_>,
    ) -> Result<Shown<'a>, Denied> {
        let cookie = self.cookie.as_deref().filter(|_| request.cookie_counts);
        shown(head, cookie)
    }

    /// The token that a request shows, if it shows one as it should.
    pub(super) fn shown_token<'a>(
        &self,
        head: HeadView<'a>,
        request: &RequestFacts<'_>,
    ) -> Option<Cow<'a, str>> {
        match self.shown(head, request) {
            Ok(Shown::Token(token, _)) => Some(token),
            Ok(Shown::Nothing) | Err(_) => None,
        }
    }

    /// Caller of a request.
    ///
    /// # Errors
    /// It shows a credential that is wrong, whatever it asks for.
    pub(super) fn authenticate(
        &self,
        head: HeadView<'_>,
        request: &RequestFacts<'_>,
    ) -> Result<Caller<'static>, Denied> {
        if !self.has_sources() {
            return Ok(Caller::Anonymous);
        }
        let shown = self.shown(head, request)?;
        if let Some(identity) = self.identify_by_url(head, request)? {
            return match shown {
                Shown::Token(_, Place::Head | Place::Query) => Err(Denied::Malformed(
                    "the request shows a token and a signed URL: send one of them".into(),
                )),
                Shown::Token(_, Place::Cookie) | Shown::Nothing => Ok(Caller::Known(identity)),
            };
        }
        let (token, place) = match shown {
            Shown::Nothing => return Ok(Caller::Anonymous),
            Shown::Token(token, place) => (token, place),
        };
        let now_ms = request.now_ms;
        let identity = self.identify(&token, now_ms)?;
        if place == Place::Query {
            if !self.may_stand_in_url(&identity) {
                return Err(Denied::Invalid(TokenFault::InUrl));
            }
            if !IS_URL_WARNED.swap(true, Ordering::Relaxed) {
                log::warn!(
                    "a token was shown in a URL, where proxies and browsers keep it; a header, a subprotocol or the first \
                     message is safer"
                );
            }
        }
        Ok(Caller::Known(identity))
    }

    /// Whoever shows a signed URL.
    #[cfg(feature = "jwt")]
    fn identify_by_url(
        &self,
        head: HeadView<'_>,
        request: &RequestFacts<'_>,
    ) -> Result<Option<Arc<Identity>>, Denied> {
        let is_shown = self.judges_signature(head)?;
        let (Some((keys, counts)), true) = (&self.url_keys, is_shown) else {
            return Ok(None);
        };
        let query = head.target.split_once('?').map_or("", |(_, query)| query);
        let found = keys.identify(query, request.asked, request.now_ms);
        match &found {
            Ok(Some(_)) => counts.add(AuthResult::Ok),
            Err(Denied::Invalid(fault)) => counts.add(fault.result()),
            Ok(None) | Err(_) => {}
        }
        found
    }

    /// Whoever shows a signature for a topic, beside who it is already.
    #[cfg(feature = "jwt")]
    pub(super) fn identify_signed(
        &self,
        caller: &Caller<'_>,
        topic: &str,
        signature: &TopicSignature,
        now_ms: u64,
    ) -> Result<Arc<Identity>, Denied> {
        let Some((keys, counts)) = &self.url_keys else {
            return Err(Denied::Invalid(TokenFault::Invalid));
        };
        let found = keys.identify_signed(topic, signature, now_ms);
        let found = found.and_then(|identity| match identity.subject() {
            // It names nobody: whoever shows it stays who it is.
            Some(subject) if caller.subject() != Some(subject) => {
                Err(Denied::Invalid(TokenFault::Invalid))
            }
            _ => Ok(identity),
        });
        match &found {
            Ok(_) => counts.add(AuthResult::Ok),
            Err(Denied::Invalid(fault)) => counts.add(fault.result()),
            Err(_) => {}
        }
        found
    }

    /// Nobody: this library was built without signatures.
    #[cfg(not(feature = "jwt"))]
    pub(super) fn identify_signed(
        &self,
        _: &Caller<'_>,
        _: &str,
        _: &TopicSignature,
        _: u64,
    ) -> Result<Arc<Identity>, Denied> {
        Err(Denied::Invalid(TokenFault::Invalid))
    }

    /// Nobody: this library was built without signatures.
    #[cfg(not(feature = "jwt"))]
    fn identify_by_url(
        &self,
        _: HeadView<'_>,
        _: &RequestFacts<'_>,
    ) -> Result<Option<Arc<Identity>>, Denied> {
        Ok(None)
    }

    /// Whether a token may be shown in the query, where proxies log it.
    fn may_stand_in_url(&self, identity: &Identity) -> bool {
        let life_ms = || {
            let issued_ms = identity.issued_at()?.checked_mul(1000)?;
            identity.expires_at_ms()?.checked_sub(issued_ms)
        };
        match self.query_token {
            QueryToken::Allow => true,
            QueryToken::Short => {
                identity.credential().is_none()
                    && life_ms().is_some_and(|life| life <= QUERY_LIFE_MAX_MS)
            }
            QueryToken::Off => false,
        }
    }

    /// Whether a cookie can be a credential here.
    pub(super) fn takes_cookies(&self) -> bool {
        self.cookie.is_some() && self.has_sources()
    }

    /// Whether a token is static, or was verified before.
    pub(super) fn is_known_token(&self, token: &str, now_ms: u64) -> bool {
        #[cfg(feature = "jwt")]
        if let Some(signed) = &self.signed
            && signed.issuers().is_cached(token, now_ms)
        {
            return true;
        }
        let _ = now_ms;
        self.tokens.contains_key(&TokenDigest::of(token))
    }

    /// Identity of a bearer token. It is looked for among the static tokens first.
    ///
    /// # Errors
    /// It is none of this server's, or not valid now.
    pub(super) fn identify(&self, token: &str, now_ms: u64) -> Result<Arc<Identity>, Denied> {
        let digest = TokenDigest::of(token);
        let fault = match self.tokens.get(&digest) {
            Some(identity) if identity.expires_at_ms().is_none_or(|end| now_ms < end) => {
                self.of_tokens.add(AuthResult::Ok);
                self.note_refused_templates(identity);
                return Ok(Arc::clone(identity));
            }
            Some(_) => TokenFault::Expired,
            None => {
                #[cfg(feature = "jwt")]
                if let Some(signed) = &self.signed {
                    let identity = signed.identify((token, digest), now_ms)?;
                    self.note_refused_templates(&identity);
                    return Ok(identity);
                }
                TokenFault::Invalid
            }
        };
        self.of_tokens.add(fault.result());
        Err(Denied::Invalid(fault))
    }

    /// Counts the rights that are not made for this identity.
    fn note_refused_templates(&self, identity: &Identity) {
        for part in self.parts(Some((identity, identity.rights()))) {
            if part.rights.has_variables() && !part.rights.can_be_filled(identity) {
                self.counts.refuse_template();
                log::debug!(
                    "rights of {} are not made: a variable of a pattern has no value that is a plain segment",
                    part.owner
                );
            }
        }
    }

    /// All rights that count for somebody, with their owners.
    fn parts<'p>(
        &'p self,
        own: Option<(&'p Identity, &'p Rights)>,
    ) -> impl Iterator<Item = Part<'p, Owner<'p>>> + Clone {
        let identity = own.map(|(identity, _)| identity);
        let own = own.map(|(identity, rights)| Part {
            owner: Owner::Own(identity.source()),
            rights,
            denies_only: false,
        });
        let everybody = Part {
            owner: Owner::Setting,
            rights: &self.everybody,
            denies_only: false,
        };
        // A signed URL gives exactly what it was signed for.
        let is_signed_url = identity.is_some_and(|it| matches!(it.source(), Source::SignedUrl(_)));
        let grants = self.grants.iter().enumerate();
        let grants = grants.filter(move |(_, grant)| grant.is_for(identity));
        let grants = grants.map(move |(index, grant)| Part {
            owner: Owner::Grant(index + 1),
            rights: grant.rights(),
            denies_only: is_signed_url,
        });
        own.into_iter().chain([everybody]).chain(grants)
    }

    /// The identity as the newest configuration has it. None: its static token, its issuer or its key is gone.
    pub(super) fn newest<'p>(&'p self, identity: &'p Arc<Identity>) -> Option<&'p Arc<Identity>> {
        match (identity.credential(), identity.source()) {
            (Some(digest), _) => self.tokens.get(&digest),
            (None, Source::Jwt(name)) => self.has_issuer(name).then_some(identity),
            (None, Source::SignedUrl(key)) => self.has_url_key(*key).then_some(identity),
            (None, Source::Program) => None,
            // An operator gave it other rights, and its token has no part in them.
            (None, Source::Token(_)) => Some(identity),
            // Each of these is asked about by somebody else: whoever gave it, or its own end.
            (None, Source::Hook | Source::Certificate | Source::Anonymous) => Some(identity),
        }
    }

    /// Answer to whether somebody may do something, with what decides. Whose static token is gone may what is open to
    /// those without one.
    ///
    /// # Errors
    /// Its credential does not count any more.
    pub(super) fn decide<'p>(
        &'p self,
        caller: &'p Caller<'_>,
        action: Action<'_>,
    ) -> Result<Decision<'p, Owner<'p>>, Denied> {
        let identity = match caller {
            Caller::Known(identity) => identity,
            Caller::Anonymous => return Ok(decide(&self.parts(None), action, &Nobody)),
            Caller::Unknown | Caller::Embedder(_) => {
                return Err(Denied::Invalid(TokenFault::Invalid));
            }
        };
        Ok(match self.newest(identity) {
            Some(newest) => self.decide_by(newest, action),
            None => decide(&self.parts(None), action, &Nobody),
        })
    }

    /// Decision about an identity, wherever it is from.
    pub(super) fn decide_by<'p>(
        &'p self,
        identity: &'p Identity,
        action: Action<'_>,
    ) -> Decision<'p, Owner<'p>> {
        decide(
            &self.parts(Some((identity, identity.rights()))),
            action,
            identity,
        )
    }

    /// Whether somebody may do something.
    pub(super) fn authorize(&self, caller: &Caller<'_>, action: Action<'_>) -> Result<(), Denied> {
        if matches!(caller, Caller::Anonymous) && self.open.has(action) {
            return Ok(());
        }
        let decision = self.decide(caller, action)?;
        let words = words_of(action);
        Err(match (decision, caller.identity()) {
            (Decision::Allowed(..), _) => return Ok(()),
            (_, Some(identity)) if self.newest(identity).is_none() => {
                Denied::Invalid(TokenFault::Revoked)
            }
            (_, None) if self.allowed_to_somebody.has(action) => Denied::Unauthenticated(
                match self.query_token {
                    QueryToken::Allow => format!(
                        "{words} needs a token: send it as Authorization: Bearer, or as ?token="
                    ),
                    _ => format!("{words} needs a token: send it as Authorization: Bearer"),
                }
                .into(),
            ),
            (_, None) => Denied::Forbidden(format!("{words} is closed to everybody here").into()),
            (Decision::Denied(owner, _), Some(_)) => Denied::InsufficientScope(
                format!("a deny of {owner} closes it, or a part of it").into(),
            ),
            (Decision::NotAllowed, Some(identity)) => {
                let owner = Owner::Own(identity.source());
                Denied::InsufficientScope(format!("{owner} does not allow {words}").into())
            }
        })
    }

    /// Counts a refusal that somebody was told.
    pub(super) fn count_refusal(&self, caller: &Caller<'_>, denied: &Denied) {
        let result = match denied {
            Denied::Unauthenticated(_) => AuthResult::Missing,
            Denied::Invalid(fault) => fault.result(),
            Denied::Forbidden(_) | Denied::InsufficientScope(_) => AuthResult::Forbidden,
            Denied::Unavailable(_) | Denied::UnavailableFor { .. } | Denied::TooMany { .. } => {
                AuthResult::Unavailable
            }
            Denied::Malformed(_) | Denied::Failed => return,
        };
        match caller.identity().map(|identity| identity.source()) {
            None => self.of_anonymous.add(result),
            Some(Source::Token(_)) => self.of_tokens.add(result),
            Some(source) => self.counts.of_source(source.label()).add(result),
        }
    }
}

/// Claims that grants and their patterns name.
fn wanted_claims(grants: &[Grant]) -> Box<[Box<str>]> {
    let asked = grants.iter().filter_map(Grant::claim).map(Box::from);
    let variables = grants.iter().flat_map(|grant| grant.rights().variables());
    let named = variables.filter_map(|variable| match &variable.name {
        VariableName::Claim(name) => Some(name.clone()),
        VariableName::Subject | VariableName::Meta(_) => None,
    });
    let mut names: Vec<Box<str>> = asked.chain(named).collect();
    names.sort_unstable();
    names.dedup();
    names.into()
}

#[cfg(test)]
mod tests;
