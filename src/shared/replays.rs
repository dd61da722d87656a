//! Answers to requests with an idempotency key. The same request again gets the same answer.
//!
//! They live in memory, for a bounded time, and each owner has a bounded number of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Answers that are remembered together.
const ANSWERS_MAX: usize = 65_536;

/// Answers that one owner has.
const ANSWERS_OF_OWNER_MAX: usize = 4096;

/// Time that an answer is remembered, in microseconds.
const AGE_US: u64 = 600_000_000;

/// Name of a request: its owner, its operation and its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplayKey {
    /// Subject, name of a token, or address of whoever asks.
    pub owner: Arc<str>,
    /// Number of the operation.
    pub operation: u16,
    /// Key of the request.
    pub key: Box<str>,
}

#[derive(Debug)]
struct Remembered {
    digest: [u8; 32],
    begun_us: u64,
    sequence: u64,
    /// None: the request is under way.
    answer: Option<(u16, Arc<[u8]>)>,
}

/// Verdict on a request with a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is the first one: it is carried out.
    New,
    /// It was carried out, with this status and body.
    Replay(u16, Arc<[u8]>),
    /// It is under way.
    Running,
    /// The key was used for another body.
    Other,
    /// No more are remembered now.
    Full,
}

/// Answers by request.
#[derive(Debug, Default)]
pub struct Replays {
    answers: HashMap<ReplayKey, Remembered>,
    order: BTreeMap<u64, ReplayKey>,
    /// Sequences of each owner's answers, the oldest first.
    owners: HashMap<Arc<str>, BTreeMap<u64, ()>>,
    next: u64,
}

impl Replays {
    /// Begins a request, whose body has this digest.
    pub fn begin(&mut self, key: &ReplayKey, digest: [u8; 32], now_us: u64) -> Begun {
        self.expire(now_us);
        if let Some(known) = self.answers.get(key) {
            return match &known.answer {
                _ if known.digest != digest => Begun::Other,
                None => Begun::Running,
                Some((status, body)) => Begun::Replay(*status, Arc::clone(body)),
            };
        }
        let own = self.owners.get(&key.owner).map_or(0, BTreeMap::len);
        let is_full = own >= ANSWERS_OF_OWNER_MAX || self.answers.len() >= ANSWERS_MAX;
        if is_full && !self.evict(&key.owner) {
            return Begun::Full;
        }
        let sequence = self.next;
        self.next += 1;
        self.order.insert(sequence, key.clone());
        let own = self.owners.entry(Arc::clone(&key.owner)).or_default();
        own.insert(sequence, ());
        let remembered = Remembered {
            digest,
            begun_us: now_us,
            sequence,
            answer: None,
        };
        self.answers.insert(key.clone(), remembered);
        Begun::New
    }

    /// Remembers the answer to a request that is under way.
    pub fn finish(&mut self, key: &ReplayKey, status: u16, body: &[u8]) {
        if let Some(remembered) = self.answers.get_mut(key) {
            remembered.answer = Some((status, body.into()));
        }
    }

    /// Forgets a request that was not carried out.
    pub fn forget(&mut self, key: &ReplayKey) {
        let Some(remembered) = self.answers.remove(key) else {
            return;
        };
        self.order.remove(&remembered.sequence);
        if let Some(own) = self.owners.get_mut(&key.owner) {
            own.remove(&remembered.sequence);
            if own.is_empty() {
                self.owners.remove(&key.owner);
            }
        }
    }

    fn expire(&mut self, now_us: u64) {
        while let Some((_, key)) = self.order.first_key_value() {
            let begun_us = self.answers.get(key).map_or(0, |it| it.begun_us);
            if begun_us + AGE_US > now_us {
                break;
            }
            let key = key.clone();
            self.forget(&key);
        }
    }

    /// Makes room by the oldest answer of an owner. False: it has none.
    fn evict(&mut self, owner: &Arc<str>) -> bool {
        let own = self.owners.get(owner).into_iter().flatten();
        let mut keys = own.filter_map(|(sequence, ())| self.order.get(sequence));
        let is_done = |key: &&ReplayKey| {
            let known = self.answers.get(*key);
            known.is_some_and(|it| it.answer.is_some())
        };
        match keys.find(is_done).cloned() {
            Some(key) => {
                self.forget(&key);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(owner: &str, key: &str) -> ReplayKey {
        ReplayKey {
            owner: owner.into(),
            operation: 1,
            key: key.into(),
        }
    }

    #[test]
    fn same_request_gets_same_answer_for_a_while() {
        let (mut replays, one) = (Replays::default(), key("a", "1"));
        assert_eq!(replays.begin(&one, [1; 32], 0), Begun::New);
        assert_eq!(replays.begin(&one, [1; 32], 1), Begun::Running);
        assert_eq!(replays.begin(&one, [2; 32], 1), Begun::Other);
        replays.finish(&one, 200, b"x");
        let replay = Begun::Replay(200, Arc::from(&b"x"[..]));
        assert_eq!(replays.begin(&one, [1; 32], AGE_US - 1), replay);
        assert_eq!(replays.begin(&key("b", "1"), [2; 32], 2), Begun::New);
        assert_eq!(replays.begin(&one, [2; 32], AGE_US), Begun::New);
        replays.forget(&one);
        replays.forget(&key("b", "1"));
        assert!(replays.answers.is_empty() && replays.order.is_empty());
        assert!(replays.owners.is_empty());
    }

    #[test]
    fn owner_makes_room_by_its_own_answers_alone() {
        let mut replays = Replays::default();
        for number in 0..ANSWERS_OF_OWNER_MAX {
            let key = key("a", &number.to_string());
            assert_eq!(replays.begin(&key, [0; 32], 0), Begun::New);
        }
        let next = key("a", "next");
        assert_eq!(replays.begin(&next, [0; 32], 0), Begun::Full);
        replays.finish(&key("a", "7"), 200, b"");
        assert_eq!(replays.begin(&next, [0; 32], 0), Begun::New);
        assert_eq!(replays.begin(&key("b", "1"), [0; 32], 0), Begun::New);
        assert_eq!(replays.answers.len(), ANSWERS_OF_OWNER_MAX + 1);
    }
}
