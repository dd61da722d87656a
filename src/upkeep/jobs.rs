//! Jobs on this reactor: bounded looks at its slots, and bounded changes, in each tick.

use super::{SLOTS_PER_TICK, Seen, Slots, Upkeep, denied, managed};
use crate::application::Application;
use crate::auth::identity::Identity;
use crate::dialect::Target;
use crate::fanout::subscribed::SubscribedKind;
use crate::shared::jobs::{ConnectionInfo, Cursor, Filter, Job, Selector, Task};

/// Jobs that are under way on a reactor at a time. Another is turned away.
const JOBS_MAX: usize = 64;

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

/// Takes a job that has come to this reactor. One too many is dropped, which tells whoever waits. One that wakes is handed on in
/// the same tick, and so is never too many.
pub fn take(upkeep: &mut Upkeep, job: Box<Job>) {
    if upkeep.jobs.len() < JOBS_MAX || job.task == Task::Revoke {
        upkeep.jobs.push_back(job);
    }
}

/// Goes on with the jobs that are here. Before them come those that the deny list denies.
pub fn poll(slots: &mut impl Slots, now_ms: u64) {
    denied::poll(slots, now_ms);
    if slots.upkeep().jobs.is_empty() {
        return;
    }
    let mut budget = Budget {
        slots: SLOTS_PER_TICK,
        changes: CHANGES_PER_TICK,
    };
    for _ in 0..slots.upkeep().jobs.len() {
        let Some(mut job) = slots.upkeep().jobs.pop_front() else {
            break;
        };
        match go_on(slots, &mut job, &mut budget, now_ms) {
            Progress::Here => slots.upkeep().jobs.push_back(job),
            Progress::Onwards => slots.application().shared.pass_job_on(job),
            Progress::Finished => job.finish(),
        }
    }
}

fn go_on(slots: &mut impl Slots, job: &mut Job, budget: &mut Budget, now_ms: u64) -> Progress {
    if let Some(id) = job.connection() {
        look_at(slots, job, id.index, now_ms);
        return Progress::Finished;
    }
    while job.task != Task::Revoke && job.cursor.slot < slots.end() {
        if is_full(job) {
            job.outcome.next = Some(job.cursor);
            return Progress::Finished;
        }
        if budget.slots == 0 || budget.changes == 0 {
            return Progress::Here;
        }
        budget.slots -= 1;
        let changed = look_at(slots, job, job.cursor.slot, now_ms);
        budget.changes -= usize::from(changed);
        job.cursor.slot += 1;
        if let Some(left) = &mut job.slots_left {
            *left -= 1;
        }
    }
    let reactor = job.cursor.reactor + 1;
    let reactors = slots.application().shared.metrics.reactor_count();
    if is_full(job) && usize::from(reactor) < reactors {
        job.outcome.next = Some(Cursor { reactor, slot: 0 });
        return Progress::Finished;
    }
    Progress::Onwards
}

/// Does the job's task to the connection at a slot, if it is meant. True: something was changed.
fn look_at(slots: &mut impl Slots, job: &mut Job, index: u32, now_ms: u64) -> bool {
    let Job { task, outcome, .. } = job;
    let is_meant = slots.look(index, |application, seen| match &*task {
        Task::List(filter, _) => {
            if passes(application, seen, filter) {
                outcome.rows.push(describe(application, seen, false));
            }
            false
        }
        Task::Show(shown) => {
            if *shown == seen.id {
                outcome.rows.push(describe(application, seen, true));
            }
            false
        }
        task => {
            let selector = task.selector();
            let is_meant = selector.is_some_and(|it| is_selected(application, seen, it));
            is_meant && !seen.connection.is_closing()
        }
    });
    let changed = is_meant == Some(true) && change(slots, index, task, now_ms);
    outcome.count += u64::from(changed);
    changed
}

