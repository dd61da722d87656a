//! One certificate: a walk over its fields (RFC 5280 section 4.1).

use super::der::{DerError, Elements, tag};
use super::time::take_time;

/// rsaEncryption (RFC 8017).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// id-ecPublicKey (RFC 5480).
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// Ed25519 (RFC 8410).
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// sha1WithRSAEncryption and ecdsa-with-SHA1; md5WithRSAEncryption is worse.
const WEAK_SIGNATURES: [&[u8]; 3] = [
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01],
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04],
];
/// id-at-commonName.
const SUBJECT_CN: &[u8] = &[0x55, 0x04, 0x03];
/// id-ce-subjectAltName.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Kind of a public key, with its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Key {
    /// RSA, with the bits of its modulus.
    Rsa(usize),
    /// A point of an elliptic curve, with the bits of a coordinate.
    Ec(usize),
    /// Ed25519.
    Ed25519,
    /// Another one.
    Other,
}

/// A name of the subject (RFC 5280 section 4.2.1.6). They are as they stand there, and not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Name<'a> {
    /// dNSName, which may begin with `*.`.
    Dns(&'a str),
    /// uniformResourceIdentifier.
    Uri(&'a str),
    /// rfc822Name: an address of e-mail.
    Email(&'a str),
}

/// Fields of a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    extensions: &'a [u8],
    signature_algorithm: &'a [u8],
    key: Key,
    not_before: u64,
    not_after: u64,
}

impl<'a> Certificate<'a> {
    /// Reads one in DER. Extensions are read when they are asked for.
    ///
    /// # Errors
    /// The bytes are no certificate.
    pub fn parse(der: &'a [u8]) -> Result<Certificate<'a>, DerError> {
        let mut outer = Elements::of(der);
        let mut signed = Elements::of(outer.expect(tag::SEQUENCE)?);
        if !outer.is_empty() {
            return Err(DerError::Unexpected);
        }
        let mut fields = Elements::of(signed.expect(tag::SEQUENCE)?);
        let mut algorithm = Elements::of(signed.expect(tag::SEQUENCE)?);
        let signature_algorithm = algorithm.expect(tag::OBJECT_IDENTIFIER)?;
        signed.expect(tag::BIT_STRING)?;
        let _version = fields.take_if(tag::constructed(0))?;
        let _serial_number = fields.expect(tag::INTEGER)?;
        let _signature = fields.expect(tag::SEQUENCE)?;
        let issuer = fields.expect(tag::SEQUENCE)?;
        let mut validity = Elements::of(fields.expect(tag::SEQUENCE)?);
        let (not_before, not_after) = (take_time(&mut validity)?, take_time(&mut validity)?);
        let subject = fields.expect(tag::SEQUENCE)?;
        let key = read_key(fields.expect(tag::SEQUENCE)?)?;
        let _issuer_id = fields.take_if(tag::primitive(1))?;
        let _subject_id = fields.take_if(tag::primitive(2))?;
        let extensions = match fields.take_if(tag::constructed(3))? {
            Some(wrapped) => Elements::of(wrapped).expect(tag::SEQUENCE)?,
            None => &[],
        };
        Ok(Certificate {
            issuer,
            subject,
            extensions,
            signature_algorithm,
            key,
            not_before,
            not_after,
        })
    }

    /// First second in which it counts, since 1970.
    pub fn not_before(&self) -> u64 {
        self.not_before
    }

    /// Last second in which it counts, since 1970.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Its public key.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Whether it is signed with a digest that clients no longer take: SHA-1 or MD5.
    pub fn has_weak_signature(&self) -> bool {
        WEAK_SIGNATURES.contains(&self.signature_algorithm)
    }

    /// Whether its issuer is its own subject, as of roots.
    pub fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// Whether its issuer is the subject of the other.
    pub fn is_issued_by(&self, other: &Certificate<'_>) -> bool {
        self.issuer == other.subject
    }

    /// The first common name of the subject, if it is UTF-8.
    pub fn subject_cn(&self) -> Option<&'a str> {
        cn_of(self.subject)
    }

    /// The common name of the issuer, if it is UTF-8.
    pub fn issuer_cn(&self) -> Option<&'a str> {
        cn_of(self.issuer)
    }

    /// Alternative names of the subject: the kinds of [`Name`], in their order.
    pub fn names(&self) -> impl Iterator<Item = Name<'a>> + use<'a> {
        let mut names = Elements::of(self.alternative_names().unwrap_or_default());
        std::iter::from_fn(move || {
            loop {
                let (tag, content) = names.take().ok()?;
                let text = |content| std::str::from_utf8(content).ok();
                let name = match tag {
                    _ if !content.is_ascii() => None,
                    0x81 => text(content).map(Name::Email),
                    0x82 => text(content).map(Name::Dns),
                    0x86 => text(content).map(Name::Uri),
                    _ => None,
                };
                if name.is_some() {
                    return name;
                }
            }
        })
    }

    /// Content of the extension of alternative names, if there is one.
    fn alternative_names(&self) -> Option<&'a [u8]> {
        let mut extensions = Elements::of(self.extensions);
        while !extensions.is_empty() {
            let mut extension = Elements::of(extensions.expect(tag::SEQUENCE).ok()?);
            if extension.expect(tag::OBJECT_IDENTIFIER).ok()? != SUBJECT_ALT_NAME {
                continue;
            }
            extension.take_if(tag::BOOLEAN).ok()?;
            let mut value = Elements::of(extension.expect(tag::OCTET_STRING).ok()?);
            return value.expect(tag::SEQUENCE).ok();
        }
        None
    }
}

