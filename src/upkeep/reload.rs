//! A reload on its way: each reactor takes the newest settings, and reactor 0 brings the hub's shards to them.
//!
//! One shard after the other and in bounded steps: not before all reactors have taken them, so that whoever becomes a
//! member by a new rule is also known to leave by it.

use crate::application::Application;
use crate::hub::{Command, ReactorId};
use crate::shared::live::{Live, ShardReload};

/// Whether there are other settings than those in force here. Asked once in each tick.
pub fn is_due(application: &Application) -> bool {
    application.shared.live.generation() != application.generation
}

/// Takes the newest settings.
pub fn take(application: &mut Application) {
    application.generation = application.shared.live.generation();
    let Some(live) = application.shared.live.get() else {
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
    (application.shared.settings, application.shared.authority) = (settings, authority);
    (application.shared.origins, application.shared.hosts) = (origins, hosts);
    (
        application.shared.subprotocols,
        application.shared.listeners,
    ) = (subprotocols, listeners);
    let limits = &application.shared.settings.limits;
    application.topics.set_topics_max(limits.topics_max);
    application.patterns.set_patterns_max(limits.topics_max);
    application
        .receipts
        .set_outstanding_max(limits.receipts_max);
    let reactors = application.shared.metrics.reactor_count();
    application.presence.take_limits(limits, reactors);
    application
        .calls
        .deflation
        .take_settings(&application.shared.settings);
    application.shared.live.taken();
    if application.reactor == ReactorId(0) {
        application.shard_reload = Some(reload_of(application, 0));
    }
}

fn reload_of(application: &Application, shard: u32) -> ShardReload {
    let settings = application.shared.settings.shard_settings();
    ShardReload {
        shard,
        unsent: Some(Box::new(application.shared.shards.share_of(&settings))),
        is_asked: false,
    }
}

/// Brings the hub's shards a step nearer to the newest settings.
pub fn poll_shards(application: &mut Application) {
    if application.shard_reload.is_some() {
        reload_shards(application);
    }
}

#[cold]
fn reload_shards(application: &mut Application) {
    let Some(mut reload) = application.shard_reload.take() else {
        return;
    };
    let shard = reload.shard;
    if application.shared.live.is_awaited() {
        application.shard_reload = Some(reload);
        return;
    }
    if let Some(settings) = reload.unsent.take()
        && let Err(Command::Reload { settings, .. }) =
            application.submit(Command::Reload { shard, settings })
    {
        reload.unsent = Some(settings);
    }
    if reload.unsent.is_none() && !reload.is_asked {
        let reactor = application.reactor;
        reload.is_asked = application
            .submit(Command::Migrate { shard, reactor })
            .is_ok();
    }
    application.shard_reload = Some(reload);
}

/// A shard has taken a step.
pub fn note_step(application: &mut Application, is_done: bool) {
    let Some(reload) = &mut application.shard_reload else {
        return;
    };
    reload.is_asked = false;
    let next = reload.shard + u32::from(is_done);
    if next >= application.shared.shards.shard_count() {
        application.shard_reload = None;
        application.shared.live.finish();
    } else if is_done {
        application.shard_reload = Some(reload_of(application, next));
    }
}
