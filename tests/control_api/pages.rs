//! The control API for pages of other origins.

use std::io::{Read, Write};

use crate::support::Server;
use crate::support::peers::connect;

const TOKEN: &str = "operator-token-of-the-test";

/// Status and head of an answer.
fn ask(server: &Server, method: &str, lines: &str) -> (u16, String) {
    let mut stream = connect(server.address(), 0);
    let head = format!(
        "{method} /api/v1/stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    (head[9..12].parse().expect("a status"), head.to_owned())
}

#[test]
fn pages_of_named_origins() {
    let server = Server::start(&[
        "--observe-token",
        TOKEN,
        "--publish",
        "anyone",
        "--subscribe",
        "anyone",
        "--origin",
        "https://app.example",
        "--api-origins",
        "https://operator.example",
    ]);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    // A page of an origin that may connect asks, and cannot read the answer.
    for (origin, is_allowed, expected) in [
        ("https://operator.example", true, 200),
        ("https://app.example", false, 200),
        ("https://other.example", false, 403),
    ] {
        let lines = format!("Origin: {origin}\r\nSec-Fetch-Site: cross-site\r\n{bearer}");
        let allows = format!("access-control-allow-origin: {origin}");
        let (status, head) = ask(&server, "GET", &lines);
        assert_eq!(head.contains(&allows), is_allowed, "{head}");
        assert_eq!(status, expected, "{head}");
        let asks = "Access-Control-Request-Method: POST\r\n\
                    Access-Control-Request-Headers: authorization, content-type";
        let (_, head) = ask(&server, "OPTIONS", &format!("Origin: {origin}\r\n{asks}"));
        assert_eq!(head.contains(&allows), is_allowed, "{head}");
        let methods = "access-control-allow-methods: get, post, delete";
        assert_eq!(head.contains(methods), is_allowed, "{head}");
    }
    assert_eq!(ask(&server, "GET", &bearer).0, 200);
}
