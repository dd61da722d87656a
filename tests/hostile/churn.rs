//! Subscriptions that come and go as fast as one connection can send.

use serde_json::{Value, json};

use crate::attack::{Flood, notice, reactors};
use crate::support::Server;
use crate::support::peers::Http;

const COMMANDS: usize = 200;

/// Bytes that the server may grow by.
const GROWTH_BYTES_MAX: u64 = 32 << 20;

fn array(commands: impl Iterator<Item = Value>) -> String {
    Value::Array(commands.collect()).to_string()
}

/// What others notice of arrays of subscriptions that come and go is no more than of as many commands that do nothing.
fn check(name: &str, flags: &[&str], reads: bool, pair: impl Fn(usize) -> [Value; 2]) {
    check_after(name, flags, |_| {}, reads, pair);
}

/// As [`check`], on a server that is prepared.
fn check_after(
    name: &str,
    flags: &[&str],
    prepare: impl Fn(&Server),
    reads: bool,
    pair: impl Fn(usize) -> [Value; 2],
) {
    let reactors = reactors(1);
    let flags = [flags, &["--reactors", &reactors, "--log-level", "info"]].concat();
    let message = array((0..COMMANDS).flat_map(pair));
    let padding = " ".repeat(message.len() / (2 * COMMANDS) - 17);
    let idle = vec![format!("{{\"type\":\"ping\"{padding}}}"); 2 * COMMANDS];
    let idle = format!("[{}]", idle.join(","));
    // Each on a server of its own, for what the kernel holds of a flood goes on when it has ended.
    let [bare, noticed] = [idle, message].map(|message| {
        let server = Server::start(&flags);
        prepare(&server);
        let flood = Flood::start(server.address(), &message, reads);
        let noticed = notice(&server);
        flood.stop();
        noticed
    });
    eprintln!("hostile: churn, {name}: {noticed:?}, bare {bare:?}");
    assert!(noticed.half <= bare.half, "{noticed:?} beside {bare:?}");
    assert!(noticed.grown_bytes <= GROWTH_BYTES_MAX, "{noticed:?}");
}

fn subscribe(field: &str, name: &str) -> Value {
    json!({"type": "subscribe", field: name})
}

fn unsubscribe(field: &str, name: &str) -> Value {
    json!({"type": "unsubscribe", field: name})
}

#[test]
fn one_topic() {
    for reads in [true, false] {
        check("one topic", &[], reads, |_| {
            ["subscribe", "unsubscribe"].map(|it| json!({"type": it, "id": 1, "topic": "churn"}))
        });
    }
}

#[test]
fn many_topics() {
    check("many topics", &[], false, |number| {
        let name = format!("churn/{number}");
        [subscribe("topic", &name), unsubscribe("topic", &name)]
    });
}

#[test]
fn topic_with_presence() {
    let rule = ["--topic-rule", "churn presence=on history=10"];
    check("topic with presence", &rule, false, |_| {
        [subscribe("topic", "churn"), unsubscribe("topic", "churn")]
    });
}

#[test]
fn patterns() {
    check("patterns", &[], false, |number| {
        let name = format!("churn/{number}/**");
        [subscribe("pattern", &name), unsubscribe("pattern", &name)]
    });
}

/// Histories that are asked for again and again, whole, from one topic or many.
#[test]
fn histories() {
    let rule = ["--topic-rule", "churn/* history=10000"];
    let topics = [1, 50];
    for count in topics {
        let prepare = |server: &Server| {
            let line = |topic| format!("{{\"topic\":\"churn/{topic}\",\"data\":1}}\n");
            let mut http = Http::connect(server.address());
            for topic in 0..count {
                let lines = line(topic).repeat(2500);
                for _ in 0..4 {
                    assert_eq!(http.publish_lines(&lines).status, 200);
                }
            }
        };
        let name = format!("histories of {count} topics");
        check_after(&name, &rule, prepare, false, |number| {
            let topic = format!("churn/{}", number % count);
            let mut subscribe = subscribe("topic", &topic);
            subscribe["last"] = 10_000.into();
            [subscribe, unsubscribe("topic", &topic)]
        });
    }
}
