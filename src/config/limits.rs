//! The numeric limits, declared in one table.
//!
//! The flags, the environment variables and the limits page of the guide all come from this table.

use std::fmt;

use super::ConfigError;

/// Effect of a reload on a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reload {
    /// It holds at once.
    Live,
    /// It holds for new connections. Open ones keep what they have.
    New,
    /// It stays as it was until the process is started anew.
    Restart,
}

impl fmt::Display for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reload::Live => "at once",
            Reload::New => "for new connections",
            Reload::Restart => "at a restart",
        })
    }
}

/// Name, default, range and meaning of one limit.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LimitInfo {
    /// Field of [`Limits`]. With dashes it is the flag, in capitals behind `UMBEL_` the environment variable.
    pub name: &'static str,
    /// Value when nothing is set.
    pub default: u64,
    /// Smallest value.
    pub min: u64,
    /// Largest value.
    pub max: u64,
    /// Effect of a reload on it.
    pub reload: Reload,
    /// Meaning, with units and consequences.
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

/// The [`Reload`] of a limit. Where the table says nothing, it holds at once.
macro_rules! reload {
    () => {
        Reload::Live
    };
    (for new connections) => {
        Reload::New
    };
    (at restart) => {
        Reload::Restart
    };
}

macro_rules! limits {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident: $type:ty = $default:literal in $min:literal..=$max:literal $(, $($reload:ident)+)?;
    )+) => {
        /// Numeric limits: bytes, counts and milliseconds, each with its unit at the end of its name.
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
                    reload: reload!($($($reload)+)?),
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
            pub(super) fn errors(&self) -> Vec<ConfigError> {
                let values = [$( self.$name as u64, )+];
                let checked = Limits::ALL.iter().zip(values);
                let errors = checked.filter_map(|(info, value)| check_range(info, value).err());
                errors.chain(self.drain_code_error()).collect()
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
    target_bytes_max: usize = 8000 in 64..=65536;
    /// Bytes of a request body. More is refused with 413. `POST /pub/{topic}` is bound by publication_bytes_max too.
    body_bytes_max: usize = 16777216 in 1024..=1073741824;
    /// Lines of one `POST /pub`. The first line beyond it is answered with an error, later ones not at all. A line may take two places in a mailbox at once, so with more than half of mailbox_messages_max some may be answered 503.
    publish_lines_max: usize = 4000 in 1..=1000000;
    /// Time for a request head to arrive, absolute: from accept, or from the first byte of a later request.
    handshake_timeout_ms: u64 = 10000 in 10..=3600000;
    /// Time for the PROXY header of a connection to arrive, from accept, on a listener with proxy_protocol. It is part of handshake_timeout_ms.
    proxy_header_timeout_ms: u64 = 5000 in 10..=3600000;
    /// Time for an umbel.v1 connection that was opened without a credential to show one by `auth`, where there is nothing that anybody may do. After it the connection is closed with 4408.
    auth_timeout_ms: u64 = 5000 in 10..=3600000;
    /// Connections that wait for `auth`. Beyond it one is closed with 4408: of the address with most of them the one that waited longest. 0 means a tenth of connections_max.
    unauthenticated_max: usize = 0 in 0..=16777216;
    /// Connections of one address (of IPv6 its first 64 bits) that wait for `auth`. Beyond it the one of them that waited longest is closed with 4408.
    unauthenticated_per_address_max: usize = 100 in 1..=16777216;
    /// Connections of one subject, of all its sources. One more is refused with 429, on umbel.v1 with 4429. 0: as many as there may be.
    connections_per_identity_max: u32 = 0 in 0..=16777216;
    /// Wrong tokens that one address (of IPv6 its first 64 bits) may show in a minute; expired ones do not count. More are refused with 429 in place of 401. 0: any number.
    auth_failures_per_address_per_minute: u32 = 60 in 0..=1000000;
    /// Lead with which an umbel.v1 connection is told that its identity ends. A tenth of the life of the token if that is shorter, and up to a fifth less for each.
    token_warn_ms: u64 = 60000 in 0..=86400000;
    /// Time behind the end of an identity in which its connection is still delivered to and may show a newer token. Then it is closed with 4401, each at a moment of its own in the second half of that time.
    token_grace_ms: u64 = 25000 in 0..=86400000;
    /// Time between two fetches of a key set by `jwks_url`, a tenth more or less. A shorter `max-age` of its answer, of a minute at least, counts instead.
    jwks_refresh_ms: u64 = 300000 in 100..=86400000, at restart;
    /// Shortest time between two fetches of a key set, as for a token whose `kid` it has not, and behind a failed fetch.
    jwks_refresh_min_ms: u64 = 10000 in 100..=3600000, at restart;
    /// Age up to which the key set that was fetched last counts while fetches fail. Then its tokens are refused with 503.
    jwks_stale_max_ms: u64 = 86400000 in 0..=2592000000, at restart;
    /// Time for a request body to arrive, absolute, counted from the end of the head.
    body_timeout_ms: u64 = 30000 in 10..=3600000;
    /// Time that an HTTP connection may be idle between two requests.
    keep_alive_timeout_ms: u64 = 75000 in 10..=3600000;
    /// Bytes of a message on a handler endpoint such as `/echo`. More closes with 1009.
    message_bytes_max: usize = 16777216 in 1..=1073741824;
    /// Bytes of a publication, by WebSocket (more closes with 1009) or HTTP (more is refused with 413).
    publication_bytes_max: usize = 1048576 in 1..=1073741824;
    /// Bytes of the event of a publication. More is refused with 400 or invalid_command.
    event_bytes_max: usize = 200 in 1..=255;
    /// Bytes of the id that a publisher gives to a publication. More is refused with 400 or invalid_command.
    message_id_bytes_max: usize = 128 in 1..=255;
    /// Bytes of the content type of a publication. More is refused with 400 or invalid_command.
    content_type_bytes_max: usize = 128 in 3..=255;
    /// Tags of one publication. More are refused with 400 or invalid_command.
    tags_max: usize = 16 in 0..=256;
    /// Bytes of the names and values of the tags of one publication. More are refused with 400 or invalid_command.
    tags_bytes_max: usize = 1024 in 0..=32768;
    /// Fragments of one message. More closes with 1008.
    fragments_max: u32 = 131072 in 1..=16777216;
    /// Time from a message's first byte to its last, absolute. More closes with 1008.
    message_timeout_ms: u64 = 60000 in 10..=3600000;
    /// Silence of a peer after which it is pinged. On event streams, the interval of keep-alive comments.
    ping_interval_ms: u64 = 25000 in 10..=3600000;
    /// Time after a ping for any byte to arrive. More closes with 1001.
    pong_timeout_ms: u64 = 20000 in 10..=3600000;
    /// Time for the closing handshake and for the last bytes to be taken. After it the socket is closed.
    close_timeout_ms: u64 = 5000 in 10..=3600000;
    /// Bytes queued for one connection beyond what the kernel took. A subscriber beyond it is a slow consumer and is closed with 1013. On handler endpoints reading stops until the peer has caught up.
    outbox_bytes_max: usize = 2097152 in 1024..=4294967296;
    /// Age of the oldest byte queued for a connection. An older one makes it a slow consumer: it is closed with 1013.
    outbox_age_max_ms: u64 = 30000 in 10..=3600000;
    /// Bytes queued for all connections together. A connection that would exceed it is closed with 1013. A frame shared by many outboxes counts in each of them. 0: 25 % of memory_budget_bytes.
    outbox_bytes_total_max: usize = 0 in 0..=1099511627776;
    /// Bytes of unfinished requests and messages of all connections together. A connection that would exceed it is closed with 1013 or refused with 503. 0: 15 % of memory_budget_bytes.
    inbound_bytes_total_max: usize = 0 in 0..=1099511627776;
    /// Memory that the process may use. Above 90 % of it new connections are refused with 503, the oldest histories are emptied, and the connections with the largest outboxes are closed with 1013, until what was over 85 % is gone. Mailboxes and commands that wait have a tenth of it each, at most. 0: 75 % of what there is, by the machine and the limits of its control groups.
    memory_budget_bytes: u64 = 0 in 0..=1125899906842624;
    /// SO_SNDBUF of every connection. Together with not_sent_low_water_mark_bytes it bounds the kernel memory of a stalled reader. Below two segments (64 KiB each on loopback) large messages wait for delayed acknowledgements. 0 leaves it to the system.
    send_buffer_bytes: usize = 65536 in 0..=1073741824, for new connections;
    /// SO_RCVBUF of every connection. 0 leaves it to the system.
    receive_buffer_bytes: usize = 0 in 0..=1073741824, for new connections;
    /// TCP_NOTSENT_LOWAT: bytes that the kernel takes ahead of what it may send. 0 leaves it to the system.
    not_sent_low_water_mark_bytes: usize = 16384 in 0..=1073741824, for new connections;
    /// TCP_USER_TIMEOUT: time that sent bytes may stay unacknowledged. 0 leaves it to the system.
    tcp_user_timeout_ms: u64 = 30000 in 0..=3600000, for new connections;
    /// Connections that wait to be accepted, for each listening socket. The kernel caps it at net.core.somaxconn.
    backlog: u32 = 4096 in 1..=65535, at restart;
    /// Connections at a time. More are answered 503. 0 means as many as the descriptor limit allows.
    connections_max: usize = 0 in 0..=16777216;
    /// Connections of one address. One more is refused with 429. 0: any number.
    connections_per_address_max: u32 = 0 in 0..=16777216;
    /// Connections that one address may open in a second. More are refused with 429, and those over a hundred times the rate are closed without a word. 0: any number.
    connects_per_address_per_second: u32 = 0 in 0..=1000000;
    /// Of these, connections that may come at once. 0: those of one second.
    connects_per_address_burst: u32 = 0 in 0..=16777216;
    /// Connections that the process takes in a second. More wait in the backlog. Where no listener is for operators alone, they are refused with 503. 0: any number.
    handshakes_per_second: u32 = 0 in 0..=10000000;
    /// Messages that one connection may send in a second, and requests. It is read from more slowly than that. 0: any number.
    messages_per_connection_per_second: u32 = 0 in 0..=10000000;
    /// Of these, messages that may come at once. 0: those of one second.
    messages_per_connection_burst: u32 = 0 in 0..=100000000;
    /// Bytes that one connection may send in a second. It is read from more slowly than that. 0: any number.
    bytes_per_connection_per_second: u64 = 0 in 0..=1099511627776;
    /// Of these, bytes that may come at once. 0: those of one second.
    bytes_per_connection_burst: u64 = 0 in 0..=1099511627776;
    /// Time for which a connection may send more than its rates on end. Then it is closed with 1008.
    rate_patience_ms: u64 = 10000 in 10..=3600000;
    /// Publications of one identity in a second: of a subject, of a credential without one, or else of an address. More are refused with rate_limited, and with 429. A WebSocket of one topic is read from more slowly. 0: any number.
    publishes_per_identity_per_second: u32 = 0 in 0..=10000000;
    /// Age at which a connection is closed with 1012, each at a moment of its own within a fifth more or less. A client comes back, and so finds the node that has room. 0: none is.
    connection_age_max_ms: u64 = 0 in 0..=2592000000, for new connections;
    /// Bits of an IPv6 address that limits by address tell apart. Of an IPv4 address it is all.
    limit_v6_prefix: u32 = 64 in 32..=128;
    /// Connections accepted in one tick of a reactor, so that a connect storm does not starve established connections.
    accepts_per_tick_max: usize = 64 in 1..=4096;
    /// Interval at which the files of certificates, ticket keys and key sets (`jwks_file`) are looked at for a change.
    certificate_check_ms: u64 = 10000 in 50..=86400000;
    /// Pause in accepting after descriptors or socket memory ran out.
    accept_pause_ms: u64 = 100 in 10..=10000;
    /// TLS hellos that one reactor answers in a tick. The others wait for a later one.
    tls_handshakes_per_tick_max: usize = 4 in 1..=65536, at restart;
    /// Keys of TLS connections that one reactor keeps ready to seal by, for those that are sent most. One takes some 630 bytes.
    tls_kept_keys: usize = 4096 in 0..=65535, at restart;
    /// Keys that all reactors keep ready together. Beyond it a key takes the place of one that its reactor has not used, or is made ready for each burst.
    tls_kept_keys_total_max: usize = 65536 in 0..=16777216, at restart;
    /// TLS handshakes of all listeners that are under way. A connection beyond them is closed without a word.
    tls_handshakes_pending_max: usize = 4096 in 1..=16777216, at restart;
    /// Bytes of a reactor's read buffer, which all of its connections share.
    read_buffer_bytes: usize = 262144 in 4096..=16777216, at restart;
    /// Bytes read from one connection in one tick before other connections have their turn.
    read_budget_bytes: usize = 262144 in 1024..=268435456;
    /// Messages that wait in a reactor's mailbox. When it is full, the hub's shards wait, and publishers with them.
    mailbox_messages_max: usize = 8192 in 16..=1048576, at restart;
    /// Bytes of publications that wait in a reactor's mailbox.
    mailbox_bytes_max: usize = 67108864 in 1048576..=68719476736, at restart;
    /// Commands that wait for one shard of the hub. When it is full, publishers wait: TCP pushes back, HTTP gets 503.
    commands_max: usize = 4096 in 16..=1048576, at restart;
    /// Bytes of publications that wait for one shard of the hub.
    command_bytes_max: usize = 67108864 in 1048576..=68719476736, at restart;
    /// Topics with subscribers, on each reactor. More are refused with 503.
    topics_max: usize = 1048576 in 1..=67108864;
    /// Bytes of all histories together, with the overhead of each topic and the encoded forms of each publication (umbel.v1, event stream, compressed). Resident memory grows by at most a quarter more. Beyond it, the histories that were neither published to nor recovered from for the longest time are emptied. 0: 25 % of memory_budget_bytes.
    history_bytes_total_max: usize = 0 in 0..=1099511627776;
    /// Publications that one subscriber may recover at once. A subscriber that missed more is told that it is not recovered.
    recovery_publications_max: u32 = 10000 in 0..=10000000;
    /// Bytes of publications that one subscriber may recover at once. A subscriber that missed more is told that it is not recovered.
    recovery_bytes_max: usize = 1048576 in 0..=1073741824;
    /// Topics and patterns of one umbel.v1 connection. More are answered with an error.
    subscriptions_max: usize = 1024 in 1..=1048576;
    /// Subscriptions of umbel.v1 connections that begin or end in one tick of a reactor; and as many of connections that have ended. The rest waits for the next one, and a connection counts towards connections_max until its last subscription is gone.
    subscription_steps_per_tick_max: usize = 64 in 1..=1048576;
    /// Bytes of the patterns of one umbel.v1 connection: the text of each, and 400 more. A subscription that would exceed it is refused with too_many_subscriptions.
    pattern_bytes_max: usize = 524288 in 1024..=1073741824;
    /// Bytes of the patterns of all connections together, counted as for pattern_bytes_max. A subscription that would exceed it is refused with too_many_subscriptions.
    pattern_bytes_total_max: usize = 268435456 in 65536..=1099511627776;
    /// Bytes of the subscriptions to topics of all connections together: 144 for each of an umbel.v1 connection, and for each topic on a reactor its name and 448 more, and what is kept of the members of topics with presence, some 700 of a lone one and 80 to 250 of one in a crowd. Reactors have equal parts of it. A subscription that would exceed it is refused with too_many_subscriptions.
    subscription_bytes_total_max: usize = 1073741824 in 65536..=1099511627776;
    /// Commands in one umbel.v1 message. Of a message with more none is carried out, and one error answers it.
    commands_per_message_max: usize = 1000 in 1..=1000000;
    /// Work that one connection causes in one tick of its reactor. A join, a leave and a question about members are 32 each; a publication out of a history and a member in an answer are 1, and each 4 KiB of publications 1 more. Commands beyond it wait for a later tick, and nothing further is read before they are carried out.
    work_per_tick_max: u32 = 2048 in 1..=1000000000;
    /// Publishes that wait for their receipt, on each reactor. More are answered with an error or 503.
    receipts_max: usize = 1024 in 1..=1048576;
    /// Time that the idempotency key of a publish is remembered: the same publish again within it is answered with the first one's position, and not carried out.
    idempotency_age_ms: u64 = 60000 in 1000..=86400000, at restart;
    /// Bytes of the idempotency keys of one publisher: 72 for each, and 48 more. A publisher is a credential, or an address without one. While they are used up, its publishes with another key are refused with unavailable.
    idempotency_bytes_max: usize = 16777216 in 1024..=1099511627776, at restart;
    /// Bytes of the idempotency keys of all publishers together, counted as for idempotency_bytes_max. While they are used up, publishes with another key are refused with unavailable.
    idempotency_bytes_total_max: usize = 67108864 in 0..=1099511627776, at restart;
    /// Entries of the deny list. More are refused with 503, and nothing is dropped.
    deny_entries_max: usize = 100000 in 1..=10000000;
    /// Members of a topic that others are told about, in answers, joins and leaves. Members beyond it are only counted.
    presence_max: usize = 10000 in 1..=1048576;
    /// Writes of joins and leaves to the members of one topic in one second; reactors have equal parts of it, and each KiB counts as one more. What changes faster is told together, later; what was undone meanwhile is not told, and of very much only that it was left out.
    presence_writes_per_second_max: u32 = 20000 in 1..=1000000000;
    /// Bytes of joins and leaves of one topic that wait for the end of their tick, or for their rate. Beyond it members are told at once, or that some were left out.
    presence_changes_bytes_max: usize = 16384 in 256..=16777216;
    /// Topics in one answer of `GET /topics`, and the largest `limit=` it takes. The rest is on the next page. A page ends early at half of outbox_bytes_max.
    topics_listed_max: usize = 10000 in 1..=1000000;
    /// Bytes of the `info` that a connection shows to others by presence. More is refused with 400.
    info_bytes_max: usize = 1024 in 0..=65536;
    /// Bytes of all requests that are kept for an embedding program's Authorizer: one for each umbel.v1 connection, and one for each `POST /pub` until its lines are read. A request beyond it is refused with 503.
    authorizer_head_bytes_total_max: usize = 268435456 in 512..=1099511627776, at restart;
    /// Connections of one reactor that wait for a verdict of an Authorizer that comes later, or for the hook. Nothing is read from them meanwhile. More are refused with 503.
    asks_max: usize = 65536 in 1..=16777216, at restart;
    /// Threads for requests to the hook, started on demand.
    hook_threads: usize = 32 in 1..=1024, at restart;
    /// Questions to the hook that wait for a thread. More are refused with 503.
    hook_queue_max: usize = 4096 in 1..=1048576, at restart;
    /// Bytes of messages in questions to the hook that are on their way. A publish beyond it is refused with 503.
    hook_queue_bytes_max: usize = 67108864 in 4096..=1099511627776, at restart;
    /// Ends of connections that the hook has yet to be told of. More are counted, and not told.
    hook_disconnected_max: usize = 65536 in 1..=1048576, at restart;
    /// Bytes of the shortest message that is compressed. Shorter ones leave uncompressed.
    deflate_bytes_min: usize = 256 in 0..=1073741824;
    /// Bytes of the longest message that is compressed. Longer ones leave uncompressed, as compressing them would hold up a reactor.
    deflate_bytes_max: usize = 1048576 in 0..=1073741824;
    /// Compression level of publications, from 1 (fastest) to 9 (smallest).
    deflate_level: u8 = 3 in 1..=9;
    /// Topics with a shared compression context (a cohort): one compressor of 276 KiB for each such topic on each reactor. The number is divided among the reactors, at least one each; the least active topics give theirs up. 0: every publication is compressed by itself.
    deflate_cohorts_max: usize = 128 in 0..=65536;
    /// Longest time that a new subscriber of a cohort gets publications compressed by themselves, before the cohort's context starts anew.
    deflate_reset_interval_ms: u64 = 5000 in 10..=3600000;
    /// Time for a shutdown: deliver what is queued, close every connection, exit.
    drain_timeout_ms: u64 = 10000 in 0..=3600000;
    /// Time before a shutdown in which everything is served as ever, and `/ready` answers 503, so that whoever sends clients here learns of it.
    pre_stop_ms: u64 = 0 in 0..=3600000;
    /// Close code of a shutdown: 1001, going away, or 1012, service restart.
    drain_code: u16 = 1001 in 1001..=1012;
    /// Time over which clients that a shutdown closes come back: each is told its own moment. 0: by their number, a second for as many as handshakes_per_second lets in, or for each 2,000 and reactor, from 1 s to 60 s.
    reconnect_spread_ms: u64 = 0 in 0..=3600000;
}

impl Limits {
    fn drain_code_error(&self) -> Option<ConfigError> {
        let code = self.drain_code;
        let way_out = "must be 1001, going away, or 1012, service restart";
        let is_wrong = !matches!(code, 1001 | 1012);
        is_wrong.then(|| ConfigError::new("drain_code", code, way_out))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
