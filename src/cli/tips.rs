//! Suggestions for flags that other programs have.

use std::ffi::OsString;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Flags of servers, and what `umbel serve` has in their place.
const SERVE: &[(&[&str], &str)] = &[
    (
        &["port", "p"],
        "the port is a part of --listen, as in --listen 127.0.0.1:{port}",
    ),
    (
        &[
            "host",
            "H",
            "bind",
            "b",
            "address",
            "addr",
            "a",
            "interface",
            "ip",
        ],
        "the address is a part of --listen, as in --listen 127.0.0.1:8080",
    ),
    (
        &["verbose", "v", "debug", "d"],
        "more is logged with --log-level debug",
    ),
    (&["quiet", "q"], "less is logged with --log-level warn"),
    (&["log", "logs"], "there are --log-level and --log-format"),
    (
        &["cors", "allow-origin", "allowed-origins", "cors-origin"],
        "set the pages that may connect with --origin",
    ),
    (
        &["api-key", "secret", "password", "auth"],
        "there is a token for each right: --publish-token, --subscribe-token and --observe-token; --token has rights by topic",
    ),
    (
        &["threads", "cpus", "cores"],
        "there are --reactors and --workers",
    ),
    (
        &[
            "tls",
            "ssl",
            "cert",
            "key",
            "certificate",
            "tls-cert",
            "tls-key",
        ],
        "TLS is a listener's: --listen https://ADDRESS:PORT --certificate FULLCHAIN,KEY",
    ),
    (
        &[
            "history",
            "presence",
            "slow-consumer",
            "topic",
            "topics",
            "rule",
        ],
        "set rules for topics with --topic-rule, as in --topic-rule 'news/** history=1000 presence=on'",
    ),
    (
        &["max-connections", "connections", "max-clients", "limit"],
        "there is --connections-max",
    ),
    (
        &["open", "public", "no-auth", "unsafe"],
        "there are --publish, --subscribe and --origin, and --insecure for all three",
    ),
];

/// Flags of clients, and what `umbel sub` and `umbel pub` have in their place.
const CLIENT: &[(&[&str], &str)] = &[
    (
        &["port", "p", "host", "H", "address", "addr", "url", "u"],
        "set the server with --server HOST:PORT, or give a URL in place of the topic",
    ),
    (
        &["topic", "t", "channel", "c", "message", "m", "data"],
        "it is written without a flag: umbel sub TOPIC, umbel pub TOPIC TEXT",
    ),
    (
        &["file", "f", "stdin", "line", "lines"],
        "`-` in place of the text reads standard input, as in umbel pub news - < FILE",
    ),
    (
        &["auth", "password", "api-key", "header", "secret"],
        "there is --token, or better UMBEL_TOKEN",
    ),
];

/// Replaces clap's guess, which goes by letters, with a better tip.
pub fn improve(mut error: Error, arguments: &[OsString]) -> Error {
    let table = match arguments.get(1).and_then(|command| command.to_str()) {
        Some("serve") => SERVE,
        Some("sub" | "pub") => CLIENT,
        _ => return error,
    };
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let name = given.trim_start_matches('-');
    let is_named = |names: &&[&str]| names.contains(&name);
    let Some((_, tip)) = table.iter().find(|(names, _)| is_named(names)) else {
        return error;
    };
    let port = value_of(given, arguments).filter(|value| value.parse::<u16>().is_ok());
    let tip = tip.replace("{port}", port.unwrap_or("PORT"));
    for guess in [
        ContextKind::SuggestedArg,
        ContextKind::SuggestedSubcommand,
        ContextKind::TrailingArg,
        ContextKind::Usage,
    ] {
        error.remove(guess);
    }
    error.insert(
        ContextKind::Suggested,
        ContextValue::StyledStrs(vec![tip.into()]),
    );
    error
}

/// What follows a flag, behind its `=` or as the next argument.
fn value_of<'a>(flag: &str, arguments: &'a [OsString]) -> Option<&'a str> {
    let mut arguments = arguments.iter().filter_map(|argument| argument.to_str());
    let value = arguments.find_map(|argument| argument.strip_prefix(flag))?;
    match value {
        "" => arguments.next(),
        _ => Some(value.trim_start_matches('=')),
    }
}
