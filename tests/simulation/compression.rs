//! What a peer keeps that has agreed to permessage-deflate: its own context, and what it knows of the node's.

use super::random::Random;
use umbel::internals::protocol::Opcode;
use umbel::internals::protocol::Received;
use umbel::internals::protocol::deflate::{
    Agreement, Compression as Setting, Deflater, Inflater, Offer, TakeoverDeflater,
};

/// What a peer offers: mostly what browsers do.
pub fn offer(random: &mut Random) -> Offer {
    let mut offer = Offer::default();
    match random.below(8) {
        0 => offer.server_takeover = false,
        1 => offer.server_window_bits_max = 10,
        _ => {}
    }
    offer
}

/// The longest message that a peer takes.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

pub struct Compression {
    /// The node may refer back to what it has sent before.
    pub keeps_context: bool,
    inflater: Inflater,
    way_out: WayOut,
}

enum WayOut {
    Single(Deflater),
    Sequence(TakeoverDeflater),
}

impl Compression {
    /// What the node's answer to the offer agrees to, if anything.
    pub fn agree(offer: &Offer, head: &str) -> Option<Compression> {
        let values = head
            .lines()
            .filter_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "))
            .map(str::as_bytes);
        let agreement: Agreement = offer
            .check_answer(values)
            .expect("an answer that fits the offer")?;
        let setting = Setting::default();
        Some(Compression {
            keeps_context: agreement.server_takeover,
            inflater: Inflater::new(agreement.server_takeover),
            way_out: match agreement.client_takeover {
                true => WayOut::Sequence(TakeoverDeflater::new(setting)),
                false => WayOut::Single(Deflater::new(setting)),
            },
        })
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
