//! URLs that a setting names: what is asked, and how it is reached.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ureq::http::Uri;

use super::address::{self, Plain};

/// URL of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// URL of HTTP. Of a unix socket its host is `localhost`.
    uri: Uri,
    /// Path of the unix socket that it is reached by.
    unix: Option<PathBuf>,
    /// Addresses that it may have, as it is reached without TLS.
    plain: Option<Plain>,
}

impl Target {
    /// Reads `https://HOST[:PORT]/PATH`, `http://…` or `unix:SOCKET[:/PATH]`.
    ///
    /// # Errors
    /// It is none of these, names a user or a fragment, or an address that may not be asked.
    pub fn parse(text: &str, plain: Plain) -> Result<Target, String> {
        if let Some(rest) = text.strip_prefix("unix:") {
            return Target::parse_unix(rest);
        }
        let form = "it must be https://HOST/PATH, or http://HOST/PATH of a near host";
        let uri: Uri = text.parse().map_err(|_| form.to_owned())?;
        let plain = match uri.scheme_str() {
            Some("https") => None,
            Some("http") => Some(plain),
            _ => return Err(form.to_owned()),
        };
        let authority = uri.authority().ok_or(form)?;
        if authority.as_str().contains('@') || text.contains('#') {
            return Err("it may have no user, password or fragment".to_owned());
        }
        let host = authority.host();
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = literal.parse::<IpAddr>() {
            address::check(address, plain).map_err(|why| format!("{host}: {why}"))?;
        }
        Ok(Target {
            uri,
            unix: None,
            plain,
        })
    }

    fn parse_unix(rest: &str) -> Result<Target, String> {
        let (socket, path) = match rest.split_once(':') {
            Some((socket, path)) => (socket, path),
            None => (rest, "/"),
        };
        if cfg!(not(unix)) {
            return Err("this system has no unix sockets".to_owned());
        }
        let form = "it must be unix:/SOCKET:/PATH";
        if !socket.starts_with('/') || !path.starts_with('/') || path.contains('#') {
            return Err(form.to_owned());
        }
        let uri = format!("http://localhost{path}");
        Ok(Target {
            uri: uri.parse().map_err(|_| form.to_owned())?,
            unix: Some(socket.into()),
            plain: Some(Plain::Loopback),
        })
    }

    /// The URL of HTTP.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Path of the unix socket that it is reached by.
    pub fn unix(&self) -> Option<&PathBuf> {
        self.unix.as_ref()
    }

    /// Addresses that it may have, as it is reached without TLS.
    pub fn plain(&self) -> Option<Plain> {
        self.plain
    }

    /// The URL with one more segment. Its query is left out.
    pub fn join(&self, segment: &str) -> String {
        let (scheme, authority) = self.origin();
        let path = self.uri.path().trim_end_matches('/');
        format!("{scheme}://{authority}{path}/{segment}")
    }

    /// The URL of a redirect within the origin.
    ///
    /// # Errors
    /// It is of another origin, or no URL.
    pub fn redirected(&self, from: &Uri, location: &str) -> Result<Uri, String> {
        let (scheme, authority) = self.origin();
        let absolute = if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location.starts_with('/') {
            format!("{scheme}://{authority}{location}")
        } else if location.contains("://") {
            location.to_owned()
        } else {
            let path = from.path();
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{authority}{folder}/{location}")
        };
        let absolute = absolute.split('#').next().unwrap_or_default();
        let uri: Uri = absolute
            .parse()
            .map_err(|_| "the redirect is to no URL".to_owned())?;
        let port_of = |uri: &Uri| {
            let default = match uri.scheme_str() {
                Some("https") => 443,
                _ => 80,
            };
            uri.port_u16().unwrap_or(default)
        };
        let is_same = uri.scheme() == self.uri.scheme()
            && port_of(&uri) == port_of(&self.uri)
            && uri.host().is_some_and(|host| {
                let own = self.uri.host().unwrap_or_default();
                host.eq_ignore_ascii_case(own)
            })
            && uri.authority().is_some_and(|it| !it.as_str().contains('@'));
        match is_same {
            true => Ok(uri),
            false => Err("the redirect leads to another origin".to_owned()),
        }
    }

    fn origin(&self) -> (&str, &str) {
        let authority = self.uri.authority().map_or("", |it| it.as_str());
        (self.uri.scheme_str().unwrap_or("http"), authority)
    }
}

impl fmt::Display for Target {
    /// Without the query, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, authority) = self.origin();
        match &self.unix {
            Some(socket) => write!(f, "unix:{}:{}", socket.display(), self.uri.path()),
            None => write!(f, "{scheme}://{authority}{}", self.uri.path()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        Target::parse(text, Plain::Private).expect("a target")
    }

    #[test]
    fn urls_that_may_be_asked() {
        for (text, joined) in [
            (
                "https://app.example/umbel",
                "https://app.example/umbel/connect",
            ),
            ("http://app:9000/umbel/", "http://app:9000/umbel/connect"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000/connect"),
            ("http://[::1]:9000/a?b=c", "http://[::1]:9000/a/connect"),
            (
                "unix:/run/app.sock:/umbel",
                "http://localhost/umbel/connect",
            ),
            ("unix:/run/app.sock", "http://localhost/connect"),
        ] {
            assert_eq!(target(text).join("connect"), joined);
        }
        assert_eq!(
            target("https://a.example/x?key=secret").to_string(),
            "https://a.example/x"
        );
        let socket = target("unix:/run/app.sock:/umbel");
        assert_eq!(socket.to_string(), "unix:/run/app.sock:/umbel");
    }

    #[test]
    fn urls_that_may_not() {
        for text in [
            "",
            "app:9000",
            "/umbel",
            "ftp://app/x",
            "https://user:secret@app.example/",
            "https://app.example/#x",
            "http://203.0.113.9/",
            "http://[2001:db8::1]/",
            "http://169.254.169.254/latest",
            "https://169.254.169.254/latest",
            "https://[::ffff:169.254.169.254]/",
            "https://[fe80::1]/",
            "unix:app.sock",
            "unix:/run/app.sock:umbel",
            "https://",
        ] {
            assert!(Target::parse(text, Plain::Private).is_err(), "{text}");
        }
        assert!(Target::parse("http://10.0.0.1/", Plain::Private).is_ok());
        assert!(Target::parse("http://10.0.0.1/", Plain::Loopback).is_err());
    }

    #[test]
    fn redirects_stay_within_the_origin() {
        let target = target("https://idp.example/a/jwks?x=1");
        let to = |location: &str| {
            let uri = target.redirected(target.uri(), location);
            uri.map(|uri| uri.to_string())
        };
        for (location, expected) in [
            ("/keys", "https://idp.example/keys"),
            ("keys?y=2#z", "https://idp.example/a/keys?y=2"),
            ("https://IDP.example/k", "https://IDP.example/k"),
            ("https://idp.example:443/k", "https://idp.example:443/k"),
            ("//idp.example/k", "https://idp.example/k"),
        ] {
            assert_eq!(to(location).as_deref(), Ok(expected), "{location}");
        }
        for location in [
            "http://idp.example/k",
            "https://idp.example:444/k",
            "https://other.example/k",
            "//other.example/k",
            "https://idp.example@other.example/k",
            "https://x@idp.example/k",
            "file:///etc/passwd",
            "http://169.254.169.254/",
        ] {
            assert!(to(location).is_err(), "{location}");
        }
    }
}
