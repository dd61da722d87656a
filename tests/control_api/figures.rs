//! Figures that the control API tells.

use serde_json::Value;
use umbel::Message;

use crate::client::{Api, finish, start};
use crate::support::peers::WebSocket;
use crate::support::wait_until;

#[test]
fn bytes_of_connection() {
    let server = start();
    let mut api = Api::of(server.address, "operator");
    let mut raw = WebSocket::open(server.address, "/ws/rooms/9");
    let text = "x".repeat(10_000);
    server
        .handle
        .publish("rooms/9", Message::Text(&text))
        .expect("room");
    assert_eq!(raw.text(), text);
    let row = &api.connections("&topic=rooms%2F9")[0];
    let bytes = |name: &str| {
        row[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {row}"))
    };
    assert!((10_000..20_000).contains(&bytes("sent_bytes")), "{row}");
    assert!((50..10_000).contains(&bytes("received_bytes")), "{row}");
    finish(server);
}

#[test]
fn stats_by_listener_and_load() {
    let server = start();
    let mut api = Api::of(server.address, "operator");
    let sockets: Vec<_> = (0..3)
        .map(|_| WebSocket::open(server.address, "/ws/rooms/1"))
        .collect();
    let by_listener = |stats: &Value| -> i64 {
        let counts = stats["connections"]["by_listener"]
            .as_object()
            .expect("one");
        counts.values().filter_map(Value::as_i64).sum()
    };
    let stats = api.get("/stats");
    assert_eq!(by_listener(&stats), 4, "{stats}");
    for reactor in stats["reactors"].as_array().expect("a list") {
        let load = reactor["load"].as_f64().expect("a number");
        assert!((0.0..=1.0).contains(&load), "{stats}");
    }
    drop(sockets);
    wait_until("they are counted no more", || {
        by_listener(&api.get("/stats")) == 1
    });
    finish(server);
}
