//! What a batch adds to the counters of a reactor.

use std::sync::Arc;

use crate::connection::outbox::Dropped;
use crate::dialect::{FORM_COUNT, Form};
use crate::hub::{Publication, Share};

/// What a batch adds to the counters.
#[derive(Default)]
pub struct Tally {
    /// Subscribers, by the form in which they get it.
    pub by_form: [u64; FORM_COUNT],
    /// Bytes that the kernel took.
    pub bytes: u64,
    /// Subscribers that did not take all of it at once.
    pub touched: u64,
    /// Of these: such that were closed for it.
    pub dropped: u64,
    /// Publications that were dropped because their topic's rule says so, and the subscribers told.
    pub dropped_oldest: u64,
    /// Publications that were dropped for newer ones.
    pub replaced: u64,
}

impl Tally {
    /// Takes those of another list in.
    pub fn add(&mut self, other: &Tally) {
        for (count, more) in self.by_form.iter_mut().zip(other.by_form) {
            *count += more;
        }
        self.touched += other.touched;
        self.dropped += other.dropped;
    }

    /// Tells whoever asked what became of the publications of the batch.
    pub fn report(&self, publications: &[Arc<Publication>], first_us: u64, last_us: u64) {
        let matched = self.subscribers();
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

    /// Counts a subscriber.
    pub fn count(&mut self, form: Form) {
        self.by_form[form as usize] += 1;
    }

    /// Subscribers in all.
    pub fn subscribers(&self) -> u64 {
        self.by_form.iter().sum()
    }

    /// Of the subscribers: those in whose form it is compressed.
    pub fn compressed(&self) -> u64 {
        let by_form = Form::ALL.iter().zip(self.by_form);
        by_form
            .filter(|(form, _)| form.is_compressed())
            .map(|(_, count)| count)
            .sum()
    }
}
