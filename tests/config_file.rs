//! The configuration file, as the binary takes it.

#[cfg(feature = "tls")]
#[path = "config_file/certificates.rs"]
mod certificates;
#[path = "config_file/file.rs"]
mod file;
#[path = "config_file/files.rs"]
mod files;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use file::Folder;
use serde_json::Value;

/// `umbel` with these arguments, and without the variables of whoever runs the tests.
fn umbel(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbel"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("UMBEL_") {
            command.env_remove(name);
        }
    }
    command.env_remove("CREDENTIALS_DIRECTORY");
    command
}

/// Runs to the end: the exit code, standard output and standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().expect("umbel can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("it ends by itself");
    (code, text(&output.stdout), text(&output.stderr))
}

/// The settings that would hold with this file, these variables and these flags.
fn settings(folder: &Folder, variables: &[(&str, &str)], flags: &[&str]) -> Value {
    let config = folder.path("umbel.toml");
    let (code, out, error) = run(umbel(&["serve", "--dry-run", "--config", &config])
        .args(flags)
        .envs(variables.iter().copied()));
    assert_eq!(code, 0, "{error}");
    serde_json::from_str(&out).expect("settings are JSON")
}

/// The report of `umbel check --config --json`, and its exit code.
fn check(folder: &Folder, variables: &[(&str, &str)], flags: &[&str]) -> (i32, Value) {
    let config = folder.path("umbel.toml");
    let (code, out, error) = run(umbel(&["check", "--json", "--config", &config])
        .args(flags)
        .envs(variables.iter().copied()));
    let report = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}"));
    (code, report)
}

const WHOLE: &str = r#"
reactors = 3
publish_token = { file = "publish.token" }
subscribe = "anyone"
origins = ["https://app.example", "http://b.example:81"]

[log]
level = "warn"

[[listener]]
name = "public"
address = "0.0.0.0:8443"

[[listener]]
name = "admin"
address = "unix:/run/umbel.sock"
mode = "0600"
surface = "admin"

[[topic]]
pattern = "news/**"
history = 1000
history_age_max_ms = "10m"

[[topic]]
pattern = "chat/*"
presence = true

[limits]
message_bytes_max = "1MiB"
ping_interval_ms = "30s"
backlog = 0x10
"#;

#[test]
fn flag_over_variable_over_file_over_default() {
    let folder = Folder::with("umbel.toml", WHOLE);
    folder.write("publish.token", "0123456789abcdef\n");
    let from_file = settings(&folder, &[], &[]);
    for (name, value) in [
        ("reactors", Value::from(3)),
        ("workers", 0.into()),
        ("message_bytes_max", (1 << 20).into()),
        ("ping_interval_ms", 30_000.into()),
        ("backlog", 16.into()),
        ("origin", "https://app.example, http://b.example:81".into()),
        ("publish", "token".into()),
    ] {
        assert_eq!(from_file[name], value, "{name}");
    }
    let rules = [
        "news/** history=1000 history_age_max_ms=600000",
        "chat/* presence=on",
    ];
    assert_eq!(from_file["topic_rules"], Value::from(rules.to_vec()));
    let variables = [
        ("UMBEL_REACTORS", "4"),
        ("UMBEL_PING_INTERVAL_MS", "20s"),
        ("UMBEL_ORIGIN", "https://c.example"),
        ("UMBEL_TOPIC_RULE", "a history=1"),
    ];
    let over = settings(&folder, &variables, &["--reactors=5"]);
    assert_eq!(
        (&over["reactors"], &over["ping_interval_ms"]),
        (&5.into(), &20_000.into())
    );
    // A list is replaced whole.
    assert_eq!(over["origin"], "https://c.example");
    assert_eq!(over["topic_rules"], Value::from(vec!["a history=1"]));
    assert_eq!(over["backlog"], 16);
    let by_variable =
        run(umbel(&["serve", "--dry-run"]).env("UMBEL_CONFIG", folder.path("umbel.toml")));
    assert_eq!(by_variable.0, 0, "{}", by_variable.2);
}

