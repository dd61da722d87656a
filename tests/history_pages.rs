//! Histories to read: pages by `GET /history/{topic}` and by the command of umbel.v1.

mod support;

use serde_json::{Value, json};

use support::umbel_v1::{BINARY, JSON, Peer, text};
use support::{Response, Server, wait_until};

const RULE: &str = "kept/** history=100";

fn get(server: &Server, target: &str, headers: &str) -> Response {
    server.request(&format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
    ))
}

fn page(server: &Server, target: &str) -> Value {
    let response = get(server, target, "");
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    serde_json::from_str(response.text()).expect("JSON")
}

/// Publishes so many messages, which are numbers; gives the position of each.
fn publish(server: &Server, topic: &str, count: usize) -> Vec<String> {
    let answer = |number: usize| {
        let response = server.publish(topic, "text/plain", number.to_string().as_bytes());
        let answer: Value = serde_json::from_str(response.text()).expect("JSON");
        format!("{}:{}", text(&answer["epoch"]), answer["offset"])
    };
    (0..count).map(answer).collect()
}

fn data(page: &Value) -> Vec<String> {
    let publications = page["publications"].as_array().expect("an array");
    publications.iter().map(|it| text(&it["data"])).collect()
}

#[test]
fn pages_by_since_last_and_limit() {
    let server = Server::start(&["--topic-rule", RULE]);
    let positions = publish(&server, "kept/a", 10);
    let all = page(&server, "/history/kept/a");
    assert_eq!(
        data(&all),
        (0..10).map(|it| it.to_string()).collect::<Vec<_>>()
    );
    assert_eq!(
        (&all["topic"], &all["position"]),
        (&json!("kept/a"), &json!(positions[9]))
    );
    assert_eq!(
        (&all["recovered"], &all["next"]),
        (&Value::Null, &Value::Null)
    );
    let last = page(&server, "/history/kept/a?last=3");
    assert_eq!(
        (data(&last), &last["next"]),
        (["7", "8", "9"].map(String::from).to_vec(), &Value::Null)
    );
    // From page to page, each where the one before ends.
    let mut seen = Vec::new();
    let mut target = format!("/history/kept/a?since={}&umbel_limit=4", positions[0]);
    loop {
        let page = page(&server, &target);
        assert_eq!(page["recovered"], true, "{page}");
        assert!(data(&page).len() <= 4);
        seen.extend(data(&page));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        target = format!("/history/kept/a?since={next}&umbel_limit=4");
    }
    assert_eq!(seen, (1..10).map(|it| it.to_string()).collect::<Vec<_>>());
    let first = page(&server, "/history/kept/a?last=5&umbel_limit=2");
    assert_eq!(
        (data(&first), &first["next"]),
        (["5", "6"].map(String::from).to_vec(), &json!(positions[6]))
    );
    let end = page(&server, &format!("/history/kept/a?since={}", positions[9]));
    assert_eq!((data(&end), &end["recovered"]), (vec![], &json!(true)));
}

#[test]
fn positions_out_of_reach_are_not_recovered() {
    let server = Server::start(&["--topic-rule", "kept/** history=3"]);
    let positions = publish(&server, "kept/a", 10);
    for since in [&positions[2], "0000000000000001:5"] {
        let page = page(&server, &format!("/history/kept/a?since={since}"));
        assert_eq!((data(&page), &page["recovered"]), (vec![], &json!(false)));
        assert_eq!(page["position"], json!(positions[9]));
    }
    let kept = page(&server, &format!("/history/kept/a?since={}", positions[6]));
    assert_eq!((data(&kept).len(), &kept["recovered"]), (3, &json!(true)));
    // Of what nobody knows there is no position, and asking makes none.
    let unknown = page(&server, "/history/kept/b?since=0000000000000001:5");
    let expected = json!({"topic": "kept/b", "recovered": false, "publications": []});
    assert_eq!(unknown, expected);
    assert_eq!(
        page(&server, "/history/other"),
        json!({"topic": "other", "publications": []})
    );
}

#[test]
fn publications_have_their_fields_and_time() {
    let server = Server::start(&["--topic-rule", RULE]);
    let request = "POST /pub/kept/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nUmbel-Key: k\r\n\
                   Umbel-Event: e\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
    server.request(request);
    server.publish("kept/a", "application/octet-stream", &[0, 255]);
    let page = page(&server, "/history/kept/a");
    let [json_message, binary] = &page["publications"].as_array().expect("an array")[..] else {
        panic!("{page}");
    };
    let time = json_message["time"].as_u64().expect("a time");
    let expected = json!({"position": json_message["position"], "key": "k", "event": "e",
        "content_type": "application/json", "time": time, "data": "{\"a\":1}"});
    assert_eq!(*json_message, expected);
    assert!(time > 1_700_000_000_000, "milliseconds since 1970: {time}");
    assert_eq!(binary["base64"], "AP8=");
}

#[test]
fn page_leaves_out_what_is_over() {
    let server = Server::start(&["--topic-rule", RULE]);
    publish(&server, "kept/a", 1);
    let headers = "Umbel-Ttl-Ms: 1\r\nContent-Length: 4\r\n";
    let short = server.request(&format!(
        "POST /pub/kept/a HTTP/1.1\r\nHost: localhost\r\n{headers}\r\nover"
    ));
    assert_eq!(short.status, 200, "{short:?}");
    wait_until("it is over", || {
        data(&page(&server, "/history/kept/a")) == ["0"]
    });
    let mut peer = Peer::open(server.address());
    let page = peer.ask(&json!({"type": "history", "id": 1, "topic": "kept/a"}));
    assert_eq!(data(&page), ["0"], "{page}");
}

