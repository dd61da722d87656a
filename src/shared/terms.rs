//! Terms of connections: until when a credential must be shown, and until when the identity holds.
//!
//! ```text
//!  opened ──── auth_timeout_ms ────► closed            issued ───► warned ───► end ─── token_grace_ms ───► closed
//!        no credential yet                                                        nothing is asked of it any more
//! ```
//!
//! Only connections that have such a term stand here. Waits are on the clock of deadlines, ends on that of the wall.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::leases::Leases;
use super::timers::Timers;
use crate::auth::waiting::Ticket;
use crate::connection::{NEVER_MS, scatter};

/// Part of the warning's lead by which connections differ.
const WARN_JITTER_PERCENT: u64 = 20;

/// Shortest time between two questions before one end, in milliseconds.
const ASK_AGAIN_MIN_MS: u64 = 50;

/// Span for which an identity holds, in milliseconds of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// It was issued.
    pub began_ms: u64,
    /// It ends.
    pub end_ms: u64,
}

/// Times around the end of an identity, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct TermLimits {
    /// Lead of the warning, at most.
    pub warn_ms: u64,
    /// Time behind the end in which it is still delivered to.
    pub grace_ms: u64,
}

/// Event of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The identity ends in so many milliseconds, and may be renewed.
    Warning {
        /// Time until the end.
        in_ms: u64,
    },
    /// Whoever said who it is may be asked once more.
    Ask,
    /// The grace is over.
    Close,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Warn,
    Ask,
    End,
    Close,
}

#[derive(Clone, Copy, Debug)]
struct Term {
    end_ms: u64,
    close_ms: u64,
    next: Stage,
}

/// Terms of a reactor's connections, by slot index.
#[derive(Debug, Default)]
pub struct Terms {
    /// Those that have yet to show a credential.
    tickets: HashMap<u32, Ticket>,
    waits: Timers,
    /// Those whose identity ends some time.
    terms: HashMap<u32, Term>,
    ends: Timers,
    /// Those whose identity has ended.
    ended: HashSet<u32>,
    /// Those that have tried to become somebody else.
    warned: HashSet<u32>,
    /// Subjects towards whose bound they were counted.
    shares: HashMap<u32, Box<str>>,
    /// Questions for subscriptions that no peer has asked for, by their numbers.
    unasked: BTreeSet<(u32, u32)>,
    /// Subscriptions that end some time.
    pub leases: Leases,
}

impl Terms {
    /// Begins the wait for a connection's credential, until this moment.
    pub fn begin_wait(&mut self, index: u32, ticket: Ticket, until_ms: u64) {
        self.tickets.insert(index, ticket);
        self.waits.set(index, until_ms);
    }

    /// Whether a connection has yet to show a credential.
    pub fn is_waiting(&self, index: u32) -> bool {
        !self.tickets.is_empty() && self.tickets.contains_key(&index)
    }

    /// A connection has shown one. Gives its place among those that wait, if it had one.
    pub fn end_wait(&mut self, index: u32) -> Option<Ticket> {
        self.waits.remove(index);
        self.tickets.remove(&index)
    }

    /// Takes a connection that has not shown a credential in time. It stays one that waits.
    pub fn take_overdue(&mut self, now_ms: u64) -> Option<u32> {
        self.waits.take_due(now_ms)
    }

    /// The identity of a connection holds for this span, or without end. `salt` should differ between connections;
    /// `has_warning`: it can be warned.
    pub fn begin(
        &mut self,
        index: u32,
        (salt, has_warning): (u32, bool),
        span: Option<Span>,
        limits: TermLimits,
    ) {
        let before = self.terms.get(&index).map(|term| term.end_ms);
        if before.is_some() && before == span.map(|span| span.end_ms) {
            // Who shows the same token again would be warned of its end again, and show it again.
            return;
        }
        self.end(index);
        let Some(Span { began_ms, end_ms }) = span else {
            return;
        };
        let lead_ms = limits.warn_ms.min(end_ms.saturating_sub(began_ms) / 10);
        let jitter_ms = scatter(salt, 0..lead_ms * WARN_JITTER_PERCENT / 100 + 1);
        // Many may end at once. Each has at least half of the grace.
        let close_ms = end_ms + limits.grace_ms - scatter(salt, 0..limits.grace_ms / 2 + 1);
        let (next, at_ms) = match has_warning {
            true => (Stage::Warn, end_ms - (lead_ms - jitter_ms)),
            false => (Stage::End, end_ms),
        };
        let term = Term {
            end_ms,
            close_ms,
            next,
        };
        self.terms.insert(index, term);
        self.ends.set(index, at_ms);
    }

    /// The identity of a connection holds without end.
    fn end(&mut self, index: u32) {
        if self.terms.remove(&index).is_some() {
            self.ends.remove(index);
            self.ended.remove(&index);
        }
    }

