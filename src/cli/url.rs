//! Targets of `umbel sub` and `umbel pub`: a URL (RFC 3986, the parts that are needed), or a bare topic on the default
//! server.

use std::fmt;

use umbel::internals::http::escape::escape;
use umbel::internals::http::query::is_reserved;
use umbel::internals::topic::Topic;

/// The server that a bare topic means.
pub const DEFAULT_SERVER: &str = "127.0.0.1:8080";

/// Protocol to speak with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http://`
    Http,
    /// `ws://`
    WebSocket,
}

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Protocol to speak.
    pub scheme: Scheme,
    /// Whether it is spoken over TLS: `https://`, `wss://`.
    pub is_secure: bool,
    /// The host, an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path and the query, percent-encoded.
    pub target: String,
}

impl Url {
    /// Reads what stands on the command line. A text without `://` is a topic on `server`, spoken to by `scheme`.
    ///
    /// # Errors
    /// Says what is wrong and what to write instead.
    pub fn parse(text: &str, scheme: Scheme, server: &str) -> Result<Url, String> {
        let Some((name, rest)) = text.split_once("://") else {
            return bare(text, scheme, server);
        };
        let (scheme, is_secure) = scheme_of(name, text)?;
        check_tls(name, is_secure, rest)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if target.contains('#') {
            return Err(format!(
                "{}: a fragment (#) means nothing to a server; write %23 for a # in a topic",
                escape(text)
            ));
        }
        let (host, port) = parse_authority(authority, default_port(is_secure))?;
        Ok(Url {
            scheme,
            is_secure,
            host,
            port,
            target: encode_target(target),
        })
    }

    /// A target on a server, given as HOST:PORT or a bare URL.
    ///
    /// # Errors
    /// Says what is wrong and what to write instead.
    pub fn on_server(server: &str, scheme: Scheme, target: &str) -> Result<Url, String> {
        let (authority, is_secure) = match server.split_once("://") {
            None => (server, false),
            Some((name, rest)) => {
                let rest = rest.strip_suffix('/').unwrap_or(rest);
                let (_, is_secure) = scheme_of(name, server)?;
                check_tls(name, is_secure, rest)?;
                (rest, is_secure)
            }
        };
        let (host, port) = parse_authority(authority, default_port(is_secure))
            .map_err(|error| format!("--server: {error}"))?;
        Ok(Url {
            scheme,
            is_secure,
            host,
            port,
            target: encode_target(target),
        })
    }

    /// Topic of the path behind a prefix such as `/ws/`, canonical.
    pub fn topic(&self, prefix: &str) -> Option<String> {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*self.target, None),
        };
        let topic = Topic::parse(path.strip_prefix(prefix)?, query).ok()?;
        Some(topic.as_str().to_owned())
    }

    /// Takes the first parameter of these names out of the query. It stays encoded.
    pub fn take_parameter(&mut self, names: &[&str]) -> Option<String> {
        let (path, query) = self.target.split_once('?')?;
        let is_named = |pair: &&str| names.contains(&pair.split('=').next().unwrap_or_default());
        let taken = query.split('&').find(is_named)?.to_owned();
        let rest: Vec<_> = query.split('&').filter(|pair| !is_named(pair)).collect();
        self.target = match rest.is_empty() {
            true => path.to_owned(),
            false => format!("{path}?{}", rest.join("&")),
        };
        Some(taken)
    }

    /// Adds a parameter to the query.
    pub fn add_parameter(&mut self, parameter: &str) {
        let mark = if self.target.contains('?') { '&' } else { '?' };
        self.target = format!("{}{mark}{parameter}", self.target);
    }

    /// The beginning of a URL on the same server: `wss://a:8443`.
    pub fn origin(&self, scheme: Scheme) -> String {
        let name = match (scheme, self.is_secure) {
            (Scheme::Http, false) => "http",
            (Scheme::Http, true) => "https",
            (Scheme::WebSocket, false) => "ws",
            (Scheme::WebSocket, true) => "wss",
        };
        format!("{name}://{}", self.authority())
    }

    /// The server as `--server` takes it.
    pub fn server(&self) -> String {
        match self.is_secure {
            true => self.origin(Scheme::Http),
            false => self.authority(),
        }
    }

    /// The value of the header `Host`: the port only where it is not the default one.
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port {
            port if port == default_port(self.is_secure) => host,
            port => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.split('?').next().unwrap_or_default();
        // The query may hold a token.
        write!(f, "{}{}", self.origin(self.scheme), escape(target))
    }
}

