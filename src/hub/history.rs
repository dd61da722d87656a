//! Histories of one shard's topics: rings of publications, and their eviction.
//!
//! A ring is bounded by count, bytes and age, as its topic's rule says. All rings of a shard together are bounded by
//! bytes: over that bound the oldest publications of the ring go whose use, a publish or a recovery, lies longest back.
//!
//! A ring without publications is the head of a topic: it keeps alone where the topic stands, for those who left it last
//! and may come back. It lives as long as publications since could be kept, and goes as a ring of its coldness goes.
//!
//! ```text
//!  offsets of a topic:  1 2 3 4 5 6 7 8      a ring holds the newest ones, but for those whose time to live is over:
//!                             [ 5   7 8 ]    from `complete_from`, here 5, on nothing else is missing
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use slab::Slab;

use super::listing::HistorySize;
use super::publication::{FormBytes, Publication};
use super::topic_state::{Kept, TopicState};
use crate::shrink::Shrink;
use crate::topic::HistoryLimits;
use latest::{Change, Newest};

/// A ring, by its place among the rings of its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingId(u32);

/// Places of a ring's queue that are kept however few are in use.
const PLACES_KEPT: usize = 16;

/// What a topic that only its history keeps costs besides its publications: the ring and its first places, its entries
/// in the tables, and its name, with what an allocator adds.
pub(super) const TOPIC_BYTES: usize =
    size_of::<Ring>() + size_of::<Kept>() + size_of::<TopicState>() + 256;

/// How long after its time a head may go, in microseconds: the time is told once a second only, and it is better late.
pub(super) const HEAD_SLACK_US: u64 = 1_000_000;

/// Stands for "no ring" where rings are linked.
const NONE: u32 = u32::MAX;

/// Stands for "no publication of its topic was kept yet".
const NOTHING: u64 = u64::MAX;

/// Publications that one [`Histories::expire`] looks at for their time to live. The rest waits for the next one.
const TTL_LOOKS_MAX: usize = 65_536;

/// How much is handed to one subscriber at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecoveryLimits {
    pub publications_max: usize,
    /// Of their WebSocket frames.
    pub bytes_max: usize,
}

#[derive(Debug)]
struct Ring {
    /// The topic's place in the shard.
    topic: u32,
    limits: HistoryLimits,
    publications: VecDeque<Arc<Publication>>,
    bytes: usize,
    /// The first offset from which on everything is kept that is not over.
    complete_from: u64,
    /// The moment at which the first time to live of its publications is over, or earlier.
    ttl_us: u64,
    /// Where only the newest of each key stay, their offsets.
    newest: Option<Box<Newest>>,
    /// Nothing went for a limit since its topic came into being, but for tombstones.
    is_whole: bool,
    /// The moment under which it stands in `expiries`: not after its oldest publication becomes too old.
    expiry_us: u64,
    /// It is kept until then even without publications.
    head_until_us: u64,
    /// Its neighbours in the order of use.
    colder: u32,
    hotter: u32,
}

/// All rings of a shard.
#[derive(Debug)]
pub(super) struct Histories {
    rings: Slab<Ring>,
    shrink: Shrink,
    /// The ends of the order of use.
    coldest: u32,
    hottest: u32,
    /// When each ring is to be looked at because of its age.
    expiries: BTreeSet<(u64, u32)>,
    /// Of all rings, without the other forms of their publications.
    bytes: usize,
    /// Other forms of publications that are, or were, in a ring.
    forms: Arc<FormBytes>,
    bytes_max: usize,
    publications: usize,
    /// The newest moment that is known, in microseconds on the process's monotonic clock.
    now_us: u64,
    /// Topics whose ring has gone, for [`Histories::take_emptied`].
    emptied: Vec<u32>,
}

/// The end of a head that is left at this moment.
fn head_until_us(limits: HistoryLimits, now_us: u64) -> u64 {
    let age_max_us = limits.age_max_ms.saturating_mul(1000);
    now_us
        .saturating_add(age_max_us)
        .saturating_add(HEAD_SLACK_US)
}

