//! Operations on topics: which there are, who is present, what was published, and publishing.

use std::sync::Arc;

use super::body::Parameters;
use super::connections::{topic, wait};
use super::error::ApiError;
use super::responder::{Audit, Responder};
use super::{CallContext, Input, Publishes, READ_WAIT_MS, Step, json};
use crate::connection::Answer;
use crate::dialect::object::{Object, encode_string};
use crate::dialect::{CommandLimits, History};
use crate::handler::ConnectionId;
use crate::http::refusal::Refusal;
use crate::hub::{Member, Position, Start};
use crate::inside::{self, Inside, Reply};
use crate::route::json::{encode_history, encode_listed, parse_publish_line};
use crate::shared::Shared;
use crate::topic::{Pattern, Topic};

/// Topics of one publish.
const TOPICS_MAX: usize = 1000;

/// Steps of one page of topics beyond those that it takes to look at each shard once.
const STEPS_SPARE: u32 = 64;

/// Topics that one step asks a shard for.
const TOPICS_PER_STEP: u32 = 1000;

/// The topic that an operation needs.
fn needed_topic(parameters: &Parameters<'_>) -> Result<Topic, ApiError> {
    topic(parameters)?.ok_or_else(|| {
        let reason = "the topic is missing: ?topic=news%2Feu";
        ApiError::missing_field("topic", reason)
    })
}

/// Asks the hub. A responder that the closure owns answers, also where the hub takes no question.
pub(super) fn ask(
    inside: &Inside,
    command: impl FnOnce(u64) -> crate::hub::Command,
    on_reply: impl FnOnce(Reply) + Send + 'static,
) {
    // One that is not asked is dropped, and its responder says so.
    let _ = inside.ask_for(command, Box::new(on_reply));
}

/// A page of topics that is being gathered.
struct TopicPage {
    shared: Shared,
    responder: Responder,
    pattern: Option<Pattern>,
    body: Vec<u8>,
    shard: u32,
    place: u32,
    topics_left: usize,
    steps_left: u32,
}

/// `GET /topics`.
pub(super) fn list(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let parameters = &input.parameters;
    let pattern = parameters.text("pattern");
    call.may_observe(pattern)?;
    let pattern = pattern.map(Pattern::parse).transpose();
    let pattern = pattern.map_err(|error| ApiError::invalid_field("pattern", error.to_string()))?;
    let shards = call.shared.shards.shard_count();
    let (shard, place) = match parameters.text("cursor") {
        None => (0, 0),
        Some(text) => parse_cursor(text)
            .filter(|(shard, _)| *shard < shards)
            .ok_or_else(|| {
                let reason = "the cursor is none: it is what \"next\" of an answer says";
                ApiError::invalid_field("cursor", reason)
            })?,
    };
    let page = TopicPage {
        shared: call.shared.clone(),
        responder: call.responder(input, String::new()),
        pattern,
        body: b"{\"topics\":[".to_vec(),
        shard,
        place,
        topics_left: parameters.limit()?,
        steps_left: shards + STEPS_SPARE,
    };
    page.go_on();
    Ok(wait(READ_WAIT_MS))
}

fn parse_cursor(text: &str) -> Option<(u32, u32)> {
    let is_hex = text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let bits = u64::from_str_radix(text, 16).ok();
    let bits = bits.filter(|_| is_hex && text.len() == 16)?;
    Some(((bits >> 32) as u32, bits as u32))
}

impl TopicPage {
    /// Asks for the next part.
    fn go_on(mut self) {
        self.steps_left = self.steps_left.saturating_sub(1);
        let inside = Arc::clone(&self.shared.inside);
        let (shard, place) = (self.shard, self.place);
        let list = move |number| inside::list(shard, place, TOPICS_PER_STEP, number);
        ask(&inside, list, move |reply| self.take(reply));
    }

