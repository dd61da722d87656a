//! Publishes by request: `POST /pub` and `POST /pub/{topic}`.

use std::sync::Arc;

use super::handle_event;
use crate::application::once::refusal_of;
use crate::application::publishes::{HUB_IS_FULL, hub_is_full};
use crate::application::{Application, CommandContext, ConnectionContext};
use crate::asking::hook;
use crate::auth::access::Action;
use crate::auth::caller::Caller;
use crate::auth::verdict::{Decision, Edit};
use crate::connection::{self, Answer, Awaited, Event, PublishAnswer};
use crate::dialect::{CommandError, CommandLimits, ErrorCode, Reply};
use crate::http::refusal::Refusal;
use crate::hub::idempotency::GivenKey;
use crate::hub::{
    Command, IdempotencyKey, Kind, Origin, Outcome, Position, Publication, PublishOptions,
    Publisher,
};
use crate::peers::ToldCell;
use crate::route::json;
use crate::topic::Topic;

/// What some editors put before a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Topics of one request of many lines about which it waits for verdicts. Lines of others are refused where theirs come later.
const ASKED_TOPICS_MAX: usize = 64;

/// Lines of one request about which the hook is asked. Those behind them are refused for now.
const ASKED_LINES_MAX: usize = 64;

/// Key of the question about a line, beside its number.
const LINE: &str = "line";

/// Answer to the lines behind those.
const TOO_MANY_LINES: &str = "the application is asked about each line, for 64 lines of a request at most: send the others by another one";

/// A publication on its way to the hub.
struct PendingPublication {
    topic: Topic,
    publication: Publication,
    wants_receipt: bool,
    /// It is carried out once.
    once: Option<IdempotencyKey>,
}

pub(super) fn handle_publish_body(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    topic: Topic,
    kind: Option<Kind>,
    (options, wants_receipt, once): (PublishOptions, bool, Option<&GivenKey>),
    body: &[u8],
) -> Answer {
    let is_text = || simdutf8::basic::from_utf8(body).is_ok();
    let kind = match kind {
        Some(Kind::Text) if !is_text() => {
            let reason = "the Content-Type says text, but the body is not UTF-8; \
                          send application/octet-stream for binary";
            return Answer::Refuse(Refusal::bad_request(reason));
        }
        Some(kind) => kind,
        None if is_text() => Kind::Text,
        None => Kind::Binary,
    };
    let publisher = once.map(|_| application.publisher(current)).transpose();
    let once = match publisher {
        Ok(publisher) => publisher.zip(once),
        Err(refusal) => return Answer::Refuse(refusal),
    };
    let once = once.map(|(publisher, key)| {
        let key = IdempotencyKey::of_request(publisher, &topic, key, None);
        key.of(kind, body, &options)
    });
    let identity = *current.identity;
    let (kind, body, options) = match application.ask(identity, &topic, (kind, body, options)) {
        Ok(Some(message)) => message,
        Ok(None) => return Answer::Respond(skipped()),
        Err(_) if application.asking.has_noted() => return Answer::Ask,
        Err(denied) => return Answer::Refuse(denied.into()),
    };
    let publication =
        match application.admit((current.id, identity), &topic, (kind, &body, options)) {
            Ok(publication) => publication,
            Err(denied) => return Answer::Refuse(denied.into()),
        };
    let pending = PendingPublication {
        topic,
        publication,
        wants_receipt,
        once,
    };
    match publish(application, current, pending, 0) {
        Ok(()) => Answer::Await(Awaited::One),
        Err(refusal) => Answer::Refuse(refusal),
    }
}

