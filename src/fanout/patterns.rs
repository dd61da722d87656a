//! Patterns of this reactor's connections, with their subscribers.
//!
//! A pattern is in the hub's table while it is here, and there before its first subscriber is told so.

use std::sync::Arc;

use slab::Slab;

use super::members::{MemberPlaces, Members};
use super::topics::SubscribeError;
use crate::hash_index::HashIndex;
use crate::hub::{LocalTopic, Publication, Share};
use crate::shrink::Shrink;
use crate::topic::Pattern;

/// No list of publications.
const NO_QUEUE: u32 = u32::MAX;

#[derive(Debug)]
struct PatternState {
    pattern: Pattern,
    generation: u32,
    /// Where this tick's publications are in `queues`, or [`NO_QUEUE`].
    queue: u32,
    subscribers: PatternSubscribers,
}

// There may be as many patterns as connections, and the slab adds nothing.
const _: () = assert!(size_of::<Option<PatternState>>() <= 40);

/// Subscribers of a pattern, mostly one.
#[derive(Debug)]
pub enum PatternSubscribers {
    /// One connection, with the number of its membership.
    One {
        /// Slab index of the connection.
        connection: u32,
        /// The number of the membership.
        member: u32,
    },
    /// Several.
    Several(Box<Members>),
}

impl PatternSubscribers {
    /// Slab indexes of the connections.
    pub fn connections(&self) -> &[u32] {
        match self {
            PatternSubscribers::One { connection, .. } => std::slice::from_ref(connection),
            PatternSubscribers::Several(members) => members.connections(),
        }
    }
}

/// Bytes that a subscription by a pattern counts as, at most.
pub fn bytes_of(pattern: &Pattern) -> usize {
    /// What it takes besides the text: in the hub, on its reactor and on its connection.
    const OVERHEAD_BYTES: usize = 400;
    pattern.as_str().len() + OVERHEAD_BYTES
}

/// A subscription by a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The pattern, in memory that its subscribers share.
    pub pattern: Pattern,
    /// Its place in the table.
    pub place: u32,
    /// The number of the membership.
    pub member: u32,
}

/// The table. A pattern is in it while it has subscribers here.
#[derive(Debug)]
pub struct Patterns {
    patterns_max: usize,
    index: HashIndex,
    states: Slab<PatternState>,
    shrink: Shrink,
    /// Of each membership: the place in the list of its pattern. Of the only subscriber of a pattern: none that counts.
    places: MemberPlaces,
    shrink_places: Shrink,
    next_generation: u32,
    /// Patterns with publications of this tick.
    delivering: Vec<u32>,
    /// Their publications.
    queues: Vec<Vec<Arc<Publication>>>,
}

impl Patterns {
    /// An empty table of at most `patterns_max` patterns.
    pub fn new(patterns_max: usize) -> Patterns {
        Patterns {
            patterns_max,
            index: HashIndex::default(),
            states: Slab::new(),
            shrink: Shrink::default(),
            places: MemberPlaces::new(),
            shrink_places: Shrink::default(),
            next_generation: 0,
            delivering: Vec::new(),
            queues: Vec::new(),
        }
    }

    /// Allows so many patterns from now on. Those that are here stay.
    pub fn set_patterns_max(&mut self, patterns_max: usize) {
        self.patterns_max = patterns_max;
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Number of patterns in the table.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Adds a subscriber. `subscribe` enters a pattern that is new here in the hub's table.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub fn join(
        &mut self,
        pattern: &Pattern,
        connection: u32,
        subscribe: impl FnOnce(&Pattern, LocalTopic),
    ) -> Result<Joined, SubscribeError> {
        if let Some(place) = self.find(pattern) {
            let member = self.add_member(place, connection);
            let pattern = self.states[place as usize].pattern.clone();
            return Ok(Joined {
                pattern,
                place,
                member,
            });
        }
        if self.states.len() >= self.patterns_max {
            return Err(SubscribeError::TooManyTopics);
        }
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let member = self.places.insert(0) as u32;
        let place = self.states.insert(PatternState {
            pattern: pattern.clone(),
            generation,
            queue: NO_QUEUE,
            subscribers: PatternSubscribers::One { connection, member },
        }) as u32;
        let hash = self.index.hash(pattern);
        self.index.insert(hash, place);
        subscribe(pattern, local_of(place, generation));
        Ok(Joined {
            pattern: pattern.clone(),
            place,
            member,
        })
    }

