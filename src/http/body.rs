//! The body of a request, by length or in chunks (RFC 9112 sections 6 and 7).
//!
//! Pieces of the body are borrowed from the input: the decoder itself holds a few words and never a byte of body.

use super::field::{is_token_byte, is_value_byte};
use super::refusal::Refusal;

/// Digits of a chunk's size: sixteen make 64 bits, and no sender needs leading zeros.
const CHUNK_SIZE_DIGITS_MAX: u8 = 16;
/// Bytes of chunk extensions in one body. Nobody uses any; an endless one would be input that costs and never counts.
pub const CHUNK_EXTENSION_BYTES_MAX: u16 = 4096;
/// Bytes of trailer lines in one body. They are read past, not kept.
pub const TRAILER_BYTES_MAX: u16 = 4096;

/// Framing of a body: none, by length, or in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// So many bytes follow, as `Content-Length` says; it may say 0.
    Length(u64),
    /// Chunks follow, and the last one says so.
    Chunked,
}

/// Takes a body off the input, piece by piece.
#[derive(Clone, Copy, Debug)]
pub struct BodyDecoder {
    /// Bytes of body or chunk that are still to come; while a chunk's size is read, the size so far.
    remaining: u64,
    /// Bytes of body that may still come, those of `remaining` not among them.
    allowance: u64,
    bytes_max: u64,
    /// Bytes of chunk extensions seen.
    extension_bytes: u16,
    /// Bytes of trailer seen.
    trailer_bytes: u16,
    /// Digits of the current chunk's size.
    digits: u8,
    state: State,
}

/// What the next byte belongs to.
///
/// ```text
/// Size -> Extension... -> SizeLineFeed -> Data -> DataReturn -> DataLineFeed -> Size
///                             \-> TrailerStart -> Trailer... -> EndLineFeed -> Done
///
/// ExtensionStart -> ExtensionName -> ValueStart -> ValueToken -> SizeLineFeed
///                                        \-> ValueQuoted <-> ValueEscape
///                                                 \-> ValueEnd -> SizeLineFeed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Body by length.
    Length,
    /// The digits of a chunk's size.
    Size,
    /// Blanks between the size, or an extension, and the next `;`.
    SizeBlank,
    /// Behind a `;`, before the extension's name.
    ExtensionStart,
    ExtensionName,
    /// Blanks behind a name: a `=` or a `;` follows.
    NameBlank,
    /// Behind a `=`, before the extension's value.
    ValueStart,
    ValueToken,
    /// Inside a quoted string.
    ValueQuoted,
    /// Behind a backslash in it.
    ValueEscape,
    /// Behind its closing quote.
    ValueEnd,
    SizeLineFeed,
    /// The bytes of a chunk.
    Data,
    DataReturn,
    DataLineFeed,
    /// The first byte of a trailer line, or of the empty line at the end.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    EndLineFeed,
    Done,
    /// Refused before; nothing more is taken.
    Failed,
}

impl BodyDecoder {
    /// A decoder for one body of at most `bytes_max` bytes: chunk framing is not counted.
    #[must_use]
    pub const fn new(length: BodyLength, bytes_max: u64) -> BodyDecoder {
        let (state, remaining) = match length {
            BodyLength::None | BodyLength::Length(0) => (State::Done, 0),
            BodyLength::Length(length) => (State::Length, length),
            BodyLength::Chunked => (State::Size, 0),
        };
        BodyDecoder {
            remaining,
            allowance: bytes_max,
            bytes_max,
            extension_bytes: 0,
            trailer_bytes: 0,
            digits: 0,
            state,
        }
    }

