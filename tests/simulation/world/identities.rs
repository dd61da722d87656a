//! Identities: in some runs peers show tokens, and may not do everything.

use super::World;
use crate::many::Tongue;
use crate::peer::Peer;
use crate::rights::Rights;
use crate::rights::held::Holder;

/// Longest head of a request, with a token in it.
const HEAD_BYTES_MAX: usize = 2000;

impl World {
    /// The same run, in which most peers with many topics show tokens.
    pub fn with_rights(mut self, seed: u64) -> World {
        self.records.rights = Some(Rights::new(seed));
        self.plan.authority = Rights::authority();
        self.plan.limits.head_bytes_max = HEAD_BYTES_MAX;
        self.plan.settings.limits.head_bytes_max = HEAD_BYTES_MAX;
        self.plan.settings.request.head_bytes_max = HEAD_BYTES_MAX;
        self.limits.head_bytes_max = HEAD_BYTES_MAX;
        self.node = self.plan.node(1, 0);
        self
    }

    /// A peer, as somebody if it is to be somebody.
    pub(super) fn identify(&mut self, mut peer: Peer) -> Peer {
        if let (Some(rights), Some(many)) = (&mut self.records.rights, &mut peer.many)
            && many.tongue != Tongue::Toy
            && rights.random.chance(80)
        {
            let badge = rights.random.chance(80).then(|| rights.issue());
            many.holder = Some(Holder::new(badge));
        }
        peer
    }
}
