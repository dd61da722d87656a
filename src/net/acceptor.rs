//! Listening sockets: what a reactor accepts from.

use std::io;

use mio::event::Source;
use mio::net::TcpListener;
#[cfg(unix)]
use mio::net::UnixListener;
use mio::{Interest, Registry, Token};

use super::transport::Transport;

/// A listening socket of any kind.
#[derive(Debug)]
pub enum Acceptor {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    #[cfg(unix)]
    Unix(UnixListener),
}

/// Does the same with whatever it is.
macro_rules! each {
    ($acceptor:expr, $listener:ident => $body:expr) => {
        match $acceptor {
            Acceptor::Tcp($listener) => $body,
            #[cfg(unix)]
            Acceptor::Unix($listener) => $body,
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
