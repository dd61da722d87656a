//! Drain: everybody is told to go, at a pace that spreads it over the first half of the drain time, and when to come back.
//!
//! Connections for requests that are idle stay to the end, for a request may be on its way on them. Once none but these are
//! left, they are closed too.

use std::sync::atomic::Ordering;

use super::{SLOTS_PER_TICK, Slots};
use crate::connection::{CloseReason, Label};

/// The slowest pace, so that a server with few connections is gone at once.
const CLOSES_PER_MS_MIN: f64 = 1.0;

/// Closes of one tick, at most, of a server that is out of service.
const CLOSES_PER_TICK: u64 = 1000;

/// Connections that come back in a second, for each reactor, where no setting says over which time.
const RETURNS_PER_SECOND: u64 = 2000;

/// Bounds of that time, in milliseconds.
const SPREAD_MS: std::ops::RangeInclusive<u64> = 1000..=60_000;

/// State of a drain. Or of the paced closing of a server that is out of service.
#[derive(Debug)]
pub struct Drain {
    started_ms: u64,
    /// Slots below this one were met in this round.
    next: u32,
    /// Something was met in this round that has to be told yet, or answered.
    is_busy: bool,
    /// Something was met in this round besides idle connections of operators.
    is_awaited: bool,
    closes_per_ms: f64,
    closed: u64,
    /// Time over which clients come back.
    spread_ms: u64,
    /// Slots below this one were looked at for connections for requests, which end with their next answer.
    marked: u32,
    /// Connections for requests have to go too.
    is_whole: bool,
    /// None but idle connections for requests, and those that were told, are left.
    is_last: bool,
    /// None but idle connections of operators are left: they go last, for whoever probes asks to the end.
    is_final: bool,
}

impl Drain {
    /// One that begins now.
    fn begin(slots: &impl Slots, now_ms: u64, closes_per_ms: f64, is_whole: bool) -> Drain {
        let shared = &slots.application().shared;
        let spread_ms = match shared.settings.limits.reconnect_spread_ms {
            0 => {
                let per_second = match shared.settings.limits.handshakes_per_second {
                    0 => RETURNS_PER_SECOND * shared.metrics.reactor_count() as u64,
                    per_second => u64::from(per_second),
                };
                let spread_ms = shared.metrics.connection_count() * 1000 / per_second.max(1);
                spread_ms.clamp(*SPREAD_MS.start(), *SPREAD_MS.end())
            }
            set_ms => set_ms,
        };
        Drain {
            started_ms: now_ms,
            next: 0,
            is_busy: false,
            is_awaited: false,
            closes_per_ms,
            closed: 0,
            spread_ms,
            marked: 0,
            is_whole,
            is_last: false,
            is_final: false,
        }
    }

    /// Closes that the pace allows by now.
    fn allowed(&self, now_ms: u64) -> u64 {
        let elapsed_ms = (now_ms - self.started_ms + 1) as f64;
        let allowed = (elapsed_ms * self.closes_per_ms) as u64;
        allowed.saturating_sub(self.closed)
    }

    /// Lets connections for requests end with their next answer: those of some slots, and none twice.
    fn mark(&mut self, slots: &mut impl Slots, now_ms: u64) {
        let end = slots.end().min(self.marked + SLOTS_PER_TICK as u32);
        for index in self.marked..end {
            let is_http = slots.look(index, |_, seen| seen.connection.label() == Label::Http);
            if is_http == Some(true) {
                slots.visit(index, now_ms, |_, context| {
                    context.connection.end_requests();
                });
            }
        }
        self.marked = end;
    }

    /// A round has ended.
    fn end_round(&mut self) {
        // Those that were accepted or went back to waiting meanwhile are met on the next round.
        self.next = 0;
        let is_awaited = std::mem::take(&mut self.is_awaited);
        if !std::mem::take(&mut self.is_busy) {
            self.is_final |= self.is_last && !is_awaited;
            self.is_last = true;
        }
    }

