//! Readers that have stopped, and a publisher at full speed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::attack::{measured, reactors};
use crate::support::Server;
use crate::support::peers::connect;
use crate::support::umbel_v1::{JSON, Peer};

const READERS: usize = 50;

/// Publications of one message.
const BATCH: usize = 900;

/// Publications that one connection publishes in a second to readers that have stopped, under a rule.
fn published_each_second(policy: &str) -> f64 {
    let rule = format!("hot slow_consumer={policy}");
    let server = Server::start(&[
        "--topic-rule",
        &rule,
        "--reactors",
        &reactors(1),
        "--log-level",
        "info",
        "--publication-bytes-max",
        "1024",
        "--outbox-bytes-max",
        if cfg!(debug_assertions) {
            "16KiB"
        } else {
            "2MiB"
        },
    ]);
    let _readers: Vec<Peer> = (0..READERS)
        .map(|_| {
            let mut reader = Peer::open_on(connect(server.address(), 4096), "/ws", JSON);
            reader.subscribe("hot");
            reader
        })
        .collect();
    let mut publisher = Peer::open(server.address());
    let publish = json!({"type": "publish", "topic": "hot", "data": "x"});
    let mut commands = vec![publish; BATCH];
    commands.push(json!({"type": "ping", "id": 1}));
    let message = Value::Array(commands);
    let mut publish_for = |time: Duration| {
        let (begun, mut count) = (Instant::now(), 0);
        while begun.elapsed() < time {
            assert_eq!(publisher.ask(&message)["type"], "pong");
            count += BATCH;
        }
        count as f64 / begun.elapsed().as_secs_f64()
    };
    // Until the outboxes are full.
    publish_for(measured());
    publish_for(measured())
}

#[test]
fn oldest_dropped() {
    let [latest, oldest] = ["latest", "drop-oldest"].map(published_each_second);
    eprintln!("hostile: outboxes: {oldest:.0} publications/s, latest {latest:.0}");
    // An outbox that is not optimised looks through all of itself at each step.
    let ratio_max = if cfg!(debug_assertions) { 10.0 } else { 1.5 };
    assert!(latest <= ratio_max * oldest, "{oldest} beside {latest}");
}
