//! Log lines on standard error: for people, or as JSON for collectors.
//!
//! In both forms a record is one line without control characters, whatever a peer sent that stands in it. Lines are written
//! by a thread of their own: standard error that takes nothing more makes no reactor wait.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use env_logger::fmt::Formatter;
use env_logger::{Builder, Target, WriteStyle};
use log::kv::{self, Key, Value, VisitSource};
use log::{LevelFilter, Record};
use serde_json::{Map, Value as Json};
use umbel::internals::metrics::process::LOG_LINES_DROPPED;

/// Lines that may wait to be written. Beyond that they are dropped, and counted.
const LINES_MAX: usize = 8192;

/// Time for lines that wait when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// A line, or a wish to be told when all before it are written.
enum Waiting {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The way to the thread that writes.
static LINES: OnceLock<SyncSender<Waiting>> = OnceLock::new();

/// Hands lines to the thread that writes them. Each call is one line.
struct Lines(SyncSender<Waiting>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // What has no words is a record that is not shown.
        if !line.is_empty() && self.0.try_send(Waiting::Line(line.to_vec())).is_err() {
            LOG_LINES_DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(waiting: &Receiver<Waiting>, mut out: impl Write) {
    for each in waiting {
        match each {
            Waiting::Line(line) if out.write_all(&line).is_err() => {
                LOG_LINES_DROPPED.fetch_add(1, Ordering::Relaxed);
            }
            Waiting::Line(_) => {}
            // It fails if nobody waits any more.
            Waiting::Flush(done) => drop(done.try_send(())),
        }
    }
}

/// Waits until all lines are written. It waits for a second at most.
pub fn flush() {
    let Some(lines) = LINES.get() else {
        return;
    };
    let until = Instant::now() + FLUSH_TIMEOUT;
    let (done, is_done) = mpsc::sync_channel(1);
    let mut wish = Waiting::Flush(done);
    while let Err(TrySendError::Full(back)) = lines.try_send(wish) {
        if Instant::now() >= until {
            return;
        }
        wish = back;
        thread::sleep(Duration::from_millis(1));
    }
    // Whoever waits has waited long enough.
    let _ = is_done.recv_timeout(until.saturating_duration_since(Instant::now()));
}

/// The target of lines: a thread that writes, or standard error itself where none can be had.
fn target() -> Target {
    let (lines, waiting) = mpsc::sync_channel(LINES_MAX);
    let writer = thread::Builder::new().name("umbel-log".to_owned());
    let is_started = writer.spawn(move || write_lines(&waiting, io::stderr()));
    match is_started {
        Ok(_) => Target::Pipe(Box::new(Lines(LINES.get_or_init(|| lines).clone()))),
        Err(_) => Target::Stderr,
    }
}

/// Starts logging, from this level on.
pub fn start(level: &str, is_json: bool) {
    let mut builder = Builder::new();
    // The way goes through a thread, so it has to be said whether there is a terminal at its end.
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let style = match io::stderr().is_terminal() && !is_plain {
        true => WriteStyle::Always,
        false => WriteStyle::Never,
    };
    // The level that counts is log's own, which can change.
    builder
        .filter_level(LevelFilter::Trace)
        .write_style(style)
        .target(target());
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
    let mut pairs = Pairs(String::new(), record.args().as_str());
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
/// An event whose name is the message is not shown again.
struct Pairs<'m>(String, Option<&'m str>);

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let text = value.to_string();
        if key.as_str() == "event" && self.1.is_none_or(|message| message == text) {
            return Ok(());
        }
        // What a peer sent must not be taken for another field.
        match text.is_empty() || text.contains([' ', '"', '=']) {
            true => write!(self.0, " {}={text:?}", OneLine(&key))?,
            false => write!(self.0, " {}={}", OneLine(&key), OneLine(&text))?,
        }
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
    fn lines_beyond_the_limit_are_dropped_and_counted() {
        let (sender, waiting) = mpsc::sync_channel(2);
        let mut lines = Lines(sender.clone());
        let before = LOG_LINES_DROPPED.load(Ordering::Relaxed);
        for line in ["a\n", "b\n", "c\n"] {
            assert_eq!(lines.write(line.as_bytes()).expect("it takes all"), 2);
        }
        assert_eq!(LOG_LINES_DROPPED.load(Ordering::Relaxed) - before, 1);
        drop((lines, sender));
        let mut written = Vec::new();
        write_lines(&waiting, &mut written);
        assert_eq!(written, b"a\nb\n");
    }

    #[test]
    fn flush_is_told_behind_the_lines_before_it() {
        let (sender, waiting) = mpsc::sync_channel(2);
        let (done, is_done) = mpsc::sync_channel(1);
        sender.send(Waiting::Line(b"a\n".to_vec())).expect("room");
        sender.send(Waiting::Flush(done)).expect("room");
        drop(sender);
        assert!(is_done.try_recv().is_err());
        write_lines(&waiting, &mut Vec::new());
        assert!(is_done.try_recv().is_ok());
    }

    #[test]
    fn control_characters_never_reach_a_terminal() {
        let shown = OneLine("a\x1b[2J\nb\u{9b}\\n \u{e9}").to_string();
        assert_eq!(shown, "a\\u{1b}[2J\\nb\\u{9b}\\n \u{e9}");
    }

    #[test]
    fn pairs_stand_behind_the_message() {
        let mut pairs = Pairs(String::new(), Some("closed"));
        let source = [
            ("event", "closed"),
            ("connection", "1\n"),
            ("reason", "peer"),
            ("user_agent", "a \"b\""),
        ];
        kv::Source::visit(&source, &mut pairs).expect("writing to a string does not fail");
        assert_eq!(
            pairs.0,
            " connection=1\\n reason=peer user_agent=\"a \\\"b\\\"\""
        );
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
