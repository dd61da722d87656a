//! Proxies in front of a listener: which are trusted, and by what they tell of their clients.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

pub use crate::http::forwarded::ForwardedHeader;

/// Most networks of trusted proxies. They are tried one by one.
pub const TRUSTED_PROXIES_MAX: usize = 1024;

/// Word for peers on unix sockets in a list of trusted proxies.
const UNIX: &str = "unix";

/// Addresses of proxies that are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    unix: bool,
}

impl TrustedProxies {
    /// None at all.
    pub const NONE: TrustedProxies = TrustedProxies {
        networks: Vec::new(),
        unix: false,
    };

    /// Reads them: networks such as `10.0.0.0/8`, addresses, and `unix` for peers on unix sockets.
    ///
    /// # Errors
    /// Names the first that is none, or there are more than [`TRUSTED_PROXIES_MAX`].
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<TrustedProxies, String> {
        let mut proxies = TrustedProxies::NONE;
        for text in texts {
            proxies.add(text.as_ref())?;
        }
        Ok(proxies)
    }

    /// Adds one network, address, or `unix`.
    ///
    /// # Errors
    /// It is none, or there are as many as there can be.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        if text == UNIX {
            self.unix = true;
            return Ok(());
        }
        let network = text.parse::<IpNet>().ok();
        let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let network = network.ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            format!("{shown:?} is no network: write 10.0.0.0/8, 2001:db8::/32, 127.0.0.1, or {UNIX} for unix sockets")
        })?;
        if self.networks.len() >= TRUSTED_PROXIES_MAX {
            return Err(format!("there can be at most {TRUSTED_PROXIES_MAX}"));
        }
        self.networks.push(canonical(network));
        Ok(())
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether an address is one of a trusted proxy. An IPv4 address in the form of IPv6 counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Whether the other end of a connection is one. None is an end without an address, as on a unix socket; of one that is
    /// gone nothing is believed.
    pub fn trusts(&self, peer: &io::Result<Option<SocketAddr>>) -> bool {
        match peer {
            Ok(Some(address)) => self.contains(address.ip()),
            Ok(None) => self.unix,
            Err(_) => false,
        }
    }
}

/// A network of IPv4 addresses in the form of IPv6 becomes what it is, for so do addresses.
fn canonical(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && let (Some(ip), Some(length)) =
            (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
        && let Ok(v4) = IpNet::new(ip.into(), length)
    {
        return v4;
    }
    network
}

impl fmt::Display for TrustedProxies {
    /// With commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks = self.networks.iter().map(ToString::to_string);
        let unix = self.unix.then(|| UNIX.to_owned());
        f.write_str(&networks.chain(unix).collect::<Vec<_>>().join(","))
    }
}

/// Proxies in front of a listener.
///
/// ```
/// use umbel::config::{Listener, Proxies};
///
/// # fn main() -> Result<(), String> {
/// let mut listener: Listener = "127.0.0.1:8080".parse()?;
/// listener.proxies.trusted.add("127.0.0.1")?;
/// assert_ne!(listener.proxies, Proxies::default());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proxies {
    /// Proxies that are believed: `trusted_proxies`.
    pub trusted: TrustedProxies,
    /// Header by which they tell of the client: `forwarded_header`. None: by none.
    pub header: Option<ForwardedHeader>,
    /// Whether they tell the host too: `forwarded_host`. It counts for the rule of one origin.
    pub host: bool,
    /// Whether each connection begins with a PROXY header: `proxy_protocol`.
    pub protocol: bool,
}

impl Default for Proxies {
    fn default() -> Proxies {
        Proxies {
            trusted: TrustedProxies::NONE,
            header: Some(ForwardedHeader::XForwardedFor),
            host: false,
            protocol: false,
        }
    }
}

/// Words of `forwarded_header`.
#[cfg(feature = "config-file")]
pub(super) const FORWARDED_HEADERS: &[&str] = &["x-forwarded-for", "forwarded", "off"];

