//! TLS on listeners, from outside: by rustls, curl and OpenSSL, and by peers that break it.
#![cfg(feature = "tls")]

#[path = "tls/certificates.rs"]
mod certificates;
mod support;
#[path = "support/tls.rs"]
mod tls;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{PATIENCE, Server, wait_until};
use tls::{Certificate, TlsServer, connect};
use tungstenite::Message;

/// A plain connection to a server.
fn plain(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("settable");
    stream
}

/// What comes until the server ends the connection, by a reset or not.
fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut received = Vec::new();
    if let Err(error) = stream.read_to_end(&mut received) {
        let kind = error.kind();
        assert!(kind == ErrorKind::ConnectionReset, "{error}");
    }
    received
}

/// Output of a program that is given this input.
fn output(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it is on this machine");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    // OpenSSL goes at the end of its input, and curl reads none.
    let held = (program == "openssl").then_some(stdin);
    let mut text = String::new();
    let mut stdout = child.stdout.take().expect("it is piped");
    stdout.read_to_string(&mut text).expect("text");
    drop(held);
    let mut errors = String::new();
    let mut stderr = child.stderr.take().expect("it is piped");
    stderr.read_to_string(&mut errors).expect("text");
    child.wait().expect("it ends");
    text + &errors
}

#[test]
fn fan_out_over_tls() {
    let server = TlsServer::start("tls_fan_out", &[]);
    let mut subscribers: Vec<_> = (0..8).map(|_| server.websocket("/ws/news")).collect();
    let long = "x".repeat(70_000);
    for text in ["one", &long, "three"] {
        server.publish("news", text);
    }
    for subscriber in &mut subscribers {
        for text in ["one", &long, "three"] {
            let message = subscriber.read().expect("it is delivered");
            assert_eq!(message, Message::text(text));
        }
    }
    for mut subscriber in subscribers {
        subscriber.close(None).expect("open");
        while subscriber.read().is_ok() {}
    }
    let resumed = "umbel_tls_handshakes_total{version=\"1.3\",kind=\"resumed\",result=\"done\"}";
    let full = "umbel_tls_handshakes_total{version=\"1.3\",kind=\"full\",result=\"done\"}";
    assert!(server.metric(full) + server.metric(resumed) >= 11);
    assert!(server.metric(resumed) > 0, "a ticket saves a handshake");
}

#[test]
fn both_ways_on_one_websocket() {
    let server = TlsServer::start("tls_both_ways", &[]);
    let mut peer = server.websocket("/echo");
    for length in [0, 1, 125, 126, 4096, 16_384, 16_385, 65_536, 300_000] {
        let sent = Message::binary(vec![7; length]);
        peer.send(sent.clone()).expect("it reads");
        assert_eq!(peer.read().expect("it answers"), sent);
    }
}

#[test]
fn event_stream_over_tls() {
    let server = TlsServer::start("tls_stream", &[]);
    let mut stream = server.connect();
    let request = "GET /sse/news HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut received = String::new();
    let mut chunk = [0; 4096];
    let mut is_published = false;
    while !received.contains("data: hello") {
        let count = stream.read(&mut chunk).expect("it goes on");
        assert!(count > 0, "{received}");
        received.push_str(&String::from_utf8_lossy(&chunk[..count]));
        if received.contains("\r\n\r\n") && !std::mem::replace(&mut is_published, true) {
            server.publish("news", "hello");
        }
    }
}

#[test]
fn curl_and_openssl() {
    let server = TlsServer::start("tls_curl", &[]);
    let port = server.server.address().port();
    let root = server.certificate.certificate_file.to_str().expect("text");
    for version in ["--tlsv1.2", "--tlsv1.3"] {
        let most = if version == "--tlsv1.2" { "1.2" } else { "1.3" };
        let url = format!("https://localhost:{port}/health");
        let arguments = ["-sv", "--noproxy", "*", "--tls-max", most, version];
        let arguments = [&arguments[..], &["--cacert", root, &url]].concat();
        let text = output("curl", &arguments, "");
        assert!(text.contains("200 OK"), "{text}");
        assert!(text.contains("http/1.1"), "{text}");
    }
    let address = format!("127.0.0.1:{port}");
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = ["s_client", "-connect", &address, version, "-CAfile", root];
        let request = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let text = output(
            "openssl",
            &[&arguments[..], &["-quiet", "-ign_eof"]].concat(),
            request,
        );
        assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
    }
    let arguments = ["s_client", "-connect", &address, "-alpn", "h2"];
    let text = output("openssl", &arguments, "");
    assert!(text.contains("alert number 120"), "{text}");
    assert!(
        server
            .metric("umbel_tls_alerts_total{direction=\"sent\",alert=\"no_application_protocol\"}")
            == 1
    );
}

