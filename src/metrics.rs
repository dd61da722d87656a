//! Counters and gauges of the threads, and their text for Prometheus.
//!
//! Each reactor writes its own [`ReactorMetrics`] and nobody else's: plain loads and stores, no read-modify-write, no
//! line shared between cores. A scrape adds them up. The hot path knows only these cells; the text format is made by
//! a [`Collector`] over them at scrape time.

mod auth;
pub mod certificates;
mod described;
pub mod hook;
mod limits;
pub mod load;
pub mod process;
mod reloads;
#[cfg(feature = "tls")]
pub mod tls;
pub mod topics;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::auth::counts::AuthCounts;
use certificates::CertificateCounts;
use described::{COUNTERS, GAUGES};
use reloads::Reloads;

use crate::caught;
use crate::config::Limits;
use crate::connection::{CloseReason, Label};
use crate::http::refusal::Refusal;
use crate::memory::shedding::MemoryState;
use crate::rate::refusals::Refusals;
use crate::topic::Pattern;
use crate::worker::HubCounts;

/// A number that one thread writes and all may read.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds to a counter. Only the owning thread may.
    pub fn add(&self, more: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(more),
            Ordering::Relaxed,
        );
    }

    /// Sets a gauge. Only the owning thread may.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number as it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets of a histogram: bucket `n` holds values below 2^n microseconds, the last one all others.
const BUCKETS: usize = 28;

/// Durations by powers of two of a microsecond, up to 67 seconds.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Cell; BUCKETS],
    sum_us: Cell,
}

impl Histogram {
    /// Counts one duration. Only the owning thread may.
    pub fn record_us(&self, duration_us: u64) {
        let bits = (u64::BITS - duration_us.leading_zeros()) as usize;
        self.buckets[bits.min(BUCKETS - 1)].add(1);
        self.sum_us.add(duration_us);
    }

    /// Number of durations that were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Cell::get).sum()
    }

    /// All durations together, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }
}

/// Kinds of connection that are counted apart, besides the subscribers of each dialect.
const OTHER_KINDS: usize = 3;

/// The place of a label among the gauges.
pub fn label_index(label: Label) -> usize {
    match label {
        Label::Http => 0,
        Label::Handler => 1,
        Label::Closing => 2,
        Label::Subscriber(encoding) => OTHER_KINDS + usize::from(encoding.number()),
    }
}

/// Counters and gauges of one reactor.
#[derive(Debug, Default)]
pub struct ReactorMetrics {
    /// Gauge: connections by kind, from the slab's occupancy.
    pub connections: Box<[Cell]>,
    /// Gauge: connections by the number of their listener.
    pub by_listener: Box<[Cell]>,
    /// Gauge: part of the last seconds that it did not wait, in millionths.
    pub load: Cell,
    /// Connections accepted.
    pub accepted: Cell,
    /// Failed calls of accept.
    pub accept_errors: Cell,
    /// Requests refused, by [`Refusal::LABELS`].
    pub refused: [Cell; Refusal::LABELS.len()],
    /// Connections ended, by [`CloseReason::LABELS`].
    pub closed: [Cell; CloseReason::LABELS.len()],
    /// Subscribers told that they are closed because they read too slowly.
    pub slow_consumers: Cell,
    /// Messages received on WebSocket connections.
    pub messages_received: Cell,
    /// Messages sent on WebSocket connections, to subscribers or by handler endpoints.
    pub messages_sent: Cell,
    /// Bytes read.
    pub bytes_received: Cell,
    /// Bytes written.
    pub bytes_sent: Cell,
    /// Publications handed to subscribers: one for each of both.
    pub deliveries: Cell,
    /// Of the deliveries: in frames that are compressed by themselves.
    pub deflated_deliveries: Cell,
    /// Of the deliveries: in the frames of a cohort.
    pub cohort_deliveries: Cell,
    /// Times that a cohort's context was forgotten.
    pub cohort_resets: Cell,
    /// Gauge: cohorts, each of which is a compressor for one topic.
    pub cohorts: Cell,
    /// Gauge: bytes of the compressors for publications.
    pub compressor_bytes: Cell,
    /// Subscriptions that were given all that they had missed.
    pub recoveries: Cell,
    /// Subscriptions that were told that they are not recovered.
    pub recovery_failures: Cell,
    /// Publications handed to subscribers out of the history.
    pub replayed: Cell,
    /// Pages of histories that were read.
    pub history_pages: Cell,
    /// Commands on connections of many topics that were answered by an error.
    pub command_errors: Cell,
    /// Publications that went from outboxes, the oldest first, to make room.
    pub dropped_oldest: Cell,
    /// Publications replaced in outboxes. A newer one of the same key did it, or their time to live.
    pub replaced: Cell,
    /// Gauge: bytes in outboxes.
    pub outbox_bytes: Cell,
    /// Gauge: bytes of unfinished requests and messages.
    pub inbound_bytes: Cell,
    /// Gauge: topics with subscribers here.
    pub topics: Cell,
    /// Gauge: bytes that subscriptions to topics count as.
    pub subscription_bytes: Cell,
    /// Gauge: bytes that identities of connections count as.
    pub identity_bytes: Cell,
    /// Gauge: patterns with subscribers here.
    pub patterns: Cell,
    /// Gauge: effects that wait in the mailbox.
    pub mailbox_depth: Cell,
    /// Failures of the event loop's own calls.
    pub poll_errors: Cell,
    /// Compressed messages received.
    pub messages_inflated: Cell,
    /// Compressed messages received that were wrong, or too long.
    pub inflate_errors: Cell,
    /// Messages that handler endpoints sent compressed.
    pub messages_deflated: Cell,
    /// Bytes by which those were shorter.
    pub deflate_saved_bytes: Cell,
    /// Publishes that were carried out before, by their key.
    pub publish_replays: Cell,
    /// Publishes refused for their idempotency key.
    pub key_refusals: Cell,
    /// Times that a full hub held a publisher back.
    pub publish_holds: Cell,
    /// Times that a connection's commands were left for a later tick.
    pub work_holds: Cell,
    /// Time of one tick, without the wait for events.
    pub tick: Histogram,
    /// Time from a publish to its last write on this reactor.
    pub publish_to_write: Histogram,
}

