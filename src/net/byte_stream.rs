//! What a connection's bytes travel over. The reactor is generic over it, so everything above runs without a socket.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
#[cfg(unix)]
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::greeting::Greeting;
use super::ring::Outcome;
use crate::auth::identity::Identity;
use crate::connection::Secured;
use crate::shared::jobs::Traffic;

/// A stream of bytes in both directions that never blocks: what cannot be done at once is
/// [`WouldBlock`](io::ErrorKind::WouldBlock).
pub trait ByteStream {
    /// Reads what has arrived, up to the buffer's length. 0 is the end of the peer's side.
    ///
    /// # Errors
    /// As of `read(2)`.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as is taken.
    ///
    /// # Errors
    /// As of `write(2)`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes as much as is taken of several pieces.
    ///
    /// # Errors
    /// As of `writev(2)`.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends our side, behind what was written.
    ///
    /// # Errors
    /// As of `shutdown(2)`.
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// Whether a write is a system call and nothing else, as it is for nearly all: such a write is worth a path of its own.
    fn is_bare(&self) -> bool {
        true
    }

    /// Whether bytes wait in it that can be read, of which no event will tell, as plaintext of TLS.
    fn holds_input(&self) -> bool {
        false
    }

    /// How many bytes wait in it that were written, and are to be sent once the socket has room, as records of TLS.
    fn held_output(&self) -> usize {
        0
    }

    /// Sends bytes that wait in it, as many as are taken: the socket has room.
    ///
    /// # Errors
    /// As of `write(2)`, but for `WouldBlock`.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Takes the PROXY header that it begins with, before anything else is read. None: it is not whole yet.
    ///
    /// # Errors
    /// As of [`take`](super::greeting::take).
    fn take_proxy_header(&mut self) -> io::Result<Option<Greeting>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether a handshake comes before the first byte, which costs more than an answer.
    fn has_handshake(&self) -> bool {
        false
    }

    /// Bytes that came in and went out so far, as the kernel counts them. None: it does not tell.
    fn traffic(&self) -> Option<Traffic> {
        None
    }

    /// Who is at the other end, for the log.
    fn peer(&self) -> String {
        "unknown".to_owned()
    }

    /// Address of the other end. None: it has none.
    ///
    /// # Errors
    ///
    /// The other end is gone, though there may be bytes of it to read.
    fn peer_address(&self) -> io::Result<Option<SocketAddr>> {
        Ok(None)
    }

    /// Whoever is at the other end by a certificate that was verified.
    fn identity(&self) -> Option<Arc<Identity>> {
        None
    }

    /// TLS of the stream. None: it has none, or is not through its handshake.
    fn secured(&self) -> Option<Secured> {
        None
    }

    /// Seals bytes behind those in `out`, for a send by [`Ring`](super::ring::Ring). False: they are to be written.
    fn seal(&mut self, _bytes: &[u8], _out: &mut Vec<u8>) -> bool {
        false
    }

    /// Takes the outcome of a send of sealed bytes. They count as written, whatever it is.
    ///
    /// # Errors
    /// As of `write(2)`, but for `WouldBlock`.
    fn finish_sealed(&mut self, _sealed: &[u8], _outcome: &Outcome) -> io::Result<()> {
        Ok(())
    }

    /// The socket that sealed bytes go to.
    #[cfg(unix)]
    fn sealed_descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The socket behind it, for sends by [`Ring`](super::ring::Ring). One without is written to one by one.
    #[cfg(unix)]
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
