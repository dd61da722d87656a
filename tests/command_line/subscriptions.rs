//! `umbel sub` with several topics, patterns and event streams, and how it comes back; `umbel pub` with keys, receipts and
//! whole inputs.

use std::net::TcpStream;
use std::thread;

use serde_json::{Value, json};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Message, WebSocket};

use crate::process::{Running, run, run_with_input, umbel};
use crate::proxy::Proxy;
use crate::support::{Server, wait_until};

const HISTORY: &str = "--topic-rule=** history=100";

fn publish(server: &Server, topic: &str, texts: &[&str]) {
    for text in texts {
        let answer = server.publish(topic, "text/plain", text.as_bytes());
        assert_eq!(answer.status, 200, "{text}");
    }
}

fn json_lines(lines: &[String]) -> Vec<Value> {
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn sub_since_and_last() {
    let server = Server::start(&[HISTORY]);
    let address = server.address().to_string();
    publish(&server, "news", &["1", "2", "3"]);
    for target in [
        "news?last=2".to_owned(),
        format!("ws://{address}/ws/news?last=2"),
        format!("http://{address}/sse/news?last=2"),
    ] {
        let sub = &mut umbel(&["sub", "--server", &address, "-n", "2", &target]);
        let (code, out, error) = run(sub);
        assert_eq!((code, &*out, &*error), (0, "2\n3\n", ""), "{target}");
    }
    let all = &mut umbel(&[
        "sub",
        "--server",
        &address,
        "--json",
        "-n",
        "3",
        "news?last=3",
    ]);
    let (_, out, _) = run(all);
    let first: Value = serde_json::from_str(out.lines().next().expect("a line")).expect("JSON");
    let position = first["position"].as_str().expect("a position");
    let since = format!("news?since={position}");
    let (code, out, error) = run(&mut umbel(&["sub", "--server", &address, "-n2", &since]));
    assert_eq!((code, &*out, &*error), (0, "2\n3\n", ""));
}

#[test]
fn sub_topics_and_patterns() {
    let server = Server::start(&[]);
    let address = server.address().to_string();
    let targets = ["orders/*", "chat", "prices/**", "chat"];
    let text = Running::subscribe(&[&["--server", &address, "-n4"][..], &targets].concat());
    let json =
        Running::subscribe(&[&["--server", &address, "-n4", "--json"][..], &targets].concat());
    publish(&server, "orders/eu", &["a"]);
    publish(&server, "orders/eu/1", &["nobody is there"]);
    publish(&server, "chat", &["b\tc"]);
    publish(&server, "prices/a.b/c", &["d"]);
    server.publish("chat", "application/octet-stream", b"\xff");
    // Topics have an order each, and none among themselves.
    let (code, mut lines, error) = text.end();
    lines.sort_by_key(|line| line.split('\t').next().map(str::to_owned));
    let expected = [
        "chat\tb\tc",
        "chat\tbase64:/w==",
        "orders/eu\ta",
        "prices/a.b/c\td",
    ];
    assert_eq!(
        (code, lines),
        (0, expected.map(String::from).to_vec()),
        "{error}"
    );
    let (code, lines, error) = json.end();
    assert_eq!(code, 0, "{error}");
    let mut lines = json_lines(&lines);
    lines.sort_by_key(|line| line["topic"].to_string());
    let shown =
        |name: &str| -> Vec<Value> { lines.iter().map(|line| line[name].clone()).collect() };
    assert_eq!(
        shown("topic"),
        ["chat", "chat", "orders/eu", "prices/a.b/c"]
    );
    assert_eq!(
        shown("pattern"),
        [
            json!(null),
            json!(null),
            json!("orders/*"),
            json!("prices/**"),
        ]
    );
    assert_eq!(shown("kind"), ["text", "binary", "text", "text"]);
    assert_eq!(shown("bytes"), [3, 1, 1, 1]);
    let offsets = [0, 1].map(|index: usize| {
        let position = lines[index]["position"].as_str().expect("a position");
        position
            .split_once(':')
            .map(|(epoch, offset)| (epoch.len(), offset.to_owned()))
    });
    assert_eq!(
        offsets,
        [Some((16, "1".to_owned())), Some((16, "2".to_owned()))]
    );
}

#[test]
fn sub_event_stream() {
    let server = Server::start(&[HISTORY]);
    let url = format!("http://{}/sse/news", server.address());
    let text = Running::subscribe(&[&url, "-n2"]);
    let json = Running::subscribe(&[&url, "-n2", "--json"]);
    publish(&server, "news", &["two\nlines"]);
    server.publish("news", "application/octet-stream", b"\x00\xffA");
    let (code, lines, error) = text.end();
    let expected = ["two", "lines", "base64:AP9B"].map(String::from);
    assert_eq!((code, lines), (0, expected.to_vec()), "{error}");
    let (_, lines, _) = json.end();
    let lines = json_lines(&lines);
    assert_eq!(
        (&lines[0]["data"], &lines[0]["topic"]),
        (&json!("two\nlines"), &json!("news"))
    );
    assert_eq!(
        (&lines[1]["kind"], &lines[1]["data"]),
        (&json!("binary"), &json!("AP9B"))
    );
    assert!(
        lines[1]["position"]
            .as_str()
            .is_some_and(|position| position.ends_with(":2"))
    );
}

/// Publications during a cut come once and in order after the reconnect.
#[test]
fn sub_reconnects_and_recovers() {
    let server = Server::start(&[HISTORY]);
    let proxy = Proxy::start(server.address());
    let address = proxy.address.to_string();
    let targets = [
        "news".to_owned(),
        format!("http://{address}/sse/news"),
        format!("ws://{address}/ws/news"),
    ];
    let subs: Vec<_> = targets
        .iter()
        .map(|target| Running::subscribe(&["--server", &address, "-n7", target]))
        .collect();
    let printed = |count| {
        wait_until("they print it", || {
            subs.iter().all(|sub| sub.out.get().len() == count)
        });
    };
    publish(&server, "news", &["1", "2"]);
    printed(2);
    // The second time it has recovered before.
    for (texts, count) in [(["3", "4"], 4), (["5", "6"], 6)] {
        let before = proxy.accepted();
        proxy.cut();
        publish(&server, "news", &texts);
        wait_until("they have tried in vain", || proxy.accepted() >= before + 3);
        proxy.mend();
        printed(count);
    }
    publish(&server, "news", &["7"]);
    for (sub, target) in subs.into_iter().zip(&targets) {
        let (code, lines, error) = sub.end();
        assert_eq!(code, 0, "{target}: {error}");
        assert_eq!(lines, ["1", "2", "3", "4", "5", "6", "7"], "{target}");
        for part in ["connecting again in ", "subscribed again"] {
            assert!(error.contains(part), "{target}: {error}");
        }
        assert!(!error.contains("is not known"), "{target}: {error}");
    }
}

#[test]
fn sub_reports_unrecoverable() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let address = proxy.address.to_string();
    let targets = [
        ("news".to_owned(), "news"),
        ("*".to_owned(), "*"),
        (format!("http://{address}/sse/news"), "news"),
        (format!("ws://{address}/ws/news"), "news"),
    ];
    let subs = targets
        .each_ref()
        .map(|(target, _)| Running::subscribe(&["--server", &address, "-n2", "--json", target]));
    publish(&server, "news", &["1"]);
    wait_until("they print it", || {
        subs.iter().all(|sub| sub.out.get().len() == 1)
    });
    proxy.cut();
    publish(&server, "news", &["missed"]);
    proxy.mend();
    wait_until("they say so", || {
        subs.iter().all(|sub| sub.out.get().len() == 2)
    });
    publish(&server, "news", &["2"]);
    for (sub, (target, name)) in subs.into_iter().zip(&targets) {
        let (code, lines, error) = sub.end();
        assert_eq!(code, 0, "{target}: {error}");
        let lines = json_lines(&lines);
        assert_eq!(
            (&lines[0]["data"], &lines[2]["data"]),
            (&json!("1"), &json!("2"))
        );
        let gap = (&lines[1]["kind"], &lines[1]["name"], &lines[1]["from"]);
        assert_eq!(gap, (&json!("gap"), &json!(name), &Value::Null), "{target}");
        let told = format!("umbel: {name}: what was published meanwhile is not known");
        assert!(error.contains(&told), "{target}: {error}");
    }
}

