//! The forms in which a publication leaves, and which of them a connection takes.

use super::Dialect;
use crate::protocol::deflate::{Agreement, WINDOW_BITS_MAX};

/// What the bytes of a publication look like on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// A WebSocket frame with the payload as it is.
    #[default]
    Raw,
    /// An event of `text/event-stream`.
    Sse,
    /// A WebSocket frame that is compressed by itself, in the largest window.
    Deflated,
    /// A WebSocket frame that is compressed by itself, in the smallest window.
    DeflatedSmall,
    /// A WebSocket frame that is compressed in the context of the topic's cohort.
    Cohort,
}

/// How many forms there are.
pub const FORM_COUNT: usize = 5;

impl Form {
    /// The best form for a WebSocket connection that agreed to this. [`Form::Cohort`] is for those that are in step with
    /// their topic's cohort; they take [`Form::Deflated`] until they are.
    pub fn of_agreement(agreement: Option<Agreement>) -> Form {
        match agreement {
            None => Form::Raw,
            Some(agreement) if agreement.server_window_bits < WINDOW_BITS_MAX => {
                Form::DeflatedSmall
            }
            Some(agreement) if agreement.server_takeover => Form::Cohort,
            Some(_) => Form::Deflated,
        }
    }
}

impl From<Dialect> for Form {
    /// The form without compression.
    fn from(dialect: Dialect) -> Form {
        match dialect {
            Dialect::Raw => Form::Raw,
            Dialect::Sse => Form::Sse,
        }
    }
}

/// How far back a connection's window holds what its topic's cohort has sent: a number that only the cohort reads. See
/// [`cohort`](super::cohort).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub(super) u64);

impl Default for Place {
    /// Out of step with every cohort.
    fn default() -> Place {
        Place(u64::MAX)
    }
}

/// How many compressed deliveries a topic has had of late: their number, halved every four seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heat {
    deliveries: u32,
    /// When, in units of the half-life.
    at: u32,
}

/// The half-life is 2 to this power milliseconds.
const HALF_LIFE_SHIFT: u32 = 12;

impl Heat {
    /// Counts some more, and gives the heat before.
    pub fn add(&mut self, deliveries: u32, now_ms: u64) -> u32 {
        let before = self.get(now_ms);
        *self = Heat {
            deliveries: before.saturating_add(deliveries),
            at: (now_ms >> HALF_LIFE_SHIFT) as u32,
        };
        before
    }

    /// The heat at this moment.
    pub fn get(&self, now_ms: u64) -> u32 {
        let halvings = ((now_ms >> HALF_LIFE_SHIFT) as u32).wrapping_sub(self.at);
        self.deliveries.checked_shr(halvings).unwrap_or(0)
    }
}
