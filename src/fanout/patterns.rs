//! Patterns of this reactor's connections, with their subscribers.
//!
//! A pattern is registered with every shard of the hub, for any of them may own a topic that it matches. Its subscribers
//! are told that they are subscribed once all shards know it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;

use super::members::{MemberPlaces, Members};
use super::topics::SubscribeError;
use crate::handler::ConnectionId;
use crate::hub::{Command, LocalTopic, Publication, ReactorId, Share};
use crate::topic::Pattern;

#[derive(Debug)]
struct PatternState {
    pattern: Pattern,
    generation: u32,
    /// Shards that have yet to say that they know it.
    shards_missing: u32,
    /// Who waits for that, by [`ConnectionId::to_bits`], each with the number of its question.
    waiting: BTreeMap<u64, u32>,
    members: Members,
    /// This tick's publications.
    queue: Vec<Arc<Publication>>,
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

/// Bytes that a subscription by a pattern counts as, at most.
pub fn bytes_of(pattern: &Pattern) -> usize {
    /// What it takes besides the text: in the hub, on its reactor and on its connection.
    const OVERHEAD_BYTES: usize = 400;
    pattern.as_str().len() + OVERHEAD_BYTES
}

/// Beginning of a subscription by a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// At once: every shard knows the pattern.
    Now {
        /// The pattern's place in the table.
        place: u32,
        /// The number of the membership.
        member: u32,
    },
    /// Once every shard does.
    Later,
}

/// A pattern that every shard knows from here on.
#[derive(Debug)]
pub struct Known {
    /// The pattern.
    pub pattern: Pattern,
    /// Its place in the table.
    pub place: u32,
    /// Connections that waited for it, each with the number of its question.
    pub waiting: Vec<(ConnectionId, u32)>,
}

/// The table. A pattern is in it while it has subscribers here.
#[derive(Debug)]
pub struct Patterns {
    reactor: ReactorId,
    shards: u32,
    patterns_max: usize,
    outgoing_max: usize,
    index: HashMap<Pattern, u32>,
    states: Slab<PatternState>,
    places: MemberPlaces,
    next_generation: u32,
    /// Patterns with publications of this tick.
    delivering: Vec<u32>,
    /// What the hub has yet to take, in order.
    outgoing: VecDeque<Command>,
}

