//! The query of a target: percent-decoding and `name=value` pairs (RFC 3986 section 2.1, WHATWG URL section 5.1).

use std::borrow::Cow;

use super::refusal::Refusal;

/// A decoded name and its decoded value.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Parameters that stand in for `Last-Event-ID`, for clients that set no headers.
pub const POSITION_PARAMETERS: [&str; 3] = ["lastEventId", "last_event_id", "Last-Event-ID"];

/// Other parameters about the request itself.
const RESERVED: [&str; 5] = ["since", "last", "token", "access_token", "info"];

/// What the names of further ones begin with.
const RESERVED_PREFIX: &str = "umbel_";

/// Whether a parameter is about the request itself. Such are not part of a topic.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
        || POSITION_PARAMETERS.contains(&name)
        || name.starts_with(RESERVED_PREFIX)
}

/// Decodes percent escapes, once. Nothing is allocated if there are none.
///
/// # Errors
///
/// 400 for a `%` that two hexadecimal digits do not follow, and for what then is not UTF-8.
pub fn percent_decode(text: &str) -> Result<Cow<'_, str>, Refusal> {
    decode(text, false)
}

/// As [`percent_decode`]; in the query of a form `+` is a space too.
fn decode(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, Refusal> {
    if !text
        .bytes()
        .any(|byte| byte == b'%' || (plus_is_space && byte == b'+'))
    {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let (high, low) = (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit));
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(Refusal::bad_topic(
                        "a `%` in the target is not followed by two hexadecimal digits; `%` itself is written as %25",
                    ));
                };
                high << 4 | low
            }
            b'+' if plus_is_space => b' ',
            _ => byte,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| {
        Refusal::bad_topic("the target is not UTF-8 once its percent escapes are decoded")
    })
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// Writes text so that [`Query`] reads it back, and plain text as it is. A name also escapes `=`.
pub(crate) fn encode_component(out: &mut String, text: &str, is_name: bool) {
    for character in text.chars() {
        match character {
            '%' => out.push_str("%25"),
            '&' => out.push_str("%26"),
            '+' => out.push_str("%2B"),
            '=' if is_name => out.push_str("%3D"),
            _ => out.push(character),
        }
    }
}

/// A query, without its `?`, still encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query<'a>(pub &'a str);

impl<'a> Query<'a> {
    /// The pairs in their order, decoded; `a` is `a=`, and nothing between two `&` is no pair. `+` is a space, as it
    /// is in what `URLSearchParams` and its like write.
    ///
    /// # Errors
    ///
    /// 400 for a pair that cannot be decoded.
    pub fn pairs(self) -> impl Iterator<Item = Result<Pair<'a>, Refusal>> {
        self.0
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(name, true)?, decode(value, true)?))
            })
    }

    /// The value of a parameter, such as `since`.
    ///
    /// # Errors
    ///
    /// 400 if it is there twice, since two readers could then disagree about which one counts, and for a query that
    /// cannot be decoded.
    pub fn get(self, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
        let mut found = None;
        for pair in self.pairs() {
            let (key, value) = pair?;
            if key == name && found.replace(value).is_some() {
                return Err(Refusal::bad_request(
                    "a parameter is in the query more than once",
                ));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_escapes_are_decoded_once() {
        for (text, decoded) in [
            ("a+b", "a+b"),
            ("%41%2f%2F", "A//"),
            ("%2541", "%41"),
            ("%C3%A9", "\u{e9}"),
            ("", ""),
        ] {
            assert_eq!(percent_decode(text), Ok(Cow::from(decoded)), "{text}");
        }
        assert!(matches!(
            percent_decode("plain"),
            Ok(Cow::Borrowed("plain"))
        ));
        for text in [
            "%",
            "%4",
            "%g1",
            "%1g",
            "%%41",
            "%+1",
            "%\u{e9}",
            "%C3",
            "%c0%af",
            "%ED%A0%80",
        ] {
            assert_eq!(
                percent_decode(text).map_err(|refusal| refusal.status),
                Err(400),
                "{text}"
            );
        }
    }

    #[test]
    fn pairs_are_split_and_decoded() {
        let pairs: Result<Vec<_>, _> = Query("a=1&&b&=c&d=e=f&%26=+%2B&=").pairs().collect();
        let expected = [
            ("a", "1"),
            ("b", ""),
            ("", "c"),
            ("d", "e=f"),
            ("&", " +"),
            ("", ""),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|&(name, value)| (Cow::from(name), Cow::from(value)))
            .collect();
        assert_eq!(pairs, Ok(expected));
        assert_eq!(Query("").pairs().count(), 0);
    }

    #[test]
    fn lookups() {
        let query = Query("token=a%20b&x=%21&since=5");
        assert_eq!(query.get("token"), Ok(Some(Cow::from("a b"))));
        assert_eq!(query.get("since"), Ok(Some(Cow::from("5"))));
        assert_eq!(query.get("last"), Ok(None));
        assert_eq!(
            Query("since=1&sinc%65=2")
                .get("since")
                .map_err(|refusal| refusal.status),
            Err(400)
        );
        assert_eq!(
            Query("since=%")
                .get("since")
                .map_err(|refusal| refusal.status),
            Err(400)
        );
    }
}