impl Proxies {
    /// Proxies for all reactors, if anything is said of any.
    pub(crate) fn set(&self) -> Option<Arc<Proxies>> {
        (*self != Proxies::default()).then(|| Arc::new(self.clone()))
    }

    /// Reads a word of `forwarded_header`.
    ///
    /// # Errors
    /// It is none.
    pub fn parse_header(word: &str) -> Result<Option<ForwardedHeader>, String> {
        match word {
            "x-forwarded-for" => Ok(Some(ForwardedHeader::XForwardedFor)),
            "forwarded" => Ok(Some(ForwardedHeader::Forwarded)),
            "off" => Ok(None),
            _ => Err("forwarded_header is x-forwarded-for, forwarded or off".to_owned()),
        }
    }

    /// What is wrong with them, if anything is.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let defaults = Proxies::default();
        match self.trusted.is_empty() {
            true if self.protocol => Some(
                "with proxy_protocol whoever sends the header is believed: name the proxies in trusted_proxies",
            ),
            true if self.header != defaults.header || self.host => Some(
                "nobody is believed who tells of a client: name the proxies in trusted_proxies, or leave out \
                 forwarded_header and forwarded_host",
            ),
            false if self.host && self.header.is_none() => {
                Some("forwarded_host is told by the forwarded_header, which is off")
            }
            _ => None,
        }
    }

    /// Options of `--listen` that say the same.
    pub(super) fn options(&self) -> Vec<String> {
        let trusted = self.trusted.to_string();
        let networks = trusted.split(',').filter(|text| !text.is_empty());
        let mut options: Vec<_> = networks
            .map(|text| format!("trusted_proxies={text}"))
            .collect();
        options.extend(match self.header {
            Some(ForwardedHeader::XForwardedFor) => None,
            Some(ForwardedHeader::Forwarded) => Some("forwarded_header=forwarded".to_owned()),
            None => Some("forwarded_header=off".to_owned()),
        });
        options.extend(self.host.then(|| "forwarded_host=true".to_owned()));
        options.extend(self.protocol.then(|| "proxy_protocol=true".to_owned()));
        options
    }

    /// Reads one option of `--listen`. False: it is none of these.
    ///
    /// # Errors
    /// Its value cannot stand.
    pub(super) fn set_option(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "trusted_proxies" => self.trusted.add(value)?,
            "forwarded_header" => self.header = Proxies::parse_header(value)?,
            "forwarded_host" => self.host = parse_flag(name, value)?,
            "proxy_protocol" => self.protocol = parse_flag(name, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Reads the value of an option that is true or false.
///
/// # Errors
/// It is neither.
pub(super) fn parse_flag(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{name} is true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(texts: &[&str]) -> TrustedProxies {
        TrustedProxies::parse(texts).expect("networks")
    }

    #[test]
    fn addresses_are_matched_as_what_they_are() {
        let proxies = trusted(&[
            "10.0.0.0/8",
            "::ffff:192.0.2.0/120",
            "2001:db8::/32",
            "127.0.0.1",
        ]);
        for (address, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("192.0.3.7", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("::1", false),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(proxies.contains(address), expected, "{address}");
        }
        let all_v6 = trusted(&["::/0"]);
        assert!(!all_v6.contains("1.2.3.4".parse().expect("an address")));
        let gone = || Err(io::ErrorKind::NotConnected.into());
        assert!(!proxies.trusts(&Ok(None)) && !proxies.trusts(&gone()));
        let unix = trusted(&["unix"]);
        assert!(unix.trusts(&Ok(None)) && !unix.trusts(&gone()) && !unix.is_empty());
    }

    #[test]
    fn what_is_no_network_is_named() {
        for wrong in ["", "10.0.0.0/33", "localhost", "10.0.0", "*", "UNIX"] {
            let error = TrustedProxies::parse(&[wrong]).expect_err("it is none");
            assert!(error.contains("is no network"), "{error}");
        }
        let many = vec!["10.0.0.0/8"; TRUSTED_PROXIES_MAX + 1];
        assert!(TrustedProxies::parse(&many).is_err());
    }
}
