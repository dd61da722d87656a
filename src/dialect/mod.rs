//! Dialects: how publications, commands and replies look on the wire.
//!
//! ```text
//!   message of a peer ──parse──► Command ──► application ──► Reply ──encode──► message to the peer
//!                                             fan-out ─────► publication, Push ──encode──► the same
//! ```
//!
//! Each dialect is a folder: its frames, its codes, its limits and its names for things. [`Dialects`] is the table of
//! them, with the routes and subprotocols that lead to each; nothing outside of this room names one. To add a dialect is
//! to add a folder and a row.
//!
//! A publication leaves in a [`Form`]: an encoding of the table, and a class of compression. One that is made is shared
//! by all who take it.

pub mod command;
pub mod ending;
pub(crate) mod fields;
mod form;
mod history;
mod info;
pub mod message;
pub(crate) mod object;
pub mod publication_fields;
mod raw;
pub mod reply;
#[doc(hidden)]
pub mod sse;
mod table;
#[doc(hidden)]
pub mod umbel_v1;

use std::borrow::Cow;
use std::ops::ControlFlow;

pub use command::{Command, CommandError, CommandLimits, ErrorCode, Once, ShownToken, Target};
pub use ending::CloseReason;
pub use fields::check_idempotency_key;
pub use form::{Class, Encoding, Form, Place, RecentDeliveries};
pub use history::History;
pub use info::info_json;
pub use message::Message;
pub use publication_fields::PublicationFields;
pub use reply::{Push, Reply, Subscribed, Welcome};
pub use table::{COMMANDS_PATH, Dialects, Entrance, Row};

pub use crate::auth::topic_signature::TopicSignature;
pub use crate::hub::options::{KEY_BYTES_MAX, check_key};
use crate::hub::{Position, Publication, ReactorId};
use crate::protocol::deflate::Agreement;
use crate::protocol::{CloseCode, Opcode};
use crate::topic::{Pattern, Topic};

/// Makes a gap marker's frame: publications of a topic from one position to another, both included, do not come. The
/// pattern is that of the subscription, if it is one by a pattern. It never makes an empty one.
pub type GapEncoder = fn(&Topic, Option<&Pattern>, Position, Position) -> Box<[u8]>;

/// Takes a message's commands one by one, or an error for one. Or does not take it now: then the message is parsed again
/// later, from there on.
pub type OnCommand<'f, 'a> = dyn FnMut(Result<Command<'a>, CommandError>) -> ControlFlow<()> + 'f;

/// A dialect: publications, commands and replies on one kind of connection. One value serves all connections of all
/// threads; it is asked once for each publication and message, and never for a delivery.
pub trait Dialect: Send + Sync {
    /// Its name in metrics.
    fn label(&self) -> &'static str;

    /// What its bytes go out in.
    fn framing(&self) -> Framing {
        Framing::Messages
    }

    /// Appends a publication: the payload of its message or, on a stream, all its bytes. With a pattern it is for those
    /// who subscribe by that.
    fn encode_publication(
        &self,
        out: &mut Vec<u8>,
        publication: &Publication,
        pattern: Option<&Pattern>,
    );

    /// About how many bytes that is, for the room to make.
    fn publication_bytes(&self, publication: &Publication, pattern: Option<&Pattern>) -> usize {
        let topic = publication.topic().map_or(0, |topic| topic.as_str().len());
        let names = topic + pattern.map_or(0, |pattern| pattern.as_str().len());
        publication.payload().len() + names + 160
    }

    /// What a publication's message is.
    fn publication_opcode(&self, _: &Publication) -> Opcode {
        Opcode::Text
    }

    /// The class in which a connection takes publications best that agreed to this compression.
    fn class(&self, _: Agreement) -> Class {
        Class::Plain
    }

    /// What becomes of a peer that is too slow for publications which may be dropped.
    fn gaps(&self) -> Gaps {
        Gaps::Unseen
    }

    /// The code of a Close that stands for the status of a refused handshake, for scripts, which see no status. Without
    /// one they get the status all the same.
    fn refusal_code(&self, status: u16) -> Option<CloseCode> {
        let _ = status;
        None
    }

    /// Whether a peer may open a connection without a credential, to show it by a command.
    fn signs_in(&self) -> bool {
        false
    }

    /// A connection opens. What is said here comes first on it.
    fn open(&self, _: &Opening<'_>) -> Greeting {
        Greeting::default()
    }

    /// Parses a message of a peer: hands each command to `each`, in order, or in its place what is wrong with it; the
    /// others go on. Gives the place of the first that `each` did not take, in bytes from the message's beginning; with
    /// that as `place` it is called again. 0 is the whole message.
    ///
    /// # Errors
    /// The connection is to be closed for it, behind the replies.
    fn parse<'a>(
        &self,
        message: Message<'a>,
        place: usize,
        limits: &CommandLimits,
        each: &mut OnCommand<'_, 'a>,
    ) -> Result<Option<usize>, Closing> {
        let _ = (message, place, limits);
        let reason = "this connection takes no commands";
        let taken = each(Err(CommandError::new(None, ErrorCode::Unsupported, reason)));
        Ok(taken.is_break().then_some(0))
    }

    /// Appends the reply to a command to the payload of a message, behind those that it holds already. `id` is what the
    /// peer calls its command. A dialect that has nothing to say appends nothing.
    fn encode_reply(&self, message: &mut Vec<u8>, id: Option<u32>, reply: &Reply<'_>) {
        let _ = (message, id, reply);
    }

    /// Whether the replies to the commands of one message leave in one message.
    fn joins_replies(&self) -> bool {
        false
    }

    /// Whether the reply to a subscribe holds the publications that were missed. Else each follows by itself.
    fn holds_replay(&self) -> bool {
        false
    }

    /// Appends what is told unasked, besides publications, as the payload of a message.
    fn encode_push(&self, message: &mut Vec<u8>, push: &Push<'_>) {
        let _ = (message, push);
    }

    /// What the messages with replies and pushes are.
    fn reply_opcode(&self) -> Opcode {
        Opcode::Text
    }

    /// Pings by messages of its own. None: by those of RFC 6455, at the server's interval.
    fn pings(&self) -> Option<Pings> {
        None
    }

    /// The code and the words that a peer is told when its connection is ended.
    fn close_code(&self, reason: CloseReason) -> (CloseCode, &'static str) {
        reason.on_wire()
    }

    /// Appends the head of the answer that a stream is, and what stands first in it.
    fn encode_stream_start(&self, out: &mut Vec<u8>, start: &StreamStart<'_>) {
        let _ = (out, start);
    }

    /// Appends what is last in a stream whose reader is to come back.
    fn encode_stream_end(&self, out: &mut Vec<u8>, end: &StreamEnd<'_>) {
        let _ = (out, end);
    }

    /// Appends a sign of life to a stream.
    fn encode_keep_alive(&self, out: &mut Vec<u8>) {
        let _ = out;
    }
}

