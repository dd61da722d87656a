//! Patterns of all connections.

use crate::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of the patterns of all connections, and their limit.
#[derive(Debug)]
pub struct PatternBytes {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl PatternBytes {
    /// None yet.
    pub(super) fn new(bytes_max: usize) -> PatternBytes {
        PatternBytes {
            bytes: AtomicUsize::new(0),
            bytes_max,
        }
    }

    /// Counts some more. False, and nothing is changed: there would be more than there may be.
    pub fn add(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.bytes_max;
        if !fits {
            self.sub(bytes);
        }
        fits
    }

    /// Counts less.
    pub fn sub(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Number of bytes.
    pub fn get(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}
