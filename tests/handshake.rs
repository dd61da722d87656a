//! The opening handshake from outside: RFC 6455 section 4, and origins.

mod support;

use std::time::Duration;

use support::frames::{self, FIN, Frame, TEXT};
use support::wire::{End, upgrade_request};
use support::{Pieces, Response, Server, Wire};

/// The pairs of key and accept: RFC 6455 section 1.3, and two more.
const PAIRS: [(&str, &str); 3] = [
    ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ("x3JJHMbDL1EzLkh9GBhXDw==", "HSmrc0sMlYUkAGmm5OPpG2HaGWk="),
    ("w4v7O6xFTi36lq3RNcgctw==", "Oy4NRAQ13jhfONC7bP8dTKb4PTU="),
];

/// Parts of a request for an upgrade; tests change one each.
const GOOD: [&str; 5] = [
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
];

/// A request with the good lines, of which those that begin like `replaced` are left out, and these instead.
fn changed(replaced: &str, lines: &[&str]) -> String {
    let kept = GOOD
        .iter()
        .filter(|line| replaced.is_empty() || !line.starts_with(&format!("{replaced}:")));
    let mut request = "GET /ws/a HTTP/1.1\r\n".to_owned();
    for line in kept.chain(lines) {
        request.push_str(line);
        request.push_str("\r\n");
    }
    request + "\r\n"
}

fn ask(server: &Server, request: &str, pieces: Pieces) -> (Wire, Response) {
    let mut wire = server.connect();
    wire.offer(request.as_bytes(), pieces);
    let response = wire.read_response_to(request);
    (wire, response)
}

/// A refusal says in one line of plain text what is wrong.
fn assert_refusal(response: &Response, status: u16, context: &str) {
    assert_eq!(response.status, status, "{context:?}: {response:?}");
    assert_eq!(
        response.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    let reason = response.text().strip_suffix('\n').unwrap_or_default();
    assert!(
        reason.len() > 10 && !reason.contains(char::is_control),
        "{context:?}: {reason:?}"
    );
}

#[test]
fn accept_key() {
    let server = Server::start(&[]);
    for (key, accept) in PAIRS {
        for pieces in Pieces::ALL {
            let request = changed(
                "Sec-WebSocket-Key",
                &[
                    &format!("Sec-WebSocket-Key: {key}"),
                    "Sec-WebSocket-Extensions: x-webkit-deflate-frame",
                ],
            );
            let (_, response) = ask(&server, &request, pieces);
            assert_eq!(response.status, 101);
            assert_eq!(response.header("sec-websocket-accept"), Some(accept));
            assert_eq!(response.header("upgrade"), Some("websocket"));
            assert_eq!(response.header("connection"), Some("Upgrade"));
            for absent in [
                "sec-websocket-extensions",
                "sec-websocket-protocol",
                "content-length",
                "transfer-encoding",
            ] {
                assert_eq!(response.header(absent), None, "{absent}");
            }
        }
    }
}

#[test]
fn valid_request_spellings() {
    // One that is open to this machine refuses what proxies add.
    let server = Server::start(&["--insecure"]);
    for request in [
        changed("Upgrade", &["UPGRADE:\tWebSocket  "]),
        changed("Upgrade", &["upgrade: h2c, websocket"]),
        changed("Upgrade", &["Upgrade: h2c", "Upgrade: WEBSOCKET"]),
        changed("Connection", &["connection:keep-alive,uPgRaDe"]),
        changed(
            "Connection",
            &["Connection: keep-alive", "Connection: , Upgrade ,"],
        ),
        changed("Host", &["host: 127.0.0.1:8080"]),
        changed("Host", &["Host: [::1]:1"]),
        changed("", &["Content-Length: 0"]),
        changed("", &["X-Forwarded-For:"]),
        changed("", &[&format!("X-Forwarded-For: {}", "1".repeat(10_000))]),
        changed("", &["X-Forwarded-For: 10.0.0.1", "X-Real-IP: ::1"]),
        changed("", &["Cookie: \u{fffd}\u{e9}"]),
        format!("\r\n{}", changed("", &[])),
        changed("", &[]).replace("/ws/a", "http://localhost/ws/a"),
        changed("", &[]).replace("/ws/a", "/ws/%F0%9F%8C%B8?b=2&a=1&token=x"),
    ] {
        for pieces in Pieces::ALL {
            let (_, response) = ask(&server, &request, pieces);
            assert_eq!(response.status, 101, "{request:?}: {response:?}");
        }
    }
}

/// Handshakes with a wrong or missing line, and the status for each.
fn refused_lines() -> Vec<(String, u16)> {
    vec![
        (changed("Host", &[]), 400),
        (changed("", &["Host: localhost"]), 400),
        (changed("Host", &["Host:"]), 400),
        (changed("Host", &["Host: a b"]), 400),
        (changed("Host", &["Host: user@a"]), 400),
        (changed("Upgrade", &[]), 426),
        (changed("Upgrade", &["Upgrade: web-socket"]), 426),
        (changed("Upgrade", &["Upgrade: \"websocket\""]), 426),
        (changed("Connection", &[]), 426),
        (changed("Connection", &["Connection: close"]), 426),
        (changed("Sec-WebSocket-Key", &[]), 400),
        (changed("Sec-WebSocket-Key", &["Sec-WebSocket-Key:"]), 400),
        (
            changed(
                "Sec-WebSocket-Key",
                &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"],
            ),
            400,
        ),
        (
            changed(
                "Sec-WebSocket-Key",
                &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ="],
            ),
            400,
        ),
        (
            changed(
                "Sec-WebSocket-Key",
                &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=!"],
            ),
            400,
        ),
        (
            changed(
                "Sec-WebSocket-Key",
                &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWU="],
            ),
            400,
        ),
        (
            changed("", &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]),
            400,
        ),
        (changed("", &["Sec-WebSocket-Version: 13"]), 400),
    ]
}

