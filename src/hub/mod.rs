//! The hub: topics, publications and their order. Pure: commands in, effects out.
//!
//! A topic belongs to one [`Shard`], so there is one order of its publications, and every subscriber sees that order.
//! The shard keeps the topic's history too, and so what a subscriber missed and what is new come from one hand, with
//! nothing lost or doubled between. The hub knows which *reactors* have subscribers of a topic; which connections those
//! are is known only to the reactor, except for those that are present.

mod command;
mod history;
pub mod idempotency;
mod listing;
pub mod options;
pub mod own_event;
pub mod patterns;
mod presence;
pub mod publication;
mod receipt;
pub mod shard;
mod topic_state;

pub use command::{
    Command, CommandRoute, Effect, HistoryPage, Join, Joined, LocalTopic, Origin, PublishOnce,
    ReactorId, Read, Start,
};
pub use idempotency::{IdempotencyKey, KeyBudget, KeySettings, Outcome, Publisher};
pub use listing::{HistorySize, Listed, Listing, PLACES_PER_LISTING, Scope};
pub use options::{Extras, FieldError, FieldLimits, PublishOptions, Tag};
pub use patterns::{MatchPatterns, PatternPart};
pub use presence::{Member, MemberIdentity, PresenceChange};
pub use publication::{Kind, Position, PositionError, Publication};
pub use receipt::{Receipt, Report, Share};
pub use shard::{Shard, ShardSettings};
