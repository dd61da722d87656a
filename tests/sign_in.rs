//! Connections that show a credential after their handshake, and those that show none.

#[path = "config_file/file.rs"]
mod file;
mod support;

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use file::Folder;
use serde_json::{Value, json};
use support::peers::{Block, EventStream, Incoming, WebSocket, connect};
use support::umbel_v1::{BINARY, JSON, Peer, binary_publish};
use support::{Server, wait_until};

const READER: &str = "reader-token-of-the-test";
const WRITER: &str = "writer-token-of-the-test";

fn rows() -> String {
    format!(
        "origins = [\"any\"]\nidentity.query_token = \"allow\"\n\
         [[token]]\nname = \"reader\"\nvalue = \"{READER}\"\nsubscribe = [\"news/**\"]\n\
         [[token]]\nname = \"writer\"\nvalue = \"{WRITER}\"\npublish = [\"news/**\"]\nsubscribe = [\"news/eu\"]\n"
    )
}

/// A server at which nobody may do anything without a token.
fn closed(flags: &[&str]) -> Server {
    let folder = Folder::with("umbel.toml", &rows());
    let path = folder.path("umbel.toml");
    Server::start(&[&["--config", &path], flags].concat())
}

fn auth(token: &str) -> Value {
    json!({"type": "auth", "id": 7, "token": token})
}

fn is_authenticated(answer: &Value) -> bool {
    let connection = answer["connection"].as_str().unwrap_or_default();
    answer["type"] == "authenticated" && answer["id"] == 7 && connection.split('-').count() == 3
}

#[test]
fn first_frame_signs_in() {
    let server = closed(&[]);
    for subprotocol in [JSON, BINARY] {
        let mut peer = Peer::open_at(server.address(), "/ws", subprotocol);
        let answer = peer.ask(&auth(READER));
        assert!(is_authenticated(&answer), "{answer}");
        peer.subscribe("news/eu");
        let publish = json!({"type": "publish", "id": 2, "topic": "news/eu", "data": "x"});
        assert_eq!(peer.error(&publish), "forbidden");
    }
    // In one message with what needs it, and with more than a stranger may send behind it in one write.
    let mut peer = Peer::open(server.address());
    let long = "x".repeat(100_000);
    peer.send(&json!([
        auth(WRITER),
        {"type": "publish", "id": 2, "topic": "news/eu", "data": "short"}
    ]));
    peer.send(&json!({"type": "publish", "id": 3, "topic": "news/eu", "data": long}));
    assert!(is_authenticated(&peer.next()));
    assert_eq!(peer.next()["id"], 2);
    assert_eq!(peer.next()["type"], "published");
}

#[test]
fn commands_need_a_credential_first() {
    let server = closed(&[]);
    for subprotocol in [JSON, BINARY] {
        let mut peer = Peer::open_at(server.address(), "/ws", subprotocol);
        for command in [
            json!({"type": "subscribe", "id": 1, "topic": "news/eu"}),
            json!({"type": "subscribe", "id": 1, "pattern": "news/*"}),
            json!({"type": "unsubscribe", "id": 1, "topic": "news/eu"}),
            json!({"type": "publish", "id": 1, "topic": "news/eu", "data": "x"}),
            json!({"type": "presence", "id": 1, "topic": "news/eu"}),
            json!({"type": "history", "id": 1, "topic": "news/eu"}),
        ] {
            assert_eq!(peer.error(&command), "unauthorized", "{command}");
        }
        if subprotocol == BINARY {
            peer.send_binary(&binary_publish(Some(3), "news/eu", None, b"x"));
            assert_eq!(peer.next()["code"], "unauthorized");
        }
        peer.expect_nothing_before_pong();
        assert_eq!(
            peer.error(&json!({"type": "auth", "id": 7})),
            "invalid_command"
        );
        assert!(is_authenticated(&peer.ask(&auth(READER))));
        peer.subscribe("news/eu");
    }
}

