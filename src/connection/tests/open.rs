//! The opening handshake, messages, holds, and event streams.

use super::*;

#[test]
fn handshake_and_frames_may_come_in_one_segment() {
    let mut bytes = UPGRADE.to_vec();
    bytes.extend(text("first"));
    bytes.extend(frame(0x89, b"p"));
    bytes.extend(text("second"));
    for piece_len in [bytes.len(), 1, 7, 100] {
        let mut driver = Driver::new();
        bytes.chunks(piece_len).for_each(|piece| driver.feed(piece));
        assert_eq!(driver.events, ["GET /ws", "first", "second"]);
        let out = driver.text();
        assert!(out.starts_with(SWITCHING), "{out}");
        assert!(out.ends_with("\r\n\r\n\u{fffd}\u{1}p"), "{out:?}");
        assert_eq!(
            driver.connection.label(),
            Label::Subscriber(Encoding::PAYLOAD)
        );
        assert!(driver.connection.takes_deliveries());
    }
}

#[test]
fn an_own_endpoint_is_told_that_it_was_opened() {
    let mut driver = Driver::new();
    driver.feed(b"GET /own HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(driver.events, ["GET /own", "opened 3"]);
    assert_eq!(driver.connection.handler(), Some(3));
    assert_eq!(driver.connection.label(), Label::Handler);
    assert!(!driver.connection.takes_deliveries());
}

#[test]
fn fragments_and_control_frames_between_them_make_one_message() {
    let mut driver = Driver::open();
    driver.feed(&frame(0x01, b"he"));
    assert!(driver.connection.inbound_bytes() > 0);
    driver.feed(&frame(0x89, b"now"));
    assert_eq!(driver.take_out(), b"\x8a\x03now");
    driver.feed(&frame(0x80, b"llo"));
    assert_eq!(driver.events, ["hello"]);
}

#[test]
fn what_comes_during_a_hold_is_kept_in_order() {
    let mut driver = Driver::open();
    let mut bytes = text("hold");
    bytes.extend(text("hold"));
    bytes.extend(&text("later")[..4]);
    driver.feed(&bytes);
    assert_eq!(driver.events, ["hold"]);
    assert!(driver.connection.has_hold(Hold::Hub));
    driver.connection.hold(Hold::Outbox);
    assert!(
        !driver.connection.lift(Hold::Outbox),
        "one is in force still"
    );
    assert!(driver.connection.lift(Hold::Hub));
    assert!(!driver.connection.lift(Hold::Hub), "it is lifted once");
    driver.feed_unread();
    assert_eq!(driver.events, ["hold", "hold"]);
    driver.connection.lift(Hold::Hub);
    driver.feed_unread();
    driver.feed(&text("later")[4..]);
    assert_eq!(driver.events, ["hold", "hold", "later"]);
    assert_eq!(driver.connection.inbound_bytes(), 0);
}

#[test]
fn rest_of_a_message_in_order_with_what_comes_later() {
    let mut driver = Driver::open();
    let (keep, later) = (text("keep 1 2"), text("later"));
    driver.feed(&[&keep[..], &text("hold"), &later[..4]].concat());
    assert_eq!(driver.events, ["keep 1 2"]);
    assert!(driver.connection.has_hold(Hold::Work));
    let kept = driver.connection.inbound_bytes();
    assert_eq!(kept, 8 + text("hold").len() + 4, "it counts");
    driver.connection.lift(Hold::Work);
    driver.feed_unread();
    assert_eq!(driver.events, ["keep 1 2", "1 2"]);
    assert!(driver.connection.has_hold(Hold::Work));
    assert_eq!(driver.connection.inbound_bytes(), kept);
    driver.connection.lift(Hold::Work);
    driver.feed_unread();
    assert_eq!(driver.events, ["keep 1 2", "1 2", "2", "hold"]);
    driver.connection.lift(Hold::Hub);
    driver.feed_unread();
    driver.feed(&later[4..]);
    assert_eq!(driver.events, ["keep 1 2", "1 2", "2", "hold", "later"]);
    assert_eq!(driver.connection.inbound_bytes(), 0);
}

#[test]
fn rest_of_a_message_ends_with_its_connection() {
    let mut driver = Driver::open();
    driver.feed(&[text("keep 1 2"), text("later")].concat());
    driver.close(CloseReason::Shutdown);
    driver.connection.lift(Hold::Work);
    driver.feed_unread();
    assert_eq!(driver.events, ["keep 1 2"]);
    assert_eq!(driver.connection.inbound_bytes(), 0);
}

#[test]
fn who_asks_for_much_is_not_read_until_it_has_taken_it() {
    let mut driver = Driver::open();
    driver.feed(&[text("much"), text("more")].concat());
    assert_eq!(driver.events, ["much"]);
    assert!(driver.connection.has_hold(Hold::Outbox));
    assert!(driver.connection.has_unread());
    assert_eq!(driver.take_out().len(), 1001);
    driver.connection.lift(Hold::Outbox);
    driver.feed_unread();
    assert_eq!(driver.events, ["much", "more"]);
}

#[test]
fn a_ping_that_comes_while_something_waits_is_answered_behind_it() {
    let mut driver = Driver::open();
    driver.queue(b"\x81\x01a", 0);
    driver.feed(&[frame(0x89, b"1"), frame(0x89, b"2")].concat());
    assert_eq!(driver.take_out(), b"", "not into the middle of a frame");
    assert_eq!(driver.connection.outbox.handle_written(2), None);
    let ping = driver.connection.outbox.handle_written(1);
    assert_eq!(ping.as_deref(), Some(&b"2"[..]), "the newest one is enough");
}

#[test]
fn an_event_stream_begins_with_a_head_and_listens_to_nothing() {
    let mut driver = Driver::new();
    driver.feed(b"GET /sse HTTP/1.1\r\nHost: h\r\n\r\nGET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(driver.events, ["GET /sse"]);
    let head = driver.text();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"));
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(
        driver.connection.label(),
        Label::Subscriber(stream_encoding())
    );
    assert!(driver.connection.takes_deliveries());
    driver.feed(b"anything");
    assert_eq!(driver.connection.inbound_bytes(), 0);
    driver.wait_until(1000);
    assert_eq!(driver.text(), ":\n\n", "a sign of life");
    driver.queue(b"data: x\n\n", 0);
    driver.now_ms = 1999;
    driver.connection.outbox.restart_age(1999);
    driver.wait_until(2000);
    assert_eq!(driver.text(), "", "what waits is sign enough");
}

#[test]
fn an_event_stream_ends_with_its_reader_or_with_the_server() {
    let mut driver = Driver::new();
    driver.feed(b"GET /sse HTTP/1.1\r\nHost: h\r\n\r\n");
    driver.close(CloseReason::Shutdown);
    driver.assert_ending(Label::Closing, CloseReason::Shutdown);
    assert!(!driver.connection.takes_deliveries());
    assert!(driver.connection.wants_shutdown());
    let mut driver = Driver::new();
    driver.feed(b"GET /sse HTTP/1.1\r\nHost: h\r\n\r\n");
    driver.eof();
    assert!(driver.connection.is_closed());
    driver.assert_ending(Label::Closing, CloseReason::PeerGone);
}

/// A hold may last, and what was handed out is nobody's any more.
#[test]
fn a_message_that_led_to_a_hold_is_freed_at_once() {
    let mut driver = Driver::open();
    // In two pieces, so that it is gathered.
    let message = text("hold");
    let (first, second) = message.split_at(message.len() - 2);
    driver.feed(first);
    assert!(driver.connection.inbound_bytes() > 0);
    driver.feed(second);
    assert!(driver.connection.is_held());
    assert_eq!(driver.connection.inbound_bytes(), 0);
}
