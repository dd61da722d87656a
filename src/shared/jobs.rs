//! Jobs: work on many connections, which goes from reactor to reactor.
//!
//! A [`Job`] travels by the queues of brought commands. Each reactor looks at a bounded number of its slots in a tick, and
//! changes a bounded number of connections; then it hands the job on. The last one calls `done` with the [`Outcome`].

use std::fmt;

use ipnet::IpNet;

use crate::auth::rights::RightsLists;
use crate::dialect::Target;
use crate::handler::{CloseCode, ConnectionId};
use crate::hub::{Kind, Start};
use crate::topic::Topic;

/// Slots that one request for a list of connections looks at.
pub const LISTED_SLOTS_MAX: u32 = 16_384;

/// Connections that something is done to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selector {
    /// The one of this name.
    Connection(ConnectionId),
    /// All of this subject.
    Subject(String),
    /// All that were opened with the token of this id.
    TokenId(String),
    /// All whose peers have an address in this network. An address alone is a network of one.
    Peer(IpNet),
}

/// Connections that are listed: those that all of this is true of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// Of this subject.
    pub subject: Option<String>,
    /// With a subscription to this topic, which is parsed from its name: `Some("rooms/7".parse()?)`.
    pub topic: Option<Topic>,
    /// With a peer in this network.
    pub peer: Option<IpNet>,
    /// Of this dialect, by its name in metrics.
    pub dialect: Option<String>,
}

/// Bytes of a connection, as the kernel counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that came in.
    pub received_bytes: u64,
    /// Bytes that went out, those sent again not counted.
    pub sent_bytes: u64,
}

/// One connection, as [`Handle::connections`](crate::Handle::connections) tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its name. None only in a default.
    pub connection: Option<ConnectionId>,
    /// Subject of its identity, if it has one.
    pub subject: Option<String>,
    /// Id of the token that it was opened with.
    pub token_id: Option<String>,
    /// IP address of its client. A trusted proxy may tell it. None: it has none, or is gone.
    pub peer: Option<std::net::IpAddr>,
    /// Name of the listener that it came by.
    pub listener: String,
    /// Its dialect by its name in metrics; `http`, `endpoint` or `closing` where it has none.
    pub dialect: &'static str,
    /// Moment of its opening, in milliseconds since 1970. It is kept for connections of many topics.
    pub opened_at_ms: Option<u64>,
    /// End of its identity, in milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
    /// Number of its subscriptions.
    pub subscriptions: usize,
    /// Bytes that wait for its peer.
    pub queued_bytes: usize,
    /// Bytes that came from its peer, those of TLS included. None: the kernel does not tell, as of unix sockets.
    pub received_bytes: Option<u64>,
    /// Bytes that went to its peer.
    pub sent_bytes: Option<u64>,
    /// JSON that its identity shows of it.
    pub info: Option<String>,
    /// JSON that only the server sees.
    pub meta: Option<String>,
    /// Topics and patterns that it subscribes to, where they were asked for.
    pub targets: Vec<Target>,
}

/// Task of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Lists those of a filter: so many at most.
    List(Filter, usize),
    /// Tells all of one.
    Show(ConnectionId),
    /// Ends those of a selector, but for these names.
    Disconnect(Selector, (CloseCode, String), Vec<ConnectionId>),
    /// Ends a subscription.
    Unsubscribe(Selector, Target, Notice),
    /// Subscribes, whatever the rights are.
    Subscribe(Selector, Topic, Start),
    /// Sends a message that has no topic and no position.
    Send(Selector, Kind, Box<[u8]>),
    /// Sets when identities end, in milliseconds since 1970, and their own rights.
    Refresh(Selector, u64, Option<Box<RightsLists>>),
    /// Wakes reactors to look for those that the deny list denies.
    Revoke,
}

/// Code and reason for a peer whose subscription is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Why, for programs.
    pub code: String,
    /// Why, for people.
    pub reason: Option<String>,
}

impl From<ConnectionId> for Selector {
    fn from(connection: ConnectionId) -> Selector {
        Selector::Connection(connection)
    }
}

