//! Credentials shown on open connections, and the terms of identities.

use std::sync::{Arc, PoisonError};

use super::commands::CommandTurn;
use super::joins::Question;
use super::{Application, CommandContext};
use crate::asking::hook;
use crate::auth::access::{Action, Denied};
use crate::auth::caller::Caller;
use crate::auth::identity::{Identity, TokenDigest, hashed_subject};
use crate::auth::table::IdentityHandle;
use crate::auth::verdict::Terms;
use crate::auth::waiting::{Ticket, Waiter, WaitingLimits, network_of};
use crate::config::HookEvent;
use crate::connection::{Answer, CloseReason, Settings};
use crate::dialect::{Command, CommandError, ErrorCode, Push, Reply, Target, Welcome};
use crate::handler::ConnectionId;
use crate::http::refusal::Refusal;
use crate::hub::{MemberIdentity, Start};
use crate::protocol::CloseCode;

use crate::shared::brought::BroughtCommand;
use crate::shared::terms::{Span, TermLimits};
use crate::topic::{PresenceOf, PresenceSubject, Topic};

/// Part of all connections that may wait for a credential.
const WAITING_PART: usize = 10;

impl Application {
    /// Milliseconds since 1970 at this tick.
    pub fn wall_ms(&self) -> u64 {
        (self.now_us / 1000).saturating_add_signed(self.wall_ahead_ms)
    }

