//! The way out: publications to all subscribers of a topic, and outboxes to the kernel.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::connections::Connections;
use super::slot::{Flags, Slot};
use crate::compression::places::Places;
use crate::connection::outbox::{OutboxFull, SEGMENTS_PER_WRITE};
use crate::connection::{CloseReason, Segment, Settings};
use crate::dialect::Form;
use crate::fanout::batch::{Batch, EncodedBatch, batches};
use crate::fanout::slow_consumer::{self, Waiting};
use crate::fanout::tally::Tally;
use crate::hub::Publication;
use crate::metrics::ReactorMetrics;
use crate::net::byte_stream::ByteStream;
use crate::net::ring::{Ring, SENDS_MAX};
use crate::presence::Changes;
use crate::protocol::{Opcode, encode_frame};
use crate::topic::SlowConsumer;
use crate::upkeep::tracing;

/// Fewer sends than this are made one by one: handing over a ring costs something too.
const RING_SENDS_MIN: usize = 4;

impl<T: ByteStream> Connections<T> {
    /// Writes the publications that this tick's effects brought, topic by topic. `now_us` gives the moment after the
    /// last write, on the clock of the publishes.
    pub fn deliver(&mut self, now_ms: u64, mut now_us: impl FnMut() -> u64) {
        self.deliver_presence(now_ms);
        let topics = self.application.topics.begin_delivery();
        for &topic in &topics {
            self.deliver_queued(topic, now_ms, &mut now_us);
        }
        self.application.topics.end_delivery(topics);
        let patterns = self.application.patterns.begin_delivery();
        for &pattern in &patterns {
            self.deliver_by_pattern(pattern, now_ms, &mut now_us);
        }
        self.application.patterns.end_delivery(patterns);
        self.settle_touched(now_ms);
    }

    /// Writes what has been queued for one topic so far, ahead of what comes later in the same tick.
    pub(crate) fn deliver_topic(&mut self, topic: u32, now_ms: u64) {
        if self.application.topics.has_queued(topic) {
            let now_us = self.application.now_us;
            self.deliver_presence_of(topic, now_ms);
            self.deliver_queued(topic, now_ms, &mut || now_us);
            self.settle_touched(now_ms);
        }
    }

    /// Tells the members of topics what has changed there.
    fn deliver_presence(&mut self, now_ms: u64) {
        if self.application.presence.is_empty() {
            return;
        }
        for place in self.application.presence.due(now_ms) {
            self.deliver_presence_of(place, now_ms);
        }
    }

    /// Tells the members of one topic, ahead of what comes later in the same tick, unless they have been told too much.
    pub(crate) fn deliver_presence_of(&mut self, place: u32, now_ms: u64) {
        if let Some(changes) = self.application.presence.take(place, now_ms)
            && self.application.topics.is_here(changes.local)
        {
            self.deliver_changes(place, changes, now_ms);
        }
    }

    fn deliver_changes(&mut self, place: u32, mut changes: Changes, now_ms: u64) {
        let members = self.application.topics.take_members(place);
        let (mut told, mut bytes) = (0, 0);
        for &index in members.connections() {
            let slot = self.slots.get_mut(index as usize);
            let Some(slot) = slot.filter(|slot| slot.connection.takes_deliveries()) else {
                continue;
            };
            let encoding = slot.plain_form.encoding();
            let rest = changes.rest(index, encoding, &self.settings.dialects);
            if rest.is_empty() {
                continue;
            }
            told += 1;
            bytes = rest.len().max(bytes);
            match slot.connection.outbox.is_empty() {
                true => self.out.extend_from_slice(&rest),
                // All whose outboxes hold it share it.
                false => slot.queue_news(rest, &self.metrics, &self.settings, now_ms),
            }
            self.settle(index, now_ms);
        }
        let presence = &mut self.application.presence;
        presence.count(place, told, bytes, now_ms);
        self.application.topics.put_back_members(place, members);
    }

    fn settle_touched(&mut self, now_ms: u64) {
        if self.touched.is_empty() {
            return;
        }
        let mut touched = std::mem::take(&mut self.touched);
        for index in touched.drain(..) {
            self.settle(index, now_ms);
        }
        self.touched = touched;
    }

