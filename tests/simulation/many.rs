//! Peers that speak `umbel.v1`, `umbel.v1.bin` or the toy: many topics and patterns on one connection, commands in batches, and
//! an account of what each answer must be.

mod echo;
mod held;
mod once;
mod pages;
mod plain;
mod present;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::peer::{Peer, Surroundings};
use super::records::{Fate, Publish};
use super::rights::held::Holder;
use super::topics::{
    PATTERN_COUNT, Place, TOPICS, Target, parse_place, pattern_number, place_text, topic_number,
};
use super::toy_speech;
use super::views::{Item, Start};

/// Keys of publishes; None is one as well.
pub const KEYS: &[Option<&str>] = &[None, None, Some("EURUSD"), Some("a \"b\"")];

/// A command that waits for its answer.
#[derive(Debug)]
enum Pending {
    Subscribe(Target, Start),
    Unsubscribe(Target),
    /// By its number and topic, and whether it wants a receipt.
    Publish(usize, usize, bool),
    /// One that reuses the key of another, by its number and topic.
    Misuse(usize, usize),
    Presence(usize),
    Page(pages::PageRequest),
    Ping,
    Auth(held::Shown),
}

/// What it speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tongue {
    #[default]
    Json,
    Binary,
    Toy,
}

#[derive(Debug, Default)]
pub struct Many {
    pub tongue: Tongue,
    /// Speaks when it is told to, and subscribes to nothing.
    pub is_probe: bool,
    next_id: u32,
    pending: BTreeMap<u32, Pending>,
    asked_ms: BTreeMap<u32, u64>,
    pub now_ms: u64,
    /// Its subscriptions, with the numbers of their views.
    live: BTreeMap<Target, usize>,
    /// Who is present on a topic, once it was told.
    present: BTreeMap<usize, BTreeSet<String>>,
    /// What it was subscribed to before it was cut off, and how far it had got.
    resume: Vec<(Target, Option<Place>)>,
    messages_sent: u32,
    /// Each of its publishes has an idempotency key.
    is_keyed: bool,
    /// None of its subscriptions has an echo.
    is_silent: bool,
    /// Pages that follow those it has read.
    next_pages: Vec<(usize, Place)>,
    pub opened_ms: u64,
    /// What it sends again, in order.
    resend: Vec<usize>,
    /// Tokens that it shows, if it does.
    pub holder: Option<Holder>,
    /// What a probe was told: of each topic how many are present, and how many got a publish.
    pub probed: BTreeMap<usize, (Option<u64>, Option<u64>)>,
}

impl Many {
    pub fn new(tongue: Tongue) -> Many {
        Many {
            tongue,
            ..Many::default()
        }
    }

    /// One that has subscriptions to take up again.
    pub fn continuing(tongue: Tongue, resume: Vec<(Target, Option<Place>)>) -> Many {
        Many {
            tongue,
            resume,
            ..Many::default()
        }
    }

    pub fn probing() -> Many {
        Many {
            is_probe: true,
            ..Many::default()
        }
    }

    pub fn is_answered(&self) -> bool {
        self.pending.is_empty()
    }

    pub fn subscriptions(&self) -> impl Iterator<Item = (Target, usize)> {
        self.live.iter().map(|(target, view)| (*target, *view))
    }

    fn take_id(&mut self, pending: Pending) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        self.asked_ms.insert(id, self.now_ms);
        self.pending.insert(id, pending);
        id
    }

    fn subscribe(&mut self, target: Target, start: Start) -> Value {
        let id = self.take_id(Pending::Subscribe(target, start));
        let (field, name) = target.field();
        let mut command = json!({"type": "subscribe", "id": id, field: name});
        match start {
            Start::Now => {}
            Start::Since(place) => command["since"] = place_text(place).into(),
            Start::Last(count) => command["last"] = count.into(),
        }
        if self.is_silent {
            command["echo"] = false.into();
        }
        command
    }
}

