//! permessage-deflate (RFC 7692) on the way out of own endpoints: what all connections of a thread share for it.
//!
//! Such a message goes to one peer, so it is compressed by itself, and fast. That is right for every peer that has
//! agreed, whether it lets the server keep its context or not.

use super::event::Message;
use super::settings::Settings;
use crate::config::Deflate;
use crate::protocol::deflate::Agreement;
#[cfg(feature = "deflate")]
use crate::protocol::deflate::{Compression, Deflater, WINDOW_BITS_MAX, WINDOW_BITS_MIN};
#[cfg(feature = "deflate")]
use crate::protocol::{Header, Opcode};

/// The fastest, for a message that one peer gets.
#[cfg(feature = "deflate")]
const LEVEL: u8 = 1;

/// Deflation shared by the handlers of one thread: a compressor for each kind of window, made when the first message
/// needs it, and its last output.
pub struct Deflation {
    /// For peers that take the largest window.
    #[cfg(feature = "deflate")]
    largest: Option<Deflater>,
    /// For all others: what refers back no further than the smallest window reaches suits every one.
    #[cfg(feature = "deflate")]
    smallest: Option<Deflater>,
    payload: Vec<u8>,
    what: Deflate,
    bytes_min: usize,
    bytes_max: usize,
    /// Messages that were compressed.
    pub messages: u64,
    /// Bytes by which those got shorter.
    pub saved_bytes: u64,
}

impl Deflation {
    /// Compresses what the settings say.
    pub fn new(settings: &Settings) -> Deflation {
        Deflation {
            #[cfg(feature = "deflate")]
            largest: None,
            #[cfg(feature = "deflate")]
            smallest: None,
            payload: Vec::new(),
            what: settings.deflate,
            bytes_min: settings.limits.deflate_bytes_min,
            bytes_max: settings.limits.deflate_bytes_max,
            messages: 0,
            saved_bytes: 0,
        }
    }

    /// Goes on by these settings.
    pub fn take_settings(&mut self, settings: &Settings) {
        self.what = settings.deflate;
        self.bytes_min = settings.limits.deflate_bytes_min;
        self.bytes_max = settings.limits.deflate_bytes_max;
    }

    /// Frees what a long message took.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.payload.clear();
        self.payload.shrink_to(bytes);
    }

    /// Appends the frame of a compressed message. False: nothing is appended, for the message is better sent as it is.
    #[inline]
    pub fn encode_frame(
        &mut self,
        agreement: Agreement,
        message: Message<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let is_wanted = match message {
            Message::Text(_) => self.what != Deflate::Off,
            Message::Binary(_) => self.what == Deflate::All,
        };
        let len = message.payload().len();
        is_wanted
            && (self.bytes_min..=self.bytes_max).contains(&len)
            && self.encode_compressed(agreement, message, out)
    }

    #[cfg(feature = "deflate")]
    fn encode_compressed(
        &mut self,
        agreement: Agreement,
        message: Message<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let (deflater, window_bits) = match agreement.server_window_bits {
            WINDOW_BITS_MAX => (&mut self.largest, WINDOW_BITS_MAX),
            _ => (&mut self.smallest, WINDOW_BITS_MIN),
        };
        let deflater = deflater.get_or_insert_with(|| {
            Deflater::new(Compression {
                level: LEVEL,
                window_bits,
                ..Compression::default()
            })
        });
        let (opcode, bytes) = match message {
            Message::Text(text) => (Opcode::Text, text.as_bytes()),
            Message::Binary(bytes) => (Opcode::Binary, bytes),
        };
        self.payload.clear();
        let Some(payload_len) = deflater.deflate(bytes, &mut self.payload) else {
            return false;
        };
        let header = Header {
            fin: true,
            rsv1: true,
            rsv2: false,
            rsv3: false,
            opcode,
            mask: None,
            payload_len: payload_len as u64,
        };
        header.encode(out);
        out.extend_from_slice(&self.payload);
        self.messages += 1;
        self.saved_bytes += (bytes.len() - payload_len) as u64;
        true
    }

    /// Without what deflates no compression is agreed to.
    #[cfg(not(feature = "deflate"))]
    fn encode_compressed(&mut self, _: Agreement, _: Message<'_>, _: &mut Vec<u8>) -> bool {
        false
    }
}
