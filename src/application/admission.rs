//! Bounds on callers: wrong credentials of an address, connections of a subject.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use super::commands::{CommandTurn, HUB_IS_FULL};
use super::once::publisher;
use super::{Application, CommandContext, PeerAddress};
use crate::auth::access::{Denied, TokenFault};
use crate::auth::caller::Caller;
use crate::auth::counts::AuthResult;
use crate::auth::deny::DeniedBy;
use crate::auth::identity::Identity;
use crate::auth::shares::{Share, Shares};
use crate::auth::waiting::{Waiter, network_of};
use crate::connection::{Answer, Hold};
use crate::dialect::{CommandError, ErrorCode};
use crate::fanout::topics::SubscribeError;
use crate::handler::ConnectionId;
use crate::http::refusal::Refusal;
use crate::protocol::CloseCode;
use crate::rate::Limit;
use crate::rate::bucket::{Bucket, Rate};
use crate::shared::brought::BroughtCommand;

/// Words for one subscription too many of a connection.
pub(super) const TOO_MANY_SUBSCRIPTIONS: &str =
    "this connection has as many subscriptions as subscriptions_max allows";

/// Code of a Close for whoever goes for a newer connection of the same subject.
const REPLACED: CloseCode = CloseCode::new(4409);

/// Time after which one of too many connections of a subject may come again, in seconds.
const IDENTITY_RETRY_SECONDS: u32 = 5;

/// Answer to a token of an address that has shown too many wrong ones.
const TOO_MANY_FAILURES: &str = "too many wrong tokens came from this address; try again later";

impl Application {
    /// Whether somebody is let in: neither its credential nor its address is on the deny list.
    ///
    /// # Errors
    /// 401 for a credential, 403 for an address.
    pub fn check_denied(
        &self,
        identity: Option<&Identity>,
        peer_address: PeerAddress<'_>,
    ) -> Result<(), Denied> {
        let peer = || {
            let address = peer_address().ok().flatten();
            address.map(|address| address.ip().to_canonical())
        };
        let (deny, now_ms) = (&self.shared.control.deny, self.wall_ms());
        deny.check(identity, peer, now_ms).map_err(|by| match by {
            DeniedBy::Peer => Denied::Forbidden("this address is denied".into()),
            DeniedBy::Identity => {
                if let Some(identity) = identity {
                    let counts = self.shared.authority.counts();
                    let counts = counts.of_source(identity.source().label());
                    counts.add(AuthResult::Revoked);
                }
                Denied::Invalid(TokenFault::Revoked)
            }
        })
    }

    /// Refusal of a caller that was denied for its credential: 429 where its address has shown too many wrong ones.
    pub fn refuse_credential(&self, peer_address: PeerAddress<'_>, denied: Denied) -> Refusal {
        let per_minute = self
            .shared
            .settings
            .limits
            .auth_failures_per_address_per_minute;
        let is_counted = match &denied {
            // Clients whose clock is wrong are no attack.
            Denied::Invalid(fault) => *fault != TokenFault::Expired,
            _ => false,
        };
        let network = network_of(peer_address().ok().flatten());
        if !is_counted || network.is_none() || per_minute == 0 {
            return denied.into();
        }
        let now_ms = self.now_us / 1000;
        let failures = self.shared.callers.failures.lock();
        let mut failures = failures.unwrap_or_else(PoisonError::into_inner);
        if failures.wait_ms(network, now_ms, per_minute).is_some() {
            return match self
                .shared
                .refuses(Limit::AuthFailures, network, self.now_us)
            {
                true => Refusal::too_many_requests(TOO_MANY_FAILURES),
                false => denied.into(),
            };
        }
        failures.note(network, now_ms, per_minute);
        let has_failures = &self.shared.callers.has_failures;
        has_failures.store(true, Ordering::Relaxed);
        denied.into()
    }

