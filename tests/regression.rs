//! Faults that were found and mended: each test shows one of them, and is named by what went wrong.

mod support;

use std::time::{Duration, Instant};

use support::frames::{self, BINARY, FIN};
use support::process::rss_bytes;
use support::wire::upgrade_request;
use support::{Pieces, Server, wait_until};

/// Twenty waits of one second each, where there should be none.
const NO_WAIT: Duration = Duration::from_secs(5);

/// A connection that was put on the ready list in the middle of a tick had to wait until something else woke the
/// reactor, a second at worst. Here that is each request behind a publish on the same connection.
#[test]
fn request_behind_publish_delayed() {
    let server = Server::start(&[]);
    let mut wire = server.connect();
    let publish = b"POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    let started = Instant::now();
    wire.send(&publish.repeat(20));
    for _ in 0..20 {
        assert_eq!(wire.read_response().status, 200);
    }
    let elapsed = started.elapsed();
    assert!(elapsed < NO_WAIT, "{elapsed:?}");
}

/// Bytes that a connection had left over when its read budget was used up.
#[test]
fn bytes_over_read_budget_delayed() {
    let server = Server::start(&["--read-budget-bytes", "4096"]);
    let payload = vec![7; 50_000];
    let mut bytes = upgrade_request("/echo", "").into_bytes();
    bytes.extend(frames::masked(FIN | BINARY, &payload));
    let started = Instant::now();
    for _ in 0..10 {
        // All of it is there when the socket is accepted, so that nothing announces the rest.
        let mut wire = server.connect();
        wire.send(&bytes);
        assert_eq!(wire.read_response().status, 101);
        assert_eq!(wire.read_frame().payload, payload);
    }
    let elapsed = started.elapsed();
    assert!(elapsed < NO_WAIT, "{elapsed:?}");
}

/// All answers to pipelined requests that came in one read were made before one of them was written: small requests
/// for a large page made for tens of megabytes, and their sender was cut off for being slow.
#[test]
fn pipelined_requests_answered_unbounded() {
    let server = Server::start(&["--reactors", "1"]);
    let mut wire = server.connect();
    let count = 5000;
    let before = rss_bytes(server.pid());
    let requests = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(count);
    wire.offer(&requests, Pieces::Whole);
    let mut most = 0;
    for answered in 0..count {
        assert_eq!(wire.read_response().status, 200, "answer {answered}");
        most = most.max(rss_bytes(server.pid()));
    }
    let grown = most.saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
}

/// A message that was begun while the peer's Close was awaited, and not finished in `message_timeout_ms`, put off the
/// close timeout for ever, and kept the reactor busy.
#[test]
fn message_after_close_extended_close_timeout() {
    let server = Server::start(&[
        "--publish",
        "nobody",
        "--message-timeout-ms",
        "100",
        "--close-timeout-ms",
        "500",
    ]);
    let mut wire = server.connect();
    wire.upgrade("/ws/a");
    wire.send(&frames::text("may not be published"));
    assert_eq!(wire.read_frame().close_code(), Some(1008));
    wire.send(&frames::text("never whole")[..9]);
    let (rest, _) = wire.read_to_end_within(Duration::from_secs(5));
    assert_eq!(rest, b"");
}

/// The refusal of what was no request had no body if the request before it was a HEAD.
#[test]
fn refusal_behind_head_without_body() {
    let server = Server::start(&[]);
    let mut wire = server.connect();
    wire.send(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\nno request\r\n\r\n");
    assert_eq!(wire.read_response_to("HEAD ").status, 200);
    let refused = wire.read_response();
    assert_eq!(refused.status, 400);
    assert!(refused.text().len() > 10);
}

/// `"data": null` was taken for no `"data"`, though any JSON value may be published.
#[test]
fn null_data_refused() {
    let server = Server::start(&[]);
    let mut subscriber = server.connect();
    subscriber.upgrade("/ws/a");
    let request = "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 25\r\n\r\n\
                   {\"topic\":\"a\",\"data\":null}";
    let response = server.request(request);
    assert!(response.text().contains("\"offset\":1"), "{response:?}");
    assert_eq!(subscriber.read_frame(), frames::Frame::text("null"));
}

/// A request whose body took the process over its memory budget was cut without a word.
#[test]
fn request_over_memory_budget_unanswered() {
    let server = Server::start(&["--inbound-bytes-total-max", "1048576", "--reactors", "1"]);
    let mut request =
        b"POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n".to_vec();
    request.resize(700_000, b'x');
    let mut first = server.connect();
    first.send(&request);
    wait_until("it is taken in", || {
        server.metric("umbel_inbound_bytes") > 600_000.0
    });
    let mut second = server.connect();
    second.offer(&request, Pieces::Whole);
    assert_eq!(second.read_response().status, 503);
    assert_eq!(second.read_to_end().0, b"");
}

/// A publish that had begun when the server was told to end was cut without a word, so that its sender could not know
/// whether to try elsewhere.
#[test]
fn request_cut_by_shutdown_unanswered() {
    let server = Server::start(&["--drain-timeout-ms", "500"]);
    let mut wire = server.connect();
    wire.send(b"POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
    wait_until("it is taken in", || {
        server.metric("umbel_inbound_bytes") > 0.0
    });
    server.signal("TERM");
    assert_eq!(wire.read_response().status, 503);
    assert_eq!(wire.read_to_end().0, b"");
}

/// Reactors share their port, and so did a second server that was started by mistake: it got half the connections.
#[test]
fn second_server_shared_port() {
    for reactors in ["1", "2"] {
        let first = Server::start(&["--reactors", reactors]);
        let second = std::process::Command::new(env!("CARGO_BIN_EXE_umbel"))
            .args([
                "serve",
                "--reactors",
                reactors,
                "--listen",
                &first.address().to_string(),
            ])
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&second.stderr);
        assert_eq!(second.status.code(), Some(1), "{said}");
        assert!(said.contains("another program listens there"), "{said}");
    }
}

/// The lines of one request are two effects each for its own reactor, which cannot take its mail meanwhile: a request
/// within its limits was told that the hub was full.
#[test]
fn publish_lines_filled_own_mailbox() {
    let server = Server::start(&[]);
    let mut subscriber = server.connect();
    assert_eq!(subscriber.upgrade("/ws/a").status, 101);
    let lines = "{\"topic\":\"a\",\"data\":\"x\"}\n".repeat(4000);
    let length = lines.len();
    let answer = server.request(&format!(
        "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{lines}"
    ));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text().lines().count(), 4000);
    assert!(!answer.text().contains("error"), "all are published");
}
