//! Shutdown: everybody is closed with 1001, at a pace that spreads it over the first half of the drain time.

use super::Slots;
use crate::connection::CloseReason;

/// The slowest pace, so that a server with few connections is gone at once.
const CLOSES_PER_MS_MIN: f64 = 1.0;

/// How far a drain has come.
#[derive(Debug)]
pub struct Drain {
    started_ms: u64,
    /// Slots below this one have been closed.
    next: u32,
    closes_per_ms: f64,
    closed: u64,
}

/// Closes as many connections as the pace allows by now. True once none is left, and the hub has
/// taken all that they sent.
///
/// Nothing is accepted by then; requests that are being answered are answered to their end.
pub fn poll(slots: &mut impl Slots, now_ms: u64) -> bool {
    let window_ms = slots.application().shared.settings.limits.drain_timeout_ms / 2;
    let count = slots.count() as f64;
    let drain = slots.upkeep().drain.get_or_insert_with(|| Drain {
        started_ms: now_ms,
        next: 0,
        closes_per_ms: (count / window_ms.max(1) as f64).max(CLOSES_PER_MS_MIN),
        closed: 0,
    });
    let elapsed_ms = (now_ms - drain.started_ms + 1) as f64;
    let allowed = (elapsed_ms * drain.closes_per_ms) as u64;
    let (mut next, mut budget) = (drain.next, allowed.saturating_sub(drain.closed));
    let end = slots.end();
    while next < end && budget > 0 {
        let closed = slots.visit(next, now_ms, |application, context| {
            let (settings, reason) = (&application.shared.settings, CloseReason::Shutdown);
            let connection = &mut *context.connection;
            connection.close(settings, now_ms, reason, context.out);
        });
        budget -= u64::from(closed.is_some());
        next += 1;
    }
    if let Some(drain) = &mut slots.upkeep().drain {
        drain.closed = allowed - budget;
        // Those that were accepted or went back to waiting meanwhile are met on the next round.
        drain.next = if next >= end { 0 } else { next };
    }
    slots.count() == 0 && !slots.application().has_backpressure()
}

/// Ends whoever is left. Who was not told before is told now, as far as the transport takes it: by a Close frame, or
/// by refusing the request that has begun. The slots are freed at the end of the tick, as ever.
pub fn finish_all(slots: &mut impl Slots, now_ms: u64) {
    for index in 0..slots.end() {
        slots.visit(index, now_ms, |application, context| {
            let connection = &mut *context.connection;
            if !connection.is_closing() {
                connection.fail(&application.shared.settings, now_ms, CloseReason::Shutdown);
            }
        });
        slots.visit(index, now_ms, |_, context| {
            context.connection.finish(CloseReason::Shutdown);
        });
    }
}
