//! Keys of one direction: what seals and opens records, and counts them.

use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;
use zeroize::Zeroize;

use super::{Content, FRAGMENT_BYTES_MAX, Fatal, HEAD_BYTES, RecordVersion, head};

const TAG_BYTES: usize = 16;

/// The explicit part of a nonce of AES-GCM in 1.2.
const EXPLICIT_BYTES: usize = 8;

/// Records that one key of AES-GCM may seal (RFC 8446 section 5.5).
const GCM_RECORDS_MAX: u64 = 1 << 24;

/// The cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

impl Cipher {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Cipher::Aes128Gcm => &AES_128_GCM,
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::Chacha20Poly1305 => &CHACHA20_POLY1305,
        }
    }
}

/// Key of one direction, with its next sequence number. The key is wiped when it is dropped, and never shown.
pub struct Keys {
    pub(super) sequence: u64,
    secret: [u8; 32],
    iv: [u8; 12],
    cipher: Cipher,
    version: RecordVersion,
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.iv.zeroize();
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("version", &self.version)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// A key made ready to seal and open by.
pub struct MadeKey {
    secret: [u8; 32],
    cipher: Cipher,
    key: LessSafeKey,
}

impl MadeKey {
    /// Whether it is the key of these.
    pub fn is_of(&self, keys: &Keys) -> bool {
        self.cipher == keys.cipher && self.secret == keys.secret
    }
}

impl Drop for MadeKey {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for MadeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeKey").finish_non_exhaustive()
    }
}

