//! Events of connections: HTTP requests, what each wants and whether it may, and messages, which go on to `application`.
//!
//! [`handle_event`] is the one place where events become actions. A request that waits for the hub is answered here too, for
//! what the peer sent behind it is read then.

mod answer;
mod calls;
mod endpoints;
mod history;
mod hook;
mod hosts;
pub mod limits;
mod listings;
mod plain;
mod proxies;
mod publishes;
pub mod refusals;
mod resources;
mod subscriptions;

use answer::{ask_for_tls, handle_request};
use calls::handle_call_body;
use endpoints::{call, handle_opened, handle_route_body};
use limits::refuse_over;
use publishes::{handle_publish_body, handle_publish_lines};

use log::Level;

use crate::application::{Application, CommandContext, PeerAddress};
use crate::connection::{Answer, Endpoint, Event, Message, Purpose};
use crate::dialect::Encoding;
use crate::handler::ConnectionId;
use crate::http::escape::escape;
use crate::http::refusal::Refusal;
use crate::http::request::PROXY_HEADER;
use crate::logging::{Line, more, shown};

pub use calls::end_call;
pub use history::handle_page;
pub use listings::{gather, handle_listed};
pub use publishes::handle_not_placed;

/// The one place where events become actions. An event about which somebody else decides comes again.
pub fn handle_event(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    event: Event<'_>,
    out: &mut Vec<u8>,
) -> Answer {
    match event {
        Event::Message(endpoint, message)
            if application.shared.hook.is_none() && application.asking.is_empty() =>
        {
            let answer = handle_message(application, current, (endpoint, message), out);
            match application.asking.is_begun() {
                false => answer,
                true => finish_asking(application, current, answer),
            }
        }
        Event::Control(..) => Answer::Proceed,
        event => handle_asking(application, current, event, out),
    }
}

