//! Records of TLS 1.3 and 1.2 behind the handshake: sealed, and opened where they lie.
//!
//! Keys, sequence numbers and bytes go in, bytes come out; there is no socket and no clock here. A sequence number moves when a
//! record is sealed and is never used again: two records under one nonce would give the key of AES-GCM away. So what is sealed
//! is to be sent, or the connection to end.

use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;

/// Bytes of a record's head.
pub const HEAD_BYTES: usize = 5;

/// Plaintext of one record, at most.
pub const FRAGMENT_BYTES_MAX: usize = 1 << 14;

/// Ciphertext of one record, at most: of 1.3 with its type, padding and tag, of 1.2 with its nonce and tag.
const CIPHERTEXT_BYTES_MAX: usize = FRAGMENT_BYTES_MAX + 256;

const TAG_BYTES: usize = 16;

/// The explicit part of a nonce of AES-GCM in 1.2.
const EXPLICIT_BYTES: usize = 8;

/// Records without content in a row, at most.
const EMPTY_RECORDS_MAX: u32 = 32;

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

/// Key of one direction, with its next sequence number. The key is wiped when it is dropped, and never shown.
pub struct Keys {
    version: RecordVersion,
    secrets: ConnectionTrafficSecrets,
    sequence: u64,
    /// Records under this key, at most.
    sequence_max: u64,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("version", &self.version)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// Those of a handshake, or of a key update. `limit`: records that may be sealed by the key.
    pub fn new(
        version: RecordVersion,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
        limit: u64,
    ) -> Keys {
        Keys {
            version,
            secrets,
            sequence,
            sequence_max: limit.min(u64::MAX - 1),
        }
    }

    /// Whether another key is due: half of what this one is good for is used up.
    pub fn is_worn(&self) -> bool {
        self.sequence >= self.sequence_max / 2
    }

    fn parts(&self) -> Option<(&'static Algorithm, &[u8], &[u8])> {
        match &self.secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => {
                Some((&AES_128_GCM, key.as_ref(), iv.as_ref()))
            }
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
                Some((&AES_256_GCM, key.as_ref(), iv.as_ref()))
            }
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                Some((&CHACHA20_POLY1305, key.as_ref(), iv.as_ref()))
            }
            _ => None,
        }
    }

    /// The key made ready, and the nonce of the next record.
    fn ready(&self) -> Result<(LessSafeKey, [u8; 12]), Fatal> {
        let (algorithm, key, iv) = self.parts().ok_or(Fatal::INTERNAL_ERROR)?;
        let key = UnboundKey::new(algorithm, key).map_err(|_| Fatal::INTERNAL_ERROR)?;
        let mut nonce: [u8; 12] = iv.try_into().map_err(|_| Fatal::INTERNAL_ERROR)?;
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        Ok((LessSafeKey::new(key), nonce))
    }

    /// Whether a record has a part of its nonce before its ciphertext.
    fn has_explicit_nonce(&self) -> bool {
        self.version == RecordVersion::Tls12
            && !matches!(
                self.secrets,
                ConnectionTrafficSecrets::Chacha20Poly1305 { .. }
            )
    }

    /// Takes the next sequence number, for good.
    fn step(&mut self) -> Result<u64, Fatal> {
        if self.sequence >= self.sequence_max {
            return Err(Fatal::INTERNAL_ERROR);
        }
        let sequence = self.sequence;
        self.sequence += 1;
        Ok(sequence)
    }

    /// What is authenticated of a record beside its content: of 1.3 its head, of 1.2 its number, type and length.
    fn additional(
        &self,
        sequence: u64,
        content: u8,
        (ciphertext, plaintext): (usize, usize),
    ) -> ([u8; 13], usize) {
        let mut data = [0; 13];
        match self.version {
            RecordVersion::Tls13 => {
                data[..HEAD_BYTES].copy_from_slice(&head(Content::Data as u8, ciphertext));
                (data, HEAD_BYTES)
            }
            RecordVersion::Tls12 => {
                data[..8].copy_from_slice(&sequence.to_be_bytes());
                data[8..].copy_from_slice(&head(content, plaintext));
                (data, 13)
            }
        }
    }

    /// Appends one record with these pieces, of [`FRAGMENT_BYTES_MAX`] in all.
    ///
    /// # Errors
    /// The key is used up, or there is more than a record holds; then nothing was appended, and no number taken.
    pub fn seal(
        &mut self,
        content: Content,
        pieces: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), Fatal> {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        if length > FRAGMENT_BYTES_MAX {
            return Err(Fatal::RECORD_OVERFLOW);
        }
        let (key, nonce) = self.ready()?;
        let sequence = self.step()?;
        let explicit = if self.has_explicit_nonce() {
            EXPLICIT_BYTES
        } else {
            0
        };
        let inner = length + usize::from(self.version == RecordVersion::Tls13);
        let ciphertext = explicit + inner + TAG_BYTES;
        let shown = match self.version {
            RecordVersion::Tls13 => Content::Data,
            RecordVersion::Tls12 => content,
        };
        out.extend_from_slice(&head(shown as u8, ciphertext));
        out.extend_from_slice(&nonce[12 - explicit..]);
        let from = out.len();
        for piece in pieces {
            out.extend_from_slice(piece);
        }
        if self.version == RecordVersion::Tls13 {
            out.push(content as u8);
        }
        let (data, data_len) = self.additional(sequence, content as u8, (ciphertext, length));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed =
            key.seal_in_place_separate_tag(nonce, Aad::from(&data[..data_len]), &mut out[from..]);
        match sealed {
            Ok(tag) => {
                out.extend_from_slice(tag.as_ref());
                Ok(())
            }
            Err(_) => {
                // Nothing that is not encrypted leaves.
                out.truncate(from - explicit - HEAD_BYTES);
                Err(Fatal::INTERNAL_ERROR)
            }
        }
    }

    /// Opens a whole record where it lies: its content, and where that is.
    ///
    /// # Errors
    /// It is not the peer's next record. That is final.
    pub fn open(&mut self, record: &mut [u8]) -> Result<(Content, Range<usize>), Fatal> {
        let (key, mut nonce) = self.ready()?;
        let shown = record[0];
        let sequence = self.step()?;
        let explicit = if self.has_explicit_nonce() {
            EXPLICIT_BYTES
        } else {
            0
        };
        let ciphertext = record.len() - HEAD_BYTES;
        let plaintext = ciphertext.checked_sub(explicit + TAG_BYTES);
        let plaintext = plaintext.ok_or(Fatal::DECODE_ERROR)?;
        let from = HEAD_BYTES + explicit;
        nonce[12 - explicit..].copy_from_slice(&record[HEAD_BYTES..from]);
        let (data, data_len) = self.additional(sequence, shown, (ciphertext, plaintext));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = key.open_in_place(nonce, Aad::from(&data[..data_len]), &mut record[from..]);
        let opened = opened.map_err(|_| Fatal::BAD_RECORD_MAC)?;
        if self.version == RecordVersion::Tls12 {
            let content = Content::of(shown).ok_or(Fatal::UNEXPECTED_MESSAGE)?;
            return match plaintext <= FRAGMENT_BYTES_MAX {
                true => Ok((content, from..from + plaintext)),
                false => Err(Fatal::RECORD_OVERFLOW),
            };
        }
        // The type stands behind the content, and zeros behind that.
        let end = opened.iter().rposition(|&byte| byte != 0);
        let end = end.ok_or(Fatal::UNEXPECTED_MESSAGE)?;
        let content = Content::of(opened[end]).ok_or(Fatal::UNEXPECTED_MESSAGE)?;
        match end <= FRAGMENT_BYTES_MAX {
            true => Ok((content, from..from + end)),
            false => Err(Fatal::RECORD_OVERFLOW),
        }
    }
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
    empty_records: u32,
    /// A part of a KeyUpdate.
    message: Vec<u8>,
}

