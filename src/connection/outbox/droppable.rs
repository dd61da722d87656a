//! Droppable parts of an outbox: publications of topics whose slow consumers are not closed.
//!
//! ```text
//!  segments: [ begun | gap | - | plain | oldest | latest | - | latest ]
//!  marks:    [  ...  one for each, while one of them may go  ...      ]
//! ```
//!
//! Under [`SlowConsumer::DropOldest`] the oldest publications go when there is no room, and one segment stands in the place of
//! the first of a topic's to say which: the gap. Under [`SlowConsumer::Latest`] a publication goes when a newer one of its
//! topic and key comes. What the kernel has begun stays. A segment that went leaves an empty one, so that the others keep
//! their numbers; once these are a quarter, all are numbered anew.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{Queue, Queued, SEGMENT_OVERHEAD_BYTES, Segment};
use crate::dialect::GapEncoder;
use crate::hub::Position;
use crate::topic::Pattern;
use crate::topic::SlowConsumer;
use crate::topic::Topic;

/// Extra cost of a droppable segment, or of a gap.
pub const DROPPABLE_OVERHEAD_BYTES: usize = 128;

/// Empty segments that are let stand however few the others are.
const EMPTY_KEPT: usize = 16;

/// A droppable segment's content: exactly one publication.
#[derive(Clone, Debug)]
pub struct Droppable {
    /// Its topic.
    pub topic: Topic,
    /// Pattern of its subscription, if it has one.
    pub pattern: Option<Pattern>,
    /// Its place in its topic.
    pub position: Position,
    /// Conflation key under [`SlowConsumer::Latest`]; None is a key as well.
    pub key: Option<Arc<str>>,
    /// End of its time to live, in milliseconds.
    pub expires_ms: Option<u64>,
    /// Rule by which it is dropped.
    pub policy: SlowConsumer,
    /// Encoder of a gap marker in its dialect. None: it cannot, so that [`SlowConsumer::DropOldest`] is
    /// [`SlowConsumer::Close`].
    pub encode_gap: Option<GapEncoder>,
}

// Its cost is counted.
const _: () = assert!(size_of::<Droppable>() <= DROPPABLE_OVERHEAD_BYTES);

/// Numbers of dropped publications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Under [`SlowConsumer::DropOldest`]; gaps say which.
    pub oldest: usize,
    /// Under [`SlowConsumer::Latest`], for a newer one or for their time to live.
    pub replaced: usize,
}

impl Dropped {
    /// Takes others in.
    pub fn add(&mut self, others: Dropped) {
        self.oldest += others.oldest;
        self.replaced += others.replaced;
    }
}

/// What a segment is to the rules above.
#[derive(Debug)]
pub(super) enum Mark {
    /// It stays. It is another topic's or no publication at all.
    Shared,
    /// It stays, and may be an answer that changes what the connection subscribes to. No gap reaches over it.
    Own,
    DropOldest(Box<Droppable>, GapEncoder),
    Latest(Box<Droppable>),
    Gap(Box<Gap>),
    /// What stood here went.
    Empty,
}

/// The publications of one subscription, and of them those with one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Flow {
    topic: Topic,
    pattern: Option<Pattern>,
    key: Option<Arc<str>>,
}

impl Flow {
    fn of(droppable: &Droppable, key: Option<Arc<str>>) -> Flow {
        Flow {
            topic: droppable.topic.clone(),
            pattern: droppable.pattern.clone(),
            key,
        }
    }
}

#[derive(Debug)]
pub(super) struct Gap {
    flow: Flow,
    from: Position,
    to: Position,
    encode: GapEncoder,
    /// Bytes of the longest frame that it may have. As much is counted of it whatever it has, for it becomes longer with
    /// every publication that goes, and its frame is made when it is to be written.
    frame_bytes_max: usize,
    /// Bytes of the frame that it has.
    frame_bytes: usize,
    /// It has become longer than its frame says.
    is_stale: bool,
}

