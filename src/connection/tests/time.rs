//! Deadlines: what is due when, and what happens then.

use super::*;

#[test]
fn silence_is_followed_by_a_ping_and_then_the_end() {
    let mut driver = Driver::open();
    // Salt 0: three quarters of the interval.
    driver.wait_until(749);
    assert_eq!(driver.take_out(), b"");
    driver.wait_until(750);
    assert_eq!(driver.take_out(), b"\x89\x00");
    driver.wait_until(799);
    assert!(!driver.connection.is_closed());
    driver.wait_until(800);
    assert!(driver.connection.is_closed());
    assert_eq!(driver.take_out(), b"", "there is nobody to tell");
    driver.assert_ending(Label::Closing, CloseReason::PongTimeout);
}

#[test]
fn ping_after_a_pause_waits_its_whole_time_for_the_pong() {
    let mut driver = Driver::open();
    let (due_ms, now_ms) = (760, 900);
    let Driver {
        connection,
        settings,
        out,
        ..
    } = &mut driver;
    connection.handle_timeout(settings, due_ms, now_ms, out);
    assert_eq!(driver.take_out(), b"\x89\x00");
    driver.wait_until(949);
    assert!(!driver.connection.is_closed());
    driver.wait_until(950);
    assert!(driver.connection.is_closed());
}

#[test]
fn any_byte_is_a_sign_of_life() {
    let mut driver = Driver::open();
    driver.wait_until(750);
    assert_eq!(driver.take_out(), b"\x89\x00");
    driver.now_ms = 790;
    driver.feed(&text("no pong, but a message")[..3]);
    driver.now_ms = 800;
    driver.feed(&text("no pong, but a message")[3..]);
    driver.wait_until(1549);
    assert_eq!(driver.take_out(), b"");
    driver.wait_until(1550);
    assert_eq!(driver.take_out(), b"\x89\x00", "counted from the last byte");
    driver.feed(&frame(0x8a, b""));
    driver.wait_until(1700);
    assert!(!driver.connection.is_closed());
}

#[test]
fn who_is_not_read_is_not_blamed_for_silence() {
    let mut driver = Driver::open();
    driver.wait_until(750);
    driver.take_out();
    driver.connection.hold(Hold::Hub);
    driver.wait_until(5000);
    assert!(
        !driver.connection.is_closed(),
        "its pong may lie in the socket"
    );
    driver.connection.lift(Hold::Hub);
    driver.wait_until(5900);
    assert_eq!(driver.take_out(), b"\x89\x00", "it is asked again");
    assert!(driver.connection.is_closed());
}

#[test]
fn a_message_has_a_deadline_that_bytes_do_not_move() {
    let mut driver = Driver::open();
    let message = text("a message");
    driver.feed(&message[..1]);
    for byte in 1..5 {
        driver.wait_until(90 * byte as u64);
        driver.feed(&message[byte..=byte]);
    }
    driver.wait_until(399);
    assert_eq!(driver.take_out(), b"");
    driver.wait_until(400);
    assert_eq!(driver.take_out()[2..4], 1008u16.to_be_bytes());
    driver.assert_ending(Label::Closing, CloseReason::MessageTimeout);
}

#[test]
fn each_message_has_its_own_deadline() {
    let mut driver = Driver::open();
    driver.feed(&text("one")[..3]);
    driver.now_ms = 300;
    driver.feed(&text("one")[3..]);
    driver.wait_until(500);
    driver.feed(&[text("two"), text("three")[..2].to_vec()].concat());
    driver.wait_until(899);
    assert_eq!(driver.take_out(), b"");
    driver.wait_until(900);
    assert_eq!(driver.take_out()[0], 0x88);
}

#[test]
fn a_message_that_came_whole_has_no_deadline_while_it_is_held() {
    let mut driver = Driver::open();
    driver.feed(&text("hold")[..3]);
    driver.now_ms = 10;
    driver.feed(&text("hold")[3..]);
    assert!(driver.connection.is_held());
    driver.wait_until(700);
    assert_eq!(driver.connection.ending(), None);
}

#[test]
fn the_closing_handshake_has_a_deadline() {
    let mut driver = Driver::open();
    driver.close(CloseReason::Shutdown);
    driver.wait_until(59);
    assert!(!driver.connection.is_closed());
    driver.wait_until(60);
    assert!(driver.connection.is_closed());
    driver.assert_ending(Label::Closing, CloseReason::Shutdown);
}

