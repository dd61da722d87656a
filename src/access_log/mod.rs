//! The access log: openings and ends of connections, with what is known of them.
//!
//! A connection is followed from its beginning on, or not at all. What is kept of those that are stands beside the slots, so a
//! server without an access log keeps nothing.

mod followed;

pub use followed::{Followed, FollowedTable};

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::SocketAddr;

use log::Level;

use crate::application::Application;
use crate::auth::table::IdentityHandle;
use crate::config::AccessLog;
use crate::connection::{CloseReason, Label, Secured, Settings};
use crate::handler::ConnectionId;
use crate::http::response::answer_head;
use crate::logging::{Line, more, shown};
#[cfg(feature = "tls")]
use crate::metrics::tls::alert_name;
use crate::protocol::CloseCode;
use crate::shared::jobs::Traffic;

/// Level at which a connection is followed. None: it is not.
pub fn follows(settings: &Settings, id: ConnectionId) -> Option<Level> {
    let level = match settings.access_log {
        AccessLog::All
            if settings
                .access_log_sample
                .takes(id.to_bits() ^ bits_of_reactor(id)) =>
        {
            Level::Info
        }
        _ => Level::Debug,
    };
    let is_wanted = level <= log::max_level();
    match settings.access_log {
        AccessLog::Off if !is_wanted => None,
        _ => Some(level),
    }
}

/// Whether the log may tell of an end for this reason.
pub fn tells_of(settings: &Settings, reason: CloseReason) -> bool {
    let is_fault = settings.access_log != AccessLog::Off && reason.is_fault_of_peer();
    is_fault || log::log_enabled!(target: "umbel::events", Level::Debug)
}

/// The number of a connection's reactor, where no other number of it has bits.
fn bits_of_reactor(id: ConnectionId) -> u64 {
    u64::from(id.reactor).rotate_right(16)
}

/// A connection at its opening, or at its end.
pub struct Told {
    /// Its name.
    pub id: ConnectionId,
    /// The number of the listener that it came by.
    pub listener: u8,
    /// Identity of its opener.
    pub identity: IdentityHandle,
    /// Its client, as trusted proxies tell.
    pub client: Option<SocketAddr>,
    /// Protocol of TLS and what was agreed to on top of it.
    pub secured: Option<Secured>,
}

/// End of a connection.
pub struct End<'a> {
    /// The reason.
    pub reason: CloseReason,
    /// Code that the peer was told, or told.
    pub code: CloseCode,
    /// Bytes in both directions. They are asked for only where they are told.
    pub traffic: &'a dyn Fn() -> Option<Traffic>,
}

/// Writes that a connection was opened.
pub fn opened(application: &Application, told: &Told, followed: &mut Followed, label: Label) {
    followed.dialect = Some(label.name(&application.shared.settings.dialects));
    if followed.level <= log::max_level() {
        let words = Words::of(application, told, Some(followed));
        let line = words.fields(Line::of("opened"));
        line.write(followed.level, format_args!("opened"));
    }
}

/// Writes that a connection has ended, if the log tells of it.
pub fn closed(application: &Application, told: &Told, followed: Option<&Followed>, end: &End<'_>) {
    let shared = &application.shared;
    let is_fault = end.reason.is_fault_of_peer();
    // Of one that was not opened there is no line but those of its requests.
    let is_sampled = followed.is_some_and(|it| it.level == Level::Info && it.dialect.is_some());
    let level = match is_sampled {
        true => Level::Info,
        false if is_fault && shared.settings.access_log != AccessLog::Off => Level::Info,
        false => Level::Debug,
    };
    if level > log::max_level() {
        return;
    }
    if level == Level::Info && !is_sampled {
        let allowance = &shared.callers.lines.closed[end.reason.index()];
        match allowance.take(application.now_us) {
            Some(left_out) => more("closed", end.reason.label(), left_out),
            None => return,
        }
    }
    let words = Words::of(application, told, followed);
    let line = words.fields(Line::of("closed"));
    let by = match end.reason.is_by_peer() {
        true => "peer",
        false => "server",
    };
    let mut line = line
        .with("reason", end.reason.label())
        .with("code", end.code.get())
        .with("by", by);
    #[cfg(feature = "tls")]
    if let CloseReason::Tls(alert) = end.reason {
        line = line.with("alert", alert_name(alert));
    }
    if let Some(followed) = followed {
        line = line
            .with(
                "duration_ms",
                application.now_us.saturating_sub(followed.accepted_us) / 1000,
            )
            .with("messages", followed.messages)
            .with("publications", followed.publications)
            .with("subscriptions", followed.subscriptions);
    }
    if let Some(traffic) = (end.traffic)() {
        line = line
            .with("received_bytes", traffic.received_bytes)
            .with("sent_bytes", traffic.sent_bytes);
    }
    if told.secured.is_some_and(|secured| secured.is_truncated) {
        line = line.with("truncated", true);
    }
    line.write(level, format_args!("closed"));
}