fn default_port(is_secure: bool) -> u16 {
    if is_secure { 443 } else { 80 }
}

/// Whether this build can speak to such a URL.
fn check_tls(scheme: &str, is_secure: bool, rest: &str) -> Result<(), String> {
    if !is_secure || cfg!(feature = "tls") {
        return Ok(());
    }
    let plain = scheme.to_ascii_lowercase();
    let plain = plain.trim_end_matches('s');
    let rest = rest.split('?').next().unwrap_or_default();
    Err(format!(
        "this build speaks no TLS: use {}://{}, or a proxy on this machine that adds TLS",
        if plain == "http" { "http" } else { "ws" },
        escape(rest)
    ))
}

/// Scheme of a URL by its name, and whether it is one of TLS.
fn scheme_of(name: &str, url: &str) -> Result<(Scheme, bool), String> {
    match &*name.to_ascii_lowercase() {
        "http" => Ok((Scheme::Http, false)),
        "ws" => Ok((Scheme::WebSocket, false)),
        "https" => Ok((Scheme::Http, true)),
        "wss" => Ok((Scheme::WebSocket, true)),
        _ => Err(format!(
            "{}: the scheme is none of wss://, https://, ws:// and http://",
            escape(url)
        )),
    }
}

/// Checks that a text without `://` is no URL whose scheme was forgotten.
///
/// # Errors
/// Says what to write.
pub fn check_bare(text: &str) -> Result<(), String> {
    match looks_like_address(text) {
        true => Err(format!(
            "{0} looks like an address without its scheme: write ws://{0} or http://{0}",
            escape(text)
        )),
        false => Ok(()),
    }
}

fn bare(text: &str, scheme: Scheme, server: &str) -> Result<Url, String> {
    check_bare(text)?;
    let topic = Topic::from_text(text).map_err(|refusal| {
        format!(
            "{:?} is neither a URL (ws://, http://) nor a topic: {}",
            escape(text).to_string(),
            refusal.reason
        )
    })?;
    let mut target = String::from(match scheme {
        Scheme::Http => "/pub/",
        Scheme::WebSocket => "/ws/",
    });
    topic.encode_target(&mut target);
    for parameter in reserved_parameters(text) {
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str(parameter);
    }
    Url::on_server(server, scheme, &target)
}

/// The parameters behind a bare topic that speak about the request, such as `last=10`.
fn reserved_parameters(text: &str) -> impl Iterator<Item = &str> {
    let query = text.split_once('?').map_or("", |(_, query)| query);
    query.split('&').filter(|parameter| {
        let name = parameter.split('=').next().unwrap_or_default();
        is_reserved(name)
    })
}

/// Whether a topic reads like `localhost:8080/ws/news`, a URL whose scheme was forgotten.
fn looks_like_address(text: &str) -> bool {
    let Some((authority, _)) = text.split_once('/') else {
        return false;
    };
    authority
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn parse_authority(authority: &str, default_port: u16) -> Result<(String, u16), String> {
    let wrong = |what: &str| Err(format!("{}: {what}", escape(authority)));
    if authority.contains('@') {
        return Err("a URL with a user name: give --token or UMBEL_TOKEN instead".to_owned());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) if host.contains(':') => (host, port),
            _ => return wrong("an IPv6 address is written as [::1]"),
        },
        None if authority.matches(':').count() > 1 => {
            return wrong("an IPv6 address is written as [::1]");
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_host_byte) {
        return wrong("the host is missing or malformed, as in ws://127.0.0.1:8080/ws/news");
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default_port,
        Some(digits) => match digits.parse() {
            Ok(port) if port > 0 => port,
            _ => return wrong("the port must be a number from 1 to 65535"),
        },
        None => return wrong("the port must follow a colon"),
    };
    Ok((host.to_owned(), port))
}

