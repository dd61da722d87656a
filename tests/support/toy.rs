//! A dialect that is none of the project's, which wants of the seam what those to come want: it greets as a connection
//! opens, or refuses it after the upgrade; answers all commands of a message in one; holds what was missed in the reply;
//! pings by messages of its own, at times of its own; closes with its own codes; has a text of its own for positions; and
//! cannot show a gap.
//!
//! ```text
//!  message:  line [ \n line ]...
//!  line:     word [ \t name=value ]...      in values %, tab and line ends are escaped: %25, %09, %0a, %0d
//! ```

#![allow(dead_code, reason = "each test that includes it uses a part")]

use std::borrow::Cow;
use std::fmt::{Display, Write};

use umbel::CloseCode;
use umbel::internals::connection::Message;
use umbel::internals::dialect::{
    CloseReason, Closing, Command, CommandError, CommandLimits, Dialect, Entrance, ErrorCode, Gaps,
    Greeting, OnCommand, Opening, Pings, Push, Reply, Row, Target,
};
use umbel::internals::hub::{Kind, Member, Position, Publication, PublishOptions, Start};
use umbel::internals::topic::{Pattern, Topic};

/// Where it is spoken: at `/toy/` and an app.
pub const PATH: &str = "/toy/";

/// An app that is not served.
pub const UNKNOWN_APP: &str = "/toy/unknown";

/// Closed after the upgrade, for there is no such app.
pub const NO_SUCH_APP: u16 = 4001;
/// Closed for a message that is no text.
pub const TEXT_ONLY: u16 = 4003;
/// Closed for a handshake that was refused.
pub const NOT_TAKEN: u16 = 4004;
/// Closed for being too slow, or costing too much.
pub const TOO_SLOW: u16 = 4100;
/// Closed for the server ends.
pub const COME_BACK: u16 = 4200;
/// Closed for saying nothing.
pub const NO_PONG: u16 = 4201;
/// Closed for anything else.
pub const OTHER: u16 = 4999;

/// The subprotocol of the toy where it has one, and where that is spoken.
pub const OFFERED: (&str, &str) = ("toy.v2", "/toy2");

/// The row of the table.
pub fn row(pings: Pings) -> Row {
    let entrance = Entrance::Commands {
        path: PATH,
        subprotocol: None,
    };
    Row::new(Toy { pings }, entrance)
}

/// A row by which it is spoken at a path of its own with a subprotocol.
pub fn offered_row(pings: Pings) -> Row {
    let (subprotocol, path) = OFFERED;
    let entrance = Entrance::Commands {
        path,
        subprotocol: Some(subprotocol),
    };
    Row::new(Toy { pings }, entrance)
}

/// A ping after so much silence, and a close after so much more.
pub fn pings(interval_ms: u64, timeout_ms: u64) -> Pings {
    Pings {
        message: b"ping",
        interval_ms,
        timeout_ms,
    }
}

struct Toy {
    pings: Pings,
}

