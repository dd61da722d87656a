//! The topics that connections of this reactor subscribe to, and which connections those are.

use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;

use slab::Slab;

use crate::dialect::{Form, Heat};
use crate::http::topic::Topic;
use crate::hub::{Command, LocalTopic, Publication, ReactorId};
use crate::topic_table::TopicTable;

/// Lists of publications that are kept for the next ticks.
const SPARE_QUEUES_MAX: usize = 64;

/// Publications that a list which is kept has room for.
const SPARE_QUEUE_LEN_MAX: usize = 64;

/// A connection's subscription: the topic's place in the table, and the connection's place among its subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// One more than the place, so that no subscription takes no room of its own.
    topic_number: NonZeroU32,
    place: u32,
}

impl Subscription {
    fn new(topic: u32, place: usize) -> Subscription {
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

/// Why a subscription was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeError {
    /// As many topics as there may be.
    TooManyTopics,
    /// The hub takes no commands at the moment.
    HubFull,
}

/// Slab indexes of the connections that subscribe to a topic. Most topics of very many have one.
#[derive(Debug, Default)]
pub enum Subscribers {
    /// Nobody.
    #[default]
    None,
    /// One.
    One(u32),
    /// Any number, in a box because there may be a million topics with one subscriber each.
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
    fn push(&mut self, connection: u32) {
        match self {
            Subscribers::None => *self = Subscribers::One(connection),
            Subscribers::One(first) => {
                *self = Subscribers::Many(Box::new(vec![*first, connection]));
            }
            Subscribers::Many(connections) => connections.push(connection),
        }
    }

    /// Takes one away; the last one moves to its place.
    fn swap_remove(&mut self, place: usize) {
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

/// Those of a topic's subscribers that take compressed frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Audience {
    /// All of them.
    deflating: u32,
    /// Those that can be in the topic's cohort.
    pub keeping_context: u32,
    /// How much they have been sent of late.
    pub heat: Heat,
}

#[derive(Debug)]
struct TopicState {
    generation: u32,
    /// Where this tick's publications are in `queues`, or [`NO_QUEUE`].
    queue: u32,
    subscribers: Subscribers,
    /// Where its audience is in `audiences`, or [`NO_AUDIENCE`].
    audience: u32,
    /// It stands in `forsaken`.
    forsaken: bool,
}

const NO_QUEUE: u32 = u32::MAX;
const NO_AUDIENCE: u32 = u32::MAX;

// There may be as many topics as connections.
const _: () = assert!(size_of::<TopicState>() <= 32);

/// The table. A topic is in it while it has subscribers here, and until the hub knows that it has none.
#[derive(Debug)]
pub struct Topics {
    reactor: ReactorId,
    topics_max: usize,
    table: TopicTable<TopicState>,
    next_generation: u32,
    /// Topics with publications of this tick, in the order of the first one.
    delivering: Vec<u32>,
    /// Their publications.
    queues: Vec<Vec<Arc<Publication>>>,
    /// Empty lists, to be used again.
    spare_queues: Vec<Vec<Arc<Publication>>>,
    /// Topics without subscribers that the hub has not been told of.
    forsaken: Vec<u32>,
    /// Those of the topics that have one.
    audiences: Slab<Audience>,
}

impl Topics {
    /// An empty table of at most `topics_max` topics.
    pub fn new(reactor: ReactorId, topics_max: usize) -> Topics {
        Topics {
            reactor,
            topics_max,
            table: TopicTable::default(),
            next_generation: 0,
            delivering: Vec::new(),
            queues: Vec::new(),
            spare_queues: Vec::new(),
            forsaken: Vec::new(),
            audiences: Slab::new(),
        }
    }

    /// Topics in the table.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Adds a subscriber. `submit` takes a command for the hub, or does not.
    ///
    /// The command is in the hub's queue when this returns, ahead of every publish that its subscriber can cause or
    /// hear of; so a handshake that is answered afterwards misses nothing.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub fn subscribe(
        &mut self,
        topic: Topic,
        connection: u32,
        submit: impl FnOnce(Command) -> bool,
    ) -> Result<Subscription, SubscribeError> {
        let place = match self.table.find(&topic) {
            Some(place) => place,
            None => self.add_topic(topic, submit)?,
        };
        let state = self.table.get_mut(place);
        let subscribers = &mut state.expect("the topic was found, or added").subscribers;
        subscribers.push(connection);
        Ok(Subscription::new(place, subscribers.len() - 1))
    }

    fn add_topic(
        &mut self,
        topic: Topic,
        submit: impl FnOnce(Command) -> bool,
    ) -> Result<u32, SubscribeError> {
        if self.table.len() >= self.topics_max {
            return Err(SubscribeError::TooManyTopics);
        }
        let generation = self.next_generation;
        let local = LocalTopic {
            index: self.table.vacant_place(),
            generation,
        };
        if !submit(Command::Subscribe {
            topic: topic.clone(),
            reactor: self.reactor,
            local,
        }) {
            return Err(SubscribeError::HubFull);
        }
        self.next_generation = generation.wrapping_add(1);
        let state = TopicState {
            generation,
            queue: NO_QUEUE,
            subscribers: Subscribers::None,
            audience: NO_AUDIENCE,
            forsaken: false,
        };
        let place = self.table.insert(topic, state);
        debug_assert_eq!(place, local.index);
        Ok(place)
    }