impl Ring {
    /// Whether its oldest publication is too much by its own limits.
    fn is_over(&self, now_us: u64) -> bool {
        !self.publications.is_empty()
            && (self.publications.len() > self.limits.publications_max as usize
                || self.bytes > self.limits.bytes_max
                || self.oldest_expiry_us() <= now_us)
    }

    /// When the oldest publication becomes too old.
    fn oldest_expiry_us(&self) -> u64 {
        let age_max_us = self.limits.age_max_ms.saturating_mul(1000);
        self.publications.front().map_or(u64::MAX, |oldest| {
            oldest.published_at_us().saturating_add(age_max_us)
        })
    }

    /// When it is to be looked at next because of its age.
    fn next_expiry_us(&self) -> u64 {
        match self.publications.is_empty() {
            true => self.head_until_us,
            false => self.oldest_expiry_us().min(self.ttl_us),
        }
    }

    /// Takes a publication in, which is the newest of its topic.
    fn push(&mut self, publication: Arc<Publication>) {
        if self.complete_from == NOTHING {
            self.complete_from = publication.position().offset;
            self.is_whole = self.complete_from == 1;
        }
        if let Some(end_us) = publication.expires_at_us() {
            self.ttl_us = self.ttl_us.min(end_us);
        }
        self.publications.push_back(publication);
    }

    /// Lets go of publications whose time to live is over; gives their number and bytes.
    fn sweep(&mut self, now_us: u64) -> (usize, usize) {
        let (before, mut bytes, mut newest_us) = (self.publications.len(), 0, 0);
        self.ttl_us = u64::MAX;
        let next_us = &mut self.ttl_us;
        let mut over = Vec::new();
        self.publications.retain(|publication| {
            let Some(end_us) = publication.expires_at_us() else {
                return true;
            };
            let stays = end_us > now_us;
            if stays {
                *next_us = (*next_us).min(end_us);
            } else {
                newest_us = publication.published_at_us();
                over.push(Arc::clone(publication));
            }
            stays
        });
        for gone in over {
            bytes += self.bytes_of(&gone);
            self.forget_entry(&gone);
        }
        self.bytes -= bytes;
        if self.publications.is_empty() {
            // Whoever has seen the last of them finds the topic where it stood, for as long as the history would be there.
            let head_until_us = head_until_us(self.limits, newest_us);
            self.head_until_us = self.head_until_us.max(head_until_us);
        }
        (before - self.publications.len(), bytes)
    }

    /// Takes the oldest publication out; gives its bytes.
    fn pop(&mut self) -> usize {
        let Some(oldest) = self.publications.pop_front() else {
            return 0;
        };
        let bytes = self.bytes_of(&oldest);
        self.bytes -= bytes;
        self.forget_key(&oldest);
        self.complete_from = oldest.position().offset + 1;
        let (len, capacity) = (self.publications.len(), self.publications.capacity());
        if capacity > PLACES_KEPT && len < capacity / 4 {
            self.publications.shrink_to(capacity / 2);
        }
        bytes
    }

    /// Keeps its own limits; gives the bytes that went.
    fn trim(&mut self, now_us: u64) -> usize {
        let mut trimmed = 0;
        while self.is_over(now_us) {
            trimmed += self.pop();
        }
        trimmed
    }
}

impl Histories {
    /// No rings yet; they may hold so many bytes together.
    pub fn new(bytes_max: usize) -> Histories {
        Histories {
            rings: Slab::new(),
            shrink: Shrink::default(),
            coldest: NONE,
            hottest: NONE,
            expiries: BTreeSet::new(),
            bytes: 0,
            forms: Arc::default(),
            bytes_max,
            publications: 0,
            now_us: 0,
            emptied: Vec::new(),
        }
    }

    /// Bytes that count towards what all rings may hold.
    pub fn bytes(&self) -> usize {
        self.bytes + self.forms.get()
    }

    /// Publications in all rings.
    pub fn publications(&self) -> usize {
        self.publications
    }

