//! Server-sent events: one topic as an event stream that `EventSource` reads.

pub mod event;
