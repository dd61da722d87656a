//! Bounds on lines of the log, of all reactors together.

use std::fmt;

use log::Level;

use crate::auth::access::Action;
use crate::dialect::ending::CloseReason;
use crate::http::refusal::Refusal;
use crate::logging::{Allowance, Line, more};

/// Bounds on lines about what peers can cause.
#[derive(Debug)]
pub struct LineBounds {
    /// Ends for a fault of the peer, by [`CloseReason::index`].
    pub closed: [Allowance; CloseReason::LABELS.len()],
    /// Refused requests, by the place of their label.
    pub refused: [Allowance; Refusal::LABELS.len()],
    /// Slow consumers.
    pub slow_consumer: Allowance,
    /// Actions that were denied, by the place of their name.
    denied: [Allowance; ACTIONS.len()],
}

/// Names of actions.
const ACTIONS: [&str; 8] = [
    "subscribe",
    "publish",
    "presence",
    "history",
    "connect",
    "open",
    "observe",
    "manage",
];

/// Name of an action, by its place in [`ACTIONS`], and the topic or the path that it is about.
fn parts<'a>(action: &Action<'a>) -> (usize, Option<&'a str>) {
    match action {
        Action::Subscribe(topic) | Action::SubscribePattern(topic) => (0, Some(topic)),
        Action::Publish(topic) => (1, Some(topic)),
        Action::PublishMany => (1, None),
        Action::Presence(topic) => (2, Some(topic)),
        Action::History(topic) => (3, Some(topic)),
        Action::Connect => (4, None),
        Action::Open(path) => (5, Some(path)),
        Action::Observe => (6, None),
        Action::Manage(topic) => (7, *topic),
    }
}

impl Default for LineBounds {
    fn default() -> LineBounds {
        LineBounds {
            closed: Default::default(),
            refused: std::array::from_fn(|_| Allowance::default()),
            slow_consumer: Allowance::default(),
            denied: Default::default(),
        }
    }
}

impl LineBounds {
    /// Writes that an open connection was denied an action.
    #[cold]
    pub fn write_denied(
        &self,
        connection: &impl fmt::Display,
        subject: Option<&str>,
        action: &Action<'_>,
        now_us: u64,
    ) {
        let (place, topic) = parts(action);
        let name = ACTIONS[place];
        if let Some(left_out) = self.denied[place].take(now_us) {
            more("denied", name, left_out);
            Line::of("denied")
                .with_words("connection", connection)
                .with_some("subject", subject)
                .with("action", name)
                .with_some("topic", topic)
                .write(Level::Info, format_args!("denied"));
        }
    }

    /// Writes how many lines were left out in seconds that are over.
    pub fn flush(&self, now_us: u64) {
        let closed = CloseReason::LABELS.iter().zip(&self.closed);
        let refused = Refusal::LABELS.iter().zip(&self.refused);
        let denied = ACTIONS.iter().zip(&self.denied);
        let slow = (&"slow_consumer", &self.slow_consumer);
        let all = closed
            .map(|it| ("closed", it))
            .chain(refused.map(|it| ("refused", it)))
            .chain(denied.map(|it| ("denied", it)))
            .chain([("slow_consumer", slow)]);
        for (event, (kind, allowance)) in all {
            if let Some(left_out) = allowance.flush(now_us) {
                more(event, kind, left_out);
            }
        }
    }
}
