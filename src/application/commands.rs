//! Commands of connections of many topics, whatever their dialect.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::admission::{TOO_MANY_SUBSCRIPTIONS, not_begun};
use super::joins::Question;
use super::signed::Allowed;
use super::{Application, CommandContext, ConnectionContext, PeerAddress};
use crate::auth::access::{Action, Denied};
use crate::auth::table::IdentityHandle;
use crate::connection::{Answer, CloseReason, Hold, Message};
use crate::dialect::{
    self, Closing, CommandError, CommandLimits, Dialects, Encoding, ErrorCode, Form, Reply, Target,
};
use crate::endpoint::hooks;
use crate::fanout::patterns;
use crate::fanout::subscribed::Subscribed;
use crate::fanout::subscriptions::Membership;
use crate::fanout::topics::{SUBSCRIPTION_BYTES, SubscribeError};
use crate::handler::ConnectionId;
use crate::hub::{Command, Join, Start};
use crate::shared::brought::Fate;
use crate::topic::Pattern;
use crate::topic::SlowConsumer;
use crate::topic::Topic;

/// What a command is told that the hub does not take, and nobody waits for.
pub(super) const HUB_IS_FULL: &str = "more is being asked of the hub than it takes; try again";

/// One message of commands, while it is carried out.
pub(super) struct CommandTurn<'t> {
    pub(super) id: ConnectionId,
    pub subscribed: Subscribed,
    pub(super) identity: IdentityHandle,
    pub(super) peer_address: PeerAddress<'t>,
    /// The number of the listener that its connection came by.
    pub(super) listener: u8,
    pub(super) encoding: Encoding,
    pub(super) dialects: &'t Dialects,
    /// The payload of the message of replies that is being made.
    pub(super) message: Vec<u8>,
    /// A command that cannot be decided about now can be kept.
    pub(super) may_wait: bool,
    out: &'t mut Vec<u8>,
    /// It has shown a credential in this message, and had not before.
    pub(super) has_signed_in: bool,
    /// Instruction to the connection about the message.
    pub answer: Answer,
    /// Whoever manages the server brings the commands, and no right is asked for.
    pub(super) is_managed: bool,
}

impl CommandTurn<'_> {
    /// Answers a command, in a message of its own or together with the others.
    pub(super) fn reply(&mut self, id: Option<u32>, reply: &Reply<'_>) {
        let dialect = self.dialects.get(self.encoding);
        self.message.reserve(128);
        dialect.encode_reply(&mut self.message, id, reply);
        if !dialect.joins_replies() {
            self.finish_message();
        }
    }

    pub(super) fn finish_message(&mut self) {
        self.dialects
            .frame_message(self.encoding, &self.message, self.out);
        self.message.clear();
    }

    /// Tells of a subscription by a pattern, which has no position.
    fn reply_subscribed(&mut self, id: Option<u32>, target: &Target, echo: bool) {
        let subscribed = dialect::Subscribed {
            target,
            position: None,
            recovered: None,
            snapshot: None,
            slow_consumer: SlowConsumer::Close,
            echo,
            is_unasked: false,
            replay: &[],
        };
        self.reply(id, &Reply::Subscribed(subscribed));
    }

    /// Error of a command that was denied. If nobody could decide, the connection ends.
    pub fn denied(&mut self, id: Option<u32>, denied: Denied) -> CommandError {
        if denied == Denied::Failed {
            self.answer = Answer::End(CloseReason::EmbedderPanic);
        }
        CommandError::of_refusal(id, denied.into())
    }

    /// Whether the connection has been told to end.
    pub fn is_ending(&self) -> bool {
        matches!(self.answer, Answer::End(_) | Answer::Close(..))
    }
}

