//! The turn of a traced connection: what comes from its peer, and what goes to it.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Moment, Trace, Watch};
use crate::connection::{Answer, Endpoint, Event, Label, Message, OnEvent, Purpose, Settings};
use crate::dialect::object::Object;
use crate::dialect::{Command, CommandLimits, Encoding, Target};
use crate::handler::ConnectionId;
use crate::http::request::Head;
use crate::http::response::answer_head;
use crate::hub::Kind;
use crate::logging::without_secrets;
use crate::protocol::Opcode;
use crate::topic::Topic;

/// Turn of a connection that a trace may be about.
pub struct Turn {
    /// Its name.
    pub id: ConnectionId,
    /// The moment.
    pub at: Moment,
    /// The topic that it has, if it has one alone.
    pub topic: Option<Topic>,
    settings: Arc<Settings>,
    /// Traces that follow it.
    own: Vec<Arc<Trace>>,
    /// Traces that follow topics.
    of_topics: Vec<Arc<Trace>>,
}

impl Turn {
    /// The turn of the connection at an index. None: no trace is about it.
    pub fn begin(
        watch: &Watch,
        (index, id): (u32, ConnectionId),
        at: Moment,
        settings: &Arc<Settings>,
        topic: impl FnOnce() -> Option<Topic>,
    ) -> Option<Turn> {
        let own: Vec<_> = watch.of(index).cloned().collect();
        let of_topics: Vec<_> = watch.of_topics().cloned().collect();
        let is_traced = !own.is_empty() || !of_topics.is_empty();
        is_traced.then(|| Turn {
            id,
            at,
            topic: topic(),
            settings: Arc::clone(settings),
            own,
            of_topics,
        })
    }

