//! Target and `Host` of a request (RFC 9112 section 3.2).

use super::host::is_authority;
use super::known::Single;
use super::refusal::{ALLOW_ANY, Refusal};
use super::start_line::{Method, Version};

/// RFC 9112 section 3.2: one `Host` and a well-formed one, or none in HTTP/1.0.
pub(super) fn check_host(hosts: Single<'_>, version: Version) -> Result<Option<&str>, Refusal> {
    let Some(host) = hosts.bytes() else {
        return match version {
            Version::Http10 => Ok(None),
            Version::Http11 => Err(Refusal::bad_request("the Host header is missing").closing()),
        };
    };
    if hosts.is_repeated() {
        return Err(Refusal::bad_framing("there is more than one Host header"));
    }
    match std::str::from_utf8(host) {
        Ok(host) if is_authority(host) => Ok(Some(host)),
        _ => Err(
            Refusal::bad_request("the Host header is not a host with an optional port").closing(),
        ),
    }
}

/// The path and query of a target (RFC 9112 section 3.2).
///
/// Absolute-form names the authority a second time. RFC 9112 lets it win over `Host`; here the two have to be equal,
/// so that there is never a choice to be made, nor one to be exploited.
pub(super) fn origin_form<'a>(
    method: Method<'a>,
    target: &'a str,
    host: Option<&str>,
) -> Result<&'a str, Refusal> {
    let malformed = |reason: &'static str| Err(Refusal::bad_request(reason).closing());
    if method == Method::Other("CONNECT") {
        return Err(Refusal::method_not_allowed("this server is not a proxy", ALLOW_ANY).closing());
    }
    if target.contains('#') {
        return malformed(
            "the target holds a fragment, which is never sent; `#` is written as %23",
        );
    }
    if target.starts_with('/') || (target == "*" && method == Method::Options) {
        return Ok(target);
    }
    let Some((scheme, rest)) = target.split_once("://") else {
        return malformed("the target is neither a path nor a URL");
    };
    if !["http", "https", "ws", "wss"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return malformed("the target is a URL of a scheme other than http");
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if !is_authority(authority) || host.is_some_and(|host| !host.eq_ignore_ascii_case(authority)) {
        return malformed("the target's authority and the Host header are not the same");
    }
    match path {
        "" => Ok("/"),
        // A query behind an empty path is left as it is, for the two stand side by side nowhere in what was sent.
        _ => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::{Head, RequestLimits};

    fn parse(text: &str) -> Result<String, u16> {
        let limits = RequestLimits {
            head_bytes_max: 4096,
            headers_max: 100,
            target_bytes_max: 4096,
            body_bytes_max: 0,
        };
        Head::parse(text.as_bytes(), &limits)
            .map(|head| head.target.to_owned())
            .map_err(|refusal| {
                assert!(refusal.close, "{refusal}");
                refusal.status
            })
    }

    fn first_line(line: &str) -> Result<String, u16> {
        parse(&format!("{line}\r\nHost: a.b:80\r\n\r\n"))
    }

    #[test]
    fn forms_of_target() {
        for (target, expected) in [
            ("/a%20b?c", "/a%20b?c"),
            ("//a/../b", "//a/../b"),
            ("http://a.b:80/x?y", "/x?y"),
            ("HTTP://A.B:80", "/"),
            ("ws://a.b:80/x", "/x"),
            ("http://a.b:80?x", "?x"),
        ] {
            assert_eq!(
                first_line(&format!("GET {target} HTTP/1.1")),
                Ok(expected.to_owned()),
                "{target}"
            );
        }
        assert_eq!(first_line("OPTIONS * HTTP/1.1"), Ok("*".to_owned()));
        for target in [
            "*",
            "a",
            "a.b:80",
            "?a",
            "/a#b",
            "http://c/",
            "http://a.b:81/",
            "/\u{e9}",
            "ftp://a.b:80/",
            "http:///x",
            "http://u@a.b:80/",
            "://a.b:80/",
            "/\u{7f}",
        ] {
            assert_eq!(
                first_line(&format!("GET {target} HTTP/1.1")),
                Err(400),
                "{target}"
            );
        }
    }

    #[test]
    fn exactly_one_host() {
        let with = |lines: &str, version: &str| {
            let text = format!("GET / HTTP/{version}\r\n{lines}\r\n");
            parse(&text).map_or_else(|status| status, |_| 200)
        };
        assert_eq!(with("", "1.1"), 400);
        assert_eq!(with("", "1.0"), 200);
        for version in ["1.0", "1.1"] {
            assert_eq!(with("Host: a\r\n", version), 200);
            for lines in [
                "Host: a\r\nHost: a\r\n",
                "Host: a\r\nhost: b\r\n",
                "Host:\r\n",
                "Host: a b\r\n",
                "Host: a,b c\r\n",
                "Host: u@a\r\n",
                "Host: a/b\r\n",
            ] {
                assert_eq!(with(lines, version), 400, "{lines}");
            }
        }
    }
}
