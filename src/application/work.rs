//! Work that one connection may cause in one tick: joins, leaves, and what is given out of histories.
//!
//! ```text
//!  commands: [ join | leave | join .. ] Hold::Work, until the next tick
//!                                      [ join since ... | join since ... ] Hold::Question, until the hub has answered
//! ```
//!
//! What a question to the hub may bring is not known before the answer, so as much as it could be is set aside until then.
//! A command waits while that is over `work_per_tick_max`, unless nothing is set aside: so every one is carried out some
//! time.

use super::Application;
use super::commands::CommandTurn;
use crate::connection::{Answer, Hold, Settings};
use crate::dialect::{Command, CommandError, Target};
use crate::hub::Start;
use crate::topic::Topic;

/// Work of a command that changes or asks for something.
const COMMAND: u32 = 32;

/// Bytes of publications that are as much work as a publication itself.
const BYTES: usize = 4096;

impl Application {
    /// A tick begins.
    pub fn begin_tick(&mut self) {
        self.shared.shards.begin_tick(self.reactor);
        self.steps_left = self.shared.settings.limits.subscription_steps_per_tick_max;
    }

    /// Connections that go on with commands left over, in one tick. They are as many as its steps are enough for.
    pub fn turns_per_tick(&self) -> usize {
        let limits = &self.shared.settings.limits;
        let steps_each = (limits.work_per_tick_max / COMMAND).max(1);
        (limits.subscription_steps_per_tick_max / steps_each as usize).max(1)
    }

    /// A connection has its turn.
    pub fn begin_turn(&mut self) {
        self.work_left = self.shared.settings.limits.work_per_tick_max;
    }

    /// What a command has to wait for; None: nothing, and its work is counted.
    pub(super) fn wait_for(
        &mut self,
        turn: &CommandTurn<'_>,
        command: &Result<Command<'_>, CommandError>,
    ) -> Option<Hold> {
        if let Answer::Hold(hold) = turn.answer {
            return Some(hold);
        }
        let asked = match command {
            Ok(Command::Subscribe {
                target: Target::Topic(topic),
                start,
                ..
            }) => Application::replay_work(&self.shared.settings, topic, *start),
            Ok(Command::Subscribe { .. } | Command::Auth { .. }) => 0,
            Ok(Command::Presence { .. }) => self.presence_work(),
            Ok(Command::History {
                topic,
                start,
                limit,
                ..
            }) => {
                let limit = limit.unwrap_or(u32::MAX);
                Application::page_work(&self.shared.settings, topic, *start, limit)
            }
            Ok(Command::Unsubscribe { .. }) => 0,
            Ok(Command::Publish { .. } | Command::Ping { .. }) | Err(_) => return None,
        };
        let is_question = matches!(
            command,
            Ok(Command::Presence { .. } | Command::History { .. } | Command::Auth { .. })
        );
        let is_step = !is_question;
        let work_max = self.shared.settings.limits.work_per_tick_max;
        let hold = if self.work_left == 0 || is_step && self.steps_left == 0 {
            Hold::Work
        } else if asked > 0
            && let many = self.multi_subscriptions.get(turn.subscribed)
            && let asked_already = many.map_or(0, |many| many.asked_work())
            && asked_already > 0
            && asked_already.saturating_add(asked) > work_max
        {
            Hold::Question
        } else {
            self.work_left = self.work_left.saturating_sub(COMMAND);
            self.steps_left = self.steps_left.saturating_sub(usize::from(is_step));
            return None;
        };
        self.metrics.work_holds.add(1);
        Some(hold)
    }

    /// The most that the answer to a subscription may be.
    pub(super) fn replay_work(settings: &Settings, topic: &Topic, start: Start) -> u32 {
        let latest_only = settings.topic_rules.rule(topic).history.latest_only;
        let asked_max = match start {
            Start::Now if latest_only => u32::MAX,
            Start::Now => return 0,
            Start::Last(count) => count,
            Start::Since(_) => u32::MAX,
        };
        let (limits, kept) = (&settings.limits, settings.topic_rules.rule(topic).history);
        let publications = asked_max
            .min(limits.recovery_publications_max)
            .min(kept.publications_max);
        if publications == 0 {
            return 0;
        }
        let bytes = limits.recovery_bytes_max.min(kept.bytes_max);
        let bytes = u32::try_from(bytes / BYTES).unwrap_or(u32::MAX);
        publications.saturating_add(bytes).max(COMMAND)
    }

    /// The most that a page of a history may be.
    pub(super) fn page_work(settings: &Settings, topic: &Topic, start: Start, limit: u32) -> u32 {
        let start = match start {
            Start::Now | Start::Since(_) => Start::Last(limit),
            Start::Last(count) => Start::Last(count.min(limit)),
        };
        Application::replay_work(settings, topic, start)
    }

    /// The most that the answer to a question about members may be.
    pub(super) fn presence_work(&self) -> u32 {
        let members = self.shared.settings.limits.presence_max;
        u32::try_from(members).unwrap_or(u32::MAX).max(COMMAND)
    }
}
