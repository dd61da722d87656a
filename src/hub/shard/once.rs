//! Publishes with an idempotency key, each carried out once.

use super::Shard;
use crate::hub::command::{Effect, Origin, PublishOnce};
use crate::hub::idempotency::{Idempotency, Outcome};
use crate::hub::patterns::MatchPatterns;
use crate::hub::publication::Position;

/// Keys that a publish with a key lets go of, if they are too old.
const FORGOTTEN_PER_PUBLISH: usize = 32;

/// Keys that each second lets go of besides.
const FORGOTTEN_PER_SECOND: usize = 16_384;

impl Shard {
    /// Publishes, unless that was done before. Gives the visits that patterns cost.
    pub(super) fn publish_once(
        &mut self,
        once: PublishOnce,
        patterns: &impl MatchPatterns,
        effects: &mut Vec<Effect>,
    ) -> usize {
        let PublishOnce {
            topic,
            publication,
            key,
            reactor,
            connection,
            sequence,
        } = once;
        let at_us = publication.published_at_us();
        let receipt = publication.receipt().cloned();
        let settings = &self.key_settings;
        let keys = self
            .keys
            .get_or_insert_with(|| Box::new(Idempotency::new(settings.clone())));
        keys.expire(at_us, FORGOTTEN_PER_PUBLISH);
        let (outcome, known) = keys.begin(&key, at_us);
        if outcome != Outcome::Placed {
            effects.push(Effect::Published {
                reactor,
                connection,
                sequence,
                position: known.unwrap_or(Position::NOWHERE),
                outcome,
                lost_receipt: receipt.is_some(),
            });
            return 0;
        }
        let origin = match receipt {
            Some(_) => Origin::Detached,
            None => Origin::Connection {
                reactor,
                connection,
                sequence,
            },
        };
        let visits = self.handle_publish(topic, publication, origin, patterns, effects);
        let position = match (&receipt, effects.last()) {
            (Some(receipt), _) => receipt.position(),
            (None, Some(Effect::Published { position, .. })) => Some(*position),
            (None, _) => None,
        };
        if let (Some(keys), Some(position)) = (&mut self.keys, position) {
            keys.remember(&key, position, at_us);
        }
        visits
    }

    /// Lets go of keys that are too old.
    pub(super) fn expire_keys(&mut self, now_us: u64) {
        if let Some(keys) = &mut self.keys {
            keys.expire(now_us, FORGOTTEN_PER_SECOND);
            if keys.is_empty() {
                self.keys = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::hub::idempotency::{IdempotencyKey, KeyBudget, KeySettings, Publisher};
    use crate::hub::{
        Command, Kind, LocalTopic, PatternPart, Publication, PublishOptions, ReactorId, Receipt,
        ShardSettings,
    };
    use crate::topic::Topic;

    const AGE_US: u64 = 1000;

    fn shard() -> Shard {
        let keys = KeySettings {
            age_us: AGE_US,
            since_us: 0,
            budget: Arc::new(KeyBudget::new(1 << 20, 1 << 20)),
        };
        let settings = ShardSettings {
            keys,
            ..ShardSettings::default()
        };
        let mut shard = Shard::new(7, settings);
        let subscribe = Command::Subscribe {
            topic: Topic::from_text("a").expect("a topic"),
            reactor: ReactorId(3),
            local: LocalTopic {
                index: 0,
                generation: 1,
            },
        };
        shard.handle_command(subscribe, &PatternPart::default(), &mut Vec::new());
        shard
    }

    /// Publishes with the key `k`; gives how often it is delivered, and the outcome if it is told.
    fn publish(
        shard: &mut Shard,
        publication: Publication,
    ) -> (usize, Option<(Outcome, Position, bool)>) {
        let topic = Topic::from_text("a").expect("a topic");
        let key = IdempotencyKey::new(Publisher::of_address(None), &topic, "k", None);
        let once = PublishOnce {
            topic,
            key: key.of(
                publication.kind(),
                publication.payload(),
                &PublishOptions::default(),
            ),
            publication: Arc::new(publication),
            reactor: ReactorId(1),
            connection: 42,
            sequence: 5,
        };
        let mut effects = Vec::new();
        let command = Command::PublishOnce(Box::new(once));
        shard.handle_command(command, &PatternPart::default(), &mut effects);
        let is_delivery = |effect: &&Effect| matches!(effect, Effect::Deliver { .. });
        let told = effects.iter().find_map(|effect| match effect {
            Effect::Published {
                outcome,
                position,
                lost_receipt,
                connection: 42,
                sequence: 5,
                ..
            } => Some((*outcome, *position, *lost_receipt)),
            _ => None,
        });
        (effects.iter().filter(is_delivery).count(), told)
    }

    fn text(payload: &str, at_us: u64) -> Publication {
        Publication::new(Kind::Text, payload.as_bytes(), at_us)
    }

    const FIRST: Position = Position {
        epoch: 7,
        offset: 1,
    };

    #[test]
    fn same_again_is_delivered_once_and_told_the_first_position() {
        let mut shard = shard();
        let first = publish(&mut shard, text("x", 0));
        assert_eq!(first, (1, Some((Outcome::Placed, FIRST, false))));
        let again = publish(&mut shard, text("x", 10));
        assert_eq!(again, (0, Some((Outcome::Duplicate, FIRST, false))));
        let (delivered, told) = publish(&mut shard, text("y", 10));
        let told = told.map(|(outcome, ..)| outcome);
        assert_eq!((delivered, told), (0, Some(Outcome::KeyReused)));
        assert_eq!(shard.publications(), 1);
    }

    #[test]
    fn key_outlives_its_topic_and_goes_with_its_age() {
        let mut shard = shard();
        publish(&mut shard, text("x", 0));
        let unsubscribe = Command::Unsubscribe {
            topic: Topic::from_text("a").expect("a topic"),
            reactor: ReactorId(3),
            local: LocalTopic {
                index: 0,
                generation: 1,
            },
        };
        shard.handle_command(unsubscribe, &PatternPart::default(), &mut Vec::new());
        assert_eq!(shard.topic_count(), 0);
        let again = publish(&mut shard, text("x", 10));
        assert_eq!(again.1, Some((Outcome::Duplicate, FIRST, false)));
        for (now_us, is_remembered) in [(AGE_US - 1, true), (AGE_US, false)] {
            let expire = Command::Expire { shard: 0, now_us };
            shard.handle_command(expire, &PatternPart::default(), &mut Vec::new());
            assert_eq!(shard.keys.is_some(), is_remembered);
        }
        assert_eq!(shard.key_settings.budget.bytes(), 0);
    }

    #[test]
    fn receipt_tells_the_first_and_is_lost_by_the_second() {
        let mut shard = shard();
        let reports = Arc::new(Mutex::new(Vec::new()));
        let asked = |at_us| {
            let seen = Arc::clone(&reports);
            let done = move |report| seen.lock().expect("no panic").push(report);
            text("x", at_us).with_receipt(Arc::new(Receipt::new(Box::new(done))))
        };
        assert_eq!(publish(&mut shard, asked(0)), (1, None));
        let again = publish(&mut shard, asked(10));
        assert_eq!(again, (0, Some((Outcome::Duplicate, FIRST, true))));
        assert!(reports.lock().expect("no panic").is_empty(), "no share yet");
    }
}
