//! Loss, duplicates and order between one publisher and one subscriber: by sequence numbers.

/// How far behind the newest publication a late one can be told from a duplicate for certain.
const WINDOW_BITS: u64 = 64;

/// Audit of one publisher's messages to one subscriber.
#[derive(Clone, Copy, Debug)]
pub struct Audit {
    /// One more than the highest sequence number seen.
    next: u64,
    /// Bit `i` is set when `next - 1 - i` was seen, or would be before the first.
    window: u64,
    /// Sequence numbers under `next` that were not seen.
    missing: u64,
}

/// Verdict on one received publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It comes behind all others.
    New,
    /// It comes behind one that was sent later.
    Late,
    /// It has come before.
    Duplicate,
}

impl Default for Audit {
    fn default() -> Audit {
        Audit {
            next: 0,
            window: u64::MAX,
            missing: 0,
        }
    }
}

impl Audit {
    /// Takes note of a publication. One that is more than 64 behind counts as late while any is missing.
    #[inline]
    pub fn handle(&mut self, sequence: u64) -> Receipt {
        if sequence >= self.next {
            let gap = sequence - self.next;
            self.missing += gap;
            self.window = match gap + 1 {
                shift if shift < WINDOW_BITS => self.window << shift | 1,
                _ => 1,
            };
            self.next = sequence + 1;
            return Receipt::New;
        }
        let behind = self.next - 1 - sequence;
        let is_duplicate = match behind < WINDOW_BITS {
            true => self.window >> behind & 1 == 1,
            false => self.missing == 0,
        };
        if is_duplicate {
            return Receipt::Duplicate;
        }
        if behind < WINDOW_BITS {
            self.window |= 1 << behind;
        }
        self.missing = self.missing.saturating_sub(1);
        Receipt::Late
    }

    /// Missing messages, of so many that were sent.
    pub fn lost(&self, sent: u64) -> u64 {
        self.missing + sent.saturating_sub(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::Receipt::{Duplicate, Late, New};
    use super::*;

    fn receipts(sequences: &[u64]) -> (Vec<Receipt>, Audit) {
        let mut audit = Audit::default();
        let receipts = sequences.iter().map(|sequence| audit.handle(*sequence));
        (receipts.collect(), audit)
    }

    #[test]
    fn each_kind_of_receipt() {
        let (got, audit) = receipts(&[0, 1, 3, 2, 2, 3, 0, 6]);
        let expected = [New, New, New, Late, Duplicate, Duplicate, Duplicate, New];
        assert_eq!(got, expected);
        assert_eq!(audit.lost(7), 2);
        assert_eq!(audit.lost(9), 4);
    }

    #[test]
    fn the_first_may_be_missing() {
        let (got, audit) = receipts(&[2, 0, 0]);
        assert_eq!(got, [New, Late, Duplicate]);
        assert_eq!(audit.lost(3), 1);
    }

    #[test]
    fn beyond_the_window_a_gap_decides() {
        let (got, audit) = receipts(&[100, 0, 101, 101]);
        assert_eq!(got, [New, Late, New, Duplicate]);
        assert_eq!(audit.lost(102), 99);
        let all: Vec<u64> = (0..100).chain([3]).collect();
        assert_eq!(receipts(&all).0[100], Duplicate);
    }

    #[test]
    fn nothing_came() {
        assert_eq!(Audit::default().lost(5), 5);
    }
}
