//! The command line, as its users meet it: exit codes, standard output, and what errors say.

#[path = "command_line/access_log.rs"]
mod access_log;
#[path = "command_line/log_lines.rs"]
mod log_lines;
#[path = "command_line/messages.rs"]
mod messages;
#[path = "command_line/process.rs"]
mod process;
#[path = "command_line/proxy.rs"]
mod proxy;
#[path = "command_line/settings.rs"]
mod settings;
#[path = "command_line/subscriptions.rs"]
mod subscriptions;
mod support;

use std::net::TcpListener;
use std::process::Command;

use process::{Running, run, run_with_input, umbel};
use serde_json::Value;
use support::{PATIENCE, Server, wait_until};
use tungstenite::protocol::CloseFrame;
use umbel::config::{LimitInfo, Limits};

fn port_of(address: &str) -> &str {
    let (_, port) = address.rsplit_once(':').expect("it has a port");
    port
}

#[test]
fn errors_name_setting_value_and_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = taken.local_addr().expect("it is bound").to_string();
    for (arguments, exit, parts) in [
        (&["sub", "http://a/ws/x"][..], 1, &["use ws://a/ws/x"][..]),
        (&["sub", "https://a/ws/x"], 1, &["use wss://a/ws/x"]),
        (
            &["sub", "ws://127.0.0.1:1/"],
            1,
            &["ws://127.0.0.1:1/", "nothing listens there"],
        ),
        (
            &["serve", "--listen", "localhost"],
            1,
            &["localhost", "127.0.0.1:8080", "UMBEL_LISTEN"],
        ),
        (
            &["serve", "--listen", "0.0.0.0:0"],
            1,
            &["publish", "0.0.0.0:0", "--insecure"],
        ),
        (
            &["serve", "--publish", "token"],
            1,
            &["--publish-token", "UMBEL_PUBLISH_TOKEN"],
        ),
        (
            &["serve", "--publish", "all"],
            1,
            &["all", "--publish", "anyone, nobody or token"],
        ),
        (&["serve", "--origin", "x y"], 1, &["origin", "x y"]),
        (
            &["serve", "--topic-rule", "a histroy=5"],
            1,
            &["histroy=5", "history=", "UMBEL_TOPIC_RULES"],
        ),
        (
            &[
                "serve",
                "--topic-rule=a/* history=1",
                "--topic-rule=a/* presence=on",
            ],
            1,
            &["topic_rules = a/* presence=on", "never counts"],
        ),
        (
            &["--listen", &taken, "--log-level", "off"],
            1,
            &["listen", &taken, "choose another port"],
        ),
        (
            &["demo", "--port", port_of(&taken)],
            1,
            &[&taken, "choose another port with --port"],
        ),
        (&["--lisen", "x"], 2, &["--lisen", "--listen"]),
        (&["serv"], 2, &["serv", "'serve'"]),
    ] {
        let (code, out, error) = run(&mut umbel(arguments));
        assert_eq!((code, &*out), (exit, ""), "{arguments:?}: {error}");
        for part in parts {
            assert!(error.contains(part), "{arguments:?}: {error}");
        }
    }
}

#[test]
fn serve_is_the_default_command() {
    let (code, out, error) = run(&mut umbel(&["--listen", "127.0.0.1:7", "--dry-run"]));
    let settings: Value = serde_json::from_str(&out).expect("settings are JSON");
    assert_eq!(
        (code, &settings["listen"]),
        (0, &["127.0.0.1:7"][..].into()),
        "{error}"
    );
    let served = Running::start(umbel(&[]).env("UMBEL_LISTEN", "127.0.0.1:0"));
    wait_until("it listens", || {
        served
            .err
            .get()
            .iter()
            .any(|line| line.contains("listening on http://"))
    });
    served.signal("TERM");
    assert_eq!(served.end().0, 0);
}

#[test]
fn topic_rules_by_flag_or_variable() {
    let rules = ["orders/* history=5 slow_consumer=latest", "** presence=on"];
    let by_flags =
        run(umbel(&["serve", "--dry-run"]).args(rules.map(|rule| format!("--topic-rule={rule}"))));
    let variable = format!("{};{} ;", rules[0], rules[1]);
    let by_variable = run(umbel(&["serve", "--dry-run"]).env("UMBEL_TOPIC_RULES", variable));
    for (code, out, error) in [by_flags, by_variable] {
        let settings: Value = serde_json::from_str(&out).expect("settings are JSON");
        assert_eq!(
            (code, &settings["topic_rules"]),
            (0, &rules.to_vec().into()),
            "{error}"
        );
    }
}

/// A value that is not the default, near enough to it that no two limits contradict each other.
fn other_value(info: &LimitInfo) -> u64 {
    if info.name == "drain_code" {
        // One of two codes.
        1012
    } else if info.default < info.max {
        info.default + 1
    } else {
        info.default - 1
    }
}

