//! Plain words as a test: first doc lines and names of tests.

use super::{Source, report, sources};

/// Words of the first line of a doc comment, up to the first `.`, `:`, `;` or `(`.
const FIRST_LINE_WORDS_MAX: usize = 12;

/// Letters of a test's name.
const TEST_NAME_LETTERS_MAX: usize = 52;

/// Openings that put a question where the noun belongs.
const OPENINGS: &[&str] = &[
    "How ",
    "The other way",
    "The same",
    "What ",
    "When ",
    "Where ",
    "Which ",
    "Who ",
    "Whoever ",
    "Why ",
];

/// Openings of a test's name that make it a sentence.
const TEST_OPENINGS: &[&str] = &["a_", "an_", "it_", "the_", "what_", "who_", "whoever_"];

/// Rooms whose first lines are still to be written anew. A room that needs it no more fails the test until it is
/// taken off.
const TO_REVISE: &[&str] = &["net", "reactor"];

/// The first paragraphs of a file's doc comments on the module and on public items, with their line numbers.
fn first_paragraphs(source: &Source) -> Vec<(usize, String)> {
    let text = source
        .text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let Some(kind) = ["///", "//!"]
            .into_iter()
            .find(|kind| lines[at].starts_with(kind))
        else {
            at += 1;
            continue;
        };
        let comment = lines[at..].iter().map_while(|line| line.strip_prefix(kind));
        let count = comment.clone().count();
        let paragraph: Vec<&str> = comment
            .map(str::trim)
            .take_while(|line| !line.is_empty())
            .collect();
        let item = lines[at + count..]
            .iter()
            .find(|line| !line.starts_with("#["));
        if kind == "//!" || item.is_some_and(|item| item.starts_with("pub ")) {
            found.push((at + 1, paragraph.join(" ")));
        }
        at += count;
    }
    found
}

/// What is wrong with a first paragraph, if anything is.
fn problem(paragraph: &str) -> Option<String> {
    if let Some(opening) = OPENINGS
        .iter()
        .find(|opening| paragraph.starts_with(**opening))
    {
        return Some(format!("begins with {opening:?}"));
    }
    let stops = paragraph
        .char_indices()
        .filter(|(at, letter)| match letter {
            '(' => true,
            '.' | ':' | ';' => paragraph[at + 1..]
                .chars()
                .next()
                .is_none_or(|next| next == ' '),
            _ => false,
        });
    let end = stops.map(|(at, _)| at).next().unwrap_or(paragraph.len());
    let words = paragraph[..end]
        .split(' ')
        .filter(|word| word.contains(char::is_alphanumeric));
    let count = words.count();
    (count > FIRST_LINE_WORDS_MAX).then(|| format!("has {count} words before its first stop"))
}

#[test]
fn first_lines_name_the_thing() {
    let mut problems = Vec::new();
    let mut to_revise = TO_REVISE.to_vec();
    for source in sources("src") {
        for (line, paragraph) in first_paragraphs(&source) {
            let Some(problem) = problem(&paragraph) else {
                continue;
            };
            if TO_REVISE.contains(&source.room()) {
                to_revise.retain(|room| *room != source.room());
            } else {
                problems.push(format!("{}:{line}: {problem}: {paragraph}", source.path));
            }
        }
    }
    problems.extend(
        to_revise
            .iter()
            .map(|room| format!("{room} may leave TO_REVISE")),
    );
    report(&problems);
}

#[test]
fn test_names_are_nouns_and_predicates() {
    let mut problems = Vec::new();
    for source in sources("tests") {
        if source.path.starts_with("tests/simulation") || source.path.starts_with("tests/fuzz") {
            continue;
        }
        let tests = source.text.split("#[test]").skip(1);
        let names = tests.filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
        for (name, _) in names {
            if TEST_OPENINGS
                .iter()
                .any(|opening| name.starts_with(opening))
                || name.len() > TEST_NAME_LETTERS_MAX
            {
                problems.push(format!("{}: {name}", source.path));
            }
        }
    }
    report(&problems);
}

#[test]
fn first_lines_end_at_the_first_stop() {
    assert_eq!(
        problem("Number of topics. There may be so many that it takes more than twelve words."),
        None
    );
    assert_eq!(
        problem("Name (a text that has as many words as you like, and then some more)."),
        None
    );
    assert!(problem("What a topic gets.").is_some());
    assert!(problem("A b c d e f g h i j k l m.").is_some());
}
