//! Fields of messages: every way in by every way out, field by field.

#[path = "message_fields/carried.rs"]
mod carried;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use serde_json::{Value, json};

use carried::{Carried, table};
use support::peers::{Http, Incoming, WebSocket, connect};
use support::umbel_v1::{BINARY, JSON, Peer};
use umbel::{Config, Error, Handle, Listener, Message, PublishOptions, Server};

/// A server on a thread of this process.
struct Embedded {
    handle: Handle,
    address: SocketAddr,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Embedded {
    fn start() -> Embedded {
        let mut config = Config::default();
        config.listeners = vec![Listener::new(SocketAddr::from(([127, 0, 0, 1], 0)))];
        config.reactors = 2;
        for rule in [
            "orders/** history=1",
            "timed/kept history=10 time=on",
            "timed/** time=on",
        ] {
            config.topic_rules.push(rule.parse().expect("a rule"));
        }
        let server = Server::builder()
            .config(config)
            .bind()
            .expect("a free port");
        let (handle, address) = (server.handle(), server.local_addr());
        let thread = Some(thread::spawn(move || server.run()));
        Embedded {
            handle,
            address,
            thread,
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.handle.shutdown_now();
        if let Some(Ok(outcome)) = self.thread.take().map(JoinHandle::join) {
            outcome.expect("nothing failed");
        }
    }
}

/// The ways into a topic.
struct WaysIn {
    http: Http,
    json: Peer,
    binary: Peer,
    raw: WebSocket,
    handle: Handle,
}

const WAYS: [&str; 6] = [
    "request",
    "line",
    "umbel.v1",
    "umbel.v1.bin",
    "handle",
    "raw",
];

impl WaysIn {
    fn open(server: &Embedded, topic: &str) -> WaysIn {
        WaysIn {
            http: Http::connect(server.address),
            json: Peer::open(server.address),
            binary: Peer::open_at(server.address, "/ws", BINARY),
            raw: WebSocket::open(server.address, &format!("/ws/{topic}")),
            handle: server.handle.clone(),
        }
    }

    /// Publishes. What a way cannot say is left out, and what is left is given back.
    fn publish(&mut self, way: &str, topic: &str, carried: Carried) -> Carried {
        match way {
            "request" => {
                self.publish_by_request(topic, carried);
                self.raw.next();
                return Carried {
                    names_json: false,
                    ..carried
                };
            }
            "line" => {
                let line = carried.json(topic).to_string();
                let answer = self.http.publish_lines(&line);
                assert!(
                    answer.body.starts_with(b"{\"epoch\""),
                    "{}",
                    answer.body.escape_ascii()
                );
            }
            "umbel.v1" => {
                let mut command = carried.json(topic);
                (command["type"], command["id"]) = ("publish".into(), 7.into());
                assert_eq!(self.json.ask(&command)["type"], "published");
            }
            "umbel.v1.bin" => {
                self.binary.send_binary(&compact_publish(topic, carried));
                let answer = self.binary.next();
                assert_eq!(answer["type"], "published", "{answer}");
            }
            "handle" => {
                let options = options(carried);
                let outcome = self.handle.publish_with(topic, carried.message(), options);
                outcome.expect("published");
            }
            "raw" => {
                let opcode = if carried.text.is_some() { 0x81 } else { 0x82 };
                self.raw.send(opcode, carried.payload());
                // Its own publication comes back.
                self.raw.next();
                return Carried {
                    text: carried.text,
                    binary: carried.binary,
                    ..Carried::default()
                };
            }
            other => panic!("no way {other}"),
        }
        if way != "raw" {
            self.raw.next();
        }
        carried
    }

    fn publish_by_request(&mut self, topic: &str, carried: Carried) {
        let default = if carried.text.is_some() {
            "text/plain"
        } else {
            "application/octet-stream"
        };
        let mut head = format!("POST /pub/{topic} HTTP/1.1\r\nHost: localhost\r\n");
        head += &format!(
            "Content-Type: {}\r\n",
            carried.content_type.unwrap_or(default)
        );
        let fields = [
            ("Key", carried.key),
            ("Event", carried.event),
            ("Id", carried.id),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                head += &format!("Umbel-{name}: {value}\r\n");
            }
        }
        for (name, value) in carried.tags {
            head += &format!("Umbel-Tag-{}: {value}\r\n", name.to_uppercase());
        }
        if carried.is_tombstone {
            head += "Umbel-Tombstone: true\r\n";
        }
        head += &format!("Content-Length: {}\r\n\r\n", carried.payload().len());
        self.http
            .send(&[head.as_bytes(), carried.payload()].concat());
        let answer = self.http.answer().expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body.escape_ascii());
    }
}

