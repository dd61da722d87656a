//! Answers of `umbel serve` about settings, refused and in force.

use serde_json::Value;
use umbel::config::Limits;

use crate::process::{run, umbel};

/// Standard error for arguments that it does not take.
fn refused(arguments: &[&str]) -> String {
    let (code, out, error) = run(umbel(arguments).arg("--dry-run"));
    assert!(code != 0 && out.is_empty(), "{arguments:?}: {out}{error}");
    error
}

/// The settings that hold, and what is said of them on standard error.
fn settings(arguments: &[&str]) -> (Value, String) {
    let (code, out, error) = run(umbel(&["serve", "--dry-run"]).args(arguments));
    assert_eq!(code, 0, "{arguments:?}: {error}");
    (
        serde_json::from_str(&out).expect("settings are JSON"),
        error,
    )
}

#[test]
fn flags_of_other_programs_are_answered_with_ours() {
    for (arguments, tip) in [
        (&["serve", "--port", "80"][..], "--listen 127.0.0.1:80"),
        (&["--port=80"], "--listen 127.0.0.1:80"),
        (&["serve", "-p", "x"], "--listen 127.0.0.1:PORT"),
        (&["serve", "--host", "x"], "--listen"),
        (&["serve", "--bind", "x"], "--listen"),
        (&["serve", "--address", "x"], "--listen"),
        (&["serve", "-v"], "--log-level debug"),
        (&["serve", "--verbose"], "--log-level debug"),
        (&["serve", "--debug"], "--log-level debug"),
        (&["serve", "--cors", "x"], "--origin"),
        (&["serve", "--api-key", "x"], "--publish-token"),
        (&["serve", "--threads", "x"], "--reactors"),
        (&["serve", "--tls"], "--certificate FULLCHAIN,KEY"),
        (&["serve", "--cert", "x"], "--certificate FULLCHAIN,KEY"),
        (&["serve", "--history", "5"], "--topic-rule"),
        (&["serve", "--presence"], "--topic-rule"),
        (&["serve", "--max-connections", "5"], "--connections-max"),
        (&["sub", "--port", "80", "x"], "--server HOST:PORT"),
        (&["sub", "--host", "a", "x"], "--server HOST:PORT"),
    ] {
        let (code, out, error) = run(&mut umbel(arguments));
        assert_eq!((code, &*out), (2, ""), "{arguments:?}: {error}");
        let said = error.lines().find(|line| line.contains("tip: "));
        let said = said.unwrap_or_else(|| panic!("{arguments:?}: {error}"));
        assert!(said.contains(tip), "{arguments:?}: {error}");
        assert_eq!(error.matches("tip: ").count(), 1, "{error}");
    }
}

