//! Listeners behind proxies: whose address and scheme count, and whose word about them does not.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::{OPEN, exchange_text, folder, refused, start};
use crate::support::wire::upgrade_request;
use crate::support::{Server, wait_until};

/// SHA-256 of the token `operator`.
const OPERATOR: &str =
    "token sha256=06e55b633481f7bb072957eabcf110c972e86691c3cfedabe088024bffe42f23";

/// Flags of a server whose token `operator` manages, behind proxies on this machine.
fn behind(options: &str, flags: &[&str]) -> Server {
    let listen = format!("127.0.0.1:0?trusted_proxies=127.0.0.0/8{options}");
    let token = format!("{OPERATOR} manage=** observe=true subscribe=**");
    let flags = [&["--token", &token], flags].concat();
    start(&[&listen], &flags)
}

/// Status of a request with these lines, and the answer.
fn ask(address: SocketAddr, target: &str, lines: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).expect("the server accepts");
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n");
    exchange_text(stream, &request)
}

/// Peer of the connection that asks, as the control API lists it.
fn seen_as(address: SocketAddr, lines: &str) -> String {
    let lines = format!("Authorization: Bearer operator\r\n{lines}");
    let (status, answer) = ask(address, "/api/v1/connections", &lines);
    assert_eq!(status, 200, "{answer}");
    peer_in(&answer)
}

fn peer_in(answer: &str) -> String {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let list: Value = serde_json::from_str(body).expect("JSON");
    let peer = list["connections"][0]["peer"].as_str();
    peer.unwrap_or("none").to_owned()
}

#[test]
fn client_is_whom_the_trusted_proxy_names() {
    let server = behind("", &["--origin", "any"]);
    let seen = |lines: &str| seen_as(server.address(), lines);
    assert_eq!(seen(""), "127.0.0.1");
    assert_eq!(seen("X-Forwarded-For: 203.0.113.9\r\n"), "203.0.113.9");
    assert_eq!(
        seen("X-Forwarded-For: 1.1.1.1, 203.0.113.9, 127.0.0.3\r\n"),
        "203.0.113.9"
    );
    assert_eq!(
        seen("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: [2001:db8::9]:443\r\n"),
        "2001:db8::9"
    );
    assert_eq!(
        seen("X-Forwarded-For: 203.0.113.9, unknown\r\n"),
        "127.0.0.1"
    );
    assert_eq!(
        seen("Forwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n"),
        "127.0.0.1"
    );
    wait_until("the log names both", || {
        let log = server.log();
        let told =
            |line: &str| line.contains("peer=203.0.113.9:0") && line.contains("proxy=127.0.0.1:");
        log.lines().any(told)
    });
    // By the other header, and by none.
    let server = behind("&forwarded_header=forwarded", &["--origin", "any"]);
    let seen = |lines: &str| seen_as(server.address(), lines);
    assert_eq!(
        seen("Forwarded: for=1.1.1.1, for=\"[2001:db8::9]:5\"\r\n"),
        "2001:db8::9"
    );
    assert_eq!(seen("X-Forwarded-For: 203.0.113.9\r\n"), "127.0.0.1");
    let server = behind("&forwarded_header=off", &["--origin", "any"]);
    assert_eq!(
        seen_as(server.address(), "X-Forwarded-For: 203.0.113.9\r\n"),
        "127.0.0.1"
    );
}

#[test]
fn strangers_are_not_believed() {
    let token = format!("{OPERATOR} manage=**");
    let flags = ["--token", &token, "--origin", "any"];
    let lines = "X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n";
    for listen in [
        "127.0.0.1:0",
        "127.0.0.1:0?trusted_proxies=10.0.0.0/8&trusted_proxies=unix",
    ] {
        let server = start(&[listen], &flags);
        assert_eq!(seen_as(server.address(), lines), "127.0.0.1", "{listen}");
    }
}

#[test]
fn proxy_on_a_unix_socket() {
    let path = folder("unix_proxy").join("umbel.sock");
    let token = format!("{OPERATOR} manage=**");
    let flags = ["--token", &token, "--origin", "any"];
    let request = "GET /api/v1/connections HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                   Authorization: Bearer operator\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
    for (options, expected) in [
        ("?trusted_proxies=unix", "203.0.113.9"),
        ("?trusted_proxies=::/0", "none"),
    ] {
        let _server = start(&[&format!("unix:{}{options}", path.display())], &flags);
        let stream = UnixStream::connect(&path).expect("the server accepts");
        let (status, answer) = exchange_text(stream, request);
        assert_eq!((status, &*peer_in(&answer)), (200, expected));
    }
}

