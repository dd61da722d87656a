//! Connections that have ended, and whose memberships are yet to end.

use std::collections::VecDeque;

use crate::dialect::Target;
use crate::fanout::subscribed::MultiSubscription;
use crate::fanout::subscriptions::Membership;
use crate::handler::ConnectionId;

/// Connections that have ended and have memberships left, the first to end first.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    pub(crate) ended: VecDeque<(ConnectionId, MultiSubscription)>,
    /// Memberships of the first of them that are left.
    pub(crate) memberships: Vec<(Target, Membership)>,
}

impl Leaving {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ended.is_empty()
    }
}
