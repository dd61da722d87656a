//! TLS of listeners: certificates, what is agreed to with them, and rustls's connections as a transport of the reactors.
//!
//! A [`Transport`](crate::net::Transport) of this kind holds the stream alone. What TLS keeps for a connection stands in a table
//! of its reactor's thread ([`table`]), by the index of its slot. Everything above reads and writes plaintext as it does
//! over plain TCP.

mod agreement;
pub mod certificates;
pub mod clients;
mod connection;
pub mod context;
pub mod error;
pub mod failure;
#[cfg(fuzzing)]
pub mod fuzzed;
mod kept_keys;
pub mod loaded;
mod next_keys;
mod pieces;
pub mod place;
pub mod record;
mod records;
pub mod server_config;
pub mod stamps;
mod state;
pub mod table;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod threads;
pub mod tickets;
pub mod watch;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use certificates::Certificates;
pub use context::TlsContext;
pub use error::TlsError;
pub use loaded::{FILE_BYTES_MAX, LoadedCertificate, read_chain};
pub use server_config::{TlsOptions, server_config};
pub use terms::TlsTerms;
pub use threads::HandshakeThreads;

/// Cryptography of the server's own TLS. A process-wide one, which an embedding program may have, is left alone.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
