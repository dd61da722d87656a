//! Source of identities: tokens of the issuers of the configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::claims::{Claims, ConnectionEnd};
use super::error::JwtError;
use super::issuer::{Issuer, Issuers, Keys, Refused, Verified};
use super::remote::RemoteKeys;
use super::rules::Rules;
use crate::auth::access::{Denied, TokenFault};
use crate::auth::counts::{AuthCounts, AuthResult, SourceCounts};
use crate::auth::identity::{Identity, IdentityParts, Source, TokenDigest};
use crate::auth::verdict::Pending;
use crate::config::{Jwt, JwtKeys};
use crate::signature::jwk::read_key_set;
use crate::signature::keys::{Key, KeySet};

/// Milliseconds between two lines of the log about tokens that are refused.
const LOG_INTERVAL_MS: u64 = 1000;

/// Tokens that are signed, and those who sign them.
#[derive(Debug)]
pub struct SignedTokens {
    issuers: Issuers,
    /// One for each issuer.
    sources: Vec<IssuerSource>,
    /// Counts of what is nobody's token.
    of_nobody: Arc<SourceCounts>,
    log: RefusalLog,
}

#[derive(Debug)]
struct IssuerSource {
    name: Arc<str>,
    subject_prefix: Box<str>,
    leeway_ms: u64,
    counts: Arc<SourceCounts>,
}

/// Limit for lines about tokens that are refused.
#[derive(Debug, Default)]
struct RefusalLog {
    next_ms: AtomicU64,
    left_out: AtomicU64,
}

impl RefusalLog {
    /// Number of refusals without a line since the last one. None: it is too early for another.
    fn turn(&self, now_ms: u64) -> Option<u64> {
        let order = Ordering::Relaxed;
        let next_ms = self.next_ms.load(order);
        let is_due = now_ms >= next_ms
            && self
                .next_ms
                .compare_exchange(next_ms, now_ms + LOG_INTERVAL_MS, order, order)
                .is_ok();
        if !is_due {
            self.left_out.fetch_add(1, order);
            return None;
        }
        Some(self.left_out.swap(0, order))
    }
}

fn rules_of(jwt: &Jwt, wanted_claims: &[Box<str>]) -> Rules {
    Rules {
        issuer: jwt.issuer.as_deref().map(Into::into),
        audience: jwt.audience.iter().map(|it| it.as_str().into()).collect(),
        token_type: jwt.token_type.as_deref().map(Into::into),
        leeway_ms: jwt.leeway_ms,
        require: jwt.require.clone(),
        claims_at: jwt.claims_at.as_str().into(),
        kept: wanted_claims.to_vec(),
        token_bytes_max: jwt.token_bytes_max as usize,
        life_max_ms: jwt.life_max_ms,
        may_manage: jwt.may_manage,
        may_outlive: jwt.may_outlive,
        ..Rules::default()
    }
}

/// Keys of an issuer. What cannot stand was an error of the configuration, and verifies nothing.
fn keys_of(jwt: &Jwt) -> Keys {
    let algorithms = &jwt.algorithms;
    let keys = match &jwt.keys {
        None => Vec::new(),
        Some(JwtKeys::Secret {
            current,
            previous,
            previous_until,
        }) => {
            let key = |secret: &str| Key::secret(secret.as_bytes(), algorithms);
            let until_ms = previous_until.map(|until| until.saturating_mul(1000));
            let previous = previous.as_ref();
            let previous = previous.map(|previous| key(previous.expose()).until_ms(until_ms));
            [key(current.expose())]
                .into_iter()
                .chain(previous)
                .collect()
        }
        Some(JwtKeys::PublicKey(pem)) => Key::from_pem(pem.as_bytes(), algorithms)
            .into_iter()
            .collect(),
        Some(JwtKeys::KeySet(text)) => read_file_set(jwt, text),
        Some(JwtKeys::KeySetFile { text, .. }) => {
            let keys = RemoteKeys::of(jwt);
            if keys.set().is_none() {
                keys.put(Arc::new(KeySet::new(1, read_file_set(jwt, text))));
            }
            return Keys::Polled(keys);
        }
        Some(JwtKeys::Url { .. }) => return Keys::Remote(RemoteKeys::of(jwt)),
    };
    Keys::Configured(Arc::new(KeySet::new(0, keys)))
}

fn read_file_set(jwt: &Jwt, text: &str) -> Vec<Key> {
    let read = read_key_set(text.as_bytes(), &jwt.algorithms).unwrap_or_default();
    for warning in &read.warnings {
        log::warn!("jwks_file of {}: {warning}", jwt.name);
    }
    read.keys
}

