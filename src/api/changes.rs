//! Operations on the subscriptions of connections, and messages to them.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;

use super::body::Fields;
use super::connections::{SPAN_MS_MAX, count, selector, wait};
use super::error::ApiError;
use super::{CallContext, Input, Step};
use crate::auth::jwt::rights_claims::UmbelClaims;
use crate::auth::rights::{Rights, RightsLists};
use crate::dialect::Target;
use crate::hub::{Kind, Position, Start};
use crate::shared::jobs::{Job, Notice, Task};
use crate::topic::{Pattern, Topic};

/// Names of connections in these operations.
const WHO: [&str; 2] = ["connection", "subject"];

/// Longest code of a notice, in bytes.
const CODE_BYTES_MAX: usize = 64;

/// Longest reason of a notice, in bytes.
const REASON_BYTES_MAX: usize = 123;

/// Sends a job on its way, whose answer is one number.
fn start(
    call: &CallContext<'_>,
    input: &Input<'_>,
    task: Task,
    (name, target): (&'static str, String),
) -> Step {
    let responder = call.responder(input, target);
    let job = Job::new(task, move |outcome| {
        let Some(outcome) = outcome else { return };
        responder.respond(count(name, outcome.count));
    });
    call.shared.send_job(job);
    wait(call.shared.settings.limits.handshake_timeout_ms)
}

fn topic(fields: &Fields<'_>) -> Result<Option<Topic>, ApiError> {
    let topic = fields.text("topic")?.map(|text| Topic::from_text(&text));
    let topic = topic.transpose();
    topic.map_err(|refusal| ApiError::invalid_field("topic", refusal.reason))
}

/// `POST /unsubscribe`.
pub(super) fn unsubscribe(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let fields = &input.fields;
    let pattern = fields.text("pattern")?.map(|text| Pattern::parse(&text));
    let pattern = pattern
        .transpose()
        .map_err(|error| ApiError::invalid_field("pattern", error.to_string()))?;
    let target = match (topic(fields)?, pattern) {
        (Some(topic), None) => Target::Topic(topic),
        (None, Some(pattern)) => Target::Pattern(pattern),
        (None, None) => {
            let reason = "\"topic\" or \"pattern\" says which subscription ends";
            return Err(ApiError::missing_field("topic", reason));
        }
        (Some(_), Some(_)) => {
            let reason = "\"topic\" and \"pattern\" do not stand together";
            return Err(ApiError::invalid_field("pattern", reason));
        }
    };
    match &target {
        Target::Topic(topic) => call.may_manage(Some(topic.as_str()))?,
        Target::Pattern(_) => call.may_manage(None)?,
    }
    let (selector, who) = selector(fields, &WHO)?;
    let notice = Notice {
        code: fields
            .text("code")?
            .unwrap_or_else(|| "forbidden".to_owned()),
        reason: fields.text("reason")?,
    };
    if notice.code.is_empty() || notice.code.len() > CODE_BYTES_MAX {
        let reason = format!("\"code\" is a word of at most {CODE_BYTES_MAX} bytes");
        return Err(ApiError::invalid_field("code", reason));
    }
    if notice
        .reason
        .as_ref()
        .is_some_and(|it| it.len() > REASON_BYTES_MAX)
    {
        let reason = format!("\"reason\" has over {REASON_BYTES_MAX} bytes");
        return Err(ApiError::invalid_field("reason", reason));
    }
    let task = Task::Unsubscribe(selector, target, notice);
    Ok(start(call, input, task, ("unsubscribed", who)))
}

/// `POST /subscribe`.
pub(super) fn subscribe(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let fields = &input.fields;
    let Some(topic) = topic(fields)? else {
        let reason = "\"topic\" says what is subscribed to";
        return Err(ApiError::missing_field("topic", reason));
    };
    call.may_manage(Some(topic.as_str()))?;
    let since = fields.text("since")?.map(|text| {
        let position = Position::parse(&text).map(Start::Since);
        position.ok_or_else(|| {
            let reason = "\"since\" is a position, epoch:offset, as an answer has it";
            ApiError::invalid_field("since", reason)
        })
    });
    let from = since.transpose()?.unwrap_or(Start::Now);
    let (selector, who) = selector(fields, &WHO)?;
    let task = Task::Subscribe(selector, topic, from);
    Ok(start(call, input, task, ("subscribed", who)))
}

/// Milliseconds of the last moment of the year 9999, beyond which no time is taken.
const TIME_MS_MAX: u64 = 253_402_300_799_000;

/// `POST /refresh`.
pub(super) fn refresh(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let fields = &input.fields;
    let (selector, who) = selector(fields, &WHO)?;
    let end_ms = match (
        fields.number("expires_at_ms")?,
        fields.number("expires_in_ms")?,
    ) {
        (Some(at_ms), None) => at_ms,
        (None, Some(in_ms)) if in_ms > SPAN_MS_MAX => {
            let reason = format!("\"expires_in_ms\" is a time of at most {SPAN_MS_MAX}");
            return Err(ApiError::invalid_field("expires_in_ms", reason));
        }
        (None, Some(in_ms)) => call.wall_ms.saturating_add(in_ms),
        (None, None) => {
            let reason = "\"expires_at_ms\" or \"expires_in_ms\" says when the identity ends";
            return Err(ApiError::missing_field("expires_at_ms", reason));
        }
        (Some(_), Some(_)) => {
            let reason = "\"expires_at_ms\" and \"expires_in_ms\" do not stand together";
            return Err(ApiError::invalid_field("expires_in_ms", reason));
        }
    };
    if end_ms > TIME_MS_MAX {
        let reason = "a time is before the year 10000";
        return Err(ApiError::invalid_field("expires_at_ms", reason));
    }
    let rights = fields.raw("rights").map(rights_of).transpose()?;
    let task = Task::Refresh(selector, end_ms, rights);
    Ok(start(call, input, task, ("refreshed", who)))
}

/// Rights that a body gives: lists of patterns. Nobody may manage or observe by them.
fn rights_of(raw: &RawValue) -> Result<Box<RightsLists>, ApiError> {
    let invalid =
        |reason: String| ApiError::invalid_field("rights", format!("\"rights\": {reason}"));
    let claims: UmbelClaims =
        serde_json::from_str(raw.get()).map_err(|error| invalid(error.to_string()))?;
    let lists = claims.rights_alone().ok_or_else(|| {
        let reason = "only subscribe, publish, presence, history and deny stand here";
        invalid(reason.to_owned())
    })?;
    let checked = Rights::from_lists(lists).map_err(|problem| problem.to_string());
    checked.map_err(invalid)?;
    Ok(Box::new(lists.clone()))
}

/// `POST /send`.
pub(super) fn send(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let fields = &input.fields;
    let (selector, who) = selector(fields, &WHO)?;
    let (kind, payload) = match (fields.raw("data"), fields.text("base64")?) {
        (Some(data), None) => {
            // A string is the message; the text of any other value is.
            let text = serde_json::from_str::<String>(data.get());
            let text = text.unwrap_or_else(|_| data.get().to_owned());
            (Kind::Text, text.into_bytes())
        }
        (None, Some(text)) => {
            let bytes = BASE64_STANDARD.decode(text);
            let bytes = bytes.map_err(|_| {
                ApiError::invalid_field("base64", "\"base64\" is not base64 with its padding")
            })?;
            (Kind::Binary, bytes)
        }
        (None, None) => {
            let reason = "\"data\" or \"base64\" is the message";
            return Err(ApiError::missing_field("data", reason));
        }
        (Some(_), Some(_)) => {
            let reason = "\"data\" and \"base64\" do not stand together";
            return Err(ApiError::invalid_field("base64", reason));
        }
    };
    let bytes_max = call.shared.settings.limits.publication_bytes_max;
    if payload.len() > bytes_max {
        let reason = format!("the message has over {bytes_max} bytes");
        return Err(crate::http::refusal::Refusal::body_too_large(reason).into());
    }
    let task = Task::Send(selector, kind, payload.into());
    Ok(start(call, input, task, ("sent", who)))
}
