//! JSON web tokens at the server, as clients and operators meet them.
#![cfg(feature = "jwt")]

#[path = "config_file/file.rs"]
mod file;
mod support;
#[path = "jwt/topics.rs"]
mod topics;

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use file::Folder;
use serde_json::{Value, json};
use support::peers::{Answer, Http, Incoming, WebSocket, connect};
use support::process::rss_bytes;
use support::tokens::sign;
use support::umbel_v1::{JSON, Peer, offer};
use support::{Server, wait_until};

const SECRET: &str = "umbel-test-secret-0123456789abcdef";
const OTHER: &str = "another-secret-0123456789abcdef-01";

/// An issuer with a secret, and grants by role and claim.
fn rows() -> String {
    format!(
        "origins = [\"any\"]\nobserve = \"anyone\"\nlimits.auth_failures_per_address_per_minute = 1000\n\
         [[jwt]]\nname = \"app\"\nalgorithms = [\"HS256\"]\nsecret = \"{SECRET}\"\n\
         [[grant]]\nwhen = {{ subject = true }}\nsubscribe = [\"user/{{sub}}/**\"]\n\
         [[grant]]\nwhen = {{ role = \"trader\" }}\npublish = [\"orders/*\"]\n\
         [[grant]]\nwhen = {{ claim = \"groups\", has = \"desk\" }}\nsubscribe = [\"desk/{{claim.floor}}\"]\n"
    )
}

/// Seconds since 1970, some later.
fn seconds(later: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs() as i64 + later
}

fn claims(more: &Value) -> Value {
    let mut claims = json!({ "sub": "42", "iat": seconds(0), "exp": seconds(3600) });
    for (name, value) in more.as_object().expect("members") {
        claims[name] = value.clone();
    }
    claims
}

fn token(more: &Value) -> String {
    sign(&claims(more), SECRET)
}

fn start(folder: &Folder) -> Server {
    Server::start(&["--config", &folder.path("umbel.toml")])
}

fn request(server: &Server, head: &str, token: &str) -> Answer {
    let mut http = Http::connect(server.address());
    let request = format!(
        "{head} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 1\r\n\r\nx"
    );
    http.send(request.as_bytes());
    http.answer().expect("an answer")
}

fn publish(server: &Server, topic: &str, token: &str) -> u16 {
    request(server, &format!("POST /pub/{topic}"), token).status
}

/// Opens a WebSocket with a token in its header.
fn open(server: &Server, topic: &str, token: &str) -> (u16, WebSocket) {
    let line = format!("Authorization: Bearer {token}\r\n");
    let stream = connect(server.address(), 0);
    let (head, socket) = WebSocket::offer_on(stream, &format!("/ws/{topic}"), &line);
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.unwrap_or_default(), socket)
}

#[test]
fn rights_of_token_and_grants() {
    let folder = Folder::with("umbel.toml", &rows());
    let server = start(&folder);
    assert!(server.log().contains("issuers: 1"), "{}", server.log());
    let own = token(
        &json!({ "umbel": { "v": 1, "subscribe": ["news/**"], "publish": ["user/{sub}/out"], "deny": { "subscribe": ["news/internal/**"] } } }),
    );
    let plain = token(&json!({}));
    let trader = token(&json!({ "umbel": { "roles": ["trader"] } }));
    let desk = token(&json!({ "groups": ["x", "desk"], "floor": 7 }));
    for (topic, token, status) in [
        ("news/eu", &own, 101),
        ("news/internal/a", &own, 403),
        ("user/42/inbox", &own, 101),
        ("user/43/inbox", &own, 403),
        ("news/eu", &plain, 403),
        ("user/42/inbox", &plain, 101),
        ("desk/7", &desk, 101),
        ("desk/8", &desk, 403),
        ("desk/7", &trader, 403),
    ] {
        assert_eq!(open(&server, topic, token).0, status, "{topic}");
    }
    for (topic, token, status) in [
        ("user/42/out", &own, 200),
        ("user/43/out", &own, 403),
        ("orders/1", &trader, 200),
        ("orders/1", &own, 403),
        ("orders/1", &plain, 403),
    ] {
        assert_eq!(publish(&server, topic, token), status, "{topic}");
    }
    let ok = server.metric("umbel_auth_total{source=\"app\",result=\"ok\"}");
    assert!(ok >= 14.0, "{ok}");
}

