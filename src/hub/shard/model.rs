//! A naive model of a shard: what it is to do, worked out in the plainest way.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::hub::history::{HEAD_SLACK_US, TOPIC_BYTES};
use crate::topic::Pattern;
use crate::topic::{Rule, TopicRule};

pub(super) const TOPICS: [&str; 7] = [
    "ring/a", "ring/b", "wide/a", "wide/b", "room/a", "both/a", "bare/a",
];

pub(super) const RULES: [&str; 4] = [
    "ring/* history=5 history_bytes_max=2500 history_age_max_ms=3",
    "wide/* history=1000 history_age_max_ms=60000",
    "room/* presence=on",
    "both/* history=3 presence=on",
];

/// Rules that a reload may bring, those of the start among them.
pub(super) const RELOADS: [&[&str]; 4] = [
    &RULES,
    &[
        "ring/a history=2 history_age_max_ms=60000",
        "ring/b history=1000 history_bytes_max=600",
        "wide/a presence=on",
        "room/* history=4",
        "bare/* history=5 presence=on",
    ],
    &["** presence=on"],
    &[],
];

pub(super) fn rules(texts: &[&str]) -> TopicRules {
    let rules = texts
        .iter()
        .map(|text| TopicRule::parse(text).expect("a rule"));
    TopicRules::new(rules.collect())
}

pub(super) const PATTERNS: [&str; 4] = ["**", "ring/*", "*/a", "bare/a"];

pub(super) fn settings() -> ShardSettings {
    ShardSettings {
        rules: rules(&RULES),
        history_bytes_max: 6000 + 3 * TOPIC_BYTES,
        recovery_publications_max: 4,
        recovery_bytes_max: 800,
        presence_max: 2,
        ..ShardSettings::default()
    }
}

pub(super) fn name(topic: usize) -> Topic {
    Topic::from_text(TOPICS[topic]).expect("a topic")
}

/// An effect, without what the model does not foresee: epochs are the ledger's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seen {
    Deliver(u16, u32, u32, u64),
    Joined(u16, u64, u64, Option<bool>, Vec<u64>),
    Changed(u16, u32, u64, bool),
    Present(Vec<(u16, u64)>, u32),
    Published(u64),
    Read(Option<u64>, Option<bool>, Vec<u64>, bool),
}

#[derive(Debug, Default)]
pub(super) struct TopicModel {
    pub(super) newest: u64,
    /// What its history holds: offset, bytes kept, bytes of the frame, moment.
    history: Vec<(u64, usize, usize, u64)>,
    /// Something is kept of it besides subscribers and members.
    is_kept: bool,
    /// Where it stands is kept until then, even without publications.
    head_until_us: u64,
    /// Greater for what was used later.
    used: u64,
    pub(super) reactors: Vec<(u16, LocalTopic)>,
    told: BTreeSet<(u16, u64)>,
    untold: BTreeSet<(u16, u64)>,
}

impl TopicModel {
    pub(super) fn bytes(&self) -> usize {
        self.history.iter().map(|kept| kept.1).sum()
    }

    /// What of it counts towards what all histories may hold.
    pub(super) fn cost(&self) -> usize {
        let topic_bytes = if self.is_kept { TOPIC_BYTES } else { 0 };
        self.bytes() + topic_bytes
    }

    /// What a listing shows of it.
    pub(super) fn listed(&self) -> (u64, usize, usize, usize) {
        let present = self.told.len() + self.untold.len();
        (self.newest, self.history.len(), self.bytes(), present)
    }

    pub(super) fn is_unused(&self) -> bool {
        self.reactors.is_empty() && !self.is_kept && self.told.is_empty() && self.untold.is_empty()
    }

    pub(super) fn trim(&mut self, rule: &Rule, now_us: u64) {
        let limits = rule.history;
        let age_us = limits.age_max_ms * 1000;
        while !self.history.is_empty()
            && (self.history.len() > limits.publications_max as usize
                || self.bytes() > limits.bytes_max
                || self.history[0].3 + age_us <= now_us)
        {
            self.history.remove(0);
        }
        self.is_kept &= !self.history.is_empty() || self.head_until_us > now_us;
    }

    /// Whether a listing shows it: where it stands is of interest only to those who left.
    pub(super) fn is_listed(&self) -> bool {
        let is_empty = self.history.is_empty() && self.told.is_empty() && self.untold.is_empty();
        !is_empty || !self.reactors.is_empty()
    }

    pub(super) fn tell(&self, connection: u64, is_join: bool, seen: &mut Vec<Seen>) {
        for (reactor, local) in &self.reactors {
            seen.push(Seen::Changed(*reactor, local.index, connection, is_join));
        }
    }
}

/// The shard's topics and patterns, without anything that is there for speed.
pub(super) struct Model {
    pub(super) settings: ShardSettings,
    pub(super) topics: BTreeMap<usize, TopicModel>,
    pub(super) patterns: BTreeMap<(usize, u16), LocalTopic>,
    uses: u64,
    now_us: u64,
}

