//! Subscriptions of the program itself.

use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Handle;
use crate::connection::Message;
use crate::hub::{Extras, Kind, Position, Start};
use crate::inside::queue::{Queue, QueueRules};
use crate::inside::{Membership, Refused};
use crate::topic::{Pattern, Topic};

pub use crate::inside::queue::{Delivery, ReceivedPublication, SubscriptionEnd, WhenFull};

/// Default of [`SubscribeOptions::queue_max`].
pub const QUEUE_MAX: usize = 1024;

/// Default of [`SubscribeOptions::queue_bytes_max`].
pub const QUEUE_BYTES_MAX: usize = 16 << 20;

/// Options of a subscription inside the process. Each is left out by default.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct SubscribeOptions {
    start: Start,
    rules: QueueRules,
}

impl Default for SubscribeOptions {
    fn default() -> SubscribeOptions {
        SubscribeOptions::new()
    }
}

impl SubscribeOptions {
    /// From now on, and gaps where the program is slow. The queue has room for [`QUEUE_MAX`] publications and
    /// [`QUEUE_BYTES_MAX`] bytes.
    pub const fn new() -> SubscribeOptions {
        SubscribeOptions {
            start: Start::Now,
            rules: QueueRules {
                publications_max: QUEUE_MAX,
                bytes_max: QUEUE_BYTES_MAX,
                when_full: WhenFull::Gap,
            },
        }
    }

    /// From behind a position on. [`Delivery::Began`] says whether all of it was still there.
    pub const fn since(mut self, position: Position) -> SubscribeOptions {
        self.start = Start::Since(position);
        self
    }

    /// With the last publications of the topic's history, so many at most.
    pub const fn last(mut self, count: u32) -> SubscribeOptions {
        self.start = Start::Last(count);
        self
    }

    /// Publications that may wait, at least 1.
    pub const fn queue_max(mut self, publications: usize) -> SubscribeOptions {
        self.rules.publications_max = publications;
        self
    }

    /// Bytes of publications that may wait. A single one always fits.
    pub const fn queue_bytes_max(mut self, bytes: usize) -> SubscribeOptions {
        self.rules.bytes_max = bytes;
        self
    }

    /// Treatment of a full queue.
    pub const fn when_full(mut self, when_full: WhenFull) -> SubscribeOptions {
        self.rules.when_full = when_full;
        self
    }
}

/// Reason that nothing was subscribed to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// What was given is no topic or pattern; the text says why.
    Invalid(String),
    /// A pattern has no position, and so no history to begin with.
    PatternHasNoPosition,
    /// The program has as many subscriptions as there may be: 65,536.
    TooMany,
    /// More is being asked of the hub than it takes; try again a little later.
    Full,
    /// The server has ended.
    Closed,
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SubscribeError::Invalid(reason) => reason,
            SubscribeError::PatternHasNoPosition => {
                "a pattern has no position: subscribe by it from now on"
            }
            SubscribeError::TooMany => "the program has as many subscriptions as it may",
            SubscribeError::Full => "more is being asked of the hub than it takes; try again",
            SubscribeError::Closed => "the server has ended",
        })
    }
}

impl std::error::Error for SubscribeError {}

impl Handle {
    /// Subscribes to a topic, inside the process and without a right. Publications come in the topic's order, each once, or
    /// the subscription is told that some are missing: what a [`Delivery`] does not tell of did not happen.
    ///
    /// They wait in a bounded queue. Where the program is slow, the server is not: what is done then is said by
    /// [`SubscribeOptions::when_full`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use umbel::{Delivery, Message, Server, SubscribeOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::builder()
    ///     .listen(([127, 0, 0, 1], 0).into())
    ///     .topic_rule("orders/** history=100".parse()?)
    ///     .bind()?
    ///     .spawn()?;
    /// server.handle().publish("orders/1", Message::Text("paid"))?;
    ///
    /// let mut orders = server.handle().subscribe("orders/1", SubscribeOptions::new().last(10))?;
    /// let mut seen = Vec::new();
    /// while let Some(delivery) = orders.next_timeout(Duration::from_millis(100))? {
    ///     match delivery {
    ///         Delivery::Publication(order) => seen.push(order.position().offset),
    ///         Delivery::Gap { missed } => println!("{missed} are missing"),
    ///         _ => {}
    ///     }
    /// }
    /// assert_eq!(seen, [1]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the topic cannot stand, there are too many subscriptions, the hub takes no more commands, or the server has
    /// ended.
    pub fn subscribe(
        &self,
        topic: &str,
        options: SubscribeOptions,
    ) -> Result<Subscription, SubscribeError> {
        let topic = Topic::from_text(topic)
            .map_err(|refusal| SubscribeError::Invalid(refusal.reason.into_owned()))?;
        let membership =
            self.shared
                .inside
                .subscribe(&topic, options.start, Queue::new(options.rules));
        self.subscription(membership)
    }

