//! Tokens and signatures of other servers' clients: npm `pusher` and PyJWT have made them, in `dialect_tokens/`.
#![cfg(feature = "jwt")]

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};
use umbel::Action;
use umbel::internals::auth::dialect_tokens::centrifugo;
use umbel::internals::auth::dialect_tokens::mercure::{self, DETAIL_TYPE};
use umbel::internals::auth::dialect_tokens::pusher::{AppKey, PusherError};
use umbel::internals::auth::identity::Nobody;
use umbel::internals::auth::jwt::claims::{Claims, ConnectionEnd};
use umbel::internals::auth::jwt::compact::Header;
use umbel::internals::auth::jwt::error::JwtError;
use umbel::internals::auth::jwt::issuer::{Issuer, Issuers, Keys, Opened};
use umbel::internals::auth::jwt::rules::Rules;
use umbel::internals::auth::rights::{Decision, Part, decide};
use umbel::internals::signature::algorithm::Algorithm;
use umbel::internals::signature::keys::{Key, KeySet};

const NOW_MS: u64 = 1_800_000_000_000;

fn no_exp() -> Rules {
    Rules {
        require: Vec::new(),
        ..Rules::default()
    }
}

/// The payload of a token that PyJWT has signed.
fn opened(name: &str) -> Opened {
    let tokens: Value =
        serde_json::from_str(include_str!("dialect_tokens/jwt.json")).expect("JSON");
    let algorithms = vec![Algorithm::Hs256];
    let key = Key::secret(b"!ChangeThisMercureHubJWTSecretKey!", &algorithms);
    let issuers = Issuers::new(vec![Issuer {
        name: "app".into(),
        algorithms,
        keys: Keys::Configured(Arc::new(KeySet::new(0, vec![key]))),
        rules: no_exp(),
    }]);
    let token = tokens[name].as_str().expect("a token");
    issuers
        .open(token.as_bytes(), NOW_MS)
        .expect("it is signed")
}

fn may(claims: &Claims, action: Action<'_>) -> bool {
    let part = Part {
        owner: (),
        rights: &claims.rights,
        denies_only: false,
    };
    let decided = decide(&std::iter::once(part), action, &Nobody);
    matches!(decided, Decision::Allowed(..))
}

fn text(json: Option<&serde_json::value::RawValue>) -> &str {
    json.map_or("", |json| json.get())
}

#[test]
fn centrifugo_connection() {
    let payload = opened("centrifugo").payload;
    let read = centrifugo::read_connection(&payload, &no_exp()).expect("a token");
    let claims = &read.claims;
    assert_eq!(claims.subject.as_deref(), Some("42"));
    assert_eq!(
        claims.connection_end,
        Some(ConnectionEnd::At(1_800_007_200))
    );
    assert_eq!(text(claims.info.as_deref()), "{\"name\":\"Anna\"}");
    assert_eq!(text(claims.meta.as_deref()), "{\"tenant\":\"t7\"}");
    let names = claims.join.iter().map(|it| &**it);
    assert_eq!(names.collect::<Vec<_>>(), ["chat:a", "news"]);
    for channel in ["chat:a", "news"] {
        assert!(may(claims, Action::Subscribe(channel)));
        assert!(may(claims, Action::History(channel)));
        assert!(!may(claims, Action::Presence(channel)));
        assert!(!may(claims, Action::Publish(channel)));
    }
    assert!(!may(claims, Action::Subscribe("other")));
    assert_eq!(
        claims.check_time(&no_exp(), NOW_MS + 90_000),
        Err(JwtError::Expired)
    );
}

#[test]
fn centrifugo_subscriptions_and_capabilities() {
    let payload = opened("centrifugo_subs").payload;
    let read = centrifugo::read_connection(&payload, &no_exp()).expect("a token");
    let claims = &read.claims;
    assert_eq!(claims.subject, None);
    assert_eq!(claims.connection_end, Some(ConnectionEnd::Never));
    assert_eq!(text(claims.info.as_deref()), "{\"name\":\"Anna\"}");
    let [subscription] = &read.subscriptions[..] else {
        panic!("{:?}", read.subscriptions);
    };
    assert_eq!(subscription.channel, "chat:a");
    assert!(subscription.info.is_some() && subscription.options.is_some());
    let rooms = Action::Publish("rooms/a/b");
    for (action, is_allowed) in [
        (Action::Subscribe("chat:a"), true),
        (Action::Subscribe("news"), true),
        (Action::History("a.b"), true),
        (Action::Publish("news"), false),
        (rooms, true),
        (Action::Presence("rooms/a"), true),
        (Action::Publish("plain"), true),
        (Action::Subscribe("rooms/a"), false),
    ] {
        assert_eq!(may(claims, action), is_allowed, "{action:?}");
    }
}

