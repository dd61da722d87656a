//! End of a request's head (RFC 9112 sections 2 and 3), found as the bytes come in.

use super::field::{is_token_byte, is_value_byte, leading};
use super::refusal::Refusal;
use super::request_limits::RequestLimits;

/// Answer to a PROXY header. HAProxy and cloud load balancers send such.
pub const PROXY_HEADER: &str = "this is a PROXY protocol header, and the port speaks plain HTTP: turn the PROXY \
                                protocol off in the load balancer, or set proxy_protocol of the listener";

/// The longest method that is looked at. The longest registered one, UPDATEREDIRECTREF, has 17 bytes.
const METHOD_BYTES_MAX: usize = 32;

/// Finds the end of a request's head. Each byte is looked at once, however the bytes are split, and what is wrong
/// is refused at the first byte that makes it so.
///
/// It checks the shape of lines only; [`Head::parse`](super::request::Head::parse) checks what they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadScanner {
    /// Bytes that have been looked at.
    position: u32,
    /// Where the request line begins: behind the one empty line that may come first.
    line_start: u32,
    /// Where the target begins.
    target_start: u32,
    /// Field lines begun.
    lines: u16,
    state: State,
}

/// What the next byte belongs to.
///
/// ```text
/// Start -> Method -> Target -> Rest -> LineFeed -> LineStart -> Line -> LineFeed
///   \-> EmptyLine -> Start2 -/                        \-> End -> Whole
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The first byte of all.
    #[default]
    Start,
    /// The line feed of an empty line before the request.
    EmptyLine,
    /// The first byte of the request line, after an empty line.
    RequestLine,
    Method,
    Target,
    /// The request line behind the target.
    Rest,
    /// The line feed of a line that is not empty.
    LineFeed,
    /// The first byte of a field line, or of the empty line at the end.
    LineStart,
    Line,
    /// The line feed of the empty line at the end.
    End,
    Whole,
}

impl HeadScanner {
    /// A scanner at the first byte of a request.
    #[must_use]
    pub const fn new() -> HeadScanner {
        HeadScanner {
            position: 0,
            line_start: 0,
            target_start: 0,
            lines: 0,
            state: State::Start,
        }
    }

