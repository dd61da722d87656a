//! The table of topics and patterns with subscriptions of the program.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::queue::Queue;
use super::{OnReply, Refused, SUBSCRIPTIONS_MAX, local_of};
use crate::hub::LocalTopic;
use crate::topic::{Pattern, Topic};

/// Target of subscriptions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Topic(Topic),
    Pattern(Pattern),
}

/// Subscriptions of one topic or pattern.
#[derive(Debug)]
struct Entry {
    name: Name,
    generation: u32,
    /// Numbers of the subscriptions.
    subscribers: Vec<u32>,
}

#[derive(Debug)]
struct Subscriber {
    /// Place of its topic or pattern.
    entry: usize,
    queue: Arc<Queue>,
    /// The hub has answered, so what comes is for it.
    is_live: bool,
}

#[derive(Default)]
pub(super) struct Table {
    entries: Slab<Entry>,
    places: HashMap<Name, usize>,
    subscribers: Slab<Subscriber>,
    next_generation: u32,
    /// Topics and patterns that nobody subscribes to here. The hub has yet to be told of them.
    pub forsaken: Vec<(Name, LocalTopic)>,
    pub questions: HashMap<u64, Box<OnReply>>,
    pub next_question: u64,
    is_closed: bool,
}

impl Table {
    /// Adds a subscription, which is not live yet. Gives its number and the name of its topic or pattern for the hub.
    pub fn add(&mut self, name: Name, queue: &Arc<Queue>) -> Result<(u32, LocalTopic), Refused> {
        if self.is_closed {
            return Err(Refused::HubFull);
        }
        if self.subscribers.len() >= SUBSCRIPTIONS_MAX {
            return Err(Refused::TooMany);
        }
        let place = match self.places.get(&name) {
            Some(&place) => place,
            None => {
                self.next_generation = self.next_generation.wrapping_add(1);
                let place = self.entries.insert(Entry {
                    name: name.clone(),
                    generation: self.next_generation,
                    subscribers: Vec::new(),
                });
                self.places.insert(name, place);
                place
            }
        };
        let number = self.subscribers.insert(Subscriber {
            entry: place,
            queue: Arc::clone(queue),
            is_live: false,
        });
        self.entries[place].subscribers.push(number as u32);
        Ok((number as u32, self.local(place)))
    }

    fn local(&self, place: usize) -> LocalTopic {
        let entry = &self.entries[place];
        let is_pattern = matches!(entry.name, Name::Pattern(_));
        local_of(place, entry.generation, is_pattern)
    }

    /// Removes a subscription. The last one of its topic or pattern leaves that to be told.
    pub fn remove(&mut self, number: u32) {
        let Some(subscriber) = self.subscribers.try_remove(number as usize) else {
            return;
        };
        let (place, local) = (subscriber.entry, self.local(subscriber.entry));
        let entry = &mut self.entries[place];
        entry.subscribers.retain(|other| *other != number);
        if entry.subscribers.is_empty() {
            let entry = self.entries.remove(place);
            self.places.remove(&entry.name);
            self.forsaken.push((entry.name, local));
        }
    }

    /// The hub has answered a subscription. None: it is gone, or had its answer.
    pub fn make_live(&mut self, number: u32) -> Option<Arc<Queue>> {
        let subscriber = self.subscribers.get_mut(number as usize)?;
        (!std::mem::replace(&mut subscriber.is_live, true)).then(|| Arc::clone(&subscriber.queue))
    }

    /// The queues that a publication of the hub's is for.
    pub fn live_queues(&self, local: LocalTopic) -> Vec<Arc<Queue>> {
        let place = (local.index & !LocalTopic::PATTERN_BIT) as usize;
        let entry = self.entries.get(place);
        let Some(entry) = entry.filter(|entry| entry.generation == local.generation) else {
            return Vec::new();
        };
        let subscribers = entry.subscribers.iter();
        subscribers
            .filter_map(|number| self.subscribers.get(*number as usize))
            .filter(|subscriber| subscriber.is_live)
            .map(|subscriber| Arc::clone(&subscriber.queue))
            .collect()
    }

    /// Number of subscriptions to a topic.
    pub fn subscribers(&self, topic: &Topic) -> usize {
        let place = self.places.get(&Name::Topic(topic.clone()));
        place.map_or(0, |&place| self.entries[place].subscribers.len())
    }

    /// Takes no more. Gives the queues of all subscriptions, and whoever waits for answers.
    pub fn close(&mut self) -> (Vec<Arc<Queue>>, HashMap<u64, Box<OnReply>>) {
        self.is_closed = true;
        let subscribers = self.subscribers.iter();
        let queues = subscribers.map(|(_, subscriber)| Arc::clone(&subscriber.queue));
        (queues.collect(), std::mem::take(&mut self.questions))
    }
}