impl Gap {
    /// Gap of one publication.
    fn new(droppable: &Droppable, encode: GapEncoder) -> Gap {
        let mut gap = Gap {
            flow: Flow::of(droppable, None),
            from: droppable.position,
            to: Position {
                offset: u64::MAX,
                ..droppable.position
            },
            encode,
            frame_bytes_max: 0,
            frame_bytes: 0,
            is_stale: false,
        };
        gap.frame_bytes_max = gap.frame().len();
        gap.to = droppable.position;
        gap
    }

    /// The frame, which says what it is now.
    fn frame(&mut self) -> Box<[u8]> {
        let Flow { topic, pattern, .. } = &self.flow;
        let frame = (self.encode)(topic, pattern.as_ref(), self.from, self.to);
        debug_assert!(!frame.is_empty(), "an empty segment is one that went");
        (self.frame_bytes, self.is_stale) = (frame.len(), false);
        frame
    }
}

impl Mark {
    /// That of a segment that may go; None if it may not after all.
    pub(super) fn of(droppable: Droppable) -> Option<Mark> {
        match (droppable.policy, droppable.encode_gap) {
            (SlowConsumer::Latest, _) => Some(Mark::Latest(Box::new(droppable))),
            (SlowConsumer::DropOldest, Some(encode)) => {
                Some(Mark::DropOldest(Box::new(droppable), encode))
            }
            (SlowConsumer::DropOldest, None) | (SlowConsumer::Close, _) => None,
        }
    }

    fn staying(segment: &Segment) -> Mark {
        match segment {
            Segment::Shared(_) => Mark::Shared,
            Segment::Own(_) => Mark::Own,
        }
    }

    /// End of the time to live of the publication that it is.
    fn expires_ms(&self) -> Option<u64> {
        match self {
            Mark::DropOldest(droppable, _) | Mark::Latest(droppable) => droppable.expires_ms,
            _ => None,
        }
    }

    pub(super) fn overhead_bytes(&self) -> usize {
        match self {
            Mark::Shared | Mark::Own => SEGMENT_OVERHEAD_BYTES,
            Mark::DropOldest(..) | Mark::Latest(_) => {
                SEGMENT_OVERHEAD_BYTES + DROPPABLE_OVERHEAD_BYTES
            }
            Mark::Gap(gap) => {
                let frame_bytes_more = gap.frame_bytes_max - gap.frame_bytes;
                SEGMENT_OVERHEAD_BYTES + DROPPABLE_OVERHEAD_BYTES + frame_bytes_more
            }
            Mark::Empty => 0,
        }
    }
}

/// The marks of an outbox, one for each segment, by numbers that count up from the first.
#[derive(Debug)]
pub(super) struct Marks {
    marks: VecDeque<Mark>,
    /// The number of the front segment. It is never 0.
    first: u64,
    /// The newest segment of each flow under `Latest`.
    latest: HashMap<Flow, u64>,
    /// The newest gap of each flow.
    gaps: HashMap<Flow, u64>,
    /// No segment before this one is under `DropOldest`, but for a front one that is begun.
    oldest: u64,
    /// The last segment before `oldest` that is the connection's own; 0: there is none.
    barrier: u64,
    /// No segment before this one counts for the age of the outbox.
    counted: u64,
    /// Segments that are empty.
    empty: usize,
    /// The moment at which the first time to live among them is over, or earlier.
    ttl_ms: u64,
    /// Since when the kernel took nothing, as far as was looked. None: nobody had to look yet.
    stalled_ms: Option<u64>,
    /// The kernel took something since.
    has_progressed: bool,
}

impl Marks {
    fn new(segments: &VecDeque<Queued>) -> Marks {
        Marks {
            marks: segments
                .iter()
                .map(|queued| Mark::staying(&queued.segment))
                .collect(),
            first: 1,
            latest: HashMap::new(),
            gaps: HashMap::new(),
            oldest: 1,
            barrier: 0,
            counted: 1,
            empty: 0,
            ttl_ms: u64::MAX,
            stalled_ms: None,
            has_progressed: false,
        }
    }

