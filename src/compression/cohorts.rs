//! The cohorts of a reactor: which topics have one, and for how long. What a [`Cohort`] is stands in [`cohort`].
//!
//! Each costs the memory of a compressor, so their number is bounded, the hottest topics have them, and one that is not
//! used is freed.
//!
//! [`cohort`]: super::cohort

use std::collections::HashMap;
use std::sync::Arc;

use super::cohort::{Cohort, Stretch, compression};
use super::deflated::Rule;
use crate::dialect::RecentDeliveries;
use crate::hub::Publication;

/// A cohort that has not been used for so long is freed.
const UNUSED_MS_MAX: u64 = 60_000;

struct Entry {
    cohort: Cohort,
    recent: RecentDeliveries,
    used_ms: u64,
}

/// Rule of a reactor's cohorts.
#[derive(Clone, Copy, Debug)]
pub struct CohortRule {
    /// Selection of publications, and the level.
    pub rule: Rule,
    /// Cohorts at a time.
    pub count_max: usize,
    /// Life of a context before joiners come in, in milliseconds.
    pub reset_interval_ms: u64,
}

/// The cohorts of a reactor: those of its hottest topics, for each costs the memory of a compressor.
pub struct Cohorts {
    by_topic: HashMap<u32, Entry>,
    rule: CohortRule,
    /// Every position that a place may hold lies below.
    next_start: u64,
    next_expiry_ms: u64,
    resets: u64,
}

impl Cohorts {
    /// None yet.
    pub fn new(rule: CohortRule) -> Cohorts {
        Cohorts {
            by_topic: HashMap::new(),
            rule,
            next_start: 0,
            next_expiry_ms: 0,
            resets: 0,
        }
    }

    /// Goes on by another rule. Cohorts of another level, or too many, are freed.
    pub fn set_rule(&mut self, rule: CohortRule) {
        let level = std::mem::replace(&mut self.rule, rule).rule.level;
        if level != rule.rule.level || self.by_topic.len() > rule.count_max {
            let topics: Vec<u32> = self.by_topic.keys().copied().collect();
            topics.into_iter().for_each(|topic| self.remove(topic));
        }
    }

    /// Lets the topic's cohort encode a batch: it has one, or is active enough to get one (it had a compressed delivery
    /// of late, and more of them than the topic whose cohort has to go for it). `audience` is how many connections
    /// could be members.
    pub fn encode(
        &mut self,
        topic: u32,
        recent: &mut RecentDeliveries,
        audience: u32,
        publications: &[Arc<Publication>],
        now_ms: u64,
    ) -> Option<(Stretch, Arc<[u8]>)> {
        let before = recent.add(audience, now_ms);
        if !self.by_topic.contains_key(&topic) {
            if before == 0 || !self.make_room(before, now_ms) {
                return None;
            }
            let cohort = Cohort::new(self.rule.rule.level, self.next_start);
            let (recent, used_ms) = (*recent, now_ms);
            self.by_topic.insert(
                topic,
                Entry {
                    cohort,
                    recent,
                    used_ms,
                },
            );
        }
        let entry = self.by_topic.get_mut(&topic)?;
        (entry.recent, entry.used_ms) = (*recent, now_ms);
        let resets = entry.cohort.resets();
        let mut frames = Vec::new();
        let stretch = entry.cohort.encode(
            publications,
            &self.rule.rule,
            self.rule.reset_interval_ms,
            now_ms,
            &mut frames,
        );
        self.resets += entry.cohort.resets() - resets;
        Some((stretch, frames.into()))
    }

    /// The batch that was encoded last for the topic has been delivered.
    pub fn finish(&mut self, topic: u32, members: u64, waiters: u64, now_ms: u64) {
        if let Some(entry) = self.by_topic.get_mut(&topic) {
            entry.cohort.finish(members, waiters, now_ms);
        }
    }

    /// Whether there is room for one more, after the coldest has gone if it is less than half as hot.
    fn make_room(&mut self, recent: u32, now_ms: u64) -> bool {
        if self.by_topic.len() < self.rule.count_max {
            return true;
        }
        let heats = self
            .by_topic
            .iter()
            .map(|(topic, entry)| (entry.recent.get(now_ms), *topic));
        match heats.min() {
            Some((coldest, topic)) if coldest < recent / 2 => {
                self.remove(topic);
                true
            }
            _ => false,
        }
    }

    /// Frees the topic's cohort, if it has one.
    pub fn remove(&mut self, topic: u32) {
        if let Some(entry) = self.by_topic.remove(&topic) {
            self.next_start = self.next_start.max(entry.cohort.position() + 1);
        }
    }

