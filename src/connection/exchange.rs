//! The HTTP phase: one request after the other, each answered before the next is looked at.

use std::mem;

use super::event::{ExtraHeaders, ReadBody, Stream};
use super::replies::{Replies, RepliesForm};
use super::{
    Admission, Answer, Awaited, CloseReason, Connection, Context, Endpoint, Event, Gathering, Hold,
    InputContext, Phase, PublishAnswer, Purpose, Reply, Settings, Upgrade, context_bytes,
};
use crate::dialect::{Closing, Encoding, Greeting, StreamStart};
use crate::http::body::{BodyDecoder, BodyLength};
use crate::http::date::Date;
use crate::http::http2;
use crate::http::refusal::Refusal;
use crate::http::request::{Head, HeadScanner, Method};
use crate::http::response::{self, Response};
use crate::protocol::{Decoder, EXTENSIONS, Role, encode_switching_protocols};
use crate::rate::Limit;
use crate::topic::Topic;

/// Requests of one connection and their answers.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    scanner: HeadScanner,
    /// An unfinished head; empty while heads come whole.
    head: Vec<u8>,
    pub(super) state: RequestState,
    /// Whatever is asked for is refused, for the connection is over this limit.
    pub(super) over: Option<Limit>,
    pub(super) keep_alive: bool,
    /// The next answer is the last, whatever its request says.
    is_last: bool,
    pub(super) head_only: bool,
    /// The request is one of the control API: what is refused is refused in JSON.
    pub(super) is_call: bool,
    /// Headers of the answer to the request that is being dealt with.
    pub(super) headers: ExtraHeaders,
    answered: u64,
}

#[derive(Debug, Default)]
pub(super) enum RequestState {
    #[default]
    Head,
    Body(Body),
    Awaiting(Replies),
    /// The hub is asked what it knows of topics.
    Gathering(Box<Gathering>),
    /// The hub is asked for a page of this topic's history.
    Reading(Topic),
    /// Reactors, or the hub, are asked to carry out an operation.
    Calling,
    /// The hub is asked where the topic stands.
    Joining(Box<Admission>),
    /// Somebody else decides about the request with this head, which is dealt with again then.
    Asking(Box<[u8]>),
}

#[derive(Debug)]
pub(super) struct Body {
    pub(super) decoder: BodyDecoder,
    purpose: Purpose,
    /// What has arrived; empty for a body that arrives in one piece.
    gathered: Vec<u8>,
}

/// What the end of a request's head says about its body.
struct Framing {
    length: Result<BodyLength, Refusal>,
    expects_continue: Result<bool, Refusal>,
}

impl Exchange {
    /// The hub has yet to speak.
    pub(super) fn is_awaiting(&self) -> bool {
        matches!(
            self.state,
            RequestState::Awaiting(_)
                | RequestState::Gathering(_)
                | RequestState::Reading(_)
                | RequestState::Calling
                | RequestState::Joining(_)
                | RequestState::Asking(_)
        )
    }

    /// One publication alone is awaited.
    pub(super) fn awaits_one(&self) -> bool {
        matches!(&self.state, RequestState::Awaiting(replies) if replies.form == RepliesForm::One)
    }

    pub(super) fn is_in_body(&self) -> bool {
        matches!(self.state, RequestState::Body(_))
    }

    /// Not a byte of a request has come.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, RequestState::Head) && self.head.is_empty()
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    pub(super) fn end_after_answer(&mut self) {
        self.keep_alive = false;
        self.is_last = true;
    }

    pub(super) fn inbound_bytes(&self) -> usize {
        let state = match &self.state {
            RequestState::Body(body) => body.gathered.capacity() + body.purpose.bytes(),
            RequestState::Gathering(gathering) => gathering.body.capacity(),
            RequestState::Joining(admission) => match &**admission {
                Admission::Upgrade(upgrade) => context_bytes(upgrade.deflate),
                Admission::Stream(_) => 0,
            },
            RequestState::Head
            | RequestState::Awaiting(_)
            | RequestState::Reading(_)
            | RequestState::Calling => 0,
            RequestState::Asking(head) => head.len(),
        };
        self.head.capacity() + state
    }