/// Writes that requests were answered: by the answers among what is written to their connection.
pub fn answered(id: ConnectionId, followed: &mut Followed, mut out: &[u8], now_us: u64) {
    while !followed.unanswered.is_empty()
        && let Some(head) = answer_head(out)
    {
        let is_interim = head.status < 200 && head.status != 101;
        let first = followed.unanswered.front();
        let is_head = first.is_some_and(|it| &*it.method == "HEAD");
        let bytes = head.body_bytes.filter(|_| !is_head && head.status != 304);
        if !is_interim && let Some(request) = followed.unanswered.pop_front() {
            // What was asked for in this turn, and answered in it, took none of the reactor's.
            Line::of("request")
                .with_words("connection", &id)
                .with("method", &*request.method)
                .with("path", &*request.path)
                .with("status", head.status)
                .with_some("bytes", bytes)
                .with("duration_us", now_us.saturating_sub(request.began_us))
                .write(Level::Debug, format_args!("request"));
        }
        out = out.get(head.len + bytes.unwrap_or(0)..).unwrap_or_default();
    }
    // Most connections ask once, and are then open for long.
    if followed.unanswered.is_empty() {
        followed.unanswered = VecDeque::new();
    }
}

/// A connection that is ended, for it takes too slowly.
pub struct SlowConsumer<'a> {
    /// Its topic, where it has one alone.
    pub topic: Option<&'a str>,
    /// Bytes that waited for it, when they were last counted.
    pub queued_bytes: u32,
    /// Since when the oldest of those that are left waits, in milliseconds.
    pub oldest_ms: Option<u64>,
    /// The other end of its socket.
    pub peer: String,
}

/// Writes that a connection is ended, for it takes too slowly.
pub fn slow_consumer(application: &Application, told: &Told, slow: &SlowConsumer<'_>) {
    let lines = &application.shared.callers.lines;
    let Some(left_out) = lines.slow_consumer.take(application.now_us) else {
        return;
    };
    more("slow_consumer", "slow_consumer", left_out);
    let peer = told.client.map_or_else(|| slow.peer.clone(), shown);
    let now_ms = application.now_us / 1000;
    let age_ms = slow.oldest_ms.map(|it| now_ms.saturating_sub(it));
    Line::of("slow_consumer")
        .with_words("connection", &told.id)
        .with("peer", &*peer)
        .with_some("topic", slow.topic)
        .with("queued_bytes", slow.queued_bytes)
        .with_some("age_ms", age_ms)
        .write(Level::Info, format_args!("slow_consumer"));
}

/// What both lines tell of a connection.
struct Words<'a> {
    id: ConnectionId,
    peer: Option<Cow<'a, str>>,
    proxy: Option<&'a str>,
    listener: &'a str,
    subject: Option<&'a str>,
    secured: Option<Secured>,
    followed: Option<&'a Followed>,
}

impl<'a> Words<'a> {
    fn of(application: &'a Application, told: &Told, followed: Option<&'a Followed>) -> Words<'a> {
        let socket = followed.map(|followed| &*followed.socket);
        let client = told.client.map(|client| shown(client).into());
        Words {
            id: told.id,
            proxy: socket.filter(|_| client.is_some()),
            peer: client.or(socket.map(Cow::Borrowed)),
            listener: application.shared.listener_name(told.listener),
            subject: application.identities.get(told.identity).subject(),
            secured: told.secured,
            followed,
        }
    }

    fn fields<'w>(&'w self, line: Line<'w>) -> Line<'w> {
        let request = self.followed.and_then(|it| it.request.as_deref());
        line.with_words("connection", &self.id)
            .with_some("peer", self.peer.as_deref())
            .with_some("proxy", self.proxy)
            .with("listener", self.listener)
            .with(
                "dialect",
                self.followed.and_then(|it| it.dialect).unwrap_or("http"),
            )
            .with_some("path", request.map(|it| &*it.path))
            .with_some("subject", self.subject)
            .with_some("origin", request.and_then(|it| it.origin.as_deref()))
            .with_some(
                "user_agent",
                request.and_then(|it| it.user_agent.as_deref()),
            )
            .with_some("tls", self.secured.map(|it| it.version))
            .with_some("alpn", self.secured.and_then(|it| it.alpn))
    }
}
