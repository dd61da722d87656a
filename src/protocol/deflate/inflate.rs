//! Inflating messages: RFC 7692, section 7.2.2, over zlib-rs.
//!
//! The sender has cut off the last four bytes of an empty stored block, [`TAIL`]; they are put back, and what was sent
//! has to be complete with them: a payload that is cut short, or followed by something else, is wrong. Two things that
//! senders do are as good as the tail: to end with a final block (BFINAL, section 7.2.3.4) and nothing behind it, and
//! to send no byte at all for the empty message.
//!
//! A final block ends the data that later blocks can refer to (RFC 1951, section 3.2.3), in this message or the next.
//!
//! The window is always the largest: it inflates what was deflated with any, and zlib-rs allocates no less for less.

use zlib_rs::{Inflate, InflateFlush, Status};

use super::{TAIL, WINDOW_BITS_MAX};
use crate::protocol::message::Received;
use crate::protocol::{Opcode, ProtocolError};

/// The first guess at how much longer a message gets, and the least room that is made for it at a time.
const GROWTH: usize = 4;
const ROOM_BYTES_MIN: usize = 512;

/// Inflates the messages of one direction.
///
/// One that keeps no context serves any number of connections, message by message. One that keeps it is owned by its
/// connection, and at the end with the first error.
pub struct Inflater {
    inflate: Inflate,
    takeover: bool,
    /// Nothing has come since the message began, or since a final block ended: nothing needs completing.
    is_complete: bool,
}

impl Inflater {
    /// Heap bytes of each: the window, and the tables of a block.
    pub const BYTES: usize = 48 * 1024;

    /// An inflater that keeps its context from message to message, or not.
    pub fn new(takeover: bool) -> Inflater {
        Inflater {
            inflate: Inflate::new(false, WINDOW_BITS_MAX),
            takeover,
            is_complete: true,
        }
    }

    /// Heap bytes held.
    pub fn bytes(&self) -> usize {
        Inflater::BYTES
    }

