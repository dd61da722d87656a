//! Topics of this reactor's connections, with their subscribers.

use std::sync::Arc;

use slab::Slab;

use super::members::{Audience, Extras, MemberPlaces, Members};
use super::subscribers::{Lists, Subscribers, Subscription, Taken};
use crate::dialect::Form;
use crate::hub::{Command, LocalTopic, Publication, ReactorId};
use crate::shrink::Shrink;
use crate::topic::Topic;
use crate::topic::table::TopicTable;

/// Lists of publications that are kept for the next ticks.
const SPARE_QUEUES_MAX: usize = 64;

/// Publications that a list which is kept has room for.
const SPARE_QUEUE_LEN_MAX: usize = 64;

/// Reason that a subscription was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeError {
    /// As many topics as there may be.
    TooManyTopics,
    /// The hub takes no commands at the moment.
    HubFull,
}

#[derive(Debug)]
struct LocalSubscribers {
    generation: u32,
    /// Where this tick's publications are in `queues`, or [`NO_QUEUE`].
    queue: u32,
    subscribers: Subscribers,
    extras_ref: ExtrasRef,
}

const NO_QUEUE: u32 = u32::MAX;

/// Bytes that a topic counts as besides its name: in this table, in the hub, and the list of its members.
const TOPIC_BYTES: usize = 448;

/// Bytes that a subscription of a connection of many topics counts as: with its connection, and among the topic's members.
pub const SUBSCRIPTION_BYTES: usize = 144;

fn bytes_of(topic: &Topic) -> usize {
    TOPIC_BYTES + topic.as_str().len()
}

// There may be as many topics as connections.
const _: () = assert!(size_of::<LocalSubscribers>() <= 16);

/// Where the rest of a topic is in `extras`, and two flags above that.
#[derive(Clone, Copy, Debug)]
struct ExtrasRef(u32);

impl ExtrasRef {
    /// The topic stands in `forsaken`.
    const FORSAKEN: u32 = 1 << 31;
    /// The hub has taken a command that tells of the topic.
    const KNOWN: u32 = 1 << 30;
    /// The bits of the place, all set where there is none.
    const PLACE: u32 = ExtrasRef::KNOWN - 1;
    const NONE: ExtrasRef = ExtrasRef(ExtrasRef::PLACE);

    fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    fn set(&mut self, flag: u32) {
        self.0 |= flag;
    }

    fn clear(&mut self, flag: u32) {
        self.0 &= !flag;
    }

    fn extras(self) -> Option<usize> {
        let place = self.0 & ExtrasRef::PLACE;
        (place != ExtrasRef::PLACE).then_some(place as usize)
    }

    fn set_extras(&mut self, place: Option<usize>) {
        let place = place.map_or(ExtrasRef::PLACE, |place| place as u32);
        self.0 = self.0 & !ExtrasRef::PLACE | place;
    }
}

/// Topics that a table may have: as many as there are places of extras.
const PLACES_MAX: usize = ExtrasRef::PLACE as usize;

/// The table. A topic is in it while it has subscribers here, and until the hub knows that it has none.
#[derive(Debug)]
pub struct Topics {
    reactor: ReactorId,
    topics_max: usize,
    /// Bytes that the topics of the table count as.
    bytes: usize,
    table: TopicTable<LocalSubscribers>,
    next_generation: u32,
    /// Topics with publications of this tick, in the order of the first one.
    delivering: Vec<u32>,
    /// Their publications.
    queues: Vec<Vec<Arc<Publication>>>,
    /// Empty lists, to be used again.
    spare_queues: Vec<Vec<Arc<Publication>>>,
    /// Topics without subscribers that the hub has not been told of.
    forsaken: Vec<u32>,
    /// Who subscribes to a topic with more than one subscriber.
    lists: Lists,
    /// What few topics have.
    extras: Slab<Extras>,
    extras_shrink: Shrink,
    /// Where their members stand.
    places: MemberPlaces,
    places_shrink: Shrink,
}

impl Topics {
    /// An empty table of at most `topics_max` topics.
    pub fn new(reactor: ReactorId, topics_max: usize) -> Topics {
        Topics {
            reactor,
            topics_max: topics_max.min(PLACES_MAX),
            bytes: 0,
            table: TopicTable::default(),
            next_generation: 0,
            delivering: Vec::new(),
            queues: Vec::new(),
            spare_queues: Vec::new(),
            forsaken: Vec::new(),
            lists: Lists::default(),
            extras: Slab::new(),
            extras_shrink: Shrink::default(),
            places: MemberPlaces::new(),
            places_shrink: Shrink::default(),
        }
    }

