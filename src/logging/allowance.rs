//! Bounds on lines of one kind.

use std::sync::atomic::{AtomicU64, Ordering};

/// Lines of one kind that are written in a second.
const LINES_PER_SECOND: u64 = 10;

/// Lines of one kind, of all threads: at most ten a second. Beyond that they are counted.
///
/// The second stands in the upper half, the lines that were wanted in it in the lower one.
#[derive(Debug, Default)]
pub struct Allowance(AtomicU64);

const COUNT: u64 = u32::MAX as u64;

impl Allowance {
    /// Asks for a line. Some: it may be written, and so many before it were not; of those it is to be told first. None: it
    /// is counted.
    pub fn take(&self, now_us: u64) -> Option<u64> {
        let second = now_us / 1_000_000;
        let wanted = |state: u64| match state >> 32 == second & COUNT {
            // It never runs over: whoever wants more lines in a second is told of no more.
            true => state + u64::from(state & COUNT < COUNT),
            false => (second & COUNT) << 32 | 1,
        };
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
                Some(wanted(state))
            });
        let before = before.unwrap_or_default();
        let count = before & COUNT;
        match before >> 32 == second & COUNT {
            true => (count < LINES_PER_SECOND).then_some(0),
            false => Some(count.saturating_sub(LINES_PER_SECOND)),
        }
    }

    /// Whether a line may be written.
    pub fn has_room(&self, now_us: u64) -> bool {
        let state = self.0.load(Ordering::Relaxed);
        let second = (now_us / 1_000_000) & COUNT;
        state >> 32 != second || state & COUNT < LINES_PER_SECOND
    }

    /// Lines that were left out in an earlier second. They count as told then.
    pub fn flush(&self, now_us: u64) -> Option<u64> {
        let second = (now_us / 1_000_000) & COUNT;
        let before = self.0.load(Ordering::Relaxed);
        let left_out = (before & COUNT).saturating_sub(LINES_PER_SECOND);
        if before >> 32 == second || left_out == 0 {
            return None;
        }
        let told =
            self.0
                .compare_exchange(before, second << 32, Ordering::Relaxed, Ordering::Relaxed);
        told.ok().map(|_| left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_second_and_then_a_count() {
        let allowance = Allowance::default();
        let taken = |second: u64| {
            let times = 0..25;
            let taken = times.map(|number| allowance.take(second * 1_000_000 + number));
            taken.collect::<Vec<_>>()
        };
        let first = taken(7);
        assert_eq!(first[..10], [Some(0); 10]);
        assert_eq!(first[10..], [None; 15]);
        assert_eq!(allowance.flush(7_999_999), None, "it goes on");
        let next = taken(8);
        assert_eq!(next[0], Some(15), "the first line tells of those before it");
        assert_eq!(next[1..10], [Some(0); 9]);
        assert_eq!(allowance.flush(9_000_000), Some(15));
        assert_eq!(allowance.flush(9_000_001), None);
        assert_eq!(allowance.take(9_000_002), Some(0));
    }
}
