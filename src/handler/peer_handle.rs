//! Handles of connections to own endpoints, for any thread.
//!
//! What a handle sends travels by the queue of commands of the reactor that owns the connection. How much of a connection
//! waits is kept in a gauge, which the reactor brings up to date where somebody holds a handle.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{CloseCode, ConnectionId, Message};

/// Something that a handle asks of its connection's reactor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerCommand {
    /// Send a text message.
    Text(Box<str>),
    /// Send a binary message.
    Binary(Box<[u8]>),
    /// Start the closing handshake.
    Close(CloseCode, Cow<'static, str>),
}

impl PeerCommand {
    /// Bytes that it holds while it waits.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            PeerCommand::Text(text) => text.len(),
            PeerCommand::Binary(bytes) => bytes.len(),
            PeerCommand::Close(_, reason) => reason.len(),
        }
    }
}

/// Called once a command is carried out, or never will be.
pub(crate) type Done = Box<dyn FnOnce() + Send>;

/// Way of commands to the reactors.
pub(crate) trait PeerMail: Send + Sync {
    /// Brings a command to the connection's reactor. `done` is called once it is carried out, or never will be.
    ///
    /// # Errors
    /// When too many wait there.
    fn bring(&self, to: ConnectionId, command: PeerCommand, done: Done) -> Result<(), PeerError>;
}

/// Bytes of one connection that wait.
#[derive(Debug, Default)]
struct Gauge {
    /// On their way to the reactor.
    brought: AtomicUsize,
    /// In the outbox.
    outbox: AtomicUsize,
    /// Somebody was told that it is full, and waits to hear that it is not.
    starved: AtomicBool,
    closed: AtomicBool,
}

/// A connection to an own endpoint, for any thread and any time: to send, to close, and to ask what waits.
///
/// [`Peer::handle`](super::Peer::handle) gives it. Clones are cheap and mean the same connection.
///
/// ```
/// use std::sync::Mutex;
/// use umbel::{CloseCode, CloseReason, ConnectionId, Handler, Message, Peer, PeerHandle, Request};
///
/// /// Connections that another thread talks to.
/// #[derive(Default)]
/// struct Lobby(Mutex<Vec<PeerHandle>>);
///
/// impl Handler for Lobby {
///     fn open(&self, peer: &mut Peer<'_>, _: &Request<'_>) {
///         self.0.lock().unwrap().push(peer.handle());
///     }
///
///     fn message(&self, peer: &mut Peer<'_>, _: Message<'_>) {
///         peer.close(CloseCode::POLICY_VIOLATION, "listen only");
///     }
///
///     fn close(&self, connection: ConnectionId, _: CloseReason) {
///         self.0.lock().unwrap().retain(|peer| peer.id() != connection);
///     }
/// }
///
/// impl Lobby {
///     /// Says something to everybody who keeps up, from any thread.
///     fn announce(&self, text: &str) {
///         for peer in &*self.0.lock().unwrap() {
///             if peer.queued_bytes() < 64 * 1024 {
///                 let _ = peer.send(Message::Text(text));
///             }
///         }
///     }
/// }
/// # Lobby::default().announce("hello");
/// ```
#[derive(Clone)]
pub struct PeerHandle {
    id: ConnectionId,
    gauge: Arc<Gauge>,
    mail: Option<Arc<dyn PeerMail>>,
    bytes_max: usize,
}

/// Error of [`PeerHandle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerError {
    /// As much waits for the connection as `outbox_bytes_max` allows. [`Handler::writable`](super::Handler::writable) is called
    /// once nothing does.
    Full,
    /// As many commands wait for the connection's reactor as it takes; try again a little later.
    Busy,
    /// The connection is gone.
    Closed,
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerError::Full => "more is queued for the peer than it takes",
            PeerError::Busy => "more is asked of the connection's thread than it takes; try again",
            PeerError::Closed => "the connection is gone",
        })
    }
}

impl std::error::Error for PeerError {}

