//! `umbel bench`, the real binary against the real server, and against servers that do wrong.

#[path = "command_line/process.rs"]
#[allow(dead_code, reason = "another test uses the rest of it")]
mod process;
mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use process::{run, umbel};
use serde_json::Value;
use support::Server;
use tungstenite::Message;

/// A run's JSON, which must report success.
fn measure(server: &Server, target: &str, arguments: &[&str]) -> Value {
    let (code, result) = measure_at(server.address(), target, arguments);
    assert_eq!(code, 0, "{arguments:?}: {result:#}");
    assert_eq!(result["is_good"], true);
    for count in ["lost", "duplicated", "reordered", "misdelivered"] {
        assert_eq!(result["audit"][count], 0, "{arguments:?}: {result:#}");
    }
    result
}

fn measure_at(address: SocketAddr, target: &str, arguments: &[&str]) -> (i32, Value) {
    let url = format!("ws://{address}{target}");
    let line = [
        &["bench", arguments[0], &url, "--json", "--warmup", "200ms"],
        &arguments[1..],
    ];
    let (code, out, error) = run(&mut umbel(&line.concat()));
    let result = serde_json::from_str(&out).unwrap_or_else(|_| panic!("no JSON: {out}{error}"));
    (code, result)
}

fn count(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no count"))
}

#[test]
fn fanout_closed_loop() {
    let server = Server::start(&[]);
    let pid = server.pid().to_string();
    let arguments = [
        "fanout",
        "-c",
        "100",
        "-n",
        "200",
        "-w",
        "8",
        "--threads",
        "2",
        "--pid",
        &pid,
    ];
    let result = measure(&server, "/ws/{topic}", &arguments);
    assert_eq!(result["published"], 200);
    assert_eq!(result["latency_us"]["samples"], 20_000);
    assert!(count(&result["received"]) >= 20_000);
    assert!(
        result["server"]["cpu_us_per_message"].is_f64(),
        "{result:#}"
    );
    assert!(count(&result["server"]["resident_connected_bytes"]) > 1 << 20);
}

#[test]
fn fanout_open_loop() {
    let server = Server::start(&[]);
    let shape = [
        "--topics",
        "5",
        "--publishers",
        "2",
        "-r",
        "200",
        "-d",
        "1s",
        "-s",
        "20",
    ];
    let arguments = [
        &["fanout", "-c", "50", "--source-addresses", "3"],
        &shape[..],
    ]
    .concat();
    let result = measure(&server, "/ws/{topic}", &arguments);
    assert_eq!(count(&result["published"]) + count(&result["unsent"]), 200);
    // Each goes to ten subscribers, and back to both publishers of its topic.
    assert_eq!(
        result["latency_us"]["samples"],
        10 * count(&result["published"])
    );
    assert!(result["lateness_us"]["p50"].is_f64());
    let buckets = result["buckets"].as_array().expect("buckets");
    assert_eq!(
        buckets.iter().map(count).sum::<u64>(),
        count(&result["received"])
    );
}

#[test]
fn fanout_of_http_publishes() {
    let server = Server::start(&[]);
    let publish = format!("http://{}/pub/{{topic}}", server.address());
    let arguments = [
        "fanout",
        "-c",
        "20",
        "-n",
        "100",
        "-w",
        "4",
        "--publish",
        &publish,
    ];
    let result = measure(&server, "/ws/{topic}", &arguments);
    assert_eq!(
        (&result["published"], &result["audit"]["copies"]),
        (&100.into(), &0.into())
    );
}

#[test]
fn fanout_of_payloads_inside_json() {
    let server = Server::start(&[]);
    let template = r#"{"event":"x","data":"{payload}"}"#;
    let result = measure(
        &server,
        "/ws/a",
        &["fanout", "-c", "10", "-n", "50", "--publish", template],
    );
    assert_eq!(result["latency_us"]["samples"], 500);
}

#[test]
fn echo_with_a_plot() {
    let server = Server::start(&[]);
    let plot = std::env::temp_dir().join(format!("umbel-bench-{}.svg", std::process::id()));
    let path = plot.to_str().expect("the path is UTF-8");
    let shape = ["-c", "50", "-w", "4", "-d", "500ms", "--plot", path];
    let result = measure(&server, "/echo", &[&["echo"], &shape[..]].concat());
    assert!(count(&result["received"]) > 50);
    let svg = fs::read_to_string(&plot).expect("the plot was written");
    fs::remove_file(&plot).expect("the plot can be removed");
    assert_well_formed(&svg);
    for part in [
        "umbel bench echo",
        "p99",
        "Messages received a second",
        "<polygon",
    ] {
        assert!(svg.contains(part), "{part} is missing");
    }
    let result = measure(
        &server,
        "/echo",
        &["echo", "-c", "5", "-n", "20", "-s", "300000", "--binary"],
    );
    assert_eq!(result["published"], 20);
}

/// Payloads of `umbel bench` are mostly one letter, so little is left of them on the wire.
#[test]
fn echo_of_compressed_messages() {
    let server = Server::start(&[]);
    let arguments = ["-c", "3", "-n", "300", "-s", "2000"];
    let bytes_of = |more: &[&str]| {
        let report = measure(
            &server,
            "/echo",
            &[&["echo"], &arguments[..], more].concat(),
        );
        report["wire_bytes_per_message"].as_f64().expect("a number")
    };
    assert!((2000.0..2010.0).contains(&bytes_of(&[])));
    assert!(bytes_of(&["--deflate"]) < 200.0);
    assert_eq!(server.metric("umbel_messages_inflated_total"), 0.0);
}

