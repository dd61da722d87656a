//! Umbel is a push server: it holds very many WebSocket connections and fans messages out to them.
//!
//! It is one binary, `umbel`, and this crate, for programs that want it inside them. Its README has the surface (which
//! request does what), the limits and the promises; this page is the map of the code.
//!
//! # Embedding
//!
//! ```
//! use std::net::SocketAddr;
//! use umbel::{CloseCode, Handler, Message, Peer, Server};
//!
//! /// Answers each text in capitals, and takes nothing else.
//! struct Shout;
//!
//! impl Handler for Shout {
//!     fn message(&self, peer: &mut Peer<'_>, message: Message<'_>) {
//!         match message {
//!             // One message of a call is always taken; `send` fails only for those beyond outbox_bytes_max.
//!             Message::Text(text) => peer.send(Message::Text(&text.to_uppercase())).unwrap(),
//!             Message::Binary(_) => peer.close(CloseCode::UNSUPPORTED_DATA, "text only"),
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder()
//!     .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
//!     .handler("/shout", Shout)
//!     .bind()?;
//! println!("listening on http://{}", server.local_addr());
//!
//! // Handles are for any thread. `publish` never blocks.
//! let handle = server.handle();
//! let ticker = std::thread::spawn(move || {
//!     for price in 1..=3 {
//!         handle.publish("prices/tea", Message::Text(&price.to_string())).unwrap();
//!     }
//!     handle.shutdown();
//! });
//!
//! // Serves until the shutdown, and until everybody has been let go.
//! server.run()?;
//! ticker.join().unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! # What lives where
//!
//! Imports point only downwards in this table; `tests/tidy.rs` holds them to it.
//!
//! | room | knows | does |
//! | --- | --- | --- |
//! | `main`, `cli` | everything public | arguments to [`Config`] to [`Server::run`] |
//! | `server`, `handle` | all rooms | composition root: builds, spawns, drains, joins; [`Handle`] |
//! | `reactor` | sockets, the clock | one event loop a core: the tick, the slab, the topic table, the mailbox, deadlines |
//! | [`handler`], `metrics` | nothing outside | own endpoints; counters of each thread and their text |
//! | [`access`], `connection` | bytes and time, as arguments | who may do what; one connection's state machine |
//! | `worker` | threads, channels | runs the hub's shards, whoever brings the work |
//! | `dialect` | publications | how they look on the wire |
//! | `hub`, [`config`] | topics | the order of each topic; every limit |
//! | `protocol` | bytes | RFC 6455: frames, messages, both handshakes |
//! | `topic_rule` | patterns | what the topics of a pattern get: history, presence, what becomes of slow consumers |
//! | `pattern`, `topic_table` | topics | names for many topics, and which of them match one; topics by name and by place |
//! | `hash_index`, `shrink` | memory | from keys to places in a slab; when a slab gives its memory back |
//! | `http`, `console` | bytes | HTTP/1.1: requests, bodies, routes, event streams; the page at `/` |
//!
//! # The way of a byte
//!
//! 1. `reactor/connections.rs` reads into the reactor's one buffer (`pump`), and hands the bytes to the connection.
//! 2. `connection` gives them to the decoder, which unmasks in place; whole messages come out as `Event`s that still
//!    borrow the buffer. What is unfinished stays in the connection; an idle connection owns no buffer.
//! 3. `reactor/application.rs` turns each event into an action, in one function. A publish copies the payload once,
//!    into a `Publication` that is born as the frame that most subscribers will get.
//! 4. `worker.rs` puts the command into the queue of the topic's shard and, if nobody is at it, runs the shard then and
//!    there. `hub/shard.rs` gives it its place, and names the reactors that have subscribers.
//!    Where the topic's rule has a history, the publication stays in it (`hub/history.rs`).
//! 5. Each of these finds one effect in its mailbox, gathers those of the same topic in its tick, and writes them to
//!    each subscriber in one call (`reactor/outbound.rs`), through io_uring where there is one (`reactor/ring.rs`),
//!    compressed once for all who take that (`dialect/deflated.rs`, `dialect/cohort.rs`). What the kernel does not take
//!    goes to the outbox, from which a topic rule may let publications go again (`reactor/slow_consumer.rs`).
//!
//! Who subscribes with a position, or on a connection of many topics (`reactor/commands.rs`), is answered by the shard:
//! the mailbox orders its answer among the deliveries, so nothing is lost or doubled between history and live
//! (`reactor/joins.rs`).
//!
//! # Invariants
//!
//! - A connection lives its whole life on one reactor; a topic on one shard. No lock is taken for a delivery.
//! - No thread blocks on another's queue. A full mailbox stalls the shards that write to it, a full command queue holds
//!   publishers back, and both are woken when there is room.
//! - A subscription is in its shard's queue before its handshake is answered.
//! - Slots are freed at the end of a tick only; a [`ConnectionId`] has a generation besides the index.
//! - Every queue, buffer, table and wait has its limit in [`config::Limits`].
//! - Peer input never panics, and is checked before anything is allocated for it.
//!
//! # Words
//!
//! Connection: one accepted socket. Frame, fragment, message: as in RFC 6455. Topic: what is published and subscribed
//! to. Publication: a message with its place in a topic. Offset, epoch: that place, and the unbroken run it counts in.
//! Pattern: a name for many topics. Topic rule: what the topics of a pattern get. History: the publications of a topic
//! that are kept. Dialect: how publications look on the wire. Outbox: what a connection has yet to write. Slow consumer:
//! whose outbox is full. Reactor: an event loop. Tick: one round of it. Mailbox: what other threads want of it. Shard: a
//! part of the hub. Worker: a thread that runs shards. Drain: an orderly shutdown.
#![warn(missing_docs)]

pub mod access;
mod application;
#[cfg(feature = "deflate")]
mod compression;
pub mod config;
mod connection;
mod console;
mod dialect;
mod error;
mod fanout;
mod handle;
pub mod handler;
mod hash_index;
mod http;
mod hub;
mod metrics;
mod net;
mod protocol;
mod reactor;
mod server;
mod shrink;
mod topic;
mod worker;

/// Rooms that the binary, the benches and the tests of this repository look into. Nothing in it is stable.
#[doc(hidden)]
pub mod internals {
    macro_rules! rooms {
        ($($room:ident)*) => {
            $(pub mod $room {
                //! The room of that name.
                pub use crate::$room::*;
            })*
        };
    }

    #[cfg(feature = "deflate")]
    rooms! { compression }
    rooms! {
        application connection console dialect fanout http hub metrics net protocol reactor topic worker
    }
}

pub use access::{AccessRequest, Action, Authorizer, Denied};
pub use config::{Access, Config, ConfigError, Deflate, Origins};
#[doc(inline)]
pub use dialect::umbel_v1;
pub use error::Error;
pub use handle::{Counts, Handle, PendingReceipt, PublishError};
pub use handler::{CloseCode, CloseReason, ConnectionId, Handler, Message, Peer};
pub use hub::{Position, Report};
pub use protocol::{OriginError, OriginList, ProtocolError};
pub use server::{Builder, Server};
pub use topic::{HistoryLimits, SlowConsumer, TopicRule, TopicRuleError};
pub use topic::{Pattern, PatternError};
