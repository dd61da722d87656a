//! The control API, as an operator's program meets it.

#[path = "control_api/client.rs"]
mod client;
#[path = "control_api/figures.rs"]
mod figures;
#[path = "config_file/file.rs"]
mod file;
#[path = "control_api/identities.rs"]
mod identities;
#[path = "control_api/pages.rs"]
mod pages;
#[path = "control_api/resent.rs"]
mod resent;
mod support;
#[path = "control_api/traces.rs"]
mod traces;

use std::time::Instant;

use client::{Api, finish, start};
use serde_json::{Value, json};
use support::peers::{Block, EventStream, Http, Incoming, WebSocket};
use support::umbel_v1::{Peer, text};
use support::{PATIENCE, Server, wait_until};
use umbel::{CloseCode, Filter, Message, Selector};

#[test]
fn connections_by_pages_and_filters() {
    let server = start();
    let mut api = Api::of(server.address, "operator");
    let mut peers: Vec<Peer> = (0..5).map(|_| Peer::open(server.address)).collect();
    for (at, peer) in peers.iter_mut().enumerate() {
        peer.subscribe(&format!("rooms/{at}"));
    }
    let _raw = WebSocket::open(server.address, "/ws/rooms/1");
    let _stream = EventStream::open(server.address, "/sse/rooms/2");
    let all = api.connections("");
    let mut names: Vec<&str> = all
        .iter()
        .filter_map(|row| row["connection"].as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    // The one that asks is among them.
    assert_eq!((all.len(), names.len()), (8, 8), "{all:?}");
    for (query, count) in [
        ("&dialect=umbel.v1", 5),
        ("&dialect=raw", 1),
        ("&dialect=sse", 1),
        ("&dialect=none", 0),
        ("&topic=rooms%2F1", 2),
        ("&topic=rooms%2F1&dialect=raw", 1),
        ("&topic=rooms%2F9", 0),
        ("&peer=127.0.0.0%2F8", 8),
        ("&peer=127.0.0.1", 8),
        ("&peer=10.0.0.0%2F8", 0),
        ("&subject=42", 0),
    ] {
        assert_eq!(api.connections(query).len(), count, "{query}");
    }
    let row = &api.connections("&topic=rooms%2F3")[0];
    let shown = api.get(&format!(
        "/connections/{}",
        row["connection"].as_str().expect("a name")
    ));
    assert_eq!(shown["topics"], json!(["rooms/3"]));
    let before = shown["positions"]["rooms/3"].as_str().expect("a position");
    assert!(before.ends_with(":0"), "{before}");
    let placed = api.post("/publish", &json!({"topic": "rooms/3", "data": 1}));
    let placed = format!("{}:{}", text(&placed["epoch"]), placed["offset"]);
    let path = format!("/connections/{}", text(&row["connection"]));
    assert_eq!(api.get(&path)["positions"], json!({"rooms/3": placed}));
    assert_eq!(shown["peer"], "127.0.0.1");
    assert_eq!(shown["subscriptions"], 1);
    assert!(
        shown["opened_at_ms"].as_u64() > Some(1_700_000_000_000),
        "{shown}"
    );
    for name in ["0-0-99999", "9-0-0", "nobody"] {
        let error = api.error("GET", &format!("/connections/{name}"), None);
        assert_eq!(error, (404, "not_found".to_owned()), "{name}");
    }
    finish(server);
}

#[test]
fn disconnect_by_connection_and_peer() {
    let server = start();
    let mut api = Api::of(server.address, "operator");
    let mut gone = WebSocket::open(server.address, "/ws/rooms/1");
    let mut stays = Peer::open(server.address);
    stays.subscribe("rooms/2");
    let mut stream = EventStream::open(server.address, "/sse/rooms/3");
    let name = |api: &mut Api, topic: &str| {
        let rows = api.connections(&format!("&topic=rooms%2F{topic}"));
        rows[0]["connection"].as_str().expect("a name").to_owned()
    };
    let (first, kept) = (name(&mut api, "1"), name(&mut api, "2"));
    let closed = api.post(
        "/disconnect",
        &json!({"connection": first, "reason": "flood"}),
    );
    assert_eq!(closed, json!({"closed": 1}));
    assert_eq!(gone.next(), Incoming::Close(4403, "flood".to_owned()));
    gone.answer_close(4403);
    wait_until("it is gone", || {
        api.post("/disconnect", &json!({"connection": first})) == json!({"closed": 0})
    });
    // Whoever asks is told before its own connection ends.
    let body = json!({"peer": "127.0.0.0/8", "code": 4000, "except": [kept]});
    let closed = api.post("/disconnect", &body);
    assert!(closed["closed"].as_u64() >= Some(2), "{closed}");
    loop {
        match stream.next() {
            Block::End => break,
            _ => continue,
        }
    }
    stays.expect_nothing_before_pong();
    finish(server);
}

#[test]
fn thousand_connections_are_closed_at_once() {
    let server = start();
    let mut api = Api::of(server.address, "operator");
    let mut peers: Vec<WebSocket> = (0..1000)
        .map(|_| WebSocket::open(server.address, "/ws/crowd"))
        .collect();
    let begin = Instant::now();
    let closed = api.post("/disconnect", &json!({"peer": "127.0.0.1", "code": 1001}));
    println!("1,000 closed in {:?}", begin.elapsed());
    assert!(closed["closed"].as_u64() >= Some(1000), "{closed}");
    for peer in &mut peers {
        assert_eq!(peer.next(), Incoming::Close(1001, String::new()));
    }
    finish(server);
}

#[test]
fn subscriptions_are_ended_and_begun_for_others() {
    let server = start();
    let mut api = Api::of(server.address, "operator");
    let mut peer = Peer::open(server.address);
    peer.subscribe("rooms/1");
    peer.subscribe_pattern("news/*");
    let name = api.connections("&dialect=umbel.v1")[0]["connection"].clone();
    let who = |fields: Value| {
        let mut body = fields;
        body["connection"] = name.clone();
        body
    };
    let ended = api.post(
        "/unsubscribe",
        &who(json!({"topic": "rooms/1", "reason": "full"})),
    );
    assert_eq!(ended, json!({"unsubscribed": 1}));
    peer.expect(
        &json!({"type": "unsubscribed", "topic": "rooms/1", "code": "forbidden", "reason": "full"}),
    );
    assert_eq!(
        api.post("/unsubscribe", &who(json!({"topic": "rooms/1"}))),
        json!({"unsubscribed": 0})
    );
    let ended = api.post(
        "/unsubscribe",
        &who(json!({"pattern": "news/*", "code": "moved"})),
    );
    assert_eq!(ended, json!({"unsubscribed": 1}));
    peer.expect(&json!({"type": "unsubscribed", "pattern": "news/*", "code": "moved"}));
    assert_eq!(
        api.post("/subscribe", &who(json!({"topic": "rooms/2"}))),
        json!({"subscribed": 1})
    );
    assert_eq!(
        api.post("/subscribe", &who(json!({"topic": "rooms/2"}))),
        json!({"subscribed": 0})
    );
    let told = peer.next();
    assert_eq!(
        (&told["type"], &told["topic"]),
        (&json!("subscribed"), &json!("rooms/2"))
    );
    wait_until("it is present", || {
        api.get("/presence?topic=rooms%2F2")["total"] == 1
    });
    let members = api.get("/presence?topic=rooms%2F2");
    assert_eq!(members["members"][0]["connection"], name);
    api.post("/publish", &json!({"topic": "rooms/2", "data": "hello"}));
    assert_eq!(peer.publication().1, "hello");
    assert_eq!(
        api.post("/send", &who(json!({"data": {"only": "you"}}))),
        json!({"sent": 1})
    );
    peer.expect(&json!({"type": "message", "data": "{\"only\":\"you\"}"}));
    assert_eq!(
        api.post("/send", &who(json!({"base64": "AAE="}))),
        json!({"sent": 1})
    );
    peer.expect(&json!({"type": "message", "base64": "AAE="}));
    finish(server);
}

#[test]
fn topics_history_and_publishing() {
    let server = start();
    let mut api = Api::of(server.address, "operator");
    let placed = api.post(
        "/publish",
        &json!({"topic": "rooms/a", "data": "one", "key": "k"}),
    );
    assert_eq!(placed["offset"], 1);
    let many = api.post(
        "/publish",
        &json!({"topics": ["rooms/a", "rooms/b", "other"], "data": [2]}),
    );
    let offsets: Vec<_> = (0..3)
        .map(|at| many["results"][at]["offset"].as_u64())
        .collect();
    assert_eq!(offsets, [Some(2), Some(1), Some(1)], "{many}");
    let history = api.get("/history?topic=rooms%2Fa");
    assert_eq!(history["publications"][0]["data"], "one");
    assert_eq!(history["publications"][1]["data"], "[2]");
    let since = history["publications"][0]["position"]
        .as_str()
        .expect("a position");
    let rest = api.get(&format!("/history?topic=rooms%2Fa&since={since}"));
    assert_eq!(
        (
            rest["recovered"].clone(),
            rest["publications"].as_array().map(Vec::len)
        ),
        (json!(true), Some(1))
    );
    let names = |api: &mut Api, query: &str| -> Vec<String> {
        let (mut names, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = api.get(&format!("/topics?limit=1{query}{cursor}"));
            let topics = page["topics"].as_array().expect("a list").iter();
            names.extend(
                topics
                    .filter_map(|it| it["topic"].as_str())
                    .map(str::to_owned),
            );
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        names.sort_unstable();
        names
    };
    assert_eq!(names(&mut api, ""), ["rooms/a", "rooms/b"]);
    assert_eq!(names(&mut api, "&pattern=*%2Fb"), ["rooms/b"]);
    let stats = api.get("/stats");
    assert_eq!(stats["publications"], 4, "{stats}");
    assert_eq!(stats["reactors"].as_array().map(Vec::len), Some(2));
    for target in ["/history?topic=other", "/presence?topic=other"] {
        assert_eq!(
            api.error("GET", target, None),
            (404, "not_found".to_owned()),
            "{target}"
        );
    }
    finish(server);
}

#[test]
fn emptied_history_has_another_epoch() {
    let server = start();
    let mut api = Api::of(server.address, "operator");
    let mut peer = Peer::open(server.address);
    peer.subscribe("rooms/a");
    let placed = api.post("/publish", &json!({"topic": "rooms/a", "data": "one"}));
    assert_eq!(peer.publication().1, "one");
    let (answer, emptied) = api.ask("DELETE", "/history?topic=rooms%2Fa", None);
    assert_eq!(answer.status, 200, "{emptied}");
    let position = emptied["position"].as_str().expect("a position");
    let before = placed["epoch"].as_str().expect("an epoch");
    assert!(
        position.ends_with(":0") && !position.starts_with(before),
        "{emptied}"
    );
    let since = format!("/history?topic=rooms%2Fa&since={before}:1");
    let page = api.get(&since);
    assert_eq!(page["recovered"], false, "{page}");
    assert_eq!(page["publications"], json!([]));
    let next = api.post("/publish", &json!({"topic": "rooms/a", "data": "two"}));
    assert_eq!(next["offset"], 1);
    assert_eq!(peer.publication().1, "two");
    let page = api.get("/history?topic=rooms%2Fa");
    assert_eq!(page["publications"][0]["data"], "two");
    assert_eq!(api.error("DELETE", "/history?topic=rooms%2Fz", None).0, 404);
    finish(server);
}

#[test]
fn request_with_key_is_carried_out_once() {
    let server = start();
    let mut api = Api::of(server.address, "operator");
    let mut ask = |key: &str, body: &Value| {
        let body = body.to_string();
        let lines = format!(
            "Idempotency-Key: {key}\r\nContent-Length: {}\r\n",
            body.len()
        );
        let head = "POST /api/v1/disconnect HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer operator\r\n";
        let request = format!("{head}Content-Type: application/json\r\n{lines}\r\n{body}");
        api.http.send(request.as_bytes());
        api.http.answer().expect("an answer")
    };
    let body = |topic: &str| json!({"peer": "10.1.0.0/16", "reason": topic});
    let first = ask("k1", &body("a"));
    assert_eq!(
        (first.status, first.header("idempotency-replayed")),
        (200, None)
    );
    let again = ask("k1", &body("a"));
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(ask("k1", &body("b")).status, 422);
    assert_eq!(ask("k2", &body("b")).status, 200);
    // What was wrong is not remembered.
    assert_eq!(ask("k3", &json!({"peer": "x"})).status, 400);
    assert_eq!(ask("k3", &body("a")).status, 200);
    // Its body is not read, so the connection ends with it.
    assert_eq!(ask(&"k".repeat(256), &body("b")).status, 400);
    finish(server);
}

#[test]
fn denied_peer_is_closed_and_kept_away() {
    let server = start();
    let mut api = Api::of(server.address, "operator");
    let mut peer = WebSocket::open(server.address, "/ws/rooms/1");
    let denied = api.post("/deny", &json!({"peer": "10.0.0.0/8"}));
    assert_eq!(denied["value"], "10.0.0.0/8");
    assert_eq!(denied["persistent"], false);
    for (body, code) in [
        (json!({}), "missing_field"),
        (json!({"jti": "a", "peer": "::1"}), "invalid_field"),
        (json!({"peer": "x"}), "invalid_field"),
        (json!({"jti": "a", "issued_before": 1}), "invalid_field"),
        (json!({"jti": "a", "until": 1}), "invalid_field"),
    ] {
        assert_eq!(
            api.error("POST", "/deny", Some(&body)),
            (400, code.to_owned()),
            "{body}"
        );
    }
    let id = denied["id"].as_str().expect("an id").to_owned();
    assert_eq!(api.get("/deny")["denies"][0]["id"], json!(id));
    let (answer, _) = api.ask("DELETE", &format!("/deny/{id}"), None);
    assert_eq!(answer.status, 200);
    assert_eq!(api.error("DELETE", &format!("/deny/{id}"), None).0, 404);
    // Its own address is denied with that of all others.
    let closed = api.post(
        "/disconnect",
        &json!({"peer": "127.0.0.1", "deny_ms": 60_000}),
    );
    assert!(closed["closed"].as_u64() >= Some(1), "{closed}");
    assert_eq!(peer.next(), Incoming::Close(4403, String::new()));
    let mut http = Http::connect(server.address);
    assert_eq!(http.get("/topics").status, 403);
    finish(server);
}

#[test]
fn program_controls_connections() {
    let server = start();
    let mut first = Peer::open(server.address);
    first.subscribe("rooms/1");
    let mut second = Peer::open(server.address);
    second.subscribe("rooms/2");
    let mut filter = Filter::default();
    filter.dialect = Some("umbel.v1".to_owned());
    let page = server
        .handle
        .connections(&filter, None, 100, PATIENCE)
        .expect("an answer");
    let names: Vec<_> = page
        .connections
        .iter()
        .filter_map(|row| row.connection)
        .collect();
    assert_eq!((names.len(), page.next), (2, None));
    for name in names {
        server
            .handle
            .send(name, Message::Text("hello"))
            .expect("room");
    }
    for peer in [&mut first, &mut second] {
        peer.expect(&json!({"type": "message", "data": "hello"}));
    }
    let all = || Selector::Peer("127.0.0.0/8".parse().expect("a network"));
    server.handle.unsubscribe(all(), "rooms/1").expect("room");
    first.expect(&json!({"type": "unsubscribed", "topic": "rooms/1", "code": "forbidden"}));
    server
        .handle
        .disconnect(all(), CloseCode::new(4001), "bye")
        .expect("room");
    assert_eq!((first.close_code(), second.close_code()), (4001, 4001));
    finish(server);
}

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    let server = start();
    let mut api = Api::of(server.address, "operator");
    let (answer, value) = api.ask("POST", "/disconnect", Some(&json!({"subjct": "42"})));
    let reason = "there is no field \"subjct\"; did you mean \"subject\"?";
    let error = json!({"error": {"code": "invalid_field", "field": "subjct", "reason": reason}});
    assert_eq!((answer.status, value), (400, error));
    for (body, code) in [
        (json!({}), "missing_field"),
        (json!({"subject": "a", "peer": "::1"}), "invalid_field"),
        (json!({"subject": 5}), "invalid_field"),
        (json!({"subject": "a", "code": 1002}), "invalid_field"),
        (json!({"subject": "a", "code": -1}), "invalid_field"),
        (
            json!({"subject": "a", "reason": "x".repeat(124)}),
            "invalid_field",
        ),
        (json!({"subject": "a", "except": ["x"]}), "invalid_field"),
        (json!({"peer": "10.0.0.0/33"}), "invalid_field"),
        (json!({"connection": "a"}), "invalid_field"),
        (json!([]), "invalid_json"),
    ] {
        let error = api.error("POST", "/disconnect", Some(&body));
        assert_eq!(error, (400, code.to_owned()), "{body}");
    }
    for (method, target, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/disconnect", 405),
        ("DELETE", "/stats", 405),
        ("GET", "/stats?x=1", 400),
        ("GET", "/connections?limit=0", 400),
        ("GET", "/connections?cursor=x", 400),
        ("GET", "/connections?topic=", 400),
        ("GET", "/topics?pattern=a%2F%2F", 400),
        ("GET", "/history", 400),
    ] {
        assert_eq!(
            api.error(method, target, None).0,
            status,
            "{method} {target}"
        );
    }
    let big = json!({"subject": "a", "reason": "x".repeat(300_000)});
    assert_eq!(
        api.error("POST", "/disconnect", Some(&big)),
        (413, "too_large".to_owned())
    );
    let mut http = Http::connect(server.address);
    let head =
        "POST /api/v1/disconnect HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer operator\r\n";
    http.send(
        format!("{head}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes(),
    );
    assert_eq!(http.answer().map(|answer| answer.status), Some(415));
    finish(server);
}

#[test]
fn rights_by_route() {
    let server = start();
    for (method, target, body, statuses) in [
        ("GET", "/stats", None, [401, 403, 403, 200, 200]),
        ("GET", "/topics", None, [401, 403, 403, 200, 200]),
        (
            "GET",
            "/history?topic=rooms%2Fa",
            None,
            [401, 403, 200, 200, 200],
        ),
        ("GET", "/connections", None, [401, 403, 403, 403, 200]),
        ("GET", "/connections/0-0-0", None, [401, 403, 403, 403, 404]),
        (
            "POST",
            "/disconnect",
            Some(json!({"subject": "a"})),
            [401, 403, 403, 403, 200],
        ),
        (
            "POST",
            "/unsubscribe",
            Some(json!({"subject": "a", "topic": "rooms/a"})),
            [401, 403, 200, 403, 200],
        ),
        (
            "POST",
            "/unsubscribe",
            Some(json!({"subject": "a", "topic": "rooms/b"})),
            [401, 403, 403, 403, 200],
        ),
        (
            "POST",
            "/publish",
            Some(json!({"topic": "rooms/a", "data": 1})),
            [401, 403, 200, 403, 200],
        ),
        ("GET", "/openapi.json", None, [200, 200, 200, 200, 200]),
    ] {
        let tokens = ["", "nobody", "host", "viewer", "operator"];
        for (token, status) in tokens.into_iter().zip(statuses) {
            let mut api = Api::of(server.address, token);
            let (answer, value) = api.ask(method, target, body.as_ref());
            // A page that the machine was too slow for is no matter of rights.
            if answer.status != 503 {
                assert_eq!(answer.status, status, "{method} {target} {token}: {value}");
            }
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    finish(server);
}

#[test]
fn open_server_shows_and_changes_nothing() {
    let server = Server::start(&[]);
    let mut http = Http::connect(server.address());
    assert_eq!(http.get("/api/v1/stats").status, 200);
    let lines = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 15";
    let request =
        format!("POST /api/v1/disconnect HTTP/1.1\r\n{lines}\r\n\r\n{{\"subject\":\"a\"}}");
    http.send(request.as_bytes());
    let answer = http.answer().expect("an answer");
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, 403, "{body}");
    assert!(body.contains("umbel token new"), "{body}");
    let mut http = Http::connect(server.address());
    let answer = http.get("/api/v1/connections");
    assert_eq!(answer.status, 403);
}

/// Reactors that have nothing to do begin to close as soon as they are told.
#[test]
fn idle_reactors_close_at_once() {
    let server = start();
    let mut api = Api::of(server.address, "operator");
    let mut sockets: Vec<_> = (0..8)
        .map(|_| WebSocket::open(server.address, "/ws/a"))
        .collect();
    let began = Instant::now();
    api.post("/drain", &json!({"on": true, "close_per_second": 1000}));
    for socket in &mut sockets {
        assert!(matches!(socket.next(), Incoming::Close(1001, _)));
    }
    assert!(began.elapsed().as_millis() < 700, "{:?}", began.elapsed());
    finish(server);
}

#[test]
fn out_of_service_and_back() {
    let server = start();
    let mut api = Api::of(server.address, "operator");
    let ready = |api: &mut Api| api.http.get("/ready").status;
    assert_eq!(ready(&mut api), 200);
    let answer = api.post("/drain", &json!({"on": true}));
    assert_eq!(
        (&answer["on"], &answer["ready"], &answer["close_per_second"]),
        (&json!(true), &json!(false), &json!(0))
    );
    assert_eq!(ready(&mut api), 503);
    let mut sockets: Vec<_> = (0..4)
        .map(|_| WebSocket::open(server.address, "/ws/a"))
        .collect();
    let began = Instant::now();
    api.post("/drain", &json!({"on": true, "close_per_second": 20}));
    for socket in &mut sockets {
        let close = socket.next();
        assert!(
            matches!(&close, Incoming::Close(1001, reason) if reason.contains("retry=")),
            "{close:?}"
        );
    }
    // Two reactors share the pace: none of them closes four in less than a tenth of a second.
    assert!(began.elapsed().as_millis() >= 40, "{:?}", began.elapsed());
    let answer = api.post("/drain", &json!({"on": false}));
    assert_eq!(answer["ready"], true);
    assert_eq!(ready(&mut api), 200);
    let mut stays = WebSocket::open(server.address, "/ws/a");
    server
        .handle
        .publish("a", Message::Text("on"))
        .expect("room");
    assert_eq!(stays.text(), "on");
    for body in [
        json!({}),
        json!({"on": 1}),
        json!({"on": false, "close_per_second": 1}),
    ] {
        assert_eq!(api.error("POST", "/drain", Some(&body)).0, 400, "{body}");
    }
    finish(server);
}
