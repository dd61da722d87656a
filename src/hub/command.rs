//! Messages between the reactors and the hub: commands and effects.

use std::sync::Arc;

use super::idempotency::{IdempotencyKey, Outcome};
use super::listing::{Listing, Scope};
use super::presence::{Member, MemberIdentity, PresenceChange};
use super::publication::{Position, Publication};
use super::shard::ShardSettings;
use crate::topic::Topic;

/// A reactor, by its number from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReactorId(pub u16);

impl ReactorId {
    /// Stands for the program that embeds the server, where that subscribes.
    pub const INSIDE: ReactorId = ReactorId(u16::MAX);
}

/// A topic or a pattern, as a place in one reactor's table. It spares the reactor a hash of the name for each
/// publication. The generation tells a place from a later use of the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalTopic {
    /// Place in the reactor's table of topics. With [`LocalTopic::PATTERN_BIT`] set, in that of patterns.
    pub index: u32,
    /// Counts the uses of that place.
    pub generation: u32,
}

impl LocalTopic {
    /// Set in the index of a pattern.
    pub const PATTERN_BIT: u32 = 1 << 31;

    /// Whether it names a pattern.
    pub fn is_pattern(self) -> bool {
        self.index & LocalTopic::PATTERN_BIT != 0
    }
}

/// Publisher of a publication, which is told the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody waits for an answer.
    Detached,
    /// A connection waits. `connection` is opaque to the hub; `sequence` tells the publications of one request apart.
    Connection {
        /// The reactor that owns the connection.
        reactor: ReactorId,
        /// The reactor's own name for the connection.
        connection: u64,
        /// The place within the request, from 0.
        sequence: u32,
    },
}

/// Place in a topic where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Now,
    /// With what was published after this position, if all of it is there still.
    Since(Position),
    /// With the last so many publications, or as many as there are.
    Last(u32),
}

/// Fields of [`Command::Join`].
#[derive(Debug)]
pub struct Join {
    /// The topic.
    pub topic: Topic,
    /// The reactor.
    pub reactor: ReactorId,
    /// The reactor's name for the topic, which deliveries bear.
    pub local: LocalTopic,
    /// The reactor's own name for the connection.
    pub connection: u64,
    /// Tells the requests of one connection apart.
    pub request: u32,
    /// Start of the subscription.
    pub start: Start,
    /// Information that it gives of itself.
    pub info: Option<Arc<str>>,
    /// Identity that they see of it.
    pub identity: Option<Arc<MemberIdentity>>,
}

/// Fields of [`Command::Read`].
#[derive(Debug)]
pub struct Read {
    /// The topic.
    pub topic: Topic,
    /// The reactor that owns the connection.
    pub reactor: ReactorId,
    /// The reactor's own name for the connection.
    pub connection: u64,
    /// Tells the requests of one connection apart.
    pub request: u32,
    /// Start of the page. [`Start::Now`] is behind the newest publication, where nothing is.
    pub start: Start,
    /// Publications of the page.
    pub publications_max: u32,
    /// Moment of the request, in microseconds on the process's clock: what is over by then is not read.
    pub now_us: u64,
}

/// A part of a topic's history.
#[derive(Debug, Default)]
pub struct HistoryPage {
    /// Position of the topic. None: nobody knows the topic.
    pub position: Option<Position>,
    /// Whether the page begins right behind the position that was asked for. None if none was.
    pub recovered: Option<bool>,
    /// Publications, the oldest first.
    pub publications: Vec<Arc<Publication>>,
    /// More publications follow.
    pub has_more: bool,
}

/// Fields of [`Command::PublishOnce`].
#[derive(Debug)]
pub struct PublishOnce {
    /// The topic.
    pub topic: Topic,
    /// The publication, which nobody else holds yet.
    pub publication: Arc<Publication>,
    /// Its key.
    pub key: IdempotencyKey,
    /// The reactor that owns the publisher.
    pub reactor: ReactorId,
    /// The reactor's own name for the connection.
    pub connection: u64,
    /// The place within the publisher's request.
    pub sequence: u32,
}

