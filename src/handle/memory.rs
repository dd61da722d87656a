//! Memory: our own counters, and orders to shed.

use super::Handle;
use crate::hub::Command;
use crate::memory::shedding::{MemoryState, Own};

impl Handle {
    /// Budget and use.
    pub(crate) fn memory(&self) -> &MemoryState {
        &self.shared.metrics.memory
    }

    /// Milliseconds since the process's clock began.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_us() / 1000
    }

    /// Bytes that can be shed.
    pub(crate) fn own_bytes(&self) -> Own {
        let metrics = &self.shared.metrics;
        Own {
            histories: self.shared.shards.counts().history_bytes as u64,
            outboxes: metrics.sum(|reactor| &reactor.outbox_bytes),
        }
    }

    /// Has so many bytes of histories and outboxes shed. Shards and reactors have equal parts, or those of what they hold.
    pub(crate) fn shed(&self, histories: u64, outboxes: u64) {
        let shards = self.shared.shards.shard_count();
        if histories > 0 {
            let bytes = histories.div_ceil(u64::from(shards.max(1))) as usize;
            for shard in 0..shards {
                // A shard that takes no command now is told with the next measurement.
                let _ = self
                    .shared
                    .shards
                    .submit(Command::Shed { shard, bytes }, None);
            }
        }
        let metrics = &self.shared.metrics;
        let all = metrics.sum(|reactor| &reactor.outbox_bytes).max(1);
        for number in 0..metrics.reactor_count() {
            let held = metrics.reactor(number).outbox_bytes.get();
            let part = u128::from(outboxes) * u128::from(held) / u128::from(all);
            if part > 0 {
                self.shared.shed_outboxes(number as u16, part as u64);
            }
        }
    }
}
