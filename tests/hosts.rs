//! Whom a server on a loopback address lets in: names that lead here, proxies in front, and pages of other sites.

mod support;

use std::process::Command;

use support::wire::upgrade_request;
use support::{Response, Server};

const THROUGH_PROXY: &str = "this came through a proxy, and Umbel is open to this machine only: say who may publish \
                             and subscribe (--publish, --subscribe)";

fn words(response: &Response) -> String {
    String::from_utf8_lossy(&response.body).into_owned()
}

fn get(server: &Server, target: &str, lines: &str) -> Response {
    server.request(&format!(
        "GET {target} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n"
    ))
}

/// A page whose name was made to lead to 127.0.0.1 reads by GET, without an origin. It sends its name as the host.
#[test]
fn open_server_answers_to_names_of_this_machine_only() {
    let server = Server::start(&[]);
    let port = server.address().port();
    for target in [
        "/topics",
        "/metrics",
        "/topics/a",
        "/sse/a",
        "/",
        "/umbel.js",
        "/health",
        "/no",
    ] {
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "host.docker.internal",
        ] {
            let response = get(&server, target, &format!("Host: {host}\r\n"));
            assert_eq!(response.status, 403, "{host} {target}: {response:?}");
            assert_eq!(words(&response).trim_end(), THROUGH_PROXY);
        }
    }
    for host in [
        "localhost".to_owned(),
        format!("LOCALHOST:{port}"),
        "a.localhost:1".to_owned(),
        format!("127.0.0.1:{port}"),
        "127.8.8.8".to_owned(),
        format!("[::1]:{port}"),
    ] {
        let response = get(&server, "/topics", &format!("Host: {host}\r\n"));
        assert_eq!(response.status, 200, "{host}: {response:?}");
    }
    let upgrade = upgrade_request("/ws/a", "").replace("Host: localhost", "Host: evil.example");
    assert_eq!(server.request(&upgrade).status, 403);
    let post = "POST /pub/a HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(server.request(post).status, 403);
    let missing = server.request("GET /topics HTTP/1.1\r\n\r\n");
    assert_eq!(missing.status, 400, "as in every HTTP/1.1 request");
}

#[test]
fn open_server_refuses_what_a_proxy_passes_on() {
    let server = Server::start(&[]);
    for line in [
        "X-Forwarded-For: 203.0.113.9",
        "x-forwarded-proto: https",
        "X-Forwarded-Host: push.example.com",
        "X-Forwarded-Anything: 1",
        "Forwarded: for=203.0.113.9",
        "X-Real-IP: 203.0.113.9",
        "Via: 1.1 cache",
        "CF-Connecting-IP: 203.0.113.9",
        "True-Client-IP: 203.0.113.9",
        "Via:",
    ] {
        let lines = format!("Host: localhost\r\n{line}\r\n");
        let response = get(&server, "/topics", &lines);
        assert_eq!(response.status, 403, "{line}: {response:?}");
        assert_eq!(words(&response).trim_end(), THROUGH_PROXY);
        let upgrade = server.request(&upgrade_request("/echo", &format!("{line}\r\n")));
        assert_eq!(upgrade.status, 403, "{line}: {upgrade:?}");
    }
    for (request, status) in [
        ("GET /topics HTTP/1.0\r\n\r\n", 403),
        ("GET /topics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n", 200),
        ("HEAD /topics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n", 200),
        (
            "POST /pub/a HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nx",
            403,
        ),
        (
            "POST /pub/a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nx",
            200,
        ),
        (
            "GET /topics HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: 1\r\nX-Forwarded: 1\r\n\r\n",
            200,
        ),
    ] {
        let response = server.request(request);
        assert_eq!(response.status, status, "{request:?}: {response:?}");
    }
    let log = server.log();
    let told = "a proxy in front included";
    assert!(
        log.contains(&format!(
            "open to everything that reaches {}, {told}",
            server.address()
        )),
        "{log}"
    );
}

#[test]
fn server_with_rights_answers_to_hosts_that_are_listed() {
    let rights = [
        "--publish",
        "anyone",
        "--subscribe",
        "anyone",
        "--origin",
        "any",
        "--observe",
        "anyone",
    ];
    let proxied = "Host: push.example.com\r\nX-Forwarded-For: 203.0.113.9\r\nVia: 1.1 a\r\n";
    let server = Server::start(&rights);
    assert_eq!(get(&server, "/topics", proxied).status, 200);
    assert!(!server.whole_log().contains("a proxy in front included"));
    let insecure = Server::start(&["--insecure"]);
    assert_eq!(get(&insecure, "/topics", proxied).status, 200);

    let flags = [&rights[..], &["--hosts", "push.example.com,10.0.0.1"]].concat();
    let server = Server::start(&flags);
    for (host, status) in [
        ("push.example.com", 200),
        ("PUSH.EXAMPLE.COM:8443", 200),
        ("10.0.0.1", 200),
        ("localhost", 421),
        ("example.com", 421),
        ("x.push.example.com", 421),
    ] {
        let response = get(&server, "/topics", &format!("Host: {host}\r\n"));
        assert_eq!(response.status, status, "{host}: {response:?}");
        assert_eq!(words(&response).contains("--hosts"), status == 421);
        let upgrade =
            upgrade_request("/ws/a", "").replace("Host: localhost", &format!("Host: {host}"));
        let expected = if status == 200 { 101 } else { status };
        assert_eq!(server.request(&upgrade).status, expected, "{host}");
    }
    assert_eq!(server.request("GET /topics HTTP/1.0\r\n\r\n").status, 421);
    // Probes are sent to an address.
    for target in ["/health", "/ready"] {
        assert_eq!(get(&server, target, "Host: 10.1.2.3:8080\r\n").status, 200);
    }
}

