//! JSON objects that peers send: their fields, known by name, each decoded when it is asked for.
//!
//! Nothing is taken silently: a field that is not known, that stands twice, that has the wrong type, or that does not
//! belong to what is asked for is a fault. Of what the peer sent a reason repeats no more than the beginning of an unknown
//! field's name, so that a long field makes no long answer, and a value is borrowed from the text until somebody needs it
//! decoded.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{ErrorCode, Once};
use crate::http::escape::escape;
use crate::hub::idempotency::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::hub::options::{check_key, parse_ttl_ms};
use crate::hub::{FieldError, FieldLimits, Kind, PublishOptions, Tag};
use crate::topic::Topic;

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub code: ErrorCode,
    pub reason: Cow<'static, str>,
}

impl Fault {
    pub fn new(code: ErrorCode, reason: impl Into<Cow<'static, str>>) -> Fault {
        Fault {
            code,
            reason: reason.into(),
        }
    }

    /// The object is JSON, and not what it should be.
    pub fn invalid(reason: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(ErrorCode::InvalidCommand, reason)
    }
}

impl From<FieldError> for Fault {
    fn from(error: FieldError) -> Fault {
        Fault::invalid(error.0)
    }
}

/// Makes the table of fields: each has its name once.
macro_rules! fields {
    ($($field:ident $name:literal,)*) => {
        /// The fields there are, of all kinds of objects.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Field {
            $($field,)*
        }

        impl Field {
            const NAMES: [&'static str; [$($name),*].len()] = [$($name),*];

            fn of_name(name: &str) -> Option<Field> {
                Some(match name {
                    $($name => Field::$field,)*
                    _ => return None,
                })
            }
        }
    };
}

fields! {
    Type "type",
    Id "id",
    Topic "topic",
    Pattern "pattern",
    Since "since",
    Last "last",
    Data "data",
    Base64 "base64",
    Key "key",
    Receipt "receipt",
    IdempotencyKey "idempotency_key",
    FirstSentMs "first_sent_ms",
    Limit "limit",
    Echo "echo",
    Event "event",
    MessageId "message_id",
    ContentType "content_type",
    Tags "tags",
    TtlMs "ttl_ms",
    Tombstone "tombstone",
    Token "token",
    Signature "signature",
}

impl Field {
    fn name(self) -> &'static str {
        Field::NAMES[self as usize]
    }
}

/// An object's fields that have not been taken yet.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    values: [Option<&'a RawValue>; Field::NAMES.len()],
    fault: Option<Fault>,
    /// The payload that was taken is a JSON value, and no string.
    is_json: bool,
}

impl<'a> Fields<'a> {
    /// The fields of the object that `text` is. A field that is not known or stands twice does not fail here, for then
    /// nobody could say which command failed, but in [`finish`](Fields::finish).
    pub fn parse(text: &'a str) -> Result<Fields<'a>, Fault> {
        if first_byte(text) != Some(b'{') {
            if text.trim_start().starts_with('\u{feff}') {
                // Nobody sees it in an editor.
                let reason = "not JSON: it begins with a byte order mark";
                return Err(Fault::new(ErrorCode::InvalidJson, reason));
            }
            return Err(match serde_json::from_str::<IgnoredAny>(text) {
                Ok(_) => Fault::invalid("an object is needed here"),
                Err(error) => invalid_json(&error),
            });
        }
        serde_json::from_str(text).map_err(|error| invalid_json(&error))
    }

    /// The value as it stands.
    pub fn take(&mut self, field: Field) -> Option<&'a RawValue> {
        self.values[field as usize].take()
    }

