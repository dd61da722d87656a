//! `umbel sub` and `umbel pub`, against the server, against tungstenite and against peers that misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::thread::{self, JoinHandle};

use serde_json::Value;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

use crate::process::{Running, outcome, run, run_with_input, umbel};
use crate::support::{PATIENCE, Server, wait_until};

/// A peer that `umbel sub` or `umbel pub` connects to once, run by a thread.
fn peer<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let thread = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("umbel connects");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("an option can be set");
        serve(stream)
    });
    (address, thread)
}

/// A peer behind a WebSocket handshake by tungstenite, which checks that everything is masked.
fn websocket_peer<T: Send + 'static>(
    serve: impl FnOnce(WebSocket<TcpStream>) -> T + Send + 'static,
) -> (String, JoinHandle<T>) {
    let (address, thread) =
        peer(|stream| serve(tungstenite::accept(stream).expect("the handshake is in order")));
    (format!("ws://{address}/ws/news"), thread)
}

fn ws(server: &Server, topic: &str) -> String {
    format!("ws://{}/ws/{topic}", server.address())
}

fn http(server: &Server, topic: &str) -> String {
    format!("http://{}/pub/{topic}", server.address())
}

#[test]
fn history_prints_all_pages() {
    let server = Server::start(&[
        "--topic-rule",
        "kept history=100",
        "--recovery-publications-max",
        "3",
    ]);
    let mut positions = Vec::new();
    for number in 0..10 {
        let response = server.publish("kept", "text/plain", number.to_string().as_bytes());
        let answer: Value = serde_json::from_str(response.text()).expect("JSON");
        positions.push(format!(
            "{}:{}",
            answer["epoch"].as_str().expect("text"),
            answer["offset"]
        ));
    }
    server.publish("kept", "application/octet-stream", &[0, 255]);
    let url = format!("http://{}/history/kept", server.address());
    let print = |arguments: &[&str]| run(&mut umbel(&[&["history", &url], arguments].concat()));
    let lines =
        |numbers: std::ops::Range<u32>| numbers.map(|it| format!("{it}\n")).collect::<String>();
    let (code, out, error) = print(&["--since", &positions[0]]);
    assert_eq!(
        (code, out, &*error),
        (0, lines(1..10) + "base64:AP8=\n", "")
    );
    assert_eq!(print(&["--last", "5"]).1, lines(6..10) + "base64:AP8=\n");
    assert_eq!(print(&["--last", "7", "-n", "4"]).1, lines(4..8));
    // Of the newest there is one page.
    assert_eq!(print(&[]).1, lines(0..3));
    let (_, out, _) = print(&["--last", "2", "--json", "-n", "1"]);
    let line: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (&line["position"], &line["data"]),
        (&positions[9].clone().into(), &"9".into())
    );
    assert!(line["published"].is_string(), "{line}");
    let (code, out, error) = print(&["--since", "0000000000000001:7"]);
    assert_eq!((code, &*out), (1, ""));
    assert!(error.contains("does not reach back"), "{error}");
    let (code, _, error) = print(&["--since", "x"]);
    assert_eq!(code, 2, "{error}");
}

#[test]
fn pub_publishes_once_with_idempotency_key() {
    let server = Server::start(&[]);
    let url = http(&server, "news");
    let publish = |lines: &str| {
        let mut command = umbel(&["pub", &url, "-", "--idempotency-key", "k", "--verbose"]);
        let (_, out, _) = run_with_input(&mut command, lines.as_bytes());
        let answers = out
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        answers
            .map(|it| (it["offset"].clone(), it["duplicate"] == true))
            .collect::<Vec<_>>()
    };
    let first = publish("a\nb\n");
    assert!(
        first.iter().all(|(_, is_duplicate)| !is_duplicate),
        "{first:?}"
    );
    // The same file once more, with a line behind what was taken.
    let again = publish("a\nb\nc\n");
    let known: Vec<_> = again
        .iter()
        .map(|(_, is_duplicate)| *is_duplicate)
        .collect();
    assert_eq!(known, [true, true, false], "{again:?}");
    assert_eq!((&again[0].0, &again[1].0), (&first[0].0, &first[1].0));
}

