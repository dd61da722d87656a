//! Requests that open a subscription: upgrades, event streams, and connections with many topics.

use std::sync::Arc;

use super::hosts::check_origin;
use super::refusals::{is_of_script, retry_ms, shutting_down};
use super::resources::surface_of;
use crate::application::joined::joined_topic;
use crate::application::joins::Question;
use crate::application::publishes::hub_is_full;
use crate::application::signed::Allowed;
use crate::application::{Application, CommandContext};
use crate::auth::access::Action;
use crate::auth::caller::Caller;
use crate::auth::credential::{RAW_SUBPROTOCOL, is_token_offer};
use crate::config::Surface;
use crate::connection::{Admission, Answer, Endpoint, Stream, Upgrade};
use crate::dialect::{Encoding, Greeting, Opening, Target, info_json};
use crate::fanout::subscribed::MultiSubscription;
use crate::fanout::topics::SubscribeError;
use crate::http::refusal::Refusal;
use crate::http::request::{Head, Method};
use crate::hub::Start;
use crate::protocol::deflate::Agreement;
use crate::protocol::{self, is_upgrade, parse_upgrade};
use crate::route::parameters::{has_echo, last_event_position, start_of};
use crate::route::query_of;
use crate::topic::Topic;

/// The compression to agree to.
pub(super) fn choose_deflate(
    application: &Application,
    current: &mut CommandContext<'_>,
    head: &Head<'_>,
) -> Result<Option<Agreement>, Refusal> {
    let mut policy = application.shared.settings.deflate_policy;
    policy.client_takeover &= current.may_keep_context;
    current.deflate = protocol::choose_deflate(head, &policy)?;
    Ok(current.deflate)
}

pub(super) fn check_upgrade<'a>(
    application: &Application,
    head: &Head<'a>,
) -> Result<protocol::Upgrade<'a>, Refusal> {
    if head.method == Method::Head || !is_upgrade(head) {
        let reason = "this is a WebSocket endpoint, and the request asks for no upgrade: it needs \
                      Connection: Upgrade and Upgrade: websocket";
        return Err(Refusal::upgrade_required(reason));
    }
    let upgrade = parse_upgrade(head)?;
    check_origin(application, head)?;
    Ok(upgrade)
}

pub(super) fn subscribe_websocket(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    head: &Head<'_>,
    caller: &Caller<'_>,
    topic: Topic,
) -> Result<Answer, Refusal> {
    let upgrade = check_upgrade(application, head)?;
    let start = start_of(head);
    application
        .asking
        .set_start(start.clone().unwrap_or(Start::Now));
    application.authorize(caller, Action::Subscribe(topic.as_str()))?;
    let publish = application.weigh(caller, Action::Publish(topic.as_str()));
    let may_publish = publish.is_ok();
    if application.asking.has_noted() {
        return Err(Refusal::unavailable("it is decided elsewhere"));
    }
    let start = start?;
    authorize_start(application, caller, &topic, start)?;
    let agreed = &application.shared.subprotocols;
    let subprotocol = choose(&upgrade, |offer| {
        offer == RAW_SUBPROTOCOL || agreed.iter().any(|name| **name == *offer)
    });
    if subprotocol.is_none() && is_of_script(head) && upgrade.offers().any(is_token_offer) {
        return Err(Refusal::bad_request(
            "a browser has to be answered a subprotocol, and never the token: offer umbel.raw beside it",
        ));
    }
    // A browser fails a handshake whose offers were all passed over, and does not say so.
    let dialects = &application.shared.settings.dialects;
    if subprotocol.is_none()
        && is_of_script(head)
        && let Some(place) = dialects.where_offered(upgrade.offers())
    {
        return Err(Refusal::not_found(format!(
            "the path of a topic has no subprotocol; {place}"
        )));
    }
    let admission = Admission::Upgrade(Upgrade {
        accept: upgrade.accept,
        subprotocol,
        endpoint: Endpoint::Topic {
            may_publish,
            echo: has_echo(head)?,
        },
        deflate: choose_deflate(application, current, head)?,
        must_sign_in: false,
        greeting: None,
    });
    application.begin_term(current, caller, false)?;
    subscribe(application, current, topic, start, admission)
}

