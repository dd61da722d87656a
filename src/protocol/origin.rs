//! Web origins that may connect: RFC 6455, section 10.2, with origins as RFC 6454 serialises them.
//!
//! An origin is scheme, host and port, and matches as a whole or not at all: no prefix, no suffix, no pattern.
//! `null`, the origin of sandboxed pages and local files, is nobody's and matches nothing.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// One origin that is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginRule {
    text: String,
}

/// The origins that are let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginList {
    rules: Vec<OriginRule>,
}

/// A text in the configuration that is not an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginError {
    /// The text.
    pub text: String,
    /// Problem and remedy.
    pub problem: String,
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OriginError { text, problem } = self;
        write!(
            f,
            "{text:?} is not an origin such as https://example.com:8443: {problem}"
        )
    }
}

impl std::error::Error for OriginError {}

impl OriginRule {
    /// Reads an origin as a configuration has it: `scheme://host` or `scheme://host:port`.
    ///
    /// # Errors
    ///
    /// Whatever no browser would send, so that a rule that could never match is found at the start.
    pub fn parse(text: &str) -> Result<OriginRule, OriginError> {
        match check_sent(text) {
            Ok(()) => Ok(OriginRule {
                text: text.to_owned(),
            }),
            Err(problem) => Err(OriginError {
                text: text.to_owned(),
                problem,
            }),
        }
    }

    /// Whether the value of an `Origin` header is this origin.
    pub fn matches(&self, origin: &str) -> bool {
        match (Origin::parse(&self.text), Origin::parse(origin)) {
            (Ok(rule), Ok(origin)) => rule == origin,
            _ => false,
        }
    }
}

impl OriginList {
    /// Reads the origins of a configuration.
    ///
    /// # Errors
    ///
    /// The first that is not one.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<OriginList, OriginError> {
        let rules = texts.iter().map(|text| OriginRule::parse(text.as_ref()));
        let rules = rules.collect::<Result<_, _>>()?;
        Ok(OriginList { rules })
    }

    /// Whether the value of an `Origin` header is one of them.
    pub fn matches(&self, origin: &str) -> bool {
        self.rules.iter().any(|rule| rule.matches(origin))
    }

    /// Whether it lets nobody in.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl fmt::Display for OriginList {
    /// As it was written, with commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.rules.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", rule.text)?;
        }
        Ok(())
    }
}

/// Checks that a browser sends this for some page.
///
/// # Errors
/// What is wrong, and what to write instead.
fn check_sent(text: &str) -> Result<(), String> {
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest)) if !rest.starts_with(|first: char| first.is_ascii_digit()) => {
            (scheme.to_ascii_lowercase(), rest)
        }
        _ => (String::new(), text),
    };
    let page = |scheme: &str, rest: &str| format!("{scheme}://{}", authority_of(rest));
    match &*scheme {
        "ws" | "wss" => {
            let page = page(if scheme == "ws" { "http" } else { "https" }, rest);
            return Err(format!(
                "no browser sends it, for an origin is where the page comes from, and not what it connects to; \
                 write {page}"
            ));
        }
        "blob" => {
            return Err(format!(
                "the origin of a blob is that of its page; write {}",
                {
                    let (scheme, rest) = rest.split_once(':').unwrap_or(("https", "..."));
                    page(scheme, rest)
                }
            ));
        }
        "file" | "data" | "about" | "javascript" => {
            return Err(format!(
                "no browser sends it: for such a page it sends null, as everybody can; {SERVE_IT}"
            ));
        }
        _ if text.eq_ignore_ascii_case("null") => {
            return Err(format!(
                "it is what browsers send for files and sandboxed frames, anybody's; {SERVE_IT}"
            ));
        }
        _ if text == "*" => return Err("write any, which lets every origin in".to_owned()),
        _ => {}
    }
    let Err(problem) = Origin::parse(text) else {
        return Ok(());
    };
    if text.contains('*') {
        return Err("an origin has no wildcards; list each one, or write any".to_owned());
    }
    // What would be right, if only the surroundings are wrong.
    let scheme = if text.contains("://") {
        &*scheme
    } else {
        "https"
    };
    let right = page(
        scheme,
        text.split_once("://").map_or(text, |(_, rest)| rest),
    );
    Err(match Origin::parse(&right) {
        Ok(_) => format!("{problem}; write {right}"),
        Err(_) => problem.to_owned(),
    })
}