/// A proxy keeps its connections, and sends requests of several clients by one.
#[test]
fn each_request_has_its_client() {
    let deny = folder("denied_clients").join("deny");
    fs::write(&deny, "peer:203.0.113.0/24\n").expect("a file");
    let deny = deny.to_str().expect("a path");
    let server = behind(
        "",
        &[
            "--origin",
            "any",
            "--subscribe",
            "anyone",
            "--deny-file",
            deny,
        ],
    );
    let mut wire = server.connect();
    for (client, expected) in [
        ("198.51.100.7", 200),
        ("203.0.113.9", 403),
        ("198.51.100.7, 203.0.113.9", 403),
        ("203.0.113.9, 198.51.100.7", 200),
        ("::ffff:203.0.113.9", 403),
    ] {
        let request = format!(
            "GET /history/a HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\r\n"
        );
        wire.send(request.as_bytes());
        let status = wire.read_response_to(&request).status;
        assert!(
            status == expected || (expected == 200 && status == 404),
            "{client}: {status}"
        );
    }
    // The one without a header is the proxy's.
    let request = "GET /history/a HTTP/1.1\r\nHost: localhost\r\n\r\n";
    wire.send(request.as_bytes());
    assert_ne!(wire.read_response_to(request).status, 403);
}

#[test]
fn wrong_tokens_count_for_their_client() {
    let limit = [
        "--origin",
        "any",
        "--auth-failures-per-address-per-minute",
        "1",
    ];
    let server = behind("", &limit);
    let status = |client: &str, token: &str| {
        let lines = format!("X-Forwarded-For: {client}\r\nAuthorization: Bearer {token}\r\n");
        ask(server.address(), "/topics", &lines).0
    };
    assert_eq!(status("203.0.113.9", "guess"), 401);
    assert_eq!(status("203.0.113.9", "another"), 429);
    assert_eq!(status("1.1.1.1, 203.0.113.9", "third"), 429);
    assert_eq!(status("203.0.113.10", "guess"), 401);
    assert_eq!(status("203.0.113.9", "operator"), 200);
}

/// Own is what the browser sees: scheme and host as the proxy tells them.
#[test]
fn cookies_count_for_the_origin_that_the_proxy_shows() {
    let flags = [
        "--cookie",
        "__Host-umbel",
        "--origin",
        "https://other.example",
    ];
    let status = |server: &Server, host: &str, lines: &str| {
        let lines =
            format!("Cookie: __Host-umbel=operator\r\nX-Forwarded-For: 203.0.113.9\r\n{lines}");
        let request =
            upgrade_request("/ws/a", &lines).replace("Host: localhost", &format!("Host: {host}"));
        server.request(&request).status
    };
    let server = behind("", &flags);
    let (own, https) = (
        "Origin: https://push.example\r\n",
        "X-Forwarded-Proto: https\r\n",
    );
    assert_eq!(
        status(&server, "push.example", &format!("{own}{https}")),
        101
    );
    assert_eq!(
        status(&server, "push.example", own),
        403,
        "the page has another scheme"
    );
    assert_eq!(
        status(&server, "push.example", &format!("{own}{https}{https}")),
        403
    );
    let plain = "Origin: http://push.example\r\n";
    assert_eq!(
        status(&server, "push.example", &format!("{plain}{https}")),
        403
    );
    assert_eq!(status(&server, "push.example", plain), 101);
    let asked = "X-Forwarded-Host: push.example\r\n";
    let with_host = format!("{own}{https}{asked}");
    assert_eq!(
        status(&server, "backend:8080", &with_host),
        403,
        "it is not asked for"
    );
    let server = behind("&forwarded_host=true", &flags);
    assert_eq!(status(&server, "backend:8080", &with_host), 101);
    assert_eq!(
        status(&server, "backend:8080", &format!("{with_host}{asked}")),
        403
    );
    assert_eq!(
        status(&server, "push.example", &format!("{own}{https}")),
        101
    );
}

