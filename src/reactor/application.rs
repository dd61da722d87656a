//! What is done about a connection's events: one function, [`Application::handle_event`], for all of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::topics::{Subscription, Topics};
use crate::access::{Action, Authorizer};
use crate::config::Origins;
use crate::connection::{
    Answer, Awaited, CloseReason, Deflation, Endpoint, Event, Hold, Message, Purpose, Settings,
};
use crate::dialect::json;
use crate::handler::{ConnectionId, Handler, Peer};
use crate::http::escape::escape;
use crate::http::refusal::Refusal;
use crate::http::request::Head;
use crate::http::topic::Topic;
use crate::hub::{Command, Kind, Origin, Publication, ReactorId};
use crate::metrics::{Metrics, ReactorMetrics};
use crate::protocol::deflate::Agreement;
use crate::worker::Shards;

/// Where in its life the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Serving.
    Ready = 0,
    /// Delivering what is queued and closing everybody.
    Draining = 1,
    /// Ending at once.
    Stopping = 2,
}

/// The stage, as all threads see it. It only moves forward.
#[derive(Debug, Default)]
pub struct StageCell(AtomicU8);

impl StageCell {
    /// The stage now.
    pub fn get(&self) -> Stage {
        match self.0.load(Ordering::SeqCst) {
            0 => Stage::Ready,
            1 => Stage::Draining,
            _ => Stage::Stopping,
        }
    }

    /// Moves forward to this stage.
    pub fn advance(&self, stage: Stage) {
        self.0.fetch_max(stage as u8, Ordering::SeqCst);
    }
}

/// An own endpoint.
#[derive(Clone)]
pub struct Route {
    /// The exact path.
    pub path: Box<str>,
    /// What happens there.
    pub handler: Arc<dyn Handler>,
}

/// What all reactors share.
#[derive(Clone)]
pub struct Shared {
    /// The limits.
    pub settings: Arc<Settings>,
    /// The hub.
    pub shards: Arc<Shards>,
    /// Who may do what.
    pub authorizer: Arc<dyn Authorizer>,
    /// Which web origins may connect.
    pub origins: Arc<Origins>,
    /// Subprotocols that `/ws/{topic}` agrees to.
    pub subprotocols: Arc<[Box<str>]>,
    /// Own endpoints.
    pub routes: Arc<[Route]>,
    /// What all threads count.
    pub metrics: Arc<Metrics>,
    /// Where in its life the server is.
    pub stage: Arc<StageCell>,
}

/// The connection whose event is being dealt with.
pub(super) struct Current<'a> {
    pub id: ConnectionId,
    pub subscription: &'a mut Option<Subscription>,
    /// The compression that was agreed to.
    pub deflate: Option<Agreement>,
    /// There is memory for the context of a peer that compresses.
    pub may_keep_context: bool,
}

/// What a reactor does about events.
pub(super) struct Application {
    pub reactor: ReactorId,
    pub shared: Shared,
    pub topics: Topics,
    pub metrics: Arc<ReactorMetrics>,
    /// Commands that the hub did not take yet, with the connections that are held because of them.
    pub untaken: VecDeque<(ConnectionId, Command)>,
    /// Bytes of publications in them.
    untaken_bytes: usize,
    /// What compresses for own endpoints.
    pub deflation: Deflation,
    /// This tick's moment on the process's clock, for publications.
    pub now_us: u64,
}

impl Application {
    pub fn new(reactor: ReactorId, shared: Shared) -> Application {
        Application {
            reactor,
            topics: Topics::new(reactor, shared.settings.limits.topics_max),
            metrics: Arc::clone(shared.metrics.reactor(usize::from(reactor.0))),
            deflation: Deflation::new(&shared.settings),
            shared,
            untaken: VecDeque::new(),
            untaken_bytes: 0,
            now_us: 0,
        }
    }

