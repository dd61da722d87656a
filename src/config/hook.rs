//! The hook: the application that is asked over HTTP, and told.

use std::fmt;
use std::path::PathBuf;

use super::{Config, ConfigError, Origins, Secret};
use crate::topic::Pattern;

/// Fewest bytes of the secret that signs requests.
pub const HOOK_SECRET_BYTES_MIN: usize = 16;

/// Most headers of a peer's request that are handed on.
const HEADERS_MAX: usize = 64;

/// Most patterns of topics that the hook is asked about.
const TOPICS_MAX: usize = 256;

/// Event that the application is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HookEvent {
    /// Somebody shows no credential, or one that the server does not know: who it is.
    Connect,
    /// An identity that it named ends soon: who it is from then on.
    Refresh,
    /// Somebody wants to subscribe: whether it may.
    Subscribe,
    /// Somebody wants to publish: whether it may, and what.
    Publish,
    /// A connection has ended. The application is told, not asked.
    Disconnected,
}

impl HookEvent {
    /// All events.
    pub const ALL: [HookEvent; 5] = [
        HookEvent::Connect,
        HookEvent::Refresh,
        HookEvent::Subscribe,
        HookEvent::Publish,
        HookEvent::Disconnected,
    ];

    /// Name in the settings, in the request's path, and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            HookEvent::Connect => "connect",
            HookEvent::Refresh => "refresh",
            HookEvent::Subscribe => "subscribe",
            HookEvent::Publish => "publish",
            HookEvent::Disconnected => "disconnected",
        }
    }
}

impl fmt::Display for HookEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The application's hook.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HookConfig {
    /// URL, behind which the event stands: https, http to a near address, or `unix:SOCKET:PATH`.
    pub url: String,
    /// Names of the events that it is asked about.
    pub events: Vec<String>,
    /// Time for an answer, in milliseconds.
    pub timeout_ms: u64,
    /// Headers of the peer's request that are handed on, in lower case.
    pub headers: Vec<String>,
    /// Secret that signs requests.
    pub secret: Option<Secret>,
    /// Secret before that one, which signs too.
    pub secret_previous: Option<Secret>,
    /// Topics about which it is asked before somebody subscribes or publishes.
    pub topics: Vec<Pattern>,
    /// Time that an answer about a subscription is kept, in milliseconds.
    pub cache_ms: u64,
    /// Certificates that are trusted instead of the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Text before the subjects that it names.
    pub subject_prefix: Option<String>,
    /// Whether it may give the rights to manage and to observe.
    pub may_manage: bool,
}

impl HookConfig {
    /// Hook at this URL, which is asked who connects.
    pub fn new(url: impl Into<String>) -> HookConfig {
        HookConfig {
            url: url.into(),
            events: vec!["connect".to_owned()],
            timeout_ms: 2000,
            headers: Vec::new(),
            secret: None,
            secret_previous: None,
            topics: Vec::new(),
            cache_ms: 0,
            ca_file: None,
            subject_prefix: None,
            may_manage: false,
        }
    }

    /// Names of the settings in which two hooks differ.
    pub(super) fn changes(
        new: &Option<HookConfig>,
        running: &Option<HookConfig>,
    ) -> Vec<&'static str> {
        let (new, running) = match (new, running) {
            (None, None) => return Vec::new(),
            (Some(new), Some(running)) => (new, running),
            _ => return vec!["hook_url"],
        };
        let differs = [
            ("hook_url", new.url != running.url),
            ("hook_events", new.events != running.events),
            ("hook_timeout_ms", new.timeout_ms != running.timeout_ms),
            ("hook_headers", new.headers != running.headers),
            ("hook_secret", new.secret != running.secret),
            (
                "hook_secret_previous",
                new.secret_previous != running.secret_previous,
            ),
            ("hook_topics", new.topics != running.topics),
            ("hook_cache_ms", new.cache_ms != running.cache_ms),
            ("hook_ca_file", new.ca_file != running.ca_file),
            (
                "hook_subject_prefix",
                new.subject_prefix != running.subject_prefix,
            ),
            ("hook_may_manage", new.may_manage != running.may_manage),
        ];
        let names = differs.iter().filter(|(_, differs)| *differs);
        names.map(|(name, _)| *name).collect()
    }

    /// Whether it is asked about this event.
    pub fn has(&self, event: HookEvent) -> bool {
        self.events.iter().any(|name| name == event.name())
    }

    fn check(&self, origins: Option<&Origins>) -> Result<(), (&'static str, String, String)> {
        let is_url = ["http://", "https://", "unix:"]
            .iter()
            .any(|start| self.url.starts_with(start));
        if !is_url {
            let way_out = "it must be https://HOST/PATH, http://HOST/PATH of a near host, or unix:/SOCKET:/PATH";
            return Err(("hook_url", self.url.clone(), way_out.to_owned()));
        }
        let names: Vec<_> = HookEvent::ALL.iter().map(|event| event.name()).collect();
        let unknown = self
            .events
            .iter()
            .find(|name| !names.contains(&name.as_str()));
        if unknown.is_some() || self.events.is_empty() {
            let value = unknown.cloned().unwrap_or_default();
            let way_out = format!("there are the events {}", names.join(", "));
            return Err(("hook_events", value, way_out));
        }
        if self.has(HookEvent::Refresh) && !self.has(HookEvent::Connect) {
            let way_out = "refresh is for those whom connect let in: add connect";
            return Err(("hook_events", self.events.join(","), way_out.to_owned()));
        }
        let has_topic_events = self.has(HookEvent::Subscribe) || self.has(HookEvent::Publish);
        if has_topic_events == self.topics.is_empty() {
            let way_out = "the events subscribe and publish and the topics that they are for belong together: set both, or neither";
            return Err((
                "hook_topics",
                self.topics.len().to_string(),
                way_out.to_owned(),
            ));
        }
        if self.topics.len() > TOPICS_MAX {
            let way_out = format!("there can be at most {TOPICS_MAX}");
            return Err(("hook_topics", self.topics.len().to_string(), way_out));
        }
        self.check_headers(origins)?;
        let secrets = [
            ("hook_secret", &self.secret),
            ("hook_secret_previous", &self.secret_previous),
        ];
        for (name, secret) in secrets {
            if secret
                .as_ref()
                .is_some_and(|it| it.expose().len() < HOOK_SECRET_BYTES_MIN)
            {
                let way_out = format!(
                    "it must have at least {HOOK_SECRET_BYTES_MIN} bytes: `openssl rand -hex 32` makes one"
                );
                return Err((name, "set".to_owned(), way_out));
            }
        }
        if self.secret.is_none() && self.secret_previous.is_some() {
            let way_out = "it is what hook_secret was before: set that too";
            return Err(("hook_secret_previous", "set".to_owned(), way_out.to_owned()));
        }
        Ok(())
    }

    fn check_headers(
        &self,
        origins: Option<&Origins>,
    ) -> Result<(), (&'static str, String, String)> {
        let error = |value: &str, way_out: String| Err(("hook_headers", value.to_owned(), way_out));
        if self.headers.len() > HEADERS_MAX {
            let count = self.headers.len().to_string();
            return error(&count, format!("there can be at most {HEADERS_MAX}"));
        }
        for name in &self.headers {
            let is_name = !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            if !is_name {
                return error(
                    name,
                    "it must be the name of a header in lower case".to_owned(),
                );
            }
            // Any page could use the cookies of whoever looks at it.
            let is_open = !matches!(origins, Some(Origins::List(_) | Origins::Loopback));
            if name == "cookie" && is_open {
                let way_out = "cookies are sent by any page that is open beside: list the origins that may connect, as in \
                               origins = [\"https://app.example\"]";
                return error(name, way_out.to_owned());
            }
        }
        Ok(())
    }
}

