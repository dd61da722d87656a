//! Settings of the hook, and of the server's own requests.

use super::kind::Kind;
use super::setting_info::{Key, PLAIN, SettingInfo, Unset, heading};

const fn hook(name: &'static str, key: &'static str, doc: &'static str) -> SettingInfo {
    SettingInfo {
        name,
        key: Key {
            table: "hook",
            name: key,
        },
        heading: heading::HOOK,
        kind: Kind::Text,
        value_name: "TEXT",
        doc,
        is_advanced: true,
        ..PLAIN
    }
}

/// Settings of the hook.
pub const HOOK_SETTINGS: &[SettingInfo] = &[
    SettingInfo {
        example: "\"http://127.0.0.1:9000/umbel\"",
        value_name: "URL",
        is_advanced: false,
        ..hook(
            "hook_url",
            "url",
            "URL of the application that decides: https, http to a near host, or unix:SOCKET:PATH. The event stands behind it",
        )
    },
    SettingInfo {
        kind: Kind::Texts,
        example: "[\"connect\", \"subscribe\"]",
        unset: Unset::Words("connect"),
        value_name: "EVENT",
        ..hook(
            "hook_events",
            "events",
            "Events that it is asked about, or told of: connect, refresh, subscribe, publish, disconnected",
        )
    },
    SettingInfo {
        kind: Kind::Number {
            min: 50,
            max: 60_000,
        },
        unset: Unset::Number(2000),
        value_name: "MS",
        ..hook(
            "hook_timeout_ms",
            "timeout_ms",
            "Time for an answer. Without one what was asked for is refused",
        )
    },
    SettingInfo {
        kind: Kind::Texts,
        example: "[\"authorization\", \"user-agent\"]",
        value_name: "NAME",
        ..hook(
            "hook_headers",
            "headers",
            "Headers of the peer's request that are handed on, in lower case. They are what the peer says",
        )
    },
    SettingInfo {
        kind: Kind::Secret,
        example: "{ file = \"/etc/umbel/hook-secret\" }",
        ..hook(
            "hook_secret",
            "secret",
            "Secret that signs requests, as Umbel-Signature; best set in a file",
        )
    },
    SettingInfo {
        kind: Kind::Secret,
        example: "{ file = \"/etc/umbel/hook-secret.old\" }",
        ..hook(
            "hook_secret_previous",
            "secret_previous",
            "Secret before that one, which signs too until every application knows the new one",
        )
    },
    SettingInfo {
        kind: Kind::Texts,
        example: "[\"rooms/**\"]",
        value_name: "PATTERN",
        ..hook(
            "hook_topics",
            "topics",
            "Patterns of topics about which it is asked before somebody subscribes or publishes. Its word allows; a deny still wins",
        )
    },
    SettingInfo {
        kind: Kind::Number {
            min: 0,
            max: 86_400_000,
        },
        unset: Unset::Number(0),
        value_name: "MS",
        ..hook(
            "hook_cache_ms",
            "cache_ms",
            "Time that it is not asked again about a subscription of the same subject to the same topic",
        )
    },
    SettingInfo {
        example: "\"/etc/umbel/ca.pem\"",
        value_name: "FILE",
        ..hook(
            "hook_ca_file",
            "ca_file",
            "Certificates in PEM that are trusted for https instead of the system's",
        )
    },
    SettingInfo {
        example: "\"app:\"",
        ..hook(
            "hook_subject_prefix",
            "subject_prefix",
            "Text before the subjects that it names. Needed, be it empty, where something else names subjects too",
        )
    },
    SettingInfo {
        kind: Kind::Bool,
        unset: Unset::Value("false"),
        value_name: "BOOL",
        ..hook(
            "hook_may_manage",
            "may_manage",
            "Whether it may give the rights to manage and to observe: true or false",
        )
    },
    SettingInfo {
        key: Key {
            table: "",
            name: "outgoing_proxy",
        },
        example: "\"http://proxy:3128\"",
        value_name: "URL",
        ..hook(
            "outgoing_proxy",
            "outgoing_proxy",
            "HTTP proxy for the server's own requests. None is taken from the environment",
        )
    },
];
