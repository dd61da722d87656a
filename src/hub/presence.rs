//! Members of a topic, and members that are told about.
//!
//! Each who comes or goes is told to all others, which grows with the square of their number. So at most `presence_max`
//! of those present are told of; the others count only, and come into view in the order of their names as places become
//! free. What a subscriber hears therefore always adds up to the list that it gets when it asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::command::ReactorId;
use crate::topic::{PresenceOf, Topic};

/// Identity of a member, as far as others see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberIdentity {
    /// Subject, or its hash, where the topic's rule shows it.
    pub subject: Option<Box<str>>,
    /// Information that its credential vouches for: JSON. A connection's members of many topics share it.
    pub info: Option<Arc<str>>,
    /// The information is of this subscription alone.
    pub has_own_info: bool,
    /// Subject of which it is one connection. Nobody is told of it.
    pub user: Option<Box<str>>,
}

/// One connection that is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The reactor that owns the connection.
    pub reactor: ReactorId,
    /// The reactor's own name for the connection.
    pub connection: u64,
    /// Information that others see of it, as it says itself.
    pub info: Option<Arc<str>>,
    /// Its identity, where a credential was shown.
    pub identity: Option<Arc<MemberIdentity>>,
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

/// Name of a connection.
type Name = (ReactorId, u64);

/// What is known of a member besides its name.
type Known = (Option<Arc<str>>, Option<Arc<MemberIdentity>>);

/// Members by their names, in an order that is the same in every run.
type Members = BTreeMap<Name, Known>;

/// Connections of one subject. The first of them stands for all, even after it is gone.
#[derive(Debug)]
struct User {
    first: Name,
    connections: BTreeSet<Name>,
}

impl User {
    /// Bytes of its set, and of its name here and at each of its connections.
    fn bytes(&self, subject: &str) -> usize {
        let connections = self.connections.len();
        let names = connections + usize::from(connections > 0);
        names * subject.len() + tree_bytes(connections, size_of::<Name>())
    }
}

/// Bytes that a topic counts as while it has members, besides them.
const TOPIC_BYTES: usize = 192;

/// Entries in each node of a tree that grows in the order of its keys. Nodes have room for 11.
const ENTRIES_PER_NODE: usize = 6;

/// Bytes of a tree of so many entries of this size, with the pointers to its nodes.
fn tree_bytes(len: usize, entry_bytes: usize) -> usize {
    len.div_ceil(ENTRIES_PER_NODE) * (11 * entry_bytes + 32)
}

/// Bytes of an allocation that is counted by its references.
fn shared_bytes(text: Option<&Arc<str>>) -> usize {
    text.map_or(0, |text| text.len() + 2 * size_of::<usize>())
}

/// The members of one topic.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// Those of whom others are told.
    told: Members,
    /// Those who only count.
    untold: Members,
    /// Whether connections of one subject are one member.
    by_user: bool,
    /// Whether nobody is told of.
    is_count: bool,
    users: BTreeMap<Box<str>, User>,
    /// Subjects of the connections in `users`.
    subjects: BTreeMap<Name, Box<str>>,
    /// The list of those in `told`, once somebody has asked for it, until it changes.
    listed: Option<Arc<[Member]>>,
    /// Bytes of texts and identities that only this topic holds, and of the sets in `users`.
    held_bytes: usize,
}

impl Presence {
    /// Of a topic where nobody is yet. `of`: who counts as a member.
    pub fn new(of: PresenceOf) -> Presence {
        Presence {
            by_user: of == PresenceOf::Users,
            is_count: of == PresenceOf::Count,
            ..Presence::default()
        }
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.told.len() + self.untold.len()
    }

    /// Bytes that the members count as: what the trees and lists take, and what each connection says of itself. What a
    /// credential vouches for is its connection's.
    pub fn bytes(&self) -> usize {
        if self.len() == 0 {
            return 0;
        }
        let members = [&self.told, &self.untold]
            .map(|members| tree_bytes(members.len(), size_of::<Name>() + size_of::<Known>()));
        let users = tree_bytes(self.users.len(), size_of::<(Box<str>, User)>());
        let subjects = tree_bytes(self.subjects.len(), size_of::<(Name, Box<str>)>());
        let listed = self.listed.as_ref().map_or(0, |it| size_of_val(&**it));
        let trees = members.into_iter().sum::<usize>() + users + subjects;
        TOPIC_BYTES + trees + listed + self.held_bytes
    }

    /// Those of whom others are told, in the end.
    pub fn into_told(self) -> Vec<Member> {
        let told = self.told.into_iter();
        told.map(|(name, known)| member(name, known)).collect()
    }

    /// Somebody came. Gives who is to be told to the others as having come.
    pub fn join(&mut self, member: Member, told_max: usize) -> Option<Member> {
        let name = (member.reactor, member.connection);
        if self.by_user && !self.begin_user(name, &member) {
            return None;
        }
        let known = self.told.get_mut(&name);
        if let Some(known) = known.or_else(|| self.untold.get_mut(&name)) {
            let before = std::mem::replace(known, (member.info, member.identity));
            self.held_bytes += known_bytes(known);
            self.held_bytes -= known_bytes(&before);
            self.listed = None;
            return None;
        }
        let known = (member.info.clone(), member.identity.clone());
        self.held_bytes += known_bytes(&known);
        if self.is_count || self.told.len() >= told_max {
            self.untold.insert(name, known);
            return None;
        }
        self.told.insert(name, known);
        self.listed = None;
        Some(member)
    }

