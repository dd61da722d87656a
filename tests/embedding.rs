//! The server inside another program: [`umbel::Server`], its [`Handle`] from several threads, own endpoints and own
//! decisions about who may do what.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use support::embedded::{Embedded, builder, config};
use support::peers::{Http, Incoming, WebSocket, connect};
use support::umbel_v1::{JSON, Peer as ManyTopics, offer};
use support::{frames, wait_until};
use umbel::access::{AccessRequest, Action, Authorizer, Denied, Identity, Verdict};
use umbel::handler::PeerFull;
use umbel::{
    Access, CloseCode, CloseReason, ConnectionId, Handler, Listener, Message, Peer, PublishError,
    PublishOptions, Request, Server,
};

#[test]
fn publish_from_many_threads() {
    const PUBLISHERS: usize = 4;
    const MESSAGES: usize = 500;
    let server = Embedded::start(builder());
    let mut subscribers: Vec<_> = (0..4)
        .map(|_| WebSocket::open(server.address, "/ws/a"))
        .collect();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|name| {
            let handle = server.handle.clone();
            thread::spawn(move || {
                for number in 0..MESSAGES {
                    let text = format!("{name} {number}");
                    while handle.publish("a", Message::Text(&text)) == Err(PublishError::Full) {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let order: Vec<String> = (0..PUBLISHERS * MESSAGES)
        .map(|_| subscribers[0].text())
        .collect();
    let mut next = [0; PUBLISHERS];
    for text in &order {
        let (name, number) = text.split_once(' ').expect("name number");
        let name: usize = name.parse().expect("a number");
        assert_eq!(number.parse(), Ok(next[name]));
        next[name] += 1;
    }
    assert_eq!(next, [MESSAGES; PUBLISHERS]);
    for other in &mut subscribers[1..] {
        assert!(order.iter().all(|text| other.text() == *text));
    }
    for publisher in publishers {
        publisher.join().expect("no panic");
    }
    server
        .handle
        .publish("a", Message::Binary(&[0, 255]))
        .expect("room");
    assert_eq!(subscribers[0].next(), Incoming::Binary(vec![0, 255]));
    drop(subscribers);
    server.end();
}

#[test]
fn publish_errors() {
    let mut config = config();
    config.limits.publication_bytes_max = 1000;
    let server = Embedded::start(Server::builder().config(config));
    let handle = &server.handle;
    let empty = handle.publish("", Message::Text("x"));
    assert!(
        matches!(empty, Err(PublishError::InvalidTopic(_))),
        "{empty:?}"
    );
    let control = handle.publish("a\nb", Message::Text("x"));
    assert!(matches!(control, Err(PublishError::InvalidTopic(_))));
    let long = handle.publish(&"t".repeat(256), Message::Text("x"));
    assert!(matches!(long, Err(PublishError::InvalidTopic(_))));
    let big = handle.publish("a", Message::Binary(&[0; 1001]));
    let too_big = PublishError::TooBig {
        bytes: 1001,
        bytes_max: 1000,
    };
    assert_eq!(big, Err(too_big));
    assert!(big.expect_err("too big").to_string().contains("1000"));
    assert_eq!(handle.publish("a", Message::Binary(&[0; 1000])), Ok(()));
    server.end();
}

/// Before anybody runs the shards the queue fills up, and says so instead of growing.
#[test]
fn publish_receipts() {
    let server = Embedded::start(builder());
    let mut subscribers: Vec<_> = (0..4)
        .map(|_| WebSocket::open(server.address, "/ws/a"))
        .collect();
    let deadline = Duration::from_secs(10);
    let (options, receipt) = PublishOptions::new().key("key").with_receipt();
    server
        .handle
        .publish_with("a", Message::Text("one"), options)
        .expect("it can be published");
    let report = receipt.wait(deadline).expect("it is written to everybody");
    assert_eq!((report.matched, report.written), (4, 4));
    assert_eq!((report.queued, report.dropped), (0, 0));
    assert_eq!(report.position.offset, 1);
    assert!(report.first_write_us <= report.last_write_us && report.last_write_us.is_some());
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.text(), "one");
    }
    let (options, receipt) = PublishOptions::new().with_receipt();
    server
        .handle
        .publish_with("nobody", Message::Binary(&[1]), options)
        .expect("it can be published");
    let report = receipt.wait(deadline).expect("there is nobody to wait for");
    assert_eq!((report.matched, report.last_write_us), (0, None));
    let error = server
        .handle
        .publish_with(
            "a",
            Message::Text("x"),
            PublishOptions::new().key("no\nkey"),
        )
        .expect_err("a control character");
    assert!(matches!(error, PublishError::InvalidKey(_)), "{error}");
    server.end();
}

#[test]
fn full_hub_never_blocks() {
    let mut config = config();
    config.inline_shards = false;
    config.limits.commands_max = 16;
    let server = Server::builder()
        .config(config)
        .bind()
        .expect("a free port");
    let handle = server.handle();
    let outcomes: Vec<_> = (0..17)
        .map(|_| handle.publish("a", Message::Text("x")))
        .collect();
    assert!(outcomes[..16].iter().all(Result::is_ok));
    assert_eq!(outcomes[16], Err(PublishError::Full));
    handle.shutdown_now();
    server.run().expect("it ends at once");
}

#[test]
fn counts() {
    let server = Embedded::start(builder());
    let mut first = WebSocket::open(server.address, "/ws/a");
    let second = WebSocket::open(server.address, "/ws/a");
    first.send_text("hello");
    assert_eq!(first.text(), "hello");
    wait_until("all is counted", || {
        let counts = server.handle.counts();
        (
            counts.connections,
            counts.accepted,
            counts.messages_received,
            counts.deliveries,
        ) == (2, 2, 1, 2)
    });
    let counts = server.handle.counts();
    assert_eq!((counts.slow_consumers, counts.outbox_bytes), (0, 0));
    assert!(server.handle.metrics().contains("umbel_deliveries_total 2"));
    drop((first, second));
    wait_until("both are gone", || server.handle.counts().connections == 0);
    server.end();
}

#[derive(Default)]
struct Calls {
    opened: AtomicUsize,
    messages: AtomicUsize,
    closed: AtomicUsize,
    closed_by_handler: AtomicUsize,
}

/// Greets, sends everything back twice, and closes with 4000 when told `bye`.
struct Twice(Arc<Calls>);

impl Handler for Twice {
    fn subprotocols(&self) -> &[&str] {
        &["twice"]
    }

    fn open(&self, peer: &mut Peer<'_>, _: &Request<'_>) {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        peer.send(Message::Text("hello")).expect("room");
    }

    fn message(&self, peer: &mut Peer<'_>, message: Message<'_>) {
        self.0.messages.fetch_add(1, Ordering::SeqCst);
        if message == Message::Text("bye") {
            return peer.close(CloseCode::new(4000), "as you wish");
        }
        let sent: Result<(), PeerFull> = peer.send(message).and_then(|()| peer.send(message));
        sent.expect("room");
    }

    fn close(&self, _connection: ConnectionId, reason: CloseReason) {
        self.0.closed.fetch_add(1, Ordering::SeqCst);
        if matches!(reason, CloseReason::Handler(code) if code == CloseCode::new(4000)) {
            self.0.closed_by_handler.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn handler_open_message_close() {
    let calls = Arc::new(Calls::default());
    let server = Embedded::start(builder().handler("/twice", Twice(Arc::clone(&calls))));
    let mut sockets: Vec<_> = (0..10)
        .map(|_| WebSocket::open(server.address, "/twice"))
        .collect();
    for socket in &mut sockets {
        assert_eq!(socket.text(), "hello");
        socket.send(frames::BINARY, &[1, 2]);
        assert_eq!(socket.next(), Incoming::Binary(vec![1, 2]));
        assert_eq!(socket.next(), Incoming::Binary(vec![1, 2]));
    }
    for mut socket in sockets.drain(..5) {
        socket.send_text("bye");
        assert_eq!(
            socket.next(),
            Incoming::Close(4000, "as you wish".to_owned())
        );
        socket.answer_close(4000);
    }
    // The others go without a word, or with the server.
    drop(sockets.split_off(2));
    wait_until("those that are gone are counted", || {
        calls.closed.load(Ordering::SeqCst) == 8
    });
    server.handle.shutdown();
    for mut socket in sockets {
        assert!(matches!(socket.next(), Incoming::Close(1001, _)));
        socket.answer_close(1001);
    }
    server.end();
    assert_eq!(calls.opened.load(Ordering::SeqCst), 10);
    assert_eq!(calls.messages.load(Ordering::SeqCst), 15);
    assert_eq!(calls.closed.load(Ordering::SeqCst), 10);
    assert_eq!(calls.closed_by_handler.load(Ordering::SeqCst), 5);
}

/// Every `open` has its `close`, also where the server ends before the peer does.
#[test]
fn handler_close_on_immediate_shutdown() {
    let calls = Arc::new(Calls::default());
    let server = Embedded::start(builder().handler("/twice", Twice(Arc::clone(&calls))));
    let mut sockets: Vec<_> = (0..4)
        .map(|_| WebSocket::open(server.address, "/twice"))
        .collect();
    for socket in &mut sockets {
        assert_eq!(socket.text(), "hello");
    }
    server.handle.shutdown_now();
    for socket in &mut sockets {
        assert!(matches!(socket.next(), Incoming::Close(1001, _)));
        assert_eq!(socket.next(), Incoming::End);
    }
    server.end();
    assert_eq!(calls.opened.load(Ordering::SeqCst), 4);
    assert_eq!(calls.closed.load(Ordering::SeqCst), 4);
}

/// Reads the cookie `user`: anybody with one may subscribe, `root` may publish but to `sealed`, and everybody may look.
struct Cookies;

impl Authorizer for Cookies {
    fn authorize(&self, request: &AccessRequest<'_>) -> Verdict {
        match (request.action(), request.cookie("user")) {
            (Action::Observe, _) => Verdict::Allow(Identity::anonymous()),
            (_, None) => Verdict::Deny(Denied::Unauthenticated("log in first".into())),
            (Action::Subscribe(topic), Some(user)) if topic.starts_with("private") => {
                match topic.ends_with(user) {
                    true => Verdict::Allow(Identity::anonymous()),
                    false => Verdict::Deny(Denied::Forbidden("not yours".into())),
                }
            }
            (Action::Publish("sealed"), _) => {
                Verdict::Deny(Denied::Forbidden("it is sealed".into()))
            }
            (Action::Publish(_) | Action::PublishMany, Some(user)) if user != "root" => {
                Verdict::Deny(Denied::Forbidden("only root publishes".into()))
            }
            _ => Verdict::Allow(Identity::anonymous()),
        }
    }
}

fn upgrade_with(address: SocketAddr, target: &str, cookie: &str) -> (u16, WebSocket) {
    // The target is the rest of the request line, so a header fits behind it.
    let target = format!("{target} HTTP/1.1\r\nCookie: {cookie}\r\nX-Rest: ");
    WebSocket::try_open_on(connect(address, 0), &target)
}

#[test]
fn authorizer_by_cookie() {
    let server = Embedded::start(builder().authorizer(Cookies));
    let address = server.address;
    let status = |target: &str, cookie: &str| upgrade_with(address, target, cookie).0;
    assert_eq!(status("/ws/a", "theme=dark"), 401);
    assert_eq!(status("/ws/private-bob", "user=alice"), 403);
    assert_eq!(status("/ws/private-alice", "theme=dark; user=alice"), 101);
    assert_eq!(status("/echo", "user=alice"), 101);
    let (status, mut alice) = upgrade_with(address, "/ws/a", "user=alice");
    assert_eq!(status, 101);
    let publish = |cookie: &str| {
        let mut http = Http::connect(address);
        let head = "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nCookie:";
        http.send(format!("{head} {cookie}\r\n\r\nhi").as_bytes());
        http.answer().expect("an answer").status
    };
    assert_eq!(publish("a=b"), 401);
    assert_eq!(publish("user=alice"), 403);
    assert_eq!(publish("user=root"), 200);
    assert_eq!(alice.text(), "hi");
    alice.send_text("may I?");
    assert!(matches!(alice.next(), Incoming::Close(1008, _)));
    let (_, mut root) = upgrade_with(address, "/ws/a", "user=root");
    root.send_text("I may");
    assert_eq!(root.text(), "I may");
    assert_eq!(Http::connect(address).get("/metrics").status, 200);
    drop((alice, root));
    server.end();
}

/// Each command is judged by the headers of the request that opened the connection, and each line of a body by those of
/// its request.
#[test]
fn authorizer_sees_headers_at_later_commands() {
    let server = Embedded::start(builder().authorizer(Cookies));
    let address = server.address;
    let open = |cookie: &str| {
        let target = format!("/ws HTTP/1.1\r\nCookie: {cookie}\r\nX-Rest: ");
        ManyTopics::open_at(address, &target, JSON)
    };
    let publish = |topic: &str| json!({"type": "publish", "id": 2, "topic": topic, "data": "x"});
    let (mut alice, mut root) = (open("user=alice"), open("user=root"));
    for _ in 0..2 {
        let bobs = json!({"type": "subscribe", "id": 1, "topic": "private-bob"});
        assert_eq!(alice.error(&bobs), "forbidden");
        assert_eq!(alice.error(&publish("a")), "forbidden");
        assert_eq!(root.error(&publish("sealed")), "forbidden");
    }
    alice.subscribe("private-alice");
    root.publish("private-alice", "hello");
    assert_eq!(alice.publication().1, "hello");
    let mut http = Http::connect(address);
    let lines =
        "{\"topic\":\"sealed\",\"data\":\"1\"}\n{\"topic\":\"private-alice\",\"data\":\"2\"}";
    let head = "POST /pub HTTP/1.1\r\nHost: localhost\r\nCookie: user=root\r\nContent-Length:";
    // On one connection, so that each request is judged by its own head.
    for (cookie, status) in [("root", 200), ("alice", 403), ("root", 200)] {
        let head = head.replace("root", cookie);
        http.send(format!("{head} {}\r\n\r\n{lines}", lines.len()).as_bytes());
        let answer = http.answer().expect("an answer");
        assert_eq!(answer.status, status, "{cookie}");
        if status == 403 {
            http = Http::connect(address);
            continue;
        }
        let body = String::from_utf8(answer.body).expect("JSON is UTF-8");
        assert!(body.contains("it is sealed"), "{body}");
        assert_eq!(alice.publication().1, "2");
    }
    drop((alice, root, http));
    server.end();
}

#[test]
fn heads_kept_for_authorizer_bounded_and_freed() {
    let mut config = config();
    config.limits.authorizer_head_bytes_total_max = 700;
    let server = Embedded::start(Server::builder().config(config).authorizer(Cookies));
    let address = server.address;
    let lines = format!(
        "Cookie: user=root\r\nX-Pad: {}\r\n{}",
        "x".repeat(200),
        offer(JSON)
    );
    let open = || WebSocket::offer_on(connect(address, 0), "/ws", &lines);
    let (head, first) = open();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (head, _) = open();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let publish = || {
        let mut http = Http::connect(address);
        let body = r#"{"topic":"a","data":"1"}"#;
        let length = body.len();
        http.send(
            format!(
                "POST /pub HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        );
        http.answer().expect("an answer")
    };
    // So is one whose lines will be asked about, until there is room; what is asked about once needs none.
    for _ in 0..3 {
        assert_eq!(publish().status, 200, "it fits beside the connection");
    }
    let (head, second) = {
        let short = format!("Cookie: user=root\r\n{}", offer(JSON));
        WebSocket::offer_on(connect(address, 0), "/ws", &short)
    };
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let refused = publish();
    assert_eq!(refused.status, 503);
    let words = String::from_utf8(refused.body).expect("text");
    assert!(words.contains("authorizer_head_bytes_total_max"), "{words}");
    assert_eq!(upgrade_with(address, "/ws/a", "user=root").0, 101);
    drop(first);
    wait_until("the head of who left is given back", || {
        publish().status == 200
    });
    drop(second);
    server.end();
}

#[test]
fn drop_without_run() {
    drop(builder().bind().expect("a free port"));
    let taken = builder().bind().expect("a free port");
    let mut config = config();
    config.reactors = 1;
    config.listeners = vec![Listener::new(taken.local_addr())];
    let error = Server::builder().config(config).bind().err();
    let error = error.expect("the port is taken").to_string();
    assert!(error.contains(&taken.local_addr().to_string()), "{error}");
}

#[test]
fn unreachable_handler() {
    let long = format!("/{}", "x".repeat(9000));
    for (path, why) in [
        ("twice", "begins with /"),
        ("", "begins with /"),
        ("/ws/x", "/ws/"),
        ("/ws", "/ws"),
        ("/ws/", "/ws/"),
        ("/pub/x", "/pub/"),
        ("/sse", "/sse"),
        ("/sse/x", "/sse/"),
        ("/topics", "/topics"),
        ("/topics/x", "/topics/"),
        ("/health", "/health"),
        ("/ready", "/ready"),
        ("/metrics", "/metrics"),
        ("/", "console"),
        ("/console", "console"),
        ("/console/x", "console"),
        ("/umbel.js", "/umbel.js"),
        ("/a b", "%20"),
        ("/\u{fc}", "%C3%BC"),
        ("/a\nb", "%0A"),
        ("/room/{id}", "%7B"),
        ("/a?b=1", "query"),
        ("/a#b", "%23"),
        (&long, "target_bytes_max"),
    ] {
        let error = builder().handler(path, umbel::handler::Echo).bind();
        let error = error.err().map(|error| error.to_string());
        let error = error.unwrap_or_else(|| panic!("{path:?} is refused"));
        let shown = format!("handler = {}: ", path.escape_debug());
        assert!(error.starts_with(&shown) && error.contains(why), "{error}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
    for path in [
        "/echo",
        "/wsx",
        "/ws.x",
        "//ws/x",
        "/a%20b",
        "/a/../b",
        "/WS/x",
        "/metrics/x",
    ] {
        let server = Embedded::start(builder().handler(path, umbel::handler::Echo));
        let mut peer = WebSocket::open(server.address, path);
        peer.send_text("reached");
        assert_eq!(peer.text(), "reached", "{path}");
        drop(peer);
        server.end();
    }
}

#[test]
fn public_address_needs_policy() {
    let mut config = config();
    config.listeners = vec![Listener::new(SocketAddr::from(([0, 0, 0, 0], 0)))];
    let refused = Server::builder().config(config.clone()).bind();
    assert!(refused.is_err());
    config.publish = Some(Access::Nobody);
    config.subscribe = Some(Access::Anyone);
    config.origins = Some(umbel::Origins::Any);
    let server = Embedded::start(Server::builder().config(config));
    let address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    let mut subscriber = WebSocket::open(address, "/ws/a");
    server
        .handle
        .publish("a", Message::Text("x"))
        .expect("room");
    assert_eq!(subscriber.text(), "x");
    subscriber.send_text("y");
    assert!(matches!(subscriber.next(), Incoming::Close(1008, _)));
    subscriber.answer_close(1008);
    server.end();
}

/// Publications are delivered before connections are closed, however closely the shutdown follows.
#[test]
fn shutdown_by_handle_delivers_first() {
    for round in 0..20 {
        let mut config = config();
        config.inline_shards = round % 2 == 0;
        let server = Embedded::start(Server::builder().config(config));
        let mut subscriber = WebSocket::open(server.address, "/ws/a");
        for number in 0..100 {
            let text = number.to_string();
            let published = server.handle.publish("a", Message::Text(&text));
            published.expect("room");
        }
        server.handle.shutdown();
        let (texts, end) = subscriber.texts();
        assert_eq!(texts.len(), 100);
        assert!(matches!(end, Incoming::Close(1001, _)), "{end:?}");
        subscriber.answer_close(CloseCode::GOING_AWAY.get());
        server.end();
    }
}
