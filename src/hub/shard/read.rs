//! Histories to read: a page of a topic's publications, for whoever does not subscribe.

use super::Shard;
use crate::hub::command::{Effect, HistoryPage, Read, Start};
use crate::hub::history::RecoveryLimits;

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