impl Patterns {
    /// An empty table of at most `patterns_max` patterns, for so many shards. While `outgoing_max` commands wait for
    /// the hub to take them, no further patterns come in.
    pub fn new(
        reactor: ReactorId,
        shards: u32,
        patterns_max: usize,
        outgoing_max: usize,
    ) -> Patterns {
        Patterns {
            reactor,
            shards,
            patterns_max,
            outgoing_max,
            index: HashMap::new(),
            states: Slab::new(),
            places: MemberPlaces::new(),
            next_generation: 0,
            delivering: Vec::new(),
            outgoing: VecDeque::new(),
        }
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Number of patterns in the table.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Adds a subscriber, or notes that it waits. `request` is the number of its question.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub fn join(
        &mut self,
        pattern: &Pattern,
        connection: ConnectionId,
        request: u32,
    ) -> Result<Joined, SubscribeError> {
        let place = match self.index.get(pattern) {
            Some(&place) => place,
            None => self.add(pattern)?,
        };
        let state = &mut self.states[place as usize];
        if state.shards_missing > 0 {
            state.waiting.insert(connection.to_bits(), request);
            return Ok(Joined::Later);
        }
        let member = state.members.push(connection.index, &mut self.places);
        Ok(Joined::Now { place, member })
    }

    fn add(&mut self, pattern: &Pattern) -> Result<u32, SubscribeError> {
        if self.states.len() >= self.patterns_max {
            return Err(SubscribeError::TooManyTopics);
        }
        if self.outgoing.len() >= self.outgoing_max {
            return Err(SubscribeError::HubFull);
        }
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let place = self.states.insert(PatternState {
            pattern: pattern.clone(),
            generation,
            shards_missing: self.shards,
            waiting: BTreeMap::new(),
            members: Members::default(),
            queue: Vec::new(),
        }) as u32;
        self.index.insert(pattern.clone(), place);
        let (reactor, local) = (self.reactor, local_of(place, generation));
        self.outgoing
            .extend((0..self.shards).map(|shard| Command::SubscribePattern {
                shard,
                pattern: pattern.clone(),
                reactor,
                local,
            }));
        Ok(place)
    }

    /// One more shard knows the pattern. Once all do, those who waited are given back.
    pub fn handle_subscribed(&mut self, local: LocalTopic) -> Option<Known> {
        let reactor = self.reactor;
        let state = self.state(local)?;
        state.shards_missing = state.shards_missing.saturating_sub(1);
        if state.shards_missing > 0 {
            return None;
        }
        let waiting = std::mem::take(&mut state.waiting).into_iter();
        Some(Known {
            pattern: state.pattern.clone(),
            place: place_of(local),
            waiting: waiting
                .map(|(bits, request)| (ConnectionId::from_bits(reactor.0, bits), request))
                .collect(),
        })
    }

    /// A connection does not wait any more. The pattern stays until the shards have answered, so that whoever changes
    /// its mind again and again asks them nothing.
    pub fn forget(&mut self, pattern: &Pattern, connection: ConnectionId) {
        let place = self.index.get(pattern);
        if let Some(state) = place.and_then(|&place| self.states.get_mut(place as usize)) {
            state.waiting.remove(&connection.to_bits());
        }
    }

    /// Adds a subscriber that has waited.
    pub fn add_member(&mut self, place: u32, connection: u32) -> Option<u32> {
        let state = self.states.get_mut(place as usize)?;
        Some(state.members.push(connection, &mut self.places))
    }

    /// Takes a subscriber away.
    pub fn remove_member(&mut self, place: u32, member: u32) {
        if let Some(state) = self.states.get_mut(place as usize) {
            state.members.remove(member, &mut self.places);
        }
        self.remove_if_unused(place);
    }

    /// Nobody waits any more who did: the pattern goes if nobody else wants it.
    pub fn remove_if_unused(&mut self, place: u32) {
        let Some(state) = self.states.get(place as usize) else {
            return;
        };
        if !state.members.is_empty() || !state.waiting.is_empty() {
            return;
        }
        let state = self.states.remove(place as usize);
        self.index.remove(&state.pattern);
        let (reactor, local) = (self.reactor, local_of(place, state.generation));
        for publication in &state.queue {
            publication.add_share(&Share::default());
        }
        self.outgoing
            .extend((0..self.shards).map(|shard| Command::UnsubscribePattern {
                shard,
                pattern: state.pattern.clone(),
                reactor,
                local,
            }));
    }

    /// Hands over waiting commands, as far as `submit` takes them.
    pub fn send(&mut self, mut submit: impl FnMut(Command) -> Result<(), Command>) {
        while let Some(command) = self.outgoing.pop_front() {
            if let Err(command) = submit(command) {
                return self.outgoing.push_front(command);
            }
        }
    }

    /// Whether the hub has yet to take something.
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
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
        let Some(state) = self.state(local) else {
            return Err(publication);
        };
        state.queue.push(publication);
        if state.queue.len() == 1 {
            self.delivering.push(place_of(local));
        }
        Ok(())
    }

