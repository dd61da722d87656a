//! TLS: certificates, and what is agreed to with them.

use std::fmt;
use std::path::PathBuf;

use super::{Config, ConfigError};

/// Most certificates of one server.
pub const CERTIFICATES_MAX: usize = 1024;

/// Files of a certificate and its key.
///
/// ```
/// use umbel::config::CertificateFiles;
///
/// let files = CertificateFiles::new("/etc/umbel/fullchain.pem", "/etc/umbel/privkey.pem");
/// assert_eq!(files.to_string(), "/etc/umbel/fullchain.pem,/etc/umbel/privkey.pem");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFiles {
    /// The certificate in PEM. Those that lead to a root stand behind it.
    pub certificate_file: PathBuf,
    /// Its private key in PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key_file: PathBuf,
}

impl CertificateFiles {
    /// Files by their paths.
    pub fn new(
        certificate_file: impl Into<PathBuf>,
        key_file: impl Into<PathBuf>,
    ) -> CertificateFiles {
        CertificateFiles {
            certificate_file: certificate_file.into(),
            key_file: key_file.into(),
        }
    }

    /// Reads what `--certificate` takes: both paths with a comma between them.
    ///
    /// # Errors
    /// The form that it must have.
    pub fn parse(text: &str) -> Result<CertificateFiles, String> {
        match text.split_once(',') {
            Some((certificate, key)) if !certificate.is_empty() && !key.is_empty() => {
                Ok(CertificateFiles::new(certificate, key))
            }
            _ => Err(
                "it must be two files in PEM, as in /etc/umbel/fullchain.pem,/etc/umbel/privkey.pem"
                    .to_owned(),
            ),
        }
    }
}

impl fmt::Display for CertificateFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (certificate, key) = (self.certificate_file.display(), self.key_file.display());
        write!(f, "{certificate},{key}")
    }
}

/// Version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246), with forward secrecy and AEAD alone.
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

impl TlsVersion {
    /// Versions that are spoken if nothing is set.
    pub const ALL: [TlsVersion; 2] = [TlsVersion::V1_2, TlsVersion::V1_3];

    /// Reads `1.2` or `1.3`.
    ///
    /// # Errors
    /// There are no others.
    pub fn parse(text: &str) -> Result<TlsVersion, String> {
        match text {
            "1.2" => Ok(TlsVersion::V1_2),
            "1.3" => Ok(TlsVersion::V1_3),
            "1.0" | "1.1" => Err("it is not safe (RFC 8996): use 1.2 and 1.3".to_owned()),
            _ => Err("it must be 1.2 or 1.3".to_owned()),
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        })
    }
}

/// Carrier of a TLS connection whose handshake is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsRecords {
    /// Records of the server's own: a connection takes a few hundred bytes, and publications leave in batches.
    #[default]
    Own,
    /// rustls, from the first byte to the last.
    Rustls,
}

impl fmt::Display for TlsRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TlsRecords::Own => "own",
            TlsRecords::Rustls => "rustls",
        })
    }
}

impl Config {
    /// Settings of TLS that cannot stand. Files are read later.
    pub(super) fn tls_errors(&self) -> Vec<ConfigError> {
        let certificates = &self.certificates;
        if certificates.len() > CERTIFICATES_MAX {
            let way_out = format!(
                "there can be at most {CERTIFICATES_MAX}; one may have many names, and a wildcard stands for all below it"
            );
            return vec![ConfigError::new(
                "certificates",
                certificates.len(),
                way_out,
            )];
        }
        let mut errors = Vec::new();
        if cfg!(not(feature = "tls")) && !certificates.is_empty() {
            let way_out = "this build speaks no TLS: build it with the feature tls";
            errors.push(ConfigError::new(
                "certificates",
                certificates.len(),
                way_out,
            ));
        }
        if certificates.is_empty() && self.listeners.iter().any(|listener| listener.tls) {
            let way_out = "a listener speaks TLS: name the files of a certificate and of its key";
            errors.push(ConfigError::new("certificate", "", way_out));
        }
        for (row, files) in certificates.iter().enumerate() {
            if certificates[..row].contains(files) {
                let way_out = "it is there already; leave one of them out";
                errors.push(ConfigError::new("certificates", files, way_out).in_row(row));
            }
        }
        if self.tls_versions.is_empty() {
            let way_out = "no version is left: leave it out, or write [\"1.2\", \"1.3\"]";
            errors.push(ConfigError::new("tls_versions", "[]", way_out));
        }
        errors
    }
}