#[test]
fn sub_survives_restart() {
    let mut server = Server::start(&[]);
    let address = server.address().to_string();
    let sub = Running::subscribe(&["--server", &address, "-n1", "news"]);
    server.signal("TERM");
    server.wait_for_exit(crate::support::PATIENCE);
    wait_until("it has tried in vain", || {
        sub.err
            .get()
            .iter()
            .any(|line| line.contains("nothing listens there"))
    });
    let server = Server::start(&["--listen", &address]);
    wait_until("it is there again", || {
        sub.err
            .get()
            .iter()
            .any(|line| line.contains("subscribed again"))
    });
    publish(&server, "news", &["hello"]);
    let (code, lines, error) = sub.end();
    assert_eq!((code, lines), (0, vec!["hello".to_owned()]), "{error}");
    assert!(error.contains("1001"), "{error}");
}

#[test]
fn sub_once() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let address = proxy.address.to_string();
    let targets = [
        "news".to_owned(),
        format!("http://{address}/sse/news"),
        format!("ws://{address}/ws/news"),
    ];
    let subs: Vec<_> = targets
        .iter()
        .map(|target| Running::subscribe(&["--once", "--server", &address, target]))
        .collect();
    proxy.cut();
    for sub in subs {
        let (code, _, error) = sub.end();
        assert_eq!(code, 1, "{error}");
        assert!(error.contains("ended") || error.contains("1006"), "{error}");
    }
    assert_eq!(proxy.accepted(), targets.len());
}

