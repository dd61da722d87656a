//! Subscriptions inside the process, and a program's questions about topics.

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use support::PATIENCE;
use support::embedded::{builder, config};
use support::peers::{EventStream, WebSocket};
use support::umbel_v1::Peer as ManyTopics;
use support::wait_until;
use umbel::{
    Builder, Delivery, Filter, Handle, HistoryStart, Message, Position, PublishError,
    PublishOptions, QueryError, ReceivedPublication, RunningServer, Server, SubscribeError,
    SubscribeOptions, Subscription, SubscriptionEnd, WhenFull,
};

const NOW: SubscribeOptions = SubscribeOptions::new();

fn spawn(builder: Builder) -> RunningServer {
    let server = builder.bind().expect("a free port");
    server.spawn().expect("a thread")
}

fn with_rule(rule: &str) -> Builder {
    builder().topic_rule(rule.parse().expect("a rule"))
}

fn publish(handle: &Handle, topic: &str, text: &str) {
    while handle.publish(topic, Message::Text(text)) == Err(PublishError::Full) {
        thread::yield_now();
    }
}

fn next(subscription: &mut Subscription) -> Delivery {
    let next = subscription.next_timeout(PATIENCE).expect("it goes on");
    next.expect("something comes")
}

fn publication(subscription: &mut Subscription) -> ReceivedPublication {
    match next(subscription) {
        Delivery::Publication(publication) => publication,
        other => panic!("{other:?}"),
    }
}

fn text(subscription: &mut Subscription) -> String {
    match publication(subscription).message() {
        Message::Text(text) => text.to_owned(),
        other => panic!("{other:?}"),
    }
}

fn began(subscription: &mut Subscription) -> (Option<Position>, Option<bool>) {
    match next(subscription) {
        Delivery::Began {
            position,
            recovered,
            ..
        } => (position, recovered),
        other => panic!("{other:?}"),
    }
}

#[test]
fn publications_of_all_ways_in() {
    let server = spawn(builder());
    let handle = server.handle();
    let mut inside = handle.subscribe("a", NOW).expect("room");
    let (position, recovered) = began(&mut inside);
    assert_eq!(
        (position.expect("of the topic").offset, recovered),
        (0, None)
    );
    let mut outside = WebSocket::open(server.local_addr(), "/ws/a");
    outside.send_text("by a peer");
    assert_eq!(text(&mut inside), "by a peer");
    let options = PublishOptions::new()
        .key("k")
        .event("e")
        .id("i")
        .tag("x", "y");
    let (options, receipt) = options.with_receipt();
    let published = handle.publish_with("a", Message::Text("by the program"), options);
    published.expect("room");
    let got = publication(&mut inside);
    assert_eq!((got.topic(), got.position().offset), ("a", 2));
    assert_eq!(
        (got.key(), got.event(), got.id()),
        (Some("k"), Some("e"), Some("i"))
    );
    assert_eq!(got.tags().collect::<Vec<_>>(), [("x", "y")]);
    assert_eq!(got.message(), Message::Text("by the program"));
    // The program counts in receipts like everybody else.
    let report = receipt.wait(PATIENCE).expect("it is written");
    assert_eq!((report.matched, report.written), (2, 2));
    assert!(matches!(inside.try_next(), Ok(None)));
    // Two of one topic share what the hub knows of them; each ends by itself.
    let mut second = handle.subscribe("a", NOW).expect("room");
    began(&mut second);
    drop(inside);
    publish(&handle, "a", "once more");
    assert_eq!(text(&mut second), "once more");
    drop(second);
    drop(outside);
    wait_until("nothing keeps the topic", || {
        handle.topics(10, PATIENCE).expect("an answer").is_empty()
    });
}

#[test]
fn since_is_the_same_contract() {
    let server = spawn(with_rule("log/** history=5"));
    let handle = server.handle();
    for number in 1..=10 {
        publish(&handle, "log/a", &number.to_string());
    }
    let mut all = handle.subscribe("log/a", NOW.last(3)).expect("room");
    let position = began(&mut all).0.expect("of the topic");
    assert_eq!(position.offset, 10);
    assert_eq!([(); 3].map(|()| text(&mut all)), ["8", "9", "10"]);
    let at = |offset| Position { offset, ..position };
    let mut since = handle.subscribe("log/a", NOW.since(at(7))).expect("room");
    assert_eq!(began(&mut since), (Some(at(10)), Some(true)));
    assert_eq!([(); 3].map(|()| text(&mut since)), ["8", "9", "10"]);
    let mut lost = handle.subscribe("log/a", NOW.since(at(2))).expect("room");
    assert_eq!(began(&mut lost), (Some(at(10)), Some(false)));
    publish(&handle, "log/a", "11");
    for subscription in [&mut all, &mut since, &mut lost] {
        assert_eq!(text(subscription), "11");
    }
}