#[test]
fn limits_by_flag_and_variable() {
    let flags: Vec<String> = Limits::ALL
        .iter()
        .map(|info| format!("--{}={}", info.flag(), other_value(info)))
        .collect();
    let by_flag = run(umbel(&["serve", "--dry-run"]).args(&flags));
    let variables = Limits::ALL
        .iter()
        .map(|info| (info.variable(), other_value(info).to_string()));
    let by_variable = run(umbel(&["serve", "--dry-run"]).envs(variables));
    let by_neither = run(&mut umbel(&["serve", "--dry-run"]));
    // A variable that is out of range does not count beside its flag.
    let minima = Limits::ALL
        .iter()
        .map(|info| (info.variable(), info.min.to_string()));
    let by_both = run(umbel(&["serve", "--dry-run"]).args(&flags).envs(minima));
    for (outcome, is_set) in [
        (by_flag, true),
        (by_variable, true),
        (by_both, true),
        (by_neither, false),
    ] {
        assert_eq!(outcome.0, 0, "{}", outcome.2);
        let settings: Value = serde_json::from_str(&outcome.1).expect("settings are JSON");
        for info in Limits::ALL {
            let expected = if is_set {
                other_value(info)
            } else {
                info.default
            };
            assert_eq!(settings[info.name], expected, "{}", info.name);
        }
    }
}

#[test]
fn limits_out_of_range() {
    for info in Limits::ALL {
        let (flag, variable) = (format!("--{}", info.flag()), info.variable());
        let over = (info.max + 1).to_string();
        let by_flag = run(&mut umbel(&["serve", "--dry-run", &flag, &over]));
        let by_variable = run(umbel(&["serve", "--dry-run"]).env(&variable, "x"));
        for ((code, _, error), value) in [(by_flag, &*over), (by_variable, "x")] {
            assert_eq!(code, 1, "{error}");
            let range = format!("from {} to {}", info.min, info.max);
            for part in [value, &*flag, &*variable, &*range] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }
}

#[test]
fn limit_flag_applies_to_requests() {
    let server = Server::start(&["--target-bytes-max", "64"]);
    let long = format!("/{}", "x".repeat(64));
    let status = |target: &str| {
        server
            .request(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .status
    };
    assert_eq!((status("/health"), status(&long)), (200, 414));
}

/// Requests that would write to an operator's terminal if they were logged as they are (uvicorn CVE-2020-7694).
fn send_hostile_requests(server: &Server) {
    for target in [
        "/ws/%1b[2J%0aforged",
        "/ws/a%00",
        "/\u{9b}2J",
        "/x\x1b[2J",
        "/ws/%zz",
        "/nowhere",
    ] {
        let mut wire = server.connect();
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nX: \x1b[2J\r\nConnection: close\r\n\r\n"
        );
        wire.offer(request.as_bytes(), support::Pieces::Whole);
        wire.read_to_end();
    }
    let mut websocket = server.websocket("/echo");
    let frame = CloseFrame {
        code: 4000.into(),
        reason: "\x1b[2J\nforged".into(),
    };
    websocket.close(Some(frame)).expect("it can be sent");
    while websocket.read().is_ok() {}
}

#[test]
fn log_escapes_control_characters() {
    let mut server = Server::start(&["--log-level", "trace"]);
    send_hostile_requests(&server);
    server.signal("TERM");
    assert!(server.wait_for_exit(PATIENCE).success());
    wait_until("the log is complete", || {
        server.log().contains("the server has ended")
    });
    let log = server.log();
    assert!(
        log.contains("refused: ") && log.contains("code=4000"),
        "{log}"
    );
    for line in log.lines() {
        assert!(
            line.starts_with("20") && !line.contains(char::is_control),
            "{line:?}"
        );
        assert!(!line.starts_with("forged"), "{log}");
    }
}

#[test]
fn json_log_lines() {
    let mut server = Server::start(&["--log-format", "json", "--log-level", "trace"]);
    send_hostile_requests(&server);
    server.signal("TERM");
    assert!(server.wait_for_exit(PATIENCE).success());
    wait_until("the log is complete", || {
        server.log().contains("the server has ended")
    });
    let log = server.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        assert!(
            ["time", "level", "message"]
                .iter()
                .all(|name| line[*name].is_string()),
            "{line}"
        );
    }
    let closed = lines.iter().find(|line| line["code"] == 4000);
    let closed = closed.unwrap_or_else(|| panic!("the close is logged:\n{log}"));
    assert_eq!(
        (&closed["reason"], &closed["level"]),
        (&"peer".into(), &"debug".into())
    );
    // What keeps it from starting is a line like the others.
    let start = &mut umbel(&["serve", "--log-format", "json", "--listen", "0.0.0.0:0"]);
    let (code, out, error) = run(start);
    assert_eq!((code, &*out, error.lines().count()), (1, "", 1), "{error}");
    let line: Value = serde_json::from_str(&error).expect("it is JSON");
    assert!(
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("--insecure")),
        "{line}"
    );
}

