//! Publishing: by WebSocket, by request, and what the hub did not take at once.

use std::sync::Arc;

use super::commands::CommandTurn;
use super::{Application, CommandContext, ConnectionContext};
use crate::auth::access::{Action, Denied};
use crate::auth::caller::Caller;
use crate::connection::{self, Answer, Awaited, CloseReason, Hold, Message, PublishAnswer};
use crate::dialect::{self, CommandError, CommandLimits, Encoding, ErrorCode, Reply};
use crate::endpoint::hooks::{self, Draft};
use crate::handler::ConnectionId;
use crate::http::refusal::Refusal;
use crate::hub::{
    Command, IdempotencyKey, Kind, Origin, Position, Publication, PublishOptions, Publisher, Report,
};
use crate::route::json;
use crate::topic::Topic;

/// What a publisher is told that the hub has no room for.
const HUB_IS_FULL: &str = "more is being published than is delivered; try again";

/// What some editors put before a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A publication on its way to the hub.
struct PendingPublication {
    topic: Topic,
    publication: Publication,
    wants_receipt: bool,
    /// It is carried out once.
    once: Option<IdempotencyKey>,
}

impl Application {
    /// Holds a publisher back until the hub takes its command; with too many of them already, it is closed and told.
    pub(super) fn hold_back(&mut self, id: ConnectionId, command: Command) -> Answer {
        let limits = &self.shared.settings.limits;
        if self.deferred.len() >= limits.commands_max
            || self.deferred_bytes + command.bytes() > limits.command_bytes_max
        {
            return Answer::End(CloseReason::OverBudget);
        }
        self.metrics.publish_holds.add(1);
        self.defer(id, command);
        Answer::Hold(Hold::Hub)
    }

    /// Keeps a command that the hub did not take.
    pub fn defer(&mut self, id: ConnectionId, command: Command) {
        self.deferred_bytes += command.bytes();
        self.deferred.push_back((id, command));
    }

    /// The oldest command that the hub did not take.
    pub fn take_deferred(&mut self) -> Option<(ConnectionId, Command)> {
        let (id, command) = self.deferred.pop_front()?;
        self.deferred_bytes -= command.bytes();
        Some((id, command))
    }

    pub(super) fn handle_publication(
        &mut self,
        current: &mut CommandContext<'_>,
        (may_publish, echo): (bool, bool),
        message: Message<'_>,
    ) -> Answer {
        let (true, Some(subscription)) = (may_publish, current.subscribed.one()) else {
            return Answer::End(CloseReason::Forbidden);
        };
        let topic = self.topics.topic(subscription).clone();
        let message = (message.kind(), message.payload(), PublishOptions::default());
        let publication = match self.admit(current.id, &topic, message) {
            Ok(publication) if !echo => {
                publication.without_echo(self.reactor, current.id.to_bits())
            }
            Ok(publication) => publication,
            Err(Denied::Failed) => return Answer::End(CloseReason::EmbedderPanic),
            Err(_) => return Answer::End(CloseReason::Forbidden),
        };
        match self.submit(Command::Publish {
            topic,
            publication: Arc::new(publication),
            origin: Origin::Detached,
        }) {
            Ok(()) => Answer::Proceed,
            Err(command) => self.hold_back(current.id, command),
        }
    }

    pub(super) fn handle_publish_body(
        &mut self,
        current: &mut CommandContext<'_>,
        topic: Topic,
        kind: Option<Kind>,
        (options, wants_receipt, once): (PublishOptions, bool, Option<&str>),
        body: &[u8],
    ) -> Answer {
        let is_text = || simdutf8::basic::from_utf8(body).is_ok();
        let kind = match kind {
            Some(Kind::Text) if !is_text() => {
                let reason = "the Content-Type says text, but the body is not UTF-8; \
                              send application/octet-stream for binary";
                return Answer::Refuse(Refusal::bad_request(reason));
            }
            Some(kind) => kind,
            None if is_text() => Kind::Text,
            None => Kind::Binary,
        };
        let publisher = once.map(|_| self.publisher(current)).transpose();
        let once = match publisher {
            Ok(publisher) => publisher.zip(once),
            Err(refusal) => return Answer::Refuse(refusal),
        };
        let once = once.map(|(publisher, key)| IdempotencyKey::new(publisher, &topic, key, None));
        let publication = match self.admit(current.id, &topic, (kind, body, options)) {
            Ok(publication) => publication,
            Err(denied) => return Answer::Refuse(denied.into()),
        };
        let pending = PendingPublication {
            topic,
            publication,
            wants_receipt,
            once,
        };
        match self.publish(current, pending, 0) {
            Ok(()) => Answer::Await(Awaited::One),
            Err(refusal) => Answer::Refuse(refusal),
        }
    }

