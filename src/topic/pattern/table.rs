//! Many patterns, and those of them that match a topic.
//!
//! A trie: a node for each beginning of a pattern, named by its last segment. What a topic costs is the nodes that its
//! segments lead to, from each at most one by name and one by `*`. So that they do not double with every segment, a
//! pattern has few stars, and few segments, fewer if it has any. A topic so leads to at most [`VISITS_MAX`] nodes, however
//! many patterns there are and however they were chosen; one of three segments to no more than 15.
//!
//! All nodes are in one slab. A child is found by one index over all of them, not by a map of each node: so a node costs
//! little, and one with a million children grows in small steps too.

use slab::Slab;

use super::{Pattern, Segment, Separator, segments_of, split_segment};
use crate::hash_index::HashIndex;
use crate::shrink::Shrink;
use crate::topic::Topic;

/// The node that every pattern begins at. It stays when nothing is left.
const ROOT: u32 = 0;

/// Nodes that a topic leads to, at most, those of `**` not counted. It is 389: with four stars in eight segments there are
/// 381, and one pattern without a star goes eight further.
pub const VISITS_MAX: usize = 400;

/// The place of no node.
const NOWHERE: u32 = u32::MAX;

/// Patterns, each with the values that stand under it.
#[derive(Debug)]
pub struct PatternTable<V> {
    nodes: Slab<Node<V>>,
    /// Children that are no wildcards, by their parent's place and their segment.
    index: HashIndex,
    shrink: Shrink,
    len: usize,
}

#[derive(Debug)]
struct Node<V> {
    parent: u32,
    /// Nodes right below, wildcards among them.
    children: u32,
    separator: Separator,
    text: Box<str>,
    /// The places of the children that are wildcards, by [`wildcard_slot`].
    wildcards: [u32; WILDCARD_SLOTS],
    /// Of the pattern that ends here. In no order.
    values: Vec<V>,
}

/// Both wildcards behind each separator.
const WILDCARD_SLOTS: usize = 6;

fn star_slot(separator: Separator) -> usize {
    separator as usize
}

fn rest_slot(separator: Separator) -> usize {
    WILDCARD_SLOTS / 2 + separator as usize
}

/// Where the segment of a pattern is entered, if it is a wildcard.
fn wildcard_slot(segment: Segment<'_>) -> Option<usize> {
    match segment.text {
        "*" => Some(star_slot(segment.separator)),
        "**" => Some(rest_slot(segment.separator)),
        _ => None,
    }
}

impl<V> Node<V> {
    fn new(parent: u32, segment: Segment<'_>) -> Node<V> {
        Node {
            parent,
            children: 0,
            separator: segment.separator,
            text: segment.text.into(),
            wildcards: [NOWHERE; WILDCARD_SLOTS],
            values: Vec::new(),
        }
    }

    fn segment(&self) -> Segment<'_> {
        Segment {
            separator: self.separator,
            text: &self.text,
        }
    }
}

impl<V> Default for PatternTable<V> {
    fn default() -> PatternTable<V> {
        let mut nodes = Slab::new();
        let nothing = Segment {
            separator: Separator::None,
            text: "",
        };
        let root = nodes.insert(Node::new(NOWHERE, nothing));
        debug_assert_eq!(root, ROOT as usize);
        PatternTable {
            nodes,
            index: HashIndex::default(),
            shrink: Shrink::default(),
            len: 0,
        }
    }
}

impl<V: PartialEq> PatternTable<V> {
    /// Values in the table. One that was inserted twice under the same pattern counts twice.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a value under a pattern. One that is there already is then there twice.
    pub fn insert(&mut self, pattern: &Pattern, value: V) {
        let mut at = ROOT;
        for segment in segments_of(pattern.as_str()) {
            at = match self.child(at, segment) {
                Some(child) => child,
                None => self.insert_child(at, segment),
            };
        }
        self.nodes[at as usize].values.push(value);
        self.len += 1;
    }

    /// Removes a value from under a pattern, and nodes that become unused. True if it was there. It looks through the
    /// values of that pattern.
    pub fn remove(&mut self, pattern: &Pattern, value: &V) -> bool {
        let mut at = ROOT;
        for segment in segments_of(pattern.as_str()) {
            let Some(child) = self.child(at, segment) else {
                return false;
            };
            at = child;
        }
        let values = &mut self.nodes[at as usize].values;
        let Some(index) = values.iter().position(|other| other == value) else {
            return false;
        };
        values.swap_remove(index);
        if values.len() < values.capacity() / 4 {
            values.shrink_to(values.len() * 2);
        }
        self.len -= 1;
        self.prune(at);
        true
    }

    /// Hands over each value whose pattern matches a topic, in no order. A value that stands under several patterns
    /// comes once for each that matches. Gives the number of nodes that the topic led to, at most [`VISITS_MAX`].
    pub fn for_each_match(&self, topic: &Topic, mut with: impl FnMut(&V)) -> usize {
        if self.is_empty() {
            return 0;
        }
        let visits = self.visit(ROOT, topic.as_str(), &mut with);
        debug_assert!(visits <= VISITS_MAX);
        visits
    }

