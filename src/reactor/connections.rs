//! The connections of one reactor: the slab that owns them, and the way of each byte through them.
//!
//! It is generic over the [`ByteStream`] and is given the time, so the simulation, the tests and the benches run it
//! without a socket. What it decides it decides here; the rim, [`super::Reactor`], only says which transport is ready.
//!
//! Slots are freed at the end of a tick, never earlier, and not before the last membership of their connection is gone: until
//! then a stale index finds its own connection, closed.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use slab::Slab;

use super::slot::{Flags, Slot};
use crate::access_log::FollowedTable;
use crate::application::{Application, CommandContext};
use crate::compression::places::Places;
use crate::connection::{
    CloseReason, Connection, Event, Hold, Inflation, NEVER_MS, OnEvent, Settings, close_reason,
};
use crate::fanout::compression::Compression;
use crate::handler::ConnectionId;
use crate::hub::ReactorId;
use crate::metrics::topics::TopicCounts;
use crate::metrics::{ReactorMetrics, label_index};
use crate::net::byte_stream::ByteStream;
use crate::net::driver::Readiness;
use crate::net::ring::Ring;
use crate::peers::{self, Peers, ToldCell};
use crate::requests::{handle_event, limits};
use crate::shared::Shared;
use crate::shared::deadlines::Deadlines;
use crate::shared::paces::counting;
use crate::shrink::Shrink;
use crate::trace::Turn;
use crate::upkeep::ended::Leaving;
use crate::upkeep::{Upkeep, paces};

/// Connections whose deadline is looked after in one tick; the others' turn comes in the next one.
const TIMEOUTS_PER_TICK: usize = 1024;

/// What the shared write buffer keeps between ticks after a large message went through them.
const BUFFER_BYTES_KEPT: usize = 256 * 1024;

/// All connections of one reactor.
pub struct Connections<T> {
    pub(crate) application: Application,
    pub(crate) settings: Arc<Settings>,
    pub(crate) slots: Slab<Slot<T>>,
    shrink: Shrink,
    pub(crate) metrics: Arc<ReactorMetrics>,
    pub(crate) deadlines: Deadlines,
    pub(crate) next_generation: u32,
    /// The one read buffer.
    input: Vec<u8>,
    /// The one inflater, and the message that it made.
    pub(crate) inflation: Inflation,
    /// What the connection that is being dealt with writes.
    pub(crate) out: Vec<u8>,
    /// Connections with bytes left to read, for edges do not come again.
    ready: VecDeque<ConnectionId>,
    /// Connections that have caused as much work as they may in this tick.
    working: VecDeque<ConnectionId>,
    /// Slots whose connections have ended in this tick.
    pub(super) closed: Vec<u32>,
    /// Connections that have ended, and are members of something yet.
    pub(crate) leaving: Leaving,
    /// Connections by label.
    pub(crate) counts: Box<[u64]>,
    /// Since they were last shown.
    pub(crate) counts_changed: bool,
    pub(crate) inbound_bytes: usize,
    pub(crate) outbox_bytes: usize,
    pub(crate) inbound_bytes_max: usize,
    pub(crate) outbox_bytes_max: usize,
    /// How many reactors there are.
    pub(crate) reactors: usize,
    /// Work on many connections that is under way here.
    pub(crate) upkeep: Upkeep,
    /// Slots touched by deliveries, to be looked at afterwards.
    pub(crate) touched: Vec<u32>,
    due: Vec<u32>,
    /// What compresses publications. None only while it is in use.
    pub(crate) compression: Option<Box<Compression>>,
    /// Where connections are in their topics' cohorts.
    pub(crate) places: Places,
    /// What trusted proxies tell of connections.
    pub(crate) peers: Peers,
    /// Figures of topics by pattern, if some are wanted.
    pub(crate) topic_counts: Option<Arc<TopicCounts>>,
    /// Connections that the access log follows.
    pub(crate) followed: FollowedTable,
    /// Those of a batch that are not sent to as they are.
    pub(crate) beside: Vec<u32>,
    /// What is sealed for a batch.
    pub(crate) sealed: Vec<u8>,
    /// How publications leave where the kernel allows it.
    pub(crate) ring: Option<Ring>,
}

