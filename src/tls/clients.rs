//! Certificates that clients show: how they are verified, and who they say somebody is.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use super::loaded::read_file;
use super::{TlsError, provider, read_chain};
use crate::auth::identity::{Identity, IdentityParts, Source};
use crate::config::{ClientAuth, ClientCertificates, ClientIdentity};
use crate::x509::{Certificate, Name};

/// Terms for the certificates of clients, with what the files held.
#[derive(Clone, Debug, Default)]
pub struct ClientTerms {
    /// Verifier of certificates. None: none is asked for.
    pub verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Whether a client without one is refused.
    pub are_required: bool,
    /// Digest of all that decides who is let in, for tickets.
    pub digest: [u8; 32],
}

impl ClientTerms {
    /// Reads the files that a listener names.
    ///
    /// # Errors
    /// One cannot be read, or holds something else.
    pub fn read(clients: &ClientCertificates) -> Result<ClientTerms, TlsError> {
        let (ClientAuth::Optional | ClientAuth::Required, Some(ca_file)) =
            (clients.auth, &clients.ca_file)
        else {
            return Ok(ClientTerms::default());
        };
        let are_required = clients.auth == ClientAuth::Required;
        let mut digest = Sha256::new();
        digest.update([u8::from(are_required)]);
        let mut roots = RootCertStore::empty();
        for root in read_chain(ca_file)? {
            digest.update(Sha256::digest(&root));
            let added = roots.add(root);
            added.map_err(|error| TlsError::Certificate(ca_file.clone(), error.to_string()))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = match &clients.crl_file {
            Some(path) => {
                let lists = read_lists(path)?;
                for list in &lists {
                    digest.update(Sha256::digest(list));
                }
                // A list is of one authority, and others may have none.
                builder.with_crls(lists).allow_unknown_revocation_status()
            }
            None => builder,
        };
        let builder = match are_required {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        let verifier = builder.build();
        let verifier = verifier.map_err(|error| {
            let path = clients.crl_file.as_ref().unwrap_or(ca_file);
            TlsError::Certificate(path.clone(), error.to_string())
        })?;
        Ok(ClientTerms {
            verifier: Some(verifier),
            are_required,
            digest: digest.finalize().into(),
        })
    }
}

fn read_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let bytes = read_file(path)?;
    let lists = CertificateRevocationListDer::pem_slice_iter(&bytes);
    let lists: Result<Vec<_>, _> = lists.collect();
    let wrong = |why: String| TlsError::Pem(path.to_owned(), why);
    let lists = lists.map_err(|error| wrong(error.to_string()))?;
    match lists.is_empty() {
        true => Err(wrong(
            "it holds no list, which begins with BEGIN X509 CRL".to_owned(),
        )),
        false => Ok(lists),
    }
}

/// Identity of a certificate that was verified. None: it only admits.
///
/// A certificate without the name that counts is somebody without a subject.
pub fn identify(clients: &ClientCertificates, leaf: &[u8]) -> Option<Arc<Identity>> {
    let kind = clients.identity?;
    let read = Certificate::parse(leaf).ok()?;
    let name = match kind {
        ClientIdentity::SubjectCn => read.subject_cn(),
        kind => read.names().find_map(|name| match (kind, name) {
            (ClientIdentity::SanUri, Name::Uri(name))
            | (ClientIdentity::SanDns, Name::Dns(name))
            | (ClientIdentity::SanEmail, Name::Email(name)) => Some(name),
            _ => None,
        }),
    };
    let digest = Sha256::digest(leaf);
    let token_id: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let prefix = clients.subject_prefix.as_deref().unwrap_or_default();
    let parts = |subject: Option<Box<str>>| IdentityParts {
        subject,
        token_id: Some(token_id.clone().into()),
        issued_at: Some(read.not_before()),
        expires_at_ms: Some(read.not_after().saturating_mul(1000)),
        ..IdentityParts::of(Source::Certificate)
    };
    let subject = name.filter(|name| !name.is_empty());
    let subject = subject.map(|name| format!("{prefix}{name}").into());
    match Identity::new(parts(subject)) {
        Ok(identity) => Some(identity),
        Err(error) => {
            log::debug!("a client's certificate names no subject: {error}");
            Identity::new(parts(None)).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_that_are_subjects() {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["a.example".to_owned()]).expect("a host");
        let text = |text: &str| text.try_into().expect("ASCII");
        params.subject_alt_names.extend([
            SanType::URI(text("spiffe://example/one")),
            SanType::URI(text("spiffe://example/two")),
        ]);
        let subject_cn = rcgen::DnType::from_oid(&[2, 5, 4, 3]);
        params.distinguished_name.push(subject_cn, "Zoë");
        let leaf = params.self_signed(&key).expect("a certificate");
        let by = |identity| {
            let clients = ClientCertificates {
                identity,
                subject_prefix: Some("cert:".to_owned()),
                ..ClientCertificates::default()
            };
            identify(&clients, leaf.der())
        };
        assert!(by(None).is_none());
        for (kind, subject) in [
            (ClientIdentity::SanUri, Some("cert:spiffe://example/one")),
            (ClientIdentity::SanDns, Some("cert:a.example")),
            (ClientIdentity::SanEmail, None),
            (ClientIdentity::SubjectCn, Some("cert:Zoë")),
        ] {
            let identity = by(Some(kind)).expect("it identifies");
            assert_eq!(identity.subject(), subject);
            assert_eq!(*identity.source(), Source::Certificate);
            let read = Certificate::parse(leaf.der()).expect("a certificate");
            assert_eq!(identity.expires_at_ms(), Some(read.not_after() * 1000));
            assert_eq!(identity.token_id().map(str::len), Some(64));
        }
    }
}
