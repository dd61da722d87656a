//! Records against rustls: what one seals the other opens, in both versions and all suites, and what is changed is refused.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    SupportedCipherSuite, SupportedProtocolVersion,
};
use rustls_pki_types::{PrivateKeyDer, ServerName};

use super::*;

/// A client of rustls, and the server's keys of its connection.
struct Peers {
    client: ClientConnection,
    sealer: Keys,
    opener: Incoming,
}

fn certificate() -> (
    Vec<rustls_pki_types::CertificateDer<'static>>,
    PrivateKeyDer<'static>,
) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    (vec![made.cert.der().clone()], key)
}

fn peers(suite: SupportedCipherSuite, version: &'static SupportedProtocolVersion) -> Peers {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![suite],
        ..aws_lc_rs::default_provider()
    });
    let (chain, key) = certificate();
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).expect("a root");
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    config.enable_secret_extraction = true;
    config.send_tls13_tickets = 0;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
    let mut server = ServerConnection::new(Arc::new(config)).expect("a server");
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("memory");
            server.process_new_packets().expect("a handshake");
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets().expect("a handshake");
        }
    }
    let record_version = match suite {
        SupportedCipherSuite::Tls12(_) => RecordVersion::Tls12,
        SupportedCipherSuite::Tls13(_) => RecordVersion::Tls13,
    };
    let secrets = server.dangerous_extract_secrets().expect("it is enabled");
    Peers {
        client,
        sealer: Keys::new(record_version, secrets.tx).expect("a suite"),
        opener: Incoming::new(Keys::new(record_version, secrets.rx).expect("a suite")),
    }
}

/// One of each suite that rustls has.
fn all() -> Vec<Peers> {
    let suites = aws_lc_rs::ALL_CIPHER_SUITES.iter().filter(|suite| {
        // The key of the tests' certificate is of an elliptic curve.
        !format!("{:?}", suite.suite()).contains("RSA")
    });
    let peers = suites.map(|suite| match suite {
        SupportedCipherSuite::Tls12(_) => peers(*suite, &rustls::version::TLS12),
        SupportedCipherSuite::Tls13(_) => peers(*suite, &rustls::version::TLS13),
    });
    peers.collect()
}

impl Peers {
    /// What the client sends when it writes this.
    fn sent(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.client.set_buffer_limit(None);
        self.client.writer().write_all(plaintext).expect("memory");
        let mut wire = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut wire).expect("memory");
        }
        wire
    }

    /// What the client reads of these records.
    fn read(&mut self, mut records: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut plaintext = Vec::new();
        while !records.is_empty() {
            self.client.read_tls(&mut records).expect("memory");
            self.client.process_new_packets()?;
            let _ = self.client.reader().read_to_end(&mut plaintext);
        }
        Ok(plaintext)
    }
}

#[test]
fn sealed_records_are_read_by_rustls() {
    let mut suites = 0;
    for mut peers in all() {
        let mut out = Vec::new();
        let long = vec![7; FRAGMENT_BYTES_MAX];
        for pieces in [&[&b"one"[..], b"", b"two"][..], &[&long[..]], &[b"x"]] {
            let sealed = peers.sealer.seal_alone(Content::Data, pieces, &mut out);
            sealed.expect("a record");
        }
        let too_long = vec![7; FRAGMENT_BYTES_MAX + 1];
        let refused = peers
            .sealer
            .seal_alone(Content::Data, &[&too_long], &mut out);
        assert_eq!(refused, Err(Fatal::RECORD_OVERFLOW));
        let read = peers.read(&out).expect("good records");
        assert!(read == [b"onetwo", &long[..], b"x"].concat());
        out.clear();
        let sealed = peers
            .sealer
            .seal_alone(Content::Alert, &[&[1, 0]], &mut out);
        sealed.expect("close_notify");
        peers.read(&out).expect("a good record");
        let end = peers.client.reader().read(&mut [0]).expect("an end");
        assert_eq!(end, 0, "by close_notify");
        suites += 1;
    }
    assert!(suites >= 6, "{suites}");
}