/// Handshakes with a body, or with lines that are none, and the status for each.
fn refused_framing() -> Vec<(String, u16)> {
    vec![
        (changed("", &["Content-Length: 5"]), 400),
        (changed("", &["Transfer-Encoding: chunked"]), 400),
        (
            changed("", &["Content-Length: 0", "Content-Length: 0"]),
            400,
        ),
        (
            changed(
                "",
                &["Origin: http://localhost", "Origin: http://localhost"],
            ),
            400,
        ),
        (changed("", &["Sec-WebSocket-Protocol: a b"]), 400),
        (
            changed(
                "",
                &[&format!("Sec-WebSocket-Protocol: {}", ["a"; 33].join(","))],
            ),
            400,
        ),
        (changed("", &[" folded"]), 400),
        (changed("", &["no colon"]), 400),
        (changed("", &["Blank : before"]), 400),
        (changed("", &["A: \u{1}"]), 400),
        (changed("", &[]).replace("\r\n", "\n"), 400),
    ]
}

/// Handshakes with another method, version or target, and what is no request; and the status for each.
fn refused_targets() -> Vec<(String, u16)> {
    vec![
        (changed("", &[]).replace("GET", "POST"), 405),
        (changed("", &[]).replace("GET", "HEAD"), 426),
        (changed("", &[]).replace("GET", "get"), 405),
        (changed("", &[]).replace("HTTP/1.1", "HTTP/1.0"), 400),
        (changed("", &[]).replace("HTTP/1.1", "HTTP/2.0"), 505),
        (changed("", &[]).replace("HTTP/1.1", "HTTP/1.1 "), 400),
        (changed("", &[]).replace("/ws/a", "/ws"), 400),
        (changed("", &[]).replace("/ws/a", "/ws/"), 404),
        (changed("", &[]).replace("/ws/a", "/nothing"), 404),
        (changed("", &[]).replace("/ws/a", "/ws/%zz"), 400),
        (changed("", &[]).replace("/ws/a", "/ws/%0a"), 400),
        (changed("", &[]).replace("/ws/a", "/ws/%ff"), 400),
        (changed("", &[]).replace("/ws/a", "/ws/a#b"), 400),
        (changed("", &[]).replace("/ws/a", "ftp://localhost/"), 400),
        (
            changed("", &[]).replace("/ws/a", "http://b.example/ws/a"),
            400,
        ),
        (
            changed("", &[]).replace("/ws/a", &format!("/ws/{}", "a".repeat(256))),
            414,
        ),
        (
            changed("", &[]).replace("/ws/a", &format!("/ws/{}", "a".repeat(8001))),
            414,
        ),
        (changed("", &["A: b"; 96]), 431),
        (changed("", &[&format!("A: {}", "b".repeat(20_000))]), 431),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}".to_owned(), 400),
        ("\r\n\r\n".to_owned(), 400),
        (format!("{}\r\n\r\n", "A".repeat(40)), 501),
    ]
}

