//! Who came and went, on its way to the members of a topic: encoded once, and written to each of them once a tick.
//!
//! ```text
//!  frames of a topic:  [ join 1 | join 2 | leave 1 | ... ]
//!                               ^ where one begins who joined, or asked who is there, behind the first
//! ```

use std::collections::{BTreeMap, HashMap};

use crate::dialect::umbel_v1;
use crate::hub::PresenceChange;
use crate::protocol::{Opcode, encode_frame};

/// Bytes of one topic's changes that wait for the end of the tick. More are written at once, so that a member that takes
/// nothing meets the limit of its outbox.
const CHANGES_BYTES_MAX: usize = 16 * 1024;

/// The changes of one topic that its members have not been told of.
#[derive(Debug, Default)]
pub struct Changes {
    frames: Vec<u8>,
    /// Where in `frames` those members begin, by slab index, that do not get all of them.
    begins: HashMap<u32, usize>,
}

impl Changes {
    /// Frames of the changes that a member, by its slab index, has not been told of.
    pub fn rest(&self, connection: u32) -> &[u8] {
        let begin = self.begins.get(&connection).copied().unwrap_or(0);
        &self.frames[begin..]
    }
}

/// The changes of all topics, by the topic's place. The order is the same in every run, so that the simulation repeats
/// itself.
#[derive(Debug, Default)]
pub struct PresenceChanges(BTreeMap<u32, Changes>);

impl PresenceChanges {
    /// Adds a change. True if no more may wait.
    pub fn push(&mut self, place: u32, change: &PresenceChange) -> bool {
        let changes = self.0.entry(place).or_default();
        let mut payload = Vec::with_capacity(128);
        umbel_v1::encode_presence_change(&mut payload, change);
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

    /// Takes the changes of one topic, by its place.
    pub fn take(&mut self, place: u32) -> Option<Changes> {
        self.0.remove(&place)
    }

    /// Takes the changes of the topic at the lowest place that has some.
    pub fn take_first(&mut self) -> Option<(u32, Changes)> {
        self.0.pop_first()
    }
}
