//! Reasons that certificates and keys cannot be used.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::http::date::Date;

/// Reason that TLS cannot be had with what the configuration names.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    Read(PathBuf, io::Error),
    /// A file has more bytes than are read: [`FILE_BYTES_MAX`](super::FILE_BYTES_MAX).
    Large(PathBuf),
    /// A file is not PEM where it should be.
    Pem(PathBuf, String),
    /// A file holds no certificate.
    NoCertificate(PathBuf),
    /// A file holds no private key.
    NoKey(PathBuf),
    /// A private key is encrypted.
    EncryptedKey(PathBuf),
    /// A private key is of a kind that cannot be used, or too short.
    Key(PathBuf, String),
    /// A certificate cannot be read, or is of a kind that cannot be used.
    Certificate(PathBuf, String),
    /// The key is not that of the certificate.
    Mismatch {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
    },
    /// A certificate does not count yet: from this time on.
    NotYet(PathBuf, u64),
    /// A certificate counts no more: since this time.
    Expired(PathBuf, u64),
    /// A file of keys for tickets holds something else.
    TicketKeys(PathBuf, String),
    /// What the TLS library says against the settings.
    Library(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Read(path, error) => write!(f, "{} cannot be read: {error}", path.display()),
            TlsError::Large(path) => {
                let max = super::FILE_BYTES_MAX;
                write!(f, "{} has more than {max} bytes", path.display())
            }
            TlsError::Pem(path, why) => write!(f, "{} is not PEM: {why}", path.display()),
            TlsError::NoCertificate(path) => write!(
                f,
                "{} holds no certificate in PEM, which begins with BEGIN CERTIFICATE",
                path.display()
            ),
            TlsError::NoKey(path) => write!(
                f,
                "{} holds no private key in PEM, which begins with BEGIN PRIVATE KEY",
                path.display()
            ),
            TlsError::EncryptedKey(path) => write!(
                f,
                "the key in {} is encrypted: `openssl pkey -in FILE -out FILE` takes its password away",
                path.display()
            ),
            TlsError::Key(path, why) => {
                write!(f, "the key in {} cannot be used: {why}", path.display())
            }
            TlsError::Certificate(path, error) => {
                write!(
                    f,
                    "the certificate in {} cannot be used: {error}",
                    path.display()
                )
            }
            TlsError::Mismatch { certificate, key } => write!(
                f,
                "the key in {} is not that of the certificate in {}, which must be the first there",
                key.display(),
                certificate.display()
            ),
            TlsError::NotYet(path, from) => write!(
                f,
                "the certificate in {} does not count before {}",
                path.display(),
                Date::of(*from).as_str()
            ),
            TlsError::Expired(path, end) => write!(
                f,
                "the certificate in {} has ended at {}",
                path.display(),
                Date::of(*end).as_str()
            ),
            TlsError::TicketKeys(path, why) => {
                write!(f, "{} is no file of keys: {why}", path.display())
            }
            TlsError::Library(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TlsError {}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> TlsError {
        TlsError::Library(error)
    }
}
