//! The compact framing of `umbel.v1.bin`: publications in binary messages, with nothing escaped.
//!
//! ```text
//!  to subscribers:   u8 type: 1 text, 2 binary | u8 flags: 1 pattern, 2 key, 4 fields | u64 epoch | u64 offset |
//!                    name topic | [name pattern] | [name key] | [fields] | payload to the end of the message
//!  from publishers:  u8 type: 3 text, 4 binary | u8 flags: 1 id, 2 key, 4 receipt, 8 idempotency key, 16 fields |
//!                    [u32 id] | name topic | [name key] | [name idempotency key | u32 first sent, in milliseconds
//!                    before the connection opened, or ffffffff: never before] | [fields] | payload to the end of the
//!                    message
//!
//!  name:  u8 length | that many bytes of UTF-8
//! ```
//!
//! Numbers are big-endian; what stands in brackets is there if its flag is set. All else is as in
//! the page of the dialect.

use std::borrow::Cow;

use super::super::PublicationFields;
use super::super::command::{Command, CommandError, CommandLimits, ErrorCode, Once};
use super::super::fields::{Fault, check_once, parse_topic};
use super::Delivery;
use super::binary_fields::{encode_fields, parse_fields, take_options};
use crate::hub::options::{JSON, check_key};
use crate::hub::{Kind, Position, PublishOptions};
use crate::protocol::parse_text;

/// The name of the subprotocol.
pub const SUBPROTOCOL: &str = "umbel.v1.bin";

const DELIVER_TEXT: u8 = 1;
const DELIVER_BINARY: u8 = 2;
const PUBLISH_TEXT: u8 = 3;
const PUBLISH_BINARY: u8 = 4;

const DELIVER_PATTERN: u8 = 1;
const DELIVER_KEY: u8 = 2;
const DELIVER_FIELDS: u8 = 4;

const PUBLISH_ID: u8 = 1;
const PUBLISH_KEY: u8 = 2;
const PUBLISH_RECEIPT: u8 = 4;
const PUBLISH_ONCE: u8 = 8;
const PUBLISH_FIELDS: u8 = 16;
const PUBLISH_FLAGS: u8 =
    PUBLISH_ID | PUBLISH_KEY | PUBLISH_RECEIPT | PUBLISH_ONCE | PUBLISH_FIELDS;

/// In place of the time: it was not sent before.
const NEVER_SENT: u32 = u32::MAX;

/// Parses a binary message of a client's, which is always a publish.
///
/// # Errors
/// What the message is answered with.
pub fn parse_publish<'a>(
    message: &'a [u8],
    limits: &CommandLimits,
) -> Result<Command<'a>, CommandError> {
    let mut rest = message;
    let mut id = None;
    parse_parts(&mut rest, &mut id, limits)
        .map_err(|fault| CommandError::new(id, fault.code, fault.reason))
}

/// `id` is set as soon as it is known, for the fault that may follow.
fn parse_parts<'a>(
    rest: &mut &'a [u8],
    id: &mut Option<u32>,
    limits: &CommandLimits,
) -> Result<Command<'a>, Fault> {
    let kind = match take_byte(rest)? {
        PUBLISH_TEXT => Kind::Text,
        PUBLISH_BINARY => Kind::Binary,
        _ => return Err(Fault::invalid("there is no binary message of this type")),
    };
    let flags = take_byte(rest)?;
    if flags & !PUBLISH_FLAGS != 0 {
        return Err(Fault::invalid("there is a flag that is not known"));
    }
    if flags & PUBLISH_ID != 0 {
        *id = Some(u32::from_be_bytes(*take_array(rest)?));
    }
    let topic = take_name(rest)?
        .ok_or_else(|| Fault::new(ErrorCode::InvalidTopic, "the topic is not UTF-8"))?;
    let topic = parse_topic(topic)?;
    let key = match flags & PUBLISH_KEY {
        0 => None,
        _ => Some(take_name(rest)?.ok_or_else(|| Fault::invalid("the key is not UTF-8"))?),
    };
    key.map_or(Ok(()), check_key).map_err(Fault::invalid)?;
    let once = match flags & PUBLISH_ONCE {
        0 => None,
        _ => Some(Box::new(take_once(rest, *id)?)),
    };
    let mut options = PublishOptions::default();
    if let Some(key) = key {
        options = options.key(key);
    }
    if flags & PUBLISH_FIELDS != 0 {
        options = take_options(rest, options, &limits.fields)?;
    }
    let (payload, bytes_max) = (*rest, limits.payload_bytes_max);
    if payload.len() > bytes_max {
        let reason = format!("the message is longer than {bytes_max} bytes");
        return Err(Fault::new(ErrorCode::TooBig, reason));
    }
    if kind == Kind::Text && parse_text(payload).is_err() {
        return Err(Fault::invalid("the text is not UTF-8"));
    }
    Ok(Command::Publish {
        id: *id,
        topic,
        kind,
        payload: Cow::Borrowed(payload),
        options,
        wants_receipt: flags & PUBLISH_RECEIPT != 0,
        once,
    })
}

