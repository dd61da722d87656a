//! Connections that sign in, renew and lose their identities, against a model: time and chance are the test's own.
//!
//! `IDENTITY_SEEDS` says how many seeds run (100), `IDENTITY_SEED` names one.

#![cfg(feature = "jwt")]

mod support;

#[path = "support/node.rs"]
mod node;
#[path = "support/recorder.rs"]
mod recorder;

use std::collections::BTreeSet;
use std::env;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use umbel::config::{Algorithm, Config, Jwt, JwtKeys, Limits};
use umbel::internals::auth::Authority;
use umbel::internals::auth::policy::AccessPolicy;
use umbel::internals::connection::Settings;
use umbel::{ConnectionId, Origins};

use node::Node;
use recorder::Recorder;
use support::frames::{self, Frame};
use support::random::Random;

const SECRET: &str = "umbel-test-secret-0123456789abcdef";
const TOPICS: usize = 4;
const STEPS: usize = 120;
const CLIENTS: usize = 3;
const AUTH_TIMEOUT_MS: u64 = 5000;
const GRACE_MS: u64 = 4000;
/// The clock at the beginning: 15 January 2027.
const BEGAN_MS: u64 = 1_800_000_000_000;

/// A token, as the model knows it.
#[derive(Clone, Debug)]
struct Token {
    subject: usize,
    topics: BTreeSet<usize>,
    end_ms: u64,
    /// Topics to which the server subscribes whoever shows it.
    join: Vec<&'static str>,
}

#[derive(Clone, Debug)]
enum State {
    /// It has shown nothing, and opened then.
    Waiting(u64),
    /// It is this identity, and has been warned or not.
    Known(Token, bool),
    Closed,
}

struct Client {
    id: ConnectionId,
    state: State,
    subscriptions: BTreeSet<usize>,
    has_tried_another: bool,
    next_command: u32,
    bytes: Vec<u8>,
    /// Warnings that came and were not looked at.
    warnings: Vec<u64>,
}

struct World {
    node: Node<Recorder>,
    random: Random,
    clients: Vec<Client>,
    /// What was met, so that a run which meets nothing is seen.
    met: BTreeSet<&'static str>,
}

/// HMAC of RFC 2104 with SHA-256; the key has at most 64 bytes.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let pad = |mask: u8| -> Vec<u8> {
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        block.iter().map(|byte| byte ^ mask).collect()
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text);
    let outer = Sha256::new().chain_update(pad(0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}

fn signed(token: &Token, now_ms: u64) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let topics: Vec<_> = token.topics.iter().map(|topic| name(*topic)).collect();
    let claims = json!({
        "sub": format!("user-{}", token.subject),
        "iat": now_ms / 1000,
        "exp": token.end_ms / 1000,
        "umbel": {"v": 1, "subscribe": topics, "join": token.join},
    });
    let head = encode(&json!({"alg": "HS256", "typ": "JWT"}));
    let text = format!("{head}.{}", encode(&claims));
    let mac = hmac(SECRET.as_bytes(), text.as_bytes());
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac))
}

fn name(topic: usize) -> String {
    format!("t/{topic}")
}

fn authority(leeway_ms: u64) -> Authority {
    let mut jwt = Jwt::new("app");
    jwt.algorithms = vec![Algorithm::Hs256];
    jwt.keys = Some(JwtKeys::secret(SECRET));
    jwt.leeway_ms = leeway_ms;
    let mut config = Config::default();
    config.jwts = vec![jwt];
    config.origins = Some(Origins::Any);
    let rights = config.rights().expect("it stands");
    Authority::Policy(AccessPolicy::new(&rights, Arc::default()))
}

impl World {
    fn new(seed: u64) -> World {
        World::with_leeway(seed, 0)
    }

    fn with_leeway(seed: u64, leeway_ms: u64) -> World {
        let mut limits = Limits::default();
        limits.auth_timeout_ms = AUTH_TIMEOUT_MS;
        limits.token_grace_ms = GRACE_MS;
        limits.ping_interval_ms = 3_600_000;
        let mut node = Node::with_authority(Settings::new(&limits), authority(leeway_ms));
        node.now_ms = BEGAN_MS;
        node.tick();
        let mut world = World {
            node,
            random: Random::new(seed),
            clients: Vec::new(),
            met: BTreeSet::new(),
        };
        for _ in 0..CLIENTS {
            let client = world.open();
            world.clients.push(client);
        }
        world
    }