#[test]
fn lingering_has_a_deadline() {
    let mut driver = Driver::open();
    driver.feed(&frame(0x88, b""));
    driver.wait_until(50);
    driver.feed(b"more and more");
    driver.wait_until(60);
    assert!(driver.connection.is_closed());
}

#[test]
fn an_old_outbox_ends_a_connection_with_a_code_if_it_is_taken() {
    let mut driver = Driver::open();
    driver.queue(b"begun", 2);
    driver.wait_until(69);
    assert_eq!(driver.connection.ending(), None);
    driver.wait_until(70);
    driver.assert_ending(Label::Closing, CloseReason::SlowConsumerAge);
    assert!(driver.outbox().starts_with(b"gun\x88"));
    driver.wait_until(129);
    assert!(!driver.connection.is_closed());
    driver.wait_until(130);
    assert!(driver.connection.is_closed(), "the close timeout");
    driver.assert_ending(Label::Closing, CloseReason::SlowConsumerAge);
}

#[test]
fn silence_instead_of_a_request_is_not_answered() {
    let mut driver = Driver::new();
    driver.wait_until(99);
    assert_eq!(driver.connection.ending(), None);
    driver.wait_until(100);
    assert_eq!(driver.text(), "");
    driver.assert_ending(Label::Closing, CloseReason::HandshakeTimeout);
    assert!(driver.connection.wants_shutdown());
}

#[test]
fn half_a_head_is_refused_with_408_however_it_drips() {
    let mut driver = Driver::new();
    for (at_ms, byte) in (0..100).step_by(10).zip(GET) {
        driver.wait_until(at_ms);
        driver.feed(&[*byte]);
    }
    driver.wait_until(100);
    assert!(driver.text().starts_with("HTTP/1.1 408 "));
    driver.assert_ending(Label::Closing, CloseReason::HandshakeTimeout);
}

#[test]
fn half_a_body_is_refused_with_408() {
    let mut driver = Driver::new();
    driver.now_ms = 50;
    driver.feed(&PUBLISH[..PUBLISH.len() - 1]);
    driver.wait_until(249);
    assert_eq!(driver.text(), "");
    driver.wait_until(250);
    assert!(driver.text().starts_with("HTTP/1.1 408 "));
    driver.assert_ending(Label::Closing, CloseReason::HttpTimeout);
}

#[test]
fn a_connection_between_requests_is_kept_for_a_while() {
    let mut driver = Driver::new();
    driver.feed(GET);
    assert_eq!(driver.text(), OK);
    driver.wait_until(250);
    driver.feed(&GET[..1]);
    driver.wait_until(349);
    driver.feed(&GET[1..]);
    assert_eq!(driver.text(), OK, "the next head has its own deadline");
    driver.wait_until(648);
    assert_eq!(driver.connection.ending(), None);
    driver.wait_until(649);
    driver.assert_ending(Label::Closing, CloseReason::HttpTimeout);
    assert_eq!(driver.text(), "");
}

#[test]
fn a_page_whose_stream_does_not_begin_comes_back() {
    for (target, status, rest) in [
        (
            "/joining",
            503,
            "the hub did not answer in time; try again\n",
        ),
        ("/joining-page", 200, "try again\"}\n\n"),
    ] {
        let mut driver = Driver::new();
        driver.feed(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        driver.wait_until(100);
        let out = driver.text();
        assert!(out.starts_with(&format!("HTTP/1.1 {status} ")), "{out}");
        assert_eq!(out.contains("retry: 7000\n"), status == 200, "{out}");
        assert!(out.ends_with(rest), "{out}");
        driver.assert_ending(Label::Closing, CloseReason::HttpTimeout);
    }
}

#[test]
fn a_hub_that_does_not_answer_is_a_503() {
    let mut driver = Driver::new();
    driver.feed(&[PUBLISH, GET].concat());
    driver.wait_until(100);
    let out = driver.text();
    assert!(out.starts_with("HTTP/1.1 503 ") && out.contains("not known"));
    driver.assert_ending(Label::Closing, CloseReason::HttpTimeout);
    driver.publish(0);
    assert_eq!(driver.text(), "", "an answer is given once");
}

/// A ping would stand behind what the peer does not take, so the outbox's age decides, and the peer is told.
#[test]
fn a_stalled_peer_is_a_slow_consumer_and_not_silent() {
    let mut driver = Driver::open();
    driver.queue(&text("stuck"), 1);
    let age_ms = driver.settings.limits.outbox_age_max_ms;
    driver.wait_until(age_ms);
    assert_eq!(
        driver.connection.ending(),
        Some(CloseReason::SlowConsumerAge)
    );
}
