//! Sets of keys as JSON (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::KID_BYTES_MAX;
use super::algorithm::{Algorithm, Family};
use super::keys::{KEYS_MAX, Key, PublicParts};

/// Bytes of a set of keys.
pub const KEY_SET_BYTES_MAX: usize = 1 << 20;

/// Keys of a set that fit, and what is wrong with others.
#[derive(Default)]
pub struct ReadKeys {
    /// Keys that fit.
    pub keys: Vec<Key>,
    /// Warnings: keys that are no public keys, and names that stand twice.
    pub warnings: Vec<String>,
    /// Number of keys that were passed over: of another kind, use or algorithm.
    pub passed_over: usize,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// A key. Members that are not read are those of private keys and of certificates.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Reads a set. Keys that do not fit `algorithms` are passed over.
///
/// # Errors
/// It is no set of keys, is too long, or has too many.
pub fn read_key_set(text: &[u8], algorithms: &[Algorithm]) -> Result<ReadKeys, String> {
    if text.len() > KEY_SET_BYTES_MAX {
        return Err("it has over 1 MiB".to_owned());
    }
    let set: Set = serde_json::from_slice(text).map_err(|error| {
        format!("it is no set of keys, a JSON object with a list of keys in it: {error}")
    })?;
    if set.keys.len() > KEYS_MAX {
        let count = set.keys.len();
        return Err(format!("it has {count} keys, and may have {KEYS_MAX}"));
    }
    let mut read = ReadKeys::default();
    for (index, value) in set.keys.into_iter().enumerate() {
        match Jwk::deserialize(value) {
            // A secret that others can fetch is none.
            Ok(jwk) if jwk.kty == "oct" => {
                let kid = jwk.kid.as_deref().unwrap_or("").escape_debug().to_string();
                read.warnings.push(format!(
                    "key {index} (kid \"{kid}\") is a secret, and is not used: secrets stand in `secret`"
                ));
            }
            Ok(jwk) => match jwk.to_key(algorithms) {
                Some(key) => read.take(key),
                None => read.passed_over += 1,
            },
            Err(_) => read.passed_over += 1,
        }
    }
    Ok(read)
}

impl ReadKeys {
    fn take(&mut self, key: Key) {
        if let Some(kid) = key.kid()
            && self.keys.iter().any(|other| other.kid() == Some(kid))
        {
            let kid = kid.escape_debug();
            self.warnings
                .push(format!("there are several keys with the kid \"{kid}\""));
        }
        self.keys.push(key);
    }
}

impl Jwk {
    /// The key, for those algorithms that it is for. None: it is for none of them, or broken.
    fn to_key(&self, algorithms: &[Algorithm]) -> Option<Key> {
        if self.r#use.as_deref().is_some_and(|it| it != "sig") {
            return None;
        }
        let is_verify = |operation: &String| operation == "verify";
        if self
            .key_ops
            .as_ref()
            .is_some_and(|it| !it.iter().any(is_verify))
        {
            return None;
        }
        if self
            .kid
            .as_ref()
            .is_some_and(|kid| kid.len() > KID_BYTES_MAX)
        {
            return None;
        }
        let family = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", None) => Family::Rsa,
            ("EC", Some("P-256")) => Family::P256,
            ("EC", Some("P-384")) => Family::P384,
            ("OKP", Some("Ed25519")) => Family::Ed25519,
            _ => return None,
        };
        let fits = |algorithm: &&Algorithm| {
            algorithm.family() == family
                && self
                    .alg
                    .as_deref()
                    .is_none_or(|alg| alg == algorithm.name())
        };
        let algorithms: Vec<Algorithm> = algorithms.iter().filter(fits).copied().collect();
        if algorithms.is_empty() {
            return None;
        }
        let kid = self.kid.as_deref().map(Box::from);
        let field = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let sized = |text, bytes| field(text).filter(|it| it.len() == bytes);
        let point = |bytes| {
            let (x, y) = (sized(&self.x, bytes)?, sized(&self.y, bytes)?);
            Some([&[4][..], &x, &y].concat())
        };
        let point = match family {
            Family::Hmac => return None,
            Family::Rsa => {
                let (n, e) = (field(&self.n)?, field(&self.e)?);
                let parts = PublicParts::Rsa(without_zeros(&n), without_zeros(&e));
                return Key::from_parts(kid, &parts, &algorithms);
            }
            Family::P256 => point(32)?,
            Family::P384 => point(48)?,
            Family::Ed25519 => sized(&self.x, 32)?,
        };
        Key::from_parts(kid, &PublicParts::Point(&point), &algorithms)
    }
}

/// A number without zeros in front, which some write.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
