//! JSON objects that go to peers, field by field.

use std::fmt::Display;
use std::io::Write;

use base64::display::Base64Display;
use base64::prelude::BASE64_STANDARD;

use crate::hub::{Kind, Position, Report};

/// Appends one object to a buffer. Names are plain words, values are escaped.
pub(crate) struct Object<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Object<'o> {
    /// Opens it.
    pub fn new(out: &'o mut Vec<u8>) -> Object<'o> {
        out.push(b'{');
        Object { out }
    }

    /// Opens one that says what it is.
    pub fn of_type(out: &'o mut Vec<u8>, name: &str) -> Object<'o> {
        Object::new(out).word("type", name)
    }

    fn name(&mut self, name: &str) {
        // No value ends with an opening brace.
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A string.
    pub fn text(mut self, name: &str, value: &str) -> Object<'o> {
        self.name(name);
        encode_string(self.out, value);
        self
    }

    /// A string, if there is one.
    pub fn text_if(self, name: &str, value: Option<&str>) -> Object<'o> {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// A text that holds nothing to escape.
    pub fn word(mut self, name: &str, value: &str) -> Object<'o> {
        self.name(name);
        self.out.push(b'"');
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
        self
    }

    /// A number.
    pub fn number(mut self, name: &str, value: impl Into<u64>) -> Object<'o> {
        self.name(name);
        encode_number(self.out, value.into());
        self
    }

    /// A position, as a string.
    pub fn position(mut self, name: &str, position: Position) -> Object<'o> {
        self.name(name);
        self.out.push(b'"');
        let digits = (0..16)
            .rev()
            .map(|digit| position.epoch >> (4 * digit) & 15);
        self.out
            .extend(digits.map(|digit| b"0123456789abcdef"[digit as usize]));
        self.out.push(b':');
        encode_number(self.out, position.offset);
        self.out.push(b'"');
        self
    }

    /// A string that holds nothing to escape.
    pub fn plain(mut self, name: &str, value: impl Display) -> Object<'o> {
        self.name(name);
        self.write(format_args!("\"{value}\""));
        self
    }

    /// Adds a field whose text is JSON already, such as a number.
    pub fn value(mut self, name: &str, value: impl Display) -> Object<'o> {
        self.name(name);
        self.write(format_args!("{value}"));
        self
    }

    /// A number, or null.
    pub fn number_or_null(self, name: &str, value: Option<impl Display>) -> Object<'o> {
        match value {
            Some(value) => self.value(name, value),
            None => self.value(name, "null"),
        }
    }

    /// A value that `encode` appends.
    pub fn with(mut self, name: &str, encode: impl FnOnce(&mut Vec<u8>)) -> Object<'o> {
        self.name(name);
        encode(self.out);
        self
    }

    /// A message: `"data"` if it is text, else `"base64"`.
    pub fn payload(self, kind: Kind, payload: &[u8]) -> Object<'o> {
        match (kind, std::str::from_utf8(payload)) {
            (Kind::Text, Ok(text)) => self.text("data", text),
            _ => self.plain("base64", Base64Display::new(payload, &BASE64_STANDARD)),
        }
    }

    /// Closes it.
    pub fn end(self) {
        self.out.push(b'}');
    }

    fn write(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.out
            .write_fmt(arguments)
            .expect("a vector takes all that is written to it");
    }
}

/// Appends a number. Formatting it takes several times the instructions.
fn encode_number(out: &mut Vec<u8>, number: u64) {
    serde_json::to_writer(out, &number).expect("a vector takes all that is written to it");
}

/// Appends a JSON string.
pub(crate) fn encode_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a vector takes all that is written to it");
}

/// A receipt, as it stands in answers here and over HTTP.
pub(crate) fn encode_report(out: &mut Vec<u8>, report: &Report) {
    Object::new(out)
        .value("matched", report.matched)
        .value("written", report.written)
        .value("queued", report.queued)
        .value("dropped", report.dropped)
        .number_or_null("first_write_us", report.first_write_us)
        .number_or_null("last_write_us", report.last_write_us)
        .end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_and_number_as_formatted() {
        for (epoch, offset) in [(0, 0), (0xa1, 20), (u64::MAX, u64::MAX), (1 << 60, 1)] {
            let position = Position { epoch, offset };
            let (mut quick, mut formatted) = (Vec::new(), Vec::new());
            let object = Object::new(&mut quick).position("at", position);
            object.number("n", offset).end();
            let object = Object::new(&mut formatted).plain("at", position);
            object.value("n", offset).end();
            assert_eq!(quick, formatted);
        }
    }
}
