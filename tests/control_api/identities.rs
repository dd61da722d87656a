//! The control API by tokens of the configuration, on a server of its own process.

use serde_json::{Value, json};

use crate::client::Api;
use crate::file::Folder;
use crate::support::peers::{Http, Incoming, WebSocket, connect};
use crate::support::umbel_v1::{JSON, Peer};
use crate::support::{Server, wait_until};

const OPERATOR: &str = "operator-token-of-the-test";
const VIEWER: &str = "viewer-token-of-the-test";
const HOST: &str = "host-token-of-the-test";
const OLD: &str = "expired-token-of-the-test";
const ANNA: &str = "annas-token-of-the-test";
const BERT: &str = "berts-token-of-the-test";

fn folder() -> Folder {
    let folder = Folder::with("umbel.toml", "");
    std::fs::create_dir(folder.path("state")).expect("a folder can be made");
    folder.write("deny", "# nobody yet\n");
    let state = folder.path("state");
    let deny = folder.path("deny");
    folder.write(
        "umbel.toml",
        &format!(
            "origins = [\"any\"]\nstate_directory = {state:?}\ndeny_file = {deny:?}\n\
             [[topic]]\npattern = \"rooms/**\"\nhistory = 10\npresence = true\n\
             [[token]]\nname = \"operator\"\nvalue = \"{OPERATOR}\"\nmanage = [\"**\"]\nobserve = true\n\
             [[token]]\nname = \"viewer\"\nvalue = \"{VIEWER}\"\nobserve = true\n\
             [[token]]\nname = \"host\"\nvalue = \"{HOST}\"\nmanage = [\"rooms/**\"]\n\
             [[token]]\nname = \"old\"\nvalue = \"{OLD}\"\nmanage = [\"**\"]\nexpires = 2020-01-01T00:00:00Z\n\
             [[token]]\nname = \"anna\"\nvalue = \"{ANNA}\"\nsubject = \"anna\"\nsubscribe = [\"**\"]\n\
             [[token]]\nname = \"bert\"\nvalue = \"{BERT}\"\nsubject = \"bert\"\nsubscribe = [\"**\"]\n"
        ),
    );
    folder
}

fn start(folder: &Folder) -> Server {
    Server::start(&["--config", &folder.path("umbel.toml")])
}

fn open(server: &Server, token: &str) -> (u16, WebSocket) {
    let stream = connect(server.address(), 0);
    let lines = format!("Authorization: Bearer {token}\r\n");
    let (head, socket) = WebSocket::offer_on(stream, "/ws/rooms/1", &lines);
    (head[9..12].parse().expect("a status"), socket)
}