    /// Whether no byte of a request has been seen.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.position == 0
    }

    /// Looks at the bytes that are new since the last call. `bytes` is all that has arrived of the request, from its
    /// first byte on. Gives the length of the head once it is whole, its empty line included.
    ///
    /// # Errors
    ///
    /// 400 for what cannot begin a request, and for bare CR, bare LF and control bytes; 414 for a target over
    /// `target_bytes_max`; 431 for more than `head_bytes_max` bytes or `headers_max` lines; 501 for an endless
    /// method. The connection closes after each of them.
    pub fn scan(&mut self, bytes: &[u8], limits: &RequestLimits) -> Result<Option<usize>, Refusal> {
        let end = bytes
            .len()
            .min(limits.head_bytes_max)
            .min(u32::MAX as usize);
        let mut position = self.position as usize;
        while position < end && self.state != State::Whole {
            position = self.step(bytes, position, end, limits)?;
            // `end` is at most u32::MAX, so the position fits.
            self.position = position as u32;
        }
        if self.state == State::Whole {
            return Ok(Some(position));
        }
        if position >= limits.head_bytes_max {
            return Err(Refusal::head_too_large(format!(
                "the request's head is longer than {} bytes",
                limits.head_bytes_max
            )));
        }
        Ok(None)
    }

    /// Takes the bytes of one state, `position..end` at most and one at least, and gives the place of the next.
    fn step(
        &mut self,
        bytes: &[u8],
        position: usize,
        end: usize,
        limits: &RequestLimits,
    ) -> Result<usize, Refusal> {
        let byte = bytes[position];
        self.state = match (self.state, byte) {
            (State::Start, b'\r') => State::EmptyLine,
            (State::EmptyLine, b'\n') => {
                self.line_start = position as u32 + 1;
                State::RequestLine
            }
            (State::Start | State::RequestLine, _) if is_token_byte(byte) => State::Method,
            (State::Start | State::EmptyLine | State::RequestLine, _) => {
                return Err(no_request(byte, bytes));
            }
            (State::Method, _) => return self.step_method(bytes, position, end),
            (State::Target, _) => return self.step_target(bytes, position, end, limits),
            (State::Rest | State::Line, _) => return self.step_line(bytes, position, end),
            (State::LineFeed, b'\n') => State::LineStart,
            (State::LineStart, b'\r') => State::End,
            (State::LineStart, _) => self.begin_line(byte, limits)?,
            (State::End, b'\n') => State::Whole,
            (State::LineFeed | State::End, _) => {
                return Err(malformed(
                    "a line of the head holds a carriage return that no line feed follows",
                ));
            }
            (State::Whole, _) => return Ok(position),
        };
        Ok(position + 1)
    }

    fn step_method(&mut self, bytes: &[u8], position: usize, end: usize) -> Result<usize, Refusal> {
        let length = bytes[position..end]
            .iter()
            .take_while(|&&byte| is_token_byte(byte))
            .count();
        if position + length - self.line_start as usize > METHOD_BYTES_MAX {
            return Err(Refusal::not_implemented(
                "the method is longer than any that is known",
            ));
        }
        match bytes[position..end].get(length) {
            None => Ok(end),
            Some(b' ') => {
                self.state = State::Target;
                self.target_start = (position + length) as u32 + 1;
                Ok(position + length + 1)
            }
            Some(&byte) => Err(no_request(byte, bytes)),
        }
    }

    fn step_target(
        &mut self,
        bytes: &[u8],
        position: usize,
        end: usize,
        limits: &RequestLimits,
    ) -> Result<usize, Refusal> {
        let is_target_byte = |byte: u8| byte > b' ' && byte < 0x7f;
        let length = bytes[position..end]
            .iter()
            .take_while(|&&byte| is_target_byte(byte))
            .count();
        if position + length - self.target_start as usize > limits.target_bytes_max {
            let reason = format!(
                "the target is longer than {} bytes",
                limits.target_bytes_max
            );
            return Err(Refusal::target_too_long(reason).closing());
        }
        match bytes[position..end].get(length) {
            None => Ok(end),
            Some(b' ') if position + length > self.target_start as usize => {
                self.state = State::Rest;
                Ok(position + length + 1)
            }
            Some(0x80..) => Err(malformed(
                "the target holds a byte that is not ASCII; letters of other scripts are percent-encoded, \u{e9} is %C3%A9",
            )),
            // `PROXY UNKNOWN`, as health checks of load balancers begin, ends where a version is awaited.
            Some(b'\r') if bytes[self.line_start as usize..].starts_with(b"PROXY ") => {
                Err(malformed(PROXY_HEADER))
            }
            Some(_) => Err(malformed(
                "the request line is not `method target HTTP/1.1`",
            )),
        }
    }

    fn step_line(&mut self, bytes: &[u8], position: usize, end: usize) -> Result<usize, Refusal> {
        let length = leading(&bytes[position..end], is_value_byte);
        match bytes[position..end].get(length) {
            None => Ok(end),
            Some(b'\r') => {
                self.state = State::LineFeed;
                Ok(position + length + 1)
            }
            Some(b'\n') => Err(malformed(
                "a line of the head ends in a line feed without a carriage return",
            )),
            Some(_) => Err(malformed("the head holds a control character")),
        }
    }

    fn begin_line(&mut self, byte: u8, limits: &RequestLimits) -> Result<State, Refusal> {
        match byte {
            b' ' | b'\t' => Err(malformed(
                "a header line begins with a blank; folded lines are not taken",
            )),
            _ if !is_token_byte(byte) => Err(malformed("a header line does not begin with a name")),
            _ if usize::from(self.lines) >= limits.headers_allowed() => {
                Err(Refusal::head_too_large(format!(
                    "the request has more than {} header lines",
                    limits.headers_allowed()
                )))
            }
            _ => {
                self.lines += 1;
                Ok(State::Line)
            }
        }
    }
}

fn malformed(reason: &'static str) -> Refusal {
    Refusal::bad_framing(reason)
}

