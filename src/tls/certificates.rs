//! The certificates in force, and the choice among them for a handshake.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::LoadedCertificate;

/// Bytes of the longest name of a host (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 255;

/// Certificates for handshakes. Others take their place while handshakes go on.
#[derive(Debug)]
pub struct Certificates {
    table: ArcSwap<Table>,
    is_strict: AtomicBool,
}

/// Certificates by name.
#[derive(Debug, Default)]
struct Table {
    /// All, in the order of the configuration.
    all: Vec<Arc<LoadedCertificate>>,
    /// Numbers of those that have this name.
    exact: HashMap<Box<str>, Vec<usize>>,
    /// Numbers of those that have the wildcard `*.` before this name.
    wildcard: HashMap<Box<str>, Vec<usize>>,
    /// Numbers of those for other names: the first, and those that have its first name too.
    default: Vec<usize>,
}

impl Table {
    fn new(all: Vec<Arc<LoadedCertificate>>) -> Table {
        let mut table = Table::default();
        for (number, certificate) in all.iter().enumerate() {
            for name in certificate.names() {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut table.wildcard, rest),
                    None => (&mut table.exact, name),
                };
                names.entry(name.into()).or_default().push(number);
            }
        }
        if let Some(first) = all.first() {
            let name = first.names().next();
            let shares = |other: &LoadedCertificate| {
                name.is_some_and(|name| other.names().any(|other| other == name))
            };
            let others = all.iter().enumerate().skip(1);
            let others = others.filter(|(_, other)| shares(other));
            table.default = std::iter::once(0)
                .chain(others.map(|(number, _)| number))
                .collect();
        }
        table.all = all;
        table
    }

    /// Numbers of the certificates that have this name, by itself or by a wildcard.
    fn named(&self, name: &str) -> Option<&[usize]> {
        let mut small = [0; HOST_BYTES_MAX];
        let name = name.strip_suffix('.').unwrap_or(name);
        let small = small.get_mut(..name.len())?;
        small.copy_from_slice(name.as_bytes());
        small.make_ascii_lowercase();
        let name = std::str::from_utf8(small).ok()?;
        if let Some(numbers) = self.exact.get(name) {
            return Some(numbers);
        }
        // A wildcard stands for one label.
        let (label, rest) = name.split_once('.')?;
        let numbers = self.wildcard.get(rest).filter(|_| !label.is_empty())?;
        Some(numbers)
    }

    /// Of several certificates the first whose key signs as the peer takes it; the first if there is none.
    fn choose(&self, numbers: &[usize], schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let mut keys = numbers
            .iter()
            .filter_map(|number| self.all.get(*number))
            .map(|certificate| certificate.key());
        let first = keys.clone().next()?;
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        Some(keys.find(fits).unwrap_or(first))
    }
}

impl Certificates {
    /// These, in the order of the configuration. `is_strict`: whether peers that name none of their hosts are refused.
    pub fn new(loaded: Vec<Arc<LoadedCertificate>>, is_strict: bool) -> Certificates {
        Certificates {
            table: ArcSwap::from_pointee(Table::new(loaded)),
            is_strict: AtomicBool::new(is_strict),
        }
    }

    /// Puts others in their place. Connections keep theirs.
    pub fn replace(&self, loaded: Vec<Arc<LoadedCertificate>>, is_strict: bool) {
        self.table.store(Arc::new(Table::new(loaded)));
        self.is_strict.store(is_strict, Ordering::Relaxed);
    }

    /// All, in the order of the configuration.
    pub fn all(&self) -> Vec<Arc<LoadedCertificate>> {
        self.table.load().all.clone()
    }

    /// Whether a handshake for this host goes on. Else it is refused with the alert unrecognized_name (RFC 6066 section 3).
    pub fn has_host(&self, name: Option<&str>) -> bool {
        !self.is_strict.load(Ordering::Relaxed)
            || name.is_some_and(|name| self.table.load().named(name).is_some())
    }

    /// Key for a host, of those whose signatures the peer takes.
    pub fn key_for(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let table = self.table.load();
        let numbers = match name.and_then(|name| table.named(name)) {
            Some(numbers) => numbers,
            None if self.is_strict.load(Ordering::Relaxed) => return None,
            None => &table.default,
        };
        table.choose(numbers, schemes).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key_for(client_hello.server_name(), client_hello.signature_schemes())
    }
}
