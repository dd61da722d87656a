//! Bounds on connections by address, of all reactors together.

use std::net::IpAddr;

use super::Limit;
use super::bucket::{Bucket, Rate};
use super::networks::{Exempt, key_of};
use super::refusals::Refusals;
use super::table::Table;
use crate::config::Limits;
use crate::hub::Publisher;

/// Addresses that are remembered though none of their connections is open.
const ADDRESSES_IDLE_MAX: usize = 65_536;

/// Publishers that are remembered.
const PUBLISHERS_IDLE_MAX: usize = 65_536;

/// Parts of the table of publishers, for it is asked with each publish.
const PUBLISHER_PARTS: usize = 16;

/// Times the rate at which connections are closed without a word.
const FLOOD: u64 = 100;

/// Bounds on addresses, as the settings have them.
#[derive(Clone, Debug, Default)]
pub struct AddressRules {
    connections_max: u32,
    connects: Option<Rate>,
    v6_prefix_bits: u32,
    exempt: Exempt,
    /// Whether this is a dry run. What is over a limit is taken then, and only counted.
    pub is_dry_run: bool,
}

impl AddressRules {
    /// Those of the settings.
    pub fn new(limits: &Limits, exempt: Exempt, is_dry_run: bool) -> AddressRules {
        AddressRules {
            connections_max: limits.connections_per_address_max,
            connects: Rate::new(
                u64::from(limits.connects_per_address_per_second),
                u64::from(limits.connects_per_address_burst),
            ),
            v6_prefix_bits: limits.limit_v6_prefix,
            exempt,
            is_dry_run,
        }
    }

    /// Whether there are any.
    pub fn are_set(&self) -> bool {
        self.connections_max > 0 || self.connects.is_some()
    }

    /// Whether no bound holds for this address.
    pub fn exempts(&self, address: IpAddr) -> bool {
        self.exempt.contains(address)
    }

    /// Key of an address. None: no bound holds for it.
    fn key(&self, address: Option<IpAddr>) -> Option<IpAddr> {
        let address = address.filter(|address| !self.exempts(*address))?;
        Some(key_of(address, self.v6_prefix_bits))
    }
}

/// A connection that may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnedAway {
    /// The limit that it is over.
    pub limit: Limit,
    /// Its address tries too often for an answer.
    pub is_flood: bool,
}

#[derive(Debug, Default)]
struct OfAddress {
    /// Connections that came in.
    connects: Bucket,
    /// All that tried.
    attempts: Bucket,
}

/// State of the bounds, of all reactors together.
#[derive(Debug)]
pub struct Gate {
    addresses: Table<IpAddr, OfAddress>,
    /// New connections of the process.
    pub handshakes: Bucket,
    /// Publishes by who publishes.
    pub publishes: Table<Publisher, Bucket>,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate {
            addresses: Table::new(1, ADDRESSES_IDLE_MAX),
            handshakes: Bucket::default(),
            publishes: Table::new(PUBLISHER_PARTS, PUBLISHERS_IDLE_MAX),
        }
    }
}

/// Bounds and their state, to judge who comes.
#[derive(Clone, Copy, Debug)]
pub struct Entrance<'a> {
    /// State of the bounds.
    pub gate: &'a Gate,
    /// The bounds.
    pub rules: &'a AddressRules,
    /// Counts of what a dry run would have refused.
    pub refusals: &'a Refusals,
    /// The moment.
    pub now_us: u64,
}

impl Entrance<'_> {
    /// Takes in a connection from this address, if it may. Gives the key that it counts by; None: it is not counted.
    fn enter(self, address: Option<IpAddr>) -> Result<Option<IpAddr>, TurnedAway> {
        let (rules, now_us) = (self.rules, self.now_us);
        let Some(key) = rules.key(address) else {
            return Ok(None);
        };
        let judged = self.gate.addresses.enter(&key, |of_address, open| {
            let judged = judge(rules, of_address, open, now_us);
            (judged.is_ok() || rules.is_dry_run, judged)
        });
        match judged {
            Ok(()) => Ok(Some(key)),
            Err(turned_away) if rules.is_dry_run => {
                let now_ms = now_us / 1000;
                self.refusals
                    .note(turned_away.limit, Some(key), now_ms, true);
                Ok(Some(key))
            }
            Err(turned_away) => Err(turned_away),
        }
    }
}

fn judge(
    rules: &AddressRules,
    of_address: &OfAddress,
    open: u32,
    now_us: u64,
) -> Result<(), TurnedAway> {
    if let Some(rate) = rules.connects {
        let attempt = of_address.attempts.take(rate.times(FLOOD), now_us);
        if attempt.is_err() || of_address.connects.take(rate, now_us).is_err() {
            return Err(TurnedAway {
                limit: Limit::AddressConnects,
                is_flood: attempt.is_err(),
            });
        }
    }
    if rules.connections_max > 0 && open >= rules.connections_max {
        return Err(TurnedAway {
            limit: Limit::AddressConnections,
            is_flood: false,
        });
    }
    Ok(())
}

