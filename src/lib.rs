//! A push server: holds very many WebSocket connections and fans messages out to them.
//!
//! Umbel is one binary, `umbel`, and this crate, for programs that embed the server. The [`guide`] describes both; this page
//! leads through the crate in ten minutes.
//!
//! # A server in a program
//!
//! ```toml
//! [dependencies]
//! umbel = { version = "0.1", default-features = false, features = ["io-uring"] }
//! ```
//!
//! [`Server::builder`] takes the settings, [`bind`](Builder::bind) takes the port, and [`spawn`](Server::spawn) serves on
//! threads of its own until the guard is dropped. ([`run`](Server::run) serves on the thread that calls it.) A [`Handle`] is
//! for any thread, and publishing never blocks.
//!
//! ```
//! use umbel::{Message, Server};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder()
//!     .listen(([127, 0, 0, 1], 0).into())
//!     .topic_rule("prices/** history=100".parse()?)
//!     .bind()?
//!     .spawn()?;
//! println!("curl -N http://{}/sse/prices/tea", server.local_addr());
//!
//! let handle = server.handle();
//! for price in ["4.20", "4.30"] {
//!     handle.publish("prices/tea", Message::Text(price))?;
//! }
//! server.shutdown()?;
//! # Ok(())
//! # }
//! ```
//!
//! Whoever subscribes to `prices/tea` gets both prices in this order, by WebSocket (`/ws/prices/tea`), as an event stream
//! (`/sse/prices/tea`), or among many topics on one connection ([`umbel_v1`], with `/umbel.js` for browsers). The rule keeps a
//! history, so who comes late or comes back gets what it missed. [`PublishOptions`] adds a key, an event, tags and a receipt.
//!
//! # Rights
//!
//! Without a word about rights a server is open to its own machine, and starts on no other address. The [`Config`] knows
//! tokens and origins; an [`Authorizer`] decides by code.
//!
//! ```
//! use umbel::{AccessRequest, Action, Authorizer, Denied, Identity, Server, Verdict};
//!
//! /// Opens `public/` to everybody, and the rest to whoever has a cookie.
//! struct Cookies;
//!
//! impl Authorizer for Cookies {
//!     fn authorize(&self, request: &AccessRequest<'_>) -> Verdict {
//!         match (request.action(), request.cookie("user")) {
//!             (Action::Subscribe(topic), _) if topic.starts_with("public/") => Verdict::Allow(Identity::anonymous()),
//!             (Action::Observe, _) => Verdict::Deny(Denied::Forbidden("closed".into())),
//!             (_, Some(_)) => Verdict::Allow(Identity::anonymous()),
//!             (_, None) => Verdict::Deny(Denied::Unauthenticated("log in first".into())),
//!         }
//!     }
//! }
//!
//! let builder = Server::builder().authorizer(Cookies);
//! ```
//!
//! # Endpoints
//!
//! A [`Handler`] is code behind a path for WebSockets, a [`Route`] for plain requests; both see the [`Request`]. The calls come
//! on the server's threads, so they must not wait. A [`PeerHandle`] talks to one connection from any thread.
//!
//! ```
//! use umbel::{CloseCode, Handler, Message, Peer, Request, Response, Server};
//!
//! /// Answers each text in capitals, and takes nothing else.
//! struct Shout;
//!
//! impl Handler for Shout {
//!     fn open(&self, peer: &mut Peer<'_>, request: &Request<'_>) {
//!         let hello = format!("you are in {}", request.rest());
//!         peer.send(Message::Text(&hello)).unwrap();
//!     }
//!
//!     fn message(&self, peer: &mut Peer<'_>, message: Message<'_>) {
//!         match message {
//!             // One message of a call is always taken; `send` fails only for those beyond outbox_bytes_max.
//!             Message::Text(text) => peer.send(Message::Text(&text.to_uppercase())).unwrap(),
//!             Message::Binary(_) => peer.close(CloseCode::UNSUPPORTED_DATA, "text only"),
//!         }
//!     }
//! }
//!
//! let builder = Server::builder()
//!     .handler("/shout/*", Shout)
//!     .route("/version", |_: &Request<'_>| Response::text(200, "1\n"));
//! ```
//!
//! # The program in the middle
//!
//! - [`Handle::subscribe`] and [`subscribe_pattern`](Handle::subscribe_pattern) bring publications into the program, to a thread
//!   or to an async task
//! - [`Builder::on_publish`] refuses or rewrites publications before they are placed
//! - [`Builder::on_subscription`] hears who comes and goes; [`Handle::disconnect`] ends a connection
//! - [`Handle::topics`], [`history`](Handle::history) and [`presence`](Handle::presence) ask what there is
//!
//! ```
//! use std::time::Duration;
//! use umbel::{Delivery, Message, Server, SubscribeOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder().listen(([127, 0, 0, 1], 0).into()).bind()?.spawn()?;
//! let mut orders = server.handle().subscribe_pattern("orders/*", SubscribeOptions::new())?;
//! server.handle().publish("orders/7", Message::Text("two teas"))?;
//! let mut bought = None;
//! while bought.is_none()
//!     && let Some(delivery) = orders.next_timeout(Duration::from_secs(5))?
//! {
//!     if let Delivery::Publication(order) = delivery {
//!         bought = Some(order.topic().to_owned());
//!     }
//! }
//! assert_eq!(bought.as_deref(), Some("orders/7"));
//! # Ok(())
//! # }
//! ```
//!
//! # What can go wrong
//!
//! [`bind`](Builder::bind) says which setting cannot stand, and the way out. Every queue has a limit: what does not fit is an
//! error that says `Full`, and never a wait. After the end of the server, handles say `Closed`. A panic in the program's code is
//! caught at that call, and ends one connection; a panic of the server's own ends the server.
//!
//! # Where to go on
//!
//! - [`guide::chat`]: a whole program, with its own login, rooms and a kick
//! - [`guide::embed`]: features, threads, panics, tokio, and all else that concerns an embedding program
//! - [`guide`]: one page a task: HTTP requests, history, presence, limits, deployment and so on
//! - [`umbel_v1`]: the protocol of many topics on one connection
//! - [`guide::source_map`]: the rooms of the source and the way of a byte through them
#![warn(missing_docs)]

