//! Signatures: algorithms, keys, and sets of keys. No clock, no socket.
//!
//! Names of algorithms are always there; keys are behind the feature `jwt`.

pub mod algorithm;
#[cfg(feature = "jwt")]
pub mod jwk;
#[cfg(feature = "jwt")]
pub mod keys;

/// Bytes of the name of a key.
pub const KID_BYTES_MAX: usize = 256;
