//! Verdicts of an embedding program that come later: what waits for them, and that nothing else does.

#[path = "verdicts/identities.rs"]
mod identities;
mod support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use support::embedded::{Embedded, config};
use support::umbel_v1::Peer as ManyTopics;
use support::{PATIENCE, Wire, wait_until};
use umbel::{AccessRequest, Authorizer, Config, Denied, Identity, Pending, Server, Verdict};

/// Hands each question to the test, but for those of `?now`.
struct Asker(Mutex<Sender<(String, Pending)>>);

impl Authorizer for Asker {
    fn authorize(&self, request: &AccessRequest<'_>) -> Verdict {
        let peer = request.peer().expect("it has an address");
        assert!(!request.tls(), "the listener has none");
        assert!(peer.is_loopback(), "{peer}");
        if request.parameter("umbel_now").is_some() || request.header("x-now").is_some() {
            return Verdict::Allow(Identity::anonymous());
        }
        let pending = Pending::new();
        let question = (format!("{:?}", request.action()), pending.clone());
        let sender = self.0.lock().expect("no panic");
        sender.send(question).expect("the test is there");
        Verdict::Later(pending)
    }
}

struct Questions(Receiver<(String, Pending)>);

impl Questions {
    fn next(&self, expected: &str) -> Pending {
        let (question, pending) = self.0.recv_timeout(PATIENCE).expect("a question");
        assert_eq!(question, expected);
        pending
    }

    /// Answers from another thread.
    fn answer(&self, expected: &str, outcome: Result<(), Denied>) {
        let pending = self.next(expected);
        thread::spawn(move || pending.answer(outcome));
    }

    fn none(&self) {
        assert!(self.0.try_recv().is_err(), "nothing more is asked");
    }
}

fn start_with(mut config: Config) -> (Embedded, Questions) {
    // Some connections are open at the end.
    config.limits.drain_timeout_ms = 100;
    let (sender, receiver) = channel();
    let asker = Asker(Mutex::new(sender));
    let builder = Server::builder().config(config);
    let server = Embedded::start(builder.authorizer(Arc::new(asker)));
    (server, Questions(receiver))
}

fn start() -> (Embedded, Questions) {
    start_with(config())
}

const PUBLISH: &str = "POST /pub/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx";

#[test]
fn requests_wait_for_their_verdicts() {
    let (server, questions) = start();
    let mut wire = Wire::connect(server.address);
    // The second is not looked at before the first is answered.
    wire.send(PUBLISH.repeat(2).as_bytes());
    let first = questions.next("Publish(\"a\")");
    wire.expect_silence(Duration::from_millis(100));
    questions.none();
    first.answer(Ok(()));
    assert_eq!(wire.read_response().status, 200);
    questions.answer("Publish(\"a\")", Err(Denied::Forbidden("not today".into())));
    let refused = wire.read_response();
    assert_eq!(
        (refused.status, refused.text().contains("not today")),
        (403, true)
    );
    let mut wire = Wire::connect(server.address);
    wire.send(b"GET /sse/a HTTP/1.1\r\nHost: x\r\n\r\n");
    questions.answer(
        "Subscribe(\"a\")",
        Err(Denied::UnavailableFor {
            reason: "later".into(),
            retry_after_s: 7,
        }),
    );
    let refused = wire.read_response();
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("7"))
    );
    let mut stream = Wire::connect(server.address);
    stream.send(b"GET /sse/a HTTP/1.1\r\nHost: x\r\n\r\n");
    questions.answer("Subscribe(\"a\")", Ok(()));
    stream.read_through(b"\r\n\r\n");
    server.end();
}

#[test]
fn raw_handshake_asks_twice_and_then_opens() {
    let (server, questions) = start();
    let mut wire = Wire::connect(server.address);
    let request = support::wire::upgrade_request("/ws/a", "");
    // A message that came with the handshake is not lost.
    let message = support::frames::text("early");
    wire.send(&[request.as_bytes(), &message].concat());
    questions.answer("Subscribe(\"a\")", Ok(()));
    questions.answer("Publish(\"a\")", Ok(()));
    assert_eq!(wire.read_response().status, 101);
    assert_eq!(wire.read_frame().payload, b"early");
    questions.none();
    server.end();
}

