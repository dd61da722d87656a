//! The numeric limits, declared in one table.
//!
//! The command line, the environment variables and the README's table all come from it, so a limit cannot exist in one of
//! them alone.

use super::ConfigError;

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
            pub(super) fn check(&self) -> Result<(), ConfigError> {
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
    /// Bytes of the histories of all topics, with what each such topic costs and with the other forms of what they keep: as umbel.v1 and event streams have it, and compressed. For them the process's memory grows by a quarter more at most. Beyond it the histories give way that were neither published to nor recovered from for the longest time.
    history_bytes_total_max: usize = 268435456 in 0..=1099511627776;
    /// Publications that one subscriber may recover at once. Who missed more is told that it is not recovered.
    recovery_publications_max: u32 = 10000 in 0..=10000000;
    /// Bytes of publications that one subscriber may recover at once. Who missed more is told that it is not recovered.
    recovery_bytes_max: usize = 1048576 in 0..=1073741824;
    /// Topics and patterns that one umbel.v1 connection may subscribe to. More are answered with an error.
    subscriptions_max: usize = 1024 in 1..=1048576;
    /// Commands in one umbel.v1 message. Those beyond it are answered with an error.
    commands_per_message_max: usize = 1000 in 1..=1000000;
    /// Publishes that wait for their receipt, on each reactor. More are answered with an error, or with 503.
    receipts_max: usize = 1024 in 1..=1048576;
    /// Connections that who asks is told of as present in a topic. Of those beyond it, how many there are.
    presence_max: usize = 10000 in 1..=1048576;
    /// Topics that one `GET /topics` lists, and the greatest limit= that it takes. More are on the next page. A page that would take more than half of outbox_bytes_max ends early.
    topics_listed_max: usize = 10000 in 1..=1000000;
    /// Bytes of what a connection says of itself to those who are told of its presence. More is refused with 400.
    info_bytes_max: usize = 1024 in 0..=65536;
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