    /// Publications and bytes of a ring.
    pub fn size(&self, ring: RingId) -> HistorySize {
        let ring = self.rings.get(ring.0 as usize);
        ring.map_or_else(HistorySize::default, |ring| HistorySize {
            publications: ring.publications.len(),
            bytes: ring.bytes,
        })
    }

    /// Counter of the other forms of publications in rings.
    pub fn forms(&self) -> &Arc<FormBytes> {
        &self.forms
    }

    /// Adds a topic's newest publication to its ring. Gives the ring, which is not there any
    /// more if its topic is among those of [`take_emptied`](Histories::take_emptied).
    pub fn push(
        &mut self,
        ring: Option<RingId>,
        topic: u32,
        limits: HistoryLimits,
        publication: Arc<Publication>,
    ) -> RingId {
        self.now_us = self.now_us.max(publication.published_at_us());
        let mut bytes = publication.retained_bytes();
        let mut change = Change::default();
        let id = match ring {
            Some(id) => {
                let ring = &mut self.rings[id.0 as usize];
                change = ring.make_latest(&publication);
                bytes = ring.bytes_of(&publication);
                ring.push(publication);
                ring.bytes += bytes;
                if ring.publications.len() == 1 || ring.ttl_us < ring.expiry_us {
                    self.schedule(id.0);
                }
                id
            }
            None => self.insert(topic, limits, Some(publication), bytes),
        };
        self.bytes += bytes;
        self.publications += 1;
        self.note(change);
        self.touch(id.0);
        self.trim(id.0);
        self.keep_bytes_max();
        id
    }

    /// Keeps the head of a topic that its last subscriber left. It stays as long as what is published now could be kept.
    /// Gives the ring, which is not there any more if its topic is among those of
    /// [`take_emptied`](Histories::take_emptied).
    pub fn keep_head(&mut self, ring: Option<RingId>, topic: u32, limits: HistoryLimits) -> RingId {
        let id = ring.unwrap_or_else(|| self.insert(topic, limits, None, 0));
        let entry = &mut self.rings[id.0 as usize];
        entry.head_until_us = head_until_us(limits, self.now_us);
        if entry.publications.is_empty() {
            self.schedule(id.0);
        }
        self.touch(id.0);
        self.keep_bytes_max();
        id
    }

    /// Lets go of what was not used for the longest time, until the rest may stay.
    fn keep_bytes_max(&mut self) {
        let mut over = self.bytes().saturating_sub(self.bytes_max);
        while over > 0 && self.coldest != NONE {
            let coldest = self.coldest;
            let ring = &mut self.rings[coldest as usize];
            // Whoever still writes it out holds its other forms for a moment; they count as gone.
            let forms = ring.publications.front().map_or(0, |it| it.form_bytes());
            self.publications -= usize::from(!ring.publications.is_empty());
            let popped = ring.pop();
            // Its head goes with its last publication, and alone where there is none.
            let is_gone = ring.publications.is_empty();
            self.bytes -= popped;
            if is_gone {
                self.remove(coldest);
            }
            over = over.saturating_sub(popped + forms + usize::from(is_gone) * TOPIC_BYTES);
        }
    }

    /// Publications behind an offset. None if one that is not over is missing, or they exceed the limits.
    pub fn all_after(
        &mut self,
        ring: RingId,
        offset: u64,
        limits: RecoveryLimits,
    ) -> Option<Vec<Arc<Publication>>> {
        let (newest, is_all) = self.newest_after(ring, offset, limits);
        let ring = self.rings.get(ring.0 as usize)?;
        (is_all && ring.complete_from <= offset.saturating_add(1)).then_some(newest)
    }

    /// The last publications of a ring behind an offset. Those that are over are left out. They are as many as the limits
    /// allow; and it says whether these are all.
    pub fn newest_after(
        &mut self,
        ring: RingId,
        offset: u64,
        limits: RecoveryLimits,
    ) -> (Vec<Arc<Publication>>, bool) {
        if self.trim(ring.0) {
            return (Vec::new(), false);
        }
        self.touch(ring.0);
        let publications = &self.rings[ring.0 as usize].publications;
        let (now_us, mut bytes_left) = (self.now_us, limits.bytes_max);
        let (mut newest, mut is_all) = (Vec::new(), true);
        let behind = publications.iter().rev();
        let behind = behind.take_while(|next| next.position().offset > offset);
        for next in behind.filter(|next| !next.is_expired(now_us)) {
            let left = bytes_left.checked_sub(next.frame().len());
            is_all = left.is_some() && newest.len() < limits.publications_max;
            if !is_all {
                break;
            }
            bytes_left = left.unwrap_or(0);
            newest.push(Arc::clone(next));
        }
        newest.reverse();
        (newest, is_all)
    }

