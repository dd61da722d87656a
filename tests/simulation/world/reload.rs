//! Reloads: topics get other rules while the node runs.

use std::sync::Arc;

use super::{TRAFFIC_MS, World};
use crate::random::Random;
use crate::topics;

impl World {
    /// Gives the node other rules, if their time has come.
    pub(super) fn reload(&mut self) {
        let due = self.reloads_ms.len();
        self.reloads_ms.retain(|at_ms| *at_ms > self.now_ms);
        if due == self.reloads_ms.len() {
            return;
        }
        let rules = topics::changed(&self.plan.rules, &mut self.random);
        let settings = self.plan.settings.clone();
        let settings = settings.with_topic_rules(topics::configured(&rules));
        let authority = match &mut self.records.rights {
            Some(rights) => rights.draft(),
            None => Arc::clone(&self.plan.authority),
        };
        let is_taken = self
            .node
            .reload(Arc::new(settings.clone()), Arc::clone(&authority));
        if !is_taken {
            self.cover.add("reload while one is under way", 1);
            return;
        }
        (self.plan.settings, self.plan.rules) = (settings, rules.clone());
        self.records.reload(rules, self.now_ms);
        self.plan.authority = authority;
        if let Some(rights) = &mut self.records.rights {
            rights.reload(self.now_ms);
        }
        self.cover.add("reload", 1);
    }

    /// Notes that a reload has reached every topic.
    pub(super) fn note_reloaded(&mut self) {
        if self.records.is_reloading() && !self.node.is_reloading() {
            self.records.end_reload(self.now_ms);
            self.cover.add("reload that has reached every topic", 1);
        }
        self.note_granted();
    }
}

/// When the node of a run gets other rules.
pub(super) fn times(random: &mut Random) -> Vec<u64> {
    let count = *random.pick(&[0, 0, 1, 1, 2, 3]);
    (0..count)
        .map(|_| random.within(20, TRAFFIC_MS - 20))
        .collect()
}
