//! Every default and limit of the server, parsed once into typed values.
//!
//! The numeric limits are declared in one table, [`Limits`]. The command line, the environment variables and the
//! README's table all come from that table, so a limit cannot exist in one of them alone.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::protocol::OriginList;

/// What is known about one limit: how it is set, what it may be, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct LimitInfo {
    /// The field of [`Limits`], which is also the flag with dashes and the variable `UMBEL_` in capitals.
    pub name: &'static str,
    /// The value that holds when nothing is said.
    pub default: u64,
    /// The smallest value that makes sense.
    pub min: u64,
    /// The largest value that makes sense.
    pub max: u64,
    /// What it does, in the words of the reference.
    pub doc: &'static str,
}

impl LimitInfo {
    /// The command-line flag, without the two dashes in front.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("UMBEL_{}", self.name.to_uppercase())
    }
}

macro_rules! limits {
    ($( $(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:literal in $min:literal..=$max:literal; )+) => {
        /// Every numeric limit: bytes, counts and milliseconds, each with its unit at the end of its name.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Limits {
            $( $(#[doc = $doc])+ pub $name: $type, )+
        }

        impl Default for Limits {
            fn default() -> Limits {
                Limits { $( $name: $default, )+ }
            }
        }

        impl Limits {
            /// All limits, in the order of the reference.
            pub const ALL: &'static [LimitInfo] = &[
                $( LimitInfo {
                    name: stringify!($name), default: $default, min: $min, max: $max,
                    doc: concat!($($doc),+).trim_ascii(),
                }, )+
            ];

            /// Sets one limit by its name.
            ///
            /// # Errors
            /// When no limit has that name, or the value lies outside the limit's range.
            pub fn set(&mut self, name: &str, value: u64) -> Result<(), ConfigError> {
                let info = Limits::ALL.iter().find(|info| info.name == name).ok_or_else(|| {
                    ConfigError::new(name, value, "no limit has this name; `umbel serve --help` lists them all")
                })?;
                check_range(info, value)?;
                match name {
                    $( stringify!($name) => self.$name = value as $type, )+
                    _ => unreachable!("the table and this match come from the same list"),
                }
                Ok(())
            }

            /// One limit by its name. None when no limit has that name.
            #[expect(clippy::cast_lossless, reason = "the table holds several widths")]
            pub fn get(&self, name: &str) -> Option<u64> {
                match name {
                    $( stringify!($name) => Some(self.$name as u64), )+
                    _ => None,
                }
            }

            #[expect(clippy::cast_lossless, reason = "the table holds several widths")]
            fn check(&self) -> Result<(), ConfigError> {
                let values = [$( self.$name as u64, )+];
                for (info, value) in Limits::ALL.iter().zip(values) {
                    check_range(info, value)?;
                }
                Ok(())
            }
        }
    };
}

limits! {
    /// Bytes of a request head (request line and headers). More is refused with 431.
    head_bytes_max: usize = 16384 in 512..=1048576;
    /// Headers in a request. More is refused with 431.
    headers_max: usize = 100 in 8..=256;
    /// Bytes of a request target. More is refused with 414.
    target_bytes_max: usize = 4096 in 64..=65536;
    /// Bytes of a request body, which only `POST /pub` (many publications) uses in full. More is refused with 413.
    body_bytes_max: usize = 16777216 in 1024..=1073741824;
    /// Lines of one `POST /pub`. The first line over it is answered with an error, and those behind it not at all. Each line may take two places in a mailbox at once: with more than half of mailbox_messages_max, some may be answered 503.
    publish_lines_max: usize = 4000 in 1..=1000000;
    /// Time from accepting a connection, or from the first byte of a further request, to the end of the request head. It is absolute: a byte now and then does not extend it.
    handshake_timeout_ms: u64 = 10000 in 10..=3600000;
    /// Time for a request body to arrive, absolute, counted from the end of the head.
    body_timeout_ms: u64 = 30000 in 10..=3600000;
    /// Time that an HTTP connection may stand idle between two requests.
    keep_alive_timeout_ms: u64 = 75000 in 10..=3600000;
    /// Bytes of a message on an own endpoint such as `/echo`. More closes with 1009.
    message_bytes_max: usize = 16777216 in 1..=1073741824;
    /// Bytes of a publication, by WebSocket (more closes with 1009) or HTTP (more is refused with 413).
    publication_bytes_max: usize = 1048576 in 1..=1073741824;
    /// Fragments of one message. More closes with 1008.
    fragments_max: u32 = 131072 in 1..=16777216;
    /// Time for a message to become whole once its first byte has arrived, absolute. More closes with 1008.
    message_timeout_ms: u64 = 60000 in 10..=3600000;
    /// Time without a byte from a peer after which it is pinged; for SSE, the interval of the keep-alive comments.
    ping_interval_ms: u64 = 25000 in 10..=3600000;
    /// Time after a ping in which a byte, any byte, must arrive. Otherwise the connection is cut.
    pong_timeout_ms: u64 = 20000 in 10..=3600000;
    /// Time for the closing handshake, and for a peer to take the last bytes. After it the socket is closed.
    close_timeout_ms: u64 = 5000 in 10..=3600000;
    /// Bytes queued for one connection beyond what the kernel took. A subscriber that would pass it is a slow consumer: it is closed with 1013. On own endpoints reading stops until the peer has caught up.
    outbox_bytes_max: usize = 2097152 in 1024..=4294967296;
    /// Age of the oldest byte queued for a connection. An older one closes the connection as a slow consumer.
    outbox_age_max_ms: u64 = 30000 in 10..=3600000;
    /// Bytes queued for all connections together. A connection that would pass it is closed as a slow consumer. A frame that many outboxes share counts in each of them.
    outbox_bytes_total_max: usize = 1073741824 in 1048576..=1099511627776;
    /// Bytes of unfinished requests and messages of all connections together. A connection that would pass it is closed with 1013, or refused with 503.
    inbound_bytes_total_max: usize = 1073741824 in 1048576..=1099511627776;
    /// SO_SNDBUF of every connection, which bounds what a reader that stops holds in the kernel, together with not_sent_low_water_mark_bytes. Less than two segments (on loopback 64 KiB each) makes large messages wait for delayed acknowledgements. 0 leaves it to the system.
    send_buffer_bytes: usize = 65536 in 0..=1073741824;
    /// SO_RCVBUF of every connection. 0 leaves it to the system.
    receive_buffer_bytes: usize = 0 in 0..=1073741824;
    /// TCP_NOTSENT_LOWAT: bytes that the kernel takes ahead of what it may send. 0 leaves it to the system.
    not_sent_low_water_mark_bytes: usize = 16384 in 0..=1073741824;
    /// TCP_USER_TIMEOUT: time that sent bytes may stay unacknowledged. 0 leaves it to the system.
    tcp_user_timeout_ms: u64 = 30000 in 0..=3600000;
    /// Connections that wait to be accepted, each listener. The kernel caps it at net.core.somaxconn.
    backlog: u32 = 4096 in 1..=65535;
    /// Connections at a time. More are answered 503. 0 means as many as the descriptors allow.
    connections_max: usize = 0 in 0..=16777216;
    /// Connections accepted in one tick of a reactor, so that a storm does not starve those that are served.
    accepts_per_tick_max: usize = 64 in 1..=4096;
    /// Pause of accepting after the descriptors or the memory for sockets ran out.
    accept_pause_ms: u64 = 100 in 10..=10000;
    /// The read buffer of a reactor, which all of its connections share.
    read_buffer_bytes: usize = 262144 in 4096..=16777216;
    /// Bytes read from one connection in one tick before the others have their turn.
    read_budget_bytes: usize = 262144 in 1024..=268435456;
    /// Messages that wait in a reactor's mailbox. When it is full the hub's shards wait, and publishers with them.
    mailbox_messages_max: usize = 8192 in 16..=1048576;
    /// Bytes of publications that wait in a reactor's mailbox.
    mailbox_bytes_max: usize = 67108864 in 1048576..=68719476736;
    /// Commands that wait for one shard of the hub. When it is full, publishers are held back: by TCP, or with 503.
    commands_max: usize = 4096 in 16..=1048576;
    /// Bytes of publications that wait for one shard of the hub.
    command_bytes_max: usize = 67108864 in 1048576..=68719476736;
    /// Topics that have subscribers, on each reactor. More are refused with 503.
    topics_max: usize = 1048576 in 1..=67108864;
    /// Bytes of the shortest message that is compressed for peers that take it. Shorter ones leave as they are.
    deflate_bytes_min: usize = 256 in 0..=1073741824;
    /// Bytes of the longest message that is compressed, for that takes a reactor's time. Longer ones leave as they are.
    deflate_bytes_max: usize = 1048576 in 0..=1073741824;
    /// How hard publications are compressed: from 1, which costs least, to 9, which makes them smallest.
    deflate_level: u8 = 3 in 1..=9;
    /// Topics whose compressed publications refer back to earlier ones, for which each such topic holds a compressor of 276 KiB on every reactor. It is shared out among the reactors, each of which may have one at least; the coldest give way. 0: every publication is compressed by itself.
    deflate_cohorts_max: usize = 128 in 0..=65536;
    /// Time that a subscriber may have to take publications that are compressed by themselves before the others begin anew with it.
    deflate_reset_interval_ms: u64 = 5000 in 10..=3600000;
    /// Time for a shutdown: delivering what is queued, closing everybody, spread over it, and exiting.
    drain_timeout_ms: u64 = 10000 in 0..=3600000;
}

fn check_range(info: &LimitInfo, value: u64) -> Result<(), ConfigError> {
    if (info.min..=info.max).contains(&value) {
        return Ok(());
    }
    let way_out = format!(
        "must be between {} and {} (the default is {}); set it with --{} or {}",
        info.min,
        info.max,
        info.default,
        info.flag(),
        info.variable()
    );
    Err(ConfigError::new(info.name, value, way_out))
}

/// Who may do something: publish, subscribe, or see the server's figures.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Everybody who can connect.
    Anyone,
    /// Nobody over the network.
    Nobody,
    /// Who shows this token, as `Authorization: Bearer`, or as the query parameter `token` or `access_token`.
    Token(Box<str>),
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

/// Which web origins may connect. A request without an Origin header does not come from a web page's script and is
/// not judged by this.
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

/// What is compressed on its way to peers that offer permessage-deflate (RFC 7692). What they compress is inflated unless
/// this is `Off`. A library that is built without the feature `deflate` agrees to no compression, whatever this says.
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

/// What a server is started with. [`Config::default`] is the first minute: 127.0.0.1:8080, open to this machine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where it listens. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Reactor threads. 0 means one for each core.
    pub reactors: usize,
    /// Worker threads for the hub's shards. 0 means one for every four reactors, at least one.
    pub workers: usize,
    /// Whether a shard's work may run at once on the reactor that brings it, when the shard is idle.
    pub inline_shards: bool,
    /// Whether publications leave through io_uring where the kernel allows it: many sends for one system call.
    pub io_uring: bool,
    /// Who may publish. None: anyone on a loopback address; elsewhere it must be said.
    pub publish: Option<Access>,
    /// Who may subscribe, and use own endpoints such as `/echo`. None: anyone on a loopback address; elsewhere it must be said.
    pub subscribe: Option<Access>,
    /// Who may see `/` and `/metrics`. None: anyone on a loopback address, elsewhere nobody.
    pub observe: Option<Access>,
    /// Which web origins may connect. None: those of this machine on a loopback address; elsewhere it must be said.
    pub origins: Option<Origins>,
    /// Subprotocols that `/ws/{topic}` agrees to, the most wanted first for each peer by the peer's own order.
    pub subprotocols: Vec<String>,
    /// Start on any address with whatever was not said left open to everybody.
    pub insecure: bool,
    /// What is compressed.
    pub deflate: Deflate,
    /// Whether a peer may refer back to its earlier messages when it compresses, which costs 48 KiB for each such
    /// connection. They count in `inbound_bytes_total_max`, half of which they may use up; beyond it no peer may.
    pub deflate_client_takeover: bool,
    /// Every numeric limit.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            reactors: 0,
            workers: 0,
            inline_shards: true,
            io_uring: true,
            publish: None,
            subscribe: None,
            observe: None,
            origins: None,
            subprotocols: Vec::new(),
            insecure: false,
            deflate: Deflate::default(),
            deflate_client_takeover: false,
            limits: Limits::default(),
        }
    }
}