    /// The first publications of a ring behind an offset. Those that are over are left out. They are as many as the limits
    /// allow, but one at least; and it says whether more follow. None if one that is not over is missing, where `is_exact`.
    pub fn first_after(
        &mut self,
        ring: RingId,
        (offset, is_exact): (u64, bool),
        limits: RecoveryLimits,
    ) -> Option<(Vec<Arc<Publication>>, bool)> {
        if self.trim(ring.0) {
            return None;
        }
        self.touch(ring.0);
        let ring = &self.rings[ring.0 as usize];
        if is_exact && ring.complete_from > offset.saturating_add(1) {
            return None;
        }
        let publications = &ring.publications;
        let first = publications.partition_point(|it| it.position().offset <= offset);
        let (mut page, mut bytes) = (Vec::new(), 0);
        let behind = publications.range(first..);
        for next in behind.filter(|next| !next.is_expired(self.now_us)) {
            bytes += next.frame().len();
            let fits = page.len() < limits.publications_max && bytes <= limits.bytes_max;
            if !fits && !page.is_empty() {
                return Some((page, true));
            }
            page.push(Arc::clone(next));
        }
        Some((page, false))
    }

    /// Tells of a moment that has come.
    pub fn advance(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
    }

    /// Lets go of what is too old at this moment, or over.
    pub fn expire(&mut self, now_us: u64) {
        self.advance(now_us);
        let mut looks_left = TTL_LOOKS_MAX;
        while let Some(&(expiry_us, ring)) = self.expiries.first() {
            if expiry_us > self.now_us {
                break;
            }
            let entry = &mut self.rings[ring as usize];
            if entry.ttl_us <= self.now_us {
                if looks_left == 0 {
                    break;
                }
                looks_left = looks_left.saturating_sub(entry.publications.len());
                let (count, bytes) = entry.sweep(self.now_us);
                self.publications -= count;
                self.bytes -= bytes;
            }
            if self.trim(ring) {
                continue;
            }
            // What was the oldest may have gone before it was too old; then the next one's time has not come.
            self.schedule(ring);
        }
        // Since the last publication, others may have been given forms that they did not have.
        self.keep_bytes_max();
    }

    /// Brings a ring nearer to new limits, by so many publications. True once it fits them: they hold then, and the ring is
    /// not there any more if its topic is among those of [`take_emptied`](Histories::take_emptied).
    pub fn approach(
        &mut self,
        ring: RingId,
        limits: HistoryLimits,
        publications_max: usize,
    ) -> bool {
        let RingId(id) = ring;
        let entry = &mut self.rings[id as usize];
        let old = std::mem::replace(&mut entry.limits, limits);
        self.bytes -= entry.adapt_latest();
        let mut left = publications_max;
        while left > 0 && entry.is_over(self.now_us) {
            self.bytes -= entry.pop();
            self.publications -= 1;
            left -= 1;
        }
        let fits = !entry.is_over(self.now_us);
        if !fits {
            // What comes meanwhile takes the place of what is oldest, so that it ends.
            entry.limits = HistoryLimits {
                publications_max: entry.publications.len() as u32,
                ..old
            };
        }
        if fits {
            let head_max_us = match limits.publications_max {
                0 => 0,
                _ => head_until_us(limits, self.now_us),
            };
            entry.head_until_us = entry.head_until_us.min(head_max_us);
        }
        if !self.remove_if_over(id) {
            self.schedule(id);
        }
        fits
    }

