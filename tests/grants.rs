//! Grants, places of a token, and refusals, as clients and operators meet them.

#[path = "config_file/file.rs"]
mod file;
mod support;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use file::Folder;
use support::wire::upgrade_request;
use support::{Response, Server};

const ANNA: &str = "anna-token-of-the-test";
const DOTTED: &str = "dotted-token-of-the-test";

fn rows() -> String {
    format!(
        "origins = [\"https://app.example\"]\nidentity.cookie = \"__Host-umbel\"\n\
         [[token]]\nname = \"anna\"\nvalue = \"{ANNA}\"\nsubject = \"42\"\n\
         [[token]]\nname = \"dotted\"\nvalue = \"{DOTTED}\"\nsubject = \"a@b.example\"\n\
         [[token]]\nname = \"old\"\nvalue = \"old-token-of-the-test\"\npublish = [\"**\"]\nexpires = 2020-01-01T00:00:00Z\n\
         [[grant]]\nwhen = {{ anonymous = true }}\nsubscribe = [\"news/**\"]\nhistory = []\n\
         [[grant]]\nwhen = {{ subject = true }}\nsubscribe = [\"user/{{sub}}/**\"]\npublish = [\"user/{{sub}}/out\"]\n\
         deny.subscribe = [\"news/internal/**\"]\n"
    )
}

fn start(folder: &Folder) -> Server {
    Server::start(&["--config", &folder.path("umbel.toml")])
}

