//! Place of the state of a TLS connection, in three bytes.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;

use mio::net::TcpStream;

use super::state::Socket;
use super::table;
use crate::auth::identity::Identity;
use crate::connection::Secured;
use crate::handler::ConnectionId;

impl Socket for TcpStream {
    fn end(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Set once the connection has a slot.
const HAS_SLOT: u32 = 1 << 23;

/// The listener of a connection that was just accepted; then the index of its slot. When it is dropped, the state goes.
#[derive(Debug)]
pub struct Place([u8; 3]);

impl Place {
    /// That of a connection that was just accepted by this listener.
    pub fn accepted(listener: u8) -> Place {
        Place([listener, 0, 0])
    }

    fn number(&self) -> u32 {
        let Place([low, middle, high]) = *self;
        u32::from_le_bytes([low, middle, high, 0])
    }

    /// Index of its slot, once it has one.
    pub fn index(&self) -> Option<usize> {
        let number = self.number();
        (number & HAS_SLOT != 0).then_some((number & !HAS_SLOT) as usize)
    }

    /// Begins TLS for a connection that has its name now.
    ///
    /// # Errors
    /// Too many handshakes are under way, or its index has no place in three bytes.
    pub fn enter(&mut self, id: ConnectionId) -> io::Result<()> {
        let listener = self.0[0];
        if self.index().is_some() || id.index >= HAS_SLOT {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        table::enter(id, listener)?;
        let [low, middle, high, _] = (id.index | HAS_SLOT).to_le_bytes();
        self.0 = [low, middle, high];
        Ok(())
    }

    /// Reads plaintext of a connection over this stream.
    ///
    /// # Errors
    /// As of `read(2)`; `InvalidData` where TLS failed.
    #[inline(never)]
    pub fn read(&mut self, stream: &mut TcpStream, out: &mut [u8]) -> io::Result<usize> {
        table::with(self.index(), |state, turn| state.read(stream, turn, out))
            .unwrap_or_else(no_state)
    }

    /// Writes plaintext over this stream, as much as is taken.
    ///
    /// # Errors
    /// As of `write(2)`; `InvalidData` where TLS failed.
    #[inline(never)]
    pub fn write(&mut self, stream: &mut TcpStream, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        table::with(self.index(), |state, turn| {
            state.write(stream, turn, pieces)
        })
        .unwrap_or_else(no_state)
    }

    /// Seals bytes behind those in `out`, for a send by a ring. False: they are to be written.
    #[inline(never)]
    pub fn seal(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        table::with(self.index(), |state, turn| state.seal(turn, bytes, out)).unwrap_or(false)
    }

    /// Takes the outcome of such a send over this stream. None: it was not tried.
    ///
    /// # Errors
    /// As of `write(2)`, but for `WouldBlock`.
    #[inline(never)]
    pub fn finish_sealed(
        &mut self,
        stream: &mut TcpStream,
        sealed: &[u8],
        outcome: &Option<io::Result<usize>>,
    ) -> io::Result<()> {
        table::with(self.index(), |state, _| {
            state.finish_sealed(stream, sealed, outcome)
        })
        .unwrap_or_else(no_state)
    }

    /// Sends what is held, as much as is taken.
    ///
    /// # Errors
    /// As of `write(2)`, but for `WouldBlock`.
    #[inline(never)]
    pub fn flush(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        table::with(self.index(), |state, turn| state.flush(stream, turn)).unwrap_or_else(no_state)
    }

    /// Ends our side with close_notify, behind what was written.
    ///
    /// # Errors
    /// As of `write(2)` and `shutdown(2)`, but for `WouldBlock`.
    pub fn shutdown_write(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        table::with(self.index(), |state, turn| {
            state.shutdown_write(stream, turn)
        })
        .unwrap_or_else(no_state)
    }

    /// Whether reading again is worth a call, though no event tells.
    #[inline(never)]
    pub fn holds_input(&self) -> bool {
        table::with(self.index(), |state, _| state.holds_input()).unwrap_or(false)
    }

    /// Terms of TLS that were agreed to.
    pub fn secured(&self) -> Option<Secured> {
        table::with(self.index(), |state, _| state.secured()).flatten()
    }

    /// Identity of the peer by its certificate.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        table::with(self.index(), |state, turn| state.identity(turn)).flatten()
    }

    /// Bytes that were written and that the socket did not take.
    #[inline(never)]
    pub fn held_output(&self) -> usize {
        table::with(self.index(), |state, _| state.held_output()).unwrap_or(0)
    }
}

fn no_state<T>() -> io::Result<T> {
    Err(io::ErrorKind::NotConnected.into())
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(index) = self.index() {
            table::leave(index);
        }
    }
}