#[test]
fn centrifugo_refuses_what_cannot_be_said() {
    for members in [
        r#""channel":"a""#,
        r#""sub":42"#,
        r#""expire_at":"1800007200""#,
        r#""expire_at":-1"#,
        r#""channels":["a*"]"#,
        r#""channels":["a?b"]"#,
        r#""channels":["{sub}"]"#,
        r#""channels":"a""#,
        r#""channels":[""]"#,
        r#""subs":["a"]"#,
        r#""subs":{"a":{},"a":{}}"#,
        r#""channels":["a"],"channels":["b"]"#,
        r#""b64info":"?""#,
        r#""b64info":"AAEC""#,
        r#""caps":[{"channels":["a"],"match":"regex","allow":["sub"]}]"#,
        r#""caps":[{"channels":["a"],"match":"","allow":["all"]}]"#,
        r#""caps":[{"channels":["a*b"],"match":"wildcard","allow":["sub"]}]"#,
        r#""caps":[{"channels":["news:*"],"match":"wildcard","allow":["sub"]}]"#,
        r#""caps":[{"channels":["*/*"],"match":"wildcard","allow":["sub"]}]"#,
        r#""caps":[{"channels":["a"],"allow":["sub"],"deny":["pub"]}]"#,
    ] {
        let payload = format!("{{{members}}}");
        let read = centrifugo::read_connection(&payload, &no_exp());
        assert!(matches!(read, Err(JwtError::Claims(_))), "{members}");
    }
    let many: Vec<_> = (0..129).map(|it| it.to_string()).collect();
    let payload = json!({ "channels": many }).to_string();
    assert!(centrifugo::read_connection(&payload, &no_exp()).is_err());
}

#[test]
fn centrifugo_subscription() {
    let payload = opened("centrifugo_channel").payload;
    let read =
        |channel, subject| centrifugo::read_subscription(&payload, &no_exp(), (channel, subject));
    let right = read("chat:a", Some("42")).expect("it is for this one");
    assert!(may(&right.claims, Action::Subscribe("chat:a")));
    assert!(may(&right.claims, Action::Publish("chat:a")));
    assert!(may(&right.claims, Action::History("chat:a")));
    assert!(!may(&right.claims, Action::Presence("chat:a")));
    assert!(!may(&right.claims, Action::Subscribe("chat:b")));
    assert_eq!(text(right.claims.info.as_deref()), "{\"x\":1}");
    for (channel, subject) in [
        ("chat:b", Some("42")),
        ("chat:a", Some("43")),
        ("chat:a", None),
    ] {
        assert!(read(channel, subject).is_err(), "{channel} {subject:?}");
    }
    let nameless = centrifugo::read_subscription("{\"sub\":\"42\"}", &no_exp(), ("a", Some("42")));
    assert!(nameless.is_err(), "channel is required");
}

/// Topics stay as they are.
fn same(topic: &str) -> Option<String> {
    Some(topic.to_owned())
}

#[test]
fn mercure_before_1_0() {
    let payload = opened("mercure").payload;
    let claims = mercure::read_old(&payload, &no_exp(), &same).expect("a token");
    for (action, is_allowed) in [
        (Action::Publish("a/b.c"), true),
        (Action::Subscribe("books/1"), true),
        (Action::Subscribe("books/1/2"), false),
        (Action::Subscribe("foo"), true),
        (Action::Subscribe("users/7/inbox"), true),
        (Action::Subscribe("users/7"), false),
    ] {
        assert_eq!(may(&claims, action), is_allowed, "{action:?}");
    }
    assert_eq!(text(claims.info.as_deref()), "{\"u\":1}");
    for selector in [
        "books/{+id}",
        "books/{id,x}",
        "books/{?topic}",
        "books/x{id}",
        "books/{id}x",
        "books/{id",
        "books/id}",
        "books/{}",
        "books/*",
        "{id}*",
    ] {
        let payload = json!({ "mercure": { "subscribe": [selector] } }).to_string();
        let read = mercure::read_old(&payload, &no_exp(), &same);
        assert!(matches!(read, Err(JwtError::Claims(_))), "{selector}");
    }
    // Without exp, only where the operator says so; and a topic that cannot be one here refuses.
    let required = mercure::read_old(&payload, &Rules::default(), &same);
    assert!(matches!(required, Err(JwtError::Missing("exp"))));
    assert!(mercure::read_old(&payload, &no_exp(), &|_| None).is_err());
}