impl SignedTokens {
    /// Tokens of these issuers. None: there are none.
    pub fn new(
        jwts: &[Jwt],
        wanted_claims: &[Box<str>],
        counts: &AuthCounts,
    ) -> Option<SignedTokens> {
        if jwts.is_empty() {
            return None;
        }
        let issuers = jwts.iter().map(|jwt| Issuer {
            name: jwt.name.as_str().into(),
            algorithms: jwt.algorithms.clone(),
            keys: keys_of(jwt),
            rules: rules_of(jwt, wanted_claims),
        });
        let sources = jwts.iter().map(|jwt| IssuerSource {
            name: jwt.name.as_str().into(),
            subject_prefix: jwt.subject_prefix.as_deref().unwrap_or_default().into(),
            leeway_ms: jwt.leeway_ms,
            counts: counts.of_source(&jwt.name),
        });
        Some(SignedTokens {
            issuers: Issuers::new(issuers.collect()).counted_by(counts.verified_bytes()),
            sources: sources.collect(),
            of_nobody: counts.of_source("token"),
            log: RefusalLog::default(),
        })
    }

    /// Issuers, and the cache of their tokens.
    pub fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// Wait for the keys of a token that cannot be judged without. None: it can be, or no keys come soon.
    pub fn wait_for_keys(&self, token: &str, now_ms: u64) -> Option<Pending> {
        self.issuers.wait_for_keys(token, now_ms)
    }

    /// Whether a token says that it is of one of the issuers.
    pub fn takes(&self, token: &str) -> bool {
        self.issuers.takes(token.as_bytes())
    }

    /// Whether there is an issuer of this name.
    pub fn has_issuer(&self, name: &str) -> bool {
        self.sources.iter().any(|source| *source.name == *name)
    }

    /// Identity of a token. The time is in milliseconds of the Unix epoch.
    ///
    /// # Errors
    /// It is refused, or cannot be judged now.
    pub fn identify(
        &self,
        token: (&str, TokenDigest),
        now_ms: u64,
    ) -> Result<Arc<Identity>, Denied> {
        let identity = self.judge(token, now_ms);
        identity.map_err(|refused| self.refuse(&refused, now_ms))
    }

    /// Judges a token, and counts what is good. For those who can wait for keys; the others [`identify`](Self::identify).
    ///
    /// # Errors
    /// It is refused, or cannot be judged now. It is not counted, and no line is logged, before [`refuse`](Self::refuse).
    pub fn judge(&self, token: (&str, TokenDigest), now_ms: u64) -> Result<Arc<Identity>, Refused> {
        let Verified { issuer, claims, .. } = self.issuers.verify_digested(token, now_ms)?;
        let source = &self.sources[issuer];
        let identity = identity_of(source, &claims).map_err(|error| Refused {
            issuer: Some(issuer),
            error,
        })?;
        source.counts.add(AuthResult::Ok);
        Ok(identity)
    }

    /// Counts a refusal, and gives the peer's answer. The check that failed is logged, at most once a second.
    pub fn refuse(&self, refused: &Refused, now_ms: u64) -> Denied {
        let source = refused.issuer.and_then(|issuer| self.sources.get(issuer));
        let counts = source.map_or(&self.of_nobody, |source| &source.counts);
        let error = &refused.error;
        let denied = match error {
            JwtError::Expired => Denied::Invalid(TokenFault::Expired),
            JwtError::NotBefore | JwtError::IssuedInFuture => {
                Denied::Invalid(TokenFault::NotYetValid)
            }
            error if error.is_undecided() => {
                Denied::Unavailable("the keys of the token's issuer are not there yet".into())
            }
            _ => Denied::Invalid(TokenFault::Invalid),
        };
        counts.add(match &denied {
            Denied::Invalid(fault) => fault.result(),
            _ => AuthResult::Unavailable,
        });
        if let Some(left_out) = self.log.turn(now_ms) {
            let of = source.map_or("nobody", |source| &source.name);
            let check = error.check();
            match left_out {
                0 => log::warn!("a token of {of} is refused by {check}: {error}"),
                _ => log::warn!(
                    "a token of {of} is refused by {check}: {error} ({left_out} more refusals since the last line)"
                ),
            }
        }
        denied
    }
}

fn identity_of(source: &IssuerSource, claims: &Claims) -> Result<Arc<Identity>, JwtError> {
    let ends_ms = |seconds: u64| seconds.saturating_mul(1000);
    let expires_at_ms = match claims.connection_end {
        Some(ConnectionEnd::Never) => None,
        Some(ConnectionEnd::At(seconds)) => Some(ends_ms(seconds)),
        // Whoever was let in within the leeway is not thrown out at once.
        None => claims
            .expires_at
            .map(|seconds| ends_ms(seconds).saturating_add(source.leeway_ms)),
    };
    let prefix = &source.subject_prefix;
    let subject = claims.subject.as_deref();
    let subject = subject.map(|subject| match &**prefix {
        "" => subject.into(),
        prefix => format!("{prefix}{subject}").into(),
    });
    let identity = Identity::new(IdentityParts {
        subject,
        token_id: claims.token_id.clone(),
        issued_at: claims.issued_at,
        expires_at_ms,
        rights: claims.rights.clone(),
        info: claims.info.clone(),
        meta: claims.meta.clone(),
        roles: claims.roles.clone(),
        claims: claims.kept.clone(),
        join: claims.join.clone(),
        limits: claims.limits,
        ..IdentityParts::of(Source::Jwt(Arc::clone(&source.name)))
    });
    identity.map_err(|error| JwtError::Claims(error.to_string().into()))
}
