//! TLS of a server: its certificates, and the terms of handshakes of each listener.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use super::clients::{self, ClientTerms};
use super::loaded::read_file;
use super::stamps::Stamps;
use super::tickets::{TICKET_KEY_BYTES, TicketKeys, read_ticket_keys};
use super::{Certificates, LoadedCertificate, TlsError, TlsOptions, server_config};
use crate::auth::identity::Identity;
use crate::config::{
    CertificateFiles, ClientCertificates, Config, ConfigError, Listeners, TlsRecords, TlsVersion,
};
use crate::metrics::certificates::CertificateCounts;

/// TLS of a server. Handshakes take what is in force when they begin.
#[derive(Debug)]
pub struct TlsTerms {
    certificates: Arc<Certificates>,
    ticket_keys: Arc<TicketKeys>,
    /// By the number of the listener.
    listeners: Box<[ArcSwap<ServerConfig>]>,
    /// Held while others take the place of those in force.
    in_force: Mutex<InForce>,
    counts: OnceLock<Arc<CertificateCounts>>,
    /// The thread that looks for changed files.
    pub(super) watcher: OnceLock<Thread>,
}

/// Settings in force, and the files as they were then.
#[derive(Debug)]
struct InForce {
    settings: TlsSettings,
    stamps: Stamps,
    /// Number of changes.
    generation: u64,
}

/// Part of a configuration that is about TLS.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    certificates: Vec<CertificateFiles>,
    sni_strict: bool,
    versions: Vec<TlsVersion>,
    records: TlsRecords,
    ticket_key_file: Option<PathBuf>,
    /// What each listener asks of clients, by its number.
    listeners: Vec<ClientCertificates>,
    check_interval: Duration,
}

impl TlsSettings {
    /// That of a configuration.
    pub fn of(config: &Config) -> TlsSettings {
        let listeners = Listeners::of(&config.listeners);
        TlsSettings {
            certificates: config.certificates.clone(),
            sni_strict: config.sni_strict,
            versions: config.tls_versions.clone(),
            records: config.tls_records,
            ticket_key_file: config.tls_ticket_key_file.clone(),
            listeners: listeners
                .with_surfaces()
                .map(|(listener, _)| listener.clients.clone())
                .collect(),
            check_interval: Duration::from_millis(config.limits.certificate_check_ms),
        }
    }

    /// All files that it names.
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let certificates = self.certificates.iter();
        let certificates =
            certificates.flat_map(|files| [&files.certificate_file, &files.key_file]);
        let clients = self.listeners.iter();
        let clients = clients.flat_map(|clients| clients.ca_file.iter().chain(&clients.crl_file));
        certificates.chain(&self.ticket_key_file).chain(clients)
    }
}

/// Reason that settings cannot be taken.
#[derive(Debug)]
pub struct TermsError {
    /// The setting.
    pub setting: &'static str,
    /// Its row, of a table of several.
    pub row: Option<usize>,
    /// Its value.
    pub value: String,
    /// The reason.
    pub error: TlsError,
}

impl TermsError {
    fn about(setting: &'static str, value: &impl ToString, error: TlsError) -> TermsError {
        TermsError {
            setting,
            row: None,
            value: value.to_string(),
            error,
        }
    }
}

impl From<TermsError> for ConfigError {
    fn from(error: TermsError) -> ConfigError {
        let told = ConfigError::new(error.setting, error.value, error.error.to_string());
        match error.row {
            Some(row) => told.in_row(row),
            None => told,
        }
    }
}

/// Terms that were read and checked, and are not in force yet.
#[derive(Debug)]
pub struct PreparedTerms {
    settings: TlsSettings,
    stamps: Stamps,
    loaded: Vec<Arc<LoadedCertificate>>,
    ticket_keys: Option<Vec<[u8; TICKET_KEY_BYTES]>>,
    listeners: Vec<Arc<ServerConfig>>,
}