impl Peer {
    /// Says something: one command, or some of them in one message.
    pub(super) fn command(&mut self, around: &mut Surroundings<'_>) {
        let mut many = self.many.take().expect("it speaks umbel.v1");
        let mut batch = Vec::new();
        if many.show(&mut batch, around) {
            for _ in 0..around.random.below(3) {
                batch.push(self.one_command(&mut many, around));
            }
        } else if !many.resend.is_empty() {
            self.send_again(&mut many, around);
        } else if !many.resume.is_empty() {
            let count = match around.random.chance(50) {
                true => 1,
                false => many.resume.len(),
            };
            for (target, place) in many.resume.split_off(many.resume.len() - count) {
                let start = place.map_or(Start::Now, Start::Since);
                batch.push(many.subscribe(target, start));
            }
        } else if around.random.chance(10) && !many.live.is_empty() {
            self.change(&mut many, &mut batch, around);
            if around.random.chance(50) {
                // As messages of their own, between which the hub may come to have room.
                for command in batch.drain(..) {
                    many.messages_sent += self.send_commands(many.tongue, &command, around);
                }
            }
        } else if around.random.chance(10) {
            // Large and small ones of one topic: none may go before another where a queue takes only the small.
            let topic = around.random.below(around.topics);
            for _ in 0..around.random.within(2, 3) {
                batch.push(self.publish_command(&mut many, topic, around));
            }
        } else if many.tongue == Tongue::Binary && around.random.chance(40) {
            self.publish_binary(&mut many, around);
        } else {
            for _ in 0..*around.random.pick(&[1, 1, 1, 2, 3, 6]) {
                batch.push(self.one_command(&mut many, around));
            }
        }
        around
            .cover
            .add("batch of commands", u64::from(batch.len() > 1));
        let message = match &batch[..] {
            [] => None,
            [one] => Some(one.clone()),
            _ => Some(Value::Array(batch)),
        };
        if let Some(message) = message {
            many.messages_sent += self.send_commands(many.tongue, &message, around);
        }
        self.many = Some(many);
    }

    /// Sends a command, or an array of them: one by one if they are too long for a message. Gives the number of messages.
    fn send_commands(
        &mut self,
        tongue: Tongue,
        commands: &Value,
        around: &mut Surroundings<'_>,
    ) -> u32 {
        let message = match tongue {
            Tongue::Json | Tongue::Binary => commands.to_string(),
            Tongue::Toy => toy_speech::message(commands),
        };
        if let Some(each) = commands.as_array()
            && message.len() > around.message_max
        {
            let sent = each.iter().map(|it| self.send_commands(tongue, it, around));
            return sent.sum();
        }
        self.send_message(0x81, message.as_bytes(), around);
        1
    }

    fn one_command(&self, many: &mut Many, around: &mut Surroundings<'_>) -> Value {
        let target = match around.random.chance(70) {
            true => Target::Topic(around.random.below(around.topics)),
            false => Target::Pattern(around.random.below(PATTERN_COUNT)),
        };
        match around.random.below(20) {
            0..6 => {
                let start = match target {
                    Target::Topic(topic) => self.some_start(topic, around),
                    Target::Pattern(_) => Start::Now,
                };
                many.subscribe(target, start)
            }
            6..9 => {
                let id = many.take_id(Pending::Unsubscribe(target));
                let (field, name) = target.field();
                json!({"type": "unsubscribe", "id": id, field: name})
            }
            9..11 => {
                let topic = around.random.below(around.topics);
                let id = many.take_id(Pending::Presence(topic));
                json!({"type": "presence", "id": id, "topic": TOPICS[topic]})
            }
            // The toy has no such command.
            11 if many.tongue != Tongue::Toy && around.random.chance(70) => {
                let topic = around.random.below(around.topics);
                let start = self.some_start(topic, around);
                many.ask_page(topic, start, around)
            }
            11 => {
                let id = many.take_id(Pending::Ping);
                json!({"type": "ping", "id": id})
            }
            _ => self.publish_command(many, around.random.below(around.topics), around),
        }
    }

    /// Where a subscription is to begin that continues nothing.
    pub(super) fn some_start(&self, topic: usize, around: &mut Surroundings<'_>) -> Start {
        match around.random.below(6) {
            0 => Start::Last(around.random.within(0, 12)),
            1 => Start::Since((0, u64::MAX)),
            2 => match around.records.newest_place(topic) {
                // It may have been cut off a while ago, or know more than is true.
                Some((epoch, offset)) => {
                    let back = around.random.within(0, 6);
                    Start::Since((epoch, (offset + 1).saturating_sub(back)))
                }
                None => Start::Now,
            },
            _ => Start::Now,
        }
    }

