//! Subscriptions of a connection.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use slab::Slab;

use super::subscribers::Subscription;
use super::subscriptions::{Membership, Subscriptions};
use crate::dialect::{Form, Target};
use crate::shrink::Shrink;
use crate::topic::Topic;

/// Subscriptions of a connection in eight bytes: there may be a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// One more than the topic's place; 0 where the connection does not have one topic for life.
    topic_number: u32,
    /// The place among the topic's subscribers, or of the many subscriptions in their slab, or [`NOTHING`].
    place: u32,
}

// It stands in every slot.
const _: () = assert!(size_of::<Subscribed>() == 8);

/// No place in the slab of many subscriptions.
const NOTHING: u32 = u32::MAX;

/// Kind of a [`Subscribed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribedKind {
    /// Nothing, or not yet.
    None,
    /// One topic, for as long as it lives.
    One(Subscription),
    /// Many, which stand at this place in [`MultiSubscriptions`].
    Many(u32),
}

impl Subscribed {
    /// Nothing, or not yet.
    pub const NONE: Subscribed = Subscribed {
        topic_number: 0,
        place: NOTHING,
    };

    /// Kind of it.
    pub fn kind(self) -> SubscribedKind {
        match Subscription::from_parts(self.topic_number, self.place) {
            Some(subscription) => SubscribedKind::One(subscription),
            None if self.place == NOTHING => SubscribedKind::None,
            None => SubscribedKind::Many(self.place),
        }
    }

    /// Subscription of a connection that has exactly one for life.
    pub fn one(self) -> Option<Subscription> {
        Subscription::from_parts(self.topic_number, self.place)
    }
}

impl From<Subscription> for Subscribed {
    fn from(subscription: Subscription) -> Subscribed {
        let (topic_number, place) = subscription.into_parts();
        Subscribed {
            topic_number,
            place,
        }
    }
}

/// The subscriptions of those connections of a reactor that have many.
#[derive(Debug, Default)]
pub struct MultiSubscriptions {
    entries: Slab<MultiSubscription>,
    /// The subscriptions without an echo, by the places of those that have any.
    silent: HashMap<u32, BTreeSet<Target>>,
    shrink: Shrink,
    /// Their subscriptions to topics, those included that are on their way out.
    pub topics: usize,
}

impl MultiSubscriptions {
    /// Those of a connection, if it may have many.
    pub fn get(&self, subscribed: Subscribed) -> Option<&MultiSubscription> {
        match subscribed.kind() {
            SubscribedKind::Many(place) => self.entries.get(place as usize),
            SubscribedKind::None | SubscribedKind::One(_) => None,
        }
    }

    /// Those of a connection, if it may have many, to be changed.
    pub fn get_mut(&mut self, subscribed: Subscribed) -> Option<&mut MultiSubscription> {
        match subscribed.kind() {
            SubscribedKind::Many(place) => self.entries.get_mut(place as usize),
            SubscribedKind::None | SubscribedKind::One(_) => None,
        }
    }

    /// Lets a connection that subscribes to nothing have many.
    pub fn begin(&mut self, subscribed: &mut Subscribed, many: MultiSubscription) {
        debug_assert_eq!(*subscribed, Subscribed::NONE);
        self.remove(*subscribed);
        *subscribed = Subscribed {
            topic_number: 0,
            place: self.entries.insert(many) as u32,
        };
    }

    /// Takes those of a connection out, which is freed.
    pub fn remove(&mut self, subscribed: Subscribed) -> Option<MultiSubscription> {
        let SubscribedKind::Many(place) = subscribed.kind() else {
            return None;
        };
        self.silent.remove(&place);
        let many = self.entries.try_remove(place as usize);
        self.shrink.shrink(&mut self.entries);
        many
    }

    /// Notes whether a subscription of a connection has an echo.
    pub fn set_echo(&mut self, subscribed: Subscribed, target: &Target, echo: bool) {
        let SubscribedKind::Many(place) = subscribed.kind() else {
            return;
        };
        if !echo {
            let silent = self.silent.entry(place).or_default();
            silent.insert(target.clone());
        } else if let Some(silent) = self.silent.get_mut(&place) {
            silent.remove(target);
            if silent.is_empty() {
                self.silent.remove(&place);
            }
        }
    }

    /// Whether a subscription of a connection has an echo.
    pub fn has_echo(&self, subscribed: Subscribed, target: &Target) -> bool {
        let SubscribedKind::Many(place) = subscribed.kind() else {
            return true;
        };
        let silent = self.silent.get(&place);
        silent.is_none_or(|silent| !silent.contains(target))
    }

    /// Whether a connection has a subscription without an echo.
    pub fn has_silent(&self, subscribed: Subscribed) -> bool {
        if self.silent.is_empty() {
            return false;
        }
        matches!(subscribed.kind(), SubscribedKind::Many(place) if self.silent.contains_key(&place))
    }