    fn index(&self, number: u64) -> usize {
        (number - self.first) as usize
    }

    fn push(&mut self, mark: Mark) {
        let number = self.first + self.marks.len() as u64;
        self.ttl_ms = self.ttl_ms.min(mark.expires_ms().unwrap_or(u64::MAX));
        match &mark {
            Mark::Latest(latest) => {
                let flow = Flow::of(latest, latest.key.clone());
                self.latest.insert(flow, number);
            }
            Mark::Gap(gap) => {
                self.gaps.insert(gap.flow.clone(), number);
            }
            _ => {}
        }
        self.marks.push_back(mark);
    }

    fn pop_front(&mut self) {
        let (number, mark) = (self.first, self.marks.pop_front());
        self.first += 1;
        match mark {
            Some(Mark::Latest(latest)) => {
                let flow = Flow::of(&latest, latest.key.clone());
                if self.latest.get(&flow) == Some(&number) {
                    self.latest.remove(&flow);
                }
            }
            Some(Mark::Gap(gap)) if self.gaps.get(&gap.flow) == Some(&number) => {
                self.gaps.remove(&gap.flow);
            }
            Some(Mark::Empty) => self.empty -= 1,
            _ => {}
        }
    }

    /// Moves on what stands before the first of its kind.
    fn advance(&mut self, is_begun: bool) {
        self.oldest = self.oldest.max(self.first);
        while let Some(mark) = self.marks.get(self.index(self.oldest)) {
            match mark {
                Mark::DropOldest(..) if !(is_begun && self.oldest == self.first) => break,
                Mark::Own => self.barrier = self.oldest,
                _ => {}
            }
            self.oldest += 1;
        }
        self.counted = self.counted.max(self.first);
        while let Some(Mark::DropOldest(..) | Mark::Gap(_) | Mark::Empty) =
            self.marks.get(self.index(self.counted))
        {
            self.counted += 1;
        }
    }

    /// Looks whether the kernel takes anything.
    fn watch(&mut self, now_ms: u64) {
        if std::mem::take(&mut self.has_progressed) || self.stalled_ms.is_none() {
            self.stalled_ms = Some(now_ms);
        }
    }

    /// The unbegun gap that a publication makes longer by one: it ends right before it, and no answer stands between.
    fn gap_before(&mut self, droppable: &Droppable, is_begun: bool) -> Option<&mut Gap> {
        let number = *self.gaps.get(&Flow::of(droppable, None))?;
        let is_unbegun = !(is_begun && number == self.first);
        let index = self.index(number);
        let Some(Mark::Gap(gap)) = self.marks.get_mut(index) else {
            return None;
        };
        let next = Position {
            offset: gap.to.offset.wrapping_add(1),
            ..gap.to
        };
        let is_next = droppable.position == next && number > self.barrier;
        (is_unbegun && is_next).then_some(gap)
    }
}

impl Queue {
    pub(super) fn overhead_bytes(&self, index: usize) -> usize {
        match &self.marks {
            Some(marks) => marks.marks[index].overhead_bytes(),
            None => SEGMENT_OVERHEAD_BYTES,
        }
    }

    /// Remembers what a segment is that is about to be pushed.
    pub(super) fn push_mark(&mut self, segment: &Segment, mark: Option<Mark>) {
        match (&mut self.marks, mark) {
            (None, None) => {}
            (Some(marks), mark) => marks.push(mark.unwrap_or_else(|| Mark::staying(segment))),
            (marks @ None, Some(mark)) => marks
                .insert(Box::new(Marks::new(&self.segments)))
                .push(mark),
        }
    }

    /// Takes the front segment out, and the empty ones behind it.
    pub(super) fn pop_front(&mut self) {
        loop {
            self.segments.pop_front();
            if let Some(marks) = &mut self.marks {
                marks.pop_front();
            }
            let is_empty = |front: &Queued| front.segment.bytes().is_empty();
            if !self.segments.front().is_some_and(is_empty) {
                break;
            }
        }
    }

