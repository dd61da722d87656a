//! Requests on a listener without TLS beside one with it: challenges of ACME, and the way to https.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::application::Application;
use crate::config::Surface;
use crate::connection::{Answer, Reply};
use crate::http::refusal::Refusal;
use crate::http::request::{Head, Method};
use crate::protocol::is_upgrade;

/// Where ACME looks for the answer to a challenge (RFC 8555 section 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// Bytes of such an answer, at most.
const CHALLENGE_BYTES_MAX: u64 = 4096;

/// Characters of the name of a challenge, at most.
const TOKEN_BYTES_MAX: usize = 128;

/// Port of https where none is said.
const HTTPS_PORT: u16 = 443;

/// Answers what is not to go on without TLS. None: the request is like any other.
pub(super) fn answer_plain(
    application: &Application,
    listener: u8,
    head: &Head<'_>,
) -> Result<Option<Answer>, Refusal> {
    let listening = application.shared.listeners.get(usize::from(listener));
    let Some(listening) = listening.filter(|it| !it.tls && it.port.is_some()) else {
        return Ok(None);
    };
    let secure = &application.shared.settings.secure;
    if let (Some(webroot), Some(token)) =
        (&secure.acme_webroot, head.target.strip_prefix(CHALLENGES))
    {
        return challenge(webroot, token, head).map(Some);
    }
    // A proxy in front may have ended TLS.
    if !secure.redirects || listening.surface == Surface::Admin || head.known.is_secure {
        return Ok(None);
    }
    let mut listeners = application.shared.listeners.iter();
    let port = listeners.find(|it| it.tls).and_then(|it| it.port);
    match port {
        Some(port) => redirect(head, port).map(Some),
        None => Ok(None),
    }
}

/// The file that an ACME client has put there.
fn challenge(webroot: &Path, token: &str, head: &Head<'_>) -> Result<Answer, Refusal> {
    if !matches!(head.method, Method::Get | Method::Head) {
        let reason = "a challenge is read by GET or HEAD";
        return Err(Refusal::method_not_allowed(
            reason,
            &[("Allow", "GET, HEAD")],
        ));
    }
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(is_token) {
        return Err(no_challenge());
    }
    let path = webroot.join(&CHALLENGES[1..]).join(token);
    let body = read_file(&path).ok_or_else(no_challenge)?;
    Ok(Answer::Respond(Reply {
        status: 200,
        content_type: "application/octet-stream",
        headers: vec![("Cache-Control", "no-store".to_owned())],
        body: Cow::Owned(body),
    }))
}

fn no_challenge() -> Refusal {
    Refusal::not_found("there is no such challenge")
}

/// Reads a small file that is no link, and is not waited for.
fn read_file(path: &Path) -> Option<Vec<u8>> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    let file = options.open(path).ok()?;
    let about = file.metadata().ok()?;
    if !about.is_file() || about.len() > CHALLENGE_BYTES_MAX {
        return None;
    }
    let mut body = Vec::new();
    let mut file = file.take(CHALLENGE_BYTES_MAX + 1);
    file.read_to_end(&mut body).ok()?;
    (body.len() as u64 <= CHALLENGE_BYTES_MAX).then_some(body)
}

/// Leads to the same target by https.
fn redirect(head: &Head<'_>, port: u16) -> Result<Answer, Refusal> {
    if is_upgrade(head) {
        return Err(Refusal::upgrade_required(
            "this listener is without TLS: use wss://",
        ));
    }
    let host = head.known.host.text();
    let host = host.ok_or_else(|| Refusal::bad_request("a request needs a Host"))?;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let port = match port {
        HTTPS_PORT => String::new(),
        port => format!(":{port}"),
    };
    // Of `OPTIONS *` there is no target elsewhere.
    let target = if head.target.starts_with('/') {
        head.target
    } else {
        "/"
    };
    Ok(Answer::Respond(Reply {
        status: 308,
        content_type: "text/plain; charset=utf-8",
        headers: vec![
            ("Location", format!("https://{name}{port}{target}")),
            ("Cache-Control", "no-store".to_owned()),
        ],
        body: Cow::Borrowed(b"use https://\n"),
    }))
}
