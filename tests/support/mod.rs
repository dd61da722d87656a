//! Support of the tests from outside: the server itself, raw bytes to it and from it, and its metrics.
//!
//! - [`app`] is an application that the server asks.
//! - [`Server`] starts the real binary on a port of the system's choosing and ends it with the test.
//! - [`tokens`] signs tokens.
//! - [`tls_front`] has tests of plain bytes run over a server's TLS.
//! - [`Wire`] is one TCP connection that sends and expects bytes: requests, responses, frames.
//! - [`embedded`] is a server inside the test's own process.
//! - [`frames`] writes and reads RFC 6455 frames by hand, for peers that a library would not let misbehave.
//! - [`peers`] has a WebSocket, an event stream and an HTTP connection that hide the bytes where those do not matter.
//! - [`v1`] speaks the dialects with many topics on one connection.
//! - [`catch_up`] subscribes with a position in each dialect.
//! - [`crowd`] is thousands of subscribers on one thread.
//! - [`process`] reads a process's memory, descriptors and CPU time.
//! - [`canary`] runs something beside a subscriber and a publisher and checks that the server did not mind.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of it"
)]

pub mod app;
pub mod canary;
pub mod catch_up;
pub mod crowd;
pub mod embedded;
pub mod frames;
pub mod peers;
pub mod process;
pub mod random;
pub mod server;
#[cfg(feature = "tls")]
pub mod tls_front;
#[cfg(feature = "jwt")]
pub mod tokens;
pub mod umbel_v1;
pub mod wire;

use std::time::{Duration, Instant};

pub use random::Random;
pub use server::Server;
pub use wire::{Pieces, Response, Wire};

/// The time that anything which should happen at once is given on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until a condition holds, and fails the test if it does not within [`PATIENCE`].
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, condition);
}

/// As [`wait_until`], with a time of its own.
pub fn wait_within(within: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