    /// Whether the identity of a connection has ended: it is delivered to for a while, and may ask for nothing.
    pub fn has_ended(&self, index: u32) -> bool {
        !self.ended.is_empty() && self.ended.contains(&index)
    }

    /// Takes what is due first by this moment of the wall clock.
    pub fn take_due(&mut self, wall_ms: u64) -> Option<(u32, Due)> {
        loop {
            let index = self.ends.take_due(wall_ms)?;
            let Some(term) = self.terms.get_mut(&index) else {
                continue;
            };
            match term.next {
                Stage::Warn => {
                    term.next = Stage::End;
                    self.ends.set(index, term.end_ms);
                    let in_ms = term.end_ms.saturating_sub(wall_ms);
                    return Some((index, Due::Warning { in_ms }));
                }
                Stage::Ask => {
                    term.next = Stage::End;
                    self.ends.set(index, term.end_ms);
                    return Some((index, Due::Ask));
                }
                Stage::End => {
                    term.next = Stage::Close;
                    self.ends.set(index, term.close_ms);
                    self.ended.insert(index);
                }
                Stage::Close => return Some((index, Due::Close)),
            }
        }
    }

    /// Puts off what is due to this moment of the wall clock.
    pub fn postpone(&mut self, index: u32, at_wall_ms: u64) {
        if self.terms.contains_key(&index) {
            self.ends.set(index, at_wall_ms);
        }
    }

    /// Brings [`Due::Ask`] for an identity that ends soon. It comes in so many milliseconds or half of the time that is left,
    /// unless the end comes first.
    pub fn ask_again(&mut self, index: u32, wall_ms: u64, in_ms: u64) {
        let Some(term) = self.terms.get_mut(&index) else {
            return;
        };
        let left_ms = term.end_ms.saturating_sub(wall_ms);
        let at_ms = wall_ms + in_ms.min(left_ms / 2).max(ASK_AGAIN_MIN_MS);
        if matches!(term.next, Stage::End) && at_ms < term.end_ms {
            term.next = Stage::Ask;
            self.ends.set(index, at_ms);
        }
    }

    /// Notes that a connection has tried to become somebody else. True: it has done so before.
    pub fn note_change(&mut self, index: u32) -> bool {
        !self.warned.insert(index)
    }

    /// Notes a question for a subscription of the server's own.
    pub fn note_unasked(&mut self, index: u32, request: u32) {
        self.unasked.insert((index, request));
    }

    /// Whether a question that is answered now was one of those.
    pub fn take_unasked(&mut self, index: u32, request: u32) -> bool {
        !self.unasked.is_empty() && self.unasked.remove(&(index, request))
    }

    /// Subject towards whose bound a connection was counted.
    pub fn share(&self, index: u32) -> Option<&str> {
        self.shares.get(&index).map(|subject| &**subject)
    }

    /// Notes the subject towards whose bound a connection is counted.
    pub fn set_share(&mut self, index: u32, subject: &str) {
        self.shares.insert(index, subject.into());
    }

    /// Takes that note away.
    pub fn take_share(&mut self, index: u32) -> Option<Box<str>> {
        self.shares.remove(&index)
    }

    /// A connection is gone. Gives its place among those that wait, if it had one.
    pub fn forget(&mut self, index: u32) -> Option<Ticket> {
        self.end(index);
        self.warned.remove(&index);
        self.leases.forget(index);
        while let Some(&it) = self.unasked.range((index, 0)..=(index, u32::MAX)).next() {
            self.unasked.remove(&it);
        }
        self.end_wait(index)
    }

    /// The next moment at which somebody has waited too long; [`NEVER_MS`] where nobody waits.
    pub fn next_wait_ms(&self) -> u64 {
        self.waits.next_ms()
    }

    /// Time until the next event of the wall clock; [`NEVER_MS`] where there is none.
    pub fn next_end_in_ms(&self, wall_ms: u64) -> u64 {
        match self.ends.next_ms().min(self.leases.next_ms()) {
            NEVER_MS => NEVER_MS,
            at_ms => at_ms.saturating_sub(wall_ms),
        }
    }

    /// Whether no connection has a term.
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty()
            && self.terms.is_empty()
            && self.warned.is_empty()
            && self.shares.is_empty()
            && self.unasked.is_empty()
            && self.leases.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::waiting::{Waiting, WaitingLimits};
    use crate::hub::ReactorId;

    const LIMITS: TermLimits = TermLimits {
        warn_ms: 60_000,
        grace_ms: 25_000,
    };

    fn hour() -> Option<Span> {
        Some(Span {
            began_ms: 1_000_000,
            end_ms: 4_600_000,
        })
    }

