//! Primitives of threads: of the standard library and crossbeam, or of loom.
//!
//! Under `cfg(loom)` the mailbox and the shards themselves run through the interleavings of their threads, and through
//! all that a load may see of other threads' stores. loom does not see into crossbeam's channels, so a bounded queue
//! stands in for them. It promises less: whether it is empty is read without its lock, which would otherwise do the
//! work of the shards' fences.

#[cfg(not(loom))]
pub use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
#[cfg(loom)]
pub use lock::{Mutex, MutexGuard};
#[cfg(loom)]
pub use loom::sync::{RwLock, atomic};
#[cfg(loom)]
pub use queue::{Receiver, Sender, TrySendError, bounded};
#[cfg(not(loom))]
pub use std::sync::{Mutex, MutexGuard, RwLock, atomic};

/// Wakes a reactor out of its wait for events; false if it did not work.
pub type Wake = dyn Fn() -> bool + Send + Sync;

#[cfg(loom)]
mod lock;
#[cfg(loom)]
mod queue;
