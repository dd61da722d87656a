//! HTTP around the topics: what is answered to every request, and to what is hardly one.

mod support;

use std::process::Command;

use support::{Pieces, Server, Wire, wait_until};

/// The status of the answer to these bytes.
fn status(server: &Server, request: &[u8]) -> u16 {
    let mut wire = server.connect();
    wire.offer(request, Pieces::Whole);
    wire.read_response().status
}

/// RFC 9112 section 7.1.1.
#[test]
fn chunk_extensions_follow_their_grammar() {
    let server = Server::start(&[]);
    for (extension, expected) in [
        (";a", 200),
        (" ; a = \"b;\\\"c\"", 200),
        (";", 400),
        ("; ", 400),
        (";bad[=x", 400),
        (";a=\"b", 400),
        (";a=b\"", 400),
        (";a=", 400),
        (";a b", 400),
    ] {
        for pieces in Pieces::ALL {
            let mut wire = server.connect();
            let request = format!(
                "POST /pub/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1{extension}\r\nx\r\n0\r\n\r\n"
            );
            wire.offer(request.as_bytes(), pieces);
            assert_eq!(wire.read_response().status, expected, "{extension:?}");
        }
    }
}

#[test]
fn request_lines() {
    let server = Server::start(&[]);
    let long = format!("GET /health?{} HTTP/1.1", "a".repeat(7992));
    for (line, expected) in [
        ("GET http://a?query HTTP/1.1", 200),
        ("GET http://a HTTP/1.1", 200),
        ("GET /health HTTP/1.2", 200),
        ("GET /health HTTP/1.9", 200),
        ("GET /health HTTP/2.0", 505),
        ("GET /topics/\u{e9} HTTP/1.1", 400),
        ("GET /health?\u{e9} HTTP/1.1", 400),
        (&*long, 200),
        (&*long.replace("?a", "?aa"), 414),
    ] {
        let request = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(status(&server, request.as_bytes()), expected, "{line}");
    }
    // HTTP/1.2 keeps the connection, as 1.1 does.
    let mut wire = server.connect();
    for _ in 0..2 {
        wire.send(b"GET /health HTTP/1.2\r\nHost: a\r\n\r\n");
        assert_eq!(wire.read_response().header("connection"), None);
    }
}

#[test]
fn upgrade_is_required() {
    let server = Server::start(&[]);
    for path in ["/echo", "/ws", "/ws/a"] {
        let mut wire = server.connect();
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let response = wire.read_response();
        assert_eq!(response.status, 426, "{path}");
        assert_eq!(response.header("upgrade"), Some("websocket"));
        assert_eq!(response.header("connection"), Some("upgrade"));
    }
}

/// A client of HTTP/2 with prior knowledge is told in its own frames to speak HTTP/1.1.
#[test]
fn http_2_is_told_to_speak_http_1() {
    let server = Server::start(&[]);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for pieces in Pieces::ALL {
        let mut wire = server.connect();
        wire.offer(preface, pieces);
        let words = b"this server speaks HTTP/1.1; with curl: --http1.1";
        let mut expected = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
        expected.extend([0, 0, 8 + words.len() as u8, 7, 0, 0, 0, 0, 0]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0xd]);
        expected.extend(words);
        assert_eq!(wire.read_to_end().0, expected, "{pieces:?}");
    }
}

/// What curl prints of it.
#[test]
fn curl_names_the_error() {
    let server = Server::start(&[]);
    let url = format!("http://{}/health", server.address());
    let output = Command::new("curl")
        .args([
            "-v",
            "-sS",
            "--http2-prior-knowledge",
            "--max-time",
            "5",
            &url,
        ])
        .output();
    let Ok(output) = output else { return };
    // 2: this curl was built without HTTP/2.
    if output.status.code() != Some(2) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("GOAWAY, error=13"), "{said}");
        assert_eq!(output.status.code(), Some(16), "{said}");
    }
}

/// A load balancer that speaks the PROXY protocol to a plain port.
#[test]
fn proxy_header_gets_a_hint() {
    let server = Server::start(&[]);
    for header in [
        &b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
    ] {
        let mut wire: Wire = server.connect();
        wire.send(header);
        let response = wire.read_response();
        assert_eq!(response.status, 400);
        assert!(response.text().contains("PROXY"), "{}", response.text());
    }
    wait_until("the hint", || server.log().contains("PROXY"));
    // Once for each reactor.
    assert!(server.log().matches("PROXY header").count() <= 2);
}
