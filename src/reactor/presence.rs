//! Who came and went, on its way to the members of a topic: encoded once, and written to each of them once a tick.
//!
//! ```text
//!  frames of a topic:  [ join 1 | join 2 | leave 1 | ... ]
//!                               ^ where one begins who joined, or asked who is there, behind the first
//! ```

use std::collections::{BTreeMap, HashMap};

use super::connections::Connections;
use super::transport::Transport;
use crate::dialect::v1;
use crate::hub::{LocalTopic, PresenceChange};
use crate::protocol::{Opcode, encode_frame};

/// Bytes of one topic's changes that wait for the end of the tick. More are written at once, so that a member that takes
/// nothing meets the limit of its outbox.
const CHANGES_BYTES_MAX: usize = 16 * 1024;

/// The changes of one topic that its members have not been told of.
#[derive(Debug, Default)]
struct Changes {
    frames: Vec<u8>,
    /// Where in `frames` those members begin, by slab index, that do not get all of them.
    begins: HashMap<u32, usize>,
}

impl Changes {
    /// What a member has not been told of.
    fn rest(&self, connection: u32) -> &[u8] {
        let begin = self.begins.get(&connection).copied().unwrap_or(0);
        &self.frames[begin..]
    }
}

/// The changes of all topics, by the topic's place. The order is the same in every run, so that the simulation repeats
/// itself.
#[derive(Debug, Default)]
pub(super) struct PresenceChanges(BTreeMap<u32, Changes>);

impl PresenceChanges {
    /// Adds a change. True if no more may wait.
    fn push(&mut self, place: u32, change: &PresenceChange) -> bool {
        let changes = self.0.entry(place).or_default();
        let mut payload = Vec::with_capacity(128);
        v1::encode_presence_change(&mut payload, change);
        encode_frame(&mut changes.frames, Opcode::Text, &payload, None);
        changes.frames.len() >= CHANGES_BYTES_MAX
    }

    /// A connection has just become a member: what waits came before it.
    pub fn begin(&mut self, place: u32, connection: u32) {
        if let Some(changes) = self.0.get_mut(&place) {
            changes.begins.insert(connection, changes.frames.len());
        }
    }

    /// Gives one member what waits for it, ahead of the others.
    pub fn take_rest(&mut self, place: u32, connection: u32, out: &mut Vec<u8>) {
        if let Some(changes) = self.0.get(&place) {
            out.extend_from_slice(changes.rest(connection));
            self.begin(place, connection);
        }
    }
}

impl<T: Transport> Connections<T> {
    /// Somebody came to a topic, or went. Its members are told at the end of this tick's mail.
    pub(super) fn handle_presence_changed(
        &mut self,
        local: LocalTopic,
        change: &PresenceChange,
        now_ms: u64,
    ) {
        // Another topic may have its place by now.
        if self.application.topics.is_here(local) && self.presence.push(local.index, change) {
            self.deliver_presence_of(local.index, now_ms);
        }
    }

    /// Tells the members of all topics of this tick's changes.
    pub(super) fn deliver_presence(&mut self, now_ms: u64) {
        while let Some((&place, _)) = self.presence.0.first_key_value() {
            self.deliver_presence_of(place, now_ms);
        }
    }

    /// Tells the members of one topic, ahead of what comes later in the same tick.
    pub(super) fn deliver_presence_of(&mut self, place: u32, now_ms: u64) {
        let Some(changes) = self.presence.0.remove(&place) else {
            return;
        };
        let members = self.application.topics.take_members(place);
        for &index in members.connections() {
            let rest = changes.rest(index);
            let slot = self.slots.get(index as usize);
            if !rest.is_empty() && slot.is_some_and(|slot| slot.connection.takes_deliveries()) {
                self.out.extend_from_slice(rest);
                self.settle(index, now_ms);
            }
        }
        self.application.topics.put_back_members(place, members);
    }
}
