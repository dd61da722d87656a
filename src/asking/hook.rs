//! Questions to the application's hook about what a connection wants.
//!
//! What is denied is denied without a question: the hook's word only allows.

use std::borrow::Cow;
use std::fmt::Debug;
use std::net::IpAddr;

use serde_json::value::RawValue;

use super::Asking;
use crate::auth::access::{Action, Denied};
use crate::auth::caller::Caller;
use crate::auth::hook::{Ended, Hook, Message, Question, is_about};
use crate::auth::identity::Source;
use crate::auth::verdict::{Decision, Edit, Pending, Terms};
use crate::config::HookEvent;
use crate::dialect::Target;
use crate::handler::ConnectionId;
use crate::hub::{Kind, PublishOptions, Start};
use crate::shared::Shared;

/// What a question is about whose answer is to come.
const IS_ASKED: &str = "the application is asked";

/// A message that somebody wants to publish.
pub struct Draft<'d> {
    /// Topic that it is for.
    pub topic: &'d str,
    /// Text or binary.
    pub kind: Kind,
    /// The message.
    pub payload: &'d [u8],
    /// Its other fields.
    pub options: &'d PublishOptions,
}

/// The hook, if it is asked about this.
pub fn asked<'s>(shared: &'s Shared, action: Action<'_>) -> Option<&'s dyn Hook> {
    let hook = shared.hook.as_deref()?;
    is_about(hook, action).then_some(hook)
}

/// A question about somebody's connection.
fn question_of(event: HookEvent, connection: String, caller: &Caller<'_>) -> Question {
    let mut question = Question::new(event, connection);
    question.subject = caller.subject().map(str::to_owned);
    let meta = caller.identity().and_then(|identity| identity.meta());
    question.meta = meta.and_then(|meta| RawValue::from_string(meta.to_owned()).ok());
    question
}