    /// Ends the tick: of the write buffers at most so many bytes are kept, and the gauges are shown.
    pub fn finish_tick(&mut self, bytes_kept: usize) {
        self.deflation.shrink_to(bytes_kept);
        let metrics = &self.metrics;
        metrics.messages_deflated.set(self.deflation.messages);
        metrics.deflate_saved_bytes.set(self.deflation.saved_bytes);
        metrics.topics.set(self.topics.len() as u64);
    }

    /// The one place where events become actions.
    pub fn handle_event(
        &mut self,
        current: &mut Current<'_>,
        event: Event<'_>,
        out: &mut Vec<u8>,
    ) -> Answer {
        match event {
            Event::Request(head, bytes) => self.handle_request(current, &head, bytes),
            Event::Body(Purpose::Publish { topic, kind }, body) => {
                self.handle_publish_body(current, topic, kind, body)
            }
            Event::Body(Purpose::PublishLines { head }, body) => {
                self.handle_publish_lines(current, &head, body)
            }
            Event::Opened(number) => self.handle_opened(current, number, out),
            Event::Message(Endpoint::Topic { may_publish }, message) => {
                self.metrics.messages_received.add(1);
                self.handle_publication(current, may_publish, message)
            }
            Event::Message(Endpoint::Handler(number), message) => {
                self.metrics.messages_received.add(1);
                self.handle_message(current, number, message, out)
            }
            Event::Refused(refusal) => {
                self.count_refusal(current, refusal);
                Answer::Proceed
            }
        }
    }

    /// Holds a publisher back until the hub takes its command; with too many of them already, it is closed and told.
    fn hold_back(&mut self, id: ConnectionId, command: Command) -> Answer {
        let limits = &self.shared.settings.limits;
        if self.untaken.len() >= limits.commands_max
            || self.untaken_bytes + command.bytes() > limits.command_bytes_max
        {
            return Answer::End(CloseReason::OverBudget);
        }
        self.metrics.publish_holds.add(1);
        self.keep_untaken(id, command);
        Answer::Hold(Hold::Hub)
    }

    /// Keeps a command that the hub did not take.
    pub fn keep_untaken(&mut self, id: ConnectionId, command: Command) {
        self.untaken_bytes += command.bytes();
        self.untaken.push_back((id, command));
    }

    /// The oldest command that the hub did not take.
    pub fn take_untaken(&mut self) -> Option<(ConnectionId, Command)> {
        let (id, command) = self.untaken.pop_front()?;
        self.untaken_bytes -= command.bytes();
        Some((id, command))
    }

    /// Hands a command to the hub.
    pub fn submit(&self, command: Command) -> Result<(), Command> {
        self.shared.shards.submit(command, Some(self.reactor))
    }

    fn handle_publication(
        &mut self,
        current: &mut Current<'_>,
        may_publish: bool,
        message: Message<'_>,
    ) -> Answer {
        let (true, Some(subscription)) = (may_publish, *current.subscription) else {
            return Answer::End(CloseReason::Forbidden);
        };
        let topic = self.topics.topic(subscription).clone();
        let publication = Arc::new(Publication::new(
            message.kind(),
            message.payload(),
            self.now_us,
        ));
        match self.submit(Command::Publish {
            topic,
            publication,
            origin: Origin::Detached,
        }) {
            Ok(()) => Answer::Proceed,
            Err(command) => self.hold_back(current.id, command),
        }
    }

    fn handle_publish_body(
        &mut self,
        current: &mut Current<'_>,
        topic: Topic,
        kind: Option<Kind>,
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
        let publication = Arc::new(Publication::new(kind, body, self.now_us));
        let origin = self.origin(current, 0);
        match self.submit(Command::Publish {
            topic,
            publication,
            origin,
        }) {
            Ok(()) => Answer::Await(Awaited::One),
            Err(_) => Answer::Refuse(hub_is_full()),
        }
    }

