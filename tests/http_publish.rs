//! The HTTP side from outside: publishing, what subscribers get of it, and HTTP/1.1 itself.

mod support;

use support::frames::{BINARY, FIN, Frame, TEXT};
use support::wire::End;
use support::{Pieces, Response, Server, Wire};

/// Header lines, and what follows them, that leave room for two readings; and the status for each.
const AMBIGUOUS: [(&str, u16); 32] = [
    (
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
    ("Content-Length: 0\r\nContent-Length: 60\r\n\r\n", 400),
    ("Content-Length: 0, 0\r\n\r\n", 400),
    ("Content-Length: +5\r\n\r\nhello", 400),
    ("Content-Length: -1\r\n\r\n", 400),
    ("Content-Length:\r\n\r\n", 400),
    ("Content-Length: 0x5\r\n\r\nhello", 400),
    ("Content-Length: 5 5\r\n\r\nhello", 400),
    ("Content-Length: 18446744073709551616\r\n\r\n", 400),
    ("Content-Length : 0\r\n\r\n", 400),
    ("Content-Length: 0\n\r\n", 400),
    ("Transfer-Encoding: chunked\n\r\n0\r\n\r\n", 400),
    ("Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n", 400),
    ("Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("Transfer-Encoding: identity\r\n\r\n", 400),
    ("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (
        "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
        400,
    ),
    (
        "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        400,
    ),
    (
        "Transfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n",
        400,
    ),
    (
        "Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
        400,
    ),
    (
        "Transfer-Encoding: chunked\r\n\r\n 1\r\nx\r\n0\r\n\r\n",
        400,
    ),
    ("Transfer-Encoding: chunked\r\n\r\n-0\r\n\r\n", 400),
    ("Transfer-Encoding: chunked\r\n\r\n\r\n", 400),
    ("Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n", 400),
    ("Transfer-Encoding: chunked\r\n\r\n1\r\nxx0\r\n\r\n", 400),
    ("Transfer-Encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n", 400),
    (
        "Transfer-Encoding: chunked\r\n\r\n0\r\n folded: x\r\n\r\n",
        400,
    ),
    ("Transfer-Encoding: chunked\r\n\r\n0\r\n\n", 400),
    ("Expect: 200-ok\r\nContent-Length: 0\r\n\r\n", 417),
];

fn subscribe(server: &Server, topic: &str) -> Wire {
    let mut wire = server.connect();
    wire.upgrade(&format!("/ws/{topic}"));
    wire
}

/// Epoch and offset of an answer `{"epoch":"…","offset":…}`.
fn position(answer: &str) -> (String, u64) {
    let fields = answer
        .trim()
        .strip_prefix("{\"epoch\":\"")
        .and_then(|rest| rest.strip_suffix('}'))
        .and_then(|rest| rest.split_once("\",\"offset\":"));
    let (epoch, offset) = fields.unwrap_or_else(|| panic!("not a position: {answer:?}"));
    assert!(epoch.len() == 16 && epoch.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (epoch.to_owned(), offset.parse().expect("a number"))
}

fn publish_lines(server: &Server, body: &str) -> Response {
    let request = format!(
        "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    server.request(&request)
}

#[test]
fn publish_answers_position() {
    let server = Server::start(&[]);
    let mut subscriber = subscribe(&server, "news");
    let mut epochs = Vec::new();
    for offset in 1..=20 {
        let body = format!("message {offset}");
        let response = server.publish("news", "text/plain", body.as_bytes());
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.header("content-type"), Some("application/json"));
        let (epoch, found) = position(response.text());
        assert_eq!(found, offset);
        epochs.push(epoch);
        assert_eq!(subscriber.read_frame(), Frame::text(&body));
    }
    epochs.dedup();
    assert_eq!(epochs.len(), 1, "one topic, one epoch: {epochs:?}");
    let response = server.publish("other", "text/plain", b"x");
    assert_eq!(
        position(response.text()).1,
        1,
        "each topic counts for itself"
    );
}

/// The order that a WebSocket publisher and an HTTP publisher make is the order of the offsets.
#[test]
fn http_and_websocket_share_one_order() {
    let server = Server::start(&[]);
    let mut subscriber = subscribe(&server, "mixed");
    let mut publisher = subscribe(&server, "mixed");
    for number in 0..10 {
        publisher.send(&support::frames::text(&format!("ws {number}")));
        let expected = Frame::text(&format!("ws {number}"));
        assert_eq!(subscriber.read_frame(), expected);
        assert_eq!(publisher.read_frame(), expected, "it subscribes too");
        let response = server.publish("mixed", "text/plain", b"http");
        assert_eq!(position(response.text()).1, 2 * number + 2);
        assert_eq!(subscriber.read_frame(), Frame::text("http"));
        assert_eq!(publisher.read_frame(), Frame::text("http"));
    }
}

#[test]
fn content_type_decides_kind() {
    let server = Server::start(&[]);
    let mut subscriber = subscribe(&server, "kinds");
    for (content_type, opcode) in [
        ("text/plain", TEXT),
        ("text/plain; charset=UTF-8", TEXT),
        ("TEXT/HTML;charset=\"utf-8\"", TEXT),
        ("application/json", TEXT),
        ("application/geo+json", TEXT),
        ("application/x-www-form-urlencoded", TEXT),
        ("application/octet-stream", BINARY),
        ("image/png", BINARY),
        ("application/protobuf", BINARY),
    ] {
        let response = server.publish("kinds", content_type, b"body");
        assert_eq!(response.status, 200, "{content_type}");
        let frame = subscriber.read_frame();
        assert_eq!(frame, Frame::new(FIN | opcode, b"body"), "{content_type}");
    }
    // Without a type the body decides.
    for (body, opcode) in [(&b"p\xc3\xa4r"[..], TEXT), (b"p\xe4r", BINARY), (b"", TEXT)] {
        let mut wire = server.connect();
        let head = format!(
            "POST /pub/kinds HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        wire.send(&[head.as_bytes(), body].concat());
        assert_eq!(wire.read_response().status, 200);
        assert_eq!(subscriber.read_frame(), Frame::new(FIN | opcode, body));
    }
    let bad = server.publish("kinds", "text/plain", b"p\xe4r");
    assert_eq!(bad.status, 400, "text that is not UTF-8");
    let latin = server.publish("kinds", "text/plain; charset=iso-8859-1", b"x");
    assert_eq!(latin.status, 415);
    assert_eq!(server.publish("kinds", "text/plain", b"last").status, 200);
    assert_eq!(
        subscriber.read_frame(),
        Frame::text("last"),
        "nothing of the bad ones came"
    );
}

#[test]
fn publish_headers() {
    let server = Server::start(&[]);
    let long = format!("Umbel-Key: {}\r\n", "x".repeat(256));
    for (headers, status) in [
        ("Umbel-Key: EUR \u{e9}\r\nUmbel-Receipt: false\r\n", 200),
        ("Umbel-Receipt: true\r\n", 200),
        ("Umbel-Key: a\r\nUmbel-Key: a\r\n", 400),
        ("Umbel-Key:\r\n", 400),
        ("Umbel-Key: a\tb\r\n", 400),
        (&long, 400),
        ("Umbel-Receipt: 1\r\n", 400),
    ] {
        let request = format!(
            "POST /pub/k HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 1\r\n\r\nx"
        );
        assert_eq!(server.request(&request).status, status, "{headers}");
    }
}

#[test]
fn answer_for_each_line() {
    let server = Server::start(&[]);
    let mut one = subscribe(&server, "one");
    let mut two = subscribe(&server, "two?a=1&b=2");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = [
        r#"{"topic":"one","data":"text"}"#,
        r#"{"topic":"two?b=2&a=1","data":{"price": 3}}"#,
        "not json",
        r#"{"topic":"one","base64":"AAEC"}"#,
        r#"{"topic":"one"}"#,
        r#"{"topic":"one","data":1,"base64":""}"#,
        r#"{"topic":"","data":1}"#,
        r#"{"topic":"a\u0000b","data":1}"#,
        r#"{"topic":5,"data":1}"#,
        r#"{"topic":"one","base64":"!"}"#,
        r#"{"topic":"one","data":"\ud800"}"#,
        r#"{"topic":"one","data":1,"data":2}"#,
        r#"{"topic":"one","data":1} trailing"#,
        r#"{"topic":"one","data":1,"more":1}"#,
        "[]",
        "null",
        r#"{"topic":"one","data":1e999}"#,
        &format!(r#"{{"topic":"one","data":{deep}}}"#),
        r#"{"topic":"one","data":null}"#,
    ]
    .join("\n");
    let response = publish_lines(&server, &body);
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(
        response.header("content-type"),
        Some("application/x-ndjson")
    );
    let answers: Vec<&str> = response.text().lines().collect();
    assert_eq!(answers.len(), 19);
    for (index, answer) in answers.iter().enumerate() {
        match index {
            0 => assert_eq!(position(answer).1, 1),
            1 => assert_eq!(position(answer).1, 1),
            3 => assert_eq!(position(answer).1, 2),
            18 => drop(position(answer)),
            _ => {
                let start = format!("{{\"status\":400,\"error\":\"line {}: ", index + 1);
                let is_refused = answer.starts_with(&start) && answer.ends_with("\"}");
                assert!(is_refused, "{index}: {answer}");
            }
        }
    }
    assert!(answers[13].contains(r#"there is no field \"more\" here"#));
    assert_eq!(one.read_frame(), Frame::text("text"));
    assert_eq!(one.read_frame(), Frame::new(FIN | BINARY, [0, 1, 2]));
    assert_eq!(one.read_frame(), Frame::text("null"));
    assert_eq!(two.read_frame(), Frame::text("{\"price\": 3}"));
}

#[test]
fn line_ends_and_empty_body() {
    let server = Server::start(&[]);
    let line = r#"{"topic":"a","data":"x"}"#;
    for (body, count) in [
        (String::new(), 0),
        ("\n\r\n \n".to_owned(), 0),
        (line.to_owned(), 1),
        (format!("{line}\r\n{line}\r\n"), 2),
        (format!("\n{line}\n\n{line}"), 2),
        (format!("{line}\n").repeat(4000), 4000),
    ] {
        let response = publish_lines(&server, &body);
        assert_eq!(response.status, 200);
        assert_eq!(response.text().lines().count(), count);
        assert!(response.text().lines().all(|answer| position(answer).1 > 0));
    }
}

#[test]
fn bodies_by_length_or_chunks() {
    let server = Server::start(&[]);
    let head = "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n";
    let mut subscriber = subscribe(&server, "a");
    for body in [
        "Content-Length: 5\r\n\r\nhello",
        "Content-Length: 005\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "transfer-encoding: Chunked\r\n\r\n1\r\nh\r\n0004\r\nello\r\n00\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5;ext=1;q=\"v\"\r\nhello\r\n0;x\r\nTrailer: y\r\nX: z\r\n\r\n",
    ] {
        for pieces in Pieces::ALL {
            let mut wire = server.connect();
            // Twice, since what follows must be found where the body ends.
            wire.offer(&format!("{head}{body}").repeat(2).into_bytes(), pieces);
            for _ in 0..2 {
                assert_eq!(wire.read_response().status, 200, "{body:?}");
                assert_eq!(subscriber.read_frame(), Frame::text("hello"), "{body:?}");
            }
        }
    }
}

/// Bodies that two parsers may read in two ways are refused, and the connection closes (hyper CVE-2021-21299 and its
/// kin).
#[test]
fn ambiguous_bodies() {
    let server = Server::start(&[]);
    let smuggled = "POST /pub/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    for (lines, status) in AMBIGUOUS {
        for pieces in Pieces::ALL {
            let mut wire = server.connect();
            let request = format!("POST /pub/a HTTP/1.1\r\nHost: localhost\r\n{lines}{smuggled}");
            wire.offer(request.as_bytes(), pieces);
            let response = wire.read_response();
            assert_eq!(response.status, status, "{lines:?} {pieces:?}");
            assert_eq!(response.header("connection"), Some("close"), "{lines:?}");
            wire.end();
            assert_eq!(wire.read_to_end(), (Vec::new(), End::Eof), "{lines:?}");
        }
    }
    // HTTP/1.0 has no chunks.
    let old = "POST /pub/a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(server.request(old).status, 400);
    assert_eq!(server.metric("umbel_publications_total"), 0.0);
}

#[test]
fn expect_continue() {
    let server = Server::start(&[]);
    let head = "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n";
    let mut wire = server.connect();
    wire.send(head.as_bytes());
    assert_eq!(wire.read_response().status, 100);
    wire.send(b"hello");
    assert_eq!(wire.read_response().status, 200);
    // Whoever is refused is not asked for the body.
    let mut wire = server.connect();
    wire.send(head.replace("/pub/a", "/nothing").as_bytes());
    let response = wire.read_response();
    assert_eq!(
        (response.status, response.header("connection")),
        (404, Some("close"))
    );
    // Whoever sent it already is not asked either.
    let mut wire = server.connect();
    wire.send(format!("{head}hello").as_bytes());
    assert_eq!(wire.read_response().status, 200);
}

#[test]
fn pipelined_requests_in_order() {
    let server = Server::start(&[]);
    for pieces in Pieces::ALL {
        let mut requests = String::new();
        let mut statuses = Vec::new();
        for number in 0..10 {
            requests.push_str("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
            requests.push_str("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n");
            requests.push_str("DELETE /pub/a HTTP/1.1\r\nHost: localhost\r\n\r\n\r\n");
            let body = "x".repeat(number);
            requests.push_str(&format!(
                "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {number}\r\n\r\n{body}"
            ));
            statuses.extend([200, 404, 405, 200]);
        }
        let mut wire = server.connect();
        wire.offer(requests.as_bytes(), pieces);
        let found: Vec<u16> = statuses
            .iter()
            .map(|_| wire.read_response().status)
            .collect();
        assert_eq!(found, statuses, "{pieces:?}");
    }
}

#[test]
fn keep_alive_by_version() {
    let server = Server::start(&[]);
    for (request, persists) in [
        ("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", true),
        (
            "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            false,
        ),
        (
            "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: x, CLOSE\r\n\r\n",
            false,
        ),
        ("GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n", false),
        (
            "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
            false,
        ),
    ] {
        let mut wire = server.connect();
        wire.send(request.as_bytes());
        let response = wire.read_response();
        assert_eq!(response.status, 200, "{request:?}");
        let closes = response.header("connection") == Some("close");
        assert_eq!(closes, !persists, "{request:?}");
        if persists {
            wire.send(request.as_bytes());
            assert_eq!(wire.read_response().status, 200);
        } else {
            assert_eq!(wire.read_to_end(), (Vec::new(), End::Eof), "{request:?}");
        }
    }
    // A peer that ends its side behind a request still gets the answer.
    let mut wire = server.connect();
    wire.send(b"POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx");
    wire.end();
    assert_eq!(wire.read_response().status, 200);
    assert_eq!(wire.read_to_end(), (Vec::new(), End::Eof));
}

#[test]
fn head_is_get_without_body() {
    let server = Server::start(&[]);
    for target in ["/", "/health", "/ready", "/metrics"] {
        let get = server.request(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let mut wire = server.connect();
        let request = format!("HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        wire.send(request.as_bytes());
        let head = wire.read_response_to(&request);
        assert_eq!((get.status, head.status), (200, 200), "{target}");
        assert!(!get.body.is_empty() && head.body.is_empty(), "{target}");
        assert_eq!(head.header("content-type"), get.header("content-type"));
        if target != "/metrics" {
            assert_eq!(head.header("content-length"), get.header("content-length"));
        }
        wire.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(wire.read_response().text(), "ok\n", "no body stood between");
    }
}

#[test]
fn wrong_method_gets_allow() {
    let server = Server::start(&[]);
    for (target, allow) in [
        ("/", "GET, HEAD"),
        ("/health", "GET, HEAD"),
        ("/ready", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/ws/a", "GET, HEAD"),
        ("/sse/a", "GET, HEAD"),
        ("/echo", "GET, HEAD"),
        ("/pub/a", "POST"),
        ("/pub", "POST"),
    ] {
        for method in [
            "PUT", "DELETE", "PATCH", "TRACE", "BREW", "get", "POST", "GET", "HEAD",
        ] {
            if allow.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let response = server.request(&request);
            assert_eq!(response.status, 405, "{request:?}");
            assert_eq!(response.header("allow"), Some(allow), "{request:?}");
        }
    }
    let connect = server.request("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    assert_eq!(connect.status, 405);
}

/// The two spellings of one topic meet, and reserved parameters are no part of it.
#[test]
fn options_asterisk() {
    let server = Server::start(&[]);
    let response = server.request("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(response.status, 204);
    assert_eq!(response.header("allow"), Some("GET, HEAD, POST, OPTIONS"));
}

#[test]
fn canonical_topics() {
    let server = Server::start(&[]);
    let mut subscriber = subscribe(&server, "tokens?chain_id=100000&b=%20");
    for topic in [
        "tokens?chain_id=100000&b=+",
        "tokens?b=%20&chain_id=100000",
        "tokens?b=%20&since=1&chain_id=100000&last=5&token=x&access_token=y",
        "%74okens?%62=+&chain_id=10000%30",
    ] {
        assert_eq!(
            server.publish(topic, "text/plain", topic.as_bytes()).status,
            200
        );
        assert_eq!(subscriber.read_frame(), Frame::text(topic));
    }
    for topic in [
        "tokens",
        "tokens?chain_id=100000",
        "tokens?chain_id=100000&b=x",
        "Tokens?b=+",
    ] {
        assert_eq!(server.publish(topic, "text/plain", b"other").status, 200);
    }
    assert_eq!(
        server
            .publish("tokens?b=+&chain_id=100000", "text/plain", b"last")
            .status,
        200
    );
    assert_eq!(
        subscriber.read_frame(),
        Frame::text("last"),
        "the others went elsewhere"
    );
}
