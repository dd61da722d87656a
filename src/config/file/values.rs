//! Values of all sources, and the configuration that they make.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::parse::Found;
use super::problem::{Place, Problem, Problems};
use super::value::Value;
use crate::config::Secret;
use crate::config::table::{SettingInfo, Unset, settings};
use crate::config::{
    Access, AccessLog, AuthRefusal, Config, ConfigError, Deflate, HookConfig, IdentityOver, Limits,
    Listener, Origins, QueryToken, TlsRecords, TlsVersion,
};
use crate::protocol::{HostList, OriginList};
use crate::topic::Pattern;

/// Source of a value, the weakest first.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Source {
    /// Nobody set it.
    Unset,
    /// The file.
    File(Place),
    /// A variable.
    Variable(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl Source {
    fn rank(&self) -> u8 {
        match self {
            Source::Unset => 0,
            Source::File(_) => 1,
            Source::Variable(_) => 2,
            Source::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Unset => f.write_str("default"),
            Source::File(place) => place.fmt(f),
            Source::Variable(name) | Source::Flag(name) => f.write_str(name),
        }
    }
}

/// A value that was given, and its source.
#[derive(Clone, Debug)]
pub struct Given {
    /// The value.
    pub value: Value,
    /// Its source.
    pub source: Source,
    rows: Vec<Place>,
}

/// Values of all sources. Of a setting that several give, the highest counts whole.
#[derive(Clone, Debug, Default)]
pub struct Values(BTreeMap<&'static str, Given>);

impl Values {
    /// Those of a file.
    pub(super) fn of_file(found: BTreeMap<&'static str, Found>) -> Values {
        let given = found.into_iter().map(|(name, found)| {
            let Found { value, place, rows } = found;
            let source = Source::File(place);
            (
                name,
                Given {
                    value,
                    source,
                    rows,
                },
            )
        });
        Values(given.collect())
    }

    /// Sets a value, unless a higher source has.
    pub fn set(&mut self, name: &'static str, value: Value, source: Source) {
        let is_lower = self
            .0
            .get(name)
            .is_some_and(|given| given.source.rank() > source.rank());
        if !is_lower {
            let rows = Vec::new();
            self.0.insert(
                name,
                Given {
                    value,
                    source,
                    rows,
                },
            );
        }
    }

    /// The value of a setting and its source, if one gives it.
    pub fn given(&self, name: &str) -> Option<&Given> {
        self.0.get(name)
    }

    /// Source of a setting's value.
    pub fn source(&self, name: &str) -> Source {
        self.given(name)
            .map_or(Source::Unset, |given| given.source.clone())
    }

    /// The value of a setting in words, the default included.
    pub fn words(&self, info: &SettingInfo) -> String {
        match self.given(info.name) {
            Some(given) if info.name == "hook_headers" => match &given.value {
                // What stands in a header may be a secret.
                Value::Texts(headers) => names_of(headers),
                value => value.words(),
            },
            Some(given) => without_password(given.value.words()),
            None => info.unset_words().into_owned(),
        }
    }

    /// Word of a choice, the default included.
    pub fn choice(&self, name: &str) -> String {
        match self.given(name).map(|given| &given.value) {
            Some(Value::Choice(word)) => word.clone(),
            _ => unset_word(name).unwrap_or_default().to_owned(),
        }
    }

    fn number(&self, name: &str) -> u64 {
        match self.given(name).map(|given| &given.value) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        }
    }

    fn is_on(&self, name: &str) -> bool {
        match self.given(name).map(|given| &given.value) {
            Some(Value::Bool(flag)) => *flag,
            _ => unset_word(name) == Some("true"),
        }
    }

    fn texts(&self, name: &str) -> &[String] {
        match self.given(name).map(|given| &given.value) {
            Some(Value::Texts(texts)) => texts,
            _ => &[],
        }
    }

    /// The configuration that the values make, checked.
    ///
    /// # Errors
    /// All that cannot stand, each with its place.
    pub fn config(&self) -> Result<Config, Problems> {
        let mut errors = Vec::new();
        let mut config = Config {
            listeners: self.listeners(),
            reactors: self.number("reactors") as usize,
            workers: self.number("workers") as usize,
            inline_shards: self.is_on("inline_shards"),
            io_uring: self.is_on("io_uring"),
            subprotocols: self.texts("subprotocol").to_vec(),
            state_directory: self.texts("state_directory").first().map(PathBuf::from),
            deny_file: self.texts("deny_file").first().map(PathBuf::from),
            insecure: self.is_on("insecure"),
            deflate: match &*self.choice("deflate") {
                "off" => Deflate::Off,
                "all" => Deflate::All,
                _ => Deflate::Text,
            },
            auth_refusal: match &*self.choice("auth_refusal") {
                "status" => AuthRefusal::Status,
                "close" => AuthRefusal::Close,
                _ => AuthRefusal::Auto,
            },
            jwks_required_at_start: self.is_on("jwks_required_at_start"),
            deflate_client_takeover: self.is_on("deflate_client_takeover"),
            origins: self.origins(&mut errors),
            api_origins: self.api_origins(&mut errors),
            hosts: self.hosts(&mut errors),
            limits: self.limits(&mut errors),
            hook: self.hook(&mut errors),
            sni_strict: self.is_on("sni_strict"),
            tls_ticket_key_file: self.text("tls_ticket_key_file").map(PathBuf::from),
            tls_versions: self.tls_versions(&mut errors),
            outgoing_proxy: self.text("outgoing_proxy"),
            limit_exempt: self.networks("limit_exempt", &mut errors),
            connections_per_identity_over: match &*self.choice("connections_per_identity_over") {
                "oldest" => IdentityOver::Oldest,
                _ => IdentityOver::Refuse,
            },
            limits_dry_run: self.is_on("limits_dry_run"),
            ..Config::default()
        };
        self.set_log(&mut config, &mut errors);
        config.query_token = self.query_token();
        config.cookie = self.texts("cookie").first().cloned();
        self.set_rows(&mut config);
        self.set_secure(&mut config);
        for (name, token, access) in [
            ("publish", "publish_token", &mut config.publish),
            ("subscribe", "subscribe_token", &mut config.subscribe),
            ("observe", "observe_token", &mut config.observe),
        ] {
            match self.access(name, token) {
                Ok(said) => *access = said,
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            errors = config.errors();
        }
        if errors.is_empty() {
            return Ok(config);
        }
        let mut problems: Vec<_> = errors.iter().map(|error| self.problem(error)).collect();
        problems.sort_by_key(Problem::order);
        Err(Problems(problems))
    }

    fn query_token(&self) -> Option<QueryToken> {
        match &*self.choice("query_token") {
            "allow" => Some(QueryToken::Allow),
            "short" => Some(QueryToken::Short),
            "off" => Some(QueryToken::Off),
            _ => None,
        }
    }

    /// Sets what stands in rows, and what is about them.
    fn set_rows(&self, config: &mut Config) {
        config.presence_key = self.secret("presence_key");
        if let Some(Value::TopicRules(rules)) = self.given("topic_rule").map(|given| &given.value) {
            config.topic_rules.clone_from(rules);
        }
        if let Some(Value::Tokens(tokens)) = self.given("token").map(|given| &given.value) {
            config.tokens.clone_from(tokens);
        }
        if let Some(Value::Grants(grants)) = self.given("grant").map(|given| &given.value) {
            config.grants.clone_from(grants);
        }
        if let Some(Value::UrlKeys(keys)) = self.given("url_key").map(|given| &given.value) {
            config.url_keys.clone_from(keys);
        }
        if let Some(Value::Number(ms)) = self
            .given("signed_url_age_max_ms")
            .map(|given| &given.value)
        {
            config.signed_url_age_max_ms = *ms;
        }
        if let Some(Value::Jwts(jwts)) = self.given("jwt").map(|given| &given.value) {
            config.jwts.clone_from(jwts);
        }
        if let Some(Value::Certificates(files)) =
            self.given("certificate").map(|given| &given.value)
        {
            config.certificates.clone_from(files);
        }
    }

    /// Warnings about settings that have no effect, each with its place.
    pub fn warnings(&self, config: &Config) -> Vec<Problem> {
        let located = config.located_warnings().into_iter();
        located
            .map(
                |(place, text)| match place.and_then(|(name, row)| self.place(name, Some(row))) {
                    Some(place) => Problem::at(place, text),
                    None => Problem::elsewhere(text),
                },
            )
            .collect()
    }

    fn text(&self, name: &str) -> Option<String> {
        self.texts(name).first().cloned()
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        match self.given(name).map(|given| &given.value) {
            Some(Value::Secret(secret)) => Some(secret.clone()),
            _ => None,
        }
    }

    fn hook(&self, errors: &mut Vec<ConfigError>) -> Option<HookConfig> {
        let Some(url) = self.text("hook_url") else {
            let others = settings().filter(|info| info.key.table == "hook");
            if let Some(info) = others
                .into_iter()
                .find(|info| self.given(info.name).is_some())
            {
                let way_out =
                    "it is for a hook, and there is none: set hook_url, which is url in [hook]";
                errors.push(ConfigError::new(info.name, self.words(&info), way_out));
            }
            return None;
        };
        let mut hook = HookConfig::new(url);
        if self.given("hook_events").is_some() {
            hook.events = self.texts("hook_events").to_vec();
        }
        if self.given("hook_timeout_ms").is_some() {
            hook.timeout_ms = self.number("hook_timeout_ms");
        }
        hook.headers = self.texts("hook_headers").to_vec();
        hook.secret = self.secret("hook_secret");
        hook.secret_previous = self.secret("hook_secret_previous");
        hook.cache_ms = self.number("hook_cache_ms");
        hook.ca_file = self.text("hook_ca_file").map(Into::into);
        hook.subject_prefix = self.text("hook_subject_prefix");
        hook.may_manage = self.is_on("hook_may_manage");
        hook.topics = self.patterns("hook_topics", errors);
        Some(hook)
    }

    /// Patterns of a list.
    fn patterns(&self, name: &'static str, errors: &mut Vec<ConfigError>) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for (row, text) in self.texts(name).iter().enumerate() {
            match Pattern::parse(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(problem) => {
                    let error = ConfigError::new(name, text, problem.to_string());
                    errors.push(error.in_row(row));
                }
            }
        }
        patterns
    }

    fn listeners(&self) -> Vec<Listener> {
        match self.given("listen").map(|given| &given.value) {
            Some(Value::Listeners(listeners)) => listeners.clone(),
            _ => unset_word("listen")
                .and_then(|text| text.parse().ok())
                .into_iter()
                .collect(),
        }
    }

    fn limits(&self, errors: &mut Vec<ConfigError>) -> Limits {
        let mut limits = Limits::default();
        for info in Limits::ALL {
            if let Some(Value::Number(number)) = self.given(info.name).map(|given| &given.value)
                && let Err(error) = limits.set(info.name, *number)
            {
                errors.push(error);
            }
        }
        limits
    }

    /// Sets what is logged, and of which topics there are figures.
    fn set_log(&self, config: &mut Config, errors: &mut Vec<ConfigError>) {
        config.metrics_topics = self.patterns("metrics_topics", errors);
        config.access_log = match &*self.choice("access_log") {
            "errors" => AccessLog::Errors,
            "all" => AccessLog::All,
            _ => AccessLog::Off,
        };
        if let Some(Value::Share(share)) = self.given("access_log_sample").map(|given| &given.value)
        {
            config.access_log_sample = *share;
        }
    }

    /// Sets how clients are led to TLS, how many threads answer them, and who carries them then.
    fn set_secure(&self, config: &mut Config) {
        config.hsts_max_age = self.number("hsts_max_age");
        config.redirect_to_https = self.is_on("redirect_to_https");
        config.tls_records = match &*self.choice("tls_records") {
            "rustls" => TlsRecords::Rustls,
            _ => TlsRecords::Own,
        };
        config.acme_webroot = self.text("acme_webroot").map(PathBuf::from);
        if let Some(Value::Number(count)) = self.given("tls_threads").map(|given| &given.value) {
            config.tls_threads = Some(*count as usize);
        }
    }

    fn tls_versions(&self, errors: &mut Vec<ConfigError>) -> Vec<TlsVersion> {
        let Some(texts) = self.said("tls_versions") else {
            return TlsVersion::ALL.to_vec();
        };
        let mut versions = Vec::new();
        for (row, text) in texts.iter().enumerate() {
            match TlsVersion::parse(text) {
                Ok(version) => versions.push(version),
                Err(way_out) => {
                    errors.push(ConfigError::new("tls_versions", text, way_out).in_row(row));
                }
            }
        }
        versions
    }

    fn origins(&self, errors: &mut Vec<ConfigError>) -> Option<Origins> {
        let texts = self.said("origin")?;
        if let ["localhost"] = texts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            return Some(Origins::Loopback);
        }
        if texts.iter().any(|text| text == "any") {
            return Some(Origins::Any);
        }
        let before = errors.len();
        for (row, text) in texts.iter().enumerate() {
            if let Err(error) = OriginList::parse(&[text]) {
                errors.push(ConfigError::new("origin", error.text, error.problem).in_row(row));
            }
        }
        match OriginList::parse(texts) {
            Ok(list) => Some(Origins::List(list)),
            Err(_) => {
                debug_assert!(errors.len() > before);
                None
            }
        }
    }

    fn api_origins(&self, errors: &mut Vec<ConfigError>) -> OriginList {
        let texts = self.texts("api_origins");
        for (row, text) in texts.iter().enumerate() {
            if let Err(error) = OriginList::parse(&[text]) {
                let error = ConfigError::new("api_origins", error.text, error.problem);
                errors.push(error.in_row(row));
            }
        }
        OriginList::parse(texts).unwrap_or_default()
    }

    fn hosts(&self, errors: &mut Vec<ConfigError>) -> Option<HostList> {
        let texts = self.said("hosts")?;
        let before = errors.len();
        for (row, text) in texts.iter().enumerate() {
            if let Err(error) = HostList::parse(&[text]) {
                errors.push(ConfigError::new("hosts", error.text, error.problem).in_row(row));
            }
        }
        let list = HostList::parse(texts).ok();
        debug_assert!(list.is_some() || errors.len() > before);
        list
    }

    fn networks(&self, name: &'static str, errors: &mut Vec<ConfigError>) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (row, text) in self.texts(name).iter().enumerate() {
            let network = text.parse().ok();
            let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            match network {
                Some(network) => networks.push(network.trunc()),
                None => {
                    let way_out = "it is an address, or a network as 10.0.0.0/8";
                    errors.push(ConfigError::new(name, text, way_out).in_row(row));
                }
            }
        }
        networks
    }

    /// Texts, if a source gives any. A list of the file may be empty; a flag or a variable without a text is none.
    fn said(&self, name: &str) -> Option<&[String]> {
        let texts = self.texts(name);
        let is_left_out = texts.is_empty() && self.source(name).rank() > 1;
        (self.given(name).is_some() && !is_left_out).then_some(texts)
    }

    /// A right: what is said of it, or the token for it, whichever has the higher source.
    fn access(&self, name: &str, token: &str) -> Result<Option<Access>, ConfigError> {
        let word = match self.given(name).map(|given| &given.value) {
            Some(Value::Choice(word)) => Some(word.as_str()),
            _ => None,
        };
        let (said, shown) = (self.source(name).rank(), self.source(token).rank());
        let secret = match self.given(token).map(|given| &given.value) {
            Some(Value::Secret(secret)) => Some(secret),
            _ => None,
        };
        let flag = token.replace('_', "-");
        match (word, secret) {
            (None | Some("token"), Some(secret)) => Ok(Some(Access::Token(secret.clone()))),
            (Some("token"), None) => {
                let variable = token.to_uppercase();
                let way_out = format!(
                    "set the token with --{flag}, UMBEL_{variable}, or {token} in the file"
                );
                Err(ConfigError::new(name, "token", way_out))
            }
            (Some(_), Some(secret)) if shown > said => Ok(Some(Access::Token(secret.clone()))),
            (Some(who), Some(_)) if shown == said => {
                let way_out = format!("contradicts --{flag}; give one of the two");
                Err(ConfigError::new(name, who, way_out))
            }
            (Some("anyone"), _) => Ok(Some(Access::Anyone)),
            (Some(_), _) => Ok(Some(Access::Nobody)),
            (None, None) => Ok(None),
        }
    }

    fn place(&self, name: &str, row: Option<usize>) -> Option<Place> {
        let given = self.given(name)?;
        let of_row = row.and_then(|row| given.rows.get(row));
        match (of_row, &given.source) {
            (Some(place), _) | (None, Source::File(place)) => Some(place.clone()),
            _ => None,
        }
    }

    /// An error about a setting, with the place of its value.
    pub fn problem(&self, error: &ConfigError) -> Problem {
        // Errors name the rules by their list.
        let name = match error.setting() {
            "topic_rules" => "topic_rule",
            "tokens" => "token",
            "jwts" => "jwt",
            "url_keys" => "url_key",
            "grants" => "grant",
            "certificates" => "certificate",
            name => name,
        };
        match self.place(name, error.row()) {
            Some(place) => Problem::at(place, error.to_string()),
            None => Problem::elsewhere(error.to_string()),
        }
    }
}

/// A setting's default, if it is a word or a text.
fn unset_word(name: &str) -> Option<&'static str> {
    let info = settings().find(|info| info.name == name)?;
    match info.unset {
        Unset::Value(text) => Some(text),
        Unset::Number(_) | Unset::Words(_) => None,
    }
}

/// Headers without their values.
fn names_of(headers: &[String]) -> String {
    let names = headers.iter().map(|header| {
        let name = header.split(':').next().unwrap_or_default();
        format!("{}: set", name.trim())
    });
    names.collect::<Vec<_>>().join(",")
}

/// A URL without the password in it.
fn without_password(words: String) -> String {
    let Some((scheme, rest)) = words.split_once("://") else {
        return words;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => format!("{scheme}://set{}", &rest[user.len()..]),
        _ => words,
    }
}
