//! The end of a WebSocket connection from outside: RFC 6455 sections 5.5.1 and 7.

mod support;

use std::net::Shutdown;
use std::time::{Duration, Instant};

use support::frames::{self, CLOSE, CONTINUATION, FIN, Frame, PING, PONG, TEXT, masked};
use support::process::open_descriptors;
use support::wire::End;
use support::{Pieces, Server, Wire, wait_until};

fn open(server: &Server, target: &str) -> Wire {
    let mut wire = server.connect();
    wire.upgrade(target);
    wire
}

/// The server's Close in answer to a Close with this payload. Then the server ends the stream, without waiting for the
/// peer to do so (section 7.1.1).
fn answer_to_close(server: &Server, payload: &[u8], pieces: Pieces) -> Vec<u8> {
    let mut wire = open(server, "/echo");
    wire.offer(&masked(FIN | CLOSE, payload), pieces);
    let close = wire.read_frame();
    assert_eq!(close.first, FIN | CLOSE);
    assert_eq!(wire.read_to_end(), (Vec::new(), End::Eof));
    close.payload
}

#[test]
fn close_code_echoed() {
    let server = Server::start(&[]);
    for pieces in Pieces::ALL {
        assert_eq!(answer_to_close(&server, b"", pieces), b"");
        for code in [
            1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999,
            4000, 4999_u16,
        ] {
            for reason in ["", "p\u{e4}r", &"x".repeat(123)] {
                let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
                let answer = answer_to_close(&server, &payload, pieces);
                assert_eq!(answer[..2], code.to_be_bytes(), "{code}");
            }
        }
    }
}

#[test]
fn malformed_close() {
    let server = Server::start(&[]);
    let mut wrong: Vec<(Vec<u8>, u16)> = vec![
        (b"\x03".to_vec(), 1002),
        (b"\x03\xe8\xff".to_vec(), 1007),
        (b"\x03\xe8ok \xed\xa0\x80".to_vec(), 1007),
        (b"\x03\xe8ok \xe2\x82".to_vec(), 1007),
        (b"\x03\xe8\xc0\xaf".to_vec(), 1007),
    ];
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535_u16,
    ] {
        wrong.push((code.to_be_bytes().to_vec(), 1002));
    }
    for (payload, code) in wrong {
        for pieces in Pieces::ALL {
            let answer = answer_to_close(&server, &payload, pieces);
            assert_eq!(answer[..2], u16::to_be_bytes(code), "{payload:?}");
            assert!(answer.len() > 10, "the reason is given");
        }
    }
}

#[test]
fn close_between_fragments() {
    let server = Server::start(&[]);
    let mut wire = open(&server, "/echo");
    wire.send(&masked(TEXT, b"never whole"));
    wire.send(&frames::close(1000, ""));
    assert_eq!(wire.read_frame().close_code(), Some(1000));
    assert_eq!(wire.read_to_end(), (Vec::new(), End::Eof));
}

/// Echoes before the Close come before its answer; input behind it is ignored.
#[test]
fn input_after_close_ignored() {
    let server = Server::start(&[]);
    for pieces in Pieces::ALL {
        let bytes = [
            frames::text("before"),
            frames::close(4000, "done"),
            frames::text("after"),
            masked(FIN | PING, b"after"),
            frames::close(4001, "again"),
            b"\xff\xff\xff\xff not even frames".repeat(50),
        ];
        let mut wire = open(&server, "/echo");
        wire.offer(&bytes.concat(), pieces);
        assert_eq!(wire.read_frame(), Frame::text("before"));
        assert_eq!(wire.read_frame().close_code(), Some(4000));
        assert_eq!(wire.read_to_end(), (Vec::new(), End::Eof));
    }
}

/// The last frame reaches a peer that is still sending when the connection is failed.
#[test]
fn close_reason_reaches_sending_peer() {
    let server = Server::start(&[]);
    for _ in 0..5 {
        let mut wire = open(&server, "/echo");
        wire.offer(&frames::unmasked(FIN | TEXT, b"no mask"), Pieces::Whole);
        for _ in 0..40 {
            wire.offer(&[0; 50_000], Pieces::Whole);
        }
        assert_eq!(wire.read_frame().close_code(), Some(1002));
        wire.end();
        assert_eq!(wire.read_to_end(), (Vec::new(), End::Eof));
    }
}

