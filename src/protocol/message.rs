//! Gathering of a message or control frame that arrives in parts: RFC 6455, section 5.4.
//!
//! A payload is unmasked where it was received and checked as it arrives; then it is appended here. Memory
//! grows with what arrived, at most to twice of it, never with what a header announced.

use super::frame::{Header, Opcode};
use super::mask::mask_in_place;
use super::{CloseFrame, ProtocolError, Utf8Validator, parse_text};

/// The caps on one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimits {
    /// Payload bytes of a message over all its fragments. A frame that goes over fails by its header alone. Of a
    /// compressed message these are the compressed bytes here; inflating applies the same limit to what comes out.
    pub message_bytes_max: u64,
    /// Frames of a message that is fragmented. Empty fragments cost no memory, but they do cost time.
    pub fragments_max: u32,
}

/// A whole message or control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A compressed message, `Text` or `Binary`, as it was sent: not inflated, and a text not checked. Only a decoder
    /// that accepts it hands it out.
    Compressed(Opcode, &'a [u8]),
    /// A ping: to be answered by a pong with the same payload, at most 125 bytes.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The closing handshake. Nothing comes after it.
    Close(Option<CloseFrame<'a>>),
}

impl<'a> Received<'a> {
    /// Takes a whole, unmasked payload as what the opcode of its first frame says.
    #[inline]
    pub(super) fn parse(opcode: Opcode, payload: &'a [u8]) -> Result<Received<'a>, ProtocolError> {
        match opcode {
            Opcode::Text => Ok(Received::Text(parse_text(payload)?)),
            Opcode::Binary => Ok(Received::Binary(payload)),
            Opcode::Ping => Ok(Received::Ping(payload)),
            Opcode::Pong => Ok(Received::Pong(payload)),
            Opcode::Close => Ok(Received::Close(CloseFrame::parse(payload)?)),
            Opcode::Continuation => Err(ProtocolError::UnexpectedContinuation),
        }
    }
}

/// What has become whole inside [`Unfinished`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gathered {
    /// The message, of this type.
    Message(Opcode),
    /// The compressed message, of this type.
    Compressed(Opcode),
    /// The control frame.
    Control(Opcode),
}

/// A message and a frame of which more is to come. Exists only while there is one of them, and until the
/// call after the one that handed it out.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    /// The type of the message under way: `Text` or `Binary`.
    message: Option<Opcode>,
    /// Whether it is compressed.
    is_compressed: bool,
    /// Its payload so far.
    payload: Vec<u8>,
    /// How many of its frames have begun.
    fragments: u32,
    /// Where its text stands.
    utf8: Utf8Validator,
    /// The frame that has not arrived whole. A data frame belongs to the message.
    frame: Option<PartialFrame>,
    /// The payload so far of that frame, if it is a control frame: at most 125 bytes.
    control: Vec<u8>,
}

#[derive(Debug)]
struct PartialFrame {
    opcode: Opcode,
    fin: bool,
    mask: Option<[u8; 4]>,
    mask_phase: usize,
    remaining: u64,
}

impl Unfinished {
    /// Whether a message has begun and is not whole.
    pub(super) fn is_mid_message(&self) -> bool {
        self.message.is_some()
    }

    /// Whether a frame's payload has begun and is not whole.
    pub(super) fn is_mid_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// Payload bytes of the message so far.
    pub(super) fn message_bytes(&self) -> u64 {
        self.payload.len() as u64
    }

    /// How many frames of the message have begun.
    pub(super) fn fragments(&self) -> u32 {
        self.fragments
    }

