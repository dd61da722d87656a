//! Sources of publications, whatever protocol the server speaks.

use std::time::{Duration, Instant};

use serde_json::Value;
use umbel::internals::protocol::{CloseCode, Opcode, Received};

use super::super::client::{Liveness, Opened, Reader, Writer};
use super::super::ending::{Ending, Refusal};

/// Time for the server to answer a close frame of ours.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Payload of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
}

/// A publication, with what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication<'a> {
    /// Its topic.
    pub topic: Option<&'a str>,
    /// The pattern that it came by.
    pub pattern: Option<&'a str>,
    /// Its position.
    pub position: Option<&'a str>,
    /// Its key.
    pub key: Option<&'a str>,
    /// Its event.
    pub event: Option<&'a str>,
    /// The publisher's own name for it.
    pub message_id: Option<&'a str>,
    /// Its content type.
    pub content_type: Option<&'a str>,
    /// Subject of its publisher.
    pub publisher: Option<&'a str>,
    /// Its tags, an object.
    pub tags: Option<&'a Value>,
    /// It says that its key is deleted.
    pub is_tombstone: bool,
    /// Moment of the publish, in milliseconds since 1970.
    pub published_ms: Option<u64>,
    /// Payload of a publication.
    pub payload: Payload<'a>,
}

impl<'a> Publication<'a> {
    /// One of which nothing is known yet but the payload.
    pub fn of(payload: Payload<'a>) -> Publication<'a> {
        Publication {
            topic: None,
            pattern: None,
            position: None,
            key: None,
            event: None,
            message_id: None,
            content_type: None,
            publisher: None,
            tags: None,
            is_tombstone: false,
            published_ms: None,
            payload,
        }
    }
}

/// Publications that do not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap<'a> {
    /// Of this topic or pattern, or of this URL.
    pub name: &'a str,
    /// The positions of the first and the last of them. None: which, and whether there are any, is not known.
    pub ends: Option<(&'a str, &'a str)>,
}

/// An item of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// It stands: what is published from here on comes.
    Subscribed,
    /// A publication.
    Publication(Publication<'a>),
    /// Some do not come.
    Gap(Gap<'a>),
}

/// Takes what comes.
pub type Take<'t> = &'t mut dyn FnMut(Item<'_>);

/// Something to subscribe to, again and again.
pub trait Source {
    /// What it is, and where, for people.
    fn name(&self) -> String;

    /// Connects, and asks for everything from where it ended.
    ///
    /// # Errors
    /// Names the URL.
    fn open(&mut self) -> Result<(), Refusal>;

    /// Waits for a while, and hands on what has come.
    ///
    /// # Errors
    /// How the connection ended.
    fn read(&mut self, take: Take<'_>) -> Result<(), Ending>;

    /// Ends the connection in order. What still comes is not handed on.
    fn close(&mut self);

    /// Lets go of a connection that has ended.
    fn finish(&mut self, ending: &Ending);

    /// The time that the server wants to be waited for at least.
    fn wait_min(&self) -> Duration {
        Duration::ZERO
    }
}

/// A WebSocket connection that answers pings, and pings.
pub struct Socket {
    reader: Reader,
    writer: Writer,
    liveness: Liveness,
}

impl Socket {
    /// Of an open connection.
    pub fn new(opened: Opened) -> Socket {
        Socket {
            reader: opened.reader,
            writer: opened.writer,
            liveness: Liveness::default(),
        }
    }

    /// Waits for bytes, and hands on the messages that have become whole.
    ///
    /// # Errors
    /// How the connection ended.
    pub fn read(&mut self, mut take: impl FnMut(Payload<'_>)) -> Result<(), Ending> {
        let (mut ponged, writer) = (Ok(()), &mut self.writer);
        self.reader.read(|received| match received {
            Received::Text(text) => take(Payload::Text(text)),
            Received::Binary(bytes) => take(Payload::Binary(bytes)),
            Received::Ping(payload) if ponged.is_ok() => {
                ponged = writer.send(Opcode::Pong, payload);
            }
            _ => {}
        })?;
        ponged?;
        if self.liveness.poll_ping(&self.reader)? {
            self.writer.send(Opcode::Ping, b"")?;
        }
        Ok(())
    }

    /// Sends a text.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, text: &str) -> Result<(), Ending> {
        Ok(self.writer.send(Opcode::Text, text.as_bytes())?)
    }

    /// The closing handshake, begun by this side. What still arrives is passed over.
    pub fn close(&mut self) {
        if self.writer.close(CloseCode::NORMAL, "").is_err() {
            return;
        }
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        while Instant::now() < deadline && self.reader.read(|_| {}).is_ok() {}
    }

    /// Answers the way that the server ended the connection.
    pub fn finish(&mut self, ending: &Ending) {
        self.writer.finish(ending);
    }
}
