//! UTF-8, whole and as it arrives: RFC 6455, section 8.1, and RFC 3629.

use super::ProtocolError;
use std::str::Utf8Error;

/// From this length on the vectorised validator is the faster one.
const SIMD_BYTES_MIN: usize = 64;

/// Takes bytes as text.
///
/// # Errors
///
/// [`ProtocolError::InvalidUtf8`].
#[inline]
#[allow(
    unsafe_code,
    reason = "a short text's check is a good part of what its message costs"
)]
pub fn parse_text(bytes: &[u8]) -> Result<&str, ProtocolError> {
    if bytes.len() < SIMD_BYTES_MIN {
        if bytes.is_ascii() {
            // SAFETY: every string of ASCII is UTF-8.
            return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
        }
        std::str::from_utf8(bytes).map_err(|_| ProtocolError::InvalidUtf8)
    } else {
        simdutf8::basic::from_utf8(bytes).map_err(|_| ProtocolError::InvalidUtf8)
    }
}

/// Checks a text that arrives in pieces, cut anywhere. It fails at the first byte that no valid text could
/// have there, and needs no byte twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8Validator {
    /// The beginning of a character whose end has not arrived.
    pending: [u8; 3],
    /// How much of `pending` is filled, 0 to 3.
    pending_len: u8,
}

const _: () = assert!(size_of::<Utf8Validator>() == 4);

impl Utf8Validator {
    /// A validator at the beginning of a text.
    pub fn new() -> Utf8Validator {
        Utf8Validator::default()
    }

    /// Checks the next piece.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::InvalidUtf8`] as soon as the text can no longer become valid. What is pushed after
    /// that has no meaning.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let bytes = self.complete_pending(bytes)?;
        let (valid_len, error_len) = match check(bytes) {
            Ok(()) => return Ok(()),
            Err(stop) => stop,
        };
        if error_len.is_some() {
            return Err(ProtocolError::InvalidUtf8);
        }
        self.keep(&bytes[valid_len..]);
        Ok(())
    }

    /// Ends the text.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::InvalidUtf8`] if the last character is incomplete.
    pub fn finish(&self) -> Result<(), ProtocolError> {
        if self.pending_len == 0 {
            Ok(())
        } else {
            Err(ProtocolError::InvalidUtf8)
        }
    }

    /// Uses the front of `bytes` to complete the pending character, and returns the rest.
    fn complete_pending<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], ProtocolError> {
        let pending_len = usize::from(self.pending_len);
        if pending_len == 0 {
            return Ok(bytes);
        }
        let missing = character_len(self.pending[0]) - pending_len;
        let (front, rest) = bytes.split_at(missing.min(bytes.len()));
        let mut character = [0; 4];
        character[..pending_len].copy_from_slice(&self.pending[..pending_len]);
        character[pending_len..pending_len + front.len()].copy_from_slice(front);
        let character = &character[..pending_len + front.len()];
        match std::str::from_utf8(character) {
            Ok(_) => self.pending_len = 0,
            Err(error) if error.error_len().is_some() => return Err(ProtocolError::InvalidUtf8),
            Err(_) => self.keep(character),
        }
        Ok(rest)
    }

    fn keep(&mut self, incomplete: &[u8]) {
        debug_assert!((1..=3).contains(&incomplete.len()));
        self.pending[..incomplete.len()].copy_from_slice(incomplete);
        self.pending_len = incomplete.len() as u8;
    }
}

/// `Err` holds the length of the valid front, and the length of what is wrong after it: `None` if the text
/// just ends inside a character.
fn check(bytes: &[u8]) -> Result<(), (usize, Option<usize>)> {
    if bytes.len() < SIMD_BYTES_MIN {
        let stop = |error: Utf8Error| (error.valid_up_to(), error.error_len());
        std::str::from_utf8(bytes).map(|_| ()).map_err(stop)
    } else {
        let stop = |error: simdutf8::compat::Utf8Error| (error.valid_up_to(), error.error_len());
        simdutf8::compat::from_utf8(bytes).map(|_| ()).map_err(stop)
    }
}

