//! The limits as the parts of a connection take them: made once for each reactor.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{AccessLog, AuthRefusal, Config, Deflate, IdentityOver, Limits, Share};
use crate::dialect::Dialects;
use crate::hub::{KeyBudget, KeySettings, ShardSettings};
use crate::memory::budget;
use crate::protocol::OriginList;
use crate::protocol::deflate::Policy;
use crate::rate::bucket::Rate;
use crate::rate::gate::AddressRules;
use crate::rate::networks::Exempt;
use crate::rate::pace::PaceRules;
use crate::topic::TopicRules;
use crate::{http, protocol};

/// Bytes of a message before a credential was shown.
const UNAUTHENTICATED_BYTES_MAX: usize = 16 * 1024;

/// Ways by which clients are led to TLS.
#[derive(Clone, Debug, Default)]
pub struct Secure {
    /// Value of `Strict-Transport-Security` in answers over TLS.
    pub hsts: Option<String>,
    /// Whether public listeners without TLS lead to one with it.
    pub redirects: bool,
    /// Directory of answers to challenges of ACME.
    pub acme_webroot: Option<PathBuf>,
}

impl Secure {
    /// Whether a request on a listener without TLS may be answered otherwise.
    pub fn concerns_plain(&self) -> bool {
        self.redirects || self.acme_webroot.is_some()
    }
}

/// Settings that all connections of a reactor share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// All limits.
    pub limits: Limits,
    /// Those of a request.
    pub request: http::request::RequestLimits,
    /// Those of a message to a topic.
    pub publication: protocol::MessageLimits,
    /// Those of a message to an own endpoint.
    pub message: protocol::MessageLimits,
    /// Those of a message before a credential was shown.
    pub unauthenticated: protocol::MessageLimits,
    /// Kinds of messages that are compressed.
    pub deflate: Deflate,
    /// Refusal of handshakes for reasons of identity.
    pub auth_refusal: AuthRefusal,
    /// Compression that is agreed to.
    pub deflate_policy: Policy,
    /// Rules of topics.
    pub topic_rules: TopicRules,
    /// Date of answers to requests.
    pub date: http::date::AnswerDate,
    /// Dialects that are spoken.
    pub dialects: Dialects,
    /// Web origins whose pages may use the control API.
    pub api_origins: OriginList,
    /// Key of the hashes of subjects that presence shows.
    pub presence_key: [u8; 32],
    /// Bounds on addresses.
    pub addresses: AddressRules,
    /// Rates of one connection.
    pub pace: PaceRules,
    /// Rate of new connections.
    pub handshakes: Option<Rate>,
    /// Rate of publishes of one identity.
    pub publishes: Option<Rate>,
    /// Ways by which clients are led to TLS.
    pub secure: Secure,
    /// Reaction to one connection too many of a subject.
    pub identity_over: IdentityOver,
    /// Connections whose openings and ends are logged.
    pub access_log: AccessLog,
    /// Share of them that are logged whole.
    pub access_log_sample: Share,
    /// Moment at which the process's clock began, in its own microseconds.
    pub began_us: u64,
}

impl Settings {
    /// Sorts the limits. No compression is agreed to, there are no topic rules, and the dialects are those
    /// of the project.
    pub fn new(limits: &Limits) -> Settings {
        let mut limits = limits.clone();
        budget::fill_shares(&mut limits);
        let limits = &limits;
        let of_message = |bytes: usize| protocol::MessageLimits {
            message_bytes_max: bytes as u64,
            fragments_max: limits.fragments_max,
        };
        Settings {
            request: http::request::RequestLimits {
                head_bytes_max: limits.head_bytes_max,
                headers_max: limits.headers_max,
                target_bytes_max: limits.target_bytes_max,
                body_bytes_max: limits.body_bytes_max as u64,
            },
            publication: of_message(limits.publication_bytes_max),
            message: of_message(limits.message_bytes_max),
            unauthenticated: of_message(limits.message_bytes_max.min(UNAUTHENTICATED_BYTES_MAX)),
            limits: limits.clone(),
            deflate: Deflate::Off,
            auth_refusal: AuthRefusal::Auto,
            deflate_policy: Policy {
                enabled: false,
                ..Policy::default()
            },
            topic_rules: TopicRules::default(),
            date: http::date::AnswerDate::default(),
            dialects: Dialects::default(),
            api_origins: OriginList::default(),
            presence_key: [0; 32],
            addresses: AddressRules::new(limits, Exempt::default(), false),
            pace: PaceRules::new(limits, false),
            handshakes: Rate::new(u64::from(limits.handshakes_per_second), 0),
            secure: Secure::default(),
            publishes: Rate::new(u64::from(limits.publishes_per_identity_per_second), 0),
            identity_over: IdentityOver::default(),
            access_log: AccessLog::default(),
            access_log_sample: Share::NONE,
            began_us: 0,
        }
    }

    /// Those of a configuration, with these dialects.
    pub fn of(config: &Config, dialects: Dialects) -> Settings {
        let mut settings = Settings::new(&config.limits);
        settings.auth_refusal = config.auth_refusal;
        settings.api_origins.clone_from(&config.api_origins);
        let exempt = Exempt::new(&config.limit_exempt);
        settings.addresses = AddressRules::new(&config.limits, exempt, config.limits_dry_run);
        settings.pace = PaceRules::new(&config.limits, config.limits_dry_run);
        settings.secure = Secure {
            hsts: (config.hsts_max_age > 0).then(|| format!("max-age={}", config.hsts_max_age)),
            redirects: config.redirect_to_https,
            acme_webroot: config.acme_webroot.clone(),
        };
        settings.access_log = config.access_log;
        settings.access_log_sample = config.access_log_sample;
        settings.identity_over = config.connections_per_identity_over;
        settings
            .with_deflate(config.deflate, config.deflate_client_takeover)
            .with_dialects(dialects)
            .with_topic_rules(TopicRules::new(config.topic_rules.clone()))
    }

    /// Lets topics have what the rules say.
    #[must_use]
    pub fn with_topic_rules(mut self, rules: TopicRules) -> Settings {
        self.topic_rules = rules;
        self
    }

    /// Lets other dialects be spoken.
    #[must_use]
    pub fn with_dialects(mut self, dialects: Dialects) -> Settings {
        self.dialects = dialects;
        self
    }

    /// Settings of the hub's shards. The bytes of histories are those of all shards together.
    pub fn shard_settings(&self) -> ShardSettings {
        ShardSettings {
            rules: self.topic_rules.clone(),
            history_bytes_max: self.limits.history_bytes_total_max,
            recovery_publications_max: self.limits.recovery_publications_max as usize,
            recovery_bytes_max: self.limits.recovery_bytes_max,
            presence_max: self.limits.presence_max,
            keys: KeySettings {
                age_us: self.limits.idempotency_age_ms * 1000,
                since_us: self.began_us,
                budget: Arc::new(KeyBudget::new(
                    self.limits.idempotency_bytes_total_max,
                    self.limits.idempotency_bytes_max,
                )),
            },
        }
    }

    /// Lets compression be agreed to, if there is what inflates and deflates. The server always wants to keep its
    /// context, for what is not used costs nothing.
    #[must_use]
    pub fn with_deflate(mut self, deflate: Deflate, client_takeover: bool) -> Settings {
        self.deflate = deflate;
        self.deflate_policy = Policy {
            enabled: cfg!(feature = "deflate") && deflate != Deflate::Off,
            server_takeover: true,
            client_takeover,
            ..Policy::default()
        };
        self
    }
}
