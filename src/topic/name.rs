//! Topics: the names that publishers and subscribers meet at, in one canonical form.
//!
//! A topic is a path, and after a `?` the pairs of a query if there are any. `/ws/tokens?b=2&a=1` and
//! `/pub/tokens?a=1&b=2&token=x` are both `tokens?a=1&b=2`.
//!
//! - The path is percent-decoded once and then is plain text. It neither begins nor ends with a `/` and holds no `//`, so
//!   that a slash too many is told and does not lead to another topic; `.` and `..` mean nothing but themselves. It holds
//!   no `?`, so that the first `?` of a topic begins its query.
//! - The query is split into pairs, decoded, rid of the parameters that are about the request, sorted by name and
//!   value, and written again. Only `%`, `&`, `+`, and `=` in a name are escaped there, so that two different
//!   lists of pairs never become one topic, and usual ones read as they were typed.
//! - All of it is 1 to 255 bytes of UTF-8 without control characters.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::http::query::{Pair, Query, encode_component, is_reserved, percent_decode};
use crate::http::refusal::Refusal;

/// Bytes of a topic in its canonical form.
pub const TOPIC_BYTES_MAX: usize = 255;

/// A topic in its canonical form. Cloning it copies a pointer.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// The topic of a target: `path_rest` is its path behind the prefix (`tokens` of `/ws/tokens`), `query` what
    /// follows the `?`; both still encoded.
    ///
    /// # Errors
    ///
    /// 400 for a malformed percent escape, for what is not UTF-8, for control characters, for an empty path, for a `/` at
    /// its start or end, a `//` or a `?` in it; 414 for more than [`TOPIC_BYTES_MAX`] bytes.
    pub fn parse(path_rest: &str, query: Option<&str>) -> Result<Topic, Refusal> {
        Topic::from_parts(&percent_decode(path_rest)?, query)
    }

    /// The topic of a plain text, such as a JSON string: up to the first `?` nothing is decoded, and what follows is
    /// read as the query of a target is. The canonical form names itself.
    ///
    /// # Errors
    ///
    /// As [`Topic::parse`].
    pub fn from_text(text: &str) -> Result<Topic, Refusal> {
        match text.split_once('?') {
            Some((path, query)) => Topic::from_parts(path, Some(query)),
            None => Topic::from_parts(text, None),
        }
    }

    fn from_parts(path: &str, query: Option<&str>) -> Result<Topic, Refusal> {
        if path.is_empty() {
            return Err(Refusal::bad_topic("the topic is empty"));
        }
        if path.contains('?') {
            return Err(Refusal::bad_topic(
                "the path of a topic holds an escaped `?`",
            ));
        }
        if path.len() > TOPIC_BYTES_MAX {
            return Err(too_long());
        }
        if has_empty_part(path) {
            return Err(Refusal::bad_topic(EMPTY_PART));
        }
        let pairs = match query {
            Some(query) => sorted_pairs(Query(query), TOPIC_BYTES_MAX - path.len())?,
            None => Vec::new(),
        };
        let mut text = String::with_capacity(TOPIC_BYTES_MAX);
        text.push_str(path);
        for (index, (name, value)) in pairs.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            encode_component(&mut text, name, true);
            // A pair with neither name nor value would vanish without its `=`.
            if !value.is_empty() || name.is_empty() {
                text.push('=');
                encode_component(&mut text, value, false);
            }
        }
        if text.len() > TOPIC_BYTES_MAX {
            return Err(too_long());
        }
        if text.chars().any(char::is_control) {
            return Err(Refusal::bad_topic("the topic holds a control character"));
        }
        Ok(Topic(text.into()))
    }

    /// The canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has parameters, besides a path.
    #[must_use]
    pub fn has_query(&self) -> bool {
        self.0.contains('?')
    }

    /// Writes the topic as the end of a request target: what a request line cannot hold is escaped. [`Topic::parse`]
    /// gives the same topic back.
    pub fn encode_target(&self, out: &mut String) {
        let (path, query) = self
            .0
            .split_once('?')
            .map_or((&*self.0, None), |(path, query)| (path, Some(query)));
        for byte in path.bytes() {
            encode_byte(out, byte, byte == b'%');
        }
        if let Some(query) = query {
            out.push('?');
            for byte in query.bytes() {
                encode_byte(out, byte, false);
            }
        }
    }
}