/// History and what is live come without a hole, while others publish, whichever threads run the shards.
#[test]
fn no_hole_between_history_and_live() {
    for inline in [true, false] {
        let mut config = config();
        config.inline_shards = inline;
        let rule = "log/** history=100000".parse().expect("a rule");
        let server = spawn(Server::builder().config(config).topic_rule(rule));
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let handle = server.handle();
                thread::spawn(move || (0..2000).for_each(|_| publish(&handle, "log/a", "x")))
            })
            .collect();
        let options = NOW.last(100_000).queue_max(100_000);
        let readers: Vec<_> = (0..20)
            .map(|_| server.handle().subscribe("log/a", options).expect("room"))
            .collect();
        for publisher in publishers {
            publisher.join().expect("no panic");
        }
        for mut reader in readers {
            began(&mut reader);
            for offset in 1..=4000 {
                assert_eq!(publication(&mut reader).position().offset, offset);
            }
        }
    }
}

#[test]
fn pattern_matches_topics() {
    let server = spawn(builder());
    let handle = server.handle();
    let mut inside = handle.subscribe_pattern("a/*", NOW).expect("room");
    assert_eq!(began(&mut inside), (None, None));
    for topic in ["a/1", "b/1", "a/2", "a/2/3"] {
        publish(&handle, topic, topic);
    }
    assert_eq!(
        (text(&mut inside), text(&mut inside)),
        ("a/1".into(), "a/2".into())
    );
    assert!(matches!(inside.try_next(), Ok(None)));
    drop(inside);
    let metrics = handle.metrics();
    assert!(metrics.contains("umbel_hub_patterns 0"), "{metrics}");
    let refused = handle.subscribe_pattern("a/*", NOW.last(1));
    assert_eq!(refused.err(), Some(SubscribeError::PatternHasNoPosition));
    let refused = handle.subscribe("", NOW).err();
    assert!(
        matches!(refused, Some(SubscribeError::Invalid(_))),
        "{refused:?}"
    );
}

/// Nobody takes anything, and the shard goes on all the same: others get everything.
#[test]
fn slow_program_never_stalls_the_shard() {
    let server = spawn(builder());
    let handle = server.handle();
    let mut gaps = handle.subscribe("a", NOW.queue_max(10)).expect("room");
    let options = NOW.queue_max(10).when_full(WhenFull::End);
    let mut ends = handle.subscribe("a", options).expect("room");
    let mut stream = EventStream::open(server.local_addr(), "/sse/a");
    for number in 0..500 {
        publish(&handle, "a", &number.to_string());
        assert_eq!(stream.data(), number.to_string());
    }
    began(&mut gaps);
    assert!(matches!(next(&mut gaps), Delivery::Gap { missed: 490, .. }));
    for number in 490..500 {
        assert_eq!(text(&mut gaps), number.to_string());
    }
    publish(&handle, "a", "and on");
    assert_eq!(text(&mut gaps), "and on");
    began(&mut ends);
    for number in 0..10 {
        assert_eq!(text(&mut ends), number.to_string());
    }
    let end = ends.next_timeout(PATIENCE).err();
    assert_eq!(end, Some(SubscriptionEnd::SlowConsumer));
    // By bytes as well, of which one always fits.
    let mut few = handle
        .subscribe("a", NOW.queue_bytes_max(100))
        .expect("room");
    publish(&handle, "a", &"x".repeat(1000));
    publish(&handle, "a", "y");
    began(&mut few);
    assert!(matches!(next(&mut few), Delivery::Gap { missed: 1, .. }));
    assert_eq!(text(&mut few), "y");
}

#[test]
fn end_of_the_server_ends_subscriptions() {
    let server = spawn(builder());
    let handle = server.handle();
    let mut inside = handle.subscribe("a", NOW).expect("room");
    began(&mut inside);
    let (started, is_started) = mpsc::channel();
    let waiting = thread::spawn(move || {
        started.send(()).expect("somebody listens");
        let next = inside.next_timeout(PATIENCE);
        (next.err(), inside.try_next().err())
    });
    is_started.recv().expect("it waits");
    server.shutdown().expect("nothing failed");
    let ended = Some(SubscriptionEnd::Closed);
    assert_eq!(waiting.join().expect("no panic"), (ended, ended));
    let refused = handle.subscribe("a", NOW).err();
    assert_eq!(refused, Some(SubscribeError::Closed));
    let asked = handle.topics(1, PATIENCE);
    assert_eq!(asked, Err(QueryError::Closed));
}

