//! State that the threads of a run share: clock, stage, schedule, publishers and counters.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::Waker;

use super::publisher::Publisher;
use super::settings::{Pace, Settings};
use super::stamp::TICK_NS;

/// Stage of a run. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Connections are made.
    Connecting = 0,
    /// The load runs; when it is measured, the schedule says.
    Loading = 1,
    /// Nothing more is sent; what is on its way arrives.
    Draining = 2,
    /// All threads end.
    Ended = 3,
}

/// Counters of one thread, for the one that coordinates.
#[derive(Debug, Default)]
pub struct Progress {
    /// Connects begun.
    pub attempted: AtomicU64,
    /// Connections that were made, handshake and all.
    pub opened: AtomicU64,
    /// Connections that were not made.
    pub failed: AtomicU64,
    /// Messages received, of any kind.
    pub received: AtomicU64,
    /// Time of the last of them.
    pub last_ticks: AtomicU64,
}

/// State that all threads share.
pub struct Shared {
    pub settings: Settings,
    /// Tells this run's stamps from those of others.
    pub run: u16,
    origin: Instant,
    stage: AtomicU8,
    start_ticks: AtomicU64,
    measure_start_ticks: AtomicU64,
    measure_end_ticks: AtomicU64,
    pub publishers: Vec<Publisher>,
    /// One of each thread.
    pub wakers: Vec<Waker>,
    /// One of each thread.
    pub progress: Vec<Progress>,
    first_failure: Mutex<Option<String>>,
}

impl Shared {
    /// At the stage of connecting, with nothing scheduled.
    pub fn new(
        settings: Settings,
        run: u16,
        publishers: Vec<Publisher>,
        wakers: Vec<Waker>,
    ) -> Shared {
        Shared {
            run,
            origin: Instant::now(),
            stage: AtomicU8::new(Stage::Connecting as u8),
            start_ticks: AtomicU64::new(u64::MAX),
            measure_start_ticks: AtomicU64::new(u64::MAX),
            measure_end_ticks: AtomicU64::new(u64::MAX),
            publishers,
            progress: wakers.iter().map(|_| Progress::default()).collect(),
            wakers,
            settings,
            first_failure: Mutex::new(None),
        }
    }

    /// The time since the run began.
    #[inline]
    pub fn now_ticks(&self) -> u64 {
        ticks(self.origin.elapsed())
    }

    /// Sleeps until then.
    pub fn sleep_until(&self, ticks: u64) {
        let ticks = ticks.saturating_sub(self.now_ticks());
        std::thread::sleep(Duration::from_nanos(ticks * TICK_NS));
    }

    /// The stage now.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
            0 => Stage::Connecting,
            1 => Stage::Loading,
            2 => Stage::Draining,
            _ => Stage::Ended,
        }
    }

    /// Moves on, and tells every thread.
    pub fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
        self.wake_all();
    }

    /// Lets every thread have a look.
    pub fn wake_all(&self) {
        for thread in 0..self.wakers.len() {
            self.wake(thread);
        }
    }

    /// Lets a thread have a look.
    pub fn wake(&self, thread: usize) {
        // It fails only if the kernel has no memory; threads look by themselves every now and then.
        let _ = self.wakers[thread].wake();
    }

    /// Sets when the load begins, and what of it is measured.
    pub fn schedule(&self, start_ticks: u64, measure_start_ticks: u64, measure_end_ticks: u64) {
        self.start_ticks.store(start_ticks, Ordering::SeqCst);
        self.measure_start_ticks
            .store(measure_start_ticks, Ordering::SeqCst);
        self.set_measure_end(measure_end_ticks);
    }

    /// Sets when the measured part ends.
    pub fn set_measure_end(&self, ticks: u64) {
        self.measure_end_ticks.store(ticks, Ordering::SeqCst);
    }

    /// Beginning of the measured part.
    #[inline]
    pub fn measure_start_ticks(&self) -> u64 {
        self.measure_start_ticks.load(Ordering::Relaxed)
    }

    /// End of the measured part.
    #[inline]
    pub fn measure_end_ticks(&self) -> u64 {
        self.measure_end_ticks.load(Ordering::Relaxed)
    }

    /// Whether a moment belongs to the measured part.
    #[inline]
    pub fn is_measured(&self, ticks: u64) -> bool {
        ticks >= self.measure_start_ticks() && ticks < self.measure_end_ticks()
    }

    /// Intended time of message number `index`. None: when there is room for it.
    #[inline]
    pub fn intended_ticks(&self, index: u64) -> Option<u64> {
        match self.settings.pace {
            Pace::Rate(rate) => {
                let offset = index as f64 * (1e9 / TICK_NS as f64 / rate);
                let start_ticks = self.start_ticks.load(Ordering::Relaxed);
                Some(start_ticks.saturating_add(offset as u64))
            }
            Pace::InFlight(_) => None,
        }
    }

    /// Keeps the first of what went wrong.
    pub fn fail(&self, failure: impl FnOnce() -> String) {
        let mut first = self.first_failure.lock().expect("nobody panics with it");
        if first.is_none() {
            *first = Some(failure());
        }
    }

    /// The first of what went wrong.
    pub fn first_failure(&self) -> Option<String> {
        self.first_failure
            .lock()
            .expect("nobody panics with it")
            .clone()
    }

    /// One counter of all threads together.
    pub fn total(&self, counter: impl Fn(&Progress) -> &AtomicU64) -> u64 {
        let values = self.progress.iter().map(counter);
        values.map(|value| value.load(Ordering::Relaxed)).sum()
    }
}

/// A time in ticks.
pub fn ticks(duration: Duration) -> u64 {
    // 64 bits of nanoseconds are five centuries.
    duration.as_nanos() as u64 / TICK_NS
}
