//! Topics that a token brings along, and topics that a signature opens.

use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::file::Folder;
use super::support::peers::{Block, EventStream, Incoming, WebSocket, connect};
use super::support::umbel_v1::Peer;
use super::support::{Server, Wire};
use super::{SECRET, request, seconds, token};

const URL_SECRET: &str = "umbel-test-secret-0123456789abcdef";

/// Settings with keys of URLs, where all may read `news` and nobody `news/closed`.
fn settings(url_keys: &str) -> String {
    format!(
        "origins = [\"any\"]\nobserve = \"anyone\"\nlimits.auth_failures_per_address_per_minute = 1000\n\
         [[jwt]]\nname = \"app\"\nalgorithms = [\"HS256\"]\nsecret = \"{SECRET}\"\nsubject_prefix = \"\"\n\
         {url_keys}\
         [[grant]]\nwhen = {{ subject = true }}\nsubscribe = [\"open\"]\ndeny.subscribe = [\"news/closed\"]\n"
    )
}

fn url_key(kid: &str, secret: &str) -> String {
    format!("[[url_key]]\nkid = \"{kid}\"\nsecret = \"{secret}\"\nsubject_prefix = \"\"\n")
}

fn start() -> Server {
    let folder = Folder::with("umbel.toml", &settings(&url_key("k1", URL_SECRET)));
    Server::start(&["--config", &folder.path("umbel.toml")])
}

fn signature(topic: &str, exp: i64, subject: &str) -> Value {
    signature_by(("k1", URL_SECRET), topic, exp, subject)
}

