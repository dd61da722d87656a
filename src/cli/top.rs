//! `umbel top`: figures of a running server, anew each second.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};
use umbel::internals::http::escape::escape;

use super::http_client::get;
use super::operate::{authorization_of, url_of};
use super::{peer_arguments, stop_signals};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks for a signal in the meantime.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Topics, and connections, that are shown.
const ROWS: usize = 10;

/// Counters whose rates are shown: the name in the answer, and that of the metric without its prefix.
const RATES: [(&str, &str); 6] = [
    ("accepted", "accepted_total"),
    ("publications", "publications_total"),
    ("deliveries", "deliveries_total"),
    ("messages_received", "messages_received_total"),
    ("received_bytes", "received_bytes_total"),
    ("sent_bytes", "sent_bytes_total"),
];

/// The arguments.
pub fn command() -> Command {
    Command::new("top")
        .about("Show what a running server does, anew each second")
        .long_about(
            "Show what a running server does, anew each second: rates, the busiest of the first 1000 topics, the load of its \
             reactors, and with a token that may manage everything the connections for which most is queued.",
        )
        .after_help(
            "It asks for /metrics, /topics, /api/v1/stats and /api/v1/connections, on a listener that shows them.\n\n\
             Exit code: 0 after Ctrl-C or --once; 1 if the server could not be asked.\n\n\
             For example: umbel top http://127.0.0.1:9090 --once --json | jq .rates",
        )
        .args([
            Arg::new("url")
                .value_name("URL")
                .help("http://HOST:PORT of a listener for operators; without it the default server"),
            Arg::new("once")
                .long("once")
                .action(ArgAction::SetTrue)
                .help("Look for one second, print, and end"),
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print a JSON object a line in place of tables"),
        ])
        .args(peer_arguments())
}

/// What was seen at a moment.
struct Sample {
    at: Instant,
    /// Metrics without their prefix, summed over their labels.
    metrics: HashMap<String, f64>,
    /// Topics with subscribers and offset.
    topics: BTreeMap<String, (u64, u64)>,
    /// Of each reactor: connections and load.
    reactors: Vec<Value>,
    /// Connections for which most is queued. Empty without the right to see them.
    slowest: Vec<Value>,
}

/// A server to be asked.
struct Asked<'a> {
    matches: &'a ArgMatches,
    authorization: Option<String>,
}

impl Asked<'_> {
    fn get(&self, path: &str) -> Result<Vec<u8>, Box<dyn Error>> {
        get(&url_of(self.matches, path)?, self.authorization.as_deref())
    }

    /// An answer of JSON; null where it is refused.
    fn json(&self, path: &str) -> Value {
        let body = self.get(path).unwrap_or_default();
        serde_json::from_slice(&body).unwrap_or_default()
    }

    fn sample(&self) -> Result<Sample, Box<dyn Error>> {
        let metrics = self.get("/metrics")?;
        let topics = self.get("/topics?limit=1000")?;
        let topics: Value = serde_json::from_slice(&topics)?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let topics = list(&topics["topics"]).into_iter().filter_map(|topic| {
            let position = topic["position"].as_str()?;
            let (_, offset) = position.split_once(':')?;
            let subscribers = topic["subscribers"].as_u64()?;
            let name = topic["topic"].as_str()?.to_owned();
            Some((name, (subscribers, offset.parse().ok()?)))
        });
        let mut slowest = list(&self.json("/api/v1/connections?limit=1000")["connections"]);
        let queued = |row: &Value| row["queued_bytes"].as_u64().unwrap_or(0);
        slowest.retain(|row| queued(row) > 0);
        slowest.sort_by_key(|row| std::cmp::Reverse(queued(row)));
        slowest.truncate(ROWS);
        Ok(Sample {
            at: Instant::now(),
            metrics: read_metrics(&String::from_utf8_lossy(&metrics)),
            topics: topics.collect(),
            reactors: list(&self.json("/api/v1/stats")["reactors"]),
            slowest,
        })
    }
}

/// Metrics of a scrape, without their prefix, summed over their labels.
fn read_metrics(text: &str) -> HashMap<String, f64> {
    let mut metrics = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = name.split('{').next().unwrap_or(name);
        let name = name.strip_prefix("umbel_").unwrap_or(name);
        if let Ok(value) = value.parse::<f64>() {
            *metrics.entry(name.to_owned()).or_insert(0.0) += value;
        }
    }
    metrics
}

/// What there is to be said about the time between two samples.
fn report(before: &Sample, now: &Sample) -> Value {
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
    let gauge = |name: &str| now.metrics.get(name).copied().unwrap_or(0.0);
    let mut rates = serde_json::Map::new();
    for (name, metric) in RATES {
        let earlier = before.metrics.get(metric).copied().unwrap_or(0.0);
        let rate = ((gauge(metric) - earlier) / seconds).max(0.0);
        rates.insert(name.to_owned(), rate.round().into());
    }
    let mut topics: Vec<(f64, u64, &String)> = now
        .topics
        .iter()
        .map(|(name, (subscribers, offset))| {
            let earlier = before
                .topics
                .get(name)
                .map_or(*offset, |(_, offset)| *offset);
            let rate = offset.saturating_sub(earlier) as f64 / seconds;
            (rate, *subscribers, name)
        })
        .collect();
    topics.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(a.2.cmp(b.2)));
    let topics = topics.into_iter().take(ROWS).map(|(rate, subscribers, topic)| {
        json!({"topic": topic, "subscribers": subscribers, "publications": rate.round()})
    });
    json!({
        "connections": gauge("connections"),
        "topics_seen": now.topics.len(),
        "outbox_bytes": gauge("outbox_bytes"),
        "slow_consumers": gauge("slow_consumers_total"),
        "rates": rates,
        "busiest": topics.collect::<Vec<_>>(),
        "reactors": now.reactors,
        "slowest": now.slowest,
    })
}

