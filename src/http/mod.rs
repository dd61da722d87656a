//! HTTP/1.1 as a server speaks it, without I/O: bytes in, borrowed values or a [`refusal::Refusal`] out.
//!
//! ```text
//! bytes -> request::HeadScanner -> request::Head::parse
//!                                        |
//!                                        +-> body::BodyDecoder -> pieces of the body
//! response::Response
//! ```
//!
//! RFC 9110 gives the meaning, RFC 9112 the wire form. Where RFC 9112 lets a server be lenient (bare LF, folded
//! lines, equal repeated Content-Length), this module is not: every such leniency is a place where a proxy in
//! front and this server may see two different requests. After a refusal whose `close` is set the place of the
//! next request is unknown, and the connection has to end.
//!
//! Nothing here knows a socket or a clock, and nothing allocates for a request but a topic's own text.

pub mod body;
pub mod date;
pub mod escape;
mod field;
pub mod forwarded;
mod framing;
mod host;
pub mod http2;
pub mod kept;
pub mod known;
pub mod query;
pub mod refusal;
pub mod request;
pub mod request_limits;
pub mod response;
mod scanner;
pub mod start_line;
mod target;
