//! The result of a run: as a table for people, as JSON for programs.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::arguments::Mode;
use super::number::{brief, bytes, grouped, time};
use super::record::BUCKET_TICKS;
use super::run::{Run, ServerUse};
use super::settings::{Length, Pace, Publish};
use super::stamp::TICK_NS;

/// Busy share from which on a thread counts as saturated.
const SATURATED: f64 = 0.8;
/// Delay of sends beyond which latencies are doubtful, in microseconds.
const LATENESS_US_MAX: f64 = 1000.0;
/// Width of the table's first column.
const LABEL_WIDTH: usize = 20;

/// The result.
#[derive(Debug, Serialize)]
pub struct Report {
    pub mode: &'static str,
    pub url: String,
    pub version: &'static str,
    /// Whether the exit code is 0.
    pub is_good: bool,
    pub load: LoadReport,
    pub connections: ConnectionReport,
    pub window_s: f64,
    pub published: u64,
    pub published_per_second: f64,
    /// Requests that the server refused for now (429, 503), and that were repeated.
    pub refused: u64,
    /// Messages that were due and could not be sent.
    pub unsent: u64,
    /// Messages, or for storm connections, that arrived in the measured part.
    pub received: u64,
    pub received_per_second: f64,
    /// Bytes of frames for each received message, on the wire.
    pub wire_bytes_per_message: Option<f64>,
    pub latency_us: Option<Latencies>,
    /// Delay from the intended time to the kernel. Only for an open loop.
    pub lateness_us: Option<Latencies>,
    pub audit: AuditReport,
    pub server: Option<ServerReport>,
    pub own: OwnReport,
    pub warnings: Vec<String>,
    pub bucket_ms: u64,
    /// Arrivals in each bucket of the measured part.
    pub buckets: Vec<u64>,
}

#[derive(Debug, Serialize)]
pub struct LoadReport {
    pub connections: usize,
    pub topics: usize,
    pub publishers: usize,
    pub size_bytes: usize,
    pub rate_per_second: Option<f64>,
    pub in_flight: Option<u64>,
    pub publish: &'static str,
    /// Whether compression was offered.
    pub deflate: bool,
    pub threads: usize,
    pub warmup_s: f64,
}

