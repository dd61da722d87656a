//! Settings that a reload changes while the server runs.
//!
//! Whoever reloads stores them in the [`LiveCell`]. Each reactor looks at its generation in every tick, and takes them when
//! it is another. Reactor 0 then brings the hub's shards to them, one after the other and in bounded steps: not before
//! all reactors have taken them, so that whoever becomes a member by a new rule is also known to leave by it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Application;
use crate::auth::Authority;
use crate::config::{Hosts, Origins};
use crate::connection::Settings;
use crate::hub::{Command, ReactorId, ShardSettings};

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
}

/// Way of a reload from reactor 0 to the shards.
#[derive(Debug)]
pub(super) struct ShardReload {
    /// The shard whose turn it is.
    shard: u32,
    /// Settings that it has yet to be sent.
    unsent: Option<Box<ShardSettings>>,
    /// It was sent for a step, and has not answered.
    is_asked: bool,
}

impl Application {
    /// Whether there are other settings than those in force here. Asked once in each tick.
    pub fn has_reload(&self) -> bool {
        self.shared.live.generation() != self.generation
    }

    /// Takes the newest settings.
    pub fn take_live(&mut self) {
        self.generation = self.shared.live.generation();
        let Some(live) = self.shared.live.get() else {
            return;
        };
        let Live {
            settings,
            authority,
            origins,
            hosts,
            subprotocols,
        } = live;
        (self.shared.settings, self.shared.authority) = (settings, authority);
        (self.shared.origins, self.shared.hosts) = (origins, hosts);
        self.shared.subprotocols = subprotocols;
        self.shared.live.waiting.fetch_sub(1, Ordering::SeqCst);
        if self.reactor == ReactorId(0) {
            self.shard_reload = Some(self.reload_of(0));
        }
    }

    fn reload_of(&self, shard: u32) -> ShardReload {
        let settings = self.shared.settings.shard_settings();
        ShardReload {
            shard,
            unsent: Some(Box::new(self.shared.shards.share_of(&settings))),
            is_asked: false,
        }
    }

    /// Brings the hub's shards a step nearer to the newest settings.
    pub fn poll_shard_reload(&mut self) {
        let Some(mut reload) = self.shard_reload.take() else {
            return;
        };
        let shard = reload.shard;
        if self.shared.live.waiting.load(Ordering::SeqCst) > 0 {
            self.shard_reload = Some(reload);
            return;
        }
        if let Some(settings) = reload.unsent.take()
            && let Err(Command::Reload { settings, .. }) =
                self.submit(Command::Reload { shard, settings })
        {
            reload.unsent = Some(settings);
        }
        if reload.unsent.is_none() && !reload.is_asked {
            let reactor = self.reactor;
            reload.is_asked = self.submit(Command::Migrate { shard, reactor }).is_ok();
        }
        self.shard_reload = Some(reload);
    }

    /// A shard has taken a step.
    pub fn handle_migrated(&mut self, is_done: bool) {
        let Some(reload) = &mut self.shard_reload else {
            return;
        };
        reload.is_asked = false;
        let next = reload.shard + u32::from(is_done);
        if next >= self.shared.shards.shard_count() {
            self.shard_reload = None;
            self.shared.live.is_busy.store(false, Ordering::SeqCst);
        } else if is_done {
            self.shard_reload = Some(self.reload_of(next));
        }
    }
}
