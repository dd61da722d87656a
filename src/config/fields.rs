//! Keys of `[[listener]]`, `[[token]]` and `[[topic]]`, as rows of tables.

use super::kind::Kind;
use super::{ClientAuth, ClientIdentity};
use crate::topic::SlowConsumer;
use crate::topic::rule::{
    AGE_RANGE_MS, BYTES_RANGE, HISTORY_AGE_DEFAULT_MS, HISTORY_BYTES_DEFAULT, PUBLICATIONS_RANGE,
};

/// One key of a row of `[[listener]]`, `[[token]]` or `[[topic]]`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
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
    FieldInfo {
        name: "tls",
        kind: Kind::Bool,
        unset: "false",
        example: "",
        is_required: false,
        doc: "Whether it speaks TLS: https:// and wss://. It needs a [[certificate]].",
    },
    FieldInfo {
        name: "trusted_proxies",
        kind: Kind::Texts,
        unset: "[]",
        example: "",
        is_required: false,
        doc: "Proxies that are believed when they tell of their clients, as in trusted_proxies = [\"10.0.0.0/8\", \"unix\"]: \
              networks, addresses, and \"unix\" for peers on unix sockets. Nobody else is. A reload takes these, and the next three.",
    },
    FieldInfo {
        name: "forwarded_header",
        kind: Kind::Choice(super::proxies::FORWARDED_HEADERS),
        unset: "\"x-forwarded-for\"",
        example: "",
        is_required: false,
        doc: "The one header by which trusted proxies tell of the client, as in forwarded_header = \"forwarded\": x-forwarded-for \
              (with X-Forwarded-Proto), forwarded (RFC 7239) or off. The client is the right-most address in it that is no \
              trusted proxy's.",
    },
    FieldInfo {
        name: "forwarded_host",
        kind: Kind::Bool,
        unset: "false",
        example: "",
        is_required: false,
        doc: "Whether trusted proxies also tell which host the client asked, as in forwarded_host = true: by X-Forwarded-Host, or \
              host= of Forwarded, for the rule that a cookie counts for the server's own origin.",
    },
    FieldInfo {
        name: "proxy_protocol",
        kind: Kind::Bool,
        unset: "false",
        example: "",
        is_required: false,
        doc: "Whether each connection begins with a header of the PROXY protocol, version 1 or 2, before TLS and HTTP, as in \
              proxy_protocol = true. From others than trusted_proxies it is closed.",
    },
    FieldInfo {
        name: "client_auth",
        kind: Kind::Choice(ClientAuth::WORDS),
        unset: "\"off\"",
        example: "",
        is_required: false,
        doc: "Whether clients are asked for a certificate, with TLS: off, optional or required. A change of this and of the \
              files below holds for connections after the next reload.",
    },
    FieldInfo {
        name: "client_ca_file",
        kind: Kind::Text,
        unset: "",
        example: "",
        is_required: false,
        doc: "File with the authorities that clients' certificates are verified by, in PEM.",
    },
    FieldInfo {
        name: "client_crl_file",
        kind: Kind::Text,
        unset: "",
        example: "",
        is_required: false,
        doc: "File with lists of clients' certificates that are revoked, in PEM.",
    },
    FieldInfo {
        name: "client_identity",
        kind: Kind::Choice(ClientIdentity::WORDS),
        unset: "",
        example: "",
        is_required: false,
        doc: "Name of a client's certificate that is its subject: san-uri, san-dns, san-email or subject-cn. Without it a \
              certificate only admits.",
    },
    FieldInfo {
        name: "client_subject_prefix",
        kind: Kind::Text,
        unset: "",
        example: "",
        is_required: false,
        doc: "Text before those subjects. Needed where another source names subjects too; \"\" where they are the same users.",
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
    FieldInfo {
        name: "subject",
        kind: Kind::Text,
        unset: "",
        example: "\"backend\"",
        is_required: false,
        doc: "Subject of whoever shows it, for grants, presence and the log.",
    },
    FieldInfo {
        name: "subject_prefix",
        kind: Kind::Text,
        unset: "",
        example: "\"\"",
        is_required: false,
        doc: "Text before the subject. Needed where another source names subjects too; \"\" where they are the same users.",
    },
    FieldInfo {
        name: "expires",
        kind: Kind::Time,
        unset: "",
        example: "",
        is_required: false,
        doc: "End of the token, as in expires = 2027-01-01T00:00:00Z.",
    },
    PUBLISH,
    SUBSCRIBE,
    PRESENCE,
    HISTORY,
    MANAGE,
    DENY_PUBLISH,
    DENY_SUBSCRIBE,
    DENY_PRESENCE,
    DENY_HISTORY,
    DENY_MANAGE,
    OBSERVE,
];