/// Members of many topics hold what a token says of them once.
#[test]
fn information_of_members_is_held_once() {
    const TOPICS: usize = 1000;
    let rules = "[[topic]]\npattern = \"rooms/**\"\npresence = true\n";
    let folder = Folder::with("umbel.toml", &(rows() + rules));
    let server = Server::start(&[
        "--config",
        &folder.path("umbel.toml"),
        "--log-level",
        "info",
    ]);
    let rights = json!({ "v": 1, "subscribe": ["rooms/**"], "info": "i".repeat(1000) });
    let before = rss_bytes(server.pid());
    let peers: Vec<_> = (0..20)
        .map(|number| {
            let shown = token(&json!({ "sub": format!("user-{number}"), "umbel": rights }));
            let line = format!("Authorization: Bearer {shown}\r\n{}", offer(JSON));
            let stream = connect(server.address(), 0);
            let (head, socket) = WebSocket::offer_on(stream, "/ws", &line);
            assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
            let mut peer = Peer { socket }.welcomed();
            let name = |topic| format!("rooms/{number}/{topic}");
            for topic in 0..TOPICS {
                let subscribe = json!({ "type": "subscribe", "id": topic, "topic": name(topic) });
                assert_eq!(peer.ask(&subscribe)["type"], "subscribed");
            }
            let asked = json!({ "type": "presence", "id": 1, "topic": name(0) });
            let members = peer.ask(&asked)["members"].clone();
            assert_eq!(members[0]["verified"], rights["info"]);
            peer
        })
        .collect();
    let grown = rss_bytes(server.pid()).saturating_sub(before);
    let copies = (peers.len() * TOPICS * 1000) as u64;
    let counted = server.metric("umbel_subscription_bytes") as u64;
    assert!(
        grown < counted + copies,
        "{grown} bytes grown, {counted} are counted, copies would be {copies}"
    );
}

/// A connection stays the subject that it is, and the same name of another issuer is another.
#[test]
fn other_subject_or_issuer_is_refused() {
    let other = format!(
        "[[jwt]]\nname = \"other\"\nalgorithms = [\"HS256\"]\nsecret = \"{OTHER}\"\nissuer = \"other\"\nsubject_prefix = \"\"\n"
    );
    let app = "secret = \"SECRET\"\nsubject_prefix = \"\"".replace("SECRET", SECRET);
    let rows = rows().replace(&format!("secret = \"{SECRET}\""), &app);
    let rows = rows
        .replace("role = \"trader\"", "source = \"app\", role = \"trader\"")
        .replace("claim = \"groups\"", "source = \"app\", claim = \"groups\"");
    let folder = Folder::with("umbel.toml", &format!("{rows}{other}"));
    let server = start(&folder);
    let mut peer = Peer::open(server.address());
    let mut auth = |token: String| {
        let answer = peer.ask(&json!({ "type": "auth", "id": 1, "token": token }));
        let word = answer["code"].as_str().or(answer["type"].as_str());
        word.unwrap_or_default().to_owned()
    };
    assert_eq!(auth(token(&json!({}))), "authenticated");
    let of_other = sign(&claims(&json!({ "iss": "other" })), OTHER);
    assert_eq!(auth(of_other), "subject_changed");
    assert_eq!(auth(token(&json!({ "jti": "2" }))), "authenticated");
    assert_eq!(auth(sign(&claims(&json!({})), OTHER)), "unauthorized");
}

