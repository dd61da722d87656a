//! Log lines on standard error: for people, or as JSON for collectors.

use std::io::Write;

use clap::{Arg, ArgMatches};
use env_logger::fmt::Formatter;
use env_logger::{Builder, Target, TimestampPrecision};
use log::kv::{self, Key, Value, VisitSource};
use log::{LevelFilter, Record};
use serde_json::{Map, Value as Json};

/// The arguments that decide what is logged, and how.
pub fn arguments() -> [Arg; 2] {
    [
        Arg::new("log-level")
            .long("log-level")
            .env("UMBEL_LOG_LEVEL")
            .value_name("LEVEL")
            .value_parser(["off", "error", "warn", "info", "debug", "trace"])
            .default_value("info")
            .help("The least important lines that are logged"),
        Arg::new("log-format")
            .long("log-format")
            .env("UMBEL_LOG_FORMAT")
            .value_name("FORMAT")
            .value_parser(["text", "json"])
            .default_value("text")
            .help("Lines for people, or one JSON object a line"),
    ]
}

/// Starts logging.
pub fn start(matches: &ArgMatches) {
    let given = |name| matches.get_one::<String>(name).map_or("", String::as_str);
    let level = given("log-level").parse().unwrap_or(LevelFilter::Info);
    let mut builder = Builder::new();
    builder.filter_level(level).target(Target::Stderr);
    if given("log-format") == "json" {
        builder.format(write_json);
    } else {
        builder
            .format_timestamp(Some(TimestampPrecision::Millis))
            .format_target(false);
    }
    builder.init();
}

fn write_json(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
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
