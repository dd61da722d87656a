//! JSON web tokens (RFC 7515, 7519). Bytes and the time in, a verdict out.
//!
//! A token is judged in this order: length, dots, header, issuer by the unverified `iss`, algorithm, key, signature, and
//! only then its claims. Reading needs no cryptography; verifying is behind the feature `jwt`.

#[cfg(feature = "jwt")]
pub mod cache;
pub mod claims;
pub mod compact;
pub mod error;
#[cfg(feature = "jwt")]
pub mod issuer;
pub mod json;
pub mod numeric_date;
#[cfg(feature = "jwt")]
pub mod remote;
pub mod rights_claims;
pub mod rules;
#[cfg(feature = "jwt")]
pub mod source;
