//! TLS of listeners: certificates, and what is agreed to with them.

pub mod certificates;
pub mod error;
pub mod loaded;
pub mod server_config;
pub mod stamps;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod tickets;
pub mod watch;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use certificates::Certificates;
pub use error::TlsError;
pub use loaded::{FILE_BYTES_MAX, LoadedCertificate};
pub use server_config::{TlsOptions, server_config};
pub use terms::TlsTerms;

/// Cryptography of the server's own TLS. A process-wide one, which an embedding program may have, is left alone.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