fn cn_of(name: &[u8]) -> Option<&str> {
    let mut sets = Elements::of(name);
    while !sets.is_empty() {
        let mut set = Elements::of(sets.expect(tag::SET).ok()?);
        while !set.is_empty() {
            let mut attribute = Elements::of(set.expect(tag::SEQUENCE).ok()?);
            if attribute.expect(tag::OBJECT_IDENTIFIER).ok()? != SUBJECT_CN {
                continue;
            }
            let (tag, text) = attribute.take().ok()?;
            let is_text = matches!(
                tag,
                tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING
            );
            return is_text.then(|| std::str::from_utf8(text).ok()).flatten();
        }
    }
    None
}

fn read_key(content: &[u8]) -> Result<Key, DerError> {
    let mut fields = Elements::of(content);
    let mut algorithm = Elements::of(fields.expect(tag::SEQUENCE)?);
    let algorithm = algorithm.expect(tag::OBJECT_IDENTIFIER)?;
    let bits = fields.expect(tag::BIT_STRING)?;
    // The first byte says how many bits of the last one do not count: none.
    let key = bits.get(1..).ok_or(DerError::Truncated)?;
    match algorithm {
        RSA => {
            let mut numbers = Elements::of(Elements::of(key).expect(tag::SEQUENCE)?);
            let modulus = numbers.expect(tag::INTEGER)?;
            let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
            let digits = &modulus[zeros..];
            let unused = digits.first().map_or(0, |first| first.leading_zeros());
            Ok(Key::Rsa(digits.len() * 8 - unused as usize))
        }
        // An uncompressed point: a 4, and two coordinates.
        EC if key.first() == Some(&4) => Ok(Key::Ec(match key.len() / 2 {
            66 => 521,
            bytes => bytes * 8,
        })),
        ED25519 => Ok(Key::Ed25519),
        _ => Ok(Key::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An RSA-1024 certificate of version 1, signed with SHA-1, without extensions.
    const OLD: &str = include_str!("tests/old.pem");
    /// An ECDSA certificate with names of all kinds, as `openssl req -x509` made it.
    const NAMED: &str = include_str!("tests/named.pem");

    fn der(pem: &str) -> Vec<u8> {
        use base64::Engine;
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let engine = base64::engine::general_purpose::STANDARD;
        engine.decode(body).expect("base64")
    }

    #[test]
    fn fields_of_an_old_certificate() {
        let der = der(OLD);
        let old = Certificate::parse(&der).expect("a certificate");
        assert_eq!(old.key(), Key::Rsa(1024));
        assert!(old.has_weak_signature() && old.is_self_issued());
        assert_eq!(old.subject_cn(), Some("old.example"));
        assert_eq!(old.names().count(), 0);
        // 2020-01-01 to 2050-01-01, the second of which is a GeneralizedTime.
        assert_eq!(
            (old.not_before(), old.not_after()),
            (1_577_836_800, 2_524_608_000)
        );
    }

    #[test]
    fn names_of_every_kind() {
        let der = der(NAMED);
        let named = Certificate::parse(&der).expect("a certificate");
        assert_eq!(named.key(), Key::Ec(256));
        assert!(!named.has_weak_signature());
        assert_eq!(named.subject_cn(), Some("Zoë"));
        assert_eq!(named.issuer_cn(), Some("Zoë"));
        let names: Vec<_> = named.names().collect();
        let expected = [
            Name::Uri("spiffe://example/backend"),
            Name::Dns("a.example"),
            Name::Dns("*.b.example"),
            Name::Email("zoe@example.com"),
        ];
        assert_eq!(names, expected);
        assert!(named.is_issued_by(&named));
    }

    #[test]
    fn cut_or_changed_certificates_are_no_panic() {
        for der in [der(OLD), der(NAMED)] {
            for end in 0..der.len() {
                assert!(Certificate::parse(&der[..end]).is_err());
            }
            let mut changed = der.clone();
            for at in 0..der.len() {
                for flip in [0x01, 0x80, 0xff] {
                    changed[at] ^= flip;
                    if let Ok(read) = Certificate::parse(&changed) {
                        let _ = (read.subject_cn(), read.issuer_cn(), read.names().count());
                    }
                    changed[at] = der[at];
                }
            }
        }
    }
}