    /// Subscribes by a pattern, as [`subscribe`](Handle::subscribe) does to a topic. Publications of each topic that matches
    /// come in its order; there is none between topics.
    ///
    /// # Errors
    /// As [`subscribe`](Handle::subscribe), and when a position was asked for.
    pub fn subscribe_pattern(
        &self,
        pattern: &str,
        options: SubscribeOptions,
    ) -> Result<Subscription, SubscribeError> {
        let pattern: Pattern = pattern
            .parse()
            .map_err(|error| SubscribeError::Invalid(format!("{error}")))?;
        if options.start != Start::Now {
            return Err(SubscribeError::PatternHasNoPosition);
        }
        let queue = Queue::new(options.rules);
        self.subscription(self.shared.inside.subscribe_pattern(&pattern, queue))
    }

    fn subscription(
        &self,
        membership: Result<Membership, Refused>,
    ) -> Result<Subscription, SubscribeError> {
        let membership = membership.map_err(|refused| match refused {
            _ if self.is_closed() => SubscribeError::Closed,
            Refused::TooMany => SubscribeError::TooMany,
            Refused::HubFull => SubscribeError::Full,
        })?;
        if self.is_closed() {
            // The end may not have seen this one any more.
            membership.queue().end(SubscriptionEnd::Closed);
        }
        Ok(Subscription { membership })
    }
}

/// A subscription inside the process, from [`Handle::subscribe`]. It ends when it is dropped.
///
/// It can be waited for by a thread ([`next_timeout`](Subscription::next_timeout)), by a task of any executor
/// ([`next`](Subscription::next)), or not at all ([`try_next`](Subscription::try_next)).
pub struct Subscription {
    membership: Membership,
}

impl Subscription {
    /// The next delivery, for which the thread waits at most so long. None: there was none by then.
    ///
    /// # Errors
    /// When the subscription has ended, and all that it got was taken.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Delivery>, SubscriptionEnd> {
        self.membership.queue().next_timeout(timeout).transpose()
    }

    /// The next delivery, if it is there already.
    ///
    /// # Errors
    /// As [`next_timeout`](Subscription::next_timeout).
    pub fn try_next(&mut self) -> Result<Option<Delivery>, SubscriptionEnd> {
        self.membership.queue().try_next().transpose()
    }

    /// The next delivery, for a task. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`next_timeout`](Subscription::next_timeout).
    pub async fn next(&mut self) -> Result<Delivery, SubscriptionEnd> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`next`](Subscription::next), for futures and streams of a program's own.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Delivery, SubscriptionEnd>> {
        self.membership.queue().poll_next(context)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("queue", self.membership.queue())
            .finish()
    }
}

impl ReceivedPublication {
    /// The topic that it was published to.
    pub fn topic(&self) -> &str {
        self.publication()
            .topic()
            .map_or("", |topic| topic.as_str())
    }

    /// Its position there.
    pub fn position(&self) -> Position {
        self.publication().position()
    }

    /// The message.
    pub fn message(&self) -> Message<'_> {
        let payload = self.publication().payload();
        let text = match self.publication().kind() {
            Kind::Text => std::str::from_utf8(payload).ok(),
            Kind::Binary => None,
        };
        text.map_or(Message::Binary(payload), Message::Text)
    }

    /// The content type. None where it says no more than that the message is text or binary.
    pub fn content_type(&self) -> Option<&str> {
        self.publication().content_type()
    }

    /// The conflation key.
    pub fn key(&self) -> Option<&str> {
        self.extras()?.key.as_deref()
    }

    /// The event.
    pub fn event(&self) -> Option<&str> {
        self.extras()?.event.as_deref()
    }

    /// The id that the publisher gave.
    pub fn id(&self) -> Option<&str> {
        self.extras()?.id.as_deref()
    }

    /// Subject of the publisher.
    ///
    /// None where the server does not know it, or the topic's rule does not show it.
    pub fn publisher(&self) -> Option<&str> {
        self.extras()?.publisher.as_deref()
    }

    /// The tags, in the publisher's order.
    pub fn tags(&self) -> impl Iterator<Item = (&str, &str)> {
        let tags = self.extras().map_or(&[][..], |extras| &extras.tags);
        tags.iter().map(|(name, value)| (&**name, &**value))
    }

    fn extras(&self) -> Option<&Extras> {
        self.publication().extras()
    }
}
