//! Settings that a reload changes while the server runs.
//!
//! Whoever reloads stores them in the [`LiveCell`]. Each reactor looks at its generation in every tick, and takes them when
//! it is another.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::auth::Authority;
use crate::config::{Hosts, Origins};
use crate::connection::Settings;
use crate::hub::ShardSettings;
use crate::shared::Listening;

/// Settings in force.
#[derive(Clone)]
pub struct Live {
    /// The limits and topic rules.
    pub settings: Arc<Settings>,
    /// Authority over rights.
    pub authority: Arc<Authority>,
    /// Web origins that may connect.
    pub origins: Arc<Origins>,
    /// Hosts that requests may be sent to.
    pub hosts: Arc<Hosts>,
    /// Subprotocols that `/ws/{topic}` agrees to.
    pub subprotocols: Arc<[Box<str>]>,
    /// The listeners, with the proxies in front of them.
    pub listeners: Arc<[Listening]>,
}

/// Way of a reload from reactor 0 to the shards.
#[derive(Debug)]
pub struct ShardReload {
    /// The shard whose turn it is.
    pub(crate) shard: u32,
    /// Settings that it has yet to be sent.
    pub(crate) unsent: Option<Box<ShardSettings>>,
    /// It was sent for a step, and has not answered.
    pub(crate) is_asked: bool,
}

/// The newest settings, for all reactors.
#[derive(Default)]
pub struct LiveCell {
    generation: AtomicU64,
    live: Mutex<Option<Live>>,
    /// Reactors that have yet to take them.
    waiting: AtomicUsize,
    /// A reload is not through yet.
    is_busy: AtomicBool,
}

impl LiveCell {
    /// Number of reloads since the start.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether a reload has yet to reach all reactors, or all topics.
    pub fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::SeqCst)
    }

    /// Stores new settings for so many reactors, which have to be woken. False: an earlier reload is not through yet.
    pub fn store(&self, live: Live, reactors: usize) -> bool {
        let mut stored = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_busy.swap(true, Ordering::SeqCst) {
            return false;
        }
        self.waiting.store(reactors, Ordering::SeqCst);
        *stored = Some(live);
        self.generation.fetch_add(1, Ordering::Release);
        true
    }

    /// The newest settings, if there was a reload.
    pub fn get(&self) -> Option<Live> {
        let stored = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        stored.clone()
    }

    /// Whether a reactor has yet to take them.
    pub fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// A reactor has taken them.
    pub fn taken(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// They have reached every topic.
    pub fn finish(&self) {
        self.is_busy.store(false, Ordering::SeqCst);
    }
}