    fn add_member(&mut self, place: u32, connection: u32) -> u32 {
        let Patterns { states, places, .. } = self;
        let subscribers = &mut states[place as usize].subscribers;
        if let PatternSubscribers::One { connection, member } = *subscribers {
            let mut members = Members::default();
            members.push_as(member, connection, places);
            *subscribers = PatternSubscribers::Several(Box::new(members));
        }
        match subscribers {
            PatternSubscribers::Several(members) => members.push(connection, places),
            PatternSubscribers::One { member, .. } => *member,
        }
    }

    /// Takes a subscriber away. `unsubscribe` takes the pattern out of the hub's table with its last one.
    pub fn remove_member(
        &mut self,
        place: u32,
        member: u32,
        unsubscribe: impl FnOnce(&Pattern, LocalTopic),
    ) {
        let Some(state) = self.states.get_mut(place as usize) else {
            return;
        };
        match &mut state.subscribers {
            PatternSubscribers::One { member: only, .. } => {
                debug_assert_eq!(*only, member, "a membership is of its pattern");
                self.places.try_remove(member as usize);
                self.remove(place, unsubscribe);
            }
            PatternSubscribers::Several(members) => {
                members.remove(member, &mut self.places);
                if let Some((connection, member)) = members.only() {
                    state.subscribers = PatternSubscribers::One { connection, member };
                }
            }
        }
        self.shrink_places.shrink(&mut self.places);
    }

    fn remove(&mut self, place: u32, unsubscribe: impl FnOnce(&Pattern, LocalTopic)) {
        let state = self.states.remove(place as usize);
        let hash = self.index.hash(&state.pattern);
        self.index.remove(hash, place);
        if let Some(queue) = self.queues.get_mut(state.queue as usize) {
            for publication in queue.drain(..) {
                publication.add_share(&Share::default());
            }
        }
        self.shrink.shrink(&mut self.states);
        unsubscribe(&state.pattern, local_of(place, state.generation));
    }

    /// Queues a publication until this tick's end, if the pattern has subscribers.
    ///
    /// # Errors
    /// Gives the publication back then.
    pub fn queue(
        &mut self,
        local: LocalTopic,
        publication: Arc<Publication>,
    ) -> Result<(), Arc<Publication>> {
        let place = place_of(local);
        let state = self.states.get_mut(place as usize);
        let Some(state) = state.filter(|state| state.generation == local.generation) else {
            return Err(publication);
        };
        if state.queue == NO_QUEUE {
            state.queue = self.queues.len() as u32;
            self.queues.push(Vec::new());
            self.delivering.push(place);
        }
        self.queues[state.queue as usize].push(publication);
        Ok(())
    }

    /// Patterns with queued publications. To be given back by [`end_delivery`](Patterns::end_delivery).
    pub fn begin_delivery(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.delivering)
    }

    /// Takes a pattern's publications and subscribers out, to be walked. To be given back by
    /// [`put_back`](Patterns::put_back).
    pub fn take_delivery(
        &mut self,
        place: u32,
    ) -> Option<(Pattern, Vec<Arc<Publication>>, PatternSubscribers)> {
        let state = self.states.get_mut(place as usize)?;
        let queue = std::mem::replace(&mut state.queue, NO_QUEUE);
        let queue = std::mem::take(self.queues.get_mut(queue as usize)?);
        let nobody = PatternSubscribers::Several(Box::default());
        let subscribers = std::mem::replace(&mut state.subscribers, nobody);
        Some((state.pattern.clone(), queue, subscribers))
    }

    /// Gives the subscribers back.
    pub fn put_back(&mut self, place: u32, subscribers: PatternSubscribers) {
        if let Some(state) = self.states.get_mut(place as usize) {
            state.subscribers = subscribers;
        }
    }

    /// Gives the list of patterns back for its memory.
    pub fn end_delivery(&mut self, mut delivering: Vec<u32>) {
        debug_assert!(
            self.delivering.is_empty() && self.queues.iter().all(Vec::is_empty),
            "nothing is queued while deliveries are written"
        );
        self.queues.clear();
        delivering.clear();
        self.delivering = delivering;
    }

    fn find(&self, pattern: &Pattern) -> Option<u32> {
        let hash = self.index.hash(pattern);
        self.index.find(hash, |place| {
            self.states[place as usize].pattern == *pattern
        })
    }
}

