//! Refusals that scripts of pages can read.
//!
//! A browser hides the status of a handshake from the script that asked for it: whatever it was, the script sees a
//! connection that came to nothing, and tries again for ever. So a refused handshake is completed where a dialect is
//! offered that has codes for refusals, and what was wrong stands in the Close that follows at once.
//!
//! `EventSource` takes any status but 200 for the end, also one that says to come back. So a stream that is refused for a
//! while is begun, says when to come back, and ends. Whoever is no page of a browser gets the status.

use std::ops::Range;

use super::hosts::check_origin;
use crate::application::{Application, CommandContext};
use crate::auth::credential::RequestFacts;
use crate::auth::identity::TokenDigest;
use crate::config::AuthRefusal;
use crate::connection::{Answer, Endpoint, RefusedHandshake, RefusedStream, Upgrade, scatter};
use crate::dialect::Encoding;
use crate::handler::ConnectionId;
use crate::http::refusal::Refusal;
use crate::http::request::{Head, Method};
use crate::logging::RefusedWords;
use crate::protocol::{is_upgrade, parse_upgrade};
use crate::route::{Route, split_target};

/// Request of a script, which sees no status. Browsers send their origin, Node's WebSocket only its mode.
pub fn is_of_script(head: &Head<'_>) -> bool {
    head.known.origin.is_there() || head.known.sec_fetch_mode.bytes() == Some(b"websocket")
}

/// Wait before the reader of a refused stream comes back, in milliseconds: each another.
const RETRY_MS: Range<u64> = 5000..15000;

/// Wait of a page for a refused stream, in milliseconds. None: it is no page, and sees the status.
pub fn retry_ms(id: ConnectionId, head: &Head<'_>) -> Option<u32> {
    let is_of_page = head.known.origin.is_there() || head.known.sec_fetch_mode.is_there();
    let bits = id.to_bits();
    is_of_page.then(|| scatter((bits ^ (bits >> 32)) as u32, RETRY_MS) as u32)
}

/// Refusal of what begins in a drain.
pub(super) fn shutting_down() -> Refusal {
    Refusal::unavailable("the server is shutting down")
}

/// Notes what the log tells of a request that is being refused, if there is room for a line.
#[cold]
pub(super) fn note_request(
    application: &mut Application,
    current: &CommandContext<'_>,
    head: &Head<'_>,
    refusal: &Refusal,
) {
    let lines = &application.shared.callers.lines;
    let index = Refusal::LABELS
        .iter()
        .position(|label| *label == refusal.label);
    let has_room = index.is_some_and(|index| lines.refused[index].has_room(application.now_us));
    if !has_room && !log::log_enabled!(log::Level::Debug) {
        return;
    }
    let caller = application.identities.get(*current.identity);
    let facts = RequestFacts {
        now_ms: application.wall_ms(),
        cookie_counts: false,
        asked: None,
    };
    let token = application.shared.authority.shown_token(head, &facts);
    let words = RefusedWords::of(
        head,
        caller.subject(),
        token.map(|token| format!("{:?}", TokenDigest::of(&token))),
    );
    application.noted.refused = Some(Box::new(words));
}

/// Refuses a request: by a status, or where that cannot be seen, by a Close.
pub(super) fn refuse(
    application: &Application,
    id: ConnectionId,
    head: &Head<'_>,
    refusal: Refusal,
) -> Answer {
    if let Some((encoding, retry_ms)) = refusable_stream(application, id, head, &refusal) {
        return Answer::RefuseStream(Box::new(RefusedStream {
            encoding,
            retry_ms,
            refusal,
        }));
    }
    match refuse_handshake(application, head, &refusal) {
        Some(refused) => Answer::RefuseHandshake(Box::new(refused)),
        None => Answer::Refuse(refusal),
    }
}

/// The stream that a page asks for, if this refusal is for now.
fn refusable_stream(
    application: &Application,
    id: ConnectionId,
    head: &Head<'_>,
    refusal: &Refusal,
) -> Option<(Encoding, u32)> {
    if !refusal.is_for_now()
        || head.method != Method::Get
        || check_origin(application, head).is_err()
    {
        return None;
    }
    match Route::parse(head.target, &application.shared.settings.dialects) {
        Ok(Route::TopicStream(encoding, _) | Route::JoinedStream(encoding)) => {
            Some((encoding, retry_ms(id, head)?))
        }
        _ => None,
    }
}

/// Whether a status is told for reasons of identity.
fn is_of_identity(status: u16) -> bool {
    matches!(status, 401 | 403 | 429 | 503)
}

/// The completed handshake of a script. A page that may not connect learns nothing.
fn refuse_handshake(
    application: &Application,
    head: &Head<'_>,
    refusal: &Refusal,
) -> Option<RefusedHandshake> {
    let is_seen = match application.shared.settings.auth_refusal {
        AuthRefusal::Auto => !is_of_script(head),
        AuthRefusal::Status => !is_of_script(head) || is_of_identity(refusal.status),
        AuthRefusal::Close => !is_of_script(head) && !is_of_identity(refusal.status),
    };
    if !is_upgrade(head) || is_seen || check_origin(application, head).is_err() {
        return None;
    }
    let upgrade = parse_upgrade(head).ok()?;
    let dialects = &application.shared.settings.dialects;
    let (path, _) = split_target(head.target);
    let (subprotocol, code) = dialects.refusal_code(path, upgrade.offers(), refusal.status)?;
    let upgrade = Upgrade {
        accept: upgrade.accept,
        subprotocol: subprotocol.map(Box::from),
        endpoint: Endpoint::Topic {
            may_publish: false,
            echo: true,
        },
        deflate: None,
        must_sign_in: false,
        greeting: None,
    };
    Some(RefusedHandshake {
        upgrade,
        code,
        refusal: refusal.clone(),
    })
}