impl Dialect for Toy {
    fn label(&self) -> &'static str {
        "toy"
    }

    fn encode_publication(
        &self,
        out: &mut Vec<u8>,
        publication: &Publication,
        pattern: Option<&Pattern>,
    ) {
        let topic = publication.topic().map_or("", |topic| topic.as_str());
        let text = String::from_utf8_lossy(publication.payload());
        Line::first(out, "msg")
            .field("topic", topic)
            .field_if("pattern", pattern.map(Pattern::as_str))
            .field("position", position_text(publication.position()))
            .field_if("key", publication.key())
            .field("text", text);
    }

    fn gaps(&self) -> Gaps {
        Gaps::Fatal
    }

    fn refusal_code(&self, status: u16) -> Option<CloseCode> {
        let code = match status {
            503 => COME_BACK,
            _ => NOT_TAKEN,
        };
        Some(CloseCode::new(code))
    }

    fn open(&self, opening: &Opening<'_>) -> Greeting {
        let mut message = Vec::new();
        let path = opening.target.split('?').next();
        if path == Some(UNKNOWN_APP) {
            Line::new(&mut message, "denied");
            let closing = closing(NO_SUCH_APP, "there is no such app");
            return Greeting {
                message,
                closing: Some(closing),
            };
        }
        let member = Member {
            reactor: opening.reactor,
            connection: opening.connection,
            info: None,
            identity: None,
        };
        Line::new(&mut message, "hello").field("connection", connection_name(&member));
        Greeting {
            message,
            closing: None,
        }
    }

    fn parse<'a>(
        &self,
        message: Message<'a>,
        place: usize,
        limits: &CommandLimits,
        each: &mut OnCommand<'_, 'a>,
    ) -> Result<Option<usize>, Closing> {
        let Message::Text(text) = message else {
            return Err(closing(TEXT_ONLY, "text only"));
        };
        let (before, rest) = text.split_at(place);
        let lines_max = limits.commands_max - before.matches('\n').count();
        let mut place = place;
        for line in rest.split('\n').take(lines_max) {
            let fields = Fields::parse(line);
            if fields.word != "pong" {
                let id = fields.number("id");
                let command = parse_command(&fields, id);
                let command = command.map_err(|code| CommandError::new(id, code, "no"));
                if each(command).is_break() {
                    return Ok(Some(place));
                }
            }
            place += line.len() + 1;
        }
        Ok(None)
    }

    fn encode_reply(&self, message: &mut Vec<u8>, id: Option<u32>, reply: &Reply<'_>) {
        match reply {
            Reply::Subscribed(it) => {
                Line::new(message, "subscribed")
                    .field_if("id", id)
                    .target(it.target)
                    .field_if("position", it.position.map(position_text))
                    .field_if("recovered", it.recovered)
                    .field("slow_consumer", it.slow_consumer.as_str());
                for publication in it.replay {
                    message.push(b'\n');
                    self.encode_publication(message, publication, None);
                }
            }
            Reply::Unsubscribed(target) => {
                let line = Line::new(message, "unsubscribed").field_if("id", id);
                line.target(target);
            }
            Reply::Duplicate(position) => {
                let line = Line::new(message, "published").field_if("id", id);
                line.field("position", position_text(*position));
            }
            Reply::Published(position, report) => {
                let line = Line::new(message, "published").field_if("id", id);
                let line = line.field("position", position_text(*position));
                let receipt = report.map(|it| {
                    format!(
                        r#"{{"matched":{},"written":{},"queued":{},"dropped":{}}}"#,
                        it.matched, it.written, it.queued, it.dropped
                    )
                });
                line.field_if("receipt", receipt);
            }
            Reply::History(_) | Reply::Authenticated(_) | Reply::Skipped => {}
            Reply::Present {
                topic,
                total,
                members,
            } => {
                let line = Line::new(message, "present").field_if("id", id);
                let line = line.field("topic", topic.as_str()).field("total", total);
                members.iter().fold(line, |line, member| {
                    let info = member.info.as_deref().unwrap_or("null");
                    line.field("member", format!("{} {info}", connection_name(member)))
                });
            }
            Reply::Pong => {
                Line::new(message, "pong").field_if("id", id);
            }
            Reply::Refused(error) => {
                let line = Line::new(message, "error").field_if("id", id);
                line.field("code", error.code as u32 + 100);
            }
        }
    }

    fn joins_replies(&self) -> bool {
        true
    }

    fn holds_replay(&self) -> bool {
        true
    }

    fn encode_push(&self, message: &mut Vec<u8>, push: &Push<'_>) {
        let change = match push {
            Push::Presence(change) => change,
            Push::Unsubscribed(_) => {
                Line::new(message, "unsubscribed");
                return;
            }
            Push::Expiring(_) | Push::Ended(..) | Push::Message(..) => return,
            Push::PresenceSkipped { topic, members } => {
                let line = Line::new(message, "skipped").field("topic", topic.as_str());
                line.field("members", members);
                return;
            }
        };
        let word = if change.is_join { "join" } else { "leave" };
        Line::new(message, word)
            .field("topic", change.topic.as_str())
            .field("connection", connection_name(&change.member));
    }

    fn pings(&self) -> Option<Pings> {
        Some(self.pings)
    }

    fn close_code(&self, reason: CloseReason) -> (CloseCode, &'static str) {
        let (code, words) = match reason {
            CloseReason::SlowConsumerBytes
            | CloseReason::SlowConsumerAge
            | CloseReason::OverBudget => (TOO_SLOW, "too slow"),
            CloseReason::Shutdown => (COME_BACK, "come back"),
            CloseReason::PongTimeout => (NO_PONG, "no pong"),
            _ => (OTHER, "something else"),
        };
        (CloseCode::new(code), words)
    }
}

fn closing(code: u16, words: &'static str) -> Closing {
    Closing {
        code: CloseCode::new(code),
        words: words.into(),
    }
}

