//! Operations on the server as a whole: its settings, a reload, and whether it is in service.

use std::thread;

use super::connections::wait;
use super::error::ApiError;
use super::{CallContext, Input, READ_WAIT_MS, Step, json};
use crate::connection::Answer;
use crate::dialect::object::Object;
use crate::http::refusal::Refusal;

/// Wait for a reload, in milliseconds: as long as whoever reloads tries while an earlier one is not through.
const RELOAD_WAIT_MS: u64 = 60_000;

/// Connections that a server out of service closes in a second, at most.
const CLOSES_PER_SECOND_MAX: u64 = 1_000_000;

/// `GET /config`.
pub(super) fn show(call: &CallContext<'_>, _: &Input<'_>) -> Result<Step, ApiError> {
    let text = call.shared.control.config_text();
    let text = text.ok_or_else(|| ApiError::unavailable("the server has not started yet"))?;
    Ok(Step::Answer(Answer::Respond(json(200, text.into_bytes()))))
}

/// `POST /reload`. The file is read on a thread of its own.
pub(super) fn reload(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let Some(reload) = call.shared.control.reloader() else {
        let reason = "nothing to reload: the settings come from no file";
        return Err(Refusal::conflict(reason).into());
    };
    let responder = call.responder(input, String::new());
    let thread = thread::Builder::new().name("umbel-reload-api".to_owned());
    // Without a thread the responder is dropped, and answers 503.
    let _ = thread.spawn(move || match reload() {
        Ok((generation, needs_restart)) => {
            let names = serde_json::Value::from(needs_restart);
            let mut body = Vec::with_capacity(64);
            Object::new(&mut body)
                .value("generation", generation)
                .value("needs_restart", names)
                .end();
            responder.respond(body);
        }
        Err(problems) => responder.fail(ApiError::invalid_settings(problems)),
    });
    Ok(wait(RELOAD_WAIT_MS))
}

/// `POST /drain`.
pub(super) fn drain(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let fields = &input.fields;
    let is_out = fields.boolean("on")?.ok_or_else(|| {
        ApiError::missing_field("on", "\"on\" says whether the server is out of service")
    })?;
    let rate = fields.number("close_per_second")?.unwrap_or(0);
    if rate > CLOSES_PER_SECOND_MAX {
        let reason = format!("\"close_per_second\" is at most {CLOSES_PER_SECOND_MAX}");
        return Err(ApiError::invalid_field("close_per_second", reason));
    }
    if !is_out && rate > 0 {
        let reason = "a server that is in service closes nobody: leave \"close_per_second\" out";
        return Err(ApiError::invalid_field("close_per_second", reason));
    }
    let responder = call.responder(input, String::new());
    let lifecycle = &call.shared.lifecycle;
    lifecycle.set_absent(is_out.then_some(rate as u32));
    // A reactor that has nothing to do would look again within a second.
    call.shared.shards.wake_all();
    let mut body = Vec::with_capacity(64);
    Object::new(&mut body)
        .value("on", is_out)
        .value("close_per_second", rate)
        .value("ready", lifecycle.is_ready())
        .value("connections", call.shared.metrics.connection_count())
        .end();
    responder.respond(body);
    Ok(wait(READ_WAIT_MS))
}
