//! Taste as a test: layers, sizes, words, and the completeness of the reference.

#[path = "tidy/events.rs"]
mod events;
#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/words.rs"]
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use umbel::config::Limits;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Where a dialect may be named outside of `dialect/`: clients, the guide and the crate's front page, which show its page,
/// and the tokens of other servers' clients, each by the name of the server.
const NAMES_DIALECTS: &[&str] = &[
    "src/auth/dialect_tokens/",
    "src/bench/",
    "src/cli/",
    "src/console/",
    "src/guide/",
    "src/lib.rs",
];

/// Words that this project does not use for its things, as parts of identifiers.
const BANNED_WORDS: &[&str] = &["manager", "utils", "common", "session", "helper"];

/// Names of other libraries that have such words.
const FOREIGN_NAMES: &[&str] = &["session_storage", "NoServerSessionStorage", "CommonState"];

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

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// The dialects, by the names of their folders.
fn dialects() -> Vec<String> {
    let folders = fs::read_dir(root().join("src/dialect")).expect("a readable folder");
    let folders = folders.map(|entry| entry.expect("a readable entry"));
    let folders = folders.filter(|entry| entry.path().is_dir());
    let names: Vec<String> = folders
        .map(|entry| entry.file_name().display().to_string())
        .collect();
    assert!(names.len() >= 3, "{names:?}");
    names
}

/// What the type of a folder's name is called: `UmbelV1` for `umbel_v1`.
fn type_name(folder: &str) -> String {
    let mut name = String::new();
    for word in folder.split('_') {
        let (first, rest) = word.split_at(1);
        name.push_str(&first.to_uppercase());
        name.push_str(rest);
    }
    name
}

/// Whether a line of code names a dialect: its type, or its module in a path.
fn names_dialect(code: &str, folder: &str) -> bool {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = |name: &str| {
        let found: Vec<_> = code.match_indices(name).map(|(at, _)| at).collect();
        let len = name.len();
        found.into_iter().filter_map(move |at| {
            let (before, after) = (&code[..at], &code[at + len..]);
            let is_whole = !before.ends_with(is_part) && !after.starts_with(is_part);
            is_whole.then_some((before, after))
        })
    };
    let is_type_named = words(&type_name(folder)).next().is_some();
    let is_module_named = words(folder).any(|(before, after)| {
        let is_grouped = code.contains("dialect::{") && before.ends_with(['{', ' ']);
        before.ends_with("::") || after.starts_with("::") || is_grouped
    });
    is_type_named || is_module_named
}

#[test]
fn dialect_named_in_code() {
    for (code, folder, expected) in [
        ("use crate::dialect::umbel_v1;", "umbel_v1", true),
        ("umbel_v1::encode(out)", "umbel_v1", true),
        ("use crate::dialect::{Form, sse};", "sse", true),
        ("fn open(dialect: UmbelV1)", "umbel_v1", true),
        ("let raw = raw_fd();", "raw", false),
        ("RawValue::new(sse_max)", "raw", false),
    ] {
        assert_eq!(names_dialect(code, folder), expected, "{code}");
    }
}

#[test]
fn no_room_names_a_dialect() {
    let dialects = dialects();
    let mut problems = Vec::new();
    let sources = sources("src");
    for exempted in NAMES_DIALECTS {
        let is_of = |source: &Source| source.path.starts_with(exempted);
        if !sources.iter().any(is_of) {
            problems.push(format!("NAMES_DIALECTS: {exempted} matches no file"));
        }
    }
    for source in sources {
        let may_name = |path: &&str| source.path.starts_with(*path);
        if source.room() == "dialect" || NAMES_DIALECTS.iter().any(may_name) {
            continue;
        }
        for (number, line) in source.code() {
            // Strings are for people, and for peers.
            let code = line.split('"').step_by(2).collect::<Vec<_>>().join(" ");
            for name in dialects.iter().filter(|name| names_dialect(&code, name)) {
                problems.push(format!("{}:{number}: names {name}", source.path));
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
fn banned_words() {
    let mut problems = Vec::new();
    for source in sources("src") {
        for (number, line) in source.code() {
            let mut line = line.to_owned();
            for name in FOREIGN_NAMES {
                line = line.replace(name, "");
            }
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
fn no_unfinished_marks() {
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
fn modules_have_docs() {
    let missing = sources("src")
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "));
    report(&missing.map(|source| source.path).collect::<Vec<_>>());
}

#[test]
fn guide_lists_every_limit() {
    let page = fs::read_to_string(root().join("src/guide/limits.md")).expect("the limits page");
    let missing = Limits::ALL.iter().filter_map(|info| {
        let row = format!("| `{}` | {} | {} |", info.name, info.default, info.doc);
        (!page.contains(&row)).then(|| format!("src/guide/limits.md lacks the row: {row}"))
    });
    report(&missing.collect::<Vec<_>>());
}

#[cfg(feature = "config-file")]
#[test]
fn sample_and_schema_are_up_to_date() {
    use umbel::config::file;
    let mut problems = Vec::new();
    for (command, made, path) in [
        ("umbel sample", file::sample(), "src/guide/umbel.toml"),
        (
            "umbel sample --schema",
            format!("{:#}\n", file::schema()),
            "src/guide/umbel.schema.json",
        ),
    ] {
        let kept = fs::read_to_string(root().join(path)).expect("the guide has it");
        if kept != made {
            problems.push(format!("{path} is old: {command} > {path}"));
        }
    }
    report(&problems);
}

#[test]
fn guide_links_lead_to_files() {
    let mut problems = Vec::new();
    let mut pages = vec![root().join("README.md")];
    for entry in fs::read_dir(root().join("src/guide")).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        pages.extend(
            (path.extension().is_some_and(|it| it == "md") && !path.ends_with("links.md"))
                .then_some(path),
        );
    }
    for page in pages {
        let text = fs::read_to_string(&page).expect("UTF-8");
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'));
        let inline = targets.map(|(target, _)| target);
        let named = text
            .lines()
            .filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
        for target in inline.chain(named.map(|(_, target)| target)) {
            let is_file =
                !target.starts_with(['#', '<']) && !target.contains("::") && !target.contains("//");
            let folder = page.parent().expect("a file has a folder");
            if is_file && target != "crate" && !folder.join(target).exists() {
                problems.push(format!("{}: {target}", page.display()));
            }
        }
    }
    report(&problems);
}

#[test]
fn top_level_entries() {
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
