//! Connections that show a credential after their handshake, and those that show none.

#[path = "config_file/file.rs"]
mod file;
mod support;

use file::Folder;
use serde_json::{Value, json};
use support::Server;
use support::peers::{WebSocket, connect};
use support::umbel_v1::{BINARY, JSON, Peer, binary_publish};

const READER: &str = "reader-token-of-the-test";
const WRITER: &str = "writer-token-of-the-test";

fn rows() -> String {
    format!(
        "origins = [\"any\"]\n\
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
    assert!(!server.log().contains("guess") && !server.log().contains(READER));
}

#[test]
fn silence_is_closed_at_the_deadline() {
    let server = closed(&["--auth-timeout-ms", "100"]);
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
    let mut peer = Peer::open(server.address());
    peer.subscribe("news/eu");
    let publish = json!({"type": "publish", "id": 2, "topic": "news/us", "data": "x"});
    assert_eq!(peer.error(&publish), "unauthorized");
    assert_eq!(peer.error(&auth("guess")), "unauthorized");
    std::thread::sleep(std::time::Duration::from_millis(80));
    assert!(is_authenticated(&peer.ask(&auth(WRITER))));
    assert_eq!(peer.ask(&publish)["type"], "published");
    peer.expect_nothing_before_pong();
}
