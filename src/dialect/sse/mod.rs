//! Server-sent events: one topic as a stream that `EventSource` reads.
//!
//! The id of an event is the publication's position. Text comes in events of the type `message`, binary payloads as
//! base64 in events of the type `binary`, and an event of the type `gap` says that what was missed does not follow. A
//! publication with an event has that as its type; where it is binary, the field `umbel-base64: 1` says so, which
//! `EventSource` passes over.

#[doc(hidden)]
pub mod event;

use super::object::Object;
use super::{Dialect, Framing, Push, StreamEnd, StreamStart};
use crate::hub::own_event::OwnEvent;
use crate::hub::{Kind, Publication};
use crate::topic::Pattern;

/// The dialect.
pub struct Sse;

impl Dialect for Sse {
    fn label(&self) -> &'static str {
        "sse"
    }

    fn framing(&self) -> Framing {
        Framing::Stream
    }

    fn encode_publication(
        &self,
        out: &mut Vec<u8>,
        publication: &Publication,
        _: Option<&Pattern>,
    ) {
        let (id, payload) = (publication.position().to_string(), publication.payload());
        let name = publication.extras().and_then(|it| it.event.as_deref());
        match (publication.kind(), std::str::from_utf8(payload)) {
            (Kind::Text, Ok(text)) => event::encode_event(out, Some(&id), name, text),
            _ => event::encode_binary_event(out, Some(&id), name, payload),
        }
    }

    fn encode_stream_start(&self, out: &mut Vec<u8>, start: &StreamStart<'_>) {
        event::encode_stream_head(out, start.headers);
        let Some(joined) = start.joined else { return };
        let position = joined.position.to_string();
        if joined.recovered == Some(false) {
            let data = r#"{"recovered":false}"#;
            event::encode_own_event(out, Some(&position), OwnEvent::Gap, data);
        }
        if !joined.has_replay {
            // Who is cut off before the first event comes back with this.
            event::encode_id(out, &position);
        }
    }

    fn encode_stream_end(&self, out: &mut Vec<u8>, end: &StreamEnd<'_>) {
        if end.is_expired {
            // Without data it would not be handed to anybody.
            let data = r#"{"code":4401,"reason":"expired"}"#;
            return event::encode_own_event(out, None, OwnEvent::Expired, data);
        }
        event::encode_retry(out, end.retry_ms);
        if let Some((status, reason)) = end.refusal {
            let mut data = Vec::new();
            Object::new(&mut data)
                .value("status", status)
                .text("reason", reason)
                .end();
            let data = String::from_utf8_lossy(&data);
            event::encode_own_event(out, None, OwnEvent::Unavailable, &data);
        }
    }

    /// What has no position has no id.
    fn encode_push(&self, out: &mut Vec<u8>, push: &Push<'_>) {
        if let Push::Message(kind, payload) = push {
            match (kind, std::str::from_utf8(payload)) {
                (Kind::Text, Ok(text)) => event::encode_event(out, None, None, text),
                _ => event::encode_binary_event(out, None, None, payload),
            }
        }
    }

    /// A comment is all that a stream has to find out that its reader is gone.
    fn encode_keep_alive(&self, out: &mut Vec<u8>) {
        event::encode_comment(out, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::JoinedAt;
    use crate::hub::own_event::is_own_event;
    use crate::hub::{Position, PublishOptions};

    /// The types of the events that the dialect itself makes, each by another way.
    #[test]
    fn own_events_have_names_of_no_publication() {
        let mut out = Vec::new();
        let joined = JoinedAt {
            position: Position {
                epoch: 1,
                offset: 2,
            },
            recovered: Some(false),
            has_replay: false,
        };
        let start = StreamStart {
            headers: &[],
            joined: Some(joined),
        };
        Sse.encode_stream_start(&mut out, &start);
        for (refusal, is_expired) in [(None, true), (Some((503, "full")), false)] {
            let end = StreamEnd {
                retry_ms: 1,
                refusal,
                is_expired,
            };
            Sse.encode_stream_end(&mut out, &end);
        }
        Sse.encode_publication(&mut out, &Publication::new(Kind::Binary, &[0xff], 0), None);
        let text = String::from_utf8(out).expect("events are text");
        let mut names: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("event: "))
            .collect();
        assert!(names.iter().all(|name| is_own_event(name)), "{names:?}");
        names.sort_unstable();
        assert_eq!(names, OwnEvent::ALL.map(OwnEvent::name));
    }

    #[test]
    fn text_becomes_a_data_line_and_binary_base64() {
        let encode = |publication: &Publication| {
            let mut out = Vec::new();
            Sse.encode_publication(&mut out, publication, None);
            String::from_utf8(out).expect("events are text")
        };
        assert_eq!(
            encode(&Publication::new(Kind::Text, b"a\nb", 0)),
            "id: 0000000000000000:0\ndata: a\ndata: b\n\n"
        );
        assert_eq!(
            encode(&Publication::new(Kind::Binary, &[0xff, 0], 0)),
            "id: 0000000000000000:0\nevent: binary\ndata: /wA=\n\n"
        );
        let named = |kind, payload| {
            let options = PublishOptions::default().event("price");
            Publication::new(kind, payload, 0).with_options(options)
        };
        assert_eq!(
            encode(&named(Kind::Text, b"a")),
            "id: 0000000000000000:0\nevent: price\ndata: a\n\n"
        );
        assert_eq!(
            encode(&named(Kind::Binary, &[0xff, 0])),
            "id: 0000000000000000:0\nevent: price\numbel-base64: 1\ndata: /wA=\n\n"
        );
    }
}
