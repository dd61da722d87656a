//! One rate, by the generic cell rate algorithm (ITU-T I.371).
//!
//! A bucket is one number: the moment at which all that was taken so far would be over at the rate, the theoretical arrival
//! time (TAT). It may be ahead of now by as long as the burst lasts at the rate.
//!
//! ```text
//!  now ├──────────── TAT ──── cost ────┤ ≤ now + span: taken, and TAT moves on by the cost
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

const SECOND_US: u64 = 1_000_000;

/// A rate: so many a second, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_second: u64,
    span_us: u64,
}

impl Rate {
    /// So many a second, and as many as the burst at once; 0: those of one second. None: 0 a second sets no bound.
    pub fn new(per_second: u64, burst: u64) -> Option<Rate> {
        if per_second == 0 {
            return None;
        }
        let burst = if burst == 0 { per_second } else { burst };
        let mut rate = Rate {
            per_second,
            span_us: 0,
        };
        rate.span_us = rate.cost_us(burst);
        Some(rate)
    }

    /// The slower of two rates.
    #[must_use]
    pub fn slower(self, other: Rate) -> Rate {
        match other.per_second < self.per_second {
            true => other,
            false => self,
        }
    }

    /// This rate, and its burst, so many times.
    #[must_use]
    pub fn times(self, factor: u64) -> Rate {
        Rate {
            per_second: self.per_second.saturating_mul(factor),
            ..self
        }
    }

    /// How long so many last at the rate, in microseconds, rounded up.
    fn cost_us(self, count: u64) -> u64 {
        count.saturating_mul(SECOND_US).div_ceil(self.per_second)
    }

    /// So many it has in one second.
    pub fn of_second(self) -> u64 {
        self.per_second
    }
}

/// A rate's theoretical arrival time, which all reactors share.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes one.
    ///
    /// # Errors
    /// The microseconds until there is one. Nothing was taken.
    pub fn take(&self, rate: Rate, now_us: u64) -> Result<(), u64> {
        let (mut tat_us, cost_us) = (self.0.load(Ordering::Relaxed), rate.cost_us(1));
        loop {
            let next_us = tat_us.max(now_us).saturating_add(cost_us);
            let bound_us = now_us.saturating_add(rate.span_us);
            if next_us > bound_us {
                return Err(next_us - bound_us);
            }
            let swapped =
                self.0
                    .compare_exchange_weak(tat_us, next_us, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => return Ok(()),
                Err(seen_us) => tat_us = seen_us,
            }
        }
    }

    /// Microseconds until one can be taken; 0: now.
    pub fn wait_us(&self, rate: Rate, now_us: u64) -> u64 {
        let next_us = self
            .0
            .load(Ordering::Relaxed)
            .max(now_us)
            .saturating_add(rate.cost_us(1));
        next_us.saturating_sub(now_us.saturating_add(rate.span_us))
    }

    /// Takes one, whether there is one or not. Gives the microseconds until that is paid; 0 where it is.
    pub fn charge(&self, rate: Rate, now_us: u64) -> u64 {
        let cost_us = rate.cost_us(1);
        let later = |tat_us: u64| Some(tat_us.max(now_us).saturating_add(cost_us));
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        let tat_us = before
            .unwrap_or_else(|tat_us| tat_us)
            .max(now_us)
            .saturating_add(cost_us);
        tat_us.saturating_sub(now_us.saturating_add(rate.span_us))
    }
}

/// A theoretical arrival time of one owner. It may take more than there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Debt(u64);

impl Debt {
    /// Takes so many, whatever there is. Gives the microseconds until that is paid; 0 where it is.
    pub fn charge(&mut self, rate: Rate, count: u64, now_us: u64) -> u64 {
        self.0 = self.0.max(now_us).saturating_add(rate.cost_us(count));
        self.0.saturating_sub(now_us.saturating_add(rate.span_us))
    }

