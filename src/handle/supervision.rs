//! Figures for whoever supervises the process.

use std::time::Duration;

use super::Handle;
use crate::metrics::Metrics;

impl Handle {
    /// Ticks of each reactor since the start. One whose number stands still for seconds is stuck.
    pub fn ticks(&self) -> Vec<u64> {
        let metrics: &Metrics = &self.shared.metrics;
        (0..self.mailboxes.len())
            .map(|number| metrics.reactor(number).tick.count())
            .collect()
    }

    /// Lets each reactor tick at once, though it has nothing to do.
    pub fn nudge(&self) {
        self.wake();
    }

    /// Longest time from [`shutdown`](Handle::shutdown) to the end of the server, by `pre_stop_ms` and `drain_timeout_ms`.
    pub fn drain_time(&self) -> Duration {
        let limits = &self.running().config.limits;
        Duration::from_millis(limits.pre_stop_ms + limits.drain_timeout_ms)
    }
}
