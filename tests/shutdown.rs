//! The end of the server: nothing is accepted any more, what is queued is delivered, everybody is told, and the
//! process ends in time.

mod support;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use support::peers::{Block, EventStream, Http, Incoming, WebSocket, connect};
use support::{PATIENCE, Server, wait_until};

const SMALL_RECEIVE_BUFFER: usize = 4096;

fn check_everybody_is_told(signal: &str) {
    let mut server = Server::start(&[]);
    let address = server.address();
    let mut sockets: Vec<_> = (0..5)
        .map(|number| WebSocket::open(address, &format!("/ws/{number}")))
        .collect();
    sockets.push(WebSocket::open(address, "/echo"));
    let mut stream = EventStream::open(address, "/sse/a");
    let mut idle = Http::connect(address);
    assert_eq!(idle.get("/ready").status, 200);
    let started = Instant::now();
    server.signal(signal);
    for mut socket in sockets {
        let close = socket.next();
        assert!(
            matches!(&close, Incoming::Close(1001, reason) if reason.contains("shutting down")),
            "{close:?}"
        );
        socket.answer_close(1001);
    }
    assert_eq!(stream.next(), Block::Comment, "when to come back");
    assert_eq!(stream.next(), Block::End);
    assert!(idle.is_at_end());
    drop((stream, idle));
    let status = server.wait_for_exit(PATIENCE);
    assert!(status.success(), "{status}");
    // Everybody answered, so nobody had to be waited for.
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
}

#[test]
fn sigterm_closes_all_with_1001() {
    check_everybody_is_told("TERM");
}

#[test]
fn sigint_closes_all_with_1001() {
    check_everybody_is_told("INT");
}

#[test]
fn ready_503_during_drain() {
    let server = Server::start(&["--reactors", "1", "--log-level", "info"]);
    let address = server.address();
    // They are closed one after the other, so the last connection lives on for a while.
    let sockets: Vec<_> = (0..1500)
        .map(|_| WebSocket::open(address, "/ws/a"))
        .collect();
    let mut http = Http::connect(address);
    assert_eq!(http.get("/ready").status, 200);
    server.signal("TERM");
    // One that was open is answered, and told that it ends once its reactor has begun to drain.
    wait_until("it is not ready any more", || {
        let answer = http.get("/ready");
        answer.status == 503 && answer.header("connection") == Some("close")
    });
    // Whoever comes now may ask how the server is, and nothing else.
    for (target, status) in [("/ready", 503), ("/health", 200), ("/metrics", 200)] {
        let mut late = Http::connect(address);
        assert_eq!(late.get(target).status, status, "{target}");
        assert!(late.is_at_end(), "{target}");
    }
    let mut late = Http::connect(address);
    let refused = late.get("/topics");
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    let stream = TcpStream::connect(address).expect("it listens for probes");
    assert_eq!(WebSocket::try_open_on(stream, "/ws/a").0, 503);
    drop(sockets);
}

/// A server of one reactor with a public listener and one for operators, and their ports.
fn with_operators() -> (Server, u16, u16) {
    let listen = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0#admin"];
    let open = ["--reactors", "1", "--insecure"];
    let server = Server::start(&[&listen[..], &open[..]].concat());
    let port_of = |surface: &str| -> u16 {
        let log = server.log();
        let is_of = |line: &&str| line.contains(&format!(", surface {surface} "));
        let line = log.lines().find(is_of).expect("it is logged");
        let (_, place) = line.split_once(": http://127.0.0.1:").expect("its address");
        let port = place
            .split([',', ' '])
            .next()
            .and_then(|port| port.parse().ok());
        port.expect("a port")
    };
    let (public, admin) = (port_of("public"), port_of("admin"));
    (server, public, admin)
}

/// A peer that was told and does not go is waited for, and probes are answered meanwhile.
#[test]
fn listener_for_operators_stays_while_somebody_is_left() {
    let (mut server, public, admin) = with_operators();
    let mut socket = WebSocket::open(([127, 0, 0, 1], public).into(), "/ws/a");
    let mut idle = Http::connect(([127, 0, 0, 1], admin).into());
    assert_eq!(idle.get("/ready").status, 200);
    server.signal("TERM");
    assert!(matches!(socket.next(), Incoming::Close(1001, _)));
    for _ in 0..50 {
        let mut probe = Http::connect(([127, 0, 0, 1], admin).into());
        assert_eq!(probe.get("/ready").status, 503);
    }
    let last = idle.get("/ready");
    assert_eq!(
        (last.status, last.header("connection")),
        (503, Some("close"))
    );
    socket.answer_close(1001);
    assert!(server.wait_for_exit(PATIENCE).success());
}

#[test]
fn listener_for_operators_stays_in_drain() {
    let (server, public, admin) = with_operators();
    let sockets: Vec<_> = (0..1500)
        .map(|_| WebSocket::open(([127, 0, 0, 1], public).into(), "/ws/a"))
        .collect();
    server.signal("TERM");
    wait_until("it is not ready any more", || {
        Http::connect(([127, 0, 0, 1], admin).into())
            .get("/ready")
            .status
            == 503
    });
    let refused = TcpStream::connect(("127.0.0.1", public)).expect_err("it is closed");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    drop(sockets);
}

