//! The network between peers and nodes: it cuts, delays, stalls, resets and swallows, and tells the node's side what
//! epoll would tell it, edge-triggered.
//!
//! ```text
//!  peer ── up.flight ──► up.arrived ──► ByteStream::read         flight: on its way, and counted as the sender's
//!       ◄─ down.arrived ◄── down.flight ◄─ ByteStream::write     arrived: in the receiver's socket
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;

use umbel::handler::ConnectionId;
use umbel::internals::net::byte_stream::ByteStream;
use umbel::internals::net::driver::Readiness;

use super::random::Random;

enum Packet {
    Bytes(Vec<u8>),
    Fin,
}

/// One direction of a link.
pub struct Direction {
    flight: VecDeque<(u64, Packet)>,
    /// Sent and not arrived: what fills the sender's socket buffer.
    flight_bytes: usize,
    send_max: usize,
    pub arrived: VecDeque<u8>,
    arrived_max: usize,
    pub fin_arrived: bool,
    fin_sent: bool,
    latency_ms_max: u64,
    stalled_until_ms: u64,
}

impl Direction {
    fn new(random: &mut Random, latency_ms_max: u64) -> Direction {
        // A window too small for its latency is slower than the deadlines allow.
        let bytes_min = if latency_ms_max > 0 { 800 } else { 64 };
        Direction {
            flight: VecDeque::new(),
            flight_bytes: 0,
            send_max: random.within(bytes_min, 2000) as usize,
            arrived: VecDeque::new(),
            arrived_max: random.within(bytes_min, 2000) as usize,
            fin_arrived: false,
            fin_sent: false,
            latency_ms_max,
            stalled_until_ms: 0,
        }
    }

    pub fn room(&self) -> usize {
        self.send_max - self.flight_bytes
    }

    /// Sends as much as the socket buffer takes, cut into pieces.
    fn send(&mut self, bytes: &[u8], now_ms: u64, random: &mut Random) -> usize {
        let taken = bytes.len().min(self.room());
        let mut rest = &bytes[..taken];
        while !rest.is_empty() {
            let len = match random.below(4) {
                0 => 1,
                1 => 1 + random.below(16),
                _ => rest.len(),
            };
            let (piece, tail) = rest.split_at(len.min(rest.len()));
            let at_ms = self.arrival_ms(now_ms, random);
            self.flight
                .push_back((at_ms, Packet::Bytes(piece.to_vec())));
            rest = tail;
        }
        self.flight_bytes += taken;
        taken
    }

    fn send_fin(&mut self, now_ms: u64, random: &mut Random) {
        if !self.fin_sent {
            self.fin_sent = true;
            let at_ms = self.arrival_ms(now_ms, random);
            self.flight.push_back((at_ms, Packet::Fin));
        }
    }

    fn arrival_ms(&self, now_ms: u64, random: &mut Random) -> u64 {
        let last_ms = self.flight.back().map_or(0, |(at_ms, _)| *at_ms);
        let latency_ms = match random.chance(50) {
            true => 0,
            false => random.within(0, self.latency_ms_max),
        };
        last_ms.max(now_ms + latency_ms)
    }

    /// When the next packet can arrive; None while there is none, or no room for it.
    pub fn next_ms(&self) -> Option<u64> {
        let (at_ms, packet) = self.flight.front()?;
        let has_room = self.arrived.len() < self.arrived_max || matches!(packet, Packet::Fin);
        has_room.then_some((*at_ms).max(self.stalled_until_ms))
    }

    /// Lets one packet arrive, as far as there is room.
    fn arrive(&mut self) {
        let room = self.arrived_max - self.arrived.len().min(self.arrived_max);
        match self.flight.pop_front() {
            Some((at_ms, Packet::Bytes(mut bytes))) => {
                let rest = bytes.split_off(bytes.len().min(room));
                self.flight_bytes -= bytes.len();
                self.arrived.extend(bytes);
                if !rest.is_empty() {
                    self.flight.push_front((at_ms, Packet::Bytes(rest)));
                }
            }
            Some((_, Packet::Fin)) => self.fin_arrived = true,
            None => {}
        }
    }

    fn purge(&mut self) {
        self.flight.clear();
        self.flight_bytes = 0;
    }
}

/// A connection between a peer and a node.
pub struct Link {
    pub up: Direction,
    pub down: Direction,
    random: Random,
    now_ms: u64,
    /// The network gave up on it, and both sides are told.
    pub reset: bool,
    /// It swallows everything, and nobody is told.
    pub swallows: bool,
    /// Faults befell it that let timeouts strike.
    pub disturbed: bool,
    /// The node closed its socket.
    pub node_closed: bool,
    /// The node closed its socket with unread bytes in it, or was sent more afterwards: the peer gets a reset.
    pub node_reset: bool,
    node_shut: bool,
    error_told: bool,
    /// The node read to the end.
    end_told: bool,
    /// A write came short, so that new room is an edge.
    pub wants_room: bool,
    /// It stands in the node's list of events.
    pub is_queued: bool,
    pub bytes_read: u64,
    pub bytes_written: u64,
}

