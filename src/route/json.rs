//! JSON at the HTTP surface: the lines of `POST /pub`, the answers to publishes, and what is known of topics.
//!
//! ```text
//! {"topic": "news", "data": "hello"}            a text message
//! {"topic": "news", "data": {"price": 3}}       any other JSON value: its own text is the message
//! {"topic": "news", "base64": "AAEC"}           a binary message
//! ```
//!
//! Besides, a line may have a `"key"`, by which slow consumers of some topics get the newest publication only, and
//! `"receipt": true`, which asks what became of it.
//!
//! Each line has one line as its answer, in the same order: `{"epoch":"…","offset":1}`, with a `"receipt"` if one was
//! asked for, or `{"status":400,"error":"line 2: …"}`.

use std::borrow::Cow;

use crate::dialect::fields::{Fault, Field, Fields};
use crate::dialect::object::{Object, encode_report};
use crate::dialect::{CommandLimits, ErrorCode, History};
use crate::http::refusal::Refusal;
use crate::hub::{HistorySize, Kind, Listed, Position, PublishOptions, Report};
use crate::protocol::parse_text;
use crate::topic::Topic;

/// One line of `POST /pub`, understood.
#[derive(Debug, PartialEq)]
pub struct PublishLine<'a> {
    /// Topic to publish to.
    pub topic: Topic,
    /// Text or binary.
    pub kind: Kind,
    /// The message.
    pub payload: Cow<'a, [u8]>,
    /// Its options.
    pub options: PublishOptions,
    /// Whether the answer waits for the fan-out and has a receipt.
    pub wants_receipt: bool,
}

/// Parses one line.
///
/// # Errors
/// What the line is answered with.
pub fn parse_publish_line<'a>(
    line: &'a [u8],
    limits: &CommandLimits,
) -> Result<PublishLine<'a>, Refusal> {
    let line = parse_text(line).map_err(|_| Refusal::bad_request("the line is not UTF-8"))?;
    let mut fields = Fields::parse(line).map_err(refusal)?;
    let topic = Topic::from_text(&fields.take_topic_text().map_err(refusal)?)?;
    let (kind, payload) = fields
        .take_payload(limits.payload_bytes_max)
        .map_err(refusal)?;
    let line = PublishLine {
        topic,
        kind,
        payload,
        options: fields.take_options(&limits.fields).map_err(refusal)?,
        wants_receipt: fields.take_bool(Field::Receipt).map_err(refusal)?,
    };
    fields.finish().map_err(refusal)?;
    Ok(line)
}

fn refusal(fault: Fault) -> Refusal {
    match fault.code {
        ErrorCode::TooBig => Refusal::body_too_large(fault.reason),
        _ => Refusal::bad_request(fault.reason),
    }
}

/// Appends the answer to one publish, without a line end.
pub fn encode_published(out: &mut Vec<u8>, position: Position, report: Option<&Report>) {
    let object = Object::new(out)
        .plain("epoch", format_args!("{:016x}", position.epoch))
        .value("offset", position.offset);
    match report {
        Some(report) => object.with("receipt", |out| encode_report(out, report)),
        None => object,
    }
    .end();
}

/// Appends the answer to a duplicate, without a line end.
pub fn encode_duplicate(out: &mut Vec<u8>, position: Position) {
    Object::new(out)
        .plain("epoch", format_args!("{:016x}", position.epoch))
        .value("offset", position.offset)
        .value("duplicate", true)
        .end();
}

/// Appends the answer to a publish that was dropped. It has no line end.
pub fn encode_skipped(out: &mut Vec<u8>) {
    Object::new(out).value("skipped", true).end();
}

/// Appends a refusal of the hub's, without a line end.
pub fn encode_refusal(out: &mut Vec<u8>, refusal: &Refusal) {
    Object::new(out)
        .value("status", refusal.status)
        .text("error", &refusal.reason)
        .end();
}

/// Appends a page of a topic's history.
pub fn encode_history(out: &mut Vec<u8>, history: &History<'_>) {
    history.encode(Object::new(out)).end();
}

/// Appends what is known of one topic.
pub fn encode_listed(out: &mut Vec<u8>, listed: &Listed) {
    let mut object = Object::new(out)
        .text("topic", listed.topic.as_str())
        .value("subscribers", listed.subscribers)
        .plain("position", listed.position);
    if let Some(HistorySize {
        publications,
        bytes,
    }) = listed.history
    {
        object = object.with("history", |out| {
            Object::new(out)
                .value("publications", publications)
                .value("bytes", bytes)
                .end();
        });
    }
    if let Some(present) = listed.present {
        object = object.value("present", present);
    }
    object.end();
}

/// Appends the answer to a refused publish, without a line end. `line`: its number in the body, from 1.
pub fn encode_refused(out: &mut Vec<u8>, line: usize, status: u16, reason: &str) {
    Object::new(out)
        .value("status", status)
        .text("error", &format!("line {line}: {reason}"))
        .end();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::FieldLimits;

    const LIMITS: CommandLimits = CommandLimits {
        commands_max: 1,
        payload_bytes_max: 10,
        fields: FieldLimits::DEFAULT,
    };

    fn parse(line: &str) -> Result<(Kind, Vec<u8>), Refusal> {
        parse_publish_line(line.as_bytes(), &LIMITS)
            .map(|line| (line.kind, line.payload.into_owned()))
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
    fn a_line_may_have_a_key_and_want_a_receipt() {
        let line = br#"{"topic":"a","data":"x","key":"EUR\u00e9","receipt":true}"#;
        let line = parse_publish_line(line, &LIMITS).expect("a publication");
        assert_eq!(line.options, PublishOptions::default().key("EUR\u{e9}"));
        assert!(line.wants_receipt);
        let line = parse_publish_line(br#"{"topic":"a","data":"x","receipt":false}"#, &LIMITS);
        assert!(line.is_ok_and(|line| line.options.extras().is_none() && !line.wants_receipt));
    }

    #[test]
    fn a_position_is_answered_with_or_without_a_receipt() {
        let position = Position {
            epoch: 0xa1,
            offset: 7,
        };
        let mut out = Vec::new();
        encode_published(&mut out, position, None);
        assert_eq!(out, br#"{"epoch":"00000000000000a1","offset":7}"#);
        let report = Report {
            position,
            matched: 1,
            written: 1,
            queued: 0,
            dropped: 0,
            first_write_us: Some(3),
            last_write_us: Some(3),
        };
        out.clear();
        encode_published(&mut out, position, Some(&report));
        let expected = r#"{"epoch":"00000000000000a1","offset":7,"receipt":{"matched":1,"written":1,"queued":0,"dropped":0,"first_write_us":3,"last_write_us":3}}"#;
        assert_eq!(out, expected.as_bytes());
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
            r#"{"topic":"a","data":"x","topic":"b"}"#,
            r#"{"topic":"a","data":"x","id":1}"#,
            r#"{"topic":"a","data":"x","key":""}"#,
            r#"{"topic":"a","data":"x","key":"a\n"}"#,
            r#"{"topic":"a","data":"x","key":null}"#,
            r#"{"topic":"a","data":"x","receipt":1}"#,
            r#"["a","x"]"#,
            "\"a\"",
            "\0",
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
        encode_refused(&mut out, 3, 400, "a \"b\"\n");
        assert_eq!(out, br#"{"status":400,"error":"line 3: a \"b\"\n"}"#);
    }
}
