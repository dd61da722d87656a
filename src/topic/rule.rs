//! Topic rules: settings for the topics of a pattern.
//!
//! Written as text, a rule is a pattern and fields behind it, each with a value, all parted by spaces:
//! `orders/** history=1000 history_age_max_ms=60000 slow_consumer=latest presence=on`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use crate::topic::Pattern;
use crate::topic::Topic;
use crate::topic::presence::{PresenceOf, PresenceSubject};
use crate::units::Unit;

/// Bytes of a topic's history if a rule does not say them.
pub const HISTORY_BYTES_DEFAULT: usize = 16 << 20;

/// Age of a topic's history if a rule does not say it.
pub const HISTORY_AGE_DEFAULT_MS: u64 = 300_000;

/// What a rule can say, for whoever said something else.
const FIELDS: &str = "history=, history_bytes_max=, history_age_max_ms=, keep=, slow_consumer=, presence=, presence_subject= and time=";

/// Publications of a topic's history that a rule may ask for.
pub const PUBLICATIONS_RANGE: RangeInclusive<u64> = 0..=10_000_000;

/// Bytes of a topic's history that a rule may ask for: up to 64 GiB.
pub const BYTES_RANGE: RangeInclusive<u64> = 1..=1 << 36;

/// Age of a topic's history that a rule may ask for: up to a year.
pub const AGE_RANGE_MS: RangeInclusive<u64> = 1..=31_536_000_000;

/// Keys of a history that keeps only the newest of each.
pub const KEYS_MAX: u32 = 100_000;

/// Limits of a topic's history. What exceeds any of the three goes, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Publications. 0: there is no history.
    pub publications_max: u32,
    /// Bytes of the publications, with what each costs beyond them.
    pub bytes_max: usize,
    /// Time since a publication was published.
    pub age_max_ms: u64,
    /// Of publications with one key, only the newest is kept; whoever subscribes gets these first.
    pub latest_only: bool,
}

impl HistoryLimits {
    /// That many publications, of the usual bytes and age.
    #[must_use]
    pub fn of(publications_max: u32) -> HistoryLimits {
        HistoryLimits {
            publications_max,
            bytes_max: HISTORY_BYTES_DEFAULT,
            age_max_ms: HISTORY_AGE_DEFAULT_MS,
            latest_only: false,
        }
    }
}

impl Default for HistoryLimits {
    /// No history.
    fn default() -> HistoryLimits {
        HistoryLimits::of(0)
    }
}

/// Treatment of a subscriber whose outbox is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SlowConsumer {
    /// It is closed, and may come back and recover.
    #[default]
    Close,
    /// The oldest publications that wait for it go, and it is told which. Only where the dialect can tell it; elsewhere
    /// it is closed.
    DropOldest,
    /// A publication that waits for it goes when a newer one of the same topic and key comes.
    Latest,
}

impl SlowConsumer {
    /// All of them.
    pub const ALL: [SlowConsumer; 3] = [
        SlowConsumer::Close,
        SlowConsumer::DropOldest,
        SlowConsumer::Latest,
    ];

    /// Its name in rules, messages and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SlowConsumer::Close => "close",
            SlowConsumer::DropOldest => "drop-oldest",
            SlowConsumer::Latest => "latest",
        }
    }
}

impl fmt::Display for SlowConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Settings for the topics of one pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicRule {
    /// Pattern of the topics.
    pub pattern: Pattern,
    /// History of each topic.
    pub history: HistoryLimits,
    /// Treatment of slow consumers.
    pub slow_consumer: SlowConsumer,
    /// Whether subscribers are told who else is there.
    pub presence: bool,
    /// Members of whom they are told.
    pub presence_of: PresenceOf,
    /// View that others have of their subjects.
    pub presence_subject: PresenceSubject,
    /// Whether subscribers are told when each publication was published.
    pub time: bool,
}

impl TopicRule {
    /// A rule that gives its topics nothing: no history, no presence, slow consumers are closed.
    #[must_use]
    pub fn new(pattern: Pattern) -> TopicRule {
        let Rule {
            history,
            slow_consumer,
            presence,
            presence_of,
            presence_subject,
            time,
        } = Rule::default();
        TopicRule {
            pattern,
            history,
            slow_consumer,
            presence,
            presence_of,
            presence_subject,
            time,
        }
    }

