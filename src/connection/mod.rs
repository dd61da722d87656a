//! One connection's state machine: bytes and time in, events and bytes out. It knows no socket and no clock.
//!
//! ```text
//!                 Upgrade                  closing handshake,            end of the peer's stream,
//!   Http ───────────────────────► Open ──────────────┐ either side       or the close timeout
//!    │ │                           │                 ▼
//!    │ │ Stream                    │ our Close   CloseSent ──► Lingering ──► Closed
//!    │ └──► Stream, Lines ────────│─────────────────────────────▲            ▲
//!    └─────────────────────────────│─────────────────────────────┘            │
//!      last answer                 └── peer gone, timeouts ───────────────────┘
//! ```
//!
//! `Open` is RFC 6455's OPEN; `CloseSent` is its CLOSING while the peer's Close is awaited; in `Lingering` all that is
//! left to do is to write the outbox, end our side of the stream and read the peer's side to its end, for a socket
//! that is closed with unread bytes resets the connection and takes our last bytes with it.
//!
//! Method families:
//! - `handle_*`: input. [`handle_bytes`](Connection::handle_bytes), [`handle_eof`](Connection::handle_eof),
//!   [`handle_timeout`](Connection::handle_timeout), [`handle_line`](Connection::handle_line).
//! - commands: [`close`](Connection::close), [`fail`](Connection::fail), [`lift`](Connection::lift).
//! - what to do next: [`deadline_ms`](Connection::deadline_ms), [`is_held`](Connection::is_held),
//!   [`wants_shutdown`](Connection::wants_shutdown), [`is_closed`](Connection::is_closed).
//!
//! Bytes to write are appended to `out`, which the caller writes behind the outbox, and queues in it what the kernel
//! does not take. So an idle connection owns no buffer.

mod asking;
mod compression;
mod deflation;
mod departing;

pub mod event;
mod exchange;
mod failure;
mod gathering;
pub mod joining;
mod lines;
mod liveness;
pub mod outbox;
mod refusing;
mod replies;
mod secured;
mod settings;
mod unread;
mod websocket;

use std::ops::Range;

pub use crate::dialect::ending::CloseReason;
pub use compression::Inflation;
use compression::{Context, context_bytes};
pub use deflation::Deflation;
pub use event::{
    Admission, Answer, Awaited, Endpoint, Event, Hold, Label, Message, PublishAnswer, Purpose,
    ReadBody, RefusedHandshake, RefusedStream, Reply, RouteRequest, Stream, Upgrade,
};
use exchange::Exchange;
pub use failure::{KeyUsedUp, ProtocolFailure, close_reason};
pub use gathering::{Gathering, Page};
use liveness::PingOffset;
pub use liveness::scatter;
pub use outbox::{Outbox, OutboxFull, Segment};
pub use secured::Secured;
pub use settings::Settings;
use unread::{KeptMessage, Unread};

use crate::dialect::{Encoding, StreamEnd};
use crate::http::refusal::Refusal;
use crate::protocol::deflate::Agreement;
use crate::protocol::{CloseCode, Decoder, Role};

/// Wait before a stream's reader comes back behind a shutdown, in milliseconds: each another, so that they do not come
/// together.
const SHUTDOWN_RETRY_MS: Range<u64> = 1000..5000;

/// Answer to a request whose own was dropped.
const ANSWER_LOST: &str =
    "there was no room for the answer; whether the request was carried out is not known";

/// No deadline.
pub const NEVER_MS: u64 = u64::MAX;

/// The caller's one function for a connection's events.
pub type OnEvent<'f> = dyn FnMut(Event<'_>, &mut Vec<u8>) -> Answer + 'f;

/// What a call brings along, through all that it leads to.
struct InputContext<'t, 'f> {
    settings: &'t Settings,
    now_ms: u64,
    inflation: &'t mut Inflation,
    out: &'t mut Vec<u8>,
    on_event: &'t mut OnEvent<'f>,
    /// A message of which a rest is to be kept.
    kept: Option<KeptMessage>,
}

