//! Terms of TLS that were agreed to, for the log.

use rustls::ProtocolVersion;

use super::TlsState;
use crate::connection::Secured;

impl TlsState {
    /// Terms of TLS that were agreed to. None: there are none yet.
    pub fn secured(&self) -> Option<Secured> {
        let connection = self.stand()?;
        let version = match connection.protocol_version()? {
            ProtocolVersion::TLSv1_2 => "1.2",
            ProtocolVersion::TLSv1_3 => "1.3",
            _ => "unknown",
        };
        Some(Secured {
            version,
            // No other is offered.
            alpn: connection.alpn_protocol().map(|_| "http/1.1"),
            is_truncated: self.is_truncated,
        })
    }
}