/// A right of a higher source counts, whatever a token of a lower one would say.
#[test]
fn right_over_token_of_lower_source() {
    let folder = Folder::with(
        "umbel.toml",
        "publish_token = \"0123456789abcdef\"\nobserve = \"nobody\"\nsubscribe = \"anyone\"\norigins = [\"any\"]",
    );
    for (variables, expected) in [
        (&[][..], ["token", "nobody"]),
        (&[("UMBEL_PUBLISH", "nobody")], ["nobody", "nobody"]),
        (
            &[("UMBEL_OBSERVE_TOKEN", "0123456789abcdef")],
            ["token", "token"],
        ),
    ] {
        let settings = settings(&folder, variables, &[]);
        let said = ["publish", "observe"].map(|name| settings[name].as_str().unwrap_or_default());
        assert_eq!(said, expected, "{variables:?}");
    }
}

#[test]
fn check_names_each_source() {
    let folder = Folder::with("umbel.toml", WHOLE);
    folder.write("publish.token", "0123456789abcdef");
    let (code, report) = check(&folder, &[("UMBEL_WORKERS", "2")], &[]);
    assert_eq!((code, &report["verdict"]), (0, &"ok".into()), "{report:#}");
    let settings = report["settings"].as_array().expect("settings are a list");
    let of = |name: &str| {
        let mut all = settings.iter();
        all.find(|setting| setting["name"] == name)
            .unwrap_or_else(|| panic!("{name} is listed"))
    };
    let path = folder.path("umbel.toml");
    for (name, value, source) in [
        ("reactors", "3", format!("{path}:2:12")),
        ("publish_token", "set", format!("{path}:3:17")),
        ("workers", "2", "UMBEL_WORKERS".to_owned()),
        ("keep_alive_timeout_ms", "75000", "default".to_owned()),
    ] {
        assert_eq!(
            (&of(name)["value"], &of(name)["source"]),
            (&value.into(), &source.into())
        );
    }
    assert_eq!(
        report["listeners"][1]["listener"],
        "admin (unix:/run/umbel.sock)"
    );
    let holds = report["listeners"][0]["holds"].as_str().unwrap_or_default();
    assert!(
        holds.contains("publish: token, subscribe: anyone"),
        "{holds}"
    );
    let (code, words, _) = run(&mut umbel(&["check", "--config", &path]));
    assert_eq!(code, 0, "{words}");
    assert!(
        words.contains(&format!("[{path}:2:12]")) && words.ends_with("0 errors, 0 warnings\n"),
        "{words}"
    );
    assert!(!words.contains("0123456789abcdef"), "{words}");
}

