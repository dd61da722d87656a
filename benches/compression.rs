//! What compression costs and saves on a stream of JSON ticks of about 300 bytes: bytes on the wire and CPU time of a
//! delivery, for subscribers of each kind, in one run.
//!
//! The subscribers are those of a node in memory, whose transports swallow what is written, so the time is that of
//! compressing and of walking the subscribers; the kernel's part of a delivery is the same for all and not in it.
//! "dedicated" is what servers do that compress for each connection in a context of its own: the same compressor at
//! zlib's default level, once for each connection. Noise: times of a busy machine are good to a tenth; each is the best
//! of three rounds, and what counts is their ratio. Bytes do not vary.
//!
//! ```sh
//! cargo bench --bench compression
//! cargo bench --bench compression -- ticks > ticks.txt && node benches/compression_ws.mjs ticks.txt
//! ```

#[path = "../tests/support/node.rs"]
mod node;

use std::time::Instant;

use node::{Node, Sink, upgrade};
use umbel::config::{Deflate, Limits};
use umbel::internals::connection::Settings;
use umbel::internals::protocol::deflate::{Compression, TakeoverDeflater};

const MESSAGES: usize = 1000;

/// Contexts of "dedicated": enough that no cache holds them all.
const CONTEXTS: usize = 200;

fn main() {
    let ticks = ticks();
    if std::env::args().any(|argument| argument == "ticks") {
        return ticks.iter().for_each(|tick| println!("{tick}"));
    }
    let bytes: usize = ticks.iter().map(String::len).sum();
    let mean = bytes as f64 / ticks.len() as f64;
    println!("{MESSAGES} messages of {mean:.0} bytes\n");
    println!(
        "| subscribers | sent | bytes a delivery | ns a delivery | ns of it for compressing |"
    );
    println!("| --- | --- | --- | --- | --- |");
    let dedicated = best_of_three(|| dedicated(&ticks));
    for count in [1000, 10_000] {
        let plain = best_of_three(|| deliver(&ticks, count, None));
        let row = |name: &str, (bytes, ns): (f64, f64)| {
            let compressing = (ns - plain.1).max(0.0);
            println!("| {count} | {name} | {bytes:.1} | {ns:.1} | {compressing:.2} |");
        };
        row("plain", plain);
        for (name, offer) in [
            (
                "each message by itself",
                "permessage-deflate; server_no_context_takeover",
            ),
            ("cohort", "permessage-deflate"),
        ] {
            row(name, best_of_three(|| deliver(&ticks, count, Some(offer))));
        }
        row("dedicated", (dedicated.0, dedicated.1 + plain.1));
    }
}

/// The same bytes, and the shortest time.
fn best_of_three(run: impl Fn() -> (f64, f64)) -> (f64, f64) {
    let runs = [run(), run(), run()];
    let shortest = runs.iter().map(|run| run.1).fold(f64::INFINITY, f64::min);
    (runs[0].0, shortest)
}

/// Bytes and nanoseconds of a delivery to so many subscribers with this offer.
fn deliver(ticks: &[String], count: usize, offer: Option<&str>) -> (f64, f64) {
    let settings = Settings::new(&Limits::default()).with_deflate(Deflate::Text, false);
    let mut node: Node<Sink> = Node::with_settings(settings);
    let mut request = upgrade("/ws/ticks");
    if let Some(offer) = offer {
        request.truncate(request.len() - 2);
        request.extend_from_slice(format!("Sec-WebSocket-Extensions: {offer}\r\n\r\n").as_bytes());
    }
    let ids: Vec<_> = (0..count).map(|_| node.accept(request.clone())).collect();
    node.tick();
    let before: usize = ids.iter().map(|&id| node.written(id)).sum();
    let started = Instant::now();
    for tick in ticks {
        node.publish("ticks", tick.as_bytes());
    }
    let took = started.elapsed();
    let after: usize = ids.iter().map(|&id| node.written(id)).sum();
    let deliveries = (count * ticks.len()) as f64;
    (
        (after - before) as f64 / deliveries,
        took.as_nanos() as f64 / deliveries,
    )
}

/// Bytes of a frame, and nanoseconds of compressing it, where each connection has its context.
fn dedicated(ticks: &[String]) -> (f64, f64) {
    let compression = Compression {
        level: 6,
        ..Compression::default()
    };
    let mut contexts: Vec<_> = (0..CONTEXTS)
        .map(|_| TakeoverDeflater::new(compression))
        .collect();
    let (mut bytes, mut payload) = (0, Vec::new());
    let ticks = &ticks[..ticks.len() / 2];
    let started = Instant::now();
    for tick in ticks {
        for context in &mut contexts {
            payload.clear();
            let len = context.deflate(tick.as_bytes(), &mut payload);
            bytes += len + if len < 126 { 2 } else { 4 };
        }
    }
    let deliveries = (ticks.len() * CONTEXTS) as f64;
    (
        bytes as f64 / deliveries,
        started.elapsed().as_nanos() as f64 / deliveries,
    )
}

/// What an exchange sends: mostly the same words, and numbers that move.
fn ticks() -> Vec<String> {
    const SYMBOLS: [&str; 8] = [
        "BTC-USD", "ETH-USD", "SOL-USD", "XRP-USD", "DOGE-USD", "ADA-USD", "AVAX-USD", "LINK-USD",
    ];
    let mut state = 1u64;
    let mut below = |end: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    let mut price = 6_423_117;
    let tick = |turn: u64| {
        price = price + below(2001) - 1000;
        let symbol = SYMBOLS[below(8) as usize];
        let (whole, cents) = (price / 100, price % 100);
        format!(
            r#"{{"type":"ticker","sequence":{},"product_id":"{symbol}","price":"{whole}.{cents:02}","open_24h":"63954.17","volume_24h":"{}.{:08}","low_24h":"62110.04","high_24h":"65012.90","best_bid":"{whole}.{:02}","best_ask":"{whole}.{:02}","side":"{}","time":"2026-11-21T06:{:02}:{:02}.{:06}Z","trade_id":{}}}"#,
            58_000_000_000 + turn * 3 + below(3),
            12_000 + below(100),
            below(100_000_000),
            (cents + 97) % 100,
            (cents + 3) % 100,
            if below(2) == 0 { "buy" } else { "sell" },
            turn / 3000 % 60,
            turn / 50 % 60,
            below(1_000_000),
            710_000_000 + turn,
        )
    };
    (0..MESSAGES as u64).map(tick).collect()
}
