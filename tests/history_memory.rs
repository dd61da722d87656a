//! Memory of histories: resident bytes of the whole process against the limit that they are given.

mod support;

use std::fmt::Write;
use std::thread;

use support::frames::text;
use support::peers::EventStream;
use support::process::rss_bytes;
use support::wire::upgrade_request;
use support::{Server, Wire};

const TOPICS: usize = 10_000;

/// Of so many topics one has an event stream besides.
const TOPICS_OF_ONE_STREAM: usize = 4;

/// Topics of one connection of `umbel.v1`.
const TOPICS_OF_ONE: usize = 1000;

const HISTORY_BYTES_MAX: u64 = 16 << 20;

/// Publications of each topic: several times as many as the histories may hold.
const ROUNDS: usize = 6;

/// The frames that go to others come and go; what of them lies about once, in buffers and in the allocator.
const NOISE_BYTES: u64 = 8 << 20;

fn subscribe(server: &Server, first: usize) -> Wire {
    let mut wire = server.connect();
    let request = upgrade_request("/ws", "Sec-WebSocket-Protocol: umbel.v1\r\n");
    wire.send(request.as_bytes());
    assert_eq!(wire.read_response().status, 101);
    let topics = first..first + TOPICS_OF_ONE;
    let commands =
        topics.map(|topic| format!(r#"{{"type":"subscribe","id":1,"topic":"t/{topic}"}}"#));
    let commands = commands.collect::<Vec<_>>().join(",");
    wire.send(&text(&format!("[{commands}]")));
    for _ in 0..TOPICS_OF_ONE {
        wire.read_frame();
    }
    wire
}

fn publish(server: &Server, first: usize, payload: &str) {
    let mut body = String::new();
    for topic in first..first + TOPICS_OF_ONE {
        writeln!(body, r#"{{"topic":"t/{topic}","data":"{payload}"}}"#).expect("a String takes it");
    }
    let length = body.len();
    let request =
        format!("POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
    let response = server.request(&request);
    assert!(!response.text().contains("error"), "{}", response.text());
}

/// Every publication is kept as it was published, and as `umbel.v1` and event streams have it, for as long as its history
/// keeps it.
#[test]
fn history_memory_within_limit() {
    rlimit::increase_nofile_limit(TOPICS as u64).expect("descriptors for the streams");
    let limit = HISTORY_BYTES_MAX.to_string();
    let rule = "t/** history=100000";
    let server = Server::start(&[
        "--history-bytes-total-max",
        &limit,
        "--topic-rule",
        rule,
        "--log-level",
        "info",
    ]);
    let _streams: Vec<_> = (0..TOPICS)
        .step_by(TOPICS_OF_ONE_STREAM)
        .map(|topic| EventStream::open(server.address(), &format!("/sse/t/{topic}")))
        .collect();
    let readers: Vec<_> = (0..TOPICS)
        .step_by(TOPICS_OF_ONE)
        .map(|first| {
            let mut wire = subscribe(&server, first);
            thread::spawn(move || {
                for _ in 0..ROUNDS * TOPICS_OF_ONE {
                    wire.read_frame();
                }
                wire
            })
        })
        .collect();
    let before = rss_bytes(server.pid());
    let payload = "x".repeat(400);
    let mut most = 0;
    for _ in 0..ROUNDS {
        for first in (0..TOPICS).step_by(TOPICS_OF_ONE) {
            publish(&server, first, &payload);
        }
        most = most.max(rss_bytes(server.pid()).saturating_sub(before));
    }
    let _wires: Vec<_> = readers
        .into_iter()
        .map(|reader| reader.join().expect("all is read"))
        .collect();
    let bytes = server.metric("umbel_history_bytes") as u64;
    eprintln!(
        "{} publications, {bytes} bytes, {most} resident",
        server.metric("umbel_history_publications")
    );
    assert!(
        bytes <= HISTORY_BYTES_MAX && bytes > HISTORY_BYTES_MAX / 2,
        "{bytes}"
    );
    assert!(
        most <= HISTORY_BYTES_MAX + HISTORY_BYTES_MAX / 4 + NOISE_BYTES,
        "{most} bytes resident"
    );
}
