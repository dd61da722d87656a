//! Time: what is due when, and what happens then.

use std::ops::Range;

use super::{CloseReason, Connection, Endpoint, NEVER_MS, Phase, Settings};
use crate::dialect::Pings;
use crate::http::refusal::Refusal;
use crate::protocol::{Opcode, encode_frame};
use crate::rate::Limit;

/// Time for a head on a connection that is too many, in milliseconds. What is asked for decides how it is refused.
const OVER_CAP_WAIT_MS: u64 = 250;

impl Connection {
    /// Time of the next [`handle_timeout`](Connection::handle_timeout), in milliseconds on the clock that all calls
    /// share. It may be earlier than necessary, never later.
    pub fn deadline_ms(&self, settings: &Settings) -> u64 {
        let oldest = match self.outbox.oldest_ms() {
            Some(oldest_ms) => oldest_ms + settings.limits.outbox_age_max_ms,
            None => NEVER_MS,
        };
        let oldest_droppable = match self.outbox.oldest_droppable_ms() {
            Some(oldest_ms) => oldest_ms + settings.limits.outbox_age_max_ms,
            None => NEVER_MS,
        };
        self.phase_deadline_ms
            .min(self.message_deadline_ms)
            .min(oldest)
            .min(oldest_droppable)
    }

    /// Time has passed: deadlines up to `due_ms` count, and new ones begin at `now_ms`. Does nothing where nothing is
    /// due. The two differ after a pause of the process, in which the peer could not be heard: a wait for a pong that
    /// began at the earlier of them would be over before it was sent. What the outbox may drop for its age is to be
    /// [dropped](super::Outbox::expire_droppable) before.
    pub fn handle_timeout(
        &mut self,
        settings: &Settings,
        due_ms: u64,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) {
        let oldest = self.outbox.oldest_ms();
        if oldest.is_some_and(|oldest_ms| due_ms >= oldest_ms + settings.limits.outbox_age_max_ms) {
            return self.handle_old_outbox(settings, now_ms);
        }
        if self.is_held() && matches!(self.phase, Phase::Open { .. }) {
            return self.postpone(settings, now_ms);
        }
        if due_ms >= self.message_deadline_ms {
            return self.close(settings, now_ms, CloseReason::MessageTimeout, out);
        }
        if due_ms < self.phase_deadline_ms {
            return;
        }
        match &mut self.phase {
            Phase::Http(_) => self.handle_http_timeout(settings, now_ms, out),
            Phase::Open { .. } => self.handle_silence(settings, now_ms, out),
            Phase::Stream(encoding) => {
                // It is all that a stream has to find out that its reader is gone.
                if self.outbox.is_empty() {
                    settings.dialects.get(*encoding).encode_keep_alive(out);
                }
                self.phase_deadline_ms = now_ms + settings.limits.ping_interval_ms;
            }
            // Signs of life are among its lines.
            Phase::Lines => self.phase_deadline_ms = NEVER_MS,
            // The close timeout. The reason that began the ending stands.
            Phase::CloseSent(_) | Phase::Lingering { .. } => self.finish(CloseReason::PeerGone),
            Phase::Closed(_) => {}
        }
    }

    /// Refusal of whatever it asks for: it is over a limit, or comes too late. If it asks for nothing it is due soon, to be refused
    /// without a head.
    pub fn turn_away(&mut self, limit: Limit, now_ms: u64) {
        if let Phase::Http(exchange) = &mut self.phase {
            exchange.over = Some(limit);
            exchange.end_after_answer();
            self.phase_deadline_ms = now_ms + OVER_CAP_WAIT_MS;
        }
    }

    /// The limit that it is over, if it is late to ask.
    pub fn is_turned_away(&self, due_ms: u64) -> Option<Limit> {
        match &self.phase {
            Phase::Http(exchange) if due_ms >= self.phase_deadline_ms => exchange.over,
            _ => None,
        }
    }

    /// The first ping, at a moment that differs between connections.
    pub(super) fn schedule_first_ping(&mut self, settings: &Settings, now_ms: u64) {
        self.phase_deadline_ms = now_ms + self.ping_due_ms(settings);
    }

    /// The pings of its dialect's own, if it has such.
    fn pings(&self, settings: &Settings) -> Option<Pings> {
        match self.endpoint {
            Endpoint::Commands(encoding) => settings.dialects.get(encoding).pings(),
            Endpoint::Topic { .. } | Endpoint::Handler(_) => None,
        }
    }

    /// After how much silence it is pinged.
    fn ping_due_ms(&self, settings: &Settings) -> u64 {
        let pings = self.pings(settings);
        let interval_ms = pings.map_or(settings.limits.ping_interval_ms, |it| it.interval_ms);
        self.ping_offset.of(interval_ms)
    }

    /// Nothing is read from the peer for now, so its silence is ours.
    fn postpone(&mut self, settings: &Settings, now_ms: u64) {
        self.last_received_ms = now_ms;
        self.set_awaiting_pong(false);
        self.schedule_first_ping(settings, now_ms);
        if self.message_deadline_ms != NEVER_MS {
            self.message_deadline_ms = now_ms + settings.limits.message_timeout_ms;
        }
    }

