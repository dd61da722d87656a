//! Settings of TLS, and keys of `[[certificate]]`.

use super::Reload;
use super::fields::FieldInfo;
use super::kind::Kind;
use super::setting_info::{Key, PLAIN, SettingInfo, Unset, heading};

const fn tls(name: &'static str, reload: Reload, doc: &'static str) -> SettingInfo {
    SettingInfo {
        name,
        key: Key { table: "", name },
        heading: heading::TLS,
        reload,
        doc,
        is_advanced: true,
        ..PLAIN
    }
}

/// Settings of TLS.
pub const TLS_SETTINGS: &[SettingInfo] = &[
    SettingInfo {
        kind: Kind::Certificates,
        value_name: "FILE,KEY_FILE",
        is_advanced: false,
        ..tls(
            "certificate",
            Reload::Live,
            "Files of a certificate, with those that lead to a root, and of its key, in PEM; repeat it, or separate by ; The \
             first one is for peers that name no host, or one that no certificate has",
        )
    },
    SettingInfo {
        kind: Kind::Bool,
        unset: Unset::Value("false"),
        value_name: "BOOL",
        ..tls(
            "sni_strict",
            Reload::Live,
            "Refuse handshakes that name no host, or one that no certificate has: true or false",
        )
    },
    SettingInfo {
        example: "\"/etc/umbel/tls/tickets\"",
        unset: Unset::Words("random keys"),
        value_name: "FILE",
        ..tls(
            "tls_ticket_key_file",
            Reload::Live,
            "File of the keys of tickets that all nodes share, of 80 bytes each; the first encrypts, all decrypt",
        )
    },
    SettingInfo {
        kind: Kind::Texts,
        unset: Unset::Words("1.2 and 1.3"),
        example: "[\"1.3\"]",
        value_name: "VERSION",
        ..tls(
            "tls_versions",
            Reload::New,
            "Versions of TLS, of 1.2 and 1.3; repeat it, or separate by commas",
        )
    },
    SettingInfo {
        kind: Kind::Choice(&["own", "rustls"]),
        unset: Unset::Value("own"),
        value_name: "WHOSE",
        ..tls(
            "tls_records",
            Reload::New,
            "Who seals and opens records behind the handshake: own, which takes a fraction of the memory and sends in batches, or rustls, for the careful",
        )
    },
    SettingInfo {
        kind: Kind::Number { min: 0, max: 1024 },
        unset: Unset::Words("one for every four reactors, at least one"),
        example: "1",
        value_name: "COUNT",
        ..tls(
            "tls_threads",
            Reload::Restart,
            "Threads that answer TLS hellos. 0: each reactor answers its own, tls_handshakes_per_tick_max in a tick",
        )
    },
    SettingInfo {
        kind: Kind::Number {
            min: 0,
            max: 63_072_000,
        },
        unset: Unset::Number(0),
        value_name: "SECONDS",
        ..tls(
            "hsts_max_age",
            Reload::Live,
            "Seconds for which browsers come by https alone: Strict-Transport-Security in answers over TLS. 0: it is left out",
        )
    },
    SettingInfo {
        kind: Kind::Bool,
        unset: Unset::Value("false"),
        value_name: "BOOL",
        ..tls(
            "redirect_to_https",
            Reload::Live,
            "Answer requests on public TCP listeners without TLS with 308 to the first one with TLS, and WebSockets with 426: \
             true or false",
        )
    },
    SettingInfo {
        example: "\"/var/lib/umbel/acme\"",
        value_name: "DIRECTORY",
        ..tls(
            "acme_webroot",
            Reload::Live,
            "Directory in which an ACME client puts .well-known/acme-challenge/TOKEN. Listeners without TLS serve these files",
        )
    },
];

/// Keys of `[[certificate]]`.
pub const CERTIFICATE_FIELDS: &[FieldInfo] = &[
    FieldInfo {
        name: "certificate_file",
        kind: Kind::Text,
        unset: "",
        example: "\"/etc/umbel/tls/fullchain.pem\"",
        is_required: true,
        doc: "File with the certificate in PEM, and behind it those that lead to a root.",
    },
    FieldInfo {
        name: "key_file",
        kind: Kind::Text,
        unset: "",
        example: "\"/etc/umbel/tls/privkey.pem\"",
        is_required: true,
        doc: "File with its private key in PEM, not encrypted.",
    },
];
