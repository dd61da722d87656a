//! Names of settings, and the nearest to an unknown one.

use crate::config::table::{SettingInfo, settings};
pub use crate::nearest::nearest;

/// The name in small letters and with underscores, as settings are called.
pub fn plain(name: &str) -> String {
    name.trim_start_matches('-')
        .to_lowercase()
        .replace('-', "_")
}

/// Place of a key that is none of `table`.
pub fn place_tip(table: &str, name: &str) -> Option<String> {
    if let Some(info) = settings().find(|info| info.key.name == name || info.name == name) {
        let key = info.key;
        return Some(match (key.table, info.kind) {
            (_, kind) if kind.fields().is_some() => format!("; write [[{key}]], one for each"),
            ("", _) if !table.is_empty() => {
                format!(": {} stands outside of tables, above the first", key.name)
            }
            (inside, _) if inside != table => format!(": write {} in [{inside}]", key.name),
            _ => format!(": did you mean \"{}\"?", key.name),
        });
    }
    let has_field = |info: &SettingInfo| {
        let mut fields = info.kind.fields().unwrap_or_default().iter();
        fields.any(|field| field.name == name)
    };
    let rows: Vec<_> = settings()
        .filter(has_field)
        .map(|info| format!("[[{}]]", info.key))
        .collect();
    (!rows.is_empty()).then(|| format!(": {name} is a key of {}", rows.join(" and of ")))
}