/// Dialect of an event's client. None: it is a request, of which that is found out first.
fn dialect_of(application: &Application, event: &Event<'_>) -> Option<&'static str> {
    let dialects = &application.shared.settings.dialects;
    match event {
        Event::Message(Endpoint::Commands(encoding), _)
        | Event::Rest(Endpoint::Commands(encoding), ..) => Some(dialects.get(*encoding).label()),
        Event::Message(Endpoint::Topic { .. }, _) | Event::Rest(Endpoint::Topic { .. }, ..) => {
            Some(dialects.get(Encoding::PAYLOAD).label())
        }
        Event::Body(..) => Some("http"),
        _ => None,
    }
}

/// Handles an event that may have to wait for somebody's decision. Not in line, for messages need none of its frame.
#[inline(never)]
fn handle_asking(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    event: Event<'_>,
    out: &mut Vec<u8>,
) -> Answer {
    if application.shared.hook.is_some() {
        application.asking.set_current(current.id);
        if let Some(dialect) = dialect_of(application, &event) {
            application
                .asking
                .set_client(hook::client_of(application, current, dialect));
        }
    }
    // That something was refused is nothing that could wait.
    if !application.asking.is_empty() && !matches!(event, Event::Refused(..)) {
        application.asking.begin(current.id);
    }
    let answer = carry_out(application, current, event, out);
    match application.asking.is_begun() {
        false => answer,
        true => finish_asking(application, current, answer),
    }
}

#[cold]
fn finish_asking(
    application: &mut Application,
    current: &CommandContext<'_>,
    answer: Answer,
) -> Answer {
    let is_kept = answer.waits_for_decision();
    application.asking.finish(current.id, is_kept);
    answer
}

fn handle_message(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    (endpoint, message): (Endpoint, Message<'_>),
    out: &mut Vec<u8>,
) -> Answer {
    application.metrics.messages_received.add(1);
    match endpoint {
        Endpoint::Topic { may_publish, echo } => {
            application.handle_publication(current, (may_publish, echo), message)
        }
        Endpoint::Commands(encoding) => {
            application.handle_commands(current, encoding, (message, 0), out)
        }
        Endpoint::Handler(number) => call(application, current, number, out, |handler, peer| {
            handler.message(peer, message);
        }),
    }
}

/// In line, for an answer is large, and is not to be copied for each message.
#[inline(always)]
fn carry_out(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    event: Event<'_>,
    out: &mut Vec<u8>,
) -> Answer {
    match event {
        Event::Request(head, headers) => handle_request(application, current, head, headers),
        Event::OverCap(limit, head, headers) => {
            refuse_over(application, current, limit, head, headers)
        }
        Event::Body(
            Purpose::Publish {
                topic,
                kind,
                options,
                wants_receipt,
                idempotency_key,
            },
            body,
        ) => {
            let once = idempotency_key.as_deref();
            handle_publish_body(
                application,
                current,
                topic,
                kind,
                (options, wants_receipt, once),
                body,
            )
        }
        Event::Body(Purpose::PublishLines { idempotency_key }, body) => {
            handle_publish_lines(application, current, idempotency_key.as_deref(), body)
        }
        Event::Body(Purpose::Route(request), body) => {
            handle_route_body(application, current, &request, body)
        }
        Event::Body(
            Purpose::Call {
                request,
                idempotency_key,
            },
            body,
        ) => handle_call_body(application, current, (&request, idempotency_key), body),
        Event::Opened(number, head) => handle_opened(application, current, number, head, out),
        Event::Message(endpoint, message) => {
            handle_message(application, current, (endpoint, message), out)
        }
        Event::Rest(Endpoint::Commands(encoding), message, place) => {
            application.handle_commands(current, encoding, (message, place), out)
        }
        Event::Rest(Endpoint::Topic { may_publish, echo }, message, _) => {
            application.handle_publication(current, (may_publish, echo), message)
        }
        // Of messages of other endpoints nothing is kept.
        Event::Rest(..) => Answer::Proceed,
        // The connection itself has dealt with it.
        Event::Control(..) => Answer::Proceed,
        Event::Refused(refusal, headers) => {
            // Of a head that could not be read nothing was answered before.
            ask_for_tls(application, current.listener, headers);
            count_refusal(application, (current.id, current.peer_address), refusal);
            Answer::Proceed
        }
    }
}

/// Counts what was refused, and logs it.
pub fn count_refusal(
    application: &mut Application,
    (id, peer_address): (ConnectionId, PeerAddress<'_>),
    refusal: &Refusal,
) {
    let words = application.noted.refused.take();
    let labels = Refusal::LABELS.iter();
    let index = labels.zip(0..).find(|(label, _)| **label == refusal.label);
    let mut level = Level::Debug;
    if let Some((_, index)) = index {
        application.metrics.refused[index].add(1);
        let lines = &application.shared.callers.lines;
        if let Some(left_out) = lines.refused[index].take(application.now_us) {
            more("refused", refusal.label, left_out);
            level = Level::Info;
        }
    }
    if refusal.reason == PROXY_HEADER && !std::mem::replace(&mut application.is_proxy_logged, true)
    {
        log::warn!(connection:% = id; "a connection began with a PROXY header: {}", refusal.reason);
    }
    if level > log::max_level() {
        return;
    }
    let peer = peer_address().ok().flatten().map(shown);
    Line::of("refused")
        .with_words("connection", &id)
        .with_some("peer", peer.as_deref())
        .with_some("method", words.as_deref().map(|it| &*it.method))
        .with_some("path", words.as_deref().map(|it| &*it.path))
        .with("status", refusal.status)
        .with("check", refusal.label)
        .with_some(
            "subject",
            words.as_deref().and_then(|it| it.subject.as_deref()),
        )
        .with_some("token", words.as_deref().and_then(|it| it.token.as_deref()))
        .write(level, format_args!("refused: {}", escape(&*refusal.reason)));
}
