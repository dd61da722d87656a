//! The connections that subscribe to one topic and to nothing else: a list that is walked for each publication.

use std::num::NonZeroU32;
use std::ops::Deref;

/// A connection's subscription: the topic's place in the table, and the connection's place among its subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// One more than the place, so that no subscription takes no room of its own.
    topic_number: NonZeroU32,
    pub(super) place: u32,
}

impl Subscription {
    pub(super) fn new(topic: u32, place: usize) -> Subscription {
        Subscription {
            topic_number: NonZeroU32::MIN.saturating_add(topic),
            place: place as u32,
        }
    }

    /// The topic's place in the table.
    pub fn topic(self) -> u32 {
        self.topic_number.get() - 1
    }
}

/// Slab indexes of the connections that subscribe to a topic. Most topics of very many have one.
#[derive(Debug, Default)]
pub enum Subscribers {
    /// Nobody.
    #[default]
    None,
    /// One.
    One(u32),
    /// Any number.
    #[expect(
        clippy::box_collection,
        reason = "there may be a million topics with one subscriber each"
    )]
    Many(Box<Vec<u32>>),
}

impl Deref for Subscribers {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match self {
            Subscribers::None => &[],
            Subscribers::One(connection) => std::slice::from_ref(connection),
            Subscribers::Many(connections) => connections,
        }
    }
}

impl Subscribers {
    pub(super) fn push(&mut self, connection: u32) {
        match self {
            Subscribers::None => *self = Subscribers::One(connection),
            Subscribers::One(first) => {
                *self = Subscribers::Many(Box::new(vec![*first, connection]));
            }
            Subscribers::Many(connections) => connections.push(connection),
        }
    }

    /// Takes one away; the last one moves to its place.
    pub(super) fn swap_remove(&mut self, place: usize) {
        if let Subscribers::Many(connections) = self
            && connections.len() > 1
        {
            connections.swap_remove(place);
            let (len, capacity) = (connections.len(), connections.capacity());
            if capacity > 64 && len < capacity / 4 {
                connections.shrink_to(len * 2);
            }
        } else {
            debug_assert!(place == 0 && self.len() == 1);
            *self = Subscribers::None;
        }
    }
}
