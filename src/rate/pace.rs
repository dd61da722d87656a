//! Rates of messages and bytes on one connection.
//!
//! Whoever sends faster is read from more slowly: reading stops until what was sent is paid for at the rate, and the kernel
//! pushes back. A peer for which something always waits when reading goes on is over its rate on end.

use super::Limit;
use super::bucket::{Debt, Rate};
use crate::config::Limits;

/// Bytes that are read at once in any case.
const READ_BYTES_MIN: u64 = 512;

/// Bounds on one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct PaceRules {
    messages: Option<Rate>,
    bytes: Option<Rate>,
    patience_us: u64,
    is_dry_run: bool,
}

/// Rules that hold for one connection.
#[derive(Clone, Copy, Debug)]
struct Held {
    messages: Option<Rate>,
    /// Whether the rate of messages is only tried.
    is_messages_dry: bool,
    bytes: Option<Rate>,
}

impl PaceRules {
    /// Those of the settings.
    pub fn new(limits: &Limits, is_dry_run: bool) -> PaceRules {
        PaceRules {
            messages: Rate::new(
                u64::from(limits.messages_per_connection_per_second),
                u64::from(limits.messages_per_connection_burst),
            ),
            bytes: Rate::new(
                limits.bytes_per_connection_per_second,
                limits.bytes_per_connection_burst,
            ),
            patience_us: limits.rate_patience_ms * 1000,
            is_dry_run,
        }
    }

    /// Whether there are any.
    pub fn are_set(&self) -> bool {
        self.messages.is_some() || self.bytes.is_some()
    }

    /// Bytes to be read at once, within the room: no more than those of a second.
    pub fn room(&self, room: usize) -> usize {
        match self.bytes {
            Some(rate) if !self.is_dry_run => {
                room.min(rate.of_second().max(READ_BYTES_MIN) as usize)
            }
            _ => room,
        }
    }
}

/// Outcome of a turn of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Reading stops until this moment, in microseconds.
    Hold(Limit, u64),
    /// It was over its rate for too long.
    End(Limit),
    /// In a dry run: reading would have stopped.
    Tried(Limit),
}

/// State of the bounds on one connection.
#[derive(Debug, Default)]
pub struct Pace {
    /// Rate of messages that its identity is held to. No dry run and no exemption lifts it.
    own: Option<Rate>,
    /// The settings do not bound it.
    is_exempt: bool,
    messages: Debt,
    bytes: Debt,
    /// It has been over its rate from this moment on.
    over_since_us: Option<u64>,
}

impl Pace {
    /// Bounds on a connection: of the settings, unless it is exempt, and of its identity, if that has one.
    pub fn new(is_exempt: bool, own: Option<Rate>) -> Pace {
        Pace {
            own,
            is_exempt,
            ..Pace::default()
        }
    }

    /// Says what its identity is held to from now on. False: nothing bounds the connection by itself any more.
    pub fn set_own(&mut self, own: Option<Rate>) -> bool {
        self.own = own;
        own.is_some() || !self.is_exempt
    }

    /// Whether its identity bounds it.
    pub fn has_own(&self) -> bool {
        self.own.is_some()
    }

    /// Bytes to be read at once, within the room.
    pub fn room(&self, rules: &PaceRules, room: usize) -> usize {
        match self.is_exempt {
            true => room,
            false => rules.room(room),
        }
    }

    fn held(&self, rules: &PaceRules) -> Held {
        let (of_all, bytes) = match self.is_exempt {
            true => (None, None),
            false => (rules.messages, rules.bytes),
        };
        let (messages, is_messages_dry) = match (of_all, self.own) {
            (Some(of_all), Some(own)) if !rules.is_dry_run => (Some(own.slower(of_all)), false),
            (_, Some(own)) => (Some(own), false),
            (of_all, None) => (of_all, rules.is_dry_run),
        };
        Held {
            messages,
            is_messages_dry,
            bytes,
        }
    }

    /// Counts a message. True: reading is to stop behind it.
    pub fn charge_message(&mut self, rules: &PaceRules, now_us: u64) -> bool {
        let held = self.held(rules);
        let Some(rate) = held.messages else {
            return false;
        };
        self.messages.charge(rate, 1, now_us) > 0 && !held.is_messages_dry
    }

