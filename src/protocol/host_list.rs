//! Hosts that a request may be sent to: RFC 9110, section 7.2.
//!
//! A page whose name leads to this machine, be it by accident or by design, sends that name. So the name tells whether
//! the request was meant for this server, where its origin does not (DNS rebinding).

use std::fmt;

use super::origin::{Host, parse_authority};

/// The hosts that are this server's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostList {
    hosts: Vec<String>,
}

/// A text in the configuration that is not a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostError {
    /// The text.
    pub text: String,
    /// Problem and remedy.
    pub problem: &'static str,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostError { text, problem } = self;
        write!(
            f,
            "{text:?} is not a host such as push.example.com: {problem}"
        )
    }
}

impl std::error::Error for HostError {}

impl HostList {
    /// Reads the hosts of a configuration: names and addresses, IPv6 in brackets, without ports.
    ///
    /// # Errors
    /// The first that is not one.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<HostList, HostError> {
        let check = |text: &str| match parse_authority(text) {
            Ok((_, None)) => Ok(text.to_owned()),
            Ok((_, Some(_))) => Err("a host holds for all ports; write it without one"),
            Err(_) if text.contains("://") => Err("write it without a scheme"),
            Err(problem) => Err(problem),
        };
        let hosts = texts.iter().map(AsRef::as_ref).map(|text| {
            check(text).map_err(|problem| HostError {
                text: text.to_owned(),
                problem,
            })
        });
        Ok(HostList {
            hosts: hosts.collect::<Result<_, _>>()?,
        })
    }

    /// Whether a `Host` is one of them, with whatever port.
    pub fn matches(&self, host: &str) -> bool {
        let Ok((host, _)) = parse_authority(host) else {
            return false;
        };
        let mut listed = self.hosts.iter().flat_map(|text| parse_authority(text));
        listed.any(|(listed, _): (Host<'_>, _)| listed == host)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}

impl fmt::Display for HostList {
    /// As it was written, with commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hosts.join(", "))
    }
}

/// Whether a `Host` is a name of this machine: `localhost`, a name under it, an address in 127.0.0.0/8, or `[::1]`, on
/// any port.
pub fn is_loopback_host(host: &str) -> bool {
    parse_authority(host).is_ok_and(|(host, _)| host.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for host in [
            "localhost",
            "LocalHost:8080",
            "a.localhost",
            "a.b.localhost:1",
            "127.0.0.1:8080",
            "127.255.0.1",
            "[::1]",
            "[0:0:0:0:0:0:0:1]:80",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "xlocalhost",
            ".localhost",
            "127.0.0.1.evil.example",
            "127.0.0.1x",
            "128.0.0.1",
            "0.0.0.0",
            "[::]",
            "[::ffff:127.0.0.1]",
            "localhost/",
            "a@localhost",
            "localhost:x",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn listed_hosts_match_on_all_ports() {
        let list = HostList::parse(&["push.example.com", "10.0.0.1", "[2001:db8::1]"]);
        let list = list.expect("they are hosts");
        for host in [
            "push.example.com",
            "PUSH.example.COM:8443",
            "10.0.0.1:80",
            "[2001:db8:0::1]:1",
        ] {
            assert!(list.matches(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "x.push.example.com",
            "push.example.com.",
            "10.0.0.2",
            "[::1]",
        ] {
            assert!(!list.matches(host), "{host}");
        }
        assert_eq!(
            list.to_string(),
            "push.example.com, 10.0.0.1, [2001:db8::1]"
        );
    }

    #[test]
    fn what_is_no_host_is_told_why() {
        for (text, word) in [
            ("", "not a name"),
            ("https://push.example.com", "without a scheme"),
            ("push.example.com:443", "without one"),
            ("push.example.com/", "a path"),
            ("*.example.com", "not a name"),
            ("[::1", "]"),
        ] {
            let error = HostList::parse(&["a", text]).expect_err(text);
            assert_eq!(error.text, text);
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
    }
}
