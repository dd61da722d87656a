//! Rates and shares: how much an address, an identity, a connection and the process may ask for.
//!
//! - [`bucket`]: one rate, as GCRA has it
//! - [`table`]: buckets and counts by key, bounded
//! - [`networks`]: keys of addresses, and those that are exempt
//! - [`gate`]: bounds on connections by address
//! - [`pace`]: rates of what one connection sends
//! - [`refusals`]: counts and log lines of what was refused

pub mod bucket;
pub mod gate;
pub mod networks;
pub mod pace;
pub mod refusals;
pub mod table;

impl Limit {
    /// Whether it bounds the connections of an address.
    pub const fn is_of_address(self) -> bool {
        matches!(self, Limit::AddressConnections | Limit::AddressConnects)
    }
}

/// Declares the limits with their labels.
macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $limit:ident = $label:literal,)+) => {
        /// A limit that refuses, ends or slows down.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Limit {
            $($(#[doc = $doc])+ $limit,)+
        }

        impl Limit {
            /// All of them.
            pub const ALL: &'static [Limit] = &[$(Limit::$limit),+];

            /// Name of its setting, and its label.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Limit::$limit => $label,)+
                }
            }
        }
    };
}

limits! {
    /// Connections of one address.
    AddressConnections = "connections_per_address_max",
    /// Rate of connections from one address.
    AddressConnects = "connects_per_address_per_second",
    /// Connections of the process.
    Connections = "connections_max",
    /// Rate of new connections of the process.
    Handshakes = "handshakes_per_second",
    /// Rate of messages on one connection.
    Messages = "messages_per_connection_per_second",
    /// Rate of bytes on one connection.
    Bytes = "bytes_per_connection_per_second",
    /// Rate of publishes of one identity.
    Publishes = "publishes_per_identity_per_second",
    /// Connections of one identity.
    IdentityConnections = "connections_per_identity_max",
    /// Rate of wrong tokens from one address.
    AuthFailures = "auth_failures_per_address_per_minute",
    /// Subscriptions of one connection.
    Subscriptions = "subscriptions_max",
    /// Topics with subscribers.
    Topics = "topics_max",
    /// Memory of the process.
    Memory = "memory_budget_bytes",
    /// Age of a connection.
    Age = "connection_age_max_ms",
    /// Nothing but trusted proxies may connect: not a number, and no setting of its own.
    UntrustedProxy = "untrusted_proxy",
}
