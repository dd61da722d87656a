//! Distinguished encoding rules (X.690), as far as certificates need them: a walk over tags and lengths.

use std::fmt;

/// Universal and context-specific tags that a certificate has.
pub mod tag {
    /// BOOLEAN.
    pub const BOOLEAN: u8 = 0x01;
    /// INTEGER.
    pub const INTEGER: u8 = 0x02;
    /// BIT STRING.
    pub const BIT_STRING: u8 = 0x03;
    /// OCTET STRING.
    pub const OCTET_STRING: u8 = 0x04;
    /// OBJECT IDENTIFIER.
    pub const OBJECT_IDENTIFIER: u8 = 0x06;
    /// UTF8String.
    pub const UTF8_STRING: u8 = 0x0c;
    /// PrintableString.
    pub const PRINTABLE_STRING: u8 = 0x13;
    /// IA5String.
    pub const IA5_STRING: u8 = 0x16;
    /// UTCTime.
    pub const UTC_TIME: u8 = 0x17;
    /// GeneralizedTime.
    pub const GENERALIZED_TIME: u8 = 0x18;
    /// SEQUENCE.
    pub const SEQUENCE: u8 = 0x30;
    /// SET.
    pub const SET: u8 = 0x31;
    /// Context-specific and constructed.
    pub const fn constructed(number: u8) -> u8 {
        0xa0 | number
    }
    /// Context-specific and primitive.
    pub const fn primitive(number: u8) -> u8 {
        0x80 | number
    }
}

/// Reason that bytes are no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DerError {
    /// An element is longer than the bytes there are.
    Truncated,
    /// A length or a tag is not as DER has it: indefinite, of more than 4 bytes, or not the shortest.
    Form,
    /// Another element stands there.
    Unexpected,
    /// A time is no time.
    Time,
}

impl fmt::Display for DerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DerError::Truncated => "it ends within an element",
            DerError::Form => "an element is not encoded as DER has it",
            DerError::Unexpected => "it has another element in place of one that a certificate has",
            DerError::Time => "a time in it is none",
        })
    }
}

/// Elements one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// Those of these bytes.
    pub fn of(bytes: &'a [u8]) -> Elements<'a> {
        Elements(bytes)
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element: its tag and its content.
    ///
    /// # Errors
    /// It does not end within the bytes, or is not in the form of DER.
    pub fn take(&mut self) -> Result<(u8, &'a [u8]), DerError> {
        let (&tag, rest) = self.0.split_first().ok_or(DerError::Truncated)?;
        // Tags of several bytes stand in no certificate.
        if tag & 0x1f == 0x1f {
            return Err(DerError::Form);
        }
        let (&first, rest) = rest.split_first().ok_or(DerError::Truncated)?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let digits = usize::from(first & 0x7f);
                let (digits, rest) = rest.split_at_checked(digits).ok_or(DerError::Truncated)?;
                let length = digits
                    .iter()
                    .fold(0u32, |length, digit| length << 8 | u32::from(*digit));
                if digits[0] == 0 || length < 0x80 {
                    return Err(DerError::Form);
                }
                (length as usize, rest)
            }
            _ => return Err(DerError::Form),
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(DerError::Truncated)?;
        self.0 = rest;
        Ok((tag, content))
    }

    /// The content of the next element, which has this tag.
    ///
    /// # Errors
    /// As of [`take`](Elements::take), and if the tag is another.
    pub fn expect(&mut self, tag: u8) -> Result<&'a [u8], DerError> {
        match self.take()? {
            (found, content) if found == tag => Ok(content),
            _ => Err(DerError::Unexpected),
        }
    }

    /// The content of the next element, if it has this tag; else it stays.
    ///
    /// # Errors
    /// As of [`take`](Elements::take).
    pub fn take_if(&mut self, tag: u8) -> Result<Option<&'a [u8]>, DerError> {
        match self.0.first() {
            Some(found) if *found == tag => self.expect(tag).map(Some),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_der_alone() {
        let take = |bytes: &[u8]| Elements(bytes).take().map(|(_, content)| content.len());
        assert_eq!(take(&[0x04, 2, 1, 2]), Ok(2));
        assert_eq!(take(&[0x04, 0]), Ok(0));
        let mut long = vec![0x04, 0x81, 0x80];
        long.extend([0; 0x80]);
        assert_eq!(take(&long), Ok(0x80));
        for (bytes, error) in [
            (&[0x04][..], DerError::Truncated),
            (&[0x04, 1], DerError::Truncated),
            (&[0x04, 0x82, 1], DerError::Truncated),
            (&[0x04, 0x84, 0xff, 0xff, 0xff, 0xff], DerError::Truncated),
            // Indefinite, too long, and longer than need be.
            (&[0x04, 0x80, 0, 0], DerError::Form),
            (&[0x04, 0x85, 1, 0, 0, 0, 0], DerError::Form),
            (&[0x04, 0x81, 1, 0], DerError::Form),
            (&[0x04, 0x82, 0, 0x80], DerError::Form),
            (&[0x1f, 1, 0], DerError::Form),
        ] {
            assert_eq!(take(bytes), Err(error), "{bytes:x?}");
        }
    }
}
