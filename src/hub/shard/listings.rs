//! Listings of a shard's topics.

use super::{Shard, TopicState};
use crate::hub::listing::{HistorySize, Listed, Listing, PLACES_PER_LISTING, Scope};
use crate::hub::{Effect, ReactorId};
use crate::topic::Topic;

impl Shard {
    /// The topics of this scope, on their way to the reactors with subscribers of them.
    pub(super) fn list(&self, scope: &Scope, asker: ReactorId, connection: u64) -> Effect {
        let mut topics = Vec::new();
        let mut next = None;
        match scope {
            Scope::Topic(topic) => {
                let place = self.topics.find(topic);
                topics.extend(place.and_then(|place| self.listed(place)));
            }
            &Scope::Places {
                first, topics_max, ..
            } => {
                let places_end = self.topics.places_end();
                let end = first.saturating_add(PLACES_PER_LISTING).min(places_end);
                let mut place = first;
                while place < end && topics.len() < topics_max as usize {
                    topics.extend(self.listed(place));
                    place += 1;
                }
                next = (place < places_end).then_some(place);
            }
        }
        let (mut has_subscribers, mut is_inside) = (Vec::new(), false);
        for listed in &topics {
            is_inside |= self.mark_reactors(listed.place, &mut has_subscribers);
        }
        let inside = is_inside.then_some(ReactorId::INSIDE);
        let reactors = has_subscribers.iter().zip(0..);
        let reactors = reactors.filter_map(|(has, number)| has.then_some(ReactorId(number)));
        let reactors = reactors.chain(inside);
        let listing = Listing::new(asker, connection, topics, next, reactors);
        Effect::Listed {
            listing: Box::new(listing),
        }
    }

    fn listed(&self, place: u32) -> Option<Listed> {
        let (topic, state): (&Topic, &TopicState) = self.topics.get(place)?;
        let kept = state.reactors.kept_ref();
        let history = kept.filter(|kept| kept.history.publications_max > 0);
        let presence = kept.and_then(|kept| kept.presence.as_ref());
        let history = history.map(|kept| match kept.ring {
            Some(ring) => self.histories.size(ring),
            None => HistorySize::default(),
        });
        let is_empty = history.is_some_and(|history| history.publications == 0)
            && presence.is_none_or(|presence| presence.len() == 0);
        if is_empty && !state.reactors.has_any() {
            // A head alone is for those who left.
            return None;
        }
        Some(Listed {
            topic: topic.clone(),
            place,
            position: state.position,
            subscribers: 0,
            history,
            present: presence.map(|presence| u32::try_from(presence.len()).unwrap_or(u32::MAX)),
        })
    }

    /// Notes the reactors with subscribers of a topic, by their numbers. True: the program subscribes to it too.
    fn mark_reactors(&self, place: u32, marks: &mut Vec<bool>) -> bool {
        let Some((_, state)) = self.topics.get(place) else {
            return false;
        };
        let mut is_inside = false;
        state.reactors.for_each(|reactor, _| {
            if reactor == ReactorId::INSIDE {
                is_inside = true;
                return;
            }
            let number = usize::from(reactor.0);
            if marks.len() <= number {
                marks.resize(number + 1, false);
            }
            marks[number] = true;
        });
        is_inside
    }
}