    /// Patterns with queued publications.
    pub fn begin_delivery(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.delivering)
    }

    /// Takes a pattern's publications and subscribers out, to be walked. To be given back by
    /// [`put_back`](Patterns::put_back).
    pub fn take_delivery(
        &mut self,
        place: u32,
    ) -> Option<(Pattern, Vec<Arc<Publication>>, Members)> {
        let state = self.states.get_mut(place as usize)?;
        let queue = std::mem::take(&mut state.queue);
        let members = std::mem::take(&mut state.members);
        Some((state.pattern.clone(), queue, members))
    }

    /// Gives the subscribers back.
    pub fn put_back(&mut self, place: u32, members: Members) {
        if let Some(state) = self.states.get_mut(place as usize) {
            state.members = members;
        }
    }

    fn state(&mut self, local: LocalTopic) -> Option<&mut PatternState> {
        self.states
            .get_mut(place_of(local) as usize)
            .filter(|state| state.generation == local.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Effect, Kind, Origin, Receipt, Shard, ShardSettings};
    use crate::topic::Topic;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect("a pattern")
    }

    fn connection(index: u32) -> ConnectionId {
        ConnectionId::from_bits(0, u64::from(index))
    }

    #[test]
    fn who_changes_its_mind_before_the_shards_have_answered_leaves_nothing() {
        let mut patterns = Patterns::new(ReactorId(0), 2, 10, 10);
        let wanted = pattern("a/*");
        for request in 0..1000 {
            let joined = patterns.join(&wanted, connection(1), request);
            assert_eq!(joined, Ok(Joined::Later));
            patterns.forget(&wanted, connection(1));
        }
        let mut joined = |request| patterns.join(&wanted, connection(2), request);
        assert_eq!(
            (joined(7), joined(8)),
            (Ok(Joined::Later), Ok(Joined::Later))
        );
        let mut commands = Vec::new();
        patterns.send(|command| {
            commands.push(command);
            Ok(())
        });
        assert_eq!(commands.len(), 2);
        let local = local_of(0, 0);
        assert!(patterns.handle_subscribed(local).is_none());
        let known = patterns
            .handle_subscribed(local)
            .expect("both have answered");
        assert_eq!(known.waiting, [(connection(2), 8)]);
        patterns.remove_if_unused(known.place);
        assert_eq!((patterns.len(), patterns.outgoing.len()), (0, 2));
    }

    /// A shard that knows the pattern delivers while another one has yet to answer, and whoever wanted it is gone by then.
    #[test]
    fn a_pattern_that_goes_answers_for_what_is_queued_by_it() {
        let (sender, reports) = std::sync::mpsc::sync_channel(10);
        let done = move |report| sender.try_send(report).expect("it comes once");
        let receipt = Arc::new(Receipt::new(Box::new(done)));
        let mut patterns = Patterns::new(ReactorId(0), 2, 10, 10);
        let wanted = pattern("a/*");
        let joined = patterns.join(&wanted, connection(1), 0);
        assert_eq!(joined, Ok(Joined::Later));
        let mut shard = Shard::new(1, ShardSettings::default());
        let mut effects = Vec::new();
        patterns.send(|command| {
            shard.handle_command(command, &mut effects);
            Ok(())
        });
        let topic = Topic::from_text("a/b").expect("a topic");
        let publication = Publication::new(Kind::Text, b"x", 0).with_receipt(receipt);
        let publish = Command::Publish {
            topic,
            publication: Arc::new(publication),
            origin: Origin::Detached,
        };
        shard.handle_command(publish, &mut effects);
        let Some(Effect::Deliver {
            local, publication, ..
        }) = effects.pop()
        else {
            panic!("it matches");
        };
        assert!(patterns.handle_subscribed(local).is_none());
        patterns.queue(local, publication).expect("it is there");
        patterns.forget(&wanted, connection(1));
        let known = patterns.handle_subscribed(local).expect("both answered");
        assert!(known.waiting.is_empty() && reports.try_recv().is_err());
        patterns.remove_if_unused(known.place);
        assert_eq!(reports.try_recv().map(|it| it.matched), Ok(0));
        // The list of this tick's deliveries still names its place.
        for place in patterns.begin_delivery() {
            assert!(patterns.take_delivery(place).is_none());
        }
        assert!(reports.try_recv().is_err());
    }

    #[test]
    fn patterns_wait_outside_while_the_hub_takes_nothing() {
        let mut patterns = Patterns::new(ReactorId(0), 2, 10, 3);
        for text in ["a/*", "b/*"] {
            let joined = patterns.join(&pattern(text), connection(1), 0);
            assert_eq!(joined, Ok(Joined::Later));
        }
        patterns.send(Err);
        let joined = patterns.join(&pattern("c/*"), connection(1), 0);
        assert_eq!(joined, Err(SubscribeError::HubFull));
        assert_eq!((patterns.len(), patterns.outgoing.len()), (2, 4));
        patterns.send(|_| Ok(()));
        let joined = patterns.join(&pattern("c/*"), connection(1), 0);
        assert_eq!(joined, Ok(Joined::Later));
    }
}
