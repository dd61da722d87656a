//! Topics that keep the newest of each key: what a subscriber gets first, and what it must not get.

use std::collections::BTreeMap;

use super::cover::Cover;
use super::peer::Surroundings;
use super::records::Records;
use super::topics::Place;
use super::views::{Start, View};

/// Lets some publishes delete their key, which is to be sent with them.
pub fn some_tombstone(number: usize, around: &mut Surroundings<'_>) -> bool {
    let is_tombstone = around.random.chance(10);
    around.records.publishes[number].is_tombstone = is_tombstone;
    around.cover.add("tombstone", u64::from(is_tombstone));
    is_tombstone
}

impl Records {
    /// Whether a subscription begins with the newest of each key.
    pub fn begins_with_state(&self, topic: usize, start: Start, recovered: Option<bool>) -> bool {
        let is_asked = start == Start::Now || recovered == Some(false);
        self.rules[topic].history.latest_only && is_asked
    }

    /// Whether what stands at a place is a tombstone from before a subscription that begins with the newest of each key.
    pub fn is_left_out(&self, view: &View, topic: usize, place: Place) -> bool {
        let number = self.places[topic].get(&place);
        let is_tombstone = number.is_some_and(|number| self.publishes[*number].is_tombstone);
        is_tombstone && view.is_state && view.told.is_some_and(|told| place <= told)
    }

    /// What comes first is the newest of its key and no tombstone; and if it is said to be whole, no key is missing.
    pub fn check_state(&self, view: &View, topic: usize, cover: &mut Cover) {
        let Some(told) = view.told.filter(|_| view.is_state) else {
            return;
        };
        let first: Place = (told.0, 0);
        let earlier = || self.places[topic].range(first..=told);
        let newest: BTreeMap<_, _> = earlier()
            .map(|(place, number)| (self.publishes[*number].key, (*place, *number)))
            .collect();
        let seen: Vec<usize> = view.seen().collect();
        for number in &seen {
            let publish = &self.publishes[*number];
            let place = publish.place.expect("what is seen has its place");
            if place.0 != told.0 || place > told {
                continue;
            }
            cover.add("newest of a key for who comes", 1);
            assert_eq!(
                newest[&publish.key],
                (place, *number),
                "a newer one is known: {view:?}"
            );
            assert!(!publish.is_tombstone, "{publish:?} came first: {view:?}");
        }
        if let Some(reached) = seen.last().and_then(|last| self.publishes[*last].place) {
            cover.add("newest of all keys", 1);
            self.check_snapshot(view, topic, reached);
        }
    }

    /// Of a snapshot that is said to be whole nothing is missing up to the place that a view has reached, for it comes in
    /// order.
    pub fn check_snapshot(&self, view: &View, topic: usize, reached: Place) {
        let Some(told) = view.told.filter(|_| view.is_state) else {
            return;
        };
        let earlier = || self.places[topic].range((told.0, 0)..=told);
        // Nobody may have seen where some stand.
        let is_known = earlier().count() as u64 == told.1;
        if view.snapshot != Some(true) || !is_known || !view.has_echo {
            return;
        }
        let newest: BTreeMap<_, _> = earlier()
            .map(|(_, number)| (self.publishes[*number].key, *number))
            .collect();
        for number in newest.into_values() {
            let publish = &self.publishes[number];
            let is_owed = publish.place <= Some(reached);
            assert!(
                !is_owed
                    || publish.is_tombstone
                    || publish.ttl_ms.is_some()
                    || view.seen().any(|seen| seen == number),
                "{publish:?} is missing from {view:?}"
            );
        }
    }
}
