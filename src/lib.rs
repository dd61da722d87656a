//! Umbel is a push server: it holds very many WebSocket connections and fans messages out to them.

#[doc(hidden)]
pub mod console;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod protocol;
