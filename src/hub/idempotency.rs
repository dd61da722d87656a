//! Idempotency keys: which publishes with a key were carried out, and where they stand.
//!
//! A shard keeps the keys of its topics' publishes for [`KeySettings::age_us`], the oldest first. All shards draw on one
//! [`KeyBudget`], of which each publisher may use up a part. A key is forgotten for its age alone: when the budget is used
//! up, publishes with a key are refused.
//!
//! ```text
//!  entries: [ oldest .. | .. | .. newest ]      in blocks, by number
//!  index:   digest of (publisher, topic, key) -> number
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::options::{Extras, PublishOptions};
use super::publication::{Kind, Position};
use crate::hash_index::HashIndex;
use crate::topic::Topic;

/// Bytes of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Entries of a block.
const BLOCK: usize = 256;

/// Numbers of entries, which begin again at 0. [`HashIndex`] has no place for the greatest number of 32 bits.
const NUMBERS: u32 = 1 << 31;

/// Bytes that a key counts as: its entry, and its cells in the index.
pub const KEY_BYTES: usize = size_of::<Entry>() + 16;

/// Bytes that a publisher counts as who has keys.
pub const PUBLISHER_BYTES: usize = 48;

/// Publisher as far as its keys are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Publisher([u8; 16]);

impl Publisher {
    /// The one who showed the credential with this digest.
    pub fn of_credential(digest: &[u8]) -> Publisher {
        Publisher(digest_of(&[b"credential", digest]))
    }

    /// The one with this subject, whatever the credential.
    pub fn of_subject(subject: &str) -> Publisher {
        Publisher(digest_of(&[b"subject", subject.as_bytes()]))
    }

    /// The one without a credential at an address. None: at the other end of a unix socket. Of an IPv6 address the first
    /// 64 bits count, for the others are the host's own choice.
    pub fn of_address(address: Option<IpAddr>) -> Publisher {
        Publisher(match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => digest_of(&[b"v4", &address.octets()]),
            Some(IpAddr::V6(address)) => digest_of(&[b"v6", &address.octets()[..8]]),
            None => digest_of(&[b"local"]),
        })
    }
}

/// Idempotency key as a request gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenKey {
    /// The key.
    pub text: Box<str>,
    /// It may be a repetition: when it was sent first, in microseconds on the process's clock.
    pub first_sent_us: Option<i64>,
}

/// Key of a publish that is carried out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Digest of who publishes, the topic and the key.
    scope: [u8; 16],
    /// Digest of the publication.
    body: u64,
    /// Digest of who publishes.
    publisher: u64,
    /// It may be a repetition: the earliest moment, in microseconds on the process's clock, at which it may have been sent
    /// before. Negative: before the process began.
    first_sent_us: Option<i64>,
}

impl IdempotencyKey {
    /// Key of a publish to a topic. `line`: the number of the line, where one key is that of many.
    pub fn new(
        publisher: Publisher,
        topic: &Topic,
        key: &str,
        line: Option<u32>,
    ) -> IdempotencyKey {
        let line = line.map_or([0; 8], |line| (u64::from(line) + 1).to_be_bytes());
        let name = topic.as_str().as_bytes();
        IdempotencyKey {
            scope: digest_of(&[&publisher.0, name, key.as_bytes(), &line]),
            body: 0,
            publisher: short(publisher.0),
            first_sent_us: None,
        }
    }

    /// Key of a publish by a request.
    pub fn of_request(
        publisher: Publisher,
        topic: &Topic,
        key: &GivenKey,
        line: Option<u32>,
    ) -> IdempotencyKey {
        IdempotencyKey {
            first_sent_us: key.first_sent_us,
            ..IdempotencyKey::new(publisher, topic, &key.text, line)
        }
    }

