//! Credentials of a request: where a token stands in its head.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::access::{Denied, TokenFault};
use super::rights::TopicRight;
use crate::http::kept::HeadView;
use crate::http::query::Query;

/// Subprotocol that shows a token made of token characters, as a JWT is.
const TOKEN_OFFER: &str = "umbel.token.";

/// Subprotocol that shows any token, as base64url without padding.
const ENCODED_TOKEN_OFFER: &str = "umbel.token64.";

/// Subprotocol of `/ws/{topic}`. A browser that offers a token there has to be answered one, and never the token.
pub const RAW_SUBPROTOCOL: &str = "umbel.raw";

/// Facts about a request that its head alone does not tell.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The time, in milliseconds of the Unix epoch.
    pub now_ms: u64,
    /// Whether a cookie may be taken for its user's will.
    pub cookie_counts: bool,
    /// The one action on one topic that it asks for.
    pub asked: Option<(TopicRight, &'a str)>,
}

impl RequestFacts<'_> {
    /// Facts of a request at this time. No more is known of it.
    pub fn at(now_ms: u64) -> RequestFacts<'static> {
        RequestFacts {
            now_ms,
            cookie_counts: false,
            asked: None,
        }
    }
}

/// Place of a token in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `Authorization`, a subprotocol, or the first message of a connection.
    Head,
    /// The query, which proxies log.
    Query,
    /// A cookie.
    Cookie,
}

/// Credential that a request shows.
#[derive(Debug)]
pub enum Shown<'a> {
    /// None.
    Nothing,
    /// A token.
    Token(Cow<'a, str>, Place),
}

/// Whether an offered subprotocol is a token.
pub fn is_token_offer(offer: &str) -> bool {
    offer.starts_with(TOKEN_OFFER) || offer.starts_with(ENCODED_TOKEN_OFFER)
}

/// Credential that a request shows. `cookie`: name of the cookie, where one counts for this request. It counts beside nothing else.
///
/// # Errors
/// `Authorization` is of another scheme than `Bearer`, or no token stands behind it; there are two tokens that differ (RFC
/// 6750 section 2); or two cookies of that name.
pub fn shown<'a>(head: HeadView<'a>, cookie: Option<&str>) -> Result<Shown<'a>, Denied> {
    let mut found = head
        .header("authorization")
        .map(bearer)
        .transpose()?
        .map(Cow::Borrowed);
    let mut place = Place::Head;
    for line in head.headers("sec-websocket-protocol") {
        for offer in line.split(',').map(str::trim) {
            if let Some(token) = offered(offer)? {
                keep(&mut found, token)?;
            }
        }
    }
    let query = head.target.split_once('?').map_or("", |(_, query)| query);
    if !query.is_empty() {
        for name in ["token", "access_token"] {
            let value = Query(query).get(name);
            let value = value.map_err(|refusal| Denied::Malformed(refusal.reason))?;
            if let Some(token) = value {
                // That it stands in a header too does not take it out of the URL.
                place = Place::Query;
                keep(&mut found, token)?;
            }
        }
    }
    match (found, cookie) {
        (Some(token), _) => Ok(Shown::Token(token, place)),
        (None, Some(name)) => in_cookie(head, name),
        (None, None) => Ok(Shown::Nothing),
    }
}

fn keep<'a>(found: &mut Option<Cow<'a, str>>, token: Cow<'a, str>) -> Result<(), Denied> {
    if found.as_ref().is_some_and(|found| *found != token) {
        return Err(Denied::Malformed(
            "the request shows two tokens that differ: send one".into(),
        ));
    }
    *found = Some(token);
    Ok(())
}

/// The token of an `Authorization` (RFC 6750 section 2.1).
fn bearer(value: &str) -> Result<&str, Denied> {
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Denied::Invalid(TokenFault::Scheme));
    }
    let token = token.trim();
    let is_token = |byte: u8| byte.is_ascii_graphic() && byte != b',';
    match !token.is_empty() && token.bytes().all(is_token) {
        true => Ok(token),
        false => Err(Denied::Malformed(
            "Authorization is Bearer and one token, which has neither blanks nor commas".into(),
        )),
    }
}

