//! State of TLS that all reactors of a server share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::ServerConfig;

use super::kept_keys::KeptKeysMax;
use super::threads::HandshakeThreads;
use crate::auth::identity::Identity;
use crate::config::Limits;
use crate::metrics::tls::TlsCounts;

/// Gives the terms in force on a listener, by its number.
pub type TermsOf = dyn Fn(u8) -> Arc<ServerConfig> + Send + Sync;

/// Finds out who shows a verified certificate on a listener.
pub type Identify = dyn Fn(u8, &[u8]) -> Option<Arc<Identity>> + Send + Sync;

/// Terms of TLS by listener, limits, and what is counted.
pub struct TlsContext {
    terms: Box<TermsOf>,
    identify: Box<Identify>,
    /// Counts of all reactors.
    pub counts: Arc<TlsCounts>,
    /// None where each reactor answers its hellos itself.
    pub(super) threads: Option<Arc<HandshakeThreads>>,
    pub(super) pending_max: usize,
    pub(super) per_tick_max: usize,
    /// Keys that are kept ready.
    pub(super) kept_keys: KeptKeysMax,
}

impl fmt::Debug for TlsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsContext").finish_non_exhaustive()
    }
}

impl TlsContext {
    /// One with these terms.
    pub fn new(terms: Box<TermsOf>, counts: Arc<TlsCounts>, limits: &Limits) -> TlsContext {
        TlsContext {
            terms,
            identify: Box::new(|_, _| None),
            counts,
            threads: None,
            pending_max: limits.tls_handshakes_pending_max,
            per_tick_max: limits.tls_handshakes_per_tick_max,
            kept_keys: KeptKeysMax {
                here: limits.tls_kept_keys,
                total: limits.tls_kept_keys_total_max,
            },
        }
    }

    /// Has these threads answer hellos.
    #[must_use]
    pub fn with_threads(mut self, threads: Option<HandshakeThreads>) -> TlsContext {
        self.threads = threads.map(Arc::new);
        self
    }

    /// With who shows a certificate.
    #[must_use]
    pub fn identifying(self, identify: Box<Identify>) -> TlsContext {
        TlsContext { identify, ..self }
    }

    /// Whoever shows a verified certificate on a listener.
    pub(super) fn identify(&self, listener: u8, leaf: &[u8]) -> Option<Arc<Identity>> {
        (self.identify)(listener, leaf)
    }

    /// Terms of handshakes on a listener.
    pub(super) fn terms(&self, listener: u8) -> Arc<ServerConfig> {
        (self.terms)(listener)
    }

    /// Counts a handshake that begins. None: there are as many as there may be.
    pub(super) fn begin_handshake(&self) -> Option<Pending> {
        let before = self.counts.pending.fetch_add(1, Ordering::Relaxed);
        let pending = Pending(Arc::clone(&self.counts));
        (before < self.pending_max).then_some(pending)
    }
}

/// A handshake that is under way. It is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Pending(Arc<TlsCounts>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}