#[test]
fn plain_http_on_a_tls_port_and_the_other_way_round() {
    let listeners = [
        "--listen",
        "https://127.0.0.1:0",
        "--listen",
        "http://127.0.0.1:0",
    ];
    let server = TlsServer::start_on("tls_plain", &listeners, &[]);
    let mut stream = plain(&server.server);
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("it reads");
    let answer = String::from_utf8(read_to_end(&mut stream)).expect("text");
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
    assert!(answer.contains("this port speaks TLS: use https:// or wss://"));
    drop(stream);
    let plain_http =
        "umbel_tls_handshakes_total{version=\"unknown\",kind=\"unknown\",result=\"plain_http\"}";
    assert_eq!(server.metric(plain_http), 1);

    let address = plain_address(&server);
    let mut stream = connect(address, Arc::new(server.certificate.client()));
    let error = stream.write_all(b"x").expect_err("it speaks no TLS");
    assert!(error.kind() != ErrorKind::TimedOut, "{error}");
    wait_until("the log says so", || {
        server.server.log().contains("TLS on a plain listener")
    });
}

#[test]
fn peers_that_break_it_are_told_and_counted() {
    let server = TlsServer::start("tls_broken", &["--handshake-timeout-ms", "400"]);
    for bytes in [
        &b"\x80\x2e\x01\x03\x01\x00\x15\x00"[..],
        b"\x16\x03\x01\x40\x01hello",
        b"\x16\x03\x01\x00\x05hello",
        b"\x17\x03\x03\x00\x01a",
        b"\x00\x00\x00\x00\x00\x00",
    ] {
        let mut stream = plain(&server.server);
        stream.write_all(bytes).expect("it reads");
        let answer = read_to_end(&mut stream);
        assert!(
            answer.first().is_none_or(|first| *first == 0x15),
            "{answer:?}"
        );
    }
    // Who says nothing, or goes in the middle, is no more trouble than over plain TCP.
    let silent = plain(&server.server);
    let mut half = plain(&server.server);
    half.write_all(b"\x16\x03\x01\x02\x00\x01\x00")
        .expect("it reads");
    let gone = plain(&server.server);
    gone.shutdown(Shutdown::Both).expect("open");
    for mut stream in [silent, half] {
        let began = Instant::now();
        read_to_end(&mut stream);
        assert!(began.elapsed() < PATIENCE);
    }
    wait_until("none is under way", || {
        server.metric("umbel_tls_handshakes_pending") == 0
    });
    let failed =
        "umbel_tls_handshakes_total{version=\"unknown\",kind=\"unknown\",result=\"failed\"}";
    assert!(server.metric(failed) >= 4);
    assert!(server.metric("umbel_closed_total{reason=\"tls\"}") >= 4);
    wait_until("the log names the alert", || {
        let log = server.server.log();
        log.lines()
            .any(|line| line.contains("reason=tls") && line.contains("alert=unexpected_message"))
    });
}

#[test]
fn hello_in_pieces_and_pipelined_requests() {
    let server = TlsServer::start("tls_pieces", &[]);
    let mut stream = server.connect();
    let mut hello = Vec::new();
    stream.conn.write_tls(&mut hello).expect("memory");
    for piece in hello.chunks(hello.len() / 40) {
        stream.sock.write_all(piece).expect("it reads");
        // Each piece is a segment of its own.
        std::thread::sleep(Duration::from_millis(1));
    }
    let get = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let last = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let requests = get.repeat(200) + last;
    stream.write_all(requests.as_bytes()).expect("it reads");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("close_notify");
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 201);
}

