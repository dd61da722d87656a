//! A TLS connection, whoever carries it.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::context::Pending;
use super::records::{Outcome, Records};
use super::state::{Socket, TlsState};
use super::table::Turn;
use crate::auth::identity::Identity;
use crate::connection::Secured;
use crate::handler::ConnectionId;

/// A connection in the table.
pub(super) enum TlsConnection {
    /// Its keys are being agreed on, or rustls carries it to its end.
    Begun(Box<TlsState>),
    /// It goes on with records of our own.
    Own(Box<Records>),
}

/// Does the same with whatever carries it.
macro_rules! each {
    ($connection:expr, $it:ident => $body:expr) => {
        match $connection {
            TlsConnection::Begun($it) => $body,
            TlsConnection::Own($it) => $body,
        }
    };
}

impl TlsConnection {
    /// One of which nothing has come.
    pub fn new(id: ConnectionId, listener: u8, pending: Pending) -> TlsConnection {
        TlsConnection::Begun(Box::new(TlsState::new(id, listener, pending)))
    }

    /// Whether reading again is worth a call, though no event tells.
    pub fn holds_input(&self) -> bool {
        each!(self, it => it.holds_input())
    }

    /// Terms of TLS that were agreed to. None: there are none yet.
    pub fn secured(&self) -> Option<Secured> {
        each!(self, it => it.secured())
    }

    /// Identity of the peer by its certificate, which was verified.
    pub fn identity(&self, turn: &Turn) -> Option<Arc<Identity>> {
        match self {
            TlsConnection::Begun(state) => state.identity(turn),
            TlsConnection::Own(records) => records.identity(),
        }
    }

    /// Bytes that were written and that the socket did not take.
    pub fn held_output(&self) -> usize {
        each!(self, it => it.held_output())
    }

    /// Reads plaintext. 0: the peer's side has ended, and all that was written has been sent.
    pub fn read(
        &mut self,
        socket: &mut impl Socket,
        turn: &mut Turn,
        out: &mut [u8],
    ) -> io::Result<usize> {
        if let TlsConnection::Begun(state) = self {
            let outcome = state.read(socket, turn, out);
            let Some(records) = state.take_records() else {
                return outcome;
            };
            // Memory of the handshake goes before anything of the records comes.
            *self = TlsConnection::Own(records);
            self.flush(socket, turn)?;
        }
        each!(self, it => it.read(socket, turn, out))
    }

    /// Writes plaintext; all pieces share records. What was encrypted counts as written.
    pub fn write(
        &mut self,
        socket: &mut impl Socket,
        turn: &mut Turn,
        pieces: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        each!(self, it => it.write(socket, turn, pieces))
    }

    /// Seals bytes behind those in `out`, for a send by a ring. False: they are to be written.
    pub fn seal(&mut self, turn: &mut Turn, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            TlsConnection::Begun(_) => false,
            TlsConnection::Own(records) => records.seal(turn, bytes, out),
        }
    }

    /// Takes the outcome of such a send.
    pub fn finish_sealed(
        &mut self,
        socket: &mut impl Socket,
        sealed: &[u8],
        outcome: &Outcome,
    ) -> io::Result<()> {
        match self {
            TlsConnection::Begun(_) => Err(io::ErrorKind::InvalidInput.into()),
            TlsConnection::Own(records) => records.finish_sealed(socket, sealed, outcome),
        }
    }

    /// Sends what is held. If it is to end, our side ends behind it.
    pub fn flush(&mut self, socket: &mut impl Socket, turn: &mut Turn) -> io::Result<()> {
        each!(self, it => it.flush(socket, turn))
    }

    /// Ends our side behind what was written.
    pub fn shutdown_write(&mut self, socket: &mut impl Socket, turn: &mut Turn) -> io::Result<()> {
        each!(self, it => it.shutdown_write(socket, turn))
    }

    /// The connection is freed.
    pub fn finish(self, turn: &mut Turn) {
        match self {
            TlsConnection::Begun(state) => state.finish(turn),
            TlsConnection::Own(mut records) => records.finish(turn),
        }
    }
}
