//! Questions about what a connection has already: its identity, or a subscription that ends. They hold nothing up.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::{Inbox, Ticket};
use crate::auth::verdict::{Decision, Pending, Waiting};
use crate::dialect::Target;
use crate::handler::ConnectionId;
use crate::hub::ReactorId;
use crate::worker::Shards;

/// Thing that is to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The identity of the connection.
    Identity,
    /// One of its subscriptions.
    Subscription(Target),
}

enum Answer {
    /// It comes later.
    Awaited(Waiting),
    /// It was there at once.
    There(Decision),
}

/// Questions of one reactor that wait for their answers.
pub struct Renewals {
    reactor: ReactorId,
    shards: Weak<Shards>,
    inbox: Arc<Inbox>,
    asked: HashMap<Ticket, (Renewed, Answer)>,
    next_ticket: Ticket,
    asks_max: usize,
}

impl Renewals {
    /// None yet. At most `asks_max` wait.
    pub fn new(reactor: ReactorId, shards: Weak<Shards>, asks_max: usize) -> Renewals {
        Renewals {
            reactor,
            shards,
            inbox: Arc::default(),
            asked: HashMap::new(),
            next_ticket: 0,
            asks_max,
        }
    }

    /// Whether one more may be asked.
    pub fn has_room(&self) -> bool {
        self.asked.len() < self.asks_max
    }

    /// Waits for the answer to a question.
    pub fn begin(&mut self, id: ConnectionId, renewed: Renewed, pending: Pending) {
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        let (inbox, shards, reactor) = (Arc::clone(&self.inbox), self.shards.clone(), self.reactor);
        let waiting = pending.waiting();
        let tell = move || {
            inbox.push(id, ticket);
            if let Some(shards) = shards.upgrade() {
                shards.wake(reactor);
            }
        };
        let answer = match waiting.wait(Box::new(tell.clone())) {
            Some(decision) => {
                tell();
                Answer::There(decision)
            }
            None => Answer::Awaited(waiting),
        };
        self.asked.insert(ticket, (renewed, answer));
    }

    /// Whether nothing is asked.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.asked.is_empty()
    }

    /// Takes the answers that have come.
    pub fn poll(&mut self) -> Vec<(ConnectionId, Renewed, Decision)> {
        let mut answers = Vec::new();
        for (id, ticket) in self.inbox.take() {
            let decided = match self.asked.remove(&ticket) {
                Some((renewed, Answer::There(decision))) => Some((renewed, decision)),
                Some((renewed, Answer::Awaited(waiting))) => {
                    waiting.take().map(|decision| (renewed, decision))
                }
                None => None,
            };
            answers.extend(decided.map(|(renewed, decision)| (id, renewed, decision)));
        }
        answers
    }
}