#[test]
fn pre_stop_serves_and_says_so() {
    let mut server = Server::start(&["--pre-stop-ms", "700", "--reactors", "1"]);
    let address = server.address();
    let mut http = Http::connect(address);
    let mut before = WebSocket::open(address, "/ws/a");
    let started = Instant::now();
    server.signal("TERM");
    wait_until("it is not ready any more", || {
        http.get("/ready").status == 503
    });
    assert_eq!(Http::connect(address).get("/ready").status, 503);
    let mut since = WebSocket::open(address, "/ws/a");
    http.publish("a", b"still");
    assert_eq!(
        (before.text(), since.text()),
        ("still".into(), "still".into())
    );
    assert!(
        started.elapsed() < Duration::from_millis(700),
        "the machine is too slow for this test"
    );
    for mut socket in [before, since] {
        assert!(matches!(socket.next(), Incoming::Close(1001, _)));
        assert!(started.elapsed() >= Duration::from_millis(690));
        socket.answer_close(1001);
    }
    assert!(server.wait_for_exit(PATIENCE).success());
    let log = server.log();
    assert!(
        log.contains("drained: 2 connections were told, 0 were cut off"),
        "{log}"
    );
}

#[test]
fn sigquit_leaves_pre_stop_out() {
    let mut server = Server::start(&["--pre-stop-ms", "60000"]);
    let mut socket = WebSocket::open(server.address(), "/ws/a");
    server.signal("QUIT");
    assert!(matches!(socket.next(), Incoming::Close(1001, _)));
    socket.answer_close(1001);
    assert!(server.wait_for_exit(PATIENCE).success());
}

#[test]
fn each_comes_back_at_its_own_moment() {
    const PEERS: usize = 40;
    let server = Server::start(&["--drain-code", "1012", "--reconnect-spread-ms", "8000"]);
    let mut sockets: Vec<_> = (0..PEERS)
        .map(|_| WebSocket::open(server.address(), "/ws/a"))
        .collect();
    server.signal("TERM");
    let mut retries: Vec<f64> = sockets
        .iter_mut()
        .map(|socket| {
            let Incoming::Close(1012, reason) = socket.next() else {
                panic!("it is closed with the code of the setting");
            };
            let (_, retry) = reason.split_once("retry=").expect("when to come back");
            retry.parse().expect("seconds")
        })
        .collect();
    retries.sort_by(f64::total_cmp);
    assert!(retries[0] < 2.0 && retries[PEERS - 1] > 6.0, "{retries:?}");
    assert!(retries[PEERS - 1] < 8.0, "{retries:?}");
    retries.dedup();
    assert!(retries.len() > PEERS / 3, "{retries:?}");
}

#[test]
fn signals_that_only_log() {
    let server = Server::start(&[]);
    let _socket = WebSocket::open(server.address(), "/ws/a");
    server.signal("USR2");
    server.signal("USR1");
    wait_until("both are logged", || {
        let log = server.log();
        log.contains("there is no handover") && log.contains("summary")
    });
    assert!(server.log().contains("connections=1"), "{}", server.log());
    assert_eq!(Http::connect(server.address()).get("/ready").status, 200);
}

#[test]
fn queued_publications_delivered_first() {
    const COUNT: usize = 40;
    let mut server = Server::start(&[]);
    let address = server.address();
    let stream = connect(address, SMALL_RECEIVE_BUFFER);
    let mut slow = WebSocket::open_on(stream, "/ws/a");
    let mut http = Http::connect(address);
    let padding = "x".repeat(10_000);
    for number in 0..COUNT {
        http.publish("a", format!("{number} {padding}").as_bytes());
    }
    assert!(
        server.metric("umbel_outbox_bytes") > 100_000.0,
        "it backed up"
    );
    server.signal("TERM");
    let (texts, end) = slow.texts();
    assert!(matches!(end, Incoming::Close(1001, _)), "{end:?}");
    for (number, text) in texts.iter().enumerate() {
        assert!(text.starts_with(&format!("{number} ")));
    }
    assert_eq!(texts.len(), COUNT);
    slow.answer_close(1001);
    drop(http);
    assert!(server.wait_for_exit(PATIENCE).success());
}

