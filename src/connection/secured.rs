//! Encryption of a connection, as its transport tells of it.

/// TLS of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secured {
    /// Version of the protocol: `1.3`.
    pub version: &'static str,
    /// Protocol above it that was agreed to.
    pub alpn: Option<&'static str>,
    /// TCP ended before TLS did.
    pub is_truncated: bool,
}
