//! One thread of the load: an event loop over its share of the connections.
//!
//! A tick is: poll, read, count receipts and send what they make room for, connect. What is due at a time, and not
//! by a receipt, is sent by the thread in `pace`, for the poll's timeout is good to a millisecond only.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Token};
use std::sync::atomic::Ordering;
use umbel::internals::protocol::{Opcode, encode_frame};

use super::arguments::Mode;
use super::connection::{Connection, Role, State};
use super::inbound::Search;
use super::process::{Busy, Meter};
use super::publisher::Sender;
use super::record::Record;
use super::settings::Pace;
use super::shared::{Shared, Stage};

/// The token of the waker; others are places of connections.
pub const WAKER: Token = Token(usize::MAX);
/// The read buffer, which all connections of a thread share.
const READ_BUFFER_BYTES: usize = 256 * 1024;
const EVENTS: usize = 1024;
/// How long a poll waits at most, if nothing wakes it.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// The same while connections are made, or refused publications wait.
const POLL_TIMEOUT_BUSY: Duration = Duration::from_millis(1);
/// Handshakes on their way at a time, before the load begins.
const HANDSHAKES_MAX: usize = 256;

/// Result of a thread.
pub struct Outcome {
    pub record: Record,
    pub sender: Sender,
    pub busy: Busy,
}

/// One thread of the load.
pub struct Load {
    pub(super) shared: Arc<Shared>,
    pub(super) thread: usize,
    poll: Poll,
    pub(super) connections: Vec<Connection>,
    buffer: Box<[u8]>,
    pub(super) record: Record,
    pub(super) sender: Sender,
    search: Search,
    /// Receipts of this tick, by publisher, and the publishers that have any.
    receipts: Vec<u32>,
    touched: Vec<u32>,
    /// Publishers whose connections are here.
    publishers: Vec<u32>,
    /// Publishers with a refused request.
    retrying: Vec<u32>,
    /// Connections to make before the load begins, and those of them that were begun.
    initial: usize,
    begun: usize,
    pub(super) handshakes: usize,
    /// Storm: places without a connection, and those with one, the oldest first.
    pub(super) free: Vec<usize>,
    pub(super) ages: VecDeque<usize>,
    /// Storm: connects begun since the load began.
    pub(super) storm_index: u64,
    meter: Meter,
}

impl Load {
    /// A thread with places for connections. The first `initial` are made before the load begins.
    pub fn new(
        shared: Arc<Shared>,
        thread: usize,
        poll: Poll,
        connections: Vec<Connection>,
        initial: usize,
    ) -> Load {
        let search = Search {
            run: shared.run,
            is_whole: shared.settings.searches_frames,
        };
        let publishers = 0..shared.publishers.len() as u32;
        let publishers =
            publishers.filter(|index| shared.publishers[*index as usize].thread == thread);
        Load {
            thread,
            poll,
            buffer: vec![0; READ_BUFFER_BYTES].into(),
            record: Record::new(),
            sender: Sender::new(),
            search,
            receipts: vec![0; shared.publishers.len()],
            touched: Vec::with_capacity(shared.publishers.len()),
            publishers: publishers.collect(),
            retrying: Vec::new(),
            begun: 0,
            handshakes: 0,
            free: (initial..connections.len()).rev().collect(),
            ages: VecDeque::with_capacity(connections.len()),
            initial,
            connections,
            storm_index: 0,
            meter: Meter::default(),
            shared,
        }
    }

    /// Runs until the end.
    ///
    /// # Errors
    /// When the system refuses to poll.
    pub fn run(mut self) -> io::Result<Outcome> {
        let mut events = Events::with_capacity(EVENTS);
        let mut stage = Stage::Connecting;
        loop {
            let timeout = match self.is_making_connections() || !self.retrying.is_empty() {
                true => POLL_TIMEOUT_BUSY,
                false => POLL_TIMEOUT,
            };
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let shared = Arc::clone(&self.shared);
            self.meter.observe(
                shared.now_ticks(),
                shared.measure_start_ticks(),
                shared.measure_end_ticks(),
            );
            for event in &events {
                match event.token() {
                    WAKER => self.pump_all(),
                    Token(place) => {
                        if event.is_writable() {
                            self.flush(place);
                        }
                        if event.is_readable() || event.is_read_closed() {
                            self.handle_readable(place, event.is_read_closed());
                        }
                    }
                }
            }
            self.handle_receipts();
            self.retry();
            let new_stage = shared.stage();
            if new_stage != stage {
                stage = new_stage;
                self.enter(stage);
            }
            self.connect_due(stage);
            self.publish_progress();
            if stage == Stage::Ended {
                return Ok(self.finish());
            }
        }
    }

    fn is_making_connections(&self) -> bool {
        self.begun < self.initial
    }

    fn enter(&mut self, stage: Stage) {
        match stage {
            Stage::Loading => self.pump_all(),
            Stage::Draining => {
                // Nothing but the poll tells of bytes, and it told of these while nobody listened.
                for place in 0..self.connections.len() {
                    if self.connections[place].role.is_stalled() {
                        self.handle_readable(place, true);
                    }
                }
            }
            Stage::Connecting | Stage::Ended => {}
        }
    }

    fn connect_due(&mut self, stage: Stage) {
        if self.shared.settings.mode == Mode::Storm && stage == Stage::Loading {
            return self.storm_due();
        }
        let threads = self.shared.wakers.len();
        let rate = self.shared.settings.connect_rate / threads as f64;
        let due = 1 + (self.shared.now_ticks() as f64 / 1e7 * rate) as usize;
        let handshakes_max = HANDSHAKES_MAX.div_ceil(threads);
        while self.begun < self.initial.min(due) && self.handshakes < handshakes_max {
            let place = self.begun;
            self.begun += 1;
            self.begin(place, self.shared.now_ticks());
        }
    }

