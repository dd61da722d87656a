//! `Umbel-Signature`: by which an application knows that a request is the server's.

use std::fmt::Write;

use aws_lc_rs::hmac;

use crate::config::Secret;

/// Name of the header.
pub const HEADER: &str = "Umbel-Signature";

/// Keys that sign, each its own `v1=`: while one replaces another, an application that knows either finds its own.
pub struct Signer {
    keys: Box<[hmac::Key]>,
}

impl Signer {
    /// Signs by these secrets, the newest first.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Signer {
        let key = |secret: &Secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        Signer {
            keys: secrets.into_iter().map(key).collect(),
        }
    }

    /// Value of the header for a body: `t=SECONDS,v1=HEX`, of HMAC-SHA256 over `SECONDS.BODY`. None without a secret.
    pub fn sign(&self, now_s: u64, body: &[u8]) -> Option<String> {
        if self.keys.is_empty() {
            return None;
        }
        let mut value = format!("t={now_s}");
        for key in &self.keys {
            let mut context = hmac::Context::with_key(key);
            context.update(now_s.to_string().as_bytes());
            context.update(b".");
            context.update(body);
            value.push_str(",v1=");
            for byte in context.sign().as_ref() {
                // Writing to a text does not fail.
                let _ = write!(value, "{byte:02x}");
            }
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of `openssl dgst -sha256 -hmac KEY` over `1800000000.{}`.
    #[test]
    fn signature_is_hmac_sha_256_over_time_and_body() {
        let secret = Secret::from("umbel-test-secret-0123456789abcdef");
        let previous = Secret::from("an older secret, 0123456789abcdef");
        let both = Signer::new([&secret, &previous]);
        let one = Signer::new([&secret]).sign(1_800_000_000, b"{}");
        let one = one.expect("there is a secret");
        assert_eq!(one, EXPECTED);
        let both = both.sign(1_800_000_000, b"{}").expect("there are secrets");
        assert!(both.starts_with(&format!("{one},v1=")), "{both}");
        assert_eq!(both.len(), one.len() + ",v1=".len() + 64);
        assert_eq!(Signer::new([]).sign(0, b""), None);
    }

    const EXPECTED: &str =
        "t=1800000000,v1=7758f051c382550921b6ad3af9c34912d965ff74aa4db05588fdd879f77880fa";
}
