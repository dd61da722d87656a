//! Publishes without an idempotency key, in either form.

use serde_json::{Value, json};

use super::{KEYS, Many, Pending, Tongue};
use crate::peer::{Peer, Surroundings};
use crate::snapshot::some_tombstone;
use crate::time_to_live::some_ttl_ms;
use crate::topics::TOPICS;

impl Peer {
    pub(super) fn publish_command(
        &self,
        many: &mut Many,
        topic: usize,
        around: &mut Surroundings<'_>,
    ) -> Value {
        let key = *around.random.pick(KEYS);
        let (number, payload) = self.record(topic, true, key, around);
        let wants_receipt = around.random.chance(30);
        around.records.publishes[number].may_be_refused = wants_receipt || many.is_holder();
        many.note_publish(number, topic, around.records);
        if many.is_keyed {
            return many.publish_once(number, wants_receipt, around);
        }
        let is_named = wants_receipt || around.random.chance(70) || many.is_holder();
        let id = is_named.then(|| many.take_id(Pending::Publish(number, topic, wants_receipt)));
        let text = String::from_utf8(payload).expect("as it was made");
        let mut command = json!({"type": "publish", "topic": TOPICS[topic], "data": text});
        if let Some(id) = id {
            command["id"] = id.into();
        }
        if let Some(key) = key {
            command["key"] = key.into();
        }
        if wants_receipt {
            command["receipt"] = true.into();
        }
        // The toy has no such fields.
        if many.tongue == Tongue::Toy {
            return command;
        }
        if let Some(ttl_ms) = some_ttl_ms(number, around) {
            command["ttl_ms"] = ttl_ms.into();
        }
        if some_tombstone(number, around) {
            command["tombstone"] = true.into();
        }
        command
    }

    pub(super) fn publish_binary(&mut self, many: &mut Many, around: &mut Surroundings<'_>) {
        if many.is_keyed {
            return self.publish_once_binary(many, around);
        }
        let topic = around.random.below(around.topics);
        let key = *around.random.pick(KEYS);
        let (number, payload) = self.record(topic, true, key, around);
        let wants_receipt = around.random.chance(30);
        around.records.publishes[number].may_be_refused = wants_receipt || many.is_holder();
        many.note_publish(number, topic, around.records);
        let is_named = wants_receipt || around.random.chance(70) || many.is_holder();
        let id = is_named.then(|| many.take_id(Pending::Publish(number, topic, wants_receipt)));
        let flags =
            u8::from(id.is_some()) | u8::from(key.is_some()) << 1 | u8::from(wants_receipt) << 2;
        let mut message = vec![3, flags];
        message.extend(id.iter().flat_map(|id| id.to_be_bytes()));
        for name in [Some(TOPICS[topic]), key].into_iter().flatten() {
            message.push(name.len() as u8);
            message.extend(name.as_bytes());
        }
        message.extend(&payload);
        many.messages_sent += 1;
        self.send_message(0x82, &message, around);
        around.cover.add("binary publish", 1);
    }
}
