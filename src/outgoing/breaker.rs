//! Breaker: while whom we ask does not answer, nobody waits for it.
//!
//! ```text
//!            20 failures in a row, or half of the last 50 within 10 s
//!   Closed ────────────────────────────────────────────────────────► Open
//!     ▲                                                              │  ▲
//!     │ the probe is answered                              after 5 s │  │ the probe fails
//!     └────────────────────────── Probing ◄──────────────────────────┘──┘
//! ```

use std::collections::VecDeque;

/// Failures in a row that open it.
pub const FAILURES_IN_A_ROW: u32 = 20;
/// Outcomes that are looked at.
pub const OUTCOMES: usize = 50;
/// Age of the oldest of these, at most, in milliseconds.
pub const OUTCOMES_AGE_MS: u64 = 10_000;
/// Time that it is open for, in milliseconds.
pub const OPEN_MS: u64 = 5_000;

/// The state of what is asked.
#[derive(Debug, Default)]
pub struct Breaker {
    state: State,
    failures_in_a_row: u32,
    /// The moment of each of the last outcomes, and whether it was a failure.
    outcomes: VecDeque<(u64, bool)>,
    failures: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open {
        until_ms: u64,
    },
    Probing,
}

/// Leave to ask. Its outcome is to be told.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted {
    is_probe: bool,
}

impl Breaker {
    /// Whether it may be asked now. None: it is not to be bothered.
    pub fn admit(&mut self, now_ms: u64) -> Option<Admitted> {
        match self.state {
            State::Closed => Some(Admitted { is_probe: false }),
            State::Open { until_ms } if now_ms >= until_ms => {
                self.state = State::Probing;
                Some(Admitted { is_probe: true })
            }
            State::Open { .. } | State::Probing => None,
        }
    }

    /// Whether questions are turned away.
    pub fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// Takes an outcome. True: questions are turned away from here on, or no longer.
    pub fn record(&mut self, admitted: &Admitted, is_failure: bool, now_ms: u64) -> bool {
        match (self.state, admitted.is_probe) {
            (State::Probing, true) if is_failure => {
                self.open(now_ms);
                false
            }
            (State::Probing, true) => {
                *self = Breaker::default();
                true
            }
            // It was asked before.
            (State::Open { .. } | State::Probing, _) => false,
            (State::Closed, _) => self.record_closed(is_failure, now_ms),
        }
    }

    /// Gives the leave back: it was not asked after all.
    pub fn release(&mut self, admitted: &Admitted, now_ms: u64) {
        if admitted.is_probe && self.state == State::Probing {
            self.state = State::Open { until_ms: now_ms };
        }
    }

    fn record_closed(&mut self, is_failure: bool, now_ms: u64) -> bool {
        if self.outcomes.len() == OUTCOMES
            && let Some((_, was_failure)) = self.outcomes.pop_front()
        {
            self.failures -= usize::from(was_failure);
        }
        self.outcomes.push_back((now_ms, is_failure));
        self.failures += usize::from(is_failure);
        self.failures_in_a_row = match is_failure {
            true => self.failures_in_a_row + 1,
            false => 0,
        };
        let is_recent = self
            .outcomes
            .front()
            .is_some_and(|(at_ms, _)| now_ms.saturating_sub(*at_ms) <= OUTCOMES_AGE_MS);
        let half = self.outcomes.len() == OUTCOMES && self.failures * 2 >= OUTCOMES && is_recent;
        let opens = is_failure && (self.failures_in_a_row >= FAILURES_IN_A_ROW || half);
        if opens {
            self.open(now_ms);
        }
        opens
    }

    fn open(&mut self, now_ms: u64) {
        *self = Breaker {
            state: State::Open {
                until_ms: now_ms + OPEN_MS,
            },
            ..Breaker::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(breaker: &mut Breaker, is_failure: bool, now_ms: u64) -> Option<bool> {
        let admitted = breaker.admit(now_ms)?;
        Some(breaker.record(&admitted, is_failure, now_ms))
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_probe_closes_it() {
        let mut breaker = Breaker::default();
        for now_ms in 0..19 {
            assert_eq!(ask(&mut breaker, true, now_ms), Some(false));
        }
        assert_eq!(ask(&mut breaker, false, 19), Some(false));
        // However slowly they come.
        for number in 0..19 {
            assert_eq!(ask(&mut breaker, true, number * 60_000), Some(false));
        }
        assert_eq!(ask(&mut breaker, true, 1_200_000), Some(true));
        assert!(breaker.is_open());
        assert_eq!(breaker.admit(1_204_999), None);
        let probe = breaker.admit(1_205_000).expect("a probe");
        assert_eq!(breaker.admit(1_205_001), None, "one probe at a time");
        assert!(!breaker.record(&probe, true, 1_205_002));
        assert_eq!(breaker.admit(1_210_001), None);
        let probe = breaker.admit(1_210_002).expect("a probe");
        assert!(breaker.record(&probe, false, 1_210_003));
        assert!(!breaker.is_open());
        assert_eq!(ask(&mut breaker, true, 1_210_004), Some(false));
    }

    #[test]
    fn half_of_the_last_fifty_open_it_when_they_are_recent() {
        let mut breaker = Breaker::default();
        let mut outcome = None;
        for number in 0..50 {
            outcome = ask(&mut breaker, number % 2 == 1, number * 204);
        }
        assert_eq!(outcome, Some(true), "within 10 s");
        let mut breaker = Breaker::default();
        for number in 0..200 {
            let outcome = ask(&mut breaker, number % 2 == 1, number * 205);
            assert_eq!(outcome, Some(false), "they are older");
        }
    }

    #[test]
    fn late_outcomes_do_not_count_as_the_probe() {
        let mut breaker = Breaker::default();
        let late = breaker.admit(0).expect("closed");
        for _ in 0..20 {
            ask(&mut breaker, true, 0);
        }
        assert!(!breaker.record(&late, false, 1));
        assert!(breaker.is_open());
        let probe = breaker.admit(5000).expect("a probe");
        breaker.release(&probe, 5000);
        let probe = breaker.admit(5000).expect("another probe");
        let late = Admitted { is_probe: false };
        assert!(!breaker.record(&late, false, 5001));
        assert!(breaker.is_open());
        assert!(breaker.record(&probe, false, 5002));
    }
}
