//! Limits from outside: each is reached, and the peer is told by status or close code.

mod support;

use std::thread;
use std::time::{Duration, Instant};

use support::frames::{self, BINARY, CONTINUATION, FIN, Frame, TEXT, masked};
use support::wire::{End, upgrade_request};
use support::{PATIENCE, Pieces, Response, Server, wait_until};

/// The statuses of the responses to what is sent on one connection, to its end.
fn status_of(server: &Server, request: &[u8]) -> u16 {
    let mut wire = server.connect();
    wire.offer(request, Pieces::Whole);
    wire.read_response().status
}

fn get(lines: &str) -> Vec<u8> {
    format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").into_bytes()
}

#[test]
fn head_bytes_max() {
    let server = Server::start(&["--head-bytes-max", "512", "--headers-max", "8"]);
    let base = get("A: \r\n").len();
    for pieces in Pieces::ALL {
        for (length, status) in [(512, 200), (513, 431), (2_000, 431)] {
            let request = get(&format!("A: {}\r\n", "x".repeat(length - base)));
            assert_eq!(request.len(), length);
            let mut wire = server.connect();
            wire.offer(&request, pieces);
            assert_eq!(wire.read_response().status, status, "{length} {pieces:?}");
        }
    }
    assert_eq!(status_of(&server, &get(&"A: b\r\n".repeat(7))), 200);
    assert_eq!(status_of(&server, &get(&"A: b\r\n".repeat(8))), 431);
}

#[test]
fn target_bytes_max() {
    let server = Server::start(&["--target-bytes-max", "64"]);
    for (length, status) in [(64, 200), (65, 414)] {
        let target = format!("/health?{}", "x".repeat(length - 8));
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(status_of(&server, request.as_bytes()), status);
    }
    // A topic has a limit of its own, in its canonical form.
    let server = Server::start(&[]);
    for (topic, status) in [
        ("t".repeat(255), 101),
        ("t".repeat(256), 414),
        ("%74".repeat(255), 101),
        (format!("t?{}", "q".repeat(253)), 101),
        (format!("t?{}", "q".repeat(254)), 414),
        (format!("t?token={}", "q".repeat(1000)), 101),
    ] {
        let request = upgrade_request(&format!("/ws/{topic}"), "");
        assert_eq!(status_of(&server, request.as_bytes()), status, "{topic}");
    }
}

fn post(target: &str, body: usize) -> Vec<u8> {
    let mut request = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {body}\r\n\r\n"
    )
    .into_bytes();
    request.resize(request.len() + body, b'x');
    request
}

#[test]
fn publication_bytes_max() {
    let server = Server::start(&["--publication-bytes-max", "1000"]);
    assert_eq!(status_of(&server, &post("/pub/a", 1000)), 200);
    assert_eq!(status_of(&server, &post("/pub/a", 1001)), 413);
    let chunked = |size: usize| {
        let head = "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = format!(
            "{:x}\r\n{}\r\n1\r\ny\r\n0\r\n\r\n",
            size - 1,
            "x".repeat(size - 1)
        );
        (head.to_owned() + &body).into_bytes()
    };
    assert_eq!(status_of(&server, &chunked(1000)), 200);
    assert_eq!(status_of(&server, &chunked(1001)), 413);
    for (length, code) in [(1000, None), (1001, Some(1009))] {
        let mut wire = server.connect();
        wire.upgrade("/ws/a");
        wire.send(&masked(FIN | BINARY, &vec![0; length]));
        let frame = wire.read_frame();
        match code {
            None => assert_eq!(frame.payload.len(), length),
            Some(_) => assert_eq!(frame.close_code(), code),
        }
    }
}

#[test]
fn body_over_limit_refused_by_head() {
    let server = Server::start(&[
        "--body-bytes-max",
        "2048",
        "--publication-bytes-max",
        "1024",
    ]);
    for head in [
        "Content-Length: 2049",
        "Content-Length: 18446744073709551615",
        "Expect: 100-continue\r\nContent-Length: 2049",
    ] {
        let mut wire = server.connect();
        let request = format!("POST /pub HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n");
        wire.send(request.as_bytes());
        let response = wire.read_response();
        assert_eq!(response.status, 413, "{head}");
        assert_eq!(response.header("connection"), Some("close"));
        assert_eq!(wire.read_to_end().1, End::Eof);
    }
    // A chunk says its size before it comes.
    let request = "POST /pub HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n";
    assert_eq!(status_of(&server, request.as_bytes()), 413);
}

