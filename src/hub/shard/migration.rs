//! Reload of a shard's settings. Topics take to them in bounded steps, so that no step holds publications up.
//!
//! New topics have the new rules at once. Each step then looks at some of the topics that there are: a history shrinks by
//! its oldest publications, and has the new limits once it fits them; presence ends at once, and members are told that
//! each has left.

use super::{Shard, tell};
use crate::hub::command::Effect;
use crate::hub::history::RecoveryLimits;
use crate::hub::presence::{Member, Presence};
use crate::hub::shard::ShardSettings;
use crate::hub::topic_state::{Kept, Reactors};
use crate::topic::{Rule, Topic};

/// Topics that a step looks at.
const TOPICS_PER_STEP: usize = 256;

/// Patterns that a step compares topics with; one topic is compared with all in any case.
const PATTERNS_PER_STEP: usize = 4096;

/// Publications that a step takes out of the history of one topic.
const PUBLICATIONS_PER_STEP: usize = 1024;

/// Bytes by which a step lowers the bound on all histories.
const BYTES_PER_STEP: usize = 1 << 20;

/// Members that a step tells to have left.
const LEAVES_PER_STEP: usize = 64;

/// Progress of a shard towards its newest settings.
#[derive(Debug)]
pub(super) struct Migration {
    /// The place of the next topic to be looked at.
    next: u32,
    /// Bytes that histories may hold in the end.
    history_bytes_max: usize,
    /// Members of a topic that has no presence any more, and who are yet to be told to have left.
    leaving: Option<(Topic, Vec<Member>)>,
}

impl Migration {
    /// One towards this bound on all histories.
    fn towards(history_bytes_max: usize) -> Migration {
        Migration {
            next: 0,
            history_bytes_max,
            leaving: None,
        }
    }
}

impl Shard {
    /// Takes new settings. [`Shard::migrate`] brings the topics there are to them.
    pub fn reload(&mut self, settings: ShardSettings) {
        self.recovery = RecoveryLimits {
            publications_max: settings.recovery_publications_max,
            bytes_max: settings.recovery_bytes_max,
        };
        self.presence_max = settings.presence_max;
        self.rules = settings.rules;
        let leaving = self
            .migration
            .take()
            .and_then(|migration| migration.leaving);
        self.migration = Some(Box::new(Migration {
            leaving,
            ..Migration::towards(settings.history_bytes_max)
        }));
    }

    /// One step towards the newest settings. True: they are reached.
    pub fn migrate(&mut self, effects: &mut Vec<Effect>) -> bool {
        let Some(mut migration) = self.migration.take() else {
            return true;
        };
        let has_room = self
            .histories
            .approach_bytes_max(migration.history_bytes_max, BYTES_PER_STEP);
        self.remove_emptied();
        let patterns = self.rules.len().max(1);
        let mut topics_left = TOPICS_PER_STEP.min(PATTERNS_PER_STEP / patterns).max(1);
        let mut leaves_left = LEAVES_PER_STEP;
        while topics_left > 0 && self.tell_left(&mut migration, &mut leaves_left, effects) {
            if migration.next >= self.topics.places_end() {
                break;
            }
            topics_left -= 1;
            if !self.migrate_topic(&mut migration) {
                break;
            }
        }
        let is_done =
            has_room && migration.leaving.is_none() && migration.next >= self.topics.places_end();
        if !is_done {
            self.migration = Some(migration);
        }
        is_done
    }

    /// Tells of members who left with the presence of their topic. False: more are to be told, in the next step.
    fn tell_left(
        &mut self,
        migration: &mut Migration,
        leaves_left: &mut usize,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some((topic, mut members)) = migration.leaving.take() else {
            return true;
        };
        let place = self.topics.find(&topic);
        let state = place.and_then(|place| self.topics.get(place));
        let mut subscribers = Vec::new();
        if let Some((_, state)) = state {
            state
                .reactors
                .for_each(|reactor, local| subscribers.push((reactor, local)));
        }
        if subscribers.is_empty() {
            return true;
        }
        while *leaves_left > 0 {
            let Some(member) = members.pop() else {
                return true;
            };
            *leaves_left -= 1;
            tell(&topic, (member, false, 0), &subscribers, effects);
        }
        migration.leaving = Some((topic, members));
        false
    }

    /// Brings the next topic to its rule. False: it takes another step.
    fn migrate_topic(&mut self, migration: &mut Migration) -> bool {
        let place = migration.next;
        let Some(topic) = self.topics.topic(place).cloned() else {
            migration.next += 1;
            return true;
        };
        let rule = self.rules.rule(&topic);
        let Some(state) = self.topics.get_mut(place) else {
            return true;
        };
        let mut is_fitting = true;
        if let Some(kept) = state.reactors.kept() {
            if !rule.presence
                && let Some(presence) = kept.presence.take()
            {
                self.presence_bytes -= presence.bytes();
                migration.leaving = Some((topic, presence.into_told()));
            }
            if let Some(ring) = kept.ring {
                is_fitting = self
                    .histories
                    .approach(ring, rule.history, PUBLICATIONS_PER_STEP);
            }
        }
        if is_fitting {
            self.adopt(place, &rule);
            migration.next += 1;
        }
        self.remove_emptied();
        is_fitting
    }

    /// Gives a topic, whose history fits, what its rule says.
    fn adopt(&mut self, place: u32, rule: &Rule) {
        let Some(state) = self.topics.get_mut(place) else {
            return;
        };
        let reactors = &mut state.reactors;
        match (reactors.kept(), Kept::new(rule)) {
            (Some(kept), Some(_)) => {
                kept.history = rule.history;
                kept.shows_time = rule.time;
                if rule.presence {
                    let presence = || Presence::new(rule.presence_of);
                    kept.presence.get_or_insert_with(presence);
                }
            }
            (None, Some(mut kept)) => {
                reactors.for_each(|reactor, local| kept.reactors.push((reactor, local)));
                *reactors = Reactors::Kept(kept);
            }
            (Some(kept), None) => match Reactors::of(std::mem::take(&mut kept.reactors)) {
                Some(plain) => *reactors = plain,
                None => {
                    kept.history = rule.history;
                    kept.shows_time = false;
                }
            },
            (None, None) => {}
        }
        // A history or members may have been all that kept it.
        if state.reactors.is_unused() {
            self.topics.remove(place);
        }
    }
}