    /// Takes one line; true once the answer is complete and in `out`.
    pub(super) fn handle_line(
        &mut self,
        settings: &Settings,
        number: u32,
        answer: PublishAnswer,
        out: &mut Vec<u8>,
    ) -> bool {
        let RequestState::Awaiting(replies) = &mut self.state else {
            return false;
        };
        let Some(line @ None) = replies.lines.get_mut(number as usize) else {
            return false;
        };
        *line = Some(answer.text);
        replies.missing -= 1;
        replies.replayed += usize::from(answer.is_replay);
        replies.refused += usize::from(answer.status != 200);
        replies.unavailable += usize::from(answer.status == 503);
        if replies.missing > 0 {
            return false;
        }
        self.encode_replies(settings, out);
        true
    }

    fn encode_replies(&mut self, settings: &Settings, out: &mut Vec<u8>) {
        let RequestState::Awaiting(replies) = mem::take(&mut self.state) else {
            return;
        };
        let body = match replies.form {
            RepliesForm::Results => replies.joined(),
            RepliesForm::One | RepliesForm::Lines => {
                let mut body = Vec::new();
                for line in replies.lines.iter().flatten() {
                    body.extend_from_slice(line);
                    body.push(b'\n');
                }
                body
            }
        };
        let refused_all = replies.refused > 0 && replies.refused == replies.lines.len();
        let mut headers = ExtraHeaders::new();
        if replies.replayed > 0 && replies.replayed + replies.refused == replies.lines.len() {
            headers.push(("Idempotency-Replayed", "true".to_owned()));
        }
        let reply = Reply {
            status: match refused_all {
                true if replies.unavailable == replies.refused => 503,
                true => 422,
                false => 200,
            },
            content_type: match replies.form {
                RepliesForm::Lines => "application/x-ndjson",
                RepliesForm::One | RepliesForm::Results => "application/json",
            },
            headers,
            body: body.into(),
        };
        self.encode_reply(&reply, settings, out);
    }

    pub(super) fn encode_reply(&mut self, reply: &Reply, settings: &Settings, out: &mut Vec<u8>) {
        let (date, own) = (settings.date.get(), mem::take(&mut self.headers));
        let headers: Vec<_> = lines_of(date.as_ref(), &own)
            .chain(lines_of(None, &reply.headers))
            .collect();
        let response = Response {
            status: reply.status,
            // Of what the client has already nothing is told but that.
            content_type: (reply.status != 304).then_some(reply.content_type),
            headers: &headers,
            body: &reply.body,
            keep_alive: self.keep_alive,
            head_only: self.head_only,
        };
        response.encode(out);
    }
}

/// Header lines of an answer: its date, and these.
pub(super) fn lines_of<'a>(
    date: Option<&'a Date>,
    headers: &'a [(&'static str, String)],
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let date = date.map(|date| ("Date", date.as_str()));
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
    date.into_iter().chain(headers)
}

impl Connection {
    /// The headers of the answer to the request that is being dealt with.
    fn take_headers(&mut self) -> ExtraHeaders {
        match &mut self.phase {
            Phase::Http(exchange) => mem::take(&mut exchange.headers),
            _ => ExtraHeaders::new(),
        }
    }

