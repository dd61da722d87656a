//! A running server's handle for any thread: publish, count, shut down.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use crate::config::Config;
use crate::connection::Message;
use crate::dialect::check_key;
use crate::hub::{Command, Origin, Publication, PublishOptions, Receipt, Report};
use crate::reactor::mailbox::Mailbox;
use crate::shared::brought::BroughtCommand;
use crate::shared::{Lifecycle, Shared};
use crate::topic::Topic;
use crate::worker::Shards;

mod reload;

pub use reload::{ReloadError, Reloaded};

/// Handle of a server, for any thread. Clones are cheap and mean the same server.
#[derive(Clone)]
pub struct Handle {
    shared: Shared,
    mailboxes: Arc<[Arc<Mailbox>]>,
    started: Instant,
    /// The configuration in force.
    running: Arc<Mutex<Config>>,
    publication_bytes_max: Arc<AtomicUsize>,
}

impl Handle {
    pub(crate) fn new(
        shared: Shared,
        mailboxes: Vec<Arc<Mailbox>>,
        started: Instant,
        config: Config,
    ) -> Handle {
        let reloads = &shared.metrics.reloads;
        reloads.succeed(reload::wall_seconds(), true);
        Handle {
            shared,
            mailboxes: mailboxes.into(),
            started,
            publication_bytes_max: Arc::new(AtomicUsize::new(config.limits.publication_bytes_max)),
            running: Arc::new(Mutex::new(config)),
        }
    }

    /// The configuration in force. Whoever panicked with it has not changed it.
    fn running(&self) -> MutexGuard<'_, Config> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hub, for its workers.
    pub(crate) fn shards(&self) -> &Arc<Shards> {
        &self.shared.shards
    }

    /// Publishes a message to a topic. It is in the topic's order when this returns, and on its way to all
    /// subscribers. Never blocks.
    ///
    /// # Errors
    /// When the topic or the size cannot stand, or more is being published than is delivered.
    pub fn publish(&self, topic: &str, message: Message<'_>) -> Result<(), PublishError> {
        self.submit(topic, None, None, message)
    }

    /// Publishes a message with a conflation key. Of publications of one topic and key, a slow consumer under
    /// [`SlowConsumer::Latest`](crate::SlowConsumer::Latest) gets the newest. The key is 1 to 255 bytes without control
    /// characters.
    ///
    /// # Errors
    /// As [`publish`](Handle::publish), and when the key cannot stand.
    pub fn publish_with_key(
        &self,
        topic: &str,
        key: &str,
        message: Message<'_>,
    ) -> Result<(), PublishError> {
        self.submit(topic, Some(key), None, message)
    }

    /// Publishes a message whose delivery can be waited for. `key` is that of
    /// [`publish_with_key`](Handle::publish_with_key).
    ///
    /// # Errors
    /// As [`publish_with_key`](Handle::publish_with_key).
    pub fn publish_with_receipt(
        &self,
        topic: &str,
        key: Option<&str>,
        message: Message<'_>,
    ) -> Result<PendingReceipt, PublishError> {
        // The one report finds room always.
        let (sender, receiver) = bounded(1);
        let receipt = Receipt::new(Box::new(move |report| {
            // It fails only if nobody waits any more.
            let _ = sender.try_send(report);
        }));
        self.submit(topic, key, Some(Arc::new(receipt)), message)?;
        Ok(PendingReceipt { receiver })
    }

    fn submit(
        &self,
        topic: &str,
        key: Option<&str>,
        receipt: Option<Arc<Receipt>>,
        message: Message<'_>,
    ) -> Result<(), PublishError> {
        let topic = Topic::from_text(topic)
            .map_err(|refusal| PublishError::InvalidTopic(refusal.reason.into_owned()))?;
        let payload = message.payload();
        let bytes_max = self.publication_bytes_max.load(Ordering::Relaxed);
        if payload.len() > bytes_max {
            return Err(PublishError::TooBig {
                bytes: payload.len(),
                bytes_max,
            });
        }
        let now_us = self.started.elapsed().as_micros() as u64;
        let mut publication = Publication::new(message.kind(), payload, now_us);
        if let Some(key) = key {
            check_key(key).map_err(|reason| PublishError::InvalidKey(reason.to_owned()))?;
            publication = publication.with_options(PublishOptions::default().key(key));
        }
        if let Some(receipt) = receipt {
            publication = publication.with_receipt(receipt);
        }
        let command = Command::Publish {
            topic,
            publication: Arc::new(publication),
            origin: Origin::Detached,
        };
        self.shared
            .shards
            .submit(command, None)
            .map_err(|_| PublishError::Full)
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

    /// Stops accepting, delivers what is queued and closes everybody within `drain_timeout_ms`.
    pub fn shutdown(&self) {
        self.advance(Lifecycle::Draining);
    }

    /// Ends at once: nothing that is queued is delivered, and nobody is waited for.
    pub fn shutdown_now(&self) {
        self.advance(Lifecycle::Stopping);
    }

    fn advance(&self, lifecycle: Lifecycle) {
        self.shared.lifecycle.advance(lifecycle);
        for mailbox in self.mailboxes.iter() {
            mailbox.wake();
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// A receipt that is still to come: the publication is being written.
#[derive(Debug)]
pub struct PendingReceipt {
    receiver: Receiver<Report>,
}

impl PendingReceipt {
    /// Waits for the report of the publication, at most for `timeout`. None: the writes are not
    /// done by then, or the server has ended, and then they never will be. May be called again.
    pub fn wait(&self, timeout: Duration) -> Option<Report> {
        self.receiver.recv_timeout(timeout).ok()
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

/// Reason that a message was not published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// What was given is no topic; the text says why.
    InvalidTopic(String),
    /// What was given is no key; the text says why.
    InvalidKey(String),
    /// It is longer than `publication_bytes_max`.
    TooBig {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// More is being published than is delivered; try again a little later.
    Full,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::InvalidTopic(reason) | PublishError::InvalidKey(reason) => {
                f.write_str(reason)
            }
            PublishError::TooBig { bytes, bytes_max } => {
                write!(
                    f,
                    "{bytes} bytes are more than publication_bytes_max allows ({bytes_max})"
                )
            }
            PublishError::Full => {
                f.write_str("more is being published than is delivered; try again")
            }
        }
    }
}

impl std::error::Error for PublishError {}
