//! One topic as an event stream: `http://HOST/sse/TOPIC`, or any other.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::ending::{Ending, Refusal};
use super::super::event_stream::{Event, EventStream};
use super::super::url::Url;
use super::source::{Gap, Item, Payload, Publication, Source, Take};

/// An event stream that reconnects behind its last event.
pub struct Stream {
    url: Url,
    /// The topic, where the URL is one of a topic.
    topic: Option<String>,
    token: Option<String>,
    last_id: Option<String>,
    retry: Duration,
    has_been_open: bool,
    has_gap: bool,
    is_announced: bool,
    stream: Option<EventStream>,
}

impl Stream {
    /// At a URL; nothing is connected yet.
    pub fn new(url: Url, token: Option<String>) -> Stream {
        Stream {
            topic: url.topic("/sse/"),
            url,
            token,
            last_id: None,
            retry: Duration::ZERO,
            has_been_open: false,
            has_gap: false,
            is_announced: false,
            stream: None,
        }
    }
}

/// An event as what came of a subscription.
fn hand_on(event: &Event, topic: Option<&str>, name: &str, take: Take<'_>) {
    let decoded = match &*event.name {
        "gap" if topic.is_some() => return take(Item::Gap(Gap { name, ends: None })),
        "binary" => STANDARD.decode(&event.data).ok(),
        _ if event.is_base64 => STANDARD.decode(&event.data).ok(),
        _ => None,
    };
    let is_own = event.name == "message" || event.name == "binary" && decoded.is_some();
    let payload = match &decoded {
        Some(bytes) => Payload::Binary(bytes),
        None => Payload::Text(&event.data),
    };
    take(Item::Publication(Publication {
        topic,
        position: event.id.as_deref(),
        event: (!is_own).then_some(&*event.name),
        ..Publication::of(payload)
    }));
}

impl Source for Stream {
    fn name(&self) -> String {
        self.url.to_string()
    }

    fn open(&mut self) -> Result<(), Refusal> {
        let stream = EventStream::open(&self.url, self.token.as_deref(), self.last_id.as_deref())?;
        self.has_gap = self.has_been_open && self.last_id.is_none();
        self.has_been_open = true;
        self.is_announced = false;
        self.stream = Some(stream);
        Ok(())
    }

    fn read(&mut self, take: Take<'_>) -> Result<(), Ending> {
        let Some(stream) = &mut self.stream else {
            return Err(Ending::StreamEnded);
        };
        let url = self.url.to_string();
        let topic = self.topic.as_deref();
        let name = topic.unwrap_or(&url);
        if !std::mem::replace(&mut self.is_announced, true) {
            take(Item::Subscribed);
            if self.has_gap {
                take(Item::Gap(Gap { name, ends: None }));
            }
        }
        let read = stream.read(&mut |event| hand_on(&event, topic, name, take));
        if let Some(id) = stream.last_id() {
            self.last_id = Some(id.to_owned());
        }
        self.retry = stream.retry().unwrap_or(self.retry);
        read
    }

    fn close(&mut self) {
        self.stream = None;
    }

    fn finish(&mut self, _: &Ending) {
        self.stream = None;
    }

    fn wait_min(&self) -> Duration {
        self.retry
    }
}
