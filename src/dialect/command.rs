//! Commands of peers, whatever dialect they speak.

use std::borrow::Cow;
use std::fmt;

use super::fields::Fault;
use crate::auth::topic_signature::TopicSignature;
use crate::config::Limits;
use crate::http::refusal::Refusal;
use crate::hub::{FieldLimits, Kind, PublishOptions, Start};
use crate::topic::{Pattern, Topic};

/// Limits of a message.
#[derive(Clone, Copy, Debug)]
pub struct CommandLimits {
    /// Commands of one batch.
    pub commands_max: usize,
    /// Bytes of the payload of a publication.
    pub payload_bytes_max: usize,
    /// Limits of the other fields of a publication.
    pub fields: FieldLimits,
}

impl CommandLimits {
    /// The limits of a configuration.
    pub fn of(limits: &Limits) -> CommandLimits {
        CommandLimits {
            commands_max: limits.commands_per_message_max,
            payload_bytes_max: limits.publication_bytes_max,
            fields: FieldLimits {
                event_bytes_max: limits.event_bytes_max,
                id_bytes_max: limits.message_id_bytes_max,
                content_type_bytes_max: limits.content_type_bytes_max,
                tags_max: limits.tags_max,
                tags_bytes_max: limits.tags_bytes_max,
            },
        }
    }
}

/// Target of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// One topic.
    Topic(Topic),
    /// All topics that match.
    Pattern(Pattern),
}

/// Idempotency key of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once<'a> {
    /// The key: 1 to 255 bytes without control characters.
    pub key: Cow<'a, str>,
    /// It may have been sent before: at most so many milliseconds before this connection opened.
    pub first_sent_ms: Option<u32>,
}

/// A token that a peer shows. It stands in no log.
#[derive(Clone, PartialEq, Eq)]
pub struct ShownToken<'a>(pub Cow<'a, str>);

impl fmt::Debug for ShownToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// A peer's command. Its `id` is what the peer calls it, for the reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Command<'a> {
    /// Say who one is.
    Auth {
        /// For the reply.
        id: Option<u32>,
        /// The credential.
        token: ShownToken<'a>,
    },
    /// Hear of publications.
    Subscribe {
        /// For the reply.
        id: Option<u32>,
        /// Of which topics.
        target: Target,
        /// From where on; of a pattern always from now on.
        start: Start,
        /// Whether publications of this connection's own come too.
        echo: bool,
        /// What allows it, besides the rights of who asks.
        signature: Option<Box<TopicSignature>>,
    },
    /// Hear of them no more.
    Unsubscribe {
        /// For the reply.
        id: Option<u32>,
        /// What had been subscribed to.
        target: Target,
    },
    /// Send a message to all who subscribe to a topic.
    Publish {
        /// For the reply.
        id: Option<u32>,
        /// Where to.
        topic: Topic,
        /// Text or binary.
        kind: Kind,
        /// The message. Valid UTF-8 if it is text.
        payload: Cow<'a, [u8]>,
        /// Its options.
        options: PublishOptions,
        /// The answer is to come after the fan-out, and to say what became of it.
        wants_receipt: bool,
        /// It is to be carried out once, however often it comes.
        once: Option<Box<Once<'a>>>,
    },
    /// Ask who is on a topic.
    Presence {
        /// For the reply.
        id: Option<u32>,
        /// Which.
        topic: Topic,
    },
    /// Ask for a page of a topic's history.
    History {
        /// For the reply.
        id: Option<u32>,
        /// Which.
        topic: Topic,
        /// From where on; [`Start::Now`] is with the newest ones.
        start: Start,
        /// Publications of the page, if the peer says how many.
        limit: Option<u32>,
    },
    /// Ask for a pong.
    Ping {
        /// For the reply.
        id: Option<u32>,
    },
}

impl Command<'_> {
    /// Bytes of its payload.
    pub fn bytes(&self) -> usize {
        match self {
            Command::Publish { payload, .. } => payload.len(),
            _ => 0,
        }
    }
}

