//! Traces: what happens to a connection, on topics or to a subject, told to whoever asks while it happens.
//!
//! ```text
//!   reactor ──tell──► Trace: a bounded queue of lines ──take──► reactor of the asking request ──► its answer
//! ```
//!
//! The [table](Traces) of traces stands in what all reactors share. Each reactor looks at its version once a tick, and keeps
//! copies in a [`Watch`]. Where nobody traces, nothing else is looked at: neither for a message nor for a delivery.

mod queue;
mod turn;
mod watch;

pub use turn::{Turn, tell_written};
pub use watch::{Own, Watch};

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dialect::object::Object;
use crate::handler::ConnectionId;
use crate::hub::Kind;
use crate::topic::{Pattern, Topic};
use queue::Queue;

/// Traces of a server at a time.
pub const TRACES_MAX: usize = 4;

/// Duration of a trace unless it is told another, in milliseconds.
pub const DURATION_MS: u64 = 60_000;

/// Longest duration of a trace, in milliseconds.
pub const DURATION_MS_MAX: u64 = 600_000;

/// Shortest duration of a trace, in milliseconds.
pub const DURATION_MS_MIN: u64 = 100;

/// Bytes of a payload that are shown; more are cut off.
const PAYLOAD_BYTES_MAX: usize = 4096;

/// Subject of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One connection.
    Connection(ConnectionId),
    /// Topics.
    Topics(Pattern),
    /// All connections whose identity has this subject.
    Identity(Box<str>),
}

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// On the process's clock, in milliseconds.
    pub clock_ms: u64,
    /// In milliseconds since 1970.
    pub wall_ms: u64,
}

/// Callback that has the asking reactor look at its traces.
pub type Wake = dyn Fn() + Send + Sync;

/// Trace that is asked for.
pub struct Wanted {
    /// Its subject.
    pub subject: Subject,
    /// Connection of the request that asks for it.
    pub owner: ConnectionId,
    /// Whether payloads are shown.
    pub with_payloads: bool,
    /// Its end, on the process's clock.
    pub until_ms: u64,
    /// Wakes the owner's reactor.
    pub wake: Box<Wake>,
}

/// A trace.
pub struct Trace {
    /// Its subject.
    pub subject: Subject,
    /// Connection of the request that asks for it.
    pub owner: ConnectionId,
    /// Its end, on the process's clock.
    pub until_ms: u64,
    with_payloads: bool,
    /// Place in the table.
    number: usize,
    queue: Mutex<Queue>,
    wake: Box<Wake>,
}

/// Lines that have gathered in a trace.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// Whole lines.
    pub lines: Vec<u8>,
    /// Events that are not among them, for there were too many.
    pub dropped: u64,
    /// There is nothing more to follow, for this reason.
    pub ended: Option<&'static str>,
    /// More lines wait.
    pub has_more: bool,
}

impl Trace {
    /// Bit in the marks of connections.
    pub fn bit(&self) -> u8 {
        1 << self.number
    }

