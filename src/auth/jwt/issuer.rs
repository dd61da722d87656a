//! Issuers of tokens, and the order in which a token is judged.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::cache::{Cache, Entry, JudgedBy, Known};
use super::claims::Claims;
use super::compact::{Compact, Header};
use super::error::JwtError;
use super::remote::RemoteKeys;
use super::rules::Rules;
use crate::auth::identity::TokenDigest;
use crate::auth::verdict::Pending;
use crate::signature::algorithm::Algorithm;
use crate::signature::keys::{KeyError, KeySet};

/// One `[[jwt]]`.
#[derive(Debug)]
pub struct Issuer {
    /// Name in logs, metrics and grants.
    pub name: Box<str>,
    /// Algorithms that its tokens may have.
    pub algorithms: Vec<Algorithm>,
    /// Keys that verify its tokens. They are never those of another issuer.
    pub keys: Keys,
    /// Rules for its tokens.
    pub rules: Rules,
}

/// Keys of an issuer.
#[derive(Clone, Debug)]
pub enum Keys {
    /// Those of the configuration.
    Configured(Arc<KeySet>),
    /// Those that are fetched.
    Remote(Arc<RemoteKeys>),
    /// Those of a file, which may change.
    Polled(Arc<RemoteKeys>),
}

/// All issuers that tokens are taken from.
#[derive(Debug, Default)]
pub struct Issuers {
    all: Vec<Issuer>,
    by_name: HashMap<Box<str>, usize>,
    /// The one without an `issuer`, which gets what is no other's.
    other: Option<usize>,
    token_bytes_max: usize,
    cache: Cache,
}

/// A token whose signature is verified, and whose claims nobody has read.
#[derive(Debug)]
pub struct Opened {
    /// Keys that verified it.
    pub by: JudgedBy,
    /// End of the key, in milliseconds since 1970. None: it has none.
    pub key_until_ms: Option<u64>,
    /// Header.
    pub header: Header,
    /// Payload, which may be any JSON object.
    pub payload: String,
}

/// A token that is taken.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Number of its issuer.
    pub issuer: usize,
    /// Generation of the keys that verified it.
    pub generation: u64,
    /// Its claims.
    pub claims: Arc<Claims>,
}

impl Verified {
    fn of(entry: Entry) -> Verified {
        Verified {
            issuer: entry.by.issuer,
            generation: entry.by.generation,
            claims: entry.claims,
        }
    }
}

/// A token that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Number of the issuer that it names. It may be forged.
    pub issuer: Option<usize>,
    /// Reason.
    pub error: JwtError,
}

impl Issuers {
    /// These issuers. At most one has no `issuer`, and no two have the same.
    #[must_use]
    pub fn new(all: Vec<Issuer>) -> Issuers {
        let named = all.iter().enumerate();
        let named = named.filter_map(|(at, it)| Some((it.rules.issuer.clone()?, at)));
        Issuers {
            by_name: named.collect(),
            other: all.iter().position(|it| it.rules.issuer.is_none()),
            token_bytes_max: all
                .iter()
                .map(|it| it.rules.token_bytes_max)
                .max()
                .unwrap_or(0),
            all,
            cache: Cache::default(),
        }
    }

    /// These issuers with an empty cache.
    ///
    /// The bytes of its tokens are counted there.
    #[must_use]
    pub fn counted_by(self, bytes: Arc<AtomicUsize>) -> Issuers {
        let cache = Cache::counted_by(bytes);
        Issuers { cache, ..self }
    }