#[test]
fn pages_keep_within_recovery_limits() {
    let flags = [
        "--topic-rule",
        RULE,
        "--recovery-publications-max",
        "5",
        "--recovery-bytes-max",
        "1500",
    ];
    let server = Server::start(&flags);
    publish(&server, "kept/a", 20);
    let page_a = page(&server, "/history/kept/a?last=20&umbel_limit=20");
    assert_eq!(data(&page_a), ["0", "1", "2", "3", "4"]);
    assert!(page_a["next"].is_string());
    // One publication comes in any case.
    for _ in 0..3 {
        server.publish("kept/b", "text/plain", &[b'x'; 2000]);
    }
    let page_b = page(&server, "/history/kept/b?last=3");
    assert_eq!((data(&page_b).len(), page_b["next"].is_string()), (1, true));
}

#[test]
fn pages_fit_the_outbox() {
    let flags = [
        "--topic-rule",
        RULE,
        "--outbox-bytes-max",
        "20000",
        "--publication-bytes-max",
        "9000",
    ];
    let server = Server::start(&flags);
    let mut peer = Peer::open_at(server.address(), "/ws", JSON);
    for _ in 0..8 {
        server.publish("kept/a", "text/plain", &[b'\n'; 3000]);
    }
    // Each takes twice its bytes in JSON.
    let command = json!({"type": "history", "id": 1, "topic": "kept/a"});
    let mut next = Value::Null;
    let mut seen = 0;
    for _ in 0..8 {
        let mut command = command.clone();
        if next.is_string() {
            command["since"] = next;
        }
        let page = peer.ask(&command);
        seen += data(&page).len();
        next = page["next"].clone();
        if next.is_null() {
            break;
        }
    }
    assert_eq!((seen, next), (8, Value::Null));
    let mut target = "/history/kept/a".to_owned();
    let mut seen = 0;
    loop {
        let page = page(&server, &target);
        seen += data(&page).len();
        let Some(next) = page["next"].as_str() else {
            break;
        };
        target = format!("/history/kept/a?since={next}");
    }
    assert_eq!(seen, 8);
}

#[test]
fn command_has_the_same_pages() {
    let server = Server::start(&["--topic-rule", RULE]);
    let positions = publish(&server, "kept/a", 5);
    for subprotocol in [JSON, BINARY] {
        let mut peer = Peer::open_at(server.address(), "/ws", subprotocol);
        for (fields, query) in [
            (json!({}), String::new()),
            (json!({"last": 2}), "?last=2".to_owned()),
            (json!({"limit": 2}), "?umbel_limit=2".to_owned()),
            (
                json!({"since": positions[1], "limit": 2}),
                format!("?since={}&umbel_limit=2", positions[1]),
            ),
        ] {
            let mut command = json!({"type": "history", "id": 7, "topic": "kept/a"});
            let object = command.as_object_mut().expect("an object");
            object.extend(fields.as_object().expect("an object").clone());
            let mut expected = page(&server, &format!("/history/kept/a{query}"));
            expected["type"] = "history".into();
            expected["id"] = 7.into();
            assert_eq!(peer.ask(&command), expected, "{command}");
        }
        for fields in [
            json!({"limit": 0}),
            json!({"since": positions[1], "last": 1}),
            json!({"pattern": "kept/*"}),
        ] {
            let mut command = json!({"type": "history", "id": 7, "topic": "kept/a"});
            let object = command.as_object_mut().expect("an object");
            object.extend(fields.as_object().expect("an object").clone());
            assert_eq!(peer.error(&command), "invalid_command", "{command}");
        }
        // It subscribes to nothing.
        server.publish("kept/a", "text/plain", b"4");
        peer.expect_nothing_before_pong();
    }
}

#[test]
fn reading_needs_the_right_to_subscribe() {
    let server = Server::start(&["--subscribe", "nobody", "--topic-rule", RULE]);
    assert_eq!(get(&server, "/history/kept/a", "").status, 403);
    let mut peer = Peer::open_at(server.address(), "/ws", JSON);
    let command = json!({"type": "history", "id": 1, "topic": "kept/a"});
    assert_eq!(peer.error(&command), "forbidden");
    let server = Server::start(&["--topic-rule", RULE]);
    let foreign = "Origin: https://elsewhere.example\r\n";
    assert_eq!(get(&server, "/history/kept/a", foreign).status, 403);
    let own = format!("Origin: http://{}\r\n", server.address());
    let answer = get(&server, "/history/kept/a", &own);
    assert_eq!(answer.status, 200);
    assert!(answer.header("access-control-allow-origin").is_some());
    for (target, status) in [
        ("/history/", 404),
        ("/history/kept/a?since=x", 400),
        ("/history/kept/a?last=x", 400),
        ("/history/kept/a?umbel_limit=0", 400),
        ("/history/kept/a?umbel_limit=x", 400),
    ] {
        assert_eq!(get(&server, target, "").status, status, "{target}");
    }
    let head = server.request("HEAD /history/kept/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((head.status, head.text()), (200, ""));
}