#[test]
fn bad_token_closes_who_has_shown_none() {
    let server = closed(&[]);
    let mut peer = Peer::open(server.address());
    assert_eq!(peer.error(&auth("guess")), "unauthorized");
    assert_eq!(peer.close_code(), 4401);
    // A second one on a connection that is somebody changes nothing.
    let mut peer = Peer::open(server.address());
    peer.ask(&auth(READER));
    peer.subscribe("news/eu");
    assert_eq!(peer.error(&auth("guess")), "unauthorized");
    assert_eq!(peer.error(&auth(WRITER)), "subject_changed");
    assert!(is_authenticated(&peer.ask(&auth(READER))));
    peer.subscribe("news/us");
    assert_eq!(peer.error(&auth(WRITER)), "subject_changed");
    assert_eq!(peer.close_code(), 4403);
    let log = server.whole_log();
    assert!(!log.contains("guess") && !log.contains(READER), "{log}");
}

#[test]
fn silence_is_closed_at_the_deadline() {
    let server = closed(&["--auth-timeout-ms", "100", "--close-timeout-ms", "100"]);
    let mut peer = Peer::open(server.address());
    peer.expect_nothing_before_pong();
    assert_eq!(peer.close_code(), 4408);
    let mut signed_in = Peer::open(server.address());
    signed_in.ask(&auth(READER));
    let mut late = Peer::open(server.address());
    assert_eq!(late.close_code(), 4408);
    signed_in.expect_nothing_before_pong();
    support::wait_until("both are logged", || {
        server.log().matches("reason=auth_timeout").count() == 2
    });
}

#[test]
fn messages_are_small_before_a_credential() {
    let server = closed(&[]);
    let mut peer = Peer::open(server.address());
    let fitting = "x".repeat(16 * 1024 - auth("").to_string().len());
    assert_eq!(peer.error(&auth(&fitting)), "unauthorized");
    let mut peer = Peer::open(server.address());
    peer.send(&auth(&format!("{fitting}x")));
    assert_eq!(peer.close_code(), 1009);
}

#[test]
fn those_that_wait_are_bounded() {
    let server = closed(&["--unauthenticated-per-address-max", "2"]);
    let mut peers: Vec<_> = (0..3).map(|_| Peer::open(server.address())).collect();
    assert_eq!(peers[0].close_code(), 4408);
    // Whoever has signed in makes room.
    assert!(is_authenticated(&peers[1].ask(&auth(READER))));
    let mut last = Peer::open(server.address());
    for peer in peers[1..].iter_mut().chain([&mut last]) {
        peer.expect_nothing_before_pong();
    }
    let server = closed(&["--unauthenticated-max", "1"]);
    let mut first = Peer::open(server.address());
    let mut second = Peer::open(server.address());
    assert_eq!(first.close_code(), 4408);
    assert!(is_authenticated(&second.ask(&auth(READER))));
}

#[test]
fn welcome_where_the_handshake_showed_a_token() {
    let server = closed(&[]);
    for subprotocol in [JSON, BINARY] {
        let target = format!("/ws?token={READER}");
        let mut peer = Peer::open_at(server.address(), &target, subprotocol);
        let welcome = peer.next();
        assert_eq!(welcome["type"], "welcome");
        assert!(welcome["connection"].is_string() && welcome.get("subject").is_none());
        peer.subscribe("news/eu");
    }
    // Raw sockets, streams and requests need theirs at once.
    for target in ["/ws/news/eu", "/sse/news/eu"] {
        let (status, _) = WebSocket::try_open_on(connect(server.address(), 0), target);
        assert!([401, 400].contains(&status), "{target}: {status}");
    }
}