impl Keys {
    /// Those of a handshake or of a key update. The number is that of their next record.
    ///
    /// # Errors
    /// They are of a cipher that is not known here.
    pub fn new(
        version: RecordVersion,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Keys, Fatal> {
        let (cipher, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Cipher::Chacha20Poly1305, key, iv)
            }
            _ => return Err(Fatal::INTERNAL_ERROR),
        };
        let mut keys = Keys {
            sequence,
            secret: [0; 32],
            iv: [0; 12],
            cipher,
            version,
        };
        let length = cipher.algorithm().key_len();
        if key.as_ref().len() != length || iv.as_ref().len() != keys.iv.len() {
            return Err(Fatal::INTERNAL_ERROR);
        }
        keys.secret[..length].copy_from_slice(key.as_ref());
        keys.iv.copy_from_slice(iv.as_ref());
        Ok(keys)
    }

    /// The next keys of the same direction, from their first record on: `fill` puts in key and IV.
    ///
    /// # Errors
    /// As of `fill`.
    pub fn renewed(
        &self,
        fill: impl FnOnce(&mut [u8], &mut [u8]) -> Result<(), Fatal>,
    ) -> Result<Keys, Fatal> {
        let mut keys = Keys {
            sequence: 0,
            secret: [0; 32],
            iv: [0; 12],
            cipher: self.cipher,
            version: self.version,
        };
        let length = self.cipher.algorithm().key_len();
        fill(&mut keys.secret[..length], &mut keys.iv)?;
        Ok(keys)
    }

    /// The same once more, to open by what these seal.
    #[cfg(test)]
    pub(super) fn twin(&self) -> Keys {
        Keys {
            sequence: self.sequence,
            secret: self.secret,
            iv: self.iv,
            cipher: self.cipher,
            version: self.version,
        }
    }

    /// A record of 1.3 with these bytes inside, whatever they are.
    #[cfg(test)]
    pub(super) fn seal_inner(&mut self, inner: &[u8]) -> Vec<u8> {
        let made = self.make().expect("a key");
        let ciphertext = inner.len() + TAG_BYTES;
        let mut record = head(Content::Data as u8, ciphertext).to_vec();
        let aad = Aad::from(record.clone());
        let mut sealed = inner.to_vec();
        let nonce = Nonce::assume_unique_for_key(self.nonce());
        let appended = made.key.seal_in_place_append_tag(nonce, aad, &mut sealed);
        appended.expect("memory");
        self.sequence += 1;
        record.extend(sealed);
        record
    }

    /// Version of the records.
    pub fn version(&self) -> RecordVersion {
        self.version
    }

    /// Number of the next record.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Records that may be sealed.
    fn sealed_max(&self) -> u64 {
        match self.cipher {
            #[cfg(test)]
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => super::once::records_max(GCM_RECORDS_MAX),
            #[cfg(not(test))]
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => GCM_RECORDS_MAX,
            Cipher::Chacha20Poly1305 => u64::MAX - 1,
        }
    }

    /// Whether another key to seal by is due: half of what this one is good for is used up.
    pub fn is_worn(&self) -> bool {
        self.sequence >= self.sealed_max() / 2
    }

    /// Makes the key ready. That costs more than sealing a small record does.
    ///
    /// # Errors
    /// The library does not take it.
    pub fn make(&self) -> Result<MadeKey, Fatal> {
        let algorithm = self.cipher.algorithm();
        let key = UnboundKey::new(algorithm, &self.secret[..algorithm.key_len()]);
        let key = key.map_err(|_| Fatal::INTERNAL_ERROR)?;
        Ok(MadeKey {
            secret: self.secret,
            cipher: self.cipher,
            key: LessSafeKey::new(key),
        })
    }

    /// The nonce of the next record.
    pub(super) fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        nonce
    }

    /// Bytes of the nonce that stand before the ciphertext.
    fn explicit(&self) -> usize {
        match (self.version, self.cipher) {
            (RecordVersion::Tls12, Cipher::Aes128Gcm | Cipher::Aes256Gcm) => EXPLICIT_BYTES,
            _ => 0,
        }
    }

    /// Takes the next sequence number, for good.
    fn step(&mut self, max: u64) -> Result<u64, Fatal> {
        if self.sequence >= max {
            return Err(Fatal::INTERNAL_ERROR);
        }
        let sequence = self.sequence;
        self.sequence += 1;
        Ok(sequence)
    }

    /// What is authenticated of a record beside its content: of 1.3 its head, of 1.2 its number, type, version and length.
    fn additional(
        &self,
        sequence: u64,
        shown: [u8; 3],
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
                data[8..11].copy_from_slice(&shown);
                data[11..].copy_from_slice(&(plaintext as u16).to_be_bytes());
                (data, 13)
            }
        }
    }

    /// Appends one record with these pieces, of [`FRAGMENT_BYTES_MAX`] in all.
    ///
    /// # Errors
    /// The key is used up or another's, or there is more than a record holds; then nothing was appended, and no number taken.
    pub fn seal(
        &mut self,
        made: &MadeKey,
        content: Content,
        pieces: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), Fatal> {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        if length > FRAGMENT_BYTES_MAX {
            return Err(Fatal::RECORD_OVERFLOW);
        }
        if !made.is_of(self) {
            return Err(Fatal::INTERNAL_ERROR);
        }
        let nonce = self.nonce();
        let sequence = self.step(self.sealed_max())?;
        #[cfg(test)]
        super::once::note(&self.secret, &nonce);
        let explicit = self.explicit();
        let inner = length + usize::from(self.version == RecordVersion::Tls13);
        let ciphertext = explicit + inner + TAG_BYTES;
        let shown = match self.version {
            RecordVersion::Tls13 => Content::Data,
            RecordVersion::Tls12 => content,
        };
        out.reserve(HEAD_BYTES + ciphertext);
        out.extend_from_slice(&head(shown as u8, ciphertext));
        out.extend_from_slice(&nonce[12 - explicit..]);
        let from = out.len();
        for piece in pieces {
            out.extend_from_slice(piece);
        }
        if self.version == RecordVersion::Tls13 {
            out.push(content as u8);
        }
        let (data, data_len) =
            self.additional(sequence, [content as u8, 3, 3], (ciphertext, length));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let data = Aad::from(&data[..data_len]);
        match made
            .key
            .seal_in_place_separate_tag(nonce, data, &mut out[from..])
        {
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

    /// Appends one record by a key that is made for it alone.
    ///
    /// # Errors
    /// As of [`seal`](Keys::seal).
    pub fn seal_alone(
        &mut self,
        content: Content,
        pieces: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), Fatal> {
        let made = self.make()?;
        self.seal(&made, content, pieces, out)
    }

    /// Opens a whole record where it lies: its content, and where that is.
    ///
    /// # Errors
    /// It is not the peer's next record. That is final.
    pub fn open(
        &mut self,
        made: &MadeKey,
        record: &mut [u8],
    ) -> Result<(Content, Range<usize>), Fatal> {
        let mut nonce = self.nonce();
        let shown = [record[0], record[1], record[2]];
        let sequence = self.step(u64::MAX)?;
        let explicit = self.explicit();
        let ciphertext = record.len() - HEAD_BYTES;
        let plaintext = ciphertext.checked_sub(explicit + TAG_BYTES);
        let plaintext = plaintext.ok_or(Fatal::BAD_RECORD_MAC)?;
        let from = HEAD_BYTES + explicit;
        nonce[12 - explicit..].copy_from_slice(&record[HEAD_BYTES..from]);
        let (data, data_len) = self.additional(sequence, shown, (ciphertext, plaintext));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let data = Aad::from(&data[..data_len]);
        let opened = made.key.open_in_place(nonce, data, &mut record[from..]);
        let opened = opened.map_err(|_| Fatal::BAD_RECORD_MAC)?;
        if self.version == RecordVersion::Tls12 {
            let content = Content::of(shown[0]).ok_or(Fatal::UNEXPECTED_MESSAGE)?;
            return match plaintext <= FRAGMENT_BYTES_MAX {
                true => Ok((content, from..from + plaintext)),
                false => Err(Fatal::RECORD_OVERFLOW),
            };
        }
        // Padding takes its part of the bound (RFC 8446 section 5.4).
        if opened.len() > FRAGMENT_BYTES_MAX + 1 {
            return Err(Fatal::RECORD_OVERFLOW);
        }
        // The type stands behind the content, and zeros behind that.
        let end = opened.iter().rposition(|&byte| byte != 0);
        let end = end.ok_or(Fatal::UNEXPECTED_MESSAGE)?;
        let content = Content::of(opened[end]).ok_or(Fatal::UNEXPECTED_MESSAGE)?;
        Ok((content, from..from + end))
    }
}

// One for each direction of every connection.
const _: () = assert!(size_of::<Keys>() <= 56);
