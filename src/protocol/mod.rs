//! WebSocket (RFC 6455) and its compression (RFC 7692), both sides, without I/O.
//!
//! Bytes and random numbers come in as arguments, bytes and messages go out: nothing here knows a socket, a
//! clock or a thread. Only [`handshake`] looks outside this module, at the HTTP head it is given.
//!
//! | file | its one job |
//! | --- | --- |
//! | `error` | what a peer can do wrong, in the RFC's words, and the close code for it |
//! | `close` | close codes and the payload of a close frame (sections 5.5.1 and 7.4) |
//! | `frame` | the header of a frame, parsed and encoded (section 5.2) |
//! | `mask` | masking in place (section 5.3) |
//! | `utf8` | UTF-8, whole and as it arrives (section 8.1) |
//! | `message` | what is gathered of a message that has not arrived whole (section 5.4) |
//! | `decoder` | bytes to messages: the way in |
//! | `handshake` | the opening handshake, the server's side (section 4.2) |
//! | `handshake_client` | the opening handshake, the client's side (section 4.1) |
//! | `deflate` | permessage-deflate: what is agreed on, messages in and out (RFC 7692) |
//! | `origin` | which origins may connect (section 10.2) |
//! | `host_list` | which hosts a request may be sent to |
//!
//! The states of one direction, from the first byte after the handshake:
//!
//! ```text
//!               +------ whole frame: handed out as a borrow of the input ------+
//!               v                                                              |
//!   between frames --> header incomplete --> payload incomplete --> message handed out
//!               |   (kept inline)         (gathered in one box)                ^
//!               |                              ^      |                        |
//!               |                              +------+ further fragments -----+
//!               +--> close frame or error: ended; what follows is swallowed
//! ```

mod close;
mod decoder;
pub mod deflate;
mod error;
mod frame;
pub mod handshake;
mod handshake_client;
mod host_list;
mod mask;
mod message;
pub mod origin;
pub mod proxy;
mod utf8;

pub use close::{CLOSE_REASON_BYTES_MAX, CloseCode, CloseFrame};
pub use decoder::Decoder;
pub use error::ProtocolError;
pub use frame::{
    CONTROL_PAYLOAD_BYTES_MAX, HEADER_BYTES_MAX, Header, Opcode, SERVER_HEADER_BYTES_MAX,
    encode_frame, encode_server_header,
};
pub use handshake::{
    EXTENSIONS, SUBPROTOCOLS_MAX, Upgrade, accept_key, choose_deflate, encode_switching_protocols,
    is_upgrade, parse_upgrade,
};
pub use handshake_client::{ClientError, ClientRequest, RESPONSE_HEAD_BYTES_MAX, Response};
pub use host_list::{HostError, HostList, is_loopback_host};
pub use mask::mask_in_place;
pub use message::{MessageLimits, Received};
pub use origin::{OriginError, OriginList, OriginRule, is_loopback_origin, same_origin};
pub use utf8::{Utf8Validator, parse_text};

/// Side of a connection. A client masks what it sends, a server does not (section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The side that answered the handshake: it takes masked frames only.
    Server,
    /// The side that asked for the handshake: it takes unmasked frames only.
    Client,
}
