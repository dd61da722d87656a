//! Handler endpoints: a program's code behind a path, on the reactors' threads.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

mod hooks;
mod peer_handle;
mod request;
mod route;

use crate::connection::Deflation;
pub use crate::connection::{CloseReason, Message};
use crate::protocol::deflate::Agreement;
pub use crate::protocol::{CloseCode, ProtocolError};
use crate::protocol::{Opcode, encode_frame};
pub use hooks::{Hooks, Publishing, SubscriptionEvent};
pub(crate) use peer_handle::{Done, PeerCommand, PeerHandles, PeerMail};
pub use peer_handle::{PeerError, PeerHandle};
pub use request::Request;
pub(crate) use request::RequestOrigin;
pub use route::{Response, Route};

/// Name of a connection, unique while the connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    pub(crate) reactor: u16,
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl ConnectionId {
    /// Index and generation as one number; the reactor is not part of it.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The other way.
    pub(crate) fn from_bits(reactor: u16, bits: u64) -> ConnectionId {
        ConnectionId {
            reactor,
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

impl fmt::Display for ConnectionId {
    /// `reactor-index-generation`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.reactor, self.index, self.generation)
    }
}

impl FromStr for ConnectionId {
    type Err = ConnectionIdError;

    /// As [`Display`](fmt::Display) writes it. It may name a connection that is gone, or none.
    fn from_str(text: &str) -> Result<ConnectionId, ConnectionIdError> {
        let mut parts = text.split('-').map(|part| part.parse::<u32>().ok());
        let mut next = || parts.next().flatten().ok_or(ConnectionIdError);
        let (reactor, index, generation) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(ConnectionIdError);
        }
        Ok(ConnectionId {
            reactor: u16::try_from(reactor).map_err(|_| ConnectionIdError)?,
            index,
            generation,
        })
    }
}

/// Text that names no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionIdError;

impl fmt::Display for ConnectionIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a connection's name is reactor-index-generation, as in 1-12-3")
    }
}

impl std::error::Error for ConnectionIdError {}

/// An endpoint of your own: code for the WebSocket connections to a path.
///
/// The calls of one connection come one after the other, on the thread of the reactor that owns it; those of
/// different connections come at the same time. A call that waits makes all connections of its reactor wait.
///
/// A panic in a call ends its connection with 1011; it is logged and counted (`umbel_embedder_panics_total`), and the
/// server goes on. That needs unwinding: in a program with `panic = "abort"` it ends the process.
pub trait Handler: Send + Sync + 'static {
    /// The subprotocols that it speaks. The first one that the peer offers is chosen; none is fine too.
    fn subprotocols(&self) -> &[&str] {
        &[]
    }

    /// The opening handshake is complete. The request is the one that asked for it; it borrows the read buffer.
    fn open(&self, peer: &mut Peer<'_>, request: &Request<'_>) {
        let _ = (peer, request);
    }

    /// A message has arrived. It borrows the read buffer where it came in one piece: copy what must outlive the call.
    fn message(&self, peer: &mut Peer<'_>, message: Message<'_>);

    /// The peer has taken all that waited for it. Called whenever bytes had to wait in the outbox, or a [`PeerHandle`] was
    /// [`Full`](PeerError::Full), once nothing waits: a sender that stopped can go on.
    fn writable(&self, peer: &mut Peer<'_>) {
        let _ = peer;
    }

    /// The connection is gone. Called once for each `open`.
    fn close(&self, connection: ConnectionId, reason: CloseReason) {
        let _ = (connection, reason);
    }
}

impl<H: Handler + ?Sized> Handler for Arc<H> {
    fn subprotocols(&self) -> &[&str] {
        (**self).subprotocols()
    }

    fn open(&self, peer: &mut Peer<'_>, request: &Request<'_>) {
        (**self).open(peer, request);
    }

    fn message(&self, peer: &mut Peer<'_>, message: Message<'_>) {
        (**self).message(peer, message);
    }

    fn writable(&self, peer: &mut Peer<'_>) {
        (**self).writable(peer);
    }

    fn close(&self, connection: ConnectionId, reason: CloseReason) {
        (**self).close(connection, reason);
    }
}

/// The other end of a connection, for the length of one call.
pub struct Peer<'a> {
    id: ConnectionId,
    out: &'a mut Vec<u8>,
    out_start: usize,
    bytes_max: usize,
    sent: u64,
    close: Option<(CloseCode, Cow<'static, str>)>,
    /// What compresses for it, if that was agreed.
    deflation: Option<(&'a mut Deflation, Agreement)>,
    /// Handles of its reactor's connections.
    handles: Option<&'a mut PeerHandles>,
}

/// Error of [`Peer::send`]: this call has queued too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFull;

impl fmt::Display for PeerFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more is queued for the peer than outbox_bytes_max")
    }
}

impl std::error::Error for PeerFull {}

