//! The open loop: a thread beside each thread of the load that sends at the intended times, whatever comes back.

use std::sync::Arc;

use super::arguments::Mode;
use super::process::{self, Busy, Meter};
use super::publisher::Sender;
use super::settings::Pace;
use super::shared::{Shared, Stage, ticks};

/// How far ahead it sleeps at most, so that it sees the end of the run.
const SLEEP_MAX: std::time::Duration = std::time::Duration::from_millis(50);

/// Result of a pacing thread.
pub struct Paced {
    pub sender: Sender,
    pub busy: Busy,
}

/// Whether a run needs such threads.
pub fn is_needed(shared: &Shared) -> bool {
    matches!(shared.settings.pace, Pace::Rate(_)) && shared.settings.mode != Mode::Idle
}

/// Sends for the publishers of one thread until the load ends. For storm, it only wakes that thread.
pub fn run(shared: &Arc<Shared>, thread: usize) -> Paced {
    process::sleep_exactly();
    let threads = shared.wakers.len() as u64;
    let publishers: Vec<u64> = (0..shared.publishers.len() as u64)
        .filter(|index| shared.publishers[*index as usize].thread == thread)
        .collect();
    let mut sender = Sender::new();
    let mut meter = Meter::default();
    let mut turn = 0;
    while shared.stage() <= Stage::Loading {
        let now_ticks = shared.now_ticks();
        meter.observe(
            now_ticks,
            shared.measure_start_ticks(),
            shared.measure_end_ticks(),
        );
        let index = match publishers.len() as u64 {
            0 => turn * threads + thread as u64,
            own => turn / own * shared.publishers.len() as u64 + publishers[(turn % own) as usize],
        };
        let intended_ticks = shared.intended_ticks(index).unwrap_or(u64::MAX);
        if intended_ticks > now_ticks {
            shared.sleep_until(intended_ticks.min(now_ticks + ticks(SLEEP_MAX)));
            continue;
        }
        match publishers.len() as u64 {
            0 => shared.wake(thread),
            own => {
                let publisher = publishers[(turn % own) as usize];
                shared.publishers[publisher as usize].pump(shared, &mut sender);
            }
        }
        turn += 1;
    }
    meter.observe(
        shared.now_ticks(),
        shared.measure_start_ticks(),
        shared.measure_end_ticks(),
    );
    Paced {
        sender,
        busy: meter.busy(),
    }
}