    /// Number of connections with many subscriptions.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no connection has many.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The subscriptions of one connection.
#[derive(Debug)]
pub struct MultiSubscription {
    /// Information that members see of the connection: JSON.
    pub info: Option<Arc<str>>,
    /// The form in which it takes publications best.
    pub best_form: Form,
    /// Its subscriptions.
    pub subscriptions: Subscriptions,
    /// Bytes of its patterns, as they count towards `pattern_bytes_max`.
    pub pattern_bytes: u32,
    /// When it opened: the low 48 bits of milliseconds.
    opened_ms: [u8; 6],
    /// Tells an answer of the hub that is still wanted from an older one.
    next_request: u32,
    /// Who asked who is on a topic, and is not answered yet: the number of the question, what the peer calls it, and
    /// the topic.
    questions: Vec<(u32, Option<u32>, Topic)>,
    /// Work that the answers to questions may be at most, by their numbers.
    asked: Vec<(u32, u32)>,
}

impl MultiSubscription {
    /// None yet, of a connection that says this about itself.
    pub fn new(info: Option<Arc<str>>, best_form: Form) -> MultiSubscription {
        MultiSubscription {
            info,
            best_form,
            subscriptions: Subscriptions::default(),
            pattern_bytes: 0,
            opened_ms: [0; 6],
            next_request: 0,
            questions: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// Sets the moment at which the connection opened.
    #[must_use]
    pub fn opened_at(mut self, now_ms: u64) -> MultiSubscription {
        let [bytes @ .., _, _] = now_ms.to_le_bytes();
        self.opened_ms = bytes;
        self
    }

    /// Moment at which the connection opened, in milliseconds.
    pub fn opened_ms(&self) -> u64 {
        let [a, b, c, d, e, f] = self.opened_ms;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// Work that the answers which are awaited may be at most.
    pub fn asked_work(&self) -> u32 {
        let work = self.asked.iter().map(|(_, work)| *work);
        work.fold(0, u32::saturating_add)
    }

    /// The hub is asked something whose answer may be so much work.
    pub fn begin_question(&mut self, request: u32, work: u32) {
        if work > 0 {
            self.asked.push((request, work));
        }
    }

    /// The hub has answered.
    pub fn end_question(&mut self, request: u32) {
        if let Some(at) = self.asked.iter().position(|(it, _)| *it == request) {
            self.asked.swap_remove(at);
        }
    }

    /// The number of the next question.
    pub fn next_request(&mut self) -> u32 {
        let request = self.next_request;
        self.next_request = request.wrapping_add(1);
        request
    }

    /// Notes that the hub is asked about a topic; gives the number of the question. None: `questions_max` of them are
    /// unanswered.
    pub fn ask_question(
        &mut self,
        topic: Topic,
        id: Option<u32>,
        questions_max: usize,
    ) -> Option<u32> {
        if self.questions.len() >= questions_max {
            return None;
        }
        let request = self.next_request();
        self.questions.push((request, id, topic));
        Some(request)
    }

    /// Takes a question that is answered now.
    pub fn take_question(&mut self, request: u32) -> Option<(Option<u32>, Topic)> {
        let at = self.questions.iter().position(|(it, ..)| *it == request)?;
        let (_, id, topic) = self.questions.remove(at);
        Some((id, topic))
    }

    /// The subscription whose question is answered, if the answer is still wanted; with what the peer calls it.
    pub fn joining(
        &mut self,
        target: &Target,
        request: u32,
    ) -> Option<(&mut Membership, Option<u32>)> {
        let membership = self.subscriptions.get_mut(target)?;
        match *membership {
            Membership::Joining { request: asked, id } if asked == request => {
                Some((membership, id))
            }
            Membership::Joining { .. } | Membership::Live { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bytes_tell_nothing_one_and_many_apart() {
        assert_eq!(Subscribed::NONE.kind(), SubscribedKind::None);
        for (topic, place) in [(0, 0), (7, 9), (u32::MAX - 2, u32::MAX as usize)] {
            let subscription = Subscription::new(topic, place);
            let subscribed = Subscribed::from(subscription);
            assert_eq!(subscribed.kind(), SubscribedKind::One(subscription));
            assert_eq!(subscribed.one(), Some(subscription));
        }
        let mut all = MultiSubscriptions::default();
        let mut of_two = [Subscribed::NONE; 2];
        for subscribed in &mut of_two {
            let many = MultiSubscription::new(None, Form::default());
            all.begin(subscribed, many);
        }
        assert_ne!(of_two[0], of_two[1]);
        assert!(of_two.iter().all(|it| it.one().is_none()));
        assert!(all.remove(of_two[0]).is_some());
        assert!(all.get(of_two[0]).is_none() && all.get_mut(of_two[1]).is_some());
        assert_eq!(all.len(), 1);
    }
}