#[test]
fn open_server_says_nothing_and_takes_any_token() {
    let server = Server::start(&[]);
    let mut peer = Peer::open(server.address());
    peer.subscribe("news/eu");
    let answer = peer.ask(&auth("whatever"));
    assert!(
        is_authenticated(&answer) && answer.get("subject").is_none(),
        "{answer}"
    );
    // Who names no id is answered only if it fails.
    peer.send(&json!({"type": "auth", "token": "whatever"}));
    peer.expect_nothing_before_pong();
}

/// Where anybody may do something, nobody is hurried.
#[test]
fn anonymous_connection_may_sign_in() {
    let rights = [
        "--subscribe",
        "anyone",
        "--publish",
        "token",
        "--publish-token",
        WRITER,
    ];
    let server = Server::start(&[&rights[..], &["--auth-timeout-ms", "50"]].concat());
    let opened = Instant::now();
    let mut peer = Peer::open(server.address());
    peer.subscribe("news/eu");
    let publish = json!({"type": "publish", "id": 2, "topic": "news/us", "data": "x"});
    assert_eq!(peer.error(&publish), "unauthorized");
    assert_eq!(peer.error(&auth("guess")), "unauthorized");
    support::wait_until("the time is over, twice", || {
        peer.expect_nothing_before_pong();
        opened.elapsed() > Duration::from_millis(100)
    });
    assert!(is_authenticated(&peer.ask(&auth(WRITER))));
    assert_eq!(peer.ask(&publish)["type"], "published");
    peer.expect_nothing_before_pong();
}

/// A moment as a date of TOML.
fn date(seconds: u64) -> String {
    let output = Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output();
    let text = String::from_utf8(output.expect("it runs").stdout).expect("text");
    text.trim().to_owned()
}

/// The identity ends: who can be warned is, deliveries go on in the grace, nothing may be asked for, then it is closed.
#[test]
fn end_of_an_identity() {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    let row = format!(
        "origins = [\"any\"]\n\
         [[token]]\nname = \"short\"\nvalue = \"{READER}\"\nsubject = \"anna\"\nsubject_prefix = \"\"\n\
         subscribe = [\"**\"]\npublish = [\"**\"]\nexpires = {}\n\
         [[token]]\nname = \"long\"\nvalue = \"{WRITER}\"\npublish = [\"**\"]\n",
        date(now.as_secs() + 3)
    );
    let folder = Folder::with("umbel.toml", &row);
    let path = folder.path("umbel.toml");
    let flags = ["--token-grace-ms", "1000", "--query-token", "allow"];
    let server = Server::start(&[&["--config", &path], &flags[..]].concat());
    let mut peer = Peer::open(server.address());
    let answer = peer.ask(&auth(READER));
    assert_eq!(answer["subject"], "anna", "{answer}");
    let left_ms = answer["expires_in_ms"].as_u64().expect("it expires");
    assert!((1..=3000).contains(&left_ms), "{left_ms}");
    peer.subscribe("news/eu");
    let mut raw = WebSocket::open(server.address(), &format!("/ws/news/eu?token={READER}"));
    let mut stream = EventStream::open(server.address(), &format!("/sse/news/eu?token={READER}"));
    let mut writer = Peer::open(server.address());
    assert!(is_authenticated(&writer.ask(&auth(WRITER))));
    let expiring = peer.next();
    assert_eq!(expiring["type"], "expiring", "{expiring}");
    let in_ms = expiring["in_ms"].as_u64().expect("a time");
    assert!(in_ms <= left_ms / 10 + 100, "{in_ms} of {left_ms}");
    let command = json!({"type": "publish", "id": 3, "topic": "news/us", "data": "x"});
    wait_until("its identity ends", || {
        peer.ask(&command)["type"] == "error"
    });
    // There is the grace yet.
    writer.publish("news/eu", "late");
    assert_eq!(peer.publication().1, "late");
    for kind in ["subscribe", "history", "presence"] {
        let command = json!({"type": kind, "id": 3, "topic": "news/us"});
        assert_eq!(peer.error(&command), "unauthorized", "{kind}");
    }
    assert_eq!(peer.error(&auth(READER)), "unauthorized");
    assert_eq!(peer.socket.next(), Incoming::Close(4401, "expired".into()));
    assert_eq!(raw.text(), "late");
    assert_eq!(raw.next(), Incoming::Close(4401, "expired".into()));
    assert_eq!(stream.data(), "late");
    let last = stream.next();
    assert!(
        matches!(&last, Block::Event(kind, data) if kind == "expired" && data.contains("4401")),
        "{last:?}"
    );
    assert_eq!(stream.next(), Block::End);
    writer.expect_nothing_before_pong();
}

