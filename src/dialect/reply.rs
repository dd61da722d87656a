//! Replies to commands and pushes: all that a dialect encodes besides publications.

use std::sync::Arc;

use super::{CommandError, History, Target};
use crate::hub::{Kind, Member, Position, PresenceChange, Publication, ReactorId, Report};
use crate::topic::{SlowConsumer, Topic};

/// The reply to a command.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'a> {
    /// The subscription stands.
    Subscribed(Subscribed<'a>),
    /// The subscription has ended: none of its publications come after this.
    Unsubscribed(&'a Target),
    /// The publication has its place; and if a receipt was asked for, this became of it.
    Published(Position, Option<&'a Report>),
    /// The publication was published before, and has its place since then.
    Duplicate(Position),
    /// The publication was taken, and the application has decided that it is not published.
    Skipped,
    /// Who is on a topic.
    Present {
        /// Which.
        topic: &'a Topic,
        /// How many are there.
        total: u32,
        /// Some of them, or all.
        members: &'a [Member],
    },
    /// A page of a topic's history.
    History(History<'a>),
    /// A ping has arrived.
    Pong,
    /// The token is good, and the connection is that identity from here on.
    Authenticated(Welcome<'a>),
    /// The command is not carried out.
    Refused(&'a CommandError),
}

/// A subscription that stands.
#[derive(Clone, Copy, Debug)]
pub struct Subscribed<'a> {
    /// Target of the subscription.
    pub target: &'a Target,
    /// Position of the topic: everything after it comes. A pattern has none.
    pub position: Option<Position>,
    /// Whether the publications after the peer's position are complete.
    pub recovered: Option<bool>,
    /// The replay is the newest of each key; whether none is missing. None: it is not that.
    pub snapshot: Option<bool>,
    /// Treatment of the peer if it is slow.
    pub slow_consumer: SlowConsumer,
    /// Whether publications of the peer's own connection come.
    pub echo: bool,
    /// The server has subscribed of itself: no command asked for it.
    pub is_unasked: bool,
    /// Missed publications, in order. A dialect that does not hold it in the reply leaves it alone.
    pub replay: &'a [Arc<Publication>],
}

/// Identity of a connection, as its peer is told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// The reactor that owns the connection.
    pub reactor: ReactorId,
    /// The reactor's own name for it, as [`Member`] has it.
    pub connection: u64,
    /// Subject of the identity, if it has one.
    pub subject: Option<&'a str>,
    /// Time until the identity expires, in milliseconds, if it does.
    pub expires_in_ms: Option<u64>,
}

/// A push: something told unasked, besides publications.
#[derive(Clone, Copy, Debug)]
pub enum Push<'a> {
    /// Somebody has come to a topic, or gone.
    Presence(&'a PresenceChange),
    /// The right to a subscription is gone, and the subscription with it.
    Unsubscribed(&'a Target),
    /// A subscription is ended by whoever manages the server: this one, with a code and a reason.
    Ended(&'a Target, &'a str, Option<&'a str>),
    /// A message for this connection alone, without a topic and a position.
    Message(Kind, &'a [u8]),
    /// The identity ends in so many milliseconds, unless its peer shows a newer token.
    Expiring(u64),
    /// Of a topic on which so much changes that it is not told, so many are there now.
    PresenceSkipped {
        /// Which.
        topic: &'a Topic,
        /// How many.
        members: u32,
    },
}
