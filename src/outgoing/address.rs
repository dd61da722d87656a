//! Addresses that a request may go to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses that may be reached without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Those of this machine.
    Loopback,
    /// Those of this machine, and of private networks.
    Private,
}

/// Whether a request may go to an address. `plain`: it goes there without TLS.
///
/// # Errors
/// Why not.
pub fn check(address: IpAddr, plain: Option<Plain>) -> Result<(), &'static str> {
    let address = unmapped(address);
    if is_link_local(address) {
        return Err("it is a link-local address, where machines keep credentials");
    }
    if address.is_unspecified() || address.is_multicast() || address == Ipv4Addr::BROADCAST {
        return Err("it is the address of no single machine");
    }
    match plain {
        None => Ok(()),
        Some(_) if address.is_loopback() => Ok(()),
        Some(Plain::Private) if is_private(address) => Ok(()),
        Some(Plain::Private) => Err("http is for loopback and private addresses; use https"),
        Some(Plain::Loopback) => Err("http is for loopback addresses; use https"),
    }
}

/// The IPv4 address that an IPv6 address stands for (RFC 4291 section 2.5.5, RFC 6052 section 2.1), or the address itself.
fn unmapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else {
        return address;
    };
    let [.., a, b] = six.segments();
    let [first @ .., _, _] = six.segments();
    let is_v4 = match first {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => true,
        // `::` and `::1` are no IPv4 addresses.
        [0, 0, 0, 0, 0, 0] => a != 0,
        _ => false,
    };
    match is_v4 {
        true => IpAddr::V4(Ipv4Addr::from_bits(u32::from(a) << 16 | u32::from(b))),
        false => address,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.is_link_local(),
        IpAddr::V6(six) => six.is_unicast_link_local(),
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.is_private(),
        IpAddr::V6(six) => Ipv6Addr::is_unique_local(&six),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(address: &str, plain: Option<Plain>) -> bool {
        check(address.parse().expect("an address"), plain).is_ok()
    }

    #[test]
    fn link_local_is_refused_however_it_is_written() {
        for address in [
            "169.254.169.254",
            "169.254.0.0",
            "fe80::1",
            "febf::1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
        ] {
            for plain in [None, Some(Plain::Loopback), Some(Plain::Private)] {
                assert!(!allowed(address, plain), "{address} {plain:?}");
            }
        }
        for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"] {
            assert!(!allowed(address, None), "{address}");
        }
    }

    #[test]
    fn http_is_for_near_addresses() {
        for (address, loopback, private) in [
            ("127.0.0.1", true, true),
            ("127.9.9.9", true, true),
            ("::1", true, true),
            ("::ffff:127.0.0.1", true, true),
            ("10.1.2.3", false, true),
            ("172.16.0.1", false, true),
            ("172.32.0.1", false, false),
            ("192.168.1.1", false, true),
            ("::ffff:192.168.1.1", false, true),
            ("fd00::1", false, true),
            ("fc00::1", false, true),
            ("203.0.113.9", false, false),
            ("2001:db8::1", false, false),
        ] {
            assert_eq!(
                allowed(address, Some(Plain::Loopback)),
                loopback,
                "{address}"
            );
            assert_eq!(allowed(address, Some(Plain::Private)), private, "{address}");
            assert!(allowed(address, None), "{address}");
        }
    }
}
