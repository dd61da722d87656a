//! Connections of all reactors that have yet to show a credential.
//!
//! They are bounded, for each costs a descriptor and nobody knows whose it is. Over a bound one of them goes: of the
//! address with most of them the one that waited longest, so whoever opens very many throws out its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::hub::ReactorId;

/// Bits of an IPv6 address that tell networks apart.
const V6_PREFIX_BITS: u32 = 64;

/// A connection: its reactor, and the name that it has there.
pub type Waiter = (ReactorId, u64);

/// Network of a peer: an IPv4 address, or the first 64 bits of an IPv6 address. None: its socket has no address.
pub type Network = Option<IpAddr>;

/// Bounds of the table.
#[derive(Clone, Copy, Debug)]
pub struct WaitingLimits {
    /// Connections that wait.
    pub total_max: usize,
    /// Of these, those of one network. Sockets without an address have the bound of all.
    pub per_network_max: usize,
}

/// Place of a connection in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    network: Network,
    order: u64,
}

/// The table.
#[derive(Debug, Default)]
pub struct Waiting {
    networks: HashMap<Network, BTreeMap<u64, Waiter>>,
    /// Networks by how many wait, and then by who waited longest there.
    ranks: BTreeSet<(usize, Reverse<u64>, Network)>,
    len: usize,
    next_order: u64,
}

/// Network of an address.
pub fn network_of(address: Option<SocketAddr>) -> Network {
    address.map(|address| match address.ip().to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let prefix = ip.to_bits() & (u128::MAX << (128 - V6_PREFIX_BITS));
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
    })
}

impl Waiting {
    /// Takes a connection in. Gives its place, and the connection that has to go for it, which has no place any more.
    pub fn enter(
        &mut self,
        waiter: Waiter,
        network: Network,
        limits: WaitingLimits,
    ) -> (Ticket, Option<Waiter>) {
        let order = self.next_order;
        self.next_order += 1;
        self.change(network, |waiters| {
            waiters.insert(order, waiter);
        });
        self.len += 1;
        let here = self.networks.get(&network).map_or(0, BTreeMap::len);
        let evicted = if network.is_some() && here > limits.per_network_max {
            self.take_oldest(network)
        } else if self.len > limits.total_max {
            let crowded = self.ranks.last().map(|(_, _, network)| *network);
            crowded.and_then(|network| self.take_oldest(network))
        } else {
            None
        };
        (Ticket { network, order }, evicted)
    }

    /// Gives a place up. False: it was taken away before.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        let mut is_here = false;
        self.change(ticket.network, |waiters| {
            is_here = waiters.remove(&ticket.order).is_some();
        });
        self.len -= usize::from(is_here);
        is_here
    }

    /// Connections that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn take_oldest(&mut self, network: Network) -> Option<Waiter> {
        let mut oldest = None;
        self.change(network, |waiters| oldest = waiters.pop_first());
        self.len -= usize::from(oldest.is_some());
        oldest.map(|(_, waiter)| waiter)
    }

    /// Changes who waits of a network, and keeps its rank right.
    fn change(&mut self, network: Network, change: impl FnOnce(&mut BTreeMap<u64, Waiter>)) {
        let waiters = self.networks.entry(network).or_default();
        if let Some(rank) = rank_of(network, waiters) {
            self.ranks.remove(&rank);
        }
        change(waiters);
        match rank_of(network, waiters) {
            Some(rank) => {
                self.ranks.insert(rank);
            }
            None => {
                self.networks.remove(&network);
            }
        }
    }
}

fn rank_of(
    network: Network,
    waiters: &BTreeMap<u64, Waiter>,
) -> Option<(usize, Reverse<u64>, Network)> {
    let (oldest, _) = waiters.first_key_value()?;
    Some((waiters.len(), Reverse(*oldest), network))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        network_of(Some(text.parse().expect("an address")))
    }

    fn waiter(number: u64) -> Waiter {
        (ReactorId(0), number)
    }

    const LIMITS: WaitingLimits = WaitingLimits {
        total_max: 5,
        per_network_max: 3,
    };

    #[test]
    fn networks_of_addresses() {
        assert_eq!(network("10.0.0.1:1"), network("[::ffff:10.0.0.1]:2"));
        assert_ne!(network("10.0.0.1:1"), network("10.0.0.2:1"));
        assert_eq!(network("[2001:db8::1]:1"), network("[2001:db8::ffff:2]:1"));
        assert_ne!(network("[2001:db8::1]:1"), network("[2001:db8:0:1::1]:1"));
        assert_eq!(network_of(None), None);
    }

    #[test]
    fn crowded_network_loses_its_oldest() {
        let mut waiting = Waiting::default();
        let (many, other) = (network("10.0.0.1:1"), network("10.0.0.2:1"));
        for number in 0..3 {
            assert_eq!(waiting.enter(waiter(number), many, LIMITS).1, None);
        }
        // More of one network than may be.
        assert_eq!(waiting.enter(waiter(3), many, LIMITS).1, Some(waiter(0)));
        let (ticket, _) = waiting.enter(waiter(4), other, LIMITS);
        assert_eq!(waiting.enter(waiter(5), other, LIMITS).1, None);
        // More of all than may be: the network with most of them has to give one up.
        assert_eq!(
            waiting.enter(waiter(6), network("10.0.0.3:1"), LIMITS).1,
            Some(waiter(1))
        );
        assert_eq!(waiting.len(), 5);
        // Among equals, that whose first waited longest.
        assert_eq!(
            waiting.enter(waiter(7), network("10.0.0.4:1"), LIMITS).1,
            Some(waiter(2))
        );
        assert!(waiting.leave(ticket) && !waiting.leave(ticket));
        assert_eq!(waiting.len(), 4);
    }

    #[test]
    fn evicted_ticket_is_void_and_nothing_is_left_behind() {
        let mut waiting = Waiting::default();
        let tickets: Vec<_> = (0..10)
            .map(|number| {
                waiting
                    .enter(waiter(number), network("10.0.0.1:1"), LIMITS)
                    .0
            })
            .collect();
        let left = tickets.into_iter().filter(|it| waiting.leave(*it)).count();
        assert_eq!(left, 3);
        assert!(waiting.is_empty() && waiting.ranks.is_empty() && waiting.networks.is_empty());
    }

    /// Sockets without an address have no network that could be crowded.
    #[test]
    fn peers_without_address_have_the_bound_of_all() {
        let mut waiting = Waiting::default();
        for number in 0..5 {
            assert_eq!(waiting.enter(waiter(number), None, LIMITS).1, None);
        }
        assert_eq!(waiting.enter(waiter(5), None, LIMITS).1, Some(waiter(0)));
    }
}