#[test]
fn refusal_tells_the_peer_little_and_the_log_the_check() {
    let folder = Folder::with("umbel.toml", &rows());
    let server = start(&folder);
    let expired = token(&json!({ "exp": seconds(-31) }));
    let early = token(&json!({ "nbf": seconds(60) }));
    let forged = sign(&claims(&json!({})), OTHER);
    let unsigned = format!("{}.", token(&json!({})).rsplit_once('.').expect("parts").0);
    for (token, told, check) in [
        (&expired, "the token has expired", "by exp"),
        (&early, "the token is not valid yet", "by nbf"),
        (&forged, "the token is not valid", "by signature"),
        (&unsigned, "the token is not valid", "by signature"),
        (
            &token(&json!({ "aud": "umbel" })),
            "the token is not valid",
            "by aud",
        ),
        (
            &token(&json!({ "umbel": { "allow": ["**"] } })),
            "the token is not valid",
            "by claims",
        ),
        (&"a.b.c".to_owned(), "the token is not valid", "by base64"),
    ] {
        let is_refused = || {
            let answer = request(&server, "POST /pub/a", token);
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(answer.status, 401, "{check}: {body}");
            assert!(body.starts_with(told), "{check}: {body}");
            let challenge = answer.header("WWW-Authenticate").unwrap_or_default();
            assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
        };
        is_refused();
        // A second goes by between two lines of the log, so that few are waited for.
        if ["by exp", "by claims"].contains(&check) {
            wait_until(check, || {
                is_refused();
                server.log().contains(check)
            });
        }
        assert!(
            !server.whole_log().contains(token.as_str()),
            "a token is in the log"
        );
    }
    let of_app = |result: &str| {
        let name = format!("umbel_auth_total{{source=\"app\",result=\"{result}\"}}");
        server.metric(&name)
    };
    assert!(of_app("expired") >= 1.0 && of_app("invalid") >= 4.0);
    let lines = server.whole_log().matches("is refused by").count();
    assert!(lines < 40, "{lines} lines");
}

/// An address that has shown too many wrong tokens gets none verified, but those that were before.
#[test]
fn tokens_of_a_guessing_address_are_not_verified() {
    let text = rows().replace("per_minute = 1000", "per_minute = 2");
    let folder = Folder::with("umbel.toml", &text);
    let server = start(&folder);
    let grants = json!({ "umbel": { "v": 1, "publish": ["**"] } });
    let known = token(&grants);
    assert_eq!(publish(&server, "a", &known), 200);
    let forged = |number: u32| sign(&claims(&json!({ "jti": number.to_string() })), OTHER);
    let statuses = [1, 2, 3].map(|number| publish(&server, "a", &forged(number)));
    assert_eq!(statuses, [401, 401, 429]);
    let mut fresh = grants.clone();
    fresh["jti"] = json!("fresh");
    assert_eq!(publish(&server, "a", &token(&fresh)), 429);
    // Whatever the place it stands in.
    let offer = format!(
        "Sec-WebSocket-Protocol: umbel.raw, umbel.token.{}\r\n",
        token(&fresh)
    );
    let handshake = support::wire::upgrade_request("/ws/a", &offer);
    assert_eq!(server.request(&handshake).status, 429);
    assert_eq!(publish(&server, "a", &known), 200);
}

#[test]
fn secret_rotates_by_reload() {
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
    let old = token(&json!({}));
    let new = sign(&claims(&json!({})), OTHER);
    let (status, mut socket) = open(&server, "user/42/a", &old);
    assert_eq!((status, open(&server, "user/42/a", &new).0), (101, 401));
    let both = format!(
        "secret = \"{OTHER}\"\nsecret_previous = \"{SECRET}\"\nsecret_previous_until = 2099-01-01T00:00:00Z"
    );
    reload(&rows().replace(&format!("secret = \"{SECRET}\""), &both));
    assert_eq!(open(&server, "user/42/a", &old).0, 101);
    assert_eq!(open(&server, "user/42/a", &new).0, 101);
    reload(&rows().replace(SECRET, OTHER));
    assert_eq!(open(&server, "user/42/a", &old).0, 401);
    assert_eq!(open(&server, "user/42/a", &new).0, 101);
    // A token was judged when it came. Whose issuer is gone, goes.
    socket.send(9, b"there");
    assert_eq!(socket.next(), Incoming::Pong(b"there".to_vec()));
    reload(&rows().replace("\"app\"", "\"renamed\""));
    let closed = socket.next();
    assert!(
        matches!(closed, Incoming::Close(4401 | 4403, _)),
        "{closed:?}"
    );
}