#[derive(Debug, Serialize)]
pub struct ConnectionReport {
    pub attempted: u64,
    pub opened: u64,
    pub failed: u64,
    pub first_failure: Option<String>,
    /// Time to make the initial connections.
    pub connect_s: f64,
    /// Those that the server ended, by close code; 1006 without one.
    pub closed: BTreeMap<u16, u64>,
    /// Stalled connections that the server ended, by close code.
    pub stalled_closed: BTreeMap<u16, u64>,
    /// Those that did not read and were open at the end.
    pub stalled_open: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latencies {
    pub samples: u64,
    pub min: f64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

#[derive(Debug, Serialize)]
pub struct AuditReport {
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub misdelivered: u64,
    /// Messages that closed connections lack. The server ended these, and so told.
    pub missed_by_closed: u64,
    /// Messages that publishers got of their own topics.
    pub copies: u64,
    /// Messages of no publisher's.
    pub unstamped: u64,
}

#[derive(Debug, Serialize)]
pub struct ServerReport {
    pub pids: Vec<u32>,
    pub cpu_s: f64,
    /// All processes together; more than 1 is more than a core.
    pub cores: f64,
    pub busiest_thread: f64,
    /// CPU time for each of what was received.
    pub cpu_us_per_message: Option<f64>,
    pub resident_before_bytes: u64,
    pub resident_connected_bytes: u64,
    pub resident_after_bytes: u64,
    pub resident_bytes_per_connection: f64,
}

#[derive(Debug, Serialize)]
pub struct OwnReport {
    pub cpu_us_per_message: Option<f64>,
    /// Busy share of each thread, from 0 to 1.
    pub threads_busy: Vec<f64>,
}

impl Latencies {
    fn new(histogram: &Histogram<u64>) -> Option<Latencies> {
        let us = |ticks: u64| ticks as f64 * TICK_NS as f64 / 1000.0;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Latencies {
            samples: histogram.len(),
            min: us(histogram.min()),
            mean: histogram.mean() * TICK_NS as f64 / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: us(histogram.max()),
        })
    }
}

impl Report {
    /// The result of a run.
    pub fn new(run: &Run) -> Report {
        let settings = &run.settings;
        let record = &run.record;
        let window_s = run.window.as_secs_f64();
        let per_second = |count: u64| count as f64 / window_s.max(1e-9);
        let audit = &record.audit;
        let mut report = Report {
            mode: settings.mode.name(),
            url: settings.url.clone(),
            version: env!("CARGO_PKG_VERSION"),
            is_good: false,
            load: LoadReport::new(run),
            connections: ConnectionReport {
                attempted: run.attempted,
                opened: run.opened,
                failed: run.failed,
                first_failure: run.first_failure.clone(),
                connect_s: run.connect_time.as_secs_f64(),
                closed: record.closed.clone(),
                stalled_closed: record.stalled_closed.clone(),
                stalled_open: record.stalled_open,
            },
            window_s,
            published: run.published,
            published_per_second: per_second(run.published),
            refused: run.refused,
            unsent: run.unsent,
            received: record.measured,
            received_per_second: per_second(record.measured),
            wire_bytes_per_message: per_message(record.measured_bytes, record.measured)
                .filter(|_| settings.mode != Mode::Storm),
            latency_us: Latencies::new(&record.latencies),
            lateness_us: match settings.pace {
                Pace::Rate(_) => Latencies::new(&run.sender.lateness),
                Pace::InFlight(_) => None,
            },
            audit: AuditReport {
                lost: audit.lost,
                duplicated: audit.duplicated,
                reordered: audit.reordered,
                misdelivered: audit.misdelivered,
                missed_by_closed: audit.missed_by_closed,
                copies: record.copies,
                unstamped: record.unstamped,
            },
            server: run.server.map(|server| ServerReport::new(run, server)),
            own: OwnReport {
                cpu_us_per_message: per_message(run.own_cpu_us, record.measured),
                threads_busy: run.busy.clone(),
            },
            warnings: Vec::new(),
            bucket_ms: BUCKET_TICKS * TICK_NS / 1_000_000,
            buckets: record.buckets.clone(),
        };
        report.warnings = report.warnings(run);
        report.is_good = audit.is_clean()
            && record.closed.is_empty()
            && run.failed == 0
            && (settings.mode == Mode::Idle || record.measured > 0);
        report
    }

    fn warnings(&self, run: &Run) -> Vec<String> {
        let mut warnings = Vec::new();
        let busiest = run.busy.iter().copied().fold(0.0, f64::max);
        let server_busiest = self.server.as_ref().map(|server| server.busiest_thread);
        match server_busiest {
            _ if busiest < SATURATED => {}
            Some(server) if server >= SATURATED => {}
            Some(server) => warnings.push(format!(
                "umbel bench was the bottleneck: its busiest thread {}, the server's {}; give it more --threads or cores",
                percent(busiest),
                percent(server)
            )),
            None => warnings.push(format!(
                "umbel bench may have been the bottleneck: its busiest thread was busy {}; --pid would tell",
                percent(busiest)
            )),
        }
        if run.unsent > 0 {
            warnings.push(format!(
                "the rate was not reached: {} messages that were due could not be sent",
                grouped(run.unsent)
            ));
        }
        if let Some(lateness) = self.lateness_us.filter(|late| late.p99 > LATENESS_US_MAX) {
            warnings.push(format!(
                "one in a hundred messages left over {} late, which latencies include",
                time(lateness.p99)
            ));
        }
        if run.was_interrupted {
            warnings.push("interrupted: the result is of the time until then".to_owned());
        }
        if let Length::Count(count) = run.settings.length
            && run.published < count
            && !run.was_interrupted
        {
            warnings.push(format!(
                "only {} of {} were sent",
                grouped(run.published),
                grouped(count)
            ));
        }
        warnings
    }

