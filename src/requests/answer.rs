//! Requests: which resource, whether the request may, and what it is answered with.

use super::calls::begin_call;
use super::endpoints::answer_path;
use super::history::read_history;
use super::hook::ask_who;
use super::hosts::{allow_api, allow_reading, check_host, check_origin, check_site, cookie_counts};
use super::limits::check_address;
use super::listings::{list_topics, show_topic};
use super::plain::answer_plain;
use super::proxies::take_word;
use super::refusals::{note_request, refuse};
use super::resources::{
    api_preflight, asset, metrics_page, no_content, nothing_here, preflight, surface_of, text,
};
use super::subscriptions::{open_many, subscribe_stream, subscribe_websocket};
use crate::application::joined::joined_topic;
use crate::application::{Application, CommandContext};
use crate::auth::access::Action;
use crate::auth::caller::Caller;
use crate::auth::credential::RequestFacts;
use crate::auth::rights::TopicRight;
use crate::config::Surface;
use crate::connection::event::ExtraHeaders;
use crate::connection::{Answer, Purpose, ReadBody};
use crate::dialect::CommandLimits;
use crate::endpoint::find;
use crate::http::escape::escape;
use crate::http::refusal::Refusal;
use crate::http::request::{Head, Method};
use crate::protocol::{is_upgrade, parse_upgrade};
use crate::route::parameters::{
    check_content_encoding, check_own_parameters, content_kind, idempotency_key, publish_options,
    without_values,
};
use crate::route::surface::{is_for_observers, shows};
use crate::route::{Route, split_target};
use crate::topic::Topic;

pub(super) fn handle_request(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    head: &Head<'_>,
    headers: &mut ExtraHeaders,
) -> Answer {
    // What was sent is judged, whatever a proxy tells.
    let checked = check_host(&application.shared.hosts, head);
    let told = take_word(application, current, head);
    let head = told.as_ref().unwrap_or(head);
    if application.noted.is_wanted {
        application.noted.note(head);
    }
    allow_reading(application, head, headers);
    if application.shared.settings.addresses.are_set()
        && let Err(refusal) = check_address(application, current, head)
    {
        note_request(application, current, head, &refusal);
        return refuse(application, current.id, head, refusal);
    }
    let answer = checked.and_then(|()| answer(application, current, head, headers));
    let answer = match answer {
        Ok(answer) => answer,
        Err(_) if application.asking.has_noted() => return Answer::Ask,
        Err(refusal) => {
            note_request(application, current, head, &refusal);
            refuse(application, current.id, head, refusal)
        }
    };
    ask_for_tls(application, current.listener, headers);
    answer
}

/// Header of each answer over TLS that has browsers come by TLS alone.
const HSTS: &str = "Strict-Transport-Security";

/// Adds that header where it is set, once.
pub(super) fn ask_for_tls(application: &Application, listener: u8, headers: &mut ExtraHeaders) {
    if let Some(hsts) = &application.shared.settings.secure.hsts
        && application.shared.speaks_tls(listener)
        && !headers.iter().any(|(name, _)| *name == HSTS)
    {
        headers.push((HSTS, hsts.clone()));
    }
}

fn answer(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    head: &Head<'_>,
    headers: &mut ExtraHeaders,
) -> Result<Answer, Refusal> {
    check_authorization(head)?;
    if application.shared.settings.secure.concerns_plain()
        && let Some(answer) = answer_plain(application, current.listener, head)?
    {
        return Ok(answer);
    }
    let route = Route::parse(head.target, &application.shared.settings.dialects)?;
    let surface = surface_of(application, current.listener);
    let route = match route {
        // What the program has at a path comes first.
        Route::Call(path) if is_own(application, surface, path, head) => Route::Path(path),
        route => route,
    };
    if !shows(surface, &route) {
        return Err(nothing_here(application, current.listener));
    }
    if let Route::Call(_) = route {
        return answer_call(application, current, head, headers, &route);
    }
    check_site(application, head, &route)?;
    if route.topic().is_some() || matches!(route, Route::JoinedStream(_)) {
        check_own_parameters(head)?;
    }
    if let Some(topic) = route.topic().filter(|topic| topic.has_query()) {
        name_topic(application, current, topic, headers);
    }
    // Of a path that may be nobody's it is asked first whether it is there.
    if !matches!(route, Route::Path(_)) {
        if head.method == Method::Options {
            return preflight(application, head, &route);
        }
        route.check_method(head.method)?;
        check_astray(application, head, &route)?;
    }
    let caller = match route {
        // These are for everybody, whatever they show.
        Route::Health | Route::Ready | Route::Asset(_) => Caller::Anonymous,
        _ => identify(application, current, head, &route)?,
    };
    answer_identified(application, current, head, &caller, route)
}

