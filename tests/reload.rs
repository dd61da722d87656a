//! Reload by SIGHUP, as clients meet it.

#[path = "config_file/file.rs"]
mod file;
mod support;

use std::io::Read;

use file::Folder;
use serde_json::json;
use support::peers::{Block, EventStream, Http, Incoming, WebSocket, connect};
use support::umbel_v1::Peer;
use support::{Server, wait_until};

/// A server whose settings are in a file.
struct Reloadable {
    server: Server,
    folder: Folder,
}

impl Reloadable {
    fn start(text: &str) -> Reloadable {
        let folder = Folder::with("umbel.toml", text);
        let path = folder.path("umbel.toml");
        let server = Server::start(&["--config", &path, "--log-level", "debug"]);
        Reloadable { server, folder }
    }

    /// Writes the file, and waits for what the log says of the reload.
    fn reload(&self, text: &str) -> String {
        self.folder.write("umbel.toml", text);
        self.reload_as_it_is()
    }

    fn reload_as_it_is(&self) -> String {
        let told = || -> Vec<String> {
            let log = self.server.log();
            let is_told = |line: &&str| {
                let words = ["reloaded ", "reload failed"];
                words.iter().any(|words| line.contains(words))
            };
            log.lines().filter(is_told).map(str::to_owned).collect()
        };
        let before = told().len();
        self.server.signal("HUP");
        wait_until("the reload is logged", || told().len() > before);
        told().remove(before)
    }
}

const OPEN: &str = "publish = \"anyone\"\nobserve = \"anyone\"\norigins = [\"any\"]\n";

fn with_token(token: &str) -> String {
    format!("{OPEN}identity.query_token = \"allow\"\nsubscribe_token = \"{token}\"\n")
}

fn assert_forbidden(incoming: &Incoming) {
    let is_forbidden =
        matches!(incoming, Incoming::Close(4403, reason) if reason.starts_with("forbidden"));
    assert!(is_forbidden, "{incoming:?}");
}

#[test]
fn removed_token_ends_what_it_allowed() {
    let server = Reloadable::start(&with_token("0123456789abcdef"));
    let address = server.server.address();
    let mut raw = WebSocket::open(address, "/ws/a?token=0123456789abcdef");
    let mut echo = WebSocket::open(address, "/echo?token=0123456789abcdef");
    let mut stream = EventStream::open(address, "/sse/a?token=0123456789abcdef");
    let mut many = Peer::open_at(address, "/ws?token=0123456789abcdef", "umbel.v1").welcomed();
    many.subscribe("a");
    many.subscribe_pattern("b/*");
    let said = server.reload(&with_token("fedcba9876543210"));
    assert!(
        said.contains("reloaded ") && !said.contains("restart"),
        "{said}"
    );
    assert_forbidden(&raw.next());
    assert_forbidden(&echo.next());
    assert_eq!(stream.next(), Block::End);
    let mut ended = [many.next(), many.next()].map(|message| message.to_string());
    ended.sort();
    assert_eq!(
        ended,
        [
            r#"{"code":"forbidden","pattern":"b/*","type":"unsubscribed"}"#,
            r#"{"code":"forbidden","topic":"a","type":"unsubscribed"}"#,
        ]
    );
    // It may publish still, and so it stays.
    many.publish("a", "x");
    assert_eq!(
        many.error(&json!({"type": "subscribe", "id": 9, "topic": "a"})),
        "unauthorized"
    );
    let status = |token: &str| {
        let target = format!("/ws/a?token={token}");
        WebSocket::try_open_on(connect(address, 0), &target).0
    };
    assert_eq!(status("0123456789abcdef"), 401);
    let mut new = WebSocket::open(address, "/ws/a?token=fedcba9876543210");
    server.server.publish("a", "text/plain", b"hello");
    assert_eq!(new.text(), "hello");
    // Nothing at all is allowed any more.
    let said = server.reload("publish = \"nobody\"\nsubscribe = \"nobody\"\norigins = [\"any\"]\n");
    assert!(said.contains("reloaded "), "{said}");
    assert_forbidden(&new.next());
    assert_eq!(many.close_code(), 4403);
}

/// Whoever may publish to its topic from now on is not closed for it, and whoever may no longer is.
#[test]
fn right_to_publish_changes_on_open_connections() {
    let text = |publish: &str| {
        format!("publish = \"{publish}\"\nsubscribe = \"anyone\"\norigins = [\"any\"]\n")
    };
    let server = Reloadable::start(&text("nobody"));
    let mut raw = WebSocket::open(server.server.address(), "/ws/a");
    server.reload(&text("anyone"));
    raw.send_text("mine");
    assert_eq!(raw.text(), "mine");
    server.reload(&text("nobody"));
    raw.send_text("not mine");
    let close = raw.next();
    assert!(matches!(close, Incoming::Close(1008, _)), "{close:?}");
}

