//! A client of rustls and a server's side, over memory. The socket between them splits and blocks as it is told.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::*;
use crate::config::Limits;
use crate::metrics::tls::TlsCounts;
use crate::tls::connection::TlsConnection;
use crate::tls::context::TlsContext;
use crate::tls::server_config::carry_on_without_rustls;

thread_local! {
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// Whether connections of this thread go on with records of our own.
pub fn is_own() -> bool {
    OWN.get()
}

/// Runs a test over rustls, and over records of our own.
pub fn both(test: impl Fn()) {
    for own in [false, true] {
        OWN.set(own);
        test();
    }
}

/// Runs a test over records of our own.
pub fn own(test: impl FnOnce()) {
    OWN.set(true);
    test();
}

/// Numbers that are the same in every run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// The server's end of a connection. As a real one it tells by an edge: when bytes come, and after it has blocked.
pub struct FakeSocket {
    /// Plaintext that has come from the client.
    pub inbound: VecDeque<u8>,
    /// Plaintext that the server has sent.
    pub outbound: Vec<u8>,
    /// The client sends nothing more.
    pub is_closed: bool,
    /// The server has ended its side.
    pub is_ended: bool,
    /// Bytes that may be sent before it blocks.
    pub room: usize,
    /// Chance of blocking for no reason, and most bytes that it takes. None: it does neither.
    pub numbers: Option<Numbers>,
    pub read_blocked: bool,
    pub write_blocked: bool,
    /// Every write fails.
    pub is_broken: bool,
}

impl Read for FakeSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.inbound.len());
        let blocks = self.numbers.as_mut().is_some_and(|it| it.below(4) == 0);
        if count == 0 && self.is_closed && !blocks {
            return Ok(0);
        }
        if count == 0 || blocks {
            self.read_blocked = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for (to, from) in buffer.iter_mut().zip(self.inbound.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }
}

impl Write for FakeSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!self.is_ended, "nothing is sent behind the end");
        if self.is_broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let mut count = bytes.len().min(self.room);
        if let Some(numbers) = &mut self.numbers {
            count = match numbers.below(4) {
                0 => 0,
                1 => count.min(1 + numbers.below(9)),
                _ => count,
            };
        }
        if count == 0 && !bytes.is_empty() {
            self.write_blocked = true;
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

impl Socket for FakeSocket {
    fn end(&mut self) -> io::Result<()> {
        self.is_ended = true;
        Ok(())
    }
}

/// A client, a server's side, and what is between them.
pub struct Pair {
    pub client: ClientConnection,
    pub state: TlsConnection,
    pub turn: Turn,
    pub socket: FakeSocket,
    /// Bytes that the client has sent and that have not come.
    pub wire: VecDeque<u8>,
    pub out: Vec<u8>,
    pub at_server: Vec<u8>,
    pub at_client: Vec<u8>,
    /// An event that the server has not seen.
    pub readable: bool,
    pub server_saw_end: bool,
    pub client_saw_end: bool,
    pub error: Option<io::Error>,
}

fn certificate() -> (ServerConfig, RootCertStore) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a pair");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.send_tls13_tickets = 1;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    (config, roots)
}

impl Pair {
    pub fn new() -> Pair {
        Pair::with(rustls::ALL_VERSIONS, |_| {})
    }

    pub fn with(
        versions: &[&'static rustls::SupportedProtocolVersion],
        change: impl FnOnce(&mut ClientConfig),
    ) -> Pair {
        let (mut config, roots) = certificate();
        if is_own() {
            carry_on_without_rustls(&mut config);
        }
        let config = Arc::new(config);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        change(&mut client);
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
        client.set_buffer_limit(None);
        let limits = Limits::default();
        let terms = Box::new(move |_| Arc::clone(&config));
        let context = TlsContext::new(terms, Arc::new(TlsCounts::default()), &limits);
        let turn = Turn::new(
            Arc::new(context),
            limits.read_budget_bytes,
            Arc::new(|| true),
        );
        let pending = turn.context.begin_handshake().expect("room for one");
        let id = ConnectionId {
            reactor: 0,
            index: 3,
            generation: 1,
        };
        Pair {
            client,
            state: TlsConnection::new(id, 0, pending),
            turn,
            socket: FakeSocket {
                inbound: VecDeque::new(),
                outbound: Vec::new(),
                is_closed: false,
                is_ended: false,
                room: usize::MAX,
                numbers: None,
                read_blocked: false,
                write_blocked: false,
                is_broken: false,
            },
            wire: VecDeque::new(),
            out: vec![0; 262_144],
            at_server: Vec::new(),
            at_client: Vec::new(),
            readable: false,
            server_saw_end: false,
            client_saw_end: false,
            error: None,
        }
    }

    /// A pair whose handshake is done.
    pub fn open() -> Pair {
        let mut pair = Pair::new();
        pair.run();
        assert!(!pair.client.is_handshaking());
        pair
    }

    /// Brings bytes of the client to the server's socket. So many at most.
    pub fn arrive(&mut self, most: usize) {
        let mut sent = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut sent).expect("memory");
        }
        self.wire.extend(sent);
        let count = self.wire.len().min(most);
        self.readable |= count > 0;
        self.socket.inbound.extend(self.wire.drain(..count));
    }

    /// Reads as the reactor does: on an event, or where it is told that more waits.
    pub fn read(&mut self) {
        self.turn.begin_tick();
        let is_called = !self.turn.take_again().is_empty();
        if is_called && self.state.held_output() > 0 {
            self.flush();
        }
        if !std::mem::take(&mut self.readable) && !is_called {
            return;
        }
        loop {
            let outcome = self
                .state
                .read(&mut self.socket, &mut self.turn, &mut self.out);
            match outcome {
                Ok(0) => {
                    self.server_saw_end = true;
                    return;
                }
                Ok(count) => {
                    self.at_server.extend_from_slice(&self.out[..count]);
                    if count < self.out.len() && !self.state.holds_input() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.error = Some(error);
                    return;
                }
            }
        }
    }

    pub fn flush(&mut self) {
        let outcome = self.state.flush(&mut self.socket, &mut self.turn);
        outcome.expect("the socket does not fail");
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let pieces = [IoSlice::new(bytes)];
        self.state.write(&mut self.socket, &mut self.turn, &pieces)
    }

    /// The client takes what the server has sent.
    pub fn take(&mut self) {
        let sent = std::mem::take(&mut self.socket.outbound);
        let mut rest = &sent[..];
        while !rest.is_empty() {
            if self.client.read_tls(&mut rest).expect("memory") == 0 {
                break;
            }
            match self.client.process_new_packets() {
                Ok(state) => self.client_saw_end |= state.peer_has_closed(),
                Err(error) => self.error = Some(io::Error::other(error)),
            }
            // Its end is looked at above.
            let _ = self.client.reader().read_to_end(&mut self.at_client);
        }
        if self.socket.is_ended && !self.client_saw_end {
            self.client.read_tls(&mut &[][..]).expect("memory");
        }
    }

    /// Lets everything come that is on its way.
    pub fn run(&mut self) {
        for _ in 0..20 {
            self.arrive(usize::MAX);
            self.read();
            if std::mem::take(&mut self.socket.write_blocked) && self.state.held_output() > 0 {
                self.flush();
            }
            self.take();
        }
    }

    pub fn handshakes(&self) -> String {
        format!("{:?}", self.turn.context.counts)
    }
}
