//! The hub: topics, publications and their order. Pure: commands in, effects out.
//!
//! A topic belongs to one [`Shard`](shard::Shard), so there is one order of its publications, and every subscriber
//! sees that order. The hub knows which *reactors* have subscribers of a topic; which connections those are is known
//! only to the reactor.

pub mod publication;
pub mod shard;

pub use publication::{Kind, Position, Publication};
pub use shard::{Command, Effect, LocalTopic, Origin, ReactorId, Shard};