/// The tag is a byte of its own, for it is looked at with every delivery.
#[derive(Debug)]
#[repr(u8)]
enum Phase {
    Http(Box<Exchange>),
    Open {
        /// The compression that was agreed to.
        deflate: Option<Agreement>,
        /// A ping is unanswered.
        awaiting_pong: bool,
        /// The peer has yet to show a credential.
        must_sign_in: bool,
        context: Context,
    },
    CloseSent(CloseReason),
    Stream(Encoding),
    /// An answer of lines that goes on.
    Lines,
    Lingering {
        reason: CloseReason,
        /// Our side of the stream has ended.
        is_shut: bool,
    },
    Closed(CloseReason),
}

impl Phase {
    /// What inflates messages that refer back to earlier ones, if the peer may send such.
    fn kept_context(&mut self) -> Option<&mut Context> {
        match self {
            Phase::Open {
                deflate: Some(agreed),
                context,
                ..
            } if agreed.client_takeover => Some(context),
            _ => None,
        }
    }
}

/// The state of one connection. There may be a million of them: see the test of its size.
#[derive(Debug)]
pub struct Connection {
    phase: Phase,
    decoder: Decoder,
    /// Bytes that the kernel did not take yet.
    pub outbox: Outbox,
    /// What came while reading was held: seldom anything, hence one word.
    unread: Option<Box<Unread>>,
    /// When the last byte came.
    last_received_ms: u64,
    /// When the phase wants attention: the next ping, the end of a handshake, the end of lingering.
    phase_deadline_ms: u64,
    /// When the message that has begun must be whole.
    message_deadline_ms: u64,
    endpoint: Endpoint,
    /// Which moment of the interval is that of its pings.
    ping_offset: PingOffset,
    /// The [`Hold`]s in force, one bit each.
    holds: u8,
    /// The peer's side of the stream has ended.
    eof: bool,
}

impl Connection {
    /// A connection that was just accepted. `salt` should differ between connections.
    pub fn new(settings: &Settings, now_ms: u64, salt: u32) -> Connection {
        Connection {
            phase: Phase::Http(Box::default()),
            decoder: Decoder::new(Role::Server),
            outbox: Outbox::default(),
            unread: None,
            last_received_ms: now_ms,
            phase_deadline_ms: now_ms + settings.limits.handshake_timeout_ms,
            message_deadline_ms: NEVER_MS,
            endpoint: Endpoint::Topic {
                may_publish: false,
                echo: true,
            },
            ping_offset: PingOffset::scatter(salt),
            holds: 0,
            eof: false,
        }
    }

    /// Takes in what was read. All of `input` is consumed: what cannot be dealt with yet is kept. `out` receives
    /// bytes to write, and `on_event` each whole request and message, in order. `inflation` is what the connections of
    /// a thread inflate by.
    pub fn handle_bytes(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        inflation: &mut Inflation,
        input: &mut [u8],
        out: &mut Vec<u8>,
        on_event: &mut OnEvent<'_>,
    ) {
        let mut rest = input;
        let mut context = InputContext {
            settings,
            now_ms,
            inflation,
            out,
            on_event,
            kept: None,
        };
        self.begin_turn(&mut context);
        self.handle_input(&mut context, &mut rest);
        if !rest.is_empty() || context.kept.is_some() {
            self.keep_unread(context.kept, rest);
        }
    }

    #[inline]
    fn begin_turn(&mut self, context: &mut InputContext<'_, '_>) {
        context.inflation.begin_turn();
        self.last_received_ms = context.now_ms;
        self.end_wait_for_pong(context.settings, context.now_ms);
    }

    /// Takes in what it may: all of it, or what came before a hold.
    #[inline]
    fn handle_input(&mut self, context: &mut InputContext<'_, '_>, rest: &mut &mut [u8]) {
        while !rest.is_empty() && self.holds == 0 {
            match self.phase {
                Phase::Http(_) => self.handle_http(context, rest),
                Phase::Open { .. } | Phase::CloseSent(_) => self.handle_frames(context, rest),
                // Nothing that an event stream's reader, or a peer that is done, says matters any more.
                Phase::Stream(_) | Phase::Lines | Phase::Lingering { .. } | Phase::Closed(_) => {
                    *rest = &mut [];
                }
            }
            self.hold_for_output(context.settings, context.out);
        }
    }