fn signature_by((kid, secret): (&str, &str), topic: &str, exp: i64, subject: &str) -> Value {
    let text = format!("umbel1\nsubscribe\n{topic}\n{exp}\n{subject}\n{kid}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let sig = URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()));
    json!({"exp": exp, "sub": subject, "kid": kid, "sig": sig})
}

fn subscribe(topic: &str, signature: &Value) -> Value {
    json!({"type": "subscribe", "id": 5, "topic": topic, "signature": signature})
}

fn joining(topics: &Value) -> String {
    token(&json!({"umbel": {"subscribe": ["news/**", "user/{sub}/**"], "join": topics}}))
}

/// Commands with signatures that open nothing, and their errors.
fn bad_signatures() -> Vec<(&'static str, Value, &'static str)> {
    let later = seconds(60);
    let mut broken = signature("rooms/3", later, "");
    broken["sig"] = "AAAA".into();
    let mut unknown = signature("rooms/3", later, "");
    unknown["kid"] = "k2".into();
    vec![
        (
            "another topic's",
            subscribe("rooms/4", &signature("rooms/3", later, "")),
            "unauthorized",
        ),
        (
            "another subject's",
            subscribe("rooms/3", &signature("rooms/3", later, "43")),
            "unauthorized",
        ),
        (
            "no signature",
            subscribe("rooms/3", &broken),
            "unauthorized",
        ),
        ("no key", subscribe("rooms/3", &unknown), "unauthorized"),
        (
            "over",
            subscribe("rooms/3", &signature("rooms/3", seconds(-1), "")),
            "unauthorized",
        ),
        (
            "too far ahead",
            subscribe("rooms/3", &signature("rooms/3", seconds(90_000), "")),
            "unauthorized",
        ),
        (
            "denied",
            subscribe("news/closed", &signature("news/closed", later, "")),
            "forbidden",
        ),
        (
            "no object",
            subscribe("rooms/3", &json!([1, "", "k1", "x"])),
            "invalid_command",
        ),
        (
            "with more",
            subscribe(
                "rooms/3",
                &json!({"exp": later, "kid": "k1", "sig": "x", "more": 1}),
            ),
            "invalid_command",
        ),
        (
            "for a pattern",
            json!({"type": "subscribe", "id": 5, "pattern": "rooms/*", "signature": signature("rooms/*", later, "")}),
            "invalid_command",
        ),
    ]
}

#[test]
fn signature_opens_one_topic_to_who_is_there() {
    let server = start();
    let mut peer = Peer::open(server.address());
    let later = seconds(60);
    let opened = subscribe("rooms/1", &signature("rooms/1", later, ""));
    assert_eq!(peer.error(&opened), "unauthorized", "nobody is there yet");
    let with_token = json!({"type": "auth", "id": 1, "token": token(&json!({}))});
    assert_eq!(peer.ask(&with_token)["type"], "authenticated");
    let plain = json!({"type": "subscribe", "id": 2, "topic": "rooms/1"});
    assert_eq!(peer.error(&plain), "forbidden");
    assert_eq!(peer.ask(&opened)["type"], "subscribed");
    let own = subscribe("rooms/2", &signature("rooms/2", later, "42"));
    assert_eq!(peer.ask(&own)["type"], "subscribed");
    for (what, command, code) in bad_signatures() {
        assert_eq!(peer.error(&command), code, "{what}");
    }
    // It stays when the token is renewed, which has no right to it.
    assert_eq!(peer.ask(&with_token)["type"], "authenticated");
    let again = json!({"type": "subscribe", "id": 6, "topic": "rooms/1"});
    assert_eq!(peer.error(&again), "forbidden");
    peer.subscribe("open");
}

#[test]
fn signature_ends_at_its_time() {
    let server = start();
    let mut peer = Peer::open(server.address());
    peer.ask(&json!({"type": "auth", "id": 1, "token": token(&json!({}))}));
    let soon = seconds(2);
    peer.ask(&subscribe("rooms/1", &signature("rooms/1", soon, "")));
    let ended = peer.next();
    assert_eq!(
        (&ended["type"], &ended["topic"]),
        (&json!("unsubscribed"), &json!("rooms/1"))
    );
    assert_eq!(ended["code"], "expired");
    assert!((soon..soon + 2).contains(&seconds(0)));
}

/// What a key has signed goes with the key, at a reload: whether it is taken away or gets another secret.
#[test]
fn key_that_is_gone_ends_what_it_signed() {
    const OTHER: &str = "another-secret-0123456789abcdefgh";
    let keys = [("k1", URL_SECRET), ("k2", OTHER), ("k3", OTHER)];
    let all: String = keys
        .iter()
        .map(|(kid, secret)| url_key(kid, secret))
        .collect();
    let folder = Folder::with("umbel.toml", &settings(&all));
    let server = Server::start(&["--config", &folder.path("umbel.toml")]);
    let later = seconds(60);
    let mut streams = keys.map(|key| {
        let signed = signature_by(key, "rooms/1", later, "");
        let (kid, sig) = (key.0, signed["sig"].as_str().expect("text"));
        let target = format!("/sse/rooms/1?umbel_exp={later}&umbel_kid={kid}&umbel_sig={sig}");
        EventStream::open(server.address(), &target)
    });
    let mut peer = Peer::open(server.address());
    peer.ask(&json!({"type": "auth", "id": 1, "token": token(&json!({}))}));
    for key in keys {
        let topic = format!("rooms/of/{}", key.0);
        let command = subscribe(&topic, &signature_by(key, &topic, later, ""));
        assert_eq!(peer.ask(&command)["type"], "subscribed");
    }
    let left = url_key("k2", OTHER) + &url_key("k3", URL_SECRET);
    folder.write("umbel.toml", &settings(&left));
    server.signal("HUP");
    let mut ended = [peer.next(), peer.next()].map(|it| {
        assert_eq!(
            (&it["type"], &it["code"]),
            (&json!("unsubscribed"), &json!("forbidden"))
        );
        it["topic"].as_str().expect("a topic").to_owned()
    });
    ended.sort();
    assert_eq!(ended, ["rooms/of/k1", "rooms/of/k3"]);
    for gone in [0, 2] {
        assert_eq!(streams[gone].next(), Block::End);
    }
    let writer = token(&json!({"umbel": {"publish": ["**"]}}));
    assert_eq!(super::publish(&server, "rooms/1", &writer), 200);
    assert_eq!(streams[1].data(), "x");
    assert_eq!(super::publish(&server, "rooms/of/k2", &writer), 200);
    let received = peer.next();
    assert_eq!(received["topic"], "rooms/of/k2", "{received}");
}

#[test]
fn stream_of_the_topic_that_a_token_joins() {
    let server = start();
    let one = joining(&json!(["user/{sub}/inbox"]));
    let mut stream = Wire::connect(server.address());
    let head =
        format!("GET /sse HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {one}\r\n\r\n");
    stream.send(head.as_bytes());
    stream.read_through(b"HTTP/1.1 200 ");
    let line = format!("Authorization: Bearer {one}\r\n");
    let (head, mut bare) = WebSocket::offer_on(connect(server.address(), 0), "/ws", &line);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let writer = token(&json!({"umbel": {"publish": ["**"]}}));
    assert_eq!(super::publish(&server, "user/42/inbox", &writer), 200);
    assert_eq!(bare.next(), Incoming::Text("x".into()));
    stream.read_through(b"data: x");
    for (topics, status) in [
        (json!(["news/eu", "news/us"]), 400),
        (json!(["rooms/1"]), 403),
        (json!([]), 404),
    ] {
        let token = joining(&topics);
        assert_eq!(
            request(&server, "GET /sse", &token).status,
            status,
            "{topics}"
        );
        let line = format!("Authorization: Bearer {token}\r\n");
        let (head, _) = WebSocket::offer_on(connect(server.address(), 0), "/ws", &line);
        let status = match status {
            404 => 400,
            status => status,
        };
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{topics}: {head}"
        );
    }
    // umbel.v1 is the other way, for as many as there are.
    let mut peer = Peer::open(server.address());
    peer.ask(&json!({"type": "auth", "id": 1, "token": joining(&json!(["news/eu", "news/us"]))}));
    let joined = [peer.next(), peer.next()];
    assert!(
        joined
            .iter()
            .all(|it| it["type"] == "subscribed" && it.get("id").is_none()),
        "{joined:?}"
    );
}