    /// Frees those that have not been used for long; true if there were such.
    pub fn expire(&mut self, now_ms: u64) -> bool {
        if now_ms < self.next_expiry_ms {
            return false;
        }
        self.next_expiry_ms = now_ms + UNUSED_MS_MAX / 8;
        let (count, next_start) = (self.by_topic.len(), &mut self.next_start);
        self.by_topic.retain(|_, entry| {
            let is_used = now_ms.saturating_sub(entry.used_ms) < UNUSED_MS_MAX;
            if !is_used {
                *next_start = (*next_start).max(entry.cohort.position() + 1);
            }
            is_used
        });
        self.by_topic.len() < count
    }

    /// Number of cohorts.
    pub fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// Heap bytes of their compressors.
    pub fn bytes(&self) -> usize {
        self.by_topic.len() * compression(self.rule.rule.level).bytes()
    }

    /// Reset points at which a context was forgotten.
    pub fn resets(&self) -> u64 {
        self.resets
    }
}

#[cfg(test)]
mod tests {
    use super::super::cohort::tests::{
        Listener, RESET_MS, RULE, noise, publication, tick, unshrinking,
    };
    use super::*;
    use crate::compression::deflated::FrameDeflater;
    use crate::dialect::{Dialects, Form};
    use crate::hub::Kind;
    use proptest::prelude::*;

    const NOBODY: [bool; 0] = [];

    /// A reactor's part in it.
    struct Desk {
        cohorts: Cohorts,
        deflater: FrameDeflater,
        heats: [RecentDeliveries; 4],
        now_ms: u64,
    }

    impl Desk {
        fn new(count_max: usize) -> Desk {
            Desk {
                cohorts: Cohorts::new(CohortRule {
                    rule: RULE,
                    count_max,
                    reset_interval_ms: RESET_MS,
                }),
                deflater: FrameDeflater::new(RULE),
                heats: [RecentDeliveries::default(); 4],
                now_ms: 0,
            }
        }

        /// Delivers a batch of texts; says who got it in the cohort's frames, and how long these are.
        fn deliver(
            &mut self,
            topic: u32,
            listeners: &mut [&mut Listener],
            texts: &[&str],
        ) -> (Vec<bool>, usize) {
            let publications: Vec<_> = texts
                .iter()
                .map(|text| publication(Kind::Text, text.as_bytes()))
                .collect();
            self.deliver_all(topic, listeners, &publications)
        }

        fn deliver_all(
            &mut self,
            topic: u32,
            listeners: &mut [&mut Listener],
            publications: &[Arc<Publication>],
        ) -> (Vec<bool>, usize) {
            let (form, dialects) = (Form::PAYLOAD_LARGE, Dialects::default());
            let single: Vec<u8> = publications
                .iter()
                .flat_map(|it| self.deflater.encode(it, form, &dialects).to_vec())
                .collect();
            let has_gap = publications
                .iter()
                .any(|it| self.deflater.is_left_plain(it, form, &dialects));
            let encoded = match publications.iter().any(|it| RULE.takes(it)) {
                true => self.cohorts.encode(
                    topic,
                    &mut self.heats[topic as usize],
                    listeners.len() as u32,
                    publications,
                    self.now_ms,
                ),
                false => None,
            };
            let (mut admitted, mut cohort_bytes) = (Vec::new(), 0);
            for listener in listeners {
                let mut frames = &single[..];
                if let Some((stretch, cohort_frames)) = &encoded {
                    cohort_bytes = cohort_frames.len();
                    match stretch.admits(&mut listener.place) {
                        true => frames = cohort_frames,
                        false => stretch.follow(&mut listener.place, has_gap),
                    }
                    // A write that was put off asks again.
                    let is_member = stretch.admits(&mut listener.place);
                    assert_eq!(is_member, std::ptr::eq(frames, &**cohort_frames));
                    admitted.push(is_member);
                }
                listener.read(frames, publications);
            }
            let members = admitted.iter().filter(|it| **it).count() as u64;
            let waiters = admitted.len() as u64 - members;
            self.cohorts.finish(topic, members, waiters, self.now_ms);
            (admitted, cohort_bytes)
        }
    }

    #[test]
    fn frames_refer_back_for_all_who_got_the_same() {
        let (mut desk, mut a, mut b) = (Desk::new(1), Listener::new(), Listener::new());
        let mut both = [&mut a, &mut b];
        // The first could be the only one, so it makes no cohort; the second begins one.
        assert_eq!(desk.deliver(0, &mut both, &[&tick(0)]).0, NOBODY);
        assert!(desk.cohorts.is_empty() && desk.cohorts.bytes() == 0);
        let (admitted, first) = desk.deliver(0, &mut both, &[&tick(1)]);
        assert_eq!(admitted, [true, true]);
        let (_, second) = desk.deliver(0, &mut both, &[&tick(2)]);
        assert!(first > 60 && second < 25, "{first} {second}");
        assert_eq!((desk.cohorts.len(), desk.cohorts.resets()), (1, 0));
        assert!(desk.cohorts.bytes() > 200_000);
    }

