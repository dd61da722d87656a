//! The transports of a server: what its listeners accept.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};

use mio::event::Source;
use mio::net::TcpStream;
#[cfg(unix)]
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::byte_stream::ByteStream;

/// What a connection of a server travels over, in eight bytes, for it stands in every slot.
///
/// TLS is to be one more variant, of the stream alone, with [`holds_input`](ByteStream::holds_input) and
/// [`holds_output`](ByteStream::holds_output) of its own. What it keeps for a connection is to stand in a table of the
/// reactor beside the slab, by the slot's index, so that a slot grows for nobody.
#[derive(Debug)]
pub enum Transport {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

// mio keeps more of a socket where it looks after mistakes.
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Transport>() <= 8);

/// Does the same with whatever it is.
macro_rules! each {
    ($transport:expr, $stream:ident => $body:expr) => {
        match $transport {
            Transport::Tcp($stream) => $body,
            #[cfg(unix)]
            Transport::Unix($stream) => $body,
        }
    };
}

impl ByteStream for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        each!(self, stream => stream.read(buffer))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, stream => stream.write(bytes))
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        each!(self, stream => stream.write_vectored(pieces))
    }

    /// An address; of an IPv4 peer the IPv4 one, whatever the socket is. Of a unix socket the peer's process and user.
    fn peer(&self) -> String {
        match self {
            Transport::Tcp(stream) => match stream.peer_addr() {
                Ok(address) => {
                    SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
                }
                Err(_) => "gone".to_owned(),
            },
            #[cfg(unix)]
            Transport::Unix(stream) => super::unix::peer(stream),
        }
    }

    fn peer_address(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Transport::Tcp(stream) => stream.peer_addr().map(Some),
            #[cfg(unix)]
            Transport::Unix(_) => Ok(None),
        }
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        each!(self, stream => stream.shutdown(Shutdown::Write))
    }

    #[cfg(unix)]
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        each!(self, stream => Some(stream.as_fd()))
    }
}

impl Source for Transport {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        each!(self, stream => stream.register(registry, token, interests))
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        each!(self, stream => stream.reregister(registry, token, interests))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        each!(self, stream => stream.deregister(registry))
    }
}
