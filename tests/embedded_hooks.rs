//! Hooks of an embedding program: publications are seen before they are placed, and subscriptions are told of.

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use support::embedded::builder;
use support::peers::{Block, EventStream, Http, Incoming, WebSocket};
use support::umbel_v1::Peer as ManyTopics;
use support::wait_until;
use umbel::{
    Builder, CloseCode, Denied, Message, PeerError, PublishError, PublishOptions, Publishing,
    RunningServer, SubscriptionEvent,
};

fn spawn(builder: Builder) -> RunningServer {
    let server = builder.bind().expect("a free port");
    server.spawn().expect("a thread")
}

/// Writes text in capitals, and takes neither binary messages nor what is rude. Breaks at `panic`.
fn edit(publishing: &mut Publishing<'_>) -> Result<(), Denied> {
    match publishing.message() {
        Message::Text("panic") => panic!("on purpose"),
        Message::Text("long") => {
            publishing.set_text("x".repeat(2 << 20));
            Ok(())
        }
        Message::Text("rude") => Err(Denied::Forbidden("mind your words".into())),
        Message::Binary(_) => Err(Denied::Forbidden("text only".into())),
        Message::Text(text) => {
            let source = match publishing.connection() {
                Some(_) => "peer",
                None => "program",
            };
            let text = format!("{source} {} {}", publishing.topic(), text.to_uppercase());
            publishing.set_text(text);
            publishing.change_options(|options| options.event("edited"));
            Ok(())
        }
    }
}

#[test]
fn publications_rewritten_on_every_way_in() {
    let server = spawn(builder().on_publish(edit));
    let address = server.local_addr();
    let mut reader = WebSocket::open(address, "/ws/a");
    let mut events = EventStream::open(address, "/sse/a");
    let mut expect = |text: &str| {
        assert_eq!(reader.text(), text);
        let block = events.next();
        assert!(format!("{block:?}").contains("edited"), "{block:?}");
    };
    let mut http = Http::connect(address);
    http.publish("a", b"one");
    expect("peer a ONE");
    http.publish_lines("{\"topic\":\"a\",\"data\":\"two\"}");
    expect("peer a TWO");
    let mut many = ManyTopics::open(address);
    many.publish("a", "three");
    expect("peer a THREE");
    let mut raw = WebSocket::open(address, "/ws/a");
    raw.send_text("four");
    expect("peer a FOUR");
    let (options, receipt) = PublishOptions::new().with_receipt();
    let published = server
        .handle()
        .publish_with("a", Message::Text("five"), options);
    published.expect("room");
    expect("program a FIVE");
    receipt.wait(support::PATIENCE).expect("it is kept");
}

/// A hook may make something else of the same message each time. What is sent again is the same all the same.
#[test]
fn duplicates_are_told_by_what_was_sent() {
    let count = AtomicU32::new(0);
    let server = spawn(builder().on_publish(move |publishing| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        if let Message::Text(text) = publishing.message() {
            let text = format!("{text} {number}");
            publishing.set_text(text);
        }
        publishing.change_options(|options| options.tag("number", number.to_string()));
        Ok(())
    }));
    let mut http = Http::connect(server.local_addr());
    let mut post = |target: &str, body: &str| {
        let head = "Host: localhost\r\nIdempotency-Key: k\r\nUmbel-Tag-A: 1";
        let length = body.len();
        let request =
            format!("POST {target} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}");
        http.send(request.as_bytes());
        let answer = http.answer().expect("an answer");
        let replayed = answer.header("idempotency-replayed").is_some();
        (answer.status, replayed)
    };
    let line = "{\"topic\":\"a\",\"data\":\"x\"}";
    for (target, body) in [("/pub/a", "x"), ("/pub", line)] {
        assert_eq!(post(target, body), (200, false), "{target}");
        assert_eq!(post(target, body), (200, true), "{target}");
    }
    assert_eq!(post("/pub/a", "y"), (422, false));
    let mut many = ManyTopics::open(server.local_addr());
    let mut publish = |data: &str| {
        let command =
            json!({"type": "publish", "id": 1, "topic": "a", "data": data, "idempotency_key": "v"});
        many.ask(&command)
    };
    assert_eq!(publish("x")["duplicate"], json!(null));
    assert_eq!(publish("x")["duplicate"], true);
    assert_eq!(publish("y")["code"], "idempotency_key_reused");
}

