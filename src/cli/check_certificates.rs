//! `umbel check --config`: what was found of certificates, and what clients are going to say of them.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls_native_certs::load_native_certs;
use umbel::Config;
use umbel::config::{CertificateFiles, ConfigError};
use umbel::internals::http::date::Date;
use umbel::internals::tls::{LoadedCertificate, TlsTerms};
use umbel::internals::x509::{Certificate, Key};

/// Time for which signatures are counted.
const SIGN_TIME: Duration = Duration::from_millis(50);

const DAY_S: u64 = 24 * 60 * 60;

/// Days before the end of a certificate from which it is told.
const DAYS_LEFT_MIN: u64 = 14;

/// Findings about all certificates.
#[derive(Default)]
pub struct Findings {
    /// Each certificate in words.
    pub certificates: Vec<String>,
    /// Reasons that the server does not start.
    pub errors: Vec<ConfigError>,
    /// Reasons that clients may refuse one, or that it costs.
    pub warnings: Vec<ConfigError>,
}

/// Reads the files of a configuration, and judges them.
pub fn look(config: &Config) -> Findings {
    let mut findings = Findings::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    for (row, files) in config.certificates.iter().enumerate() {
        let about = |words: String| ConfigError::new("certificates", files, words);
        match LoadedCertificate::read(files) {
            Err(error) => findings.errors.push(about(error.to_string()).of_row(row)),
            Ok(loaded) => {
                findings.certificates.push(words(&loaded));
                let warnings = warnings(&loaded, files, now).into_iter();
                let warnings = warnings.map(|words| about(words).of_row(row));
                findings.warnings.extend(warnings);
            }
        }
    }
    let config_listens = config.listeners.iter().any(|listener| listener.tls);
    if !config.certificates.is_empty() && !config_listens {
        let way_out =
            "no listener speaks TLS: write tls = true in its [[listener]], or https:// in --listen";
        let about = ConfigError::new("certificates", config.certificates.len(), way_out);
        findings.warnings.push(about);
    }
    findings.warnings.extend(open_ticket_keys(config));
    if findings.errors.is_empty() {
        // The rest of what is read at the start: keys of tickets, and whom clients' certificates come from.
        findings.errors.extend(TlsTerms::open(config).err());
    }
    findings
}

/// A warning about ticket keys that others may read: they open recorded connections.
fn open_ticket_keys(config: &Config) -> Option<ConfigError> {
    let path = config.tls_ticket_key_file.as_ref()?;
    may_others_read(path).then(|| {
        let path = path.display().to_string();
        let way_out = format!("others may read it: chmod o= {path}");
        ConfigError::new("tls_ticket_key_file", path, way_out)
    })
}

fn words(loaded: &LoadedCertificate) -> String {
    let names: Vec<_> = loaded.names().collect();
    let names = match names.is_empty() {
        true => format!("{} (no name of a host)", loaded.name()),
        false => names.join(", "),
    };
    let read = Certificate::parse(loaded.leaf()).ok();
    let key = read.map_or(String::new(), |read| match read.key() {
        Key::Rsa(bits) => format!("RSA of {bits} bits"),
        Key::Ec(bits) => format!("ECDSA of {bits} bits"),
        Key::Ed25519 => "Ed25519".to_owned(),
        _ => "a key of another kind".to_owned(),
    });
    let issuer = read
        .and_then(|read| read.issuer_cn())
        .unwrap_or("(without a name)");
    let end = Date::of(loaded.not_after());
    format!(
        "certificate for {names}: {key}, of {issuer}, until {}, {} behind it",
        end.as_str(),
        loaded.key().cert.len() - 1
    )
}

fn warnings(loaded: &LoadedCertificate, files: &CertificateFiles, now: u64) -> Vec<String> {
    let mut warnings = Vec::new();
    let left = loaded.not_after().saturating_sub(now) / DAY_S;
    match loaded.check(now) {
        Err(error) => warnings.push(format!("{error}: clients do not trust it")),
        Ok(()) if left < DAYS_LEFT_MIN => {
            warnings.push(format!("it ends in {left} days: renew it"));
        }
        Ok(()) => {}
    }
    if loaded.names().next().is_none() {
        let words =
            "it has no name of a host (subjectAltName): clients that look for one do not trust it";
        warnings.push(words.to_owned());
    }
    let chain: Vec<_> = loaded.key().cert.iter().collect();
    let chain = chain.iter().map(|of| Certificate::parse(of));
    match chain.collect::<Result<Vec<_>, _>>() {
        Ok(chain) => warnings.extend(chain_warnings(&chain)),
        Err(error) => warnings.push(format!("a certificate behind it cannot be read: {error}")),
    }
    if let Some(Key::Rsa(bits)) = Certificate::parse(loaded.leaf())
        .ok()
        .map(|read| read.key())
    {
        let count = signatures_per_second(loaded);
        warnings.push(format!(
            "RSA of {bits} bits: about {count} full handshakes a second and core on this machine; ECDSA does several times as \
             many"
        ));
    }
    if may_others_read(&files.key_file) {
        let key = files.key_file.display();
        warnings.push(format!("others may read {key}: chmod o= {key}"));
    }
    warnings
}

/// Warnings about a certificate and those behind it.
fn chain_warnings(chain: &[Certificate<'_>]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (number, pair) in chain.windows(2).enumerate() {
        if !pair[0].is_issued_by(&pair[1]) {
            warnings.push(format!(
                "certificate {} in the file is not the issuer of the one before it: clients may not find a root",
                number + 2
            ));
            return warnings;
        }
    }
    // Whoever trusts a root does not look at how it is signed.
    if let Some(weak) = chain
        .iter()
        .find(|it| it.has_weak_signature() && !it.is_self_issued())
    {
        let name = weak.subject_cn().unwrap_or("(without a name)");
        warnings.push(format!(
            "{name} is signed with SHA-1 or MD5: clients do not trust it"
        ));
    }
    match chain.last() {
        Some(last) if chain.len() == 1 && last.is_self_issued() => warnings
            .push("it is signed by itself: only clients that are given it trust it".to_owned()),
        Some(last) if !last.is_self_issued() && !is_of_known_root(last) => {
            let issuer = last.issuer_cn().unwrap_or("(without a name)");
            warnings.push(format!(
                "the chain is not complete, or its root is none of this system's: the certificate of {issuer} is missing \
                 behind it"
            ));
        }
        _ => {}
    }
    warnings
}

/// Whether its issuer is a root of this system.
fn is_of_known_root(last: &Certificate<'_>) -> bool {
    load_native_certs()
        .certs
        .iter()
        .any(|root| Certificate::parse(root).is_ok_and(|root| last.is_issued_by(&root)))
}

/// Signatures of the key on this machine, as a full handshake takes one.
fn signatures_per_second(loaded: &LoadedCertificate) -> u64 {
    let schemes = [rustls::SignatureScheme::RSA_PSS_SHA256];
    let Some(signer) = loaded.key().key.choose_scheme(&schemes) else {
        return 0;
    };
    let (start, mut count) = (Instant::now(), 0u32);
    while start.elapsed() < SIGN_TIME {
        if signer.sign(b"a transcript of a handshake").is_err() {
            return 0;
        }
        count += 1;
    }
    let per_second = f64::from(count) / start.elapsed().as_secs_f64();
    // Two digits are all that can be said.
    let digit = 10f64.powf(per_second.log10().floor() - 1.0).max(1.0);
    ((per_second / digit).round() * digit) as u64
}

#[cfg(unix)]
fn may_others_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path);
    metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0)
}

#[cfg(not(unix))]
fn may_others_read(_: &Path) -> bool {
    false
}