    /// Reads a rule. Its pattern holds no white space here, for that ends it.
    ///
    /// # Errors
    /// When there is no pattern or no field, a field is unknown, stands twice or has no such value, or what is said of a history has
    /// none to be said of.
    pub fn parse(text: &str) -> Result<TopicRule, TopicRuleError> {
        let error = |reason: String| TopicRuleError {
            rule: text.trim().into(),
            reason,
        };
        let mut words = text.split_ascii_whitespace();
        let pattern = words.next().ok_or_else(|| {
            error("a rule is a pattern and fields, as in `orders/** history=1000`".to_owned())
        })?;
        let pattern = Pattern::parse(pattern).map_err(|reason| error(reason.to_string()))?;
        TopicRule::of_fields(pattern, words).map_err(error)
    }

    /// A rule for these topics, with fields as a rule's text has them: `history=1000`.
    ///
    /// # Errors
    /// When there is no field, one is unknown, stands twice or has no such value, or what is said of a history has none
    /// to be said of.
    pub(crate) fn of_fields<'a>(
        pattern: Pattern,
        fields: impl Iterator<Item = &'a str>,
    ) -> Result<TopicRule, String> {
        let mut rule = TopicRule::new(pattern);
        let mut seen = Vec::new();
        for field in fields {
            let name = rule.set(field)?;
            if seen.contains(&name) {
                return Err(format!("{name} is set twice; set it once"));
            }
            seen.push(name);
        }
        if seen.is_empty() {
            return Err(format!(
                "it has no fields; there are {FIELDS}; history=0 sets nothing"
            ));
        }
        if let Some(name) = seen.iter().find(|name| name.starts_with("history_"))
            && rule.history.publications_max == 0
        {
            return Err(format!(
                "{name} needs a history; say history=COUNT, how many publications there are in it at most"
            ));
        }
        if rule.history.latest_only && !seen.contains(&"history_age_max_ms") {
            // A key that nobody changes stays.
            rule.history.age_max_ms = *AGE_RANGE_MS.end();
        }
        rule.check_keep()?;
        Ok(rule)
    }

    /// Checks what a program may have set to anything against the ranges that hold for a rule's text.
    ///
    /// # Errors
    /// Says what is out of its range and what is in it.
    pub(crate) fn check(&self) -> Result<(), String> {
        let HistoryLimits {
            publications_max,
            bytes_max,
            age_max_ms,
            ..
        } = self.history;
        self.check_keep()?;
        for (name, value, range) in [
            ("history", u64::from(publications_max), PUBLICATIONS_RANGE),
            ("history_bytes_max", bytes_max as u64, BYTES_RANGE),
            ("history_age_max_ms", age_max_ms, AGE_RANGE_MS),
        ] {
            if !range.contains(&value) {
                return Err(format!("{name} must be {}", wanted(&range)));
            }
        }
        Ok(())
    }

    /// Checks that what is kept goes with the rest.
    fn check_keep(&self) -> Result<(), String> {
        let HistoryLimits {
            publications_max,
            latest_only,
            ..
        } = self.history;
        if latest_only && publications_max == 0 {
            let reason =
                "keep=latest needs a history; say history=COUNT, how many keys there are at most";
            return Err(reason.to_owned());
        }
        if latest_only && self.slow_consumer != SlowConsumer::Latest {
            return Err("keep=latest needs slow_consumer=latest: who is slow gets the newest of each key, too".to_owned());
        }
        if latest_only && publications_max > KEYS_MAX {
            return Err(format!("keep=latest keeps at most history={KEYS_MAX}"));
        }
        Ok(())
    }

    /// Sets what one word says; gives the name of its field.
    fn set(&mut self, word: &str) -> Result<&'static str, String> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let wrong = |wanted: &str| format!("{name}={value} cannot stand; it is {wanted}");
        let number = |range: RangeInclusive<u64>| {
            let unit = Unit::of_setting(name);
            let number = unit.parse(value);
            let number = number.filter(|number| range.contains(number));
            number.ok_or_else(|| match unit.tip(value) {
                Some(tip) => wrong(&format!("{}: {tip}", wanted(&range))),
                None => wrong(&wanted(&range)),
            })
        };
        match name {
            "history" => {
                self.history.publications_max = number(PUBLICATIONS_RANGE)? as u32;
                Ok("history")
            }
            "history_bytes_max" => {
                self.history.bytes_max = number(BYTES_RANGE)? as usize;
                Ok("history_bytes_max")
            }
            "history_age_max_ms" => {
                self.history.age_max_ms = number(AGE_RANGE_MS)?;
                Ok("history_age_max_ms")
            }
            "slow_consumer" => {
                let mut all = SlowConsumer::ALL.into_iter();
                self.slow_consumer = all
                    .find(|policy| policy.as_str() == value)
                    .ok_or_else(|| wrong("close, drop-oldest or latest"))?;
                Ok("slow_consumer")
            }
            "keep" => {
                self.history.latest_only = match value {
                    "latest" => true,
                    "all" => false,
                    _ => return Err(wrong("all or latest")),
                };
                Ok("keep")
            }
            "presence" => {
                let of = PresenceOf::parse(value);
                let of = of.ok_or_else(|| wrong("on, off, users or count"))?;
                (self.presence, self.presence_of) = (of.is_some(), of.unwrap_or_default());
                Ok("presence")
            }
            "presence_subject" => {
                let shown = PresenceSubject::parse(value);
                self.presence_subject = shown.ok_or_else(|| wrong("on, off or hash"))?;
                Ok("presence_subject")
            }
            "time" => {
                self.time = is_on(value).ok_or_else(|| wrong("on or off"))?;
                Ok("time")
            }
            _ => Err(format!("`{word}` says nothing; there are {FIELDS}")),
        }
    }
}

