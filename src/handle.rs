//! A running server's handle for any thread: publish, count, shut down.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::{Additions, Config, ConfigError};
use crate::dialect::CommandLimits;
use crate::handler::{CloseCode, PeerError};
use crate::hub::FieldLimits;
use crate::mailbox::Mailbox;
use crate::net::clock::ProcessClock;
use crate::shared::brought::BroughtCommand;
use crate::shared::control::ReloadOutcome;
use crate::shared::jobs::{Selector, Task};
use crate::shared::lifecycle::Drained;
use crate::shared::{Lifecycle, Shared};
#[cfg(feature = "tls")]
use crate::tls::TlsTerms;
#[cfg(feature = "tls")]
use crate::tls::terms::PreparedTerms;
use crate::worker::Shards;

mod control;
mod inside;
#[cfg(feature = "jwt")]
pub(crate) mod key_files;
mod memory;
mod publishing;
mod queries;
mod receipts;
mod reload;
mod supervision;

pub use control::{ConnectionPage, ControlError};
pub use inside::{
    Delivery, QUEUE_BYTES_MAX, QUEUE_MAX, ReceivedPublication, SubscribeError, SubscribeOptions,
    Subscription, SubscriptionEnd, WhenFull,
};
pub use publishing::{PendingReceipt, PublishError, ReceiptError};
pub use queries::{History, HistoryStart, Presence, PresentMember, QueryError, TopicInfo};
use receipts::OpenReceipts;
pub use reload::{ReloadError, Reloaded};

/// The configuration that a server runs with.
pub(crate) struct Running {
    config: Config,
    /// What the program gave besides, for other configurations.
    additions: Additions,
    /// TLS of the listeners.
    #[cfg(feature = "tls")]
    tls: Option<Arc<TlsTerms>>,
}

