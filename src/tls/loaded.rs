//! A certificate with its key, from files.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{TlsError, provider};
use crate::config::CertificateFiles;
use crate::x509::{Certificate, Key, Name};

/// Most bytes of a file with certificates or a key.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Fewest bits of an RSA key.
const RSA_BITS_MIN: usize = 2048;

/// A certificate with its key.
#[derive(Debug)]
pub struct LoadedCertificate {
    files: CertificateFiles,
    key: Arc<CertifiedKey>,
    /// Names of hosts, in small letters. Those with a wildcard begin with `*.`.
    names: Box<[Box<str>]>,
    /// The first name, or else the common name, or else the file.
    name: Box<str>,
    not_before: u64,
    not_after: u64,
}

impl LoadedCertificate {
    /// Reads the files. Whether it counts today is another matter.
    ///
    /// # Errors
    /// A file cannot be read, holds something else, or the key is not the certificate's.
    pub fn read(files: &CertificateFiles) -> Result<LoadedCertificate, TlsError> {
        let chain = read_chain(&files.certificate_file)?;
        let key = read_key(&files.key_file)?;
        LoadedCertificate::of(files, chain, key)
    }

    /// One of a chain and a key, which are said to come from these files.
    pub(super) fn of(
        files: &CertificateFiles,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<LoadedCertificate, TlsError> {
        let path = &files.certificate_file;
        let leaf = chain
            .first()
            .ok_or_else(|| TlsError::NoCertificate(path.clone()))?;
        let read = Certificate::parse(leaf);
        let read = read.map_err(|error| TlsError::Certificate(path.clone(), error.to_string()))?;
        let names = names_of(leaf);
        let name = match (names.first(), read.subject_cn()) {
            (Some(name), _) => name.clone(),
            (None, Some(name)) => name.into(),
            (None, None) => path.display().to_string().into(),
        };
        let (not_before, not_after, kind) = (read.not_before(), read.not_after(), read.key());
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Mismatch {
                certificate: path.clone(),
                key: files.key_file.clone(),
            },
            Error::InvalidCertificate(why) => {
                TlsError::Certificate(path.clone(), format!("{why:?}"))
            }
            _ if matches!(kind, Key::Rsa(bits) if bits < RSA_BITS_MIN) => {
                let why = format!("it is RSA of fewer than {RSA_BITS_MIN} bits");
                TlsError::Key(files.key_file.clone(), why)
            }
            Error::General(why) => TlsError::Key(files.key_file.clone(), why),
            other => TlsError::Key(files.key_file.clone(), other.to_string()),
        })?;
        Ok(LoadedCertificate {
            files: files.clone(),
            key: Arc::new(key),
            names,
            name,
            not_before,
            not_after,
        })
    }

    /// Its files.
    pub fn files(&self) -> &CertificateFiles {
        &self.files
    }

    /// Chain and key, as handshakes take them.
    pub fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// Hosts that it names, in small letters and without a last dot.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Its name for people: the first of a host, or else its common name, or else its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// First second in which it counts, since 1970.
    pub fn not_before(&self) -> u64 {
        self.not_before
    }

    /// Last second in which it counts, since 1970.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Whether it counts at a second since 1970.
    ///
    /// # Errors
    /// It does not count yet, or no more.
    pub fn check(&self, now: u64) -> Result<(), TlsError> {
        let path = || self.files.certificate_file.clone();
        match now {
            now if now < self.not_before => Err(TlsError::NotYet(path(), self.not_before)),
            now if now > self.not_after => Err(TlsError::Expired(path(), self.not_after)),
            _ => Ok(()),
        }
    }

    /// The certificate itself in DER.
    pub fn leaf(&self) -> &[u8] {
        self.key.cert.first().map_or(&[], |leaf| leaf)
    }
}

/// Names of hosts that a certificate is for: those that a client verifies it by.
fn names_of(leaf: &CertificateDer<'_>) -> Box<[Box<str>]> {
    let of_dns = |name: &str| -> Box<str> {
        let name = name.strip_suffix('.').unwrap_or(name);
        name.to_ascii_lowercase().into()
    };
    match webpki::EndEntityCert::try_from(leaf) {
        Ok(leaf) => leaf.valid_dns_names().map(of_dns).collect(),
        // What the verifying library cannot read, such as a certificate of version 1, may still be served.
        Err(_) => match Certificate::parse(leaf) {
            Ok(read) => read
                .names()
                .filter_map(|name| match name {
                    Name::Dns(name) => Some(of_dns(name)),
                    _ => None,
                })
                .collect(),
            Err(_) => Box::default(),
        },
    }
}

/// Reads certificates in PEM, at least one.
///
/// # Errors
/// The file cannot be read, or holds none.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read_file(path)?;
    let certificates: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.map_err(|error| told(path, &error))?;
    match certificates.is_empty() {
        true => Err(TlsError::NoCertificate(path.to_owned())),
        false => Ok(certificates),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = zeroize::Zeroizing::new(read_file(path)?);
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            let is_encrypted = bytes
                .windows(b"BEGIN ENCRYPTED".len())
                .any(|part| part == b"BEGIN ENCRYPTED");
            match is_encrypted {
                true => TlsError::EncryptedKey(path.to_owned()),
                false => TlsError::NoKey(path.to_owned()),
            }
        }
        error => told(path, &error),
    })
}

fn told(path: &Path, error: &pem::Error) -> TlsError {
    TlsError::Pem(path.to_owned(), error.to_string())
}

/// Reads a file of at most [`FILE_BYTES_MAX`].
///
/// # Errors
/// It cannot be read, or is longer.
pub fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| TlsError::Read(path.to_owned(), error))?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(TlsError::Large(path.to_owned())),
        false => Ok(bytes),
    }
}
