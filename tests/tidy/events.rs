//! Events of the log: the guide's table has those that the source logs, and no others.

use std::collections::BTreeSet;
use std::fs;

use super::{root, sources};

/// Beginnings of a name in the source.
const MARKS: [&str; 2] = ["event = \"", "Line::of(\""];

#[test]
fn events_of_log_are_in_guide() {
    let mut logged = BTreeSet::new();
    for source in sources("src") {
        // The rest of a file is its tests.
        let code = source.text.split("#[cfg(test)]").next().unwrap_or("");
        for (mark, at) in MARKS
            .iter()
            .flat_map(|mark| code.match_indices(mark).map(move |(at, _)| (mark, at)))
        {
            let name = code[at + mark.len()..].split('"').next().unwrap_or("");
            logged.insert(name.to_owned());
        }
    }
    let page = fs::read_to_string(root().join("src/guide/metrics.md")).expect("the page is there");
    let (_, table) = page.split_once("| `event` | level |").expect("a table");
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let names = rows.filter_map(|row| row.split('|').nth(1));
    let named: BTreeSet<_> = names
        .flat_map(|names| names.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    assert_eq!(logged, named);
    // Those that operators were promised.
    for name in [
        "listening",
        "ready",
        "draining",
        "ended",
        "opened",
        "closed",
        "refused",
        "request",
        "denied",
        "slow_consumer",
        "reloaded",
        "reload_failed",
        "certificate_ends",
        "memory_pressure",
        "admin",
    ] {
        assert!(logged.contains(name), "{name}");
    }
}
