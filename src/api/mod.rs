//! The control API under `/api/v1`: what an operator, or the application behind the server, asks of it.
//!
//! The way in is short. [`begin`] takes the head of a request: which [operation](operations) it is, and whether its sender
//! may. [`carry_out`] takes the body, if there is one. Either gives a [`Step`]: an answer, or publications for the
//! application to place. What reactors or the hub have to be asked is answered later, by a [`Responder`] on whatever thread
//! knows the outcome; the request waits for a bounded time.
//!
//! Bodies are JSON, and so are all answers and errors. There are no cookies here, and no CORS.

mod body;
mod changes;
mod connections;
mod deny;
mod error;
mod once;
mod operations;
mod responder;
mod rights;
mod settings;
mod stats;
mod topics;
mod trace;

use std::cell::Cell;
use std::net::IpAddr;

use crate::auth::access::Action;
use crate::auth::caller::Caller;
use crate::config::Hosts;
use crate::connection::{Answer, Purpose, ReadBody, Reply, RouteRequest};
use crate::handler::ConnectionId;
use crate::http::kept::HeadView;
use crate::http::refusal::Refusal;
use crate::http::request::{Head, Method};
use crate::hub::idempotency::GivenKey;
use crate::hub::{Kind, PublishOptions};
use crate::route::parameters::check_content_encoding;
use crate::route::split_target;
use crate::shared::Shared;
use crate::topic::Topic;
use body::{Fields, Parameters};
pub use error::ApiError;
use once::Once;
use operations::{Needs, OPERATIONS, Operation};
use responder::Responder;

/// Path before all operations.
pub const PREFIX: &str = "/api/v1";

/// Description of all operations: OpenAPI 3.1.
const OPENAPI: &str = include_str!("openapi.json");

/// Path of the operation that publishes.
const PUBLISH: &str = "/publish";

/// Longest body of an operation other than a publish, in bytes.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Wait for the outcome of an operation that reads, in milliseconds.
const READ_WAIT_MS: u64 = 100;

/// What an operation that is for others than this machine's programs answers in open mode.
const OPEN: &str = "this server is open to this machine, and nobody in particular may manage it: make a token by \
                    `umbel token new`, and start with it";

/// Caller of an operation, with its request.
pub struct CallContext<'c> {
    /// State of the server.
    pub shared: &'c Shared,
    /// Sender of the request.
    pub caller: &'c Caller<'c>,
    /// Connection of the request.
    pub connection: ConnectionId,
    /// Address of its peer.
    pub peer: Option<IpAddr>,
    /// The tick's moment on the process's clock.
    pub now_us: u64,
    /// The tick's moment on the wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
}

/// Outcome of a part of a request.
#[derive(Debug)]
pub enum Step {
    /// An instruction to its connection.
    Answer(Answer),
    /// Publications to be placed, whose positions are the answer.
    Publish(Box<Publishes>),
}

/// One message for several topics.
#[derive(Debug)]
pub struct Publishes {
    /// Topics to publish to.
    pub topics: Vec<Topic>,
    /// Text or binary.
    pub kind: Kind,
    /// The message.
    pub payload: Vec<u8>,
    /// Its options.
    pub options: PublishOptions,
    /// Whether the answer waits for the fan-out and has a receipt.
    pub wants_receipt: bool,
    /// It is carried out once for each topic.
    pub idempotency_key: Option<Box<GivenKey>>,
    /// One topic was given, and no list: the answer is one position.
    pub is_one: bool,
}

/// What an operation is given.
struct Input<'i> {
    operation: &'static Operation,
    /// What stands at the end of the path, where the operation has `{id}`.
    id: &'i str,
    parameters: Parameters<'i>,
    fields: Fields<'i>,
    /// Key of a publish. Whoever publishes takes it.
    publish_key: Cell<Option<Box<GivenKey>>>,
    /// Place for the answer, where there is such a key. Whoever answers takes it.
    once: Cell<Option<Once>>,
}

/// Begins a request by its head.
///
/// # Errors
/// What it is answered with.
pub fn begin(call: &CallContext<'_>, head: &Head<'_>) -> Result<Step, ApiError> {
    let (path, query) = split_target(head.target);
    let (number, id) = find(path, head.method)?;
    let operation = &OPERATIONS[number];
    call.require(operation.needs)?;
    if operation.method != "POST" {
        let input = Input {
            operation,
            id,
            parameters: Parameters::parse(query.unwrap_or(""), operation.parameters)?,
            fields: Fields::default(),
            publish_key: Cell::default(),
            once: Cell::default(),
        };
        return (operation.run)(call, &input);
    }
    let content_type = head.known.content_type.text().unwrap_or("");
    let media_type = content_type.split(';').next().unwrap_or("").trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let reason = "a body is JSON here: send it with Content-Type: application/json";
        return Err(Refusal::unsupported_media_type(reason).into());
    }
    check_content_encoding(head)?;
    once::check_key(head)?;
    let idempotency_key = match operation.path == PUBLISH {
        true => once::publish_key(head, call.now_us)?,
        false => None,
    };
    let request = RouteRequest {
        number: number as u16,
        method: head.method.as_str().into(),
        head: head.view().keep(),
    };
    Ok(Step::Answer(Answer::ReadBody(ReadBody {
        purpose: Purpose::Call {
            request: Box::new(request),
            idempotency_key,
        },
        bytes_max: operation.body_bytes_max(call.shared),
    })))
}

