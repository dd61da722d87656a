//! Subscriptions as they begin, with an echo or without one.

use serde_json::Value;
use umbel::internals::topic::SlowConsumer;

use super::{Many, Tongue};
use crate::peer::{Peer, Surroundings};
use crate::topics::{Target, parse_place};
use crate::views::{Start, View};

impl Many {
    /// One whose subscriptions have no echo.
    #[must_use]
    pub fn silent(mut self, is_silent: bool) -> Many {
        self.is_silent = is_silent && self.tongue != Tongue::Toy;
        self
    }
}

impl Peer {
    pub(super) fn begin_subscription(
        &self,
        many: &mut Many,
        target: Target,
        start: Start,
        answer: &Value,
        around: &mut Surroundings<'_>,
    ) -> usize {
        let id = answer["id"].as_u64().unwrap_or_default() as u32;
        let asked_ms = many.asked_ms.get(&id).copied().unwrap_or_default();
        let policy = match answer["slow_consumer"].as_str() {
            None => SlowConsumer::Close,
            Some("latest") => SlowConsumer::Latest,
            Some("drop-oldest") => SlowConsumer::DropOldest,
            Some(other) => panic!("no such rule: {other}"),
        };
        let says_silent = answer["echo"] == false;
        assert_eq!(says_silent, many.is_silent, "{answer}");
        around
            .cover
            .add("subscription without an echo", u64::from(says_silent));
        if let Target::Topic(topic) = target {
            assert_eq!(policy, around.records.rules[topic].slow_consumer);
            assert!(answer["position"].is_string(), "{answer}");
            many.present.remove(&topic);
        }
        let recovered = answer["recovered"].as_bool();
        let is_state = match target {
            Target::Topic(topic) => around.records.begins_with_state(topic, start, recovered),
            Target::Pattern(_) => false,
        };
        around.records.views.push(View {
            target,
            subscriber: self.id,
            subscribed_step: around.step,
            asked_ms,
            began_ms: around.now_ms,
            leaps: many.tongue == Tongue::Toy,
            has_echo: !many.is_silent,
            is_state,
            snapshot: answer["snapshot"].as_bool(),
            start,
            told: answer["position"].as_str().map(parse_place),
            recovered,
            policy,
            // An answer to another command of the same message may fill the outbox that a replay has to fit in.
            is_alone: many.messages_sent == 1 && many.next_id == 1 && many.live.is_empty(),
            items: Vec::new(),
            ended: false,
            close_code: None,
        });
        around.records.views.len() - 1
    }
}
