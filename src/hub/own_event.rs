//! Events of the server's own, and their names on event streams.

/// Beginning of all other names that are kept for the server.
pub const OWN_EVENT_PREFIX: &str = "umbel";

/// An event of the server's own on event streams. No publication may have its name, for readers act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnEvent {
    /// A binary payload, in base64.
    Binary,
    /// The reader's identity has ended, and the stream with it.
    Expired,
    /// What came before does not follow.
    Gap,
    /// The stream is refused for now.
    Unavailable,
}

impl OwnEvent {
    /// All of them.
    pub const ALL: [OwnEvent; 4] = [
        OwnEvent::Binary,
        OwnEvent::Expired,
        OwnEvent::Gap,
        OwnEvent::Unavailable,
    ];

    /// Its name: the type of the event.
    pub const fn name(self) -> &'static str {
        match self {
            OwnEvent::Binary => "binary",
            OwnEvent::Expired => "expired",
            OwnEvent::Gap => "gap",
            OwnEvent::Unavailable => "unavailable",
        }
    }
}

/// Whether an event is the server's own by its name.
pub fn is_own_event(name: &str) -> bool {
    name.starts_with(OWN_EVENT_PREFIX) || OwnEvent::ALL.iter().any(|own| own.name() == name)
}
