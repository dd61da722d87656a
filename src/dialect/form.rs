//! The forms in which publications leave.

/// The number of a row of the [table](super::Dialects).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Encoding(pub(super) u8);

impl Encoding {
    /// Encoding whose plain form is the frame of the payload.
    pub const PAYLOAD: Encoding = Encoding(0);

    /// Most encodings of a table.
    pub const COUNT_MAX: usize = 1 << (8 - CLASS_BITS);

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Compression class of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Not at all.
    Plain,
    /// Each by itself, in the largest window.
    Large,
    /// Each by itself, in the smallest window, which suits all that are smaller than the largest.
    Small,
    /// In the context of the topic's cohort. For connections that get the publications of one topic and nothing else.
    Cohort,
}

const CLASS_BITS: u32 = 2;
const CLASS_MASK: u8 = (1 << CLASS_BITS) - 1;

/// Form of a publication on the wire.
///
/// ```text
///  bit  7 6 5 4 3 2 | 1 0
///       encoding    | class
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Form(u8);

impl Form {
    /// The frame that every publication is born as.
    pub const PAYLOAD: Form = Form::new(Encoding::PAYLOAD, Class::Plain);
    /// Payload in a frame compressed by itself, in the largest window.
    pub const PAYLOAD_LARGE: Form = Form::new(Encoding::PAYLOAD, Class::Large);
    /// Payload in a frame of the topic's cohort.
    pub const COHORT: Form = Form::new(Encoding::PAYLOAD, Class::Cohort);

    /// An encoding, compressed so.
    pub const fn new(encoding: Encoding, class: Class) -> Form {
        Form(encoding.0 << CLASS_BITS | class as u8)
    }

    /// Its number, by which the hub knows it.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The encoding.
    pub fn encoding(self) -> Encoding {
        Encoding(self.0 >> CLASS_BITS)
    }

    /// The class of compression.
    pub fn class(self) -> Class {
        match self.0 & CLASS_MASK {
            0 => Class::Plain,
            1 => Class::Large,
            2 => Class::Small,
            _ => Class::Cohort,
        }
    }

    /// This form without compression.
    #[must_use]
    pub fn plain(self) -> Form {
        Form(self.0 & !CLASS_MASK)
    }

    /// Whether it may be compressed.
    pub fn is_compressed(self) -> bool {
        self.0 & CLASS_MASK != 0
    }
}

/// Reach of a connection's window in what its topic's cohort has sent: a number that only the cohort reads. See
/// `compression::cohort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub(crate) u64);

impl Default for Place {
    /// Out of step with every cohort.
    fn default() -> Place {
        Place(u64::MAX)
    }
}

/// Recent compressed deliveries of a topic: their number, halved every four seconds.
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

    #[test]
    fn a_form_gives_back_what_it_is_made_of() {
        for number in 0..Encoding::COUNT_MAX as u8 {
            for class in [Class::Plain, Class::Large, Class::Small, Class::Cohort] {
                let form = Form::new(Encoding(number), class);
                assert_eq!((form.encoding(), form.class()), (Encoding(number), class));
                assert_eq!(form.is_compressed(), class != Class::Plain);
                assert_eq!(form.plain(), Form::new(Encoding(number), Class::Plain));
            }
        }
        assert_eq!(Form::PAYLOAD, Form::default());
    }
}
