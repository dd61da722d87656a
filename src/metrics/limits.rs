//! Limits, and what they refused.

use std::fmt;
use std::sync::PoisonError;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Metrics, encode_gauge};
use crate::config::Limits;
use crate::http::refusal::Refusal;

impl Metrics {
    /// Shows other limits from now on.
    pub fn show_limits(&self, limits: &Limits) {
        let mut shown = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        shown.clone_from(limits);
        self.memory.set_budget(limits.memory_budget_bytes);
    }

    /// Requests by reason, and what limits refused by limit. A request that a limit refused stands in both.
    pub(super) fn encode_refused(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests refused, by reason, and what limits refused, by limit";
        let mut family = encoder.encode_descriptor("refused", help, None, MetricType::Counter)?;
        for (index, label) in Refusal::LABELS.iter().enumerate() {
            let counter = ConstCounter::new(self.sum(|reactor| &reactor.refused[index]));
            counter.encode(family.encode_family(&[("reason", *label)])?)?;
        }
        for (limit, total) in self.refusals.totals() {
            let labels = [("limit", limit.label())];
            ConstCounter::new(total).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    pub(super) fn encode_limits(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Memory that the process may use; 0 where there is no budget";
        encode_gauge(encoder, "memory_budget_bytes", help, self.memory.budget())?;
        let help = "Memory in use, as it counts towards the budget";
        encode_gauge(encoder, "memory_used_bytes", help, self.memory.used())?;
        let help = "Limits in force, by name";
        let mut family = encoder.encode_descriptor("limit", help, None, MetricType::Gauge)?;
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        for info in Limits::ALL {
            let value = limits.get(info.name).unwrap_or(info.default);
            let labels = [("name", info.name)];
            ConstGauge::new(value as i64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
