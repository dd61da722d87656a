//! Listening sockets: what a reactor accepts from.

use std::io;

use mio::event::Source;
use mio::net::TcpListener;
#[cfg(unix)]
use mio::net::UnixListener;
use mio::{Interest, Registry, Token};

use super::transport::Transport;
#[cfg(feature = "tls")]
use crate::tls::place::Place;

/// A listening socket of any kind.
#[derive(Debug)]
pub enum Acceptor {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    #[cfg(unix)]
    Unix(UnixListener),
    /// TCP, on which TLS is spoken, of the listener of this number.
    #[cfg(feature = "tls")]
    Tls(TcpListener, u8),
}

/// Does the same with whatever it is.
macro_rules! each {
    ($acceptor:expr, $listener:ident => $body:expr) => {
        match $acceptor {
            Acceptor::Tcp($listener) => $body,
            #[cfg(unix)]
            Acceptor::Unix($listener) => $body,
            #[cfg(feature = "tls")]
            Acceptor::Tls($listener, _) => $body,
        }
    };
}

impl Acceptor {
    /// Takes the next connection that waits.
    ///
    /// # Errors
    /// As of `accept(2)`.
    pub fn accept(&self) -> io::Result<Transport> {
        match self {
            Acceptor::Tcp(listener) => Ok(Transport::Tcp(listener.accept()?.0)),
            #[cfg(unix)]
            Acceptor::Unix(listener) => Ok(Transport::Unix(listener.accept()?.0)),
            #[cfg(feature = "tls")]
            Acceptor::Tls(listener, number) => Ok(Transport::Tls {
                place: Place::accepted(*number),
                stream: listener.accept()?.0,
            }),
        }
    }

    /// This one, as a socket of the listener of this number, on which TLS is spoken.
    ///
    /// # Errors
    /// It is a unix socket.
    #[cfg(feature = "tls")]
    pub fn with_tls(self, number: u8) -> io::Result<Acceptor> {
        match self {
            Acceptor::Tcp(listener) | Acceptor::Tls(listener, _) => {
                Ok(Acceptor::Tls(listener, number))
            }
            #[cfg(unix)]
            Acceptor::Unix(_) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "TLS is spoken over TCP, and this is a unix socket",
            )),
        }
    }
}

impl Source for Acceptor {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        each!(self, listener => listener.register(registry, token, interests))
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        each!(self, listener => listener.reregister(registry, token, interests))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        each!(self, listener => listener.deregister(registry))
    }
}
