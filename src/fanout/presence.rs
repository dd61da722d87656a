//! Joins and leaves on their way to the members of a topic: encoded once for each dialect, and written to each member
//! once a tick.
//!
//! ```text
//!  changes of a topic:  [ join 1 | join 2 | leave 1 | ... ]
//!                                ^ where one begins who joined, or asked who is there, behind the first
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::dialect::{Dialects, Encoding, Push};
use crate::hub::PresenceChange;

/// Bytes of one topic's changes that wait for the end of the tick. More are written at once, so that a member that takes
/// nothing meets the limit of its outbox.
const CHANGES_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a change besides its names.
const CHANGE_BYTES: usize = 64;

/// Changes of one topic that its members are yet to hear.
#[derive(Debug, Default)]
pub struct Changes {
    changes: Vec<Arc<PresenceChange>>,
    bytes: usize,
    /// How many of them those members know, by slab index, that do not get all.
    known: HashMap<u32, usize>,
    /// All of them, as each of the dialects has them whose members were asked for.
    encoded: Vec<EncodedChanges>,
}

#[derive(Debug)]
struct EncodedChanges {
    encoding: Encoding,
    frames: Vec<u8>,
    /// Where each change begins, and where the last one ends.
    bounds: Vec<usize>,
}

impl EncodedChanges {
    fn new(encoding: Encoding) -> EncodedChanges {
        EncodedChanges {
            encoding,
            frames: Vec::new(),
            bounds: vec![0],
        }
    }

    fn push(&mut self, change: &PresenceChange, dialects: &Dialects) {
        let mut message = Vec::with_capacity(128);
        let push = Push::Presence(change);
        dialects.get(self.encoding).encode_push(&mut message, &push);
        dialects.frame_message(self.encoding, &message, &mut self.frames);
        self.bounds.push(self.frames.len());
    }
}

impl Changes {
    /// Frames of the changes that a member is yet to hear.
    pub fn rest(&mut self, connection: u32, encoding: Encoding, dialects: &Dialects) -> &[u8] {
        let known = self.known.get(&connection).copied().unwrap_or(0);
        let found = self.encoded.iter().position(|it| it.encoding == encoding);
        let at = found.unwrap_or_else(|| {
            self.encoded.push(EncodedChanges::new(encoding));
            self.encoded.len() - 1
        });
        let encoded = &mut self.encoded[at];
        for change in &self.changes[encoded.bounds.len() - 1..] {
            encoded.push(change, dialects);
        }
        &encoded.frames[encoded.bounds[known]..]
    }
}

/// Changes of all topics, by the topic's place. The order is the same in every run, so that the simulation
/// repeats itself.
#[derive(Debug, Default)]
pub struct PresenceChanges(BTreeMap<u32, Changes>);

impl PresenceChanges {
    /// Adds a change. True if no more may wait.
    pub fn push(&mut self, place: u32, change: Arc<PresenceChange>) -> bool {
        let changes = self.0.entry(place).or_default();
        let info = change.member.info.as_ref().map_or(0, |info| info.len());
        changes.bytes += CHANGE_BYTES + change.topic.as_str().len() + info;
        changes.changes.push(change);
        changes.bytes >= CHANGES_BYTES_MAX
    }

    /// A connection has just become a member: what waits came before it.
    pub fn begin(&mut self, place: u32, connection: u32) {
        if let Some(changes) = self.0.get_mut(&place) {
            changes.known.insert(connection, changes.changes.len());
        }
    }

    /// Gives one member what waits for it, ahead of the others.
    pub fn take_rest(
        &mut self,
        place: u32,
        connection: u32,
        encoding: Encoding,
        dialects: &Dialects,
        out: &mut Vec<u8>,
    ) {
        if let Some(changes) = self.0.get_mut(&place) {
            out.extend_from_slice(changes.rest(connection, encoding, dialects));
            self.begin(place, connection);
        }
    }

    /// Takes the changes of one topic, by its place.
    pub fn take(&mut self, place: u32) -> Option<Changes> {
        self.0.remove(&place)
    }

    /// Takes the changes of the first topic that has some.
    pub fn take_first(&mut self) -> Option<(u32, Changes)> {
        self.0.pop_first()
    }
}
