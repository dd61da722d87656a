//! However a stream is cut into pieces, the decoder gives the same messages and the same error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbel_fuzz::{Stream, decode};

fuzz_target!(|input: (Stream, Vec<u8>)| {
    let (stream, cuts) = input;
    let bytes = stream.bytes();
    let whole = decode(&stream, std::iter::once(&bytes[..]));

    let mut rest = &bytes[..];
    // A stream is also cut into single bytes, unless that would take long.
    let last_len = if bytes.len() < 4096 { 1 } else { 1000 };
    let mut cuts = cuts.iter();
    let pieces = std::iter::from_fn(|| {
        let len = cuts
            .next()
            .map_or(last_len, |cut| usize::from(*cut))
            .min(rest.len());
        let (piece, tail) = rest.split_at(len);
        let is_end = rest.is_empty();
        rest = tail;
        (!is_end).then_some(piece)
    });
    assert_eq!(decode(&stream, pieces), whole);
});
