//! Credentials, and what became of them.

use std::fmt;
use std::sync::atomic::Ordering;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::encode_gauge;
use crate::auth::counts::{AuthCounts, AuthResult};

/// Encodes the counts. A source that was never asked has no line.
pub(super) fn encode(counts: &AuthCounts, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Credentials by source, and what became of them";
    let mut family = encoder.encode_descriptor("auth", help, None, MetricType::Counter)?;
    for source in counts.sources() {
        for result in AuthResult::ALL {
            let count = source.get(result);
            if count > 0 {
                let labels = [("source", source.label()), ("result", result.label())];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    let help = "Fetches of key sets by jwks_url";
    let mut family = encoder.encode_descriptor("jwks_fetches", help, None, MetricType::Counter)?;
    for source in counts.sources() {
        for (result, is_good) in [("ok", true), ("failed", false)] {
            let count = source.fetches(is_good);
            if count > 0 {
                let labels = [("source", source.label()), ("result", result)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    let help =
        "Rights that were not made, as a variable of a pattern had no plain segment for its value";
    let counter = ConstCounter::new(counts.templates_refused());
    let descriptor =
        encoder.encode_descriptor("auth_template_refused", help, None, MetricType::Counter)?;
    counter.encode(descriptor)?;
    let help = "Bytes of verified tokens, which are kept so that a reconnect costs no signature";
    let bytes = counts.verified_bytes().load(Ordering::Relaxed);
    encode_gauge(encoder, "verified_token_bytes", help, bytes as u64)
}
