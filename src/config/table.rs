//! The table of settings. Flags, variables, keys of the file, help, manual page, schema and sample are made from it.

use super::{LimitInfo, Limits, REACTORS_MAX, Reload, WORKERS_MAX};
use crate::units::Unit;

mod identity;

pub use super::fields::{
    FieldInfo, GRANT_FIELDS, LISTENER_FIELDS, TOKEN_FIELDS, TOPIC_FIELDS, URL_KEY_FIELDS,
};
pub use super::jwt_fields::JWT_FIELDS;
pub use super::kind::Kind;
pub(super) use super::setting_info::PLAIN;
pub use super::setting_info::{Key, SettingInfo, Unset, heading};
pub use super::tls_settings::CERTIFICATE_FIELDS;

use super::setting_info::heading::{ACCESS, DEFLATE, LOGGING, TOPICS};

impl Kind {
    /// Keys of a row of it in the file. None: it has no rows of keys.
    pub fn fields(self) -> Option<&'static [FieldInfo]> {
        match self {
            Kind::Listeners => Some(LISTENER_FIELDS),
            Kind::TopicRules => Some(TOPIC_FIELDS),
            Kind::Tokens => Some(TOKEN_FIELDS),
            Kind::Grants => Some(GRANT_FIELDS),
            Kind::UrlKeys => Some(URL_KEY_FIELDS),
            Kind::Jwts => Some(JWT_FIELDS),
            Kind::Certificates => Some(CERTIFICATE_FIELDS),
            _ => None,
        }
    }
}

const fn key(name: &'static str) -> Key {
    Key { table: "", name }
}

const fn right(name: &'static str, doc: &'static str) -> SettingInfo {
    SettingInfo {
        name,
        key: key(name),
        heading: ACCESS,
        kind: Kind::Choice(&["anyone", "nobody", "token"]),
        unset: Unset::Words("anyone on a loopback address alone, with none of these set"),
        example: "\"token\"",
        reload: Reload::Live,
        value_name: "RIGHT",
        doc,
        ..PLAIN
    }
}

const fn token(name: &'static str, doc: &'static str) -> SettingInfo {
    SettingInfo {
        name,
        key: key(name),
        heading: ACCESS,
        kind: Kind::Secret,
        example: "{ file = \"/etc/umbel/token\" }",
        reload: Reload::Live,
        value_name: "TOKEN",
        doc,
        ..PLAIN
    }
}

