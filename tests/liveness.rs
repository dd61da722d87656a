//! Deadlines: silent and slow peers are let go in time, and no others.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use support::peers::{Block, EventStream, Http, Incoming, WebSocket, connect};
use support::process::open_descriptors;
use support::{PATIENCE, Server, frames, wait_until};

/// Writes a byte every 50 ms until the peer has had enough, and reads what it says to that.
fn trickle(mut stream: std::net::TcpStream, bytes: impl Iterator<Item = u8>) -> (String, Duration) {
    let started = Instant::now();
    let pause = Some(Duration::from_millis(50));
    stream.set_read_timeout(pause).expect("settable");
    let mut said = Vec::new();
    let mut chunk = [0; 1024];
    for byte in bytes {
        if stream.write_all(&[byte]).is_err() {
            break;
        }
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => said.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        assert!(started.elapsed() < PATIENCE, "it is not cut");
    }
    let said = String::from_utf8(said).expect("UTF-8");
    (said, started.elapsed())
}

#[test]
fn handshake_deadline_is_absolute() {
    let server = Server::start(&["--handshake-timeout-ms", "500", "--close-timeout-ms", "200"]);
    let address = server.address();
    let trickles: Vec<_> = (0..20)
        .map(|_| {
            let head = b"GET /ws/a HTTP/1.1\r\nHost: localhost\r\nX: "
                .iter()
                .copied();
            let bytes = head.chain(std::iter::repeat(b'a'));
            thread::spawn(move || trickle(connect(address, 0), bytes))
        })
        .collect();
    let mut canary = WebSocket::open(address, "/ws/canary");
    for thread in trickles {
        let (said, took) = thread.join().expect("it is cut");
        assert!(said.starts_with("HTTP/1.1 408 "), "{said:?}");
        assert!(took > Duration::from_millis(450), "{took:?}");
    }
    Http::connect(address).publish("canary", b"unharmed");
    assert_eq!(canary.text(), "unharmed");
    wait_until("they are counted", || {
        server.metric("umbel_closed_total{reason=\"handshake_timeout\"}") == 20.0
    });
}

#[test]
fn silent_connection_ends() {
    let server = Server::start(&["--handshake-timeout-ms", "300"]);
    let started = Instant::now();
    assert!(Http::connect(server.address()).is_at_end());
    assert!(started.elapsed() > Duration::from_millis(250));
}

#[test]
fn body_deadline_is_absolute() {
    let server = Server::start(&["--body-timeout-ms", "500", "--close-timeout-ms", "200"]);
    let head = b"POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n";
    let mut stream = connect(server.address(), 0);
    stream.write_all(head).expect("sent");
    let (said, took) = trickle(stream, std::iter::repeat(b'a'));
    assert!(said.starts_with("HTTP/1.1 408 "), "{said:?}");
    assert!(took > Duration::from_millis(450), "{took:?}");
}

#[test]
fn keep_alive_timeout() {
    let server = Server::start(&["--keep-alive-timeout-ms", "300"]);
    let mut http = Http::connect(server.address());
    assert_eq!(http.get("/health").status, 200);
    let started = Instant::now();
    assert!(http.is_at_end());
    assert!(started.elapsed() > Duration::from_millis(250));
}

#[test]
fn silent_peer_pinged() {
    let server = Server::start(&["--ping-interval-ms", "100", "--pong-timeout-ms", "5000"]);
    let mut socket = WebSocket::open(server.address(), "/ws/a");
    let started = Instant::now();
    for _ in 0..15 {
        let Incoming::Ping(payload) = socket.next() else {
            panic!("a ping was due");
        };
        socket.send(frames::PONG, &payload);
    }
    let took = started.elapsed();
    assert!(took > Duration::from_millis(1000), "{took:?}");
    assert!(
        took < Duration::from_secs(5),
        "the pong timeout does not space the pings: {took:?}"
    );
    Http::connect(server.address()).publish("a", b"alive");
    assert_eq!(socket.text(), "alive");
}

#[test]
fn missing_pong_cuts() {
    let server = Server::start(&["--ping-interval-ms", "200", "--pong-timeout-ms", "300"]);
    let started = Instant::now();
    let mut socket = WebSocket::open(server.address(), "/ws/a");
    assert_eq!(socket.next(), Incoming::Ping(Vec::new()));
    assert_eq!(socket.next(), Incoming::End);
    assert!(started.elapsed() > Duration::from_millis(400));
    wait_until("it is counted", || {
        server.metric("umbel_closed_total{reason=\"pong_timeout\"}") == 1.0
    });
}

