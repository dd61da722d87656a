//! Settings of the access log, and of figures of topics.

use super::Reload;
use super::kind::Kind;
use super::setting_info::{Key, PLAIN, SettingInfo, Unset, heading};

const fn of_log(name: &'static str, doc: &'static str) -> SettingInfo {
    SettingInfo {
        name,
        key: Key { table: "log", name },
        heading: heading::LOGGING,
        reload: Reload::New,
        doc,
        ..PLAIN
    }
}

/// The settings, in the order of the help.
pub const LOG_SETTINGS: &[SettingInfo] = &[
    SettingInfo {
        kind: Kind::Choice(&["off", "errors", "all"]),
        unset: Unset::Value("off"),
        value_name: "WHICH",
        ..of_log(
            "access_log",
            "Connections that the log tells of: off; errors, the ends for a fault of the peer; or all, openings and ends of a \
             sample besides",
        )
    },
    SettingInfo {
        kind: Kind::Share,
        unset: Unset::Value("0.01"),
        value_name: "SHARE",
        ..of_log(
            "access_log_sample",
            "Share of connections that --access-log all tells of, from 0 to 1; one is told of whole or not at all",
        )
    },
    SettingInfo {
        name: "metrics_topics",
        key: Key {
            table: "",
            name: "metrics_topics",
        },
        heading: heading::LOGGING,
        kind: Kind::Texts,
        example: "[\"orders/**\"]",
        value_name: "PATTERN",
        doc: "A pattern of topics that /metrics has figures of, all of its topics together; repeat it, or separate by commas, 32 \
              at most. A topic counts for the first that matches",
        is_advanced: true,
        ..PLAIN
    },
];
