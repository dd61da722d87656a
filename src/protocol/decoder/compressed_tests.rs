//! The decoder of a connection that has agreed to permessage-deflate: RFC 7692, section 6.

use super::*;
use crate::protocol::encode_frame;

const LIMITS: MessageLimits = MessageLimits {
    message_bytes_max: 1 << 20,
    fragments_max: 1000,
};

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame(&mut out, Opcode::Binary, payload, Some([1, 2, 3, 4]));
    out[0] = first;
    out
}

fn accepting() -> Decoder {
    let mut decoder = Decoder::new(Role::Server);
    decoder.accept_compressed();
    decoder
}

/// Everything that comes out when `bytes` arrive in pieces of `piece_len`.
fn decode(bytes: &[u8], piece_len: usize, limits: &MessageLimits) -> Vec<String> {
    let mut decoder = accepting();
    let mut out = Vec::new();
    for piece in bytes.chunks(piece_len) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        loop {
            match decoder.decode(limits, &mut input) {
                Ok(Some(received)) => out.push(format!("{received:?}")),
                Ok(None) => break,
                Err(error) => out.push(format!("{error:?}")),
            }
        }
    }
    out
}

#[test]
fn compressed_messages_are_handed_out_as_they_came() {
    let bytes = [
        frame(0xc1, b"one"),
        frame(0x81, b"plain"),
        frame(0x42, b"\xff"),
        frame(0x89, b""),
        frame(0x00, b""),
        frame(0x80, b"\xfe"),
        frame(0x01, b"pl"),
        frame(0x80, b"ain"),
        frame(0x41, b"\xce"),
        frame(0x80, b""),
        frame(0xc2, b""),
    ]
    .concat();
    let expected = [
        "Compressed(Text, [111, 110, 101])",
        r#"Text("plain")"#,
        "Ping([])",
        "Compressed(Binary, [255, 254])",
        r#"Text("plain")"#,
        "Compressed(Text, [206])",
        "Compressed(Binary, [])",
    ];
    for piece_len in 1..=bytes.len() {
        assert_eq!(decode(&bytes, piece_len, &LIMITS), expected);
    }
}

#[test]
fn a_whole_compressed_frame_is_borrowed() {
    let mut bytes = frame(0xc2, &[7; 1000]);
    let range = bytes.as_ptr_range();
    let mut decoder = accepting();
    let received = decoder.decode(&LIMITS, &mut &mut bytes[..]);
    let Ok(Some(Received::Compressed(Opcode::Binary, payload))) = received else {
        panic!("a compressed message was expected");
    };
    assert!(payload == [7; 1000] && range.contains(&payload.as_ptr()));
    assert_eq!(decoder.buffered_bytes(), 0);
}

#[test]
fn rsv1_has_a_meaning_only_where_a_message_begins() {
    let begun = frame(0x41, b"a");
    let cases = [
        (frame(0xc9, b""), "ReservedBits"),
        (frame(0xc8, b""), "ReservedBits"),
        (frame(0xca, b""), "ReservedBits"),
        (frame(0xc0, b""), "ReservedBits"),
        (frame(0xc3, b""), "ReservedBits"),
        (frame(0xe1, b""), "ReservedBits"),
        (frame(0xd1, b""), "ReservedBits"),
        (frame(0xa1, b""), "ReservedBits"),
        ([&begun[..], &frame(0xc0, b"")].concat(), "ReservedBits"),
        (
            [&begun[..], &frame(0xc1, b"")].concat(),
            "ExpectedContinuation",
        ),
        (
            [&begun[..], &frame(0x81, b"")].concat(),
            "ExpectedContinuation",
        ),
        (frame(0xc1, b"")[..1].to_vec(), ""),
    ];
    for (bytes, error) in cases {
        for piece_len in 1..=bytes.len() {
            let out = decode(&bytes, piece_len, &LIMITS);
            assert_eq!(out.concat(), error, "{bytes:x?}");
        }
    }
}

#[test]
fn compressed_bytes_count_against_the_limits() {
    let limits = MessageLimits {
        message_bytes_max: 10,
        fragments_max: 2,
    };
    let out = |bytes: &[u8]| decode(bytes, bytes.len(), &limits);
    assert_eq!(out(&frame(0xc2, &[0; 11])[..6]), ["MessageTooBig"]);
    let two = [frame(0x42, &[0; 9]), frame(0x80, &[0; 2])].concat();
    assert_eq!(out(&two), ["MessageTooBig"]);
    let three = [frame(0x42, b""), frame(0x00, b""), frame(0x80, b"")].concat();
    assert_eq!(out(&three), ["TooManyFragments"]);
}
