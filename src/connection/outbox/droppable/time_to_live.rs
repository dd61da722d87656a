//! Publications whose time to live is over while they wait.

use super::{Dropped, Flow, Mark, Marks};
use crate::connection::outbox::{Queue, Queued};

impl Marks {
    /// Whether a gap stands right before a segment, but for empty ones.
    fn is_behind_gap(&self, index: usize) -> bool {
        let mut before = self.marks.range(..index).rev();
        let before = before.find(|mark| !matches!(mark, Mark::Empty));
        matches!(before, Some(Mark::Gap(_)))
    }
}

impl Queue {
    /// Drops publications whose time to live is over. They are those that may go and are not begun.
    pub(in crate::connection::outbox) fn expire_ttl(&mut self, now_ms: u64) -> Dropped {
        let (is_begun, mut dropped) = (self.is_front_begun(), Dropped::default());
        match &mut self.marks {
            Some(marks) if marks.ttl_ms <= now_ms => marks.ttl_ms = u64::MAX,
            _ => return dropped,
        }
        for index in usize::from(is_begun)..self.segments.len() {
            let Some(marks) = &mut self.marks else { break };
            let Some(end_ms) = marks.marks[index].expires_ms() else {
                continue;
            };
            if end_ms > now_ms {
                marks.ttl_ms = marks.ttl_ms.min(end_ms);
            } else if let Mark::Latest(latest) = &marks.marks[index] {
                let flow = Flow::of(latest, latest.key.clone());
                let number = marks.first + index as u64;
                if marks.latest.get(&flow) == Some(&number) {
                    marks.latest.remove(&flow);
                }
                self.take_out(index);
                dropped.replaced += 1;
            } else {
                let is_behind_gap = marks.is_behind_gap(index);
                self.drop_oldest(index, is_behind_gap, now_ms);
                dropped.oldest += 1;
            }
        }
        if let Some(marks) = &mut self.marks
            && dropped != Dropped::default()
        {
            marks.watch(now_ms);
        }
        let is_empty = |front: &Queued| front.segment.bytes().is_empty();
        if self.segments.front().is_some_and(is_empty) {
            self.pop_front();
        }
        self.renumber_if_sparse();
        dropped
    }
}
