//! `umbel check --config` of the files and directories that the server reads at its start.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::file::Folder;
use super::{check, umbel};

const OPEN: &str = "publish = \"anyone\"\nsubscribe = \"anyone\"\nobserve = \"anyone\"\norigins = [\"any\"]\n\
                    [[listener]]\naddress = \"127.0.0.1:0\"\n";

/// Settings of each kind with the file that they name, the text of that file, and what is told of it. None: there is no file.
fn settings() -> Vec<(String, Option<&'static str>, &'static str)> {
    let at_top = |line: &str| format!("{line}\n{OPEN}");
    let behind = |table: &str| format!("{OPEN}{table}\n");
    let mut settings = vec![
        (at_top("deny_file = \"FILE\""), None, "No such file"),
        (
            at_top("deny_file = \"FILE\""),
            Some("jti:1\ntok:1\n"),
            "line 2 begins with none",
        ),
        (
            at_top("state_directory = \"FILE\""),
            None,
            "no such directory",
        ),
        (
            at_top("state_directory = \"FILE\""),
            Some(""),
            "no such directory",
        ),
    ];
    if cfg!(feature = "tls") {
        let line = "tls_ticket_key_file = \"FILE\"";
        settings.push((at_top(line), None, "cannot be read"));
        settings.push((at_top(line), Some("short"), "is no file of keys"));
    }
    if cfg!(feature = "outgoing") {
        let hook =
            "[hook]\nurl = \"https://app.example/\"\nevents = [\"connect\"]\nca_file = \"FILE\"";
        settings.push((behind(hook), None, "cannot be read"));
        settings.push((behind(hook), Some("hello"), "holds no certificate"));
    }
    if cfg!(all(feature = "outgoing", feature = "jwt")) {
        let jwt = "[[jwt]]\nname = \"idp\"\nalgorithms = [\"ES256\"]\nissuer = \"x\"\naudience = [\"a\"]\n\
                   jwks_url = \"https://idp.example/keys\"\nca_file = \"FILE\"";
        settings.push((behind(jwt), Some("hello"), "holds no certificate"));
    }
    settings
}

/// What stops the start is told by the check, in the same words.
#[test]
fn files_that_stop_the_start_are_told() {
    for (text, content, told) in settings() {
        let folder = Folder::with("umbel.toml", "");
        folder.write("umbel.toml", &text.replace("FILE", &folder.path("file")));
        if let Some(content) = content {
            folder.write("file", content);
        }
        let (code, report) = check(&folder, &[], &[]);
        let said = report["errors"].to_string();
        assert!(code == 1 && said.contains(told), "{text}: {said}");
        let mut serve = umbel(&["serve", "--config", &folder.path("umbel.toml")]);
        let mut serve = serve
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let deadline = Instant::now() + Duration::from_secs(20);
        let ended = loop {
            match serve.try_wait().expect("it can be asked") {
                None if Instant::now() < deadline => std::thread::yield_now(),
                ended => break ended,
            }
        };
        let _ = serve.kill();
        assert_eq!(ended.and_then(|it| it.code()), Some(1), "{text}");
    }
}

/// What the server has written itself is no reason to tell anything.
#[test]
fn files_that_can_be_read_are_no_matter() {
    let folder = Folder::with("umbel.toml", "");
    std::fs::create_dir(folder.path("state")).expect("a folder can be made");
    folder.write(
        "state/deny.json",
        r#"{"version":1,"next_id":1,"entries":[{"id":0,"kind":"jti","value":"x"}]}"#,
    );
    folder.write("deny", "sub:42\n");
    let (state, deny) = (folder.path("state"), folder.path("deny"));
    let text = format!("state_directory = {state:?}\ndeny_file = {deny:?}\n{OPEN}");
    folder.write("umbel.toml", &text);
    let (code, report) = check(&folder, &[], &[]);
    assert_eq!(
        (code, &report["errors"]),
        (0, &serde_json::json!([])),
        "{report}"
    );
    folder.write("state/deny.json", "{");
    let (code, report) = check(&folder, &[], &[]);
    assert!(
        code == 1 && report["errors"].to_string().contains("deny.json"),
        "{report}"
    );
}
