//! Subscriptions of a connection of many topics, by what they are to.
//!
//! Most have few, and there may be a million such connections: so up to eight are a list of just their size.

use std::collections::HashMap;

use crate::dialect::Target;

/// State of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// The hub has been asked.
    Joining {
        /// The number of the question.
        request: u32,
        /// What the peer calls its command.
        id: Option<u32>,
    },
    /// It is delivered to.
    Live {
        /// The place of the topic, or of the pattern, in its table.
        place: u32,
        /// Its number among the members.
        member: u32,
    },
}

/// Subscriptions that are a list. More are a map.
const LISTED_MAX: usize = 8;

/// The subscriptions of one connection.
#[derive(Debug)]
pub struct Subscriptions(Repr);

#[derive(Debug)]
enum Repr {
    Few(Vec<(Target, Membership)>),
    #[expect(
        clippy::box_collection,
        reason = "most connections have few, and the slab has room for the larger"
    )]
    Many(Box<HashMap<Target, Membership>>),
}

// It stands in every connection of many topics.
const _: () = assert!(size_of::<Subscriptions>() <= 24);

impl Default for Subscriptions {
    fn default() -> Subscriptions {
        Subscriptions(Repr::Few(Vec::new()))
    }
}

impl Subscriptions {
    /// Number of them.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Few(list) => list.len(),
            Repr::Many(map) => map.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// State of the one to this target.
    pub fn get(&self, target: &Target) -> Option<&Membership> {
        match &self.0 {
            Repr::Few(list) => list.iter().find(|it| it.0 == *target).map(|it| &it.1),
            Repr::Many(map) => map.get(target),
        }
    }

    /// State of the one to this target, to be changed.
    pub fn get_mut(&mut self, target: &Target) -> Option<&mut Membership> {
        match &mut self.0 {
            Repr::Few(list) => {
                let mut list = list.iter_mut();
                list.find(|it| it.0 == *target).map(|it| &mut it.1)
            }
            Repr::Many(map) => map.get_mut(target),
        }
    }

    /// Adds one, to a target that there is none to.
    pub fn insert(&mut self, target: Target, membership: Membership) {
        match &mut self.0 {
            Repr::Few(list) if list.len() < LISTED_MAX => {
                list.reserve_exact(1);
                list.push((target, membership));
            }
            Repr::Few(list) => {
                let mut map: HashMap<_, _> = std::mem::take(list).into_iter().collect();
                map.insert(target, membership);
                self.0 = Repr::Many(Box::new(map));
            }
            Repr::Many(map) => {
                map.insert(target, membership);
            }
        }
    }

    /// Takes one out; gives what it was.
    pub fn remove(&mut self, target: &Target) -> Option<Membership> {
        match &mut self.0 {
            Repr::Few(list) => {
                let at = list.iter().position(|it| it.0 == *target)?;
                let (_, membership) = list.swap_remove(at);
                list.shrink_to_fit();
                Some(membership)
            }
            Repr::Many(map) => {
                let membership = map.remove(target);
                if map.len() <= LISTED_MAX / 2 {
                    self.0 = Repr::Few(map.drain().collect());
                } else if map.len() < map.capacity() / 8 {
                    map.shrink_to(map.len() * 2);
                }
                membership
            }
        }
    }

    /// Targets of all, in their order.
    pub fn targets(&self) -> Vec<Target> {
        let mut all: Vec<_> = match &self.0 {
            Repr::Few(list) => list.iter().map(|it| it.0.clone()).collect(),
            Repr::Many(map) => map.keys().cloned().collect(),
        };
        all.sort_unstable();
        all
    }

    /// Takes all out, in the order of their targets: so it is the same in every run of a simulation.
    pub fn take_sorted(&mut self) -> Vec<(Target, Membership)> {
        let mut all = match std::mem::take(self).0 {
            Repr::Few(list) => list,
            Repr::Many(map) => map.into_iter().collect(),
        };
        all.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::Topic;

    fn target(number: u32) -> Target {
        Target::Topic(Topic::from_text(&format!("t{number}")).expect("a topic"))
    }

    fn live(place: u32) -> Membership {
        Membership::Live { place, member: 0 }
    }

    #[test]
    fn few_and_many_are_found() {
        let mut all = Subscriptions::default();
        for count in 1..=40 {
            all.insert(target(count), live(count));
            assert_eq!(all.len() as u32, count);
            for number in 1..=count {
                assert_eq!(all.get(&target(number)), Some(&live(number)));
            }
            assert_eq!(all.get_mut(&target(0)), None);
        }
        for number in 1..=37 {
            assert_eq!(all.remove(&target(number)), Some(live(number)));
            assert_eq!(all.remove(&target(number)), None);
        }
        *all.get_mut(&target(39)).expect("it is there") = live(7);
        let rest: Vec<_> = all.take_sorted().into_iter().map(|it| it.1).collect();
        assert_eq!(rest, [live(38), live(7), live(40)]);
        assert!(all.is_empty());
    }
}
