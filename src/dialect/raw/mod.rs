//! The payloads of one topic as they were published: its messages are the publications, in both directions.
//!
//! Its plain form is the frame that every publication is born as, so nothing is encoded for it.

use super::{Class, Dialect};
use crate::hub::{Kind, Publication};
use crate::protocol::Opcode;
use crate::protocol::deflate::{Agreement, WINDOW_BITS_MAX};
use crate::topic::Pattern;

/// The dialect.
pub struct Raw;

impl Dialect for Raw {
    fn label(&self) -> &'static str {
        "raw"
    }

    fn encode_publication(
        &self,
        out: &mut Vec<u8>,
        publication: &Publication,
        _: Option<&Pattern>,
    ) {
        out.extend_from_slice(publication.payload());
    }

    fn publication_opcode(&self, publication: &Publication) -> Opcode {
        match publication.kind() {
            Kind::Text => Opcode::Text,
            Kind::Binary => Opcode::Binary,
        }
    }

    /// Its connections get the publications of one topic and nothing else, so they can be in the topic's cohort.
    fn class(&self, agreement: Agreement) -> Class {
        if agreement.server_window_bits < WINDOW_BITS_MAX {
            Class::Small
        } else if agreement.server_takeover {
            Class::Cohort
        } else {
            Class::Large
        }
    }
}
