//! TLS: handshakes, and alerts in both directions.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::encode_gauge;

/// Version that a handshake agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeVersion {
    /// It came to no agreement.
    Unknown,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Kind of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeKind {
    /// It ended before it was known.
    Unknown,
    /// With a certificate.
    Full,
    /// By a ticket.
    Resumed,
}

/// Outcome of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeResult {
    /// It was completed.
    Done,
    /// An alert ended it, of either side.
    Failed,
    /// The peer went, or was too slow.
    Gone,
    /// The peer spoke plain HTTP.
    PlainHttp,
    /// Too many were under way.
    Refused,
}

const VERSIONS: [&str; 3] = ["unknown", "1.2", "1.3"];
const KINDS: [&str; 3] = ["unknown", "full", "resumed"];
const RESULTS: [&str; 5] = ["done", "failed", "gone", "plain_http", "refused"];

/// Alerts by their numbers, those that TLS 1.2 and 1.3 know.
const ALERTS: [(u8, &str); 27] = [
    (0, "close_notify"),
    (10, "unexpected_message"),
    (20, "bad_record_mac"),
    (22, "record_overflow"),
    (40, "handshake_failure"),
    (42, "bad_certificate"),
    (43, "unsupported_certificate"),
    (44, "certificate_revoked"),
    (45, "certificate_expired"),
    (46, "certificate_unknown"),
    (47, "illegal_parameter"),
    (48, "unknown_ca"),
    (49, "access_denied"),
    (50, "decode_error"),
    (51, "decrypt_error"),
    (70, "protocol_version"),
    (71, "insufficient_security"),
    (80, "internal_error"),
    (86, "inappropriate_fallback"),
    (90, "user_canceled"),
    (100, "no_renegotiation"),
    (109, "missing_extension"),
    (110, "unsupported_extension"),
    (112, "unrecognized_name"),
    (115, "unknown_psk_identity"),
    (116, "certificate_required"),
    (120, "no_application_protocol"),
];

/// Name of an alert. `unknown`: it has none.
pub fn alert_name(alert: u8) -> &'static str {
    place_of(alert).map_or("unknown", |place| ALERTS[place].1)
}

fn place_of(alert: u8) -> Option<usize> {
    ALERTS.iter().position(|&(number, _)| number == alert)
}

/// Counts of one direction: each alert, and those without a name.
type AlertCounts = [AtomicU64; ALERTS.len() + 1];

/// Counts of TLS.
#[derive(Debug, Default)]
pub struct TlsCounts {
    handshakes: [[[AtomicU64; RESULTS.len()]; KINDS.len()]; VERSIONS.len()],
    sent: AlertCounts,
    received: AlertCounts,
    /// Connections whose handshake has not ended.
    pub pending: AtomicUsize,
    /// Keys that are kept ready to seal by, of all reactors.
    pub kept_keys: AtomicUsize,
}

impl TlsCounts {
    /// Counts the end of a handshake.
    pub fn add_handshake(
        &self,
        version: HandshakeVersion,
        kind: HandshakeKind,
        result: HandshakeResult,
    ) {
        self.handshakes[version as usize][kind as usize][result as usize]
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an alert that was sent.
    pub fn add_sent(&self, alert: u8) {
        self.sent[place_of(alert).unwrap_or(ALERTS.len())].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an alert that was received.
    pub fn add_received(&self, alert: u8) {
        self.received[place_of(alert).unwrap_or(ALERTS.len())].fetch_add(1, Ordering::Relaxed);
    }

    /// Encodes the counts.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "TLS handshakes, and what became of them";
        let mut family =
            encoder.encode_descriptor("tls_handshakes", help, None, MetricType::Counter)?;
        for (version, kinds) in VERSIONS.iter().zip(&self.handshakes) {
            for (kind, results) in KINDS.iter().zip(kinds) {
                for (result, count) in RESULTS.iter().zip(results) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        let labels = [("version", *version), ("kind", *kind), ("result", *result)];
                        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                    }
                }
            }
        }
        let help = "TLS alerts by direction";
        let mut family =
            encoder.encode_descriptor("tls_alerts", help, None, MetricType::Counter)?;
        for (direction, counts) in [("sent", &self.sent), ("received", &self.received)] {
            let names = ALERTS.iter().map(|&(_, name)| name).chain(["unknown"]);
            for (alert, count) in names.zip(counts) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = [("direction", direction), ("alert", alert)];
                    ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let help = "Connections whose TLS handshake has not ended";
        let pending = self.pending.load(Ordering::Relaxed) as u64;
        encode_gauge(encoder, "tls_handshakes_pending", help, pending)?;
        let help = "Keys that count towards tls_kept_keys_total_max";
        let kept_keys = self.kept_keys.load(Ordering::Relaxed) as u64;
        encode_gauge(encoder, "tls_kept_keys", help, kept_keys)
    }
}
