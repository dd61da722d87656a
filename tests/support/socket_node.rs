//! A node over sockets: one reactor with its event loop and the hub's shards, on the thread that calls the ticks.
//!
//! Its connections are socket pairs, handed to the reactor as another reactor would. The kernel passes bytes from end to
//! end within the call that writes them, so what one tick does is the same in every run. io_uring is off, for callgrind
//! does not know it: publications are written one by one.

#![allow(dead_code, reason = "each test or bench that includes it uses a part")]

use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};
use mio::net::TcpStream;

use umbel::config::Limits;
use umbel::internals::connection::Settings;
use umbel::internals::hub::{Command, Kind, Origin, Publication, ReactorId};
use umbel::internals::mailbox::mailbox;
use umbel::internals::net::balance::{Balance, Incoming};
use umbel::internals::net::clock::ProcessClock;
use umbel::internals::net::listener::Listeners;
use umbel::internals::net::mio_driver::{MioDriver, Selector};
use umbel::internals::net::transport::Transport;
use umbel::internals::reactor::{Context, Reactor};
use umbel::internals::topic::Topic;
use umbel::internals::worker::Shards;

use super::node::shared;

/// Bytes that a peer reads at a time.
const READ_BYTES: usize = 1 << 16;

/// Sockets that wait to be taken up.
const HANDOVER_MAX: usize = 1024;

const CONNECTIONS_MAX: usize = 1 << 20;

/// The node.
pub struct SocketNode {
    reactor: Reactor<MioDriver>,
    handover: Sender<Incoming>,
    balance: Arc<Balance>,
    shards: Arc<Shards>,
    /// Connections that the reactor takes up in one tick.
    accepts_per_tick_max: usize,
    buffer: Box<[u8]>,
}

impl SocketNode {
    /// A node without connections, with `/echo` besides the topics.
    pub fn new(limits: &Limits) -> SocketNode {
        // Each connection takes a descriptor at either end.
        rlimit::increase_nofile_limit(u64::MAX).expect("descriptors");
        let id = ReactorId(0);
        let selector = Selector::new().expect("an event loop");
        let (outlet, inbox) = mailbox(
            id,
            limits.mailbox_messages_max,
            limits.mailbox_bytes_max,
            selector.wake(),
        );
        let (handover, handed) = bounded(HANDOVER_MAX);
        // The only reactor hands nothing over, so it wakes nobody.
        let wake = Box::new(|| {});
        let balance = Arc::new(Balance::new(vec![handover.clone()], vec![wake]));
        let listeners = Listeners::new(Vec::new(), handed, Arc::clone(&balance), id, limits);
        let shared = shared(Settings::new(limits), Box::new(outlet));
        let shards = Arc::clone(&shared.shards);
        let driver = MioDriver::new(selector, listeners, id, &shared, ProcessClock::begin());
        let context = Context {
            shared,
            reactors: 1,
            connections_max: CONNECTIONS_MAX,
        };
        let mut reactor = Reactor::new(driver, inbox, id, context);
        reactor.start().expect("nothing to register");
        SocketNode {
            reactor,
            handover,
            balance,
            shards,
            accepts_per_tick_max: limits.accepts_per_tick_max,
            buffer: vec![0; READ_BYTES].into(),
        }
    }

    /// Runs one tick of the reactor.
    pub fn tick(&mut self) {
        let is_running = self.reactor.tick().expect("events");
        assert!(is_running);
    }

    /// Opens connections that begin with these bytes, and runs the ticks that take them up, read and answer.
    pub fn open(&mut self, count: usize, first: &[u8]) -> Vec<UnixStream> {
        let peers = (0..count)
            .map(|_| {
                let (mut peer, end) = UnixStream::pair().expect("a socket pair");
                peer.set_nonblocking(true).expect("a socket");
                end.set_nonblocking(true).expect("a socket");
                peer.write_all(first).expect("room");
                let end = StdStream::from(OwnedFd::from(end));
                let incoming = Incoming {
                    transport: Transport::Tcp(TcpStream::from_std(end)),
                    listener: 0,
                };
                self.handover.send(incoming).expect("room");
                peer
            })
            .collect();
        // Those of the last tick are read in the one behind it.
        for _ in 0..count.div_ceil(self.accepts_per_tick_max) + 1 {
            self.tick();
        }
        peers
    }

    /// Connections that the reactor holds.
    pub fn len(&self) -> usize {
        self.balance.total()
    }

    /// Publishes a text as another thread does, and runs the tick that delivers it.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) {
        let command = Command::Publish {
            topic: Topic::from_text(topic).expect("a topic"),
            publication: Arc::new(Publication::new(Kind::Text, payload, 0)),
            origin: Origin::Detached,
        };
        self.shards.submit(command, None).expect("room");
        self.tick();
    }

    /// Bytes come from a peer, in one read, and their tick is run.
    pub fn send(&mut self, peer: &mut UnixStream, bytes: &[u8]) {
        peer.write_all(bytes).expect("room");
        self.tick();
    }

    /// Bytes that a peer was sent since it last looked, as far as one read gives them.
    pub fn received(&mut self, peer: &mut UnixStream) -> &[u8] {
        let count = peer.read(&mut self.buffer).expect("something has come");
        &self.buffer[..count]
    }
}