impl PeerHandle {
    /// The connection's name.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Sends a message, behind what waits. Never blocks. What several handles send at the same time comes in some order.
    ///
    /// # Errors
    /// When so much waits already that it would be more than `outbox_bytes_max`; a single message always goes. When too many
    /// commands wait for the connection's reactor. When the connection is gone; a message is lost too if it ends before the
    /// message is written.
    pub fn send(&self, message: Message<'_>) -> Result<(), PeerError> {
        let bytes = message.payload().len();
        if !self.has_room(bytes) {
            self.gauge.starved.store(true, Ordering::SeqCst);
            // All may have gone before the flag was seen.
            if !self.has_room(bytes) {
                return Err(PeerError::Full);
            }
        }
        let command = match message {
            Message::Text(text) => PeerCommand::Text(text.into()),
            Message::Binary(bytes) => PeerCommand::Binary(bytes.into()),
        };
        self.bring(command, bytes)
    }

    fn has_room(&self, bytes: usize) -> bool {
        let waiting = self.queued_bytes();
        waiting == 0 || waiting + bytes <= self.bytes_max
    }

    /// Starts the closing handshake, behind what waits. The reason is cut at 123 bytes. A code that may not stand on the
    /// wire (RFC 6455 section 7.4.1) is sent as 1011.
    ///
    /// # Errors
    /// When too many commands wait for the connection's reactor, or the connection is gone.
    pub fn close(
        &self,
        code: CloseCode,
        reason: impl Into<Cow<'static, str>>,
    ) -> Result<(), PeerError> {
        self.bring(PeerCommand::Close(code, reason.into()), 0)
    }

    /// Bytes that wait for the peer: on their way to its reactor, and in its outbox as of the last write. What the kernel
    /// took is not among them.
    pub fn queued_bytes(&self) -> usize {
        self.gauge.brought.load(Ordering::SeqCst) + self.gauge.outbox.load(Ordering::SeqCst)
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.gauge.closed.load(Ordering::Acquire)
    }

    fn bring(&self, command: PeerCommand, bytes: usize) -> Result<(), PeerError> {
        let Some(mail) = self.mail.as_ref().filter(|_| !self.is_closed()) else {
            return Err(PeerError::Closed);
        };
        let gauge = Arc::clone(&self.gauge);
        gauge.brought.fetch_add(bytes, Ordering::SeqCst);
        let done = move || {
            gauge.brought.fetch_sub(bytes, Ordering::SeqCst);
        };
        mail.bring(self.id, command, Box::new(done))
    }
}

impl fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerHandle")
            .field("id", &self.id)
            .field("queued_bytes", &self.queued_bytes())
            .field("is_closed", &self.is_closed())
            .finish()
    }
}

/// The handles that the program has of one reactor's connections.
pub(crate) struct PeerHandles {
    mail: Option<Arc<dyn PeerMail>>,
    /// Of connections that a handle was asked of, and that are not gone. There are no more than connections.
    gauges: HashMap<ConnectionId, Arc<Gauge>>,
}

impl PeerHandles {
    /// None yet.
    pub(crate) fn new(mail: Option<Arc<dyn PeerMail>>) -> PeerHandles {
        PeerHandles {
            mail,
            gauges: HashMap::new(),
        }
    }

    pub(super) fn handle(&mut self, id: ConnectionId, bytes_max: usize) -> PeerHandle {
        PeerHandle {
            id,
            gauge: Arc::clone(self.gauges.entry(id).or_default()),
            mail: self.mail.clone(),
            bytes_max,
        }
    }

    /// The connection's outbox holds so much now.
    pub(crate) fn note_outbox(&self, id: ConnectionId, bytes: usize) {
        if let Some(gauge) = self.gauges.get(&id) {
            gauge.outbox.store(bytes, Ordering::SeqCst);
        }
    }

    /// Whether nothing waits for the connection any more, and somebody was told that it is full.
    pub(crate) fn take_starved(&self, id: ConnectionId) -> bool {
        self.gauges.get(&id).is_some_and(|gauge| {
            let waiting = [&gauge.brought, &gauge.outbox];
            waiting
                .iter()
                .all(|bytes| bytes.load(Ordering::SeqCst) == 0)
                && gauge.starved.swap(false, Ordering::SeqCst)
        })
    }

    /// The connection is gone.
    pub(crate) fn forget(&mut self, id: ConnectionId) {
        if let Some(gauge) = self.gauges.remove(&id) {
            gauge.outbox.store(0, Ordering::Relaxed);
            gauge.closed.store(true, Ordering::Release);
        }
    }
}

impl Drop for PeerHandles {
    /// The reactor ends, and with it all that is left.
    fn drop(&mut self) {
        for gauge in self.gauges.values() {
            gauge.closed.store(true, Ordering::Release);
        }
    }
}
