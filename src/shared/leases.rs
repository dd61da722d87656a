//! Leases: subscriptions that end at a moment of the wall clock, unless whoever allowed them allows them again.
//!
//! ```text
//!  begun ──────► end: whoever allowed it is asked ──── no answer in time ───► ended
//!    ▲                     │ it is allowed again
//!    └─────────────────────┘
//! ```
//!
//! A subscription without an end has none, and costs nothing here.

use std::collections::{BTreeMap, HashMap};

use slab::Slab;

use super::timers::Timers;
use crate::auth::identity::UrlKeyMark;
use crate::dialect::Target;
use crate::handler::ConnectionId;

/// Lease that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseDue {
    /// The connection.
    pub connection: ConnectionId,
    /// Target of its subscription.
    pub target: Target,
    /// Whether it is to be asked about again. Else it is over.
    pub may_ask: bool,
}

#[derive(Debug)]
struct Lease {
    connection: ConnectionId,
    target: Target,
    signed_by: Option<UrlKeyMark>,
    may_ask: bool,
}

/// Leases of a reactor's connections.
#[derive(Debug, Default)]
pub struct Leases {
    leases: Slab<Lease>,
    /// Their numbers, by the slot and the target.
    numbers: HashMap<u32, BTreeMap<Target, u32>>,
    ends: Timers,
}

/// Bytes that a lease counts as, with its places among the numbers and the ends.
const LEASE_BYTES: usize = 224;

impl Leases {
    /// Bytes that they count as.
    pub fn bytes(&self) -> usize {
        self.leases.len() * LEASE_BYTES
    }

    /// Begins the lease of a subscription, in place of a former one. It ends at this moment of the wall clock. `signed_by`:
    /// the key of the signature that allowed it, and nobody is asked again then.
    pub fn begin(
        &mut self,
        connection: ConnectionId,
        target: Target,
        end_ms: u64,
        signed_by: Option<UrlKeyMark>,
    ) {
        self.end(connection.index, &target);
        let lease = Lease {
            connection,
            target: target.clone(),
            signed_by,
            may_ask: signed_by.is_none(),
        };
        let number = self.leases.insert(lease) as u32;
        let of_connection = self.numbers.entry(connection.index).or_default();
        of_connection.insert(target, number);
        self.ends.set(number, end_ms);
    }

    /// The subscription has ended, or has no end any more.
    pub fn end(&mut self, index: u32, target: &Target) {
        let Some(of_connection) = self.numbers.get_mut(&index) else {
            return;
        };
        let number = of_connection.remove(target);
        if of_connection.is_empty() {
            self.numbers.remove(&index);
        }
        if let Some(number) = number {
            self.remove(number);
        }
    }

    /// A connection is gone.
    pub fn forget(&mut self, index: u32) {
        for number in self
            .numbers
            .remove(&index)
            .unwrap_or_default()
            .into_values()
        {
            self.remove(number);
        }
    }

    /// Key of the signature that allowed a subscription. None: there was no signature.
    pub fn signed_by(&self, index: u32, target: &Target) -> Option<UrlKeyMark> {
        let number = self.numbers.get(&index).and_then(|it| it.get(target));
        let lease = number.and_then(|number| self.leases.get(*number as usize));
        lease.and_then(|lease| lease.signed_by)
    }

    fn remove(&mut self, number: u32) {
        self.ends.remove(number);
        self.leases.try_remove(number as usize);
    }

    /// Takes what is due first by this moment of the wall clock. Where somebody is to be asked, it is due again at `wait_ms`
    /// behind it.
    pub fn take_due(&mut self, wall_ms: u64, wait_ms: u64) -> Option<LeaseDue> {
        let number = self.ends.take_due(wall_ms)?;
        let lease = self.leases.get_mut(number as usize)?;
        let due = LeaseDue {
            connection: lease.connection,
            target: lease.target.clone(),
            may_ask: std::mem::replace(&mut lease.may_ask, false),
        };
        match due.may_ask {
            true => self.ends.set(number, wall_ms + wait_ms),
            false => self.end(due.connection.index, &due.target),
        }
        Some(due)
    }

    /// The next moment at which something is due; [`NEVER_MS`](crate::connection::NEVER_MS) where nothing is.
    pub fn next_ms(&self) -> u64 {
        self.ends.next_ms()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::NEVER_MS;
    use crate::topic::Topic;

    fn id(index: u64) -> ConnectionId {
        ConnectionId::from_bits(0, index)
    }

    fn target(name: &str) -> Target {
        Target::Topic(Topic::from_text(name).expect("a topic"))
    }

    fn due(connection: u64, name: &str, may_ask: bool) -> Option<LeaseDue> {
        Some(LeaseDue {
            connection: id(connection),
            target: target(name),
            may_ask,
        })
    }

    #[test]
    fn asked_once_and_then_over() {
        let mut leases = Leases::default();
        let key = UrlKeyMark::of("k1", "secret");
        leases.begin(id(1), target("a"), 100, None);
        leases.begin(id(1), target("b"), 90, Some(key));
        assert_eq!(leases.signed_by(1, &target("b")), Some(key));
        assert_eq!(leases.signed_by(1, &target("a")), None);
        assert_eq!(leases.take_due(89, 10), None);
        assert_eq!(leases.take_due(100, 10), due(1, "b", false));
        assert_eq!(leases.take_due(100, 10), due(1, "a", true));
        assert_eq!((leases.take_due(109, 10), leases.next_ms()), (None, 110));
        assert_eq!(leases.take_due(110, 10), due(1, "a", false));
        assert!(leases.is_empty());
        assert_eq!(leases.next_ms(), NEVER_MS);
    }

    #[test]
    fn allowed_again_in_time() {
        let mut leases = Leases::default();
        leases.begin(id(1), target("a"), 100, None);
        assert_eq!(leases.take_due(100, 10), due(1, "a", true));
        leases.begin(id(1), target("a"), 200, None);
        assert_eq!(leases.take_due(199, 10), None);
        assert_eq!(leases.take_due(200, 10), due(1, "a", true));
        leases.end(1, &target("a"));
        assert!(leases.is_empty());
    }

    #[test]
    fn gone_with_its_connection() {
        let mut leases = Leases::default();
        for name in ["a", "b"] {
            leases.begin(id(1), target(name), 100, None);
            leases.begin(id(2), target(name), 100, None);
        }
        leases.forget(1);
        leases.end(2, &target("a"));
        leases.end(2, &target("c"));
        assert_eq!(leases.take_due(100, 10), due(2, "b", true));
        leases.forget(2);
        assert!(leases.is_empty());
    }
}