impl Running {
    /// A configuration, in which the additions are already.
    pub(crate) fn new(config: &Config, additions: Additions) -> Running {
        Running {
            config: config.clone(),
            additions,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

#[cfg(feature = "tls")]
impl Running {
    /// With TLS of its listeners.
    pub(crate) fn with_tls(mut self, tls: Option<Arc<TlsTerms>>) -> Running {
        self.tls = tls;
        self
    }

    /// Reads certificates and keys of another configuration.
    fn prepare_tls(&self, config: &Config) -> Result<Option<PreparedTerms>, ConfigError> {
        self.tls.as_ref().map(|tls| tls.prepare(config)).transpose()
    }

    /// Puts them in force.
    fn take_tls(&self, prepared: Option<PreparedTerms>) {
        if let (Some(tls), Some(prepared)) = (&self.tls, prepared) {
            tls.take(prepared);
        }
    }
}

/// What is read of certificates where there is no TLS.
#[cfg(not(feature = "tls"))]
struct NoTerms;

#[cfg(not(feature = "tls"))]
impl Running {
    /// A configuration with certificates was refused.
    fn prepare_tls(&self, _: &Config) -> Result<NoTerms, ConfigError> {
        Ok(NoTerms)
    }

    fn take_tls(&self, NoTerms: NoTerms) {}
}

/// Handle of a server, for any thread. Clones are cheap and mean the same server.
#[derive(Clone)]
pub struct Handle {
    shared: Shared,
    mailboxes: Arc<[Arc<Mailbox>]>,
    clock: ProcessClock,
    /// The configuration in force.
    running: Arc<Mutex<Running>>,
    publication_bytes_max: Arc<AtomicUsize>,
    /// Of the fields of a publication. The lock is held for a copy only.
    field_limits: Arc<Mutex<FieldLimits>>,
    receipts: Arc<OpenReceipts>,
}

impl Handle {
    pub(crate) fn new(
        shared: Shared,
        mailboxes: Vec<Arc<Mailbox>>,
        clock: ProcessClock,
        running: Running,
    ) -> Handle {
        let reloads = &shared.metrics.reloads;
        let receipts_max = running.config.limits.receipts_max;
        reloads.succeed(reload::wall_seconds(), true);
        let publication_bytes_max = running.config.limits.publication_bytes_max;
        let fields = CommandLimits::of(&running.config.limits).fields;
        let running = Arc::new(Mutex::new(running));
        let (told, live) = (Arc::clone(&running), Arc::clone(&shared.live));
        let metrics = Arc::clone(&shared.metrics);
        let control = Arc::downgrade(&shared.control);
        shared.control.tell_config_by(Box::new(move || {
            let running = told.lock().unwrap_or_else(PoisonError::into_inner);
            let taken_at = metrics.reloads.last_success_seconds();
            let control = control.upgrade();
            let settings = control.and_then(|control| control.settings());
            let reload = (live.generation(), taken_at);
            control::config_text(&running.config, reload, settings.as_deref())
        }));
        Handle {
            shared,
            mailboxes: mailboxes.into(),
            clock,
            publication_bytes_max: Arc::new(AtomicUsize::new(publication_bytes_max)),
            field_limits: Arc::new(Mutex::new(fields)),
            running,
            receipts: Arc::new(OpenReceipts::new(receipts_max)),
        }
    }

    /// The configuration in force. Whoever panicked with it has not changed it.
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn field_limits(&self) -> MutexGuard<'_, FieldLimits> {
        let limits = self.field_limits.lock();
        limits.unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `POST /api/v1/reload` read the settings anew. For the binary.
    #[doc(hidden)]
    pub fn reload_by(&self, reload: impl Fn() -> ReloadOutcome + Send + Sync + 'static) {
        self.shared.control.reload_by(Arc::new(reload));
    }

    /// Sets what `GET /api/v1/config` tells of each setting: a JSON object by the names of settings. For the binary.
    #[doc(hidden)]
    pub fn tell_settings(&self, settings: String) {
        self.shared.control.tell_settings(settings);
    }

    /// The hub, for its workers.
    pub(crate) fn shards(&self) -> &Arc<Shards> {
        &self.shared.shards
    }

    /// Counts, added up over the server's threads.
    pub fn counts(&self) -> Counts {
        let metrics = &self.shared.metrics;
        Counts {
            connections: metrics.connection_count(),
            accepted: metrics.sum(|reactor| &reactor.accepted),
            publications: self.shared.shards.counts().publications,
            messages_received: metrics.sum(|reactor| &reactor.messages_received),
            deliveries: metrics.sum(|reactor| &reactor.deliveries),
            slow_consumers: metrics.slow_consumers(),
            outbox_bytes: metrics.sum(|reactor| &reactor.outbox_bytes),
        }
    }

    /// The text of `/metrics`, for a program that serves it itself.
    pub fn metrics(&self) -> String {
        self.shared
            .metrics
            .encode_prometheus(self.shared.shards.counts())
    }

    /// Brings a command for a connection, for tests of that.
    ///
    /// # Errors
    /// Gives it back if too many wait.
    #[doc(hidden)]
    pub fn bring(&self, command: BroughtCommand) -> Result<(), BroughtCommand> {
        self.shared.bring(command)
    }

    /// Ends connections of whatever kind: one by its name, or all of a [`Selector`]. A WebSocket is closed with this code and reason, behind what is queued for it, an
    /// event stream and a request without a word. The reason is cut at 123 bytes; a code that may not stand on the wire
    /// (RFC 6455 section 7.4.1) is sent as 1011. One that is gone already is no error.
    ///
    /// Names of connections come from [`Builder::on_subscription`](crate::Builder::on_subscription),
    /// [`presence`](Handle::presence) and [`Peer::id`](crate::Peer::id). Whoever is to stay away has to lose the right too.
    ///
    /// # Errors
    /// When too many commands wait for the connection's reactor, or the server has ended.
    pub fn disconnect(
        &self,
        selector: impl Into<Selector>,
        code: CloseCode,
        reason: impl Into<Cow<'static, str>>,
    ) -> Result<(), PeerError> {
        if self.is_closed() {
            return Err(PeerError::Closed);
        }
        let reason = reason.into();
        match selector.into() {
            Selector::Connection(connection) => {
                let command = BroughtCommand::disconnect(connection, code, reason);
                self.shared.bring(command).map_err(|_| PeerError::Busy)
            }
            selector => {
                let close = (code, reason.into_owned());
                self.begin(Task::Disconnect(selector, close, Vec::new()))
            }
        }
    }

    /// Ends the server in an orderly way: for `pre_stop_ms` it serves as ever and `/ready` answers 503; then it takes no more,
    /// delivers what is queued and closes everybody within `drain_timeout_ms`.
    pub fn shutdown(&self) {
        self.advance(Lifecycle::PreStop);
    }

    /// [`shutdown`](Handle::shutdown) without its first step.
    pub fn drain(&self) {
        self.advance(Lifecycle::Draining);
    }

    /// Takes the server out of service: `/ready` answers 503, and all else goes on. With `closes_per_second` so many
    /// subscribers are closed in a second, each told when to come back, so that they come to other servers.
    /// [`put_back`](Handle::put_back) undoes it.
    pub fn take_out(&self, closes_per_second: u32) {
        self.shared.lifecycle.set_absent(Some(closes_per_second));
        self.wake();
    }

    /// Puts the server back into service.
    pub fn put_back(&self) {
        self.shared.lifecycle.set_absent(None);
    }

    /// Ends at once: nothing that is queued is delivered, and nobody is waited for.
    pub fn shutdown_now(&self) {
        self.advance(Lifecycle::Stopping);
    }

    /// Whether others may send their clients here, as `/ready` tells it.
    pub fn is_ready(&self) -> bool {
        self.shared.lifecycle.is_ready()
    }

    /// Number of reloads since the start.
    pub fn generation(&self) -> u64 {
        self.shared.live.generation()
    }

    /// Whether the server has ended, or is ending at once.
    pub fn is_closed(&self) -> bool {
        self.shared.lifecycle.get() == Lifecycle::Stopping
    }

    /// The server has ended: nobody will do any more what waits.
    pub(crate) fn end(&self) {
        self.advance(Lifecycle::Stopping);
        self.shared.shards.forget_all();
        self.receipts.close_all();
        self.shared.inside.close();
    }

    fn advance(&self, lifecycle: Lifecycle) {
        self.shared.lifecycle.advance(lifecycle);
        self.wake();
    }

    fn wake(&self) {
        for mailbox in self.mailboxes.iter() {
            mailbox.wake();
        }
    }

    /// The drain, at the end of the server.
    pub(crate) fn drained(&self) -> Option<Drained> {
        self.shared.lifecycle.drained()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// Counts of a server. Counters run from its start; gauges are as of each reactor's last tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Gauge: connections of every kind.
    pub connections: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Publications given their place in a topic, from wherever they came.
    pub publications: u64,
    /// Messages received on WebSocket connections.
    pub messages_received: u64,
    /// Deliveries: one for each publication and subscriber.
    pub deliveries: u64,
    /// Subscribers closed because they read too slowly.
    pub slow_consumers: u64,
    /// Gauge: bytes queued beyond what the kernel took.
    pub outbox_bytes: u64,
}
