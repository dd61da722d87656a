//! Jobs on this reactor: bounded looks at its slots, and bounded changes, in each tick.

use super::connections::Connections;
use super::slot::{Flags, Slot};
use crate::auth::identity::Identity;
use crate::connection::Label;
use crate::dialect::Target;
use crate::fanout::subscribed::SubscribedKind;
use crate::handler::{CloseCode, ConnectionId};
use crate::net::byte_stream::ByteStream;
use crate::shared::jobs::{ConnectionInfo, Cursor, Filter, Job, Selector, Task};

/// Jobs that are under way on a reactor at a time. Another is turned away.
const JOBS_MAX: usize = 64;

/// Slots that all jobs look at in one tick.
const SLOTS_PER_TICK: usize = 16_384;

/// Connections that all jobs change in one tick.
const CHANGES_PER_TICK: usize = 1000;

/// What is left of a tick for jobs.
struct Budget {
    slots: usize,
    changes: usize,
}

/// How far a job came in a tick.
enum Progress {
    /// It goes on here in the next tick.
    Here,
    /// It is done here.
    Onwards,
    /// It is done.
    Finished,
}

impl<T: ByteStream> Connections<T> {
    /// What the listener of a number is called.
    pub fn listener_name(&self, listener: u8) -> &str {
        let listeners = &self.application.shared.listeners;
        listeners
            .get(usize::from(listener))
            .map_or("", |listening| &listening.name)
    }

    /// Takes a job that has come to this reactor. One too many is dropped, which tells whoever waits.
    pub(super) fn take_job(&mut self, job: Box<Job>) {
        if self.jobs.len() < JOBS_MAX {
            self.jobs.push_back(job);
        }
    }

    /// Goes on with the jobs that are here.
    pub fn poll_jobs(&mut self, now_ms: u64) {
        if self.jobs.is_empty() {
            return;
        }
        let mut budget = Budget {
            slots: SLOTS_PER_TICK,
            changes: CHANGES_PER_TICK,
        };
        for _ in 0..self.jobs.len() {
            let Some(mut job) = self.jobs.pop_front() else {
                break;
            };
            match self.go_on(&mut job, &mut budget, now_ms) {
                Progress::Here => self.jobs.push_back(job),
                Progress::Onwards => self.application.shared.pass_job_on(job),
                Progress::Finished => job.finish(),
            }
        }
    }

    fn go_on(&mut self, job: &mut Job, budget: &mut Budget, now_ms: u64) -> Progress {
        if let Some(id) = job.connection() {
            self.look_at(job, id.index, now_ms);
            return Progress::Finished;
        }
        while (job.cursor.slot as usize) < self.slots.capacity() {
            if is_full(job) {
                job.outcome.next = Some(job.cursor);
                return Progress::Finished;
            }
            if budget.slots == 0 || budget.changes == 0 {
                return Progress::Here;
            }
            budget.slots -= 1;
            let changed = self.look_at(job, job.cursor.slot, now_ms);
            budget.changes -= usize::from(changed);
            job.cursor.slot += 1;
            if let Some(left) = &mut job.slots_left {
                *left -= 1;
            }
        }
        let reactor = job.cursor.reactor + 1;
        if is_full(job) && usize::from(reactor) < self.reactors {
            job.outcome.next = Some(Cursor { reactor, slot: 0 });
            return Progress::Finished;
        }
        Progress::Onwards
    }

    /// Does the job's task to the connection at a slot, if it is meant. True: something was changed.
    fn look_at(&mut self, job: &mut Job, index: u32, now_ms: u64) -> bool {
        let Some(slot) = self.slots.get(index as usize) else {
            return false;
        };
        if slot.flags.has(Flags::IS_CLOSED) {
            return false;
        }
        let id = slot.id(self.application.reactor, index);
        match &job.task {
            Task::List(filter, _) => {
                if self.passes(slot, filter) {
                    job.outcome.rows.push(self.describe(slot, id, false));
                }
                false
            }
            Task::Show(shown) => {
                if *shown == id {
                    job.outcome.rows.push(self.describe(slot, id, true));
                }
                false
            }
            task => {
                let is_meant = match (task, task.selector()) {
                    (Task::Revoke(entry), _) => entry.denies(self.identity(slot), address_of(slot)),
                    (_, selector) => selector.is_some_and(|it| self.is_selected(slot, id, it)),
                };
                let changed =
                    is_meant && !slot.connection.is_closing() && self.change(id, task, now_ms);
                job.outcome.count += u64::from(changed);
                changed
            }
        }
    }