    #[test]
    fn warned_then_ended_then_closed() {
        let mut terms = Terms::default();
        terms.begin(3, (9, true), hour(), LIMITS);
        assert_eq!(terms.take_due(4_539_999), None);
        let (index, due) = terms
            .take_due(4_552_000)
            .expect("within a fifth of the lead");
        assert_eq!((index, due), (3, Due::Warning { in_ms: 48_000 }));
        assert_eq!(terms.take_due(4_599_999), None);
        assert!(!terms.has_ended(3));
        assert_eq!(terms.take_due(4_600_000), None);
        assert!(terms.has_ended(3));
        assert_eq!(terms.take_due(4_612_499), None);
        assert_eq!(terms.take_due(4_625_000), Some((3, Due::Close)));
        terms.forget(3);
        assert!(terms.is_empty() && !terms.has_ended(3));
    }

    #[test]
    fn renewal_takes_the_end_back() {
        let mut terms = Terms::default();
        terms.begin(3, (9, true), hour(), LIMITS);
        terms.take_due(4_552_000);
        terms.take_due(4_600_000);
        assert!(terms.has_ended(3));
        let later = Span {
            began_ms: 4_600_000,
            end_ms: 9_000_000,
        };
        terms.begin(3, (9, true), Some(later), LIMITS);
        assert!(!terms.has_ended(3));
        assert_eq!(terms.take_due(4_700_000), None);
        terms.begin(3, (9, true), None, LIMITS);
        assert!(terms.is_empty());
        assert_eq!(terms.next_end_in_ms(0), NEVER_MS);
    }

    #[test]
    fn same_end_is_warned_of_once() {
        let mut terms = Terms::default();
        terms.begin(3, (9, true), hour(), LIMITS);
        assert!(matches!(
            terms.take_due(4_552_000),
            Some((3, Due::Warning { .. }))
        ));
        terms.begin(3, (9, true), hour(), LIMITS);
        assert_eq!(terms.take_due(4_599_999), None);
        assert_eq!(terms.take_due(4_625_000), Some((3, Due::Close)));
    }

    #[test]
    fn asked_again_until_the_end() {
        let mut terms = Terms::default();
        terms.begin(3, (9, true), hour(), LIMITS);
        terms.ask_again(3, 2_000_000, 1);
        assert_eq!(terms.take_due(2_000_000), None, "it was not warned yet");
        terms.take_due(4_552_000).expect("warned");
        terms.ask_again(3, 4_552_000, 8000);
        assert_eq!(terms.take_due(4_560_000), Some((3, Due::Ask)));
        terms.ask_again(3, 4_560_000, 60_000);
        assert_eq!(terms.take_due(4_579_999), None);
        assert_eq!(terms.take_due(4_580_000), Some((3, Due::Ask)));
        terms.ask_again(3, 4_599_970, 0);
        assert_eq!(terms.take_due(4_600_000), None);
        assert!(terms.has_ended(3));
    }

    /// A short life has a short warning, and one that is nearly over comes at once.
    #[test]
    fn lead_is_a_tenth_of_a_short_life() {
        let mut terms = Terms::default();
        let span = Some(Span {
            began_ms: 0,
            end_ms: 10_000,
        });
        terms.begin(1, (0, true), span, LIMITS);
        assert_eq!(terms.take_due(8999), None);
        assert_eq!(terms.take_due(9999), Some((1, Due::Warning { in_ms: 1 })));
        // Who cannot be warned is not.
        terms.begin(2, (0, false), span, LIMITS);
        assert_eq!(terms.take_due(9999), None);
    }

    #[test]
    fn ends_of_many_are_spread_over_half_of_the_grace() {
        let mut terms = Terms::default();
        for index in 0..1000 {
            terms.begin(index, (index, false), hour(), LIMITS);
        }
        assert_eq!(terms.take_due(4_600_000 + 12_499), None);
        let mut closed = 0;
        for second in 0..13 {
            let wall_ms = 4_600_000 + 12_500 + second * 1000;
            let before = closed;
            while terms.take_due(wall_ms).is_some() {
                closed += 1;
            }
            assert!(closed - before < 120, "{second}: {}", closed - before);
        }
        while terms.take_due(4_625_000).is_some() {
            closed += 1;
        }
        assert_eq!(closed, 1000);
    }

    #[test]
    fn waits_end_by_a_credential_or_too_late() {
        let (mut terms, mut waiting) = (Terms::default(), Waiting::default());
        let limits = WaitingLimits {
            total_max: 9,
            per_network_max: 9,
        };
        for index in 0..2 {
            let waiter = (ReactorId(0), u64::from(index));
            let (ticket, _) = waiting.enter(waiter, None, limits);
            terms.begin_wait(index, ticket, 100);
        }
        assert!(terms.is_waiting(0) && terms.is_waiting(1) && !terms.is_waiting(2));
        let ticket = terms.end_wait(0).expect("it had a place");
        assert!(waiting.leave(ticket));
        assert_eq!((terms.take_overdue(99), terms.next_wait_ms()), (None, 100));
        assert_eq!(
            (terms.take_overdue(100), terms.take_overdue(100)),
            (Some(1), None)
        );
        assert!(terms.is_waiting(1) && terms.forget(1).is_some() && terms.is_empty());
        assert!(!terms.note_change(5) && terms.note_change(5));
    }
}