#[test]
fn publish_lines_max() {
    let server = Server::start(&["--publish-lines-max", "3"]);
    let line = "{\"topic\":\"a\",\"data\":\"x\"}\n";
    let answers = |count: usize| -> Vec<String> {
        let body = line.repeat(count);
        let request = format!(
            "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let response: Response = server.request(&request);
        assert_eq!(response.status, 200);
        response.text().lines().map(str::to_owned).collect()
    };
    assert_eq!(answers(3).len(), 3);
    let over = answers(5);
    assert!(
        over[..3].iter().all(|answer| answer.contains("\"offset\"")),
        "{over:?}"
    );
    assert!(over[3].contains("\"status\":413"), "{over:?}");
    assert_eq!(server.metric("umbel_publications_total"), 6.0);
}

#[test]
fn fragments_max() {
    let server = Server::start(&["--fragments-max", "4"]);
    let message = |fragments: usize| {
        let mut bytes = masked(TEXT, b"x");
        for _ in 2..fragments {
            bytes.extend(masked(CONTINUATION, b"x"));
        }
        bytes.extend(masked(FIN | CONTINUATION, b"x"));
        bytes
    };
    let mut wire = server.connect();
    wire.upgrade("/echo");
    wire.send(&message(4));
    assert_eq!(wire.read_frame(), Frame::text("xxxx"));
    wire.send(&message(5));
    assert_eq!(wire.read_frame().close_code(), Some(1008));
}

/// A byte now and then does not extend the time for a head: it is absolute.
#[test]
fn slow_head_cut_at_absolute_deadline() {
    let server = Server::start(&["--handshake-timeout-ms", "600"]);
    let request = upgrade_request("/ws/a", "");
    let mut wire = server.connect();
    let started = Instant::now();
    for byte in request.as_bytes() {
        if !wire.offer(&[*byte], Pieces::Whole) || started.elapsed() > Duration::from_secs(4) {
            break;
        }
        // A peer that sends 20 bytes a second.
        thread::sleep(Duration::from_millis(50));
        if !wire.received().is_empty() || started.elapsed() > Duration::from_millis(1500) {
            break;
        }
    }
    assert_eq!(wire.read_response().status, 408);
    assert_eq!(wire.read_to_end().0, b"");
    let elapsed = started.elapsed();
    assert!(elapsed > Duration::from_millis(500), "{elapsed:?}");
    // One that says nothing at all gets no answer.
    let mut silent = server.connect();
    assert_eq!(silent.read_to_end(), (Vec::new(), End::Eof));
    drop((wire, silent));
    wait_until("both are counted", || {
        server.metric("umbel_closed_total{reason=\"handshake_timeout\"}") == 2.0
    });
}

#[test]
fn body_and_keep_alive_timeouts() {
    let server = Server::start(&["--body-timeout-ms", "300", "--keep-alive-timeout-ms", "300"]);
    let mut wire = server.connect();
    wire.send(b"POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(wire.read_response().status, 408);
    assert_eq!(wire.read_to_end().0, b"");
    let mut idle = server.connect();
    idle.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(idle.read_response().status, 200);
    assert_eq!(idle.read_to_end(), (Vec::new(), End::Eof));
}

#[test]
fn message_timeout() {
    let server = Server::start(&["--message-timeout-ms", "300"]);
    for begun in [
        frames::text("never whole")[..9].to_vec(),
        masked(TEXT, b"one fragment"),
        b"\x81".to_vec(),
    ] {
        let mut wire = server.connect();
        wire.upgrade("/echo");
        wire.send(&begun);
        assert_eq!(wire.read_frame().close_code(), Some(1008), "{begun:?}");
    }
}

/// The deadline of a message that came in whole is gone with it, though reading was held meanwhile.
#[test]
fn no_deadline_after_whole_message() {
    let server = Server::start(&["--message-timeout-ms", "300"]);
    let mut wire = server.connect();
    wire.upgrade("/echo");
    let payload = vec![7; 2 << 20];
    let message = masked(FIN | BINARY, &payload);
    let (first, rest) = message.split_at(100_000);
    wire.send(first);
    wire.send(rest);
    assert_eq!(wire.read_frame().payload, payload);
    wire.expect_silence(Duration::from_secs(1));
    wire.send(&frames::text("still here"));
    assert_eq!(wire.read_frame(), Frame::text("still here"));
}

/// A subscriber that never reads is closed at the cap of its outbox and counted; others get everything.
#[test]
fn stalled_subscriber_closed_and_counted() {
    let server = Server::start(&[
        "--outbox-bytes-max",
        "100000",
        "--publication-bytes-max",
        "100000",
        "--send-buffer-bytes",
        "16384",
        // More than the publications take on a busy machine: only then it reads.
        "--close-timeout-ms",
        "60000",
    ]);
    let mut slow = server.connect();
    slow.upgrade("/ws/hot");
    let mut fast = server.connect();
    fast.upgrade("/ws/hot");
    let mut publisher = server.connect();
    let payload = vec![b'x'; 50_000];
    for number in 0..400 {
        publisher.send(&post("/pub/hot", payload.len()));
        assert_eq!(publisher.read_response().status, 200);
        assert_eq!(fast.read_frame().payload, payload, "publication {number}");
    }
    // It is told so, behind what the kernel had taken already and the frame that was begun.
    let last = loop {
        let frame = slow.read_frame();
        if frame.first & 0x0f == frames::CLOSE {
            break frame;
        }
    };
    assert_eq!(last.close_code(), Some(1013));
    slow.end();
    assert_eq!(slow.read_to_end().0, b"");
    wait_until("it is counted", || {
        server.metric("umbel_slow_consumers_total") == 1.0
    });
}

/// A reader that takes a little now and then is cut by the age of the oldest byte that waits for it.
#[test]
fn outbox_age_max() {
    let server = Server::start(&[
        "--outbox-age-max-ms",
        "500",
        "--close-timeout-ms",
        "300",
        "--send-buffer-bytes",
        "16384",
    ]);
    let mut slow = server.connect();
    slow.upgrade("/ws/hot");
    let mut publisher = server.connect();
    // More than the kernel takes, less than the outbox may hold.
    let started = Instant::now();
    let counted = || server.metric("umbel_closed_total{reason=\"slow_consumer_age\"}");
    while server.metric("umbel_outbox_bytes") < 100_000.0 {
        publisher.send(&post("/pub/hot", 50_000));
        assert_eq!(publisher.read_response().status, 200);
        assert!(started.elapsed() < PATIENCE);
    }
    wait_until("it is counted", || counted() == 1.0);
}

/// One that asks for echoes and does not take them is not read any further, and holds no more than its outbox.
#[test]
fn unread_echo_stops_reading() {
    let server = Server::start(&[]);
    let mut wire = server.connect();
    wire.upgrade("/echo");
    let message = masked(FIN | BINARY, &[0; 60_000]);
    let stream = wire.stream().try_clone().expect("a socket can be cloned");
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .expect("a timeout can be set");
    let mut sent = 0;
    while sent < 2000 && std::io::Write::write_all(&mut &stream, &message).is_ok() {
        sent += 1;
    }
    assert!(
        sent < 2000,
        "120 MB were taken, and none of them were read back"
    );
    let held = server.metric("umbel_outbox_bytes") + server.metric("umbel_inbound_bytes");
    assert!(held < 8e6, "{held} bytes are held");
    // Whatever was whole is echoed once the peer reads.
    for _ in 0..sent {
        assert_eq!(wire.read_frame().payload.len(), 60_000);
    }
}

#[test]
fn topics_max() {
    let server = Server::start(&["--topics-max", "2", "--reactors", "1"]);
    let mut kept = Vec::new();
    for topic in ["a", "b", "a", "b"] {
        let mut wire = server.connect();
        wire.upgrade(&format!("/ws/{topic}"));
        kept.push(wire);
    }
    for target in ["/ws/c", "/ws/d"] {
        assert_eq!(
            status_of(&server, upgrade_request(target, "").as_bytes()),
            503
        );
    }
    let stream = b"GET /sse/c HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(status_of(&server, stream), 503);
    kept.clear();
    wait_until("there is room again", || {
        status_of(&server, upgrade_request("/ws/c", "").as_bytes()) == 101
    });
}

/// Unfinished requests and messages of all connections together: the one that passes the limit is told.
#[test]
fn inbound_bytes_total_max() {
    let server = Server::start(&[
        "--inbound-bytes-total-max",
        "1048576",
        "--close-timeout-ms",
        "300",
        "--reactors",
        "1",
    ]);
    let mut wires = Vec::new();
    let mut begun = frames::head(FIN | BINARY, 0x80, 1_000_000);
    begun.extend_from_slice(&frames::MASK);
    begun.resize(400_000, 0);
    for _ in 0..4 {
        let mut wire = server.connect();
        wire.upgrade("/echo");
        wire.offer(&begun, Pieces::Whole);
        wires.push(wire);
    }
    wait_until("some are turned away", || {
        server.metric("umbel_closed_total{reason=\"over_budget\"}") >= 1.0
    });
    let held = server.metric("umbel_inbound_bytes");
    assert!(held <= 1_048_576.0, "{held}");
}