impl PreparedTerms {
    /// Reads and checks all that the settings name.
    fn read(
        settings: TlsSettings,
        certificates: &Arc<Certificates>,
        keys: &Arc<TicketKeys>,
    ) -> Result<PreparedTerms, TermsError> {
        // Before they are read: a change meanwhile is seen later.
        let stamps = Stamps::of(settings.files());
        let loaded = load(&settings.certificates)?;
        let ticket_keys = match &settings.ticket_key_file {
            Some(path) => {
                let wrong =
                    |error| TermsError::about("tls_ticket_key_file", &path.display(), error);
                let bytes = zeroize::Zeroizing::new(read_file(path).map_err(wrong)?);
                let read = read_ticket_keys(&bytes);
                Some(read.map_err(|why| wrong(TlsError::TicketKeys(path.clone(), why)))?)
            }
            None => None,
        };
        let mut listeners = Vec::new();
        for (row, clients) in settings.listeners.iter().enumerate() {
            let wrong = |setting, error| TermsError {
                row: Some(row),
                ..TermsError::about(setting, &"client_ca_file", error)
            };
            let options = TlsOptions {
                versions: settings.versions.clone(),
                records: settings.records,
                clients: ClientTerms::read(clients).map_err(|error| wrong("listen", error))?,
                ticket_keys: Some(Arc::clone(keys)),
            };
            let config = server_config(certificates, &options);
            listeners.push(config.map_err(|error| wrong("tls_versions", error))?);
        }
        Ok(PreparedTerms {
            listeners,
            settings,
            stamps,
            loaded,
            ticket_keys,
        })
    }
}

impl TlsTerms {
    /// Terms of a configuration, which may have no certificates. One that does not count today is told in the log.
    ///
    /// # Errors
    /// A certificate or its key cannot be used, or an option cannot stand.
    pub fn open(config: &Config) -> Result<Arc<TlsTerms>, ConfigError> {
        let certificates = Arc::new(Certificates::new(Vec::new(), config.sni_strict));
        let ticket_keys = Arc::new(TicketKeys::random());
        let prepared = PreparedTerms::read(TlsSettings::of(config), &certificates, &ticket_keys)?;
        for loaded in &prepared.loaded {
            if let Err(error) = loaded.check(wall_seconds()) {
                log::error!("{error}: clients will not trust it");
            }
        }
        let listeners = prepared.listeners.iter().cloned().map(ArcSwap::new);
        let terms = TlsTerms {
            certificates,
            ticket_keys,
            listeners: listeners.collect(),
            in_force: Mutex::new(InForce {
                settings: prepared.settings.clone(),
                stamps: Stamps::default(),
                generation: 0,
            }),
            counts: OnceLock::new(),
            watcher: OnceLock::new(),
        };
        terms.put(prepared, &mut terms.in_force());
        Ok(Arc::new(terms))
    }

    /// Counts changes there from here on, and looks for changed files.
    pub fn start(self: &Arc<TlsTerms>, counts: Arc<CertificateCounts>) {
        let _ = self.counts.set(counts);
        self.show();
        self.watch();
    }

    /// The certificates in force.
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// Counts of changes.
    pub(super) fn counts(&self) -> Option<&CertificateCounts> {
        self.counts.get().map(|counts| &**counts)
    }

    /// Terms of handshakes on a listener, by its number.
    ///
    /// # Panics
    /// There is no listener of that number.
    pub fn server_config(&self, listener: usize) -> Arc<ServerConfig> {
        self.listeners[listener].load_full()
    }

    /// Identity of a verified certificate on a listener. None: it only admits there.
    pub fn identify(&self, listener: usize, leaf: &[u8]) -> Option<Arc<Identity>> {
        let clients = self.in_force().settings.listeners.get(listener)?.clone();
        clients::identify(&clients, leaf)
    }

