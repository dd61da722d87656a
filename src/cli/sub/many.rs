//! Topics and patterns on one connection: `umbel.v1`.

use std::borrow::Cow;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use umbel::internals::http::escape::escape;

use super::super::client::{self, Wishes};
use super::super::ending::{Ending, Refusal};
use super::super::stream::RESPONSE_TIMEOUT;
use super::super::url::Url;
use super::source::{Gap, Item, Payload, Publication, Socket, Source, Take};
use super::target::{Name, Subscription};

/// The subprotocol.
pub const SUBPROTOCOL: &str = "umbel.v1";

/// All subscriptions of a command line.
pub struct Many {
    url: Url,
    wishes: Wishes,
    subscriptions: Vec<Subscription>,
    /// Those that have not been answered.
    waiting: usize,
    /// When they have to be.
    deadline: Instant,
    has_been_open: bool,
    socket: Option<Socket>,
}

/// What the server says. Fields and types that are not here are passed over.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    id: Option<u32>,
    topic: Option<Cow<'a, str>>,
    pattern: Option<Cow<'a, str>>,
    position: Option<Cow<'a, str>>,
    recovered: Option<bool>,
    data: Option<Cow<'a, str>>,
    base64: Option<Cow<'a, str>>,
    key: Option<Cow<'a, str>>,
    event: Option<Cow<'a, str>>,
    message_id: Option<Cow<'a, str>>,
    content_type: Option<Cow<'a, str>>,
    publisher: Option<Cow<'a, str>>,
    tags: Option<Value>,
    time: Option<u64>,
    tombstone: Option<bool>,
    from: Option<Cow<'a, str>>,
    to: Option<Cow<'a, str>>,
    code: Option<Cow<'a, str>>,
    reason: Option<Cow<'a, str>>,
}

impl Many {
    /// On a server's `/ws`; nothing is connected yet.
    pub fn new(url: Url, wishes: Wishes, subscriptions: Vec<Subscription>) -> Many {
        Many {
            url,
            wishes: Wishes {
                subprotocol: Some(SUBPROTOCOL),
                ..wishes
            },
            subscriptions,
            waiting: 0,
            deadline: Instant::now(),
            has_been_open: false,
            socket: None,
        }
    }
}

impl Source for Many {
    fn name(&self) -> String {
        let names: Vec<_> = self
            .subscriptions
            .iter()
            .map(|subscription| escape(subscription.name.as_str()).to_string())
            .collect();
        format!("{} on {}", names.join(", "), self.url)
    }

    fn open(&mut self) -> Result<(), Refusal> {
        let mut socket = Socket::new(client::connect(&self.url, &self.wishes)?);
        for (id, subscription) in self.subscriptions.iter().enumerate() {
            let command = subscription.command(id);
            socket
                .send(&command)
                .map_err(|ending| Refusal::for_now(format!("{}: {ending}", self.url)))?;
        }
        self.waiting = self.subscriptions.len();
        self.deadline = Instant::now() + RESPONSE_TIMEOUT;
        self.socket = Some(socket);
        Ok(())
    }

    fn read(&mut self, take: Take<'_>) -> Result<(), Ending> {
        let Some(mut socket) = self.socket.take() else {
            return Err(Ending::Gone);
        };
        let mut heard = Ok(());
        let read = socket.read(|payload| {
            let Payload::Text(text) = payload else {
                return;
            };
            if heard.is_ok() {
                heard = self.hear(text, take);
            }
        });
        self.socket = Some(socket);
        read.and(heard)?;
        match self.waiting > 0 && Instant::now() > self.deadline {
            true => Err(Ending::Refused(
                format!("{}: a subscription was not answered", self.url),
                true,
            )),
            false => Ok(()),
        }
    }

    fn close(&mut self) {
        if let Some(mut socket) = self.socket.take() {
            socket.close();
        }
    }

    fn finish(&mut self, ending: &Ending) {
        let Some(mut socket) = self.socket.take() else {
            return;
        };
        match ending {
            // The server has not ended the connection.
            Ending::Refused(..) | Ending::Malformed(_) => socket.close(),
            _ => socket.finish(ending),
        }
    }
}

