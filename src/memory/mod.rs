//! The memory budget, and what is shed beyond it.
//!
//! - [`group`]: what there is, and what is used
//! - [`budget`]: the part of it that is ours, and the shares of its users
//! - [`shedding`]: when to shed, and how much of what

pub mod budget;
pub mod group;
pub mod shedding;