    fn is_storm(&self) -> bool {
        self.mode == Mode::Storm.name()
    }
}

impl LoadReport {
    fn new(run: &Run) -> LoadReport {
        let settings = &run.settings;
        let (rate_per_second, in_flight) = match settings.pace {
            Pace::Rate(rate) => (Some(rate), None),
            Pace::InFlight(in_flight) => (None, Some(in_flight)),
        };
        LoadReport {
            connections: settings.connections,
            topics: settings.topics,
            publishers: settings.publisher_count(),
            size_bytes: settings.size_bytes,
            rate_per_second,
            in_flight,
            publish: match settings.publish {
                Publish::Message(_) => "websocket",
                Publish::Post(_) => "http",
            },
            deflate: settings.offers_deflate,
            threads: settings.threads,
            warmup_s: settings.warmup.as_secs_f64(),
        }
    }
}

impl ServerReport {
    fn new(run: &Run, server: ServerUse) -> ServerReport {
        let window_us = run.window.as_secs_f64() * 1e6;
        let grown = server.resident_connected_bytes as f64 - server.resident_before_bytes as f64;
        ServerReport {
            pids: run.settings.pids.clone(),
            cpu_s: server.cpu.total_us as f64 / 1e6,
            cores: server.cpu.total_us as f64 / window_us.max(1.0),
            busiest_thread: server.cpu.busiest_thread_us as f64 / window_us.max(1.0),
            cpu_us_per_message: per_message(server.cpu.total_us, run.record.measured),
            resident_before_bytes: server.resident_before_bytes,
            resident_connected_bytes: server.resident_connected_bytes,
            resident_after_bytes: server.resident_after_bytes,
            resident_bytes_per_connection: grown / run.settings.connections as f64,
        }
    }
}

fn per_message(sum: u64, messages: u64) -> Option<f64> {
    (messages > 0).then(|| sum as f64 / messages as f64)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// `3 (1006), 1 (1013)`
fn by_code(closed: &BTreeMap<u16, u64>) -> String {
    let parts = closed
        .iter()
        .map(|(code, count)| format!("{} ({code})", grouped(*count)));
    parts.collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |label: &str, value: String| writeln!(f, "{label:<LABEL_WIDTH$}  {value}");
        row(self.mode, self.url.clone())?;
        row("load", self.load_line())?;
        self.write_connections(&mut row)?;
        self.write_throughput(&mut row)?;
        self.write_latencies(&mut row)?;
        if self.mode != Mode::Idle.name() && !self.is_storm() {
            row("audit", self.audit_line())?;
        }
        self.write_cost(&mut row)?;
        for warning in &self.warnings {
            row("warning", warning.clone())?;
        }
        row(
            "result",
            if self.is_good { "passed" } else { "FAILED" }.to_owned(),
        )
    }
}

type Row<'a> = dyn FnMut(&str, String) -> fmt::Result + 'a;

impl Report {
    /// The load in one line.
    pub fn load_line(&self) -> String {
        let load = &self.load;
        let mut parts = vec![format!("{} connections", grouped(load.connections as u64))];
        if load.topics > 1 {
            parts.push(format!("{} topics", grouped(load.topics as u64)));
        }
        if self.mode == Mode::Idle.name() {
            return parts.join(", ");
        }
        if !self.is_storm() {
            parts.push(bytes(load.size_bytes as f64));
            parts.extend(load.deflate.then(|| "deflate offered".to_owned()));
        }
        if let Some(rate) = load.rate_per_second {
            parts.push(format!("{} a second", brief(rate)));
        }
        if let Some(in_flight) = load.in_flight {
            parts.push(format!("{} in flight", grouped(in_flight)));
        }
        parts.join(", ")
    }

    fn write_connections(&self, row: &mut Row<'_>) -> fmt::Result {
        let connections = &self.connections;
        let rate = self.load.connections as f64 / connections.connect_s.max(1e-9);
        let first = format!(
            "{} s ({} a second)",
            brief(connections.connect_s),
            brief(rate)
        );
        row("connected in", first)?;
        if connections.failed > 0 {
            row("failed", grouped(connections.failed))?;
        }
        if let Some(failure) = &connections.first_failure {
            row("first failure", failure.clone())?;
        }
        if !connections.closed.is_empty() {
            row("closed by server", by_code(&connections.closed))?;
        }
        let stalled = connections.stalled_closed.values().sum::<u64>() + connections.stalled_open;
        if stalled > 0 {
            let mut parts = Vec::new();
            if !connections.stalled_closed.is_empty() {
                parts.push(format!("closed: {}", by_code(&connections.stalled_closed)));
            }
            if connections.stalled_open > 0 {
                parts.push(format!("open: {}", grouped(connections.stalled_open)));
            }
            row("stalled", parts.join("; "))?;
        }
        Ok(())
    }