    /// Goes on from a node with what is left of a topic. Gives the nodes it came to, those of `**` not counted, each of
    /// which is a match.
    fn visit(&self, mut at: u32, mut rest: &str, with: &mut impl FnMut(&V)) -> usize {
        let mut visits = 1;
        while !rest.is_empty() {
            let (segment, behind) = split_segment(rest);
            let node = &self.nodes[at as usize];
            self.hand_over(node.wildcards[rest_slot(segment.separator)], with);
            if at == ROOT && !segment.separator.is_none() {
                self.hand_over(node.wildcards[rest_slot(Separator::None)], with);
            }
            let star = node.wildcards[star_slot(segment.separator)];
            if star != NOWHERE && !segment.text.is_empty() {
                // It is as deep as a pattern has stars.
                visits += self.visit(star, behind, with);
            }
            let Some(named) = self.named_child(at, segment) else {
                return visits;
            };
            (at, rest) = (named, behind);
            visits += 1;
        }
        self.hand_over(at, with);
        visits
    }

    fn hand_over(&self, place: u32, with: &mut impl FnMut(&V)) {
        if let Some(node) = self.nodes.get(place as usize) {
            node.values.iter().for_each(with);
        }
    }

    /// The node that the next segment of a pattern leads to.
    fn child(&self, at: u32, segment: Segment<'_>) -> Option<u32> {
        match wildcard_slot(segment) {
            Some(slot) => {
                let place = self.nodes[at as usize].wildcards[slot];
                (place != NOWHERE).then_some(place)
            }
            None => self.named_child(at, segment),
        }
    }

    fn named_child(&self, at: u32, segment: Segment<'_>) -> Option<u32> {
        if self.nodes[at as usize].children == 0 {
            return None;
        }
        let hash = self.index.hash((at, segment));
        self.index.find(hash, |place| {
            let node = &self.nodes[place as usize];
            node.parent == at && node.segment() == segment
        })
    }

    fn insert_child(&mut self, at: u32, segment: Segment<'_>) -> u32 {
        let place = self.nodes.insert(Node::new(at, segment)) as u32;
        let parent = &mut self.nodes[at as usize];
        parent.children += 1;
        match wildcard_slot(segment) {
            Some(slot) => parent.wildcards[slot] = place,
            None => {
                let hash = self.index.hash((at, segment));
                self.index.insert(hash, place);
            }
        }
        place
    }

