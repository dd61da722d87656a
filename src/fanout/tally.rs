//! Sums that a batch adds to the counters of a reactor.

use std::sync::Arc;

use super::batch::Batch;
use crate::connection::outbox::Dropped;
use crate::dialect::{Class, Dialects};
use crate::hub::{Publication, Share};

/// Sums that a batch adds to the counters.
#[derive(Default)]
pub struct Tally {
    /// Subscribers in all.
    pub subscribers: u64,
    /// Of these: such that get it on a stream, and not in messages.
    pub on_streams: u64,
    /// Of these: such that get it in frames that are compressed by themselves.
    pub deflated: u64,
    /// Of these: such that get it in the frames of a cohort.
    pub in_cohort: u64,
    /// Bytes that the kernel took.
    pub bytes: u64,
    /// Subscribers that did not take all of it at once.
    pub touched: u64,
    /// Of these: such that were closed for it.
    pub dropped: u64,
    /// Publications dropped by their topic's rule, with a gap marker.
    pub dropped_oldest: u64,
    /// Publications replaced by newer ones.
    pub replaced: u64,
}

impl Tally {
    /// Takes those of another list in.
    pub fn add(&mut self, other: &Tally) {
        self.subscribers += other.subscribers;
        self.on_streams += other.on_streams;
        self.deflated += other.deflated;
        self.in_cohort += other.in_cohort;
        self.touched += other.touched;
        self.dropped += other.dropped;
    }

    /// Tells whoever asked what became of the publications of the batch.
    pub fn report(&self, publications: &[Arc<Publication>], first_us: u64, last_us: u64) {
        let matched = self.subscribers;
        let written = matched - self.touched.min(matched);
        let share = Share {
            matched,
            written,
            queued: self.touched.saturating_sub(self.dropped),
            dropped: self.dropped,
            first_us: (written > 0).then_some(first_us),
            last_us: (written > 0).then_some(last_us),
        };
        for publication in publications {
            publication.add_share(&share);
        }
    }

    /// Counts publications that went from one outbox.
    pub fn add_dropped(&mut self, dropped: Dropped) {
        self.dropped_oldest += dropped.oldest as u64;
        self.replaced += dropped.replaced as u64;
    }

    /// Takes over the subscribers that were counted as they got the batch.
    pub fn take_counts(&mut self, batch: &Batch<'_>, dialects: &Dialects) {
        for encoded in batch.forms() {
            let (count, form) = (encoded.take_count(), encoded.form());
            self.subscribers += count;
            if dialects.is_stream(form.encoding()) {
                self.on_streams += count;
            }
            match form.class() {
                Class::Plain => {}
                Class::Large | Class::Small => self.deflated += count,
                Class::Cohort => self.in_cohort += count,
            }
        }
    }
}
