//! Compression of publications: each deflated once, for all who take it.
//!
//! A WebSocket frame is compressed by itself ([`deflated`]), or together with those before it ([`cohort`]).

pub mod cohort;
pub mod cohorts;
pub mod deflated;
