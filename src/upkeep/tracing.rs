//! Traces, as a reactor follows them: which connections they concern, what becomes of those, and the answers to the
//! requests that ask.

use std::sync::Arc;

use super::Slots;
use crate::application::{Application, ConnectionContext};
use crate::auth::table::IdentityHandle;
use crate::connection::{CloseReason, Label};
use crate::dialect::object::Object;
use crate::hub::Publication;
use crate::trace::{self, Moment, Own, Subject, Trace, Turn};

/// Slots whose identities are looked at in one tick, after a trace of a subject has begun.
const SLOTS_PER_TICK: u32 = 4096;

/// Time between two looks at the traces of requests here, in milliseconds: whoever asked may be gone.
const LOOK_INTERVAL_MS: u64 = 250;

/// Time between two pieces of what has gathered, in milliseconds.
const MORE_INTERVAL_MS: u64 = 5;

/// Time between two signs of life, in milliseconds.
const ALIVE_INTERVAL_MS: u64 = 15_000;

/// Bytes of lines that are written at once, at most half of what an outbox may hold.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// The moment of the tick.
fn moment(application: &Application) -> Moment {
    Moment {
        clock_ms: application.now_us / 1000,
        wall_ms: application.wall_ms(),
    }
}

/// Takes newer traces, if there are any. What has gathered in those whose requests are here is written.
pub fn poll(slots: &mut impl Slots, now_ms: u64) {
    let version = slots.application().shared.control.traces.version();
    if version != slots.upkeep().tracing.version {
        take(slots, version, now_ms);
    }
    if slots.upkeep().tracing.is_on() {
        scan(slots);
        answer(slots, now_ms);
    }
}

#[cold]
fn take(slots: &mut impl Slots, version: u64, now_ms: u64) {
    let reactor = slots.application().reactor.0;
    let generation = slots.application().generation;
    let traces: Vec<_> = slots.application().shared.control.traces.all().collect();
    let watch = &mut slots.upkeep().tracing;
    watch.set(version, traces);
    let is_own = |own: &Own, trace: &Arc<Trace>| Arc::ptr_eq(&own.trace, trace);
    let here: Vec<_> = watch.traces().to_vec();
    watch
        .own
        .retain(|own| here.iter().any(|it| is_own(own, it)));
    for trace in here.iter().filter(|it| it.owner.reactor == reactor) {
        if !watch.own.iter().any(|own| is_own(own, trace)) {
            watch.own.push(Own {
                trace: Arc::clone(trace),
                alive_ms: now_ms + ALIVE_INTERVAL_MS,
                generation,
                has_more: false,
            });
        }
    }
    for trace in here {
        if let Subject::Connection(id) = trace.subject
            && id.reactor == reactor
        {
            let is_here = slots.look(id.index, |_, seen| seen.id == id);
            match is_here == Some(true) {
                true => slots.upkeep().tracing.mark(id.index, trace.bit()),
                false => trace.end("not_found"),
            }
        }
    }
}

/// Looks at some more identities, after a trace of a subject has begun.
fn scan(slots: &mut impl Slots) {
    let Some(first) = slots.upkeep().tracing.scan_from else {
        return;
    };
    let end = slots.end().min(first + SLOTS_PER_TICK);
    for index in first..end {
        mark(slots, index);
    }
    let is_done = end == slots.end();
    slots.upkeep().tracing.scan_from = (!is_done).then_some(end);
}

/// Marks a connection as traced if its identity is. It is asked for once more when that may have changed.
pub fn mark(slots: &mut impl Slots, index: u32) {
    if !slots.upkeep().tracing.is_on() {
        return;
    }
    let identity = slots.look(index, |_, seen| seen.identity);
    let Some(identity) = identity.filter(|it| *it != IdentityHandle::ANONYMOUS) else {
        return;
    };
    let subject = slots.application().identities.get(identity).subject();
    if let Some(subject) = subject.map(str::to_owned) {
        let watch = &mut slots.upkeep().tracing;
        let bits = watch.bits_of(&subject);
        watch.mark(index, bits);
    }
}