    /// The peer's side of the stream has ended.
    pub fn handle_eof(&mut self, settings: &Settings, now_ms: u64) {
        self.eof = true;
        match &mut self.phase {
            // Half-closed behind a whole request: the answer is still wanted.
            Phase::Http(exchange) if exchange.is_awaiting() => exchange.end_after_answer(),
            Phase::Http(_) if !self.outbox.is_empty() => {
                self.linger(settings, now_ms, CloseReason::PeerGone);
            }
            Phase::Http(exchange) if exchange.is_idle() && exchange.answered() > 0 => {
                self.finish(CloseReason::HttpDone);
            }
            Phase::Http(_)
            | Phase::Open { .. }
            | Phase::CloseSent(_)
            | Phase::Stream(_)
            | Phase::Lines => {
                self.finish(CloseReason::PeerGone);
            }
            Phase::Lingering { reason, .. } if self.outbox.is_empty() => {
                self.phase = Phase::Closed(*reason);
            }
            Phase::Lingering { .. } | Phase::Closed(_) => {}
        }
    }

    /// Takes the answer to one line of the current request. Does nothing if none is awaited any more.
    pub fn handle_line(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        number: u32,
        line: PublishAnswer,
        out: &mut Vec<u8>,
    ) {
        if let Phase::Http(exchange) = &mut self.phase
            && exchange.handle_line(settings, number, line, out)
        {
            self.holds &= !(Hold::Answer as u8);
            self.finish_answer(settings, now_ms);
        }
    }

    /// Carries out an answer to a command from elsewhere than the peer.
    pub fn handle_answer(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        answer: Answer,
        out: &mut Vec<u8>,
    ) {
        if matches!(self.phase, Phase::Open { .. }) {
            self.act(settings, now_ms, answer, out);
        }
    }

    /// Ends the connection in an orderly way: with a Close frame, behind the answer that is due, with 503 for a request
    /// that is not whole, or at once where nothing is due.
    pub fn close(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        reason: CloseReason,
        out: &mut Vec<u8>,
    ) {
        let has_unread = self.has_unread();
        match &mut self.phase {
            Phase::Open { .. } => {
                let (code, words) = self.close_code(settings, reason);
                self.send_close(settings, now_ms, code, words, reason, out);
            }
            Phase::Http(exchange) if exchange.is_joining() => {
                self.refuse_join(settings, now_ms, reason, out);
            }
            // A request that has come, or has begun, is still answered, if the rest of it comes in time.
            Phase::Http(exchange) if !exchange.is_idle() || has_unread => {
                exchange.end_after_answer();
            }
            Phase::Stream(encoding) => {
                if matches!(
                    reason,
                    CloseReason::Shutdown
                        | CloseReason::Expired
                        | CloseReason::Age
                        | CloseReason::TlsKey
                ) {
                    let end = StreamEnd {
                        retry_ms: self.ping_offset.between(SHUTDOWN_RETRY_MS) as u32,
                        refusal: None,
                        is_expired: reason == CloseReason::Expired,
                    };
                    settings
                        .dialects
                        .get(*encoding)
                        .encode_stream_end(out, &end);
                }
                self.linger(settings, now_ms, reason);
            }
            Phase::Lines => {
                if reason == CloseReason::Shutdown {
                    out.extend_from_slice(lines::SHUTDOWN_LINE);
                }
                self.linger(settings, now_ms, reason);
            }
            Phase::Http(_) => self.linger(settings, now_ms, reason),
            Phase::CloseSent(_) | Phase::Lingering { .. } | Phase::Closed(_) => {}
        }
    }

