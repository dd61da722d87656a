//! Bad inputs that brought other servers down. Each runs beside a subscriber and a publisher that must not notice,
//! and the process's memory, descriptors and CPU are measured before and after: see `support::canary`.

mod support;

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;
use support::canary::{beside, wait_for_idle_cpu};
use support::frames::{self, BINARY, FIN, PING, TEXT, masked};
use support::process::cpu_ticks;
use support::wire::{End, upgrade_request};
use support::{PATIENCE, Pieces, Random, Server, Wire, wait_until, wait_within};

/// Bytes that one connection may hold by the default limits: an unread read and its outbox.
const CONNECTION_BYTES: u64 = (256 << 10) + (2 << 20);

fn open(server: &Server, target: &str) -> Wire {
    let mut wire = server.connect();
    wire.upgrade(target);
    wire
}

/// Writes until the server has had enough, or `time` is up; gives the bytes that it took.
fn flood(wire: &Wire, bytes: &[u8], time: Duration) -> usize {
    let mut stream = wire.stream();
    stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout can be set");
    let (deadline, mut taken) = (Instant::now() + time, 0);
    while Instant::now() < deadline {
        match stream.write(bytes) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    taken
}

/// 20 MB of header: refused at the cap, and the rest is read past without being looked at (tungstenite CVE-2023-43669).
#[test]
fn header_of_20_megabytes() {
    let server = Server::start(&[]);
    beside(&server, 1 << 20, || {
        for line in ["A: ", "Sec-WebSocket-Protocol: ", "GET /", "Cookie: a=b; "] {
            let mut wire = server.connect();
            let mut head = b"GET /ws/a HTTP/1.1\r\nHost: localhost\r\n".to_vec();
            head.extend_from_slice(line.as_bytes());
            head.resize(20 << 20, b'x');
            wire.offer(&head, Pieces::Whole);
            wire.end();
            assert_eq!(wire.read_response().status, 431, "{line}");
            assert_eq!(wire.read_to_end(), (Vec::new(), End::Eof));
        }
    });
}

/// A long header in single bytes: the CPU time of each byte does not grow with those before it.
#[test]
fn header_in_single_bytes() {
    let server = Server::start(&["--head-bytes-max", "1000000"]);
    let cost = |length: usize| {
        let before = cpu_ticks(server.pid());
        let mut wire = server.connect();
        let mut head = b"GET / HTTP/1.1\r\nHost: localhost\r\nA: ".to_vec();
        head.resize(length, b'x');
        wire.offer(&head, Pieces::Bytes);
        wire.offer(b"\r\n\r\n", Pieces::Bytes);
        assert_eq!(wire.read_response().status, 200);
        cpu_ticks(server.pid()) - before
    };
    beside(&server, 4 << 20, || {
        cost(10_000);
        let (short, long) = (cost(20_000), cost(80_000));
        // Four times the bytes; sixteen times the time would be quadratic.
        assert!(long <= 10 * short.max(5), "{long} ticks against {short}");
    });
}

/// ws CVE-2024-37890.
#[test]
fn two_thousand_headers() {
    let server = Server::start(&[]);
    beside(&server, 0, || {
        for pieces in Pieces::ALL {
            let mut wire = server.connect();
            let request = upgrade_request("/ws/a", &"A:b\r\n".repeat(2000));
            wire.offer(request.as_bytes(), pieces);
            assert_eq!(wire.read_response().status, 431, "{pieces:?}");
        }
    });
}

/// Offers that are well-formed and cannot be met are declined (undici CVE-2026-2229).
#[test]
fn extension_offers() {
    let server = Server::start(&[]);
    beside(&server, 0, || {
        for offer in [
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=7, permessage-deflate; x",
            "x-webkit-deflate-frame",
        ] {
            let mut wire = server.connect();
            let line = format!("Sec-WebSocket-Extensions: {offer}\r\n");
            wire.send(upgrade_request("/echo", &line).as_bytes());
            let response = wire.read_response();
            assert_eq!(response.status, 101, "{offer}");
            assert_eq!(response.header("sec-websocket-extensions"), None);
            // RSV1 without negotiation.
            wire.send(&masked(FIN | 0x40 | TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00"));
            assert_eq!(wire.read_frame().close_code(), Some(1002));
        }
    });
}

/// Keys that are none, 100,000 times on a few connections: each refused, and the memory is flat (hono CVE-2026-73565).
#[test]
fn bad_keys() {
    let server = Server::start(&["--log-level", "info"]);
    beside(&server, CONNECTION_BYTES, || {
        let good = upgrade_request("/ws/a", "");
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let requests = [
            good.replace(key, ""),
            good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"),
            good.replace("dGhlIHNhbXBsZSBub25jZQ==", "!!!!!!!!!!!!!!!!!!!!!!=="),
            good.replace(key, &key.repeat(2)),
        ];
        for request in requests {
            let mut wire = server.connect();
            // Each batch ends in a request with an answer of its own.
            let batch = request.repeat(250) + "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
            for _ in 0..100 {
                wire.send(batch.as_bytes());
                let answers = wire.read_through(b"\r\n\r\nok\n");
                let answers = String::from_utf8(answers).expect("answers are text");
                assert_eq!(answers.matches("HTTP/1.1 400 ").count(), 250);
            }
        }
    });
}

/// Heads and bodies that come a byte at a time on a thousand sockets are cut at an absolute deadline, and a canary
/// connects meanwhile (slowloris, hackney CVE-2026-47073).
#[test]
fn slowloris() {
    let server = Server::start(&[
        "--handshake-timeout-ms",
        "1500",
        "--body-timeout-ms",
        "1500",
    ]);
    beside(&server, 16 << 20, || {
        let head = b"GET /ws/a HTTP/1.1\r\nHost: localhost\r\nA: ";
        let body = b"POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n";
        let mut wires: Vec<Wire> = (0..1000).map(|_| server.connect()).collect();
        for (index, wire) in wires.iter_mut().enumerate() {
            wire.offer([&head[..], body][index % 2], Pieces::Whole);
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(2500) {
            for wire in &mut wires {
                wire.offer(b"x", Pieces::Whole);
            }
            let asked = Instant::now();
            drop(open(&server, "/ws/canary"));
            assert!(
                asked.elapsed() < Duration::from_secs(2),
                "the canary waited"
            );
            // Each of them sends a byte three times a second.
            thread::sleep(Duration::from_millis(300));
        }
        for wire in &mut wires {
            assert_eq!(wire.read_response().status, 408);
        }
    });
    assert_eq!(
        server.metric("umbel_connections{state=\"open\",dialect=\"raw\"}"),
        0.0
    );
}

/// Control characters of the peer's reach no line of the log, whatever part of a request they are in, and no answer
/// (uvicorn CVE-2020-7694).
#[test]
fn control_characters_in_log() {
    let server = Server::start(&["--log-level", "trace"]);
    beside(&server, 0, || {
        for target in [
            "/%1b[2J",
            "/ws/%1b[2J",
            "/ws/a%0aINFO%20forged",
            "/pub/%0d",
            "/ws/%c2%9b2J",
        ] {
            for lines in ["", "Origin: \u{9b}2J\r\n", "Cookie: \u{85}forged\r\n"] {
                let request = upgrade_request(target, lines);
                let response = server.request(&request);
                assert!(matches!(response.status, 400 | 403 | 404), "{request:?}");
                assert!(response.text().trim_end().chars().all(|c| !c.is_control()));
            }
        }
        for raw in [
            &b"GET /\x1b[2J HTTP/1.1\r\n\r\n"[..],
            b"\x1b[2J\r\n\r\n",
            b"GET / HTTP/\x1b\r\n\r\n",
        ] {
            let mut wire = server.connect();
            wire.send(raw);
            assert_eq!(wire.read_response().status, 400);
        }
        let mut wire = open(&server, "/echo");
        wire.send(&frames::close(4000, "\u{1b}[2J\nforged"));
        assert_eq!(wire.read_frame().close_code(), Some(4000));
        wire.read_to_end();
    });
    wait_until("the log has the last of them", || {
        server.log().contains("4000")
    });
    let log = server.log();
    assert!(log.lines().count() > 20, "the refusals are logged");
    assert!(log.chars().all(|c| c == '\n' || !c.is_control()), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("forged")), "{log}");
}

/// Lengths that would have to be believed to hurt: no memory is taken for what was only announced.
#[test]
fn announced_lengths() {
    let server = Server::start(&["--message-bytes-max", "1073741824"]);
    beside(&server, 4 << 20, || {
        let mut wires = Vec::new();
        for _ in 0..50 {
            let mut wire = open(&server, "/echo");
            let mut begun = frames::head(FIN | BINARY, 0x80, 1 << 30);
            begun.extend_from_slice(b"mask and a little");
            wire.send(&begun);
            let mut publish = server.connect();
            publish.send(
                b"POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16777216\r\n\r\n{\"topic\"",
            );
            wires.extend([wire, publish]);
        }
        // They are all taken in once a request behind them is answered on each reactor.
        for _ in 0..8 {
            open(&server, "/ws/behind");
        }
    });
}

/// A peer that asks and reads no answer, whatever it asks for: little is kept for it (of pongs, one), it is not read any
/// further, and it is cut.
#[test]
fn floods_without_reads() {
    let server = Server::start(&["--outbox-age-max-ms", "500", "--close-timeout-ms", "200"]);
    beside(&server, CONNECTION_BYTES, || {
        let pings = masked(FIN | PING, &[0; 125]).repeat(500);
        let messages = masked(FIN | BINARY, &[0; 1000]).repeat(50);
        let requests = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2000);
        let preflights = b"OPTIONS /pub/a HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2000);
        for (target, bytes) in [
            (Some("/ws/a"), &pings),
            (Some("/echo"), &pings),
            (Some("/echo"), &messages),
            (None, &requests),
            (None, &preflights),
        ] {
            let mut wire = server.connect();
            if let Some(target) = target {
                wire.upgrade(target);
            }
            let started = Instant::now();
            flood(&wire, bytes, Duration::from_secs(6));
            assert!(
                started.elapsed() < Duration::from_secs(5),
                "{target:?}: it was never cut"
            );
        }
    });
}

/// A reader gets what comes next, whatever `Last-Event-ID` it claims (Mercure f15c726).
#[test]
fn last_event_id_claims() {
    let server = Server::start(&[]);
    beside(&server, 0, || {
        for claim in [
            "",
            "-1",
            "0",
            "18446744073709551616",
            "x:y:z",
            "\u{fffd}",
            &"9".repeat(10_000),
        ] {
            let mut wire = server.connect();
            let request =
                format!("GET /sse/a HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {claim}\r\n\r\n");
            wire.send(request.as_bytes());
            let response = wire.read_response();
            assert_eq!(response.status, 200, "{claim}");
            assert_eq!(response.header("content-type"), Some("text/event-stream"));
            let published = server.publish("a", "text/plain", b"next\n\ndata: forged");
            assert_eq!(published.status, 200);
            let event = wire.read_through(b"forged\n\n");
            let event = String::from_utf8(event).expect("an event is text");
            assert!(
                event.contains("data: next\ndata:\ndata: data: forged\n\n"),
                "{event:?}"
            );
        }
    });
}

/// Bytes by chance, and good conversations with bytes changed by chance, sent whole and split.
#[test]
fn random_bytes() {
    let server = Server::start(&["--handshake-timeout-ms", "500", "--close-timeout-ms", "200"]);
    beside(&server, 4 << 20, || {
        let mut conversation = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
        conversation.extend_from_slice(
            b"POST /pub/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        );
        conversation.extend(upgrade_request("/echo", "").into_bytes());
        conversation.extend(frames::text("hello"));
        conversation.extend(masked(TEXT, b"frag"));
        conversation.extend(masked(FIN | PING, b"p"));
        conversation.extend(masked(FIN, b"ment"));
        conversation.extend(frames::close(1000, "bye"));
        let mut random = Random::new(0xbad);
        for round in 0..600 {
            let mut bytes = match round % 3 {
                0 => {
                    let length = 1 + random.below(300);
                    random.bytes(length)
                }
                _ => conversation.clone(),
            };
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes[at] = random.next() as u8,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, random.next() as u8),
                }
            }
            let mut wire = server.connect();
            wire.offer(
                &bytes,
                [Pieces::Whole, Pieces::Random(round)][round as usize % 2],
            );
            wire.end();
            wire.read_to_end();
        }
    });
}

