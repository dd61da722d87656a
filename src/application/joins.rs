//! The hub's answers to joins, on one topic or many.
//!
//! The order between what a subscriber gets from the history and what comes live is the mailbox's: what the hub handed
//! out before its answer is written to the others first, then the subscriber is told where it stands and gets what it
//! missed, and from then on it is among those who are written to.

use std::sync::Arc;

use super::{Application, ConnectionContext};
use crate::connection::Hold;
use crate::connection::outbox::SEGMENT_OVERHEAD_BYTES;
use crate::dialect::{self, Encoding, JoinedAt, Reply, Target};
use crate::endpoint::hooks;
use crate::fanout::replay::{fit, write_replay};
use crate::fanout::subscribed::SubscribedKind;
use crate::fanout::subscriptions::Membership;
use crate::handler::ConnectionId;
use crate::hub::{Joined, Member, MemberIdentity, Start};
use crate::protocol::SERVER_HEADER_BYTES_MAX;
use crate::topic::{SlowConsumer, Topic};

/// A question to the hub for a future subscriber.
pub struct Question {
    /// The future subscriber.
    pub connection: ConnectionId,
    /// Tells the questions of one connection apart.
    pub request: u32,
    /// Start of its deliveries.
    pub start: Start,
    /// Information that members see of the connection, as it says itself.
    pub info: Option<Arc<str>>,
    /// Identity that they see of it.
    pub identity: Option<Arc<MemberIdentity>>,
}

impl Application {
    /// Carries out the hub's answer to a join: the topic's position, and the missed publications. Without a context the
    /// connection is gone. False: nobody waits for it any more.
    pub fn handle_joined(
        &mut self,
        id: ConnectionId,
        mut context: Option<ConnectionContext<'_>>,
        place: u32,
        request: u32,
        joined: Joined,
    ) -> bool {
        if let Some(context) = &mut context {
            self.end_question(context, request);
        }
        let is_taken = context
            .as_mut()
            .is_some_and(|context| self.join(context, place, request, joined));
        if !is_taken
            && let Some(topic) = self.topics.topic_at(place).cloned()
            && !context.is_some_and(|context| self.subscribes_anew(&context, &topic, request))
        {
            self.leave_presence(id, &topic);
        }
        self.topics.end_join(place);
        is_taken
    }

    /// The program hears of a subscription of a connection of one topic.
    pub fn tell_began(&self, id: ConnectionId, place: u32) {
        if self.shared.hooks.on_subscription.is_some()
            && let Some(topic) = self.topics.topic_at(place)
        {
            hooks::tell_began(&self.shared, id, &Target::Topic(topic.clone()));
        }
    }

    /// A question of a connection's is answered, and it may ask others.
    pub fn end_question(&mut self, context: &mut ConnectionContext<'_>, request: u32) {
        if let Some(many) = self.multi_subscriptions.get_mut(*context.subscribed) {
            many.end_question(request);
        }
        context.connection.lift(Hold::Question);
    }

    /// Whether the connection has ended the subscription that the question was about, and has begun another one to the
    /// same topic since: it is still present there.
    fn subscribes_anew(
        &self,
        context: &ConnectionContext<'_>,
        topic: &Topic,
        request: u32,
    ) -> bool {
        let Some(many) = self.multi_subscriptions.get(*context.subscribed) else {
            return false;
        };
        match many.subscriptions.get(&Target::Topic(topic.clone())) {
            Some(Membership::Joining { request: asked, .. }) => *asked != request,
            Some(Membership::Live { .. }) => true,
            None => false,
        }
    }

    fn join(
        &mut self,
        context: &mut ConnectionContext<'_>,
        place: u32,
        request: u32,
        mut joined: Joined,
    ) -> bool {
        // What waited in the mailbox may be over.
        joined.publications.retain(|it| !it.is_expired(self.now_us));
        match context.subscribed.kind() {
            SubscribedKind::Many(_) if context.connection.takes_deliveries() => {
                self.join_many(context, place, request, joined)
            }
            SubscribedKind::None => match context.connection.joining_encoding() {
                Some(encoding) => self.join_one(context, place, encoding, joined),
                None => false,
            },
            _ => false,
        }
    }

