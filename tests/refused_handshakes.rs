//! Refused handshakes: a program reads the status, the script of a page reads a Close.

mod support;

use support::Server;
use support::frames::Frame;
use support::wire::upgrade_request;

const PAGE: &str = "Origin: http://localhost:3000\r\n";
const NODE: &str = "Sec-Fetch-Mode: websocket\r\n";
const OFFER: &str = "Sec-WebSocket-Protocol: umbel.v1\r\n";

/// The status, and the code and reason of the Close that follows a 101.
fn answer(server: &Server, target: &str, lines: &str) -> (u16, Option<(u16, String)>) {
    let mut wire = server.connect();
    let request = upgrade_request(target, lines);
    wire.send(request.as_bytes());
    let response = wire.read_response_to(&request);
    if response.status != 101 {
        return (response.status, None);
    }
    let protocol = response.header("sec-websocket-protocol");
    assert_eq!(protocol, lines.contains("umbel.v1").then_some("umbel.v1"));
    let frame = wire.read_frame();
    let reason = String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default()).into_owned();
    let code = frame.close_code().expect("a Close with a code");
    wire.send(&support::frames::close(code, ""));
    let (rest, _) = wire.read_to_end();
    assert!(rest.is_empty(), "nothing comes behind the Close");
    (101, Some((code, reason)))
}

fn closed(server: &Server, target: &str, lines: &str) -> (u16, String) {
    let (status, closed) = answer(server, target, lines);
    assert_eq!(status, 101, "{target} {lines:?}");
    closed.expect("a Close")
}

#[test]
fn close_for_scripts_and_status_for_programs() {
    let token = Server::start(&[
        "--subscribe",
        "token",
        "--subscribe-token",
        "0123456789abcdef",
        "--publish",
        "token",
        "--publish-token",
        "fedcba9876543210",
    ]);
    let nobody = Server::start(&["--subscribe", "nobody", "--publish", "nobody"]);
    let wrong = "/ws?token=not-this-one-but-long-enough";
    let long_info = format!("/ws?info={}", "x".repeat(1025));
    let open = Server::start(&[]);
    for (server, target, status, code, words) in [
        (&token, wrong, 401, 4401, "token"),
        (&nobody, "/ws", 403, 4403, "closed to everybody"),
        (&open, "/wrong", 404, 4404, "/ws"),
        (&open, "/console/wrong", 404, 4404, "/ws"),
        (&open, "/pub", 405, 1008, "POST"),
        (&open, &*long_info, 400, 1008, "info_bytes_max"),
        (&open, "/ws/", 404, 4404, "topic"),
    ] {
        for script in [PAGE, NODE] {
            let (closed_with, reason) = closed(server, target, &format!("{OFFER}{script}"));
            assert_eq!(closed_with, code, "{target}: {reason}");
            assert!(reason.contains(words), "{target}: {reason}");
            // Without the dialect it is not a client that reads such codes.
            assert_eq!(answer(server, target, script), (status, None), "{target}");
        }
        assert_eq!(answer(server, target, OFFER), (status, None), "{target}");
    }
}

#[test]
fn foreign_pages_learn_nothing() {
    let server = Server::start(&["--origin", "https://a.example"]);
    for target in ["/ws", "/wrong"] {
        for origin in ["https://b.example", "null"] {
            let lines = format!("{OFFER}Origin: {origin}\r\n");
            let (status, close) = answer(&server, target, &lines);
            assert!(
                matches!(status, 403 | 404) && close.is_none(),
                "{target}: {status}"
            );
        }
    }
}

#[test]
fn topic_paths_have_no_dialect() {
    let server = Server::start(&[]);
    let (code, reason) = closed(&server, "/ws/news", &format!("{OFFER}{PAGE}"));
    assert_eq!(code, 4404);
    assert!(reason.contains("/ws"), "{reason}");
    // A program may take the connection without one.
    let mut wire = server.connect();
    let request = upgrade_request("/ws/news", OFFER);
    wire.send(request.as_bytes());
    let response = wire.read_response_to(&request);
    assert_eq!(response.status, 101);
    assert_eq!(response.header("sec-websocket-protocol"), None);
    server.publish("news", "text/plain", b"x");
    assert_eq!(wire.read_frame(), Frame::text("x"));
}

/// A browser fails a handshake whose offers are all passed over: the page would try again for ever.
#[test]
fn handler_endpoints_have_no_dialect() {
    let server = Server::start(&[]);
    for script in [PAGE, NODE] {
        let (code, reason) = closed(&server, "/echo", &format!("{OFFER}{script}"));
        assert_eq!(code, 4404, "{reason}");
        assert!(reason.contains("umbel.v1 is at /ws"), "{reason}");
    }
    // A program may take the connection without one, and so may a page that offers none of ours.
    for lines in [
        OFFER,
        PAGE,
        "Sec-WebSocket-Protocol: chat\r\nOrigin: http://localhost\r\n",
    ] {
        let mut wire = server.connect();
        let request = upgrade_request("/echo", lines);
        wire.send(request.as_bytes());
        let response = wire.read_response_to(&request);
        assert_eq!(response.status, 101, "{lines:?}");
        assert_eq!(response.header("sec-websocket-protocol"), None);
    }
}

/// A browser tells the page nothing of an answer that is no handshake, and the page would try again for ever.
#[test]
fn other_paths_have_no_websocket() {
    let server = Server::start(&[]);
    for target in [
        "/",
        "/sse/news",
        "/topics",
        "/history/news",
        "/metrics",
        "/health",
    ] {
        for script in [PAGE, NODE] {
            let (code, reason) = closed(&server, target, &format!("{OFFER}{script}"));
            assert_eq!(code, 4404, "{target}: {reason}");
            assert!(reason.contains("umbel.v1 is at /ws"), "{target}: {reason}");
        }
        assert_eq!(answer(&server, target, OFFER), (404, None), "{target}");
    }
    for lines in [PAGE, ""] {
        assert_eq!(
            answer(&server, "/", lines),
            (200, None),
            "no dialect is offered"
        );
    }
}

#[test]
fn refused_handshakes_are_counted() {
    let server = Server::start(&[]);
    closed(&server, "/wrong", &format!("{OFFER}{PAGE}"));
    assert_eq!(
        server.metric("umbel_refused_total{reason=\"not_found\"}"),
        1.0
    );
    support::wait_until("it is counted as ended", || {
        server.metric("umbel_closed_total{reason=\"http_refused\"}") >= 1.0
    });
}

/// Reasons of identity are told as the operator wants it, all others as ever.
#[test]
fn auth_refusal_by_status_or_by_close() {
    let rights = [
        "--subscribe",
        "token",
        "--subscribe-token",
        "0123456789abcdef",
        "--publish",
        "token",
        "--publish-token",
        "fedcba9876543210",
    ];
    let wrong = "/ws?token=not-this-one-but-long-enough";
    let start = |how| Server::start(&[&rights[..], &["--auth-refusal", how]].concat());
    let (status, close) = (start("status"), start("close"));
    let script = format!("{OFFER}{PAGE}");
    assert_eq!(answer(&status, wrong, &script), (401, None));
    assert_eq!(closed(&status, "/wrong", &script).0, 4404);
    for lines in [OFFER, &script] {
        assert_eq!(closed(&close, wrong, lines).0, 4401);
    }
    assert_eq!(answer(&close, "/wrong", OFFER), (404, None));
    // Without the dialect there is no code to tell.
    assert_eq!(answer(&close, "/ws/a", ""), (401, None));
}
