//! The thread that measures memory, and orders what is shed.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::handle::Handle;
use crate::memory::group::Memory;
use crate::memory::shedding::{Orders, Own, Shedding, is_sudden};
use crate::net::memory::read;

/// Waits of this thread are no longer than that, in milliseconds: so a reload takes hold.
const WAIT_MS_MAX: u64 = 1000;

/// Time between two looks at our own counters, in milliseconds: they cost no system call.
const LOOK_MS: u64 = 100;

/// Starts the thread. It ends when the other end of the channel is dropped.
pub(super) fn start(handle: Handle, ended: Receiver<()>) -> io::Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name("umbel-memory".to_owned());
    thread.spawn(move || watch(&handle, &ended))
}

fn watch(handle: &Handle, ended: &Receiver<()>) {
    let Some(memory) = Memory::find(&read) else {
        return;
    };
    let mut shedding = Shedding::default();
    loop {
        let (state, budget) = (handle.memory(), handle.memory().budget());
        let used = memory.used(&read).unwrap_or(0);
        let orders = shedding.step(budget, used, handle.own_bytes(), handle.now_ms());
        state.note(used, orders.refuses);
        tell(&orders, used, budget, handle.own_bytes());
        handle.shed(orders.histories, orders.outboxes);
        let wait_ms = shedding.interval_ms(budget, used, handle.now_ms());
        if !wait(handle, ended, budget, wait_ms.min(WAIT_MS_MAX)) {
            return;
        }
    }
}

/// Waits so long, or until much has come. False: the server has ended.
fn wait(handle: &Handle, ended: &Receiver<()>, budget: u64, wait_ms: u64) -> bool {
    let (before, mut left_ms) = (handle.own_bytes(), wait_ms);
    while left_ms > 0 {
        let look_ms = match budget {
            0 => left_ms,
            _ => left_ms.min(LOOK_MS),
        };
        match ended.recv_timeout(Duration::from_millis(look_ms)) {
            Err(RecvTimeoutError::Timeout) => left_ms -= look_ms,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return false,
        }
        if budget > 0 && is_sudden(budget, before, handle.own_bytes()) {
            break;
        }
    }
    true
}

fn tell(orders: &Orders, used: u64, budget: u64, own: Own) {
    let (histories, outboxes) = (own.histories, own.outboxes);
    if orders.begins {
        log::warn!(event = "memory_pressure", used, budget, histories, outboxes;
            "memory is short: new connections are refused, and histories and outboxes are shed");
    }
    if orders.ends {
        log::warn!(event = "memory_pressure", used, budget, histories, outboxes;
            "enough memory was shed");
    }
}