#[test]
fn sub_stops_when_unauthorized() {
    let server = Server::start(&["--subscribe-token", "0123456789abcdef"]);
    let address = server.address().to_string();
    for target in [
        "news".to_owned(),
        "n/*".to_owned(),
        format!("http://{address}/sse/news"),
        format!("ws://{address}/ws/news"),
    ] {
        let (code, out, error) = run(&mut umbel(&["sub", "--server", &address, &target]));
        assert_eq!(
            (code, &*out, error.lines().count()),
            (1, "", 1),
            "{target}: {error}"
        );
        assert!(error.contains("token"), "{target}: {error}");
        let mut with_token = umbel(&["sub", "-v", "--server", &address, &target]);
        let sub = Running::start(with_token.env("UMBEL_TOKEN", "0123456789abcdef"));
        wait_until("it is subscribed", || !sub.err.get().is_empty());
        sub.signal("INT");
        assert_eq!(sub.end().0, 0, "{target}");
    }
}

/// A peer of `umbel.v1` that says these messages after the first command, and gives what it heard.
#[expect(clippy::result_large_err, reason = "the type is tungstenite's")]
fn v1_peer(stream: TcpStream, says: &[&str]) -> (WebSocket<TcpStream>, Vec<String>) {
    let take = |_: &Request, mut response: Response| {
        let name = "umbel.v1".parse().expect("a header value");
        response
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", name);
        Ok(response)
    };
    let mut websocket = tungstenite::accept_hdr(stream, take).expect("the handshake is in order");
    let mut heard = Vec::new();
    if let Ok(Message::Text(text)) = websocket.read() {
        heard.push(text.to_string());
    }
    for text in says {
        websocket.send(Message::text(*text)).expect("it is read");
    }
    (websocket, heard)
}

