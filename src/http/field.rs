//! Field lines of a well-formed head, and their comma lists (RFC 9110 section 5).

/// Whether a text is a token (RFC 9110 section 5.6.2), as methods, names and subprotocols are.
#[must_use]
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// Whether a byte may stand in a token: a method, a field name, an option (RFC 9110 section 5.6.2).
pub(super) const fn is_token_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    ) || byte.is_ascii_alphanumeric()
}

/// Whether a byte may stand in a field's value or a chunk extension: visible, blank, or opaque (over 0x7f).
pub(super) const fn is_value_byte(byte: u8) -> bool {
    (byte >= 0x20 && byte != 0x7f) || byte == b'\t'
}

/// Number of bytes at the front for which this holds. Sixteen are looked at together, for values are long, and looked
/// through once for each header that is asked for.
#[inline]
pub(super) fn leading(bytes: &[u8], holds: impl Fn(u8) -> bool) -> usize {
    let (pieces, _) = bytes.as_chunks::<16>();
    let all_hold = |piece: &&[u8; 16]| piece.iter().fold(true, |all, &byte| all & holds(byte));
    let whole = 16 * pieces.iter().take_while(all_hold).count();
    let rest = bytes[whole..].iter();
    whole + rest.take_while(|&&byte| holds(byte)).count()
}

/// The bytes without blanks at either end. One pass from each end, whatever lies between.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The members of one comma list, trimmed; empty ones are passed over, as RFC 9110 section 5.6.1 asks.
pub(super) fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(trim)
        .filter(|member| !member.is_empty())
}

/// The field lines of a head, in their order: name as it was sent, value trimmed.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldLines<'a> {
    /// What is left: lines that each end in CRLF, without the empty line that ends the head.
    rest: &'a [u8],
}

impl<'a> FieldLines<'a> {
    /// Over lines that have been checked before. A line that is not well-formed ends the iteration.
    pub(super) const fn new(lines: &'a [u8]) -> FieldLines<'a> {
        FieldLines { rest: lines }
    }

    /// The lines that are left, as they were sent.
    pub(super) const fn as_bytes(&self) -> &'a [u8] {
        self.rest
    }

    /// Name and value of the next line, as bytes.
    fn take_line(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let colon = self.rest.iter().position(|&byte| byte == b':')?;
        let (name, value) = (&self.rest[..colon], &self.rest[colon + 1..]);
        let end = leading(value, |byte| byte != b'\r');
        self.rest = value.get(end + 2..)?;
        Some((name, trim(&value[..end])))
    }
}

impl<'a> Iterator for FieldLines<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<(&'a str, &'a [u8])> {
        let (name, value) = self.take_line()?;
        Some((std::str::from_utf8(name).ok()?, value))
    }
}

/// The values of all lines with a name, in any case.
pub(super) fn values<'a, 'n>(
    mut lines: FieldLines<'a>,
    name: &'n str,
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    std::iter::from_fn(move || lines.take_line())
        .filter(move |(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_bytes_of_any_length() {
        for len in 0..50 {
            let mut bytes = vec![b'a'; len];
            assert_eq!(leading(&bytes, is_value_byte), len);
            for at in 0..len {
                for ended in [b'\r', 0x7f, 0] {
                    bytes[at] = ended;
                    assert_eq!(leading(&bytes, is_value_byte), at, "{len}");
                }
                bytes[at] = b'a';
            }
        }
    }

    #[test]
    fn lines_are_split_and_trimmed() {
        let lines = FieldLines::new(b"Host: a\r\nx:\r\nY: \t b:c \t\r\n");
        let all: Vec<_> = lines.collect();
        assert_eq!(all, [("Host", &b"a"[..]), ("x", b""), ("Y", b"b:c")]);
    }

    #[test]
    fn a_torn_line_ends_the_iteration() {
        for torn in [
            &b"Host"[..],
            b"Host:",
            b"Host: a",
            b"Host: a\r",
            b"\xff: a\r\n",
        ] {
            assert_eq!(FieldLines::new(torn).count(), 0, "{torn:?}");
        }
    }

    #[test]
    fn lists_lose_blanks_and_empty_members() {
        let members: Vec<&[u8]> = list_members(b" a ,,\tb b, ,c").collect();
        assert_eq!(members, [&b"a"[..], b"b b", b"c"]);
        assert_eq!(list_members(b"").count(), 0);
    }

    #[test]
    fn token_bytes_are_those_of_the_rfc() {
        let delimiters = b"\"(),/:;<=>?@[\\]{} \t\x00\x7f\x80\xff";
        assert!(!delimiters.iter().any(|&byte| is_token_byte(byte)));
        assert_eq!((0..=255u8).filter(|&byte| is_token_byte(byte)).count(), 77);
    }
}