    /// Allows so many topics from now on. Those that are here stay.
    pub fn set_topics_max(&mut self, topics_max: usize) {
        self.topics_max = topics_max.min(PLACES_MAX);
    }

    /// Topics in the table.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Bytes that they count as.
    pub fn bytes(&self) -> usize {
        self.bytes
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
        let known = self.table.find(&topic);
        let local = match known {
            Some(place) if self.is_known(place) => {
                return Ok(self.add_subscriber(place, connection));
            }
            // The question for whose sake it is in the table may not have come to the hub yet.
            Some(place) => self.local(place),
            None => self.next_local()?,
        };
        let command = Command::Subscribe {
            topic: topic.clone(),
            reactor: self.reactor,
            local,
        };
        if !submit(command) {
            return Err(SubscribeError::HubFull);
        }
        let place = known.unwrap_or_else(|| self.add_topic(topic, local));
        self.set_known(place);
        Ok(self.add_subscriber(place, connection))
    }

    /// Adds a subscriber to a topic that is in the table.
    pub fn add_subscriber(&mut self, place: u32, connection: u32) -> Subscription {
        let state = self.table.get_mut(place);
        let subscribers = &mut state.expect("the topic was found, or added").subscribers;
        Subscription::new(place, self.lists.push(subscribers, connection))
    }