/// The text of the metrics, for the operator.
fn metrics_of(server: &Server) -> String {
    let mut http = Http::connect(server.address());
    let lines = format!("Host: localhost\r\nAuthorization: Bearer {OPERATOR}");
    http.send(format!("GET /metrics HTTP/1.1\r\n{lines}\r\n\r\n").as_bytes());
    let answer = http.answer().expect("an answer");
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// An operation, and the status for each credential of [`CREDENTIALS`].
type Row = (&'static str, &'static str, Value, [u16; 6]);

/// None, one that nobody knows, one that has expired, and with the rights to observe, to manage rooms, and to manage all.
const CREDENTIALS: [&str; 6] = ["", "guess-token-of-the-test", OLD, VIEWER, HOST, OPERATOR];

const BY_ALL: [u16; 6] = [401, 401, 401, 403, 403, 200];
const BY_HOST: [u16; 6] = [401, 401, 401, 403, 200, 200];
const BY_VIEWER: [u16; 6] = [401, 401, 401, 200, 403, 200];
const BY_BOTH: [u16; 6] = [401, 401, 401, 200, 200, 200];
const OF_NOTHING: [u16; 6] = [401, 401, 401, 403, 403, 404];

fn reads() -> Vec<Row> {
    let nobodys = [200, 401, 401, 200, 200, 200];
    vec![
        ("GET", "/connections", Value::Null, BY_ALL),
        ("GET", "/connections/0-9-9", Value::Null, OF_NOTHING),
        ("GET", "/topics", Value::Null, BY_VIEWER),
        ("GET", "/presence?topic=rooms%2F1", Value::Null, BY_BOTH),
        ("GET", "/history?topic=rooms%2F1", Value::Null, BY_BOTH),
        ("GET", "/deny", Value::Null, BY_ALL),
        ("GET", "/stats", Value::Null, BY_VIEWER),
        ("GET", "/may?subject=a&action=observe", Value::Null, BY_ALL),
        ("GET", "/config", Value::Null, BY_ALL),
        ("GET", "/openapi.json", Value::Null, nobodys),
    ]
}

fn changes() -> Vec<Row> {
    let who = "nobody";
    let of_room = json!({"subject": who, "topic": "rooms/1"});
    let other = json!({"subject": who, "topic": "other"});
    let message = json!({"subject": who, "data": 1});
    let publish = json!({"topic": "rooms/1", "data": 1});
    let may = json!({"token": ANNA, "action": "publish", "topic": "a"});
    let refresh = json!({"subject": who, "expires_in_ms": 1000});
    let emptied = [401, 401, 401, 403, 404, 404];
    vec![
        ("POST", "/disconnect", json!({"subject": who}), BY_ALL),
        ("POST", "/unsubscribe", of_room.clone(), BY_HOST),
        ("POST", "/unsubscribe", other, BY_ALL),
        ("POST", "/subscribe", of_room, BY_HOST),
        ("POST", "/send", message, BY_ALL),
        ("DELETE", "/history?topic=rooms%2F9", Value::Null, emptied),
        ("POST", "/publish", publish, BY_HOST),
        ("POST", "/may", may, BY_ALL),
        ("POST", "/refresh", refresh, BY_ALL),
        ("POST", "/drain", json!({"on": false}), BY_ALL),
        ("POST", "/reload", json!({}), BY_ALL),
        ("POST", "/deny", json!({"jti": "a"}), BY_ALL),
        ("DELETE", "/deny/9999", Value::Null, OF_NOTHING),
    ]
}

#[test]
fn every_route_by_every_credential() {
    let folder = folder();
    let server = start(&folder);
    for (method, target, body, statuses) in reads().into_iter().chain(changes()) {
        let body = (!body.is_null()).then_some(&body);
        for (token, status) in CREDENTIALS.into_iter().zip(statuses) {
            let mut answer = Api::of(server.address(), token).ask(method, target, body);
            for _ in 0..5 {
                // A page that the machine was too slow for is no matter of rights.
                if answer.0.status != 503 {
                    break;
                }
                answer = Api::of(server.address(), token).ask(method, target, body);
            }
            let (answer, value) = answer;
            assert_eq!(
                answer.status, status,
                "{method} {target} {token:?}: {value}"
            );
            assert_eq!(value["error"].is_object(), status >= 400, "{value}");
        }
    }
}

#[test]
fn subject_is_thrown_out_and_stays_out() {
    let folder = folder();
    let server = start(&folder);
    let mut api = Api::of(server.address(), OPERATOR);
    let mut annas = [open(&server, ANNA).1, open(&server, ANNA).1];
    let (status, mut bert) = open(&server, BERT);
    assert_eq!(status, 101);
    let rows = api.connections("&subject=anna");
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["subject"], "anna");
    let body = json!({"subject": "anna", "reason": "spam", "deny_ms": 3_600_000});
    assert_eq!(api.post("/disconnect", &body), json!({"closed": 2}));
    for anna in &mut annas {
        assert_eq!(anna.next(), Incoming::Close(4403, "spam".to_owned()));
    }
    assert_eq!(open(&server, ANNA).0, 401);
    let mut peer = Peer::open_on(connect(server.address(), 0), "/ws", JSON);
    assert_eq!(
        peer.error(&json!({"type": "auth", "id": 1, "token": ANNA})),
        "unauthorized"
    );
    let metrics = metrics_of(&server);
    let line = "umbel_auth_total{source=\"token\",result=\"revoked\"} 2";
    assert!(metrics.contains(line), "{metrics}");
    // By the name of its token, while it is connected.
    assert_eq!(
        api.post("/deny", &json!({"token": "bert"}))["persistent"],
        true
    );
    assert_eq!(bert.next(), Incoming::Close(4403, "revoked".to_owned()));
    let log = server.whole_log();
    let line = log
        .lines()
        .find(|line| line.contains("POST /api/v1/disconnect"));
    let line = line.unwrap_or_else(|| panic!("no line of it: {log}"));
    for part in [
        "INFO",
        "subject=operator",
        "subject anna",
        "127.0.0.1",
        "closed",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!log.contains(ANNA), "no token in the log");
    drop((server, api));
    // It holds over a restart.
    let server = start(&folder);
    assert_eq!((open(&server, ANNA).0, open(&server, BERT).0), (401, 401));
    let mut api = Api::of(server.address(), OPERATOR);
    let denies = api.get("/deny")["denies"].clone();
    let of_bert = denies
        .as_array()
        .expect("a list")
        .iter()
        .find(|it| it["value"] == "bert");
    let id = of_bert.expect("it is there")["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert_eq!(
        api.ask("DELETE", &format!("/deny/{id}"), None).0.status,
        200
    );
    assert_eq!(open(&server, BERT).0, 101);
}

