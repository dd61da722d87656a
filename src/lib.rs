//! A push server: holds very many WebSocket connections and fans messages out to them.
//!
//! Umbel is one binary, `umbel`, and this crate, for programs that embed the server. The [`guide`] describes both.
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
//! // A handle is for any thread. `publish` never blocks.
//! let handle = server.handle();
//! let ticker = std::thread::spawn(move || {
//!     for price in 1..=3 {
//!         handle.publish("prices/tea", Message::Text(&price.to_string())).unwrap();
//!     }
//!     handle.shutdown();
//! });
//!
//! // Serves until the shutdown, and until every connection is closed.
//! server.run()?;
//! ticker.join().unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! Rights by code, topic rules, receipts and features are on the page [`guide::embed`].
//!
//! # Where to go on
//!
//! - [`guide`]: one page a task: HTTP requests, history, presence, limits, deployment and so on
//! - [`umbel_v1`]: the protocol of many topics on one connection
//! - [`guide::source_map`]: the rooms of the source and the way of a byte through them
#![warn(missing_docs)]

pub mod access {
    //! Rights: those of the configuration, or the embedding program's own [`Authorizer`].
    pub use crate::auth::access::{AccessRequest, Action, Authorizer, Denied};
}
mod application;
mod auth;
mod caught;
mod compression;
pub mod config;
mod connection;
mod console;
mod dialect;
mod endpoint;
mod error;
mod fanout;
pub mod guide;
mod handle;
pub mod handler;
mod hash_index;
mod http;
mod hub;
mod inside;
mod metrics;
mod net;
mod protocol;
mod reactor;
mod route;
mod server;
mod shared;
mod shrink;
mod sync;
mod topic;
mod units;
mod worker;

/// Rooms for this repository's binary, benches and tests. Nothing in it is stable.
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

    rooms! {
        application auth compression connection console dialect fanout http hub metrics net protocol reactor route shared topic units
        worker
    }
}

pub use access::{AccessRequest, Action, Authorizer, Denied};
pub use config::{Access, Config, ConfigError, Deflate, ListenAddress, Listener, Origins, Surface};
#[doc(inline)]
pub use dialect::umbel_v1;
pub use error::Error;
pub use handle::{
    Counts, Handle, PendingReceipt, PublishError, ReceiptError, ReloadError, Reloaded,
};
pub use handle::{
    Delivery, ReceivedPublication, SubscribeError, SubscribeOptions, Subscription, SubscriptionEnd,
    WhenFull,
};
pub use handle::{History, Presence, PresentMember, QueryError, TopicInfo};
pub use handle::{QUEUE_BYTES_MAX, QUEUE_MAX};
pub use handler::{CloseCode, CloseReason, ConnectionId, Handler, Message, Peer, PeerHandle};
pub use handler::{PeerError, Publishing, Request, Response, Route, SubscriptionEvent};
pub use hub::{Position, PositionError, PublishOptions, Report};
pub use net::binding::InheritedSocket;
pub use protocol::{HostError, HostList, OriginError, OriginList, ProtocolError};
pub use server::{BoundListener, Builder, RunningServer, Server};
pub use topic::{HistoryLimits, SlowConsumer, TopicRule, TopicRuleError};
pub use topic::{Pattern, PatternError};
