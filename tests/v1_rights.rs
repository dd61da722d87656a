//! Rights on connections that speak `umbel.v1`, and secrets that refusals keep.

mod support;

use serde_json::json;

use support::Server;
use support::catch_up::publish_numbers;
use support::peers::{WebSocket, connect};
use support::umbel_v1::{BINARY, JSON, Peer, binary_publish, epoch, offer};
use support::wire::upgrade_request;

/// Both subprotocols: all but publications is the same on them.
const SUBPROTOCOLS: [&str; 2] = [JSON, BINARY];

#[test]
fn unauthorized_and_forbidden() {
    for (access, code) in [("nobody", "forbidden"), ("token", "unauthorized")] {
        let flags = ["--subscribe", access, "--subscribe-token", "s"];
        let flags = if access == "token" {
            &flags[..]
        } else {
            &flags[..2]
        };
        let server = Server::start(flags);
        let mut peer = Peer::open(server.address());
        for field in ["topic", "pattern"] {
            assert_eq!(
                peer.error(&json!({"type": "subscribe", "id": 1, field: "t"})),
                code
            );
        }
    }
}

/// Each kind of credential against each command: what is answered, or the status of the handshake.
#[test]
fn rights_by_token() {
    let rights = [
        "--subscribe",
        "token",
        "--subscribe-token",
        "sub",
        "--publish",
        "token",
        "--publish-token",
        "pub",
        "--query-token",
        "allow",
    ];
    let server = Server::start(&[&rights[..], &["--topic-rule", "t presence=on"]].concat());
    let commands = [
        json!({"type": "subscribe", "id": 1, "topic": "t"}),
        json!({"type": "subscribe", "id": 1, "topic": "t2", "since": "00000000000000a1:17"}),
        json!({"type": "subscribe", "id": 1, "pattern": "**"}),
        json!({"type": "presence", "id": 1, "topic": "t"}),
        json!({"type": "publish", "id": 1, "topic": "u/v", "data": "x"}),
        json!({"type": "ping", "id": 1}),
    ];
    let table: [(&str, [&str; 6]); 2] = [
        (
            "sub",
            [
                "subscribed",
                "subscribed",
                "subscribed",
                "presence",
                "forbidden",
                "pong",
            ],
        ),
        (
            "pub",
            [
                "forbidden",
                "forbidden",
                "forbidden",
                "forbidden",
                "published",
                "pong",
            ],
        ),
    ];
    for subprotocol in SUBPROTOCOLS {
        for (token, outcomes) in table {
            let target = format!("/ws?token={token}");
            let mut peer = Peer::open_at(server.address(), &target, subprotocol).welcomed();
            for (command, outcome) in commands.iter().zip(outcomes) {
                let answer = peer.ask(command);
                let got = answer.get("code").unwrap_or(&answer["type"]);
                assert_eq!(got, outcome, "{token}: {command}");
                // Who may not see a topic learns nothing about it.
                assert!(answer.get("code").is_none() || answer.get("position").is_none());
            }
            if token == "pub" {
                let publish = binary_publish(Some(3), "t", None, b"x");
                if subprotocol == BINARY {
                    peer.send_binary(&publish);
                    assert_eq!(peer.next()["type"], "published");
                }
            }
        }
    }
}

#[test]
fn connection_needs_credential() {
    let rights = ["--subscribe-token", "sub", "--query-token", "allow"];
    let server = Server::start(&[&rights[..], &["--publish", "nobody"]].concat());
    for subprotocol in SUBPROTOCOLS {
        for (target, lines, status) in [
            ("/ws?token=wrong", "", 401),
            ("/ws?token=", "", 401),
            ("/ws", "Authorization: Basic sub\r\n", 401),
            // One of the two would be passed over.
            ("/ws?token=sub", "Authorization: Bearer wrong\r\n", 400),
        ] {
            let lines = format!("{lines}{}", offer(subprotocol));
            let (head, _) = WebSocket::offer_on(connect(server.address(), 0), target, &lines);
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")),
                "{target} {lines}: {head}"
            );
        }
    }
    let nobody = Server::start(&["--subscribe", "nobody", "--publish", "nobody"]);
    let (head, _) = WebSocket::offer_on(connect(nobody.address(), 0), "/ws", &offer(JSON));
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
}

/// A refused subscriber learns no position, and nothing of what is kept.
#[test]
fn history_needs_subscribe_right() {
    let server = Server::start(&[
        "--topic-rule",
        "** history=10",
        "--subscribe",
        "token",
        "--subscribe-token",
        "s",
    ]);
    let newest = publish_numbers(server.address(), "b/secret", 1, 5);
    for since in [
        format!("{}:1", epoch(&newest)),
        newest.clone(),
        "00000000000000a1:1".to_owned(),
    ] {
        for target in [
            format!("/sse/b/secret?since={since}"),
            format!("/sse/b/secret?since={since}&token=wrong"),
            "/sse/b/secret?last=5".to_owned(),
        ] {
            let request = format!(
                "GET {target} HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {since}\r\n\r\n"
            );
            let response = server.request(&request);
            assert!(matches!(response.status, 401 | 403), "{response:?}");
            let shown = format!("{response:?}");
            assert!(!shown.contains(epoch(&newest)) && response.header("umbel-position").is_none());
            let mut wire = server.connect();
            let target = target.replace("/sse/", "/ws/");
            wire.send(upgrade_request(&target, "").as_bytes());
            assert!(matches!(wire.read_response().status, 401 | 403), "{target}");
        }
    }
}