impl<T: ByteStream> Connections<T> {
    /// None yet.
    pub fn new(reactor: ReactorId, reactors: usize, shared: Shared) -> Connections<T> {
        let settings = Arc::clone(&shared.settings);
        let metrics = Arc::clone(shared.metrics.reactor(usize::from(reactor.0)));
        let topic_counts = shared.metrics.topics.clone();
        let mut connections = Connections {
            application: Application::new(reactor, shared),
            slots: Slab::new(),
            shrink: Shrink::default(),
            counts: vec![0; metrics.connections.len()].into(),
            counts_changed: false,
            metrics,
            deadlines: Deadlines::default(),
            next_generation: 0,
            input: vec![0; settings.limits.read_buffer_bytes],
            inflation: Inflation::default(),
            out: Vec::new(),
            ready: VecDeque::new(),
            working: VecDeque::new(),
            closed: Vec::new(),
            leaving: Leaving::default(),
            inbound_bytes: 0,
            outbox_bytes: 0,
            inbound_bytes_max: 0,
            outbox_bytes_max: 0,
            reactors: reactors.max(1),
            upkeep: Upkeep::new(&settings.pace),
            touched: Vec::new(),
            due: Vec::new(),
            compression: Some(Box::new(Compression::new(&settings, reactors))),
            places: Places::default(),
            peers: Peers::default(),
            topic_counts,
            followed: FollowedTable::default(),
            beside: Vec::new(),
            sealed: Vec::new(),
            ring: None,
            settings,
        };
        connections.bound_bytes();
        connections
    }

    /// Connections, those that are ending included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The name that the next connection will have, for registering its transport.
    pub fn next_id(&self) -> ConnectionId {
        ConnectionId {
            reactor: self.application.reactor.0,
            index: self.slots.vacant_key() as u32,
            generation: self.next_generation,
        }
    }

    /// Takes in a connection that was just accepted, by the first listener.
    pub fn insert(&mut self, transport: T, now_ms: u64) -> ConnectionId {
        self.insert_from(transport, 0, now_ms)
    }

    /// Takes in a connection that was just accepted by the listener of this number.
    pub fn insert_from(&mut self, transport: T, listener: u8, now_ms: u64) -> ConnectionId {
        let id = self.next_id();
        self.next_generation = self.next_generation.wrapping_add(1);
        let connection = Connection::new(&self.settings, now_ms, id.index);
        let label = connection.label();
        self.deadlines
            .set(id.index as usize, connection.deadline_ms(&self.settings));
        self.counts[label_index(label)] += 1;
        self.counts_changed = true;
        self.metrics.accepted.add(1);
        self.metrics.count_listener(listener, true);
        let slot = Slot::new(connection, transport, id.generation, listener);
        let index = self.slots.insert(slot);
        debug_assert_eq!(index as u32, id.index);
        self.begin_following(id);
        paces::begin_age(self, id.index, id.generation ^ id.index, now_ms);
        self.await_header(id, listener, now_ms);
        id
    }

    /// The connection's transport, for as long as it has not been freed.
    pub fn transport_mut(&mut self, id: ConnectionId) -> Option<&mut T> {
        self.slot(id).map(|slot| &mut slot.transport)
    }

