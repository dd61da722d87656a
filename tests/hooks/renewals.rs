//! The hook, asked again: identities and subscriptions that end unless the application says otherwise.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::app::{App, Asked, Reaction};
use crate::support::peers::{Block, EventStream};
use crate::support::umbel_v1::Peer;
use crate::support::{Server, wait_until};

fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock").as_secs()
}

fn start(app: &App, events: &str, flags: &[&str]) -> Server {
    let url = app.url("/umbel");
    let all = [
        "--hook-url",
        &url,
        "--hook-events",
        events,
        "--origin",
        "localhost",
        "--publish",
        "nobody",
        "--subscribe",
        "nobody",
        "--topic-rule",
        "rooms/** presence=on presence_subject=on",
    ];
    Server::start(&[&all[..], flags].concat())
}

fn asked_at(app: &App, path: &str) -> Vec<Value> {
    let asked = app.asked();
    let asked = asked.iter().filter(|it| it.path() == path);
    asked.map(Asked::json).collect()
}

/// The next message of this type.
fn next_of(peer: &mut Peer, kind: &str) -> Value {
    loop {
        let message = peer.next();
        if message["type"] == kind {
            return message;
        }
    }
}

fn lets_in(_: &Asked) -> Reaction {
    Reaction::json(
        200,
        r#"{"subject":"42","subscribe":["**"],"info":{"name":"Anna"}}"#,
    )
}