fn access_rules() -> Rules {
    Rules {
        issuer: Some("https://as.example".into()),
        audience: vec!["https://hub.example/.well-known/mercure".into()],
        ..Rules::default()
    }
}

#[test]
fn mercure_access_token() {
    let Opened {
        header, payload, ..
    } = opened("mercure_access");
    let read =
        |header: &Header, rules: &Rules| mercure::read_access(header, &payload, rules, &same);
    let claims = read(&header, &access_rules()).expect("a token");
    for (action, is_allowed) in [
        (Action::Subscribe("foo"), true),
        (Action::Subscribe("books/1"), true),
        (Action::Subscribe("books/1/2"), false),
        (Action::Subscribe("users/42/a/b"), true),
        (Action::Subscribe("users/43/a"), false),
        (Action::Publish("anything/at.all"), true),
    ] {
        assert_eq!(may(&claims, action), is_allowed, "{action:?}");
    }
    let id_token = Header {
        typ: Some("JWT".into()),
        ..header.clone()
    };
    assert_eq!(read(&id_token, &access_rules()).err(), Some(JwtError::Type));
    assert!(read(&header, &no_exp()).is_err(), "issuer and audience");
}

#[test]
fn mercure_details_that_refuse_all() {
    let header = Header {
        typ: Some("application/at+jwt".into()),
        ..opened("mercure_access").header
    };
    let details = |details: Value| {
        let payload = json!({
            "iss": "https://as.example", "aud": "https://hub.example/.well-known/mercure",
            "sub": "42", "exp": 1_800_000_060, "authorization_details": details,
        });
        mercure::read_access(&header, &payload.to_string(), &access_rules(), &same)
    };
    let detail = |actions: Value, topics: Value| json!({ "type": DETAIL_TYPE, "actions": actions, "topics": topics });
    let good = detail(json!(["subscribe"]), json!([{ "match": "a" }]));
    assert!(details(json!([good])).is_ok());
    assert!(
        details(json!([{ "type": "x", "actions": 5 }])).is_ok(),
        "foreign"
    );
    for bad in [
        json!("x"),
        json!({ "actions": [] }),
        json!({ "type": DETAIL_TYPE, "actions": ["subscribe"] }),
        detail(json!(["delete"]), json!([{ "match": "a" }])),
        detail(
            json!(["subscribe"]),
            json!([{ "match": "a", "match_type": "regex" }]),
        ),
        detail(
            json!(["subscribe"]),
            json!([{ "match": "a/*/b", "match_type": "urlpattern" }]),
        ),
        detail(
            json!(["subscribe"]),
            json!([{ "match": "a/:id(\\d+)", "match_type": "urlpattern" }]),
        ),
        detail(
            json!(["subscribe"]),
            json!([{ "match": "a{/b}?", "match_type": "urlpattern" }]),
        ),
        detail(
            json!(["subscribe"]),
            json!([{ "match": "a/x:id", "match_type": "urlpattern" }]),
        ),
        detail(json!(["subscribe"]), json!([{ "match": "a/*" }])),
        detail(json!(["subscribe"]), json!([{ "match": "a", "more": 1 }])),
    ] {
        assert!(details(json!([good, bad])).is_err(), "{bad}");
    }
}

fn pusher() -> (Value, AppKey) {
    let made: Value =
        serde_json::from_str(include_str!("dialect_tokens/pusher.json")).expect("JSON");
    let of = |name: &str| made[name].as_str().expect("a text").to_owned();
    let key = AppKey::new(&of("key"), of("secret").as_bytes());
    (made, key)
}

