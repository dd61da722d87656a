//! Questions to the hook: how long they took, and what became of them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::auth::hook::HookResult;
use crate::config::HookEvent;

/// Bounds of the histogram, in seconds.
const BOUNDS_S: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// Counts of a hook.
#[derive(Debug)]
pub struct HookCounts {
    seconds: [Histogram; HookEvent::ALL.len()],
    results: [[AtomicU64; HookResult::ALL.len()]; HookEvent::ALL.len()],
    is_open: AtomicBool,
    message_bytes: AtomicUsize,
}

impl Default for HookCounts {
    fn default() -> HookCounts {
        HookCounts {
            seconds: std::array::from_fn(|_| Histogram::new(BOUNDS_S)),
            results: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            is_open: AtomicBool::new(false),
            message_bytes: AtomicUsize::new(0),
        }
    }
}

impl HookCounts {
    /// Counts a result.
    pub fn add(&self, event: HookEvent, result: HookResult) {
        self.add_many(event, result, 1);
    }

    /// Counts a result of so many.
    pub fn add_many(&self, event: HookEvent, result: HookResult, count: usize) {
        self.results[event as usize][result as usize].fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Counts the time of a request, in seconds.
    pub fn observe(&self, event: HookEvent, seconds: f64) {
        self.seconds[event as usize].observe(seconds);
    }

    /// Shows whether questions are turned away.
    pub fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Relaxed);
    }

    /// Counts bytes of messages in a question that begins its way. Gives those of all others on theirs.
    pub fn hold_bytes(&self, bytes: usize) -> usize {
        self.message_bytes.fetch_add(bytes, Ordering::Relaxed)
    }

    /// A question with bytes of messages has come to its end.
    pub fn release_bytes(&self, bytes: usize) {
        self.message_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Encodes the counts.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help =
            "Questions to the hook by event, and what became of them; of disconnected, connections";
        let mut family = encoder.encode_descriptor("hook", help, None, MetricType::Counter)?;
        for event in HookEvent::ALL {
            for result in HookResult::ALL {
                let count = self.results[event as usize][result as usize].load(Ordering::Relaxed);
                if count > 0 {
                    let labels = [("event", event.name()), ("result", result.label())];
                    ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let help = "Times of requests to the hook by event";
        let unit = prometheus_client::registry::Unit::Seconds;
        let mut family =
            encoder.encode_descriptor("hook", help, Some(&unit), MetricType::Histogram)?;
        for event in HookEvent::ALL {
            let labels = [("event", event.name())];
            self.seconds[event as usize].encode(family.encode_family(&labels)?)?;
        }
        let help = "1 while the hook is not asked, as it does not answer";
        let is_open = i64::from(self.is_open.load(Ordering::Relaxed));
        let descriptor = encoder.encode_descriptor("hook_open", help, None, MetricType::Gauge)?;
        ConstGauge::new(is_open).encode(descriptor)?;
        let help = "Memory of messages that wait for the hook or are asked about";
        let bytes = self.message_bytes.load(Ordering::Relaxed) as u64;
        let unit = prometheus_client::registry::Unit::Bytes;
        let descriptor = encoder.encode_descriptor("hook", help, Some(&unit), MetricType::Gauge)?;
        ConstGauge::new(bytes).encode(descriptor)
    }
}