    fn open(&mut self) -> Client {
        let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Protocol: umbel.v1\r\n\r\n";
        let id = self.node.insert(Recorder::new(request.into()));
        self.node.handle_readable(id, false);
        self.node.tick();
        let answer = std::mem::take(&mut self.node.transport(id).written);
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "it is accepted");
        assert!(answer.ends_with(b"\r\n\r\n"), "and told nothing");
        Client {
            id,
            state: State::Waiting(self.node.now_ms),
            subscriptions: BTreeSet::new(),
            has_tried_another: false,
            next_command: 0,
            bytes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// What has come to a client.
    fn frames(&mut self, at: usize) -> Vec<Frame> {
        let client = &mut self.clients[at];
        if let Some(transport) = self.node.connections.transport_mut(client.id) {
            client.bytes.append(&mut transport.written);
        }
        std::iter::from_fn(|| Frame::take(&mut client.bytes)).collect()
    }

    /// Sends a command and takes what comes: messages, and perhaps a Close behind them.
    fn ask(&mut self, at: usize, mut command: Value) -> (Vec<Value>, Option<u16>) {
        let client = &mut self.clients[at];
        client.next_command += 1;
        command["id"] = client.next_command.into();
        let bytes = frames::text(&command.to_string());
        let id = client.id;
        self.node.transport(id).input.extend_from_slice(&bytes);
        self.node.handle_readable(id, false);
        self.node.tick();
        self.heard(at)
    }

    fn heard(&mut self, at: usize) -> (Vec<Value>, Option<u16>) {
        let (mut messages, mut closed) = (Vec::new(), None);
        for frame in self.frames(at) {
            assert_eq!(closed, None, "nothing comes behind a Close");
            match frame.first {
                0x88 => closed = frame.close_code(),
                _ => messages.push(serde_json::from_slice(&frame.payload).expect("JSON")),
            }
        }
        let is_warning = |message: &Value| message["type"] == "expiring";
        let warnings = messages.iter().filter(|it| is_warning(it));
        let warnings = warnings.map(|it| it["in_ms"].as_u64().expect("a time"));
        self.clients[at].warnings.extend(warnings);
        messages.retain(|it| !is_warning(it));
        if closed.is_some() {
            self.clients[at].state = State::Closed;
        }
        (messages, closed)
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0..3 => self.pass(),
            3..6 => self.sign_in(),
            6..8 => self.subscribe(),
            8 => self.publish(),
            _ => self.renew(),
        }
    }

    /// A client that is closed makes room for another.
    fn renew(&mut self) {
        let at = self.random.below(CLIENTS);
        if matches!(self.clients[at].state, State::Closed) {
            self.clients[at] = self.open();
        }
    }

    fn some_token(&mut self) -> Token {
        let now_s = self.node.now_ms / 1000;
        Token {
            subject: self.random.below(2),
            topics: (0..1 + self.random.below(TOPICS))
                .map(|_| self.random.below(TOPICS))
                .collect(),
            end_ms: (now_s + self.random.within(1, 30)) * 1000,
            join: Vec::new(),
        }
    }

    fn sign_in(&mut self) {
        let at = self.random.below(CLIENTS);
        let mut token = self.some_token();
        let is_bad = self.random.chance(15);
        let shown = match is_bad {
            true if self.random.chance(50) => "not.a.token".to_owned(),
            true => {
                token.end_ms = (self.node.now_ms / 1000) * 1000;
                signed(&token, self.node.now_ms - 10_000)
            }
            false => signed(&token, self.node.now_ms),
        };
        let state = self.clients[at].state.clone();
        if matches!(state, State::Closed) {
            return;
        }
        let (messages, closed) = self.ask(at, json!({"type": "auth", "token": shown}));
        let answer = &messages[0];
        let client = &mut self.clients[at];
        match state {
            _ if is_bad => {
                assert_eq!(answer["code"], "unauthorized", "{answer}");
                let is_waiting = matches!(state, State::Waiting(_));
                assert_eq!(closed, is_waiting.then_some(4401), "{state:?}");
                self.met.insert("bad token");
            }
            State::Known(former, _) if former.subject != token.subject => {
                assert_eq!(answer["code"], "subject_changed", "{answer}");
                let is_second = std::mem::replace(&mut client.has_tried_another, true);
                assert_eq!(closed, is_second.then_some(4403));
                self.met.insert("another subject");
            }
            _ => {
                assert_eq!(answer["type"], "authenticated", "{answer}");
                assert_eq!(answer["subject"], format!("user-{}", token.subject));
                let lost: BTreeSet<_> = &client.subscriptions - &token.topics;
                let told = messages[1..].iter().map(|it| {
                    assert_eq!(
                        (&it["type"], &it["code"]),
                        (&json!("unsubscribed"), &json!("forbidden"))
                    );
                    it["topic"].as_str().expect("a topic").to_owned()
                });
                let told: BTreeSet<_> = told.collect();
                assert_eq!(told, lost.iter().map(|topic| name(*topic)).collect());
                if !lost.is_empty() {
                    self.met.insert("downgrade");
                }
                client.subscriptions = &client.subscriptions & &token.topics;
                // A short life is over soon.
                let mut is_warned = !std::mem::take(&mut client.warnings).is_empty();
                if let State::Known(former, true) = state
                    && former.end_ms == token.end_ms
                {
                    assert!(!is_warned, "of one end it is warned once");
                    is_warned = true;
                }
                client.state = State::Known(token, is_warned);
                assert_eq!(closed, None);
            }
        }
    }

