//! From the listeners that were asked for to the sockets of each reactor.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
#[cfg(unix)]
use std::os::unix::net::UnixListener;

use socket2::SockRef;

use super::acceptor::Acceptor;
use super::tcp;
#[cfg(unix)]
use super::unix::{self, SocketFile};
use crate::config::{LISTENERS_MAX, Limits, ListenAddress};

// Its number stands in a byte of every slot.
const _: () = assert!(LISTENERS_MAX <= 256);

/// How often the system is asked for a port that is free on both loopback addresses.
const PORT_TRIES_MAX: usize = 16;

/// A listening socket that another program made, and that this one was given.
#[derive(Debug)]
#[non_exhaustive]
pub enum InheritedSocket {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket. Its file stays when the server ends, for it is not the server's.
    #[cfg(unix)]
    Unix(UnixListener),
}

impl From<TcpListener> for InheritedSocket {
    fn from(listener: TcpListener) -> InheritedSocket {
        InheritedSocket::Tcp(listener)
    }
}

#[cfg(unix)]
impl From<UnixListener> for InheritedSocket {
    fn from(listener: UnixListener) -> InheritedSocket {
        InheritedSocket::Unix(listener)
    }
}

/// What is the same for all listeners of a server.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// How many reactors accept.
    pub reactors: usize,
    /// Whether each of them has a socket of its own where the system can share a port.
    pub shares_ports: bool,
    /// The sockets' options.
    pub limits: &'a Limits,
    /// Whether IPv6 addresses take no IPv4 peers.
    pub ipv6_only: bool,
    /// Scheme of its URLs.
    pub scheme: &'static str,
}

/// A listener that has its address.
#[derive(Debug)]
pub struct Bound {
    /// Its address, of the first socket. None where it has no IP address.
    pub address: Option<SocketAddr>,
    /// Where it listens, for the log.
    pub place: String,
    /// Its sockets, each with the number of the reactor that accepts from it.
    pub acceptors: Vec<(usize, Acceptor)>,
    /// Its file.
    #[cfg(unix)]
    pub file: Option<SocketFile>,
}

impl Binding<'_> {
    /// Takes the address of listener `number`. A socket that is alone is accepted from by one reactor, which hands over to
    /// the others; which one goes by the number. `inherited`: those sockets that have the listener's name.
    ///
    /// # Errors
    /// As of `bind(2)` and `listen(2)`; `AddrInUse` where another program listens.
    pub fn bind(
        &self,
        number: usize,
        address: &ListenAddress,
        inherited: Vec<InheritedSocket>,
    ) -> io::Result<Bound> {
        match address {
            ListenAddress::Tcp(address) => {
                let (address, sockets) = self.listen(*address)?;
                Ok(self.bound(number, Some(address), self.url(address), sockets))
            }
            ListenAddress::Localhost(port) => self.bind_localhost(number, *port),
            ListenAddress::Inherited(name) => self.adopt(number, name, inherited),
            #[cfg(unix)]
            ListenAddress::Unix { path, mode, group } => {
                let access = unix::FileAccess {
                    mode: *mode,
                    group: group.as_deref(),
                };
                let (socket, file) = unix::listen(path, access, self.limits.backlog)?;
                let place = format!("unix:{}", path.display());
                let mut bound = self.bound(number, None, place, vec![Acceptor::Unix(socket)]);
                bound.file = Some(file);
                Ok(bound)
            }
            #[cfg(not(unix))]
            ListenAddress::Unix { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn url(&self, address: SocketAddr) -> String {
        format!("{}://{address}", self.scheme)
    }

    fn listen(&self, address: SocketAddr) -> io::Result<(SocketAddr, Vec<Acceptor>)> {
        let (address, sockets) = tcp::listen(
            address,
            self.reactors,
            self.shares_ports,
            self.ipv6_only,
            self.limits,
        )?;
        Ok((address, sockets.into_iter().map(Acceptor::Tcp).collect()))
    }

    /// Deals sockets to the reactors.
    fn bound(
        &self,
        number: usize,
        address: Option<SocketAddr>,
        place: String,
        sockets: Vec<Acceptor>,
    ) -> Bound {
        let first = if sockets.len() > 1 { 0 } else { number };
        let reactors = (first..).map(|reactor| reactor % self.reactors);
        Bound {
            address,
            place,
            acceptors: reactors.zip(sockets).collect(),
            #[cfg(unix)]
            file: None,
        }
    }

    /// Both loopback addresses, on one port.
    fn bind_localhost(&self, number: usize, port: u16) -> io::Result<Bound> {
        let mut tries = 1..;
        loop {
            let (address, sockets) = self.listen((Ipv4Addr::LOCALHOST, port).into())?;
            let place = self.url(address);
            let mut bound = self.bound(number, Some(address), place, sockets);
            let error = match self.listen((Ipv6Addr::LOCALHOST, address.port()).into()) {
                Ok((second, sockets)) => {
                    let more = self.bound(number, Some(second), String::new(), sockets);
                    bound.place = format!("{} and {}", bound.place, self.url(second));
                    bound.acceptors.extend(more.acceptors);
                    return Ok(bound);
                }
                Err(error) => error,
            };
            match error.kind() {
                // The system chose a port by what is free on the one address.
                io::ErrorKind::AddrInUse if port == 0 && tries.next() < Some(PORT_TRIES_MAX) => {}
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => return Err(error),
                _ => {
                    log::info!("localhost is 127.0.0.1 alone, for there is no ::1: {error}");
                    return Ok(bound);
                }
            }
        }
    }

    fn adopt(
        &self,
        number: usize,
        name: &str,
        inherited: Vec<InheritedSocket>,
    ) -> io::Result<Bound> {
        if inherited.is_empty() {
            let reason = format!(
                "no socket of the name {name} was handed over; a socket unit of systemd with FileDescriptorName={name} \
                 does, or else listen on an address"
            );
            return Err(io::Error::new(io::ErrorKind::NotFound, reason));
        }
        let mut address = None;
        let sockets = inherited.into_iter().map(|socket| match socket {
            InheritedSocket::Tcp(listener) => {
                check_listens(&SockRef::from(&listener))?;
                address = address.or(listener.local_addr().ok());
                Ok(Acceptor::Tcp(tcp::adopt(listener, self.limits)?))
            }
            #[cfg(unix)]
            InheritedSocket::Unix(listener) => {
                check_listens(&SockRef::from(&listener))?;
                listener.set_nonblocking(true)?;
                Ok(Acceptor::Unix(mio::net::UnixListener::from_std(listener)))
            }
        });
        let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
        let place = match address {
            Some(address) => self.url(address),
            None => format!("fd:{name}"),
        };
        Ok(self.bound(number, address, place, sockets))
    }
}

fn check_listens(socket: &SockRef<'_>) -> io::Result<()> {
    match socket.is_listener()? {
        true => Ok(()),
        false => {
            let reason = "the socket that was handed over does not listen";
            Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
        }
    }
}