    /// Ends the connection for a reason that leaves no room to wait: what was queued and not begun is dropped, a
    /// WebSocket peer is told why, and nothing more is read for it than its Close; a request that has come is refused.
    pub fn fail(&mut self, settings: &Settings, now_ms: u64, reason: CloseReason) {
        // What found no room in the outbox is lost too. And another request may be on its way behind what is there.
        let is_answer_lost = !self.outbox.is_empty() || reason.is_slow_consumer();
        let has_unread = self.has_unread();
        self.outbox.drop_unbegun();
        self.unread = None;
        self.holds = 0;
        let mut last = Vec::new();
        match &mut self.phase {
            Phase::Http(exchange) => {
                // It is taken for the first answer that was dropped, so it must be true of that request too.
                let words = match exchange.is_awaiting() {
                    _ if is_answer_lost => ANSWER_LOST,
                    true => exchange.no_answer_in_time(),
                    false => reason.on_wire().1,
                };
                if is_answer_lost || has_unread || !exchange.is_idle() {
                    let refusal = match reason {
                        CloseReason::Rate => Refusal::too_many_requests(words),
                        _ => Refusal::unavailable(words),
                    };
                    exchange.end_after_answer();
                    exchange.encode_refusal(&refusal, settings, &mut last);
                }
                self.linger(settings, now_ms, reason);
            }
            _ => self.close(settings, now_ms, reason, &mut last),
        }
        // What is left of the outbox is one segment, so the Close frame finds room whatever the limit is.
        let pushed = self
            .outbox
            .push(Segment::Own(last.into()), 0, now_ms, usize::MAX);
        debug_assert!(pushed.is_ok());
    }

    /// The transport failed or the peer is gone: there is nobody to tell.
    pub fn finish(&mut self, reason: CloseReason) {
        self.phase = Phase::Closed(self.ending().unwrap_or(reason));
        self.outbox.clear();
        self.unread = None;
    }

    /// Everything is written: the outbox is empty and so is `out`.
    pub fn handle_flushed(&mut self) {
        if self.eof
            && let Phase::Lingering { reason, .. } = self.phase
        {
            self.phase = Phase::Closed(reason);
        }
    }

    /// Puts a hold on reading.
    pub fn hold(&mut self, hold: Hold) {
        self.holds |= hold as u8;
    }

    /// Lifts a hold; true if reading may go on now.
    pub fn lift(&mut self, hold: Hold) -> bool {
        let was_held = self.holds != 0;
        self.holds &= !(hold as u8);
        was_held && self.holds == 0
    }

    /// Whether reading must wait.
    pub fn is_held(&self) -> bool {
        self.holds != 0
    }

    /// Whether this hold is in force.
    pub fn has_hold(&self, hold: Hold) -> bool {
        self.holds & hold as u8 != 0
    }

    /// Whether publications are for it: it is connected to a topic and not ending.
    pub fn takes_deliveries(&self) -> bool {
        match self.phase {
            Phase::Open { .. } => !matches!(self.endpoint, Endpoint::Handler(_)),
            Phase::Stream(_) => true,
            _ => false,
        }
    }

    /// Dialect of its publications.
    pub fn encoding(&self) -> Encoding {
        match (&self.phase, self.endpoint) {
            (Phase::Stream(encoding), _) => *encoding,
            (_, Endpoint::Commands(encoding)) => encoding,
            _ => Encoding::PAYLOAD,
        }
    }

    /// Dialect of its commands, while it takes such.
    pub fn command_encoding(&self) -> Option<Encoding> {
        match (&self.phase, self.endpoint) {
            (Phase::Open { .. } | Phase::Stream(_), Endpoint::Commands(encoding)) => Some(encoding),
            _ => None,
        }
    }

    /// Close code and words, as its dialect has them.
    pub fn close_code(
        &self,
        settings: &Settings,
        reason: CloseReason,
    ) -> (CloseCode, &'static str) {
        let (code, words) = match self.endpoint {
            Endpoint::Commands(encoding) => settings.dialects.get(encoding).close_code(reason),
            Endpoint::Topic { .. } | Endpoint::Handler(_) => reason.on_wire(),
        };
        match reason {
            // What no dialect has a code of its own for has that of the setting.
            CloseReason::Shutdown if code == CloseCode::GOING_AWAY => {
                (CloseCode::new(settings.limits.drain_code), words)
            }
            _ => (code, words),
        }
    }