    /// Takes events, and tells of each before it is dealt with.
    pub fn watching<'w>(
        &'w self,
        on_event: &'w mut OnEvent<'_>,
    ) -> impl FnMut(Event<'_>, &mut Vec<u8>) -> Answer + 'w {
        move |event, out| {
            self.note(&event);
            on_event(event, out)
        }
    }

    fn note(&self, event: &Event<'_>) {
        match event {
            Event::Request(head, _) | Event::OverCap(_, head, _) => self.note_request(head),
            Event::Body(purpose, body) => self.note_body(purpose, body),
            Event::Message(Endpoint::Commands(encoding), message) => {
                self.tell("message", |_, object| described(object, *message));
                self.note_commands(*encoding, *message);
            }
            Event::Message(_, message) => self.note_message(*message),
            Event::Refused(refusal, _) => self.tell("refused", |_, object| {
                object
                    .number("status", refusal.status)
                    .word("check", refusal.label)
            }),
            Event::Control(opcode, bytes) => self.tell("control", |_, object| {
                object
                    .word("opcode", name_of(*opcode))
                    .number("bytes", *bytes as u64)
            }),
            // The request before it is told already, and so is the message of which it is a rest.
            Event::Opened(..) | Event::Rest(..) => {}
        }
    }

    /// Tells the traces of the connection.
    fn tell(&self, event: &str, encode: impl for<'o> Fn(&Trace, Object<'o>) -> Object<'o>) {
        for trace in &self.own {
            self.tell_one(trace, event, &encode);
        }
    }

    /// Tells the traces of the connection, and those of the topic.
    fn tell_of_topic(
        &self,
        event: &str,
        topic: Option<&Topic>,
        encode: impl for<'o> Fn(&Trace, Object<'o>) -> Object<'o>,
    ) {
        let concerns = |trace: &Trace| topic.is_some_and(|topic| trace.follows(topic));
        self.tell_all(event, &concerns, encode);
    }

    /// Tells the traces of the connection, and those of topics that this concerns.
    fn tell_all(
        &self,
        event: &str,
        concerns: &dyn Fn(&Trace) -> bool,
        encode: impl for<'o> Fn(&Trace, Object<'o>) -> Object<'o>,
    ) {
        self.tell(event, &encode);
        for trace in self.of_topics.iter().filter(|trace| concerns(trace)) {
            self.tell_one(trace, event, &encode);
        }
    }

    fn tell_one(
        &self,
        trace: &Trace,
        event: &str,
        encode: impl for<'o> Fn(&Trace, Object<'o>) -> Object<'o>,
    ) {
        trace.tell(self.at, event, |object| {
            encode(trace, object.plain("connection", self.id))
        });
    }

    fn note_request(&self, head: &Head<'_>) {
        self.tell("request", |_, object| {
            object
                .text("method", head.method.as_str())
                .text("path", &without_secrets(head.target))
        });
    }

    fn note_body(&self, purpose: &Purpose, body: &[u8]) {
        let Purpose::Publish { topic, kind, .. } = purpose else {
            return self.tell("body", |_, object| {
                object.number("bytes", body.len() as u64)
            });
        };
        let is_text = std::str::from_utf8(body).is_ok();
        let kind = kind.unwrap_or(if is_text { Kind::Text } else { Kind::Binary });
        self.tell_of_topic("publish", Some(topic), |trace, object| {
            let object = object
                .text("topic", topic.as_str())
                .number("bytes", body.len() as u64);
            trace.payload(object, kind, body)
        });
    }

    fn note_message(&self, message: Message<'_>) {
        let topic = self.topic.as_ref();
        self.tell_of_topic("message", topic, |trace, object| {
            let object = described(object, message).text_if("topic", topic.map(Topic::as_str));
            trace.payload(object, message.kind(), message.payload())
        });
    }

    /// Tells of the commands of a message. It is parsed for that once more.
    fn note_commands(&self, encoding: Encoding, message: Message<'_>) {
        let limits = CommandLimits::of(&self.settings.limits);
        let dialect = self.settings.dialects.get(encoding);
        // What is wrong with the whole message is told by the Close that follows.
        let _ = dialect.parse(message, 0, &limits, &mut |command| {
            match command {
                Ok(command) => self.note_command(&command),
                Err(error) => self.tell("command_error", |_, object| {
                    let object = match error.id {
                        Some(id) => object.number("id", id),
                        None => object,
                    };
                    object.text("reason", &error.reason)
                }),
            }
            ControlFlow::Continue(())
        });
    }

    fn note_command(&self, command: &Command<'_>) {
        let (event, id, target) = parts(command);
        let (topic, pattern) = match &target {
            Some(Target::Topic(topic)) => (Some(topic), None),
            Some(Target::Pattern(pattern)) => (None, Some(pattern)),
            None => (None, None),
        };
        let concerns = |trace: &Trace| match &target {
            Some(Target::Topic(topic)) => trace.follows(topic),
            Some(Target::Pattern(pattern)) => trace.meets(pattern),
            None => false,
        };
        self.tell_all(event, &concerns, |trace, object| {
            let object = match id {
                Some(id) => object.number("id", id),
                None => object,
            };
            let object = object
                .text_if("topic", topic.map(Topic::as_str))
                .text_if("pattern", pattern.map(|pattern| pattern.as_str()));
            match command {
                Command::Publish { kind, payload, .. } => {
                    let object = object.number("bytes", payload.len() as u64);
                    trace.payload(object, *kind, payload)
                }
                _ => object,
            }
        });
    }
}

fn described<'o>(object: Object<'o>, message: Message<'_>) -> Object<'o> {
    let kind = match message {
        Message::Text(_) => "text",
        Message::Binary(_) => "binary",
    };
    object
        .word("kind", kind)
        .number("bytes", message.payload().len() as u64)
}

