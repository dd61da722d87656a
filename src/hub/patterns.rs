//! Patterns and the reactors with subscribers of each.
//!
//! It is one table for the process, in parts by the first segment, so that a publication looks into two at most: that of
//! the topic's own first segment, and that of the patterns that begin with a star. Each part has a lock of its own, which
//! whoever shares them brings.

use super::command::{LocalTopic, ReactorId};
use crate::topic::{Pattern, PatternTable, Topic};

/// Number of parts.
pub const PATTERN_PARTS: usize = 32;

/// The part of the patterns that begin with a star.
const STAR_PART: usize = 0;

/// The part of a pattern.
pub fn part_of(pattern: &Pattern) -> usize {
    match pattern.begins_with_star() {
        true => STAR_PART,
        false => named_part(pattern.as_str()),
    }
}

/// The parts of the patterns that may match a topic.
pub fn parts_of(topic: &Topic) -> [usize; 2] {
    [STAR_PART, named_part(topic.as_str())]
}

/// The part of names that begin with this one's first segment. Which it is, is no secret: patterns of one part share no more
/// than its lock.
fn named_part(name: &str) -> usize {
    let first = crate::topic::pattern::first_segment(name);
    let hash = first.bytes().fold(0u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    1 + (hash >> 8) as usize % (PATTERN_PARTS - 1)
}

/// The reactors with subscribers of a pattern, and what they call it: mostly one.
#[derive(Debug)]
enum Reactors {
    One(ReactorId, LocalTopic),
    #[expect(
        clippy::box_collection,
        reason = "there may be a million patterns, each on one reactor"
    )]
    Many(Box<Vec<(ReactorId, LocalTopic)>>),
}

const _: () = assert!(size_of::<Reactors>() <= 16);

impl Reactors {
    fn set(&mut self, reactor: ReactorId, local: LocalTopic) {
        let list = match self {
            Reactors::One(known, name) if *known == reactor => {
                *name = local;
                return;
            }
            Reactors::One(known, name) => {
                let both = vec![(*known, *name), (reactor, local)];
                *self = Reactors::Many(Box::new(both));
                return;
            }
            Reactors::Many(list) => list,
        };
        match list.iter_mut().find(|(known, _)| *known == reactor) {
            Some((_, name)) => *name = local,
            None => list.push((reactor, local)),
        }
    }

    /// True if none is left.
    fn remove(&mut self, reactor: ReactorId, local: LocalTopic) -> bool {
        match self {
            Reactors::One(known, name) => (*known, *name) == (reactor, local),
            Reactors::Many(list) => {
                list.retain(|known| *known != (reactor, local));
                list.is_empty()
            }
        }
    }

    fn for_each(&self, mut with: impl FnMut(ReactorId, LocalTopic)) {
        match self {
            Reactors::One(reactor, local) => with(*reactor, *local),
            Reactors::Many(list) => {
                for &(reactor, local) in &**list {
                    with(reactor, local);
                }
            }
        }
    }
}

/// Lookup of patterns, for a shard.
pub trait MatchPatterns {
    /// Hands over the reactors with subscribers of each pattern that matches, and what they call it. One comes once for
    /// each such pattern. Gives the number of visits, at most `VISITS_MAX`.
    fn for_each_match(&self, topic: &Topic, with: impl FnMut(ReactorId, LocalTopic)) -> usize;
}

/// One part of the table. A pattern is in it while a reactor has subscribers of it. An empty one holds no memory.
#[derive(Debug, Default)]
pub struct PatternPart {
    table: Option<Box<PatternTable<Reactors>>>,
}

impl PatternPart {
    /// Number of patterns.
    pub fn len(&self) -> usize {
        self.table.as_ref().map_or(0, |table| table.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_none()
    }

    /// Enters a reactor that has subscribers of the pattern, by this name.
    pub fn subscribe(&mut self, pattern: &Pattern, reactor: ReactorId, local: LocalTopic) {
        let table = self.table.get_or_insert_default();
        match table.get_mut(pattern) {
            Some(reactors) => reactors.set(reactor, local),
            None => {
                table.insert(pattern, Reactors::One(reactor, local));
            }
        }
    }

    /// The reactor's last subscriber of the pattern is gone. A name that is not known is ignored.
    pub fn unsubscribe(&mut self, pattern: &Pattern, reactor: ReactorId, local: LocalTopic) {
        let Some(table) = &mut self.table else {
            return;
        };
        let reactors = table.get_mut(pattern);
        if reactors.is_some_and(|reactors| reactors.remove(reactor, local)) {
            table.remove(pattern);
            self.table.take_if(|table| table.is_empty());
        }
    }
}

impl MatchPatterns for PatternPart {
    fn for_each_match(&self, topic: &Topic, mut with: impl FnMut(ReactorId, LocalTopic)) -> usize {
        let table = self.table.as_ref();
        table.map_or(0, |table| {
            table.for_each_match(topic, |reactors| reactors.for_each(&mut with))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(index: u32) -> LocalTopic {
        LocalTopic {
            index,
            generation: 1,
        }
    }

    fn seen(part: &PatternPart, topic: &str) -> Vec<(u16, u32)> {
        let topic = Topic::from_text(topic).expect("a topic");
        let mut seen = Vec::new();
        part.for_each_match(&topic, |reactor, local| seen.push((reactor.0, local.index)));
        seen
    }

    #[test]
    fn equal_patterns_share_an_entry() {
        let pattern = Pattern::parse("a/*").expect("a pattern");
        let mut part = PatternPart::default();
        part.subscribe(&pattern, ReactorId(0), local(1));
        part.subscribe(&pattern, ReactorId(1), local(2));
        part.subscribe(&pattern, ReactorId(1), local(3));
        part.subscribe(&pattern, ReactorId(2), local(4));
        assert_eq!(part.len(), 1);
        assert_eq!(seen(&part, "a/b"), [(0, 1), (1, 3), (2, 4)]);
        part.unsubscribe(&pattern, ReactorId(1), local(2));
        assert_eq!(seen(&part, "a/b").len(), 3, "an older name");
        for (reactor, index) in [(0, 1), (1, 3), (2, 4)] {
            part.unsubscribe(&pattern, ReactorId(reactor), local(index));
        }
        assert!(part.is_empty() && seen(&part, "a/b").is_empty());
    }

    #[test]
    fn topic_finds_part_of_each_pattern_that_matches() {
        let texts = [
            "a/b", "a/*", "a/**", "*", "*/b", "**", ".a", ".*", ".a/*", ".**", "a?x=/b",
        ];
        for text in texts {
            let pattern = Pattern::parse(text).expect("a pattern");
            for topic in ["a/b", "a", ".a", ".a/b", "a?x=/b"] {
                let topic = Topic::from_text(topic).expect("a topic");
                assert!(
                    !pattern.matches(&topic) || parts_of(&topic).contains(&part_of(&pattern)),
                    "{pattern} {topic}"
                );
            }
        }
    }
}
