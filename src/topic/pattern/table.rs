//! Many patterns, and those of them that match a topic.
//!
//! A trie with its paths compressed: a node for each pattern and for each beginning that several patterns share, named by
//! the segments that follow its parent's. `**` at the end of a pattern is no node, but a value of the node before it. What
//! a topic costs is the segments that it is led to, from each at most to one by name and to one by `*`. So that they do
//! not double with every segment, a pattern has few stars, and few segments, fewer if it has any. A topic so makes at most
//! [`VISITS_MAX`] visits, however many patterns there are and however they were chosen; one of three segments no more than
//! 15.
//!
//! All nodes are in one slab. A child is found by one index over all of them, not by a map of each node: so a node costs
//! little, and one with a million children grows in small steps too.

use std::sync::Arc;

use slab::Slab;

use super::{Pattern, SEGMENTS_MAX, Segment, Separator, segments_of, split_segment};
use crate::hash_index::HashIndex;
use crate::shrink::Shrink;
use crate::topic::Topic;

/// Segments that a topic is led to, at most, and the beginning. It is 389: with four stars in eight segments there are 381,
/// and one pattern without a star goes eight further. A table in two parts has two beginnings.
pub const VISITS_MAX: usize = 400;

/// The node that every pattern begins at. It stays when nothing is left.
const ROOT: u32 = 0;

/// The place of no node, and of no value.
const NOWHERE: u32 = u32::MAX;

/// Patterns, each with a value.
#[derive(Debug)]
pub struct PatternTable<V> {
    nodes: Slab<Node>,
    values: Slab<V>,
    /// Children whose first segment is no star, by their parent's place and that segment.
    index: HashIndex,
    /// The child of the root that begins with a star without a separator, which only the first segment can be.
    bare_star: u32,
    /// The value of the pattern `**`.
    bare_rest: u32,
    shrink_nodes: Shrink,
    shrink_values: Shrink,
}

#[derive(Debug)]
struct Node {
    /// A pattern that leads through here, which its label is a part of. It may have gone meanwhile.
    text: Arc<str>,
    parent: u32,
    /// Nodes right below.
    children: u32,
    /// Their places, exclusive-or: that of the only one, where there is one.
    children_xor: u32,
    /// The places of the children that begin with a star, by its separator.
    stars: [u32; 2],
    /// The value of the pattern that ends here.
    value: u32,
    /// The values of those that end with `**` behind this, by its separator.
    rests: [u32; 2],
    /// Where in the text the label is.
    start: u8,
    end: u8,
}

// There may be as many as connections, and the slab adds nothing.
const _: () = assert!(size_of::<Option<Node>>() <= 56);

impl Node {
    fn new(text: Arc<str>, label: std::ops::Range<usize>, parent: u32) -> Node {
        Node {
            text,
            parent,
            children: 0,
            children_xor: 0,
            stars: [NOWHERE; 2],
            value: NOWHERE,
            rests: [NOWHERE; 2],
            start: label.start as u8,
            end: label.end as u8,
        }
    }

    fn label(&self) -> &str {
        &self.text[usize::from(self.start)..usize::from(self.end)]
    }

    fn has_values(&self) -> bool {
        self.value != NOWHERE || self.rests != [NOWHERE; 2]
    }
}

/// The slot of what begins with this separator. None where there is none.
fn slot(separator: Separator) -> Option<usize> {
    match separator {
        Separator::None => None,
        Separator::Slash => Some(0),
        Separator::Dot => Some(1),
    }
}

/// End of a pattern.
#[derive(Clone, Copy)]
enum End {
    Here,
    Rest(Separator),
}

/// Cuts `**` off the end of a pattern.
fn split_end(pattern: &str) -> (&str, End) {
    let Some(before) = pattern.strip_suffix("**") else {
        return (pattern, End::Here);
    };
    let separator = match before.as_bytes().last() {
        None => Separator::None,
        Some(b'/') => Separator::Slash,
        Some(_) => Separator::Dot,
    };
    let stem = before.len() - usize::from(!separator.is_none());
    (&before[..stem], End::Rest(separator))
}

/// Bytes of the segments that two names begin with, both.
fn shared_bytes(one: &str, other: &str) -> usize {
    let both = segments_of(one).zip(segments_of(other));
    let shared = both.take_while(|(one, other)| one == other);
    shared.map(|(segment, _)| segment.bytes()).sum()
}