    /// Begins to connect. A poster is open at once, for its socket keeps what it is given until it is connected.
    pub(super) fn begin(&mut self, place: usize, intended_ticks: u64) {
        let shared = Arc::clone(&self.shared);
        shared.progress[self.thread]
            .attempted
            .fetch_add(1, Ordering::Relaxed);
        let connection = &mut self.connections[place];
        connection.intended_ticks = intended_ticks;
        let begun = connection.begin(&shared.settings, self.poll.registry(), Token(place));
        self.handshakes += 1;
        if let Err(error) = begun {
            self.fail(place, || error.to_string());
        } else if let Role::Poster(_) = self.connections[place].role {
            self.open(place, shared.now_ticks());
        } else {
            self.begin_handshake(place);
        }
    }

    /// Sends what waits for the socket.
    pub(super) fn flush(&mut self, place: usize) {
        let connection = &mut self.connections[place];
        if let (Some(publisher), State::Open) = (connection.role.publisher(), &connection.state) {
            self.shared.publishers[publisher].pump(&self.shared, &mut self.sender);
            return;
        }
        let Some(socket) = &connection.socket else {
            return;
        };
        if (connection.writer.waiting_bytes() > 0 || socket.has_records())
            && let Err(error) = connection.writer.flush(&**socket)
        {
            self.handle_end(place, Some(&error));
        }
    }

    /// Reads until there is nothing more. A short read says so, for the next byte makes an event of its own; but the
    /// end may have come with the bytes, and then this event is its event too.
    fn handle_readable(&mut self, place: usize, is_ended: bool) {
        if self.connections[place].role.is_stalled() && self.is_stall_on() {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut has_records = false;
        while let Some(socket) = &self.connections[place].socket {
            has_records = socket.has_records();
            match (&**socket).read(&mut buffer) {
                Ok(0) => self.handle_end(place, None),
                Ok(len) => {
                    let now_ticks = self.shared.now_ticks();
                    self.handle_bytes(place, &buffer[..len], now_ticks);
                    if len < buffer.len() && !is_ended && !has_records {
                        break;
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::NotConnected => break,
                    _ => self.handle_end(place, Some(&error)),
                },
            }
        }
        self.buffer = std::mem::take(&mut buffer);
        // What waited for the end of a handshake goes now.
        if has_records && self.connections[place].socket.is_some() {
            self.flush(place);
        }
    }

    fn is_stall_on(&self) -> bool {
        self.shared.stage() == Stage::Loading
            && self.shared.now_ticks() >= self.shared.measure_start_ticks()
    }

    pub(super) fn search(&self) -> Search {
        self.search
    }

    /// Takes note of the receipt of a publication.
    #[inline]
    pub(super) fn touch(&mut self, publisher: u32) {
        let receipts = &mut self.receipts[publisher as usize];
        if *receipts == 0 {
            self.touched.push(publisher);
        }
        *receipts += 1;
    }

    /// Hands on the receipts of this tick, and sends what they make room for.
    fn handle_receipts(&mut self) {
        let is_closed_loop = matches!(self.shared.settings.pace, Pace::InFlight(_));
        let mut touched = std::mem::take(&mut self.touched);
        for index in touched.drain(..) {
            let count = std::mem::take(&mut self.receipts[index as usize]);
            let publisher = &self.shared.publishers[index as usize];
            if !publisher.handle_receipts(u64::from(count)) || !is_closed_loop {
                continue;
            }
            match publisher.thread == self.thread {
                true => publisher.pump(&self.shared, &mut self.sender),
                false => self.shared.wake(publisher.thread),
            }
        }
        self.touched = touched;
    }

    fn pump_all(&mut self) {
        if self.shared.stage() == Stage::Loading {
            for index in &self.publishers {
                self.shared.publishers[*index as usize].pump(&self.shared, &mut self.sender);
            }
        }
    }

    pub(super) fn retry_later(&mut self, publisher: usize) {
        self.retrying.push(publisher as u32);
    }

    fn retry(&mut self) {
        let Load {
            retrying,
            shared,
            sender,
            ..
        } = self;
        retrying.retain(|index| {
            let publisher = &shared.publishers[*index as usize];
            publisher.pump(shared, sender);
            publisher.is_retrying()
        });
    }

    fn publish_progress(&self) {
        let progress = &self.shared.progress[self.thread];
        progress
            .received
            .store(self.record.received, Ordering::Relaxed);
        progress
            .last_ticks
            .store(self.record.last_ticks, Ordering::Relaxed);
    }

    /// Audits what did not come, says good-bye, and hands out what was counted.
    fn finish(mut self) -> Outcome {
        for connection in &mut self.connections {
            let is_open = matches!(connection.state, State::Open);
            let counts = &mut self.record.audit;
            for (place, audit) in connection.audits.iter().enumerate() {
                let publisher = connection.first_publisher as usize + place;
                let lost = audit.lost(self.shared.publishers[publisher].sent().messages);
                match is_open {
                    true => counts.lost += lost,
                    false => counts.missed_by_closed += lost,
                }
            }
            self.record.stalled_open += u64::from(is_open && connection.role.is_stalled());
            if let (true, Some(socket)) = (is_open, &connection.socket)
                && !matches!(connection.role, Role::Poster(_))
            {
                let out = connection.writer.out();
                let mask = Some(self.sender.entropy.take());
                encode_frame(out, Opcode::Close, &1000u16.to_be_bytes(), mask);
                // Nobody waits for an answer: all that counts has been counted.
                let _ = connection.writer.flush(&**socket);
            }
        }
        Outcome {
            record: self.record,
            sender: self.sender,
            busy: self.meter.busy(),
        }
    }
}
