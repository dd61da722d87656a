//! Joins and leaves on their way to the members of a topic: told in batches, each encoded once for each dialect.
//!
//! ```text
//!  changes of a topic:  [ join 1 | join 2 | leave 1 | ... ]   told: join 2
//!                                ^ where one begins who joined, or asked who is there, behind the first
//! ```
//!
//! A batch is what came in a tick; or in a longer time, where more would be written to the members of the topic than
//! `presence_writes_per_second_max`. If more comes in that time than a batch holds, its members are told that news was left out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::config::Limits;
use crate::connection::NEVER_MS;
use crate::dialect::{Dialects, Encoding, Push};
use crate::hub::{LocalTopic, PresenceChange, ReactorId};
use crate::topic::Topic;

/// Bytes of a change besides its names.
const CHANGE_BYTES: usize = 64;

/// Bytes of a batch that cost as much as the write itself.
const WRITE_BYTES: usize = 1024;

/// Writes that may come at once are those of so much time.
const BURST_US: u64 = 1_000_000;

/// Topics whose rates are kept before it is looked for such that are over.
const PAID_MIN: usize = 64;

/// Changes of one topic that its members are yet to hear.
#[derive(Debug)]
pub struct Changes {
    /// Name of the topic here.
    pub local: LocalTopic,
    topic: Topic,
    changes: Vec<Arc<PresenceChange>>,
    bytes: usize,
    /// How many there were, those that are left out included.
    count: usize,
    /// There were more than may wait.
    is_skipped: bool,
    /// Members after the last one.
    members: u32,
    /// How many of them those members know, by slab index, that do not get all.
    known: HashMap<u32, usize>,
    /// What is told, by dialect and by how many are known.
    encoded: Vec<(Encoding, usize, Arc<[u8]>)>,
}

impl Changes {
    fn new(local: LocalTopic, topic: Topic) -> Changes {
        Changes {
            local,
            topic,
            changes: Vec::new(),
            bytes: 0,
            count: 0,
            is_skipped: false,
            members: 0,
            known: HashMap::new(),
            encoded: Vec::new(),
        }
    }

    fn push(&mut self, change: Arc<PresenceChange>) {
        let info = change.member.info.as_ref().map_or(0, |info| info.len());
        self.members = change.members;
        self.count += 1;
        self.encoded.clear();
        if !self.is_skipped {
            self.bytes += CHANGE_BYTES + change.topic.as_str().len() + info;
            self.changes.push(change);
        }
    }

    /// Frames of what a member is yet to hear.
    pub fn rest(&mut self, connection: u32, encoding: Encoding, dialects: &Dialects) -> Arc<[u8]> {
        let known = self.known.get(&connection).copied().unwrap_or(0);
        let is_it = |it: &&(Encoding, usize, _)| (it.0, it.1) == (encoding, known);
        if let Some((.., frames)) = self.encoded.iter().find(is_it) {
            return Arc::clone(frames);
        }
        let frames: Arc<[u8]> = self.encode(known, encoding, dialects).into();
        self.encoded.push((encoding, known, Arc::clone(&frames)));
        frames
    }

    fn encode(&self, known: usize, encoding: Encoding, dialects: &Dialects) -> Vec<u8> {
        let mut frames = Vec::new();
        let mut tell = |push: &Push<'_>| {
            let mut message = Vec::with_capacity(128);
            dialects.get(encoding).encode_push(&mut message, push);
            if !message.is_empty() {
                dialects.frame_message(encoding, &message, &mut frames);
            }
        };
        if !self.is_skipped {
            let news = news(&self.changes[known..]);
            news.for_each(|change| tell(&Push::Presence(change)));
        } else if known < self.count {
            let (topic, members) = (&self.topic, self.members);
            tell(&Push::PresenceSkipped { topic, members });
        }
        frames
    }
}

/// What is left of changes: of each member its last one, unless that takes it back to where it was.
fn news(changes: &[Arc<PresenceChange>]) -> impl Iterator<Item = &PresenceChange> {
    let name = |change: &PresenceChange| -> (ReactorId, u64) {
        (change.member.reactor, change.member.connection)
    };
    let mut spans: HashMap<_, (usize, usize)> = HashMap::new();
    for (index, change) in changes.iter().enumerate() {
        spans.entry(name(change)).or_insert((index, index)).1 = index;
    }
    let last_of = move |(index, change): (usize, &'_ Arc<PresenceChange>)| {
        let (first, last) = spans[&name(change)];
        let first = &changes[first];
        let is_told = match (first.is_join, change.is_join) {
            (true, is_here) => is_here,
            (false, true) => {
                let (before, now) = (&first.member, &change.member);
                (&before.info, &before.identity) != (&now.info, &now.identity)
            }
            (false, false) => true,
        };
        index == last && is_told
    };
    let numbered = changes.iter().enumerate();
    numbered
        .filter(move |&it| last_of(it))
        .map(|(_, change)| &**change)
}

