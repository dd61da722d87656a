//! Records of our own for a fuzz target: a connection over memory, with keys that the target knows.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::{ExtractedSecrets, KeyLog, Tls13CipherSuite};

use super::agreement::Agreed;
use super::context::TlsContext;
use super::next_keys::{self, NextKeys, SecretsLog};
use super::record::Fatal;
use super::records::Records;
use super::state::Socket;
use super::table::Turn;
use crate::config::Limits;
use crate::handler::ConnectionId;
use crate::metrics::tls::TlsCounts;

/// A socket whose other end is memory.
#[derive(Default)]
struct Memory {
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    /// Bytes that may be sent before it blocks.
    room: usize,
    /// The peer sends nothing more.
    is_closed: bool,
    is_ended: bool,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.inbound.len());
        if count == 0 && !self.is_closed {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..count].copy_from_slice(&self.inbound[..count]);
        self.inbound.drain(..count);
        Ok(count)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!self.is_ended, "nothing is sent behind the end");
        let count = bytes.len().min(self.room);
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= count;
        self.outbound.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for Memory {
    fn end(&mut self) -> io::Result<()> {
        self.is_ended = true;
        Ok(())
    }
}

/// The server's side of a connection whose handshake is done.
pub struct Reader {
    records: Records,
    turn: Turn,
    socket: Memory,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    /// One with these keys. `traffic`: the suite of TLS 1.3, and the secrets of what comes and of what is sent.
    ///
    /// # Errors
    /// The keys are of a kind that is not known here.
    pub fn new(
        secrets: ExtractedSecrets,
        traffic: Option<(&'static Tls13CipherSuite, [&[u8]; 2])>,
    ) -> Result<Reader, Fatal> {
        let next_keys = traffic.and_then(|(suite, [incoming, outgoing])| {
            next_keys::begin();
            SecretsLog.log("CLIENT_TRAFFIC_SECRET_0", &[], incoming);
            SecretsLog.log("SERVER_TRAFFIC_SECRET_0", &[], outgoing);
            Some(NextKeys::new(suite, next_keys::take()?))
        });
        let agreed = Agreed {
            secrets,
            next_keys,
            has_alpn: false,
            unsent: Vec::new(),
            incoming: Vec::new(),
        };
        let limits = Limits::default();
        let terms = Box::new(|_| unreachable!("there is no handshake"));
        let context = Arc::new(TlsContext::new(
            terms,
            Arc::new(TlsCounts::default()),
            &limits,
        ));
        let id = ConnectionId {
            reactor: 0,
            index: 0,
            generation: 1,
        };
        Ok(Reader {
            records: Records::new(id, agreed, None, false)?,
            turn: Turn::new(context, limits.read_budget_bytes, Arc::new(|| true)),
            socket: Memory::default(),
        })
    }

    /// Bytes of the peer arrive.
    pub fn arrive(&mut self, bytes: &[u8]) {
        self.socket.inbound.extend_from_slice(bytes);
    }

    /// The peer sends nothing more.
    pub fn close(&mut self) {
        self.socket.is_closed = true;
    }

    /// The socket takes so many bytes more.
    ///
    /// # Errors
    /// As of a socket.
    pub fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        self.socket.room = self.socket.room.saturating_add(bytes);
        self.records.flush(&mut self.socket, &mut self.turn)
    }

    /// Reads once, in a tick of its own. 0: the peer's side has ended.
    ///
    /// # Errors
    /// As of a socket; the alert that the connection has failed by.
    pub fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.turn.begin_tick();
        self.records.read(&mut self.socket, &mut self.turn, out)
    }

    /// Whether it has called for another look.
    pub fn is_called(&mut self) -> bool {
        !self.turn.take_again().is_empty()
    }

    /// Whether there is more to be read, though no event tells.
    pub fn holds_input(&self) -> bool {
        self.records.holds_input()
    }

    /// Writes plaintext.
    ///
    /// # Errors
    /// As of a socket.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let pieces = [IoSlice::new(bytes)];
        self.records
            .write(&mut self.socket, &mut self.turn, &pieces)
    }

    /// Ends the server's side.
    ///
    /// # Errors
    /// As of a socket.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        self.records
            .shutdown_write(&mut self.socket, &mut self.turn)
    }

    /// Bytes that were sent since the last call.
    pub fn take_sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.socket.outbound)
    }

    /// Memory of what waits: received, and sealed.
    pub fn waiting_bytes(&self) -> (usize, usize) {
        self.records.waiting_bytes()
    }
}