    fn subscribe(&mut self) {
        let (at, topic) = (self.random.below(CLIENTS), self.random.below(TOPICS));
        let state = self.clients[at].state.clone();
        let expected = match &state {
            State::Closed => return,
            State::Waiting(_) => "unauthorized",
            State::Known(token, _) if self.node.now_ms >= token.end_ms => {
                self.met.insert("refused behind the end");
                "unauthorized"
            }
            State::Known(token, _) if !token.topics.contains(&topic) => "forbidden",
            State::Known(..) if self.clients[at].subscriptions.contains(&topic) => {
                "already_subscribed"
            }
            State::Known(..) => "subscribed",
        };
        let (messages, closed) = self.ask(at, json!({"type": "subscribe", "topic": name(topic)}));
        let answer = &messages[0];
        let got = answer.get("code").unwrap_or(&answer["type"]);
        assert_eq!(
            (got, closed),
            (&json!(expected), None),
            "{state:?}: {answer}"
        );
        if expected == "subscribed" {
            self.clients[at].subscriptions.insert(topic);
        }
    }

    /// Exactly those get a publication that subscribe to its topic.
    fn publish(&mut self) {
        let topic = self.random.below(TOPICS);
        self.node.publish(&name(topic), b"x");
        for at in 0..CLIENTS {
            let client = &self.clients[at];
            let is_subscribed = match &client.state {
                State::Known(token, _) => {
                    if self.node.now_ms >= token.end_ms && client.subscriptions.contains(&topic) {
                        self.met.insert("delivery in the grace");
                    }
                    client.subscriptions.contains(&topic)
                }
                State::Waiting(_) | State::Closed => false,
            };
            let (messages, closed) = self.heard(at);
            let topics: Vec<_> = messages.iter().map(|it| it["topic"].clone()).collect();
            let expected = if is_subscribed {
                vec![json!(name(topic))]
            } else {
                Vec::new()
            };
            assert_eq!((topics, closed), (expected, None));
        }
    }

    /// Time passes: whoever has to go goes, and nobody else.
    fn pass(&mut self) {
        self.node.now_ms += *self.random.pick(&[10, 300, 1000, 2500]);
        self.node.tick();
        let now_ms = self.node.now_ms;
        for at in 0..CLIENTS {
            let state = self.clients[at].state.clone();
            let (messages, closed) = self.heard(at);
            match state {
                State::Closed => assert!(messages.is_empty() && closed.is_none()),
                State::Waiting(opened_ms) => {
                    let is_late = now_ms >= opened_ms + AUTH_TIMEOUT_MS;
                    assert_eq!(closed, is_late.then_some(4408), "{}", now_ms - opened_ms);
                    assert!(messages.is_empty());
                    if is_late {
                        self.met.insert("deadline");
                    }
                }
                State::Known(token, was_warned) => {
                    assert!(messages.is_empty(), "{messages:?}");
                    let warnings = std::mem::take(&mut self.clients[at].warnings);
                    for in_ms in &warnings {
                        assert_eq!(*in_ms, token.end_ms.saturating_sub(now_ms));
                    }
                    let is_warned = was_warned || !warnings.is_empty();
                    assert!(
                        warnings.len() <= usize::from(!was_warned),
                        "it is told once"
                    );
                    assert!(is_warned || now_ms < token.end_ms, "it is told in time");
                    if now_ms >= token.end_ms + GRACE_MS {
                        assert_eq!(closed, Some(4401), "the grace is over");
                        self.met.insert("closed behind the grace");
                    } else if now_ms < token.end_ms + GRACE_MS / 2 {
                        assert_eq!(closed, None, "half of the grace is everybody's");
                    }
                    assert!(matches!(closed, None | Some(4401)));
                    if closed.is_none() {
                        self.clients[at].state = State::Known(token, is_warned);
                    }
                }
            }
        }
    }
}

