//! Fields of publications as subscribers see them, whatever the dialect.

use std::borrow::Cow;

use super::object::Object;
use crate::hub::{Extras, Publication, PublishOptions, Tag};

/// Fields of a publication besides its payload and its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicationFields<'a> {
    /// Name of what it tells of.
    pub event: Option<&'a str>,
    /// Name that the publisher gave to it.
    pub message_id: Option<&'a str>,
    /// Content type, where it says more than text or binary.
    pub content_type: Option<&'a str>,
    /// That content type is JSON's, and the publisher named it.
    pub names_json: bool,
    /// Subject of who published.
    pub publisher: Option<&'a str>,
    /// Names and values, in the publisher's order.
    pub tags: Cow<'a, [Tag]>,
    /// Moment of the publish, in milliseconds since 1970.
    pub time_ms: Option<u64>,
    /// It says that its key is deleted.
    pub is_tombstone: bool,
    /// Time to live, in milliseconds. Publishers say it; subscribers are not told.
    pub ttl_ms: Option<u64>,
}

impl<'a> PublicationFields<'a> {
    /// The fields of a publication.
    pub fn of(publication: &'a Publication) -> PublicationFields<'a> {
        PublicationFields {
            content_type: publication.content_type(),
            names_json: publication.names_json(),
            time_ms: publication.shown_time_ms(),
            is_tombstone: publication.is_tombstone(),
            ..PublicationFields::default()
        }
        .with_extras(publication.extras())
    }

    /// The fields that a publication of these options will have.
    pub fn of_options(options: &'a PublishOptions) -> PublicationFields<'a> {
        PublicationFields {
            content_type: options.given_content_type(),
            is_tombstone: options.is_tombstone(),
            ttl_ms: options.extras().and_then(|extras| extras.ttl_ms),
            ..PublicationFields::default()
        }
        .with_extras(options.extras())
    }

    fn with_extras(mut self, extras: Option<&'a Extras>) -> PublicationFields<'a> {
        if let Some(extras) = extras {
            self.event = extras.event.as_deref();
            self.message_id = extras.id.as_deref();
            self.publisher = extras.publisher.as_deref();
            self.tags = Cow::Borrowed(&extras.tags);
        }
        self
    }

    /// About how many bytes they have in JSON.
    pub fn bytes(&self) -> usize {
        let texts = [
            self.event,
            self.message_id,
            self.content_type,
            self.publisher,
        ];
        let texts = texts.into_iter().flatten().map(|text| text.len() + 20);
        let tags = self.tags.iter();
        texts.sum::<usize>()
            + tags
                .map(|(name, value)| name.len() + value.len() + 16)
                .sum::<usize>()
    }

    /// Adds those that are there.
    pub(crate) fn encode<'o>(&self, object: Object<'o>) -> Object<'o> {
        if *self == PublicationFields::default() {
            return object;
        }
        let mut object = object
            .text_if("event", self.event)
            .text_if("message_id", self.message_id)
            .text_if("content_type", self.content_type)
            .text_if("publisher", self.publisher);
        if !self.tags.is_empty() {
            object = object.with("tags", |out| encode_tags(out, &self.tags));
        }
        for (name, number) in [("time", self.time_ms), ("ttl_ms", self.ttl_ms)] {
            if let Some(number) = number {
                object = object.value(name, number);
            }
        }
        match self.is_tombstone {
            true => object.value("tombstone", true),
            false => object,
        }
    }
}

/// Appends tags as an object. Their names hold nothing to escape.
pub(crate) fn encode_tags(out: &mut Vec<u8>, tags: &[Tag]) {
    let mut object = Object::new(out);
    for (name, value) in tags {
        object = object.text(name, value);
    }
    object.end();
}