#[test]
fn sub_prints_lines_until_count() {
    let server = Server::start(&[]);
    let url = ws(&server, "news");
    let base64 = Running::subscribe(&[&url, "--count", "3"]);
    let hex = Running::subscribe(&[&url, "-n", "3", "--hex"]);
    for (content_type, body) in [
        ("text/plain", &b"one"[..]),
        ("application/octet-stream", b"\x00\xffA"),
        ("text/plain", "caf\u{e9}".as_bytes()),
        ("text/plain", b"over the count"),
    ] {
        server.publish("news", content_type, body);
    }
    let (code, lines, error) = base64.end();
    assert_eq!(
        (code, lines),
        (
            0,
            vec!["one".into(), "base64:AP9B".into(), "caf\u{e9}".into()]
        ),
        "{error}"
    );
    let (code, lines, _) = hex.end();
    assert_eq!((code, &*lines[1]), (0, "hex:00ff41"));
    wait_until("the server sees two normal closes", || {
        server.log().matches("reason=peer code=1000").count() == 2
    });
}

#[test]
fn sub_json() {
    let server = Server::start(&[]);
    let sub = Running::subscribe(&["--json", "-n", "2", &ws(&server, "news")]);
    server.publish("news", "text/plain", b"two\nlines \x1b[2J");
    server.publish("news", "application/octet-stream", b"\x00\xffA");
    let (code, lines, error) = sub.end();
    assert_eq!((code, lines.len()), (0, 2), "{error}");
    let text: Value = serde_json::from_str(&lines[0]).expect("a line is JSON");
    assert_eq!(text["data"], "two\nlines \x1b[2J");
    assert_eq!(
        (&text["kind"], &text["bytes"]),
        (&"text".into(), &14.into())
    );
    let time = text["time"].as_str().expect("a time is text");
    assert!(
        time.len() == 24 && time.starts_with("20") && time.ends_with('Z'),
        "{time}"
    );
    let binary: Value = serde_json::from_str(&lines[1]).expect("a line is JSON");
    assert_eq!(
        (&binary["kind"], &binary["data"]),
        (&"binary".into(), &"AP9B".into())
    );
}

#[test]
fn ctrl_c_closes_with_1000() {
    for (command, signal) in [("sub", "INT"), ("sub", "TERM"), ("pub", "INT")] {
        let (url, peer) = websocket_peer(|mut websocket| {
            let close = websocket.read().expect("a close frame comes");
            // Reads on until the close frame is answered and the connection has ended.
            while websocket.read().is_ok() {}
            close
        });
        let mut running = umbel(&[command, "--verbose", &url]);
        if command == "pub" {
            running.arg("-");
        }
        let running = Running::start(&mut running);
        wait_until("it is connected", || !running.err.get().is_empty());
        running.signal(signal);
        let close = peer.join().expect("the peer does not panic");
        let Message::Close(Some(frame)) = close else {
            panic!("{command}: {close:?}");
        };
        assert_eq!(u16::from(frame.code), 1000);
        let (code, _, error) = running.end();
        assert_eq!(code, 0, "{command}: {error}");
    }
}

