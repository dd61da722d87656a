//! Connections that the access log, or a trace, follows.

use super::connections::Connections;
use super::slot::Slot;
use crate::access_log::{self, End, Followed, SlowConsumer, Told};
use crate::connection::{CloseReason, Label};
use crate::fanout::subscribed::SubscribedKind;
use crate::handler::ConnectionId;
use crate::net::byte_stream::ByteStream;
use crate::trace::Turn;
use crate::upkeep::tracing;

/// What is known before a turn of a connection.
struct Before {
    /// Counts of messages and publications, where the access log follows it.
    counts: Option<(u64, u64)>,
    /// Traces that may be about it.
    turn: Option<Turn>,
}

impl<T: ByteStream> Connections<T> {
    /// Follows a connection that was just accepted, if the log wants that.
    pub(super) fn begin_following(&mut self, id: ConnectionId) {
        if let Some(level) = access_log::follows(&self.settings, id)
            && let Some(slot) = self.slots.get(id.index as usize)
        {
            let followed = Followed::new(level, slot.transport.peer(), self.application.now_us);
            self.followed.put(id.index, followed);
        }
    }

    /// Deals with bytes of a turn, where some connections are followed.
    #[cold]
    #[inline(never)]
    pub(super) fn take_in_followed(&mut self, index: u32, now_ms: u64, bytes: Option<&mut [u8]>) {
        let before = self.note_before(index);
        let turn = before.as_ref().and_then(|before| before.turn.as_ref());
        self.take_in_turn(index, now_ms, bytes, turn);
        if let Some(before) = before {
            self.note_behind(index, &before);
        }
    }

    fn note_before(&mut self, index: u32) -> Option<Before> {
        let counts = self.followed.get_mut(index).map(|followed| {
            self.application.noted.is_wanted = followed.wants_requests();
            let messages = self.application.metrics.messages_received.get();
            (messages, self.application.admitted.get())
        });
        let turn = tracing::begin_turn(self, index);
        (counts.is_some() || turn.is_some()).then_some(Before { counts, turn })
    }

    fn note_behind(&mut self, index: u32, before: &Before) {
        self.application.noted.is_wanted = false;
        let requests = std::mem::take(&mut self.application.noted.requests);
        tracing::mark(self, index);
        let (Some((messages, admitted)), Some(followed)) =
            (before.counts, self.followed.get_mut(index))
        else {
            return;
        };
        followed.messages += self.application.metrics.messages_received.get() - messages;
        followed.publications += self.application.admitted.get() - admitted;
        followed.note_requests(requests, self.application.now_us);
    }

    /// The connection counts as something else now, of which the log may tell.
    #[cold]
    pub(super) fn follow_label(&mut self, index: u32, label: Label) {
        tracing::note_label(self, index);
        let Some(slot) = self.slots.get(index as usize) else {
            return;
        };
        let told = self.told(slot.id(self.application.reactor, index), slot);
        let Some(followed) = self.followed.get_mut(index) else {
            return;
        };
        if label == Label::Closing {
            let subscribed = slot.subscribed;
            let many = self.application.multi_subscriptions.get(subscribed);
            followed.subscriptions = match subscribed.kind() {
                SubscribedKind::None => 0,
                SubscribedKind::One(_) => 1,
                SubscribedKind::Many(_) => many.map_or(0, |many| many.subscriptions.len() as u64),
            };
        } else if followed.dialect.is_none() {
            access_log::opened(&self.application, &told, followed, label);
        }
    }

    /// Takes newer traces, and writes what has gathered in those that were asked for here.
    pub(super) fn poll_traces(&mut self, now_ms: u64) {
        let was_on = self.upkeep.tracing.is_on();
        tracing::poll(self, now_ms);
        match (was_on, self.upkeep.tracing.is_on()) {
            (_, true) => self.followed.open(),
            (true, false) => self.followed.close(),
            (false, false) => {}
        }
    }

    /// Tells of what is about to be written to a connection.
    #[cold]
    pub(super) fn note_written(&mut self, index: u32) {
        let out = std::mem::take(&mut self.out);
        tracing::note_written(self, index, &out);
        if let Some(slot) = self.slots.get(index as usize)
            && let Some(followed) = self.followed.get_mut(index)
        {
            let id = slot.id(self.application.reactor, index);
            access_log::answered(id, followed, &out, self.application.now_us);
        }
        self.out = out;
    }

    /// Writes that a connection is ended as a slow consumer, which held so many bytes.
    #[cold]
    pub(super) fn note_slow_consumer(&mut self, index: u32, queued_bytes: u32) {
        let Some(slot) = self.slots.get(index as usize) else {
            return;
        };
        let application = &self.application;
        let topic = slot.subscribed.one();
        let told = self.told(slot.id(application.reactor, index), slot);
        let slow = SlowConsumer {
            topic: topic.map(|one| application.topics.topic(one).as_str()),
            queued_bytes,
            oldest_ms: slot.connection.outbox.oldest_ms(),
            peer: slot.transport.peer(),
        };
        access_log::slow_consumer(application, &told, &slow);
    }

    fn told(&self, id: ConnectionId, slot: &Slot<T>) -> Told {
        Told {
            id,
            listener: slot.listener,
            identity: slot.identity,
            client: self.peers.get(id.index).and_then(|it| it.by_request.client),
            secured: slot.transport.secured(),
        }
    }

    /// A connection is freed: the log may tell of its end.
    pub(super) fn end_following(&mut self, id: ConnectionId, slot: &Slot<T>) {
        let reason = slot.connection.ending().unwrap_or(CloseReason::PeerGone);
        let followed = match self.followed.is_empty() {
            true => None,
            false => self.followed.take(id.index),
        };
        if followed.is_none() && !access_log::tells_of(&self.settings, reason) {
            return;
        }
        let told = self.told(id, slot);
        let traffic = || slot.transport.traffic();
        let end = End {
            reason,
            code: slot.connection.close_code(&self.settings, reason).0,
            traffic: &traffic,
        };
        access_log::closed(&self.application, &told, followed.as_deref(), &end);
    }
}
