//! Publishes with an idempotency key: who publishes, and what is answered when the hub does not carry one out.

use std::sync::Arc;

use super::commands::CommandTurn;
use super::{Application, CommandContext, ConnectionContext, PeerAddress};
use crate::auth::caller::Caller;
use crate::connection::{Event, PublishAnswer};
use crate::dialect::{CommandError, ErrorCode, Once, Reply};
use crate::handler::ConnectionId;
use crate::http::refusal::Refusal;
use crate::hub::{Command, IdempotencyKey, Outcome, Position, Publication, PublishOnce, Publisher};
use crate::route::json;
use crate::topic::Topic;

impl Application {
    /// The sender of the request.
    pub(super) fn publisher(&self, current: &CommandContext<'_>) -> Result<Publisher, Refusal> {
        let caller = self.identities.get(*current.identity);
        publisher(caller, current.peer_address)
    }

    /// Key of a publish of a connection that sends commands.
    pub(super) fn key_of_command(
        &self,
        turn: &CommandTurn<'_>,
        topic: &Topic,
        once: &Once<'_>,
    ) -> Result<IdempotencyKey, Refusal> {
        let caller = self.identities.get(turn.identity);
        let publisher = publisher(caller, turn.peer_address)?;
        let key = IdempotencyKey::new(publisher, topic, &once.key, None);
        let Some(before_ms) = once.first_sent_ms else {
            return Ok(key);
        };
        let many = self.multi_subscriptions.get(turn.subscribed);
        let opened_ms = many.map_or(0, |many| many.opened_ms());
        let sent_ms = i64::try_from(opened_ms).unwrap_or(i64::MAX) - i64::from(before_ms);
        Ok(key.sent_before(sent_ms.saturating_mul(1000)))
    }

    /// Command to publish once.
    pub(super) fn publish_once(
        &self,
        connection: ConnectionId,
        sequence: u32,
        (topic, publication): (Topic, Publication),
        key: &IdempotencyKey,
    ) -> Command {
        Command::PublishOnce(Box::new(PublishOnce {
            topic,
            key: key.of(&publication),
            publication: Arc::new(publication),
            reactor: self.reactor,
            connection: connection.to_bits(),
            sequence,
        }))
    }

    /// Tells a publisher that nothing was published now.
    pub fn handle_not_placed(
        &mut self,
        context: &mut ConnectionContext<'_>,
        sequence: u32,
        outcome: Outcome,
        position: Position,
    ) {
        let refusal = refusal_of(outcome);
        match refusal {
            Some(_) => self.metrics.key_refusals.add(1),
            None => self.metrics.publish_replays.add(1),
        }
        let Some(encoding) = context.connection.command_encoding() else {
            return self.answer_not_placed(context, sequence, position, refusal);
        };
        let Some(refusal) = refusal else {
            let reply = Reply::Duplicate(position);
            return self.reply(encoding, Some(sequence), &reply, context.out);
        };
        self.metrics.command_errors.add(1);
        let mut error = CommandError::of_refusal(Some(sequence), refusal);
        if outcome == Outcome::FateUnknown {
            error.code = ErrorCode::FateUnknown;
        }
        let reply = Reply::Refused(&error);
        self.reply(encoding, Some(sequence), &reply, context.out);
    }

    /// Answers a request, or one of its lines.
    fn answer_not_placed(
        &mut self,
        context: &mut ConnectionContext<'_>,
        sequence: u32,
        position: Position,
        refusal: Option<Refusal>,
    ) {
        let (settings, now_ms) = (Arc::clone(&self.shared.settings), context.now_ms);
        let mut text = Vec::with_capacity(64);
        let status = match refusal {
            None => {
                json::encode_duplicate(&mut text, position);
                200
            }
            Some(refusal) => {
                let mut current = CommandContext {
                    id: context.id,
                    peer_address: &|| Ok(None),
                    identity: context.identity,
                    listener: context.listener,
                    subscribed: context.subscribed,
                    deflate: None,
                    may_keep_context: false,
                };
                let mut on_event = |event: Event<'_>, out: &mut Vec<u8>| {
                    self.handle_event(&mut current, event, out)
                };
                let (connection, out) = (&mut *context.connection, &mut *context.out);
                let refused =
                    connection.refuse_publish(&settings, now_ms, refusal, out, &mut on_event);
                let Err(refusal) = refused else { return };
                json::encode_refusal(&mut text, &refusal);
                refusal.status
            }
        };
        let answer = PublishAnswer {
            text,
            status,
            is_replay: status == 200,
        };
        let (connection, out) = (&mut *context.connection, &mut *context.out);
        connection.handle_line(&settings, now_ms, sequence, answer, out);
    }
}

/// Whoever has a subject is that, whoever shows a static token is the token; everybody else is the address. A peer that was cut off has none any more, though what
/// it sent before is still there to read: as somebody else's, its publish would be carried out again when it is repeated.
fn publisher(caller: &Caller<'_>, peer_address: PeerAddress<'_>) -> Result<Publisher, Refusal> {
    if let Some(identity) = caller.identity() {
        if let Some(subject) = identity.subject() {
            return Ok(Publisher::of_subject(subject));
        }
        if let Some(digest) = identity.credential() {
            return Ok(Publisher::of_credential(digest.as_bytes()));
        }
    }
    let address = peer_address()
        .map_err(|_| Refusal::unavailable("the connection broke before its publish was read"))?;
    Ok(Publisher::of_address(address.map(|address| address.ip())))
}

/// What a publisher is told of a publication that is not carried out. None: it was carried out.
fn refusal_of(outcome: Outcome) -> Option<Refusal> {
    Some(match outcome {
        Outcome::Placed | Outcome::Duplicate => return None,
        Outcome::KeyReused => {
            Refusal::unprocessable("the idempotency key was used for another publication")
        }
        Outcome::KeysFull => Refusal::unavailable(
            "as many idempotency keys as idempotency_bytes_max or idempotency_bytes_total_max allows are remembered; \
             try again",
        ),
        Outcome::FateUnknown => Refusal::unavailable(
            "it was sent before, and whether it was published then is not known any more; it was not published now",
        ),
    })
}
