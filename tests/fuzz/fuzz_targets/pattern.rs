//! The table of patterns against each pattern by itself, while patterns come and go, and what reads patterns and topic rules.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use umbel::internals::topic::Topic;
use umbel::internals::topic::TopicRule;
use umbel::internals::topic::{PATTERN_BYTES_MAX, Pattern, PatternTable};

#[derive(Arbitrary, Debug)]
enum Step {
    Insert(Name, u8),
    Remove(Name, u8),
    Match(Name),
    Rule(String),
}

/// A text of any kind, or one of so few kinds of segments that it often meets others.
#[derive(Arbitrary, Debug)]
enum Name {
    Text(String),
    Segments(Vec<u8>),
}

impl Name {
    fn text(&self) -> String {
        const PIECES: [&str; 10] = ["a", "b", "/", ".", "/*", ".*", "/a", "/**", "*", "?"];
        match self {
            Name::Text(text) => text.clone(),
            Name::Segments(pieces) => pieces
                .iter()
                .map(|piece| PIECES[usize::from(*piece) % PIECES.len()])
                .collect(),
        }
    }

    fn pattern(&self) -> Option<Pattern> {
        let text = self.text();
        let pattern = Pattern::parse(&text).ok()?;
        assert_eq!(pattern.as_str(), text);
        assert!((1..=PATTERN_BYTES_MAX).contains(&text.len()));
        Some(pattern)
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let mut table = PatternTable::<Vec<u8>>::default();
    let mut held: Vec<(Pattern, u8)> = Vec::new();
    for step in &steps {
        match step {
            Step::Insert(name, value) => {
                if let Some(pattern) = name.pattern() {
                    match table.get_mut(&pattern) {
                        Some(values) => values.push(*value),
                        None => assert_eq!(table.insert(&pattern, vec![*value]), None),
                    }
                    held.push((pattern, *value));
                }
            }
            Step::Remove(name, value) => {
                if let Some(pattern) = name.pattern() {
                    let entry = (pattern, *value);
                    let found = held.iter().position(|other: &(Pattern, u8)| *other == entry);
                    assert_eq!(remove(&mut table, &entry.0, *value), found.is_some());
                    found.map(|found| held.swap_remove(found));
                }
            }
            Step::Match(name) => {
                if let Ok(topic) = Topic::from_text(&name.text()) {
                    check(&table, &held, &topic);
                }
            }
            Step::Rule(text) => {
                if let Ok(rule) = TopicRule::parse(text) {
                    let again = TopicRule::parse(&rule.to_string()).expect("a rule reads itself");
                    assert_eq!(again, rule);
                }
            }
        }
        assert!(table.len() <= held.len());
    }
    for (pattern, value) in held {
        assert!(remove(&mut table, &pattern, value));
    }
    assert!(table.is_empty());
});

/// Takes a value from under a pattern, and the pattern with its last. True if it was there.
fn remove(table: &mut PatternTable<Vec<u8>>, pattern: &Pattern, value: u8) -> bool {
    let Some(values) = table.get_mut(pattern) else {
        return false;
    };
    let Some(at) = values.iter().position(|known| *known == value) else {
        return false;
    };
    values.swap_remove(at);
    if values.is_empty() {
        table.remove(pattern);
    }
    true
}

fn check(table: &PatternTable<Vec<u8>>, held: &[(Pattern, u8)], topic: &Topic) {
    let mut matches: Vec<u8> = Vec::new();
    table.for_each_match(topic, |values| matches.extend(values));
    let expected = held.iter().filter(|(pattern, _)| pattern.matches(topic));
    let mut expected: Vec<u8> = expected.map(|(_, value)| *value).collect();
    matches.sort_unstable();
    expected.sort_unstable();
    assert_eq!(matches, expected);
}
