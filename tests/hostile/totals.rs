//! Memory of the process beside what its gauges count, with every total filled.

use std::any::Any;
use std::io::Write;
use std::time::Duration;

use crate::attack::{is_long, reactors};
use crate::support::peers::{Http, WebSocket, connect};
use crate::support::process::rss_bytes;
use crate::support::umbel_v1::Peer;
use crate::support::{Server, wait_until, wait_within};
use serde_json::json;

/// Each of the totals.
fn total_bytes() -> usize {
    let mib = if is_long() { 64 } else { 8 };
    mib << 20
}

/// The part of what fills 64 MiB that fills a total.
fn share(of: usize) -> usize {
    (of * (total_bytes() >> 20)).div_ceil(64)
}

/// What the process may grow by besides: buffers that each thread has once, and what clients of the test cost.
const NOISE_BYTES: f64 = (4 << 20) as f64;

/// Whoever holds what fills a total.
type Holders = Vec<Box<dyn Any>>;

struct Full {
    server: Server,
    base_bytes: u64,
    holders: Holders,
}

impl Full {
    fn start() -> Full {
        let total = total_bytes().to_string();
        let reactors = reactors(2);
        let rule = "h/** history=1000000";
        let mut arguments = vec!["--reactors", &reactors, "--topic-rule", rule];
        for limit in [
            "--inbound-bytes-total-max",
            "--outbox-bytes-total-max",
            "--history-bytes-total-max",
            "--pattern-bytes-total-max",
            "--subscription-bytes-total-max",
        ] {
            arguments.extend([limit, &total]);
        }
        let server = Server::start(&arguments);
        Full {
            base_bytes: rss_bytes(server.pid()),
            server,
            holders: Vec::new(),
        }
    }

    /// Topics or patterns with long names, each of one connection, until no more is taken.
    fn subscribe(&mut self, key: &str, metric: &str, name: impl Fn(usize) -> String) {
        // A connection may be on a reactor whose part is full, while others have room.
        let mut refused_whole = 0;
        for number in 0.. {
            let mut peer = Peer::open(self.server.address());
            let mut refused = 0;
            for part in 0..8 {
                let commands = (0..128).map(|it| {
                    let name = name(number * 1024 + part * 128 + it);
                    json!({"type": "subscribe", "id": it, key: name})
                });
                peer.send(&commands.collect());
                for _ in 0..128 {
                    refused += usize::from(peer.next()["type"] == "error");
                }
            }
            self.holders.push(Box::new(peer));
            let counted = self.server.metric(metric);
            refused_whole += usize::from(refused == 1024);
            if refused_whole > 20 || counted > 0.97 * total_bytes() as f64 {
                break;
            }
            assert!(number < 1000, "{metric} stays at {counted}");
        }
    }

    fn fill_subscriptions(&mut self) {
        self.subscribe("topic", "umbel_subscription_bytes", |it| format!("s/{it}"));
    }

    /// Many subscribers of the same topics.
    fn fill_members(&mut self) {
        let name = |it| format!("m/{}", it % 1024);
        self.subscribe("topic", "umbel_subscription_bytes", name);
    }

    fn fill_patterns(&mut self) {
        let long = "p".repeat(100);
        self.subscribe("pattern", "umbel_pattern_bytes", |it| {
            format!("{long}/{it}/**")
        });
    }

    /// Readers that stand still, each of a topic of its own.
    fn fill_outboxes(&mut self) {
        let mut http = Http::connect(self.server.address());
        for number in 0..share(130) {
            let stream = connect(self.server.address(), 4096);
            let socket = WebSocket::open_on(stream, &format!("/ws/o/{number}"));
            for _ in 0..9 {
                http.publish(&format!("o/{number}"), &[b'x'; 100_000]);
            }
            self.holders.push(Box::new(socket));
        }
        let counted = self.server.metric("umbel_outbox_bytes");
        assert!(counted > 0.5 * total_bytes() as f64, "{counted}");
    }

