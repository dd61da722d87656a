//! The ways to the end of an open connection.

use super::*;
use crate::dialect::JoinedAt;
use crate::hub::Position;
use crate::protocol::ProtocolError;

#[test]
fn the_peer_closes_first() {
    let mut driver = Driver::open();
    let mut bytes = text("last");
    bytes.extend(frame(0x88, b"\x03\xe8bye"));
    bytes.extend(text("too late"));
    driver.feed(&bytes);
    assert_eq!(driver.events, ["last"]);
    assert_eq!(driver.take_out(), b"\x88\x05\x03\xe8bye", "it comes back");
    driver.assert_ending(Label::Closing, CloseReason::Peer(CloseCode::NORMAL));
    assert!(driver.connection.wants_shutdown());
    assert!(!driver.connection.wants_shutdown(), "once");
    driver.feed(b"anything");
    assert!(
        !driver.connection.is_closed(),
        "the peer's side is read to its end"
    );
    driver.eof();
    assert!(driver.connection.is_closed());
    driver.assert_ending(Label::Closing, CloseReason::Peer(CloseCode::NORMAL));
}

#[test]
fn a_close_without_a_code_is_answered_without_one() {
    let mut driver = Driver::open();
    driver.feed(&frame(0x88, b""));
    assert_eq!(driver.take_out(), b"\x88\x00");
    driver.assert_ending(Label::Closing, CloseReason::Peer(CloseCode::NO_STATUS));
}

#[test]
fn the_server_closes_first() {
    let mut driver = Driver::open();
    driver.close(CloseReason::Shutdown);
    assert_eq!(
        driver.take_out(),
        b"\x88\x26\x03\xe9the server is shutting down; retry=1"
    );
    driver.assert_ending(Label::Closing, CloseReason::Shutdown);
    assert!(
        !driver.connection.wants_shutdown(),
        "the peer's Close is awaited"
    );
    driver.close(CloseReason::Shutdown);
    driver.feed(&[text("crossing"), frame(0x89, b"p")].concat());
    assert!(driver.events.is_empty(), "messages do not count any more");
    assert_eq!(
        driver.take_out(),
        b"\x8a\x01p",
        "pings do, until the peer's Close"
    );
    driver.feed(&frame(0x88, b"\x03\xe9"));
    assert_eq!(driver.take_out(), b"", "one Close is enough");
    assert!(driver.connection.wants_shutdown());
    driver.eof();
    assert!(driver.connection.is_closed());
    driver.assert_ending(Label::Closing, CloseReason::Shutdown);
}

#[test]
fn a_wrong_frame_fails_the_connection() {
    let mut driver = Driver::open();
    driver.feed(&[text("good"), vec![0x83, 0x80, 0, 0, 0, 0], text("bad")].concat());
    assert_eq!(driver.events, ["good"]);
    let out = driver.take_out();
    assert_eq!(out[0], 0x88);
    assert_eq!(out[2..4], 1002u16.to_be_bytes());
    driver.assert_ending(
        Label::Closing,
        CloseReason::Protocol(ProtocolError::ReservedOpcode),
    );
    assert!(
        driver.connection.wants_shutdown(),
        "the peer's Close is not awaited"
    );
    driver.eof();
    assert!(driver.connection.is_closed());
}

#[test]
fn a_message_over_the_limit_fails_it_by_its_header() {
    let mut driver = Driver::open();
    driver.feed(&[0x82, 0x80 | 101, 0, 0, 0, 0]);
    assert_eq!(driver.take_out()[2..4], 1009u16.to_be_bytes());
    assert_eq!(driver.connection.inbound_bytes(), 0);
}

/// A peer that is closed for the memory that it takes would otherwise go on taking it, and no limit would see it.
#[test]
fn what_comes_of_a_message_after_our_close_is_not_kept() {
    let mut driver = Driver::open();
    let message = "\u{e9}".repeat(45);
    let (before, after) = message.as_bytes().split_at(61);
    driver.feed(&[&[0x81, 0x80 | 90, 0, 0, 0, 0], before].concat());
    let held = driver.connection.inbound_bytes();
    driver.close(CloseReason::OverBudget);
    assert!(driver.connection.inbound_bytes() <= held - before.len());
    let (middle, last) = after.split_at(20);
    driver.feed(middle);
    assert!(driver.connection.inbound_bytes() <= held - before.len());
    driver.take_out();
    // Its end is seen all the same, and so is the Close behind it.
    driver.feed(&[last, &[0x88, 0x80, 0, 0, 0, 0]].concat());
    assert_eq!(driver.events, [""; 0]);
    assert!(driver.connection.wants_shutdown());
    driver.assert_ending(Label::Closing, CloseReason::OverBudget);
}

