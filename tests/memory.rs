//! Memory of an idle connection: resident bytes of the whole process past its start.

mod support;

use support::peers::{WebSocket, connect};
use support::process::rss_bytes;
use support::umbel_v1::{JSON, offer};
use support::{Server, wait_until};

/// Enough for what the process grows by once, such as a read buffer, to weigh little.
const CONNECTIONS: usize = 8000;

/// Bytes that scrapes of metrics and the log may move.
const NOISE_BYTES: u64 = 128 * 1024;

/// Resident bytes that each may cost.
const BYTES_MAX: u64 = 400;

fn wait_for_subscribers(server: &Server, count: usize) {
    let subscribers = "umbel_connections{state=\"open\",dialect=\"raw\"}";
    wait_until("all are counted", || {
        server.metric(subscribers) == count as f64
    });
}

#[test]
fn idle_subscriber_memory() {
    rlimit::increase_nofile_limit(CONNECTIONS as u64 + 1000).expect("descriptors for the peers");
    let server = Server::start(&["--reactors", "1"]);
    let before = rss_bytes(server.pid());
    let mut peers: Vec<_> = (0..CONNECTIONS)
        .map(|_| WebSocket::open(server.address(), "/ws/idle"))
        .collect();
    wait_for_subscribers(&server, CONNECTIONS);
    let all = rss_bytes(server.pid()).saturating_sub(before);
    assert!(
        all <= BYTES_MAX * CONNECTIONS as u64,
        "{all} bytes for {CONNECTIONS} connections"
    );
    peers.truncate(CONNECTIONS / 2);
    wait_for_subscribers(&server, CONNECTIONS / 2);
    let half = rss_bytes(server.pid()).saturating_sub(before);
    assert!(
        half <= all + NOISE_BYTES,
        "{half} bytes for the half that is left, {all} for all"
    );
    // Who comes back finds the places of those that left.
    peers.extend((0..CONNECTIONS / 2).map(|_| WebSocket::open(server.address(), "/ws/idle")));
    wait_for_subscribers(&server, CONNECTIONS);
    let again = rss_bytes(server.pid()).saturating_sub(before);
    assert!(
        again <= BYTES_MAX * CONNECTIONS as u64,
        "{again} bytes for {CONNECTIONS} connections, half of them new"
    );
}

/// The opener of a connection of many topics is known by a token, or not at all: its request is not kept.
#[test]
fn connection_of_many_topics_keeps_no_head() {
    const MANY: usize = 1000;
    const HEAD_BYTES: usize = 12_000;
    let server = Server::start(&["--reactors", "1", "--subscribe-token", "t"]);
    let lines = format!("X-Pad: {}\r\n{}", "x".repeat(HEAD_BYTES), offer(JSON));
    let open = || {
        let stream = connect(server.address(), 0);
        let (head, socket) = WebSocket::offer_on(stream, "/ws?token=t", &lines);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        socket
    };
    let _first = open();
    let before = rss_bytes(server.pid());
    let _peers: Vec<_> = (0..MANY).map(|_| open()).collect();
    let grown = rss_bytes(server.pid()).saturating_sub(before);
    assert!(
        grown < (MANY * HEAD_BYTES / 4) as u64,
        "{grown} bytes for {MANY} connections with heads of {HEAD_BYTES}"
    );
}