    /// Forgives what is more than there was.
    pub fn forgive(&mut self, rate: Rate, now_us: u64) {
        self.0 = self.0.min(now_us.saturating_add(rate.span_us));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn burst_and_then_the_rate() {
        let rate = Rate::new(10, 3).expect("a bound");
        let bucket = Bucket::default();
        let now_us = 5_000_000;
        for _ in 0..3 {
            assert_eq!(bucket.take(rate, now_us), Ok(()));
        }
        assert_eq!(bucket.take(rate, now_us), Err(100_000));
        assert_eq!(bucket.take(rate, now_us + 99_999), Err(1));
        assert_eq!(bucket.take(rate, now_us + 100_000), Ok(()));
        assert_eq!(bucket.take(rate, now_us + 100_000), Err(100_000));
        assert_eq!(Rate::new(0, 7), None);
    }

    #[test]
    fn multiple_of_a_rate_has_its_burst_too() {
        let rate = Rate::new(2, 3).expect("a bound").times(100);
        let bucket = Bucket::default();
        let taken = (0..1000).filter(|_| bucket.take(rate, 1).is_ok()).count();
        assert_eq!(taken, 300);
    }

    #[test]
    fn charge_beyond_what_there_is() {
        let rate = Rate::new(10, 2).expect("a bound");
        let bucket = Bucket::default();
        let waits = [(); 4].map(|()| bucket.charge(rate, 1));
        assert_eq!(waits, [0, 0, 100_000, 200_000]);
        assert_eq!(bucket.wait_us(rate, 1), 300_000);
        assert_eq!(bucket.take(rate, 1), Err(300_000));
        assert_eq!(bucket.wait_us(rate, 300_001), 0);
    }

    #[test]
    fn debt_is_paid_at_the_rate() {
        let rate = Rate::new(1000, 500).expect("a bound");
        let mut debt = Debt::default();
        assert_eq!(debt.charge(rate, 500, 0), 0);
        assert_eq!(debt.charge(rate, 1500, 0), 1_500_000);
        assert_eq!(debt.charge(rate, 0, 1_400_000), 100_000);
        assert_eq!(debt.charge(rate, 0, 1_500_000), 0);
        assert!(debt.charge(rate, u64::MAX, 1_500_000) > u64::from(u32::MAX));
        debt.forgive(rate, 1_500_000);
        assert_eq!(debt.charge(rate, 0, 1_500_000), 0);
    }

    proptest! {
        /// In any window no more is taken than the burst and the rate allow, and who asks at the rate gets each.
        #[test]
        fn never_more_than_the_rate(
            per_second in 1u64..5000,
            burst in 1u64..50,
            gaps_us in prop::collection::vec(0u64..3000, 1..60),
        ) {
            let rate = Rate::new(per_second, burst).expect("a bound");
            let bucket = Bucket::default();
            let (mut now_us, mut taken_us) = (7u64, Vec::new());
            for gap_us in gaps_us {
                now_us += gap_us;
                match bucket.take(rate, now_us) {
                    Ok(()) => taken_us.push(now_us),
                    Err(wait_us) => {
                        prop_assert!(wait_us > 0);
                        let later = Bucket(AtomicU64::new(bucket.0.load(Ordering::Relaxed)));
                        prop_assert!(later.take(rate, now_us + wait_us - 1).is_err());
                        prop_assert!(later.take(rate, now_us + wait_us).is_ok());
                    }
                }
            }
            for (first, from_us) in taken_us.iter().enumerate() {
                for (last, until_us) in taken_us.iter().enumerate().skip(first) {
                    let count = (last - first + 1) as u64;
                    let may = burst + (until_us - from_us) * per_second / SECOND_US + 1;
                    prop_assert!(count <= may, "{count} of {may}");
                }
            }
        }

        /// Of reactors that take at the same time each gets what there is once.
        #[test]
        fn shared_bucket_gives_each_once(burst in 1u64..200) {
            let rate = Rate::new(1, burst).expect("a bound");
            let bucket = Bucket::default();
            let taken: usize = std::thread::scope(|scope| {
                let take = || (0..200).filter(|_| bucket.take(rate, 9).is_ok()).count();
                let threads = [(); 3].map(|()| scope.spawn(take));
                threads.map(|thread| thread.join().expect("no panic")).iter().sum()
            });
            prop_assert_eq!(taken as u64, burst);
        }
    }
}
