//! Endpoints of the embedding program: requests to them, and their connections.

use super::hosts::check_origin;
use super::proxies::client_of;
use super::refusals::is_of_script;
use super::resources::{self, nothing_here};
use super::subscriptions::{check_upgrade, choose_deflate};
use crate::application::{Application, CommandContext};
use crate::auth::access::Action;
use crate::auth::caller::Caller;
use crate::connection::{Answer, Endpoint, Purpose, ReadBody, RouteRequest, Upgrade};
use crate::console;
use crate::endpoint::{self, Callee};
use crate::handler::{self, Handler, Peer, Request};
use crate::http::body::BodyLength;
use crate::http::refusal::Refusal;
use crate::http::request::{Head, Method};
use crate::protocol::is_upgrade;
use crate::route::Route;
use crate::shared::OwnCode;

/// Own endpoints, and what is none.
pub(super) fn answer_path(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    head: &Head<'_>,
    caller: &Caller<'_>,
    path: &str,
) -> Result<Answer, Refusal> {
    if let Some(asset) = console::asset(path).filter(|_| head.method != Method::Options) {
        Route::Asset(asset.path).check_method(head.method)?;
        return resources::asset(application, head, path);
    }
    let number = endpoint::find(&application.shared.routes, path, is_upgrade(head))
        .ok_or_else(|| nothing_here(application, current.listener))?;
    match application.shared.routes[number].code.clone() {
        OwnCode::Handler(handler) => {
            Route::Path(path).check_method(head.method)?;
            open_handler(
                application,
                current,
                head,
                caller,
                (number as u16, &*handler),
            )
        }
        OwnCode::Route(route) => {
            answer_route(application, current, head, caller, (number as u16, &*route))
        }
    }
}

fn open_handler(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    head: &Head<'_>,
    caller: &Caller<'_>,
    (number, handler): (u16, &dyn Handler),
) -> Result<Answer, Refusal> {
    let upgrade = check_upgrade(application, head)?;
    application.authorize(caller, Action::Open(path_of(head)))?;
    let subprotocol = endpoint::choose_subprotocol(handler, upgrade.offers())?;
    // A browser fails a handshake whose offers were all passed over, and does not say so.
    let dialects = &application.shared.settings.dialects;
    if subprotocol.is_none()
        && is_of_script(head)
        && let Some(place) = dialects.where_offered(upgrade.offers())
    {
        return Err(Refusal::not_found(format!(
            "this endpoint speaks no subprotocol that was offered; {place}"
        )));
    }
    application.begin_term(current, caller, false)?;
    Ok(Answer::Upgrade(Upgrade {
        accept: upgrade.accept,
        subprotocol,
        endpoint: Endpoint::Handler(number),
        deflate: choose_deflate(application, current, head)?,
        must_sign_in: false,
        greeting: None,
    }))
}

fn answer_route(
    application: &Application,
    current: &CommandContext<'_>,
    head: &Head<'_>,
    caller: &Caller<'_>,
    (number, route): (u16, &dyn handler::Route),
) -> Result<Answer, Refusal> {
    // Whatever the program's answer to a page is, a page of another site changes nothing here.
    if !matches!(head.method, Method::Get | Method::Head | Method::Options) {
        check_origin(application, head)?;
    }
    application.authorize(caller, Action::Open(path_of(head)))?;
    if matches!(head.body(), Ok(BodyLength::None | BodyLength::Length(0))) {
        let origin = endpoint::origin(
            &application.shared,
            current.listener,
            number,
            client_of(application, current),
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
        bytes_max: application.shared.settings.limits.body_bytes_max,
    }))
}

pub(super) fn handle_route_body(
    application: &Application,
    current: &CommandContext<'_>,
    request: &RouteRequest,
    body: &[u8],
) -> Answer {
    let client = client_of(application, current);
    endpoint::respond_to_body(
        &application.shared,
        current.listener,
        client,
        (request, body),
    )
    .unwrap_or_else(Answer::Refuse)
}

pub(super) fn handle_opened(
    application: &mut Application,
    current: &CommandContext<'_>,
    number: u16,
    head: &Head<'_>,
    out: &mut Vec<u8>,
) -> Answer {
    let client = client_of(application, current);
    let origin = endpoint::origin(&application.shared, current.listener, number, client);
    let request = Request::new(head.method.as_str(), head.view(), origin, b"");
    let callee = Callee {
        id: current.id,
        number,
        deflate: current.deflate,
        out,
    };
    let (shared, metrics) = (&application.shared, &application.metrics);
    application
        .calls
        .call(shared, metrics, callee, |handler, peer| {
            handler.open(peer, &request);
        })
}

pub(super) fn call(
    application: &mut Application,
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
    application
        .calls
        .call(&application.shared, &application.metrics, callee, call)
}

/// The path of a request.
fn path_of<'a>(head: &Head<'a>) -> &'a str {
    crate::route::split_target(head.target).0
}
