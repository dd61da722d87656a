//! The transports of a server: what its listeners accept.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use mio::event::Source;
use mio::net::TcpStream;
#[cfg(unix)]
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::byte_stream::ByteStream;
use super::greeting::{self, Greeting};
use super::ring::Outcome;
use crate::auth::identity::Identity;
use crate::connection::Secured;
use crate::shared::jobs::Traffic;
#[cfg(feature = "tls")]
use crate::tls::place::Place;

/// What a connection of a server travels over, in eight bytes, for it stands in every slot.
///
/// What TLS keeps for a connection stands in a table of the reactor's thread beside the slab, by the slot's index, so that a
/// slot grows for nobody.
#[derive(Debug)]
pub enum Transport {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
    /// TLS over TCP.
    #[cfg(feature = "tls")]
    Tls {
        /// Where its state stands.
        place: Place,
        /// The stream of its records.
        stream: TcpStream,
    },
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
            #[cfg(feature = "tls")]
            Transport::Tls {
                stream: $stream, ..
            } => $body,
        }
    };
}

/// TLS, by a call for which nothing is prepared: so plain streams cost what they cost without it.
#[cfg(feature = "tls")]
impl Transport {
    #[cold]
    #[inline(never)]
    fn read_tls(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Tls { place, stream } => place.read(stream, buffer),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    #[cold]
    #[inline(never)]
    fn write_tls(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored_tls(&[IoSlice::new(bytes)])
    }

    #[cold]
    #[inline(never)]
    fn write_vectored_tls(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Transport::Tls { place, stream } => place.write(stream, pieces),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl ByteStream for Transport {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if matches!(self, Transport::Tls { .. }) {
            return self.read_tls(buffer);
        }
        each!(self, stream => stream.read(buffer))
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if matches!(self, Transport::Tls { .. }) {
            return self.write_tls(bytes);
        }
        each!(self, stream => stream.write(bytes))
    }

    #[inline]
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if matches!(self, Transport::Tls { .. }) {
            return self.write_vectored_tls(pieces);
        }
        each!(self, stream => stream.write_vectored(pieces))
    }

    #[inline]
    fn is_bare(&self) -> bool {
        matches!(self, Transport::Tcp(_))
    }

    #[inline]
    fn holds_input(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Transport::Tls { place, .. } => place.holds_input(),
            _ => false,
        }
    }

    #[inline]
    fn held_output(&self) -> usize {
        match self {
            #[cfg(feature = "tls")]
            Transport::Tls { place, .. } => place.held_output(),
            _ => 0,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            #[cfg(feature = "tls")]
            Transport::Tls { place, stream } => place.flush(stream),
            _ => Ok(()),
        }
    }

    /// An address; of an IPv4 peer the IPv4 one, whatever the socket is. Of a unix socket the peer's process and user.
    fn peer(&self) -> String {
        let address_of = |stream: &TcpStream| match stream.peer_addr() {
            Ok(address) => SocketAddr::new(address.ip().to_canonical(), address.port()).to_string(),
            Err(_) => "gone".to_owned(),
        };
        match self {
            Transport::Tcp(stream) => address_of(stream),
            #[cfg(feature = "tls")]
            Transport::Tls { stream, .. } => address_of(stream),
            #[cfg(unix)]
            Transport::Unix(stream) => super::unix::peer(stream),
        }
    }

    fn traffic(&self) -> Option<Traffic> {
        match self {
            Transport::Tcp(stream) => super::tcp_info::traffic(stream),
            #[cfg(feature = "tls")]
            Transport::Tls { stream, .. } => super::tcp_info::traffic(stream),
            #[cfg(unix)]
            Transport::Unix(_) => None,
        }
    }

    fn peer_address(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Transport::Tcp(stream) => stream.peer_addr().map(Some),
            #[cfg(feature = "tls")]
            Transport::Tls { stream, .. } => stream.peer_addr().map(Some),
            #[cfg(unix)]
            Transport::Unix(_) => Ok(None),
        }
    }

    fn take_proxy_header(&mut self) -> io::Result<Option<Greeting>> {
        match self {
            Transport::Tcp(stream) => greeting::take_from_tcp(stream),
            // It stands before the records.
            #[cfg(feature = "tls")]
            Transport::Tls { stream, .. } => greeting::take_from_tcp(stream),
            #[cfg(unix)]
            Transport::Unix(stream) => greeting::take(
                stream,
                |it, buffer| it.try_io(|| greeting::peek(it.as_fd(), buffer)),
                |it, buffer| it.read(buffer),
            ),
        }
    }

    fn has_handshake(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Transport::Tls { .. } => true,
            _ => false,
        }
    }

    fn secured(&self) -> Option<Secured> {
        match self {
            #[cfg(feature = "tls")]
            Transport::Tls { place, .. } => place.secured(),
            _ => None,
        }
    }

    fn identity(&self) -> Option<Arc<Identity>> {
        match self {
            #[cfg(feature = "tls")]
            Transport::Tls { place, .. } => place.identity(),
            _ => None,
        }
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Transport::Tcp(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(unix)]
            Transport::Unix(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(feature = "tls")]
            Transport::Tls { place, stream } => place.shutdown_write(stream),
        }
    }

    fn seal(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Transport::Tls { place, .. } => place.seal(bytes, out),
            _ => {
                let _ = (bytes, out);
                false
            }
        }
    }

    fn finish_sealed(&mut self, sealed: &[u8], outcome: &Outcome) -> io::Result<()> {
        match self {
            #[cfg(feature = "tls")]
            Transport::Tls { place, stream } => place.finish_sealed(stream, sealed, outcome),
            _ => {
                let _ = (sealed, outcome);
                Ok(())
            }
        }
    }

    #[cfg(unix)]
    fn sealed_descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            #[cfg(feature = "tls")]
            Transport::Tls { stream, .. } => Some(stream.as_fd()),
            _ => None,
        }
    }

    #[cfg(unix)]
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        // Whoever sends by it would send plaintext.
        match self {
            Transport::Tcp(stream) => Some(stream.as_fd()),
            Transport::Unix(stream) => Some(stream.as_fd()),
            #[cfg(feature = "tls")]
            Transport::Tls { .. } => None,
        }
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
