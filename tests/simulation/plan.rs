//! How the nodes of a run are made: rules, and limits so small that each of them is met.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use umbel::config::{Deflate, Limits};
use umbel::internals::auth::Authority;
use umbel::internals::connection::Settings;
use umbel::internals::dialect::Dialects;
use umbel::internals::sync::Wake;
use umbel::internals::topic::Rule;

use super::node::{Anyone, Node};
use super::random::Random;
use super::topics;
use super::toy;

/// How each node of a run is made.
pub struct Plan {
    pub settings: Settings,
    pub reactors: usize,
    pub shards: usize,
    pub inline: bool,
    pub rules: Vec<Rule>,
    pub limits: Limits,
    /// In so many of a hundred cases a worker takes a while before it goes on.
    pub pauses_percent: u64,
    pub wakes: Wakes,
    /// What the nodes judge rights by.
    pub authority: Arc<Authority>,
}

/// Which of its wakes a reactor gets.
#[derive(Clone, Copy)]
pub enum Wakes {
    All,
    /// Every so manieth is lost.
    Lost(usize),
}

impl Wakes {
    /// What wakes a reactor, by this flag.
    pub fn wake(self, woken: &Arc<AtomicBool>) -> Box<Wake> {
        let (woken, count) = (Arc::clone(woken), AtomicUsize::new(1));
        Box::new(move || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            if !matches!(self, Wakes::Lost(nth) if number.is_multiple_of(nth)) {
                woken.store(true, Ordering::SeqCst);
            }
            true
        })
    }
}

impl Plan {
    pub fn new(random: &mut Random) -> Plan {
        let limits = limits(random);
        let deflate = *random.pick(&[Deflate::Off, Deflate::Text, Deflate::All]);
        let mut rules = topics::rules(random);
        let pings = toy::pings(limits.ping_interval_ms, limits.pong_timeout_ms);
        let mut settings = Settings::new(&limits)
            .with_deflate(deflate, random.chance(50))
            .with_dialects(Dialects::default().with(toy::row(pings)));
        if random.chance(85) {
            settings = settings.with_topic_rules(topics::configured(&rules));
        } else {
            rules = vec![Rule::default(); rules.len()];
        }
        Plan {
            settings,
            reactors: 1 + random.below(4),
            shards: 1 + random.below(4),
            inline: random.chance(50),
            rules,
            limits,
            wakes: Wakes::All,
            authority: Arc::new(Authority::of_embedder(Arc::new(Anyone), usize::MAX)),
            pauses_percent: *random.pick(&[0, 0, 10, 40]),
        }
    }

    /// The node that takes this turn, from 1, at this moment.
    pub fn node(&self, run: u64, now_ms: u64) -> Node {
        Node::new(self, run, now_ms)
    }
}

/// Limits so small that each of them is met.
fn limits(random: &mut Random) -> Limits {
    let mut limits = Limits::default();
    limits.head_bytes_max = 600;
    limits.headers_max = 16;
    limits.body_bytes_max = 2500;
    limits.publish_lines_max = 4;
    limits.handshake_timeout_ms = 200;
    limits.body_timeout_ms = 200;
    limits.keep_alive_timeout_ms = 400;
    limits.message_bytes_max = 2500;
    limits.publication_bytes_max = 600;
    limits.fragments_max = 8;
    limits.message_timeout_ms = 200;
    limits.ping_interval_ms = 150;
    limits.pong_timeout_ms = 100;
    limits.close_timeout_ms = 120;
    limits.outbox_bytes_max = random.within(1024, 4000) as usize;
    limits.outbox_age_max_ms = 250;
    limits.outbox_bytes_total_max = *random.pick(&[20_000, 1 << 20]);
    limits.inbound_bytes_total_max = *random.pick(&[4_000, 1 << 20]);
    limits.accepts_per_tick_max = 2;
    limits.connections_max = *random.pick(&[6, 100, 100]);
    limits.read_buffer_bytes = random.within(100, 4000) as usize;
    limits.read_budget_bytes = random.within(100, 4000) as usize;
    limits.mailbox_messages_max = *random.pick(&[1, 2, 8]);
    limits.mailbox_bytes_max = *random.pick(&[200, 1 << 20]);
    limits.commands_max = *random.pick(&[1, 2, 16]);
    limits.command_bytes_max = *random.pick(&[200, 1 << 20]);
    limits.topics_max = *random.pick(&[1, 10, 10]);
    limits.deflate_bytes_min = *random.pick(&[0, 20, 100]);
    limits.deflate_bytes_max = *random.pick(&[400, 1 << 20]);
    limits.deflate_cohorts_max = *random.pick(&[0, 1, 100]);
    limits.deflate_reset_interval_ms = *random.pick(&[10, 60, 5000]);
    limits.drain_timeout_ms = 2000;
    limits.history_bytes_total_max = *random.pick(&[20_000, 64 << 20, 64 << 20]);
    limits.recovery_publications_max = *random.pick(&[3, 1000, 1000]);
    limits.recovery_bytes_max = *random.pick(&[500, 1 << 20, 1 << 20]);
    limits.subscriptions_max = *random.pick(&[2, 100]);
    limits.subscription_steps_per_tick_max = *random.pick(&[1, 1, 256]);
    limits.work_per_tick_max = *random.pick(&[1, 1, 100, 2048]);
    limits.receipts_max = *random.pick(&[1, 100]);
    limits.idempotency_age_ms = *random.pick(&[60, 60_000, 60_000]);
    limits.idempotency_bytes_max = *random.pick(&[300, 1 << 20, 1 << 20]);
    limits.presence_changes_bytes_max = *random.pick(&[256, 16_384]);
    limits.presence_writes_per_second_max = *random.pick(&[2, 20, 20_000]);
    limits.presence_max = *random.pick(&[1, 2, 100]);
    limits
}
