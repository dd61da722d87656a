//! Operations on the deny list.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::error::ApiError;
use super::{CallContext, Input, Step, connections, json};
use crate::auth::deny::{Denial, DenyListFull, Entry, NotTakenOff};
use crate::connection::Answer;
use crate::dialect::object::Object;
use crate::http::refusal::Refusal;
use crate::shared::jobs::{Job, Task};

/// Milliseconds of the last moment of the year 9999, beyond which no time is taken.
const TIME_MS_MAX: u64 = 253_402_300_799_000;

/// `POST /deny`.
pub(super) fn add(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let fields = &input.fields;
    let mut given = Denial::KINDS
        .iter()
        .filter(|kind| fields.raw(kind).is_some());
    let kinds = Denial::KINDS.join(", ");
    let Some(kind) = given.next() else {
        let reason = format!("one of {kinds} says whom to deny");
        return Err(ApiError::missing_field("subject", reason));
    };
    if let Some(other) = given.next() {
        let reason = format!("exactly one of {kinds} says whom to deny");
        return Err(ApiError::invalid_field(other, reason));
    }
    let value = fields.text(kind)?.unwrap_or_default();
    let denial = Denial::parse(kind, &value);
    let denial =
        denial.map_err(|error| ApiError::invalid_field(kind, format!("\"{kind}\": {error}")))?;
    let now_ms = call.wall_ms;
    // Null is of no time: also tokens that are made later.
    let is_of_all = fields.raw("issued_before").map(RawValue::get) == Some("null");
    let before = match is_of_all {
        true => None,
        false => fields.number("issued_before")?,
    };
    let issued_before = match (kind, before) {
        (&"subject", _) if is_of_all => None,
        (&"subject", before) => Some(before.unwrap_or(now_ms / 1000)),
        (_, None) if !is_of_all => None,
        _ => {
            let reason = "\"issued_before\" is for a subject";
            return Err(ApiError::invalid_field("issued_before", reason));
        }
    };
    let until_ms = fields.number("until_ms")?;
    let is_late = |ms: Option<u64>| ms.is_some_and(|ms| ms > TIME_MS_MAX);
    if is_late(until_ms) || is_late(issued_before.map(|it| it.saturating_mul(1000))) {
        let reason = "a time is before the year 10000";
        return Err(ApiError::invalid_field("until_ms", reason));
    }
    // Nothing is kept for longer than what it denies may live.
    let authority = &call.shared.authority;
    let until_ms = until_ms.or_else(|| authority.denial_end_ms(&denial, now_ms));
    let entry = Entry {
        denial,
        issued_before,
        until_ms,
        is_fixed: false,
        ends_open: true,
    };
    let id = add_entry(call, entry.clone())?;
    let responder = call.responder(input, format!("{kind} {value}"));
    let control = Arc::clone(&call.shared.control);
    let is_persistent = control.is_persistent();
    control.keep(Box::new(move |kept| match kept {
        Ok(()) => {
            let mut body = Vec::with_capacity(128);
            add_to(Object::new(&mut body), id, &entry)
                .value("persistent", is_persistent)
                .end();
            responder.respond(body);
        }
        Err(_) => responder.fail(not_kept()),
    }));
    Ok(connections::wait(
        call.shared.settings.limits.handshake_timeout_ms,
    ))
}

/// Adds an entry, and ends the connections that it denies.
fn add_entry(call: &CallContext<'_>, entry: Entry) -> Result<u64, ApiError> {
    let entries_max = call.shared.settings.limits.deny_entries_max;
    let deny = &call.shared.control.deny;
    let added = deny.change_for_open(|list| list.add(entry, entries_max, call.wall_ms));
    let id = added.map_err(|DenyListFull| deny_list_full())?;
    // It wakes reactors, no more: one that has no room for it is awake.
    call.shared.send_job(Job::new(Task::Revoke, |_| {}));
    Ok(id)
}

pub(super) fn deny_list_full() -> ApiError {
    ApiError::unavailable("the deny list has as many entries as deny_entries_max allows")
}

pub(super) fn not_kept() -> ApiError {
    ApiError::unavailable(
        "it holds in this process, but could not be written to state_directory; the log says why",
    )
}

/// `GET /deny`.
pub(super) fn list(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let limit = input.parameters.limit()?;
    let from = input.parameters.text("cursor").map(str::parse::<u64>);
    let from = from.transpose().map_err(|_| {
        let reason = "the cursor is none: it is what \"next\" of an answer says";
        ApiError::invalid_field("cursor", reason)
    })?;
    let list = call.shared.control.deny.read();
    let mut page = list.page(from.unwrap_or(0), call.wall_ms);
    let mut body = Vec::with_capacity(1024);
    let object = Object::new(&mut body).with("denies", |out| {
        out.push(b'[');
        for (at, (id, entry)) in page.by_ref().take(limit).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            add_to(Object::new(out), id, entry).end();
        }
        out.push(b']');
    });
    match page.next() {
        Some((next, _)) => object.plain("next", next),
        None => object,
    }
    .end();
    Ok(Step::Answer(Answer::Respond(json(200, body))))
}

/// `DELETE /deny/{id}`.
pub(super) fn remove(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let stays = |why| match why {
        NotTakenOff::Unknown => Refusal::not_found("there is no entry of this id"),
        NotTakenOff::Fixed => Refusal::conflict(
            "it stands in deny_file, and would be back with the next reload: take its line out there, and reload",
        ),
    };
    let id: Option<u64> = input.id.parse().ok();
    let control = Arc::clone(&call.shared.control);
    let taken_off = match id {
        Some(id) => control.deny.change(|list| list.take_off(id)),
        None => Err(NotTakenOff::Unknown),
    };
    taken_off.map_err(stays)?;
    let responder = call.responder(input, input.id.to_owned());
    let is_persistent = control.is_persistent();
    control.keep(Box::new(move |kept| match kept {
        Ok(()) => {
            let mut body = Vec::with_capacity(64);
            Object::new(&mut body)
                .value("removed", true)
                .value("persistent", is_persistent)
                .end();
            responder.respond(body);
        }
        Err(_) => responder.fail(not_kept()),
    }));
    Ok(connections::wait(
        call.shared.settings.limits.handshake_timeout_ms,
    ))
}

fn add_to<'o>(object: Object<'o>, id: u64, entry: &Entry) -> Object<'o> {
    let mut object = object
        .plain("id", id)
        .plain("kind", entry.denial.kind())
        .text("value", &entry.denial.value());
    for (name, value) in [
        ("issued_before", entry.issued_before),
        ("until_ms", entry.until_ms),
    ] {
        if let Some(value) = value {
            object = object.value(name, value);
        }
    }
    match entry.is_fixed {
        true => object.value("file", true),
        false => object,
    }
}
