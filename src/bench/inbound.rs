//! Frames as they arrive, by their headers: RFC 6455, section 5.2. Payloads are looked at for stamps and dropped.

use std::collections::VecDeque;

use umbel::internals::protocol::deflate::Agreement;
use umbel::internals::protocol::{CONTROL_PAYLOAD_BYTES_MAX, Header, Opcode, ProtocolError};

use super::inflating::Inflating;
use super::stamp::Stamp;

/// Bytes at the front of a message in which its stamp must stand, if a frame holds one message.
const PREFIX_BYTES: usize = 512;
/// Bytes of a frame that is searched as a whole.
const SEARCHED_FRAME_BYTES_MAX: usize = 1 << 20;

/// Bytes of a compressed frame, which is looked at as a whole.
const COMPRESSED_FRAME_BYTES_MAX: usize = 64 << 20;

/// Search for payloads in the frames of a run.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// The run whose stamps count.
    pub run: u16,
    /// Whether all of a frame is searched: it may hold several messages.
    pub is_whole: bool,
}

/// Something that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A message, all of it; or one of several in a frame. Without a stamp, it is none of this run's.
    Message(Option<Stamp>),
    /// A ping, with its payload.
    Ping(ControlPayload),
    /// A close frame, with its code; 1005 if it gave none.
    Close(u16),
}

/// The payload of a control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlPayload {
    bytes: [u8; CONTROL_PAYLOAD_BYTES_MAX],
    len: u8,
}

