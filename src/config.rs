//! Every default and limit of the server, parsed once into typed values.

use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::protocol::{HostList, OriginList};
use crate::topic::{Pattern, TopicRule};

mod access_log;
mod checks;
mod client_certificates;
#[cfg(feature = "config-file")]
mod fields;
#[cfg(feature = "config-file")]
pub mod file;
mod grant;
mod hook;
#[cfg(feature = "config-file")]
mod hook_settings;
mod identity_over;
mod jwt;
#[cfg(feature = "config-file")]
mod jwt_fields;
#[cfg(feature = "config-file")]
mod kind;
#[cfg(feature = "config-file")]
mod limit_settings;
mod limits;
mod listener;
#[cfg(feature = "config-file")]
mod log_settings;
mod named_token;
mod proxies;
mod reload;
mod rights;
mod rights_lists;
mod secret;
#[cfg(feature = "config-file")]
mod setting_info;
mod sources;
#[cfg(feature = "config-file")]
pub mod table;
mod time;
mod tls;
#[cfg(feature = "config-file")]
mod tls_settings;
mod tokens;
mod url_key;

pub use access_log::{AccessLog, Share};
pub use client_certificates::{ClientAuth, ClientCertificates, ClientIdentity};
pub use grant::{GRANTS_MAX, Grant, When};
pub use hook::{HOOK_SECRET_BYTES_MIN, HookConfig, HookEvent};
pub use identity_over::IdentityOver;
pub use jwt::{Algorithm, JWTS_MAX, Jwt, JwtKeys, RequiredClaim};
pub use limits::{LimitInfo, Limits, Reload};
pub use listener::{LISTENERS_MAX, ListenAddress, Listener, Listeners, Surface, UNIX_MODE};
pub use named_token::{SUBJECT_BYTES_MAX, TOKEN_NAME_BYTES_MAX, TOKENS_MAX, Token, TokenValue};
pub use proxies::{ForwardedHeader, Proxies, TRUSTED_PROXIES_MAX, TrustedProxies};
pub(crate) use reload::Additions;
pub use rights::{Hosts, Rights};
pub use rights_lists::{DenyLists, RIGHTS_BYTES_MAX, RIGHTS_PATTERNS_MAX, RightsLists};
pub use secret::Secret;
pub use tls::{CERTIFICATES_MAX, CertificateFiles, TlsRecords, TlsVersion};
pub use url_key::{KID_BYTES_MAX, URL_KEYS_MAX, UrlKey};

/// Holder of a right: to publish, to subscribe, or to observe.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Everybody who can connect.
    Anyone,
    /// Nobody over the network.
    Nobody,
    /// Who shows this token, as `Authorization: Bearer`, or as the query parameter `token` or `access_token`.
    Token(Secret),
}

impl fmt::Debug for Access {
    /// Like the derived form, without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Anyone => "anyone",
            Access::Nobody => "nobody",
            Access::Token(_) => "token",
        })
    }
}

/// Web origins that may connect. A request without an Origin header does not come from a web page's script and is not
/// judged by this.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Origins {
    /// The server's own pages and pages from this machine, on any port.
    Loopback,
    /// Every origin, `null` too.
    Any,
    /// Exactly these: scheme, host and port. `null` matches none of them.
    List(OriginList),
}

/// Longest life of a signed URL where nothing is set: a day.
pub const SIGNED_URL_AGE_MAX_MS: u64 = 86_400_000;

/// Tokens that may stand in the query, where proxies log them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryToken {
    /// All.
    Allow,
    /// Those that live for 5 minutes at most, by their own times. Static tokens do not.
    Short,
    /// None.
    Off,
}

/// Kinds of messages that are compressed for peers that offer permessage-deflate (RFC 7692). What they compress is
/// inflated unless this is `Off`. A library that is built without the feature `deflate` agrees to no compression,
/// whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deflate {
    /// Nothing: no compression is agreed to.
    Off,
    /// Text, for binary messages are often compressed already.
    #[default]
    Text,
    /// Text and binary messages.
    All,
}

impl fmt::Display for Deflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Deflate::Off => "off",
            Deflate::Text => "text",
            Deflate::All => "all",
        })
    }
}

/// Refusal of handshakes for umbel.v1 for reasons of identity: 401, 403, 429 and 503.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthRefusal {
    /// Scripts of pages, which cannot see a status, are told by a Close behind the handshake; all others by the status.
    #[default]
    Auto,
    /// Everybody is told by the status.
    Status,
    /// Everybody is told by a Close.
    Close,
}

impl fmt::Display for AuthRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AuthRefusal::Auto => "auto",
            AuthRefusal::Status => "status",
            AuthRefusal::Close => "close",
        })
    }
}

