//! One topic's payloads as messages: `ws://HOST/ws/TOPIC`, or any other WebSocket.

use umbel::internals::hub::Position;

use super::super::client::{self, Wishes};
use super::super::ending::{Ending, Refusal, Return};
use super::super::url::Url;
use super::source::{Gap, Item, Publication, Socket, Source, Take};
use super::target::which_topic;

/// A WebSocket whose messages are publications.
///
/// They carry no positions. The handshake says where the topic stands, and from there they are counted, so that the next
/// handshake can ask for what came after. Where a rule of the server's leaves publications out for slow readers, the
/// count stays behind, and some come twice; none is lost.
pub struct TopicSocket {
    /// Without the parameter that says where to begin.
    url: Url,
    /// Where to begin at first, as in `last=10`.
    start: Option<String>,
    /// The topic, where the URL is one of a topic.
    topic: Option<String>,
    wishes: Wishes,
    /// The position of the last publication, while it can be told.
    position: Option<Position>,
    has_been_open: bool,
    /// Something may be missing behind the handshake.
    has_gap: bool,
    is_announced: bool,
    socket: Option<Socket>,
}

impl TopicSocket {
    /// At a URL; nothing is connected yet.
    pub fn new(mut url: Url, wishes: Wishes) -> TopicSocket {
        let start = url.take_parameter(&["since", "last"]);
        TopicSocket {
            topic: url.topic("/ws/"),
            url,
            start,
            wishes,
            position: None,
            has_been_open: false,
            has_gap: false,
            is_announced: false,
            socket: None,
        }
    }

    /// A server's root is seldom a WebSocket.
    fn explain(&self, mut refusal: Refusal) -> Refusal {
        if self.url.target == "/" && refusal.comes_back == Return::Never {
            refusal.text = format!("{}; {}", refusal.text, which_topic(&self.url));
        }
        refusal
    }

    /// The parameter that says where to begin now.
    fn parameter(&self) -> Option<String> {
        match (self.position, &self.start) {
            (Some(position), _) => Some(format!("since={position}")),
            (None, Some(start)) if !self.has_been_open => Some(start.clone()),
            // Nothing of what was, but the handshake says where the topic stands.
            (None, _) => self.topic.is_some().then(|| "last=0".to_owned()),
        }
    }
}

impl Source for TopicSocket {
    fn name(&self) -> String {
        self.url.to_string()
    }

    fn open(&mut self) -> Result<(), Refusal> {
        let parameter = self.parameter();
        let mut url = self.url.clone();
        if let Some(parameter) = &parameter {
            url.add_parameter(parameter);
        }
        let opened =
            client::connect(&url, &self.wishes).map_err(|refusal| self.explain(refusal))?;
        let stands_at = opened.position.as_deref().and_then(Position::parse);
        let since = parameter
            .as_deref()
            .and_then(|text| text.strip_prefix("since="));
        self.has_gap = match since {
            Some(_) => opened.recovered != Some(true),
            None => self.has_been_open,
        };
        self.position = match (since, parameter.as_deref().unwrap_or_default()) {
            (Some(since), _) if !self.has_gap => Position::parse(since),
            (Some(_), _) | (None, "last=0") => stands_at,
            // Of how many come first there is no word.
            _ => None,
        };
        self.has_been_open = true;
        self.is_announced = false;
        self.socket = Some(Socket::new(opened));
        Ok(())
    }

    fn read(&mut self, take: Take<'_>) -> Result<(), Ending> {
        let Some(socket) = &mut self.socket else {
            return Err(Ending::Gone);
        };
        if !std::mem::replace(&mut self.is_announced, true) {
            take(Item::Subscribed);
            if self.has_gap {
                let url = self.url.to_string();
                let name = self.topic.as_deref().unwrap_or(&url);
                take(Item::Gap(Gap { name, ends: None }));
            }
        }
        let (topic, position) = (self.topic.as_deref(), &mut self.position);
        socket.read(|payload| {
            if let Some(position) = position {
                position.offset = position.offset.saturating_add(1);
            }
            take(Item::Publication(Publication {
                topic,
                ..Publication::of(payload)
            }));
        })
    }

    fn close(&mut self) {
        if let Some(mut socket) = self.socket.take() {
            socket.close();
        }
    }

    fn finish(&mut self, ending: &Ending) {
        if let Some(mut socket) = self.socket.take() {
            socket.finish(ending);
        }
    }
}