/// Rows, and what is told of them.
const WRONG_ROWS: &[(&str, &str)] = &[
    ("algorithms = [\"HS256\"]\nSECRET", "has no name"),
    ("name = \"a\"\nSECRET", "algorithms"),
    (
        "name = \"a\"\nalgorithms = [\"ES512\"]\nSECRET",
        "3:15: algorithms: ES512: it is not supported: use ES256",
    ),
    (
        "name = \"a\"\nalgorithms = [\"HS512\"]\nSECRET",
        "HS512 needs 64",
    ),
    ("name = \"a\"\nalgorithms = [\"HS256\"]", "has no key"),
    (
        "name = \"a\"\nalgorithms = [\"HS256\"]\nSECRET\njwks_url = \"https://a.example\"",
        "one of them is enough",
    ),
    (
        "name = \"a\"\nalgorithms = [\"RS256\"]\npublic_key_file = \"key.pem\"\naudience = [\"x\"]",
        "it is a private key",
    ),
    (
        "name = \"a\"\nalgorithms = [\"RS256\"]\npublic_key_file = \"none.pem\"",
        "there is no such file",
    ),
    (
        "name = \"a\"\nalgorithms = [\"RS256\"]\njwks_file = \"key.pem\"\naudience = [\"x\"]",
        "jwks_file: it is no set of keys",
    ),
    (
        "name = \"a\"\nalgorithms = [\"HS256\"]\nSECRET\nisuer = \"x\"",
        "did you mean \"issuer\"?",
    ),
    (
        "name = \"a\"\nalgorithms = [\"HS256\"]\nSECRET\nleeway_ms = \"1h\"",
        "leeway_ms",
    ),
    (
        "name = \"a\"\nalgorithms = [\"HS256\"]\nSECRET\nsecret_previous = \"x\"",
        "HS256 needs 32",
    ),
    (
        "name = \"a\"\nalgorithms = [\"HS256\"]\nSECRET\nsecret_previous_until = 2027-01-01T00:00:00Z",
        "without secret_previous",
    ),
    (
        "name = \"hook\"\nalgorithms = [\"HS256\"]\nSECRET",
        "another source has the same name",
    ),
    (
        "name = \"a\"\nalgorithms = [\"HS256\"]\nSECRET\n[[jwt]]\nname = \"b\"\nalgorithms = [\"HS256\"]\nSECRET",
        "has no issuer either",
    ),
    (
        "name = \"a\"\nalgorithms = [\"HS256\"]\nSECRET\n[[jwt]]\nname = \"b\"\nissuer = \"i\"\nalgorithms = [\"HS256\"]\nSECRET",
        "add subject_prefix",
    ),
];

#[test]
fn wrong_rows_are_told_with_their_place() {
    let secret = format!("secret = \"{SECRET}\"");
    let pem = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (row, told) in WRONG_ROWS {
        let row = row.replace("SECRET", &secret);
        let text = format!("[[jwt]]\n{row}\n");
        let text = match told.starts_with("3:") {
            true => text,
            false => format!("origins = [\"any\"]\n{text}"),
        };
        let folder = Folder::with("umbel.toml", &text);
        folder.write("key.pem", pem);
        let output = Command::new(env!("CARGO_BIN_EXE_umbel"))
            .args(["check", "--config", &folder.path("umbel.toml")])
            .env_clear()
            .output()
            .expect("it runs");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            !output.status.success() && printed.contains(told),
            "{row}: {printed}"
        );
        assert!(!printed.contains(SECRET), "{printed}");
    }
}
