//! Bounds on callers: wrong credentials of an address, connections of a subject.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use super::{Application, PeerAddress};
use crate::auth::access::{Denied, TokenFault};
use crate::auth::caller::Caller;
use crate::auth::counts::AuthResult;
use crate::auth::deny::DeniedBy;
use crate::auth::identity::Identity;
use crate::auth::shares::Shares;
use crate::auth::waiting::network_of;
use crate::handler::ConnectionId;
use crate::http::refusal::Refusal;

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
            return Refusal::too_many_requests(TOO_MANY_FAILURES);
        }
        failures.note(network, now_ms, per_minute);
        let has_failures = &self.shared.callers.has_failures;
        has_failures.store(true, Ordering::Relaxed);
        denied.into()
    }

    /// Refusal of an unverified token from an address that guesses. To verify costs more than to show. A token that was verified
    /// before, or is static, is judged.
    /// Nobody looks for it where no address has shown a wrong one.
    pub fn refuse_unverified<T: AsRef<str>>(
        &self,
        peer_address: PeerAddress<'_>,
        token: impl FnOnce() -> Option<T>,
    ) -> Option<Refusal> {
        let callers = &self.shared.callers;
        if !callers.has_failures.load(Ordering::Relaxed) {
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
        wait_ms.map(|_| Refusal::too_many_requests(TOO_MANY_FAILURES))
    }

    /// Counts a connection towards those that its subject may have.
    ///
    /// # Errors
    /// It has as many already.
    pub fn enter_share(&mut self, id: ConnectionId, caller: &Caller<'_>) -> Result<(), Refusal> {
        let connections_max = self.shared.settings.limits.connections_per_identity_max;
        let (Some(subject), 1..) = (caller.subject(), connections_max) else {
            return Ok(());
        };
        if self.terms.share(id.index) == Some(subject) {
            return Ok(());
        }
        self.leave_share(id);
        if !self.shares().enter(subject, connections_max) {
            let reason = "as many connections of this subject as connections_per_identity_max allows are open";
            return Err(Refusal::too_many_requests(reason));
        }
        self.terms.set_share(id.index, subject);
        Ok(())
    }

    /// A connection is gone, or somebody else's.
    pub(super) fn leave_share(&mut self, id: ConnectionId) {
        if let Some(subject) = self.terms.take_share(id.index) {
            self.shares().leave(&subject);
        }
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        let shares = self.shared.callers.shares.lock();
        shares.unwrap_or_else(PoisonError::into_inner)
    }
}
