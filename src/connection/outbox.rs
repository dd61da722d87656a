//! The outbox: what the kernel did not take yet, bounded in bytes and in age.
//!
//! ```text
//!  segments: [ partly written | whole | whole | ... ]   each holds whole frames, shared or its own
//!              ^ written
//! ```
//!
//! An empty outbox is one null pointer. What of it may go before it is written is `droppable.rs`'s matter; an outbox that was
//! given nothing of that kind has nothing to do with it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

mod droppable;

pub use droppable::{DROPPABLE_OVERHEAD_BYTES, Droppable, Dropped};
use droppable::{Mark, Marks};

/// Cost of a segment beyond its bytes: a flood of tiny frames cannot hide from the limit.
pub const SEGMENT_OVERHEAD_BYTES: usize = 64;

/// Segments handed to the kernel in one call.
pub const SEGMENTS_PER_WRITE: usize = 64;

/// Bytes to be written, from one or more whole frames.
#[derive(Clone, Debug)]
pub enum Segment {
    /// Shared with other connections.
    Shared(Arc<[u8]>),
    /// For this connection alone.
    Own(Box<[u8]>),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Shared(bytes) => bytes,
            Segment::Own(bytes) => bytes,
        }
    }
}

/// The queue would exceed its limit, even after these drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxFull(pub Dropped);

#[derive(Debug)]
struct Queued {
    segment: Segment,
    queued_at_ms: u64,
}

#[derive(Debug, Default)]
struct Queue {
    segments: VecDeque<Queued>,
    /// Bytes of the front segment that are written.
    written: usize,
    /// Bytes before the front segment are written that belong to its first frame.
    is_begun: bool,
    /// Unwritten bytes and each segment's overhead.
    bytes: usize,
    /// The payload of the newest ping that has no pong yet (RFC 6455 section 5.5.3 lets older ones go unanswered).
    ping: Option<Box<[u8]>>,
    /// What the segments are, if one that may go was pushed since the outbox was empty.
    marks: Option<Box<Marks>>,
}

impl Queue {
    fn is_front_begun(&self) -> bool {
        self.written > 0 || self.is_begun
    }

    fn invariants(&self) {
        self.check_marks();
        let held: usize = (0..)
            .zip(&self.segments)
            .map(|(index, queued)| queued.segment.bytes().len() + self.overhead_bytes(index))
            .sum();
        assert_eq!(self.bytes, held - self.written);
        assert!(
            self.segments
                .front()
                .is_none_or(|front| self.written < front.segment.bytes().len())
        );
    }
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Option<Box<Queue>>,
}

