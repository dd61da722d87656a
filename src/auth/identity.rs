//! Identity: what a request showed of its sender.

use std::fmt;

use sha2::{Digest, Sha256};

use super::embedder::Judged;

/// Sender of a request, or opener of a connection.
///
/// It borrows the request only where the embedding program judges by that.
#[derive(Debug)]
pub struct Identity<'a> {
    source: Source<'a>,
}

/// Source of an identity. A credential of another kind is another source.
#[derive(Debug)]
pub enum Source<'a> {
    /// Nobody: there was no credential.
    Anonymous,
    /// Nobody: what was shown is no credential of this server. It may what is open to everybody.
    Unknown,
    /// Nobody: the `Authorization` that was shown is of another scheme than `Bearer`. As good as unknown.
    OtherScheme,
    /// The configuration, which has this token.
    Token(TokenDigest),
    /// The embedding program, which is asked about each action with the request.
    Embedder(Judged<'a>),
}

impl<'a> Identity<'a> {
    /// That of a request without a credential.
    pub const ANONYMOUS: Identity<'static> = Identity::new(Source::Anonymous);

    /// That of a request whose credential nobody knows.
    pub const UNKNOWN: Identity<'static> = Identity::new(Source::Unknown);

    /// One that this source vouches for.
    pub const fn new(source: Source<'a>) -> Identity<'a> {
        Identity { source }
    }

    /// Source of the identity.
    pub const fn source(&self) -> &Source<'a> {
        &self.source
    }
}

/// A token without the token: its SHA-256.
///
/// Two of them can be compared as any bytes are: how long that takes tells nothing of the tokens.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// That of this token.
    pub fn of(token: &str) -> TokenDigest {
        TokenDigest(Sha256::digest(token).into())
    }
}

impl From<[u8; 32]> for TokenDigest {
    fn from(digest: [u8; 32]) -> TokenDigest {
        TokenDigest(digest)
    }
}

impl TokenDigest {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenDigest {
    /// The first bytes, by which a log tells tokens apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_sha_256_and_name_tokens_in_a_log() {
        // FIPS 180-4, the example of one block.
        let digest = TokenDigest::of("abc");
        assert_eq!(format!("{digest:?}"), "ba7816bf");
        assert_eq!(digest.0[31], 0xad);
        assert_ne!(digest, TokenDigest::of("abd"));
    }
}
