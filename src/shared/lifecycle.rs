//! Stages of a server's life, and whether it is in service.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Stage of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Lifecycle {
    /// Serving.
    Ready = 0,
    /// Serving, and telling whoever probes that it will not for long.
    PreStop = 1,
    /// Delivering what is queued and closing everybody.
    Draining = 2,
    /// Ending at once.
    Stopping = 3,
}

impl Lifecycle {
    /// Whether new subscribers are taken.
    pub fn takes_subscribers(self) -> bool {
        self < Lifecycle::Draining
    }

    fn of(bits: u64) -> Lifecycle {
        match bits & STAGE {
            0 => Lifecycle::Ready,
            1 => Lifecycle::PreStop,
            2 => Lifecycle::Draining,
            _ => Lifecycle::Stopping,
        }
    }
}

/// Bits of the stage.
const STAGE: u64 = 0xff;

/// The bit of a node that is out of service.
const IS_OUT: u64 = 1 << 8;

/// The place of the closes in a second.
const RATE_SHIFT: u32 = 32;

/// The stage of the server, as all threads see it. It only moves forward; out of service and back is another matter.
#[derive(Debug, Default)]
pub struct LifecycleCell {
    bits: AtomicU64,
    /// The beginning of the end.
    ending_since: OnceLock<Instant>,
    /// Connections that a drain told to go.
    pub told: AtomicU64,
    /// Connections that its time was too short for.
    pub cut: AtomicU64,
}

/// A drain, at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were told to go.
    pub told: u64,
    /// Connections that were cut off at the end of the time.
    pub cut: u64,
    /// Time since its beginning.
    pub took: Duration,
}

impl LifecycleCell {
    /// The stage now.
    pub fn get(&self) -> Lifecycle {
        self.read().0
    }

    /// The stage now; and where the server is out of service, how many connections are to be closed in a second.
    pub fn read(&self) -> (Lifecycle, Option<u32>) {
        let bits = self.bits.load(Ordering::SeqCst);
        let rate = (bits >> RATE_SHIFT) as u32;
        (Lifecycle::of(bits), (bits & IS_OUT != 0).then_some(rate))
    }

    /// Whether others may send their clients here.
    pub fn is_ready(&self) -> bool {
        self.read() == (Lifecycle::Ready, None)
    }

    /// Moves forward to this stage.
    pub fn advance(&self, lifecycle: Lifecycle) {
        if lifecycle > Lifecycle::Ready {
            self.ending_since.get_or_init(Instant::now);
        }
        self.change(|bits| match Lifecycle::of(bits) < lifecycle {
            true => bits & !STAGE | lifecycle as u64,
            false => bits,
        });
    }

    /// Takes the server out of service. So many connections are closed in a second; None: puts it back.
    pub fn set_absent(&self, closes_per_second: Option<u32>) {
        let absent = closes_per_second.map_or(0, |rate| IS_OUT | u64::from(rate) << RATE_SHIFT);
        self.change(|bits| bits & STAGE | absent);
    }

    fn change(&self, change: impl Fn(u64) -> u64) {
        let change = |bits| Some(change(bits));
        let _ = self
            .bits
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
    }

    /// The drain, if there was one.
    pub fn drained(&self) -> Option<Drained> {
        let since = self.ending_since.get()?;
        Some(Drained {
            told: self.told.load(Ordering::Relaxed),
            cut: self.cut.load(Ordering::Relaxed),
            took: since.elapsed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_only_move_forward() {
        let cell = LifecycleCell::default();
        assert!(cell.is_ready() && cell.drained().is_none());
        cell.advance(Lifecycle::Draining);
        cell.advance(Lifecycle::PreStop);
        assert_eq!(cell.read(), (Lifecycle::Draining, None));
        assert!(cell.drained().is_some());
    }

    #[test]
    fn out_of_service_and_back() {
        let cell = LifecycleCell::default();
        cell.set_absent(Some(7));
        assert_eq!(cell.read(), (Lifecycle::Ready, Some(7)));
        cell.advance(Lifecycle::PreStop);
        assert_eq!(cell.read(), (Lifecycle::PreStop, Some(7)));
        cell.set_absent(None);
        assert_eq!(cell.read(), (Lifecycle::PreStop, None));
    }
}
