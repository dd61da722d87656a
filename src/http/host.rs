//! The authority of a request: `host [ ":" port ]` (RFC 3986 section 3.2, RFC 9110 section 7.2).

/// A host name of 255 bytes, a colon, and a port.
const AUTHORITY_BYTES_MAX: usize = 255 + 1 + 5;

/// Whether this is a host with an optional port: no user, no path, no blank, not empty.
pub(super) fn is_authority(text: &str) -> bool {
    if text.len() > AUTHORITY_BYTES_MAX {
        return false;
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if is_ipv6_address(address) => ("ipv6", port),
            _ => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    is_registered_name(host) && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

fn is_ipv6_address(text: &str) -> bool {
    text.parse::<std::net::Ipv6Addr>().is_ok()
}

/// A name or an IPv4 address. Percent escapes are legal in the grammar, but no name in use has one.
fn is_registered_name(text: &str) -> bool {
    let is_name_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
    !text.is_empty() && text.bytes().all(is_name_byte)
}

/// Digits that fit a port; none at all is the scheme's default (RFC 3986 section 3.2.3).
fn is_port(text: &str) -> bool {
    text.is_empty()
        || (text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_port() {
        let good = [
            "a",
            "example.com",
            "Example.COM:8080",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:443",
            "a_b",
            "localhost:",
            "x:0",
        ];
        for text in good {
            assert!(is_authority(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_authority() {
        let bad = [
            "",
            ":80",
            "a b",
            "a/b",
            "user@host",
            "a:b",
            "a:65536",
            "a:+1",
            "a:80:80",
            "[::1",
            "::1",
            "[::1]x",
            "[]",
            "[g::1]",
            "a,b ",
            "h\u{e9}",
            "a%41",
            "[::1]:x",
            "a?b",
            "a#b",
            "a\\b",
        ];
        for text in bad {
            assert!(!is_authority(text), "{text}");
        }
        assert!(is_authority(&"a".repeat(255)));
        assert!(!is_authority(&"a".repeat(262)));
    }
}
