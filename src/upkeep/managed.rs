//! Changes that whoever manages the server makes to connections of others.

use super::judging;
use crate::application::{Application, ConnectionContext};
use crate::auth::caller::Caller;
use crate::auth::rights::{Rights, RightsLists};
use crate::connection::Label;
use crate::dialect::{Command, Encoding, Push, Target};
use crate::fanout::subscribed::SubscribedKind;
use crate::hub::{Kind, Start};
use crate::protocol::{CloseCode, Opcode, encode_frame};
use crate::shared::brought::Fate;
use crate::shared::jobs::Notice;
use crate::shared::terms::{Span, TermLimits};
use crate::topic::Topic;

/// Ends a subscription of a connection. One that lives by it ends with it. False: it has no such subscription.
pub fn unsubscribe(
    application: &mut Application,
    context: &mut ConnectionContext<'_>,
    target: &Target,
    notice: &Notice,
) -> bool {
    let (code, reason) = (notice.code.as_str(), notice.reason.as_deref());
    match context.subscribed.kind() {
        SubscribedKind::One(one) => {
            let is_meant =
                matches!(target, Target::Topic(topic) if application.topics.topic(one) == topic);
            if is_meant {
                let words = reason.unwrap_or(code).to_owned();
                application.disconnect(context, CloseCode::FORBIDDEN, words.into());
            }
            is_meant
        }
        SubscribedKind::Many(_) => {
            let is_ended = application.end_subscription(context.id, *context.subscribed, target);
            if is_ended {
                push(application, context, &Push::Ended(target, code, reason));
            }
            is_ended
        }
        SubscribedKind::None => false,
    }
}

/// Subscribes a connection that may have many subscriptions, whatever its rights are. False: it may not have many, or
/// has this one.
pub fn subscribe(
    application: &mut Application,
    context: &mut ConnectionContext<'_>,
    topic: &Topic,
    start: Start,
) -> bool {
    let target = Target::Topic(topic.clone());
    let many = application.multi_subscriptions.get(*context.subscribed);
    if many.is_none_or(|many| many.subscriptions.get(&target).is_some()) {
        return false;
    }
    let command = Command::Subscribe {
        id: None,
        target,
        start,
        echo: true,
        signature: None,
    };
    application.carry_out(context, command, true) == Fate::CarriedOut
}

/// Sends a message to a subscriber, without a topic and a position. False: it is none.
pub fn send(
    application: &mut Application,
    context: &mut ConnectionContext<'_>,
    kind: Kind,
    payload: &[u8],
) -> bool {
    if !context.connection.takes_deliveries() {
        return false;
    }
    match context.connection.encoding() {
        Encoding::PAYLOAD => {
            let opcode = match kind {
                Kind::Text => Opcode::Text,
                Kind::Binary => Opcode::Binary,
            };
            encode_frame(context.out, opcode, payload, None);
        }
        _ => push(application, context, &Push::Message(kind, payload)),
    }
    true
}

/// Sets when the identity of an open connection ends. In milliseconds since 1970. With `rights` these are its own from now
/// on, and what they do not allow ends. False: it has no identity, or is no connection that stays open.
pub fn refresh(
    application: &mut Application,
    context: &mut ConnectionContext<'_>,
    end_ms: u64,
    rights: Option<&RightsLists>,
) -> bool {
    let has_identity = application
        .identities
        .get(*context.identity)
        .identity()
        .is_some();
    if !has_identity || context.connection.label() == Label::Http {
        return false;
    }
    if let Some(lists) = rights
        && !change_rights(application, context, end_ms, lists)
    {
        return false;
    }
    let (limits, wall_ms) = (&application.shared.settings.limits, application.wall_ms());
    let limits = TermLimits {
        warn_ms: limits.token_warn_ms,
        grace_ms: limits.token_grace_ms,
    };
    let span = Span {
        began_ms: wall_ms.min(end_ms),
        end_ms,
    };
    let bits = context.id.to_bits();
    let salt = (bits ^ (bits >> 32)) as u32;
    let has_warning = context.connection.command_encoding().is_some();
    application
        .terms
        .begin(context.id.index, (salt, has_warning), Some(span), limits);
    true
}

/// Gives an identity other rights of its own, and ends what they do not allow. False: they are none.
fn change_rights(
    application: &mut Application,
    context: &mut ConnectionContext<'_>,
    end_ms: u64,
    lists: &RightsLists,
) -> bool {
    let identity = application.identities.get(*context.identity).identity();
    let (Some(identity), Ok(rights)) = (identity, Rights::from_lists(lists)) else {
        return false;
    };
    let caller = Caller::Known(identity.with_rights(rights, end_ms));
    application.identities.replace(context.identity, caller);
    judging::judge_again(application, context);
    true
}

/// Tells a connection something unasked.
fn push(application: &Application, context: &mut ConnectionContext<'_>, push: &Push<'_>) {
    let (dialects, encoding) = (
        &application.shared.settings.dialects,
        context.connection.encoding(),
    );
    let mut message = Vec::new();
    dialects.get(encoding).encode_push(&mut message, push);
    dialects.frame_message(encoding, &message, context.out);
}
