//! The way out: publications to all subscribers of a topic, and outboxes to the kernel.

use std::cell::OnceCell;
use std::io::{self, IoSlice};
use std::sync::Arc;

use super::connections::{Connections, Slot};
use super::ring::{Ring, SENDS_MAX};
use super::transport::Transport;
use crate::connection::outbox::SEGMENTS_PER_WRITE;
use crate::connection::{CloseReason, Segment, Settings};
use crate::dialect::Dialect;
use crate::hub::Publication;
use crate::metrics::ReactorMetrics;
use crate::protocol::{Opcode, encode_frame};

/// Bytes of several publications that leave in one write. More make another write.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// Fewer sends than this are made one by one: handing over a ring costs something too.
const RING_SENDS_MIN: usize = 4;

/// The publications of one topic in one tick, as each dialect wants them: contiguous, encoded once.
struct Batch<'a> {
    publications: &'a [Arc<Publication>],
    encoded: [OnceCell<Arc<[u8]>>; Dialect::ALL.len()],
}

impl<'a> Batch<'a> {
    fn new(publications: &'a [Arc<Publication>]) -> Batch<'a> {
        Batch {
            publications,
            encoded: [const { OnceCell::new() }; Dialect::ALL.len()],
        }
    }

    fn encoded(&self, dialect: Dialect) -> &Arc<[u8]> {
        let publications = self.publications;
        self.encoded[dialect as usize].get_or_init(|| match publications {
            [one] => Arc::clone(dialect.encode(one)),
            many => {
                let frames = many.iter().map(|publication| dialect.encode(publication));
                let mut bytes = Vec::with_capacity(frames.clone().map(|frame| frame.len()).sum());
                frames.for_each(|frame| bytes.extend_from_slice(frame));
                bytes.into()
            }
        })
    }
}

/// Cuts publications into batches, each within [`BATCH_BYTES_MAX`] or of one publication.
fn batches(publications: &[Arc<Publication>]) -> impl Iterator<Item = &[Arc<Publication>]> {
    let mut rest = publications;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|publication| {
            bytes += publication.frame().len();
            bytes <= BATCH_BYTES_MAX
        });
        let count = fitting.count().max(1).min(rest.len());
        let (batch, tail) = rest.split_at(count);
        rest = tail;
        (!batch.is_empty()).then_some(batch)
    })
}

impl<T: Transport> Connections<T> {
    /// Writes the publications that this tick's effects brought, topic by topic. `now_us` gives the moment after the
    /// last write, on the clock of the publishes.
    pub fn deliver(&mut self, now_ms: u64, mut now_us: impl FnMut() -> u64) {
        let topics = self.application.topics.begin_delivery();
        for &topic in &topics {
            let (publications, subscribers) = self.application.topics.take_delivery(topic);
            for batch in batches(&publications) {
                self.deliver_batch(batch, &subscribers, now_ms);
            }
            let done_us = now_us();
            for publication in &publications {
                let took_us = done_us.saturating_sub(publication.published_at_us());
                self.metrics.publish_to_write.record_us(took_us);
            }
            self.application
                .topics
                .put_back(topic, publications, subscribers);
        }
        self.application.topics.end_delivery(topics);
        let mut touched = std::mem::take(&mut self.touched);
        for index in touched.drain(..) {
            self.settle(index, now_ms);
        }
        self.touched = touched;
    }

    fn deliver_batch(
        &mut self,
        publications: &[Arc<Publication>],
        subscribers: &[u32],
        now_ms: u64,
    ) {
        let batch = Batch::new(publications);
        let mut tally = Tally::default();
        match self.ring.take() {
            Some(mut ring) if subscribers.len() >= RING_SENDS_MIN => {
                for chunk in subscribers.chunks(SENDS_MAX) {
                    self.deliver_by_ring(&mut ring, &batch, chunk, now_ms, &mut tally);
                }
                self.ring = Some(ring).filter(|ring| !ring.is_broken());
            }
            ring => {
                self.ring = ring;
                for &index in subscribers {
                    self.deliver_one(&batch, index, now_ms, &mut tally);
                }
            }
        }
        self.metrics.deliveries.add(tally.deliveries);
        self.metrics.messages_sent.add(tally.messages);
        self.metrics.bytes_sent.add(tally.bytes);
    }

