//! How many connections each reactor holds, and handing fresh ones over.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Sender, TrySendError};

use super::transport::Transport;
use crate::hub::ReactorId;

/// A reactor hands a fresh socket over when it holds so many more than the least loaded, and a 64th.
const IMBALANCE_MIN: usize = 8;

/// Wakes a reactor out of its wait for events.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// A fresh connection on its way to a reactor.
#[derive(Debug)]
pub struct Incoming {
    /// What it travels over.
    pub transport: Transport,
    /// The number of the listener that it came by.
    pub listener: u8,
}

/// How many connections each reactor holds, and the way to hand one over.
pub struct Balance {
    loads: Box<[AtomicUsize]>,
    handover: Box<[Sender<Incoming>]>,
    wakes: Box<[Wake]>,
}

impl Balance {
    /// For the reactors that these belong to, reactor 0 first.
    pub fn new(handover: Vec<Sender<Incoming>>, wakes: Vec<Wake>) -> Balance {
        Balance {
            loads: wakes.iter().map(|_| AtomicUsize::new(0)).collect(),
            handover: handover.into(),
            wakes: wakes.into(),
        }
    }

    /// Tells what a reactor holds.
    pub fn set_load(&self, reactor: ReactorId, load: usize) {
        self.loads[usize::from(reactor.0)].store(load, Ordering::Relaxed);
    }

    /// What all reactors hold.
    pub fn total(&self) -> usize {
        self.loads
            .iter()
            .map(|load| load.load(Ordering::Relaxed))
            .sum()
    }

    /// Hands a connection to the least loaded reactor if this one holds clearly more; gives it back if not. It does not
    /// matter by which listener those came that a reactor holds: it has the same work with all of them.
    pub fn hand_over(
        &self,
        reactor: ReactorId,
        load: usize,
        incoming: Incoming,
    ) -> Option<Incoming> {
        let loads = self
            .loads
            .iter()
            .map(|load| load.load(Ordering::Relaxed))
            .enumerate();
        let Some((least, least_load)) = loads.min_by_key(|&(_, load)| load) else {
            return Some(incoming);
        };
        if least == usize::from(reactor.0) || load < least_load + IMBALANCE_MIN + least_load / 64 {
            return Some(incoming);
        }
        match self.handover[least].try_send(incoming) {
            Ok(()) => {
                // Counted at once, so that a burst does not all go to the same reactor.
                self.loads[least].fetch_add(1, Ordering::Relaxed);
                (self.wakes[least])();
                None
            }
            Err(TrySendError::Full(incoming) | TrySendError::Disconnected(incoming)) => {
                Some(incoming)
            }
        }
    }
}
