//! Deadlines of all connections of a reactor: one number each, in a dense array, and no timer objects.
//!
//! The array is cut into blocks, and each block knows a lower bound of its deadlines. A sweep looks at the bounds and
//! opens only the blocks in which something may be due, so a million idle connections cost a walk over a thousand
//! numbers. A deadline that moves away leaves its block's bound too low; the next sweep opens the block once for
//! nothing and puts that right.

use crate::connection::NEVER_MS;

/// Deadlines in a block.
const BLOCK: usize = 1024;

/// The array of deadlines, by slab index.
#[derive(Debug)]
pub struct Deadlines {
    at_ms: Vec<u64>,
    /// A lower bound of each block.
    bounds_ms: Vec<u64>,
    /// A lower bound of all.
    next_ms: u64,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines {
            at_ms: Vec::new(),
            bounds_ms: Vec::new(),
            next_ms: NEVER_MS,
        }
    }
}

impl Deadlines {
    /// Sets the deadline of one connection; [`NEVER_MS`] takes it away.
    pub fn set(&mut self, index: usize, deadline_ms: u64) {
        if index >= self.at_ms.len() {
            self.at_ms.resize(index + 1, NEVER_MS);
            self.bounds_ms.resize(index / BLOCK + 1, NEVER_MS);
        }
        self.at_ms[index] = deadline_ms;
        let bound = &mut self.bounds_ms[index / BLOCK];
        *bound = deadline_ms.min(*bound);
        self.next_ms = self.next_ms.min(deadline_ms);
    }

    /// The deadline of one connection.
    pub fn get(&self, index: usize) -> u64 {
        self.at_ms.get(index).copied().unwrap_or(NEVER_MS)
    }

    /// Moment before which [`take_due`](Deadlines::take_due) is not worth a call, for nothing is due.
    pub fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// Takes up to `count_max` deadlines that have come. Their connections are appended; what is left over stays due.
    pub fn take_due(&mut self, now_ms: u64, count_max: usize, due: &mut Vec<u32>) {
        if now_ms < self.next_ms {
            return;
        }
        let mut next_ms = NEVER_MS;
        let mut left = count_max;
        for (block, bound) in self.bounds_ms.iter_mut().enumerate() {
            if *bound <= now_ms && left > 0 {
                let first = block * BLOCK;
                let last = self.at_ms.len().min(first + BLOCK);
                *bound = NEVER_MS;
                for (offset, at_ms) in self.at_ms[first..last].iter_mut().enumerate() {
                    if *at_ms <= now_ms && left > 0 {
                        *at_ms = NEVER_MS;
                        due.push((first + offset) as u32);
                        left -= 1;
                    }
                    *bound = (*bound).min(*at_ms);
                }
            }
            next_ms = next_ms.min(*bound);
        }
        self.next_ms = next_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(deadlines: &mut Deadlines, now_ms: u64, count_max: usize) -> Vec<u32> {
        let mut due = Vec::new();
        deadlines.take_due(now_ms, count_max, &mut due);
        due
    }

    #[test]
    fn what_is_due_comes_once() {
        let mut deadlines = Deadlines::default();
        deadlines.set(5, 100);
        deadlines.set(2000, 50);
        deadlines.set(3000, 200);
        assert_eq!(deadlines.next_ms(), 50);
        assert_eq!(due(&mut deadlines, 49, 10), [0u32; 0]);
        assert_eq!(due(&mut deadlines, 100, 10), [5, 2000]);
        assert_eq!(due(&mut deadlines, 100, 10), [0u32; 0]);
        assert_eq!(deadlines.next_ms(), 200);
    }

    #[test]
    fn a_deadline_that_moved_away_is_not_due() {
        let mut deadlines = Deadlines::default();
        deadlines.set(1, 10);
        deadlines.set(1, 1000);
        assert_eq!(due(&mut deadlines, 20, 10), [0u32; 0]);
        assert_eq!(deadlines.next_ms(), 1000);
        deadlines.set(1, NEVER_MS);
        assert_eq!(due(&mut deadlines, 5000, 10), [0u32; 0]);
        assert_eq!(deadlines.next_ms(), NEVER_MS);
    }

    #[test]
    fn a_budget_leaves_the_rest_due() {
        let mut deadlines = Deadlines::default();
        (0..3000).for_each(|index| deadlines.set(index, 7));
        let mut seen = Vec::new();
        while deadlines.next_ms() <= 7 {
            let some = due(&mut deadlines, 7, 1000);
            assert!(some.len() <= 1000);
            seen.extend(some);
        }
        assert_eq!(seen, (0..3000).collect::<Vec<_>>());
    }
}
