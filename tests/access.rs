//! Rights from outside: origins, tokens, and the answers that pages of other origins may read.

mod support;

use std::collections::HashMap;

use support::frames::Frame;
use support::wire::upgrade_request;
use support::{Server, Wire};

fn subscribe(server: &Server, topic: &str) -> Wire {
    let mut wire = server.connect();
    wire.upgrade(&format!("/ws/{topic}"));
    wire
}

/// Origins on every route that a page of another origin could use: exact or 403, and the headers that let it read.
#[test]
fn origins_are_exact() {
    let local = Server::start(&[]);
    let listed = Server::start(&["--origin", "https://a.example,http://b.example:8080"]);
    let any = Server::start(&["--origin", "any"]);
    let origins: [(&str, [bool; 2]); 24] = [
        ("http://localhost", [true, false]),
        ("http://localhost:3000", [true, false]),
        ("https://x.localhost", [true, false]),
        ("http://127.0.0.1:1", [true, false]),
        ("http://[::1]:1", [true, false]),
        ("http://localhost.example", [false, false]),
        ("http://127.0.0.1.example", [false, false]),
        ("http://notlocalhost", [false, false]),
        ("https://a.example", [false, true]),
        ("https://a.example:443", [false, true]),
        ("HTTPS://A.Example", [false, true]),
        ("http://b.example:8080", [false, true]),
        ("http://a.example", [false, false]),
        ("https://a.example:8443", [false, false]),
        ("http://b.example", [false, false]),
        ("https://a.example.evil", [false, false]),
        ("https://evila.example", [false, false]),
        ("https://x.a.example", [false, false]),
        ("https://a.example/", [false, false]),
        ("https://a.example@evil", [false, false]),
        ("https://a.example https://evil", [false, false]),
        ("null", [false, false]),
        ("", [false, false]),
        ("file://", [false, false]),
    ];
    for (origin, allowed) in origins {
        let line = format!("Origin: {origin}\r\n");
        let requests = [
            upgrade_request("/ws/a", &line),
            upgrade_request("/echo", &line),
            format!("GET /sse/a HTTP/1.1\r\nHost: localhost\r\n{line}\r\n"),
            format!("POST /pub/a HTTP/1.1\r\nHost: localhost\r\n{line}Content-Length: 1\r\n\r\nx"),
            format!("POST /pub HTTP/1.1\r\nHost: localhost\r\n{line}Content-Length: 0\r\n\r\n"),
            format!("GET /topics HTTP/1.1\r\nHost: localhost\r\n{line}\r\n"),
            format!(
                "OPTIONS /pub/a HTTP/1.1\r\nHost: localhost\r\n{line}Access-Control-Request-Method: POST\r\n\r\n"
            ),
        ];
        for request in &requests {
            for (server, allowed) in [(&local, allowed[0]), (&listed, allowed[1]), (&any, true)] {
                let response = server.request(request);
                let refused = response.status == 403;
                assert_eq!(refused, !allowed, "{origin:?}: {request:?}: {response:?}");
                if request.contains("Upgrade") {
                    continue;
                }
                let readable = response.header("access-control-allow-origin");
                assert_eq!(readable, allowed.then_some(origin), "{request:?}");
                if allowed {
                    assert_eq!(response.header("vary"), Some("Origin"));
                    assert_eq!(
                        response.header("access-control-expose-headers"),
                        Some(
                            "Umbel-Position, Umbel-Recovered, Umbel-Topic, Retry-After, WWW-Authenticate, Idempotency-Replayed"
                        )
                    );
                }
            }
        }
    }
}

#[test]
fn preflight_lists_methods_and_headers() {
    let server = Server::start(&["--publish-token", "secret"]);
    let response = server.request(
        "OPTIONS /pub/a HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3000\r\n\
         Access-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: authorization, content-type, umbel-tag-region, x-other\r\n\r\n",
    );
    assert_eq!(response.status, 204, "a preflight carries no credentials");
    assert_eq!(
        response.header("access-control-allow-methods"),
        Some("POST")
    );
    let headers = response
        .header("access-control-allow-headers")
        .map(str::to_ascii_lowercase);
    let headers = headers.expect("the headers are listed");
    for name in [
        "authorization",
        "content-type",
        "umbel-key",
        "umbel-receipt",
        "umbel-tag-region",
    ] {
        assert!(headers.contains(name), "{headers}");
    }
    assert!(!headers.contains("x-other"), "{headers}");
    assert_eq!(response.header("content-length"), None);
    assert_eq!(response.header("access-control-allow-credentials"), None);
    let refused = server.request(
        "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3000\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(refused.status, 401);
}

/// Ways to show a token, in the query and in a header line, and what is answered where `right` is wanted: 0 stands for
/// success.
fn shown() -> Vec<(&'static str, String, u16)> {
    let line = |line: &str| format!("{line}\r\n");
    vec![
        ("", String::new(), 401),
        ("", line("Authorization: Bearer wrong"), 401),
        ("", line("Authorization: Bearer righ"), 401),
        ("", line("Authorization: Bearer rightt"), 401),
        ("", line("Authorization: Bearer rightright"), 401),
        ("", line("Authorization: Bearer RIGHT"), 401),
        ("", line("Authorization: Bearer"), 400),
        ("", line("Authorization: right"), 401),
        ("", line("Authorization: Basic right"), 401),
        ("", line("Cookie: token=right"), 401),
        ("?token=wrong", String::new(), 401),
        ("?token=", String::new(), 401),
        ("?token=wrong&token=right", String::new(), 400),
        ("?Token=right", String::new(), 401),
        ("?token=right", line("Authorization: Bearer wrong"), 400),
        ("?token=right&access_token=wrong", String::new(), 400),
        ("", line("Authorization: Bearer right,right"), 400),
        ("?token=right", line("Authorization: Bearer right"), 0),
        ("", line("Authorization: Bearer right"), 0),
        ("", line("authorization: bEARER  right"), 0),
        ("?token=right", String::new(), 0),
        ("?access_token=right", String::new(), 0),
        ("?x=1&token=%72ight", String::new(), 0),
    ]
}

/// `WWW-Authenticate` of a 401, for what was shown is wrong, or nothing was shown (RFC 6750 section 3.1).
fn challenge_to(query: &str, line: &str) -> &'static str {
    match line.starts_with("Auth") || query.contains("token=") {
        true => "Bearer error=\"invalid_token\", error_description=\"the token is not valid\"",
        false => "Bearer realm=\"umbel\"",
    }
}

