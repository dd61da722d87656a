//! Reasons of connections' ends: one list for the log line, the metric's label and the code on the wire.

use crate::protocol::CloseCode;
use crate::protocol::ProtocolError;

/// Reason of a connection's end. The first reason stands, whatever follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer started the closing handshake, with this code (1005 where it gave none).
    Peer(CloseCode),
    /// The peer's side of the stream ended without a closing handshake.
    PeerGone,
    /// Reading or writing failed: reset, timed out, or unreachable.
    Transport,
    /// TLS ended with this alert, of either side.
    Tls(u8),
    /// The last answer of an HTTP connection is written.
    HttpDone,
    /// A request was refused in a way that ends the connection.
    HttpRefused,
    /// The request head did not come in time.
    HandshakeTimeout,
    /// The body did not come in time, or no request came on a connection that was kept alive.
    HttpTimeout,
    /// The peer broke the protocol.
    Protocol(ProtocolError),
    /// The peer sent nothing, not even a pong.
    PongTimeout,
    /// A message was begun and not finished in time.
    MessageTimeout,
    /// The peer published where it may not.
    Forbidden,
    /// The peer published, and whoever decides whether it may did not.
    Undecided,
    /// More was queued for the peer than its outbox may hold.
    SlowConsumerBytes,
    /// The oldest byte that was queued for the peer waited too long.
    SlowConsumerAge,
    /// All outboxes, or all unfinished messages, together hold more than the process may.
    OverBudget,
    /// An own endpoint ended it, with this code.
    Handler(CloseCode),
    /// Its dialect ended it, with this code, or refused it after the upgrade.
    Dialect(CloseCode),
    /// The server is shutting down.
    Shutdown,
    /// A reload took the right away that it lived by.
    RightsLost,
    /// Its peer showed no credential in time, or others waited for theirs in its place.
    AuthTimeout,
    /// The identity that it lived by has ended.
    Expired,
    /// Code of the embedding program panicked in a call for it.
    EmbedderPanic,
    /// It sent more than its rates allow, for too long.
    Rate,
    /// It is as old as connections may get.
    Age,
    /// The key of its TLS has sealed half of what it may, and cannot be changed.
    TlsKey,
}

impl CloseReason {
    /// One label for each kind of reason.
    pub const LABELS: [&'static str; 26] = [
        "peer",
        "peer_gone",
        "transport",
        "http_done",
        "http_refused",
        "handshake_timeout",
        "http_timeout",
        "protocol",
        "pong_timeout",
        "message_timeout",
        "forbidden",
        "slow_consumer_bytes",
        "slow_consumer_age",
        "over_budget",
        "handler",
        "shutdown",
        "dialect",
        "rights_lost",
        "embedder_panic",
        "auth_timeout",
        "expired",
        "undecided",
        "rate",
        "age",
        "tls",
        "tls_key",
    ];

    /// The place of its label in [`LABELS`](CloseReason::LABELS).
    pub fn index(self) -> usize {
        match self {
            CloseReason::Peer(_) => 0,
            CloseReason::PeerGone => 1,
            CloseReason::Transport => 2,
            CloseReason::HttpDone => 3,
            CloseReason::HttpRefused => 4,
            CloseReason::HandshakeTimeout => 5,
            CloseReason::HttpTimeout => 6,
            CloseReason::Protocol(_) => 7,
            CloseReason::PongTimeout => 8,
            CloseReason::MessageTimeout => 9,
            CloseReason::Forbidden => 10,
            CloseReason::SlowConsumerBytes => 11,
            CloseReason::SlowConsumerAge => 12,
            CloseReason::OverBudget => 13,
            CloseReason::Handler(_) => 14,
            CloseReason::Shutdown => 15,
            CloseReason::Dialect(_) => 16,
            CloseReason::RightsLost => 17,
            CloseReason::EmbedderPanic => 18,
            CloseReason::AuthTimeout => 19,
            CloseReason::Expired => 20,
            CloseReason::Undecided => 21,
            CloseReason::Rate => 22,
            CloseReason::Age => 23,
            CloseReason::Tls(_) => 24,
            CloseReason::TlsKey => 25,
        }
    }

