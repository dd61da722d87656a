//! Patterns that are many, long, or costly to match, and that come and go at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::attack::{is_long, reactors};
use crate::support::peers::Http;
use crate::support::process::rss_bytes;
use crate::support::umbel_v1::Peer;
use crate::support::{Server, wait_until};

/// Time in which 99 of 100 answers come that others wait for while something happens.
fn slowest_percent(server: &Server, act: impl FnOnce()) -> Duration {
    let is_over = Arc::new(AtomicBool::new(false));
    let asker = thread::spawn({
        let (address, is_over) = (server.address(), Arc::clone(&is_over));
        move || {
            let (mut peer, mut took) = (Peer::open(address), Vec::new());
            while !is_over.load(Ordering::Relaxed) || took.len() < 200 {
                let asked = Instant::now();
                assert_eq!(peer.ask(&json!({"type": "ping", "id": 1}))["type"], "pong");
                took.push(asked.elapsed());
            }
            took.sort_unstable();
            took[took.len() * 99 / 100]
        }
    });
    act();
    is_over.store(true, Ordering::Relaxed);
    asker.join().expect("no panic")
}

fn array(kind: &str, patterns: impl Iterator<Item = String>) -> Value {
    Value::Array(
        patterns
            .map(|it| json!({"type": kind, "id": 1, "pattern": it}))
            .collect(),
    )
}

/// Patterns of each connection of [`many_at_once`].
const EACH: usize = 1000;

/// What happens to the patterns of these connections, one after the other, and what others wait meanwhile: they ping as
/// often as they subscribe later, which is the bare case; the patterns come, end, come again, and go with them.
fn come_and_go(server: &Server, peers: usize) -> [Duration; 5] {
    let mut peers: Vec<_> = (0..peers).map(|_| Peer::open(server.address())).collect();
    let count = peers.len() * EACH;
    let round = |peers: &mut Vec<Peer>, kind: &str, (metric, value): (&str, f64)| {
        let message = |peer: usize| {
            let names = (0..EACH).map(|it| format!("user/{}/**", peer * EACH + it));
            match kind {
                "ping" => names.map(|_| json!({"type": "ping", "id": 1})).collect(),
                _ => array(kind, names),
            }
        };
        let messages: Vec<_> = (0..peers.len()).map(message).collect();
        let slowest = slowest_percent(server, || {
            for (peer, message) in peers.iter_mut().zip(&messages) {
                peer.send(message);
            }
            wait_until("all is carried out", || match kind {
                "ping" => server.metric(metric) >= value,
                _ => server.metric(metric) == value,
            });
        });
        let answer = match kind {
            "ping" => "pong".to_owned(),
            kind => format!("{kind}d"),
        };
        for peer in peers {
            (0..EACH).for_each(|_| assert_eq!(peer.next()["type"], answer));
        }
        slowest
    };
    let sent = "umbel_sent_bytes_total";
    let pong = json!({"type": "pong", "id": 1}).to_string();
    let answered = server.metric(sent) + (count * pong.len()) as f64;
    let here = "umbel_hub_patterns";
    let bare = round(&mut peers, "ping", (sent, answered));
    let come = round(&mut peers, "subscribe", (here, count as f64));
    let end = round(&mut peers, "unsubscribe", (here, 0.0));
    let again = round(&mut peers, "subscribe", (here, count as f64));
    let go = slowest_percent(server, || {
        peers.clear();
        wait_until("none is left", || server.metric(here) == 0.0);
    });
    [bare, come, end, again, go]
}

