//! Deliveries that need care: those of which somebody wants a receipt, and those that their own connection does not get.
//!
//! A batch without such publications never comes here.

use std::sync::Arc;

use super::connections::Connections;
use crate::dialect::Target;
use crate::fanout::batch::Batch;
use crate::fanout::tally::Tally;
use crate::handler::ConnectionId;
use crate::hub::{Publication, ReactorId};
use crate::net::byte_stream::ByteStream;
use crate::topic::Pattern;

impl<T: ByteStream> Connections<T> {
    /// Writes a batch of a topic's to its subscribers and members.
    #[cold]
    pub(super) fn deliver_with_care(
        &mut self,
        topic: u32,
        batch: &[Arc<Publication>],
        (subscribers, members): (&[u32], &[u32]),
        now_ms: u64,
        now_us: &mut dyn FnMut() -> u64,
    ) {
        for run in runs(batch) {
            let target = || run[0].topic().cloned().map(Target::Topic);
            let own = self.without_echo(run[0].own(), target);
            report(run, now_us, || {
                let Some(own) = own else {
                    return self.deliver_batch(topic, run, (subscribers, members), now_ms);
                };
                // A connection that misses a frame of a cohort could not read the next, so nothing is compressed.
                let (subscribers, members) = (others(subscribers, own), others(members, own));
                let all = (&*subscribers, &*members);
                self.deliver_to_all::<false>(&Batch::new(run), all, now_ms)
            });
        }
    }

    /// Writes a batch of a pattern's to its subscribers.
    #[cold]
    pub(super) fn deliver_pattern_with_care(
        &mut self,
        pattern: &Pattern,
        batch: &[Arc<Publication>],
        subscribers: &[u32],
        now_ms: u64,
        now_us: &mut dyn FnMut() -> u64,
    ) {
        for run in runs(batch) {
            let target = || Some(Target::Pattern(pattern.clone()));
            let own = self.without_echo(run[0].own(), target);
            report(run, now_us, || {
                let batch = Batch::new(run).with_pattern(pattern);
                match own {
                    Some(own) => {
                        self.deliver_to::<false>(&batch, &others(subscribers, own), now_ms)
                    }
                    None => self.deliver_to::<false>(&batch, subscribers, now_ms),
                }
            });
        }
    }

    /// Index of the connection that published something, if it is here and its subscription has no echo.
    fn without_echo(
        &self,
        own: Option<(ReactorId, u64)>,
        target: impl FnOnce() -> Option<Target>,
    ) -> Option<u32> {
        let (reactor, connection) = own?;
        if reactor != self.application.reactor {
            return None;
        }
        let id = ConnectionId::from_bits(reactor.0, connection);
        let slot = self.slots.get(id.index as usize).filter(|it| it.is(id))?;
        let subscriptions = &self.application.multi_subscriptions;
        let is_silent = slot.connection.is_without_echo()
            || !subscriptions.has_echo(slot.subscribed, &target()?);
        is_silent.then_some(id.index)
    }
}

/// Publications behind one another that the same connection does not get, or all do.
fn runs(batch: &[Arc<Publication>]) -> impl Iterator<Item = &[Arc<Publication>]> {
    batch.chunk_by(|one, next| one.own() == next.own())
}

/// All connections but one.
fn others(connections: &[u32], own: u32) -> Vec<u32> {
    let others = connections.iter().copied();
    others.filter(|index| *index != own).collect()
}

/// Delivers, and adds what came of it to the receipts that are wanted.
fn report(
    run: &[Arc<Publication>],
    now_us: &mut dyn FnMut() -> u64,
    deliver: impl FnOnce() -> Tally,
) {
    let wants_receipt = run.iter().any(|it| it.receipt().is_some());
    let first_us = if wants_receipt { now_us() } else { 0 };
    let tally = deliver();
    if wants_receipt {
        tally.report(run, first_us, now_us());
    }
}
