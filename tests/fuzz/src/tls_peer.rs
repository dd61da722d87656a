//! A peer over TLS: a handshake with rustls that is the same every time, and records that are sealed and opened by RFC 8446,
//! RFC 5288 and RFC 7905 alone.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use aws_lc_rs::hkdf;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, default_provider};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, DigitallySignedStruct, Error,
    ExtractedSecrets, KeyLog, NamedGroup, ServerConfig, ServerConnection, SignatureAlgorithm,
    SignatureScheme, SupportedCipherSuite,
};

/// Bytes of a record's head.
const HEAD: usize = 5;

const TAG: usize = 16;

/// What stands for all that a handshake draws, signs and agrees on: it costs nothing, and is the same every time.
#[derive(Debug)]
struct Fixed;

impl SecureRandom for Fixed {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        bytes.fill(7);
        Ok(())
    }
}

impl SupportedKxGroup for Fixed {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(Fixed))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Fixed {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, Error> {
        Ok(SharedSecret::from(&[7; 32][..]))
    }

    fn pub_key(&self) -> &[u8] {
        &[7; 32]
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl SigningKey for Fixed {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Fixed))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Fixed {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(vec![7; 64])
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chain = vec![CertificateDer::from(vec![0x30, 0])];
        Some(Arc::new(CertifiedKey::new(chain, Arc::new(Fixed))))
    }
}

impl ServerCertVerifier for Fixed {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

thread_local! {
    /// Traffic secrets of the client and of the server.
    static TRAFFIC: RefCell<[Vec<u8>; 2]> = RefCell::default();
}

#[derive(Debug)]
struct Log;

impl KeyLog for Log {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let index = match label {
            "CLIENT_TRAFFIC_SECRET_0" => 0,
            "SERVER_TRAFFIC_SECRET_0" => 1,
            _ => return,
        };
        TRAFFIC.with_borrow_mut(|traffic| traffic[index] = secret.to_vec());
    }
}

type Configs = (Arc<ServerConfig>, Arc<ClientConfig>);

fn configs(suite: SupportedCipherSuite) -> Configs {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![suite],
        kx_groups: vec![&Fixed],
        secure_random: &Fixed,
        ..default_provider()
    });
    let versions = &[suite.version()];
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("its version")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Fixed));
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("its version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Fixed))
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    client.key_log = Arc::new(Log);
    (Arc::new(server), Arc::new(client))
}

/// A handshake that is done: the server of rustls, and the keys.
pub struct Agreed {
    pub server: ServerConnection,
    /// As the server sees them.
    pub secrets: ExtractedSecrets,
    pub suite: SupportedCipherSuite,
    /// Of TLS 1.3: the traffic secrets of client and server.
    pub traffic: [Vec<u8>; 2],
}

impl Agreed {
    /// One of a suite, by any number.
    pub fn new(number: u8) -> Agreed {
        static ALL: OnceLock<Vec<(SupportedCipherSuite, Configs)>> = OnceLock::new();
        let all = ALL.get_or_init(|| {
            let is_usable =
                |suite: &&SupportedCipherSuite| !format!("{:?}", suite.suite()).contains("RSA");
            let suites = ALL_CIPHER_SUITES.iter().filter(is_usable);
            suites.map(|suite| (*suite, configs(*suite))).collect()
        });
        let (suite, (server, client)) = &all[usize::from(number) % all.len()];
        let name = ServerName::try_from("localhost").expect("a name");
        let mut server = ServerConnection::new(Arc::clone(server)).expect("a server");
        let mut client = ClientConnection::new(Arc::clone(client), name).expect("a client");
        while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
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
        let ExtractedSecrets { tx, rx } = client.dangerous_extract_secrets().expect("enabled");
        Agreed {
            server,
            secrets: ExtractedSecrets { tx: rx, rx: tx },
            suite: *suite,
            traffic: TRAFFIC.take(),
        }
    }

    /// Keys by which the client seals, and by which it opens.
    pub fn peer(&self) -> (Keys, Keys) {
        let of = |(number, secrets): &(u64, ConnectionTrafficSecrets), traffic: &Vec<u8>| {
            let (algorithm, key, iv) = match secrets {
                ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
                ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
                ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                    (&CHACHA20_POLY1305, key, iv)
                }
                _ => unreachable!("a suite of rustls"),
            };
            let key = UnboundKey::new(algorithm, key.as_ref()).expect("a key");
            Keys {
                key: LessSafeKey::new(key),
                algorithm,
                iv: iv.as_ref().try_into().expect("an IV"),
                number: *number,
                traffic: self.suite.tls13().map(|_| traffic.clone()),
            }
        };
        (
            of(&self.secrets.rx, &self.traffic[0]),
            of(&self.secrets.tx, &self.traffic[1]),
        )
    }
}