/// How many bytes the character takes that begins with `first`, which is known to begin one of several bytes.
fn character_len(first: u8) -> usize {
    debug_assert!((0xc2..=0xf4).contains(&first));
    match first {
        0xf0.. => 4,
        0xe0.. => 3,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Valid and invalid texts with every kind of boundary in them.
    fn samples() -> Vec<Vec<u8>> {
        let mut samples: Vec<Vec<u8>> = [
            &b""[..],
            b"plain",
            "κόσμε".as_bytes(),
            "\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}".as_bytes(),
            b"\x80",
            b"\xbf\xbf",
            b"\xc0\xaf",
            b"\xc1\xbf",
            b"\xe0\x80\xaf",
            b"\xe0\x9f\xbf",
            b"\xed\xa0\x80",
            b"\xed\xbf\xbf",
            b"\xf0\x80\x80\xaf",
            b"\xf0\x8f\xbf\xbf",
            b"\xf4\x90\x80\x80",
            b"\xf5\x80\x80\x80",
            b"\xf8\x88\x80\x80\x80",
            b"\xfe\xff",
            b"\xce",
            b"\xe1\xbd",
            b"\xf0\x9f\x98",
            b"a\xc3(",
            b"a\xe2\x28\xa1",
            b"a\xf0\x9f(\x80",
            b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        ]
        .map(<[u8]>::to_vec)
        .to_vec();
        // The same behind and before enough text for the vectorised path.
        for i in 0..samples.len() {
            let long = "longer: é€😀 ".repeat(6).into_bytes();
            samples.push([&long[..], &samples[i][..]].concat());
            samples.push([&samples[i][..], &long[..]].concat());
        }
        samples
    }

    /// The length of the shortest front that cannot begin any valid text.
    fn first_wrong(bytes: &[u8]) -> Option<usize> {
        (0..=bytes.len()).find(|&end| {
            std::str::from_utf8(&bytes[..end]).is_err_and(|error| error.error_len().is_some())
        })
    }

    #[test]
    fn equals_std_at_every_split() {
        for sample in samples() {
            let expected = std::str::from_utf8(&sample).is_ok();
            assert_eq!(parse_text(&sample).is_ok(), expected, "{sample:x?}");
            for split in 0..=sample.len() {
                let (front, back) = sample.split_at(split);
                let mut validator = Utf8Validator::new();
                let result = validator
                    .push(front)
                    .and_then(|()| validator.push(back))
                    .and_then(|()| validator.finish());
                assert_eq!(result.is_ok(), expected, "{sample:x?} at {split}");
            }
        }
    }

    #[test]
    fn fails_at_the_first_wrong_byte() {
        for sample in samples() {
            let mut validator = Utf8Validator::new();
            let failed = (0..sample.len()).find(|&i| validator.push(&sample[i..=i]).is_err());
            assert_eq!(failed.map(|i| i + 1), first_wrong(&sample), "{sample:x?}");
        }
    }

    #[test]
    fn equals_std_for_all_short_sequences_of_interesting_bytes() {
        let bytes = [
            b'a', 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xed,
            0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff,
        ];
        for i in 0..bytes.len().pow(4) {
            let pick = |place: u32| bytes[i / bytes.len().pow(place) % bytes.len()];
            let text = [pick(0), pick(1), pick(2), pick(3)];
            let mut validator = Utf8Validator::new();
            let result = text
                .iter()
                .try_for_each(|byte| validator.push(&[*byte]))
                .and_then(|()| validator.finish());
            assert_eq!(result.is_ok(), std::str::from_utf8(&text).is_ok());
        }
    }

    #[test]
    fn short_texts_are_taken_as_the_standard_library_takes_them() {
        // Each byte value at each place of texts of each length that the short way takes.
        for len in 1..SIMD_BYTES_MIN {
            for at in 0..len {
                for byte in 0..=255 {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = byte;
                    assert_eq!(parse_text(&bytes).ok(), std::str::from_utf8(&bytes).ok());
                }
            }
        }
    }
}