impl ReactorMetrics {
    /// One connection more of a listener, or one less.
    pub fn count_listener(&self, listener: u8, is_more: bool) {
        if let Some(cell) = self.by_listener.get(usize::from(listener)) {
            cell.add(if is_more { 1 } else { u64::MAX });
        }
    }

    /// Counts a subscription with a start, and its recovery.
    pub fn count_recovery(&self, recovered: Option<bool>, replayed: usize) {
        match recovered {
            Some(true) => self.recoveries.add(1),
            Some(false) => self.recovery_failures.add(1),
            None => {}
        }
        self.replayed.add(replayed as u64);
    }
}

/// Counters and gauges of all threads.
#[derive(Debug)]
pub struct Metrics {
    reactors: Box<[Arc<ReactorMetrics>]>,
    /// The names of the dialects, in the order of their numbers.
    dialects: Box<[&'static str]>,
    /// Refusals by limits.
    pub refusals: Refusals,
    /// Budget of memory, and its use.
    pub memory: MemoryState,
    /// Limits in force.
    limits: Mutex<Limits>,
    /// Reloads of the settings.
    pub reloads: Reloads,
    /// Counts of credentials.
    pub auth: Arc<AuthCounts>,
    /// Counts of the hook, if there is one.
    pub hook: Option<Arc<hook::HookCounts>>,
    /// Figures of topics by pattern, if some are wanted.
    pub topics: Option<Arc<topics::TopicCounts>>,
    /// Certificates in force.
    pub certificates: Arc<CertificateCounts>,
    /// Counts of TLS, if a listener speaks it.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<tls::TlsCounts>>,
}

impl Metrics {
    /// For so many reactors, and dialects with these names.
    pub fn new(reactors: usize, dialects: &[&'static str]) -> Metrics {
        let kinds = OTHER_KINDS + dialects.len();
        let reactor = || ReactorMetrics {
            connections: (0..kinds).map(|_| Cell::default()).collect(),
            by_listener: (0..=u8::MAX).map(|_| Cell::default()).collect(),
            ..ReactorMetrics::default()
        };
        Metrics {
            reactors: (0..reactors).map(|_| Arc::new(reactor())).collect(),
            dialects: dialects.into(),
            refusals: Refusals::default(),
            memory: MemoryState::default(),
            limits: Mutex::default(),
            reloads: Reloads::default(),
            auth: Arc::default(),
            certificates: Arc::default(),
            hook: None,
            topics: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// With these counts of credentials.
    pub fn of(self, auth: Arc<AuthCounts>) -> Metrics {
        Metrics { auth, ..self }
    }

    /// With figures of topics by these patterns.
    #[must_use]
    pub fn with_topics(self, patterns: &[Pattern]) -> Metrics {
        Metrics {
            topics: topics::TopicCounts::of(patterns).map(Arc::new),
            ..self
        }
    }

    /// With counts of TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(self) -> Metrics {
        Metrics {
            tls: Some(Arc::default()),
            ..self
        }
    }

    /// Number of reactors, one at least.
    pub fn reactor_count(&self) -> usize {
        self.reactors.len().max(1)
    }

    /// The cells of one reactor.
    pub fn reactor(&self, index: usize) -> &Arc<ReactorMetrics> {
        &self.reactors[index]
    }

    /// The sum of one cell over all reactors.
    pub fn sum(&self, cell: impl Fn(&ReactorMetrics) -> &Cell) -> u64 {
        self.reactors
            .iter()
            .map(|reactor| cell(reactor).get())
            .sum()
    }

    /// Connections of every kind.
    pub fn connection_count(&self) -> u64 {
        (0..OTHER_KINDS + self.dialects.len())
            .map(|index| self.sum(|r| &r.connections[index]))
            .sum()
    }

    /// Connections of every kind on one reactor.
    pub fn connection_count_of(&self, reactor: usize) -> u64 {
        let counts = self.reactors[reactor].connections.iter();
        counts.map(Cell::get).sum()
    }

    /// Connections by dialect, and those without one as `http`, `endpoint` and `closing`.
    pub fn connections_by_dialect(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let others = [
            ("http", label_index(Label::Http)),
            ("endpoint", label_index(Label::Handler)),
            ("closing", label_index(Label::Closing)),
        ];
        let dialects = self.dialects.iter().enumerate();
        let dialects = dialects.map(|(at, name)| (*name, OTHER_KINDS + at));
        let all = others.into_iter().chain(dialects);
        all.map(|(name, index)| (name, self.sum(|reactor| &reactor.connections[index])))
    }

    /// The text of a scrape in the Prometheus format, version 0.0.4.
    ///
    /// It is OpenMetrics, but for the names of counters in the lines that describe them: there the older format wants
    /// the suffix that the samples have.
    pub fn encode_prometheus(self: &Arc<Self>, hub: HubCounts) -> String {
        let openmetrics = self.encode(hub);
        let mut text = String::with_capacity(openmetrics.len() + 1024);
        let mut lines = openmetrics.lines().filter(|line| *line != "# EOF");
        while let Some(line) = lines.next() {
            let Some((name, words)) = line
                .strip_prefix("# HELP ")
                .and_then(|rest| rest.split_once(' '))
            else {
                text.push_str(line);
                text.push('\n');
                continue;
            };
            // The line behind it gives the type.
            let kind = lines
                .next()
                .and_then(|line| line.rsplit(' ').next())
                .unwrap_or("untyped");
            let suffix = if kind == "counter" { "_total" } else { "" };
            text.push_str(&format!(
                "# HELP {name}{suffix} {words}\n# TYPE {name}{suffix} {kind}\n"
            ));
        }
        text
    }

    /// The text of a scrape, in the OpenMetrics format.
    pub fn encode(self: &Arc<Self>, hub: HubCounts) -> String {
        let mut registry = Registry::with_prefix("umbel");
        registry.register_collector(Box::new(Scrape {
            metrics: Arc::clone(self),
            hub,
        }));
        let mut process = Registry::default();
        process.register_collector(Box::new(process::ProcessScrape));
        let mut text = String::with_capacity(32 * 1024);
        text::encode_registry(&mut text, &registry)
            .and_then(|()| text::encode(&mut text, &process))
            .expect("a String takes every write");
        text
    }

    fn encode_reasons<const N: usize>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        labels: &[&'static str],
        cells: impl Fn(&ReactorMetrics) -> &[Cell; N],
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (index, label) in labels.iter().enumerate() {
            let counter = ConstCounter::new(self.sum(|reactor| &cells(reactor)[index]));
            counter.encode(family.encode_family(&[("reason", *label)])?)?;
        }
        Ok(())
    }

    fn encode_histogram(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        histogram: impl Fn(&ReactorMetrics) -> &Histogram,
    ) -> fmt::Result {
        let buckets: Vec<(f64, u64)> = (0..BUCKETS)
            .map(|index| {
                let bound = if index == BUCKETS - 1 {
                    f64::INFINITY
                } else {
                    (1u64 << index) as f64 / 1e6
                };
                (
                    bound,
                    self.sum(|reactor| &histogram(reactor).buckets[index]),
                )
            })
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.sum(|reactor| &histogram(reactor).sum_us) as f64 / 1e6;
        encoder
            .encode_descriptor(name, help, None, MetricType::Histogram)?
            .encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)
    }

    fn encode_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Connections, by state and dialect";
        let mut family = encoder.encode_descriptor("connections", help, None, MetricType::Gauge)?;
        let subscribers = self.dialects.iter().enumerate();
        let subscribers = subscribers.map(|(at, name)| (OTHER_KINDS + at, "open", *name));
        let kinds = [(label_index(Label::Http), "http", "none")]
            .into_iter()
            .chain(subscribers)
            .chain([
                (label_index(Label::Handler), "open", "endpoint"),
                (label_index(Label::Closing), "closing", "none"),
            ]);
        for (index, state, dialect) in kinds {
            let count = self.sum(|reactor| &reactor.connections[index]);
            let labels = [("state", state), ("dialect", dialect)];
            ConstGauge::new(count as i64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// What one scrape shows: the threads' cells, and the hub's counts of that moment.
#[derive(Debug)]
struct Scrape {
    metrics: Arc<Metrics>,
    hub: HubCounts,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (metrics, e) = (&self.metrics, &mut encoder);
        metrics.encode_connections(e)?;
        metrics.encode_refused(e)?;
        metrics.encode_reasons(
            e,
            "closed",
            "Connections ended",
            &CloseReason::LABELS,
            |r| &r.closed,
        )?;
        for (name, help, cell) in COUNTERS {
            encode_counter(e, name, help, metrics.sum(cell))?;
        }
        encode_counter(
            e,
            "publications",
            "Publications that got their position",
            self.hub.publications,
        )?;
        let help = "Panics of the embedding program's own code, of all servers of the process";
        encode_counter(e, "embedder_panics", help, caught::panics())?;
        for (name, help, cell) in GAUGES {
            encode_gauge(e, name, help, metrics.sum(cell))?;
        }
        self.hub.encode_gauges(e)?;
        if let Some(topics) = &metrics.topics {
            topics.encode(e)?;
        }
        metrics.encode_limits(e)?;
        process::encode(e)?;
        metrics.reloads.encode(e)?;
        auth::encode(&metrics.auth, e)?;
        metrics.certificates.encode(e)?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &metrics.tls {
            tls.encode(e)?;
        }
        if let Some(hook) = &metrics.hook {
            hook.encode(e)?;
        }
        metrics.encode_histogram(e, "tick_seconds", "Time of a tick, without waiting", |r| {
            &r.tick
        })?;
        let help = "Time from a publish to its last write on a reactor";
        metrics.encode_histogram(e, "publish_to_write_seconds", help, |r| &r.publish_to_write)
    }
}

impl HubCounts {
    fn encode_gauges(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, value) in [
            (
                "hub_topics",
                "Topics with subscribers, members or a history",
                self.topics,
            ),
            (
                "hub_patterns",
                "Patterns with subscribers, equal ones counted once",
                self.patterns,
            ),
            (
                "pattern_bytes",
                "Bytes that count towards pattern_bytes_total_max",
                self.pattern_bytes,
            ),
            (
                "presence_bytes",
                "Bytes of members of topics, which count towards subscription_bytes_total_max",
                self.presence_bytes,
            ),
            (
                "idempotency_bytes",
                "Bytes that count towards idempotency_bytes_total_max",
                self.idempotency_bytes,
            ),
            (
                "history_bytes",
                "Bytes that count towards history_bytes_total_max",
                self.history_bytes,
            ),
            (
                "history_publications",
                "Publications in histories",
                self.history_publications,
            ),
            (
                "commands_queued",
                "Commands that wait for the hub",
                self.queued,
            ),
        ] {
            encode_gauge(e, name, help, value as u64)?;
        }
        Ok(())
    }
}

fn encode_counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> fmt::Result {
    ConstCounter::new(value).encode(encoder.encode_descriptor(
        name,
        help,
        None,
        MetricType::Counter,
    )?)
}

fn encode_gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> fmt::Result {
    ConstGauge::new(value as i64).encode(encoder.encode_descriptor(
        name,
        help,
        None,
        MetricType::Gauge,
    )?)
}

impl Metrics {
    /// Subscribers that were told of their close for reading too slowly.
    pub fn slow_consumers(&self) -> u64 {
        self.sum(|reactor| &reactor.slow_consumers)
    }
}

#[cfg(test)]
mod tests;
