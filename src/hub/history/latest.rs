//! Histories of which only the newest publication of each key stays.
//!
//! ```text
//!  published:   a1 b2 a3 c4 b5     a number is an offset, a letter a key
//!  kept:              a3 c4 b5     whoever subscribes gets these first, then what is live
//! ```
//!
//! A tombstone says that its key is deleted: it takes the place of the key's publication for those who recover, and
//! whoever subscribes anew gets nothing of the key.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Histories, RecoveryLimits, Ring, RingId};
use crate::hub::publication::Publication;

/// What an entry of the table below costs, with the key's reference and a share of what is free.
const ENTRY_BYTES: usize = 64;

/// The offset of the newest publication of each key. None is a key as well.
pub(super) type Newest = HashMap<Option<Arc<str>>, u64>;

/// Difference that it made to a ring.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    /// Publications that went.
    publications: usize,
    removed_bytes: usize,
    added_bytes: usize,
}

impl Ring {
    /// Bytes that a publication costs here.
    pub(super) fn bytes_of(&self, publication: &Publication) -> usize {
        let entry_bytes = if self.newest.is_some() {
            ENTRY_BYTES
        } else {
            0
        };
        publication.retained_bytes() + entry_bytes
    }

    /// Begins to keep only the newest of each key, if the rule says so and did not before.
    fn begin_latest(&mut self) -> Change {
        if !self.limits.latest_only || self.newest.is_some() {
            return Change::default();
        }
        let keys = self.publications.iter();
        let newest: Newest = keys
            .map(|it| (it.key().cloned(), it.position().offset))
            .collect();
        let mut change = Change::default();
        self.publications.retain(|it| {
            let stays = newest.get(&it.key().cloned()) == Some(&it.position().offset);
            if !stays {
                change.publications += 1;
                change.removed_bytes += it.retained_bytes();
            }
            stays
        });
        change.added_bytes = self.publications.len() * ENTRY_BYTES;
        self.bytes = self.bytes + change.added_bytes - change.removed_bytes;
        self.newest = Some(Box::new(newest));
        change
    }

    /// Takes out the earlier publication of a newer one's key, if only the newest of each stays. To be called before the newer
    /// one is taken in.
    pub(super) fn make_latest(&mut self, newer: &Publication) -> Change {
        let mut change = self.begin_latest();
        let Some(newest) = &mut self.newest else {
            return change;
        };
        let replaced = newest.insert(newer.key().cloned(), newer.position().offset);
        let place = replaced.and_then(|offset| {
            let publications = &self.publications;
            publications
                .binary_search_by_key(&offset, |it| it.position().offset)
                .ok()
        });
        if let Some(removed) = place.and_then(|place| self.publications.remove(place)) {
            let bytes = self.bytes_of(&removed);
            self.bytes -= bytes;
            change.removed_bytes += bytes;
            change.publications += 1;
        }
        change
    }

    /// What went for a limit is missing from the newest of each key, unless it was a tombstone.
    pub(super) fn forget_key(&mut self, gone: &Publication) {
        self.is_whole &= gone.is_tombstone();
        self.forget_entry(gone);
    }

    /// What went is no longer the newest of its key.
    pub(super) fn forget_entry(&mut self, gone: &Publication) {
        if let Some(newest) = &mut self.newest {
            let key = gone.key().cloned();
            if newest.get(&key) == Some(&gone.position().offset) {
                newest.remove(&key);
            }
        }
    }

    /// Whether it holds more than its rule lets it because the rule was another one. Gives the bytes by which it becomes less.
    pub(super) fn adapt_latest(&mut self) -> usize {
        if self.limits.latest_only || self.newest.take().is_none() {
            return 0;
        }
        let bytes = self.publications.len() * ENTRY_BYTES;
        self.bytes -= bytes;
        bytes
    }
}

impl Histories {
    /// Counts what became different in a ring.
    pub(super) fn note(&mut self, change: Change) {
        self.bytes = self.bytes + change.added_bytes - change.removed_bytes;
        self.publications -= change.publications;
    }

    /// The newest publication of each key. Deleted keys are left out. They are as many as the limits allow; and it says
    /// whether none is missing.
    pub fn snapshot(
        &mut self,
        ring: RingId,
        limits: RecoveryLimits,
    ) -> (Vec<Arc<Publication>>, bool) {
        let Some(entry) = self.rings.get_mut(ring.0 as usize) else {
            // It has gone with what was too old.
            return (Vec::new(), false);
        };
        let change = entry.begin_latest();
        self.note(change);
        let (mut newest, is_all) = self.newest_after(ring, 0, limits);
        newest.retain(|publication| !publication.is_tombstone());
        let ring = self.rings.get(ring.0 as usize);
        (newest, is_all && ring.is_some_and(|ring| ring.is_whole))
    }
}
