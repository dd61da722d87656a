//! Members of a topic, and members that are told about.
//!
//! Each who comes or goes is told to all others, which grows with the square of their number. So at most `presence_max`
//! of those present are told of; the others count only, and come into view in the order of their names as places become
//! free. What a subscriber hears therefore always adds up to the list that it gets when it asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::command::ReactorId;
use crate::topic::Topic;

/// One connection that is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The reactor that owns the connection.
    pub reactor: ReactorId,
    /// The reactor's own name for the connection.
    pub connection: u64,
    /// Information that others see of it.
    pub info: Option<Arc<str>>,
}

/// Somebody came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceChange {
    /// Where.
    pub topic: Topic,
    /// Who.
    pub member: Member,
    /// It came.
    pub is_join: bool,
    /// Members after that.
    pub members: u32,
}

/// Members by their names, in an order that is the same in every run.
type Members = BTreeMap<(ReactorId, u64), Option<Arc<str>>>;

/// The members of one topic.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// Those of whom others are told.
    told: Members,
    /// Those who only count.
    untold: Members,
    /// The list of those in `told`, once somebody has asked for it, until it changes.
    listed: Option<Arc<[Member]>>,
}

impl Presence {
    /// Number of members.
    pub fn len(&self) -> usize {
        self.told.len() + self.untold.len()
    }

    /// Those of whom others are told, in the end.
    pub fn into_told(self) -> Vec<Member> {
        let told = self.told.into_iter();
        told.map(|(name, info)| member(name, info)).collect()
    }

    /// Somebody came. Gives who is to be told to the others as having come.
    pub fn join(&mut self, member: Member, told_max: usize) -> Option<Member> {
        let name = (member.reactor, member.connection);
        let known = self.told.get_mut(&name);
        if let Some(info) = known.or_else(|| self.untold.get_mut(&name)) {
            *info = member.info;
            self.listed = None;
            return None;
        }
        if self.told.len() >= told_max {
            self.untold.insert(name, member.info);
            return None;
        }
        self.told.insert(name, member.info.clone());
        self.listed = None;
        Some(member)
    }

    /// Somebody went. Gives who is to be told to the others as having gone, and who comes into view in its place.
    pub fn leave(
        &mut self,
        reactor: ReactorId,
        connection: u64,
    ) -> (Option<Member>, Option<Member>) {
        let name = (reactor, connection);
        let Some(info) = self.told.remove(&name) else {
            self.untold.remove(&name);
            return (None, None);
        };
        self.listed = None;
        let next = self.untold.pop_first().map(|(name, info)| {
            self.told.insert(name, info.clone());
            member(name, info)
        });
        (Some(member(name, info)), next)
    }

    /// Those of whom others are told.
    pub fn members(&mut self) -> Arc<[Member]> {
        let told = &self.told;
        let list = || {
            told.iter()
                .map(|(&name, info)| member(name, info.clone()))
                .collect()
        };
        Arc::clone(self.listed.get_or_insert_with(list))
    }
}

fn member((reactor, connection): (ReactorId, u64), info: Option<Arc<str>>) -> Member {
    Member {
        reactor,
        connection,
        info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(connection: u64) -> Member {
        member((ReactorId(0), connection), None)
    }

    fn names(presence: &mut Presence) -> Vec<u64> {
        let members = presence.members();
        members.iter().map(|member| member.connection).collect()
    }

    #[test]
    fn what_is_told_adds_up_to_the_list() {
        let mut presence = Presence::default();
        let mut heard = Vec::new();
        for connection in [5, 3, 9, 1] {
            let come = presence.join(named(connection), 2);
            heard.extend(come.map(|member| member.connection));
        }
        assert_eq!(heard, [5, 3]);
        assert_eq!(names(&mut presence), [3, 5]);
        assert_eq!(presence.len(), 4);
        // One who only counts goes unheard.
        assert_eq!(presence.leave(ReactorId(0), 9), (None, None));
        // The place of one who was told of goes to the next.
        let changes = presence.leave(ReactorId(0), 5);
        assert_eq!(changes, (Some(named(5)), Some(named(1))));
        assert_eq!(names(&mut presence), [1, 3]);
        assert_eq!(presence.leave(ReactorId(0), 5), (None, None));
        assert_eq!(presence.leave(ReactorId(0), 1), (Some(named(1)), None));
        assert_eq!(presence.leave(ReactorId(0), 3), (Some(named(3)), None));
        assert_eq!(presence.len(), 0);
    }

    #[test]
    fn who_comes_again_is_told_once() {
        let mut presence = Presence::default();
        assert_eq!(presence.join(named(1), 2), Some(named(1)));
        assert_eq!(presence.join(named(1), 2), None);
        assert_eq!(presence.len(), 1);
    }

    #[test]
    fn the_list_is_made_once_until_it_changes() {
        let mut presence = Presence::default();
        presence.join(named(1), 2);
        let first = presence.members();
        assert!(Arc::ptr_eq(&first, &presence.members()));
        presence.join(named(2), 2);
        assert_eq!(names(&mut presence), [1, 2]);
    }
}
