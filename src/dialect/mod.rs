//! Dialects: how publications look on the wire.
//!
//! [`Dialect::Raw`] is the bare payload in a WebSocket frame, [`Dialect::Sse`] an event of `text/event-stream`, and
//! [`v1`] carries many topics on one connection, with commands and answers. The lines of `POST /pub` and the answers to
//! publishes are in [`json`].
//!
//! A WebSocket frame may be compressed besides: by itself ([`deflated`]), or together with those before it ([`cohort`]).

pub mod ending;
mod fields;
mod form;
pub mod json;
pub mod message;
mod object;
pub mod sse;
pub mod umbel_v1;

use std::sync::Arc;

pub use fields::{KEY_BYTES_MAX, check_key};
pub use form::{FORM_COUNT, Form, GapEncoder, Place, RecentDeliveries};

use umbel_v1::binary;

use self::sse::event as sse_event;
use crate::hub::publication::FrameClass;
use crate::hub::{Kind, Publication};

/// How a connection wants its publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// A WebSocket message with the payload as it was published.
    Raw,
    /// A server-sent event. Binary payloads come as base64 in an event of type `binary`.
    Sse,
    /// A text message of `umbel.v1`, which names topic and position.
    V1,
    /// The same in a binary message of `umbel.v1.bin`.
    V1Binary,
}

impl Dialect {
    /// All dialects, in the order of their numbers.
    pub const ALL: [Dialect; 4] = [Dialect::Raw, Dialect::Sse, Dialect::V1, Dialect::V1Binary];

    /// The dialect of `GET /ws` that a subprotocol names.
    pub fn of_subprotocol(name: &str) -> Option<Dialect> {
        match name {
            umbel_v1::SUBPROTOCOL => Some(Dialect::V1),
            binary::SUBPROTOCOL => Some(Dialect::V1Binary),
            _ => None,
        }
    }

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Dialect::Raw => "raw",
            Dialect::Sse => "sse",
            Dialect::V1 => umbel_v1::SUBPROTOCOL,
            Dialect::V1Binary => binary::SUBPROTOCOL,
        }
    }

    /// The bytes that carry the publication, made by whoever asks first and shared from then on.
    pub fn encode(self, publication: &Publication) -> &Arc<[u8]> {
        match self {
            Dialect::Raw => publication.frame(),
            Dialect::Sse => publication.encoded(FrameClass::Sse, encode_event),
            Dialect::V1 => umbel_v1::frame_of(publication, false),
            Dialect::V1Binary => umbel_v1::frame_of(publication, true),
        }
    }
}

fn encode_event(publication: &Publication) -> Arc<[u8]> {
    let mut event = Vec::with_capacity(publication.payload().len() + 64);
    let id = publication.position().to_string();
    match (
        publication.kind(),
        std::str::from_utf8(publication.payload()),
    ) {
        (Kind::Text, Ok(text)) => sse_event::encode_event(&mut event, Some(&id), None, text),
        _ => sse_event::encode_binary_event(&mut event, Some(&id), publication.payload()),
    }
    event.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_a_data_line_and_binary_base64() {
        let text = Publication::new(Kind::Text, b"a\nb", 0);
        assert_eq!(
            &**Dialect::Sse.encode(&text),
            b"id: 0000000000000000:0\ndata: a\ndata: b\n\n"
        );
        let binary = Publication::new(Kind::Binary, &[0xff, 0], 0);
        assert_eq!(
            &**Dialect::Sse.encode(&binary),
            b"id: 0000000000000000:0\nevent: binary\ndata: /wA=\n\n"
        );
        assert_eq!(&**Dialect::Raw.encode(&binary), [0x82, 2, 0xff, 0]);
    }
}