/// The way out for pages that have no origin of their own.
const SERVE_IT: &str = "serve the page by HTTP and write its origin, such as http://localhost:8000, or write any, which \
                        lets everybody in";

/// Host and port of what follows a scheme.
fn authority_of(rest: &str) -> &str {
    let rest = rest.trim_start_matches('/');
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let authority = &rest[..end];
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}

/// Whether an `Origin` is a page of this machine, on any port: `localhost`, a name under it, an address in 127.0.0.0/8,
/// or `[::1]`.
pub fn is_loopback_origin(origin: &str) -> bool {
    let Ok(origin) = Origin::parse(origin) else {
        return false;
    };
    if default_port(origin.scheme).is_none() {
        return false;
    }
    origin.host.is_loopback()
}

/// Whether an `Origin` has the host and port of this `Host`. The scheme cannot be told: TLS may have ended in front of
/// this server. A `Host` without a port means the default port of the origin's scheme.
pub fn same_origin(origin: &str, host_header: &str) -> bool {
    let Ok(origin) = Origin::parse(origin) else {
        return false;
    };
    let Some(default_port) = default_port(origin.scheme) else {
        return false;
    };
    match parse_authority(host_header) {
        Ok((host, port)) => {
            host == origin.host && Some(port.unwrap_or(default_port)) == origin.port
        }
        Err(_) => false,
    }
}

/// An origin in its parts. Two are equal if they are the same origin (RFC 6454, section 5).
#[derive(Clone, Copy, Debug)]
struct Origin<'a> {
    scheme: &'a str,
    host: Host<'a>,
    /// The port, said or by default; `None` for a scheme without a default.
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Host<'a> {
    /// A name in ASCII, or an IPv4 address.
    Name(&'a str),
    V6(Ipv6Addr),
}

impl Host<'_> {
    /// Whether it names this machine and no other. No name server is asked for such names (RFC 6761 section 6.3).
    pub(super) fn is_loopback(&self) -> bool {
        const LOCALHOST: &str = "localhost";
        match self {
            Host::V6(address) => address.is_loopback(),
            Host::Name(name) => match name.len().checked_sub(LOCALHOST.len()) {
                Some(before)
                    if name.as_bytes()[before..].eq_ignore_ascii_case(LOCALHOST.as_bytes()) =>
                {
                    before == 0 || before > 1 && name.as_bytes()[before - 1] == b'.'
                }
                _ => name
                    .parse::<Ipv4Addr>()
                    .is_ok_and(|address| address.is_loopback()),
            },
        }
    }
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Result<Origin<'a>, &'static str> {
        if text.eq_ignore_ascii_case("null") {
            return Err("null is the origin of no page in particular");
        }
        let Some((scheme, authority)) = text.split_once("://") else {
            return Err("it does not begin with a scheme and ://");
        };
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
        if !is_scheme {
            return Err("the scheme is not one");
        }
        let (host, port) = parse_authority(authority)?;
        let port = port.or_else(|| default_port(scheme));
        Ok(Origin { scheme, host, port })
    }
}

impl PartialEq for Origin<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.scheme.eq_ignore_ascii_case(other.scheme)
            && self.host == other.host
            && self.port == other.port
    }
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Host::Name(one), Host::Name(other)) => one.eq_ignore_ascii_case(other),
            (Host::V6(one), Host::V6(other)) => one == other,
            _ => false,
        }
    }
}