/// Every route with no credentials, wrong ones and right ones, for who may be anyone, nobody or a holder of a token.
#[test]
fn routes_by_credentials() {
    let token = Server::start(&[
        "--publish-token",
        "right",
        "--subscribe-token",
        "right",
        "--observe-token",
        "right",
        "--query-token",
        "allow",
        // They are more than an address may show in a minute.
        "--auth-failures-per-address-per-minute",
        "0",
    ]);
    let nobody = Server::start(&[
        "--publish",
        "nobody",
        "--subscribe",
        "nobody",
        "--observe",
        "nobody",
    ]);
    let routes = [
        ("GET", "/ws/a", 101),
        ("GET", "/echo", 101),
        ("GET", "/sse/a", 200),
        ("POST", "/pub/a", 200),
        ("POST", "/pub", 200),
        ("GET", "/metrics", 200),
        ("GET", "/topics", 200),
        ("GET", "/topics/nobody", 404),
        ("HEAD", "/metrics", 200),
        ("HEAD", "/topics", 200),
    ];
    let shown = shown();
    let mut refusals: HashMap<u16, usize> = HashMap::new();
    for (method, path, success) in routes {
        for (query, line, status) in &shown {
            let target = format!("{path}{query}");
            let request = match (method, success) {
                (_, 101) => upgrade_request(&target, line),
                ("POST", _) => {
                    format!(
                        "POST {target} HTTP/1.1\r\nHost: localhost\r\n{line}Content-Length: 0\r\n\r\n"
                    )
                }
                _ => format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n"),
            };
            let expected = if *status == 0 { success } else { *status };
            let response = token.request(&request);
            assert_eq!(response.status, expected, "{request:?}: {response:?}");
            let challenge = response.header("www-authenticate");
            let wanted = (expected == 401).then(|| challenge_to(query, line));
            assert_eq!(challenge, wanted, "{request:?}");
            *refusals.entry(expected).or_default() += 1;
            let response = nobody.request(&request);
            assert_eq!(response.status, 403, "{request:?}: {response:?}");
        }
    }
    let log = token.whole_log();
    assert!(!log.contains("right"), "a token is in the log");
    assert_eq!((refusals[&401], refusals[&400]), (10 * 12, 10 * 5));
    // These are for everybody.
    for target in ["/health", "/ready", "/", "/console/console.js?token=guess"] {
        for server in [&token, &nobody] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(server.request(&request).status, 200);
        }
    }
}

/// A publish without the right is refused aloud, and nobody gets the message.
#[test]
fn publish_without_right_closes_with_1008() {
    let server = Server::start(&["--publish-token", "right", "--query-token", "allow"]);
    let mut listening = subscribe(&server, "a");
    let mut without = subscribe(&server, "a");
    without.send(&support::frames::text("forbidden"));
    assert_eq!(without.read_frame().close_code(), Some(1008));
    let mut with = subscribe(&server, "a?token=right");
    with.send(&support::frames::text("allowed"));
    assert_eq!(listening.read_frame(), Frame::text("allowed"));
    let response =
        server.request("POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(response.status, 401);
}

/// The script is for the pages of others: no right is asked of who loads it, but of their origin.
#[test]
fn script_for_allowed_origins() {
    let server = Server::start(&[
        "--subscribe",
        "nobody",
        "--observe",
        "nobody",
        "--origin",
        "https://page.example",
    ]);
    let get = |path: &str, line: &str| {
        server.request(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n"
        ))
    };
    let allowed = "Origin: https://page.example\r\n";
    for path in ["/umbel.js", "/umbel.js?v=1", "/umbel.d.ts"] {
        assert_eq!(get(path, "").status, 200, "{path}");
        let response = get(path, allowed);
        assert_eq!(response.status, 200, "{path}: {response:?}");
        let origin = response.header("access-control-allow-origin");
        assert_eq!(origin, Some("https://page.example"), "{path}");
        assert_eq!(response.header("vary"), Some("Origin"), "{path}");
        let response = get(path, "Origin: https://other.example\r\n");
        assert_eq!(response.status, 403, "{path}: {response:?}");
    }
    let script = get("/umbel.js", allowed);
    let content_type = script.header("content-type");
    assert_eq!(content_type, Some("text/javascript; charset=utf-8"));
    assert_eq!(get("/", allowed).status, 200, "the page has no data");
}