/// What a program gives that wants to wait as long as it takes.
#[test]
fn endless_waits() {
    let server = spawn(with_rule("kept history=10 presence=on"));
    let handle = server.handle();
    let endless = Duration::MAX;
    let waiting = thread::spawn(move || {
        let (options, receipt) = PublishOptions::new().with_receipt();
        let published = handle.publish_with("kept", Message::Text("x"), options);
        published.expect("room");
        assert_eq!(receipt.wait(endless).expect("a report").matched, 0);
        let topics = handle.topics(10, endless).expect("an answer");
        assert_eq!(topics[0].topic, "kept");
        let history = handle.history("kept", HistoryStart::Last(1), 1, endless);
        assert_eq!(history.expect("an answer").publications.len(), 1);
        let present = handle.presence("kept", endless).expect("an answer");
        assert_eq!(present.total, 0);
        let mut inside = handle.subscribe("kept", NOW.last(1)).expect("room");
        for _ in 0..2 {
            inside.next_timeout(endless).expect("it goes on");
        }
        inside.next_timeout(endless).err()
    });
    // The last one ends with the server.
    let topics = || server.handle().topics(10, PATIENCE).expect("an answer");
    wait_until("it waits, or is at its end", || {
        let subscribers = topics().iter().map(|it| it.subscribers).sum::<u64>();
        subscribers == 1 || waiting.is_finished()
    });
    server.shutdown().expect("nothing failed");
    let end = waiting.join().expect("no panic");
    assert_eq!(end, Some(SubscriptionEnd::Closed));
}

/// Polls a future on this thread, which is parked in between.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn task_waits_without_a_thread() {
    let server = spawn(builder());
    let handle = server.handle();
    let mut inside = handle.subscribe("a", NOW).expect("room");
    let publisher = thread::spawn(move || {
        for number in 0..100 {
            publish(&handle, "a", &number.to_string());
            // Most of them find the task waiting.
            thread::sleep(Duration::from_micros(100));
        }
    });
    block_on(async {
        assert!(matches!(inside.next().await, Ok(Delivery::Began { .. })));
        for number in 0..100 {
            let Ok(Delivery::Publication(publication)) = inside.next().await else {
                panic!("a publication comes");
            };
            let expected = number.to_string();
            assert_eq!(publication.message(), Message::Text(&expected));
        }
    });
    publisher.join().expect("no panic");
    drop(server);
    assert!(matches!(
        block_on(inside.next()),
        Err(SubscriptionEnd::Closed)
    ));
}

#[test]
fn topics_history_and_presence() {
    let server = spawn(with_rule("room/** history=5 presence=on"));
    let handle = server.handle();
    let address = server.local_addr();
    for number in 1..=7 {
        publish(&handle, "room/a", &number.to_string());
    }
    let mut many: Vec<_> = ["ann", "bob"]
        .map(|name| ManyTopics::open_at(address, &format!("/ws?info={name}"), "umbel.v1"))
        .into();
    for peer in &mut many {
        peer.subscribe("room/a");
    }
    let raw = WebSocket::open(address, "/ws/plain");
    let mut inside = handle.subscribe("room/a", NOW).expect("room");
    began(&mut inside);
    let mut topics = handle.topics(10, PATIENCE).expect("an answer");
    topics.sort_by(|one, other| one.topic.cmp(&other.topic));
    let shown: Vec<_> = topics
        .iter()
        .map(|it| (&*it.topic, it.position.offset, it.subscribers, it.present))
        .collect();
    assert_eq!(shown, [("plain", 0, 1, None), ("room/a", 7, 3, Some(2))]);
    assert_eq!(topics[1].history.expect("by its rule").0, 5);
    assert_eq!(handle.topics(1, PATIENCE).expect("an answer").len(), 1);
    // The program is nobody's company.
    let presence = handle.presence("room/a", PATIENCE).expect("an answer");
    assert_eq!(presence.total, 2);
    let mut infos: Vec<_> = presence.members.iter().map(|it| it.info.clone()).collect();
    infos.sort();
    assert_eq!(
        infos,
        [Some("\"ann\"".to_owned()), Some("\"bob\"".to_owned())]
    );
    let nobody = handle.presence("plain", PATIENCE).expect("an answer");
    assert_eq!((nobody.total, nobody.members.len()), (0, 0));
    // Also what is listed for others counts the program.
    let mut http = support::peers::Http::connect(address);
    let listed = http.get("/topics/room/a");
    let listed = String::from_utf8(listed.body).expect("JSON");
    assert!(listed.contains("\"subscribers\":3"), "{listed}");
    drop((many, raw));
}

