//! Operations on connections.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use ipnet::IpNet;

use super::body::{Fields, Parameters};
use super::deny::{deny_list_full, not_kept};
use super::error::ApiError;
use super::responder::Responder;
use super::topics::ask;
use super::{CallContext, Input, READ_WAIT_MS, Step};
use crate::auth::deny::{Denial, Entry};
use crate::connection::{Answer, Awaited};
use crate::dialect::Target;
use crate::dialect::object::{Object, encode_string};
use crate::handler::{CloseCode, ConnectionId};
use crate::http::refusal::Refusal;
use crate::hub::{Position, Start};
use crate::inside::{self, Inside, Reply};
use crate::shared::Shared;
use crate::shared::jobs::{ConnectionInfo, Cursor, Filter, Job, Outcome, Selector, Task};
use crate::topic::Topic;

/// Longest reason of a Close, in bytes (RFC 6455 section 5.5).
const REASON_BYTES_MAX: usize = 123;

/// Names that a disconnect may leave out.
const EXCEPT_MAX: usize = 1000;

/// `GET /connections`.
pub(super) fn list(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let parameters = &input.parameters;
    let filter = Filter {
        subject: parameters.text("subject").map(str::to_owned),
        topic: topic(parameters)?,
        peer: parameters
            .text("peer")
            .map(|text| network("peer", text))
            .transpose()?,
        dialect: parameters.text("dialect").map(str::to_owned),
    };
    let cursor = match parameters.text("cursor") {
        None => Cursor::default(),
        Some(text) => Cursor::parse(text).ok_or_else(|| {
            let reason = "the cursor is none: it is what \"next\" of an answer says";
            ApiError::invalid_field("cursor", reason)
        })?,
    };
    let responder = call.responder(input, String::new());
    let task = Task::List(filter, parameters.limit()?);
    let job = Job::new(task, move |outcome| {
        let Some(outcome) = outcome else { return };
        responder.respond(encode_list(&outcome));
    });
    call.shared.send_job(job.from(cursor));
    Ok(wait(READ_WAIT_MS))
}

/// `GET /connections/{id}`.
pub(super) fn show(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let responder = call.responder(input, input.id.to_owned());
    let not_found = || Refusal::not_found("there is no connection of this name");
    let id: ConnectionId = input.id.parse().map_err(|_| not_found())?;
    let (inside, now_us) = (Arc::clone(&call.shared.inside), call.now_us);
    let job = Job::new(Task::Show(id), move |outcome| {
        let Some(outcome) = outcome else { return };
        match outcome.rows.first() {
            None => responder.fail(not_found().into()),
            Some(row) => ask_positions(&inside, row.clone(), responder, now_us),
        }
    });
    call.shared.send_job(job);
    Ok(wait(READ_WAIT_MS))
}

/// Topics of a connection whose positions are told.
const POSITIONS_MAX: usize = 256;

/// A connection that is told of with the positions of its topics, once all of them are known.
struct Shown {
    row: ConnectionInfo,
    responder: Mutex<Option<Responder>>,
    positions: Mutex<Vec<(Topic, Position)>>,
}

impl Drop for Shown {
    /// The last answer is here, or nobody is going to give it.
    fn drop(&mut self) {
        let responder = self.responder.get_mut().ok().and_then(Option::take);
        let positions = self.positions.get_mut();
        let positions = positions.map(std::mem::take).unwrap_or_default();
        if let Some(responder) = responder {
            let mut body = Vec::with_capacity(512);
            encode_row(&mut body, &self.row, Some(&positions));
            responder.respond(body);
        }
    }
}

