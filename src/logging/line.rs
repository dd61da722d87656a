//! A line with the fields that there are.

use std::fmt;
use std::net::SocketAddr;

use log::kv::{Source, Value};
use log::{Level, Record};

/// A line about an event. Fields that are not known are left out.
#[derive(Debug)]
pub struct Line<'a>(Vec<(&'static str, Value<'a>)>);

/// Fields that most lines have room for without growing.
const FIELDS: usize = 24;

impl<'a> Line<'a> {
    /// A line about an event of this name.
    pub fn of(event: &'static str) -> Line<'a> {
        let mut fields = Vec::with_capacity(FIELDS);
        fields.push(("event", Value::from(event)));
        Line(fields)
    }

    /// With a field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value<'a>>) -> Line<'a> {
        self.0.push((name, value.into()));
        self
    }

    /// With a field that is shown by its words.
    #[must_use]
    pub fn with_words<T: fmt::Display>(self, name: &'static str, value: &'a T) -> Line<'a> {
        self.with(name, Value::from_display(value))
    }

    /// With a field, if it is known.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl Into<Value<'a>>>) -> Line<'a> {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Writes it.
    pub fn write(&self, level: Level, words: fmt::Arguments<'_>) {
        if level > log::max_level() {
            return;
        }
        let fields: &dyn Source = &&self.0[..];
        let record = Record::builder()
            .args(words)
            .level(level)
            .target("umbel::events")
            .module_path(Some(module_path!()))
            .key_values(fields)
            .build();
        log::logger().log(&record);
    }
}

/// Writes that more of a kind happened than there are lines.
pub fn more(event: &'static str, kind: &str, left_out: u64) {
    if left_out > 0 {
        let line = Line::of(event)
            .with("kind", kind)
            .with("left_out", left_out);
        line.write(
            Level::Info,
            format_args!("{left_out} more were {event} and not told of: {kind}"),
        );
    }
}

/// An address as the log shows it. A port that is not known is left out.
pub fn shown(address: SocketAddr) -> String {
    let ip = address.ip().to_canonical();
    match address.port() {
        0 => ip.to_string(),
        port => SocketAddr::new(ip, port).to_string(),
    }
}