    /// Messages that never end.
    fn fill_inbound(&mut self) {
        let mut frame = vec![0x82, 0xff];
        frame.extend((1_000_000u64).to_be_bytes());
        frame.extend([0; 4]);
        frame.resize(frame.len() + 200_000, b'x');
        // Some come to a reactor whose part is full, and are closed.
        wait_until("they have come", || {
            let socket = WebSocket::open(self.server.address(), "/echo");
            let _ = socket.stream().write_all(&frame);
            self.holders.push(Box::new(socket));
            self.server.metric("umbel_inbound_bytes") > 0.5 * total_bytes() as f64
        });
    }

    fn fill_histories(&mut self) {
        let mut http = Http::connect(self.server.address());
        let line = |number: usize| {
            let topic = format!("h/{}", number % 500);
            json!({"topic": topic, "data": "y".repeat(300)}).to_string() + "\n"
        };
        for part in 0..share(200) {
            let lines: String = (0..1000).map(|it| line(part * 1000 + it)).collect();
            assert_eq!(http.publish_lines(&lines).status, 200);
        }
        let counted = self.server.metric("umbel_history_bytes");
        assert!(counted > 0.5 * total_bytes() as f64, "{counted}");
    }

    /// What the process has grown by is at most a quarter more than what the gauges say.
    fn check(&self, what: &str) {
        let gauges = [
            "inbound",
            "outbox",
            "history",
            "pattern",
            "subscription",
            "compressor",
        ];
        let counted: f64 = gauges
            .iter()
            .map(|it| self.server.metric(&format!("umbel_{it}_bytes")))
            .sum();
        let grown = rss_bytes(self.server.pid()).saturating_sub(self.base_bytes) as f64;
        eprintln!(
            "hostile: totals, {what}: grown {grown}, counted {counted}, ratio {:.3}",
            grown / counted
        );
        assert!(
            grown <= 1.25 * counted + NOISE_BYTES,
            "{what}: {grown} bytes, {counted} are counted"
        );
        assert!(counted > 0.5 * total_bytes() as f64, "{what}: {counted}");
    }

    /// The memory comes back when all are gone who held it, but for histories, which stay.
    fn end(&mut self, what: &str) {
        self.holders.clear();
        let base = self.base_bytes as f64;
        let kept = |full: &Full| 1.25 * full.server.metric("umbel_history_bytes");
        let grown = |full: &Full| rss_bytes(full.server.pid()) as f64 - base - kept(full);
        wait_within(Duration::from_secs(5), what, || {
            grown(self) <= base / 10.0 + f64::from(10 << 20)
        });
        eprintln!(
            "hostile: totals, {what}: {} stay of {base} and a tenth and 10 MiB",
            grown(self)
        );
    }
}

#[test]
fn each_total_alone() {
    type Fill = fn(&mut Full);
    let fills: [(&str, Fill); 6] = [
        ("members", Full::fill_members),
        ("subscriptions", Full::fill_subscriptions),
        ("patterns", Full::fill_patterns),
        ("outboxes", Full::fill_outboxes),
        ("inbound", Full::fill_inbound),
        ("histories", Full::fill_histories),
    ];
    for (what, fill) in fills {
        let mut full = Full::start();
        fill(&mut full);
        full.check(what);
        full.end(what);
    }
}

#[test]
fn all_totals_together() {
    let mut full = Full::start();
    full.fill_histories();
    full.fill_patterns();
    full.fill_subscriptions();
    full.fill_outboxes();
    // Behind them: a reactor whose part is full reads no body that is published.
    full.fill_inbound();
    full.check("all");
    full.end("all");
    wait_until("subscriptions and patterns are gone", || {
        let left = |name| full.server.metric(name);
        left("umbel_subscription_bytes") + left("umbel_pattern_bytes") == 0.0
    });
}