#[test]
fn handshakes_under_way_are_bounded() {
    let flags = ["--tls-handshakes-pending-max", "3"];
    let server = TlsServer::start("tls_pending", &flags);
    let held: Vec<_> = (0..3).map(|_| plain(&server.server)).collect();
    wait_until("they are accepted", || {
        server.server.log().matches("\"accepted\"").count() >= 3
            || server.server.log().matches("accepted").count() >= 3
    });
    let mut refused = plain(&server.server);
    assert_eq!(read_to_end(&mut refused), b"", "without a word");
    drop(held);
    let mut answer = String::new();
    wait_until("there is room again", || {
        let mut stream = server.connect();
        let get = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(get.as_bytes()).is_ok() && stream.read_to_string(&mut answer).is_ok()
    });
    let refused =
        "umbel_tls_handshakes_total{version=\"unknown\",kind=\"unknown\",result=\"refused\"}";
    assert!(server.metric(refused) >= 1);
}

#[test]
fn many_at_once() {
    connect_many(
        "tls_many_inline",
        &["--tls-threads", "0", "--tls-handshakes-per-tick-max", "1"],
    );
    connect_many("tls_many_threads", &["--tls-threads", "3"]);
    connect_many("tls_many_rustls", &["--tls-records", "rustls"]);
}

/// Connects from several threads, with full handshakes.
fn connect_many(name: &str, flags: &[&str]) {
    let server = TlsServer::start(name, flags);
    let config = Arc::new(server.certificate.client());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (address, config) = (server.server.address(), Arc::clone(&config));
            std::thread::spawn(move || {
                for _ in 0..20 {
                    let mut stream = connect(address, Arc::clone(&config));
                    let get =
                        "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                    stream.write_all(get.as_bytes()).expect("it reads");
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).expect("close_notify");
                    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("all were answered");
    }
}

#[test]
fn slow_reader_keeps_its_records_whole() {
    let flags = [
        "--send-buffer-bytes",
        "8192",
        "--outbox-bytes-max",
        "4000000",
    ];
    let server = TlsServer::start("tls_slow", &flags);
    let mut reader = server.websocket("/ws/news");
    let text = "x".repeat(100_000);
    for number in 0..20 {
        server.publish("news", &format!("{number} {text}"));
    }
    for number in 0..20 {
        let message = reader.read().expect("it is delivered");
        assert_eq!(message, Message::text(format!("{number} {text}")));
    }
    for _ in 0..80 {
        server.publish("news", &text);
    }
    let end = loop {
        match reader.read() {
            Ok(Message::Text(_)) => {}
            Ok(Message::Close(Some(frame))) => break u16::from(frame.code),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(end, 1013, "a slow consumer");
}

#[test]
fn rights_must_be_said_and_a_certificate_be_there() {
    let certificate = Certificate::write("tls_rights");
    let files = certificate.flag();
    let refused = |flags: &[&str]| {
        let mut arguments = vec!["serve", "--listen", "https://127.0.0.1:0"];
        arguments.extend(flags);
        output(env!("CARGO_BIN_EXE_umbel"), &arguments, "")
    };
    let words = refused(&["--certificate", &files]);
    assert!(
        words.contains("TLS") && words.contains("--publish"),
        "{words}"
    );
    let words = refused(&["--publish", "anyone", "--origin", "any"]);
    assert!(words.contains("certificate"), "{words}");
}

#[test]
fn answers_over_tls_bear_hsts() {
    let listeners = [
        "--listen",
        "https://127.0.0.1:0",
        "--listen",
        "http://127.0.0.1:0",
    ];
    let server = TlsServer::start_on("tls_hsts", &listeners, &["--hsts-max-age", "600"]);
    for target in ["/health", "/no", "/api/v1/no", "/metrics"] {
        let answer = server.get(target);
        let lines = answer.matches("Strict-Transport-Security: max-age=600\r\n");
        assert_eq!(lines.count(), 1, "{answer}");
    }
    let answer = over_http(&server, "GET", "/health");
    assert!(
        answer.contains("200 OK") && !answer.contains("Strict-"),
        "{answer}"
    );
    // Heads that cannot be read are answered over TLS too.
    for (head, status) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nno header\r\n\r\n".to_owned(),
            400,
        ),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000)), 414),
        ("GET / HTTP/9.9\r\nHost: a\r\n\r\n".to_owned(), 505),
    ] {
        let mut stream = server.connect();
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("close_notify");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        let lines = answer.matches("Strict-Transport-Security: max-age=600\r\n");
        assert_eq!(lines.count(), 1, "{answer}");
    }
}