#[test]
fn origins_change() {
    let text = |origin: &str| {
        format!("publish = \"anyone\"\nsubscribe = \"anyone\"\norigins = [\"{origin}\"]\n")
    };
    let server = Reloadable::start(&text("https://a.example"));
    let status = |server: &Reloadable, origin: &str| {
        let request = format!(
            "POST /pub/a HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nContent-Length: 1\r\n\r\nx"
        );
        server.server.request(&request).status
    };
    assert_eq!(
        (
            status(&server, "https://a.example"),
            status(&server, "https://b.example")
        ),
        (200, 403)
    );
    server.reload(&text("https://b.example"));
    assert_eq!(
        (
            status(&server, "https://a.example"),
            status(&server, "https://b.example")
        ),
        (403, 200)
    );
}

#[test]
fn bad_file_changes_nothing() {
    let server = Reloadable::start(OPEN_ALL);
    let said = server.reload("subscribe = \"nobdy\"\n[limits]\nbaklog = 1\n");
    assert!(
        said.contains("reload failed, and all settings are as they were"),
        "{said}"
    );
    wait_until("each error is logged", || {
        server.server.log().contains("did you mean \"backlog\"?")
    });
    assert!(
        server
            .server
            .log()
            .contains("umbel.toml:1:13: subscribe: it must be"),
        "{}",
        server.server.log()
    );
    let mut raw = WebSocket::open(server.server.address(), "/ws/a");
    server.server.publish("a", "text/plain", b"still");
    assert_eq!(raw.text(), "still");
    let said = server.reload(OPEN_ALL);
    assert!(said.contains("reloaded "), "{said}");
    server.reload(OPEN_ALL);
    let metrics = server.server.metrics();
    assert_eq!(
        metrics["umbel_config_reloads_total{result=\"failed\"}"],
        1.0
    );
    assert_eq!(
        metrics["umbel_config_reloads_total{result=\"succeeded\"}"],
        2.0
    );
    assert_eq!(metrics["umbel_config_last_reload_successful"], 1.0);
    assert!(metrics["umbel_config_last_reload_success_timestamp_seconds"] > 1e9);
}

const OPEN_ALL: &str =
    "publish = \"anyone\"\nsubscribe = \"anyone\"\nobserve = \"anyone\"\norigins = [\"any\"]\n";

#[test]
fn caps_change() {
    let limits = |connections, topics| {
        format!("{OPEN_ALL}[limits]\nconnections_max = {connections}\ntopics_max = {topics}\n")
    };
    let server = Reloadable::start(&limits(2, 1));
    let address = server.server.address();
    let mut first = Peer::open(address);
    first.subscribe("a");
    let second_topic = json!({"type": "subscribe", "id": 1, "topic": "b"});
    assert_eq!(first.error(&second_topic), "too_many_topics");
    let mut second = WebSocket::open(address, "/ws/a");
    let status = || WebSocket::try_open_on(connect(address, 0), "/ws/a").0;
    assert_eq!(status(), 503, "a third connection");
    let said = server.reload(&limits(10, 5));
    assert!(!said.contains("restart"), "{said}");
    first.subscribe("b");
    assert_eq!(status(), 101);
    // Lower than what is there: what is there stays.
    server.reload(&limits(1, 1));
    wait_until("nobody else is let in", || status() == 503);
    second.send(9, b"there");
    assert_eq!(second.next(), Incoming::Pong(b"there".to_vec()));
    first.expect_nothing_before_pong();
}

#[test]
fn compression_changes_for_new_connections() {
    let with = |what: &str| format!("reactors = 1\n{OPEN_ALL}deflate = \"{what}\"\n");
    let server = Reloadable::start(&with("off"));
    let address = server.server.address();
    let offer = |topic: &str| {
        let lines = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        WebSocket::offer_on(connect(address, 0), topic, lines)
    };
    assert!(!offer("/ws/t").0.contains("permessage-deflate"));
    server.reload(&with("all"));
    let (head, mut socket) = offer("/ws/t");
    assert!(head.contains("permessage-deflate"), "{head}");
    let message = "again and ".repeat(100);
    let mut http = Http::connect(address);
    http.publish("t", message.as_bytes());
    let mut head = [0; 2];
    socket.stream().read_exact(&mut head).expect("a frame");
    assert_eq!(head[0], 0xc1, "text, compressed");
    assert!(head[1] < 100, "{}", head[1]);
    let mut payload = vec![0; usize::from(head[1])];
    socket
        .stream()
        .read_exact(&mut payload)
        .expect("its payload");
    // A connection that has agreed gets plain messages again.
    server.reload(&with("off"));
    http.publish("t", message.as_bytes());
    assert_eq!(socket.text(), message);
}

