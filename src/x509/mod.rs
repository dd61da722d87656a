//! Certificates of X.509 (RFC 5280), as far as the server reads them itself: validity, names and keys.
//!
//! Nothing is verified here; that is for the TLS library. A certificate comes from files of the operator, or from a peer
//! behind a verified chain. Every read is bounded by the bytes there are, and allocates nothing.

pub mod certificate;
pub mod der;
pub mod time;

pub use certificate::{Certificate, Key, Name};
pub use der::DerError;
