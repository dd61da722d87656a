//! Deflating messages: RFC 7692, section 7.2.1, over zlib-rs.
//!
//! A message is compressed up to a flush, which ends in an empty stored block; its last four bytes, [`TAIL`], are cut
//! off. What is left is the payload of a frame with RSV1. The empty message is one zero byte (section 7.2.3.6).

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush};

use super::{TAIL, WINDOW_BITS_MAX, WINDOW_BITS_MIN};

/// What the compressed form of the empty message is.
const EMPTY: u8 = 0;

/// Settings of a compressor: effort and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// 1 (fastest) to 9 (smallest). Not 0, which stores: a message had better be sent uncompressed then, and zlib-rs
    /// panics when its output has less room than its window.
    pub level: u8,
    /// The window is 2 to this power bytes: [`WINDOW_BITS_MIN`] to [`WINDOW_BITS_MAX`], and no more than was agreed.
    pub window_bits: u8,
    /// 1 to 9: room for symbols and output, 448 bytes to 112 KiB.
    pub mem_level: u8,
}

impl Default for Compression {
    /// Level 3 in the largest window, with zlib's usual memory: for a message that many get.
    fn default() -> Compression {
        Compression {
            level: 3,
            window_bits: WINDOW_BITS_MAX,
            mem_level: 8,
        }
    }
}

impl Compression {
    /// Heap bytes of a compressor, to within a few hundred. The hash table alone is 128 KiB.
    pub fn bytes(&self) -> usize {
        const STATE_BYTES: usize = 6 * 1024;
        const HASH_BYTES: usize = 128 * 1024;
        let (window_bits, mem_level) = (self.window_bits(), self.mem_level());
        // Twice the window, and two bytes of chain for each byte of it.
        STATE_BYTES + HASH_BYTES + (4 << window_bits) + (7 << (mem_level + 6))
    }

    fn window_bits(&self) -> u8 {
        self.window_bits.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX)
    }

    fn mem_level(&self) -> u8 {
        self.mem_level.clamp(1, 9)
    }

    /// A compressor. What is out of range is taken as the nearest that is not.
    fn deflate(&self) -> Deflate {
        Deflate::new_with_config(DeflateConfig {
            level: i32::from(self.level.clamp(1, 9)),
            // Negative: without a header.
            window_bits: -i32::from(self.window_bits()),
            mem_level: i32::from(self.mem_level()),
            ..DeflateConfig::default()
        })
    }
}

/// Deflates messages each by itself: for connections that agreed to `server_no_context_takeover`, and as many of them
/// as share the window.
pub struct Deflater {
    deflate: Deflate,
    compression: Compression,
}

impl Deflater {
    /// A deflater.
    pub fn new(compression: Compression) -> Deflater {
        Deflater {
            deflate: compression.deflate(),
            compression,
        }
    }

    /// Heap bytes held.
    pub fn bytes(&self) -> usize {
        self.compression.bytes()
    }

    /// Appends a message's compressed form and returns its length. `None`: it would not be shorter than the message,
    /// which is better sent as it is; nothing is appended.
    pub fn deflate(&mut self, message: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        self.deflate.reset();
        let start = out.len();
        let payload_len = append(&mut self.deflate, message, out);
        if payload_len < message.len() {
            return Some(payload_len);
        }
        out.truncate(start);
        None
    }
}

/// Deflates messages that may refer back to earlier ones: for connections that agreed to the same window and to server
/// takeover, and all get the same messages.
///
/// Every payload that comes out has to go to every one of these connections, in order, for the next may refer to it. So
/// whether a message is worth compressing is decided before, never by what came out: [`deflate`] has no way to say that
/// a message did not shrink. What was made and not sent to someone breaks that one's later messages unless [`forget`]
/// comes first; nothing after it refers to anything before it, which is right for all whatever they have got.
///
/// [`deflate`]: TakeoverDeflater::deflate
/// [`forget`]: TakeoverDeflater::forget
pub struct TakeoverDeflater {
    deflate: Deflate,
    compression: Compression,
    /// The next message may not refer to anything: connections may join here.
    is_fresh: bool,
}

impl TakeoverDeflater {
    /// A deflater at the beginning of a sequence.
    pub fn new(compression: Compression) -> TakeoverDeflater {
        TakeoverDeflater {
            deflate: compression.deflate(),
            compression,
            is_fresh: true,
        }
    }

