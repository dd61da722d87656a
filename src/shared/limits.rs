//! Limits: where they hold, and where it is counted that one refused.

use std::net::IpAddr;

use super::Shared;
use crate::config::Surface;
use crate::rate::Limit;

impl Shared {
    /// Whether a listener is for operators alone. No limit holds for what comes by it.
    pub fn is_of_operators(&self, listener: u8) -> bool {
        let listening = self.listeners.get(usize::from(listener));
        listening.is_some_and(|listening| listening.surface == Surface::Admin)
    }

    /// Whether operators have a listener of their own.
    pub fn has_listener_of_operators(&self) -> bool {
        let mut listeners = self.listeners.iter();
        listeners.any(|listening| listening.surface == Surface::Admin)
    }

    /// Whether no limit holds for a connection with this address. None: it has none, as over a unix socket.
    pub fn is_exempt(&self, listener: u8, address: Option<IpAddr>) -> bool {
        let exempts = |address| self.settings.addresses.exempts(address);
        address.is_none_or(exempts) || self.is_of_operators(listener)
    }

    /// Counts what a limit refused.
    pub fn note_refused(&self, limit: Limit, address: Option<IpAddr>, now_us: u64) {
        self.metrics
            .refusals
            .note(limit, address, now_us / 1000, false);
    }

    /// Counts what a limit refused, or would have in a dry run. True: it is refused.
    pub fn refuses(&self, limit: Limit, address: Option<IpAddr>, now_us: u64) -> bool {
        let is_dry_run = self.settings.addresses.is_dry_run;
        let refusals = &self.metrics.refusals;
        refusals.note(limit, address, now_us / 1000, is_dry_run);
        !is_dry_run
    }
}
