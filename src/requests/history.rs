//! `GET /history/{topic}`: a page of what a topic keeps.

use std::borrow::Cow;
use std::sync::Arc;

use super::handle_event;
use super::hosts::check_origin;
use crate::application::history::{NO_ROOM, PUBLICATIONS_DEFAULT, encode_fitting, start_of_page};
use crate::application::publishes::hub_is_full;
use crate::application::{Application, CommandContext, ConnectionContext};
use crate::auth::access::Action;
use crate::auth::caller::Caller;
use crate::connection::{Answer, Awaited, Event, Reply};
use crate::dialect::History;
use crate::http::refusal::Refusal;
use crate::http::request::Head;
use crate::hub::HistoryPage;
use crate::peers::ToldCell;
use crate::route::json;
use crate::route::parameters::{page_limit, start_of};
use crate::topic::Topic;

/// Asks for a page, for a request.
pub(super) fn read_history(
    application: &mut Application,
    current: &CommandContext<'_>,
    head: &Head<'_>,
    caller: &Caller<'_>,
    topic: Topic,
) -> Result<Answer, Refusal> {
    check_origin(application, head)?;
    application.authorize(caller, Action::History(topic.as_str()))?;
    let limit = page_limit(head, PUBLICATIONS_DEFAULT)?;
    let part = (start_of_page(start_of(head)?, limit), limit);
    application
        .ask_for_page(current.id, 0, topic.clone(), part)
        .map_err(|_| hub_is_full())?;
    Ok(Answer::Await(Awaited::History(topic)))
}

/// Hands a page of a history to whoever asked for it.
pub fn handle_page(
    application: &mut Application,
    context: &mut ConnectionContext<'_>,
    request: u32,
    page: &HistoryPage,
) {
    application.metrics.history_pages.add(1);
    match context.connection.reading().cloned() {
        Some(topic) => respond_page(application, context, &topic, page),
        None => application.handle_page(context, request, page),
    }
}

fn respond_page(
    application: &mut Application,
    context: &mut ConnectionContext<'_>,
    topic: &Topic,
    page: &HistoryPage,
) {
    let settings = Arc::clone(&application.shared.settings);
    // A page that the peer is slow to take has to fit into its outbox.
    let room_bytes = settings.limits.outbox_bytes_max / 2;
    let history = History::new(topic, page);
    let body = encode_fitting(history, room_bytes, json::encode_history);
    let answer = match body {
        Some(mut body) => {
            body.push(b'\n');
            Answer::Respond(Reply {
                status: 200,
                content_type: "application/json",
                headers: vec![("Cache-Control", "no-store".to_owned())],
                body: Cow::Owned(body),
            })
        }
        None => Answer::Refuse(Refusal::unavailable(NO_ROOM)),
    };
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
    let (now_ms, connection) = (context.now_ms, &mut *context.connection);
    connection.end_reading(
        &settings,
        now_ms,
        answer,
        context.out,
        &mut |event: Event<'_>, out: &mut Vec<u8>| {
            handle_event(application, &mut current, event, out)
        },
    );
}
