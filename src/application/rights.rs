//! Rights of who asks for something.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

use super::commands::CommandTurn;
use super::{Application, CommandContext};
use crate::asking::hook;
use crate::auth::access::{Action, Denied, TokenFault};
use crate::auth::caller::Caller;
use crate::auth::embedder::Judged;
use crate::auth::hook::{Hook, Question};
use crate::auth::identity::TokenDigest;
use crate::auth::program::Identity;
use crate::auth::table::IdentityHandle;
use crate::auth::verdict::{Decision, Pending, Verdict};
use crate::config::HookEvent;
use crate::dialect::CommandError;
use crate::handler::ConnectionId;
use crate::http::refusal::Refusal;

/// Time that a token waits for the keys of its issuer, in milliseconds.
const KEYS_WAIT_MS: u64 = 2000;

/// What is said where the application decides and nobody can wait for it.
const NOBODY_ASKS: &str =
    "the application decides about this, and cannot be asked for a command that the program brings";

impl Application {
    /// Whether somebody may do something.
    pub fn authorize(&self, caller: &Caller<'_>, action: Action<'_>) -> Result<(), Refusal> {
        Ok(self.decide(caller, action)?)
    }

    /// Keeps the sender of a request, for actions that come after it.
    pub fn keep_identity(
        &mut self,
        current: &mut CommandContext<'_>,
        caller: &Caller<'_>,
    ) -> Result<(), Refusal> {
        let kept = self.shared.authority.keep(caller)?;
        self.identities.replace(current.identity, kept);
        Ok(())
    }

    /// Notes the identity that the embedding program gave meanwhile.
    pub fn note_said(&mut self, current: &mut CommandContext<'_>, caller: &Caller<'_>) {
        if let Caller::Embedder(judged) = caller
            && let Some(identity) = judged.identity()
            && *current.identity == IdentityHandle::ANONYMOUS
        {
            let known = Caller::Known(Arc::clone(identity));
            self.note_rate(current.id, &known);
            self.identities.replace(current.identity, known);
        }
    }

    /// Whether somebody may do something, as far as it is decided. If somebody else decides it is asked, and noted: the event
    /// comes again then, whatever it would be told now.
    pub fn decide(&self, caller: &Caller<'_>, action: Action<'_>) -> Result<(), Denied> {
        let authority = &self.shared.authority;
        if let Some(hook) = hook::asked(&self.shared, action) {
            let parts = (&self.shared, hook);
            return self.asking.decide_by_hook(parts, caller, action);
        }
        if !authority.may_take_time() {
            return authority.authorize(caller, action);
        }
        let decided = self.asking.decided(&action, |decision| {
            let said = match (decision, caller) {
                (Decision::Caller(Ok(Some(identity))), Caller::Embedder(judged)) => {
                    judged.settle(Identity::of(Some(identity)), action)
                }
                _ => Ok(()),
            };
            Some(decision.access()?.and(said))
        });
        if let Some(outcome) = decided {
            return outcome.and_then(|()| self.check_said(caller));
        }
        match authority.verdict(caller, action) {
            Verdict::Allow(_) => self.check_said(caller),
            Verdict::Deny(denied) => Err(denied),
            Verdict::Later(pending) => {
                self.asking.note(&action, pending)?;
                Err(Denied::unavailable("it is decided elsewhere"))
            }
        }
    }

    /// Whether whoever the embedding program takes the sender of a request for is let in.
    fn check_said(&self, caller: &Caller<'_>) -> Result<(), Denied> {
        let Caller::Embedder(Judged::Now(now)) = caller else {
            return Ok(());
        };
        let Some(identity) = now.said.get() else {
            return Ok(());
        };
        let end_ms = identity.expires_at_ms();
        if end_ms.is_some_and(|end_ms| self.wall_ms() >= end_ms) {
            return Err(Denied::Invalid(TokenFault::Expired));
        }
        self.check_denied(Some(identity), &|| Ok(None))
    }

    /// Waits for keys that a token needs, once: `wait` asks for them.
    ///
    /// # Errors
    /// They are waited for, and the event comes again; or no more may wait.
    pub fn await_keys(
        &self,
        key: &dyn Debug,
        wait: impl FnOnce() -> Option<Pending>,
    ) -> Result<(), Denied> {
        if self.asking.decided(key, |_| Some(())).is_some() {
            return Ok(());
        }
        match wait() {
            None => Ok(()),
            Some(pending) => {
                self.asking.note_within(key, pending, KEYS_WAIT_MS)?;
                Err(Denied::unavailable("the keys of the token are fetched"))
            }
        }
    }

