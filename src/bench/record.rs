//! Counts of a thread, without an allocation for each message.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::audit::{Audit, Receipt};
use super::shared::Shared;
use super::stamp::Stamp;

/// A point of the throughput over time.
pub const BUCKET_TICKS: u64 = 500_000;
/// The longest latency that is told from longer ones, in ticks: an hour.
const LATENCY_TICKS_MAX: u64 = 36_000_000_000;

/// An empty histogram of latencies in ticks, of three digits.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_TICKS_MAX, 3).expect("the bounds are in order")
}

/// Adds a latency.
#[inline]
pub fn record(latencies: &mut Histogram<u64>, ticks: u64) {
    latencies.saturating_record(ticks.max(1));
}

/// Counts of one thread; those of all threads are [merged](Record::merge).
#[derive(Debug)]
pub struct Record {
    /// Latencies in ticks, of messages intended for the measured part.
    pub latencies: Histogram<u64>,
    /// Arrivals in the measured part: messages, or for storm connections.
    pub measured: u64,
    /// Bytes of their WebSocket frames on the wire.
    pub measured_bytes: u64,
    /// The messages, in each [`BUCKET_TICKS`].
    pub buckets: Vec<u64>,
    /// All messages with a stamp, and when the last one came.
    pub received: u64,
    pub last_ticks: u64,
    pub audit: AuditCounts,
    /// Messages of no publisher's, such as acknowledgements.
    pub unstamped: u64,
    /// Messages that publishers got of their own topics.
    pub copies: u64,
    /// Connections that the server ended, by close code; 1006 without one.
    pub closed: BTreeMap<u16, u64>,
    /// Stalled connections that the server ended, by close code.
    pub stalled_closed: BTreeMap<u16, u64>,
    /// Connections that did not read and were open at the end.
    pub stalled_open: u64,
}

/// Counts of the audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Messages that connections lack which the server did not end.
    pub lost: u64,
    /// Messages that came again.
    pub duplicated: u64,
    /// Messages that came behind later ones.
    pub reordered: u64,
    /// Messages that somebody else should have got.
    pub misdelivered: u64,
    /// Messages that connections lack which the server did end.
    pub missed_by_closed: u64,
}

impl AuditCounts {
    /// Whether every open connection got everything once and in order.
    pub fn is_clean(&self) -> bool {
        (
            self.lost,
            self.duplicated,
            self.reordered,
            self.misdelivered,
        ) == (0, 0, 0, 0)
    }
}

impl Record {
    /// With nothing counted.
    pub fn new() -> Record {
        Record {
            latencies: latencies(),
            measured: 0,
            measured_bytes: 0,
            buckets: Vec::new(),
            received: 0,
            last_ticks: 0,
            audit: AuditCounts::default(),
            unstamped: 0,
            copies: 0,
            closed: BTreeMap::new(),
            stalled_closed: BTreeMap::new(),
            stalled_open: 0,
        }
    }

    /// Counts an arrival for the throughput.
    #[inline]
    pub fn count(&mut self, shared: &Shared, now_ticks: u64) {
        self.received += 1;
        self.last_ticks = now_ticks;
        if shared.is_measured(now_ticks) {
            self.measured += 1;
            let bucket = ((now_ticks - shared.measure_start_ticks()) / BUCKET_TICKS) as usize;
            if bucket >= self.buckets.len() {
                self.buckets.resize(bucket + 1, 0);
            }
            self.buckets[bucket] += 1;
        }
    }

    /// Counts a latency, if its beginning was intended for the measured part.
    #[inline]
    pub fn record_latency(&mut self, shared: &Shared, intended_ticks: u64, now_ticks: u64) {
        if shared.is_measured(intended_ticks) {
            record(
                &mut self.latencies,
                now_ticks.saturating_sub(intended_ticks),
            );
        }
    }

    /// Audits a message at its subscriber. Whether it is there for the first time.
    #[inline]
    pub fn audit(&mut self, audits: &mut [Audit], first_publisher: u32, stamp: Stamp) -> bool {
        let place = stamp.publisher.wrapping_sub(first_publisher) as usize;
        let Some(audit) = audits.get_mut(place) else {
            self.audit.misdelivered += 1;
            return false;
        };
        match audit.handle(stamp.sequence) {
            Receipt::New => {}
            Receipt::Late => self.audit.reordered += 1,
            Receipt::Duplicate => {
                self.audit.duplicated += 1;
                return false;
            }
        }
        true
    }

    /// Adds what another thread has counted.
    pub fn merge(&mut self, other: &Record) {
        self.latencies
            .add(&other.latencies)
            .expect("both have the same bounds");
        self.measured += other.measured;
        self.measured_bytes += other.measured_bytes;
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += more;
        }
        self.received += other.received;
        self.last_ticks = self.last_ticks.max(other.last_ticks);
        self.audit.lost += other.audit.lost;
        self.audit.duplicated += other.audit.duplicated;
        self.audit.reordered += other.audit.reordered;
        self.audit.misdelivered += other.audit.misdelivered;
        self.audit.missed_by_closed += other.audit.missed_by_closed;
        self.unstamped += other.unstamped;
        self.copies += other.copies;
        for (mine, theirs) in [
            (&mut self.closed, &other.closed),
            (&mut self.stalled_closed, &other.stalled_closed),
        ] {
            for (code, count) in theirs {
                *mine.entry(*code).or_default() += count;
            }
        }
        self.stalled_open += other.stalled_open;
    }
}
