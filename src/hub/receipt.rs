//! A receipt: the outcome of one publication, added up over all reactors.
//!
//! The shard says how many shares there will be, one for each delivery to a reactor, before it hands the deliveries
//! over. Each reactor adds its share once it has written to its subscribers, and the last one to do so hands the
//! report over.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::publication::Position;

/// Takes the report, on whichever thread adds the last share. It must not block.
type Done = dyn FnOnce(Report) + Send;

/// Stands for "nothing was written" where the moment of the first write is kept.
const NEVER: u64 = u64::MAX;

/// Sums the reactors' shares of one publication, and reports the sum once.
pub struct Receipt {
    /// Where the publication stands, and when it was published; set by the shard.
    place: OnceLock<(Position, u64)>,
    shares_left: AtomicUsize,
    matched: AtomicU64,
    written: AtomicU64,
    queued: AtomicU64,
    dropped: AtomicU64,
    first_us: AtomicU64,
    last_us: AtomicU64,
    /// Taken by the report, so that what it holds goes before the publication does.
    done: Mutex<Option<Box<Done>>>,
}

/// One reactor's deliveries of a publication to one topic or pattern.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Subscriptions that the publication was for.
    pub matched: u64,
    /// Of these, those that got all of it at once.
    pub written: u64,
    /// Those for whom it waits in memory, in whole or in part.
    pub queued: u64,
    /// Those that do not get it.
    pub dropped: u64,
    /// End of the first write, in microseconds on the process's monotonic clock. None if nothing was written.
    pub first_us: Option<u64>,
    /// End of the last write, in the same unit.
    pub last_us: Option<u64>,
}

/// Outcome of a publication's deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its position.
    pub position: Position,
    /// Subscriptions that it was for.
    pub matched: u64,
    /// Of these, those that got all of it at once.
    pub written: u64,
    /// Those for whom it waits in memory, in whole or in part.
    pub queued: u64,
    /// Those that do not get it.
    pub dropped: u64,
    /// Microseconds from the publish to the end of the first write. None if nothing was written.
    pub first_write_us: Option<u64>,
    /// Microseconds from the publish to the end of the last write.
    pub last_write_us: Option<u64>,
}

impl Receipt {
    /// A receipt whose report goes to `done`: once, by the thread that adds the last share, or by the shard's if there
    /// is nobody to deliver to. `done` must not block.
    pub fn new(done: Box<dyn FnOnce(Report) + Send>) -> Receipt {
        Receipt {
            place: OnceLock::new(),
            shares_left: AtomicUsize::new(0),
            matched: AtomicU64::new(0),
            written: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            first_us: AtomicU64::new(NEVER),
            last_us: AtomicU64::new(0),
            done: Mutex::new(Some(done)),
        }
    }

    /// Adds one share. Each delivery of the publication must add exactly one, an empty one where it reaches nobody.
    pub fn add(&self, share: &Share) {
        let add = |total: &AtomicU64, count| total.fetch_add(count, Ordering::Relaxed);
        add(&self.matched, share.matched);
        add(&self.written, share.written);
        add(&self.queued, share.queued);
        add(&self.dropped, share.dropped);
        if let Some(first_us) = share.first_us {
            self.first_us.fetch_min(first_us, Ordering::Relaxed);
        }
        if let Some(last_us) = share.last_us {
            self.last_us.fetch_max(last_us, Ordering::Relaxed);
        }
        // Releases this share's figures, and acquires those of all others for the report.
        if self.shares_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.report();
        }
    }

    /// Where the publication stands, once it has its place.
    pub(super) fn position(&self) -> Option<Position> {
        self.place.get().map(|(position, _)| *position)
    }

    /// Says where the publication stands and how many shares there will be, before any of them can be added.
    pub(super) fn begin(&self, position: Position, published_at_us: u64, shares: usize) {
        // A publication is placed once.
        let _ = self.place.set((position, published_at_us));
        self.shares_left.store(shares, Ordering::Release);
        if shares == 0 {
            self.report();
        }
    }

    /// Whether its report is still to come.
    pub fn is_open(&self) -> bool {
        self.lock_done().is_some()
    }

    /// Gives up the report: whoever waits for it gets none.
    pub fn close(&self) {
        let done = self.lock_done().take();
        drop(done);
    }

    fn lock_done(&self) -> MutexGuard<'_, Option<Box<Done>>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self) {
        let Some(&(position, published_at_us)) = self.place.get() else {
            return;
        };
        // The lock is let go of before the report is handed over.
        let done = self.lock_done().take();
        let Some(done) = done else {
            return;
        };
        let load = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let first_us = Some(load(&self.first_us)).filter(|&first_us| first_us != NEVER);
        done(Report {
            position,
            matched: load(&self.matched),
            written: load(&self.written),
            queued: load(&self.queued),
            dropped: load(&self.dropped),
            first_write_us: first_us.map(|moment_us| moment_us.saturating_sub(published_at_us)),
            last_write_us: first_us
                .map(|first_us| load(&self.last_us).max(first_us))
                .map(|moment_us| moment_us.saturating_sub(published_at_us)),
        });
    }
}

impl PartialEq for Receipt {
    /// Receipts are equal that are one and the same.
    fn eq(&self, other: &Receipt) -> bool {
        std::ptr::eq(self, other)
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("place", &self.place.get())
            .field("shares_left", &self.shares_left)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const POSITION: Position = Position {
        epoch: 7,
        offset: 3,
    };

    fn receipt() -> (Receipt, Arc<Mutex<Vec<Report>>>) {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&reports);
        let done = move |report| seen.lock().expect("no panic").push(report);
        (Receipt::new(Box::new(done)), reports)
    }

    #[test]
    fn nobody_to_deliver_to_is_reported_at_once() {
        let (receipt, reports) = receipt();
        receipt.begin(POSITION, 10, 0);
        let expected = Report {
            position: POSITION,
            matched: 0,
            written: 0,
            queued: 0,
            dropped: 0,
            first_write_us: None,
            last_write_us: None,
        };
        assert_eq!(*reports.lock().expect("no panic"), [expected]);
    }

    #[test]
    fn shares_add_up_and_the_last_one_reports() {
        let (receipt, reports) = receipt();
        receipt.begin(POSITION, 100, 3);
        receipt.add(&Share {
            matched: 3,
            written: 2,
            queued: 1,
            dropped: 0,
            first_us: Some(120),
            last_us: Some(130),
        });
        receipt.add(&Share::default());
        assert!(reports.lock().expect("no panic").is_empty());
        receipt.add(&Share {
            matched: 2,
            written: 1,
            queued: 0,
            dropped: 1,
            first_us: Some(115),
            last_us: Some(115),
        });
        let expected = Report {
            position: POSITION,
            matched: 5,
            written: 3,
            queued: 1,
            dropped: 1,
            first_write_us: Some(15),
            last_write_us: Some(30),
        };
        assert_eq!(*reports.lock().expect("no panic"), [expected]);
    }
}