/// Checks that nobody asks for a WebSocket of a dialect where there is something else: a browser does not say that to the
/// page, which would try again for ever.
fn check_astray(
    application: &Application,
    head: &Head<'_>,
    route: &Route<'_>,
) -> Result<(), Refusal> {
    let has_websockets = matches!(route, Route::TopicUpgrade(_) | Route::Commands(_));
    if has_websockets || head.method != Method::Get || !is_upgrade(head) {
        return Ok(());
    }
    let Ok(upgrade) = parse_upgrade(head) else {
        return Ok(());
    };
    let dialects = &application.shared.settings.dialects;
    match dialects.where_offered(upgrade.offers()) {
        Some(place) => Err(Refusal::not_found(format!(
            "there is no WebSocket here; {place}"
        ))),
        None => Ok(()),
    }
}

/// Checks that a request has one credential in its header, if any.
fn check_authorization(head: &Head<'_>) -> Result<(), Refusal> {
    match head.known.authorization.is_repeated() {
        true => Err(Refusal::bad_request(
            "there is more than one Authorization header",
        )),
        false => Ok(()),
    }
}

/// Answers a request to the control API. No page of another origin reads it, but those that the settings name.
fn answer_call(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    head: &Head<'_>,
    headers: &mut ExtraHeaders,
    route: &Route<'_>,
) -> Result<Answer, Refusal> {
    headers.clear();
    if !allow_api(application, head, headers) {
        check_site(application, head, route)?;
    } else if head.method == Method::Options {
        return Ok(api_preflight(head));
    }
    Ok(begin_call(application, current, head))
}

/// Finds out who sent the request, by whatever it shows.
fn identify<'a>(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    head: &Head<'a>,
    route: &Route<'_>,
) -> Result<Caller<'a>, Refusal> {
    let takes_cookies = application.shared.authority.takes_cookies();
    let cookie_counts = takes_cookies && cookie_counts(application, head);
    let facts = RequestFacts {
        now_ms: application.wall_ms(),
        cookie_counts,
        asked: asked_of(route),
    };
    let asked = match by_certificate(application, current)? {
        Some(caller) => Some(caller),
        None => ask_who(application, current, head, route, cookie_counts)?,
    };
    if let Some(caller) = asked {
        return note(application, current, caller);
    }
    application.await_keys(&KEYS, || {
        let authority = &application.shared.authority;
        authority.wait_for_keys_of(head, &facts)
    })?;
    authenticate(application, current, head, &facts)
}

/// Says which topic was taken where the query is part of it, for that may not be what was meant.
fn name_topic(
    application: &mut Application,
    current: &CommandContext<'_>,
    topic: &Topic,
    headers: &mut ExtraHeaders,
) {
    let mut text = String::new();
    topic.encode_target(&mut text);
    headers.push(("Umbel-Topic", text));
    let level = match std::mem::replace(&mut application.is_query_logged, true) {
        true => log::Level::Debug,
        false => log::Level::Info,
    };
    let shown = without_values(topic.as_str());
    log::log!(level, connection:% = current.id, topic:% = escape(&shown);
        "the query of a request is part of its topic, but for parameters such as last and token");
}

/// Key of the question for keys that a request's token needs.
const KEYS: &str = "keys";

/// Whether a path of the control API is the embedding program's, or nobody's, on a listener of this surface.
fn is_own(application: &Application, surface: Surface, path: &str, head: &Head<'_>) -> bool {
    match surface {
        Surface::Public => true,
        Surface::Admin => false,
        Surface::All => find(&application.shared.routes, path, is_upgrade(head)).is_some(),
    }
}

/// Refusal of a stream that names no topic.
fn no_topic(head: &Head<'_>) -> Refusal {
    let (path, _) = split_target(head.target);
    Refusal::not_found(format!(
        "the topic is missing: GET {path}/{{topic}}, or show a token that joins one"
    ))
}

/// The one action on one topic that a request asks for, if it does.
fn asked_of<'r>(route: &'r Route<'_>) -> Option<(TopicRight, &'r str)> {
    let right = match route {
        Route::TopicUpgrade(_) | Route::TopicStream(..) => TopicRight::Subscribe,
        Route::Publish(_) => TopicRight::Publish,
        _ => return None,
    };
    Some((right, route.topic()?.as_str()))
}

/// Whoever shows a certificate, on a listener that identifies by it. It comes before every other credential.
fn by_certificate(
    application: &Application,
    current: &CommandContext<'_>,
) -> Result<Option<Caller<'static>>, Refusal> {
    let shared = &application.shared;
    let listening = shared.listeners.get(usize::from(current.listener));
    if !listening.is_some_and(|listening| listening.tls) {
        return Ok(None);
    }
    let Some(identity) = (current.certificate)() else {
        return Ok(None);
    };
    let caller = shared
        .authority
        .of_certificate(identity, application.wall_ms());
    caller.map_err(|denied| application.refuse_credential(current.peer_address, denied))
}