impl Incoming {
    /// That of these keys.
    pub fn new(keys: Keys) -> Incoming {
        Incoming {
            keys,
            empty_records: 0,
            message: Vec::new(),
        }
    }

    /// The peer has another key from its next record on.
    pub fn set_keys(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// Takes the record at the front of `bytes`. Gives its length, of which the caller lets go, and its meaning.
    ///
    /// # Errors
    /// The alert by which the connection is to end.
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<(usize, Step), Fatal> {
        let version = self.keys.version;
        let length = record_length(bytes, version)?;
        let Some(length) = length.filter(|length| *length <= bytes.len()) else {
            return Ok((0, Step::Partial));
        };
        let (content, place) = self.keys.open(&mut bytes[..length])?;
        if content != Content::Handshake && !self.message.is_empty() {
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
        // The key changes behind a KeyUpdate, so nothing may follow it in its record (RFC 8446 section 5.1).
        if self.message.len() + bytes.len() > KEY_UPDATE_BYTES {
            return Err(Fatal::UNEXPECTED_MESSAGE);
        }
        self.message.extend_from_slice(bytes);
        let begin = [24, 0, 0, 1];
        let seen = self.message.len().min(begin.len());
        if self.message[..seen] != begin[..seen] {
            return Err(Fatal::UNEXPECTED_MESSAGE);
        }
        match self.message.get(begin.len()) {
            None => Ok(Step::Nothing),
            Some(&request) => {
                self.message.clear();
                match request {
                    0 | 1 => Ok(Step::KeyUpdate {
                        wants_answer: request == 1,
                    }),
                    _ => Err(Fatal::ILLEGAL_PARAMETER),
                }
            }
        }
    }
}

/// Meaning of an alert. In 1.3 all are fatal but two, whatever their level says.
fn alert(version: RecordVersion, bytes: &[u8]) -> Result<Step, Fatal> {
    const WARNING: u8 = 1;
    match *bytes {
        [_, 0] => Ok(Step::Closed),
        [_, 90] => Ok(Step::Nothing),
        [WARNING, _] if version == RecordVersion::Tls12 => Ok(Step::Nothing),
        [_, alert] => Ok(Step::Ended(alert)),
        _ => Err(Fatal::DECODE_ERROR),
    }
}

#[cfg(test)]
mod tests;
