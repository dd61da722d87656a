//! Tokens with rights of their own, as clients and operators meet them.

#[path = "config_file/file.rs"]
mod file;
mod support;

use std::process::Command;

use file::Folder;
use serde_json::json;
use sha2::{Digest, Sha256};
use support::peers::{Answer, Http, Incoming, WebSocket, connect};
use support::umbel_v1::{JSON, Peer};
use support::{Server, wait_until};

const FEED: &str = "feed-token-of-the-test";
const READER: &str = "reader-token-of-the-test";

/// A feed that may publish prices and see the figures, and a reader of news.
fn rows() -> String {
    let digest: String = Sha256::digest(READER)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "origins = [\"any\"]\nidentity.query_token = \"allow\"\n\
         [[token]]\nname = \"feed\"\nvalue = \"{FEED}\"\npublish = [\"prices/**\"]\n\
         deny.publish = [\"prices/secret/**\"]\nobserve = true\n\
         [[token]]\nname = \"reader\"\nsha256 = \"{digest}\"\nsubscribe = [\"news/**\", \"prices/*\"]\n\
         deny.subscribe = [\"news/internal/**\"]\n"
    )
}

fn start(folder: &Folder) -> Server {
    Server::start(&["--config", &folder.path("umbel.toml")])
}

fn publish(server: &Server, topic: &str, token: Option<&str>) -> Answer {
    let mut http = Http::connect(server.address());
    let line = token.map_or(String::new(), |it| {
        format!("Authorization: Bearer {it}\r\n")
    });
    let request =
        format!("POST /pub/{topic} HTTP/1.1\r\nHost: x\r\n{line}Content-Length: 1\r\n\r\nx");
    http.send(request.as_bytes());
    http.answer().expect("an answer")
}

fn open(server: &Server, topic: &str, token: &str) -> (u16, WebSocket) {
    let stream = connect(server.address(), 0);
    WebSocket::try_open_on(stream, &format!("/ws/{topic}?token={token}"))
}

#[test]
fn rights_by_topic() {
    let folder = Folder::with("umbel.toml", &rows());
    let server = start(&folder);
    assert!(server.log().contains("tokens: 2"), "{}", server.log());
    for (topic, token, status, told) in [
        ("prices/tea", Some(FEED), 200, "\"offset\":1"),
        (
            "prices/secret/tea",
            Some(FEED),
            403,
            "a deny of the token feed",
        ),
        (
            "news/eu",
            Some(FEED),
            403,
            "the token feed does not allow publishing",
        ),
        (
            "prices/tea",
            Some(READER),
            403,
            "the token reader does not allow publishing",
        ),
        ("prices/tea", Some("guess"), 401, "not valid"),
        ("prices/tea", None, 401, "needs a token"),
    ] {
        let answer = publish(&server, topic, token);
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, status, "{topic} {token:?}: {body}");
        assert!(body.contains(told), "{topic} {token:?}: {body}");
    }
    for (topic, token, status) in [
        ("news/eu", READER, 101),
        ("prices/tea", READER, 101),
        ("prices/tea/green", READER, 403),
        ("news/internal/x", READER, 403),
        ("news/eu", FEED, 403),
        ("news/eu", "guess", 401),
    ] {
        assert_eq!(open(&server, topic, token).0, status, "{topic} {token}");
    }
    let metrics = |token: &str| {
        Http::connect(server.address())
            .get(&format!("/metrics?token={token}"))
            .status
    };
    assert_eq!((metrics(FEED), metrics(READER)), (200, 403));
}

#[test]
fn patterns_have_to_be_covered_and_clear_of_denies() {
    let folder = Folder::with("umbel.toml", &rows());
    let server = start(&folder);
    let stream = connect(server.address(), 0);
    let mut peer = Peer::open_on(stream, &format!("/ws?token={READER}"), JSON).welcomed();
    for (field, name, is_allowed) in [
        ("topic", "news/eu", true),
        ("topic", "news/internal/x", false),
        ("topic", "other", false),
        ("pattern", "news/eu/**", true),
        ("pattern", "news/**", false),
        ("pattern", "news/*/x", false),
        ("pattern", "**", false),
        ("pattern", "prices/*", true),
        ("pattern", "prices/**", false),
    ] {
        let answer = peer.ask(&json!({"type": "subscribe", "id": 1, field: name}));
        match is_allowed {
            true => assert_eq!(answer["type"], "subscribed", "{name}: {answer}"),
            false => assert_eq!(answer["code"], "forbidden", "{name}: {answer}"),
        }
    }
    let refused = peer.ask(&json!({"type": "publish", "id": 2, "topic": "news/eu", "data": "x"}));
    assert_eq!(refused["code"], "forbidden", "{refused}");
}

