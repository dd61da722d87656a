//! permessage-deflate: RFC 7692, both sides of it, without I/O.
//!
//! | file | its one job |
//! | --- | --- |
//! | `extension` | the grammar of `Sec-WebSocket-Extensions` (RFC 6455, section 9.1) |
//! | `parameters` | the extension's parameters (section 7.1) |
//! | `offer` | what is offered, chosen and answered (sections 5 and 7.1) |
//! | `user_agent` | browsers with which nothing should be agreed |
//! | `inflate` | compressed messages in (section 7.2.2) |
//! | `deflate` | compressed messages out (section 7.2.1) |
//!
//! How the pieces are meant to be used
//!
//! - The handshake: [`choose_deflate`](super::choose_deflate) finds the [`Agreement`] that the server's [`Policy`] allows, unless
//!   [`has_broken_deflate`] says that nothing should be agreed; [`Agreement::encode`] is the answer's header. The
//!   agreement is kept with the connection. A client keeps an [`Offer`] and checks the answer with it.
//! - The way in: a connection that has agreed tells its decoder, by
//!   [`accept_compressed`](super::Decoder::accept_compressed). From then on the decoder hands out compressed messages as
//!   [`Received::Compressed`](super::Received::Compressed), still compressed: borrowed from the input if the message is
//!   one whole frame, gathered otherwise, and then no longer than the limit of a message either. [`Inflater::inflate`]
//!   makes the message of it, in a buffer that is the caller's, one for each thread: it grows to the longest message
//!   that came through, so a caller with a high limit shrinks it now and then.
//!   A reactor has one inflater for all connections whose peer keeps no context; a connection whose peer does owns a
//!   boxed one, made for its first compressed message, and that is [`Inflater::BYTES`] for as long as it lives.
//! - The way out: one [`Deflater`] for each thread and window, for what is compressed once and sent to many or to one;
//!   one [`TakeoverDeflater`] for each group of connections that get the same messages. A payload that comes out goes
//!   into a frame with [`Header::rsv1`](super::Header::rsv1) set. Messages may always be sent uncompressed, between
//!   compressed ones too, and are when they are short: under about 256 bytes little is won.
//!
//! What inflates and deflates is there with the crate's feature `deflate`. Without it an agreement cannot be kept, so
//! none may be made.

#[cfg(feature = "deflate")]
#[allow(
    clippy::module_inception,
    reason = "the room is named by the extension, the file by what it does"
)]
mod deflate;
mod extension;
#[cfg(feature = "deflate")]
mod inflate;
mod offer;
mod parameters;
mod user_agent;

#[cfg(feature = "deflate")]
pub use deflate::{Compression, Deflater, TakeoverDeflater, payload_bytes_max};
pub use extension::Malformed;
#[cfg(feature = "deflate")]
pub use inflate::Inflater;
pub use offer::{Agreement, Offer, Policy, WINDOW_BITS_MAX, WINDOW_BITS_MIN, WrongAnswer, choose};
pub use user_agent::has_broken_deflate;

/// The end of an empty stored block, which the sender cuts off and the receiver puts back (section 7.2).
#[cfg(feature = "deflate")]
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