    /// Takes a subscriber away. Another one may move to its place: that connection and its new subscription are
    /// returned.
    pub fn unsubscribe(&mut self, subscription: Subscription) -> Option<(u32, Subscription)> {
        let topic = subscription.topic();
        let state = self.table.get_mut(topic)?;
        let place = subscription.place as usize;
        state.subscribers.swap_remove(place);
        if state.subscribers.is_empty() && !state.forsaken {
            state.forsaken = true;
            self.forsaken.push(topic);
        }
        state
            .subscribers
            .get(place)
            .map(|&moved| (moved, subscription))
    }

    /// Tells the hub of topics that lost their last subscriber, as far as `submit` takes the commands.
    pub fn retire(&mut self, mut submit: impl FnMut(Command) -> bool) {
        let mut forsaken = std::mem::take(&mut self.forsaken);
        forsaken.retain(|&place| {
            let Some(state) = self.table.get_mut(place) else {
                return false;
            };
            if !state.subscribers.is_empty() {
                state.forsaken = false;
                return false;
            }
            let local = LocalTopic {
                index: place,
                generation: state.generation,
            };
            let Some(topic) = self.table.topic(place).cloned() else {
                return false;
            };
            if !submit(Command::Unsubscribe {
                topic,
                reactor: self.reactor,
                local,
            }) {
                return true;
            }
            self.table.remove(place);
            false
        });
        self.forsaken = forsaken;
    }

    /// Whether topics wait to be retired.
    pub fn has_forsaken(&self) -> bool {
        !self.forsaken.is_empty()
    }

    /// The topic of a subscription.
    pub fn topic(&self, subscription: Subscription) -> &Topic {
        self.table
            .topic(subscription.topic())
            .expect("a topic with a subscriber is in the table")
    }

    /// The subscribers that take compressed frames, if there are such.
    pub fn audience(&mut self, topic: u32) -> Option<&mut Audience> {
        match self.table.get_mut(topic)?.audience {
            NO_AUDIENCE => None,
            audience => self.audiences.get_mut(audience as usize),
        }
    }

    /// Counts a subscriber that takes frames of this form best.
    pub fn enter_audience(&mut self, topic: u32, form: Form) {
        let Some(state) = self.table.get_mut(topic).filter(|_| form.is_compressed()) else {
            return;
        };
        if state.audience == NO_AUDIENCE {
            state.audience = self.audiences.insert(Audience::default()) as u32;
        }
        let audience = &mut self.audiences[state.audience as usize];
        audience.deflating += 1;
        audience.keeping_context += u32::from(form == Form::Cohort);
    }

    /// Counts one less; true if it was the last that could be in the topic's cohort.
    pub fn leave_audience(&mut self, topic: u32, form: Form) -> bool {
        let Some(audience) = self.audience(topic).filter(|_| form.is_compressed()) else {
            return false;
        };
        audience.deflating -= 1;
        audience.keeping_context -= u32::from(form == Form::Cohort);
        let (is_empty, is_last) = (audience.deflating == 0, audience.keeping_context == 0);
        if let Some(state) = self.table.get_mut(topic).filter(|_| is_empty) {
            self.audiences.remove(state.audience as usize);
            state.audience = NO_AUDIENCE;
        }
        is_last && form == Form::Cohort
    }

    /// Queues a publication for delivery at the end of this tick's mail. One for a topic that is gone is dropped:
    /// nobody here subscribes to it any more.
    pub fn queue(&mut self, local: LocalTopic, publication: Arc<Publication>) {
        let Some(state) = self.table.get_mut(local.index) else {
            return;
        };
        if state.generation != local.generation {
            return;
        }
        if state.queue == NO_QUEUE {
            state.queue = self.queues.len() as u32;
            self.queues
                .push(self.spare_queues.pop().unwrap_or_default());
            self.delivering.push(local.index);
        }
        self.queues[state.queue as usize].push(publication);
    }

    /// Topics with queued publications, in the order of the first one. To be given back by
    /// [`end_delivery`](Topics::end_delivery).
    pub fn begin_delivery(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.delivering)
    }

    /// The publications queued for a topic, and its subscribers, taken out of the table for as long as they are
    /// walked. To be given back by [`put_back`](Topics::put_back).
    pub fn take_delivery(&mut self, topic: u32) -> (Vec<Arc<Publication>>, Subscribers) {
        let Some(state) = self.table.get_mut(topic) else {
            return (Vec::new(), Subscribers::None);
        };
        let queue = std::mem::replace(&mut state.queue, NO_QUEUE);
        let queued = self.queues.get_mut(queue as usize);
        (
            queued.map(std::mem::take).unwrap_or_default(),
            std::mem::take(&mut state.subscribers),
        )
    }