/// Publishes to one of the topics of a request to the control API.
pub(super) fn publish_to(
    application: &mut Application,
    current: &CommandContext<'_>,
    topic: Topic,
    (message, wants_receipt, once): ((Kind, &[u8], PublishOptions), bool, Option<&GivenKey>),
    sequence: u32,
) -> Result<(), Refusal> {
    let publisher = once.map(|_| application.publisher(current)).transpose()?;
    let once = publisher.zip(once).map(|(publisher, key)| {
        let (kind, payload, options) = &message;
        let key = IdempotencyKey::of_request(publisher, &topic, key, None);
        key.of(*kind, payload, options)
    });
    let publication = application.admit((current.id, *current.identity), &topic, message)?;
    let pending = PendingPublication {
        topic,
        publication,
        wants_receipt,
        once,
    };
    publish(application, current, pending, sequence)
}

/// Hands a publication of a request to the hub.
fn publish(
    application: &mut Application,
    current: &CommandContext<'_>,
    pending: PendingPublication,
    sequence: u32,
) -> Result<(), Refusal> {
    let caller = application.identities.get(*current.identity);
    let taken = application.take_publish(current.listener, caller, current.peer_address);
    taken.map_err(|wait_ms| {
        let reason = "more is published than publishes_per_identity_per_second allows";
        let seconds = u32::try_from(wait_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        Refusal::too_many_requests(reason).retry_after(seconds)
    })?;
    let mut publication = pending.publication;
    let mut origin = application.origin(current.id, sequence);
    if pending.wants_receipt {
        let receipt = application.receipt(current.id, sequence);
        publication = publication.with_receipt(receipt.ok_or_else(too_many_receipts)?);
        // The receipt says the position too.
        origin = Origin::Detached;
    }
    let command = match pending.once {
        Some(key) => {
            application.publish_once(current.id, sequence, (pending.topic, publication), key)
        }
        None => Command::Publish {
            topic: pending.topic,
            publication: Arc::new(publication),
            origin,
        },
    };
    application.submit(command).map_err(|_| {
        if pending.wants_receipt {
            application.receipts.give_back();
        }
        hub_is_full()
    })
}

pub(super) fn handle_publish_lines(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    idempotency_key: Option<&GivenKey>,
    body: &[u8],
) -> Answer {
    let publisher = idempotency_key
        .map(|_| application.publisher(current))
        .transpose();
    let once = match publisher {
        Ok(publisher) => publisher.zip(idempotency_key),
        Err(refusal) => return Answer::Refuse(refusal),
    };
    let lines_max = application.shared.settings.limits.publish_lines_max;
    // Editors that put a byte order mark before a text mean nothing by it.
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let caller = application.identities.get(*current.identity);
    if asks_about_lines(application, caller, body)
        || asks_hook_about_lines(application, caller, body)
    {
        return Answer::Ask;
    }
    let lines = body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let lines = (1..).zip(lines).filter(|(_, line)| !line.is_empty());
    let (mut answers, mut tally) = (Vec::new(), LineTally::default());
    for (number, line) in lines {
        let sequence = answers.len();
        if sequence == lines_max {
            let reason =
                format!("over {lines_max} lines: this one and all after it are not published");
            answers.push(Some(tally.refuse(number, 413, &reason)));
            break;
        }
        // A line that the hub has no room for takes those behind it along: whoever sends again what was turned away
        // sends it in the same order. One that is refused for any other reason is refused alone.
        let outcome = if tally.hub_is_full {
            Err(hub_is_full())
        } else {
            let once = once.map(|(publisher, key)| (publisher, key, number as u32));
            let place = (number, sequence as u32);
            publish_line(application, current, line, place, once)
        };
        answers.push(match outcome {
            Ok(Placing::Awaited) => None,
            Ok(Placing::Skipped) => {
                let mut answer = Vec::new();
                json::encode_skipped(&mut answer);
                Some(answer)
            }
            Err(refusal) => {
                tally.hub_is_full |= refusal.reason == HUB_IS_FULL;
                Some(tally.refuse(number, refusal.status, &refusal.reason))
            }
        });
    }
    // Nothing else is asked of who sent the request.
    application
        .identities
        .replace(current.identity, Caller::Anonymous);
    match tally.refused > 0 && tally.refused == answers.len() {
        true => Answer::Respond(tally.nothing_published(answers)),
        false => Answer::Await(Awaited::Lines {
            refused: tally.refused,
            answers,
        }),
    }
}

/// Asks about all the topics of a request before anything of it is published. True: it has to wait.
fn asks_about_lines(application: &Application, caller: &Caller<'_>, body: &[u8]) -> bool {
    if !application.shared.authority.may_take_time() {
        return false;
    }
    let limits = CommandLimits::of(&application.shared.settings.limits);
    let lines = body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    for line in lines.filter(|line| !line.is_empty()) {
        let Ok(line) = json::parse_publish_line(line, &limits) else {
            continue;
        };
        if application.asking.decided_len() >= ASKED_TOPICS_MAX {
            break;
        }
        let action = Action::Publish(line.topic.as_str());
        let outcome = application.decide(caller, action);
        if application.asking.has_noted() {
            return true;
        }
        application
            .asking
            .remember(&action, Decision::Access(outcome));
    }
    false
}

/// Asks the hook about the lines of a request, one after the other, before anything of it is published. True: it has to
/// wait.
fn asks_hook_about_lines(application: &Application, caller: &Caller<'_>, body: &[u8]) -> bool {
    let shared = &application.shared;
    if hook::asked(shared, Action::PublishMany).is_none() {
        return false;
    }
    let limits = CommandLimits::of(&shared.settings.limits);
    let lines = body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let lines = (1..).zip(lines).filter(|(_, line)| !line.is_empty());
    for (number, line) in lines.take(shared.settings.limits.publish_lines_max) {
        if application.asking.decided_len() >= ASKED_LINES_MAX {
            break;
        }
        let Ok(line) = json::parse_publish_line(line, &limits) else {
            continue;
        };
        let key = (LINE, number);
        let action = Action::Publish(line.topic.as_str());
        let is_asked = hook::asked(shared, action).is_some()
            && hook::check_closed(shared, caller, action).is_ok()
            && application.asking.decided(&key, |_| Some(())).is_none();
        if !is_asked {
            continue;
        }
        let draft = hook::Draft {
            topic: line.topic.as_str(),
            kind: line.kind,
            payload: &line.payload,
            options: &line.options,
        };
        let asked = application
            .asking
            .ask_publication(shared, caller, &key, &draft);
        if application.asking.has_noted() {
            return true;
        }
        application
            .asking
            .remember(&key, Decision::Publication(asked));
    }
    false
}

/// What becomes of a line.
enum Placing {
    /// The hub answers it.
    Awaited,
    /// The application has dropped it.
    Skipped,
}

fn publish_line(
    application: &mut Application,
    current: &CommandContext<'_>,
    line: &[u8],
    (number, sequence): (usize, u32),
    once: Option<(Publisher, &GivenKey, u32)>,
) -> Result<Placing, Refusal> {
    let limits = CommandLimits::of(&application.shared.settings.limits);
    let line = json::parse_publish_line(line, &limits)?;
    let caller = application.identities.get(*current.identity);
    let action = Action::Publish(line.topic.as_str());
    application.decide_now(caller, action)?;
    let shared = &application.shared;
    let edit = match hook::asked(shared, action) {
        Some(_) => match application.asking.take_edit(shared, &(LINE, number)) {
            Some(edit) => edit?,
            None => return Err(Refusal::unavailable(TOO_MANY_LINES)),
        },
        None => Edit::None,
    };
    let once = once.map(|(publisher, key, number)| {
        let key = IdempotencyKey::of_request(publisher, &line.topic, key, Some(number));
        key.of(line.kind, &line.payload, &line.options)
    });
    let message = (line.kind, &*line.payload, line.options);
    let Some((kind, payload, options)) = hook::edited(edit, message) else {
        return Ok(Placing::Skipped);
    };
    let by = (current.id, *current.identity);
    let publication = application.admit(by, &line.topic, (kind, &payload, options))?;
    let pending = PendingPublication {
        once,
        topic: line.topic,
        publication,
        wants_receipt: line.wants_receipt,
    };
    publish(application, current, pending, sequence)?;
    Ok(Placing::Awaited)
}

/// The answer to a publication that the application has dropped.
fn skipped() -> connection::Reply {
    let mut body = Vec::new();
    json::encode_skipped(&mut body);
    body.push(b'\n');
    connection::Reply {
        status: 200,
        content_type: "application/json",
        headers: Vec::new(),
        body: body.into(),
    }
}

/// Tells a publisher that nothing was published now.
pub fn handle_not_placed(
    application: &mut Application,
    context: &mut ConnectionContext<'_>,
    sequence: u32,
    outcome: Outcome,
    position: Position,
) {
    let refusal = refusal_of(outcome);
    match refusal {
        Some(_) => application.metrics.key_refusals.add(1),
        None => application.metrics.publish_replays.add(1),
    }
    let Some(encoding) = context.connection.command_encoding() else {
        return answer_not_placed(application, context, sequence, position, refusal);
    };
    let Some(refusal) = refusal else {
        let reply = Reply::Duplicate(position);
        return application.reply(encoding, Some(sequence), &reply, context.out);
    };
    application.metrics.command_errors.add(1);
    let mut error = CommandError::of_refusal(Some(sequence), refusal);
    if outcome == Outcome::FateUnknown {
        error.code = ErrorCode::FateUnknown;
    }
    let reply = Reply::Refused(&error);
    application.reply(encoding, Some(sequence), &reply, context.out);
}

/// Answers a request, or one of its lines.
fn answer_not_placed(
    application: &mut Application,
    context: &mut ConnectionContext<'_>,
    sequence: u32,
    position: Position,
    refusal: Option<Refusal>,
) {
    let (settings, now_ms) = (Arc::clone(&application.shared.settings), context.now_ms);
    let mut text = Vec::with_capacity(64);
    let status = match refusal {
        None => {
            json::encode_duplicate(&mut text, position);
            200
        }
        Some(refusal) => {
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
            let mut on_event = |event: Event<'_>, out: &mut Vec<u8>| {
                handle_event(application, &mut current, event, out)
            };
            let (connection, out) = (&mut *context.connection, &mut *context.out);
            let refused = connection.refuse_publish(&settings, now_ms, refusal, out, &mut on_event);
            let Err(refusal) = refused else { return };
            match connection.is_call() {
                true => text = refusal.encode_json(),
                false => json::encode_refusal(&mut text, &refusal),
            }
            refusal.status
        }
    };
    let answer = PublishAnswer {
        text,
        status,
        is_replay: status == 200,
    };
    let (connection, out) = (&mut *context.connection, &mut *context.out);
    connection.handle_line(&settings, now_ms, sequence, answer, out);
}

