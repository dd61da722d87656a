//! Settings in force, each with its source.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use umbel::config::file::{Source, Values};
use umbel::config::table::settings;

/// Value of a setting, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    value: String,
    is_set: bool,
    source: String,
    key: String,
    reload: String,
}

/// Settings that a server goes by, in words, with secrets as `set`.
#[derive(Clone, Debug)]
pub struct InForce(BTreeMap<&'static str, Held>);

impl InForce {
    /// Those of these values.
    pub fn of(values: &Values) -> InForce {
        let held = settings().map(|info| {
            let source = values.source(info.name);
            let held = Held {
                value: values.words(&info),
                is_set: !matches!(source, Source::Unset),
                source: source.to_string(),
                key: info.key.to_string(),
                reload: info.reload.to_string(),
            };
            (info.name, held)
        });
        InForce(held.collect())
    }

    /// Takes newer ones but for those that stay. Gives the names of what has another value now.
    pub fn take(&mut self, newer: InForce, stay: &[&'static str]) -> Vec<&'static str> {
        let mut changed = Vec::new();
        for (name, held) in newer.0 {
            if stay.contains(&name) {
                continue;
            }
            let is_other = self.0.get(name).is_none_or(|it| it.value != held.value);
            if is_other {
                changed.push(name);
            }
            self.0.insert(name, held);
        }
        changed
    }

    /// As a JSON object by the names of settings.
    pub fn json(&self) -> String {
        let all = self.0.iter().map(|(name, held)| {
            let shown = json!({
                "key": held.key,
                "value": held.value,
                "is_set": held.is_set,
                "source": held.source,
                "reload": held.reload,
            });
            ((*name).to_owned(), shown)
        });
        Json::Object(all.collect::<Map<_, _>>()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use umbel::config::file::Value;

    use super::*;

    #[test]
    fn what_needs_a_restart_stays() {
        let with = |level: &str, reactors| {
            let mut values = Values::default();
            let flag = || Source::Flag("--x".to_owned());
            values.set("log_level", Value::Choice(level.to_owned()), flag());
            values.set("reactors", Value::Number(reactors), flag());
            values.set(
                "publish_token",
                Value::Secret("0123456789abcdef".into()),
                flag(),
            );
            InForce::of(&values)
        };
        let mut held = with("info", 2);
        let changed = held.take(with("debug", 3), &["reactors"]);
        assert_eq!(changed, ["log_level"]);
        let shown: Json = serde_json::from_str(&held.json()).expect("JSON");
        assert_eq!(shown["reactors"]["value"], "2");
        assert_eq!(shown["log_level"]["value"], "debug");
        assert_eq!(shown["publish_token"]["value"], "set");
        assert_eq!(shown["deflate"]["source"], "default");
        assert_eq!(shown.as_object().map(Map::len), Some(settings().count()));
    }
}
