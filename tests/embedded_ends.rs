//! Ends of an embedded server: by its guard, by its handle, and by panics, of the program's code and of its own.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use support::embedded::{builder, config};
use support::peers::{Http, Incoming, WebSocket, connect};
use support::umbel_v1::Peer as ManyTopics;
use support::{PATIENCE, wait_until};
use umbel::internals::dialect::Command;
use umbel::internals::shared::brought::BroughtCommand;
use umbel::{
    AccessRequest, Action, Authorizer, Builder, CloseCode, CloseReason, ConnectionId, ControlError,
    Error, Filter, Handler, Identity, Message, Peer, PeerError, PublishError, PublishOptions,
    QueryError, ReceiptError, ReloadError, Request, RunningServer, Selector, Server, Verdict,
};

fn spawn(builder: Builder) -> RunningServer {
    let server = builder.bind().expect("a free port");
    server.spawn().expect("a thread")
}

/// One reactor, so that a message of another connection shows that it lives.
fn one_reactor() -> Builder {
    let mut config = config();
    config.reactors = 1;
    Server::builder().config(config)
}

#[test]
fn guard_ends_the_server() {
    let server = spawn(builder());
    let (handle, address) = (server.handle(), server.local_addr());
    let mut subscriber = WebSocket::open(address, "/ws/a");
    handle.publish("a", Message::Text("x")).expect("room");
    assert_eq!(subscriber.text(), "x");
    assert!(!handle.is_closed());
    drop(server);
    assert!(handle.is_closed());
    assert!(matches!(subscriber.next(), Incoming::Close(1001, _)));
    let closed = handle.publish("a", Message::Text("x"));
    assert_eq!(closed, Err(PublishError::Closed));
}

#[test]
fn handle_has_nothing_to_do_after_the_end() {
    let server = spawn(builder());
    let handle = server.handle();
    server.shutdown().expect("nothing failed");
    let nobody = || Selector::Subject("nobody".to_owned());
    let disconnected = handle.disconnect(nobody(), CloseCode::NORMAL, "");
    assert_eq!(disconnected, Err(PeerError::Closed));
    let sent = handle.send(nobody(), Message::Text("x"));
    assert_eq!(sent, Err(PeerError::Closed));
    let unsubscribed = handle.unsubscribe(nobody(), "a");
    assert_eq!(unsubscribed, Err(ControlError::Peer(PeerError::Closed)));
    let listed = handle.connections(&Filter::default(), None, 1, PATIENCE);
    assert_eq!(listed.err(), Some(QueryError::Closed));
    let generation = handle.generation();
    assert_eq!(handle.reload(config()), Err(ReloadError::Closed));
    assert_eq!(handle.generation(), generation);
}

#[test]
fn start_and_stop_within_milliseconds() {
    // On a machine that does much else beside, one of several is undisturbed.
    let quickest = (0..10).map(|_| {
        let start = Instant::now();
        spawn(builder()).shutdown().expect("nothing failed");
        start.elapsed()
    });
    let quickest = quickest.min().expect("there were ten");
    assert!(quickest < Duration::from_millis(50), "{quickest:?}");
}

#[test]
fn two_servers_in_one_process() {
    let (first, second) = (spawn(builder()), spawn(builder()));
    let mut peers = [&first, &second].map(|server| WebSocket::open(server.local_addr(), "/ws/a"));
    for (server, text) in [(&first, "1"), (&second, "2")] {
        let published = server.handle().publish("a", Message::Text(text));
        published.expect("room");
    }
    assert_eq!((peers[0].text(), peers[1].text()), ("1".into(), "2".into()));
    drop(first);
    assert!(matches!(peers[0].next(), Incoming::Close(1001, _)));
    second
        .handle()
        .publish("a", Message::Text("3"))
        .expect("room");
    assert_eq!(peers[1].text(), "3");
    drop(peers);
    second.shutdown().expect("nothing failed");
}

/// Nobody runs what was published, and the receipt says so once the server is gone.
#[test]
fn receipts_close_with_the_server() {
    let mut config = config();
    config.inline_shards = false;
    let server = Server::builder().config(config).bind().expect("a port");
    let handle = server.handle();
    let (options, receipt) = PublishOptions::new().with_receipt();
    let published = handle.publish_with("a", Message::Text("x"), options);
    published.expect("room");
    let waiting = receipt.wait(Duration::from_millis(1));
    assert_eq!(waiting, Err(ReceiptError::Timeout));
    drop(server);
    assert_eq!(receipt.wait(PATIENCE), Err(ReceiptError::Closed));
    let (options, receipt) = PublishOptions::new().with_receipt();
    let closed = handle.publish_with("a", Message::Text("x"), options);
    assert_eq!(closed, Err(PublishError::Closed));
    assert_eq!(receipt.wait(PATIENCE), Err(ReceiptError::Closed));
}

