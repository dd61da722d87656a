//! `GET /trace`: what happens, while it happens.

use std::sync::Arc;

use super::error::ApiError;
use super::responder::Audit;
use super::{CallContext, Input, Step};
use crate::connection::Answer;
use crate::handler::ConnectionId;
use crate::hub::ReactorId;
use crate::topic::Pattern;
use crate::trace::{
    DURATION_MS, DURATION_MS_MAX, DURATION_MS_MIN, Moment, Subject, TRACES_MAX, Trace, Wanted,
};

/// What is told where there are as many traces as there may be.
const FULL: &str =
    "there are 4 traces already, and no more at a time: ask again when one has ended";

const _: () = assert!(TRACES_MAX == 4, "the reason above says so");

/// `GET /trace`. Topics may be traced by whoever may observe them, connections and subjects by whoever may manage everything.
pub(super) fn trace(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let parameters = &input.parameters;
    let with_payloads: bool = parameters.parsed("payloads")?.unwrap_or(false);
    let duration_ms = parameters.parsed("duration_ms")?.unwrap_or(DURATION_MS);
    if !(DURATION_MS_MIN..=DURATION_MS_MAX).contains(&duration_ms) {
        let reason =
            format!("\"duration_ms\" is a number from {DURATION_MS_MIN} to {DURATION_MS_MAX}");
        return Err(ApiError::invalid_field("duration_ms", reason));
    }
    let subject = subject(input)?;
    match &subject {
        Subject::Topics(pattern) if with_payloads => call.may_manage(Some(pattern.as_str()))?,
        Subject::Topics(pattern) => call.may_observe(Some(pattern.as_str()))?,
        Subject::Connection(_) | Subject::Identity(_) => call.may_manage(None)?,
    }
    let now_ms = call.now_us / 1000;
    let until_ms = match call.caller.identity().and_then(|it| it.expires_at_ms()) {
        Some(end_ms) => duration_ms.min(end_ms.saturating_sub(call.wall_ms)),
        None => duration_ms,
    } + now_ms;
    let (shards, reactor) = (Arc::clone(&call.shared.shards), call.connection.reactor);
    let wanted = Wanted {
        subject,
        owner: call.connection,
        with_payloads,
        until_ms,
        wake: Box::new(move || shards.wake(ReactorId(reactor))),
    };
    let at = Moment {
        clock_ms: now_ms,
        wall_ms: call.wall_ms,
    };
    let tell_started = |trace: &Trace| {
        trace.tell(at, "started", |object| {
            let object = object.number("until_ms", call.wall_ms + (until_ms - now_ms));
            match &trace.subject {
                Subject::Connection(id) => object.plain("connection", id),
                Subject::Topics(pattern) => object.text("topic", pattern.as_str()),
                Subject::Identity(subject) => object.text("subject", subject),
            }
        });
    };
    let Some(trace) = call.shared.control.traces.begin(wanted, tell_started) else {
        return Err(ApiError::unavailable(FULL));
    };
    call.shared.shards.wake_all();
    let target = match &trace.subject {
        Subject::Connection(id) => id.to_string(),
        Subject::Topics(pattern) => pattern.as_str().to_owned(),
        Subject::Identity(subject) => subject.to_string(),
    };
    let result = if with_payloads {
        "traced with payloads"
    } else {
        "traced"
    };
    Audit::new(call, input.operation, target).write(result);
    Ok(Step::Answer(Answer::Lines))
}

/// What a request wants to follow.
fn subject(input: &Input<'_>) -> Result<Subject, ApiError> {
    let text = |name| input.parameters.text(name);
    match (text("connection"), text("topic"), text("subject")) {
        (Some(id), None, None) => {
            let id: Result<ConnectionId, _> = id.parse();
            let id =
                id.map_err(|error| ApiError::invalid_field("connection", format!("{error}")))?;
            Ok(Subject::Connection(id))
        }
        (None, Some(pattern), None) => {
            let pattern = Pattern::parse(pattern);
            let pattern =
                pattern.map_err(|error| ApiError::invalid_field("topic", error.to_string()))?;
            Ok(Subject::Topics(pattern))
        }
        (None, None, Some(subject)) => Ok(Subject::Identity(subject.into())),
        (None, None, None) => {
            let reason = "one of \"connection\", \"topic\" and \"subject\" says what is traced";
            Err(ApiError::missing_field("connection", reason))
        }
        _ => {
            let reason = "\"connection\", \"topic\" and \"subject\" do not stand together";
            Err(ApiError::invalid_field("connection", reason))
        }
    }
}