    /// Makes a publication of what came by a connection, as the program's hook lets it be.
    fn admit(
        &self,
        connection: ConnectionId,
        topic: &Topic,
        (kind, payload, options): (Kind, &[u8], PublishOptions),
    ) -> Result<Publication, Denied> {
        let draft = Draft {
            topic,
            kind,
            payload,
            options,
            connection: Some(connection),
        };
        hooks::admit(&self.shared, draft, self.now_us)
    }

    /// Hands a publication of a request to the hub.
    fn publish(
        &mut self,
        current: &CommandContext<'_>,
        pending: PendingPublication,
        sequence: u32,
    ) -> Result<(), Refusal> {
        let mut publication = pending.publication;
        let mut origin = self.origin(current.id, sequence);
        if pending.wants_receipt {
            let receipt = self.receipt(current.id, sequence);
            publication = publication.with_receipt(receipt.ok_or_else(too_many_receipts)?);
            // The receipt says the position too.
            origin = Origin::Detached;
        }
        let command = match pending.once {
            Some(key) => {
                self.publish_once(current.id, sequence, (pending.topic, publication), &key)
            }
            None => Command::Publish {
                topic: pending.topic,
                publication: Arc::new(publication),
                origin,
            },
        };
        self.submit(command).map_err(|_| {
            if pending.wants_receipt {
                self.receipts.give_back();
            }
            hub_is_full()
        })
    }

    pub(super) fn handle_publish_lines(
        &mut self,
        current: &mut CommandContext<'_>,
        idempotency_key: Option<&str>,
        body: &[u8],
    ) -> Answer {
        let publisher = idempotency_key.map(|_| self.publisher(current)).transpose();
        let once = match publisher {
            Ok(publisher) => publisher.zip(idempotency_key),
            Err(refusal) => return Answer::Refuse(refusal),
        };
        let lines_max = self.shared.settings.limits.publish_lines_max;
        // Editors that put a byte order mark before a text mean nothing by it.
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let lines = body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        let lines = (1..).zip(lines).filter(|(_, line)| !line.is_empty());
        let (mut answers, mut tally) = (Vec::new(), LineTally::default());
        for (number, line) in lines {
            let sequence = answers.len();
            if sequence == lines_max {
                let reason =
                    format!("over {lines_max} lines: this one and all after it are not published");
                answers.push(Some(tally.refuse(number, 413, &reason)));
                break;
            }
            // A line that the hub has no room for takes those behind it along: whoever sends again what was turned away
            // sends it in the same order. One that is refused for any other reason is refused alone.
            let outcome = if tally.hub_is_full {
                Err(hub_is_full())
            } else {
                let once = once.map(|(publisher, key)| (publisher, key, number as u32));
                self.publish_line(current, line, sequence as u32, once)
            };
            answers.push(outcome.err().map(|refusal| {
                tally.hub_is_full |= refusal.reason == HUB_IS_FULL;
                tally.refuse(number, refusal.status, &refusal.reason)
            }));
        }
        // Nothing else is asked of who sent the request.
        self.identities.replace(current.identity, Caller::Anonymous);
        match tally.refused > 0 && tally.refused == answers.len() {
            true => Answer::Respond(tally.nothing_published(answers)),
            false => Answer::Await(Awaited::Lines(answers)),
        }
    }

    fn publish_line(
        &mut self,
        current: &CommandContext<'_>,
        line: &[u8],
        sequence: u32,
        once: Option<(Publisher, &str, u32)>,
    ) -> Result<(), Refusal> {
        let limits = CommandLimits::of(&self.shared.settings.limits);
        let line = json::parse_publish_line(line, &limits)?;
        let caller = self.identities.get(*current.identity);
        self.authorize(caller, Action::Publish(line.topic.as_str()))?;
        let once = once.map(|(publisher, key, number)| {
            IdempotencyKey::new(publisher, &line.topic, key, Some(number))
        });
        let message = (line.kind, &*line.payload, line.options);
        let publication = self.admit(current.id, &line.topic, message)?;
        let pending = PendingPublication {
            once,
            topic: line.topic,
            publication,
            wants_receipt: line.wants_receipt,
        };
        self.publish(current, pending, sequence)
    }

