//! What is deflated inflates to the same, whatever the setting and whatever came before.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use umbel::internals::protocol::deflate::{
    Compression, Deflater, Inflater, TakeoverDeflater, payload_bytes_max,
};
use umbel::internals::protocol::{Opcode, Received};

#[derive(Arbitrary, Debug)]
struct Input {
    level: u8,
    window_bits: u8,
    mem_level: u8,
    messages: Vec<Message>,
}

#[derive(Arbitrary, Debug)]
struct Message {
    /// Pieces that are repeated.
    pieces: Vec<(Vec<u8>, u8)>,
    /// Bytes without a pattern behind them.
    noise: u16,
    forgets: bool,
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let pieces = self.pieces.iter();
        let mut bytes: Vec<u8> = pieces
            .flat_map(|(piece, times)| piece.repeat(usize::from(*times)))
            .collect();
        let mut state = u32::from(self.noise) + 1;
        bytes.extend((0..self.noise).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        }));
        bytes
    }
}

fuzz_target!(|input: Input| {
    let compression = Compression {
        level: input.level % 10,
        window_bits: input.window_bits % 18,
        mem_level: input.mem_level % 11,
    };
    let mut deflater = Deflater::new(compression);
    let mut takeover = TakeoverDeflater::new(compression);
    let (mut shared, mut own) = (Inflater::new(false), Inflater::new(true));
    for message in &input.messages {
        let bytes = message.bytes();
        let mut payload = Vec::new();
        if let Some(len) = deflater.deflate(&bytes, &mut payload) {
            assert!(len < bytes.len() && len == payload.len());
            check(&mut shared, &payload, &bytes);
        }
        if message.forgets {
            takeover.forget();
            own = Inflater::new(true);
        }
        payload.clear();
        let len = takeover.deflate(&bytes, &mut payload);
        assert!(len == payload.len() && len <= payload_bytes_max(bytes.len()));
        check(&mut own, &payload, &bytes);
    }
});

fn check(inflater: &mut Inflater, payload: &[u8], message: &[u8]) {
    let mut out = Vec::new();
    let inflated = inflater.inflate(Opcode::Binary, payload, message.len() as u64, &mut out);
    assert_eq!(inflated, Ok(Received::Binary(message)));
}
