//! Renewals: identities and subscriptions of open connections that end, unless the application says otherwise.

use super::{Slots, judging};
use crate::application::signed::Allowed;
use crate::application::{Application, ConnectionContext};
use crate::asking::hook;
use crate::asking::renewals::Renewed;
use crate::auth::access::Denied;
use crate::auth::caller::Caller;
use crate::auth::identity::Identity;
use crate::auth::verdict::Decision;
use crate::connection::CloseReason;
use crate::dialect::{Push, Target};
use crate::fanout::subscribed::SubscribedKind;
use crate::protocol::CloseCode;
use crate::shared::leases::LeaseDue;

/// Time until the application is asked again who somebody is, where it does not say when, in milliseconds.
const AGAIN_MS: u64 = 1000;

/// Asks the application who the peer is from now on. Of identities of others it is not asked.
pub fn ask_who(application: &mut Application, context: &ConnectionContext<'_>) {
    let shared = &application.shared;
    let caller = application.identities.get(*context.identity);
    if !hook::is_refreshed(shared, caller) {
        return;
    }
    let dialect = shared.settings.dialects.get(context.connection.encoding());
    let asked = match application.asking.renewals.has_room() {
        true => hook::ask_to_refresh(shared, (context.id, caller), dialect.label()),
        false => None,
    };
    match asked {
        Some(pending) => {
            let renewals = &mut application.asking.renewals;
            renewals.begin(context.id, Renewed::Identity, pending);
        }
        None => ask_later(application, context, AGAIN_MS),
    }
}

fn ask_later(application: &mut Application, context: &ConnectionContext<'_>, in_ms: u64) {
    let (index, wall_ms) = (context.id.index, application.wall_ms());
    application.terms.ask_again(index, wall_ms, in_ms);
}

/// Deals with a lease that is due: whoever allowed the subscription is asked again, or it ends.
pub fn handle_lease(
    application: &mut Application,
    context: &mut ConnectionContext<'_>,
    due: &LeaseDue,
) {
    if context.id != due.connection {
        return;
    }
    let caller = application.identities.get(*context.identity);
    let asked = match due.may_ask && application.asking.renewals.has_room() {
        true => hook::ask_again(&application.shared, (context.id, caller), &due.target),
        false => None,
    };
    match asked {
        Some(pending) => {
            let renewed = Renewed::Subscription(due.target.clone());
            let renewals = &mut application.asking.renewals;
            renewals.begin(context.id, renewed, pending);
        }
        None => end(application, context, &due.target),
    }
}

/// Deals with the answers that have come.
pub fn poll(slots: &mut impl Slots, now_ms: u64) {
    if slots.application().asking.renewals.is_quiet() {
        return;
    }
    for (id, renewed, decision) in slots.application_mut().asking.renewals.poll() {
        slots.visit(id.index, now_ms, |application, context| {
            if context.id != id || context.connection.is_closing() {
                return;
            }
            match renewed {
                Renewed::Identity => refresh(application, context, decision),
                Renewed::Subscription(target) => {
                    renew(application, context, &target, &decision);
                }
            }
        });
    }
}

/// The application has said who somebody is from now on.
fn refresh(application: &mut Application, context: &mut ConnectionContext<'_>, decision: Decision) {
    let former = application.identities.get(*context.identity).identity();
    let Some(former) = former.cloned() else {
        return;
    };
    let outcome = match decision {
        Decision::Caller(outcome) => outcome,
        Decision::Access(Err(denied)) => Err(denied),
        _ => Err(Denied::Failed),
    };
    let caller = match outcome {
        Ok(Some(identity)) if former.is_same_subject(&identity) => Caller::Known(identity),
        Ok(None) if former.subject().is_none() => Caller::Anonymous,
        // It is somebody else's connection, or nobody's.
        Ok(_) | Err(Denied::Unauthenticated(_)) => return close(application, context),
        Err(
            Denied::UnavailableFor { retry_after_s, .. } | Denied::TooMany { retry_after_s, .. },
        ) => {
            return ask_later(application, context, u64::from(retry_after_s) * 1000);
        }
        Err(Denied::Unavailable(_) | Denied::Failed) => {
            return ask_later(application, context, AGAIN_MS);
        }
        Err(Denied::Forbidden(reason)) => {
            application.disconnect(context, CloseCode::FORBIDDEN, reason);
            return;
        }
        Err(_) => return close(application, context),
    };
    become_caller(application, context, caller);
}

/// The peer of a connection is this from here on. What that may not do ends.
fn become_caller(
    application: &mut Application,
    context: &mut ConnectionContext<'_>,
    caller: Caller<'static>,
) {
    let identity = caller.identity().map(|identity| &**identity);
    if is_denied(application, identity) {
        application.disconnect(context, CloseCode::FORBIDDEN, "revoked".into());
        return;
    }
    let has_warning = context.connection.command_encoding().is_some();
    application.set_term(context.id, &caller, has_warning);
    application.identities.replace(context.identity, caller);
    judging::judge_again(application, context);
    let (subscribed, identity) = (*context.subscribed, *context.identity);
    if matches!(subscribed.kind(), SubscribedKind::Many(_)) && !context.connection.is_closing() {
        application.join_topics(context.id, subscribed, identity);
    }
}

/// Whether an identity is on the deny list. Its address was looked at when it came.
fn is_denied(application: &Application, identity: Option<&Identity>) -> bool {
    application.check_denied(identity, &|| Ok(None)).is_err()
}

fn close(application: &Application, context: &mut ConnectionContext<'_>) {
    let (settings, reason) = (&application.shared.settings, CloseReason::Expired);
    let connection = &mut *context.connection;
    connection.close(settings, context.now_ms, reason, context.out);
}

/// The application has said whether a subscription goes on.
fn renew(
    application: &mut Application,
    context: &mut ConnectionContext<'_>,
    target: &Target,
    decision: &Decision,
) {
    if !has(application, context, target) {
        return;
    }
    match decision {
        Decision::Subscription(terms) => {
            application.terms.leases.end(context.id.index, target);
            let allowed = Allowed::by(Some(terms.clone()));
            application.begin_lease(context.id, target, &allowed);
        }
        _ => end(application, context, target),
    }
}

/// Whether a connection has a subscription.
fn has(application: &Application, context: &ConnectionContext<'_>, target: &Target) -> bool {
    match (context.subscribed.kind(), target) {
        (SubscribedKind::One(one), Target::Topic(topic)) => application.topics.topic(one) == topic,
        (SubscribedKind::Many(_), target) => {
            let many = application.multi_subscriptions.get(*context.subscribed);
            many.is_some_and(|many| many.subscriptions.get(target).is_some())
        }
        _ => false,
    }
}

/// Ends a subscription whose time is over. One that is all that its connection has ends with that.
fn end(application: &mut Application, context: &mut ConnectionContext<'_>, target: &Target) {
    if context.connection.is_closing() || !has(application, context, target) {
        return;
    }
    let Some(encoding) = context.connection.command_encoding() else {
        return close(application, context);
    };
    if application.end_subscription(context.id, *context.subscribed, target) {
        let dialects = &application.shared.settings.dialects;
        let (dialect, mut message) = (dialects.get(encoding), Vec::new());
        let reason = Some("the time for which it was allowed is over");
        dialect.encode_push(&mut message, &Push::Ended(target, "expired", reason));
        dialects.frame_message(encoding, &message, context.out);
    }
}
