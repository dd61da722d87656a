//! Reasons to refuse a token.

use crate::signature::algorithm::Algorithm;
use std::fmt;

/// Reason that a token is refused: the precise one, for log and metric. The peer is told [`description`](Self::description).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtError {
    /// It has more bytes than `token_bytes_max`.
    Length,
    /// It is not three parts with two dots between them.
    Parts,
    /// This part is not base64url as RFC 7515 wants it: no padding, no blank, no bit too many.
    Base64(&'static str),
    /// The header is not what it has to be.
    Header(&'static str),
    /// The header has a parameter that changes what the token means, and is not taken.
    Parameter(&'static str),
    /// The header names an algorithm that is not known, `none` included.
    UnknownAlgorithm,
    /// The header names an algorithm that the issuer is not configured for.
    Algorithm(Algorithm),
    /// The header's `typ` is not `token_type`.
    Type,
    /// The payload has no readable `iss`, so that no issuer can be chosen.
    Payload,
    /// No `[[jwt]]` takes this `iss`.
    UnknownIssuer,
    /// No key of the issuer fits `kid` and algorithm.
    UnknownKey,
    /// It has no `kid`, and several keys fit.
    AmbiguousKey,
    /// No key of the set that was fetched last fits, and a newer set may have one: ask for it, and again.
    KeyNotKnownYet,
    /// There are no keys to judge by.
    KeysUnavailable,
    /// The signature is not that of header and payload.
    Signature,
    /// The claims are not what they have to be.
    Claims(Box<str>),
    /// A claim that `require` names is missing.
    Missing(&'static str),
    /// `aud` names none of `audience`.
    Audience,
    /// `aud` is there, and `audience` is not set.
    UnexpectedAudience,
    /// `iss` is not the issuer's.
    Issuer,
    /// `exp` is over.
    Expired,
    /// `nbf` is to come.
    NotBefore,
    /// `iat` is to come.
    IssuedInFuture,
    /// It lives longer than `life_max_ms`, or does not say for how long.
    Life,
}

impl JwtError {
    /// Name of the check that failed, for log and metric.
    #[must_use]
    pub fn check(&self) -> &'static str {
        match self {
            JwtError::Length => "length",
            JwtError::Parts => "parts",
            JwtError::Base64(_) => "base64",
            JwtError::Header(_) | JwtError::Parameter(_) => "header",
            JwtError::UnknownAlgorithm | JwtError::Algorithm(_) => "alg",
            JwtError::Type => "typ",
            JwtError::Payload => "payload",
            JwtError::UnknownIssuer | JwtError::Issuer => "iss",
            JwtError::UnknownKey | JwtError::AmbiguousKey | JwtError::KeyNotKnownYet => "kid",
            JwtError::KeysUnavailable => "keys",
            JwtError::Signature => "signature",
            JwtError::Claims(_) | JwtError::Missing(_) => "claims",
            JwtError::Audience | JwtError::UnexpectedAudience => "aud",
            JwtError::Expired => "exp",
            JwtError::NotBefore => "nbf",
            JwtError::IssuedInFuture => "iat",
            JwtError::Life => "life",
        }
    }

    /// Words for the peer: whoever guesses learns nothing.
    #[must_use]
    pub fn description(&self) -> &'static str {
        match self {
            JwtError::Expired => "the token has expired",
            JwtError::NotBefore | JwtError::IssuedInFuture => "the token is not valid yet",
            _ => "the token is invalid",
        }
    }

    /// Whether it cannot be judged now: 503, never 401.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        matches!(self, JwtError::KeyNotKnownYet | JwtError::KeysUnavailable)
    }
}

impl fmt::Display for JwtError {
    /// For the operator's log, without any of the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JwtError::Length => f.write_str("it is longer than token_bytes_max"),
            JwtError::Parts => f.write_str("it is not three parts between two dots"),
            JwtError::Base64(part) => write!(f, "its {part} is not base64url without padding"),
            JwtError::Header(problem) => write!(f, "its header {problem}"),
            JwtError::Parameter(name) => {
                write!(f, "its header has `{name}`, which is not taken here")
            }
            JwtError::UnknownAlgorithm => f.write_str("its alg is none that is known here"),
            JwtError::Algorithm(algorithm) => write!(
                f,
                "its alg is {algorithm}, which algorithms does not list, or the key is not for"
            ),
            JwtError::Type => f.write_str("its typ is not token_type"),
            JwtError::Payload => f.write_str("its payload is no JSON object with one iss, or none"),
            JwtError::UnknownIssuer => f.write_str("no [[jwt]] has its issuer"),
            JwtError::UnknownKey => f.write_str("no key of its issuer has its kid and alg"),
            JwtError::AmbiguousKey => f.write_str("it has no kid, and several keys fit"),
            JwtError::KeyNotKnownYet => f.write_str("its kid may be of a key set not fetched yet"),
            JwtError::KeysUnavailable => f.write_str("there are no keys of its issuer now"),
            JwtError::Signature => f.write_str("its signature is wrong"),
            JwtError::Claims(problem) => write!(f, "its claims: {problem}"),
            JwtError::Missing(claim) => write!(f, "it has no {claim}, which require lists"),
            JwtError::Audience => f.write_str("its aud names none of audience"),
            JwtError::UnexpectedAudience => {
                f.write_str("it has an aud, and its [[jwt]] has no audience to compare it with")
            }
            JwtError::Issuer => f.write_str("its iss is not that of its [[jwt]]"),
            JwtError::Expired => f.write_str("its exp is over"),
            JwtError::NotBefore => f.write_str("its nbf is to come"),
            JwtError::IssuedInFuture => f.write_str("its iat is to come"),
            JwtError::Life => f.write_str("it lives longer than life_max_ms, or has no iat or exp"),
        }
    }
}

impl std::error::Error for JwtError {}
