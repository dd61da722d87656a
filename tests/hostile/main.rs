//! What one connection may do to all others, measured: each attack beside a bare case in the same run.
//!
//! The bounds are ratios, and bytes of memory. `scripts/test-hostile` runs the same cases on an optimised server, for
//! longer, and prints their figures.

mod attack;
mod churn;
#[path = "../config_file/file.rs"]
mod file;
mod outboxes;
mod patterns;
mod presence;
#[path = "../support/mod.rs"]
mod support;
mod totals;