/// Framing of a dialect's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Messages of RFC 6455.
    Messages,
    /// The body of an answer that does not end.
    Stream,
}

/// Treatment of dropped publications by a dialect.
#[derive(Clone, Copy)]
pub enum Gaps {
    /// They are dropped, and the peer is told which. Those of which it wants the newest only are not told of.
    Shown(GapEncoder),
    /// Those of which it wants the newest only are dropped. Where it would have to be told, the connection is closed.
    Unseen,
    /// None is dropped: the connection is closed instead, whatever the rule says.
    Fatal,
}

/// A connection that opens.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The target of the request, with its query.
    pub target: &'a str,
    /// The reactor that owns the connection.
    pub reactor: ReactorId,
    /// The reactor's own name for it, as [`Member`](crate::hub::Member) has it.
    pub connection: u64,
    /// Identity of its opener, if a credential was shown.
    pub welcome: Option<Welcome<'a>>,
}

/// First message to a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// The payload of its first message; empty: there is none.
    pub message: Vec<u8>,
    /// It is closed behind that.
    pub closing: Option<Closing>,
}

/// Last message to a peer that is closed for its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The code.
    pub code: CloseCode,
    /// The reason. More than 123 bytes are cut off.
    pub words: Cow<'static, str>,
}

/// Pings by messages of a dialect's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pings {
    /// The payload of the message.
    pub message: &'static [u8],
    /// After how much silence it is sent, in milliseconds.
    pub interval_ms: u64,
    /// Time in which the peer has to say something, in milliseconds. It is closed after that.
    pub timeout_ms: u64,
}

/// The answer that a stream is.
#[derive(Clone, Copy, Debug)]
pub struct StreamStart<'a> {
    /// Headers besides those of the dialect.
    pub headers: &'a [(&'a str, &'a str)],
    /// Position of its topic, if that was asked.
    pub joined: Option<JoinedAt>,
}

/// End of a stream whose reader is to come back.
#[derive(Clone, Copy, Debug)]
pub struct StreamEnd<'a> {
    /// Wait before that, in milliseconds.
    pub retry_ms: u32,
    /// Refusal that is the whole of the stream: its status and what was wrong.
    pub refusal: Option<(u16, &'a str)>,
    /// The identity of its reader has ended. The reader is not told when to come back.
    pub is_expired: bool,
}

/// Position of a topic as a subscription to it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinedAt {
    /// All that comes after it follows.
    pub position: Position,
    /// Whether the publications since the one that was given are complete; None: none was given.
    pub recovered: Option<bool>,
    /// Publications follow that were missed.
    pub has_replay: bool,
}
