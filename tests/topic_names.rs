//! Names of topics from outside: what of a request belongs to them, and which are none, whatever the way in.

mod support;

use std::net::SocketAddr;

use serde_json::{Value, json};
use support::catch_up::{next_block, publish_numbers};
use support::umbel_v1::Peer;
use support::wire::upgrade_request;
use support::{Response, Server, Wire, wait_until};
use umbel::{Config, Listener, PublishError};

fn get(server: &Server, target: &str, lines: &str) -> (Response, Wire) {
    let mut wire = server.connect();
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").as_bytes());
    let response = wire.read_response();
    (response, wire)
}

/// `event-source-polyfill` comes back with a parameter, for it may set no header.
#[test]
fn position_in_query_is_last_event_id() {
    let server = Server::start(&["--topic-rule", "h/** history=5"]);
    let newest = publish_numbers(server.address(), "h/a", 1, 9);
    let seen = newest.replace(":9", ":7");
    for target in [
        format!("/sse/h/a?lastEventId={seen}"),
        format!("/sse/h/a?last_event_id={seen}"),
        format!("/sse/h/a?Last-Event-ID={seen}"),
        format!("/sse/h/a?lastEventId={}", seen.replace(':', "%3A")),
        format!("/sse/h/a?last=1&lastEventId={seen}"),
        format!("/sse/h/a?since={newest}&lastEventId={seen}"),
        "/sse/h/a?lastEventId=&last=2".to_owned(),
        format!("/sse/h/a?lastEventId=&since={seen}"),
    ] {
        let (response, mut wire) = get(&server, &target, "");
        assert_eq!(response.status, 200, "{target}");
        assert_eq!(response.header("umbel-topic"), None, "{target}");
        for number in ["8", "9"] {
            assert_eq!(
                next_block(&mut wire).data.as_deref(),
                Some(number),
                "{target}"
            );
        }
        let mut wire = server.connect();
        wire.send(upgrade_request(&target.replace("/sse/", "/ws/"), "").as_bytes());
        assert_eq!(wire.read_response().status, 101, "{target}");
        for number in ["8", "9"] {
            assert_eq!(wire.read_frame().payload, number.as_bytes(), "{target}");
        }
    }
    // The header is what a browser adds to a URL that it was given.
    let target = "/sse/h/a?lastEventId=00000000000000a1:1";
    let (response, _) = get(&server, target, &format!("Last-Event-ID: {newest}\r\n"));
    assert_eq!(response.header("umbel-recovered"), Some("true"));
    // What is no position of this server's is told as a gap, as in the header.
    for id in ["junk", "00000000000000a1:3"] {
        let (response, mut wire) = get(&server, &format!("/sse/h/a?lastEventId={id}"), "");
        assert_eq!(response.header("umbel-recovered"), Some("false"), "{id}");
        assert_eq!(next_block(&mut wire).event.as_deref(), Some("gap"), "{id}");
    }
    let (response, _) = get(&server, "/sse/h/a?lastEventId=1&lastEventId=2", "");
    assert_eq!(response.status, 400);
}