/// Name of a command, its id, and what it is about.
fn parts(command: &Command<'_>) -> (&'static str, Option<u32>, Option<Target>) {
    let of_topic = |topic: &Topic| Some(Target::Topic(topic.clone()));
    match command {
        Command::Auth { id, .. } => ("auth", *id, None),
        Command::Subscribe { id, target, .. } => ("subscribe", *id, Some(target.clone())),
        Command::Unsubscribe { id, target } => ("unsubscribe", *id, Some(target.clone())),
        Command::Publish { id, topic, .. } => ("publish", *id, of_topic(topic)),
        Command::Presence { id, topic } => ("presence", *id, of_topic(topic)),
        Command::History { id, topic, .. } => ("history", *id, of_topic(topic)),
        Command::Ping { id } => ("ping", *id, None),
    }
}

/// Tells a trace of what is written to its connection besides publications: answers, and frames with replies, pings and
/// Closes. `queued_bytes` wait before it.
pub fn tell_written(
    trace: &Trace,
    at: Moment,
    (id, label): (ConnectionId, Label),
    out: &[u8],
    queued_bytes: usize,
) {
    let tell = |event: &str, encode: &dyn Fn(Object<'_>) -> Object<'_>| {
        trace.tell(at, event, |object| {
            let object = encode(object.plain("connection", id));
            match queued_bytes {
                0 => object,
                bytes => object.number("queued_bytes", bytes as u64),
            }
        });
    };
    let mut frames = out;
    if let Some(head) = answer_head(out) {
        // Frames follow the answer to an opening handshake alone; else it is all the answer.
        let len = if head.status == 101 {
            head.len
        } else {
            out.len()
        };
        frames = &out[len..];
        tell("answer", &|object| {
            object
                .number("status", head.status)
                .number("bytes", len as u64)
        });
    } else if label == Label::Http {
        return tell("answer", &|object| object.number("bytes", out.len() as u64));
    }
    while let Some((opcode, payload_len, rest)) = next_frame(frames) {
        tell("frame", &|object| {
            object
                .word("opcode", opcode)
                .number("bytes", payload_len as u64)
        });
        frames = rest;
    }
    if !frames.is_empty() {
        tell("stream", &|object| {
            object.number("bytes", frames.len() as u64)
        });
    }
}

fn name_of(opcode: Opcode) -> &'static str {
    match opcode {
        Opcode::Continuation => "continuation",
        Opcode::Text => "text",
        Opcode::Binary => "binary",
        Opcode::Close => "close",
        Opcode::Ping => "ping",
        Opcode::Pong => "pong",
    }
}

/// The frame that bytes of a server begin with: its opcode, the length of its payload, and what follows.
fn next_frame(bytes: &[u8]) -> Option<(&'static str, usize, &[u8])> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let opcode = name_of(Opcode::parse(first).ok()?);
    let (len, rest) = match second {
        0..126 => (usize::from(second), rest),
        126 => {
            let (len, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        127 => {
            let (len, rest) = rest.split_first_chunk()?;
            (usize::try_from(u64::from_be_bytes(*len)).ok()?, rest)
        }
        // Frames of a server are not masked.
        _ => return None,
    };
    Some((opcode, len, rest.get(len..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::encode_frame;

    #[test]
    fn frames_of_a_server() {
        let mut out = Vec::new();
        for (opcode, len) in [
            (Opcode::Text, 5),
            (Opcode::Ping, 0),
            (Opcode::Binary, 126),
            (Opcode::Binary, 70_000),
            (Opcode::Close, 2),
        ] {
            encode_frame(&mut out, opcode, &vec![b'a'; len], None);
        }
        let mut frames = Vec::new();
        let mut rest = &out[..];
        while let Some((opcode, len, behind)) = next_frame(rest) {
            frames.push((opcode, len));
            rest = behind;
        }
        let expected = [
            ("text", 5),
            ("ping", 0),
            ("binary", 126),
            ("binary", 70_000),
            ("close", 2),
        ];
        assert_eq!((&frames[..], rest.len()), (&expected[..], 0));
        assert_eq!(next_frame(b"data: a\n\n"), None);
    }
}