fn is_on(value: &str) -> Option<bool> {
    match value {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn wanted(range: &RangeInclusive<u64>) -> String {
    format!("a whole number from {} to {}", range.start(), range.end())
}

impl FromStr for TopicRule {
    type Err = TopicRuleError;

    fn from_str(text: &str) -> Result<TopicRule, TopicRuleError> {
        TopicRule::parse(text)
    }
}

impl fmt::Display for TopicRule {
    /// The text that [`TopicRule::parse`] reads; what is as without the rule is left out. `history=0` stands for all of
    /// it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (usual, history) = (HistoryLimits::default(), self.history);
        write!(f, "{}", self.pattern)?;
        let is_usual = history.publications_max == 0
            && self.slow_consumer == SlowConsumer::default()
            && !self.presence
            && self.presence_subject == PresenceSubject::default()
            && !self.time;
        if is_usual {
            return f.write_str(" history=0");
        }
        if history.publications_max > 0 {
            write!(f, " history={}", history.publications_max)?;
            if history.bytes_max != usual.bytes_max {
                write!(f, " history_bytes_max={}", history.bytes_max)?;
            }
            let usual_age_ms = match history.latest_only {
                true => *AGE_RANGE_MS.end(),
                false => usual.age_max_ms,
            };
            if history.age_max_ms != usual_age_ms {
                write!(f, " history_age_max_ms={}", history.age_max_ms)?;
            }
        }
        if history.latest_only {
            f.write_str(" keep=latest")?;
        }
        if self.slow_consumer != SlowConsumer::default() {
            write!(f, " slow_consumer={}", self.slow_consumer)?;
        }
        if self.presence {
            write!(f, " presence={}", self.presence_of)?;
        }
        if self.presence_subject != PresenceSubject::default() {
            write!(f, " presence_subject={}", self.presence_subject)?;
        }
        if self.time {
            f.write_str(" time=on")?;
        }
        Ok(())
    }
}

/// A text that is not a rule, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRuleError {
    rule: Box<str>,
    reason: String,
}

impl TopicRuleError {
    /// The text.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Problem and remedy.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for TopicRuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.rule, self.reason)
    }
}

impl std::error::Error for TopicRuleError {}

/// Settings of one topic. The default is what it gets if no rule is for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its history.
    pub history: HistoryLimits,
    /// Treatment of slow consumers.
    pub slow_consumer: SlowConsumer,
    /// Whether subscribers are told who else is there.
    pub presence: bool,
    /// Members of whom they are told.
    pub presence_of: PresenceOf,
    /// View that others have of their subjects.
    pub presence_subject: PresenceSubject,
    /// Whether subscribers are told when each publication was published.
    pub time: bool,
}

/// All rules, in order. Cloning it copies a pointer.
#[derive(Clone, Debug, Default)]
pub struct TopicRules(Arc<[TopicRule]>);

impl TopicRules {
    /// These rules. Of two whose patterns match a topic, the first counts alone.
    #[must_use]
    pub fn new(rules: Vec<TopicRule>) -> TopicRules {
        TopicRules(rules.into())
    }

    /// Settings of a topic. It tries the rules one by one, so ask once for each topic's life, and not for each
    /// publication.
    #[must_use]
    pub fn rule(&self, topic: &Topic) -> Rule {
        let mut rules = self.0.iter();
        let first = rules.find(|rule| rule.pattern.matches(topic));
        first.map_or_else(Rule::default, |rule| Rule {
            history: rule.history,
            slow_consumer: rule.slow_consumer,
            presence: rule.presence,
            presence_of: rule.presence_of,
            presence_subject: rule.presence_subject,
            time: rule.time,
        })
    }