#[test]
fn any_byte_counts_as_pong() {
    let server = Server::start(&["--ping-interval-ms", "800", "--pong-timeout-ms", "400"]);
    let mut socket = WebSocket::open(server.address(), "/echo");
    let started = Instant::now();
    let mut longest_silence = Duration::ZERO;
    let (mut last_sent, mut pings) = (started, 0);
    while started.elapsed() < Duration::from_millis(2500) {
        longest_silence = longest_silence.max(last_sent.elapsed());
        last_sent = Instant::now();
        socket.send_text("here");
        while socket.next() != Incoming::Text("here".to_owned()) {
            pings += 1;
        }
        // A peer that talks more often than it would be pinged.
        thread::sleep(Duration::from_millis(50));
    }
    // Who talks is not pinged, unless this machine was too busy for it to talk.
    assert!(pings == 0 || longest_silence > Duration::from_millis(500));
    // A ping goes out once it is silent, and any byte answers it, part of a frame too.
    assert_eq!(socket.next(), Incoming::Ping(Vec::new()));
    let frame = frames::masked(frames::FIN | frames::TEXT, b"slow but there");
    for byte in frame {
        socket.stream().write_all(&[byte]).expect("sent");
        // A peer that takes its time for each byte.
        thread::sleep(Duration::from_millis(60));
    }
    assert_eq!(socket.text(), "slow but there");
}

