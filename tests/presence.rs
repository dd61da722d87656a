//! Presence: joins and leaves told to members, and lists without connections that are gone.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use support::peers::{EventStream, Http, WebSocket, connect, reset};
use support::umbel_v1::{BINARY, JSON, Peer, offer, text};
use support::{PATIENCE, Server, wait_until};

fn open_as(server: &Server, info: &str) -> Peer {
    Peer::open_at(server.address(), &format!("/ws?info={info}"), JSON)
}

/// Subscribes, and reads up to the answer.
fn join(peer: &mut Peer, topic: &str) {
    peer.send(&json!({"type": "subscribe", "id": 100, "topic": topic}));
    while peer.next()["type"] != "subscribed" {}
}

/// Asks who is there, passing over what else comes, and again while the hub is full: how many, and the members.
fn present(peer: &mut Peer, topic: &str) -> (u64, Vec<Value>) {
    let question = json!({"type": "presence", "id": 101, "topic": topic});
    peer.send(&question);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = peer.next();
        if answer["code"] == "unavailable" {
            assert!(Instant::now() < deadline, "it stays unavailable");
            peer.send(&question);
        }
        if answer["type"] == "presence" {
            let members = answer["members"].as_array().expect("an array").clone();
            return (answer["total"].as_u64().expect("a number"), members);
        }
    }
}

fn infos(members: &[Value]) -> BTreeSet<String> {
    members.iter().map(|it| it["info"].to_string()).collect()
}

fn set(infos: &[&str]) -> BTreeSet<String> {
    infos.iter().map(|&it| it.to_owned()).collect()
}

fn wait_for_total(peer: &mut Peer, topic: &str, total: u64) {
    wait_until(&format!("{total} are present"), || {
        present(peer, topic).0 == total
    });
}

#[test]
fn joins_and_leaves_told_to_members() {
    let server = Server::start(&["--topic-rule", "room/** presence=on"]);
    let mut anna = open_as(&server, "%7B%22name%22:%22anna%22%7D");
    join(&mut anna, "room/1");
    let connection = text(&present(&mut anna, "room/1").1[0]["connection"]);
    let mut ben = open_as(&server, "ben");
    ben.send(&json!({"type": "subscribe", "id": 1, "topic": "room/1"}));
    let came = anna.next();
    let ben_is = text(&came["connection"]);
    let expected = json!({"type": "join", "topic": "room/1", "connection": ben_is, "info": "ben"});
    assert_eq!(came, expected);
    assert_ne!(ben_is, connection);
    let (total, members) = present(&mut ben, "room/1");
    assert_eq!(
        (total, infos(&members)),
        (2, set(&["{\"name\":\"anna\"}", "\"ben\""]))
    );
    // One who says nothing about itself.
    let mut third = Peer::open_at(server.address(), "/ws", BINARY);
    join(&mut third, "room/1");
    let came = anna.next();
    assert_eq!(came["type"], "join");
    assert!(came.get("info").is_none(), "{came}");
    // Leaving by a command, and by closing.
    ben.ask(&json!({"type": "unsubscribe", "id": 2, "topic": "room/1"}));
    anna.expect(&json!({"type": "leave", "topic": "room/1", "connection": ben_is}));
    ben.send(&json!({"type": "ping", "id": 3}));
    while ben.next()["type"] != "pong" {}
    let third_is = text(&came["connection"]);
    drop(third);
    anna.expect(&json!({"type": "leave", "topic": "room/1", "connection": third_is}));
    // Who left hears nothing more, and the publications of others are as ever.
    ben.expect_nothing_before_pong();
    Http::connect(server.address()).publish("room/1", b"alone");
    assert_eq!(anna.publication().1, "alone");
}

