//! Connections of each subject, for their bound.

use std::collections::{HashMap, VecDeque};

use super::waiting::Waiter;
use crate::config::IdentityOver;

/// Connections by subject, of all reactors, the oldest first. Only those stand here that were counted: as many entries as
/// there are connections at most.
#[derive(Debug, Default)]
pub struct Shares {
    connections: HashMap<Box<str>, VecDeque<Waiter>>,
}

/// Outcome for one connection more of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// It is counted.
    Taken,
    /// It is counted, and this one has to go for it, which is counted no more.
    TakenFrom(Waiter),
    /// The subject has as many as it may.
    Full,
}

impl Shares {
    /// Counts one more connection of a subject, if it may have that. 0: it may have any number.
    pub fn enter(
        &mut self,
        subject: &str,
        waiter: Waiter,
        connections_max: u32,
        over: IdentityOver,
    ) -> Share {
        let Some(connections) = self.connections.get_mut(subject) else {
            self.connections
                .insert(subject.into(), VecDeque::from([waiter]));
            return Share::Taken;
        };
        let mut share = Share::Taken;
        if connections_max > 0 && connections.len() >= connections_max as usize {
            share = match (over, connections.pop_front()) {
                (IdentityOver::Oldest, Some(oldest)) => Share::TakenFrom(oldest),
                (_, Some(oldest)) => {
                    connections.push_front(oldest);
                    return Share::Full;
                }
                (_, None) => Share::Taken,
            };
        }
        connections.push_back(waiter);
        share
    }

    /// Counts one connection less.
    pub fn leave(&mut self, subject: &str, waiter: Waiter) {
        let Some(connections) = self.connections.get_mut(subject) else {
            return;
        };
        if let Some(at) = connections.iter().position(|it| *it == waiter) {
            connections.remove(at);
        }
        if connections.is_empty() {
            self.connections.remove(subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::ReactorId;

    fn waiter(number: u64) -> Waiter {
        (ReactorId(0), number)
    }

    #[test]
    fn subjects_have_as_many_as_they_may() {
        let mut shares = Shares::default();
        let enter = |shares: &mut Shares, subject, number, max| {
            shares.enter(subject, waiter(number), max, IdentityOver::Refuse)
        };
        assert_eq!(enter(&mut shares, "a", 1, 2), Share::Taken);
        assert_eq!(enter(&mut shares, "a", 2, 2), Share::Taken);
        assert_eq!(enter(&mut shares, "a", 3, 2), Share::Full);
        assert_eq!(enter(&mut shares, "b", 4, 1), Share::Taken);
        shares.leave("a", waiter(1));
        assert_eq!(enter(&mut shares, "a", 5, 2), Share::Taken);
        assert_eq!(enter(&mut shares, "a", 6, 0), Share::Taken);
        for (subject, number) in [("a", 2), ("a", 5), ("a", 6), ("b", 4), ("never there", 7)] {
            shares.leave(subject, waiter(number));
        }
        assert!(shares.connections.is_empty());
    }

    #[test]
    fn oldest_goes_for_the_newest() {
        let mut shares = Shares::default();
        let mut enter = |number| shares.enter("a", waiter(number), 2, IdentityOver::Oldest);
        assert_eq!([enter(1), enter(2)], [Share::Taken; 2]);
        assert_eq!(enter(3), Share::TakenFrom(waiter(1)));
        assert_eq!(enter(4), Share::TakenFrom(waiter(2)));
        // One that had to go leaves later, and counts no more by then.
        shares.leave("a", waiter(1));
        assert_eq!(shares.connections["a"], [waiter(3), waiter(4)]);
    }
}