/// Reads `host` or `host:port`.
pub(super) fn parse_authority(text: &str) -> Result<(Host<'_>, Option<u16>), &'static str> {
    if text.contains('@') {
        return Err("a user is not part of an origin");
    }
    if text.contains(['/', '?', '#', '\\']) {
        return Err("a path, not even /, is not part of an origin");
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest
            .split_once(']')
            .ok_or("the ] of the address is missing")?;
        let address = address.parse().map_err(|_| "the IPv6 address is not one")?;
        (Host::V6(address), port)
    } else {
        let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        if !is_host_name(name) {
            return Err(
                "the host is not a name in ASCII (international names as xn--...) or an address",
            );
        }
        (Host::Name(name), port)
    };
    let port = match port.strip_prefix(':') {
        Some(digits) => Some(parse_port(digits)?),
        None if port.is_empty() => None,
        None => return Err("something follows the address that is not a port"),
    };
    Ok((host, port))
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

fn parse_port(digits: &str) -> Result<u16, &'static str> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(port) if is_number => Ok(port),
        _ => Err("the port is not a number from 0 to 65535"),
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("http") {
        Some(80)
    } else if scheme.eq_ignore_ascii_case("https") {
        Some(443)
    } else {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_whole_origin_only() {
        let list =
            OriginList::parse(&["https://example.com", "http://[::1]:8080", "app://x"]).unwrap();
        for origin in [
            "https://example.com",
            "https://example.com:443",
            "HTTPS://EXAMPLE.com",
            "http://[0:0:0:0:0:0:0:1]:8080",
            "app://x",
        ] {
            assert!(list.matches(origin), "{origin}");
        }
        for origin in [
            "",
            "null",
            "https://",
            "http://example.com",
            "https://example.com:444",
            "https://example.com:80",
            "https://example.com.evil.example",
            "https://example.comevil",
            "https://evil-example.com",
            "https://a.example.com",
            "https://example.com.",
            "https://example.com/",
            "https://example.com@evil.example",
            "https://evil.example/https://example.com",
            "https://example.com https://evil.example",
            " https://example.com",
            "https://example.com\0",
            "https://example.com:",
            "https://example.com:+443",
            "https://example.com:99999",
            "http://[::1]",
            "http://::1:8080",
            "app://x:80",
        ] {
            assert!(!list.matches(origin), "{origin}");
        }
    }

    #[test]
    fn wrong_rules_are_named() {
        for text in [
            "null",
            "*",
            "example.com",
            "https://",
            "https://*.example.com",
            "https://example.com/",
            "https://user@example.com",
            "https://exämple.com",
            "https://example.com:x",
            "://example.com",
            "wss://example.com",
            "file://",
            "http://[::1",
            "http://[::1]x",
        ] {
            let error = OriginList::parse(&["https://good.example", text]).unwrap_err();
            assert_eq!(error.text, text);
            assert!(error.to_string().contains(text));
        }
        assert!(OriginList::parse::<&str>(&[]).unwrap().is_empty());
    }

    #[test]
    fn loopback_origins() {
        for origin in [
            "http://localhost",
            "https://LOCALHOST:3000",
            "http://app.localhost:8080",
            "http://127.0.0.1:5173",
            "http://127.1.2.3",
            "http://[::1]:80",
        ] {
            assert!(is_loopback_origin(origin), "{origin}");
        }
        for origin in [
            "null",
            "file://",
            "http://.localhost",
            "http://notlocalhost",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://127.evil.example",
            "http://0177.0.0.1",
            "http://0.0.0.0",
            "http://[::2]",
            "http://localhost@evil.example",
            "capacitor://localhost",
        ] {
            assert!(!is_loopback_origin(origin), "{origin}");
        }
    }

    #[test]
    fn same_origins() {
        for (origin, host) in [
            ("http://example.com", "example.com"),
            ("http://example.com", "Example.com:80"),
            ("https://example.com", "example.com"),
            ("https://example.com", "example.com:443"),
            ("http://example.com:8080", "example.com:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert!(same_origin(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("null", "null"),
            ("http://example.com", "example.com:8080"),
            ("http://example.com:8080", "example.com"),
            ("https://example.com", "example.com:80"),
            ("http://example.com", "example.com.evil.example"),
            ("http://example.com", ""),
            ("app://example.com", "example.com"),
        ] {
            assert!(!same_origin(origin, host), "{origin} {host}");
        }
    }
}