    fn deliver_queued(&mut self, topic: u32, now_ms: u64, now_us: &mut dyn FnMut() -> u64) {
        let topics = &mut self.application.topics;
        let (publications, subscribers) = topics.take_delivery(topic);
        let members = topics.take_members(topic);
        for batch in batches(&publications) {
            let all = (&*subscribers, members.connections());
            if batch.iter().any(|it| it.needs_care()) {
                self.deliver_with_care(topic, batch, all, now_ms, now_us);
            } else {
                self.deliver_batch(topic, batch, all, now_ms);
            }
        }
        self.record_fan_out(&publications, now_us());
        let topics = &mut self.application.topics;
        topics.put_back(publications, subscribers);
        if !members.is_empty() {
            topics.put_back_members(topic, members);
        }
    }

    fn record_fan_out(&self, publications: &[Arc<Publication>], done_us: u64) {
        for publication in publications {
            let took_us = done_us.saturating_sub(publication.published_at_us());
            self.metrics.publish_to_write.record_us(took_us);
        }
    }

    fn deliver_by_pattern(&mut self, place: u32, now_ms: u64, now_us: &mut dyn FnMut() -> u64) {
        let Some((pattern, publications, subscribers)) =
            self.application.patterns.take_delivery(place)
        else {
            return;
        };
        for publications in batches(&publications) {
            if publications.iter().any(|it| it.needs_care()) {
                let all = subscribers.connections();
                self.deliver_pattern_with_care(&pattern, publications, all, now_ms, now_us);
            } else {
                let batch = Batch::new(publications).with_pattern(&pattern);
                self.deliver_to::<false>(&batch, subscribers.connections(), now_ms);
            }
        }
        self.record_fan_out(&publications, now_us());
        self.application.patterns.put_back(place, subscribers);
    }

    pub(super) fn deliver_batch(
        &mut self,
        topic: u32,
        publications: &[Arc<Publication>],
        all: (&[u32], &[u32]),
        now_ms: u64,
    ) -> Tally {
        let (audience, mut compression) = match self.application.topics.audience(topic) {
            Some(audience) => (audience, self.compression.take()),
            None => {
                let batch = Batch::new(publications);
                return self.deliver_to_all::<false>(&batch, all, now_ms);
            }
        };
        let may_share = match publications.first().and_then(|first| first.topic()) {
            Some(topic) => {
                self.settings.topic_rules.rule(topic).slow_consumer == SlowConsumer::Close
            }
            None => true,
        };
        let batch = match &mut compression {
            Some(compression) => {
                compression.begin(topic, audience, publications, may_share, now_ms)
            }
            None => Batch::new(publications),
        };
        let tally = match batch.is_compressed() {
            true => self.deliver_to_all::<true>(&batch, all, now_ms),
            false => self.deliver_to_all::<false>(&batch, all, now_ms),
        };
        if let Some(compressed) = batch.into_compressed() {
            let (members, waiters) = compressed.counts();
            if let Some(compression) = &mut compression {
                compression.finish(topic, members, waiters, now_ms);
            }
        }
        self.compression = compression;
        tally
    }

    pub(super) fn deliver_to_all<const COMPRESSED: bool>(
        &mut self,
        batch: &Batch<'_>,
        (subscribers, members): (&[u32], &[u32]),
        now_ms: u64,
    ) -> Tally {
        let mut tally = self.deliver_to::<COMPRESSED>(batch, subscribers, now_ms);
        if !members.is_empty() {
            tally.add(&self.deliver_to::<COMPRESSED>(batch, members, now_ms));
        }
        tally
    }