/// Keys of one direction.
pub struct Keys {
    key: LessSafeKey,
    algorithm: &'static Algorithm,
    iv: [u8; 12],
    number: u64,
    /// Of TLS 1.3.
    traffic: Option<Vec<u8>>,
}

impl Keys {
    pub fn is_13(&self) -> bool {
        self.traffic.is_some()
    }

    /// Bytes of a nonce that stand in the record.
    fn explicit(&self) -> usize {
        match self.is_13() || std::ptr::eq(self.algorithm, &CHACHA20_POLY1305) {
            true => 0,
            false => 8,
        }
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, of_number) in nonce[4..].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= of_number;
        }
        nonce
    }

    fn additional(&self, head: [u8; HEAD], plaintext: usize) -> Vec<u8> {
        match self.is_13() {
            true => head.to_vec(),
            false => {
                let length = (plaintext as u16).to_be_bytes();
                [&self.number.to_be_bytes(), &head[..3], &length].concat()
            }
        }
    }

    /// One record of any content, with any padding in TLS 1.3. Its length is told as far as two bytes go.
    pub fn seal(&mut self, content: u8, bytes: &[u8], padding: usize) -> Vec<u8> {
        let mut inner = bytes.to_vec();
        let mut shown = content;
        if self.is_13() {
            inner.push(content);
            inner.resize(inner.len() + padding, 0);
            shown = 23;
        }
        let nonce = self.nonce();
        let explicit = &nonce[12 - self.explicit()..];
        let [high, low] = ((explicit.len() + inner.len() + TAG) as u16).to_be_bytes();
        let head = [shown, 3, 3, high, low];
        let mut record = [&head, explicit].concat();
        let data = Aad::from(self.additional(head, inner.len()));
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce, data, &mut inner)
            .expect("memory");
        record.extend_from_slice(&inner);
        self.number += 1;
        record
    }

    /// Opens all records of these bytes: each content and its bytes. What is not whole stays.
    pub fn open(&mut self, wire: &mut Vec<u8>) -> Vec<(u8, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(head) = wire.first_chunk::<HEAD>().copied() {
            let end = HEAD + usize::from(u16::from_be_bytes([head[3], head[4]]));
            if wire.len() < end {
                break;
            }
            let mut record: Vec<u8> = wire.drain(..end).collect();
            let from = HEAD + self.explicit();
            let mut nonce = self.nonce();
            nonce[12 - self.explicit()..].copy_from_slice(&record[HEAD..from]);
            let data = Aad::from(self.additional(head, end - from - TAG));
            let nonce = Nonce::assume_unique_for_key(nonce);
            let opened = self.key.open_in_place(nonce, data, &mut record[from..]);
            let mut bytes = opened.expect("the server's next record").to_vec();
            self.number += 1;
            let content = match self.is_13() {
                true => bytes.pop().expect("it is not padded"),
                false => head[0],
            };
            if self.is_13() && content == 22 {
                assert_eq!(bytes, [24, 0, 0, 1, 0]);
                self.update();
            }
            all.push((content, bytes));
        }
        all
    }

    /// The next keys.
    pub fn update(&mut self) {
        let traffic = self.traffic.as_ref().expect("TLS 1.3");
        let hash = match traffic.len() {
            32 => hkdf::HKDF_SHA256,
            _ => hkdf::HKDF_SHA384,
        };
        let traffic = expand(hash, traffic, "traffic upd", traffic.len());
        let key = expand(hash, &traffic, "key", self.algorithm.key_len());
        let iv = expand(hash, &traffic, "iv", 12);
        let key = UnboundKey::new(self.algorithm, &key).expect("a key");
        self.key = LessSafeKey::new(key);
        self.iv = iv[..].try_into().expect("an IV");
        self.number = 0;
        self.traffic = Some(traffic);
    }
}

/// HKDF-Expand-Label of RFC 8446, without a context.
fn expand(hash: hkdf::Algorithm, secret: &[u8], label: &str, length: usize) -> Vec<u8> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let label = format!("tls13 {label}");
    let info: [&[u8]; 4] = [
        &(length as u16).to_be_bytes(),
        &[label.len() as u8],
        label.as_bytes(),
        &[0],
    ];
    let mut out = vec![0; length];
    let key = hkdf::Prk::new_less_safe(hash, secret);
    let expanded = key.expand(&info, Length(length)).expect("a short one");
    expanded.fill(&mut out).expect("its length");
    out
}
