//! The memory budget: shares by default, and what is shed.

use std::time::{Duration, Instant};

use crate::support::peers::{Http, WebSocket, connect};
use crate::support::process::rss_bytes;
use crate::support::{Server, wait_until};

const MIB: f64 = (1 << 20) as f64;

#[test]
fn shares_of_the_budget() {
    let server = Server::start(&["--memory-budget-bytes", "400MiB"]);
    let limit = |name: &str| server.metric(&format!("umbel_limit{{name=\"{name}\"}}")) / MIB;
    assert_eq!(server.metric("umbel_memory_budget_bytes") / MIB, 400.0);
    assert_eq!(limit("history_bytes_total_max"), 100.0);
    assert_eq!(limit("outbox_bytes_total_max"), 100.0);
    assert_eq!(limit("inbound_bytes_total_max"), 60.0);
    wait_until("it is measured", || {
        let used = server.metric("umbel_memory_used_bytes");
        used > 0.0 && used < 400.0 * MIB
    });
}

#[test]
fn budget_by_what_there_is() {
    let server = Server::start(&[]);
    let budget = server.metric("umbel_memory_budget_bytes");
    assert!(budget > 0.0, "{budget}");
    let share = server.metric("umbel_limit{name=\"history_bytes_total_max\"}");
    assert!((share / budget - 0.25).abs() < 0.01, "{share} of {budget}");
}

/// A budget a little above what the process takes at its start.
fn start(extra: u64) -> Server {
    let idle = {
        let server = Server::start(&["--reactors", "1"]);
        rss_bytes(server.pid())
    };
    let budget = (idle + extra).to_string();
    Server::start(&[
        "--reactors",
        "1",
        "--memory-budget-bytes",
        &budget,
        "--history-bytes-total-max",
        "1GiB",
        "--outbox-bytes-total-max",
        "1GiB",
        "--topic-rule",
        "h/** history=100000",
        "--log-level",
        "info",
    ])
}

#[test]
fn oldest_histories_go_first() {
    let server = start(48 << 20);
    let mut http = Http::connect(server.address());
    let payload = vec![b'x'; 256 << 10];
    let is_told = || server.log().contains("event=memory_pressure");
    let started = Instant::now();
    let mut number = 0;
    while !is_told() && started.elapsed() < Duration::from_secs(10) {
        if http.try_publish(&format!("h/{number}"), &payload).is_none() {
            http = Http::connect(server.address());
        }
        number += 1;
    }
    assert!(is_told(), "after {number} publications: {}", server.log());
    wait_until("enough was shed", || {
        server.log().contains("enough memory was shed")
    });
    // The first is gone, and the last is there.
    let size = |topic: &str| {
        let answer = Http::connect(server.address()).get(&format!("/history/{topic}"));
        (answer.status, answer.body.len())
    };
    wait_until("somebody is let in again", || size("h/0").0 != 503);
    let (first, last) = (size("h/0"), size(&format!("h/{}", number - 1)));
    assert!(
        first.1 < payload.len() && last.1 > payload.len(),
        "{first:?} {last:?}"
    );
}

#[test]
fn largest_outbox_ends() {
    let server = start(40 << 20);
    let address = server.address();
    // Readers that have stopped, each with a topic of its own: a frame that many wait for is in memory once.
    const READERS: usize = 40;
    let open = |number| WebSocket::open_on(connect(address, 4096), &format!("/ws/flood/{number}"));
    let stopped: Vec<_> = (0..READERS).map(open).collect();
    let mut http = Http::connect(address);
    let payload = vec![b'x'; 128 << 10];
    let refused = || server.log().contains("limit=memory_budget_bytes");
    let mut count = 0;
    // Less than what an outbox may hold, each.
    while !refused() && count < READERS * 14 {
        let topic = format!("flood/{}", count % READERS);
        if http.try_publish(&topic, &payload).is_none() {
            http = Http::connect(address);
        }
        count += 1;
    }
    wait_until("somebody had to go", refused);
    drop(stopped);
    wait_until("it is counted, and somebody is let in again", || {
        let answer = Http::connect(address).get("/metrics");
        let text = String::from_utf8(answer.body).expect("UTF-8");
        let line = "umbel_closed_total{reason=\"over_budget\"} ";
        answer.status == 200 && text.contains(line) && !text.contains(&format!("{line}0\n"))
    });
}