    /// Removes a node that neither holds a value nor leads to one, and then its parent if that holds for it, and so on.
    fn prune(&mut self, mut at: u32) {
        while at != ROOT {
            let node = &self.nodes[at as usize];
            if !node.values.is_empty() || node.children > 0 {
                break;
            }
            let node = self.nodes.remove(at as usize);
            let parent = &mut self.nodes[node.parent as usize];
            parent.children -= 1;
            match wildcard_slot(node.segment()) {
                Some(slot) => parent.wildcards[slot] = NOWHERE,
                None => {
                    let hash = self.index.hash((node.parent, node.segment()));
                    self.index.remove(hash, at);
                }
            }
            at = node.parent;
        }
        self.shrink.shrink(&mut self.nodes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{SEGMENTS_MAX, STAR_SEGMENTS_MAX, STARS_MAX};
    use super::*;

    fn topic(text: &str) -> Topic {
        Topic::from_text(text).expect("a topic")
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect("a pattern")
    }

    fn table<T: AsRef<str>>(patterns: impl IntoIterator<Item = T>) -> PatternTable<u32> {
        let mut table = PatternTable::default();
        for (value, text) in (0..).zip(patterns) {
            table.insert(&pattern(text.as_ref()), value);
        }
        table
    }

    fn visits(table: &PatternTable<u32>, name: &str) -> usize {
        table.visit(ROOT, topic(name).as_str(), &mut |_| {})
    }

    /// Patterns and topics over few segments, so that they often meet.
    fn names() -> impl Strategy<Value = (Pattern, Topic)> {
        let pattern = "\\.?(a|b|\\*)(/(a|b|\\*)|\\.(a|b|\\*|)){0,4}([/.]\\*\\*)?(\\?a)?|\\*\\*"
            .prop_filter_map("a pattern", |text| Pattern::parse(&text).ok());
        let topic = "\\.?(a|b|\\*)(/(a|b)|\\.(a|b|)){0,5}(\\?a)?"
            .prop_filter_map("a topic", |text| Topic::from_text(&text).ok());
        (pattern, topic)
    }

    /// Nothing but the root is left, and it is as new.
    fn assert_is_vacant(table: &PatternTable<u32>) {
        assert!(table.is_empty());
        assert_eq!(table.nodes.len(), 1);
        let root = &table.nodes[ROOT as usize];
        assert_eq!(root.children, 0);
        assert_eq!(root.wildcards, [NOWHERE; WILDCARD_SLOTS]);
        assert_eq!(root.values.capacity(), 0);
    }

    proptest! {
        #[test]
        fn it_matches_as_each_pattern_does(
            names in proptest::collection::vec((names(), 0..3u32), 1..40),
            removed in proptest::collection::vec(any::<proptest::sample::Index>(), 0..40),
        ) {
            let mut table = PatternTable::default();
            let mut held: Vec<(Pattern, u32)> = Vec::new();
            for ((pattern, _), value) in &names {
                table.insert(pattern, *value);
                held.push((pattern.clone(), *value));
            }
            for index in removed {
                let ((pattern, _), value) = &names[index.index(names.len())];
                let found = held.iter().position(|(other, held)| other == pattern && held == value);
                prop_assert_eq!(table.remove(pattern, value), found.is_some());
                found.map(|found| held.remove(found));
            }
            prop_assert_eq!(table.len(), held.len());
            for ((_, topic), _) in &names {
                let mut expected: Vec<u32> = held
                    .iter()
                    .filter(|(pattern, _)| pattern.matches(topic))
                    .map(|(_, value)| *value)
                    .collect();
                let mut matches = Vec::new();
                table.for_each_match(topic, |value| matches.push(*value));
                expected.sort_unstable();
                matches.sort_unstable();
                prop_assert_eq!(matches, expected, "{}", topic);
            }
            for (pattern, value) in held {
                prop_assert!(table.remove(&pattern, &value));
            }
            assert_is_vacant(&table);
        }
    }

    #[test]
    fn nothing_is_left_behind() {
        let texts: Vec<String> = (0..30_000)
            .flat_map(|number| [format!("a/{number}/*.b"), format!("{number}.**")])
            .collect();
        let mut table = table(&texts);
        assert_eq!(table.len(), 60_000);
        assert!(!table.remove(&pattern("a/1/*"), &0), "nothing ends there");
        assert!(!table.remove(&pattern("a/1/*.b"), &0), "another value");
        for (value, text) in (0..60_000).zip(&texts).rev() {
            assert!(table.remove(&pattern(text), &value), "{text}");
        }
        assert_is_vacant(&table);
        assert!(table.nodes.capacity() <= 1024);
    }

    #[test]
    fn a_pattern_that_many_had_gives_memory_back() {
        let mut table = PatternTable::default();
        (0..1000).for_each(|value| table.insert(&pattern("a/*"), value));
        (1..1000).for_each(|value| assert!(table.remove(&pattern("a/*"), &value)));
        let values = table.nodes.iter().map(|(_, node)| node.values.capacity());
        assert!(values.sum::<usize>() < 16);
    }

    #[test]
    fn a_match_costs_the_same_whatever_else_there_is() {
        let with = |count: u32| {
            let others = (0..count)
                .flat_map(|number| [format!("orders/{number}/*"), format!("*/{number}.**")]);
            let some = ["orders/*", "orders/eu/**", "*/eu/1", "**"].map(str::to_owned);
            table(some.into_iter().chain(others))
        };
        let (few, many) = (with(3), with(50_000));
        assert_eq!(many.len(), 100_004);
        for name in [
            "orders/eu/1",
            "orders/eu",
            "orders",
            "other",
            "orders/eu.1/2/3",
        ] {
            assert_eq!(visits(&few, name), visits(&many, name), "{name}");
            assert!(visits(&many, name) <= 15, "{name}");
        }
    }

    /// All patterns that lead a topic of nothing but `a` to as many nodes as they can: each segment `a` or `*`, with at most
    /// [`STARS_MAX`] of these, and each of them with `**` at its end too.
    fn worst_patterns() -> Vec<String> {
        let mut all = vec!["a/".repeat(SEGMENTS_MAX - 1) + "a"];
        let mut longest = vec![(String::new(), 0)];
        for at in 0..STAR_SEGMENTS_MAX {
            let separator = if at == 0 { "" } else { "/" };
            all.extend(
                longest
                    .iter()
                    .map(|(text, _)| format!("{text}{separator}**")),
            );
            let longer = longest.iter().flat_map(|(text, stars)| {
                let by_star =
                    (*stars < STARS_MAX).then(|| (format!("{text}{separator}*"), stars + 1));
                std::iter::once((format!("{text}{separator}a"), *stars)).chain(by_star)
            });
            longest = longer.collect();
            all.extend(longest.iter().map(|(text, _)| text.clone()));
        }
        all
    }

    #[test]
    fn hostile_patterns_cost_a_bounded_number_of_visits() {
        let table = table(worst_patterns());
        for segments in [SEGMENTS_MAX, 127] {
            let deep = "a/".repeat(segments - 1) + "a";
            // Of 8 segments at most 4 are stars: the sum over each depth of the ways to choose them. One goes deeper.
            let expected = 381 + SEGMENTS_MAX - STAR_SEGMENTS_MAX;
            assert_eq!(visits(&table, &deep), expected);
            assert!(expected <= VISITS_MAX);
        }
        assert_eq!(visits(&table, "a/a/a"), 15);
        // Segments that are empty lead nowhere by a star.
        assert_eq!(visits(&table, &".".repeat(255)), 1);
    }
}