/// Asks the hub where the topics of a connection stand. A topic whose shard takes no question has no position.
fn ask_positions(inside: &Inside, row: ConnectionInfo, responder: Responder, now_us: u64) {
    let topics = row.targets.iter().filter_map(|target| match target {
        Target::Topic(topic) => Some(topic.clone()),
        Target::Pattern(_) => None,
    });
    let topics: Vec<Topic> = topics.take(POSITIONS_MAX).collect();
    let shown = Arc::new(Shown {
        row,
        responder: Mutex::new(Some(responder)),
        positions: Mutex::default(),
    });
    for topic in topics {
        let (shown, asked) = (Arc::clone(&shown), topic.clone());
        let read = move |number| inside::read(asked, (Start::Now, 0), now_us, number);
        ask(inside, read, move |reply| {
            let Reply::Page(page) = reply else { return };
            if let (Some(position), Ok(mut positions)) = (page.position, shown.positions.lock()) {
                positions.push((topic, position));
            }
        });
    }
}

/// `POST /disconnect`.
pub(super) fn disconnect(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let fields = &input.fields;
    let (selector, target) = selector(fields, &["connection", "subject", "token_id", "peer"])?;
    let close = close_of(fields)?;
    let except = fields.texts("except")?.unwrap_or_default();
    if except.len() > EXCEPT_MAX {
        let reason = format!("\"except\" has over {EXCEPT_MAX} names");
        return Err(ApiError::invalid_field("except", reason));
    }
    let except: Result<Vec<ConnectionId>, _> = except.iter().map(|it| it.parse()).collect();
    let except = except.map_err(|error| ApiError::invalid_field("except", format!("{error}")))?;
    let task = Task::Disconnect(selector.clone(), close, except);
    let deny_ms = fields.number("deny_ms")?;
    let Some(deny_ms) = deny_ms else {
        let responder = call.responder(input, target);
        return Ok(run_disconnect(call, task, responder));
    };
    if deny_ms == 0 || deny_ms > SPAN_MS_MAX {
        let reason = format!("\"deny_ms\" is a time from 1 to {SPAN_MS_MAX}");
        return Err(ApiError::invalid_field("deny_ms", reason));
    }
    let until_ms = call.wall_ms + deny_ms;
    if let Selector::Connection(id) = selector {
        return Ok(deny_connection(call, input, (id, target), (task, until_ms)));
    }
    let denial = match selector {
        Selector::Subject(subject) => Denial::Subject(subject.into()),
        Selector::TokenId(token_id) => Denial::TokenId(token_id.into()),
        Selector::Peer(network) => Denial::Peer(network),
        Selector::Connection(_) => return Err(not_deniable()),
    };
    let responder = call.responder(input, target);
    let shared = call.shared.clone();
    deny_then(&shared, entry(denial, until_ms), responder, task);
    Ok(wait(call.shared.settings.limits.handshake_timeout_ms))
}

/// Longest span of time, in milliseconds: beyond it stands no year of four digits.
pub(super) const SPAN_MS_MAX: u64 = 4_000_000_000_000;

fn run_disconnect(call: &CallContext<'_>, task: Task, responder: Responder) -> Step {
    send_disconnect(call.shared, task, responder);
    wait(call.shared.settings.limits.handshake_timeout_ms)
}

fn send_disconnect(shared: &Shared, task: Task, responder: Responder) {
    let job = Job::new(task, move |outcome| {
        let Some(outcome) = outcome else { return };
        responder.respond(count("closed", outcome.count));
    });
    shared.send_job(job);
}

/// An entry until a moment. A subject's denies tokens made until then too, so that a fresh one does not help.
fn entry(denial: Denial, until_ms: u64) -> Entry {
    let is_subject = matches!(denial, Denial::Subject(_));
    Entry {
        denial,
        issued_before: is_subject.then_some(until_ms / 1000),
        until_ms: Some(until_ms),
        is_fixed: false,
        // The task behind it does, with its own code, and but for those that it leaves out.
        ends_open: false,
    }
}

