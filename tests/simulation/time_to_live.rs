//! Publishes that are of use for a while only: who may miss them, and who must not get them any more.

use super::cover::Cover;
use super::peer::Surroundings;
use super::records::Records;
use super::topics::Place;
use super::views::{Item, Start, View};
use umbel::internals::topic::SlowConsumer;

/// Gives some publishes a time to live, which is to be sent with them.
pub fn some_ttl_ms(number: usize, around: &mut Surroundings<'_>) -> Option<u64> {
    let ttl_ms = around
        .random
        .chance(20)
        .then(|| around.random.within(1, 150))?;
    around.records.publishes[number].ttl_ms = Some(ttl_ms);
    around.cover.add("publish with a time to live", 1);
    Some(ttl_ms)
}

impl Records {
    /// The end of the time to live of what stands at a place. Of what nobody was given it is not known when it came in,
    /// and so it is the earliest.
    fn expires_ms(&self, topic: usize, place: Place) -> Option<u64> {
        let number = *self.places[topic].get(&place)?;
        let publish = &self.publishes[number];
        let earliest_ms = publish.ttl_ms.map(|ttl_ms| publish.sent_ms + ttl_ms);
        publish.expires_ms.or(earliest_ms)
    }

    /// Whether a publish that nobody was told the place of may have been over by a moment.
    fn may_be_unseen(&self, topic: usize, by_ms: u64) -> bool {
        self.publishes.iter().any(|publish| {
            let end_ms = publish.ttl_ms.map(|ttl_ms| publish.sent_ms + ttl_ms);
            let is_unseen = publish.topic == topic && publish.place.is_none();
            is_unseen && end_ms.is_some_and(|end_ms| end_ms <= by_ms)
        })
    }

    fn is_mortal(&self, topic: usize, place: Place) -> bool {
        let number = self.places[topic].get(&place);
        number.is_some_and(|number| self.publishes[*number].ttl_ms.is_some())
    }

    /// Whether what stands at a place may have been over by a moment.
    pub fn may_have_ended(&self, topic: usize, place: Place, by_ms: u64) -> bool {
        match self.places[topic].contains_key(&place) {
            true => self
                .expires_ms(topic, place)
                .is_some_and(|end_ms| end_ms <= by_ms),
            false => self.may_be_unseen(topic, by_ms),
        }
    }

    /// Whether what stands at a place may be missing from a view without a word: it was over when the view began, or may go
    /// while it waits.
    pub fn may_be_over(&self, view: &View, topic: usize, place: Place) -> bool {
        let is_replayed = |told: Place| told.0 == place.0 && place.1 <= told.1;
        let was_over = self.may_have_ended(topic, place, view.began_ms);
        was_over && view.told.is_some_and(is_replayed)
            || view.policy == SlowConsumer::Latest && self.is_mortal(topic, place)
    }

    /// Whether what stands at a place, or a newer one of its key that took its place, may have gone while it waited.
    pub fn may_have_gone(&self, topic: usize, place: Place) -> bool {
        let key_of = |number: &usize| self.publishes[*number].key;
        let mut newer = self.places[topic].range(place..);
        let Some(key) = self.places[topic].get(&place).map(key_of) else {
            return false;
        };
        newer.any(|(_, number)| key_of(number) == key && self.publishes[*number].ttl_ms.is_some())
    }

    /// What came out of the history was not over when it was asked for; and what a gap names where nothing else may go was.
    pub fn check_mortals(&self, view: &View, topic: usize, cover: &mut Cover) {
        let Some(told) = view.told else { return };
        for item in &view.items {
            match *item {
                Item::Seen(number) => {
                    let publish = &self.publishes[number];
                    let place = publish.place.expect("what is seen has its place");
                    let is_replayed = view.start != Start::Now && place <= told;
                    let Some(end_ms) = publish.expires_ms.filter(|_| is_replayed) else {
                        continue;
                    };
                    cover.add("recovered before the end of its time", 1);
                    assert!(end_ms > view.asked_ms, "{publish:?} was over: {view:?}");
                }
                Item::Gap(_, from, to) if view.policy == SlowConsumer::Close => {
                    cover.add("gap for what is over", 1);
                    for offset in from.1..=to.1 {
                        let place = (from.0, offset);
                        assert!(
                            self.may_be_over(view, topic, place),
                            "{place:?} was not over: {view:?}"
                        );
                    }
                }
                Item::Gap(..) => {}
            }
        }
    }

    /// Publishes of a topic that were certainly not over when a view began, and their bytes. One whose publisher was not told
    /// its place may have had a time to live.
    pub fn lasting(
        &self,
        topic: usize,
        view: &View,
        offsets: impl Iterator<Item = u64>,
        epoch: u64,
    ) -> (u64, usize) {
        let (mut count, mut bytes) = (0, 0);
        for offset in offsets {
            let place = (epoch, offset);
            let expires_ms = self.expires_ms(topic, place);
            if expires_ms.is_some_and(|end_ms| end_ms <= view.began_ms) {
                continue;
            }
            let Some(number) = self.places[topic].get(&place) else {
                continue;
            };
            count += 1;
            bytes += self.publishes[*number].payload_bytes;
        }
        (count, bytes)
    }
}
