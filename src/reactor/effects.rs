//! The mail of a tick: what the hub hands out, carried out for the connections that it concerns.

use std::collections::HashSet;
use std::sync::Arc;

use super::connections::Connections;
use super::slot::Flags;
use crate::application::{Application, ConnectionContext};
use crate::connection::Hold;
use crate::handler::ConnectionId;
use crate::hub::{Effect, Joined, LocalTopic, Outcome, Position, PresenceChange, Report};
use crate::net::byte_stream::ByteStream;
use crate::requests;
use crate::shared::brought::{Fate, Work};
use crate::upkeep::{jobs, judging, memory, reload};

impl<T: ByteStream> Connections<T> {
    /// Takes one effect of the hub's. Publications are gathered; [`deliver`](Connections::deliver) writes them.
    pub fn handle_effect(&mut self, effect: Effect, now_ms: u64) {
        match effect {
            Effect::Deliver {
                local, publication, ..
            } => self.application.queue(local, publication),
            Effect::Published {
                connection,
                sequence,
                position,
                outcome: Outcome::Placed,
                ..
            } => self.handle_published(self.id(connection), sequence, position, None, now_ms),
            Effect::Published {
                connection,
                sequence,
                position,
                outcome,
                lost_receipt,
                ..
            } => {
                if lost_receipt {
                    self.application.receipts.give_back();
                }
                self.with_connection(self.id(connection), now_ms, |application, context| {
                    requests::handle_not_placed(application, context, sequence, outcome, position);
                    true
                });
            }
            Effect::Joined {
                local,
                connection,
                request,
                joined,
                ..
            } => self.handle_joined(local, self.id(connection), request, *joined, now_ms),
            Effect::PresenceChanged { local, change, .. } => {
                self.handle_presence_changed(local, change, now_ms);
            }
            Effect::Present {
                connection,
                request,
                members,
                total,
                ..
            } => self.with_connection(self.id(connection), now_ms, |application, context| {
                application.handle_present(context, request, &members, total);
                true
            }),
            Effect::Read {
                connection,
                request,
                page,
                ..
            } => self.with_connection(self.id(connection), now_ms, |application, context| {
                requests::handle_page(application, context, request, &page);
                true
            }),
            Effect::Migrated { is_done, .. } => reload::note_step(&mut self.application, is_done),
            Effect::Listed { listing } => {
                if let Some((id, listing)) = requests::handle_listed(&mut self.application, listing)
                {
                    self.with_connection(id, now_ms, |application, context| {
                        requests::gather(application, context, &listing);
                        true
                    });
                }
            }
        }
    }

    /// Tries again what the hub did not take, and tells it of topics without subscribers.
    pub fn retry_commands(&mut self) {
        let Connections { application, .. } = self;
        let (shards, reactor) = (Arc::clone(&application.shared.shards), application.reactor);
        application
            .topics
            .retire(|command| shards.submit(command, Some(reactor)).is_ok());
        reload::poll_shards(application);
        self.retry_deferred();
    }

    /// The name of a connection of this reactor.
    fn id(&self, connection: u64) -> ConnectionId {
        ConnectionId::from_bits(self.application.reactor.0, connection)
    }

    /// The application, and a connection for it to work on unless that is gone.
    fn parts(
        &mut self,
        id: ConnectionId,
        now_ms: u64,
    ) -> (&mut Application, Option<ConnectionContext<'_>>) {
        let Connections {
            slots,
            application,
            out,
            ..
        } = self;
        let slot = slots.get_mut(id.index as usize).filter(|it| it.is(id));
        let context = slot.map(|slot| ConnectionContext {
            id,
            listener: slot.listener,
            connection: &mut slot.connection,
            identity: &mut slot.identity,
            subscribed: &mut slot.subscribed,
            out,
            now_ms,
        });
        (application, context)
    }