#[test]
fn restart_is_named() {
    let text =
        format!("{OPEN_ALL}io_uring = false\n[log]\nformat = \"json\"\n[limits]\nbacklog = 7\n");
    let server = Reloadable::start(OPEN_ALL);
    let said = server.reload(&text);
    assert!(
        said.contains("until a restart these stay as they were: io_uring, backlog, log_format"),
        "{said}"
    );
}

#[test]
fn without_a_file_there_is_nothing_to_reload() {
    let server = Server::start(&[]);
    server.signal("HUP");
    wait_until("it is logged", || {
        server.log().contains("nothing to reload")
    });
    assert_eq!(Http::connect(server.address()).get("/health").status, 200);
}

#[test]
fn limits_change_for_open_connections() {
    let text = |bytes: usize| {
        format!(
            "{OPEN_ALL}[limits]\npublication_bytes_max = {bytes}\nmessage_bytes_max = {bytes}\n"
        )
    };
    let server = Reloadable::start(&text(100));
    let mut raw = WebSocket::open(server.server.address(), "/ws/a");
    let mut echo = WebSocket::open(server.server.address(), "/echo");
    let status = |server: &Reloadable| server.server.publish("a", "text/plain", &[b'x'; 50]).status;
    assert_eq!(status(&server), 200);
    assert_eq!(raw.text().len(), 50);
    echo.send_text(&"x".repeat(50));
    assert_eq!(echo.text().len(), 50);
    server.reload(&text(10));
    assert_eq!(status(&server), 413);
    echo.send_text(&"x".repeat(50));
    let close = echo.next();
    assert!(matches!(close, Incoming::Close(1009, _)), "{close:?}");
}

fn rules(rules: &str) -> String {
    format!("{OPEN_ALL}{rules}")
}

#[test]
fn history_shrinks_and_grows() {
    let with = |count: usize| {
        rules(&format!(
            "[[topic]]\npattern = \"a/*\"\nhistory = {count}\n"
        ))
    };
    let server = Reloadable::start(&with(100));
    for number in 0..50 {
        server
            .server
            .publish("a/b", "text/plain", number.to_string().as_bytes());
    }
    let history = |server: &Reloadable| -> usize {
        server.server.metric("umbel_history_publications") as usize
    };
    wait_until("all are kept", || history(&server) == 50);
    server.reload(&with(5));
    wait_until("the history has shrunk", || history(&server) == 5);
    let mut late = WebSocket::open(server.server.address(), "/ws/a/b?last=100");
    let texts: Vec<_> = (0..5).map(|_| late.text()).collect();
    assert_eq!(texts, ["45", "46", "47", "48", "49"]);
    server.reload(OPEN_ALL);
    wait_until("there is no history", || history(&server) == 0);
    server.reload(&with(7));
    // The topic's shard comes to its new rule a little later than the log says so.
    wait_until("there is one again", || {
        server.server.publish("a/b", "text/plain", b"x");
        history(&server) == 7
    });
}

#[test]
fn presence_ends_and_members_are_told() {
    let with = rules("[[topic]]\npattern = \"room\"\npresence = true\n");
    let server = Reloadable::start(&with);
    let address = server.server.address();
    let mut first = Peer::open(address);
    first.subscribe("room");
    let mut second = Peer::open(address);
    second.subscribe("room");
    assert_eq!(first.next()["type"], "join");
    server.reload(OPEN_ALL);
    let told = [first.next(), first.next()];
    assert!(
        told.iter()
            .all(|message| message["type"] == "leave" && message["topic"] == "room"),
        "{told:?}"
    );
    let told = [second.next(), second.next()];
    assert!(
        told.iter().all(|message| message["type"] == "leave"),
        "{told:?}"
    );
    let nobody = first.error(&json!({"type": "presence", "id": 5, "topic": "room"}));
    assert!(!nobody.is_empty());
    // A third that comes is not told of.
    let mut third = Peer::open(address);
    third.subscribe("room");
    first.expect_nothing_before_pong();
    server.reload(&with);
    let mut fourth = Peer::open(address);
    wait_until("presence begins for those who come", || {
        fourth.subscribe("room");
        let asked = fourth.ask(&json!({"type": "presence", "id": 8, "topic": "room"}));
        fourth.ask(&json!({"type": "unsubscribe", "id": 9, "topic": "room"}));
        asked["total"] == 1
    });
}

