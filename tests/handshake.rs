//! The opening handshake (RFC 6455 section 4) from outside.

mod support;

use support::{Server, canary};

#[test]
fn smoke() {
    let server = Server::start(&[]);
    canary::beside(&server, 0, || {
        let mut websocket = server.websocket("/echo");
        websocket
            .send(tungstenite::Message::text("hello"))
            .expect("sent");
        assert_eq!(
            websocket.read().expect("echoed"),
            tungstenite::Message::text("hello")
        );
    });
    assert_eq!(
        server.metric("umbel_closed_total{reason=\"protocol\"}"),
        0.0
    );
}
