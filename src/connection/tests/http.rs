//! Requests: pipelining, bodies, publishes that wait for their place, and ends.

use super::*;

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut driver = Driver::new();
    driver.feed(&[GET, b"GET /none HTTP/1.1\r\nHost: h\r\n\r\n", GET].concat());
    let out = driver.text();
    assert!(out.starts_with(OK) && out.ends_with(OK));
    assert!(out[OK.len()..].starts_with("HTTP/1.1 404 "));
    assert_eq!(
        driver.events,
        ["GET /ok", "GET /none", "refused 404", "GET /ok"]
    );
}

#[test]
fn a_publish_that_waits_for_its_place_holds_what_is_behind_it() {
    let mut driver = Driver::new();
    driver.feed(&[PUBLISH, PUBLISH, &GET[..5]].concat());
    assert_eq!(driver.events, ["POST /pub", "body abc"]);
    assert!(driver.connection.has_hold(Hold::Answer));
    driver.publish(1);
    assert_eq!(driver.text(), "", "a sequence that nobody waits for");
    driver.publish(0);
    assert_eq!(driver.text(), PUBLISHED);
    assert!(!driver.connection.is_held());
    driver.publish(0);
    driver.feed_unread();
    assert_eq!(driver.text(), "");
    driver.publish(0);
    assert_eq!(driver.text(), PUBLISHED);
    driver.feed_unread();
    driver.feed(&GET[5..]);
    assert_eq!(driver.text(), OK);
}

#[test]
fn lines_are_answered_together() {
    let mut driver = Driver::new();
    driver.feed(b"POST /lines HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na\nb");
    driver.publish(2);
    driver.publish(1);
    assert_eq!(
        driver.text(),
        "",
        "the second was refused, the first is missing"
    );
    driver.publish(0);
    let place = "{\"epoch\":\"0000000000000007\",\"offset\":9}\n";
    let out = driver.text();
    assert!(
        out.ends_with(&format!("\r\n\r\n{place}refused\n{place}")),
        "{out}"
    );
}

#[test]
fn a_half_close_behind_a_request_does_not_take_its_answer() {
    let mut driver = Driver::new();
    driver.feed(PUBLISH);
    driver.eof();
    assert_eq!(driver.connection.ending(), None);
    driver.publish(0);
    let out = driver.text();
    assert!(out.contains("\r\nConnection: close\r\n"), "{out}");
    driver.assert_ending(Label::Closing, CloseReason::HttpDone);
    assert!(driver.connection.wants_shutdown());
    driver.flush();
    assert!(driver.connection.is_closed());
}

#[test]
fn a_half_close_behind_an_answer_that_waits_lets_it_be_taken() {
    let mut driver = Driver::new();
    driver.feed(GET);
    let answer = driver.take_out();
    driver.queue(&answer, 0);
    driver.eof();
    assert!(!driver.connection.is_closed());
    assert!(!driver.connection.wants_shutdown());
    driver.flush();
    assert!(driver.connection.is_closed());
}

#[test]
fn the_end_of_the_stream_between_requests_is_in_order() {
    let mut driver = Driver::new();
    driver.feed(GET);
    driver.eof();
    assert!(driver.connection.is_closed());
    driver.assert_ending(Label::Closing, CloseReason::HttpDone);
    let mut driver = Driver::new();
    driver.feed(&GET[..9]);
    driver.eof();
    driver.assert_ending(Label::Closing, CloseReason::PeerGone);
}

#[test]
fn the_last_answer_ends_the_connection() {
    let mut driver = Driver::new();
    let request = b"GET /ok HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    driver.feed(&[request, GET].concat());
    assert_eq!(driver.events, ["GET /ok"]);
    assert!(driver.text().contains("\r\nConnection: close\r\n"));
    driver.assert_ending(Label::Closing, CloseReason::HttpDone);
    assert!(driver.connection.wants_shutdown());
    driver.feed(GET);
    driver.eof();
    assert!(driver.connection.is_closed());
    assert_eq!(driver.text(), "");
}

#[test]
fn a_body_may_come_in_any_pieces() {
    let chunked = b"POST /pub HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
        2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    let empty = b"POST /pub HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    for (request, body) in [(PUBLISH, "abc"), (&chunked[..], "abc"), (empty, "")] {
        for piece_len in [request.len(), 1, 3, 50] {
            let mut driver = Driver::new();
            request
                .chunks(piece_len)
                .for_each(|piece| driver.feed(piece));
            assert_eq!(
                driver.events,
                ["POST /pub".to_owned(), format!("body {body}")]
            );
            driver.publish(0);
            assert_eq!(driver.text(), PUBLISHED);
            assert_eq!(driver.connection.inbound_bytes(), 0);
        }
    }
}