/// The same in tables.
fn words(report: &Value) -> String {
    let mut text = String::new();
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let rates = &report["rates"];
    let _ = writeln!(
        text,
        "connections {:>10}    queued bytes {:>12}    slow consumers {:>8}",
        number(&report["connections"]),
        number(&report["outbox_bytes"]),
        number(&report["slow_consumers"]),
    );
    for (name, _) in RATES {
        let _ = writeln!(text, "{name:<20} {:>14}/s", number(&rates[name]));
    }
    let loads = report["reactors"].as_array().into_iter().flatten();
    for (at, reactor) in loads.enumerate() {
        let (load, count) = (number(&reactor["load"]), number(&reactor["connections"]));
        let _ = writeln!(
            text,
            "reactor {at:<3} load {:>5.1} %  connections {count}",
            load * 100.0
        );
    }
    let _ = writeln!(text, "\n{:>12} {:>12}  topic", "published/s", "subscribers");
    for topic in report["busiest"].as_array().into_iter().flatten() {
        let name = escape(topic["topic"].as_str().unwrap_or_default());
        let (rate, count) = (
            number(&topic["publications"]),
            number(&topic["subscribers"]),
        );
        let _ = writeln!(text, "{rate:>12} {count:>12}  {name}");
    }
    let slowest = report["slowest"].as_array();
    if let Some(rows) = slowest.filter(|rows| !rows.is_empty()) {
        let _ = writeln!(text, "\n{:>12}  connection", "queued bytes");
        for row in rows {
            let shown = |name: &str| escape(row[name].as_str().unwrap_or("-")).to_string();
            let (queued, id) = (number(&row["queued_bytes"]), shown("connection"));
            let _ = writeln!(
                text,
                "{queued:>12}  {id} {} {}",
                shown("subject"),
                shown("peer")
            );
        }
    }
    text
}

/// Shows it until a signal comes.
pub fn run(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    let asked = Asked {
        matches,
        authorization: authorization_of(matches)?,
    };
    let (is_once, is_json) = (matches.get_flag("once"), matches.get_flag("json"));
    let stop = stop_signals()?;
    let mut out = io::stdout().lock();
    let clears = out.is_terminal() && !is_once && !is_json;
    let mut before = asked.sample()?;
    loop {
        let next = before.at + INTERVAL;
        while Instant::now() < next {
            if stop.load(Ordering::Relaxed) {
                return Ok(ExitCode::SUCCESS);
            }
            thread::sleep(LOOK_INTERVAL.min(next.saturating_duration_since(Instant::now())));
        }
        let now = asked.sample()?;
        let report = report(&before, &now);
        let text = match is_json {
            true => format!("{report}\n"),
            false => words(&report),
        };
        // To the upper left, and what is below is cleared.
        let clear = if clears { "\x1b[H\x1b[J" } else { "" };
        write!(out, "{clear}{text}")?;
        if !is_json && !clears && !is_once {
            writeln!(out)?;
        }
        out.flush()?;
        if is_once {
            return Ok(ExitCode::SUCCESS);
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_labels() {
        let text = "# HELP umbel_connections Connections\n\
                    umbel_connections{state=\"http\",dialect=\"none\"} 1\n\
                    umbel_connections{state=\"open\",dialect=\"raw\"} 2\n\
                    umbel_accepted_total 7\nprocess_threads 5\nnonsense\n";
        let metrics = read_metrics(text);
        assert_eq!(metrics["connections"], 3.0);
        assert_eq!(metrics["accepted_total"], 7.0);
        assert_eq!(metrics["process_threads"], 5.0);
    }

    #[test]
    fn busiest_topic_is_first() {
        let sample = |at, offsets: [u64; 2]| Sample {
            at,
            metrics: HashMap::from([("deliveries_total".to_owned(), offsets[0] as f64)]),
            topics: BTreeMap::from([
                ("quiet".to_owned(), (9, offsets[1])),
                ("busy".to_owned(), (1, offsets[0])),
            ]),
            reactors: Vec::new(),
            slowest: Vec::new(),
        };
        let began = Instant::now();
        let (before, now) = (
            sample(began, [10, 5]),
            sample(began + INTERVAL * 2, [30, 5]),
        );
        let report = report(&before, &now);
        assert_eq!(report["rates"]["deliveries"], 10.0);
        assert_eq!(
            report["busiest"][0],
            json!({"topic": "busy", "subscribers": 1, "publications": 10.0})
        );
        assert!(words(&report).contains("busy"), "{}", words(&report));
    }
}