    /// Ends a subscription, and begins it again or another one of its kind with the next command; or begins one that it
    /// does not want after all.
    fn change(&self, many: &mut Many, batch: &mut Vec<Value>, around: &mut Surroundings<'_>) {
        let unwanted = Target::Pattern(around.random.below(PATTERN_COUNT));
        if around.random.chance(30) && !many.live.contains_key(&unwanted) {
            batch.push(many.subscribe(unwanted, Start::Now));
            let (field, name) = unwanted.field();
            let id = many.take_id(Pending::Unsubscribe(unwanted));
            batch.push(json!({"type": "unsubscribe", "id": id, field: name}));
            return;
        }
        let at = around.random.below(many.live.len());
        let (target, view) = many.subscriptions().nth(at).expect("one of them");
        let (field, name) = target.field();
        let id = many.take_id(Pending::Unsubscribe(target));
        batch.push(json!({"type": "unsubscribe", "id": id, field: name}));
        let next = match target {
            Target::Topic(_) if around.random.chance(50) => target,
            Target::Topic(_) => Target::Topic(around.random.below(around.topics)),
            Target::Pattern(_) => Target::Pattern(around.random.below(PATTERN_COUNT)),
        };
        let place = around.records.reached(&around.records.views[view]);
        let start = match (target, place) {
            (Target::Topic(_), Some(place)) if next == target && around.random.chance(50) => {
                Start::Since(place)
            }
            _ => Start::Now,
        };
        batch.push(many.subscribe(next, start));
        around.cover.add("subscription that is changed at once", 1);
    }

    /// Asks how many are on each topic, and publishes to each.
    pub(super) fn probe(&mut self, around: &mut Surroundings<'_>) {
        let mut many = self.many.take().expect("it speaks umbel.v1");
        for (topic, name) in TOPICS.iter().enumerate().take(around.topics) {
            if around.records.rules[topic].presence {
                let id = many.take_id(Pending::Presence(topic));
                let message = json!({"type": "presence", "id": id, "topic": name});
                self.send_message(0x81, message.to_string().as_bytes(), around);
            }
            let publish = Publish {
                topic,
                publisher: self.id,
                by_websocket: true,
                sent_step: around.step,
                key: None,
                fate: Fate::Sent,
                place: None,
                payload_bytes: 0,
                may_be_refused: true,
                once: None,
                sent_ms: around.now_ms,
                sendings: 1,
                is_tombstone: false,
                ttl_ms: None,
                expires_ms: None,
            };
            let (number, payload) = around.records.publish(publish, 20);
            let id = many.take_id(Pending::Publish(number, topic, true));
            let text = String::from_utf8(payload).expect("as it was made");
            let message =
                json!({"type": "publish", "id": id, "topic": name, "data": text, "receipt": true});
            self.send_message(0x81, message.to_string().as_bytes(), around);
        }
        self.many = Some(many);
    }

    /// A text message of the node.
    pub(super) fn take_text(&mut self, text: &[u8], around: &mut Surroundings<'_>) {
        if self
            .many
            .as_ref()
            .is_some_and(|many| many.tongue == Tongue::Toy)
        {
            return self.take_toy_message(text, around);
        }
        self.take_json(&serde_json::from_slice(text).expect("JSON"), around);
    }