#[test]
fn members_are_connections() {
    let server = Server::start(&["--topic-rule", "room presence=on"]);
    let mut first = open_as(&server, "same");
    let mut second = open_as(&server, "same");
    join(&mut first, "room");
    join(&mut second, "room");
    let (total, members) = present(&mut first, "room");
    assert_eq!(total, 2);
    assert_ne!(members[0]["connection"], members[1]["connection"]);
    drop(second);
    wait_for_total(&mut first, "room", 1);
    // A pattern's subscriber is not there, and hears nothing of those who are.
    let mut watcher = Peer::open(server.address());
    watcher.subscribe_pattern("**");
    assert_eq!(present(&mut watcher, "room").0, 1);
    let mut third = open_as(&server, "third");
    join(&mut third, "room");
    wait_for_total(&mut first, "room", 2);
    watcher.expect_nothing_before_pong();
}

/// A subscription that ends and begins again at once is one that stands, and so its connection is there.
#[test]
fn leave_and_join_in_one_batch() {
    for inline in ["true", "false"] {
        let server = Server::start(&[
            "--topic-rule",
            "room presence=on",
            "--inline-shards",
            inline,
        ]);
        let mut watcher = Peer::open(server.address());
        join(&mut watcher, "room");
        let mut peer = open_as(&server, "back");
        let on = json!({"type": "subscribe", "topic": "room"});
        let off = json!({"type": "unsubscribe", "topic": "room"});
        peer.send(&json!([on, off, on, off, on]));
        peer.send(&json!({"type": "ping", "id": 1}));
        while peer.next()["type"] != "pong" {}
        Http::connect(server.address()).publish("room", b"heard");
        while peer.next()["data"] != "heard" {}
        let (total, members) = present(&mut watcher, "room");
        assert_eq!(
            (total, infos(&members)),
            (2, set(&["null", "\"back\""])),
            "inline: {inline}"
        );
        peer.send(&json!([off, on, off]));
        wait_for_total(&mut watcher, "room", 1);
        // What was told adds up to what is listed.
        peer.send(&json!([on, off, on]));
        wait_for_total(&mut watcher, "room", 2);
        drop(peer);
        wait_for_total(&mut watcher, "room", 1);
    }
}

#[test]
fn subscribers_of_all_dialects_are_members() {
    let server = Server::start(&["--topic-rule", "room presence=on"]);
    let mut watcher = Peer::open(server.address());
    join(&mut watcher, "room");
    let raw = WebSocket::open(server.address(), "/ws/room");
    assert_eq!(watcher.next()["type"], "join");
    let stream = EventStream::open(server.address(), "/sse/room");
    assert_eq!(watcher.next()["type"], "join");
    assert_eq!(present(&mut watcher, "room").0, 3);
    drop(raw);
    assert_eq!(watcher.next()["type"], "leave");
    drop(stream);
    assert_eq!(watcher.next()["type"], "leave");
    assert_eq!(present(&mut watcher, "room").0, 1);
}

/// The order of leaving and coming back holds also where the hub takes only one of the two at once.
#[test]
fn leave_and_join_with_full_hub() {
    let server = Server::start(&[
        "--topic-rule",
        "room presence=on",
        "--inline-shards",
        "false",
        "--workers",
        "1",
        "--commands-max",
        "16",
        "--mailbox-messages-max",
        "16",
        "--ping-interval-ms",
        "600000",
    ]);
    let address = server.address();
    let stop = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let lines = "{\"topic\":\"room\",\"data\":\"x\"}\n".repeat(100);
                let mut http = Http::connect(address);
                while !stop.load(Ordering::SeqCst) {
                    http.publish_lines(&lines);
                }
            })
        })
        .collect();
    let peers: Vec<_> = (0..4)
        .map(|number| {
            thread::spawn(move || {
                let mut peer = Peer::open_at(address, &format!("/ws?info={number}"), JSON);
                let on = |id: u32| json!({"type": "subscribe", "id": id, "topic": "room"});
                let off = json!({"type": "unsubscribe", "topic": "room"});
                join(&mut peer, "room");
                for round in 0..100 {
                    peer.send(&json!([off, on(1), off, on(2), off, on(round + 3)]));
                    let is_last = |it: &Value| it["type"] == "subscribed" && it["id"] == round + 3;
                    while !is_last(&peer.next()) {}
                    let (_, members) = present(&mut peer, "room");
                    let own = number.to_string();
                    assert!(infos(&members).contains(&own), "not there in round {round}");
                }
                peer
            })
        })
        .collect();
    let mut peers: Vec<Peer> = peers
        .into_iter()
        .map(|it| it.join().expect("it is back"))
        .collect();
    stop.store(true, Ordering::SeqCst);
    floods
        .into_iter()
        .for_each(|it| it.join().expect("published"));
    assert!(
        server.metric("umbel_publish_holds_total") > 0.0,
        "the hub was never full"
    );
    assert_eq!(present(&mut peers[0], "room").0, 4);
    let mut late = Peer::open(address);
    join(&mut late, "room");
    assert_eq!(present(&mut late, "room").0, 5);
    drop(peers);
    wait_for_total(&mut late, "room", 1);
}

