//! `/may`: whether somebody may do something.

use super::error::ApiError;
use super::{CallContext, Input, Step, json};
use crate::auth::access::Action;
use crate::auth::caller::Caller;
use crate::auth::identity::{Identity, IdentityParts, Source};
use crate::connection::Answer;
use crate::dialect::object::Object;
use crate::http::refusal::Refusal;

/// `POST /may`.
pub(super) fn may(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let fields = &input.fields;
    let Some(token) = fields.text("token")? else {
        let reason = "\"token\" is the credential that is asked about";
        return Err(ApiError::missing_field("token", reason));
    };
    let topic = fields.text("topic")?;
    let name = fields.text("action")?.unwrap_or_default();
    let action = action(&name, topic.as_deref())?;
    let authority = &call.shared.authority;
    let (is_allowed, by) = match authority.identify(&token, call.wall_ms) {
        Ok(identity) => authority.explain(&Caller::Known(identity), action),
        Err(denied) => (false, Refusal::from(denied).reason.into_owned()),
    };
    Ok(answer(is_allowed, &by))
}

/// `GET /may`: what the grants for whoever is signed in give a subject.
pub(super) fn may_subject(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let parameters = &input.parameters;
    let Some(subject) = parameters.text("subject") else {
        let reason = "the subject is missing: ?subject=42";
        return Err(ApiError::missing_field("subject", reason));
    };
    let action = action(
        parameters.text("action").unwrap_or_default(),
        parameters.text("topic"),
    )?;
    // No source in particular: grants that name one are not made.
    let identity = Identity::new(IdentityParts {
        subject: Some(subject.into()),
        ..IdentityParts::of(Source::Jwt("".into()))
    });
    let identity =
        identity.map_err(|error| ApiError::invalid_field("subject", error.to_string()))?;
    let authority = &call.shared.authority;
    let (is_allowed, by) = authority.explain(&Caller::Known(identity), action);
    Ok(answer(is_allowed, &by))
}

fn answer(is_allowed: bool, by: &str) -> Step {
    let mut body = Vec::with_capacity(128);
    Object::new(&mut body)
        .value("allowed", is_allowed)
        .text("by", by)
        .end();
    Step::Answer(Answer::Respond(json(200, body)))
}

fn action<'a>(name: &str, topic: Option<&'a str>) -> Result<Action<'a>, ApiError> {
    let needed = || {
        let reason = "\"topic\" says where, for this action";
        topic.ok_or_else(|| ApiError::missing_field("topic", reason))
    };
    Ok(match name {
        "subscribe" if needed()?.contains('*') => Action::SubscribePattern(needed()?),
        "subscribe" => Action::Subscribe(needed()?),
        "publish" => Action::Publish(needed()?),
        "presence" => Action::Presence(needed()?),
        "history" => Action::History(needed()?),
        "manage" => Action::Manage(topic),
        "observe" => Action::Observe,
        _ => {
            let reason = "\"action\" is subscribe, publish, presence, history, manage or observe";
            return Err(ApiError::invalid_field("action", reason));
        }
    })
}
