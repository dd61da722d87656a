//! What a subscriber gets that does not take publications as fast as they come: by the rule of their topic, all of it or
//! its Close; or less, and word of what is missing; or the newest.

use std::io;
use std::sync::Arc;

use super::batch::Batch;
use super::connections::Slot;
use super::outbound::Tally;
use super::transport::Transport;
use crate::connection::outbox::{Droppable, Dropped, OutboxFull};
use crate::connection::{CloseReason, Segment, Settings};
use crate::dialect::Form;
use crate::topic_rule::SlowConsumer;

/// A batch in the form that a subscriber takes.
#[derive(Clone, Copy)]
pub(super) struct Waiting<'a, 'b> {
    pub batch: &'a Batch<'b>,
    pub form: Form,
    /// The bytes of that form.
    pub frames: &'a Arc<[u8]>,
}

impl<T: Transport> Slot<T> {
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
                self.is_blocked = true;
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
        let bytes_max = settings.limits.outbox_bytes_max;
        let queued = match settings.topic_rules.is_empty() {
            true => {
                let segment = Segment::Shared(Arc::clone(waiting.frames));
                self.connection
                    .outbox
                    .push(segment, written, now_ms, bytes_max)
            }
            false => self.queue_each(waiting, written, settings, now_ms),
        };
        match queued {
            Ok(dropped) => {
                tally.dropped_oldest += dropped.oldest as u64;
                tally.replaced += dropped.replaced as u64;
            }
            Err(OutboxFull) => {
                tally.dropped += 1;
                self.connection
                    .fail(settings, now_ms, CloseReason::SlowConsumerBytes);
            }
        }
    }

    /// Queues the publications of a batch one by one where each may have to go by itself.
    fn queue_each(
        &mut self,
        waiting: Waiting<'_, '_>,
        written: usize,
        settings: &Settings,
        now_ms: u64,
    ) -> Result<Dropped, OutboxFull> {
        let Waiting {
            batch,
            form,
            frames,
        } = waiting;
        let (bytes_max, outbox) = (
            settings.limits.outbox_bytes_max,
            &mut self.connection.outbox,
        );
        let policies = batch.policies(&settings.topic_rules);
        let stay = policies.iter().all(|it| *it == SlowConsumer::Close);
        if stay || form == Form::Cohort {
            let segment = Segment::Shared(Arc::clone(frames));
            return outbox.push(segment, written, now_ms, bytes_max);
        }
        let (mut skip, mut dropped) = (written, Dropped::default());
        for (publication, &policy) in batch.publications().iter().zip(policies) {
            let frame = match batch.len() {
                1 => Arc::clone(frames),
                _ => batch.frame(publication, form),
            };
            if skip >= frame.len() {
                skip -= frame.len();
                continue;
            }
            let segment = Segment::Shared(frame);
            let pushed = match publication.topic() {
                Some(topic) => {
                    let droppable = Droppable {
                        topic: topic.clone(),
                        pattern: batch.pattern().cloned(),
                        position: publication.position(),
                        key: publication.key().cloned(),
                        policy,
                        encode_gap: form.gap_encoder(),
                    };
                    outbox.push_droppable(segment, skip, droppable, now_ms, bytes_max)
                }
                None => outbox.push(segment, skip, now_ms, bytes_max),
            }?;
            skip = 0;
            dropped.oldest += pushed.oldest;
            dropped.replaced += pushed.replaced;
        }
        Ok(dropped)
    }
}
