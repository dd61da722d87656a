//! Patterns: names for many topics at once.
//!
//! A topic is cut into segments before each `/` and each `.` of its path; its query belongs to the last of them. So
//! `orders/eu.1?x=a/b` is `orders`, `/eu` and `.1?x=a/b`. A pattern is cut in the same way, and stands for the topics whose
//! segments it matches one by one:
//!
//! - `*`, by itself or behind its separator, matches one segment that is not empty, behind the same separator;
//! - `**`, which only the last segment may be, matches one segment or more, whatever they are, the first of them behind
//!   the same separator; `**` without one matches every topic;
//! - any other segment matches itself.
//!
//! What may be asked for is bounded so that the cost of a topic does not depend on how many patterns there are, even if
//! they were chosen to be costly: see [`PatternTable`].

use std::fmt;
use std::sync::Arc;

use crate::topic::name::{EMPTY_PART, has_empty_part};
use crate::topic::{TOPIC_BYTES_MAX, Topic};

mod table;

pub use table::PatternTable;

/// Bytes of a pattern.
pub const PATTERN_BYTES_MAX: usize = TOPIC_BYTES_MAX;

/// Segments of a pattern that are `*`.
pub const STARS_MAX: usize = 4;

/// Segments of a pattern.
pub const SEGMENTS_MAX: usize = 16;

/// Segments of a pattern that has a `*`. With them and [`STARS_MAX`], a topic leads to few nodes of a [`PatternTable`].
pub const STAR_SEGMENTS_MAX: usize = 8;

/// A pattern, as it was written. Cloning it copies a pointer.
///
/// It is compared with the canonical form of topics, so a query in it has to be written in that form, its parameters
/// in order.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is empty or too long, holds a control character, has wildcards where there can be none, or too many.
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::Length);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::ControlCharacter);
        }
        let path = text.split_once('?').map_or(text, |(path, _)| path);
        if has_empty_part(path) {
            return Err(PatternError::EmptyPart);
        }
        let (mut segments, mut stars, mut has_ended) = (0, 0, false);
        for segment in segments_of(text) {
            if has_ended {
                return Err(PatternError::RestBeforeEnd);
            }
            match segment.text {
                "*" => stars += 1,
                "**" => has_ended = true,
                text if text.contains('*') => return Err(PatternError::StarInSegment),
                _ => {}
            }
            segments += 1;
        }
        if stars > STARS_MAX {
            return Err(PatternError::TooManyStars);
        }
        if segments > SEGMENTS_MAX {
            return Err(PatternError::TooManySegments);
        }
        if stars > 0 && segments > STAR_SEGMENTS_MAX {
            return Err(PatternError::TooManySegmentsWithStar);
        }
        Ok(Pattern(text.into()))
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether its first segment is a star, or two.
    pub(crate) fn begins_with_star(&self) -> bool {
        matches!(split_segment(&self.0).0.text, "*" | "**")
    }

    /// Whether it matches a topic. For one pattern, or few; many belong in a [`PatternTable`].
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        self.matches_name(topic.as_str())
    }

    /// As [`matches`](Pattern::matches), of a name in a topic's canonical form.
    pub(crate) fn matches_name(&self, topic: &str) -> bool {
        matches_text(&self.0, topic)
    }
}

impl Pattern {
    /// Whether every topic that `other` matches is one that this matches.
    #[must_use]
    pub fn covers(&self, other: &Pattern) -> bool {
        covers_text(&self.0, &other.0)
    }

    /// Whether there may be a topic that both match.
    #[must_use]
    pub fn meets(&self, other: &Pattern) -> bool {
        meets_text(&self.0, &other.0)
    }

    /// Canonical pattern to use instead, if its query can match no topic: its parameters are out of order, or some are
    /// not part of topics.
    #[must_use]
    pub fn canonical(&self) -> Option<String> {
        let (path, query) = self.0.split_once('?')?;
        // Stars stand before the query, and leave it as it is.
        let topic = Topic::from_text(&format!("x?{query}")).ok()?;
        let canonical = format!("{path}{}", &topic.as_str()["x".len()..]);
        (canonical != *self.0).then_some(canonical)
    }
}

/// [`Pattern::matches`], of the text of a pattern and of a topic.
pub(crate) fn matches_text(pattern: &str, topic: &str) -> bool {
    let mut of_topic = segments_of(topic);
    for (index, wanted) in segments_of(pattern).enumerate() {
        let Some(segment) = of_topic.next() else {
            return false;
        };
        let is_behind_same = segment.separator == wanted.separator;
        match wanted.text {
            "**" => return is_behind_same || (index == 0 && wanted.separator.is_none()),
            "*" if is_behind_same && !segment.text.is_empty() => {}
            text if is_behind_same && text == segment.text => {}
            _ => return false,
        }
    }
    of_topic.next().is_none()
}

