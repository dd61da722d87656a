//! The topics that connections of this reactor subscribe to, and which connections those are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use slab::Slab;

use crate::http::topic::Topic;
use crate::hub::{Command, LocalTopic, Publication, ReactorId};

/// A connection's subscription: the topic's place in the table, and the connection's place among its subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    topic: u32,
    place: u32,
}

/// Why a subscription was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeError {
    /// As many topics as there may be.
    TooManyTopics,
    /// The hub takes no commands at the moment.
    HubFull,
}

#[derive(Debug)]
struct TopicEntry {
    topic: Topic,
    generation: u32,
    /// Slab indexes of connections.
    subscribers: Vec<u32>,
    /// Publications of this tick.
    queued: Vec<Arc<Publication>>,
    /// It stands in `forsaken`.
    forsaken: bool,
}

/// The table. A topic is in it while it has subscribers here, and until the hub knows that it has none.
#[derive(Debug)]
pub struct Topics {
    reactor: ReactorId,
    topics_max: usize,
    entries: Slab<TopicEntry>,
    by_name: HashMap<Topic, u32>,
    next_generation: u32,
    /// Topics with publications of this tick, in the order of the first one.
    delivering: Vec<u32>,
    /// Topics without subscribers that the hub has not been told of.
    forsaken: Vec<u32>,
}

impl Topics {
    /// An empty table of at most `topics_max` topics.
    pub fn new(reactor: ReactorId, topics_max: usize) -> Topics {
        Topics {
            reactor,
            topics_max,
            entries: Slab::new(),
            by_name: HashMap::new(),
            next_generation: 0,
            delivering: Vec::new(),
            forsaken: Vec::new(),
        }
    }

    /// Topics in the table.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
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
        let index = match self.by_name.entry(topic) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(_) if self.entries.len() >= self.topics_max => {
                return Err(SubscribeError::TooManyTopics);
            }
            Entry::Vacant(vacant) => {
                let topic = vacant.key().clone();
                let generation = self.next_generation;
                let local = LocalTopic {
                    index: self.entries.vacant_key() as u32,
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
                let (subscribers, queued) = (Vec::new(), Vec::new());
                let entry = TopicEntry {
                    topic,
                    generation,
                    subscribers,
                    queued,
                    forsaken: false,
                };
                let index = self.entries.insert(entry) as u32;
                debug_assert_eq!(index, local.index);
                *vacant.insert(index)
            }
        };
        let subscribers = &mut self.entries[index as usize].subscribers;
        subscribers.push(connection);
        Ok(Subscription {
            topic: index,
            place: subscribers.len() as u32 - 1,
        })
    }

    /// Takes a subscriber away. Another one may move to its place: that connection and its new subscription are
    /// returned.
    pub fn unsubscribe(&mut self, subscription: Subscription) -> Option<(u32, Subscription)> {
        let entry = &mut self.entries[subscription.topic as usize];
        let place = subscription.place as usize;
        entry.subscribers.swap_remove(place);
        let len = entry.subscribers.len();
        if entry.subscribers.capacity() > 64 && len < entry.subscribers.capacity() / 4 {
            entry.subscribers.shrink_to(len * 2);
        }
        if len == 0 && !entry.forsaken {
            entry.forsaken = true;
            self.forsaken.push(subscription.topic);
        }
        entry
            .subscribers
            .get(place)
            .map(|&moved| (moved, subscription))
    }

    /// Tells the hub of topics that lost their last subscriber, as far as `submit` takes the commands.
    pub fn retire(&mut self, mut submit: impl FnMut(Command) -> bool) {
        let mut forsaken = std::mem::take(&mut self.forsaken);
        forsaken.retain(|&index| {
            let entry = &mut self.entries[index as usize];
            if !entry.subscribers.is_empty() {
                entry.forsaken = false;
                return false;
            }
            let local = LocalTopic {
                index,
                generation: entry.generation,
            };
            let topic = entry.topic.clone();
            if !submit(Command::Unsubscribe {
                topic,
                reactor: self.reactor,
                local,
            }) {
                return true;
            }
            let entry = self.entries.remove(index as usize);
            self.by_name.remove(&entry.topic);
            false
        });
        self.forsaken = forsaken;
        self.shrink();
    }

    /// Whether topics wait to be retired.
    pub fn has_forsaken(&self) -> bool {
        !self.forsaken.is_empty()
    }

    /// The topic of a subscription.
    pub fn topic(&self, subscription: Subscription) -> &Topic {
        &self.entries[subscription.topic as usize].topic
    }

    /// Queues a publication for delivery at the end of this tick's mail. One for a topic that is gone is dropped:
    /// nobody here subscribes to it any more.
    pub fn queue(&mut self, local: LocalTopic, publication: Arc<Publication>) {
        let Some(entry) = self.entries.get_mut(local.index as usize) else {
            return;
        };
        if entry.generation != local.generation {
            return;
        }
        if entry.queued.is_empty() {
            self.delivering.push(local.index);
        }
        entry.queued.push(publication);
    }

    /// Topics with queued publications, in the order of the first one. To be given back by
    /// [`end_delivery`](Topics::end_delivery).
    pub fn begin_delivery(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.delivering)
    }

    /// The publications queued for a topic, and its subscribers, taken out of the table for as long as they are
    /// walked. To be given back by [`put_back`](Topics::put_back).
    pub fn take_delivery(&mut self, topic: u32) -> (Vec<Arc<Publication>>, Vec<u32>) {
        match self.entries.get_mut(topic as usize) {
            Some(entry) => (
                std::mem::take(&mut entry.queued),
                std::mem::take(&mut entry.subscribers),
            ),
            None => (Vec::new(), Vec::new()),
        }
    }

    /// Gives the lists back, so that their memory is used again.
    pub fn put_back(
        &mut self,
        topic: u32,
        mut queued: Vec<Arc<Publication>>,
        subscribers: Vec<u32>,
    ) {
        queued.clear();
        if queued.capacity() > 64 {
            queued = Vec::new();
        }
        if let Some(entry) = self.entries.get_mut(topic as usize) {
            debug_assert!(entry.subscribers.is_empty() && entry.queued.is_empty());
            entry.queued = queued;
            entry.subscribers = subscribers;
        }
    }

    /// Gives the list of topics back, so that its memory is used again.
    pub fn end_delivery(&mut self, mut delivering: Vec<u32>) {
        debug_assert!(
            self.delivering.is_empty(),
            "nothing is queued while deliveries are written"
        );
        delivering.clear();
        self.delivering = delivering;
    }

    /// Gives memory back once most topics are gone.
    fn shrink(&mut self) {
        if self.by_name.capacity() > 1024 && self.by_name.len() < self.by_name.capacity() / 4 {
            self.by_name.shrink_to(self.by_name.len() * 2);
            self.entries.shrink_to_fit();
        }
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
