//! Keys of `[[listener]]`, `[[token]]` and `[[topic]]`, as rows of tables.

use super::table::Kind;
use crate::topic::SlowConsumer;
use crate::topic::rule::{
    AGE_RANGE_MS, BYTES_RANGE, HISTORY_AGE_DEFAULT_MS, HISTORY_BYTES_DEFAULT, PUBLICATIONS_RANGE,
};

/// One key of a row of `[[listener]]`, `[[token]]` or `[[topic]]`.
#[derive(Clone, Copy, Debug)]
pub struct FieldInfo {
    /// The key.
    pub name: &'static str,
    /// Kind of its value.
    pub kind: Kind,
    /// Value when it is left out, as the file writes it. Empty where there is none.
    pub unset: &'static str,
    /// Value that the sample shows. Empty where it has words alone.
    pub example: &'static str,
    /// Whether every row has it.
    pub is_required: bool,
    /// Meaning, with units and consequences.
    pub doc: &'static str,
}

/// Keys of `[[listener]]`.
pub const LISTENER_FIELDS: &[FieldInfo] = &[
    FieldInfo {
        name: "name",
        kind: Kind::Text,
        unset: "",
        example: "\"public\"",
        is_required: false,
        doc: "Name in the log. Without it a listener is called as its address is.",
    },
    FieldInfo {
        name: "address",
        kind: Kind::Text,
        unset: "",
        example: "\"127.0.0.1:8080\"",
        is_required: true,
        doc: "ADDRESS:PORT, localhost:PORT, unix:PATH, or fd:NAME for what a socket unit of systemd hands over.",
    },
    FieldInfo {
        name: "surface",
        kind: Kind::Choice(&["all", "public", "admin"]),
        unset: "",
        example: "\"all\"",
        is_required: false,
        doc: "Resources that it shows: all, public (no console, figures and lists) or admin (these alone). Without it \
              all, and public where another listener is admin.",
    },
    FieldInfo {
        name: "mode",
        kind: Kind::Text,
        unset: "\"0660\"",
        example: "",
        is_required: false,
        doc: "Permissions of a unix socket, in octal, as in mode = \"0660\".",
    },
    FieldInfo {
        name: "group",
        kind: Kind::Text,
        unset: "",
        example: "",
        is_required: false,
        doc: "Group of a unix socket, by its name or its number, as in group = \"www-data\". The server's user must be in it.",
    },
    FieldInfo {
        name: "ipv6_only",
        kind: Kind::Bool,
        unset: "false",
        example: "",
        is_required: false,
        doc: "Whether an IPv6 address takes no IPv4 peers, which [::] does otherwise.",
    },
];

const fn patterns(name: &'static str, example: &'static str, doc: &'static str) -> FieldInfo {
    FieldInfo {
        name,
        kind: Kind::Texts,
        unset: "",
        example,
        is_required: false,
        doc,
    }
}

/// Keys of `[[token]]`.
pub const TOKEN_FIELDS: &[FieldInfo] = &[
    FieldInfo {
        name: "name",
        kind: Kind::Text,
        unset: "",
        example: "\"backend\"",
        is_required: true,
        doc: "Name in the log.",
    },
    FieldInfo {
        name: "value",
        kind: Kind::Secret,
        unset: "",
        example: "{ credential = \"backend-token\" }",
        is_required: false,
        doc: "The token: a string, or { file = \"PATH\" }, { credential = \"NAME\" } or { env = \"NAME\" }.",
    },
    FieldInfo {
        name: "sha256",
        kind: Kind::Text,
        unset: "",
        example: "",
        is_required: false,
        doc: "In place of the token, its SHA-256 in hexadecimal digits: `umbel token new NAME` prints both.",
    },
    patterns(
        "publish",
        "[\"**\"]",
        "Patterns of topics that it may publish to.",
    ),
    patterns(
        "subscribe",
        "[\"news/**\"]",
        "Patterns of topics that it may subscribe to.",
    ),
    patterns(
        "deny.publish",
        "",
        "Patterns of topics that it may not publish to, whatever the others say.",
    ),
    patterns(
        "deny.subscribe",
        "[\"news/internal/**\"]",
        "Patterns of topics that it may not subscribe to, whatever the others say.",
    ),
    FieldInfo {
        name: "observe",
        kind: Kind::Bool,
        unset: "false",
        example: "",
        is_required: false,
        doc: "Whether it may see the console, metrics and topics.",
    },
];

/// Keys of `[[topic]]`.
pub const TOPIC_FIELDS: &[FieldInfo] = &[
    FieldInfo {
        name: "pattern",
        kind: Kind::Text,
        unset: "",
        example: "\"news/**\"",
        is_required: true,
        doc: "Pattern of the topics: `*` is one segment between / and . and a last `**` one or more.",
    },
    FieldInfo {
        name: "history",
        kind: Kind::Number {
            min: *PUBLICATIONS_RANGE.start(),
            max: *PUBLICATIONS_RANGE.end(),
        },
        unset: "0",
        example: "1000",
        is_required: false,
        doc: "Publications that are kept for recovery.",
    },
    FieldInfo {
        name: "history_bytes_max",
        kind: Kind::Number {
            min: *BYTES_RANGE.start(),
            max: *BYTES_RANGE.end(),
        },
        unset: "\"16MiB\"",
        example: "\"16MiB\"",
        is_required: false,
        doc: "Bytes of those, with what each costs beyond them.",
    },
    FieldInfo {
        name: "history_age_max_ms",
        kind: Kind::Number {
            min: *AGE_RANGE_MS.start(),
            max: *AGE_RANGE_MS.end(),
        },
        unset: "\"5m\"",
        example: "\"5m\"",
        is_required: false,
        doc: "Age of those.",
    },
    FieldInfo {
        name: "keep",
        kind: Kind::Choice(&["all", "latest"]),
        unset: "\"all\"",
        example: "\"all\"",
        is_required: false,
        doc: "Of those, all, or the newest of each key, which come first to whoever subscribes.",
    },
    FieldInfo {
        name: "slow_consumer",
        kind: Kind::Choice(&[
            SlowConsumer::Close.as_str(),
            SlowConsumer::DropOldest.as_str(),
            SlowConsumer::Latest.as_str(),
        ]),
        unset: "\"close\"",
        example: "\"close\"",
        is_required: false,
        doc: "Treatment of a subscriber that reads too slowly: close, drop-oldest or latest.",
    },
    FieldInfo {
        name: "presence",
        kind: Kind::Bool,
        unset: "false",
        example: "true",
        is_required: false,
        doc: "Whether subscribers are told about each other.",
    },
    FieldInfo {
        name: "time",
        kind: Kind::Bool,
        unset: "false",
        example: "true",
        is_required: false,
        doc: "Whether subscribers of umbel.v1 are told when each publication was published.",
    },
];

const _: () = {
    assert!(HISTORY_BYTES_DEFAULT == 16 << 20);
    assert!(HISTORY_AGE_DEFAULT_MS == 5 * 60 * 1000);
};
