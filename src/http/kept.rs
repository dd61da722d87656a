//! Part of a head that is kept after its request.

use std::fmt;

use super::field::{FieldLines, values};

/// The target of a request and its header lines.
#[derive(Clone, Copy, Debug)]
pub struct HeadView<'a> {
    /// The target, as [`Head::target`](super::request::Head::target) has it.
    pub target: &'a str,
    lines: FieldLines<'a>,
}

impl<'a> HeadView<'a> {
    pub(super) const fn new(target: &'a str, lines: FieldLines<'a>) -> HeadView<'a> {
        HeadView { target, lines }
    }

    /// The first value of a header, its name in any case. None also where it is not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let value = values(self.lines, name).next()?;
        std::str::from_utf8(value).ok()
    }

    /// Values of all lines with this name. They are in order, without those that are not UTF-8.
    pub fn headers<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        values(self.lines, name).filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// Values of all lines with this name as they came, in order.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        values(self.lines, name)
    }

    /// The value of the first cookie with this name.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        let pairs = self.headers("cookie").flat_map(|line| line.split(';'));
        let mut found = pairs
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(key, _)| *key == name);
        found.next().map(|(_, value)| value)
    }

    /// Bytes that a copy takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.target.len() + self.lines.as_bytes().len()
    }

    /// A copy that outlives the read buffer.
    #[must_use]
    pub fn keep(&self) -> KeptHead {
        KeptHead {
            target: self.target.into(),
            lines: self.lines.as_bytes().into(),
        }
    }
}

/// A copy of a request's target and header lines.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptHead {
    target: Box<str>,
    lines: Box<[u8]>,
}

impl fmt::Debug for KeptHead {
    /// Without the header lines, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.view().bytes();
        f.debug_struct("KeptHead").field("bytes", &bytes).finish()
    }
}

impl KeptHead {
    /// View of the kept part, as of the request itself.
    #[must_use]
    pub fn view(&self) -> HeadView<'_> {
        HeadView::new(&self.target, FieldLines::new(&self.lines))
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::{Head, RequestLimits};

    #[test]
    fn a_copy_answers_as_the_head_did() {
        let text =
            "\r\nGET http://a/ws?b=c HTTP/1.1\r\nHost: a\r\nX-Y: 1\r\nx-y: 2\r\nZ: \u{e9}\r\n\r\n";
        let limits = RequestLimits {
            head_bytes_max: 1000,
            headers_max: 10,
            target_bytes_max: 100,
            body_bytes_max: 0,
        };
        let head = Head::parse(text.as_bytes(), &limits).expect("a valid head");
        let kept = head.view().keep();
        assert_eq!(kept.view().target, "/ws?b=c");
        for name in ["host", "X-y", "z", "none"] {
            assert_eq!(kept.view().header(name), head.header(name), "{name}");
            assert!(kept.view().headers(name).eq(head.headers(name)), "{name}");
        }
        assert_eq!(kept.view().bytes(), head.view().bytes());
        assert!(head.view().bytes() < text.len());
    }
}