/// [`Pattern::covers`], of the texts of two patterns.
pub(crate) fn covers_text(one: &str, other: &str) -> bool {
    let mut of_other = segments_of(other);
    for (index, wanted) in segments_of(one).enumerate() {
        let Some(segment) = of_other.next() else {
            return false;
        };
        let is_behind_same = segment.separator == wanted.separator;
        match wanted.text {
            "**" => return is_behind_same || (index == 0 && wanted.separator.is_none()),
            "*" if is_behind_same && !matches!(segment.text, "" | "**") => {}
            text if is_behind_same && text == segment.text => {}
            _ => return false,
        }
    }
    of_other.next().is_none()
}

/// [`Pattern::meets`], of the texts of two patterns.
pub(crate) fn meets_text(one: &str, other: &str) -> bool {
    let (mut of_one, mut of_other) = (segments_of(one), segments_of(other));
    let is_rest = |segment: Segment<'_>| segment.text == "**";
    let mut is_first = true;
    loop {
        let (one, two) = match (of_one.next(), of_other.next()) {
            (None, None) => return true,
            (Some(one), Some(two)) => (one, two),
            _ => return false,
        };
        let is_any = |it: Segment<'_>| is_first && is_rest(it) && it.separator.is_none();
        if is_any(one) || is_any(two) {
            return true;
        }
        if one.separator != two.separator {
            return false;
        }
        if is_rest(one) || is_rest(two) {
            return true;
        }
        let may_be = |star: Segment<'_>, it: Segment<'_>| star.text == "*" && !it.text.is_empty();
        if one.text != two.text && !may_be(one, two) && !may_be(two, one) {
            return false;
        }
        is_first = false;
    }
}

impl AsRef<str> for Pattern {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Pattern, PatternError> {
        Pattern::parse(text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reason that a text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatternError {
    /// It is empty, or longer than [`PATTERN_BYTES_MAX`].
    Length,
    /// It holds a control character.
    ControlCharacter,
    /// Its path begins or ends with a `/`, or holds `//`. Topics do neither.
    EmptyPart,
    /// A segment holds a `*` beside other text.
    StarInSegment,
    /// Something follows `**`.
    RestBeforeEnd,
    /// More than [`STARS_MAX`] segments are `*`.
    TooManyStars,
    /// It has more than [`SEGMENTS_MAX`] segments.
    TooManySegments,
    /// It has a `*` and more than [`STAR_SEGMENTS_MAX`] segments.
    TooManySegmentsWithStar,
}

impl PatternError {
    /// Problem and remedy, for the author of the pattern.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PatternError::Length => "a pattern has 1 to 255 bytes",
            PatternError::ControlCharacter => "a pattern holds no control characters",
            PatternError::EmptyPart => EMPTY_PART,
            PatternError::StarInSegment => {
                "a `*` stands for a whole segment between `/` and `.`, as in `orders/*`; beside other text it means nothing"
            }
            PatternError::RestBeforeEnd => {
                "`**` is the last segment of a pattern, as in `orders/**`; nothing follows it"
            }
            PatternError::TooManyStars => {
                "a pattern has at most 4 segments that are `*`; `**` at its end stands for any number"
            }
            PatternError::TooManySegments => {
                "a pattern has at most 16 segments; `**` at its end stands for any number"
            }
            PatternError::TooManySegmentsWithStar => {
                "a pattern with a `*` has at most 8 segments; `**` at its end stands for any number"
            }
        }
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for PatternError {}

/// What a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Separator {
    /// Nothing: only the first segment of a name.
    None,
    Slash,
    Dot,
}

impl Separator {
    fn is_none(self) -> bool {
        self == Separator::None
    }
}

/// One segment of a topic or pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Segment<'a> {
    separator: Separator,
    /// What follows the separator.
    text: &'a str,
}

impl Segment<'_> {
    const EMPTY: Segment<'static> = Segment {
        separator: Separator::None,
        text: "",
    };

    /// Bytes of it, its separator included.
    fn bytes(self) -> usize {
        usize::from(!self.separator.is_none()) + self.text.len()
    }
}

/// The first segment of a name that is not empty, its separator included.
pub(crate) fn first_segment(name: &str) -> &str {
    &name[..split_segment(name).0.bytes()]
}

