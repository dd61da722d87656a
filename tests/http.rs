//! HTTP around the topics: what is answered to every request, and to what is hardly one.

mod support;

use std::process::Command;

use serde_json::Value;
use support::umbel_v1::Peer;
use support::wire::upgrade_request;
use support::{Pieces, Response, Server, Wire, wait_until};

/// The status of the answer to these bytes.
fn status(server: &Server, request: &[u8]) -> u16 {
    let mut wire = server.connect();
    wire.offer(request, Pieces::Whole);
    wire.read_response().status
}

fn publish_lines(server: &Server, body: &str) -> Response {
    let length = body.len();
    server.request(&format!(
        "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
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
                "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1{extension}\r\nx\r\n0\r\n\r\n"
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
        ("GET http://localhost?query HTTP/1.1", 200),
        ("GET http://localhost HTTP/1.1", 200),
        ("GET /health HTTP/1.2", 200),
        ("GET /health HTTP/1.9", 200),
        ("GET /health HTTP/2.0", 505),
        ("GET /topics/\u{e9} HTTP/1.1", 400),
        ("GET /health?\u{e9} HTTP/1.1", 400),
        (&*long, 200),
        (&*long.replace("?a", "?aa"), 414),
    ] {
        let request = format!("{line}\r\nHost: localhost\r\n\r\n");
        assert_eq!(status(&server, request.as_bytes()), expected, "{line}");
    }
    // HTTP/1.2 keeps the connection, as 1.1 does.
    let mut wire = server.connect();
    for _ in 0..2 {
        wire.send(b"GET /health HTTP/1.2\r\nHost: localhost\r\n\r\n");
        assert_eq!(wire.read_response().header("connection"), None);
    }
}

#[test]
fn upgrade_is_required() {
    let server = Server::start(&[]);
    for path in ["/echo", "/ws", "/ws/a"] {
        let mut wire = server.connect();
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
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
        &b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 80\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
    ] {
        let mut wire: Wire = server.connect();
        wire.send(header);
        let response = wire.read_response();
        assert_eq!(response.status, 400);
        assert!(response.text().contains("PROXY"), "{}", response.text());
    }
    // Once for each reactor.
    let lines = server.whole_log().matches("PROXY header").count();
    assert!((1..=2).contains(&lines), "{lines} lines");
}

/// RFC 9110 section 6.6.1: every answer, of whatever kind.
#[test]
fn every_answer_has_a_date() {
    let server = Server::start(&[]);
    let upgrade = upgrade_request("/ws/a", "");
    for request in [
        "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx",
        "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx",
        "GET /\r\n\r\n",
        &upgrade,
    ] {
        let mut wire = server.connect();
        wire.send(request.as_bytes());
        let response = wire.read_response();
        assert_date(response.header("date"), request);
    }
    for query in ["", "?last=1"] {
        let mut wire = server.connect();
        let request = format!("GET /sse/a{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        wire.send(request.as_bytes());
        let head = wire.read_through(b"\r\n\r\n");
        let head = String::from_utf8(head).expect("a head is text");
        let date = head.lines().find_map(|line| line.strip_prefix("Date: "));
        assert_date(date, &request);
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, of this day or, around midnight, of the next.
fn assert_date(date: Option<&str>, request: &str) {
    let date = date.unwrap_or_else(|| panic!("no date: {request}"));
    let output = Command::new("date")
        .args(["-u", "-d", date, "+%s"])
        .output();
    let seconds = output.expect("date(1) runs").stdout;
    let seconds: u64 = String::from_utf8_lossy(&seconds)
        .trim()
        .parse()
        .expect(date);
    let now = std::time::UNIX_EPOCH
        .elapsed()
        .expect("after 1970")
        .as_secs();
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    assert!(now.abs_diff(seconds) <= 3, "{date}");
}

/// Some of the headers that a preflight allows whatever is asked for.
const ALLOWED_HEADERS: [&str; 4] = [
    "Cache-Control",
    "Idempotency-Key",
    "Authorization",
    "Umbel-First-Sent-Ms",
];

/// A page can read why it is refused, and what it is told besides.
#[test]
fn every_answer_is_readable_by_an_allowed_origin() {
    let server = Server::start(&[
        "--publish-token",
        "0123456789abcdef",
        "--origin",
        "https://a.example",
    ]);
    let request = |line: &str, lines: &str, origin: &str| {
        let mut wire = server.connect();
        let request =
            format!("{line} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n{lines}\r\n");
        wire.send(request.as_bytes());
        wire.read_response()
    };
    for (line, lines, status) in [
        ("GET /health", "", 200),
        ("GET /ready", "", 200),
        ("GET /metrics", "", 200),
        ("GET /topics", "", 200),
        ("GET /umbel.js", "", 200),
        ("GET /topics/none", "", 404),
        ("GET /nothing", "", 404),
        ("GET /sse/", "", 404),
        ("GET /ws/a", "", 426),
        ("PUT /pub/a", "", 405),
        ("GET /topics?limit=x", "", 400),
        ("GET /ws/%zz", "", 400),
        ("POST /pub/a", "Content-Length: 0\r\n", 401),
        (
            "POST /pub/a",
            "Authorization: Bearer 0123456789abcdef\r\nContent-Type: text/plain; charset=x\r\n",
            415,
        ),
        (
            "POST /pub/a",
            "Authorization: Bearer 0123456789abcdef\r\nContent-Length: 99999999999\r\n",
            413,
        ),
        (
            "POST /pub/a",
            "Authorization: Bearer 0123456789abcdef\r\nContent-Length: 0\r\n",
            200,
        ),
    ] {
        let response = request(line, lines, "https://a.example");
        assert_eq!(response.status, status, "{line}");
        let allowed = response.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://a.example"), "{line}");
        assert_eq!(response.header("vary"), Some("Origin"), "{line}");
        let exposed = response.header("access-control-expose-headers");
        let all = "Umbel-Position, Umbel-Recovered, Umbel-Topic, Retry-After, WWW-Authenticate, Idempotency-Replayed";
        assert_eq!(exposed, Some(all), "{line}");
        // Nobody else is told anything.
        for origin in ["https://b.example", "null", "https://a.example.b"] {
            let response = request(line, lines, origin);
            assert_eq!(
                response.header("access-control-allow-origin"),
                None,
                "{line}"
            );
        }
    }
    let method = "Access-Control-Request-Method: POST\r\n";
    let response = request("OPTIONS /pub/a", method, "https://a.example");
    let headers = response.header("access-control-allow-headers");
    let headers = headers.expect("a preflight is answered");
    for name in ALLOWED_HEADERS {
        assert!(headers.split(", ").any(|it| it == name), "{headers}");
    }
}

/// Which of two credentials counts is not to be guessed.
#[test]
fn authorization_stands_once() {
    let server = Server::start(&[]);
    let lines = "Authorization: Bearer a\r\nauthorization: Bearer a\r\n";
    for request in [
        format!("POST /pub/a HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: 1\r\n\r\nx"),
        format!("GET /topics HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"),
        format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"),
        upgrade_request("/ws/a", lines),
    ] {
        assert_eq!(status(&server, request.as_bytes()), 400, "{request}");
    }
}

/// A client that has seen no event yet says so by an empty id, or by none.
#[test]
fn empty_last_event_id_counts_as_absent() {
    let server = Server::start(&["--topic-rule", "** history=10"]);
    server.publish("a", "text/plain", b"one");
    for (query, line, begins) in [
        ("", "Last-Event-ID:\r\n", "id: "),
        ("?last=1", "Last-Event-ID:\r\n", "data: one"),
        ("?last=1", "Last-Event-ID: \r\n", "data: one"),
    ] {
        let mut wire = server.connect();
        let request = format!("GET /sse/a{query} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n");
        wire.send(request.as_bytes());
        let head = wire.read_through(b"\r\n\r\n");
        let head = String::from_utf8(head).expect("a head is text");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(!head.contains("Umbel-Recovered: false"), "{head}");
        wire.read_through(begins.as_bytes());
    }
}

/// A compressed body would reach subscribers as a message that they cannot read.
#[test]
fn compressed_body_gets_415() {
    let server = Server::start(&[]);
    for path in ["/pub/a", "/pub"] {
        for (coding, compressed) in [
            ("gzip", true),
            ("deflate", true),
            ("br", true),
            ("identity, GZIP", true),
            ("identity", false),
            ("", false),
        ] {
            let mut wire = server.connect();
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: {coding}\r\nContent-Length: 24\r\n\r\n\
                 {{\"topic\":\"a\",\"data\":\"\"}}\n"
            );
            wire.send(request.as_bytes());
            let response = wire.read_response();
            assert_eq!(response.status == 415, compressed, "{path} {coding}");
            let accepted = response.header("accept-encoding");
            assert_eq!(
                accepted,
                compressed.then_some("identity"),
                "{path} {coding}"
            );
        }
    }
}

/// What strict readers of JSON refuse is refused here as in commands of umbel.v1, and by the same words.
#[test]
fn lines_and_commands_take_the_same_json() {
    let server = Server::start(&[]);
    let mut listening = server.connect();
    listening.upgrade("/ws/a");
    let mut commands = Peer::open(server.address());
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let long = "x".repeat(300);
    for (fields, is_taken) in [
        (r#""data":1e308"#.to_owned(), true),
        (r#""data":1e400"#.to_owned(), false),
        (r#""data":[-1e400]"#.to_owned(), false),
        (r#""data":"\ud800""#.to_owned(), false),
        (r#""data":{"a":"\ud800"}"#.to_owned(), false),
        (r#""data":{"\udc00":1}"#.to_owned(), false),
        (r#""data":"\ud83d\ude00""#.to_owned(), true),
        (format!(r#""data":{}"#, nested(127)), true),
        (format!(r#""data":{}"#, nested(128)), false),
        (format!(r#""data":{}"#, nested(100_000)), false),
        (r#""data":1,"dta":1"#.to_owned(), false),
        (format!(r#""data":1,"{long}":1"#), false),
        (r#""data":1,"\u001b[2J":1"#.to_owned(), false),
        (r#""data":01"#.to_owned(), false),
        (r#""data":NaN"#.to_owned(), false),
    ] {
        let line = format!(r#"{{"topic":"a",{fields}}}"#);
        let response = publish_lines(&server, &line);
        assert_eq!(response.status == 200, is_taken, "{fields} {response:?}");
        let command = format!(r#"{{"type":"publish","id":1,"topic":"a",{fields}}}"#);
        commands.socket.send_text(&command);
        let answer = commands.next();
        assert_eq!(answer["type"] == "published", is_taken, "{fields} {answer}");
        if is_taken {
            assert_eq!(listening.read_frame(), listening.read_frame());
            continue;
        }
        let line: Value = serde_json::from_str(response.text().trim()).expect("JSON");
        let (error, reason) = (line["error"].as_str(), answer["reason"].as_str());
        let error = error.and_then(|error| error.strip_prefix("line 1: "));
        assert!(error.is_some_and(|error| error.len() < 120), "{line}");
        // Of what is no JSON at all the place is named, which is another in the longer command.
        let words = |text: Option<&str>| {
            text.map(|text| text.split(" at column").next().map(str::to_owned))
        };
        assert_eq!(words(error), words(reason), "{fields}");
    }
    let response = publish_lines(&server, r#"{"topic":"a","data":1,"dta":1}"#);
    assert!(response.text().contains("dta"), "{response:?}");
}

/// Nothing was published, so the status says so; which line, and why, stands in the body.
#[test]
fn all_lines_refused_is_422() {
    let server = Server::start(&[]);
    let (good, bad) = (r#"{"topic":"a","data":"x"}"#, r#"{"topic":"a","dta":"x"}"#);
    for (body, status, refused) in [
        (format!("{bad}\n{bad}"), 422, &[1, 2][..]),
        (format!("\n\n{bad}\n"), 422, &[3]),
        (format!("{bad}\n{good}"), 200, &[1]),
        (format!("{good}\n\r\n{bad}\n{good}"), 200, &[3]),
        (format!("\u{feff}{good}\n"), 200, &[]),
        (format!("\u{feff}\n{bad}\n{good}"), 200, &[2]),
        (format!("{good}\n\u{feff}{good}\n"), 200, &[2]),
    ] {
        let response = publish_lines(&server, &body);
        assert_eq!(response.status, status, "{body:?} {response:?}");
        let content_type = response.header("content-type");
        assert_eq!(content_type, Some("application/x-ndjson"));
        let numbers: Vec<usize> = response
            .text()
            .lines()
            .filter_map(|line| line.split_once("\"error\":\"line "))
            .map(|(_, rest)| rest[..1].parse().expect("a number"))
            .collect();
        assert_eq!(numbers, refused, "{body:?} {response:?}");
    }
    let marked = publish_lines(&server, &format!("{good}\n \u{feff}{good}"));
    let words = "line 2: not JSON: it begins with a byte order mark";
    assert!(marked.text().contains(words), "{marked:?}");
    // The connection goes on.
    let mut wire = server.connect();
    let request = format!(
        "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{bad}",
        bad.len()
    );
    for _ in 0..2 {
        wire.send(request.as_bytes());
        assert_eq!(wire.read_response().status, 422);
    }
}

/// The table of requests in the guide, as it is printed.
fn documented() -> Vec<String> {
    let page = include_str!("../src/guide/http.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.take_while(|line| !line.starts_with("| `Content-Type`"));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap_or_default());
    let mut found = Vec::new();
    for cell in cells {
        let mut method = "GET";
        for code in cell.split('`').skip(1).step_by(2) {
            let (own, path) = code.split_once(' ').unwrap_or((method, code));
            if !path.starts_with('/') {
                continue;
            }
            method = own;
            found.push(format!("{method} {path}"));
        }
    }
    found
}

/// Whoever is lost is told all the ways that there are.
#[test]
fn not_found_lists_all_resources() {
    let server = Server::start(&[]);
    let response = server.request("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(response.status, 404);
    let (_, list) = response.text().trim().split_once("try ").expect("a list");
    let listed: Vec<&str> = list.split(", ").collect();
    let documented = documented();
    assert!(documented.len() >= 13, "{documented:?}");
    for form in &documented {
        assert!(listed.contains(&&**form), "{form} is not in {list}");
    }
    for form in listed {
        let is_console = form == "GET /console";
        assert!(
            is_console || documented.iter().any(|own| own == form),
            "{form}"
        );
        let line = form.replace("{topic}", "t");
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        let status = status(&server, request.as_bytes());
        assert!(
            form == "GET /topics/{topic}" || ![404, 405].contains(&status),
            "{form} {status}"
        );
    }
}

/// RFC 9110 section 9.1: a server has HEAD wherever it has GET.
#[test]
fn head_goes_where_get_goes() {
    let server = Server::start(&[]);
    for (target, status) in [
        ("/sse/a", 200),
        ("/sse/a?last=nonsense", 200),
        ("/sse/", 404),
        ("/ws", 426),
        ("/ws/a", 426),
        ("/echo", 426),
        ("/umbel.js", 200),
        ("/umbel.d.ts", 200),
        ("/console/console.js", 200),
        ("/topics", 200),
        ("/topics/none", 404),
        ("/nothing", 404),
    ] {
        let mut wire = server.connect();
        let request = format!("HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        wire.send(request.as_bytes());
        let response = wire.read_response_to(&request);
        assert_eq!(response.status, status, "{target}");
        assert!(response.body.is_empty(), "{target}");
        if target == "/sse/a" {
            assert_eq!(response.header("content-type"), Some("text/event-stream"));
            assert_eq!(response.header("content-length"), None);
            wire.end();
            assert!(wire.read_to_end().0.is_empty(), "no event follows");
        }
    }
    // Not even with an upgrade is it a handshake.
    let mut wire = server.connect();
    let request = upgrade_request("/ws/a", "").replacen("GET", "HEAD", 1);
    wire.send(request.as_bytes());
    assert_eq!(wire.read_response_to(&request).status, 426);
    wait_until("nobody is subscribed", || {
        server
            .request("GET /topics/a HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .status
            == 404
    });
}

/// Who has a page or script already is told so (RFC 9110 section 13.1.2).
#[test]
fn assets_have_tags() {
    let server = Server::start(&[]);
    let get = |method: &str, target: &str, lines: &str| {
        let mut wire = server.connect();
        let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        wire.send(request.as_bytes());
        let response = wire.read_response_to(&request);
        wire.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(wire.read_response().text(), "ok\n", "nothing stood between");
        response
    };
    let mut tags = Vec::new();
    for target in ["/", "/umbel.js", "/umbel.d.ts", "/console/console.js"] {
        let whole = get("GET", target, "");
        let tag = whole.header("etag").expect("a tag").to_owned();
        assert!(
            tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2,
            "{tag}"
        );
        assert_eq!(get("HEAD", target, "").header("etag"), Some(&*tag));
        for (known, status) in [
            (tag.clone(), 304),
            (format!("W/{tag}"), 304),
            (format!("\"other\", {tag}"), 304),
            (format!("\"other\"\r\nIf-None-Match: {tag}"), 304),
            ("*".to_owned(), 304),
            ("\"other\"".to_owned(), 200),
            (tag.trim_matches('"').to_owned(), 200),
            (String::new(), 200),
        ] {
            for method in ["GET", "HEAD"] {
                let origin = "Origin: http://localhost:1\r\n";
                let response = get(
                    method,
                    target,
                    &format!("{origin}If-None-Match: {known}\r\n"),
                );
                assert_eq!(response.status, status, "{target} {known}");
                assert_eq!(response.header("etag"), Some(&*tag));
                assert_eq!(response.header("vary"), Some("Origin"));
                let is_whole = status == 200 && method == "GET";
                assert_eq!(response.body, if is_whole { &whole.body[..] } else { b"" });
            }
        }
        tags.push(tag);
    }
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), 4);
}