/// Errors of the file, of variables and of flags stand in one answer.
#[test]
fn bad_values_of_all_sources_at_once() {
    let file = std::env::temp_dir().join(format!("umbel-all-sources-{}.toml", std::process::id()));
    std::fs::write(&file, "reactor = 2\n").expect("the file can be written");
    let variables = [
        ("UMBEL_WORKERS", "many"),
        ("UMBEL_INSECURE", "perhaps"),
        ("UMBEL_DEFLATE", "zip"),
        ("UMBEL_BACKLOGS", "1"),
    ];
    let flags = ["--reactors=-1", "--limits-dry-run=maybe"];
    let told = [
        "unknown key \"reactor\"",
        "UMBEL_WORKERS: invalid value 'many'",
        "UMBEL_INSECURE: invalid value 'perhaps': it must be true or false",
        "UMBEL_DEFLATE: invalid value 'zip': it must be",
        "unknown variable UMBEL_BACKLOGS",
    ];
    let of_flags = [
        "--reactors: invalid value '-1'",
        "--limits-dry-run: invalid value 'maybe'",
    ];
    let by_variable = ["UMBEL_CONFIG", &*file.to_string_lossy()].map(str::to_owned);
    let [config, path] = by_variable;
    let served = run(umbel(&["serve", "--dry-run"])
        .args(flags)
        .envs(variables)
        .env(&config, &path));
    let checked = run(umbel(&["check", "--config", &path]).envs(variables));
    std::fs::remove_file(&file).expect("the file is there");
    assert_eq!(served.0, 1, "{}", served.2);
    assert_eq!(checked.0, 1, "{}", checked.2);
    for words in told.iter().chain(&of_flags) {
        assert!(served.2.contains(words), "{words}: {}", served.2);
    }
    for words in told {
        let said = format!("{}{}", checked.1, checked.2);
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(
        served.2.contains("7 errors in the settings"),
        "{}",
        served.2
    );
}

#[test]
fn topic_rules_have_one_source() {
    let rules_of = |flags: &[&str], variables: &[(&str, &str)]| {
        let (code, out, error) = run(umbel(&["serve", "--dry-run"])
            .args(flags)
            .envs(variables.iter().copied()));
        let settings: Option<Value> = serde_json::from_str(&out).ok();
        (code, settings.map(|all| all["topic_rules"].clone()), error)
    };
    let (one, other) = ("a history=3", "b history=4");
    for variable in ["UMBEL_TOPIC_RULE", "UMBEL_TOPIC_RULES"] {
        let (code, rules, error) = rules_of(&[], &[(variable, other)]);
        assert_eq!((code, rules), (0, Some([other][..].into())), "{error}");
        // A flag goes over either.
        let (code, rules, error) = rules_of(&["--topic-rule", one], &[(variable, other)]);
        assert_eq!((code, rules), (0, Some([one][..].into())), "{error}");
    }
    let both = [("UMBEL_TOPIC_RULE", one), ("UMBEL_TOPIC_RULES", other)];
    let (code, _, error) = rules_of(&[], &both);
    assert_eq!(code, 1, "{error}");
    let words = "UMBEL_TOPIC_RULES and UMBEL_TOPIC_RULE are two names of one setting";
    assert!(error.contains(words), "{error}");
}

#[test]
fn sizes_and_times_have_units() {
    let (settings, _) = settings(&[
        "--outbox-bytes-max=3MiB",
        "--history-bytes-total-max=4GB",
        "--ping-interval-ms=30s",
        "--message-timeout-ms=2m",
        "--send-buffer-bytes=70000",
        "--topic-rule=a history=1 history_bytes_max=2KiB history_age_max_ms=1h",
    ]);
    for (name, value) in [
        ("outbox_bytes_max", 3 << 20),
        ("history_bytes_total_max", 4_000_000_000),
        ("ping_interval_ms", 30_000),
        ("message_timeout_ms", 120_000),
        ("send_buffer_bytes", 70_000_u64),
    ] {
        assert_eq!(settings[name], value, "{name}");
    }
    assert_eq!(
        settings["topic_rules"][0],
        "a history=1 history_bytes_max=2048 history_age_max_ms=3600000"
    );
}

#[test]
fn malformed_numbers_get_suggestions() {
    for (argument, parts) in [
        ("--outbox-bytes-max=2M", &["2MiB", "2097152", "2MB"][..]),
        ("--outbox-bytes-max=2mb", &["2MB (2000000)"]),
        ("--outbox-bytes-max=64k", &["64KiB", "65536"]),
        ("--outbox-bytes-max=1.5MiB", &["1572864"]),
        ("--outbox-bytes-max=1_000_000", &["1000000"]),
        ("--outbox-bytes-max=2s", &["a size", "MiB"]),
        ("--ping-interval-ms=30sec", &["30s", "30000"]),
        ("--ping-interval-ms=1.5s", &["1500"]),
        ("--ping-interval-ms=2MiB", &["a time", "30s"]),
        ("--connections-max=10k", &["10000"]),
        ("--connections-max=1,000", &["1000"]),
        ("--connections-max=1e6", &["1000000"]),
        (
            "--reactors=auto",
            &["whole number from 0 to 1024", "0 lets"],
        ),
        ("--workers=-1", &["whole number from 0 to 1024"]),
        ("--reactors=4.5", &["whole number from 0 to 1024"]),
        ("--topic-rule=a history=1k", &["1000"]),
        ("--topic-rule=a history=1 history_bytes_max=2M", &["2MiB"]),
    ] {
        let error = refused(&["serve", argument]);
        let (flag, value) = argument.split_once('=').expect("a flag with a value");
        for part in parts.iter().chain(&[flag, value]) {
            assert!(error.contains(part), "{argument}: {part}: {error}");
        }
    }
    for (arguments, exit, part) in [
        (&["serve", "--workers", "-1"][..], 1, "from 0 to 1024"),
        (&["check", "--connections", "10k"], 2, "write 10000; "),
        (&["check", "--reactors", "-1"], 1, "from 0 to 1024"),
        (&["sub", "-n", "1k", "x"], 2, "write 1000; "),
        (&["sub", "-n", "0", "x"], 2, "whole number from 1"),
        (
            &["pub", "--retries", "x", "t", "y"],
            2,
            "whole number from 0",
        ),
    ] {
        let (code, _, error) = run(&mut umbel(arguments));
        assert!(
            code == exit && error.contains(part),
            "{arguments:?}: {error}"
        );
    }
}

#[test]
fn rights_are_shown_in_words() {
    let (open, _) = settings(&[]);
    for name in ["publish", "subscribe", "observe"] {
        assert_eq!(open[name], "anyone", "{name}");
    }
    assert_eq!(
        (&open["origin"], &open["hosts"]),
        (&"this machine".into(), &"this machine".into())
    );
    let (said, _) = settings(&[
        "--listen=0.0.0.0:80",
        "--publish-token=0123456789abcdef",
        "--subscribe=anyone",
        "--origin=https://a.example,http://b.example:81",
    ]);
    assert_eq!(said["publish"], "token");
    assert_eq!(said["subscribe"], "anyone");
    assert_eq!(said["observe"], "nobody");
    assert_eq!(said["origin"], "https://a.example, http://b.example:81");
    assert_eq!(said["hosts"], "any");
    let rights = ["--publish=anyone", "--subscribe=anyone"];
    let (any, _) = settings(&[&rights[..], &["--origin=any", "--hosts=a.example,[::1]"]].concat());
    assert_eq!(
        (&any["origin"], &any["hosts"]),
        (&"any".into(), &"a.example, [::1]".into())
    );
    let (local, _) = settings(&[&rights[..], &["--origin=localhost"]].concat());
    assert_eq!(
        (&local["origin"], &local["hosts"]),
        (&"this machine".into(), &"any".into())
    );
    for settings in [open, said, any, local] {
        let nulls = settings
            .as_object()
            .map(|all| all.values().filter(|value| value.is_null()));
        assert_eq!(nulls.map(Iterator::count), Some(0), "{settings}");
    }
}

#[test]
fn malformed_origins_get_remedies() {
    for (origin, way_out) in [
        ("wss://a.example", "https://a.example"),
        ("WS://a.example:81", "http://a.example:81"),
        ("null", "any"),
        ("NULL", "any"),
        ("file://", "null"),
        ("file:///home/a/page.html", "null"),
        ("data://x", "null"),
        ("blob:https://a.example/5", "https://a.example"),
        ("*", "any"),
        ("a.example", "https://a.example"),
        ("a.example:81", "https://a.example:81"),
        ("https://a.example/", "https://a.example"),
        ("https://a.example:81/x/y?z", "https://a.example:81"),
        ("https://u@a.example", "https://a.example"),
        ("https://*.a.example", "each"),
        ("https://", "host"),
        ("https://b\u{fc}cher.example", "xn--"),
    ] {
        let error = refused(&["serve", "--origin", origin]);
        let (said, answer) = error.split_once(": ").expect("the setting comes first");
        assert_eq!(said, "umbel", "{error}");
        let answer = answer.strip_prefix(&format!("origin = {origin}: "));
        let answer = answer.unwrap_or_else(|| panic!("{origin}: {error}"));
        assert!(answer.contains(way_out), "{origin}: {error}");
    }
    // The one of several that is wrong is named.
    let error = refused(&["serve", "--origin=https://a.example,wss://b.example"]);
    assert!(error.contains("origin = wss://b.example: "), "{error}");
    for origin in [
        "https://a.example",
        "capacitor://localhost",
        "http://[::1]:5173",
    ] {
        let flags = ["--publish=anyone", "--subscribe=anyone", "--origin", origin];
        assert_eq!(settings(&flags).0["origin"], origin);
    }
}

#[test]
fn topic_rules_that_never_count_are_told() {
    for (first, second) in [
        ("** history=1", "r/** presence=on"),
        ("a/* history=1", "a/b history=2"),
        ("a/** history=1", "a/*/c history=2"),
        ("a/*/** history=1", "a/b/c.d history=2"),
    ] {
        let flags = [
            format!("--topic-rule={first}"),
            format!("--topic-rule={second}"),
        ];
        let (_, said) = settings(&[&flags[0], &flags[1]]);
        let warning = said.lines().find(|line| line.contains("WARN"));
        let warning = warning.unwrap_or_else(|| panic!("{first}; {second}: {said:?}"));
        for part in [first, second, "never counts"] {
            assert!(warning.contains(part), "{part}: {said}");
        }
        // The other way round both count.
        assert_eq!(settings(&[&flags[1], &flags[0]]).1, "");
    }
    for rules in [
        "a/* history=1;a/b/c history=2",
        "a history=1;a/** history=2",
        "*.x history=1;** history=2",
        "a/b history=0;a/** history=9",
    ] {
        let said = settings(&[&format!("--topic-rule={rules}")]).1;
        assert_eq!(said, "", "{rules}");
    }
    // A pattern that is no topic as the server writes it matches none.
    let said = settings(&["--topic-rule=t?b=2&a=1 history=5"]).1;
    assert!(
        said.contains("t?a=1&b=2") && said.contains("never counts"),
        "{said}"
    );
}

#[test]
fn topic_rule_without_setting() {
    for rule in ["a", "a/**", "a history=1;b"] {
        let error = refused(&["serve", "--topic-rule", rule]);
        for part in ["history=", "presence=", "--topic-rule"] {
            assert!(error.contains(part), "{rule}: {error}");
        }
    }
    // What takes topics out of a later rule says so, and is shown as it was said.
    let rules = "--topic-rule=a/b history=0;a/** history=9";
    assert_eq!(settings(&[rules]).0["topic_rules"][0], "a/b history=0");
}

/// A text in one line, as a reader takes it, without the escapes and the macros of a manual page.
fn flat(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words
        .join(" ")
        .replace("\\-", "-")
        .replace("\\*(Aq", "'")
        .replace("\\&", "")
}

#[test]
fn help_and_manual_say_what_every_limit_does() {
    let (_, help, _) = run(umbel(&["serve", "--help"]).env("COLUMNS", "80"));
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("man-of-limits");
    let shown = directory.to_str().expect("the path is text");
    assert_eq!(run(&mut umbel(&["man", shown])).0, 0);
    let page = std::fs::read_to_string(directory.join("umbel-serve.1")).expect("it is written");
    std::fs::remove_dir_all(&directory).expect("the pages can be removed");
    for (name, text) in [("help", flat(&help)), ("manual", flat(&page))] {
        for info in Limits::ALL {
            let said = flat(&format!("{} [default: {}]", info.doc, info.default));
            assert!(text.contains(&said), "{name}: {}: {said}", info.name);
        }
    }
    // No other flag stands there without a word either.
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("\\fB\\-\\-") {
            let next = lines.peek().copied().unwrap_or_default();
            assert!(!next.trim().is_empty(), "{line}");
        }
    }
}

#[test]
fn check_says_how_to_change_what_is_low_only() {
    let (_, out, _) = run(&mut umbel(&["check"]));
    let mut verdict = "";
    for line in out.lines() {
        if !line.starts_with(' ') {
            verdict = line.split(' ').next().unwrap_or_default();
        }
        assert!(verdict == "low" || !line.contains("To change it"), "{out}");
    }
    let (_, out, _) = run(std::process::Command::new("prlimit")
        .args(["--nofile=64:100", env!("CARGO_BIN_EXE_umbel")])
        .args(["check", "--reactors", "1", "--connections", "100"]));
    assert!(out.contains("To change it: LimitNOFILE=169"), "{out}");
}
