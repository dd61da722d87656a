//! Identities that the embedding program gives: what follows from them, and what is asked from then on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use umbel::config::RightsLists;
use umbel::{
    AccessRequest, Authorizer, Denied, Filter, Identity, IdentityBuilder, Message, PublishOptions,
    Server, Verdict,
};

use crate::support::embedded::{Embedded, config};
use crate::support::peers::{Incoming, WebSocket};
use crate::support::umbel_v1::Peer as ManyTopics;
use crate::support::{PATIENCE, Wire, wait_until};

type Make = fn(IdentityBuilder) -> IdentityBuilder;

/// A moment in so many milliseconds, in milliseconds since 1970.
fn later_ms(in_ms: u64) -> u64 {
    let now = SystemTime::now() + Duration::from_millis(in_ms);
    now.duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as u64
}

/// Takes `?user=` at its word, and notes whom it was told that it had said.
struct Named {
    make: Make,
    asked: Arc<AtomicUsize>,
    known: Arc<Mutex<Vec<Option<String>>>>,
}

impl Authorizer for Named {
    fn authorize(&self, request: &AccessRequest<'_>) -> Verdict {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let known = request.identity().subject().map(str::to_owned);
        self.known.lock().expect("no panic").push(known);
        match request.parameter("user") {
            None => Verdict::Deny(Denied::Unauthenticated("log in first".into())),
            Some(user) => {
                let made = (self.make)(Identity::builder(&user)).build();
                Verdict::Allow(made.expect("an identity"))
            }
        }
    }
}

struct Started {
    server: Embedded,
    asked: Arc<AtomicUsize>,
    known: Arc<Mutex<Vec<Option<String>>>>,
}

fn start(make: Make) -> Started {
    let mut config = config();
    config.limits.token_grace_ms = 0;
    config.limits.drain_timeout_ms = 100;
    let rule = "** presence=on presence_subject=on".parse();
    config.topic_rules = vec![rule.expect("a rule")];
    let (asked, known) = (Arc::default(), Arc::default());
    let authorizer = Named {
        make,
        asked: Arc::clone(&asked),
        known: Arc::clone(&known),
    };
    let builder = Server::builder().config(config).authorizer(authorizer);
    Started {
        server: Embedded::start(builder),
        asked,
        known,
    }
}

impl Started {
    fn open(&self, user: &str) -> ManyTopics {
        let target = format!("/ws?user={user}");
        ManyTopics::open_at(self.server.address, &target, "umbel.v1")
    }

    /// Subjects of the connections of a dialect.
    fn subjects(&self, dialect: &str) -> Vec<Option<String>> {
        let mut filter = Filter::default();
        filter.dialect = Some(dialect.to_owned());
        let page = self.server.handle.connections(&filter, None, 10, PATIENCE);
        let connections = page.expect("an answer").connections;
        connections.into_iter().map(|it| it.subject).collect()
    }
}

