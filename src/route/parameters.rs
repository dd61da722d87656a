//! Parameters of requests: what their queries and headers ask for.

use super::query_of;
use crate::dialect::check_idempotency_key;
use crate::http::query::{POSITION_PARAMETERS, Query};
use crate::http::refusal::Refusal;
use crate::http::request::Head;
use crate::hub::idempotency::GivenKey;
use crate::hub::options::parse_ttl_ms;
use crate::hub::{FieldLimits, Kind, Position, PublishOptions, Start};

/// Headers of requests that pages of other origins may send, besides all whose names begin with `Umbel-`.
const ALLOWED_HEADERS: &str = "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID, \
                               Umbel-First-Sent-Ms, Umbel-Key, Umbel-Receipt";

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

/// Parameters of the server's own that a request about a topic can have.
const OWN_PARAMETERS: [&str; 6] = [
    "umbel_echo",
    "umbel_exp",
    "umbel_kid",
    "umbel_limit",
    "umbel_sig",
    "umbel_sub",
];

/// Checks that all parameters beginning with `umbel_` are known.
pub fn check_own_parameters(head: &Head<'_>) -> Result<(), Refusal> {
    if !head.target.contains("umbel") {
        return Ok(());
    }
    for pair in query_of(head.target).pairs() {
        let (name, _) = pair?;
        if name.starts_with("umbel_") && !OWN_PARAMETERS.contains(&&*name) {
            return Err(Refusal::bad_request(
                "a parameter whose name begins with umbel_ is unknown: such names are the server's",
            ));
        }
    }
    Ok(())
}

/// Whether a subscriber gets what it publishes itself, by the query.
pub fn has_echo(head: &Head<'_>) -> Result<bool, Refusal> {
    match query_of(head.target).get("umbel_echo")?.as_deref() {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => Err(Refusal::bad_request("umbel_echo is true or false")),
    }
}

