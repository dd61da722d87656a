//! Suspicion that a proxy stands in front which nobody has told of.
//!
//! Nearly all of so many connections in a row come from one address, and carry `X-Forwarded-For`.

use std::net::IpAddr;

/// Connections in a row that are judged together.
pub const CONNECTIONS: usize = 1000;

/// Of these, so many from one address make a proxy of it.
const SUSPICIOUS: usize = CONNECTIONS * 9 / 10;

/// Connections in a row of one reactor. Some of them an address brought.
#[derive(Debug)]
pub struct Suspicion {
    address: IpAddr,
    /// Number of the first of them.
    first: u32,
    brought: [u64; CONNECTIONS.div_ceil(64)],
}

impl Suspicion {
    fn new(address: IpAddr, first: u32) -> Suspicion {
        Suspicion {
            address,
            first,
            brought: [0; CONNECTIONS.div_ceil(64)],
        }
    }

    /// Notes a connection that carries a header of a proxy. `number`: as connections are counted where they are accepted. Gives
    /// the address that is a proxy's by now.
    pub fn note(
        place: &mut Option<Box<Suspicion>>,
        number: u32,
        address: IpAddr,
    ) -> Option<IpAddr> {
        let suspicion = place.get_or_insert_with(|| Box::new(Suspicion::new(address, number)));
        let mut at = number.wrapping_sub(suspicion.first) as usize;
        // One from before them is as far away as one long after them, and neither is counted.
        if at >= CONNECTIONS {
            if number.wrapping_sub(suspicion.first) > u32::MAX / 2 {
                return None;
            }
            let count: u32 = suspicion.brought.iter().map(|bits| bits.count_ones()).sum();
            if count as usize > SUSPICIOUS {
                return Some(suspicion.address);
            }
            **suspicion = Suspicion::new(address, number);
            at = 0;
        }
        if address == suspicion.address {
            suspicion.brought[at / 64] |= 1 << (at % 64);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    /// The first proxy that is found among these connections.
    fn found(first: u32, count: u32, address: impl Fn(u32) -> Option<IpAddr>) -> Option<IpAddr> {
        let mut place = None;
        (0..count).find_map(|at| {
            let address = address(at)?;
            Suspicion::note(&mut place, first.wrapping_add(at), address)
        })
    }

    #[test]
    fn more_than_nine_of_ten_are_a_proxy() {
        assert_eq!(found(0, 1000, |_| Some(PROXY)), None, "they are not enough");
        assert_eq!(found(0, 1001, |_| Some(PROXY)), Some(PROXY));
        // Numbers wrap around.
        assert_eq!(found(u32::MAX - 500, 1001, |_| Some(PROXY)), Some(PROXY));
        // One of ten has no header, or comes from elsewhere.
        assert_eq!(found(0, 5000, |at| (at % 10 != 9).then_some(PROXY)), None);
        let mixed = |at| Some(if at % 10 == 9 { OTHER } else { PROXY });
        assert_eq!(found(0, 5000, mixed), None);
        assert_eq!(
            found(0, 5000, |at| (at % 11 != 10).then_some(PROXY)),
            Some(PROXY)
        );
    }

    #[test]
    fn one_connection_counts_once() {
        let mut place = None;
        for _ in 0..5000 {
            assert_eq!(Suspicion::note(&mut place, 7, PROXY), None);
        }
        assert_eq!(Suspicion::note(&mut place, 1100, PROXY), None);
        assert_eq!(
            Suspicion::note(&mut place, 7, PROXY),
            None,
            "it is from before them"
        );
    }
}
