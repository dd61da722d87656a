//! What a reactor counts of its connections: bytes for the limits, kinds for the gauges, audiences for compression.

use super::connections::Connections;
use super::slot::Slot;
use crate::connection::{CloseReason, Label};
use crate::dialect::{Class, Form, Target};
use crate::endpoint;
use crate::fanout::subscribers::Subscription;
use crate::handler::ConnectionId;
use crate::metrics::label_index;
use crate::net::byte_stream::ByteStream;

impl<T: ByteStream> Connections<T> {
    /// Takes this reactor's part of the bounds on the memory of all connections.
    pub(crate) fn bound_bytes(&mut self) {
        let limits = &self.settings.limits;
        self.inbound_bytes_max = limits.inbound_bytes_total_max / self.reactors;
        self.outbox_bytes_max = limits.outbox_bytes_total_max / self.reactors;
    }

    /// Brings the sums up to date. True: what the connection holds more than before takes them over their limits.
    pub(crate) fn count(&mut self, index: u32) -> bool {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return false;
        };
        let (inbound, outbox) = (
            slot.connection.inbound_bytes(),
            slot.connection.outbox.bytes() + slot.transport.held_output(),
        );
        // Of one that holds more than 4 GiB as much is counted.
        let [inbound, outbox] =
            [inbound, outbox].map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
        self.inbound_bytes = self.inbound_bytes - slot.inbound_bytes as usize + inbound as usize;
        self.outbox_bytes = self.outbox_bytes - slot.outbox_bytes as usize + outbox as usize;
        let grew = (inbound > slot.inbound_bytes && self.inbound_bytes > self.inbound_bytes_max)
            || (outbox > slot.outbox_bytes && self.outbox_bytes > self.outbox_bytes_max);
        if slot.outbox_bytes != outbox && slot.label == Label::Handler {
            let id = slot.id(self.application.reactor, index);
            self.application.calls.note_outbox(id, outbox as usize);
        }
        let queued_bytes = slot.outbox_bytes;
        (slot.inbound_bytes, slot.outbox_bytes) = (inbound, outbox);
        let is_closing = slot.connection.is_closing();
        if slot.connection.label() != slot.label {
            self.relabel(index, queued_bytes);
        }
        grew && !is_closing
    }

    /// The connection counts as something else now. One that became a subscriber counts in its topic's audience until it
    /// is freed.
    fn relabel(&mut self, index: u32, queued_bytes: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        let label = slot.connection.label();
        if !self.followed.is_empty() {
            self.follow_label(index, label);
        }
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        if label == Label::Closing && slot.label != Label::Http && self.application.has_hook() {
            let id = slot.id(self.application.reactor, index);
            let reason = slot.connection.ending().unwrap_or(CloseReason::PeerGone);
            let code = slot.connection.close_code(&self.settings, reason).0.get();
            let peer = || slot.transport.peer_address().ok().flatten();
            let end = (code, reason.label());
            self.application.tell_ended((id, slot.identity), peer, end);
        }
        self.counts[label_index(slot.label)] -= 1;
        self.counts[label_index(label)] += 1;
        self.counts_changed = true;
        slot.label = label;
        if slot
            .connection
            .ending()
            .is_some_and(CloseReason::is_slow_consumer)
        {
            // It is told now. When it is gone is up to it.
            self.metrics.slow_consumers.add(1);
            self.note_slow_consumer(index, queued_bytes);
            return;
        }
        if let Label::Subscriber(encoding) = label {
            let dialects = &self.settings.dialects;
            slot.plain_form = Form::new(encoding, Class::Plain);
            slot.best_form = dialects.best_form(encoding, slot.connection.deflate());
            if let Some(subscription) = slot.subscribed.one() {
                let topics = &mut self.application.topics;
                topics.enter_audience(subscription.topic(), slot.best_form);
            }
        }
    }

    /// A connection of one topic is freed: it is not among the topic's subscribers, and counts in no audience any more.
    pub(crate) fn leave_one(
        &mut self,
        id: ConnectionId,
        subscription: Subscription,
        best_form: Form,
    ) {
        let shared = &self.application.shared;
        if !self.settings.topic_rules.is_empty() || shared.hooks.on_subscription.is_some() {
            let topic = self.application.topics.topic(subscription).clone();
            self.application.leave_presence(id, &topic);
            endpoint::hooks::tell_ended(&self.application.shared, id, &Target::Topic(topic));
        }
        self.leave_topic(subscription, best_form);
    }

    /// A connection is freed: its end is counted, and whoever owns its endpoint is told.
    pub(crate) fn report_end(&mut self, id: ConnectionId, slot: &Slot<T>) {
        let reason = slot.connection.ending().unwrap_or(CloseReason::PeerGone);
        self.metrics.closed[reason.index()].add(1);
        if let Some(number) = slot.connection.handler() {
            self.application.calls.handles.forget(id);
            endpoint::close(&self.application.shared, number, id, reason);
        }
    }

    fn leave_topic(&mut self, subscription: Subscription, best_form: Form) {
        let (topics, topic) = (&mut self.application.topics, subscription.topic());
        if topics.leave_audience(topic, best_form)
            && let Some(compression) = &mut self.compression
        {
            compression.forget(topic);
        }
        if let Some((moved, place)) = topics.unsubscribe(subscription) {
            self.slots[moved as usize].subscribed = place.into();
        }
    }

    pub(crate) fn show_gauges(&mut self) {
        if std::mem::take(&mut self.counts_changed) {
            for (cell, count) in self.metrics.connections.iter().zip(&self.counts) {
                cell.set(*count);
            }
        }
        debug_assert_eq!(self.counts.iter().sum::<u64>(), self.slots.len() as u64);
        if let Some(compression) = &self.compression {
            compression.show(&self.metrics);
        }
        self.metrics.inbound_bytes.set(self.inbound_bytes as u64);
        self.metrics.outbox_bytes.set(self.outbox_bytes as u64);
        self.metrics.messages_inflated.set(self.inflation.messages);
        self.metrics.inflate_errors.set(self.inflation.errors);
    }
}
