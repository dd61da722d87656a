//! `GET /stats`: figures of the server.

use super::error::ApiError;
use super::{CallContext, Input, Step, json};
use crate::connection::Answer;
use crate::dialect::object::Object;
use crate::metrics::Metrics;
use crate::worker::HubCounts;

/// `GET /stats`.
pub(super) fn show(call: &CallContext<'_>, _: &Input<'_>) -> Result<Step, ApiError> {
    let shared = call.shared;
    let (metrics, hub) = (&shared.metrics, shared.shards.counts());
    let mut body = Vec::with_capacity(1024);
    let uptime_us = call.now_us.saturating_sub(shared.settings.began_us);
    Object::new(&mut body)
        .value("uptime_ms", uptime_us / 1000)
        .with("connections", |out| {
            Object::new(out)
                .value("total", metrics.connection_count())
                .with("by_dialect", |out| {
                    let counts = metrics.connections_by_dialect();
                    let object = counts.fold(Object::new(out), |object, (name, count)| {
                        object.value(name, count)
                    });
                    object.end();
                })
                .with("by_listener", |out| {
                    let listeners = shared.listeners.iter().enumerate();
                    let object = listeners.fold(Object::new(out), |object, (number, it)| {
                        let count = metrics.sum(|reactor| &reactor.by_listener[number]);
                        object.value(&it.name, count as i64)
                    });
                    object.end();
                })
                .end();
        })
        .value("topics", hub.topics)
        .value("publications", hub.publications)
        .value("deliveries", metrics.sum(|reactor| &reactor.deliveries))
        .with("memory", |out| encode_memory(out, metrics, &hub))
        .with("reactors", |out| {
            out.push(b'[');
            for reactor in 0..metrics.reactor_count() {
                if reactor > 0 {
                    out.push(b',');
                }
                let connections = metrics.connection_count_of(reactor);
                let load = metrics.reactor(reactor).load.get() as f64 / 1e6;
                Object::new(out)
                    .value("connections", connections)
                    .value("load", format_args!("{load:.3}"))
                    .end();
            }
            out.push(b']');
        })
        .end();
    Ok(Step::Answer(Answer::Respond(json(200, body))))
}

/// Bytes by what they are for.
fn encode_memory(out: &mut Vec<u8>, metrics: &Metrics, hub: &HubCounts) {
    let object = Object::new(out);
    // Where no budget is known nobody measures.
    match metrics.memory.budget() {
        0 => object,
        budget => object
            .value("budget_bytes", budget)
            .value("used_bytes", metrics.memory.used()),
    }
    .value("outbox_bytes", metrics.sum(|reactor| &reactor.outbox_bytes))
    .value(
        "inbound_bytes",
        metrics.sum(|reactor| &reactor.inbound_bytes),
    )
    .value(
        "subscription_bytes",
        metrics.sum(|reactor| &reactor.subscription_bytes),
    )
    .value(
        "identity_bytes",
        metrics.sum(|reactor| &reactor.identity_bytes),
    )
    .value(
        "compressor_bytes",
        metrics.sum(|reactor| &reactor.compressor_bytes),
    )
    .value("pattern_bytes", hub.pattern_bytes)
    .value("presence_bytes", hub.presence_bytes)
    .value("idempotency_bytes", hub.idempotency_bytes)
    .value("history_bytes", hub.history_bytes)
    .end();
}
