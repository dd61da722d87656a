//! Shutdown: everybody is closed with 1001, at a pace that spreads it over the first half of the drain time.

use super::connections::Connections;
use super::slot::{Flags, Slot};
use crate::connection::CloseReason;
use crate::net::byte_stream::ByteStream;

/// The slowest pace, so that a server with few connections is gone at once.
const CLOSES_PER_MS_MIN: f64 = 1.0;

/// How far a drain has come.
#[derive(Debug)]
pub struct Drain {
    started_ms: u64,
    /// Slots below this one have been closed.
    next: usize,
    closes_per_ms: f64,
    closed: u64,
}

impl<T: ByteStream> Connections<T> {
    /// Closes as many connections as the pace allows by now. True once none is left, and the hub has
    /// taken all that they sent.
    ///
    /// Nothing is accepted by then; requests that are being answered are answered to their end.
    pub fn poll_drain(&mut self, now_ms: u64) -> bool {
        let window_ms = self.settings.limits.drain_timeout_ms / 2;
        let count = self.slots.len() as f64;
        let drain = self.drain.get_or_insert_with(|| Drain {
            started_ms: now_ms,
            next: 0,
            closes_per_ms: (count / window_ms.max(1) as f64).max(CLOSES_PER_MS_MIN),
            closed: 0,
        });
        let elapsed_ms = (now_ms - drain.started_ms + 1) as f64;
        let allowed = (elapsed_ms * drain.closes_per_ms) as u64;
        let (mut next, mut budget) = (drain.next, allowed.saturating_sub(drain.closed));
        let capacity = self
            .slots
            .iter()
            .next_back()
            .map_or(0, |(index, _)| index + 1);
        while next < capacity && budget > 0 {
            let index = next;
            next += 1;
            let Connections {
                slots,
                settings,
                out,
                ..
            } = self;
            let slot = slots.get_mut(index);
            let Some(slot) = slot.filter(|slot| !slot.flags.has(Flags::IS_CLOSED)) else {
                continue;
            };
            slot.connection
                .close(settings, now_ms, CloseReason::Shutdown, out);
            budget -= 1;
            self.settle(index as u32, now_ms);
        }
        if let Some(drain) = &mut self.drain {
            drain.closed = allowed - budget;
            // Those that were accepted or went back to waiting meanwhile are met on the next round.
            drain.next = if next >= capacity { 0 } else { next };
        }
        self.slots.is_empty() && !self.has_backpressure()
    }

    /// Ends whoever is left. Who was not told before is told now, as far as the transport takes it: by a Close frame, or
    /// by refusing the request that has begun. The slots are freed at the end of the tick, as ever.
    pub fn finish_all(&mut self, now_ms: u64) {
        let is_left = |slot: &Slot<T>| !slot.flags.has(Flags::IS_CLOSED);
        let left = self.slots.iter().filter(|(_, slot)| is_left(slot));
        let left: Vec<_> = left.map(|(index, _)| index).collect();
        for index in left {
            let connection = &mut self.slots[index].connection;
            if !connection.is_closing() {
                connection.fail(&self.settings, now_ms, CloseReason::Shutdown);
                self.settle(index as u32, now_ms);
            }
            self.slots[index].connection.finish(CloseReason::Shutdown);
            self.settle(index as u32, now_ms);
        }
    }
}
