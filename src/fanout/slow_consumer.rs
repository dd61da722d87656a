//! Treatment of slow subscribers: by the rule of their topic, all of it or their Close; or less, and word of what is
//! missing; or the newest.

use std::sync::Arc;

use super::batch::Batch;
use crate::connection::outbox::{Droppable, Dropped, OutboxFull};
use crate::connection::{Outbox, Segment, Settings};
use crate::dialect::{Class, Form, Gaps};
use crate::topic::SlowConsumer;

/// A batch in the form that a subscriber takes.
#[derive(Clone, Copy)]
pub struct Waiting<'a, 'b> {
    /// The batch.
    pub batch: &'a Batch<'b>,
    /// The form.
    pub form: Form,
    /// The bytes of that form.
    pub frames: &'a Arc<[u8]>,
}

/// Queues what a write did not take of a batch: all but the first `written` bytes.
///
/// # Errors
/// The outbox is full, and the rule of a topic is to close its connection for that. Others may have gone before.
pub fn queue(
    outbox: &mut Outbox,
    waiting: Waiting<'_, '_>,
    written: usize,
    settings: &Settings,
    now_ms: u64,
) -> Result<Dropped, OutboxFull> {
    if !settings.topic_rules.is_empty() {
        return queue_each(outbox, waiting, written, settings, now_ms);
    }
    let segment = Segment::Shared(Arc::clone(waiting.frames));
    outbox.push(segment, written, now_ms, settings.limits.outbox_bytes_max)
}

/// Queues the publications of a batch one by one where each may have to go by itself.
fn queue_each(
    outbox: &mut Outbox,
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
    let bytes_max = settings.limits.outbox_bytes_max;
    let policies = batch.policies(&settings.topic_rules);
    let encode_gap = match settings.dialects.get(form.encoding()).gaps() {
        Gaps::Shown(encode_gap) => Ok(Some(encode_gap)),
        Gaps::Unseen => Ok(None),
        Gaps::Fatal => Err(()),
    };
    let stay = policies.iter().all(|it| *it == SlowConsumer::Close);
    let (false, false, Ok(encode_gap)) = (stay, form.class() == Class::Cohort, encode_gap) else {
        let segment = Segment::Shared(Arc::clone(frames));
        return outbox.push(segment, written, now_ms, bytes_max);
    };
    let (mut skip, mut dropped) = (written, Dropped::default());
    for (publication, &policy) in batch.publications().iter().zip(policies) {
        let frame = match batch.len() {
            1 => Arc::clone(frames),
            _ => batch.frame(publication, form, &settings.dialects),
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
                    expires_ms: publication.expires_at_us().map(|end_us| end_us / 1000),
                    policy,
                    encode_gap,
                };
                outbox.push_droppable(segment, skip, droppable, now_ms, bytes_max)
            }
            None => outbox.push(segment, skip, now_ms, bytes_max),
        };
        skip = 0;
        match pushed {
            Ok(went) => dropped.add(went),
            Err(OutboxFull(went)) => {
                dropped.add(went);
                return Err(OutboxFull(dropped));
            }
        }
    }
    Ok(dropped)
}
