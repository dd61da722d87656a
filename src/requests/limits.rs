//! Limits on who may come in at all: what they are told, and where it is counted.

use std::net::IpAddr;

use super::answer::handle_request;
use super::hosts::allow_reading;
use super::refusals::refuse;
use super::resources::surface_of;
use crate::application::{Application, CommandContext, PeerAddress};
use crate::config::Surface;
use crate::connection::event::ExtraHeaders;
use crate::connection::{Answer, scatter};
use crate::handler::ConnectionId;
use crate::http::refusal::Refusal;
use crate::http::request::Head;
use crate::hub::ReactorId;
use crate::rate::Limit;
use crate::rate::gate::{Entered, Entrance, TurnedAway};
use crate::route::Route;

/// Time after which a connection over a limit by address may come again, in seconds.
const ADDRESS_RETRY_SECONDS: u32 = 5;

/// Times after which one of too many connections may come again, in seconds: each another.
const RETRY_SECONDS: std::ops::Range<u64> = 1..11;

/// Refusal of a connection that is over a limit.
pub fn refusal_over(limit: Limit, id: ConnectionId) -> Refusal {
    let bits = id.to_bits();
    let scattered = scatter((bits ^ (bits >> 32)) as u32, RETRY_SECONDS) as u32;
    match limit {
        Limit::AddressConnections => Refusal::too_many_requests(
            "as many connections of this address as connections_per_address_max allows are open",
        )
        .retry_after(ADDRESS_RETRY_SECONDS),
        Limit::AddressConnects => Refusal::too_many_requests(
            "more connections come from this address than connects_per_address_per_second allows",
        )
        .retry_after(ADDRESS_RETRY_SECONDS),
        Limit::Connections => {
            Refusal::unavailable("as many connections as connections_max allows are open")
                .retry_after(scattered)
        }
    }
}

/// Counts what a limit refused.
pub fn note_refused(application: &Application, limit: Limit, address: Option<IpAddr>) {
    let refusals = &application.shared.metrics.refusals;
    refusals.note(limit, address, application.now_us / 1000, false);
}

/// Writes the lines about refusals that are due. One reactor does it for all.
pub fn write_lines(application: &Application, now_ms: u64) {
    if application.reactor == ReactorId(0) {
        application.shared.metrics.refusals.flush(now_ms);
    }
}

/// A connection counts for its address no more.
pub fn leave(application: &mut Application, index: u32) {
    let gate = &application.shared.callers.gate;
    application.entered.leave(gate, index);
}

/// Address of a peer. None: it has none, or is gone.
pub fn ip_of(peer_address: PeerAddress<'_>) -> Option<IpAddr> {
    let address = peer_address().ok().flatten();
    address.map(|address| address.ip().to_canonical())
}

/// Takes in a connection that was just accepted. One by a listener for operators may always come.
///
/// # Errors
/// It may not come in.
pub fn enter(
    application: &mut Application,
    (index, listener): (u32, u8),
    peer_address: PeerAddress<'_>,
) -> Result<(), TurnedAway> {
    let Some((entered, entrance)) = entrance(application, listener) else {
        return Ok(());
    };
    entered.enter(entrance, index, ip_of(peer_address))
}

/// The way in by a listener, where there are bounds on addresses.
fn entrance(application: &mut Application, listener: u8) -> Option<(&mut Entered, Entrance<'_>)> {
    let is_bounded = application.shared.settings.addresses.are_set();
    if !is_bounded || surface_of(application, listener) == Surface::Admin {
        return None;
    }
    let Application {
        entered,
        shared,
        now_us,
        ..
    } = application;
    let entrance = Entrance {
        gate: &shared.callers.gate,
        rules: &shared.settings.addresses,
        refusals: &shared.metrics.refusals,
        now_us: *now_us,
    };
    Some((entered, entrance))
}

/// Whether a request is one that no limit refuses.
fn is_probe(application: &Application, head: &Head<'_>) -> bool {
    let dialects = &application.shared.settings.dialects;
    let route = Route::parse(head.target, dialects);
    matches!(route, Ok(Route::Health | Route::Ready))
}

/// Refuses whatever is asked for on a connection that is over a limit, but a question for the server's health.
pub(super) fn refuse_over(
    application: &mut Application,
    current: &mut CommandContext<'_>,
    limit: Limit,
    head: &Head<'_>,
    headers: &mut ExtraHeaders,
) -> Answer {
    if is_probe(application, head) {
        return handle_request(application, current, head, headers);
    }
    allow_reading(application, head, headers);
    note_refused(application, limit, ip_of(current.peer_address));
    let refusal = refusal_over(limit, current.id).closing();
    refuse(application, current.id, head, refusal)
}

/// Counts the connection for the address that its request came from, which a proxy may have said.
///
/// # Errors
/// That has as many as it may.
pub(super) fn check_address(
    application: &mut Application,
    current: &CommandContext<'_>,
    head: &Head<'_>,
) -> Result<(), Refusal> {
    if is_probe(application, head) {
        return Ok(());
    }
    let address = ip_of(current.peer_address);
    let Some((entered, entrance)) = entrance(application, current.listener) else {
        return Ok(());
    };
    let moved = entered.move_to(entrance, current.id.index, address);
    moved.map_err(|turned_away| {
        note_refused(application, turned_away.limit, address);
        refusal_over(turned_away.limit, current.id).closing()
    })
}