    #[test]
    fn several_publications_of_a_batch_are_one_piece() {
        let (mut desk, mut a) = (Desk::new(1), Listener::new());
        desk.deliver(0, &mut [&mut a], &[&tick(0)]);
        let texts = [&tick(1), "short", &unshrinking(1), "", &tick(2), &tick(3)];
        assert_eq!(desk.deliver(0, &mut [&mut a], &texts).0, [true]);
        let (admitted, len) = desk.deliver(0, &mut [&mut a], &[&tick(4), &tick(5)]);
        assert_eq!(admitted, [true]);
        assert!(len < 50, "{len}");
    }

    #[test]
    fn who_comes_late_is_in_step_after_a_window_of_text() {
        let (mut desk, mut first, mut late) = (Desk::new(1), Listener::new(), Listener::new());
        // What is said again is nearly a window back.
        let texts: Vec<_> = (0..31).map(|seed| noise(seed, 1024)).collect();
        for text in &texts {
            desk.deliver(0, &mut [&mut first], &[text]);
        }
        let (mut bytes, mut admitted) = (0, vec![]);
        for text in texts.iter().cycle().take(40) {
            let (who, len) = desk.deliver(0, &mut [&mut first, &mut late], &[text]);
            bytes = len;
            admitted.push(who);
        }
        let waiting = admitted.iter().take_while(|it| **it == [true, false]);
        assert_eq!(waiting.count(), 32);
        assert!(admitted.ends_with(&[vec![true; 2], vec![true; 2]]) && bytes < 100);
        assert_eq!(desk.cohorts.resets(), 0);
    }

    #[test]
    fn who_waits_for_long_gets_in_by_a_reset() {
        let (mut desk, mut first, mut late) = (Desk::new(1), Listener::new(), Listener::new());
        for turn in 0..2 {
            desk.deliver(0, &mut [&mut first], &[&tick(turn)]);
        }
        for (turn, resets) in [(2, 0), (3, 0), (4, 0), (5, 1), (6, 1)] {
            let (admitted, _) = desk.deliver(0, &mut [&mut first, &mut late], &[&tick(turn)]);
            assert_eq!(admitted, [true, resets == 1], "{turn}");
            assert_eq!(desk.cohorts.resets(), resets);
            desk.now_ms += RESET_MS / 2 - u64::from(turn == 2);
        }
        // And where nobody is in step there is no reason to wait.
        let mut others = [Listener::new(), Listener::new()];
        let [a, b] = &mut others;
        assert_eq!(desk.deliver(0, &mut [a, b], &[&tick(7)]).0, [false, false]);
        assert_eq!(desk.deliver(0, &mut [a, b], &[&tick(8)]).0, [true, true]);
    }

    /// What shrinks only with the help of the context goes out plain to a joiner, so it is not in its window, and what
    /// came before it is at another distance there.
    #[test]
    fn a_joiner_that_got_a_message_plain_is_behind_it() {
        let (mut desk, mut first, mut late) = (Desk::new(1), Listener::new(), Listener::new());
        let (helped, far) = (unshrinking(9), noise(1000, 2000));
        for text in [&tick(0), &format!("{helped}{helped}"), &tick(1)] {
            desk.deliver(0, &mut [&mut first], &[text]);
        }
        let both = &mut [&mut first, &mut late];
        let (admitted, len) = desk.deliver(0, both, &[&far, &helped]);
        assert!(admitted == [true, false] && len < 1900, "{len}");
        for turn in 0..15 {
            assert_eq!(
                desk.deliver(0, both, &[&noise(turn, 2050)]).0,
                [true, false]
            );
        }
        // A window behind the beginning of that batch, from where it can be referred to, and not behind its end.
        let (admitted, len) = desk.deliver(0, both, &[&far[1600..]]);
        assert!(admitted == [true, false] && len < 100, "{len}");
        for turn in 15..17 {
            assert_eq!(
                desk.deliver(0, both, &[&noise(turn, 2050)]).0,
                [true, turn == 16]
            );
        }
    }

