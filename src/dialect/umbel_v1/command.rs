//! Commands, parsed from text messages and encoded into them.

use std::fmt;
use std::ops::ControlFlow;

use serde::de::{DeserializeSeed, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::super::command::{
    Command, CommandError, CommandLimits, ErrorCode, Once, ShownToken, Target,
};
use super::super::fields::{Fault, Field, Fields, first_byte, invalid_json};
use super::super::object::Object;
use super::super::{OnCommand, PublicationFields, TopicSignature};
use crate::hub::{Position, Start};
use crate::topic::Pattern;

/// Parses a text message: one command, or an array of them. Each is handed to `each` in order, or in its place what is
/// wrong with it; the others go on. Of a message that is not JSON, or holds too many commands, none is carried out.
pub fn parse_commands<'a>(
    text: &'a str,
    limits: &CommandLimits,
    each: &mut dyn FnMut(Result<Command<'a>, CommandError>),
) {
    take_commands(text, 0, limits, &mut |command| {
        each(command);
        ControlFlow::Continue(())
    });
}

/// Commands from a place on. As [`parse_commands`], until `each` does not take one; gives the place of that.
pub fn take_commands<'a>(
    text: &'a str,
    place: usize,
    limits: &CommandLimits,
    each: &mut OnCommand<'_, 'a>,
) -> Option<usize> {
    if place > 0 {
        return take_rest(text, place, limits, each);
    }
    if first_byte(text) != Some(b'[') {
        let taken = each(parse_command(text, limits));
        return taken.is_break().then_some(0);
    }
    match parse_batch(text, limits.commands_max) {
        Ok(items) => {
            let mut items = items.into_iter().map(RawValue::get);
            let left = items.find(|item| each(parse_command(item, limits)).is_break())?;
            Some(left.as_ptr() as usize - text.as_ptr() as usize)
        }
        Err(fault) => {
            let taken = each(Err(CommandError::of_fault(None, fault)));
            taken.is_break().then_some(0)
        }
    }
}

/// Goes on at an item of an array that was found to be sound.
fn take_rest<'a>(
    text: &'a str,
    mut place: usize,
    limits: &CommandLimits,
    each: &mut OnCommand<'_, 'a>,
) -> Option<usize> {
    loop {
        let mut values = serde_json::Deserializer::from_str(text.get(place..)?).into_iter();
        let item: &RawValue = values.next()?.ok()?;
        if each(parse_command(item.get(), limits)).is_break() {
            return Some(place);
        }
        let behind = text[place + values.byte_offset()..].trim_ascii_start();
        let next = behind.strip_prefix(',')?.trim_ascii_start();
        place = text.len() - next.len();
    }
}

/// Cuts an array into its items, without looking into them.
fn parse_batch(text: &str, commands_max: usize) -> Result<Vec<&RawValue>, Fault> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let items = Items { commands_max }
        .deserialize(&mut deserializer)
        .and_then(|items| deserializer.end().map(|()| items));
    items.map_err(|error| {
        if error.is_data() {
            let reason = format!("a message holds at most {commands_max} commands");
            return Fault::new(ErrorCode::TooBig, reason);
        }
        invalid_json(&error)
    })
}

struct Items {
    commands_max: usize,
}

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() == self.commands_max {
                return Err(A::Error::custom("too many"));
            }
            items.push(item);
        }
        Ok(items)
    }
}

fn parse_command<'a>(text: &'a str, limits: &CommandLimits) -> Result<Command<'a>, CommandError> {
    let mut fields = Fields::parse(text).map_err(|fault| CommandError::of_fault(None, fault))?;
    let id = fields
        .take_u32(Field::Id)
        .map_err(|fault| CommandError::of_fault(None, fault))?;
    parse_fields(fields, id, limits).map_err(|fault| CommandError::of_fault(id, fault))
}

fn parse_fields<'a>(
    mut fields: Fields<'a>,
    id: Option<u32>,
    limits: &CommandLimits,
) -> Result<Command<'a>, Fault> {
    let kind = fields
        .take_text(Field::Type)?
        .ok_or_else(|| Fault::invalid("\"type\" is missing"))?;
    let command = match &*kind {
        "subscribe" => {
            let target = parse_target(&mut fields)?;
            let start = match target {
                Target::Topic(_) => parse_start(&mut fields)?,
                // A start that was given is left over, and so a fault.
                Target::Pattern(_) => Start::Now,
            };
            let signature = match target {
                Target::Topic(_) => parse_signature(&mut fields)?,
                // So is a signature, which is for a topic.
                Target::Pattern(_) => None,
            };
            Command::Subscribe {
                id,
                target,
                start,
                echo: fields.take_echo()?,
                signature: signature.map(Box::new),
            }
        }
        "unsubscribe" => Command::Unsubscribe {
            id,
            target: parse_target(&mut fields)?,
        },
        "publish" => {
            let topic = fields.take_topic()?;
            let (kind, payload) = fields.take_payload(limits.payload_bytes_max)?;
            Command::Publish {
                id,
                topic,
                kind,
                payload,
                options: fields.take_options(&limits.fields)?,
                wants_receipt: fields.take_bool(Field::Receipt)?,
                once: fields.take_once(id)?.map(Box::new),
            }
        }
        "presence" => Command::Presence {
            id,
            topic: fields.take_topic()?,
        },
        "history" => Command::History {
            id,
            topic: fields.take_topic()?,
            start: parse_start(&mut fields)?,
            limit: parse_limit(&mut fields)?,
        },
        "ping" => Command::Ping { id },
        "auth" => {
            let token = fields.take_text(Field::Token)?;
            let token = token.ok_or_else(|| Fault::invalid("\"token\" is missing"))?;
            Command::Auth {
                id,
                token: ShownToken(token),
            }
        }
        _ => return Err(Fault::invalid("there is no command of this type")),
    };
    fields.finish()?;
    Ok(command)
}

