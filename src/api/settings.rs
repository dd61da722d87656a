//! Operations on the settings: what they are, and a reload.

use std::thread;

use super::connections::wait;
use super::error::ApiError;
use super::{CallContext, Input, Step, json};
use crate::connection::Answer;
use crate::http::refusal::Refusal;

/// Wait for a reload, in milliseconds: as long as whoever reloads tries while an earlier one is not through.
const RELOAD_WAIT_MS: u64 = 60_000;

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
        Ok(needs_restart) => {
            let names = serde_json::Value::from(needs_restart);
            responder.respond(format!("{{\"needs_restart\":{names}}}").into_bytes());
        }
        Err(reason) => responder.fail(Refusal::conflict(reason).into()),
    });
    Ok(wait(RELOAD_WAIT_MS))
}