    fn take(mut self, reply: Reply) {
        let Reply::Listing(listing) = reply else {
            return;
        };
        for listed in listing.topics.iter().filter(|it| !it.is_unused()) {
            let pattern = self.pattern.as_ref();
            if pattern.is_some_and(|pattern| !pattern.matches(&listed.topic)) {
                continue;
            }
            if self.topics_left == 0 {
                self.place = listed.place;
                return self.finish(true);
            }
            if !self.body.ends_with(b"[") {
                self.body.push(b',');
            }
            encode_listed(&mut self.body, listed);
            self.topics_left -= 1;
        }
        match listing.next {
            Some(place) => self.place = place,
            None => (self.shard, self.place) = (self.shard + 1, 0),
        }
        if self.shard >= self.shared.shards.shard_count() {
            return self.finish(false);
        }
        match self.steps_left == 0 {
            true => self.finish(true),
            false => self.go_on(),
        }
    }

    fn finish(mut self, has_more: bool) {
        self.body.push(b']');
        if has_more {
            let next = format!(",\"next\":\"{:08x}{:08x}\"", self.shard, self.place);
            self.body.extend_from_slice(next.as_bytes());
        }
        self.body.push(b'}');
        self.responder.respond(self.body);
    }
}

/// `GET /presence`.
pub(super) fn presence(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let topic = needed_topic(&input.parameters)?;
    call.may_observe(Some(topic.as_str()))?;
    let limit = input.parameters.limit()?;
    if !call.shared.settings.topic_rules.rule(&topic).presence {
        return Err(Refusal::not_found("the rule of this topic has no presence").into());
    }
    let after = input
        .parameters
        .text("cursor")
        .map(str::parse::<ConnectionId>);
    let after = after.transpose().map_err(|_| {
        ApiError::invalid_field(
            "cursor",
            "the cursor is none: it is what \"next\" of an answer says",
        )
    })?;
    let responder = call.responder(input, String::new());
    let asked = topic.clone();
    let present = move |number| inside::present(asked, number);
    ask(&call.shared.inside, present, move |reply| {
        if let Reply::Present(members, total) = reply {
            responder.respond(encode_presence(&topic, &members, total, (after, limit)));
        }
    });
    Ok(wait(READ_WAIT_MS))
}

fn encode_presence(
    topic: &Topic,
    members: &[Member],
    total: u32,
    (after, limit): (Option<ConnectionId>, usize),
) -> Vec<u8> {
    let key = |member: &Member| (member.reactor.0, member.connection);
    let mut sorted: Vec<&Member> = members.iter().collect();
    sorted.sort_unstable_by_key(|member| key(member));
    let first = after.map_or(0, |after| {
        sorted.partition_point(|member| key(member) <= (after.reactor, after.to_bits()))
    });
    let page = &sorted[first..(first + limit).min(sorted.len())];
    let id = |member: &Member| ConnectionId::from_bits(member.reactor.0, member.connection);
    let mut body = Vec::with_capacity(64 + 64 * page.len());
    let object = Object::new(&mut body)
        .text("topic", topic.as_str())
        .value("total", total)
        .with("members", |out| {
            out.push(b'[');
            for (at, member) in page.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                let mut object = Object::new(out).plain("connection", id(member));
                if let Some(identity) = &member.identity {
                    object = object.text_if("subject", identity.subject.as_deref());
                    if let Some(info) = &identity.info {
                        object = object.value("info", info);
                    }
                }
                match &member.info {
                    Some(info) => object.value("client_info", info),
                    None => object,
                }
                .end();
            }
            out.push(b']');
        });
    match page.last().filter(|_| first + page.len() < sorted.len()) {
        Some(last) => object.plain("next", id(last)),
        None => object,
    }
    .end();
    body
}

/// `GET /history`.
pub(super) fn history(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let parameters = &input.parameters;
    let topic = needed_topic(parameters)?;
    call.may_observe(Some(topic.as_str()))?;
    let limit = parameters.limit()? as u32;
    let last = parameters.parsed::<u32>("last")?;
    let since = parameters.text("since").map(|text| {
        let position = Position::parse(text);
        position.ok_or_else(|| {
            let reason = "\"since\" is a position, epoch:offset, as an answer has it";
            ApiError::invalid_field("since", reason)
        })
    });
    let start = match (since.transpose()?, last) {
        (Some(_), Some(_)) => {
            let reason = "a page begins by since or by last, not by both";
            return Err(ApiError::invalid_field("last", reason));
        }
        (Some(since), None) => Start::Since(since),
        (None, last) => Start::Last(last.unwrap_or(limit)),
    };
    if call
        .shared
        .settings
        .topic_rules
        .rule(&topic)
        .history
        .publications_max
        == 0
    {
        return Err(Refusal::not_found("the rule of this topic keeps no history").into());
    }
    let responder = call.responder(input, String::new());
    let (asked, now_us) = (topic.clone(), call.now_us);
    let read = move |number| inside::read(asked, (start, limit), now_us, number);
    ask(&call.shared.inside, read, move |reply| {
        if let Reply::Page(page) = reply {
            let mut body = Vec::with_capacity(256);
            encode_history(&mut body, &History::new(&topic, &page));
            responder.respond(body);
        }
    });
    Ok(wait(READ_WAIT_MS))
}