    /// Inflates a message's whole payload into `out`, which is emptied first. `opcode` is the message's type.
    /// Afterwards the inflater is ready for the next message.
    ///
    /// # Errors
    ///
    /// Those of [`feed`](Inflater::feed) and [`finish`](Inflater::finish), and `InvalidUtf8` of a text.
    pub fn inflate<'o>(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        message_bytes_max: u64,
        out: &'o mut Vec<u8>,
    ) -> Result<Received<'o>, ProtocolError> {
        out.clear();
        if !self.takeover {
            self.reset();
        }
        self.feed(payload, message_bytes_max, out)?;
        self.finish()?;
        Received::parse(opcode, out)
    }

    /// Inflates a piece of a message, cut anywhere. It appends to `out`, which holds the output of the pieces before.
    ///
    /// `out` gets as long as the pieces make it, at most `message_bytes_max`, and its capacity grows to at most the same,
    /// unless it was larger before.
    ///
    /// # Errors
    ///
    /// `MessageTooBig` as soon as the message is found to be longer than `message_bytes_max`, and `InvalidDeflate`.
    pub fn feed(
        &mut self,
        piece: &[u8],
        message_bytes_max: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let bytes_max = usize::try_from(message_bytes_max).unwrap_or(usize::MAX);
        let mut filled = out.len();
        let fed = self.fill(piece, bytes_max, out, &mut filled);
        out.truncate(filled);
        fed
    }

    /// Inflates a piece into `out`, of which the first `filled` bytes are taken, and makes room behind them as it is
    /// needed. A final block ends a step, so there may be as many steps as bytes: room that a step has left is the next
    /// one's, for to make it costs time.
    fn fill(
        &mut self,
        mut piece: &[u8],
        bytes_max: usize,
        out: &mut Vec<u8>,
        filled: &mut usize,
    ) -> Result<(), ProtocolError> {
        let mut room_bytes = piece.len().saturating_mul(GROWTH).max(ROOM_BYTES_MIN);
        let mut is_room_full = false;
        while !piece.is_empty() || is_room_full {
            if *filled == out.len() {
                make_room(out, room_bytes, bytes_max);
                room_bytes = room_bytes.saturating_mul(2);
            }
            let step = if *filled == out.len() {
                // The message may end here, and does if it has not one byte more.
                is_room_full = false;
                self.step_at_limit(piece)?
            } else {
                let step = self.step(piece, &mut out[*filled..], InflateFlush::NoFlush)?;
                *filled += step.produced;
                is_room_full = *filled == out.len();
                step
            };
            piece = &piece[step.consumed..];
        }
        Ok(())
    }

    /// Ends a message. An inflater without takeover is to be [`reset`](Inflater::reset) before the next.
    ///
    /// # Errors
    ///
    /// `InvalidDeflate` if what was fed is not complete with the four bytes that the sender has cut off.
    pub fn finish(&mut self) -> Result<(), ProtocolError> {
        if self.is_complete {
            return Ok(());
        }
        // With `Block` it stops between blocks. So the byte behind the tail is left if the tail ends a block, and taken
        // if it does not.
        let tail = [TAIL[0], TAIL[1], TAIL[2], TAIL[3], 0];
        let step = self.step(&tail, &mut [0], InflateFlush::Block)?;
        if step.consumed != TAIL.len() || step.produced != 0 {
            return Err(ProtocolError::InvalidDeflate);
        }
        if !self.is_complete {
            self.check_boundary()?;
        }
        self.is_complete = true;
        Ok(())
    }

    /// Forgets the context and whatever message was under way.
    pub fn reset(&mut self) {
        // It goes back to a window of 15 bits, the one it has.
        self.inflate.reset(false);
        self.is_complete = true;
    }

    /// Goes on where the message is as long as it may be. One byte more is too big, though something wrong may follow it
    /// at once: which of the two is found must not depend on how the payload is cut.
    fn step_at_limit(&mut self, piece: &[u8]) -> Result<Step, ProtocolError> {
        let before = self.inflate.total_out();
        let step = self.step(piece, &mut [0], InflateFlush::NoFlush);
        let is_over = match &step {
            Ok(step) => step.produced > 0,
            Err(_) => self.inflate.total_out() > before,
        };
        if is_over {
            return Err(ProtocolError::MessageTooBig);
        }
        step
    }

    /// Checks that the block that ended last did so at the end of a byte: any block can have the tail for its last four
    /// bytes by chance, but only behind one that leaves no bits over does an empty stored block fit. That it was final
    /// shows here too.
    fn check_boundary(&mut self) -> Result<(), ProtocolError> {
        let empty = [0, TAIL[0], TAIL[1], TAIL[2], TAIL[3], 0];
        let step = self.step(&empty, &mut [0], InflateFlush::Block)?;
        let consumed = if step.ended { 0 } else { empty.len() - 1 };
        if step.consumed != consumed || step.produced != 0 {
            return Err(ProtocolError::InvalidDeflate);
        }
        Ok(())
    }

    fn step(
        &mut self,
        input: &[u8],
        room: &mut [u8],
        flush: InflateFlush,
    ) -> Result<Step, ProtocolError> {
        let before = (self.inflate.total_in(), self.inflate.total_out());
        let status = self
            .inflate
            .decompress(input, room, flush)
            .map_err(|_| ProtocolError::InvalidDeflate)?;
        let step = Step {
            consumed: (self.inflate.total_in() - before.0) as usize,
            produced: (self.inflate.total_out() - before.1) as usize,
            ended: status == Status::StreamEnd,
        };
        if step.ended {
            self.reset();
        } else if step.consumed > 0 {
            self.is_complete = false;
        } else if step.produced == 0 && !input.is_empty() {
            return Err(ProtocolError::InvalidDeflate);
        }
        Ok(step)
    }
}

/// Makes `out` longer by so much, but no longer than `bytes_max`. Its capacity doubles, so that a message in any number
/// of pieces is copied in linear time.
fn make_room(out: &mut Vec<u8>, room_bytes: usize, bytes_max: usize) {
    let end = out.len().saturating_add(room_bytes).min(bytes_max);
    if end > out.capacity() {
        let capacity = out.capacity().saturating_mul(2).min(bytes_max).max(end);
        out.reserve_exact(capacity - out.len());
    }
    if end > out.len() {
        out.resize(end, 0);
    }
}

struct Step {
    consumed: usize,
    produced: usize,
    /// A final block ended.
    ended: bool,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::deflate::{Compression, Deflater, TakeoverDeflater, payload_bytes_max};
    use proptest::prelude::*;

    const MAX: u64 = 1 << 20;