impl Model {
    pub(super) fn new() -> Model {
        Model {
            settings: settings(),
            topics: BTreeMap::new(),
            patterns: BTreeMap::new(),
            uses: 0,
            now_us: 0,
        }
    }

    pub(super) fn rule(&self, topic: usize) -> Rule {
        self.settings.rules.rule(&name(topic))
    }

    pub(super) fn touch(&mut self, topic: usize) {
        self.uses += 1;
        self.topics.get_mut(&topic).expect("it is there").used = self.uses;
    }

    pub(super) fn collect(&mut self) {
        self.topics.retain(|_, topic| !topic.is_unused());
    }

    pub(super) fn publish(&mut self, topic: usize, publication: &Publication) -> Vec<Seen> {
        let rule = self.rule(topic);
        let has_history = rule.history.publications_max > 0;
        if has_history {
            self.topics.entry(topic).or_default();
        }
        let at_us = publication.published_at_us();
        let mut seen = Vec::new();
        let mut newest = 1;
        let mut deliver = |reactor: u16, local: LocalTopic, newest| {
            seen.push(Seen::Deliver(
                reactor,
                local.index,
                local.generation,
                newest,
            ));
        };
        if let Some(state) = self.topics.get_mut(&topic) {
            state.newest += 1;
            newest = state.newest;
            for &(reactor, local) in &state.reactors {
                deliver(reactor, local, newest);
            }
        }
        for (&(pattern, reactor), &local) in &self.patterns {
            let pattern = Pattern::parse(PATTERNS[pattern]).expect("a pattern");
            if pattern.matches(&name(topic)) {
                deliver(reactor, local, newest);
            }
        }
        seen.push(Seen::Published(newest));
        if has_history {
            self.now_us = self.now_us.max(at_us);
            self.touch(topic);
            let (bytes, frame) = (publication.retained_bytes(), publication.frame().len());
            let state = self.topics.get_mut(&topic).expect("it is there");
            state.history.push((newest, bytes, frame, at_us));
            state.is_kept = true;
            state.trim(&rule, self.now_us);
            self.keep_cap();
        }
        seen
    }

    /// Of the least recently used history the oldest goes, until the rest fits.
    pub(super) fn keep_cap(&mut self) {
        while self.topics.values().map(TopicModel::cost).sum::<usize>()
            > self.settings.history_bytes_max
        {
            let histories = self.topics.values_mut();
            let coldest = histories
                .filter(|topic| topic.is_kept)
                .min_by_key(|topic| topic.used)
                .expect("something is kept");
            if !coldest.history.is_empty() {
                coldest.history.remove(0);
            }
            coldest.is_kept = !coldest.history.is_empty();
            if !coldest.is_kept {
                coldest.head_until_us = 0;
            }
        }
        self.collect();
    }

    pub(super) fn expire(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
        let rules: Vec<Rule> = (0..TOPICS.len()).map(|topic| self.rule(topic)).collect();
        for (topic, state) in &mut self.topics {
            state.trim(&rules[*topic], self.now_us);
        }
        self.collect();
    }

    /// All topics have the new rules at once.
    pub(super) fn reload(&mut self, rules: TopicRules) -> Vec<Seen> {
        self.settings.rules = rules;
        let rules: Vec<Rule> = (0..TOPICS.len()).map(|topic| self.rule(topic)).collect();
        let mut seen = Vec::new();
        for (topic, state) in &mut self.topics {
            let history = rules[*topic].history;
            let head_max_us = match history.publications_max {
                0 => 0,
                _ => self.now_us + history.age_max_ms * 1000 + HEAD_SLACK_US,
            };
            state.head_until_us = state.head_until_us.min(head_max_us);
            state.trim(&rules[*topic], self.now_us);
            if !rules[*topic].presence {
                state.untold.clear();
                for (_, connection) in std::mem::take(&mut state.told) {
                    state.tell(connection, false, &mut seen);
                }
            }
        }
        self.collect();
        seen
    }

    pub(super) fn subscribe(&mut self, topic: usize, reactor: u16, local: LocalTopic) {
        let state = self.topics.entry(topic).or_default();
        match state.reactors.iter_mut().find(|known| known.0 == reactor) {
            Some(known) => known.1 = local,
            None => state.reactors.push((reactor, local)),
        }
    }

    pub(super) fn unsubscribe(&mut self, topic: usize, reactor: u16, local: LocalTopic) {
        let history = self.rule(topic).history;
        if let Some(state) = self.topics.get_mut(&topic) {
            let had_subscribers = !state.reactors.is_empty();
            state.reactors.retain(|known| *known != (reactor, local));
            let is_left = had_subscribers && state.reactors.is_empty();
            if is_left && history.publications_max > 0 {
                state.is_kept = true;
                state.head_until_us = self.now_us + history.age_max_ms * 1000 + HEAD_SLACK_US;
                self.touch(topic);
                self.keep_cap();
            }
        }
        self.collect();
    }

