//! Moments at which connections are due, by slot index.

use std::collections::{BTreeSet, HashMap};

use crate::connection::NEVER_MS;

/// Moments of those connections of a reactor that have one. Whoever has none costs nothing.
#[derive(Debug, Default)]
pub struct Timers {
    at_ms: HashMap<u32, u64>,
    due: BTreeSet<(u64, u32)>,
}

impl Timers {
    /// Sets the moment of a connection, in place of its former one.
    pub fn set(&mut self, index: u32, at_ms: u64) {
        self.remove(index);
        self.at_ms.insert(index, at_ms);
        self.due.insert((at_ms, index));
    }

    /// Takes the moment of a connection away. False: it had none.
    pub fn remove(&mut self, index: u32) -> bool {
        let Some(at_ms) = self.at_ms.remove(&index) else {
            return false;
        };
        self.due.remove(&(at_ms, index))
    }

    /// The earliest moment; [`NEVER_MS`] where there is none.
    pub fn next_ms(&self) -> u64 {
        self.due.first().map_or(NEVER_MS, |(at_ms, _)| *at_ms)
    }

    /// Takes the first connection that is due by now.
    pub fn take_due(&mut self, now_ms: u64) -> Option<u32> {
        let (at_ms, index) = *self.due.first()?;
        if at_ms > now_ms {
            return None;
        }
        self.remove(index);
        Some(index)
    }

    /// Number of connections that have a moment.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether no connection has one.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_in_order_and_once() {
        let mut timers = Timers::default();
        assert_eq!(
            (timers.next_ms(), timers.take_due(NEVER_MS)),
            (NEVER_MS, None)
        );
        timers.set(7, 30);
        timers.set(1, 20);
        timers.set(7, 10);
        assert_eq!((timers.len(), timers.next_ms()), (2, 10));
        assert_eq!(timers.take_due(9), None);
        assert_eq!(timers.take_due(25), Some(7));
        assert_eq!(timers.take_due(25), Some(1));
        assert!(timers.is_empty());
        timers.set(3, 5);
        assert!(timers.remove(3) && !timers.remove(3));
        assert!(timers.is_empty());
    }
}
