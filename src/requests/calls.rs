//! Requests to the control API: what the room [`api`](crate::api) makes of them, carried out for their connections.

use std::sync::Arc;

use super::answer::authenticate;
use super::publishes::publish_to;
use super::{count_refusal, handle_event};
use crate::api::{self, ApiError, CallContext, Publishes, Step};
use crate::application::{Application, CommandContext, ConnectionContext};
use crate::auth::caller::Caller;
use crate::auth::credential::RequestFacts;
use crate::connection::{Answer, Awaited, Event, Reply, RouteRequest};
use crate::http::refusal::Refusal;
use crate::http::request::Head;
use crate::hub::idempotency::GivenKey;
use crate::peers::ToldCell;

/// Begins a request by its head.
pub(super) fn begin_call(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    head: &Head<'_>,
) -> Answer {
    // Browsers send cookies by themselves, and here no page acts for its visitor.
    let facts = RequestFacts::at(application.wall_ms());
    let begun = match authenticate(application, current, head, &facts) {
        Ok(caller) => {
            let kept = application.keep_identity(current, &caller);
            kept.map_err(ApiError::from)
                .and_then(|()| api::begin(&call_context(application, current, &caller), head))
        }
        Err(refusal) => Err(refusal.into()),
    };
    end_step(application, current, begun)
}

/// Carries out a request whose body is here.
pub(super) fn handle_call_body(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    (request, key): (&RouteRequest, Option<Box<GivenKey>>),
    body: &[u8],
) -> Answer {
    let caller = application.identities.get(*current.identity);
    let call = call_context(application, current, caller);
    let outcome = api::carry_out(&call, (request, key), body);
    end_step(application, current, outcome)
}

fn call_context<'c>(
    application: &'c Application,
    current: &CommandContext<'_>,
    caller: &'c Caller<'c>,
) -> CallContext<'c> {
    let peer = (current.peer_address)().ok().flatten();
    CallContext {
        shared: &application.shared,
        caller,
        connection: current.id,
        peer: peer.map(|peer| peer.ip().to_canonical()),
        now_us: application.now_us,
        wall_ms: application.wall_ms(),
    }
}

fn end_step(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    outcome: Result<Step, ApiError>,
) -> Answer {
    match outcome {
        Ok(Step::Answer(answer)) => answer,
        Ok(Step::Publish(publishes)) => publish_called(application, current, *publishes),
        Err(error) => refuse_call(application, current, error),
    }
}

/// Places the publications of one request, and answers with all positions.
fn publish_called(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    publishes: Publishes,
) -> Answer {
    let Publishes {
        topics,
        kind,
        payload,
        options,
        wants_receipt,
        idempotency_key,
        is_one,
    } = publishes;
    let mut answers = Vec::with_capacity(topics.len());
    for (sequence, topic) in (0..).zip(topics) {
        let message = (kind, &*payload, options.clone());
        let publish = (message, wants_receipt, idempotency_key.as_deref());
        match publish_to(application, current, topic, publish, sequence) {
            Err(refusal) if is_one => return refuse_call(application, current, refusal.into()),
            outcome => answers.push(outcome.err().map(|refusal| refusal.encode_json())),
        }
    }
    Answer::Await(match is_one {
        true => Awaited::One,
        false => Awaited::Results(answers),
    })
}

/// Refuses a request, in JSON.
fn refuse_call(
    application: &mut Application,
    current: &CommandContext<'_>,
    error: ApiError,
) -> Answer {
    let refusal = Refusal::of_status(error.status, error.reason.clone());
    count_refusal(application, (current.id, current.peer_address), &refusal);
    Answer::Respond(error.into_reply())
}

/// Answers a request that waits for an outcome.
pub fn end_call(application: &mut Application, context: &mut ConnectionContext<'_>, reply: Reply) {
    let settings = Arc::clone(&application.shared.settings);
    let mut current = CommandContext {
        id: context.id,
        peer_address: &|| Ok(None),
        told: &ToldCell::default(),
        certificate: &|| None,
        identity: context.identity,
        listener: context.listener,
        subscribed: context.subscribed,
        deflate: None,
        may_keep_context: false,
    };
    let (now_ms, answer) = (context.now_ms, Answer::Respond(reply));
    context.connection.end_call(
        &settings,
        now_ms,
        answer,
        context.out,
        &mut |event: Event<'_>, out: &mut Vec<u8>| {
            handle_event(application, &mut current, event, out)
        },
    );
}