    pub(super) fn take_json(&mut self, answer: &Value, around: &mut Surroundings<'_>) {
        let mut many = self.many.take().expect("it has many subscriptions");
        let kind = answer["type"].as_str().expect("a type").to_owned();
        many.check_told(&kind);
        match &*kind {
            "publication" => {
                assert!(
                    many.tongue != Tongue::Binary,
                    "publications come in binary messages"
                );
                let payload = answer["data"].as_str().expect("text");
                let place = parse_place(answer["position"].as_str().expect("a position"));
                let key = answer["key"].as_str();
                let view = view_of(&many, answer);
                see(&many, view, payload.as_bytes(), place, key, around);
            }
            "gap" => {
                let view = view_of(&many, answer);
                let place = |name: &str| parse_place(answer[name].as_str().expect("a position"));
                let topic = topic_number(answer["topic"].as_str().expect("a topic"));
                let item = Item::Gap(topic, place("from"), place("to"));
                around.records.views[view].items.push(item);
                around.cover.add("gap that is named", 1);
                let is_pattern = answer["pattern"].is_string();
                around.cover.add("gap by a pattern", u64::from(is_pattern));
            }
            "expiring" => around.cover.add("told that a token ends", 1),
            "welcome" => many.take_welcome(answer, around),
            "unsubscribed" if answer["id"].is_null() => many.take_ended(answer, around),
            "presence_skipped" => many.take_skipped(answer, around),
            "join" | "leave" => many.take_change(answer, kind == "join", around),
            "error" if answer["id"].is_null() => panic!("nothing without an id is wrong: {answer}"),
            _ => self.take_reply(&mut many, &kind, answer, around),
        }
        self.many = Some(many);
    }

    fn take_reply(
        &self,
        many: &mut Many,
        kind: &str,
        answer: &Value,
        around: &mut Surroundings<'_>,
    ) {
        let id = answer["id"].as_u64();
        let id = id.unwrap_or_else(|| panic!("an answer has an id: {answer}")) as u32;
        let pending = many.pending.remove(&id);
        let pending = pending.unwrap_or_else(|| panic!("an answer to nothing: {answer}"));
        if kind != "error" {
            many.check_allowed(id, &pending, answer, around.records);
        }
        match (pending, kind) {
            (Pending::Subscribe(target, start), "subscribed") => {
                let view = self.begin_subscription(many, target, start, answer, around);
                let before = many.live.insert(target, view);
                assert_eq!(before, None, "subscribed twice: {answer}");
            }
            (Pending::Unsubscribe(target), "unsubscribed") => {
                let is_superseded = |other: &u32, pending: &Pending| {
                    *other < id && matches!(pending, Pending::Subscribe(of, _) if *of == target)
                };
                let asked = many.pending.len();
                many.pending.retain(|other, it| !is_superseded(other, it));
                let view = many.live.remove(&target);
                let has_waited = many.pending.len() < asked;
                assert!(view.is_some() != has_waited, "ended what was not: {answer}");
                let path = if has_waited {
                    "unsubscribed before subscribed"
                } else {
                    "unsubscribed"
                };
                around.cover.add(path, 1);
                if let Some(view) = view {
                    around.records.views[view].ended = true;
                }
                if let Target::Topic(topic) = target {
                    many.present.remove(&topic);
                }
            }
            (Pending::Publish(number, _, wants_receipt), "published") => {
                many.take_published(number, wants_receipt, answer, around);
            }
            // The key it took was forgotten, or never known.
            (Pending::Misuse(number, _), "published") => {
                many.take_published(number, false, answer, around);
            }
            (Pending::Presence(topic), "presence") => {
                let asked_ms = many.asked_ms.get(&id).copied().unwrap_or_default();
                many.take_list((self.id, asked_ms), topic, answer, around);
            }
            (Pending::Page(request), "history") => many.take_page(&request, answer, around),
            (Pending::Auth(shown), "authenticated") => {
                many.take_authenticated(id, shown, answer, around);
            }
            (Pending::Ping, "pong") => around.cover.add("pong to a command", 1),
            (pending, "error") => many.take_error(id, &pending, answer, around),
            (pending, _) => panic!("{answer} to {pending:?}"),
        }
    }

