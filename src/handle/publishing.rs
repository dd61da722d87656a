//! Publishing from inside the process.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::Handle;
use crate::connection::Message;
use crate::dialect::check_key;
use crate::endpoint::hooks::{self, Draft};
use crate::http::refusal::Refusal;
use crate::hub::{Command, Origin, Publication, PublishOptions, Report};
use crate::topic::Topic;

impl PublishOptions {
    /// Nothing besides topic and message.
    #[must_use]
    pub fn new() -> PublishOptions {
        PublishOptions::default()
    }

    /// A receipt to wait for, in the place of [`on_receipt`](PublishOptions::on_receipt).
    pub fn with_receipt(self) -> (PublishOptions, PendingReceipt) {
        // The one report finds room always.
        let (sender, receiver) = bounded(1);
        let options = self.on_receipt(move |report| {
            // It fails only if nobody waits any more.
            let _ = sender.try_send(report);
        });
        (options, PendingReceipt { receiver })
    }
}

impl Handle {
    /// Publishes a message to a topic. It is in the topic's order when this returns, and on its way to all
    /// subscribers. Never blocks.
    ///
    /// # Errors
    /// When the topic or the size cannot stand, more is being published than is delivered, or the server has ended.
    pub fn publish(&self, topic: &str, message: Message<'_>) -> Result<(), PublishError> {
        self.publish_with(topic, message, PublishOptions::new())
    }

    /// Publishes a message with what else it carries. As [`publish`](Handle::publish) otherwise.
    ///
    /// # Errors
    /// As [`publish`](Handle::publish), and when an option cannot stand.
    pub fn publish_with(
        &self,
        topic: &str,
        message: Message<'_>,
        options: PublishOptions,
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
        let now_us = self.clock.now_us();
        if let Some(extras) = options.extras() {
            let key = extras.key.as_deref();
            key.map_or(Ok(()), check_key)
                .map_err(|reason| PublishError::InvalidKey(reason.to_owned()))?;
            let limits = *self.field_limits();
            options
                .check(&limits)
                .map_err(|error| PublishError::InvalidOption(error.0.into_owned()))?;
        }
        if self.is_closed() {
            return Err(PublishError::Closed);
        }
        let draft = Draft {
            topic: &topic,
            kind: message.kind(),
            payload,
            options,
            connection: None,
        };
        let publication = hooks::admit(&self.shared, draft, now_us)
            .map_err(|denied| PublishError::Refused(Refusal::from(denied).reason.into_owned()))?;
        self.place(topic, publication)
    }

    /// Hands a publication to the hub.
    fn place(&self, topic: Topic, publication: Publication) -> Result<(), PublishError> {
        let receipt = publication.receipt().cloned();
        if let Some(receipt) = &receipt
            && !self.receipts.note(receipt)
        {
            return Err(PublishError::Full);
        }
        let command = Command::Publish {
            topic,
            publication: Arc::new(publication),
            origin: Origin::Detached,
        };
        let submitted = self.shared.shards.submit(command, None);
        if self.is_closed() {
            // The server ended meanwhile, and may not have seen this one any more.
            self.shared.shards.forget_all();
            if let Some(receipt) = receipt {
                receipt.close();
            }
        }
        submitted.map_err(|_| PublishError::Full)
    }
}

/// A receipt that is still to come: the publication is being written.
#[derive(Debug)]
pub struct PendingReceipt {
    receiver: Receiver<Report>,
}

impl PendingReceipt {
    /// Waits for the report of the publication, at most for `timeout`. It is handed over once.
    ///
    /// # Errors
    /// When the writes are not done by then; it may be called again. When there will be no report.
    pub fn wait(&self, timeout: Duration) -> Result<Report, ReceiptError> {
        self.receiver
            .recv_timeout(timeout)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => ReceiptError::Timeout,
                RecvTimeoutError::Disconnected => ReceiptError::Closed,
            })
    }
}

/// Reason that a receipt's report is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The writes are not done yet.
    Timeout,
    /// There will be none: the server has ended, the publication was refused, or the report was handed over before.
    Closed,
}

impl fmt::Display for ReceiptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReceiptError::Timeout => "the publication is still being written",
            ReceiptError::Closed => "there will be no report of this publication",
        })
    }
}

impl std::error::Error for ReceiptError {}

/// Reason that a message was not published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// What was given is no topic; the text says why.
    InvalidTopic(String),
    /// What was given is no key; the text says why.
    InvalidKey(String),
    /// Another option cannot stand; the text says why.
    InvalidOption(String),
    /// It is longer than `publication_bytes_max`.
    TooBig {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// More is being published than is delivered; try again a little later.
    Full,
    /// The program's [`on_publish`](crate::Builder::on_publish) refused it; the text says why.
    Refused(String),
    /// The server has ended, or a thread of it has, and all of it does.
    Closed,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::InvalidTopic(reason)
            | PublishError::Refused(reason)
            | PublishError::InvalidKey(reason)
            | PublishError::InvalidOption(reason) => f.write_str(reason),
            PublishError::TooBig { bytes, bytes_max } => {
                write!(
                    f,
                    "{bytes} bytes are more than publication_bytes_max allows ({bytes_max})"
                )
            }
            PublishError::Closed => f.write_str("the server has ended"),
            PublishError::Full => {
                f.write_str("more is being published than is delivered; try again")
            }
        }
    }
}

impl std::error::Error for PublishError {}