const ANNA: &str = "annas-token-of-the-test";
const BEN: &str = "bens-token-of-the-test";

/// A server with two users, and rooms of all kinds.
fn rooms() -> Server {
    rooms_with(&[])
}

fn rooms_with(flags: &[&str]) -> Server {
    let row = |name: &str, token: &str| {
        format!(
            "[[token]]\nname = \"{name}\"\nvalue = \"{token}\"\nsubject = \"{name}\"\nsubject_prefix = \"\"\n\
             subscribe = [\"**\"]\npublish = [\"**\"]\n"
        )
    };
    let rooms = [
        ("shown", "true", "true"),
        ("hashed", "true", "\"hash\""),
        ("users", "\"users\"", "true"),
        ("count", "\"count\"", "true"),
        ("plain", "true", "false"),
    ]
    .map(|(name, presence, subject)| {
        format!(
            "[[topic]]\npattern = \"{name}\"\npresence = {presence}\npresence_subject = {subject}\n"
        )
    });
    let text = format!(
        "origins = [\"any\"]\n{}{}{}",
        row("anna", ANNA),
        row("ben", BEN),
        rooms.concat()
    );
    let folder = Folder::with("umbel.toml", &text);
    let path = folder.path("umbel.toml");
    Server::start(&[&["--config", &path, "--reactors", "1"], flags].concat())
}

fn user(server: &Server, token: &str, info: &str) -> Peer {
    let mut peer = Peer::open_at(server.address(), &format!("/ws?info={info}"), JSON);
    assert!(is_authenticated(&peer.ask(&auth(token))));
    peer
}

fn members(peer: &mut Peer, topic: &str) -> (u64, Vec<Value>) {
    let answer = peer.ask(&json!({"type": "presence", "id": 9, "topic": topic}));
    let members = answer["members"].as_array().cloned().unwrap_or_default();
    (answer["total"].as_u64().expect("a number"), members)
}

#[test]
fn subjects_of_members_by_the_rule_of_the_topic() {
    let server = rooms();
    let mut anna = user(&server, ANNA, "x");
    let mut ben = user(&server, BEN, "y");
    for (topic, expected) in [("shown", Some("ben")), ("plain", None)] {
        anna.subscribe(topic);
        ben.subscribe(topic);
        let join = anna.next();
        assert_eq!(
            (&join["type"], &join["info"]),
            (&json!("join"), &json!("y"))
        );
        assert_eq!(
            join.get("subject").and_then(Value::as_str),
            expected,
            "{join}"
        );
        let (total, members) = members(&mut anna, topic);
        assert_eq!((total, members.len()), (2, 2));
    }
    anna.subscribe("hashed");
    ben.subscribe("hashed");
    let mut again = user(&server, BEN, "z");
    again.subscribe("hashed");
    let [first, second] =
        [anna.next(), anna.next()].map(|join| support::umbel_v1::text(&join["subject"]));
    assert!(
        first == second && first.len() == 32 && !first.contains("ben"),
        "{first}"
    );
}

