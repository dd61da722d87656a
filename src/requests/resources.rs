//! The server's own resources: pages of the console, metrics, and what a listener shows.

use std::borrow::Cow;

use super::hosts::check_origin;
use crate::application::Application;
use crate::config::Surface;
use crate::connection::event::ExtraHeaders;
use crate::connection::{Answer, Reply};
use crate::console;
use crate::http::refusal::Refusal;
use crate::http::request::Head;
use crate::route::parameters::{allowed_headers, is_among_known};
use crate::route::surface::shows;
use crate::route::{Route, allowed_methods, resources};

/// How long a browser may keep the answer to a preflight request, in seconds.
const PREFLIGHT_AGE_S: &str = "7200";

/// What the listener shows by which a connection came.
pub(super) fn surface_of(application: &Application, listener: u8) -> Surface {
    let listening = application.shared.listeners.get(usize::from(listener));
    listening.map_or(Surface::All, |listening| listening.surface)
}

/// 404, with all that there is on a listener.
pub(super) fn nothing_here(application: &Application, listener: u8) -> Refusal {
    let surface = surface_of(application, listener);
    let own = application.shared.routes.iter().map(|own| &*own.path);
    let dialects = &application.shared.settings.dialects;
    let shown = resources(dialects, own, |route| shows(surface, route));
    Refusal::not_found(format!("there is nothing here; try {}", shown.join(", ")))
}

/// What a browser asks before it lets a page of another origin publish or read a stream.
pub(super) fn preflight(
    application: &Application,
    head: &Head<'_>,
    route: &Route<'_>,
) -> Result<Answer, Refusal> {
    check_origin(application, head)?;
    let mut headers = ExtraHeaders::new();
    headers.push(("Allow", format!("{}, OPTIONS", allowed_methods(route))));
    if head.header("access-control-request-method").is_some() {
        headers.push((
            "Access-Control-Allow-Methods",
            allowed_methods(route).to_owned(),
        ));
        headers.push(("Access-Control-Allow-Headers", allowed_headers(head)));
        headers.push(("Access-Control-Max-Age", PREFLIGHT_AGE_S.to_owned()));
    }
    Ok(no_content(headers))
}

/// Answer to the question of a browser whether a page may use the control API, which it may.
pub(super) fn api_preflight(head: &Head<'_>) -> Answer {
    let mut headers = ExtraHeaders::new();
    let methods = "GET, POST, DELETE";
    headers.push(("Allow", format!("{methods}, OPTIONS")));
    headers.push(("Access-Control-Allow-Methods", methods.to_owned()));
    headers.push(("Access-Control-Allow-Headers", allowed_headers(head)));
    headers.push(("Access-Control-Max-Age", PREFLIGHT_AGE_S.to_owned()));
    no_content(headers)
}

pub(super) fn metrics_page(application: &Application, head: &Head<'_>) -> Answer {
    let (metrics, hub) = (
        &application.shared.metrics,
        application.shared.shards.counts(),
    );
    let openmetrics = head
        .headers("accept")
        .any(|accept| accept.contains("application/openmetrics-text"));
    let (content_type, text) = match openmetrics {
        true => (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            metrics.encode(hub),
        ),
        false => (
            "text/plain; version=0.0.4; charset=utf-8",
            metrics.encode_prometheus(hub),
        ),
    };
    Answer::Respond(Reply {
        status: 200,
        content_type,
        headers: vec![("Cache-Control", "no-store".to_owned())],
        body: Cow::Owned(text.into_bytes()),
    })
}

pub(super) fn asset(
    application: &Application,
    head: &Head<'_>,
    path: &str,
) -> Result<Answer, Refusal> {
    let asset = console::asset(path);
    let asset = asset.ok_or_else(|| Refusal::not_found("there is no such page"))?;
    // Scripts that a page of another origin imports are fetched as its own requests are. The page itself holds no data, and
    // asks for a token.
    if asset.is_public {
        check_origin(application, head)?;
    }
    let tag = format!("\"{:016x}\"", asset.tag);
    let is_known = is_among_known(head, &tag);
    let headers = vec![
        (
            "Content-Security-Policy",
            console::CONTENT_SECURITY_POLICY.to_owned(),
        ),
        ("X-Content-Type-Options", "nosniff".to_owned()),
        ("Referrer-Policy", "no-referrer".to_owned()),
        ("Cache-Control", "no-cache".to_owned()),
        ("ETag", tag),
    ];
    Ok(Answer::Respond(Reply {
        status: if is_known { 304 } else { 200 },
        content_type: asset.content_type,
        headers,
        body: Cow::Borrowed(if is_known { b"" } else { asset.body }),
    }))
}

pub(super) fn no_content(headers: ExtraHeaders) -> Answer {
    let (content_type, body) = ("text/plain; charset=utf-8", Cow::Borrowed(&b""[..]));
    Answer::Respond(Reply {
        status: 204,
        content_type,
        headers,
        body,
    })
}

pub(super) fn text(status: u16, body: &'static str) -> Answer {
    Answer::Respond(Reply {
        status,
        content_type: "text/plain; charset=utf-8",
        headers: vec![("Cache-Control", "no-store".to_owned())],
        body: Cow::Borrowed(body.as_bytes()),
    })
}
