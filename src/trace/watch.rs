//! Traces, as one reactor follows them.

use std::sync::Arc;

use super::{Subject, Trace};
use crate::connection::NEVER_MS;

/// A trace whose request is on this reactor.
pub struct Own {
    /// The trace.
    pub trace: Arc<Trace>,
    /// Next sign of life, on the reactor's clock in milliseconds.
    pub alive_ms: u64,
    /// Number of the settings under which it was begun.
    pub generation: u64,
    /// Lines wait that were too many to be written at once.
    pub has_more: bool,
}

/// Traces, as a reactor follows them. Empty where there are none.
#[derive(Default)]
pub struct Watch {
    /// Version of the table that it is of.
    pub version: u64,
    traces: Vec<Arc<Trace>>,
    /// Traces of each connection, a bit each, by slab index.
    marks: Vec<u8>,
    /// Connections with marks.
    marked: usize,
    /// The next slot whose identity is to be looked at.
    pub scan_from: Option<u32>,
    /// Those whose requests are here.
    pub own: Vec<Own>,
    /// Next look at those, in milliseconds.
    pub next_ms: u64,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.traces.len();
        f.debug_struct("Watch")
            .field("traces", &count)
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Whether anything is traced.
    #[inline]
    pub fn is_on(&self) -> bool {
        !self.traces.is_empty()
    }

    /// The traces.
    pub fn traces(&self) -> &[Arc<Trace>] {
        &self.traces
    }

    /// Follows these from now on. Connections of those that stay keep their marks.
    pub fn set(&mut self, version: u64, traces: Vec<Arc<Trace>>) {
        let stays = |trace: &&Arc<Trace>| self.traces.iter().any(|it| Arc::ptr_eq(it, trace));
        let kept = traces
            .iter()
            .filter(stays)
            .fold(0, |bits, it| bits | it.bit());
        self.marks.iter_mut().for_each(|marks| *marks &= kept);
        self.marked = self.marks.iter().filter(|marks| **marks != 0).count();
        let follows_identity = |it: &Arc<Trace>| matches!(it.subject, Subject::Identity(_));
        let has_new = traces
            .iter()
            .any(|it| it.bit() & kept == 0 && follows_identity(it));
        (self.version, self.traces) = (version, traces);
        if self.traces.is_empty() {
            (self.marks, self.scan_from) = (Vec::new(), None);
        } else if has_new {
            self.scan_from = Some(0);
        }
    }

    /// Marks a connection as one that these traces follow, a bit each.
    pub fn mark(&mut self, index: u32, bits: u8) {
        let at = index as usize;
        if bits != 0 && at >= self.marks.len() {
            self.marks.resize(at + 1, 0);
        }
        if let Some(marks) = self.marks.get_mut(at) {
            self.marked += usize::from(*marks == 0 && bits != 0);
            *marks |= bits;
        }
    }

    /// A connection is gone.
    pub fn forget(&mut self, index: u32) {
        if let Some(marks) = self.marks.get_mut(index as usize) {
            self.marked -= usize::from(*marks != 0);
            *marks = 0;
        }
    }

    /// Traces that follow a connection.
    pub fn of(&self, index: u32) -> impl Iterator<Item = &Arc<Trace>> {
        let marks = self.marks_of(index);
        self.traces.iter().filter(move |it| it.bit() & marks != 0)
    }

    /// Bits of the traces that follow a connection.
    pub fn marks_of(&self, index: u32) -> u8 {
        self.marks.get(index as usize).copied().unwrap_or(0)
    }

    /// Whether any follows a connection. It is asked for with every batch.
    pub fn has_marks(&self) -> bool {
        self.marked > 0
    }

    /// Traces that follow topics.
    pub fn of_topics(&self) -> impl Iterator<Item = &Arc<Trace>> {
        self.traces
            .iter()
            .filter(|it| matches!(it.subject, Subject::Topics(_)))
    }

    /// Bits of the traces that follow a subject.
    pub fn bits_of(&self, subject: &str) -> u8 {
        let is_meant =
            |it: &&Arc<Trace>| matches!(&it.subject, Subject::Identity(own) if **own == *subject);
        self.traces
            .iter()
            .filter(is_meant)
            .fold(0, |bits, it| bits | it.bit())
    }

    /// Moment of the next look at the traces of requests here.
    pub fn next_ms(&self) -> u64 {
        match self.own.is_empty() {
            true => NEVER_MS,
            false => self.next_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_with_marks_are_counted_once() {
        let mut watch = Watch::default();
        watch.mark(3, 0);
        assert!(!watch.has_marks());
        for (index, bits) in [(3, 1), (3, 2), (5, 1)] {
            watch.mark(index, bits);
        }
        watch.forget(3);
        assert!(watch.has_marks());
        watch.forget(3);
        watch.forget(5);
        watch.forget(9);
        assert!(!watch.has_marks());
        watch.mark(0, 4);
        watch.set(1, Vec::new());
        assert!(!watch.has_marks());
    }
}
