//! What goes wrong in the first part of a run, and the end of that.

use super::{STALL_MS_MAX, World};

impl World {
    /// The machine, or the system, lets a reactor down.
    fn strike_reactor(&mut self) {
        let reactors = self.node.reactors.len();
        let Some(reactor) = &mut self.node.reactors[self.random.below(reactors)] else {
            return;
        };
        if self.random.chance(50) {
            reactor.driver.fail_accept();
            self.cover.add("fault: accept fails", 1);
        } else {
            // The longest one often: only that lets a wait for a pong pass.
            let lasts_ms = match self.random.chance(50) {
                true => STALL_MS_MAX,
                false => self.random.within(1, STALL_MS_MAX),
            };
            let until_ms = self.now_ms + lasts_ms;
            let stalls = reactor.driver.stall(self.now_ms, until_ms);
            self.cover.add("fault: reactor stalls", u64::from(stalls));
        }
    }

    /// A fault.
    pub(super) fn strike(&mut self) {
        if self.links.is_empty() || self.random.chance(60) {
            return;
        }
        if self.random.chance(20) {
            return self.strike_reactor();
        }
        let index = self.random.below(self.links.len());
        let mut link = self.links[index].borrow_mut();
        match self.random.below(6) {
            0 => {
                link.break_off();
                self.node.queue_event(self.homes[index], index, &mut link);
                self.cover.add("fault: reset", 1);
            }
            1 => {
                link.swallows = true;
                link.disturbed = true;
                self.cover.add("fault: swallowed", 1);
            }
            kind => {
                let until_ms = self.now_ms + self.random.within(1, 300);
                link.stall(kind % 2 == 0, until_ms);
                self.cover.add("fault: stall", 1);
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.faults = false;
        self.arrivals_ms.clear();
        for (peer, link) in self.peers.iter_mut().zip(&self.links) {
            link.borrow_mut().heal();
            peer.slowness_ms = 0;
        }
    }
}
