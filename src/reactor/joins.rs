//! The hub's answers to those who subscribe with a position, on many topics, or by a pattern.
//!
//! The order between what a subscriber gets from the history and what comes live is the mailbox's: what the hub handed
//! out before its answer is written to the others first, then the subscriber is told where it stands and gets what it
//! missed, and from then on it is among those who are written to.

use super::connections::Connections;
use super::patterns::Known;
use super::subscribed::{Membership, Subscribed};
use super::transport::Transport;
use crate::connection::outbox::SEGMENT_OVERHEAD_BYTES;
use crate::dialect::Dialect;
use crate::dialect::v1::{self, Target};
use crate::handler::ConnectionId;
use crate::http::sse;
use crate::http::topic::Topic;
use crate::hub::{Joined, LocalTopic, Member};
use crate::protocol::{Opcode, SERVER_HEADER_BYTES_MAX, encode_frame};
use crate::topic_rule::SlowConsumer;

impl<T: Transport> Connections<T> {
    /// The hub says where a topic stands, and what the connection missed there.
    pub(super) fn handle_joined(
        &mut self,
        local: LocalTopic,
        connection: u64,
        request: u32,
        joined: Joined,
        now_ms: u64,
    ) {
        let place = local.index;
        self.deliver_topic(place, now_ms);
        let id = ConnectionId::from_bits(self.application.reactor.0, connection);
        let is_taken = self.join(id, place, request, joined, now_ms);
        if !is_taken
            && let Some(topic) = self.application.topics.topic_at(place).cloned()
            && !self.subscribes_anew(id, &topic, request)
        {
            self.application.leave_presence(id, &topic);
        }
        self.application.topics.end_join(place);
        if is_taken {
            self.settle(id.index, now_ms);
        }
    }

    /// Whether the connection has ended the subscription that the question was about, and has begun another one to the
    /// same topic since: it is still present there.
    fn subscribes_anew(&self, id: ConnectionId, topic: &Topic, request: u32) -> bool {
        let Some(slot) = self.slots.get(id.index as usize).filter(|it| it.is(id)) else {
            return false;
        };
        let Subscribed::Many(many) = &slot.subscribed else {
            return false;
        };
        match many.subscriptions.get(&Target::Topic(topic.clone())) {
            Some(Membership::Joining { request: asked, .. }) => *asked != request,
            Some(Membership::Live { .. }) => true,
            None => false,
        }
    }

    /// False: nobody waits for it any more.
    fn join(
        &mut self,
        id: ConnectionId,
        place: u32,
        request: u32,
        joined: Joined,
        now_ms: u64,
    ) -> bool {
        let Some(slot) = self.slots.get(id.index as usize).filter(|it| it.is(id)) else {
            return false;
        };
        match &slot.subscribed {
            Subscribed::Many(_) if slot.connection.takes_deliveries() => {
                self.join_many(id, place, request, joined)
            }
            Subscribed::None => match slot.connection.joining_dialect() {
                Some(dialect) => self.join_one(id, place, dialect, joined, now_ms),
                None => false,
            },
            _ => false,
        }
    }

    fn join_one(
        &mut self,
        id: ConnectionId,
        place: u32,
        dialect: Dialect,
        joined: Joined,
        now_ms: u64,
    ) -> bool {
        let Connections {
            slots,
            application,
            settings,
            out,
            metrics,
            ..
        } = self;
        let slot = &mut slots[id.index as usize];
        // What an earlier request was answered may wait there still.
        let held_bytes = slot.connection.outbox.bytes();
        let room_bytes = settings.limits.outbox_bytes_max.saturating_sub(held_bytes);
        let Joined {
            position,
            recovered,
            publications,
        } = fit(joined, dialect, room_bytes);
        if !slot
            .connection
            .handle_joined(settings, now_ms, position, recovered, out)
        {
            return false;
        }
        metrics.count_recovery(recovered, publications.len());
        for publication in &publications {
            out.extend_from_slice(dialect.encode(publication));
        }
        if dialect == Dialect::Sse && publications.is_empty() {
            // Who is cut off before the first event comes back with this.
            sse::encode_id(out, &position.to_string());
        }
        let subscription = application.topics.add_subscriber(place, id.index);
        slot.subscribed = Subscribed::One(subscription);
        true
    }