#[test]
fn deny_file_is_read_again_by_a_reload() {
    let folder = folder();
    let server = start(&folder);
    let (status, mut bert) = open(&server, BERT);
    assert_eq!(status, 101);
    folder.write("deny", "sub:bert\n");
    server.signal("HUP");
    assert_eq!(bert.next(), Incoming::Close(4403, "revoked".to_owned()));
    wait_until("the file is read", || open(&server, BERT).0 == 401);
    // The file's entry goes with the file alone, whatever calls deny or allow beside it.
    let mut api = Api::of(server.address(), OPERATOR);
    let added = api.post("/deny", &json!({"subject": "bert"}));
    let entries = api.get("/deny")["denies"].clone();
    let of_file = entries.as_array().expect("a list").iter();
    let of_file = of_file.filter(|it| it["file"] == true).collect::<Vec<_>>();
    assert_eq!(of_file.len(), 1, "{entries}");
    let taken_off = |api: &mut Api, id: &Value| {
        let route = format!("/deny/{}", id.as_str().expect("an id"));
        api.ask("DELETE", &route, None)
    };
    let (answer, said) = taken_off(&mut api, &of_file[0]["id"]);
    assert_eq!(
        (answer.status, &said["error"]["code"]),
        (409, &json!("conflict")),
        "{said}"
    );
    let (answer, said) = taken_off(&mut api, &added["id"]);
    assert_eq!(answer.status, 200, "{said}");
    assert_eq!(open(&server, BERT).0, 401);
    // A line that is none leaves all as it was.
    folder.write("deny", "tok:bert\n");
    let (answer, said) = api.ask("POST", "/reload", Some(&json!({})));
    assert_eq!(answer.status, 422, "{said}");
    assert!(said.to_string().contains("deny_file"), "{said}");
    assert_eq!(open(&server, BERT).0, 401);
    folder.write("deny", "");
    let (answer, said) = api.ask("POST", "/reload", Some(&json!({})));
    assert_eq!(answer.status, 200, "{said}");
    wait_until("the file is read", || open(&server, BERT).0 == 101);
}

/// More denies than a reactor takes jobs at a time, all in one tick. None of them may be lost.
#[test]
fn denies_that_come_at_once_all_end_connections() {
    let folder = folder();
    let server = start(&folder);
    let mut annas: Vec<_> = (0..4).map(|_| open(&server, ANNA).1).collect();
    let mut callers: Vec<_> = (0..300).map(|_| Http::connect(server.address())).collect();
    server.signal("STOP");
    for (at, caller) in callers.iter_mut().enumerate() {
        let subject = match at {
            299 => "anna".to_owned(),
            _ => format!("somebody{at}"),
        };
        let body = json!({"subject": subject}).to_string();
        let lines = format!(
            "Host: localhost\r\nAuthorization: Bearer {OPERATOR}\r\nContent-Type: application/json\r\n\
             Content-Length: {}",
            body.len()
        );
        caller.send(format!("POST /api/v1/deny HTTP/1.1\r\n{lines}\r\n\r\n{body}").as_bytes());
    }
    server.signal("CONT");
    for caller in &mut callers {
        assert_eq!(caller.answer().expect("an answer").status, 200);
    }
    for anna in &mut annas {
        assert_eq!(anna.next(), Incoming::Close(4403, "revoked".to_owned()));
    }
}

