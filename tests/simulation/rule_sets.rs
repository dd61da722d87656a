//! Rules of topics as reloads change them: which were in force, and when.

use umbel::internals::topic::{HistoryLimits, Rule};

use super::records::Records;

/// Rules from a reload on.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    from_ms: u64,
    /// When those behind them had reached every topic. None: they may still be in force somewhere.
    until_ms: Option<u64>,
}

impl RuleSet {
    /// Rules of the start.
    pub fn first(rules: Vec<Rule>) -> RuleSet {
        RuleSet {
            rules,
            ..RuleSet::default()
        }
    }
}

impl Records {
    /// Other rules begin to be in force.
    pub fn reload(&mut self, rules: Vec<Rule>, now_ms: u64) {
        self.rules.clone_from(&rules);
        self.rule_sets.push(RuleSet {
            rules,
            from_ms: now_ms,
            until_ms: None,
        });
    }

    /// Whether rules of before may still be in force.
    pub fn is_reloading(&self) -> bool {
        let earlier = self.rule_sets.split_last().map(|(_, earlier)| earlier);
        earlier.is_some_and(|earlier| earlier.iter().any(|set| set.until_ms.is_none()))
    }

    /// The newest rules are the only ones from here on.
    pub fn end_reload(&mut self, now_ms: u64) {
        if let Some((_, earlier)) = self.rule_sets.split_last_mut() {
            for set in earlier {
                set.until_ms.get_or_insert(now_ms);
            }
        }
    }

    /// Rules of a topic that may have been in force in a span.
    pub fn rules_within(
        &self,
        topic: usize,
        from_ms: u64,
        to_ms: u64,
    ) -> impl Iterator<Item = &Rule> {
        let sets = self.rule_sets.iter().filter(move |set| {
            set.from_ms <= to_ms && set.until_ms.is_none_or(|until_ms| until_ms >= from_ms)
        });
        sets.map(move |set| &set.rules[topic])
    }

    /// Least and most bounds of a history. The least of all times up to the end of a span, for what was let go does not come
    /// back; the most within the span.
    pub fn history_bounds(
        &self,
        topic: usize,
        from_ms: u64,
        to_ms: u64,
    ) -> (HistoryLimits, HistoryLimits) {
        let bounds = |from_ms, choose: fn(u64, u64) -> u64| {
            let limits = self
                .rules_within(topic, from_ms, to_ms)
                .map(|rule| rule.history);
            let both = |one: HistoryLimits, other: HistoryLimits| HistoryLimits {
                publications_max: choose(one.publications_max.into(), other.publications_max.into())
                    as u32,
                bytes_max: choose(one.bytes_max as u64, other.bytes_max as u64) as usize,
                age_max_ms: choose(one.age_max_ms, other.age_max_ms),
                ..one
            };
            limits.reduce(both).expect("there are rules at any time")
        };
        (bounds(0, u64::min), bounds(from_ms, u64::max))
    }

    /// Whether a topic may have been without presence in a span.
    pub fn may_lack_presence(&self, topic: usize, from_ms: u64, to_ms: u64) -> bool {
        let mut rules = self.rules_within(topic, from_ms, to_ms);
        rules.any(|rule| !rule.presence)
    }

    /// Whether a topic may have had presence in a span.
    pub fn may_have_presence(&self, topic: usize, from_ms: u64, to_ms: u64) -> bool {
        let mut rules = self.rules_within(topic, from_ms, to_ms);
        rules.any(|rule| rule.presence)
    }
}