    /// Goes on through the slots, closing so many at most.
    fn go_on(&mut self, slots: &mut impl Slots, now_ms: u64, mut budget: u64) {
        let (spread_ms, is_whole) = (self.spread_ms, self.is_whole);
        let (is_last, is_final) = (self.is_last, self.is_final);
        let end = slots.end();
        for _ in 0..SLOTS_PER_TICK {
            if self.next >= end {
                return self.end_round();
            }
            if budget == 0 {
                return;
            }
            let told = slots.visit(self.next, now_ms, |application, context| {
                let settings = &application.shared.settings;
                let connection = &mut *context.connection;
                if !is_whole && connection.label() == Label::Http {
                    return false;
                }
                let is_of_operators = application.shared.is_of_operators(context.listener);
                if is_last && connection.is_idle() && (is_final || !is_of_operators) {
                    connection.close(settings, now_ms, CloseReason::Shutdown, context.out);
                }
                let told = connection.depart(settings, now_ms, spread_ms, context.out);
                let is_idle = connection.is_idle();
                // Who was told is waited for, and keeps nobody else waiting.
                self.is_busy |= !is_idle && !connection.is_closing();
                self.is_awaited |= !is_idle || !is_of_operators;
                told
            });
            let is_told = told == Some(true);
            budget -= u64::from(is_told);
            self.closed += u64::from(is_told);
            self.next += 1;
        }
    }
}

/// Progress of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Connections have to go yet.
    Closing,
    /// None has but those that wait for a request; they are closed too, and nothing is accepted from here on. Where operators
    /// have a listener of their own it is not before all others are gone.
    Ending,
    /// None is left, and the hub has taken all that they sent.
    Done,
}

/// Closes as many connections as the pace allows by now. Requests that are being answered are answered to their end.
pub fn poll(slots: &mut impl Slots, now_ms: u64) -> Progress {
    let begun = slots.upkeep().drain.take();
    let mut drain = begun.unwrap_or_else(|| {
        let limits = &slots.application().shared.settings.limits;
        let window_ms = limits.drain_timeout_ms / 2;
        let per_ms = slots.count() as f64 / window_ms.max(1) as f64;
        Drain::begin(slots, now_ms, per_ms.max(CLOSES_PER_MS_MIN), true)
    });
    drain.mark(slots, now_ms);
    let (budget, before) = (drain.allowed(now_ms), drain.closed);
    drain.go_on(slots, now_ms, budget);
    let told = &slots.application().shared.lifecycle.told;
    told.fetch_add(drain.closed - before, Ordering::Relaxed);
    let has_operators = slots.application().shared.has_listener_of_operators();
    let progress = match drain.is_last {
        false => Progress::Closing,
        true if slots.count() == 0 && !slots.application().has_backpressure() => Progress::Done,
        true if has_operators && !drain.is_final => Progress::Closing,
        true => Progress::Ending,
    };
    slots.upkeep().drain = Some(drain);
    progress
}

/// Closes subscribers of a server that is out of service: so many in a second on all reactors together.
pub fn poll_absent(slots: &mut impl Slots, closes_per_second: u32, now_ms: u64) {
    let reactors = slots.application().shared.metrics.reactor_count();
    let per_ms = f64::from(closes_per_second) / 1000.0 / reactors as f64;
    let begun = slots.upkeep().absence.take();
    let mut drain = begun.unwrap_or_else(|| Drain::begin(slots, now_ms, per_ms, false));
    let budget = drain.allowed(now_ms).min(CLOSES_PER_TICK);
    drain.go_on(slots, now_ms, budget);
    slots.upkeep().absence = Some(drain);
}

/// Ends whoever is left. Who was not told before is told now, as far as the transport takes it: by a Close frame, or
/// by refusing the request that has begun. The slots are freed at the end of the tick, as ever.
pub fn finish_all(slots: &mut impl Slots, now_ms: u64) {
    for index in 0..slots.end() {
        let is_cut = slots.visit(index, now_ms, |application, context| {
            let connection = &mut *context.connection;
            let is_cut = !connection.is_idle();
            if !connection.is_closing() {
                connection.fail(&application.shared.settings, now_ms, CloseReason::Shutdown);
            }
            is_cut
        });
        slots.visit(index, now_ms, |_, context| {
            context.connection.finish(CloseReason::Shutdown);
        });
        let cut = &slots.application().shared.lifecycle.cut;
        cut.fetch_add(u64::from(is_cut == Some(true)), Ordering::Relaxed);
    }
}
