//! Outcomes on their way to requests.

use std::net::IpAddr;

use super::error::ApiError;
use super::once::Once;
use super::operations::Operation;
use super::{CallContext, Input, PREFIX, json};
use crate::connection::Reply;
use crate::handler::ConnectionId;
use crate::http::escape::escape;
use crate::shared::Shared;
use crate::shared::brought::BroughtCommand;

/// What is told where nobody could carry an operation out.
const NOT_CARRIED_OUT: &str =
    "more is being asked of the server's threads than they take; try again";

/// Way of an outcome to its request, from whatever thread. One that is dropped answers 503.
pub(super) struct Responder {
    shared: Shared,
    connection: ConnectionId,
    audit: Audit,
    once: Option<Once>,
    is_answered: bool,
}

/// What the log says of a change.
pub(super) struct Audit {
    operation: &'static Operation,
    subject: Option<Box<str>>,
    peer: Option<IpAddr>,
    target: String,
}

impl Audit {
    /// Of an operation of a caller, on this target.
    pub fn new(call: &CallContext<'_>, operation: &'static Operation, target: String) -> Audit {
        Audit {
            operation,
            subject: call.name().map(Box::from),
            peer: call.peer,
            target,
        }
    }

    /// Writes the line of a change, with its result.
    pub fn log(&self, result: &str) {
        if self.operation.method != "GET" {
            self.write(result);
        }
    }

    /// Writes the line, whether something is changed or not.
    pub fn write(&self, result: &str) {
        let Operation { method, path, .. } = self.operation;
        let subject = escape(self.subject.as_deref().unwrap_or("-"));
        let peer = self
            .peer
            .map_or_else(|| "-".to_owned(), |peer| peer.to_string());
        let target = escape(&self.target);
        log::info!(target: "umbel::audit", event = "admin", subject:%, peer:%, route:% = format_args!("{method} {PREFIX}{path}"),
            target:%, result:%; "control");
    }
}

impl Responder {
    pub fn new(call: &CallContext<'_>, input: &Input<'_>, target: String) -> Responder {
        Responder {
            shared: call.shared.clone(),
            connection: call.connection,
            audit: Audit::new(call, input.operation, target),
            once: input.once.take(),
            is_answered: false,
        }
    }

    /// Answers with a JSON value, which the log says too.
    pub fn respond(mut self, body: Vec<u8>) {
        self.audit.log(&String::from_utf8_lossy(&body));
        self.send(json(200, body));
    }

    /// Answers with an error.
    pub fn fail(mut self, error: ApiError) {
        self.audit.log(error.code);
        self.send(error.into_reply());
    }

    fn send(&mut self, reply: Reply) {
        self.is_answered = true;
        if let Some(once) = self.once.take() {
            once.finish(&reply);
        }
        // A request whose reactor takes nothing now is answered once it has waited for too long.
        let _ = self
            .shared
            .bring(BroughtCommand::respond(self.connection, reply));
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.is_answered {
            self.audit.log("unavailable");
            self.send(ApiError::unavailable(NOT_CARRIED_OUT).into_reply());
        }
    }
}