    /// Identity of a connection, as its peer is told it.
    pub fn welcome<'i>(
        &self,
        id: ConnectionId,
        identity: Option<&'i Arc<Identity>>,
    ) -> Welcome<'i> {
        let expires_at_ms = identity.and_then(|it| it.expires_at_ms());
        Welcome {
            reactor: self.reactor,
            connection: id.to_bits(),
            subject: identity.and_then(|it| it.subject()),
            expires_in_ms: expires_at_ms.map(|at_ms| at_ms.saturating_sub(self.wall_ms())),
        }
    }

    /// The caller of a connection stays that from here on. `has_warning`: it hears of the end of its identity before.
    ///
    /// # Errors
    /// Its subject has as many connections as it may.
    pub fn begin_term(
        &mut self,
        current: &mut CommandContext<'_>,
        caller: &Caller<'_>,
        has_warning: bool,
    ) -> Result<(), Refusal> {
        self.note_said(current, caller);
        self.enter_share(current.id, caller, current.peer_address)?;
        self.set_term(current.id, caller, has_warning);
        Ok(())
    }

    /// Sets the term of a connection's new identity.
    pub fn set_term(&mut self, id: ConnectionId, caller: &Caller<'_>, has_warning: bool) {
        self.note_rate(id, caller);
        let identity = caller.identity();
        let span = identity.and_then(|identity| {
            let issued_ms = identity.issued_at().map(|seconds| seconds * 1000);
            Some(Span {
                began_ms: issued_ms.unwrap_or(self.wall_ms()),
                end_ms: identity.expires_at_ms()?,
            })
        });
        if span.is_none() && self.terms.is_empty() {
            return;
        }
        let limits = &self.shared.settings.limits;
        let limits = TermLimits {
            warn_ms: limits.token_warn_ms,
            grace_ms: limits.token_grace_ms,
        };
        let has_warning = has_warning || hook::is_refreshed(&self.shared, caller);
        let bits = id.to_bits();
        let salt = (bits ^ (bits >> 32)) as u32;
        self.terms
            .begin(id.index, (salt, has_warning), span, limits);
    }

    /// A connection opens whose peer has yet to show a credential.
    pub fn begin_wait(&mut self, current: &CommandContext<'_>) {
        let limits = &self.shared.settings.limits;
        let total_max = match limits.unauthenticated_max {
            0 => self.connections_max / WAITING_PART,
            max => max,
        };
        let bounds = WaitingLimits {
            total_max: total_max.max(1),
            per_network_max: limits.unauthenticated_per_address_max,
        };
        let until_ms = self.now_us / 1000 + limits.auth_timeout_ms;
        let network = network_of((current.peer_address)().ok().flatten());
        let waiter = (self.reactor, current.id.to_bits());
        let waiting = self.shared.callers.waiting.lock();
        let (ticket, evicted) = waiting
            .unwrap_or_else(PoisonError::into_inner)
            .enter(waiter, network, bounds);
        self.terms.begin_wait(current.id.index, ticket, until_ms);
        if let Some(evicted) = evicted {
            self.evict(evicted);
        }
    }

    /// Closes a connection, of whatever reactor, in whose place others wait.
    fn evict(&self, (reactor, connection): Waiter) {
        let id = ConnectionId::from_bits(reactor.0, connection);
        let (code, words) = CloseReason::AuthTimeout.on_wire();
        let command = BroughtCommand::disconnect(id, code, words.into());
        if self.shared.bring(command).is_err() {
            // It has a deadline besides, and its reactor has more to do than it can.
            log::debug!(connection:% = id; "a connection without credential stays until its deadline");
        }
    }

    fn give_up(&self, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            let waiting = self.shared.callers.waiting.lock();
            waiting
                .unwrap_or_else(PoisonError::into_inner)
                .leave(ticket);
        }
    }

    /// A connection is gone.
    pub fn forget_term(&mut self, id: ConnectionId) {
        if !self.terms.is_empty() {
            let ticket = self.terms.forget(id.index);
            self.give_up(ticket);
            self.leave_share(id);
        }
    }

    /// Whether a connection may command this at all: not before it has shown a credential where it has to, and not when
    /// its identity has ended.
    pub(super) fn check_term<'c>(
        &self,
        turn: &CommandTurn<'_>,
        command: Command<'c>,
    ) -> Result<Command<'c>, CommandError> {
        if self.terms.is_empty() || turn.is_managed {
            return Ok(command);
        }
        let is_waiting = self.terms.is_waiting(turn.id.index);
        let (id, reason) = match &command {
            Command::Auth { .. } | Command::Ping { .. } => return Ok(command),
            Command::Subscribe { id, .. }
            | Command::Publish { id, .. }
            | Command::Presence { id, .. }
            | Command::History { id, .. }
                if self.terms.has_ended(turn.id.index) =>
            {
                (*id, "the token has expired: show another by auth")
            }
            Command::Subscribe { id, .. }
            | Command::Unsubscribe { id, .. }
            | Command::Publish { id, .. }
            | Command::Presence { id, .. }
            | Command::History { id, .. }
                if is_waiting =>
            {
                (*id, "this needs a token: show one by auth first")
            }
            _ => return Ok(command),
        };
        Err(CommandError::new(id, ErrorCode::Unauthorized, reason))
    }

    /// The peer shows a token. If it is good, the connection is that identity from here on, and what that may not do ends.
    pub(super) fn sign_in(
        &mut self,
        turn: &mut CommandTurn<'_>,
        id: Option<u32>,
        token: &str,
    ) -> Result<(), CommandError> {
        let index = turn.id.index;
        let is_waiting = self.terms.is_waiting(index);
        if let Some(refusal) = self.refuse_unverified(turn.peer_address, || Some(token)) {
            return Err(turned_away(turn, id, is_waiting, refusal));
        }
        let caller = match self.call_of(turn, token) {
            Ok(caller) => caller,
            // The command comes again.
            Err(denied) if self.asking.has_noted() => return Err(turn.denied(id, denied)),
            Err(denied) => {
                let refusal = self.refuse_credential(turn.peer_address, denied.clone());
                let error = match refusal.status {
                    429 => CommandError::of_refusal(id, refusal.clone()),
                    _ => turn.denied(id, denied),
                };
                if is_waiting && !turn.is_ending() {
                    turn.answer = refused(turn, &refusal);
                }
                return Err(error);
            }
        };
        self.check_subject(turn, id, &caller)?;
        let outcome = self.authorize(&caller, Action::Connect);
        let admitted = match (is_waiting, &outcome) {
            (true, Err(refusal)) => Err(refusal.clone()),
            _ => self.enter_share(turn.id, &caller, turn.peer_address),
        };
        if let Err(refusal) = admitted {
            return Err(turned_away(turn, id, is_waiting, refusal));
        }
        let welcome = self.welcome(turn.id, caller.identity());
        turn.reply(id, &Reply::Authenticated(welcome));
        if is_waiting {
            let ticket = self.terms.end_wait(index);
            self.give_up(ticket);
            turn.has_signed_in = true;
        }
        self.set_term(turn.id, &caller, true);
        let was_known = self.identities.get(turn.identity).identity().is_some();
        self.identities.replace(&mut turn.identity, caller);
        self.end_what_is_forbidden(turn);
        if !was_known && !is_waiting {
            self.renew_presence(turn);
        }
        self.join_topics(turn.id, turn.subscribed, turn.identity);
        if outcome.is_err() {
            let words = "forbidden: nothing is allowed with this token";
            turn.answer = Answer::Close(CloseCode::FORBIDDEN, words.into());
        }
        Ok(())
    }

    /// Caller that shows this token. Where no token is wanted, nobody looks at it.
    fn call_of(&self, turn: &CommandTurn<'_>, token: &str) -> Result<Caller<'static>, Denied> {
        let authority = &self.shared.authority;
        if let Some(hook) = &self.shared.hook
            && turn.may_wait
            && hook.has(HookEvent::Connect)
            && authority.is_for_hook(token)
        {
            let caller = self.ask_who(turn, &**hook, token)?;
            self.check_denied(caller.identity().map(|it| &**it), turn.peer_address)?;
            return Ok(caller);
        }
        if authority.takes_no_tokens() {
            return Ok(Caller::Anonymous);
        }
        let (now_ms, digest) = (self.wall_ms(), TokenDigest::of(token));
        let key = ("keys", digest.as_bytes());
        if turn.may_wait {
            self.await_keys(&key, || authority.wait_for_keys(token, now_ms))?;
        }
        let identity = authority
            .identify(token, now_ms)
            .map_err(|denied| self.after_keys(&key, denied))?;
        self.check_denied(Some(&identity), turn.peer_address)?;
        Ok(Caller::Known(identity))
    }

    /// Whether a connection may become this caller: it stays the one that it is, if it is one.
    fn check_subject(
        &mut self,
        turn: &mut CommandTurn<'_>,
        id: Option<u32>,
        caller: &Caller<'_>,
    ) -> Result<(), CommandError> {
        let former = self.identities.get(turn.identity).identity();
        let is_other = former.is_some_and(|former| {
            let same = caller.identity().map(|it| former.is_same_subject(it));
            same != Some(true)
        });
        if !is_other {
            return Ok(());
        }
        if self.terms.note_change(turn.id.index) {
            let words = "forbidden: subject_changed";
            turn.answer = Answer::Close(CloseCode::FORBIDDEN, words.into());
        }
        let reason =
            "the token is that of another subject or source: open another connection for it";
        Err(CommandError::new(id, ErrorCode::SubjectChanged, reason))
    }

    /// Ends the subscriptions to which a connection has no right any more, and says so.
    fn end_what_is_forbidden(&mut self, turn: &mut CommandTurn<'_>) {
        let Some(many) = self.multi_subscriptions.get(turn.subscribed) else {
            return;
        };
        let dialect = turn.dialects.get(turn.encoding);
        for target in many.subscriptions.targets() {
            let caller = self.identities.get(turn.identity);
            if !self.keeps(turn.id, caller, &target)
                && self.end_subscription(turn.id, turn.subscribed, &target)
            {
                dialect.encode_push(&mut turn.message, &Push::Unsubscribed(&target));
                turn.finish_message();
            }
        }
    }

    /// Identity of a member of a topic, as far as its rule shows it.
    pub(super) fn member_identity(
        &self,
        identity: IdentityHandle,
        topic: &Topic,
        terms: Option<&Terms>,
    ) -> Option<Arc<MemberIdentity>> {
        let identity = self.identities.get(identity).identity();
        let settings = &self.shared.settings;
        let rule = settings.topic_rules.rule(topic);
        if !rule.presence {
            return None;
        }
        let subject = identity.and_then(|it| it.subject());
        let own_info = terms.and_then(|terms| terms.info.clone());
        let shown = subject.and_then(|it| shown_as(rule.presence_subject, it, settings));
        let by_user = rule.presence_of == PresenceOf::Users;
        let seen = MemberIdentity {
            subject: shown,
            has_own_info: own_info.is_some(),
            info: own_info.or_else(|| identity.and_then(|it| it.shared_info())),
            user: subject.filter(|_| by_user).map(Box::from),
        };
        (seen != MemberIdentity::default()).then(|| Arc::new(seen))
    }

    /// A subject as others see it on a topic, if they do.
    pub(super) fn shown_subject(&self, topic: &Topic, subject: &str) -> Option<Arc<str>> {
        let settings = &self.shared.settings;
        let rule = settings.topic_rules.rule(topic);
        shown_as(rule.presence_subject, subject, settings).map(Arc::from)
    }

    /// Somebody who was nobody before is a member anew of all its topics.
    fn renew_presence(&mut self, turn: &mut CommandTurn<'_>) {
        let many = self.multi_subscriptions.get(turn.subscribed);
        let targets = many.map(|many| many.subscriptions.targets());
        for target in targets.unwrap_or_default() {
            let Target::Topic(topic) = target else {
                continue;
            };
            let Some(identity) = self.member_identity(turn.identity, &topic, None) else {
                continue;
            };
            let Some(many) = self.multi_subscriptions.get_mut(turn.subscribed) else {
                return;
            };
            let question = Question {
                connection: turn.id,
                request: many.next_request(),
                start: Start::Now,
                info: many.info.clone(),
                identity: Some(identity),
            };
            self.leave_presence(turn.id, &topic);
            if let Err(error) = self.ask_to_join(&topic, question, Some(&mut turn.answer)) {
                log::debug!(connection:% = turn.id; "it is present no more, for the hub is full: {error:?}");
            }
        }
    }
}

/// A subject as a rule shows it.
fn shown_as(rule: PresenceSubject, subject: &str, settings: &Settings) -> Option<Box<str>> {
    match rule {
        PresenceSubject::Shown => Some(subject.into()),
        PresenceSubject::Hashed => Some(hashed_subject(&settings.presence_key, subject)),
        _ => None,
    }
}

/// Error for a token that is not taken. A connection that waits for one is closed behind it.
fn turned_away(
    turn: &mut CommandTurn<'_>,
    id: Option<u32>,
    is_waiting: bool,
    refusal: Refusal,
) -> CommandError {
    if is_waiting {
        turn.answer = refused(turn, &refusal);
    }
    CommandError::of_refusal(id, refusal)
}

/// The Close of a connection that could not show a credential.
fn refused(turn: &CommandTurn<'_>, refusal: &Refusal) -> Answer {
    let dialect = turn.dialects.get(turn.encoding);
    match dialect.refusal_code(refusal.status) {
        Some(code) => Answer::Close(code, refusal.close_words()),
        None => Answer::Close(CloseCode::POLICY_VIOLATION, refusal.close_words()),
    }
}