#[test]
fn token_rotates_by_reload() {
    let folder = Folder::with("umbel.toml", &rows());
    let server = start(&folder);
    let reload = |text: &str| {
        folder.write("umbel.toml", text);
        let before = server.log().matches("reloaded ").count();
        server.signal("HUP");
        wait_until("it is reloaded", || {
            server.log().matches("reloaded ").count() > before
        });
    };
    let (_, mut old) = open(&server, "news/eu", READER);
    let added = "[[token]]\nname = \"reader-2\"\nvalue = \"another-token-of-the-test\"\nsubscribe = [\"news/**\"]\n";
    reload(&format!("{}{added}", rows()));
    let (status, mut new) = open(&server, "news/eu", "another-token-of-the-test");
    assert_eq!(status, 101);
    let rows = rows();
    let reader_at = rows.rfind("[[token]]").expect("the reader's row");
    let without_reader = &rows[..reader_at];
    reload(&format!("{without_reader}{added}"));
    let closed = old.next();
    assert!(matches!(&closed, Incoming::Close(4403, _)), "{closed:?}");
    publish(&server, "prices/tea", Some(FEED));
    new.send(9, b"there");
    assert_eq!(new.next(), Incoming::Pong(b"there".to_vec()));
}

fn umbel(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_umbel"))
        .args(arguments)
        .env_clear()
        .output()
        .expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn new_token_opens_the_server_whose_row_it_prints() {
    let (is_ok, printed, _) = umbel(&["token", "new", "backend"]);
    assert!(is_ok);
    let (token, row) = printed.split_once("\n\n").expect("a token, and its row");
    assert_eq!(token.len(), "umbel_".len() + 43 + 6, "{token}");
    assert!(!row.contains(token), "the file needs the digest alone");
    let folder = Folder::with("umbel.toml", &format!("origins = [\"any\"]\n{row}"));
    let server = start(&folder);
    assert_eq!(publish(&server, "a", Some(token)).status, 200);
    assert_eq!(publish(&server, "a", None).status, 401);
    let (is_ok, _, problem) = umbel(&["token", "new", "a b"]);
    assert!(!is_ok && problem.contains("a name has"), "{problem}");
}

#[test]
fn wrong_rows_are_told_with_their_place() {
    for (row, told) in [
        (
            "value = \"0123456789abcdef\"\npublish = [\"a\"]",
            "has no name",
        ),
        (
            "name = \"a\"\npublish = [\"a\"]",
            "neither value nor sha256",
        ),
        (
            "name = \"a\"\nvalue = \"0123456789abcdef\"\nsha256 = \"ab\"\npublish = [\"a\"]",
            "64 hexadecimal digits",
        ),
        (
            "name = \"a\"\nvalue = \"0123456789abcdef\"",
            "may do nothing",
        ),
        (
            "name = \"a\"\nvalue = \"0123456789abcdef\"\npublish = \"a\"",
            "must be a list",
        ),
        (
            "name = \"a\"\nvalue = \"0123456789abcdef\"\npublish = [\"a**\"]",
            "whole segment",
        ),
        (
            "name = \"a\"\nvalue = \"0123456789abcdef\"\nsubscrbe = [\"a\"]",
            "did you mean \"subscribe\"?",
        ),
        (
            "name = \"a\"\nvalue = \"0123456789abcdef\"\npublish = [\"a\"]\ndeny.pubish = [\"a\"]",
            "did you mean \"deny.publish\"?",
        ),
    ] {
        let folder = Folder::with(
            "umbel.toml",
            &format!("origins = [\"any\"]\n[[token]]\n{row}\n"),
        );
        let (is_ok, printed, _) = umbel(&["check", "--config", &folder.path("umbel.toml")]);
        assert!(!is_ok && printed.contains(told), "{row}: {printed}");
        assert!(!printed.contains("0123456789abcdef"), "{printed}");
    }
}