/// Address of the second listener, which is plain.
fn plain_address(server: &TlsServer) -> SocketAddr {
    let log = server.server.log();
    let (_, rest) = log.split_once(": http://").expect("the second listener");
    let address = rest.split(',').next().expect("its address");
    address.parse().expect("an address")
}

/// Sends a request to the second listener; the answer as it is on the wire.
fn over_http(server: &TlsServer, method: &str, target: &str) -> String {
    let mut stream = TcpStream::connect(plain_address(server)).expect("it accepts");
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: push.example:8080\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    String::from_utf8(read_to_end(&mut stream)).expect("text")
}

#[test]
fn plain_listener_leads_to_https_and_serves_challenges() {
    let webroot = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tls_acme");
    let folder = webroot.join(".well-known/acme-challenge");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("good-token_1"), "good-token_1.key").expect("a file");
    fs::write(folder.join("long"), [b'x'; 5000]).expect("a file");
    fs::write(webroot.join("secret"), "secret").expect("a file");
    let link = folder.join("link");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(webroot.join("secret"), link).expect("a link");
    let webroot = webroot.to_str().expect("text");
    let listeners = [
        "--listen",
        "https://127.0.0.1:0",
        "--listen",
        "http://127.0.0.1:0",
    ];
    let flags = ["--redirect-to-https", "true", "--acme-webroot", webroot];
    let server = TlsServer::start_on("tls_redirect", &listeners, &flags);
    let challenge = "/.well-known/acme-challenge/";
    let answer = over_http(&server, "GET", &format!("{challenge}good-token_1"));
    assert!(answer.ends_with("\r\n\r\ngood-token_1.key"), "{answer}");
    for token in [
        "",
        "no",
        "long",
        "link",
        "..%2f..%2fsecret",
        "../../secret",
        ".",
        "a.b",
    ] {
        let answer = over_http(&server, "GET", &format!("{challenge}{token}"));
        assert!(answer.starts_with("HTTP/1.1 404 "), "{token}: {answer}");
    }
    let answer = over_http(&server, "POST", &format!("{challenge}good-token_1"));
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let port = server.server.address().port();
    for target in ["/ws/news?last=3", "/", "/metrics"] {
        let answer = over_http(&server, "GET", target);
        assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
        let location = format!("Location: https://push.example:{port}{target}\r\n");
        assert!(answer.contains(&location), "{answer}");
    }
    let mut stream = TcpStream::connect(plain_address(&server)).expect("it accepts");
    let upgrade = support::wire::upgrade_request("/ws/news", "");
    stream.write_all(upgrade.as_bytes()).expect("it reads");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 426");
    assert!(server.get("/health").contains("200 OK"), "TLS goes on");
}

#[test]
fn address_over_its_limit_costs_no_handshake() {
    let server = TlsServer::start("tls_address", &["--connections-per-address-max", "2"]);
    let held: Vec<_> = (0..2).map(|_| server.websocket("/ws/news")).collect();
    let mut refused = plain(&server.server);
    assert_eq!(read_to_end(&mut refused), b"", "without a word");
    drop(held);
    wait_until("there is room again", || {
        let mut stream = server.connect();
        let get = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        stream.write_all(get.as_bytes()).is_ok() && stream.read_to_string(&mut answer).is_ok()
    });
    let done = "umbel_tls_handshakes_total{version=\"1.3\",kind=\"full\",result=\"done\"}";
    assert!(server.metric(done) >= 1);
}

/// The header of a load balancer stands before the first record.
#[test]
fn proxy_header_before_tls() {
    let listen = "https://127.0.0.1:0?trusted_proxies=127.0.0.1&proxy_protocol=true";
    let server = TlsServer::start_on("tls_proxied", &["--listen", listen], &[]);
    let url = format!(
        "https://localhost:{}/health",
        server.server.address().port()
    );
    let root = server.certificate.certificate_file.to_str().expect("text");
    let arguments = ["-s", "--noproxy", "*", "-4", "--cacert", root, &url];
    let text = output(
        "curl",
        &[&arguments[..], &["--haproxy-protocol"]].concat(),
        "",
    );
    assert_eq!(text, "ok\n");
    assert_eq!(output("curl", &arguments, ""), "", "there is no header");
}
