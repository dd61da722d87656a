//! Reports of a connection, and instructions to it.

use std::borrow::Cow;

use super::gathering::Gathering;
use crate::dialect::ending::CloseReason;
pub use crate::dialect::message::Message;
use crate::dialect::{Dialects, Encoding, Greeting};
use crate::http::kept::KeptHead;
use crate::http::refusal::Refusal;
use crate::http::request::Head;
use crate::hub::idempotency::GivenKey;
use crate::hub::{Kind, PublishOptions};
use crate::protocol::deflate::Agreement;
use crate::protocol::{CloseCode, Opcode};
use crate::rate::Limit;
use crate::topic::Topic;

/// Something that came in whole. It borrows the read buffer wherever that is possible.
#[derive(Debug)]
pub enum Event<'a> {
    /// The head of a request, and the headers that its answer gets, whatever that will be. Answer with `Respond`,
    /// `Refuse`, `ReadBody`, `Await`, `Upgrade`, `Stream` or `Join`.
    Request(&'a Head<'a>, &'a mut ExtraHeaders),
    /// The head of a request on a connection that is too many, and the headers of its answer. Answer with a refusal of any
    /// form.
    OverCap(Limit, &'a Head<'a>, &'a mut ExtraHeaders),
    /// The body that was asked for. Answer with `Respond`, `Refuse` or `Await`.
    Body(Purpose, &'a [u8]),
    /// The opening handshake of an own endpoint, asked for by this request, is answered. Answer with `Proceed`, `Close` or
    /// `End`.
    Opened(u16, &'a Head<'a>),
    /// A message, whole. Answer with `Proceed`, `Hold`, `Keep` or `Close`.
    Message(Endpoint, Message<'a>),
    /// A message again of which a rest was kept, and the place of that. Answer as to a message.
    Rest(Endpoint, Message<'a>, usize),
    /// A control frame came whole: its opcode, and bytes of its payload. The answer to this is not looked at.
    Control(Opcode, usize),
    /// A request was refused, with what it is told, and the headers of that answer. The answer to this is not looked at.
    Refused(&'a Refusal, &'a mut ExtraHeaders),
}

/// Purpose of a request's body. It waits in the connection until the body is whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Purpose {
    /// One publication.
    Publish {
        /// Where to.
        topic: Topic,
        /// Text or binary, if the request says which.
        kind: Option<Kind>,
        /// Options of the publish.
        options: PublishOptions,
        /// It is answered after the fan-out, with what became of it.
        wants_receipt: bool,
        /// It is carried out once.
        idempotency_key: Option<Box<GivenKey>>,
    },
    /// One publication a line.
    PublishLines {
        /// Idempotency key of the request, which each line has with its number.
        idempotency_key: Option<Box<GivenKey>>,
    },
    /// For a route of the embedding program's.
    Route(Box<RouteRequest>),
    /// For an operation of the control API, by its number. What is refused is refused in JSON.
    Call {
        /// The request.
        request: Box<RouteRequest>,
        /// Key of a publish, which is carried out once.
        idempotency_key: Option<Box<GivenKey>>,
    },
}

impl Purpose {
    /// Heap bytes that it holds and that others than publishes have not.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Purpose::Route(request) => request.bytes(),
            Purpose::Call {
                request,
                idempotency_key,
            } => {
                let key = idempotency_key.as_deref();
                let key = key.map_or(0, |key| size_of::<GivenKey>() + key.text.len());
                request.bytes() + key
            }
            Purpose::Publish { .. } | Purpose::PublishLines { .. } => 0,
        }
    }
}

/// Request that waits for its body: to a route of the program's, or an operation of the control API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRequest {
    /// The number of the route.
    pub number: u16,
    /// The method.
    pub method: Box<str>,
    /// The target and the header lines.
    pub head: KeptHead,
}

impl RouteRequest {
    /// Heap bytes that it holds, itself among them.
    fn bytes(&self) -> usize {
        size_of::<RouteRequest>() + self.head.view().bytes()
    }
}