fn get(server: &Server, target: &str, lines: &str) -> Response {
    server.request(&format!(
        "HEAD {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"
    ))
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[test]
fn grants_by_condition() {
    let folder = Folder::with("umbel.toml", &rows());
    let server = start(&folder);
    let (none, anna, dotted) = (String::new(), bearer(ANNA), bearer(DOTTED));
    let invalid = "Bearer error=\"invalid_token\", error_description=\"the token is not valid\"";
    let expired = "Bearer error=\"invalid_token\", error_description=\"the token has expired\"";
    let scope = "Bearer error=\"insufficient_scope\"";
    let realm = "Bearer realm=\"umbel\"";
    for (target, lines, status, challenge) in [
        ("/sse/news/eu", &none, 200, None),
        ("/sse/news/internal/x", &none, 200, None),
        ("/sse/user/42/in", &none, 401, Some(realm)),
        ("/sse/user/42/in", &anna, 200, None),
        ("/sse/user/43/in", &anna, 403, Some(scope)),
        // Grants for the anonymous are for nobody else.
        ("/sse/news/eu", &anna, 403, Some(scope)),
        ("/sse/user/a@b.example/in", &dotted, 403, Some(scope)),
        ("/sse/news/eu", &bearer("guess"), 401, Some(invalid)),
        (
            "/sse/news/eu",
            &bearer("old-token-of-the-test"),
            401,
            Some(expired),
        ),
        ("/metrics", &anna, 403, None),
    ] {
        let response = get(&server, target, lines);
        assert_eq!(response.status, status, "{target} {lines}: {response:?}");
        if challenge.is_some() {
            assert_eq!(
                response.header("www-authenticate"),
                challenge,
                "{target} {lines}"
            );
        }
    }
    // What was published before is another right.
    let with_history = "GET /sse/news/eu?last=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(server.request(with_history).status, 401);
}

#[test]
fn counts_of_credentials() {
    let observer = "[[grant]]\nwhen = { anonymous = true }\nobserve = true\n";
    let folder = Folder::with("umbel.toml", &format!("{}{observer}", rows()));
    let server = start(&folder);
    for lines in [bearer(ANNA), bearer(DOTTED), bearer("guess"), String::new()] {
        get(&server, "/sse/user/42/in", &lines);
    }
    for (name, count) in [
        ("umbel_auth_total{source=\"token\",result=\"ok\"}", 2.0),
        ("umbel_auth_total{source=\"token\",result=\"invalid\"}", 1.0),
        (
            "umbel_auth_total{source=\"token\",result=\"forbidden\"}",
            1.0,
        ),
        (
            "umbel_auth_total{source=\"anonymous\",result=\"missing\"}",
            1.0,
        ),
        ("umbel_auth_template_refused_total", 1.0),
    ] {
        assert_eq!(server.metric(name), count, "{name}");
    }
}

#[test]
fn token_by_subprotocol_or_cookie() {
    let folder = Folder::with("umbel.toml", &rows());
    let server = start(&folder);
    let offer = |offer: &str| format!("Sec-WebSocket-Protocol: {offer}\r\n");
    let raw = offer(&format!("umbel.raw, umbel.token.{ANNA}"));
    let encoded = offer("umbel.raw,umbel.token64.YW5uYS10b2tlbi1vZi10aGUtdGVzdA");
    let cookie = format!("Cookie: a=b; __Host-umbel={ANNA}\r\n");
    let own = "Origin: http://localhost\r\n";
    for (lines, status, subprotocol) in [
        (raw.clone(), 101, Some("umbel.raw")),
        (encoded, 101, Some("umbel.raw")),
        (format!("{raw}{own}"), 101, Some("umbel.raw")),
        (offer(&format!("umbel.token.{ANNA}")), 101, None),
        (
            format!("{}{own}", offer(&format!("umbel.token.{ANNA}"))),
            400,
            None,
        ),
        (offer("umbel.raw, umbel.token.guess"), 401, None),
        (offer("umbel.raw, umbel.token64.x=y"), 400, None),
        (format!("{}{}", raw, bearer("guess")), 400, None),
        (format!("{cookie}{own}"), 101, None),
        (
            format!("{cookie}Origin: https://app.example\r\n"),
            101,
            None,
        ),
        (cookie.clone(), 401, None),
        (
            format!("{cookie}Sec-Fetch-Site: same-origin\r\n"),
            101,
            None,
        ),
        (format!("{cookie}Sec-Fetch-Site: same-site\r\n"), 401, None),
        (format!("{cookie}Origin: null\r\n"), 403, None),
        (
            format!("{cookie}Origin: https://x.app.example\r\n"),
            403,
            None,
        ),
        (
            format!("{cookie}Cookie: __Host-umbel=x\r\n{own}"),
            401,
            None,
        ),
        (format!("{cookie}{own}{}", bearer("guess")), 401, None),
    ] {
        let response = server.request(&upgrade_request("/ws/user/42/in", &lines));
        assert_eq!(response.status, status, "{lines}: {response:?}");
        assert_eq!(
            response.header("sec-websocket-protocol"),
            subprotocol,
            "{lines}"
        );
    }
}

#[test]
fn cookie_needs_a_page_that_may() {
    let folder = Folder::with("umbel.toml", &rows());
    let server = start(&folder);
    let cookie = format!("Cookie: __Host-umbel={ANNA}\r\n");
    let listed = "Origin: https://app.example\r\n";
    let publish = |lines: &str| {
        let request = format!(
            "POST /pub/user/42/out HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: 1\r\n\r\nx"
        );
        server.request(&request).status
    };
    assert_eq!(publish(&cookie), 401);
    assert_eq!(
        publish(&format!("{cookie}Sec-Fetch-Site: same-origin\r\n")),
        401
    );
    assert_eq!(publish(&format!("{cookie}{listed}")), 200);
    let stream = get(&server, "/sse/user/42/in", &format!("{cookie}{listed}"));
    assert_eq!(stream.status, 200);
    assert_eq!(stream.header("vary"), Some("Cookie, Origin"));
    assert_eq!(
        stream.header("access-control-allow-credentials"),
        Some("true")
    );
}

#[test]
fn static_tokens_stand_in_no_url() {
    let folder = Folder::with("umbel.toml", &rows());
    let server = start(&folder);
    let request = format!("GET /sse/user/42/in?token={ANNA} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let response = server.request(&request);
    let told = "this token may not stand in a URL: send it in a header or the first frame, or set query_token";
    let body = String::from_utf8_lossy(&response.body).into_owned();
    assert_eq!(response.status, 401);
    assert!(body.contains(told), "{body}");
    assert!(!server.whole_log().contains(ANNA), "a token is in the log");
    // Where they may, the log says once what that means.
    folder.write(
        "umbel.toml",
        &rows().replace(
            "identity.cookie",
            "identity.query_token = \"allow\"\nidentity.cookie",
        ),
    );
    let server = start(&folder);
    for _ in 0..2 {
        let head = request.replacen("GET", "HEAD", 1);
        assert_eq!(server.request(&head).status, 200);
    }
    let log = server.whole_log();
    assert_eq!(log.matches("a token was shown in a URL").count(), 1);
    assert!(!log.contains(ANNA), "a token is in the log");
}

/// A credential with bytes that are no text is a bad one, and nobody's word that there is none: here anybody may subscribe.
#[test]
fn credential_that_is_no_text_is_refused() {
    let folder = Folder::with("umbel.toml", &rows());
    let server = start(&folder);
    for (line, status) in [
        (&b""[..], "200"),
        (b"Authorization: Bearer a\xff\r\n", "400"),
        (b"Authorization: \xff\r\n", "401"),
        (
            b"Origin: https://app.example\r\nCookie: __Host-umbel=\xff\r\n",
            "401",
        ),
        (b"Sec-WebSocket-Protocol: umbel.token.a\xff\r\n", "400"),
    ] {
        let mut stream = support::peers::connect(server.address(), 0);
        let lines = b"HEAD /sse/news/eu HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
        let request = [&lines[..], line, b"\r\n"].concat();
        stream.write_all(&request).expect("the server reads");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("the server answers");
        let line = String::from_utf8_lossy(line);
        assert_eq!(String::from_utf8_lossy(&head[9..]), status, "{line}");
    }
}

fn check(folder: &Folder, input: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_umbel"))
        .args(["check", "--config", &folder.path("umbel.toml")])
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it is read");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let printed = format!("{}{}", text(output.stdout), text(output.stderr));
    (output.status.code(), printed)
}

#[test]
fn check_says_what_decides() {
    let folder = Folder::with("umbel.toml", &rows());
    folder.write("token", &format!("{ANNA}\n"));
    let file = format!("@{}", folder.path("token"));
    for (arguments, code, told) in [
        (
            &["--may", "subscribe", "news/eu"][..],
            0,
            "allowed: news/** of grant 1",
        ),
        (
            &["--may", "publish", "news/eu"],
            1,
            "denied: nothing allows it",
        ),
        (
            &["--as", &file, "--may", "subscribe", "user/42/a"],
            0,
            "allowed: user/{sub}/** of grant 2",
        ),
        (
            &["--as", &file, "--may", "subscribe", "news/internal/**"],
            1,
            "denied: deny news/internal/** of grant 2",
        ),
        (
            &["--as", "-", "--may", "publish", "user/42/out"],
            0,
            "allowed: user/{sub}/out of grant 2",
        ),
        (
            &["--as", &file, "--may", "manage"],
            1,
            "denied: nothing allows it",
        ),
        (
            &["--as", &file, "--may", "read", "a"],
            1,
            "the action is subscribe",
        ),
        (&["--as", ANNA, "--may", "observe"], 1, "give @FILE"),
    ] {
        let (status, printed) = check(&folder, &format!("{ANNA}\n"), arguments);
        assert!(printed.contains(told), "{arguments:?}: {printed}");
        assert_eq!(status, Some(code), "{arguments:?}: {printed}");
    }
    let (status, printed) = check(&folder, "guess", &["--as", "-", "--may", "observe"]);
    assert_eq!(
        (status, &*printed),
        (Some(1), "denied: the token is not valid\n")
    );
}

#[test]
fn wrong_grants_are_told_with_their_place() {
    let token = format!("[[token]]\nname = \"a\"\nvalue = \"{ANNA}\"\nsubject = \"1\"\n");
    for (row, told) in [
        ("subscribe = [\"a\"]", "nobody whom it is for"),
        ("when = {}\nsubscribe = [\"a\"]", "nobody whom it is for"),
        ("when = true\nsubscribe = [\"a\"]", "when is a table"),
        (
            "when = { subject = \"x\" }\nsubscribe = [\"a\"]",
            "true or false",
        ),
        (
            "when = { sbject = true }\nsubscribe = [\"a\"]",
            "did you mean \"when.subject\"?",
        ),
        (
            "when = { source = \"b\" }\nsubscribe = [\"a\"]",
            "no source `b`",
        ),
        (
            "when = { anonymous = true }\nmanage = [\"**\"]",
            "never manages",
        ),
        (
            "when = { subject = true }\nsubscribe = [\"a/{id}\"]",
            "no such variable",
        ),
        (
            "when = { subject = true }\nsubscribe = [\"a/x{sub}\"]",
            "whole segment",
        ),
    ] {
        let text = format!("origins = [\"localhost\"]\n{token}[[grant]]\n{row}\n");
        let folder = Folder::with("umbel.toml", &text);
        let (status, printed) = check(&folder, "", &[]);
        assert_eq!(status, Some(1), "{row}: {printed}");
        assert!(printed.contains(told), "{row}: {printed}");
    }
    let any = "origins = [\"any\"]\npublish = \"nobody\"\nsubscribe = \"nobody\"\nidentity.cookie = \"c\"\n";
    let (_, printed) = check(&Folder::with("umbel.toml", any), "", &[]);
    assert!(
        printed.contains("every page could act for its visitor"),
        "{printed}"
    );
}

/// The target of a URL, signed for an hour by the key in `url.key`.
fn signed(folder: &Folder, target: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_umbel"))
        .args("url --sign --kid k1 --for 1h --subject 42 --key".split(' '))
        .arg(format!("@{}", folder.path("url.key")))
        .arg(format!("http://localhost{target}"))
        .env_clear()
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let url = String::from_utf8(output.stdout).expect("text");
    url.trim_end().replace("http://localhost", "")
}

#[test]
fn signed_url_is_for_one_topic() {
    const SECRET: &str = "secret-of-the-test-with-32-bytes-at-least";
    let text = format!(
        "{}[[url_key]]\nkid = \"k1\"\nsecret = \"{SECRET}\"\n",
        rows().replace("\nsubject = ", "\nsubject_prefix = \"\"\nsubject = ")
    );
    let told = "more than one source names subjects";
    let folder = Folder::with("umbel.toml", &text);
    let (_, printed) = check(&folder, "", &[]);
    assert!(printed.contains(told), "{printed}");
    folder.write("umbel.toml", &format!("{text}subject_prefix = \"url:\"\n"));
    folder.write("url.key", &format!("{SECRET}\n"));
    let server = start(&folder);
    let sign = |target: &str| signed(&folder, target);
    let closed = sign("/sse/rooms/a?b=1");
    let moved = closed.replace("rooms/a", "rooms/b");
    let as_socket = closed.replace("/sse/", "/ws/");
    let other_subject = closed.replace("umbel_sub=42", "umbel_sub=43");
    for (target, lines, status) in [
        (closed.clone(), String::new(), 200),
        (
            closed.clone(),
            format!("Cookie: __Host-umbel={ANNA}\r\n"),
            200,
        ),
        (moved, String::new(), 401),
        (other_subject, String::new(), 401),
        (closed.replace("kid=k1", "kid=k2"), String::new(), 401),
        (format!("{closed}&umbel_sig=x"), String::new(), 400),
        (format!("{closed}&umbel_signature=x"), String::new(), 400),
        (closed.clone(), bearer(ANNA), 400),
        (format!("{closed}&token={ANNA}"), String::new(), 400),
        (format!("{closed}&last=1"), String::new(), 403),
        (closed.replace("/sse/", "/history/"), String::new(), 400),
        // What is denied stays denied.
        (sign("/sse/news/internal/x"), String::new(), 403),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        let response = server.request(&head.replacen("GET /sse", "HEAD /sse", 1));
        let is_last = target.contains("last=1");
        let response = if is_last {
            server.request(&head)
        } else {
            response
        };
        assert_eq!(response.status, status, "{target} {lines}: {response:?}");
    }
    let socket = server.request(&upgrade_request(&as_socket, ""));
    assert_eq!(socket.status, 101);
    let publish = |target: &str| {
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx");
        server.request(&head).status
    };
    assert_eq!(publish(&sign("/pub/rooms/a")), 200);
    assert_eq!(publish(&closed.replace("/sse/", "/pub/")), 401);
}
