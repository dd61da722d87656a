//! Headers that requests are judged by. They are sorted in one pass over the lines.

/// A header that may stand once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Single<'a> {
    first: Option<&'a [u8]>,
    is_repeated: bool,
}

impl<'a> Single<'a> {
    /// One line with this value.
    #[must_use]
    pub const fn of(value: &'a [u8]) -> Single<'a> {
        Single {
            first: Some(value),
            is_repeated: false,
        }
    }

    pub(super) fn put(&mut self, value: &'a [u8]) {
        self.is_repeated |= self.first.is_some();
        self.first.get_or_insert(value);
    }

    /// Whether there is such a line, whatever it says.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        self.first.is_some()
    }

    /// Whether there is more than one.
    #[must_use]
    pub const fn is_repeated(&self) -> bool {
        self.is_repeated
    }

    /// The value of the first line, without the blanks around it.
    #[must_use]
    pub const fn bytes(&self) -> Option<&'a [u8]> {
        self.first
    }

    /// The value of the first line. None also if it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.first?).ok()
    }
}

/// The headers that nearly every request is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// `Authorization`.
    pub authorization: Single<'a>,
    /// `Connection`.
    pub connection: Single<'a>,
    /// `Content-Encoding`.
    pub content_encoding: Single<'a>,
    /// `Content-Type`.
    pub content_type: Single<'a>,
    /// `Expect`.
    pub expect: Single<'a>,
    /// `Host`.
    pub host: Single<'a>,
    /// `If-None-Match`.
    pub if_none_match: Single<'a>,
    /// `Last-Event-ID`.
    pub last_event_id: Single<'a>,
    /// `Origin`.
    pub origin: Single<'a>,
    /// `Sec-Fetch-Dest`.
    pub sec_fetch_dest: Single<'a>,
    /// `Sec-Fetch-Mode`.
    pub sec_fetch_mode: Single<'a>,
    /// `Sec-Fetch-Site`.
    pub sec_fetch_site: Single<'a>,
    /// There is a line that only proxies add.
    pub is_proxied: bool,
    /// Of these, one that may tell of the client: `Forwarded`, or `X-Forwarded-` and more.
    pub is_forwarded: bool,
    /// Of these, `X-Forwarded-For`.
    pub has_forwarded_for: bool,
    /// Whether the client speaks TLS, as far as is known. Whoever takes the request sets it.
    pub is_secure: bool,
    /// There is a `Content-Length` or a `Transfer-Encoding`.
    pub is_framed: bool,
}

impl<'a> Known<'a> {
    /// Sorts the lines of a head.
    pub(super) fn sort(lines: &[httparse::Header<'a>]) -> Known<'a> {
        let mut known = Known::default();
        for line in lines {
            known.put(line.name, line.value);
        }
        known
    }

    fn put(&mut self, name: &str, value: &'a [u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let place = match name.len() {
            4 if is("host") => &mut self.host,
            6 if is("origin") => &mut self.origin,
            6 if is("expect") => &mut self.expect,
            10 if is("connection") => &mut self.connection,
            12 if is("content-type") => &mut self.content_type,
            13 if is("authorization") => &mut self.authorization,
            13 if is("last-event-id") => &mut self.last_event_id,
            13 if is("if-none-match") => &mut self.if_none_match,
            14 if is("sec-fetch-mode") => &mut self.sec_fetch_mode,
            14 if is("sec-fetch-site") => &mut self.sec_fetch_site,
            14 if is("sec-fetch-dest") => &mut self.sec_fetch_dest,
            16 if is("content-encoding") => &mut self.content_encoding,
            14 if is("content-length") => return self.is_framed = true,
            17 if is("transfer-encoding") => return self.is_framed = true,
            _ => return self.put_of_proxy(name),
        };
        place.put(super::field::trim(value));
    }

    /// Notes a header that proxies add: whom they speak for, and by which way.
    fn put_of_proxy(&mut self, name: &str) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let is_forwarded = match name.len() {
            3 => return self.is_proxied |= is("via"),
            9 if is("x-real-ip") => return self.is_proxied = true,
            9 => is("forwarded"),
            14 if is("true-client-ip") => return self.is_proxied = true,
            16 if is("cf-connecting-ip") => return self.is_proxied = true,
            length => {
                const PREFIX: &str = "x-forwarded-";
                length > PREFIX.len()
                    && name.as_bytes()[..PREFIX.len()].eq_ignore_ascii_case(PREFIX.as_bytes())
            }
        };
        if is_forwarded {
            (self.is_proxied, self.is_forwarded) = (true, true);
            self.has_forwarded_for |= is("x-forwarded-for");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_find_their_places_in_any_case() {
        let line = |name, value| httparse::Header { name, value };
        let known = Known::sort(&[
            line("HOST", b"a"),
            line("x-host", b"b"),
            line("Origin", b" null "),
            line("origin", b"c"),
            line("Last-event-ID", b""),
            line("Content-Type", b"\xff"),
            line("transfer-encoding", b"chunked"),
        ]);
        assert_eq!(known.host.text(), Some("a"));
        assert!(!known.host.is_repeated() && known.origin.is_repeated());
        assert_eq!(known.origin.text(), Some("null"));
        assert_eq!(known.last_event_id.bytes(), Some(&b""[..]));
        assert!(known.content_type.is_there() && known.content_type.text().is_none());
        assert!(known.is_framed && !known.authorization.is_there());
    }

    #[test]
    fn lines_of_proxies_are_seen() {
        for name in [
            "Via",
            "Forwarded",
            "X-Real-IP",
            "x-forwarded-for",
            "X-Forwarded-Proto",
            "X-FORWARDED-HOST",
            "X-Forwarded-Client-Cert",
            "True-Client-IP",
            "CF-Connecting-IP",
        ] {
            let value = b"";
            let known = Known::sort(&[httparse::Header { name, value }]);
            assert!(known.is_proxied, "{name}");
            let is_forwarded = name.to_ascii_lowercase().contains("forwarded");
            assert_eq!(known.is_forwarded, is_forwarded, "{name}");
            assert_eq!(known.has_forwarded_for, name == "x-forwarded-for", "{name}");
        }
        for name in [
            "Vid",
            "X-Forwarded-",
            "X-Forwarded",
            "Forwarder",
            "Sec-Fetch-Site",
            "Max-Forwards-Of",
        ] {
            let value = b"";
            assert!(
                !Known::sort(&[httparse::Header { name, value }]).is_proxied,
                "{name}"
            );
        }
    }
}