    /// The key with the digest of its message. That is as the publisher sent it: what a program makes of it may be something
    /// else each time.
    #[must_use]
    pub fn of(mut self, kind: Kind, payload: &[u8], options: &PublishOptions) -> IdempotencyKey {
        let kind: &[u8] = match kind {
            Kind::Text => b"text",
            Kind::Binary => b"binary",
        };
        let mut parts: Vec<&[u8]> = vec![kind, payload];
        let extras = options.extras();
        let text = |text: fn(&Extras) -> Option<&str>| extras.and_then(text).unwrap_or_default();
        parts.extend([
            options.given_content_type().unwrap_or_default().as_bytes(),
            text(|extras| extras.key.as_deref()).as_bytes(),
            text(|extras| extras.event.as_deref()).as_bytes(),
            text(|extras| extras.id.as_deref()).as_bytes(),
        ]);
        let ttl_ms = extras.and_then(|extras| extras.ttl_ms);
        let ttl_ms = ttl_ms.map_or([0xff; 8], u64::to_be_bytes);
        parts.push(&ttl_ms);
        // Tags have no order that says anything.
        let mut tags: Vec<_> = extras
            .map_or(&[][..], |extras| &extras.tags)
            .iter()
            .collect();
        tags.sort_unstable();
        parts.extend(
            tags.iter()
                .flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]),
        );
        if options.is_tombstone {
            parts.push(b"tombstone");
        }
        self.body = short(digest_of(&parts));
        self
    }

    /// The key of a publish that may be a repetition. It was not sent before this moment.
    #[must_use]
    pub fn sent_before(mut self, first_sent_us: i64) -> IdempotencyKey {
        self.first_sent_us = Some(first_sent_us);
        self
    }
}

/// SHA-256 of some parts, which are told apart by their lengths, cut to 128 bits.
fn digest_of(parts: &[&[u8]]) -> [u8; 16] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let digest: [u8; 32] = digest.finalize().into();
    let (first, _) = digest
        .split_first_chunk()
        .expect("32 bytes are 16 and more");
    *first
}

fn short(digest: [u8; 16]) -> u64 {
    (u128::from_be_bytes(digest) >> 64) as u64
}

/// Outcome of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has its place now.
    Placed,
    /// It was carried out before, and has its place since then.
    Duplicate,
    /// Its key is that of another publication. It is not carried out.
    KeyReused,
    /// There is no room for its key. It is not carried out.
    KeysFull,
    /// It may have been carried out before its key could be remembered, or its key may be forgotten. It is not carried out
    /// now.
    FateUnknown,
}

/// Settings of the keys of a shard.
#[derive(Clone, Debug)]
pub struct KeySettings {
    /// Microseconds that a key is remembered.
    pub age_us: u64,
    /// Moment from which on keys were remembered.
    pub since_us: u64,
    /// Room for keys, of all shards together.
    pub budget: Arc<KeyBudget>,
}

impl Default for KeySettings {
    /// A minute, and no room.
    fn default() -> KeySettings {
        KeySettings {
            age_us: 60_000_000,
            since_us: 0,
            budget: Arc::new(KeyBudget::new(0, 0)),
        }
    }
}

/// Room for the keys of all shards: bytes in all, and of each publisher.
#[derive(Debug)]
pub struct KeyBudget {
    bytes_total_max: usize,
    bytes_max: usize,
    bytes: AtomicUsize,
    /// How many keys each publisher has.
    keys: Mutex<HashMap<u64, u32>>,
}

impl KeyBudget {
    /// Room of so many bytes, and for each publisher.
    pub fn new(bytes_total_max: usize, bytes_max: usize) -> KeyBudget {
        KeyBudget {
            bytes_total_max,
            bytes_max,
            bytes: AtomicUsize::new(0),
            keys: Mutex::default(),
        }
    }

    /// Bytes that are used up.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u32>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for one key of a publisher. False: there is none.
    fn take(&self, publisher: u64) -> bool {
        let mut keys = self.lock();
        let known = keys.get(&publisher).copied().unwrap_or(0);
        let own = (known as usize + 1) * KEY_BYTES + PUBLISHER_BYTES;
        let more = KEY_BYTES + if known == 0 { PUBLISHER_BYTES } else { 0 };
        let bytes = self.bytes() + more;
        if own > self.bytes_max || bytes > self.bytes_total_max {
            return false;
        }
        keys.insert(publisher, known + 1);
        // All changes are made under the lock.
        self.bytes.store(bytes, Ordering::Relaxed);
        true
    }

