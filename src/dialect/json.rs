//! JSON at the HTTP surface: the lines of `POST /pub`, and the answers to publishes.
//!
//! ```text
//! {"topic": "news", "data": "hello"}            a text message
//! {"topic": "news", "data": {"price": 3}}       any other JSON value: its own text is the message
//! {"topic": "news", "base64": "AAEC"}           a binary message
//! ```
//!
//! Each line has one line as its answer, in the same order: `{"epoch":"…","offset":1}`, or
//! `{"status":400,"error":"…"}`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::http::refusal::Refusal;
use crate::http::topic::Topic;
use crate::hub::{Kind, Position};

/// One line of `POST /pub`, understood.
#[derive(Debug, PartialEq, Eq)]
pub struct PublishLine {
    /// Where to.
    pub topic: Topic,
    /// Text or binary.
    pub kind: Kind,
    /// The message.
    pub payload: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLine<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "parse_present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    base64: Option<Cow<'a, str>>,
}

/// Tells `"data": null`, which is a value like any other, from no `"data"` at all.
fn parse_present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Parses one line. `payload_bytes_max` bounds the message.
///
/// # Errors
/// What the line is answered with.
pub fn parse_publish_line(line: &[u8], payload_bytes_max: usize) -> Result<PublishLine, Refusal> {
    let raw: RawLine<'_> = serde_json::from_slice(line)
        .map_err(|error| Refusal::bad_request(format!("not a publication: {error}")))?;
    let topic = Topic::from_text(&raw.topic)?;
    let (kind, payload) = match (raw.data, raw.base64) {
        (Some(data), None) => (Kind::Text, parse_data(data)?.into_bytes()),
        (None, Some(base64)) => {
            let bytes = BASE64_STANDARD.decode(base64.as_bytes()).map_err(|error| {
                Refusal::bad_request(format!("\"base64\" does not decode: {error}"))
            })?;
            (Kind::Binary, bytes)
        }
        _ => {
            return Err(Refusal::bad_request(
                "a publication has either \"data\" or \"base64\"",
            ));
        }
    };
    if payload.len() > payload_bytes_max {
        return Err(Refusal::body_too_large(format!(
            "the message is longer than {payload_bytes_max} bytes"
        )));
    }
    Ok(PublishLine {
        topic,
        kind,
        payload,
    })
}

/// A JSON string is the message itself; any other value is the message as it stands.
fn parse_data(data: &RawValue) -> Result<String, Refusal> {
    let text = data.get();
    if text.starts_with('"') {
        return serde_json::from_str(text)
            .map_err(|error| Refusal::bad_request(format!("\"data\": {error}")));
    }
    Ok(text.to_owned())
}

/// Appends the answer to one publish, without a line end.
pub fn encode_published(out: &mut Vec<u8>, position: Position) {
    out.extend_from_slice(
        format!(
            "{{\"epoch\":\"{:016x}\",\"offset\":{}}}",
            position.epoch, position.offset
        )
        .as_bytes(),
    );
}

/// Appends the answer to one publish that was refused, without a line end.
pub fn encode_refused(out: &mut Vec<u8>, status: u16, reason: &str) {
    let reason = serde_json::Value::from(reason);
    out.extend_from_slice(format!("{{\"status\":{status},\"error\":{reason}}}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Kind, Vec<u8>), Refusal> {
        parse_publish_line(line.as_bytes(), 10).map(|line| (line.kind, line.payload))
    }

    #[test]
    fn a_message_is_a_string_a_value_or_base64() {
        assert_eq!(
            parse(r#"{"topic":"a","data":"x\ny"}"#),
            Ok((Kind::Text, b"x\ny".to_vec()))
        );
        assert_eq!(
            parse(r#"{"topic":"a","data":{"p": 1}}"#),
            Ok((Kind::Text, br#"{"p": 1}"#.to_vec()))
        );
        assert_eq!(
            parse(r#"{"base64":"AAE=","topic":"a"}"#),
            Ok((Kind::Binary, vec![0, 1]))
        );
        assert_eq!(
            parse(r#"{"topic":"a","data":""}"#),
            Ok((Kind::Text, vec![]))
        );
    }

    #[test]
    fn wrong_lines_are_refused_with_a_reason() {
        for line in [
            "",
            "[]",
            r#"{"topic":"a"}"#,
            r#"{"topic":"","data":"x"}"#,
            r#"{"topic":1,"data":"x"}"#,
            r#"{"topic":"a","data":"x","base64":"AA=="}"#,
            r#"{"topic":"a","base64":"?"}"#,
            r#"{"topic":"a","data":"x","dta":1}"#,
            r#"{"topic":"a","data":"\ud800"}"#,
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.status, 400, "{line}");
            assert!(!error.reason.is_empty());
        }
        assert_eq!(
            parse(r#"{"topic":"a","data":"01234567890"}"#).map_err(|e| e.status),
            Err(413)
        );
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        let line = format!(r#"{{"topic":"a","data":{}"#, "[".repeat(100_000));
        assert!(parse(&line).is_err());
        let line = format!(
            r#"{{"topic":"a","data":{}1{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert!(parse(&line).is_err());
    }

    #[test]
    fn reasons_are_escaped() {
        let mut out = Vec::new();
        encode_refused(&mut out, 400, "a \"b\"\n");
        assert_eq!(out, br#"{"status":400,"error":"a \"b\"\n"}"#);
    }
}