    /// Brings the bound on all rings nearer to this one. It falls by so many bytes. True once it is reached.
    pub fn approach_bytes_max(&mut self, bytes_max: usize, step: usize) -> bool {
        let within = self.bytes().saturating_sub(step);
        self.bytes_max = bytes_max.max(within);
        self.keep_bytes_max();
        self.bytes_max == bytes_max
    }

    /// Place of a topic whose ring was evicted since the last call.
    pub fn take_emptied(&mut self) -> Option<u32> {
        self.emptied.pop()
    }

    /// Puts a ring under the moment at which it is to be looked at next.
    fn schedule(&mut self, ring: u32) {
        let entry = &mut self.rings[ring as usize];
        let next_us = entry.next_expiry_us();
        let before_us = std::mem::replace(&mut entry.expiry_us, next_us);
        self.expiries.remove(&(before_us, ring));
        self.expiries.insert((next_us, ring));
    }

    fn insert(
        &mut self,
        topic: u32,
        limits: HistoryLimits,
        publication: Option<Arc<Publication>>,
        bytes: usize,
    ) -> RingId {
        let mut ring = Ring {
            topic,
            limits,
            publications: VecDeque::new(),
            bytes,
            complete_from: NOTHING,
            newest: None,
            is_whole: false,
            ttl_us: u64::MAX,
            expiry_us: 0,
            head_until_us: 0,
            colder: NONE,
            hotter: NONE,
        };
        if let Some(publication) = publication {
            ring.push(publication);
        }
        ring.expiry_us = ring.next_expiry_us();
        let expiry_us = ring.expiry_us;
        self.bytes += TOPIC_BYTES;
        let id = self.rings.insert(ring) as u32;
        self.expiries.insert((expiry_us, id));
        self.link(id);
        RingId(id)
    }

    /// Keeps the ring's own limits. True if it has gone.
    fn trim(&mut self, ring: u32) -> bool {
        let entry = &mut self.rings[ring as usize];
        let before = entry.publications.len();
        self.bytes -= entry.trim(self.now_us);
        self.publications -= before - entry.publications.len();
        self.remove_if_over(ring)
    }

    /// Lets go of all that a ring has.
    pub fn clear(&mut self, RingId(ring): RingId) {
        let entry = &mut self.rings[ring as usize];
        self.publications -= entry.publications.len();
        while !entry.publications.is_empty() {
            self.bytes -= entry.pop();
        }
        self.remove(ring);
    }

    /// Removes a ring that holds nothing and is no head any more. True if it has gone.
    fn remove_if_over(&mut self, ring: u32) -> bool {
        let entry = &self.rings[ring as usize];
        let is_over = entry.publications.is_empty() && entry.head_until_us <= self.now_us;
        if is_over {
            self.remove(ring);
        }
        is_over
    }

    /// Its topic has neither history nor head any more.
    fn remove(&mut self, ring: u32) {
        self.unlink(ring);
        self.bytes -= TOPIC_BYTES;
        let removed = self.rings.remove(ring as usize);
        self.expiries.remove(&(removed.expiry_us, ring));
        self.emptied.push(removed.topic);
        self.shrink.shrink(&mut self.rings);
    }

    /// The ring is in use: it is the last one to be trimmed.
    fn touch(&mut self, ring: u32) {
        if self.hottest != ring {
            self.unlink(ring);
            self.link(ring);
        }
    }

    fn link(&mut self, ring: u32) {
        let colder = self.hottest;
        let entry = &mut self.rings[ring as usize];
        (entry.colder, entry.hotter) = (colder, NONE);
        match self.rings.get_mut(colder as usize) {
            Some(colder) => colder.hotter = ring,
            None => self.coldest = ring,
        }
        self.hottest = ring;
    }

    fn unlink(&mut self, ring: u32) {
        let Ring { colder, hotter, .. } = self.rings[ring as usize];
        match self.rings.get_mut(colder as usize) {
            Some(entry) => entry.hotter = hotter,
            None => self.coldest = hotter,
        }
        match self.rings.get_mut(hotter as usize) {
            Some(entry) => entry.colder = colder,
            None => self.hottest = colder,
        }
    }
}

mod latest;
mod shedding;

#[cfg(test)]
mod tests;
