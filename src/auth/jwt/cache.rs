//! Tokens judged before: a mass reconnect costs no signatures.
//!
//! It holds verified claims, never a verdict: time, keys and grants are asked at each hit. Of failures it holds wrong
//! signatures alone, for a short time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::claims::Claims;
use crate::auth::identity::TokenDigest;

/// Verified tokens that are kept.
pub const VERIFIED_MAX: usize = 65_536;

/// Bytes of their claims together, about.
pub const VERIFIED_BYTES_MAX: usize = 64 << 20;

/// Tokens with a wrong signature that are kept.
pub const FORGED_MAX: usize = 4096;

/// Milliseconds for which a wrong signature is remembered.
pub const FORGED_AGE_MS: u64 = 10_000;

/// Parts with a lock each.
const SHARDS: usize = 16;

/// Keys that judged a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JudgedBy {
    /// Number of the issuer.
    pub issuer: usize,
    /// Generation of its keys.
    pub generation: u64,
}

/// A verified token.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Keys that verified it.
    pub by: JudgedBy,
    /// End of the key, in milliseconds since 1970. None: it has none.
    pub key_until_ms: Option<u64>,
    /// Its claims.
    pub claims: Arc<Claims>,
}

/// Earlier judgement of a token.
#[derive(Debug)]
pub enum Known {
    /// Its claims, by these keys.
    Verified(Entry),
    /// Its signature was wrong by these keys.
    Forged(JudgedBy),
}

/// Cache of tokens, for all threads.
#[derive(Debug, Default)]
pub struct Cache {
    shards: [Mutex<Shard>; SHARDS],
}

/// Two generations: what is used comes into the young one, and when that is full, the old one goes.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<TokenDigest, Entry>,
    old: HashMap<TokenDigest, Entry>,
    young_bytes: usize,
    /// Wrong signatures, each with the time at which it is forgotten.
    forged: HashMap<TokenDigest, (JudgedBy, u64)>,
}

impl Cache {
    fn with<T>(&self, token: TokenDigest, work: impl FnOnce(&mut Shard) -> T) -> T {
        let shard = usize::from(token.as_bytes()[0]) % SHARDS;
        let mut shard = self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        work(&mut shard)
    }

    /// Earlier judgement of a token, at a time in milliseconds since 1970.
    pub fn get(&self, token: TokenDigest, now_ms: u64) -> Option<Known> {
        self.with(token, |shard| {
            if let Some(entry) = shard.young.get(&token) {
                return Some(Known::Verified(entry.clone()));
            }
            if let Some(entry) = shard.old.remove(&token) {
                shard.insert(token, entry.clone());
                return Some(Known::Verified(entry));
            }
            let (by, until_ms) = *shard.forged.get(&token)?;
            if until_ms <= now_ms {
                shard.forged.remove(&token);
                return None;
            }
            Some(Known::Forged(by))
        })
    }

    /// Keeps a verified token.
    pub fn put(&self, token: TokenDigest, entry: Entry) {
        self.with(token, |shard| shard.insert(token, entry));
    }

    /// Remembers a wrong signature. Where there are too many, it is verified again when it comes again.
    pub fn put_forged(&self, token: TokenDigest, by: JudgedBy, now_ms: u64) {
        self.with(token, |shard| {
            if shard.forged.len() >= FORGED_MAX / SHARDS {
                shard.forged.retain(|_, (_, until_ms)| *until_ms > now_ms);
            }
            if shard.forged.len() < FORGED_MAX / SHARDS {
                let until_ms = now_ms.saturating_add(FORGED_AGE_MS);
                shard.forged.insert(token, (by, until_ms));
            }
        });
    }

    /// Drops what is known of a token.
    pub fn remove(&self, token: TokenDigest) {
        self.with(token, |shard| {
            shard.young.remove(&token);
            shard.old.remove(&token);
            shard.forged.remove(&token);
        });
    }

    /// Number of verified tokens.
    pub fn len(&self) -> usize {
        let lock = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(lock).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Shard {
    fn insert(&mut self, token: TokenDigest, entry: Entry) {
        let bytes = entry.claims.bytes();
        let is_full = self.young.len() >= VERIFIED_MAX / SHARDS / 2
            || self.young_bytes + bytes > VERIFIED_BYTES_MAX / SHARDS / 2;
        if is_full {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(token, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::Rules;
    use super::*;

    const BY: JudgedBy = JudgedBy {
        issuer: 0,
        generation: 1,
    };

    fn digest(number: u32) -> TokenDigest {
        TokenDigest::of(&number.to_string())
    }

    fn entry(claims: &Arc<Claims>) -> Entry {
        Entry {
            by: BY,
            key_until_ms: None,
            claims: Arc::clone(claims),
        }
    }

    fn claims(meta_bytes: usize) -> Arc<Claims> {
        let meta = "m".repeat(meta_bytes);
        let payload = format!("{{\"sub\":\"1\",\"exp\":1,\"umbel\":{{\"meta\":\"{meta}\"}}}}");
        Arc::new(Claims::read(&payload, &Rules::default()).expect("claims"))
    }

    #[test]
    fn verified_tokens_are_bounded_and_used_ones_stay() {
        let cache = Cache::default();
        let small = claims(1);
        for number in 0..200_000 {
            cache.put(digest(number), entry(&small));
            // It is used all the time.
            assert!(matches!(cache.get(digest(0), 0), Some(Known::Verified(_))));
        }
        assert!(cache.len() <= VERIFIED_MAX);
        assert!(cache.len() >= VERIFIED_MAX / 3, "{}", cache.len());
        cache.remove(digest(0));
        assert!(cache.get(digest(0), 0).is_none());
        let large = claims(4000);
        for number in 0..40_000 {
            cache.put(digest(number), entry(&large));
        }
        assert!(cache.len() * 4000 <= VERIFIED_BYTES_MAX, "{}", cache.len());
    }

    #[test]
    fn wrong_signatures_are_forgotten() {
        let cache = Cache::default();
        let is_known = |number, now_ms| {
            let known = cache.get(digest(number), now_ms);
            matches!(known, Some(Known::Forged(by)) if by == BY)
        };
        cache.put_forged(digest(1), BY, 1000);
        assert!(is_known(1, 1000 + FORGED_AGE_MS - 1));
        assert!(!is_known(1, 1000 + FORGED_AGE_MS));
        for number in 0..10_000 {
            cache.put_forged(digest(number), BY, 2000);
        }
        let known = (0..10_000).filter(|number| is_known(*number, 2000)).count();
        assert!(
            (FORGED_MAX * 9 / 10..=FORGED_MAX).contains(&known),
            "{known}"
        );
    }
}
