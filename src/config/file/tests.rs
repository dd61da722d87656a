//! Files in, problems out.

use std::path::Path;

use super::source::SystemSecrets;
use super::{FileSettings, parse};

fn read(text: &str) -> FileSettings {
    let path = Path::new("a.toml");
    parse(path, text.to_owned().into(), &SystemSecrets::of(path))
}

/// Line, column and message of each problem, those of the whole included.
fn problems(text: &str) -> Vec<String> {
    let settings = read(text);
    let mut problems = settings.problems;
    if problems.is_empty() {
        problems.extend(
            settings
                .values
                .config()
                .err()
                .into_iter()
                .flat_map(|all| all.0),
        );
    }
    let shown = problems.iter().map(|problem| {
        let text = problem.to_string();
        let first = text.lines().next().unwrap_or_default();
        first.strip_prefix("a.toml:").unwrap_or(first).to_owned()
    });
    shown.collect()
}

/// Files, and what the first error begins with.
const BAD_FILES: &[(&str, &str)] = &[
    ("adress = 1", "1:1: unknown key \"adress\""),
    (
        "[[listener]]\nadress = \"127.0.0.1:80\"",
        "2:1: unknown key \"adress\" in [[listener]]: did you mean \"address\"?",
    ),
    (
        "reactor = 1",
        "1:1: unknown key \"reactor\": did you mean \"reactors\"?",
    ),
    (
        "origin = [\"x\"]",
        "1:1: unknown key \"origin\": did you mean \"origins\"?",
    ),
    (
        "listen = \"127.0.0.1:80\"",
        "1:1: unknown key \"listen\"; write [[listener]], one for each",
    ),
    (
        "topic-rule = \"a history=1\"",
        "1:1: unknown key \"topic-rule\"; write [[topic]], one for each",
    ),
    (
        "log_level = \"info\"",
        "1:1: unknown key \"log_level\": write level in [log]",
    ),
    (
        "backlog = 5",
        "1:1: unknown key \"backlog\": write backlog in [limits]",
    ),
    (
        "[limits]\nreactors = 5",
        "2:1: unknown key \"reactors\" in [limits]: reactors stands outside of tables, above the first",
    ),
    (
        "[limits]\nbaklog = 5",
        "2:1: unknown key \"baklog\" in [limits]: did you mean \"backlog\"?",
    ),
    (
        "[limit]\nbacklog = 5",
        "1:2: unknown key \"limit\": did you mean \"limits\"?",
    ),
    (
        "[limits]\nping-interval-ms = 5",
        "2:1: unknown key \"ping-interval-ms\" in [limits]: did you mean \"ping_interval_ms\"?",
    ),
    (
        "limits = 5",
        "1:10: limits is a table: write [limits], and its keys below",
    ),
    (
        "listener = 5",
        "1:12: there may be several of them: write [[listener]], one for each",
    ),
    (
        "[listener]\naddress = \"127.0.0.1:80\"",
        "1:1: there may be several of them: write [[listener]], one for each",
    ),
    (
        "[[listener]]\nname = \"a\"",
        "1:1: this [[listener]] has no address, as in address = \"127.0.0.1:8080\"",
    ),
    (
        "[[listener]]\naddress = \"localhost\"",
        "2:11: address: it must be an IP address and a port",
    ),
    (
        "[[listener]]\naddress = \"127.0.0.1:80#admin\"",
        "2:11: address: in the file, what it shows is another key: surface = \"admin\"",
    ),
    (
        "[[listener]]\naddress = \"127.0.0.1:80\"\nsurface = \"private\"",
        "3:11: surface: it must be all, public or admin",
    ),
    (
        "[[listener]]\naddress = \"127.0.0.1:80\"\nmode = \"0660\"",
        "3:8: mode: only a unix socket has permissions",
    ),
    (
        "[[listener]]\naddress = \"unix:/a\"\nmode = \"0999\"",
        "3:8: mode: it must be permissions in octal, as in \"0660\"",
    ),
    (
        "[[listener]]\naddress = \"127.0.0.1:80\"\nspeed = 9",
        "3:1: unknown key \"speed\" in [[listener]]; there are name, address, surface, mode",
    ),
    (
        "[[listener]]\naddress = \"127.0.0.1:80\"\nreactors = 9",
        "3:1: unknown key \"reactors\" in [[listener]]: reactors stands outside of tables, above the first",
    ),
    (
        "[[topic]]\npattern = \"a\"\nbacklog = 9",
        "3:1: unknown key \"backlog\" in [[topic]]: write backlog in [limits]",
    ),
    (
        "[[topic]]\npattern = \"a\"\nproxy_protocol = true",
        "3:1: unknown key \"proxy_protocol\" in [[topic]]: proxy_protocol is a key of [[listener]]",
    ),
    (
        "forwarded_header = \"off\"",
        "1:1: unknown key \"forwarded_header\": forwarded_header is a key of [[listener]]",
    ),
    (
        "reactors = \"two\"",
        "1:12: reactors: it must be a whole number from 0 to 1024; 0 lets the server choose",
    ),
    (
        "reactors = true",
        "1:12: reactors: it must be a number, and this is a boolean",
    ),
    (
        "reactors = -1",
        "1:12: reactors: it must be a whole number from 0 to 1024; 0 lets the server choose",
    ),
    (
        "io_uring = \"true\"",
        "1:12: io_uring: it must be true or false, without quotes, and this is a string",
    ),
    (
        "publish = 5",
        "1:11: publish: it must be a string in quotes, and this is a whole number",
    ),
    (
        "publish = \"everyone\"",
        "1:11: publish: it must be anyone, nobody or token",
    ),
    (
        "publish = \"token\"",
        "1:11: publish = token: set the token with --publish-token, UMBEL_PUBLISH_TOKEN, or publish_token in the file",
    ),
    (
        "publish = \"anyone\"\npublish_token = \"0123456789abcdef\"",
        "1:11: publish = anyone: contradicts --publish-token; give one of the two",
    ),
    (
        "publish_token = 5",
        "1:17: publish_token: it must be a string, or { file = \"PATH\" }",
    ),
    (
        "publish_token = { path = \"/a\" }",
        "1:19: publish_token: it must be a string, or { file = \"PATH\" }",
    ),
    (
        "publish_token = { file = \"/no/such\" }",
        "1:17: publish_token: /no/such: there is no such file",
    ),
    (
        "publish_token = { file = \"/\" }",
        "1:17: publish_token: /: it is no file",
    ),
    (
        "publish_token = { env = \"UMBEL_NO_SUCH\" }",
        "1:17: publish_token: the variable UMBEL_NO_SUCH is not set",
    ),
    (
        "publish_token = { credential = \"../a\" }",
        "1:17: publish_token: credential: it must be a name without slashes",
    ),
    (
        "publish_token = \"\"",
        "1:17: publish_token: the secret is empty",
    ),
    (
        "origins = \"https://a.example\"",
        "1:11: origins: it must be a list, as in origins = [\"https://app.example\"]",
    ),
    (
        "origins = [5]",
        "1:12: origins: it must be a list of strings, and this is a whole number",
    ),
    (
        "origins = [\"https://a.example\", \"x y\"]",
        "1:33: origin = x y: ",
    ),
    (
        "[[topic]]\nhistory = 5",
        "1:1: this [[topic]] has no pattern",
    ),
    (
        "[[topic]]\npattern = \"a\"",
        "1:1: [[topic]]: it has no fields",
    ),
    (
        "[[topic]]\npattern = \"a\"\nhistory = \"1k\"",
        "3:11: history: write 1000; it must be a whole number from 0 to 10000000",
    ),
    (
        "[[topic]]\npattern = \"a**\"\nhistory = 1",
        "2:11: pattern: ",
    ),
    (
        "[[topic]]\npattern = \"a\"\nhistory_age_max_ms = \"5m\"",
        "1:1: [[topic]]: history_age_max_ms needs a history",
    ),
    (
        "[[topic]]\npattern = \"a\"\npresence = \"on\"",
        "3:12: presence: it must be true or false, without quotes",
    ),
    (
        "[[topic]]\npattern = \"a\"\nhistory = 1\n[[topic]]\npattern = \"a\"\nhistory = 2",
        "4:1: topic_rules = a history=2: an earlier rule has the same pattern",
    ),
    (
        "[limits]\noutbox_bytes_max = \"2M\"",
        "2:20: outbox_bytes_max: write 2MiB (2097152) or 2MB (2000000); it must be a whole number from 1024",
    ),
    (
        "[limits]\nping_interval_ms = 1.5",
        "2:20: ping_interval_ms: it must be a whole number from 10",
    ),
    (
        "[limits]\npublication_bytes_max = \"16MiB\"",
        "2:25: publication_bytes_max = 16777216: a publication must fit an outbox",
    ),
    (
        "[[listener]]\naddress = \"0.0.0.0:80\"",
        "publish = (not set): 0.0.0.0:80 is not a loopback address",
    ),
    ("[tls]\nname = \"a\"", "1:2: unknown key \"tls\""),
    (
        "[jwt]\nname = \"a\"",
        "1:1: there may be several of them: write [[jwt]]",
    ),
    ("reactors = 1\nreactors = 2", "2:1: not TOML: duplicate key"),
    ("reactors = ", "1:12: not TOML: "),
    ("a.b.c = 1", "1:1: unknown key \"a\""),
];

