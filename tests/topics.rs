//! `GET /topics` from outside: topics with their positions and numbers of subscribers.

#[path = "support/node.rs"]
mod node;
mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use umbel::config::Limits;
use umbel::internals::connection::CloseReason;
use umbel::internals::http::refusal::Refusal;
use umbel::internals::hub::Command;

use support::frames::text;
use support::peers::{EventStream, Http, WebSocket, connect, reset};
use support::wire::upgrade_request;
use support::{Response, Server, Wire, wait_until};

const RULES: &str = "kept/** history=3 presence=on";

fn get(server: &Server, target: &str) -> Response {
    server.request(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

fn json(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    serde_json::from_str(response.text()).expect("JSON")
}

/// Description of one topic; None: 404.
fn topic(server: &Server, target: &str) -> Option<Value> {
    let response = get(server, &format!("/topics/{target}"));
    (response.status != 404).then(|| json(&response))
}

/// A connection of `umbel.v1` that subscribes to these topics, and has been told so.
fn subscribe_many(server: &Server, names: &[String]) -> Wire {
    let mut wire = server.connect();
    let request = upgrade_request("/ws", "Sec-WebSocket-Protocol: umbel.v1\r\n");
    wire.send(request.as_bytes());
    assert_eq!(wire.read_response().status, 101);
    for names in names.chunks(500) {
        let commands = names
            .iter()
            .enumerate()
            .map(|(id, name)| format!(r#"{{"type":"subscribe","id":{id},"topic":{name:?}}}"#));
        let commands = commands.collect::<Vec<_>>().join(",");
        wire.send(&text(&format!("[{commands}]")));
        // The answers come in the order of the shards, and those who are present are told of each other.
        let mut answers = 0;
        while answers < names.len() {
            let frame = wire.read_frame();
            answers += usize::from(frame.payload.starts_with(br#"{"type":"subscribed""#));
        }
    }
    wire
}

/// All topics by name, page by page.
fn walk(server: &Server, limit: usize) -> BTreeMap<String, Value> {
    let mut topics = BTreeMap::new();
    let mut target = format!("/topics?limit={limit}");
    loop {
        let page = json(&get(server, &target));
        let listed = page["topics"].as_array().expect("a list");
        assert!(listed.len() <= limit);
        for topic in listed {
            let name = topic["topic"].as_str().expect("a name").to_owned();
            let before = topics.insert(name, topic.clone());
            assert_eq!(before, None, "it is listed twice");
        }
        let Some(next) = page.get("next") else {
            return topics;
        };
        assert!(!listed.is_empty(), "a page of a full table is not empty");
        let next = next.as_str().expect("a cursor");
        target = format!("/topics?limit={limit}&cursor={next}");
    }
}

fn publish_to(server: &Server, names: &[String]) {
    for names in names.chunks(1000) {
        let lines = names
            .iter()
            .map(|name| format!("{{\"topic\":{name:?},\"data\":\"x\"}}\n"));
        let body: String = lines.collect();
        let response = server.request(&format!(
            "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(response.status, 200);
        assert!(!response.text().contains("error"), "{}", response.text());
    }
}

#[test]
fn pages_list_each_topic_once() {
    let server = Server::start(&["--topic-rule", RULES]);
    let kept: Vec<String> = (0..2500).map(|number| format!("kept/{number}")).collect();
    let plain: Vec<String> = (0..2000).map(|number| format!("plain/{number}")).collect();
    publish_to(&server, &kept);
    // One connection for each thousand of topics, and one more for the first: wherever they land.
    let _subscribers = [
        subscribe_many(&server, &plain[..1000]),
        subscribe_many(&server, &plain[1000..]),
        subscribe_many(&server, &plain[..1000]),
        subscribe_many(&server, &kept[..1000]),
    ];
    for limit in [1000, 137, 10_000] {
        let topics = walk(&server, limit);
        assert_eq!(topics.len(), kept.len() + plain.len());
        for (number, name) in kept.iter().enumerate() {
            let topic = &topics[name];
            let subscribers = u64::from(number < 1000);
            assert_eq!(topic["subscribers"], subscribers, "{topic}");
            assert_eq!(topic["present"], subscribers, "{topic}");
            assert_eq!(topic["history"]["publications"], 1, "{topic}");
            assert!(topic["position"].as_str().expect("text").ends_with(":1"));
        }
        for (number, name) in plain.iter().enumerate() {
            let topic = &topics[name];
            assert_eq!(
                topic["subscribers"],
                1 + u64::from(number < 1000),
                "{topic}"
            );
            assert!(topic.get("history").is_none() && topic.get("present").is_none());
            assert!(topic["position"].as_str().expect("text").ends_with(":0"));
        }
    }
    assert_eq!(server.metric("umbel_history_publications"), 2500.0);
    assert!(server.metric("umbel_history_bytes") > 2500.0 * 100.0);
    assert_eq!(server.metric("umbel_hub_topics"), 4500.0);
}

#[test]
fn subscribers_of_all_dialects_and_reactors() {
    let server = Server::start(&["--topic-rule", RULES, "--reactors", "3"]);
    assert_eq!(topic(&server, "kept/a?x=1"), None);
    let raw: Vec<_> = (0..7)
        .map(|_| WebSocket::open(server.address(), "/ws/kept/a?x=1&token=t"))
        .collect();
    let streams: Vec<_> = (0..4)
        .map(|_| EventStream::open(server.address(), "/sse/kept/a?x=1"))
        .collect();
    let names = ["kept/a?x=1".to_owned(), "other".to_owned()];
    let many: Vec<_> = (0..5).map(|_| subscribe_many(&server, &names)).collect();
    // Who subscribes by a pattern is not counted.
    let mut pattern = subscribe_many(&server, &[]);
    pattern.send(&text(r#"{"type":"subscribe","id":1,"pattern":"**"}"#));
    pattern.read_frame();
    let shown = topic(&server, "kept/a?x=1&last=5").expect("it has subscribers");
    assert_eq!(shown["topic"], "kept/a?x=1");
    assert_eq!(shown["subscribers"], 16);
    assert_eq!(shown["present"], 16);
    assert_eq!(shown["history"]["publications"], 0);
    for _ in 0..5 {
        server.publish("kept/a?x=1", "text/plain", b"hello");
    }
    let shown = topic(&server, "kept/a?x=1").expect("it has subscribers");
    assert_eq!(shown["history"]["publications"], 3);
    assert!(shown["history"]["bytes"].as_u64().expect("a number") > 3 * 5);
    assert!(shown["position"].as_str().expect("text").ends_with(":5"));
    assert_eq!(
        topic(&server, "other").expect("it is there")["subscribers"],
        5
    );
    assert_eq!(topic(&server, "kept/a"), None);
    drop((raw, streams, many));
    wait_until("those that left are not counted", || {
        topic(&server, "kept/a?x=1").expect("its history keeps it")["subscribers"] == 0
    });
    wait_until("a topic that nothing keeps goes", || {
        topic(&server, "other").is_none()
    });
}

#[test]
fn limit_and_cursor_parameters() {
    let server = Server::start(&["--topics-listed-max", "5"]);
    let names: Vec<String> = (0..12).map(|number| format!("t{number}")).collect();
    let _subscriber = subscribe_many(&server, &names);
    let whole = get(&server, "/topics/t1");
    let head = server.request("HEAD /topics/t1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(head.status, 200);
    assert_eq!(
        head.header("content-length"),
        whole.header("content-length")
    );
    assert_eq!(
        (head.body.len(), whole.header("content-length")),
        (0, Some(&*whole.body.len().to_string()))
    );
    let head = server.request("HEAD /topics/none HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(head.status, 404);
    let page = json(&get(&server, "/topics"));
    assert_eq!(page["topics"].as_array().expect("a list").len(), 5);
    assert_eq!(walk(&server, 5).len(), 12);
    assert_eq!(walk(&server, 1).len(), 12);
    for target in [
        "/topics?limit=6",
        "/topics?limit=0",
        "/topics?limit=+1",
        "/topics?limit=",
        "/topics?limit=1&limit=1",
        "/topics?cursor=",
        "/topics?cursor=0",
        "/topics?cursor=ffffffff00000000",
        "/topics?cursor=000000000000000x",
        "/topics/%00",
    ] {
        assert_eq!(get(&server, target).status, 400, "{target}");
    }
    // A place behind the end of the last shard is not wrong, for topics come and go.
    let page = json(&get(&server, "/topics?cursor=0000000bffffffff"));
    assert_eq!(page["topics"].as_array().expect("a list").len(), 0);
    assert!(page.get("next").is_none(), "{page}");
    assert_eq!(get(&server, "/topics/").status, 404);
    for method in ["POST", "PUT", "DELETE"] {
        for target in ["/topics", "/topics/t1"] {
            let request = format!(
                "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
            );
            let response = server.request(&request);
            assert_eq!(
                (response.status, response.header("allow")),
                (405, Some("GET, HEAD"))
            );
        }
    }
    let page = "Origin: http://localhost:3000\r\n";
    for (target, status) in [("/topics", 200), ("/topics/t1", 200), ("/topics/none", 404)] {
        let response = server.request(&format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\n{page}\r\n"
        ));
        assert_eq!(response.status, status);
        let readable = response.header("access-control-allow-origin");
        assert_eq!(readable, Some("http://localhost:3000"), "{target}");
        let response = server.request(&format!(
            "OPTIONS {target} HTTP/1.1\r\nHost: localhost\r\n{page}Access-Control-Request-Method: GET\r\n\r\n"
        ));
        assert_eq!(response.status, 204);
        assert_eq!(
            response.header("access-control-allow-methods"),
            Some("GET, HEAD")
        );
    }
}

#[test]
fn listings_answered_in_order() {
    let server = Server::start(&[]);
    let names: Vec<String> = (0..50).map(|number| format!("t{number}")).collect();
    let _subscriber = subscribe_many(&server, &names);
    let mut wire = server.connect();
    let requests: Vec<String> = (0..60)
        .map(|number| match number % 3 {
            0 => "GET /topics?limit=7 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            1 => format!("GET /topics/t{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            _ => "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        })
        .collect();
    wire.send(requests.concat().as_bytes());
    for (number, request) in requests.iter().enumerate() {
        let response = wire.read_response_to(request);
        match number % 3 {
            0 => assert_eq!(json(&response)["topics"].as_array().map(Vec::len), Some(7)),
            1 if number < 50 => assert_eq!(json(&response)["topic"], format!("t{number}")),
            1 => assert_eq!(response.status, 404),
            _ => assert_eq!(response.text(), "ok\n"),
        }
    }
}

/// A peer that asks and leaves keeps nothing alive, and one that does not read harms nobody.
#[test]
fn listing_for_gone_or_slow_peer() {
    let server = Server::start(&[
        "--outbox-age-max-ms",
        "500",
        "--keep-alive-timeout-ms",
        "500",
    ]);
    let names: Vec<String> = (0..200).map(|number| format!("{number:0>250}")).collect();
    let _subscribers = [(); 2].map(|()| subscribe_many(&server, &names));
    let request = b"GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for round in 0..60 {
        let mut wire = server.connect();
        wire.send(request);
        if round % 2 == 0 {
            reset(wire.stream());
        }
    }
    let slow: Vec<Http> = (0..10)
        .map(|_| {
            let mut slow = Http::new(connect(server.address(), 4096));
            slow.send(&request.repeat(20));
            slow
        })
        .collect();
    assert_eq!(walk(&server, 1000).len(), names.len());
    wait_until(
        "the slow ones are cut off, and nobody is left but the subscribers",
        || {
            let metrics = server.metrics();
            let open: f64 = metrics
                .iter()
                .filter(|(name, _)| name.starts_with("umbel_connections"))
                .map(|(_, count)| count)
                .sum();
            // The scrape counts itself.
            open == 3.0
        },
    );
    drop(slow);
    for gauge in [
        "umbel_inbound_bytes",
        "umbel_outbox_bytes",
        "umbel_commands_queued",
    ] {
        assert_eq!(server.metric(gauge), 0.0, "{gauge}");
    }
}

/// Requests that were refused with 503.
fn unavailable(node: &node::Node) -> u64 {
    let label = Refusal::unavailable("").label;
    let index = Refusal::LABELS.iter().position(|known| *known == label);
    node.metrics
        .sum(|reactor| &reactor.refused[index.expect("a label")])
}

/// While nobody empties the mailbox, nothing that is asked of the hub is answered.
#[test]
fn listing_with_full_or_silent_hub() {
    let limits = Limits::default();
    let mut node = node::Node::new(&limits);
    let request = b"GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let waiting = node.accept(request.to_vec());
    let (mut waiters, mut refused) = (vec![waiting], 0);
    while refused < 10 {
        let before = unavailable(&node);
        let id = node.accept(request.to_vec());
        match unavailable(&node) == before {
            true => waiters.push(id),
            false => refused += 1,
        }
        assert!(waiters.len() < 10_000, "the hub is never full");
    }
    assert!(waiters.iter().all(|&id| node.written(id) == 0));
    node.now_ms += limits.handshake_timeout_ms;
    node.sweep();
    for &id in &waiters {
        assert!(node.written(id) > 0, "it is told that nobody has spoken");
        let connection = node
            .connections
            .connection(id)
            .expect("it is not freed yet");
        assert_eq!(connection.ending(), Some(CloseReason::HttpTimeout));
        node.transport(id).is_ended = true;
        node.handle_readable(id, true);
    }
    node.tick();
    // What the hub says then is for nobody, and does not stand in the way of who asks anew.
    for shard in (0..node.shards.shard_count()).cycle().take(100) {
        // No worker runs them here; who brings a command does.
        let _ = node
            .shards
            .submit(Command::Expire { shard, now_us: 0 }, None);
        node.tick();
    }
    let before = unavailable(&node);
    let asking = node.accept(request.to_vec());
    node.tick();
    assert!(node.written(asking) > 0);
    assert_eq!(unavailable(&node), before);
    assert!(node.shards.is_idle() && node.inbox.is_empty() && !node.connections.has_backpressure());
}
