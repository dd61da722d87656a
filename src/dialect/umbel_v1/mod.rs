//! The dialect `umbel.v1`: many topics on one WebSocket connection, commands and answers in JSON.
//!
#![doc = include_str!("v1.md")]

mod answer;
#[doc(hidden)]
pub mod binary;
mod command;
mod delivery;

use std::borrow::Cow;

#[doc(hidden)]
pub use answer::{
    encode_error, encode_gap, encode_pong, encode_presence, encode_presence_change,
    encode_published, encode_subscribed, encode_unsubscribed, gap_frame, info_json,
};
#[doc(hidden)]
pub use command::{Command, CommandLimits, Target, parse_commands};
#[doc(hidden)]
pub use delivery::{Delivery, frame_for_pattern, frame_of, opcode};

pub(crate) use answer::encode_report;

use super::fields::Fault;
use crate::http::refusal::Refusal;

/// The name of the subprotocol.
#[doc(hidden)]
pub const SUBPROTOCOL: &str = "umbel.v1";

/// Why a command was not carried out, for programs.
#[doc(hidden)]
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
    /// Not now; the same command may do later.
    Unavailable,
    /// Nothing that this server does.
    Unsupported,
}

impl ErrorCode {
    /// All codes.
    pub const ALL: [ErrorCode; 14] = [
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
        ErrorCode::Unavailable,
        ErrorCode::Unsupported,
    ];

    /// As it stands in an answer.
    pub fn label(self) -> &'static str {
        match self {
            ErrorCode::InvalidJson => "invalid_json",
            ErrorCode::InvalidCommand => "invalid_command",
            ErrorCode::InvalidTopic => "invalid_topic",
            ErrorCode::InvalidPattern => "invalid_pattern",
            ErrorCode::InvalidPosition => "invalid_position",
            ErrorCode::Unauthorized => "unauthorized",
            ErrorCode::Forbidden => "forbidden",
            ErrorCode::AlreadySubscribed => "already_subscribed",
            ErrorCode::NotSubscribed => "not_subscribed",
            ErrorCode::TooManySubscriptions => "too_many_subscriptions",
            ErrorCode::TooManyTopics => "too_many_topics",
            ErrorCode::TooBig => "too_big",
            ErrorCode::Unavailable => "unavailable",
            ErrorCode::Unsupported => "unsupported",
        }
    }
}

/// A command that is not carried out, and why.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// The command's, if it has one that can be read.
    pub id: Option<u32>,
    /// Why, for programs.
    pub code: ErrorCode,
    /// Why, for people.
    pub reason: Cow<'static, str>,
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
        }
    }

    /// What the command is answered that would be refused so as a request.
    pub fn of_refusal(id: Option<u32>, refusal: Refusal) -> CommandError {
        let code = match refusal.status {
            401 => ErrorCode::Unauthorized,
            403 => ErrorCode::Forbidden,
            413 => ErrorCode::TooBig,
            429 | 500.. => ErrorCode::Unavailable,
            _ if refusal.label == "bad_topic" => ErrorCode::InvalidTopic,
            414 => ErrorCode::InvalidTopic,
            _ => ErrorCode::InvalidCommand,
        };
        CommandError::new(id, code, refusal.reason)
    }

    fn of_fault(id: Option<u32>, fault: Fault) -> CommandError {
        CommandError::new(id, fault.code, fault.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Kind, Position};

    #[test]
    fn every_code_has_a_label_of_its_own() {
        let labels: std::collections::HashSet<_> =
            ErrorCode::ALL.iter().map(|code| code.label()).collect();
        assert_eq!(labels.len(), ErrorCode::ALL.len());
    }

    #[test]
    fn the_page_names_every_code() {
        let page = include_str!("v1.md");
        for code in ErrorCode::ALL {
            assert!(page.contains(&format!("`{}`", code.label())), "{code:?}");
        }
    }

    #[test]
    fn the_page_has_only_commands_that_parse_and_answers_that_are_json() {
        let page = include_str!("v1.md");
        let limits = CommandLimits {
            commands_max: 2,
            payload_bytes_max: 100,
        };
        let rows = page.split('`').filter(|it| it.starts_with("{\"type\":"));
        let said = page.lines().filter_map(|line| line.strip_prefix("> "));
        let heard = page.lines().filter_map(|line| line.strip_prefix("< "));
        let blocks = page.split("```json\n").skip(1);
        let objects = blocks.flat_map(|it| it.split("```").next());
        let (mut commands, mut answers) = (0, 0);
        for text in rows.chain(said).chain(heard).chain(objects) {
            let values = serde_json::Deserializer::from_str(text).into_iter();
            for value in values {
                let value: serde_json::Value = value.expect(text);
                answers += u32::from(value.is_object());
            }
            parse_commands(text, &limits, &mut |it| commands += u32::from(it.is_ok()));
        }
        for text in page.lines().filter_map(|line| line.strip_prefix("> ")) {
            parse_commands(text, &limits, &mut |it| {
                assert!(it.is_ok(), "{text}: {it:?}");
            });
        }
        assert!(commands >= 11 && answers >= 22, "{commands} {answers}");
    }

    #[test]
    fn the_page_has_a_binary_message_as_it_is() {
        let delivery = Delivery {
            topic: "a",
            pattern: None,
            position: Position {
                epoch: 0xa1,
                offset: 20,
            },
            key: None,
            kind: Kind::Text,
            payload: b"hi",
        };
        let mut message = Vec::new();
        delivery.encode_as(&mut message, true);
        let digits: Vec<_> = message.iter().map(|byte| format!("{byte:02x}")).collect();
        let page = include_str!("v1.md").split_whitespace().collect::<Vec<_>>();
        assert!(page.join(" ").contains(&digits.join(" ")));
    }

    #[test]
    fn refusals_of_requests_have_codes() {
        for (refusal, code) in [
            (Refusal::unauthorized("x"), ErrorCode::Unauthorized),
            (Refusal::forbidden("x"), ErrorCode::Forbidden),
            (Refusal::body_too_large("x"), ErrorCode::TooBig),
            (Refusal::bad_topic("x"), ErrorCode::InvalidTopic),
            (Refusal::target_too_long("x"), ErrorCode::InvalidTopic),
            (Refusal::bad_request("x"), ErrorCode::InvalidCommand),
        ] {
            let error = CommandError::of_refusal(Some(1), refusal);
            assert_eq!(error, CommandError::new(Some(1), code, "x"));
        }
    }
}
