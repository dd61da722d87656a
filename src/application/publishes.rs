//! Publishing: by WebSocket, by request, and what the hub did not take at once.

use std::borrow::Cow;
use std::sync::Arc;

use super::commands::CommandTurn;
use super::{Application, CommandContext, ConnectionContext};
use crate::asking::hook;
use crate::auth::access::{Action, Denied};
use crate::auth::table::IdentityHandle;
use crate::connection::{Answer, CloseReason, Hold, Message, PublishAnswer};
use crate::dialect::{self, CommandError, Encoding, ErrorCode, Reply};
use crate::endpoint::hooks::{self, Draft};
use crate::handler::ConnectionId;
use crate::http::refusal::Refusal;
use crate::hub::{Command, Kind, Origin, Position, Publication, PublishOptions, Report};
use crate::route::json;
use crate::topic::Topic;

/// Words for a publisher that the hub has no room for.
pub const HUB_IS_FULL: &str = "more is being published than is delivered; try again";

/// Key of the question about a publication, of which there is one at a time.
const PUBLISH: &str = "publish";

/// A message as the application lets it be published: its kind, its payload and its other fields.
pub type EditedMessage<'p> = (Kind, Cow<'p, [u8]>, PublishOptions);

impl Application {
    /// Holds a publisher back until the hub takes its command; with too many of them already, it is closed and told.
    pub fn hold_back(&mut self, id: ConnectionId, command: Command) -> Answer {
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

    /// Publishes a message of a connection of one topic.
    pub fn handle_publication(
        &mut self,
        current: &mut CommandContext<'_>,
        (may_publish, echo): (bool, bool),
        message: Message<'_>,
    ) -> Answer {
        if self.terms.has_ended(current.id.index) {
            return Answer::End(CloseReason::Expired);
        }
        let (true, Some(subscription)) = (may_publish, current.subscribed.one()) else {
            return Answer::End(CloseReason::Forbidden);
        };
        let topic = self.topics.topic(subscription).clone();
        let message = (message.kind(), message.payload(), PublishOptions::default());
        let message = match self.ask(*current.identity, &topic, message) {
            Ok(Some(message)) => message,
            Ok(None) => return Answer::Proceed,
            Err(_) if self.asking.has_noted() => return Answer::Keep(0, Hold::Ask),
            Err(denied) => {
                return Answer::End(match Refusal::from(denied).status {
                    429 | 503 => CloseReason::Undecided,
                    _ => CloseReason::Forbidden,
                });
            }
        };
        let (kind, payload, options) = message;
        let by = (current.id, *current.identity);
        let publication = match self.admit(by, &topic, (kind, &payload, options)) {
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
            Ok(()) => self.charge_publish(current),
            Err(command) => self.hold_back(current.id, command),
        }
    }

    /// The message to be published in place of one, if any is. Where the application is asked, the event comes again.
    pub fn ask<'p>(
        &self,
        identity: IdentityHandle,
        topic: &Topic,
        (kind, payload, options): (Kind, &'p [u8], PublishOptions),
    ) -> Result<Option<EditedMessage<'p>>, Denied> {
        if self.shared.hook.is_none() {
            return Ok(Some((kind, Cow::Borrowed(payload), options)));
        }
        let draft = hook::Draft {
            topic: topic.as_str(),
            kind,
            payload,
            options: &options,
        };
        let (shared, caller) = (&self.shared, self.identities.get(identity));
        let edit = (self.asking).ask_publication(shared, caller, &PUBLISH, &draft)?;
        Ok(hook::edited(edit, (kind, payload, options)))
    }

    /// Publication of what came by a connection. The program's hook may refuse or change it.
    pub fn admit(
        &self,
        (connection, identity): (ConnectionId, IdentityHandle),
        topic: &Topic,
        (kind, payload, options): (Kind, &[u8], PublishOptions),
    ) -> Result<Publication, Denied> {
        self.admitted.set(self.admitted.get() + 1);
        let options = match self.identities.get(identity).subject() {
            None => options,
            Some(subject) => options.with_publisher_of(self.shown_subject(topic, subject)),
        };
        let draft = Draft {
            topic,
            kind,
            payload,
            options,
            connection: Some(connection),
        };
        hooks::admit(&self.shared, draft, self.now_us)
    }

    /// Carries out a publish of a connection that sends commands.
    pub(super) fn publish_by_command(
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
        let once = once.map(|once| self.key_of_command(turn, &topic, &once));
        let once = once.transpose();
        let once = once.map_err(|refusal| CommandError::of_refusal(id, refusal))?;
        let once = once.map(|key| key.of(kind, &payload, &options));
        let asked = self.ask(turn.identity, &topic, (kind, &*payload, options));
        let Some((kind, payload, options)) = asked.map_err(|denied| turn.denied(id, denied))?
        else {
            turn.reply(id, &Reply::Skipped);
            return Ok(());
        };
        let caller = self.identities.get(turn.identity);
        let taken = self.take_publish(turn.listener, caller, turn.peer_address);
        taken.map_err(|wait_ms| CommandError::rate_limited(id, wait_ms))?;
        let admitted = self.admit((turn.id, turn.identity), &topic, (kind, &payload, options));
        let mut publication = admitted.map_err(|denied| turn.denied(id, denied))?;
        if self.multi_subscriptions.has_silent(turn.subscribed) {
            publication = publication.without_echo(self.reactor, turn.id.to_bits());
        }
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
            (Some(key), Some(id)) => self.publish_once(turn.id, id, (topic, publication), key),
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

    /// Origin of a publish that is answered.
    pub fn origin(&self, connection: ConnectionId, sequence: u32) -> Origin {
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
    pub fn reply(&self, encoding: Encoding, id: Option<u32>, reply: &Reply<'_>, out: &mut Vec<u8>) {
        let (dialects, mut message) = (&self.shared.settings.dialects, Vec::with_capacity(128));
        dialects.get(encoding).encode_reply(&mut message, id, reply);
        dialects.frame_message(encoding, &message, out);
    }
}

/// The hub's queue, or a reactor's mailbox, is full.
pub fn hub_is_full() -> Refusal {
    Refusal::unavailable(HUB_IS_FULL)
}
