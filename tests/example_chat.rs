//! The guide's chat: its login, its rooms and its kick.

#[expect(dead_code, reason = "its main serves for ever")]
#[path = "../src/guide/chat.rs"]
mod chat;
mod support;

use std::net::SocketAddr;

use support::peers::{Http, Incoming, WebSocket, connect};

/// Logs in; gives the cookie.
fn login(address: SocketAddr, body: &str) -> Result<String, u16> {
    let mut http = Http::connect(address);
    let length = body.len();
    let head = "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length:";
    http.send(format!("{head} {length}\r\n\r\n{body}").as_bytes());
    let answer = http.answer().expect("an answer");
    let cookie = answer.header("Set-Cookie").ok_or(answer.status)?;
    let (cookie, flags) = cookie.split_once(';').expect("it has flags");
    assert!(flags.contains("HttpOnly"), "{flags}");
    Ok(cookie.to_owned())
}

fn enter(address: SocketAddr, room: &str, cookie: &str) -> (u16, WebSocket) {
    let target = format!("/chat/{room} HTTP/1.1\r\nCookie: {cookie}\r\nX-Rest: ");
    WebSocket::try_open_on(connect(address, 0), &target)
}

#[test]
fn chat_with_login_rooms_and_kick() {
    let builder = chat::server().listen(SocketAddr::from(([127, 0, 0, 1], 0)));
    let server = builder.bind().expect("a free port");
    let server = server.spawn().expect("a thread");
    let address = server.local_addr();
    assert_eq!(login(address, "ann:banana"), Err(403));
    assert_eq!(enter(address, "tea", "login=guessed").0, 401);
    let cookies = ["ann:apple", "bob:banana", "host:hops"]
        .map(|body| login(address, body).expect("the right password"));
    let [mut ann, mut bob, mut host] =
        [0, 1, 2].map(|user: usize| enter(address, "tea", &cookies[user]).1);
    let mut elsewhere = enter(address, "coffee", &cookies[1]).1;
    ann.send_text("hello");
    for peer in [&mut ann, &mut bob, &mut host] {
        assert_eq!(peer.text(), "ann: hello");
    }
    bob.send_text("/kick ann");
    for peer in [&mut ann, &mut bob, &mut host] {
        assert_eq!(peer.text(), "bob: /kick ann", "he is not the host");
    }
    host.send_text("/kick bob");
    let kicked = || Incoming::Close(1008, "kicked".into());
    assert_eq!(bob.next(), kicked());
    assert_eq!(elsewhere.next(), kicked(), "in every room");
    assert_eq!(
        enter(address, "tea", &cookies[1]).0,
        401,
        "his login is gone"
    );
    ann.send_text("bye");
    assert_eq!(ann.text(), "ann: bye");
    drop((ann, bob, host, elsewhere));
    server.shutdown().expect("nothing failed");
}