    fn join_many(&mut self, id: ConnectionId, place: u32, request: u32, joined: Joined) -> bool {
        let Connections {
            slots,
            application,
            settings,
            out,
            metrics,
            presence,
            ..
        } = self;
        let slot = &mut slots[id.index as usize];
        let Some(topic) = application.topics.topic_at(place).cloned() else {
            return false;
        };
        let Subscribed::Many(many) = &mut slot.subscribed else {
            return false;
        };
        let slow_consumer = settings.topic_rules.rule(&topic).slow_consumer;
        let target = Target::Topic(topic);
        let form = many.best_form;
        let Some((membership, command)) = many.joining(&target, request) else {
            return false;
        };
        let member = application.topics.add_member(place, id.index, form);
        *membership = Membership::Live { place, member };
        presence.begin(place, id.index);
        let (dialect, position) = (slot.connection.dialect(), joined.position);
        let answer = |recovered| {
            let mut payload = Vec::with_capacity(128);
            if let Some(id) = command {
                let position = Some(position);
                v1::encode_subscribed(
                    &mut payload,
                    id,
                    &target,
                    position,
                    recovered,
                    slow_consumer,
                );
            }
            payload
        };
        // Who recovers many topics at once must not be closed for what it asked for.
        let held = slot.connection.outbox.bytes() + SEGMENT_OVERHEAD_BYTES;
        let answer_bytes = SERVER_HEADER_BYTES_MAX + answer(joined.recovered).len();
        let room_bytes = settings.limits.outbox_bytes_max;
        let room_bytes = room_bytes.saturating_sub(held + answer_bytes);
        let Joined {
            recovered,
            publications,
            ..
        } = fit(joined, dialect, room_bytes);
        metrics.count_recovery(recovered, publications.len());
        if command.is_some() {
            encode_frame(out, Opcode::Text, &answer(recovered), None);
        }
        for publication in &publications {
            out.extend_from_slice(dialect.encode(publication));
        }
        true
    }

    /// One more shard of the hub knows a pattern.
    pub(super) fn handle_pattern_subscribed(&mut self, local: LocalTopic, now_ms: u64) {
        let known = self.application.patterns.handle_subscribed(local);
        let Some(Known {
            pattern,
            place,
            waiting,
        }) = known
        else {
            return;
        };
        let target = Target::Pattern(pattern);
        for (id, request) in waiting {
            let Some(slot) = self
                .slots
                .get_mut(id.index as usize)
                .filter(|it| it.is(id) && it.connection.takes_deliveries())
            else {
                continue;
            };
            let Subscribed::Many(many) = &mut slot.subscribed else {
                continue;
            };
            let Some((membership, command)) = many.joining(&target, request) else {
                continue;
            };
            let patterns = &mut self.application.patterns;
            let Some(member) = patterns.add_member(place, id.index) else {
                continue;
            };
            *membership = Membership::Live { place, member };
            if let Some(command) = command {
                let mut payload = Vec::with_capacity(128);
                let slow_consumer = SlowConsumer::Close;
                v1::encode_subscribed(&mut payload, command, &target, None, None, slow_consumer);
                encode_frame(&mut self.out, Opcode::Text, &payload, None);
            }
            self.settle(id.index, now_ms);
        }
        self.application.patterns.remove_if_unused(place);
        self.application.send_patterns();
    }

    /// Who is on a topic.
    pub(super) fn handle_present(
        &mut self,
        connection: u64,
        request: u32,
        members: &[Member],
        total: u32,
        now_ms: u64,
    ) {
        let id = ConnectionId::from_bits(self.application.reactor.0, connection);
        let Some(slot) = self.slots.get_mut(id.index as usize).filter(|it| it.is(id)) else {
            return;
        };
        let Subscribed::Many(many) = &mut slot.subscribed else {
            return;
        };
        if let Some((Some(name), topic)) = many.take_question(request)
            && slot.connection.takes_deliveries()
        {
            // The list knows of what has changed so far, so that is told first.
            let target = Target::Topic(topic.clone());
            if let Some(Membership::Live { place, .. }) = many.subscriptions.get(&target) {
                self.presence.take_rest(*place, id.index, &mut self.out);
            }
            let mut payload = Vec::new();
            v1::encode_presence(&mut payload, name, &topic, total, members);
            encode_frame(&mut self.out, Opcode::Text, &payload, None);
        }
        self.settle(id.index, now_ms);
    }
}

/// What of a replay fits so many bytes in the asker's dialect. Who asked for all since a position gets all of it or is
/// told that it is not recovered; who asked for the last ones gets the newest that fit.
fn fit(mut joined: Joined, dialect: Dialect, room_bytes: usize) -> Joined {
    let mut bytes_left = room_bytes;
    let newest_first = joined.publications.iter().rev();
    let fitting = newest_first
        .take_while(|next| {
            let left = bytes_left.checked_sub(dialect.encode(next).len());
            bytes_left = left.unwrap_or(0);
            left.is_some()
        })
        .count();
    let missing = joined.publications.len() - fitting;
    if missing > 0 && joined.recovered.is_some() {
        joined.recovered = Some(false);
        joined.publications.clear();
    } else {
        joined.publications.drain(..missing);
    }
    joined
}
