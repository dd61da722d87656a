//! Settings of limits that are no numbers.

use super::Reload;
use super::kind::Kind;
use super::setting_info::{Key, PLAIN, SettingInfo, Unset, heading};

const fn limit(name: &'static str, doc: &'static str) -> SettingInfo {
    SettingInfo {
        name,
        key: Key {
            table: "limits",
            name,
        },
        heading: heading::LIMITS,
        reload: Reload::Live,
        doc,
        is_advanced: true,
        ..PLAIN
    }
}

/// The settings, in the order of the help. They stand in the table of the limits.
pub const LIMIT_SETTINGS: &[SettingInfo] = &[
    SettingInfo {
        kind: Kind::Texts,
        example: "[\"10.0.0.0/8\"]",
        value_name: "NETWORK",
        ..limit(
            "limit_exempt",
            "A network, or an address, that no limit by address holds for, such as 10.0.0.0/8; repeat it, or separate by commas",
        )
    },
    SettingInfo {
        kind: Kind::Choice(&["refuse", "oldest"]),
        unset: Unset::Value("refuse"),
        value_name: "HOW",
        ..limit(
            "connections_per_identity_over",
            "Beyond connections_per_identity_max: refuse the new connection, or close the oldest of the subject with 4409: oldest",
        )
    },
    SettingInfo {
        kind: Kind::Bool,
        unset: Unset::Value("false"),
        value_name: "BOOL",
        ..limit(
            "limits_dry_run",
            "Count and log what the limits by address, rate and identity would refuse, and let it pass: true or false",
        )
    },
];