fn parse_target(fields: &mut Fields<'_>) -> Result<Target, Fault> {
    let Some(pattern) = fields.take_text(Field::Pattern)? else {
        return fields.take_topic().map(Target::Topic);
    };
    Pattern::parse(&pattern)
        .map(Target::Pattern)
        .map_err(|error| Fault::new(ErrorCode::InvalidPattern, error.as_str()))
}

/// Members of a signature.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureMembers {
    exp: u64,
    #[serde(default)]
    sub: String,
    kid: String,
    sig: String,
}

fn parse_signature(fields: &mut Fields<'_>) -> Result<Option<TopicSignature>, Fault> {
    let Some(value) = fields.take(Field::Signature) else {
        return Ok(None);
    };
    let is_object = value.get().starts_with('{');
    match serde_json::from_str::<SignatureMembers>(value.get()) {
        Ok(it) if is_object => Ok(Some(TopicSignature {
            expires_at: it.exp,
            subject: it.sub,
            kid: it.kid,
            signature: it.sig,
        })),
        _ => Err(Fault::invalid(
            "\"signature\" is an object of exp, sub, kid and sig",
        )),
    }
}

fn encode_signature<'o>(object: Object<'o>, signature: &TopicSignature) -> Object<'o> {
    object.with("signature", |out| {
        Object::new(out)
            .value("exp", signature.expires_at)
            .text("sub", &signature.subject)
            .text("kid", &signature.kid)
            .text("sig", &signature.signature)
            .end();
    })
}

fn parse_limit(fields: &mut Fields<'_>) -> Result<Option<u32>, Fault> {
    match fields.take_u32(Field::Limit)? {
        Some(0) => Err(Fault::invalid("\"limit\" is 1 at least")),
        limit => Ok(limit),
    }
}

fn parse_start(fields: &mut Fields<'_>) -> Result<Start, Fault> {
    let since = fields.take_text(Field::Since)?;
    match (since, fields.take_u32(Field::Last)?) {
        (None, None) => Ok(Start::Now),
        (None, Some(count)) => Ok(Start::Last(count)),
        (Some(since), None) => Position::parse(&since).map(Start::Since).ok_or_else(|| {
            Fault::new(
                ErrorCode::InvalidPosition,
                "\"since\" is not a position: 16 hexadecimal digits, a colon and an offset",
            )
        }),
        (Some(_), Some(_)) => Err(Fault::invalid("\"since\" and \"last\" exclude each other")),
    }
}

/// Appends the command as a text message holds it.
pub fn encode_command(out: &mut Vec<u8>, command: &Command<'_>) {
    match command {
        Command::Subscribe {
            id,
            target,
            start,
            echo,
            signature,
        } => {
            let object = encode_target(begin(out, "subscribe", *id), target);
            let object = encode_start(object, *start);
            let object = match signature {
                Some(signature) => encode_signature(object, signature),
                None => object,
            };
            match echo {
                true => object,
                false => object.value("echo", false),
            }
        }
        Command::Unsubscribe { id, target } => {
            encode_target(begin(out, "unsubscribe", *id), target)
        }
        Command::Publish {
            id,
            topic,
            kind,
            payload,
            options,
            wants_receipt,
            once,
        } => {
            let mut object = begin(out, "publish", *id)
                .text("topic", topic.as_str())
                .text_if("key", options.extras().and_then(|it| it.key.as_deref()));
            object = PublicationFields::of_options(options).encode(object);
            object = object.payload(*kind, payload);
            if *wants_receipt {
                object = object.value("receipt", true);
            }
            match once {
                Some(once) => encode_once(object, once),
                None => object,
            }
        }
        Command::Presence { id, topic } => {
            begin(out, "presence", *id).text("topic", topic.as_str())
        }
        Command::History {
            id,
            topic,
            start,
            limit,
        } => {
            let object = begin(out, "history", *id).text("topic", topic.as_str());
            let object = encode_start(object, *start);
            match limit {
                Some(limit) => object.value("limit", limit),
                None => object,
            }
        }
        Command::Ping { id } => begin(out, "ping", *id),
        Command::Auth { id, token } => begin(out, "auth", *id).text("token", &token.0),
    }
    .end();
}

fn encode_start(object: Object<'_>, start: Start) -> Object<'_> {
    match start {
        Start::Now => object,
        Start::Since(position) => object.plain("since", position),
        Start::Last(count) => object.value("last", count),
    }
}

fn encode_once<'o>(object: Object<'o>, once: &Once<'_>) -> Object<'o> {
    let object = object.text("idempotency_key", &once.key);
    match once.first_sent_ms {
        Some(first_sent_ms) => object.value("first_sent_ms", first_sent_ms),
        None => object,
    }
}

fn begin<'o>(out: &'o mut Vec<u8>, name: &str, id: Option<u32>) -> Object<'o> {
    let object = Object::of_type(out, name);
    match id {
        Some(id) => object.value("id", id),
        None => object,
    }
}

/// Adds what is subscribed to.
pub(super) fn encode_target<'o>(object: Object<'o>, target: &Target) -> Object<'o> {
    match target {
        Target::Topic(topic) => object.text("topic", topic.as_str()),
        Target::Pattern(pattern) => object.text("pattern", pattern.as_str()),
    }
}

#[cfg(test)]
mod tests;
