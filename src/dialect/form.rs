//! The forms in which a publication leaves, and which of them a connection takes.

use super::{Dialect, umbel_v1};
use crate::hub::Position;
use crate::protocol::deflate::{Agreement, WINDOW_BITS_MAX};
use crate::topic::Pattern;
use crate::topic::Topic;

/// Makes the frame that says which publications of a topic did not come, from one position to another and with both. The
/// pattern is that of the subscription, if it is one by a pattern. It never makes an empty one.
pub type GapEncoder = fn(&Topic, Option<&Pattern>, Position, Position) -> Box<[u8]>;

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
    /// A WebSocket frame with a text message of `umbel.v1`.
    V1,
    /// The same, compressed by itself, in the largest window.
    V1Deflated,
    /// A WebSocket frame with a binary message of `umbel.v1.bin`.
    V1Binary,
    /// The same, compressed by itself, in the largest window.
    V1BinaryDeflated,
}

/// How many forms there are.
pub const FORM_COUNT: usize = 9;

impl Form {
    /// All of them, each at its own number.
    pub const ALL: [Form; FORM_COUNT] = [
        Form::Raw,
        Form::Sse,
        Form::Deflated,
        Form::DeflatedSmall,
        Form::Cohort,
        Form::V1,
        Form::V1Deflated,
        Form::V1Binary,
        Form::V1BinaryDeflated,
    ];

    /// The best form for a connection of this dialect that agreed to this. [`Form::Cohort`] is for those that are in step
    /// with their topic's cohort; they take [`Form::Deflated`] until they are. Cohorts are of connections that get the
    /// publications of one topic and nothing else, and so of none that speak `umbel.v1`, where small windows are too
    /// rare for a form of their own.
    pub fn best(dialect: Dialect, agreement: Option<Agreement>) -> Form {
        let Some(agreement) = agreement else {
            return dialect.into();
        };
        let is_small = agreement.server_window_bits < WINDOW_BITS_MAX;
        match dialect {
            Dialect::Raw if is_small => Form::DeflatedSmall,
            Dialect::Raw if agreement.server_takeover => Form::Cohort,
            Dialect::Raw => Form::Deflated,
            Dialect::V1 if !is_small => Form::V1Deflated,
            Dialect::V1Binary if !is_small => Form::V1BinaryDeflated,
            Dialect::Sse | Dialect::V1 | Dialect::V1Binary => dialect.into(),
        }
    }

    /// How its dialect says which publications did not come; None where it cannot.
    pub fn gap_encoder(self) -> Option<GapEncoder> {
        match self {
            Form::V1 | Form::V1Deflated | Form::V1Binary | Form::V1BinaryDeflated => {
                Some(umbel_v1::gap_frame)
            }
            _ => None,
        }
    }

    /// Whether it may be compressed.
    pub fn is_compressed(self) -> bool {
        match self {
            Form::Raw | Form::Sse | Form::V1 | Form::V1Binary => false,
            Form::Deflated
            | Form::DeflatedSmall
            | Form::Cohort
            | Form::V1Deflated
            | Form::V1BinaryDeflated => true,
        }
    }
}

impl From<Dialect> for Form {
    /// The form without compression.
    fn from(dialect: Dialect) -> Form {
        match dialect {
            Dialect::Raw => Form::Raw,
            Dialect::Sse => Form::Sse,
            Dialect::V1 => Form::V1,
            Dialect::V1Binary => Form::V1Binary,
        }
    }
}

/// How far back a connection's window holds what its topic's cohort has sent: a number that only the cohort reads. See
/// `compression::cohort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub(crate) u64);

impl Default for Place {
    /// Out of step with every cohort.
    fn default() -> Place {
        Place(u64::MAX)
    }
}

/// How many compressed deliveries a topic has had of late: their number, halved every four seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecentDeliveries {
    deliveries: u32,
    /// When, in units of the half-life.
    at: u32,
}

/// The half-life is 2 to this power milliseconds.
const HALF_LIFE_SHIFT: u32 = 12;

impl RecentDeliveries {
    /// Counts some more, and gives the number before.
    pub fn add(&mut self, deliveries: u32, now_ms: u64) -> u32 {
        let before = self.get(now_ms);
        *self = RecentDeliveries {
            deliveries: before.saturating_add(deliveries),
            at: (now_ms >> HALF_LIFE_SHIFT) as u32,
        };
        before
    }

    /// The number at this moment.
    pub fn get(&self, now_ms: u64) -> u32 {
        let halvings = ((now_ms >> HALF_LIFE_SHIFT) as u32).wrapping_sub(self.at);
        self.deliveries.checked_shr(halvings).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::deflate::{Policy, choose};

    fn best(dialect: Dialect, offer: &str) -> Form {
        let policy = Policy {
            enabled: true,
            server_takeover: true,
            ..Policy::default()
        };
        let agreement = choose([offer.as_bytes()], &policy).expect("the offer can be met");
        Form::best(dialect, Some(agreement))
    }

    #[test]
    fn every_form_stands_at_its_number() {
        for (number, form) in Form::ALL.into_iter().enumerate() {
            assert_eq!(form as usize, number);
        }
    }

    #[test]
    fn the_best_form_follows_from_dialect_and_agreement() {
        for dialect in Dialect::ALL {
            let plain = Form::from(dialect);
            assert_eq!(Form::best(dialect, None), plain);
            assert!(!plain.is_compressed());
        }
        for (dialect, forms) in [
            (
                Dialect::Raw,
                [Form::Cohort, Form::Deflated, Form::DeflatedSmall],
            ),
            (Dialect::Sse, [Form::Sse; 3]),
            (Dialect::V1, [Form::V1Deflated, Form::V1Deflated, Form::V1]),
            (
                Dialect::V1Binary,
                [
                    Form::V1BinaryDeflated,
                    Form::V1BinaryDeflated,
                    Form::V1Binary,
                ],
            ),
        ] {
            let offers = [
                "permessage-deflate",
                "permessage-deflate; server_no_context_takeover",
                "permessage-deflate; server_max_window_bits=9",
            ];
            assert_eq!(offers.map(|offer| best(dialect, offer)), forms);
        }
    }
}