    /// Refusal of an unverified token from an address that guesses. To verify costs more than to show. A token that was verified
    /// before, or is static, is judged; in a dry run each is, and counts where it is wrong.
    /// Nobody looks for it where no address has shown a wrong one.
    pub fn refuse_unverified<T: AsRef<str>>(
        &self,
        peer_address: PeerAddress<'_>,
        token: impl FnOnce() -> Option<T>,
    ) -> Option<Refusal> {
        let callers = &self.shared.callers;
        let is_dry_run = self.shared.settings.addresses.is_dry_run;
        if is_dry_run || !callers.has_failures.load(Ordering::Relaxed) {
            return None;
        }
        let token = token()?;
        let authority = &self.shared.authority;
        if authority.is_known_token(token.as_ref(), self.wall_ms()) {
            return None;
        }
        let network = network_of(peer_address().ok().flatten());
        network?;
        let limits = &self.shared.settings.limits;
        let per_minute = limits.auth_failures_per_address_per_minute;
        let failures = callers.failures.lock();
        let failures = failures.unwrap_or_else(PoisonError::into_inner);
        let wait_ms = failures.wait_ms(network, self.now_us / 1000, per_minute);
        wait_ms?;
        self.shared
            .note_refused(Limit::AuthFailures, network, self.now_us);
        Some(Refusal::too_many_requests(TOO_MANY_FAILURES))
    }

    /// Counts a connection towards those that its subject may have.
    ///
    /// # Errors
    /// It has as many already.
    pub fn enter_share(
        &mut self,
        id: ConnectionId,
        caller: &Caller<'_>,
        peer_address: PeerAddress<'_>,
    ) -> Result<(), Refusal> {
        let connections_max = self.shared.settings.limits.connections_per_identity_max;
        let (Some(subject), 1..) = (caller.subject(), connections_max) else {
            return Ok(());
        };
        if self.terms.share(id.index) == Some(subject) {
            return Ok(());
        }
        self.leave_share(id);
        let (over, waiter) = (
            self.shared.settings.identity_over,
            (self.reactor, id.to_bits()),
        );
        let mut share = self.shares().enter(subject, waiter, connections_max, over);
        if share != Share::Taken {
            let address = peer_address()
                .ok()
                .flatten()
                .map(|it| it.ip().to_canonical());
            let limit = Limit::IdentityConnections;
            let is_exempt = address.is_some_and(|it| self.shared.settings.addresses.exempts(it));
            let is_refused = !is_exempt && self.shared.refuses(limit, address, self.now_us);
            match share {
                Share::Full if is_refused => {
                    let reason = "as many connections of this subject as connections_per_identity_max allows are open";
                    return Err(
                        Refusal::too_many_requests(reason).retry_after(IDENTITY_RETRY_SECONDS)
                    );
                }
                Share::Full => share = self.shares().enter(subject, waiter, 0, over),
                Share::TakenFrom(oldest) if is_refused => self.replace(oldest),
                Share::TakenFrom(_) | Share::Taken => {}
            }
        }
        debug_assert!(share != Share::Full);
        self.terms.set_share(id.index, subject);
        Ok(())
    }

    /// Closes the oldest connection of a subject, of whatever reactor.
    fn replace(&self, (reactor, connection): Waiter) {
        let id = ConnectionId::from_bits(reactor.0, connection);
        let words = "replaced: a newer connection of this subject has come";
        let command = BroughtCommand::disconnect(id, REPLACED, words.into());
        if self.shared.bring(command).is_err() {
            log::debug!(connection:% = id; "a connection that was replaced stays, for its reactor is busy");
        }
    }

    /// A connection is gone, or somebody else's.
    pub(super) fn leave_share(&mut self, id: ConnectionId) {
        if let Some(subject) = self.terms.take_share(id.index) {
            self.shares().leave(&subject, (self.reactor, id.to_bits()));
        }
    }