    /// A binary message of the node: a publication.
    pub(super) fn take_binary(&mut self, message: &[u8], around: &mut Surroundings<'_>) {
        let many = self.many.as_ref().expect("it speaks umbel.v1");
        assert!(
            many.tongue == Tongue::Binary,
            "publications come in text messages"
        );
        many.check_told("a publication");
        let (head, mut rest) = message.split_at(18);
        assert_eq!(head[0], 1, "payloads here are text");
        let number = |at: usize| {
            let bytes: [u8; 8] = head[at..at + 8].try_into().expect("eight bytes");
            u64::from_be_bytes(bytes)
        };
        let mut take_name = || {
            let (len, tail) = rest.split_first().expect("a length");
            let (name, tail) = tail.split_at(usize::from(*len));
            rest = tail;
            std::str::from_utf8(name).expect("a name is text")
        };
        let topic = topic_number(take_name());
        let target = match head[1] & 1 {
            0 => Target::Topic(topic),
            _ => Target::Pattern(pattern_number(take_name())),
        };
        let key = (head[1] & 2 != 0).then(take_name);
        if head[1] & 4 != 0 {
            let (len, tail) = rest.split_first_chunk().expect("a length");
            rest = &tail[usize::from(u16::from_be_bytes(*len))..];
        }
        let view = many.live.get(&target);
        let view = *view.unwrap_or_else(|| panic!("of no subscription: {target:?}"));
        let many = self.many.as_ref().expect("as before");
        see(many, view, rest, (number(2), number(10)), key, around);
        around.cover.add("binary publication", 1);
    }
}

/// The view of the subscription by which a publication or a gap comes.
fn view_of(many: &Many, answer: &Value) -> usize {
    let target = match answer["pattern"].as_str() {
        Some(pattern) => Target::Pattern(pattern_number(pattern)),
        None => Target::Topic(topic_number(answer["topic"].as_str().expect("a topic"))),
    };
    let view = many.live.get(&target);
    *view.unwrap_or_else(|| panic!("of no subscription: {answer}"))
}

fn see(
    many: &Many,
    view: usize,
    payload: &[u8],
    place: Place,
    key: Option<&str>,
    around: &mut Surroundings<'_>,
) {
    let records = &mut *around.records;
    let number = records.see(view, payload);
    many.check_seen(view, number, records);
    records.place_at(number, place);
    assert_eq!(records.publishes[number].key, key, "the key of {number}");
    let is_pattern = matches!(records.views[view].target, Target::Pattern(_));
    let path = match is_pattern {
        true => "publication by a pattern",
        false => "publication on umbel.v1",
    };
    around.cover.add(path, 1);
}

impl Many {
    fn take_error(
        &mut self,
        id: u32,
        pending: &Pending,
        answer: &Value,
        around: &mut Surroundings<'_>,
    ) {
        let code = answer["code"].as_str().expect("a code");
        around.cover.add(&format!("error {code}"), 1);
        let waits = |target: &Target| {
            self.pending.iter().any(|(other, it)| {
                *other < id && matches!(it, Pending::Subscribe(of, _) if of == target)
            })
        };
        match (pending, code) {
            (pending, "forbidden") => self.take_forbidden(id, pending, answer, around),
            (pending, "unauthorized") => self.take_unauthorized(id, pending, answer, around),
            (Pending::Auth(held::Shown::Foreign(_)), "subject_changed") => {}
            (Pending::Subscribe(target, _), "already_subscribed") => {
                assert!(self.live.contains_key(target) || waits(target), "{answer}");
            }
            (Pending::Unsubscribe(target), "not_subscribed") => {
                assert!(
                    !self.live.contains_key(target) && !waits(target),
                    "{answer}"
                );
            }
            (Pending::Subscribe(..), "too_many_subscriptions" | "too_many_topics") => {}
            (Pending::Presence(topic), "unsupported") => {
                let asked_ms = self.asked_ms.get(&id).copied().unwrap_or_default();
                let may_lack = around
                    .records
                    .may_lack_presence(*topic, asked_ms, around.now_ms);
                assert!(may_lack, "{answer}");
            }
            (Pending::Publish(number, ..), "unavailable") => around.records.refuse(*number),
            (Pending::Publish(number, ..), "fate_unknown") => {
                assert!(around.records.publishes[*number].once.is_some(), "{answer}");
                around.records.refuse(*number);
            }
            // Whoever took its key was first: this one was refused before, by an answer that was lost.
            (Pending::Publish(number, ..), "idempotency_key_reused") => {
                assert!(around.records.is_key_misused(*number), "{answer}");
                around.records.refuse(*number);
            }
            (
                Pending::Misuse(number, _),
                "unavailable" | "fate_unknown" | "idempotency_key_reused",
            ) => around.records.refuse(*number),
            (Pending::Subscribe(..) | Pending::Presence(_) | Pending::Page(_), "unavailable") => {}
            _ => panic!("{answer} to {pending:?}"),
        }
    }
}