#[test]
fn users_are_one_member_each_and_counts_name_nobody() {
    let server = rooms();
    let mut anna = user(&server, ANNA, "x");
    anna.subscribe("users");
    let mut bens = [user(&server, BEN, "1"), user(&server, BEN, "2")];
    for ben in &mut bens {
        ben.subscribe("users");
    }
    let join = anna.next();
    assert_eq!(
        (&join["type"], &join["subject"]),
        (&json!("join"), &json!("ben"))
    );
    assert_eq!(members(&mut anna, "users").0, 2);
    let [first, second] = bens;
    drop(first);
    assert_eq!(members(&mut anna, "users").0, 2);
    drop(second);
    let leave = anna.next();
    assert_eq!(
        (&leave["type"], &leave["connection"]),
        (&json!("leave"), &join["connection"])
    );
    let mut ben = user(&server, BEN, "3");
    anna.subscribe("count");
    ben.subscribe("count");
    anna.expect_nothing_before_pong();
    assert_eq!(members(&mut anna, "count"), (2, Vec::new()));
}

#[test]
fn connections_of_a_subject_are_bounded() {
    let flags = [
        "--connections-per-identity-max",
        "2",
        "--query-token",
        "allow",
    ];
    let server = rooms_with(&flags);
    let open_raw = || {
        let stream = connect(server.address(), 0);
        WebSocket::try_open_on(stream, &format!("/ws/plain?token={ANNA}"))
    };
    let first = user(&server, ANNA, "x");
    let (status, _raw) = open_raw();
    assert_eq!(status, 101);
    assert_eq!(open_raw().0, 429);
    let mut third = Peer::open(server.address());
    assert_eq!(third.error(&auth(ANNA)), "rate_limited");
    assert_eq!(third.close_code(), 4429);
    // Others have their own, and whoever goes makes room. To sign in again is no other connection.
    let mut ben = user(&server, BEN, "y");
    assert!(is_authenticated(&ben.ask(&auth(BEN))) && is_authenticated(&ben.ask(&auth(BEN))));
    drop(first);
    support::wait_until("there is room", || open_raw().0 == 101);
}

#[test]
fn oldest_connection_of_a_subject_goes() {
    let flags = [
        "--connections-per-identity-max",
        "1",
        "--connections-per-identity-over",
        "oldest",
    ];
    let server = rooms_with(&flags);
    let mut first = user(&server, ANNA, "x");
    let mut second = user(&server, ANNA, "x");
    assert_eq!(first.close_code(), 4409);
    second.expect_nothing_before_pong();
    support::wait_until("a line tells", || {
        server.log().contains("limit=connections_per_identity_max")
    });
}

#[test]
fn wrong_tokens_in_a_dry_run() {
    let limit = "auth_failures_per_address_per_minute";
    let server = rooms_with(&[
        "--auth-failures-per-address-per-minute",
        "2",
        "--limits-dry-run",
        "true",
    ]);
    let request = "GET /history/plain HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guess\r\n\r\n";
    for _ in 0..5 {
        assert_eq!(server.request(request).status, 401);
    }
    support::wait_until("it is logged", || {
        let log = server.log();
        log.contains("limits_dry_run is set") && log.contains(limit)
    });
}

#[test]
fn wrong_tokens_of_an_address_are_bounded() {
    let server = rooms_with(&["--auth-failures-per-address-per-minute", "3"]);
    let answer = |token: &str| {
        let line = format!("Authorization: Bearer {token}\r\n");
        let request = format!("GET /history/plain HTTP/1.1\r\nHost: x\r\n{line}\r\n");
        server.request(&request).status
    };
    assert_eq!([(); 4].map(|()| answer("guess")), [401, 401, 401, 429]);
    let mut peer = Peer::open(server.address());
    assert_eq!(peer.error(&auth("guess")), "rate_limited");
    assert_eq!(peer.close_code(), 4429);
    // A good token is taken all the same.
    assert_ne!(answer(ANNA), 429);
    assert!(is_authenticated(
        &Peer::open(server.address()).ask(&auth(ANNA))
    ));
}