#[test]
fn check_reports_low_settings() {
    let (code, out, error) = run(&mut umbel(&["check", "--json"]));
    let report: Value = serde_json::from_str(&out).expect("a report is JSON");
    let findings = report["findings"].as_array().expect("findings are a list");
    let is_low = findings.iter().any(|finding| finding["verdict"] == "low");
    assert_eq!(code, i32::from(is_low), "{error}");
    assert_eq!(report["verdict"], if is_low { "low" } else { "ok" });
    for finding in findings {
        for name in ["name", "value", "verdict", "meaning"] {
            let text = finding[name].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{name}: {finding}");
        }
        // What is well as it is names no command that would change it.
        let change = finding.get("change").and_then(Value::as_str);
        let is_low = finding["verdict"] == "low";
        assert_eq!(
            change.is_some_and(|text| !text.is_empty()),
            is_low,
            "{finding}"
        );
    }
    let (code, out, error) = run(Command::new("prlimit")
        .args(["--nofile=64:100", env!("CARGO_BIN_EXE_umbel")])
        .args(["check", "--reactors", "1", "--connections", "100"]));
    assert_eq!(code, 1, "{out}{error}");
    assert!(
        out.contains("low   descriptors (ulimit -Hn)          100 (soft: 64)"),
        "{out}"
    );
    assert!(
        out.contains("Enough for 31 connections") && out.contains("LimitNOFILE=169"),
        "{out}"
    );
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
}

#[test]
fn check_agrees_with_server_on_descriptors() {
    let server = Server::start_with_descriptors(200, &["--reactors", "2"]);
    let log = server.log();
    let (_, rest) = log.split_once("at most ").expect("the start is logged");
    let (connections, _) = rest
        .split_once(" connections")
        .expect("the start is logged");
    let (_, out, _) = run(Command::new("prlimit")
        .args(["--nofile=200:200", env!("CARGO_BIN_EXE_umbel")])
        .args(["check", "--reactors", "2"]));
    let expected = format!("Enough for {connections} connections");
    assert!(out.contains(&expected), "{expected}: {out}");
}

#[test]
fn help_fits_80_columns() {
    for command in ["", "serve", "sub", "pub", "check", "completions", "man"] {
        for help in ["-h", "--help"] {
            let arguments = [command, help];
            let arguments = if command.is_empty() {
                &arguments[1..]
            } else {
                &arguments
            };
            let (code, out, error) = run(umbel(arguments).env("COLUMNS", "80"));
            assert_eq!((code, &*error), (0, ""));
            for line in out.lines() {
                assert!(line.chars().count() <= 80, "{command} {help}: {line}");
            }
        }
    }
    let (_, short, _) = run(&mut umbel(&["serve", "-h"]));
    let (_, long, _) = run(&mut umbel(&["serve", "--help"]));
    for info in Limits::ALL {
        let flag = format!("--{} <", info.flag());
        assert!(long.contains(&flag) && !short.contains(&flag), "{flag}");
    }
}

#[test]
fn shell_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, out, error) = run(&mut umbel(&["completions", shell]));
        assert_eq!((code, &*error), (0, ""));
        for word in ["serve", "ping-interval-ms", "completions"] {
            assert!(out.contains(word), "{shell}: {word}");
        }
    }
    let (_, script, _) = run(&mut umbel(&["completions", "bash"]));
    let (code, _, error) = run_with_input(
        Command::new("bash").args(["-n", "/dev/stdin"]),
        script.as_bytes(),
    );
    assert_eq!(code, 0, "{error}");
}

#[test]
fn manual_pages() {
    let (code, page, _) = run(&mut umbel(&["man"]));
    assert!(code == 0 && page.contains(".TH umbel 1"), "{page}");
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("man");
    let shown = directory.to_str().expect("the path is text");
    let (code, out, error) = run(&mut umbel(&["man", shown]));
    assert_eq!((code, &*out, &*error), (0, "", ""));
    for (name, word) in [
        ("umbel.1", "umbel\\-serve"),
        ("umbel-serve.1", "ping\\-interval\\-ms"),
        ("umbel-sub.1", "Exit code"),
        ("umbel-pub.1", "retries"),
        ("umbel-check.1", "connections"),
    ] {
        let page = std::fs::read_to_string(directory.join(name));
        let page = page.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(word), "{name}: {page}");
    }
    std::fs::remove_dir_all(&directory).expect("the pages can be removed");
}

#[test]
fn trace_printed_to_its_end() {
    let server = Server::start(&[]);
    let url = format!("http://{}", server.address());
    let topic = ["trace", &url, "--topic", "news", "--for", "300ms"];
    let (code, printed, error) = run(&mut umbel(&topic));
    assert_eq!((code, &*error), (0, ""), "{printed}");
    let lines: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!((lines.len(), &lines[0]["event"]), (2, &"started".into()));
    assert_eq!(
        (&lines[1]["event"], &lines[1]["reason"]),
        (&"ended".into(), &"time".into())
    );
    // Whom a connection is, is nothing that a server tells just anybody.
    let (code, printed, error) = run(&mut umbel(&["trace", &url, "--connection", "0-0-0"]));
    assert_eq!((code, &*printed), (1, ""));
    assert!(error.contains("umbel token new"), "{error}");
    let (code, _, error) = run(&mut umbel(&["trace", &url]));
    assert!(code == 2 && error.contains("--topic <PATTERN>"), "{error}");
}