    /// Value of a string field.
    pub fn take_text(&mut self, field: Field) -> Result<Option<Cow<'a, str>>, Fault> {
        let Some(value) = self.take(field) else {
            return Ok(None);
        };
        parse_text(value)
            .map(Some)
            .map_err(|reason| Fault::invalid(format!("\"{}\" {reason}", field.name())))
    }

    /// Value of a field that is an integer of 32 bits.
    pub fn take_u32(&mut self, field: Field) -> Result<Option<u32>, Fault> {
        let Some(value) = self.take(field) else {
            return Ok(None);
        };
        // JSON has neither signs in front of positive numbers nor leading zeros.
        let digits = value.get();
        let is_integer = digits.bytes().all(|byte| byte.is_ascii_digit());
        match digits.parse() {
            Ok(number) if is_integer => Ok(Some(number)),
            _ => Err(Fault::invalid(format!(
                "\"{}\" is not an integer from 0 to {}",
                field.name(),
                u32::MAX
            ))),
        }
    }

    /// Value of a boolean field, false if it is absent.
    pub fn take_bool(&mut self, field: Field) -> Result<bool, Fault> {
        match self.take(field).map(RawValue::get) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Fault::invalid(format!(
                "\"{}\" is neither true nor false",
                field.name()
            ))),
        }
    }

    /// Whether a subscription has an echo: it has unless it says that it has not.
    pub fn take_echo(&mut self) -> Result<bool, Fault> {
        match self.values[Field::Echo as usize] {
            None => Ok(true),
            Some(_) => self.take_bool(Field::Echo),
        }
    }

    /// The topic, which has to be there.
    pub fn take_topic(&mut self) -> Result<Topic, Fault> {
        parse_topic(&self.take_topic_text()?)
    }

    /// Text of a topic field.
    pub fn take_topic_text(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.take_text(Field::Topic)?
            .ok_or_else(|| Fault::invalid("\"topic\" is missing"))
    }

    /// Options of a publication. To be taken behind its payload: one that is a JSON value has the content type of JSON,
    /// unless it says another.
    pub fn take_options(&mut self, limits: &FieldLimits) -> Result<PublishOptions, Fault> {
        let mut options = PublishOptions::default();
        if let Some(key) = self.take_text(Field::Key)? {
            check_key(&key).map_err(Fault::invalid)?;
            options = options.key(&*key);
        }
        if let Some(event) = self.take_text(Field::Event)? {
            limits.check_event(&event)?;
            options = options.event(&*event);
        }
        if let Some(id) = self.take_text(Field::MessageId)? {
            limits.check_id(&id)?;
            options = options.id(&*id);
        }
        if let Some(content_type) = self.take_text(Field::ContentType)? {
            limits.check_content_type(&content_type)?;
            options = options.content_type(&content_type);
        } else if self.is_json {
            options = options.json();
        }
        if let Some(tags) = self.take(Field::Tags) {
            options = options.tags(parse_tags(tags, limits)?);
        }
        if let Some(ttl_ms) = self.take(Field::TtlMs) {
            options = options.ttl_ms(parse_ttl_ms(ttl_ms.get())?);
        }
        if self.take_bool(Field::Tombstone)? {
            options = options.tombstone();
        }
        Ok(options)
    }

    /// Idempotency key of a publish, if it has one.
    pub fn take_once(&mut self, id: Option<u32>) -> Result<Option<Once<'a>>, Fault> {
        let Some(key) = self.take_text(Field::IdempotencyKey)? else {
            return Ok(None);
        };
        check_once(&key, id)?;
        let first_sent_ms = self.take_u32(Field::FirstSentMs)?;
        Ok(Some(Once { key, first_sent_ms }))
    }

    /// The message of a publication: `"data"`, where a string is the message itself and any other value is the message
    /// as it stands, or `"base64"`. A value is taken only if strict readers take it, too: nested no deeper than 127, its
    /// numbers in range, surrogates in pairs.
    pub fn take_payload(&mut self, bytes_max: usize) -> Result<(Kind, Cow<'a, [u8]>), Fault> {
        let too_big = || {
            let reason = format!("the message is longer than {bytes_max} bytes");
            Fault::new(ErrorCode::TooBig, reason)
        };
        let (kind, payload) = match (self.take(Field::Data), self.take_text(Field::Base64)?) {
            (Some(data), None) => {
                self.is_json = !data.get().starts_with('"');
                (Kind::Text, into_bytes(parse_data(data)?))
            }
            (None, Some(base64)) => {
                // Four letters are at most three bytes and, padded, at least one.
                if base64.len() / 4 > bytes_max.div_ceil(3) {
                    return Err(too_big());
                }
                let bytes = BASE64_STANDARD.decode(base64.as_bytes()).map_err(|error| {
                    Fault::invalid(format!("\"base64\" does not decode: {error}"))
                })?;
                (Kind::Binary, Cow::Owned(bytes))
            }
            _ => {
                return Err(Fault::invalid(
                    "a publication has either \"data\" or \"base64\"",
                ));
            }
        };
        if payload.len() > bytes_max {
            return Err(too_big());
        }
        Ok((kind, payload))
    }

    /// Fails for what is left over.
    pub fn finish(self) -> Result<(), Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        match self.values.iter().position(Option::is_some) {
            Some(index) => Err(Fault::invalid(format!(
                "\"{}\" does not belong here",
                Field::NAMES[index]
            ))),
            None => Ok(()),
        }
    }
}