    /// The label in logs and metrics.
    pub fn label(self) -> &'static str {
        CloseReason::LABELS[self.index()]
    }

    /// Whether the peer was too slow.
    pub fn is_slow_consumer(self) -> bool {
        matches!(
            self,
            CloseReason::SlowConsumerBytes | CloseReason::SlowConsumerAge
        )
    }

    /// Whether the peer ended it, or went away.
    pub fn is_by_peer(self) -> bool {
        matches!(
            self,
            CloseReason::Peer(_) | CloseReason::PeerGone | CloseReason::Transport
        )
    }

    /// Whether the server ended it for a fault of the peer.
    pub fn is_fault_of_peer(self) -> bool {
        match self {
            CloseReason::Tls(_)
            | CloseReason::HandshakeTimeout
            | CloseReason::Protocol(_)
            | CloseReason::PongTimeout
            | CloseReason::MessageTimeout
            | CloseReason::Forbidden
            | CloseReason::SlowConsumerBytes
            | CloseReason::SlowConsumerAge
            | CloseReason::AuthTimeout
            | CloseReason::Dialect(_)
            | CloseReason::Rate => true,
            CloseReason::Peer(_)
            | CloseReason::PeerGone
            | CloseReason::Transport
            | CloseReason::HttpDone
            // Of these there is a line of its own.
            | CloseReason::HttpRefused
            | CloseReason::HttpTimeout
            | CloseReason::Undecided
            | CloseReason::OverBudget
            | CloseReason::Handler(_)
            | CloseReason::Shutdown
            | CloseReason::RightsLost
            | CloseReason::Expired
            | CloseReason::EmbedderPanic
            | CloseReason::Age
            | CloseReason::TlsKey => false,
        }
    }

    /// The code that the peer is told, and the reason in words. 1006 and 1005 stand for nothing on the wire.
    pub fn on_wire(self) -> (CloseCode, &'static str) {
        match self {
            CloseReason::Peer(code) | CloseReason::Handler(code) | CloseReason::Dialect(code) => {
                (code, "")
            }
            CloseReason::PeerGone | CloseReason::Transport | CloseReason::Tls(_) => {
                (CloseCode::ABNORMAL, "")
            }
            CloseReason::HttpDone => (CloseCode::NORMAL, ""),
            CloseReason::HttpRefused | CloseReason::HandshakeTimeout | CloseReason::HttpTimeout => {
                (CloseCode::ABNORMAL, "")
            }
            CloseReason::Protocol(error) => (error.close_code(), error.reason()),
            CloseReason::PongTimeout => (CloseCode::GOING_AWAY, "no pong in time"),
            CloseReason::MessageTimeout => (
                CloseCode::POLICY_VIOLATION,
                "the message did not end in time",
            ),
            CloseReason::Forbidden => (
                CloseCode::POLICY_VIOLATION,
                "this connection may not publish",
            ),
            CloseReason::Undecided => (
                CloseCode::TRY_AGAIN_LATER,
                "it was not decided whether this connection may publish; try again",
            ),
            CloseReason::SlowConsumerBytes => (
                CloseCode::TRY_AGAIN_LATER,
                "slow consumer: more is queued than the outbox may hold; retry=1",
            ),
            CloseReason::SlowConsumerAge => (
                CloseCode::TRY_AGAIN_LATER,
                "slow consumer: the oldest queued byte waited too long; retry=1",
            ),
            CloseReason::OverBudget => (
                CloseCode::TRY_AGAIN_LATER,
                "the server's memory budget is used up; retry=5",
            ),
            CloseReason::RightsLost => (
                CloseCode::FORBIDDEN,
                "forbidden: the rights on this server have changed",
            ),
            CloseReason::AuthTimeout => (
                CloseCode::new(4408),
                "unauthorized: no token was shown in time",
            ),
            CloseReason::Expired => (CloseCode::new(4401), "expired"),
            CloseReason::Rate => (CloseCode::POLICY_VIOLATION, "rate"),
            CloseReason::Age => (
                CloseCode::SERVICE_RESTART,
                "connection_age_max_ms is over; retry=1",
            ),
            CloseReason::TlsKey => (
                CloseCode::SERVICE_RESTART,
                "the key of TLS has sealed what it may; retry=1",
            ),
            CloseReason::EmbedderPanic => (CloseCode::INTERNAL_ERROR, "internal error"),
            CloseReason::Shutdown => (
                CloseCode::GOING_AWAY,
                "the server is shutting down; retry=1",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_small() {
        assert!(
            size_of::<CloseReason>() <= 4,
            "{}",
            size_of::<CloseReason>()
        );
    }

    #[test]
    fn reasons_fit_a_close_frame() {
        for reason in [
            CloseReason::SlowConsumerBytes,
            CloseReason::SlowConsumerAge,
            CloseReason::Shutdown,
        ] {
            let (code, words) = reason.on_wire();
            assert!(code.is_valid_on_wire());
            assert!(words.len() <= 123);
        }
    }
}
