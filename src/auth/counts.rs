//! Counts of what became of credentials, by source.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Result of a look at a credential or at its rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthResult {
    /// It is good.
    Ok = 0,
    /// There is none where one is needed.
    Missing,
    /// It is wrong.
    Invalid,
    /// It is over.
    Expired,
    /// It was revoked.
    Revoked,
    /// It is good, and does not allow what was asked for.
    Forbidden,
    /// It cannot be judged now.
    Unavailable,
}

impl AuthResult {
    /// All results, in order.
    pub const ALL: [AuthResult; 7] = [
        AuthResult::Ok,
        AuthResult::Missing,
        AuthResult::Invalid,
        AuthResult::Expired,
        AuthResult::Revoked,
        AuthResult::Forbidden,
        AuthResult::Unavailable,
    ];

    /// Label of the metric.
    pub fn label(self) -> &'static str {
        match self {
            AuthResult::Ok => "ok",
            AuthResult::Missing => "missing",
            AuthResult::Invalid => "invalid",
            AuthResult::Expired => "expired",
            AuthResult::Revoked => "revoked",
            AuthResult::Forbidden => "forbidden",
            AuthResult::Unavailable => "unavailable",
        }
    }
}

/// Counts of all sources. They outlive a reload.
#[derive(Debug, Default)]
pub struct AuthCounts {
    sources: Mutex<Vec<Arc<SourceCounts>>>,
    templates_refused: AtomicU64,
    verified_bytes: Arc<AtomicUsize>,
}

/// Counts of one source.
#[derive(Debug)]
pub struct SourceCounts {
    label: Box<str>,
    counts: [AtomicU64; AuthResult::ALL.len()],
    /// Fetches of its key set: those that failed, and the others.
    fetches: [AtomicU64; 2],
}

impl SourceCounts {
    /// Counts one.
    pub fn add(&self, result: AuthResult) {
        self.counts[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a fetch of its key set.
    pub fn add_fetch(&self, is_good: bool) {
        self.fetches[usize::from(is_good)].fetch_add(1, Ordering::Relaxed);
    }

    /// Number of good or failed fetches of its key set.
    pub fn fetches(&self, are_good: bool) -> u64 {
        self.fetches[usize::from(are_good)].load(Ordering::Relaxed)
    }

    /// Label of the source.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Number of a result.
    pub fn get(&self, result: AuthResult) -> u64 {
        self.counts[result as usize].load(Ordering::Relaxed)
    }
}

impl AuthCounts {
    /// Counts of a source, which is there from now on. There are as many as the configurations so far had sources.
    pub fn of_source(&self, label: &str) -> Arc<SourceCounts> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.iter().find(|source| *source.label == *label) {
            return Arc::clone(source);
        }
        let source = Arc::new(SourceCounts {
            label: label.into(),
            counts: Default::default(),
            fetches: Default::default(),
        });
        sources.push(Arc::clone(&source));
        source
    }

    /// Counts of all sources.
    pub fn sources(&self) -> Vec<Arc<SourceCounts>> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.clone()
    }

    /// Bytes of the tokens that were judged before: whoever keeps them counts them there.
    pub fn verified_bytes(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.verified_bytes)
    }

    /// Counts rights that were not made. A variable of theirs had no value that is a plain segment.
    pub fn refuse_template(&self) {
        self.templates_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of grants that were not made.
    pub fn templates_refused(&self) -> u64 {
        self.templates_refused.load(Ordering::Relaxed)
    }
}