/// Finds out who sent the request. The connection is theirs until the next one.
pub(super) fn authenticate<'a>(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    head: &Head<'a>,
    facts: &RequestFacts<'_>,
) -> Result<Caller<'a>, Refusal> {
    let authority = &application.shared.authority;
    let token = || authority.shown_token(head, facts);
    if let Some(refusal) = application.refuse_unverified(current.peer_address, token) {
        return Err(refusal);
    }
    let mut caller = authority.authenticate(head, facts).map_err(|denied| {
        let denied = application.after_keys(&KEYS, denied);
        application.refuse_credential(current.peer_address, denied)
    })?;
    if let Caller::Embedder(judged) = &mut caller {
        let address = (current.peer_address)().ok().flatten();
        let peer = address.map(|address| address.ip().to_canonical());
        judged.set_peer(peer, head.known.is_secure);
    }
    note(application, current, caller)
}

/// Notes who sent the request, unless that is denied.
fn note<'a>(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    caller: Caller<'a>,
) -> Result<Caller<'a>, Refusal> {
    let identity = caller.identity().map(|identity| &**identity);
    application.check_denied(identity, current.peer_address)?;
    let noted = application.shared.authority.note(&caller);
    application.identities.replace(current.identity, noted);
    application.note_rate(current.id, &caller);
    Ok(caller)
}

/// Answers a request once it is known who sent it. Nothing here finds that out, so it may be known later.
fn answer_identified(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    head: &Head<'_>,
    caller: &Caller<'_>,
    route: Route<'_>,
) -> Result<Answer, Refusal> {
    // Whether a connection for commands may, is asked as it opens.
    let is_command = matches!(route, Route::Commands(_));
    if !is_command && is_for_observers(surface_of(application, current.listener), &route) {
        application.authorize(caller, Action::Observe)?;
    }
    let route = match route {
        Route::JoinedStream(encoding) => {
            let topic = joined_topic(caller)?.ok_or_else(|| no_topic(head))?;
            Route::TopicStream(encoding, topic)
        }
        route => route,
    };
    answer_route(application, current, head, caller, route)
}

fn answer_route(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    head: &Head<'_>,
    caller: &Caller<'_>,
    route: Route<'_>,
) -> Result<Answer, Refusal> {
    match route {
        Route::Health => Ok(text(200, "ok\n")),
        Route::Ready => Ok(match application.shared.lifecycle.is_ready() {
            true => text(200, "ready\n"),
            false => text(503, "draining\n"),
        }),
        Route::Metrics => {
            application.authorize(caller, Action::Observe)?;
            Ok(metrics_page(application, head))
        }
        Route::Topics => list_topics(application, current, head, caller),
        Route::Topic(topic) => show_topic(application, current, head, caller, topic),
        Route::Asset(path) => asset(application, head, path),
        Route::History(topic) => read_history(application, current, head, caller, topic),
        Route::TopicUpgrade(topic) => {
            subscribe_websocket(application, current, head, caller, topic)
        }
        Route::Commands(path) => open_many(application, current, head, caller, path),
        Route::TopicStream(encoding, topic) => {
            subscribe_stream(application, current, head, caller, encoding, topic)
        }
        Route::Publish(topic) => {
            check_origin(application, head)?;
            application.authorize(caller, Action::Publish(topic.as_str()))?;
            application.note_said(current, caller);
            check_content_encoding(head)?;
            let limits = CommandLimits::of(&application.shared.settings.limits);
            let (options, wants_receipt, idempotency_key) =
                publish_options(head, &limits.fields, application.now_us)?;
            let purpose = Purpose::Publish {
                topic,
                kind: content_kind(head)?,
                options,
                wants_receipt,
                idempotency_key,
            };
            let bytes_max = limits.payload_bytes_max;
            Ok(Answer::ReadBody(ReadBody { purpose, bytes_max }))
        }
        Route::PublishMany => {
            check_origin(application, head)?;
            application.authorize(caller, Action::PublishMany)?;
            check_content_encoding(head)?;
            application.keep_identity(current, caller)?;
            let purpose = Purpose::PublishLines {
                idempotency_key: idempotency_key(head, application.now_us)?,
            };
            let bytes_max = application.shared.settings.limits.body_bytes_max;
            Ok(Answer::ReadBody(ReadBody { purpose, bytes_max }))
        }
        // RFC 9110 section 9.3.7: a question about the server as a whole.
        Route::Path("*") => Ok(no_content(vec![(
            "Allow",
            "GET, HEAD, POST, OPTIONS".to_owned(),
        )])),
        Route::Call(_) => Ok(begin_call(application, current, head)),
        // It was made a stream of its topic.
        Route::JoinedStream(_) => Err(no_topic(head)),
        Route::Path(path) => answer_path(application, current, head, caller, path),
    }
}