    /// Carries out a publish of a connection that sends commands.
    pub(super) fn publish_many(
        &mut self,
        turn: &mut CommandTurn<'_>,
        command: dialect::Command<'_>,
    ) -> Result<(), CommandError> {
        let dialect::Command::Publish {
            id,
            topic,
            kind,
            payload,
            options,
            wants_receipt,
            once,
        } = command
        else {
            return Ok(());
        };
        self.authorize_command(turn, id, Action::Publish(topic.as_str()))?;
        let admitted = self.admit(turn.id, &topic, (kind, &payload, options));
        let mut publication = admitted.map_err(|denied| turn.denied(id, denied))?;
        if self.multi_subscriptions.has_silent(turn.subscribed) {
            publication = publication.without_echo(self.reactor, turn.id.to_bits());
        }
        let once = once.map(|once| self.key_of_command(turn, &topic, &once));
        let once = once.transpose();
        let once = once.map_err(|refusal| CommandError::of_refusal(id, refusal))?;
        let origin = match id {
            Some(id) if wants_receipt => {
                let receipt = self.receipt(turn.id, id);
                let receipt = receipt.ok_or_else(|| {
                    let reason = "as many receipts as receipts_max allows are outstanding";
                    CommandError::new(Some(id), ErrorCode::Unavailable, reason)
                })?;
                publication = publication.with_receipt(receipt);
                Origin::Detached
            }
            Some(id) => self.origin(turn.id, id),
            None => Origin::Detached,
        };
        let command = match (once, id) {
            (Some(key), Some(id)) => self.publish_once(turn.id, id, (topic, publication), &key),
            _ => Command::Publish {
                topic,
                publication: Arc::new(publication),
                origin,
            },
        };
        // Behind one that the hub has yet to take, for the order of a connection's publications holds.
        let outcome = match turn.answer {
            Answer::Hold(_) => Err(command),
            _ => self.submit(command),
        };
        if let Err(command) = outcome {
            turn.answer = self.hold_back(turn.id, command);
            if turn.is_ending() && wants_receipt && id.is_some() {
                self.receipts.give_back();
            }
        }
        Ok(())
    }

    pub(super) fn origin(&self, connection: ConnectionId, sequence: u32) -> Origin {
        Origin::Connection {
            reactor: self.reactor,
            connection: connection.to_bits(),
            sequence,
        }
    }

    /// A publication of a connection's has its place; with a report, it has been written to everybody too.
    pub fn handle_published(
        &self,
        context: &mut ConnectionContext<'_>,
        sequence: u32,
        position: Position,
        report: Option<&Report>,
    ) {
        let ConnectionContext {
            connection,
            out,
            now_ms,
            ..
        } = context;
        if let Some(encoding) = connection.command_encoding() {
            let reply = Reply::Published(position, report);
            self.reply(encoding, Some(sequence), &reply, out);
        } else {
            let mut line = Vec::with_capacity(48);
            json::encode_published(&mut line, position, report);
            let settings = &self.shared.settings;
            let line = PublishAnswer::placed(line);
            connection.handle_line(settings, *now_ms, sequence, line, out);
        }
    }

    /// Writes a reply as a message of its own.
    pub(super) fn reply(
        &self,
        encoding: Encoding,
        id: Option<u32>,
        reply: &Reply<'_>,
        out: &mut Vec<u8>,
    ) {
        let (dialects, mut message) = (&self.shared.settings.dialects, Vec::with_capacity(128));
        dialects.get(encoding).encode_reply(&mut message, id, reply);
        dialects.frame_message(encoding, &message, out);
    }
}

/// The hub's queue, or a reactor's mailbox, is full.
pub fn hub_is_full() -> Refusal {
    Refusal::unavailable(HUB_IS_FULL)
}

/// Count of the lines of a request that were refused.
#[derive(Debug, Default)]
struct LineTally {
    refused: usize,
    /// Of these, those that may be taken a little later.
    unavailable: usize,
    hub_is_full: bool,
}

impl LineTally {
    /// Counts a refused line, and gives the answer to it.
    fn refuse(&mut self, number: usize, status: u16, reason: &str) -> Vec<u8> {
        self.refused += 1;
        self.unavailable += usize::from(status == 503);
        let mut answer = Vec::new();
        json::encode_refused(&mut answer, number, status, reason);
        answer
    }

    /// The answer to a request of which no line was published.
    fn nothing_published(&self, answers: Vec<Option<Vec<u8>>>) -> connection::Reply {
        let mut body = Vec::new();
        for answer in answers.into_iter().flatten() {
            body.extend_from_slice(&answer);
            body.push(b'\n');
        }
        let is_for_now = self.unavailable == self.refused;
        let retry = is_for_now.then(|| ("Retry-After", "1".to_owned()));
        connection::Reply {
            status: if is_for_now { 503 } else { 422 },
            content_type: "application/x-ndjson",
            headers: retry.into_iter().collect(),
            body: body.into(),
        }
    }
}

/// Nobody else may wait for a receipt.
fn too_many_receipts() -> Refusal {
    Refusal::unavailable("as many receipts as receipts_max allows are outstanding; try again")
}
