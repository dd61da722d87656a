//! The topics and patterns of a run and the rules that topics get. Which pattern matches which topic is said here by hand,
//! for the model must not ask what it holds to account.

use umbel::internals::hub::{Position, Publication};
use umbel::internals::topic::Pattern;
use umbel::internals::topic::{HistoryLimits, Rule, SlowConsumer, TopicRule, TopicRules};

use super::random::Random;

pub const TOPICS: &[&str] = &["t0", "a/t1", "a/b.t2", "c", "a/c/d"];

/// Patterns, and the numbers of the topics that each matches.
const PATTERNS: &[(&str, &[usize])] = &[
    ("**", &[0, 1, 2, 3, 4]),
    ("*", &[0, 3]),
    ("a/**", &[1, 2, 4]),
    ("a/*", &[1]),
    ("a/b.*", &[2]),
    ("*/t1", &[1]),
    ("a/*.t2", &[2]),
    ("a/*/d", &[4]),
];

pub const PATTERN_COUNT: usize = PATTERNS.len();

/// What is subscribed to, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    Topic(usize),
    Pattern(usize),
}

impl Target {
    /// As it stands in a command: the name of the field and its value.
    pub fn field(self) -> (&'static str, &'static str) {
        match self {
            Target::Topic(number) => ("topic", TOPICS[number]),
            Target::Pattern(number) => ("pattern", PATTERNS[number].0),
        }
    }

    pub fn matches(self, topic: usize) -> bool {
        match self {
            Target::Topic(number) => number == topic,
            Target::Pattern(number) => PATTERNS[number].1.contains(&topic),
        }
    }
}

pub fn topic_number(name: &str) -> usize {
    let at = TOPICS.iter().position(|it| *it == name);
    at.unwrap_or_else(|| panic!("no such topic: {name:?}"))
}

pub fn pattern_number(name: &str) -> usize {
    let at = PATTERNS.iter().position(|(it, _)| *it == name);
    at.unwrap_or_else(|| panic!("no such pattern: {name:?}"))
}

/// A place in a topic: epoch and offset, in the order of the topic.
pub type Place = (u64, u64);

pub fn parse_place(text: &str) -> Place {
    let (epoch, offset) = text.split_once(':').expect("epoch:offset");
    assert_eq!(epoch.len(), 16, "an epoch has 16 digits");
    let epoch = u64::from_str_radix(epoch, 16).expect("hexadecimal digits");
    (epoch, offset.parse().expect("a number"))
}

pub fn place_text((epoch, offset): Place) -> String {
    format!("{epoch:016x}:{offset}")
}

pub fn place_of(position: Position) -> Place {
    (position.epoch, position.offset)
}

/// The number of the publish that a publication is, where it stands, and when it is over.
pub fn placed(publication: &Publication) -> Option<(usize, Place, Option<u64>)> {
    let text = std::str::from_utf8(publication.payload()).ok()?;
    let number = text.split_once(':')?.0.parse().ok()?;
    let expires_us = publication.expires_at_us();
    let expires_ms = expires_us.map(|end_us| end_us.div_ceil(1000));
    Some((number, place_of(publication.position()), expires_ms))
}

/// What each topic gets, in the order of [`TOPICS`]. Small enough that every bound is met.
pub fn rules(random: &mut Random) -> Vec<Rule> {
    let mut rule = || {
        let mut rule = some_rule(random);
        let may_keep_latest =
            rule.slow_consumer == SlowConsumer::Latest && rule.history.publications_max > 0;
        rule.history.latest_only = may_keep_latest && random.chance(60);
        rule
    };
    TOPICS.iter().map(|_| rule()).collect()
}

/// Rules as a reload may change them: histories that shrink or grow, presence that begins or ends.
pub fn changed(rules: &[Rule], random: &mut Random) -> Vec<Rule> {
    let mut change = |rule: &Rule| {
        let mut next = *rule;
        if random.chance(50) {
            next.presence = !rule.presence;
        }
        if random.chance(60) {
            let latest_only = rule.history.latest_only;
            next.history = some_history(random);
            // What keeps the newest of each key goes on to, for whoever subscribes is told so.
            if latest_only && next.history.publications_max == 0 {
                next.history = rule.history;
            }
            next.history.latest_only = latest_only;
        }
        next
    };
    rules.iter().map(&mut change).collect()
}

fn some_history(random: &mut Random) -> HistoryLimits {
    match random.below(6) {
        0 | 1 => HistoryLimits::of(0),
        2 => HistoryLimits::of(random.within(1, 4) as u32),
        3 => HistoryLimits::of(random.within(10, 60) as u32),
        4 => HistoryLimits {
            bytes_max: random.within(300, 8000) as usize,
            ..HistoryLimits::of(1000)
        },
        _ => HistoryLimits {
            age_max_ms: random.within(5, 200),
            ..HistoryLimits::of(1000)
        },
    }
}

fn some_rule(random: &mut Random) -> Rule {
    Rule {
        history: some_history(random),
        slow_consumer: *random.pick(&[
            SlowConsumer::Close,
            SlowConsumer::Close,
            SlowConsumer::DropOldest,
            SlowConsumer::Latest,
        ]),
        presence: random.chance(50),
        time: false,
        ..Rule::default()
    }
}

/// The same, for the node.
pub fn configured(rules: &[Rule]) -> TopicRules {
    let rules = TOPICS.iter().zip(rules).map(|(topic, rule)| {
        let mut named = TopicRule::new(Pattern::parse(topic).expect("a topic is a pattern"));
        named.history = rule.history;
        named.slow_consumer = rule.slow_consumer;
        named.presence = rule.presence;
        named
    });
    TopicRules::new(rules.collect())
}