/// The first byte that is no white space of JSON's.
pub(crate) fn first_byte(text: &str) -> Option<u8> {
    text.bytes()
        .find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

/// What is not JSON. The parser's words name a place, and nothing of the text.
pub(crate) fn invalid_json(error: &serde_json::Error) -> Fault {
    let reason = format!("not JSON: {}", words_of(error));
    Fault::new(ErrorCode::InvalidJson, reason)
}

/// The parser's words. Of a text of one line they name the column alone.
fn words_of(error: &serde_json::Error) -> String {
    let words = error.to_string();
    match error.line() {
        1 => words.replacen(" at line 1 column ", " at column ", 1),
        _ => words,
    }
}

/// The topic that a text names.
pub(crate) fn parse_topic(text: &str) -> Result<Topic, Fault> {
    Topic::from_text(text).map_err(|refusal| Fault::new(ErrorCode::InvalidTopic, refusal.reason))
}

/// Whether a text can be the idempotency key of a publish that has this id.
pub(crate) fn check_once(key: &str, id: Option<u32>) -> Result<(), Fault> {
    check_idempotency_key(key).map_err(Fault::invalid)?;
    if id.is_none() {
        // Nobody would hear that it is refused.
        let reason = "a publish with an idempotency key needs an \"id\"";
        return Err(Fault::invalid(reason));
    }
    Ok(())
}

/// Whether a text can be an idempotency key: as a conflation key.
///
/// # Errors
/// A sentence that says why it is none.
pub fn check_idempotency_key(key: &str) -> Result<(), &'static str> {
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        return Err("an idempotency key has 1 to 255 bytes");
    }
    if key.chars().any(char::is_control) {
        return Err("the idempotency key holds a control character");
    }
    Ok(())
}

fn into_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// The text of a JSON string.
fn parse_text(value: &RawValue) -> Result<Cow<'_, str>, &'static str> {
    /// Borrows where nothing is escaped, which `Cow` by itself never does.
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    let text = value.get();
    if !text.starts_with('"') {
        return Err("is not a string");
    }
    match serde_json::from_str(text) {
        Ok(Text(text)) => Ok(text),
        Err(_) => Err("holds half of a surrogate pair"),
    }
}

/// The tags of an object whose values are strings.
fn parse_tags(value: &RawValue, limits: &FieldLimits) -> Result<Vec<Tag>, Fault> {
    let tags: RawTags<'_> = serde_json::from_str(value.get())
        .map_err(|_| Fault::invalid("\"tags\" is not an object of strings"))?;
    let mut taken = Vec::new();
    for (name, value) in tags.0 {
        let wrong = |reason| Fault::invalid(format!("a tag {reason}"));
        let (name, value) = (parse_text(name), parse_text(value));
        taken.push((name.map_err(wrong)?.into(), value.map_err(wrong)?.into()));
        if taken.len() > limits.tags_max {
            break;
        }
    }
    limits.check_tags(&taken)?;
    Ok(taken)
}

