//! What a peer keeps that has agreed to permessage-deflate: its own context, and what it knows of the node's.

use umbel::protocol::Opcode;
use umbel::protocol::Received;
use umbel::protocol::deflate::{
    Agreement, Compression as Setting, Deflater, Inflater, Offer, TakeoverDeflater,
};

/// The longest message that a peer takes.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

pub struct Compression {
    inflater: Inflater,
    way_out: WayOut,
}

enum WayOut {
    Single(Deflater),
    Sequence(TakeoverDeflater),
}

impl Compression {
    /// What the node's answer agrees to, if anything. The offer is what browsers send.
    pub fn agree(head: &str) -> Option<Compression> {
        let values = head
            .lines()
            .filter_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "))
            .map(str::as_bytes);
        let agreement: Agreement = Offer::default()
            .check_answer(values)
            .expect("an answer that fits the offer")?;
        let setting = Setting::default();
        Some(Compression {
            inflater: Inflater::new(agreement.server_takeover),
            way_out: match agreement.client_takeover {
                true => WayOut::Sequence(TakeoverDeflater::new(setting)),
                false => WayOut::Single(Deflater::new(setting)),
            },
        })
    }

    /// The header line that offers it.
    pub fn offer() -> String {
        format!(
            "Sec-WebSocket-Extensions: {}\r\n",
            Offer::default().encode()
        )
    }

    pub fn inflate(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let inflated = self
            .inflater
            .inflate(Opcode::Binary, payload, MESSAGE_BYTES_MAX, &mut out);
        match inflated.expect("what the node compresses inflates") {
            Received::Binary(bytes) => bytes.to_vec(),
            other => panic!("not what was asked for: {other:?}"),
        }
    }

    /// The payload of the compressed message. None: it is better sent as it is.
    pub fn deflate(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let mut payload = Vec::new();
        match &mut self.way_out {
            WayOut::Single(deflater) => deflater.deflate(message, &mut payload)?,
            WayOut::Sequence(deflater) => deflater.deflate(message, &mut payload),
        };
        Some(payload)
    }
}