/// What is said of a path with an empty part.
pub(super) const EMPTY_PART: &str = "a `/` stands between two parts of a topic: neither at its start or end, nor behind another one";

/// Whether nothing stands before, behind or between slashes of a path. The same holds for topics and patterns.
pub(super) fn has_empty_part(path: &str) -> bool {
    path.starts_with('/') || path.ends_with('/') || path.contains("//")
}

/// Pairs that are no parameters of the request, in the order of their bytes. Gives up once they cannot fit
/// `bytes_max`, so that a long target does not make for a long list.
fn sorted_pairs(query: Query<'_>, bytes_max: usize) -> Result<Vec<Pair<'_>>, Refusal> {
    let (mut pairs, mut bytes) = (Vec::new(), 0);
    for pair in query.pairs() {
        let (name, value) = pair?;
        if is_reserved(&name) {
            continue;
        }
        // Each pair brings its `?` or `&` with it.
        bytes += 1 + name.len() + value.len();
        if bytes > bytes_max {
            return Err(too_long());
        }
        pairs.push((name, value));
    }
    pairs.sort_unstable();
    Ok(pairs)
}

/// Escapes what RFC 3986 does not let into a path or a query.
fn encode_byte(out: &mut String, byte: u8, is_escaped: bool) {
    const HEX_DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if is_escaped || !byte.is_ascii_graphic() || b"\"#<>[\\]^`{|}".contains(&byte) {
        let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
        out.extend([
            '%',
            char::from(HEX_DIGITS[high]),
            char::from(HEX_DIGITS[low]),
        ]);
    } else {
        out.push(char::from(byte));
    }
}

fn too_long() -> Refusal {
    Refusal::target_too_long("the topic is longer than 255 bytes")
}

/// Text that is no topic. It says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicError(Box<str>);

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TopicError {}

impl FromStr for Topic {
    type Err = TopicError;

    /// As [`Topic::from_text`].
    fn from_str(text: &str) -> Result<Topic, TopicError> {
        Topic::from_text(text).map_err(|refusal| TopicError(refusal.reason.into()))
    }
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(target: &str) -> Result<String, u16> {
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(path, query)| (path, Some(query)));
        Topic::parse(path, query)
            .map(|topic| topic.0.to_string())
            .map_err(|refusal| refusal.status)
    }

    fn text(text: &str) -> Result<String, u16> {
        Topic::from_text(text)
            .map(|topic| topic.0.to_string())
            .map_err(|refusal| refusal.status)
    }

    #[test]
    fn canonical_forms() {
        for (target, topic) in [
            ("a", "a"),
            ("tokens?chain_id=100000", "tokens?chain_id=100000"),
            ("t?b=2&a=1&a=0", "t?a=0&a=1&b=2"),
            ("t?", "t"),
            ("t?&&", "t"),
            ("t?since=5&last=1&token=x&access_token=y", "t"),
            ("t?tok%65n=x&Token=y", "t?Token=y"),
            ("t?flag", "t?flag"),
            ("t?flag=", "t?flag"),
            ("t?=", "t?="),
            ("t?=v", "t?=v"),
            ("t?a=b=c&d%3De=f", "t?a=b=c&d%3De=f"),
            ("t?q=a+b%20c%2Bd%26%25", "t?q=a b c%2Bd%26%25"),
            ("a%20b/%2541", "a b/%41"),
            ("gr%C3%BC%C3%9Fe?\u{fc}", "gr\u{fc}\u{df}e?\u{fc}"),
            ("a/b/../.", "a/b/../."),
            ("a..b/.c", "a..b/.c"),
            ("t?a=//&b=/", "t?a=//&b=/"),
            (
                "t?lastEventId=1&last_event_id=2&Last-Event-ID=3&info=4&umbel_=5&umbel_x=6",
                "t",
            ),
            ("t?lasteventid=1&Umbel_x=2", "t?Umbel_x=2&lasteventid=1"),
        ] {
            assert_eq!(parse(target), Ok(topic.to_owned()), "{target}");
            assert_eq!(text(topic), Ok(topic.to_owned()), "{topic}");
        }
        assert_eq!(text("100%"), Ok("100%".to_owned()));
        assert_eq!(text("t?b=2&a=1&token=x"), Ok("t?a=1&b=2".to_owned()));
    }

    #[test]
    fn what_is_no_topic() {
        for target in [
            "",
            "?a=1",
            "%",
            "a%2",
            "a?b=%zz",
            "%FF",
            "a?%C3",
            "a%3Fb",
            "%1b[2J",
            "a%0ab",
            "%7f",
            "%C2%85",
            "a?b=%00",
            "a?%0d%0a=c",
            "/",
            "/a",
            "a/",
            "a//b",
            "a%2F",
            "a/%2fb",
            "a/?b=1",
        ] {
            assert_eq!(parse(target), Err(400), "{target}");
        }
        for plain in [
            "/", "a/", "/a", "a//b", "a/?b", "", "?", "a\nb", "a\u{85}", "a\0", "a?b=%",
        ] {
            assert_eq!(text(plain), Err(400), "{plain:?}");
        }
    }

    #[test]
    fn length_is_that_of_the_canonical_form() {
        assert_eq!(parse(&"%61".repeat(255)).map(|topic| topic.len()), Ok(255));
        assert_eq!(parse(&"a".repeat(256)), Err(414));
        assert_eq!(
            parse(&format!("t?{}", "b".repeat(253))).map(|topic| topic.len()),
            Ok(255)
        );
        assert_eq!(parse(&format!("t?{}", "b".repeat(254))), Err(414));
        // Escapes of the canonical form count, those of the target do not.
        assert_eq!(
            parse(&format!("t?{}", "%26".repeat(84))).map(|topic| topic.len()),
            Ok(254)
        );
        assert_eq!(parse(&format!("t?{}", "%26".repeat(85))), Err(414));
        assert_eq!(parse(&format!("t?{}", "a&".repeat(100_000))), Err(414));
        assert_eq!(
            parse(&format!("t?{}", "&".repeat(100_000))),
            Ok("t".to_owned())
        );
        assert_eq!(
            parse(&format!("t?token={}", "x".repeat(4000))),
            Ok("t".to_owned())
        );
    }

    fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
        let component = "[a%&=+? \u{e9}]{0,3}";
        prop::collection::vec((component, component), 0..6)
    }

    /// A query as a thorough sender writes it.
    fn query(pairs: &[(String, String)]) -> String {
        let encode = |text: &str| {
            text.bytes()
                .map(|byte| format!("%{byte:02X}"))
                .collect::<String>()
        };
        pairs
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect::<Vec<_>>()
            .join("&")
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_lists_do_not_collide(one in pairs(), other in pairs(), seed in any::<usize>()) {
            let topic = Topic::parse("t", Some(&query(&one)));
            let mut shuffled = one.clone();
            let count = shuffled.len().max(1);
            shuffled.rotate_left(seed % count);
            shuffled.reverse();
            prop_assert_eq!(&topic, &Topic::parse("t", Some(&query(&shuffled))));

            let sorted = |pairs: &[(String, String)]| { let mut pairs = pairs.to_vec(); pairs.sort(); pairs };
            let is_same = sorted(&one) == sorted(&other);
            prop_assert_eq!(is_same, topic == Topic::parse("t", Some(&query(&other))));
        }

        #[test]
        fn the_canonical_form_is_a_fixed_point(path in "[^?]{1,40}|[a%?/+ ]{1,9}", query in ".{0,40}|[a%2BF&=+ ]{0,20}") {
            if let Ok(topic) = Topic::parse(&path, Some(&query)) {
                prop_assert_eq!(Topic::from_text(topic.as_str()), Ok(topic.clone()));
                let mut target = String::new();
                topic.encode_target(&mut target);
                prop_assert!(target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
                let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
                prop_assert_eq!(Topic::parse(path, query), Ok(topic.clone()));
                prop_assert!((1..=TOPIC_BYTES_MAX).contains(&topic.as_str().len()));
            }
        }

        #[test]
        fn no_text_panics(path in ".*", query in ".*") {
            let _ = Topic::parse(&path, Some(&query));
            let _ = Topic::from_text(&path);
        }
    }
}