    /// A byte has come, and any byte is a sign of life: the next ping is due after the interval, however long the peer
    /// had for its pong.
    pub(super) fn end_wait_for_pong(&mut self, settings: &Settings, now_ms: u64) {
        if let Phase::Open { awaiting_pong, .. } = &mut self.phase
            && std::mem::take(awaiting_pong)
        {
            let due_ms = now_ms + self.ping_due_ms(settings);
            self.phase_deadline_ms = self.phase_deadline_ms.min(due_ms);
        }
    }

    fn is_awaiting_pong(&self) -> bool {
        matches!(
            self.phase,
            Phase::Open {
                awaiting_pong: true,
                ..
            }
        )
    }

    fn set_awaiting_pong(&mut self, is_awaiting: bool) {
        if let Phase::Open { awaiting_pong, .. } = &mut self.phase {
            *awaiting_pong = is_awaiting;
        }
    }

    fn handle_silence(&mut self, settings: &Settings, now_ms: u64, out: &mut Vec<u8>) {
        if !self.outbox.is_empty() {
            // A ping would stand behind what the peer does not take. The outbox's own limits watch over it.
            self.set_awaiting_pong(false);
            self.phase_deadline_ms = now_ms + settings.limits.ping_interval_ms;
            return;
        }
        let pings = self.pings(settings);
        if self.is_awaiting_pong() {
            return match pings {
                Some(_) => self.close(settings, now_ms, CloseReason::PongTimeout, out),
                None => self.finish(CloseReason::PongTimeout),
            };
        }
        let due_ms = self.last_received_ms + self.ping_due_ms(settings);
        if now_ms < due_ms {
            self.phase_deadline_ms = due_ms;
            return;
        }
        let timeout_ms = match pings {
            Some(pings) => {
                settings
                    .dialects
                    .frame_message(self.encoding(), pings.message, out);
                pings.timeout_ms
            }
            None => {
                encode_frame(out, Opcode::Ping, &[], None);
                settings.limits.pong_timeout_ms
            }
        };
        self.set_awaiting_pong(true);
        self.phase_deadline_ms = now_ms + timeout_ms;
    }

    fn handle_old_outbox(&mut self, settings: &Settings, now_ms: u64) {
        if self.is_closing() {
            return self.finish(CloseReason::SlowConsumerAge);
        }
        // Nothing was taken for so long that a frame that was begun has no prospect either; yet the Close is queued
        // behind it, for the peer that wakes up within the close timeout.
        self.fail(settings, now_ms, CloseReason::SlowConsumerAge);
        self.outbox.restart_age(now_ms);
    }

    fn handle_http_timeout(&mut self, settings: &Settings, now_ms: u64, out: &mut Vec<u8>) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        let (refusal, reason) = if exchange.is_awaiting() {
            (
                Some(Refusal::unavailable(exchange.no_answer_in_time())),
                CloseReason::HttpTimeout,
            )
        } else if exchange.is_idle() {
            let first = exchange.answered() == 0;
            (
                None,
                if first {
                    CloseReason::HandshakeTimeout
                } else {
                    CloseReason::HttpTimeout
                },
            )
        } else if exchange.is_in_body() {
            (
                Some(Refusal::timeout("the body did not arrive in time")),
                CloseReason::HttpTimeout,
            )
        } else {
            let words = "the request's head did not arrive in time";
            (Some(Refusal::timeout(words)), CloseReason::HandshakeTimeout)
        };
        if let Some(refusal) = refusal {
            exchange.end_after_answer();
            exchange.encode_refusal(&refusal, settings, out);
        }
        self.linger(settings, now_ms, reason);
    }
}

/// Number in a range for a salt. What many do at about that time they do not do at once so.
pub fn scatter(salt: u32, range: Range<u64>) -> u64 {
    PingOffset::scatter(salt).between(range)
}

/// When a connection is pinged: so a million connections that came together are not pinged together.
#[derive(Clone, Copy, Debug)]
pub(super) struct PingOffset(u16);

impl PingOffset {
    /// That of a connection. Neighbouring salts end far apart.
    pub fn scatter(salt: u32) -> PingOffset {
        // The multiplier of Knuth's multiplicative hash.
        PingOffset((salt.wrapping_mul(2_654_435_761) >> 16) as u16)
    }

    /// Between three quarters and the whole of the interval.
    fn of(self, interval_ms: u64) -> u64 {
        let least_ms = interval_ms * 3 / 4;
        self.between(least_ms..least_ms + interval_ms / 4)
    }

    /// A moment in a range, for other things that are not to come together.
    pub(super) fn between(self, range: Range<u64>) -> u64 {
        range.start + (((range.end - range.start) * u64::from(self.0)) >> 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_spread_evenly() {
        let mut buckets = [0; 10];
        for salt in 0..10_000 {
            let at = PingOffset::scatter(salt).of(20_000);
            assert!((15_000..20_000).contains(&at));
            buckets[((at - 15_000) / 500) as usize] += 1;
        }
        assert!(
            buckets.iter().all(|&count| (800..1200).contains(&count)),
            "{buckets:?}"
        );
    }
}
