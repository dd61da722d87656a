//! The guide's commands, run as its readers would run them: what they print is what the pages say.
//!
//! A block that is marked `console` has commands behind `$ ` and what they print. `…` stands for any text.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::Server;

/// The address that the pages have.
const ADDRESS: &str = "127.0.0.1:8080";

/// A command of a page, and what it prints.
struct Example {
    line: usize,
    command: String,
    output: String,
}

/// The examples of a page, in its order.
fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut is_console = false;
    for (index, line) in page.lines().enumerate() {
        if let Some(language) = line.strip_prefix("```") {
            is_console = language == "console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| is_console) {
            examples.push(Example {
                line: index + 1,
                command: command.to_owned(),
                output: String::new(),
            });
        } else if is_console {
            let example = examples.last_mut().expect("output stands behind a command");
            example.output += line;
            example.output.push('\n');
        }
    }
    examples
}

/// Whether the text is the pattern, with any text for each `…`.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().expect("a split has a part");
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        let found = match parts.peek() {
            Some(_) => rest.find(part),
            None => rest.ends_with(part).then(|| rest.len() - part.len()),
        };
        let Some(at) = found else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[test]
fn wildcards_match_any_text() {
    assert!(matches("a…c…e", "abcde"));
    assert!(matches("a…", "a"));
    assert!(matches("ab", "ab"));
    assert!(!matches("a…c", "abcd"));
    assert!(!matches("a…c", "bc"));
    assert!(!matches("ab", "abc"));
}

/// A scratch folder for one page, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(page: &str) -> Scratch {
        let name = format!("umbel-guide-{}-{page}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder can be made");
        // A progress meter is for terminals only.
        fs::write(folder.join(".curlrc"), "no-progress-meter\n").expect("a file can be written");
        Scratch(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(command: &str, scratch: &Scratch, server: &Server) -> String {
    let address = server.address().to_string();
    let binary = Path::new(env!("CARGO_BIN_EXE_umbel"));
    let folder = binary.parent().expect("a file has a folder");
    let path = std::env::var("PATH").expect("there is a PATH");
    let output = Command::new("timeout")
        .args(["20", "bash", "-c"])
        .arg(format!("exec 2>&1; {}", command.replace(ADDRESS, &address)))
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("UMBEL_SERVER", &address)
        .env("CURL_HOME", &scratch.0)
        .current_dir(&scratch.0)
        .stdin(Stdio::null())
        .output()
        .expect("bash can be started");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    printed.replace(&address, ADDRESS)
}

/// Pages with examples, and the flags of the server that they are run against.
const PAGES: [(&str, &[&str]); 10] = [
    (
        "access",
        &[
            "--publish-token",
            "3f6c0a9e1b7d4852",
            "--subscribe-token",
            "8a41c7f05be3d296",
        ],
    ),
    ("command_line", &["--topic-rule", "** history=100"]),
    ("configuration", &[]),
    ("event_streams", &["--topic-rule", "orders/** history=1000"]),
    ("history", &["--topic-rule", "orders/** history=1000"]),
    ("http", &["--topic-rule", "orders/** history=1000"]),
    ("limits", &[]),
    ("messages", &["--topic-rule", "orders/** history=1000"]),
    ("metrics", &[]),
    (
        "slow_consumers",
        &["--topic-rule", "prices/** slow_consumer=latest"],
    ),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide")
}

#[test]
fn examples_print_what_pages_say() {
    for (page, flags) in PAGES {
        let text =
            fs::read_to_string(folder().join(format!("{page}.md"))).expect("the page is there");
        let (server, scratch) = (Server::start(flags), Scratch::new(page));
        for example in examples(&text) {
            let printed = run(&example.command, &scratch, &server);
            assert!(
                matches(&example.output, &printed),
                "{page}.md:{}: {}\nprints\n{printed}\nnot\n{}",
                example.line,
                example.command,
                example.output
            );
        }
    }
}

#[test]
fn pages_with_examples_are_listed() {
    for entry in fs::read_dir(folder()).expect("a folder") {
        let path = entry.expect("a readable entry").path();
        let text = fs::read_to_string(&path).expect("UTF-8");
        let page = path
            .file_stem()
            .expect("it has a name")
            .display()
            .to_string();
        let is_page = path.extension().is_some_and(|extension| extension == "md");
        if is_page && !examples(&text).is_empty() {
            assert!(PAGES.iter().any(|(name, _)| *name == page), "{page}");
        }
    }
}