/// 100,000 at once. The short form has fewer, and a server that is not optimised.
#[test]
fn many_at_once() {
    let (turns, peers, more_max) = match is_long() {
        true => (5, 100, Duration::from_millis(5)),
        false => (1, 10, Duration::from_millis(100)),
    };
    let server = Server::start(&["--reactors", &reactors(2), "--log-level", "info"]);
    let all: Vec<_> = (0..turns).map(|_| come_and_go(&server, peers)).collect();
    let [bare, others @ ..] = std::array::from_fn::<_, 5, _>(|kind| {
        let mut of_kind: Vec<_> = all.iter().map(|turn| turn[kind]).collect();
        of_kind.sort_unstable();
        of_kind[turns / 2]
    });
    let count = peers * EACH;
    eprintln!(
        "hostile: patterns, {count} come, end, come again, go: others wait {others:?}, as many pings come: {bare:?}"
    );
    assert!(others.iter().all(|it| *it < bare + more_max), "{all:?}");
    assert_eq!(server.metric("umbel_pattern_bytes"), 0.0);
}

/// As many of 245 bytes as 30 connections may ask for, each with as many segments as there may be.
#[test]
fn long_ones() {
    const EACH: usize = 1024;
    let server = Server::start(&["--reactors", &reactors(2), "--log-level", "info"]);
    let base_bytes = rss_bytes(server.pid());
    let mut peers: Vec<_> = (0..30).map(|_| Peer::open(server.address())).collect();
    let mut refused = 0;
    let slowest = slowest_percent(&server, || {
        for (number, peer) in peers.iter_mut().enumerate() {
            let patterns = (0..EACH).map(|it| {
                let first = format!("{number:04}{it:07}");
                first + &"/x".repeat(14) + "/" + &"x".repeat(245 - 11 - 29)
            });
            let patterns: Vec<_> = patterns.collect();
            for some in patterns.chunks(EACH / 2) {
                peer.send(&array("subscribe", some.iter().cloned()));
            }
            for _ in 0..EACH {
                let answer = peer.next();
                refused += usize::from(answer["code"] == "too_many_subscriptions");
                assert!(answer["type"] == "subscribed" || answer["code"].is_string());
            }
        }
    });
    let grown_bytes = rss_bytes(server.pid()).saturating_sub(base_bytes);
    let counted_bytes = server.metric("umbel_pattern_bytes");
    eprintln!(
        "hostile: patterns, long ones: {refused} refused, grown {grown_bytes}, counted {counted_bytes}, others wait {slowest:?}"
    );
    // Each connection holds what pattern_bytes_max allows.
    assert_eq!(refused, 30 * (EACH - 524_288 / (245 + 400)));
    assert!(grown_bytes < 32 << 20, "{grown_bytes}");
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
    drop(peers);
    wait_until("none is left", || {
        server.metric("umbel_pattern_bytes") == 0.0
    });
}

/// Those that lead a topic to as many nodes as they can, and match nothing.
#[test]
fn costly_ones() {
    let mut patterns = vec![(String::new(), 0)];
    for depth in 0..7 {
        let separator = if depth == 0 { "" } else { "/" };
        let longer = patterns.iter().flat_map(|(text, stars)| {
            let by_star = (*stars < 4).then(|| (format!("{text}{separator}*"), stars + 1));
            std::iter::once((format!("{text}{separator}a"), *stars)).chain(by_star)
        });
        patterns = longer.collect();
    }
    let line = json!({"topic": "a/a/a/a/a/a/a/a", "data": 1});
    let lines = format!("{line}\n").repeat(4000);
    let posts = if is_long() { 20 } else { 3 };
    let [bare, slowest] = [false, true].map(|has_patterns| {
        let server = Server::start(&["--reactors", &reactors(1), "--log-level", "info"]);
        let mut peer = Peer::open(server.address());
        if has_patterns {
            let texts = patterns.iter().map(|(text, _)| format!("{text}/x"));
            peer.send(&array("subscribe", texts));
            for _ in 0..patterns.len() {
                assert_eq!(peer.next()["type"], "subscribed");
            }
        }
        let mut http = Http::connect(server.address());
        slowest_percent(&server, || {
            for _ in 0..posts {
                assert_eq!(http.publish_lines(&lines).status, 200);
            }
        })
    });
    eprintln!("hostile: patterns, costly ones: others wait {slowest:?}, bare {bare:?}");
    assert!(
        slowest < 2 * bare + Duration::from_millis(5),
        "{slowest:?} beside {bare:?}"
    );
}