    /// `COMPRESSED`: the batch is. Who takes no compression must not pay for those who do, so these are two functions.
    pub(super) fn deliver_to<const COMPRESSED: bool>(
        &mut self,
        batch: &Batch<'_>,
        to: &[u32],
        now_ms: u64,
    ) -> Tally {
        let mut tally = Tally::default();
        let touched = self.touched.len();
        match self.ring.take() {
            Some(mut ring) if to.len() >= RING_SENDS_MIN => {
                for chunk in to.chunks(SENDS_MAX) {
                    let tally = &mut tally;
                    self.deliver_by_ring::<COMPRESSED>(&mut ring, batch, chunk, now_ms, tally);
                }
                self.ring = Some(ring).filter(|ring| !ring.is_broken());
            }
            ring => {
                self.ring = ring;
                self.deliver_to_each::<COMPRESSED>(batch, to, now_ms, &mut tally);
            }
        }
        tally.take_counts(batch, &self.settings.dialects);
        let (count, subscribers) = (batch.len() as u64, tally.subscribers);
        self.metrics.deliveries.add(subscribers * count);
        if let Some(counts) = &self.topic_counts {
            counts.count_batch(batch.publications(), subscribers);
        }
        if self.upkeep.tracing.is_on() {
            tracing::note_batch(self, batch.publications(), to);
        }
        let messages = (subscribers - tally.on_streams) * count;
        self.metrics.messages_sent.add(messages);
        self.metrics.bytes_sent.add(tally.bytes);
        if COMPRESSED {
            self.metrics.deflated_deliveries.add(tally.deflated * count);
            self.metrics.cohort_deliveries.add(tally.in_cohort * count);
        }
        // Whoever did not take all of it at once stands there.
        tally.touched = (self.touched.len() - touched) as u64;
        if tally.touched > 0 {
            self.metrics.dropped_oldest.add(tally.dropped_oldest);
            self.metrics.replaced.add(tally.replaced);
        }
        tally
    }

    /// Writes a batch to subscribers one by one. Apart from what comes before and after, for their registers.
    #[inline(never)]
    fn deliver_to_each<const COMPRESSED: bool>(
        &mut self,
        batch: &Batch<'_>,
        subscribers: &[u32],
        now_ms: u64,
        tally: &mut Tally,
    ) {
        let mut last = None;
        for &index in subscribers {
            self.deliver_one::<COMPRESSED>(batch, &mut last, index, now_ms, tally);
        }
    }