/// A command to a shard.
#[derive(Debug)]
pub enum Command {
    /// Give the publication its place in the topic and hand it to all subscribers.
    Publish {
        /// The topic.
        topic: Topic,
        /// The publication, which nobody else holds yet.
        publication: Arc<Publication>,
        /// Who is told the position.
        origin: Origin,
    },
    /// Publish unless it was done before, by the publication's idempotency key: answered by [`Effect::Published`], but for a
    /// publication that gets its place and has a receipt, which tells it.
    PublishOnce(Box<PublishOnce>),
    /// From here on the reactor has subscribers of the topic.
    Subscribe {
        /// The topic.
        topic: Topic,
        /// The reactor.
        reactor: ReactorId,
        /// The reactor's name for the topic, which deliveries bear.
        local: LocalTopic,
    },
    /// The reactor's last subscriber of the topic is gone.
    Unsubscribe {
        /// The topic.
        topic: Topic,
        /// The reactor.
        reactor: ReactorId,
        /// The reactor's name for the topic. An older one than the hub knows is ignored.
        local: LocalTopic,
    },
    /// Subscribe the reactor, and tell one of its connections where the topic stands and what it missed: answered by
    /// [`Effect::Joined`]. Where the topic's rule has presence, the connection is present from here on.
    Join(Box<Join>),
    /// A connection that joined is no longer present. Needed only for topics whose rule has presence.
    Leave {
        /// The topic.
        topic: Topic,
        /// The reactor that owns the connection.
        reactor: ReactorId,
        /// The reactor's own name for the connection.
        connection: u64,
    },
    /// Tell a connection who is present: answered by [`Effect::Present`].
    Present {
        /// The topic.
        topic: Topic,
        /// The reactor that owns the connection.
        reactor: ReactorId,
        /// The reactor's own name for the connection.
        connection: u64,
        /// Tells the requests of one connection apart.
        request: u32,
    },
    /// Give a connection a part of a topic's history: answered by [`Effect::Read`].
    Read(Box<Read>),
    /// Empty the history of a topic, which gets another epoch: answered by [`Effect::Read`], with its position.
    Empty {
        /// The topic.
        topic: Topic,
        /// The reactor that owns the connection.
        reactor: ReactorId,
        /// The reactor's own name for the connection.
        connection: u64,
    },
    /// Tell a connection what the hub knows of topics: answered by [`Effect::Listed`].
    List {
        /// Which topics.
        scope: Scope,
        /// The reactor that owns the connection.
        reactor: ReactorId,
        /// The reactor's own name for the connection.
        connection: u64,
    },
    /// Pass a listing on to the next reactor, by [`Effect::Listed`].
    PassOn {
        /// The listing, to which the reactor that brings it has added its counts.
        listing: Box<Listing>,
    },
    /// Let go of what has become too old. To be sent to each shard about once a second.
    Expire {
        /// The shard, from 0.
        shard: u32,
        /// The moment on the process's monotonic clock.
        now_us: u64,
    },
    /// Let go of so many bytes of histories, those first that were not used for the longest time.
    Shed {
        /// The shard, from 0.
        shard: u32,
        /// The bytes. Of many, only some go at once.
        bytes: usize,
    },
    /// Take new settings. Topics take to them by [`Command::Migrate`].
    Reload {
        /// The shard, from 0.
        shard: u32,
        /// The settings.
        settings: Box<ShardSettings>,
    },
    /// Bring some topics to the newest settings: answered by [`Effect::Migrated`]. To be sent again until all are.
    Migrate {
        /// The shard, from 0.
        shard: u32,
        /// The reactor that is answered.
        reactor: ReactorId,
    },
}

/// Key that chooses the shard of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandRoute<'a> {
    /// The shard of this topic.
    Topic(&'a Topic),
    /// The shard of this number, from 0.
    Shard(u32),
}

impl Command {
    /// Key that chooses its shard.
    pub fn route(&self) -> CommandRoute<'_> {
        match self {
            Command::Publish { topic, .. }
            | Command::Subscribe { topic, .. }
            | Command::Unsubscribe { topic, .. }
            | Command::Leave { topic, .. }
            | Command::Present { topic, .. }
            | Command::Empty { topic, .. }
            | Command::List {
                scope: Scope::Topic(topic),
                ..
            } => CommandRoute::Topic(topic),
            Command::PublishOnce(once) => CommandRoute::Topic(&once.topic),
            Command::Join(join) => CommandRoute::Topic(&join.topic),
            Command::Read(read) => CommandRoute::Topic(&read.topic),
            // Any shard would do; so each passes on what is its own.
            Command::PassOn { listing } => match listing.topics.first() {
                Some(listed) => CommandRoute::Topic(&listed.topic),
                None => CommandRoute::Shard(0),
            },
            Command::List {
                scope: Scope::Places { shard, .. },
                ..
            }
            | Command::Expire { shard, .. }
            | Command::Shed { shard, .. }
            | Command::Reload { shard, .. }
            | Command::Migrate { shard, .. } => CommandRoute::Shard(*shard),
        }
    }

    /// Bytes of publications, or of a listing, while it waits.
    pub fn bytes(&self) -> usize {
        match self {
            Command::Publish { publication, .. } => publication.frame().len(),
            Command::PublishOnce(once) => once.publication.frame().len(),
            Command::PassOn { listing } => listing.bytes(),
            _ => 0,
        }
    }
}