#[test]
fn sub_reports_close() {
    let close = |code: u16, reason: &'static str| {
        move |mut websocket: WebSocket<TcpStream>| {
            let frame = CloseFrame {
                code: code.into(),
                reason: reason.into(),
            };
            websocket.close(Some(frame)).expect("it can be sent");
            let mut answered = false;
            while let Ok(message) = websocket.read() {
                answered |= message.is_close();
            }
            answered
        }
    };
    for (code, reason, exit, parts) in [
        (1000, "done", 0, [""; 2]),
        (4001, "no \x1b[2Jmore", 1, ["4001", r"no \x1b[2Jmore"]),
        (1001, "", 1, ["1001", ""]),
    ] {
        let (url, peer) = websocket_peer(close(code, reason));
        let (exited, _, error) = run(&mut umbel(&["sub", "--once", &url]));
        assert_eq!(exited, exit, "{error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert_eq!(error.is_empty(), exit == 0, "{error}");
        assert!(
            peer.join().expect("the peer does not panic"),
            "the close is answered"
        );
    }
    let (url, _peer) = websocket_peer(drop);
    let (exited, _, error) = run(&mut umbel(&["sub", "--once", &url]));
    assert_eq!(exited, 1);
    assert!(error.contains("1006"), "{error}");
    let (url, peer) = websocket_peer(|websocket| {
        // A text frame that is not UTF-8.
        let mut stream = websocket.get_ref();
        stream.write_all(b"\x81\x01\xff").expect("it can be sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map(|_| answer)
    });
    let (exited, _, error) = run(&mut umbel(&["sub", &url]));
    assert!(exited == 1 && error.contains("1007"), "{exited} {error}");
    let answer = peer
        .join()
        .expect("the peer does not panic")
        .expect("it ends in order");
    let code = [answer[6] ^ answer[2], answer[7] ^ answer[3]];
    assert_eq!((answer[0], u16::from_be_bytes(code)), (0x88, 1007));
}

#[test]
fn sub_reports_shutdown() {
    let server = Server::start(&[]);
    let sub = Running::subscribe(&["--once", &ws(&server, "news")]);
    server.signal("TERM");
    let (code, _, error) = sub.end();
    assert_eq!(code, 1);
    assert!(
        error.contains("1001: the server is shutting down"),
        "{error}"
    );
}

#[test]
fn sub_and_pub_answer_pings() {
    let pong = |mut websocket: WebSocket<TcpStream>| {
        let ping = Message::Ping(b"are you there".as_slice().into());
        websocket.send(ping).expect("it can be sent");
        let pong = loop {
            match websocket.read().expect("the pong comes") {
                Message::Pong(payload) => break payload,
                message => assert!(message.is_text(), "{message:?}"),
            }
        };
        websocket.close(None).expect("it can be sent");
        while websocket.read().is_ok() {}
        pong
    };
    let (url, peer) = websocket_peer(pong);
    assert_eq!(run(&mut umbel(&["sub", &url])).0, 0);
    assert_eq!(
        peer.join().expect("the peer does not panic"),
        "are you there"
    );
    let (url, peer) = websocket_peer(pong);
    // Its standard input stays open, so that it waits for a line when the ping comes.
    let publisher = Running::start(&mut umbel(&["pub", &url, "-"]));
    assert!(publisher.stdin.is_some());
    assert_eq!(
        peer.join().expect("the peer does not panic"),
        "are you there"
    );
    let (code, _, error) = publisher.end();
    // The server closed before the input ended.
    assert!(
        code == 1 && error.contains("closed the connection"),
        "{code} {error}"
    );
}

#[test]
fn sub_ends_on_broken_pipe() {
    let server = Server::start(&[]);
    let mut child = umbel(&["sub", &ws(&server, "news")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("umbel can be started");
    drop(child.stdout.take());
    let mut status = None;
    wait_until("it ends", || {
        server.publish("news", "text/plain", b"x");
        status = child.try_wait().expect("a child can be asked");
        status.is_some()
    });
    let (code, _, error) = outcome(&child.wait_with_output().expect("it has ended"));
    assert_eq!((code, &*error), (0, ""));
}

#[test]
fn pub_http_order_on_one_connection() {
    let server = Server::start(&[]);
    let mut subscriber = server.websocket("/ws/news");
    let accepted = accepted(&server);
    let input: String = (0..500).map(|number| format!("{number}\r\n")).collect();
    let url = http(&server, "news");
    let (code, out, error) = run_with_input(&mut umbel(&["pub", &url, "-"]), input.as_bytes());
    assert_eq!((code, &*out, &*error), (0, "", ""));
    for number in 0..500 {
        let message = subscriber.read().expect("it is delivered");
        assert_eq!(message, Message::text(number.to_string()));
    }
    // One by the publisher, one by the second look at the figures.
    assert_eq!(self::accepted(&server) - accepted, 2.0);
    let (code, out, _) = run(&mut umbel(&["pub", "--verbose", &url, "-x"]));
    let answer: Value = serde_json::from_str(&out).expect("the server's answer is JSON");
    assert!(code == 0 && answer["offset"].is_u64(), "{out}");
    assert_eq!(
        subscriber.read().expect("it is delivered"),
        Message::text("-x")
    );
}

fn accepted(server: &Server) -> f64 {
    let metrics = server.metrics();
    let found: Vec<_> = metrics
        .iter()
        .filter(|(name, _)| name.contains("accepted"))
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    *found[0].1
}

#[test]
fn pub_websocket_ends_when_read() {
    let server = Server::start(&[]);
    let mut subscriber = server.websocket("/ws/news");
    let reader = thread::spawn(move || {
        (0..20_001)
            .map(|_| subscriber.read().expect("it is delivered"))
            .collect::<Vec<_>>()
    });
    let mut input: Vec<u8> = (0..20_000)
        .flat_map(|number: u32| format!("{number}\n").into_bytes())
        .collect();
    input.extend_from_slice(b"\xff\xfe");
    let url = ws(&server, "news");
    let (code, out, error) = run_with_input(&mut umbel(&["pub", &url, "-"]), &input);
    assert_eq!((code, &*out, &*error), (0, "", ""));
    let messages = reader.join().expect("all are delivered");
    for (number, message) in messages[..20_000].iter().enumerate() {
        assert_eq!(*message, Message::text(number.to_string()));
    }
    assert_eq!(messages[20_000], Message::binary(b"\xff\xfe".as_slice()));
}

#[test]
fn pub_reports_refusal() {
    let server = Server::start(&[
        "--publish-token",
        "s3cret",
        "--publication-bytes-max",
        "1000",
    ]);
    let (url, ws_url) = (http(&server, "news"), ws(&server, "news"));
    let (code, _, error) = run(&mut umbel(&["pub", &url, "x"]));
    assert!(code == 1 && error.contains("401 Unauthorized: "), "{error}");
    assert_eq!(
        run(&mut umbel(&["pub", "--token", "s3cret", &url, "x"])).0,
        0
    );
    let with_variable = |arguments: &[&str]| run(umbel(arguments).env("UMBEL_TOKEN", "s3cret"));
    assert_eq!(with_variable(&["pub", &url, "x"]).0, 0);
    assert_eq!(with_variable(&["pub", &ws_url, "x"]).0, 0);
    let (code, _, error) = run(&mut umbel(&["pub", &ws_url, "x"]));
    assert!(
        code == 1 && error.contains("1008: this connection may not publish"),
        "{error}"
    );
    let long = "x".repeat(1001);
    let (code, _, error) = with_variable(&["pub", &url, &long]);
    assert!(
        code == 1 && error.contains("413 Content Too Large: "),
        "{error}"
    );
    let (code, _, error) = with_variable(&["pub", &ws_url, &long]);
    assert!(
        code == 1 && error.contains("1009: the message is over"),
        "{error}"
    );
    let (code, _, error) =
        with_variable(&["pub", &format!("http://{}/news", server.address()), "x"]);
    assert!(code == 1 && error.contains("404 Not Found: "), "{error}");
    let (code, _, error) = run(&mut umbel(&["pub", "--token", "a\nb", &url, "x"]));
    assert!(code == 1 && error.contains("token"), "{error}");
}

/// Answers each request on one connection with the next of these, and counts the requests.
fn http_peer(answers: Vec<&'static str>) -> (String, JoinHandle<usize>) {
    let (address, thread) = peer(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
        let mut requests = 0;
        for answer in answers {
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).expect("a request is text") == 0 {
                    return requests;
                }
                if let Some(value) = line.strip_prefix("Content-Length: ") {
                    length = value.trim().parse().expect("a length is a number");
                }
                if line == "\r\n" {
                    break;
                }
            }
            reader
                .read_exact(&mut vec![0; length])
                .expect("the body comes");
            requests += 1;
            let head = "Content-Type: text/plain\r\nContent-Length: 3\r\nRetry-After: 0\r\n\r\n";
            let response = format!("HTTP/1.1 {answer}\r\n{head}no\n");
            stream.write_all(response.as_bytes()).expect("it is read");
        }
        requests
    });
    (format!("http://{address}/pub/news"), thread)
}