    /// Gives back the room of some keys, by their publishers.
    fn give_back(&self, publishers: impl Iterator<Item = u64>) {
        let mut keys = self.lock();
        let mut bytes = self.bytes();
        for publisher in publishers {
            bytes -= KEY_BYTES;
            match keys.get_mut(&publisher) {
                Some(left) if *left > 1 => *left -= 1,
                _ => {
                    keys.remove(&publisher);
                    bytes -= PUBLISHER_BYTES;
                }
            }
        }
        if keys.len() < keys.capacity() / 4 {
            keys.shrink_to_fit();
        }
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// A publish that was carried out.
#[derive(Clone, Copy, Debug)]
struct Entry {
    scope: [u8; 16],
    body: u64,
    position: Position,
    publisher: u64,
    at_us: u64,
}

/// The keys of one shard's topics.
#[derive(Debug)]
pub(super) struct Idempotency {
    settings: KeySettings,
    blocks: VecDeque<Vec<Entry>>,
    /// Entries of the first block that are forgotten.
    skipped: usize,
    /// Number of the oldest entry.
    first: u32,
    len: usize,
    index: HashIndex,
    /// The latest moment that was heard of: commands may have waited.
    latest_us: u64,
}

impl Idempotency {
    /// No keys yet.
    pub fn new(settings: KeySettings) -> Idempotency {
        Idempotency {
            settings,
            blocks: VecDeque::new(),
            skipped: 0,
            first: 0,
            len: 0,
            index: HashIndex::default(),
            latest_us: 0,
        }
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn entry(&self, number: u32) -> Option<&Entry> {
        let place = self.skipped + (number.wrapping_sub(self.first) % NUMBERS) as usize;
        self.blocks.get(place / BLOCK)?.get(place % BLOCK)
    }

    /// Whether a publish is to be carried out. `at_us`: when it came. Of one that was carried out before, its position too.
    /// Takes the room for the key if it is to be; [`remember`](Idempotency::remember) has to follow.
    pub fn begin(&mut self, key: &IdempotencyKey, at_us: u64) -> (Outcome, Option<Position>) {
        self.latest_us = self.latest_us.max(at_us);
        let now_us = self.latest_us;
        let hash = self.index.hash(key.scope);
        let is_it = |number| self.entry(number).is_some_and(|it| it.scope == key.scope);
        let found = self.index.find(hash, is_it);
        if let Some(entry) = found.and_then(|number| self.entry(number))
            && !self.is_old(entry, now_us)
        {
            return match entry.body == key.body {
                true => (Outcome::Duplicate, Some(entry.position)),
                false => (Outcome::KeyReused, None),
            };
        }
        let first_us = key.first_sent_us.map_or(Ok(at_us), u64::try_from);
        let is_sure = |first_us| {
            let is_young = now_us - at_us.min(first_us) < self.settings.age_us;
            is_young && (first_us >= self.settings.since_us || key.first_sent_us.is_none())
        };
        if !first_us.is_ok_and(is_sure) {
            return (Outcome::FateUnknown, None);
        }
        if !self.settings.budget.take(key.publisher) {
            return (Outcome::KeysFull, None);
        }
        // One that is too old, and not forgotten yet, is found no more.
        if let Some(number) = found {
            self.index.remove(hash, number);
        }
        (Outcome::Placed, None)
    }

    /// Remembers where a publish stands. There is room for its key.
    pub fn remember(&mut self, key: &IdempotencyKey, position: Position, at_us: u64) {
        let entry = Entry {
            scope: key.scope,
            body: key.body,
            position,
            publisher: key.publisher,
            at_us,
        };
        if self.blocks.back().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push_back(Vec::with_capacity(BLOCK));
        }
        if let Some(block) = self.blocks.back_mut() {
            block.push(entry);
        }
        let number = (self.first + self.len as u32) % NUMBERS;
        self.len += 1;
        self.index.insert(self.index.hash(key.scope), number);
    }

    fn is_old(&self, entry: &Entry, now_us: u64) -> bool {
        now_us.saturating_sub(entry.at_us) >= self.settings.age_us
    }

    /// Forgets keys that are too old, at most so many.
    pub fn expire(&mut self, now_us: u64, keys_max: usize) {
        self.latest_us = self.latest_us.max(now_us);
        let mut forgotten = Vec::new();
        while forgotten.len() < keys_max
            && let Some(&entry) = self.entry(self.first)
            && self.is_old(&entry, self.latest_us)
        {
            self.forget_first(&entry);
            forgotten.push(entry.publisher);
        }
        if !forgotten.is_empty() {
            self.settings.budget.give_back(forgotten.into_iter());
        }
    }

    fn forget_first(&mut self, entry: &Entry) {
        let hash = self.index.hash(entry.scope);
        // A later publish with the same key may have taken its place in the index.
        if self
            .index
            .find(hash, |number| number == self.first)
            .is_some()
        {
            self.index.remove(hash, self.first);
        }
        self.first = (self.first + 1) % NUMBERS;
        self.len -= 1;
        self.skipped += 1;
        if self.skipped == BLOCK || self.len == 0 {
            self.blocks.pop_front();
            self.skipped = 0;
        }
    }
}

impl Drop for Idempotency {
    fn drop(&mut self) {
        let left = self.blocks.iter().flatten().skip(self.skipped);
        let publishers = left.map(|entry| entry.publisher);
        self.settings.budget.give_back(publishers);
    }
}

#[cfg(test)]
mod tests;