    #[test]
    fn the_coldest_gives_way_to_one_twice_as_hot() {
        let mut desk = Desk::new(1);
        let mut listeners: Vec<_> = (0..9).map(|_| Listener::new()).collect();
        let mut all: Vec<_> = listeners.iter_mut().collect();
        for turn in 0..3 {
            desk.deliver(0, &mut all[..2], &[&tick(turn)]);
        }
        let recent = desk.heats[0].get(0);
        // Its recent deliveries before it count, which have to be more than twice as much.
        for turn in 0..=(recent as usize * 2) / 3 {
            assert_eq!(desk.deliver(1, &mut all[3..6], &[&tick(turn)]).0, NOBODY);
        }
        let admitted = desk.deliver(1, &mut all[3..6], &[&tick(0)]).0;
        assert_eq!(admitted, [true; 3]);
        assert!(desk.cohorts.len() == 1 && !desk.cohorts.by_topic.contains_key(&0));
        // With time what was hot cools down.
        desk.now_ms += 40_000;
        desk.deliver(0, &mut all[..2], &[&tick(0)]);
        assert_eq!(desk.deliver(0, &mut all[..2], &[&tick(0)]).0, [true; 2]);
        let mut none = Desk::new(0);
        for turn in 0..3 {
            assert_eq!(none.deliver(0, &mut all[7..], &[&tick(turn)]).0, NOBODY);
        }
    }

    #[test]
    fn what_is_not_used_is_freed() {
        let (mut desk, mut a) = (Desk::new(2), Listener::new());
        for turn in 0..2 {
            desk.deliver(0, &mut [&mut a], &[&tick(turn)]);
        }
        assert!(!desk.cohorts.expire(UNUSED_MS_MAX - 1));
        // Looked at again only after a while.
        assert!(!desk.cohorts.expire(UNUSED_MS_MAX));
        assert!(desk.cohorts.expire(2 * UNUSED_MS_MAX));
        assert!(desk.cohorts.is_empty());
        assert!(desk.cohorts.next_start > a.place.0);
    }

    #[test]
    fn places_of_former_cohorts_admit_nobody() {
        let (mut desk, mut former) = (Desk::new(2), Listener::new());
        for turn in 0..3 {
            desk.deliver(0, &mut [&mut former], &[&tick(turn)]);
        }
        desk.deliver(1, &mut [&mut Listener::new()], &[&tick(0)]);
        desk.cohorts.remove(0);
        desk.cohorts.remove(0);
        // The topic's number goes to another one.
        let mut other = Listener::new();
        assert_eq!(desk.deliver(0, &mut [&mut other], &[&tick(3)]).0, [true]);
        assert_eq!(
            desk.deliver(0, &mut [&mut other, &mut former], &[&tick(4)])
                .0,
            [true, false]
        );
    }

    /// A message that compresses well, badly, with help only, or not at all.
    fn message(choice: u8, turn: usize) -> Arc<Publication> {
        let text = match choice % 12 {
            0 => "short".to_owned(),
            1 => String::new(),
            2 => unshrinking(turn % 3),
            3 => unshrinking(turn),
            4 => noise(turn, 45),
            5 => noise(turn, 9000),
            6 => noise(turn % 2, 15_000),
            7 => noise(turn, 300).repeat(60),
            8 => "a".repeat(20_001),
            _ => tick(turn),
        };
        let kind = if choice >= 240 {
            Kind::Binary
        } else {
            Kind::Text
        };
        publication(kind, text.as_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn everybody_gets_everything(
            script in proptest::collection::vec((0u8..12, any::<u8>(), any::<u8>()), 1..120),
        ) {
            let mut desk = Desk::new(2);
            let mut topics: [Vec<Listener>; 4] = Default::default();
            for (turn, (op, first, second)) in script.into_iter().enumerate() {
                let topic = usize::from(first % 4);
                match op {
                    0 | 1 => topics[topic].push(Listener::new()),
                    2 if !topics[topic].is_empty() => {
                        let index = usize::from(second) % topics[topic].len();
                        topics[topic].swap_remove(index);
                        if topics[topic].is_empty() {
                            desk.cohorts.remove(topic as u32);
                        }
                    }
                    3 => desk.now_ms += u64::from(second) * 20,
                    4 => desk.now_ms += 20_000,
                    5 => drop(desk.cohorts.expire(desk.now_ms)),
                    _ => {
                        let batch: Vec<_> = (0..=first / 64)
                            .map(|number| message(second.wrapping_add(number * 5), turn))
                            .collect();
                        let mut listeners: Vec<_> = topics[topic].iter_mut().collect();
                        if !listeners.is_empty() {
                            desk.deliver_all(topic as u32, &mut listeners, &batch);
                        }
                    }
                }
                prop_assert!(desk.cohorts.len() <= 2);
            }
        }
    }
}
