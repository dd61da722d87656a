//! Publications as subscribers get them: in JSON, and in the compact framing.

use super::super::PublicationFields;
use super::super::object::Object;
use super::binary;
use crate::hub::{Kind, Position, Publication};
use crate::protocol::Opcode;
use crate::topic::Pattern;

/// A publication on its way to a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Topic of the publication.
    pub topic: &'a str,
    /// The pattern that was subscribed to, unless it was the topic itself.
    pub pattern: Option<&'a str>,
    /// Its place in its topic.
    pub position: Position,
    /// Its conflation key.
    pub key: Option<&'a str>,
    /// Text or binary.
    pub kind: Kind,
    /// The message. Valid UTF-8 if it is text.
    pub payload: &'a [u8],
    /// Its other fields.
    pub fields: PublicationFields<'a>,
}

impl<'a> Delivery<'a> {
    /// The publication, for a subscription of its topic or of a pattern. One that the hub has not placed has no topic,
    /// and an empty name here.
    pub fn new(publication: &'a Publication, pattern: Option<&'a Pattern>) -> Delivery<'a> {
        Delivery {
            topic: publication.topic().map_or("", |topic| topic.as_str()),
            pattern: pattern.map(Pattern::as_str),
            position: publication.position(),
            key: publication.key().map(|key| &**key),
            kind: publication.kind(),
            payload: publication.payload(),
            fields: PublicationFields::of(publication),
        }
    }

    /// Appends the text message of `umbel.v1`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let object = Object::of_type(out, "publication")
            .text("topic", self.topic)
            .text_if("pattern", self.pattern)
            .position("position", self.position)
            .text_if("key", self.key);
        let object = self.fields.encode(object);
        object.payload(self.kind, self.payload).end();
    }

    /// Appends its message's payload, for either subprotocol.
    pub fn encode_as(&self, out: &mut Vec<u8>, is_binary: bool) {
        match is_binary {
            true => binary::encode_delivery(out, self),
            false => self.encode(out),
        }
    }

    /// About how many bytes that is.
    pub(super) fn bytes(&self) -> usize {
        let names = self.topic.len() + self.pattern.map_or(0, str::len);
        // Base64 makes four bytes of three; what has to be escaped in a text is mostly little.
        names + self.fields.bytes() + self.payload.len() / 3 * 4 + 160
    }
}

/// Opcode of the message.
pub fn opcode(is_binary: bool) -> Opcode {
    if is_binary {
        Opcode::Binary
    } else {
        Opcode::Text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delivery<'a>(kind: Kind, payload: &'a [u8]) -> Delivery<'a> {
        Delivery {
            topic: "orders/eu",
            pattern: None,
            position: Position {
                epoch: 0xa1,
                offset: 20,
            },
            key: None,
            kind,
            payload,
            fields: PublicationFields::default(),
        }
    }

    fn text(delivery: &Delivery<'_>) -> String {
        let mut out = Vec::new();
        delivery.encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_binary_and_every_field() {
        assert_eq!(
            text(&delivery(Kind::Text, b"text")),
            r#"{"type":"publication","topic":"orders/eu","position":"00000000000000a1:20","data":"text"}"#
        );
        let full = Delivery {
            pattern: Some("orders/*"),
            key: Some("EUR\"USD"),
            ..delivery(Kind::Binary, &[0, 1])
        };
        assert_eq!(
            text(&full),
            r#"{"type":"publication","topic":"orders/eu","pattern":"orders/*","position":"00000000000000a1:20","key":"EUR\"USD","base64":"AAE="}"#
        );
    }

    proptest! {
        #[test]
        fn any_text_comes_back(data in any::<String>(), other in "[\u{0}-\u{20}\"\\\\/\u{7f}\u{85}\u{2028}\u{2029}\u{feff}\u{1f600}]{0,20}") {
            for data in [data, other] {
                let json: serde_json::Value = serde_json::from_str(&text(&delivery(Kind::Text, data.as_bytes()))).unwrap();
                prop_assert_eq!(json["data"].as_str(), Some(&*data));
            }
        }
    }
}