/// What a page of another site asks for by a picture, a form or a script has no origin, but browsers say where it is from.
#[test]
fn pages_of_other_sites_get_public_files_only() {
    let open = Server::start(&[]);
    let any = Server::start(&["--origin", "any", "--observe", "anyone"]);
    let cross = "Sec-Fetch-Site: cross-site\r\n";
    let allowed = format!("{cross}Origin: http://localhost:3000\r\n");
    let foreign = format!("{cross}Origin: https://evil.example\r\n");
    let tab = format!("{cross}Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n");
    let frame = format!("{cross}Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n");
    for (target, lines, on_open, on_any) in [
        ("/sse/a", cross, 403, 403),
        ("/topics", cross, 403, 403),
        ("/topics/a", cross, 403, 403),
        ("/metrics", cross, 403, 403),
        ("/", cross, 403, 403),
        ("/console/console.js", cross, 403, 403),
        ("/no", cross, 403, 403),
        ("/umbel.js", cross, 200, 200),
        ("/umbel.d.ts", cross, 200, 200),
        ("/health", cross, 200, 200),
        ("/ready", cross, 200, 200),
        ("/topics", &allowed, 200, 200),
        ("/metrics", &allowed, 200, 200),
        ("/sse/a", &allowed, 200, 200),
        ("/topics", &foreign, 403, 200),
        ("/metrics", &foreign, 403, 200),
        ("/", &foreign, 403, 200),
        ("/", &tab, 200, 200),
        ("/", &frame, 403, 403),
        ("/topics", &tab, 403, 403),
        ("/sse/a", &tab, 403, 403),
        ("/sse/a", "Sec-Fetch-Site: same-origin\r\n", 200, 200),
        ("/sse/a", "Sec-Fetch-Site: same-site\r\n", 200, 200),
        ("/sse/a", "Sec-Fetch-Site: none\r\n", 200, 200),
        ("/sse/a", "sec-fetch-site: Cross-Site\r\n", 403, 403),
        (
            "/sse/a",
            "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\n",
            403,
            403,
        ),
    ] {
        let lines = format!("Host: localhost\r\n{lines}");
        for (server, expected) in [(&open, on_open), (&any, on_any)] {
            let response = get(server, target, &lines);
            assert_eq!(response.status, expected, "{target} {lines}: {response:?}");
        }
    }
    for server in [&open, &any] {
        let post =
            format!("POST /pub/a HTTP/1.1\r\nHost: localhost\r\n{cross}Content-Length: 1\r\n\r\nx");
        assert_eq!(server.request(&post).status, 403, "a form needs no script");
        assert_eq!(server.request(&upgrade_request("/ws/a", cross)).status, 403);
    }
}

#[test]
fn weak_token_is_warned_about_on_loopback_addresses() {
    let server = Server::start(&["--publish-token", "short"]);
    let told = "publish = token: the token has 5 bytes and can be guessed";
    let log = server.whole_log();
    assert!(log.contains(told), "{log}");
    assert!(!log.contains("short"), "a token is in no log");
}

#[test]
fn one_setting_about_access_asks_for_the_others() {
    let refused = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_umbel"));
        let output = command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(flags)
            .output();
        let output = output.expect("it can be started");
        assert!(!output.status.success(), "{flags:?} must not start");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (flags, told) in [
        (
            &["--origin", "https://push.example.com"][..],
            "origin is set, so that nothing is open by itself: set --publish and --subscribe, or --insecure",
        ),
        (
            &["--publish", "nobody"],
            "publish is set, so that nothing is open by itself: set --subscribe and --origin, or",
        ),
        (
            &["--observe-token", "0123456789abcdef"],
            "set --publish, --subscribe and --origin, or",
        ),
        (
            &["--hosts", "push.example.com"],
            "hosts is set, so that nothing is open by itself: set --publish, --subscribe and --origin",
        ),
        (
            &["--listen", "0.0.0.0:0", "--observe-token", "short"],
            "observe = token: the token has 5 bytes and can be guessed",
        ),
        (
            &[
                "--listen",
                "0.0.0.0:0",
                "--publish-token",
                "                    ",
            ],
            "publish = token: the token is blank",
        ),
        (&["--hosts", "https://push.example.com"], "without a scheme"),
        (&["--hosts", "push.example.com:443"], "without one"),
    ] {
        let error = refused(flags);
        assert!(error.contains(told), "{flags:?}: {error}");
    }
}