    /// Number of rules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        let error = TopicRule::parse(text).expect_err("it is no rule");
        assert_eq!(error.rule(), text.trim());
        error.reason().to_owned()
    }

    #[test]
    fn a_rule_says_what_its_topics_get() {
        let text = "orders/** history=1000 history_bytes_max=1048576 history_age_max_ms=60000 keep=latest slow_consumer=latest presence=on time=on";
        let rule = TopicRule::parse(text).expect("a rule");
        assert_eq!(
            rule,
            TopicRule {
                pattern: Pattern::parse("orders/**").expect("a pattern"),
                history: HistoryLimits {
                    publications_max: 1000,
                    bytes_max: 1 << 20,
                    age_max_ms: 60_000,
                    latest_only: true,
                },
                slow_consumer: SlowConsumer::Latest,
                presence: true,
                presence_of: PresenceOf::Connections,
                presence_subject: PresenceSubject::Hidden,
                time: true,
            }
        );
        assert_eq!(rule.to_string(), text);
        let rule = TopicRule::parse("  a\thistory=7   presence=off ").expect("a rule");
        assert_eq!(rule.history, HistoryLimits::of(7));
        assert_eq!(
            (rule.history.bytes_max, rule.history.age_max_ms),
            (16_777_216, 300_000)
        );
        assert_eq!(rule.to_string(), "a history=7");
        let rule = TopicRule::parse("** slow_consumer=drop-oldest").expect("a rule");
        assert_eq!(rule.history.publications_max, 0);
        assert_eq!(rule.to_string(), "** slow_consumer=drop-oldest");
        for text in ["a presence=users presence_subject=hash", "a presence=count"] {
            let rule = TopicRule::parse(text).expect("a rule");
            assert!(rule.presence);
            assert_eq!(rule.to_string(), text);
        }
        let rule = TopicRule::parse("a presence=off").expect("a rule");
        assert_eq!(rule.to_string(), "a history=0");
        assert_eq!(TopicRule::parse("a history=0"), Ok(rule));
        let rule = TopicRule::parse("a history=1 history_bytes_max=4KiB history_age_max_ms=2m");
        let history = rule.expect("a rule").history;
        assert_eq!((history.bytes_max, history.age_max_ms), (4096, 120_000));
    }

    #[test]
    fn errors_say_what_to_do() {
        for (text, wanted) in [
            ("", "a rule is a pattern"),
            ("  ", "as in `orders/** history=1000`"),
            ("a", "it has no fields; there are history="),
            ("a history=2k", "to 10000000: write 2000"),
            (
                "a history=1 history_bytes_max=2M",
                "write 2MiB (2097152) or",
            ),
            ("a**", "whole segment"),
            (
                "a histroy=1",
                "`histroy=1` says nothing; there are history=",
            ),
            ("a history", "a whole number from 0 to 10000000"),
            ("a history=-1", "history=-1 cannot stand"),
            ("a history=10000001", "from 0 to 10000000"),
            ("a history=1 history=2", "history is set twice"),
            (
                "a history_bytes_max=5",
                "history_bytes_max needs a history; say history=COUNT",
            ),
            (
                "a history=0 history_age_max_ms=5",
                "history_age_max_ms needs a history",
            ),
            ("a history=1 history_age_max_ms=0", "from 1 to"),
            ("a slow_consumer=drop", "close, drop-oldest or latest"),
            ("a presence=yes", "it is on, off, users or count"),
            ("a presence_subject=yes", "it is on, off or hash"),
            ("a time=1", "it is on or off"),
            ("a keep=newest", "it is all or latest"),
            ("a keep=latest slow_consumer=latest", "needs a history"),
            ("a keep=latest history=1", "needs slow_consumer=latest"),
            (
                "a keep=latest history=100001 slow_consumer=latest",
                "at most history=100000",
            ),
        ] {
            let reason = reason(text);
            assert!(reason.contains(wanted), "{text}: {reason}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let parse = |text| TopicRule::parse(text).expect("a rule");
        let rules = TopicRules::new(vec![
            parse("orders/eu presence=on"),
            parse("orders/* history=10"),
            parse("orders/** history=20 slow_consumer=latest"),
        ]);
        let rule = |name| rules.rule(&Topic::from_text(name).expect("a topic"));
        assert_eq!(
            rule("orders/eu"),
            Rule {
                presence: true,
                ..Rule::default()
            }
        );
        assert_eq!(rule("orders/us").history.publications_max, 10);
        assert_eq!(rule("orders/us").slow_consumer, SlowConsumer::Close);
        assert_eq!(rule("orders/us/1").slow_consumer, SlowConsumer::Latest);
        assert_eq!(rule("other"), Rule::default());
        assert!(TopicRules::default().is_empty() && !rules.is_empty());
    }
}
