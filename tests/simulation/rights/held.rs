//! Who a connection is, by the order of what it sends: each command is judged by the token that was taken before it.

use std::collections::BTreeSet;

use crate::records::Records;
use crate::topics::Target;

/// A connection's tokens.
#[derive(Debug, Default)]
pub struct Holder {
    /// Those that were taken, with the ids of the commands that showed them. The first came with the request; None: none.
    taken: Vec<(u32, Option<usize>)>,
    /// What was subscribed to and is allowed no more. Before anything else comes, its end does.
    pub doomed: BTreeSet<Target>,
    /// It has tried to become somebody else, which it may once.
    pub has_shown_foreign: bool,
}

impl Holder {
    /// One that shows this with its request.
    pub fn new(badge: Option<usize>) -> Holder {
        Holder {
            taken: vec![(0, badge)],
            ..Holder::default()
        }
    }

    /// The token that the request shows.
    pub fn first(&self) -> Option<usize> {
        self.taken[0].1
    }

    /// The token that was taken last.
    pub fn newest(&self) -> Option<usize> {
        self.taken.last().and_then(|(_, badge)| *badge)
    }

    /// A token was taken.
    pub fn take(&mut self, id: u32, badge: usize) {
        self.taken.push((id, Some(badge)));
    }

    /// Whoever takes over from it: the same subject, with the same token or another.
    pub fn successor(&self, records: &mut Records, now_ms: u64) -> Holder {
        let (Some(newest), Some(rights)) = (self.newest(), &mut records.rights) else {
            return Holder::new(None);
        };
        Holder::new(Some(rights.successor(newest, now_ms)))
    }

    /// The token that a command was judged by.
    pub fn at(&self, id: u32) -> Option<usize> {
        let earlier = self.taken.iter().skip(1).rev().find(|(from, _)| *from < id);
        earlier.map_or(self.first(), |(_, badge)| *badge)
    }
}