/// Open connections outnumber what one tick judges; all of them are judged.
#[test]
fn many_subscriptions_are_judged() {
    let server = Reloadable::start(&with_token("0123456789abcdef"));
    let address = server.server.address();
    let mut peers: Vec<_> = (0..3)
        .map(|_| Peer::open_at(address, "/ws?token=0123456789abcdef", "umbel.v1").welcomed())
        .collect();
    for peer in &mut peers {
        for number in 0..900 {
            peer.subscribe(&number.to_string());
        }
    }
    server.reload(&with_token("fedcba9876543210"));
    for peer in &mut peers {
        for _ in 0..900 {
            assert_eq!(peer.next()["code"], "forbidden");
        }
        peer.expect_nothing_before_pong();
    }
}

const OPERATOR: &str = "operator-operator-operator-operator";

/// Settings with a token that may manage everything.
fn managed(rest: &str) -> String {
    format!(
        "{OPEN}subscribe = \"anyone\"\n{rest}[[token]]\nname = \"op\"\nvalue = \"{OPERATOR}\"\nmanage = [\"**\"]\n"
    )
}

/// Runs `umbel` with these arguments: its exit code, and what it printed.
fn umbel(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_umbel"));
    let output = command.args(arguments).output().expect("it can be started");
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&printed).into_owned(),
    )
}

#[test]
fn umbel_reload_tells_the_outcome() {
    let server = Reloadable::start(&managed(""));
    let url = format!("http://{}", server.server.address());
    let reload = || umbel(&["reload", &url, "--token", OPERATOR]);
    server
        .folder
        .write("umbel.toml", &managed("limits.backlog = 99\n"));
    let (code, printed) = reload();
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("settings number 1"), "{printed}");
    assert!(printed.contains("as they were: backlog"), "{printed}");
    server.folder.write(
        "umbel.toml",
        "subscribe = \"nobdy\"\n[limits]\nbaklog = 1\n",
    );
    let (code, printed) = reload();
    assert_eq!(code, Some(1), "{printed}");
    for words in [
        "umbel.toml:1:13: subscribe",
        "did you mean \"backlog\"?",
        "all settings are as they were",
    ] {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    let metrics = server.server.metrics();
    assert_eq!(metrics["umbel_config_generation"], 1.0);
    assert_eq!(metrics["umbel_config_last_reload_successful"], 0.0);
    let (code, printed) = umbel(&["reload", &url, "--token", "another-token-another"]);
    assert_eq!(code, Some(1), "{printed}");
}

#[test]
fn umbel_health_by_exit_code() {
    let server = Server::start(&["--pre-stop-ms", "60000"]);
    let url = format!("http://{}", server.address());
    assert_eq!(umbel(&["health", &url]), (Some(0), String::new()));
    assert_eq!(umbel(&["health", &format!("{url}/ready")]).0, Some(0));
    server.signal("TERM");
    wait_until("it is not ready any more", || {
        umbel(&["health", &format!("{url}/ready")]).0 == Some(1)
    });
    assert_eq!(umbel(&["health", &url]).0, Some(0));
    drop(server);
    assert_eq!(umbel(&["health", &url]).0, Some(1));
}

#[test]
fn umbel_top_of_a_server() {
    let server = Server::start(&["--reactors", "1"]);
    let url = format!("http://{}", server.address());
    let mut raw = WebSocket::open(server.address(), "/ws/prices");
    let top = std::thread::spawn(move || umbel(&["top", &url, "--once", "--json"]));
    wait_until("it publishes meanwhile", || {
        server.publish("prices", "text/plain", b"1");
        raw.text();
        top.is_finished()
    });
    let (code, printed) = top.join().expect("it does not panic");
    assert_eq!(code, Some(0), "{printed}");
    let report: serde_json::Value = serde_json::from_str(&printed).expect("one line of JSON");
    assert_eq!(report["busiest"][0]["topic"], "prices", "{report}");
    assert_eq!(report["busiest"][0]["subscribers"], 1, "{report}");
    assert!(
        report["rates"]["deliveries"].as_f64() > Some(1.0),
        "{report}"
    );
    assert!(report["reactors"][0]["load"].is_number(), "{report}");
    let url = format!("http://{}", server.address());
    drop(server);
    assert_eq!(umbel(&["top", &url, "--once"]).0, Some(1));
}