/// A peer may end its side of the stream, or all of it, or nothing at all: the descriptor goes.
#[test]
fn descriptors_freed_after_close_timeout() {
    let server = Server::start(&["--publish", "nobody", "--close-timeout-ms", "300"]);
    let baseline = open_descriptors(server.pid());
    let mut wires = Vec::new();
    for _ in 0..5 {
        // Answers no Close of ours.
        let mut silent = open(&server, "/ws/a");
        silent.send(&frames::text("may not be published"));
        assert_eq!(silent.read_frame().close_code(), Some(1008));
        // Answers it, and goes on talking.
        let mut talking = open(&server, "/ws/a");
        talking.send(&frames::text("may not be published"));
        assert_eq!(talking.read_frame().close_code(), Some(1008));
        talking.send(&frames::close(1008, ""));
        talking.offer(&[0xff; 10_000], Pieces::Whole);
        // Sends a Close, and does not take the end of the stream for an end.
        let mut lingering = open(&server, "/echo");
        lingering.send(&frames::close(1000, ""));
        // Breaks the protocol, and stays.
        let mut wrong = open(&server, "/echo");
        wrong.send(b"\xff\xff");
        // Ends its side in the middle of a message.
        let mut half = open(&server, "/echo");
        half.send(&frames::text("never whole")[..9]);
        half.end();
        wires.extend([silent, talking, lingering, wrong, half]);
    }
    wait_until("all descriptors are back", || {
        open_descriptors(server.pid()) <= baseline
    });
    drop(wires);
}

/// Ends of the stream without a closing handshake.
#[test]
fn peer_gone_without_close() {
    let server = Server::start(&[]);
    let baseline = open_descriptors(server.pid());
    for sent in [
        b"".to_vec(),
        frames::text("whole"),
        frames::text("never whole")[..9].to_vec(),
        masked(TEXT, b"first fragment"),
        [masked(TEXT, b"a"), masked(CONTINUATION, b"b")].concat(),
    ] {
        for target in ["/echo", "/ws/a"] {
            let mut wire = open(&server, target);
            wire.send(&sent);
            wire.stream().shutdown(Shutdown::Write).expect("connected");
            let started = Instant::now();
            wire.read_to_end();
            // The end of the stream is the end; the close timeout is 5 s.
            assert!(started.elapsed() < Duration::from_secs(3), "{target}");
        }
    }
    wait_until("all descriptors are back", || {
        open_descriptors(server.pid()) <= baseline
    });
}

/// Closing because the server goes: every WebSocket is told, and the process ends in time with 0, whatever peers do.
#[test]
fn shutdown_closes_all_in_time() {
    let mut server = Server::start(&["--drain-timeout-ms", "1000", "--close-timeout-ms", "500"]);
    let mut polite = open(&server, "/ws/a");
    let mut silent = open(&server, "/ws/a");
    let mut echo = open(&server, "/echo");
    let mut idle = server.connect();
    idle.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(idle.read_response().status, 200);
    server.signal("TERM");
    for wire in [&mut polite, &mut silent, &mut echo] {
        let code = wire.read_frame().close_code();
        assert!(matches!(code, Some(1001 | 1012)), "{code:?}");
    }
    polite.send(&frames::close(1001, ""));
    assert_eq!(polite.read_to_end(), (Vec::new(), End::Eof));
    assert_eq!(idle.read_to_end().0, b"");
    let status = server.wait_for_exit(Duration::from_secs(8));
    assert!(status.success(), "{status}");
}

/// A second signal ends at once what the first would let take its time.
#[test]
fn second_signal_ends_at_once() {
    let mut server = Server::start(&["--drain-timeout-ms", "60000", "--close-timeout-ms", "60000"]);
    let mut silent = open(&server, "/ws/a");
    server.signal("TERM");
    wait_until("the first is heard", || {
        server.log().contains("shutting down")
    });
    server.signal("TERM");
    let status = server.wait_for_exit(Duration::from_secs(5));
    assert!(!status.success(), "{status}");
    silent.read_to_end();
}

/// A ping that was answered is a sign of life, and so is any byte.
#[test]
fn pong_keeps_connection() {
    let server = Server::start(&["--ping-interval-ms", "100", "--pong-timeout-ms", "1000"]);
    let mut answering = open(&server, "/ws/a");
    for _ in 0..8 {
        let ping = answering.read_frame();
        assert_eq!(ping.first, FIN | PING);
        answering.send(&masked(FIN | PONG, &ping.payload));
    }
    drop(answering);
    // The same without an answer.
    let mut silent = open(&server, "/ws/a");
    assert_eq!(silent.read_frame().first, FIN | PING);
    let (_, end) = silent.read_to_end_within(Duration::from_secs(5));
    assert!(matches!(end, End::Eof | End::Reset));
    assert_eq!(
        server.metric("umbel_closed_total{reason=\"pong_timeout\"}"),
        1.0
    );
}
