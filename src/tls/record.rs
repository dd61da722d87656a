//! Records of TLS 1.3 and 1.2 behind the handshake: sealed, and opened where they lie.
//!
//! Keys, sequence numbers and bytes go in, bytes come out; there is no socket and no clock here. A sequence number moves when a
//! record is sealed and is never used again: two records under one nonce would give the key of AES-GCM away. So what is sealed
//! is to be sent, or the connection to end.

use std::ops::Range;

pub use keys::{Keys, MadeKey};

/// Bytes of a record's head.
pub const HEAD_BYTES: usize = 5;

/// Plaintext of one record, at most.
pub const FRAGMENT_BYTES_MAX: usize = 1 << 14;

/// Ciphertext of one record, at most: of 1.3 with its type, padding and tag, of 1.2 with its nonce and tag.
const CIPHERTEXT_BYTES_MAX: usize = FRAGMENT_BYTES_MAX + 256;

/// Records without content in a row, at most.
const EMPTY_RECORDS_MAX: u8 = 32;

/// Bytes of a KeyUpdate: type, length, and whether an answer is asked for.
const KEY_UPDATE_BYTES: usize = 5;

/// Type of a record's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Content {
    /// change_cipher_spec.
    ChangeCipherSpec = 20,
    /// An alert.
    Alert = 21,
    /// A handshake message.
    Handshake = 22,
    /// Application data.
    Data = 23,
}

impl Content {
    fn of(byte: u8) -> Option<Content> {
        let all = [
            Content::ChangeCipherSpec,
            Content::Alert,
            Content::Handshake,
            Content::Data,
        ];
        all.into_iter().find(|content| *content as u8 == byte)
    }
}

/// Version of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Number of the alert that ends a connection (RFC 8446 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fatal(pub u8);

impl Fatal {
    /// unexpected_message.
    pub const UNEXPECTED_MESSAGE: Fatal = Fatal(10);
    /// bad_record_mac.
    pub const BAD_RECORD_MAC: Fatal = Fatal(20);
    /// record_overflow.
    pub const RECORD_OVERFLOW: Fatal = Fatal(22);
    /// illegal_parameter.
    pub const ILLEGAL_PARAMETER: Fatal = Fatal(47);
    /// decode_error.
    pub const DECODE_ERROR: Fatal = Fatal(50);
    /// internal_error.
    pub const INTERNAL_ERROR: Fatal = Fatal(80);
}

fn head(content: u8, length: usize) -> [u8; HEAD_BYTES] {
    let [high, low] = (length as u16).to_be_bytes();
    [content, 3, 3, high, low]
}

/// Length of the record that these bytes begin with. None: its head is not whole.
///
/// # Errors
/// They begin no record of a connection whose handshake is done.
pub fn record_length(bytes: &[u8], version: RecordVersion) -> Result<Option<usize>, Fatal> {
    let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    let content = Content::of(head[0]).ok_or(Fatal::UNEXPECTED_MESSAGE)?;
    if version == RecordVersion::Tls13 && content != Content::Data {
        return Err(Fatal::UNEXPECTED_MESSAGE);
    }
    if head[1] != 3 {
        return Err(Fatal::DECODE_ERROR);
    }
    let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
    match length <= CIPHERTEXT_BYTES_MAX {
        true => Ok(Some(HEAD_BYTES + length)),
        false => Err(Fatal::RECORD_OVERFLOW),
    }
}

/// Meaning of one record that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is not whole yet.
    Partial,
    /// Application data, at this place.
    Data(Range<usize>),
    /// There is nothing in it for anybody above.
    Nothing,
    /// The peer's next record is under its next key. `wants_answer`: ours is to change too.
    KeyUpdate {
        /// Whether the peer wants our key changed too.
        wants_answer: bool,
    },
    /// close_notify: the peer says no more.
    Closed,
    /// The peer has ended it by this alert.
    Ended(u8),
    /// The peer of 1.2 wants to negotiate anew, which is to be answered with the warning no_renegotiation.
    Renegotiation,
}

/// The peer's side of a connection whose handshake is done.
#[derive(Debug)]
pub struct Incoming {
    keys: Keys,
    empty_records: u8,
    /// A part of a KeyUpdate, and its length.
    message: [u8; KEY_UPDATE_BYTES],
    message_len: u8,
}

impl Incoming {
    /// That of these keys.
    pub fn new(keys: Keys) -> Incoming {
        Incoming {
            keys,
            empty_records: 0,
            message: [0; KEY_UPDATE_BYTES],
            message_len: 0,
        }
    }

