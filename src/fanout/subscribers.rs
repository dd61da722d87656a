//! The connections that subscribe to one topic and to nothing else: a list that is walked for each publication.

use std::num::NonZeroU32;
use std::ops::Deref;

use slab::Slab;

use crate::shrink::Shrink;

/// A connection's subscription: the topic's place in the table, and the connection's place among its subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// One more than the place, so that 0 is free to say that there is none.
    topic_number: NonZeroU32,
    pub(crate) place: u32,
}

impl Subscription {
    /// Subscription of a subscriber, by the topic's place and its own.
    pub fn new(topic: u32, place: usize) -> Subscription {
        Subscription {
            topic_number: NonZeroU32::MIN.saturating_add(topic),
            place: place as u32,
        }
    }

    /// The topic's place in the table.
    pub fn topic(self) -> u32 {
        self.topic_number.get() - 1
    }

    /// Its two words, of which the first is never 0.
    pub(crate) fn into_parts(self) -> (u32, u32) {
        (self.topic_number.get(), self.place)
    }

    /// From its two words. None where the first is 0.
    pub(crate) fn from_parts(topic_number: u32, place: u32) -> Option<Subscription> {
        NonZeroU32::new(topic_number).map(|topic_number| Subscription {
            topic_number,
            place,
        })
    }
}

/// The subscribers of a topic, in a word: most topics of very many have one. It is the connection's slab index, or with
/// `LIST_BIT` the place of a list in [`Lists`], or `NOBODY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribers(u32);

/// There are neither as many connections nor as many lists.
const LIST_BIT: u32 = 1 << 31;
const NOBODY: u32 = u32::MAX;

/// What the word says.
enum Kind {
    Nobody,
    One(u32),
    List(usize),
}

impl Subscribers {
    /// Nobody.
    pub const NONE: Subscribers = Subscribers(NOBODY);

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        // A list goes with its last subscriber.
        self == Subscribers::NONE
    }

    fn kind(self) -> Kind {
        match self.0 {
            NOBODY => Kind::Nobody,
            list if list & LIST_BIT != 0 => Kind::List((list ^ LIST_BIT) as usize),
            connection => Kind::One(connection),
        }
    }
}

/// A topic's subscribers by slab index, taken out of the table.
#[derive(Debug)]
pub enum Taken {
    /// Nobody.
    Nobody,
    /// One.
    One(u32),
    /// Any number, and the place of their list.
    List(usize, Vec<u32>),
}

impl Deref for Taken {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match self {
            Taken::Nobody => &[],
            Taken::One(connection) => std::slice::from_ref(connection),
            Taken::List(_, connections) => connections,
        }
    }
}

/// Lists of topics that have, or had, several subscribers.
#[derive(Debug, Default)]
pub struct Lists {
    lists: Slab<Vec<u32>>,
    shrink: Shrink,
}

impl Lists {
    /// Number of subscribers.
    pub fn len(&self, subscribers: Subscribers) -> usize {
        match subscribers.kind() {
            Kind::Nobody => 0,
            Kind::One(_) => 1,
            Kind::List(list) => self.lists[list].len(),
        }
    }

    /// Adds one; gives its place among them.
    pub fn push(&mut self, subscribers: &mut Subscribers, connection: u32) -> usize {
        debug_assert!(connection < LIST_BIT);
        match subscribers.kind() {
            Kind::Nobody => {
                *subscribers = Subscribers(connection);
                0
            }
            Kind::One(first) => {
                let list = self.lists.insert(vec![first, connection]);
                *subscribers = Subscribers(list as u32 | LIST_BIT);
                1
            }
            Kind::List(list) => {
                self.lists[list].push(connection);
                self.lists[list].len() - 1
            }
        }
    }

    /// Takes the one at a place away; the last one moves there, and is returned if it is another.
    pub fn swap_remove(&mut self, subscribers: &mut Subscribers, place: usize) -> Option<u32> {
        if let Kind::List(list) = subscribers.kind() {
            let connections = &mut self.lists[list];
            if connections.len() > 1 {
                connections.swap_remove(place);
                let (len, capacity) = (connections.len(), connections.capacity());
                if capacity > 64 && len < capacity / 4 {
                    connections.shrink_to(len * 2);
                }
                return connections.get(place).copied();
            }
            self.lists.remove(list);
            self.shrink.shrink(&mut self.lists);
        }
        debug_assert!(place == 0 && !subscribers.is_empty());
        *subscribers = Subscribers::NONE;
        None
    }

    /// Takes them out, to be given back by [`put_back`](Lists::put_back) before any comes or goes.
    pub fn take(&mut self, subscribers: Subscribers) -> Taken {
        match subscribers.kind() {
            Kind::Nobody => Taken::Nobody,
            Kind::One(connection) => Taken::One(connection),
            Kind::List(list) => Taken::List(list, std::mem::take(&mut self.lists[list])),
        }
    }

    /// Puts them back where they were.
    pub fn put_back(&mut self, taken: Taken) {
        if let Taken::List(list, connections) = taken {
            debug_assert!(self.lists[list].is_empty(), "nobody came meanwhile");
            self.lists[list] = connections;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribers_come_and_go() {
        let (mut lists, mut subscribers) = (Lists::default(), Subscribers::NONE);
        let seen = |lists: &mut Lists, subscribers| {
            let taken = lists.take(subscribers);
            let seen = taken.to_vec();
            lists.put_back(taken);
            assert_eq!(lists.len(subscribers), seen.len());
            seen
        };
        assert_eq!(seen(&mut lists, subscribers), [0u32; 0]);
        for (place, connection) in [7, 0, 9].into_iter().enumerate() {
            assert_eq!(lists.push(&mut subscribers, connection), place);
        }
        assert_eq!(seen(&mut lists, subscribers), [7, 0, 9]);
        assert_eq!(lists.swap_remove(&mut subscribers, 0), Some(9));
        assert_eq!(lists.swap_remove(&mut subscribers, 1), None);
        assert_eq!(seen(&mut lists, subscribers), [9]);
        assert_eq!(lists.push(&mut subscribers, 3), 1);
        assert_eq!(lists.swap_remove(&mut subscribers, 0), Some(3));
        assert!(!subscribers.is_empty());
        assert_eq!(lists.swap_remove(&mut subscribers, 0), None);
        assert!(subscribers.is_empty() && lists.lists.is_empty());
        assert_eq!(lists.push(&mut subscribers, 5), 0);
        assert_eq!(seen(&mut lists, subscribers), [5]);
        assert!(lists.lists.is_empty());
    }
}
