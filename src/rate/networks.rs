//! Keys of addresses, and addresses that no limit holds for.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

/// Key of an address: an IPv4 address, or the first bits of an IPv6 address. An IPv4 address that an IPv6 socket shows is
/// an IPv4 address.
pub fn key_of(address: IpAddr, v6_prefix_bits: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let behind = 128 - v6_prefix_bits.min(128);
            let mask = u128::MAX.checked_shl(behind).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    }
}

/// Networks that no limit by address holds for.
#[derive(Clone, Debug, Default)]
pub struct Exempt(Arc<[IpNet]>);

impl Exempt {
    /// These.
    pub fn new(networks: &[IpNet]) -> Exempt {
        Exempt(networks.into())
    }

    /// Whether this address is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn keys_of_addresses() {
        assert_eq!(key_of(ip("::ffff:10.0.0.1"), 64), ip("10.0.0.1"));
        assert_eq!(key_of(ip("2001:db8:1:2:3::4"), 64), ip("2001:db8:1:2::"));
        assert_eq!(
            key_of(ip("2001:db8:1:2ff:3::4"), 56),
            ip("2001:db8:1:200::")
        );
        assert_eq!(key_of(ip("2001:db8::4"), 128), ip("2001:db8::4"));
        assert_eq!(key_of(ip("2001:db8::4"), 0), ip("::"));
    }

    #[test]
    fn exempt_networks() {
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().expect("a network"));
        let exempt = Exempt::new(&networks);
        for (address, is_exempt) in [
            ("10.255.0.1", true),
            ("::ffff:10.1.1.1", true),
            ("11.0.0.1", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(exempt.contains(ip(address)), is_exempt, "{address}");
        }
        assert!(!Exempt::default().contains(ip("127.0.0.1")));
    }
}
