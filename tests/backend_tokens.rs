//! The programs of the guide's page about tokens, run as its readers would run them: each token opens a connection.
#![cfg(feature = "jwt")]

#[path = "config_file/file.rs"]
mod file;
mod support;

use std::path::Path;
use std::process::Command;
use std::{env, fs, thread};

use file::Folder;
use support::Server;
use support::peers::{WebSocket, connect};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Languages of the page: the mark of the block, the file that it becomes, and the command that runs it.
const PROGRAMS: &[(&str, &str, &[&str])] = &[
    ("js", "token.mjs", &["node", "token.mjs"]),
    ("python", "app_token.py", &["python", "app_token.py"]),
    ("go", "token.go", &["go", "run", "token.go"]),
    ("php", "token.php", &["php", "token.php"]),
    ("java", "Token.java", &["java", "Token.java"]),
    ("bash", "token.sh", &["bash", "token.sh"]),
];

/// Module of a program in Go, with the library where Debian's package has it.
const GO_MODULE: &str = "module token\n\ngo 1.18\n\nrequire github.com/golang-jwt/jwt/v4 v4.0.0\n\n\
                         replace github.com/golang-jwt/jwt/v4 => /usr/share/gocode/src/github.com/golang-jwt/jwt\n";

/// The blocks of the page with this mark.
fn blocks<'p>(page: &'p str, mark: &str) -> Vec<&'p str> {
    let opening = format!("\n```{mark}\n");
    let behind = page.split(opening.as_str()).skip(1);
    behind
        .filter_map(|text| text.split_once("\n```"))
        .map(|(block, _)| block)
        .collect()
}

fn run(folder: &Path, command: &[&str]) -> String {
    let python = env::var("TEST_PYTHON");
    let python = python.unwrap_or_else(|_| format!("{ROOT}/target/tests/python/bin/python"));
    let program = match command[0] {
        "python" => &python,
        other => other,
    };
    let output = Command::new(program)
        .args(&command[1..])
        .current_dir(folder)
        .env("GOPROXY", "off")
        .env("GOFLAGS", "-mod=mod")
        .output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program}: {error}; scripts/setup installs what the test needs")
    });
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {problem}");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

#[test]
fn every_program_of_the_page() {
    let page = fs::read_to_string(format!("{ROOT}/src/guide/tokens.md")).expect("the page");
    let (configuration, keys) = (blocks(&page, "toml"), blocks(&page, "sh"));
    let folder = Folder::with("umbel.toml", configuration[0]);
    folder.write("make_keys.sh", keys[0]);
    folder.write("go.mod", GO_MODULE);
    let path = folder.path("umbel.toml");
    let directory = Path::new(&path).parent().expect("a folder");
    let modules = format!("{ROOT}/tests/clients/node_modules");
    std::os::unix::fs::symlink(modules, directory.join("node_modules")).expect("a link");
    run(directory, &["bash", "-e", "make_keys.sh"]);
    for (mark, file, _) in PROGRAMS {
        let blocks = blocks(&page, mark);
        assert_eq!(blocks.len(), 1, "{mark}");
        folder.write(file, blocks[0]);
    }
    // All at once: most of them wait for themselves to start.
    let tokens: Vec<String> = thread::scope(|scope| {
        let started = PROGRAMS
            .iter()
            .map(|(_, _, command)| scope.spawn(move || run(directory, command)));
        let started: Vec<_> = started.collect();
        let ended = started.into_iter().map(|it| it.join().expect("a token"));
        ended.collect()
    });
    let server = Server::start(&["--config", &path]);
    for ((mark, ..), token) in PROGRAMS.iter().zip(&tokens) {
        for (topic, status) in [
            ("news/eu", "101"),
            ("user/42/x", "101"),
            ("user/43/x", "403"),
        ] {
            let line = format!("Authorization: Bearer {token}\r\n");
            let stream = connect(server.address(), 0);
            let (head, _) = WebSocket::offer_on(stream, &format!("/ws/{topic}"), &line);
            assert_eq!(
                head.split(' ').nth(1),
                Some(status),
                "{mark} {topic}: {head}"
            );
        }
    }
    assert_eq!(tokens.len(), 6);
}