impl<'a> Peer<'a> {
    pub(crate) fn new(id: ConnectionId, out: &'a mut Vec<u8>, bytes_max: usize) -> Peer<'a> {
        Peer {
            id,
            out_start: out.len(),
            out,
            bytes_max,
            sent: 0,
            close: None,
            deflation: None,
            handles: None,
        }
    }

    /// Handles of it can be asked for.
    pub(crate) fn with_handles(mut self, handles: &'a mut PeerHandles) -> Peer<'a> {
        self.handles = Some(handles);
        self
    }

    /// Messages may leave compressed.
    pub(crate) fn with_deflation(
        mut self,
        deflation: &'a mut Deflation,
        agreement: Option<Agreement>,
    ) -> Peer<'a> {
        self.deflation = agreement.map(|agreement| (deflation, agreement));
        self
    }

    /// Messages sent in this call.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn take_close(self) -> Option<(CloseCode, Cow<'static, str>)> {
        self.close
    }

    /// The connection's name.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// A handle of the connection, to keep: for any thread, and beyond this call.
    pub fn handle(&mut self) -> PeerHandle {
        match &mut self.handles {
            Some(handles) => handles.handle(self.id, self.bytes_max),
            None => PeerHandles::new(None).handle(self.id, self.bytes_max),
        }
    }

    /// Queues a message. It leaves together with the others of this call. If the peer does not take them, nothing
    /// further is read from it until it has.
    ///
    /// # Errors
    /// When this call has queued more than `outbox_bytes_max` already. A single message always goes.
    pub fn send(&mut self, message: Message<'_>) -> Result<(), PeerFull> {
        if self.out.len() - self.out_start > self.bytes_max {
            return Err(PeerFull);
        }
        self.sent += 1;
        if let Some((deflation, agreement)) = &mut self.deflation
            && deflation.encode_frame(*agreement, message, self.out)
        {
            return Ok(());
        }
        let opcode = match message {
            Message::Text(_) => Opcode::Text,
            Message::Binary(_) => Opcode::Binary,
        };
        encode_frame(self.out, opcode, message.payload(), None);
        Ok(())
    }

    /// Starts the closing handshake, behind what was sent. The reason is cut at 123 bytes. A code that may not stand
    /// on the wire (RFC 6455 section 7.4.1) is sent as 1011.
    pub fn close(&mut self, code: CloseCode, reason: impl Into<Cow<'static, str>>) {
        self.close = Some((code, reason.into()));
    }
}

impl fmt::Debug for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("id", &self.id)
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

/// Sends each message back: `/echo`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Handler for Echo {
    fn message(&self, peer: &mut Peer<'_>, message: Message<'_>) {
        peer.send(message)
            .expect("the first message of a call is always taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "deflate")]
    use crate::config::{Deflate, Limits};
    #[cfg(feature = "deflate")]
    use crate::connection::Settings;
    #[cfg(feature = "deflate")]
    use crate::protocol::deflate::choose;

    #[test]
    fn connection_names_are_read_as_they_are_written() {
        let id = ConnectionId::from_bits(1, 3 << 32 | 12);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "1", "1-2", "1-2-3-4", "1-2-x", "70000-1-1", "-1-2-3"] {
            assert_eq!(
                text.parse::<ConnectionId>(),
                Err(ConnectionIdError),
                "{text}"
            );
        }
    }

    #[test]
    fn echo_frames_the_message_again() {
        let mut out = b"before".to_vec();
        let id = ConnectionId {
            reactor: 0,
            index: 0,
            generation: 0,
        };
        let mut peer = Peer::new(id, &mut out, 10);
        Echo.message(&mut peer, Message::Text("hi"));
        assert!(peer.take_close().is_none());
        assert_eq!(out, b"before\x81\x02hi");
    }

    #[cfg(feature = "deflate")]
    #[test]
    fn what_shrinks_leaves_compressed_where_that_was_agreed() {
        let settings = Settings::new(&Limits::default()).with_deflate(Deflate::Text, false);
        let mut deflation = Deflation::new(&settings);
        let offer = &b"permessage-deflate; server_max_window_bits=9"[..];
        let agreement = choose([offer], &settings.deflate_policy)
            .expect("it is well-formed")
            .expect("it can be met");
        let id = ConnectionId::from_bits(0, 0);
        let text = "x".repeat(300);
        let frames = [
            (Message::Text(&text), 0xc1),
            (Message::Text(&text[..255]), 0x81),
            (Message::Binary(text.as_bytes()), 0x82),
        ];
        for (message, first) in frames {
            let mut out = Vec::new();
            let mut peer =
                Peer::new(id, &mut out, 10).with_deflation(&mut deflation, Some(agreement));
            Echo.message(&mut peer, message);
            assert_eq!(peer.sent(), 1);
            assert_eq!((out[0], out.len() < 100), (first, first == 0xc1));
        }
        assert_eq!(deflation.messages, 1);
        assert!(deflation.saved_bytes > 250);
    }

    #[test]
    fn a_call_cannot_queue_without_bound() {
        let mut out = Vec::new();
        let id = ConnectionId {
            reactor: 0,
            index: 0,
            generation: 0,
        };
        let mut peer = Peer::new(id, &mut out, 10);
        assert_eq!(peer.send(Message::Binary(&[0; 100])), Ok(()));
        assert_eq!(peer.send(Message::Binary(b"")), Err(PeerFull));
    }
}
