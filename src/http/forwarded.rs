//! Headers by which proxies tell of a client: `X-Forwarded-For`, `-Proto` and `-Host`, or `Forwarded` (RFC 7239).
//!
//! Each proxy adds what it knows at the right, so the right-most entries are those of trusted proxies, and what stands left of
//! them is the client's own word. Entries are cut off from the right: nothing that a client writes changes how those are
//! read which proxies wrote behind it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::field::{FieldLines, trim};
use super::known::Single;

/// Most entries that are looked at, counted from the right.
pub const ENTRIES_MAX: usize = 32;

/// Most bytes of entries that are looked at, counted from the right.
pub const BYTES_MAX: usize = 4096;

/// Header by which proxies tell of a client. The others are the client's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and `X-Forwarded-Host`.
    XForwardedFor,
    /// `Forwarded`.
    Forwarded,
}

/// Word of trusted proxies about a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded<'a> {
    /// Its address; port 0 where they do not tell it. None: the client is the peer of the socket.
    pub client: Option<SocketAddr>,
    /// Whether it speaks TLS. None: they do not tell.
    pub is_secure: Option<bool>,
    /// The host that it asked. None: they do not tell.
    pub host: Option<&'a str>,
}

/// One entry: what one proxy tells of its peer.
#[derive(Clone, Copy, Debug, Default)]
struct Entry<'a> {
    /// None: it tells no address.
    client: Option<SocketAddr>,
    is_secure: Option<bool>,
    host: Option<&'a str>,
}

/// The last lines of a header. Each has an entry at least, so that more are never looked at.
struct LastLines<'a> {
    lines: [&'a [u8]; ENTRIES_MAX],
    count: usize,
}

impl<'a> LastLines<'a> {
    fn push(&mut self, line: &'a [u8]) {
        self.lines[self.count % ENTRIES_MAX] = line;
        self.count += 1;
    }

    /// From the last one on.
    fn backwards(&self) -> impl Iterator<Item = &'a [u8]> {
        let first = self.count.saturating_sub(ENTRIES_MAX);
        let numbers = (first..self.count).rev();
        numbers.map(|number| self.lines[number % ENTRIES_MAX])
    }
}

/// Reads what the proxies in front of a listener tell. `trusts` says which addresses are proxies.
pub(super) fn read<'a>(
    lines: FieldLines<'a>,
    header: ForwardedHeader,
    trusts: impl Fn(IpAddr) -> bool,
) -> Forwarded<'a> {
    let mut entries = LastLines {
        lines: [&[]; ENTRIES_MAX],
        count: 0,
    };
    let (mut scheme, mut host) = (Single::default(), Single::default());
    for (name, value) in lines {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match (header, name.len()) {
            (ForwardedHeader::Forwarded, 9) if is("forwarded") => entries.push(value),
            (ForwardedHeader::XForwardedFor, 15) if is("x-forwarded-for") => entries.push(value),
            (ForwardedHeader::XForwardedFor, 17) if is("x-forwarded-proto") => scheme.put(value),
            (ForwardedHeader::XForwardedFor, 16) if is("x-forwarded-host") => host.put(value),
            _ => {}
        }
    }
    let backwards = entries.backwards();
    match header {
        ForwardedHeader::XForwardedFor => {
            let all = backwards.flat_map(|line| line.rsplit(|&byte| byte == b','));
            Forwarded {
                client: walk(all, trusts, |text| plain_entry(trim(text))).client,
                is_secure: the_one(scheme).and_then(is_secure),
                host: the_one(host),
            }
        }
        ForwardedHeader::Forwarded => walk(backwards.flat_map(Elements::of), trusts, |text| {
            element(trim(text))
        }),
    }
}

/// Walks from the right over the entries of trusted proxies. The first other address is the client's. An entry without an
/// address ends the walk, as the limits do: then the client is the right-most.
fn walk<'a>(
    entries: impl Iterator<Item = &'a [u8]>,
    trusts: impl Fn(IpAddr) -> bool,
    parse: impl Fn(&'a [u8]) -> Option<Entry<'a>>,
) -> Forwarded<'a> {
    let mut nearest = None;
    let mut bytes_left = BYTES_MAX;
    for text in entries.take(ENTRIES_MAX) {
        // With the comma, or the end of the line.
        let Some(left) = bytes_left.checked_sub(text.len() + 1) else {
            break;
        };
        bytes_left = left;
        let entry = parse(text).unwrap_or_default();
        let nearest = nearest.get_or_insert(entry);
        let Some(client) = entry.client else { break };
        if !trusts(client.ip()) {
            *nearest = entry;
            break;
        }
    }
    let Entry {
        client,
        is_secure,
        host,
    } = nearest.unwrap_or_default();
    Forwarded {
        client,
        is_secure,
        host,
    }
}