#[test]
fn commands_wait_and_keep_their_order() {
    let (server, questions) = start();
    let address = server.address;
    let opening = thread::spawn(move || ManyTopics::open(address));
    questions.answer("Connect", Ok(()));
    let mut many = opening.join().expect("it opens");
    many.send(&json!([
        {"type": "subscribe", "id": 1, "topic": "a"},
        {"type": "publish", "id": 2, "topic": "a", "data": "one"},
        {"type": "ping", "id": 3},
    ]));
    let subscribe = questions.next("Subscribe(\"a\")");
    // Others are served meanwhile.
    let mut other = Wire::connect(address);
    other.send(b"POST /pub/b HTTP/1.1\r\nHost: x\r\nX-Now: 1\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(other.read_response().status, 200);
    questions.none();
    subscribe.answer(Ok(()));
    let publish = questions.next("Publish(\"a\")");
    publish.answer(Err(Denied::Forbidden("no".into())));
    let told: Vec<_> = (0..3).map(|_| many.next()).collect();
    assert_eq!(told[0]["type"], "subscribed", "{told:?}");
    assert_eq!(
        (&told[1]["code"], &told[1]["id"]),
        (&json!("forbidden"), &json!(2)),
        "{told:?}"
    );
    assert_eq!(told[2]["type"], "pong", "{told:?}");
    // A verdict holds for the command that it was asked for.
    many.send(&json!({"type": "publish", "id": 4, "topic": "a", "data": "two"}));
    questions.answer("Publish(\"a\")", Ok(()));
    let told = [many.next(), many.next()];
    assert!(told.iter().any(|it| it["type"] == "published"), "{told:?}");
    server.end();
}

#[test]
fn lines_are_asked_about_before_any_is_published() {
    let (server, questions) = start();
    let mut wire = Wire::connect(server.address);
    let body = "{\"topic\":\"a\",\"data\":\"1\"}\n{\"topic\":\"b\",\"data\":\"2\"}\n{\"topic\":\"a\",\"data\":\"3\"}\n";
    let length = body.len();
    let head = format!("POST /pub HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    wire.send(format!("{head}{body}").as_bytes());
    questions.answer("PublishMany", Ok(()));
    questions.answer("Publish(\"a\")", Ok(()));
    questions.answer("Publish(\"b\")", Err(Denied::Forbidden("no".into())));
    let answer = wire.read_response();
    assert_eq!(answer.status, 200);
    let lines: Vec<_> = answer
        .text()
        .lines()
        .map(|it| it.contains("epoch"))
        .collect();
    assert_eq!(lines, [true, false, true], "{}", answer.text());
    questions.none();
    server.end();
}

#[test]
fn no_answer_is_a_refusal() {
    let mut config = config();
    config.limits.handshake_timeout_ms = 700;
    config.limits.asks_max = 1;
    config.reactors = 1;
    let (server, questions) = start_with(config);
    // Dropped.
    let mut wire = Wire::connect(server.address);
    wire.send(PUBLISH.as_bytes());
    drop(questions.next("Publish(\"a\")"));
    let refused = wire.read_response();
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    // Kept for too long, and one too many meanwhile.
    let mut wire = Wire::connect(server.address);
    let begun = Instant::now();
    wire.send(PUBLISH.as_bytes());
    let kept = questions.next("Publish(\"a\")");
    let mut other = Wire::connect(server.address);
    other.send(PUBLISH.as_bytes());
    let refused = other.read_response();
    assert!(refused.text().contains("asks_max"), "{}", refused.text());
    assert!(begun.elapsed() < Duration::from_millis(700), "at once");
    assert_eq!(wire.read_response().status, 503);
    assert!(begun.elapsed() >= Duration::from_millis(700));
    kept.answer(Ok(()));
    server.end();
}

#[test]
fn verdicts_for_connections_that_are_gone_reach_nobody() {
    let (server, questions) = start();
    let mut pendings = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::connect(server.address);
        wire.send(PUBLISH.as_bytes());
        pendings.push(questions.next_any());
        drop(wire);
    }
    let mut wire = Wire::connect(server.address);
    wire.send(PUBLISH.as_bytes());
    let last = questions.next_any();
    for pending in pendings {
        pending.answer(Ok(()));
    }
    wire.expect_silence(Duration::from_millis(100));
    last.answer(Ok(()));
    assert_eq!(wire.read_response().status, 200);
    wait_until("they are gone", || server.handle.counts().connections <= 1);
    server.end();
}

impl Questions {
    fn next_any(&self) -> Pending {
        self.0.recv_timeout(PATIENCE).expect("a question").1
    }
}

#[test]
fn verdict_that_comes_later_may_say_who_it_is() {
    let (server, questions) = start();
    let address = server.address;
    let opening = thread::spawn(move || ManyTopics::open(address));
    let anna = Identity::builder("anna").subscribe(["news"]).build();
    let pending = questions.next("Connect");
    pending.answer(Verdict::Allow(anna.expect("an identity")));
    let mut many = opening.join().expect("it opens");
    assert_eq!(many.next()["subject"], "anna");
    many.subscribe("news");
    let other = json!({"type": "subscribe", "id": 8, "topic": "other"});
    assert_eq!(many.error(&other), "forbidden");
    questions.none();
    server.end();
}