    /// The version that it speaks.
    pub fn version(&self) -> RecordVersion {
        self.keys.version()
    }

    /// The keys that open its next record.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The peer has another key from its next record on.
    pub fn set_keys(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// Takes the record at the front of `bytes`. Gives its length, of which the caller lets go, and its meaning. `made`: the key
    /// for the records of one burst, made where it is not there or is another's.
    ///
    /// # Errors
    /// The alert by which the connection is to end.
    pub fn take(
        &mut self,
        made: &mut Option<MadeKey>,
        bytes: &mut [u8],
    ) -> Result<(usize, Step), Fatal> {
        let version = self.keys.version();
        let length = record_length(bytes, version)?;
        let Some(length) = length.filter(|length| *length <= bytes.len()) else {
            return Ok((0, Step::Partial));
        };
        let made = match made {
            Some(made) if made.is_of(&self.keys) => made,
            made => made.insert(self.keys.make()?),
        };
        let (content, place) = self.keys.open(made, &mut bytes[..length])?;
        if content != Content::Handshake && self.message_len > 0 {
            return Err(Fatal::UNEXPECTED_MESSAGE);
        }
        match content == Content::Data && !place.is_empty() {
            true => self.empty_records = 0,
            false => self.empty_records += 1,
        }
        if self.empty_records > EMPTY_RECORDS_MAX {
            return Err(Fatal::UNEXPECTED_MESSAGE);
        }
        let step = match content {
            Content::Data if place.is_empty() => Step::Nothing,
            Content::Data => Step::Data(place),
            Content::Alert => alert(version, &bytes[place])?,
            Content::Handshake => self.take_handshake(version, &bytes[place])?,
            Content::ChangeCipherSpec => return Err(Fatal::UNEXPECTED_MESSAGE),
        };
        Ok((length, step))
    }

    fn take_handshake(&mut self, version: RecordVersion, bytes: &[u8]) -> Result<Step, Fatal> {
        match (version, bytes.first()) {
            (_, None) => return Err(Fatal::UNEXPECTED_MESSAGE),
            (RecordVersion::Tls12, Some(1)) => return Ok(Step::Renegotiation),
            (RecordVersion::Tls12, Some(_)) => return Err(Fatal::UNEXPECTED_MESSAGE),
            (RecordVersion::Tls13, Some(_)) => {}
        }
        let from = usize::from(self.message_len);
        let (begun, behind) = bytes.split_at(bytes.len().min(KEY_UPDATE_BYTES - from));
        let seen = from + begun.len();
        self.message[from..seen].copy_from_slice(begun);
        let begin = [24, 0, 0, 1];
        if self.message[0] != begin[0] {
            return Err(Fatal::UNEXPECTED_MESSAGE);
        }
        let compared = seen.min(begin.len());
        if self.message[..compared] != begin[..compared] {
            return Err(Fatal::DECODE_ERROR);
        }
        // The key changes behind a KeyUpdate, so nothing may follow it in its record (RFC 8446 section 5.1).
        if !behind.is_empty() {
            return Err(Fatal::UNEXPECTED_MESSAGE);
        }
        if seen < KEY_UPDATE_BYTES {
            self.message_len = seen as u8;
            return Ok(Step::Nothing);
        }
        self.message_len = 0;
        match self.message[begin.len()] {
            request @ (0 | 1) => Ok(Step::KeyUpdate {
                wants_answer: request == 1,
            }),
            _ => Err(Fatal::ILLEGAL_PARAMETER),
        }
    }
}

/// Meaning of an alert. In 1.3 all are fatal but two.
fn alert(version: RecordVersion, bytes: &[u8]) -> Result<Step, Fatal> {
    const WARNING: u8 = 1;
    const FATAL: u8 = 2;
    match *bytes {
        [level, _] if level != WARNING && level != FATAL => Err(Fatal::ILLEGAL_PARAMETER),
        [_, 0] => Ok(Step::Closed),
        [WARNING, 90] => Ok(Step::Nothing),
        [WARNING, _] if version == RecordVersion::Tls12 => Ok(Step::Nothing),
        [_, alert] => Ok(Step::Ended(alert)),
        [] => Err(Fatal::UNEXPECTED_MESSAGE),
        _ => Err(Fatal::DECODE_ERROR),
    }
}

mod keys;
#[cfg(test)]
pub mod once;
#[cfg(test)]
mod tests;