/// Settings of a server. [`Config::default`] is the first minute: 127.0.0.1:8080, open to this machine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Listeners. None at all means one on 127.0.0.1:8080.
    pub listeners: Vec<Listener>,
    /// Reactor threads. 0 means one for each core.
    pub reactors: usize,
    /// Worker threads for the hub's shards. 0 means one for every four reactors, at least one.
    pub workers: usize,
    /// Whether an idle shard runs on the reactor that brings it work.
    pub inline_shards: bool,
    /// Whether publications leave through io_uring where the kernel allows it.
    pub io_uring: bool,
    /// Right to publish. None: anyone where the only listener is on a loopback address, and nothing of `publish`,
    /// `subscribe`, `observe`, `origins` and `hosts` is set; else it has to be set.
    pub publish: Option<Access>,
    /// Right to subscribe, and to use handler endpoints such as `/echo`. None: as `publish`.
    pub subscribe: Option<Access>,
    /// Right to see `/`, `/metrics` and `/topics`. None: anyone where `publish` may be left out, else nobody.
    pub observe: Option<Access>,
    /// Web origins that may connect. None: those of this machine where `publish` may be left out; else it has to be set.
    pub origins: Option<Origins>,
    /// Hosts that requests may be sent to, but for `/health` and `/ready`. None: those of this machine where `publish` is
    /// left out, and then nothing that a proxy passes on; else all.
    pub hosts: Option<HostList>,
    /// Tokens with a name, and with rights to topics of their own. Where there is one, who shows a token that is none of
    /// the server's is refused, and what is not allowed to anyone or to the token is denied.
    pub tokens: Vec<Token>,
    /// Rights for all whom a condition fits. Where there is one, what no grant and no token allows is denied.
    pub grants: Vec<Grant>,
    /// Issuers whose JSON web tokens say who somebody is.
    pub jwts: Vec<Jwt>,
    /// Tokens that may stand in the query. None: all where the server is open to this machine, else short ones.
    pub query_token: Option<QueryToken>,
    /// Name of a cookie that holds a token, such as `__Host-umbel`. It counts only with an `Origin` that may connect, or
    /// for a GET of the same origin.
    pub cookie: Option<String>,
    /// Keys of signed topic URLs.
    pub url_keys: Vec<UrlKey>,
    /// Longest life of a signed URL from now on, in milliseconds.
    pub signed_url_age_max_ms: u64,
    /// Whether the keys of each `jwks_url` are needed at the start. Where they cannot be fetched, and there is no copy, the
    /// server does not start.
    pub jwks_required_at_start: bool,
    /// Application that is asked who somebody is, and what it may. Where there is one, what is not allowed is denied.
    pub hook: Option<HookConfig>,
    /// HTTP proxy for the server's own requests, as in `http://proxy:3128`. None is taken from the environment.
    pub outgoing_proxy: Option<String>,
    /// Certificates for listeners with TLS. The first is the default: for peers that name no host, or one that no certificate
    /// has.
    pub certificates: Vec<CertificateFiles>,
    /// Whether handshakes without a known host are refused: that name none, or one that no certificate has.
    pub sni_strict: bool,
    /// File of the keys of tickets, of 80 bytes each: the first encrypts, all decrypt. None: they are random.
    pub tls_ticket_key_file: Option<PathBuf>,
    /// Threads that answer TLS hellos. 0: each reactor answers its own. None: one for every four reactors, at least one.
    pub tls_threads: Option<usize>,
    /// Seconds of `Strict-Transport-Security` in answers over TLS. 0: it is left out.
    pub hsts_max_age: u64,
    /// Whether public TCP listeners without TLS lead to one with it: the first.
    pub redirect_to_https: bool,
    /// Directory whose `.well-known/acme-challenge/` listeners without TLS serve.
    pub acme_webroot: Option<PathBuf>,
    /// Versions of TLS.
    pub tls_versions: Vec<TlsVersion>,
    /// Carrier of TLS connections whose handshake is done.
    pub tls_records: TlsRecords,
    /// Web origins whose pages may use the control API. None may otherwise, whatever `origins` says.
    pub api_origins: OriginList,
    /// Key of the hashes of subjects that presence shows. With the same key they are the same on all nodes, and after a
    /// restart. None: a random one of this process.
    pub presence_key: Option<Secret>,
    /// Subprotocols that `/ws/{topic}` accepts. The first one that the peer offers is chosen.
    pub subprotocols: Vec<String>,
    /// Directory of what outlives the process: the deny list. None: it is kept in memory alone.
    pub state_directory: Option<PathBuf>,
    /// File of entries that are always on the deny list. Each has a line: `jti:ID`, `sub:SUBJECT`, `peer:NETWORK`.
    pub deny_file: Option<PathBuf>,
    /// Whether to leave open what is not set, on any address.
    pub insecure: bool,
    /// Kinds of messages that are compressed.
    pub deflate: Deflate,
    /// Refusal of handshakes for umbel.v1 for reasons of identity.
    pub auth_refusal: AuthRefusal,
    /// Whether peers may keep their compression context, at 48 KiB a connection. They count in
    /// `inbound_bytes_total_max`, half of which they may use up; beyond it no peer may.
    pub deflate_client_takeover: bool,
    /// Rules for topics by pattern: history, presence and slow consumers. The first rule whose pattern matches a topic
    /// counts; one that no rule matches gets nothing of that.
    pub topic_rules: Vec<TopicRule>,
    /// Whether to do without what Linux alone has: io_uring, and a listening socket for each reactor. For tests.
    #[doc(hidden)]
    pub portable: bool,
    /// Networks that no limit by address holds for. That of wrong tokens does.
    pub limit_exempt: Vec<IpNet>,
    /// Reaction to one connection too many of a subject.
    pub connections_per_identity_over: IdentityOver,
    /// Whether limits are tried only. What those by address, rate and identity would refuse passes, and is counted and logged.
    pub limits_dry_run: bool,
    /// Connections whose openings and ends are logged.
    pub access_log: AccessLog,
    /// Share of connections that are logged whole by [`AccessLog::All`].
    pub access_log_sample: Share,
    /// Patterns of topics with figures in `/metrics`, [`METRICS_TOPICS_MAX`] at most.
    pub metrics_topics: Vec<Pattern>,
    /// Every numeric limit.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listeners: Vec::new(),
            reactors: 0,
            workers: 0,
            inline_shards: true,
            io_uring: true,
            publish: None,
            subscribe: None,
            observe: None,
            origins: None,
            hosts: None,
            tokens: Vec::new(),
            grants: Vec::new(),
            jwts: Vec::new(),
            query_token: None,
            cookie: None,
            url_keys: Vec::new(),
            signed_url_age_max_ms: SIGNED_URL_AGE_MAX_MS,
            jwks_required_at_start: false,
            hook: None,
            outgoing_proxy: None,
            certificates: Vec::new(),
            sni_strict: false,
            tls_ticket_key_file: None,
            tls_versions: TlsVersion::ALL.to_vec(),
            tls_records: TlsRecords::default(),
            tls_threads: None,
            hsts_max_age: 0,
            redirect_to_https: false,
            acme_webroot: None,
            api_origins: OriginList::default(),
            presence_key: None,
            subprotocols: Vec::new(),
            state_directory: None,
            deny_file: None,
            insecure: false,
            deflate: Deflate::default(),
            auth_refusal: AuthRefusal::default(),
            deflate_client_takeover: false,
            topic_rules: Vec::new(),
            portable: false,
            limit_exempt: Vec::new(),
            connections_per_identity_over: IdentityOver::default(),
            limits_dry_run: false,
            metrics_topics: Vec::new(),
            access_log: AccessLog::default(),
            access_log_sample: Share::SAMPLE,
            limits: Limits::default(),
        }
    }
}

