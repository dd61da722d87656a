//! Outboxes that are shed: the largest first.

use super::Slots;
use crate::connection::CloseReason;
use crate::rate::Limit;

/// Connections that are closed for one order.
const CLOSES_MAX: usize = 256;

/// Frees so many bytes: the connections with the largest outboxes are closed.
pub fn shed(slots: &mut impl Slots, bytes: u64, now_ms: u64) {
    let mut largest = Vec::new();
    for index in 0..slots.end() {
        let held = slots.look(index, |_, seen| match seen.connection.is_closing() {
            true => 0,
            false => seen.connection.outbox.bytes() as u64,
        });
        if let held @ 1.. = held.unwrap_or(0) {
            largest.push((held, index));
        }
    }
    largest.sort_unstable_by(|one, other| other.cmp(one));
    let mut left = bytes;
    for (held, index) in largest.into_iter().take(CLOSES_MAX) {
        if left == 0 {
            break;
        }
        left = left.saturating_sub(held);
        slots.look(index, |application, seen| {
            let address = (seen.peer_address)().ok().flatten();
            let address = address.map(|address| address.ip().to_canonical());
            let now_us = application.now_us;
            application
                .shared
                .note_refused(Limit::Memory, address, now_us);
        });
        slots.visit(index, now_ms, |application, context| {
            let settings = &application.shared.settings;
            context
                .connection
                .fail(settings, now_ms, CloseReason::OverBudget);
        });
    }
}