/// Changes of all topics, by the topic's place. The order is the same in every run, so that the simulation
/// repeats itself.
#[derive(Debug)]
pub struct PresenceChanges {
    waiting: BTreeMap<u32, Changes>,
    /// Until when, in microseconds, what was written of a topic would have taken at its rate.
    paid_until_us: BTreeMap<u32, u64>,
    /// How many there are of these when those that are over are looked for again: twice as many as were left, so that
    /// thousands of topics in one tick cost no look at all of them for each.
    paid_max: usize,
    writes_per_second_max: u64,
    /// Bytes of one topic's changes that wait. More are told at once, or left out if that may not be.
    changes_bytes_max: usize,
}

impl PresenceChanges {
    /// None yet, on one of so many reactors.
    pub fn new(limits: &Limits, reactors: usize) -> PresenceChanges {
        let mut changes = PresenceChanges {
            waiting: BTreeMap::new(),
            paid_until_us: BTreeMap::new(),
            paid_max: PAID_MIN,
            writes_per_second_max: 1,
            changes_bytes_max: 0,
        };
        changes.take_limits(limits, reactors);
        changes
    }

    /// Goes on by these limits, of which each reactor has its part.
    pub fn take_limits(&mut self, limits: &Limits, reactors: usize) {
        let writes = u64::from(limits.presence_writes_per_second_max);
        self.writes_per_second_max = (writes / reactors.max(1) as u64).max(1);
        self.changes_bytes_max = limits.presence_changes_bytes_max;
    }

    /// Adds a change. True if no more may wait, and none has to.
    pub fn push(&mut self, local: LocalTopic, change: Arc<PresenceChange>, now_ms: u64) -> bool {
        let new = || Changes::new(local, change.topic.clone());
        let changes = self.waiting.entry(local.index).or_insert_with(new);
        if changes.local != local {
            // Another topic has its place by now.
            *changes = new();
        }
        changes.push(change);
        if changes.bytes < self.changes_bytes_max {
            return false;
        }
        let is_due = self.due_ms(local.index) <= now_ms;
        if !is_due && let Some(changes) = self.waiting.get_mut(&local.index) {
            changes.is_skipped = true;
            (changes.changes, changes.bytes) = (Vec::new(), 0);
        }
        is_due
    }

    /// A connection has just become a member: what waits came before it.
    pub fn begin(&mut self, place: u32, connection: u32) {
        if let Some(changes) = self.waiting.get_mut(&place) {
            changes.known.insert(connection, changes.count);
        }
    }

    /// Gives one member what waits for it, ahead of the others. It knows all from the list that it gets next, so where news
    /// was left out it is not told so.
    pub fn take_rest(
        &mut self,
        (place, topic): (u32, &Topic),
        connection: u32,
        encoding: Encoding,
        dialects: &Dialects,
        out: &mut Vec<u8>,
    ) {
        if let Some(changes) = self.waiting.get_mut(&place)
            && changes.topic == *topic
        {
            if !changes.is_skipped {
                out.extend_from_slice(&changes.rest(connection, encoding, dialects));
            }
            self.begin(place, connection);
        }
    }

    /// When the members of a topic may be told something.
    fn due_ms(&self, place: u32) -> u64 {
        let paid_until_us = self.paid_until_us.get(&place).copied().unwrap_or(0);
        paid_until_us.saturating_sub(BURST_US).div_ceil(1000)
    }

    /// Moment at which something has to be told, at the earliest.
    pub fn next_due_ms(&self) -> u64 {
        let waiting = self.waiting.keys();
        waiting
            .map(|&place| self.due_ms(place))
            .min()
            .unwrap_or(NEVER_MS)
    }

    /// Takes the changes of one topic, by its place. None: its members may not be told now.
    pub fn take(&mut self, place: u32, now_ms: u64) -> Option<Changes> {
        if self.due_ms(place) > now_ms {
            return None;
        }
        self.waiting.remove(&place)
    }

    /// Places of the topics whose members may be told now.
    pub fn due(&self, now_ms: u64) -> Vec<u32> {
        let places = self.waiting.keys().copied();
        places
            .filter(|&place| self.due_ms(place) <= now_ms)
            .collect()
    }

