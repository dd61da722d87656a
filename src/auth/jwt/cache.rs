//! Tokens judged before: a mass reconnect costs no signatures.
//!
//! It holds verified claims, never a verdict: time, keys and grants are asked at each hit. Of failures it holds wrong
//! signatures alone, for a short time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// Bytes of this cache, and of those before it that are still in use.
    bytes: Arc<AtomicUsize>,
}

/// Two generations: what is used comes into the young one, and when that is full, the old one goes.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<TokenDigest, Entry>,
    old: HashMap<TokenDigest, Entry>,
    young_bytes: usize,
    old_bytes: usize,
    /// Wrong signatures, each with the time at which it is forgotten.
    forged: HashMap<TokenDigest, (JudgedBy, u64)>,
}

impl Cache {
    /// An empty cache, whose bytes are counted there.
    pub fn counted_by(bytes: Arc<AtomicUsize>) -> Cache {
        Cache {
            shards: Default::default(),
            bytes,
        }
    }

    fn with<T>(&self, token: TokenDigest, work: impl FnOnce(&mut Shard) -> T) -> T {
        let shard = usize::from(token.as_bytes()[0]) % SHARDS;
        let mut shard = self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = shard.bytes();
        let outcome = work(&mut shard);
        let change = shard.bytes().wrapping_sub(before);
        if change != 0 {
            self.bytes.fetch_add(change, Ordering::Relaxed);
        }
        outcome
    }

    /// Earlier judgement of a token, at a time in milliseconds since 1970.
    pub fn get(&self, token: TokenDigest, now_ms: u64) -> Option<Known> {
        self.with(token, |shard| {
            if let Some(entry) = shard.young.get(&token) {
                return Some(Known::Verified(entry.clone()));
            }
            if let Some(entry) = shard.take_old(token) {
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
            if let Some(entry) = shard.young.remove(&token) {
                shard.young_bytes -= entry.claims.bytes();
            }
            shard.take_old(token);
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

impl Drop for Cache {
    fn drop(&mut self) {
        let bytes = |shard: &mut Mutex<Shard>| {
            let shard = shard.get_mut().unwrap_or_else(PoisonError::into_inner);
            shard.bytes()
        };
        let bytes = self.shards.iter_mut().map(bytes).sum();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Shard {
    fn insert(&mut self, token: TokenDigest, entry: Entry) {
        let bytes = entry.claims.bytes();
        let is_full = self.young.len() >= VERIFIED_MAX / SHARDS / 2
            || self.young_bytes + bytes > VERIFIED_BYTES_MAX / SHARDS / 2;
        if is_full {
            self.old = std::mem::take(&mut self.young);
            self.old_bytes = std::mem::take(&mut self.young_bytes);
        }
        self.young_bytes += bytes;
        if let Some(before) = self.young.insert(token, entry) {
            self.young_bytes -= before.claims.bytes();
        }
    }

    fn take_old(&mut self, token: TokenDigest) -> Option<Entry> {
        let entry = self.old.remove(&token)?;
        self.old_bytes -= entry.claims.bytes();
        Some(entry)
    }

    /// Bytes of its tables and of the claims in them.
    fn bytes(&self) -> usize {
        let places = self.young.capacity() + self.old.capacity();
        let forged = self.forged.capacity() * size_of::<(TokenDigest, (JudgedBy, u64))>();
        places * size_of::<(TokenDigest, Entry)>() + forged + self.young_bytes + self.old_bytes
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
    fn bytes_are_those_of_all_caches_in_use() {
        let total = Arc::new(AtomicUsize::new(0));
        let bytes = || total.load(Ordering::Relaxed);
        let cache = Cache::counted_by(Arc::clone(&total));
        let large = claims(4000);
        for number in 0..300 {
            cache.put(digest(number), entry(&large));
            cache.put(digest(number), entry(&large));
            cache.put_forged(digest(number + 1000), BY, 0);
        }
        let kept = 300 * large.bytes();
        assert!(kept < bytes() && bytes() < kept * 5 / 4, "{}", bytes());
        let next = Cache::counted_by(Arc::clone(&total));
        next.put(digest(1), entry(&large));
        drop(cache);
        assert!(
            (large.bytes()..2 * large.bytes()).contains(&bytes()),
            "{}",
            bytes()
        );
        next.remove(digest(1));
        assert!(bytes() < large.bytes());
        drop(next);
        assert_eq!(bytes(), 0);
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