impl ControlPayload {
    fn new(payload: &[u8]) -> ControlPayload {
        let mut bytes = [0; CONTROL_PAYLOAD_BYTES_MAX];
        bytes[..payload.len()].copy_from_slice(payload);
        ControlPayload {
            bytes,
            len: payload.len() as u8,
        }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// One connection's state between reads.
#[derive(Debug, Default)]
pub struct Inbound {
    /// The front of a frame that is not there yet as far as it matters.
    kept: Vec<u8>,
    /// Bytes to come of a payload that has been looked at.
    skip_bytes: u64,
    /// The frame being skipped is a message's last.
    is_last: bool,
    /// A message has begun and has not ended.
    is_open: bool,
    stamp: Option<Stamp>,
    /// Messages of the current frame that stood before its last.
    earlier: VecDeque<Stamp>,
    /// What inflates, if compression was agreed to.
    inflating: Option<Box<Inflating>>,
    /// The message that has begun is compressed.
    is_compressed: bool,
}

/// A frame as far as it matters: its header, the bytes of it, and those of them that are its payload's.
struct Front {
    header: Header,
    header_bytes: usize,
    bytes: usize,
}

impl Inbound {
    /// Takes compressed messages.
    pub fn accept_compressed(&mut self, agreement: Agreement) {
        self.inflating = Some(Box::new(Inflating::new(agreement)));
    }

    /// Takes the next arrival off the front of `input`. None: all of it is taken.
    ///
    /// # Errors
    /// When the server breaks the protocol.
    #[inline]
    pub fn take_arrival(
        &mut self,
        input: &mut &[u8],
        search: Search,
    ) -> Result<Option<Arrival>, ProtocolError> {
        loop {
            if let Some(stamp) = self.earlier.pop_front() {
                return Ok(Some(Arrival::Message(Some(stamp))));
            }
            if self.skip_bytes > 0 || (self.is_open && self.is_last) {
                match self.take_skipped(input) {
                    Some(arrival) => return Ok(Some(arrival)),
                    None if self.skip_bytes > 0 => return Ok(None),
                    None => {}
                }
            }
            let arrival = if self.kept.is_empty() {
                let Some((arrival, bytes)) = self.take_front(input, search)? else {
                    self.kept.extend_from_slice(input);
                    *input = &[];
                    return Ok(None);
                };
                *input = &input[bytes..];
                arrival
            } else {
                if !self.fill_kept(input, search)? {
                    return Ok(None);
                }
                let mut kept = std::mem::take(&mut self.kept);
                let taken = self.take_front(&kept, search)?;
                let (arrival, _) = taken.expect("the front was filled");
                kept.clear();
                self.kept = kept;
                arrival
            };
            if arrival.is_some() {
                return Ok(arrival);
            }
        }
    }

    /// Skips payload. The message, if it ends there.
    #[inline]
    fn take_skipped(&mut self, input: &mut &[u8]) -> Option<Arrival> {
        let bytes = self.skip_bytes.min(input.len() as u64);
        self.skip_bytes -= bytes;
        *input = &input[bytes as usize..];
        if self.skip_bytes > 0 || !self.is_last {
            return None;
        }
        self.is_open = false;
        self.is_last = false;
        Some(Arrival::Message(self.stamp.take()))
    }

    /// Moves bytes from `input` into `kept` until the frame is there as far as it matters.
    fn fill_kept(&mut self, input: &mut &[u8], search: Search) -> Result<bool, ProtocolError> {
        loop {
            let missing = match self.parse_front(&self.kept, search)? {
                Some(front) => front.bytes.saturating_sub(self.kept.len()),
                // The length is not known before the header is there, which is a matter of a few bytes.
                None => 1,
            };
            if missing == 0 {
                return Ok(true);
            }
            let bytes = missing.min(input.len());
            self.kept.extend_from_slice(&input[..bytes]);
            *input = &input[bytes..];
            if bytes < missing {
                return Ok(false);
            }
        }
    }

    /// Acts on the frame at the front of `bytes`, and says how much of it was looked at. None: more is needed.
    #[inline]
    fn take_front(
        &mut self,
        bytes: &[u8],
        search: Search,
    ) -> Result<Option<(Option<Arrival>, usize)>, ProtocolError> {
        let Some(front) = self.parse_front(bytes, search)? else {
            return Ok(None);
        };
        let Some(payload) = bytes.get(front.header_bytes..front.bytes) else {
            return Ok(None);
        };
        let arrival = match front.header.opcode {
            Opcode::Ping => Some(Arrival::Ping(ControlPayload::new(payload))),
            Opcode::Pong => None,
            Opcode::Close => {
                let code = payload
                    .first_chunk()
                    .map_or(1005, |code| u16::from_be_bytes(*code));
                Some(Arrival::Close(code))
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                self.begin(&front.header, payload, search)?;
                None
            }
        };
        Ok(Some((arrival, front.bytes)))
    }

    #[inline]
    fn begin(
        &mut self,
        header: &Header,
        payload: &[u8],
        search: Search,
    ) -> Result<(), ProtocolError> {
        let is_first = header.opcode != Opcode::Continuation;
        if is_first == self.is_open {
            return Err(match is_first {
                true => ProtocolError::ExpectedContinuation,
                false => ProtocolError::UnexpectedContinuation,
            });
        }
        self.is_open = true;
        self.is_last = header.fin;
        self.skip_bytes = header.payload_len - payload.len() as u64;
        if is_first {
            self.is_compressed = header.rsv1;
        }
        if self.is_compressed {
            return self.inflate(is_first, payload, search);
        }
        if is_first {
            self.look_for_stamp(payload, search);
        }
        Ok(())
    }

    /// Takes a piece of a compressed message.
    fn inflate(
        &mut self,
        is_first: bool,
        payload: &[u8],
        search: Search,
    ) -> Result<(), ProtocolError> {
        let mut inflating = self.inflating.take().expect("the header was let through");
        if let Some(message) = inflating.feed(is_first, self.is_last, payload)? {
            let looked_at = match search.is_whole {
                true => message.len(),
                false => message.len().min(PREFIX_BYTES),
            };
            self.look_for_stamp(&message[..looked_at], search);
        }
        self.inflating = Some(inflating);
        Ok(())
    }

    #[inline]
    fn look_for_stamp(&mut self, payload: &[u8], search: Search) {
        self.stamp = Stamp::parse(payload, search.run);
        if search.is_whole || self.stamp.is_none() {
            self.search(payload, search);
        }
    }

    /// Looks for stamps where there is not simply one at the front.
    fn search(&mut self, mut payload: &[u8], search: Search) {
        self.stamp = None;
        while let Some((stamp, end)) = Stamp::find(payload, search.run) {
            self.earlier.extend(self.stamp.replace(stamp));
            if !search.is_whole {
                return;
            }
            payload = &payload[end..];
        }
    }

    #[inline]
    fn parse_front(&self, bytes: &[u8], search: Search) -> Result<Option<Front>, ProtocolError> {
        let Some((header, header_bytes)) = Header::parse(bytes)? else {
            return Ok(None);
        };
        if header.mask.is_some() {
            return Err(ProtocolError::MaskedFrame);
        }
        let begins_message = matches!(header.opcode, Opcode::Text | Opcode::Binary);
        let is_rsv1_good = !header.rsv1 || (begins_message && self.inflating.is_some());
        if !is_rsv1_good || header.rsv2 || header.rsv3 {
            return Err(ProtocolError::ReservedBits);
        }
        let goes_on = header.opcode == Opcode::Continuation && self.is_compressed;
        let looked_at_max = match search.is_whole {
            // What is compressed says nothing before all of it is there.
            _ if header.rsv1 || goes_on => COMPRESSED_FRAME_BYTES_MAX,
            true => SEARCHED_FRAME_BYTES_MAX,
            false => PREFIX_BYTES,
        };
        if looked_at_max == COMPRESSED_FRAME_BYTES_MAX
            && header.payload_len > COMPRESSED_FRAME_BYTES_MAX as u64
        {
            return Err(ProtocolError::MessageTooBig);
        }
        let looked_at = header.payload_len.min(looked_at_max as u64) as usize;
        Ok(Some(Front {
            header,
            header_bytes,
            bytes: header_bytes + looked_at,
        }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bench::stamp::STAMP_BYTES;
    use umbel::internals::protocol::deflate::{Compression, Offer, TakeoverDeflater};
    use umbel::internals::protocol::encode_frame;

    const SEARCH: Search = Search {
        run: 7,
        is_whole: false,
    };

    /// What a client that offers all there is agrees to, if the server takes it.
    fn agreement() -> Agreement {
        let answer = Offer::default().check_answer([&b"permessage-deflate"[..]]);
        answer.unwrap().unwrap()
    }

    fn compressed(deflater: &mut TakeoverDeflater, first: u8, message: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        deflater.deflate(message, &mut payload);
        let (front, rest) = payload.split_at(payload.len() / 2);
        let mut bytes = vec![first, front.len() as u8];
        bytes.extend(front);
        bytes.extend([0x89, 0, 0x80, rest.len() as u8]);
        bytes.extend(rest);
        bytes
    }

    fn stamp(sequence: u64) -> Stamp {
        Stamp {
            publisher: 1,
            sequence,
            intended_ticks: 9,
        }
    }

    fn payload(sequence: u64, bytes: usize) -> Vec<u8> {
        let mut front = [0; STAMP_BYTES];
        stamp(sequence).encode(SEARCH.run, &mut front);
        let mut payload = front.to_vec();
        payload.resize(bytes, b'x');
        payload
    }

    /// What arrives, read in pieces of so many bytes.
    fn arrivals(bytes: &[u8], piece: usize, search: Search) -> Vec<Arrival> {
        let mut inbound = Inbound::default();
        let mut arrivals = Vec::new();
        for mut input in bytes.chunks(piece) {
            while let Some(arrival) = inbound.take_arrival(&mut input, search).unwrap() {
                arrivals.push(arrival);
            }
            assert!(input.is_empty());
        }
        arrivals
    }

    #[test]
    fn every_way_to_split_gives_the_same() {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, Opcode::Text, &payload(0, 20), None);
        encode_frame(&mut bytes, Opcode::Ping, b"p", None);
        encode_frame(&mut bytes, Opcode::Binary, &payload(1, 3000), None);
        encode_frame(&mut bytes, Opcode::Pong, b"", None);
        encode_frame(&mut bytes, Opcode::Text, b"", None);
        bytes.extend([0x01, 60]);
        bytes.extend(payload(2, 60));
        encode_frame(&mut bytes, Opcode::Ping, b"", None);
        bytes.extend([0x80, 0]);
        encode_frame(&mut bytes, Opcode::Close, &[0x03, 0xe8], None);
        let ping = |payload: &[u8]| Arrival::Ping(ControlPayload::new(payload));
        let message = |sequence| Arrival::Message(Some(stamp(sequence)));
        let expected = [
            message(0),
            ping(b"p"),
            message(1),
            Arrival::Message(None),
            ping(b""),
            message(2),
            Arrival::Close(1000),
        ];
        for piece in (1..50).chain([511, 512, 513, 10_000]) {
            assert_eq!(arrivals(&bytes, piece, SEARCH), expected, "{piece}");
        }
    }

    #[test]
    fn stamps_inside_json_and_several_in_a_frame() {
        let json = [
            b"[\"",
            &payload(3, 40)[..],
            b"\",\"",
            &payload(4, 2000)[..],
            b"\"]",
        ]
        .concat();
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, Opcode::Text, &json, None);
        encode_frame(&mut bytes, Opcode::Text, &payload(5, 20), None);
        let message = |sequence| Arrival::Message(Some(stamp(sequence)));
        let whole = Search {
            is_whole: true,
            ..SEARCH
        };
        for piece in [1, 7, 30, 600, 10_000] {
            let expected = [message(3), message(4), message(5)];
            assert_eq!(arrivals(&bytes, piece, whole), expected);
            assert_eq!(arrivals(&bytes, piece, SEARCH), [message(3), message(5)]);
        }
    }

    #[test]
    fn compressed_messages_that_refer_to_earlier_ones() {
        let mut deflater = TakeoverDeflater::new(Compression::default());
        let mut bytes = Vec::new();
        for sequence in 0..4 {
            bytes.extend(compressed(&mut deflater, 0x41, &payload(sequence, 300)));
        }
        encode_frame(&mut bytes, Opcode::Text, &payload(4, 300), None);
        for piece in [1, 7, 30, 10_000] {
            let mut inbound = Inbound::default();
            inbound.accept_compressed(agreement());
            let mut sequences = Vec::new();
            for mut input in bytes.chunks(piece) {
                while let Some(arrival) = inbound.take_arrival(&mut input, SEARCH).unwrap() {
                    if let Arrival::Message(stamp) = arrival {
                        sequences.push(stamp.unwrap().sequence);
                    }
                }
            }
            assert_eq!(sequences, [0, 1, 2, 3, 4], "{piece}");
        }
    }

    #[test]
    fn breaches_are_errors() {
        for bytes in [
            &[0x81, 0x80][..],
            &[0xc1, 0],
            &[0x80, 0],
            &[0x01, 0, 0x01, 0],
        ] {
            let mut inbound = Inbound::default();
            let mut bytes = bytes.to_vec();
            bytes.extend([0; 4]);
            let mut input = &bytes[..];
            let error = loop {
                match inbound.take_arrival(&mut input, SEARCH) {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{bytes:?} is no breach"),
                    Err(error) => break error,
                }
            };
            assert!(!error.reason().is_empty());
        }
    }
}
