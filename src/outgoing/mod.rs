//! HTTP requests of the server's own: to the application's hook, and for key sets by URL.
//!
//! They block, so they run on [threads](threads) of their own, a bounded number with a bounded queue. A [`Client`](client::Client)
//! has a hard limit of time and of bytes, follows no redirect to another origin, takes no proxy from the environment, and
//! looks at each [address](address) that a name stands for before it connects.

pub mod address;
pub mod breaker;
pub mod client;
mod ended;
pub mod hook;
#[cfg(feature = "jwt")]
mod key_set_copy;
#[cfg(feature = "jwt")]
pub mod key_sets;
pub mod signature;
pub mod target;
pub mod threads;
#[cfg(unix)]
mod unix;