impl Application {
    /// Carries out a message's commands from a place on, in order. All, or as many as may be now.
    pub fn handle_commands(
        &mut self,
        current: &mut CommandContext<'_>,
        encoding: Encoding,
        (message, place): (Message<'_>, usize),
        out: &mut Vec<u8>,
    ) -> Answer {
        if self.multi_subscriptions.get(*current.subscribed).is_none() {
            return Answer::End(CloseReason::Forbidden);
        }
        let dialects = self.dialects.clone();
        let mut turn = CommandTurn {
            id: current.id,
            subscribed: *current.subscribed,
            identity: *current.identity,
            peer_address: current.peer_address,
            listener: current.listener,
            encoding,
            dialects: &dialects,
            message: Vec::new(),
            may_wait: true,
            out,
            answer: Answer::Proceed,
            is_managed: false,
            has_signed_in: false,
        };
        let limits = CommandLimits::of(&self.shared.settings.limits);
        let dialect = dialects.get(encoding);
        let mut waits = None;
        let outcome = dialect.parse(message, place, &limits, &mut |command| {
            waits = self.wait_for(&turn, &command);
            if waits.is_some() {
                return ControlFlow::Break(());
            }
            self.handle_command(&mut turn, command);
            if self.asking.has_noted() {
                waits = Some(Hold::Ask);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        turn.finish_message();
        *current.identity = turn.identity;
        let answer = match (outcome, turn.answer) {
            (_, answer @ (Answer::End(_) | Answer::Close(..))) => answer,
            (Err(Closing { code, words }), _) => Answer::Close(code, words),
            (Ok(left), answer) => match left.zip(waits) {
                Some((place, hold)) => Answer::Keep(place, hold),
                None => answer,
            },
        };
        match turn.has_signed_in {
            true => Answer::SignedIn(Box::new(answer)),
            false => answer,
        }
    }

    /// Carries out a command that others bring for a connection. Its peer gets the reply. `is_managed`: it needs no right.
    pub fn carry_out(
        &mut self,
        context: &mut ConnectionContext<'_>,
        command: dialect::Command<'_>,
        is_managed: bool,
    ) -> Fate {
        let Some(encoding) = context.connection.command_encoding() else {
            return Fate::Gone;
        };
        if self.multi_subscriptions.get(*context.subscribed).is_none() {
            return Fate::Gone;
        }
        let dialects = self.dialects.clone();
        // Behind what the hub has yet to take from this connection.
        let waits = self.deferred.iter().any(|(owner, _)| *owner == context.id);
        let mut turn = CommandTurn {
            id: context.id,
            subscribed: *context.subscribed,
            identity: *context.identity,
            peer_address: &|| Ok(None),
            listener: context.listener,
            encoding,
            dialects: &dialects,
            message: Vec::new(),
            may_wait: false,
            out: &mut *context.out,
            answer: if waits {
                Answer::Hold(Hold::Hub)
            } else {
                Answer::Proceed
            },
            is_managed,
            has_signed_in: false,
        };
        self.handle_command(&mut turn, Ok(command));
        turn.finish_message();
        *context.identity = turn.identity;
        let (answer, settings) = (turn.answer, &self.shared.settings);
        context
            .connection
            .handle_answer(settings, context.now_ms, answer, context.out);
        Fate::CarriedOut
    }

    fn handle_command(
        &mut self,
        turn: &mut CommandTurn<'_>,
        command: Result<dialect::Command<'_>, CommandError>,
    ) {
        if turn.is_ending() {
            return;
        }
        let outcome = command.and_then(|command| self.check_term(turn, command));
        let outcome = outcome.and_then(|command| match command {
            dialect::Command::Auth { id, token } => self.sign_in(turn, id, &token.0),
            dialect::Command::Subscribe {
                id,
                target,
                start,
                echo,
                signature,
            } => self.subscribe_by_command(turn, id, target, (start, echo, signature)),
            dialect::Command::Unsubscribe { id, target } => {
                self.unsubscribe_by_command(turn, id, &target)
            }
            dialect::Command::Publish { .. } => self.publish_by_command(turn, command),
            dialect::Command::Presence { id, topic } => self.ask_presence(turn, id, topic),
            dialect::Command::History {
                id,
                topic,
                start,
                limit,
            } => self.ask_history(turn, id, topic, (start, limit)),
            dialect::Command::Ping { id } => {
                turn.reply(id, &Reply::Pong);
                Ok(())
            }
        });
        // One that somebody else decides about comes again, unless nobody can wait for it.
        let waits = turn.may_wait && self.asking.has_noted();
        if let Err(error) = outcome
            && !waits
        {
            self.metrics.command_errors.add(1);
            self.note_limit(turn, &error);
            turn.reply(error.id, &Reply::Refused(&error));
        }
    }

    fn subscribe_by_command(
        &mut self,
        turn: &mut CommandTurn<'_>,
        id: Option<u32>,
        target: Target,
        (start, echo, signature): (Start, bool, Option<Box<dialect::TopicSignature>>),
    ) -> Result<(), CommandError> {
        let error = |code, reason: &'static str| CommandError::new(id, code, reason);
        if !self.shared.lifecycle.get().takes_subscribers() {
            return Err(error(ErrorCode::Unavailable, "the server is shutting down"));
        }
        let signature = signature.as_deref();
        let allowed = self.authorize_subscription(turn, id, (&target, start), signature)?;
        self.check_room((turn.subscribed, turn.identity), &target)
            .map_err(|(code, reason)| error(code, reason))?;
        self.multi_subscriptions
            .set_echo(turn.subscribed, &target, echo);
        let topic = match target {
            Target::Topic(topic) => topic,
            Target::Pattern(pattern) => {
                return self.subscribe_pattern(turn, id, &pattern, &allowed);
            }
        };
        let identity = self.member_identity(turn.identity, &topic, Some(&allowed.terms));
        let Some(many) = self.multi_subscriptions.get_mut(turn.subscribed) else {
            return Ok(());
        };
        let request = many.next_request();
        let asked = Application::replay_work(&self.shared.settings, &topic, start);
        let question = Question {
            connection: turn.id,
            request,
            start,
            info: many.info.clone(),
            identity,
        };
        let place = self
            .ask_to_join(&topic, question, Some(&mut turn.answer))
            .map_err(|begun| not_begun(id, begun))?;
        if matches!(turn.answer, Answer::End(_)) {
            // The hub was not asked, so nobody will end what is noted here.
            return Ok(());
        }
        // In memory that the topic's subscribers share.
        let topic = self.topics.topic_at(place).cloned().unwrap_or(topic);
        if let Some(many) = self.multi_subscriptions.get_mut(turn.subscribed) {
            let membership = Membership::Joining { request, id };
            let target = Target::Topic(topic);
            many.subscriptions.insert(target.clone(), membership);
            many.begin_question(request, asked);
            self.multi_subscriptions.topics += 1;
            self.begin_lease(turn.id, &target, &allowed);
        }
        if turn.is_managed {
            self.terms.note_unasked(turn.id.index, request);
        }
        Ok(())
    }

    /// Whether a connection may have one more subscription.
    pub(super) fn check_room(
        &self,
        (subscribed, identity): (Subscribed, IdentityHandle),
        target: &Target,
    ) -> Result<(), (ErrorCode, &'static str)> {
        let Some(many) = self.multi_subscriptions.get(subscribed) else {
            return Ok(());
        };
        if many.subscriptions.get(target).is_some() {
            let reason = "this connection has this subscription already";
            return Err((ErrorCode::AlreadySubscribed, reason));
        }
        let limits = &self.shared.settings.limits;
        let is_full = self.subscription_bytes() >= self.subscription_bytes_max();
        let identity = self.identities.get(identity).identity();
        let own_max = identity.and_then(|it| it.limits().subscriptions);
        let reason = if many.subscriptions.len() >= limits.subscriptions_max {
            TOO_MANY_SUBSCRIPTIONS
        } else if own_max.is_some_and(|max| many.subscriptions.len() >= max as usize) {
            "this connection has as many subscriptions as its token's limits allow"
        } else if is_full && matches!(target, Target::Topic(_)) {
            "the server has as many bytes of subscriptions as subscription_bytes_total_max allows"
        } else {
            return Ok(());
        };
        Err((ErrorCode::TooManySubscriptions, reason))
    }

    /// Bytes that the subscriptions to topics here count as.
    pub fn subscription_bytes(&self) -> usize {
        let subscriptions = self.multi_subscriptions.topics * SUBSCRIPTION_BYTES;
        self.topics.bytes() + subscriptions + self.terms.leases.bytes()
    }

    /// This reactor's part of what they may, beside what the hub keeps of members.
    fn subscription_bytes_max(&self) -> usize {
        let bytes_max = self.shared.settings.limits.subscription_bytes_total_max;
        let bytes_max = bytes_max.saturating_sub(self.shared.shards.presence_bytes());
        bytes_max / self.shared.metrics.reactor_count()
    }

    /// Subscribes a connection by a pattern that it has not got.
    fn subscribe_pattern(
        &mut self,
        turn: &mut CommandTurn<'_>,
        id: Option<u32>,
        pattern: &Pattern,
        allowed: &Allowed,
    ) -> Result<(), CommandError> {
        self.count_pattern(turn.subscribed, pattern)
            .map_err(|reason| CommandError::new(id, ErrorCode::TooManySubscriptions, reason))?;
        let joined = self.join_pattern(pattern, turn.id);
        let joined = joined.map_err(|begun| {
            self.discount_pattern(turn.subscribed, pattern);
            not_begun(id, begun)
        })?;
        let (place, member) = (joined.place, joined.member);
        let target = Target::Pattern(joined.pattern);
        let echo = self.multi_subscriptions.has_echo(turn.subscribed, &target);
        turn.reply_subscribed(id, &target, echo);
        self.begin_lease(turn.id, &target, allowed);
        if let Some(many) = self.multi_subscriptions.get_mut(turn.subscribed) {
            hooks::tell_began(&self.shared, turn.id, &target);
            let membership = Membership::Live { place, member };
            many.subscriptions.insert(target, membership);
        }
        Ok(())
    }

    /// Asks the hub about a topic. The table notes that somebody does; gives its place there. `answer`: the connection can be held until
    /// the hub takes the question, and is if it does not; or has been held already.
    ///
    /// # Errors
    /// The question is not asked then.
    pub fn ask_to_join(
        &mut self,
        topic: &Topic,
        question: Question,
        answer: Option<&mut Answer>,
    ) -> Result<u32, SubscribeError> {
        let (shards, reactor) = (Arc::clone(&self.shared.shards), self.reactor);
        let (id, mut deferred) = (question.connection, None);
        // Behind what the hub has yet to take from this connection, as that it is no longer present here.
        let waits = matches!(answer, Some(Answer::Hold(_)))
            || self.deferred.iter().any(|(owner, _)| *owner == id);
        let place = self.topics.begin_join(topic, |local| {
            let command = Command::Join(Box::new(Join {
                topic: topic.clone(),
                reactor,
                local,
                connection: id.to_bits(),
                request: question.request,
                start: question.start,
                info: question.info,
                identity: question.identity,
            }));
            let outcome = match waits {
                true => Err(command),
                false => shards.submit(command, Some(reactor)),
            };
            match outcome {
                Ok(()) => return Ok(true),
                Err(command) if answer.is_some() => deferred = Some(command),
                Err(_) => return Err(SubscribeError::HubFull),
            }
            Ok(false)
        })?;
        if let (Some(command), Some(answer)) = (deferred, answer) {
            *answer = self.hold_back(id, command);
            if matches!(answer, Answer::End(_)) {
                self.topics.end_join(place);
            }
        }
        Ok(place)
    }

    /// Subscribes a connection by a pattern. Every publication that is placed from here on is matched.
    fn join_pattern(
        &mut self,
        pattern: &Pattern,
        connection: ConnectionId,
    ) -> Result<patterns::Joined, SubscribeError> {
        let (hub, reactor) = (&self.shared.shards.patterns, self.reactor);
        self.patterns
            .join(pattern, connection.index, |pattern, local| {
                hub.subscribe(pattern, reactor, local);
            })
    }

    /// Counts a pattern of a connection towards its limits.
    ///
    /// # Errors
    /// When it would exceed one. Nothing is changed then.
    fn count_pattern(
        &mut self,
        subscribed: Subscribed,
        pattern: &Pattern,
    ) -> Result<(), &'static str> {
        let (bytes, limits) = (patterns::bytes_of(pattern), &self.shared.settings.limits);
        let Some(many) = self.multi_subscriptions.get_mut(subscribed) else {
            return Ok(());
        };
        let sum = many.pattern_bytes as usize + bytes;
        if sum > limits.pattern_bytes_max {
            return Err(
                "this connection has as many bytes of patterns as pattern_bytes_max allows",
            );
        }
        if !self
            .shared
            .shards
            .patterns
            .add_bytes(bytes, limits.pattern_bytes_total_max)
        {
            return Err(
                "the server has as many bytes of patterns as pattern_bytes_total_max allows",
            );
        }
        many.pattern_bytes = u32::try_from(sum).unwrap_or(u32::MAX);
        Ok(())
    }

    /// Undoes what [`count_pattern`](Application::count_pattern) did.
    fn discount_pattern(&mut self, subscribed: Subscribed, pattern: &Pattern) {
        let bytes = patterns::bytes_of(pattern);
        if let Some(many) = self.multi_subscriptions.get_mut(subscribed) {
            many.pattern_bytes = many.pattern_bytes.saturating_sub(bytes as u32);
        }
        self.discount_patterns(bytes);
    }

    /// Counts fewer bytes of patterns of all connections.
    pub fn discount_patterns(&self, bytes: usize) {
        self.shared.shards.patterns.sub_bytes(bytes);
    }

    fn unsubscribe_by_command(
        &mut self,
        turn: &mut CommandTurn<'_>,
        id: Option<u32>,
        target: &Target,
    ) -> Result<(), CommandError> {
        if !self.end_subscription(turn.id, turn.subscribed, target) {
            let reason = "this connection has no such subscription";
            return Err(CommandError::new(id, ErrorCode::NotSubscribed, reason));
        }
        turn.reply(id, &Reply::Unsubscribed(target));
        Ok(())
    }

    /// Ends one of the subscriptions of a connection that has many. False: it has no such subscription.
    pub fn end_subscription(
        &mut self,
        connection: ConnectionId,
        subscribed: Subscribed,
        target: &Target,
    ) -> bool {
        let many = self.multi_subscriptions.get_mut(subscribed);
        let removed = many.and_then(|many| {
            let membership = many.subscriptions.remove(target)?;
            Some((membership, many.best_form))
        });
        let Some((membership, form)) = removed else {
            return false;
        };
        self.multi_subscriptions.set_echo(subscribed, target, true);
        if let Target::Pattern(pattern) = target {
            self.discount_pattern(subscribed, pattern);
        }
        self.leave(connection, target, membership, form);
        true
    }

    /// Ends a subscription that a connection had. One to a topic that the hub has yet to answer ends when it does.
    pub fn leave(&mut self, id: ConnectionId, target: &Target, membership: Membership, form: Form) {
        self.multi_subscriptions.topics -= usize::from(matches!(target, Target::Topic(_)));
        self.terms.leases.end(id.index, target);
        if let Membership::Live { .. } = membership {
            hooks::tell_ended(&self.shared, id, target);
        }
        match (target, membership) {
            (Target::Topic(topic), Membership::Live { place, member }) => {
                self.topics.remove_member(place, member, form);
                self.leave_presence(id, topic);
            }
            (Target::Pattern(_), Membership::Live { place, member }) => {
                let (hub, reactor) = (&self.shared.shards.patterns, self.reactor);
                self.patterns
                    .remove_member(place, member, |pattern, local| {
                        hub.unsubscribe(pattern, reactor, local);
                    });
            }
            (_, Membership::Joining { .. }) => {}
        }
    }

    /// Tells the hub that a connection is no longer a member.
    pub fn leave_presence(&mut self, id: ConnectionId, topic: &Topic) {
        if !self.shared.settings.topic_rules.rule(topic).presence {
            return;
        }
        let command = Command::Leave {
            topic: topic.clone(),
            reactor: self.reactor,
            connection: id.to_bits(),
        };
        if let Err(command) = self.submit(command) {
            self.defer(id, command);
        }
    }

    fn ask_presence(
        &mut self,
        turn: &mut CommandTurn<'_>,
        id: Option<u32>,
        topic: Topic,
    ) -> Result<(), CommandError> {
        self.authorize_command(turn, id, Action::Presence(topic.as_str()))?;
        if !self.shared.settings.topic_rules.rule(&topic).presence {
            let reason = "the rule of this topic has no presence";
            return Err(CommandError::new(id, ErrorCode::Unsupported, reason));
        }
        let questions_max = self.shared.settings.limits.commands_per_message_max;
        let (subscribed, asked) = (turn.subscribed, self.presence_work());
        let many = self.multi_subscriptions.get_mut(subscribed);
        let request = many.and_then(|many| {
            let request = many.ask_question(topic.clone(), id, questions_max)?;
            many.begin_question(request, asked);
            Some(request)
        });
        let unavailable = || CommandError::new(id, ErrorCode::Unavailable, HUB_IS_FULL);
        let request = request.ok_or_else(unavailable)?;
        let command = Command::Present {
            topic,
            reactor: self.reactor,
            connection: turn.id.to_bits(),
            request,
        };
        self.submit(command).map_err(|_| {
            // Nobody will answer it.
            if let Some(many) = self.multi_subscriptions.get_mut(subscribed) {
                many.take_question(request);
                many.end_question(request);
            }
            unavailable()
        })
    }
}