fn take_once<'a>(rest: &mut &'a [u8], id: Option<u32>) -> Result<Once<'a>, Fault> {
    let key = take_name(rest)?;
    let key = key.ok_or_else(|| Fault::invalid("the idempotency key is not UTF-8"))?;
    check_once(key, id)?;
    let first_sent_ms = u32::from_be_bytes(*take_array(rest)?);
    Ok(Once {
        key: Cow::Borrowed(key),
        first_sent_ms: (first_sent_ms != NEVER_SENT).then_some(first_sent_ms),
    })
}

/// Appends a publish as a binary message; false, and nothing, for any other command.
#[must_use]
pub fn encode_publish(out: &mut Vec<u8>, command: &Command<'_>) -> bool {
    let Command::Publish {
        id,
        topic,
        kind,
        payload,
        options,
        wants_receipt,
        once,
    } = command
    else {
        return false;
    };
    let key = options.extras().and_then(|it| it.key.as_deref());
    let fields = PublicationFields::of_options(options);
    let has_fields = fields != PublicationFields::default();
    out.push(match kind {
        Kind::Text => PUBLISH_TEXT,
        Kind::Binary => PUBLISH_BINARY,
    });
    out.push(
        flag(id.is_some(), PUBLISH_ID)
            | flag(key.is_some(), PUBLISH_KEY)
            | flag(*wants_receipt, PUBLISH_RECEIPT)
            | flag(once.is_some(), PUBLISH_ONCE)
            | flag(has_fields, PUBLISH_FIELDS),
    );
    if let Some(id) = id {
        out.extend_from_slice(&id.to_be_bytes());
    }
    encode_name(out, topic.as_str());
    if let Some(key) = key {
        encode_name(out, key);
    }
    if let Some(once) = once {
        encode_name(out, &once.key);
        out.extend_from_slice(&once.first_sent_ms.unwrap_or(NEVER_SENT).to_be_bytes());
    }
    if has_fields {
        encode_fields(out, &fields);
    }
    out.extend_from_slice(payload);
    true
}

/// Appends a publication as the payload of a binary message.
pub fn encode_delivery(out: &mut Vec<u8>, delivery: &Delivery<'_>) {
    // That a payload is JSON is told beside other fields alone, unless the publisher named its content type: messages with
    // nothing new stay as they always were.
    let has_fields = delivery.fields
        != PublicationFields {
            content_type: delivery.fields.content_type.filter(|it| *it == JSON),
            ..PublicationFields::default()
        };
    out.push(match delivery.kind {
        Kind::Text => DELIVER_TEXT,
        Kind::Binary => DELIVER_BINARY,
    });
    out.push(
        flag(delivery.pattern.is_some(), DELIVER_PATTERN)
            | flag(delivery.key.is_some(), DELIVER_KEY)
            | flag(has_fields, DELIVER_FIELDS),
    );
    out.extend_from_slice(&delivery.position.epoch.to_be_bytes());
    out.extend_from_slice(&delivery.position.offset.to_be_bytes());
    encode_name(out, delivery.topic);
    for name in [delivery.pattern, delivery.key].into_iter().flatten() {
        encode_name(out, name);
    }
    if has_fields {
        encode_fields(out, &delivery.fields);
    }
    out.extend_from_slice(delivery.payload);
}