    fn join_one(
        &mut self,
        context: &mut ConnectionContext<'_>,
        place: u32,
        encoding: Encoding,
        joined: Joined,
    ) -> bool {
        let settings = &self.shared.settings;
        let dialects = &settings.dialects;
        let ConnectionContext {
            id,
            connection,
            subscribed,
            out,
            now_ms,
            ..
        } = context;
        // What an earlier request was answered may wait there still.
        let held_bytes = connection.outbox.bytes();
        let room_bytes = settings.limits.outbox_bytes_max.saturating_sub(held_bytes);
        let Joined {
            position,
            recovered,
            publications,
            ..
        } = fit(joined, dialects, encoding, room_bytes, false);
        let joined = JoinedAt {
            position,
            recovered,
            has_replay: !publications.is_empty(),
        };
        if !connection.handle_joined(settings, *now_ms, joined, out) {
            return false;
        }
        self.metrics.count_recovery(recovered, publications.len());
        for publication in &publications {
            out.extend_from_slice(dialects.encode(encoding, publication));
        }
        let subscription = self.topics.add_subscriber(place, id.index);
        **subscribed = subscription.into();
        self.tell_began(*id, place);
        true
    }

    fn join_many(
        &mut self,
        context: &mut ConnectionContext<'_>,
        place: u32,
        request: u32,
        joined: Joined,
    ) -> bool {
        let settings = &self.shared.settings;
        let (id, subscribed) = (context.id, *context.subscribed);
        let (connection, out) = (&*context.connection, &mut *context.out);
        let Some(topic) = self.topics.topic_at(place).cloned() else {
            return false;
        };
        let slow_consumer = settings.topic_rules.rule(&topic).slow_consumer;
        let target = Target::Topic(topic);
        let echo = self.multi_subscriptions.has_echo(subscribed, &target);
        let Some(many) = self.multi_subscriptions.get_mut(subscribed) else {
            return false;
        };
        let form = many.best_form;
        let Some((membership, command)) = many.joining(&target, request) else {
            return false;
        };
        let member = self.topics.add_member(place, id.index, form);
        *membership = Membership::Live { place, member };
        hooks::tell_began(&self.shared, id, &target);
        self.presence.begin(place, id.index);
        let (dialects, encoding) = (&settings.dialects, connection.encoding());
        let dialect = dialects.get(encoding);
        let position = Some(joined.position);
        let is_unasked = self.terms.take_unasked(id.index, request);
        let encode_reply = |(recovered, snapshot), replay: &[_]| {
            let mut message = Vec::with_capacity(128);
            let subscribed = dialect::Subscribed {
                target: &target,
                position,
                recovered,
                snapshot,
                slow_consumer,
                echo,
                is_unasked,
                replay,
            };
            dialect.encode_reply(&mut message, command, &Reply::Subscribed(subscribed));
            message
        };
        // Who recovers many topics at once must not be closed for what it asked for.
        let held = connection.outbox.bytes() + SEGMENT_OVERHEAD_BYTES;
        let reply_bytes =
            SERVER_HEADER_BYTES_MAX + encode_reply((joined.recovered, joined.snapshot), &[]).len();
        let room_bytes = settings.limits.outbox_bytes_max;
        let room_bytes = room_bytes.saturating_sub(held + reply_bytes);
        // Under this rule offsets leap anyway, and nobody is told.
        let has_gaps = slow_consumer != SlowConsumer::Latest;
        let joined = fit(joined, dialects, encoding, room_bytes, has_gaps);
        let (recovered, publications) = (joined.recovered, &joined.publications);
        self.metrics.count_recovery(recovered, publications.len());
        let holds_replay = dialect.holds_replay();
        let in_reply = if holds_replay { &publications[..] } else { &[] };
        let reply = encode_reply((recovered, joined.snapshot), in_reply);
        dialects.frame_message(encoding, &reply, out);
        if !holds_replay && let Target::Topic(topic) = &target {
            write_replay(out, dialects, encoding, topic, &joined, has_gaps);
        }
        true
    }

    /// Carries out the hub's answer about the members of a topic.
    pub fn handle_present(
        &mut self,
        context: &mut ConnectionContext<'_>,
        request: u32,
        members: &[Member],
        total: u32,
    ) {
        self.end_question(context, request);
        let Some(many) = self.multi_subscriptions.get_mut(*context.subscribed) else {
            return;
        };
        if let Some((name, topic)) = many.take_question(request)
            && context.connection.takes_deliveries()
        {
            let (dialects, encoding) = (
                &self.shared.settings.dialects,
                context.connection.encoding(),
            );
            let reply = Reply::Present {
                topic: &topic,
                total,
                members,
            };
            let mut message = Vec::new();
            dialects
                .get(encoding)
                .encode_reply(&mut message, name, &reply);
            if message.is_empty() {
                return;
            }
            // The list knows of what has changed so far, so that is told first.
            let target = Target::Topic(topic.clone());
            if let Some(Membership::Live { place, .. }) = many.subscriptions.get(&target) {
                let (place, index) = (*place, context.id.index);
                self.presence
                    .take_rest((place, &topic), index, encoding, dialects, context.out);
            }
            dialects.frame_message(encoding, &message, context.out);
        }
    }
}
