//! The schema of the file, from the table of settings: JSON Schema, draft 2020-12, as editors take it for TOML.

use serde_json::{Map, Value as Json, json};

use crate::config::Reload;
use crate::config::table::{FieldInfo, Kind, SettingInfo, Unset, settings};
use crate::units::Unit;

/// Schema of the configuration file.
pub fn schema() -> Json {
    let mut properties = Map::new();
    for info in settings() {
        let schema = of_setting(&info);
        match info.key.table {
            "" => {
                properties.insert(info.key.name.to_owned(), schema);
            }
            table => {
                let empty =
                    || json!({ "type": "object", "additionalProperties": false, "properties": {} });
                let inside = properties.entry(table).or_insert_with(empty);
                inside["properties"][info.key.name] = schema;
            }
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of umbel serve",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn of_setting(info: &SettingInfo) -> Json {
    let mut schema = match info.kind.fields() {
        Some(fields) => rows(fields),
        None => plain(info.kind, info.unit()),
    };
    schema["description"] = format!(
        "{} A change holds {}.",
        sentence(info.doc),
        effect(info.reload)
    )
    .into();
    match (info.unset, info.kind) {
        (Unset::Number(number), _) => schema["default"] = number.into(),
        (Unset::Value(text), Kind::Bool | Kind::Switch) => {
            schema["default"] = (text == "true").into();
        }
        (Unset::Value(text), Kind::Choice(_)) => schema["default"] = text.into(),
        (Unset::Value(text), Kind::Share) => {
            schema["default"] = text.parse::<f64>().unwrap_or_default().into();
        }
        _ => {}
    }
    schema
}

/// The effect of a change in the words of a sentence.
pub(super) fn effect(reload: Reload) -> &'static str {
    match reload {
        Reload::Live => "from the next reload on",
        Reload::New => "for connections after the next reload",
        Reload::Restart => "from the next start on",
    }
}

/// The text with a full stop at its end.
pub(super) fn sentence(text: &str) -> String {
    match text.ends_with('.') {
        true => text.to_owned(),
        false => format!("{text}."),
    }
}

fn plain(kind: Kind, unit: Unit) -> Json {
    match kind {
        Kind::Number { min, max } => {
            let number = json!({ "type": "integer", "minimum": min, "maximum": max });
            let suffixes: Vec<_> = unit.names().collect();
            let pattern = match suffixes.is_empty() {
                true => "^[0-9]+$".to_owned(),
                false => format!("^[0-9]+({})?$", suffixes.join("|")),
            };
            json!({ "anyOf": [number, { "type": "string", "pattern": pattern }] })
        }
        Kind::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Kind::Bool | Kind::Switch => json!({ "type": "boolean" }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::Flag(words) => {
            json!({ "anyOf": [{ "type": "boolean" }, { "type": "string", "enum": words }] })
        }
        Kind::Secret => secret(),
        Kind::Time => json!({ "type": "string", "format": "date-time" }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        _ => json!({ "type": "string" }),
    }
}

fn secret() -> Json {
    let place = |name: &str| {
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": [name],
            "properties": { name: { "type": "string", "minLength": 1 } },
        })
    };
    json!({ "anyOf": [{ "type": "string", "minLength": 1 }, place("file"), place("credential"), place("env")] })
}

fn rows(fields: &[FieldInfo]) -> Json {
    let mut properties = Map::new();
    for field in fields {
        let mut schema = plain(field.kind, Unit::of_setting(field.name));
        schema["description"] = field.doc.into();
        match field.name.split_once('.') {
            None => properties.insert(field.name.to_owned(), schema),
            Some((table, name)) => {
                let empty =
                    || json!({ "type": "object", "additionalProperties": false, "properties": {} });
                let inside = properties.entry(table).or_insert_with(empty);
                inside["properties"][name] = schema;
                None
            }
        };
    }
    let required = fields.iter().filter(|field| field.is_required);
    let required: Vec<_> = required.map(|field| field.name).collect();
    json!({
        "type": "array",
        "items": {
            "type": "object",
            "additionalProperties": false,
            "required": required,
            "properties": properties,
        },
    })
}
