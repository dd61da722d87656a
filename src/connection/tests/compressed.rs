//! Compressed messages: their place among the others, and what is held for them.

use super::*;
use crate::protocol::ProtocolError;
use crate::protocol::deflate::{Compression, Inflater, TakeoverDeflater};

const COMPRESSED_TEXT: u8 = 0xc1;
/// `Hello`, and the same again by a reference to it (RFC 7692, section 7.2.3.2).
const HELLO: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
const HELLO_AGAIN: &[u8] = &[0xf2, 0x00, 0x11, 0x00, 0x00];

fn deflate(message: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    TakeoverDeflater::new(Compression::default()).deflate(message, &mut payload);
    payload
}

#[test]
fn they_stand_in_the_order_of_all_messages() {
    let mut bytes = text("first");
    bytes.extend(frame(COMPRESSED_TEXT, HELLO));
    bytes.extend(frame(0x41, &HELLO[..2]));
    bytes.extend(frame(0x89, b"p"));
    bytes.extend(frame(0x80, &HELLO[2..]));
    bytes.extend(text("last"));
    for piece_len in [bytes.len(), 1, 5] {
        let mut driver = Driver::open_at("/deflate");
        driver.out.clear();
        bytes.chunks(piece_len).for_each(|piece| driver.feed(piece));
        assert_eq!(driver.events, ["first", "Hello", "Hello", "last"]);
        assert_eq!(driver.take_out(), b"\x8a\x01p");
        assert_eq!(driver.connection.inbound_bytes(), 0);
    }
}

#[test]
fn what_was_agreed_is_answered_and_kept() {
    let mut driver = Driver::new();
    driver.feed(
        String::from_utf8_lossy(UPGRADE)
            .replace("/ws", "/deflate")
            .as_bytes(),
    );
    let agreement = driver.connection.deflate().expect("it was agreed to");
    assert!(!agreement.client_takeover && agreement.server_takeover);
    let line = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n";
    assert!(driver.text().contains(line));
    driver.feed(&frame(0x88, b""));
    assert_eq!(driver.connection.deflate(), None);
    assert_eq!(Driver::open().connection.deflate(), None);
}

#[test]
fn one_that_is_held_back_is_kept_with_what_follows() {
    let mut driver = Driver::open_at("/deflate");
    let mut bytes = frame(COMPRESSED_TEXT, &deflate(b"hold"));
    bytes.extend(frame(COMPRESSED_TEXT, HELLO));
    driver.feed(&bytes);
    assert_eq!(driver.events, ["hold"]);
    driver.connection.lift(Hold::Hub);
    driver.feed_unread();
    assert_eq!(driver.events, ["hold", "Hello"]);
}

#[test]
fn one_turn_inflates_no_more_than_one_reads() {
    let mut driver = Driver::open_at("/deflate");
    driver.settings.limits.read_budget_bytes = 150;
    let bytes = frame(COMPRESSED_TEXT, &deflate(&[b'x'; 100])).repeat(5);
    driver.feed(&bytes);
    for count in [2, 4, 5] {
        assert_eq!(driver.events.len(), count);
        if count < 5 {
            assert!(driver.connection.has_hold(Hold::Outbox));
            driver.connection.lift(Hold::Outbox);
            driver.feed_unread();
        }
    }
}

#[test]
fn wrong_and_too_long_ones_close() {
    for (payload, error) in [
        (vec![0x07], ProtocolError::InvalidDeflate),
        (HELLO_AGAIN.to_vec(), ProtocolError::InvalidDeflate),
        (deflate(&[b'x'; 101]), ProtocolError::MessageTooBig),
        (deflate(b"\xce"), ProtocolError::InvalidUtf8),
    ] {
        let mut driver = Driver::open_at("/deflate");
        driver.feed(
            &[
                frame(COMPRESSED_TEXT, HELLO),
                frame(COMPRESSED_TEXT, &payload),
            ]
            .concat(),
        );
        assert_eq!(driver.events, ["Hello"]);
        driver.assert_ending(Label::Closing, CloseReason::Protocol(error));
        assert_eq!(driver.inflation.errors, 1);
    }
    let mut driver = Driver::open();
    driver.feed(&frame(COMPRESSED_TEXT, HELLO));
    let reason = CloseReason::Protocol(ProtocolError::ReservedBits);
    driver.assert_ending(Label::Closing, reason);
}

#[test]
fn a_context_is_counted_until_the_end() {
    let mut driver = Driver::open_at("/takeover");
    assert_eq!(driver.connection.inbound_bytes(), Inflater::BYTES);
    driver.feed(&frame(COMPRESSED_TEXT, HELLO));
    driver.feed(&frame(COMPRESSED_TEXT, HELLO_AGAIN));
    assert_eq!(driver.events, ["Hello", "Hello"]);
    assert_eq!(driver.connection.inbound_bytes(), Inflater::BYTES);
    driver.feed(&frame(0x88, b""));
    assert_eq!(driver.connection.inbound_bytes(), 0);
}

#[test]
fn behind_our_close_they_are_nobodys() {
    let mut driver = Driver::open_at("/deflate");
    driver.feed(&frame(COMPRESSED_TEXT, &deflate(b"close")));
    driver.feed(&frame(COMPRESSED_TEXT, &[0x07]));
    assert_eq!(driver.events, ["close"]);
    assert_eq!(driver.inflation.errors, 0);
}
