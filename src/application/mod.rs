//! Handling of connections' events: one function, [`Application::handle_event`], for all of them.

mod admission;
pub mod commands;
mod endpoints;
pub mod history;
pub mod joined;
pub mod joins;
pub mod once;
pub mod publishes;
mod rights;
mod sign_in;
pub mod signed;
mod work;

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::asking::Asking;
use crate::auth::identity::Identity;
use crate::auth::table::{Identities, IdentityHandle};
use crate::connection::Connection;
use crate::dialect::Dialects;
use crate::endpoint::Calls;
use crate::fanout::patterns::Patterns;
use crate::fanout::subscribed::{MultiSubscriptions, Subscribed};
use crate::fanout::topics::Topics;
use crate::handler::ConnectionId;
use crate::hub::{Command, LocalTopic, Publication, ReactorId, Receipt, Share};
use crate::logging::Noted;
use crate::metrics::ReactorMetrics;
use crate::peers::ToldCell;
use crate::peers::suspicion::Suspicion;
use crate::presence::PresenceChanges;
use crate::protocol::deflate::Agreement;
use crate::rate::bucket::Rate;
use crate::rate::gate::Entered;
use crate::shared::Shared;
use crate::shared::brought::CommandInbox;
use crate::shared::live::ShardReload;
use crate::shared::receipts::Receipts;
use crate::shared::terms::Terms;

/// Tells the address of a client: of the socket's peer, or what a trusted proxy says. None: it has none. An error: it is gone.
pub type PeerAddress<'a> = &'a dyn Fn() -> io::Result<Option<SocketAddr>>;

/// Tells whom a peer is by its certificate. None: it has none, or one that only admits.
pub type PeerCertificate<'a> = &'a dyn Fn() -> Option<Arc<Identity>>;

/// The connection whose event is being dealt with.
pub struct CommandContext<'a> {
    /// Its name.
    pub id: ConnectionId,
    /// Address of its client, which is asked for only where it matters.
    pub peer_address: PeerAddress<'a>,
    /// Words of trusted proxies about it.
    pub told: &'a ToldCell,
    /// Its peer by a certificate. It is asked for with each request over TLS.
    pub certificate: PeerCertificate<'a>,
    /// Identity of its opener, or of its request's sender.
    pub identity: &'a mut IdentityHandle,
    /// The number of the listener that it came by.
    pub listener: u8,
    /// Its subscriptions.
    pub subscribed: &'a mut Subscribed,
    /// The compression that was agreed to.
    pub deflate: Option<Agreement>,
    /// There is memory for the context of a peer that compresses.
    pub may_keep_context: bool,
}

/// A connection during an effect of the hub.
pub struct ConnectionContext<'a> {
    /// Its name.
    pub id: ConnectionId,
    /// The number of the listener that it came by.
    pub listener: u8,
    /// Its state machine.
    pub connection: &'a mut Connection,
    /// Identity of its opener, or of its request's sender.
    pub identity: &'a mut IdentityHandle,
    /// Its subscriptions.
    pub subscribed: &'a mut Subscribed,
    /// Bytes that are written behind its outbox.
    pub out: &'a mut Vec<u8>,
    /// The moment of the tick.
    pub now_ms: u64,
}

/// Handler of one reactor's events.
pub struct Application {
    /// The reactor.
    pub reactor: ReactorId,
    /// State that all reactors share.
    pub shared: Shared,
    /// Who the connections are.
    pub(crate) identities: Identities,
    /// How long the connections may go on as who they are.
    pub(crate) terms: Terms,
    /// Milliseconds by which the wall clock is ahead of the process's.
    pub(crate) wall_ahead_ms: i64,
    /// Connections that the whole process may have.
    pub(crate) connections_max: usize,
    /// Connections that count towards their address.
    pub(crate) entered: Entered,
    /// Connections that are held back for their identity's rate, and until when, in milliseconds.
    pub(crate) slowed: Vec<(u32, u64)>,
    /// Connections whose identity has come or gone that has a rate of messages of its own, until the next tick.
    pub(crate) own_rates: Vec<(ConnectionId, Option<Rate>)>,
    /// Whether there was such an identity.
    has_own_rates: bool,
    /// Topics with subscribers here.
    pub topics: Topics,
    /// Patterns with subscribers here.
    pub patterns: Patterns,
    /// The subscriptions of those connections that have many.
    pub multi_subscriptions: MultiSubscriptions,
    /// Who came and went in this tick, where others are told.
    pub(crate) presence: PresenceChanges,
    /// Commands that others than their peers bring for connections of this reactor.
    pub brought: CommandInbox,
    /// The table of dialects, in memory of this reactor's own.
    dialects: Dialects,
    /// Connections about which somebody else decides.
    pub asking: Asking,
    /// Receipts that publishers wait for.
    pub receipts: Receipts,
    /// Metrics of the reactor.
    pub metrics: Arc<ReactorMetrics>,
    /// Work that the connection which has its turn may cause yet.
    work_left: u32,
    /// Subscriptions that may begin or end yet in this tick.
    steps_left: usize,
    /// Commands that the hub did not take yet. Each holds its connection.
    pub deferred: VecDeque<(ConnectionId, Command)>,
    /// Bytes of publications in them.
    pub(crate) deferred_bytes: usize,
    /// Calls of handlers.
    pub calls: Calls,
    /// This tick's moment on the process's clock, for publications.
    pub now_us: u64,
    next_expiry_ms: u64,
    /// Of the settings in force here.
    pub(crate) generation: u64,
    /// On reactor 0: a reload on its way to the shards.
    pub(crate) shard_reload: Option<ShardReload>,
    /// The log has the hint about PROXY headers already: once is enough.
    pub(crate) is_proxy_logged: bool,
    /// The log has the hint about queries of topics already.
    pub(crate) is_query_logged: bool,
    /// What of the requests of the connection that has its turn the log wants.
    pub(crate) noted: Noted,
    /// Publications that connections brought so far.
    pub(crate) admitted: Cell<u64>,
    /// Suspicion that a proxy stands in front which is not trusted.
    pub(crate) suspicion: Option<Box<Suspicion>>,
}

