//! Listings of topics and their subscribers.
//!
//! A shard knows its topics and which reactors have subscribers of them, but only those reactors know how many. So a
//! listing travels: the shard fills in what it knows, each of the reactors adds its counts and passes it on, and the one
//! that asked comes last. Whoever looks at it looks at [`PLACES_PER_LISTING`] topics at most.

use super::command::ReactorId;
use super::publication::Position;
use crate::topic::Topic;

/// Places of a shard's table that one listing looks at.
pub const PLACES_PER_LISTING: u32 = 1000;

/// Topics to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One topic.
    Topic(Topic),
    /// What stands at [`PLACES_PER_LISTING`] places of a shard's table.
    Places {
        /// The shard, from 0.
        shard: u32,
        /// The first place.
        first: u32,
        /// Topics that are listed at most.
        topics_max: u32,
    },
}

/// Size of a topic's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistorySize {
    /// Publications.
    pub publications: usize,
    /// Their bytes, as [`Publication::retained_bytes`](super::Publication::retained_bytes) counts them.
    pub bytes: usize,
}

/// One topic of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The topic.
    pub topic: Topic,
    /// Place in its shard's table, constant while it is there.
    pub place: u32,
    /// Of its newest publication; offset 0: there was none.
    pub position: Position,
    /// Its subscribers on the reactors that have added theirs. Those of patterns are not among them.
    pub subscribers: u64,
    /// Size of its history, if its rule gives it one.
    pub history: Option<HistorySize>,
    /// Number of members, if its rule has presence.
    pub present: Option<u32>,
}

impl Listed {
    /// Whether only a reactor that has yet to unsubscribe keeps it.
    pub fn is_unused(&self) -> bool {
        let has_history = self.history.is_some_and(|it| it.publications > 0);
        self.subscribers == 0 && !has_history && self.present.unwrap_or(0) == 0
    }
}

/// Topics of one shard on their way to who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The reactor's own name for the connection that asked.
    pub connection: u64,
    /// The topics, by their places.
    pub topics: Vec<Listed>,
    /// The place where the next listing of this shard begins. None: this is its end.
    pub next: Option<u32>,
    /// The reactors that have yet to add their counts, the next one last; the first is the one that asked.
    reactors: Vec<ReactorId>,
    asker: ReactorId,
}

impl Listing {
    /// Of these topics, of which those reactors have subscribers. Reactor `asker` is among them in any case.
    pub fn new(
        asker: ReactorId,
        connection: u64,
        topics: Vec<Listed>,
        next: Option<u32>,
        others: impl Iterator<Item = ReactorId>,
    ) -> Listing {
        let mut reactors = vec![asker];
        reactors.extend(others.filter(|&other| other != asker));
        Listing {
            connection,
            topics,
            next,
            reactors,
            asker,
        }
    }

    /// The reactor that asked.
    pub fn asker(&self) -> ReactorId {
        self.asker
    }

    /// The reactor that it goes to.
    pub fn reactor(&self) -> ReactorId {
        self.reactors.last().copied().unwrap_or(self.asker)
    }

    /// The reactor that it went to adds its counts. True if all have.
    pub fn add(&mut self, count: impl Fn(&Topic) -> usize) -> bool {
        for listed in &mut self.topics {
            listed.subscribers += count(&listed.topic) as u64;
        }
        self.reactors.pop();
        self.reactors.is_empty()
    }

    /// Bytes that it holds while it waits.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.topics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str) -> Listed {
        Listed {
            topic: Topic::from_text(name).expect("a topic"),
            place: 0,
            position: Position {
                epoch: 1,
                offset: 0,
            },
            subscribers: 0,
            history: None,
            present: None,
        }
    }

    #[test]
    fn every_reactor_adds_its_counts_and_who_asked_is_last() {
        let (asker, others) = (ReactorId(1), [0, 1, 2].map(ReactorId));
        let topics = vec![listed("a"), listed("bb")];
        let mut listing = Listing::new(asker, 7, topics, None, others.into_iter());
        let mut visited = Vec::new();
        loop {
            visited.push(listing.reactor().0);
            if listing.add(|topic| topic.as_str().len()) {
                break;
            }
        }
        assert_eq!(visited, [2, 0, 1]);
        let counts = listing.topics.iter().map(|listed| listed.subscribers);
        assert_eq!(counts.collect::<Vec<_>>(), [3, 6]);
    }

    #[test]
    fn a_topic_that_nothing_keeps_is_unused() {
        assert!(listed("a").is_unused());
        let kept = |publications| Listed {
            history: Some(HistorySize {
                publications,
                bytes: 0,
            }),
            present: Some(0),
            ..listed("a")
        };
        assert!(kept(0).is_unused() && !kept(1).is_unused());
        let present = Listed {
            present: Some(1),
            ..listed("a")
        };
        assert!(!present.is_unused());
        let subscribed = Listed {
            subscribers: 1,
            ..listed("a")
        };
        assert!(!subscribed.is_unused());
    }
}
