//! The hook from outside: an application that answers, refuses, redirects, hangs, breaks off and floods. Whatever it does
//! but allow, nobody gets in, nobody else waits, and everybody is told.

#[path = "hooks/publishes.rs"]
mod publishes;
#[path = "hooks/renewals.rs"]
mod renewals;
mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use support::app::{App, Asked, Reaction};
use support::umbel_v1::{BINARY, JSON, Peer as ManyTopics};
use support::{PATIENCE, Server, Wire, wait_until};

const SECRET: &str = "umbel-test-secret-0123456789abcdef";

fn start(app: &App, flags: &[&str]) -> Server {
    let url = app.url("/umbel");
    let all = [
        "--hook-url",
        &url,
        "--origin",
        "localhost",
        "--observe",
        "anyone",
    ];
    let publish: &[&str] = match flags.contains(&"--publish-token") {
        true => &[],
        false => &["--publish", "nobody"],
    };
    let closed = ["--subscribe", "nobody"];
    Server::start(&[&all[..], &closed, publish, flags].concat())
}

/// Lets in who shows `good`, refuses `bad`, and else asks to log in.
fn login(asked: &Asked) -> Reaction {
    let token = asked.json()["token"].as_str().map(str::to_owned);
    match token.as_deref() {
        Some("good") => Reaction::json(
            200,
            r#"{"subject":"42","info":{"name":"Anna"},"subscribe":["news/**"],"publish":["news/**"],"deny":{"subscribe":["news/internal/**"]}}"#,
        ),
        Some("bad") => Reaction::json(403, r#"{"reason":"you are banned"}"#),
        Some("nobody") => Reaction::status(204),
        Some("busy") => Reaction::Answer(429, "Retry-After: 17\r\n".into(), String::new()),
        Some("late") => Reaction::Answer(503, "Retry-After: 9\r\n".into(), String::new()),
        _ => Reaction::json(401, r#"{"reason":"log in first"}"#),
    }
}

fn sse(server: &Server, topic: &str, token: &str) -> support::Response {
    let mut wire = server.connect();
    let line = match token {
        "" => String::new(),
        token => format!("Authorization: Bearer {token}\r\n"),
    };
    wire.send(format!("GET /sse/{topic} HTTP/1.1\r\nHost: x\r\n{line}\r\n").as_bytes());
    wire.read_response()
}

fn open(server: &Server, token: &str) -> (u16, Wire) {
    let mut wire = server.connect();
    let line = format!("Authorization: Bearer {token}\r\n");
    let request = support::wire::upgrade_request("/ws/news/eu", &line);
    wire.send(request.as_bytes());
    let status = wire.read_response().status;
    (status, wire)
}

#[test]
fn application_says_who_somebody_is() {
    let app = App::start(login);
    let server = start(
        &app,
        &["--hook-secret", SECRET, "--hook-headers", "user-agent"],
    );
    let (status, mut wire) = open(&server, "good");
    assert_eq!(status, 101);
    wire.send(&support::frames::text("hello"));
    assert_eq!(wire.read_frame().payload, b"hello");
    for (topic, token, status, retry) in [
        ("other", "good", 403, None),
        ("news/internal/x", "good", 403, None),
        ("news/eu", "bad", 403, None),
        ("news/eu", "", 401, None),
        ("news/eu", "unknown", 401, None),
        ("news/eu", "nobody", 401, None),
        ("news/eu", "busy", 429, Some("17")),
        ("news/eu", "late", 503, Some("9")),
    ] {
        let refused = sse(&server, topic, token);
        assert_eq!(
            refused.status,
            status,
            "{topic} {token}: {}",
            refused.text()
        );
        assert_eq!(refused.header("retry-after"), retry, "{topic} {token}");
    }
    assert!(
        sse(&server, "news/eu", "bad")
            .text()
            .contains("you are banned")
    );
    let asked = app.asked();
    let (first, body) = (&asked[0], asked[0].json());
    assert_eq!(first.line, "POST /umbel/connect HTTP/1.1");
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(body["version"], 1);
    assert_eq!(body["event"], "connect");
    assert_eq!(body["peer"], "127.0.0.1");
    assert_eq!(body["path"], "/ws/news/eu");
    assert_eq!(body["dialect"], "raw");
    assert_eq!(body["token"], "good");
    assert_eq!(body["tls"], false);
    assert_eq!(body["id"].as_str().map(str::len), Some(26));
    // The guide's own code takes the signature of the body as it came, and no other.
    let signature = first.header("umbel-signature").expect("it is signed");
    let other = [&first.body[..], b" "].concat();
    for language in ["python", "js"] {
        assert!(is_accepted(language, signature, &first.body), "{language}");
        assert!(!is_accepted(language, signature, &other), "{language}");
    }
    let mut ids: Vec<_> = asked.iter().map(|it| it.json()["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), asked.len(), "each question has its own name");
    assert!(server.metric("umbel_hook_total{event=\"connect\",result=\"denied\"}") >= 4.0);
    assert!(
        !server.whole_log().contains("good"),
        "tokens stand in no log"
    );
}

/// The application is told one name of a dialect, at the opening as later: that of its subprotocol, or of its path.
#[test]
fn dialect_of_who_is_asked_about() {
    let app = App::start(|asked| match asked.path() {
        "/umbel/connect" => login(asked),
        _ => Reaction::status(204),
    });
    let server = start(
        &app,
        &[
            "--hook-events",
            "connect,subscribe",
            "--hook-topics",
            "news/**",
        ],
    );
    for (name, topic) in [(JSON, "news/eu"), (BINARY, "news/us")] {
        let mut many = ManyTopics::open_at(server.address(), "/ws", name);
        let told = many.ask(&json!({"type": "auth", "id": 1, "token": "good"}));
        assert_eq!(told["type"], "authenticated", "{told}");
        let told = many.ask(&json!({"type": "subscribe", "id": 2, "topic": topic}));
        assert_eq!(told["type"], "subscribed", "{told}");
    }
    sse(&server, "news/eu", "good");
    let told: Vec<_> = app
        .asked()
        .iter()
        .map(|it| {
            (
                it.json()["event"].to_string(),
                it.json()["dialect"].to_string(),
            )
        })
        .collect();
    let of = |name: &str| {
        told.iter()
            .filter(|(_, it)| *it == format!("\"{name}\""))
            .count()
    };
    // The opening without a token, the token, and the subscription.
    assert_eq!([of(JSON), of(BINARY)], [3, 3], "{told:?}");
    assert!(of("sse") >= 1, "{told:?}");
}

fn open_many(address: SocketAddr) -> ManyTopics {
    let mut many = ManyTopics::open(address);
    let welcome = many.next();
    assert_eq!(
        (&welcome["type"], &welcome["subject"]),
        (&json!("welcome"), &json!("42"))
    );
    many
}

/// Whether the code of the guide takes a signature.
fn is_accepted(language: &str, signature: &str, body: &[u8]) -> bool {
    let page = include_str!("../src/guide/hook.md");
    let fence = format!("```{language}\n");
    let code = page
        .split_once(&fence)
        .and_then(|(_, rest)| rest.split_once("```"));
    let code = code.expect("the page has it").0;
    let mut command = match language {
        "python" => {
            let call = "import sys; print(is_from_umbel(sys.argv[1], sys.stdin.buffer.read(), sys.argv[2].encode()))";
            let mut command = Command::new("python3");
            command.args(["-c", &format!("{code}\n{call}")]);
            command
        }
        _ => {
            let call = "import { readFileSync } from 'node:fs';\n\
                        console.log(isFromUmbel(process.argv[1], readFileSync(0), process.argv[2]));";
            let mut command = Command::new("node");
            command.args([
                "--input-type=module",
                "-e",
                &format!("{code}\n{call}"),
                "--",
            ]);
            command
        }
    };
    command.args([signature, SECRET]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it is installed");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(body).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{language}");
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .eq_ignore_ascii_case("true")
}

#[test]
fn umbel_v1_waits_for_auth_where_the_hook_says_401() {
    let app = App::start(login);
    let server = start(&app, &[]);
    let mut many = ManyTopics::open(server.address());
    many.send(&json!({"type": "subscribe", "id": 1, "topic": "news/eu"}));
    assert_eq!(many.next()["code"], "unauthorized");
    many.send(&json!([
        {"type": "auth", "id": 2, "token": "good"},
        {"type": "subscribe", "id": 3, "topic": "news/eu"},
        {"type": "subscribe", "id": 4, "topic": "other"},
    ]));
    let told = many.next();
    assert_eq!(
        (&told["type"], &told["subject"]),
        (&json!("authenticated"), &json!("42"))
    );
    let told = [many.next(), many.next()];
    assert!(told.iter().any(|it| it["type"] == "subscribed"), "{told:?}");
    assert!(told.iter().any(|it| it["code"] == "forbidden"), "{told:?}");
}

#[test]
fn whatever_else_the_application_does_nobody_gets_in() {
    let app = App::start(login);
    let flags = [
        "--hook-timeout-ms",
        "400",
        "--publish-token",
        "0123456789abcdef",
    ];
    let server = start(&app, &flags);
    let elsewhere = App::start(|_| Reaction::json(200, r#"{"subject":"42","subscribe":["**"]}"#));
    let redirect = format!("Location: {}\r\n", elsewhere.url("/connect"));
    for (what, reaction) in [
        ("redirects", Reaction::Answer(307, redirect, String::new())),
        ("hangs", Reaction::Hang(Duration::from_secs(5))),
        ("breaks off", Reaction::BreakOff),
        ("floods", Reaction::Flood),
        (
            "fails",
            Reaction::json(500, r#"{"subject":"42","subscribe":["**"]}"#),
        ),
        ("is not JSON", Reaction::json(200, "<html>")),
        (
            "has too much",
            Reaction::json(200, r#"{"subject":"42","admin":true}"#),
        ),
        (
            "is too long",
            Reaction::json(
                200,
                &format!("{{\"subject\":\"42\"{}}}", " ".repeat(70_000)),
            ),
        ),
    ] {
        app.react(move |_| reaction.clone());
        let begun = Instant::now();
        let refused = sse(&server, "news/eu", "good");
        assert_eq!(refused.status, 503, "{what}");
        let retry: u32 = refused
            .header("retry-after")
            .and_then(|it| it.parse().ok())
            .expect("a time");
        assert!((1..=5).contains(&retry), "{what}: {retry}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{what}");
    }
    assert!(elsewhere.asked().is_empty(), "no redirect is followed");
    // Whoever needs no hook does not wait for it.
    app.react(|_| Reaction::Hang(Duration::from_secs(5)));
    let address = server.address();
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut wire = Wire::connect(address);
            wire.send(b"GET /sse/news/eu HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n");
            wire
        })
        .collect();
    let begun = Instant::now();
    let published = server.request(
        "POST /pub/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer 0123456789abcdef\r\nContent-Length: 1\r\n\r\nx",
    );
    assert_eq!(published.status, 200);
    assert!(
        begun.elapsed() < Duration::from_millis(350),
        "{:?}",
        begun.elapsed()
    );
    for mut wire in waiting {
        assert_eq!(wire.read_response().status, 503);
    }
}

#[test]
fn breaker_opens_and_closes() {
    let app = App::start(|_| Reaction::status(500));
    let server = start(&app, &[]);
    for _ in 0..25 {
        assert_eq!(sse(&server, "news/eu", "good").status, 503);
    }
    assert_eq!(app.asked().len(), 20, "then it is left alone");
    assert_eq!(server.metric("umbel_hook_open"), 1.0);
    app.react(login);
    support::wait_within(PATIENCE, "the probe", || {
        sse(&server, "news/internal/x", "good").status == 403
    });
    wait_until("it is closed", || server.metric("umbel_hook_open") == 0.0);
}

#[test]
fn equal_subscriptions_are_asked_about_once() {
    let app = App::start(|asked| {
        let body = asked.json();
        match (
            asked.path(),
            body["topic"].as_str(),
            body["pattern"].as_str(),
        ) {
            ("/umbel/connect", ..) => Reaction::json(
                200,
                r#"{"subject":"42","subscribe":["**"],"deny":{"subscribe":["rooms/closed"]}}"#,
            ),
            (_, Some("rooms/slow"), _) => {
                // An application that thinks for a while.
                thread::sleep(Duration::from_millis(300));
                Reaction::status(204)
            }
            (_, Some("rooms/1"), _) => Reaction::json(200, "{}"),
            _ => Reaction::json(403, r#"{"reason":"not in this room"}"#),
        }
    });
    let flags = [
        "--hook-events",
        "connect,subscribe",
        "--hook-topics",
        "rooms/**",
        "--hook-cache-ms",
        "60000",
    ];
    let server = start(&app, &flags);
    let subscribes = |app: &App| {
        app.asked()
            .iter()
            .filter(|it| it.path() == "/umbel/subscribe")
            .count()
    };
    let mut many = open_many(server.address());
    many.subscribe("news");
    assert_eq!(subscribes(&app), 0, "it is not asked about other topics");
    many.subscribe("rooms/1");
    assert_eq!(subscribes(&app), 1);
    let question = app.asked().last().expect("it was asked").json();
    assert_eq!(
        (&question["subject"], &question["topic"]),
        (&json!("42"), &json!("rooms/1"))
    );
    for command in [
        json!({"type": "subscribe", "id": 5, "topic": "rooms/2"}),
        json!({"type": "subscribe", "id": 6, "topic": "rooms/closed"}),
        json!({"type": "subscribe", "id": 7, "pattern": "**"}),
    ] {
        assert_eq!(many.error(&command), "forbidden", "{command}");
    }
    assert_eq!(subscribes(&app), 2, "of what is denied it is not asked");
    // What was allowed is remembered, also for another connection of the same subject.
    let mut other = open_many(server.address());
    other.subscribe("rooms/1");
    assert_eq!(subscribes(&app), 2);
    let address = server.address();
    let opening: Vec<_> = (0..6)
        .map(|_| thread::spawn(move || open_many(address).subscribe("rooms/slow")))
        .collect();
    for thread in opening {
        thread.join().expect("it is subscribed");
    }
    assert_eq!(subscribes(&app), 3, "equal ones are one");
    wait_until("it was counted", || {
        server.metric("umbel_hook_total{event=\"subscribe\",result=\"allowed\"}") >= 2.0
    });
}

/// What somebody may subscribe to only by the application's word, they may not read by its history or ask for its members without.
#[test]
fn history_and_members_follow_the_subscription() {
    let app = App::start(
        |asked| match (asked.path(), asked.json()["token"].as_str()) {
            ("/umbel/connect", Some("lists")) => Reaction::json(
                200,
                r#"{"subject":"43","subscribe":["**"],"history":["rooms/**"],"presence":["rooms/**"]}"#,
            ),
            ("/umbel/connect", Some("none")) => Reaction::json(
                200,
                r#"{"subject":"44","subscribe":["**"],"history":[],"presence":[]}"#,
            ),
            ("/umbel/connect", None) => Reaction::status(401),
            ("/umbel/connect", _) => Reaction::json(200, r#"{"subject":"42","subscribe":["**"]}"#),
            _ if asked.json()["topic"] == "rooms/open" => Reaction::status(204),
            _ => Reaction::status(403),
        },
    );
    let server = start(
        &app,
        &[
            "--hook-events",
            "connect,subscribe",
            "--hook-topics",
            "rooms/**",
            "--topic-rule",
            "** history=10 presence=on",
        ],
    );
    let ask = |token: &str, kind: &str, topic: &str| {
        let mut many = ManyTopics::open(server.address());
        many.ask(&json!({"type": "auth", "id": 1, "token": token}));
        let told = many.ask(&json!({"type": kind, "id": 2, "topic": topic}));
        let code = told["code"].as_str().map(str::to_owned);
        code.unwrap_or_else(|| told["type"].as_str().expect("a type").to_owned())
    };
    for kind in ["history", "presence"] {
        for (token, topic, outcome) in [
            ("any", "rooms/closed", "forbidden"),
            ("any", "rooms/open", kind),
            ("any", "news/eu", kind),
            ("lists", "rooms/closed", kind),
            ("lists", "news/eu", "forbidden"),
            ("none", "rooms/open", "forbidden"),
            ("none", "rooms/closed", "forbidden"),
        ] {
            assert_eq!(ask(token, kind, topic), outcome, "{kind} {token} {topic}");
        }
    }
    let read = |topic: &str| {
        let line = "Host: x\r\nAuthorization: Bearer any";
        let answer = server.request(&format!("GET /history/{topic} HTTP/1.1\r\n{line}\r\n\r\n"));
        answer.status
    };
    assert_eq!((read("rooms/closed"), read("rooms/open")), (403, 200));
}

#[test]
fn identity_that_is_over_is_refused() {
    let app = App::start(|asked| match asked.json()["token"].as_str() {
        None => Reaction::status(401),
        Some(_) => Reaction::json(
            200,
            r#"{"subject":"42","expires_at":1700000000,"subscribe":["**"]}"#,
        ),
    });
    let server = start(&app, &[]);
    let refused = sse(&server, "news/eu", "any");
    assert_eq!(refused.status, 401);
    assert!(refused.text().contains("expired"), "{}", refused.text());
    assert_eq!(open(&server, "any").0, 401);
    let mut many = ManyTopics::open(server.address());
    let told = many.ask(&json!({"type": "auth", "id": 1, "token": "any"}));
    assert_eq!(told["code"], "unauthorized");
}

/// The query of a request is its sender's. Nothing in it may stand in the place of the question who somebody is.
#[test]
fn no_query_passes_by_the_question_who_somebody_is() {
    let app = App::start(|_| Reaction::json(403, r#"{"reason":"you are banned"}"#));
    let flags = [
        "--grant",
        "anonymous=true subscribe=**",
        "--query-token",
        "allow",
    ];
    let server = start(&app, &flags);
    for (query, status) in [
        ("", 403),
        ("?x=umbel_sig=", 403),
        ("?umbel_sig=a", 401),
        ("?umbel_%73ig=a", 401),
        ("?umbel_exp=1800003600&umbel_kid=k1&umbel_sig=a", 401),
        ("?token=", 403),
    ] {
        let refused = sse(&server, &format!("news/eu{query}"), "");
        assert_eq!(refused.status, status, "{query}: {}", refused.text());
    }
    let line = "Sec-WebSocket-Protocol: umbel.v1\r\n";
    for target in ["/ws", "/ws?x=umbel_sig="] {
        let mut wire = server.connect();
        wire.send(support::wire::upgrade_request(target, line).as_bytes());
        assert_eq!(wire.read_response().status, 403, "{target}");
    }
}