/// Carries out a request whose body is here.
///
/// # Errors
/// What it is answered with.
pub fn carry_out(
    call: &CallContext<'_>,
    (request, publish_key): (&RouteRequest, Option<Box<GivenKey>>),
    body: &[u8],
) -> Result<Step, ApiError> {
    let head: HeadView<'_> = request.head.view();
    let operation = &OPERATIONS[usize::from(request.number)];
    let (path, query) = split_target(head.target);
    let input = Input {
        operation,
        id: operation.id_of(path).unwrap_or(""),
        parameters: Parameters::parse(query.unwrap_or(""), operation.parameters)?,
        fields: Fields::parse(body, operation.fields)?,
        publish_key: Cell::new(publish_key),
        once: Cell::default(),
    };
    // A publish has a rule of its own.
    let is_remembered = operation.path != PUBLISH;
    if let Some(key) = head.header(once::HEADER).filter(|_| is_remembered) {
        match once::begin(call, request.number, key, body)? {
            Ok(once) => input.once.set(Some(once)),
            Err(reply) => return Ok(Step::Answer(Answer::Respond(reply))),
        }
    }
    let step = (operation.run)(call, &input)?;
    if let (Step::Answer(Answer::Respond(reply)), Some(once)) = (&step, input.once.take()) {
        once.finish(reply);
    }
    Ok(step)
}

/// The number of the operation at a path, and its id.
fn find<'p>(path: &'p str, method: Method<'_>) -> Result<(usize, &'p str), ApiError> {
    let own = path.strip_prefix(PREFIX).unwrap_or(path);
    let mut here = OPERATIONS
        .iter()
        .enumerate()
        .filter_map(|(number, operation)| Some((number, operation, operation.id_of(own)?)))
        .peekable();
    if here.peek().is_none() {
        return Err(Refusal::not_found(
            "there is no such operation; GET /api/v1/openapi.json has all",
        )
        .into());
    }
    let wanted = match method {
        Method::Head => "GET",
        method => method.as_str(),
    };
    let mut methods = Vec::new();
    for (number, operation, id) in here {
        if operation.method == wanted {
            return Ok((number, id));
        }
        methods.push(operation.method);
        if operation.method == "GET" {
            methods.push("HEAD");
        }
    }
    Err(ApiError::method_not_allowed(&methods.join(", ")))
}

impl CallContext<'_> {
    /// Checks that the caller may do what an operation needs.
    fn require(&self, needs: Needs) -> Result<(), ApiError> {
        match needs {
            Needs::Nothing => Ok(()),
            Needs::Observe => self.may_observe(None),
            Needs::Manage => self.may_manage(None),
            // Of which topic the operation is, is not known yet.
            Needs::ObserveTopic => self.may_observe(None).or_else(|_| self.is_somebody()),
            Needs::ManageTopic => self.may_manage(None).or_else(|_| self.is_somebody()),
        }
    }

    /// Checks that the caller may change something of this topic; None: of all, or of connections.
    fn may_manage(&self, topic: Option<&str>) -> Result<(), ApiError> {
        let authority = &self.shared.authority;
        let outcome = authority.authorize(self.caller, Action::Manage(topic));
        outcome.map_err(|denied| match (&*self.shared.hosts, self.is_somebody()) {
            (Hosts::Loopback, Err(_)) => Refusal::forbidden(OPEN).into(),
            _ => Refusal::from(denied).into(),
        })
    }

    /// Checks that the caller may see what there is of this topic; None: of all.
    fn may_observe(&self, topic: Option<&str>) -> Result<(), ApiError> {
        let authority = &self.shared.authority;
        let outcome = authority.authorize(self.caller, Action::Observe);
        match outcome {
            Ok(()) => Ok(()),
            Err(denied) => {
                let managed = authority.authorize(self.caller, Action::Manage(topic));
                managed.map_err(|_| Refusal::from(denied).into())
            }
        }
    }

    /// Checks that the caller is not just anybody.
    fn is_somebody(&self) -> Result<(), ApiError> {
        match self.caller {
            Caller::Known(_) | Caller::Embedder(_) => Ok(()),
            Caller::Anonymous | Caller::Unknown => {
                let reason = "this needs a token that allows it: send it as Authorization: Bearer";
                Err(Refusal::unauthorized(reason).into())
            }
        }
    }

    /// Subject of the caller, or else the name of its source, for the log.
    fn name(&self) -> Option<&str> {
        let identity = self.caller.identity()?;
        Some(identity.subject().unwrap_or(identity.source().name()))
    }

    /// Way of the outcome of an operation to this request.
    fn responder(&self, input: &Input<'_>, target: String) -> Responder {
        Responder::new(self, input, target)
    }
}

/// An answer of JSON.
fn json(status: u16, mut body: Vec<u8>) -> Reply {
    body.push(b'\n');
    Reply {
        status,
        content_type: "application/json",
        headers: vec![("Cache-Control", "no-store".to_owned())],
        body: body.into(),
    }
}