impl Link {
    pub fn new(random: &mut Random) -> Rc<RefCell<Link>> {
        let latency_ms_max = *random.pick(&[0, 1, 3]);
        Rc::new(RefCell::new(Link {
            up: Direction::new(random, latency_ms_max),
            down: Direction::new(random, latency_ms_max),
            random: Random::new(random.next()),
            now_ms: 0,
            reset: false,
            swallows: false,
            disturbed: false,
            node_closed: false,
            node_reset: false,
            node_shut: false,
            error_told: false,
            end_told: false,
            wants_room: false,
            is_queued: false,
            bytes_read: 0,
            bytes_written: 0,
        }))
    }

    pub fn set_now(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// The peer sends.
    pub fn peer_send(&mut self, bytes: &[u8]) -> usize {
        self.up.send(bytes, self.now_ms, &mut self.random)
    }

    /// The peer ends its side.
    pub fn peer_fin(&mut self) {
        self.up.send_fin(self.now_ms, &mut self.random);
    }

    /// When something can next arrive at either end.
    pub fn next_ms(&self) -> Option<u64> {
        if self.swallows || self.reset {
            return None;
        }
        match (self.up.next_ms(), self.down.next_ms()) {
            (Some(up_ms), Some(down_ms)) => Some(up_ms.min(down_ms)),
            (up_ms, down_ms) => up_ms.or(down_ms),
        }
    }

    /// Lets one packet arrive in each direction where one is due. True: an edge for the node.
    pub fn transfer(&mut self) -> bool {
        let is_due = |next_ms: Option<u64>| next_ms.is_some_and(|at_ms| at_ms <= self.now_ms);
        let (up, down) = (is_due(self.up.next_ms()), is_due(self.down.next_ms()));
        let mut edge = false;
        if up {
            self.up.arrive();
            edge = true;
            if self.node_closed && !self.up.arrived.is_empty() {
                self.up.arrived.clear();
                self.answer_with_reset();
            }
        }
        if down {
            self.down.arrive();
            // The kernel announces room once a third of the buffer is free.
            if self.wants_room && self.down.room() * 3 >= self.down.send_max {
                self.wants_room = false;
                edge = true;
            }
        }
        edge && !self.node_closed
    }

    pub fn break_off(&mut self) {
        self.reset = true;
        self.disturbed = true;
        self.up.purge();
        self.down.purge();
    }

    pub fn stall(&mut self, up: bool, until_ms: u64) {
        let direction = if up { &mut self.up } else { &mut self.down };
        direction.stalled_until_ms = until_ms;
        self.disturbed = true;
    }

    pub fn heal(&mut self) {
        self.up.stalled_until_ms = 0;
        self.down.stalled_until_ms = 0;
    }

    /// What epoll reports of the connection that has this link.
    pub fn readiness(&self, id: ConnectionId) -> Readiness {
        let ended = self.up.fin_arrived || self.reset;
        Readiness {
            id,
            readable: !self.up.arrived.is_empty() || ended,
            writable: self.down.room() > 0 || self.reset,
            ended,
        }
    }

    /// Whether the node has not read all that it could.
    pub fn has_unread(&self) -> bool {
        let has_end = self.up.fin_arrived && !self.end_told;
        let has_error = self.reset && !self.error_told;
        !self.up.arrived.is_empty() || has_end || has_error
    }

    fn answer_with_reset(&mut self) {
        self.node_reset = true;
        self.down.purge();
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!self.node_shut, "written behind the end of the stream");
        if self.reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = self.down.send(bytes, self.now_ms, &mut self.random);
        self.bytes_written += taken as u64;
        self.wants_room |= taken < bytes.len();
        match taken {
            0 if !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        }
    }
}

/// The node's end of a link.
pub struct Socket {
    /// The link's number.
    pub index: usize,
    pub link: Rc<RefCell<Link>>,
}

impl ByteStream for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut link = self.link.borrow_mut();
        if link.random.chance(2) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if link.up.arrived.is_empty() {
            if link.reset && !link.error_told {
                link.error_told = true;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if !link.up.fin_arrived && !link.reset {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            link.end_told = true;
            return Ok(0);
        }
        let count = buffer.len().min(link.up.arrived.len());
        for (slot, byte) in buffer.iter_mut().zip(link.up.arrived.drain(..count)) {
            *slot = byte;
        }
        link.bytes_read += count as u64;
        Ok(count)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut link = self.link.borrow_mut();
        if link.random.chance(2) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        link.write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        assert!(!pieces.is_empty(), "a write of nothing is a wasted call");
        let mut link = self.link.borrow_mut();
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        link.write(&bytes)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        let mut link = self.link.borrow_mut();
        let link = &mut *link;
        if link.reset {
            return Err(io::ErrorKind::NotConnected.into());
        }
        assert!(!link.node_shut, "the stream is ended once");
        link.node_shut = true;
        link.down.send_fin(link.now_ms, &mut link.random);
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut link = self.link.borrow_mut();
        let link = &mut *link;
        link.node_closed = true;
        if link.up.arrived.is_empty() {
            link.down.send_fin(link.now_ms, &mut link.random);
        } else {
            link.answer_with_reset();
        }
    }
}