/// Count of the lines of a request that were refused.
#[derive(Debug, Default)]
struct LineTally {
    refused: usize,
    /// Of these, those that may be taken a little later.
    unavailable: usize,
    hub_is_full: bool,
}

impl LineTally {
    /// Counts a refused line, and gives the answer to it.
    fn refuse(&mut self, number: usize, status: u16, reason: &str) -> Vec<u8> {
        self.refused += 1;
        self.unavailable += usize::from(status == 503);
        let mut answer = Vec::new();
        json::encode_refused(&mut answer, number, status, reason);
        answer
    }

    /// The answer to a request of which no line was published.
    fn nothing_published(&self, answers: Vec<Option<Vec<u8>>>) -> connection::Reply {
        let mut body = Vec::new();
        for answer in answers.into_iter().flatten() {
            body.extend_from_slice(&answer);
            body.push(b'\n');
        }
        let is_for_now = self.unavailable == self.refused;
        let retry = is_for_now.then(|| ("Retry-After", "1".to_owned()));
        connection::Reply {
            status: if is_for_now { 503 } else { 422 },
            content_type: "application/x-ndjson",
            headers: retry.into_iter().collect(),
            body: body.into(),
        }
    }
}

/// Nobody else may wait for a receipt.
fn too_many_receipts() -> Refusal {
    Refusal::unavailable("as many receipts as receipts_max allows are outstanding; try again")
}