#[test]
fn pusher_channels_and_users() {
    let (made, key) = pusher();
    let ids = ["", "10", "u1", "only"];
    let channels = made["channels"].as_array().expect("a list");
    assert_eq!(channels.len(), ids.len());
    for (it, id) in channels.iter().zip(ids) {
        let of = |name: &str| it[name].as_str();
        let (socket, channel) = (of("socket_id").expect("id"), of("channel").expect("name"));
        let auth = of("auth").expect("a signature");
        let check = |socket, channel, data, auth| {
            let checked = key.check_channel((socket, channel), data, auth);
            checked.map(|member| member.map_or(Box::from(""), |member| member.id))
        };
        let data = of("channel_data");
        assert_eq!(check(socket, channel, data, auth), Ok(id.into()));
        let wrong = Err(PusherError::Signature);
        assert_eq!(check("1234.1235", channel, data, auth), wrong);
        assert_eq!(check(socket, "private-foobaz", data, auth), wrong);
        assert_eq!(
            check(socket, channel, Some("{\"user_id\":\"x\"}"), auth),
            wrong
        );
        let (own, signature) = auth.split_once(':').expect("two parts");
        let upper = format!("{own}:{}", signature.to_uppercase());
        assert_eq!(
            check(socket, channel, data, &upper),
            Err(PusherError::Format)
        );
        let other = auth.replace("278d", "278e");
        assert_eq!(check(socket, channel, data, &other), Err(PusherError::Key));
        for bad in ["", "1234", "1234.", ".1", "1.2.3", "a.1", "1.2 "] {
            assert_eq!(check(bad, channel, data, auth), Err(PusherError::SocketId));
        }
        for bad in ["", own, &format!("{own}:")] {
            assert_eq!(check(socket, channel, data, bad), Err(PusherError::Format));
        }
    }
    for (it, id) in made["users"]
        .as_array()
        .expect("a list")
        .iter()
        .zip(["12345", "e:1"])
    {
        let of = |name: &str| it[name].as_str().expect("a text");
        let (socket, data, auth) = (of("socket_id"), of("user_data"), of("auth"));
        let member = key.check_user(socket, data, auth).expect("signed");
        assert_eq!(&*member.id, id);
        let other = key.check_user("7.7", data, auth).err();
        assert_eq!(other, Some(PusherError::Signature));
        let spaced = data.replace(':', ": ");
        let other = key.check_user(socket, &spaced, auth).err();
        assert_eq!(other, Some(PusherError::Signature), "bytes count");
    }
}

type Query = Vec<(Cow<'static, str>, Cow<'static, str>)>;

#[test]
fn pusher_requests() {
    let (made, key) = pusher();
    let now_s = NOW_MS / 1000;
    for it in made["requests"].as_array().expect("a list") {
        let of = |name: &str| it[name].as_str();
        let (method, path) = (of("method").expect("GET"), of("path").expect("/"));
        let query: Query = of("query")
            .expect("a query")
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned().into(), value.to_owned().into()))
            .collect();
        let body = of("body_md5");
        let check =
            |query: &Query, body, now_s| key.check_request((method, path), query, body, now_s);
        assert_eq!(check(&query, body, now_s), Ok(()), "{path}");
        let reversed = query.iter().rev().cloned().collect();
        assert_eq!(check(&reversed, body, now_s), Ok(()), "any order");
        assert_eq!(check(&query, body, now_s + 600), Ok(()));
        assert_eq!(
            check(&query, body, now_s + 601),
            Err(PusherError::Timestamp)
        );
        assert_eq!(
            check(&query, body, now_s - 601),
            Err(PusherError::Timestamp)
        );
        let other = "0".repeat(32);
        assert_eq!(check(&query, Some(&other), now_s), Err(PusherError::Body));
        let with = |name: &'static str, value: &'static str| {
            let mut query = query.clone();
            query.push((name.into(), value.into()));
            check(&query, body, now_s)
        };
        assert!(with("info", "x").is_err());
        assert_eq!(with("auth_key", "x"), Err(PusherError::Duplicate));
        assert_eq!(with("AUTH_VERSION", "1.0"), Err(PusherError::Duplicate));
        assert_eq!(with("x", "y"), Err(PusherError::Signature));
        let without = |name: &str| {
            let kept = query.iter().filter(|(other, _)| other != name);
            check(&kept.cloned().collect(), body, now_s)
        };
        for name in [
            "auth_key",
            "auth_timestamp",
            "auth_version",
            "auth_signature",
        ] {
            assert_eq!(without(name), Err(PusherError::Missing), "{name}");
        }
        let elsewhere = key.check_request((method, "/apps/4/events"), &query, body, now_s);
        assert_eq!(elsewhere, Err(PusherError::Signature));
    }
}
