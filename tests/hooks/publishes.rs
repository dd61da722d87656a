//! The hook and publishes: whoever publishes, in whatever way, the application sees it first.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::app::{App, Asked, Reaction};
use crate::support::peers::{EventStream, Incoming, WebSocket};
use crate::support::umbel_v1::Peer;
use crate::support::{Server, wait_until};

/// Lets all in, and says of each message what its text asks for.
fn editor(asked: &Asked) -> Reaction {
    let body = asked.json();
    if asked.path() != "/umbel/publish" {
        return Reaction::json(
            200,
            r#"{"subject":"42","subscribe":["**"],"publish":["free"]}"#,
        );
    }
    match body["data"].as_str() {
        Some("bad") => Reaction::json(403, r#"{"reason":"not such words"}"#),
        Some("drop") => Reaction::json(200, r#"{"skip":true}"#),
        Some("shout") => Reaction::json(200, r#"{"data":"SHOUT"}"#),
        Some("value") => Reaction::json(200, r#"{"data":{"a":1}}"#),
        Some("late") => Reaction::Answer(503, "Retry-After: 3\r\n".into(), String::new()),
        Some("odd") => Reaction::json(200, r#"{"topic":"elsewhere"}"#),
        Some(_) => Reaction::status(204),
        None => Reaction::json(200, r#"{"base64":"AAEC"}"#),
    }
}

fn start(app: &App, flags: &[&str]) -> Server {
    let url = app.url("/umbel");
    let all = [
        "--hook-url",
        &url,
        "--hook-events",
        "connect,publish,disconnected",
        "--hook-topics",
        "rooms/**",
        "--origin",
        "localhost",
        "--observe",
        "anyone",
        "--publish",
        "nobody",
        "--subscribe",
        "nobody",
    ];
    Server::start(&[&all[..], flags].concat())
}

fn publishes(app: &App) -> Vec<Value> {
    let asked = app.asked();
    let asked = asked.iter().filter(|it| it.path() == "/umbel/publish");
    asked.map(Asked::json).collect()
}

fn open(server: &Server) -> Peer {
    Peer::open(server.address()).welcomed()
}

#[test]
fn application_sees_what_umbel_v1_publishes() {
    let app = App::start(editor);
    let server = start(&app, &[]);
    let mut reader = EventStream::open(server.address(), "/sse/rooms/1");
    let mut peer = open(&server);
    let publish = |id: u32, topic: &str, data: &str| json!({"type": "publish", "id": id, "topic": topic, "data": data});
    peer.send(&json!([
        publish(1, "rooms/1", "one"),
        publish(2, "rooms/1", "bad"),
        publish(3, "rooms/1", "drop"),
        publish(4, "rooms/1", "shout"),
        publish(5, "rooms/1", "value"),
        publish(6, "rooms/1", "late"),
        publish(7, "rooms/1", "odd"),
        {"type": "publish", "id": 8, "topic": "rooms/1", "base64": "/w==", "key": "k"},
        publish(9, "free", "not asked"),
        publish(10, "other", "forbidden"),
    ]));
    let replies: Vec<Value> = (0..10).map(|_| peer.next()).collect();
    let of = |id: u32| {
        replies
            .iter()
            .find(|it| it["id"] == id)
            .expect("each is answered")
    };
    for id in [1, 4, 5, 8, 9] {
        assert!(of(id)["position"].is_string(), "{}", of(id));
    }
    assert_eq!(
        (&of(3)["type"], &of(3)["skipped"]),
        (&json!("published"), &json!(true))
    );
    assert_eq!(of(3).get("position"), None);
    for (id, code) in [
        (2, "forbidden"),
        (6, "unavailable"),
        (7, "unavailable"),
        (10, "forbidden"),
    ] {
        assert_eq!(of(id)["code"], code, "{id}: {}", of(id));
    }
    assert!(of(2).to_string().contains("not such words"));
    let told: Vec<String> = (0..4).map(|_| reader.data()).collect();
    assert_eq!(told, ["one", "SHOUT", r#"{"a":1}"#, "AAEC"]);
    let asked = publishes(&app);
    assert_eq!(asked.len(), 8, "nor is it asked about other topics");
    let first = &asked[0];
    assert_eq!(
        (&first["topic"], &first["kind"], &first["data"]),
        (&json!("rooms/1"), &json!("text"), &json!("one"))
    );
    assert_eq!(first["subject"], "42");
    assert_eq!(
        (&first["dialect"], &first["peer"], &first["tls"]),
        (&json!("umbel.v1"), &json!("127.0.0.1"), &json!(false))
    );
    let last = &asked[7];
    assert_eq!(
        (&last["kind"], &last["base64"], &last["key"]),
        (&json!("binary"), &json!("/w=="), &json!("k"))
    );
    assert!(last.get("data").is_none());
}

#[test]
fn order_of_publishes_behind_a_slow_answer() {
    let app = App::start(|asked| {
        if asked.path() == "/umbel/publish" {
            // The first ones take the longest.
            let number: u64 = asked.json()["data"]
                .as_str()
                .and_then(|it| it.parse().ok())
                .unwrap_or(9);
            // The first is answered last.
            thread::sleep(Duration::from_millis(40_u64.saturating_sub(number * 10)));
        }
        editor(asked)
    });
    let server = start(&app, &[]);
    let mut reader = EventStream::open(server.address(), "/sse/rooms/1");
    let mut raw = WebSocket::open(server.address(), "/ws/rooms/1");
    for number in 0..6 {
        raw.send_text(&number.to_string());
    }
    let told: Vec<String> = (0..6).map(|_| reader.data()).collect();
    assert_eq!(told, ["0", "1", "2", "3", "4", "5"]);
    // What it publishes comes back to it too.
    for number in 0..6 {
        assert_eq!(raw.next(), Incoming::Text(number.to_string()));
    }
}

#[test]
fn raw_peers_are_closed_for_what_they_may_not_publish() {
    let app = App::start(editor);
    let server = start(&app, &[]);
    for (data, code) in [("bad", 1008), ("late", 1013), ("odd", 1013)] {
        let mut raw = WebSocket::open(server.address(), "/ws/rooms/1");
        raw.send_text("drop");
        raw.send_text("good");
        assert_eq!(raw.next(), Incoming::Text("good".into()));
        raw.send_text(data);
        match raw.next() {
            Incoming::Close(told, _) => assert_eq!(told, code, "{data}"),
            other => panic!("{data}: {other:?}"),
        }
    }
    // Whoever only reads needs no right to publish, and is not asked about.
    let before = publishes(&app).len();
    let _reader = WebSocket::open(server.address(), "/ws/rooms/2");
    assert_eq!(publishes(&app).len(), before);
}

#[test]
fn requests_are_asked_about_whole() {
    let app = App::start(editor);
    let server = start(&app, &[]);
    let mut reader = EventStream::open(server.address(), "/sse/rooms/1");
    let post = |target: &str, body: &str| {
        server.request(&format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    for (body, status) in [
        ("one", 200),
        ("shout", 200),
        ("bad", 403),
        ("late", 503),
        ("odd", 503),
    ] {
        assert_eq!(post("/pub/rooms/1", body).status, status, "{body}");
    }
    let skipped = post("/pub/rooms/1", "drop");
    assert_eq!(
        (skipped.status, skipped.text().trim()),
        (200, r#"{"skipped":true}"#)
    );
    let line = |data: &str| json!({"topic": "rooms/1", "data": data}).to_string();
    let lines = ["two", "drop", "bad", "shout"].map(line).join("\n");
    let answered = post("/pub", &lines);
    assert_eq!(answered.status, 200, "{}", answered.text());
    let answers: Vec<Value> = answered
        .text()
        .lines()
        .map(|it| serde_json::from_str(it).expect("JSON"))
        .collect();
    assert_eq!(answers.len(), 4);
    assert!(
        answers[0]["offset"].is_u64() && answers[3]["offset"].is_u64(),
        "{answers:?}"
    );
    assert_eq!(
        (&answers[1]["skipped"], &answers[2]["status"]),
        (&json!(true), &json!(403))
    );
    let all_dropped = post("/pub", &["drop", "drop"].map(line).join("\n"));
    assert_eq!(all_dropped.status, 200, "{}", all_dropped.text());
    let told: Vec<String> = (0..4).map(|_| reader.data()).collect();
    assert_eq!(told, ["one", "SHOUT", "two", "SHOUT"]);
    // A request asks about 64 of its lines, and no more.
    let many = vec![line("drop"); 70].join("\n");
    let answered = post("/pub", &many);
    assert_eq!(answered.status, 200, "{}", answered.text());
    assert_eq!(answered.text().matches("\"skipped\":true").count(), 64);
    assert_eq!(answered.text().matches("\"status\":503").count(), 6);
}

#[test]
fn nothing_is_published_without_an_answer() {
    let app = App::start(editor);
    let server = start(
        &app,
        &["--hook-timeout-ms", "300", "--hook-queue-bytes-max", "4096"],
    );
    let mut peer = open(&server);
    let mut reader = EventStream::open(server.address(), "/sse/rooms/1");
    let reader_of_others = &mut EventStream::open(server.address(), "/sse/free");
    let elsewhere = App::start(|_| Reaction::status(204));
    let redirect = format!("Location: {}\r\n", elsewhere.url("/publish"));
    for (what, reaction) in [
        ("redirects", Reaction::Answer(307, redirect, String::new())),
        ("hangs", Reaction::Hang(Duration::from_secs(5))),
        ("breaks off", Reaction::BreakOff),
        ("floods", Reaction::Flood),
        ("fails", Reaction::json(500, "{}")),
        ("is not JSON", Reaction::json(200, "<html>")),
    ] {
        app.react(move |_| reaction.clone());
        let begun = Instant::now();
        let publish = json!({"type": "publish", "id": 1, "topic": "rooms/1", "data": what});
        assert_eq!(peer.error(&publish), "unavailable", "{what}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{what}");
    }
    assert!(elsewhere.asked().is_empty(), "no redirect is followed");
    // Its bytes have a bound, and what is longer is not asked about.
    app.react(editor);
    let asked = publishes(&app).len();
    let long = json!({"type": "publish", "id": 2, "topic": "rooms/1", "data": "x".repeat(5000)});
    assert_eq!(peer.error(&long), "unavailable");
    assert_eq!(publishes(&app).len(), asked);
    // While it thinks about one connection, the others go on, and that one gets what is published meanwhile.
    app.react(|asked| match asked.path() {
        "/umbel/publish" => Reaction::Hang(Duration::from_secs(5)),
        _ => editor(asked),
    });
    peer.subscribe("free");
    let mut other = open(&server);
    peer.send(&json!({"type": "publish", "id": 3, "topic": "rooms/1", "data": "waits"}));
    wait_until("it is asked", || publishes(&app).len() > asked);
    assert!(server.metric("umbel_hook_bytes") >= "waits".len() as f64);
    let begun = Instant::now();
    other.publish("free", "goes on");
    assert_eq!(reader_of_others.data(), "goes on");
    assert!(
        begun.elapsed() < Duration::from_millis(250),
        "{:?}",
        begun.elapsed()
    );
    let told = [peer.next(), peer.next()];
    assert!(told.iter().any(|it| it["data"] == "goes on"), "{told:?}");
    assert!(
        told.iter().any(|it| it["code"] == "unavailable"),
        "{told:?}"
    );
    app.react(editor);
    peer.publish("rooms/1", "at last");
    assert_eq!(reader.data(), "at last");
    wait_until("nothing is held", || {
        server.metric("umbel_hook_bytes") == 0.0
    });
}

#[test]
fn application_hears_of_ends() {
    let app = App::start(editor);
    let server = start(&app, &[]);
    let mut peer = open(&server);
    let raw = WebSocket::open(server.address(), "/ws/free");
    let stream = EventStream::open(server.address(), "/sse/free");
    peer.subscribe("free");
    drop((peer, raw, stream));
    let ends = || {
        let asked = app.asked();
        let asked = asked.iter().filter(|it| it.path() == "/umbel/disconnected");
        let ends = asked.flat_map(|it| {
            it.json()["connections"]
                .as_array()
                .cloned()
                .expect("a list")
        });
        ends.collect::<Vec<Value>>()
    };
    wait_until("three ends", || ends().len() == 3);
    for end in ends() {
        assert_eq!(
            (&end["subject"], &end["peer"]),
            (&json!("42"), &json!("127.0.0.1")),
            "{end}"
        );
        assert!(
            end["connection"].is_string() && end["code"].is_u64() && end["at_ms"].is_u64(),
            "{end}"
        );
    }
    // It is told again until it hears it.
    app.react(|asked| match asked.path() {
        "/umbel/disconnected" => Reaction::status(503),
        _ => editor(asked),
    });
    drop(open(&server));
    wait_until("it was told", || ends().len() >= 4);
    app.react(editor);
    let label = "umbel_hook_total{event=\"disconnected\",result=\"allowed\"}";
    wait_until("it has heard", || server.metric(label) == 4.0);
}