    /// Writes a batch to one subscriber, or queues it behind what waits there.
    fn deliver_one(&mut self, batch: &Batch<'_>, index: u32, now_ms: u64, tally: &mut Tally) {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        if !slot.connection.takes_deliveries() {
            return;
        }
        let dialect = slot.connection.dialect();
        let frames = batch.encoded(dialect);
        tally.count(batch, dialect);
        if slot.connection.outbox.is_empty() {
            match slot.transport.write(frames) {
                Ok(written) if written == frames.len() => {
                    tally.bytes += written as u64;
                    return;
                }
                outcome => tally.bytes += slot.queue_rest(outcome, frames, &self.settings, now_ms),
            }
        } else {
            slot.queue(frames, 0, &self.settings, now_ms);
        }
        self.touched.push(index);
    }

    /// Writes a batch to up to [`SENDS_MAX`] subscribers at once.
    fn deliver_by_ring(
        &mut self,
        ring: &mut Ring,
        batch: &Batch<'_>,
        subscribers: &[u32],
        now_ms: u64,
        tally: &mut Tally,
    ) {
        let (mut indexes, mut count) = ([0; SENDS_MAX], 0);
        for &index in subscribers {
            let Some(slot) = self.slots.get(index as usize) else {
                continue;
            };
            let is_direct = slot.connection.takes_deliveries()
                && slot.connection.outbox.is_empty()
                && slot.transport.descriptor().is_some();
            if is_direct {
                indexes[count] = index;
                count += 1;
            } else {
                self.deliver_one(batch, index, now_ms, tally);
            }
        }
        let indexes = &indexes[..count];
        let mut outcomes = [const { None }; SENDS_MAX];
        let outcomes = &mut outcomes[..count];
        let sends = indexes.iter().filter_map(|&index| {
            let slot = self.slots.get(index as usize)?;
            let frames = batch.encoded(slot.connection.dialect());
            Some((slot.transport.descriptor()?, &**frames))
        });
        ring.send(sends, outcomes);
        for (&index, outcome) in indexes.iter().zip(outcomes) {
            let Some(outcome) = outcome.take() else {
                self.deliver_one(batch, index, now_ms, tally);
                continue;
            };
            let Some(slot) = self.slots.get_mut(index as usize) else {
                continue;
            };
            let dialect = slot.connection.dialect();
            let frames = batch.encoded(dialect);
            tally.count(batch, dialect);
            match outcome {
                Ok(written) if written == frames.len() => tally.bytes += written as u64,
                outcome => {
                    tally.bytes += slot.queue_rest(outcome, frames, &self.settings, now_ms);
                    self.touched.push(index);
                }
            }
        }
    }
}

/// What a batch adds to the counters.
#[derive(Default)]
struct Tally {
    deliveries: u64,
    messages: u64,
    bytes: u64,
}

impl Tally {
    fn count(&mut self, batch: &Batch<'_>, dialect: Dialect) {
        let count = batch.publications.len() as u64;
        self.deliveries += count;
        self.messages += if dialect == Dialect::Raw { count } else { 0 };
    }
}

impl<T: Transport> Slot<T> {
    /// Deals with a write of `frames` that did not take all of them; gives the bytes that it took.
    #[cold]
    fn queue_rest(
        &mut self,
        outcome: io::Result<usize>,
        frames: &Arc<[u8]>,
        settings: &Settings,
        now_ms: u64,
    ) -> u64 {
        let written = match outcome {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_blocked = true;
                0
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => {
                self.connection.finish(CloseReason::Transport);
                return 0;
            }
        };
        self.queue(frames, written, settings, now_ms);
        written as u64
    }

    fn queue(&mut self, frames: &Arc<[u8]>, written: usize, settings: &Settings, now_ms: u64) {
        let segment = Segment::Shared(Arc::clone(frames));
        let bytes_max = settings.limits.outbox_bytes_max;
        if self
            .connection
            .outbox
            .push(segment, written, now_ms, bytes_max)
            .is_err()
        {
            self.connection
                .fail(settings, now_ms, CloseReason::SlowConsumerBytes);
        }
    }

    /// Writes `out` behind an empty outbox, or queues it behind a full one.
    pub(super) fn write_out(
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
                    self.is_blocked = true;
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
            if self
                .connection
                .outbox
                .push(rest, 0, now_ms, bytes_max)
                .is_err()
            {
                self.connection
                    .fail(settings, now_ms, CloseReason::SlowConsumerBytes);
            }
        }
        Ok(())
    }

    /// Writes the outbox until it is empty or the kernel takes no more; nothing while it has yet to announce room. A pong that waited for that is put in front
    /// of `out`.
    pub(super) fn write_outbox(
        &mut self,
        metrics: &ReactorMetrics,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        while !self.connection.outbox.is_empty() && !self.is_blocked {
            let mut pieces = [IoSlice::new(&[]); SEGMENTS_PER_WRITE];
            let count = self.connection.outbox.slices(&mut pieces);
            match self.transport.write_vectored(&pieces[..count]) {
                Ok(written) => {
                    metrics.bytes_sent.add(written as u64);
                    if let Some(ping) = self.connection.outbox.handle_written(written)
                        && !self.connection.is_closing()
                    {
                        let mut pong = Vec::with_capacity(ping.len() + 2);
                        encode_frame(&mut pong, Opcode::Pong, &ping, None);
                        out.splice(..0, pong);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_blocked = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Kind;

    fn publications(sizes: &[usize]) -> Vec<Arc<Publication>> {
        sizes
            .iter()
            .map(|&size| Arc::new(Publication::new(Kind::Binary, &vec![0; size], 0)))
            .collect()
    }

    #[test]
    fn batches_are_bounded_and_complete() {
        let all = publications(&[10, 40_000, 30_000, 100_000, 1, 2]);
        let sizes: Vec<usize> = batches(&all).map(<[_]>::len).collect();
        assert_eq!(sizes, [2, 1, 1, 2]);
        assert_eq!(batches(&[]).count(), 0);
    }

    #[test]
    fn a_batch_is_one_piece_for_each_dialect() {
        let all = publications(&[1, 2]);
        let batch = Batch::new(&all);
        assert_eq!(&**batch.encoded(Dialect::Raw), [0x82, 1, 0, 0x82, 2, 0, 0]);
        let single = publications(&[3]);
        let batch = Batch::new(&single);
        assert!(
            Arc::ptr_eq(batch.encoded(Dialect::Raw), single[0].frame()),
            "one publication is not copied"
        );
    }
}