#[test]
fn subscriptions_end_unless_they_are_allowed_again() {
    let app = App::start(|asked| match asked.path() {
        "/umbel/subscribe" => {
            let body = asked.json();
            let topic = body["topic"].as_str().or(body["pattern"].as_str());
            match topic {
                Some("rooms/past") => Reaction::json(200, r#"{"expires_at":1700000000}"#),
                Some("rooms/free") => Reaction::json(200, r#"{"info":{"seat":7}}"#),
                _ => Reaction::json(200, &format!(r#"{{"expires_at":{}}}"#, now_s() + 2)),
            }
        }
        _ => lets_in(asked),
    });
    let server = start(&app, "connect,subscribe", &["--hook-topics", "rooms/**"]);
    let mut peer = Peer::open(server.address()).welcomed();
    let past = json!({"type": "subscribe", "id": 1, "topic": "rooms/past"});
    assert_eq!(peer.error(&past), "unavailable", "its time is over");
    peer.subscribe("rooms/free");
    let present = peer.ask(&json!({"type": "presence", "id": 2, "topic": "rooms/free"}));
    assert_eq!(
        present["members"][0]["verified"],
        json!({"seat": 7}),
        "{present}"
    );
    peer.subscribe("rooms/1");
    peer.subscribe_pattern("rooms/*");
    let mut stream = EventStream::open(server.address(), "/sse/rooms/2");
    let of = |name: &str| {
        let asked = asked_at(&app, "/umbel/subscribe");
        let asked = asked
            .iter()
            .filter(|it| it["topic"] == name || it["pattern"] == name);
        asked.count()
    };
    for name in ["rooms/1", "rooms/*", "rooms/2"] {
        wait_until("it is asked again", || of(name) == 2);
    }
    // It may no more, or it is not known whether: the end.
    app.react(|asked| match asked.path() {
        "/umbel/subscribe" if asked.json()["topic"] == "rooms/1" => Reaction::status(403),
        "/umbel/subscribe" => Reaction::status(500),
        _ => lets_in(asked),
    });
    let ended = [
        next_of(&mut peer, "unsubscribed"),
        next_of(&mut peer, "unsubscribed"),
    ];
    for target in [json!({"topic": "rooms/1"}), json!({"pattern": "rooms/*"})] {
        let is_told = |it: &&Value| {
            it["code"] == "expired"
                && target
                    .as_object()
                    .is_some_and(|target| target.iter().all(|(name, value)| it[name] == *value))
        };
        assert_eq!(
            ended.iter().filter(is_told).count(),
            1,
            "{target}: {ended:?}"
        );
    }
    loop {
        match stream.next() {
            Block::Event(kind, _) if kind == "expired" => break,
            Block::End => panic!("it ends behind the event"),
            _ => {}
        }
    }
    assert_eq!(of("rooms/free"), 2, "for it and for its members");
    peer.ask(&json!({"type": "ping", "id": 9}));
}

/// Lets in for two seconds, and says this of a refresh.
fn refreshing(refresh: impl Fn(&Asked) -> Reaction + Send + Sync + 'static) -> App {
    App::start(move |asked| match asked.path() {
        "/umbel/refresh" => refresh(asked),
        _ => Reaction::json(
            200,
            &format!(
                r#"{{"subject":"42","subscribe":["**"],"meta":{{"t":1}},"expires_at":{}}}"#,
                now_s() + 2
            ),
        ),
    })
}

#[test]
fn identities_go_on_with_what_the_application_says() {
    let app = refreshing(|_| {
        Reaction::json(
            200,
            &format!(
                r#"{{"subject":"42","subscribe":["rooms/*"],"join":["rooms/new"],"expires_at":{}}}"#,
                now_s() + 60
            ),
        )
    });
    let server = start(&app, "connect,refresh", &[]);
    let mut peer = Peer::open(server.address()).welcomed();
    peer.subscribe("rooms/1");
    peer.subscribe("other");
    let mut stream = EventStream::open(server.address(), "/sse/rooms/2");
    let mut lost = EventStream::open(server.address(), "/sse/other");
    let ended = next_of(&mut peer, "unsubscribed");
    assert_eq!(
        (&ended["topic"], &ended["code"]),
        (&json!("other"), &json!("forbidden"))
    );
    let joined = next_of(&mut peer, "subscribed");
    assert_eq!(joined["topic"], "rooms/new");
    wait_until("each is asked about", || {
        asked_at(&app, "/umbel/refresh").len() == 3
    });
    let question = &asked_at(&app, "/umbel/refresh")[0];
    assert_eq!(
        (&question["subject"], &question["meta"]),
        (&json!("42"), &json!({"t": 1}))
    );
    while !matches!(lost.next(), Block::End) {}
    // Beyond the former end and half of the grace nobody is closed.
    std::thread::sleep(Duration::from_millis(1500));
    peer.ask(&json!({"type": "ping", "id": 9}));
    peer.subscribe("rooms/3");
    assert!(matches!(stream.next(), Block::Comment | Block::Event(..)));
}

#[test]
fn identities_end_by_the_word_of_the_application() {
    let cases = [
        (Reaction::json(401, r#"{"reason":"log in again"}"#), 4401),
        (Reaction::json(403, r#"{"reason":"banned"}"#), 4403),
        (
            Reaction::json(200, r#"{"subject":"43","subscribe":["**"]}"#),
            4401,
        ),
        (Reaction::status(204), 4401),
    ];
    let ends = cases.map(|(refresh, code)| {
        std::thread::spawn(move || {
            let what = format!("{refresh:?}");
            let app = refreshing(move |_| refresh.clone());
            let server = start(&app, "connect,refresh", &[]);
            let mut peer = Peer::open(server.address()).welcomed();
            next_of(&mut peer, "expiring");
            assert_eq!(peer.close_code(), code, "{what}");
        })
    });
    for end in ends {
        end.join().expect("it ended as it should");
    }
}

#[test]
fn identities_end_without_an_answer() {
    let app = refreshing(|_| Reaction::Answer(503, "Retry-After: 0\r\n".into(), String::new()));
    let server = start(&app, "connect,refresh", &["--token-grace-ms", "200"]);
    let mut peer = Peer::open(server.address()).welcomed();
    next_of(&mut peer, "expiring");
    assert_eq!(peer.close_code(), 4401);
    assert!(asked_at(&app, "/umbel/refresh").len() > 1);
}