    /// Gives the lists back, so that their memory is used again.
    pub fn put_back(
        &mut self,
        topic: u32,
        mut queued: Vec<Arc<Publication>>,
        subscribers: Subscribers,
    ) {
        queued.clear();
        if queued.capacity() <= SPARE_QUEUE_LEN_MAX && self.spare_queues.len() < SPARE_QUEUES_MAX {
            self.spare_queues.push(queued);
        }
        if let Some(state) = self.table.get_mut(topic) {
            debug_assert!(state.subscribers.is_empty() && state.queue == NO_QUEUE);
            state.subscribers = subscribers;
        }
    }

    /// Gives the list of topics back, so that its memory is used again.
    pub fn end_delivery(&mut self, mut delivering: Vec<u32>) {
        debug_assert!(
            self.delivering.is_empty() && self.queues.iter().all(Vec::is_empty),
            "nothing is queued while deliveries are written"
        );
        self.queues.clear();
        delivering.clear();
        self.delivering = delivering;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Kind;

    fn topic(name: &str) -> Topic {
        Topic::from_text(name).expect("a valid topic")
    }

    fn table() -> Topics {
        Topics::new(ReactorId(0), 2)
    }

    #[test]
    fn the_hub_hears_of_the_first_and_the_last_subscriber_only() {
        let mut topics = table();
        let mut commands = Vec::new();
        let mut submit = |command| {
            commands.push(format!("{command:?}").split(' ').next().map(str::to_owned));
            true
        };
        let first = topics.subscribe(topic("a"), 10, &mut submit).expect("room");
        let second = topics.subscribe(topic("a"), 11, &mut submit).expect("room");
        assert_eq!(
            topics.unsubscribe(first),
            Some((11, first)),
            "the last one moves to the free place"
        );
        assert_ne!(first, second);
        topics.retire(&mut submit);
        topics.unsubscribe(first);
        topics.retire(&mut submit);
        assert_eq!(topics.len(), 0);
        assert_eq!(
            commands,
            [Some("Subscribe".to_owned()), Some("Unsubscribe".to_owned())]
        );
    }

    #[test]
    fn a_full_hub_changes_nothing_and_is_asked_again() {
        let mut topics = table();
        assert_eq!(
            topics.subscribe(topic("a"), 1, |_| false),
            Err(SubscribeError::HubFull)
        );
        assert_eq!(topics.len(), 0);
        let subscription = topics.subscribe(topic("a"), 1, |_| true).expect("room");
        topics.unsubscribe(subscription);
        topics.retire(|_| false);
        assert!(topics.has_forsaken());
        let again = topics
            .subscribe(topic("a"), 2, |_| panic!("the hub still knows it"))
            .expect("room");
        topics.retire(|_| panic!("it has a subscriber again"));
        topics.unsubscribe(again);
        topics.retire(|_| true);
        assert_eq!(topics.len(), 0);
    }

    #[test]
    fn an_audience_lasts_as_long_as_somebody_is_in_it() {
        let mut topics = table();
        let first = topics.subscribe(topic("a"), 1, |_| true).expect("room");
        let place = first.topic();
        topics.enter_audience(place, Form::Raw);
        assert!(topics.audience(place).is_none());
        topics.enter_audience(place, Form::Deflated);
        topics.enter_audience(place, Form::Cohort);
        assert_eq!(topics.audience(place).expect("two").keeping_context, 1);
        assert!(topics.leave_audience(place, Form::Cohort));
        assert!(!topics.leave_audience(place, Form::Deflated));
        assert!(topics.audience(place).is_none() && topics.audiences.is_empty());
    }

    #[test]
    fn topics_are_bounded() {
        let mut topics = table();
        topics.subscribe(topic("a"), 1, |_| true).expect("room");
        topics.subscribe(topic("b"), 1, |_| true).expect("room");
        assert_eq!(
            topics.subscribe(topic("c"), 1, |_| true),
            Err(SubscribeError::TooManyTopics)
        );
        topics
            .subscribe(topic("a"), 2, |_| true)
            .expect("it is there already");
    }

    #[test]
    fn a_publication_for_an_earlier_use_of_the_place_is_dropped() {
        let mut topics = table();
        let mut locals = Vec::new();
        let mut submit = |command| {
            if let Command::Subscribe { local, .. } = command {
                locals.push(local);
            }
            true
        };
        let subscription = topics.subscribe(topic("a"), 1, &mut submit).expect("room");
        topics.unsubscribe(subscription);
        topics.retire(&mut submit);
        topics.subscribe(topic("b"), 1, &mut submit).expect("room");
        assert_eq!(locals[0].index, locals[1].index);
        let publication = Arc::new(Publication::new(Kind::Text, b"x", 0));
        topics.queue(locals[0], Arc::clone(&publication));
        assert!(topics.begin_delivery().is_empty());
        topics.queue(locals[1], publication);
        assert_eq!(topics.begin_delivery(), [locals[1].index]);
    }
}