/// Parses a binary message of the server's. `None`: it is not one.
pub fn parse_delivery(message: &[u8]) -> Option<Delivery<'_>> {
    let mut rest = message;
    let kind = match take_byte(&mut rest).ok()? {
        DELIVER_TEXT => Kind::Text,
        DELIVER_BINARY => Kind::Binary,
        _ => return None,
    };
    let flags = take_byte(&mut rest).ok()?;
    if flags & !(DELIVER_PATTERN | DELIVER_KEY | DELIVER_FIELDS) != 0 {
        return None;
    }
    let epoch = u64::from_be_bytes(*take_array(&mut rest).ok()?);
    let offset = u64::from_be_bytes(*take_array(&mut rest).ok()?);
    let topic = take_name(&mut rest).ok()??;
    let mut take_if = |bit| match flags & bit {
        0 => Some(None),
        _ => take_name(&mut rest).ok()?.map(Some),
    };
    let pattern = take_if(DELIVER_PATTERN)?;
    let key = take_if(DELIVER_KEY)?;
    let fields = match flags & DELIVER_FIELDS {
        0 => PublicationFields::default(),
        _ => parse_fields(&mut rest)?,
    };
    if kind == Kind::Text && parse_text(rest).is_err() {
        return None;
    }
    Some(Delivery {
        topic,
        pattern,
        position: Position { epoch, offset },
        key,
        kind,
        payload: rest,
        fields,
    })
}

fn flag(is_set: bool, bit: u8) -> u8 {
    if is_set { bit } else { 0 }
}

/// Topics, patterns and keys have at most 255 bytes; what has more is cut off where a letter ends.
fn encode_name(out: &mut Vec<u8>, name: &str) {
    let mut len = name.len().min(usize::from(u8::MAX));
    while !name.is_char_boundary(len) {
        len -= 1;
    }
    out.push(len as u8);
    out.extend_from_slice(&name.as_bytes()[..len]);
}

fn cut_short() -> Fault {
    Fault::invalid("the message ends too early")
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, Fault> {
    take_array::<1>(rest).map(|[byte]| *byte)
}

fn take_array<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], Fault> {
    let (array, tail) = rest.split_first_chunk().ok_or_else(cut_short)?;
    *rest = tail;
    Ok(array)
}

