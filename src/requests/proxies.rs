//! Words of trusted proxies about the clients of requests.

use std::sync::atomic::Ordering;

use crate::application::{Application, CommandContext};
use crate::config::Proxies;
use crate::http::known::Single;
use crate::http::request::Head;
use crate::peers::suspicion::Suspicion;
use crate::peers::{Told, Word};

/// Takes up what the proxies in front of the listener tell of the request's client: who it is from here on, and the head with
/// the scheme and the host that it asked. None where there is no proxy and no TLS.
pub(super) fn take_word<'a>(
    application: &mut Application,
    current: &CommandContext<'_>,
    head: &Head<'a>,
) -> Option<Head<'a>> {
    let listening = application
        .shared
        .listeners
        .get(usize::from(current.listener))?;
    let by_tls = listening.tls;
    let Some(proxies) = &listening.proxies else {
        if head.known.has_forwarded_for {
            suspect(application, current);
        }
        return by_tls.then(|| {
            let mut secure = *head;
            secure.known.is_secure = true;
            secure
        });
    };
    let before = current.told.get();
    let mut by_connection = before.map(|told| told.by_connection).unwrap_or_default();
    by_connection.is_secure |= by_tls;
    current
        .told
        .set(before.map(|_| Told::by_connection(by_connection)));
    let (word, host) = word_of_request(proxies, current, head, by_connection);
    if word != Word::default() || before.is_some() {
        let told = Told {
            by_connection,
            by_request: word,
        };
        current.told.set(Some(told));
        if before.and_then(|told| told.by_request.client) != word.client {
            log_client(current, word);
        }
    }
    let mut told = *head;
    told.known.is_secure = word.is_secure;
    if let Some(host) = host {
        told.known.host = Single::of(host.as_bytes());
    }
    Some(told)
}

/// What the request's headers tell, where its connection comes from a proxy; else what is known of the connection.
fn word_of_request<'a>(
    proxies: &Proxies,
    current: &CommandContext<'_>,
    head: &Head<'a>,
    by_connection: Word,
) -> (Word, Option<&'a str>) {
    let Some(header) = proxies.header.filter(|_| head.known.is_forwarded) else {
        return (by_connection, None);
    };
    if !proxies.trusted.trusts(&(current.peer_address)()) {
        return (by_connection, None);
    }
    let forwarded = head.forwarded(header, |address| proxies.trusted.contains(address));
    let word = Word {
        client: forwarded.client.or(by_connection.client),
        is_secure: forwarded.is_secure.unwrap_or(by_connection.is_secure),
    };
    (word, forwarded.host.filter(|_| proxies.host))
}

/// The client of the connection that is being dealt with, as far as is known.
pub(super) fn client_of(application: &Application, current: &CommandContext<'_>) -> Word {
    let told = current.told.get().map(|told| told.by_request.is_secure);
    Word {
        client: (current.peer_address)().ok().flatten(),
        is_secure: told.unwrap_or_else(|| application.shared.speaks_tls(current.listener)),
    }
}

fn log_client(current: &CommandContext<'_>, word: Word) {
    if let Some(client) = word.client
        && log::log_enabled!(log::Level::Debug)
    {
        // The word of the request is set aside, so that the socket's address is seen.
        let told = current.told.replace(None);
        let proxy = (current.peer_address)().ok().flatten();
        current.told.set(told);
        let proxy = proxy.map_or_else(|| "unix".to_owned(), |proxy| proxy.to_string());
        log::debug!(connection:% = current.id, peer:% = client, proxy:%; "a proxy tells who the client is");
    }
}

/// Warns once where a proxy stands in front that is not trusted, so that all clients look like one.
#[cold]
fn suspect(application: &mut Application, current: &CommandContext<'_>) {
    let callers = &application.shared.callers;
    if callers.is_proxy_told.load(Ordering::Relaxed) {
        return;
    }
    let Ok(Some(peer)) = (current.peer_address)() else {
        return;
    };
    let number = current.id.generation;
    let found = Suspicion::note(&mut application.suspicion, number, peer.ip().to_canonical());
    if let Some(proxy) = found
        && !callers.is_proxy_told.swap(true, Ordering::Relaxed)
    {
        log::warn!(
            proxy:%; "nearly all connections come from one address and carry X-Forwarded-For, so that all clients count as one: \
            set trusted_proxies of the listener"
        );
    }
}
