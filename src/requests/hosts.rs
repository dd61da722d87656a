//! Hosts and origins: requests that a browser or a proxy brings, though they are not meant for this server.

use crate::application::Application;
use crate::config::{Hosts, Origins};
use crate::connection::event::ExtraHeaders;
use crate::console;
use crate::http::refusal::Refusal;
use crate::http::request::{Head, Method, Version};
use crate::protocol::{OriginList, is_loopback_host, is_loopback_origin};
use crate::route::Route;

/// Headers of answers that pages of other origins may read.
const EXPOSED_HEADERS: &str = "Umbel-Position, Umbel-Recovered, Umbel-Topic, Retry-After, WWW-Authenticate, \
                               Idempotency-Replayed";

/// Answer to what does not come from this machine, as far as can be told, where everything is open to it.
const PROXIED: &str = "this came through a proxy, and Umbel is open to this machine only: say who may publish and subscribe \
                       (--publish, --subscribe)";

/// Checks the name that a request was sent to.
///
/// A page whose name was made to lead to this machine sends that name (DNS rebinding). A proxy sends what its
/// configuration says, so where everything is open to this machine, its other traces count too.
pub fn check_host(hosts: &Hosts, head: &Head<'_>) -> Result<(), Refusal> {
    let host = head.known.host.text();
    match hosts {
        Hosts::Any => Ok(()),
        Hosts::Loopback => {
            let is_old = head.version == Version::Http10;
            let reads = matches!(head.method, Method::Get | Method::Head);
            match host.is_some_and(is_loopback_host) && !head.known.is_proxied && (reads || !is_old)
            {
                true => Ok(()),
                false => Err(Refusal::forbidden(PROXIED)),
            }
        }
        Hosts::List(list) => match host.is_some_and(|host| list.matches(host)) || is_probe(head) {
            true => Ok(()),
            false => Err(Refusal::misdirected(
                "this host is none of the server's; its --hosts lists them",
            )),
        },
    }
}

/// Probes go to an address, whatever the server is called. Their answers tell nothing.
fn is_probe(head: &Head<'_>) -> bool {
    matches!(head.target, "/health" | "/ready")
}

/// Whether the page that the request comes from may connect; true if it comes from none.
pub(super) fn may_connect(application: &Application, head: &Head<'_>) -> bool {
    let origin = head.known.origin;
    if !origin.is_there() {
        return true;
    }
    let allowed = |origin: &str| match &*application.shared.origins {
        Origins::Any => true,
        Origins::Loopback => is_loopback_origin(origin),
        Origins::List(list) => {
            list.matches(origin)
                || (application.shared.authority.takes_cookies() && is_own_origin(head, origin))
        }
    };
    !origin.is_repeated() && origin.text().is_some_and(allowed)
}

/// Whether a cookie shows the will of its user: a page of an origin that may connect asks, or the server's own page by GET.
/// Of a GET within one origin browsers do not say the origin, and say that instead.
pub(super) fn cookie_counts(application: &Application, head: &Head<'_>) -> bool {
    if head.known.origin.is_there() {
        return may_connect(application, head);
    }
    let site = head.known.sec_fetch_site;
    head.method == Method::Get && !site.is_repeated() && site.bytes() == Some(b"same-origin")
}

/// Whether the page is of the server itself: by scheme, host and port of the request, as trusted proxies tell them.
fn is_own_origin(head: &Head<'_>, origin: &str) -> bool {
    let Some(host) = head.known.host.text() else {
        return false;
    };
    let scheme = if head.known.is_secure {
        "https"
    } else {
        "http"
    };
    OriginList::parse(&[format!("{scheme}://{host}")]).is_ok_and(|own| own.matches(origin))
}

/// Checks the page that the request comes from, if it comes from one.
pub(super) fn check_origin(application: &Application, head: &Head<'_>) -> Result<(), Refusal> {
    match may_connect(application, head) {
        true => Ok(()),
        false => Err(Refusal::forbidden(
            "this origin may not connect; the server's --origin says which may",
        )),
    }
}

/// Checks that no page of another site asks for what is not for everybody, unless its origin may connect.
///
/// A picture or a form asks without an origin to judge by. Browsers say from where; where they do not, nothing is
/// known. What opens in a tab of its own shows its answer to the person alone, so a link to the console works.
pub(super) fn check_site(
    application: &Application,
    head: &Head<'_>,
    route: &Route<'_>,
) -> Result<(), Refusal> {
    // No browser says it twice, so whoever does is not believed.
    let site = head.known.sec_fetch_site;
    let is_cross_site = site.is_repeated()
        || (site.bytes()).is_some_and(|site| site.eq_ignore_ascii_case(b"cross-site"));
    if !is_cross_site || is_public(route) {
        return Ok(());
    }
    let is_link = head.known.sec_fetch_dest.bytes() == Some(b"document");
    if head.known.origin.is_there() || (is_link && matches!(route, Route::Asset(_))) {
        return check_origin(application, head);
    }
    Err(Refusal::forbidden(
        "a page of another site asks for this and does not say which; pages that --origin lists get it by fetch, \
         EventSource or WebSocket",
    ))
}

/// Whether everybody gets it, whatever page asks.
fn is_public(route: &Route<'_>) -> bool {
    match route {
        Route::Health | Route::Ready => true,
        Route::Asset(path) | Route::Path(path) => {
            console::asset(path).is_some_and(|asset| asset.is_public)
        }
        _ => false,
    }
}

/// Lets a page read an answer of the control API, if its origin is one of those that may. False: it is not.
pub(super) fn allow_api(
    application: &Application,
    head: &Head<'_>,
    headers: &mut ExtraHeaders,
) -> bool {
    let origins = &application.shared.settings.api_origins;
    if origins.is_empty() || head.known.origin.is_repeated() {
        return false;
    }
    let origin = head.known.origin.text();
    let Some(origin) = origin.filter(|origin| origins.matches(origin)) else {
        return false;
    };
    headers.push(("Access-Control-Allow-Origin", origin.to_owned()));
    headers.push(("Vary", "Origin".to_owned()));
    headers.push(("Access-Control-Expose-Headers", EXPOSED_HEADERS.to_owned()));
    true
}

/// Lets a page read the answer, if it may connect.
pub(super) fn allow_reading(
    application: &Application,
    head: &Head<'_>,
    headers: &mut ExtraHeaders,
) {
    if let Some(origin) = head
        .known
        .origin
        .text()
        .filter(|_| may_connect(application, head))
    {
        headers.push(("Access-Control-Allow-Origin", origin.to_owned()));
        let varies = match application.shared.authority.takes_cookies() {
            true => {
                headers.push(("Access-Control-Allow-Credentials", "true".to_owned()));
                "Cookie, Origin"
            }
            false => "Origin",
        };
        headers.push(("Vary", varies.to_owned()));
        headers.push(("Access-Control-Expose-Headers", EXPOSED_HEADERS.to_owned()));
    } else if application.shared.authority.takes_cookies() {
        headers.push(("Vary", "Cookie, Origin".to_owned()));
    }
}
