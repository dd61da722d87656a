//! The header of a frame: RFC 6455, section 5.2.
//!
//! ```text
//!    byte 0                  byte 1             then
//!   +-----+------+--------+ +------+---------+ +----------------------------+-----------+---------
//!   | FIN | RSV  | opcode | | MASK | length  | | length: 0, 2 or 8 bytes    | key: 0, 4 | payload
//!   |  1  | 1 2 3|   4    | |  1   |   7     | | (when the 7 bits say 126,  |           |
//!   +-----+------+--------+ +------+---------+ |  127), big-endian          |           |
//! ```
//!
//! This is the pure wire form. What depends on the state of the connection (masks, continuations, reserved
//! bits, limits) is the decoder's.

use super::ProtocolError;
use super::mask::mask_in_place;

/// The longest header: two bytes, a 64-bit length and a masking key.
pub const HEADER_BYTES_MAX: usize = 14;

/// The longest header without a masking key.
pub const SERVER_HEADER_BYTES_MAX: usize = 10;

/// The longest payload of a control frame (section 5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

pub(super) const FIN: u8 = 0x80;
pub(super) const RSV: u8 = RSV1 | RSV2 | RSV3;
pub(super) const MASKED: u8 = 0x80;
pub(super) const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;
const OPCODE: u8 = 0x0f;
const LENGTH: u8 = 0x7f;
pub(super) const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// Type of a frame (section 11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of a message.
    Continuation = 0x0,
    /// A text message or the first fragment of one.
    Text = 0x1,
    /// A binary message or the first fragment of one.
    Binary = 0x2,
    /// The closing handshake.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping, or is a heartbeat of its own.
    Pong = 0xa,
}

impl Opcode {
    /// Reads the opcode from the first byte of a header.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::ReservedOpcode`] for 3 to 7 and 11 to 15.
    #[inline]
    pub fn parse(first_byte: u8) -> Result<Opcode, ProtocolError> {
        match first_byte & OPCODE {
            0x0 => Ok(Opcode::Continuation),
            0x1 => Ok(Opcode::Text),
            0x2 => Ok(Opcode::Binary),
            0x8 => Ok(Opcode::Close),
            0x9 => Ok(Opcode::Ping),
            0xa => Ok(Opcode::Pong),
            _ => Err(ProtocolError::ReservedOpcode),
        }
    }

    /// Whether it is a control frame: it may stand between fragments and is never fragmented.
    #[inline]
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// This is the last, or only, fragment of its message.
    pub fin: bool,
    /// On the first frame of a message: the message is compressed, if permessage-deflate was negotiated (RFC 7692,
    /// section 6). Reserved otherwise.
    pub rsv1: bool,
    /// Reserved for extensions.
    pub rsv2: bool,
    /// Reserved for extensions.
    pub rsv3: bool,
    /// Type of the frame.
    pub opcode: Opcode,
    /// The masking key, if the payload is masked.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload that follow the header. Under 2^63.
    pub payload_len: u64,
}

impl Header {
    /// Reads a header off the front of `bytes`, and its length. `None`: more bytes are needed.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the wire form, as early as the bytes allow: a wrong first byte fails alone.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProtocolError> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let opcode = parse_first_byte(first)?;
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        Header::parse_rest(first, opcode, second, bytes)
    }

    /// The same, of a first byte that [`parse_first_byte`] has passed and a second byte. `bytes` are all.
    #[inline]
    pub(super) fn parse_rest(
        first: u8,
        opcode: Opcode,
        second: u8,
        bytes: &[u8],
    ) -> Result<Option<(Header, usize)>, ProtocolError> {
        if opcode.is_control() && usize::from(second & LENGTH) > CONTROL_PAYLOAD_BYTES_MAX {
            return Err(ProtocolError::ControlTooLong);
        }
        let Some((payload_len, length_end)) = parse_length(second & LENGTH, bytes)? else {
            return Ok(None);
        };
        let (mask, header_len) = if second & MASKED == 0 {
            (None, length_end)
        } else {
            let Some(key) = bytes[length_end..].first_chunk::<4>() else {
                return Ok(None);
            };
            (Some(*key), length_end + 4)
        };
        let header = Header {
            fin: first & FIN != 0,
            rsv1: first & RSV1 != 0,
            rsv2: first & RSV2 != 0,
            rsv3: first & RSV3 != 0,
            opcode,
            mask,
            payload_len,
        };
        Ok(Some((header, header_len)))
    }

    /// Appends the header, its length in the shortest form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (mut bytes, len) = encode_server_header(self.opcode, self.fin, self.payload_len);
        for (set, bit) in [(self.rsv1, RSV1), (self.rsv2, RSV2), (self.rsv3, RSV3)] {
            bytes[0] |= if set { bit } else { 0 };
        }
        bytes[1] |= if self.mask.is_some() { MASKED } else { 0 };
        out.extend_from_slice(&bytes[..len]);
        if let Some(key) = self.mask {
            out.extend_from_slice(&key);
        }
    }
}