/// The answer to [`Command::Join`].
#[derive(Debug)]
pub struct Joined {
    /// Of the newest publication handed out so far; offset 0: none was. All later ones come as [`Effect::Deliver`]
    /// behind this answer.
    pub position: Position,
    /// Whether `publications` is all that was missed. None if no position was asked for. None if none was.
    pub recovered: Option<bool>,
    /// Offset after which was asked for all, if `recovered`.
    pub after: Option<u64>,
    /// Whether the newest of each key are whole, if `publications` are these. None: the topic keeps no such, or something
    /// else was asked for.
    pub snapshot: Option<bool>,
    /// The publications that were asked for and are not over, in order.
    pub publications: Vec<Arc<Publication>>,
}

/// An effect of a command. Effects are in order. All effects are for one reactor's mailbox.
#[derive(Debug)]
pub enum Effect {
    /// Write the publication to the reactor's subscribers of the topic or pattern. If the publication has a
    /// [`Receipt`](super::Receipt), each delivery must add a share to it, whatever becomes of it.
    Deliver {
        /// The reactor.
        reactor: ReactorId,
        /// Its name for the topic or pattern.
        local: LocalTopic,
        /// The publication.
        publication: Arc<Publication>,
    },
    /// Tell a publisher what became of its publication.
    Published {
        /// The reactor that owns the publisher.
        reactor: ReactorId,
        /// The reactor's own name for the connection.
        connection: u64,
        /// The place within the publisher's request.
        sequence: u32,
        /// Where the publication stands. Of one that is not carried out it says nothing.
        position: Position,
        /// What became of it. Without an idempotency key it always has its place.
        outcome: Outcome,
        /// It wanted a receipt, and gets none.
        lost_receipt: bool,
    },
    /// A connection has joined the topic. Publications in it count towards no receipt.
    Joined {
        /// The reactor that owns the connection.
        reactor: ReactorId,
        /// Its name for the topic.
        local: LocalTopic,
        /// The reactor's own name for the connection.
        connection: u64,
        /// The request that it answers.
        request: u32,
        /// Where the topic stands, and what the connection missed.
        joined: Box<Joined>,
    },
    /// Tell the reactor's subscribers of the topic who came or went. Whoever comes is not told of itself: its
    /// [`Effect::Joined`] comes behind this.
    PresenceChanged {
        /// The reactor.
        reactor: ReactorId,
        /// Its name for the topic.
        local: LocalTopic,
        /// Who came or went.
        change: Arc<PresenceChange>,
    },
    /// Tell a connection who is present.
    Present {
        /// The reactor that owns the connection.
        reactor: ReactorId,
        /// The reactor's own name for the connection.
        connection: u64,
        /// The request that it answers.
        request: u32,
        /// Who is present, as far as others are told.
        members: Arc<[Member]>,
        /// How many are present in all.
        total: u32,
    },
    /// Give a connection a part of a topic's history.
    Read {
        /// The reactor that owns the connection.
        reactor: ReactorId,
        /// The reactor's own name for the connection.
        connection: u64,
        /// The request that it answers.
        request: u32,
        /// The part.
        page: Box<HistoryPage>,
    },
    /// Add the reactor's counts to the listing and [pass it on](Command::PassOn), or answer the connection that asked if
    /// all have added theirs.
    Listed {
        /// The listing, which knows its reactor.
        listing: Box<Listing>,
    },
    /// A shard has taken a step towards its newest settings.
    Migrated {
        /// The reactor that sent for it.
        reactor: ReactorId,
        /// Whether all topics are there.
        is_done: bool,
    },
}

// There are thousands of places for them in each queue, made when the server starts.
const _: () = assert!(size_of::<Command>() <= 48 && size_of::<Effect>() <= 40);

impl Effect {
    /// The reactor whose mailbox it goes to.
    pub fn reactor(&self) -> ReactorId {
        match self {
            Effect::Deliver { reactor, .. }
            | Effect::Published { reactor, .. }
            | Effect::Joined { reactor, .. }
            | Effect::PresenceChanged { reactor, .. }
            | Effect::Present { reactor, .. }
            | Effect::Read { reactor, .. }
            | Effect::Migrated { reactor, .. } => *reactor,
            Effect::Listed { listing } => listing.reactor(),
        }
    }

    /// Bytes that it holds while it waits.
    pub fn bytes(&self) -> usize {
        match self {
            Effect::Deliver { publication, .. } => publication.frame().len(),
            Effect::Joined { joined, .. } => {
                let frames = joined.publications.iter();
                frames.map(|publication| publication.frame().len()).sum()
            }
            Effect::Read { page, .. } => {
                let frames = page.publications.iter();
                frames.map(|publication| publication.frame().len()).sum()
            }
            Effect::Present { members, .. } => size_of_val(&**members),
            Effect::Listed { listing } => listing.bytes(),
            Effect::Published { .. } | Effect::PresenceChanged { .. } | Effect::Migrated { .. } => {
                0
            }
        }
    }
}
