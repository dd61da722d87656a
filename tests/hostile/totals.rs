//! Memory of the process beside what its gauges count, with every total filled.

use std::any::Any;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::attack::{is_long, reactors};
use crate::file::Folder;
use crate::support::peers::{Http, WebSocket, connect};
use crate::support::process::rss_bytes;
#[cfg(feature = "jwt")]
use crate::support::tokens::sign;
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
        let mut arguments = vec!["--reactors", &reactors];
        for rule in [
            "h/** history=1000000",
            "w/** presence=on",
            "c/** presence=count",
        ] {
            arguments.extend(["--topic-rule", rule]);
        }
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

    /// Topics or patterns, each of one connection, until no more is taken.
    fn subscribe(&mut self, key: &str, metrics: &[&str], name: impl Fn(usize) -> String) {
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
                // News of members come in between.
                let mut unanswered = 128;
                while unanswered > 0 {
                    let answer = peer.next();
                    unanswered -= usize::from(!answer["id"].is_null());
                    refused += usize::from(answer["type"] == "error");
                }
            }
            self.holders.push(Box::new(peer));
            let gauges = metrics.iter().map(|it| self.server.metric(it));
            let counted: f64 = gauges.sum();
            refused_whole += usize::from(refused == 1024);
            if refused_whole > 20 || counted > 0.97 * total_bytes() as f64 {
                break;
            }
            assert!(number < 1000, "{metrics:?} stay at {counted}");
        }
    }

    fn fill_subscriptions(&mut self) {
        self.subscribe("topic", &["umbel_subscription_bytes"], |it| {
            format!("s/{it}")
        });
    }

    /// Many subscribers of the same topics.
    fn fill_members(&mut self) {
        let name = |it| format!("m/{}", it % 1024);
        self.subscribe("topic", &["umbel_subscription_bytes"], name);
    }

    /// Each alone where it is present.
    fn fill_lone_presence(&mut self) {
        let gauges = ["umbel_subscription_bytes", "umbel_presence_bytes"];
        self.subscribe("topic", &gauges, |it| format!("w/{it}"));
        let counted = self.server.metric(gauges[1]);
        assert!(counted > 0.4 * total_bytes() as f64, "{counted}");
    }

    /// Many who are present on the same topics.
    fn fill_crowded_presence(&mut self) {
        let gauges = ["umbel_subscription_bytes", "umbel_presence_bytes"];
        self.subscribe("topic", &gauges, |it| format!("c/{}", it % 1024));
    }

    fn fill_patterns(&mut self) {
        let long = "p".repeat(100);
        self.subscribe("pattern", &["umbel_pattern_bytes"], |it| {
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

    /// Much is counted, and what the process has grown by is at most a quarter more.
    fn check(&self, what: &str) {
        let counted = self.check_ratio(what);
        assert!(counted > 0.5 * total_bytes() as f64, "{what}: {counted}");
    }

    /// What the process has grown by is at most a quarter more than what the gauges say, which this gives.
    fn check_ratio(&self, what: &str) -> f64 {
        let gauges = [
            "inbound",
            "outbox",
            "history",
            "pattern",
            "subscription",
            "presence",
            "identity",
            "compressor",
        ];
        let counted: f64 = gauges
            .iter()
            .map(|it| self.server.metric(&format!("umbel_{it}_bytes")))
            .sum();
        let counted = counted + self.server.metric("umbel_verified_token_bytes");
        let grown = rss_bytes(self.server.pid()).saturating_sub(self.base_bytes) as f64;
        eprintln!(
            "hostile: totals, {what}: grown {grown}, counted {counted}, ratio {:.3}",
            grown / counted
        );
        assert!(
            grown <= 1.25 * counted + NOISE_BYTES,
            "{what}: {grown} bytes, {counted} are counted"
        );
        counted
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
    let fills: [(&str, Fill); 8] = [
        ("members", Full::fill_members),
        ("subscriptions", Full::fill_subscriptions),
        ("lone presence", Full::fill_lone_presence),
        ("crowded presence", Full::fill_crowded_presence),
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
        let gauges = [
            "umbel_subscription_bytes",
            "umbel_presence_bytes",
            "umbel_pattern_bytes",
        ];
        gauges.iter().all(|it| full.server.metric(it) == 0.0)
    });
}

/// Connections that are somebody each, with as much as a token may say of them.
#[cfg(feature = "jwt")]
#[test]
fn identities() {
    const SECRET: &str = "umbel-test-secret-0123456789abcdef";
    let connections = if is_long() { 6000 } else { 600 };
    let text = format!(
        "origins = [\"any\"]\nobserve = \"anyone\"\nreactors = {}\n[[jwt]]\nname = \"app\"\n\
         algorithms = [\"HS256\"]\nsecret = \"{SECRET}\"\n[[grant]]\nwhen = {{ subject = true }}\nsubscribe = [\"**\"]\n",
        reactors(2)
    );
    let folder = Folder::with("umbel.toml", &text);
    let server = Server::start(&["--config", &folder.path("umbel.toml")]);
    let mut full = Full {
        base_bytes: rss_bytes(server.pid()),
        server,
        holders: Vec::new(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs();
    for number in 0..connections {
        let umbel = json!({
            "info": "i".repeat(1000),
            "meta": "m".repeat(4000),
            "subscribe": [format!("rooms/{number}/**"), format!("users/{number}")],
        });
        let subject = format!("user-{number}");
        let claims = json!({ "sub": subject, "iat": now, "exp": now + 3600, "umbel": umbel });
        let line = format!("Authorization: Bearer {}\r\n", sign(&claims, SECRET));
        let stream = connect(full.server.address(), 0);
        let (head, socket) = WebSocket::offer_on(stream, &format!("/ws/users/{number}"), &line);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        full.holders.push(Box::new(socket));
    }
    let counted = full.server.metric("umbel_identity_bytes");
    assert!(counted > f64::from(connections) * 5000.0, "{counted}");
    full.check_ratio("identities");
    full.holders.clear();
    wait_until("they are gone", || {
        full.server.metric("umbel_identity_bytes") == 0.0
    });
}
