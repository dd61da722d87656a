//! Certificates in force: their ends, and how often they were read anew.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Counts of certificates.
#[derive(Debug, Default)]
pub struct CertificateCounts {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Ends by name, in seconds since 1970. Of several with one name, the first end.
    ends: Mutex<BTreeMap<String, u64>>,
}

impl CertificateCounts {
    /// Counts a change of certificates, or one that could not be taken.
    pub fn add(&self, has_succeeded: bool) {
        let count = match has_succeeded {
            true => &self.succeeded,
            false => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Shows these certificates from here on: names, and ends in seconds since 1970.
    pub fn show<'a>(&self, certificates: impl Iterator<Item = (&'a str, u64)>) {
        let mut ends = BTreeMap::new();
        for (name, end) in certificates {
            let of_name = ends.entry(name.to_owned()).or_insert(end);
            *of_name = end.min(*of_name);
        }
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
    }

    /// Encodes the counts, if there is a certificate.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if ends.is_empty() {
            return Ok(());
        }
        let help = "End of each certificate, in seconds since 1970";
        let name = "tls_certificate_not_after_timestamp_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (name, end) in &*ends {
            let end = i64::try_from(*end).unwrap_or(i64::MAX);
            let labels = [("name", name.as_str())];
            ConstGauge::new(end).encode(family.encode_family(&labels)?)?;
        }
        let help = "Times that certificates were read anew";
        let name = "tls_certificate_reloads";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (result, count) in [("succeeded", &self.succeeded), ("failed", &self.failed)] {
            let labels = [("result", result)];
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            count.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