/// Answer to one publication of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishAnswer {
    /// The JSON object, without a line end.
    pub text: Vec<u8>,
    /// Status that it would have as an answer of its own.
    pub status: u16,
    /// The publication was published before.
    pub is_replay: bool,
}

impl PublishAnswer {
    /// Answer to a publication that has its place.
    pub fn placed(text: Vec<u8>) -> PublishAnswer {
        PublishAnswer {
            text,
            status: 200,
            is_replay: false,
        }
    }
}

/// Endpoint of a WebSocket connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A topic: what it sends is published there, if it may.
    Topic {
        /// Whether it may publish.
        may_publish: bool,
        /// Whether its own publications come back to it.
        echo: bool,
    },
    /// Many topics: what it sends are commands of this dialect.
    Commands(Encoding),
    /// An own endpoint, by its number.
    Handler(u16),
}

/// Instruction about an event.
#[derive(Debug)]
pub enum Answer {
    /// Nothing: go on.
    Proceed,
    /// The message is dealt with, but nothing further is read until the hold is lifted.
    Hold(Hold),
    /// The message is dealt with up to this place. The rest of it is kept, and nothing further is read, until the hold is
    /// lifted.
    Keep(usize, Hold),
    /// The peer has shown a credential; and this. Its messages are as those of others from here on.
    SignedIn(Box<Answer>),
    /// Answer the request.
    Respond(Reply),
    /// Answer the request with what was wrong.
    Refuse(Refusal),
    /// Complete the opening handshake, and tell in a Close what was wrong.
    RefuseHandshake(Box<RefusedHandshake>),
    /// Answer with a stream that says what was wrong, and when to come back, and ends.
    RefuseStream(Box<RefusedStream>),
    /// Read the body first.
    ReadBody(ReadBody),
    /// The answer comes later; of publications by [`handle_line`](super::Connection::handle_line), once for each that
    /// waits.
    Await(Awaited),
    /// Complete the opening handshake.
    Upgrade(Upgrade),
    /// Answer with a stream that does not end.
    Stream(Stream),
    /// Answer with JSON lines, which come until the connection is closed.
    Lines,
    /// The answer comes later, by [`handle_joined`](super::Connection::handle_joined).
    Join(Admission),
    /// Somebody else decides about the request, or the message. It is kept, and nothing further is read, until
    /// [`Hold::Ask`] is lifted. Then the event comes again.
    Ask,
    /// End the connection for a reason of the server's own, and tell the peer.
    End(CloseReason),
    /// Start the closing handshake, as an own endpoint wants it.
    Close(CloseCode, Cow<'static, str>),
}

impl Answer {
    /// Whether the event is kept until somebody else has decided about it.
    pub fn waits_for_decision(&self) -> bool {
        match self {
            Answer::Ask | Answer::Keep(_, Hold::Ask) => true,
            Answer::SignedIn(answer) => answer.waits_for_decision(),
            _ => false,
        }
    }

