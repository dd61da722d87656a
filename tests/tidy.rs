//! Taste as a test: layers, sizes, words, and the completeness of the reference.

use std::fs;
use std::path::{Path, PathBuf};

use umbel::config::Limits;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// The rooms of `src/`, lowest first. A room may name those on lower floors, and nothing else of the crate.
const FLOORS: &[&[&str]] = &[
    &["http", "console", "shrink", "hash_index"],
    &["protocol", "topic_table", "pattern"],
    &["topic_rule"],
    &["config", "hub"],
    &["error", "dialect", "worker"],
    &["access", "connection"],
    &["handler", "metrics"],
    &["reactor"],
    &["handle"],
    &["server"],
    &["lib", "cli"],
    &["bench"],
    &["main"],
];

/// Rooms that know no socket, no clock, no thread and no randomness.
const PURE: &[&str] = &[
    "http",
    "console",
    "protocol",
    "pattern",
    "topic_rule",
    "hub",
    "dialect",
    "connection",
];

/// What a pure room must not name.
const IMPURE: &[&str] = &[
    "std::net::Tcp",
    "std::time::",
    "Instant::",
    "SystemTime",
    "std::thread",
    "std::fs",
    "std::env",
    "mio::",
    "socket2::",
    "crossbeam_channel::",
    "getrandom::",
    "RandomState",
];

/// Words that this project does not use for its things, as parts of identifiers.
const BANNED_WORDS: &[&str] = &["manager", "utils", "common", "session", "helper"];

/// Marks of work that was left.
const MARKS: &[&str] = &[
    "TODO",
    "FIXME",
    "XXX",
    "todo!(",
    "unimplemented!(",
    "#[ignore",
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The first part of its path below `src/`.
    fn room(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split(['/', '.']).next().unwrap_or(below)
    }

    /// Its lines with numbers, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self
            .text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    collect(&root().join(folder), &mut sources);
    assert!(!sources.is_empty(), "{folder} has Rust files");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("node_modules") {
                collect(&path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            let path = path
                .strip_prefix(root())
                .expect("below the root")
                .display()
                .to_string();
            sources.push(Source { path, text });
        }
    }
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The rooms that a line of code names by `crate::`.
fn named_rooms(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).filter_map(|rest| {
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let name = &rest[..end.unwrap_or(rest.len())];
        // A capital begins a name that lib.rs hands on, or a macro's group.
        name.starts_with(|letter: char| letter.is_ascii_lowercase())
            .then_some(name)
    })
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn imports_point_downwards() {
    let mut problems = Vec::new();
    for source in sources("src") {
        let room = source.room();
        let Some(own) = floor(room) else {
            problems.push(format!(
                "{}: {room} stands on no floor; see FLOORS",
                source.path
            ));
            continue;
        };
        for (number, line) in source.code() {
            for named in named_rooms(line).filter(|named| *named != room) {
                if floor(named).is_none_or(|other| other >= own) {
                    problems.push(format!("{}:{number}: {room} names {named}", source.path));
                }
            }
        }
    }
    report(&problems);
}

#[test]
fn pure_rooms_name_nothing_impure() {
    let mut problems = Vec::new();
    for source in sources("src")
        .iter()
        .filter(|source| PURE.contains(&source.room()))
    {
        for (number, line) in source.code() {
            for impure in IMPURE.iter().filter(|impure| line.contains(**impure)) {
                problems.push(format!("{}:{number}: {impure}", source.path));
            }
        }
    }
    report(&problems);
}

#[test]
fn files_are_short() {
    let mut problems = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            problems.push(format!("{}: {lines} lines", source.path));
        }
    }
    report(&problems);
}

#[test]
fn functions_are_short() {
    let mut problems = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        let mut open: Option<(usize, usize, &str)> = None;
        for (index, line) in source.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if let Some((start, at, name)) = open {
                // rustfmt puts the closing brace under the first letter of the function.
                if indent == at && line.trim_start().starts_with('}') {
                    let lines = index - start + 1;
                    if lines > FUNCTION_LINES_MAX {
                        problems.push(format!(
                            "{}:{}: {name}: {lines} lines",
                            source.path,
                            start + 1
                        ));
                    }
                    open = None;
                }
            } else if let Some(name) = function_name(line) {
                open = (!line.trim_end().ends_with([';', '}'])).then_some((index, indent, name));
            }
        }
    }
    report(&problems);
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_head = before.split_whitespace().all(|word| {
        word.starts_with("pub")
            || matches!(
                word,
                "const" | "async" | "extern" | "in" | "crate)" | "super)"
            )
    });
    let end = after.find(['(', '<'])?;
    (is_head && end > 0).then(|| &after[..end])
}

#[test]
fn names_are_the_fields_own() {
    let mut problems = Vec::new();
    for source in sources("src") {
        for (number, line) in source.code() {
            // Strings are for people.
            let code: String = line
                .split('"')
                .step_by(2)
                .collect::<Vec<_>>()
                .join(" ")
                .to_lowercase();
            for word in BANNED_WORDS.iter().filter(|word| code.contains(**word)) {
                problems.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    report(&problems);
}

#[test]
fn nothing_is_left_undone() {
    let mut problems = Vec::new();
    let own = "tests/tidy.rs";
    for source in sources("src")
        .into_iter()
        .chain(sources("tests"))
        .filter(|source| source.path != own)
    {
        for (index, line) in source.text.lines().enumerate() {
            for mark in MARKS.iter().filter(|mark| line.contains(**mark)) {
                problems.push(format!("{}:{}: {mark}", source.path, index + 1));
            }
        }
    }
    report(&problems);
}

#[test]
fn every_module_says_what_it_is_for() {
    let missing = sources("src")
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "));
    report(&missing.map(|source| source.path).collect::<Vec<_>>());
}

#[test]
fn readme_lists_every_limit_with_its_default() {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let missing = Limits::ALL.iter().filter_map(|info| {
        let row = format!("| `{}` | {} |", info.name, info.default);
        (!readme.contains(&row)).then(|| format!("README.md lacks the row: {row} {} |", info.doc))
    });
    report(&missing.collect::<Vec<_>>());
}

#[test]
fn the_top_level_holds_what_belongs_there() {
    let allowed = [
        ".ci",
        ".git",
        ".gitignore",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "benches",
        "scripts",
        "src",
        "target",
        "tests",
    ];
    let entries = fs::read_dir(root()).expect("a readable folder");
    let names = entries.map(|entry| {
        entry
            .expect("a readable entry")
            .file_name()
            .display()
            .to_string()
    });
    report(
        &names
            .filter(|name| !allowed.contains(&name.as_str()))
            .collect::<Vec<_>>(),
    );
}
