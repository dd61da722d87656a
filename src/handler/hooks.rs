//! Hooks: a program's code that sees publications before they are placed, and hears of subscriptions.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::{ConnectionId, Message};
use crate::auth::access::Denied;
use crate::hub::{Kind, PublishOptions};

/// Code that may refuse or rewrite a publication.
pub(crate) type OnPublish = dyn Fn(&mut Publishing<'_>) -> Result<(), Denied> + Send + Sync;

/// Code that hears of subscriptions.
pub(crate) type OnSubscription = dyn Fn(&SubscriptionEvent<'_>) + Send + Sync;

/// The hooks of a server. Where there is none, nothing is done for it.
#[derive(Clone, Default)]
pub struct Hooks {
    pub(crate) on_publish: Option<Arc<OnPublish>>,
    pub(crate) on_subscription: Option<Arc<OnSubscription>>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("on_publish", &self.on_publish.is_some())
            .field("on_subscription", &self.on_subscription.is_some())
            .finish()
    }
}

/// A publication that is about to be placed, as [`Builder::on_publish`](crate::Builder::on_publish) sees it. What is set
/// here is published.
pub struct Publishing<'a> {
    topic: &'a str,
    kind: Kind,
    payload: Cow<'a, [u8]>,
    options: PublishOptions,
    connection: Option<ConnectionId>,
}

impl<'a> Publishing<'a> {
    pub(crate) fn new(
        topic: &'a str,
        (kind, payload): (Kind, &'a [u8]),
        options: PublishOptions,
        connection: Option<ConnectionId>,
    ) -> Publishing<'a> {
        Publishing {
            topic,
            kind,
            payload: Cow::Borrowed(payload),
            options,
            connection,
        }
    }

    /// Kind, payload and options as they are now.
    pub(crate) fn into_parts(self) -> (Kind, Cow<'a, [u8]>, PublishOptions) {
        (self.kind, self.payload, self.options)
    }

    /// The topic, in its canonical form.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The message.
    pub fn message(&self) -> Message<'_> {
        let text = match self.kind {
            Kind::Text => std::str::from_utf8(&self.payload).ok(),
            Kind::Binary => None,
        };
        text.map_or(Message::Binary(&self.payload), Message::Text)
    }

    /// The other fields of the message.
    pub fn options(&self) -> &PublishOptions {
        &self.options
    }

    /// The connection that it came by, or whose request it is. None: it came by a [`Handle`](crate::Handle).
    pub fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }

    /// Publishes this text instead.
    pub fn set_text(&mut self, text: impl Into<String>) {
        self.kind = Kind::Text;
        self.payload = Cow::Owned(text.into().into_bytes());
    }

    /// Publishes these bytes instead, as a binary message.
    pub fn set_binary(&mut self, bytes: impl Into<Vec<u8>>) {
        self.kind = Kind::Binary;
        self.payload = Cow::Owned(bytes.into());
    }

    /// Changes the options: `change` gets those that there are. A receipt that was asked for
    /// stays, and so does the publisher where no other is set.
    pub fn change_options(&mut self, change: impl FnOnce(PublishOptions) -> PublishOptions) {
        let before = std::mem::take(&mut self.options);
        let receipt = before.extras().and_then(|extras| extras.receipt.clone());
        let publisher = before.extras().and_then(|extras| extras.publisher.clone());
        self.options = change(before)
            .with_receipt_of(receipt)
            .with_publisher_of(publisher);
    }
}

impl fmt::Debug for Publishing<'_> {
    /// Without the payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publishing")
            .field("topic", &self.topic)
            .field("bytes", &self.payload.len())
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// The begin or the end of one subscription of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriptionEvent<'a> {
    /// The connection gets what is published from here on.
    Began {
        /// The connection.
        connection: ConnectionId,
        /// The topic, or the pattern.
        target: &'a str,
        /// Whether it is a pattern.
        is_pattern: bool,
    },
    /// The connection gets no more: it has unsubscribed, has lost the right, or has ended.
    Ended {
        /// The connection.
        connection: ConnectionId,
        /// The topic, or the pattern.
        target: &'a str,
        /// Whether it is a pattern.
        is_pattern: bool,
    },
}
