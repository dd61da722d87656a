//! The grammar of `Sec-WebSocket-Extensions`: RFC 6455, section 9.1, with the tokens of RFC 9110, section 5.6.
//!
//! ```text
//! extension-list  = 1#( extension-token *( ";" extension-param ) )
//! extension-param = token [ "=" ( token | quoted-string ) ]     what is quoted has to be a token too
//! ```
//!
//! Blanks may stand around each delimiter, and empty members of the list are passed over. Every byte is looked at
//! once and nothing is allocated, however long the header is.

use crate::http::request::is_token;

/// A header that does not follow the grammar. None of it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A piece of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element<'a> {
    /// An extension begins, of this name.
    Extension(&'a str),
    /// A parameter of the extension that began last, and its value, if it has one.
    Parameter(&'a str, Option<Value>),
}

/// How much of a value is kept: one byte more than any value that means something has.
const VALUE_BYTES_MAX: usize = 3;

/// A parameter's value, unquoted. Of a long one only the front is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    bytes: [u8; VALUE_BYTES_MAX],
    len: u8,
}

impl Value {
    /// The value; three bytes if it has three or more.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn push(&mut self, byte: u8) {
        if let Some(free) = self.bytes.get_mut(usize::from(self.len)) {
            *free = byte;
            self.len += 1;
        }
    }
}

/// The elements of one header line, in their order. Ends behind the first error.
#[derive(Debug)]
pub(super) struct Elements<'a> {
    rest: &'a [u8],
    /// An extension has been named, so parameters or a comma may follow.
    is_in_extension: bool,
}

impl<'a> Elements<'a> {
    /// Of the value of one line.
    pub(super) fn new(line: &'a [u8]) -> Elements<'a> {
        Elements {
            rest: line,
            is_in_extension: false,
        }
    }

    fn skip_blanks(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// Takes this byte, with the blanks around it, if it comes next.
    fn take(&mut self, delimiter: u8) -> bool {
        self.skip_blanks();
        let is_next = self.rest.first() == Some(&delimiter);
        if is_next {
            self.rest = &self.rest[1..];
            self.skip_blanks();
        }
        is_next
    }

    fn parse(&mut self) -> Result<Option<Element<'a>>, Malformed> {
        if self.is_in_extension {
            if self.take(b';') {
                let name = self.parse_token()?;
                let value = match self.take(b'=') {
                    true => Some(self.parse_value()?),
                    false => None,
                };
                return Ok(Some(Element::Parameter(name, value)));
            }
            if !self.take(b',') && !self.rest.is_empty() {
                return Err(Malformed);
            }
            self.is_in_extension = false;
        }
        self.skip_blanks();
        while self.take(b',') {}
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.is_in_extension = true;
        Ok(Some(Element::Extension(self.parse_token()?)))
    }

    fn parse_token(&mut self) -> Result<&'a str, Malformed> {
        let is_delimiter = |byte: &u8| matches!(byte, b' ' | b'\t' | b',' | b';' | b'=');
        let end = self.rest.iter().position(is_delimiter);
        let (token, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        let token = std::str::from_utf8(token).map_err(|_| Malformed)?;
        is_token(token).then_some(token).ok_or(Malformed)
    }

    fn parse_value(&mut self) -> Result<Value, Malformed> {
        let mut value = Value::default();
        let [b'"', quoted @ ..] = self.rest else {
            let token = self.parse_token()?;
            token.bytes().for_each(|byte| value.push(byte));
            return Ok(value);
        };
        let mut rest = quoted;
        loop {
            let byte = match rest {
                [b'"', behind @ ..] if value.len > 0 => {
                    self.rest = behind;
                    return Ok(value);
                }
                [b'\\', byte, behind @ ..] | [byte, behind @ ..] => {
                    rest = behind;
                    *byte
                }
                [] => return Err(Malformed),
            };
            if !std::str::from_utf8(&[byte]).is_ok_and(is_token) {
                return Err(Malformed);
            }
            value.push(byte);
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let parsed = self.parse();
        if parsed.is_err() {
            self.rest = &[];
            self.is_in_extension = false;
        }
        parsed.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line as text: names, `name=value` behind a semicolon, and `!` for an error.
    fn elements(line: &str) -> String {
        let mut out = String::new();
        for element in Elements::new(line.as_bytes()) {
            out += &match element {
                Ok(Element::Extension(name)) => format!(" {name}"),
                Ok(Element::Parameter(name, None)) => format!(";{name}"),
                Ok(Element::Parameter(name, Some(value))) => {
                    format!(";{name}={}", String::from_utf8_lossy(value.as_bytes()))
                }
                Err(Malformed) => "!".to_owned(),
            };
        }
        out
    }

    #[test]
    fn well_formed_lists() {
        assert_eq!(elements(""), "");
        assert_eq!(elements(" \t, ,,"), "");
        assert_eq!(elements("a"), " a");
        assert_eq!(elements(",a ,\tb,"), " a b");
        assert_eq!(elements("a;b=1;c , d ; e = \"f\" ,g"), " a;b=1;c d;e=f g");
        assert_eq!(elements(r#"a;b="\1\5""#), " a;b=15");
        assert_eq!(elements("a;b=longer"), " a;b=lon");
    }

    #[test]
    fn malformed_lists_end_at_the_error() {
        for line in [
            "a b",
            "a;",
            "a;;b",
            "a;=1",
            "a;b=",
            "a;b=,c",
            "=",
            ";a",
            "a=1",
            "a;b c",
            "a/b",
            "a;b=\"\"",
            "a;b=\"",
            "a;b=\"1",
            "a;b=\"1\\",
            "a;b=\"1,2\"",
            "a;b=\"1\"2",
            "a;b=\"1 \"",
            "a;b=\"\\\"\"",
            "é",
            "a;b=é",
            "a\0",
            "\"a\"",
            "a;\"b\"",
            "a\r\n",
        ] {
            let out = elements(line);
            assert!(
                out.ends_with('!') && out.matches('!').count() == 1,
                "{line:?}: {out:?}"
            );
        }
    }
}