pub(super) fn subscribe_stream(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    head: &Head<'_>,
    caller: &Caller<'_>,
    encoding: Encoding,
    topic: Topic,
) -> Result<Answer, Refusal> {
    check_origin(application, head)?;
    application.authorize(caller, Action::Subscribe(topic.as_str()))?;
    if query_of(head.target).get("umbel_echo")?.is_some() {
        let reason = "an event stream publishes nothing that could come back, so umbel_echo is for WebSockets";
        return Err(Refusal::bad_request(reason));
    }
    let stream = Stream {
        encoding,
        retry_ms: retry_ms(current.id, head),
    };
    if head.method == Method::Head {
        // Its head is that of every stream, and nobody is subscribed.
        check_ready(application)?;
        return Ok(Answer::Stream(stream));
    }
    let start = match head.known.last_event_id.bytes() {
        // What has seen no event has no position, and some clients say so by an empty one.
        None | Some(b"") => start_of(head)?,
        Some(_) => Start::Since(last_event_position(head.known.last_event_id.text())),
    };
    authorize_start(application, caller, &topic, start)?;
    application.begin_term(current, caller, false)?;
    subscribe(
        application,
        current,
        topic,
        start,
        Admission::Stream(stream),
    )
}

/// Many topics on one connection.
pub(super) fn open_many(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    head: &Head<'_>,
    caller: &Caller<'_>,
    path: &str,
) -> Result<Answer, Refusal> {
    let upgrade = check_upgrade(application, head)?;
    let dialects = &application.shared.settings.dialects;
    let chosen = dialects.choose(path, upgrade.offers());
    if chosen.is_err() && dialects.where_offered(upgrade.offers()).is_none() {
        // A bare socket gets the messages of the topic that its token joins.
        if let Some(topic) = joined_topic(caller)? {
            return subscribe_websocket(application, current, head, caller, topic);
        }
    }
    let chosen_one = chosen.as_ref().ok();
    let can_sign_in = chosen_one.is_some_and(|(encoding, _)| dialects.get(*encoding).signs_in());
    let must_sign_in = must_sign_in(application, current, caller, can_sign_in)?;
    let (encoding, subprotocol) = chosen.map_err(Refusal::bad_request)?;
    check_ready(application)?;
    let info = match query_of(head.target).get("info")? {
        Some(info) if info.len() > application.shared.settings.limits.info_bytes_max => {
            let reason = "the info is longer than info_bytes_max allows";
            return Err(Refusal::bad_request(reason));
        }
        info => info.map(|info| info_json(&info)),
    };
    let deflate = choose_deflate(application, current, head)?;
    application.keep_identity(current, caller)?;
    match must_sign_in {
        true => application.begin_wait(current),
        false => application.begin_term(current, caller, true)?,
    }
    let dialects = &application.shared.settings.dialects;
    let greeting = dialects.get(encoding).open(&Opening {
        target: head.target,
        reactor: application.reactor,
        connection: current.id.to_bits(),
        welcome: caller
            .identity()
            .map(|identity| application.welcome(current.id, Some(identity))),
    });
    let best_form = dialects.best_form(encoding, deflate);
    let opened_ms = application.now_us / 1000;
    let many = MultiSubscription::new(info, best_form).opened_at(opened_ms);
    application
        .multi_subscriptions
        .begin(current.subscribed, many);
    application.join_topics(current.id, *current.subscribed, *current.identity);
    Ok(Answer::Upgrade(Upgrade {
        accept: upgrade.accept,
        subprotocol: subprotocol.map(Box::from),
        endpoint: Endpoint::Commands(encoding),
        deflate,
        must_sign_in,
        greeting: (greeting != Greeting::default()).then(|| Box::new(greeting)),
    }))
}