/// Reason that a command was not carried out, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The message is not JSON.
    InvalidJson,
    /// It is JSON, or a binary message, and not a command.
    InvalidCommand,
    /// What should be a topic is none.
    InvalidTopic,
    /// What should be a pattern is none.
    InvalidPattern,
    /// What should be a position is none.
    InvalidPosition,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// The policy forbids it.
    Forbidden,
    /// The connection subscribes to this already.
    AlreadySubscribed,
    /// The connection does not subscribe to this.
    NotSubscribed,
    /// The connection has as many subscriptions as it may.
    TooManySubscriptions,
    /// The server has as many topics as it may.
    TooManyTopics,
    /// The message to publish, or the batch, is over its limit.
    TooBig,
    /// The idempotency key was used for another publication.
    IdempotencyKeyReused,
    /// The publish was sent before, and whether it was carried out then is not known any more.
    FateUnknown,
    /// Not now; the same command may do later.
    Unavailable,
    /// Nothing that this server does.
    Unsupported,
    /// The token is somebody else's.
    SubjectChanged,
    /// More than this peer may; the same command may do later.
    RateLimited,
}

impl ErrorCode {
    /// All codes.
    pub const ALL: [ErrorCode; 18] = [
        ErrorCode::InvalidJson,
        ErrorCode::InvalidCommand,
        ErrorCode::InvalidTopic,
        ErrorCode::InvalidPattern,
        ErrorCode::InvalidPosition,
        ErrorCode::Unauthorized,
        ErrorCode::Forbidden,
        ErrorCode::AlreadySubscribed,
        ErrorCode::NotSubscribed,
        ErrorCode::TooManySubscriptions,
        ErrorCode::TooManyTopics,
        ErrorCode::TooBig,
        ErrorCode::IdempotencyKeyReused,
        ErrorCode::FateUnknown,
        ErrorCode::Unavailable,
        ErrorCode::Unsupported,
        ErrorCode::SubjectChanged,
        ErrorCode::RateLimited,
    ];
}

/// A command that is not carried out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// The command's, if it has one that can be read.
    pub id: Option<u32>,
    /// Why, for programs.
    pub code: ErrorCode,
    /// Why, for people.
    pub reason: Cow<'static, str>,
    /// Time after which the same may be tried again, in milliseconds.
    pub retry_ms: Option<u64>,
}

impl CommandError {
    /// One for the command with this id.
    pub fn new(
        id: Option<u32>,
        code: ErrorCode,
        reason: impl Into<Cow<'static, str>>,
    ) -> CommandError {
        CommandError {
            id,
            code,
            reason: reason.into(),
            retry_ms: None,
        }
    }

    /// One for a publish that is over its rate.
    pub fn rate_limited(id: Option<u32>, retry_ms: u64) -> CommandError {
        let reason = "more is published than publishes_per_identity_per_second allows";
        CommandError {
            retry_ms: Some(retry_ms),
            ..CommandError::new(id, ErrorCode::RateLimited, reason)
        }
    }

    /// Error for a command that would be refused so as a request.
    pub fn of_refusal(id: Option<u32>, refusal: Refusal) -> CommandError {
        let code = match refusal.status {
            401 => ErrorCode::Unauthorized,
            403 => ErrorCode::Forbidden,
            413 => ErrorCode::TooBig,
            422 => ErrorCode::IdempotencyKeyReused,
            429 => ErrorCode::RateLimited,
            500.. => ErrorCode::Unavailable,
            _ if refusal.label == "bad_topic" => ErrorCode::InvalidTopic,
            414 => ErrorCode::InvalidTopic,
            _ => ErrorCode::InvalidCommand,
        };
        CommandError::new(id, code, refusal.reason)
    }

    pub(super) fn of_fault(id: Option<u32>, fault: Fault) -> CommandError {
        CommandError::new(id, fault.code, fault.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_limits_of_fields_are_those_of_the_configuration() {
        let limits = CommandLimits::of(&Limits::default());
        assert_eq!(limits.fields, FieldLimits::DEFAULT);
    }

    #[test]
    fn refusals_of_requests_have_codes() {
        for (refusal, code) in [
            (Refusal::unauthorized("x"), ErrorCode::Unauthorized),
            (Refusal::forbidden("x"), ErrorCode::Forbidden),
            (Refusal::body_too_large("x"), ErrorCode::TooBig),
            (Refusal::unprocessable("x"), ErrorCode::IdempotencyKeyReused),
            (Refusal::too_many_requests("x"), ErrorCode::RateLimited),
            (Refusal::bad_topic("x"), ErrorCode::InvalidTopic),
            (Refusal::target_too_long("x"), ErrorCode::InvalidTopic),
            (Refusal::bad_request("x"), ErrorCode::InvalidCommand),
        ] {
            let error = CommandError::of_refusal(Some(1), refusal);
            assert_eq!(error, CommandError::new(Some(1), code, "x"));
        }
    }
}
