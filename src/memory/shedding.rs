//! Shedding: its beginning, its order and its end.
//!
//! Above 90 % of the budget it begins: new connections are refused, then the oldest histories go, and then the largest
//! outboxes. It goes on until our own counters are down by what was over 85 %. The process's own figure only begins it, for an
//! allocator gives pages back late.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Parts of the budget, in percent: it is measured more often, shedding begins, it aims at, and nobody comes in.
const WATCH_PERCENT: u64 = 80;
const BEGIN_PERCENT: u64 = 90;
const AIM_PERCENT: u64 = 85;
const FULL_PERCENT: u64 = 97;

/// Growth, in percent of the budget, that is more than chance.
const MARGIN_PERCENT: u64 = 1;

/// Times between two measurements, in milliseconds: where there is room, near the budget, and where it fills up.
const INTERVAL_MS: u64 = 1000;
const WATCH_INTERVAL_MS: u64 = 100;
const SHORT_INTERVAL_MS: u64 = 10;

/// Growth of our own counters, in percent of the budget, upon which it is measured at once.
const SUDDEN_PERCENT: u64 = 2;

/// Time for the allocator to give back what was shed, in milliseconds.
const SETTLE_MS: u64 = 10_000;

/// Budget and use, as all threads see them.
#[derive(Debug, Default)]
pub struct MemoryState {
    budget: AtomicU64,
    used: AtomicU64,
    refuses: AtomicBool,
}

impl MemoryState {
    /// Sets the budget, in bytes. 0: there is none.
    pub fn set_budget(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::Relaxed);
    }

    /// The budget, in bytes. 0: there is none.
    pub fn budget(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    /// Bytes in use when they were measured last.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes a measurement, and whether new connections are refused.
    pub fn note(&self, used: u64, refuses: bool) {
        self.used.store(used, Ordering::Relaxed);
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    /// Whether new connections are refused.
    pub fn refuses(&self) -> bool {
        self.refuses.load(Ordering::Relaxed)
    }
}

/// Bytes that can be shed, by our own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Histories.
    pub histories: u64,
    /// Outboxes.
    pub outboxes: u64,
}

/// Orders after one measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// New connections are refused.
    pub refuses: bool,
    /// Bytes of histories.
    pub histories: u64,
    /// Bytes of outboxes.
    pub outboxes: u64,
    /// Shedding began with this measurement.
    pub begins: bool,
    /// It is over.
    pub ends: bool,
}

/// Progress of shedding.
#[derive(Debug, Default)]
pub struct Shedding {
    /// Bytes of our own that are to be left.
    goal: Option<u64>,
    /// The end of the last time: the moment, what was used, and what was our own.
    last_end: Option<(u64, u64, u64)>,
    /// The moment in which it was measured last, and what was used then.
    last: (u64, u64),
}

impl Shedding {
    /// Decides by a measurement.
    pub fn step(&mut self, budget: u64, used: u64, own: Own, now_ms: u64) -> Orders {
        let ours = own.histories.saturating_add(own.outboxes);
        let mut orders = Orders::default();
        if budget == 0 {
            self.goal = None;
            return orders;
        }
        if self.goal.is_none()
            && used > part(budget, BEGIN_PERCENT)
            && self.may_begin(budget, used, ours, now_ms)
        {
            let over = used - part(budget, AIM_PERCENT);
            self.goal = Some(ours.saturating_sub(over));
            orders.begins = true;
        }
        if let Some(goal) = self.goal {
            let over = ours.saturating_sub(goal);
            orders.histories = over.min(own.histories);
            orders.outboxes = over - orders.histories;
            if over == 0 {
                self.goal = None;
                self.last_end = Some((now_ms, used, ours));
                orders.ends = !orders.begins;
                orders.begins = false;
            }
        }
        orders.refuses = self.goal.is_some() || used > part(budget, FULL_PERCENT);
        orders
    }

    /// Whether more is used than at the end of the last time, by more than chance.
    fn may_begin(&self, budget: u64, used: u64, ours: u64, now_ms: u64) -> bool {
        let margin = part(budget, MARGIN_PERCENT);
        self.last_end
            .is_none_or(|(ended_ms, used_then, ours_then)| {
                now_ms >= ended_ms + SETTLE_MS
                    || used > used_then + margin
                    || ours > ours_then + margin
            })
    }

