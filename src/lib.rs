//! Umbel is a push server: it holds very many WebSocket connections and fans messages out to them.

pub mod access;
pub mod config;
#[doc(hidden)]
pub mod connection;
#[doc(hidden)]
pub mod console;
#[doc(hidden)]
pub mod dialect;
mod error;
pub mod handler;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod hub;
#[doc(hidden)]
pub mod metrics;
#[doc(hidden)]
pub mod protocol;
#[doc(hidden)]
pub mod reactor;
mod server;
#[doc(hidden)]
pub mod worker;

pub use config::{Access, Config, ConfigError, Origins};
pub use error::Error;
pub use handler::{CloseCode, CloseReason, ConnectionId, Handler, Message, Peer};
pub use server::{Builder, Counts, Handle, PublishError, Server};
