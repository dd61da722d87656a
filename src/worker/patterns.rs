//! The table of patterns of the process, with its locks.
//!
//! Each part has its own. A publication takes those of two parts at most to read, and none of a part that is empty: so a
//! server without patterns takes none. Whoever subscribes has the entry in the table when [`SharedPatterns::subscribe`]
//! returns, so that every publication that is placed afterwards is matched.

use std::sync::PoisonError;

use crate::hub::patterns::{MatchPatterns, PATTERN_PARTS, PatternPart, part_of, parts_of};
use crate::hub::{LocalTopic, ReactorId};
use crate::sync::RwLock;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::topic::{Pattern, Topic};

/// The table, which all threads share.
pub struct SharedPatterns {
    parts: Box<[Part]>,
    /// Patterns in all parts.
    len: AtomicUsize,
    /// Bytes that they count as.
    bytes: AtomicUsize,
}

struct Part {
    patterns: RwLock<PatternPart>,
    /// Patterns in it. Written with the lock held, and read without it.
    len: AtomicUsize,
}

impl SharedPatterns {
    /// An empty table.
    pub(super) fn new() -> SharedPatterns {
        let part = |_| Part {
            patterns: RwLock::new(PatternPart::default()),
            len: AtomicUsize::new(0),
        };
        SharedPatterns {
            parts: (0..PATTERN_PARTS).map(part).collect(),
            len: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Enters a reactor that has subscribers of the pattern, by this name. Every publication that is placed after this has
    /// returned is delivered to it.
    pub fn subscribe(&self, pattern: &Pattern, reactor: ReactorId, local: LocalTopic) {
        self.change(pattern, |part| part.subscribe(pattern, reactor, local));
    }

    /// The reactor's last subscriber of the pattern is gone. A name that is not known is ignored.
    pub fn unsubscribe(&self, pattern: &Pattern, reactor: ReactorId, local: LocalTopic) {
        self.change(pattern, |part| part.unsubscribe(pattern, reactor, local));
    }

    fn change(&self, pattern: &Pattern, change: impl FnOnce(&mut PatternPart)) {
        let part = &self.parts[part_of(pattern)];
        // A panic while the lock was held ends the process, so whoever still comes here may go on.
        let mut patterns = part
            .patterns
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let before = patterns.len();
        change(&mut patterns);
        let after = patterns.len();
        if after > before {
            self.len.fetch_add(after - before, Ordering::SeqCst);
        } else {
            self.len.fetch_sub(before - after, Ordering::SeqCst);
        }
        part.len.store(after, Ordering::SeqCst);
    }

    /// Counts some more bytes. False, and nothing is changed: there would be more than `bytes_max`.
    pub fn add_bytes(&self, bytes: usize, bytes_max: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= bytes_max;
        if !fits {
            self.sub_bytes(bytes);
        }
        fits
    }

    /// Counts fewer bytes.
    pub fn sub_bytes(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes that the patterns count as.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Patterns of all connections; equal ones count once.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl MatchPatterns for SharedPatterns {
    #[inline]
    fn for_each_match(&self, topic: &Topic, with: impl FnMut(ReactorId, LocalTopic)) -> usize {
        match self.len.load(Ordering::SeqCst) {
            0 => 0,
            _ => self.match_parts(topic, with),
        }
    }
}

impl SharedPatterns {
    /// Apart, so that a publish without patterns stays as short as it is.
    #[inline(never)]
    fn match_parts(&self, topic: &Topic, mut with: impl FnMut(ReactorId, LocalTopic)) -> usize {
        let mut visits = 0;
        for part in parts_of(topic) {
            let part = &self.parts[part];
            if part.len.load(Ordering::SeqCst) > 0 {
                let patterns = part.patterns.read().unwrap_or_else(PoisonError::into_inner);
                visits += patterns.for_each_match(topic, &mut with);
            }
        }
        visits
    }
}