fn parse_data(data: &RawValue) -> Result<Cow<'_, str>, Fault> {
    if data.get().starts_with('"') {
        return parse_text(data).map_err(|reason| Fault::invalid(format!("\"data\" {reason}")));
    }
    serde_json::from_str::<Sound>(data.get())
        .map_err(|error| Fault::invalid(format!("\"data\": {}", words_of(&error))))?;
    Ok(Cow::Borrowed(data.get()))
}

/// A value that a strict reader takes: nested no deeper than `serde_json` goes, its numbers in range, its strings whole.
struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sound, D::Error> {
        struct SoundVisitor;

        impl<'de> Visitor<'de> for SoundVisitor {
            type Value = Sound;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Sound, E> {
                Ok(Sound)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Sound, E> {
                Ok(Sound)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Sound, E> {
                Ok(Sound)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Sound, E> {
                Ok(Sound)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Sound, E> {
                Ok(Sound)
            }

            fn visit_str<E>(self, _: &str) -> Result<Sound, E> {
                Ok(Sound)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Sound, A::Error> {
                while items.next_element::<Sound>()?.is_some() {}
                Ok(Sound)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Sound, A::Error> {
                while entries.next_entry::<Sound, Sound>()?.is_some() {}
                Ok(Sound)
            }
        }

        deserializer.deserialize_any(SoundVisitor)
    }
}

/// The tags of a publication, undecoded.
struct RawTags<'a>(Vec<(&'a RawValue, &'a RawValue)>);

/// Tags that are looked at: more than any configuration allows are not.
const RAW_TAGS_MAX: usize = 257;

impl<'de: 'a, 'a> Deserialize<'de> for RawTags<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawTags<'a>, D::Error> {
        struct TagsVisitor;

        impl<'de> Visitor<'de> for TagsVisitor {
            type Value = RawTags<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawTags<'de>, A::Error> {
                let mut tags = Vec::new();
                while let Some(tag) = map.next_entry::<&RawValue, &RawValue>()? {
                    if tags.len() < RAW_TAGS_MAX {
                        tags.push(tag);
                    }
                }
                Ok(RawTags(tags))
            }
        }

        deserializer.deserialize_map(TagsVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields<'a>, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    let Some(index) = index_of(name) else {
                        let fault = || Fault::invalid(unknown_field(name));
                        fields.fault.get_or_insert_with(fault);
                        continue;
                    };
                    if fields.values[index].replace(value).is_some() {
                        let reason = format!("\"{}\" stands twice", Field::NAMES[index]);
                        fields.fault.get_or_insert(Fault::invalid(reason));
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// Letters of an unknown field's name that are shown.
const SHOWN_CHARS_MAX: usize = 40;

/// What is said of a field that is not known: its name, of a long one the beginning.
fn unknown_field(name: &RawValue) -> String {
    let decoded = parse_text(name).unwrap_or(Cow::Borrowed(name.get().trim_matches('"')));
    let shown = match decoded.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", escape(&decoded[..end])),
        None => escape(&*decoded).to_string(),
    };
    format!("there is no field \"{shown}\" here")
}

/// The place of a field's name among the known ones. A name that cannot be decoded, for it holds half of a surrogate pair,
/// is JSON and none of them.
fn index_of(name: &RawValue) -> Option<usize> {
    let quoted = name.get();
    let field = match quoted.contains('\\') {
        false => Field::of_name(&quoted[1..quoted.len() - 1])?,
        true => Field::of_name(&parse_text(name).ok()?)?,
    };
    Some(field as usize)
}
