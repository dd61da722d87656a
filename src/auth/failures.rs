//! Rate of wrong credentials, by network.

use std::collections::{BTreeSet, HashMap};

use super::waiting::Network;

/// Networks that are remembered. Beyond it the one goes whose failures are over first.
const NETWORKS_MAX: usize = 65_536;

/// Time in which as many failures as the rate may come at once, in milliseconds.
const WINDOW_MS: u64 = 60_000;

/// Networks that have shown wrong credentials lately.
///
/// For each there is the moment at which its failures would be over at the rate: the algorithm of ITU-T I.371.
#[derive(Debug, Default)]
pub struct Failures {
    until_ms: HashMap<Network, u64>,
    order: BTreeSet<(u64, Network)>,
}

impl Failures {
    /// Notes a failure. 0 as the rate: nothing is noted.
    pub fn note(&mut self, network: Network, now_ms: u64, per_minute: u32) {
        let Some(each_ms) = WINDOW_MS.checked_div(u64::from(per_minute)) else {
            return;
        };
        while let Some(&(until_ms, oldest)) = self.order.first()
            && (until_ms <= now_ms || self.order.len() >= NETWORKS_MAX)
        {
            self.order.pop_first();
            self.until_ms.remove(&oldest);
        }
        let before_ms = self.until_ms.get(&network).copied();
        if let Some(before_ms) = before_ms {
            self.order.remove(&(before_ms, network));
        }
        // Who goes on does not wait for ever.
        let until_ms = before_ms.unwrap_or(now_ms).max(now_ms) + each_ms;
        let until_ms = until_ms.min(now_ms + WINDOW_MS + each_ms);
        self.until_ms.insert(network, until_ms);
        self.order.insert((until_ms, network));
    }

    /// Time until a network may fail again, in milliseconds. None: now.
    pub fn wait_ms(&self, network: Network, now_ms: u64, per_minute: u32) -> Option<u64> {
        let each_ms = WINDOW_MS.checked_div(u64::from(per_minute))?;
        let until_ms = *self.until_ms.get(&network)?;
        let wait_ms = until_ms.saturating_sub(now_ms + WINDOW_MS - each_ms);
        (wait_ms > 0).then_some(wait_ms)
    }

    /// Whether no network has failed lately.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn network(number: u32) -> Network {
        Some(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn as_many_as_the_rate_and_then_one_at_a_time() {
        let mut failures = Failures::default();
        for _ in 0..60 {
            assert_eq!(failures.wait_ms(network(1), 1000, 60), None);
            failures.note(network(1), 1000, 60);
        }
        assert_eq!(failures.wait_ms(network(1), 1000, 60), Some(1000));
        assert_eq!(failures.wait_ms(network(2), 1000, 60), None);
        assert_eq!(failures.wait_ms(network(1), 2000, 60), None);
        failures.note(network(1), 2000, 60);
        assert_eq!(failures.wait_ms(network(1), 2500, 60), Some(500));
        // Who never stops waits no longer for it.
        (0..1000).for_each(|_| failures.note(network(1), 2500, 60));
        assert_eq!(failures.wait_ms(network(1), 2500, 60), Some(2000));
        assert_eq!(failures.wait_ms(network(1), 70_000, 60), None);
    }

    #[test]
    fn networks_are_bounded_and_forgotten() {
        let mut failures = Failures::default();
        for number in 0..NETWORKS_MAX as u32 + 10 {
            failures.note(network(number), u64::from(number) / 10_000, 1);
        }
        assert_eq!(failures.order.len(), NETWORKS_MAX);
        assert_eq!(failures.until_ms.len(), NETWORKS_MAX);
        failures.note(network(7), 10_000_000, 1);
        assert_eq!((failures.order.len(), failures.until_ms.len()), (1, 1));
        failures.note(network(8), 10_000_000, 0);
        assert_eq!(failures.order.len(), 1);
        assert!(!failures.is_empty());
    }
}