    /// Does a task to a connection. False: there was nothing to do.
    fn change(&mut self, id: ConnectionId, task: &Task, now_ms: u64) -> bool {
        let mut changed = false;
        self.with_connection(id, now_ms, |application, context| {
            changed = match task {
                Task::Disconnect(_, (code, reason), except) => {
                    let is_meant = !except.contains(&id);
                    if is_meant {
                        application.disconnect(context, *code, reason.clone().into());
                    }
                    is_meant
                }
                Task::Unsubscribe(_, target, notice) => {
                    application.unsubscribe(context, target, notice)
                }
                Task::Subscribe(_, topic, start) => {
                    application.subscribe_for(context, topic, *start)
                }
                Task::Send(_, kind, payload) => application.send(context, *kind, payload),
                Task::Refresh(_, end_ms) => application.refresh(context, *end_ms),
                Task::Revoke(_) => {
                    application.disconnect(context, CloseCode::FORBIDDEN, "revoked".into());
                    true
                }
                Task::List(..) | Task::Show(_) => false,
            };
            changed
        });
        changed
    }

    fn identity(&self, slot: &Slot<T>) -> Option<&Identity> {
        let caller = self.application.identities.get(slot.identity);
        caller.identity().map(|identity| &**identity)
    }

    fn is_selected(&self, slot: &Slot<T>, id: ConnectionId, selector: &Selector) -> bool {
        match selector {
            Selector::Connection(wanted) => *wanted == id,
            Selector::Subject(subject) => {
                self.identity(slot).and_then(Identity::subject) == Some(subject)
            }
            Selector::TokenId(token) => {
                self.identity(slot).and_then(Identity::token_id) == Some(token)
            }
            Selector::Peer(network) => {
                address_of(slot).is_some_and(|address| network.contains(&address))
            }
        }
    }

    fn passes(&self, slot: &Slot<T>, filter: &Filter) -> bool {
        let Filter {
            subject,
            topic,
            peer,
            dialect,
        } = filter;
        let identity = self.identity(slot);
        subject
            .as_deref()
            .is_none_or(|it| identity.and_then(Identity::subject) == Some(it))
            && dialect
                .as_deref()
                .is_none_or(|it| self.dialect_of(slot) == it)
            && peer.is_none_or(|network| address_of(slot).is_some_and(|it| network.contains(&it)))
            && topic.as_ref().is_none_or(|topic| {
                let target = Target::Topic(topic.clone());
                match slot.subscribed.kind() {
                    SubscribedKind::None => false,
                    SubscribedKind::One(one) => self.application.topics.topic(one) == topic,
                    SubscribedKind::Many(_) => {
                        let many = self.application.multi_subscriptions.get(slot.subscribed);
                        many.is_some_and(|many| many.subscriptions.get(&target).is_some())
                    }
                }
            })
    }

    fn dialect_of(&self, slot: &Slot<T>) -> &'static str {
        match slot.connection.label() {
            Label::Http => "http",
            Label::Handler => "endpoint",
            Label::Closing => "closing",
            Label::Subscriber(encoding) => self.settings.dialects.get(encoding).label(),
        }
    }

    /// All that is known of a connection.
    fn describe(&self, slot: &Slot<T>, id: ConnectionId, with_targets: bool) -> ConnectionInfo {
        let application = &self.application;
        let identity = self.identity(slot);
        let many = application.multi_subscriptions.get(slot.subscribed);
        let one = slot.subscribed.one();
        let targets = match (with_targets, one, many) {
            (true, Some(one), _) => vec![Target::Topic(application.topics.topic(one).clone())],
            (true, _, Some(many)) => many.subscriptions.targets(),
            _ => Vec::new(),
        };
        ConnectionInfo {
            connection: Some(id),
            subject: identity.and_then(Identity::subject).map(str::to_owned),
            token_id: identity.and_then(Identity::token_id).map(str::to_owned),
            peer: address_of(slot),
            listener: self.listener_name(slot.listener).to_owned(),
            dialect: self.dialect_of(slot),
            opened_at_ms: many.map(|many| many.opened_ms()),
            expires_at_ms: identity.and_then(Identity::expires_at_ms),
            subscriptions: many.map_or(usize::from(one.is_some()), |it| it.subscriptions.len()),
            queued_bytes: slot.connection.outbox.bytes(),
            info: identity.and_then(Identity::info).map(str::to_owned),
            meta: identity.and_then(Identity::meta).map(str::to_owned),
            targets,
        }
    }
}

/// Whether a list has as many rows as it may, or has looked at as many slots.
fn is_full(job: &Job) -> bool {
    match &job.task {
        Task::List(_, rows_max) => {
            job.outcome.rows.len() >= *rows_max || job.slots_left.is_some_and(|left| left == 0)
        }
        _ => false,
    }
}

/// IP address of a slot's peer.
fn address_of<T: ByteStream>(slot: &Slot<T>) -> Option<std::net::IpAddr> {
    let address = slot.transport.peer_address().ok().flatten();
    address.map(|address| address.ip().to_canonical())
}