fn options(carried: Carried) -> PublishOptions {
    let mut options = PublishOptions::new();
    if let Some(key) = carried.key {
        options = options.key(key);
    }
    if let Some(event) = carried.event {
        options = options.event(event);
    }
    if let Some(id) = carried.id {
        options = options.id(id);
    }
    if let Some(content_type) = carried.content_type {
        options = options.content_type(content_type);
    }
    for (name, value) in carried.tags {
        options = options.tag(*name, *value);
    }
    if carried.is_tombstone {
        options = options.tombstone();
    }
    options
}

fn compact_publish(topic: &str, carried: Carried) -> Vec<u8> {
    let mut fields = Vec::new();
    let mut add = |what: u8, bytes: &[u8]| {
        fields.push(what);
        fields.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        fields.extend_from_slice(bytes);
    };
    for (what, text) in [
        (1, carried.event),
        (2, carried.id),
        (3, carried.content_type),
    ] {
        if let Some(text) = text {
            add(what, text.as_bytes());
        }
    }
    for (name, value) in carried.tags {
        add(
            5,
            &[&[name.len() as u8][..], name.as_bytes(), value.as_bytes()].concat(),
        );
    }
    if carried.is_tombstone {
        fields.extend([8, 0, 0]);
    }
    let has_fields = !fields.is_empty();
    let flags = 1 | u8::from(carried.key.is_some()) << 1 | u8::from(has_fields) << 4;
    let mut message = vec![
        if carried.text.is_some() { 3 } else { 4 },
        flags,
        0,
        0,
        0,
        9,
    ];
    for name in [Some(topic), carried.key].into_iter().flatten() {
        message.push(name.len() as u8);
        message.extend_from_slice(name.as_bytes());
    }
    if has_fields {
        message.extend_from_slice(&(fields.len() as u16).to_be_bytes());
        message.extend_from_slice(&fields);
    }
    message.extend_from_slice(carried.payload());
    message
}