/// Most reactors of one process.
pub const REACTORS_MAX: usize = 1024;
/// Most workers of one process.
pub const WORKERS_MAX: usize = 1024;

/// The rights that hold after the defaults are filled in.
#[derive(Clone, Debug)]
pub struct Rights {
    /// Who may publish.
    pub publish: Access,
    /// Who may subscribe, and use own endpoints.
    pub subscribe: Access,
    /// Who may see the console and the figures.
    pub observe: Access,
    /// Which web origins may connect.
    pub origins: Origins,
}

impl From<Rights> for String {
    /// For the line in the log.
    fn from(rights: Rights) -> String {
        let origins = match &rights.origins {
            Origins::Loopback => "this machine",
            Origins::Any => "any",
            Origins::List(_) => "listed",
        };
        let Rights {
            publish,
            subscribe,
            observe,
            ..
        } = rights;
        format!(
            "publish: {publish}, subscribe: {subscribe}, observe: {observe}, origins: {origins}"
        )
    }
}

impl Config {
    /// Checks the values against their ranges and against each other.
    ///
    /// # Errors
    /// Names the first setting that cannot stand, its value and the way out.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.limits.check()?;
        let limits = &self.limits;
        let at_most = |name, value: usize, max: usize| {
            if value <= max {
                return Ok(());
            }
            Err(ConfigError::new(
                name,
                value,
                format!("must be at most {max}; 0 lets the server choose"),
            ))
        };
        at_most("reactors", self.reactors, REACTORS_MAX)?;
        at_most("workers", self.workers, WORKERS_MAX)?;
        if limits.publication_bytes_max > limits.outbox_bytes_max {
            return Err(ConfigError::new(
                "publication_bytes_max",
                limits.publication_bytes_max,
                format!(
                    "a publication must fit an outbox; raise --outbox-bytes-max (now {}) or lower this",
                    limits.outbox_bytes_max
                ),
            ));
        }
        if limits.publication_bytes_max > limits.body_bytes_max {
            return Err(ConfigError::new(
                "publication_bytes_max",
                limits.publication_bytes_max,
                format!(
                    "a publication must fit a request body; raise --body-bytes-max (now {}) or lower this",
                    limits.body_bytes_max
                ),
            ));
        }
        for (name, access) in [
            ("publish", &self.publish),
            ("subscribe", &self.subscribe),
            ("observe", &self.observe),
        ] {
            if matches!(access, Some(Access::Token(token)) if token.is_empty()) {
                return Err(ConfigError::new(
                    name,
                    "token",
                    "the token is empty; give one or choose nobody",
                ));
            }
        }
        self.rights().map(|_| ())
    }

    /// Who may do what, after the defaults of the address are filled in.
    #[doc(hidden)]
    pub fn rights(&self) -> Result<Rights, ConfigError> {
        let open = self.listen.ip().is_loopback() || self.insecure;
        let said = |name: &'static str, access: &Option<Access>| match access {
            Some(access) => Ok(access.clone()),
            None if open => Ok(Access::Anyone),
            None => Err(self.needs_policy(name)),
        };
        Ok(Rights {
            publish: said("publish", &self.publish)?,
            subscribe: said("subscribe", &self.subscribe)?,
            observe: self.observe.clone().unwrap_or(if open {
                Access::Anyone
            } else {
                Access::Nobody
            }),
            origins: match &self.origins {
                Some(origins) => origins.clone(),
                None if self.listen.ip().is_loopback() => Origins::Loopback,
                None if self.insecure => Origins::Any,
                None => return Err(self.needs_policy("origin")),
            },
        })
    }

    fn needs_policy(&self, name: &'static str) -> ConfigError {
        let way_out = format!(
            "{} is not a loopback address, so who may do what must be said: give --publish, --subscribe and \
             --origin, or --insecure to leave everything open",
            self.listen
        );
        ConfigError::new(name, "(not set)", way_out)
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

/// A setting that cannot stand: which, its value, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    setting: String,
    value: String,
    way_out: String,
}