/// All settings but the limits, in the order of the help.
const SETTINGS: &[SettingInfo] = &[
    SettingInfo {
        name: "listen",
        key: key("listener"),
        kind: Kind::Listeners,
        unset: Unset::Value("127.0.0.1:8080"),
        value_name: "ADDRESS:PORT",
        doc: "Address to listen on, or unix:PATH; repeat it, or separate by commas",
        long_doc: "Address to listen on; repeat it, or separate by commas [default: 127.0.0.1:8080]\n\
                   ADDRESS:PORT        TCP; port 0 lets the system choose; http:// may stand before it\n\
                   localhost:PORT      127.0.0.1 and ::1\n\
                   :PORT               every address, as [::]:PORT\n\
                   unix:PATH           a unix socket, for its owner and its group; ?mode=0660&group=NAME behind it says who\n\
                   [::]:PORT           IPv6 and IPv4; ?ipv6_only=true behind it: IPv6 alone\n\
                   fd:NAME             what a socket unit of systemd hands over by that name\n\
                   Behind any of them: ?trusted_proxies=NETWORK, the proxies in front of it; by what they tell of their clients: \
                   forwarded_header=NAME, forwarded_host=true, proxy_protocol=true\n\
                   Behind each may stand what it shows: #all, #public (no console, figures and lists) or #admin (these \
                   alone). Without that it is all, and public where another one is admin.",
        ..PLAIN
    },
    SettingInfo {
        name: "reactors",
        key: key("reactors"),
        kind: Kind::Number {
            min: 0,
            max: REACTORS_MAX as u64,
        },
        unset: Unset::Number(0),
        value_name: "COUNT",
        doc: "Reactor threads; 0 means one for each core",
        ..PLAIN
    },
    SettingInfo {
        name: "workers",
        key: key("workers"),
        kind: Kind::Number {
            min: 0,
            max: WORKERS_MAX as u64,
        },
        unset: Unset::Number(0),
        value_name: "COUNT",
        doc: "Worker threads; 0 means one for every four reactors",
        ..PLAIN
    },
    SettingInfo {
        name: "inline_shards",
        key: key("inline_shards"),
        kind: Kind::Bool,
        unset: Unset::Value("true"),
        value_name: "BOOL",
        doc: "Let an idle shard's work run at once on the thread that brings it: true or false",
        is_advanced: true,
        ..PLAIN
    },
    SettingInfo {
        name: "io_uring",
        key: key("io_uring"),
        kind: Kind::Bool,
        unset: Unset::Value("true"),
        value_name: "BOOL",
        doc: "Let publications leave through io_uring where the kernel allows it: true or false",
        is_advanced: true,
        ..PLAIN
    },
    right("publish", "Right to publish: anyone, nobody, or token"),
    right(
        "subscribe",
        "Right to subscribe, and to use /echo: anyone, nobody, or token",
    ),
    right(
        "observe",
        "Right to see /, /metrics and /topics: anyone, nobody, or token",
    ),
    token(
        "publish_token",
        "Token that gives the right to publish; best set in a file or as UMBEL_PUBLISH_TOKEN, as other users can see a command line",
    ),
    token(
        "subscribe_token",
        "Token that gives the right to subscribe; best set in a file or as UMBEL_SUBSCRIBE_TOKEN, as other users can see a command line",
    ),
    token(
        "observe_token",
        "Token that gives the right to observe; best set in a file or as UMBEL_OBSERVE_TOKEN, as other users can see a command line",
    ),
    SettingInfo {
        name: "origin",
        key: key("origins"),
        heading: ACCESS,
        kind: Kind::Texts,
        example: "[\"https://app.example\"]",
        reload: Reload::Live,
        value_name: "ORIGIN",
        doc: "A web origin that may connect, such as https://example.com; or `any`; or `localhost`, all pages of this machine; \
              repeat it, or separate by commas",
        ..PLAIN
    },
    SettingInfo {
        name: "api_origins",
        key: key("api_origins"),
        heading: ACCESS,
        kind: Kind::Texts,
        example: "[\"https://operator.example\"]",
        reload: Reload::Live,
        value_name: "ORIGIN",
        doc: "A web origin whose pages may use the control API, with a token; repeat it, or separate by commas. Without it none \
              may, and origins has no part in it",
        is_advanced: true,
        ..PLAIN
    },
    SettingInfo {
        name: "hosts",
        key: key("hosts"),
        heading: ACCESS,
        kind: Kind::Texts,
        example: "[\"push.example.com\"]",
        unset: Unset::Words("all, where rights are set"),
        reload: Reload::Live,
        value_name: "HOST",
        doc: "A host that requests may be sent to, such as push.example.com; repeat it, or separate by commas",
        ..PLAIN
    },
    SettingInfo {
        name: "state_directory",
        key: key("state_directory"),
        heading: ACCESS,
        example: "\"/var/lib/umbel\"",
        unset: Unset::Words("STATE_DIRECTORY, as systemd sets it; else none"),
        value_name: "DIRECTORY",
        doc: "Directory of what outlives the process: the deny list. Without one it is kept in memory alone",
        ..PLAIN
    },
    SettingInfo {
        name: "deny_file",
        key: key("deny_file"),
        heading: ACCESS,
        example: "\"/etc/umbel/deny\"",
        unset: Unset::Words("none"),
        reload: Reload::Live,
        value_name: "FILE",
        doc: "File of entries that are always on the deny list, one on each line: jti:ID, sub:SUBJECT or peer:NETWORK",
        ..PLAIN
    },
    SettingInfo {
        name: "subprotocol",
        key: key("subprotocols"),
        heading: ACCESS,
        kind: Kind::Texts,
        example: "[\"chat\"]",
        reload: Reload::New,
        value_name: "NAME",
        doc: "A subprotocol that /ws/{topic} agrees to; repeat it, or separate by commas",
        ..PLAIN
    },
    SettingInfo {
        name: "insecure",
        key: key("insecure"),
        heading: ACCESS,
        kind: Kind::Switch,
        unset: Unset::Value("false"),
        reload: Reload::Live,
        doc: "Start on any address, with rights and origins that are not set left open",
        ..PLAIN
    },
    SettingInfo {
        name: "deflate",
        key: key("deflate"),
        reload: Reload::New,
        heading: DEFLATE,
        kind: Kind::Choice(&["off", "text", "all"]),
        unset: Unset::Value("text"),
        value_name: "WHAT",
        doc: "Messages to compress for peers that offer it: off, text, or all, with binary ones",
        ..PLAIN
    },
    SettingInfo {
        name: "deflate_client_takeover",
        key: key("deflate_client_takeover"),
        reload: Reload::New,
        heading: DEFLATE,
        kind: Kind::Bool,
        unset: Unset::Value("false"),
        value_name: "BOOL",
        doc: "Let peers that compress refer back to their earlier messages, for 48 KiB each: true or false",
        is_advanced: true,
        ..PLAIN
    },
    SettingInfo {
        name: "topic_rule",
        key: key("topic"),
        heading: TOPICS,
        kind: Kind::TopicRules,
        reload: Reload::Live,
        value_name: "RULE",
        doc: "A rule for the topics of a pattern, as in \"orders/** history=1000\"; repeat it, the first match counts",
        long_doc: "A rule for the topics of a pattern; repeat it, or separate by ; in UMBEL_TOPIC_RULES. The first rule whose \
                   pattern matches a topic counts. In a pattern `*` stands for one segment between / and . and a last `**` for \
                   one or more. Behind it:\n\
                   history=COUNT               publications that are kept for recovery\n\
                   history_bytes_max=BYTES     of those, at most [default: 16MiB]\n\
                   history_age_max_ms=MS       of those, at most [default: 5m]\n\
                   keep=latest                 of those, the newest of each key; whoever subscribes gets them first\n\
                   slow_consumer=WHAT          close, drop-oldest or latest [default: close]\n\
                   presence=on                 tell subscribers about each other; users: by subject; count: their number\n\
                   presence_subject=on         show them each other's subjects; hash: a keyed hash\n\
                   time=on                     tell subscribers when each publication was published\n\
                   At least one of them is said; history=0 says that they get nothing.",
        ..PLAIN
    },
    SettingInfo {
        name: "log_level",
        key: Key {
            table: "log",
            name: "level",
        },
        heading: LOGGING,
        kind: Kind::Choice(&["off", "error", "warn", "info", "debug", "trace"]),
        unset: Unset::Value("info"),
        reload: Reload::Live,
        value_name: "LEVEL",
        doc: "The least important lines that are logged: off, error, warn, info, debug or trace",
        ..PLAIN
    },
    SettingInfo {
        name: "log_format",
        key: Key {
            table: "log",
            name: "format",
        },
        heading: LOGGING,
        kind: Kind::Choice(&["text", "json"]),
        unset: Unset::Value("text"),
        value_name: "FORMAT",
        doc: "text, for people, or json, one object a line",
        ..PLAIN
    },
];

