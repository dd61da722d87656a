//! Parameters of requests: what their queries and headers ask for.

use std::sync::Arc;

use super::query_of;
use crate::dialect::check_idempotency_key;
use crate::http::query::{POSITION_PARAMETERS, Query};
use crate::http::refusal::Refusal;
use crate::http::request::Head;
use crate::hub::options::check_key;
use crate::hub::{Kind, Position, PublishOptions, Start};

/// Bodies are taken as they are: one that is compressed would reach subscribers as a message.
pub fn check_content_encoding(head: &Head<'_>) -> Result<(), Refusal> {
    if !head.known.content_encoding.is_there() {
        return Ok(());
    }
    let lines = head.headers("content-encoding");
    let mut codings = lines.flat_map(|line| line.split(',')).map(str::trim);
    match codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case("identity")) {
        true => Ok(()),
        false => Err(Refusal::unsupported_content_encoding(
            "the body is compressed, and bodies are taken as they are: send it without Content-Encoding",
        )),
    }
}

/// Whether the client has what this tag stands for (RFC 9110 section 13.1.2, by the weak comparison).
pub fn is_among_known(head: &Head<'_>, tag: &str) -> bool {
    if !head.known.if_none_match.is_there() {
        return false;
    }
    let lines = head.headers("if-none-match");
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// Start of a subscription, by the query.
pub fn start_of(head: &Head<'_>) -> Result<Start, Refusal> {
    let query = query_of(head.target);
    if query == Query::default() {
        return Ok(Start::Now);
    }
    for name in POSITION_PARAMETERS {
        // It is what a client adds as it comes back, to a URL that may say already where it began.
        if let Some(position) = query.get(name)?.filter(|position| !position.is_empty()) {
            return Ok(Start::Since(last_event_position(Some(&position))));
        }
    }
    let (since, last) = (query.get("since")?, query.get("last")?);
    match (since, last) {
        (None, None) => Ok(Start::Now),
        (Some(since), None) => Position::parse(&since).map(Start::Since).ok_or_else(|| {
            Refusal::bad_request("since is a position, epoch:offset, as Umbel-Position gives it")
        }),
        (None, Some(last)) => last
            .parse()
            .map(Start::Last)
            .map_err(|_| Refusal::bad_request("last is how many publications come first")),
        (Some(_), Some(_)) => Err(Refusal::bad_request(
            "a subscription begins by since or by last, not by both",
        )),
    }
}

/// A topic with the names alone of its parameters, for the log: one that was meant for the request may be a secret.
pub fn without_values(topic: &str) -> String {
    let (path, query) = topic.split_once('?').unwrap_or((topic, ""));
    let names = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}=..."),
        None => pair.to_owned(),
    });
    format!("{path}?{}", names.collect::<Vec<_>>().join("&"))
}

/// Position of an event stream's reader. What is no position of this server's is one that cannot be recovered from.
pub fn last_event_position(id: Option<&str>) -> Position {
    id.and_then(Position::parse).unwrap_or(Position {
        epoch: 0,
        offset: u64::MAX,
    })
}

/// Options of a publish. Then whether a receipt is wanted, and the idempotency key.
pub fn publish_options(
    head: &Head<'_>,
) -> Result<(PublishOptions, bool, Option<Arc<str>>), Refusal> {
    let (mut options, mut wants_receipt) = (PublishOptions::default(), false);
    let mut idempotency_key = None;
    for (name, value) in head.all() {
        if name.eq_ignore_ascii_case("umbel-key") {
            let Ok(key) = std::str::from_utf8(value) else {
                return Err(Refusal::bad_request("the key is not UTF-8"));
            };
            check_key(key).map_err(Refusal::bad_request)?;
            if options.extras().is_some_and(|extras| extras.key.is_some()) {
                return Err(Refusal::bad_request("Umbel-Key stands twice"));
            }
            options = options.key(key);
        } else if name.eq_ignore_ascii_case("idempotency-key") {
            take_idempotency_key(&mut idempotency_key, value)?;
        } else if name.eq_ignore_ascii_case("umbel-receipt") {
            wants_receipt = match value {
                b"true" => true,
                b"false" => false,
                _ => return Err(Refusal::bad_request("Umbel-Receipt is true or false")),
            };
        }
    }
    Ok((options, wants_receipt, idempotency_key))
}

/// Idempotency key of a request with many publications.
pub fn idempotency_key(head: &Head<'_>) -> Result<Option<Arc<str>>, Refusal> {
    let mut key = None;
    for value in head.headers("idempotency-key") {
        take_idempotency_key(&mut key, value.as_bytes())?;
    }
    Ok(key)
}

fn take_idempotency_key(key: &mut Option<Arc<str>>, value: &[u8]) -> Result<(), Refusal> {
    let Ok(text) = std::str::from_utf8(value) else {
        return Err(Refusal::bad_request("the idempotency key is not UTF-8"));
    };
    check_idempotency_key(text).map_err(Refusal::bad_request)?;
    match key.replace(text.into()) {
        None => Ok(()),
        Some(_) => Err(Refusal::bad_request("Idempotency-Key stands twice")),
    }
}

/// Text or binary by `Content-Type`; None where it says nothing, and then the body decides.
pub fn content_kind(head: &Head<'_>) -> Result<Option<Kind>, Refusal> {
    let Some(value) = head.known.content_type.text() else {
        return Ok(None);
    };
    let (media_type, parameters) = value.split_once(';').unwrap_or((value, ""));
    let media_type = media_type.trim().to_ascii_lowercase();
    let is_text = media_type.starts_with("text/")
        || media_type.ends_with("+json")
        || media_type.ends_with("+xml")
        || matches!(
            &*media_type,
            "application/json"
                | "application/x-ndjson"
                | "application/javascript"
                | "application/xml"
                // What curl -d says when it is told nothing.
                | "application/x-www-form-urlencoded"
        );
    if !is_text {
        return Ok(Some(Kind::Binary));
    }
    let charset = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    });
    match charset.as_deref() {
        None | Some("utf-8" | "utf8" | "us-ascii") => Ok(Some(Kind::Text)),
        Some(_) => Err(Refusal::unsupported_media_type(
            "text is published as UTF-8 only",
        )),
    }
}