#[test]
fn message_deadline_is_absolute() {
    let server = Server::start(&["--message-timeout-ms", "400"]);
    let mut socket = WebSocket::open(server.address(), "/ws/a");
    let started = Instant::now();
    let first = frames::masked(frames::TEXT, b"begun");
    socket.stream().write_all(&first).expect("sent");
    // Neither a ping nor a further fragment moves the deadline.
    loop {
        socket.send(frames::PING, b"");
        let fragment = frames::masked(frames::CONTINUATION, b"more");
        socket.stream().write_all(&fragment).expect("sent");
        match socket.next() {
            Incoming::Pong(_) => assert!(started.elapsed() < PATIENCE, "it is not cut"),
            Incoming::Close(1008, _) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(started.elapsed() > Duration::from_millis(350));
}

/// A server that has sent its Close to a peer which does not answer as it should ends all the same.
fn check_close_timeout(misbehave: impl FnOnce(&mut WebSocket)) {
    let server = Server::start(&["--publish", "nobody", "--close-timeout-ms", "400"]);
    let descriptors = open_descriptors(server.pid());
    let mut socket = WebSocket::open(server.address(), "/ws/a");
    let started = Instant::now();
    socket.send_text("this may not be published");
    let close = socket.next();
    assert!(matches!(close, Incoming::Close(1008, _)), "{close:?}");
    misbehave(&mut socket);
    wait_until("the connection is over", || {
        server.metric("umbel_closed_total{reason=\"forbidden\"}") == 1.0
    });
    wait_until("the server lets go of the socket", || {
        open_descriptors(server.pid()) <= descriptors
    });
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn unanswered_close_ends_after_close_timeout() {
    check_close_timeout(|_| {});
}

#[test]
fn sending_after_close_ends_after_close_timeout() {
    check_close_timeout(|socket| {
        let mut stream = socket.stream().try_clone().expect("a clone");
        thread::spawn(move || {
            let frame = frames::masked(frames::FIN | frames::TEXT, b"and another thing");
            while stream.write_all(&frame).is_ok() {}
        });
    });
}

#[test]
fn half_close_answers_close() {
    check_close_timeout(|socket| {
        let shut = socket.stream().shutdown(std::net::Shutdown::Write);
        shut.expect("connected");
        assert_eq!(socket.next(), Incoming::End);
    });
}

#[test]
fn open_side_after_close_ends_after_close_timeout() {
    let server = Server::start(&["--close-timeout-ms", "400"]);
    let descriptors = open_descriptors(server.pid());
    let mut socket = WebSocket::open(server.address(), "/ws/a");
    socket.send(frames::CLOSE, &3001u16.to_be_bytes());
    assert_eq!(socket.next(), Incoming::Close(3001, String::new()));
    assert_eq!(socket.next(), Incoming::End);
    wait_until("the server lets go of the socket", || {
        open_descriptors(server.pid()) <= descriptors
    });
    wait_until("it is counted", || {
        server.metric("umbel_closed_total{reason=\"peer\"}") == 1.0
    });
}

#[test]
fn half_close_without_close_frame() {
    let server = Server::start(&[]);
    let mut socket = WebSocket::open(server.address(), "/ws/a");
    let shut = socket.stream().shutdown(std::net::Shutdown::Write);
    shut.expect("connected");
    assert_eq!(socket.next(), Incoming::End);
    wait_until("it is counted", || {
        server.metric("umbel_closed_total{reason=\"peer_gone\"}") == 1.0
    });
}

#[test]
fn event_stream_comments() {
    let server = Server::start(&["--ping-interval-ms", "100"]);
    let mut stream = EventStream::open(server.address(), "/sse/a");
    for _ in 0..3 {
        assert_eq!(stream.next(), Block::Comment);
    }
    Http::connect(server.address()).publish("a", b"event");
    assert_eq!(stream.data(), "event");
}

/// Answers what has come on any of the sockets with a pong.
fn answer_pings(sockets: &[WebSocket]) {
    let pong = frames::masked(frames::FIN | frames::PONG, b"");
    let mut chunk = [0; 256];
    for socket in sockets {
        let mut stream = socket.stream();
        stream.set_nonblocking(true).expect("settable");
        let has_come = matches!(stream.read(&mut chunk), Ok(1..));
        stream.set_nonblocking(false).expect("settable");
        if has_come {
            // One that was cut is found by the figures.
            let _ = stream.write(&pong);
        }
    }
}

/// Whether something has come that was not read yet.
fn has_input(socket: &WebSocket) -> bool {
    let stream = socket.stream();
    stream.set_nonblocking(true).expect("settable");
    let has_come = matches!(stream.peek(&mut [0]), Ok(1));
    stream.set_nonblocking(false).expect("settable");
    has_come
}

/// Waits until each of the sockets was pinged or cut; how many were cut.
fn wait_for_pings(sockets: &mut [WebSocket], answer: impl Fn(&mut WebSocket)) -> usize {
    let mut cut = 0;
    for socket in sockets {
        match socket.next() {
            Incoming::Ping(_) => answer(socket),
            Incoming::End => cut += 1,
            other => panic!("{other:?}"),
        }
    }
    cut
}

/// Stops the server while every peer owes it a pong, which they send while it is stopped, and lets it go on when the
/// time for the pongs is over.
fn check_suspension(peers: usize, flags: &[&str]) {
    rlimit::increase_nofile_limit(u64::MAX).expect("a limit");
    let times = ["--ping-interval-ms", "1000", "--pong-timeout-ms", "3000"];
    let server = Server::start(&[flags, &times, &["--log-level", "info"]].concat());
    let mut sockets = Vec::new();
    for peer in 1..=peers {
        sockets.push(WebSocket::open(server.address(), "/ws/a"));
        if peer % 50 == 0 {
            answer_pings(&sockets);
        }
    }
    wait_until("the first is pinged", || sockets.iter().any(has_input));
    let pinged = Instant::now();
    let cut_before = wait_for_pings(&mut sockets, |_| {});
    // 700 ms are left to the first of them when the server is stopped: less than the second that a suspension may seem to
    // have taken when it is over.
    let stops_at = pinged + Duration::from_millis(2300);
    thread::sleep(stops_at.saturating_duration_since(Instant::now()));
    server.signal("STOP");
    let stopped = Instant::now();
    let pong = |socket: &mut WebSocket| {
        let _ = socket
            .stream()
            .write(&frames::masked(frames::FIN | frames::PONG, b""));
    };
    sockets.iter_mut().for_each(pong);
    // It is stopped for so long.
    thread::sleep(Duration::from_millis(2500).saturating_sub(stopped.elapsed()));
    server.signal("CONT");
    // The next ping says that the server has looked at the last one.
    let cut = wait_for_pings(&mut sockets, pong);
    assert!(
        cut_before < peers / 2,
        "this machine was too slow to tell: {cut_before}"
    );
    assert_eq!(cut, cut_before, "cut for being silent while the server was");
    let metrics = server.metrics();
    let counted = metrics["umbel_closed_total{reason=\"pong_timeout\"}"];
    assert_eq!(counted, cut as f64);
    let open = metrics["umbel_connections{state=\"open\",dialect=\"raw\"}"];
    assert_eq!(open, (peers - cut) as f64);
}

#[test]
fn suspension_cuts_nobody() {
    check_suspension(50, &[]);
}

/// More peers than a reactor takes events of in one wait.
#[test]
fn suspension_cuts_nobody_of_many() {
    check_suspension(2500, &["--reactors", "1"]);
}