    /// A connection's state machine, to look at.
    pub fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        let slot = self.slots.get(id.index as usize)?;
        slot.is(id).then_some(&slot.connection)
    }

    pub(crate) fn slot(&mut self, id: ConnectionId) -> Option<&mut Slot<T>> {
        self.slots
            .get_mut(id.index as usize)
            .filter(|slot| slot.is(id))
    }

    /// Begins a tick: the reactor carries out commands of the hub itself again.
    pub fn begin_tick(&mut self) {
        self.application.begin_tick();
    }

    /// Sets this tick's moment on the process's clock, in microseconds.
    pub fn set_now_us(&mut self, now_us: u64) {
        self.application.now_us = now_us;
    }

    /// Deals with an event.
    pub fn handle_readiness(&mut self, readiness: Readiness, now_ms: u64) {
        if readiness.writable {
            self.handle_writable(readiness.id, now_ms);
        }
        if readiness.readable {
            self.handle_readable(readiness.id, readiness.ended, now_ms);
        }
    }

    /// The transport can be read. `ended`: the end of the peer's side is known to stand behind the bytes.
    pub fn handle_readable(&mut self, id: ConnectionId, ended: bool, now_ms: u64) {
        if let Some(slot) = self.slot(id) {
            if ended {
                slot.flags.set(Flags::ENDED, true);
            }
            if !slot.flags.has(Flags::AWAITS_HEADER) || self.take_header(id) {
                self.pump(id.index, now_ms);
            }
        }
    }

    /// The transport can be written.
    pub fn handle_writable(&mut self, id: ConnectionId, now_ms: u64) {
        let Some(slot) = self.slot(id) else { return };
        slot.flags.set(Flags::IS_BLOCKED, false);
        let holds_output = slot.transport.held_output() > 0;
        if holds_output && let Err(error) = slot.transport.flush() {
            return self.fail_transport(id.index, &error);
        }
        if holds_output || !slot.connection.outbox.is_empty() {
            self.settle(id.index, now_ms);
        }
    }

    /// Whether connections have something left to be dealt with, which no event will announce.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
            || !self.working.is_empty()
            || self.upkeep.has_work()
            || !self.application.calls.writable.is_empty()
            || self.has_leaving()
    }

    /// Gives a turn to each connection that had commands or bytes left over.
    pub fn poll_ready(&mut self, now_ms: u64) {
        self.begin_work();
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else {
                break;
            };
            if let Some(slot) = self.slot(id) {
                slot.flags.set(Flags::IS_READY, false);
                self.pump(id.index, now_ms);
            }
        }
    }

    /// Connections that have caused as much work as they might go on: those that have waited for the longest time, as many
    /// as a tick is enough for.
    fn begin_work(&mut self) {
        for _ in 0..self.application.turns_per_tick() {
            let Some(id) = self.working.pop_front() else {
                break;
            };
            if let Some(slot) = self.slot(id) {
                slot.flags.set(Flags::IS_WORKING, false);
                slot.connection.lift(Hold::Work);
                self.resume(id);
            }
        }
    }

    /// Looks after the connections whose deadline had come by `due_ms`; a budget of them, the others stay due.
    pub fn sweep(&mut self, due_ms: u64, now_ms: u64) {
        self.application.expire_histories(now_ms);
        if let Some(compression) = &mut self.compression {
            compression.expire(now_ms);
        }
        let mut due = std::mem::take(&mut self.due);
        self.deadlines.take_due(due_ms, TIMEOUTS_PER_TICK, &mut due);
        for index in due.drain(..) {
            let Connections {
                slots,
                settings,
                out,
                metrics,
                ..
            } = self;
            if let Some(slot) = slots.get_mut(index as usize) {
                let id = slot.id(self.application.reactor, index);
                if slot.flags.has(Flags::AWAITS_HEADER) {
                    self.miss_header(id);
                    continue;
                }
                if let Some(limit) = slot.connection.is_turned_away(due_ms) {
                    self.refuse_admission(id, limit, now_ms);
                    continue;
                }
                let age_max_ms = settings.limits.outbox_age_max_ms;
                let outbox = &mut slot.connection.outbox;
                let dropped = outbox.expire_droppable(due_ms, age_max_ms);
                metrics.dropped_oldest.add(dropped.oldest as u64);
                let connection = &mut slot.connection;
                connection.handle_timeout(settings, due_ms, now_ms, out);
                self.settle(index, now_ms);
            }
        }
        self.due = due;
    }

    /// Ends the tick: frees what was closed, for which `release` is called first, and shows the gauges.
    pub fn finish_tick(&mut self, mut release: impl FnMut(&mut T)) {
        for index in std::mem::take(&mut self.closed) {
            if let Some(slot) = self.slots.get_mut(index as usize) {
                release(&mut slot.transport);
                self.deadlines.set(index as usize, NEVER_MS);
                self.begin_leaving(index);
            }
        }
        self.leave_some(self.settings.limits.subscription_steps_per_tick_max);
        self.shrink.shrink(&mut self.slots);
        self.places.truncate(self.slots.capacity());
        self.peers.truncate(self.slots.capacity());
        self.followed.truncate(self.slots.capacity());
        self.out.shrink_to(BUFFER_BYTES_KEPT);
        self.inflation.shrink_to(BUFFER_BYTES_KEPT);
        self.application.finish_tick(BUFFER_BYTES_KEPT);
        self.show_gauges();
    }

    /// Frees the slot of a connection that has ended and is a member of nothing any more.
    pub(crate) fn free(&mut self, id: ConnectionId) {
        let Some(slot) = self.slots.try_remove(id.index as usize) else {
            return;
        };
        self.counts[label_index(slot.label)] -= 1;
        self.counts_changed = true;
        self.metrics.count_listener(slot.listener, false);
        self.end_following(id, &slot);
        self.inbound_bytes -= slot.inbound_bytes as usize;
        self.outbox_bytes -= slot.outbox_bytes as usize;
        if let Some(subscription) = slot.subscribed.one() {
            self.leave_one(id, subscription, slot.best_form);
        }
        self.application.identities.release(slot.identity);
        limits::leave(&mut self.application, id.index);
        self.upkeep.forget(id.index);
        self.application.asking.forget(id);
        self.places.forget(id.index);
        self.peers.forget(id.index);
        self.report_end(id, &slot);
    }

    /// Reading may have become possible: what was kept is dealt with, and then the transport is read.
    pub(crate) fn resume(&mut self, id: ConnectionId) {
        if let Some(slot) = self.slot(id)
            && !slot.connection.is_held()
            && !slot.flags.has(Flags::IS_READY)
        {
            slot.flags.set(Flags::IS_READY, true);
            self.ready.push_back(id);
        }
    }

    /// Reads and deals with what came, until it comes short or the budget is used up.
    fn pump(&mut self, index: u32, now_ms: u64) {
        let mut input = std::mem::take(&mut self.input);
        let mut budget = self.settings.limits.read_budget_bytes;
        self.application.begin_turn();
        while let Some(slot) = self.slots.get_mut(index as usize) {
            slot.flags.set(Flags::WAS_HELD, slot.connection.is_held());
            if slot.flags.has(Flags::WAS_HELD) || slot.connection.is_closed() {
                break;
            }
            if budget == 0 {
                let id = slot.id(self.application.reactor, index);
                self.resume(id);
                break;
            }
            if slot.connection.has_unread() {
                self.take_in(index, now_ms, None);
                self.keep_pace(index, (0, false), now_ms);
                budget = budget.saturating_sub(self.inflation.inflated_bytes());
                continue;
            }
            let room = input.len().min(budget);
            let (slot, room) = match self.upkeep.paces.are_active() {
                false => (slot, room),
                true => {
                    let room = paces::room(self, index, room);
                    (&mut self.slots[index as usize], room)
                }
            };
            match slot.transport.read(&mut input[..room]) {
                Ok(0) => {
                    slot.connection.handle_eof(&self.settings, now_ms);
                    self.settle(index, now_ms);
                    break;
                }
                Ok(count) => {
                    budget -= count;
                    self.metrics.bytes_received.add(count as u64);
                    self.take_in(index, now_ms, Some(&mut input[..count]));
                    self.keep_pace(index, (count, count < room), now_ms);
                    budget = budget.saturating_sub(self.inflation.inflated_bytes());
                    // A short read took all there was. What comes later announces itself, but an end that was
                    // announced together with the bytes does not do so again.
                    let is_done = |slot: &Slot<T>| {
                        let connection = &slot.connection;
                        !slot.flags.has(Flags::ENDED)
                            && !slot.transport.holds_input()
                            && !connection.has_unread()
                            && !connection.is_held()
                    };
                    if count < room && self.slots.get(index as usize).is_none_or(is_done) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.keep_pace(index, (0, true), now_ms);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if close_reason(&error) == CloseReason::TlsKey => {
                    paces::close(self, index, CloseReason::TlsKey, now_ms);
                    break;
                }
                Err(error) => {
                    self.fail_transport(index, &error);
                    break;
                }
            }
        }
        self.input = input;
    }

    /// Deals with bytes that were read; without any, with what was kept.
    fn take_in(&mut self, index: u32, now_ms: u64, bytes: Option<&mut [u8]>) {
        match self.followed.is_empty() {
            true => self.take_in_turn(index, now_ms, bytes, None),
            false => self.take_in_followed(index, now_ms, bytes),
        }
        self.settle(index, now_ms);
    }

    /// Deals with bytes of a turn, of which traces may be told. In line, so that the way without is not slower by them.
    #[inline(always)]
    pub(super) fn take_in_turn(
        &mut self,
        index: u32,
        now_ms: u64,
        bytes: Option<&mut [u8]>,
        turn: Option<&Turn>,
    ) {
        let Connections {
            slots,
            application,
            settings,
            inflation,
            out,
            upkeep,
            ..
        } = self;
        let Some(slot) = slots.get_mut(index as usize) else {
            return;
        };
        let transport = &slot.transport;
        let told = ToldCell::new(self.peers.get(index));
        let mut current = CommandContext {
            id: slot.id(application.reactor, index),
            peer_address: &|| peers::address_of(told.get(), || transport.peer_address()),
            told: &told,
            certificate: &|| transport.identity(),
            identity: &mut slot.identity,
            listener: slot.listener,
            subscribed: &mut slot.subscribed,
            deflate: slot.connection.deflate(),
            may_keep_context: self.inbound_bytes + Inflation::CONTEXT_BYTES
                <= self.inbound_bytes_max / 2,
        };
        let (now_us, connection) = (application.now_us, &mut slot.connection);
        let mut on_event = |event: Event<'_>, out: &mut Vec<u8>| {
            handle_event(application, &mut current, event, out)
        };
        let take_in = |on_event: &mut OnEvent<'_>| match bytes {
            Some(bytes) => {
                connection.handle_bytes(settings, now_ms, inflation, bytes, out, on_event);
            }
            None => connection.handle_unread(settings, now_ms, inflation, out, on_event),
        };
        let rules = &settings.pace;
        match (turn, upkeep.paces.get(index)) {
            (None, None) => take_in(&mut on_event),
            (None, Some(pace)) => take_in(&mut counting(pace, rules, now_us, &mut on_event)),
            (Some(turn), None) => take_in(&mut turn.watching(&mut on_event)),
            (Some(turn), Some(pace)) => {
                let mut watching = turn.watching(&mut on_event);
                take_in(&mut counting(pace, rules, now_us, &mut watching));
            }
        }
        if let Some(told) = told.get() {
            self.peers.put(index, Some(told));
        } else if !self.peers.is_empty() {
            self.peers.forget(index);
        }
        let connection = &mut slot.connection;
        if connection.has_hold(Hold::Work) && !slot.flags.has(Flags::IS_WORKING) {
            slot.flags.set(Flags::IS_WORKING, true);
            self.working.push_back(slot.id(application.reactor, index));
        }
    }

    /// Which reactor this is.
    pub fn reactor(&self) -> ReactorId {
        self.application.reactor
    }
}
