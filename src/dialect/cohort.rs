//! A cohort: the connections of one topic, on one reactor, that share one deflate context (RFC 7692, section 7.1.1).
//!
//! A compressed frame may refer back to the text of earlier ones as far as the window reaches, 32 KiB. The window is of
//! the text, not of the frames: whoever has got the same text in compressed frames has the same window, whether these
//! referred to each other or not (section 7.2.3.2 shows such a window). Frames that are not compressed leave no trace in
//! it, for only compressed messages are inflated (sections 6.2 and 7.2.2). So one [`TakeoverDeflater`] is enough
//! for all connections that have got each message of the topic compressed, from a certain point on:
//!
//! ```text
//!                 start        horizon                    position
//!   the stream:     ├────────────┼───────── 32 KiB ──────────┤ next frame
//!   A, in step:   joined ────────┼───────────────────────────┤ has all that the next frame can refer to
//!   B, not yet:                       joined ────────────────┤ has not: gets frames that refer to nothing
//! ```
//!
//! The horizon follows the position at the distance of a window, so B gets in step by waiting: after 32 KiB at the
//! latest. Where that would take long the horizon jumps: the context is forgotten, at the price of one worse frame for
//! all, and everybody is in step. That is a reset point; one comes once somebody has waited for
//! `deflate_reset_interval_ms`, and when nobody is in step.
//!
//! What a connection knows of all this is one number, its [`Place`]: the position from which on it has got everything.
//! Nobody has to be told when a cohort ends, for positions are never used again: those of a later one of the same topic
//! begin behind them. A connection that loses a frame is closed by that, so there is no way to fall out of step but the
//! end of the cohort.

use std::collections::HashMap;
use std::sync::Arc;

use super::deflated::{FrameBuffer, Rule};
use super::form::{Heat, Place};
use crate::hub::Publication;
use crate::protocol::deflate::{Compression, TakeoverDeflater, WINDOW_BITS_MAX};

/// The text that a frame may refer back to.
const WINDOW_BYTES: u64 = 1 << WINDOW_BITS_MAX;

/// What a cohort sends is compressed once for many, so it is compressed well.
const LEVEL_MIN: u8 = 6;

/// Messages are small beside the block that this is the room for, and the memory is held.
const MEM_LEVEL: u8 = 5;

/// A cohort that has not been used for so long is freed.
const UNUSED_MS_MAX: u64 = 60_000;

/// The compressor of a cohort. `level`: that of frames that refer to nothing.
fn compression(level: u8) -> Compression {
    Compression {
        level: level.max(LEVEL_MIN),
        window_bits: WINDOW_BITS_MAX,
        mem_level: MEM_LEVEL,
    }
}

/// The shared context.
pub struct Cohort {
    deflater: TakeoverDeflater,
    /// The position at which it began.
    start: u64,
    /// Bytes of text that were compressed, counted on from `start`.
    position: u64,
    /// The position of the last reset point.
    reset_at: u64,
    /// Somebody was in step with the last batch.
    has_members: bool,
    /// Since when somebody has been out of step.
    awaited_from_ms: Option<u64>,
    resets: u64,
}

/// What one batch is to the connections: who may get what the cohort made of it.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    start: u64,
    horizon: u64,
    before: u64,
    after: u64,
    /// It refers to nothing before it.
    is_fresh: bool,
}

impl Stretch {
    /// Whether the connection gets the cohort's frames of this batch. If not, it is to get frames that refer to nothing,
    /// and [`follow`](Stretch::follow).
    pub fn admits(&self, place: &mut Place) -> bool {
        if place.0.wrapping_sub(self.start) <= self.horizon - self.start {
            return true;
        }
        if self.is_fresh {
            *place = Place(self.before);
        }
        self.is_fresh
    }

    /// A connection that was not admitted gets the batch in frames that refer to nothing. `has_gap`: one of them goes out
    /// plain though it was to be compressed, for it does not shrink by itself.
    pub fn follow(&self, place: &mut Place, has_gap: bool) {
        if has_gap {
            *place = Place(self.after);
        } else if place.0.wrapping_sub(self.start) > self.before - self.start {
            *place = Place(self.before);
        }
    }
}

impl Cohort {
    /// One without members.
    fn new(level: u8, start: u64) -> Cohort {
        Cohort {
            deflater: TakeoverDeflater::new(compression(level)),
            start,
            position: start,
            reset_at: start,
            has_members: false,
            awaited_from_ms: None,
            resets: 0,
        }
    }

    /// Appends the frames of a batch that holds something to compress. What comes out is for all that the stretch
    /// [admits](Stretch::admits), and must reach each of them, or it must be closed.
    pub fn encode(
        &mut self,
        publications: &[Arc<Publication>],
        rule: &Rule,
        reset_interval_ms: u64,
        now_ms: u64,
        frames: &mut Vec<u8>,
    ) -> Stretch {
        let is_awaited_long = self
            .awaited_from_ms
            .is_some_and(|from_ms| now_ms.saturating_sub(from_ms) >= reset_interval_ms);
        if !self.has_members || is_awaited_long {
            self.reset();
            self.awaited_from_ms = None;
        }
        let (before, is_fresh) = (self.position, self.deflater.is_fresh());
        let window_from = self.position.saturating_sub(WINDOW_BYTES);
        let horizon = self.reset_at.max(window_from);
        let mut buffer = FrameBuffer::default();
        for publication in publications {
            let frame = match rule.takes(publication) {
                true => self.encode_one(publication, &mut buffer),
                false => None,
            };
            frames.extend_from_slice(frame.unwrap_or(publication.frame()));
        }
        Stretch {
            start: self.start,
            horizon,
            before,
            after: self.position,
            is_fresh,
        }
    }