    /// Writes a batch to one subscriber, or queues it behind what waits there. A call would cost as much as what it does.
    /// `last`: the form in which the subscriber before it got the batch.
    #[inline(always)]
    fn deliver_one<'a, const COMPRESSED: bool>(
        &mut self,
        batch: &'a Batch<'_>,
        last: &mut Option<&'a EncodedBatch>,
        index: u32,
        now_ms: u64,
        tally: &mut Tally,
    ) {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        if !slot.connection.takes_deliveries() {
            return;
        }
        let form = slot.form::<COMPRESSED>(batch, &mut self.places, index, &self.settings);
        let encoded = match *last {
            Some(encoded) if encoded.form() == form => encoded,
            _ => last.insert(batch.encoded::<COMPRESSED>(form, &self.settings.dialects)),
        };
        encoded.count();
        let frames = encoded.bytes();
        // Only a compressed form costs something to find again.
        let known = COMPRESSED.then_some(form);
        if !slot.connection.outbox.is_empty() || !slot.transport.is_bare() {
            return self.deliver_slowly::<COMPRESSED>(batch, index, known, None, now_ms, tally);
        }
        match slot.transport.write(frames) {
            Ok(written) if written == frames.len() => tally.bytes += written as u64,
            outcome => {
                let outcome = Some(outcome);
                self.deliver_slowly::<COMPRESSED>(batch, index, known, outcome, now_ms, tally);
            }
        }
    }

    /// The rest of [`deliver_one`](Connections::deliver_one) where it is more than a write that takes all. `form`: the one
    /// that was found, if it is not the plain one; `outcome`: of the write, if it was tried. The slot and its frames are
    /// looked up once more, so that nothing is kept for it where there is no rest.
    #[inline(never)]
    fn deliver_slowly<const COMPRESSED: bool>(
        &mut self,
        batch: &Batch<'_>,
        index: u32,
        form: Option<Form>,
        outcome: Option<io::Result<usize>>,
        now_ms: u64,
        tally: &mut Tally,
    ) {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        let form = form.unwrap_or(slot.plain_form);
        let encoded = batch.encoded::<COMPRESSED>(form, &self.settings.dialects);
        let frames = encoded.bytes();
        let outcome = match outcome {
            Some(outcome) => outcome,
            None if slot.connection.outbox.is_empty() => slot.transport.write(frames),
            None => Ok(0),
        };
        if let Ok(written) = outcome
            && written == frames.len()
        {
            tally.bytes += written as u64;
            return;
        }
        let waiting = Waiting {
            batch,
            form,
            frames,
        };
        slot.queue_rest(outcome, waiting, &self.settings, now_ms, tally);
        self.touched.push(index);
    }

    /// [`deliver_one`](Connections::deliver_one) for those that the ring is not for.
    #[inline(never)]
    pub(super) fn deliver_apart<const COMPRESSED: bool>(
        &mut self,
        batch: &Batch<'_>,
        index: u32,
        now_ms: u64,
        tally: &mut Tally,
    ) {
        self.deliver_to_each::<COMPRESSED>(batch, &[index], now_ms, tally);
    }

    /// Writes a batch to up to [`SENDS_MAX`] subscribers at once.
    fn deliver_by_ring<const COMPRESSED: bool>(
        &mut self,
        ring: &mut Ring,
        batch: &Batch<'_>,
        subscribers: &[u32],
        now_ms: u64,
        tally: &mut Tally,
    ) {
        let mut sends = [(0, Form::PAYLOAD); SENDS_MAX];
        let mut count = 0;
        for &index in subscribers {
            let Some(slot) = self.slots.get_mut(index as usize) else {
                continue;
            };
            let is_direct = slot.connection.takes_deliveries()
                && slot.connection.outbox.is_empty()
                && slot.transport.descriptor().is_some();
            if is_direct {
                let form = slot.form::<COMPRESSED>(batch, &mut self.places, index, &self.settings);
                sends[count] = (index, form);
                count += 1;
            } else {
                self.beside.push(index);
            }
        }
        if !self.beside.is_empty() {
            self.deliver_beside::<COMPRESSED>(ring, batch, now_ms, tally);
        }
        let sends = &sends[..count];
        let mut outcomes = [const { None }; SENDS_MAX];
        let outcomes = &mut outcomes[..count];
        let entries = sends.iter().filter_map(|&(index, form)| {
            let slot = self.slots.get(index as usize)?;
            let frames = batch
                .encoded::<COMPRESSED>(form, &self.settings.dialects)
                .bytes();
            Some((slot.transport.descriptor()?, &**frames))
        });
        ring.send(entries, outcomes);
        for (&(index, form), outcome) in sends.iter().zip(outcomes) {
            let Some(outcome) = outcome.take() else {
                self.deliver_apart::<COMPRESSED>(batch, index, now_ms, tally);
                continue;
            };
            let Some(slot) = self.slots.get_mut(index as usize) else {
                continue;
            };
            let encoded = batch.encoded::<COMPRESSED>(form, &self.settings.dialects);
            encoded.count();
            let frames = encoded.bytes();
            match outcome {
                Ok(written) if written == frames.len() => tally.bytes += written as u64,
                outcome => {
                    let waiting = Waiting {
                        batch,
                        form,
                        frames,
                    };
                    slot.queue_rest(outcome, waiting, &self.settings, now_ms, tally);
                    self.touched.push(index);
                }
            }
        }
    }
}

impl<T: ByteStream> Slot<T> {
    /// The form in which it gets the batch.
    pub(super) fn form<const COMPRESSED: bool>(
        &self,
        batch: &Batch<'_>,
        places: &mut Places,
        index: u32,
        settings: &Settings,
    ) -> Form {
        match COMPRESSED {
            true => batch.form(self.best_form, places, index, &settings.dialects),
            false => self.plain_form,
        }
    }