    fn write_throughput(&self, row: &mut Row<'_>) -> fmt::Result {
        let rate =
            |count, per_second| format!("{:>11}  {} a second", grouped(count), brief(per_second));
        row("measured", format!("{:>11}  s", brief(self.window_s)))?;
        if self.mode == Mode::Idle.name() {
            return Ok(());
        }
        if !self.is_storm() {
            row("sent", rate(self.published, self.published_per_second))?;
        }
        if self.refused > 0 {
            row(
                "refused, repeated",
                format!("{:>11}", grouped(self.refused)),
            )?;
        }
        let label = if self.is_storm() {
            "connects"
        } else {
            "received"
        };
        row(label, rate(self.received, self.received_per_second))?;
        match self.wire_bytes_per_message {
            Some(each) => row(
                "on the wire",
                format!("{:>11}  a message received", bytes(each)),
            ),
            None => Ok(()),
        }
    }

    fn write_latencies(&self, row: &mut Row<'_>) -> fmt::Result {
        if self.mode == Mode::Idle.name() {
            return Ok(());
        }
        if self.latency_us.is_none() {
            return row("latency", "nothing arrived".to_owned());
        }
        let both = [
            ("latency", self.latency_us),
            ("sent late by", self.lateness_us),
        ];
        row(
            "",
            format!(
                "{:>11}{:>11}{:>11}{:>11}{:>11}",
                "p50", "p90", "p99", "p99.9", "max"
            ),
        )?;
        for (label, latencies) in both {
            let Some(latencies) = latencies else { continue };
            let Latencies {
                p50,
                p90,
                p99,
                p999,
                max,
                ..
            } = latencies;
            let cells = [p50, p90, p99, p999, max].map(|us| format!("{:>11}", time(us)));
            row(label, cells.concat())?;
        }
        Ok(())
    }

    fn audit_line(&self) -> String {
        let audit = &self.audit;
        let mut parts = vec![
            format!("{} lost", grouped(audit.lost)),
            format!("{} duplicated", grouped(audit.duplicated)),
            format!("{} reordered", grouped(audit.reordered)),
        ];
        for (count, what) in [
            (audit.misdelivered, "misdelivered"),
            (audit.missed_by_closed, "missed by closed connections"),
        ] {
            if count > 0 {
                parts.push(format!("{} {what}", grouped(count)));
            }
        }
        parts.join(", ")
    }

    fn write_cost(&self, row: &mut Row<'_>) -> fmt::Result {
        let each = if self.is_storm() {
            "connect"
        } else {
            "message received"
        };
        let cpu =
            |us: Option<f64>| us.map_or(String::new(), |us| format!(" a {each}: {}", time(us)));
        if let Some(server) = &self.server {
            let cpu = cpu(server.cpu_us_per_message);
            let (cores, busiest) = (percent(server.cores), percent(server.busiest_thread));
            row(
                "server CPU",
                format!(
                    "{cores} of a core, busiest thread {busiest}{}",
                    with_comma(&cpu)
                ),
            )?;
            let each = bytes(server.resident_bytes_per_connection.max(0.0));
            let [before, connected, after] = [
                server.resident_before_bytes,
                server.resident_connected_bytes,
                server.resident_after_bytes,
            ]
            .map(|resident| bytes(resident as f64));
            let text = format!(
                "{each} a connection; {before} before, {connected} connected, {after} after"
            );
            row("server memory", text)?;
        }
        let busy: Vec<String> = self
            .own
            .threads_busy
            .iter()
            .map(|busy| percent(*busy))
            .collect();
        let cpu = cpu(self.own.cpu_us_per_message);
        row(
            "own CPU",
            format!("threads busy {}{}", busy.join(", "), with_comma(&cpu)),
        )
    }
}

fn with_comma(text: &str) -> String {
    match text.is_empty() {
        true => String::new(),
        false => format!(",{text}"),
    }
}