/// Cuts the first segment off a name that is not empty; gives it and what follows it.
fn split_segment(name: &str) -> (Segment<'_>, &str) {
    let separator = match name.as_bytes()[0] {
        b'/' => Separator::Slash,
        b'.' => Separator::Dot,
        _ => Separator::None,
    };
    let behind = &name[usize::from(!separator.is_none())..];
    // From the `?` on it is the query, which no separator cuts.
    let end = behind
        .bytes()
        .position(|byte| matches!(byte, b'/' | b'.' | b'?'))
        .filter(|&at| behind.as_bytes()[at] != b'?');
    let (text, rest) = behind.split_at(end.unwrap_or(behind.len()));
    (Segment { separator, text }, rest)
}

fn segments_of(name: &str) -> impl Iterator<Item = Segment<'_>> {
    let mut rest = name;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (segment, behind) = split_segment(rest);
        rest = behind;
        Some(segment)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(text: &str) -> Topic {
        Topic::from_text(text).expect("a topic")
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect("a pattern")
    }

    #[test]
    fn segments_begin_with_their_separators() {
        let cut = |name| {
            segments_of(name)
                .map(|segment| (segment.separator, segment.text))
                .collect::<Vec<_>>()
        };
        let (none, slash, dot) = (Separator::None, Separator::Slash, Separator::Dot);
        assert_eq!(
            cut("orders/eu.1?x=a/b"),
            [(none, "orders"), (slash, "eu"), (dot, "1?x=a/b")]
        );
        assert_eq!(
            cut("/.a//"),
            [(slash, ""), (dot, "a"), (slash, ""), (slash, "")]
        );
        assert_eq!(cut("\u{e9}.?/"), [(none, "\u{e9}"), (dot, "?/")]);
        assert_eq!(cut("?a/b"), [(none, "?a/b")]);
    }

    #[test]
    fn what_matches_and_what_does_not() {
        for (wanted, matching, others) in [
            (
                "a/b",
                &["a/b"][..],
                &["a", "a.b", "a/b/c", "a/b?x=1", "a/b."][..],
            ),
            (
                "a/*",
                &["a/b", "a/b?x=1"],
                &["a", "a.", "a.b", "a/b/c", "b/b", "a/b.c"],
            ),
            ("*", &["a", "a?x=b/c"], &[".a", "a/b", "."]),
            ("*/*", &["a/b"], &["a", "a/.", ".a/b", "a.b"]),
            (".*", &[".a"], &["a", ".", "..a"]),
            ("*.x", &["a.x"], &["a.y", "a/x", ".x"]),
            ("a/*.x", &["a/b.x"], &["a/.x", "a/b.x.x", "a/b"]),
            (
                "a/**",
                &["a/b", "a/.", "a/b/c.d", "a/b?x=1", "a/.."],
                &["a", "a.b", "ab", "b/a"],
            ),
            ("a.**", &["a.b/c"], &["a/b.c", "a"]),
            (
                "a/*/**",
                &["a/b/c", "a/b/.", "a/b/c.d"],
                &["a/b", "a/./c", "a/b.c"],
            ),
            ("**", &["a", ".a", ".", "a.b/c?x=1"], &[]),
            (".**", &[".", ".a.b", ".."], &["a", "a.b"]),
            ("t?a=1", &["t?a=1"], &["t", "t?a=1&b=2"]),
        ] {
            for name in matching {
                assert!(pattern(wanted).matches(&topic(name)), "{wanted} {name}");
            }
            for name in others {
                assert!(!pattern(wanted).matches(&topic(name)), "{wanted} {name}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for (text, error) in [
            ("", PatternError::Length),
            (&*"a".repeat(256), PatternError::Length),
            ("a\nb", PatternError::ControlCharacter),
            ("/", PatternError::EmptyPart),
            ("/*", PatternError::EmptyPart),
            ("a/", PatternError::EmptyPart),
            ("a//*", PatternError::EmptyPart),
            ("a/*/?b=/", PatternError::EmptyPart),
            ("a*b", PatternError::StarInSegment),
            ("a/b*", PatternError::StarInSegment),
            ("***", PatternError::StarInSegment),
            ("a/***", PatternError::StarInSegment),
            ("*?x=1", PatternError::StarInSegment),
            ("t?x=*", PatternError::StarInSegment),
            ("**/a", PatternError::RestBeforeEnd),
            ("a/**.", PatternError::RestBeforeEnd),
            ("**/**", PatternError::RestBeforeEnd),
            ("*/*/*/*/*", PatternError::TooManyStars),
            (
                &*format!("*{}", "/a".repeat(8)),
                PatternError::TooManySegmentsWithStar,
            ),
            (
                &*format!("*{}", "/a".repeat(16)),
                PatternError::TooManySegments,
            ),
            (
                &*format!("a{}", "/a".repeat(16)),
                PatternError::TooManySegments,
            ),
        ] {
            assert_eq!(Pattern::parse(text), Err(error), "{text}");
        }
        for text in [
            "a".repeat(255),
            "*/*/*/*/**".to_owned(),
            format!("*{}", "/a".repeat(7)),
            format!("a{}/**", "/a".repeat(14)),
            "t?a=//".to_owned(),
        ] {
            assert_eq!(pattern(&text).as_str(), text);
        }
    }

    #[test]
    fn what_covers_what() {
        for (wide, covered, others) in [
            ("**", &["a", "**", ".a/*", "*.b", "a?x=1"][..], &[][..]),
            (
                "a/**",
                &["a/**", "a/*", "a/.", "a/b.c/**"],
                &["a", "**", "a.b", "*/b"],
            ),
            (
                "a/*",
                &["a/*", "a/b", "a/b?x=1"],
                &["a/.", "a/**", "a/b/c", "a.*"],
            ),
            ("a/*/c", &["a/b/c", "a/*/c"], &["a/**", "a/*/*", "a/./c"]),
            (".**", &[".a", ".**"], &["**", "a/b", "a"]),
            ("a", &["a"], &["*", "a/b", "b", "**"]),
        ] {
            for text in covered {
                assert!(pattern(wide).covers(&pattern(text)), "{wide} {text}");
            }
            for text in others {
                assert!(!pattern(wide).covers(&pattern(text)), "{wide} {text}");
            }
        }
    }

    #[test]
    fn what_meets_what() {
        for (one, met, others) in [
            ("**", &["a", "a/b", ".a/*", "**"][..], &[][..]),
            (
                "a/**",
                &["a/*", "*/b", "**", "a/b/c", "*/**"],
                &["a", "b/*", "a.b", "*.b"],
            ),
            (
                "a/*",
                &["*/b", "a/b", "*/*", "a/**"],
                &["a/b/c", "a.b", "b/*", "a/."],
            ),
            ("*", &["a", "*", "**"], &["a/b", "*/a", ".a"]),
        ] {
            for text in met {
                assert!(pattern(one).meets(&pattern(text)), "{one} {text}");
                assert!(pattern(text).meets(&pattern(one)), "{text} {one}");
            }
            for text in others {
                assert!(!pattern(one).meets(&pattern(text)), "{one} {text}");
                assert!(!pattern(text).meets(&pattern(one)), "{text} {one}");
            }
        }
    }

    #[test]
    fn queries_out_of_order_have_another_form() {
        for (text, canonical) in [
            ("t?b=2&a=1", Some("t?a=1&b=2")),
            ("a/*/t?b=&token=x", Some("a/*/t?b")),
            ("t?token=x", Some("t")),
            ("t?a=1&b=2", None),
            ("a/**", None),
        ] {
            assert_eq!(pattern(text).canonical().as_deref(), canonical, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whoever_is_covered_matches_nothing_else(wide in "[ab*/.]{1,7}", narrow in "[ab*/.]{1,7}", name in "[ab/.]{1,6}") {
            if let (Ok(wide), Ok(narrow)) = (Pattern::parse(&wide), Pattern::parse(&narrow))
                && let Ok(name) = Topic::from_text(&name)
                && wide.covers(&narrow)
                && narrow.matches(&name)
            {
                prop_assert!(wide.matches(&name));
            }
        }

        #[test]
        fn whoever_match_the_same_meet(one in "[ab*/.]{1,7}", other in "[ab*/.]{1,7}", name in "[ab/.]{1,6}") {
            if let (Ok(one), Ok(other)) = (Pattern::parse(&one), Pattern::parse(&other))
                && let Ok(name) = Topic::from_text(&name)
                && one.matches(&name)
                && other.matches(&name)
            {
                prop_assert!(one.meets(&other));
            }
        }

        #[test]
        fn no_text_panics(text in ".*|[a*/.?]{0,12}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                prop_assert_eq!(pattern.as_str(), &text);
            }
        }

        #[test]
        fn a_topic_without_stars_is_a_pattern_of_itself_alone(one in "[ab.](/?[ab.]){0,3}(\\?[a/.]{1,3})?", other in "[ab.](/?[ab.]){0,3}") {
            let (one, other) = (topic(&one), topic(&other));
            let exact = pattern(one.as_str());
            prop_assert!(exact.matches(&one));
            prop_assert_eq!(exact.matches(&other), one == other);
        }
    }
}