#[test]
fn limits_of_a_token_lower_those_of_the_server() {
    let server = start();
    let limited =
        |limits: Value| token(&json!({"umbel": {"subscribe": ["news/**"], "limits": limits}}));
    let mut peer = Peer::open(server.address());
    let auth = |token: String| json!({"type": "auth", "id": 1, "token": token});
    peer.ask(&auth(limited(json!({"subscriptions": 2}))));
    peer.subscribe("news/1");
    peer.subscribe("news/3");
    let third = json!({"type": "subscribe", "id": 2, "topic": "news/2"});
    assert_eq!(peer.error(&third), "too_many_subscriptions");
    peer.ask(&auth(limited(json!({"subscriptions": 4_000_000_000_u32}))));
    peer.subscribe("news/2");
    // 4 messages at once, and then 20 a second: behind the first 20 reading stops.
    peer.ask(&auth(limited(json!({"messages_per_second": 20}))));
    let begun = Instant::now();
    for id in 0..28 {
        peer.send(&json!({"type": "ping", "id": id}));
    }
    for id in 0..28 {
        peer.expect(&json!({"type": "pong", "id": id}));
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(300),
        "{:?}",
        begun.elapsed()
    );
    peer.ask(&auth(limited(json!({}))));
    // What is not enforced is not taken.
    for limits in [
        json!({"bytes_per_second": 20}),
        json!({"messages_per_second": 0}),
        json!({"subscriptions": 0}),
        json!({"subscriptions": null}),
        json!({"subscriptions": 1.5}),
        json!([2]),
    ] {
        let refused = peer.error(&auth(limited(limits.clone())));
        assert_eq!(refused, "unauthorized", "{limits}");
    }
}
