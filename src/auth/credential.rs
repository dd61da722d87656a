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
    // Bytes, and not text: a line that is no UTF-8 would be none otherwise, and what it shows nobody's.
    let mut found = head
        .values("authorization")
        .next()
        .map(bearer)
        .transpose()?
        .map(Cow::Borrowed);
    let mut place = Place::Head;
    for line in head.values("sec-websocket-protocol") {
        for offer in line.split(|byte| *byte == b',') {
            if let Some(token) = offered(offer.trim_ascii())? {
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
fn bearer(value: &[u8]) -> Result<&str, Denied> {
    let end = value.iter().position(|byte| *byte == b' ');
    let (scheme, token) = value.split_at(end.unwrap_or(value.len()));
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Denied::Invalid(TokenFault::Scheme));
    }
    let is_token = |token: &&str| {
        let mut bytes = token.bytes();
        !token.is_empty() && bytes.all(|byte| byte.is_ascii_graphic() && byte != b',')
    };
    let token = std::str::from_utf8(token.trim_ascii()).ok();
    token.filter(is_token).ok_or_else(|| {
        Denied::Malformed(
            "Authorization is Bearer and one token, which has neither blanks nor commas".into(),
        )
    })
}

/// The token of an offered subprotocol, if it is one.
fn offered(offer: &[u8]) -> Result<Option<Cow<'_, str>>, Denied> {
    let malformed = || {
        Denied::Malformed(
            "behind umbel.token64. stands the token as base64url without padding, and behind umbel.token. the token".into(),
        )
    };
    if let Some(encoded) = offer.strip_prefix(ENCODED_TOKEN_OFFER.as_bytes()) {
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| malformed())?;
        let token = String::from_utf8(bytes).map_err(|_| malformed())?;
        return match token.is_empty() {
            true => Err(malformed()),
            false => Ok(Some(Cow::Owned(token))),
        };
    }
    match offer.strip_prefix(TOKEN_OFFER.as_bytes()) {
        Some(b"") => Err(malformed()),
        Some(token) => match std::str::from_utf8(token) {
            Ok(token) => Ok(Some(Cow::Borrowed(token))),
            Err(_) => Err(malformed()),
        },
        None => Ok(None),
    }
}

fn in_cookie<'a>(head: HeadView<'a>, name: &str) -> Result<Shown<'a>, Denied> {
    let pairs = head
        .values("cookie")
        .flat_map(|line| line.split(|byte| *byte == b';'));
    let mut found = pairs.filter_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    });
    let invalid = || Denied::Invalid(TokenFault::Invalid);
    match (found.next(), found.next()) {
        (None, _) => Ok(Shown::Nothing),
        (Some(token), None) => {
            let token = std::str::from_utf8(token).map_err(|_| invalid())?;
            Ok(Shown::Token(Cow::Borrowed(token), Place::Cookie))
        }
        // One of them may be another's, set for a domain above.
        (Some(_), Some(_)) => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::head;
    use super::*;

    fn shown_by(target: &str, lines: &[&str]) -> Result<Option<(String, Place)>, Denied> {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        shown_in(request.as_bytes())
    }

    fn shown_in(request: &[u8]) -> Result<Option<(String, Place)>, Denied> {
        let head = head(request);
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

    #[test]
    fn credential_that_is_no_text_is_not_none() {
        let shown = |line: &[u8]| {
            shown_in(&[b"GET /ws HTTP/1.1\r\nHost: x\r\n", line, b"\r\n\r\n"].concat())
        };
        for line in [
            &b"Authorization: Bearer a\xff"[..],
            b"Authorization: Bearer \xc3\xa4",
            b"Sec-WebSocket-Protocol: umbel.v1, umbel.token.a\xff",
            b"Sec-WebSocket-Protocol: umbel.token64.YQ\xff",
        ] {
            assert!(matches!(shown(line), Err(Denied::Malformed(_))), "{line:?}");
        }
        let basic = shown(b"Authorization: Basic \xff");
        assert_eq!(basic, Err(Denied::Invalid(TokenFault::Scheme)));
        for line in [
            &b"Cookie: __Host-umbel=a\xff"[..],
            b"Cookie: __Host-umbel=a\r\nCookie: __Host-umbel=\xff",
        ] {
            let found = shown(line);
            assert_eq!(found, Err(Denied::Invalid(TokenFault::Invalid)), "{line:?}");
        }
        // What others show beside it takes nothing from it.
        for (line, place) in [
            (&b"Cookie: other=\xff; __Host-umbel=a"[..], Place::Cookie),
            (b"Sec-WebSocket-Protocol: \xff, umbel.token.a", Place::Head),
        ] {
            assert_eq!(shown(line), Ok(Some(("a".to_owned(), place))), "{line:?}");
        }
    }
}
