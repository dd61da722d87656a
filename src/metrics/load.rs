//! Load of a reactor: the part of the last seconds in which it did not wait.

/// Spans of a second that are looked at.
const SPANS: usize = 10;

/// Work of a reactor until each of the last seconds.
#[derive(Debug, Default)]
pub struct Load {
    /// Moments, with the time worked until then, in microseconds.
    noted: [(u64, u64); SPANS],
    next: usize,
    is_full: bool,
}

impl Load {
    /// Notes the time worked until now, about once a second. Gives the part of the last ten seconds, or of the time that there
    /// was, in millionths.
    pub fn note(&mut self, now_us: u64, worked_us: u64) -> u64 {
        let oldest = match self.is_full {
            true => self.noted[self.next],
            false => self.noted[0],
        };
        let (since_us, before_us) = match self.is_full || self.next > 0 {
            true => oldest,
            false => (now_us, worked_us),
        };
        self.noted[self.next] = (now_us, worked_us);
        self.next = (self.next + 1) % SPANS;
        self.is_full |= self.next == 0;
        let span_us = now_us.saturating_sub(since_us);
        let part = worked_us
            .saturating_sub(before_us)
            .saturating_mul(1_000_000);
        part.checked_div(span_us).unwrap_or(0).min(1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_the_last_seconds() {
        let mut load = Load::default();
        assert_eq!(load.note(1_000_000, 0), 0);
        assert_eq!(load.note(2_000_000, 500_000), 500_000);
        // Ten busy seconds, and then none.
        for second in 3..=13 {
            load.note(second * 1_000_000, 500_000 + (second - 2) * 1_000_000);
        }
        assert_eq!(load.note(14_000_000, 12_500_000), 1_000_000);
        for second in 15..=30 {
            load.note(second * 1_000_000, 12_500_000);
        }
        assert_eq!(load.note(31_000_000, 12_500_000), 0);
    }
}
