//! Rooms: each has its row in the table of the guide, imports point downwards in that, and pure ones are pure.

use std::collections::BTreeSet;
use std::fs;

use super::{report, root, sources};

/// Names that a pure room must not use.
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

/// The page that has the table.
fn page() -> String {
    fs::read_to_string(root().join("src/guide/source_map.md")).expect("the page")
}

/// The rooms of each row of the table, from the top.
fn table() -> Vec<Vec<String>> {
    let page = page();
    let (_, table) = page
        .split_once("| room | knows | does |\n| --- | --- | --- |\n")
        .expect("the page has the table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let rows: Vec<_> = rows
        .map(|row| names(row.split('|').nth(1).expect("a row has cells")))
        .collect();
    assert!(rows.len() >= 30, "{rows:?}");
    rows
}

/// What stands in backticks in a text.
fn names(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// The rooms that a code text names by `crate::`, with the lines where they stand. `crate::{a, b::c}` names both.
fn named_rooms(code: &str) -> Vec<(usize, &str)> {
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let line = 1 + code[..at].matches('\n').count();
        let mut push = |text| named.extend(leading_room(text).map(|room| (line, room)));
        match rest.strip_prefix('{') {
            Some(group) => items_of_group(group).into_iter().for_each(&mut push),
            None => push(rest),
        }
    }
    named
}

/// The name that a path begins with. A capital begins a name that lib.rs hands on.
fn leading_room(path: &str) -> Option<&str> {
    let path = path.trim_start();
    let end = path.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let name = &path[..end.unwrap_or(path.len())];
    name.starts_with(|letter: char| letter.is_ascii_lowercase())
        .then_some(name)
}

/// The paths of a group, whose opening brace has been taken off, without looking into groups inside of it.
fn items_of_group(group: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut items) = (0, 0, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&group[begin..at]);
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&group[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    items
}

#[test]
fn grouped_imports_are_read() {
    let code = "use crate::{http, protocol::{self, Opcode},\n    hub};\nuse crate::Thing;\ncrate::net::x()";
    assert_eq!(
        named_rooms(code),
        [(1, "http"), (1, "protocol"), (1, "hub"), (4, "net")]
    );
}

#[test]
fn each_room_has_one_row() {
    let mut rows = table().concat();
    rows.sort();
    let sources = sources("src");
    let rooms: BTreeSet<_> = sources.iter().map(|source| source.room()).collect();
    assert_eq!(rows, rooms.into_iter().collect::<Vec<_>>());
}

#[test]
fn imports_point_downwards() {
    let table = table();
    let row_of = |room: &str| {
        let mut rows = table.iter();
        rows.position(|rooms| rooms.iter().any(|it| it == room))
    };
    let mut problems = Vec::new();
    for source in sources("src") {
        let room = source.room();
        // The test above tells of one without a row.
        let Some(own) = row_of(room) else { continue };
        // Comments keep their lines, empty, so that the numbers stay right.
        let mut code = String::new();
        for line in source.text.lines() {
            if !line.trim_start().starts_with("//") {
                code.push_str(line);
            }
            code.push('\n');
        }
        for (number, named) in named_rooms(&code) {
            if named != room && row_of(named).is_none_or(|other| other <= own) {
                problems.push(format!("{}:{number}: {room} names {named}", source.path));
            }
        }
    }
    report(&problems);
}

#[test]
fn pure_rooms() {
    let page = page();
    let list = page
        .split_once("## Invariants")
        .and_then(|(_, rest)| rest.split_once(" know no socket, clock, thread or randomness"))
        .and_then(|(before, _)| before.rsplit_once("\n- "));
    let pure = names(list.expect("the page has the list").1);
    let table = table().concat();
    let unknown = pure.iter().filter(|room| !table.contains(room));
    let mut problems: Vec<_> = unknown.map(|room| format!("{room} is no room")).collect();
    assert!(pure.len() >= 10, "{pure:?}");
    for source in sources("src")
        .iter()
        .filter(|source| pure.iter().any(|it| it == source.room()))
    {
        for (number, line) in source.code() {
            for impure in IMPURE.iter().filter(|impure| line.contains(**impure)) {
                problems.push(format!("{}:{number}: {impure}", source.path));
            }
        }
    }
    report(&problems);
}
