//! A peer's text, escaped for logs and terminals.

use std::fmt::{self, Write};

/// Bytes of the peer's that are shown; what is longer ends in `...`.
pub const ESCAPED_BYTES_MAX: usize = 256;

/// Shows text with control characters escaped, as in `\x1b`. At most [`ESCAPED_BYTES_MAX`] bytes are shown.
///
/// A backslash is doubled, so that what is shown can be told from what was sent. Bytes that are not UTF-8 are escaped
/// one by one.
pub fn escape<T: AsRef<[u8]> + ?Sized>(text: &T) -> Escaped<'_> {
    Escaped(text.as_ref())
}

/// Text that is escaped as it is displayed.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(ESCAPED_BYTES_MAX)];
        for chunk in shown.utf8_chunks() {
            for character in chunk.valid().chars() {
                write_character(f, character)?;
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        if shown.len() < self.0.len() {
            f.write_str("...")?;
        }
        Ok(())
    }
}

fn write_character(f: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
    match character {
        '\\' => f.write_str("\\\\"),
        '\0'..='\x1f' | '\x7f' => write!(f, "\\x{:02x}", u32::from(character)),
        // Line separators, and the marks that reorder what a terminal shows.
        '\u{2028}'
        | '\u{2029}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' => {
            write!(f, "\\u{{{:x}}}", u32::from(character))
        }
        _ if character.is_control() => write!(f, "\\u{{{:x}}}", u32::from(character)),
        _ => f.write_char(character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// uvicorn CVE-2020-7694: a path that writes to the operator's terminal.
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            escape("/a\x1b[2J\n\r\0\x7f\t").to_string(),
            r"/a\x1b[2J\x0a\x0d\x00\x7f\x09"
        );
        assert_eq!(
            escape("\u{9b}2J\u{202e}\u{2028}").to_string(),
            r"\u{9b}2J\u{202e}\u{2028}"
        );
        assert_eq!(escape(b"\xff\xc3\xa9\xc3").to_string(), "\\xff\u{e9}\\xc3");
        assert_eq!(escape(r"\x1b").to_string(), r"\\x1b");
        assert_eq!(escape("plain \u{e9}").to_string(), "plain \u{e9}");
    }

    #[test]
    fn length_is_capped() {
        let long = "x".repeat(ESCAPED_BYTES_MAX + 1);
        assert_eq!(escape(&long).to_string(), format!("{}...", &long[1..]));
        assert_eq!(escape(&long[1..]).to_string(), &long[1..]);
    }
}