    /// Tells of an event: a line with the moment, its name, and the fields that `encode` adds. One too many is counted.
    pub(crate) fn tell(
        &self,
        at: Moment,
        event: &str,
        encode: impl FnOnce(Object<'_>) -> Object<'_>,
    ) {
        let calls = self
            .queue()
            .push(at.clock_ms, |out| write_line(out, at, event, encode));
        if calls {
            (self.wake)();
        }
    }

    /// There is nothing more to follow. The first reason stands.
    pub fn end(&self, reason: &'static str) {
        self.queue().end(reason);
        (self.wake)();
    }

    /// Takes what has gathered: so many bytes of lines, or one line.
    pub fn take(&self, bytes_max: usize) -> Gathered {
        self.queue().take(bytes_max)
    }

    /// Adds a payload where payloads are shown.
    pub(crate) fn payload<'o>(&self, object: Object<'o>, kind: Kind, payload: &[u8]) -> Object<'o> {
        if !self.with_payloads {
            return object;
        }
        let shown = &payload[..payload.len().min(PAYLOAD_BYTES_MAX)];
        // A character that is cut in two is left out.
        let shown = match (kind, std::str::from_utf8(shown)) {
            (Kind::Text, Err(error)) => &shown[..error.valid_up_to()],
            _ => shown,
        };
        match shown.len() < payload.len() {
            true => object.payload(kind, shown).value("is_cut", true),
            false => object.payload(kind, shown),
        }
    }

    /// Whether it follows a topic.
    pub fn follows(&self, topic: &Topic) -> bool {
        matches!(&self.subject, Subject::Topics(pattern) if pattern.matches(topic))
    }

    /// Whether it follows some topics of a pattern.
    pub fn meets(&self, other: &Pattern) -> bool {
        matches!(&self.subject, Subject::Topics(pattern) if pattern.meets(other))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The traces of a server.
#[derive(Default)]
pub struct Traces {
    /// Changes with each that begins or ends.
    version: AtomicU64,
    places: Mutex<[Option<Arc<Trace>>; TRACES_MAX]>,
}

impl Traces {
    /// Number of changes so far.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Begins a trace. None: there are as many as there may be. `first`: tells what stands before all that reactors tell.
    pub fn begin(&self, wanted: Wanted, first: impl FnOnce(&Trace)) -> Option<Arc<Trace>> {
        let mut places = self.places();
        let number = places.iter().position(Option::is_none)?;
        let trace = Arc::new(Trace {
            subject: wanted.subject,
            owner: wanted.owner,
            until_ms: wanted.until_ms,
            with_payloads: wanted.with_payloads,
            number,
            queue: Mutex::default(),
            wake: wanted.wake,
        });
        first(&trace);
        places[number] = Some(Arc::clone(&trace));
        self.version.fetch_add(1, Ordering::Release);
        Some(trace)
    }

    /// Ends a trace.
    pub fn end(&self, trace: &Trace) {
        self.places()[trace.number] = None;
        self.version.fetch_add(1, Ordering::Release);
    }

    /// All that there are.
    pub fn all(&self) -> impl Iterator<Item = Arc<Trace>> {
        let places = self.places();
        let all: [_; TRACES_MAX] = array::from_fn(|number| places[number].clone());
        all.into_iter().flatten()
    }

    fn places(&self) -> MutexGuard<'_, [Option<Arc<Trace>>; TRACES_MAX]> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes an event: a line with the moment, its name, and the fields that `encode` adds.
pub(crate) fn write_line(
    out: &mut Vec<u8>,
    at: Moment,
    event: &str,
    encode: impl FnOnce(Object<'_>) -> Object<'_>,
) {
    // An object is begun behind a whole line.
    encode(
        Object::new(out)
            .number("at_ms", at.wall_ms)
            .word("event", event),
    )
    .end();
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn wanted(with_payloads: bool, woken: &Arc<AtomicUsize>) -> Wanted {
        let woken = Arc::clone(woken);
        Wanted {
            subject: Subject::Topics(Pattern::parse("rooms/*").expect("a pattern")),
            owner: ConnectionId::from_bits(0, 7),
            with_payloads,
            until_ms: 1000,
            wake: Box::new(move || {
                woken.fetch_add(1, Ordering::Relaxed);
            }),
        }
    }

    const AT: Moment = Moment {
        clock_ms: 5,
        wall_ms: 1_700_000_000_005,
    };

    #[test]
    fn four_at_a_time() {
        let (traces, woken) = (Traces::default(), Arc::default());
        let all: Vec<_> = (0..4)
            .map(|_| traces.begin(wanted(false, &woken), |_| ()))
            .collect();
        let all: Vec<_> = all.into_iter().flatten().collect();
        let bits: Vec<_> = all.iter().map(|trace| trace.bit()).collect();
        assert_eq!(bits, [1, 2, 4, 8]);
        assert!(traces.begin(wanted(false, &woken), |_| ()).is_none());
        assert_eq!((traces.version(), traces.all().count()), (4, 4));
        traces.end(&all[2]);
        let next = traces
            .begin(wanted(false, &woken), |_| ())
            .expect("there is room");
        assert_eq!((next.bit(), traces.version()), (4, 6));
    }

    #[test]
    fn lines_wake_once_until_they_are_taken() {
        let (traces, woken) = (Traces::default(), Arc::default());
        let trace = traces
            .begin(wanted(false, &woken), |_| ())
            .expect("there is room");
        for _ in 0..2 {
            trace.tell(AT, "message", |object| {
                trace.payload(object.number("bytes", 3u64), Kind::Text, b"abc")
            });
        }
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        let line = "{\"at_ms\":1700000000005,\"event\":\"message\",\"bytes\":3}\n";
        let gathered = trace.take(usize::MAX);
        assert_eq!(String::from_utf8_lossy(&gathered.lines), line.repeat(2));
        assert_eq!((gathered.dropped, gathered.ended), (0, None));
        trace.end("closed");
        trace.end("time");
        assert_eq!(trace.take(usize::MAX).ended, Some("closed"));
    }

    #[test]
    fn long_payloads_are_cut_between_characters() {
        let (traces, woken) = (Traces::default(), Arc::default());
        let trace = traces
            .begin(wanted(true, &woken), |_| ())
            .expect("there is room");
        let long = format!("a{}", "\u{e9}".repeat(3000));
        trace.tell(AT, "message", |object| {
            trace.payload(object, Kind::Text, long.as_bytes())
        });
        let line = String::from_utf8(trace.take(usize::MAX).lines).expect("it is text");
        assert!(line.ends_with("\u{e9}\",\"is_cut\":true}\n"), "{line}");
        assert_eq!(line.matches('\u{e9}').count(), 2047);
    }

    #[test]
    fn first_line_is_told_before_reactors_see_the_trace() {
        let (traces, woken) = (Traces::default(), Arc::default());
        let before = traces.version();
        let trace = traces.begin(wanted(false, &woken), |trace| {
            assert_eq!(traces.version(), before);
            let at = Moment {
                clock_ms: 0,
                wall_ms: 7,
            };
            trace.tell(at, "started", |object| object);
        });
        let trace = trace.expect("there is room");
        assert_ne!(traces.version(), before);
        trace.end("not_found");
        let gathered = trace.take(1000);
        assert_eq!(gathered.lines, b"{\"at_ms\":7,\"event\":\"started\"}\n");
        assert_eq!(gathered.ended, Some("not_found"));
    }
}