#[test]
fn bad_files() {
    for (text, expected) in BAD_FILES {
        let problems = problems(text);
        let first = problems
            .first()
            .unwrap_or_else(|| panic!("{text}: nothing is wrong"));
        assert!(first.starts_with(expected), "{text}\n{first}");
    }
}

#[test]
fn all_problems_are_told_in_order() {
    let text =
        "reactors = \"x\"\nnone = 1\nnone = 2\n[log]\nlevel = 1\n[limits]\nbacklog = 0\nqueue = 1";
    let lines: Vec<_> = problems(text)
        .iter()
        .map(|problem| problem.split(':').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(lines, ["1", "2", "3", "5", "7", "8"]);
}

#[test]
fn secrets_are_not_shown() {
    for text in [
        "publish_token = \"s3cret",
        "publish_token = [\"s3cret\"]",
        "publish_token = \"s3cret\"\npublish = \"nobody\"",
        "\"publish_token\" = s3cret",
        "  observe_token = { text = \"s3cret\" }",
    ] {
        let settings = read(text);
        let mut shown = format!("{settings:?}");
        let mut all = settings.problems.clone();
        all.extend(
            settings
                .values
                .config()
                .err()
                .into_iter()
                .flat_map(|all| all.0),
        );
        assert!(!all.is_empty(), "{text}");
        for problem in all {
            shown.push_str(&format!("{problem}{problem:?}"));
        }
        assert!(!shown.contains("s3cret"), "{text}: {shown}");
    }
}

#[test]
fn carets_stand_under_the_value() {
    let settings = read("# caf\u{e9}\n\n\tpublish = 'eve\u{e9}'  # \t[2J\n");
    let shown = settings.problems[0].to_string();
    let expected = "a.toml:3:12: publish: it must be anyone, nobody or token\n  |\n3 |  publish = 'eve\u{e9}'  #  [2J\n  |            ^^^^^^";
    assert_eq!(shown, expected);
}

#[test]
fn no_text_panics() {
    use proptest::prelude::*;
    let piece = prop_oneof![
        Just("[[listener]]\n".to_owned()),
        Just("[[topic]]\n".to_owned()),
        Just("[limits]\n".to_owned()),
        Just("publish_token = ".to_owned()),
        Just("pattern = \"a\"\n".to_owned()),
        Just("history = 1\n".to_owned()),
        Just("address = \"unix:#\"\n".to_owned()),
        Just("origins = [\"".to_owned()),
        "[\\x00-\\xff\u{100}=\\[\\]{}\"'\n .#]{0,8}",
    ];
    proptest!(|(pieces in proptest::collection::vec(piece, 0..12))| {
        let settings = read(&pieces.concat());
        let _ = settings.values.config();
        for problem in settings.problems {
            let _ = problem.to_string();
        }
    });
}

/// What the schema says of a file.
fn validate(text: &str) -> Result<(), String> {
    let mut compiler = boon::Compiler::new();
    let mut schemas = boon::Schemas::new();
    compiler
        .add_resource("schema.json", super::schema())
        .expect("it is a schema");
    let schema = compiler
        .compile("schema.json", &mut schemas)
        .expect("it is a schema");
    let table = toml::de::DeTable::parse(text).expect("it is TOML");
    let value = json(&toml::de::DeValue::Table(table.into_inner()));
    schemas
        .validate(&value, schema)
        .map_err(|error| error.to_string())
}

fn json(value: &toml::de::DeValue<'_>) -> serde_json::Value {
    use toml::de::DeValue;
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix());
            number.expect("it is not that large").into()
        }
        DeValue::Float(float) => float.as_str().parse::<f64>().expect("a number").into(),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Datetime(datetime) => datetime.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(entries) => entries
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())))
            .collect(),
    }
}

