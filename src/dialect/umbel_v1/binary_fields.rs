//! Fields of a publication in the compact framing: those that are there, each with its length.
//!
//! ```text
//!  fields:  u16 length of all that follows | field ...
//!  field:   u8 what it is | u16 length | that many bytes
//!  what it is:  1 event, 2 message id, 3 content type, 4 publisher, 5 tag, 6 time, 7 ttl,
//!               8 tombstone, which is empty
//!  a tag:   u8 length of its name | name | value
//!  a time:  u64 milliseconds since 1970; a ttl: u64 milliseconds
//! ```
//!
//! Subscribers pass over fields that they do not know; one in a publish is refused.

use super::super::PublicationFields;
use super::super::fields::Fault;
use crate::hub::options::{JSON, check_ttl_ms};
use crate::hub::{FieldLimits, PublishOptions, Tag};
use crate::protocol::parse_text;

const EVENT: u8 = 1;
const MESSAGE_ID: u8 = 2;
const CONTENT_TYPE: u8 = 3;
const PUBLISHER: u8 = 4;
const TAG: u8 = 5;
const TIME: u8 = 6;
const TTL: u8 = 7;
const TOMBSTONE: u8 = 8;

/// Appends the fields with their length in front. One that would exceed what the length can say is left out.
pub fn encode_fields(out: &mut Vec<u8>, fields: &PublicationFields<'_>) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    let texts = [
        (EVENT, fields.event),
        (MESSAGE_ID, fields.message_id),
        (CONTENT_TYPE, fields.content_type),
        (PUBLISHER, fields.publisher),
    ];
    for (what, text) in texts {
        if let Some(text) = text {
            encode_field(out, start, what, &[text.as_bytes()]);
        }
    }
    for (name, value) in &*fields.tags {
        let name_len = [name.len() as u8];
        encode_field(
            out,
            start,
            TAG,
            &[&name_len, name.as_bytes(), value.as_bytes()],
        );
    }
    for (what, number) in [(TIME, fields.time_ms), (TTL, fields.ttl_ms)] {
        if let Some(number) = number {
            encode_field(out, start, what, &[&number.to_be_bytes()]);
        }
    }
    if fields.is_tombstone {
        encode_field(out, start, TOMBSTONE, &[]);
    }
    let bytes = (out.len() - start - 2) as u16;
    out[start..start + 2].copy_from_slice(&bytes.to_be_bytes());
}

fn encode_field(out: &mut Vec<u8>, start: usize, what: u8, parts: &[&[u8]]) {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    if out.len() - start + 1 + bytes > usize::from(u16::MAX) {
        return;
    }
    out.push(what);
    out.extend_from_slice(&(bytes as u16).to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Takes the fields of a delivery. None: they are not whole.
pub fn parse_fields<'a>(rest: &mut &'a [u8]) -> Option<PublicationFields<'a>> {
    let (mut fields, mut tags) = (PublicationFields::default(), Vec::new());
    let mut each = take_all(rest)?;
    while !each.is_empty() {
        let (what, value) = take_field(&mut each)?;
        let text = || std::str::from_utf8(value).ok();
        match what {
            EVENT => fields.event = Some(text()?),
            MESSAGE_ID => fields.message_id = Some(text()?),
            CONTENT_TYPE => {
                fields.content_type = Some(text()?);
                fields.names_json = fields.content_type == Some(JSON);
            }
            PUBLISHER => fields.publisher = Some(text()?),
            TAG => tags.push(parse_tag(value)?),
            TIME => fields.time_ms = Some(u64::from_be_bytes(value.try_into().ok()?)),
            TOMBSTONE => fields.is_tombstone = true,
            TTL => fields.ttl_ms = Some(u64::from_be_bytes(value.try_into().ok()?)),
            _ => {}
        }
    }
    fields.tags = tags.into();
    Some(fields)
}

