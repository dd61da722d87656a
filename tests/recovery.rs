//! History and recovery: what is kept, what comes to those who come back, and that `recovered` is true exactly where
//! nothing is missing.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use support::catch_up::{
    CaughtUp, From, WAYS, Way, catch_up, next_block, numbers, publish_numbers,
};
use support::peers::Http;
use support::umbel_v1::{Peer, epoch, offset, text};
use support::{Server, Wire, wait_until};

fn at(position: &str, offset: u64) -> String {
    format!("{}:{offset}", epoch(position))
}

fn check(
    server: &Server,
    way: Way,
    topic: &str,
    from: From<'_>,
    recovered: Option<bool>,
    data: &[String],
) {
    let position = server_position(server, topic);
    let caught_up = catch_up(server, way, topic, from);
    let expected = CaughtUp {
        recovered,
        position,
        data: data.to_vec(),
    };
    assert_eq!(caught_up, expected, "{way:?} {topic} {from:?}");
}

/// Where a topic with a history stands.
fn server_position(server: &Server, topic: &str) -> String {
    let mut peer = Peer::open(server.address());
    peer.subscribe(topic)
}

/// Makes the position to come back with from the newest one.
type Since<'a> = &'a dyn Fn(&str) -> String;

#[test]
fn history_bounded_by_count() {
    let server = Server::start(&["--topic-rule", "c/** history=5"]);
    for way in WAYS {
        let cases: [(Since<'_>, bool, u64); 9] = [
            (&|newest| at(newest, 12), true, 13),
            (&|newest| at(newest, 11), true, 12),
            (&|newest| at(newest, 7), true, 8),
            (&|newest| at(newest, 6), false, 13),
            (&|newest| at(newest, 0), false, 13),
            (&|newest| at(newest, 13), false, 13),
            (&|newest| at(newest, u64::MAX), false, 13),
            (&|_| "0000000000000000:12".to_owned(), false, 13),
            (&|newest| at(newest, 8).to_uppercase(), true, 9),
        ];
        for (number, (since, recovered, first)) in cases.iter().enumerate() {
            let topic = format!("c/{way:?}/{number}");
            let newest = publish_numbers(server.address(), &topic, 1, 12);
            let since = since(&newest);
            let since = From::Since(&since);
            check(
                &server,
                way,
                &topic,
                since,
                Some(*recovered),
                &numbers(*first, 12),
            );
        }
        for (last, first) in [(0, 13), (1, 12), (5, 8), (6, 8), (u32::MAX, 8)] {
            let topic = format!("c/{way:?}/last{last}");
            publish_numbers(server.address(), &topic, 1, 12);
            check(
                &server,
                way,
                &topic,
                From::Last(last),
                None,
                &numbers(first, 12),
            );
        }
        let topic = format!("c/{way:?}/now");
        publish_numbers(server.address(), &topic, 1, 12);
        check(&server, way, &topic, From::Now, None, &[]);
    }
}

#[test]
fn history_bounded_by_bytes() {
    let server = Server::start(&["--topic-rule", "b history=1000 history_bytes_max=20000"]);
    let mut http = Http::connect(server.address());
    let payload = "x".repeat(1000);
    for _ in 0..99 {
        http.publish("b", payload.as_bytes());
    }
    let newest = publish_numbers(server.address(), "b", 1, 1);
    let last = catch_up(&server, Way::V1, "b", From::Last(1000));
    let kept = last.data.len() as u64;
    assert!(
        (8..=20).contains(&kept),
        "{kept} of about 1000 bytes in 20000"
    );
    // The publication that ended the look has displaced at most one other.
    let mut peer = Peer::open(server.address());
    let answer = peer.subscribe_since("b", &at(&newest, 100 - kept + 1));
    assert_eq!(answer["recovered"], true);
    let mut peer = Peer::open(server.address());
    let answer = peer.subscribe_since("b", &at(&newest, 100 - kept - 1));
    assert_eq!(answer["recovered"], false);
}

#[test]
fn history_bounded_by_age() {
    let server = Server::start(&["--topic-rule", "a/** history=1000 history_age_max_ms=500"]);
    let address = server.address();
    // A subscriber keeps the topic, and so its epoch, when its history has gone; without one it goes too.
    let mut keeper = Peer::open(address);
    keeper.subscribe("a/kept");
    let started = Instant::now();
    let kept = publish_numbers(address, "a/kept", 1, 3);
    let gone = publish_numbers(address, "a/gone", 1, 3);
    for (topic, newest) in [("a/kept", &kept), ("a/gone", &gone)] {
        let answer = Peer::open(address).subscribe_since(topic, &at(newest, 1));
        let in_time = started.elapsed() < Duration::from_millis(450);
        assert!(answer["recovered"] == true || !in_time, "{answer}");
    }
    wait_until("the histories are too old", || {
        let answer = Peer::open(address).subscribe_since("a/kept", &at(&kept, 1));
        assert_eq!(answer["position"], kept.as_str(), "the topic goes on");
        answer["recovered"] == false
    });
    let took = started.elapsed();
    assert!(took > Duration::from_millis(400), "too early: {took:?}");
    // Who missed nothing has recovered, whatever is kept.
    let answer = Peer::open(address).subscribe_since("a/kept", &kept);
    assert_eq!(answer["recovered"], true);
    drop(keeper);
    wait_until("the topics are gone", || {
        server.metric("umbel_topics") == 0.0 && server.metric("umbel_hub_topics") == 0.0
    });
    for (topic, newest) in [("a/kept", &kept), ("a/gone", &gone)] {
        let answer = Peer::open(address).subscribe_since(topic, newest);
        assert_eq!(answer["recovered"], false);
        assert_ne!(epoch(&text(&answer["position"])), epoch(newest));
    }
}

#[test]
fn recovery_without_history() {
    let server = Server::start(&["--topic-rule", "h/** history=5"]);
    for way in WAYS {
        let topic = format!("plain/{way:?}");
        let mut keeper = Peer::open(server.address());
        let position = keeper.subscribe(&topic);
        check(
            &server,
            way,
            &topic,
            From::Since(&position),
            Some(true),
            &[],
        );
        let newest = publish_numbers(server.address(), &topic, 1, 3);
        check(
            &server,
            way,
            &topic,
            From::Since(&position),
            Some(false),
            &[],
        );
        // `check` has published one more, and so has the line before.
        assert_eq!(offset(&newest), 4);
        check(
            &server,
            way,
            &topic,
            From::Since(&at(&newest, 5)),
            Some(true),
            &[],
        );
        check(&server, way, &topic, From::Last(10), None, &[]);
    }
}

#[test]
fn position_and_recovered_headers() {
    let server = Server::start(&["--topic-rule", "h/** history=5"]);
    let head = |target: &str, lines: &str| {
        let mut wire = server.connect();
        wire.send(support::wire::upgrade_request(target, lines).as_bytes());
        wire.read_response()
    };
    assert_eq!(head("/ws/plain", "").header("umbel-position"), None);
    let response = head("/ws/h/a", "");
    assert!(
        response
            .header("umbel-position")
            .is_some_and(|it| offset(it) == 0)
    );
    assert_eq!(response.header("umbel-recovered"), None);
    let response = head("/ws/plain?since=00000000000000a1:1", "");
    assert_eq!(response.header("umbel-recovered"), Some("false"));
    let response = head("/ws/plain?last=1", "");
    assert!(response.header("umbel-position").is_some());
    assert_eq!(response.header("umbel-recovered"), None);
    for target in [
        "/ws/h/a?since=",
        "/ws/h/a?since=x",
        "/ws/h/a?since=1:1",
        "/ws/h/a?last=",
        "/ws/h/a?last=-1",
        "/ws/h/a?last=4294967296",
        "/ws/h/a?last=1&since=00000000000000a1:1",
        "/ws/h/a?since=00000000000000a1:1&since=00000000000000a1:1",
        "/ws/h/a?since=00000000000000a1:-1",
        "/ws/h/a?since=00000000000000a1:18446744073709551616",
    ] {
        assert_eq!(head(target, "").status, 400, "{target}");
        let target = target.replace("/ws/", "/sse/");
        let response = server.request(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(response.status, 400, "{target}");
    }
}

fn open_stream(server: &Server, target: &str, id: Option<&str>) -> (support::Response, Wire) {
    let mut wire = server.connect();
    let line = id.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n").as_bytes());
    let response = wire.read_response();
    (response, wire)
}

#[test]
fn recovery_by_last_event_id() {
    let server = Server::start(&["--topic-rule", "h/** history=5"]);
    let newest = publish_numbers(server.address(), "h/a", 1, 9);
    // Who has seen nothing yet is told an id by which to come back.
    let (response, mut wire) = open_stream(&server, "/sse/h/a", None);
    assert_eq!(response.header("umbel-position"), Some(&*newest));
    let block = next_block(&mut wire);
    assert_eq!((block.id.as_deref(), block.data), (Some(&*newest), None));
    // The header wins over the query, for a browser repeats the query of its first request.
    for target in [
        "/sse/h/a",
        "/sse/h/a?since=00000000000000a1:1",
        "/sse/h/a?last=1",
        "/sse/h/a?since=junk",
    ] {
        let (response, mut wire) = open_stream(&server, target, Some(&at(&newest, 7)));
        assert_eq!(response.header("umbel-recovered"), Some("true"), "{target}");
        for number in [8, 9] {
            let block = next_block(&mut wire);
            assert_eq!(block.id, Some(at(&newest, number)));
            assert_eq!(block.data, Some(number.to_string()));
        }
    }
    let (response, mut wire) = open_stream(&server, "/sse/h/a", Some(&newest));
    assert_eq!(response.header("umbel-recovered"), Some("true"));
    assert_eq!(next_block(&mut wire).id, Some(newest));
}

/// Positions that this server did not give out: no error, for a browser could do nothing about it, and nothing of what
/// is kept.
#[test]
fn invalid_last_event_id_is_gap() {
    let server = Server::start(&["--topic-rule", "h/** history=5"]);
    let newest = publish_numbers(server.address(), "h/a", 1, 9);
    let huge = "9".repeat(5000);
    let other = at(&newest, 3);
    for id in [
        "0",
        "-1",
        "junk",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "1e999",
        "null",
        "../../etc/passwd",
        "\u{e9}",
        "00000000000000a1:9",
        "ffffffffffffffff:18446744073709551615",
        &huge,
        &other,
        &at(&newest, 10),
        &at(&newest, u64::MAX),
        &format!("{}:-1", epoch(&newest)),
        &format!("{}:0x9", epoch(&newest)),
        &newest[1..],
        &format!("x{newest}"),
    ] {
        let (response, mut wire) = open_stream(&server, "/sse/h/a", Some(id));
        assert_eq!(response.status, 200, "{id}");
        assert_eq!(response.header("umbel-recovered"), Some("false"), "{id}");
        assert_eq!(response.header("umbel-position"), Some(&*newest), "{id}");
        let block = next_block(&mut wire);
        assert_eq!(block.event.as_deref(), Some("gap"), "{id}");
        assert_eq!(block.data.as_deref(), Some("{\"recovered\":false}"), "{id}");
        assert_eq!(block.id.as_deref(), Some(&*newest), "{id}");
    }
    // Two of them leave no way to say which one counts.
    let lines = format!(
        "GET /sse/h/a HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {other}\r\nLast-Event-ID: {newest}\r\n\r\n"
    );
    let mut wire = server.connect();
    wire.send(lines.as_bytes());
    let response = wire.read_response();
    assert!(
        response.status == 400 || response.header("umbel-recovered") == Some("false"),
        "{response:?}"
    );
}

#[test]
fn recovery_publications_max() {
    let server = Server::start(&[
        "--topic-rule",
        "** history=1000",
        "--recovery-publications-max",
        "10",
        "--recovery-bytes-max",
        "5000",
    ]);
    for way in WAYS {
        let topic = format!("count/{way:?}");
        let newest = publish_numbers(server.address(), &topic, 1, 30);
        check(
            &server,
            way,
            &topic,
            From::Since(&at(&newest, 20)),
            Some(true),
            &numbers(21, 30),
        );
        // The last publication of each check counts as well.
        check(
            &server,
            way,
            &topic,
            From::Since(&at(&newest, 20)),
            Some(false),
            &[],
        );
        let topic = format!("last/{way:?}");
        publish_numbers(server.address(), &topic, 1, 30);
        check(
            &server,
            way,
            &topic,
            From::Last(100),
            None,
            &numbers(21, 30),
        );
    }
}

#[test]
fn recovery_bytes_max() {
    let server = Server::start(&[
        "--topic-rule",
        "** history=1000",
        "--recovery-bytes-max",
        "5000",
    ]);
    let mut http = Http::connect(server.address());
    let payload = "x".repeat(900);
    for way in WAYS {
        let topic = format!("bytes/{way:?}");
        for _ in 0..9 {
            http.publish(&topic, payload.as_bytes());
        }
        let newest = server_position(&server, &topic);
        let five = vec![payload.clone(); 5];
        check(
            &server,
            way,
            &topic,
            From::Since(&at(&newest, 4)),
            Some(true),
            &five,
        );
        check(
            &server,
            way,
            &topic,
            From::Since(&at(&newest, 3)),
            Some(false),
            &[],
        );
    }
}

/// An outbox that has no room for all of what was asked for: `since` gives all or nothing, `last` the newest that fit.
#[test]
fn last_fits_outbox() {
    let server = Server::start(&[
        "--topic-rule",
        "** history=1000",
        "--outbox-bytes-max",
        "5000",
        "--publication-bytes-max",
        "1000",
    ]);
    let mut http = Http::connect(server.address());
    let payload = |number: usize| format!("{number}{}", "x".repeat(900));
    for way in WAYS {
        let mut fill = |topic: &str| {
            for number in 1..=9 {
                http.publish(topic, payload(number).as_bytes());
            }
            server_position(&server, topic)
        };
        let topic = format!("since/{way:?}");
        let since = at(&fill(&topic), 1);
        let from = From::Since(&since);
        check(&server, way, &topic, from, Some(false), &[]);
        for (count, fitting) in [(100, 4..=5), (2, 2..=2)] {
            let topic = format!("last/{count}/{way:?}");
            fill(&topic);
            let got = catch_up(&server, way, &topic, From::Last(count)).data;
            assert!(fitting.contains(&got.len()), "{way:?}: {}", got.len());
            let newest: Vec<_> = (10 - got.len()..=9).map(payload).collect();
            assert_eq!(got, newest, "{way:?}");
        }
    }
}

#[test]
fn total_bound_empties_least_used_history() {
    // Eight shards or fewer share it, each with its part.
    let server = Server::start(&[
        "--topic-rule",
        "** history=1000",
        "--history-bytes-total-max",
        "4000000",
    ]);
    let address = server.address();
    let mut http = Http::connect(address);
    let payload = "x".repeat(1000);
    let cold: Vec<String> = (0..40).map(|it| format!("cold/{it}")).collect();
    let positions: Vec<String> = cold
        .iter()
        .map(|topic| publish_numbers(address, topic, 1, 5))
        .collect();
    // One of them is used again and again while ever new ones fill the histories.
    for round in 0..50 {
        for topic in 0..20 {
            let line = json!({"topic": format!("hot/{round}/{topic}"), "data": payload})
                .to_string()
                + "\n";
            assert_eq!(http.publish_lines(&line.repeat(10)).status, 200);
        }
        let answer = Peer::open(address).subscribe_since(&cold[0], &at(&positions[0], 1));
        assert_eq!(answer["recovered"], true, "what is used is not cold");
    }
    let lost = cold
        .iter()
        .zip(&positions)
        .skip(1)
        .filter(|(topic, position)| {
            let answer = Peer::open(address).subscribe_since(topic, &at(position, 1));
            answer["recovered"] == false
        });
    assert_eq!(lost.count(), 39, "12 MB have gone through 4 MB");
}

/// Joins while four publishers publish as fast as they can on both reactors: everybody sees a run without a gap from
/// the position that it was told, or gave.
fn check_joins_while_publications_stream(arguments: &[&str]) {
    const JOINERS: usize = 200;
    const SEEN: u64 = 50;
    let rule = [
        "--topic-rule",
        "s history=5000",
        "--outbox-bytes-max",
        "33554432",
    ];
    let server = Server::start(&[&rule[..], arguments].concat());
    let address = server.address();
    let stop = Arc::new(AtomicBool::new(false));
    let published = Arc::new(AtomicU64::new(0));
    let publishers: Vec<_> = (0..4)
        .map(|_| {
            let (stop, published) = (Arc::clone(&stop), Arc::clone(&published));
            thread::spawn(move || {
                let lines = "{\"topic\":\"s\",\"data\":\"x\"}\n".repeat(20);
                let mut http = Http::connect(address);
                while !stop.load(Ordering::SeqCst) {
                    if http.publish_lines(&lines).status == 200 {
                        published.fetch_add(20, Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();
    wait_until("they publish", || published.load(Ordering::SeqCst) > 100);
    let mut known = server_position(&server, "s");
    let mut recovered = 0;
    for joiner in 0..JOINERS {
        let mut peer = Peer::open(address);
        let first = match joiner % 3 {
            0 => offset(&peer.subscribe("s")) + 1,
            1 => {
                let answer = peer.subscribe_since("s", &known);
                let is_recovered = answer["recovered"] == true;
                recovered += usize::from(is_recovered);
                match is_recovered {
                    true => offset(&known) + 1,
                    false => offset(&text(&answer["position"])) + 1,
                }
            }
            _ => {
                let answer =
                    peer.ask(&json!({"type": "subscribe", "id": 1, "topic": "s", "last": 10}));
                offset(&text(&answer["position"])) - 9
            }
        };
        for expected in first..first + SEEN {
            let (position, _) = peer.publication();
            assert_eq!(offset(&position), expected, "joiner {joiner}");
            known = position;
        }
    }
    stop.store(true, Ordering::SeqCst);
    publishers
        .into_iter()
        .for_each(|thread| thread.join().expect("published"));
    assert!(recovered > JOINERS / 6, "{recovered} recovered");
}

#[test]
fn no_gap_on_join_with_inline_shards() {
    check_joins_while_publications_stream(&["--reactors", "2", "--inline-shards", "true"]);
}

#[test]
fn no_gap_on_join_with_workers() {
    check_joins_while_publications_stream(&[
        "--reactors",
        "2",
        "--inline-shards",
        "false",
        "--workers",
        "2",
    ]);
}

#[test]
fn topics_kept_for_history_only() {
    let server = Server::start(&["--topic-rule", "h/** history=5"]);
    let mut http = Http::connect(server.address());
    for number in 0..1000 {
        http.publish(&format!("plain/{number}"), b"x");
    }
    assert_eq!(server.metric("umbel_hub_topics"), 0.0);
    http.publish("h/a", b"x");
    assert_eq!(server.metric("umbel_hub_topics"), 1.0);
    // Those who look and go leave nothing either.
    for way in WAYS {
        for number in 0..50 {
            catch_up(&server, way, &format!("plain/{number}"), From::Last(3));
        }
    }
    wait_until("only the history is left", || {
        server.metric("umbel_topics") == 0.0 && server.metric("umbel_hub_topics") == 1.0
    });
}