/// Resets instead of ends, at every stage of a connection, and many at once.
#[test]
fn reset_storm() {
    let server = Server::start(&[]);
    beside(&server, 4 << 20, || {
        let stages: [&[u8]; 5] = [
            b"",
            b"GET /ws/a HT",
            b"POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf",
            b"POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx",
            b"GET /sse/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ];
        let upgrade = upgrade_request("/ws/a", "");
        for round in 0..100 {
            let mut wires: Vec<Wire> = (0..20).map(|_| server.connect()).collect();
            for (index, wire) in wires.iter_mut().enumerate() {
                let stage = stages.get(index % 6).copied().unwrap_or(upgrade.as_bytes());
                wire.offer(stage, Pieces::Whole);
                let linger = SockRef::from(wire.stream()).set_linger(Some(Duration::ZERO));
                linger.expect("an option can be set");
                if round % 2 == 0 {
                    // Some are served first.
                    thread::yield_now();
                }
            }
        }
    });
}

/// Publications to a topic are for its subscribers alone, however fast connections with other topics take the places
/// of those that went (Tomcat CVE-2022-25762).
#[test]
fn slot_reuse_leaks_nothing() {
    let server = Server::start(&[]);
    beside(&server, 16 << 20, || {
        let churn = |thread: usize| {
            let mut random = Random::new(thread as u64);
            let mut publisher = server.connect();
            for round in 0..400 {
                let tag = format!("tag-{thread}-{round}");
                let mut wire = open(&server, &format!("/ws/{tag}"));
                wire.send(&frames::text(&tag));
                let request = format!(
                    "POST /pub/{tag} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{tag}",
                    tag.len()
                );
                publisher.send(request.as_bytes());
                if random.below(2) == 0 {
                    assert_eq!(wire.read_frame().payload, tag.as_bytes());
                    assert_eq!(wire.read_frame().payload, tag.as_bytes());
                }
                match random.below(3) {
                    0 => wire.send(&frames::close(1000, "")),
                    1 => wire.end(),
                    _ => {}
                }
                assert_eq!(publisher.read_response().status, 200);
            }
        };
        thread::scope(|scope| {
            for number in 0..3 {
                scope.spawn(move || churn(number));
            }
        });
    });
    wait_until("no topic is left behind", || {
        server.metric("umbel_topics") == 0.0
    });
}

/// Topics that nobody uses again leave nothing behind, neither those that were subscribed to nor those that were
/// published to (Mercure f062829).
#[test]
fn unique_topics_released() {
    let server = Server::start(&[]);
    let publish = |from: usize| {
        let lines: String = (from..from + 4000)
            .map(|number| format!("{{\"topic\":\"unique-{number}\",\"data\":\"x\"}}\n"))
            .collect();
        let request = format!(
            "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{lines}",
            lines.len()
        );
        let response = server.request(&request);
        assert_eq!(response.text().lines().count(), 4000);
        assert!(!response.text().contains("\"status\""), "all were taken");
    };
    publish(0);
    beside(&server, 4 << 20, || {
        for round in 1..13 {
            publish(round * 4000);
        }
        for number in 0..3000 {
            drop(open(&server, &format!("/ws/unique-{number}?a={number}")));
        }
    });
    wait_until("no topic is left behind", || {
        server.metric("umbel_topics") == 0.0
    });
}

/// A thousand readers that take next to nothing of a hot topic are cut by the age of what waits for them, and cost
/// no more than their outboxes meanwhile (Tomcat CVE-2026-79677).
#[test]
fn slow_readers_of_hot_topic() {
    let server = Server::start(&[
        "--outbox-age-max-ms",
        "700",
        "--close-timeout-ms",
        "300",
        "--outbox-bytes-max",
        "200000",
        "--publication-bytes-max",
        "200000",
        "--send-buffer-bytes",
        "16384",
    ]);
    beside(&server, 100 * 200_000, || {
        let mut readers: Vec<Wire> = (0..100).map(|_| server.connect()).collect();
        for (index, wire) in readers.iter_mut().enumerate() {
            let small = SockRef::from(wire.stream()).set_recv_buffer_size(4096);
            small.expect("an option can be set");
            match index % 2 {
                0 => drop(wire.upgrade("/ws/hot")),
                _ => wire.send(b"GET /sse/hot HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            }
        }
        let started = Instant::now();
        while server.metric("umbel_slow_consumers_total") < 100.0 {
            let response = server.publish("hot", "text/plain", &[b'x'; 20_000]);
            assert_eq!(response.status, 200);
            assert!(started.elapsed() < PATIENCE, "not all were cut");
        }
    });
}

/// Out of descriptors: accepting pauses instead of spinning, who is connected is served, and there is room again at
/// once when some go (Bun#32705, libuv#690).
#[test]
fn out_of_descriptors() {
    for descriptors in [64, 160] {
        let server = Server::start_with_descriptors(descriptors, &[]);
        let mut subscriber = open(&server, "/ws/a");
        let (pid, started) = (server.pid(), Instant::now());
        let wires: Vec<Wire> = (0..200).map(|_| server.connect()).collect();
        for number in 0..20 {
            subscriber.send(&frames::text(&number.to_string()));
            let expected = frames::Frame::text(&number.to_string());
            assert_eq!(subscriber.read_frame(), expected);
        }
        wait_for_idle_cpu(pid);
        drop(wires);
        drop(subscriber);
        // By a request that closes its connection, since there may be room for one alone.
        let mut figures = String::new();
        wait_within(Duration::from_secs(3), "there is room again", || {
            let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let response = server.request(request);
            figures = response.text().to_owned();
            response.status == 200
        });
        let failed = figures
            .lines()
            .find_map(|line| line.strip_prefix("umbel_accept_errors_total "));
        let failed: f64 = failed
            .and_then(|count| count.parse().ok())
            .expect("it is counted");
        let rate = failed / started.elapsed().as_secs_f64();
        assert!(rate < 100.0, "{rate} failed calls of accept a second");
        wait_for_idle_cpu(pid);
    }
}

/// A process that was stopped for longer than its peers have to answer a ping does not blame them.
#[test]
fn stopped_process_times_no_peer_out() {
    let server = Server::start(&["--ping-interval-ms", "300", "--pong-timeout-ms", "1500"]);
    let mut wires: Vec<Wire> = (0..20).map(|_| open(&server, "/ws/a")).collect();
    let mut answer_for = |time: Duration| {
        let until = Instant::now() + time;
        while Instant::now() < until {
            for wire in &mut wires {
                let ping = wire.read_frame();
                assert_eq!(ping.first, FIN | PING);
                wire.send(&masked(FIN | frames::PONG, &ping.payload));
            }
        }
    };
    answer_for(Duration::from_millis(600));
    server.signal("STOP");
    // Longer than a peer has for its pong.
    thread::sleep(Duration::from_millis(2500));
    server.signal("CONT");
    answer_for(Duration::from_millis(1500));
    assert_eq!(
        server.metric("umbel_closed_total{reason=\"pong_timeout\"}"),
        0.0
    );
}
