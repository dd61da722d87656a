//! Answers to commands, gaps, joins and leaves. Each function appends the payload of one text message.

use std::fmt::Display;

use super::super::object::{Object, encode_report};
use super::super::{CommandError, History, Subscribed, Target, Welcome};
use super::code_text;
use super::command::encode_target;
use crate::hub::{Kind, Member, Position, PresenceChange, ReactorId, Report};
use crate::protocol::{Opcode, SERVER_HEADER_BYTES_MAX, encode_frame};
use crate::topic::Pattern;
use crate::topic::SlowConsumer;
use crate::topic::Topic;

/// The subscription stands.
pub fn encode_subscribed(out: &mut Vec<u8>, id: impl Into<Option<u32>>, it: &Subscribed<'_>) {
    let object = Object::of_type(out, "subscribed");
    let object = match id.into() {
        Some(id) => object.number("id", id),
        None => object,
    };
    let mut object = encode_target(object, it.target);
    if let Some(position) = it.position {
        object = object.position("position", position);
    }
    if let Some(recovered) = it.recovered {
        object = object.value("recovered", recovered);
    }
    if let Some(snapshot) = it.snapshot {
        object = object.value("snapshot", snapshot);
    }
    if it.slow_consumer != SlowConsumer::Close {
        object = object.plain("slow_consumer", it.slow_consumer.as_str());
    }
    if !it.echo {
        object = object.value("echo", false);
    }
    object.end();
}

/// The subscription has ended: none of its publications come after this.
pub fn encode_unsubscribed(out: &mut Vec<u8>, id: u32, target: &Target) {
    encode_target(
        Object::of_type(out, "unsubscribed").number("id", id),
        target,
    )
    .end();
}

/// The right to the subscription is gone, and the subscription with it.
pub fn encode_forbidden(out: &mut Vec<u8>, target: &Target) {
    encode_target(Object::of_type(out, "unsubscribed"), target)
        .text("code", "forbidden")
        .end();
}

/// The subscription is ended by whoever manages the server.
pub fn encode_ended(out: &mut Vec<u8>, target: &Target, code: &str, reason: Option<&str>) {
    encode_target(Object::of_type(out, "unsubscribed"), target)
        .text("code", code)
        .text_if("reason", reason)
        .end();
}

/// A message for this connection alone.
pub fn encode_message(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    Object::of_type(out, "message").payload(kind, payload).end();
}

/// The connection is open, and was opened by this identity.
pub fn encode_welcome(out: &mut Vec<u8>, welcome: &Welcome<'_>) {
    add_welcome(Object::of_type(out, "welcome"), welcome).end();
}

/// The token is good, and this is the connection's identity now.
pub fn encode_authenticated(out: &mut Vec<u8>, id: u32, welcome: &Welcome<'_>) {
    let object = Object::of_type(out, "authenticated").number("id", id);
    add_welcome(object, welcome).end();
}

fn add_welcome<'o>(object: Object<'o>, welcome: &Welcome<'_>) -> Object<'o> {
    let object = object
        .plain("connection", name_of(welcome.reactor, welcome.connection))
        .text_if("subject", welcome.subject);
    match welcome.expires_in_ms {
        Some(in_ms) => object.value("expires_in_ms", in_ms),
        None => object,
    }
}

/// The identity ends soon, unless a newer token is shown.
pub fn encode_expiring(out: &mut Vec<u8>, in_ms: u64) {
    Object::of_type(out, "expiring").value("in_ms", in_ms).end();
}

/// The publication has its place; and if a receipt was asked for, this became of it.
pub fn encode_published(out: &mut Vec<u8>, id: u32, position: Position, report: Option<&Report>) {
    let object = Object::of_type(out, "published")
        .number("id", id)
        .position("position", position);
    match report {
        Some(report) => object.with("receipt", |out| encode_report(out, report)),
        None => object,
    }
    .end();
}