    /// Somebody went. Gives who is to be told to the others as having gone, and who comes into view in its place.
    pub fn leave(
        &mut self,
        reactor: ReactorId,
        connection: u64,
    ) -> (Option<Member>, Option<Member>) {
        let Some(name) = self.end_user((reactor, connection)) else {
            return (None, None);
        };
        let Some(known) = self.told.remove(&name) else {
            let known = self.untold.remove(&name);
            self.held_bytes -= known.as_ref().map_or(0, known_bytes);
            return (None, None);
        };
        self.held_bytes -= known_bytes(&known);
        self.listed = None;
        let next = self.untold.pop_first().map(|(name, known)| {
            self.told.insert(name, known.clone());
            member(name, known)
        });
        (Some(member(name, known)), next)
    }

    /// Counts a connection of a subject. False: another stands for it.
    fn begin_user(&mut self, name: Name, member: &Member) -> bool {
        let identity = member.identity.as_ref();
        let Some(subject) = identity.and_then(|identity| identity.user.as_ref()) else {
            return true;
        };
        let user = self.users.entry(subject.clone()).or_insert_with(|| User {
            first: name,
            connections: BTreeSet::new(),
        });
        let before = user.bytes(subject);
        if user.connections.insert(name) {
            self.subjects.insert(name, subject.clone());
        }
        self.held_bytes += user.bytes(subject) - before;
        user.first == name
    }

    /// Name under which a connection that goes was told of. None: others of its subject are left.
    fn end_user(&mut self, name: Name) -> Option<Name> {
        let Some(subject) = self.subjects.remove(&name) else {
            return Some(name);
        };
        let user = self.users.get_mut(&subject)?;
        let before = user.bytes(&subject);
        user.connections.remove(&name);
        self.held_bytes -= before - user.bytes(&subject);
        if !user.connections.is_empty() {
            return None;
        }
        let first = user.first;
        self.users.remove(&subject);
        Some(first)
    }

    /// Those of whom others are told.
    pub fn members(&mut self) -> Arc<[Member]> {
        let told = &self.told;
        let list = || {
            told.iter()
                .map(|(&name, known)| member(name, known.clone()))
                .collect()
        };
        Arc::clone(self.listed.get_or_insert_with(list))
    }
}

/// Bytes of a member besides its place in a tree.
fn known_bytes((info, identity): &Known) -> usize {
    let identity = identity.as_ref().map_or(0, |it| {
        let texts = [&it.subject, &it.user].into_iter().flatten();
        let own_info = it.info.as_ref().filter(|_| it.has_own_info);
        let counts = 2 * size_of::<usize>();
        counts
            + shared_bytes(own_info)
            + size_of::<MemberIdentity>()
            + texts.map(|text| text.len()).sum::<usize>()
    });
    identity + shared_bytes(info.as_ref())
}

fn member((reactor, connection): Name, (info, identity): Known) -> Member {
    Member {
        reactor,
        connection,
        info,
        identity,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(connection: u64) -> Member {
        member((ReactorId(0), connection), (Some("{}".into()), None))
    }

    fn names(presence: &mut Presence) -> Vec<u64> {
        let members = presence.members();
        members.iter().map(|member| member.connection).collect()
    }

    fn of_user(connection: u64, user: &str) -> Member {
        let identity = MemberIdentity {
            user: Some(user.into()),
            ..MemberIdentity::default()
        };
        member((ReactorId(0), connection), (None, Some(Arc::new(identity))))
    }

    #[test]
    fn connections_of_a_subject_are_one_member() {
        let mut presence = Presence::new(PresenceOf::Users);
        let joins = [(1, "a"), (2, "a"), (3, "b")];
        let come = joins.map(|(number, user)| presence.join(of_user(number, user), 9).is_some());
        assert_eq!(come, [true, false, true]);
        assert!(
            presence.join(named(4), 9).is_some() && presence.join(of_user(2, "a"), 9).is_none()
        );
        assert_eq!((presence.len(), names(&mut presence)), (3, vec![1, 3, 4]));
        // The one that stands for all of them goes first, and is told to have gone with the last.
        assert_eq!(presence.leave(ReactorId(0), 1), (None, None));
        assert_eq!(names(&mut presence), [1, 3, 4]);
        let (gone, _) = presence.leave(ReactorId(0), 2);
        assert_eq!(gone.map(|member| member.connection), Some(1));
        assert_eq!(presence.leave(ReactorId(0), 2), (None, None));
        for connection in [3, 4] {
            presence.leave(ReactorId(0), connection);
        }
        assert!(presence.users.is_empty() && presence.subjects.is_empty() && presence.len() == 0);
        assert_eq!((presence.held_bytes, presence.bytes()), (0, 0));
    }

    #[test]
    fn count_names_nobody() {
        let mut presence = Presence::new(PresenceOf::Count);
        assert!((0..5).all(|number| presence.join(named(number), 9).is_none()));
        assert_eq!((presence.len(), names(&mut presence).len()), (5, 0));
        assert_eq!(presence.leave(ReactorId(0), 3), (None, None));
        assert_eq!(presence.len(), 4);
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
        assert_eq!((presence.len(), presence.held_bytes), (0, 0));
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