/// Those that are left out stay, whoever else is denied meanwhile.
#[test]
fn connections_left_out_of_a_disconnect_stay() {
    let folder = folder();
    let server = start(&folder);
    let mut api = Api::of(server.address(), OPERATOR);
    let mut first = open(&server, ANNA).1;
    let stays = api.connections("&subject=anna")[0]["connection"].clone();
    let mut second = open(&server, ANNA).1;
    let body = json!({"subject": "anna", "except": [stays], "deny_ms": 3_600_000, "reason": "one is enough"});
    assert_eq!(api.post("/disconnect", &body), json!({"closed": 1}));
    let end = Incoming::Close(4403, "one is enough".to_owned());
    assert_eq!(second.next(), end);
    drop(second);
    wait_until("one is left", || {
        api.connections("&subject=anna").len() == 1
    });
    let mut bert = open(&server, BERT).1;
    api.post("/deny", &json!({"subject": "bert"}));
    let revoked = Incoming::Close(4403, "revoked".to_owned());
    assert_eq!(bert.next(), revoked);
    let message = json!({"subject": "anna", "data": "still here"});
    assert_eq!(api.post("/send", &message), json!({"sent": 1}));
    assert_eq!(first.next(), Incoming::Text("still here".to_owned()));
    api.post("/deny", &json!({"subject": "anna"}));
    assert_eq!(first.next(), revoked);
}

#[test]
fn subject_is_denied_whenever_its_tokens_are_made() {
    let folder = folder();
    let server = start(&folder);
    let mut api = Api::of(server.address(), OPERATOR);
    let kept = api.post("/deny", &json!({"subject": "42", "issued_before": null}));
    assert_eq!(kept["issued_before"], Value::Null);
    let kept = api.post("/deny", &json!({"subject": "43"}));
    assert!(kept["issued_before"].is_u64(), "{kept}");
    for body in [
        json!({"jti": "a", "issued_before": null}),
        json!({"subject": "a", "issued_before": "now"}),
    ] {
        let error = api.error("POST", "/deny", Some(&body));
        assert_eq!(error, (400, "invalid_field".to_owned()), "{body}");
    }
}

#[test]
fn may_says_what_would_be_answered() {
    let folder = folder();
    let grant = "[[grant]]\nwhen = { subject = true }\nsubscribe = [\"news/**\", \"user/{sub}/**\"]\n\
                 deny.subscribe = [\"news/x\"]\n";
    let path = folder.path("umbel.toml");
    let text = std::fs::read_to_string(&path).expect("it is ours");
    folder.write("umbel.toml", &format!("{text}{grant}"));
    let server = start(&folder);
    let mut api = Api::of(server.address(), OPERATOR);
    let ask = |topic: &str| json!({"token": ANNA, "action": "subscribe", "topic": topic});
    for (topic, is_allowed, by) in [
        ("news/a", true, "** of the token anna"),
        ("news/x", false, "deny news/x of grant 1"),
        // What is no part of a topic, or stands in another order.
        ("news/x?since=3", false, "deny news/x of grant 1"),
        ("news/x?token=a", false, "deny news/x of grant 1"),
        ("news/x?", false, "deny news/x of grant 1"),
        ("news/*", false, "deny news/x of grant 1"),
        ("news/eu/*", true, "** of the token anna"),
    ] {
        let answer = api.post("/may", &ask(topic));
        assert_eq!(answer, json!({"allowed": is_allowed, "by": by}), "{topic}");
    }
    for topic in ["news//x", "/news", "", "news/\u{0}", "news/x*", "a/**/b"] {
        let error = api.error("POST", "/may", Some(&ask(topic)));
        assert_eq!(error, (400, "invalid_field".to_owned()), "{topic:?}");
    }
    // Of a subject, by grants alone.
    for (query, is_allowed, by) in [
        (
            "subject=42&action=subscribe&topic=user%2F42%2Fa",
            true,
            "user/{sub}/** of grant 1",
        ),
        (
            "subject=42&action=subscribe&topic=user%2F43%2Fa",
            false,
            "nothing allows it",
        ),
        (
            "subject=42&action=subscribe&topic=news%2Fx%3Flast%3D1",
            false,
            "deny news/x of grant 1",
        ),
        (
            "subject=anna&action=publish&topic=a",
            false,
            "nothing allows it",
        ),
    ] {
        let answer = api.get(&format!("/may?{query}"));
        assert_eq!(answer, json!({"allowed": is_allowed, "by": by}), "{query}");
    }
    api.post("/deny", &json!({"token": "anna"}));
    let answer = api.post("/may", &ask("news/a"));
    assert_eq!(
        answer,
        json!({"allowed": false, "by": "the token is revoked"})
    );
}

