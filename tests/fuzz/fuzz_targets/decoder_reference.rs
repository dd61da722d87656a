//! The decoder against another one that copies everything, keeps everything, and is easy to believe.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbel::internals::protocol::{MessageLimits, ProtocolError, Role};
use umbel_fuzz::{Message, Outcome, Stream, decode};

fuzz_target!(|stream: Stream| {
    let bytes = stream.bytes();
    let mut reference = Reference {
        role: stream.role(),
        accepts_compressed: stream.accepts_compressed(),
        is_compressed: false,
        limits: stream.limits(),
        bytes: bytes.clone(),
        started: None,
        messages: Vec::new(),
    };
    let error = reference.run().err();
    let expected = Outcome {
        messages: reference.messages,
        error,
    };
    assert_eq!(decode(&stream, std::iter::once(&bytes[..])), expected);
});

struct Reference {
    role: Role,
    limits: MessageLimits,
    accepts_compressed: bool,
    /// The message under way is.
    is_compressed: bool,
    /// What has not been read.
    bytes: Vec<u8>,
    /// The message under way: is it text, its payload, its frames.
    started: Option<(bool, Vec<u8>, u32)>,
    messages: Vec<Message>,
}

/// `None` of this: the bytes have run out.
type Read<T> = Result<Option<T>, ProtocolError>;

impl Reference {
    fn run(&mut self) -> Result<(), ProtocolError> {
        while let Some(()) = self.frame()? {
            if let Some(Message::Close(_)) = self.messages.last() {
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let len = len.min(self.bytes.len());
        self.bytes.drain(..len).collect()
    }

    fn frame(&mut self) -> Read<()> {
        let Some(first) = self.take(1).pop() else {
            return Ok(None);
        };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        let rsv1 = first & 0x40 != 0;
        let allows_rsv1 = self.accepts_compressed && (opcode == 1 || opcode == 2);
        if first & 0x30 != 0 || (rsv1 && !allows_rsv1) {
            return Err(ProtocolError::ReservedBits);
        }
        match (opcode, &self.started) {
            (3..=7 | 11..=15, _) => return Err(ProtocolError::ReservedOpcode),
            (0, None) => return Err(ProtocolError::UnexpectedContinuation),
            (1 | 2, Some(_)) => return Err(ProtocolError::ExpectedContinuation),
            (8.., _) if !fin => return Err(ProtocolError::ControlFragmented),
            _ => {}
        }
        let Some(second) = self.take(1).pop() else {
            return Ok(None);
        };
        match (self.role, second & 0x80 != 0) {
            (Role::Server, false) => return Err(ProtocolError::UnmaskedFrame),
            (Role::Client, true) => return Err(ProtocolError::MaskedFrame),
            _ => {}
        }
        if opcode >= 8 && second & 0x7f > 125 {
            return Err(ProtocolError::ControlTooLong);
        }
        let Some(len) = self.length(second & 0x7f)? else {
            return Ok(None);
        };
        let mut key = vec![0; 4];
        if self.role == Role::Server {
            key = self.take(4);
            if key.len() < 4 {
                return Ok(None);
            }
        }
        if opcode < 8 {
            self.is_compressed = if opcode == 0 {
                self.is_compressed
            } else {
                rsv1
            };
            self.start(opcode, fin, len)?;
        }
        let mut payload = self.take(usize::try_from(len).unwrap_or(usize::MAX));
        for (i, byte) in payload.iter_mut().enumerate() {
            *byte ^= key[i % 4];
        }
        let is_whole = payload.len() as u64 == len;
        if opcode < 8 {
            return self.data(fin, is_whole, &payload);
        }
        if !is_whole {
            return Ok(None);
        }
        let message = match opcode {
            8 => Message::Close(close(&payload)?),
            9 => Message::Ping(payload),
            _ => Message::Pong(payload),
        };
        self.messages.push(message);
        Ok(Some(()))
    }

    /// A length of which some bytes are missing is wrong if every number it could become is.
    fn length(&mut self, short: u8) -> Read<u64> {
        let (size, min) = match short {
            126 => (2, 126),
            127 => (8, 65536),
            short => return Ok(Some(u64::from(short))),
        };
        let bytes = self.take(size);
        let filled = |fill: u8| {
            let mut all = bytes.clone();
            all.resize(size, fill);
            all.iter()
                .fold(0, |number: u64, byte| number << 8 | u64::from(*byte))
        };
        if filled(0) >= 1 << 63 {
            return Err(ProtocolError::LengthTooLarge);
        }
        if filled(0xff) < min {
            return Err(ProtocolError::NonMinimalLength);
        }
        Ok((bytes.len() == size).then(|| filled(0)))
    }

    fn start(&mut self, opcode: u8, fin: bool, len: u64) -> Result<(), ProtocolError> {
        if opcode != 0 {
            self.started = Some((opcode == 1, Vec::new(), 0));
        }
        let (_, payload, frames) = self.started.as_mut().expect("a continuation has a message");
        if payload.len() as u64 + len > self.limits.message_bytes_max {
            return Err(ProtocolError::MessageTooBig);
        }
        *frames += 1;
        let is_fragmented = opcode == 0 || !fin;
        if is_fragmented && *frames > self.limits.fragments_max {
            return Err(ProtocolError::TooManyFragments);
        }
        Ok(())
    }

    fn data(&mut self, fin: bool, is_whole: bool, piece: &[u8]) -> Read<()> {
        let (is_text, payload, _) = self.started.as_mut().expect("the message has started");
        payload.extend_from_slice(piece);
        let text = std::str::from_utf8(payload);
        let is_last = fin && is_whole;
        let is_wrong = text.is_err_and(|error| error.error_len().is_some() || is_last);
        if *is_text && is_wrong && !self.is_compressed {
            return Err(ProtocolError::InvalidUtf8);
        }
        if is_last {
            let message = match text {
                _ if self.is_compressed => Message::Compressed(*is_text, payload.clone()),
                Ok(text) if *is_text => Message::Text(text.to_owned()),
                _ => Message::Binary(payload.clone()),
            };
            self.messages.push(message);
            self.started = None;
        }
        Ok(is_whole.then_some(()))
    }
}

fn close(payload: &[u8]) -> Result<Option<(u16, String)>, ProtocolError> {
    match payload {
        [] => Ok(None),
        [_] => Err(ProtocolError::CloseTooShort),
        [high, low, reason @ ..] => {
            let code = u16::from(*high) << 8 | u16::from(*low);
            let reserved = [1004, 1005, 1006, 1015];
            let is_registered = (1000..=1015).contains(&code) && !reserved.contains(&code);
            if !is_registered && !(3000..5000).contains(&code) {
                return Err(ProtocolError::InvalidCloseCode);
            }
            match String::from_utf8(reason.to_vec()) {
                Ok(reason) => Ok(Some((code, reason))),
                Err(_) => Err(ProtocolError::InvalidUtf8),
            }
        }
    }
}