#[test]
fn settings_that_contradict_each_other() {
    let with = |listen: &str, flags: &[&str]| refused(&[&["--listen", listen], flags].concat());
    let error = with("127.0.0.1:0?trusted_proxies=127.0.0.1", &[]);
    assert!(
        error.contains("trusted_proxies is set, so that nothing is open"),
        "{error}"
    );
    for (options, word) in [
        ("trusted_proxies=localhost", "is no network"),
        ("proxy_protocol=true", "name the proxies in trusted_proxies"),
        ("forwarded_header=forwarded", "nobody is believed"),
        ("forwarded_host=true", "nobody is believed"),
        (
            "trusted_proxies=unix&forwarded_header=via",
            "forwarded_header is",
        ),
        (
            "trusted_proxies=unix&forwarded_header=off&forwarded_host=true",
            "which is off",
        ),
        ("trusted_proxies=unix&proxy_protocol=yes", "true or false"),
    ] {
        let error = with(&format!("127.0.0.1:0?{options}"), &OPEN);
        assert!(error.contains(word), "{options}: {error}");
    }
}

/// Without trust a thousand clients behind a proxy are one address, which is told once.
#[test]
fn proxy_that_is_not_trusted_is_told() {
    let flags = [&OPEN[..], &["--reactors", "1"]].concat();
    let server = start(&["127.0.0.1:0"], &flags);
    for _ in 0..1010 {
        ask(
            server.address(),
            "/health",
            "X-Forwarded-For: 203.0.113.9\r\n",
        );
    }
    let told = "set trusted_proxies of the listener";
    assert_eq!(server.whole_log().matches(told).count(), 1);
}

/// A proxy's own connections count for nobody until it tells whose they are.
#[test]
fn limits_by_address_are_the_clients() {
    let limit = [
        "--origin",
        "any",
        "--subscribe",
        "anyone",
        "--connections-per-address-max",
        "1",
    ];
    let server = behind("", &limit);
    let _idle = [server.connect(), server.connect()];
    let open = |client: &str| {
        let mut wire = server.connect();
        let request = upgrade_request("/ws/a", &format!("X-Forwarded-For: {client}\r\n"));
        wire.send(request.as_bytes());
        (wire.read_response_to(&request).status, wire)
    };
    let (first, _first) = open("203.0.113.9");
    let (second, _second) = open("203.0.113.9");
    let (forged, _forged) = open("198.51.100.7, 203.0.113.9");
    let (other, _other) = open("198.51.100.7");
    assert_eq!((first, second, forged, other), (101, 429, 429, 101));
}

/// A server whose connections begin with a PROXY header.
fn with_headers(options: &str, flags: &[&str]) -> Server {
    let options = format!("&proxy_protocol=true{options}");
    behind(&options, &[&["--origin", "any"], flags].concat())
}

/// `curl --haproxy-protocol` sends the same.
const LINE: &str = "PROXY TCP4 203.0.113.9 127.0.0.1 4711 443\r\n";

/// Bytes of a header of version 2: of this command and family, with this behind the fixed part.
fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("short").to_be_bytes();
    [
        b"\r\n\r\n\0\r\nQUIT\n",
        &[command, family][..],
        &length,
        block,
    ]
    .concat()
}

const ADDRESSES: &[u8] = &[203, 0, 113, 9, 127, 0, 0, 1, 0x12, 0x67, 1, 0xbb];

/// Peer of the connection that asks behind this header, with these lines.
fn seen_behind(server: &Server, header: &[u8], lines: &str) -> String {
    let mut wire = server.connect();
    wire.send(header);
    let request = format!(
        "GET /api/v1/connections HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer operator\r\n{lines}\r\n"
    );
    wire.send(request.as_bytes());
    let answer = wire.read_response_to(&request);
    assert_eq!(answer.status, 200, "{header:?}: {answer:?}");
    peer_in(&format!("\r\n\r\n{}", answer.text()))
}