/// The token of an offered subprotocol, if it is one.
fn offered(offer: &str) -> Result<Option<Cow<'_, str>>, Denied> {
    let malformed = || {
        Denied::Malformed(
            "behind umbel.token64. stands the token as base64url without padding, and behind umbel.token. the token".into(),
        )
    };
    if let Some(encoded) = offer.strip_prefix(ENCODED_TOKEN_OFFER) {
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| malformed())?;
        let token = String::from_utf8(bytes).map_err(|_| malformed())?;
        return match token.is_empty() {
            true => Err(malformed()),
            false => Ok(Some(Cow::Owned(token))),
        };
    }
    match offer.strip_prefix(TOKEN_OFFER) {
        Some("") => Err(malformed()),
        Some(token) => Ok(Some(Cow::Borrowed(token))),
        None => Ok(None),
    }
}

fn in_cookie<'a>(head: HeadView<'a>, name: &str) -> Result<Shown<'a>, Denied> {
    let pairs = head.headers("cookie").flat_map(|line| line.split(';'));
    let mut found = pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name);
    match (found.next(), found.next()) {
        (None, _) => Ok(Shown::Nothing),
        (Some((_, token)), None) => Ok(Shown::Token(Cow::Borrowed(token), Place::Cookie)),
        // One of them may be another's, set for a domain above.
        (Some(_), Some(_)) => Err(Denied::Invalid(TokenFault::Invalid)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::head;
    use super::*;

    fn shown_by(target: &str, lines: &[&str]) -> Result<Option<(String, Place)>, Denied> {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        let head = head(&request);
        Ok(match shown(head.view(), Some("__Host-umbel"))? {
            Shown::Nothing => None,
            Shown::Token(token, place) => Some((token.into_owned(), place)),
        })
    }

    #[test]
    fn places_of_a_token() {
        let header = "Authorization: Bearer abc";
        let cookie = "Cookie: a=1; __Host-umbel=abc; b=2";
        let offer = |text: &str| format!("Sec-WebSocket-Protocol: {text}");
        let (raw, encoded) = (
            offer("umbel.v1, umbel.token.abc"),
            offer("umbel.token64.YWJj"),
        );
        for (target, lines, place) in [
            ("/ws", vec![header], Place::Head),
            ("/ws", vec![&*raw], Place::Head),
            ("/ws", vec![&*encoded], Place::Head),
            ("/ws", vec![header, &raw, &encoded, cookie], Place::Head),
            ("/ws?token=abc", vec![], Place::Query),
            (
                "/ws?access_token=%61bc&token=abc",
                vec![header],
                Place::Query,
            ),
            ("/ws", vec![cookie], Place::Cookie),
        ] {
            let found = shown_by(target, &lines);
            assert_eq!(
                found,
                Ok(Some(("abc".to_owned(), place))),
                "{target} {lines:?}"
            );
        }
        assert_eq!(
            shown_by("/ws", &["Cookie: umbel=abc", &offer("umbel.v1")]),
            Ok(None)
        );
        assert!(is_token_offer("umbel.token.a") && is_token_offer("umbel.token64.YQ"));
        assert!(!is_token_offer("umbel.v1"));
    }

    #[test]
    fn credentials_that_cannot_stand() {
        let malformed = |found: Result<_, Denied>| matches!(found, Err(Denied::Malformed(_)));
        let offer = |text: &str| format!("Sec-WebSocket-Protocol: {text}");
        for (target, line) in [
            ("/ws?token=a", "Authorization: Bearer b".to_owned()),
            ("/ws?token=a", offer("umbel.token.b")),
            ("/ws?token=a&token=a", String::from("X: y")),
            ("/ws?token=a&access_token=b", String::from("X: y")),
            ("/ws", "Authorization: Bearer".to_owned()),
            ("/ws", "Authorization: Bearer a,b".to_owned()),
            ("/ws", "Authorization: Bearer a b".to_owned()),
            ("/ws", offer("umbel.token.a, umbel.token.b")),
            ("/ws", offer("umbel.token.")),
            ("/ws", offer("umbel.token64.")),
            ("/ws", offer("umbel.token64.YQ==")),
            ("/ws", offer("umbel.token64._w")),
        ] {
            assert!(malformed(shown_by(target, &[&line])), "{target} {line}");
        }
        let basic = shown_by("/ws", &["Authorization: Basic abc"]);
        assert_eq!(basic, Err(Denied::Invalid(TokenFault::Scheme)));
        let cookies = shown_by("/ws", &["Cookie: __Host-umbel=a", "Cookie: __Host-umbel=a"]);
        assert_eq!(cookies, Err(Denied::Invalid(TokenFault::Invalid)));
    }
}