pub mod access {
    //! Rights: those of the configuration, or the embedding program's own [`Authorizer`].
    pub use crate::auth::access::{AccessRequest, Action, Authorizer, Denied};
    pub use crate::auth::program::{Identity, IdentityBuilder, IdentityError};
    pub use crate::auth::verdict::{Pending, Verdict};
}
mod access_log;
mod api;
mod application;
mod asking;
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
mod logging;
mod mailbox;
mod memory;
mod metrics;
mod nearest;
mod net;
#[cfg(feature = "outgoing")]
mod outgoing;
mod peers;
mod presence;
mod protocol;
mod rate;
mod reactor;
mod requests;
mod route;
mod server;
mod shared;
mod shrink;
mod signature;
mod sync;
#[cfg(feature = "tls")]
mod tls;
mod topic;
mod trace;
mod units;
mod upkeep;
mod worker;
mod x509;

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
        application auth compression connection console dialect fanout http hub mailbox metrics net protocol reactor requests route
        shared signature sync topic units upkeep worker x509
    }

    #[cfg(feature = "outgoing")]
    rooms! { outgoing }

    #[cfg(feature = "tls")]
    rooms! { tls }
}

pub use access::{AccessRequest, Action, Authorizer, Denied, Pending, Verdict};
pub use access::{Identity, IdentityBuilder, IdentityError};
pub use config::{
    Access, AuthRefusal, Config, ConfigError, Deflate, ListenAddress, Listener, Origins, Surface,
};
#[doc(inline)]
pub use dialect::umbel_v1;
pub use error::Error;
pub use handle::{ConnectionPage, ControlError};
pub use handle::{
    Counts, Handle, PendingReceipt, PublishError, ReceiptError, ReloadError, Reloaded,
};
pub use handle::{
    Delivery, ReceivedPublication, SubscribeError, SubscribeOptions, Subscription, SubscriptionEnd,
    WhenFull,
};
pub use handle::{History, HistoryStart, Presence, PresentMember, QueryError, TopicInfo};
pub use handle::{QUEUE_BYTES_MAX, QUEUE_MAX};
pub use handler::{CloseCode, CloseReason, ConnectionId, Handler, Message, Peer, PeerHandle};
pub use handler::{PeerError, Publishing, Request, Response, Route, SubscriptionEvent};
pub use hub::{Position, PositionError, PublishOptions, Report};
pub use net::binding::InheritedSocket;
pub use protocol::{HostError, HostList, OriginError, OriginList, ProtocolError};
pub use server::{BoundListener, Builder, RunningServer, Server};
pub use shared::jobs::{ConnectionInfo, Cursor, Filter, Selector};
pub use topic::{
    HistoryLimits, PresenceOf, PresenceSubject, SlowConsumer, TopicRule, TopicRuleError,
};
pub use topic::{Pattern, PatternError, TopicError};
