//! Checks of numbers and topic rules.

use std::collections::HashSet;

use super::{Config, ConfigError, METRICS_TOPICS_MAX, REACTORS_MAX, TOPIC_RULES_MAX, WORKERS_MAX};

impl Config {
    pub(super) fn threads_errors(&self) -> impl Iterator<Item = ConfigError> {
        let counts = [
            ("reactors", self.reactors, REACTORS_MAX),
            ("workers", self.workers, WORKERS_MAX),
        ];
        let over = counts.into_iter().filter(|(_, count, max)| count > max);
        over.map(|(name, count, max)| {
            let way_out = format!("must be at most {max}; 0 lets the server choose");
            ConfigError::new(name, count, way_out)
        })
    }

    /// A publication has to fit what it comes in, and what it leaves by.
    pub(super) fn size_errors(&self) -> impl Iterator<Item = ConfigError> {
        let limits = &self.limits;
        let publication = limits.publication_bytes_max;
        let holders = [
            ("an outbox", "outbox-bytes-max", limits.outbox_bytes_max),
            ("a request body", "body-bytes-max", limits.body_bytes_max),
        ];
        let less = holders
            .into_iter()
            .filter(move |(.., bytes)| publication > *bytes);
        less.map(move |(holder, flag, bytes)| {
            let way_out = format!(
                "a publication must fit {holder}; raise --{flag} (now {bytes}) or lower this"
            );
            ConfigError::new("publication_bytes_max", publication, way_out)
        })
    }

    pub(super) fn metrics_topics_error(&self) -> Option<ConfigError> {
        let count = self.metrics_topics.len();
        let way_out = format!("there can be at most {METRICS_TOPICS_MAX}, for each is a series");
        (count > METRICS_TOPICS_MAX).then(|| ConfigError::new("metrics_topics", count, way_out))
    }

    pub(super) fn topic_rule_errors(&self) -> Vec<ConfigError> {
        let rules = &self.topic_rules;
        if rules.len() > TOPIC_RULES_MAX {
            let way_out = format!(
                "there can be at most {TOPIC_RULES_MAX}; patterns with wildcards need fewer"
            );
            return vec![ConfigError::new("topic_rules", rules.len(), way_out)];
        }
        let (mut patterns, mut errors) = (HashSet::new(), Vec::new());
        for (row, rule) in rules.iter().enumerate() {
            let checked = rule.check().and_then(|()| match patterns.insert(&rule.pattern) {
                true => Ok(()),
                false => Err("an earlier rule has the same pattern, so this one never counts; leave one of them out".to_owned()),
            });
            if let Err(way_out) = checked {
                errors.push(ConfigError::new("topic_rules", rule, way_out).in_row(row));
            }
        }
        errors
    }
}