/// Writes what has gathered in the traces whose requests are here, and ends those whose time is over.
fn answer(slots: &mut impl Slots, now_ms: u64) {
    let mut own = std::mem::take(&mut slots.upkeep().tracing.own);
    own.retain_mut(|own| {
        let is_on = slots.visit(own.trace.owner.index, now_ms, |application, context| {
            let is_there = context.id == own.trace.owner && context.connection.is_telling();
            is_there && write(application, context, own)
        });
        let is_on = is_on == Some(true);
        if !is_on {
            slots.application().shared.control.traces.end(&own.trace);
            slots.application().shared.shards.wake_all();
        }
        is_on
    });
    let watch = &mut slots.upkeep().tracing;
    let has_more = own.iter().any(|own| own.has_more);
    let wait_ms = if has_more {
        MORE_INTERVAL_MS
    } else {
        LOOK_INTERVAL_MS
    };
    watch.own = own;
    watch.next_ms = now_ms + wait_ms;
}

/// Writes what has gathered in a trace. False: it is over.
fn write(application: &Application, context: &mut ConnectionContext<'_>, own: &mut Own) -> bool {
    let (now_ms, at) = (context.now_ms, moment(application));
    let settings = &application.shared.settings;
    if now_ms >= own.trace.until_ms {
        own.trace.end("time");
    } else if application.generation != own.generation {
        // What its asker may has to be found out anew.
        own.trace.end("reloaded");
    }
    let bytes_max = WAITING_BYTES_MAX.min(settings.limits.outbox_bytes_max / 2);
    own.has_more = false;
    if context.connection.outbox.bytes() > bytes_max / 2 {
        return true;
    }
    let gathered = own.trace.take(bytes_max);
    own.has_more = gathered.has_more;
    context.out.extend_from_slice(&gathered.lines);
    if gathered.dropped > 0 {
        trace::write_line(context.out, at, "dropped", |object| {
            object.number("events", gathered.dropped)
        });
    }
    if let Some(reason) = gathered.ended {
        trace::write_line(context.out, at, "ended", |object| {
            object.word("reason", reason)
        });
        let reason = CloseReason::HttpDone;
        context
            .connection
            .close(settings, now_ms, reason, context.out);
        return false;
    }
    if now_ms >= own.alive_ms {
        own.alive_ms = now_ms + ALIVE_INTERVAL_MS;
        trace::write_line(context.out, at, "alive", |object| object);
    }
    true
}

/// Begins the turn of a connection. None: no trace is about it.
pub fn begin_turn(slots: &mut impl Slots, index: u32) -> Option<Turn> {
    if !slots.upkeep().tracing.is_on() {
        return None;
    }
    let seen = slots.look(index, |application, seen| {
        let topic = seen.subscribed.one();
        let topic = topic.map(|one| application.topics.topic(one).clone());
        let settings = Arc::clone(&application.shared.settings);
        // What whoever traces asks for is no news to anybody.
        (!seen.connection.is_telling()).then(|| (seen.id, moment(application), settings, topic))
    });
    let (id, at, settings, topic) = seen.flatten()?;
    let watch = &slots.upkeep().tracing;
    Turn::begin(watch, (index, id), at, &settings, || topic)
}

/// Tells of bytes that go to a connection, besides publications.
pub fn note_written(slots: &mut impl Slots, index: u32, out: &[u8]) {
    if out.is_empty() || slots.upkeep().tracing.marks_of(index) == 0 {
        return;
    }
    let traces: Vec<_> = slots.upkeep().tracing.of(index).cloned().collect();
    slots.look(index, |application, seen| {
        let (at, label) = (moment(application), seen.connection.label());
        if !seen.connection.is_telling() {
            for trace in &traces {
                let queued_bytes = seen.connection.outbox.bytes();
                trace::tell_written(trace, at, (seen.id, label), out, queued_bytes);
            }
        }
    });
}