#[test]
fn sub_gaps_and_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let peer = thread::spawn(move || {
        let accept = || listener.accept().expect("it connects").0;
        let full = r#"{"type":"error","id":0,"code":"unavailable","reason":"the shard is full"}"#;
        let (mut first, heard) = v1_peer(accept(), &[full]);
        while first.read().is_ok() {}
        let says = [
            r#"{"type":"subscribed","id":0,"topic":"a","position":"00000000000000a1:20","later":[1]}"#,
            r#"{"type":"gap","topic":"a","from":"00000000000000a1:21","to":"00000000000000a1:25"}"#,
            r#"{"type":"news to me"}"#,
        ];
        let (second, heard_again) = v1_peer(accept(), &says);
        drop(second);
        let says = [
            r#"{"type":"subscribed","id":0,"topic":"a","position":"00000000000000a1:26","recovered":true}"#,
            r#"{"type":"publication","topic":"a","position":"00000000000000a1:26","key":"k","data":"\u00e9"}"#,
        ];
        let (mut third, heard_at_last) = v1_peer(accept(), &says);
        while third.read().is_ok() {}
        [heard, heard_again, heard_at_last].concat()
    });
    let sub = &mut umbel(&["sub", "--server", &address, "--json", "-n1", "a?last=3"]);
    let (code, out, error) = run(sub);
    assert_eq!(code, 0, "{error}");
    let heard = json_lines(&peer.join().expect("the peer does not panic"));
    let command = |start: Value| {
        let mut command = json!({ "type": "subscribe", "id": 0, "topic": "a" });
        command
            .as_object_mut()
            .expect("an object")
            .extend(start.as_object().expect("an object").clone());
        command
    };
    let last = command(json!({ "last": 3 }));
    let since = command(json!({ "since": "00000000000000a1:25" }));
    assert_eq!(heard, [last.clone(), last, since]);
    let lines: Vec<_> = out.lines().map(String::from).collect();
    let lines = json_lines(&lines);
    assert_eq!(lines.len(), 2, "{out}");
    let gap = (&lines[0]["kind"], &lines[0]["from"], &lines[0]["to"]);
    let (from, to) = (json!("00000000000000a1:21"), json!("00000000000000a1:25"));
    assert_eq!(gap, (&json!("gap"), &from, &to));
    assert_eq!(
        (&lines[1]["data"], &lines[1]["key"]),
        (&json!("\u{e9}"), &json!("k"))
    );
    assert!(
        error.contains("the shard is full; connecting again"),
        "{error}"
    );
    assert!(error.contains("were left out"), "{error}");
}

#[test]
fn unknown_host_once() {
    for arguments in [
        &["sub", "ws://no-such-host.invalid/ws/x"][..],
        &["sub", "http://no-such-host.invalid/sse/x"],
        &["sub", "--server", "no-such-host.invalid:8080", "x"],
        &["pub", "http://no-such-host.invalid/pub/x", "y"],
        &["pub", "ws://no-such-host.invalid/ws/x", "y"],
    ] {
        let (code, out, error) = run(&mut umbel(arguments));
        assert_eq!((code, &*out, error.lines().count()), (1, "", 1), "{error}");
        assert_eq!(error.matches("no-such-host.invalid").count(), 1, "{error}");
        // Which of the two depends on the machine's name service.
        let said =
            ["is not known", "could not be looked up"].map(|said| error.matches(said).count());
        assert_eq!(said.iter().sum::<usize>(), 1, "{error}");
    }
}