/// Escapes what a request line cannot hold; what is escaped already stays as it is.
fn encode_target(target: &str) -> String {
    let mut encoded = String::with_capacity(target.len() + 1);
    if !target.starts_with('/') {
        encoded.push('/');
    }
    for byte in target.bytes() {
        match byte.is_ascii_graphic() {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Url, String> {
        Url::parse(text, Scheme::WebSocket, DEFAULT_SERVER)
    }

    #[test]
    fn urls() {
        for (text, host, port, target, authority) in [
            ("ws://a/ws/x?y=1", "a", 80, "/ws/x?y=1", "a"),
            ("WS://a.b:8080", "a.b", 8080, "/", "a.b:8080"),
            (
                "ws://[::1]:9/a b\u{e9}",
                "::1",
                9,
                "/a%20b%C3%A9",
                "[::1]:9",
            ),
            ("ws://a:80?x", "a", 80, "/?x", "a"),
            ("wss://a/x", "a", 443, "/x", "a"),
            ("WSS://a:443/x", "a", 443, "/x", "a"),
            ("https://a:80/x", "a", 80, "/x", "a:80"),
        ] {
            let url = parse(text).unwrap();
            assert_eq!((&*url.host, url.port), (host, port), "{text}");
            assert_eq!((&*url.target, &*url.authority()), (target, authority));
        }
        assert_eq!(parse("http://a/pub/x").unwrap().scheme, Scheme::Http);
    }

    #[test]
    fn bare_topic_on_the_default_server() {
        let url = parse("tokens?b=2&a=1 2").unwrap();
        assert_eq!(url.target, "/ws/tokens?a=1%202&b=2");
        assert_eq!((&*url.host, url.port), ("127.0.0.1", 8080));
        let url = parse("news?last=10&b=2&token=x y&a=1").unwrap();
        assert_eq!(url.target, "/ws/news?a=1&b=2&last=10&token=x%20y");
        assert_eq!(parse("news?last=10").unwrap().target, "/ws/news?last=10");
        let url = Url::parse("news", Scheme::Http, "[::1]:99").unwrap();
        assert_eq!((&*url.target, url.port), ("/pub/news", 99));
    }

    #[test]
    fn servers_of_other_schemes() {
        let target = |server| Url::on_server(server, Scheme::Http, "/health");
        assert!(target("http://a").is_ok() && target("a:80").is_ok());
        let error = target("ftp://a").unwrap_err();
        assert!(error.contains("ftp://a: the scheme is none of"), "{error}");
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_of_another_build() {
        for (text, part) in [
            ("wss://a/ws/x?token=t", "use ws://a/ws/x,"),
            ("https://a", "speaks no TLS: use http://a,"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn errors_say_what_to_write() {
        for (text, part) in [
            ("ftp://a", "ws:// and http://"),
            ("localhost:8080/ws/news", "ws://localhost:8080/ws/news"),
            ("", "the topic is empty"),
            ("ws://", "host"),
            ("ws://a:0/", "1 to 65535"),
            ("ws://a:b/", "1 to 65535"),
            ("ws://::1/", "[::1]"),
            ("ws://[::1/", "[::1]"),
            ("ws://u:p@a/", "--token"),
            ("ws://a/ws/x#y", "%23"),
            ("ws://a\r\nb/", "malformed"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains(char::is_control), "{error}");
        }
    }

    #[test]
    fn server_address_or_url() {
        for server in ["a:81", "http://a:81", "ws://a:81/", "HTTP://a:81/"] {
            let url = Url::on_server(server, Scheme::WebSocket, "/ws").unwrap();
            assert_eq!(url.to_string(), "ws://a:81/ws");
        }
        for (server, shown) in [
            ("wss://a", "wss://a/ws"),
            ("https://a:80/", "wss://a:80/ws"),
        ] {
            let url = Url::on_server(server, Scheme::WebSocket, "/ws").unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(url.is_secure);
        }
        for (server, part) in [("a:b", "--server: "), ("a/x", "--server: ")] {
            let error = Url::on_server(server, Scheme::Http, "/").unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn parameters() {
        let mut url = parse("ws://a/ws/t?x=1&last=5&y").unwrap();
        assert_eq!(url.topic("/ws/").as_deref(), Some("t?x=1&y"));
        let names = &["since", "last"];
        assert_eq!(url.take_parameter(names).as_deref(), Some("last=5"));
        assert_eq!(url.take_parameter(names), None);
        assert_eq!(url.target, "/ws/t?x=1&y");
        url.add_parameter("since=5");
        assert_eq!(url.target, "/ws/t?x=1&y&since=5");
        let mut url = parse("ws://a/x?last=5").unwrap();
        assert_eq!(url.take_parameter(names).as_deref(), Some("last=5"));
        assert_eq!((&*url.target, url.topic("/ws/")), ("/x", None));
    }

    #[test]
    fn a_shown_url_holds_no_token() {
        let url = parse("ws://a/ws/x?token=s3cret").unwrap();
        assert_eq!(url.to_string(), "ws://a/ws/x");
    }
}