/// Segments of a topic, as far as patterns are long, and one more.
struct Segments<'t> {
    segments: [Segment<'t>; SEGMENTS_MAX + 1],
    len: usize,
}

impl<'t> Segments<'t> {
    fn of(topic: &'t Topic) -> Segments<'t> {
        let mut segments = [Segment::EMPTY; SEGMENTS_MAX + 1];
        let mut len = 0;
        for (place, segment) in segments.iter_mut().zip(segments_of(topic.as_str())) {
            *place = segment;
            len += 1;
        }
        Segments { segments, len }
    }

    fn get(&self, depth: usize) -> Option<Segment<'t>> {
        self.segments[..self.len].get(depth).copied()
    }
}

impl<V> Default for PatternTable<V> {
    fn default() -> PatternTable<V> {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node::new("".into(), 0..0, NOWHERE));
        debug_assert_eq!(root, ROOT as usize);
        PatternTable {
            nodes,
            values: Slab::new(),
            index: HashIndex::default(),
            bare_star: NOWHERE,
            bare_rest: NOWHERE,
            shrink_nodes: Shrink::default(),
            shrink_values: Shrink::default(),
        }
    }
}

impl<V> PatternTable<V> {
    /// Patterns in the table.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of a pattern.
    pub fn get_mut(&mut self, pattern: &Pattern) -> Option<&mut V> {
        let (stem, end) = split_end(pattern.as_str());
        let node = self.find(stem)?;
        let value = *self.end_mut(node, end);
        self.values.get_mut(value as usize)
    }

    /// Adds a pattern with its value. Gives back the value that it had.
    pub fn insert(&mut self, pattern: &Pattern, value: V) -> Option<V> {
        if let Some(known) = self.get_mut(pattern) {
            return Some(std::mem::replace(known, value));
        }
        let (stem, end) = split_end(pattern.as_str());
        let node = self.find_or_insert(&pattern.0, stem);
        let value = self.values.insert(value) as u32;
        *self.end_mut(node, end) = value;
        None
    }

    /// Removes a pattern, and nodes that become unused; gives its value.
    pub fn remove(&mut self, pattern: &Pattern) -> Option<V> {
        let (stem, end) = split_end(pattern.as_str());
        let node = self.find(stem)?;
        let place = std::mem::replace(self.end_mut(node, end), NOWHERE);
        let value = self.values.try_remove(place as usize)?;
        self.prune(node);
        self.shrink_nodes.shrink(&mut self.nodes);
        self.shrink_values.shrink(&mut self.values);
        Some(value)
    }

    /// Hands over the values of the patterns that match a topic. They come in no order. Gives the number of visits, at
    /// most [`VISITS_MAX`].
    pub fn for_each_match(&self, topic: &Topic, mut with: impl FnMut(&V)) -> usize {
        if self.is_empty() {
            return 0;
        }
        let segments = Segments::of(topic);
        let visits = 1 + self.visit(ROOT, &segments, 0, &mut with);
        debug_assert!(visits <= VISITS_MAX);
        visits
    }

    /// Goes on from a node, which the segments before `depth` lead to. Gives the visits below it.
    fn visit(
        &self,
        at: u32,
        topic: &Segments<'_>,
        depth: usize,
        with: &mut impl FnMut(&V),
    ) -> usize {
        let node = &self.nodes[at as usize];
        let Some(segment) = topic.get(depth) else {
            self.hand_over(node.value, with);
            return 0;
        };
        let slot = slot(segment.separator);
        if at == ROOT {
            self.hand_over(self.bare_rest, with);
        }
        if let Some(slot) = slot {
            self.hand_over(node.rests[slot], with);
        }
        let mut visits = 0;
        let star = slot.map_or(self.bare_star, |slot| node.stars[slot]);
        if star != NOWHERE && !segment.text.is_empty() {
            visits += self.enter(star, topic, depth, with);
        }
        if let Some(named) = self.named_child(at, segment) {
            visits += self.enter(named, topic, depth, with);
        }
        visits
    }