/// A question that the hub did not take is not outstanding: as many can be asked as ever.
#[test]
fn presence_queries_with_full_hub() {
    let server = Server::start(&[
        "--topic-rule",
        "** presence=on",
        "--inline-shards",
        "false",
        "--commands-max",
        "16",
        "--mailbox-messages-max",
        "16",
        "--commands-per-message-max",
        "100",
        "--work-per-tick-max",
        "1000000000",
        "--reactors",
        "1",
    ]);
    let mut peer = Peer::open(server.address());
    let mut ask = |count: usize, topics: usize| {
        let topic = |number: usize| format!("room/{}", number % topics);
        let questions =
            (0..count).map(|it| json!({"type": "presence", "id": it, "topic": topic(it)}));
        peer.send(&Value::Array(questions.collect()));
        let answers = (0..count).map(|_| peer.next());
        answers.filter(|it| it["type"] == "presence").count()
    };
    // One shard takes few questions at once.
    let answered: usize = (0..10).map(|_| ask(100, 1)).sum();
    assert!(
        answered < 800,
        "the hub was full too seldom: {answered} of 1000"
    );
    // All shards together take many.
    let answered = ask(60, 60);
    assert!(answered > 30, "{answered} of 60");
}

/// A reactor gives the place of a topic that nobody wants any more to the next one; what is still on its way about the
/// old one must not reach those of the new one.
#[test]
fn changes_only_to_subscribers() {
    let flags = [
        "--topic-rule",
        "** presence=on",
        "--inline-shards",
        "false",
        "--workers",
        "2",
    ];
    let server = Server::start(&flags);
    let address = server.address();
    let peers: Vec<_> = (0..8)
        .map(|number: usize| {
            thread::spawn(move || {
                let mut peer = Peer::open(address);
                for turn in 0..400 {
                    let topic = format!("room/{}", (turn * 7 + number / 2) % 5);
                    peer.send(&json!([
                        {"type": "subscribe", "id": 1, "topic": topic},
                        {"type": "unsubscribe", "id": 2, "topic": topic},
                    ]));
                    let mut subscribed = String::new();
                    loop {
                        let message = peer.next();
                        match message["type"].as_str() {
                            Some("subscribed") => subscribed = text(&message["topic"]),
                            Some("unsubscribed") => break,
                            _ => assert_eq!(message["topic"], subscribed.as_str(), "{message}"),
                        }
                    }
                }
            })
        })
        .collect();
    peers
        .into_iter()
        .for_each(|peer| peer.join().expect("it heard of its own topics only"));
}

