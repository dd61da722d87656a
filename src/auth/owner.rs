//! Owners of rights and of denies.

use std::fmt;

use super::identity::Source;

/// Owner of a right or of a deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'p> {
    /// The credential of this source.
    Own(&'p Source),
    /// A setting that is `anyone`.
    Setting,
    /// The grant of this number, from 1.
    Grant(usize),
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Own(Source::Token(name)) => write!(f, "the token {name}"),
            Owner::Own(Source::Jwt(name)) => write!(f, "the token of {name}"),
            Owner::Own(Source::Certificate) => f.write_str("the certificate"),
            Owner::Own(Source::SignedUrl(_)) => f.write_str("the signed URL"),
            Owner::Own(Source::Hook | Source::Program | Source::Anonymous) => {
                f.write_str("the application")
            }
            Owner::Setting => f.write_str("a setting that is anyone"),
            Owner::Grant(number) => write!(f, "grant {number}"),
        }
    }
}