    /// Whether the body has ended. What is left of the input then belongs to the next request.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the next piece of the body off the front of `input`. None: the body is done, or all of `input` is taken
    /// and more is needed. A piece is never empty.
    ///
    /// # Errors
    ///
    /// 413 for a body over its limit, told by a size before a byte of it is given out; 400 for a chunk that is
    /// malformed; 431 for too long a trailer. The connection closes, and each later call is an error too.
    pub fn decode<'b>(&mut self, input: &mut &'b [u8]) -> Result<Option<&'b [u8]>, Refusal> {
        let piece = self.next_piece(input);
        if piece.is_err() {
            self.state = State::Failed;
        }
        piece
    }

    fn next_piece<'b>(&mut self, input: &mut &'b [u8]) -> Result<Option<&'b [u8]>, Refusal> {
        if self.state == State::Length && self.remaining > self.allowance {
            return Err(self.too_large());
        }
        while let Some((&byte, rest)) = input.split_first() {
            match self.state {
                State::Done => return Ok(None),
                State::Length | State::Data => return Ok(Some(self.take_data(input))),
                _ => {
                    self.step(byte)?;
                    *input = rest;
                }
            }
        }
        Ok(None)
    }

    /// Gives what there is of a chunk or of a body by length. Both are non-empty here.
    fn take_data<'b>(&mut self, input: &mut &'b [u8]) -> &'b [u8] {
        debug_assert!(self.remaining > 0 && !input.is_empty());
        let length = usize::try_from(self.remaining)
            .map_or(input.len(), |remaining| remaining.min(input.len()));
        let (piece, rest) = input.split_at(length);
        *input = rest;
        self.remaining -= length as u64;
        if self.remaining == 0 {
            self.state = if self.state == State::Length {
                State::Done
            } else {
                State::DataReturn
            };
        }
        piece
    }

    /// Takes one byte of what stands around the chunks.
    fn step(&mut self, byte: u8) -> Result<(), Refusal> {
        self.state = match (self.state, byte) {
            (State::Size, _) if byte.is_ascii_hexdigit() => self.push_digit(byte)?,
            (State::Size, b'\r' | b';' | b' ' | b'\t') if self.digits == 0 => {
                return Err(Refusal::bad_framing("a chunk has no size"));
            }
            (State::Size | State::ExtensionName | State::ValueToken | State::ValueEnd, b'\r') => {
                State::SizeLineFeed
            }
            (State::SizeLineFeed, b'\n') => self.begin_chunk()?,
            (State::DataReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => State::Size,
            (State::TrailerStart, b'\r') => State::EndLineFeed,
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => {
                self.count_trailer_byte(State::TrailerName)?
            }
            (State::TrailerName, b':') => self.count_trailer_byte(State::TrailerValue)?,
            (State::TrailerValue, b'\r') => State::TrailerLineFeed,
            (State::TrailerValue, _) if is_value_byte(byte) => {
                self.count_trailer_byte(State::TrailerValue)?
            }
            (State::TrailerLineFeed, b'\n') => State::TrailerStart,
            (State::EndLineFeed, b'\n') => State::Done,
            (state, _) => {
                let next = step_extension(state, byte)
                    .ok_or_else(|| Refusal::bad_framing(malformation(state)))?;
                self.count_extension_byte(next)?
            }
        };
        Ok(())
    }

    fn push_digit(&mut self, byte: u8) -> Result<State, Refusal> {
        if self.digits == CHUNK_SIZE_DIGITS_MAX {
            return Err(Refusal::bad_framing(
                "a chunk's size has more than 16 digits",
            ));
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        self.digits += 1;
        // Sixteen digits fill the 64 bits exactly, so the shift loses none.
        self.remaining = (self.remaining << 4) | u64::from(digit);
        Ok(State::Size)
    }

    /// The line with the size has ended.
    fn begin_chunk(&mut self) -> Result<State, Refusal> {
        self.digits = 0;
        if self.remaining == 0 {
            return Ok(State::TrailerStart);
        }
        self.allowance = self
            .allowance
            .checked_sub(self.remaining)
            .ok_or_else(|| self.too_large())?;
        Ok(State::Data)
    }

    fn count_extension_byte(&mut self, next: State) -> Result<State, Refusal> {
        if self.extension_bytes == CHUNK_EXTENSION_BYTES_MAX {
            return Err(Refusal::bad_framing("the chunk extensions are too long"));
        }
        self.extension_bytes += 1;
        Ok(next)
    }

    fn count_trailer_byte(&mut self, next: State) -> Result<State, Refusal> {
        if self.trailer_bytes == TRAILER_BYTES_MAX {
            return Err(Refusal::head_too_large(
                "the trailer behind the body is too long",
            ));
        }
        self.trailer_bytes += 1;
        Ok(next)
    }

    fn too_large(&self) -> Refusal {
        Refusal::body_too_large(format!("the body is longer than {} bytes", self.bytes_max))
    }
}

/// The state behind a byte of a chunk extension: `*( ";" name [ "=" ( token / quoted-string ) ] )`, with blanks around
/// each delimiter (RFC 9112 section 7.1.1). None for a byte that does not belong there.
fn step_extension(state: State, byte: u8) -> Option<State> {
    let is_blank = matches!(byte, b' ' | b'\t');
    Some(match (state, byte) {
        (State::ExtensionStart | State::ExtensionName, _) if is_token_byte(byte) => {
            State::ExtensionName
        }
        (State::ValueStart | State::ValueToken, _) if is_token_byte(byte) => State::ValueToken,
        (State::ExtensionStart | State::NameBlank | State::ValueStart, _) if is_blank => state,
        (State::ExtensionName, _) if is_blank => State::NameBlank,
        (State::ExtensionName | State::NameBlank, b'=') => State::ValueStart,
        (State::ValueStart, b'"') => State::ValueQuoted,
        (State::ValueQuoted, b'"') => State::ValueEnd,
        (State::ValueQuoted, b'\\') => State::ValueEscape,
        (State::ValueQuoted | State::ValueEscape, _) if is_value_byte(byte) => State::ValueQuoted,
        (State::Size | State::SizeBlank | State::ValueToken | State::ValueEnd, _) if is_blank => {
            State::SizeBlank
        }
        (
            State::Size
            | State::SizeBlank
            | State::ExtensionName
            | State::NameBlank
            | State::ValueToken
            | State::ValueEnd,
            b';',
        ) => State::ExtensionStart,
        _ => return None,
    })
}

/// What is wrong with a byte that the state does not take.
fn malformation(state: State) -> &'static str {
    match state {
        State::Size | State::SizeBlank => "a chunk's size is not a hexadecimal number",
        State::ExtensionStart
        | State::ExtensionName
        | State::NameBlank
        | State::ValueStart
        | State::ValueToken
        | State::ValueQuoted
        | State::ValueEscape
        | State::ValueEnd => "a chunk extension is not `;name` or `;name=value`",
        State::DataReturn | State::DataLineFeed => "a chunk is longer than its size says",
        State::TrailerStart | State::TrailerName | State::TrailerValue => {
            "the trailer is not `name: value`"
        }
        State::Failed => "the body was refused before",
        _ => "a line between chunks does not end in a carriage return and a line feed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body and what is left of the input, or the status; fed whole and byte by byte, with one outcome.
    fn decode(
        length: BodyLength,
        bytes_max: u64,
        input: &[u8],
    ) -> Result<(Vec<u8>, bool, usize), u16> {
        let whole = feed(
            BodyDecoder::new(length, bytes_max),
            input,
            input.len().max(1),
        );
        let split = feed(BodyDecoder::new(length, bytes_max), input, 1);
        assert_eq!(whole, split, "{input:?}");
        whole
    }

    fn feed(
        mut decoder: BodyDecoder,
        input: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, bool, usize), u16> {
        let (mut body, mut left) = (Vec::new(), 0);
        for mut part in input.chunks(step) {
            loop {
                match decoder.decode(&mut part) {
                    Ok(Some(piece)) => {
                        assert!(!piece.is_empty());
                        body.extend_from_slice(piece);
                    }
                    Ok(None) => break,
                    Err(refusal) => {
                        assert!(refusal.close && !decoder.is_done());
                        assert!(decoder.decode(&mut &b"0\r\n\r\n"[..]).is_err());
                        return Err(refusal.status);
                    }
                }
            }
            assert!(part.is_empty() || decoder.is_done());
            left += part.len();
        }
        Ok((body, decoder.is_done(), left))
    }

    fn chunked(input: &str) -> Result<(String, bool, usize), u16> {
        let (body, done, left) = decode(BodyLength::Chunked, 100, input.as_bytes())?;
        Ok((
            String::from_utf8(body).expect("the test's bodies are text"),
            done,
            left,
        ))
    }

    fn done(body: &str, left: usize) -> Result<(String, bool, usize), u16> {
        Ok((body.to_owned(), true, left))
    }

    #[test]
    fn by_length() {
        assert_eq!(decode(BodyLength::None, 0, b"GET"), Ok((vec![], true, 3)));
        assert_eq!(
            decode(BodyLength::Length(0), 0, b"GET"),
            Ok((vec![], true, 3))
        );
        assert_eq!(
            decode(BodyLength::Length(3), 3, b"abcGET"),
            Ok((b"abc".to_vec(), true, 3))
        );
        assert_eq!(
            decode(BodyLength::Length(3), 3, b"ab"),
            Ok((b"ab".to_vec(), false, 0))
        );
        assert_eq!(decode(BodyLength::Length(4), 3, b"a"), Err(413));
        assert_eq!(
            decode(BodyLength::Length(u64::MAX), u64::MAX, b"a"),
            Ok((b"a".to_vec(), false, 0))
        );
        assert!(std::mem::size_of::<BodyDecoder>() <= 32);
    }

    #[test]
    fn in_chunks() {
        assert_eq!(chunked("0\r\n\r\n"), done("", 0));
        assert_eq!(chunked("3\r\nabc\r\n00\r\n\r\nGET"), done("abc", 3));
        assert_eq!(
            chunked("A\r\n0123456789\r\n1\r\n\n\r\n0\r\n\r\n"),
            done("0123456789\n", 0)
        );
        assert_eq!(
            chunked("3;a=\"b c\";d\r\nabc\r\n0 ;x\r\n\r\n"),
            done("abc", 0)
        );
        for extension in [
            ";a",
            " ; a = b",
            ";a=b;c=\"\"",
            "\t;\ta=\"x\\\"y;\\\\\"\t;b",
            ";a=\"\u{e9}\"",
            ";a;b;c",
        ] {
            let input = format!("3{extension}\r\nabc\r\n0\r\n\r\n");
            assert_eq!(chunked(&input), done("abc", 0), "{extension}");
        }
        assert_eq!(
            chunked("3\r\nabc\r\n0\r\nX-Y: z\r\nw:\r\n\r\nGET"),
            done("abc", 3)
        );
        assert_eq!(chunked("3\r\nab"), Ok(("ab".to_owned(), false, 0)));
        assert_eq!(
            chunked("3\r\nabc\r\n0\r\n\r"),
            Ok(("abc".to_owned(), false, 0))
        );
    }

    /// hyper CVE-2021-32714 and 32715, Jetty CVE-2026-19203: sizes that overflow, and lines that end oddly.
    #[test]
    fn malformed_chunks() {
        for input in [
            "\r\n",
            ";a\r\n",
            "g\r\n",
            "+5\r\n",
            "-1\r\n",
            "0x5\r\n",
            " 5\r\n",
            "5 \r\n",
            "5\t5\r\n",
            "5\n",
            "5\rX",
            "5;a\n",
            "5;\0",
            "5;\r\n",
            "5;;a\r\n",
            "5; \r\n",
            "5;a \r\n",
            "5;a=\r\n",
            "5;a==b\r\n",
            "5;=b\r\n",
            "5;a b\r\n",
            "5;a=b c\r\n",
            "5;a=b \r\n",
            "5;bad[=x\r\n",
            "5;a=x]\r\n",
            "5;a=\"b\r\n",
            "5;a=\"b\\\"\r\n",
            "5;a=\"b\"c\r\n",
            "5;a=b\"c\"\r\n",
            "5;\"a\"=b\r\n",
            "5;\u{e9}\r\n",
            "10000000000000000\r\n",
            "00000000000000005\r\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rX",
            "1\r\na0\r\n",
            "0\r\n\n",
            "0\r\n\rX",
            "0\r\n: b\r\n",
            "0\r\na\r\n",
            "0\r\na b: c\r\n",
            "0\r\na: b\n",
            "0\r\na: \0",
            "0\r\n a: b\r\n",
            "\u{664}\r\n",
        ] {
            assert_eq!(chunked(input), Err(400), "{input:?}");
        }
    }

    #[test]
    fn too_much() {
        let hundred = "x".repeat(100);
        assert_eq!(
            chunked(&format!("64\r\n{hundred}\r\n0\r\n\r\n")),
            done(&hundred, 0)
        );
        assert_eq!(chunked("65\r\n"), Err(413));
        assert_eq!(chunked(&format!("64\r\n{hundred}\r\n1\r\n")), Err(413));
        assert_eq!(chunked("ffffffffffffffff\r\n"), Err(413));
        assert_eq!(chunked("1\r\na\r\nffffffffffffffff\r\n"), Err(413));
        let extension = |length: usize| format!("0;{}\r\n\r\n", "x".repeat(length));
        assert_eq!(chunked(&extension(4095)), done("", 0));
        assert_eq!(chunked(&extension(4096)), Err(400));
        let many =
            "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(90);
        assert_eq!(chunked(&many), Err(400));
        let trailer = |length: usize| format!("0\r\na:{}\r\n\r\n", "x".repeat(length - 2));
        assert_eq!(chunked(&trailer(4096)), done("", 0));
        assert_eq!(chunked(&trailer(4097)), Err(431));
    }
}
