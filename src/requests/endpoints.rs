//! Endpoints of the embedding program: requests to them, and their connections.

use std::borrow::Cow;

use super::{Application, CommandContext, ConnectionContext};
use crate::auth::access::Action;
use crate::auth::caller::Caller;
use crate::connection::{Answer, CloseReason, Endpoint, Purpose, ReadBody, RouteRequest, Upgrade};
use crate::console;
use crate::endpoint::{self, Callee};
use crate::handler::{self, CloseCode, Handler, Peer, PeerCommand, Request};
use crate::http::body::BodyLength;
use crate::http::refusal::Refusal;
use crate::http::request::{Head, Method};
use crate::protocol::is_upgrade;
use crate::route::Route;
use crate::shared::OwnCode;
use crate::shared::brought::Fate;

impl Application {
    /// Own endpoints, and what is none.
    pub(super) fn answer_path(
        &mut self,
        current: &mut CommandContext<'_>,
        head: &Head<'_>,
        caller: &Caller<'_>,
        path: &str,
    ) -> Result<Answer, Refusal> {
        if let Some(asset) = console::asset(path).filter(|_| head.method != Method::Options) {
            Route::Asset(asset.path).check_method(head.method)?;
            return self.asset(head, caller, path);
        }
        let number = endpoint::find(&self.shared.routes, path, is_upgrade(head))
            .ok_or_else(|| self.nothing_here(current.listener))?;
        match self.shared.routes[number].code.clone() {
            OwnCode::Handler(handler) => {
                Route::Path(path).check_method(head.method)?;
                self.open_handler(current, head, caller, (number as u16, &*handler))
            }
            OwnCode::Route(route) => {
                self.answer_route(current, head, caller, (number as u16, &*route))
            }
        }
    }

    fn open_handler(
        &mut self,
        current: &mut CommandContext<'_>,
        head: &Head<'_>,
        caller: &Caller<'_>,
        (number, handler): (u16, &dyn Handler),
    ) -> Result<Answer, Refusal> {
        let upgrade = self.check_upgrade(head)?;
        self.authorize(caller, Action::Open(path_of(head)))?;
        let subprotocol = endpoint::choose_subprotocol(handler, upgrade.offers())?;
        Ok(Answer::Upgrade(Upgrade {
            accept: upgrade.accept,
            subprotocol,
            endpoint: Endpoint::Handler(number),
            deflate: self.choose_deflate(current, head)?,
            greeting: None,
        }))
    }

    fn answer_route(
        &self,
        current: &CommandContext<'_>,
        head: &Head<'_>,
        caller: &Caller<'_>,
        (number, route): (u16, &dyn handler::Route),
    ) -> Result<Answer, Refusal> {
        // Whatever the program's answer to a page is, a page of another site changes nothing here.
        if !matches!(head.method, Method::Get | Method::Head | Method::Options) {
            self.check_origin(head)?;
        }
        self.authorize(caller, Action::Open(path_of(head)))?;
        if matches!(head.body(), Ok(BodyLength::None | BodyLength::Length(0))) {
            let origin = endpoint::origin(
                &self.shared,
                current.listener,
                number,
                (current.peer_address)().ok().flatten(),
            );
            let request = Request::new(head.method.as_str(), head.view(), origin, b"");
            return endpoint::respond(route, &request);
        }
        let request = RouteRequest {
            number,
            method: head.method.as_str().into(),
            head: head.view().keep(),
        };
        Ok(Answer::ReadBody(ReadBody {
            purpose: Purpose::Route(Box::new(request)),
            bytes_max: self.shared.settings.limits.body_bytes_max,
        }))
    }

    pub(super) fn handle_route_body(
        &self,
        current: &CommandContext<'_>,
        request: &RouteRequest,
        body: &[u8],
    ) -> Answer {
        let peer = (current.peer_address)().ok().flatten();
        endpoint::respond_to_body(&self.shared, current.listener, peer, (request, body))
            .unwrap_or_else(Answer::Refuse)
    }

    pub(super) fn handle_opened(
        &mut self,
        current: &CommandContext<'_>,
        number: u16,
        head: &Head<'_>,
        out: &mut Vec<u8>,
    ) -> Answer {
        let peer = (current.peer_address)().ok().flatten();
        let origin = endpoint::origin(&self.shared, current.listener, number, peer);
        let request = Request::new(head.method.as_str(), head.view(), origin, b"");
        let callee = Callee {
            id: current.id,
            number,
            deflate: current.deflate,
            out,
        };
        let (shared, metrics) = (&self.shared, &self.metrics);
        self.calls.call(shared, metrics, callee, |handler, peer| {
            handler.open(peer, &request);
        })
    }

    pub(super) fn call(
        &mut self,
        current: &CommandContext<'_>,
        number: u16,
        out: &mut Vec<u8>,
        call: impl FnOnce(&dyn Handler, &mut Peer<'_>),
    ) -> Answer {
        let callee = Callee {
            id: current.id,
            number,
            deflate: current.deflate,
            out,
        };
        self.calls.call(&self.shared, &self.metrics, callee, call)
    }

    /// Tells a handler that its peer has taken all that waited.
    pub fn tell_writable(&mut self, context: &mut ConnectionContext<'_>) {
        self.act_for(context, |calls, shared, metrics, callee| {
            calls.call(shared, metrics, callee, |handler, peer| {
                handler.writable(peer);
            })
        });
    }

    /// Carries out what a handle asks of its connection.
    pub fn carry_out_of_handle(
        &mut self,
        context: &mut ConnectionContext<'_>,
        command: PeerCommand,
    ) -> Fate {
        self.act_for(context, |calls, shared, metrics, callee| {
            calls.carry_out(shared, metrics, callee, command)
        })
    }

    /// Ends a connection of whatever kind, as the program wants it.
    pub fn disconnect(
        &self,
        context: &mut ConnectionContext<'_>,
        code: CloseCode,
        reason: Cow<'static, str>,
    ) -> Fate {
        let (settings, now_ms) = (&self.shared.settings, context.now_ms);
        let connection = &mut *context.connection;
        connection.handle_answer(settings, now_ms, Answer::Close(code, reason), context.out);
        // One that is no WebSocket has no Close.
        connection.close(settings, now_ms, CloseReason::Handler(code), context.out);
        Fate::CarriedOut
    }

    fn act_for(
        &mut self,
        context: &mut ConnectionContext<'_>,
        act: impl FnOnce(
            &mut endpoint::Calls,
            &crate::shared::Shared,
            &crate::metrics::ReactorMetrics,
            Callee<'_>,
        ) -> Answer,
    ) -> Fate {
        let Some(number) = context
            .connection
            .handler()
            .filter(|_| !context.connection.is_closing())
        else {
            return Fate::Gone;
        };
        let callee = Callee {
            id: context.id,
            number,
            deflate: context.connection.deflate(),
            out: &mut *context.out,
        };
        let answer = act(&mut self.calls, &self.shared, &self.metrics, callee);
        let (settings, now_ms) = (&self.shared.settings, context.now_ms);
        let connection = &mut *context.connection;
        connection.handle_answer(settings, now_ms, answer, context.out);
        Fate::CarriedOut
    }
}

/// The path of a request.
fn path_of<'a>(head: &Head<'a>) -> &'a str {
    crate::route::split_target(head.target).0
}