/// A parameter that is not known becomes part of the topic; then the answer says so.
#[test]
fn answer_names_topic_with_query() {
    let server = Server::start(&[]);
    for (query, topic) in [
        ("", None),
        ("?token=x&info=y&umbel_limit=1", None),
        ("?cache=1", Some("t?cache=1")),
        ("?b=2&a=1&last=0", Some("t?a=1&b=2")),
        ("?q=%C3%A9+x", Some("t?q=%C3%A9%20x")),
    ] {
        let publish =
            format!("POST /pub/t{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx");
        let no_type = publish.replace("Content-Length", "Content-Encoding: br\r\nContent-Length");
        for (request, status) in [
            (
                format!("GET /sse/t{query} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                200,
            ),
            (upgrade_request(&format!("/ws/t{query}"), ""), 101),
            (publish, 200),
            (no_type, 415),
            (
                format!("GET /ws/t{query} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                426,
            ),
        ] {
            let mut wire = server.connect();
            wire.send(request.as_bytes());
            let response = wire.read_response();
            assert_eq!(response.status, status, "{request}");
            assert_eq!(response.header("umbel-topic"), topic, "{request}");
        }
    }
    let (_, _stream) = get(&server, "/sse/t?cache=1", "");
    let (response, _) = get(&server, "/topics/t?cache=1", "");
    assert_eq!(response.header("umbel-topic"), Some("t?cache=1"));
    let listing = server.request("GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let listing: Value = serde_json::from_str(listing.text()).expect("JSON");
    let names: Vec<_> = listing["topics"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    assert!(
        names.iter().any(|listed| listed["topic"] == "t?cache=1"),
        "{listing}"
    );
    wait_until("the log names the topic", || {
        let log = server.log();
        let hint = log
            .lines()
            .find(|line| line.contains("INFO") && line.contains("part of its topic"));
        hint.is_some_and(|line| {
            line.contains("topic=\"t?cache=...\"") || line.contains("topic=\"t?a=...&b=...\"")
        })
    });
}

/// One rule for all ways in: a slash too many is told, and leads to no other topic.
#[test]
fn empty_parts_are_refused() {
    let server = Server::start(&[]);
    let mut peer = Peer::open(server.address());
    let mut config = Config::default();
    config.listeners = vec![Listener::new(SocketAddr::from(([127, 0, 0, 1], 0)))];
    let embedded = umbel::Server::builder().config(config).bind();
    let embedded = embedded.expect("a free port").handle();
    for topic in ["a/", "/a", "a//b", "/", "//", "a/?b=1", "a//b?c"] {
        for path in ["/ws", "/sse", "/topics"] {
            let (response, _) = get(&server, &format!("{path}/{topic}"), "");
            assert_eq!(response.status, 400, "{path} {topic}");
            assert!(
                response.text().contains("between two parts"),
                "{response:?}"
            );
        }
        assert_eq!(
            server.publish(topic, "text/plain", b"x").status,
            400,
            "{topic}"
        );
        let escaped = topic
            .split('?')
            .next()
            .unwrap_or_default()
            .replace('/', "%2F");
        assert_eq!(
            server.publish(&escaped, "text/plain", b"x").status,
            400,
            "{escaped}"
        );
        let line = json!({"topic": topic, "data": "x"}).to_string();
        let length = line.len();
        let answer = server.request(&format!(
            "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{line}"
        ));
        assert_eq!(answer.status, 422, "{topic}");
        for command in [
            json!({"type": "subscribe", "id": 1, "topic": topic}),
            json!({"type": "unsubscribe", "id": 1, "topic": topic}),
            json!({"type": "publish", "id": 1, "topic": topic, "data": "x"}),
            json!({"type": "presence", "id": 1, "topic": topic}),
        ] {
            assert_eq!(peer.error(&command), "invalid_topic", "{command}");
        }
        let command = json!({"type": "subscribe", "id": 1, "pattern": topic});
        assert_eq!(peer.error(&command), "invalid_pattern", "{command}");
        let published = embedded.publish(topic, umbel::Message::Text("x"));
        assert!(
            matches!(published, Err(PublishError::InvalidTopic(_))),
            "{topic}"
        );
        let path = topic.split('?').next().unwrap_or_default();
        let rule = umbel::TopicRule::parse(&format!("{path} history=1"));
        assert!(
            rule.is_err_and(|error| error.to_string().contains("between two parts")),
            "{path}"
        );
    }
    for pattern in ["/*", "a//*", "a/*/", "/**", "*//**"] {
        let command = json!({"type": "subscribe", "id": 1, "pattern": pattern});
        assert_eq!(peer.error(&command), "invalid_pattern", "{command}");
    }
}

#[test]
fn dots_and_queries_may_hold_anything() {
    let server = Server::start(&[]);
    for topic in ["a..b", ".a/b.", "..", "t?a=//&b=/"] {
        assert_eq!(
            server.publish(topic, "text/plain", b"x").status,
            200,
            "{topic}"
        );
    }
}
