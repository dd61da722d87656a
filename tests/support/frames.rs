//! RFC 6455 frames by hand (section 5.2): well-formed ones, and what they are made of for those that are not.

/// The first byte of a frame: the last of its message.
pub const FIN: u8 = 0x80;
/// Opcode of a fragment that is not the first.
pub const CONTINUATION: u8 = 0x0;
/// Opcode of a text message.
pub const TEXT: u8 = 0x1;
/// Opcode of a binary message.
pub const BINARY: u8 = 0x2;
/// Opcode of Close.
pub const CLOSE: u8 = 0x8;
/// Opcode of Ping.
pub const PING: u8 = 0x9;
/// Opcode of Pong.
pub const PONG: u8 = 0xa;

/// The masking key of the examples in section 5.7.
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The first byte: FIN, the reserved bits and the opcode.
    pub first: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame with this first byte.
    pub fn new(first: u8, payload: impl Into<Vec<u8>>) -> Frame {
        Frame {
            first,
            payload: payload.into(),
        }
    }

    /// A whole text message.
    pub fn text(text: &str) -> Frame {
        Frame::new(FIN | TEXT, text)
    }

    /// The status code of a Close frame; None if it has none.
    pub fn close_code(&self) -> Option<u16> {
        assert_eq!(self.first, FIN | CLOSE, "not a Close: {self:?}");
        match *self.payload.as_slice() {
            [] => None,
            [high, low, ..] => Some(u16::from_be_bytes([high, low])),
            [_] => panic!("a status code has two bytes: {self:?}"),
        }
    }

    /// Takes a frame of a server off the front of `bytes`; None if it is not whole. A frame that no server may send
    /// fails the test: a mask, a reserved bit, a length that is not in its shortest form, a long or fragmented
    /// control frame.
    pub fn take(bytes: &mut Vec<u8>) -> Option<Frame> {
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let may_be_compressed = matches!(first, 0xc1 | 0xc2);
        assert!(
            first & 0x70 == 0 || may_be_compressed,
            "only a message may be compressed: {first:#04x}"
        );
        let (length, at) = match second {
            126 => {
                let length = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
                assert!(length > 125, "the length is not in its shortest form");
                (usize::from(length), 4)
            }
            127 => {
                let length = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
                assert!(length > 0xffff, "the length is not in its shortest form");
                (length as usize, 10)
            }
            short => (usize::from(short), 2),
        };
        if first & 0x08 != 0 {
            assert!(length < 126 && first & FIN != 0, "no control frame");
        }
        let payload = bytes.get(at..at + length)?.to_vec();
        bytes.drain(..at + length);
        Some(Frame { first, payload })
    }
}

/// A frame of a client, masked.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, 0x80, payload.len() as u64);
    bytes.extend_from_slice(&MASK);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

/// A frame without a mask, as a client must not send it.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, 0, payload.len() as u64);
    bytes.extend_from_slice(payload);
    bytes
}

/// A whole text message of a client.
pub fn text(payload: &str) -> Vec<u8> {
    masked(FIN | TEXT, payload.as_bytes())
}

/// A Close of a client.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    masked(FIN | CLOSE, &payload)
}

/// The head of a frame up to the masking key, its length in the shortest form.
pub fn head(first: u8, mask_bit: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(mask_bit | length as u8),
        126..=0xffff => {
            bytes.push(mask_bit | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask_bit | 127);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes
}