#[test]
fn all_errors_at_once_with_line_and_caret() {
    let text = "reactor = 1\n[[listener]]\nadress = \"127.0.0.1:80\"\n[limits]\noutbox_bytes_max = \"2M\"\n";
    let folder = Folder::with("umbel.toml", text);
    let path = folder.path("umbel.toml");
    let (code, out, error) = run(umbel(&["--config", &path]).env("UMBEL_BACKLGO", "5"));
    assert_eq!((code, &*out), (1, ""), "{error}");
    for part in [
        &*format!(
            "{path}:1:1: unknown key \"reactor\": did you mean \"reactors\"?\n  |\n1 | reactor = 1\n  | ^^^^^^^\n"
        ),
        &format!("{path}:3:1: unknown key \"adress\" in [[listener]]: did you mean \"address\"?\n"),
        &format!("{path}:5:20: outbox_bytes_max: write 2MiB"),
        "5 | outbox_bytes_max = \"2M\"\n  |                    ^^^^\n",
        "unknown variable UMBEL_BACKLGO: did you mean UMBEL_BACKLOG?\n",
        "4 errors in the settings",
    ] {
        assert!(error.contains(part), "{part}\n{error}");
    }
    let (code, report) = check(&folder, &[], &[]);
    assert_eq!((code, &report["verdict"]), (1, &"failed".into()));
    assert_eq!(report["errors"][1]["line"], 3, "{report:#}");
    // As JSON, each error is a line of the log.
    let (_, _, error) = run(&mut umbel(&["--config", &path, "--log-format", "json"]));
    assert_eq!(error.lines().count(), 3, "{error}");
    for line in error.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

#[test]
fn files_that_cannot_be_read() {
    let folder = Folder::with("latin1.toml", "");
    fs::write(folder.path("latin1.toml"), b"# caf\xe9\n").expect("it can be written");
    folder.write("long.toml", &"#\n".repeat(600_000));
    for (name, wanted) in [
        ("none.toml", "there is no such file"),
        ("", "it is a directory"),
        ("latin1.toml", "it is not UTF-8, in line 1"),
        ("long.toml", "it has over 1048576 bytes"),
    ] {
        let path = folder.path(name);
        let (code, _, error) = run(&mut umbel(&["--config", &path]));
        assert_eq!(code, 1, "{error}");
        assert!(
            error.contains(wanted) && error.contains(&path),
            "{name}: {error}"
        );
    }
}

#[test]
fn variables_of_kubernetes_services_are_no_settings() {
    let folder = Folder::with("umbel.toml", "");
    let variables = [
        ("UMBEL_SERVICE_HOST", "10.0.0.1"),
        ("UMBEL_PORT", "tcp://10.0.0.1:8080"),
        ("UMBEL_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ];
    settings(&folder, &variables, &[]);
    let (code, report) = check(&folder, &[("UMBEL_PORT", "8080")], &[]);
    assert_eq!(code, 1);
    let message = report["errors"][0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("UMBEL_LISTEN"), "{message}");
}

#[test]
fn secrets_from_file_credential_and_variable() {
    let folder = Folder::with("umbel.toml", "");
    folder.write("token", "0123456789abcdef\n");
    fs::create_dir(folder.path("credentials")).expect("it can be made");
    folder.write("credentials/observe", "fedcba9876543210");
    let text = format!(
        "publish_token = {{ file = \"{}\" }}\nsubscribe_token = {{ env = \"UMBEL_READERS\" }}\nobserve_token = {{ credential = \"observe\" }}\norigins = [\"any\"]\n",
        folder.path("token")
    );
    folder.write("umbel.toml", &text);
    let credentials = folder.path("credentials");
    let variables = [
        ("UMBEL_READERS", "aaaabbbbccccdddd"),
        ("CREDENTIALS_DIRECTORY", &*credentials),
    ];
    let settings = settings(&folder, &variables, &[]);
    for name in ["publish", "subscribe", "observe"] {
        assert_eq!(settings[name], "token", "{name}");
    }
    let (code, report) = check(&folder, &[], &[]);
    assert_eq!(code, 1);
    let errors = report["errors"].to_string();
    assert!(
        errors.contains("CREDENTIALS_DIRECTORY is not set")
            && errors.contains("UMBEL_READERS is not set"),
        "{errors}"
    );
    folder.write("token", &"x".repeat(70_000));
    let (_, report) = check(&folder, &variables, &[]);
    assert!(
        report["errors"][0]["message"]
            .to_string()
            .contains("over 65536 bytes"),
        "{report}"
    );
    folder.write("token", "\n");
    let (_, report) = check(&folder, &variables, &[]);
    assert!(
        report["errors"][0]["message"]
            .to_string()
            .contains("is empty"),
        "{report}"
    );
}

/// What others may read, and rules that never count, are warnings, and errors for the strict.
#[test]
fn warnings_and_strict() {
    let rules =
        "[[topic]]\npattern = \"**\"\nhistory = 1\n[[topic]]\npattern = \"r/**\"\nhistory = 2\n";
    let folder = Folder::with(
        "umbel.toml",
        &format!(
            "subscribe = \"anyone\"\norigins = [\"any\"]\npublish_token = {{ file = \"token\" }}\n{rules}"
        ),
    );
    folder.write("token", "0123456789abcdef");
    let readable = fs::Permissions::from_mode(0o644);
    fs::set_permissions(folder.path("token"), readable).expect("it is ours");
    let (code, report) = check(&folder, &[], &[]);
    let warnings = report["warnings"].as_array().expect("warnings are a list");
    assert_eq!((code, warnings.len()), (0, 2), "{report:#}");
    assert!(
        warnings[0]["message"]
            .to_string()
            .contains("others may read"),
        "{report}"
    );
    assert_eq!(warnings[1]["line"], 7);
    assert!(
        warnings[1]["message"].to_string().contains("never counts"),
        "{report}"
    );
    let (code, report) = check(&folder, &[], &["--strict"]);
    assert_eq!((code, &report["verdict"]), (1, &"failed".into()));
}
