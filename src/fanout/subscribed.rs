//! What a connection subscribes to.

use std::collections::HashMap;
use std::sync::Arc;

use super::subscribers::Subscription;
use crate::dialect::Form;
use crate::dialect::umbel_v1::Target;
use crate::topic::Topic;

/// What a connection subscribes to.
#[derive(Debug, Default)]
pub enum Subscribed {
    /// Nothing, or not yet.
    #[default]
    None,
    /// One topic, for as long as it lives.
    One(Subscription),
    /// Many, on `umbel.v1`. In a box, for most connections have one.
    Many(Box<MultiSubscription>),
}

impl Subscribed {
    /// The subscription of a connection that has one for as long as it lives.
    pub fn one(&self) -> Option<Subscription> {
        match self {
            Subscribed::One(subscription) => Some(*subscription),
            Subscribed::None | Subscribed::Many(_) => None,
        }
    }
}

/// The subscriptions of one connection, and what they are judged by.
#[derive(Debug)]
pub struct MultiSubscription {
    /// The head of the request that opened it: who it is, for each command anew.
    pub head: Arc<[u8]>,
    /// What the connection said about itself, for those who see who is on a topic: JSON.
    pub info: Option<Arc<str>>,
    /// The form in which it takes publications best.
    pub best_form: Form,
    /// Its subscriptions.
    pub subscriptions: HashMap<Target, Membership>,
    /// Tells an answer of the hub that is still wanted from an older one.
    next_request: u32,
    /// Who asked who is on a topic, and is not answered yet: the number of the question, what the peer calls it, and
    /// the topic.
    questions: Vec<(u32, Option<u32>, Topic)>,
}

/// How far a subscription has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// The hub has been asked.
    Joining {
        /// The number of the question.
        request: u32,
        /// What the peer calls its command.
        id: Option<u32>,
    },
    /// It is delivered to.
    Live {
        /// The place of the topic, or of the pattern, in its table.
        place: u32,
        /// Its number among the members.
        member: u32,
    },
}

impl MultiSubscription {
    /// Of a connection that was opened by a request with this head.
    pub fn new(head: &[u8], info: Option<Arc<str>>, best_form: Form) -> MultiSubscription {
        MultiSubscription {
            head: head.into(),
            info,
            best_form,
            subscriptions: HashMap::new(),
            next_request: 0,
            questions: Vec::new(),
        }
    }

    /// The number of the next question.
    pub fn next_request(&mut self) -> u32 {
        let request = self.next_request;
        self.next_request = request.wrapping_add(1);
        request
    }

    /// Notes that the hub is asked who is on a topic; gives the number of the question. None: `questions_max` of them are
    /// unanswered.
    pub fn ask_presence(
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

    /// What was asked that is answered now.
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