impl Outbox {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_none()
    }

    /// Bytes held, each segment's overhead included.
    pub fn bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes)
    }

    /// The moment from which the age of the outbox counts: when the oldest segment was queued that may not go for its age.
    /// Where segments may go, it can be that from which on the kernel took nothing as well; then it may be earlier than it
    /// is, until [`expire_droppable`](Outbox::expire_droppable) is called.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.queue.as_ref()?.oldest_ms()
    }

    /// The moment from which the age counts of what [`expire_droppable`](Outbox::expire_droppable) looks at.
    pub fn oldest_droppable_ms(&self) -> Option<u64> {
        self.queue.as_ref()?.oldest_droppable_ms()
    }

    /// Drops the publications under [`SlowConsumer::DropOldest`](crate::topic::SlowConsumer::DropOldest) that have
    /// waited for `age_max_ms` and are not begun; gaps say which. To be called before
    /// [`oldest_ms`](Outbox::oldest_ms) is judged: a peer that takes nothing at all for that long again is too slow even so.
    pub fn expire_droppable(&mut self, now_ms: u64, age_max_ms: u64) -> Dropped {
        let Some(queue) = &mut self.queue else {
            return Dropped::default();
        };
        let oldest = queue.expire(now_ms, age_max_ms);
        queue.advance_marks();
        if cfg!(debug_assertions) {
            queue.invariants();
        }
        Dropped {
            oldest,
            replaced: 0,
        }
    }

    /// Drops publications whose time to live is over. They are those that may go and are not begun; gaps say which, where
    /// their rule has gaps. Gives the ping to answer if nothing waits any more.
    pub fn expire_ttl(&mut self, now_ms: u64) -> (Dropped, Option<Box<[u8]>>) {
        let Some(queue) = &mut self.queue else {
            return Default::default();
        };
        let dropped = queue.expire_ttl(now_ms);
        queue.advance_marks();
        if cfg!(debug_assertions) {
            queue.invariants();
        }
        let is_empty = queue.segments.is_empty();
        let ended = if is_empty { self.queue.take() } else { None };
        (dropped, ended.and_then(|queue| queue.ping))
    }

    /// Queues a segment whose first `written` bytes the kernel already took. If there is no room, publications that may
    /// go to make some do.
    ///
    /// # Errors
    /// When it would even then hold more than `bytes_max`; the segment is not queued. An empty outbox takes a segment of
    /// any size, for the kernel was offered it first.
    pub fn push(
        &mut self,
        segment: Segment,
        written: usize,
        now_ms: u64,
        bytes_max: usize,
    ) -> Result<Dropped, OutboxFull> {
        self.push_marked(segment, None, written, now_ms, bytes_max)
    }

    /// Queues the frame of one publication, as [`push`](Outbox::push) does, that may be dropped from then on as
    /// `droppable` says.
    ///
    /// # Errors
    /// As [`push`](Outbox::push).
    pub fn push_droppable(
        &mut self,
        segment: Segment,
        written: usize,
        droppable: Droppable,
        now_ms: u64,
        bytes_max: usize,
    ) -> Result<Dropped, OutboxFull> {
        self.push_marked(segment, Mark::of(droppable), written, now_ms, bytes_max)
    }

    fn push_marked(
        &mut self,
        segment: Segment,
        mark: Option<Mark>,
        written: usize,
        now_ms: u64,
        bytes_max: usize,
    ) -> Result<Dropped, OutboxFull> {
        let len = segment.bytes().len();
        debug_assert!(
            written == 0 || self.is_empty(),
            "only the first segment can be partly written"
        );
        let mut dropped = Dropped::default();
        if written >= len {
            return Ok(dropped);
        }
        let overhead_bytes = mark
            .as_ref()
            .map_or(SEGMENT_OVERHEAD_BYTES, Mark::overhead_bytes);
        let cost = len - written + overhead_bytes;
        let queue = self.queue.get_or_insert_default();
        if let Some(mark) = &mark {
            dropped.replaced = usize::from(queue.drop_replaced(mark, now_ms));
        }
        if !queue.segments.is_empty() && queue.bytes + cost > bytes_max {
            dropped.oldest = queue.make_room(cost, bytes_max, now_ms);
            if queue.bytes + cost > bytes_max {
                return Err(OutboxFull(dropped));
            }
        }
        if queue.segments.is_empty() {
            queue.written = written;
        }
        queue.bytes += cost;
        queue.push_mark(&segment, mark);
        queue.segments.push_back(Queued {
            segment,
            queued_at_ms: now_ms,
        });
        queue.advance_marks();
        if cfg!(debug_assertions) {
            queue.invariants();
        }
        Ok(dropped)
    }

    /// Queues the rest of bytes that the kernel began to take. The outbox must be empty.
    pub fn push_begun(&mut self, segment: Segment, now_ms: u64) {
        debug_assert!(self.is_empty(), "only the first segment can be begun");
        // An empty outbox takes a segment of any size.
        let pushed = self.push(segment, 0, now_ms, usize::MAX);
        debug_assert!(pushed.is_ok());
        if let Some(queue) = &mut self.queue {
            queue.is_begun = true;
        }
    }

    /// Remembers a ping that arrived while something waits; an older one is forgotten. The outbox must not be empty:
    /// an empty one lets the pong be written at once.
    pub fn set_ping(&mut self, payload: &[u8]) {
        if let Some(queue) = &mut self.queue {
            queue.ping = Some(payload.into());
        }
    }

    /// The slices to write next.
    pub fn slices<'a>(&'a mut self, storage: &mut [IoSlice<'a>; SEGMENTS_PER_WRITE]) -> usize {
        let Some(queue) = &mut self.queue else {
            return 0;
        };
        queue.encode_stale(SEGMENTS_PER_WRITE);
        let mut count = 0;
        let held = queue
            .segments
            .iter()
            .filter(|queued| !queued.segment.bytes().is_empty());
        for (slot, queued) in storage.iter_mut().zip(held) {
            let skip = if count == 0 { queue.written } else { 0 };
            *slot = IoSlice::new(&queued.segment.bytes()[skip..]);
            count += 1;
        }
        count
    }

    /// The kernel took `written` bytes of the slices. Gives the ping to answer once everything is written.
    pub fn handle_written(&mut self, mut written: usize) -> Option<Box<[u8]>> {
        let queue = self.queue.as_mut()?;
        if written > 0 {
            queue.handle_progress();
        }
        while let Some(front) = queue.segments.front() {
            let left = front.segment.bytes().len() - queue.written;
            if written < left {
                queue.written += written;
                queue.bytes -= written;
                break;
            }
            written -= left;
            queue.bytes -= left + queue.overhead_bytes(0);
            queue.written = 0;
            queue.is_begun = false;
            queue.pop_front();
        }
        queue.advance_marks();
        if cfg!(debug_assertions) {
            queue.invariants();
        }
        if queue.segments.is_empty() {
            self.queue.take().and_then(|queue| queue.ping)
        } else {
            None
        }
    }

    /// Forgets all that was not begun: what stays is the front segment if part of it is written, for a frame that was
    /// begun must be finished.
    pub fn drop_unbegun(&mut self) {
        let Some(queue) = &mut self.queue else { return };
        queue.segments.truncate(usize::from(queue.is_front_begun()));
        queue.marks = None;
        queue.ping = None;
        match queue.segments.front() {
            Some(front) => {
                queue.bytes = front.segment.bytes().len() + SEGMENT_OVERHEAD_BYTES - queue.written;
            }
            None => self.queue = None,
        }
    }

    /// Counts the age of what is queued from now on.
    pub fn restart_age(&mut self, now_ms: u64) {
        let Some(queue) = &mut self.queue else { return };
        for queued in &mut queue.segments {
            queued.queued_at_ms = now_ms;
        }
        queue.restart_marks();
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.queue = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(bytes: &[u8]) -> Segment {
        Segment::Own(bytes.into())
    }

    fn contents(outbox: &mut Outbox) -> Vec<u8> {
        let mut storage = [IoSlice::new(&[]); SEGMENTS_PER_WRITE];
        let count = outbox.slices(&mut storage);
        storage[..count]
            .iter()
            .flat_map(|piece| piece.to_vec())
            .collect()
    }

    #[test]
    fn partial_writes_move_through_segments() {
        let mut outbox = Outbox::default();
        outbox.push(own(b"abcd"), 1, 5, 1000).expect("room");
        outbox
            .push(Segment::Shared(Arc::from(*b"efg")), 0, 6, 1000)
            .expect("room");
        assert_eq!(contents(&mut outbox), b"bcdefg");
        assert_eq!(outbox.oldest_ms(), Some(5));
        outbox.handle_written(4);
        assert_eq!(contents(&mut outbox), b"fg");
        assert_eq!(outbox.oldest_ms(), Some(6));
        outbox.handle_written(2);
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn the_limit_counts_overhead_and_spares_the_first_segment() {
        let mut outbox = Outbox::default();
        outbox
            .push(own(&[0; 500]), 0, 0, 100)
            .expect("the first one always fits");
        assert_eq!(
            outbox.push(own(b"x"), 0, 0, 100),
            Err(OutboxFull(Dropped::default()))
        );
        let mut outbox = Outbox::default();
        let tiny = (0..)
            .take_while(|_| outbox.push(own(b"x"), 0, 0, 6500).is_ok())
            .count();
        assert_eq!(tiny, 100);
    }

    #[test]
    fn a_begun_segment_survives_and_the_rest_goes() {
        let mut outbox = Outbox::default();
        outbox.push(own(b"abcd"), 1, 0, 1000).expect("room");
        outbox.push(own(b"efgh"), 0, 0, 1000).expect("room");
        outbox.drop_unbegun();
        assert_eq!(contents(&mut outbox), b"bcd");
        outbox.handle_written(3);
        assert!(outbox.is_empty());
        outbox.push(own(b"efgh"), 0, 0, 1000).expect("room");
        outbox.drop_unbegun();
        assert!(outbox.is_empty());
    }

    #[test]
    fn the_rest_of_what_was_begun_elsewhere_survives_too() {
        let mut outbox = Outbox::default();
        outbox.push_begun(own(b"bcd"), 0);
        outbox.push(own(b"efgh"), 0, 0, 1000).expect("room");
        outbox.drop_unbegun();
        assert_eq!(contents(&mut outbox), b"bcd");
        outbox.push(own(b"ij"), 0, 0, 1000).expect("room");
        outbox.handle_written(3);
        outbox.drop_unbegun();
        assert!(outbox.is_empty());
    }

    #[test]
    fn only_the_newest_ping_is_kept() {
        let mut outbox = Outbox::default();
        outbox.push(own(b"ab"), 0, 0, 1000).expect("room");
        outbox.set_ping(b"1");
        outbox.set_ping(b"2");
        assert_eq!(outbox.handle_written(1), None);
        assert_eq!(outbox.handle_written(1).as_deref(), Some(&b"2"[..]));
    }
}
