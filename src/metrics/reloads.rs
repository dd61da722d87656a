//! Reloads of the settings, as Prometheus counts its own.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::encode_gauge;

/// Counts of reloads.
#[derive(Debug, Default)]
pub struct Reloads {
    succeeded: AtomicU64,
    failed: AtomicU64,
    has_failed: AtomicBool,
    last_success_seconds: AtomicU64,
}

impl Reloads {
    /// Counts a reload, or the start, at this second since 1970.
    pub fn succeed(&self, seconds: u64, is_start: bool) {
        self.succeeded
            .fetch_add(u64::from(!is_start), Ordering::Relaxed);
        self.has_failed.store(false, Ordering::Relaxed);
        self.last_success_seconds.store(seconds, Ordering::Relaxed);
    }

    /// Counts a reload that changed nothing.
    pub fn fail(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.has_failed.store(true, Ordering::Relaxed);
    }

    /// Moment at which settings were taken last, in seconds since 1970.
    pub fn last_success_seconds(&self) -> u64 {
        self.last_success_seconds.load(Ordering::Relaxed)
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let help = "Reloads of the settings";
        let mut family =
            encoder.encode_descriptor("config_reloads", help, None, MetricType::Counter)?;
        for (result, count) in [("succeeded", &self.succeeded), ("failed", &self.failed)] {
            let labels = [("result", result)];
            ConstCounter::new(load(count)).encode(family.encode_family(&labels)?)?;
        }
        let help =
            "Number of the settings in force: 0 from the start, and one more with each reload";
        encode_gauge(encoder, "config_generation", help, load(&self.succeeded))?;
        let is_good = u64::from(!self.has_failed.load(Ordering::Relaxed));
        let help = "Whether the last reload, or the start, took the settings";
        encode_gauge(encoder, "config_last_reload_successful", help, is_good)?;
        let help = "When settings were taken last, in seconds since 1970";
        let seconds = load(&self.last_success_seconds);
        encode_gauge(
            encoder,
            "config_last_reload_success_timestamp_seconds",
            help,
            seconds,
        )
    }
}