    /// Whether the request that it answers is one of the control API, and is not answered yet.
    pub(super) fn is_to_call(&self) -> bool {
        match self {
            Answer::ReadBody(wanted) => matches!(wanted.purpose, Purpose::Call { .. }),
            Answer::Await(awaited) => matches!(awaited, Awaited::Call(_)),
            _ => false,
        }
    }
}

/// A body that is wanted.
#[derive(Debug)]
pub struct ReadBody {
    /// Purpose of the body.
    pub purpose: Purpose,
    /// Bytes that are taken; more is refused with 413.
    pub bytes_max: usize,
}

/// The answer to an opening handshake.
#[derive(Debug)]
pub struct Upgrade {
    /// `Sec-WebSocket-Accept`.
    pub accept: [u8; 28],
    /// `Sec-WebSocket-Protocol`, if one was chosen.
    pub subprotocol: Option<Box<str>>,
    /// Endpoint of the connection from here on.
    pub endpoint: Endpoint,
    /// The compression that is agreed to.
    pub deflate: Option<Agreement>,
    /// Its peer has yet to show a credential: until then its messages are small.
    pub must_sign_in: bool,
    /// First message on the connection. In a box, for few have one.
    pub greeting: Option<Box<Greeting>>,
}

/// An answer that does not end.
#[derive(Debug)]
pub struct Stream {
    /// Encoding of its publications.
    pub encoding: Encoding,
    /// Wait before a refused reader comes back, in milliseconds. None: it sees the status.
    pub retry_ms: Option<u32>,
}

/// A refused stream whose reader would take a status for the end.
#[derive(Debug)]
pub struct RefusedStream {
    /// Encoding of the stream.
    pub encoding: Encoding,
    /// Wait before its reader comes back, in milliseconds.
    pub retry_ms: u32,
    /// The refusal.
    pub refusal: Refusal,
}

/// A refused opening handshake whose peer cannot read a status.
#[derive(Debug)]
pub struct RefusedHandshake {
    /// The answer to it.
    pub upgrade: Upgrade,
    /// Code of the Close that follows at once with the reason.
    pub code: CloseCode,
    /// The refusal.
    pub refusal: Refusal,
}

/// Answer to a request once its topic's position is known.
#[derive(Debug)]
pub enum Admission {
    /// Complete the opening handshake.
    Upgrade(Upgrade),
    /// Answer with a stream that does not end.
    Stream(Stream),
}

/// The answer to a request.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: ExtraHeaders,
    /// The body.
    pub body: Cow<'static, [u8]>,
}

/// Cause of a wait for the hub.
#[derive(Debug)]
pub enum Awaited {
    /// One publication; the answer is one object.
    One,
    /// The answers line by line.
    Lines {
        /// Those that are there already, in their places.
        answers: Vec<Option<Vec<u8>>>,
        /// Number of those that are refusals.
        refused: usize,
    },
    /// The answers as one object with a list of them. Those that are there already are refusals, in their places.
    Results(Vec<Option<Vec<u8>>>),
    /// A page of this topic's history; the answer comes by [`end_reading`](super::Connection::end_reading).
    History(Topic),
    /// What the hub knows of topics; the answer comes by [`end_gathering`](super::Connection::end_gathering).
    Topics(Gathering),
    /// The outcome of an operation of the control API, for so many milliseconds at most; it comes by
    /// [`end_call`](super::Connection::end_call).
    Call(u64),
}

/// Headers in addition to those that every answer has.
pub type ExtraHeaders = Vec<(&'static str, String)>;

/// Reason that a connection is not read from for now. Each is lifted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hold {
    /// The request that is being dealt with has no answer yet.
    Answer = 1,
    /// The hub takes no more commands; one of this connection waits.
    Hub = 2,
    /// The peer takes what it is sent more slowly than it asks for more, or asks for very much at once.
    Outbox = 4,
    /// It has caused as much work as it may in one tick.
    Work = 8,
    /// As much as it may has been asked of the hub for it: histories, and members.
    Question = 16,
    /// Somebody else decides whether it may do what it asks for.
    Ask = 32,
    /// It sends more than it may.
    Rate = 64,
}

/// Kind of a connection in the gauges: one for each dialect, or what it is otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// HTTP, before and between requests or inside one.
    Http,
    /// A subscriber.
    Subscriber(Encoding),
    /// On an own endpoint.
    Handler,
    /// Ending: in the closing handshake, or with the last bytes on their way.
    Closing,
}

impl Label {
    /// Its name: that of its dialect in metrics, or `http`, `endpoint` or `closing`.
    pub fn name(self, dialects: &Dialects) -> &'static str {
        match self {
            Label::Http => "http",
            Label::Handler => "endpoint",
            Label::Closing => "closing",
            Label::Subscriber(encoding) => dialects.get(encoding).label(),
        }
    }
}
