//! `/may`: whether somebody may do something.

use super::error::ApiError;
use super::{CallContext, Input, Step, json};
use crate::auth::access::Action;
use crate::auth::caller::Caller;
use crate::auth::identity::{Identity, IdentityParts, Source};
use crate::connection::Answer;
use crate::dialect::object::Object;
use crate::http::refusal::Refusal;
use crate::topic::{Pattern, Topic};

/// `POST /may`.
pub(super) fn may(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let fields = &input.fields;
    let Some(token) = fields.text("token")? else {
        let reason = "\"token\" is the credential that is asked about";
        return Err(ApiError::missing_field("token", reason));
    };
    let topic = fields.text("topic")?;
    let name = fields.text("action")?.unwrap_or_default();
    let place = Place::parse(&name, topic.as_deref())?;
    let action = action(&name, &place)?;
    let authority = &call.shared.authority;
    let deny = &call.shared.control.deny;
    let (is_allowed, by) = match authority.identify(&token, call.wall_ms) {
        Ok(identity) => match deny.check(Some(&identity), || None, call.wall_ms) {
            Ok(()) => authority.explain(&Caller::Known(identity), action),
            Err(by) => (false, by.to_string()),
        },
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
    let name = parameters.text("action").unwrap_or_default();
    let place = Place::parse(name, parameters.text("topic"))?;
    let action = action(name, &place)?;
    // No source in particular: grants that name one are not made.
    let identity = Identity::new(IdentityParts {
        subject: Some(subject.into()),
        ..IdentityParts::of(Source::Jwt("".into()))
    });
    let identity =
        identity.map_err(|error| ApiError::invalid_field("subject", error.to_string()))?;
    let authority = &call.shared.authority;
    let (is_allowed, by) = authority.explain_subject(&identity, action);
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

/// Place that an action is about, as rights are compared with it.
enum Place {
    None,
    /// A topic in its canonical form.
    Topic(Topic),
    Pattern(String),
}

impl Place {
    fn parse(action: &str, topic: Option<&str>) -> Result<Place, ApiError> {
        let invalid = |reason: String| ApiError::invalid_field("topic", reason);
        Ok(match topic {
            None => Place::None,
            Some(text) if action == "subscribe" && text.contains('*') => {
                let pattern = Pattern::parse(text).map_err(|error| invalid(error.to_string()))?;
                Place::Pattern(pattern.as_str().to_owned())
            }
            Some(text) => {
                let topic = Topic::from_text(text).map_err(|error| invalid(error.to_string()))?;
                Place::Topic(topic)
            }
        })
    }
}

fn action<'a>(name: &str, place: &'a Place) -> Result<Action<'a>, ApiError> {
    let topic = match place {
        Place::None => None,
        Place::Topic(topic) => Some(topic.as_str()),
        Place::Pattern(text) => Some(&**text),
    };
    let needed = || {
        let reason = "\"topic\" says where, for this action";
        topic.ok_or_else(|| ApiError::missing_field("topic", reason))
    };
    Ok(match name {
        "subscribe" if matches!(place, Place::Pattern(_)) => Action::SubscribePattern(needed()?),
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