    /// The message that comes of the payloads of its fragments, after checking that further cuts make no difference.
    fn inflate_by(
        inflater: &mut Inflater,
        payload: &[u8],
        max: u64,
    ) -> Result<Vec<u8>, ProtocolError> {
        let mut out = Vec::new();
        let whole = inflater.inflate(Opcode::Binary, payload, max, &mut out);
        let whole = whole.map(|received| match received {
            Received::Binary(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        });
        assert!(out.len() as u64 <= max && out.capacity() as u64 <= max);
        whole
    }

    fn inflate(payload: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let whole = inflate_by(&mut Inflater::new(false), payload, MAX);
        for piece_len in 1..payload.len().min(20) {
            let mut inflater = Inflater::new(false);
            let mut out = Vec::new();
            let pieces = payload
                .chunks(piece_len)
                .try_for_each(|piece| inflater.feed(piece, MAX, &mut out))
                .and_then(|()| inflater.finish())
                .map(|()| out);
            assert_eq!(pieces, whole, "in pieces of {piece_len}");
        }
        whole
    }

    const HELLO: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    const WRONG: Result<Vec<u8>, ProtocolError> = Err(ProtocolError::InvalidDeflate);

    #[test]
    fn vectors_of_section_7_2_3() {
        let hello = Ok(b"Hello".to_vec());
        // 7.2.3.1, one compressed block.
        assert_eq!(inflate(HELLO), hello);
        // 7.2.3.3, a block without compression.
        let stored = [
            0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
        ];
        assert_eq!(inflate(&stored), hello);
        // 7.2.3.4, a final block.
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(inflate(&last), hello);
        // 7.2.3.5, two blocks.
        let two = [
            0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
        ];
        assert_eq!(inflate(&two), hello);
        // 7.2.3.6, the empty message.
        assert_eq!(inflate(&[0x00]), Ok(vec![]));
    }

    #[test]
    fn the_window_slides_as_in_section_7_2_3_2() {
        let second = [0xf2, 0x00, 0x11, 0x00, 0x00];
        let mut inflater = Inflater::new(true);
        let hello = Ok(b"Hello".to_vec());
        assert_eq!(inflate_by(&mut inflater, HELLO, MAX), hello);
        assert_eq!(inflate_by(&mut inflater, &second, MAX), hello);
        let mut inflater = Inflater::new(false);
        assert_eq!(inflate_by(&mut inflater, HELLO, MAX), hello);
        assert_eq!(inflate_by(&mut inflater, &second, MAX), WRONG);
        // What failed leaves nothing behind.
        assert_eq!(inflate_by(&mut inflater, HELLO, MAX), hello);
    }

    #[test]
    fn final_blocks_need_nothing_behind_them() {
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(&last), Ok(b"Hello".to_vec()));
        assert_eq!(
            inflate(&[&last[..], HELLO].concat()),
            Ok(b"HelloHello".to_vec())
        );
        assert_eq!(
            inflate(&[&last[..], &last].concat()),
            Ok(b"HelloHello".to_vec())
        );
        // The last block, empty and stored, may be the final one.
        assert_eq!(inflate(&[0x01]), Ok(vec![]));
        assert_eq!(inflate(&[]), Ok(vec![]));
        // With a context it begins another, in which nothing has been said.
        let mut inflater = Inflater::new(true);
        assert_eq!(inflate_by(&mut inflater, &last, MAX), Ok(b"Hello".to_vec()));
        assert_eq!(inflate_by(&mut inflater, HELLO, MAX), Ok(b"Hello".to_vec()));
        let reference = [0xf2, 0x00, 0x11, 0x00, 0x00];
        assert_eq!(
            inflate_by(&mut inflater, &reference, MAX),
            Ok(b"Hello".to_vec())
        );
        assert_eq!(inflate_by(&mut inflater, &last, MAX), Ok(b"Hello".to_vec()));
        assert_eq!(inflate_by(&mut inflater, &reference, MAX), WRONG);
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_wrong() {
        for end in 1..HELLO.len() {
            assert_eq!(inflate(&HELLO[..end]), WRONG, "{end}");
        }
        // The tail that should have been cut off.
        assert_eq!(inflate(&[HELLO, &TAIL].concat()), WRONG);
        assert_eq!(inflate(&[HELLO, b"x"].concat()), WRONG);
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(&last[..5]), WRONG);
        assert_eq!(inflate(&[&last[..], &[0xff]].concat()), WRONG);
        // A stored block whose content, or whose length, goes on into the tail.
        assert_eq!(inflate(&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48]), WRONG);
        assert_eq!(inflate(&[0x00, 0x04, 0x00, 0xfb, 0xff]), WRONG);
        assert_eq!(inflate(&[0x00, 0x05]), WRONG);
    }

    #[test]
    fn what_is_not_deflate_is_wrong() {
        // A reserved block type, a wrong complement, a distance before the beginning, a zlib header.
        assert_eq!(inflate(&[0x07]), WRONG);
        assert_eq!(inflate(&[0x00, 0x05, 0x00, 0xfa, 0xfe, 0x48]), WRONG);
        assert_eq!(inflate(&[0xf2, 0x00, 0x11, 0x00, 0x00]), WRONG);
        assert_eq!(inflate(&[0x78, 0x9c, 0x03, 0x00]), WRONG);
        assert_eq!(ProtocolError::InvalidDeflate.close_code().get(), 1007);
    }

    #[test]
    fn text_is_checked_after_inflating() {
        let mut inflater = Inflater::new(false);
        let mut out = Vec::new();
        let text = inflater.inflate(Opcode::Text, HELLO, MAX, &mut out);
        assert_eq!(text, Ok(Received::Text("Hello")));
        let stored = [0x00, 0x01, 0x00, 0xfe, 0xff, 0xce, 0x00];
        let text = inflater.inflate(Opcode::Text, &stored, MAX, &mut out);
        assert_eq!(text, Err(ProtocolError::InvalidUtf8));
    }

    #[test]
    fn the_limit_is_on_what_comes_out() {
        let zeros = vec![0; 100_000];
        let mut bomb = Vec::new();
        let compression = Compression::default();
        Deflater::new(compression)
            .deflate(&zeros, &mut bomb)
            .unwrap();
        assert!(bomb.len() < 1000);
        let mut inflater = Inflater::new(false);
        for max in [0, 1, 511, 512, 513, 4095, 4096, 65_536, 99_999] {
            let inflated = inflate_by(&mut inflater, &bomb, max);
            assert_eq!(inflated, Err(ProtocolError::MessageTooBig), "{max}");
        }
        for max in [100_000, 100_001, MAX] {
            assert_eq!(inflate_by(&mut inflater, &bomb, max).as_ref(), Ok(&zeros));
        }
        assert_eq!(
            inflate_by(&mut inflater, HELLO, 4),
            Err(ProtocolError::MessageTooBig)
        );
        assert_eq!(inflate_by(&mut inflater, HELLO, 5), Ok(b"Hello".to_vec()));
        assert_eq!(inflate_by(&mut inflater, &[0], 0), Ok(vec![]));
        // In fragments the whole message counts.
        let mut out = Vec::new();
        let mut fed = 0;
        let error = bomb.iter().find_map(|byte| {
            fed += 1;
            inflater.feed(&[*byte], 5000, &mut out).err()
        });
        assert_eq!(error, Some(ProtocolError::MessageTooBig));
        assert!(fed < bomb.len() && out.capacity() <= 5000);
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        // Runs of a few values, so that there is something to refer to.
        let run = (0u8..8, 1usize..300);
        let runs = proptest::collection::vec(run, 0..40).prop_map(|runs| {
            let bytes = runs.into_iter().flat_map(|(byte, len)| vec![byte; len]);
            bytes.collect()
        });
        prop_oneof![runs, proptest::collection::vec(any::<u8>(), 0..2000)]
    }

    fn compression() -> impl Strategy<Value = Compression> {
        (1u8..=9, 9u8..=15, 1u8..=9).prop_map(|(level, window_bits, mem_level)| Compression {
            level,
            window_bits,
            mem_level,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn what_is_deflated_inflates(compression in compression(), messages in proptest::collection::vec(message(), 1..8)) {
            let mut deflater = Deflater::new(compression);
            let mut takeover = TakeoverDeflater::new(compression);
            let (mut shared, mut own) = (Inflater::new(false), Inflater::new(true));
            for message in messages {
                let mut payload = b"before".to_vec();
                if let Some(len) = deflater.deflate(&message, &mut payload) {
                    prop_assert!(len < message.len() && payload.len() == 6 + len);
                    let inflated = inflate_by(&mut shared, &payload[6..], MAX);
                    prop_assert_eq!(inflated.as_ref(), Ok(&message));
                } else {
                    prop_assert_eq!(&payload[..], b"before");
                }
                payload.clear();
                let len = takeover.deflate(&message, &mut payload);
                prop_assert!(len == payload.len() && len <= payload_bytes_max(message.len()));
                prop_assert_eq!(inflate_by(&mut own, &payload, MAX), Ok(message));
            }
        }

        #[test]
        fn any_bytes_are_taken_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = inflate(&payload);
        }
    }
}
