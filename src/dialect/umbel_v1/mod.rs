//! The dialect `umbel.v1`: many topics on one WebSocket connection, commands and answers in JSON.
//!
#![doc = include_str!("v1.md")]

mod answer;
#[doc(hidden)]
pub mod binary;
mod binary_fields;
mod command;
mod delivery;

#[doc(hidden)]
pub use answer::{
    encode_authenticated, encode_duplicate, encode_ended, encode_error, encode_expiring,
    encode_forbidden, encode_gap, encode_history, encode_message, encode_pong, encode_presence,
    encode_presence_change, encode_presence_skipped, encode_published, encode_skipped,
    encode_subscribed, encode_unsubscribed, encode_welcome, gap_frame,
};
#[doc(hidden)]
pub use command::{encode_command, parse_commands, take_commands};
#[doc(hidden)]
pub use delivery::{Delivery, opcode};

use super::command::{CommandError, CommandLimits, ErrorCode};
use super::{Class, Closing, Dialect, Gaps, Greeting, Message, OnCommand, Opening, Push, Reply};
use crate::hub::Publication;
use crate::protocol::deflate::{Agreement, WINDOW_BITS_MAX};
use crate::protocol::{CloseCode, Opcode};
use crate::topic::Pattern;

/// The name of the subprotocol.
#[doc(hidden)]
pub const SUBPROTOCOL: &str = "umbel.v1";

/// The dialect, in either of its encodings.
pub(crate) struct UmbelV1 {
    /// Publications come, and may be sent, as binary messages.
    pub is_binary: bool,
}

impl Dialect for UmbelV1 {
    fn label(&self) -> &'static str {
        match self.is_binary {
            true => binary::SUBPROTOCOL,
            false => SUBPROTOCOL,
        }
    }

    fn encode_publication(
        &self,
        out: &mut Vec<u8>,
        publication: &Publication,
        pattern: Option<&Pattern>,
    ) {
        Delivery::new(publication, pattern).encode_as(out, self.is_binary);
    }

    fn publication_bytes(&self, publication: &Publication, pattern: Option<&Pattern>) -> usize {
        Delivery::new(publication, pattern).bytes()
    }

    fn publication_opcode(&self, _: &Publication) -> Opcode {
        opcode(self.is_binary)
    }

    /// Small windows are too rare for a form of their own.
    fn class(&self, agreement: Agreement) -> Class {
        match agreement.server_window_bits < WINDOW_BITS_MAX {
            true => Class::Plain,
            false => Class::Large,
        }
    }

    fn gaps(&self) -> Gaps {
        Gaps::Shown(gap_frame)
    }

    fn signs_in(&self) -> bool {
        true
    }

    fn open(&self, opening: &Opening<'_>) -> Greeting {
        let mut message = Vec::new();
        if let Some(welcome) = &opening.welcome {
            encode_welcome(&mut message, welcome);
        }
        Greeting {
            message,
            closing: None,
        }
    }

    fn refusal_code(&self, status: u16) -> Option<CloseCode> {
        Some(match status {
            401 | 403 | 404 | 429 => CloseCode::new(4000 + status),
            500.. => CloseCode::TRY_AGAIN_LATER,
            _ => CloseCode::POLICY_VIOLATION,
        })
    }

    fn parse<'a>(
        &self,
        message: Message<'a>,
        place: usize,
        limits: &CommandLimits,
        each: &mut OnCommand<'_, 'a>,
    ) -> Result<Option<usize>, Closing> {
        let taken = match message {
            Message::Text(text) => return Ok(take_commands(text, place, limits, each)),
            Message::Binary(bytes) if self.is_binary => each(binary::parse_publish(bytes, limits)),
            Message::Binary(_) => {
                let reason = "binary messages are for the subprotocol umbel.v1.bin";
                each(Err(CommandError::new(None, ErrorCode::Unsupported, reason)))
            }
        };
        Ok(taken.is_break().then_some(0))
    }

    /// A command without a name is answered only if it is not carried out.
    fn encode_reply(&self, message: &mut Vec<u8>, id: Option<u32>, reply: &Reply<'_>) {
        match (reply, id) {
            (Reply::Refused(error), _) => encode_error(message, error),
            (Reply::Subscribed(it), None) if it.is_unasked => encode_subscribed(message, None, it),
            (_, None) => {}
            (Reply::Subscribed(it), Some(id)) => encode_subscribed(message, id, it),
            (Reply::Unsubscribed(target), Some(id)) => encode_unsubscribed(message, id, target),
            (Reply::Published(position, report), Some(id)) => {
                encode_published(message, id, *position, *report);
            }
            (Reply::Duplicate(position), Some(id)) => encode_duplicate(message, id, *position),
            (Reply::Skipped, Some(id)) => encode_skipped(message, id),
            (
                Reply::Present {
                    topic,
                    total,
                    members,
                },
                Some(id),
            ) => encode_presence(message, id, topic, *total, members),
            (Reply::History(history), Some(id)) => encode_history(message, id, history),
            (Reply::Pong, Some(id)) => encode_pong(message, id),
            (Reply::Authenticated(it), Some(id)) => encode_authenticated(message, id, it),
        }
    }

    fn encode_push(&self, message: &mut Vec<u8>, push: &Push<'_>) {
        match push {
            Push::Presence(change) => encode_presence_change(message, change),
            Push::Unsubscribed(target) => encode_forbidden(message, target),
            Push::Ended(target, code, reason) => encode_ended(message, target, code, *reason),
            Push::Message(kind, payload) => encode_message(message, *kind, payload),
            Push::Expiring(in_ms) => encode_expiring(message, *in_ms),
            Push::PresenceSkipped { topic, members } => {
                encode_presence_skipped(message, topic, *members);
            }
        }
    }
}