/// Tells of a connection that is something else now: open, or ending.
pub fn note_label(slots: &mut impl Slots, index: u32) {
    mark(slots, index);
    let own: Vec<_> = slots.upkeep().tracing.of(index).cloned().collect();
    let of_topics: Vec<_> = slots.upkeep().tracing.of_topics().cloned().collect();
    if own.is_empty() && of_topics.is_empty() {
        return;
    }
    slots.look(index, |application, seen| {
        let (at, id) = (moment(application), seen.id);
        let settings = &application.shared.settings;
        let topic = seen
            .subscribed
            .one()
            .map(|one| application.topics.topic(one));
        let of_topic = of_topics
            .iter()
            .filter(|it| topic.is_some_and(|topic| it.follows(topic)));
        let of_topic = of_topic.filter(|trace| own.iter().all(|it| !Arc::ptr_eq(it, trace)));
        let traces = own.iter().chain(of_topic);
        let label = seen.connection.label();
        let Some(reason) = seen.connection.ending().filter(|_| label == Label::Closing) else {
            for trace in traces {
                trace.tell(at, "opened", |object| {
                    object
                        .plain("connection", id)
                        .word("dialect", label.name(&settings.dialects))
                        .text("listener", application.shared.listener_name(seen.listener))
                        .text_if("topic", topic.map(|topic| topic.as_str()))
                });
            }
            return;
        };
        for trace in traces {
            let (code, _) = seen.connection.close_code(settings, reason);
            trace.tell(at, "closed", |object| {
                object
                    .plain("connection", id)
                    .text_if("topic", topic.map(|topic| topic.as_str()))
                    .text("reason", reason.label())
                    .number("code", code.get())
                    .word(
                        "by",
                        if reason.is_by_peer() {
                            "peer"
                        } else {
                            "server"
                        },
                    )
                    .number("queued_bytes", seen.connection.outbox.bytes() as u64)
            });
            if trace.subject == Subject::Connection(id) {
                trace.end("closed");
            }
        }
    });
}

/// Tells of publications that these connections were just sent. Some may be queued.
pub fn note_batch(slots: &mut impl Slots, publications: &[Arc<Publication>], to: &[u32]) {
    if to.is_empty() {
        return;
    }
    let at = moment(slots.application());
    let watch = &slots.upkeep().tracing;
    for trace in watch.of_topics() {
        for publication in publications {
            if publication
                .topic()
                .is_some_and(|topic| trace.follows(topic))
            {
                trace.tell(at, "delivered", |object| {
                    let object = placed(object, publication).number("subscribers", to.len() as u64);
                    trace.payload(object, publication.kind(), publication.payload())
                });
            }
        }
    }
    if !watch.has_marks() {
        return;
    }
    let marked = |index: &&u32| watch.marks_of(**index) != 0;
    let marked: Vec<u32> = to.iter().filter(marked).copied().collect();
    for index in marked {
        let traces: Vec<_> = slots.upkeep().tracing.of(index).cloned().collect();
        slots.look(index, |_, seen| {
            for (trace, publication) in traces
                .iter()
                .flat_map(|trace| publications.iter().map(move |it| (trace, it)))
            {
                trace.tell(at, "delivery", |object| {
                    let object = placed(object.plain("connection", seen.id), publication);
                    let object = match seen.connection.outbox.bytes() {
                        0 => object,
                        bytes => object.number("queued_bytes", bytes as u64),
                    };
                    trace.payload(object, publication.kind(), publication.payload())
                });
            }
        });
    }
}

/// Adds where a publication has its place, and its size.
fn placed<'o>(object: Object<'o>, publication: &Publication) -> Object<'o> {
    object
        .text_if("topic", publication.topic().map(|topic| topic.as_str()))
        .position("position", publication.position())
        .number("bytes", publication.payload().len() as u64)
}