    /// Heap bytes held.
    pub fn bytes(&self) -> usize {
        self.compression.bytes()
    }

    /// Whether a new connection may join without [`forget`](Self::forget).
    pub fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// Begins a new sequence: what follows refers to nothing before.
    pub fn forget(&mut self) {
        if !self.is_fresh {
            self.deflate.reset();
            self.is_fresh = true;
        }
    }

    /// Appends the next message's compressed form and returns its length: at most [`payload_bytes_max`] of a message
    /// that does not shrink.
    pub fn deflate(&mut self, message: &[u8], out: &mut Vec<u8>) -> usize {
        self.is_fresh &= message.is_empty();
        append(&mut self.deflate, message, out)
    }
}

/// Appends the payload that a message is deflated to, and says how long it is.
///
/// A flush is always brought to its end, though the payload may be found too long on the way: zlib-rs 0.6.8 does not
/// forget all of an unfinished one when it is reset, and what it makes after that is wrong.
fn append(deflate: &mut Deflate, message: &[u8], out: &mut Vec<u8>) -> usize {
    let start = out.len();
    if message.is_empty() {
        out.push(EMPTY);
        return 1;
    }
    let mut rest = message;
    let mut filled = start;
    let mut room = payload_bytes_max(message.len()) + TAIL.len();
    // The flush is at its end once it leaves room. There is enough at once, by the bound.
    while filled == out.len() {
        out.reserve_exact(room);
        out.resize(filled + room, 0);
        let before = (deflate.total_in(), deflate.total_out());
        let status = deflate.compress(rest, &mut out[filled..], DeflateFlush::SyncFlush);
        debug_assert!(status.is_ok(), "{status:?}");
        rest = &rest[(deflate.total_in() - before.0) as usize..];
        filled += (deflate.total_out() - before.1) as usize;
        room = TAIL.len() * 4;
    }
    debug_assert!(rest.is_empty() && out[start..filled].ends_with(&TAIL));
    out.truncate(filled - TAIL.len());
    out.len() - start
}

