//! TLS of a server: its certificates, and the terms of handshakes of each listener.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use super::{Certificates, LoadedCertificate, TlsError, TlsOptions, server_config};
use crate::config::{CertificateFiles, Config, ConfigError, Listeners};

/// TLS of a server. Handshakes take what is in force when they begin.
#[derive(Debug)]
pub struct TlsTerms {
    certificates: Arc<Certificates>,
    /// By the number of the listener.
    listeners: Box<[ArcSwap<ServerConfig>]>,
}

/// Terms that were read and checked, and are not in force yet.
#[derive(Debug)]
pub struct PreparedTerms {
    loaded: Vec<Arc<LoadedCertificate>>,
    is_strict: bool,
    listeners: Vec<Arc<ServerConfig>>,
}

impl TlsTerms {
    /// Terms of a configuration, which may have no certificates.
    ///
    /// # Errors
    /// A certificate or its key cannot be used, or an option cannot stand.
    pub fn open(config: &Config) -> Result<Arc<TlsTerms>, ConfigError> {
        let loaded = load(&config.certificates)?;
        let certificates = Arc::new(Certificates::new(loaded, config.sni_strict));
        let listeners = configs(&certificates, config)?;
        Ok(Arc::new(TlsTerms {
            certificates,
            listeners: listeners.into_iter().map(ArcSwap::new).collect(),
        }))
    }

    /// The certificates in force.
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// Terms of handshakes on a listener, by its number.
    ///
    /// # Panics
    /// There is no listener of that number.
    pub fn server_config(&self, listener: usize) -> Arc<ServerConfig> {
        self.listeners[listener].load_full()
    }

    /// Reads and checks what another configuration says, for the same listeners. Nothing changes yet.
    ///
    /// # Errors
    /// As of [`open`](TlsTerms::open).
    pub fn prepare(&self, config: &Config) -> Result<PreparedTerms, ConfigError> {
        let prepared = PreparedTerms {
            loaded: load(&config.certificates)?,
            is_strict: config.sni_strict,
            listeners: configs(&self.certificates, config)?,
        };
        debug_assert_eq!(prepared.listeners.len(), self.listeners.len());
        Ok(prepared)
    }

    /// Puts prepared terms in force for handshakes that begin from here on.
    pub fn take(&self, prepared: PreparedTerms) {
        self.certificates
            .replace(prepared.loaded, prepared.is_strict);
        for (listener, config) in self.listeners.iter().zip(prepared.listeners) {
            listener.store(config);
        }
    }
}

fn load(certificates: &[CertificateFiles]) -> Result<Vec<Arc<LoadedCertificate>>, ConfigError> {
    let loaded = certificates.iter().enumerate().map(|(row, files)| {
        let loaded = LoadedCertificate::read(files).map(Arc::new);
        loaded
            .map_err(|error| ConfigError::new("certificates", files, error.to_string()).in_row(row))
    });
    loaded.collect()
}

fn configs(
    certificates: &Arc<Certificates>,
    config: &Config,
) -> Result<Vec<Arc<ServerConfig>>, ConfigError> {
    let options = TlsOptions::of(config);
    let of_listener = |_| server_config(certificates, &options);
    let listeners = Listeners::of(&config.listeners);
    let configs: Result<_, TlsError> = listeners.with_surfaces().map(of_listener).collect();
    configs.map_err(|error| ConfigError::new("certificates", "", error.to_string()))
}
