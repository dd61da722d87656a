//! Pages of histories in JSON. They are the same in answers of HTTP and of dialects.

use std::sync::Arc;

use super::PublicationFields;
use super::object::Object;
use crate::hub::{HistoryPage, Position, Publication};
use crate::topic::Topic;

/// A page of a topic's history.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// The page, as the hub gave it.
    pub page: &'a HistoryPage,
    /// Its publications, or as many of them as there is room for.
    pub publications: &'a [Arc<Publication>],
}

impl<'a> History<'a> {
    /// All of a page.
    pub fn new(topic: &'a Topic, page: &'a HistoryPage) -> History<'a> {
        History {
            topic,
            page,
            publications: &page.publications,
        }
    }

    /// The first half of it. None if there is no less.
    pub fn half(self) -> Option<History<'a>> {
        let half = self.publications.len() / 2;
        let publications = self.publications.get(..half).filter(|it| !it.is_empty())?;
        Some(History {
            publications,
            ..self
        })
    }

    /// Position after which the next page begins, if there is one.
    fn next(&self) -> Option<Position> {
        let is_cut = self.publications.len() < self.page.publications.len();
        let last = self.publications.last();
        last.filter(|_| is_cut || self.page.has_more)
            .map(|last| last.position())
    }

    /// Adds it to an object.
    pub(crate) fn encode<'o>(&self, object: Object<'o>) -> Object<'o> {
        let mut object = object.text("topic", self.topic.as_str());
        if let Some(position) = self.page.position {
            object = object.plain("position", position);
        }
        if let Some(recovered) = self.page.recovered {
            object = object.value("recovered", recovered);
        }
        object = object.with("publications", |out| {
            out.push(b'[');
            for (index, publication) in self.publications.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                encode_publication(out, publication);
            }
            out.push(b']');
        });
        match self.next() {
            Some(next) => object.plain("next", next),
            None => object,
        }
    }
}

/// Appends one publication, with its time whatever the topic's rule says.
fn encode_publication(out: &mut Vec<u8>, publication: &Publication) {
    let fields = PublicationFields {
        time_ms: Some(publication.time_ms()),
        ..PublicationFields::of(publication)
    };
    let object = Object::new(out)
        .plain("position", publication.position())
        .text_if("key", publication.key().map(|key| &**key));
    fields
        .encode(object)
        .payload(publication.kind(), publication.payload())
        .end();
}