    /// To be called when segments have come or gone, or the front one was begun.
    pub(super) fn advance_marks(&mut self) {
        let is_begun = self.is_front_begun();
        if let Some(marks) = &mut self.marks {
            marks.advance(is_begun);
        }
    }

    pub(super) fn handle_progress(&mut self) {
        if let Some(marks) = &mut self.marks {
            marks.has_progressed = true;
        }
    }

    /// Drops the publication that a newer one takes the place of. True if there was one that was not begun.
    pub(super) fn drop_replaced(&mut self, newer: &Mark, now_ms: u64) -> bool {
        let is_begun = self.is_front_begun();
        let (Some(marks), Mark::Latest(newer)) = (&mut self.marks, newer) else {
            return false;
        };
        let flow = Flow::of(newer, newer.key.clone());
        let Some(number) = marks.latest.remove(&flow) else {
            return false;
        };
        if is_begun && number == marks.first {
            return false;
        }
        let index = marks.index(number);
        marks.watch(now_ms);
        self.take_out(index);
        if index == 0 {
            self.pop_front();
        }
        self.renumber_if_sparse();
        true
    }

    /// Leaves an empty segment in the place of one.
    fn take_out(&mut self, index: usize) {
        let Some(marks) = &mut self.marks else { return };
        let mark = std::mem::replace(&mut marks.marks[index], Mark::Empty);
        marks.empty += 1;
        let segment = std::mem::replace(
            &mut self.segments[index].segment,
            Segment::Own(Box::default()),
        );
        self.bytes -= segment.bytes().len() + mark.overhead_bytes();
    }

    /// Drops the oldest publications that may go until there is room for `cost` more bytes, or none are left. Gives how
    /// many went.
    pub(super) fn make_room(&mut self, cost: usize, bytes_max: usize, now_ms: u64) -> usize {
        self.drop_while(now_ms, |queue, _| queue.bytes + cost > bytes_max)
    }

    /// Drops those that may go and have waited for too long; gives how many.
    pub(super) fn expire(&mut self, now_ms: u64, age_max_ms: u64) -> usize {
        let is_aged = |queued_at_ms: u64| now_ms >= queued_at_ms.saturating_add(age_max_ms);
        let count = self.drop_while(now_ms, |queue, index| {
            is_aged(queue.segments[index].queued_at_ms)
        });
        let is_begun_aged = self.begun_droppable_ms().is_some_and(is_aged);
        if let Some(marks) = &mut self.marks
            && (is_begun_aged || marks.stalled_ms.is_some())
        {
            marks.watch(now_ms);
        }
        count
    }

    /// Drops the oldest that may go while `is_due` says so of the outbox and its place.
    fn drop_while(&mut self, now_ms: u64, is_due: impl Fn(&Queue, usize) -> bool) -> usize {
        let mut count = 0;
        while let Some(index) = self.oldest_droppable()
            && is_due(self, index)
        {
            self.drop_oldest(index, true, now_ms);
            count += 1;
        }
        if count > 0 {
            if let Some(marks) = &mut self.marks {
                marks.watch(now_ms);
            }
            self.renumber_if_sparse();
        }
        count
    }

    /// The place of the oldest publication that may go to make room.
    fn oldest_droppable(&mut self) -> Option<usize> {
        self.advance_marks();
        let marks = self.marks.as_ref()?;
        let index = marks.index(marks.oldest);
        (index < marks.marks.len()).then_some(index)
    }