/// The publication was published before, with the same idempotency key.
pub fn encode_duplicate(out: &mut Vec<u8>, id: u32, position: Position) {
    Object::of_type(out, "published")
        .number("id", id)
        .position("position", position)
        .value("duplicate", true)
        .end();
}

/// The publication was taken, and is not published.
pub fn encode_skipped(out: &mut Vec<u8>, id: u32) {
    Object::of_type(out, "published")
        .number("id", id)
        .value("skipped", true)
        .end();
}

/// Appends a gap: publications between two positions do not come.
pub fn encode_gap(
    out: &mut Vec<u8>,
    topic: &Topic,
    pattern: Option<&Pattern>,
    from: Position,
    to: Position,
) {
    Object::of_type(out, "gap")
        .text("topic", topic.as_str())
        .text_if("pattern", pattern.map(Pattern::as_str))
        .position("from", from)
        .position("to", to)
        .end();
}

/// A gap as a whole frame.
pub fn gap_frame(
    topic: &Topic,
    pattern: Option<&Pattern>,
    from: Position,
    to: Position,
) -> Box<[u8]> {
    let mut payload = Vec::with_capacity(2 * topic.as_str().len() + 128);
    encode_gap(&mut payload, topic, pattern, from, to);
    let mut frame = Vec::with_capacity(SERVER_HEADER_BYTES_MAX + payload.len());
    encode_frame(&mut frame, Opcode::Text, &payload, None);
    frame.into()
}

/// Appends the members of a topic: `total` in all, `members` of them.
pub fn encode_presence(out: &mut Vec<u8>, id: u32, topic: &Topic, total: u32, members: &[Member]) {
    Object::of_type(out, "presence")
        .number("id", id)
        .text("topic", topic.as_str())
        .value("total", total)
        .with("members", |out| {
            out.push(b'[');
            for (index, member) in members.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                encode_member(Object::new(out), member).end();
            }
            out.push(b']');
        })
        .end();
}

/// Somebody has come to a topic or gone.
pub fn encode_presence_change(out: &mut Vec<u8>, change: &PresenceChange) {
    let name = if change.is_join { "join" } else { "leave" };
    let object = Object::of_type(out, name).text("topic", change.topic.as_str());
    match change.is_join {
        true => encode_member(object, &change.member),
        false => object.plain("connection", connection_name(&change.member)),
    }
    .end();
}

/// Appends a marker: joins and leaves of a topic were left out, and so many are there now.
pub fn encode_presence_skipped(out: &mut Vec<u8>, topic: &Topic, members: u32) {
    Object::of_type(out, "presence_skipped")
        .text("topic", topic.as_str())
        .value("members", members)
        .end();
}

fn encode_member<'o>(object: Object<'o>, member: &Member) -> Object<'o> {
    let mut object = object.plain("connection", connection_name(member));
    if let Some(identity) = &member.identity {
        object = object.text_if("subject", identity.subject.as_deref());
        if let Some(info) = &identity.info {
            object = object.value("verified", info);
        }
    }
    match &member.info {
        Some(info) => object.value("info", info),
        None => object,
    }
}

/// `reactor-index-generation`, as logs and own endpoints have it: the number holds the index in its lower half and the
/// generation in its upper.
fn name_of(reactor: ReactorId, connection: u64) -> impl Display {
    let (index, generation) = (connection as u32, connection >> 32);
    format!("{}-{index}-{generation}", reactor.0)
}

fn connection_name(member: &Member) -> impl Display {
    name_of(member.reactor, member.connection)
}

/// Appends a page of a topic's history.
pub fn encode_history(out: &mut Vec<u8>, id: u32, history: &History<'_>) {
    let object = Object::of_type(out, "history").number("id", id);
    history.encode(object).end();
}

/// Answers a ping.
pub fn encode_pong(out: &mut Vec<u8>, id: u32) {
    Object::of_type(out, "pong").number("id", id).end();
}