/// An event stream, read line by line.
struct Lines {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Lines {
    fn open(address: SocketAddr, target: &str) -> Lines {
        let mut stream = connect(address, 0);
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut lines = Lines {
            stream,
            read: Vec::new(),
        };
        let head = lines.block_by("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        lines
    }

    fn block_by(&mut self, end: &str) -> String {
        loop {
            let found = self
                .read
                .windows(end.len())
                .position(|it| it == end.as_bytes());
            if let Some(at) = found {
                let block: Vec<u8> = self.read.drain(..at + end.len()).collect();
                return String::from_utf8(block).expect("UTF-8");
            }
            let mut bytes = [0; 1024];
            let count = self.stream.read(&mut bytes).expect("in time");
            assert!(count > 0, "the stream ended");
            self.read.extend_from_slice(&bytes[..count]);
        }
    }

    /// The lines of the next event behind its id.
    fn event(&mut self) -> String {
        let mut block = self.block_by("\n\n");
        if block.lines().nth(1) == Some("") {
            // An id alone says where the stream begins.
            block = self.block_by("\n\n");
        }
        let (id, rest) = block.split_once('\n').expect("lines");
        assert!(id.starts_with("id: "), "{block}");
        rest.strip_suffix('\n').expect("a last line").to_owned()
    }
}

/// The one publication that a topic keeps, as a page of its history has it, but for what every page says of it.
fn kept(pages: &mut Http, topic: &str) -> Value {
    let answer = pages.get(&format!("/history/{topic}"));
    assert_eq!(answer.status, 200, "{}", answer.body.escape_ascii());
    let page: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let mut publication = page["publications"][0].clone();
    let object = publication.as_object_mut().expect("a publication");
    assert!(
        object.remove("time").is_some_and(|time| time.is_u64()),
        "{page}"
    );
    (publication["type"], publication["topic"]) = ("publication".into(), topic.into());
    without_position(publication)
}

fn without_position(mut publication: Value) -> Value {
    let object = publication.as_object_mut().expect("an object");
    object.remove("position").expect("a position");
    publication
}

#[test]
fn every_way_in_by_every_way_out() {
    let server = Embedded::start();
    let (topic, pattern) = ("orders/eu", "orders/*");
    let mut ways = WaysIn::open(&server, topic);
    let mut json = Peer::open_at(server.address, "/ws", JSON);
    let mut binary = Peer::open_at(server.address, "/ws", BINARY);
    let mut by_pattern = Peer::open(server.address);
    json.subscribe(topic);
    binary.subscribe(topic);
    by_pattern.subscribe_pattern(pattern);
    let mut raw = WebSocket::open(server.address, &format!("/ws/{topic}"));
    let mut events = Lines::open(server.address, &format!("/sse/{topic}"));
    let mut pages = Http::connect(server.address);
    for carried in table() {
        for way in WAYS {
            let sent = ways.publish(way, topic, carried);
            let expected = sent.delivered(topic, false);
            assert_eq!(without_position(json.next()), expected, "{way}");
            let mut of_pattern = expected.clone();
            of_pattern["pattern"] = pattern.into();
            assert_eq!(without_position(by_pattern.next()), of_pattern, "{way}");
            let expected = sent.delivered(topic, true);
            assert_eq!(without_position(binary.next()), expected, "{way}");
            assert_eq!(events.event(), sent.event_lines(), "{way}");
            match (raw.next(), sent.text) {
                (Incoming::Text(text), Some(sent)) => assert_eq!(text, sent, "{way}"),
                (Incoming::Binary(bytes), None) => assert_eq!(bytes, sent.payload(), "{way}"),
                (other, _) => panic!("{way}: {other:?}"),
            }
            assert_eq!(
                kept(&mut pages, topic),
                sent.delivered(topic, false),
                "{way}"
            );
        }
    }
}

/// Times come where the topic's rule says so, to each form of umbel.v1, whoever else keeps the topic.
#[test]
fn time_by_the_rule_of_the_topic() {
    let before = now_ms();
    let server = Embedded::start();
    let mut json = Peer::open(server.address);
    let mut binary = Peer::open_at(server.address, "/ws", BINARY);
    let mut http = Http::connect(server.address);
    for (topic, is_timed) in [("timed/a", true), ("timed/kept", true), ("other", false)] {
        json.subscribe(topic);
        binary.subscribe_pattern(&format!("{topic}/*"));
        http.publish(topic, b"x");
        let shown = json.next()["time"].as_u64();
        assert_eq!(shown.is_some(), is_timed, "{topic}");
        if let Some(time) = shown {
            assert!((before..=now_ms()).contains(&time), "{time}");
        }
        // Nobody keeps this one, but for the pattern.
        http.publish(&format!("{topic}/deep"), b"x");
        assert_eq!(binary.next()["time"].is_u64(), is_timed, "{topic}");
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    since.as_millis() as u64
}

/// The server remembers that `data` was a JSON value; it never looks whether a string is one.
#[test]
fn json_values_have_the_content_type_of_json() {
    let server = Embedded::start();
    let mut json = Peer::open(server.address);
    json.subscribe("a");
    let mut http = Http::connect(server.address);
    for (data, content_type, expected) in [
        (r#"{"a": 1}"#, None, json!("application/json")),
        ("[1]", None, json!("application/json")),
        ("3.10", None, json!("application/json")),
        ("null", None, json!("application/json")),
        (r#""[1]""#, None, Value::Null),
        (
            "[1]",
            Some("application/geo+json"),
            json!("application/geo+json"),
        ),
        ("[1]", Some("text/plain"), Value::Null),
        (
            r#""[1]""#,
            Some("application/json"),
            json!("application/json"),
        ),
    ] {
        let content_type = content_type.map(|it| format!(r#","content_type":"{it}""#));
        let fields = format!(
            r#""topic":"a","data":{data}{}"#,
            content_type.unwrap_or_default()
        );
        assert_eq!(http.publish_lines(&format!("{{{fields}}}")).status, 200);
        let text = data
            .strip_prefix('"')
            .and_then(|it| it.strip_suffix('"'))
            .unwrap_or(data);
        let by_line = json.next();
        assert_eq!(by_line["data"], text);
        assert_eq!(by_line["content_type"], expected, "{fields}");
        json.socket
            .send_text(&format!(r#"{{"type":"publish",{fields}}}"#));
        assert_eq!(json.next()["content_type"], expected, "{fields}");
    }
}

#[test]
fn plain_content_types_are_not_kept() {
    let server = Embedded::start();
    let mut json = Peer::open(server.address);
    json.subscribe("a");
    let mut http = Http::connect(server.address);
    for content_type in [
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ] {
        http.send(
            format!(
                "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: 1\r\n\r\nx"
            )
            .as_bytes(),
        );
        assert_eq!(http.answer().expect("an answer").status, 200);
        let publication = json.next();
        assert_eq!(publication.get("content_type"), None, "{content_type}");
    }
}

#[test]
fn wrong_fields_are_refused_in_words_by_every_way_in() {
    let server = Embedded::start();
    let mut http = Http::connect(server.address);
    let mut json = Peer::open(server.address);
    let long = "x".repeat(201);
    let many: Value = (0..17).map(|at| (format!("t{at}"), json!("x"))).collect();
    for (field, value, words) in [
        ("event", json!("binary"), "server's own"),
        ("event", json!("gap"), "server's own"),
        ("event", json!("umbel-x"), "server's own"),
        ("event", json!(""), "1 to 200 bytes"),
        ("event", json!(long), "1 to 200 bytes"),
        ("event", json!("a\nb"), "control character"),
        ("event", json!(1), "not a string"),
        ("message_id", json!(long), "1 to 128 bytes"),
        ("content_type", json!("json"), "application/json"),
        ("content_type", json!("a/\u{e9}"), "application/json"),
        ("tags", json!({"A": "x"}), "a-z"),
        ("tags", json!({"a": "x".repeat(1024)}), "1024 bytes"),
        ("tags", json!({"a": 1}), "not a string"),
        ("tags", json!(["a"]), "object of strings"),
        ("tags", many, "at most 16 tags"),
    ] {
        let mut line = json!({"topic": "a", "data": "x"});
        line[field] = value.clone();
        let answer = http.publish_lines(&line.to_string());
        let body = String::from_utf8(answer.body).expect("UTF-8");
        assert!(
            body.contains("400") && body.contains(words),
            "{line}: {body}"
        );
        (line["type"], line["id"]) = ("publish".into(), 3.into());
        let answer = json.ask(&line);
        assert_eq!(answer["code"], "invalid_command", "{answer}");
        assert!(
            answer["reason"].as_str().expect("words").contains(words),
            "{answer}"
        );
    }
    for (headers, status) in [
        ("Umbel-Event: binary\r\n", 400),
        ("Umbel-Event: a\r\nUmbel-Event: a\r\n", 400),
        ("Umbel-Id: a\r\nUmbel-Id: a\r\n", 400),
        ("Umbel-Tag-A: 1\r\nUmbel-Tag-a: 2\r\n", 400),
        ("Umbel-Tag-: 1\r\n", 400),
        ("Umbel-Tag-A.B: 1\r\n", 400),
        ("Umbel-Other: as before\r\n", 200),
    ] {
        let request = format!(
            "POST /pub/a HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 1\r\n\r\nx"
        );
        // A refused request ends its connection.
        let mut http = Http::connect(server.address);
        http.send(request.as_bytes());
        let answer = http.answer().expect("an answer");
        assert_eq!(answer.status, status, "{headers}");
    }
}

/// What the server says of a stream or of a message on it, nobody else says in its name.
#[test]
fn no_publisher_has_the_name_of_an_own_event() {
    let server = Embedded::start();
    let mut json = Peer::open(server.address);
    for event in ["binary", "expired", "gap", "unavailable", "umbel-new"] {
        let options = PublishOptions::new().event(event);
        let refused = server.handle.publish_with("a", Message::Text("x"), options);
        let reason = refused.expect_err(event).to_string();
        assert!(reason.contains("server's own"), "{reason}");
        let command =
            json!({"type": "publish", "id": 3, "topic": "a", "data": "x", "event": event});
        let answer = json.ask(&command);
        assert_eq!(answer["code"], "invalid_command", "{answer}");
        let mut http = Http::connect(server.address);
        let request = format!(
            "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nUmbel-Event: {event}\r\nContent-Length: 1\r\n\r\nx"
        );
        http.send(request.as_bytes());
        assert_eq!(http.answer().expect("an answer").status, 400, "{event}");
    }
}

/// What a client of the versions before these fields sends and gets, byte for byte.
#[test]
fn messages_without_fields_are_byte_for_byte_as_before() {
    let server = Embedded::start();
    let mut subscriber = Peer::open(server.address);
    let position = subscriber.subscribe("a");
    let epoch = position.split_once(':').expect("a position").0;
    let mut compact = Peer::open_at(server.address, "/ws", BINARY);
    compact.subscribe("a");
    let mut http = Http::connect(server.address);
    http.publish("a", b"plain");
    let line = r#"{"topic":"a","data":"second","key":"k"}"#;
    assert_eq!(http.publish_lines(line).status, 200);
    subscriber.send(&json!({"type": "publish", "topic": "a", "base64": "AAE="}));
    let expected = [
        format!(r#"{{"type":"publication","topic":"a","position":"{epoch}:1","data":"plain"}}"#),
        format!(
            r#"{{"type":"publication","topic":"a","position":"{epoch}:2","key":"k","data":"second"}}"#
        ),
        format!(r#"{{"type":"publication","topic":"a","position":"{epoch}:3","base64":"AAE="}}"#),
    ];
    for expected in expected {
        assert_eq!(subscriber.socket.text(), expected);
    }
    let epoch = u64::from_str_radix(epoch, 16)
        .expect("an epoch")
        .to_be_bytes();
    let head = |kind: u8, flags: u8, offset: u8| {
        let mut head = vec![kind, flags];
        head.extend_from_slice(&epoch);
        head.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, offset, 1, b'a']);
        head
    };
    for expected in [
        [head(1, 0, 1), b"plain".to_vec()].concat(),
        [head(1, 2, 2), b"\x01ksecond".to_vec()].concat(),
        [head(2, 0, 3), vec![0, 1]].concat(),
    ] {
        let Incoming::Binary(message) = compact.socket.next() else {
            panic!("no binary message");
        };
        assert_eq!(message, expected);
    }
}