/// As it stands, and with all that it shows set.
#[test]
fn sample_parses_and_fits_the_schema() {
    let sample = super::sample();
    let uncommented = sample.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with([' ', ':', '#']) => setting,
        _ => line,
    });
    let uncommented: Vec<_> = uncommented.collect();
    let all = uncommented
        .join("\n")
        .replace("file = \"/etc/umbel/token\"", "env = \"PATH\"")
        .replace("credential = \"backend-token\"", "env = \"PATH\"")
        .replace("file = \"/etc/umbel/hook-secret\"", "env = \"PATH\"")
        .replace("file = \"/etc/umbel/hook-secret.old\"", "env = \"PATH\"")
        .replace("file = \"/etc/umbel/presence.key\"", "env = \"PATH\"")
        .replace("credential = \"url-key\"", "env = \"PATH\"");
    for text in [&sample, &all] {
        assert_eq!(problems(text), [""; 0], "{text}");
        assert_eq!(validate(text), Ok(()));
    }
    let settings = read(&all);
    for info in crate::config::table::settings() {
        assert!(
            settings.values.given(info.name).is_some(),
            "{} is not in the sample",
            info.name
        );
        let default = matches!(info.unset, crate::config::table::Unset::Number(number)
            if settings.values.words(&info) == number.to_string());
        assert!(
            default || !info.name.ends_with("_max"),
            "{} has another default",
            info.name
        );
    }
    let config = settings.values.config().expect("it can stand");
    assert_eq!(config.limits, crate::config::Limits::default());
}

/// Whatever the parser refuses by a value's kind or name, the schema refuses too.
#[test]
fn schema_refuses_bad_files() {
    for (text, expected) in BAD_FILES {
        let is_of_kind = [
            "unknown key",
            "it must be a number",
            "without quotes",
            "must be a list",
            "has no",
        ];
        if is_of_kind.iter().any(|words| expected.contains(words))
            && !expected.contains("has no fields")
        {
            assert!(validate(text).is_err(), "{text}");
        }
    }
}
