//! Subscriptions by pattern over the wire: what matches, what comes, and what is left behind.

mod support;

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::peers::Http;
use support::process::rss_bytes;
use support::umbel_v1::{BINARY, JSON, Peer, epoch, offset, text};
use support::{Random, Server, wait_until};

/// Where a topic or a pattern is cut: before each `/` and each `.` in front of the first `?`.
fn segments(name: &str) -> Vec<&str> {
    let path_end = name.find('?').unwrap_or(name.len());
    let mut starts = vec![0];
    starts.extend(name[..path_end].match_indices(['/', '.']).map(|(at, _)| at));
    starts.dedup();
    let ends = starts.iter().skip(1).copied().chain([name.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| &name[start..end])
        .collect()
}

/// The page's words on what matches, written down once more and slowly.
fn matches(pattern: &str, topic: &str) -> bool {
    let (pattern, topic) = (segments(pattern), segments(topic));
    let separator = |segment: &str| {
        segment
            .starts_with(['/', '.'])
            .then(|| segment.as_bytes()[0])
    };
    for (index, want) in pattern.iter().enumerate() {
        let Some(have) = topic.get(index) else {
            return false;
        };
        let at = usize::from(separator(want).is_some());
        let same_separator = separator(want) == separator(have);
        match &want[at..] {
            "**" => return same_separator || index == 0 && at == 0,
            "*" if same_separator && have.len() > at => {}
            "*" => return false,
            _ if want == have => {}
            _ => return false,
        }
    }
    pattern.len() == topic.len()
}

#[test]
fn model_matches_specification() {
    for (pattern, topic, expected) in [
        ("orders/*", "orders/eu", true),
        ("orders/*", "orders/eu/1", false),
        ("orders/*", "orders/", false),
        ("orders/*", "orders.eu", false),
        ("orders/**", "orders/eu/1.x", true),
        ("orders/**", "orders", false),
        ("**", "a/b.c?d=e", true),
        ("*.x", "a.x", true),
        ("a", "a", true),
    ] {
        assert_eq!(matches(pattern, topic), expected, "{pattern} {topic}");
    }
}

const WORDS: [&str; 6] = ["a", "b", "orders", "eu", "\u{e9}", "1"];

fn random_topic(random: &mut Random) -> String {
    let mut topic = WORDS[random.below(WORDS.len())].to_owned();
    for _ in 0..random.below(4) {
        topic.push(['/', '.'][random.below(2)]);
        topic.push_str(WORDS[random.below(WORDS.len())]);
    }
    if random.below(10) == 0 {
        topic.push_str("?x=a/b");
    }
    topic
}

fn random_pattern(random: &mut Random) -> String {
    let topic = random_topic(random);
    let segments = segments(&topic);
    let last = segments.len() - 1;
    let replaced = segments.iter().enumerate().map(|(index, segment)| {
        let at = usize::from(segment.starts_with(['/', '.']));
        match random.below(6) {
            0 | 1 => format!("{}*", &segment[..at]),
            2 if index == last => format!("{}**", &segment[..at]),
            _ => (*segment).to_owned(),
        }
    });
    replaced.collect()
}

/// Hundreds of patterns and of topics, against the model. Every publication must come once for each pattern that
/// matches and no other, in the order of its topic.
#[test]
fn hundreds_of_patterns() {
    const COUNT: usize = 500;
    for (seed, subprotocol) in [(1, JSON), (2, BINARY)] {
        let server = Server::start(&["--reactors", "2", "--ping-interval-ms", "3600000"]);
        let mut random = Random::new(seed);
        let mut patterns = HashSet::new();
        while patterns.len() < COUNT {
            patterns.insert(random_pattern(&mut random));
        }
        let patterns: Vec<String> = patterns.into_iter().collect();
        let mut peers: Vec<Peer> = (0..4)
            .map(|_| Peer::open_at(server.address(), "/ws", subprotocol))
            .collect();
        for (peer, part) in peers.iter_mut().zip(patterns.chunks(COUNT / 4)) {
            let commands = part
                .iter()
                .map(|it| json!({"type": "subscribe", "id": 1, "pattern": it}));
            peer.send(&Value::Array(commands.collect()));
            part.iter()
                .for_each(|_| assert_eq!(peer.next()["type"], "subscribed"));
        }
        let topics: Vec<String> = (0..COUNT).map(|_| random_topic(&mut random)).collect();
        let counts = patterns.chunks(COUNT / 4).map(|part| {
            let last = topics
                .iter()
                .flat_map(|topic| part.iter().filter(|pattern| matches(pattern, topic)));
            last.count()
        });
        let expected: Vec<usize> = counts.collect();
        let readers: Vec<_> = peers
            .into_iter()
            .zip(expected)
            .map(|(mut peer, count)| {
                thread::spawn(move || {
                    let messages: Vec<Value> = (0..count).map(|_| peer.next()).collect();
                    peer.expect_nothing_before_pong();
                    messages
                })
            })
            .collect();
        let mut http = Http::connect(server.address());
        for part in topics.chunks(100) {
            let lines = part.iter().enumerate();
            let lines =
                lines.map(|(at, topic)| json!({"topic": topic, "data": at}).to_string() + "\n");
            assert_eq!(http.publish_lines(&lines.collect::<String>()).status, 200);
        }
        for reader in readers {
            // No topic has subscribers of its own, so each publication is one of its own epoch.
            let mut seen = HashSet::new();
            for message in reader.join().expect("all came") {
                let (pattern, topic) = (text(&message["pattern"]), text(&message["topic"]));
                assert!(matches(&pattern, &topic), "{pattern} {topic}");
                assert!(
                    seen.insert((pattern, text(&message["position"]))),
                    "doubled: {message}"
                );
            }
        }
    }
}

/// Where topics are kept, publications by a pattern come in the order of each topic.
#[test]
fn pattern_keeps_topic_order() {
    let server = Server::start(&["--reactors", "2", "--topic-rule", "** history=1"]);
    let address = server.address();
    let mut peers = [JSON, BINARY].map(|subprotocol| Peer::open_at(address, "/ws", subprotocol));
    peers
        .iter_mut()
        .for_each(|peer| peer.subscribe_pattern("t/*"));
    let publishers: Vec<_> = (0..3)
        .map(|_| {
            thread::spawn(move || {
                let mut http = Http::connect(address);
                for number in 0..300 {
                    http.publish(&format!("t/{}", number % 7), b"x");
                }
            })
        })
        .collect();
    for peer in &mut peers {
        let mut next: HashMap<String, (String, u64)> = HashMap::new();
        for _ in 0..900 {
            let message = peer.next();
            let position = text(&message["position"]);
            let (known, at) = next
                .entry(text(&message["topic"]))
                .or_insert_with(|| (epoch(&position).to_owned(), 0));
            assert_eq!(epoch(&position), known);
            *at += 1;
            assert_eq!(offset(&position), *at, "{message}");
        }
    }
    publishers
        .into_iter()
        .for_each(|it| it.join().expect("published"));
}

/// Once it is answered, whatever is published on any reactor comes.
#[test]
fn no_gap_after_pattern_subscribed() {
    for inline in ["true", "false"] {
        let server = Server::start(&[
            "--reactors",
            "4",
            "--workers",
            "2",
            "--inline-shards",
            inline,
        ]);
        let mut publishers: Vec<_> = (0..8).map(|_| Http::connect(server.address())).collect();
        for round in 0..200 {
            let mut peer = Peer::open(server.address());
            peer.subscribe_pattern(&format!("r/{}/*", round % 3));
            let topic = format!("r/{}/{round}", round % 3);
            publishers[round % 8].publish(&topic, format!("{round}").as_bytes());
            assert_eq!(peer.publication().1, format!("{round}"));
        }
    }
}

#[test]
fn patterns_released() {
    const ROUNDS: usize = 24;
    const BATCH: usize = 250;
    let server = Server::start(&["--reactors", "2"]);
    let address = server.address();
    let mut peers: Vec<_> = (0..4).map(|_| Peer::open(address)).collect();
    let mut http = Http::connect(address);
    let mut number = 0;
    let mut memory = 0;
    for round in 0..ROUNDS {
        for peer in &mut peers {
            let name =
                |index: usize| format!("p{}/*/{}/**", (number + index) % 1000, number + index);
            for kind in ["subscribe", "unsubscribe"] {
                let commands =
                    (0..BATCH).map(|it| json!({"type": kind, "id": it, "pattern": name(it)}));
                peer.send(&Value::Array(commands.collect()));
                let mut answers = 0;
                while answers < BATCH {
                    let answer = peer.next();
                    assert_ne!(answer["type"], "error", "{answer}");
                    answers += usize::from(answer["type"] != "publication");
                }
                http.publish(&format!("p{}/x/{}/y", number % 1000, number), b"x");
            }
            number += BATCH;
        }
        // Memory that is used again does not count as growth.
        if round == ROUNDS / 4 {
            memory = rss_bytes(server.pid());
        }
    }
    // Some go with their connections, which say nothing.
    for peer in &mut peers {
        let commands =
            (0..BATCH).map(|it| json!({"type": "subscribe", "pattern": format!("left/{it}/*")}));
        peer.send(&Value::Array(commands.collect()));
    }
    drop(peers);
    wait_until("no pattern is left", || {
        server.metric("umbel_patterns") == 0.0
    });
    let grown = rss_bytes(server.pid()).saturating_sub(memory);
    assert!(grown < 4 << 20, "{number} patterns left {grown} bytes");
    assert_eq!(server.metric("umbel_topics"), 0.0);
    // The hub does not deliver to them either.
    let before = server.metric("umbel_deliveries_total");
    http.publish("left/1/x", b"x");
    assert_eq!(server.metric("umbel_deliveries_total"), before);
}

#[test]
fn pattern_bytes_bounded_for_connection_and_process() {
    let limits = [
        "--pattern-bytes-max",
        "16384",
        "--pattern-bytes-total-max",
        "65536",
    ];
    let server = Server::start(&limits);
    let subscribe = |number: usize| {
        let pattern = format!("{}/{number}/**", "a".repeat(200));
        json!({"type": "subscribe", "id": number, "pattern": pattern})
    };
    // The text of each and 400 more.
    let each = "a".repeat(200).len() + "/1000/**".len() + 400;
    let mut peers = Vec::new();
    let mut number = 1000;
    let subscribed = loop {
        let mut peer = Peer::open(server.address());
        let mut of_peer = 0;
        while peer.ask(&subscribe(number))["type"] == "subscribed" {
            (number, of_peer) = (number + 1, of_peer + 1);
        }
        assert_eq!(peer.error(&subscribe(number)), "too_many_subscriptions");
        peers.push(peer);
        if of_peer < 16384 / each {
            break number - 1000;
        }
        assert_eq!(of_peer, 16384 / each);
    };
    assert_eq!(subscribed, 65536 / each);
    let bytes = server.metric("umbel_pattern_bytes") as usize;
    assert_eq!(bytes, subscribed * each);
    // What ends makes room, for the connection itself and for others.
    let last = peers.len() - 1;
    let unsubscribe =
        json!({"type": "unsubscribe", "id": 1, "pattern": subscribe(1000)["pattern"]});
    assert_eq!(peers[0].ask(&unsubscribe)["type"], "unsubscribed");
    assert_eq!(peers[last].ask(&subscribe(number))["type"], "subscribed");
    peers.clear();
    wait_until("no pattern is left", || {
        server.metric("umbel_pattern_bytes") == 0.0
    });
}

/// As many, as long and with as many segments as 30 connections may ask for: what the process grows by is what it counts.
#[test]
fn memory_of_long_patterns_bounded() {
    const EACH: usize = 1024;
    let server = Server::start(&["--reactors", "2"]);
    let base_bytes = rss_bytes(server.pid());
    let mut peers: Vec<_> = (0..30).map(|_| Peer::open(server.address())).collect();
    let mut refused = 0;
    for (number, peer) in peers.iter_mut().enumerate() {
        let pattern = |it: usize| {
            let pattern = format!("{number:04}{it:07}{}/{}", "/x".repeat(14), "x".repeat(205));
            json!({"type": "subscribe", "id": 1, "pattern": pattern})
        };
        for some in [0..EACH / 2, EACH / 2..EACH] {
            peer.send(&some.map(pattern).collect());
        }
        for _ in 0..EACH {
            let answer = peer.next();
            refused += usize::from(answer["code"] == "too_many_subscriptions");
        }
    }
    assert_eq!(refused, 30 * (EACH - 524_288 / (245 + 400)));
    let grown_bytes = rss_bytes(server.pid()).saturating_sub(base_bytes);
    let counted_bytes = server.metric("umbel_pattern_bytes") as u64;
    assert!(
        grown_bytes < counted_bytes * 5 / 4 + (4 << 20),
        "{grown_bytes} of {counted_bytes}"
    );
    // Their ends hold nobody up.
    let mut other = Peer::open(server.address());
    let asked = Instant::now();
    drop(peers);
    (0..100).for_each(|_| other.expect_nothing_before_pong());
    assert!(asked.elapsed() < Duration::from_secs(5));
    wait_until("no pattern is left", || {
        server.metric("umbel_pattern_bytes") == 0.0
    });
}

#[test]
fn pattern_needs_subscribe_right() {
    let server = Server::start(&["--subscribe", "nobody"]);
    let mut peer = Peer::open(server.address());
    let command = json!({"type": "subscribe", "id": 1, "pattern": "**"});
    assert_eq!(peer.error(&command), "forbidden");
    Http::connect(server.address()).publish("t", b"x");
    peer.expect_nothing_before_pong();
}
