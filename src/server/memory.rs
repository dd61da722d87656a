//! The thread that measures memory, and orders what is shed.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::handle::Handle;
use crate::memory::group::Memory;
use crate::memory::shedding::{Orders, Own, Shedding};
use crate::net::memory::read;

/// Waits of this thread are no longer than that, in milliseconds: so a reload takes hold.
const WAIT_MS_MAX: u64 = 1000;

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
        let wait_ms = shedding.interval_ms(budget, used).min(WAIT_MS_MAX);
        match ended.recv_timeout(Duration::from_millis(wait_ms)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
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