/// An outbox that has no room left takes the Close all the same, and nothing of what it holds is dropped for it.
#[test]
fn full_outbox_delivered_before_close() {
    const OUTBOX_BYTES_MAX: f64 = 65_536.0;
    // What one more of the smallest publications takes: three bytes and the overhead of a segment.
    const SMALLEST_BYTES: f64 = 67.0;
    // With one reactor the figures are those of the tick before.
    let server = Server::start(&[
        "--reactors",
        "1",
        "--outbox-bytes-max",
        "65536",
        "--publication-bytes-max",
        "16384",
    ]);
    let address = server.address();
    let stream = connect(address, SMALL_RECEIVE_BUFFER);
    let mut slow = WebSocket::open_on(stream, "/ws/a");
    let mut http = Http::connect(address);
    let mut count = 0;
    let started = Instant::now();
    for bytes in [2000, 1] {
        let room = if bytes == 1 { SMALLEST_BYTES } else { 2100.0 };
        while server.metric("umbel_outbox_bytes") + room <= OUTBOX_BYTES_MAX {
            http.publish("a", &vec![b'x'; bytes]);
            count += 1;
            assert!(started.elapsed() < PATIENCE, "it does not fill up");
        }
    }
    assert_eq!(server.metric("umbel_slow_consumers_total"), 0.0);
    server.signal("TERM");
    let (texts, end) = slow.texts();
    assert_eq!(texts.len(), count);
    assert!(matches!(end, Incoming::Close(1001, _)), "{end:?}");
}

#[test]
fn request_in_flight_answered() {
    let mut server = Server::start(&["--log-level", "debug", "--reactors", "1"]);
    let mut in_body = Http::connect(server.address());
    in_body.send(b"POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n01234");
    let mut in_head = Http::connect(server.address());
    in_head.send(b"GET /health HTTP/1.1\r\nHos");
    let mut subscriber = WebSocket::open(server.address(), "/ws/a");
    wait_until("both have begun", || {
        server.metric("umbel_inbound_bytes") > 20.0
    });
    server.signal("TERM");
    // The drain goes by the order in which they came, so it has been at both requests by then.
    assert!(matches!(subscriber.next(), Incoming::Close(1001, _)));
    in_body.send(b"56789");
    let answer = in_body.answer().expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(in_body.is_at_end());
    in_head.send(b"t: localhost\r\n\r\n");
    assert_eq!(in_head.answer().expect("an answer").status, 200);
    assert!(in_head.is_at_end());
    subscriber.answer_close(1001);
    drop((in_body, in_head));
    assert!(server.wait_for_exit(PATIENCE).success());
}

#[test]
fn unresponsive_peers_abandoned_in_time() {
    let mut server = Server::start(&["--drain-timeout-ms", "1000", "--close-timeout-ms", "60000"]);
    let socket = WebSocket::open(server.address(), "/ws/a");
    let mut begun = Http::connect(server.address());
    begun.send(b"POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n01234");
    let started = Instant::now();
    server.signal("TERM");
    let status = server.wait_for_exit(Duration::from_secs(5));
    assert!(status.success(), "{status}");
    assert!(started.elapsed() > Duration::from_millis(900));
    drop((socket, begun));
}

#[test]
fn closes_spread_over_drain_time() {
    const PEERS: usize = 1500;
    rlimit::increase_nofile_limit(u64::MAX).expect("a limit");
    let mut server = Server::start(&["--drain-timeout-ms", "4000", "--log-level", "info"]);
    let mut sockets: Vec<_> = (0..PEERS)
        .map(|_| Some(WebSocket::open(server.address(), "/ws/a")))
        .collect();
    server.signal("TERM");
    let started = Instant::now();
    let mut closed_ms = Vec::new();
    while closed_ms.len() < PEERS {
        assert!(started.elapsed() < PATIENCE, "{} closed", closed_ms.len());
        for place in &mut sockets {
            if let Some(mut socket) = place.take_if(|socket| has_bytes(socket.stream())) {
                assert!(matches!(socket.next(), Incoming::Close(1001, _)));
                closed_ms.push(started.elapsed().as_millis());
            }
        }
    }
    // Two reactors close half of them each, one a millisecond: neither at once nor beyond the half of the drain time.
    let (middle, last) = (closed_ms[PEERS / 2], closed_ms[PEERS - 1]);
    assert!(last > 400, "{middle} {last}");
    assert!(middle > 150 && middle < last, "{middle} {last}");
    drop(sockets);
    assert!(server.wait_for_exit(PATIENCE).success());
}

fn has_bytes(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("settable");
    let outcome = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("settable");
    outcome.is_ok()
}

fn check_second_signal(first: &str, second: &str, code: i32) {
    let mut server = Server::start(&["--drain-timeout-ms", "60000", "--close-timeout-ms", "60000"]);
    let mut socket = WebSocket::open(server.address(), "/ws/a");
    server.signal(first);
    assert!(matches!(socket.next(), Incoming::Close(1001, _)));
    let started = Instant::now();
    server.signal(second);
    let status = server.wait_for_exit(Duration::from_secs(2));
    assert_eq!((status.code(), status.signal()), (Some(code), None));
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(socket.stream().read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn second_sigterm_ends_at_once() {
    check_second_signal("TERM", "TERM", 143);
}

#[test]
fn second_sigterm_ends_pre_stop() {
    let mut server = Server::start(&["--pre-stop-ms", "60000"]);
    server.signal("TERM");
    let mut http = Http::connect(server.address());
    wait_until("it is not ready any more", || {
        http.get("/ready").status == 503
    });
    server.signal("TERM");
    assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(143));
}

#[test]
fn sigint_after_sigterm_ends_at_once() {
    check_second_signal("TERM", "INT", 130);
}
