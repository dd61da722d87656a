//! Terms of connections: who has waited too long for a credential, and whose identity ends.

use super::connections::Connections;
use crate::application::{Application, ConnectionContext};
use crate::connection::NEVER_MS;
use crate::net::byte_stream::ByteStream;

/// Connections whose term is looked after in one tick; the others' turn comes in the next one.
const TERMS_PER_TICK: usize = 1024;

/// A step back of the wall clock that is worth a line in the log, in milliseconds.
const STEP_BACK_MS: i64 = 30_000;

/// Longest wait of a reactor with identities that end, in milliseconds: no event tells that the wall clock was set.
const CLOCK_WAIT_MS: u64 = 1000;

impl<T: ByteStream> Connections<T> {
    /// Sets the wall clock by the machine's, at this tick's moment.
    pub fn set_wall_ms(&mut self, wall_ms: u64) {
        let application = &mut self.application;
        let ahead_ms = wall_ms
            .wrapping_sub(application.now_us / 1000)
            .cast_signed();
        let before_ms = std::mem::replace(&mut application.wall_ahead_ms, ahead_ms);
        let back_ms = before_ms.saturating_sub(ahead_ms);
        if back_ms > STEP_BACK_MS && !application.terms.is_empty() {
            log::warn!(back_ms; "the machine's clock was set back: tokens last longer by that");
        }
    }

    /// Sets how many connections the whole process may have.
    pub fn set_connections_max(&mut self, connections_max: usize) {
        self.application.connections_max = connections_max;
    }

    /// Looks after terms, if there are any.
    pub(crate) fn sweep_terms(&mut self, now_ms: u64) {
        if self.application.terms.is_empty() {
            return;
        }
        let clock_ms = self.application.now_us / 1000;
        for _ in 0..TERMS_PER_TICK {
            let Some(index) = self.application.terms.take_overdue(clock_ms) else {
                break;
            };
            self.with_slot(index, now_ms, Application::handle_overdue);
        }
        let wall_ms = self.application.wall_ms();
        for _ in 0..TERMS_PER_TICK {
            let Some((index, due)) = self.application.terms.take_due(wall_ms) else {
                break;
            };
            self.with_slot(index, now_ms, |application, context| {
                application.handle_term(context, due);
            });
        }
    }

    fn with_slot(
        &mut self,
        index: u32,
        now_ms: u64,
        work: impl FnOnce(&mut Application, &mut ConnectionContext<'_>),
    ) {
        let Some(slot) = self.slots.get(index as usize) else {
            return;
        };
        let id = slot.id(self.application.reactor, index);
        self.with_connection(id, now_ms, |application, context| {
            work(application, context);
            true
        });
    }

    /// When a term is next to be looked after, at the earliest.
    pub(crate) fn next_term_ms(&self, now_ms: u64) -> u64 {
        let (terms, clock_ms) = (&self.application.terms, self.application.now_us / 1000);
        if terms.is_empty() {
            return NEVER_MS;
        }
        let wait_ms = match terms.next_wait_ms() {
            NEVER_MS => NEVER_MS,
            at_ms => now_ms + at_ms.saturating_sub(clock_ms),
        };
        let end_ms = match terms.next_end_in_ms(self.application.wall_ms()) {
            NEVER_MS => NEVER_MS,
            in_ms => now_ms + in_ms.min(CLOCK_WAIT_MS),
        };
        wait_ms.min(end_ms)
    }
}
