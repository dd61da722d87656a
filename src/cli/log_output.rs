//! Log lines on standard error: for people, or as JSON for collectors.
//!
//! In both forms a record is one line without control characters, whatever a peer sent that stands in it.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};

use env_logger::fmt::Formatter;
use env_logger::{Builder, Target};
use log::kv::{self, Key, Value, VisitSource};
use log::{LevelFilter, Record};
use serde_json::{Map, Value as Json};

/// Starts logging, from this level on.
pub fn start(level: &str, is_json: bool) {
    let mut builder = Builder::new();
    // The level that counts is log's own, which can change.
    builder
        .filter_level(LevelFilter::Trace)
        .target(Target::Stderr);
    if is_json {
        builder.format(write_json);
        // The standard library's own report of a panic has several lines, none of them JSON.
        panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    } else {
        builder.format(write_text);
    }
    builder.init();
    set_level(level);
}

/// Target of the lines about changes by the control API. They are written at every level but `off`.
const AUDIT: &str = "umbel::audit";

/// Level from which other lines are written.
static SHOWN: AtomicUsize = AtomicUsize::new(LevelFilter::Info as usize);

/// Logs from this level on.
pub fn set_level(level: &str) {
    let level = level.parse().unwrap_or(LevelFilter::Info);
    SHOWN.store(level as usize, Ordering::Relaxed);
    log::set_max_level(match level {
        LevelFilter::Off => level,
        level => level.max(LevelFilter::Info),
    });
}

fn is_shown(record: &Record<'_>) -> bool {
    // It warns of what any peer may send. What of it matters, the server says itself.
    if record.target().starts_with("rustls") {
        return false;
    }
    record.level() as usize <= SHOWN.load(Ordering::Relaxed) || record.target() == AUDIT
}

fn write_text(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    if !is_shown(record) {
        return Ok(());
    }
    let level = record.level();
    let style = out.default_level_style(level);
    let (time, message) = (out.timestamp_millis(), OneLine(record.args()));
    write!(out, "{time} {style}{level:<5}{style:#} {message}")?;
    let mut pairs = Pairs(String::new());
    // Writing to a string does not fail, and a value that cannot be shown is left out.
    let _ = record.key_values().visit(&mut pairs);
    writeln!(out, "{}", pairs.0)
}

fn write_json(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    if !is_shown(record) {
        return Ok(());
    }
    let mut line = Map::new();
    line.insert("time".to_owned(), out.timestamp_millis().to_string().into());
    line.insert(
        "level".to_owned(),
        record.level().as_str().to_lowercase().into(),
    );
    line.insert("message".to_owned(), record.args().to_string().into());
    // A key of the log statement's own never replaces one of these.
    let _ = record.key_values().visit(&mut Fields(&mut line));
    writeln!(out, "{}", Json::Object(line))
}

/// Keys and values behind a message for people.
struct Pairs(String);

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        write!(self.0, " {}={}", OneLine(&key), OneLine(&value))?;
        Ok(())
    }
}

/// Keys and values of a JSON line.
struct Fields<'a>(&'a mut Map<String, Json>);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let json = match (value.to_u64(), value.to_bool()) {
            (Some(number), _) => number.into(),
            (None, Some(flag)) => flag.into(),
            (None, None) => value.to_string().into(),
        };
        self.0.entry(key.as_str()).or_insert(json);
        Ok(())
    }
}

/// Shows a value with its control characters escaped. Unlike [`umbel::internals::http::escape::escape`] it leaves backslashes
/// alone, since what a log statement has escaped must not be escaped again.
struct OneLine<T>(T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl fmt::Write for Escaping<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.chars().try_for_each(|character| match character {
                    _ if character.is_control() => write!(self.0, "{}", character.escape_default()),
                    _ => self.0.write_char(character),
                })
            }
        }
        write!(Escaping(f), "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_a_terminal() {
        let shown = OneLine("a\x1b[2J\nb\u{9b}\\n \u{e9}").to_string();
        assert_eq!(shown, "a\\u{1b}[2J\\nb\\u{9b}\\n \u{e9}");
    }

    #[test]
    fn pairs_stand_behind_the_message() {
        let mut pairs = Pairs(String::new());
        let source = [("connection", "1\n"), ("reason", "peer")];
        kv::Source::visit(&source, &mut pairs).expect("writing to a string does not fail");
        assert_eq!(pairs.0, " connection=1\\n reason=peer");
    }

    #[test]
    fn fields_never_replace_the_message() {
        let mut line = Map::new();
        line.insert("message".to_owned(), "kept".into());
        let source = [
            ("message", Value::from("lost")),
            ("status", Value::from(404)),
        ];
        kv::Source::visit(&source, &mut Fields(&mut line)).expect("a map takes all");
        assert_eq!(
            Json::Object(line).to_string(),
            r#"{"message":"kept","status":404}"#
        );
    }
}