    /// Ends a turn in which so many bytes were read. `is_whole`: nothing is left to be read.
    pub fn settle(
        &mut self,
        rules: &PaceRules,
        (bytes, is_whole): (u64, bool),
        now_us: u64,
    ) -> Option<Verdict> {
        let held = self.held(rules);
        let messages_us = held
            .messages
            .map_or(0, |rate| self.messages.charge(rate, 0, now_us));
        let bytes_us = held
            .bytes
            .map_or(0, |rate| self.bytes.charge(rate, bytes, now_us));
        if is_whole {
            self.catch_up();
        }
        let wait_us = messages_us.max(bytes_us);
        if wait_us == 0 {
            return None;
        }
        let limit = match messages_us >= bytes_us {
            true => Limit::Messages,
            false => Limit::Bytes,
        };
        let is_tried = match limit {
            Limit::Messages => held.is_messages_dry,
            _ => rules.is_dry_run,
        };
        if is_tried {
            self.forgive(&held, now_us);
            return Some(Verdict::Tried(limit));
        }
        if !is_whole {
            let since_us = *self.over_since_us.get_or_insert(now_us);
            if now_us - since_us >= rules.patience_us {
                return Some(Verdict::End(limit));
            }
        }
        Some(Verdict::Hold(limit, now_us + wait_us))
    }

    /// Notes that nothing was left to be read.
    pub fn catch_up(&mut self) {
        self.over_since_us = None;
    }

    fn forgive(&mut self, held: &Held, now_us: u64) {
        if let Some(rate) = held.messages.filter(|_| held.is_messages_dry) {
            self.messages.forgive(rate, now_us);
        }
        if let Some(rate) = held.bytes {
            self.bytes.forgive(rate, now_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(change: impl FnOnce(&mut Limits)) -> PaceRules {
        let mut limits = Limits::default();
        change(&mut limits);
        PaceRules::new(&limits, false)
    }

    #[test]
    fn messages_over_the_rate_wait() {
        let rules = rules(|limits| {
            limits.messages_per_connection_per_second = 10;
            limits.messages_per_connection_burst = 2;
        });
        let mut pace = Pace::default();
        assert!(!pace.charge_message(&rules, 0) && !pace.charge_message(&rules, 0));
        assert_eq!(pace.settle(&rules, (99, true), 0), None);
        assert!(pace.charge_message(&rules, 0));
        let held = Some(Verdict::Hold(Limit::Messages, 100_000));
        assert_eq!(pace.settle(&rules, (1, false), 0), held);
        assert_eq!(pace.settle(&rules, (0, false), 100_000), None);
    }

    #[test]
    fn end_of_whoever_never_catches_up() {
        let rules = rules(|limits| {
            limits.bytes_per_connection_per_second = 1000;
            limits.rate_patience_ms = 3000;
        });
        assert_eq!(rules.room(70_000), 1000);
        let (mut pace, mut now_us, mut holds) = (Pace::default(), 1, 0);
        while let Some(Verdict::Hold(Limit::Bytes, until_us)) | Some(Verdict::Hold(_, until_us)) =
            pace.settle(&rules, (1500, false), now_us)
        {
            (now_us, holds) = (until_us, holds + 1);
        }
        assert!((3_000_001..5_000_000).contains(&now_us), "{now_us}");
        assert!(holds >= 2);
        assert_eq!(
            pace.settle(&rules, (1, false), now_us),
            Some(Verdict::End(Limit::Bytes))
        );
        // Whoever catches up now and then may go on for ever.
        let (mut pace, mut now_us) = (Pace::default(), 1);
        for turn in 0..100 {
            match pace.settle(&rules, (1200, turn % 2 == 0), now_us) {
                Some(Verdict::Hold(Limit::Bytes, until_us)) => now_us = until_us,
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
    }

    /// The rate of an identity is the slower one, and holds in a dry run and for who is exempt.
    #[test]
    fn own_rate_of_an_identity() {
        let own = Rate::new(2, 0);
        let of_all = |per_second, is_dry_run| {
            let limits = Limits {
                messages_per_connection_per_second: per_second,
                ..Limits::default()
            };
            PaceRules::new(&limits, is_dry_run)
        };
        let at_once = |mut pace: Pace, rules: &PaceRules| {
            (0..100)
                .take_while(|_| !pace.charge_message(rules, 7))
                .count()
        };
        for (rules, is_exempt, expected) in [
            (of_all(0, false), false, 2),
            (of_all(50, false), false, 2),
            (of_all(1, false), false, 1),
            (of_all(1, false), true, 2),
            (of_all(1, true), false, 2),
        ] {
            assert_eq!(
                at_once(Pace::new(is_exempt, own), &rules),
                expected,
                "{rules:?}"
            );
        }
        let mut pace = Pace::new(true, own);
        assert!(!pace.set_own(None));
        assert_eq!(at_once(pace, &of_all(1, false)), 100);
    }

    #[test]
    fn dry_run_never_stops() {
        let limits = Limits {
            messages_per_connection_per_second: 1,
            ..Limits::default()
        };
        let rules = PaceRules::new(&limits, true);
        let (mut pace, mut tried) = (Pace::default(), 0);
        for _ in 0..100 {
            assert!(!pace.charge_message(&rules, 5));
            match pace.settle(&rules, (1, false), 5) {
                Some(Verdict::Tried(Limit::Messages)) => tried += 1,
                None => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(tried, 99);
    }
}
