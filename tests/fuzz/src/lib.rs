//! What the fuzz targets share: streams of frames that are mostly well-formed, and what is received of them.

pub mod tls_peer;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use umbel::internals::protocol::{
    CloseFrame, Decoder, MessageLimits, Opcode, ProtocolError, Received, Role, mask_in_place,
};

/// One connection's way in: who receives, under which limits, and what.
#[derive(Arbitrary, Debug)]
pub struct Stream {
    is_server: bool,
    accepts_compressed: bool,
    message_bytes_max: u16,
    fragments_max: u8,
    frames: Vec<Frame>,
}

/// A frame with any flags, or any bytes at all.
#[derive(Arbitrary, Debug)]
enum Frame {
    /// Masked as it should be, with its length in the shortest form.
    Formed {
        first_byte: u8,
        key: [u8; 4],
        payload: Payload,
    },
    /// A continuation or a control frame without reserved bits, so that messages get whole.
    Good {
        fin: bool,
        kind: u8,
        key: [u8; 4],
        payload: Payload,
    },
    Raw(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Payload {
    Bytes(Vec<u8>),
    Text(String),
    /// The same byte many times, for the longer forms of the length.
    Run {
        byte: u8,
        len: u32,
    },
}

impl Payload {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Payload::Bytes(bytes) => bytes.clone(),
            Payload::Text(text) => text.clone().into_bytes(),
            Payload::Run { byte, len } => vec![*byte; *len as usize % 70_000],
        }
    }
}

impl Stream {
    /// The side that receives.
    pub fn role(&self) -> Role {
        if self.is_server {
            Role::Server
        } else {
            Role::Client
        }
    }

    /// Whether compressed messages are let through.
    pub fn accepts_compressed(&self) -> bool {
        self.accepts_compressed
    }

    /// The caps on a message: from nothing to a little over what a `Run` can be.
    pub fn limits(&self) -> MessageLimits {
        MessageLimits {
            message_bytes_max: u64::from(self.message_bytes_max) * 2,
            fragments_max: u32::from(self.fragments_max),
        }
    }

    /// What arrives.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in &self.frames {
            match frame {
                Frame::Raw(bytes) => out.extend_from_slice(bytes),
                Frame::Formed {
                    first_byte,
                    key,
                    payload,
                } => {
                    self.frame(&mut out, *first_byte, *key, payload.bytes());
                }
                Frame::Good {
                    fin,
                    kind,
                    key,
                    payload,
                } => {
                    let opcode = [0, 0, 1, 1, 2, 8, 9, 10][usize::from(kind % 8)];
                    let fin = if *fin || opcode >= 8 { 0x80 } else { 0 };
                    let mut payload = payload.bytes();
                    payload.truncate(if opcode >= 8 { 125 } else { payload.len() });
                    self.frame(&mut out, fin | opcode, *key, payload);
                }
            }
        }
        out
    }

    fn frame(&self, out: &mut Vec<u8>, first_byte: u8, key: [u8; 4], mut payload: Vec<u8>) {
        let mask_bit = if self.is_server { 0x80 } else { 0 };
        out.push(first_byte);
        match payload.len() {
            len @ 0..=125 => out.push(mask_bit | len as u8),
            len @ 126..=65535 => {
                out.push(mask_bit | 126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                out.push(mask_bit | 127);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        if self.is_server {
            out.extend_from_slice(&key);
            mask_in_place(&mut payload, key, 0);
        }
        out.extend_from_slice(&payload);
    }
}

/// A message or control frame that owns its payload.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Text(String),
    Binary(Vec<u8>),
    /// Text or not, and the payload as it was sent.
    Compressed(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Received<'_>> for Message {
    fn from(received: Received<'_>) -> Message {
        match received {
            Received::Text(text) => Message::Text(text.to_owned()),
            Received::Binary(bytes) => Message::Binary(bytes.to_vec()),
            Received::Compressed(opcode, bytes) => {
                Message::Compressed(opcode == Opcode::Text, bytes.to_vec())
            }
            Received::Ping(bytes) => Message::Ping(bytes.to_vec()),
            Received::Pong(bytes) => Message::Pong(bytes.to_vec()),
            Received::Close(frame) => Message::Close(
                frame.map(|CloseFrame { code, reason }| (code.get(), reason.to_owned())),
            ),
        }
    }
}

/// All that was received of a stream: the messages, and the error that ended it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub messages: Vec<Message>,
    pub error: Option<ProtocolError>,
}

/// Runs the decoder over pieces of a stream, and checks what it promises on the way.
pub fn decode<'p>(stream: &Stream, pieces: impl Iterator<Item = &'p [u8]>) -> Outcome {
    let limits = stream.limits();
    let mut decoder = Decoder::new(stream.role());
    if stream.accepts_compressed() {
        decoder.accept_compressed();
    }
    let mut outcome = Outcome::default();
    let mut arrived = 0;
    for piece in pieces {
        let mut piece = piece.to_vec();
        arrived += piece.len();
        let mut input = &mut piece[..];
        loop {
            let has_ended = outcome.error.is_some()
                || matches!(outcome.messages.last(), Some(Message::Close(_)));
            match decoder.decode(&limits, &mut input) {
                Ok(Some(received)) => {
                    assert!(!has_ended, "something followed the end");
                    outcome.messages.push(received.into());
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(!has_ended, "something followed the end");
                    outcome.error = Some(error);
                    assert_eq!(decoder.buffered_bytes(), 0);
                }
            }
        }
        assert!(input.is_empty());
        assert!(decoder.buffered_bytes() <= 256 + 2 * arrived);
        assert!(decoder.is_mid_message() || decoder.buffered_bytes() == 0);
    }
    outcome
}