/// What the hub calls a pattern.
fn local_of(place: u32, generation: u32) -> LocalTopic {
    LocalTopic {
        index: place | LocalTopic::PATTERN_BIT,
        generation,
    }
}

fn place_of(local: LocalTopic) -> u32 {
    local.index & !LocalTopic::PATTERN_BIT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{
        Command, Effect, Kind, Origin, PatternPart, ReactorId, Receipt, Shard, ShardSettings,
    };
    use crate::topic::Topic;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect("a pattern")
    }

    #[test]
    fn hub_told_of_first_and_last_subscriber() {
        let mut patterns = Patterns::new(10);
        let mut told = Vec::new();
        let mut members = Vec::new();
        for connection in 0..5 {
            let wanted = pattern("a/*");
            let joined = patterns.join(&wanted, connection, |_, local| told.push(local));
            members.push(joined.expect("room"));
        }
        assert_eq!(told, [local_of(0, 0)]);
        let taken = patterns.states[0].subscribers.connections();
        assert_eq!(taken, [0, 1, 2, 3, 4]);
        for joined in &members {
            assert_eq!(told.len(), 1);
            patterns.remove_member(joined.place, joined.member, |_, local| told.push(local));
        }
        assert_eq!(told, [local_of(0, 0); 2]);
        assert!(patterns.is_empty() && patterns.places.is_empty());
        let joined = patterns.join(&pattern("b"), 7, |_, local| told.push(local));
        assert_eq!(joined.map(|joined| joined.place), Ok(0));
        assert_eq!(told[2], local_of(0, 1), "another use of the place");
    }

    #[test]
    fn no_more_patterns_than_allowed() {
        let mut patterns = Patterns::new(1);
        let mut join = |text, connection| {
            let joined = patterns.join(&pattern(text), connection, |_, _| {});
            joined.map(|joined| joined.place)
        };
        assert_eq!(join("a", 0), Ok(0));
        assert_eq!(join("b", 0), Err(SubscribeError::TooManyTopics));
        assert_eq!(join("a", 1), Ok(0));
    }

    #[test]
    fn pattern_that_goes_answers_for_queued_publications() {
        let (sender, reports) = std::sync::mpsc::sync_channel(10);
        let done = move |report| sender.try_send(report).expect("it comes once");
        let receipt = Arc::new(Receipt::new(Box::new(done)));
        let mut patterns = Patterns::new(10);
        let mut hub = PatternPart::default();
        let joined = patterns.join(&pattern("a/*"), 1, |pattern, local| {
            hub.subscribe(pattern, ReactorId(0), local);
        });
        let joined = joined.expect("room");
        let publication = Publication::new(Kind::Text, b"x", 0).with_receipt(receipt);
        let publish = Command::Publish {
            topic: Topic::from_text("a/b").expect("a topic"),
            publication: Arc::new(publication),
            origin: Origin::Detached,
        };
        let (mut shard, mut effects) = (Shard::new(1, ShardSettings::default()), Vec::new());
        shard.handle_command(publish, &hub, &mut effects);
        let Some(Effect::Deliver {
            local, publication, ..
        }) = effects.pop()
        else {
            panic!("it matches");
        };
        assert!(patterns.queue(local, publication).is_ok() && reports.try_recv().is_err());
        patterns.remove_member(joined.place, joined.member, |_, _| {});
        assert_eq!(reports.try_recv().map(|it| it.matched), Ok(0));
        // The list of this tick's deliveries still names its place.
        let delivering = patterns.begin_delivery();
        for &place in &delivering {
            assert!(patterns.take_delivery(place).is_none());
        }
        patterns.end_delivery(delivering);
        assert!(reports.try_recv().is_err());
    }

    /// The place may have another pattern by the time that the deliveries are written.
    #[test]
    fn place_used_again_gets_nothing_of_before() {
        let mut patterns = Patterns::new(10);
        let joined = patterns.join(&pattern("a/*"), 1, |_, _| {}).expect("room");
        let publication = Arc::new(Publication::new(Kind::Text, b"x", 0));
        patterns.queue(local_of(0, 0), publication).expect("here");
        patterns.remove_member(joined.place, joined.member, |_, _| {});
        patterns.join(&pattern("b"), 2, |_, _| {}).expect("room");
        let delivering = patterns.begin_delivery();
        assert!(patterns.take_delivery(delivering[0]).is_none());
        patterns.end_delivery(delivering);
    }
}