/// Publications of a page of a history, by the query: `default` where it does not say how many.
pub fn page_limit(head: &Head<'_>, default: u32) -> Result<u32, Refusal> {
    let Some(text) = query_of(head.target).get("umbel_limit")? else {
        return Ok(default);
    };
    let limit = text.parse().ok().filter(|limit| *limit > 0);
    limit.ok_or_else(|| Refusal::bad_request("umbel_limit is how many publications come at most"))
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

/// What each header of this beginning and a name behind it sets: a tag.
const TAG_HEADER: &str = "umbel-tag-";

/// Header of the age, in milliseconds, of a publish sent again.
pub const FIRST_SENT: &str = "Umbel-First-Sent-Ms";

/// Options of a publish. Then whether a receipt is wanted, and the idempotency key. `now_us`: when the request came.
pub fn publish_options(
    head: &Head<'_>,
    limits: &FieldLimits,
    now_us: u64,
) -> Result<(PublishOptions, bool, Option<Box<GivenKey>>), Refusal> {
    let (mut options, mut wants_receipt) = (PublishOptions::default(), false);
    let (mut tags, mut key) = (Vec::new(), KeyHeaders::default());
    for (name, value) in head.all() {
        if !is_own(name) {
            if name.eq_ignore_ascii_case("idempotency-key") {
                key.take_text(value)?;
            }
            continue;
        }
        let text = || {
            std::str::from_utf8(value)
                .map_err(|_| Refusal::bad_request(format!("{name} is not UTF-8")))
        };
        let twice = || Err(Refusal::bad_request(format!("{name} stands twice")));
        let extras = options.extras();
        if name.eq_ignore_ascii_case("umbel-key") {
            if extras.is_some_and(|extras| extras.key.is_some()) {
                return twice();
            }
            options = options.key(text()?);
        } else if name.eq_ignore_ascii_case("umbel-receipt") {
            wants_receipt = match value {
                b"true" => true,
                b"false" => false,
                _ => return Err(Refusal::bad_request("Umbel-Receipt is true or false")),
            };
        } else if name.eq_ignore_ascii_case("umbel-event") {
            if extras.is_some_and(|extras| extras.event.is_some()) {
                return twice();
            }
            options = options.event(text()?);
        } else if name.eq_ignore_ascii_case("umbel-id") {
            if extras.is_some_and(|extras| extras.id.is_some()) {
                return twice();
            }
            options = options.id(text()?);
        } else if name.eq_ignore_ascii_case("umbel-ttl-ms") {
            if extras.is_some_and(|extras| extras.ttl_ms.is_some()) {
                return twice();
            }
            let ttl_ms = parse_ttl_ms(text()?).map_err(|error| Refusal::bad_request(error.0))?;
            options = options.ttl_ms(ttl_ms);
        } else if name.eq_ignore_ascii_case("umbel-tombstone") {
            match value {
                b"true" => options = options.tombstone(),
                b"false" => {}
                _ => return Err(Refusal::bad_request("Umbel-Tombstone is true or false")),
            }
        } else if name.eq_ignore_ascii_case(FIRST_SENT) {
            key.take_first_sent(value)?;
        } else if let Some(tag) = tag_of(name) {
            tags.push((tag.to_ascii_lowercase().into(), text()?.into()));
        }
    }
    options = options.tags(tags);
    if let Some(content_type) = head.known.content_type.text() {
        options.set_body_type(content_type);
    }
    options
        .check(limits)
        .map_err(|error| Refusal::bad_request(error.0))?;
    Ok((options, wants_receipt, key.finish(now_us)?))
}

/// Idempotency key of a request with many publications. `now_us`: when it came.
pub fn idempotency_key(head: &Head<'_>, now_us: u64) -> Result<Option<Box<GivenKey>>, Refusal> {
    let mut key = KeyHeaders::default();
    for (name, value) in head.all() {
        if name.eq_ignore_ascii_case("idempotency-key") {
            key.take_text(value)?;
        } else if name.eq_ignore_ascii_case(FIRST_SENT) {
            key.take_first_sent(value)?;
        }
    }
    key.finish(now_us)
}

/// What the headers of a request say of its idempotency key.
#[derive(Default)]
struct KeyHeaders {
    text: Option<Box<str>>,
    first_sent_ms: Option<u32>,
}

impl KeyHeaders {
    fn take_text(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let Ok(text) = std::str::from_utf8(value) else {
            return Err(Refusal::bad_request("the idempotency key is not UTF-8"));
        };
        check_idempotency_key(text).map_err(Refusal::bad_request)?;
        match self.text.replace(text.into()) {
            None => Ok(()),
            Some(_) => Err(Refusal::bad_request("Idempotency-Key stands twice")),
        }
    }

    fn take_first_sent(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let digits = value.iter().all(u8::is_ascii_digit).then_some(value);
        let text = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(first_sent_ms) = text.and_then(|text| text.parse().ok()) else {
            return Err(Refusal::bad_request(
                "Umbel-First-Sent-Ms is a number of milliseconds, 4294967295 at most",
            ));
        };
        match self.first_sent_ms.replace(first_sent_ms) {
            None => Ok(()),
            Some(_) => Err(Refusal::bad_request("Umbel-First-Sent-Ms stands twice")),
        }
    }

    fn finish(self, now_us: u64) -> Result<Option<Box<GivenKey>>, Refusal> {
        let Some(text) = self.text else {
            return match self.first_sent_ms {
                None => Ok(None),
                Some(_) => Err(Refusal::bad_request(
                    "Umbel-First-Sent-Ms is for a publish with an Idempotency-Key",
                )),
            };
        };
        let now_us = i64::try_from(now_us).unwrap_or(i64::MAX);
        let first_sent_us = self.first_sent_ms.map(|ms| now_us - i64::from(ms) * 1000);
        Ok(Some(Box::new(GivenKey {
            text,
            first_sent_us,
        })))
    }
}

/// Headers that a page may send: those that are known, and of those it asks for all of the server's own, for tags have
/// names of the publisher's.
pub fn allowed_headers(head: &Head<'_>) -> String {
    let mut allowed = ALLOWED_HEADERS.to_owned();
    let asked = head.headers("access-control-request-headers");
    for name in asked.flat_map(|line| line.split(',')).map(str::trim) {
        let is_token = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if is_own(name) && is_token {
            allowed.push_str(", ");
            allowed.push_str(name);
        }
    }
    allowed
}

/// Whether a header is one of this server's own.
fn is_own(name: &str) -> bool {
    name.get(..6)
        .is_some_and(|own| own.eq_ignore_ascii_case("umbel-"))
}

/// The name of the tag that a header sets.
fn tag_of(header: &str) -> Option<&str> {
    let (own, tag) = header.split_at_checked(TAG_HEADER.len())?;
    own.eq_ignore_ascii_case(TAG_HEADER).then_some(tag)
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