    pub(super) fn handle_http(&mut self, context: &mut InputContext<'_, '_>, rest: &mut &mut [u8]) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        match exchange.state {
            RequestState::Head => self.handle_head(context, rest),
            RequestState::Body(_) => self.handle_body(context, rest),
            RequestState::Awaiting(_)
            | RequestState::Gathering(_)
            | RequestState::Reading(_)
            | RequestState::Calling
            | RequestState::Joining(_) => {
                self.hold(Hold::Answer);
            }
            RequestState::Asking(_) => self.hold(Hold::Ask),
        }
    }

    fn handle_head(&mut self, context: &mut InputContext<'_, '_>, rest: &mut &mut [u8]) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        if exchange.is_idle() && exchange.answered > 0 {
            self.phase_deadline_ms = context.now_ms + context.settings.limits.handshake_timeout_ms;
        }
        if exchange.head.is_empty() {
            match exchange.scanner.scan(rest, &context.settings.request) {
                Ok(Some(len)) => {
                    let (head, tail) = mem::take(rest).split_at_mut(len);
                    *rest = tail;
                    self.handle_request(context, head, rest.is_empty());
                }
                Ok(None) => exchange.head.extend_from_slice(&*mem::take(rest)),
                Err(refusal) => self.refuse(context, &refusal),
            }
            return;
        }
        let before = exchange.head.len();
        let taken = rest
            .len()
            .min((context.settings.request.head_bytes_max + 1).saturating_sub(before));
        exchange.head.extend_from_slice(&rest[..taken]);
        let consumed = match exchange
            .scanner
            .scan(&exchange.head, &context.settings.request)
        {
            Ok(Some(len)) => {
                let mut head = mem::take(&mut exchange.head);
                head.truncate(len);
                let consumed = len - before;
                let is_last = rest.len() == consumed;
                self.handle_request(context, &head, is_last);
                consumed
            }
            Ok(None) => taken,
            Err(refusal) => return self.refuse(context, &refusal),
        };
        *rest = &mut mem::take(rest)[consumed..];
    }

    /// `is_last`: nothing that came with the head stands behind it.
    fn handle_request(&mut self, context: &mut InputContext<'_, '_>, bytes: &[u8], is_last: bool) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        exchange.scanner = HeadScanner::new();
        self.handle_request_again(context, bytes, is_last);
    }

    /// Deals with a request, be it again.
    pub(super) fn handle_request_again(
        &mut self,
        context: &mut InputContext<'_, '_>,
        bytes: &[u8],
        is_last: bool,
    ) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        let head = match Head::parse(bytes, &context.settings.request) {
            Ok(head) => head,
            Err(refusal) => {
                exchange.keep_alive = false;
                if http2::is_preface(bytes) {
                    let refused = Event::Refused(&refusal, &mut exchange.headers);
                    (context.on_event)(refused, context.out);
                    http2::encode_go_away(context.out);
                    let reason = CloseReason::HttpRefused;
                    return self.linger(context.settings, context.now_ms, reason);
                }
                return self.refuse(context, &refusal);
            }
        };
        exchange.head_only = head.method == Method::Head;
        let framing = Framing {
            length: head.body(),
            expects_continue: head.expects_continue(),
        };
        let has_body = !matches!(framing.length, Ok(BodyLength::None | BodyLength::Length(0)));
        exchange.keep_alive = head.keep_alive() && !exchange.is_last && exchange.over.is_none();
        exchange.headers.clear();
        exchange.is_call = false;
        let event = match exchange.over {
            None => Event::Request(&head, &mut exchange.headers),
            Some(limit) => Event::OverCap(limit, &head, &mut exchange.headers),
        };
        let answer = (context.on_event)(event, context.out);
        if matches!(answer, Answer::Ask) {
            exchange.state = RequestState::Asking(bytes.into());
            return self.hold(Hold::Ask);
        }
        exchange.is_call = answer.is_to_call();
        if has_body && !matches!(answer, Answer::ReadBody(..)) {
            // A body that nobody reads must not be taken for the next request.
            exchange.keep_alive = false;
        }
        match answer {
            Answer::ReadBody(wanted) => {
                match self.begin_body(context, framing, wanted) {
                    Ok(wants_continue) => {
                        if wants_continue && is_last {
                            context.out.extend_from_slice(response::CONTINUE);
                        }
                        // A body without bytes is whole already.
                        self.handle_body(context, &mut (&mut [] as &mut [u8]));
                    }
                    Err(refusal) => self.refuse(context, &refusal),
                }
            }
            Answer::Upgrade(upgrade) => self.upgrade(context, &upgrade, &head),
            Answer::RefuseHandshake(refused) => self.refuse_handshake(context, &refused),
            Answer::RefuseStream(refused) => self.refuse_stream(context, &refused),
            Answer::Stream(stream) => self.begin_stream(context, &stream),
            Answer::Lines => self.begin_lines(context),
            Answer::Join(admission) => self.begin_join(context.settings, context.now_ms, admission),
            answer => self.answer(context, answer),
        }
    }

    /// Prepares to read the body; says whether the peer waits for `100 Continue`.
    fn begin_body(
        &mut self,
        context: &InputContext<'_, '_>,
        framing: Framing,
        wanted: ReadBody,
    ) -> Result<bool, Refusal> {
        let Phase::Http(exchange) = &mut self.phase else {
            return Ok(false);
        };
        let ReadBody { purpose, bytes_max } = wanted;
        let wants_continue = framing.expects_continue.map_err(Refusal::closing)?;
        let length = framing.length.map_err(Refusal::closing)?;
        if matches!(length, BodyLength::Length(bytes) if bytes > bytes_max as u64) {
            let reason = format!("the body is longer than {bytes_max} bytes");
            return Err(Refusal::body_too_large(reason).closing());
        }
        let decoder = BodyDecoder::new(length, bytes_max as u64);
        exchange.state = RequestState::Body(Body {
            decoder,
            purpose,
            gathered: Vec::new(),
        });
        self.phase_deadline_ms = context.now_ms + context.settings.limits.body_timeout_ms;
        Ok(wants_continue)
    }

    pub(super) fn handle_body(&mut self, context: &mut InputContext<'_, '_>, rest: &mut &mut [u8]) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        let RequestState::Body(mut body) = mem::take(&mut exchange.state) else {
            return;
        };
        let bytes = mem::take(rest);
        let mut input: &[u8] = bytes;
        let mut answer = None;
        let failed = loop {
            match body.decoder.decode(&mut input) {
                Ok(Some(piece)) if body.gathered.is_empty() && body.decoder.is_done() => {
                    answer = Some((context.on_event)(
                        Event::Body(body.purpose.clone(), piece),
                        context.out,
                    ));
                    if matches!(answer, Some(Answer::Ask)) {
                        body.gathered.extend_from_slice(piece);
                    }
                    break None;
                }
                Ok(Some(piece)) => body.gathered.extend_from_slice(piece),
                Ok(None) => break None,
                Err(refusal) => break Some(refusal),
            }
        };
        let consumed = bytes.len() - input.len();
        *rest = &mut bytes[consumed..];
        if let Some(refusal) = failed {
            return self.refuse(context, &refusal.closing());
        }
        if answer.is_none() && body.decoder.is_done() {
            answer = Some((context.on_event)(
                Event::Body(body.purpose.clone(), &body.gathered),
                context.out,
            ));
        }
        match answer {
            Some(Answer::Ask) => {
                exchange.state = RequestState::Body(body);
                self.hold(Hold::Ask);
            }
            Some(answer) => self.answer(context, answer),
            None => exchange.state = RequestState::Body(body),
        }
    }

    /// Carries out an answer that leaves the connection in HTTP.
    pub(super) fn answer(&mut self, context: &mut InputContext<'_, '_>, answer: Answer) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        match answer {
            Answer::Respond(reply) => {
                exchange.encode_reply(&reply, context.settings, context.out);
                self.finish_answer(context.settings, context.now_ms);
            }
            Answer::Refuse(refusal) => self.refuse(context, &refusal),
            Answer::Await(awaited) => {
                let (settings, now_ms) = (context.settings, context.now_ms);
                let (lines, refused, form) = match awaited {
                    Awaited::One => (vec![None], 0, RepliesForm::One),
                    Awaited::Lines { answers, refused } => (answers, refused, RepliesForm::Lines),
                    Awaited::Results(answers) => {
                        let refused = answers.iter().flatten().count();
                        (answers, refused, RepliesForm::Results)
                    }
                    Awaited::History(topic) => return self.begin_reading(settings, now_ms, topic),
                    Awaited::Topics(gathering) => {
                        return self.begin_gathering(settings, now_ms, gathering);
                    }
                    Awaited::Call(wait_ms) => return self.begin_call(context.now_ms, wait_ms),
                };
                let missing = lines.iter().filter(|line| line.is_none()).count();
                exchange.state = RequestState::Awaiting(Replies {
                    lines,
                    missing,
                    replayed: 0,
                    refused,
                    unavailable: 0,
                    form,
                });
                if missing == 0 {
                    exchange.encode_replies(settings, context.out);
                    return self.finish_answer(settings, now_ms);
                }
                self.phase_deadline_ms = now_ms + settings.limits.handshake_timeout_ms;
                self.hold(Hold::Answer);
            }
            answer => debug_assert!(false, "{answer:?} does not answer a request"),
        }
    }

    /// The answer is in `out`: the next request is awaited, or the connection ends.
    pub(super) fn finish_answer(&mut self, settings: &Settings, now_ms: u64) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        exchange.answered += 1;
        exchange.state = RequestState::Head;
        // What comes next may be no request at all, and then its method is not HEAD.
        exchange.head_only = false;
        if exchange.keep_alive {
            self.phase_deadline_ms = now_ms + settings.limits.keep_alive_timeout_ms;
        } else {
            self.linger(settings, now_ms, CloseReason::HttpDone);
        }
    }

    fn upgrade(&mut self, context: &mut InputContext<'_, '_>, upgrade: &Upgrade, head: &Head<'_>) {
        self.open(context.settings, context.now_ms, upgrade, &[], context.out);
        if let Endpoint::Handler(number) = upgrade.endpoint {
            let answer = (context.on_event)(Event::Opened(number, head), context.out);
            self.act(context.settings, context.now_ms, answer, context.out);
        }
    }

    /// Completes the opening handshake, with these headers besides.
    pub(super) fn open(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        upgrade: &Upgrade,
        headers: &[(&str, &str)],
        out: &mut Vec<u8>,
    ) {
        let extension = upgrade.deflate.map(|agreement| agreement.encode());
        let extension = extension.as_deref().map(|value| (EXTENSIONS, value));
        let (date, own) = (settings.date.get(), self.take_headers());
        let headers: Vec<_> = extension
            .iter()
            .chain(headers)
            .copied()
            .chain(lines_of(date.as_ref(), &own))
            .collect();
        encode_switching_protocols(
            out,
            &upgrade.accept,
            upgrade.subprotocol.as_deref(),
            &headers,
        );
        self.phase = Phase::Open {
            deflate: upgrade.deflate,
            awaiting_pong: false,
            must_sign_in: upgrade.must_sign_in,
            context: Context::default(),
        };
        self.endpoint = upgrade.endpoint;
        self.decoder = Decoder::new(Role::Server);
        if upgrade.deflate.is_some() {
            self.decoder.accept_compressed();
        }
        self.schedule_first_ping(settings, now_ms);
        if let Some(greeting) = &upgrade.greeting {
            self.greet(settings, now_ms, greeting, out);
        }
    }

    fn greet(&mut self, settings: &Settings, now_ms: u64, greeting: &Greeting, out: &mut Vec<u8>) {
        let (dialects, encoding) = (&settings.dialects, self.encoding());
        dialects.frame_message(encoding, &greeting.message, out);
        if let Some(Closing { code, words }) = &greeting.closing {
            let reason = CloseReason::Dialect(*code);
            self.send_close(settings, now_ms, *code, words, reason, out);
        }
    }

    fn begin_stream(&mut self, context: &mut InputContext<'_, '_>, stream: &Stream) {
        let start = StreamStart {
            headers: &[],
            joined: None,
        };
        let (settings, now_ms) = (context.settings, context.now_ms);
        let is_head_only = matches!(&self.phase, Phase::Http(exchange) if exchange.head_only);
        self.open_stream(settings, now_ms, stream.encoding, &start, context.out);
        if is_head_only {
            self.linger(settings, now_ms, CloseReason::HttpDone);
        }
    }

    /// Begins a stream.
    pub(super) fn open_stream(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        encoding: Encoding,
        start: &StreamStart<'_>,
        out: &mut Vec<u8>,
    ) {
        let (date, own) = (settings.date.get(), self.take_headers());
        let headers = start.headers.iter().copied();
        let headers: Vec<_> = headers.chain(lines_of(date.as_ref(), &own)).collect();
        let start = StreamStart {
            headers: &headers,
            joined: start.joined,
        };
        settings
            .dialects
            .get(encoding)
            .encode_stream_start(out, &start);
        self.phase = Phase::Stream(encoding);
        self.phase_deadline_ms = now_ms + settings.limits.ping_interval_ms;
    }
}
