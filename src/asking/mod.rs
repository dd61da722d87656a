//! Connections that wait for a decision of somebody else's.
//!
//! ```text
//!  event ─► authorize: Later ─► note ─► the event is kept, Hold::Ask
//!                                            │ settle, or the deadline
//!  event again ◄─ resume ◄─ poll ◄─ inbox ◄──┘
//! ```
//!
//! An event that has to wait is not carried out in part: it is kept whole and comes again with what was decided, so that what
//! asks is the same code either way. What was decided about a connection is forgotten once its event is dealt with. A reactor
//! where nobody waits has an empty table, and looks at nothing else.

pub mod hook;
pub mod renewals;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::auth::access::Denied;
use crate::auth::verdict::{Decision, Pending, Waiting};
use crate::handler::ConnectionId;
use crate::hub::{Position, ReactorId};
use crate::worker::Shards;
use renewals::Renewals;

/// What is said to who waits for a decision while there are more than may.
const TOO_MANY: &str = "as many requests wait for a decision as asks_max allows; try again";

/// What is said to who has waited for too long.
const TOO_LATE: &str = "it was not decided in time whether this is allowed; try again";

/// Ticket of a question: a late answer to an older one is nobody's.
type Ticket = u32;

/// Answers that have come for a reactor, from any thread.
#[derive(Default)]
struct Inbox {
    /// At most one for each that waits: who waits no more takes its callback away.
    answered: Mutex<Vec<(ConnectionId, Ticket)>>,
}

impl Inbox {
    fn take(&self) -> Vec<(ConnectionId, Ticket)> {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *answered)
    }

    fn push(&self, id: ConnectionId, ticket: Ticket) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.push((id, ticket));
    }
}

/// Client of an event, as the application is told of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client {
    /// Its address. None: it has none, or is gone.
    pub peer: Option<IpAddr>,
    /// Whether it has come by TLS.
    pub tls: bool,
    /// Dialect that it speaks.
    pub dialect: &'static str,
}

/// Connections of one reactor that wait for a decision.
pub struct Asking {
    reactor: ReactorId,
    shards: Weak<Shards>,
    inbox: Arc<Inbox>,
    /// By the index of their slots.
    entries: HashMap<u32, Entry>,
    /// Those whose deadline is yet to be set.
    begun: Vec<(ConnectionId, Ticket, Option<u64>)>,
    /// In the order of their deadlines, for all have the same time.
    deadlines: Deadlines,
    /// Those that wait for a shorter time.
    short_deadlines: Deadlines,
    next_ticket: Ticket,
    /// Connection of the event that is being dealt with, where the application is asked.
    current: Cell<Option<ConnectionId>>,
    client: Cell<Client>,
    /// Position behind which the subscription begins that is asked about.
    since: Cell<Option<Position>>,
    asks_max: usize,
    /// The question of the event that is being dealt with.
    noted: Cell<Option<Noted>>,
    has_noted: Cell<bool>,
    /// What was decided for that event.
    decided: RefCell<Decided>,
    /// Questions about what connections have already.
    pub renewals: Renewals,
}

/// Deadlines in their order.
type Deadlines = VecDeque<(u64, ConnectionId, Ticket)>;

/// Decisions by their questions.
type Decided = HashMap<String, Decision>;

struct Noted {
    key: String,
    /// Time that it waits at most, if that is shorter than for all.
    wait_max_ms: Option<u64>,
    waiting: Waiting,
}

struct Entry {
    id: ConnectionId,
    ticket: Ticket,
    noted: Option<Noted>,
    decided: Decided,
}

