//! Identities: in some runs peers show tokens, and may not do everything. Rights change, and some are denied.

use super::{TRAFFIC_MS, World};
use crate::driver::BEGAN_MS;
use crate::peer::Peer;
use crate::rights::Rights;

/// Longest head of a request, with a token in it.
const HEAD_BYTES_MAX: usize = 2000;

impl World {
    /// The same run, in which most peers show tokens.
    pub fn with_rights(mut self, seed: u64) -> World {
        let mut rights = Rights::new(seed);
        for limits in [
            &mut self.plan.limits,
            &mut self.plan.settings.limits,
            &mut self.limits,
        ] {
            limits.head_bytes_max = HEAD_BYTES_MAX;
            limits.token_warn_ms = 60;
            limits.token_grace_ms = rights.grace_ms;
        }
        self.plan.settings.request.head_bytes_max = HEAD_BYTES_MAX;
        let mut times = |count_max: usize| -> Vec<u64> {
            let count = rights.random.below(count_max + 1);
            (0..count)
                .map(|_| rights.random.within(20, TRAFFIC_MS - 20))
                .collect()
        };
        self.reloads_ms.extend(times(2));
        self.denies_ms = times(3);
        self.plan.authority = rights.authority();
        self.records.rights = Some(rights);
        self.node = self.plan.node(1, 0);
        self
    }

    /// A peer, as somebody if it is to be somebody.
    pub(super) fn identify(&mut self, mut peer: Peer) -> Peer {
        if let Some(rights) = &mut self.records.rights {
            peer.identify(rights, self.now_ms);
        }
        peer
    }

    /// Denies somebody or lets somebody in again, if the time has come.
    pub(super) fn deny(&mut self) {
        let due = self.denies_ms.len();
        self.denies_ms.retain(|at_ms| *at_ms > self.now_ms);
        let Some(rights) = self.records.rights.as_mut() else {
            return;
        };
        if due == self.denies_ms.len() {
            return;
        }
        let active = rights.denials.iter_mut().find(|it| it.until_ms.is_none());
        if let Some(denied) = active
            && rights.random.chance(40)
        {
            self.node.forgive(denied.id);
            denied.until_ms = Some(self.now_ms);
            self.cover.add("let in again", 1);
        } else if let Some((entry, note)) = rights.deny() {
            let id = self.node.deny(entry, BEGAN_MS + self.now_ms);
            note(rights, id, self.now_ms);
            self.cover.add("denied", 1);
        }
    }

    /// Notes that every reactor has the newest grants.
    pub(super) fn note_granted(&mut self) {
        let rights = self.records.rights.as_mut();
        let Some(rights) = rights.filter(|it| it.is_reloading()) else {
            return;
        };
        if self.node.is_awaited() {
            return;
        }
        rights.end_reload(self.now_ms);
        for peer in self.peers.iter().filter(|peer| !peer.is_done) {
            peer.lose((self.now_ms, self.step), &mut self.records);
        }
    }
}
