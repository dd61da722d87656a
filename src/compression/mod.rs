//! Compression of publications: each deflated once, for all who take it.
//!
//! A WebSocket frame is compressed by itself ([`deflated`]), or together with those before it ([`cohort`]).

#[cfg(feature = "deflate")]
pub mod cohort;
#[cfg(feature = "deflate")]
pub mod cohorts;
#[cfg(feature = "deflate")]
pub mod deflated;
pub mod places;
