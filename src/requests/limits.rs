//! Limits on who may come in at all: what they are told, and where it is counted.

use std::net::IpAddr;

use super::answer::handle_request;
use super::hosts::allow_reading;
use super::proxies::take_word;
use super::refusals::{note_request, refuse, shutting_down};
use crate::application::{Application, CommandContext, PeerAddress};
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

/// Connections that operators may have besides all others.
pub const CONNECTIONS_KEPT: usize = 16;

/// Connections over the cap that are still told so; more are closed without a word.
pub const REFUSED_MAX: usize = 128;

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
        Limit::Handshakes => {
            Refusal::unavailable("more connections come than handshakes_per_second allows")
                .retry_after(scattered)
        }
        Limit::Memory => {
            Refusal::unavailable("the server's memory budget is used up").retry_after(scattered)
        }
        // No other turns a connection away.
        _ => Refusal::unavailable("as many connections as connections_max allows are open")
            .retry_after(scattered),
    }
}

/// Refusal of a connection that may not come in: it is over a limit, which is counted, or comes in a drain.
pub fn refusal_of(
    application: &Application,
    limit: Limit,
    id: ConnectionId,
    address: Option<IpAddr>,
) -> Refusal {
    if is_draining(application) {
        return shutting_down();
    }
    note_refused(application, limit, address);
    refusal_over(limit, id)
}

fn is_draining(application: &Application) -> bool {
    !application.shared.lifecycle.get().takes_subscribers()
}

/// Counts what a limit refused.
pub fn note_refused(application: &Application, limit: Limit, address: Option<IpAddr>) {
    application
        .shared
        .note_refused(limit, address, application.now_us);
}

/// Writes the lines about refusals that are due. One reactor does it for all.
pub fn write_lines(application: &Application, now_ms: u64) {
    if application.reactor == ReactorId(0) {
        application.shared.metrics.refusals.flush(now_ms);
        application.shared.callers.lines.flush(application.now_us);
    }
}

/// Refusal of one connection more, if that is too many. `total` are open, and it comes by this listener. Those that are told
/// that they are too many stay open for a while, and some besides them are kept for operators.
pub fn crowd(
    application: &Application,
    listener: u8,
    (total, connections_max): (usize, usize),
) -> Option<TurnedAway> {
    let told_max = connections_max.saturating_add(REFUSED_MAX);
    let (own_max, told_max) = match application.shared.is_of_operators(listener) {
        true => {
            let all = told_max.saturating_add(CONNECTIONS_KEPT);
            (all, all)
        }
        false => (connections_max, told_max),
    };
    (total >= own_max).then_some(TurnedAway {
        limit: Limit::Connections,
        is_flood: total >= told_max,
    })
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

/// Takes in a connection that was just accepted. One by a listener for operators may always come, and one of a trusted proxy
/// counts for the client that its request tells of.
///
/// # Errors
/// It may not come in.
pub fn enter(
    application: &mut Application,
    (index, listener): (u32, u8),
    peer_address: PeerAddress<'_>,
) -> Result<(), TurnedAway> {
    if application.shared.metrics.memory.refuses() && !application.shared.is_of_operators(listener)
    {
        return Err(TurnedAway {
            limit: Limit::Memory,
            is_flood: false,
        });
    }
    let proxies = application.shared.proxies(listener);
    let is_trusted = proxies.map(|it| it.trusted.trusts(&peer_address()));
    if is_trusted == Some(false) && application.shared.has_proxy_headers(listener) {
        return Err(TurnedAway {
            limit: Limit::UntrustedProxy,
            is_flood: true,
        });
    }
    check_handshakes(application, listener)?;
    if is_trusted == Some(true) {
        return Ok(());
    }
    let is_tls = application.shared.speaks_tls(listener);
    let Some((entered, entrance)) = entrance(application, listener) else {
        return Ok(());
    };
    let entered = entered.enter(entrance, index, ip_of(peer_address));
    // Whoever is to be told by an answer over TLS costs what is to be saved.
    entered.map_err(|away| TurnedAway {
        is_flood: away.is_flood || is_tls,
        ..away
    })
}

/// Takes a connection off the rate of all. Where operators have a listener, accepting has paused before there were too many.
fn check_handshakes(application: &Application, listener: u8) -> Result<(), TurnedAway> {
    let (shared, now_us) = (&application.shared, application.now_us);
    let Some(rate) = shared.settings.handshakes else {
        return Ok(());
    };
    if shared.has_listener_of_operators() || shared.is_of_operators(listener) {
        return Ok(());
    }
    let taken = shared.callers.gate.handshakes.take(rate, now_us);
    if taken.is_ok() {
        return Ok(());
    }
    let is_dry_run = shared.settings.addresses.is_dry_run;
    if is_dry_run {
        shared.refuses(Limit::Handshakes, None, now_us);
        return Ok(());
    }
    Err(TurnedAway {
        limit: Limit::Handshakes,
        is_flood: false,
    })
}

/// The way in by a listener, where there are bounds on addresses.
fn entrance(application: &mut Application, listener: u8) -> Option<(&mut Entered, Entrance<'_>)> {
    let is_bounded = application.shared.settings.addresses.are_set();
    if !is_bounded || application.shared.is_of_operators(listener) {
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
    match route {
        Ok(Route::Health | Route::Ready) => true,
        Ok(Route::Metrics) => is_draining(application),
        _ => false,
    }
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
    let told = take_word(application, current, head);
    let head = told.as_ref().unwrap_or(head);
    allow_reading(application, head, headers);
    let address = ip_of(current.peer_address);
    let refusal = refusal_of(application, limit, current.id, address).closing();
    note_request(application, current, head, &refusal);
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