    /// Takes a publish off the rate of whoever publishes.
    ///
    /// # Errors
    /// The milliseconds until there is one more. It is refused.
    pub fn take_publish(
        &self,
        listener: u8,
        caller: &Caller<'_>,
        peer_address: PeerAddress<'_>,
    ) -> Result<(), u64> {
        let Some(rate) = self.shared.settings.publishes else {
            return Ok(());
        };
        let take = |bucket: &Bucket| bucket.take(rate, self.now_us).err().unwrap_or(0);
        match self.with_publisher(listener, caller, peer_address, take) {
            0 => Ok(()),
            wait_us => Err(wait_us.div_ceil(1000)),
        }
    }

    /// Takes a publish that is not refused off the rate of whoever publishes. Its connection is read from no more until
    /// that is paid for.
    pub(super) fn charge_publish(&mut self, current: &CommandContext<'_>) -> Answer {
        let Some(rate) = self.shared.settings.publishes else {
            return Answer::Proceed;
        };
        let caller = self.identities.get(*current.identity);
        let charge = |bucket: &Bucket| bucket.charge(rate, self.now_us);
        match self.with_publisher(current.listener, caller, current.peer_address, charge) {
            0 => Answer::Proceed,
            wait_us => {
                let until_ms = (self.now_us + wait_us).div_ceil(1000);
                self.slowed.push((current.id.index, until_ms));
                Answer::Hold(Hold::Rate)
            }
        }
    }

    /// Holds a connection to the rate of messages of its identity.
    pub fn note_rate(&mut self, id: ConnectionId, caller: &Caller<'_>) {
        let identity = caller.identity();
        let per_second = identity.and_then(|it| it.limits().messages_per_second);
        if per_second.is_some() || self.has_own_rates {
            self.has_own_rates = true;
            let own = per_second.and_then(|count| Rate::new(count.into(), 0));
            self.own_rates.push((id, own));
        }
    }

    /// Counts a command that a limit on subscriptions refused.
    pub(super) fn note_limit(&self, turn: &CommandTurn<'_>, error: &CommandError) {
        let limit = match error.code {
            ErrorCode::TooManySubscriptions if error.reason == TOO_MANY_SUBSCRIPTIONS => {
                Limit::Subscriptions
            }
            ErrorCode::TooManyTopics => Limit::Topics,
            _ => return,
        };
        let address = (turn.peer_address)().ok().flatten();
        let address = address.map(|address| address.ip().to_canonical());
        self.shared.note_refused(limit, address, self.now_us);
    }

    /// Takes from the bucket of a publisher. Gives the microseconds that it has to wait.
    fn with_publisher(
        &self,
        listener: u8,
        caller: &Caller<'_>,
        peer_address: PeerAddress<'_>,
        take: impl FnOnce(&Bucket) -> u64,
    ) -> u64 {
        let address = peer_address()
            .ok()
            .flatten()
            .map(|it| it.ip().to_canonical());
        // Whose address is gone is refused elsewhere, if it matters.
        let Ok(publisher) = publisher(caller, peer_address) else {
            return 0;
        };
        if self.shared.is_exempt(listener, address) {
            return 0;
        }
        let publishes = &self.shared.callers.gate.publishes;
        let wait_us = publishes.enter(&publisher, |bucket, _| (false, take(bucket)));
        if wait_us == 0 || self.shared.refuses(Limit::Publishes, address, self.now_us) {
            return wait_us;
        }
        0
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        let shares = self.shared.callers.shares.lock();
        shares.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to a subscription that was not begun.
pub(super) fn not_begun(id: Option<u32>, error: SubscribeError) -> CommandError {
    match error {
        SubscribeError::TooManyTopics => {
            let reason = "the server has as many topics, or patterns, as it may";
            CommandError::new(id, ErrorCode::TooManyTopics, reason)
        }
        SubscribeError::HubFull => CommandError::new(id, ErrorCode::Unavailable, HUB_IS_FULL),
    }
}