#[test]
fn wrong_urls_get_remedies() {
    for (arguments, tip) in [
        (&["sub", "http://a/ws/x"][..], "ws://a/ws/x"),
        (&["sub", "ws://a/sse/x"], "http://a/sse/x"),
        (&["sub", "http://a/pub/x"], "ws://a/ws/x or http://a/sse/x"),
        (&["sub", "http://a/"], "--server a TOPIC"),
        (&["sub", "ws://a/ws"], "--server a TOPIC"),
        (&["sub", "ws://a/ws/x", "y"], "--server a TOPIC"),
        (
            &["pub", "http://a/ws/x", "y"],
            "http://a/pub/x or ws://a/ws/x",
        ),
        (
            &["pub", "ws://a/pub/x", "y"],
            "http://a/pub/x or ws://a/ws/x",
        ),
        (&["pub", "http://a/sse/x", "y"], "http://a/pub/x"),
        (&["pub", "http://a", "y"], "--server a TOPIC"),
        (&["pub", "ws://a/ws", "y"], "--server a TOPIC"),
        (
            &["pub", "--key", "k", "ws://a/ws/x", "y"],
            "use http://a/pub/x",
        ),
        (
            &["pub", "--receipt", "ws://a/ws/x", "y"],
            "use http://a/pub/x",
        ),
        (&["pub", "--whole", "x", "y"], "write -"),
        (&["pub", "--key", "a\nb", "x", "y"], "control characters"),
        (&["pub", "--event", "a\nb", "x", "y"], "control characters"),
        (&["pub", "--tag", "a", "x", "y"], "NAME=TEXT"),
        (&["pub", "--tag", "A=b", "x", "y"], "NAME=TEXT"),
        (
            &["pub", "--tag", "a=b", "ws://a/ws/x", "y"],
            "--tag is for requests",
        ),
    ] {
        let (code, out, error) = run(&mut umbel(arguments));
        assert_eq!((code, &*out), (1, ""), "{arguments:?}: {error}");
        assert!(error.contains(tip), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn server_as_url() {
    let server = Server::start(&[]);
    let address = server.address();
    for scheme in ["http", "ws"] {
        let shown = format!("{scheme}://{address}/");
        let sub = Running::subscribe(&["--server", &shown, "-n1", "news"]);
        let (code, _, error) = run(umbel(&["pub", "news", "x"]).env("UMBEL_SERVER", &shown));
        assert_eq!(code, 0, "{error}");
        assert_eq!(sub.end().1, ["x"]);
    }
}

#[test]
fn pub_key_receipt_whole() {
    let server = Server::start(&[]);
    let address = server.address().to_string();
    let sub = Running::subscribe(&["--server", &address, "--json", "-n4", "prices"]);
    let publish = |arguments: &[&str], input: &[u8]| {
        let arguments = [&["pub", "--server", &address, "prices"][..], arguments].concat();
        run_with_input(&mut umbel(&arguments), input)
    };
    let (code, out, error) = publish(&["--key", "EUR \u{e9}", "1.1"], b"");
    assert_eq!((code, &*out, &*error), (0, "", ""));
    let (code, out, error) = publish(&["--receipt", "1.2"], b"");
    let answer: Value = serde_json::from_str(&out).expect("an answer is JSON");
    assert_eq!(
        (code, &answer["receipt"]["matched"]),
        (0, &json!(1)),
        "{error}"
    );
    let (code, out, error) = publish(&["--whole", "-"], b"two\nlines\n");
    assert_eq!((code, &*out, &*error), (0, "", ""));
    let url = format!("ws://{address}/ws/prices");
    let (code, _, error) =
        run_with_input(&mut umbel(&["pub", "--whole", &url, "-"]), b"\xff\n\xfe");
    assert_eq!(code, 0, "{error}");
    let (_, lines, _) = sub.end();
    let lines = json_lines(&lines);
    let shown: Vec<_> = lines
        .iter()
        .map(|line| (&line["data"], &line["key"]))
        .collect();
    let none = &Value::Null;
    assert_eq!(
        shown,
        [
            (&json!("1.1"), &json!("EUR \u{e9}")),
            (&json!("1.2"), none),
            (&json!("two\nlines\n"), none),
            (&json!("/wr+"), none),
        ]
    );
}

#[test]
fn pub_fields_in_sub_json() {
    let server = Server::start(&[]);
    let address = server.address().to_string();
    let stream = format!("http://{address}/sse/prices");
    let many = Running::subscribe(&["--server", &address, "--json", "-n2", "prices"]);
    let events = Running::subscribe(&["--json", "-n2", &stream]);
    for (content_type, input) in [("application/geo+json", &b"[1]"[..]), ("image/x", b"\xff")] {
        let arguments = [
            "pub",
            "--server",
            &address,
            "prices",
            "--whole",
            "--event",
            "moved",
            "--id",
            "m 1",
            "--content-type",
            content_type,
            "--tag",
            "region=eu=1",
            "--tag",
            "b_2=",
            "-",
        ];
        let (code, out, error) = run_with_input(&mut umbel(&arguments), input);
        assert_eq!((code, &*out), (0, ""), "{error}");
    }
    let (_, lines, error) = many.end();
    let lines = json_lines(&lines);
    for (line, (content_type, data)) in lines
        .iter()
        .zip([("application/geo+json", "[1]"), ("image/x", "/w==")])
    {
        let fields = ["event", "message_id", "content_type", "tags", "data"].map(|it| &line[it]);
        let expected = [
            &json!("moved"),
            &json!("m 1"),
            &json!(content_type),
            &json!({"region": "eu=1", "b_2": ""}),
            &json!(data),
        ];
        assert_eq!(fields, expected, "{error}");
    }
    let (_, lines, error) = events.end();
    for (line, (kind, data)) in json_lines(&lines)
        .iter()
        .zip([("text", "[1]"), ("binary", "/w==")])
    {
        let fields = ["event", "kind", "data"].map(|it| line[it].as_str());
        assert_eq!(fields, [Some("moved"), Some(kind), Some(data)], "{error}");
    }
}