/// Headings of the limits, each with the first limit that stands under it.
const LIMIT_HEADINGS: [(&str, &str); 10] = [
    ("head_bytes_max", "Limits of requests"),
    ("message_bytes_max", "Limits of messages"),
    ("ping_interval_ms", "Times of connections"),
    ("outbox_bytes_max", "Limits of memory"),
    (
        "send_buffer_bytes",
        "Sockets (0 leaves a setting to the system)",
    ),
    ("backlog", "Connections and reactors"),
    ("mailbox_messages_max", "Queues between threads"),
    ("history_bytes_total_max", "History, umbel.v1 and presence"),
    ("deflate_bytes_min", "Limits of compression"),
    ("drain_timeout_ms", "Shutdown"),
];

/// Every setting: those of their own, then the limits.
pub fn settings() -> impl Iterator<Item = SettingInfo> {
    let mut heading = "";
    let limits = Limits::ALL.iter().map(move |info| {
        let mut headings = LIMIT_HEADINGS.iter();
        if let Some((_, next)) = headings.find(|(first, _)| *first == info.name) {
            heading = next;
        }
        SettingInfo {
            heading,
            ..of_limit(info)
        }
    });
    // Identities belong to access, before compression.
    let place = SETTINGS.iter().position(|info| info.heading == DEFLATE);
    let (before, behind) = SETTINGS.split_at(place.unwrap_or_default());
    let own = before.iter().chain(identity::SETTINGS).chain(behind);
    let own = own.chain(super::log_settings::LOG_SETTINGS);
    let own = own
        .chain(super::tls_settings::TLS_SETTINGS)
        .chain(super::hook_settings::HOOK_SETTINGS)
        .chain(super::limit_settings::LIMIT_SETTINGS);
    own.copied().chain(limits)
}

/// The setting of that name.
pub fn setting(name: &str) -> Option<SettingInfo> {
    settings().find(|info| info.name == name)
}

/// The setting that a limit is.
pub fn of_limit(info: &LimitInfo) -> SettingInfo {
    SettingInfo {
        name: info.name,
        key: Key {
            table: "limits",
            name: info.name,
        },
        kind: Kind::Number {
            min: info.min,
            max: info.max,
        },
        unset: Unset::Number(info.default),
        reload: info.reload,
        value_name: match Unit::of_setting(info.name) {
            Unit::Millis => "MS",
            Unit::Bytes => "BYTES",
            Unit::Count => "COUNT",
        },
        doc: info.doc,
        is_advanced: true,
        ..PLAIN
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_and_keys_differ() {
        let (mut names, mut keys) = (HashSet::new(), HashSet::new());
        for info in settings() {
            assert!(names.insert(info.name), "{}", info.name);
            assert!(keys.insert(info.key.to_string()), "{}", info.key);
            assert!(
                !info.doc.is_empty() && !info.heading.is_empty(),
                "{}",
                info.name
            );
        }
    }

    #[test]
    fn headings_begin_at_limits_that_exist() {
        for (first, heading) in LIMIT_HEADINGS {
            let exists = Limits::ALL.iter().any(|info| info.name == first);
            assert!(exists, "{heading} begins at {first}");
        }
    }
}