    /// Interval at which files are looked at.
    pub(super) fn check_interval(&self) -> Duration {
        self.in_force().settings.check_interval
    }

    /// Reads and checks what another configuration says, for the same listeners. Nothing changes yet.
    ///
    /// # Errors
    /// As of [`open`](TlsTerms::open); and a certificate that is not in force already does not count today.
    pub fn prepare(&self, config: &Config) -> Result<PreparedTerms, ConfigError> {
        let prepared = self.read(TlsSettings::of(config));
        if prepared.is_err()
            && let Some(counts) = self.counts()
        {
            counts.add(false);
        }
        Ok(prepared?)
    }

    /// Puts prepared terms in force for handshakes that begin from here on.
    pub fn take(self: &Arc<TlsTerms>, prepared: PreparedTerms) {
        self.put(prepared, &mut self.in_force());
        self.show();
        if let Some(counts) = self.counts() {
            counts.add(true);
        }
        self.watch();
    }

    /// Whether a file is another than the one in force.
    pub(super) fn is_changed(&self) -> bool {
        let (settings, stamps) = {
            let in_force = self.in_force();
            (in_force.settings.clone(), in_force.stamps.clone())
        };
        stamps != Stamps::of(settings.files())
    }

    /// Reads the files of the settings in force anew, and puts them in force. All stays as it was where one is wrong.
    ///
    /// # Errors
    /// As of [`prepare`](TlsTerms::prepare).
    pub(super) fn reread(&self) -> Result<(), TermsError> {
        let (settings, generation) = {
            let in_force = self.in_force();
            (in_force.settings.clone(), in_force.generation)
        };
        let prepared = self.read(settings)?;
        let mut in_force = self.in_force();
        // A reload that came between has read them too, by newer settings.
        if in_force.generation == generation {
            self.put(prepared, &mut in_force);
        }
        drop(in_force);
        self.show();
        Ok(())
    }

    fn read(&self, settings: TlsSettings) -> Result<PreparedTerms, TermsError> {
        let prepared = PreparedTerms::read(settings, &self.certificates, &self.ticket_keys)?;
        debug_assert_eq!(prepared.listeners.len(), self.listeners.len());
        let (old, now) = (self.certificates.all(), wall_seconds());
        for (row, new) in prepared.loaded.iter().enumerate() {
            let is_in_force = old.iter().any(|old| old.leaf() == new.leaf());
            if !is_in_force && let Err(error) = new.check(now) {
                let error = TermsError::about("certificates", new.files(), error);
                return Err(TermsError {
                    row: Some(row),
                    ..error
                });
            }
        }
        Ok(prepared)
    }

    fn put(&self, prepared: PreparedTerms, in_force: &mut InForce) {
        self.ticket_keys.replace(prepared.ticket_keys.as_deref());
        self.certificates
            .replace(prepared.loaded, prepared.settings.sni_strict);
        for (listener, config) in self.listeners.iter().zip(prepared.listeners) {
            listener.store(config);
        }
        in_force.settings = prepared.settings;
        in_force.stamps = prepared.stamps;
        in_force.generation += 1;
    }

    /// Shows the ends of the certificates in the metrics.
    fn show(&self) {
        if let Some(counts) = self.counts() {
            let all = self.certificates.all();
            counts.show(all.iter().map(|it| (it.name(), it.not_after())));
        }
    }

    fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TlsTerms {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
    }
}

/// Seconds since 1970 by the machine's clock.
pub(super) fn wall_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn load(certificates: &[CertificateFiles]) -> Result<Vec<Arc<LoadedCertificate>>, TermsError> {
    let loaded = certificates.iter().enumerate().map(|(row, files)| {
        let loaded = LoadedCertificate::read(files).map(Arc::new);
        loaded.map_err(|error| TermsError {
            row: Some(row),
            ..TermsError::about("certificates", files, error)
        })
    });
    loaded.collect()
}

#[cfg(test)]
mod tests;