#[test]
fn the_application_closes() {
    let mut driver = Driver::open();
    driver.feed(&[text("close"), text("after")].concat());
    assert_eq!(driver.take_out(), b"\x88\x04\x03\xf0no");
    driver.assert_ending(
        Label::Closing,
        CloseReason::Handler(CloseCode::POLICY_VIOLATION),
    );
    assert_eq!(driver.events, ["close"]);
    let mut driver = Driver::open_at("/own");
    driver.feed(&text("misuse"));
    assert_eq!(
        driver.take_out(),
        b"\x88\x02\x03\xf3",
        "1006 may not stand on the wire"
    );
    driver.assert_ending(Label::Closing, CloseReason::Handler(CloseCode::ABNORMAL));
}

#[test]
fn the_peer_is_gone() {
    let mut driver = Driver::open();
    driver.queue(b"abc", 0);
    driver.eof();
    assert!(driver.connection.is_closed());
    assert!(driver.connection.outbox.is_empty());
    driver.assert_ending(Label::Closing, CloseReason::PeerGone);
    driver.feed(b"nothing comes of it");
    driver.wait_until(5000);
    assert_eq!(driver.take_out(), b"");
}

#[test]
fn the_end_of_the_stream_is_the_end_of_the_closing_handshake_too() {
    let mut driver = Driver::open();
    driver.close(CloseReason::Shutdown);
    driver.eof();
    assert!(driver.connection.is_closed());
    driver.assert_ending(Label::Closing, CloseReason::Shutdown);
}

#[test]
fn a_slow_consumer_gets_the_frame_that_was_begun_and_a_close() {
    let mut driver = Driver::open();
    driver.queue(b"begun", 2);
    driver.queue(b"whole", 0);
    driver.connection.hold(Hold::Hub);
    driver.feed(&text("kept"));
    driver
        .connection
        .fail(&driver.settings, 0, CloseReason::SlowConsumerBytes);
    let outbox = driver.outbox();
    assert!(outbox.starts_with(b"gun\x88"), "{outbox:?}");
    assert_eq!(outbox[5..7], 1013u16.to_be_bytes());
    assert!(!driver.connection.is_held() && !driver.connection.has_unread());
    driver.assert_ending(Label::Closing, CloseReason::SlowConsumerBytes);
    assert!(!driver.connection.takes_deliveries());
    driver.flush();
    driver.feed(&frame(0x88, b"\x03\xf5"));
    assert!(driver.connection.wants_shutdown());
}

#[test]
fn the_stream_is_ended_behind_the_outbox_only() {
    let mut driver = Driver::open();
    driver.queue(b"waits", 0);
    driver.feed(&frame(0x88, b"\x03\xe8"));
    driver.eof();
    assert!(!driver.connection.wants_shutdown());
    assert!(!driver.connection.is_closed(), "the peer may read still");
    driver.flush();
    assert!(driver.connection.is_closed());
}

/// Whoever ends it looks at it once, so it may not become a subscriber's later. A page's stream is to come back.
#[test]
fn an_end_refuses_who_is_about_to_subscribe() {
    for (target, status) in [("/joining", 503), ("/joining-page", 200)] {
        let mut driver = Driver::new();
        driver.feed(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let reason = CloseReason::Handler(CloseCode::FORBIDDEN);
        driver.close(reason);
        let out = driver.text();
        assert!(out.starts_with(&format!("HTTP/1.1 {status} ")), "{out}");
        assert_eq!(out.contains("retry: 7000\n"), status == 200, "{out}");
        driver.assert_ending(Label::Closing, reason);
        let joined = JoinedAt {
            position: Position {
                epoch: 1,
                offset: 0,
            },
            recovered: None,
            has_replay: false,
        };
        let Driver {
            connection,
            settings,
            now_ms,
            out,
            ..
        } = &mut driver;
        assert!(!connection.handle_joined(settings, *now_ms, joined, out));
        assert_eq!(driver.text(), "", "an answer is given once");
    }
}
