//! Configuration of handshakes for rustls.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};

use super::clients::ClientTerms;
use super::next_keys::SecretsLog;
use super::tickets::{TicketKeys, Tickets};
use super::{Certificates, TlsError, provider};
use crate::config::{Config, TlsRecords, TlsVersion};

/// Tickets of TLS 1.3 for one handshake. One is enough for a peer that comes back.
const TICKETS: usize = 1;

/// Options of a listener's TLS.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsOptions {
    /// Versions of TLS.
    pub versions: Vec<TlsVersion>,
    /// Certificates that clients are asked for.
    pub clients: ClientTerms,
    /// Carrier of connections whose handshake is done.
    pub records: TlsRecords,
    /// Keys of tickets. None: no peer can come back by one.
    pub ticket_keys: Option<Arc<TicketKeys>>,
}

impl TlsOptions {
    /// Those of a configuration.
    pub fn of(config: &Config) -> TlsOptions {
        TlsOptions {
            versions: config.tls_versions.clone(),
            records: config.tls_records,
            clients: ClientTerms::default(),
            ticket_keys: None,
        }
    }
}

/// Terms of handshakes with these certificates.
///
/// # Errors
/// What the library says against the options.
pub fn server_config(
    certificates: &Arc<Certificates>,
    options: &TlsOptions,
) -> Result<Arc<ServerConfig>, TlsError> {
    let versions = [(TlsVersion::V1_3, &TLS13), (TlsVersion::V1_2, &TLS12)];
    let versions: Vec<_> = versions
        .into_iter()
        .filter_map(|(version, known)| options.versions.contains(&version).then_some(known))
        .collect();
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&versions)?;
    let builder = match &options.clients.verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    };
    let resolver = Arc::clone(certificates);
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Where a certificate is required it is verified each time.
    config.send_tls13_tickets = match options.clients.are_required {
        true => 0,
        false => TICKETS,
    };
    // A table of resumable peers would be a lock that all reactors share; tickets need none.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if let (Some(keys), false) = (&options.ticket_keys, options.clients.are_required) {
        config.ticketer = Arc::new(Tickets::new(Arc::clone(keys), options.clients.digest));
    }
    // Early data can be sent again by anybody, and would publish again.
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    // Peers know best: browsers put AES first, phones without its instructions ChaCha20.
    config.ignore_client_order = false;
    if options.records == TlsRecords::Own {
        carry_on_without_rustls(&mut config);
    }
    Ok(Arc::new(config))
}

/// The keys are taken out where rustls is left behind, and the secrets that the next ones are made of.
pub(super) fn carry_on_without_rustls(config: &mut ServerConfig) {
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(SecretsLog);
}