#[test]
fn invalid_requests_refused() {
    let server = Server::start(&[]);
    let refused = [refused_lines(), refused_targets(), refused_framing()].concat();
    for (request, status) in refused {
        for pieces in Pieces::ALL {
            let (mut wire, response) = ask(&server, &request, pieces);
            if !request.starts_with("HEAD") {
                assert_refusal(&response, status, &request);
            }
            assert_eq!(response.status, status, "{request:?}");
            let allow = response.header("allow");
            assert_eq!(allow, (status == 405).then_some("GET, HEAD"), "{request:?}");
            // Either the connection says that it closes, and does, or it takes another request.
            let connection = response.header("connection").unwrap_or_default();
            if connection.starts_with("close") {
                assert_eq!(wire.read_to_end().1, End::Eof, "{request:?}");
            } else {
                wire.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
                assert_eq!(wire.read_response().status, 200, "{request:?}");
            }
        }
    }
}

/// A proxy that takes 426 for a tunnel must not get one (websocket-smuggle).
#[test]
fn other_version_gets_426() {
    let server = Server::start(&[]);
    for lines in [
        &[][..],
        &["Sec-WebSocket-Version:"],
        &["Sec-WebSocket-Version: 8"],
        &["Sec-WebSocket-Version: 013"],
        &["Sec-WebSocket-Version: 13, 8"],
        &["Sec-WebSocket-Version: 1337"],
    ] {
        let request = changed("Sec-WebSocket-Version", lines);
        let second = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        for pieces in Pieces::ALL {
            let (mut wire, response) = ask(&server, &format!("{request}{second}"), pieces);
            assert_refusal(&response, 426, &request);
            assert_eq!(response.header("sec-websocket-version"), Some("13"));
            assert_eq!(response.header("upgrade"), Some("websocket"));
            let health = wire.read_response();
            assert_eq!((health.status, health.text()), (200, "ok\n"));
        }
    }
}

/// A request for an upgrade with a body could hide another request in it (aiohttp CVE-2026-69243).
#[test]
fn smuggled_request_behind_refused_upgrade() {
    let server = Server::start(&[]);
    let hidden = "POST /pub/hidden HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    let length = format!("Content-Length: {}", hidden.len());
    for lines in [
        &[length.as_str()][..],
        &["Transfer-Encoding: chunked"],
        &[length.as_str(), "Transfer-Encoding: chunked"],
    ] {
        for pieces in Pieces::ALL {
            let (mut wire, response) = ask(&server, &(changed("", lines) + hidden), pieces);
            assert_refusal(&response, 400, &lines.join(" "));
            assert_eq!(response.header("connection"), Some("close"));
            wire.end();
            assert_eq!(wire.read_to_end(), (Vec::new(), End::Eof));
        }
    }
    assert_eq!(server.metric("umbel_publications_total"), 0.0);
}

#[test]
fn frames_with_handshake() {
    let server = Server::start(&[]);
    for pieces in Pieces::ALL {
        let mut bytes = upgrade_request("/echo", "").into_bytes();
        for number in 0..20 {
            bytes.extend(frames::text(&number.to_string()));
        }
        let mut wire = server.connect();
        wire.offer(&bytes, pieces);
        assert_eq!(wire.read_response().status, 101);
        for number in 0..20 {
            assert_eq!(wire.read_frame(), Frame::text(&number.to_string()));
        }
    }
}

/// Behind answered requests on the same connection, an upgrade is an upgrade too.
#[test]
fn upgrade_behind_other_requests() {
    let server = Server::start(&[]);
    for pieces in Pieces::ALL {
        let mut bytes = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3);
        bytes.extend_from_slice(
            b"POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx",
        );
        bytes.extend(upgrade_request("/echo", "").into_bytes());
        bytes.extend(frames::masked(FIN | TEXT, b"behind"));
        let mut wire = server.connect();
        wire.offer(&bytes, pieces);
        let statuses: Vec<u16> = (0..5).map(|_| wire.read_response().status).collect();
        assert_eq!(statuses, [200, 200, 200, 200, 101]);
        assert_eq!(wire.read_frame(), Frame::text("behind"));
    }
}