/// Most reactors of one process.
pub const REACTORS_MAX: usize = 1024;
/// Most workers of one process.
pub const WORKERS_MAX: usize = 1024;
/// Most patterns of topics with figures.
pub const METRICS_TOPICS_MAX: usize = 32;
/// Most topic rules, for they are tried one by one.
pub const TOPIC_RULES_MAX: usize = 1024;

impl Config {
    /// Checks the values against their ranges and against each other.
    ///
    /// # Errors
    /// Names the first setting that cannot stand, its value and the way out.
    pub fn check(&self) -> Result<(), ConfigError> {
        match self.errors().into_iter().next() {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// All that cannot stand.
    pub(crate) fn errors(&self) -> Vec<ConfigError> {
        let mut errors = self.limits.errors();
        errors.extend(self.threads_errors());
        errors.extend(self.size_errors());
        errors.extend(self.presence_key_error());
        errors.extend(self.token_errors());
        errors.extend(self.named_token_errors());
        errors.extend(self.jwt_errors());
        errors.extend(self.source_errors());
        errors.extend(self.cookie_error());
        errors.extend(self.url_key_errors());
        errors.extend(self.topic_rule_errors());
        errors.extend(self.metrics_topics_error());
        errors.extend(Listeners::of(&self.listeners).check().err());
        errors.extend(self.hook_errors());
        errors.extend(self.tls_errors());
        errors.extend(self.rights().err());
        errors
    }

    /// Warnings about settings that are valid but hardly meant: topic rules that never count, and tokens that can be
    /// guessed or cannot be shown, which are for loopback addresses alone. [`Builder::bind`] logs them.
    ///
    /// [`Builder::bind`]: crate::Builder::bind
    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.located_warnings().into_iter();
        warnings.map(|(_, warning)| warning).collect()
    }

    /// Warnings, each with the setting that it is about and the row there, where it is about one.
    pub(crate) fn located_warnings(&self) -> Vec<(Option<(&'static str, usize)>, String)> {
        let rules = &self.topic_rules;
        let mut warnings = self.token_warnings();
        if self.redirect_to_https && !self.listeners.iter().any(|listener| listener.tls) {
            let warning = "redirect_to_https leads nowhere, for no listener speaks TLS";
            warnings.push((None, warning.to_owned()));
        }
        for (index, rule) in rules.iter().enumerate() {
            let number = index + 1;
            let mut earlier = rules[..index].iter().enumerate();
            let warning = if let Some(canonical) = rule.pattern.canonical() {
                format!(
                    "topic rule {number} (`{rule}`) never counts, for no topic is written like that; write {canonical}"
                )
            } else if let Some((first, wider)) =
                earlier.find(|(_, earlier)| earlier.pattern.covers(&rule.pattern))
            {
                format!(
                    "topic rule {number} (`{rule}`) never counts, for rule {} (`{wider}`) comes before it and matches \
                     all of its topics; put it before that one, or leave it out",
                    first + 1
                )
            } else {
                continue;
            };
            warnings.push((Some(("topic_rule", index)), warning));
        }
        warnings
    }

    /// Reactors after 0 is filled in.
    pub(crate) fn reactor_count(&self) -> usize {
        match self.reactors {
            0 => std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(REACTORS_MAX),
            count => count,
        }
    }

    /// Workers after 0 is filled in.
    pub(crate) fn worker_count(&self) -> usize {
        match self.workers {
            0 => self.reactor_count().div_ceil(4),
            count => count,
        }
    }
}

/// An invalid setting: its name, its value and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    setting: String,
    value: String,
    way_out: String,
    /// Of several values, the one that it is about.
    row: Option<usize>,
}

impl ConfigError {
    /// An error about one setting, with its value and the remedy.
    pub fn new(
        setting: impl Into<String>,
        value: impl fmt::Display,
        way_out: impl Into<String>,
    ) -> Self {
        ConfigError {
            setting: setting.into(),
            value: value.to_string(),
            way_out: way_out.into(),
            row: None,
        }
    }

