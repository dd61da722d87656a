//! Keys that verify signatures, and sets of them.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    VerificationAlgorithm,
};
use rustls_pki_types::pem::{PemObject, SectionKind};

use super::algorithm::{Algorithm, Family};

/// Keys of one set.
pub const KEYS_MAX: usize = 100;

/// A key, with what it may be used for.
pub struct Key {
    kid: Option<Box<str>>,
    /// Milliseconds since 1970 from which on it verifies nothing. None: it has no end.
    until_ms: Option<u64>,
    /// One for each algorithm that the key is for, and that is configured.
    verifiers: Vec<(Algorithm, Verifier)>,
}

enum Verifier {
    Secret(Box<hmac::Key>),
    Public(Box<ParsedPublicKey>),
}

impl Verifier {
    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            // In constant time.
            Verifier::Secret(key) => hmac::verify(key, signed, signature).is_ok(),
            Verifier::Public(key) => key.verify_sig(signed, signature).is_ok(),
        }
    }
}

/// The other form of a public key's parts, as keys in JSON have them.
pub(super) enum PublicParts<'p> {
    /// Modulus and exponent.
    Rsa(&'p [u8], &'p [u8]),
    /// A point, as `04 x y`, or the 32 bytes of Ed25519.
    Point(&'p [u8]),
}

impl Key {
    /// A secret of both sides.
    #[must_use]
    pub fn secret(secret: &[u8], algorithms: &[Algorithm]) -> Key {
        let hash_of = |algorithm| match algorithm {
            Algorithm::Hs256 => Some(hmac::HMAC_SHA256),
            Algorithm::Hs384 => Some(hmac::HMAC_SHA384),
            Algorithm::Hs512 => Some(hmac::HMAC_SHA512),
            _ => None,
        };
        let verifiers = algorithms.iter().filter_map(|&algorithm| {
            let key = hmac::Key::new(hash_of(algorithm)?, secret);
            Some((algorithm, Verifier::Secret(Box::new(key))))
        });
        Key {
            kid: None,
            until_ms: None,
            verifiers: verifiers.collect(),
        }
    }

    /// Ends the key at a time in milliseconds since 1970.
    #[must_use]
    pub fn until_ms(mut self, until_ms: Option<u64>) -> Key {
        self.until_ms = until_ms;
        self
    }

    /// The public key of a PEM text, in the form of SPKI (RFC 5280).
    ///
    /// # Errors
    /// Problem and remedy.
    pub fn from_pem(pem: &[u8], algorithms: &[Algorithm]) -> Result<Key, String> {
        let mut sections = Section::pem_slice_iter(pem);
        let (first, second) = (sections.next(), sections.next());
        let Section(kind, der) = match (first, second) {
            (None, _) => return Err(format!("it holds no {PUBLIC_FORM}")),
            (Some(Err(_)), _) => return Err("it is a PEM text that is broken".to_owned()),
            (Some(Ok(section)), None) => section,
            (Some(_), Some(_)) => {
                return Err("it holds more than one key: use jwks_file for several".to_owned());
            }
        };
        match kind {
            SectionKind::PublicKey => {}
            SectionKind::Certificate => {
                let remedy = "take its public key with `openssl x509 -pubkey -noout`";
                return Err(format!("it is a certificate: {remedy}"));
            }
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                let remedy =
                    "it stays with its owner; write the public one with `openssl pkey -pubout`";
                return Err(format!("it is a private key: {remedy}"));
            }
            _ => return Err(format!("it is no {PUBLIC_FORM}")),
        }
        let family = family_of(&der)?;
        let (fit, other): (Vec<Algorithm>, Vec<Algorithm>) =
            algorithms.iter().partition(|it| it.family() == family);
        if let Some(other) = other.first() {
            let needs = key_words(other.family());
            let has = key_words(family);
            return Err(format!("{other} needs {needs}, and this is {has}"));
        }
        let mut verifiers = Vec::new();
        for algorithm in fit {
            let (_, parameters) = parameters_of(algorithm).ok_or("it is no key for signatures")?;
            let key = ParsedPublicKey::new(parameters, &der).map_err(|_| "the key is broken")?;
            verifiers.push((algorithm, Verifier::Public(Box::new(key))));
        }
        Ok(Key {
            kid: None,
            until_ms: None,
            verifiers,
        })
    }

    /// A public key by its parts, for these algorithms of its family. None: it is no key that can be used.
    pub(super) fn from_parts(
        kid: Option<Box<str>>,
        parts: &PublicParts<'_>,
        algorithms: &[Algorithm],
    ) -> Option<Key> {
        let mut verifiers = Vec::new();
        for &algorithm in algorithms {
            let (rsa, parameters) = parameters_of(algorithm)?;
            let key = match (parts, rsa) {
                (PublicParts::Rsa(n, e), Some(rsa)) => {
                    let bits = 8 * n.len() - n.first()?.leading_zeros() as usize;
                    if !RSA_BITS.contains(&bits) {
                        return None;
                    }
                    let components = aws_lc_rs::signature::RsaPublicKeyComponents { n, e };
                    components.to_parsed_public_key(rsa).ok()?
                }
                (PublicParts::Point(point), None) => {
                    ParsedPublicKey::new(parameters, point).ok()?
                }
                _ => return None,
            };
            verifiers.push((algorithm, Verifier::Public(Box::new(key))));
        }
        Some(Key {
            kid,
            until_ms: None,
            verifiers,
        })
    }

    /// Name that tokens call it by.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    fn verifier(&self, algorithm: Algorithm, now_ms: u64) -> Option<&Verifier> {
        if self.until_ms.is_some_and(|until| until <= now_ms) {
            return None;
        }
        let mut verifiers = self.verifiers.iter();
        verifiers.find_map(|(own, verifier)| (*own == algorithm).then_some(verifier))
    }
}