    /// Writes `out` behind an empty outbox, or queues it behind a full one.
    pub(crate) fn write_out(
        &mut self,
        metrics: &ReactorMetrics,
        out: &[u8],
        settings: &Settings,
        now_ms: u64,
    ) -> io::Result<()> {
        let mut written = 0;
        while written < out.len() && self.connection.outbox.is_empty() {
            match self.transport.write(&out[written..]) {
                Ok(count) => {
                    metrics.bytes_sent.add(count as u64);
                    written += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.flags.set(Flags::IS_BLOCKED, true);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if written == out.len() {
            return Ok(());
        }
        let rest = Segment::Own(out[written..].into());
        if written > 0 {
            self.connection.outbox.push_begun(rest, now_ms);
        } else {
            let mut bytes_max = settings.limits.outbox_bytes_max;
            if self.connection.is_closing() {
                // The Close frame is the last, so it finds room, and drops nothing that was queued before it.
                bytes_max = usize::MAX;
            }
            match self.connection.outbox.push(rest, 0, now_ms, bytes_max) {
                Ok(dropped) => metrics.dropped_oldest.add(dropped.oldest as u64),
                Err(OutboxFull(dropped)) => {
                    metrics.dropped_oldest.add(dropped.oldest as u64);
                    self.connection
                        .fail(settings, now_ms, CloseReason::SlowConsumerBytes);
                }
            }
        }
        Ok(())
    }

    /// Queues what is told of others behind what waits.
    fn queue_news(
        &mut self,
        frames: Arc<[u8]>,
        metrics: &ReactorMetrics,
        settings: &Settings,
        now_ms: u64,
    ) {
        let bytes_max = settings.limits.outbox_bytes_max;
        let segment = Segment::Shared(frames);
        match self.connection.outbox.push(segment, 0, now_ms, bytes_max) {
            Ok(dropped) => metrics.dropped_oldest.add(dropped.oldest as u64),
            Err(OutboxFull(dropped)) => {
                metrics.dropped_oldest.add(dropped.oldest as u64);
                self.connection
                    .fail(settings, now_ms, CloseReason::SlowConsumerBytes);
            }
        }
    }

    /// Writes the outbox until it is empty or the kernel takes no more; nothing while it has yet to announce room. A pong that waited for that is put in front
    /// of `out`.
    pub(crate) fn write_outbox(
        &mut self,
        metrics: &ReactorMetrics,
        out: &mut Vec<u8>,
        now_ms: u64,
    ) -> io::Result<()> {
        while !self.connection.outbox.is_empty() && !self.flags.has(Flags::IS_BLOCKED) {
            let (dropped, ping) = self.connection.outbox.expire_ttl(now_ms);
            metrics.dropped_oldest.add(dropped.oldest as u64);
            metrics.replaced.add(dropped.replaced as u64);
            if self.connection.outbox.is_empty() {
                self.put_pong(ping, out);
                break;
            }
            let mut pieces = [IoSlice::new(&[]); SEGMENTS_PER_WRITE];
            let count = self.connection.outbox.slices(&mut pieces);
            match self.transport.write_vectored(&pieces[..count]) {
                Ok(written) => {
                    metrics.bytes_sent.add(written as u64);
                    let ping = self.connection.outbox.handle_written(written);
                    self.put_pong(ping, out);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.flags.set(Flags::IS_BLOCKED, true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts the pong in front of `out` that waited for an empty outbox.
    fn put_pong(&self, ping: Option<Box<[u8]>>, out: &mut Vec<u8>) {
        if let Some(ping) = ping
            && !self.connection.is_closing()
        {
            let mut pong = Vec::with_capacity(ping.len() + 2);
            encode_frame(&mut pong, Opcode::Pong, &ping, None);
            out.splice(..0, pong);
        }
    }

    /// Queues what a write did not take, and counts what becomes of it.
    #[cold]
    #[inline(never)]
    pub(super) fn queue_rest(
        &mut self,
        outcome: io::Result<usize>,
        waiting: Waiting<'_, '_>,
        settings: &Settings,
        now_ms: u64,
        tally: &mut Tally,
    ) {
        let written = match outcome {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.flags.set(Flags::IS_BLOCKED, true);
                0
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => {
                self.connection.finish(CloseReason::Transport);
                tally.dropped += 1;
                return;
            }
        };
        tally.bytes += written as u64;
        match slow_consumer::queue(
            &mut self.connection.outbox,
            waiting,
            written,
            settings,
            now_ms,
        ) {
            Ok(dropped) => tally.add_dropped(dropped),
            Err(OutboxFull(dropped)) => {
                tally.add_dropped(dropped);
                tally.dropped += 1;
                self.connection
                    .fail(settings, now_ms, CloseReason::SlowConsumerBytes);
            }
        }
    }
}