    /// About this one of several values.
    pub(crate) fn in_row(mut self, row: usize) -> ConfigError {
        self.row = Some(row);
        self
    }

    /// About this one of several values, from 0.
    #[doc(hidden)]
    #[must_use]
    pub fn of_row(self, row: usize) -> ConfigError {
        self.in_row(row)
    }

    /// Of several values, the one that it is about, from 0.
    pub fn row(&self) -> Option<usize> {
        self.row
    }

    /// The setting's name.
    pub fn setting(&self) -> &str {
        &self.setting
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.setting, self.value, self.way_out)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_stand_on_a_loopback_address_only() {
        let mut config = Config::default();
        config.check().expect("the defaults stand");
        config.listeners = vec!["0.0.0.0:8080".parse().expect("a listener")];
        let error = config
            .check()
            .expect_err("an open server on every address must be asked for");
        assert_eq!(error.setting(), "publish");
        assert!(error.to_string().contains("--insecure"), "{error}");
        config.insecure = true;
        config.check().expect("it was asked for");
    }

    #[test]
    fn topic_rules_are_checked() {
        let with = |rules: &[&str]| Config {
            topic_rules: rules
                .iter()
                .map(|rule| rule.parse().expect("a rule"))
                .collect(),
            ..Config::default()
        };
        with(&["a/b history=1", "a/* presence=on", "** history=0"])
            .check()
            .expect("they differ");
        let error = with(&["a history=1", "b history=1", "a presence=on"])
            .check()
            .expect_err("the third never counts");
        assert_eq!(error.setting(), "topic_rules");
        assert!(
            error.to_string().contains("a presence=on: an earlier rule"),
            "{error}"
        );
        let warnings = with(&["a/b history=1", "a/** history=2", "a/*/c history=3"]).warnings();
        assert_eq!(warnings.len(), 1);
        let told = "topic rule 3 (`a/*/c history=3`) never counts, for rule 2 (`a/** history=2`)";
        assert!(warnings[0].starts_with(told), "{warnings:?}");
        let mut config = with(&["a history=1"]);
        config.topic_rules[0].history.age_max_ms = 0;
        let error = config.check().expect_err("no publication is that young");
        assert!(error.to_string().contains("history_age_max_ms"), "{error}");
        let many: Vec<_> = (0..=TOPIC_RULES_MAX)
            .map(|number| format!("{number} history=1"))
            .collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(with(&many[1..]).check().is_ok());
        assert!(with(&many).check().is_err());
    }
}
