//! Bytes to messages: RFC 6455, sections 5 to 8, the way in.
//!
//! A whole unfragmented frame is handed out where it was received: unmasked in place, borrowed, not copied,
//! nothing allocated. Only what is unfinished is kept: the bytes of a header inline, a payload in one box
//! (`message`) that is freed by the call after the one that handed its contents out.
//!
//! Every check is made at the first byte that shows it and in the order of the bytes, so the result does not
//! depend on how the bytes were cut into calls.

use super::frame::{
    FIN, HEADER_BYTES_MAX, Header, LENGTH_16, MASKED, Opcode, RSV, RSV1, parse_first_byte,
};
use super::mask::mask_in_place;
use super::message::{Gathered, MessageLimits, Received, Unfinished};
use super::{ProtocolError, Role};

/// The first byte of a text and of a binary message in one frame, without an extension's bits.
const PLAIN_TEXT: u8 = FIN | Opcode::Text as u8;
const PLAIN_BINARY: u8 = FIN | Opcode::Binary as u8;

/// The state of one connection's way in.
#[derive(Debug)]
pub struct Decoder {
    /// Set while a message, or the payload of a frame, is unfinished.
    unfinished: Option<Box<Unfinished>>,
    /// The front of a header that has not arrived whole.
    header: [u8; HEADER_BYTES_MAX - 1],
    /// How much of `header` is filled.
    header_len: u8,
    /// The bits of a header's first byte that no negotiated extension has given a meaning.
    reserved_bits: u8,
    /// What the next frame must be like.
    expects: Expects,
}

// One exists for each connection.
const _: () = assert!(size_of::<Decoder>() <= 24);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Masked,
    Unmasked,
    /// A close frame or an error came: whatever follows is swallowed.
    Nothing,
}

/// What one step found.
enum Step<'b> {
    /// A whole frame, borrowed from the input.
    Whole(Received<'b>),
    /// Something has become whole in `unfinished`.
    Gathered(Gathered),
    /// A piece was kept, go on.
    Kept,
}

impl Decoder {
    /// A decoder at the beginning of a connection, for a role.
    pub fn new(role: Role) -> Decoder {
        Decoder {
            unfinished: None,
            header: [0; HEADER_BYTES_MAX - 1],
            header_len: 0,
            reserved_bits: RSV,
            expects: match role {
                Role::Server => Expects::Masked,
                Role::Client => Expects::Unmasked,
            },
        }
    }

    /// Lets compressed messages through, for a connection that has agreed to permessage-deflate: RSV1 gets its meaning
    /// (RFC 7692, section 6).
    pub fn accept_compressed(&mut self) {
        self.reserved_bits &= !RSV1;
    }