/// Denies somebody first, and then ends what is open: nobody comes back between both.
fn deny_then(shared: &Shared, entry: Entry, responder: Responder, task: Task) {
    let entries_max = shared.settings.limits.deny_entries_max;
    let control = Arc::clone(&shared.control);
    // Time is no matter here: what is over makes room at the next change.
    let added = control.deny.change(|list| list.add(entry, entries_max, 0));
    if added.is_err() {
        return responder.fail(deny_list_full());
    }
    let shared = shared.clone();
    control.keep(Box::new(move |kept| match kept {
        Ok(()) => send_disconnect(&shared, task, responder),
        Err(_) => responder.fail(not_kept()),
    }));
}

/// Denies whoever opened a connection: its token, else its subject.
fn deny_connection(
    call: &CallContext<'_>,
    input: &Input<'_>,
    (id, target): (ConnectionId, String),
    (task, until_ms): (Task, u64),
) -> Step {
    let (shared, responder) = (call.shared.clone(), call.responder(input, target));
    let job = Job::new(Task::Show(id), move |outcome| {
        let Some(outcome) = outcome else { return };
        let Some(row) = outcome.rows.into_iter().next() else {
            return responder.respond(count("closed", 0));
        };
        let denial = match (row.token_id, row.subject) {
            (Some(token_id), _) => Denial::TokenId(token_id.into()),
            (None, Some(subject)) => Denial::Subject(subject.into()),
            (None, None) => return responder.fail(not_deniable()),
        };
        deny_then(&shared, entry(denial, until_ms), responder, task);
    });
    call.shared.send_job(job);
    wait(call.shared.settings.limits.handshake_timeout_ms)
}

fn not_deniable() -> ApiError {
    let reason = "the connection has neither a token's id nor a subject that could be denied";
    ApiError::invalid_field("deny_ms", reason)
}

/// The request waits for the outcome, so many milliseconds at most.
pub(super) fn wait(wait_ms: u64) -> Step {
    Step::Answer(Answer::Await(Awaited::Call(wait_ms)))
}

/// An object with one number.
pub(super) fn count(name: &str, count: u64) -> Vec<u8> {
    let mut body = Vec::with_capacity(32);
    Object::new(&mut body).value(name, count).end();
    body
}

/// The one selector of a body among these fields, and it as the log says it.
pub(super) fn selector(
    fields: &Fields<'_>,
    allowed: &[&str],
) -> Result<(Selector, String), ApiError> {
    let mut given = allowed.iter().filter(|name| fields.raw(name).is_some());
    let names = allowed.join(", ");
    let Some(name) = given.next() else {
        let reason = format!("one of {names} says which connections are meant");
        return Err(ApiError::missing_field(allowed[0], reason));
    };
    if let Some(other) = given.next() {
        let reason = format!("exactly one of {names} says which connections are meant");
        return Err(ApiError::invalid_field(other, reason));
    }
    let text = fields.text(name)?.unwrap_or_default();
    let target = format!("{name} {text}");
    let selector = match *name {
        "connection" => Selector::Connection(text.parse().map_err(|error| {
            let reason = format!("\"connection\" is none: {error}");
            ApiError::invalid_field("connection", reason)
        })?),
        "subject" => Selector::Subject(text),
        "token_id" => Selector::TokenId(text),
        _ => Selector::Peer(network(name, &text)?),
    };
    Ok((selector, target))
}

/// Code and reason of the Close that a body asks for.
fn close_of(fields: &Fields<'_>) -> Result<(CloseCode, String), ApiError> {
    let code = fields.number("code")?.unwrap_or(4403);
    let is_allowed = matches!(code, 1000 | 1001 | 1008 | 1012 | 1013 | 4000..=4999);
    if !is_allowed {
        let reason = "\"code\" is 1000, 1001, 1008, 1012, 1013, or one from 4000 to 4999";
        return Err(ApiError::invalid_field("code", reason));
    }
    let reason = fields.text("reason")?.unwrap_or_default();
    if reason.len() > REASON_BYTES_MAX {
        let words = format!("\"reason\" has over {REASON_BYTES_MAX} bytes");
        return Err(ApiError::invalid_field("reason", words));
    }
    Ok((CloseCode::new(code as u16), reason))
}