#[test]
fn client_is_whom_the_proxy_header_names() {
    let server = with_headers("", &[]);
    let tls = [
        ADDRESSES,
        &[0x20, 0, 5, 1, 0, 0, 0, 0],
        &[0x05, 0, 2, 0xab, 0xcd],
    ]
    .concat();
    for (header, expected) in [
        (LINE.as_bytes().to_vec(), "203.0.113.9"),
        (
            b"PROXY TCP6 2001:db8::9 ::1 1 2\r\n".to_vec(),
            "2001:db8::9",
        ),
        (
            b"PROXY TCP6 ::ffff:203.0.113.9 ::1 1 2\r\n".to_vec(),
            "203.0.113.9",
        ),
        (b"PROXY UNKNOWN 203.0.113.9\r\n".to_vec(), "127.0.0.1"),
        (binary(0x21, 0x11, ADDRESSES), "203.0.113.9"),
        (binary(0x21, 0x11, &tls), "203.0.113.9"),
        (binary(0x20, 0x11, ADDRESSES), "127.0.0.1"),
        (binary(0x21, 0x12, ADDRESSES), "127.0.0.1"),
        (binary(0x21, 0x00, &[]), "127.0.0.1"),
    ] {
        assert_eq!(seen_behind(&server, &header, ""), expected, "{header:?}");
    }
    wait_until("the log names both", || {
        let log = server.log();
        let told = |line: &str| {
            [
                "peer=203.0.113.9:4711",
                "proxy=127.0.0.1:",
                "tls=true",
                "unique_id=abcd",
            ]
            .iter()
            .all(|word| line.contains(word))
        };
        log.lines().any(told)
    });
    // A client that the header names is no proxy, and is not believed; another proxy behind the first one is.
    let forwarded = "X-Forwarded-For: 198.51.100.7\r\n";
    assert_eq!(
        seen_behind(&server, LINE.as_bytes(), forwarded),
        "203.0.113.9"
    );
    let inner = b"PROXY TCP4 127.0.0.9 127.0.0.1 4711 443\r\n";
    assert_eq!(seen_behind(&server, inner, forwarded), "198.51.100.7");
}

#[test]
fn scheme_by_a_proxy_header() {
    let flags = [
        "--cookie",
        "__Host-umbel",
        "--origin",
        "https://other.example",
    ];
    let server = behind("&proxy_protocol=true", &flags);
    let status = |flags: u8| {
        let header = [ADDRESSES, &[0x20, 0, 5, flags, 0, 0, 0, 0]].concat();
        let mut wire = server.connect();
        let lines = "Cookie: __Host-umbel=operator\r\nOrigin: https://localhost\r\n";
        let request = upgrade_request("/ws/a", lines);
        wire.send(&[&binary(0x21, 0x11, &header), request.as_bytes()].concat());
        wire.read_response_to(&request).status
    };
    assert_eq!((status(1), status(0)), (101, 403));
}

#[test]
fn header_in_pieces_and_its_deadline() {
    let server = with_headers("", &["--proxy-header-timeout-ms", "300"]);
    let mut wire = server.connect();
    let request = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let bytes = [&binary(0x21, 0x11, ADDRESSES), request.as_bytes()].concat();
    assert!(wire.offer(&bytes, crate::support::Pieces::Bytes));
    assert_eq!(wire.read_response_to(request).status, 200);
    // The time is that of the header alone: the connection stays open behind it.
    let mut silent = server.connect();
    let mut half = server.connect();
    half.send(&LINE.as_bytes()[..LINE.len() - 1]);
    assert_eq!(silent.read_to_end().0, b"");
    assert_eq!(half.read_to_end().0, b"");
    wire.send(request.as_bytes());
    assert_eq!(wire.read_response_to(request).status, 200);
    let log = server.whole_log();
    assert_eq!(
        log.matches("no PROXY header came in time").count(),
        2,
        "{log}"
    );
}

