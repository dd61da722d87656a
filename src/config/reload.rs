//! Settings that a reload leaves alone.

use super::{Config, HookConfig, Limits, Listener, Reload};
use crate::topic::TopicRule;

/// Settings that a program gives besides its configuration. They stand behind those of any configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Additions {
    /// Listeners.
    pub(crate) listeners: Vec<Listener>,
    /// Rules for topics.
    pub(crate) topic_rules: Vec<TopicRule>,
}

impl Config {
    /// Adds what a program gave besides.
    pub(crate) fn add(&mut self, additions: &Additions) {
        self.listeners.extend_from_slice(&additions.listeners);
        self.topic_rules.extend_from_slice(&additions.topic_rules);
    }

    /// Keeps from a running configuration what cannot change while it runs. Gives the names of what would be other.
    pub(crate) fn keep_started(&mut self, running: &Config) -> Vec<&'static str> {
        let mut kept = Vec::new();
        macro_rules! keep {
            ($($field:ident: $name:literal),+) => {
                $(if self.$field != running.$field {
                    self.$field.clone_from(&running.$field);
                    kept.push($name);
                })+
            };
        }
        let is_started = self.listeners.len() == running.listeners.len()
            && self
                .listeners
                .iter()
                .zip(&running.listeners)
                .all(|(new, old)| new.is_started_as(old));
        if !is_started {
            self.listeners.clone_from(&running.listeners);
            kept.push("listen");
        }
        keep!(
            reactors: "reactors", workers: "workers", inline_shards: "inline_shards",
            io_uring: "io_uring", state_directory: "state_directory", outgoing_proxy: "outgoing_proxy",
            presence_key: "presence_key", jwks_required_at_start: "jwks_required_at_start",
            tls_threads: "tls_threads", metrics_topics: "metrics_topics"
        );
        kept.extend(HookConfig::changes(&self.hook, &running.hook));
        self.hook.clone_from(&running.hook);
        self.portable = running.portable;
        for info in Limits::ALL
            .iter()
            .filter(|info| info.reload == Reload::Restart)
        {
            let running = running.limits.get(info.name);
            if let Some(value) = running.filter(|_| self.limits.get(info.name) != running)
                && self.limits.set(info.name, value).is_ok()
            {
                kept.push(info.name);
            }
        }
        kept
    }
}

#[cfg(all(test, feature = "config-file"))]
mod tests {
    use super::*;
    use crate::config::file::{Source, Value, Values};
    use crate::config::table::{Kind, settings};
    use crate::config::{CertificateFiles, Grant, Jwt, Token, UrlKey};

    /// Another value than the default, of each setting that stands in no program.
    fn other(name: &str, kind: Kind, words: &str) -> Value {
        match kind {
            Kind::Number { max, .. } if name == "drain_code" => Value::Number(max),
            Kind::Number { .. } if name == "tls_threads" => Value::Number(7),
            Kind::Number { max, .. } if words == max.to_string() => Value::Number(max - 1),
            Kind::Number { .. } => Value::Number(words.parse::<u64>().expect("a number") + 1),
            Kind::Share => Value::Share(crate::config::Share::ALL),
            Kind::Bool | Kind::Switch => Value::Bool(words == "false"),
            Kind::Choice(choices) | Kind::Flag(choices) => {
                let other = choices
                    .iter()
                    .find(|choice| **choice != words && **choice != "token");
                Value::Choice((*other.expect("there are two")).to_owned())
            }
            Kind::Secret => Value::Secret("0123456789abcdef".into()),
            Kind::Listeners => Value::Listeners(vec!["127.0.0.1:1".parse().expect("a listener")]),
            Kind::TopicRules => Value::TopicRules(vec!["a history=1".parse().expect("a rule")]),
            Kind::Tokens => {
                let text = format!("a sha256={} publish=a", "0".repeat(64));
                Value::Tokens(vec![Token::parse(&text).expect("a token")])
            }
            Kind::UrlKeys => Value::UrlKeys(vec![UrlKey::new(
                "k",
                "0123456789abcdef0123456789abcdef".into(),
            )]),
            Kind::Grants => Value::Grants(vec![
                Grant::parse("subject=true publish=a").expect("a grant"),
            ]),
            Kind::Jwts => {
                let text = "a algorithms=ES256 audience=b jwks_url=https://a.example/k";
                Value::Jwts(vec![Jwt::parse(text).expect("an issuer")])
            }
            Kind::Certificates => {
                Value::Certificates(vec![CertificateFiles::new("a.pem", "b.pem")])
            }
            Kind::Texts if name == "tls_versions" => Value::Texts(vec!["1.3".to_owned()]),
            Kind::Text if name == "hook_url" => Value::Texts(vec!["https://a.example".to_owned()]),
            Kind::Text | Kind::Texts if matches!(name, "origin" | "api_origins") => {
                Value::Texts(vec!["https://a.example".to_owned()])
            }
            Kind::Texts if name == "limit_exempt" => Value::Texts(vec!["10.0.0.0/8".to_owned()]),
            Kind::Text | Kind::Texts | Kind::Time => Value::Texts(vec!["a.example".to_owned()]),
        }
    }

    /// The table says of each setting whether it needs a restart, and so does the reload.
    #[test]
    fn kept_are_those_of_the_table() {
        let all = || {
            // All is said of rights, so that each can change alone.
            let mut values = Values::default();
            for (name, word) in [
                ("publish", "anyone"),
                ("subscribe", "anyone"),
                ("observe", "nobody"),
            ] {
                values.set(name, Value::Choice(word.to_owned()), Source::Unset);
            }
            values.set(
                "origin",
                Value::Texts(vec!["https://b.example".to_owned()]),
                Source::Unset,
            );
            values
        };
        let running = all().config().expect("it can stand");
        for info in settings().filter(|info| info.key.table != "log") {
            let mut values = all();
            // Its other settings are for a hook that there is.
            if info.key.table == "hook" && info.name != "hook_url" {
                continue;
            }
            let given = values.words(&info);
            let value = other(info.name, info.kind, &given);
            values.set(info.name, value, Source::Flag(String::new()));
            let mut config = values
                .config()
                .unwrap_or_else(|problem| panic!("{}: {problem}", info.name));
            let before = format!("{config:?}");
            let kept = config.keep_started(&running);
            let expected: &[_] = if info.reload == Reload::Restart {
                &[info.name]
            } else {
                &[]
            };
            assert_eq!(kept, expected, "{}", info.name);
            assert_eq!(
                before == format!("{config:?}"),
                kept.is_empty(),
                "{}",
                info.name
            );
        }
    }
}
