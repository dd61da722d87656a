//! Certificates of tests, in memory, and handshakes with them.

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm,
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::*;
use crate::config::{CertificateFiles, Config, TlsVersion};

/// A certificate that is signed by itself, for these names.
fn certificate(names: &[&str], algorithm: &'static SignatureAlgorithm) -> Arc<LoadedCertificate> {
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = CertificateParams::new(names).expect("names of hosts");
    let leaf = params.self_signed(&key).expect("a certificate");
    let files = CertificateFiles::new("a.pem", "a.key");
    let chain = vec![leaf.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS #8");
    Arc::new(LoadedCertificate::of(&files, chain, key).expect("they belong together"))
}

fn ecdsa(names: &[&str]) -> Arc<LoadedCertificate> {
    certificate(names, &PKCS_ECDSA_P256_SHA256)
}

/// The number of the certificate that a handshake for this name gets.
fn chosen(
    certificates: &Certificates,
    name: Option<&str>,
    scheme: SignatureScheme,
) -> Option<usize> {
    let key = certificates.key_for(name, &[scheme])?;
    let all = certificates.all();
    let number = all.iter().position(|of| Arc::ptr_eq(of.key(), &key));
    Some(number.expect("it is one of them"))
}

#[test]
fn certificate_by_name() {
    let loaded = vec![
        ecdsa(&["a.example", "*.a.example"]),
        ecdsa(&["b.example", "*.b.example"]),
        ecdsa(&["x.b.example"]),
    ];
    let certificates = Certificates::new(loaded.clone(), false);
    let by = |name| chosen(&certificates, name, SignatureScheme::ECDSA_NISTP256_SHA256);
    for (name, number) in [
        ("a.example", 0),
        ("b.example", 1),
        ("B.Example", 1),
        ("b.example.", 1),
        ("y.b.example", 1),
        ("x.b.example", 2),
        // A wildcard stands for one label.
        ("z.y.b.example", 0),
        ("c.example", 0),
        (".b.example", 0),
        ("", 0),
    ] {
        assert_eq!(by(Some(name)), Some(number), "{name}");
        let has = !matches!(name, "z.y.b.example" | "c.example" | ".b.example" | "");
        assert!(certificates.has_host(Some(name)));
        certificates.replace(loaded.clone(), true);
        assert_eq!(certificates.has_host(Some(name)), has, "{name}");
        assert_eq!(by(Some(name)), has.then_some(number), "{name}");
        certificates.replace(loaded.clone(), false);
    }
    assert_eq!(by(None), Some(0));
    let long = "a".repeat(300);
    assert_eq!(by(Some(&long)), Some(0));
    certificates.replace(loaded, true);
    assert_eq!(by(None), None);
    certificates.replace(Vec::new(), false);
    assert_eq!(by(Some("a.example")), None);
}

#[test]
fn certificate_by_signature() {
    let loaded = vec![
        ecdsa(&["a.example"]),
        ecdsa(&["b.example"]),
        certificate(&["a.example", "b.example"], &PKCS_RSA_SHA256),
    ];
    let certificates = Certificates::new(loaded, false);
    let (ec, rsa) = (
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::RSA_PSS_SHA256,
    );
    for (name, scheme, number) in [
        (Some("a.example"), ec, 0),
        (Some("a.example"), rsa, 2),
        (Some("b.example"), rsa, 2),
        (Some("c.example"), rsa, 2),
        (None, ec, 0),
        (None, rsa, 2),
        // None fits, which the handshake tells.
        (Some("a.example"), SignatureScheme::ED25519, 0),
    ] {
        assert_eq!(
            chosen(&certificates, name, scheme),
            Some(number),
            "{name:?}"
        );
    }
}

/// Ends of a handshake in memory, after which the client has read `hello` of the server.
pub(super) fn handshake(
    server: &Arc<rustls::ServerConfig>,
    client: &Arc<ClientConfig>,
    host: &str,
) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
    let mut server = ServerConnection::new(Arc::clone(server))?;
    let name = ServerName::try_from(host.to_owned()).expect("a name of a host");
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut is_written = false;
    for _ in 0..16 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            server.read_tls(&mut wire).expect("memory");
            server.process_new_packets()?;
        }
        if !server.is_handshaking() && !is_written {
            server.writer().write_all(b"hello").expect("memory");
            is_written = true;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            client.read_tls(&mut wire).expect("memory");
            client.process_new_packets()?;
        }
    }
    let mut hello = [0; 5];
    client.reader().read_exact(&mut hello).expect("it was sent");
    assert_eq!(&hello, b"hello");
    Ok((server, client))
}

/// A client that trusts this certificate, and offers these versions and protocols.
pub(super) fn client(trusted: &CertificateDer<'static>, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder
        .with_safe_default_protocol_versions()
        .expect("versions");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

#[test]
fn handshakes_by_the_options() {
    let loaded = ecdsa(&["a.example"]);
    let leaf = loaded.key().cert[0].clone();
    let certificates = Arc::new(Certificates::new(vec![loaded], false));
    let config = |versions: &[TlsVersion]| {
        let mut options = TlsOptions::of(&Config::default());
        options.versions = versions.to_vec();
        server_config(&certificates, &options).expect("it can stand")
    };
    let both = config(&TlsVersion::ALL);
    let browser = Arc::new(client(&leaf, &["h2", "http/1.1"]));
    let (server, _) = handshake(&both, &browser, "a.example").expect("it is trusted");
    assert_eq!(server.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(
        server.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    let without_alpn = Arc::new(client(&leaf, &[]));
    handshake(&both, &without_alpn, "a.example").expect("no protocol need be named");
    let h2 = Arc::new(client(&leaf, &["h2"]));
    assert!(handshake(&both, &h2, "a.example").is_err());
    assert!(handshake(&both, &browser, "b.example").is_err());
    let old = config(&[TlsVersion::V1_2]);
    let (server, _) = handshake(&old, &browser, "a.example").expect("both speak 1.2");
    assert_eq!(
        server.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_2)
    );
}

#[test]
fn resumption_by_tickets_of_shared_keys() {
    let loaded = ecdsa(&["a.example"]);
    let leaf = loaded.key().cert[0].clone();
    let certificates = Arc::new(Certificates::new(vec![loaded], false));
    let node = |keys: &[[u8; 80]], version: TlsVersion| {
        let held = tickets::TicketKeys::random();
        held.replace(Some(keys));
        let mut options = TlsOptions::of(&Config::default());
        options.versions = vec![version];
        options.ticket_keys = Some(Arc::new(held));
        server_config(&certificates, &options).expect("it can stand")
    };
    for version in TlsVersion::ALL {
        let client = Arc::new(client(&leaf, &[]));
        let kind = |server: &Arc<rustls::ServerConfig>| {
            let (server, _) = handshake(server, &client, "a.example").expect("it is trusted");
            server.handshake_kind()
        };
        let full = Some(rustls::HandshakeKind::Full);
        let resumed = Some(rustls::HandshakeKind::Resumed);
        let [a, b, c] = [1, 2, 3].map(|digit| [digit; 80]);
        assert_eq!(kind(&node(&[a], version)), full);
        assert_eq!(
            kind(&node(&[a], version)),
            resumed,
            "another node, {version}"
        );
        assert_eq!(kind(&node(&[b, a], version)), resumed, "{version}");
        assert_eq!(kind(&node(&[c], version)), full, "{version}");
    }
}