/// A code as it stands in an answer.
#[doc(hidden)]
pub fn code_text(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidJson => "invalid_json",
        ErrorCode::InvalidCommand => "invalid_command",
        ErrorCode::InvalidTopic => "invalid_topic",
        ErrorCode::InvalidPattern => "invalid_pattern",
        ErrorCode::InvalidPosition => "invalid_position",
        ErrorCode::Unauthorized => "unauthorized",
        ErrorCode::Forbidden => "forbidden",
        ErrorCode::SubjectChanged => "subject_changed",
        ErrorCode::RateLimited => "rate_limited",
        ErrorCode::AlreadySubscribed => "already_subscribed",
        ErrorCode::NotSubscribed => "not_subscribed",
        ErrorCode::TooManySubscriptions => "too_many_subscriptions",
        ErrorCode::TooManyTopics => "too_many_topics",
        ErrorCode::TooBig => "too_big",
        ErrorCode::IdempotencyKeyReused => "idempotency_key_reused",
        ErrorCode::FateUnknown => "fate_unknown",
        ErrorCode::Unavailable => "unavailable",
        ErrorCode::Unsupported => "unsupported",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{FieldLimits, Kind, Position};

    #[test]
    fn every_code_has_a_label_of_its_own() {
        let labels: std::collections::HashSet<_> =
            ErrorCode::ALL.into_iter().map(code_text).collect();
        assert_eq!(labels.len(), ErrorCode::ALL.len());
    }

    #[test]
    fn the_page_names_every_code() {
        let page = include_str!("v1.md");
        for code in ErrorCode::ALL {
            assert!(page.contains(&format!("`{}`", code_text(code))), "{code:?}");
        }
    }

    #[test]
    fn the_page_has_only_commands_that_parse_and_answers_that_are_json() {
        let page = include_str!("v1.md");
        let limits = CommandLimits {
            commands_max: 2,
            payload_bytes_max: 100,
            fields: FieldLimits::DEFAULT,
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
            fields: Default::default(),
        };
        let mut message = Vec::new();
        delivery.encode_as(&mut message, true);
        let digits: Vec<_> = message.iter().map(|byte| format!("{byte:02x}")).collect();
        let page = include_str!("v1.md").split_whitespace().collect::<Vec<_>>();
        assert!(page.join(" ").contains(&digits.join(" ")));
    }
}