/// Publishes until it is told that the server is gone; every receipt is a report, or closed, never neither.
#[test]
fn publishers_hear_of_the_end() {
    for round in 0..20 {
        let server = spawn(builder());
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let handle = server.handle();
                thread::spawn(move || {
                    loop {
                        let (options, receipt) = PublishOptions::new().with_receipt();
                        match handle.publish_with("a", Message::Text("x"), options) {
                            Ok(()) => {
                                assert_ne!(receipt.wait(PATIENCE), Err(ReceiptError::Timeout));
                            }
                            Err(PublishError::Full) => {}
                            Err(error) => return error,
                        }
                    }
                })
            })
            .collect();
        // The end comes at another moment of the traffic each time.
        thread::sleep(Duration::from_millis(round % 5));
        match round % 2 == 0 {
            true => drop(server),
            false => server.shutdown().expect("nothing failed"),
        }
        for publisher in publishers {
            assert_eq!(publisher.join().expect("no panic"), PublishError::Closed);
        }
    }
}

/// A panic of the server's own ends it: here, of what a command of this crate's own tests brings.
#[test]
fn panic_of_a_thread_ends_the_server() {
    let server = spawn(builder());
    let handle = server.handle();
    let nobody = "0-0-0".parse().expect("a connection's name");
    let command = BroughtCommand::new(nobody, Command::Ping { id: None }, |_| panic!("on purpose"));
    handle.bring(command).expect("room");
    wait_until("the handle is closed", || handle.is_closed());
    let closed = handle.publish("a", Message::Text("x"));
    assert_eq!(closed, Err(PublishError::Closed));
    let error = server.join().expect_err("a reactor panicked");
    assert!(
        matches!(&error, Error::Panicked { thread } if thread == "umbel-reactor-0"),
        "{error}"
    );
}

/// Panics where it is told to.
#[derive(Default)]
struct Fragile {
    closed: Arc<AtomicUsize>,
}

impl Handler for Fragile {
    fn open(&self, peer: &mut Peer<'_>, _: &Request<'_>) {
        peer.send(Message::Text("hello")).expect("room");
    }

    fn message(&self, peer: &mut Peer<'_>, message: Message<'_>) {
        let before = peer.send(message);
        before.expect("room");
        assert_ne!(message, Message::Text("break"), "on purpose");
    }

    fn close(&self, _: ConnectionId, reason: CloseReason) {
        self.closed.fetch_add(1, Ordering::SeqCst);
        assert_ne!(reason, CloseReason::EmbedderPanic, "once more");
    }
}

fn panics(server: &RunningServer) -> u64 {
    let text = server.handle().metrics();
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("umbel_embedder_panics_total "));
    line.expect("it is shown").parse().expect("a count")
}

#[test]
fn handler_panic_ends_its_connection_only() {
    let closed = Arc::new(AtomicUsize::new(0));
    let fragile = Fragile {
        closed: Arc::clone(&closed),
    };
    let server = spawn(one_reactor().handler("/fragile", fragile));
    let before = panics(&server);
    let open = || {
        let mut peer = WebSocket::open(server.local_addr(), "/fragile");
        assert_eq!(peer.text(), "hello");
        peer
    };
    let (mut broken, mut whole) = (open(), open());
    broken.send_text("break");
    assert_eq!(broken.text(), "break", "what was sent before goes out");
    assert_eq!(
        broken.next(),
        Incoming::Close(1011, "internal error".into())
    );
    broken.answer_close(1011);
    wait_until("its close is called, and panics", || {
        closed.load(Ordering::SeqCst) == 1 && panics(&server) >= before + 2
    });
    whole.send_text("still here");
    assert_eq!(whole.text(), "still here");
    let text = server.handle().metrics();
    assert!(text.contains("umbel_closed_total{reason=\"embedder_panic\"} 1"));
    drop(whole);
    server.shutdown().expect("nothing failed");
}

/// Allows everything but what it panics at.
struct Shaky;

impl Authorizer for Shaky {
    fn authorize(&self, request: &AccessRequest<'_>) -> Verdict {
        let is_hit = matches!(
            request.action(),
            Action::Subscribe("bad") | Action::Publish("bad")
        );
        assert!(!is_hit, "on purpose");
        Verdict::Allow(Identity::anonymous())
    }
}

#[test]
fn authorizer_panic_is_no_right() {
    let server = spawn(one_reactor().authorizer(Shaky));
    let address = server.local_addr();
    assert_eq!(
        WebSocket::try_open_on(connect(address, 0), "/ws/bad").0,
        500
    );
    let refused = Http::connect(address).try_publish("bad", b"x");
    assert_eq!(refused.expect("an answer").status, 500);
    let mut many = ManyTopics::open(address);
    many.send(&json!({"type": "subscribe", "id": 1, "topic": "bad"}));
    assert_eq!(many.next()["code"], "unavailable");
    assert_eq!(many.close_code(), 1011);
    let mut peer = WebSocket::open(address, "/ws/good");
    peer.send_text("x");
    assert_eq!(peer.text(), "x");
    drop(peer);
    server.shutdown().expect("nothing failed");
}

#[test]
fn receipt_panic_is_caught() {
    let server = spawn(builder());
    let before = panics(&server);
    for _ in 0..3 {
        let options = PublishOptions::new().on_receipt(|_| panic!("on purpose"));
        let published = server
            .handle()
            .publish_with("a", Message::Text("x"), options);
        published.expect("room");
    }
    wait_until("all are caught", || panics(&server) >= before + 3);
    server.shutdown().expect("nothing failed");
}
