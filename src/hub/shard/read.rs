//! Histories to read: a page of a topic's publications, for whoever does not subscribe.

use super::Shard;
use crate::hub::command::{Effect, HistoryPage, ReactorId, Read, Start};
use crate::hub::history::RecoveryLimits;
use crate::hub::publication::Position;
use crate::topic::Topic;

impl Shard {
    /// The answer to who reads a history. A topic that nobody knows does not come into being by it.
    pub(super) fn read(&mut self, read: Read) -> Effect {
        let Read {
            topic,
            reactor,
            connection,
            request,
            start,
            publications_max,
            now_us,
        } = read;
        self.histories.advance(now_us);
        let limits = RecoveryLimits {
            publications_max: self
                .recovery
                .publications_max
                .min(publications_max as usize),
            ..self.recovery
        };
        let place = self.topics.find(&topic);
        let page = match place {
            Some(place) => self.page(place, start, limits),
            None => HistoryPage {
                recovered: matches!(start, Start::Since(_)).then_some(false),
                ..HistoryPage::default()
            },
        };
        // What was asked for may turn out to be too old.
        self.remove_emptied();
        Effect::Read {
            reactor,
            connection,
            request,
            page: Box::new(page),
        }
    }

    /// Empties a topic's history. Whoever comes back with an older position is not recovered, for its epoch is another.
    pub(super) fn empty(&mut self, topic: &Topic, reactor: ReactorId, connection: u64) -> Effect {
        let place = self.topics.find(topic);
        let state = place.and_then(|place| self.topics.get_mut(place));
        let position = state.map(|state| {
            let epoch = Shard::take_epoch(&mut self.next_epoch);
            state.position = Position { epoch, offset: 0 };
            if let Some(ring) = state.reactors.kept().and_then(|kept| kept.ring) {
                self.histories.clear(ring);
            }
            state.position
        });
        self.remove_emptied();
        let page = HistoryPage {
            position,
            ..HistoryPage::default()
        };
        Effect::Read {
            reactor,
            connection,
            request: 0,
            page: Box::new(page),
        }
    }

    fn page(&mut self, place: u32, start: Start, limits: RecoveryLimits) -> HistoryPage {
        let Some(state) = self.topics.get_mut(place) else {
            return HistoryPage::default();
        };
        let position = state.position;
        let ring = state.reactors.kept().and_then(|kept| kept.ring);
        let histories = &mut self.histories;
        let (recovered, page) = match start {
            Start::Now => (None, None),
            Start::Last(count) => {
                let after = position.offset.saturating_sub(u64::from(count));
                let page =
                    ring.and_then(|ring| histories.first_after(ring, (after, false), limits));
                (None, page)
            }
            Start::Since(since) => {
                let is_known = since.epoch == position.epoch && since.offset <= position.offset;
                let page = match (is_known, ring) {
                    (true, _) if since.offset == position.offset => Some((Vec::new(), false)),
                    (true, Some(ring)) => histories.first_after(ring, (since.offset, true), limits),
                    _ => None,
                };
                (Some(page.is_some()), page)
            }
        };
        let (publications, has_more) = page.unwrap_or_default();
        HistoryPage {
            position: Some(position),
            recovered,
            publications,
            has_more,
        }
    }
}