    /// An issuer by its number.
    #[must_use]
    pub fn get(&self, issuer: usize) -> Option<&Issuer> {
        self.all.get(issuer)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Issuer> {
        self.all.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether there are keys that have to be fetched.
    #[must_use]
    pub fn fetches_keys(&self) -> bool {
        self.all.iter().any(|it| matches!(it.keys, Keys::Remote(_)))
    }

    /// Wait for the keys of a token that cannot be judged without. None: it can be, or no keys come soon.
    pub fn wait_for_keys(&self, token: &str, now_ms: u64) -> Option<Pending> {
        if !self.fetches_keys() {
            return None;
        }
        let refused = self.verify(token, now_ms).err()?;
        if !refused.error.is_undecided() {
            return None;
        }
        match &self.all.get(refused.issuer?)?.keys {
            Keys::Remote(keys) => keys.wait(kid_of(token).as_deref(), now_ms),
            Keys::Configured(_) | Keys::Polled(_) => None,
        }
    }

    /// Whether a token names one of them. Where one has no name, all tokens are theirs.
    #[must_use]
    pub fn takes(&self, token: &[u8]) -> bool {
        match Compact::read(token, self.token_bytes_max) {
            Ok(compact) => {
                let named = compact.issuer.as_deref();
                self.other.is_some() || named.is_some_and(|name| self.by_name.contains_key(name))
            }
            Err(_) => false,
        }
    }

    /// Whether a token was verified before, and so costs next to nothing.
    pub fn is_cached(&self, token: &str, now_ms: u64) -> bool {
        let known = self.cache.get(TokenDigest::of(token), now_ms);
        matches!(known, Some(Known::Verified(_)))
    }

    /// Judges a token, by what was found out before. The time is in milliseconds since 1970.
    ///
    /// # Errors
    /// It is refused, or cannot be decided yet.
    pub fn verify(&self, token: &str, now_ms: u64) -> Result<Verified, Refused> {
        self.verify_digested((token, TokenDigest::of(token)), now_ms)
    }

    /// As [`verify`](Self::verify), of a token whose digest is known.
    ///
    /// # Errors
    /// As there.
    pub fn verify_digested(
        &self,
        (token, digest): (&str, TokenDigest),
        now_ms: u64,
    ) -> Result<Verified, Refused> {
        match self.cache.get(digest, now_ms) {
            Some(Known::Verified(entry))
                if self.is_current(entry.by, entry.key_until_ms, now_ms) =>
            {
                let issuer = entry.by.issuer;
                let in_time = entry.claims.check_time(&self.all[issuer].rules, now_ms);
                return match in_time {
                    Ok(()) => Ok(Verified::of(entry)),
                    Err(error) => Err(Refused {
                        issuer: Some(issuer),
                        error,
                    }),
                };
            }
            Some(Known::Forged(by)) if self.is_current(by, None, now_ms) => {
                return Err(Refused {
                    issuer: Some(by.issuer),
                    error: JwtError::Signature,
                });
            }
            Some(_) => self.cache.remove(digest),
            None => {}
        }
        let judged = self.judge(token.as_bytes(), now_ms);
        match &judged {
            Ok(entry) => self.cache.put(digest, entry.clone()),
            Err(Refused {
                issuer: Some(issuer),
                error: JwtError::Signature,
            }) => {
                if let Some(set) = self.all[*issuer].keys.set() {
                    let by = JudgedBy {
                        issuer: *issuer,
                        generation: set.generation(),
                    };
                    self.cache.put_forged(digest, by, now_ms);
                }
            }
            Err(_) => {}
        }
        judged.map(Verified::of)
    }

    /// Whether these are still the issuer's keys.
    fn is_current(&self, by: JudgedBy, until_ms: Option<u64>, now_ms: u64) -> bool {
        let set = self.all[by.issuer].keys.set();
        set.is_some_and(|set| set.generation() == by.generation)
            && until_ms.is_none_or(|until| now_ms < until)
    }

    /// Judges a token whatever was found out before. The time is in milliseconds since 1970.
    ///
    /// # Errors
    /// It is refused, or cannot be decided yet.
    pub fn judge(&self, token: &[u8], now_ms: u64) -> Result<Entry, Refused> {
        let opened = self.open(token, now_ms)?;
        let rules = &self.all[opened.by.issuer].rules;
        let claims = Claims::read(&opened.payload, rules);
        let claims = claims.and_then(|claims| {
            claims.check_time(rules, now_ms)?;
            Ok(Arc::new(claims))
        });
        let claims = claims.map_err(|error| Refused {
            issuer: Some(opened.by.issuer),
            error,
        })?;
        Ok(Entry {
            by: opened.by,
            key_until_ms: opened.key_until_ms,
            claims,
        })
    }

    /// Verifies a token's signature. Its claims are for the reader of their dialect.
    ///
    /// The order is that of cost, and nothing of the payload but `iss` is looked at before the signature is verified.
    ///
    /// # Errors
    /// It is refused, or cannot be decided yet.
    pub fn open(&self, token: &[u8], now_ms: u64) -> Result<Opened, Refused> {
        let unknown = |error| Refused {
            issuer: None,
            error,
        };
        let compact = Compact::read(token, self.token_bytes_max).map_err(unknown)?;
        let named = compact.issuer.as_deref();
        let named = named.and_then(|name| self.by_name.get(name).copied());
        let number = named.or(self.other);
        let number = number.ok_or_else(|| unknown(JwtError::UnknownIssuer))?;
        let verified = self.all[number].verify(token.len(), &compact, now_ms);
        let (generation, key_until_ms) = verified.map_err(|error| Refused {
            issuer: Some(number),
            error,
        })?;
        Ok(Opened {
            by: JudgedBy {
                issuer: number,
                generation,
            },
            key_until_ms,
            header: compact.header,
            payload: compact.payload,
        })
    }
}

impl Issuer {
    /// Verifies the signature. Gives the generation of the keys, and the end of the one that fits.
    fn verify(
        &self,
        bytes: usize,
        token: &Compact<'_>,
        now_ms: u64,
    ) -> Result<(u64, Option<u64>), JwtError> {
        if bytes > self.rules.token_bytes_max {
            return Err(JwtError::Length);
        }
        let header = &token.header;
        let algorithm = header.algorithm.ok_or(JwtError::UnknownAlgorithm)?;
        if !self.algorithms.contains(&algorithm) {
            return Err(JwtError::Algorithm(algorithm));
        }
        if let Some(wanted) = &self.rules.token_type
            && !header.is_type(wanted)
        {
            return Err(JwtError::Type);
        }
        let set = self.keys.set().ok_or(JwtError::KeysUnavailable)?;
        let signed = (token.signed, &token.signature[..]);
        let kid = header.kid.as_deref();
        let verified = set.verify(algorithm, kid, signed, now_ms);
        let key_until_ms = verified.map_err(|error| match (error, &self.keys) {
            // A set that comes may have what this one lacks.
            (KeyError::Unknown, Keys::Remote(keys)) if kid.is_some_and(|kid| !set.has_kid(kid)) => {
                keys.want(kid.unwrap_or_default(), now_ms);
                JwtError::KeyNotKnownYet
            }
            (KeyError::Unknown, _) => JwtError::UnknownKey,
            (KeyError::Ambiguous, _) => JwtError::AmbiguousKey,
            (KeyError::Signature, _) => JwtError::Signature,
        })?;
        Ok((set.generation(), key_until_ms))
    }
}

/// Name of the key that a token is of. None: it has none.
fn kid_of(token: &str) -> Option<Box<str>> {
    let compact = Compact::read(token.as_bytes(), token.len()).ok()?;
    compact.header.kid.as_deref().map(Box::from)
}

impl Keys {
    /// The keys that there are now.
    #[must_use]
    pub fn set(&self) -> Option<Arc<KeySet>> {
        match self {
            Keys::Configured(set) => Some(Arc::clone(set)),
            Keys::Remote(keys) | Keys::Polled(keys) => keys.set(),
        }
    }
}
