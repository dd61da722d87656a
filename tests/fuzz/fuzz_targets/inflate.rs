//! The inflater against another one, whole and piece by piece, within its limit.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use umbel::internals::protocol::deflate::{Compression, Inflater, TakeoverDeflater};
use umbel::internals::protocol::{Opcode, ProtocolError, Received};

const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// An empty stored block, and one that is final.
const EMPTY: [u8; 5] = [0, 0, 0, 0xff, 0xff];
const END: [u8; 5] = [1, 0, 0, 0xff, 0xff];

/// The most that the other inflater is let make.
const REFERENCE_BYTES_MAX: usize = 1 << 18;

#[derive(Arbitrary, Debug)]
struct Input {
    message_bytes_max: u16,
    cuts: Vec<u8>,
    /// A message that is deflated, and what is done to the payload: bytes are XORed, and it is cut.
    message: Option<(Vec<u8>, u8)>,
    damage: Vec<(u8, u8)>,
    is_cut: bool,
    /// What follows.
    bytes: Vec<u8>,
}

impl Input {
    fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        if let Some((message, times)) = &self.message {
            let message = message.repeat(usize::from(times % 64));
            let compression = Compression {
                level: 1 + times % 9,
                ..Compression::default()
            };
            TakeoverDeflater::new(compression).deflate(&message, &mut payload);
            for (at, bits) in &self.damage {
                let at = usize::from(*at) % payload.len();
                payload[at] ^= bits;
            }
            if self.is_cut {
                payload.pop();
            }
        }
        payload.extend_from_slice(&self.bytes);
        payload
    }
}

fuzz_target!(|input: Input| {
    let payload = input.payload();
    let max = u64::from(input.message_bytes_max) * 2;
    let mut inflater = Inflater::new(false);
    let mut out = Vec::new();
    let whole = match inflater.inflate(Opcode::Binary, &payload, max, &mut out) {
        Ok(Received::Binary(bytes)) => Ok(bytes.to_vec()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    assert!(out.len() as u64 <= max && out.capacity() as u64 <= max);

    assert_eq!(in_pieces(&payload, max, &input.cuts), whole);

    match (whole, reference(&payload)) {
        (_, None) | (Err(ProtocolError::MessageTooBig), Some(Err(()))) => {}
        (Ok(message), Some(Ok(expected))) => assert_eq!(message, expected),
        (Err(error), Some(Ok(expected))) => {
            assert_eq!(error, ProtocolError::MessageTooBig);
            assert!(expected.len() as u64 > max);
        }
        (Err(error), Some(Err(()))) => assert_eq!(error, ProtocolError::InvalidDeflate),
        (Ok(message), Some(Err(()))) => panic!("{message:x?} of {payload:x?}"),
    }
});

fn in_pieces(payload: &[u8], max: u64, cuts: &[u8]) -> Result<Vec<u8>, ProtocolError> {
    let mut inflater = Inflater::new(true);
    let mut out = Vec::new();
    let mut rest = payload;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let len = cuts.next().map_or(1, |cut| usize::from(*cut));
        let (piece, behind) = rest.split_at(len.min(rest.len()).max(1));
        inflater.feed(piece, max, &mut out)?;
        rest = behind;
    }
    inflater.finish()?;
    Ok(out)
}

/// The message, or that there is none. `None`: it is too long to say.
fn reference(payload: &[u8]) -> Option<Result<Vec<u8>, ()>> {
    let mut message = Vec::new();
    let mut rest = payload;
    while !rest.is_empty() {
        let input = [rest, &TAIL, &EMPTY, &END].concat();
        let mut state = DecompressorOxide::new();
        let mut room = vec![0; REFERENCE_BYTES_MAX];
        let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, consumed, produced) = decompress(&mut state, &input, &mut room, 0, flags);
        match status {
            TINFLStatus::HasMoreOutput => return None,
            TINFLStatus::Done => {}
            _ => return Some(Err(())),
        }
        message.extend_from_slice(&room[..produced]);
        let tail_end = rest.len() + TAIL.len();
        if consumed == input.len() || consumed == tail_end {
            break;
        }
        if consumed > rest.len() {
            return Some(Err(()));
        }
        rest = &rest[consumed..];
    }
    Some(Ok(message))
}