impl ConfigError {
    /// Says that a setting cannot stand, and what to do.
    pub fn new(
        setting: impl Into<String>,
        value: impl fmt::Display,
        way_out: impl Into<String>,
    ) -> Self {
        ConfigError {
            setting: setting.into(),
            value: value.to_string(),
            way_out: way_out.into(),
        }
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
        config.listen = "0.0.0.0:8080".parse().expect("an address");
        let error = config
            .check()
            .expect_err("an open server on every address must be asked for");
        assert_eq!(error.setting(), "publish");
        assert!(error.to_string().contains("--insecure"), "{error}");
        config.insecure = true;
        config.check().expect("it was asked for");
    }

    #[test]
    fn a_policy_that_is_said_in_full_stands_elsewhere() {
        let config = Config {
            listen: "0.0.0.0:80".parse().expect("an address"),
            publish: Some(Access::Token("s3cret".into())),
            subscribe: Some(Access::Anyone),
            origins: Some(Origins::Any),
            ..Config::default()
        };
        let rights = config.rights().expect("all three are said");
        assert_eq!(rights.observe, Access::Nobody);
        assert!(
            !format!("{config:?}").contains("s3cret"),
            "a token must not reach a log"
        );
    }

    #[test]
    fn limits_are_set_by_name_and_checked() {
        let mut limits = Limits::default();
        limits.set("ping_interval_ms", 50).expect("in range");
        assert_eq!(limits.ping_interval_ms, 50);
        assert_eq!(limits.get("ping_interval_ms"), Some(50));
        assert_eq!(limits.get("no_such_limit"), None);
        let error = limits.set("ping_interval_ms", 0).expect_err("out of range");
        assert!(
            error.to_string().contains("UMBEL_PING_INTERVAL_MS"),
            "{error}"
        );
        assert!(limits.set("no_such_limit", 1).is_err());
    }

    #[test]
    fn every_default_lies_in_its_range() {
        for info in Limits::ALL {
            assert!(
                (info.min..=info.max).contains(&info.default),
                "{}",
                info.name
            );
        }
    }
}
