//! Publishes with an idempotency key, which are sent again by whoever takes over from a peer that was cut off.

use serde_json::{Value, json};

use super::{KEYS, Many, Pending, Tongue};
use crate::peer::{Peer, Surroundings};
use crate::records::{Receipt, Records};
use crate::topics::{TOPICS, parse_place};

/// In the compact form: it was not sent before.
const NEVER_SENT: u32 = u32::MAX;

impl Many {
    /// One whose publishes have keys.
    #[must_use]
    pub fn keyed(mut self, is_keyed: bool) -> Many {
        self.is_keyed = is_keyed && self.tongue != Tongue::Toy;
        self
    }

    /// One that sends again what another was not answered.
    #[must_use]
    pub fn resending(mut self, other: &Many, records: &Records) -> Many {
        (self.is_keyed, self.is_silent) = (other.is_keyed, other.is_silent);
        // A key is that of a publisher, and whoever has signed in meanwhile is another one.
        if !other.is_same_throughout() {
            return self;
        }
        self.resend = other.resend.clone();
        let pending = other.pending.values().filter_map(|it| match it {
            Pending::Publish(number, ..) => Some(*number),
            _ => None,
        });
        let is_keyed = |number: &usize| records.publishes[*number].once.is_some();
        self.resend.extend(pending.filter(is_keyed));
        self.resend.sort_unstable();
        self.resend.dedup();
        self
    }

    /// When a publish was first sent, in milliseconds before the connection opened.
    fn first_sent_ms(&self, number: usize, records: &Records) -> u32 {
        let sent_ms = records.publishes[number].sent_ms;
        self.opened_ms.saturating_sub(sent_ms) as u32
    }

    /// A publish with a key of its own; rarely with that of an older one, which is wrong.
    pub(super) fn publish_once(
        &mut self,
        number: usize,
        wants_receipt: bool,
        around: &mut Surroundings<'_>,
    ) -> Value {
        let records = &mut *around.records;
        let publish = &records.publishes[number];
        let topic = publish.topic;
        let is_of_its_topic = |other: &usize| {
            let other = &records.publishes[*other];
            other.once.is_some()
                && (other.topic, other.publisher) == (publish.topic, publish.publisher)
        };
        let misused = (0..number).rev().find(is_of_its_topic);
        let misused = misused.filter(|_| around.random.chance(5));
        records.publishes[number].once = Some(misused.unwrap_or(number));
        records.publishes[number].may_be_refused = true;
        let wants_receipt = wants_receipt && misused.is_none();
        let id = self.take_id(match misused {
            Some(_) => Pending::Misuse(number, topic),
            None => Pending::Publish(number, topic, wants_receipt),
        });
        around.cover.add("publish with an idempotency key", 1);
        command(id, number, wants_receipt, records)
    }
}

/// A publish with its key, as JSON.
fn command(id: u32, number: usize, wants_receipt: bool, records: &Records) -> Value {
    let publish = &records.publishes[number];
    let once = publish.once.expect("it has a key");
    let mut command = json!({"type": "publish", "id": id, "topic": TOPICS[publish.topic],
        "data": records.text(number), "idempotency_key": format!("k{once}")});
    if let Some(key) = publish.key {
        command["key"] = key.into();
    }
    if wants_receipt {
        command["receipt"] = true.into();
    }
    command
}

/// The same in the compact form.
fn message(id: u32, number: usize, first_sent_ms: u32, records: &Records) -> Vec<u8> {
    let publish = &records.publishes[number];
    let once = publish.once.expect("it has a key");
    let mut message = vec![3, 1 | u8::from(publish.key.is_some()) << 1 | 8];
    message.extend(id.to_be_bytes());
    let name = |message: &mut Vec<u8>, name: &str| {
        message.push(name.len() as u8);
        message.extend(name.as_bytes());
    };
    name(&mut message, TOPICS[publish.topic]);
    if let Some(key) = publish.key {
        name(&mut message, key);
    }
    name(&mut message, &format!("k{once}"));
    message.extend(first_sent_ms.to_be_bytes());
    message.extend(records.text(number).as_bytes());
    message
}

impl Many {
    /// The answer to a publish that has its place.
    pub(super) fn take_published(
        &mut self,
        number: usize,
        wants_receipt: bool,
        answer: &Value,
        around: &mut Surroundings<'_>,
    ) {
        let place = parse_place(answer["position"].as_str().expect("a position"));
        around.records.answer(number, place);
        let is_replay = answer["duplicate"] == true;
        if is_replay {
            assert!(around.records.publishes[number].once.is_some(), "{answer}");
            around.cover.add("duplicate that was done before", 1);
        }
        let has_receipt = !answer["receipt"].is_null();
        assert_eq!(wants_receipt && !is_replay, has_receipt, "{answer}");
        if has_receipt {
            let receipt = Receipt::parse(number, &answer["receipt"]);
            around.records.receipts.push(receipt);
            let topic = around.records.publishes[number].topic;
            self.probed.entry(topic).or_default().1 = Some(receipt.matched);
        }
    }
}

impl Peer {
    pub(super) fn publish_once_binary(&mut self, many: &mut Many, around: &mut Surroundings<'_>) {
        let topic = around.random.below(around.topics);
        let key = *around.random.pick(KEYS);
        let (number, _) = self.record(topic, true, key, around);
        let publish = &mut around.records.publishes[number];
        (publish.once, publish.may_be_refused) = (Some(number), true);
        many.note_publish(number, topic, around.records);
        let id = many.take_id(Pending::Publish(number, topic, false));
        let message = message(id, number, NEVER_SENT, around.records);
        many.messages_sent += 1;
        self.send_message(0x82, &message, around);
        around.cover.add("binary publish", 1);
    }

    /// Sends again what was not answered, in its order.
    pub(super) fn send_again(&mut self, many: &mut Many, around: &mut Surroundings<'_>) {
        for number in std::mem::take(&mut many.resend) {
            let wants_receipt = many.tongue == Tongue::Json && around.random.chance(30);
            around.records.publishes[number].sendings += 1;
            if let Some(rights) = &mut around.records.rights {
                rights.unforbid(number);
            }
            let topic = around.records.publishes[number].topic;
            let id = many.take_id(Pending::Publish(number, topic, wants_receipt));
            let first_sent_ms = many.first_sent_ms(number, around.records);
            many.messages_sent += 1;
            if many.tongue == Tongue::Binary {
                let message = message(id, number, first_sent_ms, around.records);
                self.send_message(0x82, &message, around);
            } else {
                let mut command = command(id, number, wants_receipt, around.records);
                command["first_sent_ms"] = first_sent_ms.into();
                self.send_message(0x81, command.to_string().as_bytes(), around);
            }
            around.cover.add("publish that is sent again", 1);
        }
    }
}
