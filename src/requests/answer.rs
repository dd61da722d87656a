//! Requests: which resource, whether the request may, and what it is answered with.

use std::borrow::Cow;
use std::sync::Arc;

use super::commands::Question;
use super::hosts::check_host;
use super::publishes::hub_is_full;
use super::refusals::{is_of_script, retry_ms};
use super::{Application, CommandContext};
use crate::auth::access::Action;
use crate::auth::caller::Caller;
use crate::config::Surface;
use crate::connection::event::ExtraHeaders;
use crate::connection::{Admission, Answer, Endpoint, Purpose, ReadBody, Reply, Stream, Upgrade};
use crate::console;
use crate::dialect::{CommandLimits, Encoding, Greeting, Opening, info_json};
use crate::fanout::subscribed::MultiSubscription;
use crate::fanout::topics::SubscribeError;
use crate::http::escape::escape;
use crate::http::refusal::Refusal;
use crate::http::request::{Head, Method};
use crate::hub::Start;
use crate::protocol::deflate::Agreement;
use crate::protocol::{self, choose_deflate, is_upgrade, parse_upgrade};
use crate::route::parameters::{
    allowed_headers, check_content_encoding, content_kind, has_echo, idempotency_key,
    is_among_known, last_event_position, publish_options, start_of, without_values,
};
use crate::route::surface::{is_for_observers, shows};
use crate::route::{Route, allowed_methods, query_of, resources};
use crate::shared::Lifecycle;
use crate::topic::Topic;

/// How long a browser may keep the answer to a preflight request, in seconds.
const PREFLIGHT_AGE_S: &str = "600";

/// Headers of answers that pages of other origins may read.
const EXPOSED_HEADERS: &str = "Umbel-Position, Umbel-Recovered, Umbel-Topic, Retry-After, WWW-Authenticate, \
                               Idempotency-Replayed";

impl Application {
    pub(super) fn handle_request(
        &mut self,
        current: &mut CommandContext<'_>,
        head: &Head<'_>,
        headers: &mut ExtraHeaders,
    ) -> Answer {
        self.allow_reading(head, headers);
        self.answer(current, head, headers)
            .unwrap_or_else(|refusal| self.refuse(current.id, head, refusal))
    }

    /// Lets a page read the answer, if it may connect.
    pub(super) fn allow_reading(&self, head: &Head<'_>, headers: &mut ExtraHeaders) {
        if let Some(origin) = head.known.origin.text().filter(|_| self.may_connect(head)) {
            headers.push(("Access-Control-Allow-Origin", origin.to_owned()));
            headers.push(("Vary", "Origin".to_owned()));
            headers.push(("Access-Control-Expose-Headers", EXPOSED_HEADERS.to_owned()));
        }
    }

    fn answer(
        &mut self,
        current: &mut CommandContext<'_>,
        head: &Head<'_>,
        headers: &mut ExtraHeaders,
    ) -> Result<Answer, Refusal> {
        if head.known.authorization.is_repeated() {
            let reason = "there is more than one Authorization header";
            return Err(Refusal::bad_request(reason));
        }
        check_host(&self.shared.hosts, head)?;
        let route = Route::parse(head.target, &self.shared.settings.dialects)?;
        let surface = self.surface_of(current.listener);
        if !shows(surface, &route) {
            return Err(self.nothing_here(current.listener));
        }
        self.check_site(head, &route)?;
        if let Some(topic) = route.topic().filter(|topic| topic.has_query()) {
            self.name_topic(current, topic, headers);
        }
        // Of a path that may be nobody's it is asked first whether it is there.
        if !matches!(route, Route::Path(_)) {
            if head.method == Method::Options {
                return self.preflight(head, &route);
            }
            route.check_method(head.method)?;
        }
        let caller = match route {
            // These are for everybody, whatever they show.
            Route::Health | Route::Ready => Caller::Anonymous,
            _ => self.authenticate(current, head)?,
        };
        self.answer_identified(current, head, &caller, route)
    }

