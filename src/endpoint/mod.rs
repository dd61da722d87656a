//! Endpoints of the embedding program: whose a path is, and calls of the code there.
//!
//! Every call is made by [`caught`](crate::caught), so a panic ends its connection or request alone.

pub mod hooks;

use crate::caught;
use crate::connection::{Answer, CloseReason, Deflation, Message, Reply, RouteRequest};
use crate::handler::{
    ConnectionId, Handler, Peer, PeerCommand, PeerHandles, Request, RequestOrigin, Route,
};
use crate::http::kept::HeadView;
use crate::http::refusal::Refusal;
use crate::metrics::ReactorMetrics;
use crate::peers::Word;
use crate::protocol::deflate::Agreement;
use crate::shared::{OwnCode, OwnEndpoint, Shared};

/// What a request that no code can answer is told.
const PANICKED: &str = "the program's code for this path panicked";

/// The endpoint of a path: the one at exactly this path, or else the one with the longest beginning of it before its `*`.
/// Handlers stand before routes for a request that asks for an upgrade, and behind them for others.
pub fn find(endpoints: &[OwnEndpoint], path: &str, is_upgrade: bool) -> Option<usize> {
    let rank = |endpoint: &OwnEndpoint| {
        let length = match endpoint.path.strip_suffix('*') {
            _ if *endpoint.path == *path => usize::MAX,
            Some(prefix) if path.starts_with(prefix) => prefix.len(),
            _ => return None,
        };
        let is_handler = matches!(endpoint.code, OwnCode::Handler(_));
        Some((is_handler == is_upgrade, length))
    };
    let ranked = endpoints.iter().enumerate();
    let ranked = ranked.filter_map(|(number, endpoint)| Some((rank(endpoint)?, number)));
    ranked
        .max_by_key(|(rank, _)| *rank)
        .map(|(_, number)| number)
}

/// Calls of handlers, on one reactor.
pub struct Calls {
    /// Handles of connections that the program keeps.
    pub(crate) handles: PeerHandles,
    /// Compression of what they send.
    pub deflation: Deflation,
    /// Connections whose peers have taken all that waited, in this tick.
    pub writable: Vec<ConnectionId>,
}

/// The connection that a handler is called for.
pub struct Callee<'a> {
    /// Its name.
    pub id: ConnectionId,
    /// The number of its endpoint.
    pub number: u16,
    /// The compression that was agreed to.
    pub deflate: Option<Agreement>,
    /// Bytes for it.
    pub out: &'a mut Vec<u8>,
}

impl Calls {
    /// Those of a reactor without connections.
    pub fn new(shared: &Shared) -> Calls {
        Calls {
            handles: PeerHandles::new(Some(shared.peer_mail())),
            deflation: Deflation::new(&shared.settings),
            writable: Vec::new(),
        }
    }

    /// Notes the bytes of an outbox, which changed.
    pub fn note_outbox(&mut self, id: ConnectionId, bytes: usize) {
        self.handles.note_outbox(id, bytes);
        if bytes == 0 {
            self.writable.push(id);
        }
    }

    /// A command of a handle's is carried out. Nothing may have waited in the outbox for it.
    pub fn note_carried_out(&mut self, id: ConnectionId) {
        if self.handles.take_starved(id) {
            self.writable.push(id);
        }
    }