#[test]
fn settings_are_shown_without_secrets_and_read_again() {
    let folder = folder();
    let server = start(&folder);
    let mut api = Api::of(server.address(), OPERATOR);
    let (answer, settings) = api.ask("GET", "/config", None);
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    for token in [OPERATOR, VIEWER, HOST, OLD, ANNA, BERT] {
        assert!(!text.contains(token), "{text}");
    }
    assert_eq!(
        settings["token"][0],
        json!({"name": "operator", "value": "set"})
    );
    assert_eq!(settings["limits"]["deny_entries_max"], 100_000);
    let all = settings["settings"].as_object().expect("an object");
    let deny_file = &all["deny_file"];
    let source = deny_file["source"].as_str().expect("a source");
    assert!(
        source.contains("umbel.toml:") && deny_file["is_set"] == true,
        "{deny_file}"
    );
    assert_eq!(
        (&all["deflate"]["value"], &all["deflate"]["source"]),
        (&json!("text"), &json!("default"))
    );
    assert_eq!(all["listen"]["source"], "--listen");
    assert_eq!(open(&server, BERT).0, 101);
    folder.write("deny", "sub:bert\n");
    assert_eq!(
        api.post("/reload", &json!({})),
        json!({"generation": 1, "needs_restart": []})
    );
    assert_eq!(open(&server, BERT).0, 401);
    folder.write("umbel.toml", "nothing = 1\n");
    let (status, code) = api.error("POST", "/reload", Some(&json!({})));
    assert_eq!((status, code.as_str()), (422, "invalid_field"));
}

#[test]
fn start_warns_of_deny_list_in_memory() {
    let folder = folder();
    let text = std::fs::read_to_string(folder.path("umbel.toml")).expect("it is there");
    let (_, rest) = text.split_once("state_directory").expect("it is set");
    let (_, rest) = rest.split_once('\n').expect("a line");
    folder.write("umbel.toml", &format!("origins = [\"any\"]\n{rest}"));
    let server = start(&folder);
    assert!(
        server.log().contains("state_directory is not set"),
        "{}",
        server.log()
    );
    let mut api = Api::of(server.address(), OPERATOR);
    assert_eq!(api.post("/deny", &json!({"jti": "a"}))["persistent"], false);
}

#[test]
fn end_of_identity_is_set_for_open_connections() {
    let folder = folder();
    let server = start(&folder);
    let mut api = Api::of(server.address(), OPERATOR);
    let mut anna = Peer::open_on(connect(server.address(), 0), "/ws", JSON);
    anna.ask(&json!({"type": "auth", "id": 1, "token": ANNA}));
    let body = json!({"subject": "anna", "expires_in_ms": 1000});
    assert_eq!(api.post("/refresh", &body), json!({"refreshed": 1}));
    let told = anna.next();
    assert_eq!(told["type"], "expiring", "{told}");
    let body = json!({"subject": "anna", "expires_in_ms": 1, "expires_at_ms": 1});
    assert_eq!(api.error("POST", "/refresh", Some(&body)).0, 400);
}