    /// None: it does not shrink, and goes out plain.
    fn encode_one<'b>(
        &mut self,
        publication: &Publication,
        buffer: &'b mut FrameBuffer,
    ) -> Option<&'b [u8]> {
        let payload = publication.payload();
        let deflater = &mut self.deflater;
        let frame = buffer.encode(publication.kind(), |out| {
            Some(deflater.deflate(payload, out)).filter(|len| *len < payload.len())
        });
        match frame {
            Some(_) => self.position += payload.len() as u64,
            // The context holds it, and nobody's window will.
            None => self.reset(),
        }
        frame
    }

    /// Makes a reset point of this position.
    fn reset(&mut self) {
        if !self.deflater.is_fresh() {
            self.deflater.forget();
            self.resets += 1;
        }
        self.reset_at = self.position;
    }

    /// How many connections got the last batch's frames, and how many were not admitted.
    pub fn finish(&mut self, members: u64, waiters: u64, now_ms: u64) {
        self.has_members = members > 0;
        self.awaited_from_ms = match waiters {
            0 => None,
            _ => self.awaited_from_ms.or(Some(now_ms)),
        };
    }
}

struct Entry {
    cohort: Cohort,
    heat: Heat,
    used_ms: u64,
}

/// The cohorts of a reactor: those of its hottest topics, for each costs the memory of a compressor.
pub struct Cohorts {
    by_topic: HashMap<u32, Entry>,
    count_max: usize,
    reset_interval_ms: u64,
    rule: Rule,
    /// Every position that a place may hold lies below.
    next_start: u64,
    next_expiry_ms: u64,
    resets: u64,
}

impl Cohorts {
    /// None yet, and at most `count_max`.
    pub fn new(rule: Rule, count_max: usize, reset_interval_ms: u64) -> Cohorts {
        Cohorts {
            by_topic: HashMap::new(),
            count_max,
            reset_interval_ms,
            rule,
            next_start: 0,
            next_expiry_ms: 0,
            resets: 0,
        }
    }

    /// Lets the topic's cohort encode a batch, if it has one, or is hot enough to get one: had a compressed delivery of
    /// late, and more of them than the topic whose cohort has to go for it. `audience` is how many connections could be
    /// members.
    pub fn encode(
        &mut self,
        topic: u32,
        heat: &mut Heat,
        audience: u32,
        publications: &[Arc<Publication>],
        now_ms: u64,
    ) -> Option<(Stretch, Arc<[u8]>)> {
        let before = heat.add(audience, now_ms);
        if !self.by_topic.contains_key(&topic) {
            if before == 0 || !self.make_room(before, now_ms) {
                return None;
            }
            let cohort = Cohort::new(self.rule.level, self.next_start);
            let (heat, used_ms) = (*heat, now_ms);
            self.by_topic.insert(
                topic,
                Entry {
                    cohort,
                    heat,
                    used_ms,
                },
            );
        }
        let entry = self.by_topic.get_mut(&topic)?;
        (entry.heat, entry.used_ms) = (*heat, now_ms);
        let resets = entry.cohort.resets;
        let mut frames = Vec::new();
        let stretch = entry.cohort.encode(
            publications,
            &self.rule,
            self.reset_interval_ms,
            now_ms,
            &mut frames,
        );
        self.resets += entry.cohort.resets - resets;
        Some((stretch, frames.into()))
    }

    /// The batch that was encoded last for the topic has been delivered.
    pub fn finish(&mut self, topic: u32, members: u64, waiters: u64, now_ms: u64) {
        if let Some(entry) = self.by_topic.get_mut(&topic) {
            entry.cohort.finish(members, waiters, now_ms);
        }
    }

    /// Whether there is room for one more, after the coldest has gone if it is less than half as hot.
    fn make_room(&mut self, heat: u32, now_ms: u64) -> bool {
        if self.by_topic.len() < self.count_max {
            return true;
        }
        let heats = self
            .by_topic
            .iter()
            .map(|(topic, entry)| (entry.heat.get(now_ms), *topic));
        match heats.min() {
            Some((coldest, topic)) if coldest < heat / 2 => {
                self.remove(topic);
                true
            }
            _ => false,
        }
    }

    /// Frees the topic's cohort, if it has one.
    pub fn remove(&mut self, topic: u32) {
        if let Some(entry) = self.by_topic.remove(&topic) {
            self.next_start = self.next_start.max(entry.cohort.position + 1);
        }
    }

    /// Frees those that have not been used for long; true if there were such.
    pub fn expire(&mut self, now_ms: u64) -> bool {
        if now_ms < self.next_expiry_ms {
            return false;
        }
        self.next_expiry_ms = now_ms + UNUSED_MS_MAX / 8;
        let (count, next_start) = (self.by_topic.len(), &mut self.next_start);
        self.by_topic.retain(|_, entry| {
            let is_used = now_ms.saturating_sub(entry.used_ms) < UNUSED_MS_MAX;
            if !is_used {
                *next_start = (*next_start).max(entry.cohort.position + 1);
            }
            is_used
        });
        self.by_topic.len() < count
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// Heap bytes of their compressors.
    pub fn bytes(&self) -> usize {
        self.by_topic.len() * compression(self.rule.level).bytes()
    }

    /// Reset points at which a context was forgotten.
    pub fn resets(&self) -> u64 {
        self.resets
    }
}
