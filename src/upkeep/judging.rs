//! Rights of open connections, judged again after a reload.

use super::Slots;
use crate::application::{Application, ConnectionContext};
use crate::auth::access::{Action, Denied};
use crate::connection::CloseReason;
use crate::dialect::Push;
use crate::fanout::subscribed::SubscribedKind;

/// Subscriptions whose right is judged again in one tick after a reload.
const SUBSCRIPTIONS_JUDGED_PER_TICK: usize = 1000;

/// Judges the rights of some connections, if there was a reload. It ends when as many subscriptions are looked at as a
/// tick has time for.
pub fn poll(slots: &mut impl Slots, now_ms: u64) {
    let Some(first) = slots.upkeep().judge_from else {
        return;
    };
    let mut left = SUBSCRIPTIONS_JUDGED_PER_TICK;
    for index in first..slots.end() {
        if left == 0 {
            slots.upkeep().judge_from = Some(index);
            return;
        }
        let looked_at = slots.visit(index, now_ms, judge_again);
        left = left.saturating_sub(looked_at.unwrap_or(0));
    }
    slots.upkeep().judge_from = None;
}

/// Judges again what a connection may. What it may no longer ends: its subscriptions, or itself. Gives the number of
/// subscriptions that were looked at.
pub fn judge_again(application: &mut Application, context: &mut ConnectionContext<'_>) -> usize {
    let is_waiting = application.terms.is_waiting(context.id.index);
    match context.subscribed.kind() {
        _ if !can_judge(application, context) || is_waiting => 1,
        SubscribedKind::Many(_) => judge_many(application, context),
        SubscribedKind::One(subscription) => {
            if let Some(topic) = application.topics.topic_at(subscription.topic()) {
                judge_one(application, context, topic.as_str());
            }
            1
        }
        SubscribedKind::None => {
            judge_handler(application, context);
            1
        }
    }
}

fn can_judge(application: &Application, context: &ConnectionContext<'_>) -> bool {
    let caller = application.identities.get(*context.identity);
    application.shared.authority.can_judge(caller)
}

fn judge(
    application: &Application,
    context: &ConnectionContext<'_>,
    action: Action<'_>,
) -> Result<(), Denied> {
    let caller = application.identities.get(*context.identity);
    application.stands(caller, action)
}

/// Ends the connection unless it may do this.
fn require(
    application: &Application,
    context: &mut ConnectionContext<'_>,
    action: Action<'_>,
) -> bool {
    let reason = match judge(application, context, action) {
        Ok(()) => return true,
        Err(Denied::Failed) => CloseReason::EmbedderPanic,
        Err(_) => CloseReason::RightsLost,
    };
    let settings = &application.shared.settings;
    let connection = &mut context.connection;
    connection.close(settings, context.now_ms, reason, context.out);
    false
}

/// Whether it may still subscribe; and whether it may publish, which it may have learnt meanwhile.
fn judge_one(application: &Application, context: &mut ConnectionContext<'_>, topic: &str) {
    if require(application, context, Action::Subscribe(topic)) {
        let may_publish = judge(application, context, Action::Publish(topic)).is_ok();
        context.connection.set_may_publish(may_publish);
    }
}

fn judge_handler(application: &Application, context: &mut ConnectionContext<'_>) {
    if context.connection.is_closing() {
        return;
    }
    let number = context.connection.handler();
    let route = number.and_then(|number| application.shared.routes.get(usize::from(number)));
    if let Some(route) = route {
        require(application, context, Action::Open(&route.path));
    }
}

fn judge_many(application: &mut Application, context: &mut ConnectionContext<'_>) -> usize {
    let Some(encoding) = context.connection.command_encoding() else {
        return 1;
    };
    let many = application.multi_subscriptions.get(*context.subscribed);
    let Some(targets) = many.map(|many| many.subscriptions.targets()) else {
        return 1;
    };
    let looked_at = targets.len() + 1;
    let mut message = Vec::new();
    for target in targets {
        let caller = application.identities.get(*context.identity);
        if application.keeps(context.id, caller, &target)
            || !application.end_subscription(context.id, *context.subscribed, &target)
        {
            continue;
        }
        let dialects = &application.shared.settings.dialects;
        let dialect = dialects.get(encoding);
        dialect.encode_push(&mut message, &Push::Unsubscribed(&target));
        dialects.frame_message(encoding, &message, context.out);
        message.clear();
    }
    require(application, context, Action::Connect);
    looked_at
}
