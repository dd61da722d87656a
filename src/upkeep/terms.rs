//! Terms of connections: who has waited too long for a credential, and whose identity ends.

use super::{Slots, renewals};
use crate::application::{Application, ConnectionContext};
use crate::connection::{CloseReason, Label, NEVER_MS};
use crate::dialect::Push;
use crate::shared::terms::Due;

/// Connections whose term is looked after in one tick; the others' turn comes in the next one.
const TERMS_PER_TICK: usize = 1024;

/// A step back of the wall clock that is worth a line in the log, in milliseconds.
const STEP_BACK_MS: i64 = 30_000;

/// Time until a connection is looked at again that is not opened yet, in milliseconds.
const AGAIN_MS: u64 = 1000;

/// Longest wait of a reactor with identities that end, in milliseconds: no event tells that the wall clock was set.
const CLOCK_WAIT_MS: u64 = 1000;

/// Sets the wall clock by the machine's, at this tick's moment.
pub fn set_wall_ms(application: &mut Application, wall_ms: u64) {
    let clock_ms = application.now_us / 1000;
    let ahead_ms = wall_ms.wrapping_sub(clock_ms).cast_signed();
    let before_ms = std::mem::replace(&mut application.wall_ahead_ms, ahead_ms);
    let back_ms = before_ms.saturating_sub(ahead_ms);
    if back_ms > STEP_BACK_MS && !application.terms.is_empty() {
        log::warn!(back_ms; "the machine's clock was set back: tokens last longer by that");
    }
}

/// Looks after terms, if there are any.
pub fn sweep(slots: &mut impl Slots, now_ms: u64) {
    if slots.application().terms.is_empty() {
        return;
    }
    let clock_ms = slots.application().now_us / 1000;
    for _ in 0..TERMS_PER_TICK {
        let Some(index) = slots.application_mut().terms.take_overdue(clock_ms) else {
            break;
        };
        slots.visit(index, now_ms, |application, context| {
            handle_overdue(application, context);
        });
    }
    let wall_ms = slots.application().wall_ms();
    for _ in 0..TERMS_PER_TICK {
        let Some((index, due)) = slots.application_mut().terms.take_due(wall_ms) else {
            break;
        };
        slots.visit(index, now_ms, |application, context| {
            handle_term(application, context, due);
        });
    }
    if !slots.application().terms.leases.is_empty() {
        sweep_leases(slots, now_ms);
    }
}

/// Looks after subscriptions that end.
fn sweep_leases(slots: &mut impl Slots, now_ms: u64) {
    let application = slots.application_mut();
    let wait_ms = application.shared.settings.limits.handshake_timeout_ms;
    let wall_ms = application.wall_ms();
    for _ in 0..TERMS_PER_TICK {
        let leases = &mut slots.application_mut().terms.leases;
        let Some(due) = leases.take_due(wall_ms, wait_ms) else {
            break;
        };
        slots.visit(due.connection.index, now_ms, |application, context| {
            renewals::handle_lease(application, context, &due);
        });
    }
}

/// Earliest moment at which a term is to be looked after.
pub fn next_ms(application: &Application, now_ms: u64) -> u64 {
    let (terms, clock_ms) = (&application.terms, application.now_us / 1000);
    if terms.is_empty() {
        return NEVER_MS;
    }
    let wait_ms = match terms.next_wait_ms() {
        NEVER_MS => NEVER_MS,
        at_ms => now_ms + at_ms.saturating_sub(clock_ms),
    };
    let end_ms = match terms.next_end_in_ms(application.wall_ms()) {
        NEVER_MS => NEVER_MS,
        in_ms => now_ms + in_ms.min(CLOCK_WAIT_MS),
    };
    wait_ms.min(end_ms)
}

/// Closes a connection whose peer has shown no credential in time.
fn handle_overdue(application: &Application, context: &mut ConnectionContext<'_>) {
    let (settings, reason) = (&application.shared.settings, CloseReason::AuthTimeout);
    let connection = &mut *context.connection;
    connection.close(settings, context.now_ms, reason, context.out);
}

/// Deals with what is due of a connection's term.
fn handle_term(application: &mut Application, context: &mut ConnectionContext<'_>, due: Due) {
    let settings = &application.shared.settings;
    let connection = &mut *context.connection;
    if connection.is_closing() {
        return;
    }
    if connection.label() == Label::Http {
        // It waits for the hub still; or it was refused, and its next request shows a credential anew.
        if connection.joining_encoding().is_some() {
            let again_ms = application.wall_ms() + AGAIN_MS;
            application.terms.postpone(context.id.index, again_ms);
        }
        return;
    }
    match due {
        Due::Warning { in_ms } => {
            renewals::ask_who(application, context);
            let (settings, connection) = (&application.shared.settings, &*context.connection);
            let Some(encoding) = connection.command_encoding() else {
                return;
            };
            let (dialects, mut message) = (&settings.dialects, Vec::new());
            let push = Push::Expiring(in_ms);
            dialects.get(encoding).encode_push(&mut message, &push);
            dialects.frame_message(encoding, &message, context.out);
        }
        Due::Ask => renewals::ask_who(application, context),
        Due::Close => {
            connection.close(settings, context.now_ms, CloseReason::Expired, context.out);
        }
    }
}