impl Many {
    fn hear(&mut self, text: &str, take: Take<'_>) -> Result<(), Ending> {
        let said: Said<'_> = serde_json::from_str(text).map_err(|error| {
            Ending::Malformed(format!(
                "the server said what is not {SUBPROTOCOL}: {error}"
            ))
        })?;
        match &*said.kind {
            "subscribed" => self.subscribed(&said, take),
            "publication" => self.publication(&said, take),
            "gap" => {
                self.remember(&said, said.to.as_deref());
                if let (Some(from), Some(to)) = (said.from.as_deref(), said.to.as_deref()) {
                    take(Item::Gap(Gap {
                        name: said.topic.as_deref().unwrap_or_default(),
                        ends: Some((from, to)),
                    }));
                }
                Ok(())
            }
            "error" => Err(self.refusal(&said)),
            _ => Ok(()),
        }
    }

    fn subscription(&mut self, id: Option<u32>) -> Option<&mut Subscription> {
        self.subscriptions.get_mut(id? as usize)
    }

    fn subscribed(&mut self, said: &Said<'_>, take: Take<'_>) -> Result<(), Ending> {
        let has_been_open = self.has_been_open;
        let Some(subscription) = self.subscription(said.id) else {
            return Ok(());
        };
        let was_asked = subscription.position.is_some();
        // Nothing says what a pattern's topics published meanwhile.
        let has_gap = match said.recovered {
            Some(recovered) => !recovered,
            None => has_been_open,
        };
        if has_gap || !was_asked {
            subscription.position = said.position.as_deref().map(str::to_owned);
        }
        let name = subscription.name.as_str().to_owned();
        self.waiting = self.waiting.saturating_sub(1);
        if self.waiting == 0 {
            self.has_been_open = true;
            take(Item::Subscribed);
        }
        if has_gap {
            take(Item::Gap(Gap {
                name: &name,
                ends: None,
            }));
        }
        Ok(())
    }

    fn publication(&mut self, said: &Said<'_>, take: Take<'_>) -> Result<(), Ending> {
        self.remember(said, said.position.as_deref());
        let decoded = said.base64.as_deref().map(|text| STANDARD.decode(text));
        let decoded = decoded.transpose().map_err(|error| {
            Ending::Malformed(format!("a publication is not in base64: {error}"))
        })?;
        take(Item::Publication(Publication {
            topic: said.topic.as_deref(),
            pattern: said.pattern.as_deref(),
            position: said.position.as_deref(),
            key: said.key.as_deref(),
            event: said.event.as_deref(),
            message_id: said.message_id.as_deref(),
            content_type: said.content_type.as_deref(),
            publisher: said.publisher.as_deref(),
            tags: said.tags.as_ref(),
            published_ms: said.time,
            is_tombstone: said.tombstone == Some(true),
            payload: match &decoded {
                Some(bytes) => Payload::Binary(bytes),
                None => Payload::Text(said.data.as_deref().unwrap_or_default()),
            },
        }));
        Ok(())
    }

    /// Notes how far a topic's own subscription has come.
    fn remember(&mut self, said: &Said<'_>, position: Option<&str>) {
        let (None, Some(topic), Some(position)) = (&said.pattern, &said.topic, position) else {
            return;
        };
        let mut all = self.subscriptions.iter_mut();
        let own = all.find(|own| matches!(&own.name, Name::Topic(name) if **name == **topic));
        if let Some(own) = own {
            let kept = own.position.get_or_insert_default();
            position.clone_into(kept);
        }
    }

    fn refusal(&mut self, said: &Said<'_>) -> Ending {
        let reason = escape(said.reason.as_deref().unwrap_or_default()).to_string();
        let is_for_now = said.code.as_deref() == Some("unavailable");
        let name = self
            .subscription(said.id)
            .map(|own| own.name.as_str().to_owned());
        let name = escape(name.as_deref().unwrap_or("umbel.v1")).to_string();
        Ending::Refused(format!("{}: {name}: {reason}", self.url), is_for_now)
    }
}

impl Subscription {
    /// The command that subscribes; behind what has come, if something has.
    fn command(&self, id: usize) -> String {
        let (field, name) = match &self.name {
            Name::Topic(name) => ("topic", name),
            Name::Pattern(name) => ("pattern", name),
        };
        let mut command = json!({ "type": "subscribe", "id": id, field: name });
        match (&self.position, self.last) {
            (Some(position), _) => command["since"] = position.as_str().into(),
            (None, Some(last)) => command["last"] = last.into(),
            (None, None) => {}
        }
        command.to_string()
    }
}
