//! Presence on the topics of a rule: who counts, and what others see of them.

use std::fmt;

/// Members of a topic, as its subscribers are told of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceOf {
    /// Each connection.
    #[default]
    Connections,
    /// Each subject, from its first connection to its last. A connection without one is a member of its own.
    Users,
    /// Their number alone.
    Count,
}

/// View that others have of a member's subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceSubject {
    /// Nothing.
    #[default]
    Hidden,
    /// The subject.
    Shown,
    /// A keyed hash of it: the same for all connections of one subject, and nothing to guess it by.
    Hashed,
}

impl PresenceOf {
    /// Presence that a rule's word stands for. The inner None: there is none.
    pub(super) fn parse(word: &str) -> Option<Option<PresenceOf>> {
        match word {
            "on" => Some(Some(PresenceOf::Connections)),
            "users" => Some(Some(PresenceOf::Users)),
            "count" => Some(Some(PresenceOf::Count)),
            "off" => Some(None),
            _ => None,
        }
    }
}

impl fmt::Display for PresenceOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PresenceOf::Connections => "on",
            PresenceOf::Users => "users",
            PresenceOf::Count => "count",
        })
    }
}

impl PresenceSubject {
    pub(super) fn parse(word: &str) -> Option<PresenceSubject> {
        match word {
            "off" => Some(PresenceSubject::Hidden),
            "on" => Some(PresenceSubject::Shown),
            "hash" => Some(PresenceSubject::Hashed),
            _ => None,
        }
    }
}

impl fmt::Display for PresenceSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PresenceSubject::Hidden => "off",
            PresenceSubject::Shown => "on",
            PresenceSubject::Hashed => "hash",
        })
    }
}
