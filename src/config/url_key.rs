//! Keys of signed topic URLs: `[[url_key]]`.

use std::fmt;

use super::Secret;

/// Most keys of signed URLs.
pub const URL_KEYS_MAX: usize = 64;

/// Bytes of the longest `kid`.
pub const KID_BYTES_MAX: usize = 64;

/// Fewest bytes of a secret: as many as the hash has (RFC 2104 section 3).
const SECRET_BYTES_MIN: usize = 32;

/// A key that signs URLs of topics. Its secret stands in the configuration file alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UrlKey {
    /// Name in the URL: 1 to 64 letters, digits and `-_`.
    pub kid: String,
    /// The secret: 32 bytes at least.
    pub secret: Secret,
    /// Text before the subjects that it names. Needed where another source names subjects too.
    pub subject_prefix: Option<String>,
}

impl UrlKey {
    /// A key by its name and its secret.
    pub fn new(kid: impl Into<String>, secret: Secret) -> UrlKey {
        UrlKey {
            kid: kid.into(),
            secret,
            subject_prefix: None,
        }
    }

    /// Whether it can stand.
    ///
    /// # Errors
    /// Problem and remedy.
    pub fn check(&self) -> Result<(), String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !(1..=KID_BYTES_MAX).contains(&self.kid.len()) || !self.kid.bytes().all(is_plain) {
            return Err(format!(
                "a kid has 1 to {KID_BYTES_MAX} letters, digits, and -_"
            ));
        }
        match self.secret.expose().len() {
            bytes if bytes < SECRET_BYTES_MIN => Err(format!(
                "the secret has {bytes} bytes, and needs {SECRET_BYTES_MIN}: `openssl rand -hex 32` makes one"
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for UrlKey {
    /// Its name alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kid)
    }
}