    /// Returns the next whole message or control frame in `input`. It takes the bytes off the front; call it again for
    /// the rest. `None`: all of `input` is consumed, and what is unfinished is kept inside. Payloads are unmasked in
    /// place in `input`.
    ///
    /// After a close frame or an error the decoder has ended: `input` is consumed and the result is `None`,
    /// now and in all later calls. `limits` may change between calls.
    ///
    /// # Errors
    ///
    /// What the peer did wrong. Messages before it have been returned by earlier calls.
    #[inline]
    pub fn decode<'a, 'b: 'a>(
        &'a mut self,
        limits: &MessageLimits,
        input: &mut &'b mut [u8],
    ) -> Result<Option<Received<'a>>, ProtocolError> {
        if let Some((opcode, payload)) = self.take_plain(limits, input) {
            return match Received::parse(opcode, payload) {
                Ok(received) => Ok(Some(received)),
                Err(error) => Err(self.fail(input, error)),
            };
        }
        self.free_handed_out();
        while !input.is_empty() {
            if self.expects == Expects::Nothing {
                *input = &mut [];
                break;
            }
            match self.step(limits, input) {
                Ok(Step::Kept) => {}
                Ok(Step::Whole(received)) => {
                    if matches!(received, Received::Close(_)) {
                        self.end();
                    }
                    return Ok(Some(received));
                }
                Ok(Step::Gathered(gathered)) => return self.hand_out(gathered),
                Err(error) => return Err(self.fail(input, error)),
            }
        }
        Ok(None)
    }

    /// The commonest case, which needs few of the checks: a client's message in one frame, of under 64 KiB, whole, with
    /// nothing begun before it. None: it is something else, and nothing is taken.
    #[inline]
    fn take_plain<'b>(
        &self,
        limits: &MessageLimits,
        input: &mut &'b mut [u8],
    ) -> Option<(Opcode, &'b mut [u8])> {
        let [first, second, third, fourth] = *input.first_chunk()?;
        let opcode = match first {
            PLAIN_TEXT => Opcode::Text,
            PLAIN_BINARY => Opcode::Binary,
            _ => return None,
        };
        let (payload_len, key_at) = match second.wrapping_sub(MASKED) {
            short @ ..LENGTH_16 => (usize::from(short), 2),
            LENGTH_16 => (usize::from(u16::from_be_bytes([third, fourth])), 4),
            _ => return None,
        };
        let is_shortest = payload_len >= usize::from(LENGTH_16) || key_at == 2;
        let is_plain = is_shortest
            && payload_len as u64 <= limits.message_bytes_max
            && self.expects == Expects::Masked
            && (self.header_len == 0 && self.unfinished.is_none());
        if !is_plain {
            return None;
        }
        let frame = input.split_off_mut(..key_at + 4 + payload_len)?;
        let (key, payload) = frame[key_at..].split_first_chunk_mut::<4>()?;
        mask_in_place(payload, *key, 0);
        Some((opcode, payload))
    }

    /// Heap bytes held for an unfinished or just returned message.
    pub fn buffered_bytes(&self) -> usize {
        let unfinished = self.unfinished.as_ref();
        unfinished.map_or(0, |unfinished| unfinished.heap_bytes())
    }

    /// Whether a frame or a fragmented message is unfinished.
    pub fn is_mid_message(&self) -> bool {
        let unfinished = self.unfinished.as_ref();
        self.header_len > 0
            || unfinished.is_some_and(|begun| begun.is_mid_message() || begun.is_mid_frame())
    }

    /// Takes one header and what is there of its payload, or more payload of a frame that has begun.
    #[inline]
    fn step<'b>(
        &mut self,
        limits: &MessageLimits,
        input: &mut &'b mut [u8],
    ) -> Result<Step<'b>, ProtocolError> {
        if let Some(unfinished) = &mut self.unfinished
            && unfinished.is_mid_frame()
        {
            let gathered = unfinished.fill(input)?;
            return Ok(gathered.map_or(Step::Kept, Step::Gathered));
        }
        let Some(header) = self.take_header(input)? else {
            return Ok(Step::Kept);
        };
        let is_whole = header.payload_len <= input.len() as u64;
        if header.opcode.is_control() {
            if is_whole {
                return take_whole(&header, input).map(Step::Whole);
            }
        } else {
            self.check_limits(&header, limits)?;
            if is_whole && header.fin && header.opcode != Opcode::Continuation {
                return match header.rsv1 {
                    false => take_whole(&header, input).map(Step::Whole),
                    true => Ok(Step::Whole(take_compressed(&header, input))),
                };
            }
        }
        let unfinished = self.unfinished.get_or_insert_default();
        unfinished.begin_frame(&header);
        let gathered = unfinished.fill(input)?;
        Ok(gathered.map_or(Step::Kept, Step::Gathered))
    }

    /// Takes a header, whose front may have been kept, off `input`. `None`: all that is there of it is kept.
    #[inline]
    fn take_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, ProtocolError> {
        if self.header_len > 0 {
            return self.complete_header(input);
        }
        if let Some((header, header_len)) = self.parse_header(input)? {
            let _ = input.split_off_mut(..header_len);
            return Ok(Some(header));
        }
        // Every header of `HEADER_BYTES_MAX` bytes parses, so what is left is shorter.
        let kept = std::mem::take(input);
        self.header[..kept.len()].copy_from_slice(kept);
        self.header_len = kept.len() as u8;
        Ok(None)
    }

    /// The same for a header whose front was kept.
    #[cold]
    fn complete_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, ProtocolError> {
        let kept_len = usize::from(self.header_len);
        let added_len = input.len().min(HEADER_BYTES_MAX - kept_len);
        let mut bytes = [0; HEADER_BYTES_MAX];
        bytes[..kept_len].copy_from_slice(&self.header[..kept_len]);
        bytes[kept_len..kept_len + added_len].copy_from_slice(&input[..added_len]);
        let bytes = &bytes[..kept_len + added_len];
        if let Some((header, header_len)) = self.parse_header(bytes)? {
            self.header_len = 0;
            // The kept front did not parse alone, so the header ends behind it.
            let _ = input.split_off_mut(..header_len - kept_len);
            return Ok(Some(header));
        }
        self.header[..bytes.len()].copy_from_slice(bytes);
        self.header_len = bytes.len() as u8;
        let _ = input.split_off_mut(..added_len);
        Ok(None)
    }

    /// Reads a header and checks it against the state of the connection, byte by byte in order: all about
    /// the first byte comes before anything about the second.
    #[inline]
    fn parse_header(&self, bytes: &[u8]) -> Result<Option<(Header, usize)>, ProtocolError> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        if first & RSV != 0 {
            self.check_reserved(first)?;
        }
        let opcode = parse_first_byte(first)?;
        let unfinished = self.unfinished.as_ref();
        let is_mid_message = unfinished.is_some_and(|begun| begun.is_mid_message());
        match opcode {
            Opcode::Continuation if !is_mid_message => {
                return Err(ProtocolError::UnexpectedContinuation);
            }
            Opcode::Text | Opcode::Binary if is_mid_message => {
                return Err(ProtocolError::ExpectedContinuation);
            }
            _ => {}
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        match (self.expects, second & MASKED != 0) {
            (Expects::Masked, false) => return Err(ProtocolError::UnmaskedFrame),
            (Expects::Unmasked, true) => return Err(ProtocolError::MaskedFrame),
            _ => {}
        }
        Header::parse_rest(first, opcode, second, bytes)
    }

    /// Checks the reserved bits of a header's first byte, where one is set: no more than RSV1, where a message begins.
    #[cold]
    fn check_reserved(&self, first: u8) -> Result<(), ProtocolError> {
        let begins_message = matches!(Opcode::parse(first), Ok(Opcode::Text | Opcode::Binary));
        if first & self.reserved_bits != 0 || !begins_message {
            return Err(ProtocolError::ReservedBits);
        }
        Ok(())
    }

    /// Checks a data frame against the limits, before any of its payload is taken.
    #[inline]
    fn check_limits(&self, header: &Header, limits: &MessageLimits) -> Result<(), ProtocolError> {
        let unfinished = self.unfinished.as_ref();
        let (message_bytes, fragments) =
            unfinished.map_or((0, 0), |begun| (begun.message_bytes(), begun.fragments()));
        if header.payload_len > limits.message_bytes_max.saturating_sub(message_bytes) {
            return Err(ProtocolError::MessageTooBig);
        }
        let is_fragment = !header.fin || header.opcode == Opcode::Continuation;
        if is_fragment && fragments >= limits.fragments_max {
            return Err(ProtocolError::TooManyFragments);
        }
        Ok(())
    }

    /// Hands out what has become whole in `unfinished`, where it has been checked.
    fn hand_out(&mut self, gathered: Gathered) -> Result<Option<Received<'_>>, ProtocolError> {
        if gathered == Gathered::Control(Opcode::Close) {
            self.expects = Expects::Nothing;
        }
        let unfinished = self.unfinished.as_ref();
        let unfinished = unfinished.expect("something was gathered in it");
        unfinished.received(gathered).map(Some)
    }

    /// Frees the message that the last call returned.
    #[inline]
    pub fn free_handed_out(&mut self) {
        if let Some(unfinished) = &self.unfinished {
            let is_idle = !unfinished.is_mid_message() && !unfinished.is_mid_frame();
            if is_idle || self.expects == Expects::Nothing {
                self.unfinished = None;
            }
        }
    }

    /// Frees what has come of a message that nobody wants any more; its frames are followed to their ends.
    pub fn discard_payload(&mut self) {
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.discard_payload();
        }
    }

    #[cold]
    fn fail(&mut self, input: &mut &mut [u8], error: ProtocolError) -> ProtocolError {
        self.end();
        *input = &mut [];
        error
    }

    #[cold]
    fn end(&mut self) {
        self.expects = Expects::Nothing;
        self.header_len = 0;
        self.unfinished = None;
    }
}