    /// Counts what was told of a topic: so many bytes to so many members.
    pub fn count(&mut self, place: u32, members: usize, bytes: usize, now_ms: u64) {
        let now_us = now_ms * 1000;
        if self.paid_until_us.len() >= self.paid_max {
            self.paid_until_us.retain(|_, until_us| *until_us > now_us);
            self.paid_max = PAID_MIN.max(2 * self.paid_until_us.len());
        }
        let writes = members as u64 * (1 + bytes / WRITE_BYTES) as u64;
        let cost_us = (writes * 1_000_000).div_ceil(self.writes_per_second_max);
        let until_us = self.paid_until_us.entry(place).or_insert(now_us);
        *until_us = (*until_us).max(now_us).saturating_add(cost_us);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Member;

    fn change(connection: u64, info: Option<&str>, is_join: bool) -> Arc<PresenceChange> {
        Arc::new(PresenceChange {
            topic: Topic::from_text("room").expect("a topic"),
            member: Member {
                reactor: ReactorId(0),
                connection,
                info: info.map(Arc::from),
                identity: None,
            },
            is_join,
            members: 7,
        })
    }

    fn told(changes: &[Arc<PresenceChange>]) -> Vec<(u64, bool)> {
        let told = news(changes);
        told.map(|it| (it.member.connection, it.is_join)).collect()
    }

    #[test]
    fn what_is_taken_back_is_not_told() {
        let (come, go) = (change(1, Some("1"), true), change(1, Some("1"), false));
        let renamed = change(1, Some("2"), true);
        let other = change(2, None, true);
        for (changes, expected) in [
            (vec![&come, &other, &go], vec![(2, true)]),
            (vec![&go, &other, &come], vec![(2, true)]),
            (vec![&go, &other, &renamed], vec![(2, true), (1, true)]),
            (vec![&come, &go, &renamed], vec![(1, true)]),
            (vec![&go, &come, &go], vec![(1, false)]),
            (vec![], vec![]),
        ] {
            let changes: Vec<_> = changes.into_iter().map(Arc::clone).collect();
            assert_eq!(told(&changes), expected);
        }
    }

    fn with_rate(writes_per_second_max: u32) -> PresenceChanges {
        let limits = Limits {
            presence_writes_per_second_max: writes_per_second_max,
            ..Limits::default()
        };
        PresenceChanges::new(&limits, 1)
    }

    fn local(generation: u32) -> LocalTopic {
        LocalTopic {
            index: 3,
            generation,
        }
    }

    fn text(frames: &[u8]) -> String {
        String::from_utf8_lossy(frames).into_owned()
    }

    #[test]
    fn rates_that_are_over_are_forgotten() {
        let mut presence = with_rate(1000);
        for place in 0..10_000 {
            presence.count(place, 10, 1, 0);
        }
        assert_eq!(presence.paid_until_us.len(), 10_000, "each is in force");
        for place in 10_000..30_000 {
            presence.count(place, 10, 1, 100 * u64::from(place));
        }
        assert!(presence.paid_until_us.len() <= PAID_MIN, "one at a time is");
    }

    #[test]
    fn rate_is_shared_by_reactors() {
        for (reactors, rate) in [(1, 20_000), (64, 312), (100_000, 1)] {
            let presence = PresenceChanges::new(&Limits::default(), reactors);
            assert_eq!(presence.writes_per_second_max, rate, "{reactors} reactors");
        }
    }

    #[test]
    fn rate_of_a_topic_and_marker() {
        let dialects = Dialects::default();
        let mut presence = with_rate(100);
        let encoding = dialects
            .choose("/ws", ["umbel.v1"].into_iter())
            .expect("a dialect")
            .0;
        presence.push(local(1), change(1, None, true), 0);
        assert_eq!(presence.due(0), [3]);
        assert!(presence.take(3, 0).is_some());
        // As many as in a second may be written at once.
        presence.count(3, 150, 100, 0);
        presence.push(local(1), change(2, None, true), 0);
        assert_eq!((presence.due(499), presence.next_due_ms()), (vec![], 500));
        assert!(presence.take(3, 499).is_none());
        presence.begin(3, 9);
        for number in 0..400 {
            assert!(!presence.push(local(1), change(number, None, true), 0));
        }
        let mut changes = presence.take(3, 500).expect("it is due");
        let marker = r#"{"type":"presence_skipped","topic":"room","members":7}"#;
        for member in [8, 9] {
            assert!(text(&changes.rest(member, encoding, &dialects)).ends_with(marker));
        }
        // What another topic at its place left is nobody's.
        presence.push(local(1), change(1, None, true), 0);
        presence.push(local(2), change(2, None, true), 0);
        let mut changes = presence.take(3, 500).expect("it is due");
        assert!(!text(&changes.rest(8, encoding, &dialects)).contains("0-1-0"));
    }
}