#[test]
fn idle_connections_and_their_memory() {
    let server = Server::start(&[]);
    let pid = server.pid().to_string();
    let result = measure(
        &server,
        "/ws/{topic}",
        &["idle", "-c", "200", "-d", "300ms", "-p", &pid],
    );
    assert_eq!(result["connections"]["opened"], 200);
    assert!(result["server"]["resident_bytes_per_connection"].is_f64());
    assert_eq!(result["latency_us"], Value::Null);
}

#[test]
fn storm() {
    let server = Server::start(&[]);
    let result = measure(
        &server,
        "/ws/x",
        &["storm", "-c", "50", "-r", "300", "-d", "1s"],
    );
    assert!(count(&result["connections"]["opened"]) > 300);
    assert_eq!(result["connections"]["failed"], 0);
    assert!(count(&result["latency_us"]["samples"]) > 250);
    let result = measure(
        &server,
        "/ws/x",
        &["storm", "-c", "10", "-w", "16", "-d", "2s"],
    );
    // More than there are places, so that some were used again.
    assert!(count(&result["connections"]["opened"]) > 1100);
}

#[test]
fn stalled_subscribers() {
    let server = Server::start(&[
        "--outbox-bytes-max",
        "131072",
        "--publication-bytes-max",
        "65536",
    ]);
    let arguments = [
        "stall",
        "-c",
        "10",
        "--stalled",
        "20%",
        "-r",
        "500",
        "-d",
        "1500ms",
    ];
    let result = measure(&server, "/ws/x", &arguments);
    assert_eq!(
        result["connections"]["stalled_closed"]["1013"], 2,
        "{result:#}"
    );
    assert_eq!(result["connections"]["closed"], serde_json::json!({}));
    assert!(count(&result["audit"]["missed_by_closed"]) > 0);
}

/// Fault of a server at the tenth message.
#[derive(Clone, Copy)]
enum Wrong {
    Drop,
    Repeat,
    /// Send it behind the next one.
    Swap,
}

/// An echo server that does wrong once, and serves one connection.
fn wrong_server(wrong: Wrong) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        let (socket, _) = listener.accept().expect("somebody connects");
        let mut websocket = tungstenite::accept(socket).expect("it speaks the protocol");
        let mut held = None;
        for number in 0.. {
            let Ok(message) = websocket.read() else {
                return;
            };
            let messages: Vec<Message> = match (wrong, number) {
                (Wrong::Drop, 10) => Vec::new(),
                (Wrong::Repeat, 10) => vec![message.clone(), message],
                (Wrong::Swap, 10) => {
                    held = Some(message);
                    Vec::new()
                }
                _ => [message].into_iter().chain(held.take()).collect(),
            };
            for message in messages {
                if websocket.send(message).is_err() {
                    return;
                }
            }
        }
    });
    address
}

#[test]
fn audit_of_faulty_server() {
    for (wrong, expected) in [
        (Wrong::Drop, [1, 0, 0]),
        (Wrong::Repeat, [0, 1, 0]),
        (Wrong::Swap, [0, 0, 1]),
    ] {
        let address = wrong_server(wrong);
        let (code, result) =
            measure_at(address, "/", &["echo", "-c", "1", "-w", "4", "-d", "200ms"]);
        let audit = &result["audit"];
        let found = ["lost", "duplicated", "reordered"].map(|name| count(&audit[name]));
        assert_eq!((code, found), (1, expected), "{result:#}");
        assert_eq!(result["is_good"], false);
    }
}

#[test]
fn table_ends_with_verdict() {
    let server = Server::start(&[]);
    let url = format!("ws://{}/ws/x", server.address());
    let arguments = [
        "bench", "fanout", &url, "-c", "10", "-n", "10", "--warmup", "0",
    ];
    let (code, out, error) = run(&mut umbel(&arguments));
    assert_eq!((code, &*error), (0, ""));
    for part in [
        "0 lost, 0 duplicated, 0 reordered",
        "p99.9",
        "result                passed\n",
    ] {
        assert!(out.contains(part), "{out}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let server = Server::start(&[]);
    let url = format!("ws://{}/nowhere", server.address());
    let topic = format!("ws://{}/ws/x", server.address());
    for (arguments, parts) in [
        (
            &["fanout", "ws://127.0.0.1:1/"][..],
            &["connection 1 was not made", "refused"][..],
        ),
        (
            &[
                "fanout",
                &topic,
                "-c",
                "2",
                "--publish",
                "http://127.0.0.1:1/",
            ],
            &["--publish", "refused"],
        ),
        (&["echo", &url, "-c", "2"], &["404"]),
        (
            &["idle", "-c", "10M"],
            &["--connections 10000000", "ulimit -Hn"],
        ),
        (
            &["echo", &url, "--plot", "/nowhere/x.svg"],
            &["--plot /nowhere/x.svg"],
        ),
        (
            &["idle", &url, "--pid", "4294967295"],
            &["--pid 4294967295"],
        ),
        (&["fanout", "ws://192.0.2.1/x"], &["--allow-remote"]),
    ] {
        let (code, out, error) = run(&mut umbel(&[&["bench"], arguments].concat()));
        assert_eq!((code, &*out), (1, ""), "{arguments:?}");
        for part in parts {
            assert!(error.contains(part), "{arguments:?}: {error}");
        }
    }
}

/// Checks that tags are balanced, attributes quoted, and text has no stray angle brackets.
fn assert_well_formed(xml: &str) {
    let mut open = Vec::new();
    let mut rest = xml;
    while let Some((text, after)) = rest.split_once('<') {
        assert!(!text.contains('>'), "{text}");
        let (tag, after) = after.split_once('>').expect("a tag ends");
        rest = after;
        assert!(
            !tag.contains('<') && tag.matches('"').count() % 2 == 0,
            "{tag}"
        );
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap_or(tag));
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?}");
}