/// Takes a payload that is whole in `input` and needs no gathering.
#[inline]
fn take_whole<'b>(
    header: &Header,
    input: &mut &'b mut [u8],
) -> Result<Received<'b>, ProtocolError> {
    Received::parse(header.opcode, take_payload(header, input))
}

/// The same of a compressed message.
#[cold]
fn take_compressed<'b>(header: &Header, input: &mut &'b mut [u8]) -> Received<'b> {
    Received::Compressed(header.opcode, take_payload(header, input))
}

#[inline]
fn take_payload<'b>(header: &Header, input: &mut &'b mut [u8]) -> &'b [u8] {
    let payload = input
        .split_off_mut(..header.payload_len as usize)
        .expect("the caller found the payload whole");
    if let Some(key) = header.mask {
        mask_in_place(payload, key, 0);
    }
    payload
}

#[cfg(test)]
mod compressed_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{CloseCode, CloseFrame, encode_frame};

    const LIMITS: MessageLimits = MessageLimits {
        message_bytes_max: 1 << 20,
        fragments_max: 1000,
    };
    const KEY: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

    /// Everything that comes out when `bytes` arrive in pieces of `len`: messages as text, then the
    /// error if there is one.
    fn decode_in(bytes: &[u8], len: usize, role: Role, limits: &MessageLimits) -> Vec<String> {
        let mut decoder = Decoder::new(role);
        let mut out = Vec::new();
        for piece in bytes.chunks(len) {
            let mut piece = piece.to_vec();
            let mut input = &mut piece[..];
            loop {
                match decoder.decode(limits, &mut input) {
                    Ok(Some(received)) => out.push(format!("{received:?}")),
                    Ok(None) => break,
                    Err(error) => {
                        out.push(format!("{error:?}"));
                        assert_eq!(decoder.buffered_bytes(), 0);
                    }
                }
            }
            assert!(input.is_empty());
        }
        out
    }

    /// The same for a server, after checking that pieces of any length make no difference.
    fn decode(bytes: &[u8]) -> Vec<String> {
        decode_with(bytes, &LIMITS)
    }

    fn decode_with(bytes: &[u8], limits: &MessageLimits) -> Vec<String> {
        let whole = decode_in(bytes, bytes.len(), Role::Server, limits);
        for piece_len in (1..bytes.len()).take(40) {
            let pieces = decode_in(bytes, piece_len, Role::Server, limits);
            assert_eq!(pieces, whole, "in pieces of {piece_len}");
        }
        whole
    }

    /// A masked frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_frame(&mut out, Opcode::Binary, payload, KEY);
        out[0] = first;
        out
    }

    #[test]
    fn examples_of_section_5_7() {
        let masked = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        assert_eq!(decode(&masked), [r#"Text("Hello")"#]);
        let unmasked = b"\x01\x03Hel\x89\x05Hello\x80\x02lo";
        let ping = "Ping([72, 101, 108, 108, 111])";
        for piece_len in 1..unmasked.len() {
            let received = decode_in(unmasked, piece_len, Role::Client, &LIMITS);
            assert_eq!(received, [ping, r#"Text("Hello")"#]);
        }
    }

    #[test]
    fn a_whole_frame_is_borrowed_and_nothing_is_kept() {
        let mut bytes = [frame(0x81, b"one"), frame(0x82, &[7; 70_000])].concat();
        let range = bytes.as_ptr_range();
        let mut input = &mut bytes[..];
        let mut decoder = Decoder::new(Role::Server);
        let Ok(Some(Received::Text(text))) = decoder.decode(&LIMITS, &mut input) else {
            panic!("a text was expected");
        };
        assert!(text == "one" && range.contains(&text.as_ptr()));
        let Ok(Some(Received::Binary(binary))) = decoder.decode(&LIMITS, &mut input) else {
            panic!("a binary was expected");
        };
        assert!(binary == [7; 70_000] && range.contains(&binary.as_ptr()));
        assert_eq!(decoder.buffered_bytes(), 0);
        assert!(!decoder.is_mid_message());
    }

    #[test]
    fn what_was_gathered_is_freed_by_the_next_call() {
        let bytes = frame(0x82, &[7; 1000]);
        let (mut front, mut back) = (bytes[..500].to_vec(), bytes[500..].to_vec());
        let mut decoder = Decoder::new(Role::Server);
        assert_eq!(decoder.decode(&LIMITS, &mut &mut front[..]), Ok(None));
        assert!(decoder.is_mid_message() && decoder.buffered_bytes() < 1500);
        let received = decoder.decode(&LIMITS, &mut &mut back[..]);
        assert_eq!(received, Ok(Some(Received::Binary(&[7; 1000]))));
        assert!(!decoder.is_mid_message() && decoder.buffered_bytes() > 0);
        assert_eq!(decoder.decode(&LIMITS, &mut &mut [][..]), Ok(None));
        assert_eq!(decoder.buffered_bytes(), 0);
    }

    #[test]
    fn an_unfinished_header_is_mid_message_and_costs_no_heap() {
        let mut decoder = Decoder::new(Role::Server);
        for byte in [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3] {
            assert_eq!(decoder.decode(&LIMITS, &mut &mut [byte][..]), Ok(None));
            assert!(decoder.is_mid_message());
            assert_eq!(decoder.buffered_bytes(), 0);
        }
        assert_eq!(decoder.decode(&LIMITS, &mut &mut [4][..]), Ok(None));
        assert!(decoder.is_mid_message() && decoder.buffered_bytes() < 256);
    }

    #[test]
    fn control_frames_stand_between_fragments() {
        let bytes = [
            frame(0x01, "κό".as_bytes()),
            frame(0x89, b""),
            frame(0x00, b""),
            frame(0x8a, &[1; 125]),
            frame(0x80, "σμε".as_bytes()),
            frame(0x82, b""),
        ]
        .concat();
        let received = decode(&bytes);
        assert_eq!(received.len(), 4);
        assert_eq!(received[0], "Ping([])");
        assert!(received[1].starts_with("Pong([1, 1, "));
        assert_eq!(received[2..], [r#"Text("κόσμε")"#, "Binary([])"]);
    }

    #[test]
    fn messages_before_an_error_are_received_and_nothing_after_it() {
        let cases: [(&[u8], &str); 16] = [
            (&frame(0xc1, b"x"), "ReservedBits"),
            (&frame(0xa1, b"x"), "ReservedBits"),
            (&frame(0x91, b"x"), "ReservedBits"),
            (&frame(0x83, b"x"), "ReservedOpcode"),
            (&frame(0x8b, b"x"), "ReservedOpcode"),
            (&[0x81, 0x01, b'x'], "UnmaskedFrame"),
            (&frame(0x80, b"x"), "UnexpectedContinuation"),
            (
                &[frame(0x01, b"a"), frame(0x81, b"b")].concat(),
                "ExpectedContinuation",
            ),
            (&frame(0x09, b"x"), "ControlFragmented"),
            (&frame(0x89, &[0; 126]), "ControlTooLong"),
            (&[0x82, 0xfe, 0, 125, 0, 0, 0, 0], "NonMinimalLength"),
            (
                &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 255, 255],
                "NonMinimalLength",
            ),
            (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], "LengthTooLarge"),
            (&frame(0x88, b"x"), "CloseTooShort"),
            (&frame(0x88, b"\x03\xed"), "InvalidCloseCode"),
            (&frame(0x88, b"\x03\xe8\xff"), "InvalidUtf8"),
        ];
        for (bad, error) in cases {
            let bytes = [&frame(0x81, b"good"), bad, &frame(0x81, b"lost")].concat();
            assert_eq!(decode(&bytes), [r#"Text("good")"#, error]);
        }
        assert_eq!(
            decode_in(&frame(0x81, b"x"), 9, Role::Client, &LIMITS),
            ["MaskedFrame"]
        );
    }

    #[test]
    fn nothing_follows_a_close() {
        let close = frame(0x88, b"\x03\xe8bye");
        let bytes = [frame(0x01, b"unfinished"), close, frame(0x80, b"lost")].concat();
        let received = Received::Close(Some(CloseFrame {
            code: CloseCode::NORMAL,
            reason: "bye",
        }));
        assert_eq!(decode(&bytes), [format!("{received:?}")]);
        assert_eq!(decode(&frame(0x88, b"")), ["Close(None)"]);
    }

    #[test]
    fn wrong_utf8_fails_at_its_first_byte_inside_an_unfinished_frame() {
        let text = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited";
        let mut bytes = frame(0x01, text);
        let mut decoder = Decoder::new(Role::Server);
        let wrong_at = 6 + 12;
        let mut before = &mut bytes[..wrong_at].to_vec()[..];
        assert_eq!(decoder.decode(&LIMITS, &mut before), Ok(None));
        let mut wrong = &mut bytes[wrong_at..=wrong_at];
        let error = Err(ProtocolError::InvalidUtf8);
        assert_eq!(decoder.decode(&LIMITS, &mut wrong), error);
        assert_eq!(decoder.buffered_bytes(), 0);
        // A character cut by the end of the message is wrong, by the end of a fragment it is not.
        assert_eq!(decode(&frame(0x81, b"\xce")), ["InvalidUtf8"]);
        let fragments = [frame(0x01, b"\xce"), frame(0x80, b"\xba")].concat();
        assert_eq!(decode(&fragments), [r#"Text("κ")"#]);
    }

    #[test]
    fn limits_fail_by_the_header_alone() {
        let limits = MessageLimits {
            message_bytes_max: 10,
            fragments_max: 3,
        };
        assert_eq!(
            decode_with(&frame(0x82, &[0; 11])[..6], &limits),
            ["MessageTooBig"]
        );
        let long = [
            0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0,
        ];
        assert_eq!(decode_with(&long, &limits), ["MessageTooBig"]);
        let exact = [frame(0x02, &[0; 9]), frame(0x80, &[0; 1])].concat();
        assert_eq!(decode_with(&exact, &limits).len(), 1);
        let over = [frame(0x02, &[0; 9]), frame(0x80, &[0; 2])].concat();
        assert_eq!(
            decode_with(&over[..over.len() - 2], &limits),
            ["MessageTooBig"]
        );
        let three = [frame(0x02, b""), frame(0x00, b""), frame(0x80, b"")].concat();
        assert_eq!(decode_with(&three, &limits), ["Binary([])"]);
        let four = [&three[..6], &three[6..12], &three[6..]].concat();
        assert_eq!(decode_with(&four, &limits), ["TooManyFragments"]);
        // Each message is counted for itself, and a control frame counts for none.
        let twice = [&three[..], &frame(0x89, b"0123456789ab"), &three].concat();
        assert_eq!(decode_with(&twice, &limits).len(), 3);
    }
}