/// Connections of a reactor that count towards their address, by slot index. Empty while no such bound is set.
#[derive(Debug, Default)]
pub struct Entered(Vec<Option<IpAddr>>);

impl Entered {
    /// Takes in a connection that was just accepted.
    ///
    /// # Errors
    /// It may not.
    pub fn enter(
        &mut self,
        entrance: Entrance<'_>,
        index: u32,
        address: Option<IpAddr>,
    ) -> Result<(), TurnedAway> {
        self.leave(entrance.gate, index);
        let Some(key) = entrance.enter(address)? else {
            return Ok(());
        };
        let index = index as usize;
        if index >= self.0.len() {
            self.0.resize(index + 1, None);
        }
        self.0[index] = Some(key);
        Ok(())
    }

    /// Lets a connection count for the address that its request came from. A proxy may have said it.
    ///
    /// # Errors
    /// It may not come in. It counts for no address then.
    pub fn move_to(
        &mut self,
        entrance: Entrance<'_>,
        index: u32,
        address: Option<IpAddr>,
    ) -> Result<(), TurnedAway> {
        let key = entrance.rules.key(address);
        let held = self.0.get(index as usize).copied().flatten();
        if held == key {
            return Ok(());
        }
        self.enter(entrance, index, address)
    }

    /// The connection is gone, or refused.
    pub fn leave(&mut self, gate: &Gate, index: u32) {
        let held = self.0.get_mut(index as usize).and_then(Option::take);
        if let Some(key) = held {
            gate.addresses.leave(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn rules(change: impl FnOnce(&mut Limits)) -> AddressRules {
        let mut limits = Limits::default();
        change(&mut limits);
        let exempt = Exempt::new(&["10.0.0.0/8".parse().expect("a network")]);
        AddressRules::new(&limits, exempt, false)
    }

    struct Bounds(AddressRules, Gate, Refusals);

    impl Bounds {
        fn new(rules: AddressRules) -> Bounds {
            Bounds(rules, Gate::default(), Refusals::default())
        }

        fn entrance(&self) -> Entrance<'_> {
            Entrance {
                gate: &self.1,
                rules: &self.0,
                refusals: &self.2,
                now_us: 1,
            }
        }
    }

    fn ip(address: &str) -> Option<IpAddr> {
        Some(address.parse().expect("an address"))
    }

    #[test]
    fn as_many_of_an_address_as_may_be() {
        let bounds = Bounds::new(rules(|limits| limits.connections_per_address_max = 2));
        let (mut entered, it) = (Entered::default(), bounds.entrance());
        assert_eq!(entered.enter(it, 0, ip("192.0.2.1")), Ok(()));
        assert_eq!(entered.enter(it, 7, ip("192.0.2.1")), Ok(()));
        let refused = entered.enter(it, 3, ip("192.0.2.1")).expect_err("full");
        assert_eq!(refused.limit, Limit::AddressConnections);
        for index in 10..20 {
            assert_eq!(entered.enter(it, index, ip("10.0.0.1")), Ok(()));
            assert_eq!(entered.enter(it, index, None), Ok(()));
        }
        assert_eq!(entered.enter(it, 3, ip("192.0.2.2")), Ok(()));
        // It turns out to be somebody else.
        assert_eq!(entered.move_to(it, 0, ip("192.0.2.9")), Ok(()));
        assert_eq!(entered.enter(it, 4, ip("192.0.2.1")), Ok(()));
        assert_eq!(entered.move_to(it, 4, ip("192.0.2.1")), Ok(()));
        let moved = entered.move_to(it, 0, ip("192.0.2.1")).expect_err("full");
        assert_eq!(moved.limit, Limit::AddressConnections);
        (0..30).for_each(|index| entered.leave(it.gate, index));
        let key = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
        let open = it.gate.addresses.enter(&key, |_, open| (false, open));
        assert_eq!(open, 0);
    }

    #[test]
    fn rate_of_an_address_and_flood() {
        let bounds = Bounds::new(rules(|limits| {
            limits.connects_per_address_per_second = 1;
            limits.connects_per_address_burst = 2;
        }));
        let (mut entered, it) = (Entered::default(), bounds.entrance());
        let mut outcomes = [0, 0, 0];
        for index in 0..300 {
            let place = match entered.enter(it, index, ip("192.0.2.1")) {
                Ok(()) => 0,
                Err(TurnedAway { limit, is_flood }) => {
                    assert_eq!(limit, Limit::AddressConnects);
                    1 + usize::from(is_flood)
                }
            };
            outcomes[place] += 1;
        }
        assert_eq!(outcomes, [2, 198, 100]);
    }

    #[test]
    fn dry_run_counts_and_lets_in() {
        let mut rules = rules(|limits| limits.connections_per_address_max = 1);
        rules.is_dry_run = true;
        let bounds = Bounds::new(rules);
        let mut entered = Entered::default();
        for index in 0..5 {
            assert_eq!(
                entered.enter(bounds.entrance(), index, ip("192.0.2.1")),
                Ok(())
            );
        }
        let totals = bounds.2.totals().map(|(_, total)| total).sum::<u64>();
        assert_eq!(totals, 4);
    }
}