    /// Says which topic was taken where the query is part of it, for that may not be what was meant.
    fn name_topic(
        &mut self,
        current: &CommandContext<'_>,
        topic: &Topic,
        headers: &mut ExtraHeaders,
    ) {
        let mut text = String::new();
        topic.encode_target(&mut text);
        headers.push(("Umbel-Topic", text));
        let level = match std::mem::replace(&mut self.is_query_logged, true) {
            true => log::Level::Debug,
            false => log::Level::Info,
        };
        let shown = without_values(topic.as_str());
        log::log!(level, connection:% = current.id, topic:% = escape(&shown);
            "the query of a request is part of its topic, but for parameters such as last and token");
    }

    /// Finds out who sent the request. The connection is theirs until the next one.
    fn authenticate<'a>(
        &mut self,
        current: &mut CommandContext<'_>,
        head: &Head<'a>,
    ) -> Result<Caller<'a>, Refusal> {
        let authority = &self.shared.authority;
        let caller = authority.authenticate(head, self.now_us / 1000)?;
        let noted = authority.note(&caller);
        self.identities.replace(current.identity, noted);
        Ok(caller)
    }

    /// Keeps who sent the request, to be asked about actions when it is over.
    fn keep_identity(
        &mut self,
        current: &mut CommandContext<'_>,
        caller: &Caller<'_>,
    ) -> Result<(), Refusal> {
        let kept = self.shared.authority.keep(caller)?;
        self.identities.replace(current.identity, kept);
        Ok(())
    }

    /// Answers a request once it is known who sent it. Nothing here finds that out, so it may be known later.
    fn answer_identified(
        &mut self,
        current: &mut CommandContext<'_>,
        head: &Head<'_>,
        caller: &Caller<'_>,
        route: Route<'_>,
    ) -> Result<Answer, Refusal> {
        if is_for_observers(self.surface_of(current.listener), &route) {
            self.authorize(caller, Action::Observe)?;
        }
        match route {
            Route::Health => Ok(text(200, "ok\n")),
            Route::Ready => Ok(match self.shared.lifecycle.get() {
                Lifecycle::Ready => text(200, "ready\n"),
                Lifecycle::Draining | Lifecycle::Stopping => text(503, "draining\n"),
            }),
            Route::Metrics => {
                self.authorize(caller, Action::Observe)?;
                Ok(self.metrics_page(head))
            }
            Route::Topics => self.list_topics(current, head, caller),
            Route::Topic(topic) => self.show_topic(current, head, caller, topic),
            Route::Asset(path) => self.asset(head, caller, path),
            Route::History(topic) => self.read_history(current, head, caller, topic),
            Route::TopicUpgrade(topic) => self.subscribe_websocket(current, head, caller, topic),
            Route::Commands(path) => self.open_many(current, head, caller, path),
            Route::TopicStream(encoding, topic) => {
                self.subscribe_stream(current, head, caller, encoding, topic)
            }
            Route::Publish(topic) => {
                self.check_origin(head)?;
                self.authorize(caller, Action::Publish(topic.as_str()))?;
                check_content_encoding(head)?;
                let limits = CommandLimits::of(&self.shared.settings.limits);
                let (options, wants_receipt, idempotency_key) =
                    publish_options(head, &limits.fields)?;
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
                self.check_origin(head)?;
                self.authorize(caller, Action::PublishMany)?;
                check_content_encoding(head)?;
                self.keep_identity(current, caller)?;
                let purpose = Purpose::PublishLines {
                    idempotency_key: idempotency_key(head)?,
                };
                let bytes_max = self.shared.settings.limits.body_bytes_max;
                Ok(Answer::ReadBody(ReadBody { purpose, bytes_max }))
            }
            // RFC 9110 section 9.3.7: a question about the server as a whole.
            Route::Path("*") => Ok(no_content(vec![(
                "Allow",
                "GET, HEAD, POST, OPTIONS".to_owned(),
            )])),
            Route::Path(path) => self.answer_path(current, head, caller, path),
        }
    }

    /// What the listener shows by which a connection came.
    fn surface_of(&self, listener: u8) -> Surface {
        let listening = self.shared.listeners.get(usize::from(listener));
        listening.map_or(Surface::All, |listening| listening.surface)
    }

    /// 404, with all that there is on a listener.
    pub(super) fn nothing_here(&self, listener: u8) -> Refusal {
        let surface = self.surface_of(listener);
        let own = self.shared.routes.iter().map(|own| &*own.path);
        let dialects = &self.shared.settings.dialects;
        let shown = resources(dialects, own, |route| shows(surface, route));
        Refusal::not_found(format!("there is nothing here; try {}", shown.join(", ")))
    }

    /// Whether somebody may do something.
    pub(super) fn authorize(&self, caller: &Caller<'_>, action: Action<'_>) -> Result<(), Refusal> {
        Ok(self.shared.authority.authorize(caller, action)?)
    }

    /// Whether a subscription may begin there: what was published before it is history, but for what its subscriber missed.
    fn authorize_start(
        &self,
        caller: &Caller<'_>,
        topic: &Topic,
        start: Start,
    ) -> Result<(), Refusal> {
        match start {
            Start::Last(_) => self.authorize(caller, Action::History(topic.as_str())),
            _ => Ok(()),
        }
    }

    /// What a browser asks before it lets a page of another origin publish or read a stream.
    fn preflight(&self, head: &Head<'_>, route: &Route<'_>) -> Result<Answer, Refusal> {
        self.check_origin(head)?;
        let mut headers = ExtraHeaders::new();
        headers.push(("Allow", format!("{}, OPTIONS", allowed_methods(route))));
        if head.header("access-control-request-method").is_some() {
            headers.push((
                "Access-Control-Allow-Methods",
                allowed_methods(route).to_owned(),
            ));
            headers.push(("Access-Control-Allow-Headers", allowed_headers(head)));
            headers.push(("Access-Control-Max-Age", PREFLIGHT_AGE_S.to_owned()));
        }
        Ok(no_content(headers))
    }

    fn metrics_page(&self, head: &Head<'_>) -> Answer {
        let (metrics, hub) = (&self.shared.metrics, self.shared.shards.counts());
        let openmetrics = head
            .headers("accept")
            .any(|accept| accept.contains("application/openmetrics-text"));
        let (content_type, text) = match openmetrics {
            true => (
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                metrics.encode(hub),
            ),
            false => (
                "text/plain; version=0.0.4; charset=utf-8",
                metrics.encode_prometheus(hub),
            ),
        };
        Answer::Respond(Reply {
            status: 200,
            content_type,
            headers: vec![("Cache-Control", "no-store".to_owned())],
            body: Cow::Owned(text.into_bytes()),
        })
    }

    pub(super) fn asset(
        &self,
        head: &Head<'_>,
        caller: &Caller<'_>,
        path: &str,
    ) -> Result<Answer, Refusal> {
        let asset = console::asset(path);
        match asset {
            // Scripts that a page of another origin imports are fetched as its own requests are.
            Some(asset) if asset.is_public => self.check_origin(head)?,
            _ => self.authorize(caller, Action::Observe)?,
        }
        let asset = asset.ok_or_else(|| Refusal::not_found("there is no such page"))?;
        let tag = format!("\"{:016x}\"", asset.tag);
        let is_known = is_among_known(head, &tag);
        let headers = vec![
            (
                "Content-Security-Policy",
                console::CONTENT_SECURITY_POLICY.to_owned(),
            ),
            ("X-Content-Type-Options", "nosniff".to_owned()),
            ("Referrer-Policy", "no-referrer".to_owned()),
            ("Cache-Control", "no-cache".to_owned()),
            ("ETag", tag),
        ];
        Ok(Answer::Respond(Reply {
            status: if is_known { 304 } else { 200 },
            content_type: asset.content_type,
            headers,
            body: Cow::Borrowed(if is_known { b"" } else { asset.body }),
        }))
    }

    /// The compression to agree to.
    pub(super) fn choose_deflate(
        &self,
        current: &mut CommandContext<'_>,
        head: &Head<'_>,
    ) -> Result<Option<Agreement>, Refusal> {
        let mut policy = self.shared.settings.deflate_policy;
        policy.client_takeover &= current.may_keep_context;
        current.deflate = choose_deflate(head, &policy)?;
        Ok(current.deflate)
    }

    pub(super) fn check_upgrade<'a>(
        &self,
        head: &Head<'a>,
    ) -> Result<protocol::Upgrade<'a>, Refusal> {
        if head.method == Method::Head || !is_upgrade(head) {
            let reason = "this is a WebSocket endpoint, and the request asks for no upgrade: it needs \
                          Connection: Upgrade and Upgrade: websocket";
            return Err(Refusal::upgrade_required(reason));
        }
        let upgrade = parse_upgrade(head)?;
        self.check_origin(head)?;
        Ok(upgrade)
    }

    fn subscribe_websocket(
        &mut self,
        current: &mut CommandContext<'_>,
        head: &Head<'_>,
        caller: &Caller<'_>,
        topic: Topic,
    ) -> Result<Answer, Refusal> {
        let upgrade = self.check_upgrade(head)?;
        self.authorize(caller, Action::Subscribe(topic.as_str()))?;
        let may_publish = self
            .authorize(caller, Action::Publish(topic.as_str()))
            .is_ok();
        let start = start_of(head)?;
        self.authorize_start(caller, &topic, start)?;
        let agreed = &self.shared.subprotocols;
        let subprotocol = choose(&upgrade, |offer| agreed.iter().any(|name| **name == *offer));
        // A browser fails a handshake whose offers were all passed over, and does not say so.
        let dialects = &self.shared.settings.dialects;
        if subprotocol.is_none() && is_of_script(head) && dialects.are_offered(upgrade.offers()) {
            return Err(Refusal::not_found(
                "the path of a topic has no subprotocol; umbel.v1 is at /ws",
            ));
        }
        let admission = Admission::Upgrade(Upgrade {
            accept: upgrade.accept,
            subprotocol,
            endpoint: Endpoint::Topic {
                may_publish,
                echo: has_echo(head)?,
            },
            deflate: self.choose_deflate(current, head)?,
            greeting: None,
        });
        self.subscribe(current, topic, start, admission)
    }

    fn subscribe_stream(
        &mut self,
        current: &mut CommandContext<'_>,
        head: &Head<'_>,
        caller: &Caller<'_>,
        encoding: Encoding,
        topic: Topic,
    ) -> Result<Answer, Refusal> {
        self.check_origin(head)?;
        self.authorize(caller, Action::Subscribe(topic.as_str()))?;
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
            self.check_ready()?;
            return Ok(Answer::Stream(stream));
        }
        let start = match head.known.last_event_id.bytes() {
            // What has seen no event has no position, and some clients say so by an empty one.
            None | Some(b"") => start_of(head)?,
            Some(_) => Start::Since(last_event_position(head.known.last_event_id.text())),
        };
        self.authorize_start(caller, &topic, start)?;
        self.subscribe(current, topic, start, Admission::Stream(stream))
    }

    /// Many topics on one connection.
    fn open_many(
        &mut self,
        current: &mut CommandContext<'_>,
        head: &Head<'_>,
        caller: &Caller<'_>,
        path: &str,
    ) -> Result<Answer, Refusal> {
        let upgrade = self.check_upgrade(head)?;
        self.authorize(caller, Action::Connect)?;
        let dialects = &self.shared.settings.dialects;
        let chosen = dialects.choose(path, upgrade.offers());
        let (encoding, subprotocol) = chosen.map_err(Refusal::bad_request)?;
        self.check_ready()?;
        let info = match query_of(head.target).get("info")? {
            Some(info) if info.len() > self.shared.settings.limits.info_bytes_max => {
                let reason = "the info is longer than info_bytes_max allows";
                return Err(Refusal::bad_request(reason));
            }
            info => info.map(|info| info_json(&info)),
        };
        let deflate = self.choose_deflate(current, head)?;
        self.keep_identity(current, caller)?;
        let dialects = &self.shared.settings.dialects;
        let greeting = dialects.get(encoding).open(&Opening {
            target: head.target,
            reactor: self.reactor,
            connection: current.id.to_bits(),
        });
        let best_form = dialects.best_form(encoding, deflate);
        let opened_ms = self.now_us / 1000;
        let many = MultiSubscription::new(info, best_form).opened_at(opened_ms);
        self.multi_subscriptions.begin(current.subscribed, many);
        Ok(Answer::Upgrade(Upgrade {
            accept: upgrade.accept,
            subprotocol: subprotocol.map(Box::from),
            endpoint: Endpoint::Commands(encoding),
            deflate,
            greeting: (greeting != Greeting::default()).then(|| Box::new(greeting)),
        }))
    }

    /// Whether new subscribers are taken.
    fn check_ready(&self) -> Result<(), Refusal> {
        match self.shared.lifecycle.get() {
            Lifecycle::Ready => Ok(()),
            Lifecycle::Draining | Lifecycle::Stopping => {
                Err(Refusal::unavailable("the server is shutting down").closing())
            }
        }
    }

    /// Makes the connection a subscriber: at once, or once the hub has said where the topic stands, if that matters.
    fn subscribe(
        &mut self,
        current: &mut CommandContext<'_>,
        topic: Topic,
        start: Start,
        admission: Admission,
    ) -> Result<Answer, Refusal> {
        self.check_ready()?;
        let refusal = |error| match error {
            SubscribeError::HubFull => hub_is_full(),
            SubscribeError::TooManyTopics => {
                Refusal::unavailable("as many topics have subscribers as topics_max allows")
            }
        };
        let rule = self.shared.settings.topic_rules.rule(&topic);
        if start != Start::Now || rule.history.publications_max > 0 || rule.presence {
            let question = Question {
                connection: current.id,
                request: 0,
                start,
                info: None,
            };
            self.ask_to_join(&topic, question, None).map_err(refusal)?;
            return Ok(Answer::Join(admission));
        }
        let (shards, reactor) = (Arc::clone(&self.shared.shards), self.reactor);
        let submit = |command| shards.submit(command, Some(reactor)).is_ok();
        let subscription = self.topics.subscribe(topic, current.id.index, submit);
        let subscription = subscription.map_err(refusal)?;
        *current.subscribed = subscription.into();
        self.tell_began(current.id, subscription.topic());
        Ok(match admission {
            Admission::Upgrade(upgrade) => Answer::Upgrade(upgrade),
            Admission::Stream(stream) => Answer::Stream(stream),
        })
    }
}

/// The first subprotocol that the peer offers and the server speaks.
fn choose(upgrade: &protocol::Upgrade<'_>, speaks: impl Fn(&str) -> bool) -> Option<Box<str>> {
    upgrade.offers().find(|offer| speaks(offer)).map(Box::from)
}

fn no_content(headers: ExtraHeaders) -> Answer {
    let (content_type, body) = ("text/plain; charset=utf-8", Cow::Borrowed(&b""[..]));
    Answer::Respond(Reply {
        status: 204,
        content_type,
        headers,
        body,
    })
}

fn text(status: u16, body: &'static str) -> Answer {
    Answer::Respond(Reply {
        status,
        content_type: "text/plain; charset=utf-8",
        headers: vec![("Cache-Control", "no-store".to_owned())],
        body: Cow::Borrowed(body.as_bytes()),
    })
}