    fn handle_publish_lines(
        &mut self,
        current: &mut Current<'_>,
        head: &[u8],
        body: &[u8],
    ) -> Answer {
        let head = match Head::parse(head, &self.shared.settings.request) {
            Ok(head) => head,
            Err(refusal) => return Answer::Refuse(refusal),
        };
        let lines_max = self.shared.settings.limits.publish_lines_max;
        let lines = body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        let mut answers = Vec::new();
        let mut full = false;
        for line in lines.filter(|line| !line.is_empty()) {
            let sequence = answers.len();
            if sequence == lines_max {
                let reason =
                    format!("over {lines_max} lines: this one and all after it are not published");
                answers.push(Some(refused_line(413, &reason)));
                break;
            }
            // Once one line was turned away those after it are too, so that the order of the lines holds.
            let outcome = if full {
                Err(hub_is_full())
            } else {
                self.publish_line(current, head, line, sequence as u32)
            };
            answers.push(outcome.err().map(|refusal| {
                full |= refusal.status == 503;
                refused_line(refusal.status, &refusal.reason)
            }));
        }
        Answer::Await(Awaited::Lines(answers))
    }

    fn publish_line(
        &self,
        current: &Current<'_>,
        head: Head<'_>,
        line: &[u8],
        sequence: u32,
    ) -> Result<(), Refusal> {
        let line =
            json::parse_publish_line(line, self.shared.settings.limits.publication_bytes_max)?;
        self.authorize(&head, Action::Publish(line.topic.as_str()))?;
        let publication = Arc::new(Publication::new(line.kind, &line.payload, self.now_us));
        let origin = self.origin(current, sequence);
        let command = Command::Publish {
            topic: line.topic,
            publication,
            origin,
        };
        self.submit(command).map_err(|_| hub_is_full())?;
        Ok(())
    }

    fn handle_opened(
        &mut self,
        current: &mut Current<'_>,
        number: u16,
        out: &mut Vec<u8>,
    ) -> Answer {
        self.call(current, number, out, |handler, peer| handler.open(peer))
    }

    fn handle_message(
        &mut self,
        current: &mut Current<'_>,
        number: u16,
        message: Message<'_>,
        out: &mut Vec<u8>,
    ) -> Answer {
        self.call(current, number, out, |handler, peer| {
            handler.message(peer, message);
        })
    }

    fn call(
        &mut self,
        current: &Current<'_>,
        number: u16,
        out: &mut Vec<u8>,
        call: impl FnOnce(&dyn Handler, &mut Peer<'_>),
    ) -> Answer {
        let Some(route) = self.shared.routes.get(usize::from(number)) else {
            return Answer::Proceed;
        };
        let bytes_max = self.shared.settings.limits.outbox_bytes_max;
        let mut peer = Peer::new(current.id, out, bytes_max)
            .with_deflation(&mut self.deflation, current.deflate);
        call(&*route.handler, &mut peer);
        self.metrics.messages_sent.add(peer.sent());
        match peer.take_close() {
            Some((code, reason)) => Answer::Close(code, reason),
            None => Answer::Proceed,
        }
    }

    fn origin(&self, current: &Current<'_>, sequence: u32) -> Origin {
        Origin::Connection {
            reactor: self.reactor,
            connection: current.id.to_bits(),
            sequence,
        }
    }

    fn count_refusal(&self, current: &Current<'_>, refusal: &Refusal) {
        if let Some(index) = Refusal::LABELS
            .iter()
            .position(|label| *label == refusal.label)
        {
            self.metrics.refused[index].add(1);
        }
        let (id, status, reason) = (current.id, refusal.status, refusal.label);
        log::debug!(connection:% = id, status, reason; "refused: {}", escape(&*refusal.reason));
    }
}

/// The hub's queue, or a reactor's mailbox, is full.
pub(super) fn hub_is_full() -> Refusal {
    Refusal::unavailable("more is being published than is delivered; try again")
}

fn refused_line(status: u16, reason: &str) -> Vec<u8> {
    let mut line = Vec::new();
    json::encode_refused(&mut line, status, reason);
    line
}
