//! Histories of one shard's topics: rings of publications, and their eviction.
//!
//! A ring is bounded by count, bytes and age, as its topic's rule says. All rings of a shard together are bounded by
//! bytes: over that bound the oldest publications of the ring go whose use, a publish or a recovery, lies longest back.
//! A ring that holds nothing does not exist.
//!
//! ```text
//!  offsets of a topic:  1 2 3 4 5 6 7 8      a ring holds the newest ones, without a hole:
//!                             [ 5 6 7 8 ]    the last one is the newest publication of the topic
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use slab::Slab;

use super::listing::HistorySize;
use super::publication::{FormBytes, Publication};
use super::topic_state::{Kept, TopicState};
use crate::shrink::Shrink;
use crate::topic::HistoryLimits;

/// A ring, by its place among the rings of its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingId(u32);

/// Places of a ring's queue that are kept however few are in use.
const PLACES_KEPT: usize = 16;

/// What a topic that only its history keeps costs besides its publications: the ring and its first places, its entries
/// in the tables, and its name, with what an allocator adds.
pub(super) const TOPIC_BYTES: usize =
    size_of::<Ring>() + size_of::<Kept>() + size_of::<TopicState>() + 256;

/// Stands for "no ring" where rings are linked.
const NONE: u32 = u32::MAX;

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
    /// The moment under which it stands in `expiries`: not after its oldest publication becomes too old.
    expiry_us: u64,
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

    /// Takes the oldest publication out; gives its bytes.
    fn pop(&mut self) -> usize {
        let Some(oldest) = self.publications.pop_front() else {
            return 0;
        };
        let bytes = oldest.retained_bytes();
        self.bytes -= bytes;
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
        let bytes = publication.retained_bytes();
        let id = match ring {
            Some(id) => {
                let ring = &mut self.rings[id.0 as usize];
                ring.publications.push_back(publication);
                ring.bytes += bytes;
                id
            }
            None => self.insert(topic, limits, publication, bytes),
        };
        self.bytes += bytes;
        self.publications += 1;
        self.touch(id.0);
        self.trim(id.0);
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
            let popped = ring.pop();
            self.bytes -= popped;
            self.publications -= 1;
            let gone = self.remove_if_empty(coldest);
            over = over.saturating_sub(popped + forms + usize::from(gone) * TOPIC_BYTES);
        }
    }

    /// Publications behind an offset, if all are kept and within the limits. `missed` says how many that must be.
    pub fn newest_if_all(
        &mut self,
        ring: RingId,
        missed: u64,
        limits: RecoveryLimits,
    ) -> Option<Vec<Arc<Publication>>> {
        let missed = usize::try_from(missed).ok()?;
        let newest = self.newest(ring, missed, limits);
        (newest.len() == missed).then_some(newest)
    }

    /// The last publications of a ring, as far as the limits allow.
    pub fn newest(
        &mut self,
        ring: RingId,
        count: usize,
        limits: RecoveryLimits,
    ) -> Vec<Arc<Publication>> {
        if self.trim(ring.0) {
            return Vec::new();
        }
        self.touch(ring.0);
        let publications = &self.rings[ring.0 as usize].publications;
        let count = count.min(limits.publications_max);
        let mut bytes_left = limits.bytes_max;
        let fitting = publications.iter().rev().take(count).take_while(|next| {
            let left = bytes_left.checked_sub(next.frame().len());
            bytes_left = left.unwrap_or(0);
            left.is_some()
        });
        let first = publications.len() - fitting.count();
        publications.range(first..).cloned().collect()
    }

    /// Lets go of what is too old at this moment.
    pub fn expire(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
        while let Some(&(expiry_us, ring)) = self.expiries.first() {
            if expiry_us > self.now_us {
                break;
            }
            if self.trim(ring) {
                continue;
            }
            // What was the oldest may have gone before it was too old; then the next one's time has not come.
            let entry = &mut self.rings[ring as usize];
            let oldest_us = entry.oldest_expiry_us();
            entry.expiry_us = oldest_us;
            self.expiries.remove(&(expiry_us, ring));
            self.expiries.insert((oldest_us, ring));
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
        let (before_us, oldest_us) = (entry.expiry_us, entry.oldest_expiry_us());
        if !self.remove_if_empty(id) {
            self.rings[id as usize].expiry_us = oldest_us;
            self.expiries.remove(&(before_us, id));
            self.expiries.insert((oldest_us, id));
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

    fn insert(
        &mut self,
        topic: u32,
        limits: HistoryLimits,
        publication: Arc<Publication>,
        bytes: usize,
    ) -> RingId {
        let mut ring = Ring {
            topic,
            limits,
            publications: VecDeque::from([publication]),
            bytes,
            expiry_us: 0,
            colder: NONE,
            hotter: NONE,
        };
        ring.expiry_us = ring.oldest_expiry_us();
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
        self.remove_if_empty(ring)
    }

    fn remove_if_empty(&mut self, ring: u32) -> bool {
        if !self.rings[ring as usize].publications.is_empty() {
            return false;
        }
        self.unlink(ring);
        self.bytes -= TOPIC_BYTES;
        let removed = self.rings.remove(ring as usize);
        self.expiries.remove(&(removed.expiry_us, ring));
        self.emptied.push(removed.topic);
        self.shrink.shrink(&mut self.rings);
        true
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Kind;
    use crate::topic::Topic;

    const MANY: RecoveryLimits = RecoveryLimits {
        publications_max: usize::MAX,
        bytes_max: usize::MAX,
    };

    const WIDE: HistoryLimits = HistoryLimits {
        publications_max: 1000,
        bytes_max: usize::MAX,
        age_max_ms: 1000,
    };

    fn publication(text: &str, at_us: u64) -> Arc<Publication> {
        Arc::new(Publication::new(Kind::Text, text.as_bytes(), at_us))
    }

    /// What one of [`publication`]'s costs.
    fn cost() -> usize {
        publication("x", 0).retained_bytes()
    }

    fn texts(histories: &mut Histories, ring: RingId, count: usize) -> String {
        let newest = histories.newest(ring, count, MANY);
        let texts = newest.iter().map(|next| next.payload().to_vec());
        String::from_utf8(texts.flatten().collect()).expect("text")
    }

    fn emptied(histories: &mut Histories) -> Vec<u32> {
        std::iter::from_fn(|| histories.take_emptied()).collect()
    }

    #[test]
    fn a_ring_keeps_the_newest_by_count_and_by_bytes() {
        for limits in [
            HistoryLimits {
                publications_max: 2,
                ..WIDE
            },
            HistoryLimits {
                bytes_max: 2 * cost() + 1,
                ..WIDE
            },
        ] {
            let mut histories = Histories::new(usize::MAX);
            let mut ring = None;
            for text in ["a", "b", "c"] {
                ring = Some(histories.push(ring, 0, limits, publication(text, 0)));
            }
            let ring = ring.expect("pushed");
            assert_eq!(texts(&mut histories, ring, 10), "bc");
            assert_eq!(texts(&mut histories, ring, 1), "c");
            assert_eq!(histories.bytes(), 2 * cost() + TOPIC_BYTES);
            assert_eq!(histories.publications(), 2);
            assert_eq!(histories.size(ring).publications, 2);
        }
    }

    #[test]
    fn what_is_too_old_goes_and_an_empty_ring_leaves_nothing() {
        let mut histories = Histories::new(usize::MAX);
        let ring = histories.push(None, 7, WIDE, publication("a", 0));
        histories.push(Some(ring), 7, WIDE, publication("b", 500_000));
        histories.expire(999_999);
        assert_eq!(texts(&mut histories, ring, 10), "ab");
        histories.expire(1_000_000);
        assert_eq!(texts(&mut histories, ring, 10), "b");
        assert!(emptied(&mut histories).is_empty());
        histories.expire(1_500_000);
        assert_eq!(emptied(&mut histories), [7]);
        assert_eq!((histories.bytes(), histories.rings.len()), (0, 0));
        assert!(histories.expiries.is_empty());
        assert_eq!((histories.coldest, histories.hottest), (NONE, NONE));
    }

    #[test]
    fn a_publish_to_another_topic_tells_the_time() {
        let mut histories = Histories::new(usize::MAX);
        let old = histories.push(None, 0, WIDE, publication("a", 0));
        histories.push(None, 1, WIDE, publication("b", 1_000_000));
        assert_eq!(texts(&mut histories, old, 10), "");
        assert_eq!(emptied(&mut histories), [0]);
    }

    #[test]
    fn the_coldest_ring_is_trimmed_first() {
        let bytes_max = 4 * cost() + 3 * TOPIC_BYTES;
        let mut histories = Histories::new(bytes_max);
        let first = histories.push(None, 0, WIDE, publication("a", 0));
        let second = histories.push(None, 1, WIDE, publication("A", 0));
        histories.push(Some(first), 0, WIDE, publication("b", 0));
        histories.push(Some(second), 1, WIDE, publication("B", 0));
        // A recovery is a use.
        assert_eq!(texts(&mut histories, first, 10), "ab");
        let third = histories.push(None, 2, WIDE, publication("1", 0));
        assert_eq!(texts(&mut histories, second, 10), "B");
        assert_eq!(texts(&mut histories, first, 10), "ab");
        assert!(emptied(&mut histories).is_empty());
        for _ in 0..100 {
            histories.push(Some(third), 2, WIDE, publication("2", 0));
        }
        assert_eq!(emptied(&mut histories), [0, 1]);
        let fitting = (bytes_max - TOPIC_BYTES) / cost();
        assert_eq!(histories.publications(), fitting);
        histories.push(Some(third), 2, WIDE, publication("3", 0));
        let texts = texts(&mut histories, third, 100);
        assert_eq!(texts, "2".repeat(fitting - 1) + "3");
    }

    /// A publication whose other forms count, given one of so many bytes.
    fn with_form(histories: &Histories, text: &str, form_bytes: usize) -> Arc<Publication> {
        let mut publication = Publication::new(Kind::Text, text.as_bytes(), 0);
        let topic = Topic::from_text("t").expect("a topic");
        let position = publication.position();
        publication.place(topic, position, Some(histories.forms()));
        publication.encoded(4, || vec![0; form_bytes].into());
        Arc::new(publication)
    }

    #[test]
    fn other_forms_count_for_as_long_as_they_live() {
        let mut histories = Histories::new(usize::MAX);
        let publication = with_form(&histories, "a", 1000);
        let (live, forms) = (Arc::clone(&publication), publication.form_bytes());
        assert!(forms >= 1000);
        let ring = histories.push(None, 0, WIDE, publication);
        assert_eq!(histories.bytes(), cost() + TOPIC_BYTES + forms);
        assert_eq!(histories.size(ring).bytes, cost());
        live.encoded(8, || vec![0; 500].into());
        assert!(histories.bytes() >= cost() + TOPIC_BYTES + forms + 500);
        histories.expire(1_000_000);
        assert_eq!(histories.bytes(), live.form_bytes());
        drop(live);
        assert_eq!(histories.bytes(), 0);
    }

    #[test]
    fn forms_that_come_later_make_the_coldest_give_way() {
        let bytes_max = 2 * (cost() + TOPIC_BYTES) + 1500;
        let mut histories = Histories::new(bytes_max);
        let cold = with_form(&histories, "a", 1000);
        histories.push(None, 0, WIDE, Arc::clone(&cold));
        let hot = histories.push(None, 1, WIDE, with_form(&histories, "b", 10));
        histories.expire(0);
        assert!(emptied(&mut histories).is_empty());
        cold.encoded(8, || vec![0; 500].into());
        histories.expire(0);
        assert_eq!(emptied(&mut histories), [0]);
        // What is on its way out still counts, and yet nothing else goes for it.
        assert_eq!(texts(&mut histories, hot, 10), "b");
    }

    #[test]
    fn what_no_ring_may_hold_is_not_kept() {
        let mut histories = Histories::new(cost() - 1);
        histories.push(None, 3, WIDE, publication("a", 0));
        assert_eq!(emptied(&mut histories), [3]);
        assert_eq!(histories.bytes(), 0);
    }

    #[test]
    fn recovery_hands_out_no_more_than_its_limits() {
        let mut histories = Histories::new(usize::MAX);
        let ring = histories.push(None, 0, WIDE, publication("a", 0));
        for text in ["b", "c"] {
            histories.push(Some(ring), 0, WIDE, publication(text, 0));
        }
        let frame_bytes = publication("x", 0).frame().len();
        for limits in [
            RecoveryLimits {
                publications_max: 2,
                ..MANY
            },
            RecoveryLimits {
                bytes_max: 3 * frame_bytes - 1,
                ..MANY
            },
        ] {
            assert_eq!(histories.newest(ring, 3, limits).len(), 2);
            assert!(histories.newest_if_all(ring, 3, limits).is_none());
            let two = histories
                .newest_if_all(ring, 2, limits)
                .expect("within the limits");
            assert_eq!(two[0].payload(), b"b");
        }
    }

    #[test]
    fn a_queue_that_has_shrunk_gives_its_memory_back() {
        let mut histories = Histories::new(usize::MAX);
        let ring = histories.push(None, 0, WIDE, publication("a", 0));
        for number in 1..1000 {
            histories.push(Some(ring), 0, WIDE, publication("a", number));
        }
        histories.expire(1_000_000 + 997);
        let queue = &histories.rings[ring.0 as usize].publications;
        assert_eq!(queue.len(), 2);
        assert!(queue.capacity() <= 2 * PLACES_KEPT, "{}", queue.capacity());
    }
}