/// How often the hub is told the time.
const EXPIRY_INTERVAL_MS: u64 = 1000;

impl Application {
    /// That of a reactor without connections.
    pub fn new(reactor: ReactorId, shared: Shared) -> Application {
        Application {
            reactor,
            topics: Topics::new(reactor, shared.settings.limits.topics_max),
            patterns: Patterns::new(shared.settings.limits.topics_max),
            steps_left: shared.settings.limits.subscription_steps_per_tick_max,
            multi_subscriptions: MultiSubscriptions::default(),
            presence: PresenceChanges::new(&shared.settings.limits, shared.metrics.reactor_count()),
            receipts: Receipts::new(shared.settings.limits.receipts_max),
            metrics: Arc::clone(shared.metrics.reactor(usize::from(reactor.0))),
            asking: Asking::new(
                reactor,
                Arc::downgrade(&shared.shards),
                shared.settings.limits.asks_max,
            ),
            brought: CommandInbox::new(&shared.commands, reactor),
            dialects: shared.settings.dialects.detached(),
            calls: Calls::new(&shared),
            shared,
            identities: Identities::default(),
            terms: Terms::default(),
            entered: Entered::default(),
            slowed: Vec::new(),
            own_rates: Vec::new(),
            has_own_rates: false,
            wall_ahead_ms: 0,
            connections_max: 0,
            work_left: 0,
            deferred: VecDeque::new(),
            deferred_bytes: 0,
            now_us: 0,
            next_expiry_ms: 0,
            generation: 0,
            shard_reload: None,
            is_proxy_logged: false,
            is_query_logged: false,
            noted: Noted::default(),
            admitted: Cell::new(0),
            suspicion: None,
        }
    }

    /// Ends the tick: of the write buffers at most so many bytes are kept, and the gauges are shown.
    pub fn finish_tick(&mut self, bytes_kept: usize) {
        self.calls.deflation.shrink_to(bytes_kept);
        let metrics = &self.metrics;
        metrics.messages_deflated.set(self.calls.deflation.messages);
        metrics
            .deflate_saved_bytes
            .set(self.calls.deflation.saved_bytes);
        metrics.topics.set(self.topics.len() as u64);
        metrics.patterns.set(self.patterns.len() as u64);
        let bytes = self.subscription_bytes() as u64;
        metrics.subscription_bytes.set(bytes);
        metrics.identity_bytes.set(self.identities.bytes() as u64);
    }

    /// Whether the hub has yet to take something.
    pub fn has_backpressure(&self) -> bool {
        !self.deferred.is_empty() || self.shard_reload.is_some() || self.topics.has_forsaken()
    }

    /// Queues a publication for delivery at the end of this tick's mail. One that nobody here subscribes to any more is
    /// dropped.
    pub fn queue(&mut self, local: LocalTopic, publication: Arc<Publication>) {
        let queued = match local.is_pattern() {
            false => self.topics.queue(local, publication),
            true => self.patterns.queue(local, publication),
        };
        if let Err(publication) = queued {
            publication.add_share(&Share::default());
        }
    }

    /// Expires old publications in the hub's shards, once a second. One reactor does it for all.
    pub fn expire_histories(&mut self, now_ms: u64) {
        let is_due = self.reactor == ReactorId(0) && now_ms >= self.next_expiry_ms;
        let has_history = !self.shared.settings.topic_rules.is_empty();
        if !is_due || !has_history && !self.shared.shards.has_keys() {
            return;
        }
        self.next_expiry_ms = now_ms + EXPIRY_INTERVAL_MS;
        for shard in 0..self.shared.shards.shard_count() {
            let now_us = self.now_us;
            // A shard that takes no command now is told a second later.
            let _ = self.submit(Command::Expire { shard, now_us });
        }
    }

    /// A receipt for a publication of this connection; None if too many are outstanding.
    pub fn receipt(&mut self, connection: ConnectionId, sequence: u32) -> Option<Arc<Receipt>> {
        let hub = (&self.shared.shards, self.reactor);
        self.receipts.hand_out(hub, connection, sequence)
    }

    /// Hands a command to the hub.
    pub fn submit(&self, command: Command) -> Result<(), Command> {
        self.shared.shards.submit(command, Some(self.reactor))
    }
}