    /// Time until the next measurement, in milliseconds: half of that in which shedding would begin if use grows on as it
    /// did.
    pub fn interval_ms(&mut self, budget: u64, used: u64, now_ms: u64) -> u64 {
        let (then_ms, used_then) = std::mem::replace(&mut self.last, (now_ms, used));
        if budget == 0 {
            return INTERVAL_MS;
        }
        if self.goal.is_some() {
            return SHORT_INTERVAL_MS;
        }
        let longest_ms = match used > part(budget, WATCH_PERCENT) {
            true => WATCH_INTERVAL_MS,
            false => INTERVAL_MS,
        };
        let grown = u128::from(used.saturating_sub(used_then));
        let left = u128::from(part(budget, BEGIN_PERCENT).saturating_sub(used));
        let elapsed_ms = u128::from(now_ms.saturating_sub(then_ms).max(1));
        let half_ms = (left * elapsed_ms).checked_div(2 * grown);
        let half_ms = half_ms.and_then(|half_ms| u64::try_from(half_ms).ok());
        let half_ms = half_ms.unwrap_or(longest_ms);
        half_ms.clamp(SHORT_INTERVAL_MS, longest_ms)
    }
}

/// Whether our own counters have grown suddenly.
///
/// It is measured before its time then.
pub fn is_sudden(budget: u64, before: Own, now: Own) -> bool {
    let sum = |own: Own| own.histories.saturating_add(own.outboxes);
    sum(now).saturating_sub(sum(before)) > part(budget, SUDDEN_PERCENT)
}

fn part(bytes: u64, percent: u64) -> u64 {
    (u128::from(bytes) * u128::from(percent) / 100) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own(histories: u64, outboxes: u64) -> Own {
        Own {
            histories,
            outboxes,
        }
    }

    #[test]
    fn histories_first_and_then_outboxes() {
        let mut shedding = Shedding::default();
        assert_eq!(
            shedding.step(1000, 899, own(100, 300), 0),
            Orders::default()
        );
        // Each some time behind the one before.
        let mut now_ms = 0;
        for (later_ms, used, interval_ms) in [
            (1000, 100, INTERVAL_MS),
            (1000, 100, INTERVAL_MS),
            (100, 400, SHORT_INTERVAL_MS + 73),
            (83, 700, 27),
            (27, 701, INTERVAL_MS),
            (100, 801, WATCH_INTERVAL_MS / 2 - 1),
            (49, 801, WATCH_INTERVAL_MS),
            (100, 895, SHORT_INTERVAL_MS),
            (10, 899, SHORT_INTERVAL_MS),
        ] {
            now_ms += later_ms;
            assert_eq!(
                shedding.interval_ms(1000, used, now_ms),
                interval_ms,
                "{used}"
            );
        }
        assert!(is_sudden(1000, own(1, 1), own(13, 10)));
        assert!(!is_sudden(1000, own(1, 1), own(12, 10)) && !is_sudden(1000, own(9, 9), own(0, 0)));
        // 950 is 100 over 85 %.
        let orders = shedding.step(1000, 950, own(60, 300), 100);
        assert!(orders.refuses && orders.begins && !orders.ends);
        assert_eq!((orders.histories, orders.outboxes), (60, 40));
        // The allocator has given nothing back. Our own counters say how far it is.
        let orders = shedding.step(1000, 950, own(0, 280), 200);
        assert_eq!((orders.histories, orders.outboxes), (0, 20));
        let orders = shedding.step(1000, 950, own(0, 260), 300);
        assert!(orders.ends && !orders.refuses);
        // It does not begin anew for what was shed already, but for what has come since.
        assert_eq!(
            shedding.step(1000, 950, own(0, 260), 400),
            Orders::default()
        );
        assert!(!shedding.step(1000, 960, own(0, 270), 500).begins);
        assert!(shedding.step(1000, 961, own(0, 270), 600).begins);
    }

    #[test]
    fn nothing_of_our_own_is_left() {
        let mut shedding = Shedding::default();
        let orders = shedding.step(1000, 980, own(0, 0), 0);
        assert!(orders.refuses && orders.histories == 0 && orders.outboxes == 0);
        assert!(!shedding.step(1000, 960, own(0, 0), 100).refuses);
        assert!(shedding.step(1000, 950, own(50, 0), SETTLE_MS).begins);
        assert_eq!(
            shedding.step(0, 950, own(50, 0), SETTLE_MS),
            Orders::default()
        );
    }

    proptest! {
        /// No more is shed than what was over, and than what is there.
        #[test]
        fn never_more_than_what_is_over(
            steps in prop::collection::vec((0u64..2000, 0u64..500, 0u64..500), 1..40),
        ) {
            let mut shedding = Shedding::default();
            for (now_ms, (used, histories, outboxes)) in (0..).zip(steps) {
                let orders = shedding.step(1000, used, own(histories, outboxes), now_ms);
                prop_assert!(orders.histories <= histories && orders.outboxes <= outboxes);
                prop_assert!(orders.outboxes == 0 || orders.histories == histories);
                if orders.begins {
                    prop_assert!(orders.histories + orders.outboxes <= used - 850);
                }
                prop_assert!(!orders.begins || used > 900);
            }
        }
    }
}