/// Whoever shows the token is subscribed to its topics without a command; to those only to which it has a right.
#[test]
fn token_joins_topics() {
    let mut world = World::new(1);
    let token = Token {
        subject: 7,
        topics: BTreeSet::from([0]),
        end_ms: BEGAN_MS + 3_600_000,
        join: vec!["t/0", "t/1", "t/{sub}"],
    };
    let shown = signed(&token, BEGAN_MS);
    let (messages, closed) = world.ask(0, json!({"type": "auth", "token": shown}));
    assert_eq!(closed, None);
    assert_eq!(messages[0]["type"], "authenticated");
    let joined = &messages[1..];
    assert_eq!(joined.len(), 1, "{joined:?}");
    assert_eq!(
        (&joined[0]["type"], &joined[0]["topic"]),
        (&json!("subscribed"), &json!("t/0"))
    );
    assert!(joined[0].get("id").is_none() && joined[0]["position"].is_string());
    world.node.publish("t/0", b"x");
    assert_eq!(world.heard(0).0[0]["type"], "publication");
    // To sign in again is to have it still.
    let (messages, _) = world.ask(0, json!({"type": "auth", "token": shown}));
    assert_eq!(messages.len(), 1, "{messages:?}");
    let (messages, _) = world.ask(0, json!({"type": "subscribe", "topic": "t/0"}));
    assert_eq!(messages[0]["code"], "already_subscribed");
}

/// A token whose end was 29 s ago is good for one more second, with a leeway of 30 s: it is warned of at once, and its connection
/// is closed behind the grace.
#[test]
fn leeway_counts_towards_the_end() {
    let mut world = World::with_leeway(1, 30_000);
    let token = Token {
        subject: 7,
        topics: BTreeSet::from([0]),
        end_ms: BEGAN_MS - 29_000,
        join: Vec::new(),
    };
    let shown = signed(&token, BEGAN_MS - 3_600_000);
    let (messages, closed) = world.ask(0, json!({"type": "auth", "token": shown}));
    assert_eq!(
        (&messages[0]["type"], closed),
        (&json!("authenticated"), None)
    );
    assert_eq!(world.clients[0].warnings, [1000]);
    let mut closed_ms = None;
    for passed_ms in (100..=1000 + GRACE_MS).step_by(100) {
        world.node.now_ms = BEGAN_MS + passed_ms;
        world.node.tick();
        closed_ms = closed_ms.or(world.heard(0).1.map(|code| (code, passed_ms)));
    }
    let (code, at_ms) = closed_ms.expect("it is closed");
    assert_eq!(code, 4401);
    assert!(
        (1000 + GRACE_MS / 2..=1000 + GRACE_MS).contains(&at_ms),
        "{at_ms}"
    );
}

/// A client that has no newer token shows the same one again, and is not asked for another at once.
#[test]
fn same_token_is_warned_of_once() {
    let mut world = World::new(1);
    let token = Token {
        subject: 7,
        topics: BTreeSet::from([0]),
        end_ms: BEGAN_MS + 10_000,
        join: Vec::new(),
    };
    let auth = json!({"type": "auth", "token": signed(&token, BEGAN_MS)});
    assert_eq!(world.ask(0, auth.clone()).0[0]["type"], "authenticated");
    world.node.now_ms = BEGAN_MS + 9900;
    world.node.tick();
    assert!(world.heard(0).0.is_empty());
    assert_eq!(world.clients[0].warnings, [100]);
    for _ in 0..3 {
        assert_eq!(world.ask(0, auth.clone()).0[0]["type"], "authenticated");
        world.node.tick();
        assert!(world.heard(0).0.is_empty());
    }
    assert_eq!(world.clients[0].warnings, [100]);
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

#[test]
fn identities_begin_change_and_end_as_the_model_says() {
    let seeds = match number("IDENTITY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("IDENTITY_SEEDS").unwrap_or(100),
    };
    let mut met = BTreeSet::new();
    let is_one = seeds.end - seeds.start == 1;
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..STEPS).for_each(|_| world.step());
            world.met
        });
        match outcome {
            Ok(more) => met.extend(more),
            Err(panic) => {
                eprintln!("IDENTITY_SEED={seed} repeats it");
                std::panic::resume_unwind(panic);
            }
        }
    }
    let all = [
        "another subject",
        "bad token",
        "closed behind the grace",
        "deadline",
        "delivery in the grace",
        "downgrade",
        "refused behind the end",
    ];
    assert!(is_one || met == BTreeSet::from(all), "{met:?}");
}