    /// Asks the hub about a topic for a future subscriber: it stays in the table until the answer has come, and
    /// [`end_join`](Topics::end_join) is called. Gives its place. `submit` says whether the hub has taken the question.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub fn begin_join(
        &mut self,
        topic: &Topic,
        submit: impl FnOnce(LocalTopic) -> Result<bool, SubscribeError>,
    ) -> Result<u32, SubscribeError> {
        let (place, is_taken) = match self.table.find(topic) {
            Some(place) => (place, submit(self.local(place))?),
            None => {
                let local = self.next_local()?;
                let is_taken = submit(local)?;
                (self.add_topic(topic.clone(), local), is_taken)
            }
        };
        if is_taken {
            self.set_known(place);
        }
        if let Some(extras) = self.extras_mut(place) {
            extras.joins += 1;
        }
        Ok(place)
    }

    /// The hub has answered. Whoever takes up the topic has to do so before.
    pub fn end_join(&mut self, place: u32) {
        if let Some(extras) = self.extras_mut(place) {
            extras.joins -= 1;
        }
        self.drop_extras_if_empty(place);
        self.forsake_if_unused(place);
    }

    /// Adds a connection of many topics, and its best form; gives the number of its membership.
    pub fn add_member(&mut self, place: u32, connection: u32, form: Form) -> u32 {
        let mut places = std::mem::take(&mut self.places);
        let id = match self.extras_mut(place) {
            Some(extras) => extras.members.push(connection, &mut places),
            None => u32::MAX,
        };
        self.places = places;
        self.enter_audience(place, form);
        id
    }

    /// Takes a member away.
    pub fn remove_member(&mut self, place: u32, id: u32, form: Form) {
        let mut places = std::mem::take(&mut self.places);
        if let Some(extras) = self.extras(place) {
            extras.members.remove(id, &mut places);
        }
        self.places_shrink.shrink(&mut places);
        self.places = places;
        self.leave_audience(place, form);
        self.drop_extras_if_empty(place);
        self.forsake_if_unused(place);
    }

    /// Takes a topic's connections of many topics out, to be walked. To be given back by
    /// [`put_back_members`](Topics::put_back_members).
    pub fn take_members(&mut self, place: u32) -> Members {
        match self.extras(place) {
            Some(extras) => std::mem::take(&mut extras.members),
            None => Members::default(),
        }
    }

    /// Gives the members back.
    pub fn put_back_members(&mut self, place: u32, members: Members) {
        if let Some(extras) = self.extras(place) {
            extras.members = members;
        }
    }

    fn extras(&mut self, place: u32) -> Option<&mut Extras> {
        let extras = self.table.get_mut(place)?.extras_ref.extras()?;
        self.extras.get_mut(extras)
    }

    /// Those of the topic, which has some from here on.
    fn extras_mut(&mut self, place: u32) -> Option<&mut Extras> {
        let state = self.table.get_mut(place)?;
        let extras = match state.extras_ref.extras() {
            Some(extras) => extras,
            None => {
                let extras = self.extras.insert(Extras::default());
                state.extras_ref.set_extras(Some(extras));
                extras
            }
        };
        self.extras.get_mut(extras)
    }

    fn drop_extras_if_empty(&mut self, place: u32) {
        if !self.extras(place).is_some_and(|extras| extras.is_empty()) {
            return;
        }
        if let Some(state) = self.table.get_mut(place)
            && let Some(extras) = state.extras_ref.extras()
        {
            self.extras.remove(extras);
            self.extras_shrink.shrink(&mut self.extras);
            state.extras_ref.set_extras(None);
        }
    }

    /// Whether the hub has been told of the topic for sure. It may not have where it is only asked about.
    fn is_known(&mut self, place: u32) -> bool {
        let state = self.table.get_mut(place);
        state.is_some_and(|it| it.extras_ref.has(ExtrasRef::KNOWN))
    }

    fn set_known(&mut self, place: u32) {
        if let Some(state) = self.table.get_mut(place) {
            state.extras_ref.set(ExtrasRef::KNOWN);
        }
    }

    fn is_unused(&mut self, place: u32) -> bool {
        let has_subscribers = |it: &mut LocalSubscribers| {
            !it.subscribers.is_empty() || it.extras_ref.extras().is_some()
        };
        !self.table.get_mut(place).is_some_and(has_subscribers)
    }

    fn forsake_if_unused(&mut self, place: u32) {
        if self.is_unused(place)
            && let Some(state) = self.table.get_mut(place)
            && !state.extras_ref.has(ExtrasRef::FORSAKEN)
        {
            state.extras_ref.set(ExtrasRef::FORSAKEN);
            self.forsaken.push(place);
        }
    }

    /// What a topic that is in the table is called.
    fn local(&mut self, place: u32) -> LocalTopic {
        let state = self.table.get_mut(place);
        LocalTopic {
            index: place,
            generation: state.expect("the topic was found").generation,
        }
    }

    /// What the next topic will be called.
    fn next_local(&self) -> Result<LocalTopic, SubscribeError> {
        if self.table.len() >= self.topics_max {
            return Err(SubscribeError::TooManyTopics);
        }
        Ok(LocalTopic {
            index: self.table.vacant_place(),
            generation: self.next_generation,
        })
    }

    fn add_topic(&mut self, topic: Topic, local: LocalTopic) -> u32 {
        self.next_generation = local.generation.wrapping_add(1);
        let state = LocalSubscribers {
            generation: local.generation,
            queue: NO_QUEUE,
            subscribers: Subscribers::NONE,
            extras_ref: ExtrasRef::NONE,
        };
        self.bytes += bytes_of(&topic);
        let place = self.table.insert(topic, state);
        debug_assert_eq!(place, local.index);
        place
    }

    /// Takes a subscriber away. Another one may move to its place: that connection and its new subscription are
    /// returned.
    pub fn unsubscribe(&mut self, subscription: Subscription) -> Option<(u32, Subscription)> {
        let topic = subscription.topic();
        let state = self.table.get_mut(topic)?;
        let place = subscription.place as usize;
        let moved = self.lists.swap_remove(&mut state.subscribers, place);
        if moved.is_none() && state.subscribers.is_empty() {
            self.forsake_if_unused(topic);
        }
        moved.map(|moved| (moved, subscription))
    }

    /// Tells the hub of topics without subscribers, while `submit` takes it.
    pub fn retire(&mut self, mut submit: impl FnMut(Command) -> bool) {
        let mut forsaken = std::mem::take(&mut self.forsaken);
        forsaken.retain(|&place| {
            let is_unused = self.is_unused(place);
            let Some(state) = self.table.get_mut(place) else {
                return false;
            };
            if !is_unused {
                state.extras_ref.clear(ExtrasRef::FORSAKEN);
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
            if let Some((topic, _)) = self.table.remove(place) {
                self.bytes -= bytes_of(&topic);
            }
            false
        });
        self.forsaken = forsaken;
    }

    /// Whether topics wait to be retired.
    pub fn has_forsaken(&self) -> bool {
        !self.forsaken.is_empty()
    }

    /// The topic at a place.
    pub fn topic_at(&self, place: u32) -> Option<&Topic> {
        self.table.topic(place)
    }

    /// Number of a topic's subscribers here, in every dialect.
    pub fn subscriber_count(&self, topic: &Topic) -> usize {
        let place = self.table.find(topic);
        let Some((_, state)) = place.and_then(|place| self.table.get(place)) else {
            return 0;
        };
        let extras = state.extras_ref.extras().and_then(|it| self.extras.get(it));
        let members = extras.map_or(0, |extras| extras.members.connections().len());
        self.lists.len(state.subscribers) + members
    }

    /// The topic of a subscription.
    pub fn topic(&self, subscription: Subscription) -> &Topic {
        self.table
            .topic(subscription.topic())
            .expect("a topic with a subscriber is in the table")
    }

    /// The subscribers that take compressed frames, if there are such.
    pub fn audience(&mut self, topic: u32) -> Option<&mut Audience> {
        let extras = self.extras(topic)?;
        (!extras.audience.is_empty()).then_some(&mut extras.audience)
    }

    /// Counts a subscriber that takes frames of this form best.
    pub fn enter_audience(&mut self, topic: u32, form: Form) {
        if form.is_compressed()
            && let Some(extras) = self.extras_mut(topic)
        {
            extras.audience.enter(form);
        }
    }

    /// Counts one less; true if it was the last that could be in the topic's cohort.
    pub fn leave_audience(&mut self, topic: u32, form: Form) -> bool {
        let audience = self.audience(topic).filter(|_| form.is_compressed());
        let is_last = audience.is_some_and(|audience| audience.leave(form));
        self.drop_extras_if_empty(topic);
        is_last
    }

    /// Queues a publication until this tick's end, if the topic is here.
    ///
    /// # Errors
    /// Gives the publication back then.
    pub fn queue(
        &mut self,
        local: LocalTopic,
        publication: Arc<Publication>,
    ) -> Result<(), Arc<Publication>> {
        let state = self.table.get_mut(local.index);
        let Some(state) = state.filter(|state| state.generation == local.generation) else {
            return Err(publication);
        };
        if state.queue == NO_QUEUE {
            state.queue = self.queues.len() as u32;
            self.queues
                .push(self.spare_queues.pop().unwrap_or_default());
            self.delivering.push(local.index);
        }
        self.queues[state.queue as usize].push(publication);
        Ok(())
    }

    /// Topics with queued publications, in the order of the first one. To be given back by
    /// [`end_delivery`](Topics::end_delivery).
    pub fn begin_delivery(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.delivering)
    }

    /// Takes a topic's queued publications and subscribers out, to be walked. To be given back by
    /// [`put_back`](Topics::put_back).
    pub fn take_delivery(&mut self, topic: u32) -> (Vec<Arc<Publication>>, Taken) {
        let Some(state) = self.table.get_mut(topic) else {
            return (Vec::new(), Taken::Nobody);
        };
        let queue = std::mem::replace(&mut state.queue, NO_QUEUE);
        let queued = self.queues.get_mut(queue as usize);
        (
            queued.map(std::mem::take).unwrap_or_default(),
            self.lists.take(state.subscribers),
        )
    }

    /// Whether the topic of this name of the hub's is still here.
    pub fn is_here(&mut self, local: LocalTopic) -> bool {
        let state = self.table.get_mut(local.index);
        state.is_some_and(|state| state.generation == local.generation)
    }

    /// Whether publications are queued for a topic.
    pub fn has_queued(&mut self, topic: u32) -> bool {
        let queue = self.table.get_mut(topic).map_or(NO_QUEUE, |it| it.queue);
        let queued = self.queues.get(queue as usize);
        queued.is_some_and(|queued| !queued.is_empty())
    }

    /// Gives the lists back, for their memory.
    pub fn put_back(&mut self, mut queued: Vec<Arc<Publication>>, subscribers: Taken) {
        queued.clear();
        if queued.capacity() <= SPARE_QUEUE_LEN_MAX && self.spare_queues.len() < SPARE_QUEUES_MAX {
            self.spare_queues.push(queued);
        }
        self.lists.put_back(subscribers);
    }

    /// Gives the list of topics back for its memory.
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
mod tests;