/// Tells the application of the end of a connection. Of the connection it gets the name, the caller
/// and the address of the peer; of the end its code and label.
pub fn tell_ended(
    shared: &Shared,
    (id, caller): (ConnectionId, &Caller<'_>),
    peer: impl FnOnce() -> Option<IpAddr>,
    (code, reason): (u16, &'static str),
    at_ms: u64,
) {
    let hook = shared.hook.as_deref();
    if let Some(hook) = hook.filter(|hook| hook.has(HookEvent::Disconnected)) {
        hook.tell(Ended {
            connection: id.to_string(),
            identity: caller.identity().cloned(),
            peer: peer(),
            code,
            reason,
            at_ms,
        });
    }
}

/// Asks again about a subscription. None: it is not the hook's to allow any more.
pub fn ask_again(
    shared: &Shared,
    (id, caller): (ConnectionId, &Caller<'_>),
    target: &Target,
) -> Option<Pending> {
    let action = match target {
        Target::Topic(topic) => Action::Subscribe(topic.as_str()),
        Target::Pattern(pattern) => Action::SubscribePattern(pattern.as_str()),
    };
    let hook = asked(shared, action)?;
    let mut question = question_of(HookEvent::Subscribe, id.to_string(), caller);
    match target {
        Target::Topic(topic) => question.topic = Some(topic.as_str().to_owned()),
        Target::Pattern(pattern) => question.pattern = Some(pattern.as_str().to_owned()),
    }
    Some(hook.ask(HookEvent::Subscribe, question))
}

/// Whether the hook is asked before the end of somebody's identity.
pub fn is_refreshed(shared: &Shared, caller: &Caller<'_>) -> bool {
    let hook = shared.hook.as_deref();
    let is_hooks = caller
        .identity()
        .is_some_and(|it| *it.source() == Source::Hook);
    is_hooks && hook.is_some_and(|hook| hook.has(HookEvent::Refresh))
}

/// Asks who somebody is from now on.
pub fn ask_to_refresh(
    shared: &Shared,
    (id, caller): (ConnectionId, &Caller<'_>),
    dialect: &'static str,
) -> Option<Pending> {
    let hook = shared.hook.as_deref()?;
    let mut question = question_of(HookEvent::Refresh, id.to_string(), caller);
    question.dialect = dialect;
    Some(hook.ask(HookEvent::Refresh, question))
}

/// Whether something that is the hook's to decide is denied to somebody.
///
/// # Errors
/// It is.
pub fn check_closed(
    shared: &Shared,
    caller: &Caller<'_>,
    action: Action<'_>,
) -> Result<(), Denied> {
    let authority = &shared.authority;
    if authority.is_closed(caller, action) {
        authority.authorize(caller, action)?;
        return Err(Denied::Forbidden("it is closed to you".into()));
    }
    Ok(())
}

impl Asking {
    /// A question about the client of the event that is being dealt with.
    fn question_of(&self, event: HookEvent, caller: &Caller<'_>) -> Question {
        let mut question = question_of(event, self.current(), caller);
        let client = self.client.get();
        (question.peer, question.tls) = (client.peer, client.tls);
        question.dialect = client.dialect;
        question
    }

    /// Notes where the subscription is to begin that is asked about next.
    pub fn set_start(&self, start: Start) {
        self.since.set(match start {
            Start::Since(position) => Some(position),
            Start::Now | Start::Last(_) => None,
        });
    }

    /// Whether somebody may do what the hook is asked about. Of a publish it is not asked yet, for that needs the message.
    ///
    /// # Errors
    /// It may not, or the hook is being asked.
    pub fn decide_by_hook(
        &self,
        (shared, hook): (&Shared, &dyn Hook),
        caller: &Caller<'_>,
        action: Action<'_>,
    ) -> Result<(), Denied> {
        let action = match action {
            Action::Presence(topic) | Action::History(topic) => {
                let authority = &shared.authority;
                if !authority.follows_subscription(caller, action) {
                    return authority.authorize(caller, action);
                }
                Action::Subscribe(topic)
            }
            action => action,
        };
        check_closed(shared, caller, action)?;
        if matches!(action, Action::Publish(_) | Action::PublishMany) {
            return Ok(());
        }
        if let Some(outcome) = self.decided(&action, Decision::access) {
            return outcome;
        }
        let mut question = self.question_of(HookEvent::Subscribe, caller);
        question.since = self.since.take().map(|position| position.to_string());
        match action {
            Action::SubscribePattern(pattern) => question.pattern = Some(pattern.to_owned()),
            Action::Subscribe(topic) => question.topic = Some(topic.to_owned()),
            _ => return Err(Denied::Failed),
        }
        self.note(&action, hook.ask(HookEvent::Subscribe, question))?;
        Err(Denied::unavailable(IS_ASKED))
    }

    /// Terms on which the hook has allowed a subscription in this event. None: it was not asked, or set none.
    pub fn terms(&self, action: Action<'_>) -> Option<Terms> {
        self.decided(&action, |decision| match decision {
            Decision::Subscription(terms) if *terms != Terms::default() => Some(terms.clone()),
            _ => None,
        })
    }

    /// Decision about a publication. Where the hook is asked about it, the event comes again with the answer, which
    /// holds once. `key` tells the publications of an event apart.
    ///
    /// # Errors
    /// It is refused, or the hook is being asked.
    pub fn ask_publication(
        &self,
        shared: &Shared,
        caller: &Caller<'_>,
        key: &dyn Debug,
        draft: &Draft<'_>,
    ) -> Result<Edit, Denied> {
        let Some(hook) = asked(shared, Action::Publish(draft.topic)) else {
            return Ok(Edit::None);
        };
        if let Some(outcome) = self.take_edit(shared, key) {
            return outcome;
        }
        let extras = draft.options.extras();
        let conflation_key = extras.and_then(|extras| extras.key.as_deref());
        let mut question = self.question_of(HookEvent::Publish, caller);
        question.topic = Some(draft.topic.to_owned());
        question.message = Some(Message::new(draft.kind, draft.payload, conflation_key));
        self.note(key, hook.ask(HookEvent::Publish, question))?;
        Err(Denied::unavailable(IS_ASKED))
    }

    /// Decision of the hook about a publication, once.
    pub fn take_edit(&self, shared: &Shared, key: &dyn Debug) -> Option<Result<Edit, Denied>> {
        let outcome = match self.take(key)? {
            Decision::Publication(outcome) => outcome,
            Decision::Access(Err(denied)) => Err(denied),
            _ => Err(Denied::Failed),
        };
        let bytes_max = shared.settings.limits.publication_bytes_max;
        Some(match outcome {
            Ok(Edit::Replace { payload, .. }) if payload.len() > bytes_max => {
                log::error!("the hook made a message that is longer than publication_bytes_max");
                Err(Denied::unavailable(
                    "the application made a message of it that is too long",
                ))
            }
            outcome => outcome,
        })
    }
}

/// A message as the hook changed it: its kind, its payload and its other fields.
pub fn edited<'p>(
    edit: Edit,
    (kind, payload, options): (Kind, &'p [u8], PublishOptions),
) -> Option<(Kind, Cow<'p, [u8]>, PublishOptions)> {
    match edit {
        Edit::None => Some((kind, payload.into(), options)),
        Edit::Skip => None,
        Edit::Replace {
            kind,
            is_json,
            payload,
        } => {
            let options = match is_json {
                true => options.json(),
                false => options,
            };
            Some((kind, payload.into_vec().into(), options))
        }
    }
}
