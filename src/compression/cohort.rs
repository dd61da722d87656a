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

use std::sync::Arc;

use super::deflated::{FrameBuffer, Rule};
use crate::dialect::Place;
use crate::hub::{Kind, Publication};
use crate::protocol::Opcode;
use crate::protocol::deflate::{Compression, TakeoverDeflater, WINDOW_BITS_MAX};

/// The text that a frame may refer back to.
const WINDOW_BYTES: u64 = 1 << WINDOW_BITS_MAX;

/// What a cohort sends is compressed once for many, so it is compressed well.
const LEVEL_MIN: u8 = 6;

/// Messages are small beside the block that this is the room for, and the memory is held.
const MEM_LEVEL: u8 = 5;

/// The compressor of a cohort. `level`: that of frames that refer to nothing.
pub(crate) fn compression(level: u8) -> Compression {
    Compression {
        level: level.max(LEVEL_MIN),
        window_bits: WINDOW_BITS_MAX,
        mem_level: MEM_LEVEL,
    }
}

fn opcode(kind: Kind) -> Opcode {
    match kind {
        Kind::Text => Opcode::Text,
        Kind::Binary => Opcode::Binary,
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

/// One batch as the cohort's connections get it.
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

    /// Moves a connection past the batch without admission: it gets frames that refer to nothing. `has_gap`: one of
    /// them goes out plain though it was to be compressed, for it does not shrink by itself.
    pub fn follow(&self, place: &mut Place, has_gap: bool) {
        if has_gap {
            *place = Place(self.after);
        } else if place.0.wrapping_sub(self.start) > self.before - self.start {
            *place = Place(self.before);
        }
    }
}

impl Cohort {
    /// One without members. `start`: a position behind all that any place holds.
    pub(crate) fn new(level: u8, start: u64) -> Cohort {
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
        let frame = buffer.encode(opcode(publication.kind()), |out| {
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

    /// The position behind all that it has sent.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// How often it has forgotten its context.
    pub(crate) fn resets(&self) -> u64 {
        self.resets
    }

    /// Ends a batch: `members` got its frames, others were not admitted.
    pub fn finish(&mut self, members: u64, waiters: u64, now_ms: u64) {
        self.has_members = members > 0;
        self.awaited_from_ms = match waiters {
            0 => None,
            _ => self.awaited_from_ms.or(Some(now_ms)),
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use crate::config::Deflate;
    use crate::protocol::deflate::Inflater;
    use crate::protocol::{Header, Received};

    pub const RESET_MS: u64 = 1000;
    pub const RULE: Rule = Rule {
        kinds: Deflate::Text,
        bytes_min: 40,
        bytes_max: 20_000,
        level: 3,
    };

    /// A connection that keeps its context: what the reactor knows of it, and what its peer does.
    pub struct Listener {
        pub place: Place,
        inflater: Inflater,
    }

    impl Listener {
        pub fn new() -> Listener {
            Listener {
                place: Place::default(),
                inflater: Inflater::new(true),
            }
        }

        /// The frames come, and have to be these publications.
        pub fn read(&mut self, mut frames: &[u8], publications: &[Arc<Publication>]) {
            for publication in publications {
                let (header, header_len) = Header::parse(frames).unwrap().unwrap();
                let (frame, rest) = frames.split_at(header_len + header.payload_len as usize);
                frames = rest;
                let (mut payload, mut message) = (&frame[header_len..], Vec::new());
                if header.rsv1 {
                    let inflated =
                        self.inflater
                            .inflate(Opcode::Binary, payload, 1 << 20, &mut message);
                    assert_eq!(inflated, Ok(Received::Binary(publication.payload())));
                    payload = publication.payload();
                }
                assert!(payload == publication.payload());
            }
            assert!(frames.is_empty());
        }
    }

    pub fn publication(kind: Kind, payload: &[u8]) -> Arc<Publication> {
        Arc::new(Publication::new(kind, payload, 0))
    }

    /// Text that hardly shrinks by itself, different for each seed.
    pub fn noise(seed: usize, len: usize) -> String {
        let mut state = seed as u64 * 2 + 1;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            char::from(33 + (state >> 40) as u8 % 94)
        };
        (0..len).map(next).collect()
    }

    /// Each of a hundred characters once, in an order of its own: nothing in it repeats.
    pub fn unshrinking(turn: usize) -> String {
        let mut characters: Vec<char> = (28..128u8).map(char::from).collect();
        let mut state = turn as u64 * 2 + 1;
        for at in (1..characters.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            characters.swap(at, (state >> 40) as usize % (at + 1));
        }
        characters.into_iter().collect()
    }

    /// Text that shrinks by itself, and more behind others of its kind.
    pub fn tick(turn: usize) -> String {
        let price = turn * 7 % 1000;
        format!(
            r#"{{"type":"tick","turn":{turn},"bid":"{price}.25","ask":"{price}.75","bid_size":"10","ask_size":"20"}}"#
        )
    }

    #[test]
    fn what_does_not_shrink_is_a_reset_point() {
        let mut cohort = Cohort::new(3, 500);
        let (mut frames, mut joiner) = (Vec::new(), Listener::new());
        cohort.encode(
            &[publication(Kind::Text, tick(0).as_bytes())],
            &RULE,
            RESET_MS,
            0,
            &mut frames,
        );
        cohort.finish(1, 0, 0);
        let batch =
            [tick(1), unshrinking(1), tick(2)].map(|it| publication(Kind::Text, it.as_bytes()));
        frames.clear();
        let stretch = cohort.encode(&batch, &RULE, RESET_MS, 0, &mut frames);
        assert!(!stretch.admits(&mut joiner.place) && cohort.resets == 1);
        stretch.follow(&mut joiner.place, false);
        cohort.finish(1, 1, 0);
        // As if the second had got shorter for the joiner, in frames of its own.
        for publication in &batch {
            let mut buffer = FrameBuffer::default();
            let mut own = TakeoverDeflater::new(compression(1));
            let frame = buffer.encode(opcode(publication.kind()), |out| {
                Some(own.deflate(publication.payload(), out))
            });
            joiner.read(frame.unwrap(), &[Arc::clone(publication)]);
        }
        let batch = [publication(Kind::Text, tick(3).as_bytes())];
        frames.clear();
        let stretch = cohort.encode(&batch, &RULE, RESET_MS, 0, &mut frames);
        assert!(stretch.admits(&mut joiner.place) && frames.len() < 30);
        joiner.read(&frames, &batch);
    }

    #[test]
    fn what_goes_out_plain_leaves_no_trace() {
        let mut cohort = Cohort::new(3, 0);
        let plain = [
            publication(Kind::Text, b""),
            publication(Kind::Text, "a".repeat(39).as_bytes()),
            publication(Kind::Text, "a".repeat(20_001).as_bytes()),
            publication(Kind::Binary, &[0; 1000]),
        ];
        let mut frames = Vec::new();
        let stretch = cohort.encode(&plain, &RULE, RESET_MS, 0, &mut frames);
        assert_eq!((stretch.before, stretch.after), (0, 0));
        assert!(frames == plain.each_ref().map(|it| it.frame().to_vec()).concat());
        let all = Rule {
            kinds: Deflate::All,
            ..RULE
        };
        frames.clear();
        let stretch = cohort.encode(&plain, &all, RESET_MS, 0, &mut frames);
        assert_eq!((stretch.before, stretch.after), (0, 1000));
        let whole = [20_001, 39, 0].map(|len| len + if len < 126 { 2 } else { 4 });
        assert!(frames.len() < whole.iter().sum::<usize>() + 30);
    }

    #[test]
    fn only_places_within_the_window_are_admitted() {
        let start = 700;
        let stretch = Stretch {
            start,
            horizon: start,
            before: start + 5,
            after: start + 9,
            is_fresh: false,
        };
        for place in [0, start - 1, start + 1, start + 9, u64::MAX] {
            assert!(!stretch.admits(&mut Place(place)), "{place}");
        }
        assert!(stretch.admits(&mut Place(start)));
    }
}
