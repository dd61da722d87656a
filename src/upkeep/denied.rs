//! Ends of open connections by the deny list.
//!
//! They are looked for after each change of it.
//! A reactor notices a change by its number in each tick. So none is lost, however many come at once, and one look serves all
//! that came before it.

use super::Slots;
use crate::handler::CloseCode;

/// Slots that are looked at in one tick.
const SLOTS_PER_TICK: u32 = 4096;

/// Connections that are ended in one tick.
const ENDS_PER_TICK: usize = 1000;

/// How far a reactor is.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The change that the last look, or the one under way, began with.
    generation: u64,
    /// The next slot. None: no look is under way.
    from: Option<u32>,
}

impl Look {
    pub fn is_under_way(&self) -> bool {
        self.from.is_some()
    }
}

/// Goes on with a look, or begins one if the list has changed. A change that comes meanwhile has a look of its own, behind this
/// one: so a list that changes all the time does not keep the last slots from being looked at.
pub(super) fn poll(slots: &mut impl Slots, now_ms: u64) {
    let generation = slots.application().shared.control.deny.generation();
    let look = &mut slots.upkeep().denied;
    if look.from.is_none() && look.generation != generation {
        *look = Look {
            generation,
            from: Some(0),
        };
    }
    let Some(first) = look.from else {
        return;
    };
    let (end, mut ends_left) = (slots.end(), ENDS_PER_TICK);
    let mut index = first;
    while index < end.min(first.saturating_add(SLOTS_PER_TICK)) && ends_left > 0 {
        ends_left -= usize::from(end_denied(slots, index, now_ms));
        index += 1;
    }
    slots.upkeep().denied.from = (index < end).then_some(index);
}

/// Ends the connection of a slot, if it is denied. False: there is nothing to end.
fn end_denied(slots: &mut impl Slots, index: u32, now_ms: u64) -> bool {
    let is_denied = slots.look(index, |application, seen| {
        let deny = &application.shared.control.deny;
        let wall_ms = application.wall_ms();
        !seen.connection.is_closing()
            && deny
                .read()
                .ends(seen.identity_in(application), || seen.client_ip(), wall_ms)
    });
    if is_denied != Some(true) {
        return false;
    }
    slots.visit(index, now_ms, |application, context| {
        application.disconnect(context, CloseCode::FORBIDDEN, "revoked".into());
    });
    true
}
