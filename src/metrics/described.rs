//! The numbers without labels: their names, and what they mean.

use super::{Cell, ReactorMetrics};

/// A number of each reactor with its name and its meaning.
pub(super) type Described = (&'static str, &'static str, fn(&ReactorMetrics) -> &Cell);

/// Counters without labels.
pub(super) const COUNTERS: &[Described] = &[
    ("accepted", "Connections accepted", |r| &r.accepted),
    ("accept_errors", "Failed calls of accept", |r| {
        &r.accept_errors
    }),
    (
        "messages_received",
        "Messages received on WebSocket connections",
        |r| &r.messages_received,
    ),
    (
        "messages_sent",
        "Messages sent on WebSocket connections",
        |r| &r.messages_sent,
    ),
    ("received_bytes", "Bytes read", |r| &r.bytes_received),
    ("sent_bytes", "Bytes written", |r| &r.bytes_sent),
    ("deliveries", "Publications handed to subscribers", |r| {
        &r.deliveries
    }),
    ("messages_inflated", "Compressed messages received", |r| {
        &r.messages_inflated
    }),
    (
        "inflate_errors",
        "Compressed messages received that were malformed or too long",
        |r| &r.inflate_errors,
    ),
    (
        "messages_deflated",
        "Messages that handler endpoints sent compressed",
        |r| &r.messages_deflated,
    ),
    (
        "deflate_saved_bytes",
        "Bytes that compression saved on them",
        |r| &r.deflate_saved_bytes,
    ),
    (
        "deflated_deliveries",
        "Deliveries in frames that are compressed by themselves",
        |r| &r.deflated_deliveries,
    ),
    (
        "cohort_deliveries",
        "Deliveries in frames that refer back to earlier ones",
        |r| &r.cohort_deliveries,
    ),
    (
        "cohort_resets",
        "Times that a cohort's context started anew",
        |r| &r.cohort_resets,
    ),
    (
        "recoveries",
        "Subscriptions that recovered everything they missed",
        |r| &r.recoveries,
    ),
    (
        "recovery_failures",
        "Subscriptions that were told that they are not recovered",
        |r| &r.recovery_failures,
    ),
    (
        "publications_replayed",
        "Publications delivered from a history",
        |r| &r.replayed,
    ),
    ("history_pages", "Pages of histories read", |r| {
        &r.history_pages
    }),
    ("command_errors", "Commands answered with an error", |r| {
        &r.command_errors
    }),
    (
        "slow_consumers",
        "Subscribers closed for reading too slowly, counted when told",
        |r| &r.slow_consumers,
    ),
    (
        "publications_dropped",
        "Publications dropped for slow consumers, with a gap marker or their end",
        |r| &r.dropped_oldest,
    ),
    (
        "publications_replaced",
        "Publications replaced for slow consumers by newer ones of the same key, or dropped for their time to live",
        |r| &r.replaced,
    ),
    (
        "publish_replays",
        "Publishes carried out before, by their idempotency key, and answered with that position",
        |r| &r.publish_replays,
    ),
    (
        "idempotency_refusals",
        "Publishes refused for an idempotency key that is another's, or has no room",
        |r| &r.key_refusals,
    ),
    (
        "publish_holds",
        "Times that a full hub held a publisher back",
        |r| &r.publish_holds,
    ),
    (
        "work_holds",
        "Times that a connection caused so much work that its commands were left for a later tick",
        |r| &r.work_holds,
    ),
    (
        "poll_errors",
        "Failures of the event loop's own calls",
        |r| &r.poll_errors,
    ),
];

/// Gauges without labels, summed over the reactors.
pub(super) const GAUGES: &[Described] = &[
    (
        "cohorts",
        "Topics whose compressed publications refer back to earlier ones, summed over the reactors",
        |r| &r.cohorts,
    ),
    (
        "compressor_bytes",
        "Bytes of the compressors for publications",
        |r| &r.compressor_bytes,
    ),
    (
        "outbox_bytes",
        "Bytes queued beyond those that the kernel took",
        |r| &r.outbox_bytes,
    ),
    (
        "inbound_bytes",
        "Bytes of unfinished requests and messages",
        |r| &r.inbound_bytes,
    ),
    (
        "subscription_bytes",
        "Bytes that count towards subscription_bytes_total_max",
        |r| &r.subscription_bytes,
    ),
    (
        "identity_bytes",
        "Bytes of identities of connections, each once on a reactor",
        |r| &r.identity_bytes,
    ),
    (
        "topics",
        "Topics with subscribers, summed over the reactors",
        |r| &r.topics,
    ),
    (
        "patterns",
        "Patterns with subscribers, summed over the reactors",
        |r| &r.patterns,
    ),
    ("mailbox_depth", "Effects that wait in mailboxes", |r| {
        &r.mailbox_depth
    }),
];