/// The processes of clients are killed, so their sockets end without a word, or with a reset.
#[test]
fn cut_connection_leaves() {
    const PEERS: usize = 200;
    let server = Server::start(&["--topic-rule", "room presence=on"]);
    let mut watcher = Peer::open(server.address());
    join(&mut watcher, "room");
    for round in 0..2 {
        let mut peers: Vec<_> = (0..PEERS).map(|_| Peer::open(server.address())).collect();
        for peer in &mut peers {
            peer.send(&json!({"type": "subscribe", "id": 1, "topic": "room"}));
        }
        wait_for_total(&mut watcher, "room", PEERS as u64 + 1);
        if round == 1 {
            peers.iter().for_each(|peer| reset(peer.socket.stream()));
        }
        drop(peers);
        wait_for_total(&mut watcher, "room", 1);
    }
    // Some are cut off while the hub is still being asked for them.
    for _ in 0..PEERS {
        let mut peer = Peer::open(server.address());
        peer.send(&json!({"type": "subscribe", "topic": "room"}));
        reset(peer.socket.stream());
    }
    wait_for_total(&mut watcher, "room", 1);
    drop(watcher);
    wait_until("the topic is gone", || {
        server.metric("umbel_hub_topics") == 0.0
    });
}

/// Joins and leaves add up to the list, at any time and with churn on both reactors.
#[test]
fn joins_and_leaves_add_up_to_members() {
    let server = Server::start(&["--topic-rule", "room presence=on", "--presence-max", "10"]);
    let mut watcher = Peer::open(server.address());
    join(&mut watcher, "room");
    let mut known: BTreeSet<String> = BTreeSet::new();
    let address = server.address();
    let churning: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let mut peers = Vec::new();
                for turn in 0..40 {
                    let mut peer = Peer::open(address);
                    join(&mut peer, "room");
                    peers.push(peer);
                    if turn % 3 == 2 {
                        peers.swap_remove(turn % peers.len());
                    }
                }
                peers
            })
        })
        .collect();
    let staying: Vec<Peer> = churning
        .into_iter()
        .flat_map(|it| it.join().expect("churned"))
        .collect();
    let stay = staying.len() as u64 + 1;
    wait_until("all who left are gone", || {
        watcher.send(&json!({"type": "presence", "id": 9, "topic": "room"}));
        loop {
            let message = watcher.next();
            match message["type"].as_str() {
                Some("join") => assert!(known.insert(text(&message["connection"])), "{message}"),
                Some("leave") => assert!(known.remove(&text(&message["connection"])), "{message}"),
                _ => {
                    let members = message["members"].as_array().expect("an array");
                    let mut listed: BTreeSet<_> =
                        members.iter().map(|it| text(&it["connection"])).collect();
                    assert!(listed.len() <= 10);
                    // It was there before it heard of anybody, and so not told of itself.
                    let own = listed.difference(&known).cloned().collect::<Vec<_>>();
                    assert!(own.len() <= 1, "{own:?} were not told");
                    for own in &own {
                        listed.remove(own);
                    }
                    assert_eq!(listed, known);
                    return message["total"] == stay;
                }
            }
        }
    });
}

#[test]
fn presence_off_without_rule_or_right() {
    let server = Server::start(&["--topic-rule", "h/** history=10"]);
    for topic in ["plain", "h/a"] {
        let mut peers = [Peer::open(server.address()), Peer::open(server.address())];
        peers.iter_mut().for_each(|peer| join(peer, topic));
        let question = json!({"type": "presence", "id": 1, "topic": topic});
        assert_eq!(peers[0].error(&question), "unsupported");
        peers[0].expect_nothing_before_pong();
    }
    let server = Server::start(&[
        "--topic-rule",
        "room presence=on",
        "--subscribe-token",
        "s",
        "--query-token",
        "allow",
    ]);
    let mut member = Peer::open_at(server.address(), "/ws?token=s&info=secret", JSON).welcomed();
    join(&mut member, "room");
    let mut publisher = Peer::open(server.address());
    let question = json!({"type": "presence", "id": 1, "topic": "room"});
    let answer = publisher.ask(&question);
    assert_eq!(answer["code"], "unauthorized");
    assert!(!answer.to_string().contains("secret"));
}