#[test]
fn a_body_is_asked_for_where_the_peer_waits_for_that() {
    let head =
        b"POST /pub HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let mut driver = Driver::new();
    driver.feed(head);
    assert_eq!(driver.text(), "HTTP/1.1 100 Continue\r\n\r\n");
    driver.feed(b"abc");
    assert_eq!(driver.events, ["POST /pub", "body abc"]);
    let mut driver = Driver::new();
    driver.feed(&[head, &b"ab"[..]].concat());
    assert_eq!(driver.text(), "", "it did not wait");
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_head() {
    let mut driver = Driver::new();
    driver.feed(b"POST /pub HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nhello world");
    assert!(driver.text().starts_with("HTTP/1.1 413 "));
    assert_eq!(driver.events, ["POST /pub", "refused 413"]);
    driver.assert_ending(Label::Closing, CloseReason::HttpRefused);
    assert_eq!(driver.connection.inbound_bytes(), 0);
}

#[test]
fn a_body_that_nobody_reads_is_not_taken_for_a_request() {
    let mut driver = Driver::new();
    let smuggled = b"GET /ok HTTP/1.1\r\nHost: h\r\nContent-Length: 26\r\n\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n";
    driver.feed(smuggled);
    assert_eq!(driver.events, ["GET /ok"]);
    assert!(driver.text().contains("\r\nConnection: close\r\n"));
    assert!(driver.connection.is_closing());
}

#[test]
fn nonsense_is_refused_and_ends_the_connection() {
    let mut driver = Driver::new();
    driver.feed(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert!(driver.text().starts_with("HTTP/1.1 400 "));
    driver.assert_ending(Label::Closing, CloseReason::HttpRefused);
}

#[test]
fn requests_for_much_are_answered_as_they_are_taken() {
    let mut driver = Driver::new();
    driver.feed(&GET.repeat(100));
    let out = driver.text();
    assert!(out.len() >= 1000 && out.len() < 1000 + OK.len());
    assert!(driver.connection.has_hold(Hold::Outbox));
    let mut answers = out.len() / OK.len();
    while driver.connection.lift(Hold::Outbox) && driver.connection.has_unread() {
        driver.feed_unread();
        answers += driver.text().len() / OK.len();
    }
    assert_eq!(answers, 100);
}

#[test]
fn what_does_not_fit_the_budget_is_refused_with_503() {
    let mut driver = Driver::new();
    driver.feed(&PUBLISH[..PUBLISH.len() - 1]);
    driver
        .connection
        .fail(&driver.settings, 0, CloseReason::OverBudget);
    assert!(driver.outbox().starts_with(b"HTTP/1.1 503 "));
    driver.assert_ending(Label::Closing, CloseReason::OverBudget);
}

/// Who lost answers is not left without one: it is told, for the first of them, that its fate is not known.
#[test]
fn dropped_answers_are_told() {
    let of = |queued: &[&[u8]], begun: usize, input: &[u8], reason| {
        let mut driver = Driver::new();
        for (number, answer) in queued.iter().enumerate() {
            driver.queue(answer, if number == 0 { begun } else { 0 });
        }
        driver.feed(input);
        driver.connection.fail(&driver.settings, 0, reason);
        driver.assert_ending(Label::Closing, reason);
        String::from_utf8(driver.outbox()).expect("text")
    };
    let (budget, slow) = (CloseReason::OverBudget, CloseReason::SlowConsumerBytes);
    let first: &[u8] = b"an answer before it";
    for (queued, begun, input, reason, is_lost) in [
        (&[][..], 0, &GET[..9], budget, false),
        (&[first], 3, &GET[..9], budget, true),
        (&[first], 3, b"", budget, true),
        (&[first, b"another"], 3, b"", budget, true),
        (&[first], 0, b"", budget, true),
        (&[first], 3, b"", slow, true),
        (&[], 0, b"", slow, true),
    ] {
        let told = of(queued, begun, input, reason);
        let rest = if begun > 0 { "answer before it" } else { "" };
        let refusal = told.strip_prefix(rest).expect("what was begun is finished");
        assert!(refusal.starts_with("HTTP/1.1 503 "), "{told}");
        assert!(refusal.contains("Connection: close"), "{told}");
        assert_eq!(refusal.contains("is not known"), is_lost, "{told}");
    }
}

/// A request that waits to be read behind one that was just answered is not lost without a word.
#[test]
fn request_that_waits_to_be_read_is_answered() {
    let input = [PUBLISH, GET].concat();
    let mut driver = Driver::new();
    driver.feed(&input);
    driver.publish(0);
    assert!(driver.text().starts_with("HTTP/1.1 200 "));
    driver
        .connection
        .fail(&driver.settings, 0, CloseReason::OverBudget);
    let refusal = driver.outbox();
    assert!(refusal.starts_with(b"HTTP/1.1 503 "), "{refusal:?}");
    driver.assert_ending(Label::Closing, CloseReason::OverBudget);
    let mut driver = Driver::new();
    driver.feed(&input);
    driver.publish(0);
    driver.text();
    driver.close(CloseReason::Shutdown);
    assert_eq!(driver.connection.label(), Label::Http);
    driver.connection.lift(Hold::Answer);
    driver.feed_unread();
    assert!(driver.text().contains("\r\nConnection: close\r\n"));
    driver.assert_ending(Label::Closing, CloseReason::HttpDone);
}

#[test]
fn a_publish_that_waits_outlives_a_shutdown() {
    let mut driver = Driver::new();
    driver.feed(PUBLISH);
    driver.close(CloseReason::Shutdown);
    assert_eq!(driver.connection.label(), Label::Http);
    driver.publish(0);
    assert!(driver.text().contains("\r\nConnection: close\r\n"));
    driver.assert_ending(Label::Closing, CloseReason::HttpDone);
    let mut driver = Driver::new();
    driver.feed(GET);
    driver.close(CloseReason::Shutdown);
    driver.assert_ending(Label::Closing, CloseReason::Shutdown);
}

#[test]
fn who_is_not_admitted_is_told_so_at_once() {
    let mut driver = Driver::new();
    let refusal = Refusal::unavailable("full").closing();
    let Driver {
        connection,
        settings,
        out,
        ..
    } = &mut driver;
    connection.refuse_admission(settings, 0, &refusal, out, &mut |_, _| Answer::Proceed);
    assert!(driver.text().starts_with("HTTP/1.1 503 "));
    driver.assert_ending(Label::Closing, CloseReason::HttpRefused);
}