/// Takes the fields of a publish into its options.
///
/// # Errors
/// When they are not whole, one cannot stand, stands twice, or is not a publisher's to say.
pub fn take_options(
    rest: &mut &[u8],
    mut options: PublishOptions,
    limits: &FieldLimits,
) -> Result<PublishOptions, Fault> {
    let cut_short = || Fault::invalid("the message ends too early");
    let mut each = take_all(rest).ok_or_else(cut_short)?;
    let (mut tags, mut seen) = (Vec::new(), 0u16);
    while !each.is_empty() {
        let (what, value) = take_field(&mut each).ok_or_else(cut_short)?;
        let text = parse_text(value).map_err(|_| Fault::invalid("a field is not UTF-8"));
        options = match what {
            EVENT | MESSAGE_ID | CONTENT_TYPE | TTL if seen & 1 << what != 0 => {
                return Err(Fault::invalid("a field stands twice"));
            }
            EVENT => {
                let event = text?;
                limits.check_event(event)?;
                options.event(event)
            }
            MESSAGE_ID => {
                let id = text?;
                limits.check_id(id)?;
                options.id(id)
            }
            CONTENT_TYPE => {
                let content_type = text?;
                limits.check_content_type(content_type)?;
                options.content_type(content_type)
            }
            TAG if tags.len() <= limits.tags_max => {
                let tag = parse_tag(value).ok_or_else(|| Fault::invalid("a tag is not whole"))?;
                tags.push(tag);
                options
            }
            TAG => options,
            TTL => {
                let ttl_ms = value.try_into().map(u64::from_be_bytes);
                let ttl_ms = ttl_ms.map_err(|_| Fault::invalid("a ttl has 8 bytes"))?;
                check_ttl_ms(ttl_ms)?;
                options.ttl_ms(ttl_ms)
            }
            TOMBSTONE if value.is_empty() => options.tombstone(),
            _ => return Err(Fault::invalid("there is a field that is not known")),
        };
        seen |= 1 << what;
    }
    limits.check_tags(&tags)?;
    Ok(options.tags(tags))
}

fn take_all<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, tail) = rest.split_first_chunk()?;
    let (all, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    *rest = tail;
    Some(all)
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (what, tail) = rest.split_first()?;
    *rest = tail;
    Some((*what, take_all(rest)?))
}

fn parse_tag(value: &[u8]) -> Option<Tag> {
    let (len, rest) = value.split_first()?;
    let (name, value) = rest.split_at_checked(usize::from(*len))?;
    Some((
        std::str::from_utf8(name).ok()?.into(),
        std::str::from_utf8(value).ok()?.into(),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_are_written() {
        let tags: Vec<Tag> = vec![("a".into(), "1".into()), ("b".into(), String::new().into())];
        let fields = PublicationFields {
            event: Some("price"),
            message_id: Some("m\u{e9}"),
            content_type: Some("text/csv"),
            names_json: false,
            publisher: Some("anna"),
            tags: tags.clone().into(),
            time_ms: Some(1_700_000_000_123),
            is_tombstone: true,
            ttl_ms: Some(7),
        };
        let mut out = Vec::new();
        encode_fields(&mut out, &fields);
        out.extend_from_slice(b"payload");
        let mut rest = &out[..];
        assert_eq!(parse_fields(&mut rest), Some(fields));
        assert_eq!(rest, b"payload");
        let options = PublishOptions::default()
            .event("e")
            .id("i")
            .content_type("a/b")
            .tags(tags)
            .ttl_ms(9);
        let extras = options.extras().unwrap();
        let sent = PublicationFields {
            event: extras.event.as_deref(),
            message_id: extras.id.as_deref(),
            content_type: extras.content_type.as_deref(),
            tags: (&*extras.tags).into(),
            ttl_ms: extras.ttl_ms,
            ..PublicationFields::default()
        };
        let mut out = Vec::new();
        encode_fields(&mut out, &sent);
        let taken = take_options(
            &mut &out[..],
            PublishOptions::default(),
            &FieldLimits::DEFAULT,
        );
        assert_eq!(taken, Ok(options.clone()));
    }

    #[test]
    fn unknown_fields_are_passed_over_in_deliveries_and_refused_in_publishes() {
        let bytes = b"\x00\x0a\x63\x00\x02xx\x01\x00\x02hi";
        let fields = parse_fields(&mut &bytes[..]).unwrap();
        assert_eq!(fields.event, Some("hi"));
        let taken = take_options(
            &mut &bytes[..],
            PublishOptions::default(),
            &FieldLimits::DEFAULT,
        );
        assert!(taken.is_err());
    }

    #[test]
    fn wrong_fields_of_a_publish() {
        for bytes in [
            &b""[..],
            b"\x00",
            b"\x00\x01",
            b"\x00\x04\x01\x00\x02a",
            b"\x00\x03\x01\x00\x00",
            b"\x00\x04\x01\x00\x01\xff",
            b"\x00\x09\x01\x00\x06binary",
            b"\x00\x08\x01\x00\x01a\x01\x00\x01b",
            b"\x00\x04\x03\x00\x01a",
            b"\x00\x04\x04\x00\x01a",
            b"\x00\x03\x05\x00\x00",
            b"\x00\x05\x05\x00\x02\x01A",
            b"\x00\x0a\x05\x00\x02\x01a\x05\x00\x02\x01a",
        ] {
            let taken = take_options(
                &mut &bytes[..],
                PublishOptions::default(),
                &FieldLimits::DEFAULT,
            );
            assert!(taken.is_err(), "{bytes:?}");
        }
    }
}
