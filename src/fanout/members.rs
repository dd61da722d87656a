//! State of few topics besides the subscribers that subscribe to nothing else.

use slab::Slab;

use crate::dialect::{Class, Form, RecentDeliveries};

/// Those of a topic's subscribers that take compressed frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Audience {
    /// All of them.
    deflating: u32,
    /// Those that can be in the topic's cohort.
    pub keeping_context: u32,
    /// Recent deliveries to them.
    pub recent: RecentDeliveries,
}

impl Audience {
    /// Whether nobody takes compressed frames.
    pub fn is_empty(&self) -> bool {
        self.deflating == 0
    }

    /// Counts one that takes frames of this form best.
    pub fn enter(&mut self, form: Form) {
        self.deflating += 1;
        self.keeping_context += u32::from(form.class() == Class::Cohort);
    }

    /// Counts one less; true if it was the last that could be in the topic's cohort.
    pub fn leave(&mut self, form: Form) -> bool {
        self.deflating -= 1;
        self.keeping_context -= u32::from(form.class() == Class::Cohort);
        form.class() == Class::Cohort && self.keeping_context == 0
    }
}

/// Connections of many topics that subscribe to this topic or pattern. The two lists run side by side, so that the
/// connections can be walked as [`Taken`](super::subscribers::Taken) subscribers are.
#[derive(Debug, Default)]
pub struct Members {
    connections: Vec<u32>,
    ids: Vec<u32>,
}

/// Place of each member in its list, by its number.
pub type MemberPlaces = Slab<u32>;

impl Members {
    /// Slab indexes of the connections; each stands in it once.
    pub fn connections(&self) -> &[u32] {
        &self.connections
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Adds one; gives its number.
    pub fn push(&mut self, connection: u32, places: &mut MemberPlaces) -> u32 {
        let id = places.insert(self.connections.len() as u32) as u32;
        self.connections.push(connection);
        self.ids.push(id);
        id
    }

    /// Adds one that has a number already.
    pub fn push_as(&mut self, id: u32, connection: u32, places: &mut MemberPlaces) {
        if let Some(place) = places.get_mut(id as usize) {
            *place = self.connections.len() as u32;
            self.connections.push(connection);
            self.ids.push(id);
        }
    }

    /// The only member, if it is one: its connection and number.
    pub fn only(&self) -> Option<(u32, u32)> {
        match (&self.connections[..], &self.ids[..]) {
            (&[connection], &[id]) => Some((connection, id)),
            _ => None,
        }
    }

    /// Takes one away; the last one moves to its place.
    pub fn remove(&mut self, id: u32, places: &mut MemberPlaces) {
        let Some(place) = places.try_remove(id as usize) else {
            return;
        };
        self.connections.swap_remove(place as usize);
        self.ids.swap_remove(place as usize);
        if let Some(&moved) = self.ids.get(place as usize) {
            places[moved as usize] = place;
        }
        let (len, capacity) = (self.connections.len(), self.connections.capacity());
        if capacity > 64 && len < capacity / 4 {
            self.connections.shrink_to(len * 2);
            self.ids.shrink_to(len * 2);
        }
    }
}

/// State that few topics have.
#[derive(Debug, Default)]
pub struct Extras {
    /// Of the subscribers: those that take compressed frames.
    pub audience: Audience,
    /// Connections with many subscriptions.
    pub members: Members,
    /// Subscriptions that the hub has yet to answer.
    pub joins: u32,
}

impl Extras {
    /// Whether there is nothing in it to be kept.
    pub fn is_empty(&self) -> bool {
        self.audience.is_empty() && self.members.is_empty() && self.joins == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_again_after_others_moved() {
        let (mut members, mut places) = (Members::default(), MemberPlaces::new());
        let ids: Vec<u32> = (10..14).map(|it| members.push(it, &mut places)).collect();
        members.remove(ids[0], &mut places);
        members.remove(ids[3], &mut places);
        assert_eq!(members.connections(), [12, 11]);
        members.remove(ids[1], &mut places);
        members.remove(ids[1], &mut places);
        assert_eq!(members.connections(), [12]);
        members.remove(ids[2], &mut places);
        assert!(members.is_empty() && places.is_empty());
    }
}