    /// Puts a gap in the place of a publication, or makes the one before it longer, if it may.
    fn drop_oldest(&mut self, index: usize, may_lengthen: bool, now_ms: u64) {
        let is_begun = self.is_front_begun();
        let Some(marks) = &mut self.marks else { return };
        let mark = std::mem::replace(&mut marks.marks[index], Mark::Empty);
        let overhead_bytes = mark.overhead_bytes();
        let Mark::DropOldest(droppable, encode) = mark else {
            return debug_assert!(false, "the oldest is under DropOldest");
        };
        let queued = &mut self.segments[index];
        self.bytes -= queued.segment.bytes().len() + overhead_bytes;
        if may_lengthen && let Some(gap) = marks.gap_before(&droppable, is_begun) {
            gap.to = droppable.position;
            gap.is_stale = true;
            queued.segment = Segment::Own(Box::default());
            marks.empty += 1;
            return;
        }
        let mut gap = Box::new(Gap::new(&droppable, encode));
        *queued = Queued {
            segment: Segment::Own(gap.frame()),
            queued_at_ms: now_ms,
        };
        let number = marks.first + index as u64;
        marks.gaps.insert(gap.flow.clone(), number);
        marks.marks[index] = Mark::Gap(gap);
        self.bytes += queued.segment.bytes().len() + marks.marks[index].overhead_bytes();
    }

    /// Makes the frames of gaps that have become longer, among the first segments that are to be written.
    pub(super) fn encode_stale(&mut self, segments_max: usize) {
        let Some(marks) = &mut self.marks else { return };
        let mut left = segments_max;
        for (mark, queued) in marks.marks.iter_mut().zip(&mut self.segments) {
            match mark {
                Mark::Empty => continue,
                Mark::Gap(gap) if gap.is_stale => queued.segment = Segment::Own(gap.frame()),
                _ => {}
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }

    /// Takes the empty segments out once they are many.
    fn renumber_if_sparse(&mut self) {
        let Some(marks) = &mut self.marks else { return };
        if marks.empty <= EMPTY_KEPT || marks.empty * 4 <= self.segments.len() {
            return;
        }
        let old = std::mem::take(&mut marks.marks);
        self.segments
            .retain(|queued| !queued.segment.bytes().is_empty());
        marks.latest.clear();
        marks.gaps.clear();
        (marks.oldest, marks.counted, marks.barrier) = (marks.first, marks.first, marks.first - 1);
        marks.empty = 0;
        for mark in old {
            if !matches!(mark, Mark::Empty) {
                marks.push(mark);
            }
        }
        self.advance_marks();
    }

    /// When the front segment was queued, if it is begun and could be dropped were it not.
    fn begun_droppable_ms(&self) -> Option<u64> {
        let front = self.marks.as_ref()?.marks.front()?;
        let is_droppable = matches!(front, Mark::DropOldest(..)) && self.is_front_begun();
        is_droppable.then(|| self.segments[0].queued_at_ms)
    }

    /// The oldest moment that counts for the age of the outbox.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        let Some(marks) = &self.marks else {
            return self.segments.front().map(|front| front.queued_at_ms);
        };
        let counted = self.segments.get(marks.index(marks.counted));
        let counted_ms = counted.map(|queued| queued.queued_at_ms);
        counted_ms.into_iter().chain(marks.stalled_ms).min()
    }

    /// The moment from which [`Queue::expire`] counts.
    pub(super) fn oldest_droppable_ms(&self) -> Option<u64> {
        let marks = self.marks.as_ref()?;
        let begun_ms = self
            .begun_droppable_ms()
            .filter(|_| marks.stalled_ms.is_none());
        let oldest = self.segments.get(marks.index(marks.oldest));
        begun_ms.or(oldest.map(|queued| queued.queued_at_ms))
    }

    pub(super) fn restart_marks(&mut self) {
        if let Some(marks) = &mut self.marks {
            (marks.stalled_ms, marks.has_progressed) = (None, false);
        }
    }

    pub(super) fn check_marks(&self) {
        let Some(marks) = &self.marks else { return };
        assert_eq!(marks.marks.len(), self.segments.len());
        let is_empty = |mark: &Mark| matches!(mark, Mark::Empty);
        for (mark, queued) in marks.marks.iter().zip(&self.segments) {
            assert_eq!(is_empty(mark), queued.segment.bytes().is_empty());
        }
        let empty = marks.marks.iter().filter(|mark| is_empty(mark)).count();
        assert_eq!(empty, marks.empty);
        assert!(!marks.marks.front().is_some_and(is_empty));
    }
}

mod time_to_live;

#[cfg(test)]
mod tests;
