//! Tokens and signatures of other servers' clients, as identities of this one.
//!
//! Bytes and the time in, a verdict out, as for the server's own tokens. The endpoint says which of them is meant; nothing
//! is guessed from a token.

pub mod centrifugo;
pub mod mercure;
#[cfg(feature = "jwt")]
pub mod pusher;

use serde_json::value::RawValue;

use super::identity::{INFO_BYTES_MAX, META_BYTES_MAX};
use super::jwt::error::JwtError;
use super::jwt::json::handed_on;

/// A refusal of claims, without their text.
fn refused(problem: &str) -> JwtError {
    JwtError::Claims(problem.into())
}

/// JSON that presence shows.
fn info_of(raw: &RawValue) -> Result<Option<Box<RawValue>>, JwtError> {
    handed_on(raw, INFO_BYTES_MAX).map_err(|problem| refused(&format!("info {problem}")))
}

/// JSON that only the server sees.
fn meta_of(raw: &RawValue) -> Result<Option<Box<RawValue>>, JwtError> {
    handed_on(raw, META_BYTES_MAX).map_err(|problem| refused(&format!("meta {problem}")))
}