#[test]
fn identity_with_rights_asks_no_more() {
    let started = start(|it| {
        it.info("{\"name\":\"Anna\"}")
            .subscribe(["user/{sub}/*", "news"])
            .publish(["news"])
            .join(["user/{sub}/inbox"])
    });
    let mut anna = started.open("anna");
    let welcome = anna.next();
    assert_eq!(
        (&welcome["type"], &welcome["subject"]),
        (&json!("welcome"), &json!("anna"))
    );
    let joined = anna.next();
    assert_eq!(joined["topic"], "user/anna/inbox", "{joined}");
    assert_eq!(started.asked.load(Ordering::SeqCst), 1);
    anna.subscribe("news");
    let other = json!({"type": "subscribe", "id": 8, "topic": "user/bert/inbox"});
    assert_eq!(anna.error(&other), "forbidden");
    let publish = json!({"type": "publish", "id": 9, "topic": "other", "data": "x"});
    assert_eq!(anna.error(&publish), "forbidden");
    assert_eq!(
        started.asked.load(Ordering::SeqCst),
        1,
        "at the opening only"
    );
    let present = started.server.handle.presence("news", PATIENCE);
    let present = present.expect("an answer");
    assert_eq!(present.members[0].subject.as_deref(), Some("anna"));
    assert_eq!(started.subjects("umbel.v1"), [Some("anna".to_owned())]);
    // What its rights do not allow is refused, though the program would have it.
    let mut wire = Wire::connect(started.server.address);
    wire.send(b"GET /sse/other?user=anna HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(wire.read_response().status, 403);
    started.server.end();
}

#[test]
fn identity_without_rights_is_asked_about_each_time() {
    let started = start(|it| it);
    let mut anna = started.open("anna").welcomed();
    anna.subscribe("anything");
    let known = started.known.lock().expect("no panic").clone();
    assert_eq!(known, [None, Some("anna".to_owned())]);
    let mut stream = Wire::connect(started.server.address);
    stream.send(b"GET /sse/a?user=bert HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.read_through(b"\r\n\r\n");
    wait_until("it is listed", || {
        started.subjects("sse") == [Some("bert".to_owned())]
    });
    started.server.end();
}

#[test]
fn identity_that_has_ended_or_may_nothing_is_refused() {
    let started = start(|it| it.expires_at_ms(later_ms(0) - 1000));
    let mut wire = Wire::connect(started.server.address);
    wire.send(b"GET /sse/a?user=anna HTTP/1.1\r\nHost: x\r\n\r\n");
    let refused = wire.read_response();
    assert_eq!(refused.status, 401);
    assert!(refused.text().contains("expired"), "{}", refused.text());
    started.server.end();
    let started = start(|it| it.rights(RightsLists::default()));
    let mut wire = Wire::connect(started.server.address);
    wire.send(b"POST /pub/a?user=anna HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(wire.read_response().status, 403);
    started.server.end();
}

#[test]
fn connection_ends_with_its_identity() {
    let started = start(|it| it.expires_at_ms(later_ms(300)));
    let mut anna = WebSocket::open(started.server.address, "/ws/a?user=anna");
    let end = anna.next();
    assert!(matches!(end, Incoming::Close(4401, _)), "{end:?}");
    started.server.end();
}

#[test]
fn publisher_is_named_whatever_way_it_publishes() {
    let mut config = config();
    config.limits.drain_timeout_ms = 100;
    let rules = [
        "hidden time=on",
        "hashed presence_subject=hash",
        "** presence_subject=on",
    ];
    config.topic_rules = rules.map(|rule| rule.parse().expect("a rule")).into();
    let authorizer = Named {
        make: |it| it,
        asked: Arc::default(),
        known: Arc::default(),
    };
    // What the program's hook makes of a message is its publisher's still.
    let builder = Server::builder().config(config).authorizer(authorizer);
    let server = Embedded::start(builder.on_publish(|publishing| {
        publishing.change_options(|_| PublishOptions::new());
        Ok(())
    }));
    let mut reader = ManyTopics::open_at(server.address, "/ws?user=reader", "umbel.v1").welcomed();
    for topic in ["a", "hidden", "hashed"] {
        reader.subscribe(topic);
    }
    let mut publisher = |topic: &str| {
        let publication = reader.next();
        assert_eq!(publication["topic"], topic, "{publication}");
        publication["publisher"].as_str().map(str::to_owned)
    };
    let mut anna = ManyTopics::open_at(server.address, "/ws?user=anna", "umbel.v1").welcomed();
    anna.publish("a", "1");
    assert_eq!(publisher("a").as_deref(), Some("anna"));
    anna.publish("hidden", "1");
    assert_eq!(publisher("hidden"), None);
    anna.publish("hashed", "1");
    let hash = publisher("hashed").expect("a hash");
    assert!(hash.len() == 32 && hash != "anna", "{hash}");
    let mut wire = Wire::connect(server.address);
    let request = |target: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {target}?user=bert HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    wire.send(request("/pub", "{\"topic\":\"a\",\"data\":\"2\"}").as_bytes());
    assert_eq!(wire.read_response().status, 200);
    assert_eq!(publisher("a").as_deref(), Some("bert"));
    let options = PublishOptions::new().publisher("robot");
    let placed = server.handle.publish_with("a", Message::Text("3"), options);
    placed.expect("it is taken");
    assert_eq!(publisher("a").as_deref(), Some("robot"));
    server
        .handle
        .publish("a", Message::Text("4"))
        .expect("it is taken");
    assert_eq!(publisher("a"), None);
    server.end();
}