#[test]
fn deny_list_that_cannot_be_read_stops_the_start() {
    let folder = folder();
    std::fs::write(folder.path("state/deny.json"), "{\"version\":1,").expect("it is ours");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_umbel"))
        .args([
            "--config",
            &folder.path("umbel.toml"),
            "--listen",
            "127.0.0.1:0",
        ])
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("deny.json"), "{said}");
    // The reason is on the operator's side, so nothing was lost.
    let kept = std::fs::read_to_string(folder.path("state/deny.json")).expect("it is there");
    assert_eq!(kept, "{\"version\":1,");
    assert_eq!(
        Http::connect(start(&self::folder()).address())
            .get("/health")
            .status,
        200
    );
}

#[test]
fn rights_are_set_for_open_connections() {
    let folder = folder();
    let server = start(&folder);
    let mut api = Api::of(server.address(), OPERATOR);
    let mut anna = Peer::open_on(connect(server.address(), 0), "/ws", JSON);
    anna.ask(&json!({"type": "auth", "id": 1, "token": ANNA}));
    for topic in ["rooms/1", "rooms/2"] {
        anna.subscribe(topic);
    }
    let mut bert = open(&server, BERT).1;
    let refresh = |who: &str, rights: Value| json!({"subject": who, "expires_in_ms": 3_600_000, "rights": rights});
    let body = refresh(
        "anna",
        json!({"subscribe": ["rooms/1"], "publish": ["rooms/1"]}),
    );
    assert_eq!(api.post("/refresh", &body), json!({"refreshed": 1}));
    let told = loop {
        let told = anna.next();
        if told["type"] != "join" {
            break told;
        }
    };
    assert_eq!(
        (&told["type"], &told["topic"], &told["code"]),
        (
            &json!("unsubscribed"),
            &json!("rooms/2"),
            &json!("forbidden")
        )
    );
    let answer = anna.ask(&json!({"type": "publish", "id": 2, "topic": "rooms/1", "data": "new"}));
    assert_eq!(answer["type"], "published", "{answer}");
    // The token itself is as it was.
    let mut other = Peer::open_on(connect(server.address(), 0), "/ws", JSON);
    other.ask(&json!({"type": "auth", "id": 1, "token": ANNA}));
    other.subscribe("rooms/2");
    let body = refresh("bert", json!({"subscribe": ["rooms/2"]}));
    assert_eq!(api.post("/refresh", &body), json!({"refreshed": 1}));
    loop {
        if let Incoming::Close(code, _) = bert.next() {
            break assert_eq!(code, 4403);
        }
    }
    for rights in [
        json!({"manage": ["**"]}),
        json!({"observe": true}),
        json!({"roles": ["a"]}),
        json!({"subscribe": ["a/{"]}),
        json!({"subscribe": "rooms/1"}),
        json!([]),
    ] {
        let body = refresh("anna", rights);
        assert_eq!(api.error("POST", "/refresh", Some(&body)).0, 400, "{body}");
    }
}

/// The hash that presence shows of anna, on a server of its own with this key.
fn shown_hash(key: &str) -> String {
    let folder = folder();
    let text = std::fs::read_to_string(folder.path("umbel.toml")).expect("it is there");
    let text = text.replace(
        "presence = true",
        "presence = true\npresence_subject = \"hash\"",
    );
    folder.write(
        "umbel.toml",
        &format!("identity.presence_key = \"{key}\"\n{text}"),
    );
    let server = start(&folder);
    let mut api = Api::of(server.address(), OPERATOR);
    let mut anna = Peer::open_on(connect(server.address(), 0), "/ws", JSON);
    anna.ask(&json!({"type": "auth", "id": 1, "token": ANNA}));
    anna.subscribe("rooms/1");
    let mut hash = None;
    wait_until("anna is there", || {
        let page = api.get("/presence?topic=rooms%2F1");
        hash = page["members"][0]["subject"].as_str().map(str::to_owned);
        hash.is_some()
    });
    hash.unwrap_or_default()
}

#[test]
fn one_subject_is_one_hash_on_all_nodes() {
    let first = shown_hash("0123456789abcdef");
    assert_eq!(first.len(), 32);
    assert_eq!(first, shown_hash("0123456789abcdef"));
    assert_ne!(first, shown_hash("0123456789abcdeF"));
}