/// The one value of a header that holds no list.
fn the_one(header: Single<'_>) -> Option<&str> {
    let text = header.text().filter(|_| !header.is_repeated())?;
    (!text.is_empty() && !text.contains(',')).then_some(text)
}

/// Whether a scheme is one of TLS. None: it is no scheme of ours.
fn is_secure(scheme: &str) -> Option<bool> {
    let is = |known: &str| scheme.eq_ignore_ascii_case(known);
    match () {
        () if is("https") || is("wss") => Some(true),
        () if is("http") || is("ws") => Some(false),
        () => None,
    }
}

fn plain_entry(text: &[u8]) -> Option<Entry<'static>> {
    let client = Some(parse_node(std::str::from_utf8(text).ok()?)?);
    Some(Entry {
        client,
        ..Entry::default()
    })
}

/// Reads `1.2.3.4`, `1.2.3.4:5`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:5`. Port 0 where there is none. An IPv4
/// address in the form of IPv6 becomes what it is.
fn parse_node(text: &str) -> Option<SocketAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip.to_canonical(), 0));
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let ip = IpAddr::V6(address.parse::<Ipv6Addr>().ok()?);
            match port {
                "" => return Some(SocketAddr::new(ip.to_canonical(), 0)),
                port => (ip, port.strip_prefix(':')?),
            }
        }
        None => {
            let (address, port) = text.split_once(':')?;
            (IpAddr::V4(address.parse().ok()?), port)
        }
    };
    let is_port = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| is_port)?;
    Some(SocketAddr::new(address.to_canonical(), port))
}

/// Elements of a `Forwarded` line, from the right. A comma in a quoted string is none that separates.
struct Elements<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Elements<'a> {
    fn of(line: &'a [u8]) -> Elements<'a> {
        Elements { rest: Some(line) }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.rest?;
        let mut is_quoted = false;
        for (at, byte) in line.iter().enumerate().rev() {
            match byte {
                b'"' if !(is_quoted && is_escaped(line, at)) => is_quoted = !is_quoted,
                b',' if !is_quoted => {
                    self.rest = Some(&line[..at]);
                    return Some(&line[at + 1..]);
                }
                _ => {}
            }
        }
        self.rest = None;
        Some(line)
    }
}

/// Whether an odd number of backslashes stands before this place.
fn is_escaped(line: &[u8], at: usize) -> bool {
    let backslashes = line[..at].iter().rev().take_while(|&&byte| byte == b'\\');
    backslashes.count() % 2 == 1
}

/// Reads one element: `for="[2001:db8::1]:5";proto=https;host=x`. None where it is none.
fn element(text: &[u8]) -> Option<Entry<'_>> {
    let mut rest = std::str::from_utf8(text).ok()?;
    let mut entry = Entry::default();
    let (mut client, mut scheme, mut host) = (None, None, None);
    loop {
        let (name, value, behind) = pair(rest)?;
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let place = match () {
            () if is("for") => &mut client,
            () if is("proto") => &mut scheme,
            () if is("host") => &mut host,
            () => &mut None,
        };
        // Which of two would count?
        if place.replace(value).is_some() {
            return None;
        }
        rest = behind.trim_start_matches([' ', '\t']);
        match rest.strip_prefix(';') {
            Some(more) => rest = more.trim_start_matches([' ', '\t']),
            None if rest.is_empty() => break,
            None => return None,
        }
        if rest.is_empty() {
            break;
        }
    }
    entry.client = client.and_then(parse_node);
    entry.is_secure = scheme.and_then(is_secure);
    entry.host = host.filter(|host| !host.is_empty());
    Some(entry)
}

/// Cuts off one `name=value`, whose value may be quoted. Values with escapes are none that is known.
fn pair(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = text.split_once('=')?;
    if !super::field::is_token(name) {
        return None;
    }
    match rest.strip_prefix('"') {
        Some(quoted) => {
            let (value, behind) = quoted.split_once('"')?;
            (!value.contains('\\')).then_some((name, value, behind))
        }
        None => {
            let end = rest.find([';', ' ', '\t']).unwrap_or(rest.len());
            let (value, behind) = rest.split_at(end);
            (!value.is_empty() && !value.contains(['"', '='])).then_some((name, value, behind))
        }
    }
}

#[cfg(test)]
mod tests;