const PUBLISH: FieldInfo = patterns(
    "publish",
    "[\"**\"]",
    "Patterns of topics to publish to. A whole segment may be {sub}, {meta.NAME} or {claim.NAME}.",
);
const SUBSCRIBE: FieldInfo = patterns(
    "subscribe",
    "[\"news/**\"]",
    "Patterns of topics to subscribe to.",
);
const PRESENCE: FieldInfo = patterns(
    "presence",
    "",
    "Patterns of topics whose members may be asked for. Without it those of subscribe.",
);
const HISTORY: FieldInfo = patterns(
    "history",
    "",
    "Patterns of topics whose history may be read without subscribing, as by last=. Without it those of subscribe.",
);
const MANAGE: FieldInfo = patterns(
    "manage",
    "",
    "Patterns of topics that the control API may be used for; [\"**\"] is all of it.",
);
const DENY_PUBLISH: FieldInfo = patterns(
    "deny.publish",
    "",
    "Patterns of topics that are closed to its publications, whatever else allows them.",
);
const DENY_SUBSCRIBE: FieldInfo = patterns(
    "deny.subscribe",
    "[\"news/internal/**\"]",
    "Patterns of topics that are closed to its subscriptions, whatever else allows them.",
);
const DENY_PRESENCE: FieldInfo = patterns(
    "deny.presence",
    "",
    "Patterns of topics whose members may not be asked for.",
);
const DENY_HISTORY: FieldInfo = patterns(
    "deny.history",
    "",
    "Patterns of topics whose history may not be read.",
);
const DENY_MANAGE: FieldInfo = patterns(
    "deny.manage",
    "",
    "Patterns of topics that the control API may not be used for.",
);
const OBSERVE: FieldInfo = FieldInfo {
    name: "observe",
    kind: Kind::Bool,
    unset: "false",
    example: "",
    is_required: false,
    doc: "Whether console, metrics and topics may be seen.",
};

/// Keys of `[[grant]]`.
pub const GRANT_FIELDS: &[FieldInfo] = &[
    condition(
        "when.subject",
        Kind::Bool,
        "true",
        "For all who have signed in with a subject.",
    ),
    condition(
        "when.anonymous",
        Kind::Bool,
        "",
        "For all who showed no credential. Nothing else can stand beside it.",
    ),
    condition(
        "when.source",
        Kind::Text,
        "",
        "For those of one source: the name of a [[token]] or a [[jwt]], or hook, certificate or signed_url.",
    ),
    condition(
        "when.role",
        Kind::Text,
        "",
        "For those whose token has this role.",
    ),
    condition(
        "when.claim",
        Kind::Text,
        "",
        "For those whose token has this claim, with what has says.",
    ),
    condition(
        "when.has",
        Kind::Text,
        "",
        "Text that the claim is, or has in its list.",
    ),
    PUBLISH,
    SUBSCRIBE,
    PRESENCE,
    HISTORY,
    MANAGE,
    DENY_PUBLISH,
    DENY_SUBSCRIBE,
    DENY_PRESENCE,
    DENY_HISTORY,
    DENY_MANAGE,
    OBSERVE,
];

/// Keys of `[[url_key]]`.
pub const URL_KEY_FIELDS: &[FieldInfo] = &[
    FieldInfo {
        name: "kid",
        kind: Kind::Text,
        unset: "",
        example: "\"k1\"",
        is_required: true,
        doc: "Name of the key in URLs: umbel_kid.",
    },
    FieldInfo {
        name: "secret",
        kind: Kind::Secret,
        unset: "",
        example: "{ credential = \"url-key\" }",
        is_required: true,
        doc: "The secret, 32 bytes at least: a string, or { file = \"PATH\" }, { credential = \"NAME\" } or { env = \"NAME\" }.",
    },
    FieldInfo {
        name: "subject_prefix",
        kind: Kind::Text,
        unset: "",
        example: "\"url:\"",
        is_required: false,
        doc: "Text before its subjects. Needed where another source names subjects too; \"\" where they are the same users.",
    },
];

const fn condition(
    name: &'static str,
    kind: Kind,
    example: &'static str,
    doc: &'static str,
) -> FieldInfo {
    FieldInfo {
        name,
        kind,
        unset: "",
        example,
        is_required: false,
        doc,
    }
}

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
        kind: Kind::Flag(&["users", "count"]),
        unset: "false",
        example: "true",
        is_required: false,
        doc: "Whether subscribers are told about each other; \"users\": once for each subject, not for each connection; \
              \"count\": of their number alone.",
    },
    FieldInfo {
        name: "presence_subject",
        kind: Kind::Flag(&["hash"]),
        unset: "false",
        example: "",
        is_required: false,
        doc: "Whether members see each other's subjects, which are often addresses of e-mail; \"hash\": a keyed hash of them.",
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