#[test]
fn malformed_proxy_headers_are_closed() {
    let server = with_headers("", &[]);
    let wrong_checksum = [ADDRESSES, &[3, 0, 4, 0, 0, 0, 0]].concat();
    let too_long = [ADDRESSES, &[4, 7, 0xf0], &[0; 0x7f0][..]].concat();
    let wrong = [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00".to_vec(),
        LINE.replace(' ', "  ").into_bytes(),
        LINE.replace("\r\n", "\n").into_bytes(),
        LINE.replace("4711", "04711").into_bytes(),
        LINE.replace("TCP4", "TCP6").into_bytes(),
        [b"PROXY UNKNOWN ", &[b'x'; 100][..]].concat(),
        binary(0x22, 0x11, ADDRESSES),
        binary(0x31, 0x11, ADDRESSES),
        binary(0x21, 0x13, ADDRESSES),
        binary(0x21, 0x21, ADDRESSES),
        binary(0x21, 0x11, &wrong_checksum),
        binary(0x21, 0x11, &too_long),
    ];
    for header in &wrong {
        let mut wire = server.connect();
        wire.send(header);
        // Not a byte, for who is there is not known.
        assert_eq!(wire.read_to_end().0, b"", "{header:?}");
    }
    assert_eq!(seen_behind(&server, LINE.as_bytes(), ""), "203.0.113.9");
    let metrics = get_behind(&server, "/metrics");
    let refused = format!(
        "umbel_refused_total{{reason=\"bad_framing\"}} {}",
        wrong.len()
    );
    assert!(metrics.contains(&refused), "{metrics}");
    // Where no header is asked for, it is a 400.
    let server = behind("", &["--origin", "any"]);
    let request = format!("{LINE}GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = server.request(&request);
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().contains("set proxy_protocol of the listener"),
        "{answer:?}"
    );
    assert_eq!(
        server
            .request(&String::from_utf8_lossy(&binary(
                0x21,
                0x11,
                b"abcdefghijkl"
            )))
            .status,
        400
    );
}

fn get_behind(server: &Server, target: &str) -> String {
    let mut wire = server.connect();
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer operator\r\n\r\n"
    );
    wire.send(format!("{LINE}{request}").as_bytes());
    let answer = wire.read_response_to(&request);
    answer.text().to_owned()
}

#[test]
fn untrusted_peers_may_not_send_a_proxy_header() {
    let token = format!("{OPERATOR} manage=** observe=true");
    let listeners = [
        "127.0.0.1:0?trusted_proxies=10.0.0.0/8&proxy_protocol=true",
        "127.0.0.1:0#admin",
    ];
    let server = start(&listeners, &["--token", &token, "--origin", "any"]);
    for bytes in [LINE.as_bytes(), b""] {
        let mut wire = server.connect();
        wire.offer(bytes, crate::support::Pieces::Whole);
        assert_eq!(wire.read_to_end().0, b"");
    }
    let admin = super::surfaces(&server)[1].0;
    let (_, metrics) = ask(admin, "/metrics", "Authorization: Bearer operator\r\n");
    assert!(
        metrics.contains("umbel_refused_total{limit=\"untrusted_proxy\"} 2"),
        "{metrics}"
    );
    wait_until("the log says so", || {
        server.log().contains("untrusted_proxy")
    });
}

#[test]
fn reload_takes_other_proxies() {
    let file = folder("reloaded_proxies").join("umbel.toml");
    let write = |listener: &str| {
        let text =
            format!("origins = [\"any\"]\n[[listener]]\naddress = \"127.0.0.1:0\"\n{listener}\n");
        fs::write(&file, text).expect("a file");
    };
    write("");
    let token = format!("{OPERATOR} manage=** observe=true");
    // What is added to the command line would stand in the place of the file's listeners.
    let mut command = std::process::Command::new("sh");
    let script = "exec \"$BIN\" serve --config \"$FILE\" --token \"$TOKEN\" --log-level debug";
    command
        .args(["-c", script])
        .env("BIN", env!("CARGO_BIN_EXE_umbel"));
    command.env("FILE", &file).env("TOKEN", &token);
    let server = Server::start_command(command, &[]);
    let forwarded = "X-Forwarded-For: 203.0.113.9\r\n";
    let seen = || seen_as(server.address(), forwarded);
    assert_eq!(seen(), "127.0.0.1");
    for (listener, expected) in [
        ("trusted_proxies = [\"127.0.0.0/8\"]", "203.0.113.9"),
        (
            "trusted_proxies = [\"127.0.0.0/8\"]\nforwarded_header = \"off\"",
            "127.0.0.1",
        ),
        ("trusted_proxies = [\"127.0.0.1\"]", "203.0.113.9"),
        ("", "127.0.0.1"),
    ] {
        write(listener);
        let sent = std::process::Command::new("kill")
            .args(["-HUP", &server.pid().to_string()])
            .status();
        assert!(sent.expect("kill is there").success());
        wait_until("the reload holds", || seen() == expected);
    }
    let log = server.whole_log();
    assert!(!log.contains("until a restart"), "{log}");
}