/// A length and so many bytes; `None` if they are not UTF-8.
fn take_name<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a str>, Fault> {
    let len = usize::from(take_byte(rest)?);
    let (name, tail) = rest.split_at_checked(len).ok_or_else(cut_short)?;
    *rest = tail;
    Ok(std::str::from_utf8(name).ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hub::FieldLimits;
    use crate::topic::Topic;

    const POSITION: Position = Position {
        epoch: 0xa1,
        offset: 20,
    };

    const LIMITS: CommandLimits = CommandLimits {
        commands_max: 1,
        payload_bytes_max: 10,
        fields: FieldLimits::DEFAULT,
    };

    fn fault(message: &[u8]) -> (Option<u32>, ErrorCode) {
        let error = parse_publish(message, &LIMITS).expect_err("a fault");
        (error.id, error.code)
    }

    fn publish(key: Option<&'static str>, id: Option<u32>) -> Command<'static> {
        Command::Publish {
            id,
            topic: Topic::from_text("ab").unwrap(),
            kind: Kind::Text,
            payload: b"hi"[..].into(),
            options: key.map_or_else(PublishOptions::default, |key| {
                PublishOptions::default().key(key)
            }),
            wants_receipt: id.is_some(),
            once: None,
        }
    }

    fn once(command: Command<'static>, first_sent_ms: Option<u32>) -> Command<'static> {
        let Command::Publish {
            id,
            topic,
            kind,
            payload,
            options,
            wants_receipt,
            ..
        } = command
        else {
            return command;
        };
        let once = Some(Box::new(Once {
            key: "once".into(),
            first_sent_ms,
        }));
        Command::Publish {
            id,
            topic,
            kind,
            payload,
            options,
            wants_receipt,
            once,
        }
    }

    #[test]
    fn publishes() {
        for (message, command) in [
            (&b"\x03\x00\x02abhi"[..], publish(None, None)),
            (
                b"\x03\x07\x01\x02\x03\x04\x02ab\x03keyhi",
                publish(Some("key"), Some(0x0102_0304)),
            ),
            (
                b"\x03\x0d\x01\x02\x03\x04\x02ab\x04once\xff\xff\xff\xffhi",
                once(publish(None, Some(0x0102_0304)), None),
            ),
            (
                b"\x03\x0f\x01\x02\x03\x04\x02ab\x03key\x04once\x00\x00\x01\x00hi",
                once(publish(Some("key"), Some(0x0102_0304)), Some(256)),
            ),
        ] {
            assert_eq!(parse_publish(message, &LIMITS), Ok(command.clone()));
            let mut out = Vec::new();
            assert!(encode_publish(&mut out, &command));
            assert_eq!(out, message);
        }
        let empty = parse_publish(b"\x04\x00\x01a", &LIMITS).unwrap();
        assert!(
            matches!(empty, Command::Publish { kind: Kind::Binary, payload, .. } if payload.is_empty())
        );
        assert!(!encode_publish(
            &mut Vec::new(),
            &Command::Ping { id: None }
        ));
    }

    #[test]
    fn what_is_no_publish() {
        let (command, topic) = (ErrorCode::InvalidCommand, ErrorCode::InvalidTopic);
        for (message, code) in [
            (&b""[..], command),
            (b"\x03", command),
            (b"\x01\x00\x01ax", command),
            (b"\x05\x00\x01ax", command),
            (b"\x03\x08\x01a\x01k\xff\xff\xff\xffx", command),
            (b"\x03\x20\x01ax", command),
            (b"\x03\x08\x01ax", command),
            (b"\x03\x10\x01ax", command),
            (b"\x03\x01\0\0\0", command),
            (b"\x03\x00\x02a", command),
            (b"\x03\x00\x00x", topic),
            (b"\x03\x00\x01\0x", topic),
            (b"\x03\x00\x01\xff", topic),
            (b"\x03\x02\x01a\x00x", command),
            (b"\x03\x02\x01a\x01\nx", command),
            (b"\x03\x02\x01a\x01\xffx", command),
            (b"\x03\x02\x01a\x02x", command),
            (b"\x03\x00\x01a\xff", command),
            (b"\x03\x00\x01a01234567890", ErrorCode::TooBig),
        ] {
            assert_eq!(fault(message), (None, code), "{message:?}");
        }
        assert_eq!(fault(b"\x03\x01\0\0\0\x09\x00x"), (Some(9), topic));
    }

    #[test]
    fn deliveries() {
        let plain = Delivery {
            topic: "ab",
            pattern: None,
            position: POSITION,
            key: None,
            kind: Kind::Binary,
            payload: &[0xff],
            fields: PublicationFields::default(),
        };
        let full = Delivery {
            pattern: Some("*"),
            key: Some("key"),
            kind: Kind::Text,
            payload: b"hi",
            ..plain.clone()
        };
        for (delivery, message) in [
            (
                plain,
                &b"\x02\x00\0\0\0\0\0\0\0\xa1\0\0\0\0\0\0\0\x14\x02ab\xff"[..],
            ),
            (
                full,
                b"\x01\x03\0\0\0\0\0\0\0\xa1\0\0\0\0\0\0\0\x14\x02ab\x01*\x03keyhi",
            ),
        ] {
            let mut out = Vec::new();
            encode_delivery(&mut out, &delivery);
            assert_eq!(out, message);
            assert_eq!(parse_delivery(message), Some(delivery));
        }
        for message in [
            &b"\x03"[..],
            b"\x01\x08",
            b"\x01\x04",
            b"\x01\x00\0\0\0\0\0\0\0\xa1\0\0\0\0\0\0\0\x14\x02a",
        ] {
            assert_eq!(parse_delivery(message), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_message_panics(message: Vec<u8>, first in 0u8..6, flags in 0u8..17) {
            let message = [&[first, flags][..], &message].concat();
            let _ = (parse_publish(&message, &LIMITS), parse_delivery(&message));
        }
    }
}