impl Asking {
    /// That of a reactor where nobody waits. At most `asks_max` may.
    pub fn new(reactor: ReactorId, shards: Weak<Shards>, asks_max: usize) -> Asking {
        Asking {
            reactor,
            shards: shards.clone(),
            inbox: Arc::default(),
            entries: HashMap::new(),
            begun: Vec::new(),
            deadlines: VecDeque::new(),
            short_deadlines: VecDeque::new(),
            next_ticket: 0,
            current: Cell::default(),
            client: Cell::default(),
            since: Cell::default(),
            asks_max,
            noted: Cell::default(),
            has_noted: Cell::default(),
            decided: RefCell::default(),
            renewals: Renewals::new(reactor, shards, asks_max),
        }
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is nothing to look after.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.entries.is_empty()
            && self.deadlines.is_empty()
            && self.short_deadlines.is_empty()
            && self.begun.is_empty()
    }

    /// Connections that wait, or are about to go on.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Sets the connection of the event that comes.
    pub fn set_current(&self, id: ConnectionId) {
        self.current.set(Some(id));
    }

    /// Sets what is told of the client of that event.
    pub fn set_client(&self, client: Client) {
        self.client.set(client);
    }

    /// Name of the connection whose event is being dealt with.
    pub fn current(&self) -> String {
        self.current
            .get()
            .map_or_else(String::new, |id| id.to_string())
    }

    /// An event of a connection comes, be it again.
    pub fn begin(&mut self, id: ConnectionId) {
        let entry = self.entries.remove(&id.index).filter(|it| it.id == id);
        *self.decided.get_mut() = entry.map(|entry| entry.decided).unwrap_or_default();
    }

    /// The decision about a question of the event, if there is one. `key` tells the questions of an event apart.
    pub fn decided<T>(
        &self,
        key: &dyn Debug,
        take: impl FnOnce(&Decision) -> Option<T>,
    ) -> Option<T> {
        let decided = self.decided.borrow();
        if decided.is_empty() {
            return None;
        }
        take(decided.get(&format!("{key:?}"))?)
    }

    /// Remembers a decision until the event is dealt with. So nobody is asked twice about it.
    pub fn remember(&self, key: &dyn Debug, decision: Decision) {
        let mut decided = self.decided.borrow_mut();
        decided.insert(format!("{key:?}"), decision);
    }

    /// Takes a decision away, for it holds once.
    pub fn take(&self, key: &dyn Debug) -> Option<Decision> {
        let mut decided = self.decided.borrow_mut();
        match decided.is_empty() {
            true => None,
            false => decided.remove(&format!("{key:?}")),
        }
    }

    /// Decisions about the event that is being dealt with.
    pub fn decided_len(&self) -> usize {
        self.decided.borrow().len()
    }

    /// Notes that somebody else is asked: the event is to be kept.
    ///
    /// # Errors
    /// No more may wait.
    pub fn note(&self, key: &dyn Debug, pending: Pending) -> Result<(), Denied> {
        self.note_for(key, pending, None)
    }

    /// As [`note`](Asking::note), with a shorter time, which is the same for all who have one.
    ///
    /// # Errors
    /// No more may wait.
    pub fn note_within(
        &self,
        key: &dyn Debug,
        pending: Pending,
        wait_max_ms: u64,
    ) -> Result<(), Denied> {
        self.note_for(key, pending, Some(wait_max_ms))
    }

    fn note_for(
        &self,
        key: &dyn Debug,
        pending: Pending,
        wait_max_ms: Option<u64>,
    ) -> Result<(), Denied> {
        if self.entries.len() >= self.asks_max {
            return Err(Denied::unavailable(TOO_MANY));
        }
        self.noted.set(Some(Noted {
            key: format!("{key:?}"),
            wait_max_ms,
            waiting: pending.waiting(),
        }));
        self.has_noted.set(true);
        Ok(())
    }

    /// Whether the event is to be kept. A question of it is noted then.
    #[inline]
    pub fn has_noted(&self) -> bool {
        self.has_noted.get()
    }

    /// Whether the event leaves something behind for [`finish`](Asking::finish).
    #[inline]
    pub fn is_begun(&mut self) -> bool {
        self.has_noted.get() || !self.decided.get_mut().is_empty()
    }

