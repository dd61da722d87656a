//! permessage-deflate (RFC 7692) on the way in: what a connection keeps for it, and what the connections of a thread
//! share.
//!
//! A peer that keeps no context from message to message is inflated by the thread's one inflater. One that keeps it has
//! an inflater of its own, made for its first compressed message.

use std::fmt;

use super::event::Message;
use crate::protocol::deflate::Agreement;
use crate::protocol::{Opcode, ProtocolError};
#[cfg(feature = "deflate")]
use crate::protocol::{Received, deflate::Inflater};

/// What a connection keeps whose peer refers back to earlier messages.
#[derive(Default)]
pub(super) struct Context {
    /// Made for the first compressed message.
    #[cfg(feature = "deflate")]
    inflater: Option<Box<Inflater>>,
}

/// Heap bytes of the context that a peer may keep by what was agreed to, from then on: whether it has compressed anything
/// yet or not.
pub(super) fn context_bytes(deflate: Option<Agreement>) -> usize {
    match deflate {
        Some(agreement) if agreement.client_takeover => Inflation::CONTEXT_BYTES,
        _ => 0,
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

/// Inflation shared by the connections of one thread: an inflater, made for the first compressed message, and the
/// message that it made last.
#[derive(Default)]
pub struct Inflation {
    #[cfg(feature = "deflate")]
    inflater: Option<Inflater>,
    message: Vec<u8>,
    inflated_bytes: usize,
    /// Compressed messages that were inflated.
    pub messages: u64,
    /// Compressed messages that were wrong, or too long.
    pub errors: u64,
}

impl Inflation {
    /// Heap bytes of the context of one peer that keeps it.
    #[cfg(feature = "deflate")]
    pub const CONTEXT_BYTES: usize = Inflater::BYTES;
    /// Heap bytes of the context of one peer that keeps it: there is none.
    #[cfg(not(feature = "deflate"))]
    pub const CONTEXT_BYTES: usize = 0;

    /// Another connection has its turn.
    pub(super) fn begin_turn(&mut self) {
        self.inflated_bytes = 0;
    }

    /// Bytes of the messages that were inflated in this turn.
    pub fn inflated_bytes(&self) -> usize {
        self.inflated_bytes
    }

    /// Frees what a long message took.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.message.clear();
        self.message.shrink_to(bytes);
    }

    /// Inflates a whole message, by the context of its connection if there is one.
    ///
    /// # Errors
    /// Wrong data, a message longer than `bytes_max`, and a text that is not UTF-8.
    #[cfg(feature = "deflate")]
    #[cold]
    pub(super) fn inflate(
        &mut self,
        context: Option<&mut Context>,
        opcode: Opcode,
        payload: &[u8],
        bytes_max: u64,
    ) -> Result<Message<'_>, ProtocolError> {
        let inflater = match context {
            Some(context) => &mut **context
                .inflater
                .get_or_insert_with(|| Box::new(Inflater::new(true))),
            None => self.inflater.get_or_insert_with(|| Inflater::new(false)),
        };
        let inflated = inflater.inflate(opcode, payload, bytes_max, &mut self.message);
        let message = match inflated {
            Ok(Received::Text(text)) => Message::Text(text),
            Ok(Received::Binary(bytes)) => Message::Binary(bytes),
            other => {
                self.errors += 1;
                return Err(other.err().unwrap_or(ProtocolError::ReservedBits));
            }
        };
        self.messages += 1;
        self.inflated_bytes += message.payload().len();
        Ok(message)
    }

    /// Without what inflates no compression is agreed to, and no compressed message gets here.
    #[cfg(not(feature = "deflate"))]
    #[cold]
    pub(super) fn inflate(
        &mut self,
        _: Option<&mut Context>,
        _: Opcode,
        _: &[u8],
        _: u64,
    ) -> Result<Message<'_>, ProtocolError> {
        Err(ProtocolError::ReservedBits)
    }
}
