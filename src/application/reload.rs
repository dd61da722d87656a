//! A reload on its way: each reactor takes the newest settings, and reactor 0 brings the hub's shards to them.
//!
//! One shard after the other and in bounded steps: not before all reactors have taken them, so that whoever becomes a
//! member by a new rule is also known to leave by it.

use super::Application;
use crate::hub::{Command, ReactorId, ShardSettings};
use crate::shared::live::Live;

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
            listeners,
        } = live;
        (self.shared.settings, self.shared.authority) = (settings, authority);
        (self.shared.origins, self.shared.hosts) = (origins, hosts);
        (self.shared.subprotocols, self.shared.listeners) = (subprotocols, listeners);
        let limits = &self.shared.settings.limits;
        self.topics.set_topics_max(limits.topics_max);
        self.patterns.set_patterns_max(limits.topics_max);
        self.receipts.set_outstanding_max(limits.receipts_max);
        let reactors = self.shared.metrics.reactor_count();
        self.presence.take_limits(limits, reactors);
        self.calls.deflation.take_settings(&self.shared.settings);
        self.shared.live.taken();
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
        if self.shard_reload.is_some() {
            self.reload_shards();
        }
    }

    #[cold]
    fn reload_shards(&mut self) {
        let Some(mut reload) = self.shard_reload.take() else {
            return;
        };
        let shard = reload.shard;
        if self.shared.live.is_awaited() {
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
            self.shared.live.finish();
        } else if is_done {
            self.shard_reload = Some(self.reload_of(next));
        }
    }
}
