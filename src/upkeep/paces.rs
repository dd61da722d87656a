//! Rates of what connections send, and their age.

use super::Slots;
use crate::connection::{CloseReason, Hold, Label, scatter};
use crate::rate::Limit;
use crate::rate::pace::Verdict;

/// Connections that are looked after in one tick; the others' turn comes in the next one.
const DUE_PER_TICK: usize = 1024;

/// Bytes to be read at once from a connection, within the room.
pub fn room(slots: &mut impl Slots, index: u32, room: usize) -> usize {
    let rules = slots.application().shared.settings.pace;
    if !slots.upkeep().paces.is_known(index) {
        let is_exempt = is_exempt(slots, index);
        slots.upkeep().paces.begin(index, is_exempt, None);
    }
    match slots.upkeep().paces.get(index) {
        Some(pace) => pace.room(&rules, room),
        None => room,
    }
}

/// Whether a connection is exempt from the limits of the settings.
fn is_exempt(slots: &mut impl Slots, index: u32) -> bool {
    let is_exempt = slots.look(index, |application, seen| {
        let address = (seen.peer_address)().ok().flatten();
        let address = address.map(|address| address.ip());
        application.shared.is_exempt(seen.listener, address)
    });
    is_exempt.unwrap_or(true)
}

/// Holds connections to the rates of their identities.
fn take_own(slots: &mut impl Slots) {
    while let Some((id, own)) = slots.application_mut().own_rates.pop() {
        let is_here = slots.look(id.index, |_, seen| seen.id == id);
        if is_here == Some(true) && !slots.upkeep().paces.set_own(id.index, own) {
            let is_exempt = is_exempt(slots, id.index);
            slots.upkeep().paces.begin(id.index, is_exempt, own);
        }
    }
}

/// Ends a turn of a connection: so many bytes were read, and nothing is left to be read if `is_whole`.
pub fn settle(slots: &mut impl Slots, index: u32, (bytes, is_whole): (usize, bool), now_ms: u64) {
    let (rules, now_us) = {
        let application = slots.application();
        (application.shared.settings.pace, application.now_us)
    };
    let turn = (bytes as u64, is_whole);
    match slots.upkeep().paces.settle(index, &rules, turn, now_us) {
        None => {}
        Some(Verdict::Hold(limit, until_us)) => {
            let until_ms = now_ms + (until_us - now_us).div_ceil(1000);
            hold(slots, (index, limit), until_ms, now_ms);
        }
        Some(Verdict::End(limit)) => {
            let is_open = slots.look(index, |_, seen| !seen.connection.is_closing());
            if is_open == Some(true) {
                note(slots, index, limit);
                close(slots, index, CloseReason::Rate, now_ms);
            }
        }
        Some(Verdict::Tried(limit)) => note(slots, index, limit),
    }
}

fn hold(slots: &mut impl Slots, (index, limit): (u32, Limit), until_ms: u64, now_ms: u64) {
    let is_held = slots.visit(index, now_ms, |_, context| {
        let goes_on = !context.connection.is_closing();
        if goes_on {
            context.connection.hold(Hold::Rate);
        }
        goes_on
    });
    if is_held == Some(true) {
        slots.upkeep().paces.hold_until(index, until_ms);
        note(slots, index, limit);
    }
}

/// Counts that a limit held a connection back, or ended it.
fn note(slots: &mut impl Slots, index: u32, limit: Limit) {
    slots.look(index, |application, seen| {
        let address = (seen.peer_address)().ok().flatten();
        let address = address.map(|address| address.ip().to_canonical());
        application
            .shared
            .refuses(limit, address, application.now_us);
    });
}

/// Closes a connection in order, one that is held too.
pub fn close(slots: &mut impl Slots, index: u32, reason: CloseReason, now_ms: u64) {
    slots.visit(index, now_ms, |application, context| {
        let settings = &application.shared.settings;
        let connection = &mut *context.connection;
        connection.lift(Hold::Rate);
        match reason {
            // A request of which a part has come would be waited for.
            CloseReason::Rate if connection.label() == Label::Http => {
                connection.fail(settings, now_ms, reason);
            }
            _ => connection.close(settings, now_ms, reason, context.out),
        }
    });
}

/// A connection was accepted: it may get as old as the settings say.
pub fn begin_age(slots: &mut impl Slots, index: u32, salt: u32, now_ms: u64) {
    let age_max_ms = slots
        .application()
        .shared
        .settings
        .limits
        .connection_age_max_ms;
    if age_max_ms > 0 {
        let fifth_ms = age_max_ms / 5;
        let age_ms = scatter(salt, age_max_ms - fifth_ms..age_max_ms + fifth_ms + 1);
        slots.upkeep().ages.set(index, now_ms + age_ms);
    }
}

/// Goes on with connections whose wait is over. Those that are too old are closed.
pub fn sweep(slots: &mut impl Slots, now_ms: u64) {
    take_own(slots);
    while let Some((index, until_ms)) = slots.application_mut().slowed.pop() {
        slots.upkeep().paces.hold_until(index, until_ms);
    }
    for _ in 0..DUE_PER_TICK {
        let Some(index) = slots.upkeep().paces.take_due(now_ms) else {
            break;
        };
        slots.visit(index, now_ms, |_, context| {
            context.connection.lift(Hold::Rate);
        });
    }
    for _ in 0..DUE_PER_TICK {
        let Some(index) = slots.upkeep().ages.take_due(now_ms) else {
            break;
        };
        note(slots, index, Limit::Age);
        close(slots, index, CloseReason::Age, now_ms);
    }
}
