//! Fan-out: who on a reactor gets which bytes, and what an outbox does with what is left.

pub mod batch;
pub mod compression;
pub mod members;
pub mod patterns;
pub mod replay;
pub mod slow_consumer;
pub mod subscribed;
pub mod subscribers;
pub mod subscriptions;
pub mod tally;
pub mod topics;
