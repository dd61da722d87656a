//! One connection of a run: what it is for, and how far it is.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};
use umbel::internals::protocol::ClientRequest;

use super::audit::Audit;
use super::inbound::Inbound;
use super::settings::Settings;
use super::wire::Wire;
use super::writer::Writer;

/// The receive buffer of those that stop reading, so that the server feels it soon.
const STALLED_RECEIVE_BUFFER_BYTES: usize = 4096;

/// Role of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Gets what is published to the topic.
    Subscriber {
        topic: usize,
        /// Stops reading when the measured part begins.
        is_stalled: bool,
    },
    /// Publishes as this publisher, by messages.
    Publisher(u32),
    /// Publishes as this publisher, by HTTP.
    Poster(u32),
    /// Gets back what it sends as this publisher.
    Echo(u32),
    /// Is only there.
    Idle { topic: usize },
}

impl Role {
    /// The publisher that sends over it.
    pub fn publisher(self) -> Option<usize> {
        match self {
            Role::Publisher(index) | Role::Poster(index) | Role::Echo(index) => {
                Some(index as usize)
            }
            Role::Subscriber { .. } | Role::Idle { .. } => None,
        }
    }

    /// Whether it stops reading when the measured part begins.
    pub fn is_stalled(self) -> bool {
        matches!(
            self,
            Role::Subscriber {
                is_stalled: true,
                ..
            }
        )
    }
}

/// State of a connection.
///
/// ```text
///   Closed -> Handshake -> Open -> Closing -> Closed
///      \-------------------^  (posters)
/// ```
#[derive(Debug)]
pub enum State {
    /// There is none, yet or any more.
    Closed,
    /// The request is on its way out, or the response on its way in.
    Handshake(Box<Handshake>),
    /// It does what it is for.
    Open,
    /// One side has sent a close frame.
    Closing,
}

/// An opening handshake without its response.
#[derive(Debug)]
pub struct Handshake {
    pub request: ClientRequest,
    /// Bytes of the response so far.
    pub bytes: Vec<u8>,
}

/// A connection, or a place for one.
#[derive(Debug)]
pub struct Connection {
    pub role: Role,
    pub state: State,
    pub socket: Option<Arc<Wire>>,
    /// Until a publisher takes over.
    pub writer: Writer,
    pub inbound: Inbound,
    /// Bytes of the response to a `POST` so far.
    pub response: Vec<u8>,
    /// One for each publisher of its topic.
    pub audits: Box<[Audit]>,
    /// The first of these publishers.
    pub first_publisher: u32,
    /// Its number in the whole run, which its source address follows from.
    pub number: usize,
    /// Intended time of its connect.
    pub intended_ticks: u64,
}

impl Connection {
    /// A place for connection `number` of the run.
    pub fn new(settings: &Settings, role: Role, number: usize) -> Connection {
        let (first_publisher, audits) = match role {
            Role::Subscriber { topic, .. } => (topic * settings.publishers, settings.publishers),
            Role::Echo(index) => (index as usize, 1),
            Role::Publisher(_) | Role::Poster(_) | Role::Idle { .. } => (0, 0),
        };
        Connection {
            role,
            state: State::Closed,
            socket: None,
            writer: Writer::default(),
            inbound: Inbound::default(),
            response: Vec::new(),
            audits: vec![Audit::default(); audits].into(),
            first_publisher: first_publisher as u32,
            number,
            intended_ticks: 0,
        }
    }

    /// Forgets the socket and its input, but not the audit.
    pub fn reset(&mut self) {
        self.state = State::Closed;
        self.socket = None;
        self.writer = Writer::default();
        self.inbound = Inbound::default();
        self.response = Vec::new();
    }

    /// Begins to connect, with events under this token.
    ///
    /// # Errors
    /// When the system has no socket, or no port on the source address.
    pub fn begin(
        &mut self,
        settings: &Settings,
        registry: &Registry,
        token: Token,
    ) -> io::Result<()> {
        let address = match self.role {
            Role::Poster(_) => settings.publish_address,
            _ => settings.address,
        };
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if self.role.is_stalled() {
            socket.set_recv_buffer_size(STALLED_RECEIVE_BUFFER_BYTES)?;
        }
        if settings.source_addresses > 1 {
            let source = source_address(self.number % settings.source_addresses);
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        if let Err(error) = socket.connect(&address.into())
            && error.raw_os_error() != Some(libc::EINPROGRESS)
        {
            return Err(error);
        }
        let mut socket = TcpStream::from_std(socket.into());
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        let secured = match self.role {
            Role::Poster(_) => &settings.publish_secured,
            _ => &settings.secured,
        };
        self.socket = Some(Arc::new(Wire::new(socket, secured)?));
        Ok(())
    }
}

/// 127.0.0.1 and what follows it.
fn source_address(index: usize) -> IpAddr {
    let first = u32::from(Ipv4Addr::LOCALHOST);
    Ipv4Addr::from(first + index as u32).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_addresses_count_up() {
        let shown = [0, 1, 254, 255].map(|index| source_address(index).to_string());
        assert_eq!(
            shown,
            ["127.0.0.1", "127.0.0.2", "127.0.0.255", "127.0.1.0"]
        );
    }
}