#[test]
fn records_of_rustls_are_opened() {
    for mut peers in all() {
        let plaintext: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let mut wire = peers.sent(&plaintext);
        let (mut at, mut read) = (0, Vec::new());
        while at < wire.len() {
            let rest = &mut wire[at..];
            // A record that is not whole waits.
            let part = peers.opener.take(&mut None, &mut rest[..20]);
            assert_eq!(part, Ok((0, Step::Partial)));
            let (length, step) = peers.opener.take(&mut None, rest).expect("a good record");
            let Step::Data(place) = step else {
                panic!("{step:?}");
            };
            read.extend_from_slice(&rest[place]);
            at += length;
        }
        assert!(read == plaintext);
        peers.client.send_close_notify();
        let mut wire = peers.sent(b"");
        let closed = peers
            .opener
            .take(&mut None, &mut wire)
            .expect("a good record");
        assert_eq!(closed, (wire.len(), Step::Closed));
    }
}

#[test]
fn changed_records_are_refused() {
    for mut peers in all() {
        let wire = peers.sent(b"hello");
        let first = peers.opener.keys.sequence;
        for at in 0..wire.len() {
            let mut changed = wire.clone();
            changed[at] ^= 1;
            let refused = match peers.opener.take(&mut None, &mut changed) {
                Ok((0, Step::Partial)) => true,
                Ok(_) => false,
                Err(_) => true,
            };
            // The minor version of a record of 1.3 is to be passed over (RFC 8446 section 5.1).
            let is_13 = peers.opener.version() == RecordVersion::Tls13;
            let is_version = at == 2 && is_13;
            assert!(refused || is_version, "byte {at}");
            // The first that fails ends a connection; here each is to be the first.
            peers.opener.keys.sequence = first;
        }
    }
}

#[test]
fn a_nonce_is_used_once() {
    for mut peers in all() {
        let mut nonces = HashSet::new();
        for round in 0..500 {
            let nonce = peers.sealer.nonce();
            let mut out = Vec::new();
            match round % 5 {
                // Also where nothing comes of it.
                4 => {
                    let too_long = vec![0; FRAGMENT_BYTES_MAX + 1];
                    let refused = peers
                        .sealer
                        .seal_alone(Content::Data, &[&too_long], &mut out);
                    assert!(refused.is_err() && out.is_empty());
                }
                _ => {
                    let sealed = peers.sealer.seal_alone(Content::Data, &[b"x"], &mut out);
                    sealed.expect("a record");
                    assert!(nonces.insert(nonce), "twice");
                }
            }
        }
    }
}

#[test]
fn a_key_ends_before_its_numbers() {
    let mut peers = peers_13();
    assert!(!peers.sealer.is_worn());
    peers.sealer.sequence = (1 << 24) - 4;
    let mut out = Vec::new();
    for _ in 0..4 {
        let sealed = peers.sealer.seal_alone(Content::Data, &[b"x"], &mut out);
        sealed.expect("a record");
    }
    assert!(peers.sealer.is_worn());
    let length = out.len();
    let refused = peers.sealer.seal_alone(Content::Data, &[b"x"], &mut out);
    assert_eq!(refused, Err(Fatal::INTERNAL_ERROR));
    assert_eq!(out.len(), length, "nothing leaves that is not encrypted");
}

/// What an opener makes of records that its own peer sealed so.
fn of_records(records: &[(Content, &[u8])]) -> Result<Vec<Step>, Fatal> {
    let mut sealer = peers_13().sealer;
    let mut wire = Vec::new();
    let mut incoming = Incoming::new(sealer.twin());
    for (content, bytes) in records {
        sealer
            .seal_alone(*content, &[bytes], &mut wire)
            .expect("a record");
    }
    let (mut at, mut steps) = (0, Vec::new());
    while at < wire.len() {
        let (length, step) = incoming.take(&mut None, &mut wire[at..])?;
        steps.push(step);
        at += length;
    }
    Ok(steps)
}

fn peers_13() -> Peers {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384;
    peers(suite, &rustls::version::TLS13)
}

