//! Trust of commands that are clients: by which certificates a server is known, and what is said of one that is not.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use clap::{Arg, ArgAction, ArgMatches, value_parser};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};
use umbel::internals::http::date::Date;
use umbel::internals::tls::{provider, read_chain};
use umbel::internals::x509::{Certificate, Name};

use super::ending::Refusal;

/// Flags of the one command that runs.
static FLAGS: OnceLock<Flags> = OnceLock::new();

#[derive(Clone, Debug, Default)]
struct Flags {
    ca_file: Option<PathBuf>,
    is_insecure: bool,
}

/// Arguments of a command that may speak TLS.
pub fn arguments() -> Vec<Arg> {
    vec![
        Arg::new("ca")
            .long("ca")
            .env("UMBEL_CA")
            .hide_env(true)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Certificates in PEM by which a server with TLS is known, in place of the system's; or UMBEL_CA"),
        Arg::new("insecure-tls")
            .long("insecure-tls")
            .action(ArgAction::SetTrue)
            .help("Take any certificate of a server with TLS: whoever is on the way can read and change everything"),
    ]
}

/// Takes the flags of the command, if it has them.
pub fn take(matches: &ArgMatches) {
    let ca_file = matches.try_get_one::<PathBuf>("ca").ok().flatten();
    let is_insecure = matches.try_get_one::<bool>("insecure-tls").ok().flatten();
    let _ = FLAGS.set(Flags {
        ca_file: ca_file.cloned(),
        is_insecure: is_insecure.copied().unwrap_or(false),
    });
}

/// Terms of handshakes with servers.
///
/// # Errors
/// The file of `--ca` cannot be read.
pub fn client_config() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let make = || client_config_of(FLAGS.get().unwrap_or(&Flags::default()));
    CONFIG.get_or_init(make).clone()
}

/// As [`client_config`], with a full handshake for every connection.
///
/// # Errors
/// As [`client_config`].
pub fn client_config_without_resumption() -> Result<Arc<ClientConfig>, String> {
    let mut config = ClientConfig::clone(&*client_config()?);
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn client_config_of(flags: &Flags) -> Result<Arc<ClientConfig>, String> {
    let provider = provider();
    let given = match &flags.ca_file {
        Some(path) => read_chain(path).map_err(|error| format!("--ca: {error}"))?,
        None => Vec::new(),
    };
    let mut roots = RootCertStore::empty();
    if flags.ca_file.is_none() && !flags.is_insecure {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    for certificate in &given {
        let added = roots.add(certificate.clone());
        added.map_err(|error| {
            let path = flags.ca_file.as_deref().unwrap_or(Path::new(""));
            format!(
                "--ca: a certificate in {} cannot be used: {error}",
                path.display()
            )
        })?;
    }
    let roots = match roots.is_empty() {
        true => None,
        false => {
            let builder =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            Some(builder.build().map_err(|error| format!("--ca: {error}"))?)
        }
    };
    let verifier = Arc::new(Verifier {
        roots,
        given,
        is_insecure: flags.is_insecure,
        algorithms: provider.signature_verification_algorithms,
    });
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Verifies a server by roots, or by being the very certificate that was given.
#[derive(Debug)]
struct Verifier {
    roots: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates of `--ca`. One that is signed by itself is often a server's own.
    given: Vec<CertificateDer<'static>>,
    is_insecure: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Verifies a server that shows a given certificate: name and times count.
    fn verify_given(
        leaf: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
        let read = Certificate::parse(leaf).map_err(|_| CertificateError::BadEncoding)?;
        match now.as_secs() {
            now if now < read.not_before() => Err(CertificateError::NotValidYet.into()),
            now if now > read.not_after() => Err(CertificateError::Expired.into()),
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = match &self.roots {
            _ if self.is_insecure => Ok(()),
            _ if self.given.contains(end_entity) => {
                Verifier::verify_given(end_entity, server_name, now)
            }
            Some(roots) => roots
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map(drop),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        let verified = verified.map(|()| ServerCertVerified::assertion());
        verified.inspect_err(|error| {
            let text = words(error, &server_name.to_str(), Some(end_entity));
            DISTRUST.with(|told| *told.borrow_mut() = Some(text));
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

thread_local! {
    /// What is wrong with the certificate that this thread saw last. The error of the library does not have it.
    static DISTRUST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// An error of a handshake in words. The thread is the one that made it.
pub fn told(error: &Error, host: &str) -> String {
    let distrust = DISTRUST.with(|told| told.borrow_mut().take());
    match (error, distrust) {
        (Error::InvalidCertificate(_), Some(told)) => told,
        (error, _) => words(error, host, None),
    }
}

/// A failed handshake in words, on the thread that made it.
pub fn explain(error: &io::Error, host: &str) -> Refusal {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    let Some(error) = inner else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Refusal::for_now("the server hung up during the TLS handshake")
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Refusal::for_now("the server did not finish the TLS handshake in time")
            }
            _ => Refusal::for_now(format!("the TLS handshake failed: {error}")),
        };
    };
    Refusal::for_good(told(error, host))
}

/// An error of TLS in words. `leaf`: the certificate that the server showed.
fn words(error: &Error, host: &str, leaf: Option<&CertificateDer<'_>>) -> String {
    let leaf = leaf.and_then(|leaf| Certificate::parse(leaf).ok());
    let at = |seconds: u64| Date::of(seconds).as_str().to_owned();
    match error {
        Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                let end = leaf.map_or(String::new(), |leaf| {
                    format!(" at {}", at(leaf.not_after()))
                });
                format!(
                    "the server's certificate has ended{end}: it must be renewed, unless the clock of this machine is wrong"
                )
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                let begin = leaf.map_or(String::new(), |leaf| {
                    format!(" before {}", at(leaf.not_before()))
                });
                format!(
                    "the server's certificate does not count yet{begin}: is the clock of this machine right?"
                )
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                let names = leaf.map(|leaf| {
                    let names = leaf.names().filter_map(|name| match name {
                        Name::Dns(name) => Some(name),
                        _ => None,
                    });
                    names.take(8).collect::<Vec<_>>().join(", ")
                });
                match names.filter(|names| !names.is_empty()) {
                    Some(names) => format!(
                        "the server's certificate is not for {host}, but for {names}: use that name"
                    ),
                    None => {
                        format!("the server's certificate is not for {host}, and names no host")
                    }
                }
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                let issuer = leaf
                    .and_then(|leaf| leaf.issuer_cn())
                    .unwrap_or("an authority without a name");
                format!(
                    "the server's certificate is of {issuer}, which is not trusted here: name its certificate with --ca FILE, or go \
                     without with --insecure-tls"
                )
            }
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                "the server's certificate is that of an authority, and for no server: name that very file with --ca".to_owned()
            }
            CertificateError::Revoked => "the server's certificate is revoked".to_owned(),
            other => format!("the server's certificate cannot be verified: {other}"),
        },
        Error::InvalidMessage(_) => {
            "the server does not speak TLS on this port: use ws:// or http://".to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server wants a certificate of the client, and there is none".to_owned()
        }
        Error::AlertReceived(
            AlertDescription::UnrecognisedName | AlertDescription::AccessDenied,
        ) => format!("the server has no certificate for {host}"),
        Error::AlertReceived(alert) => {
            format!("the server refused the TLS handshake with the alert {alert:?}")
        }
        error => format!("the TLS handshake failed: {error}"),
    }
}