/// A command is not carried out.
pub fn encode_error(out: &mut Vec<u8>, error: &CommandError) {
    let object = Object::of_type(out, "error")
        .number_or_null("id", error.id)
        .plain("code", code_text(error.code))
        .text("reason", &error.reason);
    match error.retry_ms {
        Some(retry_ms) => object.number("retry_ms", retry_ms).end(),
        None => object.end(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::super::super::ErrorCode;
    use super::*;
    use crate::hub::MemberIdentity;

    fn at(offset: u64) -> Position {
        Position {
            epoch: 0xa1,
            offset,
        }
    }

    fn topic(text: &str) -> Topic {
        Topic::from_text(text).unwrap()
    }

    fn written(encode: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        let text = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
        text
    }

    fn subscribed(
        target: &Target,
        position: Option<Position>,
        recovered: Option<bool>,
        slow_consumer: SlowConsumer,
    ) -> Subscribed<'_> {
        Subscribed {
            target,
            position,
            recovered,
            snapshot: (slow_consumer == SlowConsumer::Latest).then_some(true),
            slow_consumer,
            echo: slow_consumer == SlowConsumer::Close,
            is_unasked: false,
            replay: &[],
        }
    }

    #[test]
    fn subscriptions_and_their_ends() {
        let orders = Target::Topic(topic("orders/eu"));
        let all = Target::Pattern(Pattern::parse("orders/*").unwrap());
        let close = SlowConsumer::Close;
        assert_eq!(
            written(|out| encode_subscribed(
                out,
                1,
                &subscribed(&orders, Some(at(19)), Some(true), close)
            )),
            r#"{"type":"subscribed","id":1,"topic":"orders/eu","position":"00000000000000a1:19","recovered":true}"#
        );
        assert_eq!(
            written(|out| encode_subscribed(out, 2, &subscribed(&all, None, None, close))),
            r#"{"type":"subscribed","id":2,"pattern":"orders/*"}"#
        );
        assert_eq!(
            written(|out| encode_subscribed(out, None, &subscribed(&all, None, None, close))),
            r#"{"type":"subscribed","pattern":"orders/*"}"#
        );
        let latest = SlowConsumer::Latest;
        assert_eq!(
            written(|out| encode_subscribed(
                out,
                1,
                &subscribed(&orders, Some(at(0)), None, latest)
            )),
            r#"{"type":"subscribed","id":1,"topic":"orders/eu","position":"00000000000000a1:0","snapshot":true,"slow_consumer":"latest","echo":false}"#
        );
        assert_eq!(
            written(|out| encode_unsubscribed(out, 3, &orders)),
            r#"{"type":"unsubscribed","id":3,"topic":"orders/eu"}"#
        );
        assert_eq!(
            written(|out| encode_unsubscribed(out, 3, &all)),
            r#"{"type":"unsubscribed","id":3,"pattern":"orders/*"}"#
        );
    }

    #[test]
    fn publishes_and_receipts() {
        assert_eq!(
            written(|out| encode_published(out, 4, at(20), None)),
            r#"{"type":"published","id":4,"position":"00000000000000a1:20"}"#
        );
        assert_eq!(
            written(|out| encode_duplicate(out, 4, at(20))),
            r#"{"type":"published","id":4,"position":"00000000000000a1:20","duplicate":true}"#
        );
        let report = Report {
            position: at(20),
            matched: 3,
            written: 2,
            queued: 1,
            dropped: 0,
            first_write_us: Some(12),
            last_write_us: None,
        };
        assert_eq!(
            written(|out| encode_published(out, 4, at(20), Some(&report))),
            r#"{"type":"published","id":4,"position":"00000000000000a1:20","receipt":{"matched":3,"written":2,"queued":1,"dropped":0,"first_write_us":12,"last_write_us":null}}"#
        );
    }

    #[test]
    fn gaps_pongs_and_errors() {
        let pattern = Pattern::parse("orders/*").unwrap();
        assert_eq!(
            written(|out| encode_gap(out, &topic("orders/eu"), Some(&pattern), at(21), at(25))),
            r#"{"type":"gap","topic":"orders/eu","pattern":"orders/*","from":"00000000000000a1:21","to":"00000000000000a1:25"}"#
        );
        let frame = gap_frame(&topic("a\"b"), None, at(1), at(1));
        let text = r#"{"type":"gap","topic":"a\"b","from":"00000000000000a1:1","to":"00000000000000a1:1"}"#;
        assert_eq!(frame[..2], [0x81, text.len() as u8]);
        assert_eq!(&frame[2..], text.as_bytes());
        assert_eq!(
            written(|out| encode_pong(out, 6)),
            r#"{"type":"pong","id":6}"#
        );
        let error = CommandError::new(None, ErrorCode::InvalidJson, "a \"b\"\n");
        assert_eq!(
            written(|out| encode_error(out, &error)),
            r#"{"type":"error","id":null,"code":"invalid_json","reason":"a \"b\"\n"}"#
        );
    }

    #[test]
    fn identities_and_their_ends() {
        let mut welcome = Welcome {
            reactor: ReactorId(0),
            connection: 3 << 32 | 12,
            subject: Some("4\"2"),
            expires_in_ms: Some(3_600_000),
        };
        assert_eq!(
            written(|out| encode_welcome(out, &welcome)),
            r#"{"type":"welcome","connection":"0-12-3","subject":"4\"2","expires_in_ms":3600000}"#
        );
        (welcome.subject, welcome.expires_in_ms) = (None, None);
        assert_eq!(
            written(|out| encode_authenticated(out, 1, &welcome)),
            r#"{"type":"authenticated","id":1,"connection":"0-12-3"}"#
        );
        assert_eq!(
            written(|out| encode_expiring(out, 60_000)),
            r#"{"type":"expiring","in_ms":60000}"#
        );
    }

    #[test]
    fn who_is_there() {
        let member = |connection, info: Option<&str>| Member {
            reactor: ReactorId(1),
            connection,
            info: info.map(Into::into),
            identity: None,
        };
        let members = [
            member(3 << 32 | 12, Some(r#"{"name":"x"}"#)),
            member(7, None),
        ];
        assert_eq!(
            written(|out| encode_presence(out, 5, &topic("t"), 9, &members)),
            r#"{"type":"presence","id":5,"topic":"t","total":9,"members":[{"connection":"1-12-3","info":{"name":"x"}},{"connection":"1-7-0"}]}"#
        );
        assert_eq!(
            written(|out| encode_presence(out, 5, &topic("t"), 0, &[])),
            r#"{"type":"presence","id":5,"topic":"t","total":0,"members":[]}"#
        );
        let mut known = members[0].clone();
        known.identity = Some(Arc::new(MemberIdentity {
            subject: Some("4\"2".into()),
            info: Some(r#"{"name":"Anna"}"#.into()),
            has_own_info: false,
            user: None,
        }));
        assert_eq!(
            written(|out| encode_presence(out, 5, &topic("t"), 1, &[known])),
            r#"{"type":"presence","id":5,"topic":"t","total":1,"members":[{"connection":"1-12-3","subject":"4\"2","verified":{"name":"Anna"},"info":{"name":"x"}}]}"#
        );
        let [first, _] = members;
        let mut change = PresenceChange {
            topic: topic("t"),
            member: first,
            is_join: true,
            members: 1,
        };
        assert_eq!(
            written(|out| encode_presence_change(out, &change)),
            r#"{"type":"join","topic":"t","connection":"1-12-3","info":{"name":"x"}}"#
        );
        change.is_join = false;
        assert_eq!(
            written(|out| encode_presence_change(out, &change)),
            r#"{"type":"leave","topic":"t","connection":"1-12-3"}"#
        );
    }
}