#[test]
fn connections_of_a_topic() {
    let server = spawn(builder());
    let peers = ["/ws/rooms/1", "/ws/rooms/2"];
    let _peers = peers.map(|target| WebSocket::open(server.local_addr(), target));
    let mut filter = Filter::default();
    filter.topic = Some("rooms/2".parse().expect("a topic"));
    let page = server.handle().connections(&filter, None, 10, PATIENCE);
    assert_eq!(page.expect("an answer").connections.len(), 1);
    let refused = "rooms//2".parse().map(|topic| filter.topic = Some(topic));
    let refused = refused.expect_err("it has an empty part");
    assert!(refused.to_string().contains("two parts"), "{refused}");
}

#[test]
fn history_in_pages() {
    let server = spawn(with_rule("room/** history=5"));
    let handle = server.handle();
    for number in 1..=7 {
        publish(&handle, "room/a", &number.to_string());
    }
    let history = handle.history("room/a", HistoryStart::Last(3), 10, PATIENCE);
    let history = history.expect("an answer");
    let offsets = |history: &umbel::History| -> Vec<u64> {
        let publications = history.publications.iter();
        publications.map(|it| it.position().offset).collect()
    };
    assert_eq!(
        (offsets(&history), history.recovered),
        (vec![5, 6, 7], None)
    );
    let since = Position {
        offset: 6,
        ..history.position.expect("it is known")
    };
    let history = handle.history("room/a", HistoryStart::Since(since), 10, PATIENCE);
    let history = history.expect("an answer");
    assert_eq!(
        (offsets(&history), history.recovered),
        (vec![7], Some(true))
    );
    // In parts, of which each begins behind the one before.
    let mut start = HistoryStart::Last(5);
    let mut parts = Vec::new();
    loop {
        let part = handle.history("room/a", start, 2, PATIENCE);
        let part = part.expect("an answer");
        parts.push(offsets(&part));
        let last = part.publications.last().expect("it is not empty");
        start = HistoryStart::Since(last.position());
        if !part.has_more {
            break;
        }
    }
    assert_eq!(parts, [vec![3, 4], vec![5, 6], vec![7]]);
    let unknown = handle.history("nobody", HistoryStart::Last(1), 1, PATIENCE);
    assert_eq!(unknown.expect("an answer").position, None);
    let error = handle.history("", HistoryStart::Last(1), 1, PATIENCE).err();
    assert!(
        matches!(error, Some(QueryError::InvalidTopic(_))),
        "{error:?}"
    );
}

/// Subscriptions come and go while others publish, with a hub that is mostly full: each gets an unbroken run, and nothing is
/// left behind.
#[test]
fn subscriptions_come_and_go() {
    for inline in [true, false] {
        let mut config = config();
        config.inline_shards = inline;
        config.limits.commands_max = 16;
        let server = spawn(Server::builder().config(config));
        let is_over = Arc::new(AtomicBool::new(false));
        let publishers = ["a/1", "a/2"].map(|topic| {
            let (handle, is_over) = (server.handle(), Arc::clone(&is_over));
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    publish(&handle, topic, "x");
                }
            })
        });
        let readers: Vec<_> = (0..4)
            .map(|reader| {
                let handle = server.handle();
                thread::spawn(move || (0..100).for_each(|round| read_some(&handle, reader + round)))
            })
            .collect();
        for reader in readers {
            reader.join().expect("no panic");
        }
        is_over.store(true, Ordering::Relaxed);
        for publisher in publishers {
            publisher.join().expect("no panic");
        }
        let handle = server.handle();
        wait_until("nothing is left", || {
            let topics = handle.topics(10, PATIENCE);
            let patterns = handle.metrics().contains("umbel_hub_patterns 0");
            topics == Ok(Vec::new()) && patterns
        });
    }
}

/// Takes a few publications of one topic, or of all, and leaves.
fn read_some(handle: &Handle, seed: usize) {
    let mut subscription = loop {
        let subscription = match seed % 3 {
            0 => handle.subscribe_pattern("a/*", NOW),
            number => handle.subscribe(&format!("a/{number}"), NOW),
        };
        match subscription {
            Err(SubscribeError::Full) => thread::yield_now(),
            subscription => break subscription.expect("it can be had"),
        }
    };
    let is_one_topic = !seed.is_multiple_of(3);
    let mut last = began(&mut subscription).0;
    for _ in 0..seed % 7 {
        match next(&mut subscription) {
            Delivery::Publication(publication) => {
                let position = publication.position();
                if let Some(last) = last.filter(|_| is_one_topic) {
                    assert_eq!(position.offset, last.offset + 1);
                }
                last = Some(position);
            }
            // It was slow on a busy machine.
            Delivery::Gap { .. } => return,
            other => panic!("{other:?}"),
        }
    }
}