/// Longest deflated payload of a message of so many bytes.
pub const fn payload_bytes_max(message_len: usize) -> usize {
    // An eighth for codes of nine bits, five bytes for the head of each block, and the flush.
    message_len + message_len / 8 + message_len / 64 + 16
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::deflate::Inflater;
    use crate::protocol::{Opcode, Received};

    fn compression(level: u8, window_bits: u8) -> Compression {
        Compression {
            level,
            window_bits,
            mem_level: 8,
        }
    }

    fn inflates_to(inflater: &mut Inflater, payload: &[u8], message: &[u8]) -> bool {
        let mut out = Vec::new();
        let received = inflater.inflate(Opcode::Binary, payload, 1 << 24, &mut out);
        received == Ok(Received::Binary(message))
    }

    /// Bytes without a pattern.
    fn noise(len: usize) -> Vec<u8> {
        let step = |state: &mut u64| {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            Some(*state as u8)
        };
        std::iter::repeat_n((), len)
            .scan(0x9e37_79b9_7f4a_7c15, |state, ()| step(state))
            .collect()
    }

    #[test]
    fn vectors_of_section_7_2_3() {
        let mut deflater = TakeoverDeflater::new(compression(6, 15));
        let mut out = Vec::new();
        assert_eq!(deflater.deflate(b"Hello", &mut out), 7);
        assert_eq!(out, [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
        out.clear();
        deflater.deflate(b"Hello", &mut out);
        assert_eq!(out, [0xf2, 0x00, 0x11, 0x00, 0x00]);
        out.clear();
        assert_eq!(deflater.deflate(b"", &mut out), 1);
        assert_eq!(out, [0x00]);
    }

    #[test]
    fn what_does_not_shrink_is_not_compressed() {
        let mut deflater = Deflater::new(Compression::default());
        let mut out = b"kept".to_vec();
        for message in [&b""[..], b"a", b"Hello", &noise(100), &noise(100_000)] {
            assert_eq!(deflater.deflate(message, &mut out), None);
            assert_eq!(out, b"kept");
        }
        let message = [7; 1000];
        let len = deflater.deflate(&message, &mut out).unwrap();
        assert!(len < 30 && out.len() == 4 + len);
        assert!(inflates_to(&mut Inflater::new(false), &out[4..], &message));
    }

    #[test]
    fn messages_are_deflated_by_themselves() {
        let mut deflater = Deflater::new(Compression::default());
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let message = "the same words again, ".repeat(10);
        deflater.deflate(message.as_bytes(), &mut first).unwrap();
        deflater.deflate(&noise(3000), &mut second);
        deflater.deflate(message.as_bytes(), &mut second).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn what_did_not_shrink_leaves_nothing_behind() {
        for level in 1..=9 {
            for mem_level in [1, 4, 8] {
                let mut deflater = Deflater::new(Compression {
                    level,
                    window_bits: 9,
                    mem_level,
                });
                for len in [1, 20, 300, 5000, 40_000] {
                    let mut out = Vec::new();
                    assert_eq!(deflater.deflate(&noise(len), &mut out), None);
                    let message = "once more, ".repeat(50);
                    deflater.deflate(message.as_bytes(), &mut out).unwrap();
                    let mut inflater = Inflater::new(false);
                    assert!(inflates_to(&mut inflater, &out, message.as_bytes()));
                }
            }
        }
    }

    #[test]
    fn a_sequence_can_begin_again() {
        let mut deflater = TakeoverDeflater::new(Compression::default());
        let (mut first, mut second) = (Vec::new(), Vec::new());
        assert!(deflater.is_fresh());
        deflater.deflate(b"", &mut first);
        assert!(deflater.is_fresh());
        first.clear();
        deflater.deflate(&noise(400), &mut first);
        assert!(!deflater.is_fresh());
        deflater.deflate(&noise(400), &mut second);
        assert!(second.len() < 30);
        let mut late = Inflater::new(true);
        assert!(!inflates_to(&mut late, &second, &noise(400)));
        // The first payload was lost, and the second was not sent.
        deflater.forget();
        assert!(deflater.is_fresh());
        let mut third = Vec::new();
        deflater.deflate(&noise(400), &mut third);
        assert_eq!(first, third);
        let mut late = Inflater::new(true);
        assert!(inflates_to(&mut late, &third, &noise(400)));
    }

    #[test]
    fn every_setting_makes_what_inflates_within_bounds() {
        // More than the largest window, of each kind.
        let mixed = [noise(36_000), vec![b'x'; 36_000], noise(3000)].concat();
        for level in 1..=9 {
            for (window_bits, mem_level) in [(9, 1), (9, 9), (12, 4), (15, 1), (15, 8)] {
                let compression = Compression {
                    level,
                    window_bits,
                    mem_level,
                };
                let mut takeover = TakeoverDeflater::new(compression);
                let mut inflater = Inflater::new(true);
                for message in [&mixed[..], b"y", &mixed[..36_000]] {
                    let mut out = Vec::new();
                    let len = takeover.deflate(message, &mut out);
                    assert!(len <= payload_bytes_max(message.len()), "{compression:?}");
                    assert!(inflates_to(&mut inflater, &out, message), "{compression:?}");
                }
            }
        }
    }

    #[test]
    fn a_small_window_is_kept_to() {
        // A repetition at a distance that is in one window and not in the other.
        let message = [noise(600), noise(600)].concat();
        for level in 1..=9 {
            let mut near = Vec::new();
            TakeoverDeflater::new(compression(level, 9)).deflate(&message, &mut near);
            let mut far = Vec::new();
            TakeoverDeflater::new(compression(level, 10)).deflate(&message, &mut far);
            assert!(near.len() > 1200 && far.len() < 700, "{level}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_taken_as_the_nearest() {
        let wrong = Compression {
            level: 200,
            window_bits: 8,
            mem_level: 0,
        };
        assert!(
            Deflater::new(wrong)
                .deflate(&[0; 100], &mut Vec::new())
                .is_some()
        );
        assert_eq!(
            wrong.bytes(),
            Compression {
                level: 9,
                window_bits: 9,
                mem_level: 1
            }
            .bytes()
        );
        assert!((136 * 1024..140 * 1024).contains(&wrong.bytes()));
        let largest = Compression {
            window_bits: 255,
            mem_level: 255,
            ..wrong
        };
        Deflater::new(largest).deflate(&[0; 100], &mut Vec::new());
    }
}
