//! Tests of heads as a whole: lines in, a head or a status out.

use super::super::refusal::ALLOW_ANY;
use super::*;

const LIMITS: RequestLimits = RequestLimits {
    head_bytes_max: 16 << 10,
    headers_max: 100,
    target_bytes_max: 4096,
    body_bytes_max: 1000,
};

fn parse(text: &str) -> Result<Head<'_>, Refusal> {
    Head::parse(text.as_bytes(), &LIMITS)
}

/// The status for a head with these lines behind a request line and a host.
fn status(lines: &str) -> u16 {
    let text = format!("POST /pub/a HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    parse(&text).map_or_else(|refusal| refusal.status, |_| 200)
}

fn first_line(line: &str) -> u16 {
    let text = format!("{line}\r\nHost: a\r\n\r\n");
    parse(&text).map_or_else(|refusal| refusal.status, |_| 200)
}

#[test]
fn a_head_is_borrowed_whole() {
    let text = "GET /ws/a?b=c HTTP/1.1\r\nHost: a:1\r\nX-Y:  \r\nupgrade: WebSocket\r\n\r\n";
    let head = parse(text).expect("a plain head parses");
    assert_eq!(
        (head.method, head.target, head.version),
        (Method::Get, "/ws/a?b=c", Version::Http11)
    );
    assert_eq!(
        (head.header("HOST"), head.header("x-y"), head.header("x")),
        (Some("a:1"), Some(""), None)
    );
    assert_eq!(head.all().count(), 3);
    assert_eq!(head.all().last(), Some(("upgrade", &b"WebSocket"[..])));
    assert_eq!(head.body(), Ok(BodyLength::None));
    assert!(std::mem::size_of::<Head<'_>>() <= 384);
    let after_empty_line = format!("\r\n{text}");
    assert_eq!(
        parse(&after_empty_line).map(|head| head.all().count()),
        Ok(3)
    );
}

#[test]
fn methods() {
    for name in [
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get", "BREW",
    ] {
        let text = format!("{name} / HTTP/1.0\r\n\r\n");
        assert_eq!(
            parse(&text).map(|head| head.method.as_str().to_owned()),
            Ok(name.to_owned())
        );
    }
    assert_eq!(Method::from_token("get"), Method::Other("get"));
    let refusal =
        parse("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").expect_err("CONNECT is refused");
    assert_eq!(
        (refusal.status, refusal.close, refusal.headers),
        (405, true, ALLOW_ANY)
    );
}

#[test]
fn request_lines() {
    for line in [
        "GET /",
        "GET / ",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / http/1.1",
        "GET / HTTP/1",
        "GET / b HTTP/1.1",
    ] {
        assert_eq!(first_line(line), 400, "{line}");
    }
    for line in [
        "GET / HTTP/2.0",
        "PRI * HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / HTTP/3.0",
    ] {
        assert_eq!(first_line(line), 505, "{line}");
    }
    for line in ["GET /a HTTP/1.2", "GET /a HTTP/1.9"] {
        let text = format!("\r\n{line}\r\nHost: a\r\nx: y\r\n\r\n");
        let head = parse(&text).expect("a later minor version is served as 1.1");
        assert_eq!((head.version, head.target), (Version::Http11, "/a"));
        assert_eq!((head.header("x"), head.keep_alive()), (Some("y"), true));
        let bad = format!("{line}\r\nHost: a\r\nx y\r\n\r\n");
        assert_eq!(
            parse(&bad).map_err(|refusal| refusal.status).err(),
            Some(400)
        );
    }
    let proxied = parse("PROXY TCP4 10.0.0.1 10.0.0.2 5000 80\r\nGET / HTTP/1.1\r\n\r\n");
    assert_eq!(
        proxied.map_err(|refusal| refusal.reason).err(),
        Some(PROXY_HEADER.into())
    );
    assert_eq!(parse("").map_err(|refusal| refusal.status).err(), Some(400));
    assert_eq!(
        parse("GET / HTTP/1.0\r\n\r\nx")
            .map_err(|refusal| refusal.status)
            .err(),
        Some(400)
    );
}

#[test]
fn lines_are_name_colon_value() {
    for line in [
        "a : b\r\n",
        "a b: c\r\n",
        "a\r\n",
        ": b\r\n",
        "a: b\r\n c\r\n",
        "\u{e9}: b\r\n",
        "a(: b\r\n",
        "a: b\nc: d\r\n",
        "a: \u{b}b\r\n",
    ] {
        assert_eq!(status(line), 400, "{line:?}");
    }
    assert_eq!(status("a:b\r\n"), 200);
    assert_eq!(status("Transfer-Encoding: \u{b}chunked\r\n"), 400);
    assert_eq!(status("Transfer-Encoding : chunked\r\n"), 400);
    assert_eq!(
        status("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        400
    );
}

/// ws CVE-2024-37890: thousands of header lines.
#[test]
fn too_many_lines() {
    assert_eq!(status(&"a: b\r\n".repeat(99)), 200);
    assert_eq!(status(&"a: b\r\n".repeat(100)), 431);
    assert_eq!(status(&"a: b\r\n".repeat(2000)), 431);
    let wide = RequestLimits {
        headers_max: 100_000,
        head_bytes_max: 1 << 20,
        ..LIMITS
    };
    for (count, expected) in [(256, 200), (257, 431)] {
        let text = format!("GET / HTTP/1.0\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert_eq!(
            Head::parse(text.as_bytes(), &wide).map_or_else(|refusal| refusal.status, |_| 200),
            expected
        );
    }
}

/// The head alone tells that a body is over its limit.
#[test]
fn a_body_over_its_limit() {
    let body = |length: u64| {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        parse(&text)
            .expect("the head itself is fine")
            .body()
            .map_err(|refusal| (refusal.status, refusal.close))
    };
    assert_eq!(body(1000), Ok(BodyLength::Length(1000)));
    assert_eq!(body(1001), Err((413, true)));
    assert_eq!(body(u64::MAX), Err((413, true)));
}

#[test]
fn opaque_values() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nx: \xff\r\nx: \xc3\xa9\r\n\r\n";
    let head = Head::parse(head, &LIMITS).expect("opaque bytes are let through");
    assert_eq!(head.header("x"), None);
    assert_eq!(head.headers("x").collect::<Vec<_>>(), ["\u{e9}"]);
    assert_eq!(head.all().nth(1), Some(("x", &b"\xff"[..])));
}

#[test]
fn comma_lists_span_lines() {
    let text =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nconnection:,x ,\r\n\r\n";
    let head = parse(text).expect("a plain head parses");
    for (token, expected) in [
        ("upgrade", true),
        ("X", true),
        ("keep-alive", true),
        ("up", false),
        ("", false),
    ] {
        assert_eq!(head.has_token("CONNECTION", token), expected, "{token}");
    }
}

/// ws CVE-2021-32640: a long run of blanks inside a list costs what its length says, not the square of it.
#[test]
fn blanks_in_a_list_cost_linear_time() {
    let wide = RequestLimits {
        head_bytes_max: 1 << 22,
        ..LIMITS
    };
    let text = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nProtocol: b{}x\r\n\r\n",
        " ".repeat(1 << 21)
    );
    let head = Head::parse(text.as_bytes(), &wide).expect("a long value is a value");
    assert!(!head.has_token("protocol", "x"));
}

#[test]
fn keep_alive_by_version_and_option() {
    let keeps = |version: &str, lines: &str| {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n");
        parse(&text).expect("a plain head parses").keep_alive()
    };
    assert!(keeps("1.1", ""));
    assert!(!keeps("1.1", "Connection: x, Close\r\n"));
    assert!(!keeps("1.0", ""));
    assert!(keeps("1.0", "Connection: Keep-Alive\r\n"));
    assert!(!keeps("1.0", "Connection: keep-alive, close\r\n"));
}

#[test]
fn expectations() {
    let expects = |version: &str, lines: &str| {
        let text = format!("POST / HTTP/{version}\r\nHost: a\r\n{lines}\r\n");
        parse(&text)
            .expect("a plain head parses")
            .expects_continue()
            .map_err(|refusal| refusal.status)
    };
    assert_eq!(expects("1.1", ""), Ok(false));
    assert_eq!(
        expects("1.1", "Expect: 100-Continue\r\nContent-Length: 5\r\n"),
        Ok(true)
    );
    assert_eq!(
        expects(
            "1.1",
            "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n"
        ),
        Ok(true)
    );
    assert_eq!(expects("1.1", "Expect: 100-continue\r\n"), Ok(false));
    assert_eq!(
        expects("1.0", "Expect: 100-continue\r\nContent-Length: 5\r\n"),
        Ok(false)
    );
    assert_eq!(expects("1.1", "Expect: 200-ok\r\n"), Err(417));
    assert_eq!(expects("1.1", "Expect: 100-continue, x\r\n"), Err(417));
}