/// A network: `10.0.0.0/8`, or an address alone.
pub(super) fn network(field: &str, text: &str) -> Result<IpNet, ApiError> {
    let network: Result<IpNet, _> = text.parse();
    let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map(|network| network.trunc()).map_err(|_| {
        let reason = format!("\"{field}\" is an address, or a network as 10.0.0.0/8");
        ApiError::invalid_field(field, reason)
    })
}

/// The topic that a query names.
pub(super) fn topic(parameters: &Parameters<'_>) -> Result<Option<Topic>, ApiError> {
    let topic = parameters.text("topic").map(Topic::from_text).transpose();
    topic.map_err(|refusal| ApiError::invalid_field("topic", refusal.reason))
}

fn encode_list(outcome: &Outcome) -> Vec<u8> {
    let mut body = Vec::with_capacity(64 + 256 * outcome.rows.len());
    let object = Object::new(&mut body).with("connections", |out| {
        out.push(b'[');
        for (at, row) in outcome.rows.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            encode_row(out, row, None);
        }
        out.push(b']');
    });
    match outcome.next {
        Some(next) => object.plain("next", next),
        None => object,
    }
    .end();
    body
}

/// Encodes a connection. With the positions of its topics, if they were asked for: its subscriptions stand there too then.
fn encode_row(out: &mut Vec<u8>, row: &ConnectionInfo, positions: Option<&[(Topic, Position)]>) {
    let mut object = Object::new(out);
    if let Some(id) = row.connection {
        object = object.plain("connection", id);
    }
    object = object
        .text_if("subject", row.subject.as_deref())
        .text_if("token_id", row.token_id.as_deref());
    if let Some(peer) = row.peer {
        object = object.plain("peer", peer);
    }
    object = object
        .text("listener", &row.listener)
        .plain("dialect", row.dialect);
    for (name, value) in [
        ("opened_at_ms", row.opened_at_ms),
        ("expires_at_ms", row.expires_at_ms),
    ] {
        if let Some(value) = value {
            object = object.value(name, value);
        }
    }
    object = object
        .value("subscriptions", row.subscriptions)
        .value("queued_bytes", row.queued_bytes);
    for (name, bytes) in [
        ("received_bytes", row.received_bytes),
        ("sent_bytes", row.sent_bytes),
    ] {
        if let Some(bytes) = bytes {
            object = object.value(name, bytes);
        }
    }
    for (name, value) in [("info", &row.info), ("meta", &row.meta)] {
        if let Some(value) = value {
            object = object.value(name, value);
        }
    }
    if let Some(positions) = positions {
        let topics = row.targets.iter().filter_map(|target| match target {
            Target::Topic(topic) => Some(topic.as_str()),
            Target::Pattern(_) => None,
        });
        let patterns = row.targets.iter().filter_map(|target| match target {
            Target::Pattern(pattern) => Some(pattern.as_str()),
            Target::Topic(_) => None,
        });
        object = object
            .with("topics", |out| encode_strings(out, topics))
            .with("patterns", |out| encode_strings(out, patterns))
            .with("positions", |out| encode_positions(out, positions));
    }
    object.end();
}

fn encode_positions(out: &mut Vec<u8>, positions: &[(Topic, Position)]) {
    out.push(b'{');
    for (at, (topic, position)) in positions.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        encode_string(out, topic.as_str());
        out.extend_from_slice(format!(":\"{position}\"").as_bytes());
    }
    out.push(b'}');
}

fn encode_strings<'t>(out: &mut Vec<u8>, texts: impl Iterator<Item = &'t str>) {
    out.push(b'[');
    for (at, text) in texts.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        encode_string(out, text);
    }
    out.push(b']');
}
