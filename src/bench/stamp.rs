//! The stamp at the front of every payload: which run and publisher, which sequence number, and when it was meant to go.
//!
//! ```text
//!   ~  RR  PPPP  SSSSSS  TTTTTTT        digits of 6 bits, the highest first
//!      run publ. sequ.   ticks          12, 24, 36 and 42 bits
//! ```
//!
//! It is made of ASCII that JSON does not escape, so that it comes through servers that wrap what they deliver.

/// Bytes of a stamp, which is the smallest payload.
pub const STAMP_BYTES: usize = 20;
/// A tick, the unit of every time here.
pub const TICK_NS: u64 = 100;
/// Runs are told apart by so many bits.
pub const RUN_MASK: u16 = 0xfff;
/// Publishers of one run, at most.
pub const PUBLISHERS_MAX: usize = 1 << 24;

const MAGIC: u8 = b'~';
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const VALUES: [u8; 256] = values();
/// What the table says of a byte that is no digit.
const NO_DIGIT: u8 = 0x80;

const fn values() -> [u8; 256] {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
}

/// Stamp in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The number of the publisher, under [`PUBLISHERS_MAX`].
    pub publisher: u32,
    /// Counts each publisher's publications from 0.
    pub sequence: u64,
    /// Intended time, in ticks of [`TICK_NS`] since the run began.
    pub intended_ticks: u64,
}

impl Stamp {
    /// Writes the stamp over the front of a payload.
    pub fn encode(self, run: u16, out: &mut [u8; STAMP_BYTES]) {
        out[0] = MAGIC;
        write_digits(&mut out[1..3], u64::from(run));
        write_digits(&mut out[3..7], u64::from(self.publisher));
        write_digits(&mut out[7..13], self.sequence);
        write_digits(&mut out[13..], self.intended_ticks);
    }

    /// Reads a stamp of this run off the front of `bytes`.
    #[inline]
    pub fn parse(bytes: &[u8], run: u16) -> Option<Stamp> {
        let bytes = bytes.first_chunk::<STAMP_BYTES>()?;
        if bytes[0] != MAGIC || read_digits(&bytes[1..3])? != u64::from(run) {
            return None;
        }
        Some(Stamp {
            publisher: u32::try_from(read_digits(&bytes[3..7])?).ok()?,
            sequence: read_digits(&bytes[7..13])?,
            intended_ticks: read_digits(&bytes[13..])?,
        })
    }

    /// Finds the first stamp of this run in `bytes`, and its end.
    pub fn find(bytes: &[u8], run: u16) -> Option<(Stamp, usize)> {
        let mut start = 0;
        while let Some(offset) = bytes[start..].iter().position(|byte| *byte == MAGIC) {
            start += offset;
            if let Some(stamp) = Stamp::parse(&bytes[start..], run) {
                return Some((stamp, start + STAMP_BYTES));
            }
            start += 1;
        }
        None
    }
}

fn write_digits(out: &mut [u8], mut number: u64) {
    for place in out.iter_mut().rev() {
        *place = DIGITS[(number & 0x3f) as usize];
        number >>= 6;
    }
}

#[inline]
fn read_digits(bytes: &[u8]) -> Option<u64> {
    let mut number = 0;
    let mut wrong = 0;
    for byte in bytes {
        let value = VALUES[usize::from(*byte)];
        wrong |= value & NO_DIGIT;
        number = number << 6 | u64::from(value & !NO_DIGIT);
    }
    (wrong == 0).then_some(number)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        publisher: 65,
        sequence: (1 << 36) - 1,
        intended_ticks: 63,
    };
    /// Of run 2.
    const BYTES: &[u8; STAMP_BYTES] = b"~ACAABB______AAAAAA_";

    #[test]
    fn encodes_and_parses() {
        let mut out = [0; STAMP_BYTES];
        STAMP.encode(2, &mut out);
        assert_eq!(&out, BYTES);
        assert_eq!(Stamp::parse(BYTES, 2), Some(STAMP));
        for end in 0..STAMP_BYTES {
            assert_eq!(Stamp::parse(&BYTES[..end], 2), None);
        }
    }

    #[test]
    fn other_runs_and_other_bytes_are_not_stamps() {
        assert_eq!(Stamp::parse(BYTES, 3), None);
        for at in 0..STAMP_BYTES {
            let mut changed = *BYTES;
            changed[at] = b'"';
            assert_eq!(Stamp::parse(&changed, 2), None);
        }
    }

    #[test]
    fn finds_the_stamps_of_a_frame_that_wraps_them() {
        let frame = [b"[{\"~\":\"", &BYTES[..], b"\"},\"~~AC", &BYTES[..], b"~AC"].concat();
        let (first, end) = Stamp::find(&frame, 2).unwrap();
        let (second, rest) = Stamp::find(&frame[end..], 2).unwrap();
        assert_eq!((first, second), (STAMP, STAMP));
        assert_eq!(Stamp::find(&frame[end + rest..], 2), None);
    }
}
