//! Rights: of who asks for something, and of open connections, judged again after a reload.

use super::commands::CommandTurn;
use super::{Application, CommandContext, ConnectionContext};
use crate::auth::access::{Action, Denied};
use crate::auth::caller::Caller;
use crate::auth::verdict::{Decision, Verdict};
use crate::connection::CloseReason;
use crate::dialect::{CommandError, Push, Target};
use crate::fanout::subscribed::SubscribedKind;
use crate::http::refusal::Refusal;

impl Application {
    /// Whether somebody may do something.
    pub fn authorize(&self, caller: &Caller<'_>, action: Action<'_>) -> Result<(), Refusal> {
        Ok(self.decide(caller, action)?)
    }

    /// Keeps the sender of a request, for actions that come after it.
    pub fn keep_identity(
        &mut self,
        current: &mut CommandContext<'_>,
        caller: &Caller<'_>,
    ) -> Result<(), Refusal> {
        let kept = self.shared.authority.keep(caller)?;
        self.identities.replace(current.identity, kept);
        Ok(())
    }

    /// Judges again what a connection may. What it may no longer ends: its subscriptions, or itself. Gives the number of
    /// subscriptions that were looked at.
    pub fn judge_again(&mut self, context: &mut ConnectionContext<'_>) -> usize {
        match context.subscribed.kind() {
            _ if !self.can_judge(context) || self.terms.is_waiting(context.id.index) => 1,
            SubscribedKind::Many(_) => self.judge_many(context),
            SubscribedKind::One(subscription) => {
                if let Some(topic) = self.topics.topic_at(subscription.topic()) {
                    let topic = topic.clone();
                    self.judge_one(context, topic.as_str());
                }
                1
            }
            SubscribedKind::None => {
                self.judge_handler(context);
                1
            }
        }
    }

    fn can_judge(&self, context: &ConnectionContext<'_>) -> bool {
        let caller = self.identities.get(*context.identity);
        self.shared.authority.can_judge(caller)
    }

    fn judge(&self, context: &ConnectionContext<'_>, action: Action<'_>) -> Result<(), Denied> {
        let caller = self.identities.get(*context.identity);
        match self.shared.authority.verdict(caller, action) {
            Verdict::Allow => Ok(()),
            Verdict::Deny(denied) => Err(denied),
            // What was allowed stands until somebody says otherwise.
            Verdict::Later(_) => Ok(()),
        }
    }

    /// Whether somebody may do something, as far as it is decided. If somebody else decides it is asked, and noted: the event
    /// comes again then, whatever it would be told now.
    pub fn decide(&self, caller: &Caller<'_>, action: Action<'_>) -> Result<(), Denied> {
        let authority = &self.shared.authority;
        if !authority.may_take_time() {
            return authority.authorize(caller, action);
        }
        if let Some(outcome) = self.asking.decided(&action, Decision::access) {
            return outcome;
        }
        match authority.verdict(caller, action) {
            Verdict::Allow => Ok(()),
            Verdict::Deny(denied) => Err(denied),
            Verdict::Later(pending) => {
                self.asking.note(&action, pending)?;
                Err(Denied::unavailable("it is decided elsewhere"))
            }
        }
    }

    /// Whether somebody may do something, as far as it is decided. Nobody waits for a verdict that comes later.
    pub fn decide_now(&self, caller: &Caller<'_>, action: Action<'_>) -> Result<(), Denied> {
        let decided = self.asking.decided(&action, Decision::access);
        decided.unwrap_or_else(|| self.shared.authority.authorize(caller, action))
    }

    /// Whether the connection may do what it wants.
    pub(super) fn authorize_command(
        &self,
        turn: &mut CommandTurn<'_>,
        id: Option<u32>,
        action: Action<'_>,
    ) -> Result<(), CommandError> {
        if turn.is_managed {
            return Ok(());
        }
        let caller = self.identities.get(turn.identity);
        let outcome = match turn.may_wait {
            true => self.decide(caller, action),
            false => self.shared.authority.authorize(caller, action),
        };
        outcome.map_err(|denied| turn.denied(id, denied))
    }

    fn may(&self, context: &ConnectionContext<'_>, action: Action<'_>) -> bool {
        self.judge(context, action).is_ok()
    }

    /// Ends the connection unless it may do this.
    fn require(&self, context: &mut ConnectionContext<'_>, action: Action<'_>) -> bool {
        let reason = match self.judge(context, action) {
            Ok(()) => return true,
            Err(Denied::Failed) => CloseReason::EmbedderPanic,
            Err(_) => CloseReason::RightsLost,
        };
        let settings = &self.shared.settings;
        let connection = &mut context.connection;
        connection.close(settings, context.now_ms, reason, context.out);
        false
    }

    /// Whether it may still subscribe; and whether it may publish, which it may have learnt meanwhile.
    pub(super) fn judge_one(&self, context: &mut ConnectionContext<'_>, topic: &str) {
        if !self.can_judge(context) || !self.require(context, Action::Subscribe(topic)) {
            return;
        }
        let may_publish = self.may(context, Action::Publish(topic));
        context.connection.set_may_publish(may_publish);
    }

    fn judge_handler(&self, context: &mut ConnectionContext<'_>) {
        if context.connection.is_closing() {
            return;
        }
        if let Some(route) = context
            .connection
            .handler()
            .and_then(|number| self.shared.routes.get(usize::from(number)))
        {
            self.require(context, Action::Open(&route.path));
        }
    }

    fn judge_many(&mut self, context: &mut ConnectionContext<'_>) -> usize {
        let Some(encoding) = context.connection.command_encoding() else {
            return 1;
        };
        let targets: Vec<Target> = match self.multi_subscriptions.get(*context.subscribed) {
            Some(many) => many.subscriptions.targets(),
            None => return 1,
        };
        let (looked_at, dialects) = (targets.len() + 1, self.dialects.clone());
        let mut message = Vec::new();
        for target in targets {
            let action = match &target {
                Target::Topic(topic) => Action::Subscribe(topic.as_str()),
                Target::Pattern(pattern) => Action::SubscribePattern(pattern.as_str()),
            };
            if self.may(context, action)
                || !self.end_subscription(context.id, *context.subscribed, &target)
            {
                continue;
            }
            dialects
                .get(encoding)
                .encode_push(&mut message, &Push::Unsubscribed(&target));
            dialects.frame_message(encoding, &message, context.out);
            message.clear();
        }
        self.require(context, Action::Connect);
        looked_at
    }
}