/// How a PROXY header of version 2 begins.
const PROXY_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What arrived is no request at all; usual mistakes get their own sentence.
fn no_request(byte: u8, bytes: &[u8]) -> Refusal {
    match byte {
        _ if bytes.starts_with(PROXY_SIGNATURE) => malformed(PROXY_HEADER),
        0x16 => malformed("TLS on a plain listener: use http:// or ws:// on this port"),
        b'\r' | b'\n' => malformed("the request line is not `method target HTTP/1.1`"),
        _ => malformed("this is not an HTTP request: it does not begin with a method"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RequestLimits = RequestLimits {
        head_bytes_max: 1024,
        headers_max: 100,
        target_bytes_max: 64,
        body_bytes_max: 1 << 20,
    };

    /// The outcome for the bytes fed at once, which has to be that of the bytes fed one by one.
    fn scan(bytes: &[u8]) -> Result<Option<usize>, u16> {
        let whole = HeadScanner::new().scan(bytes, &LIMITS);
        let mut scanner = HeadScanner::new();
        let mut split = Ok(None);
        for end in 1..=bytes.len() {
            split = scanner.scan(&bytes[..end], &LIMITS);
            if !matches!(split, Ok(None)) {
                break;
            }
        }
        assert_eq!(whole, split, "{bytes:?}");
        whole.map_err(|refusal| {
            assert!(refusal.close, "{refusal}");
            refusal.status
        })
    }

    #[test]
    fn finds_the_end_of_the_head() {
        assert_eq!(scan(b"GET / HTTP/1.1\r\n\r\n"), Ok(Some(18)));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET"), Ok(Some(27)));
        assert_eq!(scan(b"\r\nGET / HTTP/1.1\r\n\r\n"), Ok(Some(20)));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n\r"), Ok(None));
        assert_eq!(scan(b""), Ok(None));
        assert!(std::mem::size_of::<HeadScanner>() <= 16);
    }

    #[test]
    fn whole_stays_whole() {
        let mut scanner = HeadScanner::new();
        assert!(scanner.is_idle());
        for _ in 0..2 {
            assert_eq!(
                scanner.scan(b"GET / HTTP/1.1\r\n\r\nrest", &LIMITS),
                Ok(Some(18))
            );
        }
        assert!(!scanner.is_idle());
    }

    #[test]
    fn what_begins_no_request_is_refused_at_its_first_byte() {
        for byte in 0..=255u8 {
            let expected = if is_token_byte(byte) || byte == b'\r' {
                Ok(None)
            } else {
                Err(400)
            };
            assert_eq!(scan(&[byte]), expected, "{byte}");
        }
        let hello = HeadScanner::new()
            .scan(b"\x16\x03\x01", &LIMITS)
            .expect_err("a TLS hello is refused");
        assert!(hello.reason.contains("TLS"));
        for header in [
            &b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..],
            b"PROXY UNKNOWN\r\n",
            b"\r\nPROXY UNKNOWN\r\nGET / HTTP/1.1\r\n",
        ] {
            let proxied = HeadScanner::new()
                .scan(header, &LIMITS)
                .expect_err("a PROXY header is refused");
            assert_eq!(proxied.reason, PROXY_HEADER);
        }
        for junk in [
            &b"\r\n\r"[..],
            b"\r\n\n",
            b"\rG",
            b"GET\r",
            b"GET\n",
            b"G(",
            b"GET  ",
            b"GET \r",
            b"GET /\r",
        ] {
            assert_eq!(scan(junk), Err(400), "{junk:?}");
        }
    }

    #[test]
    fn bare_line_ends_and_control_bytes_are_refused() {
        for line in [
            &b"GET / HTTP/1.1\n"[..],
            b"GET / HTTP/1.1\rX",
            b"GET /\0 ",
            b"GET /\x7f ",
            b"GET / HTTP/1.1\0",
        ] {
            assert_eq!(scan(line), Err(400), "{line:?}");
        }
        for line in [
            &b"a: b\n"[..],
            b"a: b\rc",
            b"a: \0",
            b"a: \x1b[2J",
            b" a: b",
            b"\ta: b",
            b": b",
            b"\n",
            b"\rX",
        ] {
            assert_eq!(
                scan(&[b"GET / HTTP/1.1\r\n", line].concat()),
                Err(400),
                "{line:?}"
            );
        }
        assert_eq!(scan(b"GET / HTTP/1.1\r\na: b\r\n c: d\r\n\r\n"), Err(400));
        assert_eq!(
            scan(b"GET / HTTP/1.1\r\na:\tb \xff\r\n\r\n").map(|end| end.is_some()),
            Ok(true)
        );
    }

    #[test]
    fn each_limit_has_its_status() {
        let target =
            |length: usize| [b"GET ", "/".repeat(length).as_bytes(), b" HTTP/1.1\r\n\r\n"].concat();
        assert!(matches!(scan(&target(64)), Ok(Some(_))));
        assert_eq!(scan(&target(65)), Err(414));
        assert_eq!(scan(&[b'A'; 33]), Err(501));
        assert_eq!(scan(&[b'A'; 32]), Ok(None));
        let lines =
            |count: usize| ["GET / HTTP/1.1\r\n", &"a: b\r\n".repeat(count), "\r\n"].concat();
        assert!(matches!(scan(lines(100).as_bytes()), Ok(Some(_))));
        assert_eq!(scan(lines(101).as_bytes()), Err(431));
        let head = |length: usize| {
            [
                "GET / HTTP/1.1\r\na: ",
                &"b".repeat(length - 23),
                "\r\n\r\n",
            ]
            .concat()
        };
        assert_eq!(scan(head(1024).as_bytes()), Ok(Some(1024)));
        assert_eq!(scan(head(1025).as_bytes()), Err(431));
        // One byte short of an end that would come too late is refused without waiting for it.
        assert_eq!(scan(&head(1025).as_bytes()[..1024]), Err(431));
    }

    /// CVE-2023-43669: a head without end, in pieces of one byte, is cut at the cap and costs linear time.
    #[test]
    fn an_endless_head_is_cut_at_the_cap() {
        let limits = RequestLimits {
            head_bytes_max: 1 << 20,
            ..LIMITS
        };
        let mut bytes = b"GET / HTTP/1.1\r\na: ".to_vec();
        let mut scanner = HeadScanner::new();
        let refusal = loop {
            bytes.push(b'b');
            match scanner.scan(&bytes, &limits) {
                Ok(end) => assert_eq!((end, scanner.position as usize), (None, bytes.len())),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!((refusal.status, bytes.len()), (431, 1 << 20));
    }
}