#[test]
fn subprotocol_negotiation() {
    let with = Server::start(&["--subprotocol", "chat,super.chat", "--subprotocol", "v2"]);
    let without = Server::start(&[]);
    for (offers, agreed) in [
        (&["chat"][..], Some("chat")),
        (&["v2, chat"], Some("v2")),
        (&["other", "super.chat,chat"], Some("super.chat")),
        (&[" ,, v2 ,"], Some("v2")),
        (&["Chat"], None),
        (&["other"], None),
        (&["chatx", "xchat"], None),
        (&[""], None),
        (&[], None),
    ] {
        let lines: String = offers
            .iter()
            .map(|offer| format!("Sec-WebSocket-Protocol: {offer}\r\n"))
            .collect();
        for (server, agreed) in [(&with, agreed), (&without, None)] {
            let (_, response) = ask(server, &upgrade_request("/ws/a", &lines), Pieces::Whole);
            assert_eq!(response.status, 101, "{offers:?}");
            assert_eq!(
                response.header("sec-websocket-protocol"),
                agreed,
                "{offers:?}"
            );
        }
    }
}

#[test]
fn tungstenite_handshake() {
    let server = Server::start(&[]);
    let mut websocket = server.websocket("/echo");
    for message in [
        tungstenite::Message::text("p\u{e4}r"),
        tungstenite::Message::binary(vec![0; 70_000]),
    ] {
        websocket.send(message.clone()).expect("it is sent");
        assert_eq!(websocket.read().expect("it is echoed"), message);
    }
    websocket.close(None).expect("a Close is sent");
    assert!(matches!(
        websocket.read(),
        Ok(tungstenite::Message::Close(_))
    ));
    assert!(matches!(
        websocket.read(),
        Err(tungstenite::Error::ConnectionClosed)
    ));
}

/// 32,000 blanks in a list take about 32 times as long as 1,000 (ws CVE-2021-32640). What is measured is the server's
/// own CPU time.
#[test]
fn blanks_in_lists_are_linear() {
    let server = Server::start(&["--head-bytes-max", "65536"]);
    let cost = |blanks: usize, times: usize| {
        let line = format!("Sec-WebSocket-Protocol: b{}x\r\n", " ".repeat(blanks));
        let request = upgrade_request("/ws/a", &line);
        let before = support::process::cpu_ticks(server.pid());
        for _ in 0..times {
            let (_, response) = ask(&server, &request, Pieces::Whole);
            assert_eq!(response.status, 400);
        }
        support::process::cpu_ticks(server.pid()) - before
    };
    cost(1_000, 20);
    let (short, long) = (cost(1_000, 100), cost(32_000, 100));
    // A tick is 10 ms, so a short one may well be 0 of them.
    assert!(long <= 40 * short.max(5), "{long} ticks against {short}");
}

#[test]
fn full_server_recovers() {
    let server = Server::start(&["--connections-max", "4"]);
    let mut taken: Vec<Wire> = (0..4).map(|_| server.connect()).collect();
    for wire in &mut taken {
        wire.upgrade("/ws/a");
    }
    let (mut wire, response) = ask(&server, &upgrade_request("/ws/a", ""), Pieces::Whole);
    assert_refusal(&response, 503, "the fifth");
    assert!(response.header("retry-after").is_some(), "{response:?}");
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(wire.read_to_end_within(Duration::from_secs(6)).1, End::Eof);
    taken.clear();
    support::wait_until("there is room again", || {
        let (_, response) = ask(&server, &upgrade_request("/ws/a", ""), Pieces::Whole);
        response.status == 101
    });
}

/// A header that does not follow the grammar of RFC 6455 section 9.1 fails the handshake, on each endpoint and whether
/// or not the server compresses.
#[test]
fn malformed_extensions() {
    let plain = Server::start(&["--deflate", "off"]);
    let server = Server::start(&[]);
    for offer in [
        "permessage-deflate; x=\"",
        "permessage-deflate; server_max_window_bits=\"\"",
        "permessage-deflate; server_max_window_bits=",
        "permessage-deflate;",
        "permessage-deflate, a b",
        "permessage-deflate\r\nSec-WebSocket-Extensions: x; y=\"a b\"",
        ";;;,,,===\"",
        "\"unterminated",
        "\u{e9}",
        &"a;".repeat(4000),
    ] {
        let line = format!("Sec-WebSocket-Extensions: {offer}\r\n");
        for (server, target, subprotocol) in [
            (&server, "/echo", ""),
            (&server, "/ws/a", ""),
            (&server, "/ws", "Sec-WebSocket-Protocol: umbel.v1\r\n"),
            (&plain, "/ws/a", ""),
        ] {
            let mut wire = server.connect();
            let lines = format!("{line}{subprotocol}");
            wire.send(upgrade_request(target, &lines).as_bytes());
            let response = wire.read_response();
            assert_eq!(response.status, 400, "{target} {offer}");
            assert!(
                response.text().contains("Sec-WebSocket-Extensions"),
                "{}",
                response.text()
            );
        }
    }
}
