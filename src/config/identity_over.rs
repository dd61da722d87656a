//! Reaction to one connection too many of a subject.

use std::fmt;

/// Reaction to a connection beyond `connections_per_identity_max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdentityOver {
    /// It is refused.
    #[default]
    Refuse,
    /// The subject's oldest connection is closed with 4409 in its place.
    Oldest,
}

impl fmt::Display for IdentityOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IdentityOver::Refuse => "refuse",
            IdentityOver::Oldest => "oldest",
        })
    }
}
