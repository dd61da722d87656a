//! Counts of refusals by limits, and their lines in the log: for each limit at most one a second.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Limit;

/// Time between two lines about a limit.
const LINE_INTERVAL_MS: u64 = 1000;

/// Addresses that are counted apart until the next line. Of more the rarest gives its place up.
const ADDRESSES_MAX: usize = 16;

/// Refusals of all reactors, by limit.
#[derive(Debug)]
pub struct Refusals(Box<[OfLimit]>);

#[derive(Debug, Default)]
struct OfLimit {
    total: AtomicU64,
    /// Some were refused since the last line.
    has_more: AtomicBool,
    tally: Mutex<Tally>,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals(Limit::ALL.iter().map(|_| OfLimit::default()).collect())
    }
}

impl Refusals {
    /// Counts a refusal, and writes the line that is due. None as the address: it has none.
    pub fn note(&self, limit: Limit, address: Option<IpAddr>, now_ms: u64, is_dry_run: bool) {
        let of_limit = &self.0[limit as usize];
        of_limit.total.fetch_add(1, Ordering::Relaxed);
        let tally = of_limit.tally.lock();
        let mut tally = tally.unwrap_or_else(PoisonError::into_inner);
        tally.count(address);
        tally.is_dry_run |= is_dry_run;
        of_limit.write(&mut tally, limit, now_ms);
    }

    /// Writes the lines that are due.
    pub fn flush(&self, now_ms: u64) {
        for (of_limit, limit) in self.0.iter().zip(Limit::ALL) {
            if of_limit.has_more.load(Ordering::Relaxed) {
                let tally = of_limit.tally.lock();
                let mut tally = tally.unwrap_or_else(PoisonError::into_inner);
                of_limit.write(&mut tally, *limit, now_ms);
            }
        }
    }

    /// Refusals by each limit.
    pub fn totals(&self) -> impl Iterator<Item = (Limit, u64)> {
        let totals = self.0.iter().map(|it| it.total.load(Ordering::Relaxed));
        Limit::ALL.iter().copied().zip(totals)
    }
}

impl OfLimit {
    fn write(&self, tally: &mut Tally, limit: Limit, now_ms: u64) {
        let is_due = now_ms >= tally.next_line_ms;
        self.has_more.store(!is_due, Ordering::Relaxed);
        if !is_due {
            return;
        }
        let (limit, refused, words) = (limit.label(), tally.refused, tally.words());
        match tally.worst() {
            Some((address, of_address)) => {
                log::info!(event = "refused", limit, refused, address:% = Shown(address), of_address; "{words}");
            }
            None => log::info!(event = "refused", limit, refused; "{words}"),
        }
        *tally = Tally {
            next_line_ms: now_ms + LINE_INTERVAL_MS,
            ..Tally::default()
        };
    }
}

struct Shown(Option<IpAddr>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// Refusals by a limit since its last line.
#[derive(Debug, Default)]
struct Tally {
    refused: u64,
    /// Addresses with at least about so many of them each.
    addresses: Vec<(Option<IpAddr>, u64)>,
    next_line_ms: u64,
    is_dry_run: bool,
}

impl Tally {
    fn count(&mut self, address: Option<IpAddr>) {
        self.refused += 1;
        if let Some((_, count)) = self.addresses.iter_mut().find(|(of, _)| *of == address) {
            *count += 1;
        } else if self.addresses.len() < ADDRESSES_MAX {
            self.addresses.push((address, 1));
        } else {
            // The counts of the others go down instead: who has more than a part of all stays (Misra and Gries).
            self.addresses.retain_mut(|(_, count)| {
                *count -= 1;
                *count > 0
            });
        }
    }

    /// The address with most refusals. What others took from its count is not in it.
    fn worst(&self) -> Option<(Option<IpAddr>, u64)> {
        self.addresses
            .iter()
            .max_by_key(|(_, count)| *count)
            .copied()
    }

    fn words(&self) -> &'static str {
        match self.is_dry_run {
            false => "over a limit",
            true => "over a limit, but limits_dry_run is set",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn worst_address_among_very_many() {
        let mut tally = Tally::default();
        for number in 0..10_000 {
            tally.count(address(number));
            if number % 3 == 0 {
                tally.count(address(7));
            }
            assert!(tally.addresses.len() <= ADDRESSES_MAX);
        }
        assert_eq!(tally.worst().expect("some").0, address(7));
        assert_eq!(tally.refused, 13_334);
    }

    #[test]
    fn line_once_a_second() {
        let refusals = Refusals::default();
        let of_limit = &refusals.0[Limit::Connections as usize];
        let waits = |refusals: &Refusals| {
            refusals.0[Limit::Connections as usize]
                .has_more
                .load(Ordering::Relaxed)
        };
        refusals.note(Limit::Connections, None, 5000, false);
        assert!(!waits(&refusals), "the first is told at once");
        refusals.note(Limit::Connections, address(1), 5001, false);
        refusals.flush(5999);
        assert!(waits(&refusals));
        assert_eq!(of_limit.tally.lock().expect("no panic").refused, 1);
        refusals.flush(6000);
        assert!(!waits(&refusals));
        assert_eq!(of_limit.tally.lock().expect("no panic").refused, 0);
        let totals: Vec<_> = refusals.totals().filter(|(_, total)| *total > 0).collect();
        assert_eq!(totals, [(Limit::Connections, 2)]);
    }
}
