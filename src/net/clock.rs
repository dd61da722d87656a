//! The reactor's time, which does not count what the reactor did not live through.

use std::time::{Instant, SystemTime};

/// How much longer than it asked for a wait, and the work before it, may take before the rest counts as a suspension.
const STALL_MS_MAX: u64 = 1000;

/// The process's monotonic clock: microseconds since 1970, set by the wall's clock when it began and never again.
#[derive(Clone, Copy, Debug)]
pub struct ProcessClock {
    began: Instant,
    began_us: u64,
}

impl ProcessClock {
    /// One that begins now.
    pub fn begin() -> ProcessClock {
        // A clock before 1970 was never set.
        let wall = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        ProcessClock {
            began: Instant::now(),
            began_us: wall.as_micros() as u64,
        }
    }

    /// The time when it began.
    pub fn began_us(&self) -> u64 {
        self.began_us
    }

    /// The time now.
    pub fn now_us(&self) -> u64 {
        self.began_us + self.began.elapsed().as_micros() as u64
    }
}

/// Milliseconds of the process's clock, without suspensions.
///
/// A process that is stopped for a minute finds every deadline past when it goes on, though its peers did nothing
/// wrong. So the time that passes in one tick is at most what the tick meant to wait and a little more.
#[derive(Debug)]
pub struct Clock {
    process: ProcessClock,
    last_ms: u64,
    suspended_ms: u64,
}

impl Clock {
    /// A reactor's clock.
    pub fn new(process: ProcessClock) -> Clock {
        Clock {
            process,
            last_ms: process.now_us() / 1000,
            suspended_ms: 0,
        }
    }

    /// The time now, after a wait that was to take `wait_ms` at most; and the process's, in microseconds.
    pub fn tick(&mut self, wait_ms: u64) -> (u64, u64) {
        let now_us = self.now_us();
        (self.advance(now_us / 1000, wait_ms), now_us)
    }

    fn advance(&mut self, real_ms: u64, wait_ms: u64) -> u64 {
        let elapsed_ms = real_ms.saturating_sub(self.last_ms);
        self.suspended_ms += elapsed_ms.saturating_sub(wait_ms + STALL_MS_MAX);
        self.last_ms = real_ms;
        real_ms - self.suspended_ms
    }

    /// The process's time, in microseconds: for measuring.
    pub fn now_us(&self) -> u64 {
        self.process.now_us()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspension_does_not_count() {
        let mut clock = Clock::new(ProcessClock::begin());
        let start = clock.last_ms;
        assert_eq!(clock.advance(start + 500, 500), start + 500);
        assert_eq!(clock.advance(start + 60_500, 200), start + 1_700);
        assert_eq!(clock.advance(start + 60_600, 200), start + 1_800);
    }
}