#[test]
fn info_bytes_max() {
    let server = Server::start(&["--topic-rule", "** presence=on", "--info-bytes-max", "30"]);
    let quoted = "x".repeat(30);
    for (info, shown) in [
        ("%7B%22name%22:%22anna%22%7D", json!({"name": "anna"})),
        ("anna", json!("anna")),
        ("%22anna%22", json!("anna")),
        ("7", json!(7)),
        ("1e999", json!("1e999")),
        ("%7B", json!("{")),
        ("%C3%A9+%22", json!("\u{e9} \"")),
        ("", json!("")),
        (&*quoted, json!(quoted)),
    ] {
        let target = format!("/ws?info={info}");
        let mut peer = Peer::open_at(server.address(), &target, JSON);
        peer.subscribe("t");
        let who = peer.ask(&json!({"type": "presence", "id": 1, "topic": "t"}));
        assert_eq!(who["members"][0]["info"], shown, "{info}");
        peer.ask(&json!({"type": "unsubscribe", "id": 1, "topic": "t"}));
    }
    for target in [
        format!("/ws?info={}", "x".repeat(31)),
        "/ws?info=a&info=b".to_owned(),
        "/ws?info=%FF".to_owned(),
        "/ws?info=%2".to_owned(),
    ] {
        let (head, _) = WebSocket::offer_on(connect(server.address(), 0), &target, &offer(JSON));
        assert!(head.starts_with("HTTP/1.1 400 "), "{target}: {head}");
    }
}

/// JSON that nests too deep for the readers of the messages around it is a text.
#[test]
fn deeply_nested_info() {
    let server = Server::start(&["--topic-rule", "** presence=on"]);
    let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
    let mut watcher = Peer::open(server.address());
    watcher.subscribe("t");
    for (depth, is_text) in [(32, false), (33, true), (127, true)] {
        let target = format!("/ws?info={}", nested(depth));
        let mut peer = Peer::open_at(server.address(), &target, JSON);
        peer.subscribe("t");
        assert_eq!(watcher.next()["info"].is_string(), is_text, "{depth}");
        let who = watcher.ask(&json!({"type": "presence", "id": 1, "topic": "t"}));
        assert_eq!(who["total"], 2);
        peer.ask(&json!({"type": "unsubscribe", "id": 1, "topic": "t"}));
        assert_eq!(watcher.next()["type"], "leave");
    }
}

/// Who comes and goes faster than is told is told of together, and what was undone meanwhile not at all.
#[test]
fn news_at_a_bounded_rate() {
    const TIMES: usize = 50;
    let server = Server::start(&[
        "--topic-rule",
        "** presence=on",
        "--presence-writes-per-second-max",
        "10",
        "--reactors",
        "1",
    ]);
    let mut watcher = Peer::open(server.address());
    watcher.subscribe("room");
    let mut restless = Peer::open(server.address());
    for _ in 0..TIMES {
        restless.subscribe("room");
        let answer = restless.ask(&json!({"type": "unsubscribe", "id": 2, "topic": "room"}));
        assert_eq!(answer["type"], "unsubscribed", "{answer}");
    }
    watcher.send(&json!({"type": "presence", "id": 3, "topic": "room"}));
    let mut heard = Vec::new();
    let list = loop {
        let message = watcher.next();
        match message["type"].as_str() {
            Some("presence") => break message,
            Some(kind) => heard.push(kind.to_owned()),
            None => panic!("{message}"),
        }
    };
    assert_eq!(list["total"], 1, "{list}");
    let expected = ["join", "leave"].iter().cycle().take(heard.len());
    assert!(heard.iter().eq(expected), "{heard:?}");
    assert!(heard.len().is_multiple_of(2), "{heard:?}");
    assert!(heard.len() <= TIMES, "{} changes", heard.len());
}
