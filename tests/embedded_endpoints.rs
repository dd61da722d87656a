//! Endpoints of an embedding program: what its handlers see of a request, handles of their peers, and plain HTTP routes.

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use support::embedded::{builder, config};
use support::peers::{Http, Incoming, WebSocket, connect};
use support::wait_until;
use umbel::{
    AccessRequest, Action, Authorizer, Builder, CloseCode, CloseReason, ConnectionId, Denied,
    Handler, Identity, Message, Peer, PeerError, PeerHandle, Request, Response, RunningServer,
    Server, Verdict,
};

fn spawn(builder: Builder) -> RunningServer {
    let server = builder.bind().expect("a free port");
    server.spawn().expect("a thread")
}

/// Says what it sees of the request that opens.
struct Mirror(&'static str);

impl Handler for Mirror {
    fn open(&self, peer: &mut Peer<'_>, request: &Request<'_>) {
        let port = request.peer_addr().map(|address| address.port());
        let text = format!(
            "{} {} {} rest={} query={} a={:?} x={:?} user={:?} port={port:?} listener={}",
            self.0,
            request.method(),
            request.path(),
            request.rest(),
            request.query(),
            request.parameter("a"),
            request.headers("x-many").collect::<Vec<_>>(),
            request.cookie("user"),
            request.listener(),
        );
        peer.send(Message::Text(&text)).expect("room");
    }

    fn message(&self, _: &mut Peer<'_>, _: Message<'_>) {}
}

#[test]
fn handler_sees_the_request() {
    let server = spawn(builder().handler("/see/*", Mirror("mirror")));
    let stream = connect(server.local_addr(), 0);
    let port = stream.local_addr().expect("it is connected").port();
    let target = "/see/a%20b/c?a=1%202&b=3 HTTP/1.1\r\nX-Many: 1\r\nx-many: 2\r\nCookie: t=d; user=ann\r\nX-Rest: ";
    let (status, mut peer) = WebSocket::try_open_on(stream, target);
    assert_eq!(status, 101);
    let expected = format!(
        "mirror GET /see/a%20b/c rest=a%20b/c query=a=1%202&b=3 a=Some(\"1 2\") x=[\"1\", \"2\"] user=Some(\"ann\") \
         port=Some({port}) listener={}",
        server.listeners()[0].name()
    );
    assert_eq!(peer.text(), expected);
    drop(peer);
    server.shutdown().expect("nothing failed");
}

#[test]
fn longest_path_comes_first() {
    let server = spawn(
        builder()
            .handler("/*", Mirror("any"))
            .handler("/a/*", Mirror("a"))
            .handler("/a/b*", Mirror("ab"))
            .handler("/a/bc", Mirror("exact")),
    );
    for (path, name) in [
        ("/x", "any"),
        ("/a", "any"),
        ("/a/", "a"),
        ("/a/x", "a"),
        ("/a/b", "ab"),
        ("/a/bcd", "ab"),
        ("/a/bc", "exact"),
        ("/wsx", "any"),
    ] {
        let mut peer = WebSocket::open(server.local_addr(), path);
        let text = peer.text();
        assert!(text.starts_with(&format!("{name} GET {path} ")), "{text}");
    }
    // The server's own paths stay its own.
    let mut topic = WebSocket::open(server.local_addr(), "/ws/a");
    server
        .handle()
        .publish("a", Message::Text("x"))
        .expect("room");
    assert_eq!(topic.text(), "x");
    drop(server);
    for path in ["/ws/*", "/pub/*", "/console/*", "/ws/a*"] {
        let refused = builder().handler(path, Mirror("")).bind();
        let error = refused.expect_err("no request would get there").to_string();
        assert!(error.contains("no request would reach"), "{error}");
    }
}

/// Peers by what they said their names are.
#[derive(Default)]
struct Names {
    peers: Mutex<HashMap<String, PeerHandle>>,
    closed: Mutex<Vec<ConnectionId>>,
    writable: Mutex<Vec<ConnectionId>>,
}

impl Names {
    fn get(&self, name: &str) -> PeerHandle {
        wait_until("the peer is known", || self.lock().contains_key(name));
        self.lock()[name].clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, PeerHandle>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ByName(Arc<Names>);

impl Handler for ByName {
    fn open(&self, peer: &mut Peer<'_>, request: &Request<'_>) {
        self.0
            .lock()
            .insert(request.rest().to_owned(), peer.handle());
    }

    fn message(&self, peer: &mut Peer<'_>, message: Message<'_>) {
        peer.send(message).expect("room");
    }

    fn writable(&self, peer: &mut Peer<'_>) {
        self.0.writable.lock().expect("no panic").push(peer.id());
    }

    fn close(&self, connection: ConnectionId, _: CloseReason) {
        self.0.closed.lock().expect("no panic").push(connection);
    }
}

#[test]
fn handles_send_and_close_from_any_thread() {
    let names = Arc::new(Names::default());
    let server = spawn(builder().handler("/n/*", ByName(Arc::clone(&names))));
    let mut peers: Vec<_> = ["ann", "bob"]
        .map(|name| WebSocket::open(server.local_addr(), &format!("/n/{name}")))
        .into();
    let senders = ["ann", "bob"].map(|name| {
        let handle = names.get(name);
        thread::spawn(move || {
            for number in 0..100 {
                let text = format!("{name} {number}");
                while matches!(
                    handle.send(Message::Text(&text)),
                    Err(PeerError::Full | PeerError::Busy)
                ) {
                    thread::yield_now();
                }
            }
        })
    });
    for (peer, name) in peers.iter_mut().zip(["ann", "bob"]) {
        for number in 0..100 {
            assert_eq!(peer.text(), format!("{name} {number}"));
        }
    }
    for sender in senders {
        sender.join().expect("no panic");
    }
    let (ann, bob) = (names.get("ann"), names.get("bob"));
    wait_until("nothing waits", || ann.queued_bytes() == 0);
    assert!(!ann.is_closed());
    ann.send(Message::Binary(&[0, 255])).expect("room");
    let kicked = ann.close(CloseCode::POLICY_VIOLATION, "kicked");
    kicked.expect("room");
    assert_eq!(peers[0].next(), Incoming::Binary(vec![0, 255]));
    let close = Incoming::Close(1008, "kicked".into());
    assert_eq!(peers[0].next(), close);
    peers.remove(0).answer_close(1008);
    wait_until("it is gone", || ann.is_closed());
    assert_eq!(ann.send(Message::Text("x")), Err(PeerError::Closed));
    assert_eq!(*names.closed.lock().expect("no panic"), [ann.id()]);
    bob.send(Message::Text("still here")).expect("room");
    assert_eq!(peers[0].text(), "still here");
    drop(server);
    wait_until("the other one too", || bob.is_closed());
}

#[test]
fn handle_is_full_until_writable() {
    let names = Arc::new(Names::default());
    let mut config = config();
    config.limits.outbox_bytes_max = 1 << 20;
    config.limits.publication_bytes_max = 1 << 16;
    let builder = Server::builder().config(config);
    let server = spawn(builder.handler("/n/*", ByName(Arc::clone(&names))));
    let mut peer = WebSocket::open_on(connect(server.local_addr(), 4096), "/n/slow");
    let handle = names.get("slow");
    let message = vec![7; 60_000];
    let mut sent = 0;
    // The kernel takes a part, and the outbox the rest.
    wait_until("it takes no more", || {
        while handle.send(Message::Binary(&message)) == Ok(()) {
            sent += 1;
        }
        handle.queued_bytes() > (1 << 20) - 60_000
    });
    assert_eq!(handle.send(Message::Binary(&message)), Err(PeerError::Full));
    assert!(
        handle.queued_bytes() <= 1 << 21,
        "{}",
        handle.queued_bytes()
    );
    for _ in 0..sent {
        assert!(matches!(peer.next(), Incoming::Binary(bytes) if bytes.len() == 60_000));
    }
    wait_until("its handler hears of it", || {
        !names.writable.lock().expect("no panic").is_empty()
    });
    wait_until("nothing waits", || handle.queued_bytes() == 0);
    handle.send(Message::Text("again")).expect("room again");
    assert_eq!(peer.text(), "again");
    drop(peer);
    server.shutdown().expect("nothing failed");
}

fn answer(request: &Request<'_>) -> Response {
    match (request.method(), request.rest()) {
        ("POST", "upper") => {
            let text = String::from_utf8_lossy(request.body()).to_uppercase();
            Response::text(201, text).header("X-User", request.cookie("user").unwrap_or("none"))
        }
        ("GET", "page") => Response::new(200, "text/html", &b"<p>hello"[..]),
        ("GET", "broken") => Response::text(200, "x").header("Content-Length", "9"),
        ("GET", "panic") => panic!("on purpose"),
        (method, rest) => Response::text(404, format!("no {method} of {rest}\n")),
    }
}

fn exchange(server: &RunningServer, head: &str, body: &str) -> (u16, String) {
    let mut http = Http::connect(server.local_addr());
    let length = body.len();
    let request = format!("{head}\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
    http.send(request.as_bytes());
    let answer = http.answer().expect("an answer");
    (answer.status, String::from_utf8(answer.body).expect("text"))
}

#[test]
fn routes_answer_requests() {
    let server = spawn(builder().route("/api/*", answer));
    let page = exchange(&server, "GET /api/page HTTP/1.1", "");
    assert_eq!(page, (200, "<p>hello".to_owned()));
    let upper = exchange(&server, "POST /api/upper HTTP/1.1", "shout");
    assert_eq!(upper, (201, "SHOUT".to_owned()));
    let long = "x".repeat(100_000);
    let upper = exchange(&server, "POST /api/upper HTTP/1.1", &long);
    assert_eq!(upper, (201, "X".repeat(100_000)));
    let other = exchange(&server, "DELETE /api/page HTTP/1.1", "");
    assert_eq!(other, (404, "no DELETE of page\n".to_owned()));
    for path in ["/api/broken", "/api/panic"] {
        let (status, _) = exchange(&server, &format!("GET {path} HTTP/1.1"), "");
        assert_eq!(status, 500, "{path}");
    }
    // On one connection, with its headers; a page of a foreign origin changes nothing.
    let mut http = Http::connect(server.local_addr());
    for (lines, status) in [
        ("Cookie: user=ann\r\n", 201),
        ("Origin: http://localhost:1\r\n", 201),
        ("Origin: https://evil.example\r\n", 403),
    ] {
        let head = format!("POST /api/upper HTTP/1.1\r\nHost: localhost\r\n{lines}");
        http.send(format!("{head}Content-Length: 1\r\n\r\nx").as_bytes());
        let answer = http.answer().expect("an answer");
        assert_eq!(answer.status, status, "{lines}");
        let user = answer.header("X-User");
        assert_eq!(user == Some("ann"), lines.contains("ann"));
    }
    let mut config = config();
    config.limits.body_bytes_max = 2000;
    config.limits.publication_bytes_max = 2000;
    let small = spawn(Server::builder().config(config).route("/api/*", answer));
    let (status, _) = exchange(&small, "POST /api/upper HTTP/1.1", &"x".repeat(2001));
    assert_eq!(status, 413);
}

/// Whoever has logged in may open what is there; anybody may log in.
struct Members;

impl Authorizer for Members {
    fn authorize(&self, request: &AccessRequest<'_>) -> Verdict {
        match request.action() {
            Action::Open("/login") => Verdict::Allow(Identity::anonymous()),
            _ if request.cookie("user").is_some() => Verdict::Allow(Identity::anonymous()),
            _ => Verdict::Deny(Denied::Unauthenticated("log in first".into())),
        }
    }
}

#[test]
fn handler_and_route_at_one_path() {
    let login = |_: &Request<'_>| Response::text(200, "in\n").header("Set-Cookie", "user=ann");
    let room = |_: &Request<'_>| Response::text(200, "the page of the room\n");
    let server = spawn(
        builder()
            .authorizer(Members)
            .route("/login", login)
            .route("/room/*", room)
            .handler("/room/*", Mirror("room")),
    );
    assert_eq!(exchange(&server, "GET /room/1 HTTP/1.1", "").0, 401);
    let (status, _) = exchange(&server, "POST /login HTTP/1.1", "");
    assert_eq!(status, 200);
    let page = exchange(&server, "GET /room/1 HTTP/1.1\r\nCookie: user=ann", "");
    assert_eq!(page, (200, "the page of the room\n".to_owned()));
    let target = "/room/1 HTTP/1.1\r\nCookie: user=ann\r\nX-Rest: ";
    let stream = connect(server.local_addr(), 0);
    let (status, mut peer) = WebSocket::try_open_on(stream, target);
    assert_eq!(status, 101);
    assert!(peer.text().starts_with("room GET /room/1 rest=1 "));
    let stream = connect(server.local_addr(), 0);
    assert_eq!(WebSocket::try_open_on(stream, "/room/1").0, 401);
    drop(server);
}

/// A handle that was full hears of room also where its reactor was slow, and the peer was not.
#[test]
fn full_handle_hears_of_room_without_outbox() {
    struct Refill {
        names: Arc<Names>,
        told: std::sync::mpsc::Sender<()>,
    }
    impl Handler for Refill {
        fn open(&self, peer: &mut Peer<'_>, _: &Request<'_>) {
            self.names.lock().insert("it".to_owned(), peer.handle());
        }
        fn message(&self, peer: &mut Peer<'_>, _: Message<'_>) {
            // On the reactor's thread nothing is carried out meanwhile.
            let handle = peer.handle();
            while handle.send(Message::Text("x")).is_ok() {}
            assert_eq!(handle.send(Message::Text("x")), Err(PeerError::Full));
        }
        fn writable(&self, _: &mut Peer<'_>) {
            self.told.send(()).expect("somebody waits");
        }
    }
    let names = Arc::new(Names::default());
    let (told, writable) = std::sync::mpsc::channel();
    let mut config = config();
    config.limits.publication_bytes_max = 1024;
    config.limits.outbox_bytes_max = 1024;
    let refill = Refill {
        names: Arc::clone(&names),
        told,
    };
    let server = spawn(Server::builder().config(config).handler("/r", refill));
    let mut peer = WebSocket::open(server.local_addr(), "/r");
    for _ in 0..20 {
        peer.send_text("fill");
        for _ in 0..1024 {
            assert_eq!(peer.text(), "x");
        }
        let heard = writable.recv_timeout(support::PATIENCE);
        heard.expect("its handler hears of it");
    }
    drop(peer);
    drop(server);
}