    pub(super) fn join(
        &mut self,
        topic: usize,
        reactor: u16,
        connection: u64,
        start: JoinStart,
    ) -> Vec<Seen> {
        let (rule, settings) = (self.rule(topic), self.settings.clone());
        let state = self.topics.get_mut(&topic).expect("it has subscribers");
        let mut seen = Vec::new();
        let member = (reactor, connection);
        if rule.presence && !state.told.contains(&member) && !state.untold.contains(&member) {
            if state.told.len() < settings.presence_max {
                state.told.insert(member);
                state.tell(connection, true, &mut seen);
            } else {
                state.untold.insert(member);
            }
        }
        let newest = state.newest;
        let wanted = match start {
            JoinStart::Nothing | JoinStart::Since(Some(0)) => None,
            JoinStart::Last(count) => Some(count),
            JoinStart::Since(missed) => missed,
        };
        let mut offsets = Vec::new();
        if let Some(wanted) = wanted {
            state.trim(&rule, self.now_us);
            let kept = state.history.iter().rev();
            let mut bytes = 0;
            let fitting = kept
                .take(settings.recovery_publications_max)
                .take_while(|kept| {
                    bytes += kept.2;
                    bytes <= settings.recovery_bytes_max
                });
            offsets = fitting.map(|kept| kept.0).take(wanted as usize).collect();
            offsets.reverse();
            if state.is_kept {
                self.touch(topic);
            }
        }
        let recovered = match start {
            JoinStart::Nothing | JoinStart::Last(_) => None,
            JoinStart::Since(Some(missed)) => Some(offsets.len() as u64 == missed),
            JoinStart::Since(None) => Some(false),
        };
        if recovered == Some(false) {
            offsets.clear();
        }
        seen.push(Seen::Joined(
            reactor, connection, newest, recovered, offsets,
        ));
        seen
    }

    pub(super) fn read(&mut self, topic: usize, start: JoinStart, limit: u32) -> Vec<Seen> {
        let (rule, settings) = (self.rule(topic), self.settings.clone());
        let Some(state) = self.topics.get_mut(&topic) else {
            let recovered = matches!(start, JoinStart::Since(_)).then_some(false);
            return vec![Seen::Read(None, recovered, Vec::new(), false)];
        };
        let (wanted, is_exact) = match start {
            JoinStart::Nothing => (None, false),
            JoinStart::Last(count) => (Some(count), false),
            JoinStart::Since(missed) => (missed, true),
        };
        let (mut offsets, mut has_more, mut recovered) = (Vec::new(), false, wanted.is_some());
        if let Some(wanted) = wanted.filter(|wanted| *wanted > 0 || !is_exact) {
            state.trim(&rule, self.now_us);
            let kept = state.history.len();
            recovered = wanted <= kept as u64;
            if recovered || !is_exact {
                let wanted = kept.min(wanted as usize);
                let limit = settings.recovery_publications_max.min(limit as usize);
                let mut bytes = 0;
                for next in state.history[kept - wanted..].iter().take(limit) {
                    bytes += next.2;
                    if offsets.is_empty() || bytes <= settings.recovery_bytes_max {
                        offsets.push(next.0);
                    } else {
                        break;
                    }
                }
                has_more = offsets.len() < wanted;
            }
            if state.is_kept {
                self.touch(topic);
            }
        }
        let newest = self.topics.get(&topic).map(|state| state.newest);
        self.collect();
        let recovered = matches!(start, JoinStart::Since(_)).then_some(recovered);
        vec![Seen::Read(newest, recovered, offsets, has_more)]
    }

    pub(super) fn leave(&mut self, topic: usize, reactor: u16, connection: u64) -> Vec<Seen> {
        let mut seen = Vec::new();
        if let Some(state) = self.topics.get_mut(&topic) {
            state.untold.remove(&(reactor, connection));
            if state.told.remove(&(reactor, connection)) {
                state.tell(connection, false, &mut seen);
                if let Some(next) = state.untold.pop_first() {
                    state.told.insert(next);
                    state.tell(next.1, true, &mut seen);
                }
            }
        }
        self.collect();
        seen
    }

    pub(super) fn present(&self, topic: usize) -> Vec<Seen> {
        let state = self.topics.get(&topic);
        let (told, untold) = state.map_or((Vec::new(), 0), |state| {
            (state.told.iter().copied().collect(), state.untold.len())
        });
        let total = (told.len() + untold) as u32;
        vec![Seen::Present(told, total)]
    }
}

/// What a join asks for, worked out.
#[derive(Clone, Copy)]
pub(super) enum JoinStart {
    Nothing,
    Last(u64),
    /// How many were missed. None: the position is none of this life's.
    Since(Option<u64>),
}