/// Form of public keys, and how they get it.
const PUBLIC_FORM: &str = "public key that begins with BEGIN PUBLIC KEY: write it with `openssl pkey -pubout`, or with \
                           `openssl rsa -RSAPublicKey_in -pubout` if it begins with BEGIN RSA PUBLIC KEY";

/// Bits of an RSA modulus.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A section of a PEM text: its kind, and its bytes.
struct Section(SectionKind, Vec<u8>);

impl PemObject for Section {
    fn from_pem(kind: SectionKind, der: Vec<u8>) -> Option<Section> {
        Some(Section(kind, der))
    }
}

/// Parameters of an algorithm with public keys; those of RSA have a type of their own beside.
fn parameters_of(
    algorithm: Algorithm,
) -> Option<(
    Option<&'static RsaParameters>,
    &'static dyn VerificationAlgorithm,
)> {
    let rsa: &'static RsaParameters = match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 => return Some((None, &ECDSA_P256_SHA256_FIXED)),
        Algorithm::Es384 => return Some((None, &ECDSA_P384_SHA384_FIXED)),
        Algorithm::EdDsa => return Some((None, &ED25519)),
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => return None,
    };
    Some((Some(rsa), rsa))
}

fn family_of(spki: &[u8]) -> Result<Family, String> {
    if PublicEncryptingKey::from_der(spki).is_ok() {
        return Ok(Family::Rsa);
    }
    let single = [Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa];
    let fits = |algorithm: &Algorithm| {
        parameters_of(*algorithm).is_some_and(|(_, it)| ParsedPublicKey::new(it, spki).is_ok())
    };
    let algorithm = single.into_iter().find(fits);
    algorithm.map(Algorithm::family).ok_or_else(|| {
        "it is no key of RSA with 2048 to 8192 bits, of P-256, of P-384, or of Ed25519".to_owned()
    })
}

fn key_words(family: Family) -> &'static str {
    match family {
        Family::Hmac => "a secret",
        Family::Rsa => "a key of RSA",
        Family::P256 => "a key of P-256",
        Family::P384 => "a key of P-384",
        Family::Ed25519 => "a key of Ed25519",
    }
}

/// Reason that no key of a set verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// None has this name and algorithm.
    Unknown,
    /// There is no name, and several fit.
    Ambiguous,
    /// The signature is wrong.
    Signature,
}

/// Keys of one issuer, as they were at one time.
pub struct KeySet {
    generation: u64,
    keys: Vec<Key>,
}

impl KeySet {
    /// A set of keys. `generation`: another for each set that an issuer has had.
    #[must_use]
    pub fn new(generation: u64, keys: Vec<Key>) -> KeySet {
        KeySet { generation, keys }
    }

    /// Number of the set among those that its issuer has had.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Keys in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a key has this name.
    #[must_use]
    pub fn has_kid(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid() == Some(kid))
    }

    /// Verifies a signature, and gives the end of the key. Keys without a name are for every `kid`.
    ///
    /// # Errors
    /// No key fits, several do, or the signature is wrong.
    pub fn verify(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        (signed, signature): (&[u8], &[u8]),
        now_ms: u64,
    ) -> Result<Option<u64>, KeyError> {
        let are_named = self.keys.iter().any(|key| key.kid.is_some());
        let is_meant = |key: &&Key| match kid {
            Some(kid) if are_named => key.kid() == Some(kid),
            _ => true,
        };
        let fitting = self.keys.iter().filter(is_meant);
        let fitting: Vec<(&Key, &Verifier)> = fitting
            .filter_map(|key| Some((key, key.verifier(algorithm, now_ms)?)))
            .take(2)
            .collect();
        match fitting[..] {
            [] => Err(KeyError::Unknown),
            [_, _] if are_named && kid.is_none() => Err(KeyError::Ambiguous),
            // Two are a secret and the one before it, or keys of one name.
            _ => {
                let mut fitting = fitting.iter();
                let found = fitting.find(|(_, verifier)| verifier.verifies(signed, signature));
                found
                    .map(|(key, _)| key.until_ms)
                    .ok_or(KeyError::Signature)
            }
        }
    }
}

impl fmt::Debug for KeySet {
    /// Names alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids = self.keys.iter().map(Key::kid);
        write!(f, "KeySet {} ", self.generation)?;
        f.debug_list().entries(kids).finish()
    }
}