/// `DELETE /history`.
pub(super) fn empty_history(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let topic = needed_topic(&input.parameters)?;
    call.may_manage(Some(topic.as_str()))?;
    let responder = call.responder(input, topic.as_str().to_owned());
    let asked = topic.clone();
    let empty = move |number| inside::empty(asked, number);
    ask(&call.shared.inside, empty, move |reply| {
        let Reply::Page(page) = reply else { return };
        match page.position {
            None => {
                let reason = "nothing is known of this topic, and nothing of it is kept";
                responder.fail(Refusal::not_found(reason).into());
            }
            Some(position) => {
                let mut body = Vec::with_capacity(96);
                Object::new(&mut body)
                    .text("topic", topic.as_str())
                    .plain("position", position)
                    .end();
                responder.respond(body);
            }
        }
    });
    Ok(wait(call.shared.settings.limits.handshake_timeout_ms))
}

/// `POST /publish`.
pub(super) fn publish(call: &CallContext<'_>, input: &Input<'_>) -> Result<Step, ApiError> {
    let fields = &input.fields;
    let topics = match (fields.text("topic")?, fields.texts("topics")?) {
        (Some(topic), None) => vec![topic],
        (None, Some(topics)) => topics,
        (None, None) => {
            let reason = "\"topic\", or a list \"topics\", says where to publish";
            return Err(ApiError::missing_field("topic", reason));
        }
        (Some(_), Some(_)) => {
            let reason = "\"topic\" and \"topics\" do not stand together";
            return Err(ApiError::invalid_field("topics", reason));
        }
    };
    if topics.is_empty() || topics.len() > TOPICS_MAX {
        let reason = format!("\"topics\" has 1 to {TOPICS_MAX} topics");
        return Err(ApiError::invalid_field("topics", reason));
    }
    let is_one = fields.raw("topics").is_none();
    let mut parsed = Vec::with_capacity(topics.len());
    for text in &topics {
        let topic = Topic::from_text(text);
        let field = if is_one { "topic" } else { "topics" };
        parsed.push(topic.map_err(|refusal| ApiError::invalid_field(field, refusal.reason))?);
    }
    for topic in &parsed {
        call.may_manage(Some(topic.as_str()))?;
    }
    // The other fields are those of a line of POST /pub.
    let mut line = b"{\"topic\":".to_vec();
    encode_string(&mut line, &topics[0]);
    for (name, value) in fields
        .iter()
        .filter(|(name, _)| !matches!(*name, "topic" | "topics"))
    {
        line.extend_from_slice(format!(",\"{name}\":").as_bytes());
        line.extend_from_slice(value.get().as_bytes());
    }
    line.push(b'}');
    let limits = CommandLimits::of(&call.shared.settings.limits);
    let line = parse_publish_line(&line, &limits)?;
    Audit::new(call, input.operation, topics.join(" ")).log("begun");
    Ok(Step::Publish(Box::new(Publishes {
        topics: parsed,
        kind: line.kind,
        payload: line.payload.into_owned(),
        options: line.options,
        wants_receipt: line.wants_receipt,
        idempotency_key: input.publish_key.take(),
        is_one,
    })))
}

/// `GET /openapi.json`.
pub(super) fn openapi(_: &CallContext<'_>, _: &Input<'_>) -> Result<Step, ApiError> {
    let body = super::OPENAPI.trim_end().as_bytes().to_vec();
    Ok(Step::Answer(Answer::Respond(json(200, body))))
}