fn connection_name(member: &Member) -> String {
    let (index, generation) = (member.connection as u32, member.connection >> 32);
    format!("{}-{index}-{generation}", member.reactor.0)
}

/// A position in the toy's text: the offset and the epoch, in decimal.
pub fn position_text(position: Position) -> String {
    format!("{}@{}", position.offset, position.epoch)
}

/// The position of such a text.
pub fn parse_position(text: &str) -> Option<Position> {
    let (offset, epoch) = text.split_once('@')?;
    Some(Position {
        epoch: epoch.parse().ok()?,
        offset: offset.parse().ok()?,
    })
}

fn parse_command<'a>(fields: &Fields<'a>, id: Option<u32>) -> Result<Command<'a>, ErrorCode> {
    let topic = || {
        let text = fields.get("topic").ok_or(ErrorCode::InvalidTopic)?;
        Topic::from_text(&text).map_err(|_| ErrorCode::InvalidTopic)
    };
    let target = || match fields.get("pattern") {
        Some(text) => Pattern::parse(&text)
            .map(Target::Pattern)
            .map_err(|_| ErrorCode::InvalidPattern),
        None => topic().map(Target::Topic),
    };
    Ok(match fields.word {
        "subscribe" => Command::Subscribe {
            id,
            target: target()?,
            echo: true,
            start: match (fields.get("since"), fields.number("last")) {
                (Some(since), _) => {
                    Start::Since(parse_position(&since).ok_or(ErrorCode::InvalidPosition)?)
                }
                (None, Some(count)) => Start::Last(count),
                (None, None) => Start::Now,
            },
            signature: None,
        },
        "unsubscribe" => Command::Unsubscribe {
            id,
            target: target()?,
        },
        "publish" => Command::Publish {
            id,
            topic: topic()?,
            kind: Kind::Text,
            payload: match fields.get("text").ok_or(ErrorCode::InvalidCommand)? {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            },
            options: match fields.get("key") {
                Some(key) => PublishOptions::default().key(&*key),
                None => PublishOptions::default(),
            },
            wants_receipt: fields.get("receipt").is_some(),
            once: None,
        },
        "presence" => Command::Presence {
            id,
            topic: topic()?,
        },
        "ping" => Command::Ping { id },
        _ => return Err(ErrorCode::InvalidCommand),
    })
}

/// A line of a message, for both sides.
pub struct Line<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Line<'o> {
    /// Begins one, behind those that the message holds.
    pub fn new(out: &'o mut Vec<u8>, word: &str) -> Line<'o> {
        if !out.is_empty() {
            out.push(b'\n');
        }
        Line::first(out, word)
    }

    /// Begins the first of a message, behind bytes that are none of it.
    pub fn first(out: &'o mut Vec<u8>, word: &str) -> Line<'o> {
        out.extend_from_slice(word.as_bytes());
        Line { out }
    }

    /// Adds a field.
    pub fn field(self, name: &str, value: impl Display) -> Line<'o> {
        let mut text = String::new();
        for letter in value.to_string().chars() {
            match letter {
                '%' | '\t' | '\n' | '\r' => {
                    write!(text, "%{:02x}", letter as u32).expect("a string takes it");
                }
                letter => text.push(letter),
            }
        }
        let field = format!("\t{name}={text}");
        self.out.extend_from_slice(field.as_bytes());
        self
    }

    /// Adds a field, if it has a value.
    pub fn field_if(self, name: &str, value: Option<impl Display>) -> Line<'o> {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    fn target(self, target: &Target) -> Line<'o> {
        match target {
            Target::Topic(topic) => self.field("topic", topic.as_str()),
            Target::Pattern(pattern) => self.field("pattern", pattern.as_str()),
        }
    }
}

/// A line that was read.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    pub word: &'a str,
    rest: &'a str,
}

impl<'a> Fields<'a> {
    pub fn parse(line: &'a str) -> Fields<'a> {
        let (word, rest) = line.split_once('\t').unwrap_or((line, ""));
        Fields { word, rest }
    }

    /// All values of a name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
        let fields = self.rest.split('\t');
        let values = fields.filter_map(move |field| {
            let (own, value) = field.split_once('=')?;
            (own == name).then_some(value)
        });
        values.map(unescape)
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        self.all(name).next()
    }

    /// A value that is a number.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.get(name)?.parse().ok()
    }
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let escapes = [("%09", "\t"), ("%0a", "\n"), ("%0d", "\r"), ("%25", "%")];
    let unescape = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
    Cow::Owned(escapes.iter().fold(text.to_owned(), unescape))
}