    /// The event is dealt with; `is_kept`: it waits for the answer to the question that is noted.
    pub fn finish(&mut self, id: ConnectionId, is_kept: bool) {
        self.has_noted.set(false);
        let decided = std::mem::take(self.decided.get_mut());
        let Some(noted) = self.noted.take().filter(|_| is_kept) else {
            return;
        };
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        let (inbox, shards, reactor) = (Arc::clone(&self.inbox), self.shards.clone(), self.reactor);
        let wait_max_ms = noted.wait_max_ms;
        let at_once = noted.waiting.wait(Box::new(move || {
            inbox.push(id, ticket);
            if let Some(shards) = shards.upgrade() {
                shards.wake(reactor);
            }
        }));
        let mut entry = Entry {
            id,
            ticket,
            noted: Some(noted),
            decided,
        };
        if let Some(decision) = at_once {
            entry.decide(decision);
            self.inbox.push(id, ticket);
        }
        self.entries.insert(id.index, entry);
        self.begun.push((id, ticket, wait_max_ms));
    }

    /// Takes the connections that go on. It is decided about them, or too late.
    pub fn poll(&mut self, now_ms: u64, wait_max_ms: u64) -> Vec<ConnectionId> {
        for (id, ticket, shorter_ms) in self.begun.drain(..) {
            let due_ms = now_ms + shorter_ms.unwrap_or(wait_max_ms).min(wait_max_ms);
            match shorter_ms {
                Some(_) => self.short_deadlines.push_back((due_ms, id, ticket)),
                None => self.deadlines.push_back((due_ms, id, ticket)),
            }
        }
        let mut resumed = Vec::new();
        for (id, ticket) in self.inbox.take() {
            let Some(entry) = self.entry(id, ticket) else {
                continue;
            };
            let decision = entry.noted.as_ref().and_then(|it| it.waiting.take());
            if let Some(decision) = decision {
                entry.decide(decision);
            }
            resumed.push(id);
        }
        let mut deadlines = std::mem::take(&mut self.deadlines);
        self.expire(now_ms, &mut deadlines, &mut resumed);
        self.deadlines = deadlines;
        let mut deadlines = std::mem::take(&mut self.short_deadlines);
        self.expire(now_ms, &mut deadlines, &mut resumed);
        self.short_deadlines = deadlines;
        resumed
    }

    /// Takes the deadlines that have come. Those that are answered are passed over.
    fn expire(&mut self, now_ms: u64, deadlines: &mut Deadlines, resumed: &mut Vec<ConnectionId>) {
        while let Some((due_ms, id, ticket)) = deadlines.front().copied() {
            let is_answered = self.entry(id, ticket).is_none_or(|it| it.noted.is_none());
            if !is_answered && due_ms > now_ms {
                break;
            }
            deadlines.pop_front();
            if let Some(entry) = self.entry(id, ticket).filter(|_| !is_answered) {
                entry.decide(Decision::Access(Err(Denied::unavailable(TOO_LATE))));
                resumed.push(id);
            }
        }
    }

    /// Deadline of the first of those that wait.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        match self.begun.is_empty() {
            true => {
                let fronts = [self.deadlines.front(), self.short_deadlines.front()];
                let dues = fronts.into_iter().flatten().map(|(due_ms, ..)| *due_ms);
                dues.min()
            }
            // They get theirs in the next tick.
            false => Some(0),
        }
    }

    /// A connection has ended.
    pub fn forget(&mut self, id: ConnectionId) {
        if self.entries.get(&id.index).is_some_and(|it| it.id == id) {
            self.entries.remove(&id.index);
        }
    }

    fn entry(&mut self, id: ConnectionId, ticket: Ticket) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&id.index)?;
        (entry.id == id && entry.ticket == ticket).then_some(entry)
    }
}

impl Entry {
    fn decide(&mut self, decision: Decision) {
        if let Some(noted) = self.noted.take() {
            self.decided.insert(noted.key, decision);
        }
    }
}

#[cfg(test)]
mod tests;