    /// Calls a connection's handler. The answer is to be acted on.
    pub fn call(
        &mut self,
        shared: &Shared,
        metrics: &ReactorMetrics,
        callee: Callee<'_>,
        call: impl FnOnce(&dyn Handler, &mut Peer<'_>),
    ) -> Answer {
        let Callee {
            id,
            number,
            deflate,
            out,
        } = callee;
        let endpoint = shared.routes.get(usize::from(number));
        let Some(OwnCode::Handler(handler)) = endpoint.map(|endpoint| &endpoint.code) else {
            return Answer::Proceed;
        };
        let bytes_max = shared.settings.limits.outbox_bytes_max;
        let mut peer = Peer::new(id, out, bytes_max)
            .with_deflation(&mut self.deflation, deflate)
            .with_handles(&mut self.handles);
        let outcome = caught::call("a handler", || call(&**handler, &mut peer));
        metrics.messages_sent.add(peer.sent());
        if outcome.is_none() {
            return Answer::End(CloseReason::EmbedderPanic);
        }
        match peer.take_close() {
            Some((code, reason)) => Answer::Close(code, reason),
            None => Answer::Proceed,
        }
    }

    /// Carries out what a handle asks of its connection.
    pub fn carry_out(
        &mut self,
        shared: &Shared,
        metrics: &ReactorMetrics,
        callee: Callee<'_>,
        command: PeerCommand,
    ) -> Answer {
        self.call(shared, metrics, callee, |_, peer| {
            // It is the first one of this call, which always goes.
            let _ = match command {
                PeerCommand::Text(text) => peer.send(Message::Text(&text)),
                PeerCommand::Binary(bytes) => peer.send(Message::Binary(&bytes)),
                PeerCommand::Close(code, reason) => {
                    peer.close(code, reason);
                    Ok(())
                }
            };
        })
    }
}

/// Tells the handler of a connection that is gone.
pub fn close(shared: &Shared, number: u16, id: ConnectionId, reason: CloseReason) {
    if let Some(endpoint) = shared.routes.get(usize::from(number))
        && let OwnCode::Handler(handler) = &endpoint.code
    {
        caught::call("a handler", || handler.close(id, reason));
    }
}

/// The subprotocol of a handler that the peer gets: the first one of the offered that the handler speaks.
///
/// # Errors
/// 500 where the handler panics.
pub fn choose_subprotocol<'a>(
    handler: &dyn Handler,
    mut offered: impl Iterator<Item = &'a str>,
) -> Result<Option<Box<str>>, Refusal> {
    let choose = || {
        let spoken = handler.subprotocols();
        offered.find(|offer| spoken.contains(offer)).map(Box::from)
    };
    caught::call("a handler", choose).ok_or_else(|| Refusal::internal(PANICKED))
}

/// Origin of a request: the listener of a number, and the endpoint's path.
pub fn origin<'a>(
    shared: &'a Shared,
    listener: u8,
    number: u16,
    client: Word,
) -> RequestOrigin<'a> {
    let listening = shared.listeners.get(usize::from(listener));
    let endpoint = shared.routes.get(usize::from(number));
    RequestOrigin {
        listener: listening.map_or("", |listening| &listening.name),
        client,
        pattern: endpoint.map_or("", |endpoint| &endpoint.path),
    }
}

/// Answers a request by the program's route.
///
/// # Errors
/// 500 where the route panics, or its answer cannot be sent.
pub fn respond(route: &dyn Route, request: &Request<'_>) -> Result<Answer, Refusal> {
    let response = caught::call("a route", || route.respond(request))
        .ok_or_else(|| Refusal::internal(PANICKED))?;
    if let Some(fault) = response.fault() {
        log::error!("the answer of a route of the embedding program is not sent: {fault}");
        return Err(Refusal::internal("the program's answer cannot be sent"));
    }
    Ok(Answer::Respond(Reply {
        status: response.status,
        content_type: response.content_type,
        headers: response.headers,
        body: response.body,
    }))
}

/// Answers a request whose body has come.
///
/// # Errors
/// As [`respond`].
pub fn respond_to_body(
    shared: &Shared,
    listener: u8,
    client: Word,
    (kept, body): (&RouteRequest, &[u8]),
) -> Result<Answer, Refusal> {
    let endpoint = shared.routes.get(usize::from(kept.number));
    let Some(OwnCode::Route(route)) = endpoint.map(|endpoint| &endpoint.code) else {
        return Err(Refusal::internal(PANICKED));
    };
    let origin = origin(shared, listener, kept.number, client);
    let head: HeadView<'_> = kept.head.view();
    respond(&**route, &Request::new(&kept.method, head, origin, body))
}