    /// Heap bytes held, itself included.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Unfinished>() + self.payload.capacity() + self.control.capacity()
    }

    /// Begins a frame, which the caller has found to be legal here.
    pub(super) fn begin_frame(&mut self, header: &Header) {
        debug_assert!(self.frame.is_none());
        if header.opcode.is_control() {
            self.control.clear();
        } else {
            if header.opcode != Opcode::Continuation {
                debug_assert!(self.message.is_none() && self.payload.is_empty());
                self.message = Some(header.opcode);
                self.is_compressed = header.rsv1;
            }
            self.fragments += 1;
        }
        self.frame = Some(PartialFrame {
            opcode: header.opcode,
            fin: header.fin,
            mask: header.mask,
            mask_phase: 0,
            remaining: header.payload_len,
        });
    }

    /// Takes payload of the begun frame off the front of `input`. `None`: the frame needs more, or it is
    /// whole and the message needs more frames.
    pub(super) fn fill(
        &mut self,
        input: &mut &mut [u8],
    ) -> Result<Option<Gathered>, ProtocolError> {
        let frame = self.frame.as_mut().expect("fill follows begin_frame");
        let len = usize::try_from(frame.remaining)
            .unwrap_or(usize::MAX)
            .min(input.len());
        let piece = input.split_off_mut(..len).expect("len is at most input's");
        if let Some(key) = frame.mask {
            frame.mask_phase = mask_in_place(piece, key, frame.mask_phase);
        }
        frame.remaining -= len as u64;
        let (opcode, fin, remaining) = (frame.opcode, frame.fin, frame.remaining);
        if opcode.is_control() {
            self.control.extend_from_slice(piece);
        } else {
            if self.message == Some(Opcode::Text) && !self.is_compressed {
                self.utf8.push(piece)?;
            }
            self.append(piece, if fin { remaining } else { u64::MAX });
        }
        if remaining > 0 {
            return Ok(None);
        }
        self.frame = None;
        if opcode.is_control() {
            if opcode == Opcode::Close {
                CloseFrame::parse(&self.control)?;
            }
            Ok(Some(Gathered::Control(opcode)))
        } else if fin {
            self.utf8.finish()?;
            let gathered = match self.is_compressed {
                true => Gathered::Compressed,
                false => Gathered::Message,
            };
            Ok(self.message.take().map(gathered))
        } else {
            Ok(None)
        }
    }

    /// The whole payload that `gathered` names, as what it is: `fill` has found it valid. A text is checked a second time here: that is
    /// what a `&str` costs without `unsafe`, and little beside the copy that it went through.
    pub(super) fn received(&self, gathered: Gathered) -> Result<Received<'_>, ProtocolError> {
        match gathered {
            Gathered::Message(opcode) => Received::parse(opcode, &self.payload),
            Gathered::Compressed(opcode) => Ok(Received::Compressed(opcode, &self.payload)),
            Gathered::Control(opcode) => Received::parse(opcode, &self.control),
        }
    }

    /// Frees the message's payload so far. What is left of the message, of which nothing can be said without that, is
    /// taken for binary.
    pub(super) fn discard_payload(&mut self) {
        self.message = self.message.map(|_| Opcode::Binary);
        self.payload = Vec::new();
        self.utf8 = Utf8Validator::default();
    }

    /// Appends to the message's payload, which grows by at most `remaining` bytes after that. Capacity
    /// doubles, so that a message in any number of pieces is copied in linear time, but never past its end.
    fn append(&mut self, piece: &[u8], remaining: u64) {
        let needed = self.payload.len() + piece.len();
        if needed > self.payload.capacity() {
            let end = needed.saturating_add(usize::try_from(remaining).unwrap_or(usize::MAX));
            let capacity = (self.payload.capacity() * 2).min(end).max(needed);
            self.payload.reserve_exact(capacity - self.payload.len());
        }
        self.payload.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(opcode: Opcode, fin: bool, payload_len: u64) -> Header {
        Header {
            fin,
            rsv1: false,
            rsv2: false,
            rsv3: false,
            opcode,
            mask: None,
            payload_len,
        }
    }

    #[test]
    fn memory_follows_what_arrived() {
        let mut unfinished = Unfinished::default();
        let before = unfinished.heap_bytes();
        unfinished.begin_frame(&header(Opcode::Binary, true, 1 << 40));
        assert_eq!(unfinished.heap_bytes(), before);
        for arrived in 1..=1000 {
            assert_eq!(unfinished.fill(&mut &mut [0][..]), Ok(None));
            assert!(unfinished.heap_bytes() - before <= 2 * arrived);
        }
    }

    #[test]
    fn a_last_frame_is_not_given_more_than_it_needs() {
        let mut unfinished = Unfinished::default();
        unfinished.begin_frame(&header(Opcode::Binary, true, 1500));
        assert_eq!(unfinished.fill(&mut &mut [0; 1000][..]), Ok(None));
        let gathered = unfinished.fill(&mut &mut [0; 500][..]);
        assert_eq!(gathered, Ok(Some(Gathered::Message(Opcode::Binary))));
        assert_eq!(unfinished.payload.capacity(), 1500);
    }

    #[test]
    fn a_control_frame_stands_between_fragments() {
        let mut unfinished = Unfinished::default();
        unfinished.begin_frame(&header(Opcode::Text, false, 2));
        assert_eq!(unfinished.fill(&mut &mut b"ab".to_owned()[..]), Ok(None));
        unfinished.begin_frame(&header(Opcode::Ping, true, 2));
        assert_eq!(unfinished.fill(&mut &mut b"x".to_owned()[..]), Ok(None));
        let ping = Gathered::Control(Opcode::Ping);
        assert_eq!(
            unfinished.fill(&mut &mut b"y".to_owned()[..]),
            Ok(Some(ping))
        );
        assert_eq!(unfinished.received(ping), Ok(Received::Ping(b"xy")));
        unfinished.begin_frame(&header(Opcode::Continuation, true, 1));
        let text = Gathered::Message(Opcode::Text);
        assert_eq!(
            unfinished.fill(&mut &mut b"c".to_owned()[..]),
            Ok(Some(text))
        );
        assert_eq!(unfinished.received(text), Ok(Received::Text("abc")));
        assert!(!unfinished.is_mid_message() && !unfinished.is_mid_frame());
    }
}