/// Checks all that the first byte of a header tells by itself.
#[inline]
pub(super) fn parse_first_byte(first: u8) -> Result<Opcode, ProtocolError> {
    let opcode = Opcode::parse(first)?;
    if opcode.is_control() && first & FIN == 0 {
        return Err(ProtocolError::ControlFragmented);
    }
    Ok(opcode)
}

/// Reads the payload length, whose first seven bits are `short`, and says where it ends in the header.
#[inline]
fn parse_length(short: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, ProtocolError> {
    match short {
        LENGTH_16 => {
            let Some(length) = bytes[2..].first_chunk::<2>() else {
                return Ok(None);
            };
            let length = u64::from(u16::from_be_bytes(*length));
            if length < u64::from(LENGTH_16) {
                return Err(ProtocolError::NonMinimalLength);
            }
            Ok(Some((length, 4)))
        }
        LENGTH_64 => parse_length_64(bytes),
        short => Ok(Some((u64::from(short), 2))),
    }
}

/// Reads a 64-bit payload length. The top bit is its first and fails at once; whether the form is the
/// shortest shows when six bytes are there.
fn parse_length_64(bytes: &[u8]) -> Result<Option<(u64, usize)>, ProtocolError> {
    if bytes.get(2).is_some_and(|byte| byte & 0x80 != 0) {
        return Err(ProtocolError::LengthTooLarge);
    }
    if bytes.len() >= 8 && bytes[2..8].iter().all(|byte| *byte == 0) {
        return Err(ProtocolError::NonMinimalLength);
    }
    let Some(length) = bytes[2..].first_chunk::<8>() else {
        return Ok(None);
    };
    Ok(Some((u64::from_be_bytes(*length), 10)))
}

/// Encodes the header of an unmasked frame on the stack: the bytes, and how many of them count.
///
/// `payload_len` must be under 2^63, and at most 125 for a control frame, which must have `fin`.
#[inline]
pub fn encode_server_header(
    opcode: Opcode,
    fin: bool,
    payload_len: u64,
) -> ([u8; SERVER_HEADER_BYTES_MAX], usize) {
    debug_assert!(payload_len >> 63 == 0);
    debug_assert!(!opcode.is_control() || (fin && payload_len <= CONTROL_PAYLOAD_BYTES_MAX as u64));
    let mut bytes = [0; SERVER_HEADER_BYTES_MAX];
    bytes[0] = opcode as u8 | if fin { FIN } else { 0 };
    let len = if payload_len < u64::from(LENGTH_16) {
        bytes[1] = payload_len as u8;
        2
    } else if let Ok(payload_len) = u16::try_from(payload_len) {
        bytes[1] = LENGTH_16;
        bytes[2..4].copy_from_slice(&payload_len.to_be_bytes());
        4
    } else {
        bytes[1] = LENGTH_64;
        bytes[2..].copy_from_slice(&payload_len.to_be_bytes());
        10
    };
    (bytes, len)
}

/// Appends a whole frame with FIN set; a client passes a fresh, unpredictable key as `mask` (section 5.3).
#[inline]
pub fn encode_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    if mask.is_none() && payload.len() < usize::from(LENGTH_16) {
        out.reserve(2 + payload.len());
        out.extend_from_slice(&[FIN | opcode as u8, payload.len() as u8]);
        return out.extend_from_slice(payload);
    }
    out.reserve(HEADER_BYTES_MAX + payload.len());
    let header = Header {
        fin: true,
        rsv1: false,
        rsv2: false,
        rsv3: false,
        opcode,
        mask,
        payload_len: payload.len() as u64,
    };
    header.encode(out);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        mask_in_place(&mut out[start..], key, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_header(payload_len: u64, mask: Option<[u8; 4]>) -> Header {
        Header {
            fin: true,
            rsv1: false,
            rsv2: false,
            rsv3: false,
            opcode: Opcode::Text,
            mask,
            payload_len,
        }
    }

    #[test]
    fn examples_of_section_5_7() {
        let mut out = Vec::new();
        encode_frame(&mut out, Opcode::Text, b"Hello", None);
        assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        out.clear();
        encode_frame(
            &mut out,
            Opcode::Text,
            b"Hello",
            Some([0x37, 0xfa, 0x21, 0x3d]),
        );
        let masked = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        assert_eq!(out, masked);
        let header = text_header(5, Some([0x37, 0xfa, 0x21, 0x3d]));
        assert_eq!(Header::parse(&masked), Ok(Some((header, 6))));
        out.clear();
        encode_frame(&mut out, Opcode::Binary, &[0; 256], None);
        assert_eq!(out[..4], [0x82, 0x7e, 0x01, 0x00]);
        out.clear();
        encode_frame(&mut out, Opcode::Binary, &[0; 65536], None);
        assert_eq!(out[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn what_is_encoded_parses_and_no_front_of_it_does() {
        let lengths = [0, 1, 125, 126, 127, 65535, 65536, 1 << 32, (1 << 63) - 1];
        for payload_len in lengths {
            for mask in [None, Some([9, 8, 7, 6])] {
                for rsv in 0..8 {
                    let header = Header {
                        rsv1: rsv & 4 != 0,
                        rsv2: rsv & 2 != 0,
                        rsv3: rsv & 1 != 0,
                        fin: payload_len % 2 == 0,
                        ..text_header(payload_len, mask)
                    };
                    let mut out = Vec::new();
                    header.encode(&mut out);
                    assert!(out.len() <= HEADER_BYTES_MAX);
                    assert_eq!(Header::parse(&out), Ok(Some((header, out.len()))));
                    for end in 0..out.len() {
                        assert_eq!(Header::parse(&out[..end]), Ok(None));
                    }
                }
            }
        }
    }

    #[test]
    fn a_wrong_first_byte_fails_alone() {
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            assert_eq!(
                Header::parse(&[0x80 | opcode]),
                Err(ProtocolError::ReservedOpcode)
            );
        }
        for opcode in [8, 9, 10] {
            assert_eq!(
                Header::parse(&[opcode]),
                Err(ProtocolError::ControlFragmented)
            );
        }
    }

    #[test]
    fn wrong_lengths_fail_as_early_as_they_show() {
        let cases: [(&[u8], ProtocolError); 6] = [
            (&[0x89, 126], ProtocolError::ControlTooLong),
            (&[0x88, 0xff], ProtocolError::ControlTooLong),
            (&[0x82, 126, 0, 125], ProtocolError::NonMinimalLength),
            (
                &[0x82, 127, 0, 0, 0, 0, 0, 0],
                ProtocolError::NonMinimalLength,
            ),
            (&[0x82, 127, 0x80], ProtocolError::LengthTooLarge),
            (&[0x82, 255, 0xff], ProtocolError::LengthTooLarge),
        ];
        for (bytes, error) in cases {
            assert_eq!(Header::parse(bytes), Err(error), "{bytes:x?}");
            assert_eq!(
                Header::parse(&bytes[..bytes.len() - 1]),
                Ok(None),
                "{bytes:x?}"
            );
        }
    }
}