    /// Whether it subscribes to one topic, without its own publications.
    pub fn is_without_echo(&self) -> bool {
        matches!(self.endpoint, Endpoint::Topic { echo: false, .. })
    }

    /// Sets whether messages are published to its topic.
    pub fn set_may_publish(&mut self, allowed: bool) {
        if let Endpoint::Topic { may_publish, .. } = &mut self.endpoint {
            *may_publish = allowed;
        }
    }

    /// The own endpoint that it is on, until it is freed.
    pub fn handler(&self) -> Option<u16> {
        match self.endpoint {
            Endpoint::Handler(number) => Some(number),
            Endpoint::Topic { .. } | Endpoint::Commands(_) => None,
        }
    }

    /// The compression that was agreed to, while it is open.
    pub fn deflate(&self) -> Option<Agreement> {
        match self.phase {
            Phase::Open { deflate, .. } => deflate,
            _ => None,
        }
    }

    /// Label in the gauges.
    pub fn label(&self) -> Label {
        match (&self.phase, self.endpoint) {
            (Phase::Http(_) | Phase::Lines, _) => Label::Http,
            (Phase::Open { .. }, Endpoint::Handler(_)) => Label::Handler,
            (Phase::Open { .. } | Phase::Stream(_), _) => Label::Subscriber(self.encoding()),
            (Phase::CloseSent(_) | Phase::Lingering { .. } | Phase::Closed(_), _) => Label::Closing,
        }
    }

    /// Heap bytes of input that is unfinished or waits.
    pub fn inbound_bytes(&self) -> usize {
        let phase = match &self.phase {
            Phase::Http(exchange) => exchange.inbound_bytes(),
            Phase::Open { deflate, .. } => context_bytes(*deflate),
            _ => 0,
        };
        phase + self.decoder.buffered_bytes() + self.unread.as_ref().map_or(0, |it| it.bytes())
    }

    /// Whether our side of the stream is to be ended now: all is written, and no more will come. True once.
    pub fn wants_shutdown(&mut self) -> bool {
        match &mut self.phase {
            Phase::Lingering { is_shut, .. } if self.outbox.is_empty() => {
                !std::mem::replace(is_shut, true)
            }
            _ => false,
        }
    }

    /// Whether the socket is to be closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    /// Whether it is ending.
    pub fn is_closing(&self) -> bool {
        matches!(
            self.phase,
            Phase::CloseSent(_) | Phase::Lingering { .. } | Phase::Closed(_)
        )
    }

    /// Reason of its end; set once it is ending.
    pub fn ending(&self) -> Option<CloseReason> {
        match self.phase {
            Phase::CloseSent(reason) | Phase::Lingering { reason, .. } | Phase::Closed(reason) => {
                Some(reason)
            }
            Phase::Http(_) | Phase::Open { .. } | Phase::Stream(_) | Phase::Lines => None,
        }
    }

    /// Many small requests that come in one read may ask for much: once as much is in `out` as a read can bring, it is
    /// to be written before more is made. Flow control then does the rest.
    fn hold_for_output(&mut self, settings: &Settings, out: &[u8]) {
        let is_alive = matches!(self.phase, Phase::Http(_) | Phase::Open { .. });
        if is_alive && out.len() > output_bytes_max(settings) {
            self.hold(Hold::Outbox);
        }
    }

    /// Nothing more will be said, except what is queued; the peer's side is read to its end.
    fn linger(&mut self, settings: &Settings, now_ms: u64, reason: CloseReason) {
        self.phase = Phase::Lingering {
            reason: self.ending().unwrap_or(reason),
            is_shut: false,
        };
        self.phase_deadline_ms = now_ms + settings.limits.close_timeout_ms;
        self.message_deadline_ms = NEVER_MS;
        self.unread = None;
        self.holds = 0;
        // Frees what the decoder holds.
        self.decoder = Decoder::new(Role::Server);
    }
}

/// What one read may make of output before it is written.
fn output_bytes_max(settings: &Settings) -> usize {
    let limits = &settings.limits;
    limits.read_buffer_bytes.min(limits.outbox_bytes_max)
}

#[cfg(test)]
mod tests;
