//! Rates of what connections send, by slot index.

use super::timers::Timers;
use crate::connection::{Answer, Event, Hold};
use crate::rate::bucket::Rate;
use crate::rate::pace::{Pace, PaceRules, Verdict};

/// Bounds on one connection, as far as they are known.
#[derive(Debug, Default)]
enum Bounds {
    /// It has sent nothing since there are bounds.
    #[default]
    Unknown,
    /// No limit holds for it.
    Exempt,
    /// It is held to its rates.
    Paced(Box<Pace>),
}

/// Paces of a reactor's connections. There are none while no rate is set, and no identity has one.
#[derive(Debug, Default)]
pub struct Paces {
    /// Whether any connection may have bounds.
    is_active: bool,
    /// Whether the settings bound all that are not exempt.
    is_set: bool,
    bounds: Vec<Bounds>,
    /// Connections that are not read from until then, in milliseconds.
    held: Timers,
}

impl Paces {
    /// Goes on by these rules.
    pub fn take_rules(&mut self, rules: &PaceRules) {
        self.is_set = rules.are_set();
        for bounds in &mut self.bounds {
            let stays = match bounds {
                Bounds::Paced(pace) => self.is_set || pace.has_own(),
                Bounds::Exempt | Bounds::Unknown => false,
            };
            if !stays {
                *bounds = Bounds::Unknown;
            }
        }
        let is_paced = |bounds: &Bounds| matches!(bounds, Bounds::Paced(_));
        if !self.bounds.iter().any(is_paced) {
            self.bounds = Vec::new();
        }
        self.is_active = self.is_set || !self.bounds.is_empty();
    }

    /// Whether any connection may have bounds.
    #[inline]
    pub fn are_active(&self) -> bool {
        self.is_active
    }

    /// Whether it is known if a connection has bounds.
    pub fn is_known(&self, index: u32) -> bool {
        let bounds = self.bounds.get(index as usize);
        !matches!(bounds, None | Some(Bounds::Unknown))
    }

    /// Says what bounds a connection. `is_exempt`: the settings do not; `own`: the rate of its identity.
    pub fn begin(&mut self, index: u32, is_exempt: bool, own: Option<Rate>) {
        let index = index as usize;
        if index >= self.bounds.len() {
            self.bounds.resize_with(index + 1, Bounds::default);
        }
        let is_exempt = is_exempt || !self.is_set;
        self.bounds[index] = match is_exempt && own.is_none() {
            true => Bounds::Exempt,
            false => Bounds::Paced(Box::new(Pace::new(is_exempt, own))),
        };
        self.is_active |= own.is_some();
    }

    /// Says what an identity is held to from now on. False: whether it is exempt has to be found out.
    pub fn set_own(&mut self, index: u32, own: Option<Rate>) -> bool {
        match self.bounds.get_mut(index as usize) {
            Some(Bounds::Paced(pace)) => {
                if !pace.set_own(own) {
                    self.bounds[index as usize] = Bounds::Exempt;
                }
                true
            }
            Some(Bounds::Exempt | Bounds::Unknown) | None => own.is_none(),
        }
    }

    /// The pace of a connection that has bounds.
    pub fn get(&mut self, index: u32) -> Option<&mut Pace> {
        match self.bounds.get_mut(index as usize) {
            Some(Bounds::Paced(pace)) => Some(pace),
            _ => None,
        }
    }

    /// Ends a turn of a connection: so many bytes were read, and nothing is left to be read if `is_whole`.
    pub fn settle(
        &mut self,
        index: u32,
        rules: &PaceRules,
        turn: (u64, bool),
        now_us: u64,
    ) -> Option<Verdict> {
        self.get(index)?.settle(rules, turn, now_us)
    }

    /// Nothing is read from a connection until this moment.
    pub fn hold_until(&mut self, index: u32, until_ms: u64) {
        self.held.set(index, until_ms);
    }

    /// Takes a connection that may be read from again.
    pub fn take_due(&mut self, now_ms: u64) -> Option<u32> {
        self.held.take_due(now_ms)
    }

    /// The next moment at which one may be.
    pub fn next_ms(&self) -> u64 {
        self.held.next_ms()
    }

    /// A connection is gone.
    pub fn forget(&mut self, index: u32) {
        if let Some(bounds) = self.bounds.get_mut(index as usize) {
            *bounds = Bounds::Unknown;
        }
        if !self.held.is_empty() {
            self.held.remove(index);
        }
    }
}

/// Takes events, and counts messages and requests among them. Behind one that is over the rate reading stops.
pub fn counting<'c>(
    pace: &'c mut Pace,
    rules: &'c PaceRules,
    now_us: u64,
    on_event: &'c mut impl FnMut(Event<'_>, &mut Vec<u8>) -> Answer,
) -> impl FnMut(Event<'_>, &mut Vec<u8>) -> Answer + 'c {
    move |event, out| {
        let is_message = matches!(event, Event::Message(..));
        let is_over = (is_message || matches!(event, Event::Request(..)))
            && pace.charge_message(rules, now_us);
        match on_event(event, out) {
            Answer::Proceed if is_over && is_message => Answer::Hold(Hold::Rate),
            answer => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    /// An identity's own rate is kept for its connection alone, and goes with it at a reload.
    #[test]
    fn rate_of_an_identity_bounds_its_connection_alone() {
        let (mut paces, none) = (Paces::default(), PaceRules::default());
        let own = Rate::new(5, 0);
        assert!(paces.set_own(7, None) && !paces.set_own(7, own));
        paces.begin(7, false, own);
        paces.begin(2, false, None);
        assert!(paces.are_active() && paces.get(7).is_some() && paces.get(2).is_none());
        paces.take_rules(&none);
        assert!(paces.are_active() && paces.get(7).is_some());
        assert!(paces.set_own(7, None));
        assert!(paces.get(7).is_none() && paces.is_known(7));
        paces.take_rules(&none);
        assert_eq!((paces.bounds.capacity(), paces.are_active()), (0, false));
    }

    /// Without a rate nothing is kept for a connection.
    #[test]
    fn nothing_is_kept_without_rates() {
        let mut paces = Paces::default();
        assert_eq!(paces.bounds.capacity(), 0);
        let mut limits = Limits::default();
        assert!(!PaceRules::new(&limits, false).are_set());
        limits.messages_per_connection_per_second = 1;
        let rules = PaceRules::new(&limits, false);
        assert!(rules.are_set());
        paces.take_rules(&rules);
        paces.begin(3, false, None);
        paces.begin(1, true, None);
        assert!(paces.get(3).is_some() && paces.get(1).is_none() && paces.get(99).is_none());
        assert!(paces.is_known(1) && !paces.is_known(2) && !paces.is_known(99));
        paces.hold_until(3, 10);
        paces.forget(3);
        assert!(!paces.is_known(3) && paces.take_due(99).is_none());
        paces.begin(3, false, None);
        paces.take_rules(&rules);
        // Who is exempt may be somebody else after a reload.
        assert!(paces.is_known(3) && !paces.is_known(1));
        paces.take_rules(&PaceRules::default());
        assert_eq!((paces.bounds.capacity(), paces.are_active()), (0, false));
        assert!(size_of::<Bounds>() <= 16);
    }
}