    /// Refusal of a token that may have waited for keys. A set that was fetched meanwhile decides.
    pub fn after_keys(&self, key: &dyn Debug, denied: Denied) -> Denied {
        let is_fetched = self
            .asking
            .decided(key, |decision| Some(matches!(decision, Decision::Again)));
        match denied {
            Denied::Unavailable(_) if is_fetched == Some(true) => {
                Denied::Invalid(TokenFault::Invalid)
            }
            denied => denied,
        }
    }

    /// Caller that shows a token which is the hook's to judge.
    pub(super) fn ask_who(
        &self,
        turn: &CommandTurn<'_>,
        hook: &dyn Hook,
        token: &str,
    ) -> Result<Caller<'static>, Denied> {
        let digest = TokenDigest::of(token);
        let key = ("auth", digest.as_bytes());
        let decided = self.asking.decided(&key, |decision| match decision {
            Decision::Caller(outcome) => Some(outcome.clone()),
            Decision::Access(Err(denied)) => Some(Err(denied.clone())),
            _ => None,
        });
        if let Some(outcome) = decided {
            return outcome.map(|identity| identity.map_or(Caller::Anonymous, Caller::Known));
        }
        let mut question = Question::new(HookEvent::Connect, turn.id.to_string());
        let address = (turn.peer_address)().ok().flatten();
        question.peer = address.map(|it| it.ip().to_canonical());
        question.tls = self.shared.speaks_tls(turn.listener);
        question.dialect = turn.dialects.get(turn.encoding).label();
        question.token = Some(token.to_owned());
        self.asking
            .note(&key, hook.ask(HookEvent::Connect, question))?;
        Err(Denied::unavailable("the application is asked"))
    }

    /// Whether the application is asked about anything, or told.
    pub fn has_hook(&self) -> bool {
        self.shared.hook.is_some()
    }

    /// Tells the application of the end of a connection that was open.
    pub fn tell_ended(
        &self,
        (id, identity): (ConnectionId, IdentityHandle),
        peer: impl FnOnce() -> Option<SocketAddr>,
        end: (u16, &'static str),
    ) {
        let caller = self.identities.get(identity);
        let peer = || peer().map(|address| address.ip().to_canonical());
        hook::tell_ended(&self.shared, (id, caller), peer, end, self.wall_ms());
    }

    /// Whether a right that somebody used stands. What the hook allowed does, unless it is denied meanwhile.
    pub fn stands(&self, caller: &Caller<'_>, action: Action<'_>) -> Result<(), Denied> {
        let authority = &self.shared.authority;
        let is_hooks = hook::asked(&self.shared, action).is_some();
        if is_hooks && !authority.is_closed(caller, action) {
            return Ok(());
        }
        match authority.verdict(caller, action) {
            Verdict::Allow(_) => Ok(()),
            Verdict::Deny(denied) => Err(denied),
            // What was allowed stands until somebody says otherwise.
            Verdict::Later(_) => Ok(()),
        }
    }

    /// Whether somebody may do something, as [`decide`](Application::decide) says it. No refusal is counted.
    pub fn weigh(&self, caller: &Caller<'_>, action: Action<'_>) -> Result<(), Denied> {
        let authority = &self.shared.authority;
        if hook::asked(&self.shared, action).is_some() {
            return hook::check_closed(&self.shared, caller, action);
        }
        match authority.may_take_time() {
            true => self.decide(caller, action),
            false => authority.judge(caller, action),
        }
    }

    /// Whether somebody may do something, as far as it is decided. Nobody waits for a verdict that comes later.
    pub fn decide_now(&self, caller: &Caller<'_>, action: Action<'_>) -> Result<(), Denied> {
        if hook::asked(&self.shared, action).is_some() {
            return hook::check_closed(&self.shared, caller, action);
        }
        let decided = self.asking.decided(&action, Decision::access);
        decided.unwrap_or_else(|| self.shared.authority.authorize(caller, action))
    }

    /// Whether the connection may do what it wants.
    pub(super) fn authorize_command(
        &self,
        turn: &mut CommandTurn<'_>,
        id: Option<u32>,
        action: Action<'_>,
    ) -> Result<(), CommandError> {
        if turn.is_managed {
            return Ok(());
        }
        let caller = self.identities.get(turn.identity);
        let outcome = match turn.may_wait {
            true => self.decide(caller, action),
            false if hook::asked(&self.shared, action).is_some() => {
                hook::check_closed(&self.shared, caller, action)
                    .and(Err(Denied::unavailable(NOBODY_ASKS)))
            }
            false => self.shared.authority.authorize(caller, action),
        };
        outcome.map_err(|denied| {
            if matches!(denied, Denied::Forbidden(_)) {
                let lines = &self.shared.callers.lines;
                lines.write_denied(&turn.id, caller.subject(), &action, self.now_us);
            }
            turn.denied(id, denied)
        })
    }
}