#[test]
fn meaning_of_records() {
    let update = |wants_answer| Step::KeyUpdate { wants_answer };
    let of = |records: &[(Content, &[u8])]| of_records(records);
    let (handshake, alert) = (Content::Handshake, Content::Alert);
    assert_eq!(
        of(&[(handshake, &[24, 0, 0, 1, 1])]),
        Ok(vec![update(true)])
    );
    let split: [(Content, &[u8]); 3] = [
        (handshake, &[24]),
        (handshake, &[0, 0, 1]),
        (handshake, &[0]),
    ];
    assert_eq!(
        of(&split),
        Ok(vec![Step::Nothing, Step::Nothing, update(false)])
    );
    assert_eq!(of(&[(alert, &[2, 40])]), Ok(vec![Step::Ended(40)]));
    assert_eq!(of(&[(alert, &[1, 90])]), Ok(vec![Step::Nothing]));
    assert_eq!(of(&[(alert, &[2, 90])]), Ok(vec![Step::Ended(90)]));
    assert_eq!(of(&[(Content::Data, &[])]), Ok(vec![Step::Nothing]));
    for (records, fatal) in [
        (
            &[(handshake, &[24, 0, 0, 1, 2][..])][..],
            Fatal::ILLEGAL_PARAMETER,
        ),
        (
            &[(handshake, &[24, 0, 0, 1, 1, 24])],
            Fatal::UNEXPECTED_MESSAGE,
        ),
        (&[(handshake, &[1, 0, 0, 1, 1])], Fatal::UNEXPECTED_MESSAGE),
        (&[(handshake, &[])], Fatal::UNEXPECTED_MESSAGE),
        (
            &[(Content::ChangeCipherSpec, &[1])],
            Fatal::UNEXPECTED_MESSAGE,
        ),
        (&[(handshake, &[24, 0, 0, 2, 0, 0])], Fatal::DECODE_ERROR),
        (&[(handshake, &[24, 0, 0, 0])], Fatal::DECODE_ERROR),
        (
            &[(handshake, &[24, 0]), (handshake, &[1])],
            Fatal::DECODE_ERROR,
        ),
        (&[(alert, &[])], Fatal::UNEXPECTED_MESSAGE),
        (&[(alert, &[2])], Fatal::DECODE_ERROR),
        (&[(alert, &[3, 0])], Fatal::ILLEGAL_PARAMETER),
        (
            &[(handshake, &[24]), (Content::Data, b"x")],
            Fatal::UNEXPECTED_MESSAGE,
        ),
        (&[(Content::Data, &[][..]); 33], Fatal::UNEXPECTED_MESSAGE),
    ] {
        assert_eq!(of(records), Err(fatal), "{records:?}");
    }
    assert!(of(&[(Content::Data, &[][..]); 32]).is_ok());
}

#[test]
fn padding_takes_its_part_of_a_record() {
    let mut peers = peers_13();
    let mut of = |content: usize, padding: usize| {
        let mut inner = vec![7; content];
        inner.push(Content::Data as u8);
        inner.resize(inner.len() + padding, 0);
        let mut incoming = Incoming::new(peers.sealer.twin());
        let mut record = peers.sealer.seal_inner(&inner);
        incoming.take(&mut None, &mut record).map(|(_, step)| step)
    };
    for (content, padding) in [(1, 0), (1, 16_383), (16_000, 384), (16_384, 0)] {
        let place = HEAD_BYTES..HEAD_BYTES + content;
        assert_eq!(of(content, padding), Ok(Step::Data(place)));
    }
    assert_eq!(of(0, 16_384), Ok(Step::Nothing));
    for (content, padding) in [(0, 16_385), (1, 16_384), (16_384, 1), (16_385, 0)] {
        let refused = of(content, padding);
        assert_eq!(refused, Err(Fatal::RECORD_OVERFLOW), "{content} {padding}");
    }
}

#[test]
fn heads_of_records() {
    let of = |bytes: &[u8]| record_length(bytes, RecordVersion::Tls13);
    assert_eq!(of(b"\x17\x03\x03\x00"), Ok(None));
    assert_eq!(of(b"\x17\x03\x03\x00\x20"), Ok(Some(37)));
    assert_eq!(of(b"\x17\x03\x03\x41\x00"), Ok(Some(5 + 16_640)));
    assert_eq!(of(b"\x17\x03\x03\x41\x01"), Err(Fatal::RECORD_OVERFLOW));
    assert_eq!(of(b"\x16\x03\x03\x00\x20"), Err(Fatal::UNEXPECTED_MESSAGE));
    assert_eq!(of(b"GET / HTTP"), Err(Fatal::UNEXPECTED_MESSAGE));
    assert_eq!(of(b"\x17\x02\x03\x00\x20"), Err(Fatal::DECODE_ERROR));
    let mut incoming = peers_13().opener;
    let short = incoming.take(&mut None, &mut [0x17, 3, 3, 0, 3, 1, 2, 3]);
    assert_eq!(short, Err(Fatal::BAD_RECORD_MAC));
}