#[test]
fn pub_retries_on_503() {
    let full = "503 Service Unavailable";
    let (url, peer) = http_peer(vec![full, full, "200 OK"]);
    let (code, _, error) = run(&mut umbel(&["pub", &url, "x"]));
    assert_eq!((code, &*error), (0, ""));
    assert_eq!(peer.join().expect("the peer does not panic"), 3);
    let (url, peer) = http_peer(vec![full; 9]);
    let (code, _, error) = run(&mut umbel(&["pub", "--retries", "2", &url, "x"]));
    assert!(
        code == 1 && error.contains("503 Service Unavailable: no (after 2 retries)"),
        "{error}"
    );
    assert_eq!(peer.join().expect("the peer does not panic"), 3);
}

/// With a key, what is not answered is sent again too, and says since when.
#[test]
fn pub_sends_again_with_its_key() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!(
        "http://{}/pub/a",
        listener.local_addr().expect("an address")
    );
    let peer = thread::spawn(move || {
        let mut heads = Vec::new();
        for answer in ["", "503 Service Unavailable", "200 OK"] {
            let (mut stream, _) = listener.accept().expect("it connects");
            let mut head = String::new();
            let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
            while !head.ends_with("\r\n\r\nx") {
                let mut byte = [0];
                reader.read_exact(&mut byte).expect("a request");
                head.push(char::from(byte[0]));
            }
            heads.push(head);
            if !answer.is_empty() {
                let lines = "Content-Length: 0\r\nRetry-After: 0\r\nConnection: close\r\n\r\n";
                let response = format!("HTTP/1.1 {answer}\r\n{lines}");
                stream.write_all(response.as_bytes()).expect("it is read");
            }
        }
        heads
    });
    let (code, _, error) = run(&mut umbel(&["pub", &url, "--idempotency-key", "k", "x"]));
    assert_eq!((code, &*error), (0, ""));
    let ages = peer
        .join()
        .expect("the peer does not panic")
        .into_iter()
        .map(|head| {
            assert_eq!(head.matches("Idempotency-Key: k\r\n").count(), 1, "{head}");
            let (_, rest) = head.split_once("Umbel-First-Sent-Ms: ")?;
            rest.split_once("\r\n")?.0.parse::<u32>().ok()
        });
    let ages: Vec<_> = ages.collect();
    assert!(
        matches!(ages[..], [None, Some(second), Some(third)] if second >= 1000 && third >= second),
        "{ages:?}"
    );
}

#[test]
fn bare_topic_on_default_server() {
    let server = Server::start(&[]);
    let address = server.address().to_string();
    let sub = Running::subscribe(&["--server", &address, "-n", "1", "tokens?b=2&a=1"]);
    let publish = &mut umbel(&["pub", "tokens?a=1&b=2", "x"]);
    let (code, _, error) = run(publish.env("UMBEL_SERVER", &address));
    assert_eq!(code, 0, "{error}");
    assert_eq!(sub.end().1, ["x"]);
}
