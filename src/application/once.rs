//! Publishes with an idempotency key: who publishes, and what is answered when the hub does not carry one out.

use std::sync::Arc;

use super::commands::CommandTurn;
use super::{Application, CommandContext, PeerAddress};
use crate::auth::caller::Caller;
use crate::dialect::Once;
use crate::handler::ConnectionId;
use crate::http::refusal::Refusal;
use crate::hub::{Command, IdempotencyKey, Outcome, Publication, PublishOnce, Publisher};
use crate::topic::Topic;

impl Application {
    /// The sender of the request.
    pub fn publisher(&self, current: &CommandContext<'_>) -> Result<Publisher, Refusal> {
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
    pub fn publish_once(
        &self,
        connection: ConnectionId,
        sequence: u32,
        (topic, publication): (Topic, Publication),
        key: IdempotencyKey,
    ) -> Command {
        Command::PublishOnce(Box::new(PublishOnce {
            topic,
            key,
            publication: Arc::new(publication),
            reactor: self.reactor,
            connection: connection.to_bits(),
            sequence,
        }))
    }
}

/// Whoever has a subject is that, whoever shows a static token is the token; everybody else is the address. A peer that was
/// cut off has none any more, though what it sent before is still there to read: as somebody else's, its publish would be
/// carried out again when it is repeated.
pub(super) fn publisher(
    caller: &Caller<'_>,
    peer_address: PeerAddress<'_>,
) -> Result<Publisher, Refusal> {
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

/// Refusal of a publication that is not carried out. None: it was carried out.
pub fn refusal_of(outcome: Outcome) -> Option<Refusal> {
    Some(match outcome {
        Outcome::Placed | Outcome::Duplicate => return None,
        Outcome::KeyReused => {
            Refusal::unprocessable("the idempotency key was used for another publication")
        }
        Outcome::KeysFull => Refusal::unavailable(
            "as many idempotency keys as idempotency_bytes_max or idempotency_bytes_total_max allows are remembered; \
             try again",
        ),
        Outcome::FateUnknown => Refusal::conflict(
            "it was sent before, and whether it was published then is not known any more; it was not published now",
        ),
    })
}
