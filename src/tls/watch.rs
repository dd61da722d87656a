//! Thread that looks for changed files of certificates, and for their ends.
//!
//! Programs that renew certificates write files, and tell nobody. They may write the certificate and its key one after the
//! other, or swap a link: what is read between does not fit, and is read again.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::terms::{TermsError, TlsTerms, wall_seconds};
use super::{LoadedCertificate, TlsError};
use crate::config::ConfigError;
use crate::http::date::Date;

/// Time for which a key that is not the certificate's is taken for a renewal that goes on.
const MISMATCH_GRACE: Duration = Duration::from_secs(60);

const DAY_S: u64 = 24 * 60 * 60;

/// Time before the end of a certificate from which it is told as a warning, and as an error.
const WARN_S: u64 = 14 * DAY_S;
const ERROR_S: u64 = 3 * DAY_S;

/// How often the end of a certificate is told.
const TELL_INTERVAL: Duration = Duration::from_secs(DAY_S);

impl TlsTerms {
    /// Starts the thread, if there are certificates and none looks after them yet. It ends with the terms.
    pub(super) fn watch(self: &Arc<TlsTerms>) {
        if self.certificates().all().is_empty() || self.watcher.get().is_some() {
            return;
        }
        let terms = Arc::downgrade(self);
        let spawned = thread::Builder::new()
            .name("umbel-certificates".to_owned())
            .spawn(move || run(&terms));
        match spawned {
            Ok(spawned) => {
                let _ = self.watcher.set(spawned.thread().clone());
            }
            Err(error) => log::error!(
                "changed files of certificates are not looked for, as no thread can be started: {error}"
            ),
        }
    }
}

fn run(terms: &Weak<TlsTerms>) {
    let mut watch = Watch::default();
    while let Some(terms) = terms.upgrade() {
        watch.look(&terms);
        let interval = terms.check_interval();
        drop(terms);
        thread::park_timeout(interval);
    }
}

#[derive(Default)]
struct Watch {
    failed: Option<Failed>,
    /// Moments at which ends were told, by certificate.
    told: HashMap<Box<str>, Instant>,
}

/// Files that could not be taken.
struct Failed {
    since: Instant,
    told: String,
    is_error: bool,
}

impl Watch {
    fn look(&mut self, terms: &TlsTerms) {
        if self.failed.is_some() || terms.is_changed() {
            match terms.reread() {
                Ok(()) => self.succeed(terms),
                Err(error) => self.fail(terms, error),
            }
        }
        let now = wall_seconds();
        for certificate in terms.certificates().all() {
            self.tell_end(&certificate, now);
        }
    }

    fn succeed(&mut self, terms: &TlsTerms) {
        self.failed = None;
        if let Some(counts) = terms.counts() {
            counts.add(true);
        }
        let all = terms.certificates().all();
        let ends = all.iter().map(|it| {
            let end = Date::of(it.not_after());
            format!("{} until {}", it.name(), end.as_str())
        });
        let ends: Vec<_> = ends.collect();
        log::info!(event = "certificate_read"; "certificates were read anew: {}", ends.join("; "));
    }

    fn fail(&mut self, terms: &TlsTerms, error: TermsError) {
        let is_mismatch = matches!(error.error, TlsError::Mismatch { .. });
        let told = ConfigError::from(error).to_string();
        let since = self
            .failed
            .as_ref()
            .map_or_else(Instant::now, |it| it.since);
        let is_error = !is_mismatch || since.elapsed() >= MISMATCH_GRACE;
        let is_known = self
            .failed
            .as_ref()
            .is_some_and(|failed| failed.told == told && failed.is_error == is_error);
        if is_known {
            return;
        }
        match is_error {
            true => {
                log::error!(event = "certificate_failed"; "certificates stay as they were: {told}");
            }
            false => {
                log::warn!(event = "certificate_failed"; "certificates stay as they were for now: {told}");
            }
        }
        if let Some(counts) = terms.counts() {
            counts.add(false);
        }
        self.failed = Some(Failed {
            since,
            told,
            is_error,
        });
    }

    fn tell_end(&mut self, certificate: &LoadedCertificate, now: u64) {
        let left = certificate.not_after().saturating_sub(now);
        if left > WARN_S {
            return;
        }
        let key = format!("{}@{}", certificate.name(), certificate.not_after());
        if self
            .told
            .get(&*key)
            .is_some_and(|at| at.elapsed() < TELL_INTERVAL)
        {
            return;
        }
        self.told.retain(|_, at| at.elapsed() < TELL_INTERVAL);
        self.told.insert(key.into(), Instant::now());
        let (name, file) = (
            certificate.name(),
            certificate.files().certificate_file.display(),
        );
        let end = Date::of(certificate.not_after());
        let (end, days) = (end.as_str(), left / DAY_S);
        match left {
            0 => {
                log::error!(event = "certificate_ended", name, end; "the certificate of {name} has ended at {end}: renew {file}");
            }
            1..=ERROR_S => {
                log::error!(event = "certificate_ends", name, days, end;
                    "the certificate of {name} ends in {days} days, at {end}: renew {file}"
                );
            }
            _ => {
                log::warn!(event = "certificate_ends", name, days, end; "the certificate of {name} ends in {days} days, at {end}: renew {file}");
            }
        }
    }
}