/// Does a task to a connection. False: there was nothing to do.
fn change(slots: &mut impl Slots, index: u32, task: &Task, now_ms: u64) -> bool {
    let changed = slots.visit(index, now_ms, |application, context| match task {
        Task::Disconnect(_, (code, reason), except) => {
            let is_meant = !except.contains(&context.id);
            if is_meant {
                application.disconnect(context, *code, reason.clone().into());
            }
            is_meant
        }
        Task::Unsubscribe(_, target, notice) => {
            managed::unsubscribe(application, context, target, notice)
        }
        Task::Subscribe(_, topic, start) => managed::subscribe(application, context, topic, *start),
        Task::Send(_, kind, payload) => managed::send(application, context, *kind, payload),
        Task::Refresh(_, end_ms, rights) => {
            managed::refresh(application, context, *end_ms, rights.as_deref())
        }
        Task::List(..) | Task::Show(_) | Task::Revoke => false,
    });
    changed == Some(true)
}

fn is_selected(application: &Application, seen: &Seen<'_>, selector: &Selector) -> bool {
    let identity = || seen.identity_in(application);
    match selector {
        Selector::Connection(wanted) => *wanted == seen.id,
        Selector::Subject(subject) => identity().and_then(Identity::subject) == Some(subject),
        Selector::TokenId(token) => identity().and_then(Identity::token_id) == Some(token),
        Selector::Peer(network) => seen
            .client_ip()
            .is_some_and(|address| network.contains(&address)),
    }
}

fn passes(application: &Application, seen: &Seen<'_>, filter: &Filter) -> bool {
    let Filter {
        subject,
        topic,
        peer,
        dialect,
    } = filter;
    let identity = seen.identity_in(application);
    subject
        .as_deref()
        .is_none_or(|it| identity.and_then(Identity::subject) == Some(it))
        && dialect
            .as_deref()
            .is_none_or(|it| dialect_of(application, seen) == it)
        && peer.is_none_or(|network| seen.client_ip().is_some_and(|it| network.contains(&it)))
        && topic.as_ref().is_none_or(|topic| {
            let target = Target::Topic(topic.clone());
            match seen.subscribed.kind() {
                SubscribedKind::None => false,
                SubscribedKind::One(one) => application.topics.topic(one) == topic,
                SubscribedKind::Many(_) => {
                    let many = application.multi_subscriptions.get(seen.subscribed);
                    many.is_some_and(|many| many.subscriptions.get(&target).is_some())
                }
            }
        })
}

fn dialect_of(application: &Application, seen: &Seen<'_>) -> &'static str {
    let dialects = &application.shared.settings.dialects;
    seen.connection.label().name(dialects)
}

/// All that is known of a connection.
fn describe(application: &Application, seen: &Seen<'_>, with_targets: bool) -> ConnectionInfo {
    let identity = seen.identity_in(application);
    let many = application.multi_subscriptions.get(seen.subscribed);
    let one = seen.subscribed.one();
    let traffic = (seen.traffic)();
    let targets = match (with_targets, one, many) {
        (true, Some(one), _) => vec![Target::Topic(application.topics.topic(one).clone())],
        (true, _, Some(many)) => many.subscriptions.targets(),
        _ => Vec::new(),
    };
    ConnectionInfo {
        connection: Some(seen.id),
        subject: identity.and_then(Identity::subject).map(str::to_owned),
        token_id: identity.and_then(Identity::token_id).map(str::to_owned),
        peer: seen.client_ip(),
        listener: application.shared.listener_name(seen.listener).to_owned(),
        dialect: dialect_of(application, seen),
        opened_at_ms: many.map(|many| many.opened_ms()),
        expires_at_ms: identity.and_then(Identity::expires_at_ms),
        subscriptions: many.map_or(usize::from(one.is_some()), |it| it.subscriptions.len()),
        queued_bytes: seen.connection.outbox.bytes(),
        received_bytes: traffic.map(|traffic| traffic.received_bytes),
        sent_bytes: traffic.map(|traffic| traffic.sent_bytes),
        info: identity.and_then(Identity::info).map(str::to_owned),
        meta: identity.and_then(Identity::meta).map(str::to_owned),
        targets,
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