    /// Follows the label of a node, whose first segment matches. Gives the visits there and below.
    fn enter(
        &self,
        at: u32,
        topic: &Segments<'_>,
        mut depth: usize,
        with: &mut impl FnMut(&V),
    ) -> usize {
        let (_, mut label) = split_segment(self.nodes[at as usize].label());
        let mut visits = 1;
        depth += 1;
        while !label.is_empty() {
            let (wanted, behind) = split_segment(label);
            let matches = |segment: Segment<'_>| match wanted.text {
                "*" => segment.separator == wanted.separator && !segment.text.is_empty(),
                _ => segment == wanted,
            };
            if !topic.get(depth).is_some_and(matches) {
                return visits;
            }
            visits += 1;
            depth += 1;
            label = behind;
        }
        visits + self.visit(at, topic, depth, with)
    }

    fn hand_over(&self, value: u32, with: &mut impl FnMut(&V)) {
        if let Some(value) = self.values.get(value as usize) {
            with(value);
        }
    }

    /// The node of a pattern without its `**`.
    fn find(&self, stem: &str) -> Option<u32> {
        let (mut at, mut rest) = (ROOT, stem);
        while !rest.is_empty() {
            at = self.child(at, split_segment(rest).0)?;
            let label = self.nodes[at as usize].label();
            if shared_bytes(label, rest) < label.len() {
                return None;
            }
            rest = &rest[label.len()..];
        }
        Some(at)
    }

    /// The node of a pattern without its `**`, which is there from here on. `text` is the pattern.
    fn find_or_insert(&mut self, text: &Arc<str>, stem: &str) -> u32 {
        let (mut at, mut from) = (ROOT, 0);
        while from < stem.len() {
            let rest = &stem[from..];
            let Some(child) = self.child(at, split_segment(rest).0) else {
                let leaf = Node::new(Arc::clone(text), from..stem.len(), at);
                let leaf = self.nodes.insert(leaf) as u32;
                self.link(leaf);
                return leaf;
            };
            let label = self.nodes[child as usize].label();
            let shared = shared_bytes(label, rest);
            at = match shared < label.len() {
                true => self.split(child, shared),
                false => child,
            };
            from += shared;
        }
        at
    }

    /// Puts a node above another, which takes over so many bytes of its label.
    fn split(&mut self, lower: u32, bytes: usize) -> u32 {
        self.unlink(lower);
        let node = &mut self.nodes[lower as usize];
        let start = usize::from(node.start);
        let upper = Node::new(Arc::clone(&node.text), start..start + bytes, node.parent);
        node.start = (start + bytes) as u8;
        let upper = self.nodes.insert(upper) as u32;
        self.nodes[lower as usize].parent = upper;
        self.link(upper);
        self.link(lower);
        upper
    }

    /// Removes a node that neither holds a value nor parts the ways of several, and then its parent if that holds for it,
    /// and so on.
    fn prune(&mut self, mut at: u32) {
        while at != ROOT {
            let node = &self.nodes[at as usize];
            if node.has_values() || node.children > 1 {
                return;
            }
            let (parent, start) = (node.parent, node.start);
            let only_child = (node.children == 1).then_some(node.children_xor);
            self.unlink(at);
            if let Some(child) = only_child {
                self.unlink(child);
                let node = &mut self.nodes[child as usize];
                (node.parent, node.start) = (parent, start);
                self.link(child);
            }
            self.nodes.remove(at as usize);
            at = parent;
        }
    }

    /// Enters a node at its parent.
    fn link(&mut self, place: u32) {
        let (parent, hash) = self.count_child(place, 1);
        match hash {
            Ok(hash) => self.index.insert(hash, place),
            Err(separator) => *self.star_mut(parent, separator) = place,
        }
    }

    /// Takes a node out at its parent.
    fn unlink(&mut self, place: u32) {
        let (parent, hash) = self.count_child(place, -1);
        match hash {
            Ok(hash) => self.index.remove(hash, place),
            Err(separator) => *self.star_mut(parent, separator) = NOWHERE,
        }
    }

    /// Counts a node at its parent. Gives the parent and the hash that it is found by there, or a star's separator.
    fn count_child(&mut self, place: u32, change: i32) -> (u32, Result<u64, Separator>) {
        let node = &self.nodes[place as usize];
        let (parent, first) = (node.parent, split_segment(node.label()).0);
        let hash = match first.text {
            "*" => Err(first.separator),
            _ => Ok(self.index.hash((parent, first))),
        };
        let node = &mut self.nodes[parent as usize];
        node.children = node.children.wrapping_add_signed(change);
        node.children_xor ^= place;
        (parent, hash)
    }

    fn star_mut(&mut self, at: u32, separator: Separator) -> &mut u32 {
        match slot(separator) {
            Some(slot) => &mut self.nodes[at as usize].stars[slot],
            None => &mut self.bare_star,
        }
    }

    fn end_mut(&mut self, at: u32, end: End) -> &mut u32 {
        let node = &mut self.nodes[at as usize];
        match end {
            End::Here => &mut node.value,
            End::Rest(separator) => match slot(separator) {
                Some(slot) => &mut node.rests[slot],
                None => &mut self.bare_rest,
            },
        }
    }

    /// The node that the next segment of a pattern leads to.
    fn child(&self, at: u32, segment: Segment<'_>) -> Option<u32> {
        if segment.text != "*" {
            return self.named_child(at, segment);
        }
        let stars = self.nodes[at as usize].stars;
        let place = slot(segment.separator).map_or(self.bare_star, |slot| stars[slot]);
        (place != NOWHERE).then_some(place)
    }

    fn named_child(&self, at: u32, segment: Segment<'_>) -> Option<u32> {
        if self.nodes[at as usize].children == 0 {
            return None;
        }
        let hash = self.index.hash((at, segment));
        self.index.find(hash, |place| {
            let node = &self.nodes[place as usize];
            node.parent == at && split_segment(node.label()).0 == segment
        })
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
            assert_eq!(table.insert(&pattern(text.as_ref()), value), None);
        }
        table
    }

    fn visits(table: &PatternTable<u32>, name: &str) -> usize {
        table.for_each_match(&topic(name), |_| {})
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
    fn assert_is_vacant<V>(table: &PatternTable<V>) {
        assert!(table.is_empty());
        assert_eq!(table.nodes.len(), 1);
        let root = &table.nodes[ROOT as usize];
        assert_eq!((root.children, root.children_xor), (0, 0));
        assert_eq!((root.stars, root.rests), ([NOWHERE; 2], [NOWHERE; 2]));
        assert_eq!((table.bare_star, table.bare_rest), (NOWHERE, NOWHERE));
    }

    /// Every node but the root holds a value or parts ways, and is found where it stands.
    fn assert_is_compressed<V>(table: &PatternTable<V>) {
        for (place, node) in &table.nodes {
            if place as u32 != ROOT {
                assert!(node.has_values() || node.children > 1);
                let first = split_segment(node.label()).0;
                assert_eq!(table.child(node.parent, first), Some(place as u32));
            }
        }
    }

    proptest! {
        #[test]
        fn it_matches_as_each_pattern_does(
            names in proptest::collection::vec(names(), 1..40),
            removed in proptest::collection::vec(any::<proptest::sample::Index>(), 0..40),
        ) {
            let mut table = PatternTable::default();
            let mut held = std::collections::BTreeMap::new();
            for (value, (pattern, _)) in names.iter().enumerate() {
                prop_assert_eq!(table.insert(pattern, value), held.insert(pattern.clone(), value));
                assert_is_compressed(&table);
            }
            for index in removed {
                let (pattern, _) = &names[index.index(names.len())];
                prop_assert_eq!(table.get_mut(pattern).copied(), held.get(pattern).copied());
                prop_assert_eq!(table.remove(pattern), held.remove(pattern));
                assert_is_compressed(&table);
            }
            prop_assert_eq!(table.len(), held.len());
            for (_, topic) in &names {
                let matching = held.iter().filter(|(pattern, _)| pattern.matches(topic));
                let mut expected: Vec<usize> = matching.map(|(_, value)| *value).collect();
                let mut matches = Vec::new();
                table.for_each_match(topic, |value| matches.push(*value));
                expected.sort_unstable();
                matches.sort_unstable();
                prop_assert_eq!(matches, expected, "{}", topic);
            }
            for (pattern, value) in held {
                prop_assert_eq!(table.remove(&pattern), Some(value));
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
        assert_eq!(table.remove(&pattern("a/1/*")), None, "nothing ends there");
        for (value, text) in (0..60_000).zip(&texts).rev() {
            assert_eq!(table.remove(&pattern(text)), Some(value), "{text}");
        }
        assert_is_vacant(&table);
        assert!(table.nodes.capacity() <= 1024);
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
