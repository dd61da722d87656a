//! Limits by address: how many connections, and how fast they come.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::rates::address_of;
use crate::support::peers::{Http, Incoming, WebSocket, connect_from};
use crate::support::{Server, wait_until};

const PAGE: &str = "Origin: http://localhost\r\n";

/// Address of a peer on this machine.
fn peer(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 7, number)
}

fn refused(server: &Server, limit: &str) -> f64 {
    server.metric(&format!("umbel_refused_total{{limit=\"{limit}\"}}"))
}

/// Status, head and body of what a peer with this address is answered.
fn get(server: &Server, from: Ipv4Addr, target: &str, lines: &str) -> (u16, String) {
    let mut http = Http::new(connect_from(from, server.address()));
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    http.send(request.as_bytes());
    let answer = http.answer().expect("an answer");
    assert_eq!(
        answer.header("connection"),
        Some("close"),
        "{}",
        answer.head
    );
    (answer.status, answer.head)
}

fn opens(from: Ipv4Addr, address: SocketAddr) -> Option<WebSocket> {
    let (status, socket) = WebSocket::try_open_on(connect_from(from, address), "/ws/a");
    (status == 101).then_some(socket)
}

#[test]
fn connections_of_one_address() {
    let server = Server::start(&["--connections-per-address-max", "3", "--log-level", "info"]);
    let address = server.address();
    let mut open: Vec<_> = (0..3).filter_map(|_| opens(peer(1), address)).collect();
    assert_eq!(open.len(), 3);
    let (status, head) = get(&server, peer(1), "/topics", "");
    assert_eq!(status, 429);
    assert!(head.contains("Retry-After: 5\r\n"), "{head}");
    // Whoever sees no status is told in another way.
    let stream = get_stream(&server, peer(1));
    assert!(stream.starts_with("HTTP/1.1 200"), "{stream}");
    assert!(stream.contains("retry:") && stream.contains("event: unavailable"));
    let (code, reason) = closed_handshake(&server, peer(1));
    assert_eq!(code, 4429);
    assert!(reason.ends_with("; retry=5"), "{reason}");
    assert_eq!(get(&server, peer(1), "/health", "").0, 200);
    assert_eq!(get(&server, peer(1), "/ready", "").0, 200);
    assert!(opens(peer(2), address).is_some(), "others have their own");
    assert_eq!(refused(&server, "connections_per_address_max"), 3.0);
    wait_until("a line names the address", || {
        let log = server.log();
        let mut lines = log.lines().filter(|line| line.contains("over a limit"));
        let line = lines.next_back().unwrap_or_default();
        line.contains("limit=connections_per_address_max") && line.contains("address=127.0.7.1")
    });
    open[0].send_text("still here");
    assert_eq!(open[1].text(), "still here");
    drop(open);
    wait_until("there is room again", || opens(peer(1), address).is_some());
}

/// A stream that a page asks for: it begins, and ends with the time to come back.
fn get_stream(server: &Server, from: Ipv4Addr) -> String {
    let mut stream = connect_from(from, server.address());
    let request = format!("GET /sse/a HTTP/1.1\r\nHost: localhost\r\n{PAGE}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it ends");
    text
}

/// Code and words of the Close behind the handshake of a page.
fn closed_handshake(server: &Server, from: Ipv4Addr) -> (u16, String) {
    let stream = connect_from(from, server.address());
    let lines = format!("{PAGE}Sec-WebSocket-Protocol: umbel.v1\r\n");
    let (head, mut socket) = WebSocket::offer_on(stream, "/ws", &lines);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    match socket.next() {
        Incoming::Close(code, reason) => (code, reason),
        other => panic!("{other:?} is no Close"),
    }
}

#[test]
fn rate_of_one_address() {
    let server = Server::start(&[
        "--connects-per-address-per-second",
        "1",
        "--connects-per-address-burst",
        "5",
    ]);
    let address = server.address();
    let (mut served, mut told, mut dropped) = (0, 0, 0);
    for _ in 0..5 {
        served += usize::from(opens(peer(3), address).is_some());
    }
    assert_eq!(served, 5);
    for _ in 0..700 {
        match answered(connect_from(peer(3), address)) {
            Some(429) => told += 1,
            Some(status) => assert_eq!(status, 426, "a second has passed"),
            None => dropped += 1,
        }
    }
    // A hundred times the burst, and what comes in at a hundred times the rate meanwhile.
    assert!(told >= 450 && dropped > 0, "{told} told, {dropped} dropped");
    let count = refused(&server, "connects_per_address_per_second");
    assert_eq!(count, f64::from(told + dropped));
    assert!(opens(peer(4), address).is_some(), "others have their own");
}

/// Status of an answer. None: the connection ended before it.
fn answered(mut stream: TcpStream) -> Option<u16> {
    let _ = stream.write_all(b"GET /ws/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head[9..]).ok()?.parse().ok()
}

#[test]
fn exempt_addresses() {
    let server = Server::start(&[
        "--connections-per-address-max",
        "1",
        "--limit-exempt",
        "127.0.7.8/31,127.0.7.11",
        "--publish",
        "anyone",
    ]);
    let address = server.address();
    for from in [8, 9, 11] {
        let open: Vec<_> = (0..4).filter_map(|_| opens(peer(from), address)).collect();
        assert_eq!(open.len(), 4);
    }
    let _open = opens(peer(10), address).expect("the first");
    assert!(opens(peer(10), address).is_none());
}

#[test]
fn listeners_of_operators_and_unix_sockets_are_exempt() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("admission_exempt");
    fs::create_dir_all(&folder).expect("a folder can be made");
    let path = folder.join("umbel.sock");
    let place = format!("unix:{}", path.display());
    let server = Server::start(&[
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "127.0.0.1:0#admin",
        "--listen",
        &place,
        "--connections-per-address-max",
        "1",
        "--publish",
        "anyone",
        "--subscribe",
        "anyone",
        "--observe",
        "anyone",
        "--origin",
        "any",
    ]);
    let (public, admin) = (address_of(&server, "public"), address_of(&server, "admin"));
    let _held = opens(peer(12), public).expect("the first");
    assert!(opens(peer(12), public).is_none());
    // Neither counts, and neither is refused where the address has no more.
    let mut probes: Vec<_> = (0..3)
        .map(|_| Http::new(connect_from(peer(12), admin)))
        .collect();
    for probe in &mut probes {
        assert_eq!(probe.get("/metrics").status, 200);
    }
    let over_unix = |_| {
        let stream = UnixStream::connect(&path).expect("it listens");
        WebSocket::try_open_on(TcpStream::from(OwnedFd::from(stream)), "/ws/a")
    };
    let local: Vec<_> = (0..3).map(over_unix).collect();
    assert!(local.iter().all(|(status, _)| *status == 101));
    let metrics = String::from_utf8(probes[0].get("/metrics").body).expect("UTF-8");
    let line = "umbel_refused_total{limit=\"connections_per_address_max\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn dry_run_counts_and_refuses_nothing() {
    let server = Server::start(&[
        "--connections-per-address-max",
        "1",
        "--limits-dry-run",
        "true",
    ]);
    let address = server.address();
    let open: Vec<_> = (0..4).filter_map(|_| opens(peer(5), address)).collect();
    assert_eq!(open.len(), 4);
    assert_eq!(refused(&server, "connections_per_address_max"), 3.0);
    wait_until("the log says so", || {
        server.log().contains("limits_dry_run is set")
    });
}