impl Config {
    pub(super) fn hook_errors(&self) -> Option<ConfigError> {
        let hook = self.hook.as_ref()?;
        if cfg!(not(feature = "outgoing")) {
            let way_out =
                "this build makes no requests of its own: build it with the feature outgoing";
            return Some(ConfigError::new("hook_url", &hook.url, way_out));
        }
        let checked = hook.check(self.origins.as_ref());
        checked
            .err()
            .map(|(name, value, way_out)| ConfigError::new(name, value, way_out))
    }
}

#[cfg(all(test, feature = "outgoing"))]
mod tests {
    use super::*;

    fn error(change: impl FnOnce(&mut Config, &mut HookConfig)) -> String {
        let mut hook = HookConfig::new("http://127.0.0.1:9000/umbel");
        let mut config = Config::default();
        change(&mut config, &mut hook);
        config.hook = Some(hook);
        config
            .hook_errors()
            .map_or(String::new(), |it| it.to_string())
    }

    #[test]
    fn changes_are_named() {
        let hook = HookConfig::new("https://a.example");
        let mut other = hook.clone();
        (other.timeout_ms, other.may_manage) = (1, true);
        let (hook, other) = (Some(hook), Some(other));
        assert_eq!(HookConfig::changes(&hook, &hook), [""; 0]);
        assert_eq!(HookConfig::changes(&None, &hook), ["hook_url"]);
        let names = ["hook_timeout_ms", "hook_may_manage"];
        assert_eq!(HookConfig::changes(&other, &hook), names);
    }

    #[test]
    fn each_error_names_the_setting_and_the_remedy() {
        assert_eq!(error(|_, _| ()), "");
        for (setting, words, told) in [
            (
                "hook_url",
                "https://HOST",
                error(|_, hook| hook.url = "app:9000".into()),
            ),
            (
                "hook_events",
                "connect, refresh, subscribe, publish, disconnected",
                error(|_, hook| hook.events.push("conect".into())),
            ),
            (
                "hook_events",
                "add connect",
                error(|_, hook| hook.events = vec!["refresh".into()]),
            ),
            (
                "hook_events",
                "there are",
                error(|_, hook| hook.events.clear()),
            ),
            (
                "hook_topics",
                "belong together",
                error(|_, hook| hook.events.push("subscribe".into())),
            ),
            (
                "hook_headers",
                "lower case",
                error(|_, hook| hook.headers.push("Cookie".into())),
            ),
            (
                "hook_headers",
                "origins",
                error(|_, hook| hook.headers.push("cookie".into())),
            ),
            (
                "hook_headers",
                "origins",
                error(|config, hook| {
                    hook.headers.push("cookie".into());
                    config.origins = Some(Origins::Any);
                }),
            ),
            (
                "hook_secret",
                "at least 16",
                error(|_, hook| hook.secret = Some("short".into())),
            ),
            (
                "hook_secret_previous",
                "hook_secret",
                error(|_, hook| hook.secret_previous = Some("0123456789abcdef".into())),
            ),
        ] {
            assert!(
                told.starts_with(setting) && told.contains(words),
                "{setting}: {told}"
            );
        }
        let listed = error(|config, hook| {
            hook.headers.push("cookie".into());
            config.origins = Some(Origins::Loopback);
        });
        assert_eq!(listed, "");
    }
}