/// Whether a connection has to show a credential by its first message: a page's handshake shows none. On a listener for
/// operators it is for those who may observe.
///
/// # Errors
/// It may not connect, and cannot show another credential.
fn must_sign_in(
    application: &Application,
    current: &CommandContext<'_>,
    caller: &Caller<'_>,
    can_sign_in: bool,
) -> Result<bool, Refusal> {
    let observes = match surface_of(application, current.listener) {
        Surface::Admin => application.authorize(caller, Action::Observe),
        Surface::Public | Surface::All => Ok(()),
    };
    // Of an embedding program it is asked once, below.
    if can_sign_in && matches!(caller, Caller::Anonymous | Caller::Unknown) {
        let is_asked = match &observes {
            Ok(()) => needs_credential(application, caller),
            Err(refusal) => refusal.status == 401,
        };
        if is_asked {
            return Ok(true);
        }
    }
    observes?;
    application.authorize(caller, Action::Connect)?;
    Ok(false)
}

/// Whether there is nothing that this caller may do, but may be once it shows a credential.
fn needs_credential(application: &Application, caller: &Caller<'_>) -> bool {
    let judged = application.shared.authority.judge(caller, Action::Connect);
    judged.is_err_and(|denied| Refusal::from(denied).status == 401)
}

/// Whether a subscription may begin there: what was published before it is history, but for what its subscriber missed.
fn authorize_start(
    application: &Application,
    caller: &Caller<'_>,
    topic: &Topic,
    start: Start,
) -> Result<(), Refusal> {
    match start {
        Start::Last(_) => application.authorize(caller, Action::History(topic.as_str())),
        _ => Ok(()),
    }
}

/// Whether new subscribers are taken.
fn check_ready(application: &Application) -> Result<(), Refusal> {
    match application.shared.lifecycle.get().takes_subscribers() {
        true => Ok(()),
        false => Err(shutting_down().closing()),
    }
}

/// Makes the connection a subscriber: at once, or once the hub has said where the topic stands, if that matters.
fn subscribe(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    topic: Topic,
    start: Start,
    admission: Admission,
) -> Result<Answer, Refusal> {
    check_ready(application)?;
    let refusal = |error| match error {
        SubscribeError::HubFull => hub_is_full(),
        SubscribeError::TooManyTopics => {
            Refusal::unavailable("as many topics have subscribers as topics_max allows")
        }
    };
    let allowed = Allowed::by(application.asking.terms(Action::Subscribe(topic.as_str())));
    let target = Target::Topic(topic.clone());
    let rule = application.shared.settings.topic_rules.rule(&topic);
    if start != Start::Now || rule.history.publications_max > 0 || rule.presence {
        let question = Question {
            connection: current.id,
            request: 0,
            start,
            info: None,
            identity: None,
        };
        application
            .ask_to_join(&topic, question, None)
            .map_err(refusal)?;
        application.begin_lease(current.id, &target, &allowed);
        return Ok(Answer::Join(admission));
    }
    let (shards, reactor) = (Arc::clone(&application.shared.shards), application.reactor);
    let submit = |command| shards.submit(command, Some(reactor)).is_ok();
    let subscription = application
        .topics
        .subscribe(topic, current.id.index, submit);
    let subscription = subscription.map_err(refusal)?;
    application.begin_lease(current.id, &target, &allowed);
    *current.subscribed = subscription.into();
    application.tell_began(current.id, subscription.topic());
    Ok(match admission {
        Admission::Upgrade(upgrade) => Answer::Upgrade(upgrade),
        Admission::Stream(stream) => Answer::Stream(stream),
    })
}

/// The first subprotocol that the peer offers and the server speaks.
fn choose(upgrade: &protocol::Upgrade<'_>, speaks: impl Fn(&str) -> bool) -> Option<Box<str>> {
    upgrade.offers().find(|offer| speaks(offer)).map(Box::from)
}