    /// Takes newer settings if there are any, and judges the rights of some open connections by them.
    /// True: they are newer.
    pub fn poll_reload(&mut self, now_ms: u64) -> bool {
        let is_newer = reload::is_due(&self.application);
        if is_newer {
            reload::take(&mut self.application);
            self.settings = Arc::clone(&self.application.shared.settings);
            self.bound_bytes();
            if let Some(compression) = &mut self.compression {
                compression.take_settings(&self.settings, self.reactors);
            }
            self.upkeep.judge_from = Some(0);
            self.upkeep.paces.take_rules(&self.settings.pace);
        }
        judging::poll(self, now_ms);
        is_newer
    }

    /// The mailbox has room again, for shards that were turned away.
    pub fn resume_shards(&self) {
        self.application.shared.shards.resume();
    }

    /// Whether the hub has carried out everything that was published so far.
    pub fn hub_is_idle(&self) -> bool {
        self.application.shared.shards.is_idle()
    }

    /// Whether commands wait that the hub did not take.
    pub fn has_backpressure(&self) -> bool {
        self.application.has_backpressure()
    }

    /// Lets the application work on a connection, unless that is gone, and writes what comes of it if `work` says so.
    pub(super) fn with_connection(
        &mut self,
        id: ConnectionId,
        now_ms: u64,
        work: impl FnOnce(&mut Application, &mut ConnectionContext<'_>) -> bool,
    ) {
        let (application, context) = self.parts(id, now_ms);
        if context.is_some_and(|mut context| work(application, &mut context)) {
            self.settle(id.index, now_ms);
        }
    }

    fn handle_joined(
        &mut self,
        local: LocalTopic,
        id: ConnectionId,
        request: u32,
        joined: Joined,
        now_ms: u64,
    ) {
        self.deliver_topic(local.index, now_ms);
        let (application, context) = self.parts(id, now_ms);
        let is_taken = application.handle_joined(id, context, local.index, request, joined);
        self.resume_held(id);
        if !is_taken {
            return;
        }
        // The request may have been judged by rights that a reload has replaced since.
        let is_reloaded = self.application.generation > 0;
        self.with_connection(id, now_ms, |application, context| {
            if is_reloaded && context.subscribed.one().is_some() {
                judging::judge_again(application, context);
            }
            true
        });
    }

    /// A hold may have been lifted behind which reading stopped.
    fn resume_held(&mut self, id: ConnectionId) {
        if self
            .slot(id)
            .is_some_and(|slot| slot.flags.has(Flags::WAS_HELD))
        {
            self.resume(id);
        }
    }

    /// Somebody came to a topic, or went. Its members are told at the end of this tick's mail.
    fn handle_presence_changed(
        &mut self,
        local: LocalTopic,
        change: Arc<PresenceChange>,
        now_ms: u64,
    ) {
        let Application {
            topics, presence, ..
        } = &mut self.application;
        // Another topic may have its place by now.
        if topics.is_here(local) && presence.push(local, change, now_ms) {
            self.deliver_presence_of(local.index, now_ms);
        }
    }

    /// Tries again what the hub did not take. Each command once, for one shard may be full and another not; but none
    /// before an older one of the same connection, so that the order of its commands holds.
    fn retry_deferred(&mut self) {
        if self.application.deferred.is_empty() {
            return;
        }
        let mut held = HashSet::new();
        let mut taken = Vec::new();
        for _ in 0..self.application.deferred.len() {
            let Some((id, command)) = self.application.take_deferred() else {
                break;
            };
            // The connection may be gone meanwhile; its message had come in whole, so it is published all the same.
            let outcome = match held.contains(&id) {
                true => Err(command),
                false => self.application.submit(command),
            };
            match outcome {
                Ok(()) => taken.push(id),
                Err(command) => {
                    held.insert(id);
                    self.application.defer(id, command);
                }
            }
        }
        for id in taken {
            if !held.contains(&id)
                && let Some(slot) = self.slot(id)
            {
                slot.connection.lift(Hold::Hub);
                self.resume(id);
            }
        }
    }

    /// Answers the publishers whose publications have been written to everybody.
    pub fn poll_receipts(&mut self, now_ms: u64) {
        if self.application.receipts.is_empty() {
            return;
        }
        while let Some(reported) = self.application.receipts.take() {
            let (id, report) = (reported.connection, &reported.report);
            self.handle_published(id, reported.sequence, report.position, Some(report), now_ms);
        }
    }

    /// Carries out the commands that others than their peers bring for connections here: as many as there are now.
    pub fn poll_brought(&mut self, now_ms: u64) {
        if self.application.brought.is_empty() {
            return;
        }
        for _ in 0..self.application.brought.len() {
            let Some(brought) = self.application.brought.take() else {
                break;
            };
            let id = brought.connection();
            brought.carry_out(|work| self.carry_out(id, work, now_ms));
            self.application.calls.note_carried_out(id);
        }
    }

    fn carry_out(&mut self, id: ConnectionId, work: Work, now_ms: u64) -> Fate {
        let work = match work {
            Work::Job(job) => {
                jobs::take(&mut self.upkeep, job);
                return Fate::CarriedOut;
            }
            Work::Shed(bytes) => {
                memory::shed(self, bytes, now_ms);
                return Fate::CarriedOut;
            }
            work => work,
        };
        let (application, context) = self.parts(id, now_ms);
        let fate = match (context, work) {
            (Some(mut context), Work::Command(command)) => {
                application.carry_out(&mut context, command, false)
            }
            (Some(mut context), Work::Peer(command)) => {
                application.carry_out_of_handle(&mut context, command)
            }
            (Some(mut context), Work::Disconnect(code, reason)) => {
                application.disconnect(&mut context, code, reason)
            }
            (Some(mut context), Work::Respond(reply)) => {
                requests::end_call(application, &mut context, reply);
                Fate::CarriedOut
            }
            (None, _) | (_, Work::Job(_) | Work::Shed(_)) => Fate::Gone,
        };
        if fate == Fate::CarriedOut {
            self.settle(id.index, now_ms);
        }
        fate
    }

    /// When the next deadline comes, at the earliest.
    pub fn next_deadline_ms(&self) -> u64 {
        let news_ms = self.application.presence.next_due_ms();
        let next_ms = self.deadlines.next_ms().min(news_ms);
        let next_ms = next_ms.min(self.upkeep.next_ms());
        match self.application.asking.next_deadline_ms() {
            Some(asked_ms) => next_ms.min(asked_ms),
            None => next_ms,
        }
    }

    /// Goes on with connections about which somebody else has decided, or has not in time.
    pub fn poll_asking(&mut self, now_ms: u64) {
        if self.application.asking.is_quiet() {
            return;
        }
        let wait_max_ms = self.settings.limits.handshake_timeout_ms;
        for id in self.application.asking.poll(now_ms, wait_max_ms) {
            if let Some(slot) = self.slot(id) {
                slot.connection.lift(Hold::Ask);
                self.resume(id);
            }
        }
    }

    /// Tells handlers of connections whose peers have taken all that waited.
    pub fn poll_writable(&mut self, now_ms: u64) {
        for id in std::mem::take(&mut self.application.calls.writable) {
            self.with_connection(id, now_ms, |application, context| {
                application.tell_writable(context);
                true
            });
        }
    }

    /// Whether there are reports that no wake will announce.
    pub fn has_reports(&self) -> bool {
        !self.application.receipts.is_empty()
    }

    /// A publication of a connection's has its place; with a receipt, it has been written to everybody too.
    fn handle_published(
        &mut self,
        id: ConnectionId,
        sequence: u32,
        position: Position,
        report: Option<&Report>,
        now_ms: u64,
    ) {
        self.with_connection(id, now_ms, |application, context| {
            application.handle_published(context, sequence, position, report);
            true
        });
    }
}