#[test]
fn publications_refused_on_every_way_in() {
    let server = spawn(builder().on_publish(edit));
    let address = server.local_addr();
    let mut reader = WebSocket::open(address, "/ws/a");
    let answer = |body: &[u8]| {
        let answer = Http::connect(address).try_publish("a", body);
        let answer = answer.expect("an answer");
        let words = String::from_utf8(answer.body).expect("text");
        (answer.status, words)
    };
    let (status, words) = answer(b"rude");
    assert_eq!((status, words.contains("mind your words")), (403, true));
    assert_eq!(answer(b"panic").0, 500);
    assert_eq!(answer(b"long").0, 500);
    assert_eq!(answer(b"\xff").0, 403);
    let mut many = ManyTopics::open(address);
    let publish = |data: &str| json!({"type": "publish", "id": 1, "topic": "a", "data": data});
    assert_eq!(many.error(&publish("rude")), "forbidden");
    assert_eq!(many.error(&publish("panic")), "unavailable");
    assert_eq!(many.close_code(), 1011);
    for (text, code) in [("rude", 1008), ("panic", 1011)] {
        let mut raw = WebSocket::open(address, "/ws/a");
        raw.send_text(text);
        assert!(
            matches!(raw.next(), Incoming::Close(told, _) if told == code),
            "{text}"
        );
    }
    let refused = server.handle().publish("a", Message::Text("rude"));
    let reason = "mind your words".to_owned();
    assert_eq!(refused, Err(PublishError::Refused(reason)));
    let broken = server.handle().publish("a", Message::Text("panic"));
    assert!(
        matches!(broken, Err(PublishError::Refused(_))),
        "{broken:?}"
    );
    // Nobody saw any of it.
    server
        .handle()
        .publish("a", Message::Text("good"))
        .expect("room");
    assert_eq!(reader.text(), "program a GOOD");
}

/// What was told, in words.
type Told = Arc<Mutex<Vec<String>>>;

fn listener(told: &Told) -> impl Fn(&SubscriptionEvent<'_>) + Send + Sync + 'static {
    let told = Arc::clone(told);
    move |event| {
        let line = match event {
            SubscriptionEvent::Began {
                connection,
                target,
                is_pattern,
            } => format!("{connection} + {target} {is_pattern}"),
            SubscriptionEvent::Ended {
                connection,
                target,
                is_pattern,
            } => format!("{connection} - {target} {is_pattern}"),
            _ => "?".to_owned(),
        };
        told.lock().expect("no panic").push(line);
    }
}

#[test]
fn subscriptions_are_told_of() {
    let told = Told::default();
    let server = spawn(
        builder()
            .topic_rule("kept/** history=10 presence=on".parse().expect("a rule"))
            .on_subscription(listener(&told)),
    );
    let address = server.local_addr();
    let expect = |expected: &[&str]| {
        wait_until("all is told", || {
            told.lock().expect("no panic").len() >= expected.len()
        });
        let lines: Vec<String> = std::mem::take(&mut *told.lock().expect("no panic"));
        let mut lines: Vec<_> = lines
            .iter()
            .map(|line| line.split_once(' ').expect("a connection").1)
            .collect();
        lines.sort_unstable();
        assert_eq!(lines, expected);
    };
    let raw = WebSocket::open(address, "/ws/a");
    expect(&["+ a false"]);
    let kept = WebSocket::open(address, "/ws/kept/a");
    expect(&["+ kept/a false"]);
    let stream = EventStream::open(address, "/sse/b");
    expect(&["+ b false"]);
    drop((raw, kept, stream));
    server
        .handle()
        .publish("b", Message::Text("x"))
        .expect("room");
    expect(&["- a false", "- b false", "- kept/a false"]);
    let mut many = ManyTopics::open(address);
    many.subscribe("a");
    many.subscribe("kept/b");
    many.subscribe_pattern("x/*");
    expect(&["+ a false", "+ kept/b false", "+ x/* true"]);
    many.ask(&json!({"type": "unsubscribe", "id": 9, "topic": "a"}));
    expect(&["- a false"]);
    drop(many);
    expect(&["- kept/b false", "- x/* true"]);
    let last = WebSocket::open(address, "/ws/c");
    expect(&["+ c false"]);
    drop(server);
    expect(&["- c false"]);
    drop(last);
}

/// Whoever a hook or presence has named can be disconnected, whatever the connection speaks.
#[test]
fn disconnect_by_name() {
    let names = Arc::new(Mutex::new(Vec::new()));
    let known = Arc::clone(&names);
    let server = spawn(builder().on_subscription(move |event| {
        if let SubscriptionEvent::Began { connection, .. } = event {
            known.lock().expect("no panic").push(*connection);
        }
    }));
    let (address, handle) = (server.local_addr(), server.handle());
    let disconnect = || {
        wait_until("it is named", || {
            !names.lock().expect("no panic").is_empty()
        });
        let name = names.lock().expect("no panic").pop().expect("a name");
        let ended = handle.disconnect(name, CloseCode::POLICY_VIOLATION, "go away");
        ended.expect("room");
        name
    };
    let mut raw = WebSocket::open(address, "/ws/a");
    let name = disconnect();
    let close = Incoming::Close(1008, "go away".into());
    assert_eq!(raw.next(), close);
    raw.answer_close(1008);
    let mut many = ManyTopics::open(address);
    many.subscribe("a");
    disconnect();
    assert_eq!(many.close_code(), 1008);
    let mut stream = EventStream::open(address, "/sse/a");
    disconnect();
    while stream.next() != Block::End {}
    // One that is gone is no error, and neither is nobody.
    for name in [name, "9-9-9".parse().expect("a name")] {
        let nobody = handle.disconnect(name, CloseCode::NORMAL, "");
        nobody.expect("room");
    }
    drop(server);
    let closed = handle.disconnect(name, CloseCode::NORMAL, "");
    assert_eq!(closed, Err(PeerError::Closed));
}