impl Task {
    /// Connections that something is done to. None: nothing is.
    pub fn selector(&self) -> Option<&Selector> {
        match self {
            Task::Show(_) | Task::List(..) | Task::Revoke => None,
            Task::Disconnect(selector, ..)
            | Task::Unsubscribe(selector, ..)
            | Task::Subscribe(selector, ..)
            | Task::Send(selector, ..)
            | Task::Refresh(selector, ..) => Some(selector),
        }
    }

    /// The one connection that it is about, if it is about one.
    fn connection(&self) -> Option<ConnectionId> {
        match (self, self.selector()) {
            (Task::Show(id), _) | (_, Some(Selector::Connection(id))) => Some(*id),
            _ => None,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Task::Disconnect(_, (_, reason), except) => {
                reason.len() + size_of_val::<[ConnectionId]>(except)
            }
            Task::Send(_, _, payload) => payload.len(),
            _ => 0,
        }
    }
}

/// Place of a list: a reactor, and a slot of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The reactor.
    pub reactor: u16,
    /// The slot.
    pub slot: u32,
}

impl Cursor {
    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Cursor> {
        let is_hex = text.bytes().all(|digit| digit.is_ascii_hexdigit());
        if text.len() != 12 || !is_hex {
            return None;
        }
        let bits = u64::from_str_radix(text, 16).ok()?;
        Some(Cursor {
            reactor: (bits >> 32) as u16,
            slot: bits as u32,
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}{:08x}", self.reactor, self.slot)
    }
}

/// Outcome of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Connections that were listed.
    pub rows: Vec<ConnectionInfo>,
    /// Connections that something was done to.
    pub count: u64,
    /// Place at which the list goes on, if it does.
    pub next: Option<Cursor>,
}

/// Called with the outcome of a job; None: it could not be carried out. It must not wait.
pub type OnOutcome = dyn FnOnce(Option<Outcome>) + Send;

/// Work on the connections of all reactors, or of one.
pub struct Job {
    /// The task.
    pub task: Task,
    /// Place of the job.
    pub cursor: Cursor,
    /// Slots that it may look at yet. None: all.
    pub slots_left: Option<u32>,
    /// Outcome so far.
    pub outcome: Outcome,
    on_outcome: Option<Box<OnOutcome>>,
}

impl Job {
    /// A job for all connections. If its task is about one alone, it goes there.
    pub fn new(task: Task, on_outcome: impl FnOnce(Option<Outcome>) + Send + 'static) -> Box<Job> {
        let cursor = task.connection().map_or(Cursor::default(), |id| Cursor {
            reactor: id.reactor,
            slot: id.index,
        });
        let is_list = matches!(task, Task::List(..));
        Box::new(Job {
            task,
            cursor,
            slots_left: is_list.then_some(LISTED_SLOTS_MAX),
            outcome: Outcome::default(),
            on_outcome: Some(Box::new(on_outcome)),
        })
    }

    /// Goes on where another left off.
    #[must_use]
    pub fn from(mut self: Box<Job>, cursor: Cursor) -> Box<Job> {
        self.cursor = cursor;
        self
    }

    /// The one connection that it is about, if it is about one.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.task.connection()
    }

    /// Ends it with what there is.
    pub fn finish(mut self) {
        let outcome = std::mem::take(&mut self.outcome);
        if let Some(on_outcome) = self.on_outcome.take() {
            on_outcome(Some(outcome));
        }
    }
}

impl Drop for Job {
    /// Nobody is left to carry it out.
    fn drop(&mut self) {
        if let Some(on_outcome) = self.on_outcome.take() {
            on_outcome(None);
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("task", &self.task)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_is_read_as_it_is_written() {
        for (reactor, slot) in [(0, 0), (1, 0xa0), (u16::MAX, u32::MAX)] {
            let cursor = Cursor { reactor, slot };
            assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        }
        for text in ["", "0", "+00000000000", "00000000000g", "0000000000000"] {
            assert_eq!(Cursor::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn dropped_job_tells_whoever_waits() {
        let (told, outcomes) = crossbeam_channel::bounded(2);
        let tell = move |outcome: Option<Outcome>| told.send(outcome.is_some()).expect("room");
        let list = || Task::List(Filter::default(), 1);
        drop(Job::new(list(), tell.clone()));
        Job::new(list(), tell).finish();
        assert_eq!(outcomes.try_iter().collect::<Vec<_>>(), [false, true]);
    }
}
